"""Security groups and anti-spoofing of a host with Linux bridges, as two nftables tables.

The kernel's bridge family knows the bridge port that a packet came in or goes out by, but not the state of its
connection; the inet family, which sees bridged packets through br_netfilter, knows the state, but not the port. So
the one tells the other by the packet's mark:

``bridge kodiak-guard``
    ``entering`` (prerouting, before br_netfilter) marks packets from filtered taps with the port's number and drops
    what the guest may not send at all: foreign MAC, IP, ARP and neighbour addresses, DHCP server answers, router
    advertisements, and any protocol besides IPv4, IPv6, ARP and RARP. ``leaving`` (forward) marks packets *to*
    filtered taps. The sets hold (tap, MAC) and (tap, MAC, address), so that a port costs elements and no rules.
``inet kodiak-groups``
    ``zone`` gives each bridge its conntrack zone, since tenants' addresses overlap. ``egress`` (prerouting, after
    conntrack) and ``ingress`` (forward) send a marked packet to the chain of its port, which accepts what belongs
    to known connections, then asks the chains of the port's groups, then drops. A group is one chain a direction
    however many ports are in it, and a remote group is a set, so that a new member costs one element.
    ``egress-done`` and ``ingress-done`` take our marks off again.

A mark is ours if its upper 12 bits are 0x4b0; the lower 20 are the number of the port on this host.
"""
import ipaddress
import logging
import re

from kodiak.network.agent import names
from kodiak.network.agent.nft import Chain, Set, Table

MAC = re.compile(r'^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z')
LOG = logging.getLogger(__name__)

GUARD = 'bridge kodiak-guard'
GROUPS = 'inet kodiak-groups'
MARK = 0x4b000000
MARK_BITS = 0xfff00000
UNMARK = f'meta mark & {MARK_BITS:#x} == {MARK:#x} meta mark set 0x0'
MAX_ZONE = 65535

PROTOCOLS = {
    'ah': 51, 'dccp': 33, 'egp': 8, 'esp': 50, 'gre': 47, 'icmp': 1, 'igmp': 2, 'ipip': 4, 'ipv6-encap': 41,
    'ipv6-frag': 44, 'icmpv6': 58, 'ipv6-icmp': 58, 'ipv6-nonxt': 59, 'ipv6-opts': 60, 'ipv6-route': 43, 'ospf': 89,
    'pgm': 113, 'rsvp': 46, 'sctp': 132, 'tcp': 6, 'udp': 17, 'udplite': 136, 'vrrp': 112,
}
WITH_PORTS = {6, 17, 33, 132, 136}
ICMP, ICMPV6 = 1, 58

# Neighbour discovery and multicast listener queries and reports, and for those who come in router advertisements.
NEIGHBOURS_OUT = '130, 131, 132, 133, 135, 136, 143'
NEIGHBOURS_IN = '130, 131, 132, 134, 135, 136, 143'

GUARD_CHAINS = {
    'entering': Chain((
        'meta mark set iifname map @sources',
        'iifname @guarded jump guard',
    ), 'type filter hook prerouting priority -300; policy accept;'),
    'leaving': Chain((
        UNMARK,
        'meta mark set oifname map @targets',
    ), 'type filter hook forward priority -300; policy accept;'),
    'guard': Chain((
        'iifname . ether saddr != @macs drop',
        'ether type ip goto guard-ip4',
        'ether type ip6 goto guard-ip6',
        'ether type arp goto guard-arp',
        'ether type != 0x8035 drop',
    )),
    'guard-ip4': Chain((
        'meta l4proto udp udp sport 67 udp dport 68 drop',
        'iifname . ether saddr . ip saddr @addresses4 return',
        'iifname . ether saddr . ip saddr @networks4 return',
        'ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 return',
        'drop',
    )),
    'guard-ip6': Chain((
        'meta l4proto udp udp sport 547 udp dport 546 drop',
        'icmpv6 type nd-router-advert drop',
        'iifname @neighbours icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 drop',
        'iifname . ether saddr . ip6 saddr @addresses6 return',
        'iifname . ether saddr . ip6 saddr @networks6 return',
        'ip6 saddr :: icmpv6 type { 131, 132, 133, 135, 143 } return',
        'drop',
    )),
    'guard-arp': Chain((
        'iifname . arp saddr ether != @macs drop',
        'arp saddr ip 0.0.0.0 return',
        'iifname . arp saddr ether . arp saddr ip @addresses4 return',
        'iifname . arp saddr ether . arp saddr ip @networks4 return',
        'drop',
    )),
}
GROUP_CHAINS = {
    'zone': Chain(('ct zone set iifname map @zones',), 'type filter hook prerouting priority raw; policy accept;'),
    'egress': Chain(('meta mark vmap @egress-ports',), 'type filter hook prerouting priority -150; policy accept;'),
    'egress-done': Chain((UNMARK,), 'type filter hook prerouting priority -149; policy accept;'),
    'ingress': Chain(('meta mark vmap @ingress-ports',), 'type filter hook forward priority filter; policy accept;'),
    'ingress-done': Chain((UNMARK,), 'type filter hook forward priority 1; policy accept;'),
}


