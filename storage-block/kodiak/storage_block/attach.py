"""Attachments: a volume that a server has, or will have, and its export to the server's host.

An attachment is *reserved* while no host is known, *attaching* once there is a connector (from then on the volume is to be
exported to it), *attached* when the server has it. Exports are level-driven: the rows say what should be exported, agents make it
so and report how it is reached, and whoever asked waits for that report.
"""
import logging
import secrets
import time

import sqlalchemy as sa

from kodiak.common import db, errors, saga

from . import messages, notices, scheduler, states, store, types, work
from .models import attachments, backends, volumes

LOG = logging.getLogger(__name__)
LOOK = 0.02         # seconds between two looks for an agent's report, growing
MODES = ('rw', 'ro')
SECRET = ('auth_password', 'discovery_auth_password', 'auth_username', 'discovery_auth_username', 'secret')


def reserve(connection, volume, context, instance_uuid=None, mode=None, status='reserved', **more):
    """A new attachment of a locked volume. :raises BadRequest: the volume cannot have one (more) now."""
    there = store.attachments_of(connection, volume['id'])
    shared = volume['multiattach'] and volume['status'] == states.IN_USE
    # One that is kept by os-reserve has no attachment yet.
    again = volume['status'] in (states.RESERVED, states.ATTACHING) and (volume['multiattach'] or not there)
    # A server that comes to another host has the volume at both for a while.
    moving = bool(instance_uuid and there) and all(row['instance_uuid'] == instance_uuid for row in there) and volume['status'] in (
        states.IN_USE, states.RESERVED, states.ATTACHING)
    if volume['status'] != states.AVAILABLE and not shared and not again and not moving:
        raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} status must be available or in-use with multiattach, "
                                f"but it is {volume['status']}.", kind='InvalidVolume')
    if volume['migration_status'] not in (None, 'none', 'success', 'error'):
        raise errors.BadRequest('Invalid volume: The volume is being migrated.', kind='InvalidVolume')
    readonly = volume['readonly']
    if mode == 'rw' and readonly:
        raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} is read-only: attach it with the mode ro.",
                                kind='InvalidVolume')
    row = store.insert(connection, attachments, {
        'volume_id': volume['id'], 'project_id': volume['project_id'], 'instance_uuid': instance_uuid, 'attached_host': None,
        'mountpoint': None, 'attach_mode': mode or ('ro' if readonly else 'null'), 'attach_status': status, 'attached_at': None,
        'connector': None, 'backend': None, 'auth_username': None, 'auth_password': None, 'generation': 0, 'reached': None,
        'error': None, **more})
    store.settle(connection, volume)
    return row


def export(connection, conf, volume, row, connector, settle=True):
    """Have a volume exported to ``connector`` (a locked attachment's); what is so already stays.

    :param settle: False where the volume's status does not follow from it.
    """
    backend = volume['target'] if leads_to_target(volume, row) else volume['backend']
    if not backend:
        raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} has no data yet.", kind='InvalidVolume')
    if not scheduler.is_up(connection, conf, backend):
        raise errors.Unavailable(f"The back end of volume {volume['id']} does not answer now. Try again later.")
    mode = connector.get('mode') if connector.get('mode') in MODES else row['attach_mode']
    if mode not in MODES:
        mode = 'ro' if volume['readonly'] else 'rw'
    changes = {'attached_host': connector.get('host'), 'mountpoint': connector.get('mountpoint') or row['mountpoint'],
               'attach_mode': mode, 'instance_uuid': row['instance_uuid'] or connector.get('instance')}
    if row['attach_status'] == 'reserved':
        changes['attach_status'] = 'attaching'
    if row['connector'] != connector or row['backend'] != backend or row['attach_mode'] != mode or row['error']:
        changes.update(connector=connector, backend=backend, generation=row['generation'] + 1, reached=None, error=None,
                       auth_username=row['auth_username'] or secrets.token_urlsafe(15).replace('-', 'a').replace('_', 'b'),
                       auth_password=row['auth_password'] or secrets.token_urlsafe(12).replace('-', 'c').replace('_', 'd'))
        work.bump(connection, work.host_of(backend))
    store.save(connection, attachments, row, **changes)
    if settle:
        _settle(connection, volume)
    if 'attach_status' in changes:
        notices.tell(connection, volumes, volume, 'attach.start')
    return row


def leads_to_target(volume, row):
    """True of the attachment by which a server follows its volume to another back end."""
    return volume['target'] is not None and row['backend'] == volume['target']


def follow(connection, volume, attachment_id):
    """Make that attachment, for the server that has the (locked) volume."""
    there, = store.attachments_of(connection, volume['id'])
    return store.insert(connection, attachments, {
        **{name: there[name] for name in ('volume_id', 'project_id', 'instance_uuid', 'mountpoint', 'attach_mode')},
        'id': attachment_id, 'backend': volume['target'], 'attach_status': 'reserved', 'attached_host': None, 'attached_at': None,
        'connector': None, 'auth_username': None, 'auth_password': None, 'generation': 0, 'reached': None, 'error': None})


def _settle(connection, volume, **changes):
    """As its attachments say; a volume that is being given another type shows that until the end."""
    if volume['status'] == states.RETYPING:
        changes['status'] = states.RETYPING
    store.settle(connection, volume, **changes)


