"""The worker of :mod:`kodiak.common.saga`: leases due sagas, runs their steps, takes over from the dead."""
import logging
import os
import queue
import threading
import time
import uuid

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, metrics, wake
from kodiak.common.saga_rows import DUE, EXTEND, LEASE, LEASED, log, rows
from kodiak.common.saga_run import Run

LOG = logging.getLogger(__name__)

KEEP_FINISHED = 7 * 86400   # seconds that finished sagas and their steps stay for `kodiak trace`


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
        self._wakes, self._look_at, self.stopping, self._batch = 0, 0.0, False, 0
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
            self.stopping = True
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
                    lambda: self.stopping or (self._look_at <= time.time() and len(self._running) < self.threads),
                    max(0.0, min(self._look_at - time.time(), self.poll)) or self.poll)
                if self.stopping and not self._running:
                    return
                room = 0 if self.stopping else self.threads - len(self._running)
                if self.stopping:
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
            except Exception:
                LOG.exception('Looking for sagas failed')       # and goes on: nobody else would
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
            ids = list(connection.scalars(DUE, {'now': now, 'many': many}))
        if not ids:
            return []
        self._batch += 1
        owner = f'{self.owner}/{self._batch}'

        def lease(connection):
            connection.execute(LEASE, {'ids': ids, 'now': now, 'owner': owner, 'until': now + self.lease})
            return [dict(row) for row in connection.execute(LEASED, {'ids': ids, 'owner': owner}).mappings()]
        return self.db.transact(lease)

    def _extend(self, now):
        running = list(self._running)
        if running:
            self.db.transact(lambda connection: connection.execute(
                EXTEND, {'ids': running, 'owner': self.owner + '/%', 'until': now + self.lease}))

    def _purge(self, now):
        before = db.utcnow() - db.datetime.timedelta(seconds=KEEP_FINISHED)
        old = sa.select(rows.c.id).where(rows.c.next_run_at.is_(None), rows.c.updated_at < before).limit(1000)
        with self.db.read() as connection:
            ids = list(connection.scalars(old))
        if ids:
            self.db.transact(lambda connection: (connection.execute(sa.delete(log).where(log.c.saga_id.in_(ids))),
                                                 connection.execute(sa.delete(rows).where(rows.c.id.in_(ids)))))

    def _run(self, row):
        kind = self.sagas.get(row['name'])
        if kind is None:
            LOG.error('Saga %s is a %s, which this process does not know', row['id'], row['name'])
        else:
            Run(self, kind, row).go()

    def _collect(self):
        with self.db.read() as connection:
            for name, state, count, oldest in connection.execute(
                    sa.select(rows.c.name, rows.c.state, sa.func.count(), sa.func.min(rows.c.created_at))
                    .where(rows.c.next_run_at.is_not(None)).group_by(rows.c.name, rows.c.state)):
                yield {'saga': name, 'state': state}, count, (db.utcnow() - oldest).total_seconds()
