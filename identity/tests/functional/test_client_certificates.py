"""OAuth 2.0 with certificates (RFC 8705): mutual TLS, tokens that are bound to a certificate, whom a subject names."""
import base64
import datetime
import hashlib
import ssl
import threading
import urllib.parse

import pytest
import requests
import werkzeug.serving
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kodiak.common import authtoken, certificates, testing

NAMES = {'CN': x509.NameOID.COMMON_NAME, 'UID': x509.NameOID.USER_ID, 'O': x509.NameOID.ORGANIZATION_NAME,
         'DC': x509.NameOID.DOMAIN_COMPONENT, 'EMAIL': x509.NameOID.EMAIL_ADDRESS}
RULES = [
    {'local': [{'user': {'name': '{0}', 'id': '{1}', 'email': '{2}', 'domain': {'name': '{3}', 'id': '{4}'}}}],
     'remote': [{'type': 'SSL_CLIENT_SUBJECT_DN_CN'}, {'type': 'SSL_CLIENT_SUBJECT_DN_UID'},
                {'type': 'SSL_CLIENT_SUBJECT_DN_EMAILADDRESS'}, {'type': 'SSL_CLIENT_SUBJECT_DN_O'},
                {'type': 'SSL_CLIENT_SUBJECT_DN_DC'},
                {'type': 'SSL_CLIENT_ISSUER_DN_CN', 'any_one_of': ['root_a.example']}]},
    {'local': [{'user': {'id': '{0}', 'domain': {'id': '{1}'}}}],
     'remote': [{'type': 'SSL_CLIENT_SUBJECT_DN_UID'}, {'type': 'SSL_CLIENT_SUBJECT_DN_DC'},
                {'type': 'SSL_CLIENT_ISSUER_DN_CN', 'any_one_of': ['root_b.example']}]},
]


def _name(parts):
    return x509.Name([x509.NameAttribute(NAMES[kind], value) for kind, value in parts])


class Authority:
    """An issuer of certificates; ``pem`` is its own."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, _name([('CN', name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign(self.name, self.key.public_key(), True).public_bytes(serialization.Encoding.PEM)

    def _sign(self, subject, public, ca=False, days=1):
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public).serial_number(
            x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=3)).not_valid_after(
            now + datetime.timedelta(days=days)).add_extension(x509.BasicConstraints(ca, None), True)
        if not ca:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName('localhost')]), False)
        return made.sign(self.key, hashes.SHA256())

    def issue(self, file, *parts, days=1):
        """``(path of a file with certificate and key, the certificate as DER)``."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(_name(parts), key.public_key(), days=days)
        path = self.folder / file
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return str(path), made.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def root(tmp_path):
    """An authority that the mapping asks for a whole name."""
    return Authority(tmp_path, 'root_a.example')


@pytest.fixture
def other_root(tmp_path):
    """An authority of which an id is enough."""
    return Authority(tmp_path, 'root_b.example')


class Home:
    """A cloud with a mapping and a user ``ann``, who is a member of her default project."""

    def __init__(self, cloud):
        self.cloud, pipeline = cloud, cloud.pipeline
        cloud.pipeline = lambda environ, start_response: pipeline(
            {**environ, 'REMOTE_ADDR': environ.get('REMOTE_ADDR') or '127.0.0.1'}, start_response)
        self.project = cloud.project('home')
        self.ann = cloud.user('ann', email='ann@example.org', default_project_id=self.project['id'])
        cloud.grant(self.ann['id'], 'member', self.project['id'])
        cloud.admin().put('/v3/OS-FEDERATION/mappings/oauth2_mapping', {'mapping': {'rules': RULES}}).expect(201)
        self.names = [('CN', 'ann'), ('UID', self.ann['id']), ('EMAIL', 'ann@example.org'), ('O', 'Default'), ('DC', 'default')]

    def ask(self, der, client_id=None, secret=None, **more):
        """Ask for a token as a proxy does for who has shown ``der``."""
        form = {'grant_type': 'client_credentials', 'client_id': client_id or self.ann['id']}
        if secret:
            form['client_secret'] = secret
        return self.cloud.client().post('/v3/OS-OAUTH2/token', data=urllib.parse.urlencode(form), headers=header(der), **more)


