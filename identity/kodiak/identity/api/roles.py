"""Roles, and which role implies which."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import changes, notices
from .. import core as cores
from .. import roles as domain
from ..models import NO_DOMAIN, assignments, implied_roles, projects, roles
from . import kit, rules

routes = api.Routes('roles', '/v3')

KNOWN = ('name', 'domain_id', 'description', 'options')
FIELDS = {'name': kit.NAME, 'domain_id': schema.nullable(kit.ID), 'description': kit.TEXT, 'options': kit.IMMUTABLE}
SHOWN = {'id': schema.STRING, 'name': schema.STRING, 'domain_id': schema.TEXT, 'description': schema.TEXT, 'options': schema.ANY}
HOW = kit.listing_of(roles.c.id, {**kit.text_filters(name=roles.c.name),
                                  'domain_id': lambda values: roles.c.domain_id == values[-1]}, {'name': roles.c.name})


def view(prefix, row):
    """A role as the API shows it; ``prefix`` is the URL of the roles."""
    return {'id': row.id, 'name': row.name, 'domain_id': kit.domain_or_none(row.domain_id), 'description': row.description,
            'options': row.options, **row.extra, 'links': {'self': prefix + row.id}}


def load(req, role_id):
    """The role as a policy target."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(roles).where(roles.c.id == role_id)).first()
    if row is None:
        raise kit.told(f'Could not find role: {role_id}.')
    req.row = row
    return {'target.role.id': row.id, 'target.role.name': row.name, 'target.role.domain_id': kit.domain_or_none(row.domain_id)}


LIST = rules.ANY_READ + ' or (role:manager and scope:domain)'
SHOW = rules.ANY_READ + ' or (role:manager and rule:domain_managed_role)'


LINK = schema.obj({'id': schema.STRING, 'name': schema.STRING}, ['id', 'name'], extra=True)
INFERENCE = {'prior_role': LINK, 'implies': schema.array(LINK)}
IMPLIES = schema.obj({'role_inference': schema.obj(INFERENCE, list(INFERENCE)), 'links': kit.LINKS}, ['role_inference', 'links'])
IMPLIED = schema.obj({'role_inference': schema.obj({'prior_role': LINK, 'implies': LINK}, ['prior_role', 'implies']),
                      'links': kit.LINKS}, ['role_inference', 'links'])

#: Roles of one domain have rules of their own.
RULES = [('identity:create_domain_role', rules.ADMIN, 'Create a role of one domain'),
         ('identity:get_domain_role', rules.READ, 'Show a role of one domain'),
         ('identity:list_domain_roles', rules.READ, 'List the roles of one domain'),
         ('identity:update_domain_role', rules.ADMIN, 'Update a role of one domain'),
         ('identity:delete_domain_role', rules.ADMIN, 'Delete a role of one domain')]


def _authorize(req, verb, domain_id):
    plural = 's' if verb == 'list' else ''
    req.authorize(req.target, f'identity:{verb}_domain_role{plural}' if domain_id else f'identity:{verb}_role{plural}')


@routes.get('/roles', rule='identity:list_roles', default=LIST, late=True, query=kit.parameters(HOW),
            response=kit.many_of('roles', SHOWN), summary='List roles')
def list_roles(req):
    """List roles: those of all domains, or with ``domain_id`` those of one."""
    _authorize(req, 'list', 'domain_id' in req.query)
    select, prefix = sa.select(roles), req.base_url + '/v3/roles/'
    if 'domain_id' not in req.query:
        select = select.where(roles.c.domain_id == NO_DOMAIN)
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'roles', lambda row: view(prefix, row))


@routes.post('/roles', rule='identity:create_role', default=rules.ADMIN, late=True, status=201,
             body=kit.body('role', FIELDS, ['name']), response=kit.one_of('role', SHOWN), summary='Create a role')
