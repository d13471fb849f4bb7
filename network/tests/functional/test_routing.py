"""Routers, floating addresses and port forwardings."""
import pytest

from kodiak.common import testing
from kodiak.network import conductor


def kind(answer, status):
    return answer.expect(status).json['NeutronError']['type']


@pytest.fixture
def external(admin, net):
    return net(admin, '203.0.113.0/24', {'router:external': True}, enable_dhcp=False)


@pytest.fixture
def routed(member, external, net, make):
    """A network with a router that leads out: ``(router, network, subnet)``."""
    network, subnet = net(member)
    router = make(member, 'router', external_gateway_info={'network_id': external[0]['id']})
    plug(member, router, subnet_id=subnet['id'])
    return router, network, subnet


def plug(client, router, status=200, **body):
    return client.put(f"/routers/{router['id']}/add_router_interface", body).expect(status).json


def unplug(client, router, status=200, **body):
    return client.put(f"/routers/{router['id']}/remove_router_interface", body).expect(status).json


def test_gateways(member, admin, external, net, make):
    router = make(member, 'router', name='r')
    path = '/routers/' + router['id']
    assert router['external_gateway_info'] is None and router['status'] == 'ACTIVE'
    inside, _ = net(member)
    assert kind(member.put(path, {'router': {'external_gateway_info': {'network_id': inside['id']}}}), 400) == 'BadRequest'
    unknown = '00000000-0000-4000-8000-000000000000'
    assert kind(member.put(path, {'router': {'external_gateway_info': {'network_id': unknown}}}), 404) == 'NetworkNotFound'
    info = {'network_id': external[0]['id']}
    member.put(path, {'router': {'external_gateway_info': {**info, 'enable_snat': False}}}).expect(403)
    member.put(path, {'router': {'external_gateway_info': {
        **info, 'external_fixed_ips': [{'ip_address': '203.0.113.9'}]}}}).expect(403)
    shown = admin.put(path, {'router': {'external_gateway_info': {
        **info, 'enable_snat': False, 'external_fixed_ips': [{'ip_address': '203.0.113.9'}]}}}).expect(200).json['router']
    assert shown['external_gateway_info'] == {**info, 'enable_snat': False, 'external_fixed_ips': [
        {'subnet_id': external[1]['id'], 'ip_address': '203.0.113.9'}]}
    moved = admin.put(path, {'router': {'external_gateway_info': {**info, 'external_fixed_ips': [
        {'ip_address': '203.0.113.9'}, {'ip_address': '203.0.113.10'}]}}}).expect(200).json['router']
    assert len(moved['external_gateway_info']['external_fixed_ips']) == 2
    [port] = admin.get('/ports?device_owner=network:router_gateway').json['ports']
    assert port['device_id'] == router['id'] and port['project_id'] == ''
    assert kind(admin.delete('/ports/' + port['id']), 409) == 'ServicePortInUse'
    admin.put('/ports/' + port['id'], {'port': {'fixed_ips': [{'ip_address': '203.0.113.11'}]}}).expect(200)
    [address] = member.get(path).json['router']['external_gateway_info']['external_fixed_ips']
    assert address['ip_address'] == '203.0.113.11'
    assert kind(admin.delete('/networks/' + external[0]['id']), 409) == 'NetworkInUse'
    member.put(path, {'router': {'external_gateway_info': {}}}).expect(200)
    assert admin.get('/ports?device_owner=network:router_gateway').json['ports'] == []
    member.delete(path).expect(204)


def test_interfaces(member, admin, as_, net, make):
    router = make(member, 'router')
    _, subnet = net(member)
    overlapping, inner = net(member, '10.0.0.0/25')
    third, _ = net(member, '10.1.0.0/24')
    plug(member, router, 400)
    plug(member, router, 400, subnet_id=subnet['id'], port_id='x')
    answer = plug(member, router, subnet_id=subnet['id'])
    assert answer['subnet_ids'] == [subnet['id']] and answer['id'] == router['id']
    [port] = member.get('/ports?device_id=' + router['id']).json['ports']
    assert port['fixed_ips'][0]['ip_address'] == '10.0.0.1' and port['device_owner'] == 'network:router_interface'
    assert port['security_groups'] == []
    plug(member, router, 400, subnet_id=subnet['id'])
    plug(member, router, 400, subnet_id=inner['id'])
    mine = make(member, 'port', network_id=third['id'])
    assert plug(member, router, port_id=mine['id'])['port_id'] == mine['id']
    plug(member, make(member, 'router'), 409, port_id=mine['id'])
    assert kind(member.delete('/routers/' + router['id']), 409) == 'RouterInUse'
    unplug(member, router, 404, subnet_id=inner['id'])
    unplug(member, router, 409, subnet_id=subnet['id'], port_id=mine['id'])
    unplug(member, router, port_id=mine['id'])
    member.get('/ports/' + mine['id']).expect(404)
    unplug(member, router, subnet_id=subnet['id'])
    without = make(member, 'subnet', network_id=overlapping['id'], cidr='10.2.0.0/24', ip_version=4, gateway_ip=None)
    plug(member, router, 400, subnet_id=without['id'])
    as_(testing.OTHER).put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(404)
    member.delete('/routers/' + router['id']).expect(204)


