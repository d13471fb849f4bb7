"""What the network agent needs root for, run in its privileged daemon.

The agent plans without rights and sends operations here; this module knows how to do each, and refuses those that
reach beyond what the agent may touch: interfaces, namespaces and tables that bear its names.
"""
import array
import functools
import os
import re
import socket
import subprocess

from kodiak.common import privileged
from kodiak.network.agent import dnsmasq, names
from kodiak.network.agent.spaces import inside

context = privileged.context(__name__, capabilities=[
    'CAP_NET_ADMIN', 'CAP_NET_RAW', 'CAP_NET_BIND_SERVICE', 'CAP_SYS_ADMIN', 'CAP_SYS_PTRACE', 'CAP_DAC_OVERRIDE',
    'CAP_SETUID', 'CAP_SETGID', 'CAP_CHOWN', 'CAP_KILL'])

SYSCTL = re.compile(r'^net/(?:bridge/bridge-nf-call-ip6?tables|ipv4/ip_forward|ipv4/conf/all/arp_(?:ignore|announce)'
                    r'|ipv6/conf/(?:all/forwarding|default/accept_ra))\Z')
SYSCTLS = ('net/ipv4/ip_forward', 'net/ipv4/conf/all/arp_ignore', 'net/ipv4/conf/all/arp_announce',
           'net/ipv6/conf/all/forwarding', 'net/ipv6/conf/default/accept_ra')
BRIDGE_SYSCTLS = ('net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables')
COMMAND = re.compile(r'^(?:add|delete|flush) (?:table|chain|rule|set|map|element) '
                     r'(?:bridge kodiak-(?:guard|marks)|inet kodiak-(?:groups|tunnel|router))(?: |$)')
BRACES = re.compile(r'\{[^{}]*\}')             # what stands in braces is part of its command


class Refused(ValueError):
    """An operation on something that is not the agent's."""


def _space(name):
    if name != names.HOST and not names.OUR_NAMESPACE.match(name):
        raise Refused(f'{name!r} is no namespace of this agent')
    return name


def _link(name):
    if not (names.OUR_LINK.match(name) or names.OUR_LEG.match(name)):
        raise Refused(f'{name!r} is no interface of this agent')
    return name


def _leg(name):
    return name if name == 'lo' else _link(name)


def _sysctl(space, key, value):
    if not SYSCTL.match(key):
        raise Refused(f'{key!r} is no setting of this agent')
    path = os.path.join('/proc/sys', key)
    with inside(_space(space)):
        if key in BRIDGE_SYSCTLS and not os.path.exists(path):
            subprocess.run(['modprobe', 'br_netfilter'], check=False, capture_output=True, timeout=30)
        with open(path, 'w') as file:
            file.write(value)


