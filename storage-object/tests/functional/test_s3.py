"""The S3 API, called as boto3 calls it: signed by hand here, so that what is signed is seen."""
import base64
import datetime
import hashlib
import hmac
import io
import urllib.parse
import xml.etree.ElementTree as ElementTree

import pytest

from kodiak.storage_object.proxy import app, pipeline
from kodiak.storage_object.proxy.http import Response

NAMES = ['catch_errors', 's3', 'localauth', 'copy', 's3_guard', 'slo', 'symlink', 'versioning']
USERS = {'user_test_tester': 'testing .admin'}
SCOPE = 'us-east-1/s3/aws4_request'


class Client:
    """Signs with version 4."""

    def __init__(self, application, secret='testing', access='test:tester'):
        self.application, self.secret, self.access = application, secret, access

    def key(self, day):
        key = ('AWS4' + self.secret).encode()
        for word in (day, 'us-east-1', 's3', 'aws4_request'):
            key = hmac.new(key, word.encode(), 'sha256').digest()
        return key

    def __call__(self, method, path, body=b'', headers=None, payload=None, coded=None):
        path, _, query = path.partition('?')
        now = datetime.datetime.now(datetime.UTC).strftime('%Y%m%dT%H%M%SZ')
        given = {'host': 'localhost', 'x-amz-date': now, 'x-amz-content-sha256': payload or hashlib.sha256(body).hexdigest(),
                 **(headers or {})}
        pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
        text = '&'.join(f'{urllib.parse.quote(k, safe="")}={urllib.parse.quote(v, safe="")}' for k, v in pairs)
        names = sorted(given)
        canonical = '\n'.join((method, urllib.parse.quote(path), text, ''.join(f'{n}:{given[n]}\n' for n in names), ';'.join(names),
                               given['x-amz-content-sha256']))
        to_sign = f'AWS4-HMAC-SHA256\n{now}\n{now[:8]}/{SCOPE}\n{hashlib.sha256(canonical.encode()).hexdigest()}'
        signature = hmac.new(self.key(now[:8]), to_sign.encode(), 'sha256').hexdigest()
        given['authorization'] = (f'AWS4-HMAC-SHA256 Credential={self.access}/{now[:8]}/{SCOPE}, '
                                  f'SignedHeaders={";".join(names)}, Signature={signature}')
        if coded:
            body = coded(self, now, signature)
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': path, 'QUERY_STRING': text, 'wsgi.input': io.BytesIO(body),
                   'wsgi.url_scheme': 'http', 'CONTENT_LENGTH': str(len(body)), 'REMOTE_ADDR': '127.0.0.1'}
        environ.update(('HTTP_' + n.upper().replace('-', '_'), v) for n, v in given.items())
        answer = Response.from_wsgi(self.application, environ)
        answer.read()
        return answer


@pytest.fixture
def application(rings):
    return pipeline.assemble(app.Proxy(rings), [(name, USERS if name == 'localauth' else {}) for name in NAMES])


@pytest.fixture
def call(application):
    made = Client(application)
    assert made('PUT', '/bucket').status == 200
    return made


def code(answer):
    return ElementTree.fromstring(answer.body).findtext('Code')


def test_an_object(call):
    answer = call('PUT', '/bucket/a b', b'hello', {'x-amz-meta-colour': 'red'})
    assert (answer.status, answer.headers['Etag']) == (200, f'"{hashlib.md5(b"hello").hexdigest()}"')
    answer = call('GET', '/bucket/a b')
    assert (answer.body, answer.headers['X-Amz-Meta-Colour']) == (b'hello', 'red')
    assert b'<Key>a b</Key>' in call('GET', '/bucket?list-type=2').body
    assert code(call('DELETE', '/bucket')) == 'BucketNotEmpty'
    assert call('DELETE', '/bucket/a b').status == 204
    assert code(call('GET', '/bucket/a b')) == 'NoSuchKey'
    assert call('DELETE', '/bucket').status == 204
    assert code(call('GET', '/bucket')) == 'NoSuchBucket'


