"""Networks: types and identifiers, who they are shared with, and what keeps them from being deleted."""
import ipaddress
import random

import sqlalchemy as sa

from kodiak.common import db, errors

from . import faults, find, floatingips, models, ports, quotas

TUNNEL_OVERHEAD = 50        # bytes that VXLAN over IPv4 adds to a packet
MIN_MTU = 68

_networks = models.networks
_segments = models.segments.c
_rbac = models.rbac_policies.c
_ports = models.ports.c
_routers = models.routers.c


def create(unit, values):
    """Make a network. :param values: by column name. :returns: its id."""
    quotas.claim(unit, values['project_id'], 'network')
    network_id = db.new_id()
    segment = _segment(unit, values)
    segment_row = {'id': db.new_id(), 'network_id': network_id, **segment, 'physical_network': segment['physical_network'] or ''}
    largest = unit.conf.path_mtu - (TUNNEL_OVERHEAD if segment['network_type'] == 'vxlan' else 0)
    mtu = values.get('mtu') or largest
    _check_mtu(mtu, largest)
    now = db.utcnow()
    row = {'id': network_id, **values, **segment, 'mtu': mtu, 'subnets': [], 'created_at': now, 'updated_at': now}
    row['segmentation_id'] = row['segmentation_id'] or None
    if row.get('is_default'):
        _only_default(unit, network_id)
    unit.insert(_networks, row)
    unit.insert(models.segments, {**segment_row, 'created_at': now, 'updated_at': now})
    if row.get('external'):
        share(unit, row, 'access_as_external')
    if row.get('shared'):
        share(unit, row, 'access_as_shared')
    return network_id


def _check_mtu(mtu, largest):
    if not MIN_MTU <= mtu <= largest:
        raise faults.bad(f'Requested MTU is not valid: it must be between {MIN_MTU} and {largest}.', kind='InvalidInput')


def _segment(unit, values):
    """The type, physical network and identifier of a new network. A flat network's identifier is 0, a local one has none."""
    kind = values.get('network_type')
    physical, number = values.get('physical_network'), values.get('segmentation_id')
    if kind is None:
        if physical is not None or number is not None:
            raise faults.invalid('network_type required.')
        kind = unit.conf.tenant_network_type
    if kind == 'vxlan':
        if physical is not None:
            raise faults.invalid('provider:physical_network specified for VXLAN network.')
        if number is None:
            number = _free_vni(unit)
        elif not 1 <= number < 2 ** 24:
            raise faults.invalid(f'segmentation_id {number} is out of range: 1 to {2 ** 24 - 1}.')
        elif _taken(unit, kind, '', number):
            raise faults.conflict('TunnelIdInUse', f'Unable to create the network. The tunnel ID {number} is in use.')
    elif kind == 'flat':
        if number is not None:
            raise faults.invalid('provider:segmentation_id cannot be specified for flat networks.')
        if physical is None:
            raise faults.invalid('physical_network required for flat provider network.')
        known = unit.conf.physical_networks
        if '*' not in known and physical not in known:
            raise faults.invalid(f"physical_network '{physical}' unknown for flat provider network.")
        number = 0
        if _taken(unit, kind, physical, number):
            raise faults.conflict('FlatNetworkInUse',
                                  f'Unable to create the flat network. Physical network {physical} is in use.')
    elif kind == 'local':
        if physical is not None or number is not None:
            raise faults.invalid('A local network has neither provider:physical_network nor provider:segmentation_id.')
    else:
        raise faults.invalid(f"network_type value '{kind}' not supported: use vxlan, flat or local.")
    return {'network_type': kind, 'physical_network': physical, 'segmentation_id': number}


def _taken(unit, kind, physical, number):
    return unit.conn.execute(sa.select(_segments.id).where(
        _segments.network_type == kind, _segments.physical_network == physical,
        _segments.segmentation_id == number)).first() is not None


def _free_vni(unit):
    """A VXLAN identifier that is free: drawn, because nearly all are; looked for only where they are nearly used up."""
    first, _, last = unit.conf.vni_range.partition(':')
    first, last = int(first), int(last)
    for _ in range(8):
        number = random.randint(first, last)
        if not _taken(unit, 'vxlan', '', number):
            return number
    taken = set(unit.conn.scalars(sa.select(_segments.segmentation_id).where(
        _segments.network_type == 'vxlan', _segments.segmentation_id.between(first, last))))
    number = next((number for number in range(first, last + 1) if number not in taken), None)
    if number is None:
        raise errors.Unavailable('Unable to create the network. No tenant network is available for allocation.',
                                 kind='NoNetworkAvailable')
    return number


def _only_default(unit, network_id):
    found = unit.conn.execute(sa.select(_networks.c.id).where(_networks.c.is_default, _networks.c.id != network_id)).first()
    if found:
        raise faults.conflict('DefaultExternalNetworkExists', f'A default external network already exists: {found.id}.')


def share(unit, row, action, target='*'):
    """Let other projects use a network, as an RBAC policy of its owner."""
    find.share(unit, 'network', row['id'], row['project_id'], action, target)


def unshare(unit, row, action, target='*'):
    """Take that back."""
    check_unshare(unit, row, action, target)
    find.unshare(unit, 'network', row['id'], row['project_id'], action, target)


