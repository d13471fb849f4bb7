"""Containers that are cut up into shards: four devices in this process, a proxy before them, sharders that die at every step."""
import hashlib
import io
import json
import os
import pathlib
import socketserver
import sys
import tempfile
import threading
import types
import wsgiref.simple_server

import pytest

from kodiak.common import testing
from kodiak.storage_object import shards_command
from kodiak.storage_object.backend import app as servers_app
from kodiak.storage_object.backend.broker import Brokers
from kodiak.storage_object.backend.broker import Containers as Broker
from kodiak.storage_object.backend.containers import deletion
from kodiak.storage_object.backend.devices import Devices
from kodiak.storage_object.backend.trees import databases
from kodiak.storage_object.backend.updates import Updater
from kodiak.storage_object.daemons import cleaving, reaper, replicator, sharder, updater
from kodiak.storage_object.daemons.reconciler import queue_strays
from kodiak.storage_object.proxy import app, pipeline
from kodiak.storage_object.proxy.http import Response, to_wsgi
from kodiak.storage_object.proxy.rings import Rings
from kodiak.storage_object.ring import Policies, Ring

ACCOUNT = 'AUTH_test'


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads, allow_reuse_address = True, True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def get_environ(self):
        environ = super().get_environ()
        if 'Content-Type' not in self.headers:
            environ.pop('CONTENT_TYPE', None)
        return environ


class World:
    """Servers of four devices, and a proxy."""

    def __init__(self, folder):
        real = sys.modules['storage_object_real']
        self.folder, self.port = str(folder), testing.free_port()
        for number in range(4):
            (folder / 'devices' / f'd{number}').mkdir(parents=True)
        real.make_rings(f'{folder}/rings', [(number, self.port, f'd{number}') for number in range(4)])
        storage = types.SimpleNamespace(
            devices=f'{folder}/devices', ring_path=f'{folder}/rings', policies=['0:gold'], interval=1, reclaim_age=86400,
            shard_threshold=24, shard_size=8, shard_shrink=50, shard_batch=1000)
        self.conf = types.SimpleNamespace(storage=storage, state_path=f'{folder}/state', run_path=f'{folder}/run')
        self.rings = Rings(Ring(f'{folder}/rings/account.ring.gz'), Ring(f'{folder}/rings/container.ring.gz'),
                           list(Policies(self.conf)))
        self.server = servers_app.Server(Devices(storage.devices), self.rings, self.port)
        self.http = wsgiref.simple_server.make_server('127.0.0.1', self.port, self.server, _Server, _Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        self.clock = 1_600_000_000
        self.proxy = app.Proxy(self.rings)
        self.application = pipeline.assemble(self.proxy, [('catch_errors', {}), ('listing_formats', {})])

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(5)
        self.server.brokers.close()

    def call(self, method, path, body=b'', **headers):
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': to_wsgi(path.partition('?')[0]), 'QUERY_STRING': path.partition('?')[2],
                   'wsgi.input': io.BytesIO(body), 'wsgi.url_scheme': 'http', 'HTTP_HOST': 'x',
                   'CONTENT_LENGTH': str(len(body))}
        environ.update(('HTTP_' + name.upper(), value) for name, value in headers.items())
        answer = Response.from_wsgi(self.application, environ)
        answer.read()
        return answer

    def listing(self, container, **query):
        """What the proxy lists: names, and groups."""
        text = '&'.join(f'{name}={value}' for name, value in query.items())
        answer = self.call('GET', f'/v1/{ACCOUNT}/{container}?format=json&{text}')
        assert answer.status == 200, answer.status
        return [row.get('name', row.get('subdir')) for row in json.loads(answer.body)]

    def row(self, container, name, gone=False, size=1):
        """An object's row comes, as from an object server."""
        self.clock += 1
        stamp = f'{self.clock:010d}.00000'
        row = deletion(name, stamp, 0) if gone else (0, name, stamp, stamp, size, 'e', 't', 0)
        assert self.server.updater.send_row(ACCOUNT, container, row)

    def make(self, container, names=()):
        self.proxy.infos.forget(ACCOUNT, container)
        assert self.call('PUT', f'/v1/{ACCOUNT}/{container}').status in (201, 202)
        for name in names:
            self.row(container, name)

    def sharder(self):
        return sharder.Sharder(self.server, self.conf)

    def report(self):
        self.server.updater.report_changed()
        self.server.updater.report_changed()
        self.server.updater.report_changed()

    def passes(self, number=6):
        """Passes of one sharder; whether the last found nothing to do."""
        daemon = self.sharder()
        for _ in range(number):
            daemon.run_once()
            self.report()
        assert 'failed' not in daemon.progress.counts
        return daemon.progress.counts

    def brokers(self, account, container):
        """The databases of a container."""
        found = []
        for device in self.server.devices.names():
            digest, part = self.rings.container.hash_path(account, container), self.rings.container.get_part(account, container)
            broker = self.server.brokers.get('container', Brokers.path(self.server.devices.path(device), 'container', part, digest))
            if broker is not None:
                found.append(broker)
        return found

    def states(self, container):
        return [broker.info()['sharding'] for broker in self.brokers(ACCOUNT, container)]

    def shards(self, container):
        """The live ranges of its first database."""
        broker = self.brokers(ACCOUNT, container)[0]
        return sorted((each for each in broker.table().others if not each.deleted), key=lambda each: each.lower)

    def count(self, container):
        """What a HEAD says."""
        self.proxy.infos.forget(ACCOUNT, container)
        answer = self.call('HEAD', f'/v1/{ACCOUNT}/{container}')
        return int(answer.headers['X-Container-Object-Count']), int(answer.headers['X-Container-Bytes-Used'])

    def stray(self, container):
        """Rows left in the databases of a sharded container."""
        return sum(len(broker.later(0)) for broker in self.brokers(ACCOUNT, container))


