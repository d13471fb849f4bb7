"""Traits, and the traits of a resource provider."""
import sqlalchemy as sa

from kodiak.common import api, errors
from kodiak.common.api import schema

from ...models import placement as models
from ...placement import classes, providers
from . import common

routes = api.Routes('traits')
NAMES = schema.array({'type': 'string', 'minLength': 1, 'maxLength': 255, 'pattern': '^[A-Z0-9_]+$'}, uniqueItems=True)
ANSWER = schema.obj({'traits': schema.array(schema.STRING), 'resource_provider_generation': schema.INTEGER}, ['traits'])


@routes.get('/traits', rule='placement:traits:list', default=common.SERVICE, since='1.6', strict_query=True,
            query={'name': schema.STRING, 'associated': schema.STRING},
            response=schema.obj({'traits': schema.array(schema.STRING)}),
            summary='List traits')
def list_traits(req):
    with req.db.read() as connection:
        names = classes.all_traits(connection)
        if 'name' in req.query:
            kind, _, rest = req.query['name'].partition(':')
            if kind == 'in' and rest:
                wanted = set(rest.split(','))
                names = [name for name in names if name in wanted]
            elif kind == 'startswith' and rest:
                names = [name for name in names if name.startswith(rest)]
            else:
                raise errors.BadRequest('Badly formatted name parameter. Expected name query string parameter in form: ?name='
                                        f'[in|startswith]:[name1,name2|prefix]. Got: "{req.query["name"]}"')
        if 'associated' in req.query:
            if req.query['associated'].lower() not in ('true', 'false'):
                raise errors.BadRequest('The query parameter "associated" only accepts "true" or "false"')
            used = set(connection.execute(sa.select(models.provider_traits.c.trait).distinct()).scalars())
            keep = req.query['associated'].lower() == 'true'
            names = [name for name in names if (name in used) is keep]
    return common.stamped(req, {'traits': names})


@routes.get('/traits/{name}',
            rule='placement:traits:show', default=common.SERVICE, since='1.6', status=204, summary='Check a trait')
def show(req, name):
    with req.db.read() as connection:
        if not classes.trait_exists(connection, name):
            raise errors.NotFound(f'No such trait(s): {name}.')
    return common.stamped(req, None)


@routes.put('/traits/{name}', rule='placement:traits:update', default=common.SERVICE, since='1.6', status=201,
            summary='Create a trait')
def create(req, name):
    if not classes.CUSTOM.match(name) or len(name) > 255:
        raise errors.BadRequest('The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix '
                                '"CUSTOM_" and use following characters: "A"-"Z", "0"-"9" and "_"')
    with req.db.write() as connection:
        new = classes.create_trait(connection, name)
    return common.stamped(req, None, None, 201 if new else 204, [('Location', common.href(req, f'/traits/{name}'))])


@routes.delete('/traits/{name}', rule='placement:traits:delete', default=common.SERVICE, since='1.6', summary='Delete a trait')
def delete(req, name):
    with req.db.write() as connection:
        classes.delete_trait(connection, name)


def _answer(req, connection, provider):
    return common.stamped(req, {'traits': providers.traits(connection, provider),
                                'resource_provider_generation': provider['generation']})


@routes.get('/resource_providers/{uuid}/traits',
            rule='placement:resource_providers:traits:list', default=common.SERVICE, since='1.6',
            response=ANSWER, summary='List the traits of a resource provider')
def show_of(req, uuid):
    with req.db.read() as connection:
        return _answer(req, connection, providers.get(connection, uuid))


@routes.put('/resource_providers/{uuid}/traits',
            rule='placement:resource_providers:traits:update', default=common.SERVICE, since='1.6',
            body=schema.obj({'traits': NAMES, 'resource_provider_generation': common.GENERATION},
                            ['traits', 'resource_provider_generation']),
            response=ANSWER, summary='Replace the traits of a resource provider')
def replace(req, uuid):
    with req.db.write() as connection:
        provider = providers.get(connection, uuid)
        if provider['generation'] != req.body['resource_provider_generation']:
            raise providers.conflict("Resource provider's generation already changed. Please update the generation and try again.")
        providers.set_traits(connection, provider, req.body['traits'])
        return _answer(req, connection, provider)


@routes.delete('/resource_providers/{uuid}/traits', rule='placement:resource_providers:traits:delete', default=common.SERVICE,
               since='1.6', summary='Take every trait from a resource provider')
def delete_of(req, uuid):
    with req.db.write() as connection:
        providers.set_traits(connection, providers.get(connection, uuid), [])
