"""Who may what through the Swift API: lists of containers and accounts, resellers, temporary URLs, forms, web pages."""
import base64
import hmac
import io
import time
import uuid

import pytest

from kodiak.storage_object.proxy import app, pipeline
from kodiak.storage_object.proxy.http import Filter, Response

BOX = '/v1/AUTH_test/c'
USERS = {'user_test_tester': 'testing .admin', 'user_test_plain': 'testing', 'user_other_admin': 'testing .admin',
         'user_reseller_admin': 'testing .reseller_admin'}


@pytest.fixture
def users(make_call):
    """Calls as one user each: ``users('other:admin')(method, path, ...)``; None is nobody."""
    call = make_call({'localauth': USERS})

    def of(name):
        token = call('GET', '/auth/v1.0', headers={'X-Auth-User': name, 'X-Auth-Key': 'testing'}, token=False).headers[
            'X-Auth-Token'] if name else None

        def ask(method, path, body=b'', headers=None):
            return call(method, path, body, {**({'X-Auth-Token': token} if token else {}), **(headers or {})}, token=False)
        return ask
    owner = of('test:tester')
    assert owner('PUT', BOX).status == 201
    assert owner('PUT', BOX + '/o', b'x').status == 201
    return of


def test_lists_of_containers(users):
    owner, other, plain, nobody = (users(name) for name in ('test:tester', 'other:admin', 'test:plain', None))
    assert [who('GET', BOX + '/o').status for who in (other, plain, nobody)] == [403, 403, 401]
    owner('POST', BOX, headers={'X-Container-Read': 'other:admin'})
    assert [who('GET', BOX + '/o').status for who in (other, plain, nobody)] == [200, 403, 401]
    assert other('GET', BOX).status == 200
    assert [other(method, BOX + '/o').status for method in ('PUT', 'POST', 'DELETE')] == [403] * 3
    assert 'X-Container-Read' not in other('HEAD', BOX).headers
    owner('POST', BOX, headers={'X-Container-Read': '', 'X-Container-Write': 'other'})
    assert other('GET', BOX + '/o').status == 403
    assert other('PUT', BOX + '/mine', b'y').status == 201
    assert other('POST', BOX, headers={'X-Container-Meta-A': 'b'}).status == 403
    assert owner('POST', BOX, headers={'X-Container-Write': '.r:*'}).status == 400
    assert owner('POST', BOX, headers={'X-Container-Read': '.unknown'}).status == 400


def test_pages_that_lead_here(users):
    owner, nobody = users('test:tester'), users(None)
    owner('POST', BOX, headers={'X-Container-Read': '.r:.example.com,.r:-bad.example.com'})

    def from_page(page):
        return nobody('GET', BOX + '/o', headers={'Referer': page} if page else {}).status
    assert [from_page(page) for page in ('http://a.example.com/x', 'http://bad.example.com/', 'http://example.org/', None)] == [
        200, 401, 401, 401]
    assert nobody('GET', BOX, headers={'Referer': 'http://a.example.com/'}).status == 401
    owner('POST', BOX, headers={'X-Container-Read': '.r:*,.rlistings'})
    assert (nobody('GET', BOX + '/o').status, nobody('GET', BOX).status, nobody('PUT', BOX + '/o').status) == (200, 200, 401)


def test_lists_of_accounts(users):
    owner, other = users('test:tester'), users('other:admin')

    def levels(text):
        return owner('POST', '/v1/AUTH_test', headers={'X-Account-Access-Control': text}).status
    assert levels('{"read-only": ["other"]}') == 204
    assert (other('GET', BOX + '/o').status, other('GET', '/v1/AUTH_test').status) == (200, 200)
    assert other('PUT', BOX + '/p').status == 403
    assert 'X-Account-Access-Control' not in other('HEAD', '/v1/AUTH_test').headers
    assert levels('{"read-write": ["other:admin"]}') == 204
    assert (other('PUT', BOX + '/p').status, other('POST', '/v1/AUTH_test', headers={'X-Account-Meta-A': 'b'}).status) == (201, 403)
    assert levels('{"admin": ["other"]}') == 204
    assert other('POST', '/v1/AUTH_test', headers={'X-Account-Meta-A': 'b'}).status == 204
    assert '"admin"' in other('HEAD', '/v1/AUTH_test').headers['X-Account-Access-Control']
    assert levels('{}') == 204
    assert other('GET', BOX + '/o').status == 403
    assert [levels(wrong) for wrong in ('no JSON', '[]', '{"boss": []}', '{"admin": "other"}')] == [400] * 4


