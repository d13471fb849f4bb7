"""Layouts, and the hosts, routers and DHCP services that become layouts."""
import dataclasses
import ipaddress

import pytest

from kodiak.network.agent import dhcp, layout, names, nft, routers, state
from kodiak.network.agent.layout import Link, Namespace
from kodiak.network.drivers import namespaces
from kodiak.network.drivers.linuxbridge import Shape, l2, tunnel

NET, PUBLIC = '11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'
ROUTER = '44444444-4444-4444-8444-444444444444'
FACTS = state.AgentFacts('agent', '1', 'now', 'linuxbridge', '192.0.2.1', {'public': 'br-ex'})
SETTINGS = namespaces.Settings(FACTS, 64055, '/var/lib/dhcp', 'dnsmasq')


class Bare:
    """A host with nothing of ours."""

    def __init__(self):
        self.spaces, self.tables, self.others, self.inodes, self.services = {'': Namespace()}, {'': {}}, {'br-ex'}, {}, {}


def uuid(letter):
    return '-'.join(letter * count for count in (8, 4, 4, 4, 12))


def wanted():
    """A network with DHCP, a router with a floating address, two ports here and one elsewhere."""
    made = state.Wanted()
    fixed = (state.FixedIP('s', '10.0.0.2'),)
    made.networks = {
        NET: state.Network(NET, 1, segmentation_id=7, mtu=1400, dns_domain='a.test.', dhcp=state.Dhcp(
            uuid('d'), 'fa:16:3e:00:01:00', fixed), subnets=(
                state.Subnet('s', '10.0.0.0/24', gateway_ip='10.0.0.1', dns_nameservers=('9.9.9.9',)),)),
        PUBLIC: state.Network(PUBLIC, 1, type='flat', physical_network='public', mtu=1500, subnets=(
            state.Subnet('x', '172.24.4.0/24', gateway_ip='172.24.4.1', enable_dhcp=False),
            state.Subnet('y', '172.24.5.0/24', gateway_ip='172.24.5.1', enable_dhcp=False)))}
    for letter, number in (('a', 10), ('b', 11)):
        made.ports[uuid(letter)] = state.Port(
            uuid(letter), NET, f'fa:16:3e:00:00:{number:02x}', 1, fixed_ips=(state.FixedIP('s', f'10.0.0.{number}'),),
            device_id='vm-' + letter, device_owner='compute:nova', project_id='p')
    members = [(uuid('a'), 10, 'compute:nova', FACTS.tunnel_ip), (uuid('b'), 11, 'compute:nova', FACTS.tunnel_ip),
               (uuid('c'), 12, 'compute:nova', '192.0.2.2'), (uuid('d'), 2, 'network:dhcp', FACTS.tunnel_ip),
               (uuid('e'), 1, 'network:router_interface', FACTS.tunnel_ip)]
    made.members = {key: state.Member(
        key, NET, f'fa:16:3e:00:00:{number:02x}', fixed_ips=(state.FixedIP('s', f'10.0.0.{number}'),), tunnel_ip=where,
        device_owner=owner, device_id='vm-' + key[0], project_id='p') for key, number, owner, where in members}
    made.routers = {ROUTER: state.Router(
        ROUTER, 1, legs=(state.RouterLeg(uuid('e'), NET, 'fa:16:3e:00:00:01', (state.FixedIP('s', '10.0.0.1'),)),),
        gateway=state.RouterLeg(uuid('f'), PUBLIC, 'fa:16:3e:00:00:0f', (state.FixedIP('x', '172.24.4.10'),)),
        routes=({'destination': '10.5.0.0/16', 'nexthop': '10.0.0.9'},))}
    made.floating_ips = {'fip': state.FloatingIP('fip', ROUTER, '172.24.4.50', 1, '10.0.0.10', uuid('a'))}
    return made


def plan(made, observed=None):
    return namespaces.plan(Shape, made, SETTINGS, observed or Bare())


