"""Flavors, key pairs, hosts, services, aggregates, quotas and the rest that servers stand on."""
import time

import pytest

from kodiak.common import testing
from kodiak.compute import models

KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBv3uZOYpgW1QEyS5kkmSTZvv2MGpLJ3qkrnm1sJw0gs someone'


@pytest.fixture
def admin(as_):
    return as_(testing.ADMIN)


@pytest.fixture
def member(as_):
    return as_(testing.MEMBER)


def test_flavors(admin, member, as_):
    sent = {'name': 'one', 'id': '42', 'ram': 128, 'vcpus': 1, 'disk': 1, 'swap': 64, 'OS-FLV-EXT-DATA:ephemeral': 2,
            'rxtx_factor': 1.5,
            'description': 'd'}
    made = admin.post('/flavors', {'flavor': sent}).expect(200).json['flavor']
    assert made.items() >= sent.items() and made['os-flavor-access:is_public'] and made['extra_specs'] == {}
    assert as_(testing.MEMBER, '2.1').get('/flavors/42').json['flavor']['swap'] == 64
    for change, status in (({}, 409), ({'id': '43'}, 409), ({'name': 'two', 'ram': 0}, 400), ({'name': 'two', 'vcpus': 'x'}, 400),
                           ({'name': '', 'id': 'x'}, 400), ({'name': 'two', 'rxtx_factor': 0}, 400), ({'name': 'two', 'id': ' x'},
                                                                                                      400)):
        admin.post('/flavors', {'flavor': {**sent, **change}}).expect(status)
    assert len(admin.post('/flavors', {'flavor': {**sent, 'id': 'auto', 'name': 'auto'}}).json['flavor']['id']) == 36
    admin.put('/flavors/42', {'flavor': {'description': None}}).expect(200)
    assert [flavor['name'] for flavor in member.get('/flavors?sort_key=name&minRam=100&minDisk=1').json['flavors']] == ['auto',
                                                                                                                        'one']
    page = member.get('/flavors/detail?limit=1').json
    assert len(page['flavors']) == 1 and 'marker=' in page['flavors_links'][0]['href']
    for bad in ('minRam=x', 'limit=-1', 'marker=none', 'is_public=maybe'):
        (admin if 'public' in bad else member).get('/flavors?' + bad).expect(400)
    member.get('/flavors/none').expect(404)
    admin.delete('/flavors/42').expect(202)
    member.get('/flavors/42').expect(404)


def test_private_flavors_and_extra_specs(admin, member, as_):
    admin.post('/flavors', {'flavor': {'name': 'p', 'id': 'p', 'ram': 1, 'vcpus': 1, 'disk': 0,
                                       'os-flavor-access:is_public': False}})
    member.get('/flavors/p').expect(404)
    assert [flavor['id'] for flavor in admin.get('/flavors?is_public=false').json['flavors']] == ['p']
    assert [flavor['id'] for flavor in admin.get('/flavors?is_public=none').json['flavors']] == ['p']
    member.post('/flavors/p/action', {'addTenantAccess': {'tenant': testing.PROJECT}}).expect(403)
    access = admin.post('/flavors/p/action', {'addTenantAccess': {'tenant': testing.PROJECT}}).expect(200).json['flavor_access']
    assert access == [{'flavor_id': 'p', 'tenant_id': testing.PROJECT}]
    admin.post('/flavors/p/action', {'addTenantAccess': {'tenant': testing.PROJECT}}).expect(409)
    assert [flavor['id'] for flavor in member.get('/flavors').json['flavors']] == ['p']
    as_(testing.OTHER).get('/flavors/p').expect(404)
    admin.post('/flavors/p/os-extra_specs', {'extra_specs': {'hw:numa_nodes': '1', 'a': 2}}).expect(200)
    assert member.get('/flavors/p/os-extra_specs').json['extra_specs'] == {'hw:numa_nodes': '1', 'a': '2'}
    admin.put('/flavors/p/os-extra_specs/a', {'a': '3'}).expect(200)
    admin.put('/flavors/p/os-extra_specs/a', {'b': '3'}).expect(400)
    admin.post('/flavors/p/os-extra_specs', {'extra_specs': {'k/x': '1'}}).expect(400)
    assert member.get('/flavors/p/os-extra_specs/a').json == {'a': '3'}
    admin.delete('/flavors/p/os-extra_specs/a').expect(200)
    member.get('/flavors/p/os-extra_specs/a').expect(404)
    admin.post('/flavors/p/action', {'removeTenantAccess': {'tenant': testing.PROJECT}}).expect(200)
    admin.post('/flavors/p/action', {'removeTenantAccess': {'tenant': testing.PROJECT}}).expect(404)
    member.get('/flavors/p').expect(404)


