"""Flavors, their extra specs, and who may use those that are not public."""
import re

import sqlalchemy as sa

from kodiak.common import api, db, errors, policy
from kodiak.common.api import schema
from kodiak.compute.api import common
from kodiak.compute.models import flavor_projects, flavors

routes = api.Routes('flavors')
LIST = api.Listing(
    flavors.c.flavorid, {
        'flavorid': flavors.c.flavorid, 'name': flavors.c.name, 'memory_mb': flavors.c.ram, 'vcpus': flavors.c.vcpus,
        'root_gb': flavors.c.disk, 'ephemeral_gb': flavors.c.ephemeral, 'swap': flavors.c.swap, 'id': flavors.c.id,
        'is_public': flavors.c.is_public, 'rxtx_factor': flavors.c.rxtx_factor, 'created_at': flavors.c.created_at,
        'updated_at': flavors.c.created_at, 'disabled': flavors.c.id, 'vcpu_weight': flavors.c.id},
    [('flavorid', 'asc')], max_limit=common.MAX_PAGE)
QUERY = LIST.parameters(minRam=schema.STRING, minDisk=schema.STRING, is_public=schema.STRING)
SPECS = schema.obj({}, patternProperties={r'^[a-zA-Z0-9-_:. ]{1,255}$': {
    'type': ['string', 'number', 'boolean'], 'maxLength': 255}})
FLAVOR = schema.obj({'id': schema.STRING, 'name': schema.STRING, 'links': common.LINKS, 'description': schema.TEXT}, ['id',
                                                                                                                      'links'],
                    extra=True)


def view(req, row, brief=False):
    """A flavor as the request's microversion shows it."""
    base, flavor_id = req.base_url, row['flavorid']
    found = {'id': flavor_id, 'name': row['name'], 'links': [
        {'rel': 'self', 'href': f'{base}{req.api.prefix}/flavors/{flavor_id}'},
        {'rel': 'bookmark', 'href': f'{base}/flavors/{flavor_id}'}]}
    if req.version >= (2, 55):
        found['description'] = row['description']
    if brief:
        return found
    found.update({'ram': row['ram'], 'disk': row['disk'], 'vcpus': row['vcpus'], 'OS-FLV-EXT-DATA:ephemeral': row['ephemeral'],
                  'swap': row['swap'] or ('' if req.version < (2, 75) else 0), 'OS-FLV-DISABLED:disabled': False,
                  'os-flavor-access:is_public': row['is_public'], 'rxtx_factor': row['rxtx_factor']})
    if req.version >= (2, 61) and req.allows('os_compute_api:os-flavor-extra-specs:index'):
        found['extra_specs'] = row['extra_specs']
    return found


def load(req, flavor_id, **more):
    """A flavor that the caller may know of."""
    with req.db.read() as connection:
        return common.find_flavor(connection, flavor_id, req.ctx)


def load_any(req, flavor_id, **more):
    """A flavor for those who manage them, whoever may use it."""
    with req.db.read() as connection:
        row = db.one(connection, sa.select(flavors).where(flavors.c.flavorid == flavor_id))
    if row is None:
        raise common.not_found('Flavor', flavor_id)
    return row


def _integer(query, name):
    value = query.get(name)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise errors.BadRequest(f'Invalid {name} filter [{value}]') from None


def _page(req):
    conditions = []
    query = req.query
    is_public = query.get('is_public')
    shared = sa.or_(flavors.c.is_public, flavors.c.id.in_(
        sa.select(flavor_projects.c.flavor_id).where(flavor_projects.c.project_id == req.ctx.project_id)))
    if not req.ctx.is_admin:
        conditions.append(shared)
    elif is_public is None or schema_is(is_public, True):
        conditions.append(flavors.c.is_public if is_public is not None else shared)
    elif not none_like(is_public):
        conditions.append(flavors.c.is_public.is_(schema.boolean(is_public, 'is_public')))
    for name, column in (('minRam', flavors.c.ram), ('minDisk', flavors.c.disk)):
        least = _integer(query, name)
        if least is not None:
            conditions.append(column >= least)
    with req.db.read() as connection:
        return LIST.page(connection, sa.select(flavors).where(*conditions), query)


