"""What a first server needs: networks, subnets, ports, security groups, routers, floating addresses, and the host's answer."""
import sqlalchemy as sa

from kodiak.common import migrate, outbox, testing


def test_the_migrations_make_what_the_models_say(service):
    assert migrate.differences(service.db, 'network') == []


def test_networks_and_subnets(member, admin, make, net):
    network, subnet = net(member, '10.1.0.0/24', network={'name': 'one'})
    assert subnet['gateway_ip'] == '10.1.0.1'
    assert subnet['allocation_pools'] == [{'start': '10.1.0.2', 'end': '10.1.0.254'}]
    shown = member.get('/networks/' + network['id']).expect(200).json['network']
    assert shown['subnets'] == [subnet['id']] and shown['name'] == 'one' and shown['mtu'] == 1450
    assert 'provider:network_type' not in shown
    assert admin.get('/networks/' + network['id']).json['network']['provider:network_type'] == 'vxlan'
    assert [one['id'] for one in member.get('/networks?name=one').json['networks']] == [network['id']]
    member.get('/networks?nonsense=1').expect(400)
    member.delete('/networks/' + network['id']).expect(204)
    assert member.get('/subnets/' + subnet['id']).expect(404).json['NeutronError']['type'] == 'SubnetNotFound'


def test_a_server_port_from_birth_to_end(member, admin, make, net, agent):
    host = agent()
    network, subnet = net(member)
    port = make(member, 'port', network_id=network['id'])
    assert port['fixed_ips'] == [{'subnet_id': subnet['id'], 'ip_address': '10.0.0.2'}]
    assert port['status'] == 'DOWN' and len(port['security_groups']) == 1
    bound = admin.put('/ports/' + port['id'], {'port': {
        'binding:host_id': 'host1', 'device_id': 'a' * 36, 'device_owner': 'compute:nova'}}).expect(200).json['port']
    assert bound['binding:vif_type'] == 'tap' and bound['binding:vif_details']['tap_name'] == 'tap' + port['id'][:11]
    host.look()
    assert set(host.wanted.ports) == {port['id']}
    [document] = host.wanted.networks.values()
    assert document.dhcp is not None and document.subnets[0].cidr == '10.0.0.0/24'
    assert len(host.wanted.members) == 2 and len(host.wanted.security_groups) == 1 and len(host.wanted.set_members) == 1
    host.done()
    assert member.get('/ports/' + port['id']).json['port']['status'] == 'ACTIVE'
    assert host.look() == set()
    member.delete('/ports/' + port['id']).expect(204)
    host.look()
    assert not host.wanted.ports
    member.delete('/networks/' + network['id']).expect(204)
    host.look()
    assert not host.wanted.networks and not host.wanted.members


def test_a_router_with_a_floating_address(member, admin, make, net, agent):
    host = agent()
    external, public = net(admin, '203.0.113.0/24', {'router:external': True, 'provider:network_type': 'flat',
                                                     'provider:physical_network': 'public'}, enable_dhcp=False)
    network, subnet = net(member)
    router = make(member, 'router', name='r', external_gateway_info={'network_id': external['id']})
    assert router['external_gateway_info']['external_fixed_ips'][0]['subnet_id'] == public['id']
    answer = member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200).json
    port = make(member, 'port', network_id=network['id'])
    floating = make(member, 'floatingip', floating_network_id=external['id'], port_id=port['id'])
    assert floating['fixed_ip_address'] == port['fixed_ips'][0]['ip_address'] and floating['status'] == 'DOWN'
    host.look()
    assert set(host.wanted.routers) == {router['id']} and set(host.wanted.floating_ips) == {floating['id']}
    [document] = host.wanted.routers.values()
    assert document.gateway is not None and [leg.port_id for leg in document.legs] == [answer['port_id']]
    assert set(host.wanted.networks) == {network['id'], external['id']}
    assert {one.network_id for one in host.wanted.members.values()} == {network['id']}
    host.done()
    assert member.get('/floatingips/' + floating['id']).json['floatingip']['status'] == 'ACTIVE'
    error = member.put(f"/routers/{router['id']}/remove_router_interface", {'subnet_id': subnet['id']}).expect(409)
    assert error.json['NeutronError']['type'] == 'RouterInterfaceInUseByFloatingIP'
    member.delete('/floatingips/' + floating['id']).expect(204)
    member.put(f"/routers/{router['id']}/remove_router_interface", {'subnet_id': subnet['id']}).expect(200)
    member.delete('/routers/' + router['id']).expect(204)
    host.look()
    assert not host.wanted.routers and not host.wanted.floating_ips and set(host.wanted.networks) == {network['id']}


def test_security_groups(member, make):
    [default] = member.get('/security-groups').expect(200).json['security_groups']
    assert default['name'] == 'default' and len(default['security_group_rules']) == 4
    group = make(member, 'security_group', name='web')
    assert len(group['security_group_rules']) == 2
    rule = make(member, 'security_group_rule', security_group_id=group['id'], direction='ingress', protocol='tcp',
                port_range_min=80, port_range_max=80)
    body = {'security_group_rule': {name: rule[name] for name in ('security_group_id', 'direction', 'protocol', 'port_range_min',
                                                                   'port_range_max')}}
    assert member.post('/security-group-rules', body).expect(409).json['NeutronError']['type'] == 'SecurityGroupRuleExists'
    member.delete('/security-group-rules/' + rule['id']).expect(204)
    member.delete('/security-groups/' + group['id']).expect(204)


