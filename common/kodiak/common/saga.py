"""Sagas: ordered steps across services, each with its undo, recorded step by step in the database.

A request that needs such work writes the saga's row in its own transaction (:func:`start`) and answers.
A :class:`Worker` leases the row, runs the steps in order and writes each step's output together with the
advance to the next. When the worker dies, another takes over as soon as the lease has run out and begins
with the step that was not recorded as done. Therefore:

* a ``do`` may run more than once: it looks first whether it already did what it does;
* an ``undo`` may run more than once, and after a ``do`` that never began, failed half-way or was cut off:
  the step that failed is undone too, then those before it, last first.

A ``do`` or ``undo`` takes a :class:`Work`. It raises :class:`Wait` to be looked at again later, or sooner
if nudged; :class:`Retry` or a transient error (a lost connection, a 5xx of another service, a deadlock) to be
run again after a pause; anything else means failure. The sagas of one resource run one at a time,
in the order in which they were started, so a delete waits until the create that it aborted has unwound.
"""
import dataclasses
import time
from collections.abc import Callable

import sqlalchemy as sa

from kodiak.common import db, errors, wake
from kodiak.common.context import Context, background
from kodiak.common.saga_rows import log, rows, tables

__all__ = ['Aborted', 'DeadlinePassed', 'Retry', 'Saga', 'Step', 'Wait', 'Work', 'abort', 'active', 'log', 'nudge',
           'rows', 'start', 'tables']


class Wait(Exception):
    """Not yet: look again in ``seconds``, or when the resource is nudged. ``reason`` says what is awaited."""

    def __init__(self, seconds, reason):
        super().__init__(reason)
        self.seconds = seconds


class Retry(Exception):
    """It failed for a reason that may pass: run the step again after a pause."""


class Aborted(errors.Conflict):
    """The saga was stopped by :func:`abort`; the message is the reason given there."""


class DeadlinePassed(errors.Error):
    """The saga was not finished in time."""


@dataclasses.dataclass
class Step:
    """One step. ``do(work)`` returns a dictionary to be merged into ``work.data``, or None.

    :param retries: how often a ``do`` is run again after transient errors before the saga unwinds (pauses of
        0.2 s doubling up to 15 s: ten retries last about a minute).
    """

    name: str
    do: Callable
    undo: Callable | None = None
    retries: int = 10


@dataclasses.dataclass
class Saga:
    """A kind of saga. ``name`` and the order of the steps must not change while such sagas run.

    :param on_failure: ``on_failure(work, error)``, run when all is unwound: writes the resource's state and the
        reason (``error.message`` is fit for the resource's owner; ``error.code``, ``error.kind``). It leaves alone
        a resource that something else has taken on meanwhile (an ``Aborted`` by a delete).
    :param deadline: seconds from the start until it unwinds by itself; unwinding then has as long again.
    """

    name: str
    steps: list
    on_failure: Callable | None = None
    deadline: float = 600


class Work:
    """What a step works with: ``data`` (JSON; outputs of earlier steps merged in), ``context``, ``app`` (the
    process's Runtime), ``db``, ``saga_id``, ``resource_id``, ``attempts`` (failed runs of this step so far)."""

    def __init__(self, app, row):
        self.app, self.db = app, app.db
        self.saga_id, self.resource_id, self.name = row['id'], row['resource_id'], row['name']
        self.data = row['data'] or {}
        self.attempts = row['attempts']
        self.context = Context.from_dict(row['context']) if row['context'] else background(row['request_id'])
        self.pending = []

    def in_commit(self, function):
        """Run ``function(connection)`` in the transaction that records this step as done, or as waiting: once for each."""
        self.pending.append(function)


def start(connection, saga, resource_id, data=None, context=None, deadline=None):
    """Write a saga's row in the caller's transaction and wake a worker after its commit.

    Tokens in ``context`` are not stored: a saga works with the service's own credentials.

    :param deadline: seconds, where this one differs from the saga's own.
    :returns: the saga's number.
    """
    when, now = db.utcnow(), time.time()        # so that a saga begins before its first step
    values = context.to_dict() if context is not None else None
    for secret in ('auth_token', 'service_token', 'redacted_copy') if values else ():
        values.pop(secret, None)
    result = connection.execute(sa.insert(rows), {
        'name': saga.name, 'resource_id': resource_id, 'state': 'running', 'step': 0, 'data': data or {},
        'context': values, 'request_id': context.request_id if context else None,
        'global_request_id': context.global_request_id if context else None, 'lease_until': 0.0, 'next_run_at': now,
        'deadline_at': now + (deadline or saga.deadline), 'began_at': now, 'attempts': 0, 'version': 0, 'nudges': 0,
        'created_at': when, 'updated_at': when})
    wake.after_commit(connection, 'saga')
    return result.inserted_primary_key[0]


_nudge = sa.update(rows).where(rows.c.resource_id == sa.bindparam('resource'), rows.c.next_run_at.is_not(None)).values(
    nudges=rows.c.nudges + 1, next_run_at=sa.bindparam('now'))


def nudge(connection, resource_id):
    """Have the saga of a resource that waits look again at once (after the commit)."""
    connection.execute(_nudge, {'resource': resource_id, 'now': time.time()})
    wake.after_commit(connection, 'saga')


def abort(connection, resource_id, reason, name=None):
    """Stop the sagas of a resource (those called ``name`` only, if given) that still run: they unwind.

    A step that is running is let finish, and is undone. A saga that already unwinds is left to it.

    :returns: the number of sagas stopped.
    """
    query = sa.update(rows).where(rows.c.resource_id == resource_id, rows.c.state == 'running',
                                   rows.c.abort.is_(None))
    if name is not None:
        query = query.where(rows.c.name == name)
    stopped = connection.execute(query.values(abort=reason, nudges=rows.c.nudges + 1, next_run_at=time.time())).rowcount
    wake.after_commit(connection, 'saga')
    return stopped


def active(connection, resource_id):
    """The unfinished sagas of a resource, oldest first: dictionaries of the row."""
    return db.all_dicts(connection, sa.select(rows).where(
        rows.c.resource_id == resource_id, rows.c.next_run_at.is_not(None)).order_by(rows.c.id))


def __getattr__(name):
    # The worker is imported by those who run one, not by the APIs that start sagas.
    if name == 'Worker':
        from kodiak.common.saga_worker import Worker
        return Worker
    raise AttributeError(name)
