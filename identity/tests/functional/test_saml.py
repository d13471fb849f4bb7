"""SAML as service provider, against an identity provider of pysaml2: browsers, enhanced clients, and what is refused."""
import base64
import contextlib
import shutil
import time
import urllib.parse

import pytest

from kodiak.common import testing

pytest.importorskip('signxml')
saml2 = pytest.importorskip('saml2')
pytestmark = pytest.mark.skipif(shutil.which('xmlsec1') is None, reason='pysaml2 signs with the program xmlsec1')

URL = 'https://cloud.example:5000'
IDP = 'https://idp.example/metadata'
ORIGIN = 'https://dashboard.example/auth/websso/'
RULES = [
    {'local': [{'user': {'id': '{0}', 'name': '{0}', 'email': '{1}'}}, {'groups': '{2}', 'domain': {'id': 'default'}},
               {'projects': [{'name': 'home of {0}', 'roles': [{'name': 'member'}]}]}],
     'remote': [{'type': 'uid'}, {'type': 'mail'}, {'type': 'eduPersonAffiliation', 'blacklist': ['secret']},
                {'type': 'Shib-Identity-Provider', 'any_one_of': [IDP]}]}]
ANN = {'uid': ['ann'], 'mail': ['ann@example.org'], 'eduPersonAffiliation': ['staff', 'secret', 'a;b']}


@pytest.fixture(scope='module')
def own_keys(tmp_path_factory):
    """A folder with keys of ours, made once: an RSA key takes its time."""
    from kodiak.identity.saml import keys
    folder = tmp_path_factory.mktemp('saml') / 'saml'
    keys.Keys(str(folder)).setup('cloud')
    return folder


@pytest.fixture(scope='module')
def idp_keys(tmp_path_factory):
    """``(key file, certificate file)`` of the identity provider."""
    from kodiak.identity.saml import keys
    folder = tmp_path_factory.mktemp('idp')
    keys.Keys(str(folder)).setup('idp')
    text = (folder / 'current.pem').read_text()
    cut = text.index('-----BEGIN CERTIFICATE')
    (folder / 'key.pem').write_text(text[:cut])
    (folder / 'cert.pem').write_text(text[cut:])
    return folder / 'key.pem', folder / 'cert.pem'


