"""Namespaces, links, addresses, routes and forwarding entries through netlink; runs as root."""
import contextlib
import errno
import fcntl
import ipaddress
import os
import socket
import struct
import threading

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kodiak.network.agent import names
from kodiak.network.agent.spaces import CLONE_NEWNET, FOLDER, LIBC, check, inside, path

TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454ca, 0x400454cb, 0x400454cc
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 4096, 16384, 1 << 20, 2
VXLAN_PORT = 4789
RT_MAIN, RTPROT_KERNEL, RTPROT_RA, RTPROT_STATIC, RTN_UNICAST = 254, 2, 9, 4, 1
NUD_PERMANENT, NTF_SELF = 0x80, 0x02
IFA_F_NODAD = 0x02
ETH_P_ARP, ETH_P_ALL = 0x0806, 3
TC_ROOT, TC_INGRESS = 0xffffffff, 0xffff0000

_open = threading.local()


@contextlib.contextmanager
def sockets():
    """Netlink sockets that are opened inside the block are kept, one a namespace, until it ends."""
    _open.kept = {}
    try:
        yield
    finally:
        for one in _open.kept.values():
            one.close()
        _open.kept = None


def _route(space):
    """A netlink socket in a namespace; the thread need not be there."""
    kept = _open.kept
    if space not in kept:
        with inside(space):
            kept[space] = IPRoute()
    return kept[space]


def _forget(space):
    one = _open.kept.pop(space, None)
    if one is not None:
        one.close()


def _index(space, name):
    found = _route(space).link_lookup(ifname=name)
    if not found:
        raise OSError(errno.ENODEV, f'there is no interface {name}')
    return found[0]


def namespaces():
    """Names of the network namespaces that have one."""
    try:
        return sorted(os.listdir(FOLDER))
    except FileNotFoundError:
        return []


def _mount_folder():
    """The folder of namespaces as a shared mount, so that processes in other mount namespaces see removals."""
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    folder = FOLDER.encode()
    if LIBC.mount(b'', folder, b'none', MS_SHARED | MS_REC, None) == 0:
        return
    check(LIBC.mount(folder, folder, b'none', MS_BIND | MS_REC, None), 'binding ' + FOLDER)
    check(LIBC.mount(b'', folder, b'none', MS_SHARED | MS_REC, None), 'sharing ' + FOLDER)


def add_namespace(name):
    """Make a named namespace with its loopback up."""
    _mount_folder()
    target = path(name)
    if os.path.ismount(target):
        return
    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    failed = []

    def make():
        try:
            check(LIBC.unshare(CLONE_NEWNET), 'making a namespace')
            check(LIBC.mount(b'/proc/thread-self/ns/net', target.encode(), b'none', MS_BIND, None), 'naming it')
        except OSError as error:
            failed.append(error)

    # A thread of its own, which ends in the new namespace.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        os.unlink(target)
        raise failed[0]
    _forget(name)
    route = _route(name)
    route.link('set', index=1, state='up')


def delete_namespace(name):
    """Remove a namespace with all that is in it; nothing to do where it is gone."""
    _forget(name)
    target = path(name)
    LIBC.umount2(target.encode(), MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)


def _no_ipv6(space, name, off):
    with contextlib.suppress(FileNotFoundError), inside(space), \
            open(f'/proc/sys/net/ipv6/conf/{name}/disable_ipv6', 'w') as file:
        file.write('1' if off else '0')