def await_export(database, conf, attachment_id, context):
    """The attachment once its agent reported how its export is reached.

    :raises errors.Error: the agent could not do it, or did not answer in time; the volume's owner gets a message too.
    """
    try:
        return _await_export(database, conf, attachment_id)
    except (errors.Unavailable, Failed) as error:
        database.transact(_tell, conf, attachment_id, context, error.message)
        raise


class Failed(errors.Error):
    """The agent could not export it."""


def _await_export(database, conf, attachment_id):
    deadline, pause = time.monotonic() + conf.storage_block.export_timeout, LOOK
    while True:
        with database.read() as connection:
            row = store.get(connection, attachments, attachment_id)
        if row is None:
            raise store.not_found(attachments, attachment_id)
        if row['reached'] is not None:
            return row
        if row['error']:
            raise Failed(f"The volume could not be exported: {row['error']}")
        if time.monotonic() > deadline:
            raise errors.Unavailable('The back end did not export the volume in time. Try again later.')
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)


def reported(connection, host, export):
    """Take what an agent says of an export."""
    row = connection.execute(sa.select(attachments.c.generation, attachments.c.volume_id).join(
        backends, backends.c.name == attachments.c.backend).where(
            attachments.c.id == export['attachment_id'], backends.c.host == host)).first()
    if row is None or row.generation != export['generation']:
        return
    if export.get('error'):
        LOG.warning('Volume %s is not exported by %s: %s', row.volume_id, host, export['error'])
    connection.execute(attachments.update().where(attachments.c.id == export['attachment_id']).values(
        reached=export.get('connection'), error=export.get('error'), updated_at=db.utcnow()))


def connection_info(connection, volume, row, secret, seen=None):
    """What a host attaches the volume by, as the API shows it; without secrets unless ``secret``.

    :param seen: a dictionary that is kept from one to the next, so that for a list each type is read but once.
    """
    if row['reached'] is None:
        return None
    seen = {} if seen is None else seen
    kind = volume['volume_type_id'], volume['size']
    if kind not in seen:
        seen[kind] = types.qos_of(connection, types.get(connection, kind[0]), kind[1])
    said = row['reached']
    data = {**said.get('data', {})}
    if not secret:
        data = {name: value for name, value in data.items() if name not in SECRET}
    data.update(volume_id=volume['id'], attachment_id=row['id'], access_mode='ro' if row['attach_mode'] == 'ro' else 'rw',
                encrypted=volume['encrypted'], qos_specs=seen[kind], cacheable=False)
    return {'driver_volume_type': said['driver_volume_type'], 'data': data}


def complete(connection, volume, row, **more):
    """The server has the volume."""
    before = row['attach_status']
    store.save(connection, attachments, row, attach_status='attached', attached_at=row['attached_at'] or db.utcnow(), **more)
    admin = {'attached_mode': 'ro' if row['attach_mode'] == 'ro' else 'rw', 'readonly': str(bool(volume['readonly']))}
    _settle(connection, volume, admin_metadata={**volume['admin_metadata'], **admin})
    if before == 'reserved':
        notices.tell(connection, volumes, volume, 'attach.start')
    if before != 'attached':
        notices.tell(connection, volumes, volume, 'attach.end')


def withdraw(connection, row):
    """Have a volume no longer exported for an attachment that stays."""
    backend = row['backend']
    store.save(connection, attachments, row, connector=None, backend=None, reached=None, generation=row['generation'] + 1)
    if backend is not None:
        work.bump(connection, work.host_of(backend))


def remove(connection, volume, row):
    """The server has it no more, or never will: the export goes.

    Where it has followed the volume to another back end, that is where the volume is from then on.
    """
    told = volume is not None and row['attach_status'] != 'reserved'
    if told:
        notices.tell(connection, volumes, volume, 'detach.start')
    store.delete(connection, attachments, row['id'])
    if volume is not None and volume['target']:
        if any(leads_to_target(volume, one) and one['attach_status'] == 'attached'
               for one in store.attachments_of(connection, volume['id'])):
            store.save(connection, volumes, volume, backend=volume['target'])
        saga.nudge(connection, volume['id'])
    if row['backend'] is not None:
        work.bump(connection, work.host_of(row['backend']))
    if volume is not None and volume['status'] in (states.RESERVED, states.ATTACHING, states.DETACHING, states.IN_USE,
                                                   states.ERROR_ATTACHING):
        store.settle(connection, volume)
    elif volume is not None:
        store.settle(connection, volume, status=volume['status'])
    if told:
        notices.tell(connection, volumes, volume, 'detach.end')


def _tell(connection, conf, attachment_id, context, text):
    row = store.get(connection, attachments, attachment_id)
    volume = row and store.get(connection, volumes, row['volume_id'])
    if volume:
        messages.add(connection, conf, volume, 'update_attachment', text, request_id=context.request_id)
        notices.tell(connection, volumes, volume, 'attach.error', message=text)


def lock_both(connection, attachment_id):
    """``(volume, attachment)``, both locked, the volume first; ``NotFound`` where there is no attachment."""
    row = store.need(connection, attachments, attachment_id, locked=False)
    volume = store.lock(connection, volumes, row['volume_id'])
    return volume, store.need(connection, attachments, attachment_id)
