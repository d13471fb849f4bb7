"""One saga in the hands of one worker: runs its steps, records each, turns round where one fails."""
import logging
import random

import sqlalchemy as sa

from kodiak.common import db, errors, metrics
from kodiak.common.saga import Aborted, DeadlinePassed, Retry, Wait, Work
from kodiak.common.saga_rows import FINISH, NAMES, SAVE, log, rows

LOG = logging.getLogger(__name__)

UNDO_RETRIES = 5            # of an undo that fails by itself; one that meets transient errors has the deadline


class Lost(Exception):
    """Another worker has the lease now, or the saga was aborted."""


class Run:
    """The run of a leased saga.

    :param worker: its :class:`kodiak.common.saga.Worker`. :param kind: the :class:`kodiak.common.saga.Saga`.
    :param row: the leased row as a dictionary, kept up to date with what is written.
    """

    def __init__(self, worker, kind, row):
        self.worker, self.kind, self.row = worker, kind, row
        self.db, self.clock = worker.db, worker.clock
        self.work = Work(worker.app, row)

    def go(self):
        """Run its steps until it ends, waits, or the worker is told to stop."""
        row = self.row
        self.work.context.update_store()
        try:
            while row['next_run_at'] is not None and row['lease_owner'] is not None:
                if self.worker.stopping:
                    self._write(release=True)
                elif row['state'] == 'unwinding':
                    self._undo()
                elif row['abort'] is not None:
                    self._fail(Aborted(row['abort']))
                elif self.clock() > row['deadline_at']:
                    waited = f' It was waiting for {row["waiting"]}.' if row['waiting'] else ''
                    self._fail(DeadlinePassed(
                        f'This was not finished within {self.kind.deadline:.0f} seconds.{waited}'))
                else:
                    self._do()
        except Lost:
            with self.db.read() as connection:
                fresh = db.one(connection, sa.select(rows).where(rows.c.id == row['id']))
            if fresh and fresh['version'] == row['version'] and fresh['abort'] is not None:
                fresh['data'] = self.work.data      # with the output of a step that had just ended
                row.update(fresh)
                return self.go()
            LOG.info('Saga %s is with another worker now', row['id'])

    def _do(self):
        row, work = self.row, self.work
        step = self.kind.steps[row['step']]
        work.attempts, work.pending = row['attempts'], []
        try:
            output = step.do(work)
        except Wait as wait:
            later = min(self.clock() + wait.seconds, row['deadline_at'] + 0.001)
            return self._write(release=True, later=later, waiting=str(wait))
        except Exception as error:
            LOG.info('Saga %s: step %s failed: %s', row['id'], step.name, error,
                     exc_info=not isinstance(error, (errors.Error, Retry)))
            if (isinstance(error, Retry) or errors.transient(error)) and row['attempts'] < step.retries:
                return self._again(error)
            return self._fail(error)
        if output:
            work.data.update(output)
        line = self._line(step.name, 'do', 'done')
        following = row['step'] + 1
        if following == len(self.kind.steps):
            self._write(line, state='done', data={}, later=None, release=True, waiting=None)
        else:
            self._write(line, step=following, attempts=0, began_at=self.clock(), waiting=None)

    def _undo(self):
        row, work = self.row, self.work
        number = row['step']
        while number >= 0 and self.kind.steps[number].undo is None:
            number -= 1
        if number != row['step']:
            row['step'], row['attempts'], row['began_at'] = number, 0, self.clock()
        if number < 0:
            name, action = 'on_failure', 'on_failure'
        else:
            name, action = self.kind.steps[number].name, 'undo'
        work.attempts, work.pending = row['attempts'], []
        outcome, problem = 'done', None
        try:
            if number >= 0:
                self.kind.steps[number].undo(work)
            elif self.kind.on_failure is not None:
                self.kind.on_failure(work, rebuilt(row['error']))
        except Exception as error:
            problem = error
            late = self.clock() > row['deadline_at']
            if isinstance(error, Wait) and not late:
                return self._write(release=True, later=self.clock() + error.seconds, waiting=str(error))
            passes = isinstance(error, Retry) or errors.transient(error)
            if (passes and not late) or row['attempts'] < UNDO_RETRIES:
                return self._again(error)
            outcome = 'skipped'
            work.pending = []
            LOG.exception('Saga %s (%s of %s): %s %s failed %d times and is given up; something of this resource '
                          'may have been left behind', row['id'], row['name'], row['resource_id'], action, name,
                          row['attempts'] + 1)
        line = self._line(name, action, outcome, problem)
        if number < 0:
            self._write(line, state='failed', later=None, release=True, waiting=None)
        else:
            self._write(line, step=number - 1, attempts=0, began_at=self.clock(), waiting=None)

    def _fail(self, error):
        """Turn round: from here on the saga undoes, beginning with the step that was being done."""
        row = self.row
        name = self.kind.steps[row['step']].name
        failure = {**errors.to_dict(error), 'type': type(error).__name__, 'step': name}
        line = self._line(name, 'do', 'failed', error)
        self.work.pending = []
        LOG.warning('Saga %s (%s of %s) failed at %s and unwinds: %s', row['id'], row['name'], row['resource_id'],
                    name, error)
        self._write(line, state='unwinding', error=failure, attempts=0, began_at=self.clock(), waiting=None,
                    deadline_at=self.clock() + self.kind.deadline)

    def _again(self, error):
        row = self.row
        pause = min(15.0, 0.2 * 2 ** row['attempts']) * random.uniform(0.7, 1.3)
        self.work.pending = []
        self._write(release=True, later=self.clock() + pause, attempts=row['attempts'] + 1,
                    waiting=f'another try after: {error}')

    def _line(self, step, action, outcome, error=None):
        row = self.row
        now = self.clock()
        metrics.saga_step(row['name'], step, action, outcome, now - row['began_at'])
        return {'saga_id': row['id'], 'step': step, 'action': action, 'outcome': outcome, 'attempts': row['attempts'] + 1,
                'started_at': row['began_at'], 'ended_at': now,
                'error': None if error is None else f'{type(error).__name__}: {error}'[:4000]}

    def _write(self, line=None, *, release=False, later=0.0, **changes):
        """Record progress: one UPDATE, and one INSERT into the log where a step has ended."""
        row, work = self.row, self.work
        now = self.clock()
        new = {name: row[name] for name in NAMES}
        new['data'] = work.data
        new['lease_until'] = now + self.worker.lease
        if release:
            new['lease_owner'], new['lease_until'] = None, 0.0
        new.update(changes)
        values = {'row_id': row['id'], 'row_version': row['version'], 'when': db.utcnow(),
                  'aborting': row['abort'] is not None or row['state'] != 'running',
                  **{'new_' + name: value for name, value in new.items()}}
        if later is not None:
            values.update(seen=row['nudges'], later=later or now, now=now)
        statement = FINISH if later is None else SAVE

        def write(connection):
            if connection.execute(statement, values).rowcount != 1:
                raise Lost
            for function in work.pending:
                function(connection)
            if line is not None:
                connection.execute(sa.insert(log), line)
        self.db.transact(write)
        row.update(new, version=row['version'] + 1, next_run_at=values.get('later'))


def rebuilt(failure):
    """The error that is handed to ``on_failure``, as it was recorded."""
    if failure['type'] in {'Aborted', 'DeadlinePassed'}:
        error = {'Aborted': Aborted, 'DeadlinePassed': DeadlinePassed}[failure['type']](failure['message'])
    else:
        error = errors.from_dict(failure)
    error.step = failure['step']
    return error
