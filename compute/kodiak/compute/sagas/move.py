"""Another size or another host: resize and cold migration, their confirmation and their reversal, and evacuation.

On the same host the agent keeps the old disks beside the new ones. To another host the source serves its disks, the
destination fetches them, and the source keeps them until the move is confirmed.
"""
import secrets

from kodiak.common import saga
from kodiak.common.saga import Saga, Step
from kodiak.compute import guests, moves, placement, record, scheduler, states, store
from kodiak.compute.sagas import common, volumes, wiring
from kodiak.compute.sagas.boot import forget_password


def _move(work):
    with work.db.read() as connection:
        return moves.get(connection, work.data['move'])


def _same(move):
    return move['source'] == move['dest']


def _wanted(move):
    """What the guest should be when the move is over."""
    return states.DESIRED_OF.get(move['old_state'], 'running')


# Resize and cold migration

def claim(work):
    """Choose the host and claim the new size there, beside what the server has."""
    _claim(work, _choose, 'migrating', task_state='resize_migrating')


def _claim(work, choose, status, **values):
    """Hold on a host what a server is to have there.

    :param choose: a function of ``(work, connection, row, move)`` that gives the host and what is claimed of it.
    :param status: of the move from then on; ``values`` are the server's.
    """
    def change(connection, row):
        move = moves.get(connection, work.data['move'])
        if row is None or row['deleted']:
            raise common.Gone('The server was deleted.')
        if move['dest']:
            return
        host, wanted = choose(work, connection, row, move)
        moves.hold(connection, move, row, host['uuid'], wanted)
        moves.put(connection, move['uuid'], dest=host['host'], dest_node=host['node'], status=status)
        if values:
            store.save(connection, row, **values)
    common.alter(work, change)


def _choose(work, connection, row, move):
    spec = {**store.spec(connection, row['uuid']), 'forced_host': None, 'forced_node': None}
    source, forced = move['source'], work.data.get('forced')

    def attempt(**more):
        made = scheduler.Scheduler(connection, work.app.conf, row, spec, flavor=move['new_flavor'], **more)
        return made.choose(), made.wanted
    if forced:
        return attempt(forced=forced, excluded=[source])
    if move['kind'] == 'resize':
        try:
            # Nothing needs to be copied where the server already is.
            return attempt(forced=source)
        except scheduler.NoValidHost:
            pass
    return attempt(excluded=[source])


def unclaim(work):
    """Give the server back what it had."""
    def write(connection, row):
        move = moves.get(connection, work.data['move'])
        if row is not None and not row['deleted']:
            moves.give_back(connection, move, row)
        moves.put(connection, move['uuid'], status='error')
    common.alter(work, write)


def leave(work):
    """On the same host: make the new disks. To another: stop the guest and have its disks served."""
    move, uuid = _move(work), work.resource_id
    if _same(move):
        number = common.operate(work, uuid, move['source'], 'resize', flavor=move['new_flavor'], desired=_wanted(move))
    else:
        digest = {'token_sha256': _sha256(work.data['token'])}
        number = common.operate(work, uuid, move['source'], 'migrate_out', digest, desired='stopped')
    guest = common.await_guest(work, uuid, move['source'], f'{move["source"]} to prepare the disks', number=number)
    if not _same(move):
        return {'served': common.result_of(guest, number)}
    common.await_guest(work, uuid, move['source'], f'{move["source"]} to start the guest')
    common.read_outcome(work, uuid, move['source'], number)
    return None


def _sha256(text):
    import hashlib
    return hashlib.sha256(text.encode()).hexdigest()


def unleave(work):
    """Have the guest as it was."""
    move, uuid = _move(work), work.resource_id
    with work.db.read() as connection:
        guest = guests.get(connection, uuid, move['source']) if move['dest'] else None
    if guest is None or guest['desired'] == 'absent':
        return
    if _same(move):
        number = common.operate(work, uuid, move['source'], 'resize_revert', flavor=move['old_flavor'], desired=_wanted(move))
    else:
        common.wish(work, uuid, move['source'], _wanted(move))
        number = None
    with work.db.read() as connection:
        if not common.host_is_up(connection, move['source']):
            return
    try:
        common.await_guest(work, uuid, move['source'], f'{move["source"]} to have the guest as it was', number=number)
    except common.HostFault as error:
        common.LOG.warning('%s on %s: %s', uuid, move['source'], error)
    _forget_operations(work, move['source'])


def _forget_operations(work, host):
    def write(connection):
        guest = guests.get(connection, work.resource_id, host)
        if guest is not None and guest['operations']:
            guests.change(connection, common.bus(work), work.resource_id, host,
                          done=[operation['number'] for operation in guest['operations']])
    work.in_commit(write)


