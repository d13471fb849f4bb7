"""Groups and who is in them."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import changes, directory, domain_options, notices, roles, times
from .. import core as cores
from ..models import assignments, directory_entries, groups, members, users
from . import kit, rules
from . import users as user_api

routes = api.Routes('groups', '/v3')

KNOWN = ('name', 'domain_id', 'description')
FIELDS = {'name': kit.SHORT_NAME, 'domain_id': schema.nullable(kit.ID), 'description': kit.TEXT}
SHOWN = {'id': schema.STRING, 'name': schema.STRING, 'domain_id': schema.STRING, 'description': schema.TEXT}
HOW = kit.listing_of(groups.c.id, {**kit.text_filters(name=groups.c.name, description=groups.c.description),
                                   'domain_id': groups.c.domain_id}, {'name': groups.c.name})


def view(prefix, row):
    """A group as the API shows it; ``prefix`` is the URL of the groups."""
    return {'id': row.id, 'name': row.name, 'domain_id': row.domain_id, 'description': row.description or '', **row.extra,
            'links': {'self': prefix + row.id}}


def load(req, group_id):
    """The group as a policy target."""
    row = _read(req, group_id)
    if row is not None and row.kind in (directory.LDAP, directory.GONE):
        row = _read(req, group_id) if cores.of(req).directories.refresh_group(row) else None
    if row is None:
        raise errors.NotFound(f'Could not find group: {group_id}.')
    req.row = row
    return {'target.group.id': row.id, 'target.group.domain_id': row.domain_id}


def _read(req, group_id):
    with req.db.read() as connection:
        return connection.execute(sa.select(groups).where(groups.c.id == group_id)).first()


def load_pair(req, group_id, user_id):
    """A group and a user as a policy target."""
    found = load(req, group_id)
    with req.db.read() as connection:
        user = connection.execute(sa.select(users).where(users.c.id == user_id, users.c.kind != directory.GONE)).first()
    if user is None:
        raise errors.NotFound(f'Could not find user: {user_id}.')
    req.user_row = user
    return {**found, 'target.user.id': user.id, 'target.user.domain_id': user.domain_id}


_BOTH = 'domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s'
PAIR_READ = f'{rules.ANY_READ} or (role:reader and {_BOTH})'
PAIR_WRITE = f'{rules.ANY_ADMIN} or (role:manager and {_BOTH})'


@routes.get('/groups', rule='identity:list_groups', default=rules.LIST, late=True, query=kit.parameters(HOW),
            response=kit.many_of('groups', SHOWN), summary='List groups')
def list_groups(req):
    """List groups; a token of a domain sees that domain's."""
    domain_id = kit.list_domain(req)
    req.authorize({'target.domain_id': domain_id})
    if domain_id:
        cores.of(req).directories.refresh_groups(domain_id, (req.query.get('name') or [None])[-1])
    select, prefix = sa.select(groups).where(groups.c.kind != directory.GONE), req.base_url + '/v3/groups/'
    if req.ctx.domain_id:
        select = select.where(groups.c.domain_id == req.ctx.domain_id)
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'groups', lambda row: view(prefix, row),
                        most=domain_options.list_limit(connection, domain_id))


@routes.post('/groups', rule='identity:create_group', default=rules.GROUP_WRITE, late=True, status=201, summary='Create a group',
             body=kit.body('group', FIELDS, ['name']), response=kit.one_of('group', SHOWN))
def create(req):
    """Create a group."""
    core, asked = cores.of(req), req.body['group']
    domain_id = asked.get('domain_id') or kit.own_domain(req)
    req.authorize({'target.group.domain_id': domain_id})
    if core.directories.at(domain_id) is not None:
        more = {name: value for name, value in asked.items() if name not in ('name', 'domain_id')}
        group_id = core.directories.create_group(domain_id, kit.clean(asked['name']), more)
        core.db.transact(notices.tell, 'group', 'created', group_id)
        return {'group': view(req.base_url + '/v3/groups/', _read(req, group_id))}
    row = {'id': db.new_hex(), 'name': kit.clean(asked['name']), 'domain_id': domain_id,
           'description': asked.get('description'), 'extra': kit.extra_of(asked, KNOWN)}

    def store(connection):
        domain = roles.place(core, connection, domain_id)
        if domain is None or not domain.row['is_domain']:
            raise errors.NotFound(f'Could not find domain: {domain_id}.')
        connection.execute(groups.insert().values(row))
        notices.tell(connection, 'group', 'created', row['id'])
        return connection.execute(sa.select(groups).where(groups.c.id == row['id'])).one()
    return {'group': view(req.base_url + '/v3/groups/', _stored(core, store, row['name']))}


def _stored(core, store, name):
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise kit.conflict('group', name) from None
        raise


@routes.get('/groups/{group_id}', rule='identity:get_group', default=rules.GROUP_READ, load=load,
            response=kit.one_of('group', SHOWN), summary='Show a group')
def show(req, group_id):
    """Show a group."""
    return {'group': view(req.base_url + '/v3/groups/', req.row)}


@routes.patch('/groups/{group_id}', rule='identity:update_group', default=rules.GROUP_WRITE, load=load,
              body=kit.body('group', FIELDS), response=kit.one_of('group', SHOWN), summary='Update a group')
def update(req, group_id):
    """Change a group."""
    asked = req.body['group']
    kit.same_id(group_id, asked.get('id'))
    if asked.get('domain_id') is not None and asked['domain_id'] != req.row.domain_id:
        raise errors.BadRequest('Cannot change Domain ID (group.domain_id).')
    if req.row.kind == directory.LDAP:
        asked = cores.of(req).directories.update_group(req.row, asked)
        req.row = _read(req, group_id)
    values = kit.merged(req.row._mapping, asked, ('name', 'description'), KNOWN)

    def store(connection):
        if values:
            connection.execute(sa.update(groups).where(groups.c.id == group_id).values(values))
        notices.tell(connection, 'group', 'updated', group_id)
        return connection.execute(sa.select(groups).where(groups.c.id == group_id)).first()
    row = _stored(cores.of(req), store, values.get('name'))
    if row is None:
        raise errors.NotFound(f'Could not find group: {group_id}.')
    return {'group': view(req.base_url + '/v3/groups/', row)}