def test_keypairs(member, as_, admin):
    made = member.post('/os-keypairs', {'keypair': {'name': 'k', 'public_key': KEY}}).expect(201).json['keypair']
    assert made['fingerprint'].count(':') == 15 and made['type'] == 'ssh' and 'private_key' not in made
    member.post('/os-keypairs', {'keypair': {'name': 'k', 'public_key': KEY}}).expect(409)
    for bad in ({'name': 'k/x', 'public_key': KEY}, {'name': 'x', 'public_key': 'ssh-rsa nonsense'}, {'name': 'x'}, {'name': ''},
                {'name': 'x', 'type': 'x509', 'public_key': KEY}):
        member.post('/os-keypairs', {'keypair': bad}).expect(400)
    old = as_(testing.MEMBER, '2.1')
    generated = old.post('/os-keypairs', {'keypair': {'name': 'g'}}).expect(200).json['keypair']
    assert 'PRIVATE KEY' in generated['private_key'] and generated['public_key'].startswith('ssh-rsa ') and 'type' not in generated
    x509 = as_(testing.MEMBER, '2.2').post('/os-keypairs', {'keypair': {'name': 'x', 'type': 'x509'}}).expect(201).json['keypair']
    assert 'BEGIN CERTIFICATE' in x509['public_key']
    assert [entry['keypair']['name'] for entry in member.get('/os-keypairs').json['keypairs']] == ['g', 'k', 'x']
    page = member.get('/os-keypairs?limit=2').json
    assert len(page['keypairs']) == 2 and 'marker=k' in page['keypairs_links'][0]['href']
    assert member.get('/os-keypairs/k').json['keypair']['user_id'] == testing.MEMBER.user_id
    assert admin.get('/os-keypairs/k?user_id=' + testing.MEMBER.user_id).expect(200)
    admin.get('/os-keypairs/k').expect(404)
    as_(testing.OTHER).get('/os-keypairs?user_id=' + testing.MEMBER.user_id).expect(403)
    member.delete('/os-keypairs/k').expect(204)
    old.delete('/os-keypairs/g').expect(202)
    member.delete('/os-keypairs/k').expect(404)
    admin.put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'key_pairs': 1}}).expect(200)
    assert 'too many key pairs' in member.post('/os-keypairs', {'keypair': {'name': 'k',
                                                                            'public_key': KEY}}).expect(403).data.decode()