def none_like(text):
    """True for the ways of saying that a filter is not to filter."""
    return text.lower() in ('none', 'null')


def schema_is(text, wanted):
    """True if the text of a query means the boolean ``wanted``."""
    return not none_like(text) and schema.boolean(text, 'is_public') is wanted


def _list(req, brief):
    rows, more = _page(req)
    answer = {'flavors': [view(req, row._mapping, brief) for row in rows]}
    if more:
        answer.update(common.next_link(req, 'flavors_links', rows[-1].flavorid))
    return answer


@routes.get('/flavors', rule='os_compute_api:flavors', default=policy.READER, query=QUERY,
            response=schema.obj({'flavors': schema.array(FLAVOR), 'flavors_links': common.LINKS}), summary='List flavors')
def index(req):
    return _list(req, True)


@routes.get('/flavors/detail', rule='os_compute_api:flavors', default=policy.READER, query=QUERY,
            response=schema.obj({'flavors': schema.array(FLAVOR), 'flavors_links': common.LINKS}),
            summary='List flavors with details')
def detail(req):
    return _list(req, False)


@routes.get('/flavors/{flavor_id}', rule='os_compute_api:flavors', default=policy.READER,
            response=schema.wrap('flavor', FLAVOR), summary='Show a flavor')
def show(req, flavor_id):
    return {'flavor': view(req, load(req, flavor_id))}


def _size(minimum):
    return {'type': ['integer', 'string'], 'pattern': '^[0-9]+$', 'minimum': minimum, 'maximum': 2147483647}


CREATE = schema.obj({
    'name': schema.NAME, 'id': {'type': ['string', 'integer', 'null'], 'maxLength': 255, 'minLength': 1},
    'flavorid': {'type': ['string', 'integer', 'null'], 'maxLength': 255},
    'ram': _size(1), 'vcpus': _size(1), 'disk': _size(0), 'OS-FLV-EXT-DATA:ephemeral': _size(0), 'swap': _size(0),
    'rxtx_factor': {'type': ['number', 'string'], 'exclusiveMinimum': 0, 'maximum': 3.40282e+38},
    'os-flavor-access:is_public': common.BOOL,
    'description': {'type': ['string', 'null'], 'maxLength': 65535}}, ['name', 'ram', 'vcpus', 'disk'])


@routes.post('/flavors', rule='os_compute_api:os-flavor-manage:create', default=policy.ADMIN, body=schema.wrap('flavor', CREATE),
             response=schema.wrap('flavor', FLAVOR), summary='Create a flavor')
def create(req):
    sent = req.body['flavor']
    common.only(req, sent, since={'description': (2, 55)})
    name = common.text(sent['name'], 'name')
    flavor_id = sent.get('id', sent.get('flavorid'))
    flavor_id = db.new_id() if flavor_id in (None, 'auto') else str(flavor_id)
    if flavor_id != flavor_id.strip() or not re.fullmatch(r'[\w.\- ]*', flavor_id):
        raise errors.BadRequest(f'Invalid input for field/attribute id. Value: {flavor_id}.')
    try:
        factor = float(sent.get('rxtx_factor', 1.0))
    except ValueError:
        raise errors.BadRequest('Invalid input for field/attribute rxtx_factor: it must be a number.') from None
    numbers = {}
    for field, column, least in (('ram', 'ram', 1), ('vcpus', 'vcpus', 1), ('disk', 'disk', 0),
                                 ('OS-FLV-EXT-DATA:ephemeral', 'ephemeral', 0), ('swap', 'swap', 0)):
        numbers[column] = schema.integer(sent.get(field, 0), field, least, 2147483647)
    if not 0 < factor <= 3.40282e+38:
        raise errors.BadRequest('Invalid input for field/attribute rxtx_factor: it must be greater than 0.')
    row = {'flavorid': flavor_id, 'name': name, **numbers, 'rxtx_factor': factor,
           'is_public': sent.get('os-flavor-access:is_public', True) in common.TRUE, 'description': sent.get('description'),
           'extra_specs': {}, 'created_at': db.utcnow()}

    def write(connection):
        for column, value, what in ((flavors.c.name, name, 'name'), (flavors.c.flavorid, flavor_id, 'ID')):
            if connection.scalar(sa.select(flavors.c.id).where(column == value)) is not None:
                raise errors.Conflict(f'Flavor with {what} {value} already exists.')
        connection.execute(flavors.insert(), row)
    req.db.transact(write)
    return {'flavor': view(req, row)}


