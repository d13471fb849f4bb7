"""The image cache of a host: whole images whose stores are elsewhere, on a disk that is near.

An image's data never changes, so a file under the image's id is either the data or not there; it is written beside its
place and moved. The table ``cached_images`` says what there is and what is to be fetched.
"""
import datetime
import errno
import logging
import os
import time
import uuid

import sqlalchemy as sa

from kodiak.common import db, errors, periodic

from .drivers import base
from .models import cached_images as table
from .models import images

LOG = logging.getLogger(__name__)
#: Seconds that one process has to fetch an image before another tries.
LEASE = 3600
#: Seconds after which a file that nobody finished is taken away.
STALE = 24 * 3600
PIECE = 1 << 20


class Cache:
    """The cache of this host.

    :param database: the service's. :param host: this host's name. :param options: the group ``[cache]``.
    """

    def __init__(self, database, host, options):
        self.db = database
        self.host = host
        self.path = options.path
        self.max_size = options.max_size
        if self.path:
            os.makedirs(os.path.join(self.path, 'incoming'), mode=0o750, exist_ok=True)

    def __bool__(self):
        return bool(self.path)

    def _place(self, image_id):
        return os.path.join(self.path, image_id)

    def open(self, image, offset=0):
        """The data of an image as an open file, or None; an opened one is counted as a hit."""
        if not self.path:
            return None
        try:
            file = open(self._place(image['id']), 'rb', buffering=0)  # noqa: SIM115 (the caller closes it)
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != image['size']:
            file.close()
            return None
        file.seek(offset)
        self.db.transact(self._hit, image['id'])
        return file

    def _hit(self, connection, image_id):
        connection.execute(sa.update(table).where(table.c.host == self.host, table.c.image_id == image_id).values(
            hits=table.c.hits + 1, last_accessed=db.utcnow()))

    def keep(self, source, image):
        """``source``, whose data is kept in the cache once all of it was read; itself where there is no cache."""
        if not self.path or not image['size'] or image['size'] > self.max_size:
            return source
        return Tee(self, source, image)

    def put(self, image_id, temporary, size):
        """Move a whole file into the cache."""
        os.rename(temporary, self._place(image_id))
        now = db.utcnow()
        row = {'host': self.host, 'image_id': image_id, 'state': 'cached', 'size': size, 'hits': 0, 'last_accessed': now,
               'last_modified': now, 'lease_until': now}
        self.db.transact(db.upsert, table, row, ('host', 'image_id'))
        self.prune()

    def rows(self, state=None):
        """What the table says of this host."""
        query = sa.select(table).where(table.c.host == self.host).order_by(table.c.last_modified, table.c.image_id)
        if state is not None:
            query = query.where(table.c.state == state)
        with self.db.read() as connection:
            return db.all_dicts(connection, query)

    def nodes(self, image_id):
        """The hosts that have an image."""
        with self.db.read() as connection:
            return connection.execute(sa.select(table.c.host).where(
                table.c.image_id == image_id, table.c.state == 'cached').order_by(table.c.host)).scalars().all()

    def queue(self, image):
        """Have an image fetched by this host, unless it has it."""
        def add(connection):
            if connection.execute(sa.select(table.c.state).where(
                    table.c.host == self.host, table.c.image_id == image['id'])).first() is None:
                now = db.utcnow()
                connection.execute(sa.insert(table), {
                    'host': self.host, 'image_id': image['id'], 'state': 'queued', 'size': image['size'] or 0, 'hits': 0,
                    'last_accessed': now, 'last_modified': now, 'lease_until': now})
        self.db.transact(add)

    def drop(self, image_ids=None, state=None):
        """Take images out of the cache and the queue: some, or all. Returns ``(how many, their bytes)``."""
        gone = [row for row in self.rows(state) if image_ids is None or row['image_id'] in image_ids]
        for row in gone:
            try:
                os.unlink(self._place(row['image_id']))
            except FileNotFoundError:
                pass
            with self.db.write() as connection:
                connection.execute(sa.delete(table).where(table.c.host == self.host, table.c.image_id == row['image_id']))
        return len(gone), sum(row['size'] for row in gone if row['state'] == 'cached')

    def prune(self):
        """Take the images that were not used for longest out until the rest fits. Returns ``(how many, their bytes)``."""
        rows = sorted(self.rows('cached'), key=lambda row: row['last_accessed'])
        size = sum(row['size'] for row in rows)
        over = []
        while rows and size > self.max_size:
            size -= rows[0]['size']
            over.append(rows.pop(0)['image_id'])
        return self.drop(set(over)) if over else (0, 0)

    def drop_deleted(self):
        """Take out the images that were deleted."""
        with self.db.read() as connection:
            gone = set(connection.scalars(sa.select(table.c.image_id).where(
                table.c.host == self.host, ~sa.exists().where(images.c.id == table.c.image_id))))
        if gone:
            self.drop(gone)

    def clean(self):
        """Take away what is of no use: images that were deleted, files without entries, files nobody finished."""
        self.drop_deleted()
        there = {row['image_id'] for row in self.rows()}
        for entry in os.scandir(self.path):
            if entry.is_file() and entry.name not in there:
                os.unlink(entry.path)
        limit = datetime.datetime.now().timestamp() - STALE
        for entry in os.scandir(os.path.join(self.path, 'incoming')):
            if entry.stat().st_mtime < limit:
                os.unlink(entry.path)

    def fetch_queued(self, stores):
        """Fetch what is queued for this host; returns how many images came."""
        return sum(self._fetch(row['image_id'], stores) for row in self.rows('queued'))

    def _fetch(self, image_id, stores):
        now = db.utcnow()
        mine = sa.and_(table.c.host == self.host, table.c.image_id == image_id)

        def take(connection):
            return connection.execute(sa.update(table).where(mine, table.c.state == 'queued', table.c.lease_until <= now).values(
                lease_until=now + datetime.timedelta(seconds=LEASE))).rowcount
        if not self.db.transact(take):
            return 0
        with self.db.read() as connection:
            image = db.one(connection, sa.select(images).where(images.c.id == image_id))
        for location in stores.ordered(image['locations']) if image and image['status'] == 'active' else ():
            try:
                source = stores[location['store']].open(location['blob'] or location['url'])
            except (base.NoSuchData, base.StoreUnavailable, OSError) as error:
                LOG.info('Image %s cannot be read from the store %s: %s', image_id, location['store'], error)
                continue
            tee = Tee(self, source, image)
            try:
                while tee.read(PIECE):
                    pass
            except (errors.Error, OSError) as error:
                LOG.warning('Image %s was not cached: %s', image_id, error)
            finally:
                tee.close()
            if tee.kept:
                return 1
        with self.db.write() as connection:
            connection.execute(sa.delete(table).where(mine, table.c.state == 'queued'))
        return 0


