"""Replacing a volume of a running server by another: the guest goes on while its disk is copied, and writes to both until the end.

Meanwhile the entry of the old volume has ``swap``: ``{'id', 'attachment', 'connection', 'size', 'to'}``, where ``to`` says which of
the two the guest should have: '' before it begins, ``new``, or ``old`` when it goes back.
"""
from kodiak.common import errors
from kodiak.common.saga import Saga, Step, Wait
from kodiak.compute import guests, record, store, volumes
from kodiak.compute.sagas import common
from kodiak.compute.sagas import volumes as shared

# A copy takes as long as it takes: while it goes on, the agent says so by faults that pass.
COPYING = 1000000


def _entry(work):
    row = common.row_of(work)
    entry = volumes.find(row, work.data['volume'])
    if entry is None or not entry.get('swap'):
        raise errors.Conflict(f'Volume {work.data["volume"]} is not being replaced any more.')
    return row, entry


def _swap(work, transaction, row, look=False, **changes):
    entry = volumes.find(row, work.data['volume'])
    if entry is None or not entry.get('swap'):
        return
    store.save(transaction, row, volumes=volumes.changed(row['volumes'], entry['id'], swap={**entry['swap'], **changes}))
    if look:
        guests.refresh(transaction, common.bus(work), row['uuid'], row['host'])


def reserve(work):
    """Wait for the request to say that it has reserved the new volume."""
    _, entry = _entry(work)
    if not entry['swap']['attachment']:
        shared.check_grace(work)
        raise Wait(shared.LOOK, 'the new volume to be reserved')


def unreserve(work):
    """Give the new volume back, unless it has taken the place of the old."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is None or row['deleted'] or volumes.find(row, work.data['new']):
        return
    shared.release_volume(work, work.data['new'])
    common.later(work, lambda connection, row: store.save(
        connection, row, volumes=volumes.changed(row['volumes'], work.data['volume'], swap=None)))


def copy(work):
    """Have the new volume offered to the host, and the guest's disk copied to it."""
    row, entry = _entry(work)
    swap = entry['swap']
    if not swap.get('connection'):
        with work.db.read() as connection:
            connector = volumes.connector(connection, row['host'])
        found = shared.offered(shared.block(work), {'id': swap['attachment']}, connector, {**entry, 'id': swap['id']})
        common.alter(work, lambda connection, row: _swap(work, connection, row, look=True, connection=found, to='new'))
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to copy volume {entry["id"]} to {swap["id"]}',
                       attempts=COPYING)


def uncopy(work):
    """Have the guest go back to the old volume, if it is still there; else the new one has taken its place."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    entry = row and not row['deleted'] and volumes.find(row, work.data['volume'])
    if not entry or not entry.get('swap') or not entry['swap'].get('connection'):
        return
    if not any(found['volume_id'] == entry['id'] for found in shared.block(work).attachments(row['uuid'])):
        common.later(work, lambda connection, row: _replace(work, connection, row))
        return
    if entry['swap']['to'] != 'old':
        common.alter(work, lambda connection, row: _swap(work, connection, row, look=True, to='old'))
    with work.db.read() as connection:
        waits = common.host_is_up(connection, row['host']) and guests.get(connection, row['uuid'], row['host'])
    if waits:
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to go back to volume {entry["id"]}',
                           attempts=COPYING)


def release(work):
    """The guest has the new volume: end the attachment of the old."""
    _, entry = _entry(work)
    service = shared.block(work)
    service.complete(entry['swap']['attachment'])
    shared.release_volume(work, entry['id'])

    def write(connection, row):
        _replace(work, connection, row)
        record.finish(connection, row['uuid'])
    common.later(work, write)


def _replace(work, connection, row):
    entry = volumes.find(row, work.data['volume'])
    if entry is None:
        return
    swap = entry['swap']
    new = {**entry, 'id': swap['id'], 'size': swap['size'], 'swap': None,
           'attachments': {row['host']: {'id': swap['attachment'], 'connection': swap['connection']}}}
    store.save(connection, row, volumes=[new if found is entry else found for found in row['volumes']])
    guests.refresh(connection, common.bus(work), row['uuid'], row['host'])


SWAP = Saga('swap_volume', [
    Step('reserve', reserve, unreserve), Step('begin', shared.begin, shared.unbegin), Step('copy', copy, uncopy),
    Step('release', release)], on_failure=shared.failed, deadline=6 * 3600)
