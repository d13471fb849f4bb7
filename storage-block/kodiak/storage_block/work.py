"""What agents are told to do, and the generation of each host that grows with it (``rpc`` says what each kind of work means)."""
import datetime

import sqlalchemy as sa

from kodiak.common import db, errors, saga, wake

from .models import attachments, backends, hosts, volumes
from .models import work as rows


class Failed(errors.Conflict):
    """An agent could not do it; the message is its sentence."""


def host_of(backend):
    """The host whose agent drives a back end."""
    return backend.partition('@')[0]


def short(backend):
    """What a back end is called on its host."""
    return backend.partition('@')[2]


def shown(backend):
    """A back end as the API shows it, with its pool."""
    return None if backend is None else f'{backend}#{short(backend)}'


def bump(connection, host):
    """What ``host`` should do or export has changed: its agent is hinted at after the commit."""
    connection.execute(hosts.update().where(hosts.c.host == host).values(generation=hosts.c.generation + 1))
    wake.after_commit(connection, 'hosts')


def post(connection, key, backend, kind, resource_id, args, nudges, uses=None):
    """Have the agent of a back end do something; nothing happens if ``key`` was posted before.

    :param resource_id: works on the same one are done in turn. :param nudges: the resource whose saga waits for it.
    :param uses: the id of a volume or snapshot that must not go away meanwhile.
    """
    if connection.scalar(sa.select(rows.c.number).where(rows.c.key == key)) is not None:
        return
    now = db.utcnow()
    connection.execute(rows.insert(), {
        'key': key, 'host': host_of(backend), 'backend': short(backend), 'kind': kind, 'resource_id': resource_id, 'args': args,
        'nudges': nudges, 'uses': uses, 'state': 'wanted', 'percent': 0, 'created_at': now, 'updated_at': now})
    bump(connection, host_of(backend))


def cancel(connection, key):
    """Have an agent stop work that it has not ended. :returns: its row, or None if it was never posted."""
    row = db.one(connection, sa.select(rows).where(rows.c.key == key).with_for_update())
    if row is not None and row['state'] == 'wanted':
        connection.execute(rows.update().where(rows.c.number == row['number']).values(state='cancelled', updated_at=db.utcnow()))
        bump(connection, row['host'])
    return row


def busy(connection, resource_id):
    """True while some agent still has work to do that uses a volume or snapshot."""
    return connection.scalar(sa.select(rows.c.number).where(
        rows.c.uses == resource_id, rows.c.state == 'wanted').limit(1)) is not None


def key_of(work, name):
    """The key of the work that a saga's step posts under a name."""
    return f'{work.saga_id}:{name}'


def perform(work, name, backend, kind, args, resource_id=None, uses=None):
    """In a saga's step: have work done and return its result.

    :raises saga.Wait: it isn't done yet. :raises Failed: it could not be done.
    """
    key = key_of(work, name)
    with work.db.read() as connection:
        row = db.one(connection, sa.select(rows).where(rows.c.key == key))
    if row is None:
        # In the transaction that says that the saga waits: one less, and an agent may be quicker than a second one.
        work.in_commit(lambda connection: post(connection, key, backend, kind, resource_id or work.resource_id, args,
                                               work.resource_id, uses))
        raise saga.Wait(15, f'{kind.replace("_", " ")} on {host_of(backend)}')
    if row['state'] == 'wanted':
        raise saga.Wait(15, f'{kind.replace("_", " ")} on {host_of(backend)}')
    if row['state'] != 'done':
        raise Failed(row['error'] or 'It was stopped.')
    return row['result'] or {}


def undo(work, name, backend, kind, args, resource_id=None):
    """In a saga's undo: stop work and have what it left removed, without waiting: the agent does it when it can."""
    def write(connection):
        if cancel(connection, key_of(work, name)) is not None:
            post(connection, key_of(work, name + ':undo'), backend, kind, resource_id or work.resource_id, args,
                 work.resource_id)
    work.db.transact(write)


def reported(connection, host, result):
    """Take what came of one work."""
    changed = {'state': 'failed' if result.get('error') else 'done', 'error': result.get('error'), 'result': result.get('result'),
               'updated_at': db.utcnow()}
    row = connection.execute(sa.select(rows.c.nudges).where(
        rows.c.number == result['number'], rows.c.host == host, rows.c.state == 'wanted').with_for_update()).first()
    if row is not None:
        connection.execute(rows.update().where(rows.c.number == result['number']).values(changed))
        saga.nudge(connection, row.nudges)


def wanted(connection, host):
    """The work and exports of a host, as ``rpc`` gives their shapes."""
    todo = [{'number': row.number, 'kind': row.kind, 'backend': row.backend, 'resource_id': row.resource_id, 'args': row.args}
            for row in connection.execute(
                sa.select(rows).where(rows.c.host == host, rows.c.state == 'wanted').order_by(rows.c.number))]
    found = connection.execute(
        sa.select(attachments, volumes.c.size, volumes.c.encrypted).join(volumes, volumes.c.id == attachments.c.volume_id)
        .where(attachments.c.backend.in_(sa.select(backends.c.name).where(backends.c.host == host)),
               attachments.c.connector.is_not(None))
        .order_by(attachments.c.created_at))
    exports = [{
        'attachment_id': row.id, 'generation': row.generation, 'volume_id': row.volume_id, 'backend': short(row.backend),
        'size': row.size, 'access_mode': 'ro' if row.attach_mode == 'ro' else 'rw', 'connector': row.connector,
        'auth_username': row.auth_username, 'auth_password': row.auth_password, 'encrypted': row.encrypted} for row in found]
    return todo, exports


def forget(connection, days=1):
    """Remove what ended long ago."""
    before = db.utcnow() - datetime.timedelta(days=days)
    connection.execute(rows.delete().where(rows.c.state != 'wanted', rows.c.updated_at < before))
