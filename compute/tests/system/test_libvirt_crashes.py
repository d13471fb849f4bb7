"""The agent is killed at several moments of every operation; the next one brings it to the same end."""
import time

import pytest

from kodiak.compute.agent import state

pytestmark = pytest.mark.system
DELAYS = (0.05, 0.3, 0.8, 1.6)


def op(number, kind, **args):
    return state.Operation(number, kind, args)


BIG = state.Flavor('big', 1, 160, 2)
CHANGES = {
    'stop': ({'desired': 'stopped', 'stop_timeout': 2}, 'stopped'),
    'pause': ({'desired': 'paused'}, 'paused'),
    'suspend': ({'desired': 'suspended'}, 'suspended'),
    'soft reboot': ({'operations': [op(1, 'reboot', type='SOFT')], 'stop_timeout': 1}, 'running'),
    'hard reboot': ({'operations': [op(1, 'reboot', type='HARD')]}, 'running'),
    'snapshot': ({'operations': [op(1, 'snapshot', image_id='crashed')]}, 'running'),
    'rebuild': ({'operations': [op(1, 'rebuild')]}, 'running'),
    'resize': ({'flavor': BIG, 'operations': [op(1, 'resize')], 'stop_timeout': 1}, 'running'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_killed_in_the_middle(host, new, name):
    change, ending = CHANGES[name]
    numbers = iter(range(1, 100))
    for delay in DELAYS:
        one, _ = host.get(new())
        if 'operations' in change:
            operation = change['operations'][0]
            change = {**change, 'operations': [op(next(numbers), operation.kind, **operation.args)]}
        one = host.wish(one, **change)
        host.look()
        time.sleep(delay)
        host.kill_agent()
        host.start_agent()
        told = host.settle(one)
        assert told.power_state == ending
        assert [outcome.fault for outcome in told.outcomes] == [None] * len(one.operations)
        host.get(one, desired='stopped', stop_timeout=0)


def test_killed_while_it_builds(host, new):
    for delay in DELAYS:
        one = host.wish(new(config_drive=True))
        host.look()
        time.sleep(delay)
        host.kill_agent()
        host.start_agent()
        assert host.settle(one).power_state == 'running'


def test_killed_while_it_removes(host, new):
    for delay in (0.02, 0.2, 1.0):
        one, _ = host.get(new())
        one = host.wish(one, desired='absent')
        host.look()
        time.sleep(delay)
        host.kill_agent()
        host.start_agent()
        assert host.settle(one).power_state == 'absent'
        assert one.spec.domain_name not in host.domains()
