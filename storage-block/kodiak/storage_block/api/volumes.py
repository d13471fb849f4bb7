"""Volumes: list, show, change, delete; their metadata and what is kept of their image's."""
import hashlib

import orjson
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common.api import schema
from kodiak.storage_block import states, store
from kodiak.storage_block.models import snapshots, volumes
from kodiak.storage_block.sagas import volumes as sagas

from . import common, volume_view

routes = api.Routes('volumes')
VOLUME = schema.wrap('volume', common.OBJECT)
LIST = schema.obj({'volumes': schema.array(common.OBJECT), 'volumes_links': common.LINKS, 'count': schema.INTEGER}, ['volumes'])
load = common.loader(volumes, 'volume_id')


def _list(req, select, render):
    common.check_filters(req, volume_view.FILTERS, volume_view.SINCE, operators=('host',))
    if 'bootable' in req.query and req.version < (3, 2):
        # Before it was looked at, whatever is not false was true.
        req.query['bootable'] = ['false' if value in ('false', 'False') else 'true' for value in req.query['bootable']]
    visible = common.scope(req, volumes)
    with req.db.read() as connection:
        return common.page(req, volume_view.LISTING, connection, select.where(visible), 'volumes', render, visible, volumes)


@routes.get('/volumes', rule='volume:get_all', default=common.READER, query=common.parameters(volume_view.LISTING),
            response=LIST, summary='List volumes')
def index(req):
    links = common.linker(req, 'volumes')
    return _list(req, volume_view.BRIEF, lambda row: {'id': row.id, 'name': row.name, 'links': links(row.id)})


@routes.get('/volumes/detail', rule='volume:get_all', default=common.READER, query=common.parameters(volume_view.LISTING),
            response=LIST, summary='List volumes with details')
def detail(req):
    return _list(req, volume_view.SELECT, volume_view.renderer(req))


@routes.get('/volumes/summary', rule='volume:get_all', default=common.READER, since='3.12',
            query={'all_tenants': schema.BOOLEAN, 'project_id': schema.STRING},
            response=schema.wrap('volume-summary', common.OBJECT), summary='Show how many volumes there are')
def summary(req):
    visible = common.scope(req, volumes)
    with req.db.read() as connection:
        count, size = connection.execute(sa.select(sa.func.count(), sa.func.sum(volumes.c.size)).where(visible)).one()
        found = {'total_count': count, 'total_size': int(size or 0)}
        if req.at_least(3, 36):
            keys = {}
            for metadata in connection.scalars(sa.select(volumes.c.metadata).where(visible, sa.type_coerce(
                    volumes.c.metadata, sa.Text) != '{}')):
                for key, value in metadata.items():
                    keys.setdefault(key, set()).add(value)
            found['metadata'] = {key: sorted(values) for key, values in keys.items()}
    return {'volume-summary': found}


def _load_shown(req, volume_id):
    with req.db.read() as connection:
        row = volume_view.get(connection, volume_id)
    if row is None or not common.may_see(req, {'project_id': row.project_id}):
        raise store.not_found(volumes, volume_id)
    req.row = row
    return {'project_id': row.project_id}


@routes.get('/volumes/{volume_id}', rule='volume:get', default=common.PROJECT_READER, load=_load_shown, response=VOLUME,
            summary='Show a volume')
def show(req, volume_id):
    return {'volume': volume_view.renderer(req)(req.row)}


CHANGE = schema.wrap('volume', schema.obj({
    'name': common.NAME, 'description': common.NAME, 'display_name': common.NAME, 'display_description': common.NAME,
    'metadata': common.NULL_METADATA}))


@routes.put('/volumes/{volume_id}', rule='volume:update', default=common.PROJECT_MEMBER, load=load, body=CHANGE, response=VOLUME,
            summary='Change the name, description or metadata of a volume')
def update(req, volume_id):
    sent = req.body['volume']
    if not sent and req.at_least(3, 53):
        raise errors.BadRequest('Invalid input for field/attribute volume: {} should be non-empty: name what is to be changed.')
    changes = {name: sent[f'{prefix}{name}'] for prefix in ('display_', '') for name in ('name', 'description')
               if f'{prefix}{name}' in sent}
    changes = {name: value.strip() if value else value for name, value in changes.items()}
    if sent.get('metadata') is not None:
        changes['metadata'] = sent['metadata']

    def write(connection):
        store.save(connection, volumes, store.need(connection, volumes, volume_id), **changes)
        return volume_view.get(connection, volume_id)
    return {'volume': volume_view.renderer(req, made=True)(req.db.transact(write))}


@routes.delete('/volumes/{volume_id}', rule='volume:delete', default=common.PROJECT_MEMBER, load=load, status=202,
               query={'cascade': schema.BOOLEAN, 'force': schema.BOOLEAN}, summary='Delete a volume')
def delete(req, volume_id):
    force = req.query.get('force', False) and req.at_least(3, 23)
    if force:
        req.authorize(req.target, 'volume:force_delete')
    req.db.transact(begin_delete, volume_id, req.ctx, req.query.get('cascade', False), force)


