"""What is done to a volume: attaching as it was before attachments had an API of their own, extending, uploading, flags."""
import sqlalchemy as sa

from kodiak.common import api, errors, saga
from kodiak.common.api import schema
from kodiak.storage_block import attach, notices, quotas, scheduler, states, store, types
from kodiak.storage_block.models import snapshots, volumes
from kodiak.storage_block.sagas import volumes as sagas

from . import attachments, common
from . import volumes as of_volumes
from .create import image_metadata, image_of

routes = api.Routes('volume actions')
load = common.loader(volumes, 'volume_id')
PATH = '/volumes/{volume_id}/action'


def declare(name, rule, summary, body=None, default=common.PROJECT_MEMBER, status=202, **more):
    return routes.post(PATH, action=name, rule=rule, default=default, load=load, status=status, summary=summary,
                       body=schema.obj({name: body if body is not None else {}}, [name], extra=True), **more)


def change(req, function):
    """``function(connection, locked volume)`` in a transaction."""
    return req.db.transact(lambda connection: function(connection, store.need(connection, volumes, req.target['id'])))


def invalid(text):
    """The fault of a volume that is not in a state for something."""
    return errors.BadRequest(f'Invalid volume: {text}', kind='InvalidVolume')


def need_status(row, *statuses):
    """400 where a volume has none of these statuses."""
    if row['status'] not in statuses:
        raise invalid(f"Volume {row['id']} status must be {' or '.join(statuses)}, but current status is: {row['status']}.")


# Attaching, as it was before 3.27

@declare('os-reserve', 'volume_extension:volume_actions:reserve', 'Keep a volume for a server')
def reserve(req, volume_id):
    def write(connection, row):
        need_status(row, states.AVAILABLE, *([states.IN_USE] if row['multiattach'] else []))
        store.save(connection, volumes, row, status=states.ATTACHING)
    change(req, write)


@declare('os-unreserve', 'volume_extension:volume_actions:unreserve', 'Keep a volume no longer')
def unreserve(req, volume_id):
    def write(connection, row):
        if row['status'] == states.ATTACHING:
            store.settle(connection, row)
    change(req, write)


ATTACH = schema.obj({'instance_uuid': schema.UUID, 'mountpoint': {'type': 'string', 'minLength': 1, 'maxLength': 255},
                     'host_name': {'type': 'string', 'maxLength': 255}, 'mode': {'enum': ['rw', 'ro']}}, extra=True)


@declare('os-attach', 'volume_extension:volume_actions:attach', 'Tell that a server has a volume', ATTACH)
def attach_volume(req, volume_id):
    sent = req.body['os-attach']
    instance, host, mode = sent.get('instance_uuid'), sent.get('host_name'), sent.get('mode', 'rw')
    if bool(instance) == bool(host):
        raise errors.BadRequest('Invalid request to attach volume to an invalid target: name either instance_uuid or host_name.')

    def write(connection, row):
        if row['readonly'] and mode == 'rw':
            raise invalid('The volume is read-only: attach it with the mode ro.')
        kept = next((one for one in store.attachments_of(connection, row['id']) if one['attach_status'] in ('reserved', 'attaching')
                     and one['instance_uuid'] in (None, instance)), None)
        one = kept or attach.reserve(connection, row, req.ctx, instance, mode)
        attach.complete(connection, row, one, instance_uuid=instance, attached_host=host or one['attached_host'],
                        mountpoint=sent.get('mountpoint') or one['mountpoint'], attach_mode=mode)
    change(req, write)


def _attachment(connection, row, attachment_id, statuses=('attached', 'detaching')):
    """The attachment that an action means: the named one, or the only one."""
    found = store.attachments_of(connection, row['id'])
    if attachment_id:
        named = [one for one in found if one['id'] == attachment_id]
        if not named:
            raise invalid(f'The volume has no attachment {attachment_id}.')
        return named[0]
    fitting = [one for one in found if one['attach_status'] in statuses]
    if len(fitting) > 1:
        raise invalid('The volume has several attachments: name the attachment_id.')
    return fitting[0] if fitting else None


