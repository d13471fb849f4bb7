"""``kodiak-storage-block-conductor``: answers agents, runs the sagas, and looks after what nobody asked for.

Several conductors may run: what they do is done in transactions that look first.
"""
import base64
import logging

import sqlalchemy as sa

from kodiak.common import db, errors, heartbeat, outbox, periodic, saga

from . import attach, hints, keys, log_levels, models, rpc, sagas, scheduler, states, store, work
from .models import attachments, backends, hosts, messages, volumes

LOG = logging.getLogger(__name__)
INTERVAL = 15.0                 # seconds between two looks at what nobody asked for
TABLES = (models.volumes, models.snapshots, models.backups, models.groups, models.group_snapshots)


class Handlers(log_levels.Handlers):
    """What agents ask (``rpc.CONDUCTOR``)."""

    def __init__(self, app):
        self.app, self.db = app, app.db

    def register(self, context, host, backends, agent):
        """See the table."""
        generation = self.db.transact(register, self.app.conf, host, backends, agent)
        return {'generation': generation}

    def host_state(self, context, host, since):
        """See the table."""
        with self.db.read() as connection:
            generation = connection.scalar(sa.select(hosts.c.generation).where(hosts.c.host == host))
            if generation is None:
                return {'generation': 0, 'work': [], 'exports': []}
            if generation == since:
                return {'generation': generation}
            todo, exports = work.wanted(connection, host)
        return {'generation': generation, 'work': todo, 'exports': exports}

    def report(self, context, host, results, exports):
        """See the table."""
        def write(connection):
            for result in results:
                work.reported(connection, host, result)
            for export in exports:
                attach.reported(connection, host, export)
        self.db.transact(write)

    def progress(self, context, host, number, percent):
        """See the table."""
        changed = self.db.transact(lambda connection: connection.execute(models.work.update().where(
            models.work.c.number == number, models.work.c.host == host, models.work.c.state == 'wanted').values(
                percent=max(0, min(100, int(percent))))).rowcount)
        return bool(changed)

    def key(self, context, host, key_id):
        """See the table."""
        mine = sa.select(backends.c.name).where(backends.c.host == host)
        with self.db.read() as connection:
            if connection.scalar(sa.select(volumes.c.id).join(models.keys, models.keys.c.owner_id == volumes.c.id).where(
                    models.keys.c.id == key_id, volumes.c.backend.in_(mine) | volumes.c.target.in_(mine))) is None:
                raise errors.NotFound(f'{host} has no volume with the key {key_id}.')
            return {'passphrase': base64.b64encode(keys.passphrase(connection, self.app.conf, key_id)).decode()}


def register(connection, conf, host, found, agent):
    """Take what a host says of its back ends; returns its generation."""
    now = db.utcnow()
    row = db.one(connection, sa.select(hosts).where(hosts.c.host == host))
    if row is None:
        connection.execute(hosts.insert(), {'host': host, 'generation': 1, 'last_seen_at': now, 'agent': agent})
    else:
        connection.execute(hosts.update().where(hosts.c.host == host).values(last_seen_at=now, agent=agent))
    known = {entry.name: entry for entry in connection.execute(sa.select(backends).where(backends.c.host == host))}
    said = {'started_at': db.parse_time(agent['started_at']) if agent.get('started_at') else None, 'version': agent.get('version'),
            'now': now}
    for stats in found:
        name = f'{host}@{stats["name"]}'
        values = {'zone': stats.get('zone') or conf.storage_block.default_availability_zone, 'stats': stats, 'seen_at': now}
        if name in known:
            connection.execute(backends.update().where(backends.c.name == name).values(values))
        else:
            connection.execute(backends.insert(), {'name': name, 'host': host, 'frozen': False, 'created_at': now, **values})
        heartbeat.report(connection, name, scheduler.BINARY, rpc.AGENT_TOPIC, **said)
    for name in known.keys() - {f'{host}@{stats["name"]}' for stats in found}:
        # It was configured away: nothing is sent there any more, from now on and not when its silence is noticed.
        if not known[name].stats.get('error'):
            connection.execute(backends.update().where(backends.c.name == name).values(
                stats={**known[name].stats, 'error': 'Its host has it no more.'}))
    if agent.get('backup'):
        heartbeat.report(connection, host, scheduler.BACKUP_BINARY, rpc.AGENT_TOPIC, **said)
    return 1 if row is None else row['generation']


class Watch(periodic.Periodic):
    """Looks every few seconds for what nobody works on any more: past its deadline, or left behind."""

    def __init__(self, app, interval=INTERVAL):
        super().__init__('watch', self.look, interval)
        self.app, self.db = app, app.db

    def look(self):
        """Look once."""
        now = db.utcnow()
        for table in TABLES:
            with self.db.read() as connection:
                late = list(connection.scalars(sa.select(table.c.id).where(table.c.deadline < now).limit(100)))
            for row_id in late:
                self.db.transact(heal, table, row_id)
        self.db.transact(work.forget)
        self.db.transact(lambda connection: connection.execute(messages.delete().where(messages.c.expires_at < now)))


def heal(connection, table, row_id):
    """Bring a row that is past its deadline, and that nobody works on, to a stable status."""
    row = store.lock(connection, table, row_id)
    if row is None or row['deadline'] is None or row['deadline'] > db.utcnow() or saga.active(connection, row_id):
        return
    transient = states.OF[table.name][row['status']]
    LOG.warning('%s %s was %s for more than %d seconds', store.KINDS[table.name], row_id, row['status'], transient.deadline)
    kept = row['status'] == states.ATTACHING and not store.attachments_of(connection, row_id)
    if transient.late is not states.AS_ATTACHED and not kept:
        store.save(connection, table, row, status=transient.late)
        return
    if row['status'] == states.DETACHING:
        # What was to go away stays: the other side never said that it is gone.
        connection.execute(attachments.update().where(
            attachments.c.volume_id == row_id, attachments.c.attach_status == 'detaching').values(attach_status='attached'))
    store.settle(connection, row, claimed=row['size'])


class ComputeSink:
    """Tells compute of events of attached volumes (``POST /os-server-external-events``)."""

    def __init__(self, app):
        self.app = app

    def __call__(self, message):
        """Deliver one message of the outbox. A server that compute does not know needs to hear nothing."""
        try:
            self.app.clients.compute.post('/v2.1/os-server-external-events', {'events': [message['payload']]},
                                          context=message['context'], as_service=True,
                                          headers={'OpenStack-API-Version': 'compute 2.93'})
        except (errors.NotFound, errors.BadRequest) as error:
            LOG.info('compute does not take %s: %s', message['payload'], error)


def build(app):
    """Make the parts of a conductor process."""
    sinks = {'compute.': ComputeSink(app)}
    if app.conf.notifications.topics:
        sinks[''] = outbox.Notifier(app.conf, f'volume.{app.host}')
    app.background += [outbox.Publisher(app, sinks), saga.Worker(app, sagas.ALL), Watch(app),
                       hints.Hinter(app)]
    app.bus.serve(rpc.CONDUCTOR, Handlers(app), rpc.CONDUCTOR_TOPIC, app.host)
