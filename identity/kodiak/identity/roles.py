"""Who has which roles where: direct and group assignments, inheritance down the project tree, implied roles."""
import sqlalchemy as sa

from kodiak.common import db

from .models import assignments, implied_roles, members, projects, roles

GROUPS = sa.select(members.c.group_id).where(
    members.c.user_id == sa.bindparam('user'),
    sa.or_(members.c.expires_at.is_(None), members.c.expires_at > sa.bindparam('now')))
_OF_USER = sa.or_(
    sa.and_(assignments.c.actor_kind == 'user', assignments.c.actor_id == sa.bindparam('user')),
    sa.and_(assignments.c.actor_kind == 'group', assignments.c.actor_id.in_(GROUPS)))
_COLUMNS = sa.select(assignments.c.role_id, assignments.c.target_kind, assignments.c.target_id, assignments.c.inherited)
_AT_TARGETS = _COLUMNS.where(_OF_USER, assignments.c.target_id.in_(sa.bindparam('targets', expanding=True)))
_EVERYWHERE = _COLUMNS.where(_OF_USER)


class Graph:
    """Every role by id, and what each implies.

    ``names`` id to name, ``domains`` id to domain id ('' for a role of all domains), ``implied`` id to list of ids.
    """

    def __init__(self, connection):
        self.names, self.domains, self.options, self.implied = {}, {}, {}, {}
        for row in connection.execute(sa.select(roles.c.id, roles.c.name, roles.c.domain_id, roles.c.options)):
            self.names[row.id], self.domains[row.id] = row.name, row.domain_id
            self.options[row.id] = row.options
        for row in connection.execute(sa.select(implied_roles)):
            self.implied.setdefault(row.prior_id, []).append(row.implied_id)

    def expand(self, ids):
        """The ids and all that they imply, at any depth, in a stable order."""
        found, waiting = {}, list(ids)
        while waiting:
            role_id = waiting.pop(0)
            if role_id not in found and role_id in self.names:
                found[role_id] = True
                waiting += self.implied.get(role_id, ())
        return list(found)

    def reaches(self, start, end):
        """True if ``start`` implies ``end`` at any depth."""
        return end in self.expand([start])

    def in_token(self, ids):
        """``[[id, name], ...]`` of a token for whoever is assigned ``ids``: roles of one domain stand only for what they imply."""
        return [[role_id, self.names[role_id]] for role_id in self.expand(ids) if not self.domains[role_id]]


def graph(core, connection):
    """The remembered :class:`Graph`."""
    cache = core.state.assignments
    found = cache.get('graph')
    return found if found is not None else core.state.remember(cache, 'graph', Graph(connection))


class Place:
    """A project or domain with what stands above it.

    ``row``; ``above``: ids of the projects from the parent up to, not including, the domain; ``domain``: the domain's row
    (the row itself for a domain); ``enabled``: it and its domain are.
    """

    __slots__ = ('above', 'domain', 'enabled', 'row')

    def __init__(self, connection, row):
        self.row, self.above = row, []
        parent = row['parent_id']
        self.domain = row
        while parent is not None:
            found = db.one(connection, sa.select(projects).where(projects.c.id == parent))
            if found['is_domain']:
                self.domain = found
                break
            self.above.append(parent)
            parent = found['parent_id']
        self.enabled = bool(row['enabled'] and self.domain['enabled'])


def place(core, connection, project_id):
    """The remembered :class:`Place` of a project or domain by id, or None."""
    cache = core.state.resources
    found = cache.get(project_id)
    if found is None:
        row = db.one(connection, sa.select(projects).where(projects.c.id == project_id))
        if row is not None:
            found = core.state.remember(cache, project_id, Place(connection, row))
    return found


def place_by_name(core, connection, name, domain_id):
    """The :class:`Place` of a project by its name in a domain, or of a domain (``domain_id`` ''), or None."""
    cache = core.state.resources
    project_id = cache.get((domain_id, name))
    if project_id is None:
        project_id = connection.execute(sa.select(projects.c.id).where(projects.c.name == name,
                                                                       projects.c.domain_id == domain_id)).scalar()
        if project_id is not None:
            core.state.remember(cache, (domain_id, name), project_id)
    return place(core, connection, project_id) if project_id else None


