"""Moving a volume to another back end, and giving it another type."""
import datetime

from kodiak.common import db, saga
from kodiak.storage_block import attach, keys, scheduler, states, store, types, work
from kodiak.storage_block.models import attachments, volumes

from .common import alter, failing, later, row_of
from .volumes import tell_compute

GRACE = datetime.timedelta(minutes=2)       # in which compute begins to have a guest follow its volume


def _choose(job):
    """Find where it goes: ``target`` of the row, or nowhere where it can stay."""
    def write(connection, row):
        if row['target'] is not None or job.data.get('stays'):
            return row['target']
        conf, data = job.app.conf, job.data
        wish = scheduler.Wish(size=row['size'], zone=row['availability_zone'] if not data.get('host') else None,
                              extra_specs=data['extra_specs'], multiattach=data['multiattach'])
        if data.get('host') is None:
            try:
                # Where it is there is room for it already.
                wish.size, wish.backend = 0, row['backend']
                scheduler.place(connection, conf, wish)
                return None
            except scheduler.NoValidBackend as error:
                if data.get('policy') == 'never':
                    raise scheduler.NoValidBackend(f'{error.message} The migration policy on-demand would move it.') from None
            wish.backend = None
        else:
            wish.backend = data['host']
            if data.get('force'):
                wish.extra_specs, wish.multiattach = {}, False
        wish.size, wish.avoid = row['size'], (row['backend'],)
        target = scheduler.place(connection, conf, wish)
        store.save(connection, volumes, row, target=target, migration_status='migrating')
        return target
    row_of(job)
    target = alter(job, write)
    return {'stays': target is None, 'source': row_of(job)['backend'], 'target': target}


def _forget_target(job):
    alter(job, lambda connection, row: store.save(connection, volumes, row, target=None))


def _lend(job):
    """Have a volume of another host exported to the one that copies it."""
    data = job.data
    if data['stays'] or data.get('attached') or work.host_of(data['source']) == work.host_of(data['target']):
        return None

    def write(connection, row):
        lent = data.get('lent') or f'{job.saga_id:08x}-0000-4000-8000-{row["id"][-12:]}'
        if store.get(connection, attachments, lent) is None:
            attachment = store.insert(connection, attachments, {
                'id': lent, 'volume_id': row['id'], 'project_id': row['project_id'], 'instance_uuid': None, 'attached_host': None,
                'mountpoint': None, 'attach_mode': 'ro', 'attach_status': 'copying', 'attached_at': None, 'connector': None,
                'backend': None, 'auth_username': None, 'auth_password': None, 'generation': 0, 'reached': None, 'error': None})
            attach.export(connection, job.app.conf, row, attachment, {'host': work.host_of(data['target']), 'mode': 'ro'},
                          settle=False)
        return store.get(connection, attachments, lent)
    found = alter(job, write)
    if found['error']:
        raise work.Failed(found['error'])
    if found['reached'] is None:
        raise saga.Wait(3, f'the export of the volume by {work.host_of(data["source"])}')
    return {'lent': found['id']}


def _give_back(job):
    def write(connection):
        for row in store.attachments_of(connection, job.resource_id):
            if row['attach_status'] == 'copying':
                attach.withdraw(connection, row)
                store.delete(connection, attachments, row['id'])
    job.db.transact(write)


def _copy(job):
    data = job.data
    if data['stays']:
        return
    row = row_of(job)
    source = {'type': 'volume', 'volume_id': row['id'], 'backend': work.short(data['source']), 'size': row['size']}
    if data.get('attached'):
        source = {'type': 'none'}       # the guest's own hypervisor copies
    elif data.get('lent'):
        with job.db.read() as connection:
            source = {'type': 'connection', 'connection': store.get(connection, attachments, data['lent'])['reached'],
                      'size': row['size']}
    work.perform(job, 'copy', data['target'], 'create_volume', {
        'volume_id': row['id'], 'size': row['size'], 'source': source, 'encryption': row['encryption']})


def _remove_copy(job):
    target = job.data.get('target')
    with job.db.read() as connection:
        row = store.get(connection, volumes, job.resource_id)
    if target and (row is None or row['backend'] != target):
        work.undo(job, 'copy', target, 'delete_volume', {'volume_id': job.resource_id})


def _offer(job):
    """Where a server has it: have compute copy the guest's disk, and let the guest go on with the copy."""
    data = job.data
    if not data.get('attached') or data['stays']:
        return None
    follower = _follower(job)

    def write(connection, row):
        if store.get(connection, attachments, follower) is None:
            if not attached_once(store.attachments_of(connection, row['id'])):
                raise work.Failed('The volume was detached meanwhile.')
            tell_compute(connection, 'volume-moving', attach.follow(connection, row, follower), job.context)
    row_of(job)
    alter(job, write)
    return {'follower': follower}


def _follower(job):
    """The id of the attachment that :func:`_offer` makes."""
    return f'{job.saga_id:08x}-0000-4000-8001-{job.resource_id[-12:]}'


