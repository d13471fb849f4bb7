"""Snapshots."""
from kodiak.storage_block import models


def snapshot_of(cloud, member, volume, **more):
    made = member.post('/snapshots', {'snapshot': {'volume_id': volume['id'], 'name': 's', **more}}).expect(202).json['snapshot']
    assert made['status'] == 'creating'
    cloud.settle()
    return member.get('/snapshots/' + made['id']).expect(200).json['snapshot']


def test_made_used_and_deleted(cloud, member, volume):
    made = volume(size=2)
    snapshot = snapshot_of(cloud, member, made, metadata={'a': 'b'})
    assert snapshot['status'] == 'available' and snapshot['size'] == 2 and snapshot['metadata'] == {'a': 'b'}
    assert snapshot['os-extended-snapshot-attributes:progress'] == '100%'
    member.delete('/volumes/' + made['id']).expect(400)
    copy = volume(snapshot_id=snapshot['id'], size=3)
    assert copy['snapshot_id'] == snapshot['id'] and copy['size'] == 3
    member.post('/volumes', {'volume': {'snapshot_id': snapshot['id'], 'size': 1}}).expect(400)
    changed = member.put('/snapshots/' + snapshot['id'], {'snapshot': {'name': 'n', 'description': 'd'}}).expect(200).json
    assert changed['snapshot']['name'] == 'n' and changed['snapshot']['description'] == 'd'
    member.delete('/snapshots/' + snapshot['id']).expect(202)
    cloud.settle()
    member.get('/snapshots/' + snapshot['id']).expect(404)
    assert not any('snapshot' in name for name in cloud.agent.there)


def test_lists(cloud, member, volume):
    made = volume()
    names = ['a', 'b', 'c']
    for name in names:
        snapshot_of(cloud, member, made, name=name)

    def listed(query=''):
        return [one['name'] for one in member.get('/snapshots/detail' + query).expect(200).json['snapshots']]
    assert listed() == names[::-1] and listed('?sort=name:asc') == names and listed('?name=b') == ['b']
    assert listed('?offset=1') == ['b', 'a'] and listed('?limit=1') == ['c'] and listed('?limit=0') == []
    assert listed(f'?volume_id={made["id"]}&status=available') == names[::-1]
    assert 'os-extended-snapshot-attributes:progress' not in member.get('/snapshots').json['snapshots'][0]


def test_cascade(cloud, member, volume):
    made = volume()
    snapshot_of(cloud, member, made)
    snapshot_of(cloud, member, made)
    member.delete(f'/volumes/{made["id"]}?cascade=true').expect(202)
    cloud.settle()
    assert cloud.all(models.volumes) == [] and cloud.all(models.snapshots) == [] and cloud.agent.there == set()


def test_in_use_needs_force_before_3_66(cloud, member, volume):
    made = volume()
    member.post(f'/volumes/{made["id"]}/action', {'os-attach': {'instance_uuid': made['id'], 'mountpoint': 'x'}}).expect(202)
    old = cloud.client(version='3.50')
    old.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(400)
    old.post('/snapshots', {'snapshot': {'volume_id': made['id'], 'force': True}}).expect(202)
    member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
    member.post('/snapshots', {'snapshot': {'volume_id': made['id'], 'force': False}}).expect(400)
    member.post('/snapshots', {'snapshot': {'name': 'no volume'}}).expect(400)
    member.post('/snapshots', {'snapshot': {'volume_id': models_id()}}).expect(404)


def models_id():
    return '9f1b3a5e-0000-4000-8000-000000000000'


def test_one_that_fails(cloud, member, admin, volume):
    cloud.agent.fails['create_snapshot'] = 'No room.'
    made = volume()
    snapshot = snapshot_of(cloud, member, made)
    assert snapshot['status'] == 'error' and cloud.agent.done[-1][0] == 'delete_snapshot'
    path = f'/snapshots/{snapshot["id"]}/action'
    admin.post(path, {'os-reset_status': {'status': 'deleting'}}).expect(202)
    member.delete('/snapshots/' + snapshot['id']).expect(400)
    admin.post(path, {'os-update_snapshot_status': {'status': 'error', 'progress': '80%'}}).expect(202)
    member.post(path, {'os-force_delete': {}}).expect(403)
    admin.post(path, {'os-force_delete': {}}).expect(202)
    cloud.settle()
    assert cloud.all(models.snapshots) == []


def test_the_quota_counts_them(cloud, member, volume):
    made = volume()
    for _ in range(10):
        member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
        cloud.settle()
    answer = member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(413)
    assert 'snapshots' in answer.json['overLimit']['message']
