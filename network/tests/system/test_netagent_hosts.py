"""The agent on the real kernel: two hosts in network and mount namespaces of their own, guests that are namespaces.

Needs root, and leaves nothing on the machine: whatever is made here is gone with the processes of the hosts.
"""
import json
import os
import pathlib
import re
import signal
import sys
import time

import pytest
from network_lab import (
    ALONE,
    FLOATING,
    FORWARDED,
    GROUP,
    HTTP,
    LONE,
    NET,
    NETWORK,
    OTHER,
    ROUTER,
    SUB6,
    SUBA,
    SUBNETS,
    A,
    B,
    C,
    fetch,
    lease,
    ping,
    port,
    tap,
    uuid,
    wait,
)

from kodiak.network.agent import metadata, state

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason='needs root')]


def test_a_guest_gets_its_address(lab):
    said = lease(lab.one, 'a')
    assert 'LEASE 10.0.0.10 24 router=10.0.0.1 dns=9.9.9.9 mtu=1400' in said
    for host, guest in ((lab.one, 'b'), (lab.two, 'c')):
        lease(host, guest)
    assert 'routes=169.254.169.254/32 10.9.0.2' in lease(lab.one, 'lone')


def test_neighbours_on_the_same_and_on_another_host(lab):
    assert ping(lab.one, 'a', '10.0.0.11')
    assert ping(lab.one, 'a', '10.0.0.12')
    assert ping(lab.two, 'c', '10.0.0.10')


def test_no_packet_is_flooded_to_where_the_receiver_is_not(lab):
    entries = lab.one.out('bridge fdb show dev vxlan-1001')
    assert f'{C.mac} dst 192.168.77.2' in entries
    assert '00:00:00:00:00:00 dst 192.168.77.2' in entries


def test_a_tunnelled_packet_of_a_stranger_is_dropped(lab):
    """VXLAN from an address that is no host's, as a guest could send it through its router."""
    lab.one.out('ip netns add stranger; ip link add str0 type veth peer name eth0 netns stranger; ip link set str0 up;'
                'ip addr add 198.51.100.1/24 dev str0; ip -n stranger addr add 198.51.100.2/24 dev eth0;'
                'ip -n stranger link set eth0 up; ip -n stranger route add default via 198.51.100.1')
    before = lab.one.out('ip -s link show vxlan-1001 | grep -A1 RX')
    code = ("import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
            "s.sendto(bytes.fromhex('08000000'+'0003e900'+'ffffffffffff'+'020000000001'+'0806')+bytes(50),('192.168.77.1',4789))\n")
    pathlib.Path(lab.one.folder, 'stranger.py').write_text(code)
    lab.one.out(f'{sys.executable} {lab.one.folder}/stranger.py', 'stranger')
    assert lab.one.out('ip -s link show vxlan-1001 | grep -A1 RX') == before
    lab.one.out('nft add element inet kodiak-tunnel peers4 { 198.51.100.2 }')
    lab.one.out(f'{sys.executable} {lab.one.folder}/stranger.py', 'stranger')
    assert lab.one.out('ip -s link show vxlan-1001 | grep -A1 RX') != before
    lab.one.out('nft delete element inet kodiak-tunnel peers4 { 198.51.100.2 }; ip netns del stranger')


def test_networks_are_apart(lab):
    assert not ping(lab.one, 'a', '10.9.0.13')


def test_nothing_comes_in_without_a_rule_and_all_goes_out(lab):
    lab.serve(lab.one, 'a', '0.0.0.0', 80)
    wait(lambda: fetch(lab.one, 'a', 'http://10.0.0.10/'), 'the server in the guest')
    assert fetch(lab.one, 'b', 'http://10.0.0.10/') is None
    assert fetch(lab.two, 'c', 'http://10.0.0.10/') is None
    lab.rules += (HTTP,)
    lab.change()
    assert wait(lambda: fetch(lab.one, 'b', 'http://10.0.0.10/'), 'the rule')
    assert fetch(lab.two, 'c', 'http://10.0.0.10/')


def test_what_goes_out_needs_a_rule_too(lab):
    kept = lab.rules
    lab.rules = tuple(rule for rule in kept if rule.direction == 'ingress')
    lab.change()
    wait(lambda: not ping(lab.one, 'a', '10.0.0.12'), 'egress shut')
    assert not fetch(lab.one, 'b', 'http://10.0.0.10/')
    lab.rules = kept
    lab.change()
    wait(lambda: ping(lab.one, 'a', '10.0.0.12'), 'egress open')


