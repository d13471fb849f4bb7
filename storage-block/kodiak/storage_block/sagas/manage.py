"""Taking on volumes that lie on a back end, and letting go of them."""
from kodiak.common import db, saga
from kodiak.storage_block import states, store, work

from . import volumes as of_volumes
from .common import becomes, failing, later, row_of


def _manage(job):
    row = row_of(job)
    result = work.perform(job, 'manage', row['backend'], 'manage_volume', {
        'volume_id': row['id'], 'reference': job.data['reference']})
    size = int(result['size'])
    later(job, lambda connection, row: store.settle(connection, row, size=size, claimed=size, launched_at=db.utcnow()))


MANAGE = saga.Saga('manage', [saga.Step('manage', _manage)], on_failure=failing('manage', becomes(states.ERROR_MANAGING)),
                   deadline=states.VOLUME[states.MANAGING].deadline)


def _unmanage(job):
    row = row_of(job)
    work.perform(job, 'unmanage', row['backend'], 'unmanage_volume', {'volume_id': row['id']})
    later(job, of_volumes.remove)


UNMANAGE = saga.Saga('unmanage', [saga.Step('unmanage', _unmanage)],
                     on_failure=failing('unmanage', becomes(states.ERROR_UNMANAGING)),
                     deadline=states.VOLUME[states.UNMANAGING].deadline)

ALL = [MANAGE, UNMANAGE]
