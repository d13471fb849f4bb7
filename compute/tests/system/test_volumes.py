"""Real guests with volumes: iSCSI with CHAP from tgt, encrypted ones, booting from them, growing while they are used."""
import base64
import os
import shutil
import signal
import subprocess
import time
import uuid

import pytest

from kodiak.compute.agent import state

pytestmark = pytest.mark.system

PORT, CONTROL = 35460, 46
TGTADM = ('tgtadm', '-C', str(CONTROL), '--lld', 'iscsi')
IQN = 'iqn.2010-10.org.openstack:kodiak-test-'
PASSPHRASE = b'correct horse battery staple'


class Targets:
    """A tgtd of the test's own."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0
        self.process = subprocess.Popen(['tgtd', '-f', '-C', str(CONTROL), '--iscsi', f'portal=127.0.0.1:{PORT}'],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while subprocess.run([*TGTADM, '--mode', 'target', '--op', 'show'], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.1)

    def adm(self, mode, op, **options):
        extra = [part for name, value in options.items() for part in (f'--{name}', str(value))]
        subprocess.run([*TGTADM, '--mode', mode, '--op', op, *extra], check=True, capture_output=True)

    def export(self, path, **more):
        """A volume of what is in a file, behind CHAP."""
        self.number += 1
        name, user = f'{IQN}{self.number}', f'user{self.number}'
        self.adm('target', 'new', tid=self.number, targetname=name)
        self.adm('logicalunit', 'new', tid=self.number, lun=1, **{'backing-store': path})
        self.adm('account', 'new', user=user, password='secret-of-' + user)
        self.adm('account', 'bind', tid=self.number, user=user)
        self.adm('target', 'bind', tid=self.number, **{'initiator-address': 'ALL'})
        data = {'target_portal': f'127.0.0.1:{PORT}', 'target_iqn': name, 'target_lun': 1, 'auth_method': 'CHAP',
                'auth_username': user, 'auth_password': 'secret-of-' + user, 'access_mode': 'rw', 'discard': True,
                'encrypted': False, **more}
        return state.Volume(str(uuid.uuid4()), '/dev/vdb', size=1, attachment_id=str(uuid.uuid4()),
                            connection={'driver_volume_type': 'iscsi', 'data': data})

    def grow(self, number, path, size):
        """What lies under a target is larger now: the target opens its file anew, behind a closed door."""
        os.truncate(path, size)
        self.adm('target', 'update', tid=number, name='state', value='offline')
        self.adm('logicalunit', 'delete', tid=number, lun=1)
        self.adm('logicalunit', 'new', tid=number, lun=1, **{'backing-store': path})
        self.adm('target', 'update', tid=number, name='state', value='ready')

    def close(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def targets(tmp_path):
    if not shutil.which('tgtd'):
        pytest.skip('there is no tgtd')
    made = Targets(tmp_path)
    yield made
    made.close()


def sparse(path, size=32 << 20):
    with open(path, 'wb') as file:
        file.truncate(size)
    return path


def secrets():
    return subprocess.run(['virsh', '-q', '-c', 'qemu:///system', 'secret-list'], check=True, capture_output=True,
                          text=True).stdout.count('kodiak')


def test_an_iscsi_volume_comes_and_goes_and_keeps_its_bytes(host, new, targets, tmp_path):
    path = sparse(tmp_path / 'volume')
    volume = targets.export(path)
    one, _ = host.get(new())
    host.booted(one.uuid)
    one, told = host.get(one, volumes=[volume])
    assert told.plugged == [volume.id] and secrets() == 0
    shell = host.serial(one.uuid).login()
    assert shell.command('sleep 1; cat /sys/block/vdb/size') == str((32 << 20) // 512)
    assert volume.id.startswith(shell.command('cat /sys/block/vdb/serial'))
    shell.command('sudo mkfs.ext4 -q /dev/vdb; sudo mkdir -p /v; sudo mount /dev/vdb /v')
    shell.command('echo kodiak | sudo tee /v/a; sudo umount /v')
    one, told = host.get(one, volumes=[])
    assert told.plugged == [] and 'vdb' not in shell.command('ls /sys/block')
    # A second guest reads what the first wrote, after the host's agent was killed in between.
    host.kill_agent()
    host.start_agent()
    two, told = host.get(new(volumes=[volume]))
    assert told.plugged == [volume.id] and secrets() == 0
    host.booted(two.uuid)
    shell = host.serial(two.uuid).login()
    assert shell.command('sudo mkdir -p /v; sudo mount /dev/vdb /v; cat /v/a') == 'kodiak'
    # Its memory goes to disk and comes back, with the volume.
    two, _ = host.get(two, desired='suspended')
    two, told = host.get(two, desired='running')
    assert told.plugged == [volume.id]
    shell = host.serial(two.uuid)
    shell.socket.sendall(b'\n')
    assert shell.command('cat /v/a') == 'kodiak'


def test_a_wrong_password_is_no_volume(host, new, targets, tmp_path):
    volume = targets.export(sparse(tmp_path / 'volume'), auth_password='wrong-password')
    one, _ = host.get(new())
    one = host.wish(one, volumes=[volume])
    host.look()
    with host.conductor.said:
        assert host.conductor.said.wait_for(lambda: host.conductor.reports[one.uuid].fault, 60)
    assert 'wrong-password' not in host.conductor.reports[one.uuid].fault.message
    one, told = host.get(one, volumes=[])
    assert told.power_state == 'running' and told.plugged == []


def test_an_encrypted_volume_is_no_plain_text(host, new, targets, tmp_path):
    path, key = tmp_path / 'volume', tmp_path / 'key'
    key.write_bytes(PASSPHRASE)
    subprocess.run(['qemu-img', 'create', '-q', '--object', f'secret,id=k,file={key}', '-f', 'luks', '-o',
                    'key-secret=k,iter-time=10', str(path), '32M'], check=True)
    volume = targets.export(path, encrypted=True)
    (host.folder / 'keys').mkdir(exist_ok=True)
    (host.folder / 'keys' / volume.id).write_text(base64.b64encode(PASSPHRASE).decode())
    one, _ = host.get(new())
    host.booted(one.uuid)
    one, _told = host.get(one, volumes=[volume])
    shell = host.serial(one.uuid).login()
    assert shell.command('sleep 1; cat /sys/block/vdb/size') == str((32 << 20) // 512) and secrets() == 0
    shell.command('echo plain-text-of-the-guest | sudo dd of=/dev/vdb conv=fsync')
    assert b'plain-text-of-the-guest' not in path.read_bytes()
    one, _ = host.get(one, volumes=[])
    assert PASSPHRASE.decode() not in subprocess.run(['ps', 'axww'], capture_output=True, text=True, check=True).stdout


def test_a_guest_boots_from_a_volume(host, new, targets, guest_image, tmp_path):
    path = tmp_path / 'volume'
    subprocess.run(['qemu-img', 'convert', '-O', 'raw', guest_image, str(path)], check=True)
    os.truncate(path, 1 << 30)
    root = targets.export(path)
    root.boot_index, root.device = 0, '/dev/vda'
    data = targets.export(sparse(tmp_path / 'data'))
    wanted = new(volumes=[data, root], hardware={'hw_disk_bus': 'virtio'})
    wanted.spec.image = None
    one, told = host.get(wanted)
    assert sorted(told.plugged) == sorted([root.id, data.id])
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    assert shell.command('ls /sys/block | grep ^vd | tr "\\n" " "').split() == ['vda', 'vdb']
    assert root.id.startswith(shell.command('cat /sys/block/vda/serial'))
    # Grown while it is used, it is larger for the guest.
    targets.grow(2, tmp_path / 'data', 1 << 30)
    one, told = host.get(one, operations=[state.Operation(1, 'extend_volume', {'volume_id': data.id, 'size': 1})])
    assert told.outcomes[0].fault is None
    assert shell.command('sleep 1; cat /sys/block/vdb/size') == str((1 << 30) // 512)
    one, _ = host.get(one, desired='stopped', operations=[])
    one, _ = host.get(one, desired='running')
    host.booted(one.uuid)


def test_a_volume_takes_the_place_of_another_while_the_guest_writes(host, new, targets, tmp_path):
    before, after = targets.export(sparse(tmp_path / 'before')), targets.export(sparse(tmp_path / 'after', 64 << 20))
    one, _ = host.get(new(volumes=[before]))
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    shell.command('echo kodiak | sudo dd of=/dev/vdb conv=fsync')
    after.replaces = before.id
    one, told = host.get(one, volumes=[after])
    assert told.plugged == [after.id] and secrets() == 0
    shell.command('echo bear | sudo dd of=/dev/vdb seek=1 conv=fsync')
    with open(tmp_path / 'after', 'rb') as file:
        assert file.read(6) == b'kodiak' and file.seek(512) and file.read(4) == b'bear'
    with open(tmp_path / 'before', 'rb') as file:
        assert file.seek(512) and file.read(4) != b'bear'
    one, told = host.get(one, volumes=[])
    assert told.plugged == [] and 'vdb' not in shell.command('ls /sys/block')
