"""Port forwardings: single ports of a floating address, led to ports behind its router."""
import sqlalchemy as sa

from kodiak.common import db

from . import faults, find, floatingips, models

_forwardings = models.forwardings
_floating = models.floatingips


def create(unit, floating, values):
    """Lead a port of a floating address to one of a guest's. :returns: the row."""
    floating = unit.one(sa.select(_floating).where(_floating.c.id == floating['id']).with_for_update())
    if floating['port_id']:
        raise faults.conflict('FipInUseByOthers',
                              f"Floating IP {floating['id']} is on port {floating['port_id']} and can have no port forwardings.")
    now = db.utcnow()
    row = {'id': db.new_id(), 'project_id': floating['project_id'], 'floatingip_id': floating['id'], 'description': '',
           'created_at': now, 'updated_at': now, 'revision_number': 1, 'tags': [], **values}
    router_id = _check(unit, floating, row)
    unit.insert(_forwardings, row)
    _changed(unit, floating, router_id)
    return row


def _check(unit, floating, row):
    port = find.port(unit, row['internal_port_id'])
    own = [ip for ip in port['fixed_ips'] if ':' not in ip['ip_address']]
    if row.get('internal_ip_address'):
        own = [ip for ip in own if ip['ip_address'] == row['internal_ip_address']]
    if not own:
        raise faults.bad(f"Bad port_forwarding request: Port {port['id']} does not have the internal IP address "
                         f"{row.get('internal_ip_address')}.")
    row['internal_ip_address'] = own[0]['ip_address']
    if unit.conn.execute(sa.select(_floating.c.id).where(_floating.c.port_id == port['id']).limit(1)).first():
        raise faults.conflict(
            'PortHasBindingFloatingIP', f'Cannot create port forwarding to port {port["id"]}, which has a floating IP.'
        )
    if row['external_port_end'] - row['external_port'] != row['internal_port_end'] - row['internal_port'] and \
            row['internal_port_end'] != row['internal_port']:
        raise faults.bad('Bad port_forwarding request: the ranges of external and internal ports differ in their size.')
    clash = unit.conn.scalar(sa.select(_forwardings.c.id).where(
        _forwardings.c.floatingip_id == floating['id'], _forwardings.c.protocol == row['protocol'], _forwardings.c.id != row['id'],
        _forwardings.c.external_port <= row['external_port_end'], _forwardings.c.external_port_end >= row['external_port']))
    if clash:
        raise faults.bad('Bad port_forwarding request: A duplicate port forwarding entry with same attributes already exists, '
                         f'conflicting values are those of {clash}.')
    router_id = floatingips.router_of(unit, own[0]['subnet_id'], floating['floating_network_id'])
    if router_id is None or (floating['router_id'] and floating['router_id'] != router_id):
        raise faults.bad(f"Bad port_forwarding request: no router leads from port {port['id']} to floating IP {floating['id']}.")
    return router_id


def _changed(unit, floating, router_id):
    unit.update(_floating, floating['id'], {'router_id': router_id, 'generation': _floating.c.generation + 1,
                                            'status': 'DOWN' if router_id is None else floating['status']})
    for one in {floating['router_id'], router_id} - {None}:
        unit.touch_floating(floating['id'], one)


def update(unit, floating, row, values):
    """Change a port forwarding. :returns: the row as it is afterwards."""
    floating = unit.one(sa.select(_floating).where(_floating.c.id == floating['id']).with_for_update())
    new = {**row, **values}
    if 'internal_port_id' in values and 'internal_ip_address' not in values:
        new['internal_ip_address'] = None
    router_id = _check(unit, floating, new)
    unit.update(_forwardings, row['id'], {name: new[name] for name in new if new[name] != row[name]})
    _changed(unit, floating, router_id)
    return new


def delete(unit, floating, row):
    """Take a port forwarding away."""
    floating = unit.one(sa.select(_floating).where(_floating.c.id == floating['id']).with_for_update())
    unit.delete(_forwardings, _forwardings.c.id == row['id'])
    left = unit.conn.execute(sa.select(_forwardings.c.id).where(_forwardings.c.floatingip_id == floating['id']).limit(1)).first()
    _changed(unit, floating, floating['router_id'] if left else None)
