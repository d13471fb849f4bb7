"""The agent with the libvirt driver and real guests: what every operation does, seen from inside the guest."""
import dataclasses
import hashlib
import os
import socket
import subprocess
import uuid

import pytest

from kodiak.compute.agent import state

pytestmark = pytest.mark.system


def op(number, kind, **args):
    return state.Operation(number, kind, args)


def port(tap, number=1):
    return state.Port(str(uuid.uuid4()), f'fa:16:3e:00:aa:{number:02x}', tap, 1400)


def test_a_guest_is_born_and_can_be_spoken_to(host, new):
    one, told = host.get(new(config_drive=True, metadata={'colour': 'blue'}))
    assert (told.power_state, told.built, told.fault) == ('running', True, None)
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    assert shell.command('hostname') == 'test'
    assert 'blue' in shell.command('sudo mkdir -p /m; sudo mount -o ro /dev/sr0 /m; cat /m/openstack/latest/meta_data.json')
    assert shell.command('cat /sys/class/dmi/id/product_uuid 2>/dev/null || sudo cat /sys/class/dmi/id/product_uuid') == one.uuid
    assert int(shell.command('cat /sys/block/vda/size')) == (1 << 30) // 512
    shell.close()
    vnc = host.ask('console_address', host=host.name, uuid=one.uuid, kind='vnc')
    with socket.create_connection((vnc['host'], vnc['port']), 10) as connection:
        assert connection.recv(12).startswith(b'RFB ')
    found = host.ask('diagnostics', host=host.name, uuid=one.uuid)
    assert (found['state'], found['driver'], found['num_disks']) == ('running', 'libvirt', 1)
    assert len(host.log(one.uuid)) > 100
    assert len(host.ask('console_output', host=host.name, uuid=one.uuid, length=50)) == 50


