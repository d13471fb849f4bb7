"""The proxy over four stand-in devices: writes, reads, devices that are out, and each filter's main road."""
import hashlib
import hmac
import json
import time
import urllib.parse

import pytest


def test_an_object_comes_back_as_it_was_put(call, box):
    assert call('PUT', box + '/a%20b', b'hello', {'X-Object-Meta-Colour': 'red', 'Content-Type': 'text/x'}).status == 201
    answer = call('GET', box + '/a%20b')
    assert (answer.status, answer.body) == (200, b'hello')
    assert answer.headers['X-Object-Meta-Colour'] == 'red'
    assert answer.headers['Etag'] == hashlib.md5(b'hello').hexdigest()
    assert call('GET', box).body == b'a b\n'
    assert json.loads(call('GET', box + '?format=json').body)[0]['bytes'] == 5
    assert call('DELETE', box + '/a%20b').status == 204
    assert call('GET', box + '/a%20b').status == 404


def test_a_large_body_streams_to_three_devices(call, box, servers):
    body = bytes(range(256)) * 4096 * 3
    assert call('PUT', box + '/big', body).status == 201
    assert sum(('AUTH_test', 'c', 'big') in device.objects for device in servers.devices.values()) == 3
    assert call('GET', box + '/big').body == body


@pytest.mark.parametrize('size', [10, 1 << 20])
def test_a_device_that_is_out_is_replaced_by_a_handoff(call, box, servers, size):
    servers.failing.add('d1')
    for number in range(8):
        assert call('PUT', f'{box}/o{number}', b'x' * size).status == 201
        assert call('GET', f'{box}/o{number}').body == b'x' * size
    assert not servers.devices['d1'].objects


def test_without_a_quorum_nothing_is_acknowledged(call, box, servers):
    servers.failing.update(('d0', 'd1', 'd2'))
    assert call('PUT', box + '/o', b'x').status == 503


@pytest.mark.parametrize('form', [{}, {'Accept': 'application/json'}])
def test_a_head_has_no_content_and_every_answer_a_type(call, box, form):
    for path in ('/v1/AUTH_test', box, box + '?format=json'):
        answer = call('HEAD', path, headers=form)
        assert (answer.status, answer.headers['Content-Type'].endswith('utf-8')) == (204, True)
    for method in ('POST', 'PUT', 'DELETE'):
        assert call(method, box).headers['Content-Type'].startswith('text/html')


def test_a_web_site_s_index_may_be_of_any_type(call, box):
    call('POST', box, headers={'X-Container-Read': '.r:*', 'X-Container-Meta-Web-Index': 'i'})
    call('PUT', box + '/i', b'<p>', {'Content-Type': 'application/json'})
    assert call('GET', box + '/', token=False).body == b'<p>'


def test_metadata_may_be_empty(call, box):
    call('PUT', box + '/o', b'', {'X-Object-Meta-A': '1'})
    assert call('POST', box + '/o', headers={'X-Object-Meta-A': ''}).status == 202
    assert call('HEAD', box + '/o').headers['X-Object-Meta-A'] == ''


def test_without_servers_nothing_is_said_to_be_missing(call, box, servers):
    servers.failing.update(servers.devices)
    for method, path in (('GET', box), ('PUT', '/v1/AUTH_test/new'), ('GET', box + '/o'), ('PUT', box + '/o')):
        assert call(method, path).status == 503, (method, path)


