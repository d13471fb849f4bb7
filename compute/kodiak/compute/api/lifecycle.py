"""Actions that change what a server is: rebuild, resize, move, image, shelve, rescue, delete for good or restore."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, heartbeat, policy, saga
from kodiak.common.api import schema
from kodiak.compute import birth, guests, limits, moves, record, states, store, volume_image, volumes
from kodiak.compute.api import common, servers
from kodiak.compute.api.actions import PATH, apply, empty
from kodiak.compute.api.create import PERSONALITY, address, check_hostname, check_metadata, files, known_zones, password
from kodiak.compute.keys import decoded
from kodiak.compute.models import hosts, keypairs, services
from kodiak.compute.sagas import delete as deletion
from kodiak.compute.sagas import move, snapshot
from kodiak.compute.sagas import rebuild as rebuild_saga
from kodiak.compute.scheduler import BINARY

routes = api.Routes('server life cycle')
MEMBER = policy.PROJECT_MEMBER
DISK_CONFIG = {'type': 'string', 'enum': ['AUTO', 'MANUAL']}
PASSWORD = {'type': 'string'}


def started(req, server_id, action, function, named=None, event=None):
    """Check an action, note it, and let ``function(connection, locked row)`` start it."""
    def write(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, action, host=action not in ('unshelve', 'restore'))
        record.begin(connection, server_id, named or action, req.ctx, event=event, host=row['host'])
        return function(connection, row)
    return req.db.transact(write)


# Rebuild

REBUILD = schema.wrap('rebuild', schema.obj({
    'imageRef': schema.STRING, 'name': schema.NAME, 'adminPass': PASSWORD, 'metadata': common.METADATA,
    'preserve_ephemeral': common.BOOL,
    'OS-DCF:diskConfig': DISK_CONFIG, 'accessIPv4': schema.STRING, 'accessIPv6': schema.STRING, 'personality': PERSONALITY,
    'description': {'type': ['string', 'null'], 'maxLength': 255}, 'key_name': schema.nullable(schema.NAME),
    'user_data': {'type': ['string', 'null'], 'maxLength': 65535}, 'trusted_image_certificates': {'type': ['array', 'null']},
    'hostname': {'type': 'string', 'minLength': 2, 'maxLength': 255, 'pattern': '^[a-zA-Z0-9][a-zA-Z0-9-._]*$'}}, ['imageRef']))


@routes.post(PATH, action='rebuild', rule='os_compute_api:servers:rebuild', default=MEMBER, load=common.load_server, status=202,
             body=REBUILD, summary='Build the guest anew from an image')
def rebuild(req, server_id):
    sent = req.body['rebuild']
    common.only(req, sent, since={'description': (2, 19), 'key_name': (2, 54), 'user_data': (2, 57), 'hostname': (2, 90),
                                  'trusted_image_certificates': (2, 63)}, until={'personality': (2, 56)})
    common.check(req, req.target, 'rebuild')
    image_id = sent['imageRef'].rstrip('/').split('/')[-1]
    if not common.is_uuid(image_id):
        raise errors.BadRequest('Invalid imageRef provided.')
    volume_backed = req.target['image_ref'] is None
    image = birth.image(req.app.clients, image_id, req.ctx)
    if volume_backed:
        changes = {}
        _check_root(req, server_id, image)
    else:
        birth.check_fits(req.target['flavor'], image)
        changes = {'image_ref': image_id, 'image': image}
    if 'hostname' in sent:
        check_hostname(req, sent['hostname'])
    for field, column in (('description', 'description'), ('OS-DCF:diskConfig', 'disk_config'), ('hostname', 'hostname')):
        if field in sent:
            changes[column] = sent[field]
    if 'name' in sent:
        changes['name'] = common.text(sent['name'], 'name')
    if 'metadata' in sent:
        changes['metadata'] = check_metadata(req, sent['metadata'])
    for field, column, version in (('accessIPv4', 'access_ip_v4', 4), ('accessIPv6', 'access_ip_v6', 6)):
        if field in sent:
            changes[column] = address(sent[field], field, version)
    if 'user_data' in sent:
        if sent['user_data']:
            decoded(sent['user_data'].replace('\n', ''), 'user_data')
        changes['user_data'] = sent['user_data']
    more = {'files': files(req, sent.get('personality') or []), 'admin_password': sent.get('adminPass') or password()}

    def write(connection, row):
        if 'key_name' in sent:
            changes.update(key_name=sent['key_name'])
            more.update(_key(connection, sent['key_name'], row['user_id']))
        stopped = row['vm_state'] == states.STOPPED
        store.save_spec(connection, server_id, {**store.spec(connection, server_id), **more})
        if volume_backed and req.at_least(2, 93):
            return rebuild_saga.begin(connection, row, req.ctx, image, changes)
        guests.change(connection, req.app.bus, server_id, row['host'], desired='stopped' if stopped else 'running',
                      operation='rebuild', args={'preserve_ephemeral': sent.get('preserve_ephemeral') in common.TRUE},
                      request_id=req.ctx.request_id, rescue=None)
        return store.save(connection, row, task_state='rebuilding', fault=None, progress=0, **changes)
    row = started(req, server_id, 'rebuild', write, event='compute_rebuild_instance')
    req.headers.append(('Location', f'{req.base_url}{req.api.prefix}/servers/{server_id}'))
    if not req.at_least(2, 75):
        shown = {**servers.short(req, row), 'adminPass': more['admin_password']}
        shown.update({'key_name': row['key_name']} if req.at_least(2, 54) else {})
        shown.update({'user_data': row['user_data']} if req.at_least(2, 57) else {})
        return {'server': shown}
    text = ',"adminPass":' + db.orjson.dumps(more['admin_password']).decode()
    text += ',"user_data":' + db.orjson.dumps(row['user_data']).decode()
    answer = servers.json(servers.one(req, row, text, user_data=False))
    answer.status = 202
    return answer


def _check_root(req, server_id, image):
    """``BadRequest`` where the volume that a server boots from cannot be made anew from an image."""
    with req.db.read() as connection:
        was = (store.spec(connection, server_id).get('hardware') or {}).get('image_id')
    if not req.at_least(2, 93) and was != image['id']:
        raise errors.BadRequest('Unable to rebuild with a different image for a volume-backed server.')
    root = next(entry for entry in req.target['volumes'] if volumes.is_root(entry))
    if image['min_disk'] > root['size']:
        raise errors.BadRequest(f'Volume is smaller than the minimum size specified in image metadata: it has {root["size"]} GiB, '
                                f'and the image needs {image["min_disk"]} GiB.')
    if image['min_ram'] > req.target['flavor']['ram']:
        raise errors.BadRequest("Flavor's memory is too small for requested image.")


def _key(connection, name, user_id):
    if name is None:
        return {'public_key': None, 'key_type': 'ssh'}
    row = db.one(connection, sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name))
    if row is None:
        raise errors.BadRequest('Invalid key_name provided.')
    return {'public_key': row['public_key'], 'key_type': row['type']}


# Resize

@routes.post(PATH, action='resize', rule='os_compute_api:servers:resize', default=MEMBER, load=common.load_server, status=202,
             body=schema.wrap('resize', schema.obj({'flavorRef': {'type': ['string', 'integer'], 'minLength': 1},
                                                    'OS-DCF:diskConfig': DISK_CONFIG}, ['flavorRef'])), summary='Resize a server')
def resize(req, server_id):
    sent = req.body['resize']
    with req.db.read() as connection:
        try:
            flavor = common.embedded(common.find_flavor(connection, str(sent['flavorRef']).rstrip('/').split('/')[-1], req.ctx))
        except errors.NotFound as error:
            raise errors.BadRequest(error.message) from None
    old = req.target['flavor']
    common.check(req, req.target, 'resize')
    if flavor['id'] == old['id']:
        raise errors.BadRequest('When resizing, instances must change flavor!')
    if flavor['root'] == 0 and old['root'] != 0 and req.target['image_ref']:
        raise errors.BadRequest('Resize to zero disk flavor is not allowed.')
    if flavor['root'] < old['root'] and req.target['image_ref']:
        raise errors.BadRequest(f"Flavor's disk is too small: {flavor['root']} GB, while the server has {old['root']} GB.")

    def write(connection, row):
        _claim_quota(connection, req, row, flavor)
        move.begin(connection, row, req.ctx, 'resize', flavor,
                   **({'disk_config': sent['OS-DCF:diskConfig']} if 'OS-DCF:diskConfig' in sent else {}))
    started(req, server_id, 'resize', write, event='compute_prep_resize')


def _claim_quota(connection, req, row, flavor):
    each = {'cores': flavor['vcpus'] - row['vcpus'], 'ram': flavor['ram'] - row['ram']}
    limits.fitting(connection, req.app.conf, row['project_id'], row['user_id'], each, 1, 1)


def _over(name, rule, action, made, task, event, status, summary):
    @routes.post(PATH, action=name, rule=rule, default=MEMBER, load=common.load_server, status=status, body=empty(name),
                 summary=summary)
    def handler(req, server_id):
        def write(connection, row):
            found = moves.unfinished(connection, server_id)
            if found is None:
                raise errors.BadRequest('Instance has not been resized.')
            store.save(connection, row, task_state=task)
            saga.start(connection, made, server_id, {'move': found['uuid']}, req.ctx)
        started(req, server_id, action, write, named=name, event=event)
    return handler


_over('confirmResize', 'os_compute_api:servers:confirm_resize', 'confirm_resize', move.CONFIRM, 'resize_confirming',
      'compute_confirm_resize', 204, 'Confirm a resize or a cold migration')
_over('revertResize', 'os_compute_api:servers:revert_resize', 'revert_resize', move.REVERT, 'resize_reverting',
      'compute_revert_resize', 202, 'Go back to what was before a resize or a cold migration')


# Moves by operators

@routes.post(PATH, action='migrate', rule='os_compute_api:os-migrate-server:migrate', default=policy.ADMIN, load=common.load_server,
             status=202, body=schema.obj({'migrate': schema.nullable(schema.obj({'host': schema.nullable(schema.NAME)}))},
                                         ['migrate']),
             summary='Move a server to another host, with a stop')
def migrate(req, server_id):
    host = (req.body['migrate'] or {}).get('host')
    if req.body['migrate'] and not req.at_least(2, 56):
        raise errors.BadRequest("Additional properties are not allowed ('host' was unexpected)")
    started(req, server_id, 'migrate', lambda connection, row: (
        _check_host(connection, host, row), move.begin(connection, row, req.ctx, 'migration', forced=host)),
            event='cold_migrate')


def _check_host(connection, host, row):
    if host is None:
        return
    if host == row['host']:
        raise errors.BadRequest(f'Cannot migrate to the host where the server exists: {host}')
    if connection.scalar(sa.select(hosts.c.id).where(hosts.c.host == host)) is None:
        raise errors.BadRequest(f'Compute host {host} could not be found.')


@routes.post(PATH, action='os-migrateLive', rule='os_compute_api:os-migrate-server:migrate_live', default=policy.ADMIN,
             load=common.load_server, status=202, body=schema.wrap('os-migrateLive', schema.obj({
                 'host': schema.nullable(schema.NAME), 'block_migration': {'type': ['boolean', 'string']},
                 'disk_over_commit': {'type': ['boolean', 'string']}, 'force': common.BOOL})), summary='Move a running server')
def migrate_live(req, server_id):
    common.check(req, req.target, 'live-migration')
    with req.db.read() as connection:
        _check_host(connection, req.body['os-migrateLive'].get('host'), req.target)
    raise errors.BadRequest('The hypervisors of this cloud cannot move a guest while it runs: use migrate, which stops it.')


@routes.post(PATH, action='evacuate', rule='os_compute_api:os-evacuate', default=policy.ADMIN, load=common.load_server, status=200,
             body=schema.wrap('evacuate', schema.obj({'host': schema.NAME, 'adminPass': PASSWORD, 'onSharedStorage': common.BOOL,
                                                      'force': common.BOOL})), summary='Build a server anew whose host is dead')
def evacuate(req, server_id):
    sent = req.body['evacuate']
    common.only(req, sent, since={'force': (2, 29)}, until={'onSharedStorage': (2, 13), 'force': (2, 67)})
    admin_password = sent.get('adminPass') or password()

    def write(connection, row):
        source = db.one(connection, sa.select(services).where(services.c.host == row['host'], services.c.binary == BINARY))
        if source is not None and heartbeat.is_up(source):
            raise errors.BadRequest(f'Compute service of {row["host"]} is still in use.')
        _check_host(connection, sent.get('host'), row)
        store.save_spec(connection, server_id, {**store.spec(connection, server_id), 'admin_password': admin_password})
        found = moves.begin(connection, row, req.ctx, 'evacuation')
        store.save(connection, row, task_state='rebuild_spawning')
        # Since 2.95 it stays off at its new host, until its owner has looked at its disks.
        saga.start(connection, move.EVACUATE, server_id, {
            'move': found['uuid'], 'forced': sent.get('host'), 'off': req.at_least(2, 95)}, req.ctx)
    started(req, server_id, 'evacuate', write, event='rebuild_server')
    return None if req.at_least(2, 14) else {'adminPass': admin_password}


# Images

def _image(req, row, name, kind, metadata):
    """A queued image of a server, in its owner's name."""
    own = row['image'] or {}
    properties = {key: value for key, value in (own.get('properties') or {}).items() if not key.startswith('os_glance')}
    properties.update({'image_type': kind, 'instance_uuid': row['uuid'], 'base_image_ref': row['image_ref'] or '',
                       'user_id': req.ctx.user_id, **metadata})
    made = req.app.clients.image.post('/v2/images', {
        **{key: str(value) for key, value in properties.items()}, 'name': name, 'visibility': 'private', 'container_format': 'bare',
        'disk_format': 'qcow2', 'min_ram': own.get('min_ram') or 0,
        'min_disk': max(own.get('min_disk') or 0, row['flavor']['root'])}, context=req.ctx)
    return made['id']


