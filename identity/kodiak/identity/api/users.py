"""Users."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import directory, domain_options, notices, people, roles, times
from ..models import directory_entries, federated_identities, protocols, users
from . import kit, rules

routes = api.Routes('users', '/v3')

KNOWN = ('name', 'domain_id', 'enabled', 'default_project_id', 'options')
HIDDEN = (*KNOWN, 'federated', 'password', 'original_password', 'password_expires_at')
OPTION = {'type': ['boolean', 'null']}
OPTIONS = schema.obj({
    'ignore_change_password_upon_first_use': OPTION, 'ignore_password_expiry': OPTION,
    'ignore_lockout_failure_attempts': OPTION, 'ignore_user_inactivity': OPTION, 'lock_password': OPTION,
    'multi_factor_auth_enabled': OPTION,
    'multi_factor_auth_rules': {'anyOf': [{'type': 'null'}, schema.array(
        schema.array({'type': 'string'}, minItems=1, uniqueItems=True), uniqueItems=True)]}})
FIELDS = {
    'name': kit.NAME, 'domain_id': schema.nullable(kit.ID), 'default_project_id': schema.nullable(kit.ID), 'enabled': kit.FLAG,
    'password': {'type': ['string', 'null']}, 'description': kit.TEXT, 'email': kit.TEXT, 'options': OPTIONS,
    'federated': schema.array(schema.obj({
        'idp_id': kit.NAME, 'protocols': schema.array(schema.obj({'protocol_id': kit.NAME, 'unique_id': kit.NAME},
                                                                 ['protocol_id', 'unique_id']), minItems=1)},
        ['idp_id', 'protocols']))}
SHOWN = {'id': schema.STRING, 'name': schema.STRING, 'domain_id': schema.STRING, 'enabled': kit.FLAG, 'options': schema.ANY,
         'password_expires_at': schema.TEXT}


def _expires(values):
    operator, _, moment = values[-1].partition(':') if values[-1].split(':', 1)[0] in ('lt', 'lte', 'gt', 'gte', 'eq', 'neq') \
        else ('eq', '', values[-1])
    column, value = users.c.password_expires_at, times.parse(moment, 'password_expires_at')
    return {'lt': column < value, 'lte': column <= value, 'gt': column > value, 'gte': column >= value, 'eq': column == value,
            'neq': column != value}[operator]


def _federated(name):
    def condition(values):
        return users.c.id.in_(sa.select(federated_identities.c.user_id).where(federated_identities.c[name] == values[-1]))
    return condition


HOW = kit.listing_of(users.c.id, {
    **kit.text_filters(name=users.c.name), 'domain_id': users.c.domain_id, 'enabled': kit.flag_filter(users.c.enabled),
    'password_expires_at': _expires, **{name: _federated(name) for name in ('idp_id', 'protocol_id',
                                                                            'unique_id')}}, {'name': users.c.name})


def view(prefix, row):
    """A user as the API shows it; ``prefix`` is the URL of the users."""
    found = {'id': row.id, 'name': row.name, 'domain_id': row.domain_id, 'enabled': row.enabled,
             'password_expires_at': times.stamp(row.password_expires_at), 'options': row.options}
    if row.default_project_id is not None:
        found['default_project_id'] = row.default_project_id
    if row.extra:
        found.update(row.extra)
    found['links'] = {'self': prefix + row.id}
    return found


def viewer(req):
    """:func:`view` for this request."""
    prefix, today = req.base_url + '/v3/users/', req.app.conf.security_compliance.disable_user_account_days_inactive
    if not today:
        return lambda row: view(prefix, row)

    def shown(row):
        found = view(prefix, row)
        found['enabled'] = found['enabled'] and not people.inactive(req.app.conf, row._mapping)
        return found
    return shown


_ONE = sa.select(users).where(users.c.id == sa.bindparam('user_id'))


def load(req, user_id):
    """The user as a policy target."""
    row = _read(req, user_id)
    if row is not None and row.kind in (directory.LDAP, directory.GONE):
        row = _read(req, user_id) if cores.of(req).directories.refresh_user(row) else None
    return target_of(req, row, user_id)


def _read(req, user_id):
    with req.db.read() as connection:
        return connection.execute(_ONE, {'user_id': user_id}).first()


def target_of(req, row, user_id):
    """The policy target of a user's row; a row that isn't there is 404 for those who may see all, else 403."""
    if row is None:
        kit.missing(req, f'Could not find user: {user_id}.')
    req.row = row
    return {'target.user.id': row.id, 'user_id': row.id, 'target.user.domain_id': row.domain_id}


@routes.get('/users', rule='identity:list_users', default=rules.LIST, late=True, query=kit.parameters(HOW),
            response=kit.many_of('users', SHOWN), summary='List users')
def list_users(req):
    """List users; a token of a domain sees that domain's."""
    domain_id = kit.list_domain(req)
    req.authorize({'target.domain_id': domain_id})
    if domain_id:
        cores.of(req).directories.refresh_users(domain_id, (req.query.get('name') or [None])[-1])
    select = sa.select(users).where(users.c.kind != directory.GONE)
    if req.ctx.domain_id:
        select = select.where(users.c.domain_id == req.ctx.domain_id)
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'users', viewer(req),
                        most=domain_options.list_limit(connection, domain_id))