@pytest.mark.parametrize('size', [1 << 20, (3 << 20) + 7])
def test_a_large_body_is_hashed_once_and_checked(call, box, size):
    body = bytes(range(251)) * (size // 251 + 1)
    body = body[:size]
    etag = hashlib.md5(body).hexdigest()
    assert call('PUT', box + '/o', body, {'Etag': '0' * 32}).status == 422
    assert call('GET', box + '/o').status == 404
    answer = call('PUT', box + '/o', body, {'Etag': etag})
    assert (answer.status, answer.headers['Etag']) == (201, etag)
    assert call('GET', box + '/o').body == body
    assert json.loads(call('GET', box + '?format=json').body)[0]['bytes'] == size


def test_a_listing_has_the_same_names_in_every_form(call, box):
    for name in ('b/1', 'b/2', 'ä', 'symlink_target=', 'a,version_id='):
        call('PUT', f'{box}/{urllib.parse.quote(name)}', b'x')
    for query in ('', '&delimiter=/', '&prefix=b', '&limit=2', '&reverse=true'):
        rows = json.loads(call('GET', f'{box}?format=json{query}').body)
        names = [row.get('name', row.get('subdir')) for row in rows]
        assert names
        assert call('GET', f'{box}?format=plain{query}').body.decode().splitlines() == names
        xml = call('GET', f'{box}?format=xml{query}').body.decode()
        assert all(f'<name>{name}</name>' in xml for name in names)


def test_wrong_etag_is_refused(call, box):
    assert call('PUT', box + '/o', b'x', {'Etag': '0' * 32}).status == 422
    assert call('GET', box + '/o').status == 404


@pytest.mark.parametrize('asked,status,body', [
    ('bytes=1-2', 206, b'12'), ('bytes=-2', 206, b'89'), ('bytes=8-', 206, b'89'),
    ('bytes=20-', 416, None), ('lines=1', 200, b'0123456789')])
def test_ranges(call, box, asked, status, body):
    call('PUT', box + '/o', b'0123456789')
    answer = call('GET', box + '/o', headers={'Range': asked})
    assert answer.status == status
    if body is not None:
        assert answer.body == body


def test_several_ranges(call, box):
    call('PUT', box + '/o', b'0123456789')
    answer = call('GET', box + '/o', headers={'Range': 'bytes=0-1,5-6'})
    assert answer.status == 206
    assert answer.headers['Content-Type'].startswith('multipart/byteranges;boundary=')
    assert len(answer.body) == int(answer.headers['Content-Length'])
    assert b'\r\n\r\n01\r\n' in answer.body and b'\r\n\r\n56\r\n' in answer.body


def test_names_and_metadata_have_limits(call, box):
    assert call('PUT', box + '/' + 'n' * 1025, b'').status == 400
    assert call('PUT', box + '/o', b'', {'X-Object-Meta-A': 'v' * 257}).status == 400
    assert call('PUT', box + '/o', b'', {f'X-Object-Meta-{n}': 'v' for n in range(91)}).status == 400
    assert call('PUT', box + '/%ff', b'').status == 412
    assert call('PUT', box + '/a%00b', b'').status == 412


def test_others_need_a_list(call, box):
    call('PUT', box + '/o', b'x')
    assert call('GET', box + '/o', token=False).status == 401
    call('POST', box, headers={'X-Container-Read': '.r:*'})
    assert call('GET', box + '/o', token=False).status == 200
    assert call('GET', box, token=False).status == 401
    call('POST', box, headers={'X-Container-Read': '.r:*,.rlistings'})
    assert call('GET', box, token=False).status == 200
    assert call('PUT', box + '/o', b'y', token=False).status == 401


def test_system_metadata_neither_comes_in_nor_goes_out(call, box):
    call('PUT', box + '/o', b'x', {'X-Object-Sysmeta-Slo-Etag': 'evil', 'X-Timestamp': '1'})
    answer = call('GET', box + '/o')
    assert not [name for name in answer.headers if 'Sysmeta' in name or name.startswith('X-Backend')]


def test_copy(call, box):
    call('PUT', box + '/o', b'x', {'X-Object-Meta-A': '1'})
    assert call('COPY', box + '/o', headers={'Destination': 'c/p', 'X-Object-Meta-B': '2'}).status == 201
    answer = call('GET', box + '/p')
    assert (answer.body, answer.headers['X-Object-Meta-A'], answer.headers['X-Object-Meta-B']) == (b'x', '1', '2')


def test_static_and_dynamic_large_objects(call, box):
    for number in range(3):
        call('PUT', f'{box}/seg/{number}', bytes([65 + number]) * 4)
    manifest = json.dumps([{'path': f'/c/seg/{number}'} for number in range(3)]).encode()
    assert call('PUT', box + '/slo?multipart-manifest=put', manifest).status == 201
    assert call('GET', box + '/slo').body == b'AAAABBBBCCCC'
    assert call('GET', box + '/slo', headers={'Range': 'bytes=3-8'}).body == b'ABBBBC'
    call('PUT', box + '/dlo', b'', {'X-Object-Manifest': 'c/seg/'})
    assert call('GET', box + '/dlo', headers={'Range': 'bytes=3-8'}).body == b'ABBBBC'
    missing = json.dumps([{'path': '/c/none'}]).encode()
    assert call('PUT', box + '/bad?multipart-manifest=put', missing).status == 400
    assert b'Number Deleted: 4' in call('DELETE', box + '/slo?multipart-manifest=delete').body
    assert call('GET', box).body == b'dlo\n'


def test_temporary_url(call, box):
    call('POST', '/v1/AUTH_test', headers={'X-Account-Meta-Temp-URL-Key': 'k'})
    call('PUT', box + '/o', b'x')
    expires = int(time.time()) + 60
    signature = hmac.new(b'k', f'GET\n{expires}\n{box}/o'.encode(), 'sha256').hexdigest()
    good = f'{box}/o?temp_url_sig={signature}&temp_url_expires={expires}'
    assert call('GET', good, token=False).body == b'x'
    assert call('PUT', good, b'y', token=False).status == 401
    assert call('GET', good.replace(str(expires), str(expires + 1)), token=False).status == 401
    assert call('GET', good.replace('/o?', '/p?'), token=False).status == 401


def test_links(call, box):
    call('PUT', box + '/o', b'x')
    assert call('PUT', box + '/l', b'', {'X-Symlink-Target': 'c/o'}).status == 201
    assert call('GET', box + '/l').body == b'x'
    assert call('GET', box + '/l?symlink=get').headers['X-Symlink-Target'] == 'c/o'
    assert call('POST', box + '/l', headers={'X-Object-Meta-A': '1'}).status == 307


def test_versions_in_a_second_container(call, box):
    call('PUT', '/v1/AUTH_test/v')
    call('POST', box, headers={'X-Versions-Location': 'v'})
    for body in (b'1', b'2', b'3'):
        call('PUT', box + '/o', body)
    assert len(call('GET', '/v1/AUTH_test/v').body.split()) == 2
    call('DELETE', box + '/o')
    assert call('GET', box + '/o').body == b'2'


def test_what_a_listing_shows_counts_for_the_quota_at_once(call, box, eventually):
    call('POST', box, headers={'X-Container-Meta-Quota-Count': '2'})
    for number in range(2):
        assert call('PUT', f'{box}/o{number}', b'x').status == 201
    eventually(lambda: call('HEAD', box).headers['X-Container-Object-Count'] == '2')
    assert call('PUT', box + '/o2', b'x').status == 413


def test_quotas(call, box):
    call('POST', box, headers={'X-Container-Meta-Quota-Bytes': '4'})
    assert call('PUT', box + '/o', b'12345').status == 413
    assert call('PUT', box + '/o', b'1234').status == 201
    assert call('POST', '/v1/AUTH_test', headers={'X-Account-Quota-Bytes': '1'}).status == 403


def test_bulk(call, box):
    for name in 'abc':
        call('PUT', f'{box}/{name}', b'x')
    answer = call('POST', '/v1/AUTH_test?bulk-delete', b'/c/a\n/c/b\n/c/none\n',
                  {'Accept': 'application/json', 'Content-Type': 'text/plain'})
    report = json.loads(answer.body)
    assert (report['Number Deleted'], report['Number Not Found'], report['Response Status']) == (2, 1, '200 OK')


def test_cors(call, box):
    call('POST', box, headers={'X-Container-Meta-Access-Control-Allow-Origin': 'http://a'})
    call('PUT', box + '/o', b'x')
    ask = {'Origin': 'http://a', 'Access-Control-Request-Method': 'GET'}
    assert call('OPTIONS', box + '/o', headers=ask, token=False).headers['Access-Control-Allow-Origin'] == 'http://a'
    assert call('OPTIONS', box + '/o', headers={**ask, 'Origin': 'http://b'}, token=False).status == 401
    assert 'Access-Control-Allow-Origin' in call('GET', box + '/o', headers={'Origin': 'http://a'}).headers


def test_anybody_may_ask_what_an_account_takes(call, box):
    answer = call('OPTIONS', '/v1/AUTH_test', headers={'Origin': 'http://a', 'Access-Control-Request-Method': 'GET'}, token=False)
    assert (answer.status, 'Access-Control-Allow-Origin' in answer.headers) == (200, False)
    assert 'POST' in answer.headers['Allow']
