"""Backups and transfers."""
import base64
import json

from kodiak.common import testing
from kodiak.storage_block import models


def back_up(cloud, member, volume, **more):
    made = member.post('/backups', {'backup': {'volume_id': volume['id'], 'name': 'b', **more}}).expect(202).json['backup']
    cloud.settle()
    return member.get('/backups/' + made['id']).expect(200).json['backup']


def test_made_restored_and_deleted(cloud, member, volume):
    made = volume(size=2, metadata={'a': 'b'})
    first = back_up(cloud, member, made, description='all', container='there')
    assert first['status'] == 'available' and first['size'] == 2 and first['object_count'] == 3 and first['container'] == 'there'
    assert not first['is_incremental'] and not first['has_dependent_backups']
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    second = back_up(cloud, member, made, incremental=True)
    assert second['is_incremental'] and member.get('/backups/' + first['id']).json['backup']['has_dependent_backups']
    member.delete('/backups/' + first['id']).expect(400)
    told = member.post(f'/backups/{second["id"]}/restore', {'restore': {}}).expect(202).json['restore']
    assert told['volume_name'] == f'restore_backup_{second["id"]}'
    assert member.get('/backups/' + second['id']).json['backup']['status'] == 'restoring'
    cloud.settle()
    assert member.get('/backups/' + second['id']).json['backup']['status'] == 'available'
    restored = member.get('/volumes/' + told['volume_id']).json['volume']
    assert restored['status'] == 'available' and restored['metadata'] == {'a': 'b'}
    kind, args = cloud.agent.done[-1]
    assert kind == 'restore_backup' and [record['prefix'] for record in args['records']] == [first['id'], second['id']]
    member.post(f'/backups/{first["id"]}/restore', {'restore': {'volume_id': made['id']}}).expect(202)
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'restoring-backup'
    cloud.settle()
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    for one in (second, first):
        member.delete('/backups/' + one['id']).expect(202)
        cloud.settle()
        member.get('/backups/' + one['id']).expect(404)
    assert not any(name.startswith('backup') for name in cloud.agent.there)


def test_what_cannot_be_backed_up_or_restored(cloud, member, volume):
    made = volume(size=2)
    member.post('/backups', {'backup': {'volume_id': made['id'], 'incremental': True}}).expect(400)
    member.post('/backups', {'backup': {}}).expect(400)
    backup = back_up(cloud, member, made)
    member.post(f'/backups/{backup["id"]}/restore', {'restore': {'volume_id': volume(size=1)['id']}}).expect(400)
    member.post(f'/volumes/{made["id"]}/action', {'os-attach': {'instance_uuid': made['id'], 'mountpoint': 'x'}}).expect(202)
    member.post('/backups', {'backup': {'volume_id': made['id']}}).expect(400)
    assert back_up(cloud, member, made, force=True)['status'] == 'available'
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'in-use'


def test_one_that_fails(cloud, member, volume):
    made = volume()
    cloud.agent.fails['create_backup'] = 'The folder is full.'
    backup = back_up(cloud, member, made)
    assert backup['status'] == 'error' and backup['fail_reason'] == 'The folder is full.'
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    cloud.agent.fails = {'restore_backup': 'It cannot be read.'}
    backup = back_up(cloud, member, made)
    told = member.post(f'/backups/{backup["id"]}/restore', {'restore': {}}).expect(202).json['restore']
    cloud.settle()
    assert member.get('/backups/' + backup['id']).json['backup']['status'] == 'available'
    assert member.get('/volumes/' + told['volume_id']).json['volume']['status'] == 'error'


def test_of_a_snapshot_and_to_a_volume_at_once(cloud, member, volume):
    made = volume()
    snapshot = member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).json['snapshot']
    cloud.settle()
    backup = back_up(cloud, member, made, snapshot_id=snapshot['id'])
    assert backup['snapshot_id'] == snapshot['id'] and backup['status'] == 'available'
    assert member.get('/snapshots/' + snapshot['id']).json['snapshot']['status'] == 'available'
    copy = volume(backup_id=backup['id'])
    assert copy['status'] == 'available' and cloud.agent.done[-1][0] == 'restore_backup'