@routes.post('/users', rule='identity:create_user', default=rules.USER_WRITE, late=True, status=201, summary='Create a user',
             body=kit.body('user', FIELDS, ['name']), response=kit.one_of('user', SHOWN))
def create(req):
    """Create a user."""
    core, asked = cores.of(req), req.body['user']
    domain_id = asked.get('domain_id') or kit.own_domain(req)
    req.authorize({'target.user.domain_id': domain_id})
    password = asked.get('password')
    if password is not None:
        people.check_strength(core, password)
    if core.directories.at(domain_id) is not None:
        return {'user': viewer(req)(_created_in_directory(core, domain_id, asked))}
    hashed = core.hasher.hash(password) if password is not None else None
    row = {'id': db.new_hex(), 'name': kit.clean(asked['name']), 'domain_id': domain_id, 'kind': 'local',
           'enabled': asked.get('enabled', True), 'default_project_id': asked.get('default_project_id'),
           'extra': kit.extra_of(asked, HIDDEN), 'options': kit.with_options({'options': {}}, asked), 'created_at': db.utcnow(),
           'failed_count': 0}

    def store(connection):
        domain = roles.place(core, connection, domain_id)
        if domain is None or not domain.row['is_domain']:
            raise errors.NotFound(f'Could not find domain: {domain_id}.')
        _check_default_project(core, connection, row['default_project_id'])
        connection.execute(users.insert().values(row))
        if hashed:
            people.add_password(core, connection, row, hashed, self_service=False)
        if asked.get('federated'):
            _set_federated(connection, row['id'], asked['federated'])
        notices.tell(connection, 'user', 'created', row['id'])
        return connection.execute(sa.select(users).where(users.c.id == row['id'])).one()
    return {'user': _with_federated(req, _stored(core, store, row['name']))}


def _created_in_directory(core, domain_id, asked):
    with core.db.read() as connection:
        _check_default_project(core, connection, asked.get('default_project_id'))
    user_id = core.directories.create_user(domain_id, kit.clean(asked['name']), asked.get('enabled', True), asked.get('password'),
                                           kit.extra_of(asked, HIDDEN))
    return core.db.transact(_keep, user_id, asked, 'created')


def _keep(connection, user_id, asked, what):
    """Store what a directory doesn't keep of its users: their options, their default project, attributes it doesn't know."""
    row = connection.execute(_ONE, {'user_id': user_id}).one()
    values = {'options': kit.with_options(row._mapping, asked), 'extra': {**kit.extra_of(asked, HIDDEN), **row.extra}}
    if 'default_project_id' in asked:
        values['default_project_id'] = asked['default_project_id']
    connection.execute(sa.update(users).where(users.c.id == user_id).values(values))
    notices.tell(connection, 'user', what, user_id)
    return connection.execute(_ONE, {'user_id': user_id}).one()


def _unlock(connection, user_id):
    """End a lockout; whoever was disabled for its absence has been seen today."""
    connection.execute(sa.update(users).where(users.c.id == user_id).values(
        failed_count=0, failed_at=None, last_active_on=db.utcnow().date()))


def _set_federated(connection, user_id, asked):
    table = federated_identities
    connection.execute(sa.delete(table).where(table.c.user_id == user_id))
    for provider in asked:
        for protocol in provider['protocols']:
            if connection.execute(sa.select(protocols.c.id).where(protocols.c.idp_id == provider['idp_id'],
                                                                  protocols.c.id == protocol['protocol_id'])).first() is None:
                raise errors.BadRequest(f"Could not find federated protocol {protocol['protocol_id']} for Identity Provider: "
                                        f"{provider['idp_id']} (user.federated).")
            connection.execute(table.insert().values(idp_id=provider['idp_id'], user_id=user_id, **protocol))
    kind = 'federated' if asked else 'local'
    connection.execute(sa.update(users).where(users.c.id == user_id).values(kind=kind))


def _with_federated(req, row):
    found = viewer(req)(row)
    if row.kind == 'federated':
        with req.db.read() as connection:
            providers = {}
            for each in connection.execute(sa.select(federated_identities).where(federated_identities.c.user_id == row.id)):
                providers.setdefault(each.idp_id, []).append({'protocol_id': each.protocol_id, 'unique_id': each.unique_id})
        found['federated'] = [{'idp_id': name, 'protocols': listed} for name, listed in providers.items()]
    return found


