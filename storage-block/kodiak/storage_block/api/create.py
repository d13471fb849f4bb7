"""Making volumes: from nothing, from an image, a snapshot, another volume or a backup."""
import math

import orjson

from kodiak.common import api, errors, saga
from kodiak.common.api import schema
from kodiak.storage_block import keys, quotas, states, store, types
from kodiak.storage_block.models import backups, groups, snapshots, volumes
from kodiak.storage_block.sagas import volumes as sagas

from . import common, volume_view

routes = api.Routes('volumes')
GIB = 1024 ** 3
OPTIONAL = {'type': ['string', 'null']}
HINTS = {'type': ['object', 'null'], 'properties': {
    'same_host': {'type': ['string', 'array'], 'items': schema.UUID}, 'different_host': {'type': ['string', 'array'],
                                                                                      'items': schema.UUID},
    'local_to_instance': OPTIONAL, 'query': OPTIONAL}}
CREATE = {
    'type': 'object', 'required': ['volume'], 'additionalProperties': True, 'properties': {
        'volume': schema.obj({
            'size': schema.nullable(common.SIZE), 'name': common.NAME, 'display_name': common.NAME, 'description': common.NAME,
            'display_description': common.NAME, 'volume_type': OPTIONAL, 'metadata': common.NULL_METADATA, 'snapshot_id': OPTIONAL,
            'source_volid': OPTIONAL, 'imageRef': OPTIONAL, 'image_id': OPTIONAL, 'backup_id': OPTIONAL, 'group_id': OPTIONAL,
            'consistencygroup_id': OPTIONAL, 'availability_zone': {'type': ['string', 'null'], 'maxLength': 255},
            'multiattach': schema.nullable(common.BOOLEAN)}, extra=True),
        'OS-SCH-HNT:scheduler_hints': HINTS, 'scheduler_hints': HINTS}}
KNOWN = frozenset(CREATE['properties']['volume']['properties'])
#: What of an image's document is not one of its properties, and is kept apart with the volume.
CORE = ('container_format', 'disk_format', 'min_disk', 'min_ram', 'size', 'checksum')
NOT_KEPT = {'id', 'name', 'status', 'visibility', 'owner', 'created_at', 'updated_at', 'tags', 'self', 'file', 'schema',
            'locations',
            'direct_url', 'protected', 'virtual_size', 'os_hidden', 'os_hash_algo', 'os_hash_value', 'members', 'stores', *CORE}


@routes.post('/volumes', rule='volume:create', default=common.MEMBER, status=202, body=CREATE,
             response=schema.wrap('volume', common.OBJECT), summary='Make a volume')
def create(req):
    wanted = _Wanted(req)
    row = req.db.transact(wanted.write)
    return {'volume': volume_view.renderer(req, made=True)(row)}


