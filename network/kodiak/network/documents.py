"""The documents that hosts are told: their contents, as ``kodiak.network.agent.state`` describes them.

Each builder reads its kind for any number of ids or scopes in a fixed number of statements.
"""
import sqlalchemy as sa

from . import models, ports

_ports = models.ports
_subnets = models.subnets.c
_groups = models.port_groups.c
_rules = models.security_rules.c
_routers = models.routers
_floating = models.floatingips.c
SUBNET = (
    'id',
    'cidr',
    'ip_version',
    'gateway_ip',
    'enable_dhcp',
    'dns_nameservers',
    'host_routes',
    'ipv6_address_mode',
    'ipv6_ra_mode',
)


def split(scopes):
    """``{prefix: {id, ...}}`` of scopes."""
    found = {}
    for scope in scopes:
        prefix, _, rest = scope.partition(':')
        found.setdefault(prefix, set()).add(rest)
    return found


def of_scopes(conn, host, scopes, active):
    """All documents of some scopes: ``{kind: [document, ...]}``.

    :param active: all scopes that the host is subscribed to.
    """
    by = split(scopes)
    found = {}
    if 'host' in by:
        found['ports'] = _port_documents(conn, _here(host))
    if 'network' in by:
        found['networks'] = _networks(conn, host, by['network'])
    if 'members' in by:
        found['members'] = _members(conn, _ports.c.network_id.in_(by['members']))
    if 'group' in by:
        found['security_groups'] = _security_groups(conn, by['group'])
    if 'set' in by:
        found['set_members'] = _set_members(conn, by['set']) + _address_groups(conn, by['set'])
    if 'router' in by:
        found['routers'] = _router_documents(conn, by['router'])
        found['floating_ips'] = _floating_ips(conn, _floating.router_id.in_(by['router']))
    return found


def of_items(conn, host, kind, ids, active):
    """The documents of one kind with those ids, as far as there are any and the host is to have them."""
    by = split(active)
    if kind == 'ports':
        return _port_documents(conn, sa.and_(_ports.c.id.in_(ids), _here(host)))
    if kind == 'networks':
        return _networks(conn, host, ids & by.get('network', set()))
    if kind == 'members':
        return _members(conn, sa.and_(_ports.c.id.in_(ids), _ports.c.network_id.in_(by.get('members', set()))))
    if kind == 'security_groups':
        return _security_groups(conn, ids & by.get('group', set()))
    if kind == 'set_members':
        sets = by.get('set', set())
        wanted = {tuple(one.split('/', 1)) for one in ids if '/' in one and one.split('/', 1)[0] in sets}
        found = _set_members(conn, {one[0] for one in wanted}, {one[1] for one in wanted})
        return [one for one in found if one['id'] in ids] + _address_groups(conn, {one for one in ids if one in sets})
    if kind == 'routers':
        return _router_documents(conn, ids & by.get('router', set()))
    return _floating_ips(conn, sa.and_(_floating.id.in_(ids), _floating.router_id.in_(by.get('router', set()))))


def ids_of_scope(conn, scope):
    """The ids of what is in a scope now: ``{kind: {id, ...}}``."""
    prefix, _, rest = scope.partition(':')
    if prefix == 'network':
        return {'networks': {rest}}
    if prefix == 'members':
        return {'members': set(conn.scalars(sa.select(_ports.c.id).where(_ports.c.network_id == rest)))}
    if prefix == 'group':
        return {'security_groups': {rest}}
    if prefix == 'set':
        return {'set_members': {rest} | {f'{rest}/{port}' for port in conn.scalars(
            sa.select(_groups.port_id).where(_groups.security_group_id == rest))}}
    if prefix == 'router':
        return {'routers': {rest}, 'floating_ips': set(conn.scalars(sa.select(_floating.id).where(_floating.router_id == rest)))}
    return {}


