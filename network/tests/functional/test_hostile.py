"""Input that is meant to harm: every answer is a 4xx in the fault shape."""
import pytest

from kodiak.common import testing


def kind(answer, status):
    return answer.expect(status).json['NeutronError']['type']


def test_ports_cannot_be_handed_to_routers(member, admin, as_, make, net):
    router = make(as_(testing.OTHER), 'router')
    network, subnet = net(member)
    for client in (member, admin):
        for owner in ('network:router_interface', 'network:router_gateway', 'network:floatingip'):
            assert kind(client.post('/ports', {'port': {'network_id': network['id'], 'device_owner': owner,
                                                        'device_id': router['id']}}), 400) == 'InvalidInput'
    port = make(member, 'port', network_id=network['id'])
    assert kind(member.put('/ports/' + port['id'], {'port': {'device_owner': 'network:router_interface'}}), 400) == 'InvalidInput'
    mine = make(member, 'router')
    leg = member.put(f"/routers/{mine['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200).json['port_id']
    for change in ({'device_id': router['id']}, {'device_owner': ''}, {'device_owner': 'compute:nova'}):
        assert kind(member.put('/ports/' + leg, {'port': change}), 409) == 'ServicePortInUse'
    member.put('/ports/' + leg, {'port': {'name': 'leg', 'device_id': mine['id']}}).expect(200)


def test_a_router_is_plugged_into_subnets_of_its_project_only(member, admin, as_, make, net):
    _, subnet = net(admin, '10.8.0.0/24', {'shared': True})
    router = make(member, 'router')
    path = f"/routers/{router['id']}/add_router_interface"
    assert kind(member.put(path, {'subnet_id': subnet['id']}), 400) == 'BadRequest'
    admin.put(path, {'subnet_id': subnet['id']}).expect(200)


@pytest.mark.parametrize('name', ['a' * 200 + '!', 'a.' * 120 + '!', '-' * 255, 'a-' * 127, '.', 'a..b', 'x' * 64])
def test_names_that_are_none_are_refused_at_once(member, net, name):
    network, _ = net(member)
    # With a careless pattern some of these would never be answered.
    member.post('/ports', {'port': {'network_id': network['id'], 'dns_name': name}}).expect(400)


def test_numbers_beyond_what_a_database_holds(member, admin, make, net):
    huge = 2 ** 70
    network, subnet = net(member)
    for path, body in (
            ('/networks', {'network': {'mtu': huge}}), ('/networks', {'network': {'mtu': str(huge)}}),
            ('/networks', {'network': {'mtu': '9' * 6000}}),
            ('/networks', {'network': {'provider:network_type': 'vxlan', 'provider:segmentation_id': huge}}),
            ('/subnetpools', {'subnetpool': {'prefixes': ['10.0.0.0/8'], 'default_quota': huge}}),
            ('/subnetpools', {'subnetpool': {'prefixes': ['10.0.0.0/8'], 'min_prefixlen': huge}}),
            ('/subnets', {'subnet': {'network_id': network['id'], 'ip_version': huge, 'cidr': '10.1.0.0/24'}}),
            ('/security-group-rules', {'security_group_rule': {
                'security_group_id': subnet['id'], 'direction': 'ingress', 'protocol': 'tcp', 'port_range_min': huge}})):
        admin.post(path, body).expect(400)
    admin.put('/quotas/' + testing.PROJECT, {'quota': {'network': huge}}).expect(400)
    for query in (f'mtu={huge}', 'revision_number=1e9', 'mtu=x'):
        member.get('/networks?' + query).expect(400)
    admin.get(f'/network-ip-availabilities?ip_version={huge}').expect(400)


@pytest.mark.parametrize('path', ['/networks/%00', '/networks/x', '/ports/' + 'y' * 3000, "/routers/'; DROP TABLE ports; --",
                                  '/networks/é', '/floatingips/x/port_forwardings/y', '/qos/policies/x/bandwidth_limit_rules/y'])
def test_ids_that_are_none(member, path):
    assert 'NeutronError' in member.get(path).expect(404).json


def test_text_is_kept_as_it_is(member, make):
    name = '<script>&\'"\\ \N{SNOWMAN} ; DROP TABLE networks'
    made = make(member, 'network', name=name)
    assert member.get('/networks/' + made['id']).json['network']['name'] == name
    member.post('/networks', {'network': {'name': 'a\x00'}}).expect(400)
    assert member.get('/networks?name=%25').json['networks'] == []
    assert member.get('/networks?name=%27%20OR%201=1').json['networks'] == []
