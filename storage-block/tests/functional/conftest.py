"""Block storage in one process: its API, a conductor, an agent with make-believe back ends, doubles of image and compute."""
import functools
import os
import tempfile
import time
import uuid

import pytest
import sqlalchemy as sa
from oslo_context import context

from kodiak.common import authtoken, client, config, db, migrate, outbox, policy, rpc, saga, testing, wake, wsgi
from kodiak.common.runtime import Runtime
from kodiak.storage_block import api as block_api
from kodiak.storage_block import conductor, hints, log_levels, models, sagas
from kodiak.storage_block import conf as options
from kodiak.storage_block import rpc as tables

GIB = 1024 ** 3
SERVER = os.environ.get('KODIAK_TEST_DATABASE')


@functools.cache
def empty_database():
    """A migrated database, in memory."""
    path = tempfile.mkdtemp() + '/empty.sqlite'
    made = db.Database('sqlite:///' + path)
    migrate.sync(made, 'storage-block')
    return made.engine.raw_connection().driver_connection


def database(folder):
    """A migrated database without rows of its own.

    ``KODIAK_TEST_DATABASE`` names an empty one on a server (an SQLAlchemy URL) to be used in place of SQLite.
    """
    if not SERVER:
        made = db.Database(f'sqlite:///{folder}/block.sqlite')
        with made.engine.connect() as connection:
            empty_database().backup(connection.connection.driver_connection)
        return made
    made = db.Database(SERVER)
    if not migrate.ready(made, 'storage-block'):
        migrate.sync(made, 'storage-block')
    with made.engine.begin() as connection:
        for table in models.metadata.sorted_tables:
            named = table.name == 'volume_types'
            connection.execute(table.delete().where(table.c.name != '__DEFAULT__') if named else table.delete())
    return made


class Image(testing.Double):
    """Images by id."""

    def __init__(self):
        super().__init__()
        self.images = {}

    def add(self, **more):
        image = {'id': str(uuid.uuid4()), 'name': 'guest', 'status': 'active', 'disk_format': 'qcow2', 'container_format': 'bare',
                 'min_ram': 0, 'min_disk': 0, 'size': 1000, 'virtual_size': GIB, 'visibility': 'public', 'checksum': 'cd' * 16,
                 'os_version': '12', **more}
        self.images[image['id']] = image
        return image['id']

    def answer(self, method, path, query, body):
        parts = path.strip('/').split('/')[1:]
        if method == 'POST':
            return 201, self.images[self.add(**{**body, 'status': 'queued', 'size': None})]
        if parts[1] not in self.images:
            return 404, {'message': f'No image found with ID {parts[1]}'}
        if method == 'DELETE':
            del self.images[parts[1]]
            return 204, None
        return 200, self.images[parts[1]]


class Compute(testing.Double):
    """Takes events."""

    def answer(self, method, path, query, body):
        return 200, {'events': body['events']}


