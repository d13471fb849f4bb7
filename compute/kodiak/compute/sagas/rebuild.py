"""Rebuilding a server that boots from a volume: the volume is written anew from an image while nobody has it."""
from kodiak.common import errors, saga
from kodiak.common.saga import Saga, Step, Wait
from kodiak.compute import guests, states, store
from kodiak.compute.sagas import common, volumes


def begin(connection, row, context, image, changes):
    """Start it for a locked server, which must be checked. Returns the row."""
    root = next(entry for entry in row['volumes'] if entry.get('boot_index') == 0)
    desired = 'stopped' if row['vm_state'] == states.STOPPED else 'running'
    row = store.save(connection, row, task_state='rebuild_block_device_mapping', fault=None, progress=0, **changes)
    saga.start(connection, REBUILD, row['uuid'], {
        'volume': root['id'], 'image_id': image['id'], 'properties': image['properties'], 'desired': desired}, context)
    return row


def stop(work):
    """Switch the guest off."""
    row = common.row_of(work)
    common.wish(work, row['uuid'], row['host'], 'stopped')
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to stop the guest')


def unstop(work):
    """Have it as it was."""
    common.wish(work, work.resource_id, common.row_of(work)['host'], work.data['desired'])


def free(work):
    """Take the volume from the host, and keep it reserved."""
    volumes.bring(work, '', only=work.data['volume'])
    return {'at_stake': True}


def unfree(work):
    """Give it back."""
    row = common.row_of(work)
    volumes.bring(work, row['host'])
    work.db.transact(guests.refresh, common.bus(work), row['uuid'], row['host'])


def ask(work):
    """Have the volume written anew."""
    service = volumes.block(work)
    if service.volume(work.data['volume'])['status'] != 'downloading':
        service.action(work.data['volume'], 'os-reimage', image_id=work.data['image_id'], reimage_reserved=True)


def await_volume(work):
    """Wait until it is. Block storage says when; it is asked as well."""
    status = volumes.block(work).volume(work.data['volume'])['status']
    if status == 'downloading':
        raise Wait(volumes.LOOK, f'volume {work.data["volume"]} to be written')
    if status.startswith('error'):
        raise errors.Conflict(f'Volume {work.data["volume"]} could not be written from the image.')


def connect(work):
    """Have it offered to the host again."""
    volumes.bring(work, common.row_of(work)['host'])


def rebuild(work):
    """Have the other disks made anew, and the guest started if it ran."""
    row = common.row_of(work)

    def write(connection):
        spec = store.spec(connection, row['uuid'])
        hardware = {'image_id': work.data['image_id'], **work.data['properties']}
        if spec.get('hardware') != hardware:
            store.save_spec(connection, row['uuid'], {**spec, 'hardware': hardware})
    work.db.transact(write)
    number = common.operate(work, row['uuid'], row['host'], 'rebuild', desired=work.data['desired'], rescue=None)
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to build the guest', number=number)
    common.await_guest(work, row['uuid'], row['host'], f'{row["host"]} to start the guest')
    common.read_outcome(work, row['uuid'], row['host'], number)


def over(work):
    """It is what it was, with another system on it."""
    common.finished(work, vm_state=states.OF_DESIRED[work.data['desired']])


def failed(work, error):
    """It is what it was; once its volume may have been written to, it is in error."""
    def forget(connection, row):
        guest = guests.get(connection, row['uuid'], row['host'])
        if guest is not None and guest['operations']:
            guests.change(connection, common.bus(work), row['uuid'], row['host'],
                          done=[operation['number'] for operation in guest['operations']])
    common.back(work, error, action=forget, **({'vm_state': states.ERROR} if work.data.get('at_stake') else {}))


REBUILD = Saga('rebuild_volume', [
    Step('stop', stop, unstop), Step('free', free, unfree), Step('ask', ask), Step('written', await_volume),
    Step('connect', connect), Step('rebuild', rebuild), Step('over', over)], on_failure=failed, deadline=1700)
