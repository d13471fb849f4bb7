"""Floating addresses: taken from an external network, put on a port behind a router that reaches it."""
import ipaddress

import sqlalchemy as sa

from kodiak.common import db

from . import faults, find, models, ports, quotas

_floating = models.floatingips
_ports = models.ports
_routers = models.routers
_allocations = models.allocations.c


def create(unit, values):
    """Take a floating address. :param values: by column name, and ``subnet_id``. :returns: its id."""
    quotas.claim(unit, values['project_id'], 'floatingip')
    network = find.network(unit, values['floating_network_id'])
    if not network['external']:
        raise faults.bad(f"Bad floatingip request: Network {network['id']} is not a valid external network.")
    floating_id, now = db.new_id(), db.utcnow()
    subnet_id, address = values.pop('subnet_id', None), values.pop('floating_ip_address', None)
    asked = {name: value for name, value in (('subnet_id', subnet_id), ('ip_address', address)) if value}
    unit.memo['network', network['id']] = network
    subnets = ports.subnets_of(unit, network)
    if not asked:
        usable = [subnet for subnet in subnets if subnet['ip_version'] == 4]
        if not usable:
            raise faults.bad(f"Bad floatingip request: Network {network['id']} does not contain any IPv4 subnet.")
    port = ports.create(unit, {'network_id': network['id'], 'project_id': '', 'device_owner': ports.FLOATING_IP,
                               'device_id': floating_id, 'fixed_ips': [asked] if asked else None}, count=False)
    unit.update(_ports, port['id'], {'status': 'N/A'}, revise=False)
    ipv4 = next((ip['ip_address'] for ip in port['fixed_ips'] if ':' not in ip['ip_address']), None)
    if ipv4 is None:
        raise faults.bad(f"Bad floatingip request: no IPv4 address could be had on network {network['id']}.")
    port_id, fixed = values.pop('port_id', None), values.pop('fixed_ip_address', None)
    row = {'id': floating_id, **values, 'floating_port_id': port['id'], 'floating_ip_address': ipv4, 'status': 'DOWN',
           'created_at': now, 'updated_at': now}
    if fixed and not port_id:
        raise faults.bad(f'Bad floatingip request: fixed_ip_address {fixed} cannot be given without a port_id.')
    if port_id:
        row.update(_association(unit, row, port_id, fixed))
        unit.touch_floating(floating_id, row['router_id'])
    unit.insert(_floating, row)
    _tell_compute(unit, {port_id} - {None})
    return floating_id


def _association(unit, row, port_id, fixed):
    """The columns that put a floating address on a port.

    :raises NotFound: ExternalGatewayForFloatingIPNotFound. :raises Conflict: FloatingIPPortAlreadyAssociated.
    """
    port = find.port(unit, port_id)
    if port['project_id'] != row['project_id'] and not unit.ctx.is_admin:
        raise faults.bad(
            f'Bad floatingip request: Port {port_id} is associated with a different tenant than Floating IP {row["id"]} '
            'and therefore cannot be bound.'
        )
    if port['device_owner'] in (ports.ROUTER_GATEWAY, ports.FLOATING_IP):
        raise faults.bad(f'Bad floatingip request: Port {port_id} belongs to the cloud itself and can have no floating IP.')
    own = [ip for ip in port['fixed_ips'] if ':' not in ip['ip_address']]
    if fixed:
        fixed = str(ipaddress.ip_address(fixed))
        chosen = next((ip for ip in own if ip['ip_address'] == fixed), None)
        if chosen is None:
            raise faults.bad(f'Bad floatingip request: Port {port_id} does not have fixed ip {fixed}.')
    elif not own:
        raise faults.bad(f'Bad floatingip request: Cannot add floating IP to port {port_id} that has no fixed IPv4 addresses.')
    elif len(own) > 1:
        raise faults.bad(f'Bad floatingip request: Port {port_id} has multiple fixed IPv4 addresses. Must provide a specific IPv4 '
                         'address when assigning a floating IP.')
    else:
        chosen = own[0]
    table = models.forwardings
    if unit.conn.execute(sa.select(table.c.id).where(table.c.floatingip_id == row['id']).limit(1)).first():
        raise faults.conflict(
            'FloatingIPPortForwardingInUse', f'Floating IP {row["id"]} has port forwardings and can be on no port.'
        )
    taken = unit.conn.execute(sa.select(_floating.c.id, _floating.c.floating_ip_address).where(
        _floating.c.port_id == port_id, _floating.c.fixed_ip_address == chosen['ip_address'],
        _floating.c.floating_network_id == row['floating_network_id'], _floating.c.id != row['id'])).first()
    if taken:
        raise faults.conflict(
            'FloatingIPPortAlreadyAssociated',
            f'Cannot associate floating IP {row["floating_ip_address"]} ({row["id"]}) with port {port_id} using fixed IP '
            f'{chosen["ip_address"]}, as that fixed IP already has a floating IP on external network '
            f'{row["floating_network_id"]}.',
        )
    router_id = router_of(unit, chosen['subnet_id'], row['floating_network_id'])
    if router_id is None:
        raise faults.missing('ExternalGatewayForFloatingIPNotFound',
                             f"External network {row['floating_network_id']} is not reachable from subnet {chosen['subnet_id']}. "
                             f'Therefore, cannot associate Port {port_id} with a Floating IP.')
    return {'port_id': port_id, 'fixed_ip_address': chosen['ip_address'], 'router_id': router_id}