def as_planned(made):
    """A host that is as planned."""
    host = Bare()
    host.spaces, host.tables = made.spaces, made.tables
    return host


def test_on_a_host_that_is_as_it_should_be_there_is_nothing_to_do():
    made = plan(wanted())
    assert made.problems == {}
    again = plan(wanted(), as_planned(made))
    todo = namespaces.steps(again, as_planned(made))
    assert (todo.first, todo.then, todo.last) == ([], [], [])


def test_filters_come_before_links_and_links_before_what_stands_on_them():
    todo = namespaces.steps(plan(wanted()), Bare())
    first, then = [action.op[0] for action in todo.first], [action.op[0] for action in todo.then]
    assert first.index('namespace.add') < first.index('nft')
    assert 'link.add' not in first
    assert then.index('link.add') < then.index('address.add') < then.index('route.add')
    kinds = [action.op[3]['kind'] for action in todo.then if action.op[0] == 'link.add']
    assert kinds.index('bridge') < kinds.index('vxlan') < kinds.index('veth') < kinds.index('tap')
    assert ('announce', names.router_namespace(ROUTER), 'qg-ffffffff-ff', ['172.24.4.10', '172.24.4.50']) in [
        action.op for action in todo.last]


def test_an_unwanted_port_loses_its_link_before_its_filters():
    before = plan(wanted())
    less = wanted()
    del less.ports[uuid('a')]
    host = as_planned(before)
    ops = [action.op for action in namespaces.steps(plan(less, host), host).first]
    assert ops[0] == ('link.delete', '', 'tapaaaaaaaa-aa')
    assert ops[1][0] == 'nft'
    assert len(ops) == 2


def test_nothing_is_wanted_so_nothing_stays():
    host = as_planned(plan(wanted()))
    todo = namespaces.steps(plan(state.Wanted(), host), host)
    gone = {action.op[1:] for action in todo.first if action.op[0].endswith('.delete')}
    assert {link for _, link in (op for op in gone if len(op) == 2)} == set(host.spaces[''].links)
    assert {op[0] for op in gone if len(op) == 1} == {names.router_namespace(ROUTER), names.dhcp_namespace(NET)}
    assert [action.op[2] for action in todo.first if action.op[0] == 'nft'] == [
        'delete table inet kodiak-tunnel\ndelete table bridge kodiak-guard\ndelete table inet kodiak-groups\n']


def test_links_of_others_are_left_alone():
    host = Bare()
    host.spaces[''].links['brqdeadbeef-00'] = Link('bridge')
    host.spaces['qrouter-' + uuid('9')] = Namespace()
    host.spaces['mine'] = Namespace()
    todo = namespaces.steps(plan(state.Wanted(), host), host)
    assert [action.op for action in todo.first[:2]] == [
        ('link.delete', '', 'brqdeadbeef-00'), ('namespace.delete', 'qrouter-' + uuid('9'))]
    assert not any(names.OUR_LINK.match(name) for name in ('tap0', 'brq1', 'vethabcd', 'virbr0', 'docker0', 'br-ex'))


def test_forwarding_entries_lead_to_the_other_hosts_only():
    host = plan(wanted()).spaces['']
    assert host.fdb['vxlan-7'] == {('fa:16:3e:00:00:0c', '192.0.2.2'), (l2.FLOOD, '192.0.2.2')}


def test_a_device_that_can_not_be_changed_is_made_anew():
    host = as_planned(plan(wanted()))
    host.spaces[''].links['vxlan-7'] = dataclasses.replace(host.spaces[''].links['vxlan-7'], local='192.0.2.77')
    todo = namespaces.steps(plan(wanted(), host), host)
    assert todo.first[0].op == ('link.delete', '', 'vxlan-7')
    assert [action.op[0] for action in todo.then] == ['link.add', 'fdb.add', 'fdb.add']


