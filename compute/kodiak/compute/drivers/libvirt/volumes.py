"""The disk elements of volumes: QEMU is the initiator, so a volume needs no device of the host.

What a volume is opened with is named here by its uuid only (:mod:`.secrets`).
"""
import xml.etree.ElementTree as ET

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt.elements import VOLUME_ALIAS, cdrom_bus, child, disk_bus, secret_uuid, text

#: What libvirt's iotune knows; block storage calls its limits by the same names.
LIMITS = (*(f'{what}_{unit}_sec{more}' for more in ('', '_max', '_max_length') for unit in ('bytes', 'iops')
            for what in ('total', 'read', 'write')), 'size_iops_sec')
RECONNECT = 30      # seconds that a guest waits for an NBD server to come back
#: QEMU's NBD initiator gives up at once when its server is gone, and connects anew with a later request. The guest is stopped
#: instead of being told of an error: the agent lets it go on, and what was not answered is sent again.
STOP = {'error_policy': 'stop', 'rerror_policy': 'stop'}


def disk(volume, hw, names, platform, boots=None):
    """The disk element of a volume.

    :param names: the :class:`~.elements.Names` that are taken. :param boots: its place in the order of booting.
    :raises base.Fault: ``volume-unsupported`` for a connection of a kind that this host cannot make.
    """
    kind, data = volume.connection.get('driver_volume_type'), volume.connection.get('data', {})
    make = SOURCES.get(kind)
    if make is None:
        raise base.Fault('volume-unsupported', f'This host cannot attach a volume over {kind!r}.', final=True)
    shape = volume.device_type if volume.device_type == 'cdrom' or (volume.device_type == 'lun' and kind == 'iscsi') else 'disk'
    bus = volume.bus or (cdrom_bus(hw) if shape == 'cdrom' else disk_bus(hw))
    element = ET.Element('disk', type='file' if kind == 'local' else 'network', device=shape)
    child(element, 'driver', name='qemu', type=data.get('format', 'raw') if kind == 'local' else 'raw', cache='none',
          discard='unmap' if data.get('discard', True) else None, **(STOP if kind == 'nbd' else {}))
    source = make(element, volume, data, platform)
    if data.get('encrypted'):
        encryption = child(source, 'encryption', format='luks')
        child(encryption, 'secret', type='passphrase', uuid=secret_uuid(volume, 'passphrase'))
    child(element, 'target', dev=names.take(bus, volume.device), bus=bus)
    _limits(element, data.get('qos_specs'))
    if volume.read_only or data.get('access_mode') == 'ro' or shape == 'cdrom':
        child(element, 'readonly')
    if volume.multiattach:
        child(element, 'shareable')
    text(element, 'serial', volume.id)
    if boots:
        child(element, 'boot', order=boots)
    child(element, 'alias', name=VOLUME_ALIAS + volume.id)
    return element


def _local(element, volume, data, platform):
    source = child(element, 'source', file=data['device_path'])
    child(source, 'seclabel', model='dac', relabel='no')
    return source


def _nbd(element, volume, data, platform):
    source = child(element, 'source', protocol='nbd', name=data.get('export', ''), tls='yes' if data.get('tls') else None)
    child(source, 'host', name=data['host'], port=data['port'])
    # Where libvirt can have it said (9.0 can't, and passes over it) the disk waits for its server by itself.
    child(source, 'reconnect', delay=RECONNECT)
    return source


def _iscsi(element, volume, data, platform):
    source = child(element, 'source', protocol='iscsi', name=f'{data["target_iqn"]}/{data.get("target_lun", 0)}')
    host, _, port = data['target_portal'].rpartition(':')
    child(source, 'host', name=host.strip('[]'), port=port)
    if data.get('auth_password'):
        _auth(source, 'iscsi', data['auth_username'], secret_uuid(volume, 'iscsi'))
    if platform.initiator:
        child(child(source, 'initiator'), 'iqn', name=platform.initiator)
    return source


def _rbd(element, volume, data, platform):
    source = child(element, 'source', protocol='rbd', name=data['name'])
    for host, port in zip(data.get('hosts') or (), data.get('ports') or (), strict=False):
        child(source, 'host', name=host.strip('[]'), port=port)
    if data.get('auth_enabled'):
        # Without its key the host's operator has told libvirt of the secret.
        _auth(source, 'ceph', data['auth_username'], secret_uuid(volume, 'ceph') if data.get('keyring') else data['secret_uuid'])
    return source


SOURCES = {'local': _local, 'nbd': _nbd, 'iscsi': _iscsi, 'rbd': _rbd}


def _auth(source, kind, user, uuid):
    child(child(source, 'auth', username=user), 'secret', type=kind, uuid=uuid)


def _limits(element, specs):
    found = {name: int(specs[name]) for name in LIMITS if str((specs or {}).get(name, '')).isdigit()}
    if found:
        tune = child(element, 'iotune')
        for name, value in found.items():
            text(tune, name, value)
