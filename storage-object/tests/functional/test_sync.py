"""Containers kept the same as others: who may say so, and what is sent."""
import hashlib
import hmac
import json

import pytest

from kodiak.storage_object import shards_command

KEY = "the containers' key"
STAMP = '1400000000.00000'


@pytest.fixture
def realms(tmp_path):
    path = tmp_path / 'realms'
    path.write_text('[US]\nkey = secret\ncluster_one = http://127.0.0.1:1/v1\n')
    return str(path)


@pytest.fixture
def synced(make_call, realms):
    made = make_call({'container_sync': {'realms': realms}})
    made('PUT', '/v1/AUTH_test/c', headers={'X-Container-Sync-Key': 'k'})
    return made


def test_where_to(synced):
    for text, status in (('//us/one/AUTH_test/d', 202), ('//us/two/AUTH_test/d', 400), ('//eu/one/AUTH_test/d', 400),
                         ('http://localhost/v1/AUTH_test/d', 202), ('http://127.0.0.1:8080/v1/AUTH_test/d', 202),
                         ('http://example.com/v1/AUTH_test/d', 400), ('ftp://localhost/v1/a/b', 400), ('//us/one/a', 400)):
        assert synced('PUT', '/v1/AUTH_test/c', headers={'X-Container-Sync-To': text}).status == status, text


def test_who_may(synced):
    path = '/v1/AUTH_test/c/o'
    signature = hmac.new(b'secret', f'PUT\n{path}\n{STAMP}\nn\nk'.encode(), 'sha1').hexdigest()
    good = {'X-Timestamp': STAMP, 'X-Container-Sync-Auth': f'US n {signature}'}
    assert synced('PUT', path, b'x', {**good, 'X-Container-Sync-Auth': f'US n {signature[::-1]}'}, token=False).status == 401
    assert synced('PUT', path, b'x', good, token=False).status == 201
    assert synced('GET', path).headers['X-Timestamp'] == STAMP
    assert synced('PUT', path + '2', b'x', good, token=False).status == 401
    assert synced('PUT', path, b'y', {'X-Timestamp': STAMP, 'X-Container-Sync-Key': 'other'}, token=False).status == 401
    later = {'X-Timestamp': '1500000000.00000', 'X-Container-Sync-Key': 'k'}
    assert synced('PUT', path, b'y', later, token=False).status == 201
    assert synced('DELETE', path, headers={**later, 'X-Timestamp': '1600000000.00000'}, token=False).status == 204


def test_without_a_key_nobody_may(call, box):
    assert call('PUT', box + '/o', b'x', {'X-Timestamp': STAMP, 'X-Container-Sync-Key': ''}, token=False).status == 401


def test_what_is_sent(make_call, real_servers, serve, request):
    if request.getfixturevalue('servers') is not real_servers:
        pytest.skip('the stand-in has no daemons')
    call = make_call({'container_sync': {}})
    url = serve(call.application)
    for box, other in (('c', 'd'), ('d', 'c')):
        headers = {'X-Container-Sync-Key': KEY, 'X-Container-Sync-To': f'{url}/v1/AUTH_test/{other}'}
        call('PUT', f'/v1/AUTH_test/{box}', headers=headers)
    body = b'0123456789' * 30000
    call('PUT', '/v1/AUTH_test/c/a%20b', body, {'X-Object-Meta-A': '1', 'Content-Type': 'text/x'})
    call('PUT', '/v1/AUTH_test/d/back', b'y')
    call('PUT', '/v1/AUTH_test/c/gone', b'x')
    call('DELETE', '/v1/AUTH_test/c/gone')
    real_servers.process.once('syncer')
    found = call('GET', '/v1/AUTH_test/d/a%20b')
    assert (found.body, found.headers['X-Object-Meta-A'], found.headers['Content-Type']) == (body, '1', 'text/x')
    assert found.headers['X-Timestamp'] == call('HEAD', '/v1/AUTH_test/c/a%20b').headers['X-Timestamp']
    assert found.headers['Etag'] == hashlib.md5(body).hexdigest()
    assert call('GET', '/v1/AUTH_test/c/back').body == b'y'
    call('DELETE', '/v1/AUTH_test/c/a%20b')
    real_servers.process.once('syncer')
    assert [row['name'] for row in json.loads(call('GET', '/v1/AUTH_test/d?format=json').body)] == ['back']


def test_what_is_sent_of_a_sharded_container(make_call, real_servers, serve, request, capsys):
    if request.getfixturevalue('servers') is not real_servers:
        pytest.skip('the stand-in has no daemons')
    call = make_call({'container_sync': {}})
    url = serve(call.application)
    call('PUT', '/v1/AUTH_test/d', headers={'X-Container-Sync-Key': KEY})
    call('PUT', '/v1/AUTH_test/c', headers={'X-Container-Sync-Key': KEY, 'X-Container-Sync-To': f'{url}/v1/AUTH_test/d'})
    names = [f'o{number}' for number in range(6)]
    for name in names:
        assert call('PUT', f'/v1/AUTH_test/c/{name}', name.encode()).status == 201
    shards_command.main(['--config-file', f'{real_servers.folder}/server.conf', 'AUTH_test/c', 'find-and-replace', '2', '--enable'])
    assert json.loads(capsys.readouterr().out)['state'] == 'sharding'
    for _ in range(3):
        real_servers.process.once('sharder')
    assert call('PUT', '/v1/AUTH_test/c/late', b'late').status == 201
    assert call('DELETE', '/v1/AUTH_test/c/o1').status == 204
    listed = [row['name'] for row in json.loads(call('GET', '/v1/AUTH_test/c?format=json').body)]
    assert listed == ['late', 'o0', *names[2:]]
    shards_command.main(['--config-file', f'{real_servers.folder}/server.conf', 'AUTH_test/c', 'info'])
    assert json.loads(capsys.readouterr().out)['state'] == 'sharded'
    real_servers.process.once('syncer')
    assert [row['name'] for row in json.loads(call('GET', '/v1/AUTH_test/d?format=json').body)] == listed
