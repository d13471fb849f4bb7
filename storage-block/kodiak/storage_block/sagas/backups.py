"""Making, restoring and deleting backups."""
from kodiak.common import saga
from kodiak.storage_block import keys, states, store, work
from kodiak.storage_block.models import backups, snapshots, volumes

from .common import failing, later, row_of


def _make(job):
    row = row_of(job, backups)
    with job.db.read() as connection:
        volume = store.get(connection, volumes, row['volume_id'])
        parent = row['parent_id'] and store.get(connection, backups, row['parent_id'])
    if volume is None:
        raise work.Failed('The volume is gone.')
    result = work.perform(job, 'make', volume['backend'], 'create_backup', {
        'backup_id': row['id'], 'volume_id': volume['id'], 'size': row['size'], 'snapshot_id': row['snapshot_id'],
        'container': row['container'], 'parent': parent and parent['record'], 'encryption': volume['encryption']},
        uses=row['snapshot_id'] or volume['id'])
    record = result['record']
    later(job, lambda connection, row: store.save(
        connection, backups, row, status=states.AVAILABLE, record=record, object_count=record['object_count'],
        container=record['container'], host=work.host_of(volume['backend'])), backups)
    job.in_commit(lambda connection: _release(connection, row))


def _release(connection, row):
    """The volume or snapshot of a backup is free again."""
    volume = store.lock(connection, volumes, row['volume_id'])
    if volume is not None and volume['status'] == states.BACKING_UP:
        store.settle(connection, volume)
    snapshot = row['snapshot_id'] and store.lock(connection, snapshots, row['snapshot_id'])
    if snapshot and snapshot['status'] == states.BACKING_UP:
        store.save(connection, snapshots, snapshot, status=states.AVAILABLE)


def _unmake(job):
    with job.db.read() as connection:
        row = store.get(connection, backups, job.resource_id)
        volume = row and store.get(connection, volumes, row['volume_id'])
    if volume is None:
        return
    job.db.transact(work.cancel, work.key_of(job, 'make'))


def _not_made(connection, row, job, error):
    store.save(connection, backups, row, status=states.ERROR, fail_reason=error.message[:255])
    _release(connection, row)


CREATE = saga.Saga('backup', [saga.Step('make', _make, _unmake)], on_failure=failing('backup', _not_made, backups, 'VOLUME_BACKUP'),
                   deadline=states.BACKUP[states.CREATING].deadline)


def begin_delete(connection, row, context):
    """Start to delete a locked backup."""
    saga.abort(connection, row['id'], 'The backup is being deleted.')
    store.save(connection, backups, row, status=states.DELETING)
    saga.start(connection, DELETE, row['id'], {}, context)


def _delete(job):
    with job.db.read() as connection:
        row = store.get(connection, backups, job.resource_id)
    if row is None:
        return
    if row['record'] is not None and row['host'] is not None:
        work.perform(job, 'delete', f'{row["host"]}@', 'delete_backup', {'backup_id': row['id'], 'record': row['record']})

    def write(connection):
        keys.delete(connection, row['encryption'])
        store.delete(connection, backups, row['id'])
    job.in_commit(write)


def _not_deleted(connection, row, job, error):
    store.save(connection, backups, row, status=states.ERROR_DELETING, fail_reason=error.message[:255])


DELETE = saga.Saga('backup-delete', [saga.Step('delete', _delete)], deadline=states.BACKUP[states.DELETING].deadline,
                   on_failure=failing('backup_delete', _not_deleted, backups, 'VOLUME_BACKUP'))


def chain(connection, row):
    """The records of a backup and of those that it builds upon, the full one first."""
    found = [row['record']]
    while row['parent_id']:
        row = store.get(connection, backups, row['parent_id'])
        if row is None or row['record'] is None:
            raise work.Failed('A backup that this one builds upon is gone.')
        found.insert(0, row['record'])
    return found


def _restore(job):
    row = row_of(job, backups)
    with job.db.read() as connection:
        volume = store.get(connection, volumes, job.data['volume_id'])
        records = chain(connection, row)
    if volume is None or volume['status'] != states.RESTORING_BACKUP:
        raise work.Failed('The volume to restore to is not there any more.')
    work.perform(job, 'restore', volume['backend'], 'restore_backup', {
        'backup_id': row['id'], 'volume_id': volume['id'], 'size': volume['size'], 'records': records})
    later(job, lambda connection, row: store.save(connection, backups, row, status=states.AVAILABLE), backups)
    later(job, store.settle, volumes, volume['id'])


def _stop_restoring(job):
    job.db.transact(work.cancel, work.key_of(job, 'restore'))


def _not_restored(connection, row, job, error):
    store.save(connection, backups, row, status=states.AVAILABLE, fail_reason=error.message[:255])
    volume = store.lock(connection, volumes, job.data['volume_id'])
    if volume is not None and volume['status'] == states.RESTORING_BACKUP:
        store.save(connection, volumes, volume, status=states.ERROR_RESTORING)


RESTORE = saga.Saga('restore', [saga.Step('restore', _restore, _stop_restoring)], on_failure=failing(
    'restore', _not_restored, backups, 'VOLUME_BACKUP'), deadline=states.BACKUP[states.RESTORING].deadline)

ALL = [CREATE, DELETE, RESTORE]
