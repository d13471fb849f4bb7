"""The table ``services``: which processes of a service run on which host, since when, and whether they may work.

Processes with the database beat for themselves (:class:`Heartbeat`); a conductor beats for the agents that
ask it (:func:`report`). The APIs' lists of services and agents, and ``kodiak status``, are read from here.
"""
import datetime

import sqlalchemy as sa

from kodiak.common import db, periodic

INTERVAL = 10        # seconds between two beats
DOWN_AFTER = 60      # seconds of silence after which a process counts as down

_metadata = db.metadata()
services = sa.Table(
    'services', _metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('binary', sa.String(255), nullable=False),
    sa.Column('topic', sa.String(255)),
    sa.Column('report_count', sa.Integer, nullable=False),
    sa.Column('started_at', sa.DateTime),
    sa.Column('last_seen_at', sa.DateTime),
    sa.Column('disabled', sa.Boolean, nullable=False),
    sa.Column('disabled_reason', sa.String(255)),
    sa.Column('forced_down', sa.Boolean, nullable=False),
    sa.Column('version', sa.String(32)),
    sa.Column('details', db.JSON),                   # what the process says of itself (an agent's configurations)
    sa.Column('created_at', sa.DateTime, nullable=False),
    sa.Column('updated_at', sa.DateTime),
    sa.UniqueConstraint('host', 'binary'))


def tables(metadata):
    """Add the table ``services`` to a service's metadata."""
    return services.to_metadata(metadata)


def report(connection, host, binary, topic=None, *, started_at=None, version=None, details=None, now=None):
    """Note that a process is alive: one UPDATE, or the INSERT of a process never seen before.

    :param details: replaces what the process said of itself before, unless None.
    :returns: the row as a dictionary if the process is new here, else None.
    """
    now = now or db.utcnow()
    values = {'last_seen_at': now, 'report_count': services.c.report_count + 1}
    if details is not None:
        values['details'] = details
    if started_at is not None:
        values['started_at'] = started_at
    if version is not None:
        values['version'] = version
    changed = connection.execute(sa.update(services).where(
        services.c.host == host, services.c.binary == binary).values(values)).rowcount
    if changed:
        return None
    row = {'id': db.new_id(), 'host': host, 'binary': binary, 'topic': topic, 'report_count': 1,
           'started_at': started_at or now, 'last_seen_at': now, 'disabled': False, 'forced_down': False,
           'version': version, 'details': details or {}, 'created_at': now}
    connection.execute(sa.insert(services), row)
    return row


def is_up(row, now=None, down_after=DOWN_AFTER):
    """True if the process of a row of ``services`` beat lately and was not forced down."""
    if row['forced_down'] or row['last_seen_at'] is None:
        return False
    return (now or db.utcnow()) - row['last_seen_at'] < datetime.timedelta(seconds=down_after)


def since(row, now=None):
    """When the process came up if it is up, else when it was last seen (a datetime, or None)."""
    return row['started_at'] if is_up(row, now) else row['last_seen_at']


def query(binary=None, host=None):
    """The SELECT of all processes, or of those with that binary or host, in a stable order."""
    select = sa.select(services).order_by(services.c.binary, services.c.host)
    if binary is not None:
        select = select.where(services.c.binary == binary)
    if host is not None:
        select = select.where(services.c.host == host)
    return select


class Heartbeat(periodic.Periodic):
    """Beats for this process from a thread.

    :param details: a function that returns what the process says of itself, or None.
    """

    def __init__(self, database, host, binary, topic=None, version=None, details=None, interval=INTERVAL,
                 started_at=None):
        super().__init__('heartbeat', self.beat, interval, at_once=True, expected=Exception)
        self.db, self.host, self.binary, self.topic, self.version = database, host, binary, topic, version
        self.details = details
        self.started_at = started_at or db.utcnow()

    def beat(self):
        """Beat once."""
        self.db.transact(report, self.host, self.binary, self.topic, started_at=self.started_at, version=self.version,
                         details=self.details() if self.details else None)
