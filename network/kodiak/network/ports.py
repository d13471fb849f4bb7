"""Ports: their addresses, their filters, their binding to a host, and what is told about each change."""
import ipaddress
import os

import sqlalchemy as sa

from kodiak.common import db

from . import addresses, binding, faults, find, models, quotas, security

_ports = models.ports
_allocations = models.allocations.c
_groups = models.port_groups
_floating = models.floatingips

DHCP = 'network:dhcp'
ROUTER_INTERFACE = 'network:router_interface'
ROUTER_GATEWAY = 'network:router_gateway'
FLOATING_IP = 'network:floatingip'
ROUTER_OWNERS = (ROUTER_INTERFACE, ROUTER_GATEWAY)
AUTO_DELETED = (DHCP,)                  # owners of ports that don't keep their network from being deleted
SERVICE_OWNED = (*ROUTER_OWNERS, FLOATING_IP)
MAX_PAIRS = 10
COMPUTE = 'compute:'


def is_trusted(device_owner):
    """True for the cloud's own ports, which no filter stands before."""
    return device_owner.startswith('network:')


def create(unit, values, count=True):
    """Make a port.

    :param values: by column name; ``fixed_ips`` and ``security_groups`` as in the API, absent where the request had none;
        ``host``, ``vnic_type``, ``profile`` bind it.
    :param count: False for the cloud's own ports, which no quota counts.
    :returns: the row as a dictionary.
    """
    network = unit.memo.get(('network', values['network_id']))
    if network is None:
        network = unit.memo['network', values['network_id']] = find.network(unit, values['network_id'])
    if count:
        quotas.claim(unit, values['project_id'], 'port')
    port_id, now = db.new_id(), db.utcnow()
    mac = values.get('mac_address') or None
    row = {'description': '', 'name': '', 'admin_state_up': True, 'device_id': '', 'device_owner': '', 'host': '', 'dns_name': '',
           'allowed_address_pairs': [], 'extra_dhcp_opts': [], 'qos_policy_id': None, 'vnic_type': 'normal', 'profile': {},
           **{name: value for name, value in values.items() if value is not None},
           'id': port_id, 'mac_address': mac or random_mac(unit.conf.base_mac), 'created_at': now, 'updated_at': now,
           'revision_number': 1, 'generation': 1, 'status': 'DOWN', 'vif_type': 'unbound', 'vif_details': {}, 'wire_by': None}
    if unit.conn.execute(sa.select(_ports.c.id).where(
            _ports.c.network_id == network['id'], _ports.c.mac_address == row['mac_address'])).first():
        if mac is None:
            row['mac_address'] = random_mac(unit.conf.base_mac)
        else:
            raise faults.conflict('MacAddressInUse', f"Unable to complete operation for network {network['id']}. The mac address "
                                                     f'{mac} is in use.')
    subnets = subnets_of(unit, network)
    chosen = choose(unit, network, subnets, values.get('fixed_ips'), row)
    row['fixed_ips'] = [{'subnet_id': subnet_id, 'ip_address': address} for subnet_id, address, _ in chosen]
    row['port_security_enabled'] = values.get('port_security_enabled', network['port_security_enabled']) and not is_trusted(
        row['device_owner'])
    row['security_groups'] = _security_groups(unit, row, values.get('security_groups'))
    _check_pairs(row)
    row['dns_assignment'] = dns_assignment(unit, row)
    if row['host']:
        row.update(binding.bind(unit, network, row))
    unit.insert(_ports, row)
    addresses.allocate(unit, port_id, network['id'], chosen)
    unit.insert(_groups, [{'port_id': port_id, 'security_group_id': one} for one in row['security_groups']])
    _tell(unit, row)
    return row


def random_mac(base):
    """A MAC address with the cloud's prefix."""
    return f"{base}:{os.urandom(3).hex(':')}"


def subnets_of(unit, network):
    """The subnets of a network, as dictionaries, in the order of their making."""
    key = ('subnets', network['id'])
    if key not in unit.memo:
        unit.memo[key] = unit.all(sa.select(models.subnets).where(models.subnets.c.network_id == network['id'])
                                  .order_by(models.subnets.c.created_at)) if network['subnets'] else []
    return unit.memo[key]