def test_hypervisors_and_services(cloud, boot, admin, as_):
    boot()
    old = as_(testing.ADMIN, '2.1')
    hypervisor, = admin.get('/os-hypervisors').json['hypervisors']
    assert (hypervisor['hypervisor_hostname'], hypervisor['state'], hypervisor['status']) == ('one', 'up', 'enabled')
    path = '/os-hypervisors/' + hypervisor['id']
    assert admin.get(path + '?with_servers=true').json['hypervisor']['servers'][0]['name'].startswith('instance-0')
    middle = as_(testing.ADMIN, '2.87').get(path).json['hypervisor']
    assert (middle['running_vms'], middle['vcpus_used'], middle['service']['host']) == (1, 1, 'one')
    number = old.get('/os-hypervisors').json['hypervisors'][0]['id']
    assert isinstance(old.get(f'/os-hypervisors/{number}').json['hypervisor']['cpu_info'], str)
    assert 'day' in old.get(f'/os-hypervisors/{number}/uptime').json['hypervisor']['uptime']
    assert old.get('/os-hypervisors/statistics').json['hypervisor_statistics']['running_vms'] == 1
    assert len(old.get('/os-hypervisors/on/servers').json['hypervisors'][0]['servers']) == 1
    old.get('/os-hypervisors/zzz/search').expect(404)
    admin.get('/os-hypervisors?hypervisor_hostname_pattern=zzz').expect(404)
    admin.get(path + '/uptime').expect(404)
    service, = admin.get('/os-services?binary=nova-compute').json['services']
    assert (service['binary'], service['zone'], service['state'], service['forced_down']) == ('nova-compute', 'nova', 'up', False)
    changed = admin.put('/os-services/' + service['id'], {'status': 'disabled', 'disabled_reason': 'r'}).json['service']
    assert (changed['status'], changed['disabled_reason']) == ('disabled', 'r')
    admin.put('/os-services/' + service['id'], {'status': 'enabled', 'disabled_reason': 'r'}).expect(400)
    body = {'host': 'one', 'binary': 'nova-compute'}
    assert old.put('/os-services/enable', body).json == {'service': {**body, 'status': 'enabled'}}
    assert as_(testing.ADMIN, '2.11').put('/os-services/force-down', {**body,
                                                                      'forced_down': True}).json['service']['forced_down'] is True
    assert admin.get('/os-services').json['services'][0]['state'] == 'down'
    old.put('/os-services/disable', {**body, 'host': 'x'}).expect(404)
    admin.delete('/os-services/' + service['id']).expect(409)
    assert old.get('/os-hosts').json['hosts'][0] == {'host_name': 'one', 'service': 'compute', 'zone': 'nova'}
    assert old.get('/os-hosts/one').json['host'][1]['resource']['cpu'] == 1
    old.get('/os-hosts/one/reboot').expect(501)
    as_(testing.ADMIN, '2.43').get('/os-hosts').expect(404)


def test_a_host_can_be_forgotten_and_comes_back(cloud, admin):
    service, = admin.get('/os-services').json['services']
    admin.delete('/os-services/' + service['id']).expect(204)
    assert cloud.all(models.hosts) == [] and cloud.all(models.placement.providers) == []
    cloud.agent._send_resources()
    assert len(admin.get('/os-hypervisors').json['hypervisors']) == 1


def test_aggregates_and_zones(cloud, boot, admin, member):
    made = admin.post('/os-aggregates', {'aggregate': {'name': 'a', 'availability_zone': 'east'}}).expect(200).json['aggregate']
    path = f'/os-aggregates/{made["id"]}'
    admin.post('/os-aggregates', {'aggregate': {'name': 'a'}}).expect(409)
    admin.post(path + '/action', {'add_host': {'host': 'none'}}).expect(404)
    assert admin.post(path + '/action', {'add_host': {'host': 'one'}}).expect(200).json['aggregate']['hosts'] == ['one']
    admin.post(path + '/action', {'add_host': {'host': 'one'}}).expect(409)
    assert [zone['zoneName'] for zone in member.get('/os-availability-zone').json['availabilityZoneInfo']] == ['east']
    detail = {zone['zoneName']: zone['hosts'] for zone in admin.get('/os-availability-zone/detail').json['availabilityZoneInfo']}
    assert detail['east']['one']['nova-compute']['available'] is True
    member.get('/os-availability-zone/detail').expect(403)
    other = admin.post('/os-aggregates', {'aggregate': {'name': 'b', 'availability_zone': 'west'}}).json['aggregate']['id']
    admin.post(f'/os-aggregates/{other}/action', {'add_host': {'host': 'one'}}).expect(409)
    boot()
    admin.put(path, {'aggregate': {'availability_zone': 'north'}}).expect(400)
    found = admin.post(path + '/action', {'set_metadata': {'metadata': {'k': 'v'}}}).json['aggregate']
    assert found['metadata'] == {'k': 'v', 'availability_zone': 'east'}
    assert admin.post(path + '/action', {'set_metadata': {'metadata': {'k': None}}}).json['aggregate']['metadata'] == {
        'availability_zone': 'east'}
    admin.delete(path).expect(400)
    assert admin.post(path + '/action', {'remove_host': {'host': 'one'}}).json['aggregate']['hosts'] == []
    admin.post(path + '/action', {'remove_host': {'host': 'one'}}).expect(404)
    admin.delete(path).expect(200)
    for missing in (path, '/os-aggregates/-1', '/os-aggregates/x'):
        admin.get(missing).expect(404)


