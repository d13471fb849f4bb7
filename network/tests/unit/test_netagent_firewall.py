"""Security groups and anti-spoofing as tables, and which connections a change ends."""
import dataclasses

import pytest

from kodiak.network.agent import nft, state
from kodiak.network.drivers.linuxbridge import cuts, firewall, marks

NET, SUBNET = '11111111-1111-4111-8111-111111111111', 'subnet'
BRIDGES = {NET: 'brq11111111-11'}


def key(letter):
    return '-'.join(letter * count for count in (8, 4, 4, 4, 12))


def port(letter, number, **values):
    return state.Port(key(letter), NET, f'fa:16:3e:00:00:{number:02x}', **{
        'fixed_ips': (state.FixedIP(SUBNET, f'10.0.0.{number}'),), 'security_groups': ('g',), **values})


def wanted(ports, groups, members=()):
    made = state.Wanted()
    made.networks = {NET: state.Network(NET)}
    made.ports = {one.id: one for one in ports}
    made.security_groups = {one.id: one for one in groups}
    made.set_members = {one.id: one for one in members}
    return made


def group(*rules, **values):
    return state.SecurityGroup('g', rules=rules, **values)


def plan(made, observed=None):
    return firewall.plan(made, BRIDGES, observed or {})


SSH = state.Rule('r', 'ingress', protocol='tcp', port_range_min=22, port_range_max=22)


@pytest.mark.parametrize(('rule', 'text'), [
    (SSH, 'meta nfproto ipv4 meta l4proto 6 th dport 22 accept'),
    (state.Rule('r', 'ingress', protocol='udp', port_range_min=1, port_range_max=9, remote_ip_prefix='10.1.0.0/16'),
     'meta nfproto ipv4 meta l4proto 17 th dport 1-9 ip saddr 10.1.0.0/16 accept'),
    (state.Rule('r', 'egress', 'IPv6', remote_ip_prefix='::/0'), 'meta nfproto ipv6 accept'),
    (state.Rule('r', 'egress', 'IPv6', protocol='icmp', port_range_min=128),
     'meta nfproto ipv6 meta l4proto 58 icmpv6 type 128 accept'),
    (state.Rule('r', 'ingress', protocol='icmp', port_range_min=8, port_range_max=0),
     'meta nfproto ipv4 meta l4proto 1 icmp type 8 icmp code 0 accept'),
    (state.Rule('r', 'ingress', protocol='112'), 'meta nfproto ipv4 meta l4proto 112 accept'),
    (state.Rule('r', 'egress', remote_set='s'), 'meta nfproto ipv4 ip daddr @members4-s accept'),
    (state.Rule('r', 'ingress', protocol='any'), 'meta nfproto ipv4 accept'),
])
def test_rules(rule, text):
    assert firewall.rule_texts(rule, ()) == [text]


def test_what_a_port_sends_is_marked():
    made = wanted([port('a', 1, qos=state.Qos(dscp=46)), port('b', 2, qos=state.Qos(dscp=46), port_security_enabled=False),
                   port('c', 3, qos=state.Qos(dscp=0)), port('d', 4, qos=state.Qos(egress_kbps=5)), port('e', 5)], [])
    table, = marks.plan(made, BRIDGES).values()
    assert {name: list(one.elements) for name, one in table.sets.items()} == {
        'dscp-0': ['tapcccccccc-cc'], 'dscp-46': ['tapaaaaaaaa-aa', 'tapbbbbbbbb-bb']}
    assert 'iifname @dscp-46 ether type ip6 ip6 dscp set 46' in table.chains['sending'].rules
    assert marks.plan(wanted([port('e', 5)], []), BRIDGES) == {}


def test_a_remote_group_with_ranges_is_two_rules():
    rule = state.Rule('r', 'ingress', remote_set='s')
    assert len(firewall.rule_texts(rule, {'ranges4-s'})) == 2


@pytest.mark.parametrize('rule', [
    state.Rule('r', 'ingress', protocol='teleport'), state.Rule('r', 'ingress', protocol='300'),
    state.Rule('r', 'ingress', protocol='gre', port_range_min=1, port_range_max=2),
    state.Rule('r', 'ingress', remote_ip_prefix='ten'),
])
def test_rules_that_can_not_be_enforced(rule):
    with pytest.raises(ValueError, match=r'.'):
        firewall.rule_texts(rule, ())
    made, filtered, problems = plan(wanted([port('a', 1)], [group(rule)]))
    assert filtered == {key('a')}
    assert 'security group g' in problems[key('a')]
    assert made[firewall.GROUPS].chains['ingress-g'].rules == ('return',)


def test_a_port_lets_nothing_through_that_no_rule_allows():
    made, _, _ = plan(wanted([port('a', 1)], [group(SSH)]))
    groups = made[firewall.GROUPS]
    for direction in ('ingress', 'egress'):
        chain = groups.chains[f'{direction}-tapaaaaaaaa-aa'].rules
        assert chain[-1] == 'drop'
        assert f'jump {direction}-g' in chain
        assert chain[0] == 'ct state established,related accept'
    assert groups.sets['zones'].elements == {'brq11111111-11': '1'}


def test_stateless_groups_trust_no_state():
    made, _, _ = plan(wanted([port('a', 1)], [group(SSH, stateful=False)]))
    assert not any('ct state' in rule for rule in made[firewall.GROUPS].chains['ingress-tapaaaaaaaa-aa'].rules)


def test_an_unknown_group_is_a_problem_and_allows_nothing():
    made, _, problems = plan(wanted([port('a', 1)], []))
    assert 'not known' in problems[key('a')]
    assert made[firewall.GROUPS].chains['ingress-g'].rules == ('return',)