def test_a_known_connection_ends_with_its_rule(lab):
    code = ("import socket,time\ns=socket.socket();s.bind(('0.0.0.0',81));s.listen(5)\nwhile 1:\n c,_=s.accept()\n"
            " c.settimeout(9)\n try:\n  while (d:=c.recv(9)): c.sendall(d)\n except OSError: pass\n")
    pathlib.Path(lab.one.folder, 'echo.py').write_text(code)
    lab.one.do('spawn', key='echo', space='a', command=f'{sys.executable} {lab.one.folder}/echo.py', log='/dev/null')
    client = ("import socket,time\nwhile 1:\n try:\n  s=socket.create_connection(('10.0.0.10',81),1);break\n"
              " except OSError: pass\ns.settimeout(1)\n"
              "for n in range(400):\n s.sendall(b'x')\n try:\n  s.recv(9);print('ok',flush=True)\n"
              " except TimeoutError:\n  print('cut',flush=True)\n time.sleep(.05)\n")
    pathlib.Path(lab.one.folder, 'client.py').write_text(client)
    rules = lab.rules
    lab.rules = (*rules, state.Rule('h81', 'ingress', protocol='tcp', port_range_min=81, port_range_max=81))
    lab.change()
    log = pathlib.Path(lab.one.folder, 'client.log')
    lab.one.do('spawn', key='client', space='b', command=f'{sys.executable} {lab.one.folder}/client.py', log=str(log))
    wait(lambda: 'ok' in log.read_text(), 'the connection')
    lab.rules = rules
    lab.change()
    wait(lambda: log.read_text().splitlines()[-1:] == ['cut'], 'the connection ends')
    lab.one.do('kill', key='client', signal=9)
    lab.one.do('kill', key='echo', signal=9)


def test_a_remote_group_lets_its_members_in(lab):
    inside, outside = lab.ports[lab.one][0], lab.ports[lab.two][0]
    lab.ports[lab.one][0] = state.load(state.Port, {**state.dump(inside), 'security_groups': [OTHER]})
    lab.change()
    wait(lambda: not fetch(lab.two, 'c', 'http://10.0.0.10/'), 'the other group')
    lab.ports[lab.two][0] = state.load(state.Port, {**state.dump(outside), 'security_groups': [GROUP, OTHER]})
    lab.change()
    wait(lambda: fetch(lab.two, 'c', 'http://10.0.0.10/'), 'a member')
    assert not fetch(lab.one, 'b', 'http://10.0.0.10/')
    lab.ports[lab.one][0], lab.ports[lab.two][0] = inside, outside
    lab.change()
    wait(lambda: fetch(lab.one, 'b', 'http://10.0.0.10/'), 'the first group again')


def test_a_guest_is_nobody_else(lab):
    one = lab.one
    one.out('ip addr add 10.0.0.99/24 dev eth0', 'b')
    assert one.run('busybox ping -c 1 -W 1 -I 10.0.0.99 10.0.0.10', 'b')[0] != 0
    assert one.run('busybox arping -c 2 -w 2 -I eth0 -s 10.0.0.99 10.0.0.10', 'b')[0] != 0
    one.out('ip addr del 10.0.0.99/24 dev eth0', 'b')
    one.out('ip link set eth0 address fa:16:3e:00:00:77', 'b')
    assert not ping(one, 'b', '10.0.0.10')
    one.out(f'ip link set eth0 address {B.mac}', 'b')
    wait(lambda: ping(one, 'b', '10.0.0.10'), 'itself again')


def test_an_allowed_address_pair_lets_a_guest_be_more(lab):
    index = lab.ports[lab.one].index(B)
    lab.ports[lab.one][index] = state.load(state.Port, {**state.dump(B), 'allowed_address_pairs': [
        {'ip_address': '10.0.0.96/30', 'mac_address': B.mac}]})
    lab.change()
    lab.one.out('ip addr add 10.0.0.99/24 dev eth0', 'b')
    wait(lambda: lab.one.run('busybox ping -c 1 -W 1 -I 10.0.0.99 10.0.0.10', 'b')[0] == 0, 'the pair')
    lab.ports[lab.one][index] = B
    lab.change()
    wait(lambda: lab.one.run('busybox ping -c 1 -W 1 -I 10.0.0.99 10.0.0.10', 'b')[0] != 0, 'no pair')
    lab.one.out('ip addr del 10.0.0.99/24 dev eth0', 'b')


