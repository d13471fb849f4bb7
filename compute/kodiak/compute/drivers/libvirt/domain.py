"""Domain definitions: an instance and the layout of its disks go in, libvirt's XML comes out.

Nothing here asks libvirt or looks at the host. What a domain is recognised by later also stands here: the
metadata element with the name of the host.
"""
import dataclasses
import xml.etree.ElementTree as ET

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt.elements import (
    NAMESPACE,
    PORT_ALIAS,
    VOLUME_ALIAS,
    Names,
    cdrom_bus,
    child,
    disk_bus,
    parse,
    text,
    truth,
)
from kodiak.compute.drivers.libvirt.volumes import disk as volume_disk

VIF_MODELS = {'virtio', 'e1000', 'e1000e', 'rtl8139', 'ne2k_pci', 'pcnet', 'vmxnet3'}
VIDEO_MODELS = {'vga', 'cirrus', 'qxl', 'virtio', 'bochs', 'vmvga', 'none'}
SPARE_PCIE_PORTS = 12
SWAPPED = NAMESPACE + ':swapped'


@dataclasses.dataclass
class Platform:
    """What the host's hypervisor can do, found out at start.

    ``kind`` is ``kvm`` or ``qemu``; ``cpu_mode`` and ``cpu_model`` go into the ``<cpu>`` element.
    ``direct_io`` says whether the file system of the disks can be read past the page cache; ``initiator`` is the iSCSI
    name that the host's guests go by.
    """

    kind: str = 'qemu'
    cpu_mode: str = 'custom'
    cpu_model: str | None = 'Nehalem'
    vnc_listen: str = '127.0.0.1'
    direct_io: bool = True
    arch: str = 'x86_64'
    initiator: str | None = None


@dataclasses.dataclass
class Disk:
    """A disk of the instance's own. ``role``: root, ephemeral, swap, rescue or config."""

    role: str
    path: str
    format: str = 'qcow2'
    device: str = 'disk'
    read_only: bool = False
    bus: str | None = None


def properties(spec):
    """The properties of the image that decide what hardware the guest sees; the rescue image's while rescued."""
    image = spec.rescue or spec.image
    return image.properties if image else spec.hardware or {}


def build(spec, disks, platform, host, log_path):
    """The whole definition as text.

    :param spec: an ``agent.state.Spec``.
    :param disks: the :class:`Disk` list, in the order in which they are to be named.
    :param log_path: the file that the serial console is logged to.
    """
    hw = properties(spec)
    machine = hw.get('hw_machine_type') or 'pc'
    domain = ET.Element('domain', type=platform.kind)
    text(domain, 'uuid', spec.uuid)
    text(domain, 'name', spec.domain_name)
    text(domain, 'title', ''.join(char for char in spec.name if char.isprintable()))
    _metadata(domain, spec, host)
    text(domain, 'memory', spec.flavor.ram, unit='MiB')
    text(domain, 'vcpu', spec.flavor.vcpus)
    _sysinfo(domain, spec)
    _os(domain, hw, machine, platform)
    _features(domain, hw)
    _cpu(domain, spec, hw, platform)
    _clock(domain, hw)
    for event, action in (('poweroff', 'destroy'), ('reboot', 'restart'), ('crash', 'destroy')):
        text(domain, 'on_' + event, action)
    devices = child(domain, 'devices')
    for element in _disks(spec, disks, hw, platform):
        devices.append(element)
    _controllers(devices, hw, machine, {volume.bus for volume in spec.volumes})
    for port in spec.ports:
        devices.append(interface(port, hw))
    _consoles(devices, hw, platform, log_path)
    _extras(devices, hw)
    return ET.tostring(domain, encoding='unicode')


def _metadata(domain, spec, host):
    instance = child(child(domain, 'metadata'), f'{{{NAMESPACE}}}instance', host=host)
    for tag, value in (('name', spec.name), ('flavor', spec.flavor.name),
                       ('project', spec.project_name or spec.project_id), ('user', spec.user_name or spec.user_id),
                       ('image', spec.image.id if spec.image else '')):
        text(instance, f'{{{NAMESPACE}}}{tag}', ''.join(char for char in value if char.isprintable()))


def _sysinfo(domain, spec):
    system = child(child(domain, 'sysinfo', type='smbios'), 'system')
    for name, value in (('manufacturer', 'Kodiak'), ('product', 'OpenStack Compute'), ('serial', spec.uuid),
                        ('uuid', spec.uuid), ('family', 'Virtual Machine')):
        text(system, 'entry', value, name=name)


