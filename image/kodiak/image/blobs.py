"""Blobs: the durable record of what stores hold, from before the first byte to after the last.

A blob's row says ``writing`` while a :class:`Filling` fills it, under a lease that is renewed; then ``staged`` (an import
will use it) or ``live`` (an image refers to it); and ``doomed`` when it is to be removed. :class:`Keeper` removes what is
doomed, and what was being written when its writer died.
"""
import datetime
import logging
import threading
import time

import sqlalchemy as sa

from kodiak.common import db, errors, periodic, wake

from . import catalog, notices, tasks, transfer, trash
from .drivers import base
from .models import blobs, images

LOG = logging.getLogger(__name__)
#: Seconds that a worker has a blob to itself without saying that it is alive. Longer than a read may take.
LEASE = 60
RENEW = 5
#: What a transaction that dooms blobs wakes (:mod:`kodiak.common.wake`).
WAKE = 'blobs'
#: Seconds between two looks of the keeper.
INTERVAL = 15


def _lease():
    return db.utcnow() + datetime.timedelta(seconds=LEASE)


def find(connection, blob):
    """The row of a blob as a dictionary, or None."""
    return db.one(connection, sa.select(blobs).where(blobs.c.id == blob))


def staged(connection, image_id):
    """The row of what was staged for an image, or None."""
    return db.one(connection, sa.select(blobs).where(blobs.c.image_id == image_id, blobs.c.state == 'staged')
                  .order_by(blobs.c.created_at.desc()))


def settle(connection, blob, state, before=('writing',), facts=None):
    """Move a blob to another state; False if it isn't in one of the states ``before`` any more."""
    changes = {'state': state} if facts is None else {'state': state, 'facts': facts, 'size': facts['size']}
    return bool(connection.execute(sa.update(blobs).where(blobs.c.id == blob, blobs.c.state.in_(before)).values(changes)).rowcount)


def doom(connection, condition, after=0):
    """Have blobs removed, from ``after`` seconds on; returns how many."""
    due = db.utcnow() + datetime.timedelta(seconds=after)
    count = connection.execute(sa.update(blobs).where(condition, blobs.c.state != 'doomed').values(
        state='doomed', lease_until=due)).rowcount
    if count and not after:
        wake.after_commit(connection, WAKE)
    return count


def doomed(connection):
    """The rows of what is to be removed, the longest due first."""
    return db.all_dicts(connection, sa.select(blobs).where(blobs.c.state == 'doomed').order_by(blobs.c.lease_until, blobs.c.id))


def hasten(connection):
    """Make everything due that is to be removed."""
    trash.hasten(connection)
    connection.execute(sa.update(blobs).where(blobs.c.state == 'doomed').values(lease_until=db.utcnow()))


class Filling:
    """Fills one blob.

    :param app: the process's Runtime. :param image_id: whose data it is. :param store: where it goes.
    :param blob: its id, where the caller makes one that it can find again; nobody else may fill the same one.
    """

    def __init__(self, app, image_id, store, blob=None):
        self.app = app
        self.image_id = image_id
        self.store = store
        self.id = blob or db.new_id()
        self._again = blob is not None
        self._renew_at = 0
        self._writer = None

    def begin(self, connection):
        """Write its row, in the caller's transaction; the data comes after its commit."""
        connection.execute(sa.delete(blobs).where(blobs.c.id == self.id))
        connection.execute(sa.insert(blobs), {
            'id': self.id, 'image_id': self.image_id, 'store': self.store.id, 'state': 'writing', 'lease_until': _lease(),
            'created_at': db.utcnow()})

    def fill(self, read, inspector=None, limit=None, expected=None, watch=None):
        """Take everything from ``read(size)``; returns the :class:`kodiak.image.transfer.Outcome`.

        :param watch: called now and then with the number of bytes so far; may raise to stop.
        :raises Gone: the blob was doomed meanwhile (its image was deleted). Whatever is raised: call :meth:`discard`.
        """
        self._renew_at = time.monotonic() + RENEW
        try:
            if self._again:
                self.store.remove(self.id)
            self._writer = self.store.create(self.id, expected)
            outcome = transfer.copy(read, self._writer, inspector, limit, expected, lambda size: self._alive(size, watch))
            with Renewal(self, outcome.size):
                self._writer.commit()
        except base.StoreFull:
            raise errors.RequestTooLarge('There is not enough disk space on the image storage media.') from None
        except base.StoreUnavailable as error:
            # The answer names the store only: what goes on inside the cloud is for those who run it.
            LOG.warning('The store %s did not take the data of image %s: %s', self.store.id, self.image_id, error)
            raise errors.Unavailable(f'The store {self.store.id} cannot be reached.') from error
        self._writer = None
        return outcome

    def _alive(self, size, watch):
        if time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + RENEW
        if not self.extend():
            raise gone(self.image_id)
        if watch is not None:
            watch(size)

    def extend(self):
        """Renew the lease; False if the blob is somebody else's now."""
        return self.app.db.transact(self._extend)

    def _extend(self, connection):
        return connection.execute(sa.update(blobs).where(blobs.c.id == self.id, blobs.c.state == 'writing')
                                  .values(lease_until=_lease())).rowcount

    def discard(self, function=None):
        """Leave nothing in the store, nor a row; what fails here, the keeper does later.

        :param function: ``function(connection)``, run in the transaction that deletes the row, if it was still there.
        """
        clean = False
        try:
            if self._writer is not None:
                self._writer.abort()
                self._writer = None
            self.store.remove(self.id)
            clean = True
        except Exception as error:
            LOG.warning('The data of the failed transfer to image %s is removed from the store %s later: %s', self.image_id,
                        self.store.id, error)

        def forget(connection):
            mine = blobs.c.id == self.id
            undone = sa.delete(blobs).where(mine) if clean else sa.update(blobs).where(mine, blobs.c.state != 'doomed').values(
                state='doomed', lease_until=_lease())
            if connection.execute(undone).rowcount and function is not None:
                function(connection)
        try:
            self.app.db.transact(forget)
        except Exception:
            LOG.exception('The failed transfer to image %s is undone later', self.image_id)