def assigned_in_project(core, connection, user_id, where):
    """Ids of the roles that a user is assigned in a project, implied ones not yet added."""
    domain_id = where.domain['id']
    targets = [where.row['id'], *where.above, domain_id]
    found = {}
    for row in connection.execute(_AT_TARGETS, {'user': user_id, 'now': db.utcnow(), 'targets': targets}):
        if row.inherited:
            holds = row.target_id != where.row['id'] or (row.target_kind == 'domain' and not where.row['is_domain'])
        else:
            holds = row.target_kind == 'project' and row.target_id == where.row['id']
        if holds and row.target_kind != 'system':
            found[row.role_id] = True
    return list(found)


def assigned_in_domain(connection, user_id, domain_id):
    """Ids of the roles that a user is assigned on a domain itself."""
    rows = connection.execute(_AT_TARGETS, {'user': user_id, 'now': db.utcnow(), 'targets': [domain_id]})
    return list({row.role_id: True for row in rows if row.target_kind == 'domain' and not row.inherited})


def assigned_in_system(connection, user_id):
    """Ids of the roles that a user is assigned on the system."""
    rows = connection.execute(_AT_TARGETS, {'user': user_id, 'now': db.utcnow(), 'targets': ['system']})
    return list({row.role_id: True for row in rows if row.target_kind == 'system'})


def in_project(core, connection, user_id, where, remember=True):
    """``[[id, name], ...]`` of a user's roles in a project; remembered, unless they may run out."""
    cache, key = core.state.assignments, (user_id, where.row['id'])
    found = cache.get(key) if remember else None
    if found is None:
        found = graph(core, connection).in_token(assigned_in_project(core, connection, user_id, where))
        if remember:
            core.state.remember(cache, key, found)
    return found


def in_domain(core, connection, user_id, domain_id):
    """As :func:`in_project`, for a domain."""
    return graph(core, connection).in_token(assigned_in_domain(connection, user_id, domain_id))


def in_system(core, connection, user_id):
    """As :func:`in_project`, for the system."""
    return graph(core, connection).in_token(assigned_in_system(connection, user_id))


def everywhere(connection, user_id):
    """All assignments of a user, through groups too: rows of role_id, target_kind, target_id, inherited."""
    return connection.execute(_EVERYWHERE, {'user': user_id, 'now': db.utcnow()}).all()


def reachable(connection, user_id):
    """``(set of project ids, set of domain ids, True if the system)`` where a user has any role."""
    found, domains, system, roots = set(), set(), False, set()
    for row in everywhere(connection, user_id):
        if row.target_kind == 'system':
            system = True
        elif row.inherited:
            roots.add((row.target_kind, row.target_id))
        elif row.target_kind == 'domain':
            domains.add(row.target_id)
        else:
            found.add(row.target_id)
    for kind, target in roots:
        if kind == 'domain':
            found.update(connection.execute(sa.select(projects.c.id).where(projects.c.domain_id == target)).scalars())
        else:
            found.update(below(connection, target))
    return found, domains, system


def below(connection, project_id):
    """Ids of all projects below a project or domain, nearest first."""
    found, level = [], [project_id]
    while level:
        level = connection.execute(sa.select(projects.c.id).where(projects.c.parent_id.in_(level))).scalars().all()
        found += level
    return found


def holding(connection, role_id):
    """The revocation events of the tokens that a role has given something to, itself or what it implies.

    A role of all domains stands in those tokens, and nobody else's need end. A role of one domain does not: there all tokens of
    whoever is given it, or a role that implies it.
    """
    known = Graph(connection)
    if not known.domains.get(role_id):
        return [{'role_id': role_id}]
    prior = [each for each in known.names if known.reaches(each, role_id)]
    given = connection.execute(sa.select(assignments.c.actor_kind, assignments.c.actor_id).where(
        assignments.c.role_id.in_(prior)).distinct()).all()
    users = {row.actor_id for row in given if row.actor_kind == 'user'}
    users.update(connection.execute(sa.select(members.c.user_id).where(
        members.c.group_id.in_([row.actor_id for row in given if row.actor_kind == 'group']))).scalars())
    return [{'user_id': user_id} for user_id in sorted(users)]


def delete_of_domain(connection, domain_id):
    """Delete the roles of a domain."""
    connection.execute(sa.delete(roles).where(roles.c.domain_id == domain_id))