class Unsupported(ValueError):
    """A rule that this driver can't enforce."""


def link_local(mac):
    """The IPv6 link-local address that a guest forms from its MAC address."""
    octets = [int(part, 16) for part in mac.split(':')]
    octets[0] ^= 2
    interface = bytes([*octets[:3], 0xff, 0xfe, *octets[3:]])
    return str(ipaddress.IPv6Address(b'\xfe\x80' + bytes(6) + interface))


def _networks(texts, version):
    """Addresses and CIDRs of one IP version: (single addresses, collapsed networks), in canonical text."""
    singles, wide = set(), []
    for text in texts:
        network = ipaddress.ip_network(text, strict=False)
        if network.version != version:
            continue
        if network.prefixlen == network.max_prefixlen:
            singles.add(str(network.network_address))
        else:
            wide.append(network)
    return singles, [str(network) for network in ipaddress.collapse_addresses(wide)]


def _sane(texts):
    """Those of some addresses and CIDRs that are any."""
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            LOG.error('%r is no address', text)
        else:
            yield text


def _everything(network):
    return ipaddress.ip_network(network, strict=False).prefixlen == 0


def rule_texts(rule, wide_sets):
    """A security group rule as nftables rules.

    :param rule: a ``state.Rule``.
    :param wide_sets: names of address sets that hold CIDRs besides single addresses.
    :raises Unsupported: if it names a protocol unknown here, or ports where there are none.
    """
    version = 6 if rule.ethertype == 'IPv6' else 4
    parts = [f'meta nfproto ipv{version}']
    side = 'saddr' if rule.direction == 'ingress' else 'daddr'
    family = 'ip6' if version == 6 else 'ip'
    if rule.protocol not in (None, '', 'any', '0', 0):
        name = str(rule.protocol).lower()
        number = int(name) if name.isdigit() else PROTOCOLS.get(name)
        if number is None or number > 255:
            raise Unsupported(f'rule {rule.id}: protocol {rule.protocol} is not known')
        if number == ICMP and version == 6:
            number = ICMPV6
        parts.append(f'meta l4proto {number}')
        low, high = rule.port_range_min, rule.port_range_max
        if number in (ICMP, ICMPV6):
            kind = 'icmpv6' if number == ICMPV6 else 'icmp'
            if low is not None:
                parts.append(f'{kind} type {int(low)}')
            if high is not None:
                parts.append(f'{kind} code {int(high)}')
        elif low is not None or high is not None:
            if number not in WITH_PORTS:
                raise Unsupported(f'rule {rule.id}: protocol {rule.protocol} has no ports')
            low, high = int(1 if low is None else low), int(65535 if high is None else high)
            parts.append(f'th dport {low}' if low == high else f'th dport {low}-{high}')
    if rule.remote_ip_prefix and not _everything(rule.remote_ip_prefix):
        parts.append(f'{family} {side} {ipaddress.ip_network(rule.remote_ip_prefix, strict=False)}')
    if not rule.remote_set:
        return [' '.join([*parts, 'accept'])]
    sets = [f'members{version}-{rule.remote_set}']
    if f'ranges{version}-{rule.remote_set}' in wide_sets:
        sets.append(f'ranges{version}-{rule.remote_set}')
    return [' '.join([*parts, f'{family} {side} @{name}', 'accept']) for name in sets]


