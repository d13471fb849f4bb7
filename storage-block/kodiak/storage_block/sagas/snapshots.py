"""Making and deleting snapshots, alone and of a whole group at one moment."""
import sqlalchemy as sa

from kodiak.common import db, saga
from kodiak.storage_block import states, store, work
from kodiak.storage_block.models import group_snapshots, snapshots

from .common import becomes, failing, later, row_of


def _args(row):
    return {'snapshot_id': row['id'], 'volume_id': row['volume_id'], 'size': row['size']}


def _make(job):
    row = row_of(job, snapshots)
    work.perform(job, 'make', row['backend'], 'create_snapshot', _args(row), resource_id=row['volume_id'])
    later(job, lambda connection, row: store.save(connection, snapshots, row, status=states.AVAILABLE, progress=100), snapshots)


def _unmake(job):
    with job.db.read() as connection:
        row = store.get(connection, snapshots, job.resource_id)
    if row is not None:
        args = {'snapshot_id': row['id'], 'volume_id': row['volume_id']}
        work.undo(job, 'make', row['backend'], 'delete_snapshot', args, resource_id=row['volume_id'])


CREATE = saga.Saga('snapshot', [saga.Step('make', _make, _unmake)], deadline=states.SNAPSHOT[states.CREATING].deadline,
                   on_failure=failing('snapshot', becomes(states.ERROR, snapshots), snapshots, 'VOLUME_SNAPSHOT'))


def begin_delete(connection, row, context):
    """Start to delete a locked snapshot."""
    saga.abort(connection, row['id'], 'The snapshot is being deleted.')
    store.save(connection, snapshots, row, status=states.DELETING)
    saga.start(connection, DELETE, row['id'], {}, context)


def _unused(job):
    with job.db.read() as connection:
        if work.busy(connection, job.resource_id):
            raise saga.Wait(3, 'a copy that is being made of the snapshot')


def _delete(job):
    with job.db.read() as connection:
        row = store.get(connection, snapshots, job.resource_id)
    if row is None:
        return
    if row['backend'] is not None:
        work.perform(job, 'delete', row['backend'], 'delete_snapshot', {'snapshot_id': row['id'], 'volume_id': row['volume_id']},
                     resource_id=row['volume_id'])

    def write(connection):
        store.delete(connection, snapshots, row['id'])
    job.in_commit(write)


DELETE = saga.Saga('snapshot-delete', [saga.Step('unused', _unused), saga.Step('delete', _delete)],
                   deadline=states.SNAPSHOT[states.DELETING].deadline, on_failure=failing(
                       'snapshot_delete', becomes(states.ERROR_DELETING, snapshots), snapshots, 'VOLUME_SNAPSHOT'))


# Of a group

def _members(connection, group_snapshot_id):
    return db.all_dicts(connection, sa.select(snapshots).where(
        snapshots.c.group_snapshot_id == group_snapshot_id).order_by(snapshots.c.id))


def _make_all(job):
    row_of(job, group_snapshots)
    with job.db.read() as connection:
        members = _members(connection, job.resource_id)
    if members:
        work.perform(job, 'make', members[0]['backend'], 'create_snapshots', {'snapshots': [_args(row) for row in members]})
    _all_become(job, states.AVAILABLE, progress=100)


def _unmake_all(job):
    job.db.transact(work.cancel, work.key_of(job, 'make'))
    with job.db.read() as connection:
        members = _members(connection, job.resource_id)
    for row in members:
        job.db.transact(work.post, work.key_of(job, 'undo ' + row['id']), row['backend'], 'delete_snapshot', row['volume_id'], {
            'snapshot_id': row['id'], 'volume_id': row['volume_id']}, job.resource_id)


def _all_become(job, status, **changes):
    def write(connection):
        row = store.lock(connection, group_snapshots, job.resource_id)
        if row is not None:
            store.save(connection, group_snapshots, row, status=status)
        for member in _members(connection, job.resource_id):
            store.save(connection, snapshots, member, status=status, **changes)
    job.in_commit(write)


def _all_failed(status):
    def change(connection, row, job, error):
        store.save(connection, group_snapshots, row, status=status)
        for member in _members(connection, row['id']):
            store.save(connection, snapshots, member, status=status)
    return change


CREATE_ALL = saga.Saga('group-snapshot', [saga.Step('make', _make_all, _unmake_all)], on_failure=failing(
    'group', _all_failed(states.ERROR), group_snapshots, 'GROUP_SNAPSHOT'), deadline=states.GROUP[states.CREATING].deadline)


def _delete_all(job):
    with job.db.read() as connection:
        members = _members(connection, job.resource_id)
    for row in members:
        if row['backend'] is not None:
            work.perform(job, 'delete ' + row['id'], row['backend'], 'delete_snapshot', {
                'snapshot_id': row['id'], 'volume_id': row['volume_id']}, resource_id=row['volume_id'])

    def write(connection):
        for row in members:
            store.delete(connection, snapshots, row['id'])
        store.delete(connection, group_snapshots, job.resource_id)
    job.in_commit(write)


DELETE_ALL = saga.Saga('group-snapshot-delete', [saga.Step('delete', _delete_all)], on_failure=failing(
    'group', _all_failed(states.ERROR_DELETING), group_snapshots, 'GROUP_SNAPSHOT'),
    deadline=states.GROUP[states.DELETING].deadline)


# Those that were there before

def _manage(job):
    row = row_of(job, snapshots)
    result = work.perform(job, 'manage', row['backend'], 'manage_snapshot', {
        'snapshot_id': row['id'], 'volume_id': row['volume_id'], 'reference': job.data['reference']}, resource_id=row['volume_id'])
    later(job, lambda connection, row: store.save(
        connection, snapshots, row, status=states.AVAILABLE, progress=100, size=result.get('size') or row['size']), snapshots)


MANAGE = saga.Saga('snapshot-manage', [saga.Step('manage', _manage)], deadline=states.SNAPSHOT[states.MANAGING].deadline,
                   on_failure=failing('manage', becomes(states.ERROR_MANAGING, snapshots), snapshots, 'VOLUME_SNAPSHOT'))


def _unmanage(job):
    with job.db.read() as connection:
        row = store.get(connection, snapshots, job.resource_id)
    if row is None:
        return
    work.perform(job, 'unmanage', row['backend'], 'unmanage_snapshot', {'snapshot_id': row['id'], 'volume_id': row['volume_id']},
                 resource_id=row['volume_id'])

    def write(connection):
        store.delete(connection, snapshots, row['id'])
    job.in_commit(write)


UNMANAGE = saga.Saga('snapshot-unmanage', [saga.Step('unmanage', _unmanage)], on_failure=failing(
    'unmanage', becomes(states.ERROR_UNMANAGING, snapshots), snapshots, 'VOLUME_SNAPSHOT'),
    deadline=states.SNAPSHOT[states.UNMANAGING].deadline)

ALL = [CREATE, DELETE, CREATE_ALL, DELETE_ALL, MANAGE, UNMANAGE]
