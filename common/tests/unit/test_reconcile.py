"""Reconcilers: what changed, what failed, what is unwanted, hints, threads."""
import threading
import time

import pytest

from kodiak.common import reconcile, reconcile_testing


class Host:
    """What should be, what is, and how often it was touched."""

    def __init__(self):
        self.generation, self.wanted, self.changed = 1, {}, {}
        self.have, self.operations, self.broken, self.looks = {}, [], set(), []
        self.away = False

    def put(self, key, value):
        self.generation += 1
        self.wanted[key] = value
        self.changed[key] = self.generation

    def look(self, since):
        self.looks.append(since)
        if self.away:
            raise ConnectionError('conductor away')
        if since is None:
            items = {key: value for key, value in self.wanted.items() if value is not None}
            return reconcile.Wanted(self.generation, items, full=True)
        items = {key: self.wanted[key] for key, when in self.changed.items() if when > since}
        return reconcile.Wanted(self.generation, items) if items else None

    def bring(self, key, wanted):
        if key in self.broken:
            raise OSError(f'{key} does not work')
        if self.have.get(key) != wanted:
            self.operations.append((key, wanted))
            self.have[key] = wanted
            if wanted is None:
                del self.have[key]


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def host():
    return Host()


def test_everything_first_then_what_changed(host):
    host.put('a', 1)
    host.put('b', 1)
    loop = reconcile.Reconciler('try', host.look, host.bring)
    assert sorted(loop.run_once()) == ['a', 'b']
    host.put('a', 2)
    assert loop.run_once() == ['a']
    host.put('b', None)
    assert loop.run_once() == ['b']
    assert host.have == {'a': 2}
    assert loop.run_once() == []
    assert host.looks == [None, 3, 4, 5]


def test_a_full_look_removes_what_is_gone_and_repairs_what_drifted(host):
    host.put('a', 1)
    host.put('b', 1)
    loop = reconcile.Reconciler('try', host.look, host.bring)
    loop.run_once()
    del host.wanted['a']
    host.have['b'] = 'drifted'
    loop.resync()
    loop.run_once()
    assert host.have == {'b': 1}


def test_full_looks_come_by_themselves(host):
    clock = Clock()
    loop = reconcile.Reconciler('try', host.look, host.bring, full_interval=300, clock=clock)
    loop.run_once()
    clock.now += 299
    loop.run_once()
    clock.now += 2
    loop.run_once()
    assert host.looks == [None, 1, None]


def test_what_fails_is_tried_again_later_and_holds_nothing_up(host):
    clock = Clock()
    host.put('bad', 1)
    host.put('good', 1)
    host.broken = {'bad'}
    loop = reconcile.Reconciler('try', host.look, host.bring, clock=clock)
    assert sorted(loop.run_once()) == ['bad', 'good']
    assert str(loop.failing['bad']) == 'bad does not work'
    assert loop.run_once() == []
    clock.now += 2
    assert loop.run_once() == ['bad']
    clock.now += 1.5
    assert loop.run_once() == []            # the pause has grown
    clock.now += 2
    host.broken = set()
    assert loop.run_once() == ['bad']
    assert loop.failing == {}


def test_a_nudge_of_a_key_and_a_change_end_its_pause(host):
    clock = Clock()
    host.put('bad', 1)
    host.broken = {'bad'}
    loop = reconcile.Reconciler('try', host.look, host.bring, clock=clock)
    loop.run_once()
    loop.nudge('bad')
    assert loop.run_once() == ['bad']
    host.put('bad', 2)
    assert loop.run_once() == ['bad']


def test_a_conductor_that_is_away_changes_nothing(host):
    host.put('a', 1)
    loop = reconcile.Reconciler('try', host.look, host.bring)
    loop.run_once()
    host.away = True
    loop.resync()
    assert loop.run_once() == []
    host.away = False
    host.put('a', 2)
    assert loop.run_once() == ['a']


def test_threads_work_on_several_keys_but_never_twice_on_one(host):
    for number in range(20):
        host.put(number, 0)
    busy, most, clashes, lock, release = set(), [], [], threading.Lock(), threading.Event()

    def bring(key, wanted):
        with lock:
            if key in busy:
                clashes.append(key)
            busy.add(key)
            most.append(len(busy))
            if len(busy) == 4:
                release.set()
        release.wait(20)
        with lock:
            busy.discard(key)
        host.bring(key, wanted)
    loop = reconcile.Reconciler('try', host.look, bring, interval=0.01, threads=4)
    loop.start()
    try:
        deadline = time.time() + 30
        while (len(host.have) < 20 or set(host.have.values()) != {7}) and time.time() < deadline:
            for number in range(20):
                host.put(number, 7)
                loop.nudge()
            time.sleep(0.01)
    finally:
        assert loop.stop()
    assert set(host.have.values()) == {7}
    assert max(most) == 4
    assert clashes == []


def test_a_nudge_wakes_the_thread(host):
    loop = reconcile.Reconciler('try', host.look, host.bring, interval=600)
    loop.start()
    try:
        host.put('a', 1)
        deadline = time.time() + 20
        while 'a' not in host.have and time.time() < deadline:
            loop.nudge()
            time.sleep(0.01)
        assert host.have == {'a': 1}
    finally:
        loop.stop()


def test_the_generic_test_passes_and_finds(host):
    host.put('a', 1)
    reconcile_testing.check_idempotent(
        lambda: reconcile.Reconciler('try', host.look, host.bring), lambda: (dict(host.have), len(host.operations)))

    def clumsy(key, wanted):
        host.operations.append('made again')
    with pytest.raises(AssertionError, match='the second run over'):
        reconcile_testing.check_idempotent(
            lambda: reconcile.Reconciler('try', host.look, clumsy), lambda: len(host.operations))
    host.broken = {'a'}
    with pytest.raises(AssertionError, match='the first run failed'):
        reconcile_testing.check_idempotent(lambda: reconcile.Reconciler('try', host.look, host.bring), lambda: 0)
