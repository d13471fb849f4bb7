"""Version 2.0: what administrators manage: tenants, users, roles, services, endpoints. Each is done as version 3 does it."""
import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import changes, directory, notices
from .. import core as cores
from .. import roles as domain
from ..models import assignments, endpoints, projects, roles, services, users
from . import catalog, grants, kit, rules
from . import projects as project_api
from . import roles as role_api
from . import users as user_api
from .v2_tokens import DOMAIN, listed, tenant_view
from .v2_tokens import TENANT as TENANT_SHOWN

routes = api.Routes('version 2.0, administration', '/v2.0')

ROLE_SHOWN = schema.obj({'id': schema.STRING, 'name': schema.STRING}, ['id', 'name'])
USER_SHOWN = schema.obj({'id': schema.STRING, 'name': schema.STRING, 'username': schema.STRING, 'enabled': kit.FLAG,
                         'email': schema.TEXT, 'tenantId': schema.STRING}, ['id', 'name', 'enabled'])
SERVICE_SHOWN = schema.obj({'id': schema.STRING, 'type': schema.STRING, 'name': schema.TEXT, 'description': schema.TEXT},
                           ['id', 'type'])
ENDPOINT_SHOWN = schema.obj({'id': schema.STRING, 'region': schema.TEXT, 'service_id': schema.STRING, 'enabled': kit.FLAG,
                             **dict.fromkeys(('publicurl', 'internalurl', 'adminurl'), schema.TEXT)}, ['id', 'service_id'])
TENANT = kit.body('tenant', {'name': kit.SHORT_NAME, 'description': kit.TEXT, 'enabled': kit.FLAG})
USER = kit.body('user', {'name': {'type': 'string', 'maxLength': 255}, 'username': {'type': 'string', 'maxLength': 255},
                         'password': {'type': ['string', 'null']}, 'enabled': kit.FLAG, 'email': kit.TEXT,
                         'tenantId': {'type': ['string', 'null']}})


def user_view(shown):
    """A user of version 3 as version 2.0 shows it."""
    found = {name: shown[name] for name in ('id', 'name', 'enabled') if name in shown}
    found.update(username=shown['name'], email=shown.get('email'))
    if shown.get('default_project_id'):
        found['tenantId'] = shown['default_project_id']
    return found


def load_user(req, user_id):
    """A user of the default domain as a policy target."""
    found = user_api.load(req, user_id)
    if req.row.domain_id != DOMAIN:
        raise errors.NotFound(f'Could not find user: {user_id}.')
    return found


def load_tenant(req, tenant_id):
    """A project of the default domain as a policy target."""
    found = project_api.load(req, tenant_id)
    if req.row.domain_id != DOMAIN:
        raise errors.NotFound(f'Could not find project: {tenant_id}.')
    return found


@routes.get('/tenants/{tenant_id}', rule='identity:get_project', default=rules.PROJECT_READ, load=load_tenant,
            response=schema.wrap('tenant', TENANT_SHOWN), summary='Show a tenant')
def show_tenant(req, tenant_id):
    """Show a tenant."""
    return {'tenant': tenant_view(req.row)}


@routes.post('/tenants', rule='identity:create_project', default=rules.PROJECT_WRITE, late=True, body=TENANT,
             response=schema.wrap('tenant', TENANT_SHOWN), summary='Create a tenant')
def create_tenant(req):
    """Create a tenant."""
    asked = req.body['tenant']
    if 'name' not in asked:
        raise errors.BadRequest('Name field is required and cannot be empty (tenant.name).')
    req.body = {'project': {**asked, 'domain_id': DOMAIN, 'parent_id': None, 'is_domain': False}}
    return {'tenant': _tenant(project_api.create(req)['project'])}


def _tenant(shown):
    return {name: value for name, value in shown.items()
            if name not in ('domain_id', 'parent_id', 'is_domain', 'links', 'tags', 'options')}


def _update_tenant(req, tenant_id):
    req.body = {'project': req.body['tenant']}
    return {'tenant': _tenant(project_api.update(req, tenant_id)['project'])}


routes.post('/tenants/{tenant_id}', rule='identity:update_project', default=rules.PROJECT_WRITE, load=load_tenant, body=TENANT,
            response=schema.wrap('tenant', TENANT_SHOWN), summary='Update a tenant')(_update_tenant)
