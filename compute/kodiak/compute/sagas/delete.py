"""The end of a server: the guest, the ports, the claim, the row."""
from kodiak.common import saga
from kodiak.common.saga import Saga, Step
from kodiak.compute import guests, moves, placement, ports, record, states, store
from kodiak.compute.models import console_tokens
from kodiak.compute.sagas import common, volumes


def begin(connection, uuid, context, action=None):
    """Have a server deleted: whatever else is being done to it unwinds first. False if it is gone already."""
    row = store.lock(connection, uuid)
    if row is None or row['deleted']:
        return False
    if row['task_state'] == 'deleting' and any(found['name'] == SAGA.name for found in saga.active(connection, uuid)):
        return True
    saga.abort(connection, uuid, 'The server is being deleted.')
    store.save(connection, row, task_state='deleting', progress=0)
    if action:
        record.begin(connection, uuid, action, context, event='compute_terminate_instance', host=row['host'])
    saga.start(connection, SAGA, uuid, {}, context)
    return True


def guest(work):
    """Have the guest vanish from its host; a host that is down keeps the wish and is not waited for."""
    common.vanish(work, work.resource_id)


def network(work):
    """Delete the ports that compute made and give back the others."""
    with work.db.read() as connection:
        row, spec = store.get(connection, work.resource_id), store.spec(connection, work.resource_id)
    if row is None or (spec.get('networks') in (None, 'none', []) and not row['networks']):
        return
    requests = spec.get('networks') or []
    given = [request['port'] for request in requests if request.get('port')] if isinstance(requests, list) else []
    ports.release(work.app.clients.network, row, given)


def detach(work):
    """End the attachments of its volumes, and delete those that go with it."""
    volumes.drop(work)
    volumes.remove(work)


def image(work):
    """Delete the image that a shelved server would have come back from."""
    with work.db.read() as connection:
        shelved = store.spec(connection, work.resource_id).get('shelved_image')
    if shelved:
        work.app.clients.image.delete('/v2/images/' + shelved)


def end(work):
    """Free the claim and mark the row deleted."""
    def write(connection, row):
        now = store.now()
        placement.release(connection, row['uuid'])
        moves.close(connection, row['uuid'])
        store.save(connection, row, vm_state=states.DELETED, task_state=None, deleted=True, deleted_at=now,
                   terminated_at=row['terminated_at'] or now, power_state=0, networks=[], volumes=[])
        record.finish(connection, row['uuid'])
        connection.execute(console_tokens.delete().where(console_tokens.c.server_uuid == row['uuid']))
    common.later(work, write)


def failed(work, error):
    """Say why it is still there."""
    def write(connection, row):
        if row is not None and not row['deleted']:
            store.fail(connection, row, f'The server could not be deleted: {error}')
            record.finish(connection, row['uuid'], error=str(error))
    common.alter(work, write)


SAGA = Saga('delete', [
    Step('guest', guest), Step('network', network), Step('volumes', detach, retries=30),
    Step('image', image), Step('end', end)],
    on_failure=failed, deadline=600)


def soften(connection, bus, row, context):
    """Switch a locked server off and keep it for a while, restorable."""
    record.begin(connection, row['uuid'], 'delete', context, event='compute_soft_delete_instance', host=row['host'])
    guests.change(connection, bus, row['uuid'], row['host'], desired='stopped')
    now = store.now()
    store.save(connection, row, vm_state=states.SOFT_DELETED, task_state=None, deleted_at=now, terminated_at=now)
    record.finish(connection, row['uuid'])
