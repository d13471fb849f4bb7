"""Hints to agents that it is worth asking: a thread of the conductor that follows the generations of the hosts.

No hint is ever needed: agents ask by themselves every few seconds.
"""
import logging
import threading

import sqlalchemy as sa

from kodiak.common import wake

from . import models, rpc

LOG = logging.getLogger(__name__)
INTERVAL = 1.0


class Hinter:
    """Looks when a process of this service on its host has changed what a host should do, and every second for others."""

    def __init__(self, app):
        self.app = app
        self.client = app.bus.client(rpc.AGENT, rpc.AGENT_TOPIC)
        self._told = {}
        self._event = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name='hints', daemon=True)

    def start(self):
        """Begin to follow."""
        wake.listen(self.app.db, 'hosts', self._event.set)
        self._thread.start()

    def stop(self):
        """Follow no more."""
        wake.forget(self.app.db, 'hosts', self._event.set)
        self._stopping = True
        self._event.set()
        self._thread.join(10)

    def _loop(self):
        while not self._stopping:
            self._event.clear()
            try:
                self.run_once()
            except sa.exc.SQLAlchemyError as error:
                LOG.warning('The generations of the hosts cannot be read now: %s', error)
            self._event.wait(INTERVAL)

    def run_once(self):
        """Hint at the agents of hosts whose generation grew since the last look. :returns: their names."""
        with self.app.db.read() as connection:
            found = dict(connection.execute(sa.select(models.hosts.c.host, models.hosts.c.generation)).all())
        changed = [host for host, generation in found.items() if self._told.get(host) != generation]
        self._told = found
        for host in changed:
            self.client.cast('look', server=host, generation=found[host])
        return changed
