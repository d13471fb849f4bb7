"""The generic test of every reconciler: the second run changes nothing, and neither does a restart.

Nothing here is imported outside tests.
"""


def check_idempotent(make, observe):
    """Run a reconciler, run it again, and run a fresh one as after a restart of its process.

    :param make: ``make()`` returns a new :class:`kodiak.common.reconcile.Reconciler` over the same host.
    :param observe: ``observe()`` returns what the host has now, in a form that can be compared; best with a count of the
        operations made on it, so that "removed and made again" shows.
    :raises AssertionError: something failed, or a run that had nothing to do changed something.
    """
    first = make()
    first.run_once()
    assert not first.failing, f'the first run failed: {first.failing}'
    before = observe()
    first.resync()
    again = first.run_once()
    assert not first.failing, f'the second run failed: {first.failing}'
    assert observe() == before, f'the second run over {again} changed something'
    fresh = make()
    fresh.run_once()
    assert not fresh.failing, f'the run after a restart failed: {fresh.failing}'
    assert observe() == before, 'a restart changed something'
