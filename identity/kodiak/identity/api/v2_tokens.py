"""Version 2.0: logging in, tokens, the tenants of a user, versions and extensions. Users and tenants are those of ``default``."""
import orjson
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common import tokens as signed
from kodiak.common.api import schema

from .. import core as cores
from .. import issue, roles
from ..models import projects
from . import kit, rules
from . import tokens as v3
from .versions import UPDATED, older

routes = api.Routes('version 2.0', '/v2.0')

DOMAIN = 'default'
ADMIN_PORT = ':35357'
EXTENSIONS = {
    'OS-KSADM': ('OpenStack Keystone Admin', 'Managing users, tenants, roles and services.'),
    'OS-KSCRUD': ('OpenStack Keystone User CRUD', 'Changing the own password.'),
    'OS-EC2': ('OpenStack EC2 API', 'Credentials in the form of EC2.'),
}
AUTH = schema.obj({'auth': schema.obj({
    'passwordCredentials': schema.obj({'username': schema.STRING, 'userId': schema.STRING, 'password': schema.STRING}, ['password'],
                                      extra=True),
    'token': schema.obj({'id': schema.STRING}, ['id'], extra=True), 'tenantName': {'type': ['string', 'null']},
    'tenantId': {'type': ['string', 'null']}}, extra=True)}, ['auth'], extra=True)

TENANT = schema.obj({'id': schema.STRING, 'name': schema.STRING, 'enabled': kit.FLAG, 'description': schema.TEXT},
                    ['id', 'name', 'enabled', 'description'], extra=True)
ACCESS = schema.wrap('access', schema.obj({
    'token': schema.obj({'id': schema.STRING, 'expires': schema.STRING, 'tenant': TENANT}, ['id', 'expires'], extra=True),
    'user': schema.obj({'id': schema.STRING, 'name': schema.STRING, 'roles': schema.array({'type': 'object'})},
                       ['id', 'name', 'roles'], extra=True),
    'serviceCatalog': schema.array({'type': 'object'}), 'metadata': {'type': 'object'}}, ['token', 'user', 'serviceCatalog']))


def listed(name, shown, single=None):
    """The response schema of a list of version 2.0; ``single``: what it is where a filter names one."""
    found = {name: schema.array(shown), name + '_links': schema.array({'type': 'object'})}
    if single is None:
        return schema.obj(found, [name])
    return {'anyOf': [schema.obj(found, [name]), schema.wrap(single, shown)]}


ENDPOINTS = listed('endpoints', {'type': 'object'})
TENANTS = listed('tenants', TENANT, 'tenant')


@routes.get('', public=True, response=schema.wrap('version', {'type': 'object'}), summary='Version 2.0 of this API')
def version(req):
    """The document of the version."""
    return {'version': older(req)}


def _extension(alias):
    name, text = EXTENSIONS[alias]
    return {'alias': alias, 'name': name, 'description': text, 'updated': UPDATED, 'links': [],
            'namespace': f'https://docs.openstack.org/identity/api/ext/{alias}/v1.0'}


@routes.get('/extensions', public=True, summary='List extensions',
            response=schema.wrap('extensions', schema.wrap('values', schema.array({'type': 'object'}))))
def list_extensions(req):
    """List the extensions of version 2.0."""
    return {'extensions': {'values': [_extension(alias) for alias in EXTENSIONS]}}


@routes.get('/extensions/{alias}', public=True, response=schema.wrap('extension', {'type': 'object'}), summary='Show an extension')
def show_extension(req, alias):
    """Show an extension."""
    if alias not in EXTENSIONS:
        raise errors.NotFound(f'Could not find extension: {alias}.')
    return {'extension': _extension(alias)}


def access(core, text, claims, catalog=True):
    """The body of an answer about a token."""
    names = [name for _, name in claims.roles]
    token = {'id': text, 'expires': signed.iso(claims.expires)[:19] + 'Z', 'issued_at': signed.iso(claims.issued),
             'audit_ids': claims.audit_ids}
    found = {'token': token, 'user': {
        'id': claims.user_id, 'name': claims.user[1], 'username': claims.user[1], 'roles': [{'name': name} for name in names],
        'roles_links': []}, 'metadata': {'is_admin': 0, 'roles': [role_id for role_id, _ in claims.roles]},
        'serviceCatalog': _catalog(core, claims) if catalog and claims.project_id else []}
    if claims.project_id:
        token['tenant'] = {'id': claims.project_id, 'name': claims.scope[2], 'enabled': True, 'description': ''}
        with core.db.read() as connection:
            where = roles.place(core, connection, claims.project_id)
        if where is not None:
            token['tenant'].update(description=where.row['description'] or '', enabled=where.row['enabled'])
    return {'access': found}


def _catalog(core, claims):

    found = []
    for service in orjson.loads(issue.catalog_text(core, claims)):
        regions = {}
        for endpoint in service['endpoints']:
            region = regions.setdefault(endpoint['region_id'], {'region': endpoint['region_id'], 'id': endpoint['id']})
            region[endpoint['interface'] + 'URL'] = endpoint['url']
        found.append({'type': service['type'], 'name': service['name'], 'endpoints': list(regions.values()), 'endpoints_links': []})
    return found


