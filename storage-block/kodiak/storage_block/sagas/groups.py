"""Making and deleting groups of volumes."""
import sqlalchemy as sa

from kodiak.common import db, errors, saga
from kodiak.storage_block import scheduler, states, store
from kodiak.storage_block.models import groups, volumes

from . import volumes as of_volumes
from .common import alter, becomes, failing, later, row_of


def members(connection, group_id):
    """The volumes of a group, as dictionaries."""
    return db.all_dicts(connection, sa.select(volumes).where(volumes.c.group_id == group_id).order_by(volumes.c.created_at))


def _place(job):
    def write(connection, row):
        if row['backend'] is None:
            wish = scheduler.Wish(size=0, zone=job.data.get('zone'), extra_specs=job.data['extra_specs'])
            store.save(connection, groups, row, backend=scheduler.place(connection, job.app.conf, wish))
    row_of(job, groups)
    alter(job, write, groups)


def _filled(job):
    """Wait for the volumes that are made with the group."""
    with job.db.read() as connection:
        found = [row['status'] for row in members(connection, job.resource_id)]
    if states.CREATING in found:
        raise saga.Wait(2, 'the volumes of the group')
    if any(status != states.AVAILABLE for status in found):
        raise errors.Conflict('A volume of the group could not be made.')
    later(job, lambda connection, row: store.save(connection, groups, row, status=states.AVAILABLE), groups)


CREATE = saga.Saga('group', [saga.Step('place', _place), saga.Step('filled', _filled)], on_failure=failing(
    'group', becomes(states.ERROR, groups), groups, 'GROUP'), deadline=states.GROUP[states.CREATING].deadline)


def begin_delete(connection, row, context):
    """Start to delete a locked group with its volumes."""
    saga.abort(connection, row['id'], 'The group is being deleted.')
    store.save(connection, groups, row, status=states.DELETING)
    for volume in members(connection, row['id']):
        of_volumes.begin_delete(connection, store.lock(connection, volumes, volume['id']), context)
    saga.start(connection, DELETE, row['id'], {}, context)


def _emptied(job):
    with job.db.read() as connection:
        found = [row['status'] for row in members(connection, job.resource_id)]
    if any(status != states.DELETING for status in found):
        raise errors.Conflict('A volume of the group could not be deleted.')
    if found:
        raise saga.Wait(2, 'its volumes to be deleted')
    job.in_commit(lambda connection: store.delete(connection, groups, job.resource_id))


DELETE = saga.Saga('group-delete', [saga.Step('emptied', _emptied)], on_failure=failing(
    'group', becomes(states.ERROR_DELETING, groups), groups, 'GROUP'), deadline=states.GROUP[states.DELETING].deadline)

ALL = [CREATE, DELETE]
