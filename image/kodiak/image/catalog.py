"""The images as rows: what a caller may see, and how an image with its properties and tags is read and written."""
import dataclasses

import sqlalchemy as sa

from kodiak.common import db, errors

from . import notices, quotas
from .models import image_members, image_properties, image_tags, images

#: What an image is born with.
NEW = {'name': None, 'disk_format': None, 'container_format': None, 'status': 'queued', 'visibility': 'shared', 'size': None,
       'virtual_size': None, 'min_disk': 0, 'min_ram': 0, 'protected': False, 'os_hidden': False, 'checksum': None,
       'os_hash_algo': None, 'os_hash_value': None}
#: The attributes of which NEW is made, and that a request may give.
SETTABLE = ('name', 'disk_format', 'container_format', 'visibility', 'min_disk', 'min_ram', 'protected', 'os_hidden', 'owner')
MEMBER_STATUSES = ('pending', 'accepted', 'rejected')
VISIBILITIES = ('public', 'private', 'shared', 'community')
# Made once: building a statement costs more than running it.
_ONE = sa.select(images).where(images.c.id == sa.bindparam('image_id'))


def shared_with(project_id, status=None):
    """The SQL condition of images that are shared with a project; ``status`` of the membership, or None for any."""
    inner = sa.select(image_members.c.image_id).where(image_members.c.member_id == project_id)
    if status is not None:
        inner = inner.where(image_members.c.status == status)
    return sa.and_(images.c.visibility == 'shared', images.c.id.in_(inner))


def listed(ctx, visibility=None, member_status='accepted'):
    """The SQL condition of what a list shows to a caller, or None where it shows everything.

    :param visibility: the filter of that name, ``all`` included. :param member_status: ``all`` or one of
        :data:`MEMBER_STATUSES`.
    """
    status = None if member_status == 'all' else member_status
    chosen = None if visibility in (None, 'all') else images.c.visibility == visibility
    if ctx.is_admin:
        return chosen
    own = images.c.owner == ctx.project_id
    if visibility == 'private':
        return sa.and_(own, chosen)
    if visibility in ('public', 'community'):
        return chosen
    if visibility == 'shared':
        return sa.or_(sa.and_(own, chosen), shared_with(ctx.project_id, status))
    found = [own, images.c.visibility == 'public', shared_with(ctx.project_id, status)]
    if visibility == 'all':
        found.append(images.c.visibility == 'community')
    return sa.or_(*found)


def visible(ctx):
    """The SQL condition of the images that a caller may know of by their id."""
    if ctx.is_admin:
        return sa.true()
    return sa.or_(images.c.owner == ctx.project_id, images.c.visibility.in_(('public', 'community')),
                  shared_with(ctx.project_id))


def find(connection, ctx, image_id):
    """The image that a caller may see, as a dictionary that policy rules can be asked about.

    ``project_id`` repeats the owner; ``member_id`` is the caller's project where the image is shared with it.

    :raises NotFound: it isn't there, or isn't there for this caller.
    """
    row = connection.execute(_ONE, {'image_id': image_id}).first()
    if row is None:
        raise not_found(image_id)
    image = dict(row._mapping)
    image['project_id'], image['member_id'] = image['owner'], None
    if image['visibility'] == 'shared' and image['owner'] != ctx.project_id and is_member(connection, image_id, ctx.project_id):
        image['member_id'] = ctx.project_id
    if not (ctx.is_admin or image['visibility'] in ('public', 'community') or image['member_id']
            or (image['owner'] is not None and image['owner'] == ctx.project_id)):
        raise not_found(image_id)
    return image


def not_found(image_id):
    """The fault of an image that isn't there."""
    return errors.NotFound(f'Failed to find image {image_id}')


def is_member(connection, image_id, project_id):
    """True if the image is shared with a project."""
    return connection.execute(sa.select(image_members.c.image_id).where(
        image_members.c.image_id == image_id, image_members.c.member_id == project_id)).first() is not None


def insert(connection, values, limits):
    """Insert a new image with its properties and tags; ``values`` has all columns.

    :param limits: of the owner (:class:`kodiak.image.quotas.Limits`). :raises Conflict: the id is taken.
    """
    quotas.claim(connection, limits, values['owner'], {quotas.COUNT: 1})
    try:
        connection.execute(sa.insert(images), values)
    except sa.exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f"Image ID {values['id']} already exists!") from None
        raise
    index(connection, values['id'], values['properties'], values['tags'])
    notices.image(connection, values['id'], 'create')


def update(connection, image_id, changes, where=None):
    """Write changed columns of an image, and keep what it is filtered by in step.

    :param where: a further condition. :returns: whether there was such an image.
    """
    query = sa.update(images).where(images.c.id == image_id)
    if where is not None:
        query = query.where(where)
    changes = {'updated_at': db.utcnow(), **changes}
    if not connection.execute(query.values(changes)).rowcount:
        return False
    if 'properties' in changes:
        connection.execute(sa.delete(image_properties).where(image_properties.c.image_id == image_id))
    if 'tags' in changes:
        connection.execute(sa.delete(image_tags).where(image_tags.c.image_id == image_id))
    index(connection, image_id, changes.get('properties') or {}, changes.get('tags') or ())
    return True


def index(connection, image_id, properties, tags):
    """Insert what an image is filtered by."""
    # One that is null (kernel_id and ramdisk_id may be) is nothing that a filter could ask for.
    named = [{'image_id': image_id, 'name': name, 'value': value} for name, value in properties.items() if value is not None]
    if named:
        connection.execute(sa.insert(image_properties), named)
    if tags:
        connection.execute(sa.insert(image_tags), [{'image_id': image_id, 'value': tag} for tag in tags])


def locked(connection, image_id):
    """The image's row, as it is now, held until the transaction ends. Raises ``NotFound``."""
    row = db.one(connection, sa.select(images).where(images.c.id == image_id).with_for_update())
    if row is None:
        raise not_found(image_id)
    return row


def delete(connection, image_id):
    """Delete an image's rows; ``NotFound`` if somebody else was faster. What stores hold of it is the caller's to doom."""
    if not connection.execute(sa.delete(images).where(images.c.id == image_id)).rowcount:
        raise not_found(image_id)
    for table in (image_members, image_properties, image_tags):
        connection.execute(sa.delete(table).where(table.c.image_id == image_id))


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much of each thing an image may have."""

    properties: int
    tags: int
    members: int
    locations: int

    @classmethod
    def of(cls, conf):
        """The configured limits."""
        options = conf.limits
        return cls(options.properties, options.tags, options.members, options.locations)

    def check(self, what, count):
        """``RequestTooLarge`` (413) where an image would have more than its share."""
        limit = getattr(self, what)
        if count > limit:
            raise errors.RequestTooLarge(f'The limit has been exceeded on the number of allowed image {what}. '
                                         f'Attempted: {count}, Maximum: {limit}')