def _answer(req, image_id):
    req.headers.append(('Location', f'{req.base_url}/images/{image_id}'))
    return api.Response({'image_id': image_id} if req.at_least(2, 45) else None, status=202)


@routes.post(PATH, action='createImage', rule='os_compute_api:servers:create_image', default=MEMBER, load=common.load_server,
             status=202, body=schema.wrap('createImage', schema.obj({'name': schema.NAME, 'metadata': common.METADATA}, ['name'])),
             summary='Make an image of a server')
def create_image(req, server_id):
    sent = req.body['createImage']
    common.check(req, req.target, 'snapshot')
    metadata = check_metadata(req, sent.get('metadata') or {})
    if req.target['image_ref'] is None:
        return _volume_image(req, server_id, common.text(sent['name'], 'name'), metadata)
    image_id = _image(req, req.target, common.text(sent['name'], 'name'), 'snapshot', metadata)
    _start_image(req, server_id, 'snapshot', 'image_snapshot', {'image_id': image_id}, 'createImage')
    return _answer(req, image_id)


def _volume_image(req, server_id, name, metadata):
    """An image of a server that boots from a volume holds no data: it names snapshots of all its volumes."""
    def check(connection, row):
        return store.spec(connection, server_id).get('hardware') or {}
    hardware = started(req, server_id, 'snapshot', check, named='createImage', event='compute_createImage')
    problem = None
    try:
        image_id = volume_image.make(req.app.clients, req.ctx, req.target, hardware, name, metadata)
    except errors.Error as error:
        problem = error.message
        raise
    finally:
        req.db.transact(record.finish, server_id, problem, req.target['host'])
    return _answer(req, image_id)


