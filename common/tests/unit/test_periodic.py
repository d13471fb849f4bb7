"""What is done again and again in a thread."""
import queue
import threading

import pytest

from kodiak.common import db, periodic, wake


@pytest.fixture
def made():
    parts = []

    def make(*args, **more):
        parts.append(periodic.Periodic('try', *args, **more))
        parts[-1].start()
        return parts[-1]
    yield make
    for part in parts:
        part.stop()


def test_it_goes_on_after_a_failure(made, caplog):
    calls, enough = [], threading.Event()

    def work():
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise KeyError('broken')
        if len(calls) == 2:
            raise OSError('away')
        enough.set()
    made(work, 0.01, at_once=True, expected=OSError)
    assert enough.wait(20)
    assert set(calls) == {'try'}
    broken, away = caplog.records
    assert 'broken' in broken.getMessage() and broken.exc_info
    assert 'away' in away.getMessage() and not away.exc_info


def test_a_nudge_and_a_commit_spare_the_wait(made, tmp_path):
    database = db.Database(f'sqlite:///{tmp_path}/x.sqlite')
    done = queue.Queue()
    part = made(lambda: done.put('done'), lambda: 3600, hears=(database, 'things'))
    assert done.empty()
    part.nudge()
    done.get(timeout=20)
    with database.write() as connection:
        wake.after_commit(connection, 'things')
    done.get(timeout=20)
    part.stop()
    assert part.stopping
    with database.write() as connection:
        wake.after_commit(connection, 'things')
    assert done.empty()
    part.start()
    part.nudge()
    done.get(timeout=20)
    database.close()
