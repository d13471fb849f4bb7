"""The processes under gunicorn: the proxy over the servers, and the admin command."""
import hashlib
import http.client
import os

from kodiak.storage_object import conf as options


def test_there_are_few_options():
    assert len(options.OPTS['storage']) <= 25


def ask(connection, method, path, body=None, **headers):
    connection.request(method, path, body, headers={name.replace('_', '-'): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer, answer.read()


def test_a_large_object_goes_through_both_and_comes_back(proxy):
    connection = http.client.HTTPConnection('127.0.0.1', proxy, timeout=30)
    answer, _ = ask(connection, 'GET', '/auth/v1.0', X_Auth_User='test:tester', X_Auth_Key='key')
    token = answer.headers['X-Auth-Token']
    assert ask(connection, 'PUT', '/v1/AUTH_test/c', X_Auth_Token=token)[0].status == 201
    for size in (0, 100, 70_000, 9_000_000):
        data = os.urandom(size)
        answer, _ = ask(connection, 'PUT', '/v1/AUTH_test/c/o', data, X_Auth_Token=token)
        assert (answer.status, answer.headers['Etag']) == (201, hashlib.md5(data).hexdigest())
        assert ask(connection, 'GET', '/v1/AUTH_test/c/o', X_Auth_Token=token)[1] == data
        if size > 100:
            part, body = ask(connection, 'GET', '/v1/AUTH_test/c/o', X_Auth_Token=token, Range='bytes=100-69999')
            assert (part.status, body) == (206, data[100:70000])
    pieces = iter([b'x' * 100_000] * 40)
    connection.request('PUT', '/v1/AUTH_test/c/chunked', pieces, headers={'X-Auth-Token': token, 'Transfer-Encoding': 'chunked'},
                       encode_chunked=True)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 201
    assert ask(connection, 'HEAD', '/v1/AUTH_test/c/chunked', X_Auth_Token=token)[0].headers['Content-Length'] == '4000000'
    connection.close()
