"""The interoperable import: staging, imports, and tasks."""
import re

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import listing
from kodiak.common.api import schema as schemas

from .. import catalog, convert, formats, imports, signatures, uploads, web
from ..models import tasks
from . import attributes, rules
from .data import BYTES, announced, body, check_formats_set, release
from .images import load
from .schemas import UUID_PATTERN
from .views import time

routes = api.Routes('Import and tasks', prefix='/v2')
METHOD = {
    'type': 'object', 'required': ['name'], 'additionalProperties': True,
    'properties': {
        'name': schemas.STRING, 'uri': {'type': 'string', 'minLength': 1, 'maxLength': 4096},
        'glance_image_id': schemas.STRING, 'glance_region': schemas.STRING,
        'glance_service_interface': schemas.STRING,
        # Ours: the disk format that the image is to have in the end.
        'convert_to': {'type': 'string', 'enum': sorted(convert.QEMU)},
    },
}
REQUEST = schemas.obj({
    'method': METHOD, 'stores': schemas.array(schemas.STRING), 'all_stores': schemas.BOOLEAN,
    'all_stores_must_succeed': schemas.BOOLEAN}, ['method'], extra=True)


@routes.put('/images/{image_id}/stage', rule='modify_image', default=rules.PROJECT_MEMBER, load=load, raw=True, media=(BYTES,),
            status=204, summary='Stage the data of an image for an import')
def stage_image(req, image_id):
    image = req.target
    if 'glance-direct' not in req.app.conf.imports.methods:
        raise errors.NotFound('Image import is not supported at this site.')
    if image['status'] != 'queued':
        raise errors.Conflict(f"Image status transition from {image['status']} to uploading is not allowed")
    expected = announced(req)
    inspector = formats.Inspector(image['disk_format'], image['container_format'], req.app.conf.formats.enforce, strict=False)
    try:
        uploads.Upload(req.app, image, req.app.extra['stores'].default, stage=True).run(body(req), inspector, expected)
    finally:
        release(req)


def _targets(req, image):
    """Ids of the stores that a request names, as they are configured; those that have a copy already left out."""
    stores, body = req.app.extra['stores'], req.body
    header = req.http.headers.get('X-Image-Meta-Store')
    if body.get('all_stores'):
        if body.get('stores'):
            raise errors.BadRequest('The options all_stores and stores exclude each other.')
        named = [store.id for store in stores.by_id.values() if not store.read_only]
    else:
        named = body.get('stores') or ([header] if header else [stores.default.id])
    for store_id in named:
        if store_id not in stores.by_id:
            raise errors.Conflict(f"There is no store '{store_id}'.")
        stores.writable(store_id)
    if body['method']['name'] == 'copy-image':
        present = {location['store'] for location in image['locations']}
        if not body.get('all_stores') and present & set(named):
            raise errors.Conflict(f"The image is in the store {', '.join(sorted(present & set(named)))} already.")
        named = [store_id for store_id in named if store_id not in present]
    return list(dict.fromkeys(named))


def _check_method(req, method):
    name = method['name']
    if name not in imports.METHODS or name not in req.app.conf.imports.methods:
        raise errors.BadRequest(f"Unknown import method name '{name[:80]}'.")
    if name == 'web-download':
        if not method.get('uri'):
            raise errors.BadRequest('The import method web-download needs a uri.')
        web.Guard(req.app.conf.imports).check(method['uri'])
    elif name == 'glance-download':
        if not re.match(UUID_PATTERN, method.get('glance_image_id') or ''):
            raise errors.BadRequest('Remote image id does not look like a UUID')
        if not method.get('glance_region'):
            raise errors.BadRequest('The import method glance-download needs a glance_region.')
    elif method.get('uri'):
        raise errors.BadRequest(f'The import method {name} takes no uri.')


@routes.post('/images/{image_id}/import', rule='import_image', default=rules.IMPORT, load=load, body=REQUEST, status=202,
             summary='Import the data of an image')
def import_image(req, image_id):
    image, method = req.target, req.body['method']
    _check_method(req, method)
    if method['name'] == 'copy-image':
        req.authorize(image, 'copy_image')
    else:
        req.authorize(image, 'modify_image')
    if method['name'] != 'glance-download':
        check_formats_set(image)
    if image['status'] != imports.NEEDS[method['name']]:
        raise errors.Conflict(f"The import method {method['name']} needs an image in the status {imports.NEEDS[method['name']]}; "
                              f"this one is {image['status']}.")
    targets = _targets(req, image)
    uploads.allowance(req.app, image)
    certificate = None
    if method['name'] != 'copy-image' and signatures.signed(image['properties']):
        if method.get('convert_to') not in (None, image['disk_format']):
            raise errors.BadRequest('A signed image cannot be converted: its signature is for the data as it is.')
        certificate = signatures.certificate(req.app, req.ctx, image['properties'])
        signatures.Verifier(image['properties'], certificate)
    req.db.transact(imports.start, req.ctx, image, targets, req.body, _injected(req, method['name']), certificate=certificate)


def _injected(req, method):
    """The properties that an operator has imported images get."""
    return {} if method == 'copy-image' or req.ctx.is_admin else dict(req.app.conf.imports.inject)


