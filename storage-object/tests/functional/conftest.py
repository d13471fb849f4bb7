"""The proxy's pipeline over stand-ins of the servers behind it."""
import importlib.util
import pathlib
import sys

import pytest

SPEC = importlib.util.spec_from_file_location('storage_object_double', pathlib.Path(__file__).with_name('double.py'))
double = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = double
SPEC.loader.exec_module(double)


@pytest.fixture
def servers():
    """Four devices."""
    world = double.Servers()
    yield world
    world.stop()


@pytest.fixture
def rings(servers):
    """Rings of three replicas over them."""
    from kodiak.storage_object.proxy.rings import Rings
    return Rings(servers.ring(), servers.ring(), [double.Policy(servers.ring())])
