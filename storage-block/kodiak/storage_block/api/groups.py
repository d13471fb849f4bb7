"""Groups of volumes, their types, and snapshots of all of a group at one moment (3.11 on)."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, saga
from kodiak.common.api import Listing, schema
from kodiak.storage_block import keys, notices, quotas, states, store, types, work
from kodiak.storage_block.models import group_snapshots, group_types, groups, snapshots, volumes
from kodiak.storage_block.sagas import groups as sagas
from kodiak.storage_block.sagas import snapshots as snapshot_sagas
from kodiak.storage_block.sagas import volumes as volume_sagas

from . import common, typed
from . import snapshots as of_snapshots

routes = api.Routes('groups')
DEFAULT_TYPE = 'default_cgsnapshot_type'


class GroupTypes(typed.Types):
    """Group types."""

    def in_use(self, connection, type_id):
        return connection.scalar(sa.select(groups.c.id).where(groups.c.group_type_id == type_id).limit(1)) is not None

    def default_of(self, req, connection):
        row = db.one(connection, sa.select(group_types).where(group_types.c.name == DEFAULT_TYPE))
        if row is None:
            raise errors.NotFound('Default group type can not be found.', kind='GroupTypeNotFound')
        return row


TYPES = GroupTypes(routes, 'group_type', '/group_types', group_types, 'group_specs', 'group:group_types', 202, '3.11')
TYPES.declare('group type')

g = groups.c
FILTERS = common.with_like({
    'name': g.name, 'status': g.status, 'id': g.id, 'group_type_id': g.group_type_id, 'group_snapshot_id': g.group_snapshot_id,
    'source_group_id': g.source_group_id, 'availability_zone': g.availability_zone})
LISTING = Listing(g.id, {name: g[name] for name in ('id', 'name', 'created_at', 'status')}, [('created_at', 'desc')], FILTERS)
LIST = schema.obj({'groups': schema.array(common.OBJECT), 'groups_links': common.LINKS, 'count': schema.INTEGER}, ['groups'])
GROUP = schema.wrap('group', common.OBJECT)
load = common.loader(groups, 'group_id')
IDS = {'type': ['string', 'null']}


def _full(req, row, members=None):
    found = {'id': row['id'], 'name': row['name'], 'description': row['description'], 'status': row['status'],
             'availability_zone': row['availability_zone'], 'created_at': row['created_at'], 'group_type': row['group_type_id'],
             'volume_types': row['volume_types']}
    if req.at_least(3, 14):
        found.update(group_snapshot_id=row['group_snapshot_id'], source_group_id=row['source_group_id'])
    if members is not None:
        found['volumes'] = members
    if req.at_least(3, 38):
        found['replication_status'] = 'disabled'
    if req.at_least(3, 58) and req.ctx.is_admin:
        found['project_id'] = row['project_id']
    return found


def _list(req, render):
    common.check_filters(req, {*FILTERS, 'list_volume'})
    visible = common.scope(req, groups)
    with req.db.read() as connection:
        return common.page(req, LISTING, connection, sa.select(groups).where(visible), 'groups', render, visible, groups)


@routes.get('/groups', rule='group:get_all', default=common.READER, since='3.13', query=common.parameters(LISTING), response=LIST,
            summary='List groups')
def index(req):
    return _list(req, lambda row: {'id': row.id, 'name': row.name})


def _with_volumes(req):
    return req.at_least(3, 25) and req.query.get('list_volume', False)


@routes.get('/groups/detail', rule='group:get_all', default=common.READER, since='3.13', query=common.parameters(
    LISTING, list_volume=schema.BOOLEAN), response=LIST, summary='List groups with details')
def detail(req):
    there = {}
    if _with_volumes(req):
        with req.db.read() as connection:
            for volume_id, group_id in connection.execute(sa.select(volumes.c.id, volumes.c.group_id).where(
                    volumes.c.group_id.is_not(None))):
                there.setdefault(group_id, []).append(volume_id)
    return _list(req, lambda row: _full(req, row._mapping, there.get(row.id, []) if _with_volumes(req) else None))


@routes.get('/groups/{group_id}', rule='group:get', default=common.PROJECT_READER, since='3.13', load=load, response=GROUP,
            query={'list_volume': schema.BOOLEAN}, summary='Show a group')
def show(req, group_id):
    members = None
    if _with_volumes(req):
        with req.db.read() as connection:
            members = [row['id'] for row in sagas.members(connection, group_id)]
    return {'group': _full(req, req.target, members)}


CREATE = schema.wrap('group', schema.obj({
    'name': common.NAME, 'description': common.NAME, 'group_type': schema.NAME, 'volume_types': schema.array(
        schema.NAME, minItems=1, uniqueItems=True), 'availability_zone': {'type': ['string', 'null'], 'maxLength': 255}},
    ['group_type', 'volume_types']))


def _names(sent):
    return {name: common.stripped(sent.get(name)) for name in ('name', 'description')}


def _group_type(connection, ctx, name):
    query = sa.select(group_types).where(sa.or_(group_types.c.id == name, group_types.c.name == name))
    condition = TYPES.visible(ctx)
    row = db.one(connection, query if condition is None else query.where(condition))
    if row is None:
        raise store.not_found(group_types, name)
    return row


def _insert(connection, req, values):
    quotas.claim(connection, req.app.conf, req.ctx.project_id, {'groups': 1})
    return store.insert(connection, groups, {
        'project_id': req.ctx.project_id, 'user_id': req.ctx.user_id, 'status': states.CREATING, 'backend': None,
        'availability_zone': req.app.conf.storage_block.default_availability_zone, 'group_snapshot_id': None,
        'source_group_id': None, **values})


@routes.post('/groups', rule='group:create', default=common.MEMBER, since='3.13', body=CREATE, status=202, response=GROUP,
             summary='Make a group')
def create(req):
    sent = req.body['group']

    def write(connection):
        kind = _group_type(connection, req.ctx, sent['group_type'])
        found = [types.find(connection, req.ctx, name) for name in sent['volume_types']]
        specs = {}
        for one in found:
            specs.update(one['extra_specs'])
        common.check_zone(connection, req.app.conf, sent.get('availability_zone'))
        row = _insert(connection, req, {
            **_names(sent), 'group_type_id': kind['id'],
            'volume_types': [one['id'] for one in found], **({'availability_zone': sent['availability_zone']} if sent.get(
                'availability_zone') else {})})
        saga.start(connection, sagas.CREATE, row['id'], {'extra_specs': specs, 'zone': sent.get('availability_zone')}, req.ctx)
        return row
    row = req.db.transact(write)
    return {'group': {'id': row['id'], 'name': row['name']}}


SOURCE = schema.wrap('create-from-src', schema.obj({
    'name': common.NAME, 'description': common.NAME, 'group_snapshot_id': schema.nullable(schema.UUID),
    'source_group_id': schema.nullable(schema.UUID)}))


@routes.post('/groups/action', action='create-from-src', rule='group:create', default=common.MEMBER, since='3.14', body=SOURCE,
             status=202, response=GROUP, summary='Make a group with copies of the volumes of another, or of its snapshot')
def create_from(req):
    sent = req.body['create-from-src']
    snapshot_id, source_id = sent.get('group_snapshot_id'), sent.get('source_group_id')
    if bool(snapshot_id) == bool(source_id):
        raise errors.BadRequest("Either 'group_snapshot_id' or 'source_group_id' must be provided to create a group from source.")

    def write(connection):
        made = None
        if snapshot_id:
            made = _mine(connection, req, group_snapshots, snapshot_id)
            source_id = made['group_id']
        else:
            source_id = sent['source_group_id']
        source = _mine(connection, req, groups, source_id)
        row = _insert(connection, req, {
            **_names(sent), 'backend': source['backend'],
            **{name: source[name] for name in ('group_type_id', 'volume_types', 'availability_zone')},
            'group_snapshot_id': snapshot_id, 'source_group_id': None if snapshot_id else source_id})
        for member in sagas.members(connection, source_id):
            if made is None:
                _copy(connection, req, row, member, {'type': 'volume', 'volume_id': member['id'], 'size': member['size'],
                                                     'backend': work.short(member['backend'])}, source_volid=member['id'])
        for taken in _snapshots_of(connection, snapshot_id) if made else ():
            member = store.need(connection, volumes, taken['volume_id'])
            _copy(connection, req, row, {**member, 'size': taken['size']}, {
                'type': 'snapshot', 'snapshot_id': taken['id'], 'volume_id': member['id'], 'size': taken['size']},
                snapshot_id=taken['id'])
        saga.start(connection, sagas.CREATE, row['id'], {'extra_specs': {}}, req.ctx)
        return row
    row = req.db.transact(write)
    return {'group': {'id': row['id'], 'name': row['name']}}


def _mine(connection, req, table, row_id):
    row = store.lock(connection, table, row_id)
    if row is None or not common.may_see(req, row):
        raise store.not_found(table, row_id)
    if row['status'] != states.AVAILABLE:
        raise errors.BadRequest(f"Invalid {store.KINDS[table.name]}: {row_id} must be available, but it is {row['status']}.")
    return row


def _snapshots_of(connection, group_snapshot_id):
    return db.all_dicts(connection, sa.select(snapshots).where(snapshots.c.group_snapshot_id == group_snapshot_id))


def _copy(connection, req, group, member, source, **origin):
    kind = types.get(connection, member['volume_type_id'])
    quotas.claim(connection, req.app.conf, group['project_id'], {'volumes': 1, 'gigabytes': member['size']}, kind and kind['name'])
    row = store.insert_volume(connection, {
        **{name: member[name] for name in ('name', 'description', 'size', 'volume_type_id', 'availability_zone', 'bootable',
                                           'multiattach', 'encrypted', 'metadata', 'image_metadata', 'image_id')},
        'project_id': group['project_id'], 'user_id': req.ctx.user_id, 'status': states.CREATING, 'group_id': group['id'],
        **origin})
    if member['encryption']:
        key_id = keys.copy(connection, member['encryption']['key_id'], row['id'])
        connection.execute(volumes.update().where(volumes.c.id == row['id']).values(
            encryption={**member['encryption'], 'key_id': key_id}))
    saga.start(connection, volume_sagas.CREATE, row['id'], {'source': source, 'wish': {
        'size': row['size'], 'backend': member['backend']}}, req.ctx)


CHANGE = schema.wrap('group', {**schema.obj({'name': common.NAME, 'description': common.NAME, 'add_volumes': IDS,
                                             'remove_volumes': IDS}), 'minProperties': 1})


@routes.put('/groups/{group_id}', rule='group:update', default=common.PROJECT_MEMBER, since='3.13', load=load, body=CHANGE,
            status=202, summary='Change a group: its name, its description, which volumes are in it')
def update(req, group_id):
    sent = req.body['group']
    add, remove = ([one.strip() for one in (sent.get(name) or '').split(',') if one.strip()] for name in ('add_volumes',
                                                                                                           'remove_volumes'))
    changes = {name: value for name, value in _names(sent).items() if value is not None}
    if not changes and not add and not remove:
        raise errors.BadRequest('Name, description, add_volumes, and remove_volumes can not be all empty in the request body.')
    if set(add) & set(remove):
        raise errors.BadRequest('A volume cannot be added and removed at once.')

    def write(connection):
        row = store.need(connection, groups, group_id)
        if row['status'] != states.AVAILABLE and (add or remove):
            raise errors.BadRequest(f"Invalid group: It must be available, but it is {row['status']}.", kind='InvalidGroup')
        for volume_id in add:
            volume = store.need(connection, volumes, volume_id)
            if not common.may_see(req, volume):
                raise store.not_found(volumes, volume_id)
            if volume['group_id'] not in (None, group_id):
                raise errors.BadRequest(f'Invalid volume: Volume {volume_id} belongs to another group.', kind='InvalidVolume')
            if volume['status'] not in (states.AVAILABLE, states.IN_USE) or volume['volume_type_id'] not in row['volume_types'] \
                    or volume['backend'] != row['backend']:
                raise errors.BadRequest(f'Invalid volume: Volume {volume_id} must be available or in-use, of a type of the group, '
                                        'and where the group is.', kind='InvalidVolume')
            store.save(connection, volumes, volume, group_id=group_id)
        for volume_id in remove:
            volume = store.lock(connection, volumes, volume_id)
            if volume is None or volume['group_id'] != group_id:
                raise errors.BadRequest(f'Invalid volume: Volume {volume_id} is not in the group.', kind='InvalidVolume')
            store.save(connection, volumes, volume, group_id=None)
        before = {**row}
        store.save(connection, groups, row, **changes)
        notices.both(connection, groups, row, 'update', before)
    req.db.transact(write)


ACTION = '/groups/{group_id}/action'


@routes.post(ACTION, action='delete', rule='group:delete', default=common.PROJECT_MEMBER, since='3.13', load=load, status=202,
             body=schema.wrap('delete', schema.obj({'delete-volumes': common.BOOLEAN})), summary='Delete a group')
def delete(req, group_id):
    with_volumes = bool(common.truth(req.body['delete'].get('delete-volumes', False), 'delete-volumes'))

    def write(connection):
        row = store.need(connection, groups, group_id)
        if row['status'] not in (states.AVAILABLE, states.ERROR, states.ERROR_DELETING):
            raise errors.BadRequest(f"Invalid group: It must be available or error, but it is {row['status']}.",
                                    kind='InvalidGroup')
        if connection.scalar(sa.select(group_snapshots.c.id).where(group_snapshots.c.group_id == group_id).limit(1)) is not None:
            raise errors.BadRequest('Invalid group: It has group snapshots. Delete them first.', kind='InvalidGroup')
        members = sagas.members(connection, group_id)
        if members and not with_volumes:
            raise errors.BadRequest('Invalid group: It has volumes. Take them out, or delete it with delete-volumes.',
                                    kind='InvalidGroup')
        for volume in members:
            if volume['status'] not in states.DELETABLE or store.attachments_of(connection, volume['id']):
                raise errors.BadRequest(f"Invalid group: Its volume {volume['id']} is in use.", kind='InvalidGroup')
            if connection.scalar(sa.select(snapshots.c.id).where(snapshots.c.volume_id == volume['id']).limit(1)) is not None:
                raise errors.BadRequest(f"Invalid group: Its volume {volume['id']} has snapshots.", kind='InvalidGroup')
        sagas.begin_delete(connection, row, req.ctx)
    req.db.transact(write)


def _reset(table, table_id, allowed, kinds):
    def write(req):
        status = req.body['reset_status']['status']
        if status not in allowed:
            raise errors.BadRequest(f"Invalid input for field/attribute status: '{status}' is not one of {', '.join(allowed)}.")
        req.db.transact(lambda connection: notices.reset(
            connection, kinds, table_id, req.body['reset_status'],
            lambda: store.save(connection, table, store.need(connection, table, table_id), told=False, status=status)))
    return write


STATUS = schema.wrap('reset_status', schema.obj({'status': {'type': 'string', 'minLength': 1, 'maxLength': 32}}, ['status']))
STATUSES = ('available', 'creating', 'deleting', 'error', 'error_deleting', 'in-use', 'updating')


@routes.post(ACTION, action='reset_status', rule='group:reset_status', default=common.ADMIN, since='3.20', load=load, status=202,
             body=STATUS, summary='Set the status of a group')
def reset(req, group_id):
    _reset(groups, group_id, STATUSES, 'groups')(req)


def _replication(name, **more):
    @routes.post(ACTION, action=name, rule=f'group:{name}', default=common.PROJECT_MEMBER, since='3.38', load=load, status=202,
                 body=schema.wrap(name, schema.obj(more)), summary=f'{name.replace("_", " ").capitalize()}: no group here has one')
    def refuse(req, group_id):
        raise errors.BadRequest(f'Invalid group type: The group type of group {group_id} is not one of replication groups.',
                                kind='InvalidGroupType')


_replication('enable_replication')
_replication('disable_replication')
_replication('failover_replication', allow_attached_volume=common.BOOLEAN, secondary_backend_id=schema.nullable(schema.TEXT))
_replication('list_replication_targets')


# Group snapshots

s = group_snapshots.c
SNAPSHOT_FILTERS = common.with_like({'name': s.name, 'status': s.status, 'group_id': s.group_id, 'id': s.id})
SNAPSHOT_LISTING = Listing(s.id, {name: s[name] for name in ('id', 'name', 'created_at', 'status')}, [('created_at', 'desc')],
                           SNAPSHOT_FILTERS)
SNAPSHOT_LIST = schema.obj({'group_snapshots': schema.array(common.OBJECT), 'group_snapshots_links': common.LINKS,
                            'count': schema.INTEGER}, ['group_snapshots'])
load_snapshot = common.loader(group_snapshots, 'group_snapshot_id')


def _full_snapshot(req, row):
    found = {'id': row['id'], 'group_id': row['group_id'], 'group_type_id': row['group_type_id'], 'status': row['status'],
             'created_at': row['created_at'], 'name': row['name'], 'description': row['description']}
    if req.at_least(3, 58) and req.ctx.is_admin:
        found['project_id'] = row['project_id']
    return found


def _list_snapshots(req, render):
    common.check_filters(req, SNAPSHOT_FILTERS, dict.fromkeys(SNAPSHOT_FILTERS, (3, 29)))
    visible = common.scope(req, group_snapshots)
    with req.db.read() as connection:
        return common.page(req, SNAPSHOT_LISTING, connection, sa.select(group_snapshots).where(visible), 'group_snapshots', render,
                           visible, group_snapshots)


@routes.get('/group_snapshots', rule='group:get_all_group_snapshots', default=common.READER, since='3.14',
            query=common.parameters(SNAPSHOT_LISTING), response=SNAPSHOT_LIST, summary='List group snapshots')
def snapshots_index(req):
    return _list_snapshots(req, lambda row: {'id': row.id, 'name': row.name, 'group_type_id': row.group_type_id})


@routes.get('/group_snapshots/detail', rule='group:get_all_group_snapshots', default=common.READER, since='3.14',
            query=common.parameters(SNAPSHOT_LISTING), response=SNAPSHOT_LIST, summary='List group snapshots with details')
def snapshots_detail(req):
    return _list_snapshots(req, lambda row: _full_snapshot(req, row._mapping))


@routes.get('/group_snapshots/{group_snapshot_id}', rule='group:get_group_snapshot', default=common.PROJECT_READER, since='3.14',
            load=load_snapshot, response=schema.wrap('group_snapshot', common.OBJECT), summary='Show a group snapshot')
def snapshot_show(req, group_snapshot_id):
    return {'group_snapshot': _full_snapshot(req, req.target)}


@routes.post('/group_snapshots', rule='group:create_group_snapshot', default=common.MEMBER, since='3.14', status=202,
             body=schema.wrap('group_snapshot',
                              schema.obj({'group_id': schema.UUID, 'name': common.NAME, 'description': common.NAME},
                                                           ['group_id'])),
             response=schema.wrap('group_snapshot', common.OBJECT), summary='Make a snapshot of all volumes of a group')
def snapshot_create(req):
    sent = req.body['group_snapshot']

    def write(connection):
        group = _mine(connection, req, groups, sent['group_id'])
        members = sagas.members(connection, group['id'])
        if not members:
            raise errors.BadRequest('Invalid group: It has no volume to make a snapshot of.', kind='InvalidGroup')
        row = store.insert(connection, group_snapshots, {
            'group_id': group['id'], 'project_id': group['project_id'], 'user_id': req.ctx.user_id, **_names(sent),
            'status': states.CREATING, 'group_type_id': group['group_type_id']})
        for member in members:
            of_snapshots.check_volume(member, True)
            of_snapshots.insert(connection, req, member, {
                **_names(sent), 'metadata': {}, 'group_snapshot_id': row['id']})
        saga.start(connection, snapshot_sagas.CREATE_ALL, row['id'], {}, req.ctx)
        return row
    row = req.db.transact(write)
    return {'group_snapshot': {'id': row['id'], 'name': row['name'], 'group_type_id': row['group_type_id']}}


@routes.delete('/group_snapshots/{group_snapshot_id}', rule='group:delete_group_snapshot', default=common.PROJECT_MEMBER,
               since='3.14',
               load=load_snapshot, status=202, summary='Delete a group snapshot')
def snapshot_delete(req, group_snapshot_id):
    def write(connection):
        row = store.need(connection, group_snapshots, group_snapshot_id)
        if row['status'] not in (states.AVAILABLE, states.ERROR, states.ERROR_DELETING):
            raise errors.BadRequest(f"Invalid GroupSnapshot: It must be available or error, but it is {row['status']}.")
        store.save(connection, group_snapshots, row, status=states.DELETING)
        for one in _snapshots_of(connection, group_snapshot_id):
            store.save(connection, snapshots, one, status=states.DELETING)
        saga.start(connection, snapshot_sagas.DELETE_ALL, group_snapshot_id, {}, req.ctx)
    req.db.transact(write)


@routes.post('/group_snapshots/{group_snapshot_id}/action', action='reset_status', rule='group:reset_group_snapshot_status',
             default=common.ADMIN, since='3.19', load=load_snapshot, status=202, body=STATUS,
             summary='Set the status of a group snapshot')
def snapshot_reset(req, group_snapshot_id):
    _reset(group_snapshots, group_snapshot_id, STATUSES, 'groupsnapshots')(req)