def create(req):
    """Create a role, of all domains or of one."""
    core, asked = cores.of(req), req.body['role']
    _authorize(req, 'create', asked.get('domain_id'))
    row = {'id': db.new_hex(), 'name': asked['name'], 'domain_id': asked.get('domain_id') or NO_DOMAIN,
           'description': asked.get('description'), 'extra': kit.extra_of(asked, KNOWN),
           'options': kit.with_options({'options': {}}, asked)}

    def store(connection):
        if row['domain_id'] and connection.execute(sa.select(projects.c.id).where(
                projects.c.id == row['domain_id'], projects.c.is_domain.is_(True))).first() is None:
            raise errors.NotFound(f"Could not find domain: {row['domain_id']}.")
        connection.execute(roles.insert().values(row))
        changes.bump(connection, changes.ASSIGNMENT)
        notices.tell(connection, 'role', 'created', row['id'])
        return connection.execute(sa.select(roles).where(roles.c.id == row['id'])).one()
    return {'role': view(req.base_url + '/v3/roles/', _stored(core, store, row['name']))}


def _stored(core, store, name):
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('role', name) from None
        raise


@routes.get('/roles/{role_id}', rule='identity:get_role', load=load, late=True, default=SHOW, response=kit.one_of('role', SHOWN),
            summary='Show a role')
def show(req, role_id):
    """Show a role."""
    _authorize(req, 'get', req.row.domain_id)
    return {'role': view(req.base_url + '/v3/roles/', req.row)}


@routes.patch('/roles/{role_id}', rule='identity:update_role', default=rules.ADMIN, load=load, late=True,
              body=kit.body('role', FIELDS), response=kit.one_of('role', SHOWN), summary='Update a role')
def update(req, role_id):
    """Change a role."""
    asked, row = req.body['role'], req.row._mapping
    _authorize(req, 'update', row['domain_id'])
    kit.same_id(role_id, asked.get('id'))
    kit.immutable_patch(row, asked, 'role')
    if 'domain_id' in asked and asked['domain_id'] != kit.domain_or_none(row['domain_id']):
        raise errors.BadRequest('Cannot change Domain ID (role.domain_id).')
    values = kit.merged(row, asked, ('name', 'description'), KNOWN)
    if 'options' in asked:
        values['options'] = kit.with_options(row, asked)

    def store(connection):
        if values:
            connection.execute(sa.update(roles).where(roles.c.id == role_id).values(values))
            changes.bump(connection, changes.ASSIGNMENT)
        notices.tell(connection, 'role', 'updated', role_id)
        return connection.execute(sa.select(roles).where(roles.c.id == role_id)).one()
    return {'role': view(req.base_url + '/v3/roles/', _stored(cores.of(req), store, values.get('name')))}


@routes.delete('/roles/{role_id}', rule='identity:delete_role', default=rules.ADMIN, load=load, late=True, summary='Delete a role')
def delete(req, role_id):
    """Delete a role with its assignments; tokens that hold it, or something because of it, are revoked."""
    core = cores.of(req)
    _authorize(req, 'delete', req.row.domain_id)
    kit.immutable(req.row._mapping, 'role')

    def remove(connection):
        core.revoke(connection, *domain.holding(connection, role_id))
        connection.execute(sa.delete(assignments).where(assignments.c.role_id == role_id))
        connection.execute(sa.delete(roles).where(roles.c.id == role_id))
        changes.bump(connection, changes.ASSIGNMENT)
        notices.tell(connection, 'role', 'deleted', role_id)
    core.db.transact(remove)


def load_prior(req, prior_role_id):
    """The prior role as a policy target."""
    return load(req, prior_role_id)


def load_pair(req, prior_role_id, implied_role_id):
    """Two roles as a policy target."""
    found = load(req, prior_role_id)
    req.prior = req.row
    load(req, implied_role_id)
    req.implied = req.row
    return found


def _link(req, row):
    return {'id': row.id, 'name': row.name, 'links': {'self': f'{req.base_url}/v3/roles/{row.id}'}}


PAIR = '/roles/{prior_role_id}/implies/{implied_role_id}'


@routes.get('/roles/{prior_role_id}/implies', rule='identity:list_implied_roles', default=rules.READ,
            load=load_prior, response=IMPLIES, summary='List roles that a role implies')
