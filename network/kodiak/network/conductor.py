"""``kodiak-network-conductor``: answers agents, takes their reports, and looks after what nobody asked for.

Several conductors may run: what they do is done in transactions that look first.
"""
import datetime
import logging

import sqlalchemy as sa

from kodiak.common import db, errors, heartbeat, outbox, periodic
from kodiak.common.context import background

from . import hints, hoststate, models, placement, ports, rpc, unit

LOG = logging.getLogger(__name__)
INTERVAL = 15.0                 # seconds between two looks at what nobody asked for
BEAT = 5.0                      # an agent's life is written down no more often than this
KEPT = datetime.timedelta(hours=24)     # how long the journal is kept
BATCH = 100

_hosts = models.hosts
_agents = models.agents
_ports = models.ports
_routers = models.routers
_dhcp = models.dhcp_placements
_floating = models.floatingips


class Handlers:
    """What agents ask (``rpc.CONDUCTOR``)."""

    def __init__(self, app):
        self.app = app
        self._beats = {}

    def host_state(self, context, host, since, agent):
        """What ``host`` should have since a generation; see ``kodiak.network.agent.state``."""
        facts = {name: agent.get(name) for name in ('tunnel_ip', 'driver', 'bridge_mappings', 'interval', 'version', 'started_at')}
        now = db.utcnow()
        seen, last = self._beats.get(host, (None, None))
        if seen != facts or since is None or (now - last).total_seconds() >= BEAT:
            unit.run(self.app, background(context.request_id), beat, host, facts)
            self._beats[host] = (facts, now)
        return hoststate.answer(self.app, host, since)

    def report(self, context, host, results):
        """What came of documents."""
        unit.run(self.app, background(context.request_id), take_report, host, results)


def beat(one, host, facts):
    """Write down that the agent of a host lives, and what it says of itself."""
    now = db.utcnow()
    started = db.parse_time(facts['started_at']) if facts['started_at'] else None
    values = {'tunnel_ip': facts['tunnel_ip'], 'driver': facts['driver'] or '', 'bridge_mappings': facts['bridge_mappings'] or {},
              'interval': facts['interval'] or 15, 'version': facts['version'] or '', 'started_at': started, 'last_seen_at': now}
    row = one.one(sa.select(_hosts).where(_hosts.c.host == host).with_for_update())
    if row is None:
        one.insert(_hosts, {'host': host, **values, 'created_at': now, 'changes': 1, 'subscribed': 0})
    else:
        one.conn.execute(sa.update(_hosts).where(_hosts.c.host == host).values(values))
    if row is None or row['started_at'] != started:
        known = set(one.conn.scalars(sa.select(_agents.c.agent_type).where(_agents.c.host == host)))
        one.insert(_agents, [{'id': placement.agent_id(host, kind), 'host': host, 'agent_type': kind, 'admin_state_up': True}
                             for kind in placement.AGENT_TYPES if kind not in known])
        for port in one.all(sa.select(_ports).where(_ports.c.host == host, _ports.c.vif_type == 'binding_failed')):
            ports.bind_again(one, port)
    if row is not None and row['tunnel_ip'] != facts['tunnel_ip']:
        for port in one.conn.execute(sa.select(_ports.c.id, _ports.c.network_id).where(_ports.c.host == host)):
            one.touch_member(port.id, port.network_id)
    heartbeat.report(
        one.conn, host, 'kodiak-network-agent', rpc.AGENT_TOPIC, started_at=started, version=facts['version'], details=facts
    )


def take_report(one, host, results):
    """Write down what came of documents, as far as they are still the ones that were meant."""
    by = {}
    for result in results:
        by.setdefault(result['kind'], {})[result['id']] = result
    if 'ports' in by:
        _ports_done(one, host, by['ports'])
    if 'networks' in by:
        _networks_done(one, host, by['networks'])
    if 'routers' in by:
        _routers_done(one, host, by['routers'])
    if 'floating_ips' in by:
        _floating_done(one, host, by['floating_ips'])


