"""What the API says where clients seldom ask: filters and fields by microversion, tags, clean-up, what is not offered."""
import pytest

from kodiak.common import db, testing
from kodiak.storage_block import models, states, store

NOBODY = '9f1b3a5e-0000-4000-8000-000000000000'


def message(answer):
    return next(iter(answer.json.values()))['message']


@pytest.mark.parametrize('path, since', [
    ('/volumes?group_id=' + NOBODY, '3.10'), ("/volumes?glance_metadata={'a': 'b'}", '3.4'), ('/volumes?name~=zz', '3.34'),
    ('/volumes?consumes_quota=false', '3.65'), ('/volumes/detail?created_at=lt:2000-01-01T00:00:00', '3.60'),
    ("/snapshots?metadata={'a': 'b'}", '3.22'), ('/snapshots?consumes_quota=false', '3.65'), ('/snapshots?name~=zz', '3.34'),
    ('/backups?name~=zz', '3.34'), ('/group_snapshots?name=zz', '3.29'), ('/groups?name~=zz', '3.34'),
    ('/attachments?attach_status~=zz', '3.34'), ('/messages?resource_type~=zz', '3.34'), ('/messages?resource_type=zz', '3.5')])
def test_a_filter_counts_from_its_microversion_on(cloud, member, admin, volume, path, since):
    name = path.partition('?')[0].strip('/').partition('/')[0]
    made = volume()
    member.post('/attachments', {'attachment': {'volume_uuid': volume()['id']}}).expect(200)
    member.post('/backups', {'backup': {'volume_id': made['id']}}).expect(202)
    cloud.settle()
    member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202)
    kind = admin.post('/group_types', {'group_type': {'name': 'g'}}).json['group_type']['id']
    group = member.post('/groups', {'group': {'group_type': kind, 'volume_types': ['__DEFAULT__']}}).json['group']['id']
    cloud.settle()
    with cloud.db.write() as connection:
        store.insert(connection, models.group_snapshots, {
            'group_id': group, 'project_id': testing.PROJECT, 'name': 'x', 'status': states.AVAILABLE, 'group_type_id': kind})
        store.insert(connection, models.messages, {
            'project_id': testing.PROJECT, 'resource_type': 'VOLUME', 'resource_uuid': made['id'], 'action_id': '1',
            'detail_id': '1', 'message_level': 'ERROR', 'text': 'x', 'expires_at': db.utcnow().replace(year=2100)})
    assert member.get(path).expect(200).json[name] == []
    before = '3.' + str(int(since.partition('.')[2]) - 1)
    answer = cloud.client(version=before).get(path)
    if int(before.partition('.')[2]) >= 31:
        assert message(answer.expect(400)).startswith('Invalid filters')
    else:
        assert len(answer.expect(200).json[name]) >= 1


@pytest.mark.parametrize('path', ['/volumes', '/snapshots', '/backups', '/groups', '/group_snapshots', '/attachments', '/messages'])
def test_a_filter_that_is_none(cloud, member, admin, path):
    assert message(member.get(path + '?nonsense=1').expect(400)) == 'Invalid filters nonsense are found in query options.'
    admin.get(path + '?nonsense=1').expect(200)
    cloud.client(version='3.30').get(path + '?nonsense=1').expect(200)


def test_where_volumes_lie_is_asked_by_operators_only(cloud, member, admin, volume):
    volume()
    member.get('/volumes?host=one@file').expect(400)
    assert len(admin.get('/volumes?host=one@file&all_tenants=1').json['volumes']) == 1
    assert len(cloud.client(version='3.30').get('/volumes?host=elsewhere').json['volumes']) == 1


def test_bootable_before_it_was_looked_at(cloud, member, volume):
    volume()
    old = cloud.client(version='3.1')
    assert len(old.get('/volumes?bootable=false').json['volumes']) == 1 and old.get('/volumes?bootable=huh').json['volumes'] == []
    member.get('/volumes?bootable=huh').expect(400)


def test_fields_that_are_none(cloud, member):
    sent = {'volume': {'size': 1, 'status': 'available', 'user_id': 'x'}}
    assert message(member.post('/volumes', sent).expect(400)) == (
        "Additional properties are not allowed ('status', 'user_id' were unexpected)")
    member.post('/volumes', {'volume': {'size': 1}, 'more': {}}).expect(400)
    cloud.client(version='3.52').post('/volumes', sent).expect(202)
    member.post('/volumes', {'volume': {'size': 1}, 'OS-SCH-HNT:scheduler_hints': {}}).expect(202)