def test_ipv6_subnets_of_a_network_share_a_leg(member, net, make):
    router, (network, first) = make(member, 'router'), net(member, 'fd00:1::/64')
    second = make(member, 'subnet', network_id=network['id'], cidr='fd00:2::/64', ip_version=6)
    port = plug(member, router, subnet_id=first['id'])['port_id']
    assert plug(member, router, subnet_id=second['id'])['port_id'] == port
    unplug(member, router, subnet_id=first['id'])
    assert len(member.get('/ports/' + port).json['port']['fixed_ips']) == 1


def test_routes(member, routed):
    router, _, subnet = routed
    path = '/routers/' + router['id']
    route = {'destination': '10.9.0.0/16', 'nexthop': '10.0.0.7'}
    assert member.put(path, {'router': {'routes': [route]}}).expect(200).json['router']['routes'] == [route]
    for bad in ({'destination': '10.9.0.0/16', 'nexthop': '10.77.0.7'}, {'destination': '10.9.0.0/16', 'nexthop': '10.0.0.1'}):
        assert kind(member.put(path, {'router': {'routes': [bad]}}), 400) == 'InvalidRoutes'
    member.put(path, {'router': {'routes': [route, route]}}).expect(400)
    many = [{'destination': f'10.9.{n}.0/24', 'nexthop': '10.0.0.7'} for n in range(31)]
    assert kind(member.put(path, {'router': {'routes': many}}), 400) == 'RoutesExhausted'
    assert kind(member.put(path + '/remove_router_interface', {'subnet_id': subnet['id']}), 409) == 'RouterInterfaceInUseByRoute'
    second = {'destination': '10.10.0.0/16', 'nexthop': '10.0.0.8'}
    added = member.put(path + '/add_extraroutes', {'router': {'routes': [second, route]}}).expect(200).json['router']
    assert added['routes'] == [route, second]
    left = member.put(path + '/remove_extraroutes', {'router': {'routes': [route]}}).expect(200).json['router']
    assert left['routes'] == [second]
    member.put(path, {'router': {'routes': []}}).expect(200)


def test_floating_addresses(member, admin, as_, routed, external, make, net):
    router, network, _ = routed
    port = make(member, 'port', network_id=network['id'])
    assert kind(member.post('/floatingips', {'floatingip': {'floating_network_id': network['id']}}), 400) == 'BadRequest'
    member.post('/floatingips', {'floatingip': {'floating_network_id': external[0]['id'],
                                                'floating_ip_address': '203.0.113.50'}}).expect(403)
    chosen = make(admin, 'floatingip', floating_network_id=external[0]['id'], floating_ip_address='203.0.113.50')
    assert chosen['floating_ip_address'] == '203.0.113.50'
    floating = make(member, 'floatingip', floating_network_id=external[0]['id'])
    path = '/floatingips/' + floating['id']
    associated = member.put(path, {'floatingip': {'port_id': port['id']}}).expect(200).json['floatingip']
    assert associated['router_id'] == router['id'] and associated['port_details']['network_id'] == network['id']
    second = make(member, 'floatingip', floating_network_id=external[0]['id'])
    assert kind(member.put('/floatingips/' + second['id'], {'floatingip': {'port_id': port['id']}}),
                409) == 'FloatingIPPortAlreadyAssociated'
    lonely, _ = net(member, '10.66.0.0/24')
    far = make(member, 'port', network_id=lonely['id'])
    assert kind(member.put('/floatingips/' + second['id'], {'floatingip': {'port_id': far['id']}}),
                404) == 'ExternalGatewayForFloatingIPNotFound'
    assert (
        kind(
            member.put('/floatingips/' + second['id'], {'floatingip': {'port_id': port['id'], 'fixed_ip_address': '10.0.0.99'}}),
            400,
        )
        == 'BadRequest'
    )
    assert kind(member.put('/routers/' + router['id'], {'router': {'external_gateway_info': {}}}),
                409) == 'RouterExternalGatewayInUseByFloatingIp'
    as_(testing.OTHER).get(path).expect(404)
    member.delete('/ports/' + port['id']).expect(204)
    freed = member.get(path).json['floatingip']
    assert freed['port_id'] is None and freed['status'] == 'DOWN' and freed['router_id'] is None
    member.delete(path).expect(204)
    assert [one['floating_ip_address'] for one in member.get('/floatingips?port_id=').json['floatingips']] == []