@routes.post('/tokens', public=True, body=AUTH, response=ACCESS, summary='Log in')
def log_in(req):
    """A token for a user of the default domain, by password or by another token."""
    core, asked = cores.of(req), req.body['auth']
    if asked.get('passwordCredentials'):
        given = asked['passwordCredentials']
        user = {'id': given['userId']} if given.get('userId') else {'name': given.get('username'), 'domain': {'id': DOMAIN}}
        identity = {'methods': ['password'], 'password': {'user': {**user, 'password': given['password']}}}
    elif asked.get('token'):
        identity = {'methods': ['token'], 'token': {'id': asked['token']['id']}}
    else:
        raise errors.BadRequest('Expecting to find passwordCredentials or token in auth.')
    auth = {'identity': identity}
    if asked.get('tenantId'):
        auth['scope'] = {'project': {'id': asked['tenantId']}}
    elif asked.get('tenantName'):
        auth['scope'] = {'project': {'name': asked['tenantName'], 'domain': {'id': DOMAIN}}}
    text, claims = issue.issue(core, auth)
    of_default(claims)
    return access(core, text, claims)


def of_default(claims):
    """Refuse a token that version 2.0 cannot speak of."""
    if claims.user[2] != DOMAIN or claims.is_system or claims.domain_id or (claims.project_id and claims.scope[3] != DOMAIN):
        raise errors.Unauthorized('Version 2.0 knows users and tenants of the default domain only.')


def load_subject(req, token_id):
    """The token of the path as a policy target; ``req.subject`` is its claims."""
    req.subject = cores.of(req).state.claims(token_id)
    if req.subject is None:
        raise kit.told('Could not find token.')
    of_default(req.subject)
    wanted = req.http.args.get('belongsTo')
    if wanted and wanted != req.subject.project_id:
        raise errors.Unauthorized('The token does not belong to the specified tenant.')
    return {'target.token.user_id': req.subject.user_id}


routes.get('/tokens/revoked', rule='identity:revocation_list', default=rules.no_domain(rules.SERVICE),
           summary='List revoked tokens (gone)')(v3.revoked)
for _name in ('ca', 'signing'):
    routes.get(f'/certificates/{_name}', public=True, summary='Certificates of PKI tokens (gone)')(v3.certificates)


@routes.get('/tokens/{token_id}', rule='identity:validate_token', default=v3.SUBJECT, load=load_subject,
            response=ACCESS, summary='Validate a token')
def validate(req, token_id):
    """Validate a token, and show it."""
    return access(cores.of(req), token_id, req.subject)


@routes.delete('/tokens/{token_id}', rule='identity:revoke_token', load=load_subject, summary='Revoke a token',
               default=f'{rules.ANY_ADMIN} or user_id:%(target.token.user_id)s')
def revoke(req, token_id):
    """Revoke a token."""
    core = cores.of(req)
    core.db.transact(core.revoke, {'audit_id': req.subject.audit_id})


@routes.get('/tokens/{token_id}/endpoints', rule='identity:validate_token', default=v3.SUBJECT, load=load_subject,
            response=ENDPOINTS, summary='List endpoints for a token')
def endpoints(req, token_id):
    """The endpoints that a token's user can reach with it."""
    found = []
    for service in _catalog(cores.of(req), req.subject):
        found += [{**endpoint, 'type': service['type'], 'name': service['name']} for endpoint in service['endpoints']]
    return {'endpoints': found, 'endpoints_links': []}


def tenant_view(row):
    """A project as version 2.0 shows it."""
    return {'id': row.id, 'name': row.name, 'description': row.description or '', 'enabled': row.enabled, **row.extra}


@routes.get('/tenants', rule='identity:get_auth_projects', default=rules.ANYBODY, response=TENANTS, summary='List tenants')
def list_tenants(req):
    """The tenants of the request's user; on the port of administrators, all of them."""
    select = sa.select(projects).where(projects.c.domain_id == DOMAIN, projects.c.is_domain.is_(False))
    name = req.http.args.get('name')
    if name:
        select = select.where(projects.c.name == name)
    with req.db.read() as connection:
        if req.http.host.endswith(ADMIN_PORT) or name:
            req.authorize({'target.domain_id': req.ctx.domain_id}, rule='identity:list_projects')
        else:
            select = select.where(projects.c.id.in_(roles.reachable(connection, req.ctx.user_id)[0]), projects.c.enabled.is_(True))
        rows, _ = HOW.page(connection, select, req.query)
    if name:
        if not rows:
            raise errors.NotFound(f'Could not find project: {name}.')
        return {'tenant': tenant_view(rows[0])}
    return {'tenants': [tenant_view(row) for row in rows], 'tenants_links': []}


HOW = kit.listing_of(projects.c.id, {})
