"""Guests: what the agents of hosts are told about servers, and what their reports mean for the servers.

A row of ``guests`` says what should be on one host. Every change of it goes through :func:`change`, which takes the
next generation of the host, so that an agent that asks for what is newer than its last generation misses nothing.
"""
import logging

import sqlalchemy as sa

from kodiak.common import db, saga
from kodiak.compute import record, rpc, states, store, view, volumes
from kodiak.compute.agent import state
from kodiak.compute.models import guests, hosts, servers, specs

LOG = logging.getLogger(__name__)

_advance = sa.update(hosts).where(hosts.c.host == sa.bindparam('name')).values(generation=hosts.c.generation + 1)
_host = sa.select(hosts.c.generation, hosts.c.agent).where(hosts.c.host == sa.bindparam('name'))
_one = sa.select(guests).where(guests.c.server_uuid == sa.bindparam('uuid'), guests.c.host == sa.bindparam('name'))
_all = sa.select(guests).where(guests.c.server_uuid == sa.bindparam('uuid')).order_by(guests.c.created_at)


def get(connection, uuid, host):
    """The guest of a server on a host as a dictionary, or None."""
    return db.as_dict(connection.execute(_one, {'uuid': uuid, 'name': host}).first())


def of(connection, uuid):
    """All guests of a server (two while it moves), the oldest first."""
    return [dict(row) for row in connection.execute(_all, {'uuid': uuid}).mappings()]


def _next(connection, host, bus):
    # The lock that the update takes makes generations of one host commit in their order.
    connection.execute(_advance, {'name': host})
    generation, agent = connection.execute(_host, {'name': host}).one()
    if bus is not None:
        db.after_commit(connection, lambda: bus.client(rpc.AGENT, rpc.AGENT_TOPIC).cast('look', server=agent, hosts=[host]))
    return generation


def create(connection, bus, uuid, host, flavor, desired='running', **more):
    """Have a server built on a host (or nothing, where it is being built there already). Returns the guest."""
    found = get(connection, uuid, host)
    if found is not None and found['desired'] != 'absent':
        return found
    generation = _next(connection, host, bus)
    row = {'server_uuid': uuid, 'host': host, 'generation': generation, 'desired': desired, 'desired_generation': generation,
           'flavor': flavor, 'operations': [], 'last_number': 0, 'source': None, 'rescue': None, 'built': False, 'settled': 0,
           'power_state': None, 'outcomes': [], 'plugged': [], 'fault': None, 'reported_at': None,
           'created_at': db.utcnow(), **more}
    if found is None:
        connection.execute(guests.insert(), row)
    else:
        row['last_number'] = found['last_number']
        connection.execute(_update(uuid, host).values(row))
    return row


def _update(uuid, host):
    return guests.update().where(guests.c.server_uuid == uuid, guests.c.host == host)


def change(connection, bus, uuid, host, desired=None, operation=None, args=None, request_id='', done=(), **more):
    """Change what should be. Returns the guest as it is then, or None where there is none.

    :param desired: one of ``agent.state.DESIRED``; asking for it again makes a guest that stopped by itself start.
    :param operation: the kind of an operation to be done once, with its ``args``.
    :param done: numbers of operations whose outcome has been read.
    """
    guest = get(connection, uuid, host)
    if guest is None:
        return None
    changes = {**more, 'generation': _next(connection, host, bus)}
    if desired is not None:
        changes.update(desired=desired, desired_generation=changes['generation'])
    operations = [pending for pending in guest['operations'] if pending['number'] not in done]
    if done:
        changes['outcomes'] = [outcome for outcome in guest['outcomes'] if outcome['number'] not in done]
    if operation is not None:
        number = changes['last_number'] = guest['last_number'] + 1
        operations.append(state.dump(state.Operation(number=number, kind=operation, args=args or {}, request_id=request_id)))
    changes['operations'] = operations
    connection.execute(_update(uuid, host).values(changes))
    guest.update(changes)
    return guest


def refresh(connection, bus, uuid, host):
    """Have the agent look at a guest again because something that its spec shows changed."""
    if host:
        change(connection, bus, uuid, host)


def remove(connection, bus, uuid, host=None):
    """Have a server vanish from a host (from all, if None). True if it is nowhere any more."""
    left = 0
    for guest in of(connection, uuid):
        if host is not None and guest['host'] != host:
            continue
        left += 1
        if guest['desired'] != 'absent':
            change(connection, bus, uuid, guest['host'], desired='absent', operations=[])
    return left == 0


