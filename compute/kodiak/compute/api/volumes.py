"""The volumes of a server: attached, shown, changed, detached."""
import time

from kodiak.common import api, errors, policy, saga
from kodiak.common.api import schema
from kodiak.common.db import new_id
from kodiak.compute import devices, record, store, volumes
from kodiak.compute.api import common
from kodiak.compute.sagas import swap as swapping
from kodiak.compute.sagas import volumes as work

routes = api.Routes('volumes of servers')
MEMBER, READER = policy.PROJECT_MEMBER, policy.PROJECT_READER
PATH = '/servers/{server_id}/os-volume_attachments'
ONE = PATH + '/{volume_id}'
RULE = 'os_compute_api:os-volumes-attachments:'
ATTACHMENT = schema.wrap('volumeAttachment', schema.obj({
    'id': schema.STRING, 'volumeId': schema.STRING, 'serverId': schema.STRING, 'device': schema.nullable(schema.STRING),
    'tag': schema.nullable(schema.STRING), 'delete_on_termination': {'type': 'boolean'},
    'attachment_id': schema.nullable(schema.STRING), 'bdm_uuid': schema.STRING}, ['volumeId', 'serverId', 'device']))
DEVICE = {'type': ['string', 'null'], 'pattern': '(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$'}
TAG = {'type': 'string', 'minLength': 1, 'maxLength': 60, 'pattern': '^[^,/]*$'}
EXTRA_RULES = [(RULE + 'swap', policy.ADMIN, 'Replace a volume of a server by another')]
MOST = 26


def _view(req, row, entry):
    found = {'volumeId': entry['id'], 'serverId': row['uuid'], 'device': entry['device']}
    if req.at_least(2, 70):
        found['tag'] = entry.get('tag')
    if req.at_least(2, 79):
        found['delete_on_termination'] = bool(entry['delete_on_termination'])
    if req.at_least(2, 89):
        held = entry['attachments'].get(row['host'] or '') or next(iter(entry['attachments'].values()), {})
        found.update(attachment_id=held.get('id'), bdm_uuid=entry['bdm'])
    else:
        found['id'] = entry['id']
    return found


def _entry(row, volume_id):
    entry = volumes.find(row, volume_id)
    if entry is None:
        raise errors.NotFound(f'Instance {row["uuid"]} is not attached to volume {volume_id}')
    return entry


@routes.get(PATH, rule=RULE + 'index', default=READER, load=common.load_server, query={
    'limit': schema.STRING, 'offset': schema.STRING},
            response=schema.wrap('volumeAttachments', schema.array(ATTACHMENT['properties']['volumeAttachment'])),
            summary='List the volumes of a server')
def index(req, server_id):
    found = [_view(req, req.target, entry) for entry in req.target['volumes'] if entry['id']]
    offset = schema.integer(req.query.get('offset', 0), 'offset', 0)
    limit = schema.integer(req.query.get('limit', common.MAX_PAGE), 'limit', 0)
    return {'volumeAttachments': found[offset:offset + limit]}


@routes.get(ONE, rule=RULE + 'show', default=READER, load=common.load_server, response=ATTACHMENT,
            summary='Show a volume of a server')
def show(req, server_id, volume_id):
    return {'volumeAttachment': _view(req, req.target, _entry(req.target, volume_id))}


def _volume(req, volume_id):
    try:
        return volumes.Block(req.app.clients, req.ctx).volume(volume_id)
    except errors.NotFound:
        raise common.not_found('Volume', volume_id) from None


def _device(row, spec, wish):
    """The name that a volume gets: the one that was wished for, if it is free; ``BadRequest``, ``Conflict`` or ``Forbidden``."""
    properties = row['image']['properties'] if row['image'] else spec.get('hardware')
    bus = devices.bus_of(properties)
    taken = {devices.strip(entry['device']) for entry in row['volumes']}
    booted = {devices.strip(entry['device']) for entry in row['volumes'] if volumes.is_root(entry)}
    taken |= devices.own(row['flavor'], spec.get('ephemerals'), row['image'], properties, booted)
    wish = devices.strip(wish)
    if wish and wish[2:] in {name[2:] for name in taken}:
        raise errors.Conflict(f'The supplied device path (/dev/{wish}) is in use.')
    name = devices.free(devices.PREFIXES[bus], taken, wish)
    if name is None or len(row['volumes']) >= MOST:
        raise errors.Forbidden(f'The maximum allowed number of disk devices ({MOST}) to attach to a single instance has been '
                               'exceeded.')
    return '/dev/' + name


