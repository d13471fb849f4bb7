"""What operators see and do: quotas, services, hosts, pools, zones, messages, what lies on back ends, moving volumes."""
import logging

import pytest

from kodiak.common import testing
from kodiak.storage_block import models


def backend(name, **more):
    return {'name': name, 'driver': 'file', 'protocol': 'iSCSI', 'vendor': 'Kodiak', 'zone': 'nova', 'total_gb': 100.0,
            'free_gb': 90.0, 'thin': True, 'max_over_subscription_ratio': 1.0, 'multiattach': True, 'error': None,
            'capabilities': {}, **more}


def test_quotas(admin, member, volume):
    path = '/os-quota-sets/' + testing.PROJECT
    assert admin.get(path).json['quota_set']['volumes'] == 10
    volume(size=3)
    used = member.get(path + '?usage=true').expect(200).json['quota_set']
    assert used['gigabytes'] == {'limit': 1000, 'in_use': 3, 'reserved': 0} and used['gigabytes___DEFAULT__']['in_use'] == 3
    member.put(path, {'quota_set': {'volumes': 1}}).expect(403)
    assert admin.put(path, {'quota_set': {'volumes': 1, 'per_volume_gigabytes': 5}}).expect(200).json['quota_set']['volumes'] == 1
    member.post('/volumes', {'volume': {'size': 1}}).expect(413)
    admin.put(path, {'quota_set': {'volumes': 50, 'gigabytes___DEFAULT__': 4}}).expect(200)
    member.post('/volumes', {'volume': {'size': 6}}).expect(413)
    member.post('/volumes', {'volume': {'size': 2}}).expect(413)
    member.post('/volumes', {'volume': {'size': 1}}).expect(202)
    admin.put(path, {'quota_set': {'nonsense': 1}}).expect(400)
    admin.put(path, {'quota_set': {'volumes': 'x'}}).expect(400)
    admin.delete(path).expect(200)
    assert admin.get(path).json['quota_set']['volumes'] == 10
    assert admin.put('/os-quota-class-sets/default', {'quota_class_set': {'volumes': 7}}).expect(200).json[
        'quota_class_set']['volumes'] == 7
    assert admin.get(path + '/defaults').json['quota_set']['volumes'] == 7 and admin.get(path).json['quota_set']['volumes'] == 7
    assert member.get('/limits').json['limits']['absolute']['maxTotalVolumes'] == 7


def test_services(cloud, admin, member, volume):
    member.get('/os-services').expect(403)
    found = admin.get('/os-services').expect(200).json['services']
    assert {(one['binary'], one['host'], one['state']) for one in found} == {
        ('cinder-volume', 'one@file', 'up'), ('cinder-backup', 'one', 'up')}
    assert len(admin.get('/os-services?host=one&binary=cinder-volume').json['services']) == 1
    where = {'host': 'one@file', 'binary': 'cinder-volume'}
    assert admin.put('/os-services/disable', where).expect(200).json['status'] == 'disabled'
    made = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    cloud.settle()
    assert 'is enabled' in cloud.all(models.messages)[0]['text'] and made
    admin.put('/os-services/disable-log-reason', where).expect(400)
    admin.put('/os-services/disable-log-reason', {**where, 'disabled_reason': 'why'}).expect(200)
    assert admin.put('/os-services/enable', where).expect(200).json['disabled_reason'] is None
    admin.put('/os-services/enable', {**where, 'host': 'nowhere'}).expect(404)
    admin.put('/os-services/freeze', {'host': 'nowhere'}).expect(400)
    admin.put('/os-services/freeze', {'host': 'one@file'}).expect(200)
    assert admin.get('/os-services?binary=cinder-volume').json['services'][0]['frozen'] is True
    admin.put('/os-services/thaw', {'host': 'one@file'}).expect(200)
    admin.put('/os-services/failover_host', {'host': 'one@file'}).expect(400)
    assert volume()['status'] == 'available'


