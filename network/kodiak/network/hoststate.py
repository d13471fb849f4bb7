"""What a host should have: which documents, since which generation, and their contents.

A host is subscribed to scopes of the journal (``models.hosts``). Which ones follows from what is bound to it and placed on it,
and is worked out again when that changed (``hosts.changes``). What the host has to be told is then: everything of
scopes that are new to it, what the journal says of the others, and nothing else, however large the rest of the cloud is.
"""
import sqlalchemy as sa

from kodiak.common import db

from . import documents, models, ports
from .unit import KINDS, next_generation

_hosts = models.hosts
_subscriptions = models.subscriptions
_journal = models.journal.c
_ports = models.ports.c
_rules = models.security_rules.c
FLOOR = 'journal-floor'         # the counter of the generation up to which the journal has been cleared


def configurations(row):
    """What Neutron's ``configurations`` of an agent say, of a row of ``hosts``."""
    return {'driver': row['driver'], 'tunneling_ip': row['tunnel_ip'], 'bridge_mappings': row['bridge_mappings'] or {},
            'report_interval': row['interval'], 'tunnel_types': ['vxlan'] if row['tunnel_ip'] else []}


def current(conn):
    """The newest generation."""
    return conn.scalar(sa.select(models.counters.c.value).where(models.counters.c.name == 'journal')) or 0


def scopes(conn, host):
    """The scopes that a host should be subscribed to, as a set."""
    found = {f'host:{host}'}
    owners = {}
    bindings = models.port_bindings.c
    here = sa.or_(sa.and_(_ports.host == host, _ports.vif_type == 'tap'),
                  _ports.id.in_(sa.select(bindings.port_id).where(bindings.host == host)))
    for row in conn.execute(sa.select(_ports.network_id, _ports.device_owner).distinct().where(here)):
        owners.setdefault(row.network_id, set()).add(row.device_owner)
    for network_id, kinds in owners.items():
        found.add(f'network:{network_id}')
        if kinds != {ports.ROUTER_GATEWAY}:
            found.add(f'members:{network_id}')
    bound = models.port_groups.c
    groups = conn.scalars(sa.select(bound.security_group_id).distinct().join(models.ports, _ports.id == bound.port_id)
                          .where(here)).all()
    found.update(f'group:{group}' for group in groups)
    if groups:
        for row in conn.execute(sa.select(_rules.remote_group_id, _rules.remote_address_group_id).distinct().where(
                _rules.security_group_id.in_(groups),
                sa.or_(_rules.remote_group_id.is_not(None), _rules.remote_address_group_id.is_not(None)))):
            found.add(f'set:{row.remote_group_id or row.remote_address_group_id}')
    found.update(f'router:{router}' for router in conn.scalars(sa.select(models.routers.c.id).where(models.routers.c.host == host)))
    return found


def subscribe(conn, host):
    """Bring the subscriptions of a host up to date, in a write transaction."""
    row = conn.execute(sa.select(_hosts.c.changes, _hosts.c.subscribed).where(_hosts.c.host == host).with_for_update()).first()
    if row is None or row.changes == row.subscribed:
        return
    have = {one.scope: one.ended for one in conn.execute(sa.select(_subscriptions).where(_subscriptions.c.host == host))}
    wanted = scopes(conn, host)
    new = [scope for scope in wanted if have.get(scope, True)]
    gone = [scope for scope, ended in have.items() if not ended and scope not in wanted]
    if new or gone:
        generation = next_generation(conn)
        again = [scope for scope in new if scope in have]
        fresh = [scope for scope in new if scope not in have]
        if fresh:
            conn.execute(sa.insert(_subscriptions), [
                {'host': host, 'scope': scope, 'generation': generation, 'ended': False} for scope in fresh])
        for names, ended in ((again, False), (gone, True)):
            if names:
                conn.execute(sa.update(_subscriptions).where(_subscriptions.c.host == host, _subscriptions.c.scope.in_(names))
                             .values(generation=generation, ended=ended))
    conn.execute(sa.update(_hosts).where(_hosts.c.host == host).values(subscribed=row.changes))


def answer(app, host, since):
    """The :class:`~kodiak.network.agent.state.Answer` to a host's question, as a dictionary."""
    with app.db.read() as conn:
        row = conn.execute(sa.select(_hosts.c.changes, _hosts.c.subscribed).where(_hosts.c.host == host)).first()
        generation = current(conn)
    if row is not None and row.changes != row.subscribed:
        app.db.transact(subscribe, host)
    elif since is not None and since == generation:
        return {'generation': generation, 'full': False, 'set': {}, 'gone': {}}
    with app.db.read() as conn:
        # The generation is read first: what is written while this reads is told now or the next time, never missed.
        generation = current(conn)
        floor = conn.scalar(sa.select(models.counters.c.value).where(models.counters.c.name == FLOOR)) or 0
        listed = conn.execute(sa.select(_subscriptions).where(_subscriptions.c.host == host)).all()
        active = {one.scope for one in listed if not one.ended}
        if since is None or since > generation or since < floor:
            return {'generation': generation, 'full': True, 'set': documents.of_scopes(conn, host, active, active), 'gone': {}}
        return {'generation': generation, 'full': False, **_changes(conn, host, since, generation, listed, active)}


def _changes(conn, host, since, generation, listed, active):
    fresh = {one.scope for one in listed if not one.ended and one.generation > since}
    ended = {one.scope for one in listed if one.ended and one.generation > since}
    concerned = active | ended
    items = {kind: set() for kind in KINDS}
    for row in conn.execute(sa.select(_journal.kind, _journal.item, _journal.scope).distinct().join(
            _subscriptions, sa.and_(_subscriptions.c.scope == _journal.scope, _subscriptions.c.host == host)).where(
            _journal.generation > since, _journal.generation <= generation)):
        if row.scope in concerned:
            items[row.kind].add(row.item)
    for scope in ended:
        for kind, ids in documents.ids_of_scope(conn, scope).items():
            items[kind].update(ids)
    found = documents.of_scopes(conn, host, fresh, active)
    gone = {}
    for kind, ids in items.items():
        there = {document['id'] for document in found.get(kind, ())}
        missing = ids - there
        if missing:
            more = documents.of_items(conn, host, kind, missing, active)
            if more:
                found.setdefault(kind, []).extend(more)
            absent = missing - {document['id'] for document in more}
            if absent:
                gone[kind] = sorted(absent)
    return {'set': {kind: some for kind, some in found.items() if some}, 'gone': gone}


def clear(conn, before):
    """Forget what the journal says of the time ``before`` (a datetime); agents that slept longer are told everything."""
    newest = conn.scalar(sa.select(sa.func.max(_journal.generation)).where(_journal.created_at < before))
    if newest is None:
        return
    conn.execute(sa.delete(models.journal).where(_journal.generation <= newest))
    conn.execute(sa.delete(_subscriptions).where(_subscriptions.c.ended, _subscriptions.c.generation <= newest))
    db.upsert(conn, models.counters, {'name': FLOOR, 'value': newest}, ['name'])
