"""People of elsewhere: the running cloud trusts a real OpenID provider, which these tests start for themselves."""
import secrets
import shutil
import tempfile
import types
import urllib.parse
from pathlib import Path

import openid_provider
import pytest
import requests
from cloud import Client, images, settings, until

from kodiak.common.testing import free_port

pytestmark = [pytest.mark.system, pytest.mark.skipif(openid_provider.MISSING is not None, reason=openid_provider.MISSING or '')]
ORIGIN = 'https://dashboard.example/auth/websso/'
WORD = 'Sesame-6'


@pytest.fixture(scope='module')
def provider():
    """A running :class:`openid_provider.Provider` that knows ann and ben."""
    folder = Path(tempfile.mkdtemp(prefix='kodiak-openid-'))
    found = openid_provider.Provider(folder, free_port())
    try:
        found.start()
        found.person('ann', WORD, 'staff', 'secret')
        found.person('ben', WORD)
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope='module')
def trusted(admin_sdk, auth_url, provider):
    """The provider as the cloud knows it: ``id``, ``secret``, ``group``, ``project``, ``domain_id``."""
    found = types.SimpleNamespace(id='system' + secrets.token_hex(4), secret=secrets.token_hex(24))
    identity, base = admin_sdk.identity, '/OS-FEDERATION'
    found.websso = f'{auth_url}/auth/OS-FEDERATION/identity_providers/{found.id}/protocols/openid/websso'
    provider.application('kodiak', found.secret, found.websso, 'https://client.example/')
    provider.application('another', found.secret, 'https://another.example/')
    domain = identity.create_domain(name=found.id)
    found.domain_id = domain.id
    found.group = identity.create_group(name='staff', domain_id=domain.id)
    found.project = identity.create_project(name=found.id, domain_id=domain.id)
    identity.assign_project_role_to_group(found.project, found.group, identity.find_role('member', ignore_missing=False))

    def put(path, body):
        answer = identity.put(base + path, json=body)
        assert answer.status_code == 201, answer.text
    put(f'/identity_providers/{found.id}', {'identity_provider': {
        'enabled': True, 'remote_ids': [provider.issuer], 'domain_id': domain.id}})
    put(f'/mappings/{found.id}', {'mapping': {'rules': [{
        'local': [{'user': {'id': '{0}', 'name': '{1}', 'email': '{2}'}}, {'groups': '{3}', 'domain': {'id': domain.id}},
                  {'projects': [{'name': 'home of {1}', 'roles': [{'name': 'member'}]}]}],
        'remote': [{'type': 'OIDC-sub'}, {'type': 'OIDC-name'}, {'type': 'OIDC-email'},
                   {'type': 'OIDC-email', 'any_one_of': [r'@example\.org$'], 'regex': True},
                   {'type': 'OIDC-groups', 'blacklist': ['secret']}]}]}})
    put(f'/identity_providers/{found.id}/protocols/openid', {'protocol': {'mapping_id': found.id}})
    text = (f'[federation]\ntrusted_dashboard = {ORIGIN}\n'
            f'[idp_{found.id}]\nissuer = {provider.issuer}\nclient_id = kodiak\nclient_secret = {found.secret}\nscopes = openid')
    try:
        with settings('identity', text):
            def known():
                # Several processes may answer; all should know it.
                return all(begin(found).status_code == 302 for _ in range(20))
            until(40, 'identity knows the provider', known)
            yield found
    finally:
        provider_path = f'/identity_providers/{found.id}'
        for path in (provider_path + '/protocols/openid', f'/mappings/{found.id}', provider_path):
            identity.delete(base + path)
        identity.update_domain(domain, is_enabled=False)
        identity.delete_domain(domain)


def begin(trusted, browser=requests, origin=ORIGIN):
    """The answer to a browser that a dashboard sends to us."""
    return browser.get(trusted.websso, params={'origin': origin}, allow_redirects=False, timeout=10)


def by_password(auth_url, provider, trusted, name='ann', word=WORD, application='kodiak'):
    """The stock client as somebody whose password only the provider knows."""
    return Client('--os-auth-type', 'v3oidcpassword', '--os-auth-url', auth_url, '--os-identity-provider', trusted.id,
                  '--os-protocol', 'openid', '--os-access-token-endpoint', provider.issuer + '/token',
                  '--os-client-id', application, '--os-client-secret', trusted.secret, '--os-openid-scope', 'openid',
                  '--os-username', name, '--os-password', word, '--os-project-id', trusted.project.id)


