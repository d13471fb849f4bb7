"""Placing the DHCP service of networks, and routers, on hosts; the least loaded one that is up gets the next.

DHCP of a network is placed when its first port is made, a router when it gets its first leg.
What cannot be placed then, or what a dead host served, is placed by the conductor's periodic look.
"""
import datetime
import uuid

import sqlalchemy as sa

from kodiak.common import db, errors

from . import addresses, models, ports

DHCP_AGENT, L3_AGENT, METADATA_AGENT, L2_AGENT = 'DHCP agent', 'L3 agent', 'Metadata agent', 'Linux bridge agent'
AGENT_TYPES = {L2_AGENT: 'neutron-linuxbridge-agent', DHCP_AGENT: 'neutron-dhcp-agent', L3_AGENT: 'neutron-l3-agent',
               METADATA_AGENT: 'neutron-metadata-agent'}
NAMESPACE = uuid.UUID('6b1d5f2e-6a63-4b9d-a0a5-2f9c31c9c0de')

_hosts = models.hosts.c
_agents = models.agents.c
_dhcp = models.dhcp_placements
_routers = models.routers
_floating = models.floatingips
_ports = models.ports
_subnets = models.subnets.c


def agent_id(host, agent_type):
    """The id of an agent, which is the same whenever it reports."""
    return str(uuid.uuid5(NAMESPACE, f'{agent_type}/{host}'))


def horizon(conf):
    """The moment before which an agent must not have been heard last, if it is to count as up."""
    return db.utcnow() - datetime.timedelta(seconds=conf.agent_down_time)


def candidates(unit, agent_type, load, network=None):
    """Hosts that offer a service, the least loaded first.

    :param load: ``(table, its column with the host)`` that says what a host serves already.
    :param network: the network that must be reachable there.
    """
    table, column = load
    count = sa.select(sa.func.count()).select_from(table).where(column == _hosts.host).scalar_subquery()
    found = unit.all(sa.select(_hosts.host, _hosts.bridge_mappings).join(models.agents, _agents.host == _hosts.host).where(
        _agents.agent_type == agent_type, _agents.admin_state_up, _hosts.last_seen_at > horizon(unit.conf)).order_by(
            count, _hosts.host))
    if network is not None and network['network_type'] == 'flat':
        found = [row for row in found if network['physical_network'] in (row['bridge_mappings'] or {})]
    return [row['host'] for row in found]


def create_port(unit, values):
    """A port as a user of the API makes it."""
    row = ports.create(unit, values)
    if row['fixed_ips'] and not ports.is_trusted(row['device_owner']):
        schedule_dhcp(unit, row['network_id'])
    return row


def schedule_dhcp(unit, network_id):
    """See to it that as many hosts as there should be serve DHCP to a network."""
    placed = unit.conn.scalars(sa.select(_dhcp.c.host).where(_dhcp.c.network_id == network_id)).all()
    missing = unit.conf.dhcp_agents_per_network - len(placed)
    if missing <= 0:
        return
    network = unit.memo.get(('network', network_id)) or unit.one(
        sa.select(models.networks).where(models.networks.c.id == network_id)
    )
    if not any(subnet['enable_dhcp'] for subnet in ports.subnets_of(unit, network)):
        return
    hosts = [host for host in candidates(unit, DHCP_AGENT, (_dhcp, _dhcp.c.host), network) if host not in placed]
    for host in hosts[:missing]:
        place_dhcp(unit, network, host)


def schedule_dhcp_of_used(unit, network_id):
    """The same for a network whose subnets changed: if there are ports on it."""
    if unit.conn.execute(sa.select(_ports.c.id).where(_ports.c.network_id == network_id,
                                                      _ports.c.device_owner.not_like('network:%')).limit(1)).first():
        unit.memo.pop(('subnets', network_id), None)
        unit.memo.pop(('network', network_id), None)
        schedule_dhcp(unit, network_id)


