"""What POST /servers takes and refuses, and what a server with ports is."""
import base64

import pytest
import sqlalchemy as sa

from kodiak.common import db, testing
from kodiak.compute import models, placement, store


@pytest.fixture
def member(as_):
    return as_(testing.MEMBER)


@pytest.fixture
def post(cloud, as_, flavor, image):
    def run(status=202, version='2.96', persona=testing.MEMBER, top=None, **fields):
        sent = {'name': 'server', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **fields}
        sent = {name: value for name, value in sent.items() if value is not ...}
        return as_(persona, version).post('/servers', {'server': sent, **(top or {})}).expect(status)
    return run


def message(answer):
    return next(iter(answer.json.values()))['message']


def test_bad_requests_name_the_field(post, cloud, flavor):
    for field, value in (('name', ''), ('name', ' x'), ('name', 'x' * 256), ('flavorRef', ...), ('networks', 'all'), ('networks',
                                                                                                                      ...),
                         ('metadata', {'x' * 256: 'y'}), ('metadata', {'x': 'y' * 256}), ('accessIPv4', '1.2.3'), ('accessIPv6',
                                                                                                                   '1.2.3.4'),
                         ('user_data', '%%%'), ('min_count', 0), ('config_drive', 'x'), ('tags', ['a,b']), ('personality', []),
                         ('hostname', '-x'), ('unknown', 1)):
        assert field in message(post(400, **{field: value})), field
    assert 'min_count' in message(post(400, min_count=3, max_count=2))
    assert 'flavor' in message(post(400, flavorRef='none')).lower()
    assert 'key_name' in message(post(400, key_name='none'))
    assert 'zone' in message(post(400, availability_zone='mars'))
    assert 'image' in message(post(400, imageRef='00000000-0000-0000-0000-000000000000'))
    assert 'imageRef' in message(post(400, imageRef='not-an-id'))
    post(400, imageRef=..., block_device_mapping_v2=[{'boot_index': 0, 'source_type': 'volume', 'destination_type': 'volume',
                                                      'uuid': '00000000-0000-0000-0000-000000000000'}])
    post(400, imageRef='')
    big = cloud.image.add(min_ram=4096)
    assert 'memory is too small' in message(post(400, imageRef=big))
    assert 'disk' in message(post(400, imageRef=cloud.image.add(min_disk=5)))
    assert 'disk' in message(post(400, imageRef=cloud.image.add(size=5 * 2 ** 30)))
    assert 'not active' in message(post(400, imageRef=cloud.image.add(status='queued')))
    assert cloud.all(models.servers) == []


def test_fields_of_later_microversions_are_refused_earlier(post):
    for field, value, version in (('description', 'x', '2.18'), ('tags', ['a'], '2.51'), ('host', 'one', '2.73'), ('hostname',
                                                                                                                   'xx', '2.89')):
        assert field in message(post(400, version=version, **{field: value}))
    post(400, version='2.36', networks='none')
    post(202, version='2.56', personality=[{'path': '/x', 'contents': base64.b64encode(b'x').decode()}])


def test_quotas(post, as_, cloud):
    as_(testing.ADMIN).put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'instances': 3, 'cores': 2}}).expect(200)
    assert 'cores' in message(post(403, min_count=3))
    post(202, min_count=1, max_count=10)
    assert len(cloud.all(models.servers)) == 2
    assert 'Quota exceeded' in message(post(403))
    post(202, persona=testing.OTHER)
    used = as_(testing.MEMBER).get('/limits').json['limits']['absolute']
    assert (used['totalInstancesUsed'], used['totalCoresUsed'], used['maxTotalCores']) == (2, 2, 2)


def test_many_at_once(post, cloud, as_):
    answer = post(202, min_count=3, return_reservation_id=True, name='many')
    cloud.settle()
    found = as_(testing.MEMBER).get('/servers/detail?reservation_id=' + answer.json['reservation_id']).json['servers']
    assert sorted(server['name'] for server in found) == ['many-1', 'many-2', 'many-3']
    assert {server['status'] for server in found} == {'ACTIVE'}


