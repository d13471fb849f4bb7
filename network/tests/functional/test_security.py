"""Security groups, address groups, port security."""
import pytest

from kodiak.common import testing


def kind(answer, status):
    return answer.expect(status).json['NeutronError']['type']


@pytest.fixture
def group(member, make):
    return make(member, 'security_group', name='g')


@pytest.mark.parametrize(('values', 'type_'), [
    ({'protocol': 'nonsense'}, 'SecurityGroupRuleInvalidProtocol'), ({'protocol': 256}, 'SecurityGroupRuleInvalidProtocol'),
    ({'ethertype': 'IPv5'}, None), ({'direction': 'sideways'}, None), ({'remote_ip_prefix': '10.0.0.0/33'}, 'HTTPBadRequest'),
    ({'remote_ip_prefix': 'fd00::/64'}, 'SecurityGroupRuleParameterConflict'),
    ({'protocol': 'ipv6-icmp'}, 'SecurityGroupEthertypeConflictWithProtocol'),
    ({'port_range_min': 1, 'port_range_max': 2}, 'SecurityGroupProtocolRequiredWithPorts'),
    ({'protocol': 'tcp', 'port_range_min': 5}, 'SecurityGroupInvalidPortRange'),
    ({'protocol': 'tcp', 'port_range_min': 9, 'port_range_max': 5}, 'SecurityGroupInvalidPortRange'),
    ({'protocol': 'udp', 'port_range_min': 0, 'port_range_max': 5}, 'SecurityGroupInvalidPortValue'),
    ({'protocol': 'esp', 'port_range_min': 1, 'port_range_max': 5}, 'SecurityGroupInvalidProtocolForPort'),
    ({'protocol': 'icmp', 'port_range_min': 256}, 'SecurityGroupInvalidIcmpValue'),
    ({'protocol': 'icmp', 'port_range_max': 1}, 'SecurityGroupMissingIcmpType'),
])
def test_rules_that_make_no_sense(member, group, values, type_):
    body = {'security_group_id': group['id'], 'direction': 'ingress', **values}
    assert type_ in (None, kind(member.post('/security-group-rules', {'security_group_rule': body}), 400))


@pytest.mark.parametrize(
    'values',
    [
        {'protocol': 'tcp', 'port_range_min': 22, 'port_range_max': 22},
        {'protocol': 6},
        {'protocol': '132'},
        {'protocol': 'vrrp'},
        {'protocol': 'icmp', 'port_range_min': 8, 'port_range_max': 0},
        {'protocol': 'icmpv6', 'ethertype': 'ipv6'},
        {'protocol': 'any'},
        {'remote_ip_prefix': '10.1.2.3/8'},
        {'remote_ip_prefix': '192.0.2.7'},
        {'protocol': 0},
    ],
)
def test_rules_are_the_same_only_if_they_say_the_same(member, group, values):
    body = {'security_group_id': group['id'], 'direction': 'ingress', **values}
    rule = member.post('/security-group-rules', {'security_group_rule': body}).expect(201).json['security_group_rule']
    error = member.post('/security-group-rules', {'security_group_rule': body}).expect(409).json['NeutronError']
    assert error['type'] == 'SecurityGroupRuleExists' and rule['id'] in error['message']
    if values == {'remote_ip_prefix': '10.1.2.3/8'}:
        assert rule['normalized_cidr'] == '10.0.0.0/8' and rule['remote_ip_prefix'] == '10.1.2.3/8'
    member.delete('/security-group-rules/' + rule['id']).expect(204)
    member.get('/security-group-rules/' + rule['id']).expect(404)


def test_the_same_protocol_by_name_and_number(member, group):
    body = {'security_group_id': group['id'], 'direction': 'ingress'}
    member.post('/security-group-rules', {'security_group_rule': {**body, 'protocol': 'udp'}}).expect(201)
    member.post('/security-group-rules', {'security_group_rule': {**body, 'protocol': 17}}).expect(409)
    member.post(
        '/security-group-rules', {'security_group_rule': {**body, 'remote_ip_prefix': '0.0.0.0/0', 'protocol': 'udp'}}
    ).expect(409)


