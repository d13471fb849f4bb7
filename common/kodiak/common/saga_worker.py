"""The worker of :mod:`kodiak.common.saga`: leases due sagas, runs their steps, takes over from the dead."""
import logging
import os
import queue
import random
import threading
import time
import uuid

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors, metrics, wake
from kodiak.common.saga import Aborted, DeadlinePassed, Retry, Wait, Work, log, rows

LOG = logging.getLogger(__name__)

UNDO_RETRIES = 5            # of an undo that fails by itself; one that meets transient errors has the deadline
KEEP_FINISHED = 7 * 86400   # seconds that finished sagas and their steps stay for `kodiak trace`


class Lost(Exception):
    """Another worker has the lease now, or the saga was aborted."""


_earlier = rows.alias()
_due = sa.select(rows.c.id).where(
    rows.c.next_run_at <= sa.bindparam('now'), rows.c.lease_until <= sa.bindparam('now'),
    ~sa.exists().where(_earlier.c.resource_id == rows.c.resource_id, _earlier.c.id < rows.c.id,
                       _earlier.c.next_run_at.is_not(None))).order_by(rows.c.next_run_at).limit(sa.bindparam('many'))
_lease = sa.update(rows).where(
    rows.c.id.in_(sa.bindparam('ids', expanding=True)), rows.c.next_run_at <= sa.bindparam('now'),
    rows.c.lease_until <= sa.bindparam('now'),
).values(lease_owner=sa.bindparam('owner'), lease_until=sa.bindparam('until'), version=rows.c.version + 1)
_leased = sa.select(rows).where(rows.c.id.in_(sa.bindparam('ids', expanding=True)),
                                rows.c.lease_owner == sa.bindparam('owner'))
_extend = sa.update(rows).where(rows.c.id.in_(sa.bindparam('ids', expanding=True)),
                                rows.c.lease_owner.like(sa.bindparam('owner'))).values(lease_until=sa.bindparam('until'))
_names = ('state', 'step', 'data', 'attempts', 'began_at', 'lease_owner', 'lease_until', 'deadline_at', 'waiting', 'error')
_advance = sa.update(rows).where(
    rows.c.id == sa.bindparam('row_id'), rows.c.version == sa.bindparam('row_version'),
    sa.or_(rows.c.abort.is_(None), sa.bindparam('aborting', type_=sa.Boolean)),
).values(version=rows.c.version + 1, updated_at=sa.bindparam('when'), **{name: sa.bindparam('new_' + name) for name in _names})
# A nudge that came while the step ran must not be lost: then the row stays due.
_save = _advance.values(next_run_at=sa.case((rows.c.nudges == sa.bindparam('seen'), sa.bindparam('later')),
                                            else_=sa.bindparam('now')))
_finish = _advance.values(next_run_at=None)


