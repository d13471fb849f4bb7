"""Notifications: what happens to volumes and the rest, told on the message bus (``[notifications] topics``) as consumers of
Cinder's know it.

``store`` has what changes told here, in the transaction of the change: most of it follows from the status that a row had and the
one that it has now. The README has a table of all of them.
"""
import sqlalchemy as sa
from oslo_context import context

from kodiak.common import db, outbox

from . import states, work
from .models import attachments, backups, messages, snapshots, volumes

#: What is being done to rows of a table in a status that passes, by the name that consumers know.
VOLUME = {
    states.CREATING: 'create', states.DELETING: 'delete', states.EXTENDING: 'resize', states.RETYPING: 'retype',
    states.REVERTING: 'revert', states.MANAGING: 'manage_existing', states.UNMANAGING: 'unmanage', states.DOWNLOADING: 'reimage',
}
SNAPSHOT = {
    states.CREATING: 'create', states.DELETING: 'delete', states.RESTORING: 'revert', states.MANAGING: 'manage_existing_snapshot',
    states.UNMANAGING: 'unmanage',
}
OTHER = {states.CREATING: 'create', states.DELETING: 'delete'}
#: Table -> what its events begin with, what is done in which status, columns whose change by itself is an update.
TOLD = {
    'volumes': ('volume', VOLUME, ('name', 'description', 'metadata', 'bootable', 'readonly')),
    'snapshots': ('snapshot', SNAPSHOT, ('name', 'description', 'metadata')),
    'backups': ('backup', {**OTHER, states.RESTORING: 'restore'}, ('name', 'description', 'metadata')),
    'volume_groups': ('group', OTHER, ()),
    'group_snapshots': ('group_snapshot', OTHER, ()),
}
MOVES = {'starting': 'migrate.start', 'success': 'migrate.end', 'error': 'migrate.error'}


def wanted(connection, table):
    """True if changes of a table's rows are told to somebody."""
    return table.name in TOLD and outbox.announced(connection)


def made(connection, table, row):
    """Tell that a row was made, where something is being done to it."""
    what = TOLD[table.name][1].get(row['status'])
    if what:
        tell(connection, table, row, what + '.start')


def changed(connection, table, before, row):
    """Tell what the change of a row from ``before`` comes to."""
    _, doing, columns = TOLD[table.name]
    ended, begun = doing.get(before['status']), doing.get(row['status'])
    if before['status'] != row['status']:
        if ended and not begun:
            _tell_end(connection, table, before, row, ended)
        if begun and begun != 'retype':
            tell(connection, table, row, begun + '.start')
    elif any(before[name] != row[name] for name in columns):
        both(connection, table, row, 'update', before)
    if before.get('migration_status') != row.get('migration_status') in MOVES and not (ended or begun):
        _tell_phase(connection, table, row, MOVES[row['migration_status']])


def removed(connection, table, row):
    """Tell that a row is gone."""
    if row is not None:
        ended = TOLD[table.name][1].get(row['status'])
        tell(connection, table, row, f'{ended if ended == "unmanage" else "delete"}.end', deleted=True)


def _tell_end(connection, table, before, row, ended):
    failed = row['status'].startswith('error')
    if ended == 'retype':
        # Consumers know but one event of it, without a phase.
        failed = before['volume_type_id'] == row['volume_type_id']
        tell(connection, table, row, 'retype.error' if failed else 'retype', **_reason(connection, row, failed))
        return
    if ended == 'restore':
        failed = row['fail_reason'] != before['fail_reason']
    _tell_phase(connection, table, row, ended + ('.error' if failed else '.end'))


def _tell_phase(connection, table, row, event):
    tell(connection, table, row, event, **_reason(connection, row, event.endswith('.error')))


def _reason(connection, row, failed):
    """The sentence that the owner of a row got about what just failed."""
    current = context.get_current()
    text = failed and current and connection.scalar(sa.select(messages.c.text).where(
        messages.c.resource_uuid == row['id'], messages.c.request_id == current.request_id).order_by(
            messages.c.created_at.desc()).limit(1))
    return {'message': text} if text else {}


def both(connection, table, row, what, before=None, **more):
    """Tell of something that is done at once: that it began, with ``before``, and its end."""
    if wanted(connection, table):
        tell(connection, table, before or row, what + '.start', **more)
        tell(connection, table, row, what + '.end', **more)


def tell(connection, table, row, event, deleted=False, **more):
    """Tell ``<kind>.<event>`` of a row, by whoever asks now."""
    if not wanted(connection, table):
        return
    payload = {**PAYLOADS[table.name](connection, row, deleted), **more}
    _write(connection, f'{TOLD[table.name][0]}.{event}', payload, row['id'])