def test_records_and_changes(cloud, member, admin, volume):
    backup = back_up(cloud, member, volume())
    member.put('/backups/' + backup['id'], {'backup': {'name': 'n', 'metadata': {'a': 'b'}}}).expect(200)
    assert member.get('/backups/' + backup['id']).json['backup']['metadata'] == {'a': 'b'}
    assert [one['name'] for one in member.get('/backups/detail?name=n').expect(200).json['backups']] == ['n']
    assert set(member.get('/backups').json['backups'][0]) == {'id', 'name', 'links'}
    member.get(f'/backups/{backup["id"]}/export_record').expect(403)
    record = admin.get(f'/backups/{backup["id"]}/export_record').expect(200).json['backup-record']
    member.delete('/backups/' + backup['id']).expect(202)
    cloud.settle()
    admin.post('/backups/import_record', {'backup-record': {**record, 'backup_url': 'nonsense'}}).expect(400)
    admin.post('/backups/import_record', {'backup-record': {**record, 'backup_url': base64.b64encode(
        json.dumps({'id': 1}).encode()).decode()}}).expect(400)
    kept = json.loads(base64.b64decode(record['backup_url']))
    kept['record']['metadata']['encrypted'] = True
    told = admin.post('/backups/import_record', {'backup-record': {**record, 'backup_url': base64.b64encode(
        json.dumps(kept).encode()).decode()}}).expect(400)
    assert 'its key is not here' in told.json['badRequest']['message']
    assert admin.post('/backups/import_record', {'backup-record': record}).expect(201).json['backup']['id'] == backup['id']
    admin.post('/backups/import_record', {'backup-record': record}).expect(400)
    path = f'/backups/{backup["id"]}/action'
    admin.post(path, {'os-reset_status': {'status': 'error'}}).expect(202)
    assert admin.get('/backups/' + backup['id']).json['backup']['status'] == 'error'
    admin.post(path, {'os-force_delete': {}}).expect(202)
    cloud.settle()
    assert cloud.all(models.backups) == []


def test_an_encrypted_backup_stays_in_its_cloud(cloud, admin, member, volume):
    kind = admin.post('/types', {'volume_type': {'name': 'secret'}}).json['volume_type']['id']
    admin.post(f'/types/{kind}/encryption', {'encryption': {'provider': 'luks', 'control_location': 'front-end'}}).expect(200)
    made = volume(volume_type='secret')
    backup = member.post('/backups', {'backup': {'volume_id': made['id']}}).expect(202).json['backup']
    cloud.settle()
    told = admin.get(f'/backups/{backup["id"]}/export_record').expect(400)
    assert 'its key stays' in told.json['badRequest']['message']


def test_a_transfer(cloud, member, volume):
    made = volume()
    snapshot = member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).json['snapshot']['id']
    cloud.settle()
    transfer = member.post('/volume-transfers', {'transfer': {'volume_id': made['id'], 'name': 't'}}).expect(202).json['transfer']
    assert transfer['auth_key'] and member.get('/volumes/' + made['id']).json['volume']['status'] == 'awaiting-transfer'
    shown = member.get('/volume-transfers/' + transfer['id']).expect(200).json['transfer']
    assert 'auth_key' not in shown and shown['source_project_id'] == testing.PROJECT
    assert [one['id'] for one in member.get('/os-volume-transfer/detail').json['transfers']] == [transfer['id']]
    member.delete('/volumes/' + made['id']).expect(400)
    other = cloud.client(testing.OTHER)
    path = f'/volume-transfers/{transfer["id"]}/accept'
    other.post(path, {'accept': {'auth_key': 'wrong'}}).expect(400)
    other.post(path, {'accept': {'auth_key': transfer['auth_key']}}).expect(202)
    assert other.get('/volumes/' + made['id']).expect(200).json['volume']['status'] == 'available'
    other.get('/snapshots/' + snapshot).expect(200)
    member.get('/volumes/' + made['id']).expect(404)
    other.post(path, {'accept': {'auth_key': transfer['auth_key']}}).expect(404)


def test_a_transfer_that_is_taken_back(cloud, member, volume):
    made = volume()
    transfer = member.post('/os-volume-transfer', {'transfer': {'volume_id': made['id']}}).expect(202).json['transfer']
    member.post('/os-volume-transfer', {'transfer': {'volume_id': made['id']}}).expect(400)
    cloud.client(testing.OTHER).delete('/os-volume-transfer/' + transfer['id']).expect(404)
    member.delete('/os-volume-transfer/' + transfer['id']).expect(202)
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    cloud.client(testing.ADMIN).put(f'/os-quota-sets/{testing.OTHER_PROJECT}', {'quota_set': {'volumes': 0}}).expect(200)
    transfer = member.post('/os-volume-transfer', {'transfer': {'volume_id': made['id']}}).expect(202).json['transfer']
    cloud.client(testing.OTHER).post(f'/os-volume-transfer/{transfer["id"]}/accept', {'accept': {
        'auth_key': transfer['auth_key']}}).expect(413)
