"""Version documents."""
from kodiak.common import api

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
        return home(req)
    return api.Response({'versions': {'values': [_version(req), older(req)]}}, status=300, headers={'Vary': 'X-Auth-Token'})


@routes.get('/v3', public=True, summary='Version 3 of this API')
def version(req):
    """The document of the version, or JSON-home where that is asked for."""
    if 'json-home' in req.http.headers.get('Accept', ''):
        return home(req)
    return {'version': _version(req)}


def home(req):
    """The JSON-home document: every path, by the method and the summary of its first endpoint."""
    found = {}
    for endpoint in req.api.endpoints:
        path = endpoint.openapi_path
        if not path.startswith('/v3/'):
            continue
        entry = {'href-template': path, 'href-vars': {name: f'https://docs.openstack.org/api/openstack-identity/3/param/{name}'
                                                      for name in endpoint.parameters}} if endpoint.parameters else {'href': path}
        found.setdefault(_relation(path), entry)
    return api.Response({'resources': found}, status=200, media_type='application/json-home')


def _relation(path):
    parts = [part for part in path.removeprefix('/v3/').split('/') if part]
    base, name = 'https://docs.openstack.org/api/openstack-identity/3', []
    if parts[0].startswith('OS-'):
        base += f'/ext/{parts[0]}/1.0'
        parts = parts[1:]
    for index, part in enumerate(parts):
        if part.startswith('{'):
            if index == len(parts) - 1 and name:
                name[-1] = name[-1][:-3] + 'y' if name[-1].endswith('ies') else name[-1].removesuffix('s')
            continue
        name.append(part)
    return f'{base}/rel/' + '_'.join(name)
