"""Deleted images whose data is kept for a while (``[stores] delete_delay``): until it is removed, they can be brought back."""
import datetime

import sqlalchemy as sa

from kodiak.common import db, errors

from . import catalog
from .models import blobs, deleted_images, image_members, images

MOMENTS = ('created_at', 'updated_at')


def keep(connection, image_id, seconds):
    """Note an image that is going to be deleted; in the same transaction, before its rows go. One without data is not kept."""
    row = catalog.locked(connection, image_id)
    if row['status'] not in ('active', 'deactivated'):
        return
    # The names are SQLAlchemy's own kind of text, which is not JSON's.
    row = {str(name): value.isoformat() if name in MOMENTS else value for name, value in row.items()}
    members = [{'member_id': member, 'status': status} for member, status in connection.execute(
        sa.select(image_members.c.member_id, image_members.c.status).where(image_members.c.image_id == image_id))]
    connection.execute(sa.delete(deleted_images).where(deleted_images.c.id == image_id))
    connection.execute(sa.insert(deleted_images), {
        'id': image_id, 'image': row, 'members': members, 'due': db.utcnow() + datetime.timedelta(seconds=seconds)})


def restore(connection, image_id):
    """Bring a deleted image back as it was, whatever its project's quota says.

    :raises NotFound: it is not among those that are kept, or its data is being removed. :raises Conflict: another one was made
        under its id.
    """
    gone = errors.NotFound(f'Image {image_id} was not deleted lately, or its data is gone.')
    found = db.one(connection, sa.select(deleted_images).where(
        deleted_images.c.id == image_id, deleted_images.c.due > db.utcnow()).with_for_update())
    if found is None:
        raise gone
    if connection.execute(sa.select(images.c.id).where(images.c.id == image_id)).first() is not None:
        raise errors.Conflict(f'There is another image {image_id} now.')
    row = found['image']
    row.update({name: datetime.datetime.fromisoformat(row[name]) for name in MOMENTS})
    data = [location['blob'] for location in row['locations'] if location['blob']]
    kept = connection.execute(sa.update(blobs).where(
        blobs.c.id.in_(data), blobs.c.state == 'doomed', blobs.c.lease_until > db.utcnow()).values(state='live')).rowcount
    if kept != len(data):
        raise gone
    connection.execute(sa.delete(deleted_images).where(deleted_images.c.id == image_id))
    connection.execute(sa.insert(images), row)
    catalog.index(connection, image_id, row['properties'], row['tags'])
    now = db.utcnow()
    for member in found['members']:
        connection.execute(sa.insert(image_members), {**member, 'image_id': image_id, 'created_at': now, 'updated_at': now})


def forget(connection, now):
    """Delete the notes of images whose data is due to be removed."""
    connection.execute(sa.delete(deleted_images).where(deleted_images.c.due <= now))


def hasten(connection):
    """Make all of them due."""
    connection.execute(sa.update(deleted_images).values(due=db.utcnow()))


def due(connection, now):
    """Whether there are notes to be deleted."""
    return connection.execute(sa.select(deleted_images.c.id).where(deleted_images.c.due <= now).limit(1)).first() is not None