routes.put('/tenants/{tenant_id}', rule='identity:update_project', default=rules.PROJECT_WRITE, load=load_tenant, body=TENANT,
           response=schema.wrap('tenant', TENANT_SHOWN), summary='Update a tenant')(_update_tenant)


@routes.delete('/tenants/{tenant_id}', rule='identity:delete_project', default=rules.PROJECT_WRITE, load=load_tenant,
               summary='Delete a tenant')
def delete_tenant(req, tenant_id):
    """Delete a tenant."""
    project_api.delete(req, tenant_id)


@routes.get('/tenants/{tenant_id}/users', rule='identity:list_users', default=rules.LIST, load=load_tenant,
            response=listed('users', USER_SHOWN), summary='List users of a tenant')
def tenant_users(req, tenant_id):
    """List the users that have a role in a tenant."""
    inside = sa.select(assignments.c.actor_id).where(assignments.c.actor_kind == 'user', assignments.c.target_id == tenant_id,
                                                     assignments.c.target_kind == 'project')
    with req.db.read() as connection:
        rows = connection.execute(sa.select(users).where(users.c.id.in_(inside), users.c.kind != directory.GONE)
                                  .order_by(users.c.id)).all()
    return {'users': [user_view(user_api.view('', row)) for row in rows], 'users_links': []}


@routes.get('/users', rule='identity:list_users', default=rules.LIST, late=True, query=kit.parameters(user_api.HOW),
            response=listed('users', USER_SHOWN, 'user'), summary='List users')
def list_users(req):
    """List users, or with ``name`` show one."""
    req.authorize({'target.domain_id': req.ctx.domain_id})
    cores.of(req).directories.refresh_users(DOMAIN, (req.query.get('name') or [None])[-1])
    select = sa.select(users).where(users.c.domain_id == DOMAIN, users.c.kind != directory.GONE)
    with req.db.read() as connection:
        rows, _ = user_api.HOW.page(connection, select, req.query)
    found = [user_view(user_api.view('', row)) for row in rows]
    if 'name' in req.query:
        if not found:
            raise errors.NotFound(f"Could not find user: {req.query['name'][-1]}.")
        return {'user': found[0]}
    return {'users': found, 'users_links': []}


@routes.get('/users/{user_id}', rule='identity:get_user', default=rules.USER_READ, load=load_user,
            response=schema.wrap('user', USER_SHOWN), summary='Show a user')
def show_user(req, user_id):
    """Show a user."""
    return {'user': user_view(user_api.show(req, user_id)['user'])}


def _v3_user(asked):
    found = {name: value for name, value in asked.items() if name not in ('username', 'tenantId', 'id')}
    if 'name' not in found and asked.get('username'):
        found['name'] = asked['username']
    if asked.get('tenantId'):
        found['default_project_id'] = asked['tenantId']
    return found


@routes.post('/users', rule='identity:create_user', default=rules.USER_WRITE, late=True, body=USER,
             response=schema.wrap('user', USER_SHOWN), summary='Create a user')
def create_user(req):
    """Create a user; in its tenant it becomes a member."""
    asked = _v3_user(req.body['user'])
    if not asked.get('name'):
        raise errors.BadRequest('Name field is required and cannot be empty (user.name).')
    req.body = {'user': {**asked, 'domain_id': DOMAIN}}
    made = user_api.create(req)['user']
    if asked.get('default_project_id'):
        _join(req, made['id'], asked['default_project_id'])
    return {'user': user_view(made)}


def _join(req, user_id, tenant_id):
    """In version 2.0 a user's tenant is one that it is in."""
    def store(connection):
        role_id = connection.execute(sa.select(roles.c.id).where(roles.c.name == 'member', roles.c.domain_id == '')).scalar()
        known = connection.execute(sa.select(projects.c.id).where(projects.c.id == tenant_id)).scalar()
        key = {'actor_kind': 'user', 'actor_id': user_id, 'target_kind': 'project', 'target_id': tenant_id, 'role_id': role_id,
               'inherited': False}
        if role_id and known and connection.execute(sa.select(assignments.c.role_id).where(*grants.where(key))).first() is None:
            connection.execute(assignments.insert().values(key))
            changes.bump(connection, changes.ASSIGNMENT)
            notices.assignment(connection, 'created', key)
    cores.of(req).db.transact(store)


def _update_user(req, user_id):
    asked = _v3_user(req.body['user'])
    req.body = {'user': asked}
    found = user_api.update(req, user_id)['user']
    if asked.get('default_project_id'):
        _join(req, user_id, asked['default_project_id'])
    return {'user': user_view(found)}


