"""QoS specs: what the hypervisor is to hold volumes of a type to."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import Listing, schema
from kodiak.storage_block import notices, store
from kodiak.storage_block.models import qos_specs, volume_types

from . import common, typed

routes = api.Routes('QoS specs')
q = qos_specs.c
LISTING = Listing(q.id, {name: q[name] for name in ('id', 'name', 'created_at', 'consumer')}, [('created_at', 'desc')],
                  {'name': q.name, 'consumer': q.consumer, 'id': q.id})
VALUES = {'type': 'object', 'additionalProperties': {'type': ['string', 'number', 'boolean', 'null'], 'maxLength': 255}}
CONSUMERS = ('front-end', 'back-end', 'both')
ONE = schema.obj({'qos_specs': common.OBJECT, 'links': common.LINKS}, ['qos_specs'])


def load(req, qos_id, **more):
    with req.db.read() as connection:
        return store.need(connection, qos_specs, qos_id, locked=False)


def _shown(row):
    return {'id': row['id'], 'name': row['name'], 'consumer': row['consumer'], 'specs': row['specs']}


def _full(req, row):
    return {'qos_specs': _shown(row), 'links': common.links(req, 'qos-specs/' + row['id'])}


@routes.get('/qos-specs', rule='volume_extension:qos_specs_manage:get_all', default=common.ADMIN, query=common.parameters(LISTING),
            response=schema.obj({'qos_specs': schema.array(common.OBJECT), 'qos_specs_links': common.LINKS}, ['qos_specs']),
            summary='List QoS specs')
def index(req):
    with req.db.read() as connection:
        return common.page(req, LISTING, connection, sa.select(qos_specs), 'qos_specs', lambda row: _shown(row._mapping),
                           count=qos_specs)


@routes.post('/qos-specs', rule='volume_extension:qos_specs_manage:create', default=common.ADMIN, response=ONE,
             body=schema.wrap('qos_specs', {'type': 'object', 'properties': {
                 'name': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'consumer': {'enum': list(CONSUMERS)}},
                 'required': ['name'], 'additionalProperties': VALUES['additionalProperties']}), summary='Make QoS specs')
def create(req):
    specs = dict(req.body['qos_specs'])
    row = {'name': specs.pop('name').strip(), 'consumer': specs.pop('consumer', 'back-end'), 'specs': typed.texts(specs)}
    if not row['name']:
        raise errors.BadRequest('Invalid input for field/attribute name: it must have a character that is no blank.')

    def write(connection):
        made = store.insert(connection, qos_specs, row)
        _tell(connection, 'create', made, name=made['name'], specs=made['specs'], created_at=str(made['created_at']))
        return made
    try:
        row = req.db.transact(write)
    except exc.IntegrityError as error:
        if not db.is_duplicate(error):
            raise
        raise errors.Conflict(f"QoS Specs {row['name']} already exists.") from None
    return _full(req, row)


@routes.get('/qos-specs/{qos_id}', rule='volume_extension:qos_specs_manage:get', default=common.ADMIN, load=load, response=ONE,
            summary='Show QoS specs')
def show(req, qos_id):
    return _full(req, req.target)


def _tell(connection, what, row, **more):
    notices.catalog(connection, 'qos_specs.' + what, {'id': row['id'], **more}, row['id'])


def _change(req, function, what, **told):
    def write(connection):
        row = store.need(connection, qos_specs, req.target['id'])
        function(connection, row)
        _tell(connection, what, row, **told)
    req.db.transact(write)


@routes.put('/qos-specs/{qos_id}', rule='volume_extension:qos_specs_manage:update', default=common.ADMIN, load=load,
            body=schema.wrap('qos_specs', {**VALUES, 'properties': {'consumer': {'enum': list(CONSUMERS)}}, 'minProperties': 1}),
            response=schema.wrap('qos_specs', common.OBJECT), summary='Set some of QoS specs')
def update(req, qos_id):
    sent = dict(req.body['qos_specs'])

    def write(connection, row):
        specs = dict(sent)
        consumer = specs.pop('consumer', row['consumer'])
        store.save(connection, qos_specs, row, consumer=consumer, specs={**row['specs'], **typed.texts(specs)})
    _change(req, write, 'update', specs=typed.texts(sent))
    return {'qos_specs': typed.texts(sent)}


@routes.put('/qos-specs/{qos_id}/delete_keys', rule='volume_extension:qos_specs_manage:update', default=common.ADMIN, load=load,
            body=schema.obj({'keys': schema.array(schema.STRING, minItems=1)}, ['keys']), status=202,
            summary='Remove some of QoS specs')
def delete_keys(req, qos_id):
    def write(connection, row):
        missing = [key for key in req.body['keys'] if key not in row['specs']]
        if missing:
            raise errors.BadRequest(f'QoS specs {qos_id} has no spec with the key {missing[0]}.', kind='QoSSpecsKeyNotFound')
        store.save(connection, qos_specs, row, specs={key: value for key, value in row['specs'].items()
                                                      if key not in req.body['keys']})
    _change(req, write, 'delete_keys', keys=req.body['keys'])


@routes.delete('/qos-specs/{qos_id}', rule='volume_extension:qos_specs_manage:delete', default=common.ADMIN, load=load, status=202,
               query={'force': schema.BOOLEAN}, summary='Delete QoS specs')
def delete(req, qos_id):
    def write(connection, row):
        used = connection.scalar(sa.select(volume_types.c.id).where(volume_types.c.qos_specs_id == qos_id).limit(1))
        if used and not req.query.get('force'):
            raise errors.BadRequest(f'QoS specs {qos_id} is still associated with volume types: disassociate it, or delete it with '
                                    'force.', kind='QoSSpecsInUse')
        _disassociate(connection, qos_id)
        store.delete(connection, qos_specs, qos_id)
    _change(req, write, 'delete')


def _disassociate(connection, qos_id, type_id=None):
    query = volume_types.update().where(volume_types.c.qos_specs_id == qos_id)
    connection.execute((query if type_id is None else query.where(volume_types.c.id == type_id)).values(qos_specs_id=None))


@routes.get('/qos-specs/{qos_id}/associations', rule='volume_extension:qos_specs_manage:get', default=common.ADMIN, load=load,
            response=schema.wrap('qos_associations', schema.array(common.OBJECT)), summary='List the volume types with QoS specs')
def associations(req, qos_id):
    with req.db.read() as connection:
        return {'qos_associations': [{'association_type': 'volume_type', 'name': row.name,
                                      'id': row.id} for row in connection.execute(
            sa.select(volume_types.c.id, volume_types.c.name).where(volume_types.c.qos_specs_id == qos_id)
            .order_by(volume_types.c.name))]}


TYPE = {'vol_type_id': schema.STRING}


# A GET that changes something: so the API has it.
@routes.get('/qos-specs/{qos_id}/associate', rule='volume_extension:qos_specs_manage:update', default=common.ADMIN, load=load,
            query=TYPE, status=202, summary='Give a volume type QoS specs')
def associate(req, qos_id):
    def write(connection, row):
        kind = store.need(connection, volume_types, _type_id(req))
        if kind['qos_specs_id'] not in (None, qos_id):
            raise errors.BadRequest(f"Type {kind['id']} is already associated with other QoS specs: {kind['qos_specs_id']}.")
        store.save(connection, volume_types, kind, qos_specs_id=qos_id)
    _change(req, write, 'associate', type_id=req.query.get('vol_type_id'))


@routes.get('/qos-specs/{qos_id}/disassociate', rule='volume_extension:qos_specs_manage:update', default=common.ADMIN, load=load,
            query=TYPE, status=202, summary='Take QoS specs from a volume type')
def disassociate(req, qos_id):
    def write(connection, row):
        store.need(connection, volume_types, _type_id(req))
        _disassociate(connection, qos_id, _type_id(req))
    _change(req, write, 'disassociate', type_id=req.query.get('vol_type_id'))


@routes.get('/qos-specs/{qos_id}/disassociate_all', rule='volume_extension:qos_specs_manage:update', default=common.ADMIN,
            load=load,
            status=202, summary='Take QoS specs from all volume types')
def disassociate_all(req, qos_id):
    _change(req, lambda connection, row: _disassociate(connection, qos_id), 'disassociate_all')


def _type_id(req):
    if not req.query.get('vol_type_id'):
        raise errors.BadRequest('Volume Type id must not be None: name vol_type_id.')
    return req.query['vol_type_id']
