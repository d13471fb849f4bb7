"""Backups of volumes: made whole or of what changed, restored, exported and taken over as records."""
import base64
import binascii

import orjson
import sqlalchemy as sa

from kodiak.common import api, db, errors, saga
from kodiak.common.api import Listing, schema
from kodiak.storage_block import keys, notices, quotas, scheduler, states, store, types, work
from kodiak.storage_block.models import backups, services, snapshots, volumes
from kodiak.storage_block.sagas import backups as sagas
from kodiak.storage_block.sagas import volumes as volume_sagas

from . import common
from .actions import need_status

routes = api.Routes('backups')
b = backups.c
FILTERS = {'name': b.name, 'status': b.status, 'volume_id': b.volume_id, 'id': b.id, 'snapshot_id': b.snapshot_id,
           'size': b.size, 'user_id': b.user_id, 'availability_zone': b.availability_zone,
           'created_at': common.time_filter(b.created_at), 'updated_at': common.time_filter(b.updated_at)}
FILTERS = common.with_like(FILTERS)
LISTING = Listing(b.id, {name: b[name] for name in ('id', 'name', 'created_at', 'status', 'size', 'updated_at', 'volume_id')},
                  [('created_at', 'desc')], FILTERS)
LIST = schema.obj({'backups': schema.array(common.OBJECT), 'backups_links': common.LINKS, 'count': schema.INTEGER}, ['backups'])
BACKUP = schema.wrap('backup', common.OBJECT)
load = common.loader(backups, 'backup_id')
#: What a volume made of a backup has of the one that was backed up.
KEPT = ('bootable', 'metadata', 'image_metadata', 'volume_type_id', 'availability_zone')
_child = backups.alias('child')
DEPENDENT = sa.exists().where(_child.c.parent_id == b.id).label('dependent')
SELECT = sa.select(backups, DEPENDENT)


def _brief(req, row):
    found = {'id': row['id'], 'name': row['name'], 'links': common.links(req, 'backups/' + row['id'])}
    if req.at_least(3, 43):
        found['metadata'] = row['metadata']
    return found


def _full(req, row):
    found = {'id': row['id'], 'name': row['name'], 'status': row['status'], 'size': row['size'], 'container': row['container'],
             'object_count': row['object_count'], 'availability_zone': row['availability_zone'], 'created_at': row['created_at'],
             'updated_at': row['updated_at'], 'description': row['description'], 'fail_reason': row['fail_reason'],
             'volume_id': row['volume_id'], 'snapshot_id': row['snapshot_id'], 'data_timestamp': row['data_timestamp'],
             'is_incremental': row['parent_id'] is not None, 'has_dependent_backups': bool(row['dependent']),
             'links': common.links(req, 'backups/' + row['id'])}
    if req.at_least(3, 18) and req.ctx.is_admin:
        found['os-backup-project-attr:project_id'] = row['project_id']
    if req.at_least(3, 43):
        found['metadata'] = row['metadata']
    if req.at_least(3, 64) and row['encryption']:
        found['encryption_key_id'] = row['encryption']['key_id']
    if req.at_least(3, 56):
        found['user_id'] = row['user_id']
    return found


def _list(req, select, render):
    common.check_filters(req, FILTERS)
    visible = common.scope(req, backups)
    with req.db.read() as connection:
        return common.page(req, LISTING, connection, select.where(visible), 'backups', lambda row: render(req, row._mapping),
                           visible, backups)


@routes.get('/backups', rule='backup:get_all', default=common.READER, query=common.parameters(LISTING), response=LIST,
            summary='List backups')
def index(req):
    return _list(req, sa.select(b.id, b.name, b.metadata), lambda req, row: {
        'id': row['id'], 'name': row['name'], 'links': common.links(req, 'backups/' + row['id'])})


@routes.get('/backups/detail', rule='backup:get_all', default=common.READER, query=common.parameters(LISTING), response=LIST,
            summary='List backups with details')
