"""What can be asked about a server: the record of its actions, diagnostics, topology, console output and consoles, password."""
import hashlib
import secrets
import urllib.parse

import sqlalchemy as sa

from kodiak.common import api, db, errors, policy, rpc
from kodiak.common.api import schema
from kodiak.compute import rpc as tables
from kodiak.compute import store, view
from kodiak.compute.api import common
from kodiak.compute.api.actions import PATH
from kodiak.compute.api.servers import timestamp
from kodiak.compute.models import action_events, actions, console_tokens, hosts

routes = api.Routes('server information')
TOKEN_LIFE = 600
MOST_OUTPUT = 102400


def ask(req, row, name, **args):
    """Ask the agent of a server's host; 409 where it doesn't answer."""
    with req.db.read() as connection:
        agent = connection.scalar(sa.select(hosts.c.agent).where(hosts.c.host == row['host']))
    if agent is None:
        raise errors.Conflict(f'Instance {row["uuid"]} is not ready')
    try:
        return req.app.bus.client(tables.AGENT, tables.AGENT_TOPIC).call(
            name, req.ctx, server=agent, host=row['host'], uuid=row['uuid'], **args)
    except rpc.Unreachable:
        raise errors.Conflict(f'The host of instance {row["uuid"]} does not answer now.') from None


# The record

EVENTS = 'os_compute_api:os-instance-actions:events'
DETAILS = 'os_compute_api:os-instance-actions:events:details'
EXTRA_RULES = [(EVENTS, policy.ADMIN, 'See the events of an action, and their tracebacks'),
               (DETAILS, policy.ADMIN, 'See the details of the events of an action')]
LIST = api.Listing(actions.c.request_id, {'started_at': actions.c.started_at, 'id': actions.c.id},
                   [('started_at', 'desc'), ('id', 'desc')], max_limit=common.MAX_PAGE)
TIMES = {'changes-since': schema.STRING, 'changes-before': schema.STRING}


def load_recorded(req, server_id, **more):
    """A server whose record is asked for: also a deleted one, since 2.21."""
    return (common.load_any_server if req.at_least(2, 21) else common.load_server)(req, server_id)


def _action(req, row):
    found = {'action': row['action'], 'instance_uuid': row['server_uuid'], 'request_id': row['request_id'],
             'user_id': row['user_id'],
             'project_id': row['project_id'], 'start_time': view.micro_time(row['started_at']), 'message': row['message']}
    if req.at_least(2, 58):
        found['updated_at'] = view.micro_time(row['updated_at'])
    return found


@routes.get('/servers/{server_id}/os-instance-actions', rule='os_compute_api:os-instance-actions:list',
            default=policy.PROJECT_READER,
            load=load_recorded, query={**TIMES, 'limit': schema.INTEGER, 'marker': schema.STRING},
            response=schema.obj({'instanceActions': schema.array({'type': 'object'}), 'links': common.LINKS}),
            summary='List what was done to a server')
def index(req, server_id):
    conditions = [actions.c.server_uuid == server_id]
    paged = req.at_least(2, 58)
    since, before = (req.query.get(name) for name in TIMES)
    if paged and since:
        conditions.append(actions.c.updated_at >= timestamp(since, 'changes-since'))
    if req.at_least(2, 66) and before:
        if since and timestamp(since, 'changes-since') > timestamp(before, 'changes-before'):
            raise errors.BadRequest('The value of changes-since must be less than or equal to changes-before.')
        conditions.append(actions.c.updated_at <= timestamp(before, 'changes-before'))
    with req.db.read() as connection:
        rows, more = LIST.page(connection, sa.select(actions).where(*conditions), req.query if paged else {},
                               visible=actions.c.server_uuid == server_id)
    answer = {'instanceActions': [_action(req, row._mapping) for row in rows]}
    if more and paged:
        answer.update(common.next_link(req, 'links', rows[-1].request_id))
    return answer


@routes.get('/servers/{server_id}/os-instance-actions/{request_id}', rule='os_compute_api:os-instance-actions:show',
            default=policy.PROJECT_READER, load=load_recorded, response=schema.wrap('instanceAction', {'type': 'object'}),
            summary='Show one of the things that were done to a server')
