"""Reading and writing the rows of servers. Whoever changes one locks it first and saves it here."""
import datetime

import sqlalchemy as sa
from oslo_context import context

from kodiak.common import db, outbox
from kodiak.compute import notices, states, view
from kodiak.compute.models import server_tags, servers, specs

_by_uuid = sa.select(servers).where(servers.c.uuid == sa.bindparam('uuid'))
_locked = _by_uuid.with_for_update()
_spec = sa.select(specs.c.data).where(specs.c.server_uuid == sa.bindparam('uuid'))


def get(connection, uuid):
    """The row of a server, deleted ones included, as a dictionary, or None."""
    return db.as_dict(connection.execute(_by_uuid, {'uuid': uuid}).first())


def lock(connection, uuid):
    """The row of a server, held against other writers until the transaction ends, or None."""
    return db.as_dict(connection.execute(_locked, {'uuid': uuid}).first())


def insert(connection, row, spec):
    """Write a new server; ``row`` has every column but ``id``, ``status``, ``doc``, and gets them."""
    row['status'] = states.status(row['vm_state'], row['task_state'])
    row['task_deadline'] = _deadline(row['task_state'], row['created_at'])
    row['doc'] = ''
    row['id'] = connection.execute(servers.insert(), row).inserted_primary_key[0]
    row['doc'] = view.render(row)
    connection.execute(servers.update().where(servers.c.id == row['id']).values(doc=row['doc']))
    connection.execute(specs.insert(), {'server_uuid': row['uuid'], 'data': spec})
    if row['tags']:
        connection.execute(server_tags.insert(), [{'server_uuid': row['uuid'], 'tag': tag} for tag in row['tags']])


def save(connection, row, **changes):
    """Write changes of a locked row; what follows from them (status, deadline, document, filters) is written with them."""
    now = db.utcnow()
    if 'task_state' in changes and changes['task_state'] != row['task_state']:
        changes['task_deadline'] = _deadline(changes['task_state'], now)
    if 'networks' in changes:
        changes['addresses'] = ' '.join(ip for port in changes['networks'] for ip in _addresses(port))
    if 'flavor' in changes:
        changes.update(flavor_id=changes['flavor']['id'], vcpus=changes['flavor']['vcpus'], ram=changes['flavor']['ram'])
    before = row['vm_state'], row['task_state']
    row.update(changes, updated_at=changes.get('updated_at', now))
    row['status'] = states.status(row['vm_state'], row['task_state'])
    row['doc'] = view.render(row)
    written = {name: row[name] for name in (*changes, 'updated_at', 'status', 'doc')}
    connection.execute(servers.update().where(servers.c.id == row['id']).values(written))
    if before != (row['vm_state'], row['task_state']) and outbox.announced(connection):
        notices.changed(connection, row, before, context.get_current())
    return row


def spec(connection, uuid):
    """What only the building of the guest needs (``{}`` where there is nothing)."""
    found = connection.scalar(_spec, {'uuid': uuid})
    return {} if found is None else found


def save_spec(connection, uuid, data):
    """Replace it."""
    connection.execute(specs.update().where(specs.c.server_uuid == uuid).values(data=data))


def set_tags(connection, row, tags):
    """Replace the tags of a locked server."""
    connection.execute(server_tags.delete().where(server_tags.c.server_uuid == row['uuid']))
    if tags:
        connection.execute(server_tags.insert(), [{'server_uuid': row['uuid'], 'tag': tag} for tag in tags])
    save(connection, row, tags=tags)


def fail(connection, row, message, code=500, details='', vm_state=states.ERROR, **changes):
    """Write why something went wrong where the owner reads it."""
    fault = {'code': code, 'message': message[:255], 'details': details or message, 'created': view.time(db.utcnow())}
    return save(connection, row, vm_state=vm_state, task_state=None, fault=fault, **changes)


def _deadline(task, now):
    return None if task is None else now + datetime.timedelta(seconds=states.TASKS[task].deadline)


def _addresses(port):
    for fixed in port['fixed_ips']:
        yield fixed['address']
        yield from port.get('floating', {}).get(fixed['address'], ())


def now():
    """Now, as the rows have it."""
    return db.utcnow()
