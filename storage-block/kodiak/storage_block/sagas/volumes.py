"""Making, deleting, extending, reverting and reading out volumes."""
import sqlalchemy as sa

from kodiak.common import db, errors, outbox, saga
from kodiak.storage_block import keys, scheduler, states, store, work
from kodiak.storage_block.models import attachments, backups, messages, snapshots, transfers, volumes

from . import backups as of_backups
from .common import alter, becomes, failing, later, row_of, settles

# Create

def _schedule(job):
    def write(connection, row):
        if row['backend'] is None:
            wish = scheduler.Wish(**job.data['wish'])
            backend = scheduler.place(connection, job.app.conf, wish)
            store.save(connection, volumes, row, backend=backend, availability_zone=scheduler.zone_of(connection, backend))
    row_of(job)
    alter(job, write)


def _unschedule(job):
    alter(job, lambda connection, row: store.save(connection, volumes, row, backend=None))


def _ready(connection, row):
    store.settle(connection, row, launched_at=db.utcnow())


def _make(job):
    row = row_of(job)
    source = job.data['source']
    work.perform(job, 'make', row['backend'], 'create_volume', {
        'volume_id': row['id'], 'size': row['size'], 'source': source, 'encryption': row['encryption']},
        uses=source.get('snapshot_id') or source.get('volume_id'))
    if not job.data.get('backup_id'):
        later(job, _ready)


def _unmake(job):
    with job.db.read() as connection:
        row = store.get(connection, volumes, job.resource_id)
    if row is not None and row['backend'] is not None:
        work.undo(job, 'make', row['backend'], 'delete_volume', {'volume_id': row['id']})


def _creating(job, error):
    if error.kind == 'NoValidBackend':
        return 'schedule'
    return 'image' if job.data['source']['type'] == 'image' else 'create'


def _restore(job):
    row = row_of(job)
    with job.db.read() as connection:
        backup = store.get(connection, backups, job.data['backup_id'])
        if backup is None:
            raise work.Failed('The backup is gone.')
        records = of_backups.chain(connection, backup)
    work.perform(job, 'restore', row['backend'], 'restore_backup', {
        'backup_id': backup['id'], 'volume_id': row['id'], 'size': row['size'], 'records': records})
    later(job, _ready)
    job.in_commit(lambda connection: _backup_ready(connection, job))


def _backup_ready(connection, job, reason=None):
    backup = store.lock(connection, backups, job.data['backup_id'])
    if backup is not None and backup['status'] == states.RESTORING:
        store.save(connection, backups, backup, status=states.AVAILABLE, fail_reason=reason)


def _not_restored(connection, row, job, error):
    store.save(connection, volumes, row, status=states.ERROR)
    _backup_ready(connection, job, error.message[:255])


CREATE = saga.Saga('create', [saga.Step('schedule', _schedule, _unschedule), saga.Step('make', _make, _unmake)],
                   on_failure=failing(_creating, becomes(states.ERROR)), deadline=states.VOLUME[states.CREATING].deadline)

#: One that is filled from a backup.
CREATE_RESTORED = saga.Saga('create-restored', [*CREATE.steps, saga.Step('restore', _restore)],
                            on_failure=failing('restore', _not_restored),
                            deadline=states.VOLUME[states.RESTORING_BACKUP].deadline)


# Delete

def begin_delete(connection, row, context, cascade=False):
    """Start to delete a locked volume; whatever is being done to it is stopped."""
    saga.abort(connection, row['id'], 'The volume is being deleted.')
    # Where it is deleted by force it may be attached: agents end exports before they begin a work.
    _end_exports(connection, row)
    store.save(connection, volumes, row, status=states.DELETING, previous_status=row['status'], attached=[])
    if cascade:
        for snapshot in db.all_dicts(connection, sa.select(snapshots).where(snapshots.c.volume_id == row['id'])):
            store.save(connection, snapshots, snapshot, status=states.DELETING)
    saga.start(connection, DELETE, row['id'], {}, context)


def _unused(job):
    with job.db.read() as connection:
        if work.busy(connection, job.resource_id):
            raise saga.Wait(3, 'a copy that is being made of the volume')


def _delete_snapshots(job):
    with job.db.read() as connection:
        left = db.all_dicts(connection, sa.select(snapshots).where(snapshots.c.volume_id == job.resource_id))
    for row in left:
        if row['backend'] is not None:
            work.perform(job, 'snapshot ' + row['id'], row['backend'], 'delete_snapshot', {
                'snapshot_id': row['id'], 'volume_id': row['volume_id']}, resource_id=row['volume_id'])

    def write(connection):
        for row in left:
            store.delete(connection, snapshots, row['id'])
    job.in_commit(write)


def _delete(job):
    with job.db.read() as connection:
        row = store.get(connection, volumes, job.resource_id)
    if row is not None and row['backend'] is not None:
        work.perform(job, 'delete', row['backend'], 'delete_volume', {'volume_id': row['id']})

    def write(connection):
        remove(connection, row)
    if row is not None:
        job.in_commit(write)


def _end_exports(connection, row):
    if connection.execute(attachments.delete().where(attachments.c.volume_id == row['id'])).rowcount and row['backend']:
        work.bump(connection, work.host_of(row['backend']))


