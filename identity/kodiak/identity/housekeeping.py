"""What has to be cleared away now and then: expired revocations, memberships, OAuth tokens, old signing keys."""
import datetime
import logging
import threading

import sqlalchemy as sa

from kodiak.common import db

from . import changes
from .models import members, oauth_nonces, oauth_tokens

LOG = logging.getLogger(__name__)


class Housekeeping:
    """A thread of each API process; what one clears away the others don't find."""

    INTERVAL = 600

    def __init__(self, core):
        self.core = core
        self._stop = threading.Event()
        self._thread = None

    def start(self):
        """Begin."""
        self._thread = threading.Thread(target=self._run, name='housekeeping', daemon=True)
        self._thread.start()

    def stop(self):
        """End."""
        self._stop.set()

    def _run(self):
        while not self._stop.wait(self.INTERVAL):
            try:
                clear(self.core)
            except Exception:
                LOG.exception('Clearing away failed; the next round tries again')


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
