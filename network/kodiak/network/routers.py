"""Routers: their legs, their gateway, and their routes."""
import ipaddress

import sqlalchemy as sa

from kodiak.common import db

from . import faults, find, models, placement, ports, quotas

_routers = models.routers
_ports = models.ports
_floating = models.floatingips
_subnets = models.subnets
MAX_ROUTES = 30


def create(unit, values):
    """Make a router. :param values: by column name, ``external_gateway_info`` as in the API. :returns: its id."""
    quotas.claim(unit, values['project_id'], 'router')
    router_id, now = db.new_id(), db.utcnow()
    info = values.pop('external_gateway_info', None)
    unit.insert(_routers, {'id': router_id, **values, 'routes': [], 'created_at': now, 'updated_at': now})
    if info:
        row = unit.one(sa.select(_routers).where(_routers.c.id == router_id))
        _set_gateway(unit, row, info)
    return router_id


def update(unit, row, values):
    """Change a router."""
    row = find.router(unit, row['id'])
    if 'external_gateway_info' in values:
        _set_gateway(unit, row, values.pop('external_gateway_info'))
        row = find.router(unit, row['id'])
    if values.get('routes') is not None:
        values['routes'] = check_routes(unit, row, values['routes'])
    else:
        values.pop('routes', None)
    changes = {name: value for name, value in values.items() if value != row[name]}
    if {'admin_state_up', 'routes'} & changes.keys():
        changes['generation'] = _routers.c.generation + 1
        unit.touch_router(row['id'])
    unit.update(_routers, row['id'], changes)


def delete(unit, row):
    """Delete a router with its gateway.

    :raises Conflict: RouterInUse: something is plugged into it.
    """
    row = find.router(unit, row['id'])
    left = legs(unit, row['id'])
    if left:
        raise faults.conflict('RouterInUse', f"Router {row['id']} still has ports: {faults.named(left)}. Remove its interfaces "
                                             'first.')
    _remove_gateway(unit, row)
    unit.moved(row['host'])
    unit.touch_router(row['id'])
    unit.delete(_routers, _routers.c.id == row['id'])


def legs(unit, router_id):
    """The ports by which networks are plugged into a router."""
    return unit.all(sa.select(_ports).where(_ports.c.device_id == router_id, _ports.c.device_owner == ports.ROUTER_INTERFACE)
                    .order_by(_ports.c.created_at, _ports.c.id))


def _changed(unit, router_id, values=None):
    unit.update(_routers, router_id, {**(values or {}), 'generation': _routers.c.generation + 1})
    unit.touch_router(router_id)


def _set_gateway(unit, row, info):
    info = info or {}
    network_id = info.get('network_id')
    if not network_id:
        if info.get('external_fixed_ips') or 'enable_snat' in info:
            raise faults.bad('Invalid input for external_gateway_info. Reason: network_id is required.', kind='HTTPBadRequest')
        _remove_gateway(unit, row)
        return
    network = find.network(unit, network_id)
    if not network['external']:
        raise faults.bad(f'Bad router request: Network {network_id} is not an external network.')
    asked = info.get('external_fixed_ips') or None
    snat = info.get('enable_snat', row['enable_snat'] if row['gateway_port_id'] else True)
    port = None
    if row['gateway_port_id'] and row['gateway_network_id'] != network_id:
        _check_no_floating(unit, row)
        _remove_gateway(unit, row)
        row = {**row, 'gateway_port_id': None}
    elif row['gateway_port_id']:
        port = unit.one(sa.select(_ports).where(_ports.c.id == row['gateway_port_id']))
        if asked is not None:
            port = ports.update(unit, port, {'fixed_ips': asked})
    if port is None:
        unit.memo['network', network_id] = network
        port = ports.create(unit, {
            'network_id': network_id, 'project_id': '', 'device_owner': ports.ROUTER_GATEWAY, 'device_id': row['id'],
            'host': row['host'], 'fixed_ips': asked}, count=False)
        if not port['fixed_ips']:
            raise faults.bad(f'Bad router request: No IPs available for external network {network_id}.')
    _check_overlap(unit, row, [_subnet(unit, ip['subnet_id']) for ip in port['fixed_ips']], gateway=True)
    shown = {'network_id': network_id, 'external_fixed_ips': port['fixed_ips'], 'enable_snat': snat}
    _changed(unit, row['id'], {'gateway_port_id': port['id'], 'gateway_network_id': network_id, 'enable_snat': snat,
                               'external_gateway_info': shown})
    row = unit.one(sa.select(_routers).where(_routers.c.id == row['id']))
    unit.moved(placement.schedule_router(unit, row))


