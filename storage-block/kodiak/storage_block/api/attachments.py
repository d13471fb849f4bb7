"""Attachments: how compute reserves a volume for a server, learns how to reach it, and gives it back (3.27 on)."""
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common.api import Listing, schema
from kodiak.storage_block import attach, store
from kodiak.storage_block.models import attachments, volumes

from . import common

routes = api.Routes('attachments')
SINCE = '3.27'
a = attachments.c
FILTERS = {'volume_id': a.volume_id, 'instance_id': a.instance_uuid, 'instance_uuid': a.instance_uuid,
           'attach_status': a.attach_status, 'status': a.attach_status, 'attached_host': a.attached_host, 'id': a.id}
FILTERS = common.with_like(FILTERS)
LISTING = Listing(a.id, {name: a[name] for name in ('id', 'created_at', 'volume_id', 'attach_status')} | {
    'instance_id': a.instance_uuid}, [('created_at', 'desc')], FILTERS)
ATTACHMENT = schema.wrap('attachment', common.OBJECT)
LIST = schema.obj({'attachments': schema.array(common.OBJECT), 'attachments_links': common.LINKS, 'count': schema.INTEGER},
                  ['attachments'])
CONNECTOR = {'type': 'object', 'properties': {
    'host': schema.TEXT, 'ip': schema.TEXT, 'initiator': schema.TEXT, 'mountpoint': schema.TEXT, 'mode': schema.TEXT}}
load = common.loader(attachments, 'attachment_id')
ONE = {'rule': 'volume:attachment_update', 'default': common.PROJECT_MEMBER, 'load': load}


def _summary(row):
    return {'id': row['id'], 'status': row['attach_status'], 'instance': row['instance_uuid'], 'volume_id': row['volume_id']}


def shown(connection, req, volume, row):
    """An attachment with how it is reached; secrets are for services."""
    found = _summary(row)
    found['attach_mode'] = row['attach_mode']
    found['attached_at'] = row['attached_at']
    found['detached_at'] = None
    found['connection_info'] = flat(attach.connection_info(connection, volume, row, common.is_service(req)))
    return found


def flat(info):
    """How a volume is reached as attachments show it: everything side by side."""
    return {} if info is None else {'driver_volume_type': info['driver_volume_type'], **info['data']}


def refuse_behind_compute(req, row):
    """409 where somebody other than a service takes a volume away that a server reads and writes."""
    if row['instance_uuid'] and row['connector'] is not None and row['attach_status'] == 'attached' and not common.is_service(req):
        raise errors.Conflict(f"Detach the volume through compute: server {row['instance_uuid']} has it.",
                              kind='ConflictNovaUsingAttachment')


#: Of the volume, what is told of how it is reached.
OF_VOLUME = ('id', 'size', 'encrypted', 'volume_type_id')
FULL = sa.select(attachments, *(volumes.c[name].label('of_' + name) for name in OF_VOLUME)).join(
    volumes, volumes.c.id == a.volume_id)


def _list(req, full):
    common.check_filters(req, FILTERS, operators=('attached_host', 'attached_host~'))
    visible = common.scope(req, attachments)

    seen, secret = {}, common.is_service(req)
    with req.db.read() as connection:
        def render(row):
            found = _summary(row._mapping)
            if full:
                volume = {name: row._mapping['of_' + name] for name in OF_VOLUME}
                info = attach.connection_info(connection, volume, row._mapping, secret, seen)
                found.update(attach_mode=row.attach_mode, attached_at=row.attached_at, detached_at=None,
                             attached_host=row.attached_host, connection_info=flat(info))
            return found
        select = (FULL if full else sa.select(attachments)).where(visible)
        return common.page(req, LISTING, connection, select, 'attachments', render, visible, attachments)


@routes.get('/attachments', rule='volume:attachment_get_all', default=common.READER, since=SINCE,
            query=common.parameters(LISTING), response=LIST, summary='List attachments')
def index(req):
    return _list(req, False)


@routes.get('/attachments/detail', rule='volume:attachment_get_all', default=common.READER, since=SINCE,
            query=common.parameters(LISTING), response=LIST, summary='List attachments with details')