def test_no_guest_serves_dhcp_or_advertises_a_router(lab):
    counted = 'nft -a list chain bridge kodiak-guard {} | grep -c drop'
    assert lab.one.out(counted.format('guard-ip4')) != '0'
    code = ("import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('10.0.0.11',67))\n"
            "for n in range(5): s.sendto(b'x'*300,('10.0.0.10',68))\n")
    hear = ("import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('10.0.0.10',68));s.settimeout(3)\n"
            "try: print(s.recv(999))\nexcept TimeoutError: print('nothing')\n")
    pathlib.Path(lab.one.folder, 'hear.py').write_text(hear)
    pathlib.Path(lab.one.folder, 'say.py').write_text(code)
    log = pathlib.Path(lab.one.folder, 'hear.log')
    lab.one.do('spawn', key='hear', space='a', command=f'{sys.executable} {lab.one.folder}/hear.py', log=str(log))
    time.sleep(0.5)
    lab.one.out(f'{sys.executable} {lab.one.folder}/say.py', 'b')
    assert wait(log.read_text, 'an outcome') == 'nothing\n'


def test_ipv6_by_router_advertisement(lab):
    address = 'fd00:1::f816:3eff:fe00:a'
    index = lab.ports[lab.one].index(A)
    lab.ports[lab.one][index] = state.load(state.Port, {**state.dump(A), 'fixed_ips': [
        *state.dump(A)['fixed_ips'], {'subnet_id': SUB6, 'address': address}]})
    lab.change()
    # The guest asks for a router when its interface comes up.
    lab.one.out('ip link set eth0 down; ip link set eth0 up', 'a')
    wait(lambda: address in lab.one.out('ip -6 addr show dev eth0', 'a'), 'an address of its own')
    wait(lambda: ping(lab.one, 'a', 'fd00:1::1'), 'the router')
    assert 'default via fe80::' in lab.one.out('ip -6 route', 'a')
    lease(lab.one, 'a')


def test_out_through_the_router(lab):
    said = wait(lambda: fetch(lab.one, 'b', 'http://172.24.4.100/'), 'SNAT')
    assert said
    assert ping(lab.two, 'c', '172.24.4.100')
    assert ping(lab.one, 'outside', '172.24.4.10')


def test_a_floating_ip(lab):
    assert wait(lambda: fetch(lab.one, 'outside', 'http://172.24.4.50/'), 'DNAT')
    # To the floating address from inside, its own network and itself.
    assert fetch(lab.one, 'b', 'http://172.24.4.50/')
    assert fetch(lab.one, 'a', 'http://172.24.4.50/')
    assert fetch(lab.two, 'c', 'http://172.24.4.50/')
    lab.floating = []
    lab.change()
    wait(lambda: not fetch(lab.one, 'outside', 'http://172.24.4.50/'), 'no floating address')
    lab.floating = [FLOATING, FORWARDED]
    lab.change()
    wait(lambda: fetch(lab.one, 'outside', 'http://172.24.4.50/'), 'the floating address again')


def test_a_port_forwarding(lab):
    lab.serve(lab.one, 'b', '0.0.0.0', 80)
    wait(lambda: fetch(lab.one, 'outside', 'http://172.24.4.51:8080/'), 'the forwarding')


def test_metadata_is_signed_and_says_who_asks(lab):
    for guest, address, instance in (('b', '10.0.0.11', 'instance-b1'), ('lone', '10.9.0.13', 'instance-d1')):
        said = json.loads(wait(lambda guest=guest: fetch(
            lab.one, guest, '--header "X-Instance-ID: another" http://169.254.169.254/latest/meta-data/x?y=1'), 'metadata'))
        assert said['path'] == '/latest/meta-data/x?y=1'
        assert said['x-instance-id'] == instance
        assert said['x-tenant-id'] == 'project'
        assert said['x-forwarded-for'] == address
        assert said['x-instance-id-signature'] == metadata.signature('sesame', instance)
    assert json.loads(fetch(lab.two, 'c', 'http://169.254.169.254/'))['x-instance-id'] == 'instance-c1'
    assert not fetch(lab.one, 'outside', 'http://169.254.169.254/')


def test_a_port_that_is_down_carries_nothing(lab):
    index = lab.ports[lab.one].index(B)
    lab.ports[lab.one][index] = state.load(state.Port, {**state.dump(B), 'admin_state_up': False})
    lab.change()
    wait(lambda: not ping(lab.one, 'b', '10.0.0.10'), 'the port is down')
    lab.ports[lab.one][index] = B
    lab.change()
    wait(lambda: ping(lab.one, 'b', '10.0.0.10'), 'the port is up')


