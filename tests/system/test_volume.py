"""Volumes through the stock client: made of images and of each other, written by guests, moved between them, kept and encrypted."""
import contextlib
import glob
import os
import re
import subprocess

import pytest
from cloud import IMAGE, Guest, until

pytestmark = pytest.mark.system
FILES = '/var/lib/kodiak/storage-block/disk/*/'


class Volumes:
    """What a test makes, taken away at its end, the newest first."""

    def __init__(self, demo, unique):
        self.demo, self.unique, self.stack = demo, unique, contextlib.ExitStack()

    def status(self, kind, id):
        return self.demo(f'{kind} show', id)['status']

    def becomes(self, kind, id, wanted, seconds=60):
        def look():
            found = self.status(kind, id)
            assert found == wanted or 'error' not in found, self.demo.text('volume message list')
            return found == wanted
        until(seconds, f'{kind} {id} {wanted}', look)

    def gone(self, kind, id):
        def look():
            done = self.demo.run(f'{kind} delete', id)
            return done.returncode != 0 and re.search('No .*found|could not be found|404', done.stderr)
        until(60, f'the end of {kind} {id}', look, pause=1)

    def make(self, *arguments, kind='volume', wanted='available', name='data'):
        id = self.demo(f'{kind} create', *arguments, *(() if kind == 'volume backup' else [self.unique(name)]))['id']
        self.stack.callback(self.gone, kind, id)
        self.becomes(kind, id, wanted)
        return id


@pytest.fixture
def volumes(demo, unique):
    made = Volumes(demo, unique)
    with made.stack:
        yield made


def launch(demo, key, open_group, name, *arguments):
    """(id, Guest) of a server with a floating IP."""
    made = demo('server create', name, '--flavor', 'm1.nano', '--network', 'private', '--key-name', key[0],
                '--security-group', open_group.id, *arguments, '--wait')
    address = demo('floating ip create', 'public')['floating_ip_address']
    demo.text('server add floating ip', made['id'], address)
    return made['id'], Guest(address, key[1]).wait()


def land(demo, server_id, guest):
    demo.run('server delete', server_id, '--wait')
    demo.run('floating ip delete', guest.address)


@pytest.fixture(scope='module')
def servers(demo, key, open_group):
    """Two servers with floating IPs."""
    made = []
    try:
        for name in ('volumes-one', 'volumes-two'):
            made.append(launch(demo, key, open_group, name, '--image', IMAGE))
        yield made
    finally:
        for server_id, guest in made:
            land(demo, server_id, guest)


def disk(guest):
    """The newest disk of a guest: ``vdb``, or None."""
    names = guest('ls /sys/block').split()
    return next((name for name in reversed(names) if name.startswith('vd') and name != 'vda'), None)


def attach(demo, volumes, server, volume):
    server_id, guest = server
    demo.text('server add volume', server_id, volume)
    volumes.becomes('volume', volume, 'in-use')
    return until(30, 'the disk in the guest', lambda: disk(guest))


def detach(demo, volumes, server, volume):
    server_id, guest = server
    demo.text('server remove volume', server_id, volume)
    volumes.becomes('volume', volume, 'available')
    assert disk(guest) is None


def size_of(guest, name):
    return int(guest(f'cat /sys/block/{name}/size')) * 512 >> 30


def test_bytes_go_from_guest_to_guest_and_come_back_from_a_backup(demo, volumes, servers):
    volume = volumes.make('--size', 1)
    one, two = servers
    name = attach(demo, volumes, one, volume)
    one[1](f'sudo mke2fs -q /dev/{name} && sudo mount /dev/{name} /mnt')
    one[1]('sudo dd if=/dev/urandom of=/mnt/data bs=1M count=16 && sync')
    kept = one[1]('md5sum < /mnt/data')
    assert size_of(one[1], name) == 1

    # It grows while it is used.
    demo.text('--os-volume-api-version 3.59 volume set --size 2', volume)
    until(30, 'the guest to see the size', lambda: size_of(one[1], name) == 2)
    assert one[1]('md5sum < /mnt/data') == kept
    one[1]('sudo umount /mnt')
    detach(demo, volumes, one, volume)

    name = attach(demo, volumes, two, volume)
    assert two[1](f'sudo mount /dev/{name} /mnt && md5sum < /mnt/data') == kept
    snapshot = volumes.make('--volume', volume, kind='--os-volume-api-version 3.66 volume snapshot', name='then')
    two[1]('sudo dd if=/dev/urandom of=/mnt/data bs=1M count=16 && sync && sudo umount /mnt')
    detach(demo, volumes, two, volume)

    clone = volumes.make('--snapshot', snapshot, '--size', 3)
    name = attach(demo, volumes, one, clone)
    assert one[1](f'sudo mount /dev/{name} /mnt && md5sum < /mnt/data && sudo umount /mnt') == kept
    detach(demo, volumes, one, clone)

    backup = volumes.make(clone, kind='volume backup')
    restored = volumes.make('--size', 3)
    demo.text('volume backup restore --force', backup, restored)
    volumes.becomes('volume', restored, 'available')
    name = attach(demo, volumes, two, restored)
    assert two[1](f'sudo mount /dev/{name} /mnt && md5sum < /mnt/data && sudo umount /mnt') == kept
    detach(demo, volumes, two, restored)


