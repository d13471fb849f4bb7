"""Users: finding them, checking their passwords, and the rules that passwords follow."""
import datetime
import re

import sqlalchemy as sa

from kodiak.common import db, errors

from . import changes, notices
from .models import app_credentials, assignments, credentials, oauth_tokens, passwords, projects, trusts, users

domains = projects.alias('domains')
_USER = sa.select(users, domains.c.name.label('domain_name'), domains.c.enabled.label('domain_enabled')).join_from(
    users, domains, users.c.domain_id == domains.c.id)
_BY_ID = _USER.where(users.c.id == sa.bindparam('id'))
_BY_NAME = _USER.where(users.c.name == sa.bindparam('name'), users.c.domain_id == sa.bindparam('domain_id'))
_BY_NAMES = _USER.where(users.c.name == sa.bindparam('name'), domains.c.name == sa.bindparam('domain_name'),
                        domains.c.is_domain.is_(True))
PASSWORD = sa.select(passwords).where(passwords.c.user_id == sa.bindparam('user_id')).order_by(
    passwords.c.id.desc()).limit(1)


def by_id(connection, user_id):
    """A user's row with ``domain_name`` and ``domain_enabled``, or None."""
    return db.as_dict(connection.execute(_BY_ID, {'id': user_id}).first())


def by_reference(connection, reference):
    """The user that an authentication request names (``{id}``, or ``{name, domain: {id or name}}``), or None.

    :raises BadRequest: if it names nobody.
    """
    if reference.get('id'):
        return by_id(connection, reference['id'])
    domain = reference.get('domain') or {}
    if not reference.get('name') or not (domain.get('id') or domain.get('name')):
        raise errors.BadRequest('A user is named by its id, or by its name and its domain (user.id, user.name, user.domain).')
    if domain.get('id'):
        found = connection.execute(_BY_NAME, {'name': reference['name'], 'domain_id': domain['id']})
    else:
        found = connection.execute(_BY_NAMES, {'name': reference['name'], 'domain_name': domain['name']})
    return db.as_dict(found.first())


def enabled(conf, user):
    """True if a user and its domain may be used now."""
    return bool(user['enabled'] and user['domain_enabled'] and not inactive(conf, user))


def inactive(conf, user):
    """True if a user has not logged in for so long that it counts as disabled."""
    days = conf.security_compliance.disable_user_account_days_inactive
    if not days or user['options'].get('ignore_user_inactivity'):
        return False
    seen = user['last_active_on'] or user['created_at'].date()
    return (db.utcnow().date() - seen).days >= days


def log_in(core, user, password):
    """Check a password; count failures, lock out, upgrade the hash.

    :raises Unauthorized: with no hint about what was wrong, except for an expired password.
    """
    conf = core.conf.security_compliance
    if user is None:
        core.hasher.waste(password)
        raise errors.Unauthorized()
    if _locked_out(conf, user):
        core.hasher.waste(password)
        raise _because(errors.Unauthorized(), f'Maximum number of {conf.lockout_failure_attempts} login attempts exceeded.')
    row = None
    if user['kind'] == 'ldap':
        good = core.directories.check_password(user, password)
    else:
        with core.db.read() as connection:
            row = connection.execute(PASSWORD, {'user_id': user['id']}).first()
        if row is None:
            core.hasher.waste(password)
            raise errors.Unauthorized()
        good = core.hasher.verify(password, row.hash)
    if not good:
        failed(core, user)
        raise errors.Unauthorized()
    if not enabled(core.conf, user):
        raise errors.Unauthorized()
    _note_success(core, user, row, password)
    if row is not None and row.expires_at is not None and row.expires_at <= db.utcnow():
        message = f"The password is expired and needs to be changed for user: {user['id']}."
        raise _because(errors.Unauthorized(message), message)


def _because(error, reason):
    # What notifications say, and the answer need not.
    error.reason = (error.code, reason)
    return error


def _locked_out(conf, user):
    limit = conf.lockout_failure_attempts
    if not limit or user['failed_count'] < limit or user['options'].get('ignore_lockout_failure_attempts'):
        return False
    if not conf.lockout_duration or user['failed_at'] is None:
        return True
    return db.utcnow() < user['failed_at'] + datetime.timedelta(seconds=conf.lockout_duration)


def may_try(core, user):
    """True if a user is enabled and not locked out."""
    return enabled(core.conf, user) and not _locked_out(core.conf.security_compliance, user)


def failed(core, user):
    """Count a wrong password or passcode, where that locks out."""
    conf = core.conf.security_compliance
    if conf.lockout_failure_attempts and not user['options'].get('ignore_lockout_failure_attempts'):
        core.db.transact(_count_failure, user)


def _count_failure(connection, user):
    connection.execute(sa.update(users).where(users.c.id == user['id']).values(
        failed_count=users.c.failed_count + 1, failed_at=db.utcnow()))


def _note_success(core, user, row, password):
    values, fresh = {}, None
    if user['failed_count']:
        values.update(failed_count=0, failed_at=None)
    today = db.utcnow().date()
    if core.conf.security_compliance.disable_user_account_days_inactive and user['last_active_on'] != today:
        values['last_active_on'] = today
    if row is not None and core.hasher.outdated(row.hash):
        fresh = core.hasher.hash(password)

    def note(connection):
        if values:
            connection.execute(sa.update(users).where(users.c.id == user['id']).values(values))
        if fresh:
            connection.execute(sa.update(passwords).where(passwords.c.id == row.id, passwords.c.hash == row.hash)
                               .values(hash=fresh))
    if values or fresh:
        core.db.transact(note)