def show(req, server_id, request_id):
    with req.db.read() as connection:
        row = db.one(connection, sa.select(actions).where(actions.c.server_uuid == server_id, actions.c.request_id == request_id))
        if row is None:
            raise errors.NotFound(f'Action for request_id {request_id} on instance {server_id} not found')
        events = db.all_dicts(connection, sa.select(action_events).where(action_events.c.action_id == row['id']).order_by(
            action_events.c.id.desc()))
    found = _action(req, row)
    traces = req.allows(EVENTS)
    if traces or req.at_least(2, 51):
        found['events'] = [_event(req, event, traces) for event in events]
    return {'instanceAction': found}


def _event(req, event, traces):
    found = {'event': event['event'], 'start_time': view.micro_time(event['started_at']),
             'finish_time': view.micro_time(event['finished_at']), 'result': event['result']}
    if traces:
        found['traceback'] = event['details']
    if req.at_least(2, 62):
        found['hostId'] = view.host_id({'host': event['host'], 'project_id': req.target['project_id']})
        if traces:
            found['host'] = event['host']
    if req.at_least(2, 84):
        found['details'] = event['details']
    return found


# Diagnostics and topology

@routes.get('/servers/{server_id}/diagnostics', rule='os_compute_api:os-server-diagnostics', default=policy.ADMIN,
            load=common.load_server, response={'type': 'object'}, summary='Show the counters of a running guest')
def diagnostics(req, server_id):
    common.check(req, req.target, 'get_diagnostics')
    found = ask(req, req.target, 'diagnostics')
    return found if req.at_least(2, 48) else _flat(found)


def _flat(found):
    flat = {'memory': ((found.get('memory_details') or {}).get('maximum') or 0) * 1024}
    flat.update((f'cpu{cpu.get("id", number)}_time', cpu.get('time')) for number, cpu in enumerate(found.get('cpu_details') or ()))
    for number, disk in enumerate(found.get('disk_details') or ()):
        name = 'vd' + chr(ord('a') + number)
        flat.update({f'{name}_read': disk.get('read_bytes'), f'{name}_read_req': disk.get('read_requests'),
                     f'{name}_write': disk.get('write_bytes'), f'{name}_write_req': disk.get('write_requests'),
                     f'{name}_errors': disk.get('errors_count')})
    for number, nic in enumerate(found.get('nic_details') or ()):
        for side in ('rx', 'tx'):
            flat.update({f'vnet{number}_{side}': nic.get(f'{side}_octets'),
                         f'vnet{number}_{side}_packets': nic.get(f'{side}_packets'),
                         f'vnet{number}_{side}_errors': nic.get(f'{side}_errors'),
                         f'vnet{number}_{side}_drop': nic.get(f'{side}_drop')})
    return flat


@routes.get('/servers/{server_id}/topology', rule='compute:server:topology:index', default=policy.PROJECT_READER,
            load=common.load_server, since='2.78', response={'type': 'object'}, summary='Show the NUMA topology of a server')
def topology(req, server_id):
    return {'nodes': [], 'pagesize_kb': None}


# Console output

@routes.post(PATH, action='os-getConsoleOutput', rule='os_compute_api:os-console-output', default=policy.PROJECT_MEMBER,
             load=common.load_server, body=schema.wrap('os-getConsoleOutput', schema.obj({'length': {
                 'type': ['integer', 'string', 'null'], 'pattern': '^-?[0-9]+$', 'minimum': -1}})),
             response=schema.wrap('output', schema.STRING), summary='Show what a guest wrote to its console')
def console_output(req, server_id):
    common.check(req, req.target, 'get_console_output')
    length = req.body['os-getConsoleOutput'].get('length')
    lines = None if length is None else int(length)
    output = ask(req, req.target, 'console_output', length=MOST_OUTPUT) or ''
    if lines is not None and lines >= 0:
        output = '\n'.join(output.split('\n')[-lines:]) if lines else ''
    return {'output': output}


# Consoles

PROTOCOLS = {'vnc': ('novnc', 'xvpvnc'), 'serial': ('serial',), 'spice': ('spice-html5', 'spice-direct'), 'rdp': ('rdp-html5',),
             'mks': ('webmks',)}
OFFERED = {'novnc': 'vnc_auto.html', 'serial': None}