def test_hosts_pools_capabilities_zones(admin, member, volume):
    volume(size=2)
    assert {one['service'] for one in admin.get('/os-hosts').json['hosts']} == {'cinder-volume', 'cinder-backup'}
    total, mine = admin.get('/os-hosts/one@file').expect(200).json['host']
    assert total['resource']['volume_count'] == '1' and mine['resource']['total_volume_gb'] == '2'
    admin.get('/os-hosts/nowhere').expect(404)
    assert admin.get('/scheduler-stats/get_pools').json == {'pools': [{'name': 'one@file#file'}]}
    pool = admin.get('/scheduler-stats/get_pools?detail=true').json['pools'][0]['capabilities']
    assert pool['volume_backend_name'] == 'file' and pool['free_capacity_gb'] == 90.0 and pool['allocated_capacity_gb'] == 2
    said = admin.get('/capabilities/one@file').expect(200).json
    assert said['storage_protocol'] == 'iSCSI' and said['properties']['multiattach']['type'] == 'boolean'
    assert member.get('/os-availability-zone').json['availabilityZoneInfo'] == [{'zoneName': 'nova',
                                                                                 'zoneState': {'available': True}}]
    assert admin.get('/clusters').json == {'clusters': []}
    assert 'volume' in {one['resource'] for one in member.get('/resource_filters').json['resource_filters']}


def test_messages(cloud, admin, member):
    kind = admin.post('/types', {'volume_type': {'name': 't', 'extra_specs': {'vendor_name': 'nobody'}}}).json['volume_type']['id']
    made = member.post('/volumes', {'volume': {'size': 1, 'volume_type': kind}}).json['volume']['id']
    cloud.settle()
    message = member.get('/messages?resource_uuid=' + made).expect(200).json['messages'][0]
    assert message['event_id'] == 'VOLUME_VOLUME_001_002' and message['user_message'].startswith('schedule allocate volume:')
    assert 'The nearest lacks vendor_name.' in message['user_message']
    assert member.get('/messages?event_id=VOLUME_VOLUME_001_002').json['messages'][0]['id'] == message['id']
    cloud.client(testing.OTHER).get('/messages/' + message['id']).expect(404)
    member.delete('/messages/' + message['id']).expect(204)
    member.get('/messages/' + message['id']).expect(404)


def test_taken_on_and_let_go(cloud, admin, member):
    cloud.agent.manageable = [{'reference': {'source-name': 'old'}, 'size': 2}]
    listed = admin.get('/manageable_volumes?host=one@file%23file').expect(200).json['manageable-volumes']
    assert listed == [{'reference': {'source-name': 'old'}, 'size': 2, 'safe_to_manage': True}]
    admin.get('/manageable_volumes').expect(400)
    body = {'host': 'one@file#file', 'ref': {'source-name': 'old'}, 'name': 'n'}
    admin.post('/os-volume-manage', {'volume': {**body, 'ref': {'nonsense': '1'}}}).expect(400)
    admin.post('/os-volume-manage', {'volume': {**body, 'host': 'x@y'}}).expect(400)
    made = admin.post('/os-volume-manage', {'volume': body}).expect(202).json['volume']
    cloud.settle()
    shown = admin.get('/volumes/' + made['id']).json['volume']
    assert shown['status'] == 'available' and shown['size'] == 2
    snapshot = admin.post('/manageable_snapshots', {'snapshot': {
        'volume_id': made['id'], 'ref': {'source-name': 's'}}}).expect(202).json['snapshot']['id']
    cloud.settle()
    assert admin.get('/snapshots/' + snapshot).json['snapshot']['status'] == 'available'
    admin.post(f'/volumes/{made["id"]}/action', {'os-unmanage': {}}).expect(409)
    admin.post(f'/snapshots/{snapshot}/action', {'os-unmanage': {}}).expect(202)
    cloud.settle()
    admin.post(f'/volumes/{made["id"]}/action', {'os-unmanage': {}}).expect(202)
    cloud.settle()
    admin.get('/volumes/' + made['id']).expect(404)
    assert cloud.agent.there == set()


@pytest.fixture
def two(make_cloud):
    return make_cloud(hosts={'one': [backend('a'), backend('b', free_gb=50.0)], 'two': [backend('c', free_gb=20.0)]})


def settled(cloud):
    for _ in range(3):
        cloud.settle()
        cloud.hurry()


