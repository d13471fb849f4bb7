"""stack.sh itself: what it left running, and that a second run changes nothing."""
import os
import pathlib
import stat
import subprocess

import pytest
from cloud import Guest, address_of, kodiak_processes

pytestmark = pytest.mark.system
TOP = pathlib.Path(__file__).resolve().parents[2]


def test_first_server_answers_by_ssh(demo):
    servers = [item for item in demo('server list') if item['Name'] == 'first' and item['Status'] == 'ACTIVE']
    assert len(servers) == 1
    assert Guest(address_of(servers[0]['Networks']), pathlib.Path.home() / '.ssh' / 'kodiak')('sudo id -u') == '0'


def test_no_service_runs_as_root():
    found = kodiak_processes()
    assert found
    assert {name for name, uid in found.values() if uid == 0} <= {'kodiak-privsep-helper'}


def test_secrets_are_closed():
    for path in ('/etc/kodiak/secrets', pathlib.Path.home() / '.config/openstack/clouds.yaml'):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, path
    for path in pathlib.Path('/etc/kodiak').glob('*.conf'):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
    secrets = [line.split('=', 1)[1] for line in pathlib.Path('/etc/kodiak/secrets').read_text().splitlines()]
    arguments = subprocess.run(['ps', 'ax', '-ww', '-o', 'args'], capture_output=True, text=True, check=True).stdout
    for secret in secrets:
        assert secret not in arguments
    for log in pathlib.Path('/var/log/kodiak').rglob('*.log'):
        text = log.read_text(errors='replace')
        assert not any(secret in text for secret in secrets), log


def test_a_second_run_changes_nothing(demo):
    before = kodiak_processes()
    servers, networks = demo('server list'), demo('network list')
    done = subprocess.run([TOP / 'devstack' / 'stack.sh'], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert 'answered SSH' in done.stdout
    assert {pid: name for pid, name in before.items() if 'privsep' not in name[0]}.items() <= kodiak_processes().items()
    assert demo('server list') == servers
    assert demo('network list') == networks
