import datetime
import os

import pytest
import sqlalchemy as sa

from kodiak.common import db


def test_write_commits_rolls_back_and_runs_hooks_after_the_commit(tmp_path):
    database = db.Database(f'sqlite:///{tmp_path}/x.sqlite')
    metadata = db.metadata()
    table = sa.Table('t', metadata, sa.Column('id', sa.Integer, primary_key=True), sa.Column('data', db.JSON))
    metadata.create_all(database.engine)
    seen = []
    with database.write() as connection:
        connection.execute(table.insert().values(id=1, data={'a': [1]}))
        db.after_commit(connection, lambda: seen.append(database.healthy()))
        assert not seen
    assert seen == [True]
    try:
        with database.write() as connection:
            connection.execute(table.insert().values(id=2))
            db.after_commit(connection, lambda: seen.append('never'))
            raise KeyError
    except KeyError:
        pass
    database.transact(lambda connection: db.upsert(connection, table, {'id': 1, 'data': {'b': 2}}, ['id']))
    with database.read() as connection:
        assert db.all_dicts(connection, sa.select(table)) == [{'id': 1, 'data': {'b': 2}}]
    assert seen == [True]
    database.close()


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root')
def test_a_command_of_root_does_not_lock_the_service_out(tmp_path):
    made = db.Database(f'sqlite:///{tmp_path}/a.sqlite')
    with made.engine.begin() as connection:
        connection.exec_driver_sql('CREATE TABLE t (a)')
    os.chown(tmp_path / 'a.sqlite', 12345, 12346)
    with made.write() as connection:
        connection.exec_driver_sql('INSERT INTO t VALUES (1)')
    made.close()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.glob('a.sqlite*')} == {(12345, 12346)}


def test_a_time_of_a_text_is_in_utc():
    noon = datetime.datetime(2026, 1, 2, 12)
    for text in ('2026-01-02T12:00:00', '2026-01-02T12:00:00Z', '2026-01-02 12:00:00', '2026-01-02T14:00:00+02:00',
                 '2026-01-02T14:00:00 02:00', '2026-01-02T12:00:00.000000Z'):
        assert db.parse_time(text) == noon
    # The last one has no moment in UTC that could be written down.
    for text in ('', 'yesterday', '2026-13-01', '0001-01-01T00:00:00+14:00'):
        with pytest.raises(ValueError):
            db.parse_time(text)
