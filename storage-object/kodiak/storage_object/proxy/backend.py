"""HTTP/1.1 to the account, container and object servers: pooled connections, answers that are gathered, bodies that stream."""
import logging
import select
import socket
import threading
import time

from .http import HeaderDict, quote

LOG = logging.getLogger(__name__)
ERRORS = (OSError, EOFError, ValueError)
READ = 262144


class Connection:
    """One connection to a server."""

    __slots__ = ('address', 'broken', 'buffer', 'device', 'fresh', 'sock', 'used')

    def __init__(self, address, timeout):
        self.address = address
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b''
        self.fresh = True
        self.broken = False

    def alive(self):
        """Whether an idle connection has not been closed by its server."""
        return not readable([self])

    def close(self):
        """End it."""
        self.broken = True
        self.sock.close()

    def fill(self):
        """Read more into the buffer."""
        data = self.sock.recv(READ)
        if not data:
            raise EOFError('the server closed the connection')
        self.buffer += data

    def line(self):
        """One line, without its end."""
        while (end := self.buffer.find(b'\r\n')) < 0:
            if len(self.buffer) > 1 << 20:
                raise ValueError('a line without end')
            self.fill()
        line, self.buffer = self.buffer[:end], self.buffer[end + 2:]
        return line

    def head(self):
        """``(status, headers)`` of the next answer that is not interim."""
        while True:
            while (end := self.buffer.find(b'\r\n\r\n')) < 0:
                self.fill()
            lines = self.buffer[:end].decode('latin-1').split('\r\n')
            self.buffer = self.buffer[end + 4:]
            status = int(lines[0].split(' ', 2)[1])
            if status == 100:
                continue
            headers = HeaderDict()
            for line in lines[1:]:
                name, _, value = line.partition(':')
                headers[name] = value.strip(' \t')
            return status, headers


def readable(connections, seconds=0):
    """Those of which something can be read, or that have ended; waits so many seconds for the first."""
    poll, known = select.poll(), {}         # select() takes no descriptor beyond 1,023
    for connection in connections:
        if connection.buffer:
            seconds = 0
        known[connection.sock.fileno()] = connection
        poll.register(connection.sock, select.POLLIN)
    found = {descriptor for descriptor, _ in poll.poll(seconds * 1000)} if known else ()
    return [connection for descriptor, connection in known.items() if descriptor in found or connection.buffer]


class Pool:
    """Idle connections to all servers of a process."""

    def __init__(self, connect_timeout=0.5, node_timeout=10, idle=64):
        self.connect_timeout, self.node_timeout, self.limit = connect_timeout, node_timeout, idle
        self._idle = {}
        self._lock = threading.Lock()

    def take(self, address):
        """A connection, idle or new."""
        while True:
            with self._lock:
                waiting = self._idle.get(address)
                connection = waiting.pop() if waiting else None
            if connection is None:
                connection = Connection(address, self.connect_timeout)
                connection.sock.settimeout(self.node_timeout)
                return connection
            if connection.alive():
                connection.fresh = False
                return connection
            connection.close()

    def give(self, connection):
        """Keep a connection whose last answer has been read to its end."""
        if connection.broken or connection.buffer:
            connection.close()
            return
        with self._lock:
            waiting = self._idle.setdefault(connection.address, [])
            if len(waiting) < self.limit:
                waiting.append(connection)
                return
        connection.close()

    def close(self):
        """End those that are idle, and from now on each that is given back."""
        with self._lock:
            idle, self._idle, self.limit = self._idle, {}, 0
        for connection in (connection for waiting in idle.values() for connection in waiting):
            connection.close()


