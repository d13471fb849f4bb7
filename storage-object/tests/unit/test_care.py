"""Daemons: how far they are, and where they go on."""
import os
import types

import pytest

from kodiak.common import metrics
from kodiak.storage_object.daemons import care


@pytest.fixture
def conf(tmp_path):
    os.makedirs(tmp_path / 'storage-object')
    return types.SimpleNamespace(state_path=str(tmp_path), run_path=str(tmp_path), storage=types.SimpleNamespace(interval=60))


class Walker(care.Daemon):
    """Goes through a list, up to an end."""

    name = 'walker'

    def __init__(self, conf, items, until=None):
        super().__init__(None, conf)
        self.items, self.until, self.seen = items, until, []

    def once(self):
        for item in self.fresh(self.items, 'list'):
            self.seen.append(item)
            if item == self.until:
                self.ending.set()


def test_a_daemon_goes_on_where_it_was_left(conf):
    items = [f'{number}' for number in range(6)]
    one = Walker(conf, items, '2')
    one.run_once()
    assert one.seen == ['0', '1', '2']
    one.stop()
    two = Walker(conf, items)
    two.run_once()
    assert two.seen == ['3', '4', '5', '0', '1', '2']
    two.run_once()
    assert two.seen[6:] == items                # a pass that came to its end: the next begins at the beginning
    three = Walker(conf, [('1', 'a'), ('1', 'b'), ('2', 'c')], ('1', 'b'))
    three.run_once()
    three.stop()
    four = Walker(conf, [('1', 'a'), ('2', 'c')])
    four.run_once()
    assert four.seen == four.items              # what it was at is no more


def test_an_error_does_not_keep_a_daemon_from_what_follows(conf):
    daemon = Walker(conf, ['bad', 'good'])
    daemon.seen = types.SimpleNamespace(append=lambda item: int('x') if item == 'bad' else found.append(item))
    found = []
    daemon.run_once()
    assert daemon.progress.last['failed'] == 1 and found == []
    daemon.run_once()
    assert found == ['good']


def test_progress_is_in_recon_and_metrics(conf):
    daemon = Walker(conf, ['a', 'b', 'c', 'd'])
    daemon.run_once()
    shown = daemon.progress.report()
    assert (shown['done'], shown['left'], shown['estimated_end'], shown['running']) == (4, 0, None, False)
    daemon.progress.begin()
    daemon.progress.started -= 10
    daemon.progress.done = 1
    shown = daemon.progress.report()
    assert shown['left'] == 3 and shown['estimated_end'] > daemon.progress.started     # as much as last time
    looked = care.Care(None, conf, [daemon])
    looked.write_recon()
    metrics.collect('storage_passes', looked._measure, looked.METRICS)
    try:
        text = metrics.render().decode()            # (another process has the lock and the daemons)
        for name in ('', '_oldest_seconds', '_done', '_rate', '_end_timestamp'):
            assert f'kodiak_storage_passes{name}{{daemon="walker"}}' in text
        assert 'kodiak_storage_passes{daemon="walker"} 3.0' in text
    finally:
        metrics.forget('storage_passes', looked._measure)
    assert Walker(conf, []).progress.last['done'] == 4
