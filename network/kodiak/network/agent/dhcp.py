"""DHCP: one dnsmasq a network, in a namespace of its own, and the files that it reads.

The main file says what the process is: when it changes, the process is replaced. The other files say whom it serves
and with what: when they change, it reads them again on SIGHUP. Everything that users can put into these files
(host names, extra options) is checked against the characters that it may have, since a line break or a comma
would be a directive of theirs.
"""
import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass

from kodiak.network.agent import names
from kodiak.network.agent.layout import Namespace
from kodiak.network.agent.routers import METADATA

LEASE_SECONDS = 86400
HOSTNAME = re.compile(r'^[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z')
DOMAIN = re.compile(r'^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9-]{1,63}\Z')
OPTION = re.compile(r'^[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z')
VALUE = re.compile(r'^[\x20-\x7e]{0,255}\Z')
FILES = ('hosts', 'options', 'names')               # what is read again on SIGHUP


@dataclass(frozen=True, slots=True)
class Service:
    """A dnsmasq as it should be.

    ``body`` is the main file's text without the name of its pid file, which bears the text's hash: that tells of a
    running process whether it is the one that should be. ``files`` are the texts of :data:`FILES`.
    """

    network_id: str
    folder: str
    body: str
    files: dict
    mac_of: dict                                    # address: MAC address that may hold a lease for it

    @property
    def pid_name(self):
        return f'dnsmasq-{hashlib.sha256(self.body.encode()).hexdigest()[:16]}.pid'

    @property
    def main(self):
        return f'pid-file={os.path.join(self.folder, self.pid_name)}\n{self.body}'

    @property
    def content(self):
        """A hash of the files that are read again on SIGHUP."""
        return hashlib.sha256('\0'.join(self.files[name] for name in FILES).encode()).hexdigest()


def _served(subnet):
    """Whether dnsmasq gives out addresses, or options only, in a subnet."""
    return subnet.enable_dhcp and (
        subnet.ip_version == 4 or subnet.ipv6_address_mode in ('dhcpv6-stateful', 'dhcpv6-stateless'))


def routed(subnet, members):
    """True if a router holds the subnet's gateway address, and so answers for metadata too."""
    return any(member.device_owner.startswith('network:router') or member.device_owner.startswith('network:ha_router')
               for member in members for fixed in member.fixed_ips
               if fixed.subnet_id == subnet.id and fixed.address == subnet.gateway_ip)


def _host_name(member, address):
    if member.hostname and HOSTNAME.match(member.hostname):
        return member.hostname
    return 'host-' + re.sub(r'[.:]+', '-', address).strip('-')


def _tag(kind, key):
    return f'{kind}-{key[:13].replace("-", "")}'


def _hosts(network, members, subnets):
    """Which MAC gets which address: the host file, the names, and {address: mac}."""
    hosts, host_names, mac_of = [], [], {}
    suffix = '.' + network.dns_domain.rstrip('.') if DOMAIN.match(network.dns_domain.rstrip('.')) else ''
    for member in sorted(members, key=lambda one: one.id):
        for fixed in member.fixed_ips:
            subnet = subnets.get(fixed.subnet_id)
            if subnet is None:
                continue
            name = _host_name(member, fixed.address)
            host_names.append(f'{fixed.address} {name}{suffix} {name}' if suffix else f'{fixed.address} {name}')
            if member.device_owner == 'network:dhcp' or not _served(subnet):
                continue
            if subnet.ip_version == 6 and subnet.ipv6_address_mode != 'dhcpv6-stateful':
                continue
            written = f'[{fixed.address}]' if subnet.ip_version == 6 else fixed.address
            hosts.append(f'{member.mac},{name}{suffix},{written}')
            mac_of[fixed.address] = member.mac
    return hosts, host_names, mac_of


def _classless(subnet, own, isolated, others):
    """Option 121: the routes of the subnet, to metadata on an isolated one, to its neighbours on the link."""
    routes = [(METADATA + '/32', own)] if isolated and own else []
    routes += [(route['destination'], route['nexthop']) for route in subnet.host_routes]
    if subnet.gateway_ip:
        routes += [(other.cidr, '0.0.0.0') for other in others if other.id != subnet.id and other.ip_version == 4]
        routes.append(('0.0.0.0/0', subnet.gateway_ip))
    return [part for destination, nexthop in routes
            for part in (str(ipaddress.ip_network(destination, strict=False)), str(nexthop))]


def _options(network, members, subnets, own, isolated):
    """The options file: what each subnet and each port is told besides its address."""
    lines = []
    for subnet in network.subnets:
        if not _served(subnet):
            continue
        tag, address = _tag('subnet', subnet.id), own.get(subnet.id)
        if subnet.ip_version == 6:
            servers = [f'[{one}]' for one in subnet.dns_nameservers] or ([f'[{address}]'] if address else [])
            # Who asks for information only is in no subnet yet.
            where = '' if subnet.ipv6_address_mode == 'dhcpv6-stateless' else f'tag:{tag},'
            if servers:
                lines.append(f'{where}option6:dns-server,{",".join(servers)}')
            continue
        servers = list(subnet.dns_nameservers) or ([address] if address else [])
        if subnet.dns_nameservers == ('0.0.0.0',):
            servers = []
        lines.append(f'tag:{tag},option:dns-server' + (',' + ','.join(servers) if servers else ''))
        lines.append(f'tag:{tag},option:router' + (',' + subnet.gateway_ip if subnet.gateway_ip else ''))
        routes = _classless(subnet, address, subnet.id in isolated, network.subnets)
        if routes:
            lines += [f'tag:{tag},option:classless-static-route,{",".join(routes)}', f'tag:{tag},249,{",".join(routes)}']
    for member in sorted(members, key=lambda one: one.id):
        for option in member.extra_dhcp_opts:
            name, value = str(option.get('opt_name', '')), str(option.get('opt_value') or '')
            if not OPTION.match(name) or not VALUE.match(value):
                continue
            family = 'option6:' if option.get('ip_version') == 6 else 'option:'
            where = name if name.isdigit() and family == 'option:' else family + name
            lines.append(f'tag:{_tag("port", member.id)},{where}' + (f',{value}' if value else ''))
    return lines


