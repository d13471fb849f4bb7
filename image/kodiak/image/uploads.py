"""The durable side of a transfer: a blob's row before the first byte, its lease while the bytes come, the image at the end.

An upload that dies with its process leaves a row in ``blobs`` whose lease runs out; :class:`Keeper` then removes the
data and gives the image back.
"""
import datetime
import logging
import threading
import time

import sqlalchemy as sa

from kodiak.common import db, errors

from . import catalog, transfer
from .drivers import base
from .models import blobs, images

LOG = logging.getLogger(__name__)
#: Seconds that a worker has a blob to itself without saying that it is alive. Longer than a read may take.
LEASE = 120
RENEW = 10
#: What a transaction that dooms blobs wakes (:mod:`kodiak.common.wake`).
WAKE = 'blobs'


def _lease():
    return db.utcnow() + datetime.timedelta(seconds=LEASE)


class Upload:
    """One transfer of data into the store, for one image.

    :param app: the process's Runtime. :param image: the image's row. :param store: where the data goes.
    """

    def __init__(self, app, image, store):
        self.app = app
        self.image = image
        self.store = store
        self.blob = db.new_id()
        self._renew_at = 0

    def run(self, read, inspector=None, expected=None, claim=('queued',), during='saving', claimed=None):
        """Take the data and make the image active.

        :param read: ``read(size) -> bytes``. :param expected: bytes that there must be, or None.
        :param claim: statuses in which the image may be; :param during: its status meanwhile.
        :param claimed: called once the image is claimed.
        :raises Conflict: the image is in another state. :raises Gone: it was deleted meanwhile. Whatever is raised, the
            image has its old status again and the store holds nothing.
        """
        before = self.image['status']
        self.app.db.transact(self._claim, claim, during)
        self._renew_at = time.monotonic() + RENEW
        writer = None
        try:
            if claimed is not None:
                claimed()
            limit = self._limit(expected)
            writer = self.store.create(self.blob, expected)
            outcome = transfer.copy(read, writer, inspector, limit, expected, self._alive)
            self._check_quota(outcome.size)
            writer.commit()
            writer = None
            self.app.db.transact(self._finish, outcome, during)
        except base.StoreFull:
            self._undo(writer, before, during)
            raise errors.RequestTooLarge('There is not enough disk space on the image storage media.') from None
        except BaseException:
            self._undo(writer, before, during)
            raise
        return outcome

    def _claim(self, connection, claim, during):
        if not catalog.update(connection, self.image['id'], {'status': during}, images.c.status.in_(claim)):
            row = catalog.locked(connection, self.image['id'])
            raise errors.Conflict(f"Image status transition from {row['status']} to {during} is not allowed")
        connection.execute(sa.insert(blobs), {
            'id': self.blob, 'image_id': self.image['id'], 'store': self.store.id, 'state': 'writing',
            'lease_until': _lease(), 'created_at': db.utcnow()})

    def _limit(self, expected):
        options = self.app.conf.limits
        limit = options.image_size
        if expected is not None and expected > limit:
            raise errors.RequestTooLarge(f'The image data has {expected} bytes; {limit} are allowed.')
        if options.project_size:
            with self.app.db.read() as connection:
                left = options.project_size - catalog.project_bytes(connection, self.image['owner'], self.image['id'])
            if left <= 0 or (expected is not None and expected > left):
                raise errors.RequestTooLarge(f'The project has {max(left, 0)} bytes left of its quota of {options.project_size}.')
            limit = min(limit, left)
        return limit

    def _check_quota(self, size):
        # Others of the project may have finished meanwhile.
        quota = self.app.conf.limits.project_size
        if quota:
            with self.app.db.read() as connection:
                if catalog.project_bytes(connection, self.image['owner'], self.image['id']) + size > quota:
                    raise errors.RequestTooLarge(f'The project would own more than its quota of {quota} bytes.')

    def _alive(self):
        if time.monotonic() < self._renew_at:
            return
        self._renew_at = time.monotonic() + RENEW
        if not self.app.db.transact(self._extend):
            raise self._gone()

    def _extend(self, connection):
        return connection.execute(sa.update(blobs).where(blobs.c.id == self.blob, blobs.c.state == 'writing')
                                  .values(lease_until=_lease())).rowcount

    def _gone(self):
        return errors.Gone(f"Image {self.image['id']} could not be found after upload. The image may have been deleted during "
                           'the upload.')

    def _finish(self, connection, outcome, during):
        if not connection.execute(sa.update(blobs).where(blobs.c.id == self.blob, blobs.c.state == 'writing')
                                  .values(state='live')).rowcount:
            raise self._gone()
        location = {'url': self.store.url(self.blob), 'metadata': {'store': self.store.id}, 'store': self.store.id,
                    'blob': self.blob}
        if not catalog.update(connection, self.image['id'],
                              {**outcome.columns(), 'status': 'active', 'locations': [location]}, images.c.status == during):
            raise self._gone()

    def _undo(self, writer, before, during):
        """Give the image its status back and leave nothing in the store; what fails here, the keeper does later."""
        try:
            if writer is not None:
                writer.abort()
            self.store.remove(self.blob)
            self.app.db.transact(self._forget, before, during)
        except Exception:
            LOG.exception('The data of the failed upload to image %s is removed later', self.image['id'])

    def _forget(self, connection, before, during):
        if connection.execute(sa.delete(blobs).where(blobs.c.id == self.blob)).rowcount:
            catalog.update(connection, self.image['id'], {'status': before}, images.c.status == during)


class Keeper:
    """Sees to what transfers and deletions left to be done. It runs in each API process; a blob's lease says whose turn it is.

    :param stores: the :class:`kodiak.image.stores.Stores`.
    """

    INTERVAL = 15

    def __init__(self, database, stores):
        self.db = database
        self.stores = stores
        self._wake = threading.Event()
        self._stopping = False
        self._thread = None

    def start(self):
        """Begin, in a thread."""
        self._thread = threading.Thread(target=self._loop, name='keeper', daemon=True)
        self._thread.start()

    def stop(self):
        """End, after what is under way."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(30)

    def nudge(self):
        """Look now."""
        self._wake.set()

    def _loop(self):
        while not self._stopping:
            try:
                self.look()
            except Exception:
                LOG.exception('Unfinished transfers and removals could not be looked after; again in %d s', self.INTERVAL)
            self._wake.wait(self.INTERVAL)
            self._wake.clear()

    def look(self):
        """Do all that is due now; returns how many blobs were removed."""
        now = db.utcnow()
        with self.db.read() as connection:
            due = connection.execute(sa.select(blobs.c.id, blobs.c.image_id, blobs.c.store, blobs.c.state).where(
                blobs.c.state.in_(('writing', 'doomed')), blobs.c.lease_until <= now).limit(500)).all()
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
            LOG.info('The upload to image %s died; the image is given back', image_id)
            catalog.update(connection, image_id, {'status': 'queued'}, images.c.status == 'saving')
        return taken
