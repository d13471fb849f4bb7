"""The conductor: reports, deadlines, agents that die, agents as the API shows them, what compute is told."""
import datetime

import pytest
import sqlalchemy as sa

from kodiak.common import db, errors, outbox, testing
from kodiak.common.context import background
from kodiak.network import conductor, models

SERVER = '5e7e7e7e-0000-4000-8000-000000000001'


def sleep(service, host, seconds=1000):
    """Have the agent of a host been silent for a while."""
    with service.db.write() as conn:
        conn.execute(sa.update(models.hosts).where(models.hosts.c.host == host).values(
            last_seen_at=db.utcnow() - datetime.timedelta(seconds=seconds)))
    service.conductor._beats.clear()


def tidy(service):
    conductor.Housekeeper(service.runtime).run_once()


def told(service):
    """What waits to be told to compute: ``[(event, server, port, status)]``."""
    with service.db.read() as conn:
        return [(row.payload['name'], row.payload['server_uuid'], row.payload['tag'], row.payload['status'])
                for row in conn.execute(sa.select(outbox.rows).order_by(outbox.rows.c.id))]


@pytest.fixture
def bound(admin, make):
    """``bound(network, host)`` makes a port of a server on a host."""
    def create(network, host='host1', **more):
        return make(
            admin,
            'port',
            network_id=network['id'],
            project_id=testing.PROJECT,
            device_owner='compute:nova',
            device_id=SERVER,
            **{'binding:host_id': host},
            **more,
        )
    return create


def test_a_port_is_active_once_its_host_has_wired_it(service, admin, agent, net, member, bound):
    host, (network, _) = agent(), net(member)
    port = bound(network)
    host.look()
    host.done('ports', error='no such bridge')
    shown = admin.get('/ports/' + port['id']).json['port']
    assert shown['status'] == 'DOWN' and told(service) == []
    # A report about what is no longer wanted says nothing.
    service.conductor.report(background(), 'host1', [{'kind': 'ports', 'id': port['id'], 'generation': 99, 'error': None}])
    service.conductor.report(background(), 'host2', [{'kind': 'ports', 'id': port['id'], 'generation': 1, 'error': None}])
    assert admin.get('/ports/' + port['id']).json['port']['status'] == 'DOWN'
    host.done('ports')
    host.done('ports')
    assert admin.get('/ports/' + port['id']).json['port']['status'] == 'ACTIVE'
    assert told(service) == [('network-vif-plugged', SERVER, port['id'], None)]
    member.delete('/ports/' + port['id']).expect(204)
    assert told(service)[1:] == [('network-vif-deleted', SERVER, port['id'], None)]


def test_a_port_that_is_never_wired_fails_with_a_reason(service, admin, agent, net, member, bound):
    agent()
    network, _ = net(member)
    port = bound(network)
    tidy(service)
    assert admin.get('/ports/' + port['id']).json['port']['status'] == 'DOWN'
    with service.db.write() as conn:
        conn.execute(sa.update(models.ports).values(wire_by=db.utcnow() - datetime.timedelta(seconds=1)))
    tidy(service)
    assert admin.get('/ports/' + port['id']).json['port']['status'] == 'ERROR'
    assert told(service) == [('network-vif-plugged', SERVER, port['id'], 'failed')]
    tidy(service)
    assert len(told(service)) == 1


def test_a_port_may_wait_for_a_host_to_come_up_for_the_first_time(service, admin, agent, net, member, bound):
    network, _ = net(member)
    port = bound(network, 'late')
    assert port['binding:vif_type'] == 'binding_failed'
    late = agent('late')
    late.look()
    assert admin.get('/ports/' + port['id']).json['port']['binding:vif_type'] == 'tap'
    assert set(late.wanted.ports) == {port['id']}


def test_what_a_dead_host_served_is_served_by_another(service, admin, agent, net, member, bound, make):
    first, second = agent('host1', tunnel_ip='192.0.2.1'), agent('host2', tunnel_ip='192.0.2.2')
    external, _ = net(admin, '203.0.113.0/24', {'router:external': True}, enable_dhcp=False)
    network, subnet = net(member)
    router = make(member, 'router', external_gateway_info={'network_id': external['id']})
    member.put(f"/routers/{router['id']}/add_router_interface", {'subnet_id': subnet['id']}).expect(200)
    bound(network)
    hosts = {'host1': first, 'host2': second}

    def places():
        with service.db.read() as conn:
            return (conn.scalar(sa.select(models.routers.c.host)), conn.scalar(sa.select(models.dhcp_placements.c.host)))
    tidy(service)
    for dead in ('host1', 'host2', 'host1'):
        alive = 'host2' if dead == 'host1' else 'host1'
        hosts[alive].look()
        sleep(service, dead)
        tidy(service)
        assert places() == (alive, alive)
        hosts[alive].look()
        assert set(hosts[alive].wanted.routers) == {router['id']}
        assert hosts[alive].wanted.networks[network['id']].dhcp is not None
        hosts[dead].look()
        assert not hosts[dead].wanted.routers
    # Nothing moves where there is nobody else.
    before = places()
    for name in hosts:
        sleep(service, name)
    tidy(service)
    assert places() == before
    legs = admin.get(f"/ports?device_id={router['id']}").json['ports']
    assert {port['binding:host_id'] for port in legs} == {before[0]}