def _member_sets(wanted, used):
    """The sets of remote groups: {name: Set}. The narrow ones always exist, so that rules can name them."""
    texts = {key: [] for key in used}
    for member in wanted.set_members.values():
        if member.set_id in texts:
            texts[member.set_id].extend(_sane(member.addresses))
    sets = {}
    for key, addresses in texts.items():
        for version in (4, 6):
            singles, wide = _networks(addresses, version)
            sets[f'members{version}-{key}'] = Set(f'ipv{version}_addr', elements=dict.fromkeys(singles, ''))
            if wide:
                sets[f'ranges{version}-{key}'] = Set(f'ipv{version}_addr', interval=True,
                                                     elements=dict.fromkeys(wide, ''))
    return sets


def _guard_sets():
    return {
        'sources': Set('ifname', maps='mark'), 'targets': Set('ifname', maps='mark'), 'guarded': Set('ifname'),
        'macs': Set('ifname . ether_addr'),
        'addresses4': Set('ifname . ether_addr . ipv4_addr'), 'addresses6': Set('ifname . ether_addr . ipv6_addr'),
        'networks4': Set('ifname . ether_addr . ipv4_addr', interval=True),
        'networks6': Set('ifname . ether_addr . ipv6_addr', interval=True),
        'neighbours': Set('ifname'), 'targets6': Set('ifname . integer', typeof='iifname . @th,64,128'),
        # No rule asks this one: it remembers the conntrack zone of a port for when the port has gone.
        'homes': Set('ifname', maps='mark'),
    }


def _guard_port(sets, tap, port):
    """Add what a guest may send as: its own MAC and addresses, and its allowed pairs."""
    pairs = [(port.mac, fixed.address) for fixed in port.fixed_ips]
    pairs += [(pair.mac_address or port.mac, pair.ip_address) for pair in port.allowed_address_pairs]
    by_mac = {mac: [] for mac in {port.mac, *(mac for mac, _ in pairs)} if MAC.match(mac)}
    for mac, addresses in by_mac.items():
        addresses.append(link_local(mac))
    for mac, address in pairs:
        if not MAC.match(mac):
            raise ValueError(f'{mac!r} is no MAC address')
        by_mac[mac].append(address)
    advertised, wide6 = set(), False
    for mac, addresses in by_mac.items():
        sets['macs'].elements[f'{tap} . {mac}'] = ''
        for version in (4, 6):
            singles, wide = _networks(addresses, version)
            sets[f'addresses{version}'].elements.update((f'{tap} . {mac} . {one}', '') for one in singles)
            sets[f'networks{version}'].elements.update((f'{tap} . {mac} . {one}', '') for one in wide)
            if version == 6:
                advertised |= singles
                wide6 = wide6 or bool(wide)
    if not wide6:
        # With a range to speak for, a guest may advertise any neighbour; the set can hold single addresses only.
        sets['neighbours'].elements[tap] = ''
        for address in advertised:
            sets['targets6'].elements[f'{tap} . {int(ipaddress.IPv6Address(address)):#x}'] = ''


def _numbers(keys, taken, start, end):
    """Numbers for keys: those they have, then the lowest that are free."""
    numbers = {key: taken[key] for key in keys if key in taken}
    used, following = set(numbers.values()), start
    for key in keys:
        if key in numbers:
            continue
        while following in used:
            following += 1
        if following > end:
            raise Unsupported(f'this host has no number left for {key}')
        numbers[key] = following
        used.add(following)
    return numbers