def test_metadata_that_somebody_else_changed(cloud, member, volume):
    path = f'/volumes/{volume(metadata={"a": "b"})["id"]}/metadata'
    tag = member.get(path).expect(200).headers['Etag']
    assert 'Etag' not in cloud.client(version='3.14').get(path).headers
    careful = cloud.client(**{'If-Match': f'"{tag}"'})
    careful.put(path, {'metadata': {'a': 'c'}}).expect(200)
    careful.put(path, {'metadata': {'a': 'd'}}).expect(412)
    careful.put(path + '/a', {'meta': {'a': 'd'}}).expect(412)
    cloud.client(version='3.14', **{'If-Match': tag}).put(path + '/a', {'meta': {'a': 'e'}}).expect(200)
    assert member.get(path).json == {'metadata': {'a': 'e'}} and member.get(path).headers['Etag'] != tag


def test_attachments_say_in_a_list_how_they_are_reached(cloud, member, volume):
    service = cloud.client(testing.SERVICE)
    for _ in range(2):
        service.post('/attachments', {'attachment': {'volume_uuid': volume()['id'], 'connector': {'host': 'h'}}}).expect(200)
    member.post('/attachments', {'attachment': {'volume_uuid': volume()['id']}}).expect(200)
    with db.count_queries() as queries:
        found = service.get('/attachments/detail?all_tenants=1').expect(200).json['attachments']
    assert len(queries) == 2, queries
    assert found[0]['connection_info'] == {} and found[1]['connection_info']['auth_password']
    assert found[1] == {**service.get('/attachments/' + found[1]['id']).json['attachment'], 'attached_host': 'h'}
    assert 'auth_password' not in member.get('/attachments/detail').json['attachments'][1]['connection_info']


def test_transfers_take_snapshots_along_that_are_ready(cloud, member, volume):
    made = volume()['id']
    member.post('/snapshots', {'snapshot': {'volume_id': made}}).expect(202)
    offer = {'transfer': {'volume_id': made, 'name': ' x '}}
    assert 'status must be available, but it is creating' in message(member.post('/volume-transfers', offer).expect(400))
    assert member.get('/volumes/' + made).json['volume']['status'] == 'available'
    cloud.settle()
    member.post('/os-volume-transfer', {'transfer': {**offer['transfer'], 'no_snapshots': True}}).expect(400)
    offered = member.post('/volume-transfers', offer).expect(202).json['transfer']
    assert offered['name'] == 'x'
    path = f'/volume-transfers/{offered["id"]}/accept'
    answer = cloud.client(testing.OTHER).post(path, {'accept': {}}).expect(400)
    assert message(answer) == "Invalid input for field/attribute accept: 'auth_key' is a required property"
    cloud.client(testing.OTHER).post(path, {'accept': {'auth_key': 7}}).expect(400)


def test_an_encrypted_volume_goes_with_its_snapshots(cloud, member, volume):
    made = volume()['id']
    with cloud.db.write() as connection:
        connection.execute(models.volumes.update().values(encrypted=True))
    path = '/volume-transfers'
    offer = {'volume_id': made, 'no_snapshots': True}
    assert 'with its snapshots' in message(member.post(path, {'transfer': offer}).expect(400))
    assert '3.70' in message(cloud.client(version='3.69').post(path, {'transfer': {'volume_id': made}}).expect(400))


def test_a_status_that_cannot_be_set(admin, volume):
    path = f'/volumes/{volume()["id"]}/action'
    answer = admin.post(path, {'os-reset_status': {'status': 'in-use'}}).expect(400)
    assert message(answer) == 'Cannot reset-state to in-use because volume does not have any attachments.'
    admin.post(path, {'os-reset_status': {'status': 'deleting'}}).expect(400)
    admin.post(path, {'os-reset_status': {'migration_status': 'nonsense'}}).expect(400)
    admin.post(path, {'os-reset_status': {'migration_status': 'none'}}).expect(202)


def test_the_default_type_stays(admin):
    kind = admin.get('/types/default').json['volume_type']['id']
    admin.post('/types', {'volume_type': {'name': 'other'}}).expect(200)
    assert 'is the default volume type and cannot be deleted' in message(admin.delete('/types/' + kind).expect(400))


