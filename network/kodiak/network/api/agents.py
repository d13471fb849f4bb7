"""Agents: the services that the hosts' agent processes offer, under the names that Neutron gives them."""
import sqlalchemy as sa

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import faults, hoststate, models, placement, unit

from . import fields

routes = api.Routes('agents')
_agents = models.agents.c
_hosts = models.hosts.c
TOPICS = {placement.L2_AGENT: 'N/A', placement.DHCP_AGENT: 'dhcp_agent', placement.L3_AGENT: 'l3_agent',
          placement.METADATA_AGENT: 'N/A'}
CHANGE = schema.wrap(
    'agent', schema.obj({'admin_state_up': {'type': ['boolean', 'string', 'integer']}, 'description': schema.TEXT})
)


def _text(moment):
    return None if moment is None else moment.isoformat(sep=' ', timespec='seconds')


def view(row, horizon):
    """An agent as the API shows it."""
    kind = row['agent_type']
    return {
        'id': row['id'],
        'agent_type': kind,
        'binary': placement.AGENT_TYPES[kind],
        'topic': TOPICS[kind],
        'host': row['host'],
        'admin_state_up': row['admin_state_up'],
        'alive': bool(row['last_seen_at'] and row['last_seen_at'] > horizon),
        'created_at': _text(row['created_at']),
        'started_at': _text(row['started_at']),
        'heartbeat_timestamp': _text(row['last_seen_at']),
        'description': row['description'],
        'availability_zone': 'nova' if TOPICS[kind] != 'N/A' else None,
        'resources_synced': None,
        'configurations': hoststate.configurations(row),
    }


def select():
    """The agents with what is known of their hosts."""
    return sa.select(models.agents, _hosts.tunnel_ip, _hosts.driver, _hosts.bridge_mappings, _hosts.interval, _hosts.started_at,
                     _hosts.last_seen_at, _hosts.created_at).join(models.hosts, _hosts.host == _agents.host)


FILTERS = {'host': _agents.host, 'id': _agents.id, 'admin_state_up': _agents.admin_state_up,
           'description': _agents.description}


RULES = [('get_agent', policy.ADMIN, 'Show an agent, and see it in lists')]


@routes.get('/agents', rule='get_agents', default=policy.READER, summary='List agents')
def list_agents(req):
    if not req.allows('get_agent'):
        return {'agents': []}
    query, horizon = select().order_by(_agents.host, _agents.agent_type), placement.horizon(req.app.conf.network)
    after = {}
    for name, value in req.query.items():
        values = value if isinstance(value, list) else [value]
        if name == 'admin_state_up':
            query = query.where(_agents.admin_state_up.is_(schema.boolean(values[0], name)))
        elif name == 'agent_type':
            # Clients ask for 'DHCP Agent' and for 'DHCP agent'.
            query = query.where(sa.func.lower(_agents.agent_type).in_([one.lower() for one in values]))
        elif name in FILTERS:
            query = query.where(FILTERS[name].in_(values))
        elif name == 'alive':
            after['alive'] = schema.boolean(values[0], name)
        elif name in ('binary', 'topic'):
            after[name] = values[0]
        elif name not in ('fields', 'availability_zone', 'limit', 'marker', 'sort_key', 'sort_dir', 'page_reverse'):
            raise fields.bad(name, value, 'is invalid attribute for filtering')
    asked = req.query.get('fields')
    asked = None if asked is None else asked if isinstance(asked, list) else [asked]
    with req.db.read() as conn:
        found = [view(row, horizon) for row in conn.execute(query).mappings()]
    found = [one for one in found if all(one[name] == value for name, value in after.items())]
    return {'agents': [{name: one[name] for name in asked if name in one} for one in found] if asked else found}


def load(req, id):
    """An agent's row."""
    with req.db.read() as conn:
        row = fields.db.one(conn, select().where(_agents.id == id))
    if row is None:
        raise faults.not_found('Agent', id)
    return row


@routes.get('/agents/{id}', rule='get_agent', default=policy.ADMIN, load=load, summary='Show an agent')
def show_agent(req, id):
    return {'agent': view(req.target, placement.horizon(req.app.conf.network))}


@routes.put('/agents/{id}', rule='update_agent', default=policy.ADMIN, load=load, body=CHANGE, summary='Change an agent')
def update_agent(req, id):
    values = dict(req.body['agent'])
    if 'admin_state_up' in values:
        values['admin_state_up'] = fields.BOOLEAN.convert(values['admin_state_up'], 'admin_state_up')
    with req.db.write() as conn:
        if values:
            conn.execute(sa.update(models.agents).where(_agents.id == id).values(values))
    return {'agent': view(load(req, id), placement.horizon(req.app.conf.network))}


@routes.delete('/agents/{id}', rule='delete_agent', default=policy.ADMIN, load=load, summary='Forget an agent')
def delete_agent(req, id):
    with req.db.write() as conn:
        conn.execute(sa.delete(models.agents).where(_agents.id == id))


def _of_type(req, id, kind):
    row = load(req, id)
    if row['agent_type'] != kind:
        raise faults.conflict('InvalidDHCPAgent' if kind == placement.DHCP_AGENT else 'InvalidL3Agent',
                              f'Agent {id} is not a {kind} or has been disabled')
    return row


