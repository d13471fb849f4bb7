"""Metadata definitions: namespaces, and the objects, properties, tags and resource types in them."""
import urllib.parse

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import listing
from kodiak.common.api import schema as schemas

from .. import metadefs, notices
from ..models import metadef_namespaces as namespaces
from ..models import metadef_parts as parts
from ..models import metadef_resource_types as types
from . import definitions, rules
from .views import time

routes = api.Routes('Metadata definitions', prefix='/v2/metadefs')
ADMIN = rules.ADMIN
READ = rules.NAMESPACE
#: In answers; what they hold is what requests were checked for.
ANSWER = {'type': 'object'}
_SORTS = {name: namespaces.c[name] for name in ('namespace', 'created_at', 'updated_at', 'owner')}
LIST = api.Listing(namespaces.c.namespace, _SORTS, [('created_at', 'desc')], {'visibility': namespaces.c.visibility},
                   default_limit=25)


def load(req, namespace, **more):
    """The namespace of a path."""
    with req.db.read() as connection:
        return metadefs.find(connection, req.ctx, namespace)


def _path(namespace, *more):
    return '/'.join(('/v2/metadefs/namespaces', urllib.parse.quote(namespace, safe=':'), *(
        urllib.parse.quote(part, safe=':') for part in more)))


def _times(row):
    return {'created_at': time(row['created_at']), 'updated_at': time(row['updated_at'])}


def _namespace(row):
    shown = {name: row[name] for name in ('namespace', 'display_name', 'description', 'visibility', 'protected', 'owner')
             if row[name] is not None}
    return {**shown, **_times(row), 'self': _path(row['namespace']), 'schema': '/v2/schemas/metadefs/namespace'}


def _object(namespace, row):
    return {'name': row['name'], 'description': row['body'].get('description'), 'required': row['body'].get('required', []),
            'properties': row['body'].get('properties', {}), **_times(row), 'self': _path(namespace, 'objects', row['name']),
            'schema': '/v2/schemas/metadefs/object'}


def _association(row):
    body = {name: value for name, value in row['body'].items() if name in ('prefix', 'properties_target') and value is not None}
    return {'name': row['name'], **body, **_times(row)}


def _tag(row):
    return {'name': row['name'], **_times(row)}


def _contents(row, held, prefix=''):
    """What a namespace holds, as its view has it; ``prefix`` goes in front of the names of properties."""
    shown, kinds = {}, {}
    for part in held:
        kinds.setdefault(part['kind'], []).append(part)
    if metadefs.PROPERTY in kinds:
        shown['properties'] = {prefix + part['name']: part['body'] for part in kinds[metadefs.PROPERTY]}
    if metadefs.OBJECT in kinds:
        shown['objects'] = [_object(row['namespace'], part) for part in kinds[metadefs.OBJECT]]
        for one in shown['objects']:
            one['properties'] = {prefix + name: body for name, body in one['properties'].items()}
            one['required'] = [prefix + name for name in one['required']]
    if metadefs.TAG in kinds:
        shown['tags'] = [{'name': part['name']} for part in kinds[metadefs.TAG]]
    if metadefs.TYPE in kinds:
        shown['resource_type_associations'] = [_association(part) for part in kinds[metadefs.TYPE]]
    return shown


@routes.get('/resource_types', rule='list_metadef_resource_types', default=rules.READER, response=ANSWER,
            summary='List resource types')
def list_resource_types(req):
    with req.db.read() as connection:
        rows = db.all_dicts(connection, sa.select(types).order_by(types.c.name))
    return {'resource_types': [{'name': row['name'], **_times(row)} for row in rows]}


@routes.get('/namespaces', rule='get_metadef_namespaces', default=rules.PROJECT_READER, response=ANSWER, summary='List namespaces',
            query=LIST.parameters(resource_types=schemas.STRING))
