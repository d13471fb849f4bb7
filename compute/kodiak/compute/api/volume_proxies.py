"""Volumes and snapshots of the block storage service, as this API once had them (until 2.35)."""
from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.compute import volumes
from kodiak.compute.api import common

routes = api.Routes('volume proxies')
LAST = '2.35'
RULE = 'os_compute_api:os-volumes:'
#: The last version of block storage in which ``force`` says whether a volume in use may be snapshot, as it does here.
FORCE = {'OpenStack-API-Version': 'volume 3.65'}
TEXT = schema.nullable(schema.STRING)
QUERY = {'limit': schema.STRING, 'offset': schema.STRING}
SIZE = {'type': ['integer', 'string'], 'pattern': '^[0-9]+$', 'minimum': 1}


def _block(req):
    return volumes.Block(req.app.clients, req.ctx)


def _page(req, found):
    offset = schema.integer(req.query.get('offset', 0), 'offset', 0)
    limit = schema.integer(req.query.get('limit', common.MAX_PAGE), 'limit', 0)
    return found[offset:offset + limit]


def _volume(volume):
    attachments = [{'id': volume['id'], 'volumeId': volume['id'], 'serverId': held['server_id'], 'device': held.get('device')}
                   for held in volume.get('attachments') or ()]
    return {'id': volume['id'], 'status': volume['status'], 'size': volume['size'], 'displayName': volume.get('name'),
            'displayDescription': volume.get('description'), 'availabilityZone': volume.get('availability_zone'),
            'createdAt': volume.get('created_at'), 'volumeType': volume.get('volume_type'),
            'snapshotId': volume.get('snapshot_id'), 'metadata': volume.get('metadata') or {}, 'attachments': attachments or [{}]}


def _snapshot(snapshot):
    return {'id': snapshot['id'], 'status': snapshot['status'], 'size': snapshot['size'], 'volumeId': snapshot['volume_id'],
            'createdAt': snapshot.get('created_at'), 'displayName': snapshot.get('name'),
            'displayDescription': snapshot.get('description')}


def _one(req, kind, found_id):
    try:
        return _block(req).get(f'/{kind}s/{found_id}')[kind]
    except errors.NotFound:
        raise common.not_found(kind.capitalize(), found_id) from None


def _remove(req, kind, found_id):
    _one(req, kind, found_id)
    _block(req).delete(f'/{kind}s/{found_id}')


def _refused(error):
    """A fault of block storage as this API called it."""
    return errors.Forbidden(error.message) if error.code == 413 else error


@routes.get('/os-volumes', rule=RULE + 'list', default=policy.READER, until=LAST, query=QUERY, summary='List volumes')
def index(req):
    return {'volumes': _page(req, [_volume(volume) for volume in _block(req).get('/volumes/detail')['volumes']])}


@routes.get('/os-volumes/detail', rule=RULE + 'detail', default=policy.READER, until=LAST, query=QUERY,
            summary='List volumes with details')
def detail(req):
    return index(req)


@routes.get('/os-volumes/{volume_id}', rule=RULE + 'show', default=policy.READER, until=LAST, summary='Show a volume')
def show(req, volume_id):
    return {'volume': _volume(_one(req, 'volume', volume_id))}


@routes.post('/os-volumes', rule=RULE + 'create', default=policy.MEMBER, until=LAST, body=schema.wrap('volume', schema.obj({
    'display_name': TEXT, 'display_description': TEXT, 'volume_type': TEXT, 'metadata': {'type': ['object', 'null']},
    'snapshot_id': TEXT, 'size': SIZE, 'availability_zone': TEXT}, ['size'], extra=True)), summary='Make a volume')
def create(req):
    sent = req.body['volume']
    body = {'size': schema.integer(sent['size'], 'size', 1, 2 ** 31 - 1),
            'name': sent.get('display_name'), 'description': sent.get('display_description')}
    body.update({name: sent[name] for name in ('volume_type', 'metadata', 'snapshot_id', 'availability_zone') if sent.get(name)})
    try:
        return {'volume': _volume(_block(req).post('/volumes', {'volume': body})['volume'])}
    except errors.Error as error:
        raise _refused(error) from None


@routes.delete('/os-volumes/{volume_id}', rule=RULE + 'delete', default=policy.MEMBER, until=LAST, status=202,
               summary='Delete a volume')
def delete(req, volume_id):
    _remove(req, 'volume', volume_id)


@routes.get('/os-snapshots', rule=RULE + 'snapshots:list', default=policy.READER, until=LAST, query=QUERY,
            summary='List snapshots of volumes')
def snapshots(req):
    return {'snapshots': _page(req, [_snapshot(found) for found in _block(req).get('/snapshots/detail')['snapshots']])}


@routes.get('/os-snapshots/detail', rule=RULE + 'snapshots:detail', default=policy.READER, until=LAST, query=QUERY,
            summary='List snapshots of volumes with details')
def snapshots_detail(req):
    return snapshots(req)


@routes.get('/os-snapshots/{snapshot_id}', rule=RULE + 'snapshots:show', default=policy.READER, until=LAST,
            summary='Show a snapshot of a volume')
def snapshot_show(req, snapshot_id):
    return {'snapshot': _snapshot(_one(req, 'snapshot', snapshot_id))}


@routes.post('/os-snapshots', rule=RULE + 'snapshots:create', default=policy.MEMBER, until=LAST,
             body=schema.wrap('snapshot', schema.obj({'volume_id': schema.STRING, 'force': common.BOOL, 'display_name': TEXT,
                                                      'display_description': TEXT}, ['volume_id'], extra=True)),
             summary='Make a snapshot of a volume')
def snapshot_create(req):
    sent = req.body['snapshot']
    body = {'volume_id': sent['volume_id'], 'force': sent.get('force') in common.TRUE, 'name': sent.get('display_name'),
            'description': sent.get('display_description')}
    try:
        return {'snapshot': _snapshot(_block(req).post('/snapshots', {'snapshot': body}, headers=FORCE)['snapshot'])}
    except errors.Error as error:
        raise _refused(error) from None


@routes.delete('/os-snapshots/{snapshot_id}', rule=RULE + 'snapshots:delete', default=policy.MEMBER, until=LAST, status=202,
               summary='Delete a snapshot of a volume')
def snapshot_delete(req, snapshot_id):
    _remove(req, 'snapshot', snapshot_id)
