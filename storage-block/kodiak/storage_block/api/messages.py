"""Messages to users, keys for services, and the names of filters."""
import base64

import sqlalchemy as sa

from kodiak.common import api
from kodiak.common.api import Listing, schema
from kodiak.storage_block import keys, messages, store
from kodiak.storage_block.models import messages as rows

from . import common

routes = api.Routes('messages')
m = rows.c


def _event(text):
    kind, _, rest = text.removeprefix('VOLUME_').rpartition('_')
    kind, _, action = kind.rpartition('_')
    return sa.and_(m.resource_type == kind, m.action_id == action, m.detail_id == rest)


FILTERS = {'resource_uuid': m.resource_uuid, 'resource_type': m.resource_type, 'request_id': m.request_id,
           'message_level': m.message_level, 'event_id': lambda values: sa.or_(*map(_event, values))}
FILTERS = common.with_like(FILTERS)
LISTING = Listing(m.id, {name: m[name] for name in (
    'id', 'created_at', 'message_level', 'request_id', 'resource_type', 'resource_uuid')}
                  | {'event_id': m.action_id, 'guaranteed_until': m.expires_at}, [('created_at', 'desc')], FILTERS)
load = common.loader(rows, 'message_id')


def _shown(req, row):
    found = {'id': row['id'], 'event_id': messages.event_id(row), 'user_message': row['text'],
             'message_level': row['message_level'],
             'created_at': row['created_at'], 'guaranteed_until': row['expires_at'], 'request_id': row['request_id'] or '',
             'links': common.links(req, 'messages/' + row['id'])}
    if row['resource_type']:
        found['resource_type'] = row['resource_type']
    if row['resource_uuid']:
        found['resource_uuid'] = row['resource_uuid']
    return found


@routes.get('/messages', rule='message:get_all', default=common.READER, since='3.3', query=common.parameters(LISTING),
            response=schema.obj({'messages': schema.array(common.OBJECT), 'messages_links': common.LINKS, 'count': schema.INTEGER},
                                ['messages']), summary='List messages')
def index(req):
    common.check_filters(req, FILTERS, dict.fromkeys(FILTERS, (3, 5)))
    visible = common.scope(req, rows)
    with req.db.read() as connection:
        return common.page(req, LISTING, connection, sa.select(rows).where(visible), 'messages',
                           lambda row: _shown(req, row._mapping), visible, rows)


@routes.get('/messages/{message_id}', rule='message:get', default=common.PROJECT_READER, since='3.3', load=load,
            response=schema.wrap('message', common.OBJECT), summary='Show a message')
def show(req, message_id):
    return {'message': _shown(req, req.target)}


@routes.delete('/messages/{message_id}', rule='message:delete', default=common.PROJECT_MEMBER, since='3.3', load=load,
               summary='Delete a message')
def delete(req, message_id):
    req.db.transact(store.delete, rows, message_id)


@routes.get('/kodiak/keys/{key_id}', rule='storage-block:keys:get', default='role:service', response=schema.wrap(
    'key', common.OBJECT), summary='Show the passphrase of an encrypted volume to a service of this cloud', late=True)
def key(req, key_id):
    if not common.is_service(req):
        req.authorize()
    with req.db.read() as connection:
        return {'key': {'id': key_id, 'passphrase': base64.b64encode(
            keys.passphrase(connection, req.app.conf, key_id)).decode()}}


RESOURCES = {'volume': ('name', 'status', 'metadata', 'bootable', 'migration_status', 'availability_zone', 'group_id', 'size',
                        'created_at', 'updated_at', 'consumes_quota'),
             'backup': ('name', 'status', 'volume_id'),
             'snapshot': ('name', 'status', 'volume_id', 'metadata', 'availability_zone', 'consumes_quota'),
             'group': ('name', 'status'), 'group_snapshot': ('name', 'status', 'group_id'),
             'attachment': ('volume_id', 'status', 'instance_id', 'attach_status'),
             'message': ('resource_uuid', 'resource_type', 'event_id', 'request_id', 'message_level'),
             'pool': ('name', 'volume_type'), 'volume_type': ('is_public', 'extra_specs')}


@routes.get('/resource_filters', rule='volume:get_resource_filters', default=common.READER, since='3.33', query={
    'resource': schema.STRING}, response=schema.wrap('resource_filters', schema.array(common.OBJECT)),
    summary='List what lists can be filtered by')
def resource_filters(req):
    wanted = req.query.get('resource')
    return {'resource_filters': [{'resource': name, 'filters': list(filters)} for name, filters in RESOURCES.items()
                                 if wanted in (None, name)]}