def _start_image(req, server_id, action, task, data, named, made=snapshot.SNAPSHOT):
    def write(connection, row):
        store.save(connection, row, task_state=task)
        saga.start(connection, made, server_id, data, req.ctx)
    try:
        started(req, server_id, action, write, named=named, event='compute_' + named)
    except errors.Error:
        if data['image_id'] is not None:
            req.app.clients.image.delete('/v2/images/' + data['image_id'], context=req.ctx)
        raise


@routes.post(PATH, action='createBackup', rule='os_compute_api:os-create-backup', default=MEMBER, load=common.load_server,
             status=202,
             body=schema.wrap('createBackup', schema.obj({
                 'name': schema.NAME, 'backup_type': schema.STRING, 'rotation': {
                     'type': ['integer', 'string'], 'pattern': '^[0-9]+$', 'minimum': 0}, 'metadata': common.METADATA},
                 ['name', 'backup_type', 'rotation'])), summary='Make an image of a server and delete older ones of its kind')
def create_backup(req, server_id):
    sent = req.body['createBackup']
    common.check(req, req.target, 'backup')
    if req.target['image_ref'] is None:
        raise errors.BadRequest('It is not supported to backup volume backed instance.')
    metadata = check_metadata(req, sent.get('metadata') or {})
    image_id = _image(req, req.target, common.text(sent['name'], 'name'), 'backup', {**metadata,
                                                                                     'backup_type': sent['backup_type']})
    _start_image(req, server_id, 'backup', 'image_backup', {
        'image_id': image_id, 'backup_type': sent['backup_type'], 'rotation': int(sent['rotation'])}, 'createBackup')
    return _answer(req, image_id)


