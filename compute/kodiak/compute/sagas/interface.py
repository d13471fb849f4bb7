"""Ports that come to a server and leave it while it lives."""
from kodiak.common import errors, saga
from kodiak.common.saga import Saga, Step, Wait
from kodiak.compute import guests, ports, record, store
from kodiak.compute.sagas import common, wiring


def _with(row, port_id, **changes):
    return [{**port, **changes} if port['id'] == port_id else port for port in row['networks']]


def _without(row, port_id):
    return [port for port in row['networks'] if port['id'] != port_id]


def wire(work):
    """Wait for the network to wire the port that the request made."""
    row, port_id = common.row_of(work), work.data['port']
    port = next((port for port in row['networks'] if port['id'] == port_id), None)
    if port is None:
        raise errors.Conflict(f'Port {port_id} was detached.')
    if not port['active'] and wiring.second_look(work):
        found = next(entry for entry in ports.wired(work.app.clients.network, row) if entry['id'] == port_id)
        port = {**port, 'active': found['active']}
    if not port['active']:
        raise Wait(wiring.PORT_LOOK, f'the network to wire port {port_id}')

    def write(connection, row):
        store.save(connection, row, networks=_with(row, port_id, active=True, pending=False))
        guests.refresh(connection, common.bus(work), row['uuid'], row['host'])
    common.later(work, write)


def unwire(work):
    """Give the port back, or delete it if it was made for this."""
    row, port_id = common.row_of(work), work.data['port']
    ports.release(work.app.clients.network, row, only={port_id})

    def write(connection, row):
        store.save(connection, row, networks=_without(row, port_id))
        guests.refresh(connection, common.bus(work), row['uuid'], row['host'])
    common.later(work, write)


def plug(work):
    """Wait for the agent to plug it."""
    row = common.row_of(work)
    if row['host']:
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to plug port {work.data["port"]}')
    common.later(work, lambda connection, row: record.finish(connection, row['uuid']))


def attach_failed(work, error):
    """Say so in the record; the server is what it was."""
    def write(connection, row):
        if row is not None:
            record.finish(connection, row['uuid'], error=str(error))
    common.alter(work, write)


ATTACH = Saga('attach_interface', [Step('wire', wire, unwire), Step('plug', plug)], on_failure=attach_failed, deadline=300)


def unplug(work):
    """Have the agent unplug the port."""
    row, port_id = common.row_of(work), work.data['port']
    if any(port['id'] == port_id and not port.get('pending') for port in row['networks']):
        def write(connection, row):
            store.save(connection, row, networks=_with(row, port_id, pending=True))
            guests.refresh(connection, common.bus(work), row['uuid'], row['host'])
        common.alter(work, write)
    if row['host']:
        common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to unplug port {port_id}')


def replug(work):
    """Have it plugged again, if it is still there."""
    port_id = work.data['port']
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is None or row['deleted']:
        return
    there = work.app.clients.network.get('/v2.0/ports', params={'id': port_id, 'device_id': row['uuid']})['ports']

    def write(connection, row):
        store.save(connection, row, networks=_with(row, port_id, pending=False) if there else _without(row, port_id))
        guests.refresh(connection, common.bus(work), row['uuid'], row['host'])
    common.later(work, write)


def release(work):
    """Delete the port that compute made, or give the owner's back."""
    row, port_id = common.row_of(work), work.data['port']
    ports.release(work.app.clients.network, row, only={port_id})

    def write(connection, row):
        store.save(connection, row, networks=_without(row, port_id))
        record.finish(connection, row['uuid'])
    common.later(work, write)


DETACH = Saga('detach_interface', [Step('unplug', unplug, replug), Step('release', release)], on_failure=attach_failed,
              deadline=300)


def is_busy(connection, uuid, port_id):
    """True if a saga already attaches or detaches the port."""
    return any(found['name'] in (ATTACH.name, DETACH.name) and (found['data'] or {}).get('port') == port_id
               for found in saga.active(connection, uuid))