def outcome(guest, number):
    """The outcome of an operation as a dictionary, or None while it has not ended."""
    return next((found for found in guest['outcomes'] if found['number'] == number), None)


def settled(guest):
    """True if the agent has brought about all that is asked for now."""
    return guest['settled'] >= guest['generation']


# What the agent is told

def instance(guest, row, spec, conf):
    """``agent.state.Instance`` of a guest as a dictionary."""
    hostname = row['hostname']
    if conf.compute.dhcp_domain:
        hostname += '.' + conf.compute.dhcp_domain
    return {
        'uuid': row['uuid'], 'generation': guest['generation'], 'desired': guest['desired'],
        'desired_generation': guest['desired_generation'], 'built': guest['built'], 'operations': guest['operations'],
        'source': guest['source'], 'stop_timeout': conf.compute.stop_timeout, 'request_id': spec.get('request_id', ''),
        'spec': {
            'uuid': row['uuid'], 'name': row['name'], 'domain_name': view.instance_name(row), 'flavor': guest['flavor'],
            'image': row['image'], 'hardware': spec.get('hardware'),
            'rescue': guest['rescue'], 'hostname': hostname, 'project_id': row['project_id'],
            'project_name': spec.get('project_name') or '', 'user_id': row['user_id'], 'user_name': spec.get('user_name') or '',
            'ports': [port for port in row['networks'] if not port.get('pending')],
            'volumes': volumes.for_host(row['volumes'], guest['host']),
            'ephemerals': spec.get('ephemerals'), 'config_drive': row['config_drive'], 'user_data': row['user_data'],
            'metadata': row['metadata'], 'files': spec.get('files') or [], 'key_name': row['key_name'],
            'key_type': spec.get('key_type') or 'ssh', 'public_key': spec.get('public_key'),
            'admin_password': spec.get('admin_password'), 'security_groups': row['security_groups'],
            'floating_ips': [ip for port in row['networks'] for ips in port.get('floating', {}).values() for ip in ips],
            'availability_zone': row['zone'] or conf.compute.default_availability_zone, 'launch_index': row['launch_index'],
            'reservation_id': row['reservation_id'], 'created_at': view.time(row['created_at']),
        },
    }


def host_state(connection, conf, asked):
    """``{host: agent.state.HostState}`` of hosts with something newer than ``asked`` (``{host: since}``)."""
    generations = dict(connection.execute(sa.select(hosts.c.host, hosts.c.generation).where(hosts.c.host.in_(asked))).all())
    answer = {}
    changed = []
    for host, since in asked.items():
        generation = generations.get(host, 0)
        if not since or since > generation:
            answer[host] = {'generation': generation, 'full': True, 'instances': []}
            changed.append(guests.c.host == host)
        elif generation > since:
            answer[host] = {'generation': generation, 'full': False, 'instances': []}
            changed.append(sa.and_(guests.c.host == host, guests.c.generation > since))
    # One statement for many hosts, but not one with thousands of conditions.
    for start in range(0, len(changed), 100):
        found = db.all_dicts(connection, sa.select(guests).where(sa.or_(*changed[start:start + 100])))
        uuids = list({guest['server_uuid'] for guest in found})
        rows, data = {}, {}
        for first in range(0, len(uuids), 500):
            some = uuids[first:first + 500]
            rows.update((row['uuid'], row) for row in db.all_dicts(connection, sa.select(servers).where(servers.c.uuid.in_(some))))
            data.update(connection.execute(sa.select(specs.c.server_uuid, specs.c.data).where(specs.c.server_uuid.in_(some))).all())
        for guest in found:
            row = rows.get(guest['server_uuid'])
            if row is not None:
                answer[guest['host']]['instances'].append(instance(guest, row, data.get(row['uuid'], {}), conf))
    return answer


# What the agent says