# Shelving

@routes.post(PATH, action='shelve', rule='os_compute_api:os-shelve:shelve', default=MEMBER, load=common.load_server, status=202,
             body=empty('shelve'), summary='Make an image of a server and free its host')
def shelve(req, server_id):
    common.check(req, req.target, 'shelve')
    with req.db.read() as connection:
        guest = guests.get(connection, server_id, req.target['host'])
    image_id = None
    if req.target['image_ref'] is not None:
        image_id = _image(req, req.target, f'{req.target["name"]}-shelved'[:255], 'snapshot', {})
    _start_image(req, server_id, 'shelve', 'shelving', {
        'image_id': image_id, 'was': guest['desired'] if guest else 'running'}, 'shelve', snapshot.SHELVE)


@routes.post(PATH, action='shelveOffload', rule='os_compute_api:os-shelve:shelve_offload', default=policy.ADMIN,
             load=common.load_server, status=202, body=empty('shelveOffload'), summary='Free the host of a shelved server')
def shelve_offload(req, server_id):
    def write(connection, row):
        store.save(connection, row, task_state='shelving_offloading')
        saga.start(connection, snapshot.OFFLOAD, server_id, {}, req.ctx)
    started(req, server_id, 'shelve_offload', write, named='shelveOffload', event='compute_shelve_offload_instance')