def code_of(provider, url, name='ann'):
    """Where a browser is sent that comes to the provider with ``url`` and is logged in there as somebody."""
    browser = provider.browser(name, WORD, 'kodiak')
    answer = browser.get(url + '&g_continue', allow_redirects=False, timeout=10)
    assert answer.status_code == 302, answer.text
    return answer.headers['Location']


def page_of(provider, trusted, browser, name='ann'):
    """What a browser gets at the end of its way to the dashboard."""
    begun = begin(trusted, browser)
    assert begun.status_code == 302 and begun.headers['Location'].startswith(provider.issuer + '/auth?')
    return browser.get(code_of(provider, begun.headers['Location'], name), allow_redirects=False, timeout=10)


def test_the_stock_client_with_a_password_of_the_provider(auth_url, provider, trusted, admin):
    ann = by_password(auth_url, provider, trusted)
    issued = ann('token issue')
    assert issued['project_id'] == trusted.project.id
    shown = admin('user show', issued['user_id'])
    assert shown['name'] == 'Ann' and shown['domain_id'] == trusted.domain_id and shown['email'] == 'ann@example.org'
    assert {item['Name'] for item in ann('federation project list')} == {trusted.project.name, 'home of Ann'}
    # Another service takes the token, too.
    ann.text('image list')
    # The provider says 403 to a wrong password.
    assert by_password(auth_url, provider, trusted, word='wrong').run('token issue').returncode != 0
    # ben is in no group, so has no role there; the other is what somebody else's application was given.
    for more in ({'name': 'ben'}, {'application': 'another'}):
        done = by_password(auth_url, provider, trusted, **more).run('token issue')
        assert done.returncode != 0 and '401' in done.stderr, done.stderr


def test_keystoneauth_with_a_code_of_the_provider(auth_url, provider, trusted):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    location = code_of(provider, provider.issuer + '/auth?' + urllib.parse.urlencode({
        'response_type': 'code', 'client_id': 'kodiak', 'redirect_uri': 'https://client.example/', 'scope': 'openid',
        'state': 's', 'nonce': 'once'}))
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)['code'][0]
    plugin = v3.OidcAuthorizationCode(
        auth_url, trusted.id, 'openid', 'kodiak', trusted.secret,
        discovery_endpoint=provider.issuer + '/.well-known/openid-configuration', redirect_uri='https://client.example/',
        code=code, scope='openid', project_id=trusted.project.id)
    mine = session.Session(auth=plugin)
    assert images(mine) == 200
    access = plugin.get_access(mine)
    assert access.project_id == trusted.project.id and set(access.role_names) == {'member', 'reader'} and access.is_federated


def test_a_browser_on_its_way_to_the_dashboard(auth_url, provider, trusted):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    page = page_of(provider, trusted, requests.Session())
    assert page.status_code == 200 and f'action="{ORIGIN}"' in page.text
    token = page.text.split('name="token" value="')[1].split('"')[0]
    mine = session.Session(auth=v3.Token(auth_url, token, project_id=trusted.project.id))
    shown = mine.get(auth_url + '/auth/tokens', headers={'X-Subject-Token': mine.get_token()}).json()['token']
    assert shown['user']['OS-FEDERATION'] == {'identity_provider': {'id': trusted.id}, 'protocol': {'id': 'openid'},
                                              'groups': [{'id': trusted.group.id}]}
    assert 'openid' in shown['methods'] and {role['name'] for role in shown['roles']} == {'member', 'reader'}
    # Who has not begun here gets nothing of what the provider says, and no page but the dashboard's gets a token.
    back = code_of(provider, begin(trusted).headers['Location'])
    assert requests.get(back, allow_redirects=False, timeout=10).status_code == 401
    assert begin(trusted, origin='https://evil.example/').status_code == 401


def test_a_provider_that_is_trusted_no_more(admin, auth_url, provider, trusted):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    plugin = v3.OidcPassword(
        auth_url, trusted.id, 'openid', 'kodiak', trusted.secret, username='ann', password=WORD, scope='openid',
        access_token_endpoint=provider.issuer + '/token', project_id=trusted.project.id)
    mine = session.Session(auth=plugin)
    assert images(mine) == 200
    admin.text('identity provider set', '--disable', trusted.id)
    try:
        until(10, 'the end of the token at the image service', lambda: images(mine) == 401)
        done = by_password(auth_url, provider, trusted).run('token issue')
        assert done.returncode != 0 and '403' in done.stderr
    finally:
        admin.text('identity provider set', '--enable', trusted.id)
