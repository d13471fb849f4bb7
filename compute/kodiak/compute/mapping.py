"""Block device mappings: what a request for a server (or an image made of one) says of its disks, checked and put in order.

The result is what a server is made with: an image for its own root disk or none, ephemeral disks, and entries of
``servers.volumes`` (:mod:`kodiak.compute.volumes`) of volumes that exist or are to be made.
"""
import dataclasses

import orjson

from kodiak.common import errors
from kodiak.compute import birth, devices, volumes

GIB = 2 ** 30
WRONG_SEQUENCE = 'Boot sequence for the instance and image/block device mapping combination is not valid.'


@dataclasses.dataclass
class Disks:
    """What a server is made with.

    :param image: ``agent.state.Image`` of the root disk, None where it boots from a volume.
    :param hardware: then the properties of the image that the volume was made from.
    :param root: the name of the root disk (``/dev/vda``).
    """

    image: dict | None = None
    ephemerals: list | None = None
    entries: list = dataclasses.field(default_factory=list)
    hardware: dict | None = None
    root: str = '/dev/vda'


def _invalid(why):
    return errors.BadRequest(f'Block Device Mapping is Invalid: {why}')


def from_v1(sent, has_image):
    """A mapping of the first version as one of the second."""
    found = []
    for device in sent:
        if device.get('no_device') not in (None, False, ''):
            continue
        size, name = device.get('volume_size'), device.get('device_name')
        kind = 'volume' if device.get('volume_id') else 'snapshot' if device.get('snapshot_id') else None
        if kind is None:
            raise _invalid('Unrecognized legacy format.')
        root = devices.strip(name) in ('vda', 'sda', 'hda') or (len(sent) == 1 and not has_image)
        found.append({'source_type': kind, 'destination_type': 'volume', 'uuid': device[kind + '_id'], 'device_name': name,
                      'volume_size': size, 'delete_on_termination': device.get('delete_on_termination', False),
                      'boot_index': 0 if root and not has_image else None})
    return found


def of_image(image):
    """The mapping in the properties of an image of a server that booted from a volume; empty for others."""
    text = (image or {}).get('properties', {}).get('block_device_mapping')
    if not text:
        return []
    try:
        found = orjson.loads(text) if isinstance(text, str) else text
    except ValueError:
        raise errors.BadRequest(f'The block device mapping in the properties of image {image["id"]} cannot be read.') from None
    if not isinstance(found, list) or not all(isinstance(device, dict) for device in found):
        raise errors.BadRequest(f'The block device mapping in the properties of image {image["id"]} is no list of devices.')
    known = ('boot_index', 'destination_type', 'source_type', 'volume_size', 'device_name', 'guest_format', 'disk_bus',
             'delete_on_termination', 'device_type', 'tag', 'volume_type')
    return [{**{name: device[name] for name in known if device.get(name) is not None},
             'uuid': device.get(str(device.get('source_type')) + '_id') or device.get('uuid')} for device in found]


def _is_own_image(device):
    return device.get('source_type') == 'image' and (device.get('destination_type') or 'local') == 'local'


