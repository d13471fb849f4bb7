"""Unified limits: registered limits are defaults, limits are what a project or a domain has instead."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import limits as domain
from ..models import limits, projects, regions, registered_limits, services
from . import kit, rules

routes = api.Routes('unified limits', '/v3')

NUMBER = {'type': 'integer', 'minimum': -1, 'maximum': 0x7FFFFFFF}
RESOURCE = {'type': 'string', 'minLength': 1, 'maxLength': 255}
REGION = {'type': ['string', 'null'], 'maxLength': 255}
REGISTERED = {'service_id': kit.ID, 'region_id': REGION, 'resource_name': RESOURCE, 'default_limit': NUMBER,
              'description': kit.TEXT}
LIMIT = {'project_id': schema.nullable(kit.ID), 'domain_id': schema.nullable(kit.ID), 'service_id': kit.ID, 'region_id': REGION,
         'resource_name': RESOURCE, 'resource_limit': NUMBER, 'description': kit.TEXT}
R = registered_limits.c
REGISTERED_HOW = kit.listing_of(R.id, {'service_id': R.service_id, 'region_id': R.region_id, 'resource_name': R.resource_name})
LIMIT_HOW = kit.listing_of(limits.c.id, {
    'service_id': R.service_id, 'region_id': R.region_id, 'resource_name': R.resource_name,
    'project_id': lambda values: sa.and_(limits.c.project_id == values[-1], limits.c.is_domain.is_(False)),
    'domain_id': lambda values: sa.and_(limits.c.project_id == values[-1], limits.c.is_domain.is_(True))})
JOINED = domain.JOINED


def many_body(name, fields, required):
    """The body of a request that creates several at once."""
    return schema.obj({name: schema.array(schema.obj(fields, required), minItems=1)}, [name], extra=True)


def registered_view(req, row):
    """A registered limit as the API shows it."""
    return {'id': row.id, 'service_id': row.service_id, 'region_id': row.region_id, 'resource_name': row.resource_name,
            'default_limit': row.default_limit, 'description': row.description,
            'links': {'self': f'{req.base_url}/v3/registered_limits/{row.id}'}}


def view(req, row):
    """A limit as the API shows it."""
    return {'id': row.id, 'project_id': None if row.is_domain else row.project_id,
            'domain_id': row.project_id if row.is_domain else None,
            'service_id': row.service_id, 'region_id': row.region_id, 'resource_name': row.resource_name,
            'resource_limit': row.resource_limit, 'description': row.description,
            'links': {'self': f'{req.base_url}/v3/limits/{row.id}'}}


def load_registered(req, limit_id):
    """The registered limit as ``req.row``."""
    with req.db.read() as connection:
        req.row = connection.execute(sa.select(registered_limits).where(R.id == limit_id)).first()
    if req.row is None:
        raise errors.NotFound(f'Could not find registered limit for {limit_id}.')
    return {}


def load(req, limit_id):
    """The limit as a policy target."""
    with req.db.read() as connection:
        req.row = connection.execute(JOINED.where(limits.c.id == limit_id)).first()
        if req.row is None:
            raise errors.NotFound(f'Could not find limit for {limit_id}.')
        owner = connection.execute(sa.select(projects.c.domain_id).where(projects.c.id == req.row.project_id)).scalar()
    if req.row.is_domain:
        return {'target.limit.domain.id': req.row.project_id}
    return {'target.limit.project_id': req.row.project_id, 'target.limit.project.domain_id': owner}


@routes.get('/registered_limits', rule='identity:list_registered_limits', default=rules.ANYBODY,
            query=kit.parameters(REGISTERED_HOW), response=kit.many_of('registered_limits'), summary='List registered limits')
def list_registered(req):
    """List registered limits."""
    with req.db.read() as connection:
        return kit.page(req, REGISTERED_HOW, connection, sa.select(registered_limits), 'registered_limits',
                        lambda row: registered_view(req, row))


def _check_references(connection, service_id, region_id):
    if service_id is not None and connection.execute(
            sa.select(services.c.id).where(services.c.id == service_id)).first() is None:
        raise errors.BadRequest(f'Invalid input for field/attribute service_id: there is no service {service_id}.')
    if region_id is not None and connection.execute(sa.select(regions.c.id).where(regions.c.id == region_id)).first() is None:
        raise errors.BadRequest(f'Invalid input for field/attribute region_id: there is no region {region_id}.')


def _check_unique(connection, row):
    same = sa.select(R.id).where(R.service_id == row['service_id'], R.resource_name == row['resource_name'], R.id != row['id'],
                                 R.region_id.is_(None) if row['region_id'] is None else R.region_id == row['region_id'])
    if connection.execute(same).first() is not None:
        raise kit.conflict('registered_limit', row['resource_name'])


@routes.post('/registered_limits', rule='identity:create_registered_limits', default=rules.ADMIN, status=201,
             body=many_body('registered_limits', REGISTERED, ['service_id', 'resource_name', 'default_limit']),
             response=kit.many_of('registered_limits'), summary='Create registered limits')
def create_registered(req):
    """Create registered limits: all of the request's, or none."""
    def store(connection):
        made = []
        for asked in req.body['registered_limits']:
            row = {'id': db.new_hex(), 'service_id': asked['service_id'], 'region_id': asked.get('region_id'),
                   'resource_name': asked['resource_name'], 'default_limit': asked['default_limit'],
                   'description': asked.get('description')}
            _check_references(connection, row['service_id'], row['region_id'])
            _check_unique(connection, row)
            connection.execute(registered_limits.insert().values(row))
            made.append(connection.execute(sa.select(registered_limits).where(R.id == row['id'])).one())
        return made
    made = cores.of(req).db.transact(store)
    return kit.envelope(req, 'registered_limits', [registered_view(req, row) for row in made])


