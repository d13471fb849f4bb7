"""What hosts are told: changes since a generation always add up to what a full answer says."""
import dataclasses
import datetime
import random
import threading

import pytest

from kodiak.common import db, testing
from kodiak.common.context import background
from kodiak.network import hints, hoststate, rpc
from kodiak.network.agent.state import KINDS, Member, SetMember

HOSTS = ('host1', 'host2', 'host3')


def same(host):
    """The agent's copy after its changes is what a fresh agent of the host is told."""
    host.look()
    mine = {kind: dict(host.wanted.documents(kind)) for kind in KINDS}
    fresh = type(host)(host.service, host.host, **host.facts)
    fresh.facts = host.facts
    theirs = fresh.full()
    for kind in KINDS:
        assert contents(mine[kind]) == contents(theirs[kind]), kind
    return mine


def contents(documents):
    """What documents say. Those that are made of a port share its generation, which may grow while they stay as they are."""
    return {key: dataclasses.replace(document, generation=0) if isinstance(document, (Member, SetMember)) else document
            for key, document in documents.items()}


class World:
    """Random requests of a project and its administrator."""

    def __init__(self, seed, member, admin, make, net):
        self.chance = random.Random(seed)
        self.member, self.admin, self.make, self.net = member, admin, make, net
        self.external, _ = net(admin, '203.0.113.0/24', {'router:external': True, 'provider:network_type': 'flat',
                                                         'provider:physical_network': 'public'}, enable_dhcp=False)
        self.networks, self.subnets, self.ports, self.routers, self.floating, self.groups = [], [], [], [], [], []

    def step(self):
        actions = [
            self.new_network,
            self.new_port,
            self.new_port,
            self.move_port,
            self.change_port,
            self.drop_port,
            self.new_router,
            self.plug,
            self.unplug,
            self.new_floating,
            self.move_floating,
            self.drop_floating,
            self.new_group,
            self.new_rule,
            self.drop_network,
            self.change_subnet,
            self.drop_rule,
        ]
        self.chance.choice(actions)()

    def pick(self, among):
        return self.chance.choice(among) if among else None

    def tried(self, answer, *statuses):
        assert answer.status in (200, 201, 204, 400, 404, 409, *statuses), (answer.status, answer.data)
        return answer

    def new_network(self):
        number = len(self.subnets)
        network, subnet = self.net(self.member, f'10.{number}.0.0/24')
        self.networks.append(network['id'])
        self.subnets.append(subnet['id'])

    def new_port(self):
        if self.networks:
            body = {'network_id': self.pick(self.networks), 'project_id': testing.PROJECT, 'device_owner': 'compute:nova',
                    'device_id': 'server', 'binding:host_id': self.pick(['', *HOSTS])}
            if self.groups and self.chance.random() < 0.5:
                body['security_groups'] = [self.pick(self.groups)]
            answer = self.tried(self.admin.post('/ports', {'port': body}))
            if answer.status == 201:
                self.ports.append(answer.json['port']['id'])

    def move_port(self):
        if self.ports:
            self.tried(self.admin.put('/ports/' + self.pick(self.ports), {'port': {'binding:host_id': self.pick(['', *HOSTS])}}))

    def change_port(self):
        if self.ports:
            change = self.pick([{'admin_state_up': False}, {'security_groups': []}, {'name': 'n'}, {'dns_name': 'guest'},
                                {'allowed_address_pairs': [{'ip_address': '192.0.2.9'}]},
                                {'security_groups': [self.pick(self.groups)]} if self.groups else {'name': 'm'},
                                {'fixed_ips': []}])
            self.tried(self.member.put('/ports/' + self.pick(self.ports), {'port': change}))

    def change_own_port(self):
        """One more address for a leg of a router or a DHCP service."""
        owner = self.pick(['network:router_interface', 'network:dhcp', 'network:router_gateway'])
        found = self.admin.get('/ports?device_owner=' + owner).json['ports']
        if found:
            port = self.pick(found)
            self.tried(self.admin.put('/ports/' + port['id'], {'port': {'fixed_ips': [
                *port['fixed_ips'][:1], {'subnet_id': port['fixed_ips'][0]['subnet_id']}]}}))

    def forward(self):
        if self.floating and self.ports:
            self.tried(self.member.post(f'/floatingips/{self.pick(self.floating)}/port_forwardings', {'port_forwarding': {
                'protocol': 'tcp', 'external_port': self.chance.randint(1, 9), 'internal_port': 80,
                'internal_port_id': self.pick(self.ports)}}))

    def drop_port(self):
        if self.ports:
            self.tried(self.member.delete('/ports/' + self.ports.pop(self.chance.randrange(len(self.ports)))))

    def new_router(self):
        if len(self.routers) < 3:
            self.routers.append(self.make(self.member, 'router', external_gateway_info={'network_id': self.external['id']})['id'])

    def plug(self):
        if self.routers and self.subnets:
            self.tried(self.member.put(f'/routers/{self.pick(self.routers)}/add_router_interface',
                                       {'subnet_id': self.pick(self.subnets)}))

    def unplug(self):
        if self.routers and self.subnets:
            self.tried(self.member.put(f'/routers/{self.pick(self.routers)}/remove_router_interface',
                                       {'subnet_id': self.pick(self.subnets)}))

    def new_floating(self):
        answer = self.tried(self.member.post('/floatingips', {'floatingip': {'floating_network_id': self.external['id']}}))
        if answer.status == 201:
            self.floating.append(answer.json['floatingip']['id'])

    def move_floating(self):
        if self.floating:
            self.tried(self.member.put('/floatingips/' + self.pick(self.floating), {'floatingip': {
                'port_id': self.pick([None, *self.ports])}}))

    def drop_floating(self):
        if self.floating:
            self.member.delete('/floatingips/' + self.floating.pop()).expect(204)

    def new_group(self):
        if len(self.groups) < 4:
            self.groups.append(self.make(self.member, 'security_group', name='g')['id'])

    def new_rule(self):
        if self.groups:
            self.tried(self.member.post('/security-group-rules', {'security_group_rule': {
                'security_group_id': self.pick(self.groups), 'direction': 'ingress', 'protocol': 'tcp',
                'port_range_min': self.chance.randint(1, 5), 'port_range_max': 9, 'remote_group_id': self.pick(self.groups)}}))

    def drop_rule(self):
        rules = self.member.get('/security-group-rules?direction=ingress').json['security_group_rules']
        if rules:
            self.member.delete('/security-group-rules/' + self.pick(rules)['id']).expect(204)

    def drop_network(self):
        if self.networks and self.chance.random() < 0.3:
            self.tried(self.member.delete('/networks/' + self.pick(self.networks)))

    def change_subnet(self):
        if self.subnets:
            change = self.pick([{'enable_dhcp': False}, {'enable_dhcp': True}, {'dns_nameservers': ['192.0.2.53']}, {'name': 's'}])
            self.tried(self.member.put('/subnets/' + self.pick(self.subnets), {'subnet': change}))


