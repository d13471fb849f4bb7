"""Ceph RBD: each blob is a block device image with a protected snapshot, from which compute and block storage clone.

The Python bindings of librados and librbd come with Ceph (``python3-rados``, ``python3-rbd``) and are loaded when a store of this
kind is enabled.
"""
import contextlib
import errno

from oslo_config import cfg

from . import base

MIB = 1 << 20
SNAPSHOT = 'snap'
#: A piece of nothing: it is left out of the image.
ZEROS = bytes(MIB)


class RbdStore(base.Store):
    """Blobs as RBD images ``<pool>/<key>``."""

    OPTS = (
        cfg.StrOpt('pool', default='images', help='Pool of the data.'),
        cfg.StrOpt('user', default='images', help='Ceph user (client.<user>), whose keyring the configuration of Ceph names.'),
        cfg.StrOpt('ceph_conf', default='/etc/ceph/ceph.conf', help='Configuration of the Ceph cluster.'),
        cfg.IntOpt('chunk_size', default=8, min=1, max=32, help='Size of the objects of an image, in MiB.'),
        cfg.IntOpt('connect_timeout', default=15, min=1, help='Seconds to wait for the cluster.'),
        *base.COMMON,
    )
    SCHEME = 'rbd'

    def prepare(self):
        import rados
        import rbd
        self._rados, self._rbd = rados, rbd
        if self.conf.chunk_size & (self.conf.chunk_size - 1):
            raise cfg.ConfigFileValueError(f'[store_{self.id}] chunk_size must be a power of two')
        self._fsid = None

    @contextlib.contextmanager
    def pool(self):
        """An I/O context of the pool, on a connection of its own."""
        try:
            cluster = self._rados.Rados(conffile=self.conf.ceph_conf, rados_id=self.conf.user)
            cluster.connect(timeout=self.conf.connect_timeout)
        except self._rados.Error as error:
            raise base.StoreUnavailable(f'the Ceph cluster cannot be reached: {error}') from None
        try:
            ioctx = cluster.open_ioctx(self.conf.pool)
            try:
                self._fsid = self._fsid or cluster.get_fsid()
                yield ioctx
            finally:
                ioctx.close()
        except self._rados.Error as error:
            raise base.StoreUnavailable(f'the pool {self.conf.pool} cannot be used: {error}') from None
        finally:
            cluster.shutdown()

    def create(self, key, size=None):
        return RbdWriter(self, key, size)

    def open(self, key, offset=0):
        return RbdReader(self, key, offset)

    def remove(self, key):
        """Remove an image; one that has clones stays until these are gone."""
        with self.pool() as ioctx:
            try:
                with self._rbd.Image(ioctx, key) as image:
                    with contextlib.suppress(self._rbd.ImageNotFound):
                        if image.is_protected_snap(SNAPSHOT):
                            image.unprotect_snap(SNAPSHOT)
                        image.remove_snap(SNAPSHOT)
                self._rbd.RBD().remove(ioctx, key)
            except self._rbd.ImageNotFound:
                return
            except (self._rbd.ImageBusy, self._rbd.ImageHasSnapshots) as error:
                raise base.StoreUnavailable(f'image {key} is in use: {error}') from None

    def url(self, key):
        if self._fsid is None:
            with self.pool():
                pass
        return f'rbd://{self._fsid}/{self.conf.pool}/{key}/{SNAPSHOT}'

    def properties(self):
        return {'rbd_store_pool': self.conf.pool, 'rbd_store_user': self.conf.user, 'rbd_store_chunk_size': self.conf.chunk_size,
                'thin_provisioning': True}


class RbdWriter(base.Writer):
    """Writes an image that grows by itself where its size was not known; its snapshot makes it readable."""

    #: How much an image of unknown size grows by, doubled each time up to the second.
    GROW, MOST = 64 * MIB, 8192 * MIB

    def __init__(self, store, key, size):
        self._store = store
        self._key = key
        self._size = size or 0
        self._grow = self.GROW
        self._offset = 0
        self._exits = contextlib.ExitStack()
        ioctx = self._exits.enter_context(store.pool())
        try:
            store._rbd.RBD().create(ioctx, key, self._size, order=(store.conf.chunk_size * MIB).bit_length() - 1, old_format=False,
                                    features=store._rbd.RBD_FEATURE_LAYERING)
            self._image = self._exits.enter_context(store._rbd.Image(ioctx, key))
        except store._rbd.Error as error:
            self._exits.close()
            raise self._translated(error) from None

    def _translated(self, error):
        if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
            return base.StoreFull()
        return base.StoreUnavailable(f'RBD: {error}')

    def write(self, data):
        end = self._offset + len(data)
        try:
            if end > self._size:
                self._size = max(end, self._size + self._grow)
                self._grow = min(self._grow * 2, self.MOST)
                self._image.resize(self._size)
            if data != ZEROS:
                self._image.write(bytes(data), self._offset)
        except self._store._rbd.Error as error:
            raise self._translated(error) from None
        self._offset = end

    def commit(self):
        try:
            if self._size != self._offset:
                self._image.resize(self._offset)
            self._image.flush()
            self._image.create_snap(SNAPSHOT)
            self._image.protect_snap(SNAPSHOT)
        except self._store._rbd.Error as error:
            raise self._translated(error) from None
        self._exits.close()

    def abort(self):
        self._exits.close()
        self._store.remove(self._key)


class RbdReader:
    """The data of an image as a file object."""

    def __init__(self, store, key, offset):
        self._store = store
        self._offset = offset
        self._exits = contextlib.ExitStack()
        try:
            ioctx = self._exits.enter_context(store.pool())
            self._image = self._exits.enter_context(store._rbd.Image(ioctx, key, snapshot=SNAPSHOT, read_only=True))
            self.size = self._image.size()
        except store._rbd.ImageNotFound:
            self._exits.close()
            raise base.NoSuchData(key) from None
        except store._rbd.Error as error:
            self._exits.close()
            raise base.StoreUnavailable(f'RBD: {error}') from None

    def read(self, size):
        """The next piece; b'' at the end."""
        length = min(size, self.size - self._offset)
        if length <= 0:
            return b''
        try:
            data = self._image.read(self._offset, length)
        except self._store._rbd.Error as error:
            raise base.StoreUnavailable(f'RBD: {error}') from None
        self._offset += len(data)
        return data

    def close(self):
        """Let go of the image and the connection."""
        self._exits.close()
