"""Inventories of a resource provider."""
from kodiak.common import api, errors
from kodiak.common.api import schema

from ...placement import classes as known
from ...placement import providers
from . import common

routes = api.Routes('inventories')
RECORD = {
    'total': {'type': 'integer', 'minimum': 1, 'maximum': 0x7FFFFFFF}, 'reserved': common.COUNT,
    'min_unit': {'type': 'integer', 'minimum': 1, 'maximum': 0x7FFFFFFF},
    'max_unit': {'type': 'integer', 'minimum': 1, 'maximum': 0x7FFFFFFF},
    'step_size': {'type': 'integer', 'minimum': 1, 'maximum': 0x7FFFFFFF},
    'allocation_ratio': {'type': 'number', 'minimum': 0.001, 'maximum': 3.40282e+38},
}
SHOWN = schema.obj(RECORD, list(RECORD))
ANSWER = schema.obj({'resource_provider_generation': schema.INTEGER, 'inventories': {'type': 'object'}})
ONE = schema.obj({'resource_provider_generation': common.GENERATION, **RECORD}, ['resource_provider_generation', 'total'])
ONE_SHOWN = schema.obj({'resource_provider_generation': common.GENERATION, **RECORD})


def _view(record):
    return {field: record[field] for field in providers.FIELDS}


def _answer(req, provider, records, status=None, headers=()):
    return common.stamped(req, {'resource_provider_generation': provider['generation'],
                                'inventories': {name: _view(record) for name, record in records.items()}},
                          None, status, headers)


@routes.get('/resource_providers/{uuid}/inventories', rule='placement:resource_providers:inventories:list', default=common.SERVICE,
            response=ANSWER, summary='List the inventories of a resource provider')
def list_inventories(req, uuid):
    with req.db.read() as connection:
        provider = providers.get(connection, uuid)
        return _answer(req, provider, providers.inventories(connection, provider))


@routes.put('/resource_providers/{uuid}/inventories',
            rule='placement:resource_providers:inventories:update', default=common.SERVICE,
            body=schema.obj({'resource_provider_generation': common.GENERATION, 'inventories': {
                'type': 'object', 'additionalProperties': False,
                'patternProperties': {'^[A-Z0-9_]+$': schema.obj(RECORD, ['total'])}}},
                ['resource_provider_generation', 'inventories']),
            response=ANSWER, summary='Replace the inventories of a resource provider')
def replace(req, uuid):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        if provider['generation'] != req.body['resource_provider_generation']:
            raise providers.conflict()
        known.require_classes(connection, req.body['inventories'])
        records = {name: providers.check_inventory(uuid, name, record, req.at_least(1, 26))
                   for name, record in req.body['inventories'].items()}
        providers.set_inventories(connection, provider, records)
        return _answer(req, provider, records)


@routes.delete('/resource_providers/{uuid}/inventories', rule='placement:resource_providers:inventories:delete', since='1.5',
               default=common.SERVICE, summary='Delete every inventory of a resource provider')
def delete_all(req, uuid):
    with req.db.write() as connection:
        providers.set_inventories(connection, providers.get(connection, uuid), {})


@routes.post('/resource_providers/{uuid}/inventories',
             rule='placement:resource_providers:inventories:create', default=common.SERVICE,
             status=201, body=schema.obj({'resource_class': common.CLASS_NAME, **ONE['properties']},
                                         ['resource_class', 'total']),
             response=ONE_SHOWN, summary='Add an inventory to a resource provider')
def create(req, uuid):
    name = req.body.pop('resource_class')
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        have = providers.inventories(connection, provider)
        known.require_classes(connection, [name])
        if provider['generation'] != req.body.get('resource_provider_generation', provider['generation']):
            raise providers.conflict()
        if name in have:
            raise errors.Conflict('Update conflict: inventory of this class exists already', kind='placement.concurrent_update')
        record = providers.check_inventory(uuid, name, req.body, req.at_least(1, 26))
        providers.set_inventories(connection, provider, {**have, name: record})
        return common.stamped(req, {'resource_provider_generation': provider['generation'], **_view(record)}, None, 201, [
            ('Location', f'{req.url}/{name}')])


def _one(connection, provider, name, doing=''):
    record = providers.inventories(connection, provider).get(name)
    if record is None:
        raise errors.NotFound(f'No inventory of class {name} found for {doing} resource provider {provider["uuid"]}')
    return record


@routes.get('/resource_providers/{uuid}/inventories/{name}', rule='placement:resource_providers:inventories:show',
            default=common.SERVICE, response=ONE_SHOWN, summary='Show an inventory')
def show(req, uuid, name):
    with req.db.read() as connection:
        provider = providers.get(connection, uuid)
        record = _one(connection, provider, name)
    return common.stamped(req, {'resource_provider_generation': provider['generation'], **_view(record)})


@routes.put('/resource_providers/{uuid}/inventories/{name}', rule='placement:resource_providers:inventories:update',
            default=common.SERVICE, body=ONE, response=ONE_SHOWN, summary='Replace an inventory')
def update(req, uuid, name):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        known.require_classes(connection, [name])
        if provider['generation'] != req.body['resource_provider_generation']:
            raise providers.conflict()
        have = providers.inventories(connection, provider)
        if name not in have:
            raise errors.BadRequest(f'No inventory of class {name} found for update on resource provider {uuid}.')
        record = providers.check_inventory(uuid, name, req.body, req.at_least(1, 26))
        providers.set_inventories(connection, provider, {**have, name: record})
        return common.stamped(req, {'resource_provider_generation': provider['generation'], **_view(record)})


@routes.delete('/resource_providers/{uuid}/inventories/{name}', rule='placement:resource_providers:inventories:delete',
               default=common.SERVICE, summary='Delete an inventory')
def delete(req, uuid, name):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        known_records = providers.inventories(connection, provider)
        _one(connection, provider, name, 'delete on')
        del known_records[name]
        providers.set_inventories(connection, provider, known_records)
