"""The outbox: notifications written in the transaction of what they tell, delivered afterwards.

:func:`add` writes a row; a :class:`Publisher` delivers rows at least once, those of one resource in the
order in which they were written, and deletes them. While the other side is away they wait in the table.
"""
import logging
import os
import time
import uuid
import weakref

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, metrics, noeventlet, periodic, wake
from kodiak.common.context import Context, background

LOG = logging.getLogger(__name__)

_metadata = db.metadata()
_number = sa.BigInteger().with_variant(sa.Integer, 'sqlite')
rows = sa.Table(
    'outbox', _metadata,
    sa.Column('id', _number, primary_key=True, autoincrement=True),
    sa.Column('message_id', sa.String(36), nullable=False),
    sa.Column('event_type', sa.String(255), nullable=False),
    sa.Column('resource_id', sa.String(255), index=True),        # None: in order with nothing else
    sa.Column('payload', db.JSON),
    sa.Column('context', db.JSON),
    sa.Column('created_at', sa.DateTime, nullable=False),
    sa.Column('next_run_at', sa.Double, nullable=False, index=True),
    sa.Column('lease_owner', sa.String(128)),
    sa.Column('lease_until', sa.Double, nullable=False),
    sa.Column('attempts', sa.Integer, nullable=False),
    sqlite_autoincrement=True)


def tables(metadata):
    """Add the table ``outbox`` to a service's metadata."""
    return rows.to_metadata(metadata)


def add(connection, event_type, payload, context=None, resource_id=None):
    """Have a message delivered once the caller's transaction is committed.

    :param event_type: its topic in dots (``compute.instance.create.end``).
    :param payload: JSON; no secrets.
    :param resource_id: messages with the same one are delivered in their order.
    """
    values = context.to_dict() if context is not None else None
    if values:
        values.pop('auth_token', None)
    now = time.time()
    connection.execute(sa.insert(rows), {
        'message_id': str(uuid.uuid4()), 'event_type': event_type, 'resource_id': resource_id, 'payload': payload,
        'context': values, 'created_at': db.utcnow(), 'next_run_at': now, 'lease_until': 0.0, 'attempts': 0})
    wake.after_commit(connection, 'outbox')


_announced = weakref.WeakKeyDictionary()      # engines whose changes are told, with the event types that are not


def announce(database, disabled=()):
    """Have this process write the notifications of what it changes in ``database``, see :func:`notify`.

    :param disabled: event types that are not told, whole or by their first words: ``image.member`` stands for all that begin so.
    """
    _announced[database.engine] = tuple(disabled)


def announced(connection, event_type=None):
    """True if somebody wants to be told of changes, or of this one: where not, it is not worth finding out what to tell."""
    disabled = _announced.get(connection.engine)
    if disabled is None or event_type is None:
        return disabled is not None
    return not any(event_type == one or event_type.startswith(one + '.') for one in disabled)


def notify(connection, event_type, payload, context=None, resource_id=None):
    """:func:`add` for notifications on the message bus, where the operator has asked for them (``[notifications] topics``)."""
    if announced(connection, event_type):
        add(connection, event_type, payload, context, resource_id)


_earlier = rows.alias()
_due = sa.select(rows.c.id).where(
    rows.c.next_run_at <= sa.bindparam('now'), rows.c.lease_until <= sa.bindparam('now'),
    ~sa.exists().where(_earlier.c.resource_id == rows.c.resource_id, _earlier.c.id < rows.c.id),
).order_by(rows.c.id).limit(100)
_lease = sa.update(rows).where(
    rows.c.id.in_(sa.bindparam('ids', expanding=True)), rows.c.lease_until <= sa.bindparam('now'),
).values(lease_owner=sa.bindparam('owner'), lease_until=sa.bindparam('until'))
_leased = sa.select(rows).where(rows.c.id.in_(sa.bindparam('ids', expanding=True)),
                                rows.c.lease_owner == sa.bindparam('owner')).order_by(rows.c.id)