for _path in ('/users/{user_id}', '/users/{user_id}/OS-KSADM/password', '/users/{user_id}/OS-KSADM/enabled',
              '/users/{user_id}/OS-KSADM/tenant'):
    routes.put(_path, rule='identity:update_user', default=rules.USER_WRITE, load=load_user, body=USER,
               response=schema.wrap('user', USER_SHOWN), summary='Update a user')(_update_user)


@routes.delete('/users/{user_id}', rule='identity:delete_user', default=rules.USER_WRITE, load=load_user, summary='Delete a user')
def delete_user(req, user_id):
    """Delete a user."""
    user_api.delete(req, user_id)


@routes.patch('/OS-KSCRUD/users/{user_id}', public=True, summary='Change the own password', status=200,
              body=kit.body('user', {'password': schema.STRING, 'original_password': schema.STRING},
                            ['password', 'original_password']))
def own_password(req, user_id):
    """Change the own password."""
    user_api.change_password(req, user_id)
    return {}


def load_role(req, role_id):
    """A role of all domains as a policy target: version 2.0 knows no others."""
    found = role_api.load(req, role_id)
    if req.row.domain_id:
        raise errors.NotFound(f'Could not find role: {role_id}.')
    return found


@routes.get('/OS-KSADM/roles', rule='identity:list_roles', default=role_api.LIST,
            response=listed('roles', ROLE_SHOWN), summary='List roles')
def list_roles(req):
    """List roles."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(roles).where(roles.c.domain_id == '').order_by(roles.c.id)).all()
    return {'roles': [{'id': row.id, 'name': row.name} for row in rows], 'roles_links': []}


@routes.post('/OS-KSADM/roles', rule='identity:create_role', default=rules.ADMIN,
             body=kit.body('role', {'name': kit.NAME}, ['name']),
             response=schema.wrap('role', ROLE_SHOWN), summary='Create a role')
def create_role(req):
    """Create a role."""
    made = role_api.create(req)['role']
    return {'role': {'id': made['id'], 'name': made['name']}}


@routes.get('/OS-KSADM/roles/{role_id}', rule='identity:get_role', default=role_api.SHOW, load=load_role,
            response=schema.wrap('role', ROLE_SHOWN), summary='Show a role')
def show_role(req, role_id):
    """Show a role."""
    return {'role': {'id': req.row.id, 'name': req.row.name}}


@routes.delete('/OS-KSADM/roles/{role_id}', rule='identity:delete_role', default=rules.ADMIN, load=load_role,
               summary='Delete a role')
def delete_role(req, role_id):
    """Delete a role."""
    role_api.delete(req, role_id)


ROLES = '/tenants/{target_id}/users/{actor_id}/roles'
_load_grant = grants.loader('user', 'project')


@routes.get(ROLES, rule='identity:list_grants', default=grants.READ, load=_load_grant,
            response=listed('roles', ROLE_SHOWN), summary='List roles of a user in a tenant')
def list_grants(req, target_id, actor_id):
    """List the roles of a user in a tenant, implied ones too."""
    core = cores.of(req)
    with req.db.read() as connection:
        held = domain.in_project(core, connection, actor_id, domain.place(core, connection, target_id))
    return {'roles': [{'id': role_id, 'name': name} for role_id, name in held], 'roles_links': []}


@routes.put(ROLES + '/OS-KSADM/{role_id}', rule='identity:create_grant', default=grants.WRITE, load=_load_grant,
            response=schema.wrap('role', ROLE_SHOWN), summary='Give a user a role in a tenant')
def give(req, target_id, actor_id, role_id):
    """Give a user a role in a tenant."""
    grants.give(req, grants.key('user', actor_id, 'project', target_id, role_id))
    return {'role': {'id': role_id, 'name': req.row.name}}


@routes.delete(ROLES + '/OS-KSADM/{role_id}', rule='identity:revoke_grant', default=grants.WRITE, load=_load_grant,
               summary='Take a role in a tenant from a user')
def take(req, target_id, actor_id, role_id):
    """Take a role in a tenant from a user."""
    grants.take(req, grants.key('user', actor_id, 'project', target_id, role_id))


def service_view(row):
    """A service as version 2.0 shows it."""
    return {'id': row.id, 'type': row.type, 'name': row.name, 'description': row.extra.get('description')}


@routes.get('/OS-KSADM/services', rule='identity:list_services', default=rules.READ,
            response=schema.wrap('OS-KSADM:services', schema.array(SERVICE_SHOWN)), summary='List services')
def list_services(req):
    """List services."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(services).order_by(services.c.id)).all()
    return {'OS-KSADM:services': [service_view(row) for row in rows]}