def list_namespaces(req):
    if req.query.get('visibility', ['public'])[-1] not in ('public', 'private'):
        raise errors.BadRequest('Invalid visibility value: it must be public or private.')
    query = sa.select(namespaces).where(metadefs.visible(req.ctx))
    named = [name for name in req.query.get('resource_types', '').split(',') if name]
    if named:
        query = query.where(sa.exists().where(parts.c.namespace_id == namespaces.c.id, parts.c.kind == metadefs.TYPE,
                                              parts.c.name.in_(named)))
    with req.db.read() as connection:
        rows, more = LIST.page(connection, query, req.query, visible=metadefs.visible(req.ctx))
        held = metadefs.held(connection, [row.id for row in rows], [metadefs.TYPE]) if rows else []
    associations = {}
    for part in held:
        associations.setdefault(part['namespace_id'], []).append(_association(part))
    shown = [{**_namespace(row._mapping), 'resource_type_associations': associations.get(row.id, [])} for row in rows]
    first = urllib.parse.urlencode([pair for pair in req.http.args.items(multi=True) if pair[0] != 'marker'])
    answer = {'namespaces': shown, 'first': '/v2/metadefs/namespaces' + (f'?{first}' if first else ''),
              'schema': '/v2/schemas/metadefs/namespaces'}
    if more and rows:
        answer['next'] = f'/v2/metadefs/namespaces?{listing.next_query(req, rows[-1].namespace)}'
    return answer


@routes.post('/namespaces', rule='add_metadef_namespace', default=ADMIN, body=definitions.NAMESPACE, response=ANSWER, status=201,
             summary='Create a namespace')
def create_namespace(req):
    row = req.db.transact(metadefs.create, req.ctx.project_id, req.body)
    req.headers.append(('Location', req.base_url + _path(row['namespace'])))
    with req.db.read() as connection:
        held = metadefs.held(connection, [row['id']], (metadefs.PROPERTY, metadefs.OBJECT, metadefs.TAG, metadefs.TYPE))
    return {**_namespace(row), **_contents(row, held)}


@routes.get('/namespaces/{namespace}', rule='get_metadef_namespace', default=READ, load=load, response=ANSWER,
            query={'resource_type': schemas.STRING}, summary='Show a namespace')
def show_namespace(req, namespace):
    row, wanted = req.target, req.query.get('resource_type')
    with req.db.read() as connection:
        held = metadefs.held(connection, [row['id']], (metadefs.PROPERTY, metadefs.OBJECT, metadefs.TAG, metadefs.TYPE))
    return {**_namespace(row), **_contents(row, held, _prefix(held, wanted, namespace) if wanted else '')}


def _prefix(held, resource_type, namespace):
    for part in held:
        if part['kind'] == metadefs.TYPE and part['name'] == resource_type:
            return part['body'].get('prefix') or ''
    raise errors.NotFound(f'Metadata definition resource-type-association of resource-type={resource_type} to '
                          f'namespace={namespace} was not found.')


@routes.put('/namespaces/{namespace}', rule='modify_metadef_namespace', default=ADMIN, load=load, body=definitions.NAMESPACE,
            response=ANSWER, summary='Change a namespace')
def update_namespace(req, namespace):
    body = req.body
    changes = {'namespace': body['namespace'], 'display_name': body.get('display_name'), 'description': body.get('description'),
               'visibility': body.get('visibility', 'private'), 'protected': body.get('protected', False),
               'owner': body.get('owner') or req.target['owner'], 'updated_at': db.utcnow()}
    try:
        with req.db.write() as connection:
            connection.execute(sa.update(namespaces).where(namespaces.c.id == req.target['id']).values(changes))
            notices.namespace(connection, 'update', {**req.target, **changes}, namespace)
    except sa.exc.IntegrityError:
        raise errors.Conflict(f"The metadata definition namespace={body['namespace']} already exists.") from None
    return _namespace({**req.target, **changes})


@routes.delete('/namespaces/{namespace}', rule='delete_metadef_namespace', default=ADMIN, load=load, summary='Delete a namespace')
def delete_namespace(req, namespace):
    req.db.transact(metadefs.remove, req.target)


@routes.get('/namespaces/{namespace}/resource_types', rule='get_metadef_resource_type', default=READ, load=load, response=ANSWER,
            summary='List the resource types of a namespace')
