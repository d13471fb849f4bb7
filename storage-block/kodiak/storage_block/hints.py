"""Hints to agents that it is worth asking: a thread of the conductor that follows the generations of the hosts.

No hint is ever needed: agents ask by themselves every few seconds.
"""
import sqlalchemy as sa

from kodiak.common import periodic

from . import models, rpc

INTERVAL = 1.0


class Hinter(periodic.Periodic):
    """Looks when a process of this service on its host has changed what a host should do, and every second for others."""

    def __init__(self, app):
        super().__init__('hints', self.run_once, INTERVAL, at_once=True, hears=(app.db, 'hosts'), expected=sa.exc.SQLAlchemyError)
        self.app = app
        self.client = app.bus.client(rpc.AGENT, rpc.AGENT_TOPIC)
        self._told = {}

    def run_once(self):
        """Hint at the agents of hosts whose generation grew since the last look. :returns: their names."""
        with self.app.db.read() as connection:
            found = dict(connection.execute(sa.select(models.hosts.c.host, models.hosts.c.generation)).all())
        changed = [host for host, generation in found.items() if self._told.get(host) != generation]
        self._told = found
        for host in changed:
            self.client.cast('look', server=host, generation=found[host])
        return changed
