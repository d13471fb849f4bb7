"""Giving a volume to another project: offered with a key by one side, accepted with it by the other."""
import hashlib
import hmac
import secrets

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import Listing, schema
from kodiak.storage_block import notices, quotas, states, store, types
from kodiak.storage_block.models import snapshots, transfers, volumes

from . import common
from .actions import need_status

routes = api.Routes('transfers')
t = transfers.c
LISTING = Listing(t.id, {name: t[name] for name in ('id', 'name', 'created_at', 'volume_id')}, [('created_at', 'desc')],
                  {'name': t.name, 'volume_id': t.volume_id, 'id': t.id})
TRANSFER = schema.wrap('transfer', common.OBJECT)
LIST = schema.obj({'transfers': schema.array(common.OBJECT), 'transfers_links': common.LINKS, 'count': schema.INTEGER},
                  ['transfers'])
load = common.loader(transfers, 'transfer_id')


def _any(req, transfer_id, **more):
    """Whoever has its key may accept a transfer: it is found for every project."""
    with req.db.read() as connection:
        store.need(connection, transfers, transfer_id, locked=False)
    return {'project_id': req.ctx.project_id}


def _brief(req, row):
    return {'id': row['id'], 'name': row['name'], 'volume_id': row['volume_id'],
            'links': common.links(req, 'os-volume-transfer/' + row['id'])}


def _full(req, row):
    found = {**_brief(req, row), 'created_at': row['created_at']}
    if req.at_least(3, 55):
        found['no_snapshots'] = row['no_snapshots']
    if req.at_least(3, 57):
        found.update(source_project_id=row['project_id'], destination_project_id=row['destination_project_id'],
                     accepted=row['accepted'])
    return found


def _hash(salt, key):
    return hmac.new(salt.encode(), key.encode(), hashlib.sha256).hexdigest()


NAME = {'type': ['string', 'null'], 'maxLength': 255}
FIELDS = {'volume_id': schema.UUID, 'name': NAME}
ACCEPT = schema.wrap('accept', schema.obj({'auth_key': {'type': ['string', 'integer'], 'minLength': 1, 'maxLength': 255}}, [
    'auth_key']))


