"""Moves of servers: the rows of ``server_migrations``, and what they hold in Placement meanwhile.

While a server moves, its own consumer holds what it will need, and the move's uuid holds what it had.
"""
import sqlalchemy as sa

from kodiak.common import db
from kodiak.compute import placement
from kodiak.compute.models import migrations
from kodiak.compute.placement import claims

#: States of moves that hold nothing any more.
CLOSED = ('confirmed', 'reverted', 'error', 'done', 'failed', 'cancelled', 'completed')


def begin(connection, row, context, kind, new_flavor=None):
    """Note a move of a locked server; its row as a dictionary."""
    now = db.utcnow()
    values = {'uuid': db.new_id(), 'server_uuid': row['uuid'], 'project_id': context.project_id, 'user_id': context.user_id,
              'kind': kind,
              'status': 'pre-migrating', 'source': row['host'], 'source_node': row['node'], 'dest': None, 'dest_node': None,
              'old_flavor': row['flavor'], 'new_flavor': new_flavor or row['flavor'], 'old_state': row['vm_state'],
              'created_at': now, 'updated_at': now}
    values['id'] = connection.execute(migrations.insert(), values).inserted_primary_key[0]
    return values


def get(connection, uuid):
    """A move by its uuid."""
    return db.one(connection, sa.select(migrations).where(migrations.c.uuid == uuid))


def unfinished(connection, server_uuid):
    """The move of a server that waits to be confirmed or reverted, or None."""
    return db.one(connection, sa.select(migrations).where(
        migrations.c.server_uuid == server_uuid, migrations.c.status == 'finished').order_by(migrations.c.id.desc()))


def put(connection, uuid, **changes):
    """Write changes of a move."""
    connection.execute(migrations.update().where(migrations.c.uuid == uuid).values(updated_at=db.utcnow(), **changes))


def hold(connection, move, row, provider, wanted):
    """Claim ``wanted`` on a provider for a server, and let the move hold what the server had."""
    had = placement.allocations(connection, row['uuid'])
    owner = {'project_id': row['project_id'], 'user_id': row['user_id']}
    claims.replace(connection, {
        move['uuid']: {'allocations': had, 'consumer_type': 'MIGRATION', **owner},
        row['uuid']: {'allocations': {provider: wanted}, 'consumer_type': 'INSTANCE', **owner}})


def give_back(connection, move, row):
    """Give a server what the move held for it, in place of what it has."""
    had = placement.allocations(connection, move['uuid'])
    if not had:
        return
    owner = {'project_id': row['project_id'], 'user_id': row['user_id']}
    claims.replace(connection, {
        move['uuid']: {'allocations': {}, **owner},
        row['uuid']: {'allocations': had, 'consumer_type': 'INSTANCE', **owner}})


def close(connection, server_uuid):
    """End every move of a server that is being deleted."""
    for uuid in connection.scalars(sa.select(migrations.c.uuid).where(
            migrations.c.server_uuid == server_uuid, migrations.c.status.not_in(CLOSED))).all():
        placement.release(connection, uuid)
        put(connection, uuid, status='confirmed')