def place_dhcp(unit, network, host):
    """Have ``host`` serve DHCP to a network: a port for the service, with an address on each subnet that has DHCP."""
    subnets = [subnet for subnet in ports.subnets_of(unit, network) if subnet['enable_dhcp']]
    unit.memo['network', network['id']] = network
    fixed = []
    for subnet in subnets:
        if addresses.is_automatic(subnet) or _has_room(unit, subnet['id']):
            fixed.append({'subnet_id': subnet['id']})
    row = ports.create(unit, {
        'network_id': network['id'], 'project_id': network['project_id'], 'device_owner': ports.DHCP, 'host': host,
        'device_id': f"dhcp{agent_id(host, DHCP_AGENT)}-{network['id']}", 'fixed_ips': fixed}, count=False)
    unit.insert(_dhcp, {'network_id': network['id'], 'host': host, 'port_id': row['id']})
    unit.moved(host)
    ports.network_changed(unit, network['id'], revise=False)
    return row


def _has_room(unit, subnet_id):
    ranges = models.free_ranges.c
    return unit.conn.execute(sa.select(ranges.id).where(ranges.subnet_id == subnet_id).limit(1)).first() is not None


def unplace_dhcp(unit, network_id, host):
    """Have ``host`` serve DHCP to a network no longer. :returns: False if it did not."""
    placed = unit.one(sa.select(_dhcp).where(_dhcp.c.network_id == network_id, _dhcp.c.host == host))
    if placed is None:
        return False
    unit.delete(_dhcp, _dhcp.c.network_id == network_id, _dhcp.c.host == host)
    if placed['port_id']:
        ports.remove(unit, unit.all(sa.select(_ports).where(_ports.c.id == placed['port_id'])))
    unit.moved(host)
    ports.network_changed(unit, network_id, revise=False)
    return True


def _services(unit, network_id):
    return unit.all(sa.select(_ports).join(_dhcp, _dhcp.c.port_id == _ports.c.id).where(_dhcp.c.network_id == network_id))


def extend_dhcp(unit, network_id, subnet):
    """Give the DHCP services of a network an address on one more subnet."""
    unit.memo.pop(('subnets', network_id), None)
    for row in _services(unit, network_id):
        if any(ip['subnet_id'] == subnet['id'] for ip in row['fixed_ips']):
            continue
        try:
            ports.update(unit, row, {'fixed_ips': [*row['fixed_ips'], {'subnet_id': subnet['id']}]})
        except errors.Conflict:
            continue        # its pool is used up; its guests are served from another address of the service


def shrink_dhcp(unit, network_id, subnet_id):
    """Take the addresses of the DHCP services of a network on one subnet away."""
    for row in _services(unit, network_id):
        left = [ip for ip in row['fixed_ips'] if ip['subnet_id'] != subnet_id]
        if not left:
            forget_dhcp_port(unit, row)
        elif len(left) < len(row['fixed_ips']):
            ports.set_addresses(unit, row, left)


def forget_dhcp_port(unit, row):
    """A port of a DHCP service is of no use any more: it goes, and the service with it."""
    placed = unit.conn.scalar(sa.select(_dhcp.c.host).where(_dhcp.c.port_id == row['id']))
    if placed is None:
        ports.remove(unit, [row])
    else:
        unplace_dhcp(unit, row['network_id'], placed)


def schedule_router(unit, router):
    """Place a router that is not placed yet. :returns: its host, empty where none is up."""
    if router['host']:
        return router['host']
    network = None
    if router['gateway_network_id']:
        network = unit.one(sa.select(models.networks).where(models.networks.c.id == router['gateway_network_id']))
    hosts = candidates(unit, L3_AGENT, (_routers, _routers.c.host), network)
    if not hosts:
        return ''
    place_router(unit, router, hosts[0])
    return hosts[0]


def place_router(unit, router, host):
    """Move a router, with its ports, to ``host`` (empty: to none)."""
    if router['host'] == host:
        return
    unit.update(_routers, router['id'], {'host': host, 'generation': _routers.c.generation + 1}, revise=False)
    for row in unit.all(
        sa.select(_ports).where(_ports.c.device_id == router['id'], _ports.c.device_owner.in_(ports.ROUTER_OWNERS))
    ):
        ports.update(unit, row, {'host': host})
    # Nothing answers on them until the agent of the new host says so.
    for floating_id in unit.conn.scalars(sa.select(_floating.c.id).where(
            _floating.c.router_id == router['id'], _floating.c.status != 'DOWN')).all():
        unit.update(_floating, floating_id, {'status': 'DOWN'}, revise=False)
    unit.moved(router['host'], host)
    unit.touch_router(router['id'])
