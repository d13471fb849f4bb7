"""The rows of users and groups that live in a directory: a mirror of it, so that all that refers to users and groups finds them.

Each function is run twice: first to see whether anything differs, which needs no write transaction, then to write.
"""
import logging

import sqlalchemy as sa

from kodiak.common import db

from .. import changes
from ..models import directory_entries, groups, members, users
from . import entries

LOG = logging.getLogger(__name__)
LDAP, GONE = 'ldap', 'gone'
LONGEST = {'user': 255, 'group': 64}
MANY = 100
TABLES = {'user': users, 'group': groups}


class Mirror:
    """Brings the rows of a domain to what its directory shows.

    :param writing: False: only notes in ``changed`` whether anything would change.
    """

    def __init__(self, core, connection, domain_id, writing):
        self.core, self.connection, self.domain_id, self.writing = core, connection, domain_id, writing
        self.changed = False

    def _write(self, statement, rows=None):
        self.changed = True
        if self.writing:
            # Many rows at once: a directory has thousands of people.
            self.connection.execute(statement, rows)

    def _revoke(self, user_ids):
        if not user_ids or not self.writing:
            return
        # Every service keeps every event: one for the domain stands for very many.
        events = [{'user_domain_id': self.domain_id}] if len(user_ids) > MANY else [{'user_id': user_id} for user_id in user_ids]
        self.core.revoke(self.connection, *events)

    def id_of(self, kind, entry):
        """The id of the row of an entry."""
        return entries.public_id(self.domain_id, kind, entry.key)

    def users(self, found, whole=False):
        """Bring the rows of users to what was found. ``whole``: who was not found is gone. Returns ids of those that have a row."""
        return self._bring('user', found, whole, self._user_values)

    def groups(self, found, whole=False):
        """As :meth:`users`, for groups; memberships are left alone."""
        return self._bring('group', found, whole, self._group_values)

    def _user_values(self, entry, row):
        shown = (row.extra if row else None) or {}
        server = self.core.directories.server(self.connection, self.domain_id)
        extra = {name: value for name, value in shown.items() if name not in server.settings.users.more}
        found = {'kind': LDAP, 'name': entry.name, 'enabled': entry.enabled, 'extra': {**extra, **entry.more}}
        if server.settings.project:
            found['default_project_id'] = entry.project
        return found

    @staticmethod
    def _group_values(entry, row):
        return {'kind': LDAP, 'name': entry.name, 'description': entry.description,
                'extra': {**(row.extra if row else {}), **entry.more}}

    def _bring(self, kind, found, whole, values_of):
        table = TABLES[kind]
        by_id = {self.id_of(kind, entry): entry for entry in found}
        select = sa.select(table, directory_entries.c.dn, directory_entries.c.key).join_from(
            table, directory_entries, directory_entries.c.id == table.c.id)
        here = directory_entries.c.domain_id == self.domain_id
        rows = {row.id: row for row in self.connection.execute(
            select.where(here, directory_entries.c.kind == kind) if whole else select.where(table.c.id.in_(list(by_id))))}
        by_id = self._named(kind, by_id, rows)
        self._set_aside(table, by_id, rows)
        ended, fresh = [], []
        for each_id, entry in by_id.items():
            row = rows.get(each_id)
            values = values_of(entry, row)
            if row is None:
                fresh.append((each_id, entry, values))
                continue
            different = {name: value for name, value in values.items() if getattr(row, name) != value}
            if different:
                self._write(sa.update(table).where(table.c.id == each_id).values(different))
                if different.get('enabled') is False:
                    ended.append(each_id)
            if row.dn != entry.dn:
                self._write(sa.update(directory_entries).where(directory_entries.c.id == each_id).values(dn=entry.dn))
        self._insert(table, kind, fresh)
        self._revoke(ended)
        if whole:
            self.gone(kind, [each_id for each_id, row in rows.items() if each_id not in by_id and row.kind != GONE])
        return list(by_id)

    def _insert(self, table, kind, fresh):
        if not fresh:
            return
        more = {'options': {}, 'created_at': db.utcnow(), 'failed_count': 0} if kind == 'user' else {}
        here = {'domain_id': self.domain_id}
        self._write(table.insert(), [{'id': each_id, **here, **more, **values} for each_id, _, values in fresh])
        self._write(directory_entries.insert(), [{'id': each_id, **here, 'kind': kind, 'key': entry.key, 'dn': entry.dn}
                                                 for each_id, entry, _ in fresh])

    def _named(self, kind, by_id, rows):
        """Those whose names can be kept: a name counts once, and who lives here keeps it."""
        table, taken, found = TABLES[kind], set(), {}
        wanted = sorted({entry.name.lower() for entry in by_id.values()})
        if by_id:
            select = sa.select(sa.func.lower(table.c.name)).where(table.c.domain_id == self.domain_id,
                                                                  table.c.kind.notin_([LDAP, GONE]))
            if len(wanted) < MANY:
                select = select.where(sa.func.lower(table.c.name).in_(wanted))
            taken = set(self.connection.execute(select).scalars())
        for each_id, entry in sorted(by_id.items(), key=lambda pair: pair[0] not in rows):
            if entry.name.lower() in taken or len(entry.name) > LONGEST[kind] or len(entry.key) > 255:
                if not self.writing:
                    LOG.warning('Domain %s: the %s %s of its directory is left out: its name is taken or too long', self.domain_id,
                                kind, entry.dn)
                continue
            taken.add(entry.name.lower())
            found[each_id] = entry
        return found

    def _set_aside(self, table, by_id, rows):
        """Take names away from rows that hold them no longer; the entry behind such a row is looked at in its turn."""
        wanted = {entry.name.lower() for each_id, entry in by_id.items()
                  if each_id not in rows or rows[each_id].name != entry.name}
        if not wanted:
            return
        select = sa.select(table.c.id, sa.func.lower(table.c.name)).where(table.c.domain_id == self.domain_id)
        if len(wanted) < MANY:
            select = select.where(sa.func.lower(table.c.name).in_(wanted))
        for each_id, name in self.connection.execute(select).all():
            if name in wanted:
                self._write(sa.update(table).where(table.c.id == each_id).values(name=each_id))

    def gone(self, kind, ids):
        """Note that users or groups are in the directory no longer. What they were given stays, for it may be a mistake there."""
        if not ids:
            return
        table = TABLES[kind]
        for start in range(0, len(ids), 500):
            part = ids[start:start + 500]
            # The name may belong to somebody else from now on.
            more = {'enabled': False} if kind == 'user' else {}
            self._write(sa.update(table).where(table.c.id.in_(part)).values(kind=GONE, name=table.c.id, **more))
            column = members.c.user_id if kind == 'user' else members.c.group_id
            inside = self.connection.execute(sa.select(members.c.user_id).where(column.in_(part))).scalars().all()
            self._write(sa.delete(members).where(column.in_(part)))
            self._revoke(part if kind == 'user' else inside)
        if self.writing:
            changes.bump(self.connection, changes.ASSIGNMENT)

    def memberships(self, wanted, user_ids=None, group_ids=None):
        """Bring memberships in groups of the directory to ``wanted``, a set of ``(user id, group id)``.

        :param user_ids: only those of these users; :param group_ids: only those in these groups.
        """
        select = sa.select(members.c.user_id, members.c.group_id).join_from(members, groups).where(
            groups.c.domain_id == self.domain_id, groups.c.kind == LDAP, members.c.expires_at.is_(None))
        if user_ids is not None:
            select = select.where(members.c.user_id.in_(user_ids))
        if group_ids is not None:
            select = select.where(members.c.group_id.in_(group_ids))
        held = {(row.user_id, row.group_id) for row in self.connection.execute(select)}
        if wanted - held:
            self._write(members.insert(), [{'user_id': user_id, 'group_id': group_id, 'expires_at': None}
                                           for user_id, group_id in sorted(wanted - held)])
        lost = held - wanted
        for user_id, group_id in sorted(lost):
            self._write(sa.delete(members).where(members.c.user_id == user_id, members.c.group_id == group_id))
        if self.writing and wanted != held:
            changes.bump(self.connection, changes.ASSIGNMENT)
        self._revoke(sorted({user_id for user_id, _ in lost}))
