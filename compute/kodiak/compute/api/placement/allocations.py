"""Allocations of consumers, and reshaping: inventories and allocations changed together."""
import uuid

from kodiak.common import api, errors
from kodiak.common.api import schema

from ...placement import claims, providers
from . import common, inventories

routes = api.Routes('allocations')
AMOUNTS = {'type': 'object', 'minProperties': 1, 'additionalProperties': False,
           'patternProperties': {'^[A-Z0-9_]+$': {'type': 'integer', 'minimum': 1, 'maximum': 0x7FFFFFFF}}}
ENTRY = schema.obj({'resources': AMOUNTS, 'generation': schema.INTEGER}, ['resources'])
UUID_KEY = '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'
ID = {'type': 'string', 'minLength': 1, 'maxLength': 255}
OWNER = {'project_id': ID, 'user_id': ID}
AS_LIST = schema.array(schema.obj({'resource_provider': schema.obj({'uuid': common.UUID}, ['uuid']), 'resources': AMOUNTS},
                                  ['resource_provider', 'resources']), minItems=1)
TYPE = {'type': 'string', 'pattern': '^[A-Z0-9_]+$', 'minLength': 1, 'maxLength': 255}
CONSUMER_GENERATION = {'type': ['integer', 'null']}
MAPPINGS = {'type': 'object', 'minProperties': 1, 'additionalProperties': False, 'patternProperties': {
    '^([a-zA-Z0-9_-]{1,64})?$': schema.array(common.UUID, minItems=1)}}


def _as_dict(minimum):
    return {'type': 'object', 'minProperties': minimum, 'additionalProperties': False, 'patternProperties': {UUID_KEY: ENTRY}}


def put_schema(minor):
    """The body of PUT /allocations at a minor version of at least 12."""
    properties = {'allocations': _as_dict(1 if minor < 28 else 0), **OWNER}
    required = ['allocations', 'project_id', 'user_id']
    if minor >= 28:
        properties['consumer_generation'] = CONSUMER_GENERATION
        required.append('consumer_generation')
    if minor >= 34:
        properties['mappings'] = MAPPINGS
    if minor >= 38:
        properties['consumer_type'] = TYPE
        required.append('consumer_type')
    return schema.obj(properties, required)


def post_schema(minor):
    """The body of POST /allocations: several consumers at once."""
    one = put_schema(minor)
    one['properties'] = {**one['properties'], 'allocations': _as_dict(0)}
    return {'type': 'object', 'minProperties': 1, 'additionalProperties': False, 'patternProperties': {UUID_KEY: one}}


@routes.get('/allocations/{consumer}', rule='placement:allocations:list', default=common.SERVICE,
            summary='Show the allocations of a consumer')
def show(req, consumer):
    with req.db.read() as connection:
        owner = claims.consumer(connection, consumer)
        shown = {'allocations': claims.of_consumer(connection, consumer)}
    if owner is not None and shown['allocations']:
        if req.at_least(1, 12):
            shown.update(project_id=owner['project_id'], user_id=owner['user_id'])
        if req.at_least(1, 28):
            shown['consumer_generation'] = owner['generation']
        if req.at_least(1, 38):
            shown['consumer_type'] = owner['consumer_type'] or 'unknown'
    return common.stamped(req, shown, owner and owner['updated_at'])


def _entry(req, body, given=None):
    entry = {'allocations': {provider: given_one['resources'] for provider, given_one in (given or body['allocations']).items()},
             'project_id': body.get('project_id') or '00000000-0000-0000-0000-000000000000',
             'user_id': body.get('user_id') or '00000000-0000-0000-0000-000000000000',
             'check': body.get('consumer_generation', True)}
    if 'consumer_type' in body:
        entry['consumer_type'] = body['consumer_type']
    return entry


def _replace(req, consumer, entry):
    if not common.is_uuid(consumer):
        raise errors.BadRequest(f'Malformed consumer_uuid: {consumer}')
    with req.db.write() as connection:
        claims.replace(connection, {str(uuid.UUID(consumer)): entry})


def _as_map(items):
    found = {}
    for item in items:
        provider = item['resource_provider']['uuid']
        found.setdefault(provider, {'resources': {}})['resources'].update(item['resources'])
    return found


def _declare_lists(since, until, required):
    body = schema.obj({'allocations': AS_LIST, **(OWNER if required else {})}, ['allocations', *required])

    @routes.put('/allocations/{consumer}', rule='placement:allocations:update', default=common.SERVICE, since=since, until=until,
                status=204, body=body, summary='Replace the allocations of a consumer')
    def update(req, consumer):
        _replace(req, consumer, _entry(req, req.body, _as_map(req.body['allocations'])))


