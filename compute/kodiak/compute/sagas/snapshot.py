"""Images of servers: snapshots, backups that rotate, and shelving, which is a snapshot that the server comes back from."""
from kodiak.common import errors, saga
from kodiak.common.saga import Saga, Step
from kodiak.compute import birth, guests, placement, record, scheduler, states, store
from kodiak.compute.sagas import common, volumes, wiring

# The image was asked for by the request, with its owner's token; from here on compute answers for it.

def image(work):
    """Nothing: the image is there."""


def unimage(work):
    """Delete an image that got no data."""
    if work.data['image_id'] is None:
        return
    try:
        found = work.app.clients.image.get('/v2/images/' + work.data['image_id'])
    except errors.NotFound:
        return
    if found['status'] != 'active':
        work.app.clients.image.delete('/v2/images/' + work.data['image_id'])


def upload(work):
    """Have the agent upload the disk; what a server that boots from a volume has is kept by its volumes."""
    row = common.row_of(work)
    if work.data['image_id'] is None:
        return
    number = common.operate(work, row['uuid'], row['host'], 'snapshot', {'image_id': work.data['image_id']})
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to upload the image', number=number)
    common.read_outcome(work, row['uuid'], row['host'], number)


def unupload(work):
    """Ask for the upload no more."""
    row = common.row_of(work)

    def write(connection):
        guest = guests.get(connection, row['uuid'], row['host']) if row['host'] else None
        if guest is not None and guest['operations']:
            guests.change(connection, common.bus(work), row['uuid'], row['host'], done=[
                operation['number']
                for operation in guest['operations'] if operation['args'].get('image_id') == work.data['image_id']])
    work.in_commit(write)


def rotate(work):
    """Delete the oldest backups of a kind beyond those that are to be kept."""
    if work.data.get('rotation') is None:
        return
    found = work.app.clients.image.get('/v2/images', params={
        'instance_uuid': work.resource_id, 'backup_type': work.data['backup_type'], 'image_type': 'backup',
        'sort_key': 'created_at',
        'sort_dir': 'desc', 'limit': 1000})['images']
    mine = [entry for entry in found if entry.get('instance_uuid') == work.resource_id
            and entry.get('backup_type') == work.data['backup_type']]
    for entry in mine[work.data['rotation']:]:
        work.app.clients.image.delete('/v2/images/' + entry['id'])


def over(work):
    """Done."""
    common.finished(work)


def failed(work, error):
    """The server is what it was."""
    common.back(work, error)


SNAPSHOT = Saga('snapshot', [
    Step('image', image, unimage), Step('upload', upload, unupload), Step('rotate', rotate), Step('over', over)],
    on_failure=failed, deadline=3500)


# Shelving

def stop(work):
    """Switch the guest off."""
    row = common.row_of(work)
    common.wish(work, row['uuid'], row['host'], 'stopped')
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to stop the guest')


def unstop(work):
    """Have it as it was."""
    row = common.row_of(work)
    if row['host']:
        common.wish(work, row['uuid'], row['host'], work.data['was'])


def shelved(work):
    """It is shelved; its host is freed next."""
    def write(connection, row):
        spec = store.spec(connection, row['uuid'])
        store.save_spec(connection, row['uuid'], {**spec, 'shelved_image': work.data['image_id']})
        store.save(connection, row, vm_state=states.SHELVED, task_state='shelving_offloading', power_state=states.SHUTDOWN)
        saga.start(connection, OFFLOAD, row['uuid'], {}, work.context)
    common.later(work, write)


SHELVE = Saga('shelve', [
    Step('image', image, unimage), Step('stop', stop, unstop), Step('upload', upload, unupload), Step('shelved', shelved)],
    on_failure=failed, deadline=3500)


def offload(work):
    """Have the guest vanish from its host."""
    common.vanish(work, work.resource_id)


def reserve(work):
    """Take the volumes off the host, and keep them reserved for the server."""
    volumes.bring(work, '')


def unbind(work):
    """Take the ports off the host."""
    return wiring.bind(work, '')


