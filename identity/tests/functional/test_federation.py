import urllib.parse

import pytest
import requests
import sqlalchemy as sa

from kodiak.common import errors, testing
from kodiak.identity import models

RULES = [
    {'local': [{'user': {'id': '{0}', 'name': '{1}', 'email': '{1}'}}, {'groups': '{2}', 'domain': {'id': 'default'}},
               {'projects': [{'name': 'home of {0}', 'roles': [{'name': 'member'}]}]}],
     'remote': [{'type': 'OIDC-sub'}, {'type': 'OIDC-email'}, {'type': 'OIDC-groups', 'blacklist': ['secret']}]}]
ORIGIN = 'https://dashboard.example/auth/websso/'


@pytest.fixture
def provider():
    """A real OpenID provider on a port; people log in by their name."""
    mock = pytest.importorskip('oidc_provider_mock')
    with mock.run_server_in_thread(user_claims=[mock.User(sub='ann', claims={
            'email': 'ann@example.org', 'groups': ['staff', 'secret']})]) as server:
        yield f'http://localhost:{server.server_port}'


@pytest.fixture
def federated(make_cloud, provider):
    """A cloud that trusts the provider as ``corp``, protocol ``openid``."""
    cloud = make_cloud(('federation', 'trusted_dashboard', [ORIGIN]))
    from kodiak.identity import oidc
    conf = cloud.core.conf
    conf.register_opts(oidc.OPTS, group='idp_corp')
    for name, value in (('issuer', provider), ('client_id', 'kodiak'), ('client_secret', 'xyzzy')):
        conf.set_override(name, value, 'idp_corp')
    admin = cloud.admin()
    base = '/v3/OS-FEDERATION'
    admin.put(base + '/identity_providers/corp', {'identity_provider': {'enabled': True, 'remote_ids': [provider]}}).expect(201)
    admin.put(base + '/mappings/m', {'mapping': {'rules': RULES}}).expect(201)
    admin.put(base + '/identity_providers/corp/protocols/openid', {'protocol': {'mapping_id': 'm'}}).expect(201)
    return cloud


def browse(cloud, provider, user='ann', tamper=lambda url: url):
    """What a browser does: asks us, is sent to the provider, logs in, comes back with our cookie."""
    client = testing.Client(cloud.pipeline)
    path = '/v3/auth/OS-FEDERATION/websso/openid?origin=' + urllib.parse.quote(ORIGIN)
    there = urllib.parse.urlsplit(client.get(path).expect(302).headers['Location'])
    begun = client.get(f'{there.path}?{there.query}').expect(302)
    cookie = begun.headers['Set-Cookie']
    assert 'HttpOnly' in cookie and 'SameSite=Lax' in cookie
    answer = requests.post(begun.headers['Location'], data={'sub': user}, allow_redirects=False, timeout=10)
    back = urllib.parse.urlsplit(tamper(answer.headers['Location']))
    return client.get(f'{back.path}?{back.query}', headers={'Cookie': cookie.split(';')[0]})


def token_in(page):
    return page.data.decode().split('name="token" value="')[1].split('"')[0]


def test_a_browser_logs_in(federated, provider):
    cloud = federated
    group = cloud.admin().post('/v3/groups', {'group': {'name': 'staff'}}).json['group']
    project = cloud.project('p')
    cloud.admin().put(f'/v3/projects/{project["id"]}/groups/{group["id"]}/roles/{cloud.role_id("reader")}').expect(204)
    page = browse(cloud, provider).expect(200)
    assert f'action="{ORIGIN}"' in page.data.decode() and page.headers['Content-Type'].startswith('text/html')
    client = cloud.client(token_in(page))
    text = token_in(page)
    shown = client.get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(200).json['token']
    assert shown['methods'] == ['openid'] and shown['user']['name'] == 'ann@example.org'
    assert shown['user']['OS-FEDERATION'] == {'identity_provider': {'id': 'corp'}, 'protocol': {'id': 'openid'},
                                              'groups': [{'id': group['id']}]}
    assert sorted(p['name'] for p in client.get('/v3/auth/projects').json['projects']) == ['home of ann', 'p']
    scoped = testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': {
        'identity': {'methods': ['token'], 'token': {'id': text}}, 'scope': {'project': {'id': project['id']}}}}).expect(201)
    assert [role['name'] for role in scoped.json['token']['roles']] == ['reader']
    assert scoped.json['token']['user']['OS-FEDERATION']['identity_provider'] == {'id': 'corp'}
    again = cloud.client(token_in(browse(cloud, provider))).get('/v3/auth/projects').expect(200)
    assert len(again.json['projects']) == 2
    with cloud.db.write() as connection:
        assert connection.execute(sa.select(sa.func.count()).where(models.users.c.kind == 'federated')).scalar() == 1
        connection.execute(sa.update(models.members).values(expires_at=sa.literal('2001-01-01 00:00:00')))
    assert [p['name'] for p in client.get('/v3/auth/projects').json['projects']] == ['home of ann']
    testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': {
        'identity': {'methods': ['token'], 'token': {'id': text}}, 'scope': {'project': {'id': project['id']}}}}).expect(401)
    cloud.admin().patch('/v3/OS-FEDERATION/identity_providers/corp', {'identity_provider': {'enabled': False}}).expect(200)
    client.get('/v3/auth/projects').expect(401)


