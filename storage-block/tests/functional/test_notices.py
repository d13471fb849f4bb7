"""What is told on the message bus."""
import datetime
import weakref

import pytest

from kodiak.common import db, outbox, testing
from kodiak.storage_block import audit, models, notices, work


@pytest.fixture(autouse=True)
def silence(monkeypatch):
    monkeypatch.setattr(outbox, '_announced', weakref.WeakKeyDictionary())


@pytest.fixture
def told(cloud):
    """``told()``: ``[(event type, payload, context)]`` since it was last asked."""
    outbox.announce(cloud.db)
    found = []

    cloud.publisher.sinks[''] = found.append

    def take():
        cloud.settle()
        # Only those of one resource come in the order in which they were written.
        taken = [(one['event_type'], one['payload'], one['context']) for one in sorted(found, key=lambda one: one['id'])]
        found.clear()
        return taken
    return take


def names(found):
    return [name for name, _, _ in found]


def test_nothing_is_written_unless_it_is_asked_for(cloud, member):
    member.post('/volumes', {'volume': {'size': 1}}).expect(202)
    assert cloud.all(models.events) == []


def test_the_life_of_a_volume(cloud, told, volume, member, admin):
    made = volume(metadata={'a': 'b'}, imageRef=cloud.image.add())
    path = '/volumes/' + made['id']
    found = told()
    assert names(found) == ['volume.create.start', 'volume.create.end']
    (_, start, _), (_, end, ctx) = found
    assert (start['volume_id'], start['tenant_id'], start['user_id']) == (made['id'], testing.PROJECT, testing.MEMBER.user_id)
    assert (start['status'], start['host'], end['status'], end['host'], end['size']) == (
        'creating', None, 'available', 'one@file#file', 1)
    assert end['metadata'] == [{'key': 'a', 'value': 'b', 'volume_id': made['id']}] and end['volume_attachment'] == []
    assert {'key': 'image_name', 'value': 'guest', 'volume_id': made['id']} in end['glance_metadata']
    assert end['volume_type'] == cloud.all(models.volume_types)[0]['id'] and end['display_name'] == 'data'
    assert set(end) == {
        'tenant_id', 'user_id', 'created_at', 'status', 'volume_id', 'host', 'availability_zone', 'volume_type', 'display_name',
        'launched_at', 'snapshot_id', 'size', 'replication_status', 'replication_extended_status', 'replication_driver_data',
        'metadata', 'volume_attachment', 'glance_metadata'}
    assert ctx.project_id == testing.PROJECT and ctx.user_id == testing.MEMBER.user_id and not ctx.auth_token
    assert ctx.request_id == found[0][2].request_id

    member.put(path, {'volume': {'name': 'other'}}).expect(200)
    member.put(path, {'volume': {'name': 'other'}}).expect(200)     # nothing changes
    found = told()
    assert names(found) == ['volume.update.start', 'volume.update.end']
    assert [one['display_name'] for _, one, _ in found] == ['data', 'other']
    member.post(path + '/metadata', {'metadata': {'c': 'd'}}).expect(200)
    assert names(told()) == ['volume.update.start', 'volume.update.end']

    member.post(path + '/action', {'os-extend': {'new_size': 2}}).expect(202)
    found = told()
    assert names(found) == ['volume.resize.start', 'volume.resize.end'] and [one['size'] for _, one, _ in found] == [1, 2]

    admin.post('/types', {'volume_type': {'name': 'fast'}}).expect(200)
    told()
    member.post(path + '/action', {'os-retype': {'new_type': 'fast'}}).expect(202)
    (name, payload, _), = told()
    assert name == 'volume.retype' and payload['volume_type'] != end['volume_type']

    admin.post(path + '/action', {'os-reset_status': {'status': 'error'}}).expect(202)
    found = told()
    assert names(found) == ['volumes.reset_status.start', 'volumes.reset_status.end']
    assert found[0][1] == {'id': made['id'], 'update': {'status': 'error'}}

    member.post(path + '/action', {'os-reimage': {'image_id': cloud.image.add()}}).expect(202)
    assert names(told()) == ['volume.reimage.start', 'volume.reimage.end']
    member.delete(path).expect(202)
    found = told()
    assert names(found) == ['volume.delete.start', 'volume.delete.end'] and found[1][1]['volume_id'] == made['id']