def _check_no_floating(unit, row):
    if unit.conn.execute(sa.select(_floating.c.id).where(_floating.c.router_id == row['id']).limit(1)).first():
        raise faults.conflict('RouterExternalGatewayInUseByFloatingIp',
                              f"Gateway cannot be updated for router {row['id']}, since a gateway to external network "
                              f"{row['gateway_network_id']} is required by one or more floating IPs.")


def _remove_gateway(unit, row):
    if not row['gateway_port_id']:
        return
    _check_no_floating(unit, row)
    port = unit.one(sa.select(_ports).where(_ports.c.id == row['gateway_port_id']))
    _check_routes_without(unit, row, port, 'RouterExternalGatewayInUseByRoute')
    _changed(unit, row['id'], {'gateway_port_id': None, 'gateway_network_id': None, 'external_gateway_info': None,
                               'enable_snat': True})
    ports.remove(unit, [port])
    unit.moved(row['host'])


def _subnet(unit, subnet_id):
    return unit.one(sa.select(_subnets).where(_subnets.c.id == subnet_id))


def _connected(unit, router_id):
    """``[(subnet, address of the router), ...]`` of all of a router's ports."""
    allocations = models.allocations.c
    return unit.all(
        sa.select(_subnets.c.id, _subnets.c.cidr, _ports.c.device_owner, allocations.port_id, allocations.ip_address)
        .join(allocations.subnet_id.table, allocations.subnet_id == _subnets.c.id)
        .join(_ports, _ports.c.id == allocations.port_id)
        .where(_ports.c.device_id == router_id, _ports.c.device_owner.in_(ports.ROUTER_OWNERS))
    )


def _check_overlap(unit, row, subnets, gateway=False):
    for other in _connected(unit, row['id']):
        for subnet in subnets:
            if other['id'] == subnet['id']:
                if not gateway:
                    raise faults.bad(f"Bad router request: Router already has a port on subnet {subnet['id']}.")
                continue
            if gateway and other['device_owner'] == ports.ROUTER_GATEWAY:
                continue
            if ipaddress.ip_network(other['cidr']).overlaps(ipaddress.ip_network(subnet['cidr'])):
                raise faults.bad(f"Bad router request: Cidr {subnet['cidr']} of subnet {subnet['id']} overlaps with cidr "
                                 f"{other['cidr']} of subnet {other['id']}.")


def add_interface(unit, row, body):
    """Plug a subnet, or a port, into a router. :returns: what the API answers."""
    row = find.router(unit, row['id'])
    port_id, subnet_id = body.get('port_id'), body.get('subnet_id')
    if port_id and subnet_id:
        raise faults.bad('Bad router request: Cannot specify both subnet-id and port-id.')
    if not port_id and not subnet_id:
        raise faults.bad('Bad router request: Either subnet_id or port_id must be specified.')
    port = _add_port(unit, row, port_id) if port_id else _add_subnet(unit, row, subnet_id)
    _changed(unit, row['id'])
    host = placement.schedule_router(unit, row)
    unit.moved(host)
    ids = [ip['subnet_id'] for ip in port['fixed_ips']]
    return _interface(row, port, subnet_id or ids[0], ids)