def list_associations(req, namespace):
    with req.db.read() as connection:
        held = metadefs.held(connection, [req.target['id']], [metadefs.TYPE])
    return {'resource_type_associations': [_association(row) for row in held]}


@routes.post('/namespaces/{namespace}/resource_types', rule='add_metadef_resource_type_association', default=ADMIN, load=load,
             body=definitions.TYPE, response=ANSWER, status=201, summary='Associate a resource type with a namespace')
def create_association(req, namespace):
    body = {name: req.body[name] for name in ('prefix', 'properties_target') if req.body.get(name) is not None}
    return _association(req.db.transact(metadefs.add_part, req.target, metadefs.TYPE, req.body['name'], body))


@routes.delete('/namespaces/{namespace}/resource_types/{name}', rule='remove_metadef_resource_type_association', default=ADMIN,
               load=load, summary='Take a resource type from a namespace')
def delete_association(req, namespace, name):
    req.db.transact(metadefs.remove_parts, req.target, metadefs.TYPE, name)


def _kind(kind, plural, add, modify, remove, get, body, view, split):
    """The endpoints that objects and properties have alike.

    :param add: policy rules: :param modify: and so on. :param view: ``function(namespace, row)``. :param split:
        ``function(body) -> what is stored``.
    """
    base = '/namespaces/{namespace}/' + plural

    @routes.post(base, rule=add, default=ADMIN, load=load, body=body, response=ANSWER, status=201, summary=f'Create {kind}s')
    def create(req, namespace):
        return view(namespace, req.db.transact(metadefs.add_part, req.target, kind, req.body['name'], split(req.body)))

    @routes.get(base + '/{name}', rule=get, default=READ, load=load, response=ANSWER, query={'resource_type': schemas.STRING},
                summary=f'Show {kind}s')
    def show(req, namespace, name):
        wanted = req.query.get('resource_type')
        with req.db.read() as connection:
            prefix = ''
            if wanted and kind == metadefs.PROPERTY:
                prefix = _prefix(metadefs.held(connection, [req.target['id']], [metadefs.TYPE]), wanted, namespace)
                if not name.startswith(prefix):
                    raise errors.NotFound(f'Property {name} does not start with the expected resource type association prefix '
                                          f"of '{prefix}'.")
            row = metadefs.part(connection, req.target, kind, name[len(prefix):])
        return view(namespace, {**row, 'name': name})

    @routes.put(base + '/{name}', rule=modify, default=ADMIN, load=load, body=body, response=ANSWER, summary=f'Change {kind}s')
    def update(req, namespace, name):
        return view(namespace, req.db.transact(metadefs.change_part, req.target, kind, name, req.body['name'], split(req.body)))

    @routes.delete(base + '/{name}', rule=remove, default=ADMIN, load=load, summary=f'Delete {kind}s')
    def delete(req, namespace, name):
        req.db.transact(metadefs.remove_parts, req.target, kind, name)

    @routes.delete(base, rule=remove, default=ADMIN, load=load, summary=f'Delete all {kind}s of a namespace')
    def delete_all(req, namespace):
        req.db.transact(metadefs.remove_parts, req.target, kind)


_kind(metadefs.OBJECT, 'objects', 'add_metadef_object', 'modify_metadef_object', 'delete_metadef_object', 'get_metadef_object',
      definitions.OBJECT, _object,
      lambda body: {name: body[name] for name in ('description', 'required', 'properties') if name in body})
_kind(metadefs.PROPERTY, 'properties', 'add_metadef_property', 'modify_metadef_property', 'remove_metadef_property',
      'get_metadef_property', definitions.PROPERTY, lambda namespace, row: {'name': row['name'], **row['body']},
      lambda body: {name: value for name, value in body.items() if name != 'name'})


@routes.get('/namespaces/{namespace}/objects', rule='get_metadef_objects', default=READ, load=load, response=ANSWER,
            summary='List the objects of a namespace')
def list_objects(req, namespace):
    with req.db.read() as connection:
        held = metadefs.held(connection, [req.target['id']], [metadefs.OBJECT])
    return {'objects': [_object(namespace, row) for row in held], 'first': _path(namespace, 'objects'),
            'schema': '/v2/schemas/metadefs/objects'}


