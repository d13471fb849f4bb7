"""What lies in ``etc/`` of each distribution is what its admin command prints (``tox -e genconfig,genpolicy`` writes it anew)."""
import os
import pathlib
import subprocess
import sys

import pytest

TOP = pathlib.Path(__file__).parents[2]
SERVICES = sorted(path.parts[-3] for path in TOP.glob('[a-z]*/etc/*.conf.sample'))


def printed(service, command):
    program = f'import sys; from kodiak.{service.replace("-", "_")} import cmd; sys.argv[1:] = ["{command}"]; cmd.admin()'
    # The options of stores and back ends are those of the configuration; a cloud that runs here must not be asked.
    environment = {**os.environ, 'KODIAK_CONFIG_DIR': '/nonexistent'}
    return subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize('service', SERVICES)
def test_the_configuration(service):
    assert printed(service, 'config-sample') == (TOP / service / 'etc' / f'{service}.conf.sample').read_text()


@pytest.mark.parametrize('service', [service for service in SERVICES if service != 'storage-object'])
def test_the_policy(service):
    assert printed(service, 'policy-sample') == (TOP / service / 'etc' / 'policy.yaml.sample').read_text()