def check_unshare(unit, row, action, target):
    """Make sure that nobody whom a network is shared with needs it.

    :raises Conflict: InvalidSharedSetting, ExternalNetworkInUse.
    """
    if action == 'access_as_shared':
        others = unit.conn.execute(sa.select(_ports.project_id).where(
            _ports.network_id == row['id'], _ports.project_id.not_in(('', row['project_id'])),
            sa.true() if target == '*' else _ports.project_id == target)).first()
        if others:
            raise faults.conflict('InvalidSharedSetting', f"Unable to reconfigure sharing settings for network {row['id']}. "
                                                          'Multiple tenants are using it.')
    elif unit.conn.execute(sa.select(_routers.id).where(
            _routers.gateway_network_id == row['id'],
            sa.true() if target == '*' else _routers.project_id == target)).first():
        raise faults.conflict('ExternalNetworkInUse', f"External network {row['id']} cannot be updated to be made non-external, "
                                                      'since it has existing gateway ports.')


def update(unit, row, values):
    """Change a network. :param row: the network as it is; :param values: by column name."""
    for name in ('network_type', 'physical_network', 'segmentation_id'):
        if name in values and values[name] != row[name]:
            raise faults.invalid('Plugin does not support updating provider attributes.')
    if 'mtu' in values:
        values['mtu'] = values['mtu'] or row['mtu']
        _check_mtu(values['mtu'], unit.conf.path_mtu - (TUNNEL_OVERHEAD if row['network_type'] == 'vxlan' else 0))
    if values.get('is_default'):
        _only_default(unit, row['id'])
    for name, action in (('external', 'access_as_external'), ('shared', 'access_as_shared')):
        if name in values and values[name] != row[name]:
            (share if values[name] else unshare)(unit, row, action)
    changes = {name: value for name, value in values.items() if value != row[name]}
    if {'admin_state_up', 'mtu', 'dns_domain'} & changes.keys():
        changes['generation'] = _networks.c.generation + 1
        unit.touch_network(row['id'])
    if 'qos_policy_id' in changes:
        for port_id, host in unit.conn.execute(sa.select(_ports.id, _ports.host).where(
                _ports.network_id == row['id'], _ports.qos_policy_id.is_(None), _ports.host != '')):
            ports.changed(unit, port_id, host)
    unit.update(_networks, row['id'], changes)


def delete(unit, row):
    """Delete a network with its subnets and the ports of its DHCP service.

    :raises Conflict: NetworkInUse.
    """
    network_id = row['id']
    unit.conn.execute(sa.select(_networks.c.id).where(_networks.c.id == network_id).with_for_update())
    for floating in unit.all(sa.select(models.floatingips).where(
            models.floatingips.c.floating_network_id == network_id, models.floatingips.c.port_id.is_(None))):
        floatingips.delete(unit, floating)
    found = unit.all(sa.select(models.ports).where(_ports.network_id == network_id))
    holders = [port for port in found if port['device_owner'] not in ports.AUTO_DELETED]
    if holders:
        raise faults.conflict('NetworkInUse', f'Unable to complete operation on network {network_id}. There are one or more ports '
                                              f'still in use on the network: {faults.named(holders)}.')
    placed = unit.conn.scalars(sa.select(models.dhcp_placements.c.host).where(
        models.dhcp_placements.c.network_id == network_id)).all()
    ports.remove(unit, found)
    unit.delete(models.subnets, models.subnets.c.network_id == network_id)
    unit.delete(models.rbac_policies, _rbac.object_type == 'network', _rbac.object_id == network_id)
    unit.delete(models.segments, _segments.network_id == network_id)
    unit.delete(_networks, _networks.c.id == network_id)
    if placed:
        unit.moved(*placed)
    unit.touch_network(network_id)


def update_segment(unit, row, values):
    """Name or describe the segment of a network."""
    unit.update(models.segments, row['id'], {name: value for name, value in values.items() if value != row[name]})


def availability(conn, query, version=None):
    """How full the networks of ``query`` (id, name, project) are, as the API says it.

    :param version: look at subnets of this IP version only.
    """
    subnets, allocations = models.subnets.c, models.allocations.c
    chosen = query.subquery()
    found = {row.id: {'network_id': row.id, 'network_name': row.name, 'project_id': row.project_id, 'tenant_id': row.project_id,
                      'total_ips': 0, 'used_ips': 0, 'subnet_ip_availability': []} for row in conn.execute(query)}
    listed = sa.select(subnets.network_id, subnets.id, subnets.name, subnets.cidr, subnets.ip_version, subnets.allocation_pools,
                       sa.select(sa.func.count()).where(allocations.subnet_id == subnets.id).scalar_subquery().label('used')
                       ).where(subnets.network_id.in_(sa.select(chosen.c.id)))
    if version is not None:
        listed = listed.where(subnets.ip_version == version)
    for row in conn.execute(listed.order_by(subnets.created_at)):
        total = sum(int(ipaddress.ip_address(pool['end'])) - int(ipaddress.ip_address(pool['start'])) + 1
                    for pool in row.allocation_pools)
        network = found[row.network_id]
        network['total_ips'] += total
        network['used_ips'] += row.used
        network['subnet_ip_availability'].append({
            'subnet_id': row.id, 'subnet_name': row.name, 'cidr': row.cidr, 'ip_version': row.ip_version, 'total_ips': total,
            'used_ips': row.used})
    return list(found.values())
