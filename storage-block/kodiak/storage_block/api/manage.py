"""Volumes and snapshots that lie on a back end: taken on, let go; and volumes that are moved or given another type."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, saga
from kodiak.common.api import schema
from kodiak.storage_block import quotas, rpc, scheduler, states, store, types, work
from kodiak.storage_block.models import backends, snapshots, volumes
from kodiak.storage_block.sagas import manage as sagas
from kodiak.storage_block.sagas import moves
from kodiak.storage_block.sagas import snapshots as snapshot_sagas

from . import actions, common, volume_view
from . import snapshots as of_snapshots

routes = api.Routes('manageable volumes')
REF = {'type': ['object', 'string'], 'minProperties': 1}
FIELDS = {'name': common.NAME, 'description': common.NAME, 'metadata': common.NULL_METADATA, 'ref': REF}


def _backend(connection, shown):
    """The row of a back end that a request names, with or without its pool."""
    row = db.one(connection, sa.select(backends).where(backends.c.name == shown.partition('#')[0]))
    if row is None:
        raise errors.BadRequest(f'Invalid input: There is no back end {shown}.', kind='ServiceUnavailable')
    return row


def _serving(connection, conf, shown):
    """As :func:`_backend`, of one that can be asked now. :raises BadRequest: it is disabled, or its agent does not answer."""
    row = _backend(connection, shown)
    pool = scheduler.pools(connection, conf)[row['name']]
    if not pool.up or pool.disabled:
        raise errors.BadRequest(f"Invalid input: The back end {shown} {'is disabled' if pool.up else 'does not answer'}.",
                                kind='ServiceUnavailable')
    return row


def _reference(sent):
    if not isinstance(sent, dict) or not ({'source-name', 'source-id'} & set(sent)):
        raise errors.BadRequest("Invalid input for field/attribute ref: it must be an object with a 'source-name'.")
    return {key: str(value) for key, value in sent.items()}


@routes.post('/os-volume-manage', rule='volume_extension:volume_manage', default=common.ADMIN, status=202, body=schema.wrap(
    'volume', schema.obj({**FIELDS, 'host': schema.TEXT, 'cluster': schema.TEXT, 'volume_type': schema.TEXT,
                          'availability_zone': schema.TEXT, 'bootable': schema.nullable(common.BOOLEAN)}, ['ref'], extra=True)),
    response=schema.wrap('volume', common.OBJECT), summary='Take on a volume that lies on a back end')
def manage(req):
    _manage(req)
    return {'volume': volume_view.renderer(req, made=True)(req.row)}


@routes.post('/manageable_volumes', rule='volume_extension:volume_manage', default=common.ADMIN, since='3.8', status=202,
             body=schema.wrap('volume', schema.obj({**FIELDS, 'host': schema.TEXT}, ['ref'], extra=True)),
             response=schema.wrap('volume', common.OBJECT), summary='Take on a volume that lies on a back end')
def manage_new(req):
    return manage(req)


def _manage(req):
    sent = req.body['volume']
    if not sent.get('host'):
        raise errors.BadRequest("Invalid input for field/attribute volume: 'host' is a required property")
    reference = _reference(sent['ref'])

    def write(connection):
        backend = _serving(connection, req.app.conf, sent['host'])
        if sent.get('volume_type'):
            kind = types.find(connection, req.ctx, sent['volume_type'])
        else:
            kind = types.default(connection, req.app.conf, req.ctx.project_id)
        if not scheduler.fits(kind['extra_specs'], scheduler.pools(connection, req.app.conf)[backend['name']].capabilities()):
            raise errors.BadRequest(f"Invalid input: Volume type {kind['name']} does not fit the back end {sent['host']}.")
        if types.encryption_of(connection, kind['id']):
            raise errors.BadRequest('Invalid input: A volume of an encrypted type cannot be taken on: its key is not known here.')
        quotas.claim(connection, req.app.conf, req.ctx.project_id, {'volumes': 1}, kind['name'])
        row = store.insert_volume(connection, {
            'project_id': req.ctx.project_id, 'user_id': req.ctx.user_id, 'name': sent.get('name'),
            'description': sent.get('description'), 'size': 0, 'status': states.MANAGING, 'volume_type_id': kind['id'],
            'availability_zone': backend['zone'], 'backend': backend['name'], 'multiattach': types.multiattach(kind),
            'bootable': bool(common.truth(sent.get('bootable'), 'bootable')), 'metadata': sent.get('metadata') or {}})
        saga.start(connection, sagas.MANAGE, row['id'], {'reference': reference}, req.ctx)
        return volume_view.get(connection, row['id'])
    req.row = req.db.transact(write)


def _manageable(req, kind):
    """What lies on the back end that the query names: a question that only its agent can answer; and what is managed already."""
    host = req.query.get('host')
    if not host:
        raise errors.BadRequest('Invalid input: host: name the back end, as in host@backend#pool.')
    table = {'volumes': volumes, 'snapshots': snapshots}[kind]
    with req.db.read() as connection:
        backend = _serving(connection, req.app.conf, host)
        managed = db.all_dicts(connection, sa.select(table).where(table.c.backend == backend['name']))
    found = req.app.bus.client(rpc.AGENT, rpc.AGENT_TOPIC).call(
        'list_manageable', req.ctx, server=backend['host'], backend=work.short(backend['name']), kind=kind)
    shown = [{'reference': one['reference'], 'size': one['size'], 'safe_to_manage': True, 'reason_not_safe': None,
              'cinder_id': None, 'source_reference': one.get('origin')} for one in found]
    for row in managed:
        shown.append({'reference': {'source-name': f'{kind[:-1]}-{row["id"]}'}, 'size': row['size'], 'safe_to_manage': False,
                      'reason_not_safe': 'already managed', 'cinder_id': row['id'],
                      'source_reference': {'source-name': f'volume-{row["volume_id"]}'} if kind == 'snapshots' else None})
    for key, direction in reversed(_sorts(req.query.get('sort') or 'reference')):
        shown.sort(key=lambda one, key=key: str(one[key]) if key == 'reference' else one[key], reverse=direction == 'desc')
    offset, limit = req.query.get('offset', 0), req.query.get('limit', 1000)
    return shown[offset:offset + limit]


def _sorts(text):
    found = [(key.strip(), direction.strip() or 'asc') for key, _, direction in (one.partition(':') for one in text.split(','))]
    for key, direction in found:
        if key not in ('reference', 'size') or direction not in ('asc', 'desc'):
            raise errors.BadRequest(f'Invalid input: sort: {key}:{direction}; a list is sorted by reference or size, asc or desc.')
    return found


def _list(path, kind, since, full):
    key = f'manageable-{kind}'
    hidden = ([] if kind == 'snapshots' else ['source_reference']) + ([] if full else ['reason_not_safe', 'cinder_id'])

    @routes.get(path, rule=f'volume_extension:list_manageable_{kind}', default=common.ADMIN, since=since, query={
        'host': schema.STRING, 'limit': {'type': 'integer', 'minimum': 0}, 'offset': {'type': 'integer', 'minimum': 0},
        'marker': schema.STRING, 'sort': schema.STRING, 'cluster': schema.STRING},
        response=schema.wrap(key, schema.array(common.OBJECT)),
        summary=f'List {kind} on a back end, those that could be taken on and those that are{" with details" if full else ""}')
    def index(req):
        more = {'extra_info': None} if full else {}
        return {key: [{**{name: value for name, value in one.items() if name not in hidden}, **more}
                      for one in _manageable(req, kind)]}


for _kind, _old, _new in (('volumes', '/os-volume-manage', '/manageable_volumes'),
                          ('snapshots', '/os-snapshot-manage', '/manageable_snapshots')):
    for _path, _since in ((_old, None), (_new, '3.8')):
        _list(_path, _kind, _since, False)
        _list(_path + '/detail', _kind, _since, True)


@actions.declare('os-unmanage', 'volume_extension:volume_unmanage', 'Let go of a volume: its data stays', default=common.ADMIN)
def unmanage(req, volume_id):
    def write(connection, row):
        actions.need_status(row, states.AVAILABLE, states.ERROR)
        if row['encrypted']:
            raise actions.invalid('Unmanaging encrypted volumes is not supported.')
        if connection.scalar(sa.select(snapshots.c.id).where(snapshots.c.volume_id == volume_id).limit(1)) is not None:
            raise errors.Conflict('Invalid volume: The volume has snapshots. Let go of them first, or delete them.')
        store.save(connection, volumes, row, status=states.UNMANAGING, previous_status=row['status'])
        saga.start(connection, sagas.UNMANAGE, row['id'], {}, req.ctx)
    actions.change(req, write)


# Snapshots

def _manage_snapshot(path, since=None):
    @routes.post(path, rule='snapshot_extension:snapshot_manage', default=common.ADMIN, since=since, status=202, body=schema.wrap(
        'snapshot', schema.obj({**FIELDS, 'volume_id': schema.UUID}, ['ref', 'volume_id'], extra=True)), response=schema.wrap(
            'snapshot', common.OBJECT), summary='Take on a snapshot that lies on a back end')
    def manage_snapshot(req):
        sent = req.body['snapshot']
        reference = _reference(sent['ref'])

        def write(connection):
            volume = store.need(connection, volumes, sent['volume_id'])
            if volume['backend'] is None:
                raise errors.BadRequest(f"Invalid volume: Volume {volume['id']} has no data yet.", kind='InvalidVolume')
            _serving(connection, req.app.conf, volume['backend'])
            row = of_snapshots.insert(connection, req, volume, {
                'name': sent.get('name'), 'description': sent.get('description'), 'metadata': sent.get('metadata') or {}},
                status=states.MANAGING)
            saga.start(connection, snapshot_sagas.MANAGE, row['id'], {'reference': reference}, req.ctx)
            return row
        return {'snapshot': of_snapshots.renderer(req)(of_snapshots.Row(req.db.transact(write)))}


_manage_snapshot('/os-snapshot-manage')
_manage_snapshot('/manageable_snapshots', '3.8')


@routes.post('/snapshots/{snapshot_id}/action', action='os-unmanage', rule='snapshot_extension:snapshot_unmanage',
             default=common.ADMIN, load=of_snapshots.load, status=202, summary='Let go of a snapshot: its data stays')
def unmanage_snapshot(req, snapshot_id):
    def write(connection):
        row = store.need(connection, snapshots, snapshot_id)
        if row['status'] not in (states.AVAILABLE, states.ERROR):
            raise errors.BadRequest(f"Invalid snapshot: It must be available or error, but it is {row['status']}.")
        store.save(connection, snapshots, row, status=states.UNMANAGING)
        saga.start(connection, snapshot_sagas.UNMANAGE, snapshot_id, {}, req.ctx)
    req.db.transact(write)


# Another type, another back end

def _refuse_moving(connection, row, conf):
    if row['migration_status'] in ('starting', 'migrating'):
        raise actions.invalid('The volume is being migrated already.')
    if row['group_id']:
        raise actions.invalid('The volume belongs to a group.')
    if connection.scalar(sa.select(snapshots.c.id).where(snapshots.c.volume_id == row['id']).limit(1)) is not None:
        raise actions.invalid('The volume has snapshots. Delete them first.')
    if row['status'] == states.IN_USE and not (conf.storage_block.notify_compute and not row['multiattach'] and moves.attached_once(
            store.attachments_of(connection, row['id']))):
        raise actions.invalid('An attached volume is moved while one server alone has it, by compute, to read and write. Detach it '
                              'first.')


@actions.declare('os-retype', 'volume:retype', 'Give a volume another type', schema.obj({
    'new_type': schema.NAME, 'migration_policy': {'enum': ['never', 'on-demand', None]}}, ['new_type']))
def retype(req, volume_id):
    sent = req.body['os-retype']
    policy = sent.get('migration_policy') or 'never'

    def write(connection, row):
        actions.need_status(row, states.AVAILABLE, states.IN_USE)
        kind = types.find(connection, req.ctx, sent['new_type'])
        if kind['id'] == row['volume_type_id']:
            raise errors.BadRequest(f'Invalid volume type: The volume has the type {kind["name"]} already.',
                                    kind='InvalidVolumeType')
        other = types.encryption_of(connection, kind['id'])
        there = row['encryption'] and {name: row['encryption'][name] for name in ('provider', 'cipher', 'key_size')}
        if row['status'] == states.IN_USE and (other != there or types.multiattach(kind) != row['multiattach']):
            raise actions.invalid('An attached volume cannot get a type that is encrypted or attached otherwise. Detach it first.')
        if row['status'] == states.IN_USE and types.qos_of(connection, kind) != types.qos_of(connection, types.get(
                connection, row['volume_type_id'])):
            raise actions.invalid('An attached volume cannot get a type whose QoS specs the hypervisor keeps otherwise. Detach it '
                                  'first.')
        if policy == 'on-demand':
            req.authorize(req.target, 'volume:retype_migrate')
            _refuse_moving(connection, row, req.app.conf)
        elif other != there:
            _refuse_moving(connection, row, req.app.conf)
        quotas.claim(connection, req.app.conf, row['project_id'], {
            f'volumes_{kind["name"]}': 1, f'gigabytes_{kind["name"]}': row['size']}, extra_types=[kind['name']])
        moves.begin_retype(connection, row, kind, policy, req.ctx)
    actions.change(req, write)


@actions.declare('os-migrate_volume', 'volume_extension:volume_admin_actions:migrate_volume', 'Move a volume to another back end',
                 schema.obj({'host': schema.TEXT, 'force_host_copy': common.BOOLEAN, 'lock_volume': common.BOOLEAN,
                             'cluster': schema.TEXT}), default=common.ADMIN)
def migrate(req, volume_id):
    sent = req.body['os-migrate_volume']
    if not sent.get('host'):
        raise errors.BadRequest("Invalid input for field/attribute os-migrate_volume: 'host' is a required property")
    force = bool(common.truth(sent.get('force_host_copy', False), 'force_host_copy'))

    def write(connection, row):
        backend = _backend(connection, sent['host'])
        actions.need_status(row, states.AVAILABLE, states.IN_USE)
        _refuse_moving(connection, row, req.app.conf)
        if backend['name'] == row['backend']:
            raise errors.BadRequest('Invalid host: The volume is there already.', kind='InvalidHost')
        if not scheduler.is_up(connection, req.app.conf, backend['name']):
            raise errors.BadRequest(f"Invalid host: The back end {sent['host']} does not answer.", kind='InvalidHost')
        moves.begin_migrate(connection, row, backend['name'], force, req.ctx)
    actions.change(req, write)


@actions.declare('os-migrate_volume_completion', 'volume_extension:volume_admin_actions:migrate_volume_completion',
                 'Tell that a server has another volume in place of this one', schema.obj({
                     'new_volume': schema.UUID, 'error': common.BOOLEAN}, ['new_volume']), default=common.SERVICE, status=200,
                 response=schema.obj({'save_volume_id': schema.STRING}))
def migrate_completion(req, volume_id):
    # Volumes are moved by their agents, not by servers: the two are volumes of their own, and both stay.
    with req.db.read() as connection:
        new = store.get(connection, volumes, req.body['os-migrate_volume_completion']['new_volume'])
    if new is None or not common.may_see(req, new):
        raise store.not_found(volumes, req.body['os-migrate_volume_completion']['new_volume'])
    return {'save_volume_id': new['id']}


@actions.declare('os-extend_volume_completion', 'volume:extend_volume_completion',
                 'Tell that compute has extended the data of a volume',
                 schema.obj({'error': common.BOOLEAN}), default=common.SERVICE, since='3.71')
def extend_completion(req, volume_id):
    # Every back end extends its volumes itself.
    raise actions.invalid(f'Volume {volume_id} does not wait for compute to extend it.')


EXTRA_RULES = [('volume:retype_migrate', common.PROJECT_MEMBER, 'Have a volume moved to another back end by giving it a type')]
