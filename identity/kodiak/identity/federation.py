"""People from elsewhere: from an assertion to a user of ours, its groups and its projects."""
import datetime

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors

from . import changes, directory, mapping, notices, people
from .models import (
    NO_DOMAIN,
    assignments,
    federated_identities,
    groups,
    identity_providers,
    mappings,
    members,
    projects,
    protocols,
    remote_ids,
    users,
)
from .models import roles as role_table


def find(connection, idp_id, protocol_id):
    """``(provider, protocol, rules)`` of an enabled provider's protocol; 403 or 404 otherwise."""
    provider = connection.execute(sa.select(identity_providers).where(identity_providers.c.id == idp_id)).first()
    if provider is None:
        raise errors.NotFound(f'Could not find Identity Provider: {idp_id}.')
    protocol = connection.execute(sa.select(protocols).where(protocols.c.idp_id == idp_id, protocols.c.id == protocol_id)).first()
    if protocol is None:
        raise errors.NotFound(f'Could not find federated protocol {protocol_id} for Identity Provider: {idp_id}.')
    if not provider.enabled:
        raise errors.Forbidden(f'Identity Provider {idp_id} is disabled.')
    rules = connection.execute(sa.select(mappings.c.rules).where(mappings.c.id == protocol.mapping_id)).scalar()
    if rules is None:
        raise errors.NotFound(f'Could not find mapping: {protocol.mapping_id}.')
    return provider, protocol, rules


def check_remote(connection, provider, remote_id):
    """Refuse an assertion that another provider made."""
    known = connection.execute(sa.select(remote_ids.c.remote_id).where(remote_ids.c.idp_id == provider.id)).scalars().all()
    if known and remote_id not in known:
        raise errors.Forbidden('Could not map the issuer of the assertion to the Identity Provider that was asked for.')


def log_in(core, idp_id, protocol_id, assertion, remote_id):
    """The user that an assertion speaks of, made and brought up to date where necessary.

    :returns: ``(user row, what the token says of it: identity provider, protocol and groups; None for a local user)``.
    """
    with core.db.read() as connection:
        provider, protocol, rules = find(connection, idp_id, protocol_id)
        check_remote(connection, provider, remote_id)
    mapped = mapping.apply(rules, assertion)
    if mapped.user.get('type') == 'local':
        return _local(core, mapped), None
    _check(mapped)
    user_id, group_ids = _stored(core, provider, protocol, mapped)
    with core.db.read() as connection:
        user = people.by_id(connection, user_id)
    if not people.enabled(core.conf, user):
        raise errors.Unauthorized()
    return user, {'identity_provider': {'id': idp_id}, 'protocol': {'id': protocol_id},
                  'groups': [{'id': each} for each in group_ids]}


def _local(core, mapped):
    user = directory.user_of(core, mapped.user)
    if user is None or not people.enabled(core.conf, user):
        raise errors.Unauthorized('The mapping names a local user that does not exist or is disabled.')
    return user


def _check(mapped):
    """Refuse what doesn't fit where it is kept: the words come from elsewhere."""
    said = [('name of the user', 240, mapped.user.get('name')), ('id of the user', 255, mapped.user.get('id')),
            ('email address', 255, mapped.user.get('email'))]
    said += [('name of a project', 64, asked['name']) for asked in mapped.projects]
    for what, length, text in said:
        if text is not None and (len(text) > length or '\x00' in text or (text and not text.strip())):
            raise errors.Unauthorized(f'The assertion gives as the {what} what is none: it is blank, has more than {length} '
                                      'characters or a NUL in it.')
    if any(not asked['name'] for asked in mapped.projects):
        raise errors.Unauthorized('The assertion gives a project no name.')


def _stored(core, provider, protocol, mapped):
    for attempt in range(3):
        try:
            return core.db.transact(_shadow, core, provider, protocol, mapped)
        except exc.IntegrityError as error:
            # Somebody logs in for the first time in two places at once: the second time, what is there is found.
            if attempt == 2 or not db.is_duplicate(error):
                raise


