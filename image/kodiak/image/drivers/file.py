"""Image data as files in a folder: of one host, or of a file system that all hosts mount."""
import contextlib
import errno
import os
import shutil
import threading

from oslo_config import cfg

from . import base


class FileStore(base.Store):
    """Blobs in ``<path>/<two digits>/<key>``; half-written ones in ``<path>/writing``, which is renamed from."""

    OPTS = (
        cfg.StrOpt('path', help='Folder of the data; <state_path>/image/<id of the store> if unset.'),
        *base.COMMON,
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


class _Flusher:
    """Sends what was written to the disk while more comes, so that the end of an upload need not wait for all of it."""

    EVERY = 32 << 20

    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._fresh = 0
        self._wake = threading.Event()
        self._thread = None
        self._ending = False
        self._error = None

    def written(self, size):
        """``size`` bytes more were written."""
        self._fresh += size
        if self._fresh < self.EVERY:
            return
        self._fresh = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='flush', daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self):
        while self._wake.wait() and not self._ending:
            self._wake.clear()
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                # The kernel tells of a failed write once: whoever syncs next would hear nothing of it.
                self._error = error
                return

    def close(self):
        """Wait for what is under way; raises what the disk said."""
        if self._thread is not None:
            self._ending = True
            self._wake.set()
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error


class FileWriter(base.Writer):
    """Writes beside the blob's place and moves it there when all of it is on disk. Pieces of zeros take no room."""

    def __init__(self, temporary, place):
        self._temporary = temporary
        self._place = place
        self._file = open(temporary, 'xb', buffering=0)  # noqa: SIM115 (commit and abort close it)
        os.chmod(temporary, 0o640)
        self._flusher = _Flusher(self._file.fileno())

    def write(self, data):
        if data == ZEROS:
            self._file.seek(len(data), os.SEEK_CUR)
            return
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view):]
            self._flusher.written(len(data))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise base.StoreFull from None
            raise

    def commit(self):
        # A hole at the end has been sought over, and is none before the file has its length.
        self._file.truncate(self._file.tell())
        self._flusher.close()
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
        with contextlib.suppress(OSError):
            self._flusher.close()
        self._file.close()
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            pass
