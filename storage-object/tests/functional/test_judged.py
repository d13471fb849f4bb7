"""Writes that hang on what is there, by proxies that see different devices, and that break off after each step."""
import contextlib
import glob
import io
import json
import os
import time

import pytest
from storage_object_probe import caller_of

from kodiak.storage_object.backend import held
from kodiak.storage_object.proxy import app, backend, pipeline

pytestmark = pytest.mark.parametrize('servers', ['real', 'coded'], indirect=True)
PATH = '/v1/AUTH_a/c/o'
SIZES = [0, 100, 3 << 20]


class Hurdles(backend.Client):
    """A proxy's way to the servers, on which ``meet(device, head)`` is called before each request; True: it does not arrive."""

    meet = staticmethod(lambda device, head: False)

    def connect(self, node, head, body=b''):
        return None if self.meet(node['device'], head.decode('latin-1')) else super().connect(node, head, body)


class Proxy:
    """A proxy of its own, that some devices are out for."""

    def __init__(self, rings):
        proxy = app.Proxy(rings, pool=backend.Pool(), nodes=backend.Nodes(), account_management=True)
        self.client = proxy.objects.client = Hurdles(proxy.client.pool, proxy.client.nodes)
        self.call = caller_of(pipeline.assemble(proxy, []))
        self.ring = rings.object(0)
        self.nodes = self.ring.primaries(self.ring.get_part('AUTH_a', 'c', 'o'))

    def without(self, *places):
        """Let primaries be out."""
        for place in places:
            self.client.nodes.failed(self.nodes[place], 100)
        return self

    def meeting(self, step, event):
        """Call a function before the first request of a step; ``True``: of its requests only those to the first device arrive."""
        met = []

        def meet(device, head):
            if f'X-Backend-Held: {step}' not in head and (step != 'hold' or not head.startswith('PUT')):
                return False
            met.append(device)
            if event is True:
                return device != met[0]
            return event() if len(met) == 1 else False
        self.client.meet = meet
        return self


class Dead(BaseException):
    """A proxy ends."""


@pytest.fixture
def world(servers):
    """The servers with the container; ``files()`` on the devices, of one object."""
    first = Proxy(servers.proxy_rings())
    assert first.call('PUT', '/v1/AUTH_a').status == 201
    assert first.call('PUT', '/v1/AUTH_a/c').status == 201
    return World(servers)


class World:
    def __init__(self, servers):
        self.servers, self.rings = servers, servers.proxy_rings()
        self.digest = servers.rings['object'].hash_path('AUTH_a', 'c', 'o')

    def proxy(self, *without):
        return Proxy(self.rings).without(*without)

    def paths(self, what='*'):
        return glob.glob(f'{self.servers.folder}/devices/*/objects/*/*/{self.digest}/{what}')

    def stamps(self):
        """``{timestamp: devices that have anything of it}``."""
        found = {}
        for path in self.paths():
            found.setdefault(os.path.basename(path).partition('#')[0][:16], set()).add(path.split('/devices/')[1][:2])
        return found

    def let_go(self):
        """What is held has been so for long."""
        for path in self.paths('*.held'):
            os.utime(path, (time.time() - held.SECONDS,) * 2)

    def listed(self):
        rows = json.loads(self.proxy().call('GET', '/v1/AUTH_a/c?format=json').body)
        return [(row['name'], row['bytes']) for row in rows]

    def body(self):
        """What each proxy would give, whatever device it asks."""
        found = {self.proxy().call('GET', PATH, X_Newest='true').body for _ in range(3)}
        assert len(found) == 1
        return found.pop()

    def now(self):
        """The header of a write that hangs on what is there now."""
        return self.proxy().call('HEAD', PATH, X_Newest='true').headers['X-Backend-Data-Timestamp']