def detail(req):
    return _list(req, SELECT, _full)


@routes.get('/backups/{backup_id}', rule='backup:get', default=common.PROJECT_READER, load=load, response=BACKUP,
            summary='Show a backup')
def show(req, backup_id):
    with req.db.read() as connection:
        return {'backup': _full(req, db.one(connection, SELECT.where(b.id == backup_id)))}


TEXT = {'type': ['string', 'null'], 'maxLength': 255}
CREATE = schema.wrap('backup', schema.obj({
    'volume_id': schema.UUID, 'snapshot_id': schema.nullable(schema.UUID), 'name': TEXT, 'description': TEXT, 'container': TEXT,
    'incremental': schema.nullable(common.BOOLEAN), 'force': schema.nullable(common.BOOLEAN), 'metadata': common.NULL_METADATA,
    'availability_zone': TEXT}, ['volume_id']))


@routes.post('/backups', rule='backup:create', default=common.MEMBER, body=CREATE, status=202, response=BACKUP,
             summary='Make a backup of a volume or snapshot')
def create(req):
    sent = req.body['backup']
    force, incremental = (bool(common.truth(sent.get(name), name)) for name in ('force', 'incremental'))
    for name, since in (('metadata', (3, 43)), ('availability_zone', (3, 51))):
        if sent.get(name) and req.version < since:
            raise errors.BadRequest(f"Additional properties are not allowed ('{name}' was unexpected)")

    def write(connection):
        common.check_zone(connection, req.app.conf, sent.get('availability_zone'))
        volume = store.lock(connection, volumes, sent['volume_id'])
        if volume is None or not common.may_see(req, volume):
            raise store.not_found(volumes, sent['volume_id'])
        snapshot = None
        if sent.get('snapshot_id'):
            snapshot = store.lock(connection, snapshots, sent['snapshot_id'])
            if snapshot is None or snapshot['volume_id'] != volume['id']:
                raise store.not_found(snapshots, sent['snapshot_id'])
            if snapshot['status'] != states.AVAILABLE:
                raise errors.BadRequest(f"Invalid snapshot: It must be available, but it is {snapshot['status']}.")
        else:
            need_status(volume, states.AVAILABLE, *([states.IN_USE] if force else []))
        size = (snapshot or volume)['size']
        if not connection.scalar(sa.select(services.c.id).where(
                services.c.host == work.host_of(volume['backend']), services.c.binary == scheduler.BACKUP_BINARY)):
            raise errors.Unavailable('The host of the volume has no backup service. Ask the operator.')
        parent = _parent(connection, volume['id'], snapshot) if incremental else None
        quotas.claim(connection, req.app.conf, volume['project_id'], {'backups': 1, 'backup_gigabytes': size})
        now = db.utcnow()
        row = store.insert(connection, backups, {
            'project_id': volume['project_id'], 'user_id': req.ctx.user_id, 'volume_id': volume['id'],
            'snapshot_id': sent.get('snapshot_id'), 'parent_id': parent and parent['id'], 'restore_volume_id': None,
            'name': common.stripped(sent.get('name')), 'description': common.stripped(sent.get('description')),
            'size': size, 'status': states.CREATING,
            'fail_reason': None, 'host': work.host_of(volume['backend']),
            'availability_zone': sent.get('availability_zone') or volume['availability_zone'], 'container': sent.get('container'),
            'object_count': 0, 'record': None, 'volume': {name: volume[name] for name in KEPT}, 'encryption': None,
            'data_timestamp': snapshot['created_at'] if snapshot else now,
            'metadata': sent.get('metadata') or {}})
        if volume['encryption']:
            key_id = keys.copy(connection, volume['encryption']['key_id'], row['id'])
            connection.execute(backups.update().where(b.id == row['id']).values(encryption={**volume['encryption'],
                                                                                            'key_id': key_id}))
        if snapshot:
            store.save(connection, snapshots, snapshot, status=states.BACKING_UP)
        else:
            store.save(connection, volumes, volume, status=states.BACKING_UP, previous_status=volume['status'])
        saga.start(connection, sagas.CREATE, row['id'], {}, req.ctx)
        return row
    return {'backup': _brief(req, req.db.transact(write))}