def _task(row):
    """A task among those of an image."""
    return {'id': row['id'], 'type': row['type'], 'status': row['status'], 'owner': row['owner'], 'input': row['input'],
            'result': row['result'], 'message': row['message'], 'image_id': row['image_id'], 'user_id': row['user_id'],
            'request_id': row['request_id'], 'expires_at': row['expires_at'] and time(row['expires_at']),
            'created_at': time(row['created_at']), 'updated_at': time(row['updated_at']), 'deleted': False, 'deleted_at': None}


@routes.get('/images/{image_id}/tasks', rule='get_image', default=rules.SHOW, load=load,
            response=schemas.obj({'tasks': schemas.array({'type': 'object'})}), summary='List the tasks of an image')
def list_image_tasks(req, image_id):
    query = sa.select(tasks).where(tasks.c.image_id == image_id).order_by(tasks.c.created_at, tasks.c.id)
    with req.db.read() as connection:
        return {'tasks': [_task(row) for row in db.all_dicts(connection, query)]}


LIST = api.Listing(tasks.c.id, {name: tasks.c[name] for name in ('created_at', 'expires_at', 'status', 'type', 'updated_at')},
                   [('created_at', 'desc')], {'status': tasks.c.status, 'type': tasks.c.type}, default_limit=25)


def _brief(row):
    shown = {name: row[name] for name in ('id', 'type', 'status', 'owner')}
    shown.update(created_at=time(row['created_at']), updated_at=time(row['updated_at']), self='/v2/tasks/' + row['id'],
                 schema='/v2/schemas/task')
    if row['expires_at']:
        shown['expires_at'] = time(row['expires_at'])
    return shown


def _full(row):
    return {**_brief(row), 'input': row['input'], 'result': row['result'], 'message': row['message']}


def load_task(req, task_id):
    """A task as the target of its rule."""
    query = sa.select(tasks).where(tasks.c.id == task_id)
    if not req.ctx.is_admin:
        query = query.where(tasks.c.owner == req.ctx.project_id)
    with req.db.read() as connection:
        row = db.one(connection, query)
    if row is None:
        raise errors.NotFound(f'No task found with ID {task_id}')
    return {**row, 'project_id': row['owner']}


@routes.get('/tasks', rule='tasks_api_access', default=rules.ADMIN, query=LIST.parameters(), summary='List tasks',
            response=schemas.obj({'tasks': schemas.array({'type': 'object'}), 'first': schemas.STRING, 'next': schemas.STRING,
                                  'schema': schemas.STRING}))
def list_tasks(req):
    query = sa.select(tasks)
    if not req.ctx.is_admin:
        query = query.where(tasks.c.owner == req.ctx.project_id)
    with req.db.read() as connection:
        rows, more = LIST.page(connection, query, req.query)
    answer = {'tasks': [_brief(row._mapping) for row in rows], 'first': '/v2/tasks', 'schema': '/v2/schemas/tasks'}
    if more and rows:
        answer['next'] = f'/v2/tasks?{listing.next_query(req, rows[-1].id)}'
    return answer


@routes.get('/tasks/{task_id}', rule='tasks_api_access', default=rules.ADMIN, load=load_task, response={'type': 'object'},
            summary='Show a task')
def show_task(req, task_id):
    return _full(req.target)


@routes.delete('/tasks/{task_id}', rule='tasks_api_access', default=rules.ADMIN, load=load_task, status=204,
               summary='Delete a task (not offered)')
def delete_task(req, task_id):
    raise errors.MethodNotAllowed(headers={'Allow': 'GET'})


@routes.post('/tasks', rule='tasks_api_access', default=rules.ADMIN, status=201, summary='Create a task',
             body=schemas.obj({'type': schemas.STRING, 'input': {'type': 'object'}}, ['type', 'input']),
             response={'type': 'object'})
def create_task(req):
    given = req.body['input']
    if req.body['type'] != 'import':
        raise errors.BadRequest(f"Invalid task type '{req.body['type'][:80]}': it must be import.")
    for name, kind in (('import_from', str), ('import_from_format', str), ('image_properties', dict)):
        if not isinstance(given.get(name), kind):
            raise errors.BadRequest(f"Input to the task does not contain '{name}' of the right type.")
    web.Guard(req.app.conf.imports).check(given['import_from'])
    values = attributes.new_image(req, {'disk_format': given['import_from_format'], 'container_format': 'bare',
                                        **given['image_properties']})
    check_formats_set(values)
    request = {'method': {'name': 'web-download', 'uri': given['import_from']}}
    limits = req.app.extra['limits'].of(values['owner'])

    def add(connection):
        catalog.insert(connection, values, limits)
        row = imports.start(connection, req.ctx, values, [req.app.extra['stores'].default.id], request,
                            _injected(req, 'web-download'), 'import')
        connection.execute(sa.update(tasks).where(tasks.c.id == row['id']).values(input=given))
        return {**row, 'input': given}
    row = req.db.transact(add)
    req.headers.append(('Location', f"{req.base_url}/v2/tasks/{row['id']}"))
    return _full(row)