@pytest.mark.parametrize('size', SIZES)
def test_proxies_with_different_views_agree(world, size):
    first, second = world.proxy(0), world.proxy(2)
    if world.servers.policy != '0:gold':
        first, second = world.proxy(), world.proxy()        # (2+1: each of the three is needed)
    answers = []

    def race():
        answers.append(second.call('PUT', PATH, os.urandom(size + 1), If_None_Match='*').status)
    first.meeting('commit', race)
    data = os.urandom(size)
    assert first.call('PUT', PATH, data, If_None_Match='*').status == 201
    assert answers == [409]
    assert len(world.stamps()) == 1 and world.body() == data
    assert second.call('PUT', PATH, b'x', If_None_Match='*').status == 412
    assert len(world.stamps()) == 1 and not world.paths('*.held')
    assert world.listed() == [('o', size)]


@pytest.mark.parametrize('size', SIZES)
def test_what_comes_before_the_commit_is_looked_at_again(world, size):
    first, second = world.proxy(), world.proxy()
    first.meeting('commit', lambda: second.call('PUT', PATH, b'other').status != 201)
    # The other has the newer timestamp.
    assert first.call('PUT', PATH, os.urandom(size), If_None_Match='*').status == 412
    assert len(world.stamps()) == 1 and world.body() == b'other'
    old = world.now()
    first.meeting('commit', lambda: second.call('PUT', PATH, b'third').status != 201)
    stamp = f'{time.time() + 100:016.5f}'
    assert first.call('PUT', PATH, b'mine', X_Timestamp=stamp, X_Backend_If_Not_After=old).status == 412
    assert len(world.stamps()) == 1 and world.body() == b'third'
    assert world.listed() == [('o', 5)]


@pytest.mark.parametrize('method', ['PUT', 'DELETE'])
def test_a_commit_that_does_not_arrive_leaves_what_was_there(world, method):
    assert world.proxy().call('PUT', PATH, b'before').status == 201
    before, old = world.stamps(), world.now()
    proxy = world.proxy().meeting('commit', True)
    assert proxy.call(method, PATH, b'after' if method == 'PUT' else b'', X_Backend_If_Not_After=old).status == 503
    assert world.stamps() == before and not world.paths('*.held')
    assert world.body() == b'before'
    assert world.listed() == [('o', 6)]
    assert world.proxy().call(method, PATH, b'later' if method == 'PUT' else b'', X_Backend_If_Not_After=old).status // 100 == 2
    assert len(world.stamps()) == 1 and world.listed() == ([('o', 5)] if method == 'PUT' else [])


def test_of_one_that_was_new_nothing_is_left(world):
    proxy = world.proxy().meeting('commit', True)
    assert proxy.call('PUT', PATH, b'x', If_None_Match='*').status == 503
    assert not world.paths() and world.listed() == []
    assert world.proxy().call('PUT', PATH, b'y', If_None_Match='*').status == 201
    assert world.listed() == [('o', 1)]


@pytest.mark.parametrize('size', SIZES)
def test_too_few_judge(world, size):
    # Handoffs, of which there are enough, know nothing.
    for places in ((0, 1), (1, 2), (0, 1, 2)):
        assert world.proxy(*places).call('PUT', PATH, os.urandom(size), If_None_Match='*').status == 503
    assert world.proxy().meeting('hold', True).call('PUT', PATH, os.urandom(size), If_None_Match='*').status == 503
    assert not world.paths()


def test_the_newest_that_any_knows_decides(world):
    if world.servers.policy != '0:gold':
        pytest.skip('a write with this code needs all devices')
    # Two know nothing of what the third has.
    stamp = world.proxy().nodes[2]['device']
    assert world.proxy().call('PUT', PATH, b'x').status == 201
    for path in world.paths():
        if f'/{stamp}/' not in path:
            os.unlink(path)
    assert world.proxy(0).call('PUT', PATH, b'y', If_None_Match='*').status == 412
    assert world.proxy().call('PUT', PATH, b'y', X_Backend_If_Not_After='0000000001.00000').status == 412
    assert len(world.paths()) == 1
    # Two know that it was deleted.
    world.proxy(2).call('DELETE', PATH)
    assert world.proxy().call('PUT', PATH, b'y', If_None_Match='*').status == 201
    assert world.body() == b'y'


