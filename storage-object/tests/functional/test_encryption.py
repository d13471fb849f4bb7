"""Encryption at rest: what leaves the proxy is not what came, and comes back as it was."""
import base64
import hashlib
import json
import os
import pathlib

import pytest

SECRET = b'something that stands in the body and in the metadata, and nowhere on a device'


def keys_file(path, *names):
    path.write_text(''.join(f'{name} {base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()}\n' for name in names))
    return str(path)


@pytest.fixture
def encrypted(make_call, tmp_path):
    return make_call({'encryption': {'keys': keys_file(tmp_path / 'keys', 'one')}})


@pytest.fixture
def place(encrypted):
    assert encrypted('PUT', '/v1/AUTH_test/c').status == 201
    return '/v1/AUTH_test/c'


def stored(servers):
    """All bytes on the devices."""
    if hasattr(servers, 'process'):
        return b''.join(file.read_bytes() for file in pathlib.Path(f'{servers.folder}/devices').rglob('*') if file.is_file())
    return repr([(d.objects, d.containers) for d in servers.devices.values()]).encode()


@pytest.mark.parametrize('size', [1, 1000, 300000, 3 << 20])
def test_what_is_stored_is_not_what_came(encrypted, place, servers, size):
    body = (SECRET * (size // len(SECRET) + 1))[:size]
    etag = hashlib.md5(body).hexdigest()
    put = encrypted('PUT', place + '/o', body, {'X-Object-Meta-Note': SECRET.decode(), 'Etag': etag})
    assert (put.status, put.headers['Etag']) == (201, etag)
    found = encrypted('GET', place + '/o')
    assert (found.body, found.headers['Etag'], found.headers['X-Object-Meta-Note']) == (body, etag, SECRET.decode())
    assert not [name for name in found.headers if 'Crypto' in name]
    row, = json.loads(encrypted('GET', place + '?format=json').body)
    assert (row['hash'], row['bytes']) == (etag, size)
    data = stored(servers)
    assert SECRET not in data
    # One byte in 256 stays what it was, and so does the checksum of that byte, which is kept of what is stored.
    assert size == 1 or etag.encode() not in data


@pytest.mark.parametrize('asked', ['bytes=0-0', 'bytes=15-17', 'bytes=299990-', 'bytes=-5', 'bytes=16-31'])
def test_ranges(encrypted, place, asked):
    body = os.urandom(300000)
    encrypted('PUT', place + '/o', body)
    answer = encrypted('GET', place + '/o', headers={'Range': asked})
    first, last = asked[6:].split('-')
    wanted = body[-int(last):] if not first else body[int(first):int(last) + 1 if last else None]
    assert (answer.status, answer.body) == (206, wanted)


def test_several_ranges(encrypted, place):
    encrypted('PUT', place + '/o', b'0123456789' * 10)
    answer = encrypted('GET', place + '/o', headers={'Range': 'bytes=0-1,15-16'})
    assert answer.status == 206 and len(answer.body) == int(answer.headers['Content-Length'])
    assert b'\r\n\r\n01\r\n' in answer.body and b'\r\n\r\n56\r\n' in answer.body


def test_conditions(encrypted, place):
    etag = encrypted('PUT', place + '/o', b'body').headers['Etag']
    assert encrypted('GET', place + '/o', headers={'If-Match': f'"{etag}"'}).status == 200
    assert encrypted('GET', place + '/o', headers={'If-Match': '"other"'}).status == 412
    unchanged = encrypted('GET', place + '/o', headers={'If-None-Match': etag})
    assert (unchanged.status, unchanged.headers['Etag']) == (304, etag)
    assert encrypted('GET', place + '/o', headers={'Range': 'bytes=0-0', 'If-Range': f'"{etag}"'}).status == 206
    assert encrypted('GET', place + '/o', headers={'Range': 'bytes=0-0', 'If-Range': '"other"'}).status == 200


def test_a_wrong_etag_is_refused(encrypted, place):
    assert encrypted('PUT', place + '/o', b'body', {'Etag': '0' * 32}).status == 422
    assert encrypted('GET', place + '/o').status == 404


def test_metadata_alone(encrypted, place, servers):
    encrypted('PUT', place + '/o', b'body')
    assert encrypted('POST', place + '/o', headers={'X-Object-Meta-Note': SECRET.decode()}).status == 202
    assert encrypted('HEAD', place + '/o').headers['X-Object-Meta-Note'] == SECRET.decode()
    assert SECRET not in stored(servers)


def test_copies_large_objects_links_and_versions(encrypted, place):
    encrypted('POST', place, headers={'X-Versions-Enabled': 'true'})
    first = encrypted('PUT', place + '/o', b'one').headers['X-Object-Version-Id']
    encrypted('PUT', place + '/o', b'two')
    assert encrypted('GET', f'{place}/o?version-id={first}').body == b'one'
    assert encrypted('COPY', place + '/o', headers={'Destination': 'c/p'}).status == 201
    manifest = json.dumps([{'path': '/c/o'}, {'path': '/c/p'}]).encode()
    assert encrypted('PUT', place + '/slo?multipart-manifest=put', manifest).status == 201
    assert encrypted('GET', place + '/slo').body == b'twotwo'
    encrypted('PUT', place + '/link', b'', {'X-Symlink-Target': 'c/slo'})
    assert encrypted('GET', place + '/link').body == b'twotwo'
    rows = {row['name']: row for row in json.loads(encrypted('GET', place + '?format=json').body)}
    assert rows['o']['hash'] == hashlib.md5(b'two').hexdigest()
    assert rows['slo']['slo_etag'] == encrypted('HEAD', place + '/slo').headers['Etag']
    assert rows['link']['symlink_path'] == '/v1/AUTH_test/c/slo'


def test_keys_change(make_call, encrypted, place, tmp_path):
    encrypted('PUT', place + '/o', b'old', {'X-Object-Meta-A': 'b'})
    later = make_call({'encryption': {'keys': keys_file(tmp_path / 'more', 'two', 'one')}})
    assert later('GET', place + '/o').body == b'old'
    assert later('GET', place + '/o', headers={'If-Match': hashlib.md5(b'old').hexdigest()}).status == 200
    later('PUT', place + '/p', b'new')
    assert json.loads(later('GET', place + '?format=json').body)[0]['hash'] == hashlib.md5(b'old').hexdigest()
    assert encrypted('GET', place + '/p').status == 500


class TestOfS3:
    """The same, through the S3 API."""

    @pytest.fixture
    def s3_options(self, tmp_path):
        return {'encryption': {'keys': keys_file(tmp_path / 'keys', 'one')}}

    @pytest.mark.parametrize('size', [0, 1000, 3 << 20])
    def test_a_checksum_tells_nothing_on_the_devices(self, s3, servers, size):
        body = (SECRET * (size // len(SECRET) + 1))[:size]
        told = base64.b64encode(hashlib.sha256(body).digest()).decode()
        etag = s3.put_object(Bucket='bukket', Key='o', Body=body, ChecksumSHA256=told)['ETag']
        s3.put_object(Bucket='bukket', Key='p', Body=body, ChecksumAlgorithm='SHA256')      # (in a trailer)
        for key in 'op':
            found = s3.get_object(Bucket='bukket', Key=key, ChecksumMode='ENABLED')
            assert (found['ChecksumSHA256'], found['Body'].read(), found['ETag']) == (told, body, etag)
        assert s3.put_object(Bucket='bukket', Key='o', Body=b'new', IfMatch=etag)
        data = stored(servers)
        assert told.encode() not in data and (not size or SECRET not in data)