def _declare(path, since=None, **more):
    """The endpoints below a path: there are two, the newer says by a field of ``more`` whether snapshots go along."""
    body = schema.wrap('transfer', schema.obj({**FIELDS, **more}, ['volume_id']))

    def _list(req, render):
        visible = sa.and_(common.scope(req, transfers), t.accepted.is_(False))
        with req.db.read() as connection:
            return common.page(req, LISTING, connection, sa.select(transfers).where(visible), 'transfers',
                               lambda row: render(req, row._mapping), visible, transfers)

    @routes.get(path, rule='volume:get_all_transfers', default=common.READER, since=since, query=common.parameters(LISTING),
                response=LIST, summary='List transfers')
    def index(req):
        return _list(req, _brief)

    @routes.get(path + '/detail', rule='volume:get_all_transfers', default=common.READER, since=since,
                query=common.parameters(LISTING), response=LIST, summary='List transfers with details')
    def detail(req):
        return _list(req, _full)

    @routes.get(path + '/{transfer_id}', rule='volume:get_transfer', default=common.PROJECT_READER, since=since, load=load,
                response=TRANSFER, summary='Show a transfer')
    def show(req, transfer_id):
        return {'transfer': _full(req, req.target)}

    @routes.post(path, rule='volume:create_transfer', default=common.MEMBER, since=since, body=body, status=202,
                 response=TRANSFER, summary='Offer a volume to another project')
    def create(req):
        sent = req.body['transfer']
        key, salt = secrets.token_hex(8), secrets.token_hex(8)
        without = bool(common.truth(sent.get('no_snapshots', False), 'no_snapshots'))

        def write(connection):
            volume = store.lock(connection, volumes, sent['volume_id'])
            if volume is None or not common.may_see(req, volume):
                raise store.not_found(volumes, sent['volume_id'])
            need_status(volume, states.AVAILABLE)
            if volume['encrypted'] and not req.at_least(3, 70):
                raise errors.BadRequest('Invalid volume: Encrypted volumes are transferred from microversion 3.70 on.',
                                        kind='InvalidVolume')
            if volume['encrypted'] and without:
                raise errors.BadRequest('Invalid volume: An encrypted volume is transferred with its snapshots.',
                                        kind='InvalidVolume')
            busy = not without and connection.execute(sa.select(snapshots.c.id, snapshots.c.status).where(
                snapshots.c.volume_id == volume['id'], snapshots.c.status != states.AVAILABLE).limit(1)).first()
            if busy:
                raise errors.BadRequest(f'Invalid snapshot: Snapshot {busy.id} status must be available, but it is {busy.status}.',
                                        kind='InvalidSnapshot')
            if volume['group_id']:
                raise errors.BadRequest('Invalid volume: The volume belongs to a group.', kind='InvalidVolume')
            store.save(connection, volumes, volume, status=states.AWAITING_TRANSFER, previous_status=volume['status'])
            notices.both(connection, volumes, volume, 'transfer.create')
            return store.insert(connection, transfers, {
                'volume_id': volume['id'], 'project_id': volume['project_id'], 'destination_project_id': None,
                'name': common.stripped(sent.get('name')), 'salt': salt, 'auth_hash': _hash(salt, key),
                'no_snapshots': without, 'accepted': False})
        return {'transfer': {**_full(req, req.db.transact(write)), 'auth_key': key}}

    @routes.post(path + '/{transfer_id}/accept', rule='volume:accept_transfer', default=common.MEMBER, since=since, load=_any,
                 body=ACCEPT, status=202, response=TRANSFER, summary='Take over a volume that is offered')
    def accept(req, transfer_id):
        row = req.db.transact(_accept, req, transfer_id, str(req.body['accept']['auth_key']))
        return {'transfer': _brief(req, row)}

    @routes.delete(path + '/{transfer_id}', rule='volume:delete_transfer', default=common.PROJECT_MEMBER, since=since, load=load,
                   status=202, summary='Take back the offer of a volume')
    def delete(req, transfer_id):
        def write(connection):
            row = store.need(connection, transfers, transfer_id)
            volume = store.lock(connection, volumes, row['volume_id'])
            if volume is not None and volume['status'] == states.AWAITING_TRANSFER:
                store.settle(connection, volume)
                notices.both(connection, volumes, volume, 'transfer.delete')
            store.delete(connection, transfers, transfer_id)
        req.db.transact(write)


def _accept(connection, req, transfer_id, key):
    row = store.need(connection, transfers, transfer_id)
    if row['accepted']:
        raise store.not_found(transfers, transfer_id)
    if not hmac.compare_digest(row['auth_hash'], _hash(row['salt'], key)):
        raise errors.BadRequest('Invalid auth key: it is not the one that the transfer was made with.', kind='InvalidAuthKey')
    volume = store.need(connection, volumes, row['volume_id'])
    need_status(volume, states.AWAITING_TRANSFER)
    project, old = req.ctx.project_id, volume['project_id']
    moved = [] if row['no_snapshots'] else list(connection.scalars(sa.select(snapshots.c.size).where(
        snapshots.c.volume_id == volume['id'])))
    kind = types.get(connection, volume['volume_type_id'])
    if project != old:
        types.find(connection, req.ctx, volume['volume_type_id'])
        quotas.claim(connection, req.app.conf, project,
                     {'volumes': 1, 'snapshots': len(moved), 'gigabytes': volume['size'] + sum(moved)},
                     kind and kind['name'])
    before = {**volume}
    if moved:
        connection.execute(snapshots.update().where(snapshots.c.volume_id == volume['id']).values(
            project_id=project, user_id=req.ctx.user_id))
    store.settle(connection, volume, project_id=project, user_id=req.ctx.user_id)
    notices.both(connection, volumes, volume, 'transfer.accept', before)
    if moved and notices.wanted(connection, snapshots):
        for one in db.all_dicts(connection, sa.select(snapshots).where(snapshots.c.volume_id == volume['id'])):
            notices.both(connection, snapshots, one, 'transfer.accept', {**one, 'project_id': old})
    return store.save(connection, transfers, row, accepted=True, destination_project_id=project)


_declare('/os-volume-transfer')
_declare('/volume-transfers', since='3.55', no_snapshots=common.BOOLEAN)
