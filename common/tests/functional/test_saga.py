"""Sagas against a real database: run, wait, nudge, retry, unwind, abort, deadline, take-over."""
import threading
import time

import pytest
import sqlalchemy as sa

from kodiak.common import context, db, errors, saga
from kodiak.common.runtime import Runtime


class Clock:
    def __init__(self):
        self.offset = 0

    def __call__(self):
        return time.time() + self.offset


@pytest.fixture
def app(tmp_path):
    metadata = db.metadata()
    saga.tables(metadata)
    database = db.Database(f'sqlite:///{tmp_path}/s.sqlite')
    metadata.create_all(database.engine)
    yield Runtime('test', None, db=database)
    database.close()


def rows(app):
    with app.db.read() as connection:
        return db.all_dicts(connection, sa.select(saga.rows).order_by(saga.rows.c.id))


def log(app):
    with app.db.read() as connection:
        return [(row.step, row.action, row.outcome) for row in
                connection.execute(sa.select(saga.log).order_by(saga.log.c.id))]


def begin(app, kind, resource='r1', data=None, **kwargs):
    with app.db.write() as connection:
        return saga.start(connection, kind, resource, data, **kwargs)


def test_steps_run_in_order_and_their_outputs_are_merged(app):
    seen = []
    kind = saga.Saga('boot', [
        saga.Step('one', lambda work: {'a': work.data['x'] + 1}),
        saga.Step('two', lambda work: seen.append((dict(work.data), work.resource_id, work.context.project_id)))])
    asker = context.Context(project_id='p', auth_token='secret', user_id='u')
    begin(app, kind, data={'x': 1}, context=asker)
    worker = saga.Worker(app, [kind])
    with db.count_queries() as statements:
        assert worker.run_due() == 1
    assert seen == [({'x': 1, 'a': 2}, 'r1', 'p')]
    assert log(app) == [('one', 'do', 'done'), ('two', 'do', 'done')]
    row, = rows(app)
    assert (row['state'], row['next_run_at'], row['data']) == ('done', None, {})
    assert row['request_id'] == asker.request_id
    assert 'secret' not in str(row)
    # a lease (look, take, read), two statements a step, and the look that finds nothing more
    assert len(statements) == 3 + 2 * 2 + 1


def test_a_failure_unwinds_from_the_step_that_failed_and_tells_the_owner(app):
    seen = []

    def fail(work):
        raise errors.Conflict('no host is left')
    kind = saga.Saga('boot', [
        saga.Step('one', lambda work: {'port': 7}, lambda work: seen.append(('undo one', work.data['port']))),
        saga.Step('two', lambda work: None),
        saga.Step('three', fail, lambda work: seen.append('undo three')),
        saga.Step('four', lambda work: seen.append('never'), lambda work: seen.append('never'))],
        on_failure=lambda work, error: seen.append((type(error), error.message, error.step)))
    begin(app, kind)
    saga.Worker(app, [kind]).run_due()
    assert seen == ['undo three', ('undo one', 7), (errors.Conflict, 'no host is left', 'three')]
    assert rows(app)[0]['state'] == 'failed'
    assert log(app) == [('one', 'do', 'done'), ('two', 'do', 'done'), ('three', 'do', 'failed'),
                        ('three', 'undo', 'done'), ('one', 'undo', 'done'), ('on_failure', 'on_failure', 'done')]


def test_a_defect_is_not_told_to_the_owner(app):
    seen = []
    kind = saga.Saga('boot', [saga.Step('one', lambda work: {}['password'])],
                     on_failure=lambda work, error: seen.append(error.message))
    begin(app, kind)
    saga.Worker(app, [kind]).run_due()
    assert seen == [errors.Error.default]
    with app.db.read() as connection:
        assert "KeyError: 'password'" in connection.execute(sa.select(saga.log.c.error)).scalars().first()


