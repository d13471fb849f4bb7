from kodiak.common import db, migrate


def test_the_migrations_make_what_the_models_say(tmp_path):
    database = db.Database(f'sqlite:///{tmp_path}/compute.sqlite')
    migrate.sync(database, 'compute')
    assert migrate.differences(database, 'compute') == []
    assert migrate.ready(database, 'compute')
    database.close()