def test_resellers_and_their_quotas(users):
    owner, reseller = users('test:tester'), users('reseller:admin')
    assert reseller('GET', BOX + '/o').status == 200
    assert reseller('POST', '/v1/AUTH_test', headers={'X-Account-Quota-Bytes': '10'}).status == 204
    assert reseller('POST', '/v1/AUTH_test', headers={'X-Account-Quota-Bytes': '\xb2'}).status == 400
    assert owner('PUT', BOX + '/p', b'12345678901').status == 413
    assert owner('PUT', BOX + '/p', b'1234').status == 201
    assert owner('POST', '/v1/AUTH_test', headers={'X-Remove-Account-Quota-Bytes': 'x'}).status == 403
    assert reseller('POST', '/v1/AUTH_test', headers={'X-Account-Quota-Bytes': ''}).status == 204
    assert owner('PUT', BOX + '/p', b'12345678901').status == 201


def signed(key, method, path, expires, digest='sha256', form='hex', before=''):
    made = hmac.new(key, f'{before}{method}\n{expires}\n{path}'.encode(), digest)
    text = made.hexdigest() if form == 'hex' else f'{digest}:{base64.urlsafe_b64encode(made.digest()).decode()}'
    return f'temp_url_sig={text}&temp_url_expires={expires}'


def test_temporary_urls(users):
    owner, nobody, soon = users('test:tester'), users(None), int(time.time()) + 60
    owner('POST', '/v1/AUTH_test', headers={'X-Account-Meta-Temp-Url-Key': 'one', 'X-Account-Meta-Temp-Url-Key-2': 'two'})
    owner('POST', BOX, headers={'X-Container-Meta-Temp-Url-Key': 'box'})
    owner('PUT', '/v1/AUTH_test/d')

    def status(query, method='GET', path=BOX + '/o'):
        return nobody(method, f'{path}?{query}').status
    for key in (b'one', b'two', b'box'):
        assert status(signed(key, 'GET', BOX + '/o', soon)) == 200
    for digest in ('sha1', 'sha256', 'sha512'):
        assert status(signed(b'one', 'GET', BOX + '/o', soon, digest)) == 200
        assert status(signed(b'one', 'GET', BOX + '/o', soon, digest, 'base64')) == 200
    iso = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(soon))
    assert status(signed(b'one', 'GET', BOX + '/o', soon).replace(f'expires={soon}', f'expires={iso}')) == 200
    # Of other methods, places, keys, times.
    assert status(signed(b'one', 'GET', BOX + '/o', soon), 'PUT') == 401
    assert status(signed(b'one', 'PUT', BOX + '/o', soon), 'HEAD') == 200
    assert status(signed(b'one', 'GET', BOX + '/o', soon), path=BOX + '/p') == 401
    assert status(signed(b'three', 'GET', BOX + '/o', soon)) == 401
    assert status(signed(b'one', 'GET', BOX + '/o', soon - 100)) == 401
    assert status(signed(b'box', 'PUT', '/v1/AUTH_test/d/o', soon), 'PUT', '/v1/AUTH_test/d/o') == 401
    assert status(signed(b'one', 'PUT', '/v1/AUTH_test/d/o', soon), 'PUT', '/v1/AUTH_test/d/o') == 201
    # Of addresses (the client's is 127.0.0.1) and prefixes.
    for net, wanted in (('127.0.0.0/8', 200), ('10.0.0.0/8', 401), ('nonsense', 401)):
        query = signed(b'one', 'GET', BOX + '/o', soon, before=f'ip={net}\n') + f'&temp_url_ip_range={net}'
        assert status(query) == wanted
    query = signed(b'one', 'GET', f'prefix:{BOX}/o', soon) + '&temp_url_prefix=o'
    assert (status(query), status(query, path=BOX + '/other'), status(query, path=BOX + '/p')) == (200, 404, 401)
    for wrong in ('temp_url_sig=x&temp_url_expires=\xb2', 'temp_url_sig=&temp_url_expires=',
                  'temp_url_sig=sha9:x&temp_url_expires=1'):
        assert status(wrong) == 401
    answer = nobody('PUT', f'{BOX}/p?' + signed(b'one', 'PUT', BOX + '/p', soon), headers={'X-Object-Manifest': 'd/'})
    assert answer.status == 400


