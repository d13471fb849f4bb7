"""Reconciler.again: something happened on the host to one thing."""
from kodiak.common import reconcile


def test_again_brings_a_known_key_about_without_a_look_and_leaves_unknown_ones_alone():
    looks, brought = [], []

    def look(since):
        looks.append(since)
        return reconcile.Wanted(1, {'a': 'x', 'gone': None}, full=since is None)
    loop = reconcile.Reconciler('test', look, lambda key, wanted: brought.append((key, wanted)))
    loop.run_once()
    del brought[:]
    for key in ('a', 'gone', 'stranger'):
        loop.again(key)
    assert set(loop._due) == {'a'}
    assert len(looks) == 1


def test_what_happens_while_a_key_fails_does_not_shorten_its_pause():
    now = [100.0]

    def bring(key, wanted):
        loop.again(key)
        raise OSError('and the attempt itself is an event')
    loop = reconcile.Reconciler('test', lambda since: reconcile.Wanted(1, {'a': 'x'}, full=since is None), bring,
                                clock=lambda: now[0])
    assert loop.run_once() == ['a']
    loop.again('a')
    assert loop._due['a'] > now[0]


def test_what_happens_while_a_key_is_brought_about_has_it_looked_at_once_more():
    brought = []

    def bring(key, wanted):
        brought.append(key)
        if len(brought) == 1:
            loop.again(key)
    loop = reconcile.Reconciler('test', lambda since: reconcile.Wanted(1, {'a': 'x'}, full=since is None), bring)
    assert loop.run_once() == ['a', 'a']
