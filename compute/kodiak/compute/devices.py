"""Names of disks (``/dev/vdb``) as guests and users know them."""
import string

#: What disk names begin with, by the bus that the disk is on.
PREFIXES = {'virtio': 'vd', 'scsi': 'sd', 'sata': 'sd', 'usb': 'sd', 'ide': 'hd', 'fdc': 'fd'}
LETTERS = (*string.ascii_lowercase, *(a + b for a in 'abc' for b in string.ascii_lowercase))


def strip(device):
    """``vdb`` of ``/dev/vdb``; empty for None."""
    return (device or '').rpartition('/')[2]


def free(prefix, taken, wish=None):
    """A name with this prefix that is not in ``taken``: the one wished for, if it is free; None where all are taken.

    A name that is wished for in another bus's form (``/dev/sdb``, and the bus is virtio) keeps its letter.
    """
    wish = strip(wish)
    if wish[2:].isalpha() and prefix + wish[2:] not in taken:
        return prefix + wish[2:]
    return next((prefix + letter for letter in LETTERS if prefix + letter not in taken), None)


def bus_of(properties):
    """The bus that disks are on, by the properties of an image."""
    bus = (properties or {}).get('hw_disk_bus')
    return bus if bus in PREFIXES else 'virtio'


def own(flavor, ephemerals, image, properties, taken=()):
    """The names that a server's own disks (root, ephemeral, swap) take, beside those of the volumes that it boots from.

    :param ephemerals: as in a spec: None for one of the flavor's size. :param image: None if it boots from a volume.
    """
    prefix = PREFIXES[bus_of(properties)]
    names = set(taken)
    count = (1 if flavor['ephemeral'] else 0) if ephemerals is None else len(ephemerals)
    for _ in range((1 if image else 0) + count + (1 if flavor['swap'] else 0)):
        name = free(prefix, names)
        if name is not None:
            names.add(name)
    return names
