"""What is planned for an instance: every pair of wish and state, and the order of things."""
import dataclasses

import pytest
from agent_shapes import UUID, image, instance, operation, port, volume

from kodiak.compute.agent import plan, state
from kodiak.compute.drivers import base

BOOT = 'boot-1'
PORT = port().id


def record(**more):
    return base.Record(UUID, **{'built': True, 'flavor': state.dump(instance().spec.flavor), **more})


def found(power='running', ports=(PORT,), volumes=()):
    return base.Found(power, frozenset(ports), frozenset(volumes))


def step(wanted, noted, seen):
    result = plan.next_step(wanted, noted, seen, BOOT)
    return result and result.name


@pytest.mark.parametrize(('desired', 'power', 'expected'), [
    ('running', 'running', None), ('running', 'stopped', 'power_on'), ('running', 'paused', 'unpause'),
    ('running', 'suspended', 'power_on'), ('running', 'crashed', 'power_on'), ('running', 'nostate', None),
    ('stopped', 'running', 'power_off'), ('stopped', 'paused', 'power_off'), ('stopped', 'stopped', None),
    ('stopped', 'suspended', 'forget_suspended'), ('stopped', 'crashed', None),
    ('paused', 'running', 'pause'), ('paused', 'paused', None), ('paused', 'stopped', 'power_on'),
    ('paused', 'suspended', 'power_on'), ('paused', 'crashed', 'power_on'),
    ('suspended', 'running', 'suspend'), ('suspended', 'paused', 'suspend'), ('suspended', 'suspended', None),
    ('suspended', 'stopped', None), ('suspended', 'crashed', None),
])
def test_power(desired, power, expected):
    assert step(instance(desired), record(), found(power)) == expected


@pytest.mark.parametrize(('desired', 'expected'), [('running', 'unpause'), ('paused', None), ('stopped', 'power_off')])
def test_a_guest_that_was_stopped_because_its_storage_failed(desired, expected):
    seen = base.Found('running', frozenset((PORT,)), frozenset(), halted=True)
    assert step(instance(desired), record(), seen) == expected


def test_what_is_not_wanted_is_removed_whatever_is_left_of_it():
    for noted, seen in ((None, None), (record(), None), (None, found()), (record(), found('stopped'))):
        assert step(instance('absent'), noted, seen) == 'remove'
        assert step(None, noted, seen) == 'remove'


def test_disks_come_first_then_operations_then_devices_then_power():
    wanted = instance(operations=[operation(1, 'reboot')])
    assert step(wanted, None, None) == 'build'
    assert step(wanted, record(built=False), None) == 'build'
    assert step(wanted, record(), found('stopped', ())) == 'operate'
    assert step(wanted, record(last_operation=1), found('stopped', ())) == 'plug'
    assert step(wanted, record(last_operation=1), found('stopped')) == 'power_on'


def test_after_a_move_nothing_is_begun_before_the_conductor_knows():
    moved, reboot = operation(1, 'move_volume'), operation(2, 'reboot')
    assert step(instance(operations=[moved, reboot]), record(last_operation=1), found()) is None
    assert step(instance(operations=[moved, reboot]), record(last_operation=1), found('stopped')) is None
    assert step(instance('absent', operations=[moved]), record(last_operation=1), found()) == 'remove'
    assert step(instance(operations=[reboot]), record(last_operation=1), found()) == 'operate'


def test_operations_go_by_their_numbers():
    wanted = instance(operations=[operation(3, 'reboot'), operation(5, 'snapshot'), operation(6, 'rebuild')])
    assert plan.next_step(wanted, record(last_operation=3), found(), BOOT).args[0].number == 5
    assert step(wanted, record(last_operation=6), found()) is None


def test_a_lost_domain_is_defined_again_but_lost_disks_are_not_made_anew():
    assert step(instance(), record(), None) == 'define'
    with pytest.raises(base.Fault) as caught:
        plan.next_step(instance(built=True), None, None, BOOT)
    assert caught.value.code == 'disk-missing'
    assert caught.value.final


def test_rescue_goes_there_and_back():
    wanted = instance(rescue=image(id='rescue'))
    assert step(wanted, record(), found()) == 'rescue'
    assert step(wanted, record(rescued=True), found()) is None
    assert step(instance(), record(rescued=True), found()) == 'unrescue'


def test_devices_are_unplugged_before_others_are_plugged():
    wanted = instance(ports=[port(2)], volumes=[volume(2)])
    result = plan.next_step(wanted, record(), found(volumes=['old']), BOOT)
    assert (result.name, result.args) == ('unplug', (frozenset([PORT]), frozenset(['old'])))
    result = plan.next_step(wanted, record(), found(ports=()), BOOT)
    assert (result.name, result.args) == ('plug', (frozenset([port(2).id]), frozenset([volume(2).id])))
    assert step(wanted, record(), found('suspended', ports=())) == 'power_on'


def test_a_guest_that_went_down_by_itself_stays_down_until_someone_asks_or_the_host_boots():
    started = {'asked': 1, 'boot': BOOT}
    wanted = instance(desired_generation=1)
    assert step(wanted, record(started=started), found('stopped')) is None
    told = plan.report(wanted, record(started=started), found('stopped'), 'one', BOOT)
    assert (told.self_stopped, told.power_state, told.settled) == (True, 'stopped', True)
    assert step(dataclasses.replace(wanted, desired_generation=2), record(started=started), found('stopped')) == 'power_on'
    assert step(wanted, record(started={**started, 'boot': 'before'}), found('stopped')) == 'power_on'


def test_a_report_tells_outcomes_only_while_they_are_listed():
    outcomes = [state.dump(state.Outcome(1)), state.dump(state.Outcome(2, {'size': 3}))]
    wanted = instance(operations=[operation(2, 'snapshot')], generation=7)
    told = plan.report(wanted, record(outcomes=outcomes, last_operation=2), found(), 'one', BOOT)
    assert [outcome.number for outcome in told.outcomes] == [2]
    assert (told.generation, told.host, told.built, told.plugged) == (7, 'one', True, [PORT])


@pytest.mark.parametrize(('noted', 'seen', 'power'), [
    (None, None, 'absent'), (record(), None, 'stopped'), (record(built=False), None, 'nostate'),
    (record(), found('paused'), 'paused'),
])
def test_the_power_state_of_a_report(noted, seen, power):
    assert plan.report(instance(), noted, seen, 'one', BOOT).power_state == power


def test_a_volume_is_replaced_before_anything_is_unplugged():
    wanted = instance('stopped', ports=[], volumes=[volume(2, replaces=volume(1).id)])
    result = plan.next_step(wanted, record(), found(ports=(), volumes=[volume(1).id]), BOOT)
    assert (result.name, result.args) == ('swap', (volume(2, replaces=volume(1).id),))
    assert plan.next_step(wanted, record(), found(ports=(), volumes=[volume(2).id]), BOOT).name == 'power_off'
    assert plan.next_step(wanted, record(), found(ports=(), volumes=[]), BOOT).name == 'plug'
