"""What a conductor answers to agents and guests, and what it looks after."""
import datetime
import hashlib
import hmac

import pytest

from kodiak.common import db, testing
from kodiak.compute import models
from kodiak.compute.api import metadata


@pytest.fixture
def member(as_):
    return as_(testing.MEMBER)


def test_a_host_is_told_what_is_new_only(cloud, boot):
    first = boot()
    full = cloud.handlers.host_state(None, {'one': 0})['one']
    assert full['full'] and [found['uuid'] for found in full['instances']] == [first['id']]
    assert cloud.handlers.host_state(None, {'one': full['generation']}) == {}
    second = boot()
    news = cloud.handlers.host_state(None, {'one': full['generation']})['one']
    assert not news['full'] and [found['uuid'] for found in news['instances']] == [second['id']]
    assert cloud.handlers.host_state(None, {'other': 0}) == {'other': {'generation': 0, 'full': True, 'instances': []}}
    # An agent that knows more than its conductor (a database from a backup) begins anew.
    assert cloud.handlers.host_state(None, {'one': news['generation'] + 100})['one']['full']


def test_what_was_deleted_is_removed_from_a_host_and_nothing_else(cloud, boot, member):
    server, gone = boot(), boot()
    member.delete(f'/servers/{gone["id"]}').expect(204)
    cloud.settle()
    # A database from a backup knows nothing of the newest servers, and believes that others are where they were.
    stray = db.new_id()
    assert cloud.handlers.unwanted(None, 'one', [server['id'], gone['id'], stray]) == [gone['id']]
    assert cloud.handlers.unwanted(None, 'two', [server['id']]) == []
    assert cloud.handlers.report(None, [{'uuid': stray, 'host': 'one', 'generation': 1,
                                         'power_state': 'running'}]) == {stray: 'unknown'}


def test_a_server_whose_disks_are_lost_is_in_error(cloud, boot, member):
    server = boot()
    report = {'uuid': server['id'], 'host': 'one', 'generation': 1, 'power_state': 'absent',
              'fault': {'code': 'disk-missing', 'message': 'The host has lost the disks of the instance.', 'final': True}}
    assert cloud.handlers.report(None, [report]) == {server['id']: 'ok'}
    shown = member.get(f'/servers/{server["id"]}').json['server']
    assert shown['status'] == 'ERROR' and 'lost the disks' in shown['fault']['message']


def test_processes_without_a_database_have_their_version_written_down(cloud):
    offered = {**cloud.all(models.hosts)[0]['resources'], 'version': '7.1', 'started_at': '2026-01-02T03:04:05'}
    cloud.handlers.resources(None, [offered])
    cloud.handlers.alive(None, 'one', 'kodiak-compute-console', '7.2', '2026-01-02T03:04:06')
    said = {row['binary']: (row['version'], str(row['started_at'])) for row in cloud.all(models.services)}
    assert said == {'kodiak-compute-agent': ('7.1', '2026-01-02 03:04:05'),
                    'kodiak-compute-console': ('7.2', '2026-01-02 03:04:06')}


def test_agents_are_alive_while_they_ask(cloud):
    cloud.handlers._beats.clear()
    with cloud.db.write() as connection:
        connection.execute(models.services.update().values(last_seen_at=db.utcnow() - datetime.timedelta(hours=1)))
    cloud.handlers.host_state(None, {'one': 0})
    service, = cloud.all(models.services)
    assert db.utcnow() - service['last_seen_at'] < datetime.timedelta(seconds=10)


def test_what_is_past_its_deadline_heals(cloud, boot, member):
    server = boot()
    path = f'/servers/{server["id"]}'
    cloud.serving.stop()
    member.post(path + '/action', {'pause': None}).expect(202)
    cloud.watch.look()
    assert member.get(path).json['server']['OS-EXT-STS:task_state'] == 'pausing'
    with cloud.db.write() as connection:
        connection.execute(models.servers.update().values(task_deadline=db.utcnow() - datetime.timedelta(seconds=1)))
    cloud.watch.look()
    shown = member.get(path).json['server']
    assert (shown['status'], shown['OS-EXT-STS:task_state']) == ('ACTIVE', None)
    actions = member.get(path + '/os-instance-actions').json['instanceActions']
    assert 'pausing was not finished' in actions[0]['message']


def test_a_server_without_a_saga_that_hangs_in_building_fails_with_a_reason(cloud, boot, member):
    server = boot(settle=False)
    with cloud.db.write() as connection:
        connection.execute(models.sagas.delete())
        connection.execute(models.servers.update().values(task_deadline=db.utcnow() - datetime.timedelta(seconds=1)))
    cloud.watch.look()
    shown = member.get('/servers/' + server['id']).json['server']
    assert shown['status'] == 'ERROR' and 'scheduling was not finished' in shown['fault']['message']


def test_an_agent_that_was_killed_goes_on(cloud, boot, member):
    server = boot(settle=False)
    cloud.worker.run_due()
    cloud.start_agent()
    cloud.settle()
    assert member.get('/servers/' + server['id']).json['server']['status'] == 'ACTIVE'
    cloud.start_agent()
    cloud.settle()
    assert member.get('/servers/' + server['id']).json['server']['status'] == 'ACTIVE'


def test_deleting_while_it_is_being_built(cloud, boot, member):
    server = boot(settle=False)
    cloud.worker.run_due()
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    cloud.hurry()
    cloud.settle()
    member.get('/servers/' + server['id']).expect(404)
    assert cloud.all(models.guests) == [] and cloud.all(models.placement.consumers) == []


# The metadata service

@pytest.fixture
def ask(cloud):
    cloud.conf.set_override('shared_secret', 'x', 'metadata')
    application = testing.Client(metadata.Metadata(cloud.app))

    def run(path, uuid, project=testing.PROJECT, secret='x', method='GET', **more):
        signature = hmac.new(secret.encode(), uuid.encode(), hashlib.sha256).hexdigest()
        return application.request(method, path, headers={'X-Instance-ID': uuid, 'X-Tenant-ID': project,
                                                          'X-Instance-ID-Signature': signature}, **more)
    return run


def test_nobody_reads_about_others(boot, ask, cloud):
    server = boot()
    assert b'latest' in ask('/', server['id']).expect(200).data
    ask('/openstack', server['id'], secret='y').expect(403)
    cloud.conf.set_override('shared_secret', 'x,y', 'metadata')
    for secret in ('x', 'y'):
        ask('/openstack', server['id'], secret=secret).expect(200)
    cloud.conf.set_override('shared_secret', 'x', 'metadata')
    ask('/latest/user-data', server['id']).expect(404)
    ask('/openstack', server['id'], project=testing.OTHER_PROJECT).expect(404)
    ask('/openstack', db.new_id()).expect(404)
    ask('/openstack', '').expect(400)
    ask('/openstack', server['id'], method='PUT').expect(405)
    cloud.conf.set_override('shared_secret', '', 'metadata')
    ask('/openstack', server['id'], secret='').expect(403)
