"""Data that a client sends: into a store, or to be staged for an import."""
from kodiak.common import errors

from . import blobs, catalog
from .models import images


class Upload:
    """One transfer of data for one image.

    :param app: the process's Runtime. :param image: the image's row. :param store: where the data goes.
    :param stage: the data waits for an import, instead of being the image's at once.
    """

    def __init__(self, app, image, store, stage=False):
        self.app = app
        self.image = image
        self.store = store
        self.stage = stage
        self.during = 'uploading' if stage else 'saving'
        self.filling = blobs.Filling(app, image['id'], store)

    def run(self, read, inspector=None, expected=None):
        """Take the data.

        :param read: ``read(size) -> bytes``. :param expected: bytes that there must be, or None.
        :raises Conflict: the image is in another state. :raises Gone: it was deleted meanwhile. Whatever is raised, the
            image is queued again and the store holds nothing.
        """
        self.app.db.transact(self.claim)
        try:
            limit = allowance(self.app, self.image, expected)
            outcome = self.filling.fill(read, inspector, limit, expected)
            check_quota(self.app, self.image, outcome.size)
            self.app.db.transact(self._finish, outcome)
        except BaseException:
            self.filling.discard(lambda connection: catalog.update(
                connection, self.image['id'], {'status': 'queued'}, images.c.status == self.during))
            raise
        return outcome

    def claim(self, connection):
        """Take the image for this upload, and write the row of its blob."""
        if not catalog.update(connection, self.image['id'], {'status': self.during}, images.c.status == 'queued'):
            row = catalog.locked(connection, self.image['id'])
            raise errors.Conflict(f"Image status transition from {row['status']} to {self.during} is not allowed")
        self.filling.begin(connection)

    def _finish(self, connection, outcome):
        if self.stage:
            settled = blobs.settle(connection, self.filling.id, 'staged', facts=outcome.facts())
            changes = {}
        else:
            settled = blobs.settle(connection, self.filling.id, 'live')
            changes = {**outcome.columns(), 'status': 'active', 'locations': [location(self.store, self.filling.id)]}
        if not settled or not catalog.update(connection, self.image['id'], changes, images.c.status == self.during):
            raise blobs.gone(self.image['id'])


def location(store, blob):
    """The entry of ``images.locations`` for a blob in a store."""
    return {'url': store.url(blob), 'metadata': {'store': store.id}, 'store': store.id, 'blob': blob}


def allowance(app, image, expected=None):
    """Bytes that an image's data may have; ``RequestTooLarge`` if that is none, or less than ``expected``."""
    options = app.conf.limits
    limit = options.image_size
    if expected is not None and expected > limit:
        raise errors.RequestTooLarge(f'The image data has {expected} bytes; {limit} are allowed.')
    if options.project_size:
        with app.db.read() as connection:
            left = options.project_size - catalog.project_bytes(connection, image['owner'], image['id'])
        if left <= 0 or (expected is not None and expected > left):
            raise errors.RequestTooLarge(f'The project has {max(left, 0)} bytes left of its quota of {options.project_size}.')
        limit = min(limit, left)
    return limit


def check_quota(app, image, size):
    """``RequestTooLarge`` where others of the project have used the quota up during the transfer."""
    quota = app.conf.limits.project_size
    if quota:
        with app.db.read() as connection:
            if catalog.project_bytes(connection, image['owner'], image['id']) + size > quota:
                raise errors.RequestTooLarge(f'The project would own more than its quota of {quota} bytes.')
