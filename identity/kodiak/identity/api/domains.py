"""Domains."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import resources
from ..models import NO_DOMAIN, projects
from . import kit, rules

routes = api.Routes('domains', '/v3')

KNOWN = ('name', 'description', 'enabled', 'options', 'tags', 'explicit_domain_id')
FIELDS = {'name': kit.SHORT_NAME, 'description': kit.TEXT, 'enabled': kit.FLAG, 'options': kit.IMMUTABLE,
          'explicit_domain_id': {'type': 'string', 'pattern': '^[0-9a-fA-F]{32}$'}}
SHOWN = {'id': schema.STRING, 'name': schema.STRING, 'description': schema.TEXT, 'enabled': kit.FLAG, 'options': schema.ANY}
HOW = kit.listing_of(projects.c.id, {**kit.text_filters(name=projects.c.name), 'enabled': kit.flag_filter(projects.c.enabled)},
                     {'name': projects.c.name})
MINE = (rules.ANY_READ + ' or domain_id:%(target.domain.id)s or project_domain_id:%(target.domain.id)s')


def view(req, row):
    """A domain as the API shows it."""
    return {'id': row.id, 'name': row.name, 'description': row.description or '', 'enabled': row.enabled, 'tags': [],
            'options': row.options, **row.extra, 'links': {'self': f'{req.base_url}/v3/domains/{row.id}'}}


def load(req, domain_id):
    """The domain as a policy target."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(projects).where(projects.c.id == domain_id, projects.c.is_domain.is_(True))).first()
    if row is None:
        raise errors.NotFound(f'Could not find domain: {domain_id}.')
    req.row = row
    return {'target.domain.id': row.id, 'target.domain_id': row.id}


@routes.get('/domains', rule='identity:list_domains', default=rules.LIST, late=True, query=kit.parameters(HOW),
            response=kit.many_of('domains', SHOWN), summary='List domains')
def list_domains(req):
    """List domains; a token of a domain sees that one."""
    req.authorize({'target.domain_id': req.ctx.domain_id})
    select = sa.select(projects).where(projects.c.is_domain.is_(True))
    if req.ctx.domain_id:
        select = select.where(projects.c.id == req.ctx.domain_id)
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'domains', lambda row: view(req, row))


@routes.post('/domains', rule='identity:create_domain', default=rules.ADMIN, body=kit.body('domain', FIELDS, ['name']), status=201,
             response=kit.one_of('domain', SHOWN), summary='Create a domain')
def create(req):
    """Create a domain."""
    asked = req.body['domain']
    row = {'id': asked.get('explicit_domain_id') or db.new_hex(), 'name': kit.clean(asked['name']), 'domain_id': NO_DOMAIN,
           'parent_id': None, 'is_domain': True, 'description': asked.get('description'), 'enabled': asked.get('enabled', True),
           'extra': kit.extra_of(asked, KNOWN), 'options': kit.with_options({'options': {}}, asked)}

    def store(connection):
        resources.insert(connection, row)
        return connection.execute(sa.select(projects).where(projects.c.id == row['id'])).one()
    return {'domain': view(req, _stored(cores.of(req), store, row['name']))}


def _stored(core, store, name):
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('domain', name) from None
        raise


@routes.get('/domains/{domain_id}', rule='identity:get_domain', default=MINE, load=load, response=kit.one_of('domain', SHOWN),
            summary='Show a domain')
def show(req, domain_id):
    """Show a domain."""
    return {'domain': view(req, req.row)}


@routes.patch('/domains/{domain_id}', rule='identity:update_domain', default=rules.ADMIN, load=kit.telling(load),
              body=kit.body('domain', FIELDS), response=kit.one_of('domain', SHOWN), summary='Update a domain')
def update(req, domain_id):
    """Change a domain; ``enabled: false`` revokes all tokens of its users and projects."""
    core, asked, row = cores.of(req), req.body['domain'], req.row._mapping
    kit.same_id(domain_id, asked.get('id'))
    kit.immutable_patch(row, asked, 'domain')
    values = kit.merged(row, asked, ('description', 'enabled'), KNOWN)
    if 'name' in asked:
        values['name'] = kit.clean(asked['name'])
    if 'options' in asked:
        values['options'] = kit.with_options(row, asked)

    def store(connection):
        resources.change(core, connection, row, values)
        return connection.execute(sa.select(projects).where(projects.c.id == domain_id)).one()
    return {'domain': view(req, _stored(core, store, values.get('name')))}


@routes.delete('/domains/{domain_id}', rule='identity:delete_domain', default=rules.ADMIN, load=load, summary='Delete a domain')
def delete(req, domain_id):
    """Delete a disabled domain with all that is in it."""
    core, row = cores.of(req), req.row._mapping
    kit.immutable(row, 'domain')
    core.db.transact(lambda connection: resources.delete(core, connection, row))
