"""Subnets: what makes sense of a CIDR, a gateway and pools, and how a CIDR comes out of a subnet pool."""
import ipaddress
import itertools

import sqlalchemy as sa

from kodiak.common import db

from . import addresses, faults, find, models, placement, ports, quotas, subnetpools

_subnets = models.subnets
_ports = models.ports.c
_allocations = models.allocations.c


def create(unit, values):
    """Make a subnet. :param values: by column name, and ``prefixlen``, ``use_default_subnetpool``. :returns: its id."""
    network = find.network(unit, values['network_id'], lock=True)
    if not unit.ctx.is_admin and network['project_id'] != unit.ctx.project_id:
        raise faults.forbidden('PolicyNotAuthorized', "Policy doesn't allow create_subnet to be performed.")
    quotas.claim(unit, values['project_id'], 'subnet')
    pool = subnetpools.choose(unit, values, network)
    if pool is not None:
        values = {**values, 'cidr': subnetpools.allocate(unit, pool, values), 'subnetpool_id': pool['id'],
                  'ip_version': pool['ip_version']}
    cidr = _cidr(values)
    _check_modes(values, cidr)
    others = unit.all(sa.select(_subnets.c.id, _subnets.c.cidr).where(_subnets.c.network_id == network['id']))
    for other in others:
        if ipaddress.ip_network(other['cidr']).overlaps(cidr):
            raise faults.invalid(f"Requested subnet with cidr: {cidr} for network: {network['id']} overlaps with another subnet "
                                 f"{other['cidr']} (id {other['id']}).")
    gateway = values.get('gateway_ip', 'default')
    if gateway == 'default':
        gateway = default_gateway(cidr)
    if gateway is not None:
        gateway = check_gateway(gateway, cidr)
    pools = values.get('allocation_pools')
    pools = default_pools(cidr, gateway) if pools is None else check_pools(pools, cidr, gateway)
    _check_lists(values, cidr)
    subnet_id, now = db.new_id(), db.utcnow()
    row = {name: value for name, value in values.items() if name not in ('prefixlen', 'use_default_subnetpool')}
    row.update(id=subnet_id, cidr=str(cidr), gateway_ip=gateway, allocation_pools=pools, created_at=now, updated_at=now)
    row.setdefault('ipv6_address_mode', None)
    unit.insert(_subnets, row)
    addresses.open_pools(unit, subnet_id, pools)
    changes = {'subnets': [*network['subnets'], subnet_id], 'generation': models.networks.c.generation + 1}
    if pool is not None and pool['address_scope_id']:
        changes[f"ipv{pool['ip_version']}_address_scope"] = pool['address_scope_id']
    unit.update(models.networks, network['id'], changes)
    unit.touch_network(network['id'])
    if cidr.version == 6 and addresses.is_automatic(row):
        ports.add_automatic(unit, network, row)
    if row.get('enable_dhcp', True) and others:
        placement.extend_dhcp(unit, network['id'], row)
    elif row.get('enable_dhcp', True):
        placement.schedule_dhcp_of_used(unit, network['id'])
    return subnet_id


def _cidr(values):
    if not values.get('cidr'):
        raise faults.bad('Bad subnets request: a subnetpool must be specified in the absence of a cidr.', kind='BadRequest')
    cidr = ipaddress.ip_network(values['cidr'], strict=False)
    if cidr.version != values['ip_version']:
        raise faults.invalid(f"cidr '{values['cidr']}' does not match the ip_version '{values['ip_version']}'")
    if cidr.is_multicast:
        raise faults.invalid('Multicast IP subnet is not supported if enable_dhcp is True.')
    if cidr.prefixlen == 0:
        raise faults.invalid('0 is not allowed as CIDR prefix length.')
    if values.get('enable_dhcp', True) and cidr.prefixlen == cidr.max_prefixlen:
        raise faults.invalid('Subnet has a prefix length that is incompatible with DHCP service enabled.')
    return cidr


