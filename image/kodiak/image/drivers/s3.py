"""Object storage by the S3 API, in multipart uploads; requests are signed by AWS Signature Version 4."""
import datetime
import hashlib
import hmac
import html
import re
import urllib.parse

import requests
from oslo_config import cfg

from . import base
from .swift import Answer

MIB = 1 << 20
CONNECT, READ = 15, 300
#: Parts of one size; those after them are twice as large, as there may be 10,000.
SAME = 1000
MOST = 9000
_EMPTY = hashlib.sha256().hexdigest()


def sign(method, url, headers, payload, access_key, secret_key, region, moment, service='s3'):
    """The headers of a request with its signature among them; ``payload``: the body's SHA-256."""
    parts = urllib.parse.urlsplit(url)
    stamp = moment.strftime('%Y%m%dT%H%M%SZ')
    headers = {**headers, 'host': parts.netloc, 'x-amz-date': stamp, 'x-amz-content-sha256': payload}
    lowered = sorted((name.lower(), ' '.join(str(value).split())) for name, value in headers.items())
    names = ';'.join(name for name, _ in lowered)
    query = '&'.join(sorted(f'{urllib.parse.quote(name, safe="-_.~")}={urllib.parse.quote(value, safe="-_.~")}'
                            for name, value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)))
    canonical = '\n'.join((method, parts.path or '/', query, *(f'{name}:{value}' for name, value in lowered), '', names, payload))
    scope = f'{stamp[:8]}/{region}/{service}/aws4_request'
    text = '\n'.join(('AWS4-HMAC-SHA256', stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = b'AWS4' + secret_key.encode()
    for word in scope.split('/'):
        key = hmac.digest(key, word.encode(), 'sha256')
    signature = hmac.digest(key, text.encode(), 'sha256').hex()
    headers['Authorization'] = (f'AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={signature}')
    return headers


def _text(body, name):
    """The text of the first element of a name in an XML body. No parser is needed for one word, nor trusted with it."""
    found = re.search(rf'<{name}>([^<]*)</{name}>', body.decode(errors='replace'))
    return html.unescape(found[1]) if found else ''


class S3Store(base.Store):
    """Blobs as objects ``<bucket>/<prefix><key>``."""

    OPTS = (
        cfg.URIOpt('endpoint', schemes=['http', 'https'], help='Root of the S3 API; that of AWS in the region if unset.'),
        cfg.StrOpt('region', default='us-east-1', help='Region that requests are signed for.'),
        cfg.StrOpt('bucket', default='kodiak-image', help='Bucket of the data. It is made when it is first used.'),
        cfg.StrOpt('prefix', default='', help='Begins the names of all objects.'),
        cfg.StrOpt('access_key', help='Access key.'),
        cfg.StrOpt('secret_key', secret=True, help='Secret key.'),
        cfg.BoolOpt('path_style', default=True, help='The bucket stands in the path; otherwise in the name of the host.'),
        cfg.IntOpt('part_size', default=16, min=5, max=1024,
                   help='Size of a part of an upload, in MiB; an upload keeps one part in memory.'),
        *base.COMMON,
    )
    SCHEME = 's3+config'

    def prepare(self):
        root = urllib.parse.urlsplit(self.conf.endpoint or f'https://s3.{self.conf.region}.amazonaws.com')
        bucket = urllib.parse.quote(self.conf.bucket, safe='')
        netloc, path = (root.netloc, f'{root.path.rstrip("/")}/{bucket}') if self.conf.path_style else (
            f'{self.conf.bucket}.{root.netloc}', root.path.rstrip('/'))
        self._root = f'{root.scheme}://{netloc}{path}'
        self._http = requests.Session()
        self._there = False

    def _url(self, key, query):
        name = '/' + urllib.parse.quote(self.conf.prefix + key, safe='/-_.~') if key else '/'
        return self._root + name + ('?' + urllib.parse.urlencode(query, quote_via=urllib.parse.quote) if query else '')

    def request(self, method, key='', query=None, data=b'', headers=None, stream=False, accept=()):
        """One signed request for an object, or for the bucket; ``accept``: statuses of 400 and more that are returned."""
        url = self._url(key, query)
        payload = hashlib.sha256(data).hexdigest() if data else _EMPTY
        signed = sign(method, url, headers or {}, payload, self.conf.access_key or '', self.conf.secret_key or '',
                      self.conf.region, datetime.datetime.now(datetime.UTC))
        try:
            response = self._http.request(method, url, data=data, headers={'Accept-Encoding': 'identity', **signed}, stream=stream,
                                          timeout=(CONNECT, READ), allow_redirects=False)
        except requests.RequestException as error:
            raise base.StoreUnavailable(f'the S3 store cannot be reached: {error}') from None
        if response.status_code >= 300 and response.status_code not in accept:
            code = _text(response.content, 'Code')
            if code in ('QuotaExceeded', 'EntityTooLarge', 'XMinioStorageFull', 'InsufficientCapacity'):
                raise base.StoreFull
            raise base.StoreUnavailable(f'the S3 store answered {response.status_code} {code} to {method}')
        return response

    def create(self, key, size=None):
        if not self._there:
            if self.request('HEAD', accept=(404,)).status_code == 404:
                self.request('PUT', accept=(409,))
            self._there = True
        part = self.conf.part_size * MIB
        if size is not None:
            part = max(part, -(-size // MOST))
        return S3Writer(self, key, part)

    def open(self, key, offset=0):
        headers = {'Range': f'bytes={offset}-'} if offset else {}
        response = self.request('GET', key, headers=headers, stream=True, accept=(404,))
        if response.status_code == 404:
            response.close()
            raise base.NoSuchData(key)
        return Answer(response)

    def remove(self, key):
        # Whoever wrote half of it and died left an upload; the list names it.
        response = self.request('GET', query={'uploads': '', 'prefix': self.conf.prefix + key}, accept=(404,))
        if response.status_code == 200:
            for upload in re.findall(r'<UploadId>([^<]+)</UploadId>', response.text):
                self.request('DELETE', key, {'uploadId': html.unescape(upload)}, accept=(404,))
        self.request('DELETE', key, accept=(404,))

    def url(self, key):
        return f's3+config://{self.id}/{self.conf.bucket}/{self.conf.prefix}{key}'

    def properties(self):
        return {'bucket': self.conf.bucket, 's3_store_host': self.conf.endpoint or 'AWS'}


class S3Writer(base.Writer):
    """Collects a part, sends it. Data of one part is sent whole, without an upload of parts."""

    def __init__(self, store, key, part):
        self._store = store
        self._key = key
        self._part = part
        self._buffer = bytearray()
        self._upload = None
        self._etags = []

    def write(self, data):
        view = memoryview(data)
        while view:
            piece = view[:self._part - len(self._buffer)]
            self._buffer += piece
            view = view[len(piece):]
            if len(self._buffer) == self._part and view:
                self._send()
        if len(self._buffer) == self._part and self._upload:
            self._send()

    def _send(self):
        if self._upload is None:
            answer = self._store.request('POST', self._key, {'uploads': ''})
            self._upload = _text(answer.content, 'UploadId')
            if not self._upload:
                raise base.StoreUnavailable('the S3 store began no upload')
        answer = self._store.request('PUT', self._key, {'partNumber': len(self._etags) + 1, 'uploadId': self._upload},
                                     data=bytes(self._buffer))
        self._etags.append(answer.headers.get('ETag', '').strip('"'))
        self._buffer.clear()
        if len(self._etags) % SAME == 0:
            self._part *= 2

    def commit(self):
        if self._upload is None:
            self._store.request('PUT', self._key, data=bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        parts = ''.join(f'<Part><PartNumber>{number}</PartNumber><ETag>"{etag}"</ETag></Part>'
                        for number, etag in enumerate(self._etags, 1))
        body = f'<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>'.encode()
        answer = self._store.request('POST', self._key, {'uploadId': self._upload}, data=body)
        # A completion that fails late says so in a body of status 200.
        if _text(answer.content, 'Code'):
            raise base.StoreUnavailable(f"the S3 store could not complete the upload: {_text(answer.content, 'Code')}")

    def abort(self):
        self._buffer.clear()
        if self._upload is not None:
            self._store.request('DELETE', self._key, {'uploadId': self._upload}, accept=(404,))
        self._store.remove(self._key)