def test_new_name_servers_are_told_at_the_next_lease(lab):
    """Without a new process, so that other guests notice nothing."""
    global NETWORK
    before, pid = NETWORK, lab.one.out(f'cat {lab.one.folder}/state/network/dhcp/{NET}/*.pid')
    subnets = ({**state.dump(SUBNETS[0]), 'dns_nameservers': ['1.2.3.4']}, state.dump(SUBNETS[1]))
    NETWORK = state.load(state.Network, {**state.dump(NETWORK), 'subnets': subnets})
    lab.change()
    wait(lambda: 'dns=1.2.3.4' in lease(lab.one, 'b'), 'the new server')
    assert lab.one.out(f'cat {lab.one.folder}/state/network/dhcp/{NET}/*.pid') == pid
    NETWORK = before
    lab.change()
    wait(lambda: 'dns=9.9.9.9' in lease(lab.one, 'b'), 'the old server')


def test_a_limit_on_bandwidth(lab):
    one = lab.one
    index = lab.ports[one].index(B)
    lab.ports[one][index] = state.load(state.Port, {**state.dump(B), 'qos': {'egress_kbps': 2000, 'ingress_kbps': 4000}})
    lab.change()
    wait(lambda: 'tbf' in one.out(f'tc qdisc show dev {tap(B)}'), 'the limit')
    assert 'rate 2Mbit' in one.out(f'tc qdisc show dev ifb{B.id[:11]}')
    for device in (f'ifb{B.id[:11]}', tap(B)):
        before = one.out(f'tc -s qdisc show dev {device} root')
        assert ping(one, 'b', '10.0.0.10')
        assert one.out(f'tc -s qdisc show dev {device} root') != before
    lab.ports[one][index] = B
    lab.change()
    wait(lambda: one.run(f'ip link show ifb{B.id[:11]}')[0] != 0, 'no limit')
    assert 'tbf' not in one.out(f'tc qdisc show dev {tap(B)}')
    assert ping(one, 'b', '10.0.0.10')


def test_what_a_guest_sends_is_marked(lab):
    one = lab.one
    index = lab.ports[one].index(B)
    lab.ports[one][index] = state.load(state.Port, {**state.dump(B), 'qos': {'dscp': 46}})
    one.out('nft add table inet try; nft add chain inet try in "{ type filter hook input priority 0; }"; '
            'nft add rule inet try in ip dscp 46 counter', 'a')

    def marked():
        assert ping(one, 'b', '10.0.0.10')
        return int(re.search(r'packets (\d+)', one.out('nft list table inet try', 'a'))[1])
    try:
        assert marked() == 0
        lab.change()
        wait(marked, 'the mark')
        lab.ports[one][index] = B
        lab.change()
        wait(lambda: one.run('nft list table bridge kodiak-marks')[0] != 0, 'no mark')
        before = marked()
        assert marked() == before
    finally:
        lab.ports[one][index] = B
        one.out('nft delete table inet try', 'a')


def test_a_second_look_changes_nothing(lab):
    wait(lambda: lab.generation(lab.one) == lab.one.generation, 'rest')
    before = lab.one.out('nft list ruleset; ip link; ip addr; ip netns; bridge fdb | grep dst')
    done = lab.one.applied()
    asked = len(pathlib.Path(lab.one.folder, 'asked').read_text().splitlines())
    lab.one.do('signal', key='agent', signal=int(signal.SIGUSR2))
    wait(lambda: len(pathlib.Path(lab.one.folder, 'asked').read_text().splitlines()) > asked, 'a look')
    lab.one.nudge()
    time.sleep(1)
    assert lab.one.applied() == done, lab.one.log()[-2000:]
    assert lab.one.out('nft list ruleset; ip link; ip addr; ip netns; bridge fdb | grep dst') == before


def test_a_restart_loses_no_packet(lab):
    log = pathlib.Path(lab.one.folder, 'ping.log')
    done = lab.one.applied()
    dnsmasq = lab.one.out(f'cat {lab.one.folder}/state/network/dhcp/{NET}/*.pid')
    lab.one.do('spawn', key='ping', space='b', command='busybox ping -i 0.1 -c 40 -W 1 172.24.4.100', log=str(log))
    lab.one.do('kill', key='agent', signal=int(signal.SIGKILL))
    lab.one.start()
    wait(lambda: 'packets transmitted' in log.read_text(), 'pings')
    assert '40 packets transmitted, 40 packets received' in log.read_text()
    wait(lambda: fetch(lab.one, 'b', 'http://169.254.169.254/'), 'the proxy is back')
    assert lab.one.applied() == done, lab.one.log()[-2000:]
    assert lab.one.out(f'cat {lab.one.folder}/state/network/dhcp/{NET}/*.pid') == dnsmasq


