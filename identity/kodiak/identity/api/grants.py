"""Who is given which role where: grants on projects, domains and the system, inherited ones included."""
import sqlalchemy as sa

from kodiak.common import api, errors

from .. import changes, notices
from .. import core as cores
from ..models import assignments, groups, members, projects, roles, users
from . import kit, rules
from . import roles as role_api

routes = api.Routes('grants', '/v3')

_MANAGER = ('role:manager and rule:domain_managed_role and domain_id:%(target.actor.domain_id)s '
            'and domain_id:%(target.place.domain_id)s and None:%(target.role.domain_id)s')
_READER = 'role:reader and domain_id:%(target.actor.domain_id)s and domain_id:%(target.place.domain_id)s'
_MANAGER_OWN = ('role:manager and rule:domain_managed_role and domain_id:%(target.actor.domain_id)s '
                'and domain_id:%(target.place.domain_id)s and domain_id:%(target.role.domain_id)s')
READ = f'{rules.ANY_READ} or ({_READER})'
WRITE = f'{rules.ANY_ADMIN} or ({_MANAGER}) or ({_MANAGER_OWN})'


#: Who reads a domain may ask about the roles that can be given there.
CHECK = (f'{rules.ANY_READ} or ({_READER} and None:%(target.role.domain_id)s) '
         f'or ({_READER} and domain_id:%(target.role.domain_id)s)')


def _actor(connection, kind, actor_id):
    table = users if kind == 'user' else groups
    row = connection.execute(sa.select(table.c.id, table.c.domain_id).where(table.c.id == actor_id)).first()
    if row is None:
        raise errors.NotFound(f'Could not find {kind}: {actor_id}.')
    return row


def loader(actor_kind, target_kind):
    """The ``load`` of the routes for an actor and a target of these kinds."""
    def load(req, target_id=None, actor_id=None, role_id=None):
        with req.db.read() as connection:
            found = {'target.actor.domain_id': None, 'target.place.domain_id': None}
            if target_kind != 'system':
                row = connection.execute(sa.select(projects).where(projects.c.id == target_id)).first()
                if row is None or (target_kind == 'domain' and not row.is_domain):
                    raise errors.NotFound(f'Could not find {target_kind}: {target_id}.')
                found['target.place.domain_id'] = row.id if row.is_domain else row.domain_id
            if actor_kind == 'user' and req.endpoint.method == 'DELETE':
                # What a user that is gone left behind can still be taken away.
                actor = connection.execute(sa.select(users.c.domain_id).where(users.c.id == actor_id)).first()
                found['target.actor.domain_id'] = actor.domain_id if actor else None
            else:
                found['target.actor.domain_id'] = _actor(connection, actor_kind, actor_id).domain_id
        if role_id is not None:
            found.update(role_api.load(req, role_id))
        return found
    return load


def key(actor_kind, actor_id, target_kind, target_id, role_id, inherited=False):
    """An assignment's columns."""
    return {'actor_kind': actor_kind, 'actor_id': actor_id, 'target_kind': target_kind, 'target_id': target_id or 'system',
            'role_id': role_id, 'inherited': inherited}


def where(columns):
    """The conditions that choose an assignment."""
    return [assignments.c[name] == value for name, value in columns.items()]


def _check_domain_role(req, key, target):
    domain_id = target.get('target.role.domain_id')
    if domain_id is None:
        return
    if key['target_kind'] == 'system':
        raise errors.BadRequest('A role of one domain cannot be given on the system: give a role of all domains.')
    if domain_id != target['target.place.domain_id']:
        raise errors.Forbidden(f"Role {key['role_id']} belongs to another domain than its target.")


def give(req, key):
    """Store an assignment; the endpoint's target was loaded with :func:`loader`."""
    _check_domain_role(req, key, req.target)

    def store(connection):
        if connection.execute(sa.select(assignments.c.role_id).where(*where(key))).first() is None:
            connection.execute(assignments.insert().values(key))
            changes.bump(connection, changes.ASSIGNMENT)
            notices.assignment(connection, 'created', key)
    cores.of(req).db.transact(store)