def test_transient_errors_are_retried_up_to_the_limit(app):
    clock, calls = Clock(), []

    def flaky(work):
        calls.append(work.attempts)
        raise errors.Unavailable('away')
    kind = saga.Saga('boot', [saga.Step('one', flaky, retries=3)])
    begin(app, kind)
    worker = saga.Worker(app, [kind], clock=clock)
    for _ in range(6):
        worker.run_due()
        clock.offset += 30
    assert calls == [0, 1, 2, 3]
    assert rows(app)[0]['state'] == 'failed'


def test_wait_frees_the_worker_until_the_time_or_a_nudge(app):
    clock, ready = Clock(), []

    def look(work):
        if not ready:
            raise saga.Wait(60, 'the port to be wired')
    kind = saga.Saga('boot', [saga.Step('one', look)])
    begin(app, kind)
    worker = saga.Worker(app, [kind], clock=clock)
    assert worker.run_due() == 1
    assert rows(app)[0]['waiting'] == 'the port to be wired'
    assert worker.run_due() == 0
    with app.db.write() as connection:
        saga.nudge(connection, 'r1')
    assert worker.run_due() == 1
    assert worker.run_due() == 0
    ready.append(1)
    clock.offset += 61
    assert worker.run_due() == 1
    assert rows(app)[0]['state'] == 'done'


def test_a_nudge_while_the_step_runs_is_not_lost(app):
    looks = []

    def look(work):
        looks.append(1)
        if len(looks) == 1:
            with app.db.write() as connection:
                saga.nudge(connection, 'r1')
            raise saga.Wait(60, 'a report')
    kind = saga.Saga('boot', [saga.Step('one', look)])
    begin(app, kind)
    saga.Worker(app, [kind]).run_due()
    assert len(looks) == 2


def test_the_deadline_unwinds_with_what_was_awaited(app):
    clock, seen = Clock(), []

    def look(work):
        raise saga.Wait(3600, 'the port to be wired')
    kind = saga.Saga('boot', [saga.Step('one', look, lambda work: seen.append('undo'))], deadline=100,
                     on_failure=lambda work, error: seen.append((type(error), error.message)))
    begin(app, kind)
    worker = saga.Worker(app, [kind], clock=clock)
    worker.run_due()
    clock.offset += 101
    worker.run_due()
    said = 'This was not finished within 100 seconds. It was waiting for the port to be wired.'
    assert seen == ['undo', (saga.DeadlinePassed, said)]


def test_abort_unwinds_and_the_next_saga_of_the_resource_waits_for_it(app):
    order = []

    def delete_overtakes(work):
        order.append('create')
        with app.db.write() as connection:
            assert saga.abort(connection, 'r1', 'deleted by its owner') == 1
            saga.start(connection, delete, 'r1')
        return {'found': 5}
    create = saga.Saga('create', [
        saga.Step('one', delete_overtakes, lambda work: order.append(('undo', work.data['found']))),
        saga.Step('two', lambda work: order.append('never'))],
        on_failure=lambda work, error: order.append((type(error), error.message)))
    delete = saga.Saga('delete', [saga.Step('one', lambda work: order.append('delete'))])
    begin(app, create)
    worker = saga.Worker(app, [create, delete])
    worker.run_due()
    assert order == ['create', ('undo', 5), (saga.Aborted, 'deleted by its owner'), 'delete']
    assert [row['state'] for row in rows(app)] == ['failed', 'done']


def test_another_worker_takes_over_when_the_lease_ran_out(app):
    clock, calls = Clock(), []

    def die_once(work):
        calls.append(1)
        if len(calls) == 1:
            raise SystemExit
    kind = saga.Saga('boot', [saga.Step('one', die_once)])
    begin(app, kind)
    with pytest.raises(SystemExit):
        saga.Worker(app, [kind], clock=clock).run_due()
    other = saga.Worker(app, [kind], clock=clock)
    assert other.run_due() == 0
    clock.offset += 31
    assert other.run_due() == 1
    assert rows(app)[0]['state'] == 'done'


