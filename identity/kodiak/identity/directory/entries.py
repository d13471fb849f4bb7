"""From the entries of a directory to users and groups."""
import dataclasses
import hashlib
import uuid

from ldap3.utils import conv
from ldap3.utils import dn as names

#: As a group of some classes must have a member, an empty one has this.
NOBODY = 'cn=nobody'
ALL = ('*',)


@dataclasses.dataclass(frozen=True)
class User:
    """A user as its directory shows it. ``key``: what never changes; ``more``: what is shown beside (email ...)."""

    key: str
    dn: str
    name: str
    enabled: bool
    project: str | None
    more: dict


@dataclasses.dataclass(frozen=True)
class Group:
    """A group. ``members``: DNs in lower case, or keys of users where the directory writes these."""

    key: str
    dn: str
    name: str
    description: str | None
    more: dict
    members: frozenset


def public_id(domain_id, kind, key):
    """The id that identity gives an entry: the same on every server and for ever, as in Keystone.

    :param kind: ``user`` or ``group``.
    """
    return hashlib.sha256(f'{domain_id}{kind}{key}'.encode()).hexdigest()


def same(dn):
    """A DN in a form in which equal ones are equal texts."""
    try:
        return ','.join(f'{attribute.strip().lower()}={value.strip().lower()}' for attribute, value, _ in names.parse_dn(dn))
    except Exception:
        return dn.strip().lower()


def text(values, attribute=None):
    """The first value of an attribute as text, or None; a binary id in the form of a UUID."""
    if not values:
        return None
    if attribute and attribute.lower() == 'objectguid' and len(values[0]) == 16:
        return str(uuid.UUID(bytes_le=values[0]))
    try:
        return values[0].decode()
    except UnicodeDecodeError:
        return None


def asserted(attribute, value):
    """A value as a search filter writes it."""
    if attribute.lower() == 'objectguid':
        try:
            return conv.escape_bytes(uuid.UUID(value).bytes_le)
        except ValueError:
            pass
    return conv.escape_filter_chars(value)


class Reader:
    """Makes users and groups of entries.

    :param settings: :class:`kodiak.identity.directory.settings.Settings`.
    """

    def __init__(self, settings):
        self.settings = settings

    def attributes(self, kind):
        """What to ask for of users or groups."""
        settings = self.settings
        wanted = {kind.key, kind.name, *kind.more.values()}
        if kind is settings.users:
            wanted |= {settings.enabled.attribute, settings.project}
        else:
            wanted.add(settings.member)
        return sorted(wanted - {None, 'dn'})

    def condition(self, kind, attribute=None, value=None):
        """The filter of all entries of a kind, or of those with a value in an attribute."""
        parts = f'(objectClass={conv.escape_filter_chars(kind.object_class)}){kind.condition}'
        if attribute is not None:
            parts += f'({attribute}={asserted(attribute, value)})'
        return f'(&{parts})'

    def _key(self, kind, dn, found):
        values = found.get(kind.key.lower())
        if values and len(values) > 1:
            # Of several names the one that stands in the DN is the entry's own.
            own = {value.lower() for attribute, value, _ in names.parse_dn(dn)[:1] if attribute.lower() == kind.key.lower()}
            values = [value for value in values if value.decode(errors='replace').lower() in own] or values
        return text(values, kind.key)

    def _more(self, kind, found):
        return {ours: value for ours, theirs in kind.more.items() if (value := text(found.get(theirs.lower()))) is not None}

    def user(self, dn, found, enabled_dns=None):
        """The :class:`User` of an entry, or None for one without id or name.

        :param enabled_dns: DNs of the group that says who is enabled, where there is one.
        """
        kind = self.settings.users
        key, name = self._key(kind, dn, found), text(found.get(kind.name.lower()), kind.name)
        if not key or not name:
            return None
        enabled = same(dn) in enabled_dns if enabled_dns is not None else self._enabled(found)
        project = text(found.get(self.settings.project.lower())) if self.settings.project else None
        return User(key, dn, name, enabled, project, self._more(kind, found))

    def _enabled(self, found):
        how = self.settings.enabled
        value = text(found.get((how.attribute or '').lower()))
        if value is None:
            value = how.default
        if how.mask:
            try:
                return int(value) & how.mask != how.mask
            except ValueError:
                return False
        return (value.strip().lower() in ('true', '1', 'yes', 'on')) is not how.invert

    def group(self, dn, found):
        """The :class:`Group` of an entry, or None for one without id or name."""
        kind = self.settings.groups
        key, name = self._key(kind, dn, found), text(found.get(kind.name.lower()), kind.name)
        if not key or not name:
            return None
        more = self._more(kind, found)
        members = found.get(self.settings.member.lower()) or ()
        members = frozenset(value.decode(errors='replace') if self.settings.member_ids else same(value.decode(errors='replace'))
                            for value in members)
        return Group(key, dn, name, more.pop('description', None), more, members)