def _networks(conn, host, ids):
    if not ids:
        return []
    table, placed = models.networks.c, models.dhcp_placements.c
    subnets, services = {}, {}
    for row in conn.execute(
        sa.select(models.subnets).where(_subnets.network_id.in_(ids)).order_by(_subnets.created_at, _subnets.id)
    ):
        subnets.setdefault(row.network_id, []).append({name: getattr(row, name) for name in SUBNET})
    for row in conn.execute(sa.select(_ports.c.id, _ports.c.network_id, _ports.c.mac_address, _ports.c.fixed_ips).join(
            models.dhcp_placements, placed.port_id == _ports.c.id).where(placed.network_id.in_(ids), placed.host == host)):
        services[row.network_id] = {'port_id': row.id, 'mac': row.mac_address, 'fixed_ips': _addresses(row.fixed_ips)}
    return [
        {
            'id': row.id,
            'generation': row.generation,
            'type': row.network_type,
            'segmentation_id': row.segmentation_id,
            'physical_network': row.physical_network,
            'mtu': row.mtu,
            'admin_state_up': row.admin_state_up,
            'dns_domain': row.dns_domain,
            'subnets': subnets.get(row.id, []),
            'dhcp': services.get(row.id),
        }
        for row in conn.execute(sa.select(models.networks).where(table.id.in_(ids)))
    ]


def _addresses(fixed_ips):
    return [{'subnet_id': ip['subnet_id'], 'address': ip['ip_address']} for ip in fixed_ips]


def _here(host):
    """Ports of guests that are plugged in on a host, or are about to be (an inactive binding)."""
    bindings = models.port_bindings.c
    return sa.and_(_ports.c.device_owner.not_like('network:%'), sa.or_(
        sa.and_(_ports.c.host == host, _ports.c.vif_type == 'tap'),
        _ports.c.id.in_(sa.select(bindings.port_id).where(bindings.host == host))))


def _port_documents(conn, condition):
    network_policy = models.networks.c.qos_policy_id
    rows = conn.execute(sa.select(_ports, network_policy.label('network_policy')).join(
        models.networks, models.networks.c.id == _ports.c.network_id).where(condition)).all()
    limits = _limits(conn, {row.qos_policy_id or row.network_policy for row in rows} - {None})
    return [
        {
            'id': row.id,
            'network_id': row.network_id,
            'mac': row.mac_address,
            'generation': row.generation,
            'project_id': row.project_id,
            'device_id': row.device_id,
            'device_owner': row.device_owner,
            'fixed_ips': _addresses(row.fixed_ips),
            'allowed_address_pairs': row.allowed_address_pairs,
            'port_security_enabled': row.port_security_enabled,
            'security_groups': row.security_groups,
            'admin_state_up': row.admin_state_up,
            'qos': limits.get(row.qos_policy_id or row.network_policy),
        }
        for row in rows
    ]


def _limits(conn, policies):
    if not policies:
        return {}
    table, found = models.qos_rules.c, {}
    for row in conn.execute(sa.select(table.qos_policy_id, table.type, table.direction, table.params).where(
            table.qos_policy_id.in_(policies))):
        limit = found.setdefault(row.qos_policy_id, dict.fromkeys(
            ('egress_kbps', 'egress_burst_kbits', 'ingress_kbps', 'ingress_burst_kbits', 'dscp')))
        if row.type == 'dscp_marking':
            limit['dscp'] = row.params['dscp_mark']
            continue
        limit[f'{row.direction}_kbps'] = row.params.get('max_kbps')
        limit[f'{row.direction}_burst_kbits'] = row.params.get('max_burst_kbps')
    return found


def _members(conn, condition):
    hosts = models.hosts.c
    rows = conn.execute(sa.select(
        _ports.c.id, _ports.c.network_id, _ports.c.mac_address, _ports.c.generation, _ports.c.fixed_ips, _ports.c.device_owner,
        _ports.c.device_id, _ports.c.project_id, _ports.c.dns_name, _ports.c.extra_dhcp_opts, hosts.tunnel_ip).join(
            models.hosts, sa.and_(hosts.host == _ports.c.host, _ports.c.vif_type == 'tap'), isouter=True).where(
                condition, _ports.c.device_owner != ports.FLOATING_IP))
    return [{
        'id': row.id, 'network_id': row.network_id, 'mac': row.mac_address, 'generation': row.generation,
        'fixed_ips': _addresses(row.fixed_ips), 'tunnel_ip': row.tunnel_ip, 'device_owner': row.device_owner,
        'device_id': row.device_id, 'project_id': row.project_id, 'hostname': row.dns_name or None,
        'extra_dhcp_opts': row.extra_dhcp_opts} for row in rows if row.fixed_ips or row.tunnel_ip]