class Agent(log_levels.Handlers):
    """Does what a real agent does, to names in a set.

    ``fails``: kind of work -> the sentence that it fails with. ``idle``: True while it does nothing. ``done``: what it did.
    """

    def __init__(self, app, host, backends):
        self.conductor = app.bus.client(tables.CONDUCTOR, tables.CONDUCTOR_TOPIC)
        self.host, self.backends = host, backends
        self.since, self.idle, self.fails = None, False, {}
        self.there, self.exports, self.done, self.manageable = set(), {}, [], []
        self.backup = 'file'

    def register(self):
        self.conductor.call('register', host=self.host, backends=self.backends, agent={
            'version': '1', 'started_at': '2026-11-01T00:00:00Z', 'backup': self.backup})

    def look(self, context=None, generation=None):
        """Ask, do all, report. :returns: how much was done."""
        if self.idle:
            return 0
        state = self.conductor.call('host_state', host=self.host, since=self.since)
        self.since = state['generation']
        if 'work' not in state:
            return 0
        wanted = {one['attachment_id']: one for one in state['exports']}
        exports = [self.export(one) for key, one in wanted.items() if self.exports.get(key) != one]
        self.exports = wanted
        results = [self.do(one) for one in state['work']]
        if results or exports:
            self.conductor.call('report', host=self.host, results=results, exports=exports)
        return len(results) + len(exports)

    def look_at_exports(self):
        """Make what is to be exported be so, and nothing else: requests wait for it."""
        if self.idle:
            return
        wanted = {one['attachment_id']: one for one in self.conductor.call('host_state', host=self.host, since=None)['exports']}
        exports = [self.export(one) for key, one in wanted.items() if self.exports.get(key) != one]
        self.exports = wanted
        if exports:
            self.conductor.call('report', host=self.host, results=[], exports=exports)

    def export(self, one):
        found = {'attachment_id': one['attachment_id'], 'generation': one['generation']}
        if 'export' in self.fails:
            return {**found, 'error': self.fails['export']}
        return {**found, 'connection': {'driver_volume_type': 'iscsi', 'data': {
            'target_portal': '192.0.2.1:3260', 'target_iqn': f'iqn.2010-10.org.openstack:volume-{one["volume_id"]}',
            'target_lun': 1, 'auth_method': 'CHAP', 'auth_username': one['auth_username'],
            'auth_password': one['auth_password'], 'discard': True}}}

    def do(self, one):
        kind, args = one['kind'], one['args']
        self.done.append((kind, args))
        if kind in self.fails:
            return {'number': one['number'], 'error': self.fails[kind]}
        result = {}
        if kind in ('create_volume', 'manage_volume'):
            self.there.add(f'{one["backend"]}/volume-{args["volume_id"]}')
            result = {'size': 2} if kind == 'manage_volume' else {}
        elif kind in ('delete_volume', 'unmanage_volume'):
            self.there.discard(f'{one["backend"]}/volume-{args["volume_id"]}')
        elif kind in ('create_snapshot', 'manage_snapshot'):
            self.there.add(f'{one["backend"]}/snapshot-{args["snapshot_id"]}')
            result = {'size': 1} if kind == 'manage_snapshot' else {}
        elif kind == 'create_snapshots':
            self.there.update(f'{one["backend"]}/snapshot-{each["snapshot_id"]}' for each in args['snapshots'])
        elif kind in ('delete_snapshot', 'unmanage_snapshot'):
            self.there.discard(f'{one["backend"]}/snapshot-{args["snapshot_id"]}')
        elif kind == 'create_backup':
            self.there.add(f'backup-{args["backup_id"]}')
            result = {'record': {'service': 'file', 'container': args['container'] or 'backups', 'prefix': args['backup_id'],
                                 'object_count': 3, 'size': 4096, 'metadata': {}}}
        elif kind == 'delete_backup':
            self.there.discard(f'backup-{args["backup_id"]}')
        return {'number': one['number'], 'result': result}

    def list_manageable(self, context, backend, kind):
        return self.manageable


def backend(name='file', **more):
    """What a back end says of itself."""
    return {'name': name, 'driver': 'file', 'protocol': 'iSCSI', 'vendor': 'Kodiak', 'zone': 'nova', 'total_gb': 100.0,
            'free_gb': 90.0, 'thin': True, 'max_over_subscription_ratio': 20.0, 'reserved_percentage': 0, 'multiattach': True,
            'online_extend': True, 'efficient_clone': True, 'revert': True, 'qos': True, 'error': None, 'capabilities': {}, **more}