def bind(work):
    """Move the ports."""
    move = _move(work)
    return None if _same(move) else wiring.bind(work, move['dest'])


def unbind(work):
    """Move the ports back."""
    move = _move(work)
    if move['dest'] and not _same(move):
        wiring.bind(work, move['source'])


def wire(work):
    """Wait for the ports."""
    if not _same(_move(work)):
        wiring.wire(work)


def connect(work):
    """Have the volumes offered to the other host as well; the guest on the first is off."""
    move = _move(work)
    if not _same(move):
        volumes.bring(work, move['dest'], keep=[move['source']])


def disconnect(work):
    """Take them from there."""
    move = _move(work)
    if move['dest'] and not _same(move):
        volumes.drop(work, move['dest'])


def arrive(work):
    """Have the guest built on the other host from the disks of the first."""
    move, uuid = _move(work), work.resource_id
    if _same(move):
        return
    source = {'url': work.data['served']['url'], 'token': work.data['token']}
    work.db.transact(guests.create, common.bus(work), uuid, move['dest'], move['new_flavor'], _wanted(move), source=source)
    common.await_guest(work, uuid, move['dest'], f'{move["dest"]} to fetch the disks and start the guest')


def unarrive(work):
    """Have it vanish from there."""
    move = _move(work)
    if move['dest'] and not _same(move):
        common.vanish(work, work.resource_id, move['dest'])


def done(work):
    """The server is there, in its new size; its owner confirms or reverts."""
    def write(connection, row):
        move = moves.get(connection, work.data['move'])
        zones = scheduler.zones_of(connection, work.app.conf.compute.default_availability_zone, [move['dest']])
        moves.put(connection, move['uuid'], status='finished')
        store.save(connection, row, vm_state=states.RESIZED, task_state=None, host=move['dest'], node=move['dest_node'],
                   zone=zones[move['dest']], flavor=move['new_flavor'], progress=0, **work.data.get('changes', {}))
        record.finish(connection, row['uuid'], host=move['dest'])
        guest = guests.get(connection, row['uuid'], move['source'])
        if not _same(move) and guest is not None:
            guests.change(connection, common.bus(work), row['uuid'], move['source'],
                          done=[operation['number'] for operation in guest['operations']])
    common.later(work, write)


def failed(work, error):
    """It is what it was."""
    common.back(work, error)


MOVE = Saga('move', [
    Step('claim', claim, unclaim), Step('leave', leave, unleave), Step('bind', bind, unbind), Step('wire', wire),
    Step('volumes', connect, disconnect), Step('arrive', arrive, unarrive), Step('done', done)], on_failure=failed, deadline=1700)


def begin(connection, row, context, kind, flavor=None, forced=None, **changes):
    """Start the move of a locked server, which must be checked."""
    move = moves.begin(connection, row, context, kind, flavor)
    store.save(connection, row, task_state='resize_prep', progress=0)
    saga.start(connection, MOVE, row['uuid'], {'move': move['uuid'], 'token': secrets.token_hex(32), 'forced': forced,
                                               'changes': changes}, context)
    return move


# Confirming

def confirm(work):
    """Have the old disks removed."""
    move = _move(work)
    if _same(move):
        number = common.operate(work, work.resource_id, move['dest'], 'resize_confirm')
        common.await_guest(work, work.resource_id, move['dest'], f'{move["dest"]} to remove the old disks', number=number)
        common.read_outcome(work, work.resource_id, move['dest'], number)
    else:
        common.vanish(work, work.resource_id, move['source'])
        volumes.drop(work, move['source'])


def confirmed(work):
    """It is what it became."""
    def write(connection, row):
        move = moves.get(connection, work.data['move'])
        placement.release(connection, move['uuid'])
        moves.put(connection, move['uuid'], status='confirmed')
        guest = guests.get(connection, row['uuid'], row['host'])
        store.save(connection, row, task_state=None, vm_state=states.OF_DESIRED.get(guest and guest['desired'], states.ACTIVE))
        record.finish(connection, row['uuid'], host=row['host'])
    common.later(work, write)


CONFIRM = Saga('confirm', [Step('confirm', confirm), Step('confirmed', confirmed)], on_failure=failed, deadline=500)


# Reverting

