"""Attaching: reserved, exported, completed, given back; by the attachments API and as it was before it."""
import uuid

import pytest

from kodiak.common import testing
from kodiak.storage_block import conductor, models

CONNECTOR = {'host': 'compute1', 'ip': '192.0.2.9', 'initiator': 'iqn.2026-01.test:1', 'multipath': False, 'os_type': 'linux',
             'platform': 'x86_64', 'mountpoint': '/dev/vdb', 'do_local_attach': False}


@pytest.fixture
def service(cloud):
    return cloud.client(testing.SERVICE).__class__(
        cloud.pipeline, cloud.identity.token(testing.SERVICE), headers={'OpenStack-API-Version': 'volume 3.71'},
        prefix=f'/{testing.PROJECT}')


def status(member, volume_id):
    return member.get('/volumes/' + volume_id).json['volume']['status']


def test_the_whole_way(cloud, member, service, volume):
    made, server = volume(), str(uuid.uuid4())
    one = service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'instance_uuid': server}}).expect(200)
    attachment = one.json['attachment']
    assert attachment['status'] == 'reserved' and attachment['connection_info'] == {} and attachment['instance'] == server
    assert status(member, made['id']) == 'reserved' and cloud.agent.exports == {}
    path = '/attachments/' + attachment['id']
    told = service.put(path, {'attachment': {'connector': CONNECTOR}}).expect(200).json['attachment']
    info = told['connection_info']
    assert info['driver_volume_type'] == 'iscsi' and info['auth_password'] and info['access_mode'] == 'rw' and not info['encrypted']
    assert status(member, made['id']) == 'attaching' and len(cloud.agent.exports) == 1
    again = service.put(path, {'attachment': {'connector': CONNECTOR}}).expect(200).json['attachment']
    assert again['connection_info'] == info
    service.post(path + '/action', {'os-complete': {}}).expect(204)
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert shown['status'] == 'in-use' and shown['attachments'][0]['server_id'] == server
    assert shown['attachments'][0]['device'] == '/dev/vdb' and shown['attachments'][0]['host_name'] is None
    seen = member.get(path).expect(200).json['attachment']
    own = {'X-Service-Token': cloud.identity.token(testing.MEMBER)}
    assert 'auth_password' not in member.get(path, headers=own).json['attachment']['connection_info']
    member.delete(path, headers=own).expect(409)
    assert 'auth_password' not in seen['connection_info'] and seen['connection_info']['target_iqn']
    assert [row['id'] for row in member.get('/attachments?volume_id=' + made['id']).json['attachments']] == [attachment['id']]
    member.delete(path).expect(409)
    member.delete('/volumes/' + made['id']).expect(400)
    assert service.delete(path).expect(200).json == {'attachments': []}
    service.delete(path).expect(404)
    assert status(member, made['id']) == 'available' and cloud.agent.exports == {}


def test_a_volume_is_attached_once(service, volume):
    made = volume()
    service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'instance_uuid': str(uuid.uuid4())}}).expect(200)
    service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'instance_uuid': str(uuid.uuid4())}}).expect(400)


def test_one_that_many_may_have(cloud, admin, service, member, volume):
    kind = admin.post('/types', {'volume_type': {'name': 'shared', 'extra_specs': {'multiattach': '<is> True'}}}).expect(200)
    made = volume(volume_type=kind.json['volume_type']['id'])
    assert made['multiattach'] is True
    paths = []
    for number in range(2):
        one = service.post('/attachments', {'attachment': {
            'volume_uuid': made['id'], 'instance_uuid': str(uuid.uuid4()),
            'connector': {**CONNECTOR, 'host': f'compute{number}'}}}).expect(200)
        paths.append('/attachments/' + one.json['attachment']['id'])
        service.post(paths[-1] + '/action', {'os-complete': {}}).expect(204)
    assert len(cloud.agent.exports) == 2 and len(member.get('/volumes/' + made['id']).json['volume']['attachments']) == 2
    service.delete(paths[0]).expect(200)
    assert status(member, made['id']) == 'in-use'
    service.delete(paths[1]).expect(200)
    assert status(member, made['id']) == 'available'


def test_an_export_that_fails(cloud, service, member, volume):
    made = volume()
    cloud.agent.fails['export'] = 'There is no port left.'
    one = service.post('/attachments', {'attachment': {'volume_uuid': made['id']}}).json['attachment']
    answer = service.put('/attachments/' + one['id'], {'attachment': {'connector': CONNECTOR}}).expect(500)
    assert 'There is no port left.' in answer.data.decode()
    told, = service.get('/messages').json['messages']
    assert told['resource_uuid'] == made['id'] and 'There is no port left.' in told['user_message']
    cloud.agent.fails.clear()
    service.put('/attachments/' + one['id'], {'attachment': {'connector': CONNECTOR}}).expect(200)