def _interface(row, port, subnet_id, ids):
    return {'id': row['id'], 'tenant_id': row['project_id'], 'project_id': row['project_id'], 'port_id': port['id'],
            'network_id': port['network_id'], 'subnet_id': subnet_id, 'subnet_ids': ids}


def _add_port(unit, row, port_id):
    port = find.port(unit, port_id)
    if port['device_id'] or port['device_owner'] in ports.SERVICE_OWNED:
        raise faults.conflict('PortInUse', f"Unable to complete operation on port {port_id} for network {port['network_id']}. Port "
                                           f"already has an attached device {port['device_id']}.")
    if not port['fixed_ips']:
        raise faults.bad('Bad router request: Router port must have at least one fixed IP.')
    subnets = [_subnet(unit, ip['subnet_id']) for ip in port['fixed_ips']]
    if sum(subnet['ip_version'] == 4 for subnet in subnets) > 1:
        raise faults.bad('Bad router request: Cannot have multiple IPv4 subnets on router port.')
    _check_overlap(unit, row, subnets)
    return ports.update(unit, port, {'device_id': row['id'], 'device_owner': ports.ROUTER_INTERFACE, 'host': row['host'],
                                     'security_groups': [], 'port_security_enabled': False, 'allowed_address_pairs': []})


def _add_subnet(unit, row, subnet_id):
    subnet = find.subnet(unit, subnet_id)
    if subnet['project_id'] != row['project_id'] and not unit.ctx.is_admin:
        raise faults.bad(f'Bad router request: Cannot add interface to router because subnet {subnet_id} is not owned by project '
                         'making the request')
    if not subnet['gateway_ip']:
        raise faults.bad('Bad router request: Subnet for router interface must have a gateway IP.')
    _check_overlap(unit, row, [subnet])
    fixed = [{'subnet_id': subnet_id, 'ip_address': subnet['gateway_ip']}]
    if subnet['ip_version'] == 6:
        # One port carries all IPv6 subnets of a network.
        for port in legs(unit, row['id']):
            if port['network_id'] == subnet['network_id'] and all(':' in ip['ip_address'] for ip in port['fixed_ips']):
                return ports.update(unit, port, {'fixed_ips': port['fixed_ips'] + fixed})
    unit.memo['network', subnet['network_id']] = unit.one(
        sa.select(models.networks).where(models.networks.c.id == subnet['network_id']))
    return ports.create(unit, {
        'network_id': subnet['network_id'], 'project_id': row['project_id'], 'device_owner': ports.ROUTER_INTERFACE,
        'device_id': row['id'], 'host': row['host'], 'fixed_ips': fixed}, count=False)


def remove_interface(unit, row, body):
    """Unplug a subnet, or a port. :returns: what the API answers."""
    row = find.router(unit, row['id'])
    port_id, subnet_id = body.get('port_id'), body.get('subnet_id')
    if not port_id and not subnet_id:
        raise faults.bad('Bad router request: Either subnet_id or port_id must be specified.')
    found = legs(unit, row['id'])
    if port_id:
        port = next((port for port in found if port['id'] == port_id), None)
        if port is None:
            raise faults.missing('RouterInterfaceNotFound', f"Router {row['id']} does not have an interface with id {port_id}")
        ids = [ip['subnet_id'] for ip in port['fixed_ips']]
        if subnet_id and subnet_id not in ids:
            raise faults.conflict(
                'SubnetMismatchForPort', f'Subnet on port {port_id} does not match the requested subnet {subnet_id}.'
            )
        subnet_id = subnet_id or (ids[0] if ids else None)
    else:
        find.subnet(unit, subnet_id)
        port = next((port for port in found if any(ip['subnet_id'] == subnet_id for ip in port['fixed_ips'])), None)
        if port is None:
            raise faults.missing('RouterInterfaceNotFoundForSubnet', f"Router {row['id']} has no interface on subnet {subnet_id}")
        ids = [subnet_id]
    going = [ip for ip in port['fixed_ips'] if ip['subnet_id'] in ids]
    _check_unused(unit, row, port, [ip['subnet_id'] for ip in going])
    left = [ip for ip in port['fixed_ips'] if ip not in going]
    if left:
        ports.set_addresses(unit, port, left)
    else:
        ports.remove(unit, [port])
    _changed(unit, row['id'])
    unit.moved(row['host'])
    return _interface(row, port, subnet_id, ids)


