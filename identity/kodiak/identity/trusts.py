"""Trusts: a user (the trustor) lets another (the trustee) act with some of its roles."""
import sqlalchemy as sa

from kodiak.common import db, errors

from . import notices, people, roles, times
from .models import trusts


def find(connection, trust_id):
    """The row of a trust that can be used, as a dictionary; 404 otherwise."""
    row = db.one(connection, sa.select(trusts).where(trusts.c.id == trust_id))
    if row is None or row['deleted_at'] is not None or (row['expires_at'] is not None and row['expires_at'] <= db.utcnow()) \
            or (row['remaining_uses'] is not None and row['remaining_uses'] <= 0):
        raise errors.NotFound(f'Could not find trust: {trust_id}.')
    return row


def scope(core, connection, attempt, trust_id):
    """``(trust, place, roles)`` for a token; sets the attempt's user to whom the token is for.

    :raises Forbidden: it is not the trustee, or the trustor has no longer what was delegated.
    """
    try:
        trust = find(connection, trust_id)
    except errors.NotFound as error:
        raise errors.Unauthorized(error.message) from None
    if attempt.user['id'] != trust['trustee_id']:
        raise errors.Forbidden('The user is not the trustee.')
    trustor = people.by_id(connection, trust['trustor_id'])
    if trustor is None or not people.enabled(core.conf, trustor):
        raise errors.Forbidden('The trustor is disabled.')
    place, held = None, []
    if trust['project_id']:
        place = roles.place(core, connection, trust['project_id'])
        if place is None or not place.enabled:
            raise errors.Unauthorized(f"Could not find project: {trust['project_id']}.")
        has = {role_id for role_id, _ in roles.in_project(core, connection, trust['trustor_id'], place)}
        if any(role_id not in has for role_id in trust['role_ids']):
            raise errors.Forbidden('The trustor no longer has the roles that were delegated.')
        held = roles.graph(core, connection).in_token(trust['role_ids'])
    if trust['impersonation']:
        attempt.user = trustor
    if trust['expires_at'] is not None:
        end = times.seconds(trust['expires_at'])
        attempt.expires = end if attempt.expires is None else min(end, attempt.expires)
    attempt.extra['trust'] = {
        'id': trust['id'], 'impersonation': trust['impersonation'], 'trustor_user': {'id': trust['trustor_id']},
        'trustee_user': {'id': trust['trustee_id']}}
    return trust, place, held


def use(connection, trust_id):
    """Count one use of a trust that allows only so many; 403 if none is left."""
    done = connection.execute(sa.update(trusts).where(trusts.c.id == trust_id, trusts.c.remaining_uses > 0)
                              .values(remaining_uses=trusts.c.remaining_uses - 1))
    if not done.rowcount:
        raise errors.Forbidden(f'The trust {trust_id} has been used as often as it allows.')


def end(core, connection, trust_id):
    """End a trust and those delegated from it; their tokens are revoked."""
    connection.execute(sa.update(trusts).where(trusts.c.id == trust_id).values(deleted_at=db.utcnow()))
    core.revoke(connection, {'trust_id': trust_id})
    notices.tell(connection, 'OS-TRUST:trust', 'deleted', trust_id)
    for child in connection.execute(sa.select(trusts.c.id).where(
            trusts.c.redelegated_trust_id == trust_id, trusts.c.deleted_at.is_(None))).scalars().all():
        end(core, connection, child)


def touching(connection, user_id):
    """Ids of the trusts of which a user is trustor or trustee: what hits the user hits their tokens."""
    return connection.execute(sa.select(trusts.c.id).where(
        trusts.c.deleted_at.is_(None), sa.or_(trusts.c.trustor_id == user_id, trusts.c.trustee_id == user_id))).scalars().all()


def flush(connection, before, project_id=None, trustor_id=None, trustee_id=None):
    """Remove the rows of trusts that ended before a time (naive UTC): their last day came, or they were deleted. Says how many.

    Nobody sees them any more; their tokens are revoked or expired.
    """
    where = [sa.or_(trusts.c.expires_at < before, trusts.c.deleted_at < before)]
    where += [column == value for column, value in (
        (trusts.c.project_id, project_id), (trusts.c.trustor_id, trustor_id), (trusts.c.trustee_id, trustee_id)) if value]
    return connection.execute(sa.delete(trusts).where(*where)).rowcount
