"""Resource classes."""
from kodiak.common import api, errors
from kodiak.common.api import schema

from ...placement import classes
from . import common

routes = api.Routes('resource classes')
NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': '^CUSTOM_[A-Z0-9_]+$'}
CHECK_NAME = schema.Validator(NAME)
CLASS = schema.obj({'name': schema.STRING, 'links': schema.array({})})


def view(req, name):
    """A resource class as the API shows it."""
    return {'name': name, 'links': [{'rel': 'self', 'href': common.href(req, f'/resource_classes/{name}')}]}


def _require(connection, name):
    if not classes.class_exists(connection, name):
        raise errors.NotFound(f'No such resource class {name}.')


@routes.get('/resource_classes', rule='placement:resource_classes:list', default=common.SERVICE, since='1.2',
            response=schema.obj({'resource_classes': schema.array(CLASS)}), summary='List resource classes')
def list_classes(req):
    with req.db.read() as connection:
        return common.stamped(req, {'resource_classes': [view(req, name) for name in classes.all_classes(connection)]})


@routes.post('/resource_classes', rule='placement:resource_classes:create', default=common.SERVICE, since='1.2', status=201,
             body=schema.obj({'name': NAME}, ['name']), summary='Create a resource class')
def create(req):
    name = req.body['name']
    with req.db.write() as connection:
        if not classes.create_class(connection, name):
            raise errors.Conflict(f'Conflicting resource class already exists: {name}')
    return api.Response(None, 201, [('Location', common.href(req, f'/resource_classes/{name}'))])


@routes.get('/resource_classes/{name}', rule='placement:resource_classes:show', default=common.SERVICE, since='1.2', response=CLASS,
            summary='Show a resource class')
def show(req, name):
    with req.db.read() as connection:
        _require(connection, name)
    return common.stamped(req, view(req, name))


@routes.put('/resource_classes/{name}', rule='placement:resource_classes:update', default=common.SERVICE, since='1.2', until='1.6',
            body=schema.obj({'name': NAME}, ['name']), response=CLASS, summary='Rename a resource class')
def rename(req, name):
    new = req.body['name']
    with req.db.write() as connection:
        _require(connection, name)
        if name in classes.STANDARD_CLASSES:
            raise errors.BadRequest(f'Cannot update standard resource class {name}')
        if not classes.create_class(connection, new):
            raise errors.Conflict(f'Resource class already exists: {new}')
        classes.delete_class(connection, name)
    return common.stamped(req, view(req, new))


@routes.put('/resource_classes/{name}', rule='placement:resource_classes:update', default=common.SERVICE, since='1.7', status=201,
            summary='Create a resource class if it is not there')
def ensure(req, name):
    CHECK_NAME(name)
    with req.db.write() as connection:
        new = classes.create_class(connection, name)
    return api.Response(None, 201 if new else 204, [('Location', common.href(req, f'/resource_classes/{name}'))])


@routes.delete('/resource_classes/{name}', rule='placement:resource_classes:delete', default=common.SERVICE, since='1.2',
               summary='Delete a resource class')
def delete(req, name):
    with req.db.write() as connection:
        classes.delete_class(connection, name)