def test_without_its_conductor_all_stays(lab):
    away = pathlib.Path(lab.one.folder, 'away')
    away.touch()
    lab.one.do('kill', key='agent', signal=int(signal.SIGTERM))
    lab.one.start()
    wait(lambda: 'cannot learn' in lab.one.log(), 'a question in vain')
    assert ping(lab.one, 'b', '172.24.4.100')
    away.unlink()
    wait(lambda: fetch(lab.one, 'b', 'http://169.254.169.254/'), 'the conductor is back')


def test_drift_is_put_right(lab):
    one = lab.one
    pid = one.out(f'cat {one.folder}/state/network/dhcp/{NET}/*.pid')
    one.out(f'kill -9 {pid}; ip link del brq11111111-11; nft delete table inet kodiak-groups;'
            f'nft add rule bridge kodiak-guard guard accept; ip link add brqdeadbeef-00 type bridge;'
            f'ip netns add qrouter-{uuid("99")}')
    one.do('signal', key='agent', signal=int(signal.SIGUSR2))
    wait(lambda: one.run('ip link show brqdeadbeef-00')[0] != 0, 'the orphan is gone')
    wait(lambda: uuid('99') not in one.out('ip netns'), 'the namespace is gone')
    wait(lambda: ping(one, 'b', '172.24.4.100'), 'the bridge is back')
    assert fetch(one, 'b', 'http://10.0.0.10/')
    lease(one, 'b')
    assert not one.run('nft list chain bridge kodiak-guard guard | grep -x ".*accept"')[1]


def test_an_address_changes_hands(lab):
    """The lease of a deleted port does not keep its address from the next one."""
    one = lab.one
    lease(one, 'lone')
    other = port('d2', 14, network=ALONE, subnet=SUBA, fixed_ips=(state.FixedIP(SUBA, '10.9.0.13'),))
    one.do('guest-off', name='lone')
    lab.ports[one] = [one_port for one_port in lab.ports[one] if one_port is not LONE] + [other]
    lab.change()
    wait(lambda: one.run(f'ip link show {tap(other)}')[0] == 0, 'the tap')
    assert one.run(f'ip link show {tap(LONE)}')[0] != 0
    one.do('guest', name='heir', tap_name=tap(other), mac=other.mac)
    assert 'LEASE 10.9.0.13' in lease(one, 'heir')


def test_killed_anywhere_it_comes_to_the_same(lab):
    """Killed in the middle of making and unmaking all, the agent ends where it should."""
    one = lab.one
    for guest in ('a', 'b', 'heir'):
        one.do('guest-off', name=guest)
    for pause in (0.45, 0.5, 0.55, 0.6, 0.65, 0.7):
        one.want()
        one.do('kill', key='agent', signal=int(signal.SIGKILL))
        one.start()
        time.sleep(pause)
        lab.want()
        one.do('kill', key='agent', signal=int(signal.SIGKILL))
        one.start()
        time.sleep(pause)
    reports = pathlib.Path(one.folder, 'reports')
    reports.unlink(missing_ok=True)
    one.do('kill', key='agent', signal=int(signal.SIGKILL))
    one.start()
    one.settled(('ports', A.id), ('ports', B.id), ('networks', NET), ('routers', ROUTER), ('floating_ips', 'floating'))
    one.do('guest', name='b', tap_name=tap(B), mac=B.mac)
    lease(one, 'b')
    wait(lambda: ping(one, 'b', '172.24.4.100'), 'all is back')
    assert 'defunct' not in one.out(f'cat {one.folder}/state/network/dhcp/{NET}/*.pid')


def test_nothing_is_left_when_nothing_is_wanted(lab):
    one = lab.one
    one.want()
    one.nudge()
    wait(lambda: 'brq' not in one.out('ip -o link'), 'the links are gone')
    wait(lambda: one.out('nft list ruleset') == '', 'the tables are gone')
    assert not any(word in one.out('ip -o link') for word in ('tap', 'vxlan', 'vd-', 'vr-'))
    assert sorted(line.split()[0] for line in one.out('ip netns').splitlines()) == ['b', 'outside']
    wait(lambda: os.listdir(f'{one.folder}/state/network/dhcp') == [], 'the files are gone')
    assert one.run(f'grep -la "{one.folder}" /proc/[0-9]*/cmdline | while read f; do tr "\\0" " " < $f; done 2>/dev/null '
                   '| grep "^dnsmasq"')[1] == ''