def test_load_is_spread(service, agent, net, member, make):
    for name in ('host1', 'host2', 'host3'):
        agent(name)
    for number in range(6):
        network, _ = net(member, f'10.{number}.0.0/24')
        make(member, 'port', network_id=network['id'])
    with service.db.read() as conn:
        placed = [row[1] for row in conn.execute(sa.select(models.dhcp_placements.c.host, sa.func.count()).group_by(
            models.dhcp_placements.c.host))]
    assert placed == [2, 2, 2]


def test_agents(admin, member, agent, service):
    assert member.get('/agents').expect(200).json['agents'] == []
    agent('host1')
    found = admin.get('/agents').expect(200).json['agents']
    assert {one['agent_type'] for one in found} == {'Linux bridge agent', 'DHCP agent', 'L3 agent', 'Metadata agent'}
    assert all(one['alive'] and one['admin_state_up'] for one in found)
    [dhcp] = admin.get('/agents?agent_type=DHCP agent&host=host1').json['agents']
    assert dhcp['configurations']['tunneling_ip'] == '192.0.2.1'
    member.get('/agents/' + dhcp['id']).expect(403)
    off = admin.put('/agents/' + dhcp['id'], {'agent': {'admin_state_up': False, 'description': 'being repaired'}}).expect(200).json
    assert off['agent']['admin_state_up'] is False
    sleep(service, 'host1')
    assert not any(one['alive'] for one in admin.get('/agents').json['agents'])
    assert admin.get('/availability_zones').json['availability_zones'][0]['state'] == 'unavailable'
    admin.delete('/agents/' + dhcp['id']).expect(204)
    admin.get('/agents/' + dhcp['id']).expect(404)


def test_agents_serve_what_an_administrator_says(admin, member, agent, net, make):
    agent('host1')
    agent('host2')
    network, _ = net(member)
    dhcp = {one['host']: one['id'] for one in admin.get('/agents?agent_type=DHCP agent').json['agents']}
    l3 = {one['host']: one['id'] for one in admin.get('/agents?agent_type=L3 agent').json['agents']}
    path = f"/agents/{dhcp['host2']}/dhcp-networks"
    admin.post(path, {'network_id': network['id']}).expect(201)
    admin.post(path, {'network_id': network['id']}).expect(409)
    assert [one['id'] for one in admin.get(path).json['networks']] == [network['id']]
    assert [one['host'] for one in admin.get(f"/networks/{network['id']}/dhcp-agents").json['agents']] == ['host2']
    admin.delete(f"{path}/{network['id']}").expect(204)
    admin.delete(f"{path}/{network['id']}").expect(409)
    router = make(member, 'router')
    admin.post(f"/agents/{l3['host1']}/l3-routers", {'router_id': router['id']}).expect(201)
    admin.post(f"/agents/{l3['host2']}/l3-routers", {'router_id': router['id']}).expect(409)
    assert [one['host'] for one in admin.get(f"/routers/{router['id']}/l3-agents").json['agents']] == ['host1']
    assert [one['id'] for one in admin.get(f"/agents/{l3['host1']}/l3-routers").json['routers']] == [router['id']]
    admin.delete(f"/agents/{l3['host1']}/l3-routers/{router['id']}").expect(204)
    admin.post(f"/agents/{dhcp['host1']}/l3-routers", {'router_id': router['id']}).expect(409)


def test_compute_is_told_and_need_not_be_there(service, admin, agent, net, member, bound):
    sent, broken = [], [True]

    class Compute:
        def post(self, path, body, context=None, as_service=False):
            if broken[0]:
                raise errors.Unavailable('compute is away')
            sent.append((path, body['events'][0]))
    service.runtime.clients = type('Clients', (), {'compute': Compute()})()
    publisher = outbox.Publisher(service.runtime, {'compute.': conductor.ComputeSink(service.runtime)})
    host, (network, _) = agent(), net(member)
    port = bound(network)
    host.look()
    host.done()
    publisher.run_due()
    assert sent == [] and len(told(service)) == 1
    broken[0] = False
    with service.db.write() as conn:
        conn.execute(sa.update(outbox.rows).values(next_run_at=0.0))
    publisher.run_due()
    assert sent == [('/v2.1/os-server-external-events', {'name': 'network-vif-plugged', 'server_uuid': SERVER, 'tag': port['id']})]
    assert told(service) == []


def test_a_host_is_told_of_its_own_networks_only(service, agent, net, member, bound):
    first, second = agent('host1'), agent('host2')
    network, _ = net(member)
    port = bound(network, 'host1')
    first.look()
    second.look()
    assert port['id'] in first.wanted.ports and port['id'] not in second.wanted.ports
    assert second.wanted.members == {}
