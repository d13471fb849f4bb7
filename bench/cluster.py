"""A set of Kodiak services of its own for measuring: fake hosts, databases in a temporary folder, ports of its own.

It touches nothing of a running installation but the message broker, in which it uses the virtual host that
``--transport-url`` names.
"""
import contextlib
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import measure

PROCESSES = {
    'identity': ['kodiak-identity-api'],
    'image': ['kodiak-image-api'],
    'network': ['kodiak-network-api', 'kodiak-network-conductor'],
    'compute': ['kodiak-compute-api', 'kodiak-compute-conductor', 'kodiak-compute-agent'],
    'storage-block': ['kodiak-storage-block-api', 'kodiak-storage-block-conductor', 'kodiak-storage-block-agent'],
    'storage-object': ['kodiak-object-server', 'kodiak-object-proxy'],
}
#: counted from the first port, 17000 by default
PORTS = {'identity': 0, 'image': 292, 'network': 696, 'compute': 774, 'storage-block': 776, 'storage-object': 80}
#: type in the catalog, path of the URL that is measured, what follows it in the catalog
CATALOG = {'identity': ('identity', '/v3', ''), 'image': ('image', '', ''), 'network': ('network', '', ''),
           'compute': ('compute', '/v2.1', ''), 'storage-block': ('block-storage', '/v3', '/$(project_id)s'),
           'storage-object': ('object-store', '/v1', '/AUTH_$(project_id)s')}
OBJECT_SERVER, ISCSI = 200, 260
DEVICES = ('d1', 'd2', 'd3', 'd4')

CONF = """\
[DEFAULT]
state_path = {folder}/state
run_path = {folder}/run
transport_url = {transport}
host = bench
[database]
connection = sqlite:///{folder}/{name}.sqlite
[api]
bind_host = 127.0.0.1
bind_port = {port}
workers = {workers}
conductor = {small}
[keystone_authtoken]
www_authenticate_uri = {identity}
auth_url = {identity}
auth_type = password
username = {name}
password = {password}
project_name = service
user_domain_name = Default
project_domain_name = Default
[agent]
driver = fake
fake_hosts = {hosts}
[metadata]
shared_secret = {password}
"""
MORE = {
    'storage-block': """\
[agent]
backends = file
iscsi_port = {iscsi}
[file]
driver = file
path = {folder}/volumes
max_over_subscription_ratio = 1000
""",
    # What looks after devices at night is left out, as in the peer.
    'storage-object': """\
[storage]
devices = {folder}/devices
ring_path = {folder}/rings
server_port = {object_server}
server_workers = {workers}
policies = 0:gold,1:coded=2+1
daemons =
""",
}