def _write(connection, event, payload, row_id):
    # In order among themselves, but ahead of nothing else: while the bus is away, compute still hears of its volumes.
    outbox.notify(connection, event, payload, context.get_current(), f'notices of {row_id}')


def catalog(connection, event, payload, resource_id):
    """Tell what operators do to types and QoS specs, and to a status."""
    _write(connection, event, payload, resource_id)


def reset(connection, kinds, row_id, sent, function):
    """``function()`` sets the status of a row by hand: tell that, around it."""
    payload = {'id': row_id, 'update': sent}
    catalog(connection, kinds + '.reset_status.start', payload, row_id)
    function()
    catalog(connection, kinds + '.reset_status.end', payload, row_id)


# What is told of each

def _moment(value):
    return (value or db.utcnow()).isoformat()


def _owner(row, **more):
    return {'tenant_id': row['project_id'], 'user_id': row['user_id'], 'created_at': _moment(row['created_at']),
            'status': row['status'], **more}


def _pairs(row, values):
    return [{'key': key, 'value': value, 'volume_id': row['id']} for key, value in values.items()]


def _attachment(row):
    return {'id': row['id'], 'volume_id': row['volume_id'], 'server_id': row['instance_uuid'],
            'instance_uuid': row['instance_uuid'], 'attached_host': row['attached_host'], 'mountpoint': row['mountpoint'],
            'attach_mode': row['attach_mode'], 'attach_status': row['attach_status'],
            'attach_time': row['attached_at'].isoformat() if row['attached_at'] else None}


def volume(connection, row, deleted=False):
    """What is told of a volume."""
    there = db.all_dicts(connection, sa.select(attachments).where(attachments.c.volume_id == row['id']).order_by(
        attachments.c.created_at))
    found = _owner(
        row, volume_id=row['id'], host=work.shown(row['backend']), availability_zone=row['availability_zone'],
        volume_type=row['volume_type_id'], display_name=row['name'], launched_at=_moment(row['launched_at']),
        snapshot_id=row['snapshot_id'], size=row['size'], replication_status=None, replication_extended_status=None,
        replication_driver_data=None, metadata=_pairs(row, row['metadata']), volume_attachment=[_attachment(one) for one in there])
    if row['image_metadata']:
        found['glance_metadata'] = _pairs(row, row['image_metadata'])
    return found


def snapshot(connection, row, deleted=False):
    """What is told of a snapshot."""
    zone = connection.scalar(sa.select(volumes.c.availability_zone).where(volumes.c.id == row['volume_id']))
    return _owner(row, snapshot_id=row['id'], volume_id=row['volume_id'], volume_size=row['size'], display_name=row['name'],
                  availability_zone=zone, deleted='True' if deleted else '',
                  metadata=str(row['metadata']) if row['metadata'] else '')


def backup(connection, row, deleted=False):
    """What is told of a backup."""
    count = connection.scalar(sa.select(sa.func.count()).where(backups.c.parent_id == row['id']))
    return _owner(row, backup_id=row['id'], host=row['host'], availability_zone=row['availability_zone'], display_name=row['name'],
                  volume_id=row['volume_id'], snapshot_id=row['snapshot_id'], parent_id=row['parent_id'], size=row['size'],
                  service_metadata=(row['record'] or {}).get('prefix'), service=(row['record'] or {}).get('service'),
                  fail_reason=row['fail_reason'], num_dependent_backups=count)


def group(connection, row, deleted=False):
    """What is told of a group."""
    return _owner(row, group_id=row['id'], name=row['name'], group_type=row['group_type_id'],
                  availability_zone=row['availability_zone'])


def group_snapshot(connection, row, deleted=False):
    """What is told of a group snapshot."""
    return _owner(row, group_snapshot_id=row['id'], group_id=row['group_id'], name=row['name'], group_type=row['group_type_id'])


PAYLOADS = {'volumes': volume, 'snapshots': snapshot, 'backups': backup, 'volume_groups': group, 'group_snapshots': group_snapshot}


def audit(connection, begin, end):
    """Tell that volumes, snapshots and backups were there in a period, for those who bill it. :returns: how many were told of."""
    period = {'audit_period_beginning': str(begin), 'audit_period_ending': str(end)}
    count = 0
    for table in (volumes, snapshots, backups):
        for row in db.all_dicts(connection, sa.select(table).where(table.c.created_at < end).order_by(table.c.created_at)):
            tell(connection, table, row, 'exists', **period)
            count += 1
    return count
