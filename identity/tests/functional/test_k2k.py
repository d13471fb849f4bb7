"""Keystone to Keystone: two clouds of ours, and the plugin of keystoneauth between them."""
import base64
import contextlib
import os
import shutil

import pytest

from kodiak.common import testing

pytest.importorskip('signxml')
pytestmark = pytest.mark.skipif(bool(os.environ.get('KODIAK_TEST_DATABASE')), reason='two clouds need two databases')

ECP = '/v3/auth/OS-FEDERATION/saml2/ecp'
THERE = '/v3/OS-FEDERATION/identity_providers/home/protocols/saml2/auth'
RULES = [{'local': [{'user': {'name': '{0} of {1}'}}, {'groups': '{2}', 'domain': {'id': 'default'}},
                    {'projects': [{'name': '{3}', 'roles': [{'name': 'reader'}]}]}],
          'remote': [{'type': 'openstack_user'}, {'type': 'openstack_user_domain'}, {'type': 'openstack_groups'},
                     {'type': 'openstack_project'}, {'type': 'openstack_roles', 'any_one_of': ['member']}]}]


@pytest.fixture(scope='module')
def own_keys(tmp_path_factory):
    """A folder with keys, made once."""
    from kodiak.identity.saml import keys
    folder = tmp_path_factory.mktemp('saml') / 'saml'
    keys.Keys(str(folder)).setup('cloud')
    return folder


class Served:
    """A cloud behind a port of its own: ``url``, ``cloud``."""

    def __init__(self, make_cloud, keys):
        self._running = contextlib.ExitStack()
        self.url = self._running.enter_context(testing.serving(self._call))
        self.cloud = make_cloud(('api', 'public_endpoint', self.url))
        shutil.copytree(keys, self.cloud.core.saml.keys.path)
        # Another cloud has other keys for its tokens.
        shutil.rmtree(self.cloud.core.ring.path)
        self.cloud.core.ring.setup()
        self.cloud.move(self.url)

    def _call(self, environ, start_response):
        return self.cloud.pipeline(environ, start_response)

    def stop(self):
        """End the server."""
        self._running.close()


@pytest.fixture
def clouds(make_cloud, own_keys, tmp_path):
    """``(home, away)``: away trusts home as the identity provider ``home``, home knows away as the service provider ``away``."""
    home, away = Served(make_cloud, own_keys), Served(make_cloud, own_keys)
    try:
        told = home.cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').expect(200)
        (tmp_path / 'home.xml').write_bytes(told.data)
        away.cloud.core.saml.serves('home', 'saml2')
        away.cloud.core.conf.set_override('metadata', str(tmp_path / 'home.xml'), 'idp_home')
        admin, base = away.cloud.admin(), '/v3/OS-FEDERATION'
        admin.put(base + '/identity_providers/home', {'identity_provider': {
            'enabled': True, 'remote_ids': [home.url + '/v3/OS-FEDERATION/saml2/metadata']}}).expect(201)
        admin.put(base + '/mappings/m', {'mapping': {'rules': RULES}}).expect(201)
        admin.put(base + '/identity_providers/home/protocols/saml2', {'protocol': {'mapping_id': 'm'}}).expect(201)
        home.cloud.admin().put(base + '/service_providers/away', {'service_provider': {
            'auth_url': away.url + THERE, 'sp_url': away.url + THERE, 'enabled': True}}).expect(201)
        yield home, away
    finally:
        home.stop()
        away.stop()