@pytest.fixture(scope='module')
def fast_folder():
    """A process dies here, not the power: where there is memory for it, nothing waits for a disk."""
    with tempfile.TemporaryDirectory(dir='/dev/shm' if os.path.isdir('/dev/shm') else None) as folder:
        yield pathlib.Path(folder)


@pytest.fixture(scope='module')
def module_world(fast_folder):
    made = World(fast_folder / 'module')
    yield made
    made.stop()


@pytest.fixture
def world(module_world, monkeypatch):
    monkeypatch.setattr(cleaving, 'PAGE', 5)
    module_world.proxy.cache._entries.clear()
    yield module_world
    module_world.server.brokers.close()     # three descriptors each


@pytest.fixture
def name(request):
    """A container's name of its own."""
    return 'c' + hashlib.md5(request.node.name.encode()).hexdigest()[:8]


NAMES = sorted({f'{folder}{number:02d}' for folder in ('', 'a/', 'a/b/', 'm/', 'z/\u00e9') for number in range(8)})


def test_a_large_container_is_cut_up_and_lists_the_same(world, name):
    world.make(name, NAMES)
    queries = [{}, {'limit': 7}, {'reverse': 'on'}, {'prefix': 'a/'}, {'delimiter': '/'}, {'delimiter': '/', 'prefix': 'a/'},
               {'delimiter': '/', 'reverse': 'on'}, {'marker': 'a/03'}, {'marker': 'a/03', 'end_marker': 'm/02'}, {'path': 'a'},
               {'marker': 'm/02', 'end_marker': 'a/03', 'reverse': 'on'}, {'delimiter': '/', 'limit': 3}, {'path': ''},
               {'delimiter': '/', 'marker': 'a/'}, {'prefix': 'nothing'}, {'end_marker': '05'}]
    before = [world.listing(name, **query) for query in queries]
    assert before[0] == NAMES
    plain, xml = (world.call('GET', f'/v1/{ACCOUNT}/{name}?format={form}').body for form in ('plain', 'xml'))
    world.passes()
    assert world.states(name) == ['sharded'] * 3
    shards = world.shards(name)
    assert len(shards) == 5 and shards[0].lower == '' and shards[-1].upper == ''
    assert world.stray(name) == 0
    assert [world.listing(name, **query) for query in queries] == before
    assert [world.call('GET', f'/v1/{ACCOUNT}/{name}?format={form}').body for form in ('plain', 'xml')] == [plain, xml]
    assert world.count(name) == (40, 40)
    # Page by page, forwards and backwards.
    for backwards in ('', 'on'):
        found, marker = [], ''
        while page := world.listing(name, limit=3, marker=marker, **({'reverse': 'on'} if backwards else {})):
            found += page
            marker = page[-1]
        assert found == (NAMES[::-1] if backwards else NAMES)