def form(fields, files):
    mark = uuid.uuid4().hex
    lines = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    lines += [f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
              f'{data}\r\n' for name, data in files]
    return ''.join((*lines, f'--{mark}--\r\n')).encode(), {'Content-Type': f'multipart/form-data; boundary={mark}'}


@pytest.fixture
def posted(users):
    """Posts a signed form as nobody: ``posted(files, **changed fields)``."""
    owner, nobody = users('test:tester'), users(None)
    owner('POST', BOX, headers={'X-Container-Meta-Temp-Url-Key': 'key'})

    def post(files, sign=None, **changed):
        fields = {'redirect': '', 'max_file_size': '10', 'max_file_count': '2', 'expires': str(int(time.time()) + 60),
                  **(sign or {})}
        text = '\n'.join((BOX + '/up-', *fields.values()))
        fields['signature'] = hmac.new(b'key', text.encode(), 'sha256').hexdigest()
        return nobody('POST', BOX + '/up-', *form({**fields, **changed}, files))
    return post


def test_forms(posted, users):
    owner = users('test:tester')
    assert posted([('a', 'one'), ('b', 'two')]).status == 201
    assert [owner('GET', f'{BOX}/up-{name}').body for name in 'ab'] == [b'one', b'two']
    assert owner('GET', BOX + '/up-a').headers['Content-Type'].startswith('text/plain')
    answer = posted([('a', 'three')], {'redirect': 'http://there/?x=1'})
    assert (answer.status, answer.headers['Location']) == (303, 'http://there/?x=1&status=201&message=')
    assert posted([('a', '12345678901')]).status == 413
    assert posted([('c', '1'), ('d', '2'), ('e', '3')]).status == 400
    assert posted([]).status == 400
    assert posted([('f', 'x')], {'expires': '1'}).status == 401
    assert posted([('f', 'x')], max_file_size='11').status == 401
    assert posted([('f', 'x')], max_file_size='\u00b2').status == 400
    assert posted([('f', 'x')], signature='').status == 401
    assert posted([('f', 'x')], x_delete_after='soon').status == 400
    assert posted([('f', 'x')], x_delete_after='60').status == 201
    assert 'X-Delete-At' in owner('HEAD', BOX + '/up-f').headers


@pytest.mark.parametrize('body', [b'', b'--', b'--mark\r\n', b'--mark\r\nContent-Disposition: form-data; name="x"', b'\0' * 70000])
def test_forms_that_are_none(users, body):
    answer = users(None)('POST', BOX, body, {'Content-Type': 'multipart/form-data; boundary=mark'})
    assert answer.status in (400, 401)


def test_web_pages(users):
    owner, nobody = users('test:tester'), users(None)
    for name, text in (('index.html', 'index'), ('dir/index.html', 'of dir'), ('404error.html', 'lost'), ('other/o', 'o')):
        owner('PUT', f'{BOX}/{name}', text.encode())
    owner('POST', BOX, headers={'X-Container-Read': '.r:*,.rlistings', 'X-Container-Meta-Web-Index': 'index.html',
                                'X-Container-Meta-Web-Error': 'error.html'})
    assert nobody('GET', BOX).status == 301
    assert nobody('GET', BOX + '/').body == b'index'
    assert nobody('GET', BOX + '/dir').headers['Location'].endswith('/c/dir/')
    assert nobody('GET', BOX + '/dir/').body == b'of dir'
    assert (nobody('GET', BOX + '/none').status, nobody('GET', BOX + '/none').body) == (404, b'lost')
    assert nobody('GET', BOX + '/other/').status == 404
    owner('POST', BOX, headers={'X-Container-Meta-Web-Listings': 'true', 'X-Container-Meta-Web-Listings-Css': 'css/a.css'})
    page = nobody('GET', BOX + '/other/')
    assert page.status == 200
    assert b'<a href="./o">' in page.body.replace(b'href="o"', b'href="./o"')
    assert b'css/a.css' in page.body
    assert owner('GET', BOX + '/').body != b'index'
    assert owner('GET', BOX + '/', headers={'X-Web-Mode': 'true'}).body == b'index'


