"""What the sagas share: the server's row, the wish for a host and the wait for its agent."""
import logging

import sqlalchemy as sa

from kodiak.common import db, errors, heartbeat
from kodiak.common.saga import Wait
from kodiak.compute import guests, record, store
from kodiak.compute.models import services
from kodiak.compute.scheduler import BINARY

LOG = logging.getLogger(__name__)
# How long a saga waits for a nudge before it looks by itself.
LOOK = 15


class HostFault(errors.Conflict):
    """The agent says that the guest cannot be brought to what it should be."""


class Gone(errors.Conflict):
    """The server was deleted meanwhile, or is no longer what this saga began with."""


def row_of(work):
    """The server of a saga; ``Gone`` where there is none any more."""
    with work.db.read() as connection:
        row = store.get(connection, work.resource_id)
    if row is None or row['deleted']:
        raise Gone(f'Server {work.resource_id} is gone.')
    return row


def alter(work, function):
    """``function(connection, locked row)`` in a transaction; the row may be None."""
    return work.db.transact(lambda connection: function(connection, store.lock(connection, work.resource_id)))


def task(name, **changes):
    """A function for ``work.in_commit`` or :func:`alter` that sets the task of a server."""
    def write(connection, row):
        if row is not None and not row['deleted']:
            store.save(connection, row, task_state=name, **changes)
    return write


def later(work, function):
    """Run ``function(connection, locked row)`` in the transaction that records the step, if the server is still there."""
    def write(connection):
        row = store.lock(connection, work.resource_id)
        if row is not None and not row['deleted']:
            function(connection, row)
    work.in_commit(write)


def named(task_state):
    """``function(connection, locked row)`` that says what is being done to the server."""
    return lambda connection, row: store.save(connection, row, task_state=task_state)


def finished(work, vm_state=None, error=None, **changes):
    """End what is being done to the server in the transaction that records the step."""
    def write(connection, row):
        if vm_state is not None:
            changes['vm_state'] = vm_state
        store.save(connection, row, task_state=None, **changes)
        record.finish(connection, row['uuid'], error=error)
    later(work, write)


def await_guest(work, uuid, host, what, number=None, attempts=5):
    """Return the guest once its agent has settled it (and operation ``number`` has ended).

    :raises Wait: not yet. :raises HostFault: it cannot be; ``fault`` is what the agent said.
    """
    with work.db.read() as connection:
        guest = guests.get(connection, uuid, host)
    if guest is None:
        raise Gone(f'Server {uuid} is not on {host} any more.')
    if number is not None:
        outcome = guests.outcome(guest, number)
        if outcome is None:
            _check_fault(guest, attempts)
            raise Wait(LOOK, what)
        if outcome.get('fault'):
            raise _host_fault(outcome['fault'], host)
        return guest
    if not guests.settled(guest):
        _check_fault(guest, attempts)
        raise Wait(LOOK, what)
    return guest


def _check_fault(guest, attempts):
    fault = guest['fault']
    if fault and (fault.get('final') or fault.get('attempts', 1) >= attempts):
        raise _host_fault(fault, guest['host'])


def _host_fault(fault, host):
    error = HostFault(fault['message'], kind=fault.get('code') or 'hypervisor', detail={'final': bool(fault.get('final')),
                                                                                        'host': host})
    return error


def result_of(guest, number):
    """What an operation that ended well returned."""
    return (guests.outcome(guest, number) or {}).get('result') or {}


def host_is_up(connection, host):
    """True if the agent of a host is alive."""
    row = db.one(connection, sa.select(services).where(services.c.host == host, services.c.binary == BINARY))
    return row is not None and heartbeat.is_up(row)


def bus(work):
    """The process's bus, for hints."""
    return work.app.bus


def operate(work, uuid, host, kind, args=None, desired=None, mark=None, **more):
    """Have an agent do an operation once, however often the step runs. Returns its number.

    :param mark: what tells it from another of its kind.
    :param desired: what the guest should be from then on; :param more: further columns of the guest (``flavor``).
    """
    mark = f'{work.saga_id}/{mark or kind}'

    def write(connection):
        guest = guests.get(connection, uuid, host)
        if guest is None:
            raise Gone(f'Server {uuid} is not on {host} any more.')
        for pending in guest['operations']:
            if pending['args'].get('mark') == mark:
                return pending['number']
        guest = guests.change(connection, bus(work), uuid, host, desired=desired, operation=kind,
                              args={**(args or {}), 'mark': mark}, request_id=work.context.request_id, **more)
        return guest['last_number']
    return work.db.transact(write)


def read_outcome(work, uuid, host, number):
    """Let the agent forget an outcome, in the transaction that records the step."""
    work.in_commit(lambda connection: guests.change(connection, bus(work), uuid, host, done=[number]))


def wish(work, uuid, host, desired):
    """Change what a guest should be, unless it is that already."""
    def write(connection):
        guest = guests.get(connection, uuid, host)
        if guest is not None and guest['desired'] != desired:
            guests.change(connection, bus(work), uuid, host, desired=desired)
    work.db.transact(write)


def vanish(work, uuid, host=None):
    """Have a server vanish from a host (or from all); waits for agents that are alive."""
    def write(connection):
        there = [guest['host'] for guest in guests.of(connection, uuid) if host in (None, guest['host'])]
        guests.remove(connection, bus(work), uuid, host)
        return [name for name in there if host_is_up(connection, name)]
    waiting = work.db.transact(write)
    if waiting:
        # A host that is down keeps the wish: its agent removes the guest when it is back.
        raise Wait(LOOK, f'{", ".join(waiting)} to remove the guest')


def back(work, error, action=None, **changes):
    """Return a server to where it was after a failed change that left it whole, and say why where its owner reads it."""
    def write(connection, row):
        if row is None or row['deleted'] or row['task_state'] in ('deleting', 'soft-deleting'):
            return
        store.fail(connection, row, error.message if isinstance(error, errors.Error) else str(error),
                   vm_state=changes.pop('vm_state', row['vm_state']), **changes)
        record.finish(connection, row['uuid'], error=str(error))
        if action:
            action(connection, row)
    alter(work, write)
