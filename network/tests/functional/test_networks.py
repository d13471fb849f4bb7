"""Networks, subnets and subnet pools: what may be asked for, and what is said where it may not."""
import pytest

from kodiak.common import testing


def kind(answer, status):
    return answer.expect(status).json['NeutronError']['type']


def test_provider_attributes_are_the_administrators(member, admin, make):
    member.post('/networks', {'network': {'provider:network_type': 'vxlan'}}).expect(403)
    member.post('/networks', {'network': {'router:external': True}}).expect(403)
    member.post('/networks', {'network': {'shared': True}}).expect(403)
    flat = {'provider:network_type': 'flat', 'provider:physical_network': 'public'}
    made = make(admin, 'network', **flat)
    assert made['provider:segmentation_id'] is None and made['mtu'] == 1500
    assert kind(admin.post('/networks', {'network': flat}), 409) == 'FlatNetworkInUse'
    tunnel = make(admin, 'network', **{'provider:network_type': 'vxlan', 'provider:segmentation_id': 77})
    assert tunnel['provider:segmentation_id'] == 77
    assert kind(admin.post('/networks', {'network': {'provider:network_type': 'vxlan', 'provider:segmentation_id': 77}}),
                409) == 'TunnelIdInUse'
    for bad in ({'provider:network_type': 'vlan'}, {'provider:network_type': 'flat'}, {'provider:segmentation_id': 5},
                {'provider:network_type': 'vxlan', 'provider:segmentation_id': 2 ** 24},
                {'provider:network_type': 'vxlan', 'provider:physical_network': 'public'},
                {'provider:network_type': 'local', 'provider:segmentation_id': 1}):
        assert kind(admin.post('/networks', {'network': bad}), 400) == 'InvalidInput'
    admin.delete('/networks/' + made['id']).expect(204)
    make(admin, 'network', **flat)


def test_identifiers_run_out_and_come_back(service, member, make):
    service.runtime.conf.set_override('vni_range', '10:12', group='network')
    made = [make(member, 'network') for _ in range(3)]
    assert kind(member.post('/networks', {'network': {}}), 503) == 'NoNetworkAvailable'
    member.delete('/networks/' + made[1]['id']).expect(204)
    make(member, 'network')


def test_sharing(member, admin, as_, make, net):
    other = as_(testing.OTHER)
    shared, subnet = net(admin, '10.8.0.0/24', {'shared': True})
    assert other.get('/networks/' + shared['id']).expect(200).json['network']['shared'] is True
    assert other.get('/subnets/' + subnet['id']).expect(200)
    other.put('/networks/' + shared['id'], {'network': {'name': 'mine'}}).expect(403)
    other.delete('/networks/' + shared['id']).expect(403)
    other.post('/subnets', {'subnet': {'network_id': shared['id'], 'cidr': '10.9.0.0/24', 'ip_version': 4}}).expect(403)
    port = make(other, 'port', network_id=shared['id'])
    other.post('/ports', {'port': {'network_id': shared['id'], 'mac_address': 'fa:16:3e:00:00:09'}}).expect(403)
    other.post('/ports', {'port': {'network_id': shared['id'], 'fixed_ips': [{'ip_address': '10.8.0.9'}]}}).expect(403)
    other.post('/ports', {'port': {'network_id': shared['id'], 'port_security_enabled': False}}).expect(403)
    other.post('/ports', {'port': {'network_id': shared['id'], 'device_owner': 'network:dhcp'}}).expect(403)
    assert kind(admin.put('/networks/' + shared['id'], {'network': {'shared': False}}), 409) == 'InvalidSharedSetting'
    other.delete('/ports/' + port['id']).expect(204)
    admin.put('/networks/' + shared['id'], {'network': {'shared': False}}).expect(200)
    other.get('/networks/' + shared['id']).expect(404)
    member.get('/networks/' + shared['id']).expect(404)


