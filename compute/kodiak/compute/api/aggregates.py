"""Host aggregates."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, policy
from kodiak.common.api import schema
from kodiak.compute import birth, scheduler, store, view
from kodiak.compute import rpc as tables
from kodiak.compute.api import common
from kodiak.compute.models import aggregate_hosts, aggregates, hosts, servers

routes = api.Routes('aggregates')
ZONE = 'availability_zone'
NAME = {'type': 'string', 'minLength': 1, 'maxLength': 255}
ZONE_NAME = {'type': ['string', 'null'], 'minLength': 1, 'maxLength': 255, 'pattern': '^[^:]*$'}
AGGREGATE = schema.wrap('aggregate', {'type': 'object'})


def _rows(connection, aggregate_id=None):
    query = sa.select(aggregates).order_by(aggregates.c.id)
    members = sa.select(aggregate_hosts)
    if aggregate_id is not None:
        query = query.where(aggregates.c.id == aggregate_id)
        members = members.where(aggregate_hosts.c.aggregate_id == aggregate_id)
    found = db.all_dicts(connection, query)
    hosted = {}
    for row in connection.execute(members.order_by(aggregate_hosts.c.host)):
        hosted.setdefault(row.aggregate_id, []).append(row.host)
    for row in found:
        row['hosts'] = hosted.get(row['id'], [])
    return found


def _view(req, row):
    metadata = {**row['metadata'], **({ZONE: row['zone']} if row['zone'] else {})}
    found = {'id': row['id'], 'name': row['name'], ZONE: row['zone'], 'metadata': metadata, 'hosts': row['hosts'],
             'created_at': view.micro_time(row['created_at']), 'updated_at': view.micro_time(row['updated_at']), 'deleted': False,
             'deleted_at': None}
    if req.at_least(2, 41):
        found['uuid'] = row['uuid']
    return found


def _id(text):
    number = schema.natural(text)
    if number is None or number > 2147483647:
        raise common.not_found('Aggregate', text)
    return number


def load(req, aggregate_id, **more):
    """An aggregate with its hosts."""
    with req.db.read() as connection:
        found = _rows(connection, _id(aggregate_id))
    if not found:
        raise common.not_found('Aggregate', aggregate_id)
    return found[0]


@routes.get('/os-aggregates', rule='os_compute_api:os-aggregates:index', default=policy.ADMIN,
            response=schema.wrap('aggregates', schema.array({'type': 'object'})), summary='List aggregates')
def index(req):
    with req.db.read() as connection:
        return {'aggregates': [_view(req, row) for row in _rows(connection)]}


@routes.post('/os-aggregates', rule='os_compute_api:os-aggregates:create', default=policy.ADMIN, response=AGGREGATE,
             body=schema.wrap('aggregate', schema.obj({'name': NAME, ZONE: ZONE_NAME}, ['name'])), summary='Create an aggregate')
def create(req):
    sent = req.body['aggregate']
    name = common.text(sent['name'], 'name')
    zone = sent.get(ZONE) and common.text(sent[ZONE], ZONE)

    def write(connection):
        _check_name(connection, name)
        row = {'uuid': db.new_id(), 'name': name, 'zone': zone, 'metadata': {}, 'created_at': db.utcnow(), 'updated_at': None}
        row['id'] = connection.execute(aggregates.insert(), row).inserted_primary_key[0]
        return {**row, 'hosts': []}
    shown = _view(req, req.db.transact(write))
    # The metadata and the hosts of a new aggregate are not shown: there are none.
    return {'aggregate': {name: value for name, value in shown.items() if name not in ('hosts', 'metadata')}}


def _check_name(connection, name, but=None):
    found = connection.scalar(sa.select(aggregates.c.id).where(aggregates.c.name == name))
    if found is not None and found != but:
        raise errors.Conflict(f'Aggregate {name} already exists.')


@routes.get('/os-aggregates/{aggregate_id}', rule='os_compute_api:os-aggregates:show', default=policy.ADMIN, load=load,
            response=AGGREGATE, summary='Show an aggregate')
def show(req, aggregate_id):
    return {'aggregate': _view(req, req.target)}


def _change(req, aggregate_id, function):
    def write(connection):
        found = _rows(connection, _id(aggregate_id))
        if not found:
            raise common.not_found('Aggregate', aggregate_id)
        changes = function(connection, found[0]) or {}
        connection.execute(aggregates.update().where(aggregates.c.id == found[0]['id']).values(
            updated_at=db.utcnow(), **changes))
        _settle_zones(req, connection, found[0]['hosts'])
        return _rows(connection, found[0]['id'])[0]
    return {'aggregate': _view(req, req.db.transact(write))}


def _settle_zones(req, connection, names):
    """Have the servers of some hosts show the zone that their hosts are in now."""
    if not names:
        return
    there = scheduler.zones_of(connection, req.app.conf.compute.default_availability_zone, list(names))
    for uuid, host, zone in connection.execute(sa.select(servers.c.uuid, servers.c.host, servers.c.zone).where(
            servers.c.host.in_(names), servers.c.deleted.is_(False))).all():
        if zone != there[host]:
            store.save(connection, store.lock(connection, uuid), zone=there[host])


def _check_zone(connection, names, zone, but):
    """``Conflict`` where a host would be in two zones, or where a zone with servers in it would change."""
    if not names:
        return
    other = connection.execute(sa.select(aggregate_hosts.c.host, aggregates.c.zone).join(
        aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id).where(
            aggregate_hosts.c.host.in_(names), aggregates.c.zone.is_not(None), aggregates.c.id != but)).all()
    if zone and any(found.zone != zone for found in other):
        raise errors.Conflict(f'One or more hosts already in availability zone(s) {sorted({found.zone for found in other})}')


def _check_empty(connection, names):
    busy = next((name for name in names if common.servers_on(connection, name)), None)
    if busy is not None:
        raise errors.BadRequest(f'One or more hosts contain instances in this zone: {busy}')


@routes.put('/os-aggregates/{aggregate_id}', rule='os_compute_api:os-aggregates:update', default=policy.ADMIN, load=load,
            response=AGGREGATE, body=schema.wrap('aggregate', schema.obj({'name': NAME, ZONE: ZONE_NAME}, minProperties=1)),
            summary='Change an aggregate')
def update(req, aggregate_id):
    sent = req.body['aggregate']

    def write(connection, row):
        changes = {}
        if 'name' in sent:
            _check_name(connection, common.text(sent['name'], 'name'), row['id'])
            changes['name'] = sent['name']
        if ZONE in sent and sent[ZONE] != row['zone']:
            _check_empty(connection, row['hosts'])
            _check_zone(connection, row['hosts'], sent[ZONE], row['id'])
            changes['zone'] = sent[ZONE]
        return changes
    return _change(req, aggregate_id, write)


@routes.delete('/os-aggregates/{aggregate_id}', rule='os_compute_api:os-aggregates:delete', default=policy.ADMIN, load=load,
               status=200, summary='Delete an aggregate')
def delete(req, aggregate_id):
    def write(connection):
        if connection.scalar(sa.select(aggregate_hosts.c.host).where(
                aggregate_hosts.c.aggregate_id == req.target['id'])) is not None:
            raise errors.BadRequest(f'Cannot remove aggregate {aggregate_id}: Host aggregate is not empty.')
        connection.execute(aggregates.delete().where(aggregates.c.id == req.target['id']))
    req.db.transact(write)


PATH = '/os-aggregates/{aggregate_id}/action'
HOST = schema.obj({'host': NAME}, ['host'])


@routes.post(PATH, action='add_host', rule='os_compute_api:os-aggregates:add_host', default=policy.ADMIN, load=load,
             response=AGGREGATE, body=schema.wrap('add_host', HOST), summary='Add a host to an aggregate')
def add_host(req, aggregate_id):
    host = req.body['add_host']['host']

    def write(connection, row):
        if connection.scalar(sa.select(hosts.c.id).where(hosts.c.host == host)) is None:
            raise common.not_found('Compute host', host)
        if host in row['hosts']:
            raise errors.Conflict(f'Cannot add host to aggregate {aggregate_id}. Reason: Host {host} already there.')
        _check_zone(connection, [host], row['zone'], row['id'])
        connection.execute(aggregate_hosts.insert(), {'aggregate_id': row['id'], 'host': host})
        _settle_zones(req, connection, [host])
    return _change(req, aggregate_id, write)


@routes.post(PATH, action='remove_host', rule='os_compute_api:os-aggregates:remove_host', default=policy.ADMIN, load=load,
             response=AGGREGATE, body=schema.wrap('remove_host', HOST), summary='Remove a host from an aggregate')
def remove_host(req, aggregate_id):
    host = req.body['remove_host']['host']

    def write(connection, row):
        if host not in row['hosts']:
            raise errors.NotFound(f'Cannot remove host {host} in aggregate {aggregate_id}: it is not there.')
        connection.execute(aggregate_hosts.delete().where(
            aggregate_hosts.c.aggregate_id == row['id'], aggregate_hosts.c.host == host))
        _settle_zones(req, connection, [host])
    return _change(req, aggregate_id, write)


@routes.post(PATH, action='set_metadata', rule='os_compute_api:os-aggregates:set_metadata', default=policy.ADMIN, load=load,
             response=AGGREGATE, body=schema.wrap('set_metadata', schema.wrap('metadata', {
                 'type': 'object', 'additionalProperties': False, 'patternProperties': {
                     '^[a-zA-Z0-9-_:. ]{1,255}$': {'type': ['string', 'null'], 'maxLength': 255}}})),
             summary='Set the metadata of an aggregate')
def set_metadata(req, aggregate_id):
    sent = req.body['set_metadata']['metadata']

    def write(connection, row):
        changes = {'metadata': {name: value for name, value in {**row['metadata'],
                                                                **sent}.items() if value is not None and name != ZONE}}
        if ZONE in sent and sent[ZONE] != row['zone']:
            if sent[ZONE] == '':
                raise errors.BadRequest('The availability zone of an aggregate cannot be empty.')
            _check_empty(connection, row['hosts'])
            _check_zone(connection, row['hosts'], sent[ZONE], row['id'])
            changes['zone'] = sent[ZONE]
        return changes
    return _change(req, aggregate_id, write)


@routes.post('/os-aggregates/{aggregate_id}/images', rule='compute:aggregates:images', default=policy.ADMIN, load=load,
             since='2.81',
             status=202, body=schema.wrap('cache', schema.array(schema.obj({'id': schema.UUID}, ['id']), minItems=1)),
             summary='Have the hosts of an aggregate fetch images ahead')
def cache_images(req, aggregate_id):
    ids = [entry['id'] for entry in req.body['cache']]
    if len(set(ids)) < len(ids):
        raise errors.BadRequest('Duplicate images in request')
    images = [birth.image(req.app.clients, image_id, req.ctx) for image_id in ids]
    with req.db.read() as connection:
        rows = connection.execute(sa.select(hosts.c.host, hosts.c.agent).where(hosts.c.host.in_(req.target['hosts']))).all()
    for row in rows:
        req.app.bus.client(tables.AGENT, tables.AGENT_TOPIC).cast('fetch_images', req.ctx, server=row.agent, host=row.host,
                                                                  images=images)