@pytest.mark.parametrize('seed', range(5))
def test_changes_add_up(seed, service, agent, member, admin, make, net):
    hosts = [agent(name, tunnel_ip=f'192.0.2.{index + 1}') for index, name in enumerate(HOSTS)]
    world = World(seed, member, admin, make, net)
    for number in range(60):
        world.step()
        if number % 3 == 0:
            for host in hosts[:1 + number % len(hosts)]:
                same(host)
    for host in hosts:
        state = same(host)
        for port in state['ports'].values():
            assert (port.network_id in state['networks'] and port.id in state['members']) or not port.fixed_ips
            assert set(port.security_groups) <= state['security_groups'].keys()
        for router in state['routers'].values():
            for leg in (*router.legs, *([router.gateway] if router.gateway else ())):
                assert leg.network_id in state['networks']
        host.done()
        assert host.look() == set()


def test_only_concerned_hosts_are_hinted_at(service, agent, admin, member, net, make):
    hinter = hints.Hinter(service.runtime)
    for name in HOSTS:
        agent(name)
    hinter.run_once()
    assert hinter.run_once() == set()
    network, _ = net(member)
    port = make(member, 'port', network_id=network['id'])
    placed = hinter.run_once()
    assert len(placed) == 1, 'the host of the DHCP service'
    admin.put('/ports/' + port['id'], {'port': {'binding:host_id': 'host2', 'device_owner': 'compute:nova'}}).expect(200)
    assert {'host2'} <= hinter.run_once() <= {'host2', *placed}
    make(member, 'network')
    make(member, 'security_group', name='unused')
    assert hinter.run_once() == set()


def test_a_commit_wakes_the_hinter_and_the_hint_reaches_the_agent(service, agent, admin, member, net, make):
    heard = threading.Event()

    class Answers:
        def look(self, context, generation):
            heard.set()
    agent('host1')
    service.runtime.bus.serve(rpc.AGENT, Answers(), rpc.AGENT_TOPIC, 'host1')
    hinter = hints.Hinter(service.runtime)
    hinter.start()
    try:
        network, _ = net(member)
        make(admin, 'port', network_id=network['id'], **{'binding:host_id': 'host1', 'device_owner': 'compute:nova'})
        assert heard.wait(30)
    finally:
        hinter.stop()


def test_an_agent_that_slept_long_or_met_another_database_is_told_everything(service, agent, admin, member, net, make):
    host = agent()
    network, _ = net(member)
    make(admin, 'port', network_id=network['id'], **{'binding:host_id': 'host1', 'device_owner': 'compute:nova'})
    answer = service.conductor.host_state(background(), 'host1', 10 ** 9,
                                          host.facts)
    assert answer['full'] and len(answer['set']['ports']) == 1
    service.db.transact(hoststate.clear, db.utcnow() + datetime.timedelta(seconds=5))
    assert service.conductor.host_state(background(), 'host1', 0,
                                        host.facts)['full']
    same(host)


def test_live_migration_is_prepared_on_both_hosts(service, agent, admin, member, net, make):
    first, second = agent('host1', tunnel_ip='192.0.2.1'), agent('host2', tunnel_ip='192.0.2.2')
    network, _ = net(member)
    port = make(admin, 'port', network_id=network['id'], **{'binding:host_id': 'host1', 'device_owner': 'compute:nova',
                                                            'device_id': 'server'})
    path = f"/ports/{port['id']}/bindings"
    made = admin.post(path, {'binding': {'host': 'host2'}}).expect(201).json['binding']
    assert made['vif_type'] == 'tap' and made['status'] == 'INACTIVE'
    admin.post(path, {'binding': {'host': 'host2'}}).expect(409)
    assert port['id'] in same(first)['ports'] and port['id'] in same(second)['ports']
    admin.put(path + '/host2/activate').expect(200)
    assert admin.get('/ports/' + port['id']).json['port']['binding:host_id'] == 'host2'
    assert [one['status'] for one in admin.get(path).json['bindings']] == ['ACTIVE', 'INACTIVE']
    assert same(second)['members'][port['id']].tunnel_ip == '192.0.2.2'
    admin.delete(path + '/host1').expect(204)
    assert port['id'] not in same(first)['ports'] and port['id'] in same(second)['ports']
    second.done()
    assert admin.get('/ports/' + port['id']).json['port']['status'] == 'ACTIVE'
