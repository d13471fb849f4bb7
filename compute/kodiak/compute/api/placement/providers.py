"""Resource providers."""
import uuid as uuids

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from ...models import placement as models
from ...placement import classes as known
from ...placement import providers
from ...placement import query as queries
from . import common

routes = api.Routes('resource providers')
NAME = {'type': 'string', 'minLength': 1, 'maxLength': 200}
PARENT = {'anyOf': [common.UUID, {'type': 'null'}]}
PROVIDER = schema.obj({'uuid': common.UUID, 'name': schema.STRING, 'generation': schema.INTEGER, 'links': schema.array({}),
                       'parent_provider_uuid': PARENT, 'root_provider_uuid': common.UUID}, ['uuid', 'name', 'generation', 'links'])
LINKS = (('inventories', (1, 0)), ('usages', (1, 0)), ('aggregates', (1, 1)), ('traits', (1, 6)), ('allocations', (1, 11)))


def view(req, provider, names):
    """A provider as the API shows it; ``names``: id to uuid of its parent and root."""
    path = common.href(req, f'/resource_providers/{provider["uuid"]}')
    shown = {'uuid': provider['uuid'], 'name': provider['name'], 'generation': provider['generation'],
             'links': [{'rel': 'self', 'href': path}, *({'rel': rel, 'href': f'{path}/{rel}'}
                                                        for rel, since in LINKS if req.version >= since)]}
    if req.at_least(1, 14):
        shown['parent_provider_uuid'] = names.get(provider['parent_id'])
        shown['root_provider_uuid'] = names[provider['root_id']]
    return shown


def family(connection, rows):
    """``{id: uuid}`` of some providers, their parents and roots."""
    found = {row['id']: row['uuid'] for row in rows}
    missing = {row[key] for row in rows for key in ('parent_id', 'root_id') if row[key]} - set(found)
    if missing:
        found.update(connection.execute(sa.select(models.providers.c.id, models.providers.c.uuid)
                                        .where(models.providers.c.id.in_(missing))).all())
    return found


@routes.get('/resource_providers', rule='placement:resource_providers:list', default=common.SERVICE, strict_query=True,
            query={'name': schema.STRING, 'uuid': common.UUID, 'member_of': schema.array({}), 'resources': schema.STRING,
                   'in_tree': common.UUID, 'required': schema.array({})},
            response=schema.obj({'resource_providers': schema.array(PROVIDER)}), summary='List resource providers')
def list_providers(req):
    query = req.query
    for name, since in (('member_of', (1, 3)), ('resources', (1, 4)), ('in_tree', (1, 14)), ('required', (1, 18))):
        if name in query and req.version < since:
            raise errors.BadRequest(f"Invalid query string parameters: Additional properties are not allowed ('{name}' was "
                                    "unexpected)")
    providers_ = models.providers
    select = sa.select(providers_).order_by(providers_.c.id)
    group = queries.Group()
    with req.db.read() as connection:
        if 'name' in query:
            select = select.where(providers_.c.name == query['name'])
        if 'uuid' in query:
            select = select.where(providers_.c.uuid == query['uuid'])
        if 'in_tree' in query:
            root = sa.select(providers_.c.root_id).where(providers_.c.uuid == query['in_tree']).scalar_subquery()
            select = select.where(providers_.c.root_id == root)
        if 'member_of' in query:
            group.member_of, group.forbidden_aggregates = common.aggregates_of(query['member_of'], req.version)
        if 'required' in query:
            group.required, group.forbidden = common.traits_of(query['required'], req.version)
            named = set().union(group.forbidden, *group.required)
            unknown = known.unknown_traits(connection, named)
            if unknown:
                raise errors.BadRequest(f'Invalid traits in required parameter: No such trait(s): {", ".join(unknown)}.')
        if 'resources' in query:
            group.resources = common.resources_of(query['resources'])
            known.require_classes(connection, group.resources)
            select = select.where(providers_.c.id.in_(queries.fitting(group)))
        for condition in queries.membership(group, providers_.c.id):
            select = select.where(condition)
        rows = db.all_dicts(connection, select)
        names = family(connection, rows)
    return common.stamped(req, {'resource_providers': [view(req, row, names) for row in rows]},
                          max((row['updated_at'] for row in rows), default=None))


BODY = {'name': NAME, 'uuid': common.UUID}


def _create(req):
    uuid = str(uuids.UUID(req.body['uuid'])) if req.body.get('uuid') else db.new_id()
    with req.db.write() as connection:
        provider = providers.create(connection, uuid, req.body['name'], req.body.get('parent_provider_uuid'))
        names = family(connection, [provider])
    location = [('Location', common.href(req, f'/resource_providers/{uuid}'))]
    if req.at_least(1, 20):
        return common.stamped(req, view(req, provider, names), provider['updated_at'], 200, location)
    return common.stamped(req, None, provider['updated_at'], 201, location)


@routes.post('/resource_providers', rule='placement:resource_providers:create', default=common.SERVICE, status=201, until='1.13',
             body=schema.obj(BODY, ['name']), summary='Create a resource provider')
def create_flat(req):
    return _create(req)


@routes.post('/resource_providers', rule='placement:resource_providers:create', default=common.SERVICE, since='1.14',
             body=schema.obj({**BODY, 'parent_provider_uuid': PARENT}, ['name']), response=PROVIDER,
             summary='Create a resource provider')
def create(req):
    return _create(req)


@routes.get('/resource_providers/{uuid}', rule='placement:resource_providers:show', default=common.SERVICE, response=PROVIDER,
            summary='Show a resource provider')
def show(req, uuid):
    with req.db.read() as connection:
        provider = providers.get(connection, uuid)
        names = family(connection, [provider])
    return common.stamped(req, view(req, provider, names), provider['updated_at'])


def _update(req, uuid, set_parent):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        provider = providers.update(connection, provider, req.body['name'], req.body.get('parent_provider_uuid'),
                                    set_parent=set_parent, reparent=req.at_least(1, 37))
        names = family(connection, [provider])
    return common.stamped(req, view(req, provider, names), provider['updated_at'])


@routes.put('/resource_providers/{uuid}', rule='placement:resource_providers:update', default=common.SERVICE, until='1.13',
            body=schema.obj({'name': NAME}, ['name']), response=PROVIDER, summary='Rename a resource provider')
def update_flat(req, uuid):
    return _update(req, uuid, False)


@routes.put('/resource_providers/{uuid}', rule='placement:resource_providers:update', default=common.SERVICE, since='1.14',
            body=schema.obj({'name': NAME, 'parent_provider_uuid': PARENT}, ['name']), response=PROVIDER,
            summary='Rename or move a resource provider')
def update(req, uuid):
    return _update(req, uuid, 'parent_provider_uuid' in req.body)


@routes.delete('/resource_providers/{uuid}', rule='placement:resource_providers:delete', default=common.SERVICE,
               summary='Delete a resource provider')
def delete(req, uuid):
    with req.db.write() as connection:
        providers.delete(connection, providers.get(connection, uuid, 'for delete'))