def test_groups_of_others(member, as_, group, make, net):
    other = as_(testing.OTHER)
    other.get('/security-groups/' + group['id']).expect(404)
    other.post('/security-group-rules', {'security_group_rule': {
        'security_group_id': group['id'], 'direction': 'ingress'}}).expect(404)
    network, _ = net(other, '10.5.0.0/24')
    assert kind(other.post('/ports', {'port': {'network_id': network['id'], 'security_groups': [group['id']]}}),
                404) == 'SecurityGroupNotFound'
    assert kind(other.post('/security-group-rules', {'security_group_rule': {
        'security_group_id': other.get('/security-groups').json['security_groups'][0]['id'], 'direction': 'ingress',
        'remote_group_id': group['id']}}), 404) == 'SecurityGroupNotFound'
    member.post(
        '/rbac-policies',
        {
            'rbac_policy': {
                'object_type': 'security_group',
                'object_id': group['id'],
                'action': 'access_as_shared',
                'target_tenant': testing.OTHER_PROJECT,
            }
        },
    ).expect(201)
    assert other.get('/security-groups/' + group['id']).expect(200).json['security_group']['shared'] is True
    make(other, 'port', network_id=network['id'], security_groups=[group['id']])
    other.delete('/security-groups/' + group['id']).expect(403)


def test_the_default_group(member, admin):
    [default] = member.get('/security-groups?name=default').json['security_groups']
    assert kind(member.delete('/security-groups/' + default['id']), 409) == 'SecurityGroupCannotRemoveDefault'
    assert kind(member.put('/security-groups/' + default['id'], {'security_group': {'name': 'x'}}),
                409) == 'SecurityGroupCannotUpdateDefault'
    assert (
        kind(member.post('/security-groups', {'security_group': {'name': 'default'}}), 409) == 'SecurityGroupDefaultAlreadyExists'
    )


def test_two_first_requests_make_one_default_group(service, as_):
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: as_(testing.MEMBER).get('/security-groups').status, range(8)))
    assert set(answers) == {200}
    assert len(as_(testing.MEMBER).get('/security-groups').json['security_groups']) == 1


def test_what_new_groups_begin_with_can_be_changed(member, admin, make):
    rule = make(admin, 'default_security_group_rule', direction='ingress', protocol='tcp', port_range_min=22, port_range_max=22)
    group = make(member, 'security_group', name='with ssh')
    assert [one['port_range_min'] for one in group['security_group_rules'] if one['direction'] == 'ingress'] == [22]
    admin.delete('/default-security-group-rules/' + rule['id']).expect(204)
    assert len(make(member, 'security_group', name='without')['security_group_rules']) == 2
    member.post('/default-security-group-rules', {'default_security_group_rule': {'direction': 'ingress'}}).expect(403)


def test_groups_in_use(member, group, make, net):
    network, _ = net(member)
    port = make(member, 'port', network_id=network['id'], security_groups=[group['id']])
    assert kind(member.delete('/security-groups/' + group['id']), 409) == 'SecurityGroupInUse'
    assert [one['id'] for one in member.get('/ports?security_groups=' + group['id']).json['ports']] == [port['id']]
    changed = member.put('/ports/' + port['id'], {'port': {'security_groups': []}}).expect(200).json['port']
    assert changed['security_groups'] == []
    member.delete('/security-groups/' + group['id']).expect(204)


def test_port_security(member, group, make, net):
    network, _ = net(member, network={'port_security_enabled': False})
    port = make(member, 'port', network_id=network['id'])
    assert port['port_security_enabled'] is False and port['security_groups'] == []
    assert kind(member.post('/ports', {'port': {'network_id': network['id'], 'security_groups': [group['id']]}}),
                400) == 'PortSecurityAndIPRequiredForSecurityGroups'
    path = '/ports/' + port['id']
    member.put(path, {'port': {'port_security_enabled': True, 'security_groups': [group['id']]}}).expect(200)
    assert kind(member.put(path, {'port': {'port_security_enabled': False}}), 409) == 'PortSecurityPortHasSecurityGroup'
    member.put(path, {'port': {'port_security_enabled': False, 'security_groups': []}}).expect(200)
    assert kind(member.put(path, {'port': {'allowed_address_pairs': [{'ip_address': '10.0.0.9'}]}}),
                409) == 'AddressPairAndPortSecurityRequired'