def begin_delete(connection, volume_id, context, cascade=False, force=False):
    """Start to delete a volume. :raises BadRequest: its status, attachments, group or snapshots forbid it."""
    row = store.need(connection, volumes, volume_id)
    if not force and (row['status'] not in states.DELETABLE or row['migration_status'] in ('migrating', 'starting')):
        raise errors.BadRequest(
            'Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing, '
            f"and it must not be migrating, attached, belong to a group or have snapshots; it is {row['status']}.",
            kind='InvalidVolume')
    if store.attachments_of(connection, volume_id) and not force:
        raise errors.BadRequest('Invalid volume: The volume is attached. Detach it first.', kind='InvalidVolume')
    if row['group_id'] is not None:
        raise errors.BadRequest('Invalid volume: The volume belongs to a group. Take it out of the group first.',
                                kind='InvalidVolume')
    found = list(connection.execute(sa.select(snapshots.c.status).where(snapshots.c.volume_id == volume_id)).scalars())
    if found and not cascade:
        raise errors.BadRequest('Invalid volume: The volume has snapshots. Delete them first, or delete it with cascade.',
                                kind='InvalidVolume')
    if any(status not in ('available', 'error', 'error_deleting', 'deleting') for status in found):
        raise errors.BadRequest('Invalid volume: A snapshot of the volume is in use.', kind='InvalidVolume')
    sagas.begin_delete(connection, row, context, cascade)


# Metadata

META = schema.wrap('metadata', common.METADATA)
ITEM = schema.wrap('meta', {**common.METADATA, 'minProperties': 1, 'maxProperties': 1})


def tag_of(metadata):
    """The tag that says of metadata whether it is still the same."""
    return hashlib.sha256(orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def unchanged(req, metadata):
    """412 where a request wants to change only what it has seen (``If-Match``, from 3.15), and this is not that any more."""
    wanted = req.http.headers.get('If-Match')
    if wanted and req.at_least(3, 15) and not {'*', tag_of(metadata)} & {one.strip(' "') for one in wanted.split(',')}:
        raise errors.PreconditionFailed('The metadata is not what its Etag says any more: read it again.')


def metadata_routes(routes, kind, table, rule):
    """Declare the metadata of volumes or snapshots on ``routes``."""
    name = kind[:-1] + '_id'
    path, loads = f'/{kind}/{{{name}}}/metadata', common.loader(table, name)
    reading = {'rule': f'volume:get_{rule}_metadata', 'default': common.PROJECT_READER, 'load': loads}
    writing = {'rule': f'volume:update_{rule}_metadata', 'default': common.PROJECT_MEMBER, 'load': loads}
    what = kind[:-1]

    def change(req, row_id, function):
        def write(connection):
            row = store.need(connection, table, row_id)
            unchanged(req, row['metadata'])
            return store.save(connection, table, row, metadata=function(row['metadata']))['metadata']
        return req.db.transact(write)

    def need(row, key):
        if key not in row:
            raise errors.NotFound(f'Metadata key {key} of the {what} could not be found.', kind='VolumeMetadataNotFound')
        return row[key]

    @routes.get(path, response=META, summary=f'Show the metadata of a {what}', **reading)
    def show_all(req, **ids):
        found = req.target['metadata']
        if req.at_least(3, 15):
            req.headers.append(('Etag', tag_of(found)))
        return {'metadata': found}

    @routes.post(path, body=META, response=META, summary=f'Add to the metadata of a {what}', **writing)
    def add(req, **ids):
        return {'metadata': change(req, ids[name], lambda old: {**old, **req.body['metadata']})}

    @routes.put(path, body=META, response=META, summary=f'Replace the metadata of a {what}', **writing)
    def replace(req, **ids):
        return {'metadata': change(req, ids[name], lambda old: req.body['metadata'])}

    @routes.get(path + '/{key}', response=ITEM, summary=f'Show one value of the metadata of a {what}', **reading)
    def show_one(req, key, **ids):
        return {'meta': {key: need(req.target['metadata'], key)}}

    @routes.put(path + '/{key}', body=ITEM, response=ITEM, summary=f'Set one value of the metadata of a {what}', **writing)
    def put_one(req, key, **ids):
        if key not in req.body['meta']:
            raise errors.BadRequest('Request body and URI mismatch: the key in the body must be the one in the path.')
        change(req, ids[name], lambda old: {**old, **req.body['meta']})
        return {'meta': req.body['meta']}

    @routes.delete(path + '/{key}', status=200, summary=f'Remove one value of the metadata of a {what}',
                   rule=f'volume:delete_{rule}_metadata', default=common.PROJECT_MEMBER, load=loads)
    def delete_one(req, key, **ids):
        def without(old):
            need(old, key)
            return {one: value for one, value in old.items() if one != key}
        change(req, ids[name], without)


metadata_routes(routes, 'volumes', volumes, 'volume')


@routes.get('/volumes/{volume_id}/encryption', rule='volume_extension:volume_encryption_metadata', default=common.PROJECT_READER,
            load=load, response=common.OBJECT, summary='Show how a volume is encrypted')
def encryption(req, volume_id):
    found = req.target['encryption']
    if not found:
        return {'encryption_key_id': None}
    return {'encryption_key_id': found['key_id'], 'provider': found['provider'], 'cipher': found['cipher'],
            'key_size': found['key_size'], 'control_location': 'front-end'}


@routes.get('/volumes/{volume_id}/encryption/{key}', rule='volume_extension:volume_encryption_metadata',
            default=common.PROJECT_READER, load=load, response=common.OBJECT, summary='Show one value of how a volume is encrypted')
def encryption_item(req, volume_id, key):
    found = encryption(req, volume_id)
    if key not in found:
        raise errors.NotFound(f'The encryption of the volume has no {key}.')
    return {key: found[key]}


EXTRA_RULES = [(common.ALL_PROJECTS, common.ADMIN, 'List what belongs to all projects'),
               ('volume:force_delete', common.ADMIN, 'Delete a volume whatever its status')]