def _parent(connection, volume_id, snapshot):
    query = sa.select(backups).where(b.volume_id == volume_id, b.status == states.AVAILABLE, b.record.is_not(None))
    if snapshot is not None:
        query = query.where(b.data_timestamp < snapshot['created_at'])
    found = db.one(connection, query.order_by(b.data_timestamp.desc()).limit(1))
    if found is None:
        raise errors.BadRequest('Invalid backup: No backups available to do an incremental backup. Make a full one first.',
                                kind='InvalidBackup')
    return found


@routes.put('/backups/{backup_id}', rule='backup:update', default=common.PROJECT_MEMBER, since='3.9', load=load, response=BACKUP,
            body=schema.wrap('backup', {**schema.obj({'name': TEXT, 'description': TEXT, 'metadata': common.NULL_METADATA}),
                                        'minProperties': 1}), summary='Change the name, description or metadata of a backup')
def update(req, backup_id):
    changes = {name: value for name, value in req.body['backup'].items() if name != 'metadata' or value is not None}
    if 'metadata' in changes and not req.at_least(3, 43):
        raise errors.BadRequest("Additional properties are not allowed ('metadata' was unexpected)")
    row = req.db.transact(lambda connection: store.save(connection, backups, store.need(connection, backups, backup_id), **changes))
    return {'backup': _brief(req, row)}


@routes.delete('/backups/{backup_id}', rule='backup:delete', default=common.PROJECT_MEMBER, load=load, status=202,
               summary='Delete a backup')
def delete(req, backup_id):
    req.db.transact(_delete, backup_id, req.ctx, (states.AVAILABLE, states.ERROR))


def _delete(connection, backup_id, context, allowed=None):
    row = store.need(connection, backups, backup_id)
    if allowed and row['status'] not in allowed:
        raise errors.BadRequest(f"Invalid backup: Backup status must be {' or '.join(allowed)}, but it is {row['status']}.",
                                kind='InvalidBackup')
    if connection.scalar(sa.select(b.id).where(b.parent_id == backup_id).limit(1)) is not None:
        raise errors.BadRequest('Invalid backup: Incremental backups build upon this one. Delete them first.', kind='InvalidBackup')
    sagas.begin_delete(connection, row, context)


RESTORE = schema.wrap('restore', schema.obj({'volume_id': schema.nullable(schema.UUID), 'name': TEXT}))


@routes.post('/backups/{backup_id}/restore', rule='backup:restore', default=common.PROJECT_MEMBER, load=load, body=RESTORE,
             status=202, response=schema.wrap('restore', common.OBJECT), summary='Write a backup to a volume')