def test_moved_within_a_host_and_to_another(two):
    admin, member = two.client(testing.ADMIN), two.client()
    made = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    two.settle()

    def where():
        return admin.get('/volumes/' + made).json['volume']['os-vol-host-attr:host']
    assert where() == 'one@a#a'
    path = f'/volumes/{made}/action'
    admin.post(path, {'os-migrate_volume': {'host': 'one@a#a'}}).expect(400)
    admin.post(path, {'os-migrate_volume': {'host': 'one@b#b'}}).expect(202)
    settled(two)
    assert where() == 'one@b#b' and two.agents['one'].there == {f'b/volume-{made}'}
    admin.post(path, {'os-migrate_volume': {'host': 'two@c#c'}}).expect(202)
    settled(two)
    assert where() == 'two@c#c' and two.agents['one'].there == set() and two.agents['one'].exports == {}
    shown = admin.get('/volumes/' + made).json['volume']
    assert shown['status'] == 'available' and shown['migration_status'] == 'success'
    source = next(args['source'] for kind, args in two.agents['two'].done if kind == 'create_volume')
    assert source['type'] == 'connection' and source['connection']['data']['auth_password']
    assert member.get('/attachments').json['attachments'] == []


def test_a_move_that_fails(two):
    admin, member = two.client(testing.ADMIN), two.client()
    made = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    two.settle()
    two.agents['two'].fails['create_volume'] = 'No.'
    admin.post(f'/volumes/{made}/action', {'os-migrate_volume': {'host': 'two@c#c'}}).expect(202)
    settled(two)
    shown = admin.get('/volumes/' + made).json['volume']
    assert shown['status'] == 'available' and shown['migration_status'] == 'error' and shown['os-vol-host-attr:host'] == 'one@a#a'
    assert two.agents['one'].exports == {} and two.agents['two'].there == set()


def test_retyped(two):
    admin, member = two.client(testing.ADMIN), two.client()
    for name, specs in (('here', {}), ('there', {'volume_backend_name': 'c'})):
        admin.post('/types', {'volume_type': {'name': name, 'extra_specs': specs}}).expect(200)
    made = member.post('/volumes', {'volume': {'size': 1}}).json['volume']['id']
    two.settle()
    path = f'/volumes/{made}/action'
    member.post(path, {'os-retype': {'new_type': '__DEFAULT__'}}).expect(400)
    member.post(path, {'os-retype': {'new_type': 'nonsense'}}).expect(404)
    member.post(path, {'os-retype': {'new_type': 'here'}}).expect(202)
    assert member.get('/volumes/' + made).json['volume']['status'] == 'retyping'
    settled(two)
    shown = member.get('/volumes/' + made).json['volume']
    assert shown['status'] == 'available' and shown['volume_type'] == 'here'
    member.post(path, {'os-retype': {'new_type': 'there', 'migration_policy': 'never'}}).expect(202)
    settled(two)
    assert member.get('/volumes/' + made).json['volume']['volume_type'] == 'here'
    member.post(path, {'os-retype': {'new_type': 'there', 'migration_policy': 'on-demand'}}).expect(202)
    settled(two)
    shown = admin.get('/volumes/' + made).json['volume']
    assert shown['volume_type'] == 'there' and shown['os-vol-host-attr:host'] == 'two@c#c'
    assert shown['migration_status'] == 'success'


def test_retyped_to_one_that_is_encrypted(cloud, admin, member, volume):
    kind = admin.post('/types', {'volume_type': {'name': 'secret'}}).json['volume_type']['id']
    admin.post(f'/types/{kind}/encryption', {'encryption': {'provider': 'luks', 'control_location': 'front-end'}}).expect(200)
    made = volume()
    member.post(f'/volumes/{made["id"]}/action', {'os-retype': {'new_type': 'secret'}}).expect(202)
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert shown['encrypted'] is True and shown['volume_type'] == 'secret'
    kind, args = cloud.agent.done[-1]
    assert kind == 'retype_volume' and args['old_encryption'] is None and args['new_encryption']['key_id']
    assert [row['id'] for row in cloud.all(models.keys)] == [args['new_encryption']['key_id']]


def test_what_compute_tells_of_volumes_that_it_moves(admin, member, volume):
    old, new = volume(), volume()
    path = f'/volumes/{old["id"]}/action'
    assert admin.post(path, {'os-migrate_volume_completion': {'new_volume': new['id'], 'error': False}}).expect(200).json == {
        'save_volume_id': new['id']}
    admin.post(path, {'os-migrate_volume_completion': {'new_volume': '9f1b3a5e-0000-4000-8000-000000000000'}}).expect(404)
    member.post(path, {'os-migrate_volume_completion': {'new_volume': new['id']}}).expect(403)
    admin.post(path, {'os-extend_volume_completion': {'error': False}}).expect(400)