@routes.get('/registered_limits/{limit_id}', rule='identity:get_registered_limit', default=rules.ANYBODY, load=load_registered,
            response=kit.one_of('registered_limit', {}), summary='Show a registered limit')
def show_registered(req, limit_id):
    """Show a registered limit."""
    return {'registered_limit': registered_view(req, req.row)}


def _used(connection, limit_id):
    return connection.execute(sa.select(limits.c.id).where(limits.c.registered_limit_id == limit_id)).first() is not None


@routes.patch('/registered_limits/{limit_id}', rule='identity:update_registered_limit', default=rules.ADMIN, load=load_registered,
              body=kit.body('registered_limit', REGISTERED, extra=False), response=kit.one_of('registered_limit', {}),
              summary='Update a registered limit')
def update_registered(req, limit_id):
    """Change a registered limit; what limits refer to it by can't change while there are any."""
    asked = req.body['registered_limit']

    def store(connection):
        row = {**req.row._mapping, **asked}
        if any(row[name] != getattr(req.row, name) for name in ('service_id', 'region_id', 'resource_name')) and \
                _used(connection, limit_id):
            raise errors.Forbidden(f'Unable to update registered limit {limit_id}: there are limits that refer to it.')
        _check_references(connection, asked.get('service_id'), asked.get('region_id'))
        _check_unique(connection, row)
        if asked:
            connection.execute(sa.update(registered_limits).where(R.id == limit_id).values(asked))
        return connection.execute(sa.select(registered_limits).where(R.id == limit_id)).one()
    return {'registered_limit': registered_view(req, cores.of(req).db.transact(store))}


@routes.delete('/registered_limits/{limit_id}', rule='identity:delete_registered_limit', default=rules.ADMIN, load=load_registered,
               summary='Delete a registered limit')
def delete_registered(req, limit_id):
    """Delete a registered limit that no limit refers to."""
    def store(connection):
        if _used(connection, limit_id):
            raise errors.Forbidden(f'Unable to delete registered limit {limit_id}: there are limits that refer to it.')
        connection.execute(sa.delete(registered_limits).where(R.id == limit_id))
    cores.of(req).db.transact(store)


MODEL = schema.obj({'model': schema.obj({'name': schema.STRING, 'description': schema.STRING}, ['name', 'description']),
                    'links': kit.LINKS}, ['model'])


@routes.get('/limits/model', rule='identity:get_limit_model', default=rules.ANYBODY,
            response=MODEL, summary='Show how limits depend on each other')