def _check_modes(values, cidr):
    address_mode, ra_mode = values.get('ipv6_address_mode'), values.get('ipv6_ra_mode')
    if cidr.version == 4:
        if address_mode or ra_mode:
            raise faults.invalid('ipv6_ra_mode and ipv6_address_mode are valid with ip_version 6 only.')
        return
    if (address_mode or ra_mode) and not values.get('enable_dhcp', True):
        raise faults.invalid('ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False.')
    if address_mode and ra_mode and address_mode != ra_mode:
        raise faults.invalid(
            f"ipv6_ra_mode set to '{ra_mode}' with ipv6_address_mode set to '{address_mode}' is not valid. If both "
            'attributes are set, they must be the same value.'
        )
    if (address_mode or ra_mode) in ('slaac', 'dhcpv6-stateless') and cidr.prefixlen != 64:
        raise faults.invalid(f'Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format, which '
                             'requires the prefix to be /64')


def default_gateway(cidr):
    """The first host address."""
    if cidr.prefixlen >= cidr.max_prefixlen - 1:
        return str(cidr[0]) if cidr.prefixlen == cidr.max_prefixlen - 1 else None
    return str(cidr[1])


def check_gateway(gateway, cidr):
    """The gateway in its canonical form; one outside of the subnet is let be, as on a provider's network."""
    address = ipaddress.ip_address(gateway)
    if address.version != cidr.version:
        raise faults.invalid(f"gateway_ip '{gateway}' does not match the ip_version '{cidr.version}'")
    if address in cidr and cidr.prefixlen < cidr.max_prefixlen - 1 and (
            (cidr.version == 4 and address in (cidr[0], cidr[-1])) or (cidr.version == 6 and address == cidr[0])):
        raise faults.invalid('Gateway is not valid on subnet')
    return str(address)


def default_pools(cidr, gateway):
    """All host addresses but the gateway, as pools."""
    first, last = int(cidr[0]), int(cidr[-1])
    if cidr.prefixlen < cidr.max_prefixlen - 1:
        first += 1
        if cidr.version == 4:
            last -= 1
    kind = ipaddress.IPv4Address if cidr.version == 4 else ipaddress.IPv6Address
    ranges = [(first, last)]
    if gateway is not None and first <= int(ipaddress.ip_address(gateway)) <= last:
        middle = int(ipaddress.ip_address(gateway))
        ranges = [(first, middle - 1), (middle + 1, last)]
    return [{'start': str(kind(start)), 'end': str(kind(end))} for start, end in ranges if start <= end]


def check_pools(pools, cidr, gateway):
    """The pools of a request in their canonical form, or what is wrong with them."""
    ranges = []
    for pool in pools:
        start, end = ipaddress.ip_address(pool['start']), ipaddress.ip_address(pool['end'])
        if start.version != cidr.version or end.version != cidr.version or end < start:
            raise faults.bad(f"The allocation pool {pool['start']}-{pool['end']} is not valid.", kind='InvalidAllocationPool')
        inside = start in cidr and end in cidr
        if cidr.prefixlen < cidr.max_prefixlen - 1 and (start == cidr[0] or (cidr.version == 4 and end == cidr[-1])):
            inside = False
        if not inside:
            raise faults.bad(
                f'The allocation pool {start}-{end} spans beyond the subnet cidr {cidr}.', kind='OutOfBoundsAllocationPool'
            )
        ranges.append((start, end))
    ranges.sort()
    for (start, end), (later, last) in itertools.pairwise(ranges):
        if later <= end:
            raise faults.conflict(
                'OverlappingAllocationPools',
                f'Found overlapping allocation pools: {start}-{end}, {later}-{last} for subnet {cidr}.',
            )
    check_gateway_apart(gateway, ranges)
    return [{'start': str(start), 'end': str(end)} for start, end in ranges]


def check_gateway_apart(gateway, ranges):
    """A gateway must not be given to a port: it lies in no pool."""
    if gateway is None:
        return
    address = ipaddress.ip_address(gateway)
    for start, end in ranges:
        if ipaddress.ip_address(start) <= address <= ipaddress.ip_address(end):
            raise faults.conflict('GatewayConflictWithAllocationPools',
                                  f'Gateway ip {gateway} conflicts with allocation pool {start}-{end}.')


