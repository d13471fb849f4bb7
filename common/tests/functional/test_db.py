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