class _Wanted:
    """What a request asks for: read and checked first, then written in a transaction."""

    def __init__(self, req):
        sent = req.body['volume']
        self.req, self.sent = req, sent
        unknown = sorted({*sent} - KNOWN) or sorted({*req.body} - {*CREATE['properties']})
        if unknown and req.at_least(3, 53):
            raise errors.BadRequest(f"Additional properties are not allowed ({', '.join(map(repr, unknown))} "
                                    f"{'was' if len(unknown) == 1 else 'were'} unexpected)")
        self.hints = req.body.get('OS-SCH-HNT:scheduler_hints') or req.body.get('scheduler_hints') or {}
        if common.truth(sent.get('multiattach'), 'multiattach'):
            raise errors.BadRequest("Invalid input received: multiattach is no field of a volume: use a volume type with "
                                    "multiattach='<is> True'.", kind='InvalidInput')
        if sent.get('consistencygroup_id'):
            raise errors.BadRequest('Invalid input received: consistencygroup_id: use group_id, from microversion 3.13.',
                                    kind='InvalidInput')
        for field in ('snapshot_id', 'source_volid', 'imageRef', 'image_id', 'backup_id', 'group_id'):
            if sent.get(field) == '':
                raise errors.BadRequest(f"Invalid input for field/attribute {field}: '' is not a 'uuid'.")
        for field, since in (('backup_id', (3, 47)), ('group_id', (3, 13))):
            if sent.get(field) and req.version < since:
                raise errors.BadRequest(f'Invalid input: {field} needs microversion {since[0]}.{since[1]}.')
        self.size = None if sent.get('size') is None else common.size_of(sent['size'])
        self.image_id = sent.get('imageRef') or sent.get('image_id')
        if sum(bool(one) for one in (self.image_id, sent.get('snapshot_id'), sent.get('source_volid'), sent.get('backup_id'))) > 1:
            raise errors.BadRequest('Invalid input: only one of imageRef, snapshot_id, source_volid and backup_id can be given.')
        if self.size is None and not (sent.get('snapshot_id') or sent.get('source_volid') or sent.get('backup_id')):
            raise errors.BadRequest("Invalid input for field/attribute volume: 'size' is a required property")
        self.image = image_of(req, self.image_id) if self.image_id else None
        behind = snapshot_behind(self.image) if self.image and req.at_least(3, 46) else None
        if behind is not None:
            self.sent, self.image, self.image_id = {**sent, 'snapshot_id': behind}, None, None
        self.wish = {'extra_specs': {}, 'hints': {name: value for name, value in self.hints.items() if value}}

    def write(self, connection):
        """The row of the new volume, as it is shown."""
        req, sent = self.req, self.sent
        from_what = self._source(connection)
        kind = self._type(connection, from_what.get('volume_type_id'))
        size = self._size(from_what)
        encryption = self._encryption(connection, kind, from_what)
        zone = self._zone(connection, from_what, kind)
        group = self._group(connection, kind)
        self.wish.update(size=size, zone=sent.get('availability_zone') and zone, extra_specs=kind['extra_specs'],
                         multiattach=types.multiattach(kind), backend=(group or {}).get('backend') or from_what.get('backend'))
        name, description = (sent.get(field, sent.get('display_' + field)) for field in ('name', 'description'))
        row = {
            'project_id': req.ctx.project_id, 'user_id': req.ctx.user_id, 'name': name.strip() if name else name,
            'description': description, 'size': size, 'status': states.CREATING, 'availability_zone': zone,
            'volume_type_id': kind['id'], 'bootable': from_what.get('bootable', False), 'multiattach': self.wish['multiattach'],
            'encrypted': encryption is not None, 'snapshot_id': sent.get('snapshot_id'), 'source_volid': sent.get('source_volid'),
            'source_backup_id': sent.get('backup_id'), 'image_id': self.image_id, 'group_id': sent.get('group_id'),
            'hints': self.hints or None, 'metadata': sent.get('metadata') or {},
            'image_metadata': from_what.get('image_metadata') or {}}
        conf = req.app.conf
        wanted = {'volumes': 1, 'gigabytes': size, 'per_volume_gigabytes': size}
        quotas.claim(connection, conf, row['project_id'], wanted, kind['name'])
        row = store.insert_volume(connection, row)
        if encryption is not None:
            key = from_what.get('encryption')
            key_id = keys.copy(connection, key['key_id'], row['id']) if key else keys.make(connection, conf, row['id'])
            connection.execute(volumes.update().where(volumes.c.id == row['id']).values(encryption={'key_id': key_id,
                                                                                                    **encryption}))
        data = {'source': from_what['source'], 'wish': self.wish}
        if sent.get('backup_id'):
            data['backup_id'] = sent['backup_id']
        saga.start(connection, sagas.CREATE_RESTORED if 'backup_id' in data else sagas.CREATE, row['id'], data, req.ctx)
        return volume_view.get(connection, row['id'])

    def _source(self, connection):
        """What the volume begins as: ``source`` as ``rpc`` has it, and what it takes over from it."""
        sent = self.sent
        if sent.get('snapshot_id'):
            row = self._mine(connection, snapshots, sent['snapshot_id'], ('available', 'backing-up'))
            volume = store.need(connection, volumes, row['volume_id'])
            return {**row, 'bootable': volume['bootable'], 'copy': 'snapshot', 'source': {
                'type': 'snapshot', 'snapshot_id': row['id'], 'volume_id': row['volume_id'], 'size': row['size']}}
        if sent.get('source_volid'):
            row = self._mine(connection, volumes, sent['source_volid'], ('available', 'in-use', 'backing-up', 'uploading'))
            return {**row, 'copy': 'volume', 'source': {
                'type': 'volume', 'volume_id': row['id'], 'backend': (row['backend'] or '').partition('@')[2],
                'size': row['size']}}
        if self.image:
            return {'bootable': True, 'image_metadata': image_metadata(self.image), 'copy': 'image',
                    'source': {'type': 'image', 'image_id': self.image['id'], 'image': self.image}}
        if sent.get('backup_id'):
            row = self._mine(connection, backups, sent['backup_id'], ('available',))
            return {'size': row['size'], 'encryption': row['encryption'], 'copy': 'backup', 'source': {'type': 'none'}}
        return {'copy': None, 'source': {'type': 'none'}}

    def _mine(self, connection, table, row_id, statuses):
        row = store.lock(connection, table, row_id)
        if row is None or not common.may_see(self.req, row):
            raise store.not_found(table, row_id)
        if row['status'] not in statuses:
            what = store.KINDS[table.name]
            raise errors.BadRequest(f"Invalid {what.lower()}: {what} {row_id} must be {' or '.join(statuses)}, but it is "
                                    f"{row['status']}.", kind=f'Invalid{what}')
        return row

    def _type(self, connection, source_type):
        sent, ctx = self.sent, self.req.ctx
        if sent.get('volume_type'):
            return types.find(connection, ctx, sent['volume_type'])
        named = self.image.get('cinder_img_volume_type') if self.image else None
        if named:
            return types.find(connection, ctx, named)
        return types.get(connection, source_type) or types.default(connection, self.req.app.conf, ctx.project_id)

    def _size(self, source):
        least = 1
        if source['copy'] == 'image':
            image = self.image
            least = max(math.ceil((image.get('virtual_size') or image.get('size') or 0) / GIB), image.get('min_disk') or 0, 1)
            if self.size < least:
                raise errors.BadRequest(f'Invalid input received: Size of specified image {image["id"]} is {least}GB and larger '
                                        f'than the volume size {self.size}GB. Ask for at least {least}.', kind='InvalidInput')
        elif source['copy']:
            least = source['size']
            if self.size is not None and self.size < least:
                raise errors.BadRequest(f"Invalid input received: Volume size {self.size}GB cannot be smaller than the "
                                        f"{source['copy']} size {least}GB. They must be >= {least}.", kind='InvalidInput')
        return self.size or least

    def _encryption(self, connection, kind, source):
        wanted = types.encryption_of(connection, kind['id'])
        if source['copy'] in ('snapshot', 'volume', 'backup'):
            there = source.get('encryption')
            if (wanted is None) != (there is None):
                raise errors.BadRequest(f"Invalid input received: Volume type {kind['name']} is {'' if wanted else 'not '}"
                                        f"encrypted and the {source['copy']} is {'' if there else 'not '}: choose another type.",
                                        kind='InvalidInput')
            return there and {name: there[name] for name in ('provider', 'cipher', 'key_size')}
        return wanted

    def _zone(self, connection, source, kind):
        conf = self.req.app.conf.storage_block
        asked = self.sent.get('availability_zone')
        if asked:
            common.check_zone(connection, self.req.app.conf, asked)
            offered = types.zones_of(kind['extra_specs'])
            if offered and asked not in offered:
                raise errors.BadRequest(f"Availability zone '{asked}' is not one of those of volume type {kind['name']}: "
                                        f"{', '.join(offered)}.", kind='InvalidTypeAvailabilityZones')
            return asked
        return source.get('availability_zone') or conf.default_availability_zone

    def _group(self, connection, kind):
        if not self.sent.get('group_id'):
            return None
        row = self._mine(connection, groups, self.sent['group_id'], ('available',))
        if kind['id'] not in row['volume_types']:
            raise errors.BadRequest(f"Invalid input: Volume type {kind['name']} is not one of the group's.")
        return row


