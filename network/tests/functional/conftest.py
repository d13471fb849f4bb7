"""The whole pipeline of network in one process: SQLite in a file, an in-memory bus, tokens from a test key."""
import os
import types

import pytest

from kodiak.common import config, db, migrate, policy, rpc, testing
from kodiak.common.authtoken import AuthToken
from kodiak.common.runtime import Runtime
from kodiak.common.wsgi import Front, SizeLimit
from kodiak.network import api, cmd, conductor, conf, models

#: an SQLAlchemy URL of an empty database on a server, to run these tests against that instead of SQLite
SERVER = os.environ.get('KODIAK_TEST_DATABASE')


@pytest.fixture(scope='session')
def migrated(tmp_path_factory):
    """A migrated, empty database: the file to copy, or the server's URL."""
    if SERVER:
        database = db.Database(SERVER)
        migrate.sync(database, 'network')
        database.close()
        return SERVER
    path = tmp_path_factory.mktemp('network') / 'empty.sqlite'
    database = db.Database(f'sqlite:///{path}')
    migrate.sync(database, 'network')
    database.close()
    return path


@pytest.fixture
def service(tmp_path, migrated):
    """A running network: ``runtime``, ``api``, ``pipeline``, ``identity``, ``conductor`` (its handlers)."""
    if SERVER:
        database = db.Database(SERVER)
        with database.write() as conn:
            for table in reversed(models.metadata.sorted_tables):
                if table.name != 'default_rules':
                    conn.execute(table.delete())
    else:
        path = tmp_path / 'network.sqlite'
        path.write_bytes(migrated.read_bytes())
        database = db.Database(f'sqlite:///{path}')
    runtime_conf = config.load(cmd.NAME, conf.OPTS, files=[], defaults=conf.DEFAULTS)
    runtime = Runtime(name='network', conf=runtime_conf, db=database, bus=rpc.Bus.in_memory(),
                      policy=policy.Enforcer(runtime_conf))
    identity = testing.Identity()
    made = api.make()
    pipeline = AuthToken(made.application(runtime, validate_responses=True), identity.feed, delay=True)
    yield types.SimpleNamespace(runtime=runtime, api=made, pipeline=Front(SizeLimit(pipeline, 100000, ''), 'network'),
                                identity=identity, conductor=conductor.Handlers(runtime), db=runtime.db)
    runtime.db.close()
    runtime.bus.close()


@pytest.fixture
def as_(service):
    """A client of a persona: ``as_(testing.MEMBER)``."""
    def client(persona):
        return testing.Client(service.pipeline, service.identity.token(persona) if persona else None)
    return client


@pytest.fixture
def member(as_):
    """A client of a member of the tests' project."""
    return as_(testing.MEMBER)


@pytest.fixture
def admin(as_):
    """A client of an administrator."""
    return as_(testing.ADMIN)


@pytest.fixture
def make():
    """``make(client, 'network', name='x')`` creates a resource and returns it."""
    def create(client, kind, **values):
        plural = kind + ('es' if kind.endswith('s') else 's')
        return client.post('/' + plural.replace('_', '-'), {kind: values}).expect(201).json[kind]
    return create


@pytest.fixture
def net(make):
    """``net(client, '10.0.0.0/24')`` creates a network with a subnet; returns both."""
    def create(client, cidr='10.0.0.0/24', network=None, **subnet):
        made = make(client, 'network', **(network or {}))
        return made, make(client, 'subnet', network_id=made['id'], cidr=cidr, ip_version=6 if ':' in cidr else 4, **subnet)
    return create


class Agent:
    """Stands in for the agent of a host: asks the conductor, keeps what it was told, reports."""

    def __init__(self, service, host, **facts):
        from kodiak.network.agent.state import Wanted
        self.service, self.host = service, host
        self.facts = {
            'binary': 'kodiak-network-agent',
            'version': '1',
            'started_at': '2026-01-01T00:00:00Z',
            'driver': 'linuxbridge',
            'tunnel_ip': '192.0.2.1',
            'bridge_mappings': {'public': 'br-ex'},
            'interval': 15,
            **facts,
        }
        self.wanted = Wanted()

    def look(self):
        """Ask; returns what changed as a set of (kind, id)."""
        import orjson
        answer = self.service.conductor.host_state(testing_context(), self.host, self.wanted.generation, self.facts)
        return self.wanted.apply(orjson.loads(orjson.dumps(answer)))

    def full(self):
        """Forget everything and ask anew; returns what is wanted then, by kind."""
        from kodiak.network.agent.state import KINDS, Wanted
        self.wanted = Wanted()
        self.look()
        return {kind: dict(self.wanted.documents(kind)) for kind in KINDS}

    def done(self, *kinds, error=None):
        """Report everything of some kinds as done."""
        self.service.conductor.report(testing_context(), self.host, [
            {'kind': kind, 'id': document.id, 'generation': document.generation, 'error': error}
            for kind in kinds or ('networks', 'ports', 'routers', 'floating_ips')
            for document in self.wanted.documents(kind).values()])


def testing_context():
    from kodiak.common.context import background
    return background()


@pytest.fixture
def agent(service):
    """``agent('host')`` makes an :class:`Agent` that has asked once."""
    def create(host='host1', **facts):
        made = Agent(service, host, **facts)
        made.look()
        return made
    return create