def _security_groups(conn, ids):
    if not ids:
        return []
    table, rules = models.security_groups.c, {}
    for row in conn.execute(sa.select(models.security_rules).where(_rules.security_group_id.in_(ids)).order_by(_rules.id)):
        rules.setdefault(row.security_group_id, []).append({
            'id': row.id, 'direction': row.direction, 'ethertype': row.ethertype, 'protocol': row.protocol,
            'port_range_min': row.port_range_min, 'port_range_max': row.port_range_max,
            'remote_ip_prefix': row.normalized_cidr or row.remote_ip_prefix,
            'remote_set': row.remote_group_id or row.remote_address_group_id})
    return [{'id': row.id, 'generation': row.generation, 'stateful': row.stateful, 'rules': rules.get(row.id, [])}
            for row in conn.execute(sa.select(table.id, table.generation, table.stateful).where(table.id.in_(ids)))]


def _set_members(conn, groups, port_ids=None):
    if not groups:
        return []
    query = (
        sa.select(_groups.security_group_id, _ports.c.id, _ports.c.generation, _ports.c.fixed_ips, _ports.c.allowed_address_pairs)
        .join(models.ports, _ports.c.id == _groups.port_id)
        .where(_groups.security_group_id.in_(groups))
    )
    if port_ids is not None:
        query = query.where(_groups.port_id.in_(port_ids))
    return [{
        'id': f'{row.security_group_id}/{row.id}', 'set_id': row.security_group_id, 'generation': row.generation,
        'addresses': [ip['ip_address'] for ip in row.fixed_ips] + [pair['ip_address'] for pair in row.allowed_address_pairs]}
        for row in conn.execute(query)]


def _address_groups(conn, ids):
    if not ids:
        return []
    table = models.address_groups.c
    return [{'id': row.id, 'set_id': row.id, 'generation': row.generation, 'addresses': row.addresses}
            for row in conn.execute(sa.select(table.id, table.generation, table.addresses).where(table.id.in_(ids)))]


def _router_documents(conn, ids):
    if not ids:
        return []
    legs, gateways = {}, {}
    for row in conn.execute(
        sa.select(
            _ports.c.id, _ports.c.device_id, _ports.c.device_owner, _ports.c.network_id, _ports.c.mac_address, _ports.c.fixed_ips
        )
        .where(_ports.c.device_id.in_(ids), _ports.c.device_owner.in_(ports.ROUTER_OWNERS))
        .order_by(_ports.c.created_at, _ports.c.id)
    ):
        leg = {'port_id': row.id, 'network_id': row.network_id, 'mac': row.mac_address, 'fixed_ips': _addresses(row.fixed_ips)}
        if row.device_owner == ports.ROUTER_GATEWAY:
            gateways[row.device_id] = leg
        else:
            legs.setdefault(row.device_id, []).append(leg)
    return [{
        'id': row.id, 'generation': row.generation, 'project_id': row.project_id, 'admin_state_up': row.admin_state_up,
        'legs': legs.get(row.id, []), 'gateway': gateways.get(row.id), 'enable_snat': row.enable_snat, 'routes': row.routes}
        for row in conn.execute(sa.select(_routers).where(_routers.c.id.in_(ids)))]


def _range(first, last):
    return str(first) if first == last else f'{first}:{last}'


def _floating_ips(conn, condition):
    rows = conn.execute(sa.select(models.floatingips).where(condition)).all()
    if not rows:
        return []
    table, forwarded = models.forwardings.c, {}
    for row in conn.execute(
        sa.select(models.forwardings).where(table.floatingip_id.in_([row.id for row in rows])).order_by(table.id)
    ):
        forwarded.setdefault(row.floatingip_id, []).append({
            'id': row.id, 'protocol': row.protocol, 'external_port': _range(row.external_port, row.external_port_end),
            'internal_address': row.internal_ip_address, 'internal_port': _range(row.internal_port, row.internal_port_end)})
    return [{
        'id': row.id, 'router_id': row.router_id, 'floating_address': row.floating_ip_address, 'generation': row.generation,
        'fixed_address': row.fixed_ip_address, 'port_id': row.port_id, 'forwardings': forwarded.get(row.id, [])} for row in rows]