class Reader:
    """Reads the mapping of one request.

    :param get_image: ``get_image(id)`` gives an ``agent.state.Image``. :param count: how many servers are asked for at most.
    """

    def __init__(self, clients, context, flavor, count=1):
        self.clients, self.context, self.flavor, self.count = clients, context, flavor, count
        self.block = volumes.Block(clients, context)

    def read(self, image_id, sent):
        """:class:`Disks` from the image of a request and its mapping, of the second version."""
        image = birth.image(self.clients, image_id, self.context) if image_id else None
        sent = self._merge(of_image(image), [device for device in sent if not device.get('no_device')])
        index = {position: self._index(device) for position, device in enumerate(sent)}
        roots = [device for position, device in enumerate(sent) if index[position] == 0]
        boot = [0] if image is not None and not roots else []
        order = sorted([number for number in index.values() if number is not None] + boot)
        if order != list(range(len(order))) or not order:
            raise _invalid(WRONG_SEQUENCE)
        disks = Disks(image=image if not roots else None)
        if roots and _is_own_image(roots[0]):
            if image_id and roots[0].get('uuid') != image_id:
                raise _invalid('You specified more local devices than the limit allows')
            disks.image = image or birth.image(self.clients, roots[0].get('uuid'), self.context)
        for position, device in enumerate(sent):
            self._take(disks, device, index[position])
        if disks.image is None and image is not None and set(disks.hardware or {}) <= {'image_id'}:
            # What it boots from says nothing of the hardware that it needs; the image that was named as well does.
            disks.hardware = {'image_id': image['id'], **image['properties']}
        self._check(disks)
        return disks

    @staticmethod
    def _merge(defaults, sent):
        if any(str(device.get('boot_index')) == '0' for device in defaults):
            # Clients name the image as the disk to boot from; one that stands for volumes is none.
            sent = [device for device in sent if not (str(device.get('boot_index')) == '0' and _is_own_image(device))]
        named = {devices.strip(device.get('device_name')) for device in sent} - {''}
        booted = any(str(device.get('boot_index')) == '0' for device in sent)
        return [device for device in defaults if devices.strip(device.get('device_name')) not in named
                and not (booted and str(device.get('boot_index')) == '0')] + sent

    @staticmethod
    def _index(device):
        value = device.get('boot_index')
        if value in (None, '', 'None'):
            return None
        return int(value) if int(value) >= 0 else None

    def _take(self, disks, device, index):
        source = device.get('source_type') or 'blank'
        destination = device.get('destination_type') or ('volume' if source in ('volume', 'snapshot') else 'local')
        if source == 'blank' and device.get('uuid'):
            raise _invalid('Invalid device UUID.')
        if source != 'blank' and not device.get('uuid'):
            raise _invalid('Missing device UUID.')
        if destination == 'local':
            return self._local(disks, device, source, index)
        entry = {'id': None, 'device': device.get('device_name'), 'boot_index': index, 'size': self._size(device),
                 'bus': self._bus(device), 'device_type': device.get('device_type') or 'disk', 'tag': device.get('tag'),
                 'multiattach': False, 'attachments': {},
                 'delete_on_termination': device.get('delete_on_termination') in (True, 'True', 'true', 'TRUE', '1', 'on', 'yes')}
        if entry['device_type'] not in ('disk', 'cdrom', 'lun'):
            raise _invalid(f'There is no device type {entry["device_type"][:40]}.')
        about = getattr(self, '_' + source)(entry, device)
        if index == 0:
            self._root(disks, entry, about)
        disks.entries.append(entry)
        return None

    def _local(self, disks, device, source, index):
        if source == 'image':
            if index != 0:
                raise _invalid('Mapping image to local is not supported.')
        elif source != 'blank':
            raise _invalid(f'A {source} cannot become a local disk.')
        elif device.get('guest_format') != 'swap':
            if index is not None:
                raise _invalid(WRONG_SEQUENCE)
            disks.ephemerals = disks.ephemerals or []
            disks.ephemerals.append({'size': self._size(device) or self.flavor['ephemeral'], 'format': device.get('guest_format')})

    @staticmethod
    def _size(device):
        return int(device['volume_size']) if device.get('volume_size') not in (None, '') else 0

    @staticmethod
    def _bus(device):
        bus = device.get('disk_bus')
        if bus and bus not in devices.PREFIXES:
            raise _invalid(f'There is no disk bus {bus[:40]}.')
        return bus or None

    # What a volume is, or is to be made of: each returns (properties, min_ram, min_disk, bootable) of what lies on it

    def _volume(self, entry, device):
        try:
            volume = self.block.volume(device['uuid'])
        except errors.NotFound:
            raise _invalid(f'failed to get volume {device["uuid"]}.') from None
        volumes.check_free(volume)
        if self.count > 1 and not volume.get('multiattach'):
            raise errors.BadRequest('Cannot attach one or more volumes to multiple instances')
        entry.update(id=volume['id'], size=volume['size'], multiattach=bool(volume.get('multiattach')))
        return self._about(volume), volume.get('bootable') in (True, 'true', 'True')

    def _snapshot(self, entry, device):
        try:
            snapshot = self.block.get(f'/snapshots/{device["uuid"]}')['snapshot']
        except errors.NotFound:
            raise _invalid(f'failed to get snapshot {device["uuid"]}.') from None
        entry['size'] = entry['size'] or snapshot['size']
        entry['make'] = self._new(device, entry['size'], snapshot_id=snapshot['id'])
        try:
            about = self._about(self.block.volume(snapshot['volume_id'])) if entry['boot_index'] == 0 else {}
        except errors.NotFound:
            about = {}
        return about, True

    def _image(self, entry, device):
        if not entry['size']:
            raise _invalid("Images with destination_type 'volume' need to have a non-zero size specified")
        image = birth.image(self.clients, device['uuid'], self.context)
        if image['min_disk'] > entry['size']:
            raise errors.BadRequest(
                'Volume is smaller than the minimum size specified in image metadata. Volume size is '
                f'{entry["size"] * GIB} bytes, minimum size is {image["min_disk"] * GIB} bytes.')
        entry['make'] = self._new(device, entry['size'], imageRef=image['id'])
        return {'properties': image['properties'], 'min_ram': image['min_ram'], 'id': image['id']}, True

    def _blank(self, entry, device):
        if not entry['size']:
            raise _invalid("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size")
        entry['make'] = self._new(device, entry['size'])
        return {}, True     # a guest may be installed on it, by rescue or over the network

    @staticmethod
    def _new(device, size, **more):
        body = {'size': size, 'name': '', 'description': '', **more}
        if device.get('volume_type'):
            body['volume_type'] = device['volume_type']
        return body

    @staticmethod
    def _about(volume):
        found = dict(volume.get('volume_image_metadata') or {})
        numbers = {name: int(found.get(name) or 0) for name in ('min_ram', 'min_disk') if str(found.get(name) or 0).isdigit()}
        known = {'image_id', 'image_name', 'checksum', 'container_format', 'disk_format', 'min_ram', 'min_disk', 'size',
                 'signature_verified'}
        return {**numbers, 'id': found.get('image_id'),
                'properties': {name: value for name, value in found.items() if name not in known}}

    def _root(self, disks, entry, about):
        about, bootable = about
        if not bootable:
            raise _invalid(f'Block Device {entry["id"]} is not bootable.')
        if self.flavor['ram'] < about.get('min_ram', 0):
            raise errors.BadRequest("Flavor's memory is too small for requested image.")
        disks.hardware = {'image_id': about.get('id'), **about.get('properties', {})}

    # What holds for all of them together

    def _check(self, disks):
        if disks.ephemerals and sum(disk['size'] for disk in disks.ephemerals) > self.flavor['ephemeral']:
            raise _invalid('The ephemeral disks are larger than the flavor allows.')
        if disks.image is not None:
            birth.check_fits(self.flavor, disks.image)
        ids = [entry['id'] for entry in disks.entries if entry['id']]
        if len(ids) != len(set(ids)):
            raise _invalid('A volume is named twice.')
        name_disks(disks, self.flavor)


