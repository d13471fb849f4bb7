"""What a conductor answers to the agents of hosts, and what it looks after by itself."""
import datetime
import hashlib
import logging
import threading
import time

import sqlalchemy as sa

from kodiak.common import context as contexts
from kodiak.common import db, heartbeat, outbox, periodic, saga
from kodiak.compute import guests, placement, record, rpc, states, store
from kodiak.compute.models import console_tokens, hosts, servers, services
from kodiak.compute.models import guests as guest_rows
from kodiak.compute.sagas import ALL, delete, snapshot
from kodiak.compute.scheduler import BINARY

LOG = logging.getLogger(__name__)
BEAT = 8
#: Tasks without a way back: their sagas are begun again.
AGAIN = {'deleting': delete.SAGA, 'shelving_offloading': snapshot.OFFLOAD}
WATCH = 15


class Handlers:
    """Answers :data:`kodiak.compute.rpc.CONDUCTOR`."""

    def __init__(self, app):
        self.app, self.db, self.conf = app, app.db, app.conf
        self._beats = {}
        self._lock = threading.Lock()

    def host_state(self, context, hosts):
        """See the table."""
        self._alive(hosts)
        with self.db.read() as connection:
            return guests.host_state(connection, self.conf, hosts)

    def report(self, context, reports):
        """See the table."""
        return self.db.transact(lambda connection: {
            report['uuid']: guests.reported(connection, report) for report in reports})

    def resources(self, context, resources):
        """See the table."""
        for start in range(0, len(resources), 50):
            some = resources[start:start + 50]
            self.db.transact(lambda connection, some=some: [offer(connection, self.conf, sent) for sent in some])
        with self._lock:
            now = time.monotonic()
            self._beats.update((sent['host'], now) for sent in resources)
        return {}

    def alive(self, context, host, binary, version, started_at):
        """See the table."""
        self.db.transact(heartbeat.report, host, binary, version=version, started_at=db.parse_time(started_at))
        return {}

    def unwanted(self, context, host, uuids):
        """See the table."""
        # Who leaves a host leaves a wish there, and rows stay while there is one. A guest without either is of a database that was
        # newer than this one: it came from a backup, and must not cost anybody a disk.
        with self.db.read() as connection:
            wanted = set(connection.scalars(sa.select(guest_rows.c.server_uuid).where(
                guest_rows.c.host == host, guest_rows.c.server_uuid.in_(uuids), guest_rows.c.desired != 'absent')))
            gone = set(connection.scalars(sa.select(servers.c.uuid).where(
                servers.c.uuid.in_(uuids), servers.c.deleted.is_(True))))
        return [uuid for uuid in uuids if uuid in gone and uuid not in wanted]

    def console_token(self, context, token):
        """See the table."""
        hashed = hashlib.sha256(token.encode()).hexdigest()

        def redeem(connection):
            row = db.one(connection, sa.select(console_tokens).where(console_tokens.c.token_hash == hashed))
            if row is None or row['expires_at'] < db.utcnow():
                return None
            if row['kind'] != 'serial':
                connection.execute(console_tokens.delete().where(console_tokens.c.token_hash == hashed))
            agent = connection.scalar(sa.select(hosts.c.agent).where(hosts.c.host == row['host']))
            return {**row, 'agent': agent}
        row = self.db.transact(redeem)
        if row is None:
            return None
        kind = 'serial' if row['kind'] == 'serial' else 'vnc'
        found = self.app.bus.client(rpc.AGENT, rpc.AGENT_TOPIC).call(
            'console_address', context, server=row['agent'], host=row['host'], uuid=row['server_uuid'], kind=kind)
        if found is None:
            return None
        return {'instance_uuid': row['server_uuid'], 'console_type': row['kind'], 'host': found['host'], 'port': found['port'],
                'path': found.get('path'), 'password': found.get('password')}

    def _alive(self, names):
        now = time.monotonic()
        with self._lock:
            due = [name for name in names if now - self._beats.get(name, 0) > BEAT]
            self._beats.update((name, now) for name in due)
        for start in range(0, len(due), 500):
            some = due[start:start + 500]
            self.db.transact(lambda connection, some=some: connection.execute(services.update().where(
                services.c.host.in_(some), services.c.binary == BINARY).values(
                    last_seen_at=db.utcnow(), report_count=services.c.report_count + 1)))