@routes.delete('/groups/{group_id}', rule='identity:delete_group', default=rules.GROUP_WRITE, load=kit.telling(load),
               summary='Delete a group')
def delete(req, group_id):
    """Delete a group; tokens of its members are revoked, for they may hold its roles."""
    core = cores.of(req)
    if req.row.kind == directory.LDAP:
        core.directories.delete_group(req.row)
    core.db.transact(lambda connection: remove(core, connection, [group_id]))


def remove(core, connection, group_ids):
    """Delete groups with their assignments."""
    for group_id in group_ids:
        had = connection.execute(sa.delete(assignments).where(assignments.c.actor_kind == 'group',
                                                              assignments.c.actor_id == group_id)).rowcount
        if had:
            inside = connection.execute(sa.select(members.c.user_id).where(members.c.group_id == group_id)).scalars().all()
            core.revoke(connection, *({'user_id': user_id} for user_id in inside))
        notices.tell(connection, 'group', 'deleted', group_id)
    connection.execute(sa.delete(directory_entries).where(directory_entries.c.id.in_(group_ids)))
    connection.execute(sa.delete(groups).where(groups.c.id.in_(group_ids)))
    changes.bump(connection, changes.ASSIGNMENT)


@routes.get('/groups/{group_id}/users', rule='identity:list_users_in_group', default=rules.GROUP_READ, load=load,
            query=user_api.HOW.parameters(), response=kit.many_of('users'), summary='List users in a group')
def list_members(req, group_id):
    """List the users in a group."""
    select = sa.select(users).join_from(users, members).where(members.c.group_id == group_id)
    if req.ctx.domain_id:
        select = select.where(users.c.domain_id == req.ctx.domain_id)
    with req.db.read() as connection:
        return kit.page(req, user_api.HOW, connection, select, 'users', user_api.viewer(req))


@routes.put('/groups/{group_id}/users/{user_id}', rule='identity:add_user_to_group', default=PAIR_WRITE, load=load_pair, status=204,
            summary='Add a user to a group')
def add_member(req, group_id, user_id):
    """Add a user to a group."""
    if req.row.kind == directory.LDAP:
        cores.of(req).directories.set_member(req.row, req.user_row, True)
        cores.of(req).db.transact(notices.tell, 'group', 'updated', group_id, ('user', user_id, 'added'))
        return

    def store(connection):
        db.upsert(connection, members, {'user_id': user_id, 'group_id': group_id, 'expires_at': None}, ['user_id', 'group_id'])
        changes.bump(connection, changes.ASSIGNMENT)
        notices.tell(connection, 'group', 'updated', group_id, ('user', user_id, 'added'))
    cores.of(req).db.transact(store)


def _is_member(connection, group_id, user_id):
    return connection.execute(sa.select(members.c.user_id).where(members.c.group_id == group_id,
                                                                 members.c.user_id == user_id)).first() is not None


@routes.get('/groups/{group_id}/users/{user_id}', rule='identity:check_user_in_group', default=PAIR_READ, load=load_pair,
            status=204, summary='Check whether a user is in a group')
def check_member(req, group_id, user_id):
    """204 if the user is in the group, else 404."""
    with req.db.read() as connection:
        if not _is_member(connection, group_id, user_id):
            raise errors.NotFound(f'User {user_id} not found in group {group_id}.')


@routes.delete('/groups/{group_id}/users/{user_id}', rule='identity:remove_user_from_group', default=PAIR_WRITE, load=load_pair,
               summary='Remove a user from a group')
def remove_member(req, group_id, user_id):
    """Remove a user from a group; its tokens are revoked, for they may hold the group's roles."""
    core = cores.of(req)
    if req.row.kind == directory.LDAP:
        with req.db.read() as connection:
            if not _is_member(connection, group_id, user_id):
                raise errors.NotFound(f'User {user_id} not found in group {group_id}.')
        core.directories.set_member(req.row, req.user_row, False)
        core.db.transact(notices.tell, 'group', 'updated', group_id, ('user', user_id, 'removed'))
        return

    def store(connection):
        done = connection.execute(sa.delete(members).where(members.c.group_id == group_id, members.c.user_id == user_id))
        if not done.rowcount:
            raise errors.NotFound(f'User {user_id} not found in group {group_id}.')
        changes.bump(connection, changes.ASSIGNMENT)
        core.revoke(connection, {'user_id': user_id})
        notices.tell(connection, 'group', 'updated', group_id, ('user', user_id, 'removed'))
    core.db.transact(store)


@routes.get('/users/{user_id}/groups', rule='identity:list_groups_for_user', load=user_api.load, query=kit.parameters(HOW),
            default=rules.domain_reader('target.user.domain_id') + ' or user_id:%(target.user.id)s',
            response=kit.many_of('groups'), summary='List groups of a user')
def user_groups(req, user_id):
    """List the groups that a user is in."""
    select = sa.select(groups, members.c.expires_at.label('until')).join_from(groups, members).where(members.c.user_id == user_id)
    if req.ctx.domain_id:
        select = select.where(groups.c.domain_id == req.ctx.domain_id)
    prefix = req.base_url + '/v3/groups/'

    def shown(row):
        return {**view(prefix, row), 'membership_expires_at': times.zulu(row.until)}
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'groups', shown)