@routes.get('/namespaces/{namespace}/properties', rule='get_metadef_properties', default=READ, load=load, response=ANSWER,
            summary='List the properties of a namespace')
def list_properties(req, namespace):
    with req.db.read() as connection:
        held = metadefs.held(connection, [req.target['id']], [metadefs.PROPERTY])
    return {'properties': {row['name']: {'name': row['name'], **row['body']} for row in held}}


TAGS = api.Listing(parts.c.name, {name: parts.c[name] for name in ('name', 'created_at', 'updated_at')}, [('created_at', 'desc')],
                   default_limit=25)


@routes.get('/namespaces/{namespace}/tags', rule='get_metadef_tags', default=READ, load=load, response=ANSWER,
            query=TAGS.parameters(), summary='List the tags of a namespace')
def list_tags(req, namespace):
    mine = sa.and_(parts.c.namespace_id == req.target['id'], parts.c.kind == metadefs.TAG)
    with req.db.read() as connection:
        rows, more = TAGS.page(connection, sa.select(parts).where(mine), req.query, visible=mine)
    answer = {'tags': [{'name': row.name} for row in rows], 'first': _path(namespace, 'tags'),
              'schema': '/v2/schemas/metadefs/tags'}
    if more and rows:
        answer['next'] = f"{_path(namespace, 'tags')}?{listing.next_query(req, rows[-1].name)}"
    return answer


@routes.post('/namespaces/{namespace}/tags', rule='add_metadef_tags', default=ADMIN, load=load, status=201, response=ANSWER,
             body=schemas.obj({'tags': {'type': 'array', 'items': definitions.TAG}}, ['tags'], extra=True),
             summary='Set the tags of a namespace')
def create_tags(req, namespace):
    names = [tag['name'] for tag in req.body['tags']]
    if len(set(names)) != len(names):
        raise errors.Conflict('A tag is named twice.')
    append = req.http.headers.get('X-Openstack-Append', '').lower() == 'true'

    def change(connection):
        if not append:
            connection.execute(sa.delete(parts).where(parts.c.namespace_id == req.target['id'], parts.c.kind == metadefs.TAG))
            notices.namespace(connection, 'delete_tags', req.target)
        for name in names:
            metadefs.add_part(connection, req.target, metadefs.TAG, name, {})
    req.db.transact(change)
    return {'tags': [{'name': name} for name in names]}


@routes.delete('/namespaces/{namespace}/tags', rule='delete_metadef_tags', default=ADMIN, load=load,
               summary='Delete all tags of a namespace')
def delete_tags(req, namespace):
    req.db.transact(metadefs.remove_parts, req.target, metadefs.TAG)


@routes.get('/namespaces/{namespace}/tags/{tag}', rule='get_metadef_tag', default=READ, load=load, response=ANSWER,
            summary='Show a tag of a namespace')
def show_tag(req, namespace, tag):
    with req.db.read() as connection:
        return _tag(metadefs.part(connection, req.target, metadefs.TAG, tag))


@routes.post('/namespaces/{namespace}/tags/{tag}', rule='add_metadef_tag', default=ADMIN, load=load, response=ANSWER, status=201,
             summary='Create a tag of a namespace')
def create_tag(req, namespace, tag):
    if len(tag) > 255:
        raise errors.BadRequest('The name of a tag has at most 255 characters.')
    return _tag(req.db.transact(metadefs.add_part, req.target, metadefs.TAG, tag, {}))


@routes.put('/namespaces/{namespace}/tags/{tag}', rule='modify_metadef_tag', default=ADMIN, load=load, response=ANSWER,
            body=definitions.TAG, summary='Rename a tag of a namespace')
def update_tag(req, namespace, tag):
    return _tag(req.db.transact(metadefs.change_part, req.target, metadefs.TAG, tag, req.body['name'], {}))


@routes.delete('/namespaces/{namespace}/tags/{tag}', rule='delete_metadef_tag', default=ADMIN, load=load,
               summary='Delete a tag of a namespace')
def delete_tag(req, namespace, tag):
    req.db.transact(metadefs.remove_parts, req.target, metadefs.TAG, tag)