def list_implied(req, prior_role_id):
    """List the roles that a role implies directly."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(roles).join_from(implied_roles, roles, implied_roles.c.implied_id == roles.c.id)
                                  .where(implied_roles.c.prior_id == prior_role_id).order_by(roles.c.id)).all()
    return {'role_inference': {'prior_role': _link(req, req.row), 'implies': [_link(req, row) for row in rows]},
            'links': {'self': req.url}}


@routes.put(PAIR, rule='identity:create_implied_role', default=rules.ADMIN, load=load_pair, status=201,
            summary='Make a role imply another')
def imply(req, prior_role_id, implied_role_id):
    """Whoever has the prior role gets the implied one too."""
    core = cores.of(req)
    if req.implied.domain_id and not req.prior.domain_id:
        raise errors.Forbidden('A role of all domains cannot imply a role of one domain.')
    if req.implied.name == 'admin' and not req.implied.domain_id:
        raise errors.Forbidden('The role admin cannot be implied.')

    def store(connection):
        graph = domain.Graph(connection)
        if implied_role_id in graph.implied.get(prior_role_id, ()):
            return
        if graph.reaches(implied_role_id, prior_role_id):
            raise errors.Forbidden('A role cannot imply itself, directly or through others.')
        connection.execute(implied_roles.insert().values(prior_id=prior_role_id, implied_id=implied_role_id))
        changes.bump(connection, changes.ASSIGNMENT)
    core.db.transact(store)
    return _inference(req)


def _inference(req):
    return {'role_inference': {'prior_role': _link(req, req.prior), 'implies': _link(req, req.implied)}, 'links': {'self': req.url}}


def _implies(req, prior_role_id, implied_role_id):
    with req.db.read() as connection:
        return connection.execute(sa.select(implied_roles).where(
            implied_roles.c.prior_id == prior_role_id, implied_roles.c.implied_id == implied_role_id)).first() is not None


@routes.get(PAIR, rule='identity:get_implied_role', default=rules.READ, load=load_pair,
            response=IMPLIED, summary='Show whether a role implies another')
def show_implied(req, prior_role_id, implied_role_id):
    """Show one implication; 404 if there is none."""
    if not _implies(req, prior_role_id, implied_role_id):
        raise errors.NotFound(f'Role {prior_role_id} does not imply {implied_role_id}.')
    if req.http.method == 'HEAD':
        return api.Response(status=204)
    return _inference(req)


@routes.delete(PAIR, rule='identity:delete_implied_role', default=rules.ADMIN, load=load_pair,
               summary='Stop a role implying another')
def unimply(req, prior_role_id, implied_role_id):
    """Take an implication away; tokens that may hold the implied role because of it are revoked."""
    core = cores.of(req)

    def store(connection):
        done = connection.execute(sa.delete(implied_roles).where(implied_roles.c.prior_id == prior_role_id,
                                                                 implied_roles.c.implied_id == implied_role_id))
        if not done.rowcount:
            raise errors.NotFound(f'Role {prior_role_id} does not imply {implied_role_id}.')
        changes.bump(connection, changes.ASSIGNMENT)
        core.revoke(connection, *domain.holding(connection, prior_role_id))
    core.db.transact(store)


@routes.get('/role_inferences', rule='identity:list_role_inference_rules', default=rules.READ,
            response=kit.many_of('role_inferences', INFERENCE), summary='List all implications')
def inferences(req):
    """List every role that implies others."""
    with req.db.read() as connection:
        rows = {row.id: row for row in connection.execute(sa.select(roles))}
        pairs = connection.execute(sa.select(implied_roles).order_by(implied_roles.c.prior_id, implied_roles.c.implied_id)).all()
    found = {}
    for row in pairs:
        found.setdefault(row.prior_id, []).append(_link(req, rows[row.implied_id]))
    return {'role_inferences': [{'prior_role': _link(req, rows[prior]), 'implies': implied} for prior, implied in found.items()],
            'links': {'self': req.url}}
