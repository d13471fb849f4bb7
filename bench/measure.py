"""Measuring: CPU time of a set of processes, a closed-loop HTTP client, and what is printed of both.

The figure that is compared is CPU milliseconds a request, summed over all processes of a service: on a machine that
others use too, elapsed time says little. The client keeps its connection open where the server lets it, as the clients of
OpenStack do (keystoneauth's sessions).
"""
import collections
import json
import os
import socket
import statistics
import threading
import time
import urllib.parse

TICK = os.sysconf('SC_CLK_TCK')
VERSIONS = {'compute': 'compute 2.90', 'placement': 'placement 1.39', 'storage-block': 'volume 3.60'}


def _stat(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rsplit(')', 1)[1].split()
    except OSError:
        return None


def cpu_of_sessions(sessions):
    """CPU seconds used so far by all processes of some sessions (pids of their leaders), children that ended included."""
    total = 0
    for pid in filter(str.isdigit, os.listdir('/proc')):
        fields = _stat(pid)
        if fields and int(fields[3]) in sessions:
            total += sum(int(field) for field in fields[11:15])
    return total / TICK


def pss_of_sessions(sessions):
    """Proportional set size in MB of all processes of some sessions."""
    total = 0
    for pid in filter(str.isdigit, os.listdir('/proc')):
        fields = _stat(pid)
        if fields and int(fields[3]) in sessions:
            total += pss(pid)
    return total


def pss(pid):
    """Proportional set size of one process in MB; 0 if it is gone."""
    try:
        with open(f'/proc/{pid}/smaps_rollup') as file:
            return sum(int(line.split()[1]) for line in file if line.startswith('Pss:')) / 1024
    except OSError:
        return 0


class Fault(Exception):
    """An answer of 400 or more."""


class Wire:
    """One connection to a server. It costs a third of http.client's, and sends a request in one piece: client and server share
    the machine that is measured.
    """

    def __init__(self, host, port):
        self._host = f'{host}:{port}'
        self._socket = socket.create_connection((host, port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile('rb')
        self.ended = False

    def ask(self, method, path, headers, body=None):
        """``(status, headers by their names in small letters, body)``."""
        lines = [f'{method} {path} HTTP/1.1', 'Host: ' + self._host, *(f'{name}: {value}' for name, value in headers.items())]
        if body is not None or method in ('POST', 'PUT', 'PATCH'):
            lines.append(f'Content-Length: {len(body or b"")}')
        self._socket.sendall('\r\n'.join(lines).encode() + b'\r\n\r\n' + (body or b''))
        first = self._file.readline()
        if not first:
            raise EOFError
        status = int(first.split(b' ', 2)[1])
        found = collections.defaultdict(str)
        while (line := self._file.readline()) not in (b'\r\n', b'\n'):
            if not line:
                raise EOFError
            name, _, value = line.decode('latin-1').partition(':')
            found[name.lower()] = value.strip()
        return status, found, self._body(method, status, found)

    def _body(self, method, status, headers):
        if method == 'HEAD' or status in (204, 304):
            return b''
        if headers['transfer-encoding'] == 'chunked':
            pieces = []
            while size := int(self._file.readline().split(b';')[0], 16):
                pieces.append(self._file.read(size))
                self._file.readline()
            self._file.readline()
            return b''.join(pieces)
        if headers['content-length']:
            return self._file.read(int(headers['content-length']))
        self.ended = True
        return self._file.read()

    def close(self):
        """Close it."""
        self._file.close()
        self._socket.close()


class Target:
    """An implementation to be measured.

    :param name: ``kodiak`` or ``peer``. :param urls: service to base URL (identity with ``/v3``, image, network and placement
        without a version, compute with ``/v2.1``, storage-block with ``/v3``, storage-object with ``/v1``).
    :param sessions: service to session leaders' pids.
    :param login: the body of a token request.
    """

    def __init__(self, name, urls, sessions, user, password, project):
        self.name, self.urls, self.sessions = name, urls, sessions
        self.user, self.password, self.project = user, password, project
        self.token = None
        self._kept = threading.local()
        self.log_in()

    def login_body(self):
        """The body of a request for a project's token by password."""
        domain = {'id': 'default'}
        return {'auth': {
            'identity': {'methods': ['password'],
                         'password': {'user': {'name': self.user, 'domain': domain, 'password': self.password}}},
            'scope': {'project': {'name': self.project, 'domain': domain}}}}

    def log_in(self):
        """Take a fresh token."""
        _, headers, body = self.raw('POST', 'identity', '/auth/tokens', self.login_body())
        self.token = headers['x-subject-token']
        self.info = json.loads(body)['token']

    def raw(self, method, service, path, body=None, headers=None):
        """One request: ``(status, headers, body)``; :class:`Fault` from 400 on."""
        url = urllib.parse.urlsplit(self.urls[service] + path)
        sent = {**({'OpenStack-API-Version': VERSIONS[service]} if service in VERSIONS else {}), **(headers or {})}
        if self.token:
            sent['X-Auth-Token'] = self.token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault('Content-Type', 'application/json')
        status, answered, data = self._ask(url, method, body, sent)
        if status >= 400:
            raise Fault(f'{method} {url.path} -> {status} {data[:300]!r}')
        return status, answered, data

    def _ask(self, url, method, body, headers):
        kept = self._kept.__dict__.setdefault('connections', {})
        fresh = url.netloc not in kept
        if fresh:
            kept[url.netloc] = Wire(url.hostname, url.port)
        wire = kept[url.netloc]
        try:
            status, answered, data = wire.ask(method, url.path + ('?' + url.query if url.query else ''), headers, body)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            # The server closed it between two requests, which it may; a fresh one must work.
            kept.pop(url.netloc).close()
            if fresh:
                raise
            return self._ask(url, method, body, headers)
        except BaseException:
            kept.pop(url.netloc).close()
            raise
        if answered['connection'].lower() == 'close' or wire.ended:
            kept.pop(url.netloc).close()
        return status, answered, data

    def call(self, method, service, path, body=None, headers=None):
        """As :meth:`raw`, but returns the parsed body."""
        data = self.raw(method, service, path, body, headers)[2]
        return json.loads(data) if data else None

    def cpu(self, *services):
        """CPU seconds that the processes of some services have used."""
        return cpu_of_sessions({pid for service in services for pid in self.sessions.get(service, ())})


class Recorder:
    """Collects what was measured, as one JSON object a line."""

    def __init__(self, path):
        self.path = path
        self.rows = []

    def add(self, target, what, **figures):
        """Keep and print one figure."""
        row = {'impl': target.name, 'what': what, 'load': os.getloadavg()[0], **figures}
        self.rows.append(row)
        with open(self.path, 'a') as file:
            file.write(json.dumps(row) + '\n')
        shown = ' '.join(f'{name}={value:.2f}' if isinstance(value, float) else f'{name}={value}'
                         for name, value in figures.items() if value is not None)
        print(f'  {target.name:8} {what:42} {shown}', flush=True)


def run(recorder, target, what, services, function, seconds=4.0, clients=1, at_least=5):
    """Call ``function(number)`` in a closed loop and record CPU a call and elapsed times.

    :param services: whose CPU counts. :param seconds: how long; ``at_least`` so many calls all the same.
    """
    function(0)
    times, faults, lock = [], [], threading.Lock()
    began, counter = time.monotonic(), iter(range(1, 1 << 40))
    cpu = target.cpu(*services)

    def loop():
        while True:
            with lock:
                number = next(counter)
                if time.monotonic() - began > seconds and number > at_least:
                    return
            start = time.perf_counter()
            try:
                function(number)
                times.append(time.perf_counter() - start)
            except Exception as error:
                faults.append(error)
                if len(faults) > 20:
                    return
    threads = [threading.Thread(target=loop) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, cpu = time.monotonic() - began, target.cpu(*services) - cpu
    if faults:
        print(f'  {what}: {len(faults)} faults, the first: {faults[0]}')
    if not times:
        return
    times.sort()
    recorder.add(target, what, cpu_ms=cpu * 1000 / len(times), p50_ms=statistics.median(times) * 1000,
                 p95_ms=times[min(len(times) - 1, int(len(times) * .95))] * 1000, rate=len(times) / elapsed, n=len(times),
                 faults=len(faults))


def together(function, items, threads=4):
    """Call ``function`` for every item, several at once; the first fault is raised at the end."""
    items, lock, faults = iter(items), threading.Lock(), []

    def loop():
        while True:
            with lock:
                item = next(items, None)
            if item is None or len(faults) > 10:
                return
            try:
                function(item)
            except Exception as error:
                faults.append(error)
    workers = [threading.Thread(target=loop) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]


def until(question, seconds=600, every=0.05):
    """Ask until the answer is true; returns the seconds that it took."""
    began = time.perf_counter()
    while not question():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f'not within {seconds} s')
        time.sleep(every)
    return time.perf_counter() - began