# users of identity


class Token(Filter):
    """In place of the token middleware: what a test says of who asks."""

    def handle(self, request):
        """Say it."""
        request.environ.update(request.environ.pop('test.identity', {}))
        return self.next(request)


@pytest.fixture
def identity(rings):
    """Calls as users of identity: ``identity(project, user, *roles)(method, path, ...)``."""
    proxy = app.Proxy(rings)
    names = ['catch_errors', 'container_sync', 'tempurl', 'keystone', 'copy', 'container_quotas', 'account_quotas', 'slo']
    application = proxy
    for name in reversed(names):
        options = {'reseller_prefix': 'AUTH,SERVICE', 'SERVICE_service_roles': 'service'} if name == 'keystone' else {}
        application = pipeline.make_filter(application, name, options)
        application = Token(application) if name == 'keystone' else application
    application = pipeline._Edge(application, proxy)

    def of(project, user, *roles, domain='default', service=None):
        told = {'HTTP_X_IDENTITY_STATUS': 'Confirmed', 'HTTP_X_PROJECT_ID': project, 'HTTP_X_PROJECT_NAME': f'name of {project}',
                'HTTP_X_USER_ID': user, 'HTTP_X_USER_NAME': f'name of {user}', 'HTTP_X_ROLES': ','.join(roles),
                'HTTP_X_USER_DOMAIN_ID': domain, 'HTTP_X_PROJECT_DOMAIN_ID': domain} if project else {}
        if service is not None:
            told.update({'HTTP_X_SERVICE_IDENTITY_STATUS': 'Confirmed', 'HTTP_X_SERVICE_ROLES': service})

        def ask(method, path, body=b'', headers=None):
            environ = {'REQUEST_METHOD': method, 'PATH_INFO': path, 'QUERY_STRING': '', 'wsgi.input': io.BytesIO(body),
                       'wsgi.url_scheme': 'http', 'HTTP_HOST': 'localhost', 'REMOTE_ADDR': '127.0.0.1',
                       'CONTENT_LENGTH': str(len(body)), 'test.identity': told}
            environ.update((f'HTTP_{name.upper().replace("-", "_")}', value) for name, value in (headers or {}).items())
            answer = Response.from_wsgi(application, environ)
            answer.read()
            return answer
        return ask
    return of


def test_users_of_identity(identity):
    ann, reader, guest = identity('p', 'ann', 'member'), identity('p', 'rob', 'reader'), identity('p', 'gus', 'other')
    assert ann('PUT', '/v1/AUTH_p/c').status == 201
    assert ann('PUT', '/v1/AUTH_p/c/o', b'x').status == 201
    assert [who('GET', '/v1/AUTH_p/c/o').status for who in (ann, reader, guest)] == [200, 200, 403]
    assert [who('PUT', '/v1/AUTH_p/c/p').status for who in (ann, reader, guest)] == [201, 403, 403]
    assert ann('DELETE', '/v1/AUTH_p').status == 403
    bob = identity('q', 'bob', 'member')
    assert bob('GET', '/v1/AUTH_p/c/o').status == 403
    for word in ('q:bob', 'q:*', '*:bob', '*:*', 'name of q:name of bob', 'member'):
        assert ann('POST', '/v1/AUTH_p/c', headers={'X-Container-Read': word}).status == 204
        assert bob('GET', '/v1/AUTH_p/c/o').status == 200, word
        assert bob('PUT', '/v1/AUTH_p/c/o').status == 403
    # Names are of the default domain alone.
    ann('POST', '/v1/AUTH_p/c', headers={'X-Container-Read': 'name of q:name of bob,r:bob,q:ann'})
    assert identity('q', 'bob', 'member', domain='d')('GET', '/v1/AUTH_p/c/o').status == 403
    ann('POST', '/v1/AUTH_p/c', headers={'X-Container-Read': '', 'X-Container-Write': 'q:bob'})
    assert (bob('PUT', '/v1/AUTH_p/c/new', b'y').status, bob('GET', '/v1/AUTH_p/c/new').status) == (201, 403)
    root = identity('admins', 'root', 'ResellerAdmin')
    assert root('GET', '/v1/AUTH_p/c/o').status == 200
    assert root('POST', '/v1/AUTH_p', headers={'X-Account-Quota-Bytes': '1000'}).status == 204
    assert ann('POST', '/v1/AUTH_p', headers={'X-Account-Quota-Bytes': '9999'}).status == 403