def test_what_fails_says_why(cloud, told, member, volume):
    cloud.agent.fails['create_volume'] = 'The disk is full.'
    volume()
    name, payload, _ = told()[-1]
    assert name == 'volume.create.error' and payload['message'].endswith('The disk is full.') and payload['status'] == 'error'
    del cloud.agent.fails['create_volume']
    made = volume()
    told()
    cloud.agent.fails.update(extend_volume='No.', delete_volume='Never.')
    member.post(f'/volumes/{made["id"]}/action', {'os-extend': {'new_size': 2}}).expect(202)
    assert names(told()) == ['volume.resize.start', 'volume.resize.error']
    member.delete('/volumes/' + made['id']).expect(202)
    assert names(told()) == ['volume.delete.start', 'volume.delete.error']


def test_attachments(cloud, told, volume):
    service = cloud.client(testing.SERVICE)
    made = volume()
    told()
    attachment = service.post('/attachments', {'attachment': {
        'volume_uuid': made['id'], 'instance_uuid': '11111111-0000-4000-8000-000000000000'}}).expect(200).json['attachment']
    assert told() == []
    path = '/attachments/' + attachment['id']
    service.put(path, {'attachment': {'connector': {'host': 'h', 'mountpoint': '/dev/vdb'}}}).expect(200)
    found = told()
    assert names(found) == ['volume.attach.start'] and found[0][1]['status'] == 'attaching'
    service.post(path + '/action', {'os-complete': {}}).expect(204)
    (name, payload, _), = told()
    assert name == 'volume.attach.end' and payload['status'] == 'in-use'
    there, = payload['volume_attachment']
    assert (there['server_id'], there['attached_host'], there['mountpoint'], there['attach_status']) == (
        '11111111-0000-4000-8000-000000000000', 'h', '/dev/vdb', 'attached')
    service.delete(path).expect(200)
    found = told()
    assert names(found) == ['volume.detach.start', 'volume.detach.end']
    assert (found[0][1]['status'], found[1][1]['status']) == ('in-use', 'available')
    assert len(found[0][1]['volume_attachment']) == 1 and found[1][1]['volume_attachment'] == []
    cloud.agent.fails['export'] = 'No target.'
    service.post('/attachments', {'attachment': {'volume_uuid': made['id'], 'connector': {'host': 'h'}}}).expect(500)
    name, payload, _ = told()[-1]
    assert name == 'volume.attach.error' and 'No target.' in payload['message']


def test_attaching_as_it_was_before(told, volume, member):
    path = f'/volumes/{volume()["id"]}/action'
    told()
    member.post(path, {'os-attach': {'host_name': 'h', 'mountpoint': '/dev/vdb'}}).expect(202)
    assert names(told()) == ['volume.attach.start', 'volume.attach.end']
    member.post(path, {'os-detach': {}}).expect(202)
    assert names(told()) == ['volume.detach.start', 'volume.detach.end']


def test_snapshots(told, volume, member):
    made = volume()
    told()
    snapshot = member.post('/snapshots', {'snapshot': {'volume_id': made['id'], 'metadata': {'a': 'b'}}}).json['snapshot']['id']
    found = told()
    assert names(found) == ['snapshot.create.start', 'snapshot.create.end']
    payload = found[1][1]
    assert payload == {
        'tenant_id': testing.PROJECT, 'user_id': testing.MEMBER.user_id, 'created_at': payload['created_at'], 'status': 'available',
        'snapshot_id': snapshot, 'volume_id': made['id'], 'volume_size': 1, 'display_name': None, 'availability_zone': 'nova',
        'deleted': '', 'metadata': "{'a': 'b'}"}
    member.put('/snapshots/' + snapshot, {'snapshot': {'name': 'x'}}).expect(200)
    assert names(told()) == ['snapshot.update.start', 'snapshot.update.end']
    member.post(f'/volumes/{made["id"]}/action', {'revert': {'snapshot_id': snapshot}}).expect(202)
    assert sorted(names(told())) == ['snapshot.revert.end', 'snapshot.revert.start', 'volume.revert.end', 'volume.revert.start']
    member.delete('/snapshots/' + snapshot).expect(202)
    found = told()
    assert names(found) == ['snapshot.delete.start', 'snapshot.delete.end'] and found[1][1]['deleted'] == 'True'
    member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
    told()
    member.delete(f'/volumes/{made["id"]}?cascade=true').expect(202)
    assert sorted(names(told())) == ['snapshot.delete.end', 'snapshot.delete.start', 'volume.delete.end', 'volume.delete.start']


