"""The life cycle of a server, as tables: states, what may be asked for in them, and how long anything may take.

``vm_state`` is stable: it says what the server is. ``task_state`` is what is being done to it, and is set only while
something is. Every task has a deadline and says what becomes of a server that passes it.
"""
import dataclasses

ACTIVE, BUILDING, PAUSED, SUSPENDED, STOPPED = 'active', 'building', 'paused', 'suspended', 'stopped'
RESCUED, RESIZED, SOFT_DELETED, DELETED, ERROR = 'rescued', 'resized', 'soft-delete', 'deleted', 'error'
SHELVED, OFFLOADED = 'shelved', 'shelved_offloaded'

#: What a stable state is called in the API.
STATUS = {
    ACTIVE: 'ACTIVE', BUILDING: 'BUILD', PAUSED: 'PAUSED', SUSPENDED: 'SUSPENDED', STOPPED: 'SHUTOFF', RESCUED: 'RESCUE',
    RESIZED: 'VERIFY_RESIZE', SOFT_DELETED: 'SOFT_DELETED', DELETED: 'DELETED', ERROR: 'ERROR', SHELVED: 'SHELVED',
    OFFLOADED: 'SHELVED_OFFLOADED',
}

#: Power states as numbers, and as agents name them.
POWER = {'nostate': 0, 'running': 1, 'paused': 3, 'stopped': 4, 'absent': 0, 'crashed': 6, 'suspended': 7}
RUNNING, SHUTDOWN = POWER['running'], POWER['stopped']


#: The vm_state that goes with what a guest should be.
OF_DESIRED = {'running': ACTIVE, 'stopped': STOPPED, 'paused': PAUSED, 'suspended': SUSPENDED}
#: The reverse: what a guest should be while its server is in a state (running, where it isn't named).
DESIRED_OF = {STOPPED: 'stopped', PAUSED: 'paused', SUSPENDED: 'suspended'}
DESIRED = 'desired'


@dataclasses.dataclass(frozen=True)
class Task:
    """Something that is being done.

    :param deadline: seconds that it may take.
    :param settles: the vm_state that the server has once its agent says that its host is as it should be; ``DESIRED`` for the
        one that goes with the guest's desired state; None where a saga decides (then the saga's own deadline comes first, and
        this one catches what no saga answers for).
    :param shown: what the API calls the server meanwhile, where that is not the stable state's name.
    """

    deadline: int = 300
    settles: str | None = None
    shown: str | None = None


TASKS = {
    'scheduling': Task(1800), 'block_device_mapping': Task(1800), 'networking': Task(1800), 'spawning': Task(1800),
    'powering-off': Task(600, STOPPED), 'powering-on': Task(300, ACTIVE),
    'pausing': Task(120, PAUSED), 'unpausing': Task(120, ACTIVE),
    'suspending': Task(600, SUSPENDED), 'resuming': Task(600, ACTIVE),
    'rebooting': Task(600, ACTIVE, 'REBOOT'), 'rebooting_hard': Task(300, ACTIVE, 'HARD_REBOOT'),
    'rescuing': Task(600, RESCUED), 'unrescuing': Task(600, ACTIVE),
    'updating_password': Task(120, DESIRED, 'PASSWORD'),
    'rebuilding': Task(1800, DESIRED, 'REBUILD'), 'rebuild_block_device_mapping': Task(1800, None, 'REBUILD'),
    'rebuild_spawning': Task(1800, None, 'REBUILD'),
    'image_snapshot': Task(3600), 'image_uploading': Task(3600), 'image_backup': Task(3600),
    'resize_prep': Task(1800, None, 'RESIZE'), 'resize_migrating': Task(1800, None, 'RESIZE'),
    'resize_migrated': Task(1800, None, 'RESIZE'), 'resize_finish': Task(1800, None, 'RESIZE'),
    'resize_confirming': Task(600), 'resize_reverting': Task(1800, None, 'REVERT_RESIZE'),
    'migrating': Task(1800, None, 'MIGRATING'),
    'shelving': Task(3600), 'shelving_offloading': Task(600), 'unshelving': Task(1800),
    'soft-deleting': Task(300), 'deleting': Task(1800), 'restoring': Task(300, ACTIVE),
}