def _shadow(connection, core, provider, protocol, mapped):
    unique = mapped.user.get('id') or mapped.user['name']
    name = mapped.user.get('name') or unique
    where = [federated_identities.c.idp_id == provider.id, federated_identities.c.protocol_id == protocol.id,
             federated_identities.c.unique_id == unique]
    user_id = connection.execute(sa.select(federated_identities.c.user_id).where(*where)).scalar()
    extra = {'email': mapped.user['email']} if mapped.user.get('email') else {}
    if user_id is None:
        user_id = db.new_hex()
        connection.execute(users.insert().values(
            id=user_id, domain_id=provider.domain_id, name=_free(connection, provider.domain_id, name), kind='federated',
            enabled=True, extra=extra, options={}, created_at=db.utcnow(), failed_count=0))
        connection.execute(federated_identities.insert().values(
            idp_id=provider.id, protocol_id=protocol.id, unique_id=unique, user_id=user_id))
        notices.tell(connection, 'user', 'created', user_id)
    elif extra:
        row = connection.execute(sa.select(users.c.extra).where(users.c.id == user_id)).one()
        if row.extra.get('email') != extra['email']:
            connection.execute(sa.update(users).where(users.c.id == user_id).values(extra={**row.extra, **extra}))
    group_ids = _groups(connection, provider, mapped)
    _renew(connection, core, provider, user_id, group_ids)
    _provision(connection, core, provider, user_id, mapped)
    return user_id, group_ids


def _free(connection, domain_id, name):
    """The name, or where somebody else has it already one with a number behind it."""
    number, wanted = 1, name
    while connection.execute(sa.select(users.c.id).where(users.c.domain_id == domain_id, users.c.name == wanted)).first():
        number += 1
        wanted = f'{name} ({number})'
    return wanted


def _domain_id(connection, domain, default):
    if not domain:
        return default
    if domain.get('id'):
        return domain['id']
    return connection.execute(sa.select(projects.c.id).where(projects.c.name == domain.get('name'),
                                                             projects.c.is_domain.is_(True))).scalar() or ''


def _groups(connection, provider, mapped):
    found = []
    for group_id in mapped.group_ids:
        if connection.execute(sa.select(groups.c.id).where(groups.c.id == group_id)).first() is None:
            raise errors.Unauthorized(f'The mapping names group {group_id}, which does not exist.')
        found.append(group_id)
    for name, domain in mapped.group_names:
        # What the provider calls a group need not be one here.
        group_id = connection.execute(sa.select(groups.c.id).where(
            groups.c.name == name, groups.c.domain_id == _domain_id(connection, domain, provider.domain_id))).scalar()
        if group_id:
            found.append(group_id)
    return list(dict.fromkeys(found))


def _renew(connection, core, provider, user_id, group_ids):
    """The memberships that this assertion gives last for a while; those of earlier ones run out by themselves."""
    seconds = provider.authorization_ttl * 60 if provider.authorization_ttl else core.conf.token.expiration
    until = db.utcnow() + datetime.timedelta(seconds=seconds)
    kept = set(connection.execute(sa.select(members.c.group_id).where(
        members.c.user_id == user_id, members.c.expires_at.is_(None))).scalars())
    for group_id in group_ids:
        if group_id not in kept:
            db.upsert(connection, members, {'user_id': user_id, 'group_id': group_id, 'expires_at': until}, ['user_id', 'group_id'])
    if group_ids:
        changes.bump(connection, changes.ASSIGNMENT)


def _provision(connection, core, provider, user_id, mapped):
    """Make the projects that the mapping says a user of this kind has, and give it its roles there."""
    for asked in mapped.projects:
        domain_id = _domain_id(connection, asked.get('domain'), provider.domain_id)
        project_id = connection.execute(sa.select(projects.c.id).where(
            projects.c.name == asked['name'], projects.c.domain_id == domain_id)).scalar()
        if project_id is None:
            if connection.execute(sa.select(projects.c.id).where(projects.c.id == domain_id,
                                                                 projects.c.is_domain.is_(True))).first() is None:
                raise errors.Unauthorized('The mapping names a domain for projects that does not exist.')
            project_id = db.new_hex()
            connection.execute(projects.insert().values(
                id=project_id, domain_id=domain_id, parent_id=domain_id, is_domain=False, name=asked['name'], description='',
                enabled=True, extra={}, options={}))
            changes.bump(connection, changes.RESOURCE)
            notices.tell(connection, 'project', 'created', project_id)
        for role in asked['roles']:
            role_id = connection.execute(sa.select(role_table.c.id).where(
                role_table.c.name == role['name'],
                role_table.c.domain_id == _domain_id(connection, role.get('domain'), NO_DOMAIN))).scalar()
            if role_id is None:
                raise errors.Unauthorized(f"The mapping names role {role['name']}, which does not exist.")
            key = {'actor_kind': 'user', 'actor_id': user_id, 'target_kind': 'project', 'target_id': project_id,
                   'role_id': role_id, 'inherited': False}
            if connection.execute(sa.select(assignments.c.role_id).where(
                    *(assignments.c[name] == value for name, value in key.items()))).first() is None:
                connection.execute(assignments.insert().values(key))
                changes.bump(connection, changes.ASSIGNMENT)
                notices.assignment(connection, 'created', key)