def test_rbac_policies(member, as_, admin, make, net):
    other = as_(testing.OTHER)
    network, _ = net(member)
    body = {
        'object_type': 'network',
        'object_id': network['id'],
        'action': 'access_as_shared',
        'target_tenant': testing.OTHER_PROJECT,
    }
    policy = make_policy(member, body)
    assert other.get('/networks/' + network['id']).json['network']['shared'] is True
    assert member.get('/networks/' + network['id']).json['network']['shared'] is False
    member.post('/rbac-policies', {'rbac_policy': body}).expect(409)
    member.post('/rbac-policies', {'rbac_policy': {**body, 'target_tenant': '*'}}).expect(403)
    other.post('/rbac-policies', {'rbac_policy': {**body, 'target_tenant': 'c' * 32}}).expect(404)
    member.post('/rbac-policies', {'rbac_policy': {**body, 'action': 'nonsense'}}).expect(400)
    other.get('/rbac-policies/' + policy['id']).expect(404)
    port = make(other, 'port', network_id=network['id'])
    assert kind(member.delete('/rbac-policies/' + policy['id']), 409) == 'InvalidSharedSetting'
    other.delete('/ports/' + port['id']).expect(204)
    member.delete('/rbac-policies/' + policy['id']).expect(204)
    other.get('/networks/' + network['id']).expect(404)
    wide = make_policy(admin, {**body, 'target_tenant': '*'})
    assert as_(testing.READER).get('/networks/' + network['id']).json['network']['shared'] is True
    admin.delete('/rbac-policies/' + wide['id']).expect(204)
    outside = make_policy(admin, {**body, 'action': 'access_as_external', 'target_tenant': '*'})
    assert other.get('/networks/' + network['id']).json['network']['router:external'] is True
    admin.delete('/rbac-policies/' + outside['id']).expect(204)
    assert member.get('/networks/' + network['id']).json['network']['router:external'] is False


def make_policy(client, body):
    return client.post('/rbac-policies', {'rbac_policy': body}).expect(201).json['rbac_policy']


@pytest.mark.parametrize(('values', 'status', 'type_'), [
    ({'cidr': '10.0.0.0/24', 'ip_version': 6}, 400, 'InvalidInput'),
    ({'cidr': 'nonsense', 'ip_version': 4}, 400, 'HTTPBadRequest'),
    ({'ip_version': 4}, 400, 'BadRequest'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 5}, 400, 'HTTPBadRequest'),
    ({'cidr': '10.0.0.0/32', 'ip_version': 4}, 400, 'InvalidInput'),
    ({'cidr': '224.0.0.0/24', 'ip_version': 4}, 400, 'InvalidInput'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'gateway_ip': '10.0.0.255'}, 400, 'InvalidInput'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'gateway_ip': 'fd00::1'}, 400, 'InvalidInput'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'allocation_pools': [{'start': '10.0.0.9', 'end': '10.0.0.5'}]}, 400,
     'InvalidAllocationPool'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'allocation_pools': [{'start': '10.0.0.9', 'end': '10.0.1.5'}]}, 400,
     'OutOfBoundsAllocationPool'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'allocation_pools': [{'start': '10.0.0.1', 'end': '10.0.0.5'}]}, 409,
     'GatewayConflictWithAllocationPools'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'allocation_pools': [
        {'start': '10.0.0.5', 'end': '10.0.0.9'}, {'start': '10.0.0.7', 'end': '10.0.0.20'}]}, 409, 'OverlappingAllocationPools'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'ipv6_ra_mode': 'slaac'}, 400, 'InvalidInput'),
    ({'cidr': 'fd00::/64', 'ip_version': 6, 'ipv6_ra_mode': 'slaac', 'ipv6_address_mode': 'dhcpv6-stateful'}, 400, 'InvalidInput'),
    ({'cidr': 'fd00::/80', 'ip_version': 6, 'ipv6_ra_mode': 'slaac'}, 400, 'InvalidInput'),
    ({'cidr': 'fd00::/64', 'ip_version': 6, 'ipv6_ra_mode': 'slaac', 'enable_dhcp': False}, 400, 'InvalidInput'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'dns_nameservers': ['nonsense']}, 400, 'HTTPBadRequest'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'dns_nameservers': ['1.1.1.1', '1.1.1.1']}, 400, 'HTTPBadRequest'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'dns_nameservers': [f'1.1.1.{n}' for n in range(6)]}, 400, 'DNSNameServersExhausted'),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'host_routes': [{'destination': '10.1.0.0/24'}]}, 400, None),
    ({'cidr': '10.0.0.0/24', 'ip_version': 4, 'host_routes': [{'destination': 'x', 'nexthop': '10.0.0.3'}]}, 400, 'HTTPBadRequest'),
])
def test_subnets_that_make_no_sense(member, make, values, status, type_):
    network = make(member, 'network')
    found = kind(member.post('/subnets', {'subnet': {'network_id': network['id'], **values}}), status)
    assert type_ in (None, found)
    assert member.get('/networks/' + network['id']).json['network']['subnets'] == []


def test_subnets_of_a_network_do_not_overlap(member, make, net):
    network, _ = net(member)
    body = {'network_id': network['id'], 'cidr': '10.0.0.128/25', 'ip_version': 4}
    assert kind(member.post('/subnets', {'subnet': body}), 400) == 'InvalidInput'
    make(member, 'subnet', **{**body, 'cidr': '10.0.1.0/24'})
    net(member)         # another network may have the same addresses


