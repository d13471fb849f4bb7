from kodiak.common import migrate


def test_the_migrations_make_what_the_models_say(cloud):
    assert migrate.differences(cloud.db, 'identity') == []
    assert migrate.ready(cloud.db, 'identity')