def render(network, members, folder, user, dns_servers=()):
    """The :class:`Service` of a network.

    :param members: the ``state.Member`` documents of the network.
    :param folder: absolute folder of its files.
    :param user: name of the user that dnsmasq runs as once it has its sockets.
    :param dns_servers: servers that it asks for names it doesn't know.
    """
    subnets = {subnet.id: subnet for subnet in network.subnets}
    own = {fixed.subnet_id: fixed.address for fixed in network.dhcp.fixed_ips}
    isolated = isolated_subnets(network, members)
    main = [
        'no-hosts', 'no-resolv', 'no-poll', 'except-interface=lo', 'bind-dynamic',
        f'interface={names.dhcp_leg(network.dhcp.port_id)[1]}', f'user={user}', 'group=nogroup',
        f'dhcp-leasefile={os.path.join(folder, "leases")}', f'log-facility={os.path.join(folder, "log")}',
        f'dhcp-hostsfile={os.path.join(folder, "hosts")}', f'dhcp-optsfile={os.path.join(folder, "options")}',
        f'addn-hosts={os.path.join(folder, "names")}', 'dhcp-authoritative', 'dhcp-match=set:ipxe,175', 'domain-needed',
        f'dhcp-option-force=option:mtu,{network.mtu}', 'quiet-dhcp', 'quiet-dhcp6', 'quiet-ra',
    ]
    main += [f'server={server}' for server in dns_servers]
    domain = network.dns_domain.rstrip('.')
    if domain and DOMAIN.match(domain):
        main += [f'domain={domain}', f'local=/{domain}/']
    # Not as set: in the host file, where dnsmasq 2.90 crashes at a SIGHUP once it has served a tagged host.
    main += sorted(f'dhcp-mac=set:{_tag("port", member.id)},{member.mac}' for member in members if member.extra_dhcp_opts)
    room = 0
    for subnet in network.subnets:
        if not _served(subnet):
            continue
        cidr, tag = ipaddress.ip_network(subnet.cidr), _tag('subnet', subnet.id)
        room += min(cidr.num_addresses, 1 << 16)
        if subnet.ip_version == 4:
            main.append(f'dhcp-range=set:{tag},{cidr.network_address},static,{cidr.netmask},{LEASE_SECONDS}s')
        else:
            main.append(f'dhcp-range=set:{tag},{cidr.network_address},static,{cidr.prefixlen},{LEASE_SECONDS}s')
    main.append(f'dhcp-lease-max={min(max(room, 1), 1 << 16)}')
    hosts, host_names, mac_of = _hosts(network, members, subnets)
    options = _options(network, members, subnets, own, isolated)
    files = {'hosts': hosts, 'options': options, 'names': host_names}
    return Service(network.id, folder, ''.join(line + '\n' for line in main),
                   {name: ''.join(line + '\n' for line in lines) for name, lines in files.items()}, mac_of)


def isolated_subnets(network, members):
    """Ids of the IPv4 subnets whose gateway is no router of ours: the DHCP namespace answers for metadata there."""
    return {subnet.id for subnet in network.subnets
            if subnet.ip_version == 4 and subnet.enable_dhcp and not routed(subnet, members)}


def serves(network):
    """Whether this host should run a DHCP service for the network."""
    return network.dhcp is not None and network.admin_state_up and any(_served(subnet) for subnet in network.subnets)


def plan(network, members, bridge, host, plug):
    """The namespace of a network's DHCP service.

    :param host: the layout of the host's namespace, which gets the outer end.
    :returns: a Namespace.
    """
    owner = ('networks', network.id)
    space = Namespace(owner=owner, sysctls={
        'net/ipv6/conf/default/accept_ra': '0', 'net/ipv4/ip_forward': '0', 'net/ipv6/conf/all/forwarding': '0'})
    outer, inner = names.dhcp_leg(network.dhcp.port_id)
    plug(host, (names.dhcp_namespace(network.id), space), outer, inner, network.dhcp.mac, network, bridge, owner)
    subnets = {subnet.id: subnet for subnet in network.subnets}
    addresses = space.addresses[inner] = set()
    for fixed in network.dhcp.fixed_ips:
        subnet = subnets.get(fixed.subnet_id)
        if subnet is None:
            continue
        addresses.add(f'{fixed.address}/{ipaddress.ip_network(subnet.cidr).prefixlen}')
        if subnet.gateway_ip and subnet.gateway_ip != fixed.address \
                and ipaddress.ip_address(subnet.gateway_ip) in ipaddress.ip_network(subnet.cidr):
            default = '0.0.0.0/0' if subnet.ip_version == 4 else '::/0'
            if not any(key[0] == default for key in space.routes):
                space.routes[default, subnet.gateway_ip, ''] = (inner, False)
    if isolated_subnets(network, members):
        addresses.add(METADATA + '/32')
    return space
