"""The S3 API over the proxy's own: buckets are containers of the signer's account, multipart uploads static large objects."""
import base64
import binascii
import calendar
import hashlib
import re
import time
import urllib.parse
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import orjson

from ..proxy.http import Fault, Filter, Response, parse_date, quote, to_wsgi
from .errors import S3Error
from .multipart import ETAG, Multipart, etag_of
from .signature import Signature

XMLNS = 'http://s3.amazonaws.com/doc/2006-03-01/'
BUCKET = re.compile(r'^(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$')
UNBUILT = {'accelerate', 'analytics', 'cors', 'encryption', 'inventory', 'lifecycle', 'logging', 'metrics', 'notification',
           'object-lock', 'legal-hold', 'retention', 'policy', 'publicAccessBlock', 'replication', 'requestPayment', 'tagging',
           'torrent', 'website', 'restore', 'select'}
# What a bucket answers that has no such configuration; none can be set yet.
NONE_SET = {'object-lock': 'ObjectLockConfigurationNotFoundError', 'cors': 'NoSuchCORSConfiguration', 'tagging': 'NoSuchTagSet',
            'lifecycle': 'NoSuchLifecycleConfiguration', 'policy': 'NoSuchBucketPolicy', 'website': 'NoSuchWebsiteConfiguration'}
OVERRIDES = ('content-type', 'content-language', 'expires', 'cache-control', 'content-disposition', 'content-encoding')
PASSED = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires',
          'Last-Modified', 'Content-Length', 'Content-Range', 'Accept-Ranges', 'X-Trans-Id', 'X-Robots-Tag', 'X-Delete-At')
MEANINGS = {400: 'InvalidArgument', 401: 'AccessDenied', 403: 'AccessDenied', 405: 'MethodNotAllowed', 411: 'MissingContentLength',
            412: 'PreconditionFailed', 413: 'EntityTooLarge', 416: 'InvalidRange', 422: 'BadDigest', 499: 'IncompleteBody',
            501: 'NotImplemented', 503: 'ServiceUnavailable'}
CANNED = {'private': '', 'public-read': '.r:*,.rlistings', 'public-read-write': '.r:*,.rlistings'}
GROUP = 'http://acs.amazonaws.com/groups/global/AllUsers'


def document(root, body):
    """An XML answer."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{XMLNS}">{body}</{root}>'
    return Response(200, text.encode('utf-8', 'replace'), content_type='application/xml')


def parse_xml(data):
    """A request's XML without its namespaces; it may have no DTD, so no entities."""
    if b'<!DOCTYPE' in data or b'<!ENTITY' in data:
        raise S3Error('MalformedXML')
    try:
        root = ElementTree.fromstring(data)     # noqa: S314 (no DTD gets here)
    except ElementTree.ParseError:
        raise S3Error('MalformedXML') from None
    for element in root.iter():
        element.tag = element.tag.rpartition('}')[2]
    return root


