"""Actions that only change what a guest should be: power, pauses, reboots, locks."""
from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.compute import guests, record, states, store
from kodiak.compute.api import common

routes = api.Routes('server actions')
PATH = '/servers/{server_id}/action'
NOTHING = {'anyOf': [{'type': 'null'}, {'type': 'object'}, {'type': 'string'}]}


def empty(name):
    """The body of an action without arguments."""
    return schema.obj({name: {}}, [name])


def apply(req, server_id, action, task, event=None, named=None, desired=None, operation=None, args=None, vm_state=None, **more):
    """Check an action, note it, and write what should be; agents and sagas do the rest.

    :param action: its name in ``states.ACTIONS``. :param task: the task_state meanwhile. :param named: what the record calls it.
    """
    def write(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, action)
        record.begin(connection, server_id, named or action, req.ctx, event=event, host=row['host'])
        guest = guests.change(connection, req.app.bus, server_id, row['host'], desired=desired, operation=operation, args=args,
                              request_id=req.ctx.request_id, **more)
        if guest is None:
            raise errors.Conflict(f'Instance {server_id} is not ready')
        changes = {'task_state': task}
        if vm_state is not None:
            changes['vm_state'] = vm_state
        store.save(connection, row, **changes)
    req.db.transact(write)


def _power(name, rule, action, task, desired, event, summary):
    @routes.post(PATH, action=name, rule=rule, default=policy.PROJECT_MEMBER, load=common.load_server, body=empty(name), status=202,
                 summary=summary)
    def handler(req, server_id):
        apply(req, server_id, action, task, desired=desired, event=event)
    return handler


start = _power('os-start', 'os_compute_api:servers:start', 'start', 'powering-on', 'running', 'compute_start_instance',
               'Start a server')
stop = _power('os-stop', 'os_compute_api:servers:stop', 'stop', 'powering-off', 'stopped', 'compute_stop_instance', 'Stop a server')
pause = _power('pause', 'os_compute_api:os-pause-server:pause', 'pause', 'pausing', 'paused', 'compute_pause_instance',
               'Pause a server')
unpause = _power('unpause', 'os_compute_api:os-pause-server:unpause', 'unpause', 'unpausing', 'running', 'compute_unpause_instance',
                 'Let a paused server go on')
suspend = _power('suspend', 'os_compute_api:os-suspend-server:suspend', 'suspend', 'suspending', 'suspended',
                 'compute_suspend_instance', 'Suspend a server to disk')
resume = _power('resume', 'os_compute_api:os-suspend-server:resume', 'resume', 'resuming', 'running', 'compute_resume_instance',
                'Resume a suspended server')


@routes.post(PATH, action='reboot', rule='os_compute_api:servers:reboot', default=policy.PROJECT_MEMBER, load=common.load_server,
             status=202, body=schema.wrap('reboot', schema.obj({'type': {
                 'type': 'string', 'enum': ['HARD', 'Hard', 'hard', 'SOFT', 'Soft', 'soft']}}, ['type'])),
             summary='Reboot a server')
def reboot(req, server_id):
    kind = req.body['reboot']['type'].upper()
    hard = kind == 'HARD'
    apply(req, server_id, 'reboot_hard' if hard else 'reboot', 'rebooting_hard' if hard else 'rebooting', desired='running',
          operation='reboot', args={'type': kind}, named='reboot', event='compute_reboot_instance')


# Locks

@routes.post(PATH, action='lock', rule='os_compute_api:os-lock-server:lock', default=policy.PROJECT_MEMBER, load=common.load_server,
             status=202, body=schema.obj({'lock': schema.nullable(schema.obj({'locked_reason': {
                 'type': 'string', 'minLength': 1, 'maxLength': 255}}))}, ['lock']), summary='Lock a server')
def lock(req, server_id):
    sent = req.body['lock'] or {}
    if sent and not req.at_least(2, 73):
        raise errors.BadRequest("Additional properties are not allowed ('locked_reason' was unexpected)")
    by = 'owner' if req.ctx.project_id == req.target['project_id'] and not req.ctx.is_admin else 'admin'

    def write(connection):
        row = common.locked(connection, server_id)
        record.begin(connection, server_id, 'lock', req.ctx)
        store.save(connection, row, locked_by='admin' if row['locked_by'] == 'admin' else by,
                   locked_reason=sent.get('locked_reason'))
    req.db.transact(write)


OVERRIDE = 'os_compute_api:os-lock-server:unlock:unlock_override'
EXTRA_RULES = [(OVERRIDE, policy.ADMIN, 'Unlock a server that an administrator locked')]


@routes.post(PATH, action='unlock', rule='os_compute_api:os-lock-server:unlock', default=policy.PROJECT_MEMBER,
             load=common.load_server, status=202, body=empty('unlock'), summary='Unlock a server')
def unlock(req, server_id):
    if req.target['locked_by'] == 'admin' and not (req.ctx.project_id == req.target['project_id'] and req.ctx.is_admin):
        req.authorize(req.target, OVERRIDE)

    def write(connection):
        row = common.locked(connection, server_id)
        record.begin(connection, server_id, 'unlock', req.ctx)
        store.save(connection, row, locked_by=None, locked_reason=None)
    req.db.transact(write)


@routes.post(PATH, action='os-resetState', rule='os_compute_api:os-admin-actions:reset_state', default=policy.ADMIN,
             load=common.load_server, status=202, body=schema.wrap('os-resetState', schema.obj({'state': {
                 'type': 'string', 'enum': ['active', 'error']}}, ['state'])), summary='Declare the state of a server')
def reset_state(req, server_id):
    def write(connection):
        row = common.locked(connection, server_id)
        record.begin(connection, server_id, 'reset_state', req.ctx)
        store.save(connection, row, vm_state=states.ACTIVE if req.body['os-resetState']['state'] == 'active' else states.ERROR,
                   task_state=None)
    req.db.transact(write)