class Tee:
    """Reads from a source and keeps what it reads; the whole of it, or nothing, ends in the cache."""

    def __init__(self, cache, source, image):
        self.cache, self.source, self.image = cache, source, image
        self.kept = False
        self._size = 0
        self._path = os.path.join(cache.path, 'incoming', f'{image["id"]}.{uuid.uuid4().hex}')
        try:
            self._file = open(self._path, 'xb', buffering=0)  # noqa: SIM115 (close does)
        except OSError as error:
            LOG.warning('The image cache cannot be written: %s', error)
            self._file = None

    def read(self, size):
        """The next piece."""
        data = self.source.read(size)
        if self._file is not None:
            self._keep(data)
        return data

    def _keep(self, data):
        try:
            self._file.write(data)
            self._size += len(data)
            if self._size == self.image['size']:
                self._file.close()
                self._file = None
                self.cache.put(self.image['id'], self._path, self._size)
                self.kept = True
        except OSError as error:
            if error.errno != errno.ENOSPC:
                LOG.warning('Image %s was not cached: %s', self.image['id'], error)
            self._discard()

    def _discard(self):
        if self._file is not None:
            self._file.close()
            self._file = None
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass

    def close(self):
        """Let go of the source; what is not whole is not kept."""
        self._discard()
        self.source.close()


class Prefetcher(periodic.Periodic):
    """Fetches what is queued and drops what was deleted, from a thread in each API process; and cleans the cache now and then."""

    INTERVAL = 5
    CLEAN = 3600

    def __init__(self, cache, stores):
        super().__init__('cache', self.look, self.INTERVAL)
        self.cache, self.stores = cache, stores
        self._cleaned = time.monotonic()

    def look(self):
        """Do what there is to do now."""
        self.cache.drop_deleted()
        self.cache.fetch_queued(self.stores)
        if time.monotonic() - self._cleaned >= self.CLEAN:
            self._cleaned = time.monotonic()
            self.cache.clean()