@pytest.fixture
def ann(clouds):
    """At home: user ann in group staff, member of the project work."""
    cloud = clouds[0].cloud
    user, project = cloud.user('ann'), cloud.project('work')
    cloud.grant(user['id'], 'member', project['id'])
    group = cloud.admin().post('/v3/groups', {'group': {'name': 'staff'}}).expect(201).json['group']
    cloud.admin().put(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(204)
    return user, project


def asked(token, sp='away'):
    """The body of a request for an assertion."""
    return {'auth': {'identity': {'methods': ['token'], 'token': {'id': token}}, 'scope': {'service_provider': {'id': sp}}}}


def token_of(answer):
    return answer.expect(201).headers['X-Subject-Token']


def test_keystoneauth_takes_a_user_to_the_other_cloud(clouds, ann):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    home, away = clouds
    group = away.cloud.admin().post('/v3/groups', {'group': {'name': 'staff'}}).expect(201).json['group']
    domain_id = away.cloud.admin().get('/v3/OS-FEDERATION/identity_providers/home').json['identity_provider']['domain_id']
    here = v3.Password(home.url + '/v3', username='ann', password='correct horse', user_domain_id='default', project_name='work',
                       project_domain_id='default')
    there = v3.Keystone2Keystone(here, 'away', project_name='work', project_domain_id=domain_id)
    client = session.Session(there)
    token = client.get_token()
    shown = away.cloud.client(token).get('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(200).json['token']
    assert shown['user']['name'] == 'ann of Default' and shown['project']['name'] == 'work'
    assert [role['name'] for role in shown['roles']] == ['reader']
    assert shown['user']['OS-FEDERATION'] == {'identity_provider': {'id': 'home'}, 'protocol': {'id': 'saml2'},
                                              'groups': [{'id': group['id']}]}
    assert client.get_endpoint(service_type='identity') == away.url + '/v3'
    home.cloud.client(token).get('/v3/auth/projects').expect(401)


def test_who_gets_an_assertion(clouds, ann):
    home, away = clouds
    cloud, client = home.cloud, testing.Client(home.cloud.pipeline)
    token = token_of(cloud.login('ann', project='work'))
    answer = client.post('/v3/auth/OS-FEDERATION/saml2', asked(token)).expect(200)
    assert answer.headers['X-sp-url'] == answer.headers['X-auth-url'] == away.url + THERE
    assert b'Assertion' in answer.data and b'Envelope' not in answer.data and answer.headers['Content-Type'].startswith('text/xml')
    client.post(ECP, asked(token_of(cloud.login('ann', project=None)))).expect(403)
    client.post(ECP, asked(token_of(cloud.login(scope={'system': {'all': True}})))).expect(403)
    client.post(ECP, asked(token, 'nowhere')).expect(404)
    client.post(ECP, asked('nonsense')).expect(404)
    client.post(ECP, {'auth': {'identity': {'methods': ['password']}, 'scope': {'service_provider': {'id': 'away'}}}}).expect(400)
    client.post(ECP, {'auth': {'identity': {'methods': ['token'], 'token': {'id': token}}, 'scope': {'project': {}}}}).expect(400)
    mine = cloud.client(token)
    made = mine.post(f'/v3/users/{ann[0]["id"]}/application_credentials', {'application_credential': {
        'name': 'r', 'access_rules': [{'service': 'compute', 'method': 'GET', 'path': '/v2.1/servers'}]}}
                     ).expect(201).json['application_credential']
    limited = client.post('/v3/auth/tokens', {'auth': {'identity': {
        'methods': ['application_credential'], 'application_credential': {'id': made['id'], 'secret': made['secret']}}}})
    client.post(ECP, asked(token_of(limited))).expect(403)
    cloud.admin().patch('/v3/OS-FEDERATION/service_providers/away', {'service_provider': {'enabled': False}}).expect(200)
    client.post(ECP, asked(token)).expect(403)
    cloud.admin().patch('/v3/OS-FEDERATION/service_providers/away', {'service_provider': {'enabled': True}}).expect(200)
    mine.delete('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(204)
    client.post(ECP, asked(token)).expect(404)


def test_an_assertion_is_good_once_and_only_where_it_is_for(clouds, ann):
    home, away = clouds
    client, there = testing.Client(home.cloud.pipeline), testing.Client(away.cloud.pipeline)
    token = token_of(home.cloud.login('ann', project='work'))
    envelope = client.post(ECP, asked(token)).expect(200).data
    there.post(THERE, data=envelope.replace(b'>ann<', b'>root<')).expect(401)
    there.post(THERE, data=envelope).expect(201)
    there.post(THERE, data=envelope).expect(401)
    admin, path = home.cloud.admin(), '/v3/OS-FEDERATION/service_providers/away'
    admin.patch(path, {'service_provider': {'sp_url': 'http://elsewhere.example/'}}).expect(200)
    there.post(THERE, data=client.post(ECP, asked(token)).expect(200).data).expect(401)
    # Who isn't a member at home, the mapping doesn't know.
    admin.patch(path, {'service_provider': {'sp_url': away.url + THERE}}).expect(200)
    other = token_of(home.cloud.login())
    assert 'Could not map' in there.post(THERE, data=client.post(ECP, asked(other)).data).expect(401).json['error']['message']


def test_the_command_makes_keys_and_prints_the_metadata(clouds, capsys, tmp_path):
    from kodiak.identity import admin, api, cmd
    config = tmp_path / 'identity.conf'
    config.write_text(f'[DEFAULT]\nstate_path = {tmp_path}\n'
                      f'[database]\nconnection = {clouds[0].cloud.core.conf.database.connection}\n'
                      '[api]\npublic_endpoint = https://cloud.example:5000\n')

    def run(*arguments):
        status = admin.build(cmd.load_conf, lambda: [api.API]).run(['--config-file', str(config), *arguments])
        return status, capsys.readouterr().out
    assert 'Made 2 keys' in run('saml', 'setup')[1] and 'has its keys' in run('saml', 'setup')[1]
    from kodiak.identity.saml import keys, metadata
    held = keys.Keys(str(tmp_path / 'identity' / 'saml'))
    status, text = run('saml', 'metadata')
    told = metadata.read(text.encode())
    assert status == 0 and told.entity_id == 'https://cloud.example:5000/v3/OS-FEDERATION/saml2/metadata'
    assert told.certificates == held.certificates() and len(told.certificates) == 2
    run('saml', 'rotate')
    assert held.certificates()[0] == told.certificates[1] and held.certificates()[1] not in told.certificates
    assert held.signing()[1] == held.certificates()[0]


def test_without_its_libraries_identity_says_what_is_missing(clouds, ann, monkeypatch):
    import importlib

    from kodiak.identity import saml

    def missing(name, package=None):
        raise ModuleNotFoundError("No module named 'signxml'", name='signxml')
    token = token_of(clouds[0].cloud.login('ann', project='work'))
    monkeypatch.setattr(importlib, 'import_module', missing)
    message = testing.Client(clouds[0].cloud.pipeline).post(ECP, asked(token)).expect(501).json['error']['message']
    assert 'kodiak-identity[saml]' in message and saml.part is not None


@pytest.mark.skipif(shutil.which('xmlsec1') is None, reason='pysaml2 verifies with the program xmlsec1')
def test_a_service_provider_that_is_not_ours_takes_our_assertion(clouds, ann):
    saml2 = pytest.importorskip('saml2')
    from saml2 import client, config
    from saml2.xml import schema
    home, _ = clouds
    told = home.cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').data.decode()
    schema.validate(told)
    path = '/v3/OS-FEDERATION/service_providers/away'
    home.cloud.admin().patch(path, {'service_provider': {'sp_url': 'https://sp.example/acs'}}).expect(200)
    other = client.Saml2Client(config=config.SPConfig().load({
        'entityid': 'https://sp.example', 'allow_unknown_attributes': True, 'xmlsec_binary': shutil.which('xmlsec1'),
        'metadata': {'inline': [told]},
        'service': {'sp': {'endpoints': {'assertion_consumer_service': [('https://sp.example/acs', saml2.BINDING_HTTP_POST)]},
                           'allow_unsolicited': True, 'want_assertions_signed': True, 'want_response_signed': False}}}))
    token = token_of(home.cloud.login('ann', project='work'))
    made = testing.Client(home.cloud.pipeline).post('/v3/auth/OS-FEDERATION/saml2', asked(token)).expect(200)
    schema.validate(made.data.decode())
    read = other.parse_authn_request_response(base64.b64encode(made.data).decode(), saml2.BINDING_HTTP_POST)
    assert read.ava == {'openstack_user': ['ann'], 'openstack_user_domain': ['Default'], 'openstack_roles': ['member', 'reader'],
                        'openstack_project': ['work'], 'openstack_project_domain': ['Default'],
                        'openstack_groups': ['JSON:{"name":"staff","domain":{"name":"Default"}}']}
    assert read.issuer() == home.url + '/v3/OS-FEDERATION/saml2/metadata'