@routes.post(PATH, action='unshelve', rule='os_compute_api:os-shelve:unshelve', default=MEMBER, load=common.load_server, status=202,
             body=schema.obj({'unshelve': schema.nullable(schema.obj({
                 'availability_zone': schema.nullable(schema.NAME), 'host': schema.NAME}))}, ['unshelve']),
             summary='Bring a shelved server back')
def unshelve(req, server_id):
    sent = req.body['unshelve'] or {}
    common.only(req, sent, since={'availability_zone': (2, 77), 'host': (2, 91)})
    if 'host' in sent:
        req.authorize(rule='os_compute_api:os-shelve:unshelve_to_host')

    def write(connection, row):
        if sent and row['vm_state'] != states.OFFLOADED:
            raise errors.Conflict('A zone or host can only be chosen for a server that is shelved and offloaded.')
        changes = {}
        if 'availability_zone' in sent:
            zone = sent['availability_zone']
            if zone and zone not in known_zones(req, connection):
                raise errors.BadRequest('The requested availability zone is not available')
            changes['pinned_zone'] = zone
        if 'host' in sent and connection.scalar(sa.select(hosts.c.id).where(hosts.c.host == sent['host'])) is None:
            raise errors.BadRequest(f'Compute host {sent["host"]} could not be found.')
        store.save(connection, row, task_state='unshelving', **changes)
        made = snapshot.UNSHELVE if row['vm_state'] == states.OFFLOADED else snapshot.UNSHELVE_HERE
        saga.start(connection, made, server_id, {'forced': sent.get('host')}, req.ctx)
    started(req, server_id, 'unshelve', write, event='unshelve_instance')


# Rescue

@routes.post(PATH, action='rescue', rule='os_compute_api:os-rescue', default=MEMBER, load=common.load_server,
             body=schema.obj({'rescue': schema.nullable(schema.obj({'adminPass': PASSWORD, 'rescue_image_ref': schema.STRING}))},
                             ['rescue']),
             response=schema.wrap('adminPass', schema.STRING), summary='Start a server from a rescue image')
