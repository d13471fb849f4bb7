"""The devices of a server: folders, one a file system, each of which may be out."""
import contextlib
import os
import re
import threading
import time
import uuid

TEMPORARY = 'tmp'
NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*\Z')
STAMP = re.compile(r'\d{10}\.\d{5}(_[0-9a-f]{1,16})?\Z')


class Out(Exception):
    """A device cannot be used: it is not there, not mounted, broken or full."""


class BadStamp(ValueError):
    """No timestamp."""


def stamp_of(text):
    """A timestamp in the form that orders all changes: ``1401373373.12345``, perhaps with an offset (``_`` and hex digits)."""
    if text is None:
        raise BadStamp('X-Timestamp is missing')
    if STAMP.match(text):
        return text
    try:
        moment = float(text)
    except ValueError:
        raise BadStamp('X-Timestamp is no timestamp') from None
    if not 0 <= moment < 1e10:
        raise BadStamp('X-Timestamp is no timestamp')
    return f'{moment:016.5f}'


def later(stamp, steps):
    """The timestamp so many steps after another: before any that a client's change may have."""
    moment, _, offset = stamp.partition('_')
    return f'{moment}_{int(offset or "0", 16) + steps:016x}'


class Devices:
    """The devices of a folder.

    :param mount_check: a device that is no mount point is out. :param reserve: bytes that each keeps free.
    """

    def __init__(self, root, mount_check=False, reserve=0):
        self.root, self.mount_check, self.reserve = root, mount_check, reserve
        self._count, self._own = 0, uuid.uuid4().hex[:8]
        self._made = set()
        self._lock = threading.Lock()

    def path(self, device):
        """The folder of a device; raises :class:`Out`."""
        if not NAME.match(device):
            raise Out('no such device')
        path = f'{self.root}/{device}'
        try:
            status = os.stat(path)
        except OSError:
            raise Out('no such device') from None
        if self.mount_check and status.st_dev == os.stat(self.root).st_dev:
            raise Out('not mounted')
        return path

    def names(self):
        """The devices that are there."""
        try:
            found = sorted(os.listdir(self.root))
        except OSError:
            return []
        usable = []
        for name in found:
            try:
                if os.path.isdir(self.path(name)):
                    usable.append(name)
            except Out:
                pass
        return usable

    def need(self, path, size=0):
        """Raise :class:`Out` if a device's folder has no room for ``size`` bytes."""
        try:
            room = os.statvfs(path)
        except OSError:
            raise Out('no such device') from None
        if room.f_bavail * room.f_frsize < self.reserve + size or (room.f_files and not room.f_favail):
            raise Out('full')

    def temporary(self, path):
        """Path of a new temporary file of a device, on its file system."""
        with self._lock:
            self._count += 1
            count = self._count
        return f'{path}/{TEMPORARY}/{os.getpid()}-{self._own}-{count}'

    @staticmethod
    def clean(path, age=86400):
        """Remove the temporary files of a device that nobody has written to for so many seconds. Returns how many."""
        removed = 0
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(f'{path}/{TEMPORARY}'):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < time.time() - age:
                        os.unlink(entry.path)
                        removed += 1
        return removed

    @staticmethod
    def identity(path):
        """An id that a device keeps for as long as it keeps its data."""
        name = path + '/device-id'
        for _ in range(2):
            try:
                with open(name) as file:
                    return file.read()
            except FileNotFoundError:
                part = f'{name}.{uuid.uuid4().hex}'
                with open(part, 'w') as file:
                    file.write(uuid.uuid4().hex)
                try:
                    os.link(part, name)
                except FileExistsError:
                    pass
                finally:
                    os.unlink(part)
        raise Out('it has no id')


def sync_folder(path):
    """Have a folder's entries on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(path, above):
    """Make a folder and those above it, down from ``above``; returns the folders that hold a new one."""
    changed = []
    try:
        os.mkdir(path)
    except FileExistsError:
        return changed
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if len(parent) < len(above):
            raise
        changed = make_folders(parent, above)
        try:
            os.mkdir(path)
        except FileExistsError:
            return changed
    return [*changed, os.path.dirname(path)]