@routes.post(PATH, rule=RULE + 'create', default=MEMBER, load=common.load_server, response=ATTACHMENT,
             body=schema.wrap('volumeAttachment', schema.obj({
                 'volumeId': schema.UUID, 'device': DEVICE, 'tag': TAG, 'delete_on_termination': common.BOOL}, ['volumeId'])),
             summary='Attach a volume to a server')
def attach(req, server_id):
    sent = req.body['volumeAttachment']
    common.only(req, sent, since={'tag': (2, 49), 'delete_on_termination': (2, 79)})
    common.check(req, req.target, 'attach_volume', host=False)
    if not req.target['host'] and not req.at_least(2, 20):
        raise errors.Conflict(f"Cannot 'attach_volume' instance {server_id} while it is in vm_state {req.target['vm_state']}")
    if not req.target['host'] and sent.get('tag'):
        raise errors.BadRequest('Attaching volumes with device tags is not supported for a server that is shelved and offloaded.')
    volume = _volume(req, sent['volumeId'])
    if volumes.find(req.target, volume['id']) is not None:
        raise errors.BadRequest(f'Invalid volume: volume {volume["id"]} already attached')
    volumes.check_free(volume)
    if volume.get('multiattach') and not req.at_least(2, 60):
        raise errors.BadRequest('Multiattach volumes are only supported starting with compute API version 2.60.')
    entry = {'id': volume['id'], 'bdm': new_id(), 'boot_index': None, 'size': volume['size'], 'bus': None, 'device_type': 'disk',
             'tag': sent.get('tag'), 'multiattach': bool(volume.get('multiattach')), 'attachments': {}, 'pending': True,
             'delete_on_termination': sent.get('delete_on_termination') in common.TRUE}

    def begin(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, 'attach_volume', host=False)
        if volumes.find(row, volume['id']) is not None:
            raise errors.BadRequest(f'Invalid volume: volume {volume["id"]} already attached')
        entry['device'] = _device(row, store.spec(connection, server_id), sent.get('device'))
        record.begin(connection, server_id, 'attach_volume', req.ctx, event='compute_attach_volume', host=row['host'])
        saga.start(connection, work.ATTACH, server_id, {'volume': volume['id'], 'until': time.time() + work.GRACE}, req.ctx)
        return store.save(connection, row, volumes=[*row['volumes'], entry])
    req.db.transact(begin)
    # From here on the saga answers for it: should this process die, what it reserved is given back.
    row = reserve(req, server_id, volume['id'])
    return {'volumeAttachment': _view(req, row, _entry(row, volume['id']))}


def reserve(req, server_id, volume_id):
    """Reserve a volume for a server in its owner's name, and tell the saga; where that fails the entry goes, and the saga ends."""
    return _reserve(req, server_id, volume_id, lambda row: volumes.without(row['volumes'], volume_id),
                    lambda row, attachment: volumes.changed(row['volumes'], volume_id, attachments={'': {'id': attachment}}))


def _reserve(req, server_id, volume_id, without, told):
    """:param without: ``without(row)`` gives the entries where that fails, ``told(row, attachment)`` where it does not."""
    try:
        attachment = volumes.Block(req.app.clients, req.ctx).reserve(volume_id, server_id)
    except errors.Error as error:
        def forget(connection):
            row = store.lock(connection, server_id)
            if row is not None:
                store.save(connection, row, volumes=without(row))
            saga.nudge(connection, server_id)
        req.db.transact(forget)
        raise errors.BadRequest(f'Invalid volume: {error.message}') if error.code in (400, 409) else error from None

    def tell(connection):
        row = common.locked(connection, server_id)
        row = store.save(connection, row, volumes=told(row, attachment))
        saga.nudge(connection, server_id)
        return row
    return req.db.transact(tell)


def _swap(req, server_id, entry, sent):
    """Replace a volume of a server that runs by another one, with what is on it."""
    req.authorize(req.target, RULE + 'swap')
    common.check(req, req.target, 'swap_volume')
    new, old = _volume(req, sent['volumeId']), _volume(req, entry['id'])
    if volumes.find(req.target, new['id']) is not None:
        raise errors.BadRequest(f'Invalid volume: volume {new["id"]} already attached')
    volumes.check_free(new)
    if new['size'] < old['size']:
        raise errors.BadRequest(f'Invalid volume: the old volume has {old["size"]} GiB, and the new one has {new["size"]} GiB.')
    if len(old.get('attachments') or ()) > 1 or new.get('multiattach'):
        raise errors.BadRequest('A volume that several servers can have cannot be replaced.')

    def changed(row, value):
        return volumes.changed(row['volumes'], entry['id'], swap=value)

    def begin(connection):
        row = common.locked(connection, server_id)
        common.check(req, row, 'swap_volume')
        _entry(row, entry['id'])
        if work.is_busy(connection, server_id, entry['id']) or work.is_busy(connection, server_id, new['id']):
            raise errors.BadRequest(f'Invalid volume: Volume {entry["id"]} is being changed already.')
        record.begin(connection, server_id, 'swap_volume', req.ctx, event='compute_swap_volume', host=row['host'])
        saga.start(connection, swapping.SWAP, server_id, {'volume': entry['id'], 'new': new['id'],
                                                          'until': time.time() + work.GRACE}, req.ctx)
        store.save(connection, row, volumes=changed(row, {'id': new['id'], 'attachment': None, 'connection': None,
                                                          'size': new['size'], 'to': ''}))
    req.db.transact(begin)
    _reserve(req, server_id, new['id'], lambda row: changed(row, None),
             lambda row, attachment: changed(row, {'id': new['id'], 'attachment': attachment, 'connection': None,
                                                   'size': new['size'], 'to': ''}))


