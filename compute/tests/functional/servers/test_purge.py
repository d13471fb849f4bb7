"""Rows of servers that were deleted long ago."""
import datetime

from kodiak.common import db, testing
from kodiak.compute import models, purge


def test_what_was_deleted_long_ago_goes_with_all_that_was_its(cloud, boot, as_, capsys):
    member, kept, old, recent = as_(testing.MEMBER), boot(tags=['a']), boot(tags=['b'], metadata={'x': 'y'}), boot()
    for server in (old, recent):
        member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    with cloud.db.write() as connection:
        connection.execute(models.servers.update().where(models.servers.c.uuid == old['id']).values(
            deleted_at=db.utcnow() - datetime.timedelta(days=91)))
    assert purge.purge(cloud.db, 90, dry_run=True) == 1 and len(cloud.all(models.servers)) == 3
    assert purge.purge(cloud.db, 90) == 1
    assert {row['uuid'] for row in cloud.all(models.servers)} == {kept['id'], recent['id']}
    for table in (models.specs, models.server_tags, models.actions):
        assert old['id'] not in {row['server_uuid'] for row in cloud.all(table)}
    assert {row['action_id'] for row in cloud.all(models.action_events)} <= {row['id'] for row in cloud.all(models.actions)}
    member.get('/servers/' + kept['id']).expect(200)
    assert purge.purge(cloud.db, 0) == 1 and purge.purge(cloud.db, 0) == 0


def test_a_server_stays_while_a_host_has_its_guest(cloud, boot, as_):
    server = boot()
    with cloud.db.write() as connection:
        connection.execute(models.servers.update().values(deleted=True, deleted_at=db.utcnow() - datetime.timedelta(days=91)))
    assert purge.purge(cloud.db, 90) == 0 and cloud.row(server['id'])