def test_every_route_as_every_persona(service, as_, member, make, net):
    network, subnet = net(member)
    router = make(member, 'router')
    table = testing.check_personas(service.api, as_, {'id': network['id'], 'project_id': testing.PROJECT})
    assert table['GET', '/networks/{id}', None] == {
        'admin': 200,
        'member': 200,
        'reader': 200,
        'other project': 404,
        'no role': 403,
    }
    assert router and subnet


def test_a_service_of_the_cloud_needs_not_be_administrator(as_, member, net, make, agent):
    agent()
    network, _ = net(member)
    compute = as_(testing.Persona('9' * 32, 'e' * 32, ('service',)))
    port = make(compute, 'port', network_id=network['id'], project_id=testing.PROJECT, device_owner='compute:nova',
                **{'binding:host_id': 'host1'})
    assert port['project_id'] == testing.PROJECT and port['binding:vif_type'] == 'tap'
    compute.put('/ports/' + port['id'], {'port': {'binding:host_id': '', 'device_id': ''}}).expect(200)
    assert len(compute.get('/networks').json['networks']) == 1
    compute.delete('/ports/' + port['id']).expect(204)
    compute.delete('/networks/' + network['id']).expect(403)
    compute.post('/networks', {'network': {'name': 'x', 'project_id': testing.PROJECT}}).expect(403)


def test_compute_hears_of_each_change_of_a_servers_floating_address(member, admin, make, net, agent, service):
    agent()
    external, _ = net(admin, '203.0.113.0/24', {'router:external': True, 'provider:network_type': 'flat',
                                                'provider:physical_network': 'public'}, enable_dhcp=False)
    network, subnet = net(member)
    router = make(member, 'router', external_gateway_info={'network_id': external['id']})
    member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200)
    port = make(member, 'port', network_id=network['id'])
    admin.put('/ports/' + port['id'], {'port': {'device_id': 'a' * 36, 'device_owner': 'compute:nova'}}).expect(200)

    def told():
        table = outbox.rows
        with service.db.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(table).where(
                table.c.event_type == 'compute.network-changed', table.c.resource_id == 'a' * 36))
    before = told()
    floating = make(member, 'floatingip', floating_network_id=external['id'], port_id=port['id'])
    assert told() == before + 1
    member.put('/floatingips/' + floating['id'], {'floatingip': {'port_id': None}}).expect(200)
    assert told() == before + 2


def test_what_is_in_the_way_is_named(member, admin, make, net):
    network, subnet = net(member)
    port = make(member, 'port', network_id=network['id'], device_owner='compute:nova', device_id='server1')
    router = make(member, 'router')
    leg = member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200).json['port_id']

    def said(path):
        return member.delete(path).expect(409).json['NeutronError']['message']
    in_the_way = f"port {leg} (network:router_interface of {router['id']}). Remove its interfaces first"
    assert in_the_way in said('/routers/' + router['id'])
    for path in ('/networks/' + network['id'], '/subnets/' + subnet['id']):
        assert f"port {port['id']} (compute:nova of server1)" in said(path)
    for _ in range(4):
        make(member, 'port', network_id=network['id'])
    assert said('/networks/' + network['id']).endswith('and 3 more.')
    admin.put('/quotas/' + testing.PROJECT, {'quota': {'network': 1}}).expect(200)
    fault = member.post('/networks', {'network': {}}).expect(409).json['NeutronError']
    assert fault['message'] == "Quota exceeded for resources: ['network']. network: 1 requested, 1 of 1 used."


def test_what_is_made_can_have_tags_at_once(member, admin, make, net):
    network, _ = net(member, network={'tags': ['a', 'b', 'a']})
    assert member.get('/networks/' + network['id']).json['network']['tags'] == ['a', 'b']
    for kind, values in (('port', {'network_id': network['id']}), ('router', {}), ('security_group', {'name': 'x'}),
                         ('subnetpool', {'name': 'x', 'prefixes': ['10.8.0.0/16']}),
                         ('address_group', {'name': 'x', 'addresses': []})):
        assert make(member, kind, tags=['t'], **values)['tags'] == ['t'], kind
    assert [one['id'] for one in member.get('/ports?tags=t').json['ports']] != []
    made = member.post('/ports', {'ports': [{'network_id': network['id'], 'tags': [str(number)]} for number in range(2)]})
    assert [port['tags'] for port in made.expect(201).json['ports']] == [['0'], ['1']]
    for wrong in (['a,b'], [''], ['x' * 256], [str(number) for number in range(51)], 'a'):
        member.post('/networks', {'network': {'tags': wrong}}).expect(400)


def test_a_port_gets_another_mac_address(admin, make, net):
    network, _ = net(admin)
    port = make(admin, 'port', network_id=network['id'])
    changed = admin.put('/ports/' + port['id'], {'port': {'mac_address': None}}).expect(200).json['port']
    assert changed['mac_address'] != port['mac_address'] and changed['mac_address'].startswith(port['mac_address'][:8])