def reported(connection, report):
    """Take a report (``agent.state.Report`` as a dictionary); the verdict for the agent: ``ok`` or ``unknown``."""
    uuid, host = report['uuid'], report['host']
    guest = get(connection, uuid, host)
    if guest is None:
        return 'unknown'
    power = report['power_state']
    if guest['desired'] == 'absent' and power == 'absent' and report.get('settled') and report['generation'] >= guest['generation']:
        connection.execute(guests.delete().where(guests.c.server_uuid == uuid, guests.c.host == host))
        saga.nudge(connection, uuid)
        return 'ok'
    changes = {'reported_at': db.utcnow(), 'power_state': power, 'fault': report.get('fault'),
               'plugged': report.get('plugged') or [],
               'outcomes': [outcome for outcome in report.get('outcomes') or [] if any(
                   outcome['number'] == operation['number'] for operation in guest['operations'])],
               'built': guest['built'] or bool(report.get('built')),
               # A report about an older generation says nothing about what has been asked for since.
               'settled': max(guest['settled'], report['generation']) if report.get('settled') else guest['settled']}
    guest.update(changes)
    connection.execute(_update(uuid, host).values(changes))
    row = store.lock(connection, uuid)
    if row is not None and row['host'] == host and not row['deleted']:
        _follow(connection, row, guest, report)
    saga.nudge(connection, uuid)
    return 'ok'


def _follow(connection, row, guest, report):
    """What a report about the host that a server is on means for the server."""
    changes = {}
    power = states.POWER.get(guest['power_state'], 0)
    if power != row['power_state']:
        changes['power_state'] = power
    task = states.TASKS.get(row['task_state'])
    if task is not None and task.settles is not None:
        if settled(guest):
            changes.update(_finish(connection, row, guest, task.settles))
        elif guest['fault'] and guest['fault'].get('final'):
            changes.update(_refused(connection, row, guest))
    elif task is None and report.get('self_stopped') and row['vm_state'] in (states.ACTIVE, states.RESCUED):
        changes['vm_state'] = states.STOPPED
        record.note(connection, row, 'stop', message='The guest powered itself off.')
    elif task is None and guest['power_state'] == 'absent' and (guest['fault'] or {}).get('code') == 'disk-missing' \
            and row['vm_state'] in (states.ACTIVE, states.STOPPED, states.PAUSED, states.SUSPENDED):
        changes.update(vm_state=states.ERROR, fault=_fault(guest['fault']['message']))
    elif task is None and row['vm_state'] == states.STOPPED and guest['desired'] == 'running' and settled(guest) \
            and power == states.RUNNING:
        changes['vm_state'] = states.ACTIVE
    if task is None and guest['outcomes']:
        _read(connection, guest)
    if changes:
        store.save(connection, row, **changes)


# Operations that no saga waits for: their outcome is read here.
_OWN = frozenset(['reboot', 'rebuild', 'nmi', 'reset_network', 'set_password'])


def _read(connection, guest):
    """Take note of outcomes that no saga waits for; the sentence of the first that failed, and its kind."""
    kinds = {operation['number']: operation['kind'] for operation in guest['operations']}
    read = [outcome for outcome in guest['outcomes'] if kinds.get(outcome['number']) in _OWN]
    if not read:
        return None, None
    numbers = {outcome['number'] for outcome in read}
    # The agent forgets them when they are listed no more; nothing on the host changes by that.
    connection.execute(_update(guest['server_uuid'], guest['host']).values(
        operations=[operation for operation in guest['operations'] if operation['number'] not in numbers],
        outcomes=[outcome for outcome in guest['outcomes'] if outcome['number'] not in numbers]))
    failed = next((outcome for outcome in read if outcome.get('fault')), None)
    return (failed['fault']['message'], kinds[failed['number']]) if failed else (None, None)


def _finish(connection, row, guest, vm_state):
    message, kind = _read(connection, guest)
    record.finish(connection, row['uuid'], error=message)
    if message is None:
        return {'task_state': None, 'vm_state': states.OF_DESIRED[guest['desired']] if vm_state == states.DESIRED else vm_state}
    now = {'running': states.ACTIVE, 'stopped': states.STOPPED, 'paused': states.PAUSED, 'suspended': states.SUSPENDED}
    return {'task_state': None, 'fault': _fault(message),
            'vm_state': states.ERROR if kind == 'rebuild' else now.get(guest['power_state'], row['vm_state'])}


def _refused(connection, row, guest):
    message = guest['fault']['message']
    _read(connection, guest)
    record.finish(connection, row['uuid'], error=message)
    return {'task_state': None, 'vm_state': states.ERROR, 'fault': _fault(message)}


def _fault(message):
    return {'code': 500, 'message': message[:255], 'details': message, 'created': view.time(db.utcnow())}
