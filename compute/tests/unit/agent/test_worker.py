"""The worker with the fake driver: every life of an instance, run twice, and crashed at every call."""
import dataclasses

import pytest
from agent_shapes import UUID, changed, image, instance, operation, port, volume

from kodiak.compute.agent import state, worker
from kodiak.compute.drivers import base, fake

HANDS = ('save', 'build', 'define', 'remove', 'power_on', 'power_off', 'pause', 'unpause', 'suspend', 'forget_suspended', 'plug',
         'unplug', 'reboot', 'rebuild', 'snapshot', 'resize', 'resize_confirm', 'resize_revert', 'migrate_out', 'set_password')


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


class Driver(fake.FakeDriver):
    """The fake driver, counting what it is told to do and dying at one of the calls, before or after it was done."""

    def __init__(self, *args, die_at=None, after=False):
        super().__init__(*args)
        self.done = []
        self.die_at, self.after = die_at, after
        for name in HANDS:
            setattr(self, name, self._counted(name, getattr(self, name)))

    def _counted(self, name, method):
        def call(*args, **kwargs):
            self.done.append(name)
            dies = len(self.done) == self.die_at
            if dies and not self.after:
                raise Killed
            result = method(*args, **kwargs)
            if dies:
                raise Killed
            return result
        return call


def make(conf, images, **more):
    driver = Driver(conf, 'one', images, **more)
    driver.start(None)
    reports = []
    return worker.Worker(driver, reports.append), driver, reports


def lives():
    """Name and the wishes of one life, one after the other."""
    first = instance()
    running = changed(first, built=True)
    yield 'boot', [first]
    yield 'stop and start', [first, changed(running, desired='stopped'), changed(running, desired='running')]
    yield 'pause', [first, changed(running, desired='paused'), changed(running, desired='running')]
    yield 'suspend', [first, changed(running, desired='suspended'), changed(running, desired='running')]
    yield 'suspend and stop', [first, changed(running, desired='suspended'), changed(running, desired='stopped')]
    yield 'hot-plug', [first, changed(running, ports=[port(1), port(2)], volumes=[volume()]), changed(running, ports=[port(2)])]
    yield 'reboots', [first, changed(running, operations=[operation(1, 'reboot', type='SOFT'),
                                                          operation(2, 'reboot', type='HARD')])]
    yield 'snapshot', [first, changed(running, operations=[operation(1, 'snapshot', image_id='s')])]
    yield 'rebuild', [first, changed(running, image=image(id='image-2'), operations=[operation(1, 'rebuild')])]
    big = state.Flavor('big', 2, 256, 2)
    yield 'resize and confirm', [first, changed(running, flavor=big, operations=[operation(1, 'resize')]),
                                 changed(running, flavor=big, operations=[operation(2, 'resize_confirm')])]
    yield 'resize and revert', [first, changed(running, flavor=big, operations=[operation(1, 'resize')]),
                                changed(running, operations=[operation(2, 'resize_revert')])]
    yield 'rescue', [first, changed(running, rescue=image(id='rescue')), running]
    yield 'move away', [first, changed(running, desired='stopped', operations=[operation(1, 'migrate_out', token_sha256='x')]),
                        changed(running, desired='absent')]
    yield 'delete', [first, changed(running, desired='absent')]


LIVES = dict(lives())


def live(conf, images, wishes, **more):
    work, driver, reports = make(conf, images, **more)
    for wanted in wishes:
        work.bring(UUID, wanted)
    return driver, reports


def end(driver):
    noted = driver.load(UUID)
    return driver.look(UUID), noted and dataclasses.replace(noted, started=None)


@pytest.mark.parametrize('name', LIVES)
def test_a_second_run_changes_nothing(conf, images, name):
    work, driver, reports = make(conf, images)
    for wanted in LIVES[name]:
        work.bring(UUID, wanted)
        done, before = len(driver.done), end(driver)
        work.bring(UUID, wanted)
        assert set(driver.done[done:]) <= {'remove'}
        assert end(driver) == before
        assert dataclasses.astuple(reports[-1]) == dataclasses.astuple(reports[-2])
        assert reports[-1].settled
        assert reports[-1].generation == wanted.generation
        assert {outcome.number for outcome in reports[-1].outcomes} == {item.number for item in wanted.operations}
        assert not any(outcome.fault for outcome in reports[-1].outcomes)
    ending = LIVES[name][-1].desired
    assert reports[-1].power_state == ending