def test_a_server_boots_from_a_volume_of_an_image(demo, volumes, key, open_group):
    volume = volumes.make('--size', 1, '--image', IMAGE)
    server_id, guest = launch(demo, key, open_group, 'from-volume', '--volume', volume)
    try:
        assert guest('hostname') == 'from-volume'
        guest('echo here > /home/cirros/mark; sync')
    finally:
        land(demo, server_id, guest)
    volumes.becomes('volume', volume, 'available')
    server_id, guest = launch(demo, key, open_group, 'from-volume-again', '--volume', volume)
    try:
        assert guest('cat /home/cirros/mark') == 'here', 'the disk outlived the server'
    finally:
        land(demo, server_id, guest)
    volumes.becomes('volume', volume, 'available')


def test_what_is_encrypted_is_not_on_the_disk(demo, volumes, servers):
    one = servers[0]
    volume = volumes.make('--size', 1, '--type', 'encrypted')
    name = attach(demo, volumes, one, volume)
    assert size_of(one[1], name) == 1, 'its owner has all of its size'
    one[1](f'yes "plain text in a volume" | head -c 4000000 | sudo dd of=/dev/{name} bs=1M && sync')
    assert one[1](f'sudo head -c 20 /dev/{name}') == 'plain text in a volu'
    path = glob.glob(f'{FILES}volume-{volume}')
    if os.geteuid() == 0 and path:
        with open(path[0], 'rb') as file:
            data = file.read(16 << 20)
        assert data.startswith(b'LUKS') and b'plain text' not in data
    running = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True, check=True).stdout
    assert 'key-secret' not in running or 'data=' not in running
    detach(demo, volumes, one, volume)


def test_a_volume_of_an_encrypted_type_boots(demo, volumes, key, open_group):
    volume = volumes.make('--size', 1, '--image', IMAGE, '--type', 'encrypted')
    server_id, guest = launch(demo, key, open_group, 'encrypted', '--volume', volume)
    try:
        assert guest('hostname') == 'encrypted'
    finally:
        land(demo, server_id, guest)
    volumes.becomes('volume', volume, 'available')


def test_a_volume_changes_its_project(demo, admin, volumes, unique):
    volume = volumes.make('--size', 1)
    transfer = demo('volume transfer request create', volume, '--name', unique('gift'))
    accepted = admin('volume transfer request accept', transfer['id'], '--auth-key', transfer['auth_key'])
    assert accepted['volume_id'] == volume
    assert demo.run('volume show', volume).returncode != 0
    assert admin('volume show', volume)['status'] == 'available'
    admin.text('volume delete', volume)


def test_what_cannot_be_is_said(demo, volumes, servers):
    one = servers[0]
    assert 'size' in demo.run('volume create', '--size', 0, 'none').stderr
    volume = volumes.make('--size', 1)
    attach(demo, volumes, one, volume)
    done = demo.run('volume delete', volume)
    assert done.returncode and 'must be' in done.stderr
    detach(demo, volumes, one, volume)
    done = demo.run('volume create', '--size', 1_000_000, 'none')
    assert done.returncode and 'gigabytes' in done.stderr


def test_a_volume_moves_to_another_back_end_while_a_guest_writes(demo, admin, volumes, servers, unique):
    pools = [pool['Name'] for pool in admin('volume backend pool list')]
    if len(pools) < 2:
        pytest.skip('needs two back ends: VOLUME_EXPORTS="iscsi nbd"')
    one, (first, second) = servers[0], pools[:2]
    types = {}
    for pool in (first, second):
        types[pool] = unique('type')
        admin('volume type create', types[pool], '--property', 'volume_backend_name=' + pool.partition('#')[2])
        volumes.stack.callback(admin.text, 'volume type delete', types[pool])
    volume = volumes.make('--size', 1, '--type', types[first])
    name = attach(demo, volumes, one, volume)
    one[1](f'sudo mke2fs -q /dev/{name} && sudo mount /dev/{name} /mnt')
    one[1]('sudo dd if=/dev/urandom of=/mnt/data bs=1M count=16 && sync')
    kept = one[1]('md5sum < /mnt/data')
    one[1]('nohup sudo sh -c "until [ -e /tmp/enough ]; do date > /mnt/now; sync; sleep 0.2; done" > /dev/null 2>&1 &')

    def there(pool):
        shown = admin('volume show', volume)
        return (shown['status'], shown['os-vol-host-attr:host'], shown['os-vol-mig-status-attr:migstat']) == (
            'in-use', pool, 'success') and shown
    for pool in (second, first):
        demo.text('volume set --migration-policy on-demand --type', types[pool], volume)
        assert until(120, f'the volume to be moved to {pool}', lambda pool=pool: there(pool))['type'] == types[pool]
    assert one[1]('md5sum < /mnt/data') == kept
    assert 'error' not in one[1](f'sudo dmesg | grep {name}; true').lower()
    one[1]('touch /tmp/enough; sleep 2; sudo umount /mnt')
    detach(demo, volumes, one, volume)
