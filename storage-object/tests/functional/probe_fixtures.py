"""What probes begin with: a cluster of the module's, a client of it, an account of the test's."""
import hashlib
import sys

import pytest

Cluster = sys.modules['storage_object_probe'].Cluster


def fixtures_of(*arguments, **more):
    """The fixtures ``started``, ``cluster``, ``call`` and ``account`` (with a container ``c``) of a module.

    :param arguments: of :class:`.probe.Cluster`, after its folder.
    """
    @pytest.fixture(scope='module')
    def started(tmp_path_factory):
        world = Cluster(tmp_path_factory.mktemp('probe'), *arguments, **more)
        world.up()
        yield world
        world.down()

    @pytest.fixture
    def cluster(started):
        started.make_devices()
        started.up()
        return started

    @pytest.fixture
    def call(cluster):
        return cluster.caller()

    @pytest.fixture
    def account(call, request):
        name = account_of(request)
        assert call('PUT', f'/v1/{name}/c').status == 201
        return name
    return started, cluster, call, account


def account_of(request):
    """The name of an account of the test's own."""
    return 'AUTH_' + hashlib.md5(request.node.name.encode()).hexdigest()[:8]