class Answer:
    """A server's answer; ``body()`` streams it, and gives the connection back at its end."""

    def __init__(self, pool, connection, node, status, headers, method):
        self.pool, self.connection, self.node, self.status, self.headers = pool, connection, node, status, headers
        self.left = None
        if method == 'HEAD' or status in (204, 304):
            self.left = 0
        elif headers.get('Transfer-Encoding', '').lower() != 'chunked':
            self.left = int(headers['Content-Length']) if 'Content-Length' in headers else -1
        self.keep = headers.get('Connection', '').lower() != 'close' and self.left != -1
        if self.left == 0:
            self._end()

    def _end(self):
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.keep:
            self.pool.give(connection)
        else:
            connection.close()

    def body(self):
        """Its pieces. Raises of :data:`ERRORS` if it ends early."""
        connection = self.connection
        if connection is None:
            return
        try:
            if self.left is None:
                while size := int(connection.line().split(b';')[0], 16):
                    while len(connection.buffer) < size + 2:
                        connection.fill()
                    data, connection.buffer = connection.buffer[:size], connection.buffer[size + 2:]
                    yield data
                while connection.line():
                    pass
            else:
                if connection.buffer:
                    data = connection.buffer if self.left < 0 else connection.buffer[:self.left]
                    connection.buffer = connection.buffer[len(data):]
                    self.left -= len(data) if self.left > 0 else 0
                    yield data
                while self.left:
                    data = connection.sock.recv(READ if self.left < 0 else min(READ, self.left))
                    if not data:
                        if self.left < 0:
                            break
                        raise EOFError('the server closed the connection')
                    self.left -= len(data) if self.left > 0 else 0
                    yield data
            self._end()
        finally:
            if self.connection is not None:
                self.connection = None
                connection.close()

    def some(self, most):
        """What has come of a body that has a length, up to so many bytes; waits where nothing has. Raises of :data:`ERRORS`."""
        connection = self.connection
        if connection is None:
            raise EOFError('it ended early')
        if self.left is None or self.left < 0:
            raise ValueError('a body without a length')
        most = min(most, self.left)
        if connection.buffer:
            data, connection.buffer = connection.buffer[:most], connection.buffer[most:]
        elif not (data := connection.sock.recv(min(READ, most))):
            raise EOFError('the server closed the connection')
        self.left -= len(data)
        if not self.left:
            self._end()
        return data

    def read(self):
        """The whole body."""
        return b''.join(self.body())

    def close(self):
        """Let go of the connection, whatever is still to come on it."""
        if self.connection is not None:
            if self.left is not None and 0 <= self.left < 8192:
                try:
                    self.read()
                    return
                except ERRORS:
                    pass
            connection, self.connection = self.connection, None
            if connection is not None:
                connection.close()


def head_of(method, path, headers, query=''):
    """The bytes of a request's head. ``path`` is text."""
    lines = [f'{method} {quote(path)}{"?" + query if query else ""} HTTP/1.1']
    lines += [f'{name}: {value}' for name, value in headers.items()]
    return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')


class Nodes:
    """The nodes that a request may go to: primaries (unsteady ones last), then handoffs; with a memory for errors.

    A node that answered 507 or failed ``limit`` times is passed over for ``interval`` seconds.
    """

    def __init__(self, limit=10, interval=60):
        self.limit, self.interval = limit, interval
        self._errors = {}

    @staticmethod
    def _key(node):
        return node['ip'], node['port'], node['device']

    def failed(self, node, weight=1):
        """Note an error; ``weight`` of the limit for a device that is out."""
        count, _ = self._errors.get(self._key(node), (0, 0))
        self._errors[self._key(node)] = (count + weight, time.monotonic())

    def out(self, node):
        """Whether a node is passed over."""
        known = self._errors.get(self._key(node))
        if known is None:
            return False
        if time.monotonic() - known[1] > self.interval:
            self._errors.pop(self._key(node), None)
            return False
        return known[0] >= self.limit

    def usable(self, ring, part, extra):
        """Primaries and then up to ``extra`` handoffs, without those that are out."""
        for node in ring.primaries(part):
            if not self.out(node):
                yield node
        for node in ring.handoffs(part):
            if extra <= 0:
                return
            if not self.out(node):
                extra -= 1
                yield node


class Absences:
    """Who said that something is not there. A handoff does not know: it counts for nothing where a primary may have it."""

    def __init__(self, ring, part):
        self._ids = {node['id'] for node in ring.primaries(part)}
        self._quorum = len(self._ids) // 2 + 1
        self._missing = set()

    def add(self, node):
        """A node said so."""
        if node['id'] in self._ids:
            self._missing.add(node['id'])

    @property
    def certain(self):
        """Whether a majority of the primaries said so."""
        return len(self._missing) >= self._quorum

    @property
    def all(self):
        """Whether every primary said so."""
        return self._missing == self._ids


