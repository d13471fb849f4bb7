"""Versions inside a container: what is kept, what a version id leads to, and how listings show it."""
import json

import pytest


@pytest.fixture
def kept(call, box):
    assert call('POST', box, headers={'X-Versions-Enabled': 'true'}).status == 204
    return box


def put(call, path, body, **headers):
    return call('PUT', path, body, headers).headers['X-Object-Version-Id']


def versions(call, box, query=''):
    return [(row['name'], row['version_id'], row['is_latest']) for row in json.loads(call('GET', f'{box}?versions{query}').body)]


def test_every_version_is_kept(call, kept, eventually):
    first, second = put(call, kept + '/o', b'one'), put(call, kept + '/o', b'three')
    assert call('GET', kept + '/o').body == b'three'
    assert call('GET', f'{kept}/o?version-id={first}').body == b'one'
    assert versions(call, kept) == [('o', second, True), ('o', first, False)]
    row, = json.loads(call('GET', kept + '?format=json').body)
    assert (row['name'], row['bytes'], row['hash']) == ('o', 5, call('GET', kept + '/o').headers['Etag'])
    answer = call('HEAD', kept)
    assert (answer.headers['X-Versions-Enabled'], answer.headers['X-Container-Bytes-Used']) == ('True', '8')
    eventually(lambda: json.loads(call('GET', '/v1/AUTH_test?format=json').body)[0]['bytes'] == 8)
    assert call('GET', '/v1/AUTH_test').body == b'c\n'


def test_a_deletion_is_a_version(call, kept):
    first = put(call, kept + '/o', b'one')
    marker = call('DELETE', kept + '/o').headers['X-Object-Version-Id']
    assert call('GET', kept + '/o').status == 404
    assert versions(call, kept) == [('o', marker, True), ('o', first, False)]
    assert call('GET', f'{kept}/o?version-id={marker}').headers['Content-Type'].startswith('application/x-deleted')
    assert call('PUT', f'{kept}/o?version-id={first}').status == 201
    assert call('GET', kept + '/o').body == b'one'


def test_a_version_goes(call, kept):
    first, second = put(call, kept + '/o', b'one'), put(call, kept + '/o', b'two')
    assert call('DELETE', f'{kept}/o?version-id={second}').headers['X-Object-Current-Version-Id'] == ''
    assert call('GET', kept + '/o').status == 404
    assert versions(call, kept) == [('o', first, False)]
    assert call('DELETE', kept).status == 409
    assert call('DELETE', f'{kept}/o?version-id={first}').status == 204
    assert call('DELETE', kept).status == 204


def test_what_was_there_before_is_kept_too(call, box):
    call('PUT', box + '/o', b'old', {'X-Object-Meta-A': '1'})
    call('POST', box, headers={'X-Versions-Enabled': 'true'})
    assert call('GET', box + '/o').headers['X-Object-Version-Id'] == 'null'
    assert versions(call, box) == [('o', 'null', True)]
    second = put(call, box + '/o', b'new')
    (_, now, _), (_, before, _) = versions(call, box)
    assert now == second
    answer = call('GET', f'{box}/o?version-id={before}')
    assert (answer.body, answer.headers['X-Object-Meta-A']) == (b'old', '1')


def test_suspended(call, kept):
    first = put(call, kept + '/o', b'one')
    call('POST', kept, headers={'X-Versions-Enabled': 'false'})
    call('PUT', kept + '/o', b'two')
    call('PUT', kept + '/o', b'three')
    assert versions(call, kept) == [('o', 'null', True), ('o', first, False)]
    call('DELETE', kept + '/o')
    assert versions(call, kept) == [('o', first, False)]


@pytest.mark.parametrize('backwards', [False, True])
def test_pages(call, kept, backwards):
    for name in 'ab/c', 'b', 'ba':
        for body in b'12':
            put(call, f'{kept}/{name}', bytes([body]))
    call('DELETE', kept + '/b')
    reverse = '&reverse=true' if backwards else ''
    whole = versions(call, kept, reverse)
    assert len(whole) == 7
    seen, more = [], ''
    while page := versions(call, kept, f'&limit=2{reverse}{more}'):
        seen += page
        more = f'&marker={page[-1][0]}&version_marker={page[-1][1]}'
    assert [row[:2] for row in seen] == [row[:2] for row in whole]
    rows = json.loads(call('GET', kept + '?versions&delimiter=/').body)
    assert [row.get('subdir', row.get('name')) for row in rows] == ['ab/', 'b', 'b', 'b', 'ba', 'ba']
    assert {name for name, _, _ in versions(call, kept, '&prefix=b')} == {'b', 'ba'}


def test_large_objects_and_links(call, kept):
    call('PUT', '/v1/AUTH_test/s')
    call('PUT', '/v1/AUTH_test/s/1', b'AAAA')
    first = put(call, kept + '/o?multipart-manifest=put', json.dumps([{'path': '/s/1'}]).encode())
    second = call('PUT', kept + '/o', b'', {'X-Symlink-Target': 's/1'}).headers['X-Object-Version-Id']
    assert call('GET', kept + '/o').body == b'AAAA'
    assert call('GET', f'{kept}/o?version-id={first}').body == b'AAAA'
    assert call('GET', f'{kept}/o?version-id={second}&symlink=get').headers['X-Symlink-Target'] == 's/1'
    rows = {row['version_id']: row for row in json.loads(call('GET', kept + '?versions').body)}
    assert (rows[first]['bytes'], rows[second]['symlink_path']) == (4, '/v1/AUTH_test/s/1')


def test_metadata_is_the_versions_own(call, kept):
    first, second = put(call, kept + '/o', b'one'), put(call, kept + '/o', b'two')
    assert call('POST', kept + '/o', headers={'X-Object-Meta-A': '1'}).status == 202
    assert call('HEAD', f'{kept}/o?version-id={second}').headers['X-Object-Meta-A'] == '1'
    assert 'X-Object-Meta-A' not in call('HEAD', f'{kept}/o?version-id={first}').headers


def test_refusals(call, kept):
    put(call, kept + '/o', b'one')
    assert call('GET', kept + '/o?version-id=bad').status == 400
    assert call('GET', kept + '/o?version-id=1234567890.12345').status == 404
    assert call('PUT', kept + '/o?version-id=null').status == 400
    assert call('PUT', kept + '/o', b'x', {'If-None-Match': '*'}).status == 412
    assert call('POST', kept, headers={'X-Versions-Location': 'v'}).status == 400
    assert call('GET', kept + '?versions&format=xml').status == 406
    assert call('GET', '/v1/AUTH_test/%00versions%00c').status == 412
    call('POST', kept, headers={'X-Container-Read': '.r:*'})
    version = versions(call, kept)[0][1]
    assert call('GET', kept + '/o', token=False).body == b'one'
    assert call('GET', f'{kept}/o?version-id={version}', token=False).status in (401, 403)
