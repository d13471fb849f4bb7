"""The record of what was done to servers: actions, as users asked for them, and events, as processes did them."""
import sqlalchemy as sa

from kodiak.common import context as contexts
from kodiak.common import db, outbox
from kodiak.compute import notices, store
from kodiak.compute.models import action_events, actions

_open = sa.select(action_events.c.id, actions.c.id.label('action_id'), actions.c.action, actions.c.request_id, actions.c.user_id,
                  actions.c.project_id).join(
    actions, actions.c.id == action_events.c.action_id).where(
        actions.c.server_uuid == sa.bindparam('uuid'), action_events.c.finished_at.is_(None))


def begin(connection, uuid, action, ctx, event=None, host=None):
    """Note that somebody asked for an action; ``event`` names what compute does about it."""
    now = db.utcnow()
    found = connection.scalar(sa.select(actions.c.id).where(
        actions.c.server_uuid == uuid, actions.c.request_id == ctx.request_id))
    if found is None:
        found = connection.execute(actions.insert(), {
            'server_uuid': uuid, 'action': action, 'request_id': ctx.request_id, 'user_id': ctx.user_id,
            'project_id': ctx.project_id, 'started_at': now, 'updated_at': now}).inserted_primary_key[0]
    if event is not None:
        connection.execute(action_events.insert(), {'action_id': found, 'event': event, 'started_at': now, 'host': host})
        if outbox.announced(connection):
            notices.action(connection, store.get(connection, uuid), action, 'start', ctx)
    return found


def finish(connection, uuid, error=None, host=None):
    """Note the end of what was being done to a server.

    :param error: the sentence that says why it failed, or None.
    """
    rows = connection.execute(_open, {'uuid': uuid}).all()
    if not rows:
        return
    now = db.utcnow()
    changes = {'finished_at': now, 'result': 'Error' if error else 'Success', 'details': error}
    if host is not None:
        changes['host'] = host
    connection.execute(action_events.update().where(action_events.c.id.in_([row.id for row in rows])).values(changes))
    connection.execute(actions.update().where(actions.c.id.in_({row.action_id for row in rows})).values(
        updated_at=now, **({'message': error[:255]} if error else {})))
    if outbox.announced(connection):
        server = store.get(connection, uuid)
        for row in rows:
            asker = contexts.Context(user_id=row.user_id, project_id=row.project_id, request_id=row.request_id, overwrite=False)
            notices.action(connection, server, row.action, 'error' if error else 'end', asker, error)


def note(connection, row, action, message=None):
    """Note something that happened by itself."""
    ctx = contexts.background()
    begin(connection, row['uuid'], action, ctx)
    if message:
        connection.execute(actions.update().where(
            actions.c.server_uuid == row['uuid'], actions.c.request_id == ctx.request_id).values(message=message))