def test_objects_written_to_a_sharded_container(world, name):
    world.make(name, NAMES)
    world.passes()
    for number in range(3):
        assert world.call('PUT', f'/v1/{ACCOUNT}/{name}/new{number}', b'four').status == 201
    assert world.call('DELETE', f'/v1/{ACCOUNT}/{name}/new1').status == 204
    assert world.listing(name, prefix='new') == ['new0', 'new2']
    assert world.stray(name) == 0           # the shard was told, not the root
    world.report()
    assert world.count(name) == (42, 48)
    # A proxy that does not know yet: the root says where the row belongs.
    world.row(name, 'late')
    assert world.listing(name, prefix='l') == ['late'] and world.stray(name) == 0


def test_a_sharded_container_is_deleted_when_it_is_empty(world, name):
    world.make(name, NAMES)
    world.passes()
    assert world.call('DELETE', f'/v1/{ACCOUNT}/{name}').status == 409
    for each in NAMES[:-1]:
        world.row(name, each, gone=True)
    assert world.call('DELETE', f'/v1/{ACCOUNT}/{name}').status == 409
    world.row(name, NAMES[-1], gone=True)
    world.report()
    assert world.listing(name) == []
    assert world.call('DELETE', f'/v1/{ACCOUNT}/{name}').status == 204
    world.proxy.infos.forget(ACCOUNT, name)
    assert world.call('GET', f'/v1/{ACCOUNT}/{name}').status == 404
    # Made again, it is as it was: empty.
    world.make(name, ['again'])
    assert world.listing(name) == ['again']


def test_a_shard_that_grows_is_cut_up_and_small_ones_are_joined(world, name):
    world.make(name, NAMES)
    world.passes()
    names = sorted({*NAMES, *(f'm/x{number:02d}' for number in range(30))})
    for each in set(names) - set(NAMES):
        world.row(name, each)
    world.report()
    for _ in range(8):
        world.passes(1)
        assert world.listing(name) == names
    world.report()
    assert len(world.shards(name)) > 5
    assert world.listing(name) == names and world.count(name)[0] == len(names)
    assert world.listing(name, reverse='on', delimiter='/') == ['z/', 'm/', *sorted(
        (each for each in NAMES if '/' not in each and each > 'a'), reverse=True), 'a/', *(f'{n:02d}' for n in range(7, -1, -1))]
    kept = names[::30]
    for each in set(names) - set(kept):
        world.row(name, each, gone=True)
    world.report()
    for _ in range(30):
        world.passes(1)
        assert world.listing(name) == kept
    # All that was left went back to the root.
    assert world.states(name) == ['collapsed'] * 3 and world.shards(name) == []
    assert world.count(name)[0] == len(kept)
    # It can be cut up again.
    for each in NAMES:
        world.row(name, each)
    world.passes()
    assert world.states(name) == ['sharded'] * 3
    assert world.listing(name) == sorted({*NAMES, *kept}) and world.count(name)[0] == len({*NAMES, *kept})


class Killed(BaseException):
    """What ends a sharder in the middle."""


STEPS = [(sharder.Sharder, 'ask'), (Broker, 'save_context'), (Broker, 'drop'), (Broker, 'drop_all'), (Broker, '_write'),
         (Updater, 'tell_root')]


class Steps:
    """Counts the steps of sharders, and ends them after one."""

    def __init__(self, monkeypatch):
        self.count, self.fatal = 0, None
        self.running = False        # (servers take the same steps)
        for owner, method in STEPS:
            monkeypatch.setattr(owner, method, self.counting(getattr(owner, method)))

    def counting(self, function):
        def step(*arguments, **named):
            found = function(*arguments, **named)
            self.count += self.running
            if self.running and self.count == self.fatal:
                raise Killed
            return found
        return step


FEW = ['a', 'b/1', 'b/2', 'c', 'd', 'e', 'f/1', 'f/2']
STRIDE = int(os.environ.get('STEPS_STRIDE', '10'))      # 1: after each step, which takes minutes


def life(world, steps, name, names, fatal):
    """A sharder dies after a step; the next goes on. Returns whether there was such a step."""
    world.report()
    steps.count, steps.fatal, died, quiet = 0, fatal, False, 0
    daemon = world.sharder()
    for _ in range(20):
        steps.running = True
        try:
            daemon.run_once()
            quiet = 0 if daemon.progress.counts else quiet + 1
        except Killed:
            steps.running, steps.fatal, died, daemon = False, None, True, world.sharder()
            assert world.listing(name) == names
            extra = f'b/{fatal}'
            world.row(name, extra)
            world.row(name, names[1], gone=True)
            names = sorted({*names, extra} - {names[1]})
        steps.running = False
        assert world.listing(name) == names
        world.report()
        if quiet == 2:
            break
    assert quiet == 2 and world.listing(name) == names
    assert world.count(name)[0] == len(names)
    assert len(set(world.states(name))) == 1
    if world.states(name)[0] == 'sharded':
        assert world.stray(name) == 0
    return died