def restore(req, backup_id):
    sent = req.body['restore']

    def write(connection):
        row = store.need(connection, backups, backup_id)
        if row['status'] != states.AVAILABLE:
            raise errors.BadRequest(f"Invalid backup: Backup status must be available, but it is {row['status']}.",
                                    kind='InvalidBackup')
        if not row['size']:
            raise errors.BadRequest('Invalid backup: The backup to restore has no size.', kind='InvalidBackup')
        if not sent.get('volume_id'):
            return _to_new(connection, req, row, sent.get('name') or f'restore_backup_{backup_id}')
        volume = store.lock(connection, volumes, sent['volume_id'])
        if volume is None or not common.may_see(req, volume):
            raise store.not_found(volumes, sent['volume_id'])
        need_status(volume, states.AVAILABLE)
        if volume['size'] < row['size']:
            raise errors.BadRequest(f"Invalid volume: volume size {volume['size']} is too small to restore backup of size "
                                    f"{row['size']}.", kind='InvalidVolume')
        if bool(volume['encryption']) != bool(row['encryption']):
            raise errors.BadRequest('Invalid volume: The volume and the backup are not both encrypted. Restore to a new volume.',
                                    kind='InvalidVolume')
        if row['encryption']:
            key_id = keys.copy(connection, row['encryption']['key_id'], volume['id'])
            keys.delete(connection, volume['encryption'])
            store.save(connection, volumes, volume, encryption={**row['encryption'], 'key_id': key_id})
        store.save(connection, volumes, volume, status=states.RESTORING_BACKUP, previous_status=volume['status'])
        store.save(connection, backups, row, status=states.RESTORING, restore_volume_id=volume['id'])
        saga.start(connection, sagas.RESTORE, backup_id, {'volume_id': volume['id']}, req.ctx)
        return volume
    volume = req.db.transact(write)
    return {'restore': {'backup_id': backup_id, 'volume_id': volume['id'], 'volume_name': volume['name'] or ''}}


def _to_new(connection, req, row, name):
    conf = req.app.conf
    source = row['volume'] or {}
    kind = types.get(connection, source.get('volume_type_id')) or types.default(connection, conf, row['project_id'])
    if bool(types.encryption_of(connection, kind['id'])) != bool(row['encryption']):
        raise errors.BadRequest(f"Invalid input: Make a volume of a type that is {'' if row['encryption'] else 'not '}encrypted, "
                                'and restore to it.')
    quotas.claim(connection, conf, row['project_id'], {'volumes': 1, 'gigabytes': row['size']}, kind['name'])
    zone = source.get('availability_zone') or conf.storage_block.default_availability_zone
    volume = store.insert_volume(connection, {
        'project_id': row['project_id'], 'user_id': req.ctx.user_id, 'name': name,
        'description': f'auto-created_from_restore_of_backup_{row["id"]}', 'size': row['size'], 'status': states.CREATING,
        'availability_zone': zone, 'volume_type_id': kind['id'], 'bootable': bool(source.get('bootable')),
        'multiattach': types.multiattach(kind), 'encrypted': bool(row['encryption']), 'source_backup_id': row['id'],
        'metadata': source.get('metadata') or {}, 'image_metadata': source.get('image_metadata') or {}})
    if row['encryption']:
        key_id = keys.copy(connection, row['encryption']['key_id'], volume['id'])
        connection.execute(volumes.update().where(volumes.c.id == volume['id']).values(
            encryption={**row['encryption'], 'key_id': key_id}))
    store.save(connection, backups, row, status=states.RESTORING, restore_volume_id=volume['id'])
    saga.start(connection, volume_sagas.CREATE_RESTORED, volume['id'], {
        'source': {'type': 'none'}, 'backup_id': row['id'], 'wish': {
            'size': row['size'], 'extra_specs': kind['extra_specs'], 'multiattach': types.multiattach(kind)}}, req.ctx)
    return volume


# Records

#: In front of the name of a backup driver, so that clients know one when they see it.
SERVICE = 'cinder.backup.drivers.'


@routes.get('/backups/{backup_id}/export_record', rule='backup:export-import', default=common.ADMIN, load=load,
            response=schema.wrap('backup-record', common.OBJECT), summary='Show what another cloud needs to know of a backup')
def export_record(req, backup_id):
    row = req.target
    if row['status'] != states.AVAILABLE or row['record'] is None:
        raise errors.BadRequest(f"Invalid backup: Backup status must be available, but it is {row['status']}.",
                                kind='InvalidBackup')
    if row['encryption']:
        raise errors.BadRequest('Invalid backup: An encrypted backup has no record for other clouds: its key stays in this one.',
                                kind='InvalidBackup')
    kept = {name: row[name] for name in ('id', 'volume_id', 'snapshot_id', 'parent_id', 'name', 'description', 'size', 'container',
                                         'object_count', 'record', 'availability_zone', 'metadata', 'volume')}
    return {'backup-record': {'backup_service': SERVICE + row['record']['service'],
                              'backup_url': base64.b64encode(orjson.dumps(kept)).decode()}}


