"""The list of role assignments: as they are stored, or with everything that follows from them."""
import sqlalchemy as sa

from kodiak.common import db, errors

from . import resources, roles
from .models import assignments, groups, members, projects, users
from .models import roles as role_table


class Found:
    """One assignment of the list, and where it comes from: ``group_id`` (membership), ``prior`` (implied by this
    role), ``above`` (kind and id of the project or domain it is inherited from)."""

    __slots__ = ('above', 'actor_id', 'actor_kind', 'group_id', 'inherited', 'prior', 'role_id', 'target_id', 'target_kind')

    def __init__(self, row, **more):
        for name in ('actor_kind', 'actor_id', 'target_kind', 'target_id', 'role_id', 'inherited'):
            setattr(self, name, getattr(row, name))
        for name in ('group_id', 'prior', 'above'):
            setattr(self, name, getattr(row, name, None))
        for name, value in more.items():
            setattr(self, name, value)


class Query:
    """What a list asks for. ``user``, ``group``, ``role``, ``project``, ``domain``: ids or None; ``system``, ``effective``,
    ``subtree``: flags; ``inherited``: True, False or None (both)."""

    def __init__(self, user=None, group=None, role=None, project=None, domain=None, system=False, effective=False, subtree=False,
                 inherited=None):
        self.user, self.group, self.role, self.project, self.domain = user, group, role, project, domain
        self.system, self.effective, self.subtree, self.inherited = system, effective, subtree, inherited
        if user and group:
            raise errors.BadRequest('Specify a user or group, not both (user.id, group.id).')
        if project and domain:
            raise errors.BadRequest('Specify a domain or project, not both (scope.domain.id, scope.project.id).')
        if effective and group:
            raise errors.BadRequest('Combining effective and group filter will always result in an empty list.')
        if subtree and not project:
            raise errors.BadRequest('scope.project.id must be specified if include_subtree is set (scope.project.id).')


def find(core, connection, query):
    """The assignments of a :class:`Query`, as :class:`Found` objects."""
    if query.effective:
        found = _effective(core, connection, query)
        return [each for each in found if query.role is None or each.role_id == query.role]
    select = sa.select(assignments)
    if query.user:
        select = select.where(assignments.c.actor_kind == 'user', assignments.c.actor_id == query.user)
    if query.group:
        select = select.where(assignments.c.actor_kind == 'group', assignments.c.actor_id == query.group)
    if query.role:
        select = select.where(assignments.c.role_id == query.role)
    if query.inherited is not None:
        select = select.where(assignments.c.inherited.is_(query.inherited))
    if query.project:
        ids = [query.project]
        if query.subtree:
            ids += [row.id for row in resources.below(connection, query.project)]
        select = select.where(assignments.c.target_kind == 'project', assignments.c.target_id.in_(ids))
    elif query.domain:
        select = select.where(assignments.c.target_kind == 'domain', assignments.c.target_id == query.domain)
    elif query.system:
        select = select.where(assignments.c.target_kind == 'system')
    return [Found(row) for row in connection.execute(select.order_by(
        assignments.c.actor_id, assignments.c.target_id, assignments.c.role_id))]


def _effective(core, connection, query):
    rows = [Found(row) for row in connection.execute(_candidates(query))]
    rows = _placed(connection, query, rows)
    rows = _of_users(connection, query, rows)
    return _implied(roles.graph(core, connection), rows)


def _candidates(query):
    select = sa.select(assignments)
    if query.user:
        select = select.where(sa.or_(
            sa.and_(assignments.c.actor_kind == 'user', assignments.c.actor_id == query.user),
            sa.and_(assignments.c.actor_kind == 'group', assignments.c.actor_id.in_(
                sa.select(members.c.group_id).where(members.c.user_id == query.user)))))
    if query.domain:
        select = select.where(assignments.c.target_kind == 'domain', assignments.c.target_id == query.domain,
                              assignments.c.inherited.is_(False))
    elif query.system:
        select = select.where(assignments.c.target_kind == 'system')
    elif query.project:
        select = select.where(assignments.c.target_kind != 'system')
    if query.inherited is not None:
        select = select.where(assignments.c.inherited.is_(query.inherited))
    return select


def _placed(connection, query, rows):
    """Inherited assignments turned into those they mean, one a project."""
    tree = connection.execute(sa.select(projects.c.id, projects.c.parent_id)).all() if any(row.inherited for row in rows) else ()
    children = {}
    for row in tree:
        children.setdefault(row.parent_id, []).append(row.id)
    wanted = None
    if query.project:
        wanted = {query.project}
        if query.subtree:
            wanted.update(row.id for row in resources.below(connection, query.project))
    found = []
    for row in rows:
        if not row.inherited:
            if wanted is None or (row.target_kind == 'project' and row.target_id in wanted):
                found.append(row)
            continue
        waiting = list(children.get(row.target_id, ()))
        while waiting:
            project_id = waiting.pop()
            waiting += children.get(project_id, ())
            if wanted is None or project_id in wanted:
                found.append(Found(row, target_kind='project', target_id=project_id, above=(row.target_kind, row.target_id)))
    return found


def _of_users(connection, query, rows):
    """Assignments to groups turned into those of their members."""
    wanted = {row.actor_id for row in rows if row.actor_kind == 'group'}
    inside = {}
    if wanted:
        select = sa.select(members.c.group_id, members.c.user_id).where(
            members.c.group_id.in_(wanted), sa.or_(members.c.expires_at.is_(None), members.c.expires_at > db.utcnow()))
        if query.user:
            select = select.where(members.c.user_id == query.user)
        for row in connection.execute(select):
            inside.setdefault(row.group_id, []).append(row.user_id)
    found = []
    for row in rows:
        if row.actor_kind == 'user':
            found.append(row)
        else:
            found += [Found(row, actor_kind='user', actor_id=user_id, group_id=row.actor_id)
                      for user_id in inside.get(row.actor_id, ())]
    return found


def _implied(graph, rows):
    found = []
    for row in rows:
        if row.role_id not in graph.names:
            continue
        for role_id in graph.expand([row.role_id]):
            if graph.domains[role_id]:
                continue
            prior = None
            if role_id != row.role_id:
                prior = next(each for each in graph.expand([row.role_id]) if role_id in graph.implied.get(each, ()))
            found.append(Found(row, role_id=role_id, prior=prior))
    return found


class Names:
    """Names for ``include_names``, read at once for all assignments of a list."""

    def __init__(self, connection, found):
        def read(table, ids):
            ids = {each for each in ids if each}
            if not ids:
                return {}
            columns = [table.c.id, table.c.name, table.c.domain_id]
            return {row.id: row for row in connection.execute(sa.select(*columns).where(table.c.id.in_(ids)))}
        self.users = read(users, (each.actor_id for each in found if each.actor_kind == 'user'))
        self.groups = read(groups, (each.actor_id for each in found if each.actor_kind == 'group'))
        self.projects = read(projects, (each.target_id for each in found if each.target_kind != 'system'))
        self.roles = read(role_table, (each.role_id for each in found))
        self.domains = read(projects, [row.domain_id for table in (self.users, self.groups, self.projects, self.roles)
                                       for row in table.values()])

    def of(self, table, key):
        """``{id, name, domain}`` of one row, ``{id}`` where it is gone."""
        row = getattr(self, table).get(key)
        if row is None:
            return {'id': key}
        found = {'id': key, 'name': row.name}
        if row.domain_id:
            found['domain'] = {'id': row.domain_id, 'name': self.domains[row.domain_id].name}
        return found