def choose(unit, network, subnets, asked, port, have=()):
    """The addresses of a port: ``[(subnet id, address, from a pool), ...]``.

    :param asked: ``fixed_ips`` of the request, or None: one IPv4 address and whatever IPv6 gives.
    :param have: ``[(subnet id, address), ...]`` that it has already and may keep without asking.
    """
    if asked is None:
        return _default_addresses(unit, network, subnets, port)
    by_id = {subnet['id']: subnet for subnet in subnets}
    # An address that the port has serves one of the subnets asked for, unless it is asked for by itself as well.
    spare = [pair for pair in have if all(one.get('ip_address') != pair[1] for one in asked)]
    chosen = []
    for one in asked:
        subnet_id, address = one.get('subnet_id'), one.get('ip_address')
        if subnet_id is not None and subnet_id not in by_id:
            find.subnet(unit, subnet_id)
            raise faults.invalid(f"Failed to create port on network {network['id']}, because fixed_ips included invalid subnet "
                                 f'{subnet_id}')
        if address is not None:
            address = str(ipaddress.ip_address(address))
            subnet_id = subnet_id or _subnet_with(network, subnets, address)
            if ipaddress.ip_address(address) not in ipaddress.ip_network(by_id[subnet_id]['cidr']):
                raise faults.bad(f'IP address {address} is not a valid IP for the specified subnet.', kind='InvalidIpForSubnet')
            if (subnet_id, address) in have:
                chosen.append((subnet_id, address, None))
                continue
            _check_specific(by_id[subnet_id], address, port)
            chosen.append((subnet_id, address, addresses.take(unit, subnet_id, address)))
        elif subnet_id is not None:
            chosen.append(_address_on(unit, network, by_id[subnet_id], port, spare))
        else:
            raise faults.invalid('IP allocation requires subnet_id or ip_address')
    if len({(subnet_id, address) for subnet_id, address, _ in chosen}) < len(chosen):
        raise faults.invalid('Duplicate IP address in fixed_ips.')
    return chosen


def _subnet_with(network, subnets, address):
    for subnet in subnets:
        if ipaddress.ip_address(address) in ipaddress.ip_network(subnet['cidr']):
            return subnet['id']
    raise faults.bad(f"IP address {address} is not a valid IP for any of the subnets on the specified network {network['id']}.",
                     kind='InvalidIpForNetwork')


def _check_specific(subnet, address, port):
    cidr, given = ipaddress.ip_network(subnet['cidr']), ipaddress.ip_address(address)
    if cidr.prefixlen < cidr.max_prefixlen - 1 and (given == cidr[0] or (cidr.version == 4 and given == cidr[-1])):
        raise faults.bad(f'IP address {address} is not a valid IP for the specified subnet.', kind='InvalidIpForSubnet')
    if addresses.is_automatic(subnet) and port['device_owner'] not in (ROUTER_INTERFACE, ROUTER_GATEWAY, DHCP) and \
            address != addresses.eui64(subnet['cidr'], port['mac_address']):
        raise faults.invalid(
            f'IPv6 address {address} can not be directly assigned to a port on subnet {subnet["id"]} as the subnet '
            'is configured for automatic addresses'
        )


def _address_on(unit, network, subnet, port, spare):
    for subnet_id, address in spare:
        if subnet_id == subnet['id']:
            spare.remove((subnet_id, address))
            return subnet_id, address, None
    if addresses.is_automatic(subnet) and port['device_owner'] not in ROUTER_OWNERS:
        return subnet['id'], addresses.eui64(subnet['cidr'], port['mac_address']), False
    found = addresses.take_next(unit, [subnet['id']])
    if found is None:
        raise faults.no_addresses(network['id'])
    return (*found, True)


def _default_addresses(unit, network, subnets, port):
    if not subnets:
        return []
    owner, usable = port['device_owner'], []
    for subnet in subnets:
        types = subnet['service_types']
        if not types or any(owner.startswith(one) for one in types):
            usable.append(subnet)
    if any(subnet['service_types'] for subnet in usable):
        usable = [subnet for subnet in usable if subnet['service_types']]
    chosen = []
    for version in (4, 6):
        ids = [subnet['id'] for subnet in usable if subnet['ip_version'] == version and (
            not addresses.is_automatic(subnet) or owner in ROUTER_OWNERS)]
        if not ids:
            continue
        found = addresses.take_next(unit, ids)
        if found is None:
            raise faults.no_addresses(network['id'])
        chosen.append((*found, True))
    if owner not in ROUTER_OWNERS:
        chosen += [(subnet['id'], addresses.eui64(subnet['cidr'], port['mac_address']), False)
                   for subnet in usable if addresses.is_automatic(subnet)]
    if not chosen:
        raise faults.no_addresses(network['id'])
    return chosen