@declare('os-begin_detaching', 'volume_extension:volume_actions:begin_detaching', 'Tell that a volume is being detached')
def begin_detaching(req, volume_id):
    def write(connection, row):
        need_status(row, states.IN_USE)
        store.save(connection, volumes, row, status=states.DETACHING)
    change(req, write)


@declare('os-roll_detaching', 'volume_extension:volume_actions:roll_detaching', 'Tell that a volume is not detached after all')
def roll_detaching(req, volume_id):
    def write(connection, row):
        if row['status'] == states.DETACHING:
            store.settle(connection, row)
    change(req, write)


DETACH = {'type': ['object', 'null'], 'properties': {'attachment_id': schema.nullable(schema.UUID)}}


@declare('os-detach', 'volume_extension:volume_actions:detach', 'Tell that a server has a volume no longer', DETACH)
def detach(req, volume_id):
    def write(connection, row):
        one = _attachment(connection, row, (req.body['os-detach'] or {}).get('attachment_id'))
        if one is None:
            # So it is already: whoever tells it twice, or after a detachment by force, is not wrong.
            if row['status'] in (states.IN_USE, states.ATTACHING, states.DETACHING):
                store.settle(connection, row)
            return
        attachments.refuse_behind_compute(req, one)
        attach.remove(connection, row, one)
    change(req, write)


@declare('os-force_detach', 'volume_extension:volume_admin_actions:force_detach', 'Take a volume from a server that is gone', {
    'type': ['object', 'null'], 'properties': {'attachment_id': schema.nullable(schema.UUID), 'connector': {'type': [
        'object', 'null']}}}, default=common.ADMIN)
def force_detach(req, volume_id):
    def write(connection, row):
        statuses = ('attached', 'detaching', 'attaching', 'reserved')
        one = _attachment(connection, row, (req.body['os-force_detach'] or {}).get('attachment_id'), statuses)
        if one is not None:
            attach.remove(connection, row, one)
        store.settle(connection, row)
    change(req, write)


CONNECTOR = schema.obj({'connector': attachments.CONNECTOR}, ['connector'], extra=True)


@declare('os-initialize_connection', 'volume_extension:volume_actions:initialize_connection', 'Have a volume exported to a host',
         CONNECTOR, status=200, response=schema.wrap('connection_info', common.OBJECT))
def initialize_connection(req, volume_id):
    connector = req.body['os-initialize_connection']['connector']

    def write(connection, row):
        there = store.attachments_of(connection, row['id'])
        one = next((one for one in there if one['attached_host'] == connector.get('host') and one['connector'] is not None), None)
        one = one or next((one for one in there if one['connector'] is None), None)
        one = one or attach.reserve(connection, row, req.ctx)
        return attach.export(connection, req.app.conf, row, one, connector)
    row = attach.await_export(req.db, req.app.conf, change(req, write)['id'], req.ctx)
    with req.db.read() as connection:
        volume = store.get(connection, volumes, volume_id)
        info = attach.connection_info(connection, volume, row, common.is_service(req))
    return {'connection_info': info}


@declare('os-terminate_connection', 'volume_extension:volume_actions:terminate_connection',
         'Have a volume no longer exported to a host', CONNECTOR)
def terminate_connection(req, volume_id):
    host = req.body['os-terminate_connection']['connector'].get('host')

    def write(connection, row):
        for one in store.attachments_of(connection, row['id']):
            if one['connector'] is not None and one['attached_host'] in (host, None):
                attachments.refuse_behind_compute(req, one)
                if one['attach_status'] == 'attached':
                    attach.withdraw(connection, one)
                else:
                    attach.remove(connection, row, one)
    change(req, write)


# Size

