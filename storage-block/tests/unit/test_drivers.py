"""What the contract suite does not see of the drivers."""
import subprocess
import types

import pytest

from kodiak.storage_block.drivers import base, root
from kodiak.storage_block.drivers.lvm import LvmDriver
from kodiak.storage_block.drivers.nfs import NfsDriver
from kodiak.storage_block.drivers.rbd import RbdDriver
from kodiak.storage_block.exports import pki


@pytest.mark.parametrize('command, args', [
    ('rm', ['-rf', 'vg/volume']), ('lvs', ['vg; rm']), ('lvcreate', ['-n', '$(id)']), ('lvremove', ['../x', '`id`']),
    ('lvs', ['']), ('lvconvert', ['vg/x'])])
def test_the_privileged_daemon_runs_no_other_commands(monkeypatch, command, args):
    monkeypatch.setattr(root.context, 'client_mode', False)
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: pytest.fail('it ran'))
    with pytest.raises(ValueError):
        root.lvm(command, *args)


@pytest.mark.parametrize('share, path', [('host', '/mnt'), ('host:/x -o suid', '/mnt'), ('-t', '/mnt'), ('host:/share', 'mnt')])
def test_it_mounts_nothing_else(monkeypatch, share, path):
    monkeypatch.setattr(root.context, 'client_mode', False)
    monkeypatch.setattr(subprocess, 'run', lambda *args, **kwargs: pytest.fail('it ran'))
    with pytest.raises(ValueError):
        root.mount_nfs(share, path)


def test_a_share_is_mounted_once(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(root, 'mount_nfs', lambda *args: asked.append(args) or (32, 'mount.nfs: access denied'))
    driver = NfsDriver('nfs', types.SimpleNamespace(location='host:/share', path=str(tmp_path / 'share')))
    with pytest.raises(base.Fault, match='access denied'):
        driver.start()
    assert asked == [('host:/share', str(tmp_path / 'share'))]
    monkeypatch.setattr('os.path.ismount', lambda path: True)
    driver.start()
    assert len(asked) == 1


def test_guests_are_told_where_ceph_is(monkeypatch):
    driver = RbdDriver('ceph', types.SimpleNamespace(location='volumes', user='cinder', secret_uuid='uuid'))
    monitors = '{"mons": [{"addr": "192.0.2.1:6789/0"}, {"addr": "[2001:db8::1]:3300/0"}]}'
    monkeypatch.setattr(driver, '_tool', lambda *args: (0, monitors, ''))
    data = driver.connection('volume-1')['data']
    assert data['name'] == 'volumes/volume-1' and data['auth_username'] == 'cinder' and data['secret_uuid'] == 'uuid'
    assert data['hosts'] == ['192.0.2.1', '2001:db8::1'] and data['ports'] == ['6789', '3300']


@pytest.mark.parametrize('status, complaint, code', [
    (5, 'Insufficient free space: 1024 extents needed', 'no-space'), (5, 'Volume group "vg" not found', 'back-end')])
def test_what_lvm_complains_of(monkeypatch, status, complaint, code):
    driver = LvmDriver('lvm', types.SimpleNamespace(location='vg/pool'))
    monkeypatch.setattr(driver, '_lvm', lambda *args: (status, '', complaint))
    with pytest.raises(base.Fault) as caught:
        driver.start()
    assert caught.value.code == code and 'vg' not in caught.value.message


def test_certificates_are_made_once_and_anew_for_other_names(tmp_path):
    paths = pki.make(str(tmp_path), ['192.0.2.1', 'host'])

    def content():
        return {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob('*.pem')}
    first = content()
    assert len(first) == 8 and (tmp_path / 'ca-key.pem').stat().st_mode & 0o777 == 0o600
    for kind in ('server', 'client'):
        done = subprocess.run(['openssl', 'verify', '-CAfile', f'{paths[kind]}/ca-cert.pem', '-purpose', 'ssl' + kind,
                               f'{paths[kind]}/{kind}-cert.pem'], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pki.make(str(tmp_path), ['192.0.2.1', 'host'])
    assert content() == first
    pki.make(str(tmp_path), ['192.0.2.2'])
    assert {path.name for path, data in content().items() if data != first[path]} == {'server-key.pem', 'server-cert.pem'}
