"""Compute in one process: its API, a conductor, an agent with the fake driver, and doubles of image and network."""
import dataclasses
import functools
import ipaddress
import os
import re
import tempfile
import time
import uuid

import pytest
import sqlalchemy as sa

from kodiak.common import authtoken, client, config, db, policy, rpc, saga, testing, wsgi
from kodiak.common.runtime import Runtime
from kodiak.compute import api as compute_api
from kodiak.compute import conductor, models, store
from kodiak.compute import conf as options
from kodiak.compute import rpc as tables
from kodiak.compute.agent import conf as agent_options
from kodiak.compute.agent import main as agents
from kodiak.compute.drivers.fake import FakeDriver
from kodiak.compute.sagas import ALL

SERVER = os.environ.get('KODIAK_TEST_DATABASE')


block, _ = testing.share(__file__, 'block', 'world', prefix='servers')


@functools.cache
def empty_database():
    """All tables, in memory."""
    engine = sa.create_engine('sqlite://', poolclass=sa.StaticPool)
    models.metadata.create_all(engine)
    return engine.raw_connection().driver_connection


_databases = []


def database(number):
    """An empty database. They are emptied and used again: an engine remembers the statements that it has compiled.

    ``KODIAK_TEST_DATABASE`` names an empty one on a server (an SQLAlchemy URL) to be used in place of SQLite; tests that need
    several clouds are skipped then.
    """
    if SERVER and number:
        pytest.skip('there is one database on the server')
    if number == len(_databases):
        _databases.append(db.Database(SERVER or f'sqlite:///{tempfile.mkdtemp()}/compute.sqlite'))
        if SERVER:
            models.metadata.create_all(_databases[0].engine)
    found = _databases[number]
    if SERVER:
        with found.engine.begin() as connection:
            for table in reversed(models.metadata.sorted_tables):
                connection.execute(table.delete())
        return found
    with found.engine.connect() as connection:
        empty_database().backup(connection.connection.driver_connection)
    return found


class Image(testing.Double):
    """Images by id."""

    def __init__(self):
        super().__init__()
        self.images = {}

    def add(self, **more):
        image = {'id': str(uuid.uuid4()), 'name': 'guest', 'status': 'active', 'disk_format': 'qcow2', 'container_format': 'bare',
                 'min_ram': 0, 'min_disk': 0, 'size': 1000, 'visibility': 'public', 'os_hash_algo': 'sha512',
                 'os_hash_value': 'ab' * 64,
                 'checksum': 'cd' * 16, 'tags': [], 'created_at': '2026-01-01T00:00:00Z', 'updated_at': '2026-01-01T00:00:00Z',
                 **more}
        self.images[image['id']] = image
        return image['id']

    def answer(self, method, path, query, body):
        parts = path.strip('/').split('/')[1:]
        if method == 'POST' and parts == ['images']:
            return 201, self.images[self.add(**{**body, 'status': 'queued', 'size': None})]
        if method == 'GET' and parts == ['images']:
            found = [image for image in self.images.values() if all(
                str(image.get(name)) in values for name, values in query.items() if name not in ('sort_key', 'sort_dir', 'limit'))]
            if 'sort_key' in query:
                found.sort(key=lambda image: image[query['sort_key'][0]], reverse=query['sort_dir'] == ['desc'])
            return 200, {'images': found}
        found = self.images.get(parts[1])
        if found is None:
            return 404, {'message': f'No image found with ID {parts[1]}'}
        if method == 'DELETE':
            del self.images[parts[1]]
            return 204, None
        if method == 'PATCH':
            for change in body:
                found[change['path'].strip('/')] = change.get('value')
        return 200, found


