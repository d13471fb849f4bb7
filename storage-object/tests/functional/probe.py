"""Server processes over devices, a proxy over them, and a look at what is on them: for tests of what goes wrong with them."""
import io
import json
import os
import sys

from kodiak.common import testing
from kodiak.storage_object.proxy import app, backend, pipeline
from kodiak.storage_object.proxy.http import Response, to_wsgi
from kodiak.storage_object.proxy.rings import Rings
from kodiak.storage_object.ring import Policies, Ring

real = sys.modules['storage_object_real']


class Cluster:
    """The processes, and a proxy over them."""

    SERVERS = 4

    def __init__(self, folder, devices=1, policies=('0:gold',), replicas=None, more=''):
        """``devices`` of each server; ``replicas`` of a policy's ring where it is not 3."""
        self.folder, self.policies = str(folder), list(policies)
        self.rings_folder = f'{folder}/rings'
        ports = set()
        while len(ports) < self.SERVERS:
            ports.add(testing.free_port())
        self.ports = sorted(ports)
        self.places = [number // devices for number in range(devices * self.SERVERS)]
        places = [(place, self.ports[place], f'd{number}') for number, place in enumerate(self.places)]
        kinds = {'account': 3, 'container': 3}
        for policy in range(len(self.policies)):
            kinds[f'object-{policy}' if policy else 'object'] = (replicas or {}).get(policy, 3)
        for kind, count in kinds.items():
            real.make_rings(self.rings_folder, places, count, [kind])
        self.servers = [real.Process(f'{folder}/h{number}', self.rings_folder, port, f'h{number}',
                                     f'audit_rate = 1000000000\npolicies = {",".join(self.policies)}\n{more}')
                        for number, port in enumerate(self.ports)]
        self.rings = {kind: Ring(f'{self.rings_folder}/{kind}.ring.gz') for kind in kinds}
        self.make_devices()

    def make_devices(self):
        """Those that are not there, empty."""
        for number in range(len(self.places)):
            os.makedirs(self.device(number), exist_ok=True)

    def up(self):
        """All processes run."""
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                server.start()

    def down(self):
        """None runs, and none had an error that it did not expect."""
        for server in self.servers:
            if server.process is not None:
                server.process.terminate()
        for server in self.servers:
            server.stop()
            assert 'Traceback' not in server.log(), server.log()[-4000:]

    def device(self, number):
        """A device's folder."""
        return f'{self.servers[self.places[number]].folder}/devices/d{number}'

    def primaries(self, kind, *names):
        """The devices that are to have something."""
        return [node['id'] for node in self.rings[kind].primaries(self.rings[kind].get_part(*names))]

    def files(self, *names, policy=0):
        """``{device: [files of the object]}``."""
        kind = f'object-{policy}' if policy else 'object'
        digest, part = self.rings[kind].hash_path(*names), self.rings[kind].get_part(*names)
        found = {}
        for number in range(len(self.places)):
            folder = f'{self.device(number)}/{kind.replace("object", "objects")}/{part}/{digest[-3:]}/{digest}'
            if os.path.isdir(folder) and os.listdir(folder):
                found[number] = sorted(os.listdir(folder))
        return found

    def whole(self, *names):
        """Whether all primaries, and nobody else, hold the same of an object."""
        found = self.files(*names)
        return sorted(found) == sorted(self.primaries('object', *names)) and len(set(map(tuple, found.values()))) == 1

    def listings(self, account, container=None):
        """What each primary lists by itself."""
        return [[row['name'] for row in json.loads(body)] if body and status == 200 else None
                for status, _, body in self._ask_all(account, container)]

    def policies_of(self, account, container):
        """The policy that each of a container's servers says it has."""
        return [int(headers['X-Backend-Storage-Policy-Index']) if status == 200 else None
                for status, headers, _ in self._ask_all(account, container)]

    def sharding_of(self, account, container):
        """Whether each of a container's servers says that it is cut up."""
        return [headers.get('X-Backend-Sharding-State') for _, headers, _ in self._ask_all(account, container)]

    def _ask_all(self, account, container):
        kind = 'account' if container is None else 'container'
        names = [account] if container is None else [account, container]
        ring = self.rings[kind]
        part = ring.get_part(*names)
        client = backend.Client(backend.Pool(), backend.Nodes())
        for node in ring.primaries(part):
            answer = client.ask(node, 'GET', part, '/' + '/'.join(names), {})
            body = answer.read() if answer is not None else b''
            yield (answer.status, answer.headers, body) if answer is not None else (503, {}, b'')

    def bare_proxy(self, pool=None):
        """A proxy without filters. ``pool``: its connections."""
        class Conf:
            class storage:
                policies, ring_path = self.policies, self.rings_folder
        rings = Rings(self.rings['account'], self.rings['container'], list(Policies(Conf)))
        return app.Proxy(rings, pool=pool, nodes=backend.Nodes(interval=0.5), account_management=True)

    def proxy(self, pool=None):
        """The pipeline of a proxy."""
        return pipeline.assemble(self.bare_proxy(pool), [('catch_errors', {})])

    def caller(self, pool=None, whole=True):
        """Calls that proxy (or one without filters); ``stream``: the answer's body is not read yet."""
        return caller_of(self.proxy(pool) if whole else pipeline.assemble(self.bare_proxy(pool), []))


def caller_of(application):
    """Calls an application, as :meth:`Cluster.caller` does."""
    def ask(method, path, body=b'', stream=False, **headers):
        path, _, query = path.partition('?')
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': to_wsgi(path), 'QUERY_STRING': query, 'wsgi.url_scheme': 'http',
                   'wsgi.input': body if hasattr(body, 'read') else io.BytesIO(body), 'HTTP_HOST': 'x'}
        if not hasattr(body, 'read'):
            environ['CONTENT_LENGTH'] = str(len(body))
        environ.update(('HTTP_' + name.upper(), value) for name, value in headers.items())
        for name in ('CONTENT_LENGTH', 'CONTENT_TYPE'):
            if 'HTTP_' + name in environ:
                environ[name] = environ.pop('HTTP_' + name)
        answer = Response.from_wsgi(application, environ)
        if not stream:
            answer.read()
        return answer
    return ask


class Cut(backend.Pool):
    """Connections of a proxy that some servers are out of reach of, though they reach each other."""

    def __init__(self):
        super().__init__()
        self.ports = set()

    def take(self, address):
        if address[1] in self.ports:
            raise OSError('out of reach')
        return super().take(address)


class Interrupted(io.RawIOBase):
    """A body during which something happens."""

    def __init__(self, data, at, event):
        self.data, self.at, self.event = io.BytesIO(data), at, event

    def read(self, size=-1):
        if self.event is not None and self.data.tell() >= self.at:
            self.event()
            self.event = None
        return self.data.read(size)
