"""The write side of what processes remember: each transaction that changes something cached says so here.

See :mod:`kodiak.identity.state` for the read side.
"""
import datetime
import time

import sqlalchemy as sa

from kodiak.common import db

from .models import revocations, versions

#: Seconds into the future that an event reaches: whoever logs in while its transaction is not committed yet sees the old
#: state, and must not get away with it. Who logs in afterwards gets a token from behind that moment (``issue.after``).
REACH = 1.0
REVOCATION, CATALOG, RESOURCE, ASSIGNMENT = 'revocation', 'catalog', 'resource', 'assignment'


def bump(connection, *names):
    """Say that what is remembered under ``names`` has changed. Returns the new number of the last one."""
    value = None
    for name in names:
        done = connection.execute(sa.update(versions).where(versions.c.name == name).values(value=versions.c.value + 1))
        if not done.rowcount:
            connection.execute(versions.insert().values(name=name, value=1))
        value = connection.execute(sa.select(versions.c.value).where(versions.c.name == name)).scalar_one()
    return value


def revoke(connection, keep, *events):
    """Revoke tokens, from the commit on.

    :param keep: seconds that a token can live, and thus an event must.
    :param events: dictionaries of conditions; see :class:`kodiak.common.tokens.Revocations`.
    """
    now = db.utcnow()
    for conditions in events:
        event = {'issued_before': time.time() + REACH, **conditions}
        connection.execute(revocations.insert().values(
            sequence=bump(connection, REVOCATION), event=event, revoked_at=now,
            expires_at=now + datetime.timedelta(seconds=keep)))


def purge(connection):
    """Remove events that no token can be covered by any more. Returns how many."""
    return connection.execute(sa.delete(revocations).where(revocations.c.expires_at < db.utcnow())).rowcount
