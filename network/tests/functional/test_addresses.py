"""Giving out addresses: what is free and what is taken always add up, whoever asks at the same time."""
import concurrent.futures
import ipaddress
import random

import sqlalchemy as sa

from kodiak.common import testing
from kodiak.network import addresses, models


def check(service, subnet_id, pools, cidr):
    """Free ranges and pooled allocations cover the pools exactly, each address once."""
    with service.db.read() as conn:
        ranges = conn.execute(sa.select(models.free_ranges).where(models.free_ranges.c.subnet_id == subnet_id)).all()
        taken = conn.execute(sa.select(models.allocations).where(models.allocations.c.subnet_id == subnet_id)).all()
    free = []
    for row in ranges:
        assert row.first <= row.last
        free += range(int(row.first, 16), int(row.last, 16) + 1)
    pooled = [int(row.address, 16) for row in taken if row.pooled]
    wanted = [number for pool in pools for number in range(int(ipaddress.ip_address(pool['start'])),
                                                           int(ipaddress.ip_address(pool['end'])) + 1)]
    assert sorted(free + pooled) == sorted(wanted)
    assert all(addresses.decode(row.address) == row.ip_address for row in taken)
    assert all(ipaddress.ip_address(row.ip_address) in ipaddress.ip_network(cidr) for row in taken)
    return {row.ip_address for row in taken}


def test_eight_at_once_get_all_addresses_and_none_twice(service, as_, member, net):
    network, subnet = net(member, '10.0.0.0/25')
    body = {'port': {'network_id': network['id']}}

    def take(_):
        return as_(testing.MEMBER).post('/ports', body)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(take, range(140)))
    good = [answer.json['port'] for answer in answers if answer.status == 201]
    assert len(good) == 125
    assert {answer.status for answer in answers} == {201, 409}
    assert {answer.json['NeutronError']['type'] for answer in answers if answer.status == 409} == {'IpAddressGenerationFailure'}
    assert len({port['fixed_ips'][0]['ip_address'] for port in good}) == 125
    check(service, subnet['id'], subnet['allocation_pools'], subnet['cidr'])


def test_random_work_by_threads_keeps_the_books(service, as_, admin, net, make):
    network, subnet = net(admin, '10.0.0.0/26')

    def work(seed):
        chance, client, mine = random.Random(seed), as_(testing.ADMIN), []
        for _ in range(25):
            action = chance.random()
            if action < 0.5 or not mine:
                fixed = [{'ip_address': f'10.0.0.{chance.randint(1, 62)}'}] if action < 0.25 else None
                answer = client.post('/ports', {'port': {'network_id': network['id'], **({'fixed_ips': fixed} if fixed else {})}})
                assert answer.status in (201, 409), answer.data
                if answer.status == 201:
                    mine.append(answer.json['port']['id'])
            elif action < 0.7:
                answer = client.put('/ports/' + chance.choice(mine), {'port': {
                    'fixed_ips': [{'ip_address': f'10.0.0.{chance.randint(1, 62)}'}, {'subnet_id': subnet['id']}]}})
                assert answer.status in (200, 409), answer.data
            else:
                client.delete('/ports/' + mine.pop(chance.randrange(len(mine)))).expect(204)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    taken = check(service, subnet['id'], subnet['allocation_pools'], subnet['cidr'])
    ports = admin.get('/ports?network_id=' + network['id']).json['ports']
    shown = [ip['ip_address'] for port in ports for ip in port['fixed_ips']]
    assert len(shown) == len(set(shown)) and set(shown) == taken
    for port in ports:
        admin.delete('/ports/' + port['id']).expect(204)
    assert check(service, subnet['id'], subnet['allocation_pools'], subnet['cidr']) == set()
    admin.delete('/networks/' + network['id']).expect(204)


def test_an_address_given_back_is_not_the_next(member, net, make):
    network, _ = net(member, '10.0.0.0/29')
    first, second = (make(member, 'port', network_id=network['id']) for _ in range(2))
    member.delete('/ports/' + first['id']).expect(204)
    third = make(member, 'port', network_id=network['id'])
    seen = [port['fixed_ips'][0]['ip_address'] for port in (first, second, third)]
    assert seen == ['10.0.0.2', '10.0.0.3', '10.0.0.4']


