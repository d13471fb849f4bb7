"""Members (the projects that an image is shared with) and tags."""
import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema as schemas

from .. import catalog, notices
from ..models import image_members
from . import attributes, rules, views
from . import schemas as published
from .images import load

routes = api.Routes('Members and tags', prefix='/v2/images/{image_id}')
MEMBER_ID = {'type': 'string', 'minLength': 1, 'maxLength': 255}


def _row(connection, image_id, member_id):
    return db.one(connection, sa.select(image_members).where(
        image_members.c.image_id == image_id, image_members.c.member_id == member_id))


def load_member(req, image_id, member_id):
    """The image of a path; ``NotFound`` where there is no such member, or it is none of the caller's business."""
    with req.db.read() as connection:
        image = catalog.find(connection, req.ctx, image_id)
        row = _row(connection, image_id, member_id)
    owner = req.ctx.is_admin or image['owner'] == req.ctx.project_id
    if row is None or not (owner or member_id == req.ctx.project_id):
        raise errors.NotFound(f'{member_id} not found in the member list of the image {image_id}.')
    return {**image, 'member_id': member_id, 'member': row}


def _shared(image):
    if image['visibility'] != 'shared':
        raise errors.Forbidden('Only shared images have members.')


@routes.get('/members', rule='get_members', default=rules.READER_OR_SHARED_MEMBER, load=load,
            response=schemas.obj({'members': schemas.array(published.MEMBER), 'schema': schemas.STRING}),
            summary='List the members of an image')
def list_members(req, image_id):
    _shared(req.target)
    query = sa.select(image_members).where(image_members.c.image_id == image_id).order_by(image_members.c.created_at,
                                                                                         image_members.c.member_id)
    if not (req.ctx.is_admin or req.target['owner'] == req.ctx.project_id):
        query = query.where(image_members.c.member_id == req.ctx.project_id)
    with req.db.read() as connection:
        rows = db.all_dicts(connection, query)
    return {'members': [views.member(row) for row in rows], 'schema': '/v2/schemas/members'}


@routes.post('/members', rule='add_member', default=rules.PROJECT_MEMBER, load=load,
             body=schemas.obj({'member': MEMBER_ID}, ['member'], extra=True), response=published.MEMBER,
             summary='Share an image with a project')
def create_member(req, image_id):
    def add(connection):
        image = catalog.locked(connection, image_id)
        _shared(image)
        there = connection.execute(sa.select(sa.func.count()).where(image_members.c.image_id == image_id)).scalar()
        row = {'image_id': image_id, 'member_id': req.body['member'], 'status': 'pending', 'created_at': db.utcnow()}
        row['updated_at'] = row['created_at']
        if _row(connection, image_id, row['member_id']) is not None:
            raise errors.Conflict(f"The member {row['member_id']} is already associated with image {image_id}.")
        catalog.Limits.of(req.app.conf).check('members', there + 1)
        connection.execute(sa.insert(image_members), row)
        notices.member(connection, 'create', row)
        return row
    return views.member(req.db.transact(add))


@routes.get('/members/{member_id}', rule='get_member', default=rules.READER_OR_SHARED_MEMBER, load=load_member,
            response=published.MEMBER, summary='Show a member of an image')
def show_member(req, image_id, member_id):
    return views.member(req.target['member'])


@routes.put('/members/{member_id}', rule='modify_member', default=rules.SHARED_MEMBER, load=load_member,
            body=schemas.obj({'status': {'type': 'string', 'enum': list(catalog.MEMBER_STATUSES)}}, ['status'], extra=True),
            response=published.MEMBER, summary='Accept or reject an image that is shared with the project')
def update_member(req, image_id, member_id):
    _shared(req.target)
    changed = {**req.target['member'], 'status': req.body['status'], 'updated_at': db.utcnow()}
    with req.db.write() as connection:
        connection.execute(sa.update(image_members).where(
            image_members.c.image_id == image_id, image_members.c.member_id == member_id).values(
                status=changed['status'], updated_at=changed['updated_at']))
        notices.member(connection, 'update', changed)
    return views.member(changed)


@routes.delete('/members/{member_id}', rule='delete_member', default=rules.PROJECT_MEMBER, load=load_member,
               summary='Share an image with a project no longer')
def delete_member(req, image_id, member_id):
    _shared(req.target)
    with req.db.write() as connection:
        connection.execute(sa.delete(image_members).where(
            image_members.c.image_id == image_id, image_members.c.member_id == member_id))
        notices.member(connection, 'delete', req.target['member'])


@routes.put('/tags/{tag}', rule='modify_image', default=rules.PROJECT_MEMBER, load=lambda req, image_id, tag: load(req, image_id),
            status=204, summary='Tag an image')
def add_tag(req, image_id, tag):
    attributes.clean_tags([tag])

    def add(connection):
        tags = catalog.locked(connection, image_id)['tags']
        if tag not in tags:
            catalog.Limits.of(req.app.conf).check('tags', len(tags) + 1)
            catalog.update(connection, image_id, {'tags': [*tags, tag]})
            notices.image(connection, image_id, 'update')
    req.db.transact(add)


@routes.delete('/tags/{tag}', rule='modify_image', default=rules.PROJECT_MEMBER,
               load=lambda req, image_id, tag: load(req, image_id), summary='Take a tag from an image')
def delete_tag(req, image_id, tag):
    def remove(connection):
        tags = catalog.locked(connection, image_id)['tags']
        if tag not in tags:
            raise errors.NotFound(f'Image {image_id} has no tag {tag}.')
        catalog.update(connection, image_id, {'tags': [other for other in tags if other != tag]})
        notices.image(connection, image_id, 'update')
    req.db.transact(remove)