@pytest.mark.parametrize('kind', ['shard', 'shrink', 'collapse'])
def test_a_sharder_dies_at_any_step(fast_folder, monkeypatch, kind):
    monkeypatch.setattr(cleaving, 'PAGE', 3)
    world = World(fast_folder / kind)
    world.conf.storage.shard_threshold, world.conf.storage.shard_size = (8, 4)
    steps = Steps(monkeypatch)
    try:
        fatal = 1
        while True:
            name, names = f'{kind}{fatal}', FEW
            world.make(name, FEW)
            if kind != 'shard':
                world.passes(3)
                assert set(world.states(name)) == {'sharded'}
                names = FEW[3:] if kind == 'shrink' else FEW[1:2] + FEW[-1:]
                for each in set(FEW) - set(names):
                    world.row(name, each, gone=True)
            if not life(world, steps, name, names, fatal):
                break
            # What is done with goes, so that passes have one container to visit.
            for device in world.server.devices.names():
                for _, _, path in list(databases(world.server.devices.path(device), 'container')):
                    world.server.brokers.forget(path)
                    os.unlink(path)
            fatal += STRIDE
        assert fatal > 30
    finally:
        world.stop()


def test_a_device_that_missed_it_all_comes_along(world, name):
    away = world.brokers
    world.make(name, NAMES)
    one = away(ACCOUNT, name)[2]
    device = one.path.split('/devices/')[1].split('/')[0]
    folder = f'{world.folder}/devices'
    os.rename(f'{folder}/{device}', f'{folder}/.{device}')
    daemon = world.sharder()
    for _ in range(12):
        daemon.run_once()
    world.report()
    world.row_names = [*NAMES[:-1], 'x-new']
    stamp = '1700000000.00000'
    world.server.updater.send_row(ACCOUNT, name, deletion(NAMES[-1], stamp, 0))
    world.server.updater.send_row(ACCOUNT, name, (0, 'x-new', stamp, stamp, 1, 'e', 't', 0))
    os.rename(f'{folder}/.{device}', f'{folder}/{device}')
    repl = replicator.Replicator(world.server, world.conf)
    daemon = world.sharder()
    for _ in range(6):
        repl.run_once()
        daemon.run_once()
        world.report()
        world.server.updater.look(one.path)
    assert world.states(name) == ['sharded'] * 3
    assert world.stray(name) == 0
    assert world.listing(name) == sorted([*NAMES[:-1], 'x-new']) and world.count(name)[0] == 40
    assert all(broker.info()['rows'] == 0 for broker in world.brokers(ACCOUNT, name))


def test_ranges_are_chosen_by_hand(world, name, tmp_path, capsys):
    world.make(name, NAMES)
    assert world.call('POST', f'/v1/{ACCOUNT}/{name}', X_Container_Sharding='no').status == 204     # (only resellers say so)
    (tmp_path / 'conf').write_text(f'[storage]\ndevices = {world.folder}/devices\nring_path = {world.folder}/rings\n')

    def command(*words):
        shards_command.main(['--config-file', str(tmp_path / 'conf'), f'{ACCOUNT}/{name}', *words])
        return json.loads(capsys.readouterr().out)
    with pytest.raises(SystemExit, match='"find"'):
        command('enable')
    found = command('find', '16')
    assert [(row['lower'] == '', row['object_count']) for row in found] == [(True, 16), (False, 16), (False, 8)]
    (tmp_path / 'ranges').write_text(json.dumps([{**found[0], 'upper': 'a'}, *found[1:]]))
    with pytest.raises(SystemExit, match='follow upon'):
        command('replace', str(tmp_path / 'ranges'))
    (tmp_path / 'ranges').write_text(json.dumps(found))
    assert [row['state'] for row in command('replace', str(tmp_path / 'ranges'))] == ['found'] * 3
    assert command('info')['state'] == 'unsharded' and len(command('show')) == 3
    assert command('delete') == {'deleted': 3} and command('show') == []
    assert command('find-and-replace', '10', '--enable')['state'] == 'sharding'
    with pytest.raises(SystemExit, match='sharding already'):
        command('delete')
    assert world.listing(name) == NAMES
    world.passes()
    told = command('info')
    assert (told['state'], told['ranges'], told['objects'], told['rows']) == ('sharded', {'active': 4}, 40, 0)
    assert world.listing(name) == NAMES