def test_who_did_not_begin_here_does_not_get_in(federated, provider):
    browse(federated, provider, tamper=lambda url: url.replace('state=', 'state=x')).expect(401)
    browse(federated, provider, tamper=lambda url: url.replace('code=', 'code=x')).expect(401)
    browse(federated, provider, tamper=lambda url: url.split('?')[0] + '?error=access_denied').expect(401)
    client = testing.Client(federated.pipeline)
    path = '/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/openid/websso'
    client.get(path + '?origin=https://evil.example/').expect(401)
    client.get(path).expect(400)
    client.get(path + '?code=x&state=y').expect(401)
    client.get('/v3/auth/OS-FEDERATION/websso/nothing?origin=x').expect(404)


def test_a_client_brings_what_the_provider_signed(federated, provider):
    code = requests.post(f'{provider}/oauth2/authorize?' + urllib.parse.urlencode({
        'client_id': 'kodiak', 'redirect_uri': 'https://c/', 'response_type': 'code', 'scope': 'openid email profile', 'state': 's',
        'nonce': 'n'}), data={'sub': 'ann'}, allow_redirects=False, timeout=10)
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(code.headers['Location']).query)['code'][0]
    given = requests.post(f'{provider}/oauth2/token', auth=('kodiak', 'x'), timeout=10, data={
        'grant_type': 'authorization_code', 'code': code, 'redirect_uri': 'https://c/'}).json()
    path = '/v3/OS-FEDERATION/identity_providers/corp/protocols/openid/auth'
    client = testing.Client(federated.pipeline)
    token = client.post(path, headers={'Authorization': 'Bearer ' + given['id_token']}).expect(201)
    assert token.json['token']['user']['name'] == 'ann@example.org' and 'roles' not in token.json['token']
    client.post(path, headers={'Authorization': 'Bearer ' + given['id_token'][:-6] + 'AAAAAA'}).expect(401)
    client.post(path, headers={'Authorization': 'Bearer x'}).expect(401)
    client.post(path).expect(401)
    federated.core.conf.set_override('client_id', 'somebody else', 'idp_corp')
    client.post(path, headers={'Authorization': 'Bearer ' + given['id_token']}).expect(401)
    admin = federated.admin()
    federated.core.conf.set_override('client_id', 'kodiak', 'idp_corp')
    admin.patch('/v3/OS-FEDERATION/identity_providers/corp', {'identity_provider': {'remote_ids': ['https://other']}}).expect(200)
    client.post(path, headers={'Authorization': 'Bearer ' + given['id_token']}).expect(403)


def test_a_provider_in_the_configuration_needs_no_restart(cloud, tmp_path):
    from kodiak.common import service
    from kodiak.identity import oidc
    conf = cloud.core.conf
    # As a process does at a SIGHUP: the configuration is read again, then the application is made anew.
    with pytest.raises(errors.NotImplementedHere):
        cloud.core.oidc.of('corp')
    path = tmp_path / '0' / 'identity.conf'
    path.write_text(path.read_text() + f'[federation]\ntrusted_dashboard = {ORIGIN}\n'
                    '[idp_corp]\nissuer = http://corp.example\nclient_id = kodiak\nclient_secret = xyzzy\n')
    service.reload(cloud.runtime)
    assert oidc.Providers(conf).of('corp').issuer == 'http://corp.example' and conf.federation.trusted_dashboard == [ORIGIN]


