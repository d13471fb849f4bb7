"""What the conductor says is what the agent understands: from the API to the plan of a host and back."""
from kodiak.common import testing
from kodiak.network.agent import names, nft, routers, state
from kodiak.network.agent.layout import Namespace
from kodiak.network.drivers import namespaces
from kodiak.network.drivers.linuxbridge import Shape, firewall


class Bare:
    def __init__(self):
        self.spaces, self.tables, self.others, self.inodes, self.services = {'': Namespace()}, {'': {}}, {'br-ex'}, {}, {}


def plan(host, observed=None):
    facts = state.load(state.AgentFacts, host.facts)
    settings = namespaces.Settings(facts, 64055, '/var/lib/dhcp', 'dnsmasq')
    made = namespaces.plan(Shape, host.wanted, settings, observed or Bare())
    assert made.problems == {}
    return made


def as_planned(made):
    host = Bare()
    host.spaces, host.tables = made.spaces, made.tables
    return host


def test_a_host_with_a_server_a_router_and_a_floating_address(member, admin, make, net, agent):
    host = agent()
    external, _ = net(admin, '203.0.113.0/24', {'router:external': True, 'provider:network_type': 'flat',
                                                'provider:physical_network': 'public'}, enable_dhcp=False)
    network, subnet = net(member)
    router = make(member, 'router', external_gateway_info={'network_id': external['id']})
    member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200)
    port = make(member, 'port', network_id=network['id'])
    admin.put('/ports/' + port['id'], {'port': {
        'binding:host_id': 'host1', 'device_id': testing.PROJECT, 'device_owner': 'compute:nova'}}).expect(200)
    floating = make(member, 'floatingip', floating_network_id=external['id'], port_id=port['id'])
    host.look()
    made = plan(host)
    address = port['fixed_ips'][0]['ip_address']
    tap, space = names.tap(port['id']), names.router_namespace(router['id'])
    assert made.spaces[''].links[tap].master == names.bridge(network['id'])
    assert made.tables[space][routers.TABLE].sets['inward'].elements == {floating['floating_ip_address']: address}
    guard = made.tables[''][firewall.GUARD]
    assert f'{tap} . {port["mac_address"]} . {address}' in guard.sets['addresses4'].elements
    assert f'{port["mac_address"]},' in made.services[network['id']].files['hosts']
    assert made.listeners == {space: ('routers', router['id'])}
    # A route out of the router, and DHCP's way to the router.
    assert ('0.0.0.0/0', '203.0.113.1', '') in made.spaces[space].routes


def test_a_rule_changes_one_chain_and_a_member_one_element(member, admin, make, net, agent):
    host = agent()
    network, _ = net(member)
    ports = [make(member, 'port', network_id=network['id']) for _ in range(2)]
    for port in ports:
        admin.put('/ports/' + port['id'], {'port': {
            'binding:host_id': 'host1', 'device_id': port['id'], 'device_owner': 'compute:nova'}}).expect(200)
    host.look()
    before = as_planned(plan(host))
    group = ports[0]['security_groups'][0]
    make(member, 'security_group_rule', security_group_id=group, direction='ingress', protocol='tcp', port_range_min=22,
         port_range_max=22)
    host.look()
    after = plan(host, before)
    script = nft.diff(after.tables[''][firewall.GROUPS], before.tables[''][firewall.GROUPS])
    assert {line.split()[4] for line in script.splitlines()} == {f'ingress-{group}'}
    assert nft.diff(after.tables[''][firewall.GUARD], before.tables[''][firewall.GUARD]) == ''
    assert after.cuts[''] == []
    before = as_planned(after)
    elsewhere = make(member, 'port', network_id=network['id'])
    host.look()
    after = plan(host, before)
    script = nft.diff(after.tables[''][firewall.GROUPS], before.tables[''][firewall.GROUPS])
    assert script == f'add element inet kodiak-groups members4-{group} {{ {elsewhere["fixed_ips"][0]["ip_address"]} }}\n'
    # The last port goes, and its filters with it.
    for port in (*ports, elsewhere):
        member.delete('/ports/' + port['id']).expect(204)
    host.look()
    assert firewall.GROUPS not in plan(host, as_planned(after)).tables['']


def test_every_rule_that_the_api_takes_can_be_enforced(member, admin, make, net, agent):
    host = agent()
    network, _ = net(member)
    group = make(member, 'security_group', name='all sorts')
    rules = [{'protocol': name, 'ethertype': ethertype} for ethertype in ('IPv4', 'IPv6') for name in (
        'tcp', 'udp', 'icmp', 'ah', 'dccp', 'egp', 'esp', 'gre', 'igmp', 'ospf', 'pgm', 'rsvp', 'sctp', 'udplite', 'vrrp', '99',
        'ipip')]
    rules += [{'protocol': name, 'ethertype': 'IPv6'} for name in (
        'ipv6-icmp', 'ipv6-encap', 'ipv6-frag', 'ipv6-nonxt', 'ipv6-opts', 'ipv6-route')]
    rules += [{'protocol': 'tcp', 'port_range_min': 1, 'port_range_max': 65535}, {'protocol': '17', 'port_range_min': 53,
                                                                                'port_range_max': 53},
              {'protocol': 'icmp', 'port_range_min': 8, 'port_range_max': 0}, {'protocol': 'icmp', 'port_range_min': 0},
              {'protocol': 'tcp', 'remote_ip_prefix': '10.1.2.3/16'}, {'protocol': 'udp', 'remote_group_id': group['id']}]
    taken = 0
    for rule in rules:
        answer = member.post('/security-group-rules', {'security_group_rule': {
            'security_group_id': group['id'], 'direction': 'ingress', **rule}})
        assert answer.status in (201, 400), answer.data
        taken += answer.status == 201
    assert taken > 25
    port = make(member, 'port', network_id=network['id'], security_groups=[group['id']],
                allowed_address_pairs=[{'ip_address': '10.8.0.0/16'}])
    admin.put('/ports/' + port['id'], {'port': {
        'binding:host_id': 'host1', 'device_id': port['id'], 'device_owner': 'compute:nova'}}).expect(200)
    host.look()
    chain = plan(host).tables[''][firewall.GROUPS].chains[f'ingress-{group["id"]}']
    assert len(chain.rules) > 20


def test_a_port_without_an_address_is_reached_on_its_host(member, admin, make, net, agent):
    host, other = agent(), agent('host2', tunnel_ip='192.0.2.2')
    network, _ = net(member)
    for where, fixed in (('host1', None), ('host2', [])):
        port = make(member, 'port', network_id=network['id'], **({} if fixed is None else {'fixed_ips': fixed}))
        admin.put('/ports/' + port['id'], {'port': {
            'binding:host_id': where, 'device_id': port['id'], 'device_owner': 'compute:nova'}}).expect(200)
    host.look()
    other.look()
    (entries,) = plan(host).spaces[''].fdb.values()
    assert (port['mac_address'], '192.0.2.2') in entries
