"""Application credentials and their access rules."""
import secrets

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import notices, passwords, roles, times
from ..models import access_rules, app_credential_rules, app_credentials
from ..models import roles as role_table
from . import delegation, kit, rules
from . import users as user_api

routes = api.Routes('application credentials', '/v3')

PATH = '/users/{user_id}/application_credentials'
RULES_PATH = '/users/{user_id}/access_rules'
RULE = schema.obj({'id': kit.ID, 'path': {'type': 'string', 'minLength': 1, 'maxLength': 128, 'pattern': '^/'},
                   'method': {'type': 'string', 'pattern': '^(POST|GET|HEAD|PATCH|PUT|DELETE)$'},
                   'service': {'type': 'string', 'minLength': 1, 'maxLength': 64}})
FIELDS = {
    'name': kit.NAME, 'description': kit.TEXT, 'secret': {'type': ['string', 'null'], 'minLength': 1, 'maxLength': 4096},
    'expires_at': {'type': ['string', 'null']}, 'unrestricted': kit.FLAG, 'access_rules': schema.array(RULE),
    'roles': schema.array(schema.obj({'id': kit.ID, 'name': kit.NAME}, extra=True))}
HOW = kit.listing_of(app_credentials.c.id, kit.text_filters(name=app_credentials.c.name), {'name': app_credentials.c.name})
RULES = kit.listing_of(access_rules.c.id, {'service': access_rules.c.service, 'path': access_rules.c.path,
                                           'method': access_rules.c.method})
OWNER_READS = rules.no_domain(rules.owner_reads('target.user.id'))
OWNER_WRITES = rules.no_domain(rules.owner_writes('target.user.id'))
# As in Keystone, an administrator of a project has no part in these.
RULES_READ = rules.no_domain('rule:system_reader or user_id:%(target.user.id)s')
RULES_WRITE = rules.no_domain('(role:admin and system_scope:all) or user_id:%(target.user.id)s')


def load_user(req, user_id):
    """The user of the path as a policy target; who may not look learns nothing."""
    delegation.refuse_lasting(req, 'application credentials')
    return {'user_id': user_id, 'target.user.id': user_id}


