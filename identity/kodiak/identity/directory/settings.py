"""The options ``[ldap]`` of a domain, read once and checked: how its directory is reached and what it looks like."""
import dataclasses
import ssl

import ldap3
from ldap3.core import exceptions
from ldap3.utils import dn as names

from kodiak.common import errors

SCOPES = {'one': ldap3.LEVEL, 'sub': ldap3.SUBTREE}
ALIASES = {'default': ldap3.DEREF_NEVER, 'never': ldap3.DEREF_NEVER, 'searching': ldap3.DEREF_SEARCH, 'finding': ldap3.DEREF_BASE,
           'always': ldap3.DEREF_ALWAYS}
CHECKS = {'demand': ssl.CERT_REQUIRED, 'allow': ssl.CERT_OPTIONAL, 'never': ssl.CERT_NONE}
#: Attributes that the directory itself draws: no entry can be named by them.
DRAWN = ('objectguid', 'entryuuid', 'nsuniqueid', 'ipauniqueid', 'guid')
PAGE = 500


class Bad(errors.BadRequest):
    """An option has a value that makes no sense."""

    def __init__(self, option, why):
        super().__init__(f'Invalid domain specific configuration: option {option} in group ldap {why}.')


@dataclasses.dataclass(frozen=True)
class Link:
    """How the servers are reached. Times are in seconds; ``lifetime``: after which a connection is not used again."""

    urls: tuple
    user: str | None
    password: str | None = dataclasses.field(repr=False)
    start_tls: bool
    check: int
    ca_file: str | None
    ca_folder: str | None
    timeout: float
    pool_size: int
    lifetime: float
    login_pool_size: int
    login_lifetime: float
    tries: int
    pause: float
    referrals: bool
    aliases: str
    page_size: int


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the users, or the groups, of a directory look like.

    Attributes are names of the directory's: ``key`` (what never changes), ``name``, ``more`` (ours to theirs, what is shown
    beside). ``create``, ``update``, ``delete``: whether identity may write.
    """

    tree: str
    scope: str
    condition: str
    object_class: str
    key: str
    name: str
    more: dict
    create: bool
    update: bool
    delete: bool

    @property
    def rdn(self):
        """The attribute that a new entry is named by."""
        return self.key if self.key.lower() not in DRAWN else 'cn'


@dataclasses.dataclass(frozen=True)
class Enabled:
    """How an entry says whether its user is enabled: an attribute (a flag, or bits of a number), or membership in a group."""

    attribute: str | None
    invert: bool
    mask: int
    default: str
    group: str | None
    member: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of it."""

    link: Link
    users: Kind
    groups: Kind
    enabled: Enabled
    password: str
    project: str | None
    member: str
    member_ids: bool
    nested: bool


def _flag(values, name):
    value = values[name]
    if isinstance(value, bool):
        return value
    text = str(value or '').strip().lower()
    if text in ('true', '1', 'yes', 'on'):
        return True
    if text in ('false', '0', 'no', 'off', ''):
        return False
    raise Bad(name, 'must be true or false')


def _number(values, name, least=0, kind=int):
    try:
        value = kind(values[name])
    except (TypeError, ValueError):
        raise Bad(name, 'must be a number') from None
    if not least <= value < 2 ** 31:
        raise Bad(name, f'must be at least {least}')
    return value


def _text(values, name, otherwise=None):
    value = values[name]
    if value in (None, ''):
        return otherwise
    if not isinstance(value, (str, int)) or len(str(value)) > 2000:
        raise Bad(name, 'must be a string')
    return str(value)


def _choice(values, name, choices):
    try:
        return choices[values[name]]
    except (KeyError, TypeError):
        raise Bad(name, f"must be one of {', '.join(choices)}") from None


def _list(values, name):
    value = values[name] or []
    if isinstance(value, str):
        value = [part.strip() for part in value.split(',') if part.strip()]
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise Bad(name, 'must be a list of strings')
    return value


def _pairs(values, name):
    # "theirs:ours", as operators of LDAP write them
    found = {}
    for pair in _list(values, name):
        theirs, colon, ours = pair.partition(':')
        if not colon or not theirs or not ours:
            raise Bad(name, 'must be a list of "attribute:name"')
        found[ours] = theirs
    return found