def test_zones_that_are_none(cloud, member, admin, volume):
    kind = admin.post('/group_types', {'group_type': {'name': 'g'}}).json['group_type']['id']
    group = {'group_type': kind, 'volume_types': ['__DEFAULT__']}
    assert 'mars' in message(member.post('/groups', {'group': {**group, 'availability_zone': 'mars'}}).expect(400))
    made = volume()['id']
    assert 'mars' in message(member.post('/backups', {'backup': {'volume_id': made, 'availability_zone': 'mars'}}).expect(400))
    assert member.get('/volumes/' + made).json['volume']['status'] == 'available'
    in_zone = {'backup': {'volume_id': made, 'availability_zone': 'nova'}}
    cloud.client(version='3.50').post('/backups', in_zone).expect(400)
    member.post('/backups', in_zone).expect(202)


def test_replication_is_not_offered(cloud, member, admin):
    kind = admin.post('/group_types', {'group_type': {'name': 'g'}}).json['group_type']['id']
    group = member.post('/groups', {'group': {'group_type': kind, 'volume_types': ['__DEFAULT__']}}).json['group']['id']
    for action in ('enable_replication', 'disable_replication', 'failover_replication', 'list_replication_targets'):
        said = message(member.post(f'/groups/{group}/action', {action: {}}).expect(400))
        assert said.startswith('Invalid group type'), action
        said = message(cloud.client(version='3.37').post(f'/groups/{group}/action', {action: {}}).expect(400))
        assert said == f'There is no such action: {action}.'
    for path in ('/os-services/failover_host', '/os-services/failover'):
        assert 'has no replication target' in message(admin.put(path, {'host': 'one@file', 'backend_id': 'x'}).expect(400))
        assert 'no back end nowhere' in message(admin.put(path, {'host': 'nowhere'}).expect(400))
        admin.put(path, {}).expect(400)
    cloud.client(testing.ADMIN, '3.25').put('/os-services/failover', {'host': 'one@file'}).expect(404)


def test_freezing_twice(admin):
    admin.put('/os-services/thaw', {'host': 'one@file'}).expect(400)
    admin.put('/os-services/freeze', {'host': 'one@file#file'}).expect(200)
    assert message(admin.put('/os-services/freeze', {'host': 'one@file'}).expect(400)).endswith('frozen already.')
    admin.put('/os-services/freeze', {'cluster': 'c'}).expect(400)
    admin.put('/os-services/thaw', {'host': 'one@file'}).expect(200)


def test_clusters_there_are_none(cloud, admin, member):
    assert admin.get('/clusters').json == admin.get('/clusters/detail').json == {'clusters': []}
    assert message(admin.get('/clusters/c').expect(404)) == 'Cluster c could not be found.'
    admin.put('/clusters/enable', {'name': 'c'}).expect(404)
    admin.put('/clusters/disable', {'name': 'c', 'disabled_reason': 'x'}).expect(404)
    admin.put('/clusters/disable', {}).expect(400)
    member.get('/clusters/c').expect(403)
    cloud.client(testing.ADMIN, '3.6').get('/clusters').expect(404)


def test_cleaning_up(cloud, admin, member, volume):
    path = '/workers/cleanup'
    member.post(path, {}).expect(403)
    assert admin.post(path, {}).expect(202).json == {'cleaning': [], 'unavailable': []}
    here = admin.post(path, {'is_up': True}).json
    assert here['unavailable'] == [] and [(one['host'], one['binary'], one['cluster_name']) for one in here['cleaning']] == [
        ('one@file', 'cinder-volume', None)]
    number = here['cleaning'][0]['id']
    for sent, count in (({'host': 'one'}, 1), ({'host': 'two'}, 0), ({'binary': 'cinder-volume'}, 1), ({'disabled': True}, 0),
                        ({'binary': 'cinder-scheduler'}, 0), ({'service_id': number}, 1), ({'service_id': 1}, 0),
                        ({'cluster_name': 'c'}, 0), ({'resource_type': 'volume'}, 1)):
        assert len(admin.post(path, {'is_up': 'true', **sent}).expect(202).json['cleaning']) == count, sent
    for sent in ({'more': 1}, {'resource_type': 'backup'}, {'binary': 'cinder-backup'}, {'service_id': []}, {'resource_id': 'x'}):
        admin.post(path, sent).expect(400)
    made = volume()['id']
    assert 'pending cleanup' in message(admin.post(path, {'resource_id': made, 'is_up': True}).expect(400))
    member.post(f'/volumes/{made}/action', {'os-extend': {'new_size': 2}}).expect(202)
    assert len(admin.post(path, {'resource_id': made, 'resource_type': 'Volume', 'is_up': True}).json['cleaning']) == 1
    with cloud.db.write() as connection:
        connection.execute(models.services.update().values(forced_down=True))
    gone = admin.post(path, {'resource_id': made}).json
    assert gone['cleaning'] == [] and [one['host'] for one in gone['unavailable']] == ['one@file']
    cloud.settle()
    assert member.get('/volumes/' + made).json['volume']['size'] == 2