def open_console(req, server_id, kind):
    """A URL with a token for a console of a server."""
    if kind not in OFFERED:
        raise errors.BadRequest(f'Unavailable console type {kind}.')
    token = secrets.token_urlsafe(32)
    now = db.utcnow()

    def write(connection):
        row = common.locked(connection, server_id)
        if not row['host'] or row['vm_state'] not in ('active', 'paused', 'rescued', 'error', 'resized', 'suspended'):
            raise errors.Conflict(f'Instance {server_id} is not ready')
        connection.execute(console_tokens.insert(), {
            'token_hash': hashlib.sha256(token.encode()).hexdigest(), 'server_uuid': server_id, 'kind': kind, 'host': row['host'],
            'expires_at': now + db.datetime.timedelta(seconds=TOKEN_LIFE)})
    req.db.transact(write)
    base = req.app.conf.compute.console_url.rstrip('/')
    if kind == 'serial':
        return 'ws' + base.removeprefix('http') + f'/?token={token}'
    return f'{base}/{OFFERED[kind]}?path=' + urllib.parse.quote(f'?token={token}', safe='')


def _old_console(name, rule, kinds, until):
    @routes.post(PATH, action=name, rule=rule, default=policy.PROJECT_MEMBER, load=common.load_server, until=until,
                 body=schema.wrap(name, schema.obj({'type': {'type': 'string', 'enum': list(kinds)}}, ['type'])),
                 response=schema.wrap('console', {'type': 'object'}), summary='Open a console')
    def handler(req, server_id):
        kind = req.body[name]['type']
        return {'console': {'type': kind, 'url': open_console(req, server_id, kind)}}
    return handler


for _name, _protocol in (('os-getVNCConsole', 'vnc'), ('os-getSerialConsole', 'serial'), ('os-getSPICEConsole', 'spice'),
                         ('os-getRDPConsole', 'rdp')):
    _old_console(_name, 'os_compute_api:os-remote-consoles', PROTOCOLS[_protocol], '2.5')


@routes.post('/servers/{server_id}/remote-consoles', rule='os_compute_api:os-remote-consoles', default=policy.PROJECT_MEMBER,
             load=common.load_server, since='2.6', body=schema.wrap('remote_console', schema.obj({
                 'protocol': {'type': 'string', 'enum': list(PROTOCOLS)},
                 'type': {'type': 'string', 'enum': [kind for kinds in PROTOCOLS.values() for kind in kinds]}}, ['protocol',
                                                                                                                 'type'])),
             response=schema.wrap('remote_console', {'type': 'object'}), summary='Open a console')
def remote_console(req, server_id):
    sent = req.body['remote_console']
    if sent['type'] not in PROTOCOLS[sent['protocol']]:
        raise errors.BadRequest(f'Invalid console type {sent["type"]} of protocol {sent["protocol"]}.')
    return {'remote_console': {**sent, 'url': open_console(req, server_id, sent['type'])}}


@routes.get('/os-console-auth-tokens/{token}', rule='os_compute_api:os-console-auth-tokens', default=policy.ADMIN,
            response=schema.wrap('console', {'type': 'object'}), summary='Show what a console token opens')
def console_token(req, token):
    with req.db.read() as connection:
        found = db.one(connection, sa.select(console_tokens).where(
            console_tokens.c.token_hash == hashlib.sha256(token.encode()).hexdigest(), console_tokens.c.expires_at > db.utcnow()))
        row = store.get(connection, found['server_uuid']) if found else None
    if row is None:
        raise errors.NotFound('Token not found')
    address = ask(req, row, 'console_address', kind='serial' if found['kind'] == 'serial' else 'vnc')
    if address is None:
        raise errors.NotFound('Token not found')
    return {'console': {'instance_uuid': row['uuid'], 'host': address['host'], 'port': address['port'],
                        'internal_access_path': address.get('path')}}


# The password that a guest reported, encrypted for its owner's key

@routes.get('/servers/{server_id}/os-server-password', rule='os_compute_api:os-server-password:show', default=policy.PROJECT_READER,
            load=common.load_server, response=schema.wrap('password', schema.STRING),
            summary='Show the encrypted password of a guest')
def password(req, server_id):
    with req.db.read() as connection:
        return {'password': store.spec(connection, server_id).get('guest_password') or ''}


@routes.delete('/servers/{server_id}/os-server-password', rule='os_compute_api:os-server-password:clear',
               default=policy.PROJECT_MEMBER, load=common.load_server, summary='Forget the encrypted password of a guest')
def password_clear(req, server_id):
    def write(connection):
        common.locked(connection, server_id)
        store.save_spec(connection, server_id, {**store.spec(connection, server_id), 'guest_password': None})
    req.db.transact(write)