@declare('os-extend', 'volume:extend', 'Make a volume larger', schema.obj({'new_size': common.SIZE}, ['new_size'], extra=True))
def extend(req, volume_id):
    size = common.size_of(req.body['os-extend']['new_size'], 'new_size')

    def write(connection, row):
        allowed = [states.AVAILABLE] + ([states.IN_USE] if req.at_least(3, 42) else [])
        need_status(row, *allowed)
        if size <= row['size']:
            raise errors.BadRequest(f"Invalid input received: New size for extend must be greater than current size. (current: "
                                    f"{row['size']}, extended: {size}).", kind='InvalidInput')
        if row['status'] == states.IN_USE:
            req.authorize(req.target, 'volume:extend_attached_volume')
            stats = scheduler.pools(connection, req.app.conf)[row['backend']].stats
            if not stats.get('online_extend'):
                raise invalid('The back end of the volume cannot extend an attached volume. Detach it first.')
            if len(store.attachments_of(connection, row['id'])) > 1:
                raise invalid('A volume that several servers have cannot be extended. Detach it first.')
        pool = scheduler.pools(connection, req.app.conf, lock=True)[row['backend']]
        if pool.room() < size - row['size']:
            raise invalid(f'The back end of the volume has room for {int(max(pool.room(), 0))} GiB more.')
        kind = types.get(connection, row['volume_type_id'])
        wanted = {'per_volume_gigabytes': size, 'gigabytes': size - row['size'] if row['consumes_quota'] else 0}
        quotas.claim(connection, req.app.conf, row['project_id'], wanted, kind and kind['name'])
        store.save(connection, volumes, row, status=states.EXTENDING, previous_status=row['status'], claimed=size)
        saga.start(connection, sagas.EXTEND, row['id'], {'size': size}, req.ctx)
    change(req, write)


# Flags

@declare('os-set_bootable', 'volume_extension:volume_actions:set_bootable', 'Say whether servers may boot from a volume',
         schema.obj({'bootable': common.BOOLEAN}, ['bootable']), status=200)
def set_bootable(req, volume_id):
    value = common.truth(req.body['os-set_bootable']['bootable'], 'bootable')
    change(req, lambda connection, row: store.save(connection, volumes, row, bootable=value))


@declare('os-update_readonly_flag', 'volume:update_readonly_flag', 'Say whether servers may only read a volume',
         schema.obj({'readonly': common.BOOLEAN}, ['readonly']))
def update_readonly(req, volume_id):
    value = common.truth(req.body['os-update_readonly_flag']['readonly'], 'readonly')

    def write(connection, row):
        need_status(row, states.AVAILABLE)
        store.save(connection, volumes, row, readonly=value, admin_metadata={**row['admin_metadata'], 'readonly': str(value)})
    change(req, write)


RESET = {**schema.obj({'status': {'type': ['string', 'null']}, 'attach_status': {'enum': [
    'attached', 'detached', 'error_attaching', 'error_detaching', 'attaching', 'detaching', 'error', 'deleted', None]},
    'migration_status': {'enum': ['migrating', 'error', 'success', 'completing', 'none', 'starting', None]}}), 'minProperties': 1}


@declare('os-reset_status', 'volume_extension:volume_admin_actions:reset_status', 'Set the status of a volume', RESET,
         default=common.ADMIN)
def reset_status(req, volume_id):
    sent = req.body['os-reset_status']
    status = sent.get('status') and sent['status'].lower()
    if status and status not in states.SETTABLE:
        raise errors.BadRequest(f"Invalid input for field/attribute status: '{status}' is no status of a volume.")
    if status == states.DELETING:
        raise errors.BadRequest('Cannot reset-state to deleting: delete the volume by force.')

    def write(connection, row):
        changes = {}
        if status == states.IN_USE and not store.attachments_of(connection, row['id']):
            raise errors.BadRequest('Cannot reset-state to in-use because volume does not have any attachments.')
        if status:
            changes['status'] = status
        if 'migration_status' in sent:
            changes['migration_status'] = None if sent['migration_status'] == 'none' else sent['migration_status']
        if sent.get('attach_status') == 'detached':
            for one in store.attachments_of(connection, row['id']):
                attach.remove(connection, row, one)
            changes['attached'] = []
        store.save(connection, volumes, row, told=False, **changes)
    change(req, lambda connection, row: notices.reset(connection, 'volumes', volume_id, sent, lambda: write(connection, row)))