def test_filters_are_listed(cloud, member):
    found = {one['resource']: one['filters'] for one in member.get('/resource_filters').json['resource_filters']}
    assert set(found) == {'volume', 'backup', 'snapshot', 'group', 'group_snapshot', 'attachment', 'message', 'pool', 'volume_type'}
    for name, filters in found.items():
        if name not in ('pool', 'volume_type'):
            for one in filters:
                value = {'metadata': "{'a': 'b'}", 'bootable': 'true', 'size': '1', 'consumes_quota': 'true',
                         'created_at': '2026-01-01T00:00:00', 'updated_at': 'gt:2026-01-01T00:00:00'}.get(one, 'x')
                member.get(f'/{name}s?{one}={value}').expect(200)
    assert member.get('/resource_filters?resource=none').json == {'resource_filters': []}
    cloud.client(version='3.32').get('/resource_filters').expect(404)


def test_a_change_of_nothing(cloud, member, volume):
    path = '/volumes/' + volume()['id']
    assert message(member.put(path, {'volume': {}}).expect(400)).startswith('Invalid input for field/attribute volume')
    assert cloud.client(version='3.52').put(path, {'volume': {}}).expect(200).json['volume']['name'] == 'data'


def test_types_by_specs_that_one_sees(cloud, member, admin):
    specs = {'multiattach': '<is> True', 'volume_backend_name': 'file'}
    admin.post('/types', {'volume_type': {'name': 'shared', 'extra_specs': specs}}).expect(200)

    def found(who, text):
        return [one['name'] for one in who.get('/types?extra_specs=' + text).expect(200).json['volume_types']]
    assert found(member, "{'multiattach': '<is> True'}") == found(admin, "{'volume_backend_name': 'file'}") == ['shared']
    assert found(member, "{'volume_backend_name': 'file'}") == []
    assert len(found(cloud.client(version='3.51'), "{'multiattach': '<is> True'}")) == 2


def test_pools_by_what_is_no_filter(cloud, admin):
    admin.get('/scheduler-stats/get_pools?nonsense=1').expect(400)
    cloud.client(testing.ADMIN, '3.30').get('/scheduler-stats/get_pools?nonsense=1').expect(200)
    assert admin.get('/scheduler-stats/get_pools?name=one@file%23file&detail=false').json['pools'] == [{'name': 'one@file#file'}]


def test_nothing_is_taken_on_where_nobody_answers(cloud, admin, volume):
    made = volume()['id']
    where = {'host': 'one@file#file', 'ref': {'source-name': 'x'}}
    admin.put('/os-services/disable', {'host': 'one@file', 'binary': 'cinder-volume'}).expect(200)
    assert 'is disabled' in message(admin.post('/manageable_volumes', {'volume': where}).expect(400))
    admin.put('/os-services/enable', {'host': 'one@file', 'binary': 'cinder-volume'}).expect(200)
    with cloud.db.write() as connection:
        connection.execute(models.backends.update().values(seen_at=db.utcnow().replace(year=2000)))
    assert 'does not answer' in message(admin.post('/manageable_volumes', {'volume': where}).expect(400))
    assert 'does not answer' in message(admin.get('/manageable_volumes?host=one@file%23file').expect(400))
    answer = admin.post('/manageable_snapshots', {'snapshot': {'volume_id': made, 'ref': {'source-name': 'x'}}}).expect(400)
    assert 'does not answer' in message(answer) and cloud.all(models.snapshots) == []