def test_a_lost_leg_comes_back_with_its_addresses_and_routes():
    host = as_planned(plan(wanted()))
    space = host.spaces[names.router_namespace(ROUTER)] = dataclasses.replace(host.spaces[names.router_namespace(ROUTER)])
    space.links = {name: link for name, link in space.links.items() if not name.startswith('qg-')}
    space.routes = dict.fromkeys(space.routes, ('qg-ffffffff-ff', False))
    todo = namespaces.steps(plan(wanted(), host), host)
    assert todo.first[0].op == ('link.delete', '', 'vr-ffffffff-ff')
    done = [action.op for action in todo.then]
    assert ('link.add', '', 'vr-ffffffff-ff') in [op[:3] for op in done]
    assert ('address.add', names.router_namespace(ROUTER), 'qg-ffffffff-ff', '172.24.4.50/32') in done
    assert ('0.0.0.0/0', '172.24.4.1') in [op[2:4] for op in done if op[0] == 'route.add']


def test_properties_are_changed_one_by_one():
    want = {'': Namespace()}
    want[''].add('brq11111111-11', Link('bridge', mtu=1400), ('networks', NET))
    have = {'': Namespace(links={'brq11111111-11': Link('bridge', mtu=1500, mac='02:00:00:00:00:01', ipv6=True)})}
    _, _, rest = layout.diff(want, have)
    assert [action.op for action in rest] == [('link.set', '', 'brq11111111-11', {'mtu': 1400, 'ipv6': False})]


@pytest.mark.parametrize(('change', 'sentence'), [
    ({'type': 'flat', 'physical_network': 'other'}, 'no bridge for physical network other'),
    ({'type': 'vlan'}, 'not supported'), ({'segmentation_id': None}, 'no segmentation id')])
def test_what_can_not_be_had_is_said(change, sentence):
    made = wanted()
    made.networks[NET] = dataclasses.replace(made.networks[NET], **change)
    problems = plan(made).problems
    assert sentence in problems['networks', NET]


def test_a_mapped_bridge_must_exist():
    host = Bare()
    host.others = set()
    problems = plan(wanted(), host).problems
    assert 'bridge br-ex' in problems['networks', PUBLIC]
    assert PUBLIC in problems['routers', ROUTER]


def test_a_router_nats_and_routes():
    made = plan(wanted())
    space, table = made.spaces[names.router_namespace(ROUTER)], made.tables[names.router_namespace(ROUTER)][routers.TABLE]
    assert space.addresses == {'qr-eeeeeeee-ee': {'10.0.0.1/24'}, 'qg-ffffffff-ff': {'172.24.4.10/24', '172.24.4.50/32'},
                               'lo': {'169.254.169.254/32'}}
    assert space.routes == {('0.0.0.0/0', '172.24.4.1', ''): ('qg-ffffffff-ff', False),
                            ('172.24.5.0/24', '', 'qg-ffffffff-ff'): ('qg-ffffffff-ff', False),
                            ('10.5.0.0/16', '10.0.0.9', ''): ('', False)}
    assert table.sets['inward'].elements == {'172.24.4.50': '10.0.0.10'}
    assert 'oifname "qg-ffffffff-ff" meta nfproto ipv4 snat ip to 172.24.4.10 fully-random' in table.chains['after'].rules
    without = wanted()
    without.routers[ROUTER] = dataclasses.replace(without.routers[ROUTER], enable_snat=False)
    table = plan(without).tables[names.router_namespace(ROUTER)][routers.TABLE]
    assert not any('fully-random' in rule for rule in table.chains['after'].rules)


def test_a_router_that_is_down_forwards_nothing():
    made = wanted()
    made.routers[ROUTER] = dataclasses.replace(made.routers[ROUTER], admin_state_up=False)
    space = plan(made).spaces[names.router_namespace(ROUTER)]
    assert space.sysctls['net/ipv4/ip_forward'] == '0'
    assert not any(link.up for link in space.links.values())
    assert space.routes == {}