@routes.get('/agents/{id}/dhcp-networks', rule='get_dhcp-networks', default=policy.ADMIN, load=load,
            summary='List the networks that an agent serves DHCP to')
def dhcp_networks(req, id):
    from . import networks
    placed = models.dhcp_placements.c
    with req.db.read() as conn:
        ids = list(conn.scalars(sa.select(placed.network_id).where(placed.host == req.target['host']).order_by(placed.network_id)))
        return {'networks': networks.NETWORK.fetch(conn, req, ids) if req.target['agent_type'] == placement.DHCP_AGENT else []}


@routes.post('/agents/{id}/dhcp-networks', rule='create_dhcp-network', default=policy.ADMIN, load=load, status=201,
             body=schema.obj({'network_id': schema.STRING}, ['network_id']), summary='Have an agent serve DHCP to a network')
def add_dhcp_network(req, id):
    agent = _of_type(req, id, placement.DHCP_AGENT)

    def add(one):
        network = one.one(sa.select(models.networks).where(models.networks.c.id == req.body['network_id']))
        if network is None:
            raise faults.not_found('Network', req.body['network_id'])
        placed = models.dhcp_placements.c
        if one.one(sa.select(placed.host).where(placed.network_id == network['id'], placed.host == agent['host'])):
            raise faults.conflict('NetworkHostedByDHCPAgent',
                                  f"The network {network['id']} has been already hosted by the DHCP Agent {id}.")
        placement.place_dhcp(one, network, agent['host'])
    unit.run(req.app, req.ctx, add)
    return {}           # clients parse an answer, though there is nothing to say


@routes.delete('/agents/{id}/dhcp-networks/{network_id}', rule='delete_dhcp-network', default=policy.ADMIN,
               load=lambda req, id, network_id: load(req, id), summary='Have an agent serve DHCP to a network no longer')
def remove_dhcp_network(req, id, network_id):
    if not unit.run(req.app, req.ctx, lambda one: placement.unplace_dhcp(one, network_id, req.target['host'])):
        raise faults.conflict('NetworkNotHostedByDhcpAgent', f'The network {network_id} is not hosted by the DHCP agent {id}.')


def _listed(req, condition, horizon):
    with req.db.read() as conn:
        return {'agents': [view(row, horizon) for row in conn.execute(select().where(condition)).mappings()]}


@routes.get('/networks/{network_id}/dhcp-agents', rule='get_dhcp-agents', default=policy.ADMIN,
            summary='List the agents that serve DHCP to a network')
def agents_of_network(req, network_id):
    placed = models.dhcp_placements.c
    return _listed(req, sa.and_(_agents.agent_type == placement.DHCP_AGENT, _agents.host.in_(
        sa.select(placed.host).where(placed.network_id == network_id))), placement.horizon(req.app.conf.network))


@routes.get('/agents/{id}/l3-routers', rule='get_l3-routers', default=policy.ADMIN, load=load,
            summary='List the routers that an agent has')
def l3_routers(req, id):
    from . import routing
    table = models.routers.c
    with req.db.read() as conn:
        ids = list(conn.scalars(sa.select(table.id).where(table.host == req.target['host']).order_by(table.id)))
        return {'routers': routing.ROUTER.fetch(conn, req, ids) if req.target['agent_type'] == placement.L3_AGENT else []}


def _router(one, router_id):
    row = one.one(sa.select(models.routers).where(models.routers.c.id == router_id).with_for_update())
    if row is None:
        raise faults.not_found('Router', router_id)
    return row


@routes.post('/agents/{id}/l3-routers', rule='create_l3-router', default=policy.ADMIN, load=load, status=201,
             body=schema.obj({'router_id': schema.STRING}, ['router_id']), summary='Place a router on the host of an agent')
def add_l3_router(req, id):
    agent = _of_type(req, id, placement.L3_AGENT)

    def add(one):
        router = _router(one, req.body['router_id'])
        if router['host'] and router['host'] != agent['host']:
            raise faults.conflict('RouterHostedByL3Agent', f"The router {router['id']} has been already hosted by the L3 Agent "
                                                           f"{placement.agent_id(router['host'], placement.L3_AGENT)}.")
        placement.place_router(one, router, agent['host'])
    unit.run(req.app, req.ctx, add)
    return {}


@routes.delete('/agents/{id}/l3-routers/{router_id}', rule='delete_l3-router', default=policy.ADMIN,
               load=lambda req, id, router_id: load(req, id), summary='Take a router off the host of an agent')
def remove_l3_router(req, id, router_id):
    def remove(one):
        router = _router(one, router_id)
        if router['host'] != req.target['host']:
            raise faults.conflict('RouterNotHostedByL3Agent', f'The router {router_id} is not hosted by L3 agent {id}.')
        placement.place_router(one, router, '')
    unit.run(req.app, req.ctx, remove)


@routes.get(
    '/routers/{router_id}/l3-agents', rule='get_l3-agents', default=policy.ADMIN, summary='List the agents that have a router'
)
def agents_of_router(req, router_id):
    table = models.routers.c
    return _listed(req, sa.and_(_agents.agent_type == placement.L3_AGENT, _agents.host.in_(
        sa.select(table.host).where(table.id == router_id))), placement.horizon(req.app.conf.network))