def _add_tap(space, name, owner):
    with inside(space):
        device = os.open('/dev/net/tun', os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, TUNSETIFF, struct.pack('16sH22x', name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
            if owner is not None:
                fcntl.ioctl(device, TUNSETOWNER, owner)
            fcntl.ioctl(device, TUNSETPERSIST, 1)
        finally:
            os.close(device)


def add_link(space, name, spec):
    """Make an interface and bring it to its properties.

    :param spec: ``layout.Link`` as a dictionary without what is not set.
    """
    route, kind = _route(space), spec['kind']
    try:
        if kind == 'bridge':
            route.link('add', ifname=name, kind='bridge', br_mcast_snooping=0, br_stp_state=0, br_forward_delay=0)
        elif kind == 'vxlan':
            local = 'vxlan_local6' if ':' in spec['local'] else 'vxlan_local'
            route.link('add', ifname=name, kind='vxlan', vxlan_id=spec['vni'], vxlan_port=VXLAN_PORT, vxlan_learning=0,
                       **{local: spec['local']})
        elif kind == 'ifb':
            route.link('add', ifname=name, kind='ifb')
        elif kind == 'tap':
            _add_tap(space, name, spec.get('owner'))
        elif kind == 'veth':
            inner_space, inner = spec['peer']
            with open(path(inner_space)) as target:
                route.link('add', ifname=name, kind='veth', peer={'ifname': inner, 'net_ns_fd': target.fileno()})
        else:
            raise ValueError(f'no interface of kind {kind} is made here')
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
    changes = {key: spec[key] for key in ('mtu', 'mac', 'master', 'limit', 'funnel') if key in spec}
    set_link(space, name, {**changes, 'ipv6': spec['ipv6'], 'up': spec['up']})


def set_link(space, name, changes):
    """Change properties of an interface; it goes up last, when it is all that it should be."""
    index, route = _index(space, name), _route(space)
    if 'ipv6' in changes:
        _no_ipv6(space, name, off=not changes['ipv6'])
    values = {}
    if 'mtu' in changes:
        values['mtu'] = changes['mtu']
    if changes.get('mac'):
        values['address'] = changes['mac']
    if 'master' in changes:
        values['master'] = _index(space, changes['master']) if changes['master'] else 0
    if values:
        route.link('set', index=index, **values)
    if 'limit' in changes:
        _limit(route, index, changes['limit'])
    if 'funnel' in changes:
        _funnel(route, index, _index(space, changes['funnel']) if changes['funnel'] else None)
    if 'up' in changes:
        route.link('set', index=index, state='up' if changes['up'] else 'down')


def _limit(route, index, limit):
    """Limit what a device sends, or no longer.

    :param limit: [kilobits a second, burst in kilobits, mark], or None. The mark is the number of the queue.
    """
    if limit is None:
        _tolerate(lambda: route.tc('del', index=index, parent=TC_ROOT), errno.ENOENT, errno.EINVAL)
        return
    rate, burst, mark = limit
    route.tc('replace', 'tbf', index, mark << 16, parent=TC_ROOT, rate=f'{rate}kbit', latency='50ms', burst=burst * 125)


def _funnel(route, index, target):
    """Lead what comes in by a device through another one first (None: no longer)."""
    _tolerate(lambda: route.tc('del', 'ingress', index, TC_INGRESS), errno.ENOENT, errno.EINVAL)
    if target is not None:
        route.tc('add', 'ingress', index, TC_INGRESS)
        route.tc('add-filter', 'u32', index, parent=TC_INGRESS, prio=1, protocol=ETH_P_ALL, target=0x10000,
                 keys=['0x0/0x0+0'],
                 action={'kind': 'mirred', 'direction': 'egress', 'action': 'redirect', 'ifindex': target})


def _funnel_of(route, index, by_index):
    """The device that what comes in is led through; '' where it is led nowhere."""
    for message in route.get_filters(index=index, parent=TC_INGRESS):
        options = message.get_attr('TCA_OPTIONS')
        actions = options.get_attr('TCA_U32_ACT') if options else None
        for _, action in actions['attrs'] if actions else ():
            details = action.get_attr('TCA_ACT_OPTIONS')
            parameters = details.get_attr('TCA_MIRRED_PARMS') if details else None
            if parameters:
                return by_index.get(parameters['ifindex'], '')
    return ''


def delete_link(space, name):
    """Remove an interface; nothing to do where it is gone."""
    found = _route(space).link_lookup(ifname=name)
    if found:
        _route(space).link('del', index=found[0])


def _tolerate(function, *numbers):
    try:
        function()
    except NetlinkError as error:
        if error.code not in numbers:
            raise


def address(verb, space, name, cidr):
    """Add ('add') or remove ('del') an address; fine if that is so already."""
    plain, prefix = cidr.split('/')
    version = ipaddress.ip_address(plain).version
    values = {'flags': IFA_F_NODAD} if version == 6 and verb == 'add' else {}
    index = _index(space, name)
    _tolerate(lambda: _route(space).addr(
        verb, index=index, address=plain, prefixlen=int(prefix),
        family=socket.AF_INET if version == 4 else socket.AF_INET6, **values), errno.EEXIST, errno.EADDRNOTAVAIL)


def route(verb, space, destination, gateway, device, onlink):
    """Add or remove a route of the main table; fine if that is so already."""
    values = {'dst': destination, 'table': RT_MAIN, 'proto': RTPROT_STATIC,
              'family': socket.AF_INET6 if ':' in destination else socket.AF_INET}
    if gateway:
        values['gateway'] = gateway
    if device:
        values['oif'] = _index(space, device)
    if not gateway:
        values['scope'] = 253                   # link
    if onlink:
        values['flags'] = 4                     # RTNH_F_ONLINK
    _tolerate(lambda: _route(space).route(verb, **values), errno.EEXIST, errno.ESRCH)


def fdb(verb, space, name, mac, remote):
    """Add ('append') or remove ('del') a forwarding entry of a vxlan device; fine if that is so already."""
    index = _index(space, name)
    _tolerate(lambda: _route(space).fdb(verb, ifindex=index, lladdr=mac, dst=remote, state=NUD_PERMANENT,
                                        flags=NTF_SELF), errno.EEXIST, errno.ENOENT)


def _describe(message, by_index, host):
    """A link message as ``layout.Link`` fields."""
    info = message.get_attr('IFLA_LINKINFO')
    kind = info.get_attr('IFLA_INFO_KIND') if info else None
    data = info.get_attr('IFLA_INFO_DATA') if info else None
    found = {'kind': kind or 'other', 'mtu': message.get_attr('IFLA_MTU'), 'up': bool(message['flags'] & 1),
             'mac': message.get_attr('IFLA_ADDRESS'), 'ipv6': True}
    master = message.get_attr('IFLA_MASTER')
    if master:
        found['master'] = by_index.get(master)
    families = message.get_attr('IFLA_AF_SPEC')
    six = families.get_attr('AF_INET6') if families else None
    settings = six.get_attr('IFLA_INET6_CONF') if six else None
    if settings is not None:
        found['ipv6'] = not settings['disable_ipv6']
    else:
        found['ipv6'] = False
    if kind == 'veth':
        found['kind'] = 'veth' if host else 'inner'
    elif kind == 'tun':
        found['kind'] = 'tap'
        if data is not None:
            found['owner'] = data.get_attr('IFLA_TUN_OWNER')
    elif kind == 'vxlan':
        found['vni'] = data.get_attr('IFLA_VXLAN_ID')
        found['local'] = data.get_attr('IFLA_VXLAN_LOCAL') or data.get_attr('IFLA_VXLAN_LOCAL6')
    return found


def _queues(route, links, by_index):
    """Note the limits and funnels of links."""
    for message in route.get_qdiscs():
        link = links.get(by_index.get(message['index']))
        if link is None:
            continue
        if message.get_attr('TCA_KIND') == 'tbf' and message['parent'] == TC_ROOT:
            link['mark'] = message['handle'] >> 16
        elif message.get_attr('TCA_KIND') == 'ingress':
            link['funnel'] = _funnel_of(route, message['index'], by_index)


def look(space):
    """Links, addresses, routes and forwarding entries of a namespace that the thread is in.

    :returns: {'links': {name: {...}}, 'others': [names of links that are not ours], 'addresses': {name: [cidr]},
        'routes': [[destination, gateway, device]], 'fdb': {vxlan device: [[mac, remote]]}}.
    """
    route = _route(space)
    messages = list(route.get_links())
    by_index = {message['index']: message.get_attr('IFLA_IFNAME') for message in messages}
    ours = names.OUR_LEG if space else names.OUR_LINK
    links, others, tunnels = {}, [], {}
    for message in messages:
        name = by_index[message['index']]
        if ours.match(name):
            links[name] = _describe(message, by_index, not space)
            if links[name]['kind'] == 'vxlan':
                tunnels[message['index']] = name
        else:
            others.append(name)
    if not space:
        _queues(route, links, by_index)
    found = {'links': links, 'others': others, 'addresses': {}, 'routes': [],
             'fdb': {name: [] for name in tunnels.values()}, 'inode': os.stat('/proc/thread-self/ns/net').st_ino}
    if space:
        for message in route.get_addr():
            plain = message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')
            parsed = ipaddress.ip_address(plain)
            if not parsed.is_loopback and not (parsed.version == 6 and parsed.is_link_local):
                found['addresses'].setdefault(by_index.get(message['index']), []).append(
                    f'{plain}/{message["prefixlen"]}')
        for family, everything in ((socket.AF_INET, '0.0.0.0/0'), (socket.AF_INET6, '::/0')):
            for message in route.get_routes(family=family, table=RT_MAIN):
                if message['type'] != RTN_UNICAST or message['proto'] in (RTPROT_KERNEL, RTPROT_RA):
                    continue
                destination = message.get_attr('RTA_DST')
                text = f'{destination}/{message["dst_len"]}' if destination else everything
                found['routes'].append([text, message.get_attr('RTA_GATEWAY') or '',
                                        by_index.get(message.get_attr('RTA_OIF'), '')])
    if tunnels:
        for message in route.get_neighbours(family=socket.AF_BRIDGE):
            remote = message.get_attr('NDA_DST')
            if message['ifindex'] in tunnels and remote:
                found['fdb'][tunnels[message['ifindex']]].append([message.get_attr('NDA_LLADDR'), remote])
    return found


def announce(space, name, addresses):
    """Tell the neighbours on a link, by gratuitous ARP, that IPv4 addresses are here now."""
    with inside(space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as sender:
        sender.bind((name, ETH_P_ARP))
        mac = sender.getsockname()[4]
        everyone = b'\xff' * 6
        for plain in addresses:
            packed = socket.inet_aton(plain)
            for operation, target in ((1, b'\0' * 6), (2, everyone)):
                sender.send(everyone + mac + struct.pack('!HHHBBH', ETH_P_ARP, 1, 0x0800, 6, 4, operation)
                            + mac + packed + target + packed)


def join_all_routers(made, device):
    """Let a raw ICMPv6 socket hear router solicitations on an interface, and send with what RFC 4861 asks for."""
    index = socket.if_nametoindex(device)
    group = socket.inet_pton(socket.AF_INET6, 'ff02::2') + struct.pack('@I', index)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    icmp6_filter = bytearray(b'\xff' * 32)                # 1 blocks
    icmp6_filter[133 // 8] &= ~(1 << (133 % 8)) & 0xff
    made.setsockopt(socket.IPPROTO_ICMPV6, 1, bytes(icmp6_filter))
