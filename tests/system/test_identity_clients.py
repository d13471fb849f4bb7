"""Identity as other people's software meets it: a library of authenticators, keystoneauth, keystonemiddleware."""
import json
import time
import wsgiref.util

import pytest
from cloud import until

pyotp = pytest.importorskip('pyotp')
auth_token = pytest.importorskip('keystonemiddleware.auth_token')
keystoneauth1 = pytest.importorskip('keystoneauth1')
pytestmark = pytest.mark.system


def session(plugin):
    return keystoneauth1.session.Session(auth=plugin)


def account(person):
    return {'username': person.name, 'user_domain_id': 'default', 'project_id': person.project_id}


def test_two_factors_with_an_authenticator(admin_sdk, auth_url, person):
    from keystoneauth1 import exceptions
    from keystoneauth1.identity import v3
    ann, secret = person('member'), pyotp.random_base32()
    admin_sdk.identity.create_credential(user=ann.id, user_id=ann.id, type='totp', blob=secret)
    # A second factor alone is one factor, until a rule asks for both.
    single = v3.Auth(auth_url, [v3.TOTPMethod(username=ann.name, user_domain_id='default', passcode=pyotp.TOTP(secret).now())],
                     project_id=ann.project_id)
    assert session(single).get_user_id() == ann.id
    admin_sdk.identity.update_user(ann.id, options={
        'multi_factor_auth_enabled': True, 'multi_factor_auth_rules': [['password', 'totp']]})
    with pytest.raises(exceptions.MissingAuthMethods) as caught:
        ann.session.get_token()
    assert caught.value.required_auth_methods == [['password', 'totp']] and caught.value.receipt
    # The same digits count once, so this waits for the next ones.
    used = pyotp.TOTP(secret).now()
    code = until(40, 'the next passcode', lambda: pyotp.TOTP(secret).now() if pyotp.TOTP(secret).now() != used else None)
    both = v3.MultiFactor(auth_url, ['v3password', 'v3totp'], password=ann.password, passcode=code, **account(ann))
    assert session(both).get_user_id() == ann.id
    again = v3.MultiFactor(auth_url, ['v3password', 'v3totp'], password=ann.password, passcode=code, **account(ann))
    with pytest.raises(exceptions.Unauthorized):
        session(again).get_token()


def call(application, token=None):
    """(status, what the application was told) of a GET / through the middleware."""
    environ, status = {'PATH_INFO': '/', 'REQUEST_METHOD': 'GET'}, []
    wsgiref.util.setup_testing_defaults(environ)
    if token:
        environ['HTTP_X_AUTH_TOKEN'] = token
    body = b''.join(application(environ, lambda line, headers, *_: status.append(int(line.split()[0]))))
    return status[0], json.loads(body) if status[0] == 200 else None


def test_keystonemiddleware_takes_our_tokens(auth_url, person):
    service, ann = person('service'), person('member')

    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps({name: value for name, value in environ.items() if name.startswith('HTTP_X_')}).encode()]
    guarded = auth_token.filter_factory(
        {}, auth_type='password', auth_url=auth_url, username=service.name, password=service.password, user_domain_id='default',
        project_id=service.project_id, www_authenticate_uri=auth_url, token_cache_time='-1', memcached_servers='',
        include_service_catalog='true')(application)
    token = ann.session.get_token()
    status, seen = call(guarded, token)
    assert status == 200 and seen['HTTP_X_USER_ID'] == ann.id and seen['HTTP_X_PROJECT_ID'] == ann.project_id
    assert set(seen['HTTP_X_ROLES'].split(',')) == {'member', 'reader'} and 'identity' in seen['HTTP_X_SERVICE_CATALOG']
    assert call(guarded)[0] == 401 and call(guarded, token[:-8] + 'AAAAAAAA')[0] == 401
    ann.session.delete(auth_url + '/auth/tokens', headers={'X-Subject-Token': token})
    end = time.monotonic() + 10
    while call(guarded, token)[0] == 200:
        assert time.monotonic() < end, 'a revoked token is still taken'
        time.sleep(0.2)


def test_an_administrator_of_version_2(admin_sdk, auth_url, person):
    v2_client = pytest.importorskip('keystoneclient.v2_0.client')
    from keystoneauth1.identity import v2
    ann, account_of_admin = person('member'), admin_sdk.config.config['auth']
    # Where clients of its age look for the API of administrators.
    base = auth_url.removesuffix('/v3').rpartition(':')[0] + ':35357/v2.0'
    mine = session(v2.Password(base, username=account_of_admin['username'], password=account_of_admin['password'],
                               tenant_name=account_of_admin['project_name']))
    old = v2_client.Client(session=mine, endpoint_override=base)
    assert ann.project_id in {each.id for each in old.tenants.list()}
    assert {each.name for each in old.roles.roles_for_user(ann.id, ann.project_id)} == {'member', 'reader'}
    hers = session(v2.Password(base, username=ann.name, password=ann.password, tenant_id=ann.project_id))
    assert old.tokens.validate(hers.get_token()).user['id'] == ann.id
    with pytest.raises(keystoneauth1.exceptions.Forbidden):
        v2_client.Client(session=hers, endpoint_override=base).tenants.list()
