"""Two hosts on the real kernel, in network and mount namespaces of their own, with guests that are namespaces.

Whatever is made here is gone with the processes of the hosts.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from kodiak.network.agent import state

SCRIPT = pathlib.Path(__file__).with_name('host_process.py')
NET = '11111111-1111-4111-8111-111111111111'
PUBLIC = '22222222-2222-4222-8222-222222222222'
ALONE = '33333333-3333-4333-8333-333333333333'
ROUTER = '44444444-4444-4444-8444-444444444444'
GROUP, OTHER = '55555555-5555-4555-8555-555555555555', '66666666-6666-4666-8666-666666666666'
SUB, SUB6, SUBP, SUBA = 'subnet-four', 'subnet-six', 'subnet-public', 'subnet-alone'
PATIENCE = 20


def uuid(letters):
    return f'{letters * 4}-{letters * 2}-4aaa-8aaa-{letters * 6}'


def wait(check, what):
    """Wait until ``check()`` is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f'not within {PATIENCE} s: {what}')


class Host:
    def __init__(self, name, number):
        self.name, self.tunnel_ip = name, f'192.168.77.{number}'
        self.folder = tempfile.mkdtemp(prefix='kodiak-host-')
        for path in ('', 'state', 'state/network', 'run'):
            os.makedirs(os.path.join(self.folder, path), exist_ok=True)
            os.chmod(os.path.join(self.folder, path), 0o777)
        source = SCRIPT.read_text().split('LEASE = """')[1].split('"""')[0]
        self.lease = os.path.join(self.folder, 'lease.sh')
        pathlib.Path(self.lease).write_text(source)
        os.chmod(self.lease, 0o755)
        self.process = subprocess.Popen(
            ['unshare', '-n', '-m', '--propagation', 'private', sys.executable, str(SCRIPT)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': ':'.join(path for path in sys.path if path)})
        self.generation = 0
        pathlib.Path(self.folder, 'network.conf').write_text(
            f'[DEFAULT]\nhost={name}\nstate_path={self.folder}/state\nrun_path={self.folder}/run\n'
            f'[agent]\ntunnel_ip={self.tunnel_ip}\nbridge_mappings=public:br-ex\ntap_owner=nobody\n'
            '[metadata]\nurl=http://127.0.0.1:8775\nshared_secret=sesame\n')

    def do(self, verb, **order):
        self.process.stdin.write(json.dumps({'do': verb, **order}) + '\n')
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and 'error' in answer:
            raise AssertionError(f'{verb}: {answer["error"]}')
        return answer

    def run(self, command, space=None, timeout=20):
        """(exit code, output)."""
        return tuple(self.do('sh', command=command, space=space, timeout=timeout))

    def out(self, command, space=None):
        code, output = self.run(command, space)
        assert code == 0, f'{command}: {output}'
        return output

    def want(self, **documents):
        """Say what the host should have."""
        self.generation += 1
        answer = state.Answer(self.generation, True,
                              {kind: [state.dump(one) for one in found] for kind, found in documents.items()})
        path = os.path.join(self.folder, 'state.json')
        pathlib.Path(path + '.new').write_text(json.dumps(state.dump(answer)))
        os.rename(path + '.new', path)

    def start(self):
        self.do('spawn', key='agent', command=f'{sys.executable} {SCRIPT} agent {self.folder}',
                log=os.path.join(self.folder, 'log'))

    def nudge(self):
        self.do('signal', key='agent', signal=int(signal.SIGUSR1))

    def log(self):
        path = pathlib.Path(self.folder, 'log')
        return path.read_text() if path.exists() else ''

    def reports(self):
        """{(kind, id): last result}."""
        path = pathlib.Path(self.folder, 'reports')
        lines = path.read_text().splitlines() if path.exists() else []
        return {(one['kind'], one['id']): one for one in map(json.loads, lines)}

    def settled(self, *keys):
        """Wait until these documents are reported in order."""
        def check():
            said = self.reports()
            return all(key in said and said[key]['error'] is None for key in keys)
        try:
            wait(check, f'{keys} in order on {self.name}')
        except AssertionError:
            print(self.log()[-4000:], self.reports())
            raise

    def applied(self):
        """How often the agent has found something to do."""
        return self.log().count('operations done')

    def close(self):
        self.run(f'for f in {self.folder}/state/network/dhcp/*/*.pid; do kill $(cat $f); done')
        self.process.stdin.close()
        self.process.wait(20)
        shutil.rmtree(self.folder)


def port(letters, number, groups=(GROUP,), network=NET, subnet=SUB, prefix='10.0.0.', **values):
    return state.Port(uuid(letters), network, f'fa:16:3e:00:00:{number:02x}', generation=1, project_id='project',
                      device_id='instance-' + letters, device_owner='compute:nova', security_groups=tuple(groups),
                      **{'fixed_ips': (state.FixedIP(subnet, f'{prefix}{number}'),), **values})


def member(one, host):
    return state.Member(one.id, one.network_id, one.mac, fixed_ips=one.fixed_ips, tunnel_ip=host.tunnel_ip,
                        device_id=one.device_id, device_owner=one.device_owner, project_id=one.project_id)


def tap(one):
    return 'tap' + one.id[:11]


A, B, C = port('a1', 10), port('b1', 11), port('c1', 12)
LONE = port('d1', 13, network=ALONE, subnet=SUBA, prefix='10.9.0.')
DHCP = state.Dhcp(uuid('e1'), 'fa:16:3e:00:01:01', (state.FixedIP(SUB, '10.0.0.2'),))
DHCP_ALONE = state.Dhcp(uuid('e2'), 'fa:16:3e:00:01:02', (state.FixedIP(SUBA, '10.9.0.2'),))
LEG = state.RouterLeg(uuid('f1'), NET, 'fa:16:3e:00:02:01', (state.FixedIP(SUB, '10.0.0.1'),))
LEG6 = state.RouterLeg(uuid('f3'), NET, 'fa:16:3e:00:02:03', (state.FixedIP(SUB6, 'fd00:1::1'),))
GATEWAY = state.RouterLeg(uuid('f2'), PUBLIC, 'fa:16:3e:00:02:02', (state.FixedIP(SUBP, '172.24.4.10'),))
SUBNETS = (state.Subnet(SUB, '10.0.0.0/24', gateway_ip='10.0.0.1', dns_nameservers=('9.9.9.9',)),
           state.Subnet(SUB6, 'fd00:1::/64', 6, 'fd00:1::1', ipv6_address_mode='slaac', ipv6_ra_mode='slaac'))
NETWORK = state.Network(NET, 1, segmentation_id=1001, mtu=1400, dns_domain='kodiak.test', subnets=SUBNETS)
NETWORK_PUBLIC = state.Network(PUBLIC, 1, type='flat', physical_network='public', mtu=1500, subnets=(
    state.Subnet(SUBP, '172.24.4.0/24', gateway_ip='172.24.4.1', enable_dhcp=False),))
NETWORK_ALONE = state.Network(ALONE, 1, segmentation_id=1002, dhcp=DHCP_ALONE, subnets=(
    state.Subnet(SUBA, '10.9.0.0/24', gateway_ip='10.9.0.1'),))
ROUTER_DOC = state.Router(ROUTER, 1, legs=(LEG, LEG6), gateway=GATEWAY)
EGRESS = (state.Rule('e4', 'egress'), state.Rule('e6', 'egress', 'IPv6'))
PING = (state.Rule('p4', 'ingress', protocol='icmp'), state.Rule('p6', 'ingress', 'IPv6', protocol='ipv6-icmp'))
HTTP = state.Rule('h', 'ingress', protocol='tcp', port_range_min=80, port_range_max=80)
FLOATING = state.FloatingIP('floating', ROUTER, '172.24.4.50', 1, fixed_address='10.0.0.10', port_id=A.id,
                            forwardings=())
FORWARDED = state.FloatingIP('forwarded', ROUTER, '172.24.4.51', 1, forwardings=(
    state.Forwarding('f', 'tcp', '8080', '10.0.0.11', '80'),))
SERVER = """
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({'path': self.path, **{k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer((%r, %d), Echo).serve_forever()
"""


class Lab:
    """Two hosts, one network over both, a router and an outside on the first."""

    def __init__(self):
        self.one, self.two = Host('one', 1), Host('two', 2)
        self.rules = (*EGRESS, *PING)
        self.ports = {self.one: [A, B, LONE], self.two: [C]}
        self.floating = [FLOATING]
        self.router = ROUTER_DOC
        first, second = self.one.process.pid, self.two.process.pid
        for host in (self.one, self.two):
            host.out('true')
        subprocess.run(['ip', 'link', 'add', 'eth0', 'netns', str(first), 'type', 'veth', 'peer', 'name', 'eth0', 'netns',
                        str(second)], check=True)
        for host in (self.one, self.two):
            host.out(f'ip addr add {host.tunnel_ip}/24 dev eth0; ip link set eth0 up')
        self.one.out('ip link add br-ex type bridge; ip link set br-ex up; ip addr add 172.24.4.1/24 dev br-ex;'
                     'ip netns add outside; ip link add out0 type veth peer name eth0 netns outside;'
                     'ip link set out0 master br-ex up; ip -n outside addr add 172.24.4.100/24 dev eth0;'
                     'ip -n outside link set eth0 up; ip -n outside link set lo up')
        self.serve(self.one, None, '127.0.0.1', 8775)
        self.serve(self.one, 'outside', '172.24.4.100', 80)

    def start(self):
        """Start the agents, and make the guests once their ports are in order."""
        for host in (self.one, self.two):
            host.want()
            host.start()
        wait(lambda: all(os.path.exists(os.path.join(host.folder, 'asked')) for host in (self.one, self.two)), 'agents')
        self.want()
        self.one.settled(('ports', A.id), ('ports', B.id), ('networks', NET), ('routers', ROUTER),
                         ('floating_ips', 'floating'), ('networks', ALONE))
        self.two.settled(('ports', C.id), ('networks', NET))
        for host, name, one in ((self.one, 'a', A), (self.one, 'b', B), (self.one, 'lone', LONE), (self.two, 'c', C)):
            host.do('guest', name=name, tap_name=tap(one), mac=one.mac)

    def serve(self, host, space, address, port):
        path = os.path.join(host.folder, f'serve-{space}-{port}.py')
        pathlib.Path(path).write_text(SERVER % (address, port))
        host.do('spawn', key=f'serve-{space}-{port}', space=space, command=f'{sys.executable} {path}',
                log=os.path.join(host.folder, 'serve.log'))

    def members(self):
        found = [member(one, host) for host, ports in self.ports.items() for one in ports]
        for leg, owner, network in ((DHCP, 'network:dhcp', NET), (DHCP_ALONE, 'network:dhcp', ALONE),
                                    (LEG, 'network:router_interface', NET), (LEG6, 'network:router_interface', NET)):
            found.append(state.Member(leg.port_id, network, leg.mac, fixed_ips=leg.fixed_ips, device_owner=owner,
                                      tunnel_ip=self.one.tunnel_ip))
        return found

    def want(self):
        """Say to both hosts what they should have, and have them look."""
        groups = [state.SecurityGroup(GROUP, rules=self.rules),
                  state.SecurityGroup(OTHER, rules=(*EGRESS, state.Rule('o', 'ingress', remote_set=OTHER)))]
        members = [state.SetMember(f'{OTHER}/{one.id}', OTHER, addresses=tuple(fixed.address for fixed in one.fixed_ips))
                   for ports in self.ports.values() for one in ports if OTHER in one.security_groups]
        network = state.load(state.Network, {**state.dump(NETWORK), 'dhcp': state.dump(DHCP)})
        self.one.want(networks=[network, NETWORK_PUBLIC, NETWORK_ALONE], ports=self.ports[self.one],
                      members=self.members(), security_groups=groups, set_members=members, routers=[self.router],
                      floating_ips=self.floating)
        self.two.want(networks=[NETWORK], ports=self.ports[self.two], security_groups=groups, set_members=members,
                      members=[one for one in self.members() if one.network_id == NET])
        for host in (self.one, self.two):
            host.nudge()

    def change(self):
        """Have the hosts come to a changed state, and wait until they are there."""
        self.want()
        for host in (self.one, self.two):
            wait(lambda host=host: self.generation(host) == host.generation, 'the state was asked for')
            host.do('signal', key='agent', signal=int(signal.SIGUSR1))

    def generation(self, host):
        lines = pathlib.Path(host.folder, 'asked').read_text().splitlines()
        host.nudge()
        return int(lines[-1]) if lines[-1] != 'None' else None

    def close(self):
        self.one.close()
        self.two.close()


def lease(host, guest):
    return host.out(f'busybox udhcpc -i eth0 -n -q -f -t 8 -T 1 -O staticroutes -O mtu -s {host.lease}', guest)


def ping(host, guest, address, count=1):
    tool = 'ping6' if ':' in address else 'ping'
    return host.run(f'busybox {tool} -c {count} -W 1 {address}', guest)[0] == 0


def fetch(host, space, url):
    code, output = host.run(f'timeout 4 busybox wget -q -O - {url}', space)
    return output if code == 0 else None