def test_what_was_asked_for_is_shown(cloud, boot, as_):
    as_(testing.MEMBER).post('/os-keypairs', {'keypair': {'name': 'k', 'public_key': KEY}}).expect(201)
    server = boot(name='Ein Name', description='d', metadata={'a': 'b'}, tags=['t'], key_name='k', accessIPv4='1.2.3.4',
                  user_data=base64.b64encode(b'#!/bin/sh').decode(), config_drive=True)
    assert (server['description'], server['metadata'], server['tags'], server['key_name']) == ('d', {'a': 'b'}, ['t'], 'k')
    assert server['accessIPv4'] == '1.2.3.4' and server['config_drive'] == 'True'
    assert server['OS-EXT-SRV-ATTR:hostname'] == 'ein-name' and 'OS-EXT-SRV-ATTR:host' not in server
    shown = as_(testing.ADMIN).get('/servers/' + server['id']).json['server']
    assert shown['OS-EXT-SRV-ATTR:host'] == 'one' and shown['host_status'] == 'UP' and shown['OS-EXT-SRV-ATTR:user_data']
    old = as_(testing.MEMBER, '2.1').get('/servers/' + server['id']).json['server']
    assert not {'description', 'tags', 'locked', 'host_status', 'server_groups', 'OS-EXT-SRV-ATTR:hostname'} & set(old)
    assert set(old['flavor']) == {'id', 'links'}
    told = cloud.handlers.host_state(None, {'one': 0})['one']['instances'][0]['spec']
    assert told['public_key'] == KEY and told['config_drive'] is True and told['admin_password'] is None


KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBv3uZOYpgW1QEyS5kkmSTZvv2MGpLJ3qkrnm1sJw0gs someone'


# Networks

def test_a_server_with_ports(cloud, boot, member):
    net = cloud.network.add_network()
    server = boot(networks=[{'uuid': net, 'tag': 'nic'}])
    port, = cloud.network.ports.values()
    assert (port['binding:host_id'], port['device_owner'], port['device_id']) == ('one', 'compute:nova', server['id'])
    address = port['fixed_ips'][0]['ip_address']
    assert server['addresses'] == {'private': [{'version': 4, 'addr': address, 'OS-EXT-IPS:type': 'fixed',
                                                'OS-EXT-IPS-MAC:mac_addr': port['mac_address']}]}
    told = cloud.handlers.host_state(None, {'one': 0})['one']['instances'][0]['spec']['ports'][0]
    assert (told['tap'], told['mtu'], told['fixed_ips'][0]['cidr'], told['fixed_ips'][0]['gateway']) == (
        'tap' + port['id'][:11], 1450, '10.0.0.0/24', '10.0.0.1')
    assert [found['id'] for found in member.get('/servers?ip=' + address).json['servers']] == [server['id']]
    assert member.get('/servers?ip=10.0.0.9$').json['servers'] == []
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    assert cloud.network.ports == {}


def test_the_guest_waits_for_its_wires(cloud, boot, as_):
    cloud.network.wires = False
    net = cloud.network.add_network()
    server = boot(networks=[{'uuid': net}])
    assert (server['status'], server['OS-EXT-STS:task_state']) == ('BUILD', 'networking') and cloud.all(models.guests) == []
    port, = cloud.network.ports.values()
    port['status'] = 'ACTIVE'
    event = {'name': 'network-vif-plugged', 'server_uuid': server['id'], 'tag': port['id'], 'status': 'completed'}
    assert as_(testing.MEMBER).post('/os-server-external-events', {'events': [event]}).status == 403
    as_(testing.SERVICE).post('/os-server-external-events', {'events': [event]}).expect(200)
    cloud.settle()
    assert as_(testing.MEMBER).get('/servers/' + server['id']).json['server']['status'] == 'ACTIVE'