def test_a_back_end_that_is_down(cloud, service, volume):
    made = volume()
    one = service.post('/attachments', {'attachment': {'volume_uuid': made['id']}}).json['attachment']
    cloud.agent.backends[0]['error'] = 'The disk is gone.'
    cloud.agent.register()
    service.put('/attachments/' + one['id'], {'attachment': {'connector': CONNECTOR}}).expect(503)


def test_deleted_by_force_while_attached(cloud, admin, member, service, volume):
    made = volume()
    service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'instance_uuid': str(uuid.uuid4()),
                                                 'connector': CONNECTOR}}).expect(200)
    assert len(cloud.agent.exports) == 1
    admin.post(f'/volumes/{made["id"]}/action', {'os-force_delete': {}}).expect(202)
    assert cloud.agent.exports == {} and f'file/volume-{made["id"]}' in cloud.agent.there
    cloud.settle()
    assert cloud.agent.there == set() and cloud.all(models.volumes) == []


def test_readonly(member, service, volume):
    made = volume()
    member.post(f'/volumes/{made["id"]}/action', {'os-update_readonly_flag': {'readonly': True}}).expect(202)
    assert member.get('/volumes/' + made['id']).json['volume']['metadata']['readonly'] == 'True'
    service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'mode': 'rw'}}).expect(400)
    told = service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'connector': CONNECTOR}}).expect(200)
    assert told.json['attachment']['connection_info']['access_mode'] == 'ro'


def test_as_before_attachments(cloud, member, admin, service, volume):
    made, server = volume(), str(uuid.uuid4())
    path = f'/volumes/{made["id"]}/action'
    member.post(path, {'os-reserve': {}}).expect(202)
    member.post(path, {'os-reserve': {}}).expect(400)
    assert status(member, made['id']) == 'attaching'
    member.post(path, {'os-unreserve': {}}).expect(202)
    assert status(member, made['id']) == 'available'
    member.post(path, {'os-attach': {'instance_uuid': server, 'mountpoint': '/dev/vdc'}}).expect(202)
    assert status(member, made['id']) == 'in-use'
    member.post(path, {'os-begin_detaching': {}}).expect(202)
    assert status(member, made['id']) == 'detaching'
    member.post(path, {'os-roll_detaching': {}}).expect(202)
    member.post(path, {'os-detach': {}}).expect(202)
    assert status(member, made['id']) == 'available' and cloud.all(models.attachments) == []
    info = service.post(path, {'os-initialize_connection': {'connector': CONNECTOR}}).expect(200).json['connection_info']
    assert info['data']['auth_password'] and info['data']['volume_id'] == made['id']
    service.post(path, {'os-terminate_connection': {'connector': CONNECTOR}}).expect(202)
    assert cloud.agent.exports == {} and status(member, made['id']) == 'available'
    member.post(path, {'os-attach': {'instance_uuid': server, 'mountpoint': '/dev/vdc'}}).expect(202)
    member.post(path, {'os-force_detach': {}}).expect(403)
    admin.__class__(cloud.pipeline, cloud.identity.token(testing.ADMIN), prefix=f'/{testing.ADMIN.project_id}').post(
        path, {'os-force_detach': {'connector': None}}).expect(202)
    assert status(member, made['id']) == 'available'


def test_what_is_past_its_deadline_heals(cloud, member, volume):
    made = volume()
    member.post(f'/volumes/{made["id"]}/action', {'os-attach': {'instance_uuid': str(uuid.uuid4()), 'mountpoint': 'x'}}).expect(202)
    member.post(f'/volumes/{made["id"]}/action', {'os-begin_detaching': {}}).expect(202)
    with cloud.db.write() as connection:
        connection.execute(models.volumes.update().values(deadline=conductor.db.utcnow()))
    cloud.watch.look()
    assert status(member, made['id']) == 'in-use'


def test_what_is_detached_by_force_is_detached(admin, member, volume):
    made = volume()
    path = f'/volumes/{made["id"]}/action'
    member.post(path, {'os-attach': {'instance_uuid': made['id'], 'mountpoint': '/dev/vdb'}}).expect(202)
    admin.post(path, {'os-reset_status': {'status': 'error'}}).expect(202)
    held, = member.get('/volumes/' + made['id']).json['volume']['attachments']
    admin.post(path, {'os-force_detach': {'attachment_id': held['attachment_id'], 'connector': None}}).expect(202)
    assert status(member, made['id']) == 'available'
    member.post(path, {'os-detach': {}}).expect(202)
    assert status(member, made['id']) == 'available'
