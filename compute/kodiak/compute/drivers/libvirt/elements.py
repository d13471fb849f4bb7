"""What the parts of a domain definition are put together with, and the aliases that tie a device to its port or volume."""
import uuid
import xml.etree.ElementTree as ET

from kodiak.compute import devices
from kodiak.compute.drivers import base

NAMESPACE = 'urn:kodiak:compute:1'
ET.register_namespace('kodiak', NAMESPACE)

PORT_ALIAS, VOLUME_ALIAS = 'ua-port-', 'ua-volume-'


def text(parent, tag, value, **attributes):
    """A child element with text and attributes (None leaves an attribute out)."""
    element = child(parent, tag, **attributes)
    element.text = str(value)
    return element


def child(parent, tag, **attributes):
    """A child element with attributes (None leaves one out)."""
    return ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items() if value is not None})


def parse(xml):
    """libvirtd's own words as an element. libvirtd is trusted, and escapes what owners wrote."""
    return ET.fromstring(xml)   # noqa: S314


def truth(value):
    """How image properties say yes."""
    return str(value).lower() in ('1', 'true', 'yes', 'on')


class Names:
    """Hands out device names (``vda``) and keeps track of those that are taken."""

    def __init__(self, taken=()):
        self.taken = set(taken)

    def take(self, bus, wish=None):
        prefix = devices.PREFIXES.get(bus)
        if prefix is None:
            raise base.Fault('image-invalid', f'There is no disk bus {bus!r}.', final=True)
        name = devices.free(prefix, self.taken, wish)
        if name is None:
            raise base.Fault('too-many-disks', 'The instance has no free device name left.', final=True)
        self.taken.add(name)
        return name


def secret_uuid(volume, kind):
    """The uuid of the secret of this kind that a volume is opened with: always the same for an attachment."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f'{NAMESPACE}:{kind}:{volume.attachment_id or volume.id}'))


def disk_bus(hw):
    """The bus that disks are on."""
    return hw.get('hw_disk_bus') or 'virtio'


def cdrom_bus(hw):
    """The bus that CD-ROM drives are on."""
    machine = hw.get('hw_machine_type') or 'pc'
    return hw.get('hw_cdrom_bus') or ('sata' if 'q35' in machine else 'ide')
