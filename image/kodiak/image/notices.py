"""Notifications: what happens to images, told on the message bus (``[notifications] topics``) as consumers of Glance's know it.

Each is written in the transaction of what it tells, under the ids of the request or the import that this thread works for.
Locations and what tasks were given are never told: they may hold credentials.
"""
import sqlalchemy as sa

from kodiak.common import context, db, outbox

from .models import images

#: Event types of what a namespace holds, by its kind.
PARTS = {'object': 'metadef_object', 'property': 'metadef_property', 'tag': 'metadef_tag', 'resource_type': 'metadef_resource_type'}
PLURALS = {'object': 'objects', 'property': 'properties', 'tag': 'tags'}
_DESCRIBED = ('type', 'title', 'description', 'default', 'minimum', 'maximum', 'enum', 'pattern', 'minLength', 'maxLength',
              'confidential', 'items', 'uniqueItems', 'minItems', 'maxItems', 'additionalItems')
_THERE = {'deleted': False, 'deleted_at': None}
#: What ends the event type of a notification in the outbox that goes out with the priority of an error.
ERROR = '.error'


def _send(connection, event_type, payload, resource_id):
    outbox.notify(connection, event_type, payload, context.get_current(), resource_id)


def _moment(value):
    return value and value.isoformat(timespec='seconds') + 'Z'


def _times(row):
    return {'created_at': _moment(row['created_at']), 'updated_at': _moment(row['updated_at'])}


def _gone():
    return {'deleted': True, 'deleted_at': _moment(db.utcnow())}


def _image(row):
    return {
        **{name: row[name] for name in (
            'id', 'name', 'status', 'min_disk', 'min_ram', 'protected', 'checksum', 'owner', 'disk_format', 'container_format',
            'size', 'virtual_size', 'visibility', 'properties', 'tags')},
        **_times(row), 'is_public': row['visibility'] == 'public', **_THERE}


def image(connection, image_id, *events):
    """Tell of an image: ``create``, ``update``, ``prepare``, ``upload`` or ``activate``, with what it is in this transaction."""
    wanted = [f'image.{event}' for event in events if outbox.announced(connection, f'image.{event}')]
    row = db.one(connection, sa.select(images).where(images.c.id == image_id)) if wanted else None
    if row is not None:
        for event_type in wanted:
            _send(connection, event_type, _image(row), image_id)


def deleted(connection, image_id):
    """Tell of an image that is going to be deleted in this transaction."""
    if outbox.announced(connection, 'image.delete'):
        row = db.one(connection, sa.select(images).where(images.c.id == image_id))
        if row is not None:
            _send(connection, 'image.delete', {**_image(row), 'status': 'deleted', **_gone()}, image_id)


def failed(connection, image_id, reason):
    """Tell that an image did not get its data: ``image.upload`` with the priority of an error, and a text."""
    _send(connection, 'image.upload' + ERROR, f'The data of image {image_id} could not be stored: {reason}', image_id)


def sent(connection, row, wanted, receiver, address, size):
    """Tell that data was sent.

    :param row: the image. :param wanted: bytes that were to be sent, or None where nobody knows. :param receiver: whose request
        it was. :param address: where that came from. :param size: bytes that were sent.
    """
    _send(connection, 'image.send' + ('' if wanted in (None, size) else ERROR), {
        'bytes_sent': size, 'image_id': row['id'], 'owner_id': row['owner'], 'receiver_tenant_id': receiver.project_id,
        'receiver_user_id': receiver.user_id, 'destination_ip': address}, row['id'])


def member(connection, what, row):
    """Tell of a membership: ``create``, ``update`` or ``delete``."""
    payload = {name: row[name] for name in ('image_id', 'member_id', 'status')}
    _send(connection, f'image.member.{what}', {**payload, **_times(row), **(_gone() if what == 'delete' else _THERE)},
          row['image_id'])


def task(connection, what, row):
    """Tell of a task: ``create``, ``run``, ``processing``, ``success`` or ``failure``."""
    payload = {name: row[name] for name in ('id', 'type', 'status', 'owner')}
    _send(connection, f'task.{what}', {
        **payload, 'result': row['result'] if what == 'success' else None, 'message': row['message'] if what == 'failure' else None,
        'expires_at': _moment(row['expires_at']), **_times(row), **_THERE}, row['id'])


def namespace(connection, what, row, old=None):
    """Tell of a namespace: ``create``, ``update``, ``delete``, or ``delete_objects`` and the like. ``old``: its name before."""
    payload = {name: row[name] for name in ('namespace', 'display_name', 'protected', 'visibility', 'owner', 'description')}
    _send(connection, f'metadef_namespace.{what}', {
        **payload, 'namespace_old': old or row['namespace'], **_times(row), **(_gone() if what == 'delete' else _THERE)}, row['id'])


def part(connection, what, holder, row, old=None):
    """Tell of what a namespace holds: ``create``, ``update`` or ``delete``.

    :param holder: the namespace. :param row: a row of ``metadef_parts``. :param old: its name before.
    """
    payload = {'namespace': holder['namespace'], 'name': row['name'], 'name_old': old or row['name']}
    body = row['body']
    if row['kind'] == 'property':
        payload.update(_described(body))
    else:
        payload.update(_times(row))
    if row['kind'] == 'object':
        payload.update(description=body.get('description'), required=body.get('required', []), properties=[
            {'name': name, **_described(one)} for name, one in body.get('properties', {}).items()])
    elif row['kind'] == 'resource_type':
        payload.update(prefix=body.get('prefix'), properties_target=body.get('properties_target'))
    _send(connection, f"{PARTS[row['kind']]}.{what}", {**payload, **(_gone() if what == 'delete' else _THERE)}, holder['id'])


def _described(body):
    return {name: body.get(name) for name in _DESCRIBED}