def status(vm_state, task_state):
    """What the API calls a server in these states."""
    task = TASKS.get(task_state)
    if task is not None and task.shown:
        if task.shown == 'REVERT_RESIZE':
            return task.shown if vm_state == RESIZED else STATUS[vm_state]
        if vm_state in (ACTIVE, STOPPED, PAUSED) or (vm_state == ERROR and task.shown in ('REBUILD', 'HARD_REBOOT')):
            return task.shown
    return STATUS[vm_state]


NOTHING = frozenset([None])
ANYTHING = frozenset([None, *TASKS])
_REBOOTS = frozenset(['rebooting', 'rebooting_hard'])


@dataclasses.dataclass(frozen=True)
class Action:
    """What may be asked of a server: in which states, while which tasks, and whether a lock forbids it to its owner."""

    states: frozenset
    tasks: frozenset = NOTHING
    launched: bool = True
    lockable: bool = True


def _action(*states, **more):
    return Action(frozenset(states), **more)


#: By the names that the faults call them.
ACTIONS = {
    'start': _action(STOPPED), 'stop': _action(ACTIVE, RESCUED, ERROR),
    'reboot': _action(ACTIVE),
    'reboot_hard': _action(ACTIVE, STOPPED, PAUSED, SUSPENDED, ERROR, tasks=NOTHING | _REBOOTS),
    'pause': _action(ACTIVE), 'unpause': _action(PAUSED), 'suspend': _action(ACTIVE), 'resume': _action(SUSPENDED),
    'rescue': _action(ACTIVE, STOPPED), 'unrescue': _action(RESCUED),
    'rebuild': _action(ACTIVE, STOPPED, ERROR), 'resize': _action(ACTIVE, STOPPED),
    'confirm_resize': _action(RESIZED), 'revert_resize': _action(RESIZED),
    'snapshot': _action(ACTIVE, STOPPED, PAUSED, SUSPENDED, lockable=False),
    'backup': _action(ACTIVE, STOPPED, PAUSED, SUSPENDED),
    'shelve': _action(ACTIVE, STOPPED, PAUSED, SUSPENDED), 'shelve_offload': _action(SHELVED),
    'unshelve': _action(SHELVED, OFFLOADED),
    'attach_interface': _action(ACTIVE, PAUSED, STOPPED), 'detach_interface': _action(ACTIVE, PAUSED, STOPPED),
    'attach_volume': _action(ACTIVE, PAUSED, STOPPED, RESIZED, SUSPENDED, SHELVED, OFFLOADED),
    # What a guest that lies on disk had plugged, it needs when it goes on.
    'detach_volume': _action(ACTIVE, PAUSED, STOPPED, RESIZED, SHELVED, OFFLOADED),
    'swap_volume': _action(ACTIVE, PAUSED, RESIZED), 'migrate': _action(ACTIVE, STOPPED), 'live-migration': _action(ACTIVE, PAUSED),
    'evacuate': _action(ACTIVE, STOPPED, ERROR),
    'set_admin_password': _action(ACTIVE), 'trigger_crash_dump': _action(ACTIVE, PAUSED, RESCUED, ERROR),
    'reset_network': _action(ACTIVE, PAUSED, STOPPED), 'inject_network_info': _action(ACTIVE, PAUSED, STOPPED),
    'update_metadata': _action(ACTIVE, PAUSED, SUSPENDED, STOPPED, launched=False, tasks=ANYTHING, lockable=True),
    'delete_metadata': _action(ACTIVE, PAUSED, SUSPENDED, STOPPED, launched=False, tasks=ANYTHING, lockable=True),
    'update_tags': _action(ACTIVE, PAUSED, SUSPENDED, STOPPED, launched=False, tasks=ANYTHING, lockable=False),
    'delete': Action(frozenset(STATUS) - {DELETED}, ANYTHING, launched=False),
    'force_delete': Action(frozenset(STATUS) - {DELETED}, ANYTHING, launched=False),
    'restore': _action(SOFT_DELETED),
    'get_diagnostics': _action(ACTIVE, lockable=False), 'get_console_output': _action(*STATUS, tasks=ANYTHING, lockable=False),
}


def allowed(action, row):
    """None if ``action`` may be done to the server, else ``(attribute, its value)`` that stands in the way."""
    rule = ACTIONS[action]
    if row['vm_state'] not in rule.states:
        return 'vm_state', row['vm_state']
    if row['task_state'] not in rule.tasks:
        return 'task_state', row['task_state']
    if rule.launched and row['launched_at'] is None and row['vm_state'] != ERROR:
        return 'launched_at', None
    return None
