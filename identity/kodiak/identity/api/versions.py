"""Version documents."""
from kodiak.common import api

from . import home

routes = api.Routes('versions')
MEDIA = [{'base': 'application/json', 'type': 'application/vnd.openstack.identity-v3+json'}]
UPDATED = '2020-04-07T00:00:00Z'


def _version(req):
    return {'id': 'v3.14', 'status': 'stable', 'updated': UPDATED, 'media-types': MEDIA,
            'links': [{'rel': 'self', 'href': req.base_url + '/v3/'}]}


def older(req):
    """Version 2.0, as the version documents list it."""
    return {'id': 'v2.0', 'status': 'deprecated', 'updated': UPDATED,
            'media-types': [{'base': 'application/json', 'type': 'application/vnd.openstack.identity-v2.0+json'}],
            'links': [{'rel': 'self', 'href': req.base_url + '/v2.0/'}]}


@routes.get('/', public=True, status=300, summary='Versions of this API')
def versions(req):
    """300 Multiple Choices, or JSON-home where that is asked for."""
    if 'json-home' in req.http.headers.get('Accept', ''):
        return _home(req)
    return api.Response({'versions': {'values': [_version(req), older(req)]}}, status=300, headers={'Vary': 'X-Auth-Token'})


@routes.get('/v3', public=True, summary='Version 3 of this API')
def version(req):
    """The document of the version, or JSON-home where that is asked for."""
    if 'json-home' in req.http.headers.get('Accept', ''):
        return _home(req)
    return {'version': _version(req)}


def _home(req):
    return api.Response(home.document(req.api.endpoints), status=200, media_type='application/json-home')
