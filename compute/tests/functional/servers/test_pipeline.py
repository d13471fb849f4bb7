"""The pipeline as processes run it, out of api-paste.ini."""
import pytest

from kodiak.common import testing
from kodiak.compute import cmd


@pytest.fixture
def pipeline(cloud):
    """``ask(method, path, token)``: the status of a request."""
    application = cmd.load(cloud.app)

    def ask(path, token=None, service=None):
        return testing.Client(application, token, {'X-Service-Token': service}).get(path).status
    return ask


@pytest.mark.parametrize(('path', 'status'), [
    ('/', 200), ('/v2.1/', 200), ('/v2.1/openapi.json', 200), ('/placement/', 200), ('/placement/openapi.json', 200),
    ('/healthcheck', 200), ('/healthcheck/serving', 200), ('/v2.1/servers', 401), ('/v2/servers', 401),
    ('/placement/resource_providers', 401)])
def test_what_needs_no_token(pipeline, path, status):
    assert pipeline(path) == status


@pytest.mark.parametrize(('path', 'service', 'status'), [
    ('/v2.1/flavors', 'compute', 200), ('/v2.1/flavors', 'placement', 401), ('/v2.1/flavors', 'network', 401),
    ('/placement/resource_providers', 'placement', 200), ('/placement/resource_providers', 'compute', 401)])
def test_access_rules_of_application_credentials(cloud, pipeline, path, service, status):
    assert pipeline(path, limited(cloud, service, path)) == status


def test_access_rules_are_left_aside_for_a_service_only(cloud, pipeline):
    token = limited(cloud, 'compute', '/v2.1/flavors')
    assert pipeline('/v2.1/servers', token) == 401
    assert pipeline('/v2.1/servers', token, 'made up') == 401
    assert pipeline('/v2.1/servers', token, cloud.identity.token(testing.MEMBER)) == 401
    assert pipeline('/v2.1/servers', token, cloud.identity.token(testing.Persona('nova', 'service', ('service',)))) == 200


def limited(cloud, service, path):
    """A token of an application credential that may GET one path of one service."""
    return cloud.identity.token(testing.ADMIN, app_cred={'id': 'a', 'name': 'a', 'restricted': True, 'access_rules': [
        {'id': 'r', 'service': service, 'method': 'GET', 'path': path}]})