def test_a_reseller_says_whether_a_container_is_cut_up(world, name):
    def call(method, **headers):
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': f'/v1/{ACCOUNT}/{name}', 'QUERY_STRING': '', 'CONTENT_LENGTH': '0',
                   'wsgi.input': io.BytesIO(), 'wsgi.url_scheme': 'http', 'HTTP_HOST': 'x', 'kodiak.reseller': True,
                   'kodiak.owner': True, **{'HTTP_' + key.upper(): value for key, value in headers.items()}}
        return Response.from_wsgi(world.application, environ)
    world.make(name, NAMES)
    assert call('POST', X_Container_Sharding='off').status == 204
    assert call('HEAD').headers['X-Container-Sharding'] == 'False'
    world.passes(2)
    assert world.states(name) == ['unsharded'] * 3
    assert call('POST', X_Container_Sharding='on').status == 204
    world.passes()
    assert world.states(name) == ['sharded'] * 3
    assert call('HEAD').headers['X-Container-Sharding'] == 'True'


def test_bad_ranges_are_refused(world, name):
    world.make(name)
    ring = world.rings.container
    part, node = ring.get_part(ACCOUNT, name), ring.primaries(ring.get_part(ACCOUNT, name))[0]
    for body in (b'{}', b'[]', b'{"ranges": [{"name": "a/b"}]}', b'no json',
                 b'{"ranges": [{"name": "a", "timestamp": "1", "lower": "", "upper": ""}]}',
                 b'{"ranges": [{"name": "a/b", "timestamp": "1", "lower": "b", "upper": "a"}]}'):
        answer = world.proxy.client.ask(node, 'PUT', part, f'/{ACCOUNT}/{name}', {
            'X-Backend-Record-Type': 'shard', 'X-Timestamp': '1600000000.00000', 'Content-Length': len(body)}, body=body)
        answer.close()
        assert answer.status == 400, body


def test_objects_of_another_policy_are_queued_for_the_reconciler(world, name):
    world.make(name, NAMES)
    world.passes()
    stamp = '1700000000.00000'
    assert world.server.updater.send_row(ACCOUNT, name, (0, 'm/stray', stamp, stamp, 1, 'e', 't', 1))
    shard, = [each for each in world.shards(name) if each.holds('m/stray')]
    for broker in world.brokers(*shard.name.split('/')):
        assert broker.strays() == [('m/stray', 1, stamp, 0)]
        assert queue_strays(world.server, broker.path)
    queue = f'{int(stamp[:10]) // 3600 * 3600:010d}'
    assert [row[0] for row in world.brokers('.misplaced_objects', queue)[0].listing(('name', 'size'), 10)
            if name in row[0]] == [f'1:/{ACCOUNT}/{name}/m/stray']
    # The container comes to have another policy: its shards too.
    for broker in world.brokers(ACCOUNT, name):
        broker.update(policy=1, put=stamp)
    world.passes(1)
    assert {broker.info()['policy'] for broker in world.brokers(*shard.name.split('/'))} == {1}


def test_an_account_with_a_sharded_container_is_reaped(world, name):
    account = 'AUTH_' + name

    def call(method, path, body=b''):
        return world.call(method, f'/v1/{account}{path}', body)
    assert call('PUT', '/c').status == 201
    for number in range(30):
        assert call('PUT', f'/c/o{number:02d}', b'x').status == 201
    world.report()
    world.passes()
    assert {broker.info()['sharding'] for broker in world.brokers(account, 'c')} == {'sharded'}
    ring = world.rings.account
    part = ring.get_part(account)
    for node in ring.primaries(part):
        world.proxy.client.ask(node, 'DELETE', part, f'/{account}', {'X-Timestamp': cleaving.now(), 'Content-Length': '0'}).close()
    daemon = reaper.Reaper(world.server, world.conf)
    for _ in range(4):
        daemon.run_once()
        world.report()
    assert 'failed' not in daemon.progress.counts
    for broker in world.brokers(account, 'c'):
        assert broker.is_deleted(broker.info())


