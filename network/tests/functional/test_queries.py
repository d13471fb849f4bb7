"""How many statements a request costs: a show at most 2, a list at most 3, whatever its length."""
import pytest

from kodiak.common import db, testing


def count(client, method, path, body=None):
    with db.count_queries() as statements:
        answer = client.request(method, path, json=body)
    assert answer.status < 300, answer.data
    return len(statements), answer.json, statements


@pytest.fixture
def some(admin, member, net, make):
    external, _ = net(admin, '203.0.113.0/24', {'router:external': True}, enable_dhcp=False)
    network, subnet = net(member)
    router = make(member, 'router', external_gateway_info={'network_id': external['id']})
    member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200)
    ports = member.post('/ports', {'ports': [{'network_id': network['id']}] * 20}).expect(201).json['ports']
    floating = [make(member, 'floatingip', floating_network_id=external['id'], port_id=port['id']) for port in ports[:3]]
    group = member.get('/security-groups').json['security_groups'][0]
    return {'networks': network, 'subnets': subnet, 'ports': ports[0], 'routers': router, 'floatingips': floating[0],
            'security-groups': group, 'security-group-rules': group['security_group_rules'][0]}


@pytest.mark.parametrize('persona', [testing.MEMBER, testing.ADMIN], ids=['member', 'admin'])
def test_reads(some, as_, persona):
    client = as_(persona)
    if persona is testing.ADMIN:
        client.get('/security-groups')
    for plural, one in some.items():
        assert count(client, 'GET', f"/{plural}/{one['id']}")[0] <= (3 if plural == 'floatingips' else 2), plural
        assert count(client, 'GET', f'/{plural}')[0] <= 3, plural
        assert count(client, 'GET', f'/{plural}?fields=id')[0] <= 3, plural


def test_writes(some, member, net, make):
    network = some['networks']
    used, _, statements = count(member, 'POST', '/networks', {'network': {'name': 'x'}})
    assert used <= 9, statements
    bare = make(member, 'network')
    used, _, statements = count(
        member, 'POST', '/subnets', {'subnet': {'network_id': bare['id'], 'cidr': '10.3.0.0/24', 'ip_version': 4}}
    )
    assert used <= 14, statements
    used, port, statements = count(member, 'POST', '/ports', {'port': {'network_id': network['id']}})
    assert used <= 20, statements
    used, _, statements = count(member, 'PUT', '/ports/' + port['port']['id'], {'port': {'name': 'y'}})
    assert used <= 6, statements
    used, _, statements = count(member, 'DELETE', '/ports/' + port['port']['id'])
    assert used <= 14, statements


def test_a_host_where_nothing_changed_asks_two_statements(service, agent, member, net, make, admin):
    host = agent()
    network, _ = net(member)
    make(admin, 'port', network_id=network['id'], **{'binding:host_id': 'host1', 'device_owner': 'compute:nova', 'device_id': 'x'})
    host.look()
    host.done()
    host.look()
    with db.count_queries() as statements:
        assert host.look() == set()
    assert len(statements) <= 2