def _check_lists(values, cidr):
    for name, length in (('dns_nameservers', 5), ('host_routes', 20)):
        if len(values.get(name) or ()) > length:
            kind = 'DNSNameServersExhausted' if name == 'dns_nameservers' else 'HostRoutesExhausted'
            raise faults.bad(f'Unable to complete operation: there are more than {length} {name}.', kind=kind)
    for address in values.get('dns_nameservers') or ():
        if ipaddress.ip_address(address).version != cidr.version and cidr.version == 4:
            raise faults.invalid(f"dns_nameserver '{address}' does not match the ip_version '{cidr.version}'")
    for route in values.get('host_routes') or ():
        if ipaddress.ip_network(route['destination'], strict=False).version != cidr.version or \
                ipaddress.ip_address(route['nexthop']).version != cidr.version:
            raise faults.invalid(f"host route {route['destination']} does not match the ip_version '{cidr.version}'")


def update(unit, row, values):
    """Change a subnet."""
    cidr = ipaddress.ip_network(row['cidr'])
    _check_lists(values, cidr)
    changes = {name: value for name, value in values.items() if value != row[name]}
    if 'gateway_ip' in changes:
        if row['gateway_ip'] and unit.conn.execute(
                sa.select(_allocations.port_id).join(models.ports, _ports.id == _allocations.port_id).where(
                    _allocations.subnet_id == row['id'], _allocations.ip_address == row['gateway_ip'],
                    _ports.device_owner.in_(ports.ROUTER_OWNERS))).first():
            raise faults.conflict('GatewayIpInUse', f"Current gateway ip {row['gateway_ip']} already in use by a router port. "
                                                    'Unable to update.')
        if changes['gateway_ip'] is not None:
            changes['gateway_ip'] = check_gateway(changes['gateway_ip'], cidr)
    gateway = changes.get('gateway_ip', row['gateway_ip'])
    if changes.get('allocation_pools') is not None:
        changes['allocation_pools'] = check_pools(changes['allocation_pools'], cidr, gateway)
        addresses.replace_pools(unit, row['id'], changes['allocation_pools'])
    else:
        changes.pop('allocation_pools', None)
        if 'gateway_ip' in changes:
            check_gateway_apart(gateway, [(pool['start'], pool['end']) for pool in row['allocation_pools']])
    if 'enable_dhcp' in changes:
        _check_modes({**row, **changes}, cidr)
    unit.update(_subnets, row['id'], changes)
    if {'gateway_ip', 'enable_dhcp', 'dns_nameservers', 'host_routes'} & changes.keys():
        ports.network_changed(unit, row['network_id'])
    if changes.get('enable_dhcp'):
        placement.extend_dhcp(unit, row['network_id'], {**row, **changes})
        placement.schedule_dhcp_of_used(unit, row['network_id'])
    elif 'enable_dhcp' in changes:
        placement.shrink_dhcp(unit, row['network_id'], row['id'])


def delete(unit, row):
    """Delete a subnet; addresses that were given out on it without anybody's asking go with it.

    :raises Conflict: SubnetInUse.
    """
    network = unit.one(sa.select(models.networks).where(models.networks.c.id == row['network_id']).with_for_update())
    holders = unit.all(sa.select(models.ports).where(_ports.id.in_(
        sa.select(_allocations.port_id).where(_allocations.subnet_id == row['id']))))
    automatic = addresses.is_automatic(row)
    left = [port for port in holders if not (port['device_owner'] in ports.AUTO_DELETED or (
        automatic and port['device_owner'] not in ports.ROUTER_OWNERS))]
    if left:
        raise faults.conflict('SubnetInUse', f"Unable to complete operation on subnet {row['id']}: One or more ports have an IP "
                                             f'allocation from this subnet: {faults.named(left)}.')
    for port in holders:
        left = [ip for ip in port['fixed_ips'] if ip['subnet_id'] != row['id']]
        if not left and port['device_owner'] in ports.AUTO_DELETED:
            placement.forget_dhcp_port(unit, port)
        else:
            ports.set_addresses(unit, port, left)
    unit.delete(_subnets, _subnets.c.id == row['id'])
    unit.update(models.networks, network['id'], {'subnets': [one for one in network['subnets'] if one != row['id']]})
    ports.network_changed(unit, network['id'], revise=False)