class Renewal:
    """Renews the lease of a filling while its data is committed: syncing gigabytes to a disk takes longer than a lease."""

    LARGE = 256 << 20

    def __init__(self, filling, size):
        self.filling = filling
        self._done = threading.Event()
        self._thread = None
        if size >= self.LARGE:
            self._thread = threading.Thread(target=self._run, name='renewal', daemon=True)

    def __enter__(self):
        if self._thread is not None:
            self._thread.start()

    def __exit__(self, *error):
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self):
        while not self._done.wait(RENEW):
            try:
                self.filling.extend()
            except Exception as error:
                LOG.warning('The lease of blob %s could not be renewed: %s', self.filling.id, error)


def gone(image_id):
    """The fault of an image that was deleted under a transfer."""
    return errors.Gone(f'Image {image_id} could not be found after upload. The image may have been deleted during the upload.')


class Keeper(periodic.Periodic):
    """Sees to what transfers and deletions left to be done. It runs in each API process; a blob's lease says whose turn it is.

    :param stores: the :class:`kodiak.image.stores.Stores`.
    """

    def __init__(self, database, stores):
        super().__init__('keeper', self.look, INTERVAL, at_once=True, hears=(database, WAKE))
        self.db = database
        self.stores = stores

    def look(self):
        """Do all that is due now; returns how many blobs were removed."""
        now = db.utcnow()
        with self.db.read() as connection:
            due = connection.execute(sa.select(blobs.c.id, blobs.c.image_id, blobs.c.store, blobs.c.state).where(
                blobs.c.state.in_(('writing', 'doomed')), blobs.c.lease_until <= now).limit(500)).all()
            expired, forgotten = tasks.expired(connection, now), trash.due(connection, now)
        if expired:
            self.db.transact(tasks.purge, now)
        if forgotten:
            self.db.transact(trash.forget, now)
        return sum(self.remove(*row) for row in due)

    def remove(self, blob, image_id, store_id, state):
        """Remove one blob whose lease has run out; returns whether it is gone now."""
        if not self.db.transact(self._take, blob, image_id, state):
            return False
        store = self.stores.by_id.get(store_id)
        if store is None:
            LOG.warning('Blob %s lies in the store %s, which is not configured any more', blob, store_id)
            return False
        try:
            store.remove(blob)
        except Exception as error:
            LOG.warning('Blob %s could not be removed from the store %s, again in %d s: %s', blob, store_id, LEASE, error)
            return False
        with self.db.write() as connection:
            connection.execute(sa.delete(blobs).where(blobs.c.id == blob, blobs.c.state == 'doomed'))
        return True

    @staticmethod
    def _take(connection, blob, image_id, state):
        taken = connection.execute(sa.update(blobs).where(
            blobs.c.id == blob, blobs.c.state == state, blobs.c.lease_until <= db.utcnow()).values(
                state='doomed', lease_until=_lease())).rowcount
        if taken and state == 'writing':
            LOG.info('The transfer to image %s died', image_id)
            if catalog.update(connection, image_id, {'status': 'queued'}, sa.or_(
                    images.c.status == 'saving', sa.and_(images.c.status == 'uploading', ~sa.exists().where(
                        blobs.c.image_id == image_id, blobs.c.state == 'staged')))):
                notices.failed(connection, image_id, 'the transfer was broken off')
        return taken