class Worker:
    """Runs sagas in threads of this process.

    :param app: the process's Runtime: ``app.db``, and whatever the steps use.
    :param sagas: the :class:`Saga` objects that this worker knows.
    :param threads: how many sagas run at the same time.
    :param lease: seconds after which another worker takes over from one that went silent.
    :param poll: seconds between looks for work when nothing wakes the worker.
    """

    def __init__(self, app, sagas, threads=16, lease=30.0, poll=1.0, clock=time.time):
        self.app, self.db = app, app.db
        self.sagas = {saga.name: saga for saga in sagas}
        self.threads, self.lease, self.poll, self.clock = threads, lease, poll, clock
        self.owner = f'{os.uname().nodename}:{os.getpid()}:{uuid.uuid4().hex[:8]}'
        self._condition = threading.Condition()
        self._wakes, self._look_at, self._stopping, self._batch = 0, 0.0, False, 0
        self._running = set()
        self._queue = queue.SimpleQueue()
        self._threads, self._dispatcher = [], None

    def start(self):
        """Begin to look for work; threads are made as they are needed."""
        wake.listen(self.db, 'saga', self.wake)
        self._dispatcher = threading.Thread(target=self._dispatch, name='saga-dispatch', daemon=True)
        self._dispatcher.start()
        metrics.collect('sagas', self._collect)

    def stop(self, timeout=60):
        """Lease no more, let the steps that run finish, release their sagas.

        :returns: True if all had finished within ``timeout`` seconds.
        """
        wake.forget(self.db, 'saga', self.wake)
        metrics.forget('sagas', self._collect)
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            drained = self._condition.wait_for(lambda: not self._running, timeout)
        for _ in self._threads:
            self._queue.put(None)
        return drained

    def wake(self):
        """Look for work now."""
        with self._condition:
            self._wakes += 1
            self._look_at = 0.0
            self._condition.notify_all()

    def run_due(self):
        """Run everything that is due in the calling thread (for tests and commands).

        :returns: the number of sagas that were taken up.
        """
        count = 0
        while leased := self._lease_some(self.threads):
            for row in leased:
                self._run(row)
                count += 1
        return count

    def _dispatch(self):
        purge_at, extend_at = self.clock() + 60, self.clock() + self.lease / 3
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._stopping or (self._look_at <= time.time() and len(self._running) < self.threads),
                    max(0.0, min(self._look_at - time.time(), self.poll)) or self.poll)
                if self._stopping and not self._running:
                    return
                room = 0 if self._stopping else self.threads - len(self._running)
                if self._stopping:
                    self._condition.wait(0.2)
                self._look_at = time.time() + self.poll
            try:
                now = self.clock()
                if now >= extend_at:
                    extend_at = now + self.lease / 3
                    self._extend(now)
                if now >= purge_at:
                    purge_at = now + 3600
                    self._purge(now)
                leased = self._lease_some(room) if room else ()
                if room and len(leased) == room:
                    self.wake()
            except exc.SQLAlchemyError as error:
                LOG.warning('Sagas cannot be read now: %s', error)
                continue
            for row in leased:
                with self._condition:
                    self._running.add(row['id'])
                    if len(self._running) > len(self._threads):
                        thread = threading.Thread(target=self._serve, name=f'saga-{len(self._threads)}', daemon=True)
                        self._threads.append(thread)
                        thread.start()
                self._queue.put(row)

    def _serve(self):
        while (row := self._queue.get()) is not None:
            wakes = self._wakes
            try:
                self._run(row)
            except Exception:
                LOG.exception('Saga %s (%s of %s) stopped; it is taken up again when its lease ends',
                              row['id'], row['name'], row['resource_id'])
            finally:
                with self._condition:
                    self._running.discard(row['id'])
                    if row['next_run_at'] is None or self._wakes != wakes:
                        self._look_at = 0.0      # the resource's next saga, or a nudge that came meanwhile
                    else:
                        self._look_at = min(self._look_at, row['next_run_at'])
                    self._condition.notify_all()

    def _lease_some(self, many):
        now = self.clock()
        with self.db.read() as connection:
            ids = list(connection.scalars(_due, {'now': now, 'many': many}))
        if not ids:
            return []
        self._batch += 1
        owner = f'{self.owner}/{self._batch}'

        def lease(connection):
            connection.execute(_lease, {'ids': ids, 'now': now, 'owner': owner, 'until': now + self.lease})
            return [dict(row) for row in connection.execute(_leased, {'ids': ids, 'owner': owner}).mappings()]
        return self.db.transact(lease)

    def _extend(self, now):
        running = list(self._running)
        if running:
            self.db.transact(lambda connection: connection.execute(
                _extend, {'ids': running, 'owner': self.owner + '/%', 'until': now + self.lease}))

    def _purge(self, now):
        before = db.utcnow() - db.datetime.timedelta(seconds=KEEP_FINISHED)
        old = sa.select(rows.c.id).where(rows.c.next_run_at.is_(None), rows.c.updated_at < before).limit(1000)
        with self.db.read() as connection:
            ids = list(connection.scalars(old))
        if ids:
            self.db.transact(lambda connection: (connection.execute(sa.delete(log).where(log.c.saga_id.in_(ids))),
                                                 connection.execute(sa.delete(rows).where(rows.c.id.in_(ids)))))

    def _run(self, row):
        """Run the steps of a leased saga until it ends, waits, or the worker is told to stop."""
        saga = self.sagas.get(row['name'])
        if saga is None:
            LOG.error('Saga %s is a %s, which this process does not know', row['id'], row['name'])
            return
        work = Work(self.app, row)
        work.context.update_store()
        try:
            while row['next_run_at'] is not None and row['lease_owner'] is not None:
                if self._stopping:
                    self._write(work, row, release=True)
                elif row['state'] == 'unwinding':
                    self._undo(saga, work, row)
                elif row['abort'] is not None:
                    self._fail(saga, work, row, Aborted(row['abort']))
                elif self.clock() > row['deadline_at']:
                    waited = f' It was waiting for {row["waiting"]}.' if row['waiting'] else ''
                    self._fail(saga, work, row, DeadlinePassed(
                        f'This was not finished within {saga.deadline:.0f} seconds.{waited}'))
                else:
                    self._do(saga, work, row)
        except Lost:
            with self.db.read() as connection:
                fresh = db.one(connection, sa.select(rows).where(rows.c.id == row['id']))
            if fresh and fresh['version'] == row['version'] and fresh['abort'] is not None:
                fresh['data'] = work.data           # with the output of a step that had just ended
                return self._run(fresh)
            LOG.info('Saga %s is with another worker now', row['id'])

    def _do(self, saga, work, row):
        step = saga.steps[row['step']]
        work.attempts, work.pending = row['attempts'], []
        try:
            output = step.do(work)
        except Wait as wait:
            later = min(self.clock() + wait.seconds, row['deadline_at'] + 0.001)
            return self._write(work, row, release=True, later=later, waiting=str(wait))
        except Exception as error:
            LOG.info('Saga %s: step %s failed: %s', row['id'], step.name, error,
                     exc_info=not isinstance(error, (errors.Error, Retry)))
            if (isinstance(error, Retry) or errors.transient(error)) and row['attempts'] < step.retries:
                return self._again(work, row, step, 'do', error)
            return self._fail(saga, work, row, error, step)
        if output:
            work.data.update(output)
        line = self._line(row, step.name, 'do', 'done')
        following = row['step'] + 1
        if following == len(saga.steps):
            self._write(work, row, line, state='done', data={}, later=None, release=True, waiting=None)
        else:
            self._write(work, row, line, step=following, attempts=0, began_at=self.clock(), waiting=None)

    def _undo(self, saga, work, row):
        number = row['step']
        while number >= 0 and saga.steps[number].undo is None:
            number -= 1
        if number != row['step']:
            row['step'], row['attempts'], row['began_at'] = number, 0, self.clock()
        if number < 0:
            name, action = 'on_failure', 'on_failure'
        else:
            name, action = saga.steps[number].name, 'undo'
        work.attempts, work.pending = row['attempts'], []
        outcome, problem = 'done', None
        try:
            if number >= 0:
                saga.steps[number].undo(work)
            elif saga.on_failure is not None:
                saga.on_failure(work, rebuilt(row['error']))
        except Exception as error:
            problem = error
            late = self.clock() > row['deadline_at']
            if isinstance(error, Wait) and not late:
                return self._write(work, row, release=True, later=self.clock() + error.seconds, waiting=str(error))
            passes = isinstance(error, Retry) or errors.transient(error)
            if (passes and not late) or row['attempts'] < UNDO_RETRIES:
                return self._again(work, row, saga.steps[number] if number >= 0 else None, action, error)
            outcome = 'skipped'
            work.pending = []
            LOG.exception('Saga %s (%s of %s): %s %s failed %d times and is given up; something of this resource '
                          'may have been left behind', row['id'], row['name'], row['resource_id'], action, name,
                          row['attempts'] + 1)
        line = self._line(row, name, action, outcome, problem)
        if number < 0:
            self._write(work, row, line, state='failed', later=None, release=True, waiting=None)
        else:
            self._write(work, row, line, step=number - 1, attempts=0, began_at=self.clock(), waiting=None)

    def _fail(self, saga, work, row, error, step=None):
        """Turn round: from here on the saga undoes, beginning with the step that was being done."""
        name = saga.steps[row['step']].name
        failure = {**errors.to_dict(error), 'type': type(error).__name__, 'step': name}
        line = self._line(row, name, 'do', 'failed', error)
        work.pending = []
        LOG.warning('Saga %s (%s of %s) failed at %s and unwinds: %s', row['id'], row['name'], row['resource_id'],
                    name, error)
        self._write(work, row, line, state='unwinding', error=failure, attempts=0, began_at=self.clock(), waiting=None,
                    deadline_at=self.clock() + saga.deadline)

    def _again(self, work, row, step, action, error):
        pause = min(15.0, 0.2 * 2 ** row['attempts']) * random.uniform(0.7, 1.3)
        work.pending = []
        self._write(work, row, release=True, later=self.clock() + pause, attempts=row['attempts'] + 1,
                    waiting=f'another try after: {error}')

    def _line(self, row, step, action, outcome, error=None):
        now = self.clock()
        metrics.saga_step(row['name'], step, action, outcome, now - row['began_at'])
        return {'saga_id': row['id'], 'step': step, 'action': action, 'outcome': outcome, 'attempts': row['attempts'] + 1,
                'started_at': row['began_at'], 'ended_at': now,
                'error': None if error is None else f'{type(error).__name__}: {error}'[:4000]}

    def _write(self, work, row, line=None, *, release=False, later=0.0, **changes):
        """Record progress: one UPDATE, and one INSERT into the log where a step has ended."""
        now = self.clock()
        new = {name: row[name] for name in _names}
        new['data'] = work.data
        new['lease_until'] = now + self.lease
        if release:
            new['lease_owner'], new['lease_until'] = None, 0.0
        new.update(changes)
        values = {'row_id': row['id'], 'row_version': row['version'], 'when': db.utcnow(),
                  'aborting': row['abort'] is not None or row['state'] != 'running',
                  **{'new_' + name: value for name, value in new.items()}}
        if later is not None:
            values.update(seen=row['nudges'], later=later or now, now=now)
        statement = _finish if later is None else _save

        def write(connection):
            if connection.execute(statement, values).rowcount != 1:
                raise Lost
            for function in work.pending:
                function(connection)
            if line is not None:
                connection.execute(sa.insert(log), line)
        self.db.transact(write)
        row.update(new, version=row['version'] + 1, next_run_at=values.get('later'))

    def _collect(self):
        with self.db.read() as connection:
            for name, state, count, oldest in connection.execute(
                    sa.select(rows.c.name, rows.c.state, sa.func.count(), sa.func.min(rows.c.created_at))
                    .where(rows.c.next_run_at.is_not(None)).group_by(rows.c.name, rows.c.state)):
                yield {'saga': name, 'state': state}, count, (db.utcnow() - oldest).total_seconds()


def rebuilt(failure):
    """The error that is handed to ``on_failure``, as it was recorded."""
    if failure['type'] in {'Aborted', 'DeadlinePassed'}:
        error = {'Aborted': Aborted, 'DeadlinePassed': DeadlinePassed}[failure['type']](failure['message'])
    else:
        error = errors.from_dict(failure)
    error.step = failure['step']
    return error
