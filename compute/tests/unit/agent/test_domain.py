"""Domain definitions, as elements."""
import xml.etree.ElementTree as ET

import pytest
from agent_shapes import image, port, spec, volume

from kodiak.compute.agent import state
from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import domain
from kodiak.compute.drivers.libvirt.domain import Disk

ROOT = Disk('root', '/d/root.qcow2')
CONFIG = Disk('config', '/d/config.iso', 'raw', 'cdrom', read_only=True)


def build(given, disks=(ROOT,), **platform):
    return ET.fromstring(domain.build(given, list(disks), domain.Platform(**platform), 'one', '/d/console.log'))


def disks(root):
    return [(disk.find('source').get('file') or disk.find('source').get('name'), disk.find('target').get('dev'),
             disk.find('boot').get('order') if disk.find('boot') is not None else None) for disk in root.iterfind('devices/disk')]


def with_properties(**properties):
    return spec(image=image(properties=properties))


def test_a_plain_guest():
    root = build(spec())
    assert root.get('type') == 'qemu'
    assert root.findtext('uuid') == spec().uuid
    assert (root.findtext('memory'), root.findtext('vcpu')) == ('128', '1')
    assert root.find('os/type').get('machine') == 'pc'
    assert root.find('cpu/model').text == 'Nehalem'
    assert disks(root) == [('/d/root.qcow2', 'vda', '1')]
    assert root.find('devices/disk/source/seclabel').get('relabel') == 'no'
    assert root.find('devices/serial/log').get('file') == '/d/console.log'
    graphics = root.find('devices/graphics')
    assert (graphics.get('type'), graphics.find('listen').get('address')) == ('vnc', '127.0.0.1')
    assert root.find('devices/rng') is not None
    assert {entry.get('name'): entry.text for entry in root.iterfind('sysinfo/system/entry')}['product'] == 'OpenStack Compute'


def test_the_nic_is_on_the_tap_of_the_network_agent():
    nic = build(spec()).find('devices/interface')
    assert nic.get('type') == 'ethernet'
    assert dict(nic.find('target').items()) == {'dev': port().tap, 'managed': 'no'}
    assert nic.find('mtu').get('size') == '1450'
    assert nic.find('mac').get('address') == port().mac


def test_what_a_domain_is_known_by_again():
    xml = domain.build(spec(volumes=[volume()]), [ROOT], domain.Platform(), 'one', '/d/console.log')
    assert domain.owner(xml) == 'one'
    assert domain.owner('<domain><name>x</name></domain>') is None
    ports, volumes, names = domain.devices(xml)
    assert (set(ports), set(volumes), names) == ({port().id}, {volume().id}, {'vda', 'vdb'})


def test_names_that_owners_chose_stay_text():
    root = build(spec(name='<a>&"\x01\u2603'))
    assert root.findtext('title') == '<a>&"\u2603'


def test_disks_are_named_in_their_order():
    many = [ROOT, Disk('ephemeral', '/d/e', 'raw'), Disk('swap', '/d/s', 'raw'), CONFIG]
    assert disks(build(spec(), many)) == [
        ('/d/root.qcow2', 'vda', '1'), ('/d/e', 'vdb', None), ('/d/s', 'vdc', None), ('/d/config.iso', 'hda', None)]


def test_a_volume_whose_name_is_taken_gets_the_next():
    found = disks(build(spec(volumes=[volume(1), volume(2, device='/dev/vdd')]), [ROOT, Disk('swap', '/d/s', 'raw')]))
    assert [name for _, name, _ in found] == ['vda', 'vdb', 'vdc', 'vdd']


def test_boot_from_volumes_goes_by_their_index():
    volumes = [volume(1, boot_index=1, device='/dev/vdb'), volume(2, boot_index=0, device='/dev/vda'), volume(3, boot_index=-1,
                                                                                                         device='/dev/vdc')]
    found = disks(build(spec(image=None, volumes=volumes), []))
    assert [(name, order) for _, name, order in found] == [('vda', '1'), ('vdb', '2'), ('vdc', None)]


def test_usb_is_there_for_what_is_on_it_only():
    assert build(spec()).find("devices/controller[@type='usb']").get('model') == 'none'
    rescue = image(id='r', properties={'hw_rescue_device': 'disk', 'hw_rescue_bus': 'usb'})
    for given in (spec(rescue=rescue), with_properties(hw_disk_bus='usb'), with_properties(hw_pointer_model='usbtablet')):
        assert build(given).find("devices/controller[@type='usb']").get('model') == 'qemu-xhci'


