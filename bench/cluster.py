"""A set of Kodiak services of its own for measuring: fake hosts, databases in a temporary folder, ports of its own.

It touches nothing of a running installation but the message broker, in which it uses the virtual host that
``--transport-url`` names.
"""
import contextlib
import os
import pathlib
import secrets
import signal
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
    'storage-object': ['kodiak-object-server', 'kodiak-object-proxy'],
}
PORTS = {'identity': 17000, 'image': 17292, 'network': 17696, 'compute': 17774, 'storage-object': 17080}
CATALOG = {'identity': ('identity', '/v3'), 'image': ('image', ''), 'network': ('network', ''), 'compute': ('compute', '/v2.1'),
           'storage-object': ('object-store', '/v1/AUTH_%(project_id)s')}

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
[storage]
devices = {folder}/devices
ring_path = {folder}/rings
server_port = 17200
server_workers = {workers}
"""
OBJECT_DEVICES = ('d1', 'd2', 'd3', 'd4')


class Cluster:
    """The services, running. Use it as a context manager.

    :param services: names of :data:`PROCESSES`. :param transport: the broker's URL. :param hosts: fake hosts.
    :param workers: processes an API. :param small: conductors run in the API processes.
    :param bin_folder: where the console scripts are.
    """

    def __init__(self, services, transport, hosts=100, bin_folder=None, workers=2, small=False):
        self.services = services
        self.transport = transport
        self.hosts = hosts
        self.workers = workers
        self.small = small
        self.bin = pathlib.Path(bin_folder or pathlib.Path(sys.executable).parent)
        self.password = secrets.token_hex(16)
        self.leaders = {}
        self.identity = f'http://127.0.0.1:{PORTS["identity"]}/v3'
        self.started = {}

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        self.folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='kodiak-bench-', ignore_cleanup_errors=True))
        os.makedirs(self.folder + '/run')
        os.makedirs(self.folder + '/state')
        self._stack.callback(self._stop)
        try:
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

    def __exit__(self, *_):
        self._stack.close()

    def target(self):
        """The :class:`measure.Target` of this cluster."""
        urls = {name: f'http://127.0.0.1:{PORTS[name]}{CATALOG[name][1]}' for name in self.services}
        if 'storage-object' in urls:
            urls['object'] = urls.pop('storage-object').partition('%')[0]
        if 'compute' in urls:
            urls['placement'] = f'http://127.0.0.1:{PORTS["compute"]}/placement'
        return measure.Target('kodiak', urls, self.leaders, 'admin', self.password, 'admin')

    def _environment(self):
        return {**os.environ, 'KODIAK_CONFIG_DIR': self.folder, 'OS_BOOTSTRAP_PASSWORD': self.password}

    def _configure(self, name):
        path = pathlib.Path(self.folder, name + '.conf')
        path.write_text(CONF.format(folder=self.folder, name=name, port=PORTS[name], workers=self.workers, small=self.small,
                                    identity=self.identity, hosts=self.hosts, password=self.password, transport=self.transport))
        if name == 'storage-object':
            self._make_rings()
        else:
            self._admin(name, 'db', 'sync')

    def _make_rings(self):
        """Four devices, three replicas, as the peer has them."""
        os.makedirs(self.folder + '/rings')
        for device in OBJECT_DEVICES:
            os.makedirs(f'{self.folder}/devices/{device}')
        for kind in ('account', 'container', 'object'):
            for words in (['create', '10', '3', '0'], *(['add', f'r1z{zone}-127.0.0.1:17200/{device}', '100']
                                                       for zone, device in enumerate(OBJECT_DEVICES)), ['rebalance']):
                subprocess.run([self.bin / 'kodiak-object-ring', f'{self.folder}/rings/{kind}.builder', *words], check=True,
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
            kind, path = CATALOG[name]
            service = target.call('POST', 'identity', '/services', {'service': {'type': kind, 'name': name}})['service']['id']
            for interface in ('public', 'internal', 'admin'):
                target.call('POST', 'identity', '/endpoints', {'endpoint': {
                    'service_id': service, 'interface': interface, 'region': 'RegionOne',
                    'url': f'http://127.0.0.1:{PORTS[name]}{path}'}})

    def _start(self, name):
        began = time.monotonic()
        for process in PROCESSES[name]:
            if self.small and process.endswith('-conductor'):
                continue
            log = open(f'{self.folder}/{process}.log', 'w')
            running = subprocess.Popen([self.bin / process], env=self._environment(), cwd=self.folder, stdout=log, stderr=log,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
            self.leaders.setdefault(name, []).append(running.pid)
        while True:
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{PORTS[name]}/healthcheck', timeout=5).read()
                break
            except OSError as error:
                if time.monotonic() - began > 60:
                    raise RuntimeError(f'{name} does not answer: {error}; see {self.folder}') from error
                time.sleep(0.02)
        self.started[name] = time.monotonic() - began

    def _stop(self):
        for leaders in self.leaders.values():
            for pid in leaders:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)
        for leaders in self.leaders.values():
            for pid in leaders:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
