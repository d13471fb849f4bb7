"""Writes with a condition, by proxies that race and do not see the same servers: four processes, and healing meanwhile."""
import concurrent.futures
import os
import random

import pytest
from storage_object_probe import Cut
from storage_object_probe_fixtures import account_of, fixtures_of

pytest.importorskip('pyeclib', reason='erasure codes need pyeclib')

pytestmark = pytest.mark.probe
started, cluster, call, _ = fixtures_of(2, ('0:gold', '1:cold=4+2'), {1: 6})
ROUNDS, WRITERS = 30, 3


@pytest.fixture(params=['gold', 'cold'])
def box(cluster, call, request):
    """``(path of a container, account, index of its policy)``."""
    account = account_of(request)
    assert call('PUT', f'/v1/{account}').status == 201
    assert call('PUT', f'/v1/{account}/c', X_Storage_Policy=request.param).status == 201
    return f'/v1/{account}/c/', account, ['gold', 'cold'].index(request.param)


class Two:
    """Two proxies, of each of which another server is out of reach: which, that changes from round to round."""

    def __init__(self, cluster, seed):
        self.cluster, self.chance = cluster, random.Random(seed)
        self.pools = [Cut(), Cut()]
        self.calls = [cluster.caller(pool, whole=False) for pool in self.pools]

    def race(self, function):
        """The results of ``function(call, number)`` of several writers at once."""
        for pool, port in zip(self.pools, self.chance.sample(self.cluster.ports, 2), strict=True):
            pool.ports = {port}
        with concurrent.futures.ThreadPoolExecutor(2 * WRITERS) as threads:
            return list(threads.map(lambda number: function(self.calls[number % 2], number), range(2 * WRITERS)))

    def heal(self):
        """Each reaches all."""
        for pool in self.pools:
            pool.ports = set()


def stamps(cluster, box, name):
    """The timestamps of what devices have of an object, whatever holds."""
    return {file[:16] for files in cluster.files(box[1], 'c', name, policy=box[2]).values() for file in files}


def is_everywhere(cluster, box, name):
    """Whether all devices that are to have an object have one and the same write of it."""
    ring = cluster.rings['object-1' if box[2] else 'object']
    return len(stamps(cluster, box, name)) == 1 and set(cluster.files(box[1], 'c', name, policy=box[2])) == {
        node['id'] for node in ring.primaries(ring.get_part(box[1], 'c', name))}


def test_one_of_those_that_make_an_object_wins(cluster, call, box, eventually):
    path, account, _ = box
    two, won = Two(cluster, 1), {}
    for round_ in range(ROUNDS):
        name = f'o{round_}'
        bodies = [os.urandom(two.chance.choice([10, 5000, 2_000_000])) for _ in range(2 * WRITERS)]
        statuses = two.race(lambda call, number, name=name, bodies=bodies: call(
            'PUT', path + name, bodies[number], If_None_Match='*').status)
        assert set(statuses) <= {201, 409, 412, 503}, statuses
        winners = [number for number, status in enumerate(statuses) if status == 201]
        assert len(winners) < 2, statuses
        won[name] = bodies[winners[0]] if winners else None
    two.heal()
    assert sum(body is not None for body in won.values()) > ROUNDS // 2
    for name, body in won.items():
        if body is None:
            assert not stamps(cluster, box, name)
            assert call('GET', path + name).status == 404
        else:
            eventually(lambda name=name: is_everywhere(cluster, box, name))
            assert call('GET', path + name).body == body
    eventually(lambda: cluster.listings(account, 'c') == [sorted(name for name, body in won.items() if body is not None)] * 3)


def test_one_of_those_that_change_an_object_wins(cluster, call, box, eventually):
    path, account, _ = box
    two = Two(cluster, 2)
    assert call('PUT', path + 'o', b'first').status == 201
    last = b'first'
    for _ in range(ROUNDS):
        two.heal()
        # As S3's clients: by what was read.
        stamp = call('HEAD', path + 'o', X_Newest='true').headers['X-Timestamp']
        bodies = [os.urandom(two.chance.choice([10, 5000, 2_000_000])) for _ in range(2 * WRITERS)]
        statuses = two.race(lambda call, number, stamp=stamp, bodies=bodies: call(
            'PUT', path + 'o', bodies[number], X_Backend_If_Not_After=stamp).status)
        assert set(statuses) <= {201, 409, 412, 503}, statuses
        winners = [number for number, status in enumerate(statuses) if status == 201]
        assert len(winners) < 2, statuses
        last = bodies[winners[0]] if winners else last
        two.heal()
        assert call('GET', path + 'o', X_Newest='true').body == last
    assert last != b'first'
    eventually(lambda: is_everywhere(cluster, box, 'o'))
    assert call('GET', path + 'o').body == last
    eventually(lambda: cluster.listings(account, 'c') == [['o']] * 3)
