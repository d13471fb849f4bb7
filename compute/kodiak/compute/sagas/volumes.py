"""Volumes of servers: coming, going and growing while the server lives, and the steps that other sagas have for them.

Block storage and compute agree by attachments: one for every host that a server is on or comes to, one without a host for a
server that is on none. :func:`bring` and :func:`drop` look at what there is and close the difference, so either may be
done again after a crash. A guest has a volume only while the attachment of its host lives.
"""
import time

from kodiak.common import errors, saga
from kodiak.common.saga import Saga, Step, Wait
from kodiak.compute import guests, record, store, volumes
from kodiak.compute.sagas import common

#: Seconds that a request has to say which volume it made or reserved, after it began a saga.
GRACE = 90
LOOK = 1.5


def block(work):
    """Block storage, asked with the service's own token."""
    return volumes.Block(work.app.clients)


def _steady(row, only=None):
    """The entries that no saga of their own is about to attach or detach."""
    return [entry for entry in row['volumes'] if entry['id'] and not entry.get('pending') and only in (None, entry['id'])]


def bring(work, host, keep=(), only=None):
    """Have every volume of the server attached to ``host`` (only reserved, where that is empty), and to no other but ``keep``.

    :param only: the id of the one volume that is meant.
    """
    row = common.row_of(work)
    mine = _steady(row, only)
    if not mine:
        return
    service = block(work)
    missing = [entry for entry in mine if host not in entry['attachments'] and '' not in entry['attachments']]
    if missing:
        _reserve(work, service, row, missing)
        mine = _steady(common.row_of(work), only)
    gone = {other for entry in mine for other in entry['attachments'] if other not in ('', host, *keep)}
    if gone:
        for entry in mine:
            for other in gone & entry['attachments'].keys():
                service.detach(entry['attachments'][other]['id'])
        meant = {entry['id'] for entry in mine}
        _hold(work, lambda entry: {name: held for name, held in entry['attachments'].items()
                                   if name not in gone or entry['id'] not in meant})
    if not host:
        return
    with work.db.read() as connection:
        connector = volumes.connector(connection, host)
    made = {}
    for entry in mine:
        held = entry['attachments'].get(host) or entry['attachments'].get('')
        if not held.get('connection'):
            made[entry['id']] = {'id': held['id'], 'connection': offered(service, held, connector, entry)}
            service.complete(held['id'])

    def connected(entry):
        attachments = dict(entry['attachments'])
        if entry['id'] in made:
            if attachments.get('', {}).get('id') == made[entry['id']]['id']:
                del attachments['']
            attachments[host] = made[entry['id']]
        return attachments
    if made:
        _hold(work, connected)


def offered(service, held, connector, entry):
    """The connection of an attachment to a host, once block storage offers it."""
    found = service.connect(held['id'], connector, entry['device'])
    if not found['driver_volume_type']:
        raise Wait(LOOK, f'volume {entry["id"]} to be offered to {connector["host"]}')
    return found


def _reserve(work, service, row, missing):
    known = {held['id'] for entry in row['volumes'] for held in entry['attachments'].values()}
    spare = {found['volume_id']: found['id'] for found in service.attachments(row['uuid'])
             if found['id'] not in known and found['status'] == 'reserved'}
    made = {entry['id']: spare.get(entry['id']) or service.reserve(entry['id'], row['uuid']) for entry in missing}
    _hold(work, lambda entry: {**entry['attachments'], '': {'id': made[entry['id']]}} if entry['id'] in made else
          entry['attachments'])


def _hold(work, function):
    """Write ``attachments`` of every steady entry as ``function(entry)`` says."""
    def write(connection, row):
        if row is None or row['deleted']:
            raise common.Gone('The server was deleted.')
        steady = {entry['bdm'] for entry in _steady(row)}
        store.save(connection, row, volumes=[{**entry, 'attachments': function(entry)} if entry['bdm'] in steady else entry
                                             for entry in row['volumes']])
    common.alter(work, write)