def test_signatures_are_checked(application):
    assert code(Client(application, secret='wrong')('GET', '/')) == 'SignatureDoesNotMatch'
    assert code(Client(application, access='test:nobody')('GET', '/')) == 'InvalidAccessKeyId'


def test_what_is_not_what_was_signed_is_not_kept(call):
    assert code(call('PUT', '/bucket/o', b'x', payload='0' * 64)) == 'XAmzContentSHA256Mismatch'
    assert code(call('GET', '/bucket/o')) == 'NoSuchKey'


@pytest.mark.parametrize('good', [True, False])
def test_chunks_are_signed_each(call, good):
    def coded(client, now, previous):
        out = b''
        for data in (b'a' * 70000, b'bc', b''):
            text = '\n'.join(('AWS4-HMAC-SHA256-PAYLOAD', now, f'{now[:8]}/{SCOPE}', previous, hashlib.sha256(b'').hexdigest(),
                              hashlib.sha256(data).hexdigest()))
            previous = hmac.new(client.key(now[:8]), text.encode(), 'sha256').hexdigest()
            out += b'%x;chunk-signature=%b\r\n%b\r\n' % (len(data), previous.encode(), data)
        return out if good else out.replace(b'bc', b'bd')
    answer = call('PUT', '/bucket/o', headers={'x-amz-decoded-content-length': '70002', 'content-encoding': 'aws-chunked'},
                  payload='STREAMING-AWS4-HMAC-SHA256-PAYLOAD', coded=coded)
    if good:
        assert answer.status == 200
        assert call('GET', '/bucket/o').body == b'a' * 70000 + b'bc'
    else:
        assert code(answer) == 'SignatureDoesNotMatch'
        assert code(call('GET', '/bucket/o')) == 'NoSuchKey'


@pytest.mark.parametrize('checksum,status', [(b'7YlzOg==', 400), (b'DUoRhQ==', 200)])
def test_trailing_checksums(call, checksum, status):
    body = b'b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:' + checksum + b'\r\n\r\n'
    answer = call('PUT', '/bucket/o', headers={'x-amz-decoded-content-length': '11', 'x-amz-trailer': 'x-amz-checksum-crc32'},
                  payload='STREAMING-UNSIGNED-PAYLOAD-TRAILER', coded=lambda *_: body)
    assert answer.status == status


def test_multipart(call):
    upload = ElementTree.fromstring(call('POST', '/bucket/big?uploads').body).findtext(
        '{http://s3.amazonaws.com/doc/2006-03-01/}UploadId')
    parts = [b'a' * (5 << 20), b'b' * 10]
    etags = [call('PUT', f'/bucket/big?uploadId={upload}&partNumber={n}', part).headers['Etag'] for n, part in enumerate(parts, 1)]
    text = ''.join(f'<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>' for n, etag in enumerate(etags, 1))
    wrong = f'<CompleteMultipartUpload>{text.replace(etags[1], etags[0])}</CompleteMultipartUpload>'.encode()
    assert code(call('POST', f'/bucket/big?uploadId={upload}', wrong)) == 'InvalidPart'
    whole = f'<CompleteMultipartUpload>{text}</CompleteMultipartUpload>'.encode()
    assert call('POST', f'/bucket/big?uploadId={upload}', whole).status == 200
    answer = call('GET', '/bucket/big')
    assert answer.body == b''.join(parts)
    assert answer.headers['Etag'].endswith('-2"')
    assert call('GET', '/bucket/big', headers={'if-match': answer.headers['Etag']}).status == 200
    assert answer.headers['Etag'].encode() in call('GET', '/bucket').body
    assert call('DELETE', '/bucket/big').status == 204
    assert call('DELETE', '/bucket').status == 204


def test_no_entities(call):
    body = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&x;</Key></Object></Delete>'
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    assert code(call('POST', '/bucket?delete', body, {'content-md5': digest})) == 'MalformedXML'
    assert code(call('POST', '/bucket?delete', body)) == 'InvalidRequest'