def test_a_worker_that_lost_its_lease_records_nothing(app):
    clock = Clock()

    def slow(work):
        if not done:
            done.append(1)
            clock.offset += 31
            other.run_due()
        return {'who': 'late'}
    done = []
    kind = saga.Saga('boot', [saga.Step('one', slow), saga.Step('two', lambda work: done.append(2))])
    other = saga.Worker(app, [kind], clock=clock)
    begin(app, kind)
    saga.Worker(app, [kind], clock=clock).run_due()
    assert done == [1, 2]
    assert len(log(app)) == 2


def test_what_a_step_adds_to_the_recording_transaction_happens_once(app):
    def do(work):
        work.in_commit(lambda connection: connection.execute(sa.text("UPDATE sagas SET request_id = 'touched'")))
    kind = saga.Saga('boot', [saga.Step('one', do)])
    begin(app, kind)
    saga.Worker(app, [kind]).run_due()
    assert rows(app)[0]['request_id'] == 'touched'


def test_an_undo_that_keeps_failing_is_skipped_loudly(app, caplog):
    clock, undone = Clock(), []

    def fail(work):
        raise errors.Conflict('no')
    kind = saga.Saga('boot', [
        saga.Step('one', lambda work: None, lambda work: undone.append('one')),
        saga.Step('two', fail, lambda work: {}['missing'])])
    begin(app, kind)
    worker = saga.Worker(app, [kind], clock=clock)
    for _ in range(10):
        worker.run_due()
        clock.offset += 20
    assert undone == ['one']
    assert rows(app)[0]['state'] == 'failed'
    assert ('two', 'undo', 'skipped') in log(app)
    assert 'may have been left behind' in caplog.text


def test_threads_run_many_sagas_at_once_without_polling(app):
    barrier = threading.Barrier(8, timeout=20)
    kind = saga.Saga('boot', [saga.Step('one', lambda work: barrier.wait() and None)])
    worker = saga.Worker(app, [kind], threads=8, poll=30)
    worker.start()
    try:
        for number in range(16):
            begin(app, kind, f'r{number}')
        deadline = time.time() + 20
        while any(row['state'] != 'done' for row in rows(app)) and time.time() < deadline:
            time.sleep(0.02)
        assert [row['state'] for row in rows(app)] == ['done'] * 16
    finally:
        assert worker.stop()


def test_a_long_step_keeps_its_lease(app):
    calls, go = [], threading.Event()

    def slow(work):
        calls.append(1)
        go.wait(20)
    kind = saga.Saga('boot', [saga.Step('one', slow)])
    begin(app, kind)
    workers = [saga.Worker(app, [kind], lease=0.6, poll=0.05) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        deadline = time.time() + 20
        while time.time() < deadline and not (calls and rows(app)[0]['lease_until'] > rows(app)[0]['began_at'] + 2):
            time.sleep(0.05)
    finally:
        go.set()
        for worker in workers:
            worker.stop()
    assert calls == [1]
    assert rows(app)[0]['state'] == 'done'


def test_stopping_releases_what_has_further_steps(app):
    started, go = threading.Event(), threading.Event()

    def slow(work):
        started.set()
        go.wait(20)
    kind = saga.Saga('boot', [saga.Step('one', slow), saga.Step('two', lambda work: None)])
    begin(app, kind)
    worker = saga.Worker(app, [kind], poll=0.05)
    worker.start()
    started.wait(20)
    threading.Timer(0.1, go.set).start()
    assert worker.stop(timeout=20)
    row, = rows(app)
    assert (row['step'], row['lease_owner'], row['state']) == (1, None, 'running')
    assert saga.Worker(app, [kind]).run_due() == 1


def test_old_sagas_are_purged(app):
    clock = Clock()
    kind = saga.Saga('boot', [saga.Step('one', lambda work: None)])
    begin(app, kind)
    worker = saga.Worker(app, [kind], clock=clock)
    worker.run_due()
    with app.db.write() as connection:
        connection.execute(sa.update(saga.rows).values(updated_at=db.utcnow() - db.datetime.timedelta(days=8)))
    worker._purge(clock())
    assert rows(app) == []
    assert log(app) == []