def drop(work, host=None):
    """End the attachments of the server to ``host`` and those to no host at all; all there are, if None."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is None or not row['volumes']:
        return
    steady = _steady(row)
    gone = ('', host)
    kept = set() if host is None else {held['id'] for entry in steady for name, held in entry['attachments'].items()
                                       if name not in gone}
    meant = {entry['id'] for entry in (row['volumes'] if host is None else steady)}
    service = block(work)
    for found in service.attachments(row['uuid']):
        if host is None or (found['volume_id'] in meant and found['id'] not in kept):
            service.detach(found['id'])

    def write(connection, row):
        if row is None or row['deleted']:
            return
        store.save(connection, row, volumes=[
            entry if host is not None and entry.get('pending') else
            {**entry, 'attachments': {} if host is None else {name: held for name, held in entry['attachments'].items()
                                                              if name not in gone}} for entry in row['volumes']])
    common.alter(work, write)


def made(work):
    """Wait until the volumes that were asked for with the server are there."""
    row = common.row_of(work)
    for entry in row['volumes']:
        if entry.get('error'):
            raise errors.Conflict(f'A volume for the server could not be made: {entry["error"]}')
    if any(entry['id'] is None for entry in row['volumes']):
        if time.time() > work.data.get('until', 0):
            raise errors.Conflict('The request broke off before the volumes of the server were made.')
        raise Wait(LOOK, 'the volumes to be asked for')
    service = block(work)
    for entry in row['volumes']:
        if not entry.get('make') or entry['attachments']:
            continue
        volume = service.volume(entry['id'])
        if volume['status'].startswith('error'):
            raise errors.Conflict(f'Volume {entry["id"]} could not be made: block storage says that it is in error.')
        if volume['status'] in ('creating', 'downloading'):
            raise Wait(_pause(work), f'volume {entry["id"]} to be made')


def _pause(work):
    # Clones are made in no time; what is copied takes longer, and is looked at less often.
    return min(3.0, max(0.2, (time.time() - work.data.get('until', 0) + GRACE) / 4))


def remove(work):
    """Delete the volumes that the server was to be deleted with."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is not None and row['volumes']:
        delete(work, volumes.made_for(block(work), row))


def delete(work, ids):
    """Delete volumes; waits for those that are still being detached."""
    service = block(work)
    waiting = [volume_id for volume_id in ids if not volumes.remove(service, volume_id)]
    if waiting:
        raise Wait(LOOK, f'volume {", ".join(waiting)} to be free')


FORGET = Saga('forget_volumes', [Step('forget', lambda work: delete(work, work.data['volumes']))], deadline=3600)


# Attaching

def _entry(work):
    """``(row, entry)`` of the volume that the saga is about."""
    row = common.row_of(work)
    entry = volumes.find(row, work.data['volume'])
    if entry is None:
        raise errors.Conflict(f'Volume {work.data["volume"]} is not attached to the server any more.')
    return row, entry


def _change(work, connection, row, **changes):
    store.save(connection, row, volumes=volumes.changed(row['volumes'], work.data['volume'], **changes))
    guests.refresh(connection, common.bus(work), row['uuid'], row['host'])


def reserve(work):
    """Wait for the request to say that it has reserved the volume."""
    _, entry = _entry(work)
    if not entry['attachments']:
        check_grace(work)
        raise Wait(LOOK, 'the volume to be reserved')


def check_grace(work, what='the volume was reserved'):
    """``Conflict`` where the request has had time enough to say what it reserved, or told."""
    if time.time() > work.data['until']:
        raise errors.Conflict(f'The request broke off before {what}.')


def unreserve(work):
    """End every attachment of the volume to the server, and forget it."""
    release_volume(work, work.data['volume'])
    common.later(work, lambda connection, row: _forget(work, connection, row))


def release_volume(work, volume_id):
    """End every attachment of a volume to the server."""
    service = block(work)
    for found in service.attachments(work.resource_id):
        if found['volume_id'] == volume_id:
            service.detach(found['id'])


def _forget(work, connection, row):
    store.save(connection, row, volumes=volumes.without(row['volumes'], work.data['volume']))
    guests.refresh(connection, common.bus(work), row['uuid'], row['host'])


def connect(work):
    """Have the volume offered to the server's host, if it has one, and the guest told of it."""
    row, entry = _entry(work)
    if not row['host']:
        return common.later(work, lambda connection, row: _change(work, connection, row, pending=False))
    held = entry['attachments'].get(row['host']) or entry['attachments']['']
    with work.db.read() as connection:
        connector = volumes.connector(connection, row['host'])
    found = offered(block(work), held, connector, entry)
    return common.later(work, lambda connection, row: _change(work, connection, row, pending=False, attachments={
        row['host']: {'id': held['id'], 'connection': found}}))