@declare('os-force_delete', 'volume:force_delete', 'Delete a volume whatever its status', default=common.ADMIN)
def force_delete(req, volume_id):
    req.db.transact(of_volumes.begin_delete, volume_id, req.ctx, False, True)


# Images

UPLOAD = schema.obj({
    'image_name': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'force': common.BOOLEAN,
    'disk_format': {'enum': ['raw', 'qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx', 'ploop']}, 'container_format': {'enum': [
        'bare', 'compressed', 'ovf', 'ova', 'aki', 'ari', 'ami', 'docker', 'iso']},
    'visibility': {'enum': ['public', 'private', 'shared', 'community']}, 'protected': common.BOOLEAN}, ['image_name'])
SIGNATURE = ('img_signature', 'cinder_encryption')


@declare('os-volume_upload_image', 'volume_extension:volume_actions:upload_image', 'Make an image of the data of a volume', UPLOAD,
         response=schema.wrap('os-volume_upload_image', common.OBJECT))
def upload_image(req, volume_id):
    sent = req.body['os-volume_upload_image']
    force = bool(common.truth(sent.get('force', False), 'force'))
    form = sent.get('disk_format', 'raw')
    container = sent.get('container_format', 'bare')
    if container not in ('bare', 'ovf', 'ova', 'docker'):
        raise errors.BadRequest(f'Invalid input: container_format: {container} is not offered; bare is.')
    row = req.target
    need_status(row, states.AVAILABLE, *([states.IN_USE] if force else []))
    visibility = sent.get('visibility', 'private') if req.at_least(3, 1) else 'private'
    if visibility == 'public':
        req.authorize(row, 'volume_extension:volume_actions:upload_public')
    kept = {name: value for name, value in row['image_metadata'].items()
            if name not in ('image_id', 'image_name', 'checksum', 'container_format', 'disk_format', 'size', 'min_disk', 'min_ram')
            and not name.startswith(SIGNATURE)}
    image = req.app.clients.image.post('/v2/images', {
        **kept, 'name': sent['image_name'], 'disk_format': form, 'container_format': container, 'visibility': visibility,
        'min_disk': row['size'], 'min_ram': int(row['image_metadata'].get('min_ram') or 0),
        'protected': bool(common.truth(sent.get('protected', False), 'protected'))}, context=req.ctx)

    def write(connection, row):
        need_status(row, states.AVAILABLE, *([states.IN_USE] if force else []))
        store.save(connection, volumes, row, status=states.UPLOADING, previous_status=row['status'])
        saga.start(connection, sagas.UPLOAD, row['id'], {'image': {
            'id': image['id'], 'disk_format': form, 'container_format': container}}, req.ctx)
        return types.get(connection, row['volume_type_id'])
    try:
        kind = change(req, write)
    except errors.Error:
        req.app.clients.image.delete(f"/v2/images/{image['id']}", context=req.ctx)
        raise
    found = {'id': row['id'], 'updated_at': row['updated_at'], 'status': states.UPLOADING,
             'display_description': row['description'],
             'size': row['size'], 'volume_type': shown_type(kind), 'image_id': image['id'], 'container_format': container,
             'disk_format': form, 'image_name': sent['image_name']}
    if req.at_least(3, 1):
        found.update(visibility=visibility, protected=bool(common.truth(sent.get('protected', False), 'protected')))
    return {'os-volume_upload_image': found}


def shown_type(kind):
    """A volume type inside another answer."""
    return kind and {name: kind[name] for name in ('id', 'name', 'description', 'is_public', 'qos_specs_id', 'extra_specs',
                                                   'created_at', 'updated_at')}


IMAGE_METADATA = schema.obj({'metadata': {**common.METADATA, 'minProperties': 1}}, ['metadata'])
ANSWER = schema.wrap('metadata', common.OBJECT)