def _security_groups(unit, port, asked):
    """The ids of a port's groups: those asked for, or its project's default one."""
    if not port['port_security_enabled']:
        if asked:
            raise faults.bad('Port security must be enabled and port must have an IP address in order to use security groups.',
                             kind='PortSecurityAndIPRequiredForSecurityGroups')
        return []
    if asked is None:
        group = security.default_group(unit, port['project_id'])
        return [group] if group else []
    return check_groups(unit, asked)


def check_groups(unit, asked):
    """The groups asked for, without duplicates, if the caller can use them all."""
    asked = list(dict.fromkeys(asked))
    if not asked:
        return []
    table = models.security_groups
    query = sa.select(table.c.id).where(table.c.id.in_(asked))
    if not find.sees_all(unit.ctx):
        query = query.where(find.usable('security_group', table)(unit.ctx.project_id))
    found = set(unit.conn.scalars(query))
    missing = [one for one in asked if one not in found]
    if missing:
        raise faults.not_found('Security group', missing[0], 'SecurityGroupNotFound')
    return asked


def _check_pairs(port):
    pairs = port['allowed_address_pairs']
    if not pairs:
        return
    if not port['port_security_enabled']:
        raise faults.conflict('AddressPairAndPortSecurityRequired',
                              'Port Security must be enabled in order to have allowed address pairs on a port.')
    if len(pairs) > MAX_PAIRS:
        raise faults.bad(f'The number of allowed address pair exceeds the maximum {MAX_PAIRS}.', kind='AllowedAddressPairExhausted')
    seen = set()
    for pair in pairs:
        pair['mac_address'] = (pair.get('mac_address') or port['mac_address']).lower()
        key = pair['mac_address'], pair['ip_address']
        if key in seen:
            raise faults.bad(f'Request contains duplicate address pair: mac_address {key[0]} ip_address {key[1]}.',
                             kind='DuplicateAddressPairInRequest')
        seen.add(key)


def dns_assignment(unit, port):
    """What names the addresses of a port have."""
    domain = unit.conf.dns_domain.rstrip('.')
    result = []
    for ip in port['fixed_ips']:
        name = port['dns_name'] or 'host-' + ip['ip_address'].replace('.', '-').replace(':', '-')
        result.append({'ip_address': ip['ip_address'], 'hostname': name, 'fqdn': f'{name}.{domain}.' if domain else name})
    return result


def _tell(unit, row, groups=None):
    """A port came, changed or goes: tell those who have its documents."""
    unit.touch_member(row['id'], row['network_id'])
    if row['host'] and not is_trusted(row['device_owner']):
        unit.touch_port(row['id'], row['host'])
        unit.moved(row['host'])
    for group in groups if groups is not None else row['security_groups']:
        unit.touch_set(group, row['id'])


def changed(unit, port_id, host):
    """Something which belongs to a bound port's document but does not stand on its row changed."""
    unit.update(_ports, port_id, {'generation': _ports.c.generation + 1}, revise=False)
    unit.touch_port(port_id, host)


def network_changed(unit, network_id, revise=True):
    """Something which belongs to a network's document changed (a subnet, its DHCP service)."""
    table = models.networks
    unit.update(table, network_id, {'generation': table.c.generation + 1}, revise)
    unit.touch_network(network_id)


