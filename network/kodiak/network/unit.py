"""A unit of work: one write transaction with what has to be told about it.

Whatever changes something that agents must know calls :meth:`Unit.touch`; at the end the journal gets a row for each
changed document, under a generation of its own, in the same transaction. After the commit a conductor is woken, which
hints at the agents concerned. Losing the hint loses nothing: agents ask again by themselves.
"""
import sqlalchemy as sa

from kodiak.common import db, errors, outbox, wake
from kodiak.network import models

KINDS = ('networks', 'ports', 'members', 'security_groups', 'set_members', 'routers', 'floating_ips')
ATTEMPTS = 5


class Again(Exception):
    """The transaction met another that took what it had chosen (a MAC address, an address): run it once more."""


class Unit:
    """One transaction. Attributes: ``app`` (the Runtime), ``conf`` (the section ``[network]``), ``ctx`` (the caller), ``conn``."""

    def __init__(self, app, ctx, conn):
        self.app, self.ctx, self.conn = app, ctx, conn
        self.conf = app.conf.network
        self.memo = {}
        self._touched = {}
        self._moved = set()

    def one(self, query):
        """The first row as a dictionary, or None."""
        return db.one(self.conn, query)

    def all(self, query):
        """Every row as a dictionary."""
        return db.all_dicts(self.conn, query)

    def insert(self, table, values):
        """Insert a row (a dictionary) or rows (a list)."""
        if values:
            self.conn.execute(sa.insert(table), values)

    def update(self, table, key, values, revise=True):
        """Update the row with id ``key``: ``values`` plus, unless ``revise`` is False, a revision and the time."""
        if revise:
            values = {**values, 'revision_number': table.c.revision_number + 1, 'updated_at': db.utcnow()}
        if values:
            self.conn.execute(sa.update(table).where(table.c.id == key).values(values))

    def delete(self, table, *where):
        """Delete rows. :returns: how many."""
        return self.conn.execute(sa.delete(table).where(*where)).rowcount

    def touch(self, kind, item, scope):
        """Note that a document changed, came or went: agents of hosts that are subscribed to ``scope`` are told."""
        self._touched[kind, item, scope] = True

    def touch_network(self, network_id):
        """Note that the document of a network changed."""
        self.touch('networks', network_id, f'network:{network_id}')

    def touch_port(self, port_id, host):
        """Note that the document of a port that is bound to ``host`` changed."""
        self.touch('ports', port_id, f'host:{host}')

    def touch_member(self, port_id, network_id):
        """Note that what a port's neighbours know of it changed."""
        self.touch('members', port_id, f'members:{network_id}')

    def touch_set(self, group_id, port_id):
        """Note that the addresses that a port brings to a security group changed."""
        self.touch('set_members', f'{group_id}/{port_id}', f'set:{group_id}')

    def touch_router(self, router_id):
        """Note that the document of a router changed."""
        self.touch('routers', router_id, f'router:{router_id}')

    def touch_floating(self, floatingip_id, router_id):
        """Note that the document of a floating address on a router changed."""
        self.touch('floating_ips', floatingip_id, f'router:{router_id}')

    def moved(self, *hosts):
        """Note that what is bound to or placed on ``hosts`` changed, so that their subscriptions are worked out again."""
        self._moved.update(host for host in hosts if host)

    def notify(self, event_type, payload, resource_id=None):
        """Have a message delivered after the commit (kodiak.common.outbox)."""
        outbox.add(self.conn, event_type, payload, self.ctx, resource_id)

    def announce(self, what, payload, resource_id):
        """Tell a change on the message bus, where the operator has asked for it."""
        outbox.notify(self.conn, what, payload, self.ctx, resource_id)

    def notify_compute(self, name, port, status=None):
        """Tell compute of an event of a guest's port, once this is committed.

        :param name: ``network-vif-plugged``, ``network-vif-unplugged``, ``network-vif-deleted`` or ``network-changed``.
        :param status: ``failed``, where it did not come to pass.
        """
        if port['device_owner'].startswith('compute:') and port['device_id'] and self.conf.notify_compute:
            self.notify('compute.' + name, {'name': name, 'server_uuid': port['device_id'], 'tag': port['id'], 'status': status},
                        port['device_id'])

    def finish(self):
        """Write the journal; called once, last in the transaction: from here on other writers wait."""
        if not self._touched and not self._moved:
            return
        if self._moved:
            self.conn.execute(sa.update(models.hosts).where(models.hosts.c.host.in_(sorted(self._moved)))
                              .values(changes=models.hosts.c.changes + 1))
        if self._touched:
            generation = next_generation(self.conn)
            now = db.utcnow()
            self.conn.execute(sa.insert(models.journal), [
                {'generation': generation, 'kind': kind, 'item': item, 'scope': scope, 'created_at': now}
                for kind, item, scope in self._touched])
        wake.after_commit(self.conn, 'hosts')


def next_generation(conn):
    """The next number of the journal. The row stays locked until the commit, so numbers appear in their order."""
    counters = models.counters
    change = sa.update(counters).where(counters.c.name == 'journal').values(value=counters.c.value + 1)
    if conn.dialect.update_returning:
        value = conn.execute(change.returning(counters.c.value)).scalar()
    else:
        value = None
        if conn.execute(change).rowcount:
            value = conn.scalar(sa.select(counters.c.value).where(counters.c.name == 'journal'))
    if value is None:
        # The first ever; two at once meet at the primary key, and the loser is run again.
        conn.execute(sa.insert(counters), {'name': 'journal', 'value': 1})
        value = 1
    return value


def run(app, ctx, function, *args):
    """``function(unit, *args)`` in a write transaction; run again where it lost a race.

    :raises errors.Conflict: a row that it refers to went, or is referred to, meanwhile.
    """
    def body(conn):
        unit = Unit(app, ctx, conn)
        result = function(unit, *args)
        unit.finish()
        return result

    for attempt in range(ATTEMPTS):
        try:
            return app.db.transact(body)
        except Again:
            if attempt == ATTEMPTS - 1:
                raise errors.Unavailable('Too many requests wanted the same thing. Try again.')
        except sa.exc.IntegrityError as error:
            # What a transaction checks can change under it on databases with several writers; a second
            # run sees the change and says what is wrong in the API's own words.
            if attempt >= 1:
                raise errors.Conflict('The request conflicts with another that was made at the same time.') from error
    return None