def detail(req):
    return _list(req, True)


@routes.get('/attachments/{attachment_id}', rule='volume:attachment_get', default=common.PROJECT_READER, since=SINCE, load=load,
            response=ATTACHMENT, summary='Show an attachment')
def show(req, attachment_id):
    with req.db.read() as connection:
        volume = store.get(connection, volumes, req.target['volume_id'])
        return {'attachment': shown(connection, req, volume, req.target)}


CREATE = schema.wrap('attachment', schema.obj({
    'volume_uuid': schema.UUID, 'instance_uuid': schema.nullable(schema.UUID), 'connector': schema.nullable(CONNECTOR),
    'mode': {'enum': ['rw', 'ro', None]}}, ['volume_uuid']))


@routes.post('/attachments', rule='volume:attachment_create', default=common.MEMBER, since=SINCE, body=CREATE, response=ATTACHMENT,
             summary='Reserve a volume for a server, or have it exported to a host at once')
def create(req):
    sent = req.body['attachment']
    if sent.get('mode') and not req.at_least(3, 54):
        raise errors.BadRequest("Additional properties are not allowed ('mode' was unexpected)")

    def write(connection):
        volume = store.lock(connection, volumes, sent['volume_uuid'])
        if volume is None or not common.may_see(req, volume):
            raise store.not_found(volumes, sent['volume_uuid'])
        row = attach.reserve(connection, volume, req.ctx, sent.get('instance_uuid'), sent.get('mode'))
        if sent.get('connector'):
            attach.export(connection, req.app.conf, volume, row, sent['connector'])
        return row
    row = req.db.transact(write)
    return _reached(req, row, sent.get('connector'))


def _reached(req, row, connector):
    if connector:
        row = attach.await_export(req.db, req.app.conf, row['id'], req.ctx)
    with req.db.read() as connection:
        volume = store.get(connection, volumes, row['volume_id'])
        return {'attachment': shown(connection, req, volume, row)}


@routes.put('/attachments/{attachment_id}', since=SINCE, response=ATTACHMENT, body=schema.wrap('attachment', schema.obj({
    'connector': {**CONNECTOR, 'minProperties': 1}}, ['connector'])),
    summary='Have the volume of an attachment exported to a host', **ONE)
def update(req, attachment_id):
    connector = req.body['attachment']['connector']

    def write(connection):
        volume, row = attach.lock_both(connection, attachment_id)
        if row['attach_status'] == 'detaching':
            raise errors.Conflict('The attachment is being removed.')
        instance = connector.get('instance')
        if instance and row['instance_uuid'] not in (None, instance):
            raise errors.BadRequest('Invalid input: The attachment is for another server.')
        return attach.export(connection, req.app.conf, volume, row, connector)
    return _reached(req, req.db.transact(write), connector)


@routes.post('/attachments/{attachment_id}/action', action='os-complete', since='3.44', status=204,
             body=schema.obj({'os-complete': {}}), summary='Tell that the server has the volume',
             rule='volume:attachment_complete', default=common.PROJECT_MEMBER, load=load)
def complete(req, attachment_id):
    def write(connection):
        volume, row = attach.lock_both(connection, attachment_id)
        # A server that is on no host now has it too: it comes to a host later.
        if row['attach_status'] not in ('reserved', 'attaching', 'attached'):
            raise errors.BadRequest(f"Invalid attachment: it must be reserved or attaching, but it is {row['attach_status']}.")
        attach.complete(connection, volume, row)
    req.db.transact(write)


@routes.delete('/attachments/{attachment_id}', rule='volume:attachment_delete', default=common.PROJECT_MEMBER, since=SINCE,
               load=load, status=200, response=schema.wrap('attachments', schema.array(common.OBJECT)),
               summary='Take the volume from the server, or give it up')
def delete(req, attachment_id):
    def write(connection):
        volume, row = attach.lock_both(connection, attachment_id)
        refuse_behind_compute(req, row)
        attach.remove(connection, volume, row)
        return [_summary(one) for one in store.attachments_of(connection, volume['id'])]
    return {'attachments': req.db.transact(write)}