def test_backups(cloud, told, volume, member, admin):
    made = volume()
    told()
    backup = member.post('/backups', {'backup': {'volume_id': made['id'], 'name': 'b'}}).json['backup']['id']
    found = told()
    assert names(found) == ['backup.create.start', 'backup.create.end']
    payload = found[1][1]
    assert payload == {
        'tenant_id': testing.PROJECT, 'user_id': testing.MEMBER.user_id, 'created_at': payload['created_at'], 'status': 'available',
        'backup_id': backup, 'host': 'one', 'availability_zone': 'nova', 'display_name': 'b', 'volume_id': made['id'],
        'snapshot_id': None, 'parent_id': None, 'size': 1, 'service_metadata': backup, 'service': 'file', 'fail_reason': None,
        'num_dependent_backups': 0}
    member.post(f'/backups/{backup}/restore', {'restore': {'volume_id': made['id']}}).expect(202)
    assert names(told()) == ['backup.restore.start', 'backup.restore.end']
    cloud.agent.fails['restore_backup'] = 'It is gone.'
    member.post(f'/backups/{backup}/restore', {'restore': {'volume_id': made['id']}}).expect(202)
    name, payload, _ = told()[-1]
    assert name == 'backup.restore.error' and payload['fail_reason'] == 'It is gone.'
    admin.post(f'/backups/{backup}/action', {'os-reset_status': {'status': 'error'}}).expect(202)
    assert names(told()) == ['backups.reset_status.start', 'backups.reset_status.end']
    member.delete('/backups/' + backup).expect(202)
    assert names(told()) == ['backup.delete.start', 'backup.delete.end']


def test_transfers(cloud, told, volume, member):
    made = volume()
    member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
    told()
    offered = member.post('/volume-transfers', {'transfer': {'volume_id': made['id']}}).json['transfer']
    found = told()
    assert names(found) == ['volume.transfer.create.start', 'volume.transfer.create.end']
    member.delete('/volume-transfers/' + offered['id']).expect(202)
    assert names(told()) == ['volume.transfer.delete.start', 'volume.transfer.delete.end']
    offered = member.post('/volume-transfers', {'transfer': {'volume_id': made['id']}}).json['transfer']
    told()
    cloud.client(testing.OTHER).post(f'/volume-transfers/{offered["id"]}/accept', {'accept': {
        'auth_key': offered['auth_key']}}).expect(202)
    found = told()
    assert names(found) == ['volume.transfer.accept.start', 'volume.transfer.accept.end', 'snapshot.transfer.accept.start',
                            'snapshot.transfer.accept.end']
    assert [one['tenant_id'] for _, one, _ in found] == [testing.PROJECT, testing.OTHER.project_id] * 2


