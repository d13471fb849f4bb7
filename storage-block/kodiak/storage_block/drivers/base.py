"""What a back end of volumes must be able to do.

A driver keeps *things*, each with a name: ``volume-<uuid>`` and ``snapshot-<uuid>`` (:func:`volume`, :func:`snapshot`).
Sizes are in bytes. Every method may be called again after a crash and then ends as if it had been called once: making
what is there already, or removing what is gone, is no error. What is only half made bears another name (:func:`part`)
and is never mistaken for the whole.

Drivers run in the agent of the host that reaches the storage; the agent sees to it that no two calls work on one
volume at once. What a user may read of a failure is a :class:`Fault`.
"""
import contextlib
import dataclasses
import re

GIB = 1 << 30
NAME = re.compile(r'(volume|snapshot)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
PART = '.part'


class Fault(Exception):
    """Why something can't be done, for the user to read.

    :param code: a short name: ``no-space``, ``missing``, ``in-use``, ``invalid``, ``back-end``, ``image``, ``backup``.
    :param final: True where another try would fail in the same way.
    """

    def __init__(self, code, message, final=False):
        self.code, self.message, self.final = code, message, final
        super().__init__(message)


@dataclasses.dataclass(frozen=True)
class Node:
    """How QEMU's tools open something: ``options`` are those of a ``blockdev`` with its format.

    :param path: the local file or device whose bytes are those of the volume, or None where there is none.
    """

    options: dict
    path: str | None = None

    @classmethod
    def of_path(cls, path, format='raw', device=False):
        """The node of a local file or block device."""
        below = {'driver': 'host_device' if device else 'file', 'filename': path}
        return cls({'driver': format, 'file': below}, path if format == 'raw' else None)


@dataclasses.dataclass(frozen=True)
class Stats:
    """What a back end has, in bytes. ``provisioned`` is the sum of the sizes of its volumes and snapshots.

    :param clones: what a clone or snapshot costs: ``reflink`` or ``native`` (nothing at first), or ``copy``.
    """

    total: int
    free: int
    provisioned: int
    thin: bool = True
    clones: str = 'copy'


def volume(id):
    """The name of a volume."""
    return f'volume-{id}'


def snapshot(id):
    """The name of a snapshot."""
    return f'snapshot-{id}'


def part(name):
    """The name of something while it is made."""
    return name + PART


class Driver:
    """A back end; the base of all drivers.

    :param name: its name on this host, as in ``host@name``.
    :param options: its section of the configuration (an oslo.config group).
    """

    #: How guests reach volumes without an exporter (``rbd``); None for a driver whose volumes are exported.
    native = None
    #: Whether it works through the privileged daemon (``drivers.root``).
    needs_root = False

    def __init__(self, name, options):
        self.name, self.options = name, options

    def start(self):
        """Look whether the storage is there. :raises Fault: why the back end can't be used now."""
        raise NotImplementedError

    def stats(self):
        """The :class:`Stats` of the back end."""
        raise NotImplementedError

    def size(self, name):
        """The size of a thing in bytes, or None where there is none of that name."""
        raise NotImplementedError

    def create(self, name, size):
        """An empty volume; what is read from it is zeros."""
        raise NotImplementedError

    def delete(self, name):
        """Remove a volume. :raises Fault: ``in-use`` where the back end can't while other things depend on it."""
        raise NotImplementedError

    def rename(self, old, new):
        """Give a thing its other name, in one step. It is done already where ``old`` is gone and ``new`` is there."""
        raise NotImplementedError

    def extend(self, name, size):
        """Make a volume larger; one that is at least as large stays as it is."""
        raise NotImplementedError

    def snapshot(self, snapshot, volume):
        """Keep what the volume holds at this moment."""
        raise NotImplementedError

    def snapshots(self, pairs):
        """Several snapshots, ``[(snapshot, volume)]``, as close to one moment as the back end can."""
        for snapshot, volume in pairs:
            self.snapshot(snapshot, volume)

    def delete_snapshot(self, snapshot, volume):
        """Remove a snapshot. Clones of it live on."""
        raise NotImplementedError

    def clone(self, source, name, size):
        """A new volume with the content of a volume or snapshot, of ``size`` bytes, at least as large as its source."""
        raise NotImplementedError

    def revert(self, volume, snapshot):
        """Bring a volume, which nobody uses, back to what its snapshot holds. A volume that grew since keeps its size."""
        raise NotImplementedError

    def open(self, name):
        """The :class:`Node` of a thing, to be read, or, if it is a volume, written. :raises Fault: ``missing``."""
        raise NotImplementedError

    def listing(self):
        """All that could be managed: ``[(reference, size in bytes)]``, the names that the back end knows things by."""
        raise NotImplementedError

    def manage(self, reference, name):
        """Take something of the back end (a name in :meth:`listing`) as a volume. Returns its size in bytes."""
        if self.size(name) is None:
            if reference not in {found for found, _size in self.listing()}:
                raise Fault('missing', f'There is nothing of the name {reference!r} on the back end {self.name}.', final=True)
            self.rename(reference, name)
        return self.size(name)

    def connection(self, name):
        """What a guest connects by, where the driver is ``native``: ``{'driver_volume_type': ..., 'data': {...}}``."""
        raise NotImplementedError

    def discard(self, name):
        """Remove what is there under a name that is no whole thing (:func:`part`)."""
        self.delete(name)

    def load(self, name, path, size):
        """A volume whose content is that of the raw file ``path``, and zeros after it."""
        with self.making(name, size) as node:
            if node is not None:
                from kodiak.storage_block import qemu_img
                qemu_img.convert(Node.of_path(path), node)

    @contextlib.contextmanager
    def making(self, name, size):
        """A new volume to be filled: gives the node to write to, or None where the volume is there already.

        It gets its name when the block ends well, and is gone when it does not.
        """
        if self.size(name) is not None:
            yield None
            return
        half = part(name)
        self.discard(half)
        self.create(half, size)
        try:
            yield self.open(half)
        except BaseException:
            self.discard(half)
            raise
        self.rename(half, name)

    def _missing(self, name):
        return Fault('missing', f'{name} is not on the back end {self.name}.', final=True)