def model(req):
    """The enforcement model."""
    name = req.app.conf.unified_limit.enforcement_model
    return {'model': {'name': name, 'description': domain.MODELS[name]}, 'links': {'self': req.url}}


@routes.get('/limits', rule='identity:list_limits', default=rules.ANYBODY, query=kit.parameters(LIMIT_HOW),
            response=kit.many_of('limits'), summary='List limits')
def list_limits(req):
    """List limits: all for an administrator or a reader of the system, otherwise those of the token's project or domain."""
    select, ctx = JOINED, req.ctx
    if not (ctx.is_admin or (ctx.is_system and 'reader' in ctx.roles)):
        owner = ctx.project_id or ctx.domain_id
        inside = sa.select(projects.c.id).where(projects.c.domain_id == ctx.domain_id) if ctx.domain_id else sa.select(sa.null())
        select = select.where(sa.or_(limits.c.project_id == owner, limits.c.project_id.in_(inside)))
    with req.db.read() as connection:
        return kit.page(req, LIMIT_HOW, connection, select, 'limits', lambda row: view(req, row))


@routes.post('/limits', rule='identity:create_limits', default=rules.ADMIN, status=201, response=kit.many_of('limits'),
             body=many_body('limits', LIMIT, ['service_id', 'resource_name', 'resource_limit']), summary='Create limits')
def create(req):
    """Create limits: all of the request's, or none."""
    core = cores.of(req)

    def store(connection):
        made = []
        for asked in req.body['limits']:
            if bool(asked.get('project_id')) == bool(asked.get('domain_id')):
                raise errors.BadRequest('A limit is for a project or for a domain: give one of project_id and domain_id.')
            registered = domain.registered(connection, asked['service_id'], asked.get('region_id'), asked['resource_name'])
            owner = asked.get('project_id') or asked['domain_id']
            found = connection.execute(sa.select(projects.c.is_domain).where(projects.c.id == owner)).first()
            if found is None or (asked.get('domain_id') and not found.is_domain):
                raise errors.BadRequest(f'Invalid input for field/attribute project_id or domain_id: there is no {owner}.')
            row = {'id': db.new_hex(), 'registered_limit_id': registered.id, 'project_id': owner,
                   'is_domain': bool(asked.get('domain_id')), 'resource_limit': asked['resource_limit'],
                   'description': asked.get('description')}
            connection.execute(limits.insert().values(row))
            made.append(row['id'])
        domain.check(core, connection, made)
        return [connection.execute(JOINED.where(limits.c.id == limit_id)).one() for limit_id in made]
    try:
        rows = core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict('Conflict occurred attempting to store limit - there is one for this project or domain already.'
                                  ) from None
        raise
    return kit.envelope(req, 'limits', [view(req, row) for row in rows])


SEES = (rules.ANY_READ + ' or domain_id:%(target.limit.domain.id)s or domain_id:%(target.limit.project.domain_id)s '
        'or project_id:%(target.limit.project_id)s')


@routes.get('/limits/{limit_id}', rule='identity:get_limit', default=SEES, load=load, response=kit.one_of('limit', {}),
            summary='Show a limit')
def show(req, limit_id):
    """Show a limit."""
    return {'limit': view(req, req.row)}


@routes.patch('/limits/{limit_id}', rule='identity:update_limit', default=rules.ADMIN, load=load, response=kit.one_of('limit', {}),
              body=kit.body('limit', {'resource_limit': NUMBER, 'description': kit.TEXT}, extra=False), summary='Update a limit')
def update(req, limit_id):
    """Change a limit."""
    core = cores.of(req)

    def store(connection):
        if req.body['limit']:
            connection.execute(sa.update(limits).where(limits.c.id == limit_id).values(req.body['limit']))
        domain.check(core, connection, [limit_id])
        return connection.execute(JOINED.where(limits.c.id == limit_id)).one()
    return {'limit': view(req, core.db.transact(store))}


@routes.delete('/limits/{limit_id}', rule='identity:delete_limit', default=rules.ADMIN, load=load, summary='Delete a limit')
def delete(req, limit_id):
    """Delete a limit; the registered one holds again."""
    cores.of(req).db.transact(lambda connection: connection.execute(sa.delete(limits).where(limits.c.id == limit_id)) and None)
