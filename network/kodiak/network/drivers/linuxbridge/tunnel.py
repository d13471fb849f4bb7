"""Who may send VXLAN packets to this host: the hosts that share a network with it, and nobody else.

A VXLAN packet is believed whatever its sender. A guest reaches the host's own address through its router, so without
this table it could write itself into the networks of others.
"""
import ipaddress

from kodiak.network.agent.nft import Chain, Set, Table

TUNNEL = 'inet kodiak-tunnel'
PORT = 4789

CHAINS = {'entering': Chain((
    f'udp dport {PORT} ip saddr != @peers4 drop',
    f'udp dport {PORT} ip6 saddr != @peers6 drop',
), 'type filter hook input priority filter; policy accept;')}


def plan(wanted, bridges):
    """{title: Table}; none where no network has a tunnel."""
    networks = {key for key in bridges if wanted.networks[key].type == 'vxlan'}
    if not networks:
        return {}
    peers = {4: set(), 6: set()}
    for member in wanted.members.values():
        if member.network_id in networks and member.tunnel_ip:
            address = ipaddress.ip_address(member.tunnel_ip)
            peers[address.version].add(str(address))
    sets = {f'peers{version}': Set(f'ipv{version}_addr', elements=dict.fromkeys(found, '')) for version, found in peers.items()}
    return {TUNNEL: Table('inet', 'kodiak-tunnel', sets, dict(CHAINS))}
