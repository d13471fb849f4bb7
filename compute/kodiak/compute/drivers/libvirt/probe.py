"""What this host's hypervisor can really do, found out by starting a guest that switches itself off.

``/dev/kvm`` being there says little: it may be closed to QEMU's user, or belong to a virtual machine whose own
hypervisor cannot nest. So a domain of 32 MiB boots a sector of machine code that writes "power off" to the ACPI
port; KVM is used if that guest went down as told within seconds.
"""
import json
import logging
import os
import threading
import xml.etree.ElementTree as ET

import libvirt

from kodiak.compute.drivers.libvirt import domain

LOG = logging.getLogger(__name__)
MEMORY = 'hypervisor.probe'

# mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt; jmp -1: ACPI S5 on QEMU's "pc" machine.
CODE = bytes.fromhex('ba0406 b80020 ef f4 ebfd')
SECTOR = CODE + bytes(510 - len(CODE)) + b'\x55\xaa'


def starts(connection, kind, folder, seconds=8):
    """True if a guest of ``kind`` (``kvm`` or ``qemu``) really runs here.

    :param folder: where the boot sector may be put; QEMU's user must be able to read there.
    """
    path = os.path.join(folder, 'probe.img')
    with open(path, 'wb') as file:
        file.write(SECTOR)
    os.chmod(path, 0o640)
    root = ET.Element('domain', type=kind)
    domain.text(root, 'name', f'kodiak-probe-{os.getpid()}')
    domain.text(root, 'memory', 32, unit='MiB')
    domain.text(domain.child(root, 'os'), 'type', 'hvm', machine='pc')
    domain.child(domain.child(root, 'features'), 'acpi')
    disk = domain.child(domain.child(root, 'devices'), 'disk', type='file', device='disk')
    domain.child(disk, 'driver', name='qemu', type='raw')
    domain.child(domain.child(disk, 'source', file=path), 'seclabel', model='dac', relabel='no')
    domain.child(disk, 'target', dev='vda', bus='virtio')
    domain.child(disk, 'readonly')
    details, ended = [], threading.Event()

    def event(connection, guest, kind, detail, opaque):
        if kind == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            details.append(detail)
            ended.set()

    guest = watch = None
    try:
        guest = connection.createXML(ET.tostring(root, encoding='unicode'), libvirt.VIR_DOMAIN_START_AUTODESTROY
                                     | libvirt.VIR_DOMAIN_START_PAUSED)
        watch = connection.domainEventRegisterAny(guest, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, None)
        guest.resume()
        ended.wait(seconds)
        return libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN in details
    except libvirt.libvirtError as error:
        LOG.info('No %s guest starts here: %s', kind, error)
        return False
    finally:
        if watch is not None:
            connection.domainEventDeregisterAny(watch)
        if guest is not None and not ended.is_set():
            try:
                guest.destroy()
            except libvirt.libvirtError:
                LOG.debug('the probe was gone already', exc_info=True)
        os.unlink(path)


def platform(connection, wanted, folder, vnc_listen, boot_id):
    """The :class:`domain.Platform` of this host.

    :param wanted: ``kvm``, ``qemu``, or ``auto``, which takes KVM where a guest starts under it. What was found out is
        kept in ``folder`` until the host is booted again.
    """
    kind = wanted
    if wanted == 'auto':
        kind = _remembered(folder, boot_id) or _find_out(connection, folder, boot_id)
    found = domain.Platform(kind=kind, vnc_listen=vnc_listen, direct_io=direct_io(folder))
    if kind == 'kvm':
        found.cpu_mode, found.cpu_model = 'host-model', None
    return found


def _find_out(connection, folder, boot_id):
    kind = 'kvm' if starts(connection, 'kvm', folder) else 'qemu'
    LOG.info('Guests run under %s', 'KVM' if kind == 'kvm' else "QEMU's emulation, for KVM starts none here")
    with open(os.path.join(folder, MEMORY), 'w', encoding='utf-8') as file:
        json.dump({'boot_id': boot_id, 'access': _access(), 'kind': kind}, file)
    return kind


def _remembered(folder, boot_id):
    try:
        with open(os.path.join(folder, MEMORY), encoding='utf-8') as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found.get('kind') if found.get('boot_id') == boot_id and found.get('access') == _access() else None


def _access():
    """Who may use /dev/kvm: somebody may have set that right since the last try."""
    try:
        found = os.stat('/dev/kvm')
    except OSError:
        return None
    return [found.st_uid, found.st_gid, found.st_mode]


def direct_io(folder):
    """True if files in ``folder`` can be opened past the page cache (tmpfs, for one, refuses)."""
    path = os.path.join(folder, 'direct.probe')
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600))
        return True
    except OSError:
        return False
    finally:
        if os.path.exists(path):
            os.unlink(path)
