"""Image data as files in a folder: of one host, or of a file system that all hosts mount."""
import errno
import os
import shutil

from oslo_config import cfg

from . import base


class FileStore(base.Store):
    """Blobs in ``<path>/<two digits>/<key>``; half-written ones in ``<path>/writing``, which is renamed from."""

    OPTS = (
        cfg.StrOpt('path', help='Folder of the data; <state_path>/image/<id of the store> if unset.'),
        cfg.StrOpt('description', help='What users read of this store.'),
        cfg.IntOpt('weight', default=0, help='Stores with more weight are read first.'),
    )
    SCHEME = 'file'

    def __init__(self, store_id, conf, state_path):
        super().__init__(store_id, conf, state_path)
        self.path = conf.path or os.path.join(state_path, 'image', 'store' if store_id == 'file' else 'store-' + store_id)

    def prepare(self):
        os.makedirs(os.path.join(self.path, 'writing'), mode=0o750, exist_ok=True)

    def _place(self, key):
        return os.path.join(self.path, key[:2], key)

    def create(self, key, size=None):
        if size is not None and size > shutil.disk_usage(self.path).free:
            raise base.StoreFull
        return FileWriter(os.path.join(self.path, 'writing', key), self._place(key))

    def open(self, key, offset=0):
        try:
            file = open(self._place(key), 'rb', buffering=0)  # noqa: SIM115 (the caller closes it)
        except FileNotFoundError:
            raise base.NoSuchData(key) from None
        file.seek(offset)
        return file

    def path_of(self, key):
        return self._place(key)

    def remove(self, key):
        for path in (os.path.join(self.path, 'writing', key), self._place(key)):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def url(self, key):
        return 'file://' + os.path.abspath(self._place(key))

    def properties(self):
        return {'data_dir': self.path, 'chunk_size': 1 << 20, 'thin_provisioning': True}


#: A piece of nothing: it becomes a hole in the file.
ZEROS = bytes(1 << 20)


class FileWriter(base.Writer):
    """Writes beside the blob's place and moves it there when all of it is on disk. Pieces of zeros take no room."""

    def __init__(self, temporary, place):
        self._temporary = temporary
        self._place = place
        self._file = open(temporary, 'xb', buffering=0)  # noqa: SIM115 (commit and abort close it)
        os.chmod(temporary, 0o640)

    def write(self, data):
        if data == ZEROS:
            self._file.seek(len(data), os.SEEK_CUR)
            return
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view):]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise base.StoreFull from None
            raise

    def commit(self):
        # A hole at the end has been sought over, and is none before the file has its length.
        self._file.truncate(self._file.tell())
        os.fsync(self._file.fileno())
        self._file.close()
        folder = os.path.dirname(self._place)
        os.makedirs(folder, mode=0o750, exist_ok=True)
        os.rename(self._temporary, self._place)
        for path in (folder, os.path.dirname(folder)):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def abort(self):
        self._file.close()
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            pass