class Cluster:
    """The services, running. Use it as a context manager.

    :param services: names of :data:`PROCESSES`. :param transport: the broker's URL. :param hosts: fake hosts.
    :param workers: processes an API. :param small: conductors run in the API processes.
    :param bin_folder: where the console scripts are. :param first_port: see :data:`PORTS`.
    """

    def __init__(self, services, transport, hosts=100, bin_folder=None, workers=2, small=False, first_port=17000):
        self.services = services
        self.transport = transport
        self.hosts = hosts
        self.workers = workers
        self.small = small
        self.bin = pathlib.Path(bin_folder or pathlib.Path(sys.executable).parent)
        self.password = secrets.token_hex(16)
        self.leaders = {}
        self.ports = {name: first_port + number for name, number in PORTS.items()}
        self.object_server, self.iscsi = first_port + OBJECT_SERVER, first_port + ISCSI
        self.identity = f'http://127.0.0.1:{self.ports["identity"]}/v3'
        self.started = {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='kodiak-bench-', ignore_cleanup_errors=True))
        os.makedirs(self.folder + '/run')
        os.makedirs(self.folder + '/state')
        self._stack.callback(self._stop)
        try:
            self._check_ports()
            for name in self.services:
                self._configure(name)
            self._admin('identity', 'keys', 'setup')
            self._admin('identity', 'bootstrap', '--region-id', 'RegionOne', '--public-url', self.identity)
            self._start('identity')
            self._register()
            for name in self.services:
                if name != 'identity':
                    self._start(name)
            return self
        except BaseException:
            self._stack.close()
            raise

    def _check_ports(self):
        for port in (*(self.ports[name] for name in self.services), self.object_server):
            with socket.socket() as probe:
                if not probe.connect_ex(('127.0.0.1', port)):
                    raise SystemExit(f'Something listens on port {port} already: choose another with --first-port.')

    def __exit__(self, *_):
        self._stack.close()

    def target(self):
        """The :class:`measure.Target` of this cluster."""
        urls = {name: f'http://127.0.0.1:{self.ports[name]}{CATALOG[name][1]}' for name in self.services}
        if 'compute' in urls:
            urls['placement'] = f'http://127.0.0.1:{self.ports["compute"]}/placement'
        return measure.Target('kodiak', urls, self.leaders, 'admin', self.password, 'admin')

    def _environment(self):
        return {**os.environ, 'KODIAK_CONFIG_DIR': self.folder, 'OS_BOOTSTRAP_PASSWORD': self.password}

    def _configure(self, name):
        path = pathlib.Path(self.folder, name + '.conf')
        text = CONF + MORE.get(name, '')
        path.write_text(text.format(folder=self.folder, name=name, port=self.ports[name], workers=self.workers, small=self.small,
                                    identity=self.identity, hosts=self.hosts, password=self.password, transport=self.transport,
                                    iscsi=self.iscsi, object_server=self.object_server))
        if name == 'storage-object':
            self._make_rings()
        else:
            self._admin(name, 'db', 'sync')

    def _make_rings(self):
        os.makedirs(self.folder + '/rings')
        for device in DEVICES:
            os.makedirs(f'{self.folder}/devices/{device}')
        for kind in ('account', 'container', 'object', 'object-1'):
            for command in (['create', '10', '3', '0'],
                            *(['add', f'r1z{zone}-127.0.0.1:{self.object_server}/{device}', '100']
                              for zone, device in enumerate(DEVICES, 1)),
                            ['rebalance']):
                subprocess.run([self.bin / 'kodiak-object-ring', f'{self.folder}/rings/{kind}.builder', *command], check=True,
                               stdout=subprocess.DEVNULL)

    def _admin(self, name, *arguments):
        subprocess.run([self.bin / f'kodiak-{name}', *arguments], env=self._environment(), cwd=self.folder, check=True,
                       stdout=subprocess.DEVNULL)

    def _register(self):
        target = measure.Target('kodiak', {'identity': self.identity}, {}, 'admin', self.password, 'admin')
        roles = {role['name']: role['id'] for role in target.call('GET', 'identity', '/roles')['roles']}
        project = target.call('POST', 'identity', '/projects', {
            'project': {'name': 'service', 'domain_id': 'default'}})['project']['id']
        for name in self.services:
            user = target.call('POST', 'identity', '/users', {'user': {
                'name': name, 'password': self.password, 'domain_id': 'default'}})['user']['id']
            for role in ('service', 'admin'):
                target.call('PUT', 'identity', f'/projects/{project}/users/{user}/roles/{roles[role]}')
            if name == 'identity':
                continue
            kind, path, rest = CATALOG[name]
            service = target.call('POST', 'identity', '/services', {'service': {'type': kind, 'name': name}})['service']['id']
            for interface in ('public', 'internal', 'admin'):
                target.call('POST', 'identity', '/endpoints', {'endpoint': {
                    'service_id': service, 'interface': interface, 'region': 'RegionOne',
                    'url': f'http://127.0.0.1:{self.ports[name]}{path}{rest}'}})

    def _start(self, name):
        began = time.monotonic()
        if name == 'storage-block':
            # What exports volumes; nothing is attached here, but the agent looks at it.
            exporter = self._spawn(name, ['tgtd', '-f', '-C', '0', '--iscsi', f'portal=127.0.0.1:{self.iscsi}'],
                                   TGT_IPC_SOCKET=self.folder + '/run/storage-block-tgtd')
            # It takes no notice of SIGTERM.
            self._stack.callback(os.kill, exporter, signal.SIGKILL)
        for process in PROCESSES[name]:
            if not self.small or not process.endswith('-conductor'):
                self._spawn(name, [self.bin / process])
        for port in (self.object_server, self.ports[name]) if name == 'storage-object' else (self.ports[name],):
            self._wait(name, port, began)
        self.started[name] = time.monotonic() - began

    def _spawn(self, name, command, **more):
        with open(f'{self.folder}/{os.path.basename(command[0])}.log', 'w') as log:
            running = subprocess.Popen(command, env={**self._environment(), **more}, cwd=self.folder, stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        self.leaders.setdefault(name, []).append(running.pid)
        return running.pid

    def _wait(self, name, port, began):
        while True:
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/healthcheck', timeout=5).read()
                return
            except OSError as error:
                if time.monotonic() - began > 60:
                    raise RuntimeError(f'{name} does not answer: {error}; see {self.folder}') from error
                time.sleep(0.02)

    def _stop(self):
        pids = [pid for leaders in self.leaders.values() for pid in leaders]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)
            pids = self._left(pids, 15)

    @staticmethod
    def _left(pids, seconds):
        """Those that have not ended after so many seconds."""
        limit = time.monotonic() + seconds
        while pids and time.monotonic() < limit:
            pids = [pid for pid in pids if not os.waitpid(pid, os.WNOHANG)[0]]
            time.sleep(0.02)
        return pids
