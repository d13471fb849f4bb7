"""keystonemiddleware, unmodified, in front of an application: it takes our tokens by asking our API."""
import pytest
import requests

keystonemiddleware = pytest.importorskip('keystonemiddleware.auth_token')


def service_app(url, **more):
    """A WSGI application that shows what the middleware told it, behind the middleware."""
    import json

    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps({name: value for name, value in environ.items() if name.startswith('HTTP_X_')}).encode()]
    return keystonemiddleware.filter_factory({}, **{
        'auth_type': 'password', 'auth_url': url, 'username': 'svc', 'password': 'correct horse', 'user_domain_id': 'default',
        'project_name': 'service', 'project_domain_id': 'default', 'www_authenticate_uri': url, 'memcached_servers': '',
        'token_cache_time': '-1', 'include_service_catalog': 'true', **more})(application)


def test_keystonemiddleware_accepts_our_tokens(cloud, server):
    from kodiak.common import testing
    svc, project = cloud.user('svc'), cloud.project('service')
    cloud.grant(svc['id'], 'service', project['id'])
    user, home = cloud.user('ann'), cloud.project('home')
    cloud.grant(user['id'], 'member', home['id'])
    application = service_app(server)
    token = cloud.login('ann', project=home['id']).headers['X-Subject-Token']
    seen = testing.Client(application, token).get('/').expect(200).json
    assert seen['HTTP_X_USER_ID'] == user['id'] and seen['HTTP_X_PROJECT_ID'] == home['id']
    assert set(seen['HTTP_X_ROLES'].split(',')) == {'member', 'reader'}
    assert seen['HTTP_X_IDENTITY_STATUS'] == 'Confirmed' and 'identity' in seen['HTTP_X_SERVICE_CATALOG']
    testing.Client(application, 'kd1.wrong.wrong.wrong').get('/').expect(401)
    testing.Client(application).get('/').expect(401)
    cloud.client(token).delete('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(204)
    testing.Client(application, token).get('/').expect(401)


def test_keystonemiddleware_enforces_access_rules_of_ours(cloud, server):
    from kodiak.common import testing
    svc, project = cloud.user('svc'), cloud.project('service')
    cloud.grant(svc['id'], 'service', project['id'])
    cloud.grant(svc['id'], 'member', project['id'])
    mine = cloud.client(cloud.login('svc', project=project['id']))
    made = mine.post(f'/v3/users/{svc["id"]}/application_credentials', {'application_credential': {
        'name': 'r', 'access_rules': [{'service': 'compute', 'method': 'GET', 'path': '/v2.1/servers'}]}}
                     ).expect(201).json['application_credential']
    token = testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': {'identity': {
        'methods': ['application_credential'], 'application_credential': {'id': made['id'], 'secret': made['secret']}}}}
                                                ).expect(201).headers['X-Subject-Token']
    cloud.admin().post('/v3/services', {'service': {'type': 'compute'}}).expect(201)
    application = service_app(server, service_type='compute')
    testing.Client(application, token).get('/v2.1/servers').expect(200)
    testing.Client(application, token).get('/v2.1/flavors').expect(401)


def test_keystoneauth_logs_in_and_finds_the_catalog(cloud, server):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    auth = v3.Password(server + '/v3', username='admin', password='correct horse', user_domain_id='default',
                       project_name='admin', project_domain_id='default')
    client = session.Session(auth)
    assert client.get('/users', endpoint_filter={'service_type': 'identity'}).json()['users'][0]['name'] == 'admin'
    assert client.get_endpoint(service_type='identity') == server + '/v3'
    assert requests.get(server + '/', timeout=10).status_code == 300