def test_groups(cloud, told, volume, member, admin):
    kind = admin.post('/group_types', {'group_type': {'name': 'g'}}).json['group_type']['id']
    assert names(told()) == ['group_type.create']
    group = member.post('/groups', {'group': {
        'group_type': kind, 'volume_types': ['__DEFAULT__'], 'name': 'g'}}).json['group']['id']
    found = told()
    assert names(found) == ['group.create.start', 'group.create.end']
    payload = found[1][1]
    assert payload == {'tenant_id': testing.PROJECT, 'user_id': testing.MEMBER.user_id, 'created_at': payload['created_at'],
                       'status': 'available', 'group_id': group, 'name': 'g', 'group_type': kind, 'availability_zone': 'nova'}
    volume(group_id=group)
    told()
    member.put('/groups/' + group, {'group': {'name': 'h'}}).expect(202)
    assert names(told()) == ['group.update.start', 'group.update.end']
    taken = member.post('/group_snapshots', {'group_snapshot': {'group_id': group}}).json['group_snapshot']['id']
    found = told()
    assert sorted(names(found)) == ['group_snapshot.create.end', 'group_snapshot.create.start', 'snapshot.create.end',
                                    'snapshot.create.start']
    payload = next(one for name, one, _ in found if name == 'group_snapshot.create.end')
    assert (payload['group_snapshot_id'], payload['group_id'], payload['group_type']) == (taken, group, kind)
    admin.post(f'/group_snapshots/{taken}/action', {'reset_status': {'status': 'error'}}).expect(202)
    assert names(told()) == ['groupsnapshots.reset_status.start', 'groupsnapshots.reset_status.end']
    member.delete('/group_snapshots/' + taken).expect(202)
    assert 'group_snapshot.delete.end' in names(told())
    member.post(f'/groups/{group}/action', {'delete': {'delete-volumes': True}}).expect(202)
    found = told()
    cloud.hurry()
    assert sorted(names(found + told())) == ['group.delete.end', 'group.delete.start', 'volume.delete.end', 'volume.delete.start']


def test_what_is_taken_on_and_let_go(told, volume, admin):
    made = admin.post('/manageable_volumes', {'volume': {
        'host': 'one@file#file', 'ref': {'source-name': 'x'}}}).json['volume']['id']
    assert names(told()) == ['volume.manage_existing.start', 'volume.manage_existing.end']
    taken = admin.post('/manageable_snapshots', {'snapshot': {
        'volume_id': made, 'ref': {'source-name': 'y'}}}).json['snapshot']['id']
    assert names(told()) == ['snapshot.manage_existing_snapshot.start', 'snapshot.manage_existing_snapshot.end']
    admin.post(f'/snapshots/{taken}/action', {'os-unmanage': {}}).expect(202)
    assert names(told()) == ['snapshot.unmanage.start', 'snapshot.unmanage.end']
    admin.post(f'/volumes/{made}/action', {'os-unmanage': {}}).expect(202)
    assert names(told()) == ['volume.unmanage.start', 'volume.unmanage.end']


def test_what_operators_do_to_types(told, admin):
    kind = admin.post('/types', {'volume_type': {
        'name': 'one', 'os-volume-type-access:is_public': False}}).json['volume_type']['id']
    path = '/types/' + kind
    admin.put(path, {'volume_type': {'name': 'two'}}).expect(200)
    admin.post(path + '/extra_specs', {'extra_specs': {'a': 'b'}}).expect(200)
    admin.put(path + '/extra_specs/a', {'a': 'c'}).expect(200)
    admin.delete(path + '/extra_specs/a').expect(202)
    access = {'project': testing.PROJECT}
    admin.post(path + '/action', {'addProjectAccess': access}).expect(202)
    admin.post(path + '/action', {'removeProjectAccess': access}).expect(202)
    made = admin.post(path + '/encryption', {
        'encryption': {'provider': 'luks', 'control_location': 'front-end'}}).json['encryption']
    admin.put(f'{path}/encryption/{made["encryption_id"]}', {'encryption': {'key_size': 256}}).expect(200)
    admin.delete(f'{path}/encryption/{made["encryption_id"]}').expect(202)
    qos = admin.post('/qos-specs', {'qos_specs': {'name': 'q', 'consumer': 'both', 'a': 'b'}}).json['qos_specs']['id']
    admin.put('/qos-specs/' + qos, {'qos_specs': {'a': 'c'}}).expect(200)
    admin.get(f'/qos-specs/{qos}/associate?vol_type_id={kind}').expect(202)
    admin.get(f'/qos-specs/{qos}/disassociate?vol_type_id={kind}').expect(202)
    admin.get(f'/qos-specs/{qos}/disassociate_all').expect(202)
    admin.put(f'/qos-specs/{qos}/delete_keys', {'keys': ['a']}).expect(202)
    admin.delete('/qos-specs/' + qos).expect(202)
    admin.delete(path).expect(202)
    found = told()
    assert names(found) == [
        'volume_type.create', 'volume_type.update', 'volume_type_extra_specs.create', 'volume_type_extra_specs.update',
        'volume_type_extra_specs.delete', 'volume_type_project.access.add', 'volume_type_project.access.remove',
        'volume_type_encryption.create', 'volume_type_encryption.update', 'volume_type_encryption.delete', 'qos_specs.create',
        'qos_specs.update', 'qos_specs.associate', 'qos_specs.disassociate', 'qos_specs.disassociate_all',
        'qos_specs.delete_keys', 'qos_specs.delete', 'volume_type.delete']
    assert found[1][1]['volume_types']['name'] == 'two' and found[2][1]['specs'] == {'a': 'b'}
    assert found[5][1] == {'volume_type_id': kind, 'project_id': testing.PROJECT} and found[10][1]['specs'] == {'a': 'b'}


