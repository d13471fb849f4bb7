"""Aggregates of a resource provider."""
from kodiak.common import api
from kodiak.common.api import schema

from ...placement import providers
from . import common

routes = api.Routes('aggregates')
LIST = schema.array(common.UUID, uniqueItems=True)
ANSWER = schema.obj({'aggregates': LIST, 'resource_provider_generation': schema.INTEGER}, ['aggregates'])


def _answer(req, connection, provider):
    shown = {'aggregates': providers.aggregates(connection, provider)}
    if req.at_least(1, 19):
        shown['resource_provider_generation'] = provider['generation']
    return common.stamped(req, shown)


@routes.get('/resource_providers/{uuid}/aggregates', rule='placement:resource_providers:aggregates:list', default=common.SERVICE,
            since='1.1', response=ANSWER, summary='List the aggregates of a resource provider')
def show(req, uuid):
    with req.db.read() as connection:
        return _answer(req, connection, providers.get(connection, uuid))


@routes.put('/resource_providers/{uuid}/aggregates', rule='placement:resource_providers:aggregates:update', default=common.SERVICE,
            since='1.1', until='1.18', body=LIST, response=ANSWER, summary='Replace the aggregates of a resource provider')
def replace(req, uuid):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        providers.set_aggregates(connection, provider, req.body, bump_generation=False)
        return _answer(req, connection, provider)


@routes.put('/resource_providers/{uuid}/aggregates', rule='placement:resource_providers:aggregates:update', default=common.SERVICE,
            since='1.19', body=schema.obj({'aggregates': LIST, 'resource_provider_generation': common.GENERATION},
                                          ['aggregates', 'resource_provider_generation']),
            response=ANSWER, summary='Replace the aggregates of a resource provider')
def replace_at(req, uuid):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        providers.set_aggregates(connection, provider, req.body['aggregates'], req.body['resource_provider_generation'])
        return _answer(req, connection, provider)