class Publisher(periodic.Periodic):
    """Delivers the outbox of this service from a thread; several processes may run one.

    :param app: the process's Runtime.
    :param sinks: ``{prefix: sink}``; the longest prefix of the event type decides. ``sink(message)`` takes a
        dictionary ``message_id, event_type, resource_id, payload, context (a Context), created_at, attempts``,
        raises if it could not deliver, and may get a message twice. A message without a sink is dropped.
    """

    LEASE = 60.0

    def __init__(self, app, sinks, poll=2.0, max_backoff=30.0, clock=time.time):
        super().__init__('outbox', self.run_due, poll, at_once=True, hears=(app.db, 'outbox'), expected=exc.SQLAlchemyError)
        self.db, self.sinks, self.max_backoff, self.clock = app.db, dict(sinks), max_backoff, clock
        self.owner = f'{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}'
        self._batch = 0

    def start(self):
        """Begin to deliver."""
        super().start()
        metrics.collect('outbox', self._collect)

    def stop(self, timeout=10):
        """Deliver no more; wait for the message that is being delivered."""
        metrics.forget('outbox', self._collect)
        super().stop(timeout)

    def run_due(self):
        """Deliver all that is due, in the calling thread. :returns: how many were delivered."""
        count = 0
        while leased := self._lease_some():
            count += self._deliver(leased)
        return count

    def _lease_some(self):
        now = self.clock()
        with self.db.read() as connection:
            ids = list(connection.scalars(_due, {'now': now}))
        if not ids or self.stopping:
            return []
        self._batch += 1
        owner = f'{self.owner}/{self._batch}'

        def lease(connection):
            connection.execute(_lease, {'ids': ids, 'now': now, 'owner': owner, 'until': now + self.LEASE})
            return db.all_dicts(connection, _leased.params(ids=ids, owner=owner))
        return self.db.transact(lease)

    def _deliver(self, leased):
        done, failed = [], []
        until = self.clock() + self.LEASE / 2
        for row in leased:
            if self.stopping or self.clock() > until:
                failed.append((row, 0.0, 0))
                continue
            age = (db.utcnow() - row['created_at']).total_seconds()
            topic = row['event_type'].partition('.')[0]
            try:
                sink = self._sink(row['event_type'])
                if sink is not None:
                    sink({**row, 'context': Context.from_dict(row['context']) if row['context'] else background()})
                done.append(row['id'])
                metrics.outbox(topic, 'delivered' if sink else 'dropped', age)
            except Exception as error:
                metrics.outbox(topic, 'failed', age)
                LOG.log(logging.WARNING if row['attempts'] % 10 == 2 else logging.INFO,
                        'Message %s (%s) could not be delivered (try %d): %s', row['message_id'], row['event_type'],
                        row['attempts'] + 1, error)
                failed.append((row, min(self.max_backoff, 0.5 * 2 ** min(row['attempts'], 10)), 1))

        def record(connection):
            if done:
                connection.execute(sa.delete(rows).where(rows.c.id.in_(done)))
            for row, pause, attempt in failed:
                connection.execute(sa.update(rows).where(rows.c.id == row['id']).values(
                    lease_until=0.0, next_run_at=self.clock() + pause, attempts=row['attempts'] + attempt))
        self.db.transact(record)
        return len(done)

    def _sink(self, event_type):
        found = [prefix for prefix in self.sinks if event_type.startswith(prefix)]
        return self.sinks[max(found, key=len)] if found else None

    def _collect(self):
        with self.db.read() as connection:
            count, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(rows.c.created_at))).one()
        yield {}, count, (db.utcnow() - oldest).total_seconds() if oldest else 0


class Notifier:
    """A sink: notifications on the oslo bus (``notifications.info``), in the JSON envelope 2.0.

    :param conf: the configuration with ``transport_url``.
    :param publisher_id: who tells (``compute.host1``).
    :param topics: those of ``[notifications]``, if None. What ends in ``.error`` goes to ``<topic>.error``.
    :param bare: the event type is told without that ending, as consumers of some services know it.
    """

    def __init__(self, conf, publisher_id, topics=None, bare=False):
        self.conf, self.publisher_id, self.bare = conf, publisher_id, bare
        self.topics = topics if topics is not None else conf.notifications.topics
        self._transport = None

    def __call__(self, message):
        """Publish one message. :raises ConnectionError: the broker is away."""
        from kodiak.common import oslobus
        if not oslobus.reachable(self.conf):
            raise ConnectionError('the message broker cannot be reached')
        oslo_messaging = noeventlet.import_messaging()
        if self._transport is None:
            self._transport = oslobus.notification_transport(self.conf)
        context = message['context'].to_dict()
        context.pop('auth_token', None)
        event_type = message['event_type']
        priority = 'error' if event_type.endswith('.error') else 'info'
        body = {'message_id': message['message_id'], 'publisher_id': self.publisher_id, 'priority': priority.upper(),
                'event_type': event_type.removesuffix('.error') if self.bare else event_type, 'payload': message['payload'],
                'timestamp': message['created_at'].isoformat(sep=' ')}
        # The library's own Notifier only logs what it could not send; its transport says so.
        for topic in self.topics:
            self._transport._send_notification(oslo_messaging.Target(topic=f'{topic}.{priority}'), context, body,
                                               version=2.0, retry=1)
