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