class IdentityProvider:
    """A real identity provider, which trusts the service provider that ``sp_metadata`` describes."""

    def __init__(self, keys, sp_metadata='', url='https://idp.example', wants_signed=True, **more):
        from saml2 import config, server, xmldsig
        self.keys = keys
        services = {'idp': {'endpoints': {'single_sign_on_service': [
            (url + '/sso', saml2.BINDING_HTTP_REDIRECT), (url + '/ecp', saml2.BINDING_SOAP)]},
            'want_authn_requests_signed': wants_signed,
            'signing_algorithm': xmldsig.SIG_RSA_SHA256, 'digest_algorithm': xmldsig.DIGEST_SHA256, **more,
            'policy': {'default': {'attribute_restrictions': None, 'lifetime': {'minutes': 5}}}}}
        settings = {'entityid': IDP, 'service': services, 'key_file': str(keys[0]), 'cert_file': str(keys[1]),
                    'xmlsec_binary': shutil.which('xmlsec1')}
        if sp_metadata:
            settings['metadata'] = {'inline': [sp_metadata]}
        self.server = server.Server(config=config.IdPConfig().load(settings))

    def metadata(self):
        """What it says of itself."""
        from saml2 import metadata
        return str(metadata.entity_descriptor(self.server.config))

    def asked(self, url):
        """The question in the URL to which a browser was sent; its signature is checked."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        return self.server.parse_authn_request(query['SAMLRequest'], saml2.BINDING_HTTP_REDIRECT, sigalg=query['SigAlg'],
                                               signature=query['Signature']).message

    def answer(self, question, identity=None, **more):
        """A signed Response (text) to a question."""
        args = {'in_response_to': question.id, 'destination': question.assertion_consumer_service_url,
                'sp_entity_id': question.issuer.text, 'userid': 'ann', 'sign_assertion': True, 'sign_response': False,
                'authn': {'class_ref': 'urn:oasis:names:tc:SAML:2.0:ac:classes:Password', 'authn_auth': IDP}, **more}
        return str(self.server.create_authn_response(ANN if identity is None else identity, **args))


@pytest.fixture
def federated(make_cloud, own_keys, idp_keys, tmp_path):
    """``federated(url)``: a cloud that trusts the identity provider as ``corp``, protocol ``saml2``, and the provider."""
    def make(url=URL, idp_url='https://idp.example', **more):
        cloud = make_cloud(('federation', 'trusted_dashboard', [ORIGIN]), ('api', 'public_endpoint', url))
        shutil.copytree(own_keys, cloud.core.saml.keys.path)
        file = tmp_path / 'idp.xml'
        file.write_text(IdentityProvider(idp_keys, url=idp_url, **more).metadata())
        conf = cloud.core.conf
        assert not cloud.core.saml.serves('corp', 'saml2')
        conf.set_override('metadata', str(file), 'idp_corp')
        admin, base = cloud.admin(), '/v3/OS-FEDERATION'
        admin.put(base + '/identity_providers/corp', {'identity_provider': {'enabled': True, 'remote_ids': [IDP]}}).expect(201)
        admin.put(base + '/mappings/m', {'mapping': {'rules': RULES}}).expect(201)
        admin.put(base + '/identity_providers/corp/protocols/saml2', {'protocol': {'mapping_id': 'm'}}).expect(201)
        told = cloud.client().get(base + '/saml2/metadata').expect(200)
        assert told.headers['Content-Type'].startswith('text/xml')
        return cloud, IdentityProvider(idp_keys, told.data.decode(), idp_url, **more)
    return make


def begin(cloud):
    """A browser asks for a login: ``(browser, URL to which it is sent)``."""
    client = testing.Client(cloud.pipeline)
    there = urllib.parse.urlsplit(client.get('/v3/auth/OS-FEDERATION/websso/saml2?origin=' + urllib.parse.quote(ORIGIN))
                                  .expect(302).headers['Location'])
    begun = client.get(f'{there.path}?{there.query}').expect(302)
    cookie = begun.headers['Set-Cookie']
    assert 'HttpOnly' in cookie and 'SameSite=Lax' in cookie
    return client, begun.headers['Location']


def bring(cloud, response, browser=None, path='/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/saml2/websso', **more):
    """The browser posts the form of the provider."""
    data = urllib.parse.urlencode({'SAMLResponse': base64.b64encode(response.encode()).decode(), **more})
    return (browser or testing.Client(cloud.pipeline)).post(path, data=data, headers={
        'Content-Type': 'application/x-www-form-urlencoded'})


def log_in(cloud, idp, identity=None, **more):
    """All of it; the page at the end."""
    browser, url = begin(cloud)
    return bring(cloud, idp.answer(idp.asked(url), identity, **more), browser)


def token_in(page):
    return page.data.decode().split('name="token" value="')[1].split('"')[0]


def test_a_browser_logs_in(federated):
    cloud, idp = federated()
    group = cloud.admin().post('/v3/groups', {'group': {'name': 'staff'}}).json['group']
    for name in ('a', 'b', 'secret'):
        cloud.admin().post('/v3/groups', {'group': {'name': name}}).expect(201)
    project = cloud.project('p')
    cloud.admin().put(f'/v3/projects/{project["id"]}/groups/{group["id"]}/roles/{cloud.role_id("reader")}').expect(204)
    browser, url = begin(cloud)
    assert url.startswith('https://idp.example/sso?SAMLRequest=')
    question = idp.asked(url)
    assert question.issuer.text == URL + '/v3/OS-FEDERATION/saml2/metadata'
    told = cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').data.decode()
    assert told.count('use="encryption"') == 1 and told.count('use="signing"') == 4
    assert f'Location="{URL}/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/saml2/websso"' in told
    response = idp.answer(question)
    # The browser keeps the cookie back at first: a page of another site has posted the form.
    between = bring(cloud, response).expect(200)
    assert 'name="again"' in between.data.decode() and 'name="token"' not in between.data.decode()
    page = bring(cloud, response, browser, again='1').expect(200)
    assert f'action="{ORIGIN}"' in page.data.decode() and page.headers['Content-Type'].startswith('text/html')
    text = token_in(page)
    client = cloud.client(text)
    shown = client.get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(200).json['token']
    assert shown['methods'] == ['saml2'] and shown['user']['name'] == 'ann'
    # A value with a semicolon is one value: nobody joins groups by the name that he gives one of his own.
    assert shown['user']['OS-FEDERATION'] == {'identity_provider': {'id': 'corp'}, 'protocol': {'id': 'saml2'},
                                              'groups': [{'id': group['id']}]}
    assert sorted(p['name'] for p in client.get('/v3/auth/projects').json['projects']) == ['home of ann', 'p']
    bring(cloud, response, browser, again='1').expect(401)
    bring(cloud, response, again='1').expect(401)


def test_responses_that_are_signed_as_a_whole(federated):
    cloud, idp = federated()
    log_in(cloud, idp, sign_assertion=False, sign_response=True).expect(200)
    log_in(cloud, idp, sign_assertion=True, sign_response=True).expect(200)
    log_in(cloud, idp, sign_assertion=False, sign_response=False).expect(401)


def test_sha_1_is_taken_only_where_it_is_allowed(federated):
    from saml2 import xmldsig
    cloud, idp = federated(signing_algorithm=xmldsig.SIG_RSA_SHA1, digest_algorithm=xmldsig.DIGEST_SHA1)
    log_in(cloud, idp).expect(401)
    cloud.core.conf.set_override('allow_sha1', True, 'idp_corp')
    log_in(cloud, idp).expect(200)


def test_the_session_at_the_provider_ends_the_token(federated):
    from saml2 import time_util
    cloud, idp = federated()
    end = time_util.in_a_while(minutes=7)
    text = token_in(log_in(cloud, idp, session_not_on_or_after=end).expect(200))
    expires = cloud.client(text).get('/v3/auth/tokens', headers={'X-Subject-Token': text}).json['token']['expires_at']
    assert expires[:19] == end[:19]
    log_in(cloud, idp, session_not_on_or_after='2020-01-01T00:00:00Z').expect(401)


def test_answers_that_are_not_for_us_now(federated):
    cloud, idp = federated()
    log_in(cloud, idp, destination='https://other.example/acs').expect(401)
    log_in(cloud, idp, in_response_to='_somebody_else').expect(401)
    log_in(cloud, idp, identity={'mail': ['x@y']}).expect(401)
    browser, url = begin(cloud)
    other, _ = begin(cloud)
    response = idp.answer(idp.asked(url))
    bring(cloud, response, other).expect(401)
    bring(cloud, response.replace('>ann<', '>root<'), browser).expect(401)
    # What a client may bring is not what a browser was given.
    path = '/v3/OS-FEDERATION/identity_providers/corp/protocols/saml2/auth'
    cloud.client().post(path, data=soap(response), headers={'Content-Type': 'application/vnd.paos+xml'}).expect(401)
    cloud.core.conf.set_override('saml_entity_id', 'https://other.example', 'federation')
    bring(cloud, response, browser).expect(401)
    cloud.core.conf.clear_override('saml_entity_id', 'federation')
    bring(cloud, response, browser).expect(200)


def test_words_that_do_not_fit(federated):
    cloud, idp = federated()
    for uid in ('x' * 65, 'x' * 300):
        message = log_in(cloud, idp, {**ANN, 'uid': [uid]}).expect(401).json['error']['message']
        assert 'characters' in message
    admin = cloud.admin()
    assert admin.get('/v3/projects?name__startswith=home').json['projects'] == []
    rules = [{**RULES[0], 'local': [*RULES[0]['local'][:2], {'projects': [
        {'name': 'p', 'roles': [{'name': 'member'}], 'domain': {'name': 'nowhere'}}]}]}]
    admin.patch('/v3/OS-FEDERATION/mappings/m', {'mapping': {'rules': rules}}).expect(200)
    assert 'domain' in log_in(cloud, idp).expect(401).json['error']['message']


def test_what_is_no_answer_at_all(federated):
    cloud, idp = federated()
    browser, url = begin(cloud)
    response = idp.answer(idp.asked(url))
    bring(cloud, 'nonsense', browser).expect(400)
    bring(cloud, '<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + response.partition('?>')[2], browser).expect(400)
    bring(cloud, '<x/>', browser).expect(400)
    path = '/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/saml2/websso'
    client = browser
    client.post(path, data='x=y').expect(400)
    client.post(path, data='SAMLResponse=%21').expect(400)
    client.post(path, data=b'\xff').expect(400)
    client.get(path).expect(400)
    client.get(path + '?origin=https://evil.example/').expect(401)
    for body in (b'', b'<x/>', soap('<x/>').encode(), soap('').encode()):
        client.post('/v3/OS-FEDERATION/identity_providers/corp/protocols/saml2/auth', data=body).expect(400)
    client.get('/v3/OS-FEDERATION/identity_providers/corp/protocols/saml2/auth').expect(401)
    cloud.admin().patch('/v3/OS-FEDERATION/identity_providers/corp', {'identity_provider': {'enabled': False}}).expect(200)
    bring(cloud, response, browser).expect(403)


def test_what_is_not_set_up_says_so(federated, tmp_path):
    cloud, _ = federated()
    conf, admin = cloud.core.conf, cloud.admin()
    conf.set_override('public_endpoint', None, 'api')
    assert 'public_endpoint' in cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').expect(404).json['error']['message']
    conf.set_override('public_endpoint', URL, 'api')
    shutil.rmtree(cloud.core.saml.keys.path)
    assert 'saml setup' in cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').expect(404).json['error']['message']
    admin.put('/v3/OS-FEDERATION/identity_providers/two', {'identity_provider': {'enabled': True}}).expect(201)
    admin.put('/v3/OS-FEDERATION/identity_providers/two/protocols/saml2', {'protocol': {'mapping_id': 'm'}}).expect(201)
    path = '/v3/auth/OS-FEDERATION/identity_providers/two/protocols/saml2/websso?origin=' + urllib.parse.quote(ORIGIN)
    cloud.core.saml.serves('two', 'saml2')
    for wrong in (str(tmp_path / 'nothing.xml'), 'http://idp.example/metadata', str(tmp_path / 'broken.xml')):
        (tmp_path / 'broken.xml').write_text('<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="x"/>')
        conf.set_override('metadata', wrong, 'idp_two')
        cloud.client().get(path).expect(502)


def test_an_identity_provider_may_get_new_keys(federated, idp_keys, own_keys, tmp_path):
    cloud, idp = federated()
    text = (own_keys / 'current.pem').read_text()
    cut = text.index('-----BEGIN CERTIFICATE')
    (tmp_path / 'key.pem').write_text(text[:cut])
    (tmp_path / 'cert.pem').write_text(text[cut:])
    newer = IdentityProvider((tmp_path / 'key.pem', tmp_path / 'cert.pem'),
                             cloud.client().get('/v3/OS-FEDERATION/saml2/metadata').data.decode())
    log_in(cloud, newer).expect(401)
    (tmp_path / 'idp.xml').write_text(newer.metadata())
    log_in(cloud, newer).expect(200)
    log_in(cloud, idp).expect(401)


def soap(content, head=''):
    """An envelope of SOAP around what has no XML declaration, or has one."""
    content = content.partition('?>')[2] if content.startswith('<?xml') else content
    return ('<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/" '
            'xmlns:ecp="urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp">'
            f'<S:Header>{head}</S:Header><S:Body>{content}</S:Body></S:Envelope>')


@pytest.fixture
def serve():
    """``serve(application)``: its URL on a port of its own."""
    with contextlib.ExitStack() as running:
        yield lambda application: running.enter_context(testing.serving(application))


def test_keystoneauth_logs_in_with_a_password_of_the_provider(federated, serve):
    from keystoneauth1 import exceptions, session
    from keystoneauth1.extras import _saml2
    held = {}

    def provider(environ, start_response):
        """The ECP endpoint of the identity provider."""
        body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
        if environ.get('HTTP_AUTHORIZATION') != 'Basic ' + base64.b64encode(b'ann:xyzzy').decode():
            start_response('401 Unauthorized', [('Content-Type', 'text/plain')])
            return [b'no']
        question = held['idp'].server.parse_authn_request(body.decode(), saml2.BINDING_SOAP).message
        start_response('200 OK', [('Content-Type', 'text/xml')])
        where = question.assertion_consumer_service_url
        return [soap(held['idp'].answer(question), f'<ecp:Response AssertionConsumerServiceURL="{where}"/>').encode()]

    def service(environ, start_response):
        return held['cloud'].pipeline(environ, start_response)

    idp_url, url = serve(provider), serve(service)
    cloud, held['idp'] = federated(url, idp_url, wants_signed=False)
    held['cloud'] = cloud
    cloud.project('p')

    def auth(password):
        return _saml2.V3Saml2Password(url + '/v3', 'corp', 'saml2', idp_url + '/ecp', 'ann', password,
                                      project_name='home of ann', project_domain_id=domain_id)
    domain_id = cloud.admin().get('/v3/OS-FEDERATION/identity_providers/corp').json['identity_provider']['domain_id']
    token = session.Session(auth('xyzzy')).get_token()
    shown = cloud.client(token).get('/v3/auth/tokens', headers={'X-Subject-Token': token}).json['token']
    assert shown['project']['name'] == 'home of ann' and shown['user']['name'] == 'ann'
    with pytest.raises(exceptions.ClientException):
        session.Session(auth('wrong')).get_token()


def test_a_question_through_a_client_is_remembered(federated):
    cloud, idp = federated(wants_signed=False)
    path = '/v3/OS-FEDERATION/identity_providers/corp/protocols/saml2/auth'
    asked = cloud.client().get(path, headers={'Accept': 'application/vnd.paos+xml'}).expect(200)
    assert asked.headers['Content-Type'] == 'application/vnd.paos+xml'
    question = idp.server.parse_authn_request(asked.data.decode(), saml2.BINDING_SOAP).message
    response = idp.answer(question)
    state = asked.data.decode().split('RelayState')[1].split('>')[1].split('<')[0]
    # Without what we gave along, an answer to a question isn't taken.
    cloud.client().post(path, data=soap(response)).expect(401)
    whole = soap(response, f'<ecp:RelayState>{state}</ecp:RelayState>')
    assert cloud.client().post(path, data=whole).expect(201).headers['X-Subject-Token']
    assert 'before' in cloud.client().post(path, data=whole).expect(401).json['error']['message']


def test_the_clock_and_the_life_of_an_assertion(federated, monkeypatch):
    cloud, idp = federated()
    browser, url = begin(cloud)
    response = idp.answer(idp.asked(url))
    import datetime

    from kodiak.identity.saml import answers

    class Later(datetime.datetime):
        shift = 600

        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(time.time() + cls.shift, tz)
    monkeypatch.setattr(answers.datetime, 'datetime', Later)
    bring(cloud, response, browser).expect(401)
    Later.shift = -600
    bring(cloud, response, browser).expect(401)
    Later.shift = 330
    bring(cloud, response, browser).expect(200)


def test_metadata_from_a_url(federated, tmp_path, monkeypatch):
    import requests

    from kodiak.identity import saml
    cloud, idp = federated()
    answers = {'status_code': 200, 'text': (tmp_path / 'idp.xml').read_bytes(), 'asked': 0}

    class Answer:
        def __init__(self, url, **more):
            assert url == 'https://idp.example/metadata' and more['verify'] is True and not more['allow_redirects']
            answers['asked'] += 1
            self.status_code, self.raw = answers['status_code'], self

        def read(self, size, decode_content):
            return answers['text']

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass
    monkeypatch.setattr(requests, 'get', Answer)
    cloud.core.conf.set_override('metadata', IDP, 'idp_corp')
    log_in(cloud, idp).expect(200)
    log_in(cloud, idp).expect(200)
    assert answers['asked'] == 1
    # What was read stays good while the provider doesn't answer, and it isn't asked at each request.
    clock = {'now': time.monotonic() + saml.KEEP + 1}
    monkeypatch.setattr(saml.time, 'monotonic', lambda: clock['now'])
    answers['status_code'] = 503
    log_in(cloud, idp).expect(200)
    log_in(cloud, idp).expect(200)
    assert answers['asked'] == 2
    clock['now'] += 25 * saml.KEEP
    path = '/v3/auth/OS-FEDERATION/identity_providers/corp/protocols/saml2/websso?origin=' + urllib.parse.quote(ORIGIN)
    testing.Client(cloud.pipeline).get(path).expect(502)