def test_shards_of_a_root_that_is_no_more_go_too(world, name):
    world.make(name, NAMES)
    world.passes()
    shards = world.shards(name)
    for each in NAMES:
        world.row(name, each, gone=True)
    world.report()
    assert world.call('DELETE', f'/v1/{ACCOUNT}/{name}').status == 204
    for broker in world.brokers(ACCOUNT, name):         # (as the replicator does when that was long ago)
        world.server.brokers.forget(broker.path)
        os.unlink(broker.path)
    counts = world.passes(1)
    assert counts['without root'] == 3 * len(shards)    # they have marks of deletions still: they wait
    for shard in shards:
        for broker in world.brokers(*shard.name.split('/')):
            broker.reclaim('9999999999.99999')
    world.passes(1)
    for shard in shards:
        assert all(broker.is_deleted(broker.info()) for broker in world.brokers(*shard.name.split('/')))


def test_rows_that_waited_go_to_the_shard(world, name):
    world.make(name, NAMES)
    world.passes()
    stamp = '1700000000.00000'
    device = world.server.devices.path('d0')
    world.server.updater.keep(device, ACCOUNT, name, (0, 'm/waited', stamp, stamp, 1, 'e', 't', 0))
    world.server.updater.keep(device, ACCOUNT, name, deletion('m/01', stamp, 0))
    daemon = updater.Updater(world.server, world.conf)
    daemon.run_once()
    assert daemon.progress.counts['sent'] == 2
    assert world.listing(name, prefix='m/') == ['m/00', *(f'm/{number:02d}' for number in range(2, 8)), 'm/waited']
    assert world.stray(name) == 0


def test_a_server_says_where_a_row_belongs(world, name):
    world.make(name, NAMES)
    world.passes()
    ring, stamp = world.rings.container, '1700000000.00000'
    part = ring.get_part(ACCOUNT, name)
    shard, = [each for each in world.shards(name) if each.holds('z/\u00e9 1')]

    def tell(**more):
        headers = {'X-Backend-Row': '1', 'X-Timestamp': stamp, 'X-Size': 1, 'X-Etag': 'e', 'X-Content-Type': 't',
                   'Content-Length': '0', **{key.replace('_', '-'): value for key, value in more.items()}}
        answer = world.proxy.client.ask(ring.primaries(part)[0], 'PUT', part, f'/{ACCOUNT}/{name}/z/\u00e9 1', headers)
        answer.close()
        return answer
    answer = tell(X_Backend_Accept_Redirect='true')
    assert answer.status == 301 and answer.headers['X-Backend-Redirect-Timestamp'] == shard.stamp
    assert answer.headers['Location'] == '/' + shard.name + '/z/%C3%A9%201'
    # Who does not go there leaves it where it is: the sharder moves it.
    assert tell().status == 201 and world.stray(name) == 1
    assert world.listing(name) == NAMES
    world.passes(1)
    assert world.stray(name) == 0 and world.listing(name) == sorted([*NAMES, 'z/\u00e9 1'])


@pytest.mark.parametrize('before', ['before it was cut up', 'in the middle', 'after'])
def test_a_database_on_another_device_comes_home(world, name, before):
    world.make(name, NAMES)
    daemon = world.sharder()
    if before == 'in the middle':
        world.conf.storage.shard_batch = 7
        try:
            daemon.run_once()
        finally:
            world.conf.storage.shard_batch = 1000
        assert 'sharding' in world.states(name)
    elif before == 'after':
        world.passes()
    # The first device's file is where it does not belong (as after a change of the ring), and has a row that nobody else has.
    broker = world.brokers(ACCOUNT, name)[0]
    away, = {f'd{number}' for number in range(4)} - {each.path.split('/devices/')[1].split('/')[0]
                                                    for each in world.brokers(ACCOUNT, name)}
    world.clock += 1
    stamp = f'{world.clock:010d}.00000'
    broker.put([(0, 'only here', stamp, stamp, 1, 'e', 't', 0)])
    home = broker.path
    other = home.replace('/devices/' + home.split('/devices/')[1].split('/')[0] + '/', f'/devices/{away}/')
    world.server.brokers.forget(home)
    os.makedirs(os.path.dirname(os.path.dirname(other)), exist_ok=True)
    os.rename(os.path.dirname(home), os.path.dirname(other))
    repl = replicator.Replicator(world.server, world.conf)
    if before == 'before it was cut up':
        for _ in range(8):
            daemon.run_once()       # the other two are a majority
            world.report()
    for _ in range(8):
        repl.run_once()
        daemon.run_once()
        world.report()
    assert not os.path.exists(other)
    assert world.states(name) == ['sharded'] * 3 and world.stray(name) == 0
    assert world.listing(name) == sorted([*NAMES, 'only here']) and world.count(name)[0] == 41