def update(unit, row, values):
    """Change a port.

    :param row: the port as it is. :param values: by column name, as for :func:`create`.
    :returns: the row as it is afterwards.
    """
    row = unit.one(sa.select(_ports).where(_ports.c.id == row['id']).with_for_update())
    if row is None:
        raise faults.missing('PortNotFound', 'The port was deleted meanwhile.')
    changes = {name: value for name, value in values.items() if name not in ('fixed_ips', 'security_groups') and value != row[name]}
    new = {**row, **changes}
    network = unit.one(sa.select(models.networks).where(models.networks.c.id == row['network_id']))
    if 'mac_address' in changes:
        if changes['mac_address'] is None:
            new['mac_address'] = changes['mac_address'] = random_mac(unit.conf.base_mac)
        _change_mac(unit, row, changes)
    if values.get('fixed_ips') is not None or ('mac_address' in changes and row['fixed_ips']):
        changes.update(_readdress(unit, network, new, values.get('fixed_ips')))
        new.update(changes)
    groups_before = row['security_groups']
    if 'security_groups' in values or 'port_security_enabled' in changes:
        asked = values.get('security_groups', groups_before)
        if not new['port_security_enabled'] and 'security_groups' not in values and groups_before:
            raise faults.conflict('PortSecurityPortHasSecurityGroup',
                                  'Port has security group associated. Cannot disable port security or ip address until security '
                                  'group is removed')
        new['security_groups'] = changes['security_groups'] = _security_groups(
            unit, new, asked if asked is not None else []) if new['port_security_enabled'] or asked else []
        _regroup(unit, row['id'], groups_before, new['security_groups'])
    if 'allowed_address_pairs' in changes or 'port_security_enabled' in changes:
        _check_pairs(new)
    if {'dns_name', 'fixed_ips'} & changes.keys():
        new['dns_assignment'] = changes['dns_assignment'] = dns_assignment(unit, new)
    if {'host', 'vnic_type', 'profile', 'device_owner'} & changes.keys() or (
            'admin_state_up' in changes and new['host']):
        changes.update(binding.rebind(unit, network, row, new))
        new.update(changes)
    if not changes:
        return row
    seen = changes.keys() - {'name', 'description', 'tags', 'dns_assignment', 'profile'}
    if seen:
        changes['generation'] = _ports.c.generation + 1
        _tell(unit, {**row, 'security_groups': []} if row['host'] != new['host'] else new, groups=[])
        if {'fixed_ips', 'mac_address', 'allowed_address_pairs', 'security_groups'} & seen:
            _tell(unit, new, groups={*groups_before, *new['security_groups']})
        elif row['host'] != new['host']:
            _tell(unit, new, groups=[])
    unit.update(_ports, row['id'], changes)
    if {'fixed_ips', 'mac_address'} & changes.keys():
        _owner_changed(unit, new)
        unit.notify_compute('network-changed', new)
    return new


def bind_again(unit, row):
    """Bind a port to the host that it asks for once more, now that the host may have become able to."""
    network = unit.one(sa.select(models.networks).where(models.networks.c.id == row['network_id']))
    changes = binding.bind(unit, network, row)
    unit.update(_ports, row['id'], {**changes, 'generation': _ports.c.generation + 1})
    _tell(unit, {**row, **changes})
    return {**row, **changes}


def _owner_changed(unit, row):
    """The addresses of one of the cloud's own ports changed: they stand in the document of what it belongs to as well."""
    routers = models.routers
    if row['device_owner'] == DHCP:
        network_changed(unit, row['network_id'], revise=False)
    elif row['device_owner'] in ROUTER_OWNERS:
        changes = {'generation': routers.c.generation + 1}
        if row['device_owner'] == ROUTER_GATEWAY:
            info = unit.conn.execute(sa.select(routers.c.external_gateway_info).where(routers.c.id == row['device_id'])).scalar()
            if info:
                changes['external_gateway_info'] = {**info, 'external_fixed_ips': row['fixed_ips']}
        unit.update(routers, row['device_id'], changes, revise=False)
        unit.touch_router(row['device_id'])


def _change_mac(unit, row, changes):
    if row['host'] and row['vif_type'] not in ('unbound', 'binding_failed'):
        raise faults.conflict('PortBound', f"Unable to complete operation on port {row['id']}, port is already bound, port type: "
                                           f"{row['vif_type']}, old_mac {row['mac_address']}, new_mac {changes['mac_address']}.")
    if unit.conn.execute(sa.select(_ports.c.id).where(
            _ports.c.network_id == row['network_id'], _ports.c.mac_address == changes['mac_address'])).first():
        raise faults.conflict('MacAddressInUse', f"Unable to complete operation for network {row['network_id']}. The mac address "
                                                 f"{changes['mac_address']} is in use.")


def _readdress(unit, network, port, asked):
    """Give a port other addresses; what it keeps is not touched. :returns: the columns that change."""
    had = [(ip['subnet_id'], ip['ip_address']) for ip in port['fixed_ips']]
    subnets = subnets_of(unit, network)
    if asked is None:
        automatic = {subnet['id'] for subnet in subnets if addresses.is_automatic(subnet)}
        asked = [{'subnet_id': subnet_id} if subnet_id in automatic else {'subnet_id': subnet_id, 'ip_address': address}
                 for subnet_id, address in had]
        had_now = [pair for pair in had if pair[0] not in automatic]
    else:
        had_now = had
    chosen = choose(unit, network, subnets, asked, port, had_now)
    keep = {(subnet_id, address) for subnet_id, address, pooled in chosen if pooled is None}
    if len(keep) < len(had):
        if port['device_owner'] not in ROUTER_OWNERS:
            _forget_floating(unit, port['id'], [address for subnet_id, address in had if (subnet_id, address) not in keep])
        addresses.release(unit, [port['id']], keep)
    addresses.allocate(unit, port['id'], network['id'], [one for one in chosen if one[2] is not None])
    fixed = [{'subnet_id': subnet_id, 'ip_address': address} for subnet_id, address, _ in chosen]
    return {'fixed_ips': fixed} if fixed != port['fixed_ips'] else {}