def test_the_only_network_is_taken_and_several_are_ambiguous(cloud, post, boot):
    cloud.network.add_network(project=testing.OTHER_PROJECT)
    cloud.network.add_network(name='outside', shared=True, **{'router:external': True})
    cloud.network.networks.popitem()
    net = cloud.network.add_network()
    server = boot(networks='auto')
    assert list(server['addresses']) == ['private'] and next(iter(cloud.network.ports.values()))['network_id'] == net
    cloud.network.add_network(name='second')
    assert 'more specific' in message(post(409, networks='auto'))


def test_ports_of_the_owner_come_and_go(cloud, boot, member, post):
    net = cloud.network.add_network()
    port = cloud.network.make_port({'network_id': net, 'project_id': testing.PROJECT})[1]['port']
    server = boot(networks=[{'port': port['id']}])
    assert port['device_id'] == server['id'] and port['binding:host_id'] == 'one'
    assert 'in use' in message(post(409, networks=[{'port': port['id']}]))
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    assert list(cloud.network.ports) == [port['id']] and port['device_id'] == '' and port['binding:host_id'] == ''


def test_networks_that_cannot_be(cloud, post):
    net = cloud.network.add_network()
    for networks in ([{'uuid': '00000000-0000-0000-0000-000000000000'}], [{'port': '00000000-0000-0000-0000-000000000000'}],
                     [{'uuid': net, 'fixed_ip': 'x'}], [{'uuid': net, 'fixed_ip': '10.0.0.5'}] * 1, [{}]):
        post(400, networks=networks, max_count=2)
    cloud.network.networks[net]['subnets'] = []
    assert 'requires a subnet' in message(post(400, networks=[{'uuid': net}]))
    outside = cloud.network.add_network(project=testing.OTHER_PROJECT, **{'router:external': True})
    assert 'external network' in message(post(403, networks=[{'uuid': outside}]))


def test_security_groups(cloud, boot, post, member):
    net = cloud.network.add_network()
    for number in (1, 2):
        cloud.network.groups[f'g{number}'] = {'id': f'g{number}', 'name': 'web', 'project_id': testing.PROJECT, 'description': '',
                                              'security_group_rules': []}
    assert 'Multiple' in message(post(409, networks=[{'uuid': net}], security_groups=[{'name': 'web'}]))
    assert 'not found' in message(post(400, networks=[{'uuid': net}], security_groups=[{'name': 'none'}]))
    server = boot(networks=[{'uuid': net}], security_groups=[{'name': 'g1'}])
    assert server['security_groups'] == [{'name': 'web'}]
    assert next(iter(cloud.network.ports.values()))['security_groups'] == ['g1']
    path = f'/servers/{server["id"]}'
    member.post(path + '/action', {'addSecurityGroup': {'name': 'g2'}}).expect(202)
    assert next(iter(cloud.network.ports.values()))['security_groups'] == ['g1', 'g2']
    assert [group['id'] for group in member.get(path + '/os-security-groups').json['security_groups']] == ['g1', 'g2']
    member.post(path + '/action', {'removeSecurityGroup': {'name': 'g2'}}).expect(202)
    member.post(path + '/action', {'removeSecurityGroup': {'name': 'g2'}}).expect(404)
    member.post(path + '/action', {'addSecurityGroup': {'name': 'none'}}).expect(404)


def test_changed_addresses_are_shown(cloud, boot, as_, member):
    net = cloud.network.add_network()
    server = boot(networks=[{'uuid': net}])
    port, = cloud.network.ports.values()
    cloud.network.floatingips['f'] = {'id': 'f', 'port_id': port['id'], 'fixed_ip_address': port['fixed_ips'][0]['ip_address'],
                                      'floating_ip_address': '172.24.4.9', 'floating_network_id': 'x'}
    as_(testing.SERVICE).post('/os-server-external-events', {'events': [
        {'name': 'network-changed', 'server_uuid': server['id'], 'tag': port['id']}]}).expect(200)
    cloud.settle()
    shown = member.get('/servers/' + server['id']).json['server']
    assert [(entry['addr'], entry['OS-EXT-IPS:type']) for entry in shown['addresses']['private']] == [
        (port['fixed_ips'][0]['ip_address'], 'fixed'), ('172.24.4.9', 'floating')]
    assert member.get(f'/servers/{server["id"]}/ips/private').json['private'][1] == {'version': 4, 'addr': '172.24.4.9'}