def test_a_type_of_some_zones(make_cloud):
    cloud = make_cloud(hosts={'one': [backend('near')], 'two': [backend('far', zone='az2', free_gb=9)]})
    admin, member = cloud.client(testing.ADMIN), cloud.client()
    admin.post('/types', {'volume_type': {'name': 'fast', 'extra_specs': {'RESKEY:availability_zones': 'az2, az3'}}}).expect(200)
    told = member.post('/volumes', {'volume': {'size': 1, 'volume_type': 'fast', 'availability_zone': 'nova'}}).expect(400)
    assert 'az2, az3' in told.json['badRequest']['message']
    for more in ({}, {'availability_zone': 'az2'}):
        made = member.post('/volumes', {'volume': {'size': 1, 'volume_type': 'fast', **more}}).expect(202).json['volume']['id']
        cloud.settle()
        shown = admin.get(f'/volumes/{made}').json['volume']
        assert (shown['status'], shown['availability_zone'], shown['os-vol-host-attr:host']) == ('available', 'az2', 'two@far#far')


def test_an_attached_volume_keeps_the_limits_that_its_guest_has(cloud, admin, member, volume):
    qos = admin.post('/qos-specs', {'qos_specs': {'name': 'q', 'consumer': 'front-end', 'total_iops_sec': '5'}}).json['qos_specs']
    for name in ('limited', 'free'):
        kind = admin.post('/types', {'volume_type': {'name': name}}).json['volume_type']['id']
        if name == 'limited':
            admin.get(f'/qos-specs/{qos["id"]}/associate?vol_type_id={kind}').expect(202)
    made = volume()
    path = f'/volumes/{made["id"]}/action'
    member.post(path, {'os-attach': {'instance_uuid': made['id'], 'mountpoint': '/dev/vdb'}}).expect(202)
    told = member.post(path, {'os-retype': {'new_type': 'limited'}}).expect(400)
    assert 'QoS' in told.json['badRequest']['message']
    member.post(path, {'os-retype': {'new_type': 'free'}}).expect(202)
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert (shown['status'], shown['volume_type']) == ('in-use', 'free')


def test_what_is_managed_already_is_listed_too(cloud, admin, volume):
    cloud.agent.manageable = [{'reference': {'source-name': 'zebra'}, 'size': 3}, {'reference': {'source-name': 'ant'}, 'size': 5}]
    made = volume()
    path = '/manageable_volumes?host=one@file%23file'
    found = admin.get(path).expect(200).json['manageable-volumes']
    assert [one['reference']['source-name'] for one in found] == ['ant', f'volume-{made["id"]}', 'zebra']
    assert [one['safe_to_manage'] for one in found] == [True, False, True]
    found = admin.get(path.replace('?', '/detail?') + '&sort=size:desc').expect(200).json['manageable-volumes']
    assert [one['size'] for one in found] == [5, 3, 1]
    assert (found[2]['cinder_id'], found[2]['reason_not_safe']) == (made['id'], 'already managed')
    admin.get(path + '&sort=age').expect(400)


def test_what_services_log(cloud, admin, member):
    logger = logging.getLogger('kodiak.storage_block.attach')
    try:
        found = admin.put('/os-services/get-log', {'prefix': 'kodiak.storage_block'}).expect(200).json['log_levels']
        assert {(one['binary'], one['host']) for one in found} >= {
            ('cinder-api', 'one'), ('cinder-volume', 'one@file'), ('cinder-backup', 'one')}
        assert all(name.startswith('kodiak.storage_block') for one in found for name in one['levels'])
        one = {'binary': 'cinder-volume', 'server': 'one@file', 'prefix': logger.name}
        admin.put('/os-services/set-log', {**one, 'level': 'debug'}).expect(202)
        told, = admin.put('/os-services/get-log', {**one, 'server': 'one'}).expect(200).json['log_levels']
        assert told['levels'] == {logger.name: 'DEBUG'}
        admin.put('/os-services/set-log', {'level': 'loud'}).expect(400)
        admin.put('/os-services/set-log', {'level': 'INFO', 'binary': 'nova-api'}).expect(400)
        member.put('/os-services/get-log', {}).expect(403)
        cloud.client(testing.ADMIN, version='3.31').put('/os-services/get-log', {}).expect(404)
    finally:
        logger.setLevel(logging.NOTSET)