@routes.put('/flavors/{flavor_id}', rule='os_compute_api:os-flavor-manage:update', default=policy.ADMIN, load=load_any,
            since='2.55',
            body=schema.wrap('flavor', schema.obj({'description': {'type': ['string', 'null'], 'maxLength': 65535}},
                                                  ['description'])),
            response=schema.wrap('flavor', FLAVOR), summary="Change a flavor's description")
def update(req, flavor_id):
    row = {**req.target, 'description': req.body['flavor']['description']}
    req.db.transact(lambda connection: connection.execute(
        flavors.update().where(flavors.c.id == row['id']).values(description=row['description'])))
    return {'flavor': view(req, row)}


@routes.delete('/flavors/{flavor_id}', rule='os_compute_api:os-flavor-manage:delete', default=policy.ADMIN, load=load_any,
               status=202,
               summary='Delete a flavor')
def delete(req, flavor_id):
    def write(connection):
        connection.execute(flavor_projects.delete().where(flavor_projects.c.flavor_id == req.target['id']))
        connection.execute(flavors.delete().where(flavors.c.id == req.target['id']))
    req.db.transact(write)


# Extra specs

def _specs(req, flavor_id, function):
    def write(connection):
        row = db.one(connection, sa.select(flavors).where(flavors.c.flavorid == flavor_id).with_for_update())
        if row is None:
            raise common.not_found('Flavor', flavor_id)
        specs = function(row['extra_specs'])
        connection.execute(flavors.update().where(flavors.c.id == row['id']).values(extra_specs=specs))
        return specs
    return req.db.transact(write)


def _text(specs):
    for name, value in specs.items():
        if len(name) > 255 or not re.fullmatch(r'[a-zA-Z0-9-_:. ]{1,255}', name):
            raise errors.BadRequest(f'Invalid input for field/attribute extra_specs: the key {name[:80]!r} is not allowed.')
        if isinstance(value, (dict, list)) or value is None or len(str(value)) > 255:
            raise errors.BadRequest(f'Invalid input for field/attribute {name}: the value must be a text of up to 255 characters.')
    return {name: str(value) for name, value in specs.items()}


@routes.get('/flavors/{flavor_id}/os-extra_specs', rule='os_compute_api:os-flavor-extra-specs:index', default=policy.READER,
            load=load, response=schema.wrap('extra_specs', schema.ANY), summary='List the extra specs of a flavor')
def specs_index(req, flavor_id):
    return {'extra_specs': req.target['extra_specs']}


@routes.post('/flavors/{flavor_id}/os-extra_specs', rule='os_compute_api:os-flavor-extra-specs:create', default=policy.ADMIN,
             load=load_any,
             body=schema.wrap('extra_specs', {'type': 'object'}), response=schema.wrap('extra_specs', schema.ANY),
             summary='Set extra specs of a flavor')
def specs_create(req, flavor_id):
    sent = _text(req.body['extra_specs'])
    _specs(req, flavor_id, lambda specs: {**specs, **sent})
    return {'extra_specs': sent}


@routes.get('/flavors/{flavor_id}/os-extra_specs/{key}', rule='os_compute_api:os-flavor-extra-specs:show', default=policy.READER,
            load=load, summary='Show one extra spec')