def _os(domain, hw, machine, platform):
    os = child(domain, 'os')
    if hw.get('hw_firmware_type') == 'uefi':
        os.set('firmware', 'efi')
        child(os, 'loader', secure='yes' if hw.get('os_secure_boot') == 'required' else 'no')
    text(os, 'type', 'hvm', arch=hw.get('hw_architecture') or platform.arch, machine=machine)
    child(os, 'smbios', mode='sysinfo')
    if truth(hw.get('hw_boot_menu')):
        child(os, 'bootmenu', enable='yes')


def _features(domain, hw):
    features = child(domain, 'features')
    child(features, 'acpi')
    child(features, 'apic')
    if truth(hw.get('img_hide_hypervisor_id')):
        child(child(features, 'kvm'), 'hidden', state='on')
    if hw.get('os_type') == 'windows':
        hyperv = child(features, 'hyperv')
        for name in ('relaxed', 'vapic'):
            child(hyperv, name, state='on')
        child(hyperv, 'spinlocks', state='on', retries=8191)


def _cpu(domain, spec, hw, platform):
    cpu = child(domain, 'cpu', mode=platform.cpu_mode)
    if platform.cpu_model:
        cpu.set('match', 'exact')
        cpu.set('check', 'none')
        text(cpu, 'model', platform.cpu_model, fallback='allow')
    extra = spec.flavor.extra_specs
    vcpus = spec.flavor.vcpus
    wish = [extra.get('hw:cpu_' + part) or hw.get('hw_cpu_' + part) for part in ('sockets', 'cores', 'threads')]
    sockets, cores, threads = (int(value) if value else None for value in wish)
    threads = threads or 1
    if cores is None:
        cores = max(1, vcpus // (sockets * threads)) if sockets else 1
    if sockets is None:
        sockets = max(1, vcpus // (cores * threads))
    if sockets * cores * threads == vcpus:
        child(cpu, 'topology', sockets=sockets, cores=cores, threads=threads)


def _clock(domain, hw):
    clock = child(domain, 'clock', offset='localtime' if hw.get('os_type') == 'windows' else 'utc')
    child(clock, 'timer', name='pit', tickpolicy='delay')
    child(clock, 'timer', name='rtc', tickpolicy='catchup')
    child(clock, 'timer', name='hpet', present='no')


def _disks(spec, disks, hw, platform):
    """The disk elements: own disks first, in their order, then volumes; the device to boot from has order 1.

    A volume that is booted from takes its name first; another volume whose wished name an own disk has gets the
    next free one.
    """
    names = Names()
    booting = [volume for volume in spec.volumes if volume.boot_index is not None and volume.boot_index >= 0]
    elements = []
    stable_rescue = spec.rescue and ('hw_rescue_device' in hw or 'hw_rescue_bus' in hw)
    rescue = [disk for disk in disks if disk.role == 'rescue']
    own = [disk for disk in disks if disk.role != 'rescue']
    own = [*own, *rescue] if stable_rescue else [*rescue, *own]
    first = 'rescue' if rescue else 'root'
    for order, volume in enumerate(sorted(booting, key=lambda item: item.boot_index), 1):
        elements.append(volume_disk(volume, hw, names, platform, None if rescue else order))
    for disk in own:
        bus = disk.bus or (cdrom_bus(hw) if disk.device == 'cdrom' else disk_bus(hw))
        if disk.role == 'rescue' and stable_rescue:
            bus = hw.get('hw_rescue_bus') or bus
        boots = 1 if disk.role == first and not (first == 'root' and booting) else None
        elements.append(_own_disk(disk, bus, names.take(bus), boots, spec, platform))
    elements.extend(volume_disk(volume, hw, names, platform) for volume in spec.volumes if volume not in booting)
    return elements


def _own_disk(disk, bus, target, boots, spec, platform):
    element = ET.Element('disk', type='file', device=disk.device)
    driver = child(element, 'driver', name='qemu', type=disk.format)
    if disk.device == 'disk' and not disk.read_only:
        driver.set('cache', 'none' if platform.direct_io else 'writeback')
        driver.set('discard', 'unmap')
    # Who may open the file is settled by its group: libvirt leaves owner and mode as they are.
    child(child(element, 'source', file=disk.path), 'seclabel', model='dac', relabel='no')
    child(element, 'target', dev=target, bus=bus)
    _limits(element, spec.flavor.extra_specs)
    if disk.read_only:
        child(element, 'readonly')
    if boots:
        child(element, 'boot', order=boots)
    return element


def _limits(element, extra):
    limits = {name: extra.get('quota:disk_' + name) for name in (
        'read_bytes_sec', 'read_iops_sec', 'write_bytes_sec', 'write_iops_sec', 'total_bytes_sec', 'total_iops_sec')}
    if any(limits.values()):
        tune = child(element, 'iotune')
        for name, value in limits.items():
            if value:
                text(tune, name, int(value))


def interface(port, hw):
    """The interface element of a port, on the tap that the network agent made."""
    model = hw.get('hw_vif_model') or 'virtio'
    if model not in VIF_MODELS:
        raise base.Fault('image-invalid', f'There is no network card {model!r}.', final=True)
    element = ET.Element('interface', type='ethernet')
    child(element, 'mac', address=port.mac)
    child(element, 'target', dev=port.tap, managed='no')
    child(element, 'model', type=model)
    child(element, 'mtu', size=port.mtu)
    child(element, 'alias', name=PORT_ALIAS + port.id)
    return element


def _controllers(devices, hw, machine, more=()):
    if 'q35' in machine:
        for _ in range(SPARE_PCIE_PORTS):
            child(devices, 'controller', type='pci', model='pcie-root-port')
    buses = {disk_bus(hw), cdrom_bus(hw), hw.get('hw_rescue_bus'), *more}
    if 'scsi' in buses:
        child(devices, 'controller', type='scsi', index=0, model=hw.get('hw_scsi_model') or 'virtio-scsi')
    if hw.get('hw_pointer_model') == 'usbtablet' or 'usb' in buses:
        child(devices, 'controller', type='usb', model='qemu-xhci')
    else:
        # An emulated USB controller wakes the host a thousand times a second, for nothing.
        child(devices, 'controller', type='usb', model='none')


def _consoles(devices, hw, platform, log_path):
    serial = child(devices, 'serial', type='pty')
    child(serial, 'log', file=log_path, append='on')
    child(serial, 'target', port=0)
    video = hw.get('hw_video_model') or 'vga'
    if video not in VIDEO_MODELS:
        raise base.Fault('image-invalid', f'There is no video card {video!r}.', final=True)
    if video != 'none':
        graphics = child(devices, 'graphics', type='vnc', port=-1, autoport='yes')
        child(graphics, 'listen', type='address', address=platform.vnc_listen)
        model = child(child(devices, 'video'), 'model', type=video)
        if hw.get('hw_video_ram'):
            model.set('vram', str(int(hw['hw_video_ram']) * 1024))
    if hw.get('hw_pointer_model') == 'usbtablet':
        child(devices, 'input', type='tablet', bus='usb')


def _extras(devices, hw):
    if hw.get('hw_rng_model', 'virtio') == 'virtio':
        rng = child(devices, 'rng', model='virtio')
        text(rng, 'backend', '/dev/urandom', model='random')
    if truth(hw.get('hw_qemu_guest_agent')):
        child(child(devices, 'channel', type='unix'), 'target', type='virtio', name='org.qemu.guest_agent.0')
    action = hw.get('hw_watchdog_action')
    if action and action != 'disabled':
        child(devices, 'watchdog', model='i6300esb', action=action)
    child(child(devices, 'memballoon', model='virtio'), 'stats', period=10)


def owner(xml):
    """The name of the host whose agent made this definition, or None if no agent did."""
    element = parse(xml).find(f'./metadata/{{{NAMESPACE}}}instance')
    return None if element is None else element.get('host')


def devices(xml):
    """``(ports, volumes, names)``: the device elements of a live definition by port id and by volume id, and the
    disk names that are taken."""
    root = parse(xml)
    ports, volumes, names = {}, {}, set()
    swapped = swapped_disks(root)
    for element in root.iterfind('./devices/interface'):
        alias = element.find('alias')
        if alias is not None and alias.get('name', '').startswith(PORT_ALIAS):
            ports[alias.get('name')[len(PORT_ALIAS):]] = element
    for element in root.iterfind('./devices/disk'):
        names.add(element.find('target').get('dev'))
        alias = element.find('alias')
        if alias is not None and alias.get('name', '').startswith(VOLUME_ALIAS):
            name = alias.get('name')[len(VOLUME_ALIAS):]
            volumes[swapped.get(name, name)] = element
    return ports, volumes, names


# A disk keeps its alias when another volume takes its place, until the guest is started anew; the live definition says which.

def swapped_disks(root):
    """``{volume id in the alias: volume id that the disk stands for}`` of a live definition."""
    return {element.get('alias'): element.get('volume') for element in root.iterfind(
        f'./metadata/{{{SWAPPED}}}swapped/{{{SWAPPED}}}disk')}


def vnc(xml):
    """``(address, port)`` of a running guest's VNC server, or None."""
    graphics = parse(xml).find("./devices/graphics[@type='vnc']")
    if graphics is None or int(graphics.get('port', -1)) < 0:
        return None
    return graphics.get('listen') or '127.0.0.1', int(graphics.get('port'))