def _current(rows, results):
    return [(row, results[row['id']].get('error')) for row in rows if row['generation'] == results[row['id']]['generation']]


def _ports_done(one, host, results):
    rows = one.all(sa.select(_ports).where(_ports.c.id.in_(results), _ports.c.host == host))
    for row, error in _current(rows, results):
        status = 'ACTIVE' if error is None and row['admin_state_up'] else 'DOWN'
        fault = error[:1024] if error else None
        if row['status'] == status and row['fault'] == fault and (error or row['wire_by'] is None):
            continue
        values = {'status': status, 'fault': fault}
        if error is None:
            values['wire_by'] = None
        else:
            LOG.warning('Port %s is not wired on %s: %s', row['id'], host, error)
        one.update(_ports, row['id'], values, revise=row['status'] != status)
        if status == 'ACTIVE' and row['status'] != 'ACTIVE':
            one.notify_compute('network-vif-plugged', row)


def _networks_done(one, host, results):
    table = models.networks.c
    rows = one.all(sa.select(table.id, table.generation).where(table.id.in_(results)))
    good = [row['id'] for row, error in _current(rows, results) if error is None]
    if good:
        one.conn.execute(sa.update(_ports).where(
            _ports.c.network_id.in_(good), _ports.c.host == host, _ports.c.device_owner == ports.DHCP, _ports.c.status != 'ACTIVE')
            .values(status='ACTIVE'))


def _routers_done(one, host, results):
    rows = one.all(sa.select(_routers).where(_routers.c.id.in_(results), _routers.c.host == host))
    for row, error in _current(rows, results):
        status = 'ERROR' if error else 'ACTIVE'
        if error:
            LOG.warning('Router %s is not in order on %s: %s', row['id'], host, error)
        else:
            one.conn.execute(sa.update(_ports).where(
                _ports.c.device_id == row['id'], _ports.c.device_owner.in_(ports.ROUTER_OWNERS), _ports.c.status != 'ACTIVE')
                .values(status='ACTIVE'))
        if row['status'] != status:
            one.update(_routers, row['id'], {'status': status})


def _floating_done(one, host, results):
    rows = one.all(sa.select(_floating).join(_routers, _routers.c.id == _floating.c.router_id).where(
        _floating.c.id.in_(results), _routers.c.host == host))
    for row, error in _current(rows, results):
        status = 'ERROR' if error else 'ACTIVE'
        if row['status'] != status:
            one.update(_floating, row['id'], {'status': status})


class Housekeeper(periodic.Periodic):
    """Looks, every so often, for what is not as it should be though nobody asks: a thread."""

    def __init__(self, app):
        super().__init__('housekeeper', self.run_once, INTERVAL)
        self.app = app

    def run_once(self):
        """Look at everything once, in the calling thread."""
        for task in (self._late_ports, self._leave_dead_hosts, self._place_what_is_not, self._clear_journal):
            try:
                task()
            except Exception:
                LOG.exception('%s failed; it is tried again', task.__name__)

    def _run(self, function, *args):
        return unit.run(self.app, background(), function, *args)

    def _late_ports(self):
        with self.app.db.read() as conn:
            late = conn.scalars(sa.select(_ports.c.id).where(_ports.c.wire_by < db.utcnow()).limit(BATCH)).all()
        for port_id in late:
            self._run(_give_up, port_id)

    def _leave_dead_hosts(self):
        horizon = placement.horizon(self.app.conf.network)
        with self.app.db.read() as conn:
            up = set(conn.scalars(sa.select(_hosts.c.host).where(_hosts.c.last_seen_at > horizon)))
            if not up:
                return
            off = {(row.host, row.agent_type) for row in conn.execute(
                sa.select(_agents.c.host, _agents.c.agent_type).where(_agents.c.admin_state_up.is_(False)))}
            routers = [row for row in conn.execute(sa.select(_routers.c.id, _routers.c.host).where(_routers.c.host != ''))
                       if row.host not in up or (row.host, placement.L3_AGENT) in off]
            served = [row for row in conn.execute(sa.select(_dhcp.c.network_id, _dhcp.c.host))
                      if row.host not in up or (row.host, placement.DHCP_AGENT) in off]
        for row in routers[:BATCH]:
            self._run(_move_router, row.id, row.host)
        for row in served[:BATCH]:
            self._run(_move_dhcp, row.network_id, row.host)

    def _place_what_is_not(self):
        with self.app.db.read() as conn:
            routers = conn.scalars(sa.select(_routers.c.id).where(_routers.c.host == '', sa.exists().where(
                _ports.c.device_id == _routers.c.id, _ports.c.device_owner.in_(ports.ROUTER_OWNERS))).limit(BATCH)).all()
            subnets = models.subnets.c
            networks = conn.scalars(sa.select(_ports.c.network_id).distinct().where(
                _ports.c.device_owner.not_like('network:%'), ~sa.exists().where(_dhcp.c.network_id == _ports.c.network_id),
                sa.exists().where(subnets.network_id == _ports.c.network_id, subnets.enable_dhcp)).limit(BATCH)).all()
        for router_id in routers:
            self._run(_place_router, router_id)
        for network_id in networks:
            self._run(placement.schedule_dhcp, network_id)

    def _clear_journal(self):
        self.app.db.transact(hoststate.clear, db.utcnow() - KEPT)


