"""Regions, services and endpoints."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors

from .. import changes, notices
from .. import core as cores
from ..models import endpoints, regions, services
from . import kit, rules

routes = api.Routes('catalog', '/v3')

REGION_KNOWN = ('id', 'description', 'parent_region_id')
REGION = {'id': {'type': ['string', 'null'], 'maxLength': 255}, 'description': kit.TEXT,
          'parent_region_id': {'type': ['string', 'null']}}
REGIONS = kit.listing_of(regions.c.id, {'parent_region_id': regions.c.parent_region_id})
SERVICE_KNOWN = ('type', 'name', 'enabled')
SERVICE = {'type': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'name': {'type': ['string', 'null'], 'maxLength': 255},
           'enabled': kit.FLAG, 'description': kit.TEXT}
SERVICES = kit.listing_of(services.c.id, {**kit.text_filters(name=services.c.name), 'type': services.c.type,
                                          'enabled': kit.flag_filter(services.c.enabled)}, {'type': services.c.type})
ENDPOINT_KNOWN = ('service_id', 'interface', 'url', 'region', 'region_id', 'enabled')
INTERFACE = {'type': 'string', 'enum': ['public', 'internal', 'admin']}
ENDPOINT = {'service_id': kit.ID, 'interface': INTERFACE, 'url': kit.URL, 'enabled': kit.FLAG, 'name': kit.TEXT,
            'description': kit.TEXT, 'region_id': {'type': ['string', 'null'], 'maxLength': 255},
            'region': {'type': ['string', 'null'], 'maxLength': 255}}
ENDPOINTS = kit.listing_of(endpoints.c.id, {
    'service_id': endpoints.c.service_id, 'interface': endpoints.c.interface, 'region_id': endpoints.c.region_id,
    'region': endpoints.c.region_id, 'enabled': kit.flag_filter(endpoints.c.enabled)})
PLACEHOLDERS = ('tenant_id', 'project_id', 'user_id')


def region_view(req, row):
    """A region as the API shows it."""
    return {'id': row.id, 'description': row.description, 'parent_region_id': row.parent_region_id, **row.extra,
            'links': {'self': f'{req.base_url}/v3/regions/{row.id}'}}


def service_view(req, row):
    """A service as the API shows it."""
    return {'id': row.id, 'name': row.name or '', 'type': row.type, 'enabled': row.enabled, **row.extra,
            'links': {'self': f'{req.base_url}/v3/services/{row.id}'}}


def endpoint_view(req, row):
    """An endpoint as the API shows it."""
    return {'id': row.id, 'service_id': row.service_id, 'interface': row.interface, 'url': row.url, 'enabled': row.enabled,
            'region_id': row.region_id, 'region': row.region_id, **row.extra,
            'links': {'self': f'{req.base_url}/v3/endpoints/{row.id}'}}


def _loader(table, kind):
    def load(req, **parameters):
        (key,) = parameters.values()
        with req.db.read() as connection:
            row = connection.execute(sa.select(table).where(table.c.id == key)).first()
        if row is None:
            raise errors.NotFound(f'Could not find {kind}: {key}.')
        req.row = row
        return {f'target.{kind}.id': key}
    return load


load_region, load_service = _loader(regions, 'region'), _loader(services, 'service')
load_endpoint = _loader(endpoints, 'endpoint')


KINDS = {regions: 'region', services: 'service', endpoints: 'endpoint'}


def _save(req, table, key, values=None, row=None, check=None):
    """Insert ``row`` or apply ``values`` to the row ``key``; returns it."""
    def store(connection):
        if check:
            check(connection)
        if row is not None:
            connection.execute(table.insert().values(row))
        elif values:
            connection.execute(sa.update(table).where(table.c.id == key).values(values))
        changes.bump(connection, changes.CATALOG)
        notices.tell(connection, KINDS[table], 'created' if row is not None else 'updated', key)
        return connection.execute(sa.select(table).where(table.c.id == key)).one()
    try:
        return cores.of(req).db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f'Duplicate ID, {key}.') from None
        raise


def _delete(req, table, key):
    def store(connection):
        connection.execute(sa.delete(table).where(table.c.id == key))
        changes.bump(connection, changes.CATALOG)
        notices.tell(connection, KINDS[table], 'deleted', key)
    cores.of(req).db.transact(store)


@routes.get('/regions', rule='identity:list_regions', default=rules.ANYBODY, query=kit.parameters(REGIONS),
            response=kit.many_of('regions'), summary='List regions')
def list_regions(req):
    """List regions."""
    with req.db.read() as connection:
        return kit.page(req, REGIONS, connection, sa.select(regions), 'regions', lambda row: region_view(req, row))


def _parent_exists(region_id):
    def check(connection):
        if region_id is not None and connection.execute(sa.select(regions.c.id).where(regions.c.id == region_id)).first() is None:
            raise errors.NotFound(f'Could not find region: {region_id}.')
    return check


def _create_region(req, asked, region_id):
    row = {'id': region_id, 'description': asked.get('description') or '', 'parent_region_id': asked.get('parent_region_id'),
           'extra': kit.extra_of(asked, REGION_KNOWN)}
    return {'region': region_view(req, _save(req, regions, region_id, row=row, check=_parent_exists(row['parent_region_id'])))}


@routes.post('/regions', rule='identity:create_region', default=rules.ADMIN, body=kit.body('region', REGION), status=201,
             response=kit.one_of('region', {}), summary='Create a region')
def create_region(req):
    """Create a region."""
    asked = req.body['region']
    return _create_region(req, asked, asked.get('id') or db.new_hex())


@routes.put('/regions/{region_id}', rule='identity:create_region', default=rules.ADMIN, body=kit.body('region', REGION), status=201,
            response=kit.one_of('region', {}), summary='Create a region with a given id')
def put_region(req, region_id):
    """Create a region with the id of the path."""
    kit.same_id(region_id, req.body['region'].get('id'))
    return _create_region(req, req.body['region'], region_id)


@routes.get('/regions/{region_id}', rule='identity:get_region', default=rules.ANYBODY, load=load_region,
            response=kit.one_of('region', {}), summary='Show a region')
def show_region(req, region_id):
    """Show a region."""
    return {'region': region_view(req, req.row)}


@routes.patch('/regions/{region_id}', rule='identity:update_region', default=rules.ADMIN, load=load_region,
              body=kit.body('region', REGION), response=kit.one_of('region', {}), summary='Update a region')
def update_region(req, region_id):
    """Change a region."""
    asked = req.body['region']
    kit.same_id(region_id, asked.get('id'))
    values = kit.merged(req.row._mapping, asked, ('parent_region_id',), REGION_KNOWN)
    if 'description' in asked:
        values['description'] = asked['description'] or ''

    def check(connection):
        parent = values.get('parent_region_id')
        _parent_exists(parent)(connection)
        while parent is not None:
            if parent == region_id:
                raise errors.BadRequest('A region cannot be below itself (region.parent_region_id).')
            parent = connection.execute(sa.select(regions.c.parent_region_id).where(regions.c.id == parent)).scalar()
    return {'region': region_view(req, _save(req, regions, region_id, values, check=check))}


@routes.delete('/regions/{region_id}', rule='identity:delete_region', default=rules.ADMIN, load=load_region,
               summary='Delete a region')
def delete_region(req, region_id):
    """Delete a region that has neither regions below it nor endpoints in it."""
    with req.db.read() as connection:
        if connection.execute(sa.select(regions.c.id).where(regions.c.parent_region_id == region_id)).first():
            raise errors.Conflict(f'Unable to delete region {region_id} because it has child regions: delete them first.')
    try:
        _delete(req, regions, region_id)
    except exc.IntegrityError:
        raise errors.Forbidden(f'Unable to delete region {region_id} because it or its child regions have associated endpoints: '
                               'delete them first.') from None


@routes.get('/services', rule='identity:list_services', default=rules.READ, query=kit.parameters(SERVICES),
            response=kit.many_of('services'), summary='List services')
def list_services(req):
    """List services."""
    with req.db.read() as connection:
        return kit.page(req, SERVICES, connection, sa.select(services), 'services', lambda row: service_view(req, row))


@routes.post('/services', rule='identity:create_service', default=rules.ADMIN, status=201,
             body=kit.body('service', SERVICE, ['type']), response=kit.one_of('service', {}), summary='Create a service')
def create_service(req):
    """Create a service."""
    asked = req.body['service']
    row = {'id': db.new_hex(), 'type': asked['type'], 'name': asked.get('name'), 'enabled': asked.get('enabled', True),
           'extra': kit.extra_of(asked, SERVICE_KNOWN)}
    return {'service': service_view(req, _save(req, services, row['id'], row=row))}


@routes.get('/services/{service_id}', rule='identity:get_service', default=rules.READ, load=load_service,
            response=kit.one_of('service', {}), summary='Show a service')
def show_service(req, service_id):
    """Show a service."""
    return {'service': service_view(req, req.row)}


@routes.patch('/services/{service_id}', rule='identity:update_service', default=rules.ADMIN, load=load_service,
              body=kit.body('service', SERVICE), response=kit.one_of('service', {}), summary='Update a service')
def update_service(req, service_id):
    """Change a service."""
    asked = req.body['service']
    kit.same_id(service_id, asked.get('id'))
    values = kit.merged(req.row._mapping, asked, SERVICE_KNOWN, SERVICE_KNOWN)
    return {'service': service_view(req, _save(req, services, service_id, values))}


@routes.delete('/services/{service_id}', rule='identity:delete_service', default=rules.ADMIN, load=load_service,
               summary='Delete a service')
def delete_service(req, service_id):
    """Delete a service with its endpoints."""
    _delete(req, services, service_id)


@routes.get('/endpoints', rule='identity:list_endpoints', default=rules.READ, query=kit.parameters(ENDPOINTS),
            response=kit.many_of('endpoints'), summary='List endpoints')
def list_endpoints(req):
    """List endpoints."""
    with req.db.read() as connection:
        return kit.page(req, ENDPOINTS, connection, sa.select(endpoints), 'endpoints', lambda row: endpoint_view(req, row))


def _check_url(url):
    left = url
    for name in PLACEHOLDERS:
        left = left.replace(f'$({name})s', '').replace(f'%({name})s', '')
    if '$(' in left or '%(' in left:
        raise errors.BadRequest(f'Invalid input for field/attribute url: {url} has a placeholder that is not one of '
                                f"{', '.join(PLACEHOLDERS)}.")


def _check_references(asked, region_id):
    def check(connection):
        service_id = asked.get('service_id')
        if service_id is not None and connection.execute(
                sa.select(services.c.id).where(services.c.id == service_id)).first() is None:
            raise errors.BadRequest(f'Invalid input for field/attribute service_id: there is no service {service_id}.')
        if region_id is None:
            return
        if connection.execute(sa.select(regions.c.id).where(regions.c.id == region_id)).first() is None:
            if asked.get('region_id'):
                raise errors.BadRequest(f'Invalid input for field/attribute region_id: there is no region {region_id}.')
            # The older attribute names a region that need not be there yet.
            connection.execute(regions.insert().values(id=region_id, description='', extra={}))
    return check


@routes.post('/endpoints', rule='identity:create_endpoint', default=rules.ADMIN, status=201, response=kit.one_of('endpoint', {}),
             body=kit.body('endpoint', ENDPOINT, ['service_id', 'interface', 'url']), summary='Create an endpoint')
def create_endpoint(req):
    """Create an endpoint."""
    asked = req.body['endpoint']
    _check_url(asked['url'])
    region_id = asked.get('region_id') or asked.get('region')
    row = {'id': db.new_hex(), 'service_id': asked['service_id'], 'interface': asked['interface'], 'url': asked['url'].strip(),
           'region_id': region_id, 'enabled': asked.get('enabled', True), 'extra': kit.extra_of(asked, ENDPOINT_KNOWN)}
    return {'endpoint': endpoint_view(req, _save(req, endpoints, row['id'], row=row, check=_check_references(asked, region_id)))}


@routes.get('/endpoints/{endpoint_id}', rule='identity:get_endpoint', default=rules.READ, load=load_endpoint,
            response=kit.one_of('endpoint', {}), summary='Show an endpoint')
def show_endpoint(req, endpoint_id):
    """Show an endpoint."""
    return {'endpoint': endpoint_view(req, req.row)}


@routes.patch('/endpoints/{endpoint_id}', rule='identity:update_endpoint', default=rules.ADMIN, load=load_endpoint,
              body=kit.body('endpoint', ENDPOINT), response=kit.one_of('endpoint', {}), summary='Update an endpoint')
def update_endpoint(req, endpoint_id):
    """Change an endpoint."""
    asked = req.body['endpoint']
    kit.same_id(endpoint_id, asked.get('id'))
    if 'url' in asked:
        _check_url(asked['url'])
    values = kit.merged(req.row._mapping, asked, ('service_id', 'interface', 'url', 'enabled'), ENDPOINT_KNOWN)
    region_id = None
    if 'region_id' in asked or 'region' in asked:
        values['region_id'] = region_id = asked.get('region_id') or asked.get('region')
    return {'endpoint': endpoint_view(req, _save(req, endpoints, endpoint_id, values, check=_check_references(asked, region_id)))}


@routes.delete('/endpoints/{endpoint_id}', rule='identity:delete_endpoint', default=rules.ADMIN, load=load_endpoint,
               summary='Delete an endpoint')
def delete_endpoint(req, endpoint_id):
    """Delete an endpoint."""
    _delete(req, endpoints, endpoint_id)