def rescue(req, server_id):
    sent = req.body['rescue'] or {}
    common.check(req, req.target, 'rescue')
    image = req.target['image']
    if sent.get('rescue_image_ref'):
        image_id = sent['rescue_image_ref'].rstrip('/').split('/')[-1]
        if not common.is_uuid(image_id):
            raise errors.BadRequest('Invalid rescue_image_ref provided.')
        image = birth.image(req.app.clients, image_id, req.ctx)
    if req.target['image_ref'] is None and (image is None or not req.at_least(2, 87)):
        raise errors.BadRequest('Cannot rescue a volume-backed instance' + (
            ' without a rescue image.' if req.at_least(2, 87) else ' before microversion 2.87.'))
    apply(req, server_id, 'rescue', 'rescuing', desired='running', event='compute_rescue_instance', rescue=image)
    return {'adminPass': sent.get('adminPass') or password()}


@routes.post(PATH, action='unrescue', rule='os_compute_api:os-unrescue', default=MEMBER, load=common.load_server, status=202,
             body=empty('unrescue'), summary='Start a server from its own disk again')
def unrescue(req, server_id):
    apply(req, server_id, 'unrescue', 'unrescuing', desired='running', event='compute_unrescue_instance', rescue=None)


# The guest's inside

@routes.post(PATH, action='changePassword', rule='os_compute_api:os-admin-password', default=MEMBER, load=common.load_server,
             status=202,
             body=schema.wrap('changePassword', schema.obj({'adminPass': PASSWORD}, ['adminPass'])),
             summary="Change the administrator's password")
def change_password(req, server_id):
    apply(req, server_id, 'set_admin_password', 'updating_password', operation='set_password', named='changePassword',
          args={'user': 'root', 'password': req.body['changePassword']['adminPass']}, event='compute_set_admin_password')


@routes.post(PATH, action='trigger_crash_dump', rule='compute:servers:trigger_crash_dump', default=MEMBER, load=common.load_server,
             since='2.17', status=202, body=empty('trigger_crash_dump'), summary='Have the guest write a crash dump')
def crash_dump(req, server_id):
    apply(req, server_id, 'trigger_crash_dump', None, operation='nmi', event='compute_trigger_crash_dump')


@routes.post(PATH, action='resetNetwork', rule='os_compute_api:os-admin-actions:reset_network', default=policy.ADMIN,
             load=common.load_server, status=202, body=empty('resetNetwork'), summary='Plug the NICs of a server anew')
def reset_network(req, server_id):
    apply(req, server_id, 'reset_network', None, operation='reset_network', named='resetNetwork')


@routes.post(PATH, action='injectNetworkInfo', rule='os_compute_api:os-admin-actions:inject_network_info', default=policy.ADMIN,
             load=common.load_server, status=202, body=empty('injectNetworkInfo'),
             summary='Tell the host of the NICs of a server again')
def inject_network_info(req, server_id):
    apply(req, server_id, 'inject_network_info', None, named='injectNetworkInfo')


# Deleting for good, or not

@routes.post(PATH, action='forceDelete', rule='os_compute_api:os-deferred-delete:force', default=MEMBER, load=common.load_server,
             status=202, body=empty('forceDelete'), summary='Delete a server at once')
def force_delete(req, server_id):
    def write(connection):
        common.check(req, common.locked(connection, server_id), 'force_delete', host=False)
        deletion.begin(connection, server_id, req.ctx, action='forceDelete')
    req.db.transact(write)


@routes.post(PATH, action='restore', rule='os_compute_api:os-deferred-delete:restore', default=MEMBER, load=common.load_server,
             status=202, body=empty('restore'), summary='Restore a server that was deleted and is still kept')
def restore(req, server_id):
    def write(connection, row):
        each = {'instances': 1, 'cores': row['vcpus'], 'ram': row['ram']}
        limits.fitting(connection, req.app.conf, row['project_id'], row['user_id'], each, 1, 1)
        guests.change(connection, req.app.bus, server_id, row['host'], desired='running')
        store.save(connection, row, task_state='restoring', deleted_at=None, terminated_at=None)
    started(req, server_id, 'restore', write, event='compute_restore_instance')


EXTRA_RULES = [('os_compute_api:os-shelve:unshelve_to_host', policy.ADMIN, 'Choose the host of a server that is unshelved')]