def name_disks(disks, flavor):
    """Give every volume a device name: first those that are booted from, as the guest is told of its disks."""
    properties = disks.image['properties'] if disks.image else disks.hardware
    bus = devices.bus_of(properties)
    taken = set()
    booting = sorted((entry for entry in disks.entries if entry['boot_index'] is not None), key=lambda entry: entry['boot_index'])
    for entry in booting:
        _name(entry, bus, taken)
    disks.root = booting[0]['device'] if disks.image is None and booting else f'/dev/{devices.PREFIXES[bus]}a'
    own = devices.own(flavor, disks.ephemerals, disks.image, properties, taken)
    wishes = [devices.strip(entry['device']) for entry in disks.entries if entry not in booting]
    if disks.image and devices.strip(disks.root) in wishes:
        raise errors.BadRequest(f'The volume cannot be assigned the same device name as the root device {disks.root}')
    taken |= own
    for entry in disks.entries:
        if entry not in booting:
            _name(entry, bus, taken)


def _name(entry, bus, taken):
    name = devices.free(devices.PREFIXES[entry['bus'] or bus], taken, entry['device'])
    if name is None:
        raise errors.Forbidden('The maximum allowed number of disk devices is exceeded.')
    taken.add(name)
    entry['device'] = '/dev/' + name
