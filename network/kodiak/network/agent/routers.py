"""Routers: a namespace each, with its legs, addresses, routes and one nftables table for NAT."""
import ipaddress

from kodiak.network.agent import names
from kodiak.network.agent.layout import Namespace
from kodiak.network.agent.nft import Chain, Set, Table

TABLE = 'inet kodiak-router'
METADATA = '169.254.169.254'
PROTOCOLS = {'tcp', 'udp', 'sctp', 'dccp', 'udplite'}


def _subnets(wanted, network_id):
    network = wanted.networks.get(network_id)
    return {subnet.id: subnet for subnet in network.subnets} if network else {}


def _prefixed(address, subnet):
    return f'{address}/{ipaddress.ip_network(subnet.cidr).prefixlen}'


def leg_addresses(wanted, leg):
    """Addresses of a leg as (address, ``state.Subnet``), in the order of the document; unknown subnets left out."""
    subnets = _subnets(wanted, leg.network_id)
    return [(fixed.address, subnets[fixed.subnet_id]) for fixed in leg.fixed_ips if fixed.subnet_id in subnets]


def floating(wanted):
    """{router id: its floating addresses, sorted}."""
    found = {}
    for one in sorted(wanted.floating_ips.values(), key=lambda one: one.id):
        found.setdefault(one.router_id, []).append(one)
    return found


def _gateway_routes(wanted, router, device):
    """Default routes, and routes to subnets of the external network that the router has no address in."""
    routes, served = {}, set()
    for _, subnet in leg_addresses(wanted, router.gateway):
        served.add(subnet.id)
        if subnet.gateway_ip:
            inside = ipaddress.ip_address(subnet.gateway_ip) in ipaddress.ip_network(subnet.cidr)
            default = '0.0.0.0/0' if subnet.ip_version == 4 else '::/0'
            routes.setdefault((default, subnet.gateway_ip, ''), (device, not inside))
    for subnet in _subnets(wanted, router.gateway.network_id).values():
        if subnet.id not in served and subnet.ip_version == 4:
            routes[subnet.cidr, '', device] = (device, False)
    return routes


def table(wanted, router, addresses):
    """The NAT table of a router.

    :param addresses: its ``state.FloatingIP`` documents.
    """
    internal = [names.router_leg(leg.port_id)[1] for leg in router.legs]
    inward = Set('ipv4_addr', maps='ipv4_addr')
    outward = Set('ipv4_addr', maps='ipv4_addr')
    forwards = Set('ipv4_addr . inet_proto . inet_service', maps='ipv4_addr . inet_service')
    for one in addresses:
        if one.fixed_address:
            inward.elements[one.floating_address] = one.fixed_address
            outward.elements[one.fixed_address] = one.floating_address
        for forward in one.forwardings:
            forwards.elements.update(_forward(one.floating_address, forward))
    # Traffic that was turned round here has to come back through here.
    post = [f'ct status dnat iifname "{leg}" oifname "{leg}" masquerade' for leg in internal]
    guard = []
    if router.gateway:
        gateway = names.router_leg(router.gateway.port_id, gateway=True)[1]
        post.append(f'oifname "{gateway}" snat ip to ip saddr map @outward')
        sources = [address for address, subnet in leg_addresses(wanted, router.gateway) if subnet.ip_version == 4]
        if router.enable_snat and sources:
            post.append(f'oifname "{gateway}" meta nfproto ipv4 snat ip to {sources[0]} fully-random')
        guard = [f'iifname "{gateway}" ip daddr {METADATA} drop']
    return Table('inet', 'kodiak-router', {'inward': inward, 'outward': outward, 'forwards': forwards}, {
        'before': Chain((
            'dnat ip to ip daddr map @inward',
            'dnat ip to ip daddr . meta l4proto . th dport map @forwards',
        ), 'type nat hook prerouting priority dstnat; policy accept;'),
        'after': Chain((*post, 'return'), 'type nat hook postrouting priority srcnat; policy accept;'),
        'guard': Chain((*guard, 'return'), 'type filter hook prerouting priority -150; policy accept;'),
        'passing': Chain((
            # A packet that belongs to no connection would leave with an inner address.
            *(f'oifname "{names.router_leg(router.gateway.port_id, gateway=True)[1]}" ct state invalid drop'
              for _ in (1,) if router.gateway),
            'return',
        ), 'type filter hook forward priority filter; policy accept;'),
    })


def _forward(address, forward):
    """A port forwarding as map elements; a range is one element a port."""
    if forward.protocol not in PROTOCOLS:
        return
    outer = [int(port) for port in str(forward.external_port).split(':')]
    inner = [int(port) for port in str(forward.internal_port).split(':')]
    for offset in range(outer[-1] - outer[0] + 1):
        target = inner[0] + (offset if len(inner) > 1 else 0)
        yield f'{address} . {forward.protocol} . {outer[0] + offset}', f'{forward.internal_address} . {target}'


def cuts(before, after):
    """Known connections to end when a NAT table changes: those of floating addresses that lead elsewhere now.

    :returns: a sorted list of (zone, address), as ``conntrack.cut`` takes it.
    """
    if before is None:
        return []
    changed = set()
    for name in ('inward', 'forwards'):
        had = before.sets[name].elements if name in before.sets else {}
        changed |= {key.split(' . ')[0] for key, value in had.items() if after.sets[name].elements.get(key) != value}
    return sorted((0, address) for address in changed)


def plan(wanted, router, addresses, bridges, host, plug):
    """One router.

    :param addresses: its floating addresses.
    :param bridges: {network id: bridge here}.
    :param host: the layout of the host's namespace, which gets the outer ends of the legs.
    :param plug: the driver's function that connects a namespace to a network.
    :returns: (Namespace, Table, sentence or None).
    """
    owner = ('routers', router.id)
    up = router.admin_state_up
    space = Namespace(owner=owner, sysctls={
        'net/ipv4/ip_forward': '1' if up else '0', 'net/ipv6/conf/all/forwarding': '1' if up else '0',
        'net/ipv6/conf/default/accept_ra': '0', 'net/ipv4/conf/all/arp_ignore': '1',
        'net/ipv4/conf/all/arp_announce': '2',
    })
    here = (names.router_namespace(router.id), space)
    missing = []
    for leg in (*router.legs, *((router.gateway,) if router.gateway else ())):
        outer, inner = names.router_leg(leg.port_id, gateway=leg is router.gateway)
        if leg.network_id not in bridges:
            missing.append(leg.network_id)
            continue
        plug(host, here, outer, inner, leg.mac, wanted.networks[leg.network_id], bridges[leg.network_id], owner, up)
        space.addresses[inner] = {_prefixed(*pair) for pair in leg_addresses(wanted, leg)}
        if leg is router.gateway:
            space.addresses[inner] |= {one.floating_address + '/32' for one in addresses}
            if up:
                space.routes.update(_gateway_routes(wanted, router, inner))
    if up:
        for route in router.routes:
            destination = str(ipaddress.ip_network(route['destination'], strict=False))
            space.routes[destination, route['nexthop'], ''] = ('', False)
    space.addresses['lo'] = {METADATA + '/32'} if router.legs else set()
    sentence = f'networks {", ".join(sorted(missing))} are not on this host' if missing else None
    return space, table(wanted, router, addresses), sentence
