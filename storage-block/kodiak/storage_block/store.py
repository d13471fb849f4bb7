"""Reading and writing rows. Whoever changes one locks it first and saves it here: what follows is written with it."""
import datetime

import sqlalchemy as sa

from kodiak.common import db, errors

from . import notices, states
from .models import attachments, volumes

KINDS = {'volumes': 'Volume', 'snapshots': 'Snapshot', 'backups': 'Backup', 'volume_groups': 'Group',
         'group_snapshots': 'GroupSnapshot', 'attachments': 'Attachment', 'transfers': 'Transfer', 'volume_types': 'Volume type',
         'group_types': 'Group type', 'qos_specs': 'QoS specs', 'messages': 'Message'}
_selects = {}


def get(connection, table, row_id):
    """The row with that id as a dictionary, or None."""
    if table.name not in _selects:
        _selects[table.name] = sa.select(table).where(table.c.id == sa.bindparam('row_id'))
    return db.as_dict(connection.execute(_selects[table.name], {'row_id': row_id}).first())


def lock(connection, table, row_id):
    """As :func:`get`, held against other writers until the transaction ends."""
    return db.one(connection, sa.select(table).where(table.c.id == row_id).with_for_update())


def not_found(table, row_id):
    """The fault of what is not there."""
    kind = KINDS[table.name]
    return errors.NotFound(f'{kind} {row_id} could not be found.', kind=kind.title().replace(' ', '') + 'NotFound')


def need(connection, table, row_id, locked=True):
    """The row, locked unless said otherwise; ``NotFound`` where there is none."""
    row = (lock if locked else get)(connection, table, row_id)
    if row is None:
        raise not_found(table, row_id)
    return row


def insert(connection, table, row):
    """Write a new row: ``id`` and ``created_at`` are made if missing, ``deadline`` follows from ``status``. Returns the row."""
    now = db.utcnow()
    row = {'id': db.new_id(), 'created_at': now, 'updated_at': None, **row}
    if 'deadline' in table.c:
        row['deadline'] = _deadline(table, row['status'], now)
    connection.execute(table.insert(), row)
    if notices.wanted(connection, table):
        notices.made(connection, table, {**dict.fromkeys(table.c.keys()), **row})
    return row


def insert_volume(connection, values):
    """Write a new volume: what ``values`` does not name is as of an empty one."""
    row = {column.name: None for column in volumes.c if column.name not in ('id', 'created_at', 'updated_at', 'deadline')}
    row.update(bootable=False, multiattach=False, encrypted=False, consumes_quota=True, metadata={}, admin_metadata={},
               image_metadata={}, attached=[])
    row.update(values)
    row['claimed'] = row['size']
    return insert(connection, volumes, row)


def save(connection, table, row, told=True, **changes):
    """Write changes of a locked row, and into ``row``.

    :param told: False for changes that tell nobody what happens (``notices``).
    """
    now = db.utcnow()
    before = {**row} if told and notices.wanted(connection, table) else None
    if 'status' in changes and 'deadline' in table.c:
        changes['deadline'] = _deadline(table, changes['status'], now)
    changes['updated_at'] = now
    row.update(changes)
    connection.execute(table.update().where(table.c.id == row['id']).values(changes))
    if before is not None:
        notices.changed(connection, table, before, row)
    return row


def delete(connection, table, row_id):
    """Remove a row. :returns: True if it was there."""
    if notices.wanted(connection, table):
        notices.removed(connection, table, get(connection, table, row_id))
    return bool(connection.execute(table.delete().where(table.c.id == row_id)).rowcount)


def _deadline(table, status, now):
    seconds = states.deadline(table.name, status)
    return None if seconds is None else now + datetime.timedelta(seconds=seconds)


def attachments_of(connection, volume_id):
    """The attachments of a volume, oldest first, as dictionaries."""
    return db.all_dicts(connection, sa.select(attachments).where(attachments.c.volume_id == volume_id)
                        .order_by(attachments.c.created_at, attachments.c.id))


def shown_attachment(row):
    """An attachment as a volume shows it."""
    return {'id': row['volume_id'], 'attachment_id': row['id'], 'volume_id': row['volume_id'], 'server_id': row['instance_uuid'],
            'host_name': row['attached_host'], 'device': row['mountpoint'],
            'attached_at': row['attached_at'].isoformat() if row['attached_at'] else None}


def settle(connection, volume, **changes):
    """Give a locked volume the status that follows from its attachments, and what it shows of them."""
    rows = attachments_of(connection, volume['id'])
    changes.setdefault('status', states.of_attachments({row['attach_status'] for row in rows}))
    changes['attached'] = [shown_attachment(row) for row in rows if row['attach_status'] in ('attached', 'detaching')]
    return save(connection, volumes, volume, **changes)
