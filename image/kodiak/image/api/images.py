"""Images: list, create, show, change, delete, deactivate and reactivate."""
import urllib.parse

from kodiak.common import api, db, errors
from kodiak.common.api import listing
from kodiak.common.api import schema as schemas

from .. import blobs, catalog, imports, locations, notices
from ..models import blobs as table
from ..models import images
from . import attributes, filters, patch, rules
from . import schemas as published
from .views import View, select

routes = api.Routes('Images', prefix='/v2')


def load(req, image_id):
    """The image of a path, as the target of its policy rule; ``NotFound`` where the caller may not know of it."""
    with req.db.read() as connection:
        return catalog.find(connection, req.ctx, image_id)


@routes.get('/images', rule='get_images', default=rules.PROJECT_READER, query=filters.LIST.parameters(
    visibility=schemas.STRING, member_status=schemas.STRING, os_hidden=schemas.STRING),
    response=schemas.obj({'images': schemas.array(published.IMAGE), 'first': schemas.STRING, 'next': schemas.STRING,
                          'schema': schemas.STRING}, ['images', 'first', 'schema']), summary='List images')
def list_images(req):
    query = req.query
    visibility, member_status = query.get('visibility'), query.get('member_status', 'accepted')
    if visibility is not None and visibility not in (*catalog.VISIBILITIES, 'all'):
        raise errors.BadRequest(f"Invalid visibility value: '{visibility}'")
    if member_status not in (*catalog.MEMBER_STATUSES, 'all'):
        raise errors.BadRequest(f"Invalid status: '{member_status}'")
    filters.check_sorting(query)
    hidden = filters.boolean('os_hidden', query.get('os_hidden', 'false'))
    protections = req.app.extra['protections']

    def readable(name):
        return protections.allows(req.ctx, 'read', name)
    conditions = [images.c.os_hidden == hidden, *filters.property_conditions(query, readable)]
    condition = catalog.listed(req.ctx, visibility, member_status)
    if condition is not None:
        conditions.append(condition)
    statement = select().where(*conditions)
    with req.db.read() as connection:
        rows, more = filters.LIST.page(connection, statement, query, visible=catalog.visible(req.ctx))
    view = View(req).row
    first = urllib.parse.urlencode([pair for pair in req.http.args.items(multi=True) if pair[0] != 'marker'])
    answer = {'images': [view(row) for row in rows], 'first': '/v2/images' + (f'?{first}' if first else ''),
              'schema': '/v2/schemas/images'}
    if more and rows:
        answer['next'] = f'/v2/images?{listing.next_query(req, rows[-1].id)}'
    return answer


@routes.post('/images', rule='add_image', default=rules.CREATE, late=True, status=201, body=published.CREATE,
             response=published.IMAGE, summary='Create an image')
def create_image(req):
    values = attributes.new_image(req, req.body)
    limits = req.app.extra['limits'].of(values['owner'])
    req.db.transact(catalog.insert, values, limits)
    stores = req.app.extra['stores']
    req.headers += [('Location', f'{req.base_url}/v2/images/{values["id"]}'), ('OpenStack-image-store-ids', ','.join(stores.ids)),
                    ('OpenStack-image-import-methods', ','.join(req.app.conf.imports.methods))]
    return View(req).image(values)


@routes.get('/images/{image_id}', rule='get_image', default=rules.SHOW, load=load, response=published.IMAGE,
            summary='Show an image')
def show_image(req, image_id):
    return View(req).image(req.target)


@routes.patch('/images/{image_id}', rule='modify_image', default=rules.PROJECT_MEMBER, load=load, body=patch.BODY,
              media=(patch.MEDIA_21, patch.MEDIA_20), response=published.IMAGE, summary='Change an image')
def update_image(req, image_id):
    media = req.http.mimetype
    operations = patch.parse(req.body, media)
    added = [value for operation, path, value in operations if operation == 'add' and path[0] == 'locations']
    sizes = locations.measure(req.app, added) if req.target['status'] == 'queued' else {}

    def change(connection):
        image = catalog.locked(connection, image_id)
        columns = patch.Changes(req, image, media, sizes).apply(operations)
        if columns:
            columns['updated_at'] = db.utcnow()
            catalog.update(connection, image_id, columns)
            notices.image(connection, image_id, 'update', *(['activate'] if columns.get('status') == 'active' else []))
        if 'locations' in columns:
            left = {location['blob'] for location in columns['locations']}
            gone = [location['blob'] for location in image['locations'] if location['blob'] and location['blob'] not in left]
            blobs.doom(connection, table.c.id.in_(gone), req.app.conf.stores.delete_delay)
        return {**image, **columns}
    return View(req).image(req.db.transact(change))


@routes.delete('/images/{image_id}', rule='delete_image', default=rules.PROJECT_MEMBER, load=load, summary='Delete an image')
def delete_image(req, image_id):
    delay = req.app.conf.stores.delete_delay

    def remove(connection):
        if catalog.locked(connection, image_id)['protected']:
            raise errors.Forbidden(f'Image {image_id} is protected and cannot be deleted.')
        imports.delete(connection, image_id, delay)
    req.db.transact(remove)


def _switch(req, image_id, name, before, after):
    def change(connection):
        image = catalog.locked(connection, image_id)
        if image['status'] not in (before, after):
            raise errors.Forbidden(f"Not allowed to {name} image in status '{image['status']}'")
        if image['status'] == before:
            catalog.update(connection, image_id, {'status': after})
            notices.image(connection, image_id, 'update')
    req.db.transact(change)


@routes.post('/images/{image_id}/actions/deactivate', rule='deactivate', default=rules.PROJECT_MEMBER, load=load, status=204,
             summary='Deactivate an image')
def deactivate_image(req, image_id):
    _switch(req, image_id, 'deactivate', 'active', 'deactivated')


@routes.post('/images/{image_id}/actions/reactivate', rule='reactivate', default=rules.PROJECT_MEMBER, load=load, status=204,
             summary='Reactivate an image')
def reactivate_image(req, image_id):
    _switch(req, image_id, 'reactivate', 'deactivated', 'active')