class Network(testing.Double):
    """Networks, subnets and ports; ``wires`` says whether ports become active by themselves."""

    def __init__(self):
        super().__init__()
        self.networks, self.subnets, self.ports = {}, {}, {}
        self.floatingips, self.groups, self.rules = {}, {}, {}
        self.wires = True
        self.next = 10

    def add_network(self, name='private', project=testing.PROJECT, cidr='10.0.0.0/24', **more):
        net, sub = str(uuid.uuid4()), str(uuid.uuid4())
        self.networks[net] = {'id': net, 'name': name, 'project_id': project, 'tenant_id': project, 'mtu': 1450, 'subnets': [sub],
                              'shared': False, 'router:external': False, 'admin_state_up': True, 'status': 'ACTIVE', **more}
        self.subnets[sub] = {'id': sub, 'network_id': net, 'cidr': cidr, 'gateway_ip': cidr.split('0/')[0] + '1',
                             'enable_dhcp': True,
                             'dns_nameservers': ['9.9.9.9'], 'host_routes': [], 'ip_version': 4}
        return net

    def answer(self, method, path, query, body):
        kind, *rest = path.strip('/').split('/')[1:]
        table = {'networks': self.networks, 'subnets': self.subnets, 'ports': self.ports, 'floatingips': self.floatingips,
                 'security-groups': self.groups, 'security-group-rules': self.rules}[kind]
        key = kind.replace('-', '_')
        if method == 'GET' and not rest:
            found = [row for row in table.values() if all(
                str(row.get(name)) in values for name, values in query.items() if name not in ('fields', 'limit'))]
            return 200, {key: found}
        if method == 'POST' and kind != 'ports':
            row = {'id': str(uuid.uuid4()), 'description': '', **body[key[:-1]]}
            table[row['id']] = row
            return 201, {key[:-1]: row}
        if method == 'POST':
            return self.make_port(body['port'])
        row = table.get(rest[0])
        if row is None:
            return 404, {'NeutronError': {'type': 'NotFound', 'message': f'{rest[0]} not found', 'detail': ''}}
        if method == 'PUT':
            row.update(body[key[:-1]])
            row['status'] = 'ACTIVE' if self.wires and row.get('binding:host_id') else 'DOWN'
        elif method == 'DELETE':
            del table[rest[0]]
            return 204, None
        return 200, {key[:-1]: row}

    def make_port(self, sent):
        net = self.networks.get(sent['network_id'])
        if net is None:
            return 404, {'NeutronError': {'type': 'NetworkNotFound', 'message': 'no such network', 'detail': ''}}
        subnet = self.subnets[net['subnets'][0]]
        self.next += 1
        address = (sent.get('fixed_ips') or [{'ip_address': str(ipaddress.ip_network(subnet['cidr'])[self.next])}])[0]['ip_address']
        port = {'id': str(uuid.uuid4()), 'mac_address': f'fa:16:3e:00:00:{self.next % 256:02x}', 'status': 'DOWN', 'device_id': '',
                'device_owner': '', 'security_groups': [], 'binding:host_id': '', **sent}
        port['fixed_ips'] = [{'subnet_id': subnet['id'], 'ip_address': address}]
        port['binding:vif_details'] = {'tap_name': 'tap' + port['id'][:11], 'mtu': 1450}
        if self.wires and port['binding:host_id']:
            port['status'] = 'ACTIVE'
        self.ports[port['id']] = port
        return 201, {'port': port}


