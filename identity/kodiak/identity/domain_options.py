"""Options of domains: which there are, and their storage. Sensitive ones are encrypted and never shown."""
import sqlalchemy as sa

from kodiak.common import errors
from kodiak.common.api import schema

from .models import domain_options

#: Group, option and default of every option that may be set for a domain.
DEFAULTS = {
    'identity': {'driver': 'sql', 'list_limit': None},
    'ldap': {
        'url': 'ldap://localhost', 'user': None, 'suffix': 'cn=example,cn=com', 'query_scope': 'one', 'page_size': 0,
        'alias_dereferencing': 'default', 'debug_level': None, 'chase_referrals': None,
        'user_tree_dn': None, 'user_filter': None, 'user_objectclass': 'inetOrgPerson', 'user_id_attribute': 'cn',
        'user_name_attribute': 'sn', 'user_mail_attribute': 'mail', 'user_description_attribute': 'description',
        'user_pass_attribute': 'userPassword', 'user_enabled_attribute': 'enabled', 'user_enabled_invert': False,
        'user_enabled_mask': 0, 'user_enabled_default': 'True', 'user_attribute_ignore': ['default_project_id'],
        'user_default_project_id_attribute': None, 'user_enabled_emulation': False, 'user_enabled_emulation_dn': None,
        'user_enabled_emulation_use_group_config': False, 'user_additional_attribute_mapping': [],
        'group_tree_dn': None, 'group_filter': None, 'group_objectclass': 'groupOfNames', 'group_id_attribute': 'cn',
        'group_name_attribute': 'ou', 'group_members_are_ids': False, 'group_member_attribute': 'member',
        'group_desc_attribute': 'description', 'group_attribute_ignore': [], 'group_additional_attribute_mapping': [],
        'tls_cacertfile': None, 'tls_cacertdir': None, 'use_tls': False, 'tls_req_cert': 'demand', 'use_pool': True,
        'pool_size': 10, 'pool_retry_max': 3, 'pool_retry_delay': 0.1, 'pool_connection_timeout': -1,
        'pool_connection_lifetime': 600, 'use_auth_pool': True, 'auth_pool_size': 100, 'auth_pool_connection_lifetime': 60,
        'user_allow_create': False, 'user_allow_update': False, 'user_allow_delete': False, 'group_allow_create': False,
        'group_allow_update': False, 'group_allow_delete': False, 'group_ad_nesting': False,
    },
}
SENSITIVE = {('ldap', 'password')}


def check(group, option=None):
    """Refuse a group or an option that cannot be set for a domain."""
    if group is None:
        return
    if group not in DEFAULTS:
        raise errors.Forbidden(f'Invalid domain specific configuration: group {group} is not supported.')
    if option is not None and option not in DEFAULTS[group] and (group, option) not in SENSITIVE:
        raise errors.Forbidden(f'Invalid domain specific configuration: option {option} in group {group} is not supported.')


def validate(config):
    """Refuse a configuration that is empty or names what isn't there."""
    if not config:
        raise errors.Forbidden('Invalid domain specific configuration: no options specified.')
    for group, values in config.items():
        if not isinstance(values, dict) or not values:
            raise errors.Forbidden(f'Invalid domain specific configuration: group {group} must be an object of options.')
        for option in values:
            check(group, option)


def write(core, connection, domain_id, config):
    """Set options; others stay."""
    for group, values in config.items():
        for option, value in values.items():
            sensitive = (group, option) in SENSITIVE
            remove(connection, domain_id, group, option)
            connection.execute(domain_options.insert().values(
                domain_id=domain_id, group=group, option=option, sensitive=sensitive,
                value=core.crypt.encrypt(str(value)) if sensitive else value))
    core.directories.check(read(core, connection, domain_id, secrets=True))
    core.directories.configured(connection, domain_id)


def remove(connection, domain_id, group=None, option=None):
    """Remove options; True if there were any."""
    statement = sa.delete(domain_options).where(domain_options.c.domain_id == domain_id)
    if group is not None:
        statement = statement.where(domain_options.c.group == group)
    if option is not None:
        statement = statement.where(domain_options.c.option == option)
    return connection.execute(statement).rowcount > 0


def read(core, connection, domain_id, secrets=False):
    """``{group: {option: value}}`` of a domain.

    :param secrets: with the sensitive ones, decrypted.
    """
    found = {}
    for row in connection.execute(sa.select(domain_options).where(domain_options.c.domain_id == domain_id)):
        if row.sensitive and not secrets:
            continue
        found.setdefault(row.group, {})[row.option] = core.crypt.decrypt(row.value) if row.sensitive else row.value
    return found


def list_limit(connection, domain_id):
    """How many users or groups a list of a domain shows at most; None where that is not limited."""
    value = connection.execute(sa.select(domain_options.c.value).where(
        domain_options.c.domain_id == domain_id, domain_options.c.group == 'identity',
        domain_options.c.option == 'list_limit')).scalar() if domain_id else None
    found = schema.natural(str(value)) if value is not None else None
    return found or None
