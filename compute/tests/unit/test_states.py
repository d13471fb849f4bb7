import pytest

from kodiak.compute import birth, scheduler, states


@pytest.mark.parametrize(('vm_state', 'task_state', 'shown'), [
    ('building', 'scheduling', 'BUILD'), ('active', None, 'ACTIVE'), ('active', 'rebooting', 'REBOOT'), ('error', None, 'ERROR'),
    ('active', 'rebooting_hard', 'HARD_REBOOT'), ('stopped', 'resize_prep', 'RESIZE'), ('resized', None, 'VERIFY_RESIZE'),
    ('resized', 'resize_reverting', 'REVERT_RESIZE'), ('active', 'deleting', 'ACTIVE'), ('error', 'rebuilding', 'REBUILD'),
    ('stopped', 'powering-on', 'SHUTOFF'), ('shelved_offloaded', 'unshelving', 'SHELVED_OFFLOADED')])
def test_what_users_see(vm_state, task_state, shown):
    assert states.status(vm_state, task_state) == shown


def test_the_tables_hold_together():
    for task in states.TASKS.values():
        assert task.deadline > 0 and task.settles in {None, states.DESIRED, *states.STATUS}
    for rule in states.ACTIONS.values():
        assert rule.states <= set(states.STATUS) and rule.tasks <= states.ANYTHING


def test_actions_need_their_state():
    row = {'vm_state': 'active', 'task_state': None, 'launched_at': 1}
    assert states.allowed('stop', row) is None and states.allowed('start', row) == ('vm_state', 'active')
    assert states.allowed('stop', {**row, 'task_state': 'rebooting'}) == ('task_state', 'rebooting')
    assert states.allowed('reboot_hard', {**row, 'task_state': 'rebooting'}) is None
    assert states.allowed('stop', {**row, 'launched_at': None}) == ('launched_at', None)
    assert states.allowed('delete', {**row, 'task_state': 'spawning', 'launched_at': None}) is None


@pytest.mark.parametrize(('asked', 'values', 'fits'), [
    ('ssd', {'ssd', 'hdd'}, True), ('ssd', set(), False), ('>= 5', {'6'}, True), ('>= 5', {'4'}, False), ('= 5', {'7'}, True),
    ('s== x', {'x'}, True), ('s!= x', {'x'}, False), ('<or> a <or> b', {'b'}, True), ('<or> a <or> b', {'c'}, False),
    ('<in> mid', {'amidst'}, True), ('>= 5', {'many'}, False)])
def test_extra_specs_match(asked, values, fits):
    assert scheduler.matches(asked, values) is fits


def test_what_a_flavor_takes():
    flavor = {'vcpus': 2, 'ram': 512, 'root': 1, 'ephemeral': 2, 'swap': 1025, 'extra_specs': {'resources:VGPU': '1',
                                                                                               'resources:VCPU': '0'}}
    assert scheduler.resources(flavor) == {'MEMORY_MB': 512, 'DISK_GB': 5, 'VGPU': 1}
    assert scheduler.resources({**flavor, 'extra_specs': {}}, volume_booted=True)['DISK_GB'] == 4
    image = {'properties': {'trait:B': 'required', 'other': 'x'}}
    assert scheduler.traits({'extra_specs': {'trait:A': 'required', 'trait:C': 'forbidden'}}, image) == (['A', 'B'], ['C'])


@pytest.mark.parametrize(('name', 'hostname'), [('My Server_1', 'my-server-1'), ('ümlaut', 'mlaut'), ('...', 'server-u'),
                                                ('a' * 80, 'a' * 63)])
def test_host_names(name, hostname):
    assert birth.hostname_of(name, 'u') == hostname