def offer(connection, conf, sent):
    """Take what a host offers (``agent.state.Resources`` as a dictionary)."""
    now, name = db.utcnow(), sent['host']
    found = db.one(connection, sa.select(hosts).where(hosts.c.host == name))
    if found is None:
        uuid = db.new_id()
        connection.execute(hosts.insert(), {
            'uuid': uuid, 'host': name, 'node': sent['hypervisor_hostname'], 'agent': sent['agent'], 'generation': 1,
            'resources': sent, 'created_at': now, 'updated_at': now})
    else:
        uuid = found['uuid']
        if found['resources'] != sent or found['agent'] != sent['agent']:
            connection.execute(hosts.update().where(hosts.c.id == found['id']).values(
                node=sent['hypervisor_hostname'], agent=sent['agent'], resources=sent, updated_at=now))
    heartbeat.report(connection, name, BINARY, rpc.AGENT_TOPIC, now=now, version=sent.get('version'),
                     started_at=db.parse_time(sent['started_at']) if sent.get('started_at') else None)
    placement.ensure_host(connection, uuid, sent['hypervisor_hostname'], inventories(conf, sent), sent.get('traits') or [])


def inventories(conf, sent):
    """What Placement is told that a host has."""
    def inventory(total, ratio, reserved=0):
        return {'total': max(total, 1), 'reserved': min(reserved, max(total, 1)), 'min_unit': 1, 'max_unit': max(total, 1),
                'step_size': 1, 'allocation_ratio': ratio}
    options = conf.hosts
    return {
        'VCPU': inventory(sent['vcpus'], options.cpu_allocation_ratio),
        'MEMORY_MB': inventory(sent['memory_mb'], options.ram_allocation_ratio, options.reserved_memory),
        'DISK_GB': inventory(sent['disk_gb'], options.disk_allocation_ratio)}


class Watch(periodic.Periodic):
    """Looks every few seconds for servers that nobody works on any more: past their deadline, or left behind."""

    def __init__(self, app, interval=WATCH):
        super().__init__('watch', self.look, interval)
        self.app, self.db = app, app.db

    def look(self):
        """Look once."""
        self._overdue()
        self._reclaim()
        self._expired_tokens()

    def _overdue(self):
        now = db.utcnow()
        with self.db.read() as connection:
            late = list(connection.scalars(sa.select(servers.c.uuid).where(
                servers.c.task_deadline < now, servers.c.deleted.is_(False)).limit(100)))
        for uuid in late:
            self.db.transact(self._heal, uuid)

    def _heal(self, connection, uuid):
        row = store.lock(connection, uuid)
        if row is None or row['task_deadline'] is None or row['task_deadline'] > db.utcnow():
            return
        if saga.active(connection, uuid):
            # The saga has a deadline of its own, and ends in a stable state.
            return
        task = row['task_state']
        if task in AGAIN:
            saga.start(connection, AGAIN[task], uuid, {}, contexts.background())
            store.save(connection, row, task_deadline=db.utcnow() + datetime.timedelta(seconds=states.TASKS[task].deadline))
            return
        guest = guests.get(connection, uuid, row['host']) if row['host'] else None
        message = f'{task} was not finished within {states.TASKS[task].deadline} seconds'
        message += f': {guest["fault"]["message"]}' if guest and guest['fault'] else f' on {row["host"]}.' if row['host'] else '.'
        LOG.warning('Server %s: %s', uuid, message)
        stable = {'running': states.ACTIVE, 'stopped': states.STOPPED, 'paused': states.PAUSED, 'suspended': states.SUSPENDED}
        vm_state = stable.get(guest['power_state']) if guest else None
        if vm_state is not None and row['vm_state'] not in (states.BUILDING, states.RESIZED):
            store.save(connection, row, vm_state=vm_state, task_state=None)
        else:
            store.fail(connection, row, message)
        record.finish(connection, uuid, error=message)

    def _reclaim(self):
        interval = self.app.conf.compute.reclaim_interval
        if not interval:
            return
        before = db.utcnow() - datetime.timedelta(seconds=interval)
        with self.db.read() as connection:
            old = list(connection.scalars(sa.select(servers.c.uuid).where(
                servers.c.vm_state == states.SOFT_DELETED, servers.c.deleted_at < before, servers.c.deleted.is_(False)).limit(100)))
        for uuid in old:
            self.db.transact(delete.begin, uuid, contexts.background())

    def _expired_tokens(self):
        self.db.transact(lambda connection: connection.execute(
            console_tokens.delete().where(console_tokens.c.expires_at < db.utcnow())))


def build(app):
    """What a conductor process runs."""
    app.bus.serve(rpc.CONDUCTOR, Handlers(app), rpc.CONDUCTOR_TOPIC, app.host)
    app.background.append(saga.Worker(app, ALL))
    if app.conf.notifications.topics:
        app.background.append(outbox.Publisher(app, {'': outbox.Notifier(app.conf, f'compute.{app.host}')}))
    app.background.append(Watch(app))
