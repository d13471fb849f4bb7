"""Tasks: what users read of the imports that run for them. The work itself is a saga's (:mod:`kodiak.image.imports`)."""
import datetime

import sqlalchemy as sa

from kodiak.common import db

from . import notices
from .models import tasks

#: Hours that a finished task can still be read.
KEEP = 48


def add(connection, context, kind, image_id, given):
    """Insert a task; returns its row. ``given``: its ``input``."""
    now = db.utcnow()
    row = {'id': db.new_id(), 'type': kind, 'status': 'pending', 'owner': context.project_id, 'user_id': context.user_id,
           'request_id': context.request_id, 'image_id': image_id, 'input': given, 'result': None, 'message': '',
           'expires_at': None, 'created_at': now, 'updated_at': now}
    connection.execute(sa.insert(tasks), row)
    notices.task(connection, 'create', row)
    return row


def update(connection, task_id, **changes):
    """Change a task that has not ended. :returns: whether there was such a task."""
    return connection.execute(sa.update(tasks).where(tasks.c.id == task_id, tasks.c.status.in_(('pending', 'processing')))
                              .values(updated_at=db.utcnow(), **changes)).rowcount > 0


def begin(connection, task_id):
    """Note that somebody works on a task."""
    if update(connection, task_id, status='processing'):
        _tell(connection, task_id, 'run', 'processing')


def end(connection, task_id, status, message='', result=None):
    """End a task: ``success`` or ``failure``."""
    if update(connection, task_id, status=status, message=message, result=result,
              expires_at=db.utcnow() + datetime.timedelta(hours=KEEP)):
        _tell(connection, task_id, status)


def _tell(connection, task_id, *events):
    row = db.one(connection, sa.select(tasks).where(tasks.c.id == task_id))
    for event in events:
        notices.task(connection, event, row)


def expired(connection, now):
    """Whether there are tasks that nobody needs any more."""
    return connection.execute(sa.select(tasks.c.id).where(tasks.c.expires_at <= now).limit(1)).first() is not None


def purge(connection, now):
    """Delete the tasks that ended long ago."""
    connection.execute(sa.delete(tasks).where(tasks.c.expires_at <= now))