def test_changing_a_subnet(member, make, net):
    network, subnet = net(member)
    path = '/subnets/' + subnet['id']
    changed = member.put(path, {'subnet': {
        'name': 'new', 'dns_nameservers': ['192.0.2.1'], 'enable_dhcp': False,
        'host_routes': [{'destination': '10.5.0.0/16', 'nexthop': '10.0.0.9'}]}}).expect(200).json['subnet']
    assert changed['name'] == 'new' and changed['host_routes'] == [{'destination': '10.5.0.0/16', 'nexthop': '10.0.0.9'}]
    assert kind(member.put(path, {'subnet': {'gateway_ip': '10.0.0.5'}}), 409) == 'GatewayConflictWithAllocationPools'
    changed = member.put(path, {'subnet': {'gateway_ip': None}}).expect(200).json['subnet']
    assert changed['gateway_ip'] is None
    member.put(path, {'subnet': {'cidr': '10.0.1.0/24'}}).expect(400)
    port = make(member, 'port', network_id=network['id'])
    assert kind(member.delete(path), 409) == 'SubnetInUse'
    assert kind(member.delete('/networks/' + network['id']), 409) == 'NetworkInUse'
    member.delete('/ports/' + port['id']).expect(204)
    member.delete(path).expect(204)
    assert member.get('/networks/' + network['id']).json['network']['subnets'] == []


def test_subnet_pools(member, admin, as_, make):
    pool = make(member, 'subnetpool', name='p', prefixes=['10.20.0.0/16', '10.21.0.0/16'], default_prefixlen=24, min_prefixlen=20)
    assert pool['prefixes'] == ['10.20.0.0/15'] and pool['ip_version'] == 4 and pool['max_prefixlen'] == 32
    cidrs = []
    for values in ({}, {'prefixlen': 22}, {}, {'cidr': '10.21.7.0/24'}):
        network = make(member, 'network')
        cidrs.append(make(member, 'subnet', network_id=network['id'], subnetpool_id=pool['id'], ip_version=4, **values)['cidr'])
    assert cidrs == ['10.20.0.0/24', '10.20.4.0/22', '10.20.1.0/24', '10.21.7.0/24']
    network = make(member, 'network')
    body = {'network_id': network['id'], 'subnetpool_id': pool['id'], 'ip_version': 4}
    assert kind(member.post('/subnets', {'subnet': {**body, 'prefixlen': 8}}), 400) == 'MinPrefixSubnetAllocationError'
    assert kind(member.post('/subnets', {'subnet': {**body, 'cidr': '10.21.7.0/25'}}), 400) == 'SubnetAllocationError'
    assert kind(member.post('/subnets', {'subnet': {**body, 'ip_version': 6}}), 400) == 'BadRequest'
    assert kind(member.delete('/subnetpools/' + pool['id']), 400) == 'SubnetPoolDeleteError'
    assert kind(member.put('/subnetpools/' + pool['id'], {'subnetpool': {'prefixes': ['10.20.0.0/16']}}),
                400) == 'IllegalSubnetPoolPrefixUpdate'
    found = member.put(f"/subnetpools/{pool['id']}/add_prefixes", {'prefixes': ['10.30.0.0/16']}).expect(200).json
    assert found == {'prefixes': ['10.20.0.0/15', '10.30.0.0/16']}
    member.put(f"/subnetpools/{pool['id']}/remove_prefixes", {'prefixes': ['10.20.0.0/16']}).expect(400)
    found = member.put(f"/subnetpools/{pool['id']}/remove_prefixes", {'prefixes': ['10.30.0.0/16']}).expect(200).json
    assert found == {'prefixes': ['10.20.0.0/15']}
    as_(testing.OTHER).get('/subnetpools/' + pool['id']).expect(404)
    small = make(member, 'subnetpool', name='s', prefixes=['10.40.0.0/24'], default_prefixlen=25, default_quota=256)
    for _ in range(2):
        make(member, 'subnet', network_id=make(member, 'network')['id'], subnetpool_id=small['id'], ip_version=4)
    assert kind(member.post('/subnets', {'subnet': {**body, 'subnetpool_id': small['id']}}), 409) == 'SubnetPoolQuotaExceeded'


