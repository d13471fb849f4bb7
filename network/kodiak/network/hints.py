"""Hints to agents that it is worth asking: a thread of the conductor that follows the journal.

It looks when a process of this service on its host has committed something for agents, and every second for what others did.
Only the agents of hosts concerned are hinted at, and no hint is ever needed: agents ask by themselves every few seconds.
"""
import sqlalchemy as sa

from kodiak.common import periodic

from . import hoststate, models, rpc

INTERVAL = 1.0

_hosts = models.hosts.c
_journal = models.journal.c
_subscriptions = models.subscriptions.c


class Hinter(periodic.Periodic):
    """Follows the journal from where it stands when it starts."""

    def __init__(self, app):
        super().__init__('hints', self.run_once, INTERVAL, at_once=True, hears=(app.db, 'hosts'), expected=sa.exc.SQLAlchemyError)
        self.app = app
        self.client = app.bus.client(rpc.AGENT, rpc.AGENT_TOPIC)
        self._told = None           # the generation up to which agents were hinted at
        self._moves = {}            # host -> the number of changes of what is placed there that it was hinted at

    def run_once(self):
        """Hint at the agents of all hosts concerned by what is new. :returns: the names of the hosts."""
        with self.app.db.read() as conn:
            generation = hoststate.current(conn)
            moved = {row.host: row.changes for row in conn.execute(
                sa.select(_hosts.host, _hosts.changes).where(_hosts.changes != _hosts.subscribed))}
            hosts = {host for host, changes in moved.items() if self._moves.get(host) != changes}
            if self._told is not None and generation > self._told:
                hosts.update(conn.scalars(sa.select(_subscriptions.host).distinct().join(
                    models.journal, _journal.scope == _subscriptions.scope).where(
                        _journal.generation > self._told, _journal.generation <= generation, _subscriptions.ended.is_(False))))
        self._told, self._moves = generation, moved
        for host in sorted(hosts):
            self.client.cast('look', server=host, generation=generation)
        return hosts