def _nft(space, script):
    for line in script.splitlines():
        if not COMMAND.match(line) or ';' in BRACES.sub('', line):
            raise Refused(f'{line[:80]!r} touches no table of this agent')
    with inside(_space(space)):
        done = subprocess.run(['nft', '-f', '-'], input=script, text=True, capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError('nft: ' + ' '.join(done.stderr.split())[:500])


@functools.cache
def _operations():
    """What may be asked for: {name: function}. The libraries are loaded by the daemon only, not by the agent."""
    from kodiak.network.agent import conntrack, netlink
    return {
        'namespace.add': lambda name: netlink.add_namespace(_space(name)),
        'namespace.delete': lambda name: netlink.delete_namespace(_space(name)),
        'sysctl': _sysctl,
        'nft': _nft,
        'link.add': lambda space, name, spec: netlink.add_link(_space(space), _link(name), spec),
        'link.set': lambda space, name, changes: netlink.set_link(_space(space), _link(name), changes),
        'link.delete': lambda space, name: netlink.delete_link(_space(space), _link(name)),
        'address.add': lambda space, name, cidr: netlink.address('add', _space(space), _leg(name), cidr),
        'address.delete': lambda space, name, cidr: netlink.address('del', _space(space), _leg(name), cidr),
        'route.add': lambda space, destination, gateway, device, onlink:
            netlink.route('add', _space(space), destination, gateway, device, onlink),
        'route.delete': lambda space, destination, gateway, device:
            netlink.route('del', _space(space), destination, gateway, device, False),
        'fdb.add': lambda space, name, mac, remote: netlink.fdb('append', _space(space), _link(name), mac, remote),
        'fdb.delete': lambda space, name, mac, remote: netlink.fdb('del', _space(space), _link(name), mac, remote),
        'announce': lambda space, name, addresses: netlink.announce(_space(space), _link(name), addresses),
        'conntrack.cut': lambda space, cuts: conntrack.cut(_space(space), cuts),
        'dnsmasq.start': lambda space, folder, main: dnsmasq.start(_space(space), folder, main),
        'dnsmasq.reload': dnsmasq.reload,
        'dnsmasq.stop': dnsmasq.stop,
    }


@context.entrypoint
def perform(operations):
    """Do operations in their order; a failure stops none of those after it.

    :param operations: a list of [name, argument...].
    :returns: for each, None or a sentence that says what went wrong.
    """
    from kodiak.network.agent import netlink
    results = []
    known = _operations()
    with netlink.sockets():
        for name, *args in operations:
            try:
                known[name](*args)
                results.append(None)
            except Exception as error:
                what = ' '.join(str(arg) for arg in args if isinstance(arg, str) and len(arg) < 64)
                results.append(f'{name} {what}: {error or type(error).__name__}')
    return results


def _tables(space):
    """The output of ``nft -j list`` for each of our tables in a namespace."""
    ours = ('inet kodiak-router',) if space else (
        'bridge kodiak-guard', 'bridge kodiak-marks', 'inet kodiak-groups', 'inet kodiak-tunnel')
    found = []
    for title in ours:
        done = subprocess.run(['nft', '-j', 'list', 'table', *title.split()], capture_output=True, text=True,
                              check=False, timeout=120)
        if done.returncode == 0:
            found.append(done.stdout)
        elif 'No such file' not in done.stderr:
            raise RuntimeError('nft: ' + ' '.join(done.stderr.split())[:500])
    return found


@context.entrypoint
def look():
    """What the host is, as plain data.

    :returns: {'spaces': {namespace: what ``netlink.look`` returns, with 'sysctls' and 'tables' (texts)},
        'dnsmasq': what ``dnsmasq.look`` returns}.
    """
    from kodiak.network.agent import netlink
    spaces = {}
    ours = [name for name in netlink.namespaces() if names.OUR_NAMESPACE.match(name)]
    with netlink.sockets():
        for name in [names.HOST, *ours]:
            with inside(name):
                found = netlink.look(name)
                found['sysctls'] = {}
                for key in SYSCTLS if name else BRIDGE_SYSCTLS:
                    try:
                        with open(os.path.join('/proc/sys', key)) as file:
                            found['sysctls'][key] = file.read().strip()
                    except FileNotFoundError:
                        continue
                found['tables'] = _tables(name)
            spaces[name] = found
    return {'spaces': spaces, 'dnsmasq': dnsmasq.look()}


@context.entrypoint
def services():
    """The dnsmasq processes alone, as in :func:`look`."""
    return dnsmasq.look()


@context.entrypoint
def open_listener(space, kind, path, address='', port=0, device=''):
    """Open a socket inside a namespace and pass it to the agent over its Unix socket ``path``.

    :param kind: ``tcp`` (a listening socket on address and port) or ``icmp6`` (a raw socket for router advertisements
        on ``device``).
    """
    from kodiak.network.agent import netlink
    if kind not in ('tcp', 'icmp6'):
        raise Refused(f'{kind!r} is no kind of socket')
    with inside(_space(space)):
        if kind == 'tcp':
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            made.listen(128)
        else:
            made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _link(device).encode())
            netlink.join_all_routers(made, device)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as carrier:
            carrier.settimeout(10)
            carrier.connect(path)
            carrier.sendmsg([b'1'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [made.fileno()]))])
    finally:
        made.close()
