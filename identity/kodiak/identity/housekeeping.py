"""What has to be cleared away now and then: expired revocations, memberships, OAuth tokens, old signing keys."""
import datetime

import sqlalchemy as sa

from kodiak.common import db, periodic

from . import changes
from .models import members, oauth_nonces, oauth_tokens

INTERVAL = 600      # seconds


def housekeeping(core):
    """A thread of each API process; what one clears away the others don't find."""
    return periodic.Periodic('housekeeping', lambda: clear(core), INTERVAL)


def clear(core):
    """Clear away what has expired."""
    now = db.utcnow()

    def work(connection):
        changes.purge(connection)
        connection.execute(sa.delete(oauth_tokens).where(oauth_tokens.c.expires_at < now))
        connection.execute(sa.delete(oauth_nonces).where(oauth_nonces.c.seen_at < now - datetime.timedelta(days=1)))
        connection.execute(sa.delete(members).where(members.c.expires_at < now))
    core.db.transact(work)
    core.ring.purge()
    core.state.prune()
