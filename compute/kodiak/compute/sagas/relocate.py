"""A server follows one of its volumes to another back end, because block storage moves the volume.

Block storage made a second attachment of the volume to the server, which leads to the volume's place on the other back end. The
guest's disk is copied there while it runs, and goes on there; then the first attachment ends, by which block storage knows that
the volume has moved. It gives up where the second one ends first.
"""
import logging

from kodiak.common import errors
from kodiak.common.saga import Saga, Step
from kodiak.compute import guests, record, states, store, volumes
from kodiak.compute.sagas import common
from kodiak.compute.sagas import volumes as shared
from kodiak.compute.sagas.swap import COPYING

LOG = logging.getLogger(__name__)


def _entry(work):
    row = common.row_of(work)
    entry = volumes.find(row, work.data['volume'])
    if entry is None or row['host'] not in entry['attachments']:
        raise errors.Conflict(f'Server {row["uuid"]} does not have volume {work.data["volume"]} any more.')
    return row, entry


def _of_volume(work, service):
    """The ids of all attachments of the volume to the server."""
    return {found['id'] for found in service.attachments(work.resource_id) if found['volume_id'] == work.data['volume']}


def connect(work):
    """Have the volume offered from its new place."""
    row, entry = _entry(work)
    if row['vm_state'] != states.ACTIVE or entry.get('pending') or entry.get('swap'):
        raise errors.Conflict('Only a server that runs can follow a volume. Start it, or detach the volume.')
    held, service = entry['attachments'][row['host']], shared.block(work)
    new = next(iter(_of_volume(work, service) - {held['id']}), None)
    if new is None:
        raise errors.Conflict('Block storage does not move the volume any more.')
    with work.db.read() as connection:
        connector = volumes.connector(connection, row['host'])
    return {'old': held, 'new': {'id': new, 'connection': shared.offered(service, {'id': new}, connector, entry)}}


def copy(work):
    """Have the guest's disk copied there, and the guest go on with that."""
    _move(work, _entry(work)[0], 'new')
    common.later(work, lambda connection, row: _hold(work, connection, row, 'new'))


def _move(work, row, to, **more):
    """Wait for the agent to have moved the guest's disk."""
    held = work.data[to]
    number = common.operate(work, row['uuid'], row['host'], 'move_volume', {
        'volume_id': work.data['volume'], 'attachment_id': held['id'], 'connection': held['connection']}, mark='move-' + to, **more)
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to copy volume {work.data["volume"]}', number=number,
                       attempts=COPYING)


def _asked(work, connection, row):
    """The numbers of what the agent was asked to do about the volume."""
    guest = guests.get(connection, row['uuid'], row['host'])
    return [operation['number'] for operation in (guest or {}).get('operations', ()) if operation['kind'] == 'move_volume'
            and operation['args'].get('volume_id') == work.data['volume']]


def _hold(work, connection, row, to):
    """Write by which attachment the server has the volume, and let the agent, which waits for that, go on."""
    store.save(connection, row, volumes=volumes.changed(row['volumes'], work.data['volume'], attachments={
        row['host']: work.data[to]}))
    guests.change(connection, common.bus(work), row['uuid'], row['host'], done=_asked(work, connection, row))


def uncopy(work):
    """Have the guest go on where the volume was, if that is still offered; else there is no way back, and it stays."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    entry = row and not row['deleted'] and volumes.find(row, work.data['volume'])
    if not entry or row['host'] not in entry['attachments'] or 'new' not in work.data:
        return
    to = 'old' if work.data['old']['id'] in _of_volume(work, shared.block(work)) else 'new'
    with work.db.read() as connection:
        waits = common.host_is_up(connection, row['host']) and guests.get(connection, row['uuid'], row['host'])
        asked = _asked(work, connection, row)
    if waits and to == 'old':
        try:
            _move(work, row, 'old', done=asked)
        except common.HostFault as fault:
            LOG.info('The guest of %s is not moved back, it starts where volume %s was: %s', row['uuid'], entry['id'], fault)
    common.later(work, lambda connection, row: _hold(work, connection, row, to))


def release(work):
    """The guest is there: end the first attachment."""
    service = shared.block(work)
    there = _of_volume(work, service)
    if work.data['new']['id'] not in there:
        raise errors.Conflict('Block storage does not move the volume any more.')
    if work.data['old']['id'] in there:
        service.complete(work.data['new']['id'])
        service.detach(work.data['old']['id'])
    common.later(work, lambda connection, row: record.finish(connection, row['uuid']))


def failed(work, error):
    """Give up the attachment to the new place, by which block storage knows, and say why in the record."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    entry = row and not row['deleted'] and volumes.find(row, work.data['volume'])
    if entry:
        service = shared.block(work)
        for left in _of_volume(work, service) - {held['id'] for held in entry['attachments'].values()}:
            service.detach(left)
    shared.failed(work, error)


FOLLOW = Saga('move_volume', [Step('connect', connect), Step('copy', copy, uncopy), Step('release', release)],
              on_failure=failed, deadline=2 * 3600)