class Cloud:
    """What the tests hold on to."""

    def __init__(self, tmp_path, hosts=None, **settings):
        self.conf = config.load('storage-block', options.OPTS, files=[], defaults={
            **options.DEFAULTS, ('DEFAULT', 'state_path'): str(tmp_path)})
        for name, value in settings.items():
            self.conf.set_override(name, value, 'storage_block')
        self.conf.set_default('export_timeout', 5, 'storage_block')
        self.db = database(tmp_path)
        self.image, self.compute = Image(), Compute()
        clients = client.Clients(self.conf)
        clients.mount('image', self.image, token='service')
        clients.mount('compute', self.compute)
        self.identity = testing.Identity()
        self.app = Runtime(name='storage-block', conf=self.conf, db=self.db, policy=policy.Enforcer(self.conf),
                           bus=rpc.Bus.in_memory(), clients=clients, feed=self.identity.feed, binary='test', host='one')
        self.app.bus.serve(tables.CONDUCTOR, conductor.Handlers(self.app), tables.CONDUCTOR_TOPIC, 'one')
        self.worker = saga.Worker(self.app, sagas.ALL)
        self.watch = conductor.Watch(self.app)
        self.publisher = outbox.Publisher(self.app, {'compute.': conductor.ComputeSink(self.app)})
        self.hinter = hints.Hinter(self.app)
        self.agents = {}
        for host, backends in (hosts or {'one': [backend()]}).items():
            agent = self.agents[host] = Agent(self.app, host, backends)
            self.app.bus.serve(tables.AGENT, agent, tables.AGENT_TOPIC, host)
            agent.register()
        self.agent = next(iter(self.agents.values()))
        wake.listen(self.db, 'hosts', self.hinted)

    @functools.cached_property
    def pipeline(self):
        """The API, for those who need it."""
        application = block_api.pipeline(testing.application_of(block_api.API, self.app))
        return wsgi.Front(authtoken.AuthToken(application, self.identity.feed, delay=True), 'storage-block')

    def hinted(self):
        """What a commit that changes exports comes to, as by a hint."""
        current = context.get_current()
        for agent in self.agents.values():
            agent.look_at_exports()
        # Agents have threads of their own: whoever commits stays who he was.
        if current is not None:
            current.update_store()

    def turn(self):
        """Let sagas, agents and the outbox work once. True if anything was done."""
        done = self.worker.run_due()
        for agent in self.agents.values():
            done += agent.look()
        return bool(done + self.publisher.run_due())

    def settle(self, turns=40):
        """Let everything work until nothing is to be done."""
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError('it does not come to rest')

    def hurry(self):
        """Make the sagas that wait look again now."""
        with self.db.write() as connection:
            connection.execute(models.sagas.update().where(models.sagas.c.next_run_at.is_not(None)).values(
                next_run_at=time.time()))

    def all(self, table):
        """The rows of a table."""
        with self.db.read() as connection:
            return db.all_dicts(connection, sa.select(table))

    def client(self, persona=testing.MEMBER, version='3.71', **headers):
        """A client of the API, with the persona's project in its paths."""
        if version:
            headers['OpenStack-API-Version'] = 'volume ' + version
        return testing.Client(self.pipeline, self.identity.token(persona) if persona else None, headers=headers,
                              prefix=f'/{persona.project_id}' if persona else '')

    def close(self):
        """End."""
        self.app.bus.close()
        self.db.close()


@pytest.fixture
def make_cloud(tmp_path):
    made = []

    def make(**kwargs):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Cloud(folder, **kwargs))
        return made[-1]
    yield make
    for cloud in made:
        cloud.close()


@pytest.fixture
def cloud(make_cloud):
    return make_cloud()


@pytest.fixture
def make_backend():
    return backend


@pytest.fixture
def member(cloud):
    return cloud.client()


@pytest.fixture
def admin(cloud):
    return cloud.client(testing.ADMIN)


@pytest.fixture
def volume(cloud):
    """``volume(persona, **fields)``: make a volume, let everything work, return how it is shown."""
    def make(persona=testing.MEMBER, settle=True, **fields):
        caller = cloud.client(persona)
        made = caller.post('/volumes', {'volume': {'size': 1, 'name': 'data', **fields}}).expect(202)
        if settle:
            cloud.settle()
        return caller.get('/volumes/' + made.json['volume']['id']).expect(200).json['volume']
    return make