def _stored(core, store, name):
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('user', name) from None
        raise


def _check_default_project(core, connection, project_id):
    if project_id is not None:
        where = roles.place(core, connection, project_id)
        if where is not None and where.row['is_domain']:
            raise errors.BadRequest("User's default project must not be a domain (user.default_project_id).")


@routes.get('/users/{user_id}', rule='identity:get_user', default=rules.USER_READ, load=load, response=kit.one_of('user', SHOWN),
            summary='Show a user')
def show(req, user_id):
    """Show a user."""
    return {'user': _with_federated(req, req.row)}


@routes.patch('/users/{user_id}', rule='identity:update_user', default=rules.USER_WRITE, load=load,
              body=kit.body('user', FIELDS), response=kit.one_of('user', SHOWN), summary='Update a user')
def update(req, user_id):
    """Change a user; a new password or ``enabled: false`` revokes its tokens."""
    core, asked = cores.of(req), req.body['user']
    kit.same_id(user_id, asked.get('id'))
    if asked.get('domain_id') is not None and asked['domain_id'] != req.row.domain_id:
        raise errors.BadRequest('Cannot change Domain ID (user.domain_id).')
    values = kit.merged(req.row._mapping, asked, ('enabled', 'default_project_id'), HIDDEN)
    if 'name' in asked:
        values['name'] = kit.clean(asked['name'])
    if asked.get('options'):
        values['options'] = kit.with_options(req.row._mapping, asked)
    password = asked.get('password')
    if password is not None:
        people.check_strength(core, password, req.row._mapping)
    if req.row.kind == directory.LDAP:
        with core.db.read() as connection:
            _check_default_project(core, connection, values.get('default_project_id'))
        if asked.get('enabled') is True and req.row.enabled:
            # The directory has nothing to change: what can be meant is the lockout, and that is ours.
            core.db.transact(_unlock, user_id)
            asked = {name: value for name, value in asked.items() if name != 'enabled'}
        rest = core.directories.update_user(req.row, {**asked, **({'name': values['name']} if 'name' in asked else {})})
        return {'user': viewer(req)(core.db.transact(_keep, user_id, rest, 'updated'))}
    hashed = core.hasher.hash(password) if password is not None else None

    def store(connection):
        _check_default_project(core, connection, values.get('default_project_id'))
        if values:
            connection.execute(sa.update(users).where(users.c.id == user_id).values(values))
        if connection.execute(sa.select(users.c.id).where(users.c.id == user_id)).first() is None:
            raise errors.NotFound(f'Could not find user: {user_id}.')
        if 'federated' in asked:
            _set_federated(connection, user_id, asked['federated'])
        if values.get('enabled') is True:
            _unlock(connection, user_id)
        row = connection.execute(sa.select(users).where(users.c.id == user_id)).one()
        if hashed:
            people.add_password(core, connection, row._mapping, hashed, self_service=False)
            row = connection.execute(sa.select(users).where(users.c.id == user_id)).one()
        if hashed or values.get('enabled') is False:
            core.revoke(connection, {'user_id': user_id})
        notices.tell(connection, 'user', 'updated', user_id)
        if values.get('enabled') is False and req.row.enabled:
            notices.tell(connection, 'user', 'disabled', user_id)
        return row
    return {'user': _with_federated(req, _stored(core, store, values.get('name')))}


@routes.delete('/users/{user_id}', rule='identity:delete_user', default=rules.USER_WRITE, load=load, summary='Delete a user')
def delete(req, user_id):
    """Delete a user with all that it owns; its tokens are revoked."""
    core = cores.of(req)
    if req.row.kind == directory.LDAP:
        core.directories.delete_user(req.row)

    def remove(connection):
        people.forget(core, connection, [user_id])
        connection.execute(sa.delete(directory_entries).where(directory_entries.c.id == user_id))
        connection.execute(sa.delete(users).where(users.c.id == user_id))
    core.db.transact(remove)


@routes.post('/users/{user_id}/password', public=True, status=204, summary='Change the own password',
             body=kit.body('user', {'password': {'type': 'string'}, 'original_password': {'type': 'string'}},
                           ['password', 'original_password']))
def change_password(req, user_id):
    """Change the own password; the old one is what proves who asks, so an expired one can be changed too."""
    core, asked = cores.of(req), req.body['user']
    with req.db.read() as connection:
        user = people.by_id(connection, user_id)
    if user is None:
        core.hasher.waste(asked['original_password'])
        raise errors.Unauthorized()
    people.change_password(core, user, asked['original_password'], asked['password'])
