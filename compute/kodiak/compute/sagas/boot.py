"""The birth of a server: a host with its claim, ports, the guest."""
from kodiak.common import saga
from kodiak.common.saga import Saga, Step
from kodiak.compute import guests, placement, ports, record, scheduler, states, store
from kodiak.compute.sagas import common, volumes, wiring
from kodiak.compute.volumes import made_for


def schedule(work):
    """Choose a host and claim it there, in one transaction."""
    def choose(connection, row):
        if row is None or row['deleted']:
            raise common.Gone('The server was deleted.')
        if row['host']:
            return {'host': row['host'], 'zone': row['zone']}
        spec = store.spec(connection, row['uuid'])
        host, zone = scheduler.place(connection, work.app.conf, row, spec, excluded=work.data.get('excluded', ()))
        plugs = spec.get('networks') not in (None, 'none', [])
        store.save(connection, row, host=host['host'], node=host['node'], zone=zone, launched_on=host['host'],
                   task_state='networking' if plugs else 'block_device_mapping' if row['volumes'] else 'spawning')
        if not plugs and not row['volumes']:
            # Nothing stands between the claim and the guest.
            guests.create(connection, common.bus(work), row['uuid'], host['host'], row['flavor'])
        return {'host': host['host'], 'zone': zone}
    return common.alter(work, choose)


def unschedule(work):
    """Give the host back."""
    def write(connection, row):
        placement.release(connection, work.resource_id)
        if row is not None and not row['deleted'] and row['launched_at'] is None:
            kept = row['task_state'] if row['task_state'] in ('deleting', 'soft-deleting') else 'scheduling'
            store.save(connection, row, host=None, node=None, zone=None, launched_on=None, task_state=kept)
    common.alter(work, write)


def network(work):
    """Make the ports and bind them to the host."""
    with work.db.read() as connection:
        row, spec = store.get(connection, work.resource_id), store.spec(connection, work.resource_id)
    requests = spec.get('networks')
    if requests in (None, 'none', []):
        return
    entries = ports.allocate(work.app.clients.network, row, requests, row['host'], row['zone'], spec.get('group_ids') or ())
    task = 'block_device_mapping' if work.name == WITH_VOLUMES.name else 'networking'
    common.later(work, lambda connection, row: store.save(connection, row, networks=entries, task_state=task))


def unnetwork(work):
    """Take the ports away again."""
    with work.db.read() as connection:
        row, spec = store.get(connection, work.resource_id), store.spec(connection, work.resource_id)
    requests = spec.get('networks')
    if requests in (None, 'none', []) or row is None:
        return
    ports.release(work.app.clients.network, row, [request['port'] for request in requests if request.get('port')])
    common.later(work, lambda connection, row: store.save(connection, row, networks=[]))


def volumes_made(work):
    """Wait for the volumes that are made for the server, and have them all offered to the host."""
    volumes.made(work)
    volumes.bring(work, common.row_of(work)['host'])
    common.later(work, common.named('networking'))


def volumes_left(work):
    """Let go of the volumes; those that were made are used for the next try."""
    volumes.drop(work)


def wire(work):
    """Wait until the network has wired the ports on the host, so that the guest never runs unfiltered."""
    row = wiring.wire(work)

    def begin(connection, row):
        store.save(connection, row, task_state='spawning')
        guests.create(connection, common.bus(work), row['uuid'], row['host'], row['flavor'])
    if row['task_state'] != 'spawning':
        common.later(work, begin)


def spawn(work):
    """Wait for the agent to build and start the guest; then the server is active."""
    row = common.row_of(work)
    if row['launched_at'] is not None:
        return
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to start the guest')

    def activate(connection, row):
        store.save(connection, row, vm_state=states.ACTIVE, task_state=None, launched_at=store.now(), progress=0,
                   power_state=states.RUNNING)
        record.finish(connection, row['uuid'], host=row['host'])
        forget_password(connection, row['uuid'])
    common.later(work, activate)


def forget_password(connection, uuid):
    """The administrator's password is needed until the guest was built, and kept no longer."""
    spec = store.spec(connection, uuid)
    if spec.get('admin_password'):
        store.save_spec(connection, uuid, {**spec, 'admin_password': None})


def unspawn(work):
    """Have the guest vanish from the host."""
    common.vanish(work, work.resource_id)


def failed(work, error):
    """Try another host, or tell the owner why there is no server. One that is being deleted is left to that."""
    tried = [*work.data.get('excluded', ()), *([work.data['host']] if work.data.get('host') else [])]
    # Errors come here as they were recorded: by their kind and detail, not their class.
    detail = error.detail if isinstance(error.detail, dict) else {}
    final = 'host' not in detail or detail.get('final')

    def write(connection, row):
        if row is None or row['deleted'] or row['task_state'] in ('deleting', 'soft-deleting'):
            return
        if not final and len(tried) < work.app.conf.compute.boot_attempts:
            store.save(connection, row, task_state='scheduling')
            saga.start(connection, kind_for(row), row['uuid'], {**work.data, 'excluded': tried, 'host': None}, work.context)
            return
        message = error.message
        if tried and error.kind == 'NoValidHost':
            message = f'Tried {", ".join(tried)}, which failed. {message}'
        store.fail(connection, row, message, code=500, volumes=[])
        record.finish(connection, row['uuid'], error=message)
        if doomed:
            saga.start(connection, volumes.FORGET, row['uuid'], {'volumes': doomed}, work.context)
    doomed = _doomed(work)
    common.alter(work, write)


def _doomed(work):
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    return made_for(volumes.block(work), row) if row is not None and row['volumes'] else []


SAGA = Saga('boot', [
    Step('schedule', schedule, unschedule),
    Step('network', network, unnetwork),
    Step('wire', wire),
    Step('spawn', spawn, unspawn),
], on_failure=failed, deadline=600)

#: For servers with volumes, made for them or not.
WITH_VOLUMES = Saga('boot_with_volumes', [
    Step('schedule', schedule, unschedule),
    Step('network', network, unnetwork),
    Step('volumes', volumes_made, volumes_left),
    Step('wire', wire),
    Step('spawn', spawn, unspawn),
], on_failure=failed, deadline=1700)


def kind_for(row):
    """The saga that boots a server."""
    return WITH_VOLUMES if row['volumes'] else SAGA