class Cloud:
    """What the tests hold on to."""

    def __init__(self, tmp_path, hosts=('one',), **settings):
        self.conf = config.load('compute', {**options.OPTS, **{
            group: [*options.OPTS.get(group, ()), *found] for group, found in agent_options.OPTS.items()}}, files=[],
            defaults={**options.DEFAULTS, ('DEFAULT', 'state_path'): str(tmp_path)})
        for name, value in settings.items():
            group, _, option = name.partition('__')
            self.conf.set_override(option, value, group)
        self.db = database(int(tmp_path.name))
        self.image, self.network, self.block = Image(), Network(), block.Block()
        clients = client.Clients(self.conf)
        for kind, app in (('image', self.image), ('network', self.network), ('block-storage', self.block)):
            clients.mount(kind, app, token='service')
        self.identity = testing.Identity()
        self.app = Runtime(name='compute', conf=self.conf, db=self.db, policy=policy.Enforcer(self.conf), bus=rpc.Bus.in_memory(),
                           clients=clients, feed=self.identity.feed, binary='test', host='one')
        self.handlers = conductor.Handlers(self.app)
        self.app.bus.serve(tables.CONDUCTOR, self.handlers, tables.CONDUCTOR_TOPIC, 'one')
        self.worker = saga.Worker(self.app, ALL)
        self.watch = conductor.Watch(self.app)
        self.agent = None
        self.hosts = hosts
        self.start_agent()
        self.pipelines = {}
        for made in (compute_api.API, compute_api.LEGACY):
            application = compute_api.Paths(testing.application_of(made, self.app))
            self.pipelines[made.prefix] = wsgi.Front(authtoken.AuthToken(application, self.identity.feed, delay=True), 'compute')

    def start_agent(self):
        """An agent process for all hosts; the one before it is forgotten as if it had been killed."""
        if self.agent is not None:
            self.serving.stop()
        self.agent = agents.Agent(self.conf, self.app.bus, [FakeDriver(self.conf, host, None) for host in self.hosts])
        self.agent.conf.set_override('host', 'one')
        for host, driver in self.agent.drivers.items():
            driver.start(lambda uuid, host=host: self.agent.reconciler.again((host, uuid)))
        self.agent._send_resources()
        self.serving = self.app.bus.serve(tables.AGENT, agents.Handlers(self.agent), tables.AGENT_TOPIC, 'one')

    def turn(self):
        """Let sagas and agent work once. True if anything was done."""
        done = self.worker.run_due()
        done += len(self.agent.reconciler.run_once())
        waiting, self.agent.reporter._waiting = self.agent.reporter._waiting, {}
        if waiting:
            self.agent.conductor.call('report', None, reports=[dataclasses.asdict(report) for report in waiting.values()])
        return bool(done or waiting)

    def settle(self, turns=40):
        """Let everything work until nothing is to be done."""
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError('it does not come to rest')

    def hurry(self):
        """Make the sagas that wait look again now."""
        with self.db.write() as connection:
            connection.execute(models.sagas.update().where(models.sagas.c.next_run_at.is_not(None)).values(next_run_at=time.time()))

    def row(self, uuid):
        """The row of a server."""
        with self.db.read() as connection:
            return store.get(connection, uuid)

    def all(self, table):
        """The rows of a table."""
        with self.db.read() as connection:
            return db.all_dicts(connection, sa.select(table))

    def client(self, persona, version='2.96', prefix='/v2.1'):
        """A client of the API."""
        return testing.Client(self.pipelines[prefix], self.identity.token(persona) if persona else None,
                              headers={'OpenStack-API-Version': 'compute ' + version} if version else None)

    def close(self):
        """End."""
        self.app.bus.close()


@pytest.fixture
def make_cloud(tmp_path):
    made = []

    def make(*args, **kwargs):
        made.append(Cloud(tmp_path / str(len(made)), *args, **kwargs) if (tmp_path / str(len(made))).mkdir() is None else None)
        return made[-1]
    yield make
    for cloud in made:
        cloud.close()


@pytest.fixture
def cloud(make_cloud):
    return make_cloud()


@pytest.fixture
def as_(cloud):
    return cloud.client


@pytest.fixture
def flavor(cloud):
    return make_flavor(cloud)


def make_flavor(cloud, **more):
    sent = {'name': f'f{time.time_ns()}', 'ram': 128, 'vcpus': 1, 'disk': 1, **more}
    return cloud.client(testing.ADMIN).post('/flavors', {'flavor': sent}).expect(200).json['flavor']['id']


@pytest.fixture
def image(cloud):
    return cloud.image.add()


@pytest.fixture
def boot(cloud, flavor, image):
    """``boot(persona, **fields)``: create a server, let everything work, return how it is shown."""
    def run(persona=testing.MEMBER, version='2.96', settle=True, **fields):
        sent = {'name': 'server', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **fields}
        caller = cloud.client(persona, version)
        made = caller.post('/servers', {'server': {name: value for name, value in sent.items() if value is not ...}}).expect(202)
        if settle:
            cloud.settle()
        return caller.get('/servers/' + made.json['server']['id']).expect(200).json['server']
    return run


UUID = re.compile('[0-9a-f-]{36}')