def test_hosts_of_an_aggregate_fetch_images_ahead(make_cloud):
    cloud = make_cloud(hosts=('one', 'two'))
    admin = cloud.client(testing.ADMIN)
    made = admin.post('/os-aggregates', {'aggregate': {'name': 'a'}}).json['aggregate']['id']
    admin.post(f'/os-aggregates/{made}/action', {'add_host': {'host': 'two'}}).expect(200)
    image, queued = cloud.image.add(), cloud.image.add(status='queued')

    def ask(*ids, status):
        return admin.post(f'/os-aggregates/{made}/images', {'cache': [{'id': one} for one in ids]}).expect(status)
    ask(image, status=202)
    deadline = time.monotonic() + 20
    while not cloud.agent.drivers['two'].fetched and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (cloud.agent.drivers['one'].fetched, cloud.agent.drivers['two'].fetched) == ([], [image])
    for wrong in ((image, image), (queued,), ('00000000-1111-2222-3333-444444444444',)):
        ask(*wrong, status=400)
    cloud.client(testing.ADMIN, '2.80').post(f'/os-aggregates/{made}/images', {'cache': [{'id': image}]}).expect(404)


def test_limits_of_a_user_hold_beside_those_of_the_project(admin, member, cloud, flavor, image):
    path, mine = '/os-quota-sets/' + testing.PROJECT, '?user_id=' + testing.MEMBER.user_id
    admin.put(path, {'quota_set': {'instances': 3, 'cores': 9}}).expect(200)
    assert admin.put(path + mine, {'quota_set': {'instances': 1}}).expect(200).json['quota_set']['instances'] == 1
    assert [admin.get(path + which).json['quota_set']['instances'] for which in ('', mine, '?user_id=other')] == [3, 1, 3]
    assert 'less than or equal to 3' in admin.put(path + mine, {'quota_set': {'instances': 4}}).expect(400).json[
        'badRequest']['message']
    admin.put(path + mine, {'quota_set': {'server_groups': 1}}).expect(400)
    colleague = cloud.client(testing.Persona('8' * 32, testing.PROJECT, ('member', 'reader')))

    def boot(client, status):
        sent = {'name': 'x', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none'}
        return client.post('/servers', {'server': sent}).expect(status).json
    server = boot(member, 202)['server']['id']
    assert 'already used 1 of 1 instances' in boot(member, 403)['forbidden']['message']
    boot(colleague, 202)
    assert admin.get(path + '/detail' + mine).json['quota_set']['instances'] == {'limit': 1, 'in_use': 1, 'reserved': 0}
    assert admin.get(path + '/detail').json['quota_set']['instances'] == {'limit': 3, 'in_use': 2, 'reserved': 0}
    cloud.settle()
    admin.put(path + mine, {'quota_set': {'cores': 1}}).expect(200)
    bigger = admin.post('/flavors', {'flavor': {'name': 'big', 'ram': 128, 'vcpus': 2, 'disk': 1}}).json['flavor']['id']
    assert '1 cores' in member.post(f'/servers/{server}/action', {'resize': {'flavorRef': bigger}}).expect(403).json[
        'forbidden']['message']
    admin.delete(path + mine).expect(202)
    boot(member, 202)
    admin.put(path + mine, {'quota_set': {'instances': 2}}).expect(200)
    admin.delete(path).expect(202)
    assert admin.get(path + mine).json['quota_set']['instances'] == 10


def test_a_projects_limit_of_metadata_holds(admin, member, cloud, flavor, image):
    admin.put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'metadata_items': 1}}).expect(200)
    sent = {'name': 'x', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', 'metadata': {'a': '1', 'b': '2'}}
    assert 'at most 1' in member.post('/servers', {'server': sent}).expect(403).json['forbidden']['message']
    made = member.post('/servers', {'server': {**sent, 'metadata': {'a': '1'}}}).expect(202).json['server']['id']
    cloud.settle()
    member.post(f'/servers/{made}/metadata', {'metadata': {'b': '2'}}).expect(403)


def test_quotas(cloud, admin, member, as_):
    path = '/os-quota-sets/' + testing.PROJECT
    assert member.get(path).json['quota_set']['instances'] == 10 and 'fixed_ips' not in member.get(path).json['quota_set']
    assert as_(testing.MEMBER, '2.1').get(path).json['quota_set']['security_groups'] == -1
    assert admin.put(path, {'quota_set': {'instances': 3}}).json['quota_set']['instances'] == 3
    admin.put('/os-quota-class-sets/default', {'quota_class_set': {'instances': 7}}).expect(200)
    assert member.get(path).json['quota_set']['instances'] == 3
    assert member.get(path + '/defaults').json['quota_set']['instances'] == 7
    assert as_(testing.OTHER).get('/os-quota-sets/' + testing.OTHER_PROJECT).json['quota_set']['instances'] == 7
    assert member.get(path + '/detail').json['quota_set']['cores'] == {'limit': 20, 'in_use': 0, 'reserved': 0}
    for bad in ({'instances': -2}, {'instances': 'x'}, {'fixed_ips': 1}, {'nothing': 1}):
        admin.put(path, {'quota_set': bad}).expect(400)
    member.get('/os-quota-sets/' + testing.OTHER_PROJECT).expect(403)
    admin.delete(path).expect(202)
    assert member.get(path).json['quota_set']['instances'] == 7


def test_groups(cloud, member, as_, admin):
    made = member.post('/os-server-groups', {'server_group': {'name': 'g', 'policy': 'anti-affinity', 'rules': {
        'max_server_per_host': 2}}}).expect(200).json['server_group']
    assert made['rules'] == {'max_server_per_host': 2} and made['members'] == [] and made['project_id'] == testing.PROJECT
    old = as_(testing.MEMBER, '2.1').get('/os-server-groups/' + made['id']).json['server_group']
    assert old['policies'] == ['anti-affinity'] and old['metadata'] == {}
    for bad in ({'name': 'g'}, {'name': 'g', 'policy': 'x'}, {'name': 'g', 'policies': ['affinity']},
                {'name': 'g', 'policy': 'affinity', 'rules': {'max_server_per_host': 2}}):
        member.post('/os-server-groups', {'server_group': bad}).expect(400)
    as_(testing.OTHER).get('/os-server-groups/' + made['id']).expect(404)
    assert admin.get('/os-server-groups').json['server_groups'] == []
    assert len(admin.get('/os-server-groups?all_projects').json['server_groups']) == 1
    member.delete('/os-server-groups/' + made['id']).expect(204)
    member.get('/os-server-groups/' + made['id']).expect(404)


def test_usage_and_the_other_reports(cloud, boot, admin, member):
    server = boot()
    with cloud.db.write() as connection:
        row = cloud.row(server['id'])
        connection.execute(models.servers.update().values(launched_at=row['launched_at'].replace(year=2020)))
    period = 'start=2020-01-01T00:00:00&end=2040-01-01T00:00:00'
    found = member.get(f'/os-simple-tenant-usage/{testing.PROJECT}?{period}').json['tenant_usage']
    assert found['total_hours'] > 8760 and found['server_usages'][0]['instance_id'] == server['id']
    assert len(admin.get('/os-simple-tenant-usage?start=2020-01-01T00:00:00&detailed=1').json['tenant_usages']) == 1
    member.get('/os-simple-tenant-usage').expect(403)
    member.get(f'/os-simple-tenant-usage/{testing.PROJECT}?start=never').expect(400)
    log = admin.get('/os-instance_usage_audit_log').expect(200).json['instance_usage_audit_logs']
    assert (log['overall_status'], log['hosts_not_run']) == ('0 of 1 hosts done. 0 errors.', ['one'])
    admin.get('/os-instance_usage_audit_log/x').expect(400)
    assert member.get('/extensions').json['extensions'] and member.get('/extensions/os-keypairs').expect(200)
    member.get('/extensions/none').expect(404)
    assert admin.get('/os-migrations').json == {'migrations': []}


def test_data_of_a_server(boot, member, as_):
    path = '/servers/' + boot(metadata={'a': '1'})['id']
    assert member.post(path + '/metadata', {'metadata': {'b': '2'}}).expect(200).json['metadata'] == {'a': '1', 'b': '2'}
    assert member.put(path + '/metadata', {'metadata': {'c': '3'}}).json['metadata'] == {'c': '3'}
    assert member.put(path + '/metadata/c', {'meta': {'c': '4'}}).json == {'meta': {'c': '4'}}
    member.put(path + '/metadata/c', {'meta': {'d': '4'}}).expect(400)
    member.put(path + '/metadata/c', {'meta': {'c': 5}}).expect(400)
    member.delete(path + '/metadata/c').expect(204)
    member.get(path + '/metadata/c').expect(404)
    assert member.put(path + '/tags', {'tags': ['x', 'y']}).json == {'tags': ['x', 'y']}
    member.put(path + '/tags/z').expect(201)
    member.put(path + '/tags/z').expect(204)
    member.get(path + '/tags/z').expect(204)
    member.delete(path + '/tags/x').expect(204)
    member.delete(path + '/tags/x').expect(404)
    assert member.get('/servers?tags=y,z').json['servers']
    member.put(path + '/tags/' + 'x' * 61).expect(400)
    as_(testing.MEMBER, '2.25').get(path + '/tags').expect(404)
    member.delete(path + '/tags').expect(204)
    assert member.get(path).json['server']['tags'] == []
    assert member.put(path, {'server': {'name': 'new', 'accessIPv4': '1.2.3.4'}}).json['server']['name'] == 'new'
    for bad in ({'name': ''}, {'accessIPv4': 'x'}, {'unknown': 1}, {'name': 'x' * 256}):
        member.put(path, {'server': bad}).expect(400)
    assert member.get(path + '/os-server-password').json == {'password': ''}
    assert member.get(path + '/topology').json['nodes'] == []
    assert member.get(path + '/os-volume_attachments').json == {'volumeAttachments': []}


def test_versions_and_documents(cloud, member):
    from kodiak.common import testing as harness
    from kodiak.compute.api import versions
    found = harness.Client(versions.ROOT.application(cloud.app)).get('/').expect(200).json['versions']
    assert [(version['id'], version['status']) for version in found] == [('v2.0', 'SUPPORTED'), ('v2.1', 'CURRENT')]
    shown = harness.Client(cloud.pipelines['/v2.1']).get('/').expect(200).json['version']
    assert (shown['version'], shown['min_version']) == ('2.96', '2.1') and isinstance(shown['links'], list)
    document = harness.Client(cloud.pipelines['/v2.1']).get('/openapi.json').expect(200).json
    assert '/servers' in document['paths'] or '/v2.1/servers' in document['paths']