def revert_leave(work):
    """On the same host: the old disks again. Else: have the guest vanish from where it went."""
    move, uuid = _move(work), work.resource_id
    if not _same(move):
        common.vanish(work, uuid, move['dest'])
        return volumes.bring(work, move['source'])
    number = common.operate(work, uuid, move['dest'], 'resize_revert', flavor=move['old_flavor'], desired=_wanted(move))
    common.await_guest(work, uuid, move['dest'], f'{move["dest"]} to put the old disks back', number=number)
    common.await_guest(work, uuid, move['dest'], f'{move["dest"]} to start the guest')
    return common.read_outcome(work, uuid, move['dest'], number)


def revert_bind(work):
    """Move the ports back."""
    move = _move(work)
    return None if _same(move) else wiring.bind(work, move['source'])


def revert_arrive(work):
    """Start the guest where it was."""
    move = _move(work)
    if not _same(move):
        common.wish(work, work.resource_id, move['source'], _wanted(move))
        common.await_guest(work, work.resource_id, move['source'], f'{move["source"]} to start the guest')


def reverted(work):
    """It is what it was."""
    def write(connection, row):
        move = moves.get(connection, work.data['move'])
        zones = scheduler.zones_of(connection, work.app.conf.compute.default_availability_zone, [move['source']])
        moves.give_back(connection, move, row)
        moves.put(connection, move['uuid'], status='reverted')
        store.save(connection, row, task_state=None, vm_state=move['old_state'], flavor=move['old_flavor'], host=move['source'],
                   node=move['source_node'], zone=zones[move['source']])
        record.finish(connection, row['uuid'], host=move['source'])
    common.later(work, write)


def lost(work, error):
    """There is no way back from a way back, and none to a dead host."""
    common.back(work, error, vm_state=states.ERROR)


REVERT = Saga('revert', [
    Step('leave', revert_leave), Step('bind', revert_bind), Step('wire', wire), Step('arrive', revert_arrive),
    Step('reverted', reverted)], on_failure=lost, deadline=1700)


# Evacuation: the host is dead, and the server is built anew on another

def evacuate_claim(work):
    """Choose another host."""
    _claim(work, _choose_other, 'pre-migrating')


def _choose_other(work, connection, row, move):
    spec = {**store.spec(connection, row['uuid']), 'forced_host': None, 'forced_node': None}
    made = scheduler.Scheduler(connection, work.app.conf, row, spec, excluded=[move['source']], forced=work.data.get('forced'))
    return made.choose(), made.wanted


def evacuate_connect(work):
    """Take the volumes from the dead host, in case that it lives, and have them offered to the other."""
    volumes.bring(work, _move(work)['dest'])


def evacuate_disconnect(work):
    """Give them back, and let the guest run where it was."""
    move = _move(work)
    volumes.bring(work, move['source'])
    work.db.transact(guests.refresh, common.bus(work), work.resource_id, move['source'])
    common.wish(work, work.resource_id, move['source'], _wanted(move))


def evacuate_arrive(work):
    """Build the guest there. Should the host not be dead after all, its own guest is to stop."""
    move, uuid = _move(work), work.resource_id
    common.wish(work, uuid, move['source'], 'stopped')

    def write(connection):
        guests.create(connection, common.bus(work), uuid, move['dest'], move['new_flavor'],
                      'stopped' if work.data.get('off') else _wanted(move))
    work.db.transact(write)
    common.await_guest(work, uuid, move['dest'], f'{move["dest"]} to build the guest')


def evacuate_unarrive(work):
    """Have it vanish from there."""
    move = _move(work)
    if move['dest']:
        common.vanish(work, work.resource_id, move['dest'])


def evacuated(work):
    """It lives again; the dead host removes its own guest when it is back."""
    def write(connection, row):
        move = moves.get(connection, work.data['move'])
        guests.remove(connection, common.bus(work), row['uuid'], move['source'])
        zones = scheduler.zones_of(connection, work.app.conf.compute.default_availability_zone, [move['dest']])
        placement.release(connection, move['uuid'])
        moves.put(connection, move['uuid'], status='done')
        stopped = work.data.get('off') or move['old_state'] == states.STOPPED
        store.save(connection, row, task_state=None, vm_state=states.STOPPED if stopped else states.ACTIVE, host=move['dest'],
                   node=move['dest_node'], zone=zones[move['dest']], launched_at=store.now())
        record.finish(connection, row['uuid'], host=move['dest'])
        forget_password(connection, row['uuid'])
    common.later(work, write)


EVACUATE = Saga('evacuate', [
    Step('claim', evacuate_claim, unclaim), Step('bind', bind, unbind), Step('wire', wire),
    Step('volumes', evacuate_connect, evacuate_disconnect), Step('arrive', evacuate_arrive, evacuate_unarrive),
    Step('evacuated', evacuated)],
    on_failure=lost, deadline=1700)