@pytest.fixture
def strange():
    """A provider that says what the test wants: ``strange.says`` maps paths to JSON values, or to text that is none."""
    import json
    import types

    from werkzeug import wrappers

    says = {}

    def application(environ, start_response):
        value = says.get(environ['PATH_INFO'])
        text = value if isinstance(value, str) else json.dumps(value)
        status = 404 if value is None else 200
        return wrappers.Response(text, status, mimetype='application/json')(environ, start_response)
    with testing.serving(application) as url:
        yield types.SimpleNamespace(url=url, says=says, description={'issuer': url, **{name: f'{url}/{name}' for name in (
            'jwks_uri', 'authorization_endpoint', 'token_endpoint', 'introspection_endpoint', 'userinfo_endpoint')}})


def test_what_a_provider_says_is_not_believed_blindly(cloud, strange, monkeypatch):
    from kodiak.identity import oidc
    conf, says, home = cloud.core.conf, strange.says, '/.well-known/openid-configuration'
    conf.register_opts(oidc.OPTS, group='idp_corp')
    for name, value in (('issuer', strange.url), ('client_id', 'kodiak'), ('client_secret', 'xyzzy')):
        conf.set_override(name, value, 'idp_corp')
    says['/jwks_uri'] = {'keys': []}
    for bad in (None, 'x', [], {}, {'issuer': None}, {**strange.description, 'issuer': 'https://other'},
                {**strange.description, 'token_endpoint': 1}, {**strange.description, 'jwks_uri': strange.url + '/nothing'}):
        says[home] = bad
        with pytest.raises(errors.BadGateway):
            oidc.Provider(conf.idp_corp).metadata()
    says[home] = strange.description
    says['/jwks_uri'] = {'keys': [1, None, {}, {'kty': 'RSA', 'kid': [], 'n': 'x', 'e': 1}]}
    provider = oidc.Provider(conf.idp_corp)
    for bad in (None, 'x', [], {'active': 'yes'}, {'active': True}, {'active': True, 'aud': 1}, {'active': True, 'aud': [{}]},
                {'active': True, 'client_id': 'other'}, {'active': True, 'client_id': 'kodiak', 'iss': 'https://other'}):
        says['/introspection_endpoint'] = bad
        with pytest.raises(errors.Unauthorized):
            provider.of_bearer('text')
    says['/introspection_endpoint'] = {'active': True, 'client_id': 'kodiak'}
    for nothing in (None, 'x', [], {'email': 'ann@example.org'}):
        says['/userinfo_endpoint'] = nothing
        claims = provider.of_bearer('text')
        # An application in its own name: nobody's name and address are taken for its.
        assert 'email' not in claims and 'REMOTE_USER' not in oidc.assertion(claims)
    for bad in (None, 'x', [], {'id_token': 1}, {'id_token': 'a.b.c'}):
        says['/token_endpoint'] = bad
        with pytest.raises(errors.Unauthorized):
            provider.finish('code', {'nonce': 'n', 'verifier': 'v'}, 'https://c/')
    # What it has said of itself holds while it is away, for a day.
    now = [oidc.time.monotonic() + 2 * oidc.KEEP]
    monkeypatch.setattr(oidc.time, 'monotonic', lambda: now[0])
    says[home] = None
    assert provider.metadata() == strange.description
    now[0] += 24 * oidc.KEEP
    with pytest.raises(errors.BadGateway):
        provider.metadata()
    says[home] = strange.description
    now[0] += oidc.AGAIN + 1
    assert provider.metadata() == strange.description