def load(req, user_id, credential_id):
    """The application credential as ``req.row``."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(app_credentials).where(app_credentials.c.id == credential_id)).first()
    # Whose it is counts, whatever user the path names.
    found = load_user(req, row.user_id if row is not None else user_id)
    if row is None or row.user_id != user_id:
        kit.missing(req, f'Could not find Application Credential: {credential_id}.', **found)
    req.row = row
    return found


def _shown(req, connection, rows):
    every = {row.id: row for row in connection.execute(sa.select(role_table))}
    found = []
    for row in rows:
        shown = {
            'id': row.id, 'name': row.name, 'description': row.description, 'user_id': row.user_id, 'project_id': row.project_id,
            'system': None, 'unrestricted': row.unrestricted, 'expires_at': times.stamp(row.expires_at),
            'roles': [{'id': each.id, 'name': each.name, 'domain_id': kit.domain_or_none(each.domain_id),
                       'description': each.description, 'options': each.options}
                      for role_id in row.role_ids if (each := every.get(role_id)) is not None],
            'links': {'self': f'{req.base_url}/v3/users/{row.user_id}/application_credentials/{row.id}'}}
        if row.restricted_access:
            of_it = connection.execute(sa.select(access_rules).join_from(app_credential_rules, access_rules).where(
                app_credential_rules.c.app_credential_id == row.id))
            shown['access_rules'] = [{'id': each.id, 'path': each.path, 'method': each.method, 'service': each.service}
                                     for each in of_it]
        found.append(shown)
    return found


@routes.get(PATH, rule='identity:list_application_credentials', default=OWNER_READS, load=load_user, query=kit.parameters(HOW),
            response=kit.many_of('application_credentials'), summary='List application credentials of a user')
def list_credentials(req, user_id):
    """List the application credentials of a user."""
    user_api.load(req, user_id)
    with req.db.read() as connection:
        rows, _ = HOW.page(connection, sa.select(app_credentials).where(app_credentials.c.user_id == user_id), req.query)
        return kit.envelope(req, 'application_credentials', _shown(req, connection, rows))


@routes.post(PATH, rule='identity:create_application_credential', load=load_user, status=201,
             default=rules.in_project('user_id:%(target.user.id)s'),
             body=kit.body('application_credential', FIELDS, ['name'], extra=False),
             response=kit.one_of('application_credential', {}, ['secret']), summary='Create an application credential')
def create(req, user_id):
    """Create an application credential for the project of the token. The secret is shown here and never again."""
    core, asked = cores.of(req), req.body['application_credential']
    if not req.ctx.project_id:
        raise errors.BadRequest('An application credential belongs to a project: use a project-scoped token.')
    secret = asked.get('secret')
    hashed = core.hasher.hash(secret) if secret else None
    if secret is None:
        secret = secrets.token_urlsafe(64)
        hashed = passwords.fast_hash(secret)
    row = {'id': db.new_hex(), 'user_id': user_id, 'project_id': req.ctx.project_id, 'name': asked['name'],
           'description': asked.get('description'), 'secret_hash': hashed, 'unrestricted': asked.get('unrestricted', False),
           'expires_at': times.future(asked['expires_at'], 'expires_at') if asked.get('expires_at') else None,
           'role_ids': _roles(core, req, asked.get('roles')), 'created_at': db.utcnow(),
           'restricted_access': asked.get('access_rules') is not None}

    def store(connection):
        _check_limit(core, connection, user_id)
        connection.execute(app_credentials.insert().values(row))
        for rule in asked.get('access_rules') or ():
            connection.execute(app_credential_rules.insert().values(
                app_credential_id=row['id'], access_rule_id=_rule(connection, user_id, rule)))
        notices.tell(connection, 'application_credential', 'created', row['id'])
        made = connection.execute(sa.select(app_credentials).where(app_credentials.c.id == row['id'])).one()
        return _shown(req, connection, [made])[0]
    try:
        shown = core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('application_credential', asked['name']) from None
        raise
    shown['secret'] = secret
    return {'application_credential': shown}


def _check_limit(core, connection, user_id):
    limit = core.conf.credential.user_limit
    if limit >= 0 and connection.execute(sa.select(sa.func.count()).where(app_credentials.c.user_id == user_id)).scalar() >= limit:
        raise errors.Forbidden(f'Unable to create additional application credentials, maximum of {limit} already exceeded.')


def _roles(core, req, asked):
    """Ids of the roles that are delegated: those asked for, all of the token's otherwise."""
    held = dict(delegation.claims(req).roles)
    if not asked:
        return list(held)
    with req.db.read() as connection:
        graph = roles.graph(core, connection)
        if not delegation.delegated(req):
            # Roles that the user was given after the token was issued count as well.
            held = dict(roles.in_project(core, connection, req.ctx.user_id, roles.place(core, connection, req.ctx.project_id)))
    found = []
    for each in asked:
        role_id = each.get('id')
        if role_id is None:
            role_id = next((key for key, name in graph.names.items() if name == each.get('name') and not graph.domains[key]), None)
        if role_id not in graph.names:
            raise errors.NotFound(f"Could not find role: {each.get('id') or each.get('name')}.")
        if role_id not in held:
            raise errors.BadRequest(f'Invalid application credential: the user has no role {graph.names[role_id]} in the project '
                                    '(application_credential.roles).')
        found.append(role_id)
    return list(dict.fromkeys(found))


