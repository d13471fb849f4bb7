"""Containers that are cut up into shards on four devices over four server processes: while objects come and go, and servers die."""
import contextlib
import http.client
import json
import sqlite3
import threading
import time

import pytest
from storage_object_probe_fixtures import fixtures_of

from kodiak.storage_object.backend.broker import Brokers

pytestmark = pytest.mark.probe

started, cluster, call, account = fixtures_of(more='shard_threshold = 40\nshard_size = 15\nshard_shrink = 20\n')


def databases(cluster, account):
    """``[(state, rows)]`` of the container's databases, as they are on the devices."""
    ring, found = cluster.rings['container'], []
    for number in cluster.primaries('container', account, 'c'):
        path = Brokers.path(cluster.device(number), 'container', ring.get_part(account, 'c'), ring.hash_path(account, 'c'))
        with contextlib.closing(sqlite3.connect(f'file:{path}?mode=ro', uri=True, timeout=10)) as connection:
            try:
                state = connection.execute('SELECT state FROM sharding').fetchone()
                rows, = connection.execute('SELECT count(*) FROM row').fetchone()
            except sqlite3.OperationalError:
                state, rows = None, None
        found.append((state[0] if state else 'unsharded', rows))
    return found


def listing(call, account, query=''):
    answer = call('GET', f'/v1/{account}/c?format=json{query}')
    assert answer.status == 200, answer.status
    return [row['name'] for row in json.loads(answer.body)]


def count(call, account):
    return int(call('HEAD', f'/v1/{account}/c').headers['X-Container-Object-Count'])


class Writer(threading.Thread):
    """Writes and deletes objects; ``kept`` and ``gone``: when that was acknowledged."""

    def __init__(self, cluster, account):
        super().__init__(daemon=True)
        self.call, self.account = cluster.caller(), account
        self.kept, self.gone, self.leaving, self.failed = {}, {}, set(), []
        self.ending = threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            name = f'{number * 7919 % 1000:03d}-{number}'
            status = self.call('PUT', f'/v1/{self.account}/c/{name}', b'x').status
            if status == 201:
                self.kept[name] = time.monotonic()
            else:
                self.failed.append((name, status))
            if number % 5 == 4:
                victim = next(iter(self.kept))
                self.leaving.add(victim)
                if self.call('DELETE', f'/v1/{self.account}/c/{victim}').status == 204:
                    del self.kept[victim]
                    self.gone[victim] = time.monotonic()
            number += 1
            self.ending.wait(0.02)

    def stop(self):
        self.ending.set()
        self.join(30)


def check(call, writer, account):
    """Everything acknowledged a moment ago is listed, once; nothing that was deleted then is."""
    before = time.monotonic() - 2
    kept = {name for name, at in list(writer.kept.items()) if at < before}
    gone = {name for name, at in list(writer.gone.items()) if at < before}
    found = listing(call, account)
    assert found == sorted(set(found))
    assert kept - writer.leaving - set(found) == set() and gone & set(found) == set()


def sharded(cluster, account):
    """Whether all its databases say so, and have no rows left."""
    return databases(cluster, account) == [('sharded', 0)] * 3


def test_a_container_is_cut_up_while_objects_come_and_go(cluster, call, account, eventually):
    writer = Writer(cluster, account)
    writer.start()

    def done():
        check(call, writer, account)
        return len(writer.kept) > 60 and sharded(cluster, account)
    try:
        eventually(done, 90)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            check(call, writer, account)
    finally:
        writer.stop()
    assert not writer.failed
    names = sorted(writer.kept)
    eventually(lambda: listing(call, account) == names)
    assert listing(call, account, '&reverse=on') == names[::-1]
    eventually(lambda: count(call, account) == len(names))
    eventually(lambda: cluster.listings(account) == [['c']] * 3)
    eventually(lambda: int(call('HEAD', f'/v1/{account}').headers['X-Account-Object-Count']) == len(names))


@pytest.mark.parametrize('place', [0, 1])
def test_a_container_is_cut_up_while_one_of_its_servers_is_down(cluster, call, account, eventually, place):
    away = cluster.servers[cluster.places[cluster.primaries('container', account, 'c')[place]]]
    names = [f'o{number:03d}' for number in range(30)]
    for name in names:
        assert call('PUT', f'/v1/{account}/c/{name}', b'x').status == 201
    away.stop(kill=True)
    for number in range(30, 60):
        names.append(f'o{number:03d}')
        assert call('PUT', f'/v1/{account}/c/{names[-1]}', b'x').status == 201
    for name in names[:5]:
        assert call('DELETE', f'/v1/{account}/c/{name}').status == 204
    names = names[5:]
    here = [number for number in range(3) if number != place]
    # Where the first of its servers is the one that is down, the next waits for some passes.
    eventually(lambda: listing(call, account) == names and all(
        databases(cluster, account)[number] == ('sharded', 0) for number in here), 90)
    assert call('PUT', f'/v1/{account}/c/p', b'x').status == 201
    # Which shard takes the row is perhaps heard of by the server that is down only: then it waits for a pass of the updater.
    eventually(lambda: listing(call, account) == [*names, 'p'])
    away.start()
    eventually(lambda: sharded(cluster, account), 60)
    # (A server that was away lists what it has until its peers have told it of the rest.)
    eventually(lambda: all(listing(call, account) == [*names, 'p'] for _ in range(6)))
    eventually(lambda: count(call, account) == len(names) + 1)


def test_servers_are_killed_again_and_again_while_a_container_is_cut_up(cluster, call, account, eventually):
    names = [f'o{number:03d}' for number in range(80)]
    for name in names:
        assert call('PUT', f'/v1/{account}/c/{name}', b'x').status == 201
    for number in (0, 1, 2, 3, 0, 1, 2, 3):
        time.sleep(0.7)
        cluster.servers[number].stop(kill=True)
        assert len(set(listing(call, account))) == len(listing(call, account))
        cluster.servers[number].start()
    eventually(lambda: sharded(cluster, account), 60)
    eventually(lambda: all(listing(call, account) == names for _ in range(6)))
    eventually(lambda: count(call, account) == 80)
    for name in names:
        assert call('DELETE', f'/v1/{account}/c/{name}').status == 204
    assert listing(call, account) == []
    assert call('DELETE', f'/v1/{account}/c').status == 204
    assert call('GET', f'/v1/{account}/c').status == 404


def test_progress_is_shown(cluster, eventually):
    def ask(path):
        connection = http.client.HTTPConnection('127.0.0.1', cluster.ports[0], timeout=10)
        try:
            connection.request('GET', path)
            return connection.getresponse().read()
        finally:
            connection.close()
    shown = eventually(lambda: json.loads(ask('/recon'))['daemons'].get('sharder'))
    assert {'done', 'left', 'rate', 'estimated_end', 'last'} <= set(shown)
    assert 'kodiak_storage_passes{daemon="sharder"}' in ask('/metrics').decode()
    assert cluster.servers[0].once('sharder').startswith('sharder {')