def plan(wanted, bridges, observed):
    """The two tables as they should be.

    :param wanted: a ``state.Wanted``.
    :param bridges: {network id: name of its bridge here}.
    :param observed: {title: Table}; ports and bridges keep the numbers that they have there.
    :returns: ({title: Table}, ids of filtered ports, {port id: sentence}): no tables where there is nothing to filter; the
        last are ports that can't be filtered as they should. Such a port has the rules that are understood: it lets less
        through than it should, never more.
    """
    ports = {key: port for key, port in sorted(wanted.ports.items())
             if port.port_security_enabled and port.network_id in bridges}
    if not ports:
        return {}, set(), {}
    have = observed.get(GUARD)
    taken = {key: int(value, 0) - MARK for key, value in have.sets['sources'].elements.items()} \
        if have and 'sources' in have.sets else {}
    marks = _numbers([names.tap(key) for key in ports], taken, 1, ~MARK_BITS & 0xffffffff)
    # A bridge of the operator's has one network and shares zone 0 with the host, whose own filters rely on it.
    zoned = sorted({bridges[port.network_id] for port in ports.values()
                    if bridges[port.network_id] == names.bridge(port.network_id)})
    have = observed.get(GROUPS)
    zones = _numbers(zoned, {key: int(value) for key, value in have.sets['zones'].elements.items()}
                     if have and 'zones' in have.sets else {}, 1, MAX_ZONE)

    guard = Table('bridge', 'kodiak-guard', _guard_sets(), dict(GUARD_CHAINS))
    groups = Table('inet', 'kodiak-groups', {
        'zones': Set('ifname', maps='integer', typeof='iifname : ct zone',
                     elements={key: str(value) for key, value in zones.items()}),
        'egress-ports': Set('mark', maps='verdict'), 'ingress-ports': Set('mark', maps='verdict'),
    }, dict(GROUP_CHAINS))

    in_use = {key for port in ports.values() for key in port.security_groups}
    rules = [rule for key in in_use if key in wanted.security_groups for rule in wanted.security_groups[key].rules]
    members = _member_sets(wanted, {rule.remote_set for rule in rules if rule.remote_set})
    groups.sets.update(members)
    faults = {}
    for key in sorted(in_use):
        document = wanted.security_groups.get(key)
        texts = {'ingress': [], 'egress': []}
        if document is None:
            faults[key] = f'security group {key} is not known here'
        for rule in document.rules if document else ():
            try:
                texts[rule.direction].extend(rule_texts(rule, members))
            except ValueError as error:
                faults[key] = f'security group {key}: {error}'
        for direction, lines in texts.items():
            groups.chains[f'{direction}-{key}'] = Chain((*sorted(set(lines)), 'return'))

    problems = {}
    for key, port in ports.items():
        tap = names.tap(key)
        mark = str(MARK + marks[tap])
        guard.sets['sources'].elements[tap] = guard.sets['targets'].elements[tap] = mark
        guard.sets['homes'].elements[tap] = str(zones.get(bridges[port.network_id], 0))
        guard.sets['guarded'].elements[tap] = ''
        try:
            _guard_port(guard.sets, tap, port)
        except ValueError as error:
            # It may send nothing that is not in the sets yet.
            problems[key] = f'its addresses make no sense: {error}'
        _port_chains(groups, port, tap, wanted)
        groups.sets['egress-ports'].elements[mark] = f'jump egress-{tap}'
        groups.sets['ingress-ports'].elements[mark] = f'jump ingress-{tap}'
        told = [faults[group] for group in port.security_groups if group in faults]
        if told:
            problems.setdefault(key, '; '.join(told))
    return {GUARD: guard, GROUPS: groups}, set(ports), problems


def _port_chains(groups, port, tap, wanted):
    known = [wanted.security_groups[key] for key in port.security_groups if key in wanted.security_groups]
    stateful = all(group.stateful for group in known)
    state = ('ct state established,related accept', 'ct state invalid drop') if stateful else ()
    jumps = {direction: tuple(f'jump {direction}-{key}' for key in sorted(set(port.security_groups)))
             for direction in ('egress', 'ingress')}
    groups.chains[f'egress-{tap}'] = Chain((
        *state,
        'meta nfproto ipv4 udp sport 68 udp dport 67 accept',
        'meta nfproto ipv6 udp sport 546 udp dport 547 accept',
        f'icmpv6 type {{ {NEIGHBOURS_OUT} }} accept',
        *jumps['egress'], 'drop'))
    groups.chains[f'ingress-{tap}'] = Chain((
        *state,
        'meta nfproto ipv4 udp sport 67 udp dport 68 accept',
        'meta nfproto ipv6 udp sport 547 udp dport 546 accept',
        f'icmpv6 type {{ {NEIGHBOURS_IN} }} accept',
        *jumps['ingress'], 'drop'))