@routes.put(ONE, rule=RULE + 'update', default=MEMBER, load=common.load_server, status=202,
            body=schema.wrap('volumeAttachment', schema.obj({
                'volumeId': schema.UUID, 'id': schema.UUID, 'serverId': schema.UUID, 'device': DEVICE, 'tag': TAG,
                'delete_on_termination': common.BOOL}, ['volumeId'])), summary='Change an attached volume, or replace it')
def update(req, server_id, volume_id):
    sent = req.body['volumeAttachment']
    common.only(req, sent, since=dict.fromkeys(('id', 'serverId', 'device', 'tag', 'delete_on_termination'), (2, 85)))
    entry = _entry(req.target, volume_id)
    if sent['volumeId'] != volume_id:
        _swap(req, server_id, entry, sent)
        return
    for field, now in (('id', volume_id), ('serverId', server_id), ('device', entry['device']), ('tag', entry.get('tag'))):
        if field in sent and sent[field] != now:
            raise errors.BadRequest(f"The {field} property of a volume attachment cannot be changed from '{now}'.")
    if 'delete_on_termination' not in sent:
        return

    def write(connection):
        row = common.locked(connection, server_id)
        _entry(row, volume_id)
        store.save(connection, row, volumes=volumes.changed(
            row['volumes'], volume_id, delete_on_termination=sent['delete_on_termination'] in common.TRUE))
    req.db.transact(write)


@routes.delete(ONE, rule=RULE + 'delete', default=MEMBER, load=common.load_server, status=202,
               summary='Detach a volume from a server')
def detach(req, server_id, volume_id):
    def check(connection, row):
        common.check(req, row, 'detach_volume', host=False)
        entry = _entry(row, volume_id)
        if volumes.is_root(entry):
            raise errors.Forbidden('Cannot detach a root device volume')
        if not row['host'] and not req.at_least(2, 20):
            raise errors.Conflict(f"Cannot 'detach_volume' instance {server_id} while it is in vm_state {row['vm_state']}")
        if work.is_busy(connection, server_id, volume_id):
            raise errors.BadRequest(f'Invalid volume: Volume {volume_id} is being attached or detached already.')

    def begin(connection):
        row = common.locked(connection, server_id)
        check(connection, row)
        record.begin(connection, server_id, 'detach_volume', req.ctx, event='compute_detach_volume', host=row['host'])
        store.save(connection, row, volumes=volumes.changed(row['volumes'], volume_id, leaving='asked'))
        saga.start(connection, work.DETACH, server_id, {'volume': volume_id, 'until': time.time() + work.GRACE}, req.ctx)
    req.db.transact(begin)
    # From here on the saga answers for it: should this process die, the volume stays in use. Whoever waits for the volume sees at
    # once that it is being detached.
    leave(req, server_id, volume_id)


def leave(req, server_id, volume_id):
    """Have block storage know that a volume is being detached, and tell the saga whether it is."""
    def tell(connection, word):
        row = store.lock(connection, server_id)
        if row is not None:
            store.save(connection, row, volumes=volumes.changed(row['volumes'], volume_id, leaving=word))
        saga.nudge(connection, server_id)
    try:
        if req.target['host']:
            _tell(volumes.Block(req.app.clients, req.ctx), volume_id, 'os-begin_detaching')
    except errors.Error:
        req.db.transact(tell, 'refused')
        raise
    req.db.transact(tell, 'told')


def _tell(block, volume_id, action):
    try:
        block.action(volume_id, action)
    except errors.NotFound:
        return      # what is gone can still be detached
    except (errors.BadRequest, errors.Conflict) as error:
        raise errors.BadRequest(f'Invalid volume: {error.message}') from None