RECORD = schema.wrap('backup-record', schema.obj({'backup_service': schema.NAME, 'backup_url': {
    'type': 'string', 'minLength': 1, 'maxLength': 65535}}, ['backup_service', 'backup_url']))


@routes.post('/backups/import_record', rule='backup:export-import', default=common.ADMIN, body=RECORD, status=201,
             response=BACKUP, summary='Take over a backup that another cloud made')
def import_record(req):
    sent = req.body['backup-record']
    try:
        kept = orjson.loads(base64.b64decode(sent['backup_url'], validate=True))
        record = {**kept['record'], 'service': sent['backup_service'].removeprefix(SERVICE)}
        values = {'id': common.check_uuid(kept['id'], 'id'), 'volume_id': common.check_uuid(kept['volume_id'], 'volume_id'),
                  'size': schema.integer(kept['size'], 'size', 1, 2147483647), 'object_count': int(record['object_count']),
                  'parent_id': common.check_uuid(kept.get('parent_id'), 'parent_id'),
                  'snapshot_id': common.check_uuid(kept.get('snapshot_id'), 'snapshot_id'),
                  **{name: kept.get(name) and str(kept[name])[:255] for name in ('name', 'description', 'availability_zone')},
                  'container': str(record['container'])[:255], 'volume': {name: kept['volume'][name] for name in KEPT
                                                                         if name in (kept.get('volume') or {})}}
        if record['metadata'].get('encrypted'):
            raise errors.BadRequest('Invalid backup: The backup is encrypted, and its key is not here.', kind='InvalidBackup')
    except (binascii.Error, orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise errors.BadRequest('Invalid input for field/attribute backup_url: it is no record of a backup.') from None

    def write(connection):
        if store.get(connection, backups, values['id']) is not None:
            raise errors.BadRequest(f"Invalid backup: Backup {values['id']} is here already.", kind='InvalidBackup')
        host = connection.scalar(sa.select(services.c.host).where(services.c.binary == scheduler.BACKUP_BINARY).order_by(
            services.c.last_seen_at.desc()).limit(1))
        if host is None:
            raise errors.Unavailable('There is no backup service.')
        quotas.claim(connection, req.app.conf, req.ctx.project_id, {'backups': 1, 'backup_gigabytes': values['size']})
        return store.insert(connection, backups, {
            **values, 'project_id': req.ctx.project_id, 'user_id': req.ctx.user_id, 'restore_volume_id': None,
            'status': states.AVAILABLE, 'fail_reason': None, 'host': host, 'record': record, 'encryption': None,
            'data_timestamp': db.utcnow(), 'metadata': {}})
    row = req.db.transact(write)
    return {'backup': {'id': row['id'], 'name': row['name'], 'links': common.links(req, 'backups/' + row['id'])}}


# What operators do

@routes.post('/backups/{backup_id}/action', action='os-reset_status', rule='backup:backup_admin_actions:reset_status',
             default=common.ADMIN, load=load, body=schema.wrap('os-reset_status', schema.obj({'status': {
                 'enum': ['available', 'error']}}, ['status'])), status=202, summary='Set the status of a backup')
def reset_status(req, backup_id):
    sent = req.body['os-reset_status']
    req.db.transact(lambda connection: notices.reset(connection, 'backups', backup_id, sent, lambda: store.save(
        connection, backups, store.need(connection, backups, backup_id), told=False, status=sent['status'])))


@routes.post('/backups/{backup_id}/action', action='os-force_delete', rule='backup:backup_admin_actions:force_delete',
             default=common.ADMIN, load=load, status=202, summary='Delete a backup whatever its status')
def force_delete(req, backup_id):
    req.db.transact(_delete, backup_id, req.ctx)