def _check(req, key):
    with req.db.read() as connection:
        if connection.execute(sa.select(assignments.c.role_id).where(*where(key))).first() is None:
            raise errors.NotFound(f"Could not find role assignment with role: {key['role_id']}, user or group: {key['actor_id']}, "
                                  f"{key['target_kind']}: {key['target_id']}.")


def take(req, key):
    """Remove an assignment and revoke the tokens that may hold it; 404 if there is none."""
    core = cores.of(req)

    def store(connection):
        if not connection.execute(sa.delete(assignments).where(*where(key))).rowcount:
            raise errors.NotFound(f"Could not find role assignment with role: {key['role_id']}, user or group: {key['actor_id']}, "
                                  f"{key['target_kind']}: {key['target_id']}.")
        changes.bump(connection, changes.ASSIGNMENT)
        core.revoke(connection, *lost(connection, key))
        notices.assignment(connection, 'deleted', key)
    core.db.transact(store)


def lost(connection, key):
    """The revocation events of an assignment that was taken away."""
    who = [key['actor_id']]
    if key['actor_kind'] == 'group':
        who = connection.execute(sa.select(members.c.user_id).where(members.c.group_id == key['actor_id'])).scalars().all()
    # An inherited role counted in many projects, a system role has no id to name: all tokens of the user go.
    place = {f"{key['target_kind']}_id": key['target_id']} if not key['inherited'] and key['target_kind'] != 'system' else {}
    return [{'user_id': user_id, **place} for user_id in who]


def _list(req, actor_kind, actor_id, target_kind, target_id, inherited):
    select = sa.select(roles).join_from(assignments, roles).where(
        assignments.c.actor_kind == actor_kind, assignments.c.actor_id == actor_id, assignments.c.target_kind == target_kind,
        assignments.c.target_id == (target_id or 'system'), assignments.c.inherited.is_(inherited)).order_by(roles.c.id)
    prefix = req.base_url + '/v3/roles/'
    with req.db.read() as connection:
        rows = connection.execute(select).all()
    return kit.envelope(req, 'roles', [role_api.view(prefix, row) for row in rows])


def _declare(actor_kind, target_kind, inherited):
    if target_kind == 'system':
        base, read, check_default, write = '/system', rules.READ, rules.READ, rules.ADMIN
        suffix = f'system_grant_for_{actor_kind}'
    else:
        base, read, check_default, write, suffix = f'/{target_kind}s/{{target_id}}', READ, CHECK, WRITE, 'grant'
    if inherited:
        base = '/OS-INHERIT' + base
    collection = f'{base}/{actor_kind}s/{{actor_id}}/roles' + ('/inherited_to_projects' if inherited else '')
    item = f'{base}/{actor_kind}s/{{actor_id}}/roles/{{role_id}}' + ('/inherited_to_projects' if inherited else '')
    load = loader(actor_kind, target_kind)
    what = f'{"inherited " if inherited else ""}roles of a {actor_kind} on ' + ('the system' if target_kind == 'system' else
                                                                              f'a {target_kind}')
    plural = suffix.replace('grant', 'grants', 1)

    @routes.get(collection, rule=f'identity:list_{plural}', default=read, load=load, response=kit.many_of('roles'),
                summary=f'List {what}')
    def many(req, actor_id, target_id=None):
        return _list(req, actor_kind, actor_id, target_kind, target_id, inherited)

    def of(actor_id, role_id, target_id=None):
        return key(actor_kind, actor_id, target_kind, target_id, role_id, inherited)

    @routes.put(item, rule=f'identity:create_{suffix}', default=write, load=load, status=204, summary=f'Add to the {what}')
    def put(req, **parameters):
        give(req, of(**parameters))

    @routes.get(item, rule=f'identity:check_{suffix}', default=check_default, load=load, status=204,
                summary=f'Check one of the {what}')
    def check(req, **parameters):
        _check(req, of(**parameters))

    @routes.delete(item, rule=f'identity:revoke_{suffix}', default=write, load=load, summary=f'Remove from the {what}')
    def delete(req, **parameters):
        take(req, of(**parameters))


for _actor_kind in ('user', 'group'):
    for _target_kind in ('project', 'domain', 'system'):
        _declare(_actor_kind, _target_kind, False)
        if _target_kind != 'system':
            _declare(_actor_kind, _target_kind, True)
