"""What is told on the message bus."""
import weakref

import pytest

from kodiak.common import outbox, testing
from kodiak.compute import models


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    # Databases are used again by other tests.
    monkeypatch.setattr(outbox, '_announced', weakref.WeakKeyDictionary())


def told(cloud):
    """``[(event type, payload, context)]`` of what waits to be told, and forget it."""
    rows = sorted(cloud.all(models.events), key=lambda row: row['id'])
    with cloud.db.write() as connection:
        connection.execute(models.events.delete())
    return [(row['event_type'].removeprefix('compute.instance.'), row['payload'], row['context']) for row in rows]


def named(found):
    return [name for name, _, _ in found if name != 'update']


def test_nothing_is_written_unless_it_is_asked_for(cloud, boot):
    boot()
    assert told(cloud) == []


def test_the_life_of_a_server_is_told(cloud, boot, as_):
    outbox.announce(cloud.db)
    server = boot(metadata={'a': 'b'})
    found = told(cloud)
    assert named(found) == ['create.start', 'create.end']
    start, end = (next(one for one in found if one[0] == name) for name in ('create.start', 'create.end'))
    assert (start[1]['instance_id'], start[1]['state'], start[1]['launched_at']) == (server['id'], 'building', '')
    assert (end[1]['state'], end[1]['host'], end[1]['metadata'], end[1]['vcpus']) == ('active', 'one', {'a': 'b'}, 1)
    assert end[2]['project_id'] == testing.PROJECT and end[2]['user'] == testing.MEMBER.user_id and 'auth_token' not in end[2]
    assert start[2]['request_id'] == end[2]['request_id']
    updates = [(one['old_task_state'], one['new_task_state'], one['state']) for name, one, _ in found if name == 'update']
    assert updates[-1] == ('spawning', None, 'active')
    member = as_(testing.MEMBER)
    path = '/servers/' + server['id']
    member.post(path + '/action', {'os-stop': None}).expect(202)
    cloud.settle()
    assert named(told(cloud)) == ['power_off.start', 'power_off.end']
    member.delete(path).expect(204)
    cloud.settle()
    found = told(cloud)
    assert named(found) == ['delete.start', 'delete.end'] and found[-1][1]['deleted_at'] and found[-1][1]['state'] == 'deleted'


def test_a_failure_is_told_with_its_reason(cloud, boot, as_):
    outbox.announce(cloud.db)
    admin = as_(testing.ADMIN)
    huge = admin.post('/flavors', {'flavor': {'name': 'h', 'ram': 2 ** 30, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    admin.put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'ram': -1}}).expect(200)
    boot(flavorRef=huge)
    name, said, _ = next(one for one in told(cloud) if one[0].startswith('create') and not one[0].endswith('start'))
    assert name == 'create.error' and 'No valid host was found' in said['message'] and said['state'] == 'error'
