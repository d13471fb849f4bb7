"""What is put and what comes back through the filters: archives, conditions, moments when objects go, the facts of /info."""
import io
import json
import tarfile
import time

import pytest


def archive(mode, *members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:
        for name, body in members:
            member = tarfile.TarInfo(name)
            if body is None:
                member.type, member.linkname = tarfile.SYMTYPE, '/etc/passwd'
            else:
                member.size = len(body)
            tar.addfile(member, io.BytesIO(body or b''))
    return data.getvalue()


def told(answer):
    return json.loads(answer.body)


@pytest.mark.parametrize('form, mode', [('tar', 'w'), ('tar.gz', 'w:gz'), ('tar.bz2', 'w:bz2')])
def test_archives(call, form, mode):
    body = archive(mode, ('c/one', b'1'), ('c/dir/two', b'22'), ('c/link', None))
    report = told(call('PUT', f'/v1/AUTH_test?extract-archive={form}', body, {'Accept': 'application/json'}))
    assert (report['Number Files Created'], report['Response Status'], report['Errors']) == (2, '201 Created', [])
    assert call('GET', '/v1/AUTH_test/c').body == b'dir/two\none\n'
    assert call('GET', '/v1/AUTH_test/c/dir/two').body == b'22'
    body = archive(mode, ('../up', b'1'), ('x', b'2'))
    assert told(call('PUT', f'/v1/AUTH_test/c/below?extract-archive={form}', body, {'Accept': 'application/json'}))[
        'Response Status'] in ('201 Created', '400 Bad Request')
    names = call('GET', '/v1/AUTH_test/c').body.split()
    assert b'below/x' in names and all(name.startswith((b'below/', b'dir/', b'one')) for name in names)


@pytest.mark.parametrize('form', ['tar', 'tar.gz', 'tar.bz2'])
@pytest.mark.parametrize('body', [b'', b'no archive' * 100, archive('w:gz', ('c/one', b'1'))[:-20]],
                         ids=['empty', 'text', 'cut short'])
def test_archives_that_are_none(call, form, body):
    answer = call('PUT', f'/v1/AUTH_test?extract-archive={form}', body, {'Accept': 'application/json'})
    assert answer.status in (200, 400)
    assert answer.status == 400 or told(answer)['Response Status'].startswith('400')
    assert call('PUT', '/v1/AUTH_test?extract-archive=zip', b'x').status == 400


def test_many_are_deleted(call, box):
    for name in ('a', 'b%', 'c d'):
        call('PUT', f'{box}/{name.replace("%", "%25").replace(" ", "%20")}', b'x')
    names = b'c/a\n/c/b%25\nc/c%20d\nc/none\nc/%FF\nc\n'
    report = told(call('POST', '/v1/AUTH_test?bulk-delete', names, {'Accept': 'application/json'}))
    assert (report['Number Deleted'], report['Number Not Found'], len(report['Errors'])) == (4, 1, 1)
    assert call('POST', '/v1/AUTH_test?bulk-delete', b'x\n' * 10001).status == 413


def test_conditions(call, box):
    etag = call('PUT', box + '/o', b'0123456789').headers['Etag']
    changed = call('HEAD', box + '/o').headers['Last-Modified']
    old, later = 'Mon, 01 Jan 2001 00:00:00 GMT', 'Fri, 01 Jan 2100 00:00:00 GMT'
    for headers, status in (
            ({'If-Match': f'"{etag}"'}, 200), ({'If-Match': '"0"'}, 412), ({'If-Match': f'"0", "{etag}"'}, 200),
            ({'If-Match': '*'}, 200),
            ({'If-None-Match': f'"{etag}"'}, 304), ({'If-None-Match': '"0"'}, 200), ({'If-None-Match': '*'}, 304),
            ({'If-Modified-Since': changed}, 304), ({'If-Modified-Since': old}, 200), ({'If-Modified-Since': 'nonsense'}, 200),
            ({'If-Unmodified-Since': old}, 412), ({'If-Unmodified-Since': later}, 200),
            ({'Range': 'bytes=2-4', 'If-Range': f'"{etag}"'}, 206), ({'Range': 'bytes=2-4', 'If-Range': '"0"'}, 200),
            ({'Range': 'bytes=2-4', 'If-Match': '"0"'}, 412)):
        for method in ('GET', 'HEAD'):
            if method == 'GET' or 'Range' not in headers:
                assert call(method, box + '/o', headers=headers).status == status, (method, headers)
    assert call('GET', box + '/none', headers={'If-Match': '*'}).status in (404, 412)
    assert call('PUT', box + '/o', b'x', {'If-None-Match': '*'}).status == 412
    assert call('PUT', box + '/o', b'x', {'If-None-Match': f'"{etag}"'}).status == 400
    assert call('PUT', box + '/new', b'x', {'If-None-Match': '*'}).status == 201


def test_objects_go_by_themselves(call, box):
    assert call('PUT', box + '/o', b'x', {'X-Delete-After': '1'}).status == 201
    assert call('PUT', box + '/p', b'x', {'X-Delete-At': str(int(time.time()) + 1000)}).status == 201
    assert int(call('HEAD', box + '/p').headers['X-Delete-At']) > time.time()
    deadline = time.monotonic() + 20
    while call('GET', box + '/o').status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert call('GET', box + '/o').status == 404
    assert call('POST', box + '/o', headers={'X-Object-Meta-A': 'b'}).status == 404
    assert call('POST', box + '/p', headers={'X-Object-Meta-A': 'b'}).status == 202
    assert 'X-Delete-At' not in call('HEAD', box + '/p').headers
    for wrong in ('soon', '-5', '\xb2', '1_000'):
        assert call('PUT', box + '/q', b'x', {'X-Delete-After': wrong}).status == 400


def test_facts_for_everybody(call):
    info = told(call('GET', '/info', token=False))
    assert {'swift', 'tempurl', 'formpost', 'slo', 'dlo', 'symlink', 'bulk_upload', 'bulk_delete', 'staticweb', 'container_quotas',
            'account_quotas', 'versioned_writes', 'object_versioning', 'tempauth'} <= set(info)
    assert info['swift']['max_object_name_length'] == 1024
    assert call('GET', '/healthcheck', token=False).body == b'OK'
    assert call('POST', '/info', token=False).status in (400, 404, 405, 412)