@routes.post('/OS-KSADM/services', rule='identity:create_service', default=rules.ADMIN,
             response=schema.wrap('OS-KSADM:service', SERVICE_SHOWN), summary='Create a service',
             body=kit.body('OS-KSADM:service', catalog.SERVICE, ['type']))
def create_service(req):
    """Create a service."""
    req.body = {'service': req.body['OS-KSADM:service']}
    made = catalog.create_service(req)['service']
    return {'OS-KSADM:service': {'id': made['id'], 'type': made['type'], 'name': made.get('name'),
                                 'description': made.get('description')}}


@routes.get('/OS-KSADM/services/{service_id}', rule='identity:get_service', default=rules.READ, load=catalog.load_service,
            response=schema.wrap('OS-KSADM:service', SERVICE_SHOWN), summary='Show a service')
def show_service(req, service_id):
    """Show a service."""
    return {'OS-KSADM:service': service_view(req.row)}


@routes.delete('/OS-KSADM/services/{service_id}', rule='identity:delete_service', default=rules.ADMIN, load=catalog.load_service,
               summary='Delete a service')
def delete_service(req, service_id):
    """Delete a service."""
    catalog.delete_service(req, service_id)


def _triples(rows):
    """Endpoints of version 3 as those of version 2.0: one for all interfaces of a service in a region."""
    found = {}
    for row in rows:
        triple = found.setdefault(row.extra.get('legacy_endpoint_id') or row.id, {
            'id': row.extra.get('legacy_endpoint_id') or row.id, 'region': row.region_id, 'service_id': row.service_id,
            'enabled': row.enabled, 'publicurl': None, 'internalurl': None, 'adminurl': None})
        triple[row.interface + 'url'] = row.url
    return list(found.values())


@routes.get('/endpoints', rule='identity:list_endpoints', default=rules.READ,
            response=listed('endpoints', ENDPOINT_SHOWN), summary='List endpoints')
def list_endpoints(req):
    """List endpoints."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(endpoints).order_by(endpoints.c.id)).all()
    return {'endpoints': _triples(rows), 'endpoints_links': []}


@routes.post('/endpoints', rule='identity:create_endpoint', default=rules.ADMIN,
             response=schema.wrap('endpoint', ENDPOINT_SHOWN), summary='Create an endpoint',
             body=kit.body('endpoint',
                           {'service_id': kit.ID, 'region': kit.TEXT, 'publicurl': kit.URL, 'internalurl': schema.nullable(kit.URL),
                                        'adminurl': schema.nullable(kit.URL)}, ['service_id', 'publicurl']))
def create_endpoint(req):
    """Create an endpoint with its public, internal and administrators' URL."""
    asked, legacy = req.body['endpoint'], db.new_hex()
    for interface in ('public', 'internal', 'admin'):
        if asked.get(interface + 'url'):
            req.body = {'endpoint': {'service_id': asked['service_id'], 'region': asked.get('region'), 'interface': interface,
                                     'url': asked[interface + 'url'], 'legacy_endpoint_id': legacy}}
            catalog.create_endpoint(req)
    with req.db.read() as connection:
        rows = connection.execute(sa.select(endpoints).where(endpoints.c.service_id == asked['service_id'])).all()
    return {'endpoint': next(each for each in _triples(rows) if each['id'] == legacy)}


@routes.delete('/endpoints/{endpoint_id}', rule='identity:delete_endpoint', default=rules.ADMIN, summary='Delete an endpoint')
def delete_endpoint(req, endpoint_id):
    """Delete an endpoint with all its URLs."""
    def store(connection):
        rows = connection.execute(sa.select(endpoints)).all()
        ids = [row.id for row in rows if endpoint_id in (row.id, row.extra.get('legacy_endpoint_id'))]
        if not ids:
            raise errors.NotFound(f'Could not find endpoint: {endpoint_id}.')
        connection.execute(sa.delete(endpoints).where(endpoints.c.id.in_(ids)))
        changes.bump(connection, changes.CATALOG)
        for each in ids:
            notices.tell(connection, 'endpoint', 'deleted', each)
    cores.of(req).db.transact(store)