def test_events_for_servers_that_are_not_there(as_):
    answer = as_(testing.SERVICE).post('/os-server-external-events', {'events': [
        {'name': 'network-changed', 'server_uuid': '00000000-0000-0000-0000-000000000000'}]})
    assert answer.status == 404 and answer.json['events'][0]['code'] == 404


# No host

def test_a_refused_boot_says_why(cloud, boot, as_):
    big = as_(testing.ADMIN).post('/flavors', {'flavor': {'name': 'big', 'ram': 2 ** 25, 'vcpus': 1,
                                                          'disk': 1}}).json['flavor']['id']
    as_(testing.ADMIN).put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'ram': -1}}).expect(200)
    server = boot(flavorRef=big)
    assert server['status'] == 'ERROR' and server['fault']['code'] == 500
    assert 'No valid host was found' in server['fault']['message'] and 'MEMORY_MB' in server['fault']['message']
    assert 'details' not in server['fault']
    with cloud.db.write() as connection:
        connection.execute(models.services.update().values(disabled=True))
    server = boot()
    assert '1 dropped by disabled' in server['fault']['message']
    assert as_(testing.ADMIN).get('/servers/' + server['id']).json['server']['fault']['details']


def test_another_host_is_tried(make_cloud, monkeypatch):
    from kodiak.compute.drivers import base
    from kodiak.compute.drivers.fake import FakeDriver
    cloud = make_cloud(hosts=('one', 'two', 'three'))
    admin = cloud.client(testing.ADMIN)
    flavor = admin.post('/flavors', {'flavor': {'name': 'x', 'ram': 1, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    broken = set()

    def build(self, instance, record):
        if len(broken) < 2 or self.host in broken:
            broken.add(self.host)
            raise base.Fault('no-disk-space', 'The disk is full.')
    monkeypatch.setattr(FakeDriver, 'build', build)
    net = cloud.network.add_network(project=testing.ADMIN.project_id)
    uuid = admin.post('/servers', {'server': {'name': 's', 'flavorRef': flavor, 'imageRef': cloud.image.add(),
                                              'networks': [{'uuid': net}]}}).json['server']['id']
    for _ in range(60):
        cloud.turn()
        cloud.agent.reconciler._due.update(dict.fromkeys(cloud.agent.reconciler._due, 0.0))
        cloud.hurry()
    row = cloud.row(uuid)
    assert row['vm_state'] == 'active' and row['host'] not in broken and len(broken) == 2, row['fault']
    assert [guest['host'] for guest in cloud.all(models.guests)] == [row['host']] and len(cloud.network.ports) == 1
    with cloud.db.read() as connection:
        assert len(placement.allocations(connection, uuid)) == 1
        assert connection.scalar(sa.select(sa.func.sum(models.placement.allocations.c.used)).where(
            models.placement.allocations.c.resource_class == 'VCPU')) == 1


def test_groups_zones_and_hints(make_cloud):
    cloud = make_cloud(hosts=('one', 'two', 'three'))
    admin = cloud.client(testing.ADMIN)
    flavor = admin.post('/flavors', {'flavor': {'name': 'x', 'ram': 1, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    image = cloud.image.add()

    def boot(hints=None, **fields):
        sent = {'name': 's', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **fields}
        uuid = admin.post('/servers', {'server': sent, 'os:scheduler_hints': hints or {}}).expect(202).json['server']['id']
        cloud.settle()
        return uuid, cloud.row(uuid)

    admin.put('/os-quota-sets/' + testing.ADMIN.project_id, {'quota_set': {'instances': -1, 'cores': -1}}).expect(200)

    def group(policy, **rules):
        return admin.post('/os-server-groups', {'server_group': {'name': policy, 'policy': policy, 'rules': rules}}).json[
            'server_group']['id']
    apart = group('anti-affinity')
    assert {boot({'group': apart})[1]['host'] for _ in range(3)} == {'one', 'two', 'three'}
    assert 'anti-affinity' in boot({'group': apart})[1]['fault']['message']
    together = group('affinity')
    assert len({boot({'group': together})[1]['host'] for _ in range(4)}) == 1
    soft = group('soft-anti-affinity')
    assert {boot({'group': soft})[1]['host'] for _ in range(3)} == {'one', 'two', 'three'}
    assert boot({'group': soft})[1]['vm_state'] == 'active'
    assert len(admin.get('/os-server-groups/' + soft).json['server_group']['members']) == 4
    first, row = boot()
    assert boot({'same_host': first})[1]['host'] == row['host'] and boot({'different_host': [first]})[1]['host'] != row['host']
    assert boot(host='two')[1]['host'] == 'two' and boot(availability_zone='nova:three')[1]['host'] == 'three'
    aggregate = admin.post('/os-aggregates', {'aggregate': {'name': 'a', 'availability_zone': 'east'}}).json['aggregate']['id']
    admin.post(f'/os-aggregates/{aggregate}/action', {'add_host': {'host': 'two'}}).expect(200)
    uuid, row = boot(availability_zone='east')
    assert row['host'] == 'two'
    assert admin.get('/servers/' + uuid).json['server']['OS-EXT-AZ:availability_zone'] == 'east'
    assert boot(availability_zone='nova')[1]['host'] != 'two'
    admin.post(f'/os-aggregates/{aggregate}/action', {'set_metadata': {'metadata': {'disk': 'ssd'}}}).expect(200)
    fast = admin.post('/flavors', {'flavor': {'name': 'fast', 'ram': 1, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    admin.post(f'/flavors/{fast}/os-extra_specs', {'extra_specs': {'aggregate_instance_extra_specs:disk': 'ssd'}}).expect(200)
    assert boot(flavorRef=fast)[1]['host'] == 'two'
    admin.put(f'/flavors/{fast}/os-extra_specs/trait:HW_CPU_X86_AVX', {'trait:HW_CPU_X86_AVX': 'required'}).expect(200)
    assert boot(flavorRef=fast)[1]['vm_state'] == 'error'


def test_query_counts_and_requests(cloud, as_, flavor, image):
    net = cloud.network.add_network()
    member = as_(testing.MEMBER)
    sent = {'name': 's', 'flavorRef': flavor, 'imageRef': image, 'networks': [{'uuid': net}]}
    member.post('/servers', {'server': sent}).expect(202)
    cloud.image.calls.clear(), cloud.network.calls.clear()
    with db.count_queries() as queries:
        uuid = member.post('/servers', {'server': sent}).expect(202).json['server']['id']
    assert len(cloud.image.calls) + len(cloud.network.calls) <= 3 and len(queries) <= 14, queries
    cloud.settle()
    cloud.network.calls.clear(), cloud.image.calls.clear()
    for path, most in ((f'/servers/{uuid}', 2), ('/servers', 3), ('/servers/detail', 3), ('/flavors/detail', 3),
                       (f'/flavors/{flavor}', 2),
                       ('/os-keypairs', 3), (f'/servers/{uuid}/os-interface', 2), (f'/servers/{uuid}/metadata', 2)):
        with db.count_queries() as queries:
            member.get(path).expect(200)
        assert len(queries) <= most, (path, queries)
    for path, most in (('/servers/detail?all_tenants=1', 3), ('/os-hypervisors/detail', 3), ('/os-services', 3), ('/os-aggregates',
                                                                                                                  3)):
        with db.count_queries() as queries:
            as_(testing.ADMIN).get(path).expect(200)
        assert len(queries) <= most, (path, queries)
    assert cloud.network.calls == [] and cloud.image.calls == []


def test_a_boot_takes_few_statements(cloud, boot):
    boot()
    with db.count_queries() as queries:
        boot()
    # Peers take 398 for it.
    assert len(queries) <= 110, len(queries)


def test_a_password_is_forgotten_once_the_guest_was_built(cloud, boot):
    server = boot(adminPass='secret')
    with cloud.db.read() as connection:
        assert store.spec(connection, server['id'])['admin_password'] is None