def offloaded(work):
    """The host is free."""
    def write(connection, row):
        placement.release(connection, row['uuid'])
        store.save(connection, row, vm_state=states.OFFLOADED, task_state=None, host=None, node=None, zone=None, power_state=0)
        record.finish(connection, row['uuid'])
    common.later(work, write)


# There is no way back once the guest is gone: the task stays, and past its deadline it is begun again.
OFFLOAD = Saga('offload', [
    Step('offload', offload), Step('volumes', reserve), Step('unbind', unbind), Step('offloaded', offloaded)], deadline=500)


# Unshelving

def schedule(work):
    """Choose a host, and take the shelved image for the server's."""
    with work.db.read() as connection:
        spec = store.spec(connection, work.resource_id)
    found = None
    if spec.get('shelved_image'):
        found = birth.described(work.app.clients.image.get('/v2/images/' + spec['shelved_image']))

    def choose(connection, row):
        if row is None or row['deleted']:
            raise common.Gone('The server was deleted.')
        if row['host']:
            return
        own = store.spec(connection, row['uuid'])
        forced = {**own, 'forced_host': work.data.get('forced'), 'forced_node': None}
        host, zone = scheduler.place(connection, work.app.conf, row, forced)
        store.save_spec(connection, row['uuid'], {**own, 'own_image': own.get('own_image') or row['image']})
        store.save(connection, row, host=host['host'], node=host['node'], zone=zone, image=found or row['image'])
    common.alter(work, choose)


def unschedule(work):
    """Give the host back."""
    def write(connection, row):
        if row is None or row['deleted']:
            return
        placement.release(connection, row['uuid'])
        own = store.spec(connection, row['uuid'])
        store.save_spec(connection, row['uuid'], {**own, 'own_image': None})
        store.save(connection, row, host=None, node=None, zone=None, image=own.get('own_image') or row['image'])
    common.alter(work, write)


def bind(work):
    """Bring the ports to the host."""
    return wiring.bind(work, common.row_of(work)['host'])


def connect(work):
    """Have the volumes offered to the host."""
    volumes.bring(work, common.row_of(work)['host'])


def disconnect(work):
    """Only keep them reserved again."""
    volumes.bring(work, '')


def spawn(work):
    """Build and start the guest."""
    row = common.row_of(work)
    work.db.transact(guests.create, common.bus(work), row['uuid'], row['host'], row['flavor'])
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to start the guest')


def unspawn(work):
    """Have it vanish."""
    common.vanish(work, work.resource_id)


def active(work):
    """It is active; the shelved image is of no more use."""
    def write(connection, row):
        own = store.spec(connection, row['uuid'])
        store.save_spec(connection, row['uuid'], {**own, 'own_image': None, 'shelved_image': None})
        if own.get('shelved_image'):
            saga.start(connection, FORGET, own['shelved_image'], {}, work.context)
        store.save(connection, row, vm_state=states.ACTIVE, task_state=None, image=own.get('own_image') or row['image'],
                   power_state=states.RUNNING, launched_at=store.now())
        record.finish(connection, row['uuid'], host=row['host'])
    common.later(work, write)


UNSHELVE = Saga('unshelve', [
    Step('schedule', schedule, unschedule), Step('bind', bind, unbind), Step('wire', lambda work: wiring.wire(work) and None),
    Step('volumes', connect, disconnect), Step('spawn', spawn, unspawn), Step('active', active)], on_failure=failed, deadline=1700)


def forget(work):
    """Delete the image."""
    work.app.clients.image.delete('/v2/images/' + work.resource_id)


FORGET = Saga('forget_image', [Step('forget', forget)], deadline=3600)


def here(work):
    """Start the guest of a shelved server that still has its host."""
    row = common.row_of(work)
    common.wish(work, row['uuid'], row['host'], 'running')
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to start the guest')


UNSHELVE_HERE = Saga('unshelve_here', [Step('here', here), Step('active', active)], on_failure=failed, deadline=600)