def test_a_proxy_dies_before_the_commit(world):
    late = []

    def note():
        late.extend(os.path.basename(path) for path in world.paths('*.held'))
        raise Dead
    proxy = world.proxy().meeting('commit', note)
    proxy.client.ask_each = _dying(proxy.client)
    with contextlib.suppress(Dead):
        proxy.call('PUT', PATH, b'dead', If_None_Match='*')
    assert len(world.paths('*.held')) == 3
    assert world.proxy().call('GET', PATH).status == 404
    assert world.proxy().call('PUT', PATH, b'soon', If_None_Match='*').status == 409
    world.let_go()
    assert world.proxy().call('PUT', PATH, b'new', If_None_Match='*').status == 201
    # What comes of it late is refused.
    stamp = late[0][:16]
    other = backend.Client(backend.Pool(), backend.Nodes())
    ring = world.rings.object(0)
    answers = other.ask_each('POST', ring.get_part('AUTH_a', 'c', 'o'), '/AUTH_a/c/o', [
        (node, {'X-Timestamp': stamp, 'X-Backend-Held': 'commit', 'X-Backend-Storage-Policy-Index': '0', 'Content-Length': '0'})
        for node in ring.primaries(ring.get_part('AUTH_a', 'c', 'o'))])
    assert [answer.status for answer in answers] == [409] * 3
    assert world.body() == b'new' and len(world.stamps()) == 1


def _dying(client):
    """No request gets through once one has had the proxy die."""
    dead = []

    def ask_each(*arguments):
        if dead:
            raise Dead
        try:
            return backend.Client.ask_each(client, *arguments)
        except Dead:
            dead.append(True)
            raise
    return ask_each


def test_a_proxy_dies_between_commits(world):
    proxy = world.proxy()
    asked = []

    def meet(device, head):
        if 'X-Backend-Held: ' in head:
            asked.append(device)
            if len(asked) > 1:
                raise Dead
        return False
    proxy.client.meet = meet
    proxy.client.ask_each = _dying(proxy.client)
    with contextlib.suppress(Dead):
        proxy.call('PUT', PATH, b'dead', If_None_Match='*')
    deadline = time.monotonic() + 20
    while not [path for path in world.paths() if path.endswith('.data') and ('#' not in path or '#d' in path)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # It was not answered, and holds: what one device has in its place comes to all.
    world.let_go()
    assert world.proxy().call('PUT', PATH, b'new', If_None_Match='*').status == 412
    assert world.body() == b'dead'
    world.servers.process.once('replicator', 'reconstructor', 'auditor')
    assert set(map(len, world.stamps().values())) == {3}
    assert world.body() == b'dead'


@pytest.mark.parametrize('size', [1000, 3 << 20])
def test_a_client_that_goes_away_leaves_nothing(world, size):
    body = io.BytesIO(os.urandom(size - 1))
    assert world.proxy().call('PUT', PATH, body, Content_Length=str(size), If_None_Match='*').status == 499
    deadline = time.monotonic() + 20
    while world.paths('*.held') or glob.glob(f'{world.servers.folder}/devices/*/tmp/*'):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not world.paths()
    assert world.proxy().call('PUT', PATH, b'x', Etag='0' * 32, If_None_Match='*').status == 422
    assert not world.paths()


def test_what_nobody_settled_is_reclaimed(world):
    assert world.proxy().call('PUT', PATH, b'before').status == 201
    old = world.now()
    proxy = world.proxy()
    proxy.client.meet = lambda device, head: 'X-Backend-Held: settle' in head
    assert proxy.call('PUT', PATH, b'after', X_Backend_If_Not_After=old).status == 201
    assert len(world.stamps()) == 2 and world.body() == b'after'
    for path in world.paths('*.held'):
        os.utime(path, (time.time() - held.IDLE - 1,) * 2)
    world.servers.process.once('auditor')
    assert len(world.stamps()) == 1 and not world.paths('*.held') and world.body() == b'after'
