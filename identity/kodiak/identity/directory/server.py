"""One directory: finding its users and groups, checking passwords, and writing where that is allowed."""
import ldap3
from ldap3.utils import conv
from ldap3.utils import dn as names

from kodiak.common import db, errors

from . import connections, entries


class Server:
    """The directory of a domain.

    :param settings: :class:`kodiak.identity.directory.settings.Settings`.
    """

    def __init__(self, settings):
        link = settings.link
        self.settings = settings
        self.reader = entries.Reader(settings)
        self.pool = connections.Pool(link, link.pool_size, link.lifetime)
        self.logins = connections.Pool(link, link.login_pool_size, link.login_lifetime, bound=False)

    def close(self):
        """Close the connections."""
        self.pool.close()
        self.logins.close()

    def _search(self, kind, attribute=None, value=None):
        return self.pool.search(kind.tree, self.reader.condition(kind, attribute, value), kind.scope, self.reader.attributes(kind))

    def _read(self, kind, dn):
        return self.pool.search(dn, self.reader.condition(kind), ldap3.BASE, self.reader.attributes(kind))

    def _enabled_dns(self):
        how = self.settings.enabled
        if not how.group:
            return None
        found = self.pool.search(how.group, '(objectClass=*)', ldap3.BASE, [how.member])
        return {entries.same(value.decode(errors='replace')) for _, values in found for value in values.get(how.member.lower(), ())}

    def _users(self, found):
        enabled = self._enabled_dns() if found else None
        made = (self.reader.user(dn, values, enabled) for dn, values in found)
        return [user for user in made if user is not None]

    def _groups(self, found):
        made = (self.reader.group(dn, values) for dn, values in found)
        return [group for group in made if group is not None]

    def users(self, name=None):
        """All users, or those of a name."""
        kind = self.settings.users
        return self._users(self._search(kind, *((kind.name, name) if name is not None else ())))

    def user(self, key):
        """The user with an id of the directory's, or None."""
        return next(iter(self._users(self._search(self.settings.users, self.settings.users.key, key))), None)

    def users_at(self, dns):
        """The users at some DNs; what else is there is left out."""
        tree = entries.same(self.settings.users.tree)
        return [user for dn in dns if entries.same(dn).endswith(tree) for user in self._users(self._read(self.settings.users, dn))]

    def groups(self, name=None):
        """All groups, or those of a name."""
        kind = self.settings.groups
        return self._groups(self._search(kind, *((kind.name, name) if name is not None else ())))

    def group(self, key):
        """The group with an id of the directory's, or None."""
        return next(iter(self._groups(self._search(self.settings.groups, self.settings.groups.key, key))), None)

    def groups_of(self, user):
        """The groups that a user is in; where groups are members of groups, those above at any depth."""
        found, names_of = {}, [user.key if self.settings.member_ids else user.dn]
        while names_of:
            above = [group for group in self._holding(names_of) if group.key not in found]
            found.update((group.key, group) for group in above)
            names_of = [group.dn for group in above] if self.settings.nested else []
        return list(found.values())

    def _holding(self, members):
        settings, kind, found = self.settings, self.settings.groups, []
        for start in range(0, len(members), 50):
            any_of = ''.join(f'({settings.member}={conv.escape_filter_chars(value)})' for value in members[start:start + 50])
            condition = f'(&{self.reader.condition(kind)}(|{any_of}))'
            found += self.pool.search(kind.tree, condition, kind.scope, self.reader.attributes(kind))
        return self._groups(found)

    def members_of(self, group):
        """The users in a group, at any depth where groups are members of groups."""
        if self.settings.member_ids:
            found = (self.user(key) for key in sorted(group.members))
            return [user for user in found if user is not None]
        found, seen, waiting = [], {entries.same(group.dn)}, [group]
        while waiting:
            new = waiting.pop().members - seen
            seen |= new
            # One search for all people is quicker than one each for many.
            users = [user for user in self.users() if entries.same(user.dn) in new] if len(new) > 50 else self.users_at(sorted(new))
            found += users
            if self.settings.nested:
                others = new - {entries.same(user.dn) for user in users}
                for dn in sorted(dn for dn in others if dn.endswith(entries.same(self.settings.groups.tree))):
                    waiting += self._groups(self._read(self.settings.groups, dn))
        return found

    def check_password(self, dn, password):
        """True if the directory takes a password for a user."""
        return self.logins.check(dn, password)

    # -- writing

    def _may(self, kind, verb, what):
        if not getattr(kind, verb):
            raise errors.Forbidden(f'This domain is kept in a directory that identity does not change: {what}.')

    @staticmethod
    def _free(read, name, what):
        # Names are unique here, while a directory may not care.
        if read(name):
            raise connections.Refused(f'{what}: the name {name} is in the directory already.')

    def _rdn(self, kind, key, name):
        value = key if kind.rdn == kind.key else name
        return f'{kind.rdn}={names.escape_rdn(value)},{kind.tree}', value

    def _new_key(self, kind, name):
        return name if kind.key.lower() == kind.name.lower() else db.new_hex()

    def create_user(self, name, enabled, password, more):
        """Make an entry; ``more``: ours to value. Returns the user."""
        kind, how = self.settings.users, self.settings.enabled
        self._may(kind, 'create', 'create user')
        self._free(self.users, name, 'create user')
        key = self._new_key(kind, name)
        dn, rdn = self._rdn(kind, key, name)
        values = {'objectClass': [kind.object_class], kind.name: name, kind.rdn: rdn, **self._theirs(kind, more)}
        if kind.object_class.lower() in ('person', 'organizationalperson', 'inetorgperson', 'user'):
            values = {'cn': name, **({'sn': name} if kind.object_class.lower() != 'user' else {}), **values}
        if how.attribute:
            values.update(self._flagged(how.default, enabled))
        self.pool.change(lambda connection: connection.add(dn, attributes=_folded(values)), 'create user')
        try:
            if password is not None:
                self._set_password(dn, password)
            if how.group and enabled:
                self._emulate(dn, True)
        except errors.Error:
            # Half a user is none.
            self.pool.change(lambda connection: connection.delete(dn), 'create user')
            raise
        return self.users_at([dn])[0]

    def _theirs(self, kind, more):
        return {kind.more[ours]: value for ours, value in more.items() if ours in kind.more and value not in (None, '')}

    def _flagged(self, present, enabled):
        how = self.settings.enabled
        if not how.attribute:
            return {}
        if how.mask:
            number = int(present) if str(present).lstrip('-').isdigit() else 0
            return {how.attribute: str(number & ~how.mask if enabled else number | how.mask)}
        return {how.attribute: 'TRUE' if enabled is not how.invert else 'FALSE'}

    def _emulate(self, dn, enabled):
        how = self.settings.enabled
        inside = entries.same(dn) in self._enabled_dns()
        if inside is not enabled:
            verb = ldap3.MODIFY_ADD if enabled else ldap3.MODIFY_DELETE
            self._members(how.group, how.member, [(verb, [dn])], 'update user')

    def update_user(self, user, changes):
        """Bring an entry to ``changes``: ``name``, ``enabled``, ``password`` and what is shown beside. Returns the user."""
        kind = self.settings.users
        self._may(kind, 'update', 'update user')
        if changes.get('name', user.name) != user.name:
            self._free(self.users, changes['name'], 'update user')
        dn = self._rename(kind, user, changes.get('name'), 'update user')
        values = self._changed(kind, changes)
        if changes.get('enabled') is not None and changes['enabled'] is not user.enabled:
            if self.settings.enabled.group:
                self._emulate(dn, changes['enabled'])
            else:
                how = self.settings.enabled
                found = self.pool.search(dn, '(objectClass=*)', ldap3.BASE, [how.attribute])
                present = next((entries.text(shown.get(how.attribute.lower())) for _, shown in found), None)
                values.update(self._flagged(present or how.default, changes['enabled']))
        self._modify(dn, values, 'update user')
        if changes.get('password') is not None:
            self._set_password(dn, changes['password'])
        return self.users_at([dn])[0]

    def _rename(self, kind, entry, name, what):
        """Give an entry another name where that is part of its DN. Returns its DN."""
        if name is None or name == entry.name or kind.rdn.lower() != kind.name.lower():
            return entry.dn
        if kind.key.lower() == kind.name.lower():
            raise errors.Forbidden(f'{what}: the name is what the directory knows this entry by, and cannot be changed.')
        rdn = f'{kind.rdn}={names.escape_rdn(name)}'
        self.pool.change(lambda connection: connection.modify_dn(entry.dn, rdn), what)
        return f'{rdn},{names.safe_dn(entry.dn).split(",", 1)[1]}'

    def _changed(self, kind, changes):
        values = {kind.more[ours]: value for ours, value in changes.items() if ours in kind.more}
        if changes.get('name') is not None and kind.rdn.lower() != kind.name.lower():
            if kind.key.lower() == kind.name.lower():
                raise errors.Forbidden('The name is what the directory knows this entry by, and cannot be changed.')
            values[kind.name] = changes['name']
        return values

    def _modify(self, dn, values, what):
        if values:
            modified = {name: [(ldap3.MODIFY_REPLACE, [value] if value not in (None, '') else [])]
                        for name, value in values.items()}
            self.pool.change(lambda connection: connection.modify(dn, modified), what)

    def _set_password(self, dn, new):
        attribute = self.settings.password
        if attribute.lower() == 'userpassword':
            # The server hashes it.
            self.pool.change(lambda connection: connection.extend.standard.modify_password(dn, None, new) is not False,
                             'change the password')
            return
        value = f'"{new}"'.encode('utf-16-le') if attribute.lower() == 'unicodepwd' else new
        self._modify(dn, {attribute: value}, 'change the password')

    def change_password(self, dn, new):
        """Set a user's password, which has proved to know the old one."""
        self._may(self.settings.users, 'update', 'change the password')
        self._set_password(dn, new)

    def _leave_all(self, user):
        """Take a user out of its groups, as not every server does so by itself."""
        value = user.key if self.settings.member_ids else user.dn
        for group in self.groups_of(user):
            if (value if self.settings.member_ids else entries.same(value)) in group.members:
                self._members(group.dn, self.settings.member, [(ldap3.MODIFY_DELETE, [value])], 'delete user', group)

    def delete_user(self, user):
        """Delete an entry and its memberships."""
        self._may(self.settings.users, 'delete', 'delete user')
        if self.settings.groups.update:
            self._leave_all(user)
        if self.settings.enabled.group and user.enabled:
            self._emulate(user.dn, False)
        self.pool.change(lambda connection: connection.delete(user.dn), 'delete user')

    def create_group(self, name, more):
        """Make an entry. Returns the group."""
        kind = self.settings.groups
        self._may(kind, 'create', 'create group')
        self._free(self.groups, name, 'create group')
        key = self._new_key(kind, name)
        dn, rdn = self._rdn(kind, key, name)
        values = {'objectClass': [kind.object_class], kind.name: name, kind.rdn: rdn, **self._theirs(kind, more)}
        if self._needs_member():
            values[self.settings.member] = entries.NOBODY
        self.pool.change(lambda connection: connection.add(dn, attributes=_folded(values)), 'create group')
        return self._groups(self._read(kind, dn))[0]

    def _needs_member(self):
        return self.settings.groups.object_class.lower() in ('groupofnames', 'groupofuniquenames')

    def update_group(self, group, changes):
        """Bring an entry to ``changes``. Returns the group."""
        kind = self.settings.groups
        self._may(kind, 'update', 'update group')
        if changes.get('name', group.name) != group.name:
            self._free(self.groups, changes['name'], 'update group')
        dn = self._rename(kind, group, changes.get('name'), 'update group')
        self._modify(dn, self._changed(kind, changes), 'update group')
        return self._groups(self._read(kind, dn))[0]

    def delete_group(self, group):
        """Delete an entry."""
        self._may(self.settings.groups, 'delete', 'delete group')
        self.pool.change(lambda connection: connection.delete(group.dn), 'delete group')

    def _members(self, dn, attribute, parts, what, group=None):
        if group is not None and self._needs_member() and parts[0][0] == ldap3.MODIFY_DELETE and len(group.members) == 1:
            parts = [*parts, (ldap3.MODIFY_ADD, [entries.NOBODY])]
        self.pool.change(lambda connection: connection.modify(dn, {attribute: parts}), what)

    def add_member(self, group, user):
        """Put a user into a group; nothing happens where it is in it."""
        self._may(self.settings.groups, 'update', 'add user to group')
        value = user.key if self.settings.member_ids else user.dn
        if (value if self.settings.member_ids else entries.same(value)) in group.members:
            return
        self._members(group.dn, self.settings.member, [(ldap3.MODIFY_ADD, [value])], 'add user to group')

    def remove_member(self, group, user):
        """Take a user out of a group."""
        self._may(self.settings.groups, 'update', 'remove user from group')
        value = user.key if self.settings.member_ids else user.dn
        self._members(group.dn, self.settings.member, [(ldap3.MODIFY_DELETE, [value])], 'remove user from group', group)


def _folded(values):
    # "cn" and "CN" are one attribute to the directory.
    found = {}
    for name, value in values.items():
        found[next((known for known in found if known.lower() == name.lower()), name)] = value
    return found