class S3(Filter):
    """Answers requests that are signed as S3's are; all others pass.

    :param keys: a list of objects with ``login(request, signature)``, see :mod:`.keys`.
    """

    def __init__(self, application, conf=None, keys=()):
        super().__init__(application, conf)
        self.keys = list(keys)
        self.region = self.conf.get('location', 'us-east-1')
        self.multipart = Multipart(self)

    def handle(self, request):
        """Answer, or pass on."""
        header = request.headers.get('Authorization') or ''
        if not header.startswith(('AWS4-HMAC-SHA256', 'AWS ')) and (
                not {'X-Amz-Algorithm', 'AWSAccessKeyId'} & set(request.query) if request.environ.get('QUERY_STRING') else True):
            return self.next(request)
        trans = request.environ.get('kodiak.trans_id', '-')
        try:
            answer = self._answer(request)
        except S3Error as error:
            answer = error.response(trans)
        except Fault as fault:
            answer = self._translated(fault.response, request.path).response(trans)
        if request.method == 'HEAD' and answer.status >= 400:
            answer.set_body(b'')
        answer.headers['X-Amz-Request-Id'] = answer.headers['X-Amz-Id-2'] = trans
        return answer

    def _answer(self, request):
        signature = Signature(request)
        account = next((found for keys in self.keys if (found := keys.login(request, signature))), None)
        if account is None:
            raise S3Error('InvalidAccessKeyId')
        for name in ('HTTP_AUTHORIZATION', 'HTTP_X_AUTH_TOKEN'):
            request.environ.pop(name, None)
        path = request.path
        bucket, _, key = path.lstrip('/').partition('/')
        call = Call(request, signature, account, bucket, key)
        if not bucket:
            if request.method != 'GET':
                raise S3Error('MethodNotAllowed')
            return self.buckets(call)
        if len(key.encode('utf-8', 'replace')) > 1024:
            raise S3Error('KeyTooLongError')
        unbuilt = UNBUILT & set(call.query)
        if unbuilt and request.method != 'GET':
            raise S3Error('NotImplemented')
        return self._object(call) if key else self._bucket(call)

    # what all use

    def ask(self, call, method, path, headers=None, **more):
        """A request of the Swift API; ``path`` below the account."""
        return self.next(call.request.sub(method, f'/v1/{call.account}{path}', headers, source='S3', **more))

    def good(self, answer, path):
        """The answer if it is one, else the S3 error that it stands for."""
        if answer.ok:
            return answer
        answer.drain()
        raise self._translated(answer, path)

    @staticmethod
    def _translated(answer, path):
        bucket, _, key = path.lstrip('/').partition('/')
        status = answer.status
        if status == 404:
            return S3Error('NoSuchKey', Key=key) if key else S3Error('NoSuchBucket', BucketName=bucket)
        code = MEANINGS.get(status, 'InvalidRequest' if status < 500 else 'InternalError')
        return S3Error(code)

    # buckets

    def buckets(self, call):
        """GET /."""
        listing = self.ask(call, 'GET', '', query={'format': 'json'})
        rows = orjson.loads(self.good(listing, '/').read())
        names = ''.join(f'<Bucket><Name>{escape(row["name"])}</Name><CreationDate>{row["last_modified"][:23]}Z</CreationDate>'
                        '</Bucket>'
                        for row in rows if 'name' in row and not row['name'].endswith('+segments') and BUCKET.match(row['name']))
        return document('ListAllMyBucketsResult', f'{call.owner()}<Buckets>{names}</Buckets>')

    def _bucket(self, call):
        method, query = call.request.method, call.query
        path = '/' + call.bucket
        if not BUCKET.match(call.bucket):
            raise S3Error('InvalidBucketName', BucketName=call.bucket)
        if method == 'PUT' and 'acl' not in query and 'versioning' not in query:
            return self._make(call, path)
        if method == 'POST' and 'delete' in query:
            return self._delete_many(call)
        if method not in ('GET', 'HEAD', 'PUT', 'DELETE'):
            raise S3Error('MethodNotAllowed')
        found = self.good(self.ask(call, 'HEAD', path), path)
        if 'acl' in query:
            return self._acl(call, path, found)
        if method == 'HEAD':
            return Response(200, b'', {'X-Amz-Bucket-Region': self.region}, content_type='application/xml')
        if method == 'DELETE':
            return self._remove(call, path)
        if method != 'GET':
            raise S3Error('NotImplemented' if query else 'MethodNotAllowed')
        if 'location' in query:
            return document('LocationConstraint', '' if self.region == 'us-east-1' else self.region)
        if 'versioning' in query:
            return document('VersioningConfiguration', '')
        if 'uploads' in query:
            return self.multipart.uploads(call)
        for name, code in NONE_SET.items():
            if name in query:
                raise S3Error(code, BucketName=call.bucket)
        if UNBUILT & set(query):
            raise S3Error('NotImplemented')
        return self._list(call, path)

    def _make(self, call, path):
        body = call.body(65536)
        if body.strip():
            where = parse_xml(body).findtext('LocationConstraint')
            if where and where != self.region:
                raise S3Error('InvalidArgument', f'The {where} location constraint is not valid', ArgumentName='LocationConstraint')
        headers = {}
        canned = call.request.headers.get('X-Amz-Acl')
        if canned:
            headers['X-Container-Read'] = self._canned(canned)
        answer = self.good(self.ask(call, 'PUT', path, headers), path)
        if answer.status == 202:
            raise S3Error('BucketAlreadyOwnedByYou')
        return Response(200, b'', {'Location': path}, content_type='application/xml')

    def _canned(self, name):
        if name not in CANNED:
            if name in ('authenticated-read', 'bucket-owner-read', 'bucket-owner-full-control'):
                return ''
            raise S3Error('InvalidArgument', ArgumentName='x-amz-acl', ArgumentValue=name)
        return CANNED[name]

    def _remove(self, call, path):
        self.multipart.forget_bucket(call)
        answer = self.ask(call, 'DELETE', path)
        if answer.status == 409:
            raise S3Error('BucketNotEmpty', BucketName=call.bucket)
        self.good(answer, path)
        return Response(204)

    def _acl(self, call, path, found):
        if call.request.method == 'PUT':
            canned = call.request.headers.get('X-Amz-Acl')
            body = call.body(65536)
            if canned:
                read = self._canned(canned)
            else:
                root = parse_xml(body)
                uris = [element.findtext('Grantee/URI') for element in root.iter('Grant')]
                read = CANNED['public-read'] if GROUP in uris else ''
            if not call.key:
                self.good(self.ask(call, 'POST', path, {'X-Container-Read': read}), path)
            return Response(200)
        if call.request.method != 'GET':
            raise S3Error('MethodNotAllowed')
        grants = [((f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser"><ID>{call.user}</ID>'
                   f'<DisplayName>{call.user}</DisplayName></Grantee>'), 'FULL_CONTROL')]
        if '.r:*' in (found.headers.get('X-Container-Read') or ''):
            grants.append(((f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group"><URI>{GROUP}</URI>'
                           '</Grantee>'), 'READ'))
        text = ''.join(f'<Grant>{who}<Permission>{what}</Permission></Grant>' for who, what in grants)
        return document('AccessControlPolicy', f'{call.owner()}<AccessControlList>{text}</AccessControlList>')

    def _list(self, call, path):
        query = call.query
        second, versions = query.get('list-type') == '2', 'versions' in query
        try:
            limit = min(int(query.get('max-keys') or 1000), 1000)
            if limit < 0:
                raise ValueError
        except ValueError:
            raise S3Error('InvalidArgument', 'Provided max-keys not an integer or within integer range',
                          ArgumentName='max-keys', ArgumentValue=query['max-keys']) from None
        encoding = query.get('encoding-type')
        if encoding not in (None, 'url'):
            raise S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request', ArgumentName='encoding-type')
        ask = {'format': 'json', 'limit': str(limit + 1)}
        for name in ('prefix', 'delimiter'):
            if query.get(name):
                ask[name] = query[name]
        marker = query.get('key-marker' if versions else 'marker')
        if second:
            marker = query.get('start-after')
            if query.get('continuation-token'):
                try:
                    marker = base64.b64decode(query['continuation-token'], validate=True).decode()
                except (binascii.Error, ValueError):
                    raise S3Error('InvalidArgument', 'The continuation token provided is incorrect') from None
        if marker:
            ask['marker'] = marker
        rows = orjson.loads(self.good(self.ask(call, 'GET', path, query=ask), path).read()) if limit else []
        more, rows = len(rows) > limit, rows[:limit]

        def shown(text):
            return escape(quote(text) if encoding == 'url' else text)
        owner = call.owner() if not second or query.get('fetch-owner') == 'true' else ''
        last = rows[-1].get('name', rows[-1].get('subdir')) if rows else ''
        head = [f'<Name>{call.bucket}</Name><Prefix>{shown(query.get("prefix", ""))}</Prefix>']
        if second:
            if 'start-after' in query:
                head.append(f'<StartAfter>{shown(query["start-after"])}</StartAfter>')
            if 'continuation-token' in query:
                head.append(f'<ContinuationToken>{escape(query["continuation-token"])}</ContinuationToken>')
            if more:
                head.append(f'<NextContinuationToken>{base64.b64encode(last.encode()).decode()}</NextContinuationToken>')
            head.append(f'<KeyCount>{len(rows)}</KeyCount>')
        elif versions:
            head.append(f'<KeyMarker>{shown(query.get("key-marker", ""))}</KeyMarker><VersionIdMarker>'
                        f'{shown(query.get("version-id-marker", ""))}</VersionIdMarker>')
            if more:
                head.append(f'<NextKeyMarker>{shown(last)}</NextKeyMarker><NextVersionIdMarker>null</NextVersionIdMarker>')
        else:
            head.append(f'<Marker>{shown(query.get("marker", ""))}</Marker>')
            if more and query.get('delimiter'):
                head.append(f'<NextMarker>{shown(last)}</NextMarker>')
        head.append(f'<MaxKeys>{limit}</MaxKeys>')
        if encoding:
            head.append(f'<EncodingType>{encoding}</EncodingType>')
        if query.get('delimiter') or (versions and 'delimiter' in query):
            head.append(f'<Delimiter>{shown(query["delimiter"])}</Delimiter>')
        head.append(f'<IsTruncated>{"true" if more else "false"}</IsTruncated>')
        item = 'Version' if versions else 'Contents'
        only = '<VersionId>null</VersionId><IsLatest>true</IsLatest>' if versions else ''
        items = [f'<{item}><Key>{shown(row["name"])}</Key>{only}<LastModified>{listed(row)}</LastModified>'
                 f'<ETag>"{etag_of(row["hash"])}"</ETag><Size>{row["bytes"]}</Size>{owner}'
                 f'<StorageClass>STANDARD</StorageClass></{item}>' for row in rows if 'name' in row]
        items += [f'<CommonPrefixes><Prefix>{shown(row["subdir"])}</Prefix></CommonPrefixes>' for row in rows if 'subdir' in row]
        return document('ListVersionsResult' if versions else 'ListBucketResult', ''.join(head + items))

    def _delete_many(self, call):
        root = parse_xml(call.body(2 << 20))
        quiet = (root.findtext('Quiet') or '').lower() == 'true'
        items = root.findall('Object')
        if not items or len(items) > 1000:
            raise S3Error('MalformedXML')
        path = '/' + call.bucket
        self.good(self.ask(call, 'HEAD', path), path)
        lines = []
        for item in items:
            key = item.findtext('Key') or ''
            if not key:
                raise S3Error('UserKeyMustBeSpecified')
            answer = self.remove(call, key)
            if answer.ok or answer.status == 404:
                lines.append('' if quiet else f'<Deleted><Key>{escape(key)}</Key></Deleted>')
            else:
                error = self._translated(answer, f'{path}/{key}')
                lines.append(f'<Error><Key>{escape(key)}</Key><Code>{error.code}</Code><Message>{escape(error.message)}</Message>'
                             '</Error>')
        return document('DeleteResult', ''.join(lines))

    # objects

    def remove(self, call, key):
        """DELETE of an object, and of the segments that it has."""
        path = f'/{call.bucket}/{key}'
        found = self.ask(call, 'HEAD', path).drain()
        slo = found.headers.get('X-Static-Large-Object', '').lower() == 'true'
        return self.ask(call, 'DELETE', path, query={'multipart-manifest': 'delete'} if slo else None).drain()

    def _object(self, call):
        request, query = call.request, call.query
        method, path = request.method, f'/{call.bucket}/{call.key}'
        if 'uploads' in query and method == 'POST':
            return self.multipart.begin(call)
        if 'uploadId' in query:
            return self.multipart.handle(call)
        if 'acl' in query:
            return self._acl(call, path, self.good(self.ask(call, 'HEAD', path), path))
        if UNBUILT & set(query):
            raise S3Error('NotImplemented')
        if query.get('versionId', 'null') != 'null':
            raise S3Error('NoSuchVersion', Key=call.key, VersionId=query['versionId'])
        if method == 'PUT':
            return self._copy(call, path) if request.headers.get('X-Amz-Copy-Source') else self._put(call, path)
        if method in ('GET', 'HEAD'):
            return self._get(call, path)
        if method == 'DELETE':
            answer = self.remove(call, call.key)
            if answer.status == 404:
                self.good(self.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
            elif not answer.ok:
                self.good(answer, path)
            return Response(204)
        raise S3Error('MethodNotAllowed')

    def _put(self, call, path):
        headers = call.metadata()
        md5 = call.md5()
        stream, length = call.stream()
        if length is None:
            raise S3Error('MissingContentLength')
        headers['Content-Length'] = str(length)
        if md5:
            headers['Etag'] = md5
        if call.request.headers.get('If-Match') is not None:
            raise S3Error('NotImplemented', Header='If-Match')
        if (match := call.request.headers.get('If-None-Match')) is not None:
            if match != '*':
                raise S3Error('NotImplemented', Header='If-None-Match')
            headers['If-None-Match'] = match
        answer = self.ask(call, 'PUT', path, headers, stream=stream)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        self.good(answer, path)
        return Response(200, b'', {'Etag': f'"{answer.headers.get("Etag", "").strip(chr(34))}"', **call.checksums()})

    def source(self, call):
        """The object that X-Amz-Copy-Source names, checked against its conditions: ``(path, response of HEAD)``."""
        raw = call.request.headers['X-Amz-Copy-Source']
        name = urllib.parse.unquote(raw.partition('?')[0]).lstrip('/')
        if raw.partition('?')[2] not in ('', 'versionId=null'):
            raise S3Error('InvalidArgument', 'Unsupported copy source parameter.')
        bucket, slash, key = name.partition('/')
        if not slash or not key:
            raise S3Error('InvalidArgument', 'Copy Source must mention the source bucket and key: sourcebucket/sourcekey')
        path = f'/{bucket}/{key}'
        found = self.good(self.ask(call, 'HEAD', path), path)
        etag, modified = self._etag(found), parse_date(found.headers.get('Last-Modified', '')) or 0
        get = call.request.headers.get
        tests = ((get('X-Amz-Copy-Source-If-Match'), lambda v: v.strip('"') == etag),
                 (get('X-Amz-Copy-Source-If-None-Match'), lambda v: v.strip('"') != etag),
                 (get('X-Amz-Copy-Source-If-Modified-Since'), lambda v: modified > (parse_date(v) or 0)),
                 (get('X-Amz-Copy-Source-If-Unmodified-Since'), lambda v: modified <= (parse_date(v) or 0)))
        if not all(test(value) for value, test in tests if value is not None):
            raise S3Error('PreconditionFailed')
        return path, found

    def _copy(self, call, path):
        source, _ = self.source(call)
        directive = call.request.headers.get('X-Amz-Metadata-Directive', 'COPY')
        if directive not in ('COPY', 'REPLACE'):
            raise S3Error('InvalidArgument', ArgumentName='x-amz-metadata-directive')
        if directive == 'COPY' and source == path:
            raise S3Error('InvalidRequest', 'This copy request is illegal because it is trying to copy an object to itself without '
                                            "changing the object's metadata.")
        headers = {'X-Copy-From': quote(source), 'Content-Length': '0'}
        if directive == 'REPLACE':
            headers.update(call.metadata(), **{'X-Fresh-Metadata': 'true'})
        answer = self.ask(call, 'PUT', path, headers)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        self.good(answer, path)
        etag = answer.headers.get('Etag', '').strip('"')
        return document('CopyObjectResult', f'<LastModified>{modified(answer)}</LastModified><ETag>"{etag}"</ETag>')

    @staticmethod
    def _etag(answer):
        return answer.headers.get(ETAG) or answer.headers.get('Etag', '').strip('"')

    def _get(self, call, path):
        request, headers = call.request, {}
        for name in ('Range', 'If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since', 'If-Range'):
            value = request.headers.get(name)
            if value is not None:
                headers[name] = value
        if 'If-Match' in headers or 'If-None-Match' in headers:
            headers['X-Backend-Etag-Is-At'] = ETAG
        query = {'part-number': call.query['partNumber']} if 'partNumber' in call.query else None
        # A HEAD tells a range's length too, which only a GET finds out.
        method = 'GET' if 'Range' in headers else request.method
        answer = self.ask(call, method, path, headers, query=query)
        if method != request.method:
            answer.close()
        if answer.status == 404:
            answer.drain()
            self.good(self.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        if answer.status not in (200, 206, 304):
            self.good(answer, path)
        made = Response.__new__(Response)
        made.status, made.body = answer.status, answer.body
        made.headers = answer.headers.__class__((n, v) for n, v in answer.headers.items() if n in PASSED)
        made.headers['Etag'] = f'"{self._etag(answer)}"'
        for name, value in answer.headers.items():
            if name.startswith('X-Object-Meta-'):
                made.headers['X-Amz-Meta-' + name[14:]] = value
        if 'X-Parts-Count' in answer.headers:
            made.headers['X-Amz-Mp-Parts-Count'] = answer.headers['X-Parts-Count']
        for name in OVERRIDES:
            if (value := call.query.get('response-' + name)) is not None:
                made.headers[name] = to_wsgi(value)
        return made


def listed(row):
    """When a row of a listing was changed: whole seconds, rounded up as the object's own header is."""
    moment, _, rest = row['last_modified'].partition('.')
    seconds = calendar.timegm(time.strptime(moment, '%Y-%m-%dT%H:%M:%S'))
    return iso(seconds + bool(rest.strip('0')))


def modified(answer):
    """When a copy was made."""
    return iso(parse_date(answer.headers.get('Last-Modified', '')) or time.time())


def iso(moment):
    """A moment as S3 writes it."""
    return time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(moment))


class Call:
    """One S3 request: who, where, with what."""

    def __init__(self, request, signature, account, bucket, key):
        self.request, self.signature, self.account, self.bucket, self.key = request, signature, account, bucket, key
        self.query = request.query
        self.user = escape((request.environ.get('kodiak.identity') or {}).get('user') or account)

    def owner(self):
        """The ``Owner`` element."""
        return f'<Owner><ID>{self.user}</ID><DisplayName>{self.user}</DisplayName></Owner>'

    def stream(self):
        """The body and its decoded length."""
        return self.signature.body(self.request.input, self.request.content_length)

    def body(self, limit):
        """The whole of a short body."""
        stream, length = self.stream()
        if length is None:
            return b''
        if length > limit:
            raise S3Error('MalformedXML')
        parts = []
        while piece := stream.read(65536):
            parts.append(piece)
        data = b''.join(parts)
        md5 = self.md5()
        if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise S3Error('BadDigest')
        return data

    def md5(self):
        """Hexadecimal digest of Content-MD5, or None."""
        text = self.request.headers.get('Content-Md5')
        if text is None:
            return None
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise S3Error('InvalidDigest') from None
        if len(digest) != 16:
            raise S3Error('InvalidDigest')
        return digest.hex()

    def checksums(self):
        """The checksum headers of the request, for its answer."""
        return {n: v for n, v in self.request.headers.items() if n.startswith('X-Amz-Checksum-') and len(v) < 100}

    def metadata(self):
        """The object's headers of the Swift API."""
        headers = {}
        for name, value in self.request.headers.items():
            if name.startswith('X-Amz-Meta-'):
                headers['X-Object-Meta-' + name[11:]] = value
            elif name in ('Content-Type', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag',
                          'X-Delete-At', 'X-Delete-After'):
                headers[name] = value
            elif name == 'Content-Encoding':
                kept = ','.join(word.strip() for word in value.split(',') if word.strip() != 'aws-chunked')
                if kept:
                    headers[name] = kept
        headers.setdefault('Content-Type', 'binary/octet-stream')
        return headers
