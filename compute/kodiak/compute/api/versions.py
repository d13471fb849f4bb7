"""Version documents: of all versions at the root, of one at its own."""
from kodiak.common import api
from kodiak.common.api import openapi
from kodiak.compute.api import faults

MINIMUM, MAXIMUM = (2, 1), (2, 96)
MEDIA = (('application/json', 'application/vnd.openstack.compute+json;version=2.1'),)
DOCUMENTS = {
    'v2.0': api.VersionDocument('v2.0', '/v2/', status='SUPPORTED', updated='2011-01-21T11:33:21Z'),
    'v2.1': api.VersionDocument('v2.1', '/v2.1/', updated='2013-07-23T11:33:21Z', version='2.96', min_version='2.1'),
}

routes = api.Routes('versions')
root = api.Routes('versions')


class Fixed(api.Microversions):
    """The API without microversions: everything is as in the first one, and no header says so."""

    def of(self, headers):
        """Always the minimum."""
        return self.minimum

    def headers(self, version):
        """None."""
        return []


def document(req, name):
    """One version with its links to what describes it."""
    found = DOCUMENTS[name].document(req.base_url)
    found['links'] += [{'rel': 'describedby', 'type': 'text/html', 'href': 'https://docs.openstack.org/'}]
    found['media-types'] = [{'base': base, 'type': kind} for base, kind in MEDIA]
    return found


@root.get('/', public=True, status=200, summary='List the versions of the API')
def all_versions(req):
    return {'versions': [DOCUMENTS[name].document(req.base_url) for name in ('v2.0', 'v2.1')]}


@routes.get('/', public=True, summary='Show the version of the API')
def one_version(req):
    return {'version': document(req, 'v2.0' if req.api.prefix == '/v2' else 'v2.1')}


@routes.get('/openapi.json', public=True, summary='Show the OpenAPI document')
def describe(req):
    return openapi.document(req.api)


ROOT = api.Api('compute', [root], faults.body, title='Kodiak Compute')
