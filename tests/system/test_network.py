"""Networks through the stock client, seen on the guests' traffic."""
import pytest
from cloud import IMAGE, Client, Guest, ping, until

pytestmark = pytest.mark.system


class World:
    """A network with a subnet behind a router, made by ``cli``; knows how to take it all away."""

    def __init__(self, cli, unique, cidr):
        self.cli = cli
        self.undo = []
        self.network = self.make('network create', unique('net'))
        self.subnet = self.make('subnet create', unique('subnet'), '--network', self.network['id'], '--subnet-range', cidr)
        self.router = self.make('router create', unique('router'))
        cli.text('router set', self.router['id'], '--external-gateway', 'public')
        cli.text('router add subnet', self.router['id'], self.subnet['id'])
        self.undo += [('router remove subnet', self.router['id'], self.subnet['id'])]

    def make(self, command, *arguments, **kwargs):
        made = self.cli(command, *arguments, **kwargs)
        self.undo.append((command.rsplit(' ', 1)[0] + ' delete', made['id']))
        return made

    def server(self, name, key, group, fixed=None):
        """(server, floating address); ``fixed``: the address that it has in the network."""
        nic = f'net-id={self.network["id"]}' + (f',v4-fixed-ip={fixed}' if fixed else '')
        made = self.make('server create', name, '--image', IMAGE, '--flavor', 'm1.nano', '--nic', nic,
                         '--key-name', key[0], '--security-group', group, '--wait')
        self.undo[-1] = ('server delete', made['id'], '--wait')
        address = self.make('floating ip create', 'public')
        self.cli.text('server add floating ip', made['id'], address['floating_ip_address'])
        return made, address['floating_ip_address']

    def end(self):
        order = ('server', 'floating', 'router remove', 'router', 'subnet', 'network', 'security')
        for command in sorted(self.undo, key=lambda item: next(i for i, word in enumerate(order) if item[0].startswith(word))):
            self.cli.run(command[0], *command[1:])


@pytest.fixture
def world(demo, unique):
    made = World(demo, unique, '10.77.0.0/24')
    yield made
    made.end()


def test_a_rule_lets_traffic_in_and_its_end_stops_it(world, demo, key, unique):
    group = world.make('security group create', unique('group'))
    ssh = demo('security group rule create', group['id'], '--protocol', 'tcp', '--dst-port', '22')
    _, address = world.server('guarded', key, group['id'])
    guest = Guest(address, key[1]).wait()
    assert not ping(address)
    icmp = demo('security group rule create', group['id'], '--protocol', 'icmp')
    until(20, 'ping let in', lambda: ping(address))
    demo.text('security group rule delete', icmp['id'])
    until(20, 'ping kept out', lambda: not ping(address))
    # Outward: open by the group's default rules, shut once they are gone.
    gateway = demo('subnet show', world.subnet['id'])['gateway_ip']
    guest(f'ping -c1 -w5 {gateway}')
    for rule in demo('security group rule list', group['id'], '--egress'):
        demo.text('security group rule delete', rule['ID'])
    until(20, 'outward traffic kept in', lambda: guest.run(f'ping -c1 -w2 {gateway}').returncode != 0)
    demo.text('security group rule delete', ssh['id'])
    until(20, 'SSH kept out', lambda: not guest.answers())


def test_a_guest_cannot_take_another_address(world, demo, key, open_group):
    _, address = world.server('spoofer', key, open_group.id)
    guest = Guest(address, key[1]).wait()
    gateway = demo('subnet show', world.subnet['id'])['gateway_ip']
    guest('sudo ip addr add 10.77.0.222/24 dev eth0')
    assert guest.run(f'ping -c1 -w2 -I 10.77.0.222 {gateway}').returncode != 0
    guest(f'ping -c1 -w5 {gateway}')


def test_two_projects_with_the_same_addresses(world, admin, demo, key, open_group, unique):
    project, user = unique('other'), unique('other')
    admin('project create', project)
    admin('user create', user, '--project', project, '--password', 'Sesame-4')
    admin.text('role add --user', user, '--project', project, 'member')
    auth_url = next(item['URL'] for item in admin('endpoint list', '--service', 'identity', '--interface', 'public'))
    other = Client('--os-auth-url', auth_url, '--os-username', user, '--os-password', 'Sesame-4', '--os-project-name', project,
                   '--os-user-domain-name', 'Default', '--os-project-domain-name', 'Default', '--os-identity-api-version', '3')
    there = None
    try:
        there = World(other, unique, '10.77.0.0/24')
        other.text('keypair create', key[0], '--public-key', str(key[1]) + '.pub')
        group = there.make('security group create', unique('group'))
        for arguments in (('--protocol', 'icmp'), ('--protocol', 'tcp', '--dst-port', '22')):
            other('security group rule create', group['id'], *arguments)
        _, our_address = world.server('here', key, open_group.id, '10.77.0.50')
        _, their_address = there.server('there', key, group['id'], '10.77.0.60')
        here, across = Guest(our_address, key[1]).wait(), Guest(their_address, key[1]).wait()
        # Each sees its own gateway, and neither the address that only the other has.
        for guest, own, foreign in ((here, '10.77.0.50', '10.77.0.60'), (across, '10.77.0.60', '10.77.0.50')):
            assert f' {own}/24 ' in guest('ip -4 -o addr')
            guest('ping -c1 -w5 10.77.0.1')
            assert guest.run(f'ping -c1 -w2 {foreign}').returncode != 0
        assert {item['ID'] for item in demo('network list')} & {there.network['id']} == set()
    finally:
        if there is not None:
            there.end()
        admin.run('user delete', user)
        admin.run('project delete', project)