class Client:
    """Asks servers."""

    def __init__(self, pool, nodes):
        self.pool, self.nodes = pool, nodes

    def node_failed(self, node, error):
        """Note that a node did not take a request, or did not answer; an empty ``error``: it said nothing."""
        LOG.warning('%s:%s/%s: %s', node['ip'], node['port'], node['device'], error or 'no answer')
        self.nodes.failed(node)

    def connect(self, node, head, body=b''):
        """Send a request's head and a short body; ``None`` where the node does not take it."""
        for _ in range(2):
            connection = None
            try:
                connection = self.pool.take((node['ip'], node['port']))
                connection.sock.sendall(head + body if len(body) < 65536 else head)
                if len(body) >= 65536:
                    connection.sock.sendall(body)
                return connection
            except ERRORS as error:
                if connection is not None:
                    connection.close()
                    if not connection.fresh:
                        continue
                self.node_failed(node, error)
                return None
        return None

    def answer(self, connection, node, method, again=None):
        """The answer on a connection; None if there is none. ``again`` sends once more where an idle connection was stale."""
        try:
            return self._judge(Answer(self.pool, connection, node, *connection.head(), method))
        except ERRORS as error:
            connection.close()
            if not connection.fresh and again is not None and isinstance(error, (EOFError, ConnectionError)):
                connection = again()
                return self.answer(connection, node, method) if connection is not None else None
            self.node_failed(node, error)
            return None

    def answers(self, waiting, method):
        """``(node, answer)`` of requests to several nodes, as they come; None of those that are silent for too long.

        :param waiting: ``[(node, head, connection)]``.
        """
        known = {connection: (node, head) for node, head, connection in waiting if connection is not None}
        deadline = time.monotonic() + self.pool.node_timeout
        try:
            while known and (ready := readable(known, max(0, deadline - time.monotonic()))):
                for connection in ready:
                    node, head = known.pop(connection)
                    yield node, self.answer(connection, node, method, lambda n=node, h=head: self.connect(n, h))
            for node, _ in known.values():
                self.node_failed(node, None)
        finally:
            for connection in known:
                connection.close()

    def _judge(self, answer):
        if answer.status == 507:
            self.nodes.failed(answer.node, self.nodes.limit)
        elif answer.status >= 500:
            self.nodes.failed(answer.node)
        return answer

    def ask(self, node, method, part, path, headers, query='', body=b''):
        """One request to one node; None if it does not answer."""
        head = head_of(method, f'/{node["device"]}/{part}{path}', headers, query)
        connection = self.connect(node, head, body)
        if connection is None:
            return None
        return self.answer(connection, node, method, lambda: self.connect(node, head, body))

    def ask_each(self, method, part, path, each, query=''):
        """Requests to nodes at once. ``each``: ``[(node, headers)]``. Returns the answers, their bodies read (``content``)."""
        waiting, answers = [], []
        for node, headers in each:
            head = head_of(method, f'/{node["device"]}/{part}{path}', headers, query)
            waiting.append((node, head, self.connect(node, head)))
        for node, head, connection in waiting:
            answer = None
            if connection is not None:
                answer = self.answer(connection, node, method, lambda n=node, h=head: self.connect(n, h))
            if answer is not None:
                self._keep(answer, answers)
        return answers

    @staticmethod
    def _keep(answer, answers):
        try:
            answer.content = answer.read()
        except ERRORS:
            return
        answers.append(answer)

    def ask_many(self, ring, part, method, path, headers, query='', body=b''):
        """The same request to all replicas at once, handoffs in place of nodes that are out.

        :param headers: a list of dicts, one a replica.
        :returns: answers (:class:`Answer`, their bodies read), one a replica that answered.
        """
        nodes = self.nodes.usable(ring, part, ring_replicas(ring))
        waiting, answers = [], []
        for each in headers:
            self._start(nodes, part, method, path, each, query, body, waiting)
        while waiting:
            connection, node, each, head = waiting.pop(0)
            answer = self.answer(connection, node, method, lambda n=node, h=head: self.connect(n, h, body))
            if answer is None or answer.status == 507:
                if answer is not None:
                    answer.close()
                self._start(nodes, part, method, path, each, query, body, waiting)
                continue
            self._keep(answer, answers)
        return answers

    def _start(self, nodes, part, method, path, headers, query, body, waiting):
        for node in nodes:
            head = head_of(method, f'/{node["device"]}/{part}{path}', headers, query)
            connection = self.connect(node, head, body)
            if connection is not None:
                waiting.append((connection, node, headers, head))
                return


def ring_replicas(ring):
    """Whole number of replicas."""
    return int(-(-ring.replica_count // 1))