def _rule(connection, user_id, rule):
    if rule.get('id') and len(rule) == 1:
        if connection.execute(sa.select(access_rules.c.id).where(access_rules.c.id == rule['id'],
                                                                 access_rules.c.user_id == user_id)).first() is None:
            raise errors.NotFound(f"Could not find Access Rule: {rule['id']}.")
        return rule['id']
    if not all(rule.get(name) for name in ('path', 'method', 'service')):
        raise errors.BadRequest('An access rule needs path, method and service, or the id of one that exists '
                                '(application_credential.access_rules).')
    values = {'user_id': user_id, **{name: rule[name] for name in ('service', 'method', 'path')}}
    found = connection.execute(sa.select(access_rules.c.id).where(*(access_rules.c[name] == value for name,
                                                                    value in values.items())))
    rule_id = found.scalar()
    if rule_id is None:
        rule_id = db.new_hex()
        connection.execute(access_rules.insert().values(id=rule_id, **values))
    return rule_id


@routes.get(PATH + '/{credential_id}', rule='identity:get_application_credential', default=OWNER_READS, load=load,
            response=kit.one_of('application_credential', {}), summary='Show an application credential')
def show(req, user_id, credential_id):
    """Show an application credential, without its secret."""
    with req.db.read() as connection:
        return {'application_credential': _shown(req, connection, [req.row])[0]}


@routes.delete(PATH + '/{credential_id}', rule='identity:delete_application_credential', default=OWNER_WRITES, load=load,
               summary='Delete an application credential')
def delete(req, user_id, credential_id):
    """Delete an application credential; its tokens are revoked."""
    core = cores.of(req)

    def store(connection):
        connection.execute(sa.delete(app_credentials).where(app_credentials.c.id == credential_id))
        core.revoke(connection, {'app_cred_id': credential_id})
        notices.tell(connection, 'application_credential', 'deleted', credential_id)
    core.db.transact(store)


def rule_view(req, row):
    """An access rule as the API shows it."""
    return {'id': row.id, 'path': row.path, 'method': row.method, 'service': row.service,
            'links': {'self': f'{req.base_url}/v3/users/{row.user_id}/access_rules/{row.id}'}}


def load_rule(req, user_id, rule_id):
    """The access rule as ``req.row``."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(access_rules).where(access_rules.c.id == rule_id,
                                                               access_rules.c.user_id == user_id)).first()
    found = load_user(req, user_id)
    if row is None:
        kit.missing(req, f'Could not find Access Rule: {rule_id}.', **found)
    req.row = row
    return found


@routes.get(RULES_PATH, rule='identity:list_access_rules', default=RULES_READ, load=load_user, query=kit.parameters(RULES),
            response=kit.many_of('access_rules'), summary='List access rules of a user')
def list_rules(req, user_id):
    """List the access rules of a user."""
    user_api.load(req, user_id)
    with req.db.read() as connection:
        return kit.page(req, RULES, connection, sa.select(access_rules).where(access_rules.c.user_id == user_id), 'access_rules',
                        lambda row: rule_view(req, row))


@routes.get(RULES_PATH + '/{rule_id}', rule='identity:get_access_rule', default=RULES_READ, load=load_rule,
            response=kit.one_of('access_rule', {}), summary='Show an access rule')
def show_rule(req, user_id, rule_id):
    """Show an access rule."""
    return {'access_rule': rule_view(req, req.row)}


@routes.delete(RULES_PATH + '/{rule_id}', rule='identity:delete_access_rule', default=RULES_WRITE, load=load_rule,
               summary='Delete an access rule')
def delete_rule(req, user_id, rule_id):
    """Delete an access rule that no application credential uses."""
    def store(connection):
        if connection.execute(sa.select(app_credential_rules).where(app_credential_rules.c.access_rule_id == rule_id)).first():
            raise errors.Forbidden(f'The access rule {rule_id} is in use by an application credential.')
        connection.execute(sa.delete(access_rules).where(access_rules.c.id == rule_id))
        notices.tell(connection, 'access_rule', 'deleted', rule_id)
    cores.of(req).db.transact(store)