def test_connections_of_a_floating_address_end_when_it_leads_elsewhere():
    host = as_planned(plan(wanted()))
    moved = wanted()
    moved.floating_ips['fip'] = dataclasses.replace(moved.floating_ips['fip'], fixed_address='10.0.0.11')
    todo = namespaces.steps(plan(moved, host), host)
    assert [action.op for action in todo.last] == [
        ('conntrack.cut', names.router_namespace(ROUTER), [(0, '172.24.4.50')])]
    script, = [action.op[2] for action in todo.first]
    assert 'add element inet kodiak-router inward { 172.24.4.50 : 10.0.0.11 }' in script


def test_port_forwardings():
    one = state.FloatingIP('f', ROUTER, '172.24.4.60', forwardings=(
        state.Forwarding('1', 'tcp', '2000:2002', '10.0.0.10', '22:24'),
        state.Forwarding('2', 'udp', '53', '10.0.0.11', '5353'), state.Forwarding('3', 'gre; drop', '1', 'x', '2')))
    made = wanted()
    made.floating_ips = {'f': one}
    elements = plan(made).tables[names.router_namespace(ROUTER)][routers.TABLE].sets['forwards'].elements
    assert elements == {'172.24.4.60 . tcp . 2000': '10.0.0.10 . 22', '172.24.4.60 . tcp . 2001': '10.0.0.10 . 23',
                        '172.24.4.60 . tcp . 2002': '10.0.0.10 . 24', '172.24.4.60 . udp . 53': '10.0.0.11 . 5353'}


def test_who_gets_an_address_by_dhcp():
    service = plan(wanted()).services[NET]
    lines = service.files['hosts'].splitlines()
    assert 'fa:16:3e:00:00:0c,host-10-0-0-12.a.test,10.0.0.12' in lines
    assert not any('10.0.0.2' in line.split(',') for line in lines)
    assert 'option:router,10.0.0.1' in service.files['options']
    assert 'option:dns-server,9.9.9.9' in service.files['options']
    assert '169.254.169.254' not in service.files['options']
    assert '10.0.0.10 host-10-0-0-10.a.test host-10-0-0-10' in service.files['names']
    assert service.mac_of['10.0.0.10'] == 'fa:16:3e:00:00:0a'


def test_an_isolated_network_gets_metadata_from_dhcp():
    made = wanted()
    del made.members[uuid('e')]
    planned = plan(made)
    assert 'classless-static-route,169.254.169.254/32,10.0.0.2,0.0.0.0/0,10.0.0.1' in planned.services[NET].files['options']
    assert '169.254.169.254/32' in planned.spaces[names.dhcp_namespace(NET)].addresses['ns-dddddddd-dd']
    assert planned.listeners[names.dhcp_namespace(NET)] == ('networks', NET)


@pytest.mark.parametrize('bad', ['x\ndhcp-script=/bin/sh', 'a,b', '-', 'ä', '', 'a' * 70])
def test_names_and_options_of_users_stay_what_they_are(bad):
    made = wanted()
    made.members[uuid('a')] = dataclasses.replace(made.members[uuid('a')], hostname=bad, extra_dhcp_opts=(
        {'opt_name': bad, 'opt_value': 'x', 'ip_version': 4}, {'opt_name': 'tftp-server', 'opt_value': 'v\nw', 'ip_version': 4},
        {'opt_name': '150', 'opt_value': '10.0.0.9', 'ip_version': 4}))
    service = plan(made).services[NET]
    text = service.main + ''.join(service.files.values())
    assert 'dhcp-script' not in text
    assert 'host-10-0-0-10.a.test,10.0.0.10' in service.files['hosts']
    options = [line for line in service.files['options'].splitlines() if line.startswith('tag:port')]
    assert [line for line in options if not line.endswith(',x')] == ['tag:port-aaaaaaaaaaaa,150,10.0.0.9']
    assert not any(bad and f',{bad},' in line.replace('option:', '') for line in options)


