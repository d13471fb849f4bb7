"""What the sagas share: the row that they are about, locked changes of it, and the word to its owner when they fail."""
import logging

from kodiak.common import errors, saga
from kodiak.storage_block import messages, store
from kodiak.storage_block.models import volumes

LOG = logging.getLogger(__name__)


class Gone(errors.Conflict):
    """What the saga is about was deleted meanwhile."""


def row_of(work, table=volumes):
    """The row that a saga is about; ``Gone`` where there is none any more."""
    with work.db.read() as connection:
        row = store.get(connection, table, work.resource_id)
    if row is None:
        raise Gone(f'{store.KINDS[table.name]} {work.resource_id} is gone.')
    return row


def alter(work, function, table=volumes, row_id=None):
    """``function(connection, locked row)`` in a transaction, if the row is there; returns what it returns."""
    def write(connection):
        row = store.lock(connection, table, row_id or work.resource_id)
        return None if row is None else function(connection, row)
    return work.db.transact(write)


def later(work, function, table=volumes, row_id=None):
    """Run ``function(connection, locked row)`` in the transaction that records the step, if the row is there."""
    def write(connection):
        row = store.lock(connection, table, row_id or work.resource_id)
        if row is not None:
            function(connection, row)
    work.in_commit(write)


def failing(action, change, table=volumes, kind='VOLUME'):
    """An ``on_failure`` that changes the row and tells its owner why.

    :param action: a name of ``messages.ACTIONS``, or ``function(work, error) -> name``.
    :param change: ``function(connection, locked row, work, error)``. Nothing is done where the saga gave way to another.
    """
    def on_failure(work, error):
        def write(connection, row):
            # The message first: notifications of the change have its text.
            messages.add(connection, work.app.conf, row, action(work, error) if callable(action) else action, error.message, kind,
                         messages.NO_BACKEND if error.kind == 'NoValidBackend' else messages.UNKNOWN, work.context.request_id)
            change(connection, row, work, error)
        if not isinstance(error, saga.Aborted):
            LOG.warning('%s %s: %s', store.KINDS[table.name], work.resource_id, error.message)
            alter(work, write, table)
    return on_failure


def becomes(status, table=volumes):
    """A change for :func:`failing`: the row has this status now."""
    return lambda connection, row, work, error: store.save(connection, table, row, status=status)


def settles(connection, row, work, error):
    """A change for :func:`failing`: the volume is what its attachments say."""
    store.settle(connection, row, claimed=row['size'])