def image_of(req, image_id):
    """The document of an image that the caller may use. :raises BadRequest: there is none, or it is not ready."""
    common.check_uuid(image_id, 'imageRef')
    try:
        image = req.app.clients.image.get(f'/v2/images/{image_id}', context=req.ctx)
    except errors.NotFound:
        raise errors.BadRequest('Invalid image identifier or unable to access requested image.') from None
    if image['status'] != 'active':
        raise errors.BadRequest(f"Invalid input received: Image {image_id} is not active but {image['status']}.",
                                kind='InvalidInput')
    return image


def snapshot_behind(image):
    """The snapshot that an image of a server stands for that booted from a volume: such an image holds no data. None for others."""
    mapping = image.get('block_device_mapping')
    try:
        mapping = orjson.loads(mapping) if isinstance(mapping, str) else mapping
    except ValueError:
        return None
    for device in mapping if isinstance(mapping, list) else ():
        if isinstance(device, dict) and device.get('source_type') == 'snapshot' and device.get('boot_index') == 0:
            return common.check_uuid(device.get('snapshot_id'), 'imageRef')
    return None


def image_metadata(image):
    """What a volume keeps of its image, all of it text."""
    found = {'image_id': image['id'], 'image_name': image.get('name') or ''}
    found.update((name, str(image[name])) for name in CORE if image.get(name) is not None)
    for name, value in image.items():
        if name not in NOT_KEPT and not name.startswith('os_glance') and isinstance(value, (str, int, float, bool)):
            found[name] = str(value)
    return found