@declare('os-set_image_metadata', 'volume_extension:volume_image_metadata:set', 'Set properties that a volume has of its image',
         IMAGE_METADATA, status=200, response=ANSWER)
def set_image_metadata(req, volume_id):
    def write(connection, row):
        return store.save(connection, volumes, row, image_metadata={
            **row['image_metadata'], **req.body['os-set_image_metadata']['metadata']})['image_metadata']
    return {'metadata': change(req, write)}


@declare('os-unset_image_metadata', 'volume_extension:volume_image_metadata:remove',
         'Remove a property that a volume has of its image',
         schema.obj({'key': schema.NAME}, ['key']), status=200)
def unset_image_metadata(req, volume_id):
    key = req.body['os-unset_image_metadata']['key']

    def write(connection, row):
        if key not in row['image_metadata']:
            raise errors.NotFound(f'Image metadata {key} of volume {volume_id} could not be found.', kind='GlanceMetadataNotFound')
        store.save(connection, volumes, row, image_metadata={
            one: value for one, value in row['image_metadata'].items() if one != key})
    change(req, write)


@declare('os-show_image_metadata', 'volume_extension:volume_image_metadata:show', 'Show what a volume has of its image', status=200,
         default=common.PROJECT_READER, response=ANSWER)
def show_image_metadata(req, volume_id):
    return {'metadata': req.target['image_metadata']}


@declare('os-reimage', 'volume:reimage', 'Write an image over a volume', schema.obj({
    'image_id': schema.UUID, 'reimage_reserved': common.BOOLEAN}, ['image_id']), since='3.68')
def reimage(req, volume_id):
    sent = req.body['os-reimage']
    image = image_of(req, sent['image_id'])
    reserved = common.truth(sent.get('reimage_reserved', False), 'reimage_reserved')

    def write(connection, row):
        need_status(row, states.AVAILABLE, states.ERROR, *([states.RESERVED] if reserved else []))
        if max(image.get('min_disk') or 0, -(-(image.get('virtual_size') or image.get('size') or 0) // 1024 ** 3)) > row['size']:
            raise errors.BadRequest('Invalid input received: The image is larger than the volume.', kind='InvalidInput')
        store.save(connection, volumes, row, status=states.DOWNLOADING, previous_status=row['status'])
        saga.start(connection, sagas.REIMAGE, row['id'], {'image': image, 'image_metadata': image_metadata(image)}, req.ctx)
    change(req, write)


# Snapshots

@declare('revert', 'volume:revert_to_snapshot', 'Bring a volume back to its newest snapshot', schema.obj({
    'snapshot_id': schema.UUID}, ['snapshot_id']), since='3.40')
def revert(req, volume_id):
    snapshot_id = req.body['revert']['snapshot_id']

    def write(connection, row):
        snapshot = store.lock(connection, snapshots, snapshot_id)
        if snapshot is None or snapshot['volume_id'] != volume_id:
            raise errors.BadRequest(f'Invalid snapshot: Snapshot {snapshot_id} is none of volume {volume_id}.')
        newest = connection.scalar(sa.select(snapshots.c.id).where(snapshots.c.volume_id == volume_id).order_by(
            snapshots.c.created_at.desc()).limit(1))
        if newest != snapshot_id:
            raise errors.BadRequest('Invalid input: A volume can be brought back to its newest snapshot only.')
        need_status(row, states.AVAILABLE)
        if snapshot['status'] != states.AVAILABLE:
            raise errors.BadRequest(f"Invalid snapshot: It must be available, but it is {snapshot['status']}.")
        store.save(connection, volumes, row, status=states.REVERTING, previous_status=row['status'])
        store.save(connection, snapshots, snapshot, status=states.RESTORING)
        saga.start(connection, sagas.REVERT, row['id'], {'snapshot_id': snapshot_id}, req.ctx)
    change(req, write)


EXTRA_RULES = [
    ('volume:extend_attached_volume', common.PROJECT_MEMBER, 'Make an attached volume larger'),
    ('volume_extension:volume_actions:upload_public', common.ADMIN, 'Make a public image of the data of a volume')]
