"""Data that a client sends: into a store, or to be staged for an import."""
from kodiak.common import errors

from . import blobs, catalog, notices, quotas
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
        limits = self.app.extra['limits'].of(self.image['owner'])
        self.app.db.transact(self.claim, limits)
        try:
            limit = allowance(self.app, self.image, expected, self.stage)
            outcome = self.filling.fill(read, inspector, limit, expected)
            self.app.db.transact(self._finish, outcome, limits)
        except BaseException as error:
            reason = getattr(error, 'message', None) or str(error) or type(error).__name__
            self.filling.discard(lambda connection: self._undo(connection, reason))
            raise
        return outcome

    def claim(self, connection, limits):
        """Take the image for this upload, and write the row of its blob."""
        quotas.claim(connection, limits, self.image['owner'], {quotas.UPLOADING: 1})
        if not catalog.update(connection, self.image['id'], {'status': self.during}, images.c.status == 'queued'):
            row = catalog.locked(connection, self.image['id'])
            raise errors.Conflict(f"Image status transition from {row['status']} to {self.during} is not allowed")
        self.filling.begin(connection)
        notices.image(connection, self.image['id'], 'update' if self.stage else 'prepare')

    def _undo(self, connection, reason):
        if catalog.update(connection, self.image['id'], {'status': 'queued'}, images.c.status == self.during):
            notices.failed(connection, self.image['id'], reason)

    def _finish(self, connection, outcome, limits):
        # Others of the project may have finished meanwhile.
        resource = quotas.STAGE if self.stage else quotas.SIZE
        quotas.claim(connection, limits, self.image['owner'], {resource: outcome.size}, self.image['id'])
        if self.stage:
            settled = blobs.settle(connection, self.filling.id, 'staged', facts=outcome.facts())
            changes = {}
        else:
            settled = blobs.settle(connection, self.filling.id, 'live')
            changes = {**outcome.columns(), 'status': 'active', 'locations': [location(self.store, self.filling.id)]}
        if not settled or not catalog.update(connection, self.image['id'], changes, images.c.status == self.during):
            raise blobs.gone(self.image['id'])
        if not self.stage:
            notices.image(connection, self.image['id'], 'upload', 'activate')


def location(store, blob):
    """The entry of ``images.locations`` for a blob in a store."""
    return {'url': store.url(blob), 'metadata': {'store': store.id}, 'store': store.id, 'blob': blob}


def allowance(app, image, expected=None, stage=False):
    """Bytes that an image's data may have; ``RequestTooLarge`` if that is none, or less than ``expected``."""
    limit = app.conf.limits.image_size
    if expected is not None and expected > limit:
        raise errors.RequestTooLarge(f'The image data has {expected} bytes; {limit} are allowed.')
    resource = quotas.STAGE if stage else quotas.SIZE
    limits = app.extra['limits'].of(image['owner'])
    if limits[resource] != quotas.UNLIMITED:
        with app.db.read() as connection:
            left = quotas.left(connection, limits, image['owner'], resource, image['id'])
        if left <= 0 or (expected is not None and expected > left):
            raise errors.RequestTooLarge(f'The project has {left} bytes left of its {resource} of {limits[resource]} MiB.')
        limit = min(limit, left)
    return limit
