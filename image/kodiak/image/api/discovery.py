"""Versions, the OpenAPI document, and what this service offers: stores and ways to import."""
import orjson

from kodiak.common import api
from kodiak.common.api import openapi
from kodiak.common.api import schema as schemas

from .. import quotas
from . import rules

routes = api.Routes('Versions and discovery')
#: The newest first.
VERSIONS = ('2.18', '2.17', '2.16', '2.15', '2.14', '2.13', '2.12', '2.11', '2.10', '2.9', '2.8', '2.7', '2.6', '2.5', '2.4', '2.3',
            '2.2', '2.1', '2.0')
#: Those that only a cache makes.
CACHE = ('2.14', '2.16', '2.18')


def versions(req):
    """The versions document."""
    offered = VERSIONS if req.app.extra['cache'] else [version for version in VERSIONS if version not in CACHE]
    return {'versions': [{'id': f'v{version}', 'status': 'CURRENT' if version == offered[0] else 'SUPPORTED',
                          'links': [{'rel': 'self', 'href': f'{req.base_url}/v2/'}]} for version in offered]}


@routes.get('/', public=True, status=300, summary='List the versions')
def list_versions_at_the_root(req):
    return versions(req)


@routes.get('/versions', public=True, summary='List the versions')
def list_versions(req):
    return versions(req)


@routes.get('/v2', public=True, status=300, summary='List the versions')
def list_versions_below(req):
    return versions(req)


@routes.get('/openapi.json', public=True, summary='The OpenAPI document of this API')
def show_openapi(req):
    return api.Response(orjson.dumps(openapi.document(req.api)), media_type='application/json')


@routes.get('/v2/info/import', rule='get_import_info', default='@', summary='Show how data can be imported',
            response=schemas.obj({'import-methods': {'type': 'object'}}))
def show_import_methods(req):
    return {'import-methods': {'description': 'Import methods available.', 'type': 'array',
                               'value': list(req.app.conf.imports.methods)}}


@routes.get('/v2/info/stores', rule='get_stores_info', default='@', summary='List the stores',
            response=schemas.obj({'stores': schemas.array({'type': 'object'})}))
def list_stores(req):
    stores = req.app.extra['stores']
    return {'stores': [_store(stores, store) for store in stores.by_id.values()]}


@routes.get('/v2/info/stores/detail', rule='stores_info_detail', default=rules.SERVICE, summary='List the stores with details',
            response=schemas.obj({'stores': schemas.array({'type': 'object'})}))
def list_stores_in_detail(req):
    stores = req.app.extra['stores']
    return {'stores': [{**_store(stores, store), 'type': store.SCHEME, 'weight': store.conf.weight,
                        'properties': store.properties()} for store in stores.by_id.values()]}


def _store(stores, store):
    shown = {'id': store.id}
    if store.description:
        shown['description'] = store.description
    if store is stores.default:
        shown['default'] = 'true'
    if store.read_only:
        shown['read-only'] = 'true'
    if store.conf.weight:
        shown['weight'] = store.conf.weight
    return shown


@routes.get('/v2/info/usage', rule='get_usage', default='@', summary='Show the limits and the usage of the project',
            response=schemas.obj({'usage': {'type': 'object'}}))
def show_usage(req):
    limits = req.app.extra['limits'].of(req.ctx.project_id)
    with req.db.read() as connection:
        used = quotas.used(connection, req.ctx.project_id)
    for name in (quotas.SIZE, quotas.STAGE):
        used[name] = -(-used[name] // quotas.MIB)
    return {'usage': {name: {'limit': limits[name], 'usage': used[name]} for name in quotas.RESOURCES}}