def check_strength(core, password, user=None):
    """Refuse a password that is too long or doesn't match ``[security_compliance] password_regex``.

    :param user: the row of whose it was to become; None for a new user.
    """
    conf = core.conf.security_compliance
    if len(password) > core.conf.identity.max_password_length:
        raise errors.BadRequest(f'Invalid input for field/attribute password: it has more than '
                                f'{core.conf.identity.max_password_length} characters.')
    if conf.password_regex and not re.match(conf.password_regex, password):
        _refuse(core, user, 'The password does not match the requirements: '
                            f"{conf.password_regex_description or 'ask the operator for them'}.")


def _refuse(core, user, message):
    if user is not None:
        notices.refused(core, user, (400, message))
    raise errors.BadRequest(message)


def expiry(core, user, self_service, now):
    """When a password that is set now expires, or None."""
    conf, options = core.conf.security_compliance, user['options']
    if (conf.change_password_upon_first_use and not self_service
            and not options.get('ignore_change_password_upon_first_use')):
        return now
    if conf.password_expires_days and not options.get('ignore_password_expiry'):
        return now + datetime.timedelta(days=conf.password_expires_days)
    return None


def add_password(core, connection, user, hashed, self_service):
    """Store a new password of a user and forget those that the history doesn't need. The user's row must be there."""
    now = db.utcnow()
    expires = expiry(core, user, self_service, now)
    connection.execute(passwords.insert().values(user_id=user['id'], hash=hashed, created_at=now, expires_at=expires,
                                                 self_service=self_service))
    connection.execute(sa.update(users).where(users.c.id == user['id']).values(password_expires_at=expires, failed_count=0,
                                                                               failed_at=None))
    keep = max(core.conf.security_compliance.unique_last_password_count, 1)
    stale = connection.execute(sa.select(passwords.c.id).where(passwords.c.user_id == user['id'])
                               .order_by(passwords.c.id.desc()).offset(keep)).scalars().all()
    if stale:
        connection.execute(sa.delete(passwords).where(passwords.c.id.in_(stale)))
    return expires


def change_password(core, user, old, new):
    """A user changes its own password.

    :raises Unauthorized: wrong old password. :raises BadRequest: the new one breaks a rule. :raises Forbidden: locked.
    """
    conf = core.conf.security_compliance
    if user['kind'] == 'ldap':
        log_in(core, user, old)
        _may_change(user, old, new)
        check_strength(core, new, user)
        core.directories.change_password(user, new)
        return
    with core.db.read() as connection:
        rows = connection.execute(sa.select(passwords).where(passwords.c.user_id == user['id'])
                                  .order_by(passwords.c.id.desc())).all()
    if not rows or _locked_out(conf, user):
        core.hasher.waste(old)
        notices.authenticated(core, 'failure', user)
        raise errors.Unauthorized()
    if not core.hasher.verify(old, rows[0].hash):
        failed(core, user)
        notices.authenticated(core, 'failure', user)
        raise errors.Unauthorized()
    _may_change(user, old, new)
    check_strength(core, new, user)
    if conf.minimum_password_age and rows[0].self_service:
        earliest = rows[0].created_at + datetime.timedelta(days=conf.minimum_password_age)
        if db.utcnow() < earliest:
            _refuse(core, user, f'This password may be changed from {earliest.isoformat()}Z on, not earlier.')
    if conf.unique_last_password_count:
        for row in rows[:max(conf.unique_last_password_count, 1)]:
            if core.hasher.verify(new, row.hash):
                _refuse(core, user, f'The new password must differ from the last {conf.unique_last_password_count} passwords.')
    hashed = core.hasher.hash(new)

    def store(connection):
        add_password(core, connection, user, hashed, self_service=True)
        core.revoke(connection, {'user_id': user['id']})
        notices.tell(connection, 'user', 'updated', user['id'])
    core.db.transact(store)


def _may_change(user, old, new):
    if user['options'].get('lock_password'):
        raise errors.BadRequest('This password is locked and cannot be changed by its user.')
    if old == new:
        raise errors.BadRequest('The new password must not be the same as the old password.')


def forget(core, connection, user_ids):
    """Remove what refers to users without a foreign key, and revoke their tokens. Before their rows are deleted.

    Application credentials go here too: a database that follows foreign keys by itself does so in an order of its own, and access
    rules cannot go while a credential uses them.
    """
    core.revoke(connection, *({'user_id': user_id} for user_id in user_ids))
    for user_id in user_ids:
        connection.execute(sa.delete(assignments).where(assignments.c.actor_kind == 'user', assignments.c.actor_id == user_id))
        connection.execute(sa.delete(credentials).where(credentials.c.user_id == user_id))
        connection.execute(sa.delete(app_credentials).where(app_credentials.c.user_id == user_id))
        connection.execute(sa.update(trusts).where(trusts.c.deleted_at.is_(None),
                                                   sa.or_(trusts.c.trustor_id == user_id, trusts.c.trustee_id == user_id))
                           .values(deleted_at=db.utcnow()))
        connection.execute(sa.delete(oauth_tokens).where(oauth_tokens.c.user_id == user_id))
        notices.tell(connection, 'user', 'deleted', user_id)
    if user_ids:
        changes.bump(connection, changes.ASSIGNMENT)
