"""Groups, their types and snapshots."""
import pytest

from kodiak.storage_block import models


@pytest.fixture
def group_type(admin):
    return admin.post('/group_types', {'group_type': {'name': 'gt', 'group_specs': {
        'consistent_group_snapshot_enabled': '<is> True'}}}).expect(202).json['group_type']['id']


@pytest.fixture
def group(cloud, member, group_type):
    made = member.post('/groups', {'group': {'group_type': group_type, 'volume_types': ['__DEFAULT__'], 'name': 'g'}}).expect(202)
    cloud.settle()
    return made.json['group']['id']


def test_group_types(admin, member, group_type):
    path = '/group_types/' + group_type
    assert admin.get(path).json['group_type']['group_specs'] == {'consistent_group_snapshot_enabled': '<is> True'}
    assert 'group_specs' not in member.get(path).json['group_type']
    member.post('/group_types', {'group_type': {'name': 'x'}}).expect(403)
    admin.post('/group_types', {'group_type': {'name': 'gt'}}).expect(409)
    assert admin.put(path, {'group_type': {'name': 'other'}}).expect(200).json['group_type']['name'] == 'other'
    admin.post(path + '/group_specs', {'group_specs': {'a': 'b'}}).expect(202)
    assert admin.get(path + '/group_specs/a').expect(200).json == {'a': 'b'}
    assert admin.put(path + '/group_specs/a', {'a': 'c'}).expect(200).json == {'a': 'c'}
    admin.delete(path + '/group_specs/a').expect(202)
    admin.get(path + '/group_specs/a').expect(404)
    assert [one['name'] for one in member.get('/group_types').json['group_types']] == ['other']
    member.get('/group_types/default').expect(404)
    admin.delete(path).expect(202)
    admin.get(path).expect(404)


def test_a_group_of_volumes(cloud, admin, member, group, group_type, volume):
    shown = member.get('/groups/' + group).expect(200).json['group']
    assert shown['status'] == 'available' and shown['group_type'] == group_type
    admin.delete('/group_types/' + group_type).expect(400)
    inside, outside = volume(group_id=group), volume()
    member.put('/groups/' + group, {'group': {'add_volumes': outside['id'], 'name': 'new'}}).expect(202)
    assert set(member.get(f'/groups/{group}?list_volume=true').json['group']['volumes']) == {inside['id'], outside['id']}
    assert member.get('/groups/detail').json['groups'][0]['name'] == 'new'
    member.delete('/volumes/' + inside['id']).expect(400)
    member.put('/groups/' + group, {'group': {'remove_volumes': outside['id']}}).expect(202)
    member.put('/groups/' + group, {'group': {'remove_volumes': outside['id']}}).expect(400)
    member.put('/groups/' + group, {'group': {'name': None}}).expect(400)
    member.post(f'/groups/{group}/action', {'delete': {'delete-volumes': False}}).expect(400)
    member.post(f'/groups/{group}/action', {'delete': {'delete-volumes': True}}).expect(202)
    cloud.hurry()
    cloud.settle()
    cloud.hurry()
    cloud.settle()
    member.get('/groups/' + group).expect(404)
    member.get('/volumes/' + inside['id']).expect(404)
    member.get('/volumes/' + outside['id']).expect(200)


def test_snapshots_of_all_at_one_moment(cloud, admin, member, group, volume):
    member.post('/group_snapshots', {'group_snapshot': {'group_id': group}}).expect(400)
    volumes = [volume(group_id=group)['id'] for _ in range(2)]
    made = member.post('/group_snapshots', {'group_snapshot': {'group_id': group, 'name': 's'}}).expect(202).json['group_snapshot']
    cloud.settle()
    path = '/group_snapshots/' + made['id']
    assert member.get(path).expect(200).json['group_snapshot']['status'] == 'available'
    kind, args = cloud.agent.done[-1]
    assert kind == 'create_snapshots' and {one['volume_id'] for one in args['snapshots']} == set(volumes)
    assert {one['group_snapshot_id'] for one in member.get('/snapshots').json['snapshots']} == {made['id']}
    member.post(f'/groups/{group}/action', {'delete': {'delete-volumes': True}}).expect(400)
    copy = member.post('/groups/action', {'create-from-src': {'group_snapshot_id': made['id'], 'name': 'copy'}}).expect(202)
    cloud.settle()
    cloud.hurry()
    cloud.settle()
    assert member.get('/groups/' + copy.json['group']['id']).json['group']['status'] == 'available'
    clone = member.post('/groups/action', {'create-from-src': {'source_group_id': group, 'name': 'clone'}}).expect(202)
    cloud.settle()
    cloud.hurry()
    cloud.settle()
    assert member.get('/groups/' + clone.json['group']['id']).json['group']['status'] == 'available'
    assert len(cloud.all(models.volumes)) == 6
    admin.post(path + '/action', {'reset_status': {'status': 'error'}}).expect(202)
    member.delete(path).expect(202)
    cloud.settle()
    member.get(path).expect(404)
    assert member.get('/snapshots').json['snapshots'] == []


def test_a_group_snapshot_that_fails(cloud, member, group, volume):
    volume(group_id=group)
    cloud.agent.fails['create_snapshots'] = 'No.'
    made = member.post('/group_snapshots', {'group_snapshot': {'group_id': group}}).expect(202).json['group_snapshot']
    cloud.settle()
    assert member.get('/group_snapshots/' + made['id']).json['group_snapshot']['status'] == 'error'
    assert {row['status'] for row in cloud.all(models.snapshots)} == {'error'}


def test_statuses(admin, member, group):
    member.post(f'/groups/{group}/action', {'reset_status': {'status': 'error'}}).expect(403)
    admin.post(f'/groups/{group}/action', {'reset_status': {'status': 'nonsense'}}).expect(400)
    admin.post(f'/groups/{group}/action', {'reset_status': {'status': 'error'}}).expect(202)
    assert member.get('/groups/' + group).json['group']['status'] == 'error'