def test_allowed_address_pairs(member, make, net):
    network, _ = net(member)
    port = make(member, 'port', network_id=network['id'], allowed_address_pairs=[
        {'ip_address': '10.0.0.9'}, {'ip_address': '192.0.2.0/24', 'mac_address': 'FA:16:3E:00:00:01'}])
    assert port['allowed_address_pairs'] == [{'ip_address': '10.0.0.9', 'mac_address': port['mac_address']},
                                             {'ip_address': '192.0.2.0/24', 'mac_address': 'fa:16:3e:00:00:01'}]
    path = '/ports/' + port['id']
    twice = [{'ip_address': '10.0.0.9'}, {'ip_address': '10.0.0.9'}]
    assert kind(member.put(path, {'port': {'allowed_address_pairs': twice}}), 400) == 'DuplicateAddressPairInRequest'
    many = [{'ip_address': f'10.0.1.{n}'} for n in range(11)]
    assert kind(member.put(path, {'port': {'allowed_address_pairs': many}}), 400) == 'AllowedAddressPairExhausted'
    assert kind(member.put(path, {'port': {'allowed_address_pairs': [{'ip_address': 'x'}]}}), 400) == 'HTTPBadRequest'


def test_address_groups_reach_hosts(member, admin, make, net, agent, group):
    host = agent()
    network, _ = net(member)
    addresses = make(member, 'address_group', name='a', addresses=['192.0.2.1', '198.51.100.0/24'])
    assert addresses['addresses'] == ['192.0.2.1/32', '198.51.100.0/24']
    make(member, 'security_group_rule', security_group_id=group['id'], direction='ingress', remote_address_group_id=addresses['id'])
    make(admin, 'port', network_id=network['id'], project_id=testing.PROJECT, security_groups=[group['id']],
         device_owner='compute:nova', **{'binding:host_id': 'host1'})
    host.look()
    assert host.wanted.set_members[addresses['id']].addresses == ('192.0.2.1/32', '198.51.100.0/24')
    path = '/address-groups/' + addresses['id']
    member.put(path + '/add_addresses', {'addresses': ['203.0.113.9']}).expect(200)
    changed = member.put(path + '/remove_addresses', {'addresses': ['192.0.2.1/32']}).expect(200).json['address_group']
    assert changed['addresses'] == ['198.51.100.0/24', '203.0.113.9/32']
    assert host.look() == {('set_members', addresses['id'])}
    assert kind(member.delete(path), 409) == 'AddressGroupInUse'


def test_qos(member, admin, make, net, agent):
    host = agent()
    network, _ = net(member)
    member.post('/qos/policies', {'policy': {'name': 'p'}}).expect(403)
    policy = admin.post('/qos/policies', {'policy': {'name': 'p', 'shared': True}}).expect(201).json['policy']
    rules = f"/qos/policies/{policy['id']}/bandwidth_limit_rules"
    rule = admin.post(rules, {'bandwidth_limit_rule': {'max_kbps': 1000, 'max_burst_kbps': 100}}).expect(201).json[
        'bandwidth_limit_rule']
    assert rule['direction'] == 'egress'
    assert kind(admin.post(rules, {'bandwidth_limit_rule': {'max_kbps': 5}}), 409) == 'QoSRulesConflict'
    admin.post(rules, {'bandwidth_limit_rule': {'max_burst_kbps': 5, 'direction': 'ingress'}}).expect(400)
    port = make(admin, 'port', network_id=network['id'], project_id=testing.PROJECT, device_owner='compute:nova',
                **{'binding:host_id': 'host1'})
    member.put('/ports/' + port['id'], {'port': {'qos_policy_id': policy['id']}}).expect(200)
    host.look()
    assert host.wanted.ports[port['id']].qos.egress_kbps == 1000
    admin.put(f"{rules}/{rule['id']}", {'bandwidth_limit_rule': {'max_kbps': 2000}}).expect(200)
    host.look()
    assert host.wanted.ports[port['id']].qos.egress_kbps == 2000
    assert kind(admin.delete('/qos/policies/' + policy['id']), 409) == 'QosPolicyInUse'
    assert [one['type'] for one in member.get('/qos/policies/' + policy['id']).json['policy']['rules']] == ['bandwidth_limit']
    marks = f"/qos/policies/{policy['id']}/dscp_marking_rules"
    mark = admin.post(marks, {'dscp_marking_rule': {'dscp_mark': 46}}).expect(201).json['dscp_marking_rule']['id']
    host.look()
    assert (host.wanted.ports[port['id']].qos.dscp, host.wanted.ports[port['id']].qos.egress_kbps) == (46, 2000)
    admin.delete(f'{marks}/{mark}').expect(204)
    admin.delete(f"{rules}/{rule['id']}").expect(204)
    host.look()
    assert host.wanted.ports[port['id']].qos is None
    assert {'type': 'bandwidth_limit'} in member.get('/qos/rule-types').json['rule_types']
    assert member.get('/qos/rule-types/bandwidth_limit').expect(200)
