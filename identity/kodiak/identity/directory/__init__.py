"""Domains whose users and groups live in a directory (LDAP, Active Directory).

Which domains these are, and how their directories are reached, stands in the options of domains (``identity`` driver, ``ldap``).
Users and groups have rows here as any others have; the rows are a mirror, brought up to date by whoever asks for somebody and by
:mod:`.watch`. So assignments, trusts, credentials and lists need not know where people live. Who is in the directory no
longer keeps its row, disabled and hidden, with all that it was given: a filter with a slip of the pen must not cost a cloud its
assignments.

ldap3 is loaded by the first directory that is asked.
"""
import logging
import threading

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import errors

from .. import changes, domain_options, people
from ..models import directory_entries, groups, members, projects, users
from ..models import domain_options as options

LOG = logging.getLogger(__name__)
DRIVER = 'ldap'
LDAP, GONE = 'ldap', 'gone'
ENTRY = sa.select(directory_entries).where(directory_entries.c.id == sa.bindparam('id'))


class Directories:
    """The directories of all domains, as a process knows them."""

    def __init__(self, core):
        self.core = core
        self._lock = threading.Lock()
        self._servers = {}

    # -- which there are

    def domains(self, connection):
        """``{domain id: options}`` of the domains that have one; remembered until an option changes."""
        cache = self.core.state.resources
        found = cache.get('directories')
        if found is None:
            ids = connection.execute(sa.select(options.c.domain_id, options.c.value).where(
                options.c.group == 'identity', options.c.option == 'driver')).all()
            found = {row.domain_id: domain_options.read(self.core, connection, row.domain_id, secrets=True).get('ldap', {})
                     for row in ids if row.value == DRIVER}
            self.core.state.remember(cache, 'directories', found)
        return found

    def server(self, connection, domain_id):
        """The :class:`.server.Server` of a domain, or None where its people live here."""
        values = self.domains(connection).get(domain_id)
        if values is None:
            return None
        known = self._servers.get(domain_id)
        if known is not None and known[0] == values:
            return known[1]
        return self._serve(domain_id, values)

    def _serve(self, domain_id, values):
        from . import connections, server, settings
        try:
            made = server.Server(settings.read({'password': None, **domain_options.DEFAULTS['ldap'], **values}))
        except errors.BadRequest as error:
            raise connections.Away(error.message) from None
        with self._lock:
            old = self._servers.get(domain_id)
            self._servers[domain_id] = (values, made)
        if old is not None:
            old[1].close()
        return made

    def at(self, domain_id):
        """As :meth:`server`."""
        with self.core.db.read() as connection:
            return self.server(connection, domain_id)

    @staticmethod
    def check(config):
        """Refuse options that make no sense; ``config`` is all that a domain would have."""
        if 'ldap' in config:
            from . import settings
            settings.read({'password': None, **domain_options.DEFAULTS['ldap'], **config['ldap']})

    def configured(self, connection, domain_id):
        """The options of a domain have changed, in this transaction. Who lived in a directory that is no more is gone."""
        changes.bump(connection, changes.RESOURCE)
        if domain_options.read(self.core, connection, domain_id).get('identity', {}).get('driver') == DRIVER:
            return
        from . import mirror
        found = mirror.Mirror(self.core, connection, domain_id, True)
        for kind, table in mirror.TABLES.items():
            found.gone(kind, connection.execute(sa.select(table.c.id).where(
                table.c.domain_id == domain_id, table.c.kind == LDAP)).scalars().all())

    # -- bringing rows up to date

    def _apply(self, domain_id, function):
        from . import mirror
        with self.core.db.read() as connection:
            first = mirror.Mirror(self.core, connection, domain_id, False)
            found = function(first)
        if first.changed:
            try:
                found = self.core.db.transact(lambda connection: function(mirror.Mirror(self.core, connection, domain_id, True)))
            except exc.IntegrityError as error:
                LOG.warning('Domain %s: its directory and its rows do not go together: %s', domain_id, error.orig)
                raise errors.Conflict('This entry of the directory is being looked at by another request. Try again.') from None
            # What this process remembers may be what was just written over.
            self.core.state.look()
        return found

    def _key(self, row_id):
        with self.core.db.read() as connection:
            return connection.execute(ENTRY, {'id': row_id}).first()

    def _user(self, server, domain_id, entry):
        """Mirror a user with its memberships. Returns the id, or None where it cannot be mirrored."""
        inside = server.groups_of(entry)

        def bring(mirror):
            ids, group_ids = mirror.users([entry]), mirror.groups(inside)
            mirror.memberships({(user_id, group_id) for user_id in ids for group_id in group_ids}, user_ids=ids)
            return ids
        return next(iter(self._apply(domain_id, bring)), None)

    def find(self, domain_id, name):
        """The id of the user whom a domain's directory knows by a name, or None."""
        server = self.at(domain_id)
        found = server.users(name) if server is not None else []
        if len(found) > 1:
            LOG.warning('Domain %s: %d entries of its directory have the same name, none of them can log in', domain_id, len(found))
        return self._user(server, domain_id, found[0]) if len(found) == 1 else None

    def _refresh(self, kind, row, keep):
        server, known = self.at(row.domain_id), self._key(row.id)
        if server is None or known is None:
            return False
        entry = getattr(server, kind)(known.key)
        if entry is not None:
            return keep(server, row.domain_id, entry) is not None
        if row.kind != GONE:
            self._apply(row.domain_id, lambda mirror: mirror.gone(kind, [row.id]))
        return False

    def refresh_user(self, row):
        """Bring the row of a user and its memberships up to date. True if the user is there."""
        return self._refresh('user', row, self._user)

    def refresh_group(self, row):
        """Bring the row of a group up to date, and who is in it. True if the group is there."""
        return self._refresh('group', row, self._group)

    def _group(self, server, domain_id, entry):
        inside = server.members_of(entry)

        def bring(mirror):
            ids, user_ids = mirror.groups([entry]), mirror.users(inside)
            mirror.memberships({(user_id, group_id) for user_id in user_ids for group_id in ids}, group_ids=ids)
            return ids
        return next(iter(self._apply(domain_id, bring)), None)

    def refresh_users(self, domain_id, name=None):
        """Bring the rows of a domain's users up to date, or of those of a name; nothing where its people live here."""
        server = self.at(domain_id)
        if server is not None:
            found = server.users(name)
            self._apply(domain_id, lambda mirror: mirror.users(found, whole=name is None))

    def refresh_groups(self, domain_id, name=None):
        """As :meth:`refresh_users`, for groups; who is in them is left alone."""
        server = self.at(domain_id)
        if server is not None:
            found = server.groups(name)
            self._apply(domain_id, lambda mirror: mirror.groups(found, whole=name is None))

    def refresh(self, domain_id):
        """Bring everything of a domain up to date. Returns how many users and groups there are."""
        server = self.at(domain_id)
        if server is None:
            return 0, 0
        from . import entries
        found, teams = server.users(), server.groups()
        by_dn = {entries.same(user.dn): user for user in found}
        by_key = {user.key: user for user in found}
        known = by_key if server.settings.member_ids else by_dn
        inside = {team.key: everybody(team, teams, server.settings, known) for team in teams}

        def bring(mirror):
            user_ids, group_ids = set(mirror.users(found, whole=True)), set(mirror.groups(teams, whole=True))
            wanted = {(mirror.id_of('user', user), mirror.id_of('group', team)) for team in teams for user in inside[team.key]}
            mirror.memberships({pair for pair in wanted if pair[0] in user_ids and pair[1] in group_ids})
        self._apply(domain_id, bring)
        return len(found), len(teams)

    # -- passwords

    def check_password(self, user, password):
        """True if the directory of a user takes its password."""
        server, known = self.at(user['domain_id']), self._key(user['id'])
        return server is not None and known is not None and server.check_password(known.dn, password)

    def change_password(self, user, new):
        """Set the password of a user, and revoke its tokens."""
        self.at(user['domain_id']).change_password(self._key(user['id']).dn, new)
        self.core.db.transact(self.core.revoke, {'user_id': user['id']})

    # -- writing

    def create_user(self, domain_id, name, enabled, password, more):
        """Make a user in the directory. Returns its id."""
        server = self.at(domain_id)
        return self._kept(self._user(server, domain_id, server.create_user(name, enabled, password, more)))

    def update_user(self, row, asked):
        """Change a user in the directory: ``name``, ``enabled``, ``password`` and what it shows beside; the rest is ours.

        Returns what of ``asked`` the directory doesn't keep.
        """
        server = self._writable(row)
        theirs = {'name', 'enabled', 'password', *server.settings.users.more}
        values = {name: value for name, value in asked.items() if name in theirs}
        if values:
            entry = self._entry(server.user, row)
            self._kept(self._user(server, row.domain_id, server.update_user(entry, values)))
            if values.get('password') is not None or values.get('enabled') is False:
                self.core.db.transact(self.core.revoke, {'user_id': row.id})
        return {name: value for name, value in asked.items() if name not in theirs}

    def delete_user(self, row):
        """Delete a user from the directory; its row is the caller's to delete."""
        server = self._writable(row)
        server.delete_user(self._entry(server.user, row))

    def create_group(self, domain_id, name, more):
        """Make a group in the directory. Returns its id."""
        server = self.at(domain_id)
        return self._kept(self._group(server, domain_id, server.create_group(name, more)))

    def update_group(self, row, asked):
        """As :meth:`update_user`, for a group."""
        server = self._writable(row)
        theirs = {'name', *server.settings.groups.more}
        values = {name: value for name, value in asked.items() if name in theirs}
        if values:
            self._kept(self._group(server, row.domain_id, server.update_group(self._entry(server.group, row), values)))
        return {name: value for name, value in asked.items() if name not in theirs}

    def delete_group(self, row):
        """Delete a group from the directory; its row is the caller's to delete."""
        server = self._writable(row)
        server.delete_group(self._entry(server.group, row))

    def set_member(self, row, user_row, inside):
        """Put a user into a group of the directory, or take it out."""
        server = self._writable(row)
        if user_row.kind != LDAP or user_row.domain_id != row.domain_id:
            raise errors.Forbidden('A group of a directory holds users of that directory only.')
        group, user = self._entry(server.group, row), self._entry(server.user, user_row)
        (server.add_member if inside else server.remove_member)(group, user)
        self.refresh_group(row)

    def _writable(self, row):
        server = self.at(row.domain_id)
        if server is None:
            raise errors.NotFound('The directory of this domain is not there any more.')
        return server

    def _entry(self, read, row):
        entry = read(self._key(row.id).key)
        if entry is None:
            raise errors.NotFound(f'The directory has no such entry any more: {row.name}.')
        return entry

    @staticmethod
    def _kept(row_id):
        if row_id is None:
            raise errors.Conflict('The directory has the entry, but its name is taken in this domain.')
        return row_id

    def purge(self, domain_id):
        """Delete the rows of who is gone, with all that they were given. Returns how many."""
        return self.core.db.transact(_purge, self.core, domain_id)


