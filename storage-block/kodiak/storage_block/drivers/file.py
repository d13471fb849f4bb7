"""Volumes as sparse raw files of one folder.

On a file system that can share blocks between files (XFS with reflink, btrfs), snapshots and clones are made in
milliseconds and take no space until they differ; elsewhere they are copied, without their holes.
"""
import errno
import os

from kodiak.storage_block import sparse
from kodiak.storage_block.drivers import base


class FileDriver(base.Driver):
    """The driver ``file``. Its section: ``path``, the folder."""

    def __init__(self, name, options):
        super().__init__(name, options)
        self.folder = options.path
        self.reflink = False

    def start(self):
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            self.reflink = sparse.can_reflink(self.folder)
        except OSError as error:
            raise base.Fault('back-end', f'The folder {self.folder} cannot be used: {error.strerror}.')
        for name in os.listdir(self.folder):
            if name.endswith(base.PART):
                self._unlink(name)

    def stats(self):
        found = os.statvfs(self.folder)
        return base.Stats(total=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize,
                          provisioned=sum(size for name, size in self._files() if base.NAME.fullmatch(name)),
                          clones='reflink' if self.reflink else 'copy')

    def size(self, name):
        try:
            return os.stat(self._path(name)).st_size
        except FileNotFoundError:
            return None

    def create(self, name, size):
        if self.size(name) is None:
            with _space(), open(self._path(base.part(name)), 'wb') as file:
                os.fchmod(file.fileno(), 0o600)
                os.ftruncate(file.fileno(), size)
            self.rename(base.part(name), name)

    def delete(self, name):
        self._unlink(name)

    def rename(self, old, new):
        try:
            os.rename(self._path(old), self._path(new))
        except FileNotFoundError:
            if self.size(new) is None:
                raise self._missing(old)
        sparse.sync_folder(self.folder)

    def extend(self, name, size):
        with open(self._existing(name), 'r+b') as file:
            if os.fstat(file.fileno()).st_size < size:
                with _space():
                    os.ftruncate(file.fileno(), size)
                os.fsync(file.fileno())

    def snapshot(self, snapshot, volume):
        if self.size(snapshot) is None:
            self._copy(volume, snapshot)

    def delete_snapshot(self, snapshot, volume):
        self._unlink(snapshot)

    def clone(self, source, name, size):
        if self.size(name) is None:
            self._copy(source, name, size)

    def revert(self, volume, snapshot):
        self._existing(snapshot)
        self._copy(snapshot, volume, self.size(volume))

    def load(self, name, path, size):
        if self.size(name) is None:
            half = base.part(name)
            self._unlink(half)
            with _space():
                sparse.clone(path, self._path(half), size)
            self.rename(half, name)

    def open(self, name):
        return base.Node.of_path(self._existing(name))

    def listing(self):
        return [(name, size) for name, size in self._files() if not name.startswith('snapshot-')]

    def _copy(self, source, name, size=None):
        path, half = self._existing(source), base.part(name)
        self._unlink(half)
        try:
            with _space():
                sparse.clone(path, self._path(half), size)
        except BaseException:
            self._unlink(half)
            raise
        self.rename(half, name)

    def _files(self):
        with os.scandir(self.folder) as found:
            return [(entry.name, entry.stat().st_size) for entry in found
                    if entry.is_file(follow_symlinks=False) and not entry.name.endswith(base.PART)
                    and not entry.name.startswith('.')]

    def _path(self, name):
        if name != os.path.basename(name) or name.startswith('.'):
            raise base.Fault('invalid', f'{name!r} is no name of a volume.', final=True)
        return os.path.join(self.folder, name)

    def _existing(self, name):
        path = self._path(name)
        if not os.path.exists(path):
            raise self._missing(name)
        return path

    def _unlink(self, name):
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            pass


class _space:
    """Turns the errors of a full or small file system into faults."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise base.Fault('no-space', 'The back end has no space left.')
        if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EINVAL):
            raise base.Fault('invalid', 'The back end cannot hold a volume of this size.', final=True)