def test_its_memory_survives_pause_suspend_and_the_end_of_the_agent(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    boot = shell.command('cat /proc/sys/kernel/random/boot_id')
    for desired in ('paused', 'running', 'suspended', 'running'):
        one, told = host.get(one, desired=desired)
        assert told.power_state == desired
    host.stop_agent()
    host.start_agent()
    host.settle(one)
    shell = host.serial(one.uuid)
    assert shell.command('cat /proc/sys/kernel/random/boot_id') == boot
    assert not os.listdir('/var/lib/libvirt/qemu/save') or one.spec.domain_name + '.save' not in os.listdir(
        '/var/lib/libvirt/qemu/save')


def test_stop_is_by_the_guest_itself_and_reboots_boot(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    one, told = host.get(one, desired='stopped')
    assert (told.power_state, told.self_stopped) == ('stopped', False)
    assert 'login' in host.log(one.uuid)
    one, told = host.get(one, desired='running')
    host.booted(one.uuid, 2)
    for number, kind in ((1, 'SOFT'), (2, 'HARD')):
        one, told = host.get(one, operations=[op(number, 'reboot', type=kind)])
        assert [outcome.number for outcome in told.outcomes] == [number]
        host.booted(one.uuid, 2 + number)


def test_a_guest_that_switches_itself_off_is_reported_and_stays_off(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    host.serial(one.uuid).login().socket.sendall(b'sudo poweroff -f\n')
    with host.conductor.said:
        assert host.conductor.said.wait_for(lambda: host.conductor.reports[one.uuid].self_stopped, 60)
    one, told = host.get(one, metadata={'a': 'b'})
    assert (told.power_state, told.self_stopped) == ('stopped', True)
    one, told = host.get(one, desired='running')
    assert told.power_state == 'running'


def test_nics_come_and_go_while_it_runs(host, new):
    host.tap('kat-1')
    host.tap('kat-2')
    first, second = port('kat-1', 1), port('kat-2', 2)
    one, told = host.get(new(ports=[first]))
    assert told.plugged == [first.id]
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    assert first.mac in shell.command('cat /sys/class/net/*/address')
    one, told = host.get(one, ports=[first, second])
    assert set(told.plugged) == {first.id, second.id}
    assert second.mac in shell.command('sleep 1; cat /sys/class/net/*/address')
    assert shell.command(f'cat /sys/class/net/$(grep -l {second.mac} /sys/class/net/*/address | cut -d/ -f5)/mtu') == '1400'
    one, told = host.get(one, ports=[second])
    assert told.plugged == [second.id]
    seen = shell.command('cat /sys/class/net/*/address')
    assert (first.mac in seen, second.mac in seen) == (False, True)
    one, told = host.get(one, operations=[op(1, 'reset_network')])
    assert told.plugged == [second.id]
    shell.close()


def test_it_waits_for_its_tap(host, new):
    one = host.wish(new(ports=[port('kat-late')]))
    host.look()
    with host.conductor.said:
        assert host.conductor.said.wait_for(
            lambda: (told := host.conductor.reports.get(one.uuid)) and told.fault and told.fault.code == 'tap-missing', 60)
    assert host.conductor.reports[one.uuid].power_state == 'stopped'
    host.tap('kat-late')
    assert host.settle(one).power_state == 'running'


class NbdServer:
    """A volume over NBD by a process that can be killed."""

    def __init__(self, path, size, port=10819):
        self.path, self.port, self.process = path, port, None
        self.grow(size)

    def grow(self, size):
        with open(self.path, 'ab') as file:
            file.truncate(size)

    def start(self):
        self.process = subprocess.Popen(
            ['qemu-nbd', '-f', 'raw', '-x', 'v', '-b', '127.0.0.1', '-p', str(self.port), '-t', self.path])

    def kill(self):
        self.process.kill()
        self.process.wait()

    @property
    def connection(self):
        return {'driver_volume_type': 'nbd', 'data': {'host': '127.0.0.1', 'port': self.port, 'export': 'v'}}


@pytest.fixture
def nbd(tmp_path):
    server = NbdServer(tmp_path / 'volume.raw', 1 << 30)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def other(tmp_path):
    server = NbdServer(tmp_path / 'other.raw', 1 << 30, 10820)
    server.start()
    yield server
    server.kill()


def test_a_volume_over_nbd_comes_grows_and_goes(host, new, nbd):
    volume = state.Volume(str(uuid.uuid4()), '/dev/vdb', size=1, connection=nbd.connection)
    one, _ = host.get(new())
    host.booted(one.uuid)
    one, told = host.get(one, volumes=[volume])
    assert told.plugged == [volume.id]
    shell = host.serial(one.uuid).login()
    assert shell.command('sleep 1; cat /sys/block/vdb/size') == str((1 << 30) // 512)
    assert volume.id.startswith(shell.command('cat /sys/block/vdb/serial'))
    shell.command('echo kodiak | sudo dd of=/dev/vdb; sync')

    # Its server dies while the guest writes; nobody there hears of it.
    nbd.kill()
    shell.socket.sendall(b'sudo dd if=/dev/zero of=/dev/vdb bs=1M seek=1 count=8 conv=fsync; echo it ended by $?\n')
    host.until(lambda: 'I/O error' in host.domain_state(one.uuid), 'the guest to be stopped')
    nbd.start()
    shell.until(b'it ended by 0', 60)
    assert 'running' in host.domain_state(one.uuid)
    assert 'error' not in shell.command('sudo dmesg | grep vdb; true').lower()

    # It grows, and the guest, which asks nothing of it meanwhile, is told.
    nbd.kill()
    nbd.grow(2 << 30)
    nbd.start()
    one, told = host.get(one, volumes=[dataclasses.replace(volume, size=2)],
                         operations=[op(1, 'extend_volume', volume_id=volume.id, size=2)])
    assert told.outcomes[0].fault is None
    assert shell.command('sleep 1; cat /sys/block/vdb/size') == str((2 << 30) // 512)
    one, told = host.get(one, volumes=[])
    assert told.plugged == []
    assert 'vdb' not in shell.command('ls /sys/block')
    assert nbd.path.read_bytes()[:6] == b'kodiak'


def test_a_volume_moves_while_the_guest_writes(host, new, nbd, other):
    volume = state.Volume(str(uuid.uuid4()), '/dev/vdb', size=1, connection=nbd.connection)
    one, _ = host.get(new(volumes=[volume]))
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    shell.command('echo kodiak | sudo dd of=/dev/vdb; sync')
    shell.command('sudo sh -c "while sleep 0.1; do date | dd of=/dev/vdb bs=512 seek=9 conv=fsync; done" > /dev/null 2>&1 &')
    moved = dataclasses.replace(volume, connection=other.connection)
    move = op(1, 'move_volume', volume_id=volume.id, attachment_id='other', connection=other.connection)
    one, told = host.get(one, operations=[move])
    assert told.outcomes[0].fault is None and told.plugged == [volume.id]
    # Until that is read nothing is done that could bring the old place back.
    again = op(2, 'reboot', type='HARD')
    one, told = host.get(one, operations=[move, again])
    assert [outcome.number for outcome in told.outcomes] == [1]
    nbd.kill()
    shell.command('echo moved | sudo dd of=/dev/vdb bs=512 seek=2; sync')
    assert shell.command('sudo dmesg | grep -c "I/O error"; true') == '0'
    one, told = host.get(one, operations=[again], volumes=[moved])
    assert [outcome.number for outcome in told.outcomes] == [2]
    host.booted(one.uuid, 2)
    shell = host.serial(one.uuid).login()
    assert shell.command('sudo head -c 6 /dev/vdb') == 'kodiak'
    assert shell.command('sudo dd if=/dev/vdb bs=512 skip=2 count=1 2> /dev/null | head -c 5') == 'moved'
    nbd.start()


def test_a_snapshot_of_a_running_guest_boots_with_its_data(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    shell = host.serial(one.uuid).login()
    shell.command('echo kodiak | sudo tee /etc/marker; sync')
    one, told = host.get(one, operations=[op(1, 'snapshot', image_id='live')])
    assert told.outcomes[0].result['size'] == (host.folder / 'images' / 'live').stat().st_size
    assert shell.command('cat /etc/marker') == 'kodiak'
    one, _ = host.get(one, desired='stopped')
    one, told = host.get(one, operations=[op(2, 'snapshot', image_id='cold')])
    assert told.power_state == 'stopped'
    left = os.listdir(host.folder / 'compute' / 'instances' / one.uuid)
    assert not [name for name in left if name.startswith('snapshot')]
    for name in ('live', 'cold'):
        two, _ = host.get(new(image=host.image(name)))
        host.booted(two.uuid)
        assert host.serial(two.uuid).login().command('cat /etc/marker') == 'kodiak'
        host.get(two, desired='stopped')


def test_a_rebuild_begins_anew(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    host.serial(one.uuid).login().command('echo kodiak | sudo tee /etc/marker; sync')
    one, told = host.get(one, operations=[op(1, 'rebuild')])
    assert (told.power_state, told.outcomes[0].fault) == ('running', None)
    host.booted(one.uuid, 2)
    assert 'kodiak' not in host.serial(one.uuid).login().command('cat /etc/marker 2>/dev/null')


def test_a_resize_there_back_and_there_for_good(host, new):
    small, big = state.Flavor('small', 1, 128, 1), state.Flavor('big', 2, 192, 2, 0, 16)
    one, _ = host.get(new())
    host.booted(one.uuid)
    one, told = host.get(one, flavor=big, operations=[op(1, 'resize')])
    host.booted(one.uuid, 2)
    shell = host.serial(one.uuid).login()
    assert shell.command('nproc; cat /sys/block/vda/size /sys/block/vdb/size').split() == [
        '2', str((2 << 30) // 512), str((16 << 20) // 512)]
    one, told = host.get(one, flavor=small, operations=[op(2, 'resize_revert')])
    host.booted(one.uuid, 3)
    shell = host.serial(one.uuid).login()
    assert shell.command('nproc; cat /sys/block/vda/size; ls /sys/block | grep -c vd').split() == ['1', str((1 << 30) // 512), '1']
    one, told = host.get(one, flavor=big, operations=[op(3, 'resize')])
    one, told = host.get(one, operations=[op(4, 'resize_confirm')])
    assert told.power_state == 'running'
    assert not [name for name in os.listdir(host.folder / 'compute' / 'instances' / one.uuid) if name.startswith('kept')]


def test_rescue_boots_from_another_disk_and_back(host, new):
    one, _ = host.get(new())
    host.booted(one.uuid)
    host.serial(one.uuid).login().command('echo kodiak | sudo tee /etc/marker; sync')
    one, _ = host.get(one, rescue=host.image())
    host.booted(one.uuid, 2)
    shell = host.serial(one.uuid).login()
    assert 'kodiak' in shell.command('sudo mkdir -p /m; sudo mount /dev/vdb2 /m && cat /m/etc/marker')
    one, _ = host.get(one, rescue=None)
    host.booted(one.uuid, 3)
    assert host.serial(one.uuid).login().command('cat /etc/marker') == 'kodiak'
    assert not (host.folder / 'compute' / 'instances' / one.uuid / 'rescue.qcow2').exists()


def test_strays_and_strangers(host, new):
    stranger = '<domain type="qemu"><name>kodiak-test-stranger</name><memory>32768</memory><os><type>hvm</type></os></domain>'
    subprocess.run(['virsh', '-c', 'qemu:///system', 'define', '/dev/stdin'], input=stranger, text=True, check=True)
    try:
        one, _ = host.get(new())
        two, _ = host.get(new())
        host.stop_agent()
        del host.conductor.instances[one.uuid]
        del host.conductor.instances[two.uuid]
        host.conductor.removable = {one.uuid}
        host.start_agent()
        host.get(new(desired='stopped'))
        gone = host.folder / 'compute' / 'instances' / one.uuid
        with host.conductor.said:
            host.conductor.said.wait_for(lambda: not gone.exists(), 30)
        names = host.domains()
        assert one.spec.domain_name not in names
        assert two.spec.domain_name in names
        assert 'kodiak-test-stranger' in names
        host.conductor.instances[two.uuid] = two
    finally:
        subprocess.run(['virsh', '-c', 'qemu:///system', 'undefine', 'kodiak-test-stranger'], check=True)


def test_guests_and_agent_outlive_libvirtd(host, new):
    if host.libvirt is None:
        pytest.skip("libvirtd is the running cloud's")
    one, _ = host.get(new())
    host.libvirt.stop('libvirtd')
    host.libvirt.start('libvirtd')
    one, told = host.get(one, desired='paused')
    assert told.power_state == 'paused'


def test_a_guest_moves_to_another_host_with_its_disks(host, second, new):
    one, _ = host.get(new(config_drive=True))
    host.booted(one.uuid)
    host.serial(one.uuid).login().command('echo kodiak | sudo tee /etc/marker; sync')
    digest = hashlib.sha256(b'token').hexdigest()
    one, told = host.get(one, desired='stopped', operations=[op(1, 'migrate_out', token_sha256=digest)])
    assert told.power_state == 'stopped'
    source = state.Source(told.outcomes[0].result['url'], 'token')
    big = state.Flavor('big', 1, 128, 2)
    there, told = second.get(dataclasses.replace(one, operations=[], source=source), desired='running', flavor=big)
    assert (told.power_state, told.host) == ('running', second.name)
    second.booted(there.uuid)
    shell = second.serial(there.uuid).login()
    assert shell.command('cat /etc/marker; cat /sys/block/vda/size').split() == ['kodiak', str((2 << 30) // 512)]
    # Reverted: gone there, and as it was here.
    second.get(there, desired='absent')
    one, told = host.get(one, desired='running', operations=[])
    assert told.power_state == 'running'
    host.booted(one.uuid, 2)