def _check_unused(unit, row, port, subnet_ids):
    allocations = models.allocations.c
    used = unit.conn.execute(sa.select(_floating.c.id).join(
        models.allocations, sa.and_(allocations.port_id == _floating.c.port_id,
                                    allocations.ip_address == _floating.c.fixed_ip_address)).where(
            _floating.c.router_id == row['id'], allocations.subnet_id.in_(subnet_ids)).limit(1)).first()
    if used:
        raise faults.conflict(
            'RouterInterfaceInUseByFloatingIP',
            f'Router interface for subnet {subnet_ids[0]} on router {row["id"]} cannot be deleted, as it is required '
            'by one or more floating IPs.',
        )
    _check_routes_without(unit, row, port, 'RouterInterfaceInUseByRoute')


def _check_routes_without(unit, row, port, kind):
    if not row['routes']:
        return
    remaining = [one for one in _connected(unit, row['id']) if one['port_id'] != port['id']]
    for route in row['routes']:
        if not any(ipaddress.ip_address(route['nexthop']) in ipaddress.ip_network(one['cidr']) for one in remaining):
            raise faults.conflict(
                kind, f'Router {row["id"]}: port {port["id"]} cannot be taken away, as it is required by one or more routes.'
            )


def check_routes(unit, row, routes):
    """Routes in their canonical form, if a router can have them.

    :raises BadRequest: InvalidRoutes, RoutesExhausted.
    """
    if len(routes) > MAX_ROUTES:
        raise faults.bad(f"Unable to complete operation for {row['id']}. The number of routes exceeds the maximum {MAX_ROUTES}.",
                         kind='RoutesExhausted')
    connected = _connected(unit, row['id']) if routes else []
    own = {one['ip_address'] for one in connected}
    result = []
    for route in routes:
        nexthop = str(ipaddress.ip_address(route['nexthop']))
        checked = {'destination': str(ipaddress.ip_network(route['destination'], strict=False)), 'nexthop': nexthop}
        if checked in result:
            raise faults.bad(f'Invalid input for routes. Reason: Duplicate items: {checked}.', kind='HTTPBadRequest')
        if not any(ipaddress.ip_address(nexthop) in ipaddress.ip_network(one['cidr']) for one in connected):
            raise faults.bad(
                f'Invalid format for routes: {checked}, the nexthop is not connected with router', kind='InvalidRoutes'
            )
        if nexthop in own:
            raise faults.bad(f'Invalid format for routes: {checked}, the nexthop is used by router', kind='InvalidRoutes')
        result.append(checked)
    return result


def add_routes(unit, row, routes):
    """Add routes to those that a router has."""
    row = find.router(unit, row['id'])
    new = [{'destination': str(ipaddress.ip_network(route['destination'], strict=False)),
            'nexthop': str(ipaddress.ip_address(route['nexthop']))} for route in routes]
    update(unit, row, {'routes': row['routes'] + [route for route in new if route not in row['routes']]})


def remove_routes(unit, row, routes):
    """Take routes away; those that a router does not have are no fault."""
    row = find.router(unit, row['id'])
    gone = [{'destination': str(ipaddress.ip_network(route['destination'], strict=False)),
             'nexthop': str(ipaddress.ip_address(route['nexthop']))} for route in routes]
    update(unit, row, {'routes': [route for route in row['routes'] if route not in gone]})