@pytest.mark.parametrize('after', [False, True])
@pytest.mark.parametrize('name', LIVES)
def test_a_crash_at_any_call_ends_as_if_there_had_been_none(conf, images, tmp_path, name, after):
    conf.set_override('state_path', str(tmp_path / 'calm'))
    driver, _reports = live(conf, images, LIVES[name])
    expected, calls = end(driver), len(driver.done)
    for number in range(1, calls + 1):
        conf.set_override('state_path', str(tmp_path / f'crash-{number}'))
        work, driver, reports = make(conf, images, die_at=number, after=after)
        deaths = 0
        for wanted in LIVES[name]:
            try:
                work.bring(UUID, wanted)
            except Killed:
                deaths += 1
                work, driver, reports = make(conf, images)
                work.bring(UUID, wanted)
            assert reports[-1].settled
        assert deaths == 1
        assert end(driver) == expected, f'killed at call {number}'


def test_an_operation_that_ended_is_not_done_again_by_a_new_agent(conf, images):
    wishes = LIVES['snapshot']
    live(conf, images, wishes)
    images.uploaded.clear()
    _driver, reports = live(conf, images, wishes[-1:])
    assert images.uploaded == {}
    assert reports[-1].outcomes[0].result['size']


def test_a_fault_is_reported_with_its_count_and_forgotten_when_it_is_over(conf, images):
    work, driver, reports = make(conf, images)
    fault = base.Fault('tap-missing', 'The port is not wired yet.')

    def refuse(instance, record):
        raise fault
    power_on, driver.power_on = driver.power_on, refuse
    for attempt in (1, 2):
        with pytest.raises(base.Fault):
            work.bring(UUID, instance())
        assert (reports[-1].fault.code, reports[-1].fault.attempts) == ('tap-missing', attempt)
        assert not reports[-1].settled
        assert reports[-1].power_state == 'stopped'
    driver.power_on = power_on
    work.bring(UUID, instance())
    assert (reports[-1].fault, reports[-1].settled) == (None, True)


def test_an_operation_that_fails_for_good_is_an_outcome_and_stops_nothing(conf, images):
    work, driver, reports = make(conf, images)

    def refuse(*args):
        raise base.Fault('image-upload', 'The image takes no data.', final=True)
    driver.snapshot = refuse
    work.bring(UUID, instance(operations=[operation(1, 'snapshot', image_id='s'), operation(2, 'nmi'), operation(3, 'dance'),
                                          operation(4, 'reboot', type='HARD')]))
    faults = {outcome.number: outcome.fault and outcome.fault.code for outcome in reports[-1].outcomes}
    assert faults == {1: 'image-upload', 2: 'not-supported', 3: 'not-supported', 4: None}
    assert reports[-1].settled


def test_an_operation_that_may_yet_succeed_stays_to_be_done(conf, images):
    work, driver, reports = make(conf, images)
    snapshot, fails = driver.snapshot, [base.Fault('image-upload', 'The image service is away.')]
    driver.snapshot = lambda *args: (_ for _ in ()).throw(fails.pop()) if fails else snapshot(*args)
    wanted = instance(operations=[operation(1, 'snapshot', image_id='s')])
    with pytest.raises(base.Fault):
        work.bring(UUID, wanted)
    assert reports[-1].outcomes == []
    work.bring(UUID, wanted)
    assert reports[-1].outcomes[0].fault is None


def test_flavor_and_image_take_effect_by_their_operations_only(conf, images):
    work, driver, _reports = make(conf, images)
    seen = []
    driver.power_on = lambda instance, record: seen.append((instance.spec.flavor.name, instance.spec.image.id)) \
        or driver._power(UUID, 'running')
    first = instance()
    work.bring(UUID, first)
    other = changed(first, flavor=state.Flavor('big', 2, 256, 2), image=image(id='image-2'), desired='stopped')
    work.bring(UUID, other)
    again = changed(other, desired='running', desired_generation=9)
    work.bring(UUID, again)
    work.bring(UUID, changed(again, operations=[operation(1, 'resize')]))
    driver._power(UUID, 'stopped')
    work.bring(UUID, changed(again, operations=[operation(2, 'rebuild')], desired_generation=10))
    assert seen == [('small', 'image-1'), ('small', 'image-1'), ('big', 'image-1'), ('big', 'image-2')]


def test_a_guest_that_switched_itself_off_is_reported_and_started_when_asked_for(conf, images):
    work, driver, reports = make(conf, images)
    first = instance()
    work.bring(UUID, first)
    driver._power(UUID, 'stopped')
    work.bring(UUID, first)
    assert (reports[-1].self_stopped, reports[-1].power_state) == (True, 'stopped')
    work.bring(UUID, changed(first, metadata={'a': 'b'}))
    assert reports[-1].self_stopped
    work.bring(UUID, changed(first, desired_generation=2))
    assert (reports[-1].self_stopped, reports[-1].power_state) == (False, 'running')