def _declare_maps(since, until):
    minor = int(since.split('.')[1])

    @routes.put('/allocations/{consumer}', rule='placement:allocations:update', default=common.SERVICE, since=since, until=until,
                status=204, body=put_schema(minor), summary='Replace the allocations of a consumer')
    def update(req, consumer):
        _replace(req, consumer, _entry(req, req.body))


def _declare_several(since, until):
    @routes.post('/allocations', rule='placement:allocations:manage', default=common.SERVICE, since=since, until=until, status=204,
                 body=post_schema(int(since.split('.')[1])), summary='Replace the allocations of several consumers')
    def manage(req):
        with req.db.write() as connection:
            claims.replace(connection, {str(uuid.UUID(consumer)): _entry(req, body) for consumer, body in req.body.items()})


def _declare_reshaper(since, until):
    inventory = schema.obj({'resource_provider_generation': common.GENERATION, 'inventories': {
        'type': 'object', 'additionalProperties': False,
        'patternProperties': {'^[A-Z0-9_]+$': schema.obj(inventories.RECORD, ['total'])}}},
        ['resource_provider_generation', 'inventories'])
    given = post_schema(int(since.split('.')[1]))
    body = schema.obj({'inventories': {'type': 'object', 'additionalProperties': False, 'patternProperties': {UUID_KEY: inventory}},
                       'allocations': {key: value for key, value in given.items() if key != 'minProperties'}},
                      ['inventories', 'allocations'])

    @routes.post('/reshaper', rule='placement:reshaper:reshape', default=common.SERVICE, since=since, until=until, status=204,
                 body=body, summary='Change inventories and allocations together')
    def reshape(req):
        _reshape(req)


_declare_lists('1.0', '1.7', [])
_declare_lists('1.8', '1.11', ['project_id', 'user_id'])
for first, last in (('1.12', '1.27'), ('1.28', '1.33'), ('1.34', '1.37'), ('1.38', None)):
    _declare_maps(first, last)
for first, last in (('1.13', '1.27'), ('1.28', '1.33'), ('1.34', '1.37'), ('1.38', None)):
    _declare_several(first, last)
for first, last in (('1.30', '1.33'), ('1.34', '1.37'), ('1.38', None)):
    _declare_reshaper(first, last)


def _reshape(req):
    with req.db.write() as connection:
        wanted = {}
        for name, given in req.body['inventories'].items():
            try:
                provider = providers.get(connection, name)
            except errors.NotFound:
                raise errors.BadRequest(f'Resource provider {name} in inventories not found: No resource provider with uuid {name} '
                                        'found.', kind='placement.resource_provider.not_found')
            if provider['generation'] != given['resource_provider_generation']:
                raise providers.conflict(f'resource provider generation conflict for provider {name}: actual: '
                                         f'{provider["generation"]}, given: {given["resource_provider_generation"]}')
            wanted[name] = (provider, {cls: providers.check_inventory(name, cls, record, True)
                                       for cls, record in given['inventories'].items()})
        # What goes to another provider must be there before the allocations move, what it leaves may go only after them.
        for name, (_, records) in wanted.items():
            provider = providers.get(connection, name)
            providers.set_inventories(connection, provider, {**providers.inventories(connection, provider), **records})
        if req.body['allocations']:
            claims.replace(connection, {str(uuid.UUID(consumer)): _entry(req, body)
                                        for consumer, body in req.body['allocations'].items()})
        for name, (_, records) in wanted.items():
            providers.set_inventories(connection, providers.get(connection, name), records)


@routes.delete('/allocations/{consumer}', rule='placement:allocations:delete', default=common.SERVICE,
               summary='Delete the allocations of a consumer')
def delete(req, consumer):
    with req.db.write() as connection:
        if not claims.release(connection, consumer):
            raise errors.NotFound(f"No allocations for consumer '{consumer}'")


@routes.get('/resource_providers/{provider_uuid}/allocations',
            rule='placement:resource_providers:allocations:list', default=common.SERVICE,
            summary='List the allocations against a resource provider')
def show_of(req, provider_uuid):
    with req.db.read() as connection:
        provider = providers.get(connection, provider_uuid)
        found = claims.of_provider(connection, provider)
    for entry in found.values():
        if not req.at_least(1, 28):
            del entry['consumer_generation']
        kind = entry.pop('consumer_type')
        if req.at_least(1, 38):
            entry['consumer_type'] = kind or 'unknown'
    return common.stamped(req, {'resource_provider_generation': provider['generation'], 'allocations': found})
