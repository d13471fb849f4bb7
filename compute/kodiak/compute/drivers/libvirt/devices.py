"""Plugging NICs and volumes into running guests and out of them."""
import json
import logging
import time
import xml.etree.ElementTree as ET

import libvirt
import libvirt_qemu

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import domain as definition
from kodiak.compute.drivers.libvirt.volumes import disk as volume_disk

LOG = logging.getLogger(__name__)
ASK_AGAIN = 4       # seconds: a guest that was still booting overheard the first request
PATIENCE = 60
COPY_PATIENCE = 20
STORAGE_PATIENCE = 20
GONE_ON = 0.3       # seconds after which a guest that goes on met no error of its storage


def plug(domain, spec, ports, volumes, platform, secrets):
    """Plug ports and volumes of the spec into a running domain; those that are there are left alone.

    :param secrets: the :class:`~.secrets.Secrets` of the host.
    """
    here_ports, here_volumes, names = definition.devices(domain.XMLDesc())
    hw = definition.properties(spec)
    taken = definition.Names(names)
    new = [volume for volume in volumes if volume.id not in here_volumes]
    elements = [definition.interface(port, hw) for port in ports if port.id not in here_ports]
    elements += [volume_disk(volume, hw, taken, platform) for volume in new]
    with secrets.opened(new):
        for element in elements:
            domain.attachDeviceFlags(ET.tostring(element, encoding='unicode'), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def swap(connection, domain, volume, platform, secrets):
    """Copy the volume that ``volume`` replaces to it, and let the guest go on with the copy.

    :raises base.Fault: ``copying`` while it still takes time: it is looked at again; ``swap`` if the copy failed.
    """
    disk = definition.devices(domain.XMLDesc())[1].get(volume.replaces)
    if disk is not None:
        _copy(connection, domain, disk, volume, platform, secrets)
        _note_swap(domain, disk, volume.id)


def move(connection, domain, volume, platform, secrets):
    """Copy the disk of a volume to where the connection of ``volume`` leads now, and let the guest go on with that.

    :raises base.Fault: as :func:`swap` does.
    """
    disk = definition.devices(domain.XMLDesc())[1].get(volume.id)
    if disk is None:
        raise base.Fault('swap', 'The guest does not have the volume.', final=True)
    _copy(connection, domain, disk, volume, platform, secrets)


def _copy(connection, domain, disk, volume, platform, secrets):
    """Bring a disk of the guest to where ``volume`` is."""
    target = disk.find('target').get('dev')
    copy = volume_disk(volume, {}, definition.Names(), platform)
    for child in list(copy):
        if child.tag not in ('source', 'driver'):
            copy.remove(child)
    if _same(disk.find('source'), copy.find('source')):
        if disk.find('mirror') is not None:
            # It was to go elsewhere, and is to stay.
            domain.blockJobAbort(target, 0)
        return
    if disk.find('mirror') is None:
        _begin_copy(domain, target, copy, volume, secrets)
    connection.wait(lambda: mirror_ready(domain, target) or not domain.blockJobInfo(target), COPY_PATIENCE)
    job = domain.blockJobInfo(target)
    if not job:
        raise base.Fault('swap', 'The volume could not be copied.', final=True)
    if not mirror_ready(domain, target):
        raise base.Fault('copying', f'The volume is being copied: {job["cur"] * 100 // (job["end"] or 1)} percent.')
    domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _begin_copy(domain, target, copy, volume, secrets):
    if domain.blockJobInfo(target):
        raise base.Fault('swap', 'Something else is being done to the disk.')
    capacity = domain.blockInfo(target)[0]
    if capacity != volume.size << 30:
        if volume.connection.get('data', {}).get('encrypted'):
            raise base.Fault('swap', 'An encrypted volume can only take the place of one of its size.', final=True)
        # Both must look alike for the copy. The guest gets the rest of a larger volume when it is started anew.
        slices = definition.child(copy.find('source'), 'slices')
        definition.child(slices, 'slice', type='storage', offset=0, size=capacity)
    with secrets.opened([volume]):
        domain.blockCopy(target, ET.tostring(copy, encoding='unicode'), {},
                         libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)


def _note_swap(domain, disk, volume_id):
    known = definition.swapped_disks(definition.parse(domain.XMLDesc()))
    known[disk.find('alias').get('name')[len(definition.VOLUME_ALIAS):]] = volume_id
    swapped = ET.Element('swapped')
    for alias, volume in known.items():
        definition.child(swapped, 'disk', alias=alias, volume=volume)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, ET.tostring(swapped, encoding='unicode'), 'kodiakswapped',
                       definition.SWAPPED, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _same(one, other):
    return (one.get('protocol'), one.get('name')) == (other.get('protocol'), other.get('name')) and [
        host.attrib for host in one.iterfind('host')] == [host.attrib for host in other.iterfind('host')]


def halted(domain):
    """True if QEMU stopped the guest because the storage of a disk failed."""
    return domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]


def resume(connection, domain):
    """Let a guest go on. One that was stopped because its storage failed asks for the same again.

    :param connection: the :class:`~.connection.Connection`, to wait on.
    :raises base.Fault: ``storage``: it is stopped again each time.
    """
    deadline, pause = time.monotonic() + STORAGE_PATIENCE, 0.1
    while True:
        waits = halted(domain)
        domain.resume()
        if not waits or not connection.wait(lambda: halted(domain), GONE_ON):
            return
        if time.monotonic() > deadline:
            raise base.Fault('storage', 'The storage of a disk does not answer; the guest stands still until it does.')
        connection.wait(lambda: not halted(domain), pause)
        pause = min(pause * 2, 2.0)


