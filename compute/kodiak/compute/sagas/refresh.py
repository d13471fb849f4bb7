"""The addresses of a server, read again from the network service because it said that they changed."""
from kodiak.common import saga
from kodiak.common.saga import Saga, Step
from kodiak.compute import guests, ports, store
from kodiak.compute.sagas import common


def read(work):
    """Read the ports and write what differs."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is None or row['deleted']:
        return
    entries = ports.look(work.app.clients.network, row)
    if entries == row['networks']:
        return

    def write(connection, row):
        store.save(connection, row, networks=entries, updated_at=row['updated_at'])
        guests.refresh(connection, common.bus(work), row['uuid'], row['host'])
    common.later(work, write)


SAGA = Saga('refresh', [Step('read', read)], deadline=120)


def begin(connection, row, context):
    """Have the addresses of a server read again, once for any number of events that come before it begins."""
    if row['task_state'] == 'deleting':
        return
    for pending in saga.active(connection, row['uuid']):
        if pending['name'] == SAGA.name and pending['step'] == 0 and pending['lease_owner'] is None:
            return
    saga.start(connection, SAGA, row['uuid'], {}, context)
