"""Servers that were deleted long ago: their rows stay, for reports of usage and records of actions, until an operator purges."""
import datetime

import sqlalchemy as sa

from kodiak.common import db
from kodiak.compute.models import (
    action_events,
    actions,
    console_tokens,
    guests,
    migrations,
    server_tags,
    servers,
    specs,
)

BATCH = 100
#: What belongs to a server, by the column that names it.
PARTS = (server_tags, specs, console_tokens, migrations, actions)


def purge(database, days, dry_run=False):
    """Remove what is left of servers that were deleted more than ``days`` days ago. :returns: how many servers.

    A server stays whose guest a host still has to remove.
    """
    before = db.utcnow() - datetime.timedelta(days=days)
    gone = sa.select(servers.c.uuid).where(
        servers.c.deleted.is_(True), servers.c.deleted_at < before,
        servers.c.uuid.not_in(sa.select(guests.c.server_uuid))).order_by(servers.c.id)
    if dry_run:
        with database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(gone.subquery()))
    count = 0
    while True:
        with database.read() as connection:
            uuids = list(connection.scalars(gone.limit(BATCH)))
        if not uuids:
            return count
        database.transact(_remove, uuids)
        count += len(uuids)


def _remove(connection, uuids):
    of_them = sa.select(actions.c.id).where(actions.c.server_uuid.in_(uuids))
    connection.execute(action_events.delete().where(action_events.c.action_id.in_(of_them)))
    for table in PARTS:
        connection.execute(table.delete().where(table.c.server_uuid.in_(uuids)))
    connection.execute(servers.delete().where(servers.c.uuid.in_(uuids)))