def test_what_a_guest_may_send_as():
    pairs = (state.AddressPair('10.9.0.0/24', 'fa:16:3e:00:00:99'), state.AddressPair('10.0.0.50', 'fa:16:3e:00:00:01'))
    made, _, _ = plan(wanted([port('a', 1, allowed_address_pairs=pairs)], [group()]))
    sets = made[firewall.GUARD].sets
    assert set(sets['macs'].elements) == {'tapaaaaaaaa-aa . fa:16:3e:00:00:01', 'tapaaaaaaaa-aa . fa:16:3e:00:00:99'}
    assert set(sets['addresses4'].elements) == {'tapaaaaaaaa-aa . fa:16:3e:00:00:01 . 10.0.0.1',
                                                'tapaaaaaaaa-aa . fa:16:3e:00:00:01 . 10.0.0.50'}
    assert set(sets['networks4'].elements) == {'tapaaaaaaaa-aa . fa:16:3e:00:00:99 . 10.9.0.0/24'}
    assert 'tapaaaaaaaa-aa . fa:16:3e:00:00:01 . fe80::f816:3eff:fe00:1' in sets['addresses6'].elements


def test_a_port_without_port_security_has_no_filters():
    assert plan(wanted([port('a', 1, port_security_enabled=False)], [group()])) == ({}, set(), {})
    made, filtered, _ = plan(wanted([port('a', 1, port_security_enabled=False), port('b', 2)], [group()]))
    assert filtered == {key('b')}
    assert list(made[firewall.GUARD].sets['sources'].elements) == ['tapbbbbbbbb-bb']


def test_numbers_stay_and_holes_are_filled():
    first, _, _ = plan(wanted([port('a', 1), port('b', 2)], [group()]))
    second, _, _ = plan(wanted([port('b', 2), port('c', 3)], [group()]), first)
    sources = second[firewall.GUARD].sets['sources'].elements
    assert sources['tapbbbbbbbb-bb'] == first[firewall.GUARD].sets['sources'].elements['tapbbbbbbbb-bb']
    assert sources['tapcccccccc-cc'] == first[firewall.GUARD].sets['sources'].elements['tapaaaaaaaa-aa']


def test_a_new_member_of_a_remote_group_touches_no_rule():
    rule = state.Rule('r', 'ingress', remote_set='g')
    members = [state.SetMember(f'g/{number}', 'g', addresses=(f'10.0.0.{number}',)) for number in (1, 2)]
    first, _, _ = plan(wanted([port('a', 1)], [group(rule)], members[:1]))
    second, _, _ = plan(wanted([port('a', 1)], [group(rule)], members), first)
    assert nft.diff(second[firewall.GUARD], first[firewall.GUARD]) == ''
    assert nft.diff(second[firewall.GROUPS], first[firewall.GROUPS]) \
        == 'add element inet kodiak-groups members4-g { 10.0.0.2 }\n'


def cut(before, after):
    first, _, _ = plan(before)
    second, _, _ = plan(after, first)
    return cuts.plan(first, second)


def test_no_connection_ends_when_more_is_allowed():
    http = dataclasses.replace(SSH, id='h', port_range_min=80, port_range_max=80)
    ports = [port('a', 1), port('b', 2)]
    assert cut(wanted(ports, [group(SSH)]), wanted([*ports, port('c', 3)], [group(SSH, http)])) == []


def test_connections_end_with_the_rule_that_allowed_them():
    ports = [port('a', 1), port('b', 2)]
    assert cut(wanted(ports, [group(SSH)]), wanted(ports, [group()])) == [(1, '10.0.0.1'), (1, '10.0.0.2')]


def test_connections_end_with_the_port_the_group_and_the_address():
    two = [port('a', 1), port('b', 2)]
    assert cut(wanted(two, [group(SSH)]), wanted(two[1:], [group(SSH)])) == [(1, '10.0.0.1')]
    other = dataclasses.replace(two[0], security_groups=())
    assert cut(wanted(two, [group(SSH)]), wanted([other, two[1]], [group(SSH)])) == [(1, '10.0.0.1')]
    moved = dataclasses.replace(two[0], fixed_ips=(state.FixedIP(SUBNET, '10.0.0.77'),))
    assert cut(wanted(two, [group(SSH)]), wanted([moved, two[1]], [group(SSH)])) == [(1, '10.0.0.1')]


def test_all_connections_of_a_network_end_with_its_last_port():
    assert cut(wanted([port('a', 1)], [group(SSH)]), wanted([], [])) == [(1, '')]


def test_connections_end_with_the_member_of_a_remote_group():
    rule = state.Rule('r', 'ingress', remote_set='g')
    members = [state.SetMember(f'g/{number}', 'g', addresses=(f'10.0.0.{number}',)) for number in (1, 2)]
    ports = [port('a', 1)]
    assert cut(wanted(ports, [group(rule)], members), wanted(ports, [group(rule)], members[:1])) == [(1, '10.0.0.2')]


def test_after_a_restart_a_changed_chain_counts_as_less():
    first, _, _ = plan(wanted([port('a', 1)], [group(SSH)]))
    for table in first.values():
        for chain in table.chains.values():
            chain_hash = chain.hash
            chain.seen = chain_hash
    more = dataclasses.replace(SSH, id='h', port_range_min=80, port_range_max=80)
    second, _, _ = plan(wanted([port('a', 1)], [group(SSH, more)]), first)
    assert cuts.plan(first, second) == [(1, '10.0.0.1')]
    same, _, _ = plan(wanted([port('a', 1)], [group(SSH)]), first)
    assert cuts.plan(first, same) == []