def test_identity_providers(cloud):
    admin, base = cloud.admin(), '/v3/OS-FEDERATION/identity_providers'
    made = admin.put(base + '/a', {'identity_provider': {'remote_ids': ['x', 'y']}}).expect(201).json['identity_provider']
    assert made['enabled'] is False and made['remote_ids'] == ['x', 'y']
    assert admin.get('/v3/domains/' + made['domain_id']).expect(200)
    admin.put(base + '/a', {'identity_provider': {}}).expect(409)
    admin.put(base + '/b', {'identity_provider': {'remote_ids': ['x']}}).expect(409)
    admin.put(base + '/b', {'identity_provider': {'domain_id': 'nowhere'}}).expect(404)
    admin.put(base + '/b', {'identity_provider': {'colour': 'red'}}).expect(400)
    admin.patch(base + '/a', {'identity_provider': {'domain_id': 'default'}}).expect(400)
    changed = admin.patch(base + '/a', {'identity_provider': {'remote_ids': ['z'], 'description': 'd'}}).expect(200)
    assert changed.json['identity_provider']['remote_ids'] == ['z']
    assert [each['id'] for each in admin.get(base + '?enabled=false').json['identity_providers']] == ['a']
    admin.put(base + '/a/protocols/p', {'protocol': {'mapping_id': 'nothing'}}).expect(400)
    admin.put('/v3/OS-FEDERATION/mappings/m', {'mapping': {'id': 'n', 'rules': RULES}}).expect(400)
    admin.put('/v3/OS-FEDERATION/mappings/m', {'mapping': {'id': 'm', 'rules': RULES, 'schema_version': None}}).expect(201)
    admin.put('/v3/OS-FEDERATION/mappings/m2', {'mapping': {'rules': [{}]}}).expect(400)
    admin.put(base + '/a/protocols/p', {'protocol': {'mapping_id': 'm'}}).expect(201)
    admin.put(base + '/nothing/protocols/p', {'protocol': {'mapping_id': 'm'}}).expect(404)
    assert admin.get(base + '/a/protocols/p').json['protocol']['links']['identity_provider'].endswith('/identity_providers/a')
    assert len(admin.get(base + '/a/protocols').json['protocols']) == 1
    admin.patch(base + '/a/protocols/p', {'protocol': {'remote_id_attribute': 'X'}}).expect(200)
    assert admin.patch('/v3/OS-FEDERATION/mappings/m', {'mapping': {'rules': RULES}}).json['mapping']['rules'] == RULES
    admin.delete(base + '/a/protocols/p').expect(204)
    admin.delete('/v3/OS-FEDERATION/mappings/m').expect(204)
    admin.delete(base + '/a').expect(204)
    admin.get(base + '/a').expect(404)


def test_service_providers_stand_in_tokens(cloud):
    admin, base = cloud.admin(), '/v3/OS-FEDERATION/service_providers'
    body = {'auth_url': 'https://sp/auth', 'sp_url': 'https://sp/saml', 'enabled': True}
    made = admin.put(base + '/sp', {'service_provider': body}).expect(201).json['service_provider']
    assert made['relay_state_prefix'] == 'ss:mem:'
    assert cloud.login().json['token']['service_providers'] == [{'id': 'sp', 'auth_url': 'https://sp/auth', 'sp_url': 'https://sp/saml'}]
    admin.patch(base + '/sp', {'service_provider': {'enabled': False}}).expect(200)
    assert 'service_providers' not in cloud.login().json['token']
    admin.put(base + '/x', {'service_provider': {'auth_url': 'x', 'sp_url': 'https://y'}}).expect(400)
    admin.delete(base + '/sp').expect(204)
    admin.get(base + '/sp').expect(404)


def test_an_administrator_links_a_user(cloud):
    admin = cloud.admin()
    admin.put('/v3/OS-FEDERATION/identity_providers/a', {'identity_provider': {}}).expect(201)
    admin.put('/v3/OS-FEDERATION/mappings/m', {'mapping': {'rules': RULES}}).expect(201)
    admin.put('/v3/OS-FEDERATION/identity_providers/a/protocols/p', {'protocol': {'mapping_id': 'm'}}).expect(201)
    link = [{'idp_id': 'a', 'protocols': [{'protocol_id': 'p', 'unique_id': 'ann@corp'}]}]
    user = cloud.user('ann', federated=link)
    assert user['federated'] == link and admin.get('/v3/users/' + user['id']).json['user']['federated'] == link
    assert [each['id'] for each in admin.get('/v3/users?unique_id=ann%40corp').json['users']] == [user['id']]
    admin.post('/v3/users', {'user': {'name': 'x', 'federated': [{'idp_id': 'a', 'protocols': [
        {'protocol_id': 'no', 'unique_id': 'x'}]}]}}).expect(400)
    assert 'federated' not in admin.patch('/v3/users/' + user['id'], {'user': {'federated': []}}).expect(200).json['user']