def withdraw(work):
    """Have the agent unplug the volume."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    entry = row and not row['deleted'] and volumes.find(row, work.data['volume'])
    if not entry:
        return
    if not entry.get('pending'):
        common.alter(work, lambda connection, row: _change(work, connection, row, pending=True))
    with work.db.read() as connection:
        waits = row['host'] and common.host_is_up(connection, row['host']) and guests.get(connection, row['uuid'], row['host'])
    if waits:
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to unplug volume {work.data["volume"]}')


def plug(work):
    """Wait for the agent to plug it, then say that it is in use. It is too by a server that is on no host now."""
    row, entry = _entry(work)
    if row['host']:
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to plug volume {work.data["volume"]}')
    block(work).complete(entry['attachments'][row['host'] or '']['id'])
    common.later(work, lambda connection, row: record.finish(connection, row['uuid']))


def failed(work, error):
    """Say so in the record; the server is what it was."""
    common.alter(work, lambda connection, row: row and record.finish(connection, row['uuid'], error=str(error)))


ATTACH = Saga('attach_volume', [Step('reserve', reserve, unreserve), Step('connect', connect, withdraw), Step('plug', plug)],
              on_failure=failed, deadline=600)


# Detaching

def _status(service, volume_id):
    try:
        return service.volume(volume_id)['status']
    except errors.NotFound:
        return None


def begin(work):
    """Tell block storage, so that nobody else begins something with the volume; a request to detach it has told already."""
    _, entry = _entry(work)
    if entry.get('leaving') == 'refused':
        raise errors.Conflict('Block storage does not let the volume be detached now.')
    if entry.get('leaving') == 'asked':
        check_grace(work, 'block storage was told')
        raise Wait(LOOK, 'block storage to be told')
    service = block(work)
    if _status(service, work.data['volume']) == 'in-use':
        service.action(work.data['volume'], 'os-begin_detaching')


def unbegin(work):
    """The volume stays in use."""
    service = block(work)
    if _status(service, work.data['volume']) == 'detaching':
        service.action(work.data['volume'], 'os-roll_detaching')
    common.later(work, lambda connection, row: store.save(connection, row, volumes=volumes.changed(
        row['volumes'], work.data['volume'], leaving=None)))


def unplug(work):
    """Have the agent unplug the volume; the guest may hold on to it."""
    _entry(work)
    withdraw(work)


def replug(work):
    """Have it plugged again, if the attachment still lives."""
    there = any(found['volume_id'] == work.data['volume'] for found in block(work).attachments(work.resource_id))

    def write(connection, row):
        if there:
            _change(work, connection, row, pending=False)
        else:
            _forget(work, connection, row)
    common.later(work, write)


def release(work):
    """End the attachment; the volume is free."""
    release_volume(work, work.data['volume'])

    def write(connection, row):
        _forget(work, connection, row)
        record.finish(connection, row['uuid'])
    common.later(work, write)


DETACH = Saga('detach_volume', [Step('begin', begin, unbegin), Step('unplug', unplug, replug), Step('release', release)],
              on_failure=failed, deadline=600)


def is_busy(connection, uuid, volume_id):
    """True if a saga already does something with the volume of a server."""
    return any(found['name'] in (ATTACH.name, DETACH.name, 'swap_volume', 'move_volume')
               and volume_id in ((found['data'] or {}).get('volume'), (found['data'] or {}).get('new'))
               for found in saga.active(connection, uuid))


# Growing

def extend(work):
    """Tell the guest that a volume has grown."""
    row, entry = _entry(work)
    size = block(work).volume(entry['id'])['size']
    common.alter(work, lambda connection, row: store.save(connection, row, volumes=volumes.changed(
        row['volumes'], entry['id'], size=size)))
    if row['host'] in entry['attachments']:
        number = common.operate(work, row['uuid'], row['host'], 'extend_volume', {'volume_id': entry['id'], 'size': size})
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to grow volume {entry["id"]}', number=number)
        common.read_outcome(work, row['uuid'], row['host'], number)
    common.later(work, lambda connection, row: record.finish(connection, row['uuid']))


def unextend(work):
    """Ask for it no more: the guest sees the size when it starts anew."""
    def write(connection):
        row = store.get(connection, work.resource_id)
        guest = guests.get(connection, work.resource_id, row['host']) if row and row['host'] else None
        asked = [operation['number'] for operation in (guest or {}).get('operations', ()) if operation['kind'] == 'extend_volume'
                 and operation['args'].get('volume_id') == work.data['volume']]
        if asked:
            guests.change(connection, common.bus(work), work.resource_id, row['host'], done=asked)
    work.in_commit(write)


EXTEND = Saga('extend_volume', [Step('extend', extend, unextend)], on_failure=failed, deadline=300)
