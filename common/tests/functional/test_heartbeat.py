"""The table of processes: who is up, since when."""
import datetime
import time

import pytest

from kodiak.common import db, heartbeat


@pytest.fixture
def database(tmp_path):
    metadata = db.metadata()
    heartbeat.tables(metadata)
    made = db.Database(f'sqlite:///{tmp_path}/h.sqlite')
    metadata.create_all(made.engine)
    yield made
    made.close()


def only(database, **kwargs):
    with database.read() as connection:
        row, = db.all_dicts(connection, heartbeat.query(**kwargs))
    return row


def test_the_first_beat_makes_the_row_and_the_next_ones_one_update(database):
    with database.write() as connection:
        row = heartbeat.report(connection, 'h1', 'agent', 'topic', details={'x': 1}, version='1')
        assert row['details'] == {'x': 1}
    with database.write() as connection, db.count_queries() as statements:
        assert heartbeat.report(connection, 'h1', 'agent') is None
    assert len(statements) == 1
    found = only(database, host='h1')
    assert (found['id'], found['report_count'], found['details'], found['topic']) == (row['id'], 2, {'x': 1}, 'topic')


def test_up_down_and_since_when(database):
    started = datetime.datetime(2026, 1, 1)
    now = started + datetime.timedelta(hours=1)
    with database.write() as connection:
        heartbeat.report(connection, 'h1', 'agent', started_at=started, now=now)
    row = only(database)
    assert heartbeat.is_up(row, now)
    assert heartbeat.since(row, now) == started
    later = now + datetime.timedelta(seconds=heartbeat.DOWN_AFTER)
    assert not heartbeat.is_up(row, later)
    assert heartbeat.since(row, later) == now
    assert not heartbeat.is_up({**row, 'forced_down': True}, now)


def test_the_thread_beats(database):
    beat = heartbeat.Heartbeat(database, 'h1', 'kodiak-try-conductor', version='1', details=lambda: {'y': 2}, interval=0.01)
    beat.start()
    try:
        deadline = time.time() + 20
        while time.time() < deadline:
            with database.read() as connection:
                rows = db.all_dicts(connection, heartbeat.query('kodiak-try-conductor'))
            if rows and rows[0]['report_count'] > 2:
                break
            time.sleep(0.01)
        assert rows[0]['details'] == {'y': 2}
        assert rows[0]['report_count'] > 2
    finally:
        beat.stop()