def test_accounts_that_want_a_service_token(identity, make_call):
    ann, served = identity('p', 'ann', 'member'), identity('p', 'ann', 'member', service='admin,service')
    other, stranger = identity('p', 'ann', 'member', service='admin'), identity('q', 'bob', 'member', service='service')
    assert [who('PUT', '/v1/SERVICE_p/c').status for who in (ann, other, stranger, served)] == [403, 403, 403, 201]
    assert [who('GET', '/v1/SERVICE_p/c').status for who in (ann, served)] == [403, 204]
    assert identity('admins', 'root', 'ResellerAdmin')('GET', '/v1/SERVICE_p/c').status == 204
    # (what a client says of itself is no service token's)
    assert ann('GET', '/v1/SERVICE_p/c', headers={'X-Service-Token': 'x'}).status == 403
    # users of the configuration
    call = make_call({'localauth': {'reseller_prefix': 'AUTH,SERVICE', 'SERVICE_require_group': 'service', 'secret': 'x',
                                    'user_test_tester': 'testing .admin', 'user_glance_service': 'key service'}})
    token = call('GET', '/auth/v1.0', headers={'X-Auth-User': 'glance:service', 'X-Auth-Key': 'key'}).headers['X-Auth-Token']
    assert call('PUT', '/v1/SERVICE_test/c').status == 403
    assert call('PUT', '/v1/SERVICE_test/c', headers={'X-Service-Token': call.token}).status == 403
    assert call('PUT', '/v1/SERVICE_test/c', headers={'X-Service-Token': token}).status == 201
    call.token = token
    assert call('PUT', '/v1/SERVICE_test/d', headers={'X-Service-Token': token}).status == 403


def test_names_in_lists_are_those_of_the_default_domain(identity):
    far, near = identity('f', 'fay', 'member', domain='far'), identity('q', 'bob', 'member')
    ours = identity('p', 'ann', 'member')
    for who, account, status in ((far, 'AUTH_f', 403), (ours, 'AUTH_p', 204)):
        assert who('PUT', f'/v1/{account}/c').status == 201
        assert who('POST', f'/v1/{account}/c', headers={'X-Container-Read': 'name of q:name of bob'}).status == 204
        assert near('GET', f'/v1/{account}/c').status == status
        assert who('POST', f'/v1/{account}/c', headers={'X-Container-Read': 'q:bob'}).status == 204
        assert near('GET', f'/v1/{account}/c').status == 204
    assert far('HEAD', '/v1/AUTH_f').headers['X-Account-Project-Domain-Id'] == 'far'
    assert ours('POST', '/v1/AUTH_p').status == 204
    assert ours('HEAD', '/v1/AUTH_p').headers['X-Account-Project-Domain-Id'] == 'default'
    # (nobody says it of another's account)
    near('POST', '/v1/AUTH_f')
    assert far('HEAD', '/v1/AUTH_f').headers['X-Account-Project-Domain-Id'] == 'far'


@pytest.mark.parametrize('token', ['AUTH_tkanything', 'x', None])
def test_who_asks_is_not_for_them_to_say(identity, token):
    identity('p', 'ann', 'member')('PUT', '/v1/AUTH_p/c')
    told = {'X-Identity-Status': 'Confirmed', 'X-Roles': 'admin,ResellerAdmin', 'X-Project-Id': 'p', 'X-User-Id': 'ann',
            **({'X-Auth-Token': token} if token else {})}
    assert identity(None, None)('GET', '/v1/AUTH_p/c', headers=told).status == 401
    assert identity('q', 'bob', 'member')('GET', '/v1/AUTH_p/c', headers=told).status == 403