def _withdraw(job):
    """Take the offer back; but where the guest has gone on with the copy already, that is what the volume is."""
    data = job.data

    def write(connection, row):
        one = store.lock(connection, attachments, _follower(job))
        if row['backend'] == data.get('target'):
            _let_go(connection, job)
        elif one:
            attach.remove(connection, row, one)
    alter(job, write)


def _await_guest(job):
    data = job.data
    if not data.get('follower'):
        return
    with job.db.read() as connection:
        row, one = row_of(job), store.get(connection, attachments, data['follower'])
    if row['backend'] == data['target']:
        return
    if one is None:
        raise work.Failed('The server could not go on with a copy of the volume; the list of its events says why.')
    if one['connector'] is None and one['created_at'] < db.utcnow() - GRACE:
        raise work.Failed('Compute does not have the server follow the volume. Detach it first.')
    raise saga.Wait(2, 'the guest to go on with the copy')


def _let_go(connection, job):
    """Remove the data that the volume has left behind."""
    work.post(connection, work.key_of(job, 'clean'), job.data['source'], 'delete_volume', job.resource_id,
              {'volume_id': job.resource_id}, job.resource_id)


def attached_once(there):
    """True of the attachments of a volume that one server has through compute, and writes to."""
    return len(there) == 1 and there[0]['attach_status'] == 'attached' and there[0]['connector'] is not None and bool(
        there[0]['instance_uuid']) and there[0]['attach_mode'] != 'ro'


def _new_key(job):
    """Where the new type is encrypted otherwise: a key, recorded before anything is written with it."""
    wanted = job.data.get('encryption')
    if not wanted:
        return {'made': None}
    return {'made': alter(job, lambda connection, row: {'key_id': keys.make(connection, job.app.conf, row['id']), **wanted})}


def _drop_key(job):
    if job.data.get('made'):
        job.db.transact(keys.delete, job.data['made'])


def _rewrite(job):
    """Where the new type is encrypted otherwise: bring the data to that."""
    row, data = row_of(job), job.data
    if 'encryption' not in data:
        return
    work.perform(job, 'rewrite', row['target'] or row['backend'], 'retype_volume', {
        'volume_id': row['id'], 'size': row['size'], 'old_encryption': row['encryption'], 'new_encryption': data['made']})


def _switch(job):
    data = job.data

    def write(connection, row):
        changes = {'target': None, 'migration_status': 'success' if data['target'] else None}
        if data['target']:
            zone = scheduler.pools(connection, job.app.conf)[data['target']].zone
            changes.update(backend=data['target'], availability_zone=zone)
        if data.get('type_id'):
            changes.update(volume_type_id=data['type_id'], multiattach=data['multiattach'])
        if 'encryption' in data:
            keys.delete(connection, row['encryption'])
            changes.update(encryption=data['made'], encrypted=data['made'] is not None)
        for one in store.attachments_of(connection, row['id']):
            if one['attach_status'] == 'copying':
                attach.withdraw(connection, one)
                store.delete(connection, attachments, one['id'])
        store.settle(connection, row, **changes)
        if data['target']:
            # With the row, for good: from here on there is nothing to go back to.
            _let_go(connection, job)
    row_of(job)
    later(job, write)


def _kept(connection, row, job, error):
    retype = bool(job.data.get('type_id'))
    store.settle(connection, row, target=None, migration_status=None if retype else 'error')


MOVE = saga.Saga('move', [
    saga.Step('choose', _choose, _forget_target), saga.Step('lend', _lend, _give_back), saga.Step('copy', _copy, _remove_copy),
    saga.Step('offer', _offer, _withdraw), saga.Step('follow', _await_guest), saga.Step('key', _new_key, _drop_key),
    saga.Step('rewrite', _rewrite), saga.Step('switch', _switch)],
    on_failure=failing(lambda job, error: 'retype' if job.data.get('type_id') else 'migrate', _kept),
    deadline=states.VOLUME[states.RETYPING].deadline)


def begin_retype(connection, row, kind, policy, context):
    """Start to give a locked volume the type ``kind`` (a row)."""
    data = {'type_id': kind['id'], 'extra_specs': kind['extra_specs'], 'multiattach': types.multiattach(kind), 'policy': policy,
            'attached': row['status'] == states.IN_USE}
    wanted = types.encryption_of(connection, kind['id'])
    there = row['encryption'] and {name: row['encryption'][name] for name in ('provider', 'cipher', 'key_size')}
    if wanted != there:
        data['encryption'] = wanted
    store.save(connection, volumes, row, status=states.RETYPING, previous_status=row['status'])
    saga.start(connection, MOVE, row['id'], data, context)


def begin_migrate(connection, row, host, force, context):
    """Start to move a locked volume to the back end ``host``."""
    kind = types.get(connection, row['volume_type_id'])
    store.save(connection, volumes, row, migration_status='starting')
    saga.start(connection, MOVE, row['id'], {
        'host': host, 'force': force, 'extra_specs': kind['extra_specs'] if kind else {}, 'multiattach': row['multiattach'],
        'attached': row['status'] == states.IN_USE}, context)


ALL = [MOVE]