def _forget_floating(unit, port_id, gone):
    for row in unit.all(sa.select(_floating).where(_floating.c.port_id == port_id, _floating.c.fixed_ip_address.in_(gone))):
        unassociate(unit, row)


def unassociate(unit, row):
    """Take a floating address off its port."""
    unit.update(_floating, row['id'], {'port_id': None, 'fixed_ip_address': None, 'router_id': None, 'status': 'DOWN',
                                       'generation': _floating.c.generation + 1})
    if row['router_id']:
        unit.touch_floating(row['id'], row['router_id'])


def _regroup(unit, port_id, before, after):
    gone, new = set(before) - set(after), [one for one in after if one not in before]
    if gone:
        unit.delete(_groups, _groups.c.port_id == port_id, _groups.c.security_group_id.in_(gone))
    unit.insert(_groups, [{'port_id': port_id, 'security_group_id': one} for one in new])


def set_addresses(unit, row, fixed_ips):
    """Take addresses off a port, whoever owns it (its subnet goes)."""
    keep = {(ip['subnet_id'], ip['ip_address']) for ip in fixed_ips}
    addresses.release(unit, [row['id']], keep)
    new = {**row, 'fixed_ips': fixed_ips}
    unit.update(_ports, row['id'], {'fixed_ips': fixed_ips, 'dns_assignment': dns_assignment(unit, new),
                                    'generation': _ports.c.generation + 1})
    _tell(unit, new)
    _owner_changed(unit, new)


def add_automatic(unit, network, subnet):
    """Give the ports of a network their address on a new subnet on which hosts make their own."""
    for row in unit.all(sa.select(_ports).where(_ports.c.network_id == network['id'],
                                                _ports.c.device_owner.not_in((*SERVICE_OWNED, DHCP)))):
        address = addresses.eui64(subnet['cidr'], row['mac_address'])
        addresses.allocate(unit, row['id'], network['id'], [(subnet['id'], address, False)])
        fixed = [*row['fixed_ips'], {'subnet_id': subnet['id'], 'ip_address': address}]
        new = {**row, 'fixed_ips': fixed}
        unit.update(_ports, row['id'], {'fixed_ips': fixed, 'dns_assignment': dns_assignment(unit, new),
                                        'generation': _ports.c.generation + 1})
        _tell(unit, new)
        unit.notify_compute('network-changed', new)


def delete(unit, row):
    """Delete a port as its owner asks.

    :raises Conflict: ServicePortInUse: a router or a floating address owns it.
    """
    if row['device_owner'] in SERVICE_OWNED:
        raise faults.conflict('ServicePortInUse', f"Port {row['id']} cannot be deleted directly via the port API: has device owner "
                                                  f"{row['device_owner']}.")
    for floating in unit.all(sa.select(_floating).where(_floating.c.port_id == row['id'])):
        unassociate(unit, floating)
    _drop_forwardings(unit, row['id'])
    remove(unit, [row])
    if row['device_owner'].startswith(COMPUTE):
        unit.notify_compute('network-vif-deleted', row)


def _drop_forwardings(unit, port_id):
    table = models.forwardings
    for row in unit.all(sa.select(table.c.id, table.c.floatingip_id, _floating.c.router_id).join(
            _floating, _floating.c.id == table.c.floatingip_id).where(table.c.internal_port_id == port_id)):
        unit.delete(table, table.c.id == row['id'])
        unit.update(_floating, row['floatingip_id'], {'generation': _floating.c.generation + 1})
        if row['router_id']:
            unit.touch_floating(row['floatingip_id'], row['router_id'])


def remove(unit, rows):
    """Delete ports with all that is theirs, whoever owns them."""
    if not rows:
        return
    ids = [row['id'] for row in rows]
    addresses.release(unit, ids)
    unit.delete(_groups, _groups.c.port_id.in_(ids))
    unit.delete(_ports, _ports.c.id.in_(ids))
    for row in rows:
        _tell(unit, row)