def _give_up(one, port_id):
    row = one.one(sa.select(_ports).where(_ports.c.id == port_id, _ports.c.wire_by < db.utcnow()).with_for_update())
    if row is None:
        return
    values = {'wire_by': None}
    if row['status'] != 'ACTIVE':
        values.update(status='ERROR', fault=row['fault'] or f"The host {row['host']} did not report the port wired in time.")
        LOG.warning('Port %s failed: %s', port_id, values['fault'])
        one.notify_compute('network-vif-plugged', row, status='failed')
    one.update(_ports, port_id, values)


def _move_router(one, router_id, host):
    row = one.one(sa.select(_routers).where(_routers.c.id == router_id, _routers.c.host == host).with_for_update())
    if row is not None and placement.schedule_router(one, {**row, 'host': ''}):
        LOG.info('Router %s is moved away from %s, whose agent is down or switched off', router_id, host)


def _place_router(one, router_id):
    row = one.one(sa.select(_routers).where(_routers.c.id == router_id, _routers.c.host == '').with_for_update())
    if row is not None:
        placement.schedule_router(one, row)


def _move_dhcp(one, network_id, host):
    network = one.one(sa.select(models.networks).where(models.networks.c.id == network_id).with_for_update())
    others = placement.candidates(one, placement.DHCP_AGENT, (_dhcp, _dhcp.c.host), network) if network else []
    placed = one.conn.scalars(sa.select(_dhcp.c.host).where(_dhcp.c.network_id == network_id)).all()
    if host in placed and any(other not in placed for other in others):
        placement.unplace_dhcp(one, network_id, host)
        placement.schedule_dhcp(one, network_id)


class ComputeSink:
    """Tells compute of events of guests' ports (``POST /os-server-external-events``)."""

    def __init__(self, app):
        self.app = app

    def __call__(self, message):
        """Deliver one message of the outbox. A guest that compute does not know needs to hear nothing."""
        event = {name: value for name, value in message['payload'].items() if value is not None}
        try:
            self.app.clients.compute.post('/v2.1/os-server-external-events', {'events': [event]}, context=message['context'],
                                          as_service=True)
        except (errors.NotFound, errors.BadRequest) as error:
            LOG.info('compute does not take %s: %s', event, error)


def build(app):
    """Make the parts of a conductor process."""
    sinks = {'compute.': ComputeSink(app)}
    if app.conf.notifications.topics:
        sinks[''] = outbox.Notifier(app.conf, f'network.{app.host}')
    app.background += [outbox.Publisher(app, sinks), Housekeeper(app), hints.Hinter(app)]
    app.bus.serve(rpc.CONDUCTOR, Handlers(app), rpc.CONDUCTOR_TOPIC)
