"""The version document, and the API's description."""
from kodiak.common import api
from kodiak.common.api import openapi

routes = api.Routes('versions')


@routes.get('/', public=True, summary='Show the version of the Placement API')
def show(req):
    return {'versions': [{'id': 'v1.0', 'max_version': '1.39', 'min_version': '1.0', 'status': 'CURRENT',
                          'links': [{'rel': 'self', 'href': ''}]}]}


@routes.get('/openapi.json', public=True, summary='Show the OpenAPI document')
def describe(req):
    return openapi.document(req.api)
