"""Quotas: counted under a lock, so that two requests cannot both take the last one."""
import threading

import pytest
import sqlalchemy as sa

from kodiak.common import db, errors, quota

DEFAULTS = {'thing': 2, 'gigabytes': quota.UNLIMITED}


@pytest.fixture
def world(tmp_path):
    metadata = db.metadata()
    quota.tables(metadata)
    things = sa.Table('things', metadata, sa.Column('id', sa.Integer, primary_key=True), sa.Column('project_id', sa.String(36)))
    database = db.Database(f'sqlite:///{tmp_path}/q.sqlite')
    metadata.create_all(database.engine)
    yield database, things
    database.close()


def counter(things):
    def count(connection, project_id, resources):
        return {'thing': connection.scalar(sa.select(sa.func.count()).where(things.c.project_id == project_id))}
    return count


def test_the_last_one_is_given_once(world):
    database, things = world
    outcomes = []

    def create():
        try:
            with database.write() as connection:
                quota.claim(connection, 'p', {'thing': 1}, counter(things), DEFAULTS)
                connection.execute(sa.insert(things).values(project_id='p'))
            outcomes.append('made')
        except errors.QuotaExceeded as error:
            outcomes.append(error.detail['thing'])
    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count('made') == 2
    assert [outcome for outcome in outcomes if outcome != 'made'] == [{'limit': 2, 'used': 2, 'requested': 1}] * 4


def test_limits_of_the_project_then_the_class_then_the_default(world):
    database, _ = world
    with database.write() as connection:
        quota.put(connection, 'class:default', {'thing': 5})
        assert quota.get(connection, 'p', DEFAULTS) == {'thing': 2, 'gigabytes': -1}
        assert quota.get(connection, 'p', DEFAULTS, 'default') == {'thing': 5, 'gigabytes': -1}
        quota.put(connection, 'p', {'thing': 7})
        quota.put(connection, 'p', {'thing': 8, 'gigabytes': 9})
        assert quota.get(connection, 'p', DEFAULTS, 'default') == {'thing': 8, 'gigabytes': 9}
        assert quota.delete(connection, 'p')
        assert not quota.delete(connection, 'p')


def test_what_has_no_limit_is_not_counted(world):
    database, _ = world

    def never(*args):
        raise AssertionError('counted')
    with database.write() as connection:
        quota.claim(connection, 'p', {'gigabytes': 10, 'thing': 0}, never, DEFAULTS)


def test_the_message_says_what_does_not_fit(world):
    database, things = world
    with database.write() as connection, pytest.raises(errors.QuotaExceeded, match='thing: 3 requested, 0 of 2 used'):
        quota.claim(connection, 'p', {'thing': 3}, counter(things), DEFAULTS)