def test_a_network_takes_its_unused_floating_addresses_along(admin, external, make):
    floating = make(admin, 'floatingip', floating_network_id=external[0]['id'])
    admin.delete('/networks/' + external[0]['id']).expect(204)
    admin.get('/floatingips/' + floating['id']).expect(404)


def test_port_forwardings(service, member, routed, external, make, agent):
    host = agent()
    conductor.Housekeeper(service.runtime).run_once()       # the router was there before any agent
    router, network, _ = routed
    port = make(member, 'port', network_id=network['id'])
    floating = make(member, 'floatingip', floating_network_id=external[0]['id'])
    path = f"/floatingips/{floating['id']}/port_forwardings"
    body = {'protocol': 'tcp', 'external_port': 2222, 'internal_port': 22, 'internal_port_id': port['id'],
            'internal_ip_address': port['fixed_ips'][0]['ip_address']}
    made = member.post(path, {'port_forwarding': body}).expect(201).json['port_forwarding']
    assert made['external_port'] == 2222 and made['internal_port_range'] == '22:22'
    member.post(path, {'port_forwarding': body}).expect(400)
    member.post(path, {'port_forwarding': {**body, 'external_port': 0}}).expect(400)
    member.post(path, {'port_forwarding': {**body, 'external_port': 80, 'internal_ip_address': '10.0.0.77'}}).expect(400)
    ranged = (
        member.post(
            path,
            {
                'port_forwarding': {
                    'protocol': 'udp',
                    'external_port_range': '100:105',
                    'internal_port_range': '200:205',
                    'internal_port_id': port['id'],
                }
            },
        )
        .expect(201)
        .json['port_forwarding']
    )
    assert ranged['external_port_range'] == '100:105' and 'external_port' not in ranged
    shown = member.get('/floatingips/' + floating['id']).json['floatingip']
    assert shown['router_id'] == router['id'] and len(shown['port_forwardings']) == 2
    host.look()
    [document] = host.wanted.floating_ips.values()
    assert {one.external_port for one in document.forwardings} == {'2222', '100:105'} and document.fixed_address is None
    changed = member.put(f"{path}/{made['id']}", {'port_forwarding': {'external_port': 2223}}).expect(200).json['port_forwarding']
    assert changed['external_port'] == 2223
    assert kind(member.put('/floatingips/' + floating['id'], {'floatingip': {'port_id': port['id']}}),
                409) == 'FloatingIPPortForwardingInUse'
    member.delete(f"{path}/{made['id']}").expect(204)
    member.get(f"{path}/{made['id']}").expect(404)
    assert len(member.get(path).json['port_forwardings']) == 1
    member.delete('/ports/' + port['id']).expect(204)
    assert member.get(path).json['port_forwardings'] == []


def test_a_floating_address_of_a_router_without_a_host_is_down(member, admin, agent, external, routed, make, service):
    host = agent('host1')
    router, network, _ = routed
    port = make(member, 'port', network_id=network['id'])
    floating = make(member, 'floatingip', floating_network_id=external[0]['id'], port_id=port['id'])
    l3 = admin.get('/agents?agent_type=L3 agent').json['agents'][0]['id']
    if admin.get(f'/agents/{l3}/l3-routers').json['routers'] == []:
        admin.post(f'/agents/{l3}/l3-routers', {'router_id': router['id']}).expect(201)

    def status():
        return member.get('/floatingips/' + floating['id']).json['floatingip']['status']
    host.look()
    host.done()
    assert status() == 'ACTIVE'
    admin.delete(f"/agents/{l3}/l3-routers/{router['id']}").expect(204)
    assert status() == 'DOWN'
    admin.post(f'/agents/{l3}/l3-routers', {'router_id': router['id']}).expect(201)
    host.look()
    host.done()
    assert status() == 'ACTIVE'