def _dn(values, name, otherwise):
    found = _text(values, name, otherwise)
    if found:
        try:
            names.parse_dn(found)
        except (exceptions.LDAPInvalidDnError, IndexError):
            raise Bad(name, 'must be a distinguished name') from None
    return found


def _condition(values, name):
    found = _text(values, name, '')
    if not found:
        return ''
    found = found if found.startswith('(') else f'({found})'
    from ldap3.operation import search
    try:
        search.parse_filter(found, None, False, None, None, False)
    except (exceptions.LDAPInvalidFilterError, exceptions.LDAPObjectClassError, IndexError):
        raise Bad(name, 'must be a search filter') from None
    return found


def _kind(values, prefix, ou, scope, more):
    ignored = {name.lower() for name in _list(values, prefix + '_attribute_ignore')}
    shown = {ours: _text(values, option) for ours, option in more.items() if ours not in ignored}
    shown.update(_pairs(values, prefix + '_additional_attribute_mapping'))
    return Kind(
        tree=_dn(values, prefix + '_tree_dn', f"{ou},{_text(values, 'suffix', '')}".rstrip(',')), scope=scope,
        condition=_condition(values, prefix + '_filter'), object_class=_text(values, prefix + '_objectclass', 'top'),
        key=_text(values, prefix + '_id_attribute', 'cn'), name=_text(values, prefix + '_name_attribute', 'cn'),
        more={ours: theirs for ours, theirs in shown.items() if theirs},
        **{verb: _flag(values, f'{prefix}_allow_{verb}') for verb in ('create', 'update', 'delete')})


def _link(values):
    urls = _list(values, 'url')
    if not urls:
        raise Bad('url', 'must name a server')
    start_tls = _flag(values, 'use_tls')
    if start_tls and any(url.lower().startswith('ldaps://') for url in urls):
        raise Bad('use_tls', 'does not go with an ldaps:// url, which is TLS from its first byte')
    timeout = _number(values, 'pool_connection_timeout', -1, float)
    pooled, login_pooled = _flag(values, 'use_pool'), _flag(values, 'use_auth_pool')
    return Link(
        urls=tuple(urls), user=_text(values, 'user'), password=_text(values, 'password'), start_tls=start_tls,
        check=_choice(values, 'tls_req_cert', CHECKS), ca_file=_text(values, 'tls_cacertfile'),
        ca_folder=_text(values, 'tls_cacertdir'), timeout=timeout if timeout > 0 else 10,
        pool_size=_number(values, 'pool_size', 1), lifetime=_number(values, 'pool_connection_lifetime') if pooled else 0,
        login_pool_size=_number(values, 'auth_pool_size', 1),
        login_lifetime=_number(values, 'auth_pool_connection_lifetime') if login_pooled else 0,
        tries=_number(values, 'pool_retry_max', 1), pause=_number(values, 'pool_retry_delay', 0, float),
        referrals=_flag(values, 'chase_referrals'), aliases=_choice(values, 'alias_dereferencing', ALIASES),
        page_size=_number(values, 'page_size') or PAGE)


def read(values):
    """The :class:`Settings` of the options of a domain.

    :param values: every option of group ``ldap``, defaults included, by name. :raises BadRequest: naming the option.
    """
    scope = _choice(values, 'query_scope', SCOPES)
    users = _kind(values, 'user', 'ou=Users', scope, {'email': 'user_mail_attribute', 'description': 'user_description_attribute'})
    groups = _kind(values, 'group', 'ou=UserGroups', scope, {'description': 'group_desc_attribute'})
    member = _text(values, 'group_member_attribute', 'member')
    emulated = _flag(values, 'user_enabled_emulation')
    return Settings(
        link=_link(values), users=users, groups=groups,
        enabled=Enabled(
            attribute=None if emulated else _text(values, 'user_enabled_attribute'), invert=_flag(values, 'user_enabled_invert'),
            mask=_number(values, 'user_enabled_mask'), default=str(values['user_enabled_default']),
            group=_dn(values, 'user_enabled_emulation_dn', 'cn=enabled_users,' + users.tree) if emulated else None,
            member=member if _flag(values, 'user_enabled_emulation_use_group_config') else 'member'),
        password=_text(values, 'user_pass_attribute', 'userPassword'), project=_text(values, 'user_default_project_id_attribute'),
        member=member, member_ids=_flag(values, 'group_members_are_ids'), nested=_flag(values, 'group_ad_nesting'))