def header(der):
    """The headers of a request for whose client a proxy has verified a certificate."""
    return {'Client-Cert': f':{base64.b64encode(der).decode()}:'} if der else {}


@pytest.fixture
def home(make_cloud):
    """A :class:`Home` behind a proxy that passes certificates on as RFC 9440 says."""
    return Home(make_cloud(('api', 'client_certificate_header', 'Client-Cert')))


@pytest.fixture
def tls(make_cloud, tmp_path, root, other_root):
    """``(Home, URL)`` of identity behind TLS that asks for certificates."""
    made = Home(make_cloud())
    file, _ = root.issue('server.pem', ('CN', 'localhost'))
    (tmp_path / 'roots.pem').write_bytes(root.pem + other_root.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / 'roots.pem'))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(file)
    server = werkzeug.serving.make_server('127.0.0.1', 0, made.cloud.pipeline, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made, f'https://localhost:{server.port}'
    server.shutdown()
    thread.join()


def test_a_client_shows_its_certificate_and_gets_a_token_that_is_bound_to_it(tls, root, tmp_path):
    home, url = tls
    mine, der = root.issue('ann.pem', *home.names)
    asked = {'grant_type': 'client_credentials', 'client_id': home.ann['id']}
    roots = str(tmp_path / 'roots.pem')
    answer = requests.post(url + '/v3/OS-OAUTH2/token', data=asked, cert=mine, verify=roots, timeout=10)
    assert answer.status_code == 200 and answer.json()['token_type'] == 'Bearer'
    assert answer.headers['Cache-Control'] == 'no-store'
    text = answer.json()['access_token']
    bearer = {'Authorization': 'Bearer ' + text}

    shown = requests.get(url + '/v3/auth/tokens', headers={**bearer, 'X-Subject-Token': text}, cert=mine, verify=roots, timeout=10)
    token = shown.json()['token']
    assert token['methods'] == ['oauth2_credential'] and token['project']['id'] == home.project['id']
    assert token['user']['id'] == home.ann['id'] and {role['name'] for role in token['roles']} == {'member', 'reader'}
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip('=')
    assert token['cnf'] == {'x5t#S256': thumbprint}

    def projects(headers, **more):
        return requests.get(url + '/v3/auth/projects', headers=headers, verify=roots, timeout=10, **more).status_code
    assert projects(bearer, cert=mine) == projects({'X-Auth-Token': text}, cert=mine) == 200
    assert projects(bearer) == projects({'X-Auth-Token': text}) == 401
    thief, _ = root.issue('thief.pem', ('CN', 'thief'))
    assert projects(bearer, cert=thief) == projects({'X-Auth-Token': text}, cert=thief) == 401

    nobody = requests.post(url + '/v3/OS-OAUTH2/token', data=asked, verify=roots, timeout=10)
    assert nobody.status_code == 401 and nobody.json()['error'] == 'invalid_client'
    assert requests.post(url + '/v3/OS-OAUTH2/token', data=asked, verify=roots, cert=thief, timeout=10).status_code == 401


def test_a_certificate_of_an_authority_that_nobody_trusts_ends_at_tls(tls, tmp_path):
    home, url = tls
    mine, _ = Authority(tmp_path, 'root_a.example').issue('forged.pem', *home.names)
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(url + '/v3/OS-OAUTH2/token', data={'grant_type': 'client_credentials', 'client_id': home.ann['id']},
                      cert=mine, verify=str(tmp_path / 'roots.pem'), timeout=10).raise_for_status()


def test_keystoneauth_logs_in_with_a_certificate(tls, root, tmp_path):
    from keystoneauth1 import session
    from keystoneauth1.identity import v3
    home, url = tls
    mine, _ = root.issue('ann.pem', *home.names)
    auth = v3.OAuth2mTlsClientCredential(auth_url=url + '/v3', oauth2_endpoint=url + '/v3/OS-OAUTH2/token',
                                         oauth2_client_id=home.ann['id'])
    found = session.Session(auth=auth, verify=str(tmp_path / 'roots.pem'), cert=mine)
    assert found.get_user_id() == home.ann['id'] and found.get_project_id() == home.project['id']
    assert found.get(url + '/v3/auth/projects').json()['projects'][0]['id'] == home.project['id']


def test_keystonemiddleware_takes_bound_tokens_with_their_certificate_only(home, root, serve):
    middleware = pytest.importorskip('keystonemiddleware.oauth2_mtls_token')
    cloud, url = home.cloud, serve(home.cloud)
    svc, project = cloud.user('svc'), cloud.project('service')
    cloud.grant(svc['id'], 'service', project['id'])
    _, der = root.issue('ann.pem', *home.names)
    _, other = root.issue('other.pem', ('CN', 'other'))
    text = home.ask(der).expect(200).json['access_token']

    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [environ['HTTP_X_USER_ID'].encode()]
    protected = middleware.filter_factory(
        {}, auth_type='password', auth_url=url, username='svc', password='correct horse', user_domain_id='default',
        project_name='service', project_domain_id='default', www_authenticate_uri=url, memcached_servers='',
        include_service_catalog='false')(application)

    class Socket:
        def __init__(self, der):
            self.der = der

        def get_socket(self):
            return self

        def getpeercert(self, binary_form):
            return self.der if binary_form else None

    def get(der, token):
        def connected(environ, start_response):
            return protected({**environ, 'wsgi.input': Socket(der)}, start_response)
        return testing.Client(connected).get('/', headers={'Authorization': 'Bearer ' + token})
    assert get(der, text).expect(200).data.decode() == home.ann['id']
    get(other, text).expect(401)
    unbound = cloud.login('ann', project=home.project['id']).headers['X-Subject-Token']
    get(der, unbound).expect(401)


def test_a_subject_must_name_the_client(home, root, other_root):
    names = dict(home.names)
    home.ask(root.issue('a.pem', *names.items())[1]).expect(200)
    wrong = {'CN': 'bob', 'UID': '1' * 32, 'EMAIL': 'bob@example.org', 'O': 'Other', 'DC': 'other'}
    for kind, value in wrong.items():
        refused = home.ask(root.issue('a.pem', *{**names, kind: value}.items())[1]).expect(401)
        assert refused.json == {'error': 'invalid_client', 'error_description': 'Client authentication failed.'}
        missing = [(each, text) for each, text in names.items() if each != kind]
        home.ask(root.issue('a.pem', *missing)[1]).expect(401)
    bob = home.cloud.user('bob', default_project_id=home.project['id'])
    home.cloud.grant(bob['id'], 'member', home.project['id'])
    home.ask(root.issue('a.pem', *names.items())[1], client_id=bob['id']).expect(401)
    home.ask(root.issue('a.pem', *names.items())[1], client_id='nobody').expect(401)
    # Two values of one kind are no name.
    home.ask(root.issue('a.pem', *names.items(), ('UID', bob['id']))[1]).expect(401)
    # The other authority may speak of ids, a third one of nobody.
    short = other_root.issue('b.pem', ('UID', bob['id']), ('DC', 'default'))[1]
    assert home.ask(short, client_id=bob['id']).expect(200).json['expires_in'] > 3500
    home.ask(root.issue('a.pem', ('UID', bob['id']), ('DC', 'default'))[1], client_id=bob['id']).expect(401)


def test_a_mapping_that_names_nobody_in_particular_lets_nobody_in(home, root):
    _, der = root.issue('a.pem', *home.names)
    admin, path = home.cloud.admin(), '/v3/OS-FEDERATION/mappings/oauth2_mapping'
    remote = [{'type': 'SSL_CLIENT_SUBJECT_DN_CN'}]
    for user, status in (({'name': '{0}'}, 401), ({'email': '{0}'}, 401), ({'name': '{0}', 'domain': {'id': 'default'}}, 200)):
        admin.patch(path, {'mapping': {'rules': [{'local': [{'user': user}], 'remote': remote}]}}).expect(200)
        home.ask(der).expect(status)
    admin.delete(path).expect(204)
    home.ask(der).expect(401)


def test_who_is_disabled_or_has_no_project_gets_none(home, root):
    cloud, path = home.cloud, '/v3/users/' + home.ann['id']
    _, der = root.issue('a.pem', *home.names)
    cloud.admin().patch(path, {'user': {'enabled': False}}).expect(200)
    home.ask(der).expect(401)
    cloud.admin().patch(path, {'user': {'enabled': True, 'default_project_id': cloud.project('empty')['id']}}).expect(200)
    home.ask(der).expect(401)
    cloud.admin().patch(path, {'user': {'default_project_id': None}}).expect(200)
    home.ask(der).expect(401)


def test_who_needs_several_factors_gets_none_by_a_certificate_alone(home, root):
    _, der = root.issue('a.pem', *home.names)
    home.cloud.admin().patch('/v3/users/' + home.ann['id'], {'user': {'options': {
        'multi_factor_auth_enabled': True, 'multi_factor_auth_rules': [['password', 'totp']]}}}).expect(200)
    home.ask(der).expect(401)


def test_a_token_ends_with_its_certificate(home, root):
    home.ask(root.issue('a.pem', *home.names, days=-1)[1]).expect(401)
    _, der = root.issue('a.pem', *home.names, days=0.01)
    assert 0 < home.ask(der).expect(200).json['expires_in'] <= 864


def test_what_a_bound_token_is_exchanged_for_is_bound(home, root):
    _, der = root.issue('a.pem', *home.names)
    _, other = root.issue('b.pem', ('CN', 'thief'))
    text = home.ask(der).expect(200).json['access_token']
    auth = {'auth': {'identity': {'methods': ['token'], 'token': {'id': text}}, 'scope': {'project': {'id': home.project['id']}}}}
    client = home.cloud.client()
    client.post('/v3/auth/tokens', auth).expect(401)
    client.post('/v3/auth/tokens', auth, headers=header(other)).expect(401)
    answer = client.post('/v3/auth/tokens', auth, headers=header(der)).expect(201)
    assert answer.json['token']['cnf'] == certificates.binding(der)['cnf']
    client = home.cloud.client(answer.headers['X-Subject-Token'])
    client.get('/v3/auth/projects').expect(401)
    client.get('/v3/auth/projects', headers=header(der)).expect(200)


def test_a_certificate_counts_from_the_proxy_alone(make_cloud, root):
    home = Home(make_cloud())
    _, der = root.issue('a.pem', *home.names)
    home.ask(der).expect(401)
    home = Home(make_cloud(('api', 'client_certificate_header', 'Client-Cert'), ('api', 'trusted_proxies', ['192.0.2.1'])))
    _, der = root.issue('a.pem', *home.names)
    home.ask(der).expect(401)


def test_the_operator_chooses_how_clients_authenticate(make_cloud, root):
    proxy = ('api', 'client_certificate_header', 'Client-Cert')
    home = Home(make_cloud(proxy, ('oauth2', 'oauth2_authn_methods', ['client_secret_basic'])))
    _, der = root.issue('a.pem', *home.names)
    client = home.cloud.client(home.cloud.login('ann', project=home.project['id']))
    made = client.post(f"/v3/users/{home.ann['id']}/application_credentials", {'application_credential': {'name': 'a'}})
    made = made.expect(201).json['application_credential']
    home.ask(der).expect(401)
    answer = home.ask(der, made['id'], made['secret']).expect(200)
    home.cloud.client(answer.json['access_token']).get('/v3/auth/projects').expect(200)
    home = Home(make_cloud(proxy, ('oauth2', 'oauth2_authn_methods', ['tls_client_auth'])))
    _, der = root.issue('a.pem', *home.names)
    home.ask(der).expect(200)
    home.ask(der, made['id'], made['secret']).expect(401)


def test_a_service_works_on_with_the_token_of_its_user(home, root):
    """The user showed its certificate to the service that it asked; that one asks others with a token of its own beside."""
    _, der = root.issue('a.pem', *home.names)
    text = home.ask(der).expect(200).json['access_token']

    def application(environ, start_response):
        start_response('200 OK', [])
        return [environ['HTTP_X_AUTH_TOKEN'].encode()]
    protected = authtoken.AuthToken(application, home.cloud.core.state)
    svc, project = home.cloud.user('svc'), home.cloud.project('service')
    home.cloud.grant(svc['id'], 'service', project['id'])
    service = home.cloud.login('svc', project=project['id']).headers['X-Subject-Token']
    testing.Client(protected, text).get('/').expect(401)
    testing.Client(protected, text).get('/', headers={'X-Service-Token': service}).expect(200)
    plain = home.cloud.login('ann', project=home.project['id']).headers['X-Subject-Token']
    testing.Client(protected, text).get('/', headers={'X-Service-Token': plain}).expect(401)
    assert testing.Client(protected).get('/', headers={'Authorization': 'Bearer ' + plain}).expect(200).data.decode() == plain
