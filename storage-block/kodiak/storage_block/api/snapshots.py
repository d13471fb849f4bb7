"""Snapshots of volumes, their metadata, and what operators do to them."""
import sqlalchemy as sa

from kodiak.common import api, errors, saga
from kodiak.common.api import Listing, schema
from kodiak.storage_block import notices, quotas, states, store, types
from kodiak.storage_block.models import snapshots, volumes
from kodiak.storage_block.sagas import snapshots as sagas

from . import common
from .volumes import metadata_routes

routes = api.Routes('snapshots')
s = snapshots.c
FILTERS = {
    'name': s.name, 'display_name': s.name, 'status': s.status, 'volume_id': s.volume_id, 'id': s.id, 'user_id': s.user_id,
    'size': s.size, 'group_snapshot_id': s.group_snapshot_id, 'metadata': common.json_filter(s.metadata),
    'availability_zone': lambda zones: s.volume_id.in_(sa.select(volumes.c.id).where(volumes.c.availability_zone.in_(zones))),
    'consumes_quota': s.consumes_quota, 'created_at': common.time_filter(s.created_at),
    'updated_at': common.time_filter(s.updated_at)}
FILTERS = common.with_like(FILTERS)
SINCE = {'metadata': (3, 22), 'consumes_quota': (3, 65)}
LISTING = Listing(s.id, {name: s[name] for name in ('created_at', 'name', 'status', 'size', 'id', 'volume_id', 'updated_at',
                                                    'description', 'user_id', 'project_id')} | {'display_name': s.name},
                  [('created_at', 'desc')], FILTERS)
SNAPSHOT = schema.wrap('snapshot', common.OBJECT)
LIST = schema.obj({'snapshots': schema.array(common.OBJECT), 'snapshots_links': common.LINKS, 'count': schema.INTEGER},
                  ['snapshots'])
load = common.loader(snapshots, 'snapshot_id')


def renderer(req, full=False):
    """``function(row) -> a snapshot as it is shown``; ``full``: with what only an existing one has."""
    group, user, quota = req.at_least(3, 14), req.at_least(3, 41), req.at_least(3, 65)

    def render(row):
        found = {'id': row.id, 'name': row.name, 'description': row.description, 'volume_id': row.volume_id,
                 'status': row.status, 'size': row.size, 'metadata': row.metadata, 'created_at': row.created_at,
                 'updated_at': row.updated_at}
        if full:
            found['os-extended-snapshot-attributes:progress'] = f'{row.progress}%'
            found['os-extended-snapshot-attributes:project_id'] = row.project_id
        if group:
            found['group_snapshot_id'] = row.group_snapshot_id
        if user:
            found['user_id'] = row.user_id
        if quota:
            found['consumes_quota'] = row.consumes_quota
        return found
    return render


class Row:
    """A dictionary as a row."""

    def __init__(self, values):
        self.__dict__.update(values)


def _list(req, full):
    common.check_filters(req, FILTERS, SINCE)
    visible = common.scope(req, snapshots)
    with req.db.read() as connection:
        return common.page(req, LISTING, connection, sa.select(snapshots).where(visible), 'snapshots', renderer(req, full),
                           visible, snapshots)


@routes.get('/snapshots', rule='volume:get_all_snapshots', default=common.READER, query=common.parameters(LISTING), response=LIST,
            summary='List snapshots')
def index(req):
    return _list(req, False)


@routes.get('/snapshots/detail', rule='volume:get_all_snapshots', default=common.READER, query=common.parameters(LISTING),
            response=LIST, summary='List snapshots with details')
def detail(req):
    return _list(req, True)


@routes.get('/snapshots/{snapshot_id}', rule='volume:get_snapshot', default=common.PROJECT_READER, load=load, response=SNAPSHOT,
            summary='Show a snapshot')
def show(req, snapshot_id):
    return {'snapshot': renderer(req, True)(Row(req.target))}


FIELDS = {'name': common.NAME, 'display_name': common.NAME, 'description': common.NAME, 'display_description': common.NAME}
CREATE = schema.wrap('snapshot', schema.obj({
    **FIELDS, 'volume_id': schema.nullable(schema.UUID), 'force': schema.nullable(common.BOOLEAN),
    'metadata': common.NULL_METADATA}, ['volume_id']))


@routes.post('/snapshots', rule='volume:create_snapshot', default=common.MEMBER, body=CREATE, status=202, response=SNAPSHOT,
             summary='Make a snapshot of a volume')
def create(req):
    sent = req.body['snapshot']
    force = common.truth(sent.get('force'), 'force')
    if req.at_least(3, 66):
        if force is False:
            raise errors.BadRequest('Invalid input: force: since microversion 3.66 a volume in use is snapshot without it; it must '
                                    'not be false.')
        force = True

    def write(connection):
        volume = store.lock(connection, volumes, sent['volume_id'])
        if volume is None or not common.may_see(req, volume):
            raise store.not_found(volumes, sent['volume_id'])
        check_volume(volume, force)
        row = insert(connection, req, volume, {
            'name': common.stripped(sent.get('name', sent.get('display_name'))),
            'description': common.stripped(sent.get('description', sent.get('display_description'))),
            'metadata': sent.get('metadata') or {}})
        saga.start(connection, sagas.CREATE, row['id'], {}, req.ctx)
        return row
    return {'snapshot': renderer(req)(Row(req.db.transact(write)))}