def router_of(unit, subnet_id, external_network_id):
    """The id of the router between a subnet and an external network, the one that has the subnet's gateway address first."""
    subnets = models.subnets.c
    return unit.conn.scalar(
        sa.select(_routers.c.id).join(_ports, _ports.c.device_id == _routers.c.id).join(
            models.allocations, _allocations.port_id == _ports.c.id).join(
                models.subnets, subnets.id == _allocations.subnet_id).where(
                    _ports.c.device_owner == ports.ROUTER_INTERFACE, _allocations.subnet_id == subnet_id,
                    _routers.c.gateway_network_id == external_network_id)
        .order_by(sa.case((subnets.gateway_ip == _allocations.ip_address, 0), else_=1)).limit(1))


def update(unit, row, values):
    """Put a floating address on another port, or on none."""
    row = unit.one(sa.select(_floating).where(_floating.c.id == row['id']).with_for_update())
    changes = {name: value for name, value in values.items() if name not in ('port_id', 'fixed_ip_address') and value != row[name]}
    if 'port_id' in values or values.get('fixed_ip_address'):
        port_id = values.get('port_id', row['port_id'])
        if port_id:
            associated = _association(unit, row, port_id, values.get('fixed_ip_address'))
        else:
            if values.get('fixed_ip_address'):
                raise faults.bad('Bad floatingip request: a fixed_ip_address cannot be given without a port_id.')
            associated = {'port_id': None, 'fixed_ip_address': None, 'router_id': None}
        if any(associated[name] != row[name] for name in associated):
            changes.update(associated, status='DOWN', generation=_floating.c.generation + 1)
            for router_id in {row['router_id'], associated['router_id']} - {None}:
                unit.touch_floating(row['id'], router_id)
            _tell_compute(unit, {row['port_id'], port_id} - {None})
    unit.update(_floating, row['id'], changes)


def _tell_compute(unit, port_ids):
    for port in unit.all(sa.select(_ports).where(_ports.c.id.in_(port_ids))) if port_ids else ():
        unit.notify_compute('network-changed', port)


def delete(unit, row):
    """Give a floating address back."""
    if row['router_id']:
        unit.touch_floating(row['id'], row['router_id'])
    _tell_compute(unit, {row['port_id']} - {None})
    unit.delete(models.forwardings, models.forwardings.c.floatingip_id == row['id'])
    unit.delete(_floating, _floating.c.id == row['id'])
    ports.remove(unit, unit.all(sa.select(_ports).where(_ports.c.id == row['floating_port_id'])))