def test_moving_to_another_back_end(make_cloud, make_backend):
    cloud = make_cloud(hosts={'one': [make_backend(), make_backend('other')]})
    outbox.announce(cloud.db)
    found = []
    cloud.publisher.sinks[''] = lambda message: found.append((message['event_type'], message['payload']['host']))
    made = cloud.client().post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    cloud.settle()
    found.clear()
    there = cloud.all(models.volumes)[0]['backend']
    other = 'one@other' if there == 'one@file' else 'one@file'
    to = work.shown(other)
    cloud.client(testing.ADMIN).post(f'/volumes/{made}/action', {'os-migrate_volume': {'host': to}}).expect(202)
    cloud.settle()
    assert found == [('volume.migrate.start', work.shown(there)), ('volume.migrate.end', to)]


def test_compute_hears_of_volumes_while_the_bus_is_away(cloud, volume, member):
    made = volume()['id']
    outbox.announce(cloud.db)

    def away(message):
        raise ConnectionError('the message broker cannot be reached')
    cloud.publisher.sinks[''] = away
    member.post('/attachments', {'attachment': {
        'volume_uuid': made, 'instance_uuid': '11111111-0000-4000-8000-000000000000', 'connector': {'host': 'h'}}}).expect(200)
    with cloud.db.write() as connection:
        connection.execute(models.attachments.update().values(attach_status='attached'))
        connection.execute(models.volumes.update().values(status='in-use'))
    member.post(f'/volumes/{made}/action', {'os-extend': {'new_size': 2}}).expect(202)
    cloud.settle()
    assert [body['events'][0]['name'] for _, _, body in cloud.compute.calls] == ['volume-extended']
    assert {row['event_type'] for row in cloud.all(models.events)} == {
        'volume.attach.start', 'volume.resize.start', 'volume.resize.end'}


def test_usage(cloud, told, volume, member):
    made = volume()
    member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
    member.post('/backups', {'backup': {'volume_id': volume()['id']}}).expect(202)
    told()
    now = db.utcnow()
    assert cloud.db.transact(notices.audit, now, now + datetime.timedelta(hours=1)) == 4
    found = told()
    assert names(found) == ['volume.exists', 'volume.exists', 'snapshot.exists', 'backup.exists']
    assert found[0][1]['audit_period_beginning'] == str(now) and found[0][1]['size'] == 1
    assert cloud.db.transact(notices.audit, now - datetime.timedelta(hours=2), now - datetime.timedelta(hours=1)) == 0


@pytest.mark.parametrize('period, begin, end', [
    ('hour', '2026-03-01T11', '2026-03-01T12'), ('day', '2026-02-28', '2026-03-01'), ('month', '2026-02-01', '2026-03-01'),
    ('year', '2025-01-01', '2026-01-01')])
def test_periods(period, begin, end):
    moment = datetime.datetime.fromisoformat
    assert audit.last(period, moment('2026-03-01T12:34:56')) == (moment(begin), moment(end))
