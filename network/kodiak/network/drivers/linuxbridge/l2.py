"""Bridges, tunnels and taps: what a host's networks and ports are as links."""
from kodiak.network.agent import names
from kodiak.network.agent.layout import Link, Namespace, limited
from kodiak.network.agent.state import Qos

FLOOD = '00:00:00:00:00:00'

# Bridged packets pass the inet tables only with these; the host gives guests nothing to talk to on its bridges.
SYSCTLS = {'net/bridge/bridge-nf-call-iptables': '1', 'net/bridge/bridge-nf-call-ip6tables': '1'}


def bridges(wanted, mappings, present):
    """The bridge of each network.

    :param mappings: {physical network: bridge of the operator's}.
    :param present: names of the host's links.
    :returns: ({network id: bridge}, {network id: sentence}): those that can be had here, and why others can't.
    """
    found, problems = {}, {}
    for key, network in wanted.networks.items():
        if network.type in ('vxlan', 'local'):
            found[key] = names.bridge(key)
        elif network.type == 'flat':
            name = mappings.get(network.physical_network)
            if name is None:
                problems[key] = f'this host has no bridge for physical network {network.physical_network}'
            elif name not in present:
                problems[key] = f'bridge {name} of physical network {network.physical_network} does not exist'
            else:
                found[key] = name
        else:
            problems[key] = f'networks of type {network.type} are not supported here'
    return found, problems


def _tunnel(host, network, members, facts, problems):
    key = network.id
    elsewhere = [member for member in members if member.tunnel_ip and member.tunnel_ip != facts.tunnel_ip]
    if network.segmentation_id is None:
        problems[key] = 'the network has no segmentation id'
        return
    if facts.tunnel_ip is None:
        if elsewhere:
            problems[key] = 'this host has no address for tunnels, and ports of the network are on other hosts'
        return
    name = names.vxlan(network.segmentation_id)
    host.add(name, Link('vxlan', mtu=network.mtu, up=network.admin_state_up, master=names.bridge(key),
                        vni=network.segmentation_id, local=facts.tunnel_ip), ('networks', key))
    host.fdb[name] = {(member.mac, member.tunnel_ip) for member in elsewhere} \
        | {(FLOOD, member.tunnel_ip) for member in elsewhere}


def plan(wanted, facts, owner, present):
    """The host's own namespace.

    :param facts: ``state.AgentFacts``: tunnel address and bridge mappings.
    :param owner: uid that may open taps, or None.
    :param present: names of the host's links.
    :returns: (Namespace, {network id: bridge}, {network id: sentence}).
    """
    # Without these settings no port has its filters, so they are for the filters.
    host = Namespace(sysctls=dict(SYSCTLS), owner=('filters', ''))
    found, problems = bridges(wanted, facts.bridge_mappings, present)
    by_network = {}
    for member in wanted.members.values():
        by_network.setdefault(member.network_id, []).append(member)
    for key, name in found.items():
        network = wanted.networks[key]
        if name == names.bridge(key):
            host.add(name, Link('bridge', mtu=network.mtu, up=network.admin_state_up), ('networks', key))
        if network.type == 'vxlan':
            _tunnel(host, network, by_network.get(key, ()), facts, problems)
    for port in wanted.ports.values():
        if port.network_id in found:
            _tap(host, port, wanted.networks[port.network_id], found[port.network_id], owner)
    return host, found, problems


def _tap(host, port, network, bridge, owner):
    """A port's tap; with a limit on what the guest sends, a funnel too, since only what a device sends can be limited."""
    limits = port.qos or Qos()
    funnel = None
    if limits.egress_kbps:
        funnel = names.funnel(port.id)
        host.add(funnel, Link('ifb', mtu=network.mtu, **limited(limits.egress_kbps, limits.egress_burst_kbits)),
                 ('ports', port.id))
    host.add(names.tap(port.id), Link(
        'tap', mtu=network.mtu, up=port.admin_state_up, master=bridge, owner=owner, funnel=funnel,
        **limited(limits.ingress_kbps, limits.ingress_burst_kbits)), ('ports', port.id))


def plug(host, namespace, outer, inner, mac, network, bridge, owner, up=True):
    """Connect a namespace to a network by a pair of veths: ``outer`` on the bridge, ``inner`` in the namespace."""
    host.add(outer, Link('veth', mtu=network.mtu, master=bridge, peer=(namespace[0], inner)), owner)
    namespace[1].add(inner, Link('inner', mtu=network.mtu, mac=mac, up=up, ipv6=True), owner)