def test_dhcp_of_ipv6():
    made = wanted()
    six = state.Subnet('s6', 'fd00::/64', 6, 'fd00::1', ipv6_address_mode='dhcpv6-stateful', ipv6_ra_mode='dhcpv6-stateful')
    made.networks[NET] = dataclasses.replace(made.networks[NET], subnets=(*made.networks[NET].subnets, six))
    made.members[uuid('a')] = dataclasses.replace(made.members[uuid('a')], fixed_ips=(
        state.FixedIP('s', '10.0.0.10'), state.FixedIP('s6', 'fd00::5')))
    service = plan(made).services[NET]
    assert 'fa:16:3e:00:00:0a,host-fd00-5.a.test,[fd00::5]' in service.files['hosts']
    assert ',fd00::,static,64,86400s' in service.body
    slaac = dataclasses.replace(six, ipv6_address_mode='slaac', ipv6_ra_mode='slaac')
    made.networks[NET] = dataclasses.replace(made.networks[NET], subnets=(*wanted().networks[NET].subnets, slaac))
    assert '[fd00::5]' not in plan(made).services[NET].files['hosts']
    stateless = dataclasses.replace(six, ipv6_address_mode='dhcpv6-stateless', dns_nameservers=('fd00::53',))
    made.networks[NET] = dataclasses.replace(made.networks[NET], subnets=(*wanted().networks[NET].subnets, stateless))
    assert 'option6:dns-server,[fd00::53]' in plan(made).services[NET].files['options'].splitlines()


def test_only_hosts_that_share_a_network_may_send_tunnelled_packets():
    table = plan(wanted()).tables[''][tunnel.TUNNEL]
    assert table.sets['peers4'].elements == {'192.0.2.1': '', '192.0.2.2': ''}
    assert plan(state.Wanted()).tables[''] == {}


def test_a_document_that_makes_no_sense_harms_nothing_else():
    made = wanted()
    made.routers['broken'] = state.Router('broken', legs=(
        state.RouterLeg('leg-of-broken', NET, 'fa:16:3e:00:00:33', (state.FixedIP('s', '10.0.0.1'),)),),
        routes=({'destination': 'nowhere', 'nexthop': '10.0.0.9'},))
    made.ports[uuid('a')] = dataclasses.replace(made.ports[uuid('a')], mac='fa:16}; flush ruleset', fixed_ips=(
        state.FixedIP('s', 'ten'),))
    made.set_members['x'] = state.SetMember('x', 'set', addresses=('nonsense', '10.0.0.1'))
    planned = plan(made)
    assert 'makes no sense' in planned.problems['routers', 'broken']
    assert 'make no sense' in planned.problems['ports', uuid('a')]
    assert ('ports', uuid('b')) not in planned.problems
    assert not any('leg-of-brok' in name for name in planned.spaces[''].links)
    scripts = [nft.diff(table, None) for table in planned.tables[''].values()]
    assert 'flush ruleset' not in ''.join(scripts)


def test_ports_wait_for_their_filters():
    made = plan(wanted())
    assert made.filtered == {uuid('a'), uuid('b')}
    assert made.spaces[''].owner == ('filters', '')


def test_a_network_without_dhcp_has_no_service():
    made = wanted()
    subnet = dataclasses.replace(made.networks[NET].subnets[0], enable_dhcp=False)
    made.networks[NET] = dataclasses.replace(made.networks[NET], subnets=(subnet,))
    assert not dhcp.serves(made.networks[NET])
    assert plan(made).services == {}


def test_script_of_a_whole_host_names_our_tables_only():
    made = plan(wanted())
    for tables in made.tables.values():
        for title, table in tables.items():
            assert title.split(' ')[1].startswith('kodiak-')
            assert nft.diff(table, None).startswith(f'add table {title}\n')


def test_addresses_are_canonical():
    made = plan(wanted())
    for space in made.spaces.values():
        for cidr in (cidr for group in space.addresses.values() for cidr in group):
            assert str(ipaddress.ip_interface(cidr)) == cidr