def remove(connection, row):
    """Remove the row of a volume and what belongs to it alone."""
    _end_exports(connection, row)
    connection.execute(transfers.delete().where(transfers.c.volume_id == row['id']))
    connection.execute(messages.delete().where(messages.c.resource_uuid == row['id']))
    keys.delete(connection, row['encryption'])
    store.delete(connection, volumes, row['id'])


def _not_deleted(connection, row, job, error):
    store.save(connection, volumes, row, status=states.ERROR_DELETING)
    for snapshot in db.all_dicts(connection, sa.select(snapshots).where(
            snapshots.c.volume_id == row['id'], snapshots.c.status == states.DELETING)):
        store.save(connection, snapshots, snapshot, status=states.ERROR_DELETING)


DELETE = saga.Saga('delete', [saga.Step('unused', _unused), saga.Step('snapshots', _delete_snapshots),
                              saga.Step('delete', _delete)],
                   on_failure=failing('delete', _not_deleted), deadline=states.VOLUME[states.DELETING].deadline)


# Extend

def _extend(job):
    row = row_of(job)
    size = job.data['size']
    with job.db.read() as connection:
        attached = bool(store.attachments_of(connection, row['id']))
    work.perform(job, 'extend', row['backend'], 'extend_volume', {
        'volume_id': row['id'], 'size': size, 'attached': attached, 'encryption': row['encryption']})

    def write(connection, row):
        store.settle(connection, row, size=size, claimed=size)
        if not job.app.conf.storage_block.notify_compute:
            return
        for attachment in store.attachments_of(connection, row['id']):
            if attachment['instance_uuid']:
                tell_compute(connection, 'volume-extended', attachment, job.context)
    later(job, write)


def tell_compute(connection, name, attachment, context):
    """Have compute told of an event of an attached volume, once the transaction is committed."""
    outbox.add(connection, 'compute.' + name, {'name': name, 'server_uuid': attachment['instance_uuid'],
                                               'tag': attachment['volume_id']}, context, attachment['volume_id'])


def _not_extended(connection, row, job, error):
    store.save(connection, volumes, row, status=states.ERROR_EXTENDING, claimed=row['size'])


EXTEND = saga.Saga('extend', [saga.Step('extend', _extend)], on_failure=failing('extend', _not_extended),
                   deadline=states.VOLUME[states.EXTENDING].deadline)


# Revert to a snapshot

def _revert(job):
    row = row_of(job)
    work.perform(job, 'revert', row['backend'], 'revert_volume', {
        'volume_id': row['id'], 'snapshot_id': job.data['snapshot_id'], 'size': row['size']})
    later(job, store.settle)
    later(job, lambda connection, row: store.save(connection, snapshots, row, status=states.AVAILABLE), snapshots,
          job.data['snapshot_id'])


def _not_reverted(connection, row, job, error):
    store.save(connection, volumes, row, status=states.ERROR)
    snapshot = store.lock(connection, snapshots, job.data['snapshot_id'])
    if snapshot is not None:
        store.save(connection, snapshots, snapshot, status=states.AVAILABLE)


REVERT = saga.Saga('revert', [saga.Step('revert', _revert)], on_failure=failing('revert', _not_reverted),
                   deadline=states.VOLUME[states.REVERTING].deadline)


# Upload to an image, and write an image over a volume

def _upload(job):
    row = row_of(job)
    image = job.data['image']
    work.perform(job, 'upload', row['backend'], 'copy_to_image', {
        'volume_id': row['id'], 'image_id': image['id'], 'disk_format': image['disk_format'],
        'container_format': image['container_format'], 'encryption': row['encryption']})
    later(job, store.settle)


def _not_uploaded(job):
    job.db.transact(work.cancel, work.key_of(job, 'upload'))
    try:
        job.app.clients.image.delete(f'/v2/images/{job.data["image"]["id"]}')
    except errors.Conflict:
        pass        # somebody uses it already, so it is there


UPLOAD = saga.Saga('upload', [saga.Step('upload', _upload, _not_uploaded)], on_failure=failing('upload', settles),
                   deadline=states.VOLUME[states.UPLOADING].deadline)


def _reimage(job):
    row = row_of(job)
    image = job.data['image']
    work.perform(job, 'reimage', row['backend'], 'reimage_volume', {
        'volume_id': row['id'], 'size': row['size'], 'image_id': image['id'], 'image': image, 'encryption': row['encryption']})

    def write(connection, row):
        store.settle(connection, row, image_id=image['id'], image_metadata=job.data['image_metadata'], bootable=True)
        for attachment in store.attachments_of(connection, row['id']):
            if attachment['instance_uuid'] and job.app.conf.storage_block.notify_compute:
                tell_compute(connection, 'volume-reimaged', attachment, job.context)
    later(job, write)


REIMAGE = saga.Saga('reimage', [saga.Step('reimage', _reimage)], on_failure=failing('reimage', becomes(states.ERROR)),
                    deadline=states.VOLUME[states.UPLOADING].deadline)

ALL = [CREATE, CREATE_RESTORED, DELETE, EXTEND, REVERT, UPLOAD, REIMAGE]
