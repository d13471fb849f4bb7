"""The generic tests of every saga: crash its worker around each do and undo, fail and abort it at each step.

A service writes one :class:`Scenario` for each saga it owns and tries all cases::

    @pytest.mark.parametrize('case', saga_testing.cases(BOOT), ids=str)
    def test_boot_survives(case, tmp_path):
        saga_testing.run(case, BootScenario(tmp_path))

Nothing here is imported outside tests.
"""
import dataclasses
import time

import sqlalchemy as sa

from kodiak.common import db, errors, saga


class Scenario:
    """One saga in a fresh little world. Subclasses set ``app`` (a Runtime with a database) and ``saga``.

    ``others``: further sagas that this world's worker must know.
    """

    app = None
    saga = None
    others = ()

    def start(self):
        """Write the resource and start its saga in one transaction; return the resource's id."""
        raise NotImplementedError

    def outside(self):
        """What others do between two looks of the worker: an agent that reports, then nudges. Called again and again."""

    def succeeded(self):
        """Assert the end of a saga that went through: the resource as wished, each outer thing made exactly once."""
        raise NotImplementedError

    def failed(self, step):
        """Assert the end of a saga that failed at ``step`` (its name): the resource's error is written and has a
        reason, and nothing of what the saga made is left."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Case:
    """What is done to the saga. ``where``: before or after the function, or waiting (when it raises Wait)."""

    what: str           # run, crash do, crash undo, fail, abort
    step: str = ''
    where: str = ''

    def __str__(self):
        return '-'.join(filter(None, (self.what.replace(' ', '-'), self.where, self.step)))


class Crash(BaseException):
    """The worker's process dies here."""


def cases(kind):
    """Every case of a saga, as a list for ``pytest.mark.parametrize``."""
    found = [Case('run')]
    for step in kind.steps:
        found += [Case('crash do', step.name, where) for where in ('before', 'after', 'waiting')]
        found += [Case('fail', step.name, where) for where in ('before', 'after')]
        found += [Case('abort', step.name, where) for where in ('before', 'after')]
        if step.undo is not None:
            found += [Case('crash undo', step.name, where) for where in ('before', 'after')]
    if kind.on_failure is not None:
        found += [Case('crash undo', 'on_failure', where) for where in ('before', 'after')]
    return found


class _Meddler:
    """Wraps the functions of a saga so that what the case says happens, once."""

    def __init__(self, case, scenario):
        self.case, self.scenario = case, scenario
        self.armed = True
        self.last = scenario.saga.steps[-1].name

    def saga(self):
        kind = self.scenario.saga
        return dataclasses.replace(
            kind, steps=[dataclasses.replace(step, do=self.do(step), undo=step.undo and self.undo(step.name, step.undo))
                         for step in kind.steps],
            on_failure=kind.on_failure and self.undo('on_failure', kind.on_failure))

    def do(self, step):
        case = self.case

        def do(work):
            mine = self.armed and case.step == step.name and case.what != 'crash undo'
            if mine and case.where == 'before':
                self.strike(work)
            try:
                output = step.do(work)
            except saga.Wait:
                if mine and case.where == 'waiting':
                    self.strike(work)
                raise
            if mine and case.where == 'after':
                self.strike(work)
            if case.what == 'crash undo' and step.name == self.last:
                raise errors.Conflict('failed at the end, to see it unwind')
            return output
        return do

    def undo(self, name, function):
        def undo(*args):
            mine = self.armed and self.case == Case('crash undo', name, self.case.where)
            if mine and self.case.where == 'before':
                self.strike(args[0])
            function(*args)
            if mine and self.case.where == 'after':
                self.strike(args[0])
        return undo

    def strike(self, work):
        self.armed = False
        if self.case.what == 'fail':
            raise errors.Conflict(f'made to fail at {self.case.step}')
        if self.case.what == 'abort':
            with self.scenario.app.db.write() as connection:
                assert saga.abort(connection, work.resource_id, 'aborted in a test', name=work.name) == 1
            return
        raise Crash


def run(case, scenario, rounds=150):
    """Try one case.

    :raises AssertionError: the saga did not end, or its scenario's end state does not hold.
    """
    clock = _Clock()
    meddler = _Meddler(case, scenario)
    resource_id = scenario.start()

    def worker():
        return saga.Worker(scenario.app, [meddler.saga(), *scenario.others], clock=clock)
    present = worker()
    for _ in range(rounds):
        try:
            present.run_due()
        except Crash:
            clock.offset += present.lease + 1
            present = worker()
        scenario.outside()
        with scenario.app.db.read() as connection:
            unfinished = saga.active(connection, resource_id)
        if not unfinished:
            break
        clock.offset += 2
    assert not unfinished, f'{case}: the saga does not end: {unfinished}'
    with scenario.app.db.read() as connection:
        row = db.one(connection, sa.select(saga.rows).where(
            saga.rows.c.resource_id == resource_id, saga.rows.c.name == scenario.saga.name).order_by(saga.rows.c.id))
        left = list(connection.scalars(sa.select(saga.log.c.error).where(
            saga.log.c.saga_id == row['id'], saga.log.c.outcome == 'skipped')))
    assert not left, f'{case}: an undo was given up: {left}'
    if case.what in {'run', 'crash do'}:
        assert row['state'] == 'done', f'{case}: {row["error"]}'
        scenario.succeeded()
    else:
        assert row['state'] == 'failed', f'{case}: the saga went through'
        scenario.failed(row['error']['step'])


class _Clock:
    offset = 0.0

    def __call__(self):
        return time.time() + self.offset
