"""Backups in a folder: one that another machine keeps (NFS), or a disk that is carried away."""
import os

from kodiak.storage_block import sparse
from kodiak.storage_block.backups import base
from kodiak.storage_block.drivers.base import Fault


class FolderStore(base.Store):
    """The store ``file``; ``location`` is the folder."""

    name = 'file'

    def prepare(self, container):
        try:
            os.makedirs(self._path(container), mode=0o700, exist_ok=True)
        except OSError as error:
            raise Fault('backup', f'The folder of backups cannot be used: {error.strerror}.')

    def put(self, container, name, data):
        path = self._path(container, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            with open(path + '.part', 'wb') as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + '.part', path)
            sparse.sync_folder(os.path.dirname(path))
        except OSError as error:
            raise Fault('backup', f'The backup could not be written: {error.strerror}.')

    def get(self, container, name):
        try:
            with open(self._path(container, name), 'rb') as file:
                return file.read()
        except FileNotFoundError:
            raise Fault('backup', 'The data of the backup is gone.', final=True)
        except OSError as error:
            raise Fault('backup', f'The backup could not be read: {error.strerror}.')

    def names(self, container, prefix):
        top, found = self._path(container), []
        for folder, _folders, files in os.walk(top):
            relative = os.path.relpath(folder, top)
            found += [name for file in files if (name := os.path.normpath(os.path.join(relative, file))).startswith(prefix)]
        return found

    def delete(self, container, name):
        path = self._path(container, name)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        try:
            os.rmdir(os.path.dirname(path))
        except OSError:
            pass        # not the last of its backup

    def _path(self, container, name=''):
        path = os.path.normpath(os.path.join(self.location, container, name))
        top = os.path.normpath(self.location)
        if os.path.commonpath([path, top]) != top or '/' in container or container in ('', '.', '..'):
            raise Fault('backup', f'{container!r} is no name of a container for backups.', final=True)
        return path