def test_pools_can_be_changed_under_ports(service, admin, net, make):
    network, subnet = net(admin, '10.0.0.0/24', allocation_pools=[{'start': '10.0.0.10', 'end': '10.0.0.20'}])
    kept = make(admin, 'port', network_id=network['id'])
    outside = make(admin, 'port', network_id=network['id'], fixed_ips=[{'ip_address': '10.0.0.100'}])
    pools = [{'start': '10.0.0.90', 'end': '10.0.0.110'}]
    changed = admin.put('/subnets/' + subnet['id'], {'subnet': {'allocation_pools': pools}}).expect(200).json['subnet']
    assert changed['allocation_pools'] == pools
    check(service, subnet['id'], pools, '10.0.0.0/24')
    admin.delete('/ports/' + outside['id']).expect(204)
    admin.delete('/ports/' + kept['id']).expect(204)
    check(service, subnet['id'], pools, '10.0.0.0/24')


def test_ipv6(service, admin, member, net, make):
    network, subnet = net(member, 'fd00:1::/64', ipv6_address_mode='slaac', ipv6_ra_mode='slaac')
    port = make(member, 'port', network_id=network['id'], mac_address='fa:16:3e:00:00:01')
    assert port['fixed_ips'] == [{'subnet_id': subnet['id'], 'ip_address': 'fd00:1::f816:3eff:fe00:1'}]
    stateful, other = net(member, 'fd00:2::/64', ipv6_address_mode='dhcpv6-stateful', ipv6_ra_mode='dhcpv6-stateful')
    port = make(member, 'port', network_id=stateful['id'])
    assert ipaddress.ip_address(port['fixed_ips'][0]['ip_address']) in ipaddress.ip_network(other['cidr'])
    # A subnet on which hosts make their own addresses gives one to the ports that are there already.
    mixed, v4 = net(member, '10.9.0.0/24')
    port = make(member, 'port', network_id=mixed['id'])
    make(member, 'subnet', network_id=mixed['id'], cidr='fd00:3::/64', ip_version=6, ipv6_address_mode='slaac')
    shown = member.get('/ports/' + port['id']).json['port']['fixed_ips']
    assert [':' in ip['ip_address'] for ip in shown] == [False, True]
    assert v4['id'] == shown[0]['subnet_id']


def test_faults_name_what_is_wrong(member, admin, net, make):
    network, subnet = net(member)
    other, foreign = net(member, '10.7.0.0/24')

    def fault(fixed, status):
        return member.post('/ports', {'port': {'network_id': network['id'], 'fixed_ips': fixed}}).expect(status).json[
            'NeutronError']['type']
    assert fault([{'ip_address': '10.1.0.1'}], 400) == 'InvalidIpForNetwork'
    assert fault([{'ip_address': '10.7.0.5', 'subnet_id': subnet['id']}], 400) == 'InvalidIpForSubnet'
    assert fault([{'subnet_id': foreign['id']}], 400) == 'InvalidInput'
    assert fault([{'ip_address': '10.0.0.255'}], 400) == 'InvalidIpForSubnet'
    assert fault([{'ip_address': 'nonsense'}], 400) == 'HTTPBadRequest'
    assert fault([{'ip_address': '10.0.0.9'}, {'ip_address': '10.0.0.9'}], 400) == 'HTTPBadRequest'
    make(member, 'port', network_id=network['id'], fixed_ips=[{'ip_address': '10.0.0.9'}])
    assert fault([{'ip_address': '10.0.0.9'}], 409) == 'IpAddressInUse'
    assert other['id'] != network['id']


def test_codes_keep_the_order_of_addresses():
    for version in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        numbers = sorted(random.Random(7).getrandbits(version(0).max_prefixlen) for _ in range(200))
        codes = [addresses.code(str(version(number))) for number in numbers]
        assert codes == sorted(codes) and [addresses.decode(code) for code in codes] == [str(version(n)) for n in numbers]


def test_an_address_that_is_kept_is_asked_for_by_itself_or_by_its_subnet(member, net, make):
    network, subnet = net(member)
    port = make(member, 'port', network_id=network['id'])
    path, own, any_ = '/ports/' + port['id'], {'ip_address': '10.0.0.2'}, {'subnet_id': subnet['id']}

    def change(*fixed):
        found = member.put(path, {'port': {'fixed_ips': list(fixed)}}).expect(200).json['port']['fixed_ips']
        return [ip['ip_address'] for ip in found]
    assert change(any_) == ['10.0.0.2']
    assert change(own, any_) == ['10.0.0.2', '10.0.0.3']
    assert change(any_, any_, any_) == ['10.0.0.2', '10.0.0.3', '10.0.0.4']
    assert change({'ip_address': '10.0.0.4'}, any_) == ['10.0.0.4', '10.0.0.2']
