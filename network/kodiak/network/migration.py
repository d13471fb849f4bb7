"""Live migration: bindings of a port to hosts besides the one it is on.

The active binding stands on the port's row, the others in ``port_bindings``. The host of an inactive binding wires the port
ahead, so that the guest has its network the moment it arrives; activating a binding changes places.
"""
import sqlalchemy as sa

from . import binding, faults, models, ports

_bindings = models.port_bindings
_ports = models.ports


def _view(row, status):
    return {**{name: row[name] for name in ('host', 'vif_type', 'vif_details', 'vnic_type', 'profile')}, 'status': status}


def bindings(conn, port):
    """All bindings of a port, the active one first, as the API shows them."""
    found = [_view(port, 'ACTIVE')] if port['host'] else []
    return found + [_view(row, 'INACTIVE') for row in conn.execute(
        sa.select(_bindings).where(_bindings.c.port_id == port['id']).order_by(_bindings.c.host)).mappings()]


def find_binding(conn, port, host):
    """One of them.

    :raises NotFound: PortBindingNotFound.
    """
    for one in bindings(conn, port):
        if one['host'] == host:
            return one
    raise faults.missing('PortBindingNotFound', f"Binding for port {port['id']} for host {host} could not be found.")


def _fresh(unit, port):
    row = unit.one(sa.select(_ports).where(_ports.c.id == port['id']).with_for_update())
    if row is None:
        raise faults.not_found('Port', port['id'])
    return row


def add(unit, port, values):
    """Prepare a port on another host. :returns: the binding."""
    port = _fresh(unit, port)
    if not port['device_owner'].startswith(ports.COMPUTE):
        raise faults.conflict('PortBindingError', f"Port {port['id']} belongs to no server, so it has no more than one binding.")
    if any(one['host'] == values['host'] for one in bindings(unit.conn, port)):
        raise faults.conflict('PortBindingAlreadyExists', f"Binding for port {port['id']} on host {values['host']} already exists.")
    row = {'port_id': port['id'], 'host': values['host'], 'vnic_type': values.get('vnic_type', 'normal'),
           'profile': values.get('profile', {})}
    network = unit.one(sa.select(models.networks).where(models.networks.c.id == port['network_id']))
    row.update(binding.attributes(unit, network, {**port, **row, 'id': port['id']}, row['host']))
    if row['vif_type'] == 'binding_failed':
        raise faults.conflict(
            'PortBindingError',
            f'Binding for port {port["id"]} on host {values["host"]} could not be created: no '
            'network agent has ever reported from there.',
        )
    unit.insert(_bindings, row)
    unit.touch_port(port['id'], row['host'])
    unit.moved(row['host'])
    return _view(row, 'INACTIVE')


def change(unit, port, host, values):
    """Change an inactive binding. :returns: the binding."""
    port = _fresh(unit, port)
    find_binding(unit.conn, port, host)
    if host == port['host']:
        ports.update(unit, port, {name: values[name] for name in ('vnic_type', 'profile') if name in values})
    elif values:
        unit.conn.execute(sa.update(_bindings).where(_bindings.c.port_id == port['id'], _bindings.c.host == host).values(
            {name: values[name] for name in ('vnic_type', 'profile') if name in values}))
    return find_binding(unit.conn, _fresh(unit, port), host)


def activate(unit, port, host):
    """Have a port be on the host of an inactive binding; the one that was active becomes inactive. :returns: the binding."""
    port = _fresh(unit, port)
    found = find_binding(unit.conn, port, host)
    if host == port['host']:
        raise faults.conflict('PortBindingAlreadyActive', f"Binding for port {port['id']} on host {host} is already active.")
    unit.delete(_bindings, _bindings.c.port_id == port['id'], _bindings.c.host == host)
    before = {name: port[name] for name in ('host', 'vnic_type', 'vif_type', 'vif_details', 'profile')}
    if before['host']:
        unit.insert(_bindings, {'port_id': port['id'], **before})
    ports.update(unit, port, {'host': host, 'vnic_type': found['vnic_type'], 'profile': found['profile']})
    return find_binding(unit.conn, _fresh(unit, port), host)


def remove(unit, port, host):
    """Forget a binding. The active one leaves the port unbound."""
    port = _fresh(unit, port)
    find_binding(unit.conn, port, host)
    if host == port['host']:
        ports.update(unit, port, {'host': ''})
        return
    unit.delete(_bindings, _bindings.c.port_id == port['id'], _bindings.c.host == host)
    unit.touch_port(port['id'], host)
    unit.moved(host)