def check_volume(volume, force):
    """400 where a volume cannot have a snapshot made of it now."""
    allowed = (states.AVAILABLE, states.IN_USE, states.BACKING_UP) if force else (states.AVAILABLE,)
    if volume['status'] not in allowed or volume['backend'] is None:
        raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} status must be {' or '.join(allowed)}, but current "
                                f"status is: "
                                f"{volume['status']}.", kind='InvalidVolume')
    if volume['migration_status'] in ('starting', 'migrating'):
        raise errors.BadRequest('Invalid volume: The volume is being migrated.', kind='InvalidVolume')


def insert(connection, req, volume, values, status='creating', claim=True):
    """The row of a new snapshot of a volume, claimed against the quota."""
    kind = types.get(connection, volume['volume_type_id'])
    if claim:
        quotas.claim(connection, req.app.conf, volume['project_id'], {'snapshots': 1, 'gigabytes': volume['size']},
                     kind and kind['name'])
    return store.insert(connection, snapshots, {
        'volume_id': volume['id'], 'project_id': volume['project_id'], 'user_id': req.ctx.user_id, 'size': volume['size'],
        'status': status, 'progress': 0, 'volume_type_id': volume['volume_type_id'], 'backend': volume['backend'],
        'encryption': volume['encryption'], 'group_snapshot_id': None, 'consumes_quota': True,
        'image_metadata': volume['image_metadata'], **values})


@routes.put('/snapshots/{snapshot_id}', rule='volume:update_snapshot', default=common.PROJECT_MEMBER, load=load,
            body=schema.wrap('snapshot', {**schema.obj(FIELDS), 'minProperties': 1}), response=SNAPSHOT,
            summary='Change the name or description of a snapshot')
def update(req, snapshot_id):
    sent = req.body['snapshot']
    changes = {name.removeprefix('display_'): value.strip() if value else value for name, value in sent.items()}

    def write(connection):
        return store.save(connection, snapshots, store.need(connection, snapshots, snapshot_id), **changes)
    return {'snapshot': renderer(req)(Row(req.db.transact(write)))}


@routes.delete('/snapshots/{snapshot_id}', rule='volume:delete_snapshot', default=common.PROJECT_MEMBER, load=load, status=202,
               summary='Delete a snapshot')
def delete(req, snapshot_id):
    req.db.transact(_delete, snapshot_id, req.ctx, (states.AVAILABLE, states.ERROR))


def _delete(connection, snapshot_id, context, allowed=None):
    row = store.need(connection, snapshots, snapshot_id)
    if allowed and row['status'] not in allowed:
        raise errors.BadRequest(f"Invalid snapshot: Snapshot status must be {' or '.join(allowed)}, but it is {row['status']}.",
                                kind='InvalidSnapshot')
    if row['group_snapshot_id'] is not None:
        raise errors.BadRequest('Invalid snapshot: The snapshot belongs to a group snapshot: delete that.', kind='InvalidSnapshot')
    sagas.begin_delete(connection, row, context)


metadata_routes(routes, 'snapshots', snapshots, 'snapshot')

STATUSES = ('available', 'creating', 'deleting', 'deleted', 'error', 'error_deleting', 'backing-up', 'restoring', 'unmanaging',
            'managing')


@routes.post('/snapshots/{snapshot_id}/action', action='os-reset_status',
             rule='volume_extension:snapshot_admin_actions:reset_status',
             default=common.ADMIN, load=load, body=schema.wrap('os-reset_status', schema.obj({'status': {'enum': list(STATUSES)}}, [
                 'status'])), status=202, summary='Set the status of a snapshot')
def reset_status(req, snapshot_id):
    sent = req.body['os-reset_status']
    req.db.transact(lambda connection: notices.reset(connection, 'snapshots', snapshot_id, sent, lambda: store.save(
        connection, snapshots, store.need(connection, snapshots, snapshot_id), told=False, status=sent['status'])))


@routes.post('/snapshots/{snapshot_id}/action', action='os-update_snapshot_status',
             rule='volume_extension:snapshot_actions:update_snapshot_status', default=common.PROJECT_MEMBER, load=load,
             body=schema.wrap('os-update_snapshot_status', schema.obj({
                 'status': {'enum': ['creating', 'deleting', 'error', 'error_deleting', 'available']},
                 'progress': {'type': ['string', 'null'], 'pattern': '^[0-9]{1,3}%$'}}, ['status'])), status=202,
             summary='Tell the status of a snapshot that compute helps to make')
def update_status(req, snapshot_id):
    sent = req.body['os-update_snapshot_status']
    changes = {'status': sent['status']}
    if sent.get('progress'):
        changes['progress'] = min(100, int(sent['progress'][:-1]))
    req.db.transact(lambda connection: store.save(connection, snapshots, store.need(connection, snapshots, snapshot_id), **changes))


@routes.post('/snapshots/{snapshot_id}/action', action='os-force_delete',
             rule='volume_extension:snapshot_admin_actions:force_delete', default=common.ADMIN, load=load, status=202,
             summary='Delete a snapshot whatever its status')
def force_delete(req, snapshot_id):
    req.db.transact(_delete, snapshot_id, req.ctx)