def test_the_rescue_disk_comes_first_or_where_its_image_wants_it():
    rescue = Disk('rescue', '/d/rescue.qcow2')
    found = disks(build(spec(rescue=image(id='r')), [rescue, ROOT]))
    assert found == [('/d/rescue.qcow2', 'vda', '1'), ('/d/root.qcow2', 'vdb', None)]
    stable = image(id='r', properties={'hw_rescue_device': 'disk', 'hw_rescue_bus': 'virtio'})
    found = disks(build(spec(rescue=stable), [rescue, ROOT]))
    assert found == [('/d/root.qcow2', 'vda', None), ('/d/rescue.qcow2', 'vdb', '1')]


def test_image_properties_choose_the_hardware():
    root = build(with_properties(
        hw_machine_type='q35', hw_disk_bus='scsi', hw_vif_model='e1000', hw_video_model='virtio', hw_rng_model='none',
        hw_qemu_guest_agent='yes', hw_watchdog_action='reset', hw_cdrom_bus='sata', hw_pointer_model='usbtablet'), [ROOT, CONFIG])
    assert root.find('os/type').get('machine') == 'q35'
    assert [name for _, name, _ in disks(root)] == ['sda', 'sdb']
    models = [item.get('model') for item in root.iterfind('devices/controller')]
    assert models.count('pcie-root-port') == domain.SPARE_PCIE_PORTS
    assert 'virtio-scsi' in models
    assert root.find('devices/interface/model').get('type') == 'e1000'
    assert root.find('devices/video/model').get('type') == 'virtio'
    assert root.find('devices/rng') is None
    assert root.find('devices/channel/target').get('name') == 'org.qemu.guest_agent.0'
    assert root.find('devices/watchdog').get('action') == 'reset'
    assert root.find('devices/input').get('type') == 'tablet'


@pytest.mark.parametrize('properties', [{'hw_disk_bus': 'floppy'}, {'hw_vif_model': 'modem'}, {'hw_video_model': 'hercules'}])
def test_hardware_that_there_is_not_is_refused(properties):
    with pytest.raises(base.Fault) as caught:
        build(with_properties(**properties))
    assert (caught.value.code, caught.value.final) == ('image-invalid', True)


@pytest.mark.parametrize(('vcpus', 'extra', 'expected'), [
    (4, {}, ('4', '1', '1')), (4, {'hw:cpu_sockets': '2'}, ('2', '2', '1')), (4, {'hw:cpu_cores': '4'}, ('1', '4', '1')),
    (8, {'hw:cpu_threads': '2', 'hw:cpu_sockets': '1'}, ('1', '4', '2')), (3, {'hw:cpu_cores': '2'}, None),
])
def test_topology(vcpus, extra, expected):
    found = build(spec(flavor=state.Flavor('f', vcpus, 128, extra_specs=extra))).find('cpu/topology')
    assert (None if found is None else tuple(found.get(name) for name in ('sockets', 'cores', 'threads'))) == expected


def test_kvm_passes_the_processor_on():
    root = build(spec(), kind='kvm', cpu_mode='host-model', cpu_model=None)
    assert (root.get('type'), root.find('cpu').get('mode'), root.find('cpu/model')) == ('kvm', 'host-model', None)


def test_limits_of_the_flavor():
    root = build(spec(flavor=state.Flavor('f', 1, 128, extra_specs={'quota:disk_read_iops_sec': '100'})))
    assert root.findtext('devices/disk/iotune/read_iops_sec') == '100'


def test_a_volume_over_something_unknown_is_refused():
    with pytest.raises(base.Fault) as caught:
        build(spec(volumes=[volume(connection={'driver_volume_type': 'pigeon', 'data': {}})]))
    assert caught.value.code == 'volume-unsupported'


def test_device_names_run_out():
    names = domain.Names()
    for _ in range(26 * 4):
        names.take('virtio')
    with pytest.raises(base.Fault):
        names.take('virtio')


def test_vnc_is_there_only_while_the_guest_runs():
    assert domain.vnc("<domain><devices><graphics type='vnc' port='5901' listen='10.0.0.1'/></devices></domain>") == (
        '10.0.0.1', 5901)
    assert domain.vnc("<domain><devices><graphics type='vnc' port='-1'/></devices></domain>") is None
