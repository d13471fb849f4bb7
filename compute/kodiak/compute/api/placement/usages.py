"""Usages: of a resource provider, of a project."""
from kodiak.common import api, errors
from kodiak.common.api import schema

from ...placement import claims, providers
from . import common

routes = api.Routes('usages')


@routes.get('/resource_providers/{uuid}/usages', rule='placement:resource_providers:usages', default=common.SERVICE,
            response=schema.obj({'resource_provider_generation': schema.INTEGER, 'usages': {'type': 'object'}}),
            summary='Show what is used of a resource provider')
def of_provider(req, uuid):
    with req.db.read() as connection:
        provider = providers.get(connection, uuid)
        records = providers.inventories(connection, provider)
    return common.stamped(req, {'resource_provider_generation': provider['generation'],
                                'usages': {name: record['used'] for name, record in records.items()}})


def _load_project(req):
    return {'project_id': req.http.args.get('project_id')}


@routes.get('/usages', rule='placement:usages',
            default='scope:project and (role:service or role:admin or (role:reader and project_id:%(project_id)s))',
            since='1.9', strict_query=True, load=_load_project,
            query={'project_id': {'type': 'string', 'minLength': 1, 'maxLength': 255},
                   'user_id': {'type': 'string', 'minLength': 1, 'maxLength': 255}, 'consumer_type': schema.STRING},
            response=schema.obj({'usages': {'type': 'object'}}), summary='Show what a project uses')
def of_project(req):
    if 'project_id' not in req.query:
        raise errors.BadRequest("Invalid query string parameters: 'project_id' is a required property")
    kind = req.query.get('consumer_type')
    if kind is not None and not req.at_least(1, 38):
        raise errors.BadRequest("Invalid query string parameters: Additional properties are not allowed ('consumer_type' was "
                                'unexpected)')
    with req.db.read() as connection:
        found = claims.usages(connection, req.query['project_id'], req.query.get('user_id'), kind, by_type=req.at_least(1, 38))
    return common.stamped(req, {'usages': found})