def grow(connection, domain, volume, size):
    """Let a running guest see that a volume has ``size`` GiB now.

    :param connection: the :class:`~.connection.Connection`, to wait on.
    :raises base.Fault: ``extend``: its server does not say the new size.
    """
    disk = definition.devices(domain.XMLDesc())[1].get(volume.id)
    if disk is None:
        return
    target = disk.find('target').get('dev')
    now, size = domain.blockInfo(target)[0], size << 30
    if volume.connection.get('data', {}).get('encrypted'):
        # Volumes have whole GiB; what the guest sees may be less by the header of the container.
        size -= -now % (1 << 30)
    if now >= size:
        return
    nbd = disk.find('source').get('protocol') == 'nbd'
    deadline = time.monotonic() + COPY_PATIENCE
    while True:
        try:
            return domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        except libvirt.libvirtError as error:
            if not nbd or error.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR:
                raise
            if time.monotonic() > deadline:
                raise base.Fault('extend', f'The server of volume {volume.id} does not say that it has grown.')
        _read_a_sector(domain, disk)
        connection.wait(lambda: False, 0.1)


def _read_a_sector(domain, disk):
    """Have QEMU read from a disk, whose content goes nowhere. An NBD server tells a size to those who connect, and QEMU connects
    anew, once its server has closed the connection, when something is asked of the disk; guests may be silent for long."""
    node = f"libvirt-{disk.find('source').get('index')}-storage"
    libvirt_qemu.qemuMonitorCommand(domain, json.dumps({'execute': 'human-monitor-command', 'arguments': {
        'command-line': f'qemu-io {node} "read 0 512"'}}), libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)


def unplug(connection, domain, ports, volumes):
    """Ask the guest to let go of devices, and wait until it did.

    :param connection: the :class:`~.connection.Connection`, to wait on.
    :raises base.Fault: ``unplug-refused`` if the guest holds on to one.
    """
    _ports, here, _names = definition.devices(domain.XMLDesc())
    aliases = [definition.PORT_ALIAS + uuid for uuid in ports]
    aliases += [here[uuid].find('alias').get('name') for uuid in volumes if uuid in here]
    if aliases and domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        raise base.Fault('unplug-refused', 'A guest that is paused lets go of nothing: unpause it first.', final=True)
    for alias in aliases:
        for _ in range(max(1, PATIENCE // ASK_AGAIN)):
            if not _here(domain, alias):
                break
            try:
                domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError as error:
                # Asked already and not done yet is no failure, and neither is "gone meanwhile".
                LOG.debug('unplugging %s: %s', alias, error)
            connection.wait(lambda alias=alias: not _here(domain, alias), ASK_AGAIN)
        if _here(domain, alias):
            raise base.Fault('unplug-refused', 'The guest does not let go of the device.')


def _here(domain, alias):
    try:
        return f"<alias name='{alias}'/>" in domain.XMLDesc()
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def root_target(domain, path):
    """The device name (``vda``) under which a running domain has the disk file ``path``."""
    for disk in definition.parse(domain.XMLDesc()).iterfind('./devices/disk'):
        source = disk.find('source')
        if source is not None and source.get('file') == path:
            return disk.find('target').get('dev')
    raise base.Fault('no-root-disk', 'The guest does not have its root disk.')


def mirror_ready(domain, target):
    """True once a copy job on ``target`` has everything and follows each write."""
    for disk in definition.parse(domain.XMLDesc()).iterfind('./devices/disk'):
        if disk.find('target').get('dev') == target:
            mirror = disk.find('mirror')
            return mirror is not None and mirror.get('ready') == 'yes'
    return False


def diagnostics(domain, kind, config_drive):
    """Counters of a domain, as the compute API names them since 2.48."""
    root = definition.parse(domain.XMLDesc())
    active = domain.isActive()
    _state, maximum, used, cpus, _time = domain.info()
    states = {libvirt.VIR_DOMAIN_RUNNING: 'running', libvirt.VIR_DOMAIN_PAUSED: 'paused',
              libvirt.VIR_DOMAIN_CRASHED: 'crashed'}
    nics, disks, details = [], [], []
    if active:
        details = [{'id': index, 'time': cpu[2], 'utilisation': None}
                   for index, cpu in enumerate(domain.vcpus()[0])]
        for element in root.iterfind('./devices/interface'):
            nics.append(_nic(domain, element))
        for element in root.iterfind("./devices/disk[@device='disk']"):
            reads, read_bytes, writes, write_bytes, errors = _counters(domain.blockStats, element, 5)
            disks.append({'read_bytes': read_bytes, 'read_requests': reads, 'write_bytes': write_bytes,
                          'write_requests': writes, 'errors_count': errors})
    return {'state': states.get(domain.state()[0], 'shutdown'), 'driver': 'libvirt', 'hypervisor': kind,
            'hypervisor_os': 'linux', 'uptime': None, 'config_drive': config_drive, 'num_cpus': cpus,
            'num_nics': len(nics), 'num_disks': len(disks), 'cpu_details': details, 'nic_details': nics,
            'disk_details': disks, 'memory_details': {'maximum': maximum >> 10, 'used': used >> 10}}


def _nic(domain, element):
    names = ('rx_octets', 'rx_packets', 'rx_errors', 'rx_drop', 'tx_octets', 'tx_packets', 'tx_errors', 'tx_drop')
    return {'mac_address': element.find('mac').get('address'), 'rx_rate': None, 'tx_rate': None,
            **dict(zip(names, _counters(domain.interfaceStats, element, len(names)), strict=True))}


def _counters(ask, element, count):
    try:
        return ask(element.find('target').get('dev'))
    except libvirt.libvirtError:
        return (0,) * count