def everybody(team, teams, settings, known):
    """The users in a group; where groups are members, at any depth.

    :param known: what members are named by (DN or key) to user.
    """
    from . import entries
    by_dn = {entries.same(each.dn): each for each in teams} if settings.nested else {}
    seen, waiting, found = set(), [team], {}
    while waiting:
        each = waiting.pop()
        if each.key in seen:
            continue
        seen.add(each.key)
        for member in each.members:
            if member in known:
                found[member] = known[member]
            elif member in by_dn:
                waiting.append(by_dn[member])
    return list(found.values())


def _purge(connection, core, domain_id):
    from ..models import assignments
    ids = connection.execute(sa.select(users.c.id).where(users.c.domain_id == domain_id, users.c.kind == GONE)).scalars().all()
    people.forget(core, connection, ids)
    teams = connection.execute(sa.select(groups.c.id).where(groups.c.domain_id == domain_id, groups.c.kind == GONE)).scalars().all()
    for start in range(0, max(len(ids), len(teams)), 500):
        part, more = ids[start:start + 500], teams[start:start + 500]
        connection.execute(sa.delete(assignments).where(assignments.c.actor_kind == 'group', assignments.c.actor_id.in_(more)))
        connection.execute(sa.delete(members).where(members.c.group_id.in_(more)))
        connection.execute(sa.delete(groups).where(groups.c.id.in_(more)))
        connection.execute(sa.delete(users).where(users.c.id.in_(part)))
        connection.execute(sa.delete(directory_entries).where(directory_entries.c.id.in_([*part, *more])))
    return len(ids) + len(teams)


def domain_named(connection, reference):
    """The id of the domain that ``{id}`` or ``{name}`` means, or None."""
    if reference.get('id'):
        return reference['id']
    return connection.execute(sa.select(projects.c.id).where(projects.c.name == reference.get('name'),
                                                             projects.c.is_domain.is_(True))).scalar()


def user_of(core, reference):
    """The user that an authentication request names, as :func:`kodiak.identity.people.by_reference` does, wherever it lives."""
    with core.db.read() as connection:
        row = people.by_reference(connection, reference)
        if row is not None and row['kind'] not in (LDAP, GONE):
            return row
        if row is None and reference.get('id'):
            return None
        if not core.directories.domains(connection):
            return None
        domain_id = row['domain_id'] if row is not None else domain_named(connection, reference['domain'])
        by_id = connection.execute(sa.select(users).where(users.c.id == row['id'])).one() if reference.get('id') else None
    if by_id is not None:
        user_id = by_id.id if core.directories.refresh_user(by_id) else None
    else:
        user_id = core.directories.find(domain_id, reference['name'])
    if user_id is None:
        return None
    with core.db.read() as connection:
        return people.by_id(connection, user_id)