def test_default_pools_and_the_topology_made_of_them(member, admin, make, net):
    topology = f'/auto-allocated-topology/{testing.PROJECT}'
    assert kind(member.get(topology), 409) == 'AutoAllocationFailure'
    net(admin, '203.0.113.0/24', {'router:external': True, 'is_default': True}, enable_dhcp=False)
    pool = make(admin, 'subnetpool', name='d', prefixes=['10.50.0.0/16'], default_prefixlen=26, is_default=True, shared=True)
    assert kind(admin.post('/subnetpools', {'subnetpool': {'prefixes': ['10.60.0.0/16'], 'is_default': True}}),
                409) == 'DefaultSubnetPoolExists'
    subnet = make(member, 'subnet', network_id=make(member, 'network')['id'], use_default_subnetpool=True, ip_version=4)
    assert subnet['subnetpool_id'] == pool['id']
    assert member.get(topology + '?fields=dry-run').expect(200).json['auto_allocated_topology']['id'] == 'dry-run=pass'
    made = member.get(topology).expect(200).json['auto_allocated_topology']
    assert member.get(topology).json['auto_allocated_topology'] == made
    assert len(member.get('/networks/' + made['id']).json['network']['subnets']) == 1
    assert len(member.get('/routers').json['routers']) == 1
    member.delete(topology).expect(204)
    member.get('/networks/' + made['id']).expect(404)
    assert member.get('/routers').json['routers'] == []


def test_address_scopes(member, make):
    scope = make(member, 'address_scope', name='s', ip_version=4)
    pool = make(member, 'subnetpool', name='a', prefixes=['10.70.0.0/16'], address_scope_id=scope['id'], default_prefixlen=24)
    assert kind(member.post('/subnetpools', {'subnetpool': {'prefixes': ['10.70.5.0/24'], 'address_scope_id': scope['id']}}),
                409) == 'AddressScopePrefixConflict'
    assert kind(member.post('/subnetpools', {'subnetpool': {'prefixes': ['fd00::/48'], 'address_scope_id': scope['id']}}),
                400) == 'IllegalSubnetPoolIpVersionAssociationToAddressScope'
    network = make(member, 'network')
    make(member, 'subnet', network_id=network['id'], subnetpool_id=pool['id'], ip_version=4)
    assert member.get('/networks/' + network['id']).json['network']['ipv4_address_scope'] == scope['id']
    assert kind(member.delete('/address-scopes/' + scope['id']), 409) == 'AddressScopeInUse'


def test_quotas(member, admin, as_, make, net):
    path = '/quotas/' + testing.PROJECT
    assert member.get(path).expect(200).json['quota']['network'] == 100
    as_(testing.OTHER).get(path).expect(403)
    member.put(path, {'quota': {'network': 5}}).expect(403)
    admin.put(path, {'quota': {'network': 1, 'port': 1, 'floatingip': 0}}).expect(200)
    network, _ = net(member)
    assert kind(member.post('/networks', {'network': {}}), 409) == 'OverQuota'
    make(member, 'port', network_id=network['id'])
    assert kind(member.post('/ports', {'port': {'network_id': network['id']}}), 409) == 'OverQuota'
    details = member.get(path + '/details').expect(200).json['quota']
    assert details['network'] == {'limit': 1, 'used': 1, 'reserved': 0}
    assert [one['project_id'] for one in admin.get('/quotas').json['quotas']] == [testing.PROJECT]
    assert member.get('/quotas/project').json['tenant']['project_id'] == testing.PROJECT
    admin.put(path, {'quota': {'nonsense': 1}}).expect(400)
    admin.put(path, {'quota': {'network': -2}}).expect(400)
    admin.put(path, {'quota': {'network': 0, 'check_limit': True}}).expect(400)
    admin.put(path, {'quota': {'network': 0, 'force': True}}).expect(200)
    admin.delete(path).expect(204)
    assert kind(admin.delete(path), 404) == 'TenantQuotaNotFound'
    assert member.get(path + '/default').json['quota']['port'] == 500


def test_how_full_networks_are(member, admin, make, net):
    network, _ = net(member, '10.0.0.0/28')
    make(member, 'port', network_id=network['id'])
    [found] = admin.get('/network-ip-availabilities?network_id=' + network['id']).expect(200).json['network_ip_availabilities']
    assert (found['total_ips'], found['used_ips']) == (13, 1) and found['subnet_ip_availability'][0]['cidr'] == '10.0.0.0/28'
    assert admin.get('/network-ip-availabilities/' + network['id']).json['network_ip_availability'] == found
    member.get('/network-ip-availabilities').expect(403)


def test_segments(admin, member, make):
    network = make(member, 'network')
    [segment] = admin.get('/segments?network_id=' + network['id']).expect(200).json['segments']
    assert segment['network_type'] == 'vxlan' and segment['physical_network'] is None
    changed = admin.put('/segments/' + segment['id'], {'segment': {'name': 's'}}).expect(200).json['segment']
    assert changed['name'] == 's'
    member.get('/segments').expect(403)