def specs_show(req, flavor_id, key):
    if key not in req.target['extra_specs']:
        raise errors.NotFound(f'Flavor {flavor_id} has no extra specs with key {key}.')
    return {key: req.target['extra_specs'][key]}


@routes.put('/flavors/{flavor_id}/os-extra_specs/{key}', rule='os_compute_api:os-flavor-extra-specs:update', default=policy.ADMIN,
            load=load_any, body={'type': 'object', 'minProperties': 1, 'maxProperties': 1}, summary='Set one extra spec')
def specs_update(req, flavor_id, key):
    if key not in req.body:
        raise errors.BadRequest('Request body and URI mismatch')
    sent = _text(req.body)
    _specs(req, flavor_id, lambda specs: {**specs, **sent})
    return sent


@routes.delete('/flavors/{flavor_id}/os-extra_specs/{key}', rule='os_compute_api:os-flavor-extra-specs:delete',
               default=policy.ADMIN,
               load=load_any, status=200, summary='Delete one extra spec')
def specs_delete(req, flavor_id, key):
    if key not in req.target['extra_specs']:
        raise errors.NotFound(f'Flavor {flavor_id} has no extra specs with key {key}.')
    _specs(req, flavor_id, lambda specs: {name: value for name, value in specs.items() if name != key})


# Access

def _access(connection, row):
    found = connection.scalars(sa.select(flavor_projects.c.project_id).where(
        flavor_projects.c.flavor_id == row['id']).order_by(flavor_projects.c.project_id))
    return {'flavor_access': [{'flavor_id': row['flavorid'], 'tenant_id': project} for project in found]}


@routes.get('/flavors/{flavor_id}/os-flavor-access', rule='os_compute_api:os-flavor-access', default=policy.ADMIN, load=load_any,
            response=schema.wrap('flavor_access', schema.array({'type': 'object'})), summary='List who may use a flavor')
def access_index(req, flavor_id):
    if req.target['is_public']:
        raise errors.NotFound('Access list not available for public flavors.')
    with req.db.read() as connection:
        return _access(connection, req.target)


def _project(req, action):
    return req.body[action]['tenant']


TENANT = schema.obj({'tenant': {'type': 'string', 'minLength': 1, 'maxLength': 255}}, ['tenant'])


@routes.post('/flavors/{flavor_id}/action', action='addTenantAccess', rule='os_compute_api:os-flavor-access:add_tenant_access',
             default=policy.ADMIN, load=load_any, body=schema.wrap('addTenantAccess', TENANT), summary='Let a project use a flavor')
def add_access(req, flavor_id):
    row, project = req.target, _project(req, 'addTenantAccess')
    if row['is_public']:
        raise errors.Conflict('Can not add access to a public flavor.')

    def write(connection):
        if any(entry['tenant_id'] == project for entry in _access(connection, row)['flavor_access']):
            raise errors.Conflict(f'Flavor access already exists for flavor {flavor_id} and project {project} combination.')
        connection.execute(flavor_projects.insert(), {'flavor_id': row['id'], 'project_id': project})
        return _access(connection, row)
    return req.db.transact(write)


@routes.post('/flavors/{flavor_id}/action', action='removeTenantAccess', default=policy.ADMIN, load=load_any,
             rule='os_compute_api:os-flavor-access:remove_tenant_access', body=schema.wrap('removeTenantAccess', TENANT),
             summary='Stop a project from using a flavor')
def remove_access(req, flavor_id):
    row, project = req.target, _project(req, 'removeTenantAccess')

    def write(connection):
        if not connection.execute(flavor_projects.delete().where(
                flavor_projects.c.flavor_id == row['id'], flavor_projects.c.project_id == project)).rowcount:
            raise errors.NotFound(f'Flavor access not found for {flavor_id} / {project} combination.')
        return _access(connection, row)
    return req.db.transact(write)
