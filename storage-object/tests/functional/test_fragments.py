"""An object out of fragments, whose servers are slow, stop or break off: each stands behind a relay."""
import os
import socket
import threading

import pytest
from storage_object_probe import caller_of

from kodiak.storage_object.proxy import app, backend, pipeline

pytestmark = pytest.mark.parametrize('servers', ['coded'], indirect=True)
PATH = '/v1/AUTH_a/c/o'
BUFFER = 32768          # what may lie in the sockets between


class Relay:
    """Passes connections on. ``gate(count)`` is called before more than so many bytes of answers go on; False: it breaks off."""

    def __init__(self, port):
        self.target, self.gate, self.asked, self.sent = port, lambda count: True, 0, 0
        self.ending = threading.Event()
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port = self._listener.getsockname()[1]
        self._sockets, self._threads = [], []
        self._begin(self._listen)

    def _begin(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self):
        while not self.ending.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(('127.0.0.1', self.target))
            self._sockets += [client, server]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            self._begin(self._pass, client, server, False)
            self._begin(self._pass, server, client, True)

    def _pass(self, source, target, is_answer):
        try:
            while data := source.recv(4096):
                if is_answer:
                    if not self.gate(self.sent):
                        break
                    target.sendall(data)
                    self.sent += len(data)
                else:
                    self.asked += data.startswith(b'GET ')
                    target.sendall(data)
        except OSError:
            pass
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        """End it, and all that it passed on."""
        self.ending.set()
        for each in (self._listener, *self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for each in (self._listener, *self._sockets):
            each.close()


class Through(backend.Client):
    """A proxy's way to the servers, through the relay of each device."""

    relays = None

    def connect(self, node, head, body=b''):
        if self.relays:
            node = {**node, 'port': self.relays[node['device']].port}
        return super().connect(node, head, body)


class Pool(backend.Pool):
    """Connections that hold little."""

    def take(self, address):
        connection = super().take(address)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        return connection


@pytest.fixture
def world(servers):
    """``(call, the relays in the order of the fragments, the body)``: an object of several segments."""
    rings, pool = servers.proxy_rings(), Pool(node_timeout=1)
    proxy = app.Proxy(rings, pool=pool, nodes=backend.Nodes(), account_management=True)
    client = proxy.objects.client = Through(pool, proxy.client.nodes)
    call = caller_of(pipeline.assemble(proxy, []))
    data = os.urandom((3 << 20) + 12345)
    for method_path in ('/v1/AUTH_a', '/v1/AUTH_a/c'):
        assert call('PUT', method_path).status == 201
    assert call('PUT', PATH, data).status == 201
    ring = rings.object(0)
    client.relays = {name: Relay(servers.port) for name in servers.names}
    yield call, [client.relays[node['device']] for node in ring.primaries(ring.get_part('AUTH_a', 'c', 'o'))], data
    for relay in client.relays.values():
        relay.close()


@pytest.mark.parametrize('slow', [0, 1])
def test_devices_are_read_from_at_once(world, slow):
    call, relays, data = world
    other = relays[1 - slow]
    enough = threading.Event()

    def watched(count):
        if count > 400_000:
            enough.set()
        return True
    # More than half of the other's fragment must have gone through before this one's body comes: who waits for this first waits
    # for ever.
    other.gate = watched
    relays[slow].gate = lambda count: count < 4096 or enough.wait(20)
    assert call('GET', PATH).body == data
    assert [relay.asked for relay in relays] == [1, 1, 0]


@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('bytes_', [100_000, 700_000, 1_500_000])
def test_a_spare_takes_the_place_of_one_that_breaks_off(world, place, bytes_):
    call, relays, data = world
    relays[place].gate = lambda count: count < bytes_
    assert call('GET', PATH).body == data
    assert [relay.asked for relay in relays] == [1, 1, 1]
    # Of the segments that had been read nothing is read again.
    assert relays[2].sent < (len(data) - bytes_ * 2) // 2 + (1 << 20)


@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('bytes_', [0, 700_000])
def test_a_spare_takes_the_place_of_one_that_stops(world, place, bytes_):
    call, relays, data = world
    stopped = relays[place]
    stopped.gate = lambda count: count < bytes_ or stopped.ending.wait(30)
    assert call('GET', PATH).body == data
    assert [relay.asked for relay in relays] == [1, 1, 1]


def test_ranges_come_so_too(world):
    call, relays, data = world
    relays[0].gate = lambda count: count < 300_000
    answer = call('GET', PATH, Range='bytes=1000000-2999999')
    assert answer.status == 206 and answer.body == data[1_000_000:3_000_000]
    assert [relay.asked for relay in relays] == [1, 1, 1]


def test_without_a_spare_it_ends(world):
    call, relays, _ = world
    for relay in relays[1:]:
        relay.gate = lambda count: count < 700_000
    with pytest.raises(OSError):
        call('GET', PATH)
