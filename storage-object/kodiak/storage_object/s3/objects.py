"""Objects: put, read, copied, deleted, version by version; their lists, tags, retentions and holds."""
import time
import urllib.parse
from email.utils import formatdate

from ..middleware.s3_guard import locked
from ..proxy.http import Response, parse_date, to_wsgi
from . import acl, lifecycle, lock, tagging
from .errors import S3Error
from .multipart import ETAG, copy_headers, shown_etag
from .xml import document, modified, tag

MARKER = 'application/x-deleted;swift_versions_deleted=1'
OVERRIDES = ('content-type', 'content-language', 'expires', 'cache-control', 'content-disposition', 'content-encoding')
PASSED = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires',
          'Last-Modified', 'Content-Length', 'Content-Range', 'Accept-Ranges', 'X-Trans-Id', 'X-Robots-Tag', 'X-Delete-At')
CONDITIONS = ('If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since')
# What a POST of the Swift API would take away, and a change of one of them must bring along.
KEPT = ('Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag', 'X-Delete-At')
ENCRYPTION = 'X-Amz-Server-Side-Encryption'
ENCRYPTED = ('X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id', 'X-Amz-Server-Side-Encryption-Customer-Algorithm',
             'X-Amz-Server-Side-Encryption-Customer-Key', 'X-Amz-Server-Side-Encryption-Context')


class Objects:
    """Calls with a key.

    :param api: the S3 filter.
    """

    def __init__(self, api):
        self.api = api

    def handle(self, call):
        """Whatever has a key."""
        query, method = call.query, call.request.method
        if 'uploads' in query and method == 'POST':
            self.api.access.check(call, 'PutObject', call.key)
            return self.api.multipart.begin(call)
        if 'uploadId' in query:
            return self._part(call, method)
        for name, answer in (('acl', self._acl), ('tagging', self._tagging), ('retention', self._retention),
                             ('legal-hold', self._hold)):
            if name in query:
                return answer(call)
        if {'attributes', 'torrent', 'restore', 'select'} & set(query):
            raise S3Error('NotImplemented')
        if method == 'PUT':
            self.api.access.check(call, 'PutObject', call.key)
            return self.copy(call) if call.request.headers.get('X-Amz-Copy-Source') else self.put(call)
        if method in ('GET', 'HEAD'):
            self.api.access.check(call, 'GetObjectVersion' if query.get('versionId') else 'GetObject', call.key)
            return self._get(call)
        if method == 'DELETE':
            version = self.version(call)
            self.api.access.check(call, 'DeleteObjectVersion' if version else 'DeleteObject', call.key)
            return Response(204, b'', self.remove(call, call.key, version), content_type='text/html; charset=UTF-8')
        raise S3Error('MethodNotAllowed', Method=method, ResourceType='OBJECT')

    def _part(self, call, method):
        action = {'GET': 'ListMultipartUploadParts', 'DELETE': 'AbortMultipartUpload'}.get(method, 'PutObject')
        self.api.access.check(call, action, call.key)
        return self.api.multipart.handle(call)

    def version(self, call):
        """The version that a call names, or None."""
        version = call.query.get('versionId')
        if version == '':
            raise S3Error('InvalidArgument', 'Version id cannot be the empty string', ArgumentName='versionId', ArgumentValue='')
        if version in (None, 'null') and self.api.versioned(call) is None:
            return None
        if version is not None and version != 'null' and not lock.VERSION.match(version):
            raise S3Error('InvalidArgument', 'Invalid version id specified', ArgumentName='versionId', ArgumentValue=version)
        if version is not None and self.api.versioned(call) is None:
            raise S3Error('NoSuchVersion', Key=call.key, VersionId=version)
        return version

    # writing

    def attributes(self, call):
        """The headers of the Swift API for what a PUT says of an object besides its metadata: list, tags, lock."""
        get, headers = call.request.headers.get, {}
        made = acl.of_request(call, call.user_id, self.api.buckets.known_acl(call).owner)
        if made is not None:
            self.api.access.refuse_public(call, made)
            headers[acl.OBJECT] = made.store()
        elif not call.owned:
            headers[acl.OBJECT] = acl.Acl.private(call.user_id).store()
        if get('X-Amz-Tagging'):
            headers[tagging.HEADER] = tagging.store(tagging.of_header(get('X-Amz-Tagging')))
        headers.update(lock.of_request(call, self.api.info(call)))
        for name in ENCRYPTED:
            if get(name):
                raise S3Error('NotImplemented')
        asked = get('X-Amz-Server-Side-Encryption')
        if asked is not None and (asked != 'AES256' or not self.api.encrypted):
            raise S3Error('NotImplemented', 'Server side encryption is not enabled')
        if get('X-Amz-Storage-Class', 'STANDARD') != 'STANDARD':
            raise S3Error('InvalidStorageClass')
        return headers

    @staticmethod
    def only_new(call, headers):
        """Take the conditions of a PUT: that there be none yet is the only one."""
        for name in CONDITIONS:
            value = call.request.headers.get(name)
            if value is None:
                continue
            if name != 'If-None-Match' or value != '*':
                raise S3Error('NotImplemented', Header=name)
            headers[name] = value

    def put(self, call, stream=None, length=None, more=None):
        """PUT of an object; POST of a form brings its own stream."""
        path = f'/{call.bucket}/{call.key}'
        headers = {**call.metadata(), **self.attributes(call), **(more or {})}
        md5 = call.md5() if stream is None else None
        if stream is None:
            stream, length = call.stream()
            if length is None:
                raise S3Error('MissingContentLength')
            self.only_new(call, headers)
        headers.update({'Content-Length': str(length)} if length is not None else {'Transfer-Encoding': 'chunked'})
        if md5:
            headers['Etag'] = md5
        answer = self.api.ask(call, 'PUT', path, headers, stream=stream)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        if answer.status == 422:
            raise S3Error('BadDigest', ExpectedDigest=call.request.headers.get('Content-Md5', ''))
        self.api.good(answer, path)
        made = {'Etag': f'"{answer.headers.get("Etag", "").strip(chr(34))}"', **call.checksums(), **self._versioned(call, answer)}
        if self.api.encrypted:
            made[ENCRYPTION] = 'AES256'
        return Response(200, b'', made, content_type='text/html; charset=UTF-8')

    def _versioned(self, call, answer):
        version = answer.headers.get('X-Object-Version-Id')
        return {'X-Amz-Version-Id': version} if version and self.api.versioned(call) else {}

    def source(self, call):
        """The object that X-Amz-Copy-Source names, checked: ``(account, path, query, response of HEAD)``."""
        raw = call.request.headers['X-Amz-Copy-Source']
        name, _, text = raw.partition('?')
        name = urllib.parse.unquote(name)
        query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
        if set(query) - {'versionId'} or (text and not query.get('versionId')):
            raise S3Error('InvalidArgument', 'Unsupported copy source parameter.', ArgumentName='x-amz-copy-source',
                          ArgumentValue=raw)
        bucket, slash, key = name.removeprefix('/').partition('/')
        if not slash or not bucket or not key:
            raise S3Error('InvalidArgument', 'Copy Source must mention the source bucket and key: sourcebucket/sourcekey',
                          ArgumentName='x-amz-copy-source', ArgumentValue=raw)
        other = call.__class__(call.request, call.signature, call.account, bucket, key)
        other.query = query
        self.api.locate(other)
        version = self.version(other)
        self.api.access.check(other, 'GetObjectVersion' if version else 'GetObject', key)
        asked = {'version-id': version} if version else None
        found = self.api.ask(other, 'HEAD', f'/{bucket}/{key}', query=asked).drain()
        if found.status == 404:
            if not self.api.info(other).ok:
                raise S3Error('NoSuchBucket', BucketName=bucket)
            if found.headers.get('Content-Type') == MARKER:
                raise S3Error('InvalidRequest', 'The source of a copy request may not specifically refer to a delete marker by '
                                                'version id.')
            raise S3Error('NoSuchVersion' if version and version != 'null' else 'NoSuchKey', Key=key)
        self.api.good(found, f'/{bucket}/{key}')
        self.api.conditions(call.request.headers.get, found, 'X-Amz-Copy-Source-')
        if other.free and not call.free:
            # The copy is one request of the Swift API: it needs no leave to read, so it must need none to write.
            if not call.owned:
                raise S3Error('AccessDenied')
            call.free = True
        return other.place, f'/{bucket}/{key}', asked, found

    def copy(self, call):
        """PUT with X-Amz-Copy-Source."""
        path = f'/{call.bucket}/{call.key}'
        get = call.request.headers.get
        place, source, query, found = self.source(call)
        directive, tags = get('X-Amz-Metadata-Directive', 'COPY'), get('X-Amz-Tagging-Directive', 'COPY')
        for name, value in (('x-amz-metadata-directive', directive), ('x-amz-tagging-directive', tags)):
            if value not in ('COPY', 'REPLACE'):
                raise S3Error('InvalidArgument', f'Unknown {name[6:].replace("-", " ")}.', ArgumentName=name, ArgumentValue=value)
        if directive == 'COPY' and source == path and place == call.place and not query:
            raise S3Error('InvalidRequest', 'This copy request is illegal because it is trying to copy an object to itself without '
                                            "changing the object's metadata, storage class, website redirect location or "
                                            'encryption attributes.')
        headers = copy_headers(place, source)
        if directive == 'REPLACE':
            headers.update(call.metadata())
        else:
            headers.update((n, v) for n, v in found.headers.items() if n.startswith('X-Object-Meta-') or n in KEPT[:-1]
                           or n == 'Content-Type')
        # A copy has a list and locks of its own; tags it takes along.
        headers.update({acl.OBJECT: '', lock.RETENTION: '', lock.HOLD: '', **self.attributes(call)})
        headers[tagging.HEADER] = headers.get(tagging.HEADER, '') if tags == 'REPLACE' else found.headers.get(tagging.HEADER, '')
        headers = {n: v for n, v in headers.items() if v or n.startswith('X-Object-Transient')}
        self.only_new(call, headers)
        answer = self.api.ask(call, 'PUT', path, headers, query=query)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        self.api.good(answer, path)
        etag = answer.headers.get('Etag', '').strip('"')
        made = document('CopyObjectResult', f'<LastModified>{modified(answer)}</LastModified><ETag>"{etag}"</ETag>')
        made.headers.update(self._versioned(call, answer))
        version = found.headers.get('X-Object-Version-Id')
        if version:
            made.headers['X-Amz-Copy-Source-Version-Id'] = version
        return made

    # reading

    def _get(self, call):
        request, headers = call.request, {}
        path, version = f'/{call.bucket}/{call.key}', self.version(call)
        for name in ('Range', 'If-Range', *CONDITIONS):
            value = request.headers.get(name)
            if value is not None:
                headers[name] = value
        if 'If-Match' in headers or 'If-None-Match' in headers:
            headers['X-Backend-Etag-Is-At'] = ETAG
        query = {'version-id': version} if version else {}
        if 'partNumber' in call.query:
            query['part-number'] = self._part_number(call)
        # A HEAD tells a range's length too, which only a GET finds out.
        method = 'GET' if 'Range' in headers else request.method
        answer = self.api.ask(call, method, path, headers, query=query or None)
        if method != request.method:
            answer.close()
        if answer.status == 404:
            answer.drain()
            self._missing(call, version, answer)
        if answer.status == 200 and 'part-number' in query:
            # All of what was not put in parts is its first part.
            if query['part-number'] != '1':
                answer.close()
                raise S3Error('InvalidPartNumber', PartNumberRequested=query['part-number'], ActualPartCount='1')
            size = answer.headers.get('Content-Length', '0')
            answer.status, answer.headers['Content-Range'] = 206, f'bytes 0-{int(size) - 1}/{size}'
        if answer.status not in (200, 206, 304):
            if answer.status == 416 and 'part-number' in query:
                raise S3Error('InvalidPartNumber', PartNumberRequested=query['part-number'],
                              ActualPartCount=answer.headers.get('X-Parts-Count', '1'))
            if answer.status == 416:
                raise S3Error('InvalidRange', RangeRequested=headers.get('Range', ''), ActualObjectSize=answer.headers.get(
                    'Content-Range', '').rpartition('/')[2])
            self.api.good(answer, path)
        return self._shown(call, answer)

    @staticmethod
    def _part_number(call):
        text = call.query['partNumber']
        if call.request.headers.get('Range'):
            raise S3Error('InvalidRequest', 'Cannot specify both Range header and partNumber query parameter')
        if not text.isdigit() or not 1 <= int(text) <= 10000:
            raise S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive',
                          ArgumentName='partNumber', ArgumentValue=text)
        return text

    def _missing(self, call, version, answer):
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket, authorize=False), '/' + call.bucket)
        if not self.api.versioned(call):
            raise S3Error('NoSuchKey', Key=call.key)
        if version and answer.headers.get('Content-Type') == MARKER:
            marked = {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': version, 'Allow': 'DELETE'}
            raise S3Error('MethodNotAllowed', headers=marked, Method=call.request.method, ResourceType='DeleteMarker')
        if version:
            raise S3Error('NoSuchVersion', Key=call.key, VersionId=version)
        newest = next(iter(self.api.versions(call, call.key)), None)
        headers = {}
        if newest and newest['content_type'] == MARKER:
            headers = {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': newest['version_id']}
        raise S3Error('NoSuchKey', headers=headers, Key=call.key)

    def _shown(self, call, answer):
        made = Response.__new__(Response)
        made.status, made.body = answer.status, answer.body
        made.headers = answer.headers.__class__((n, v) for n, v in answer.headers.items() if n in PASSED)
        made.headers['Etag'] = f'"{shown_etag(answer)}"'
        for name, value in answer.headers.items():
            if name.startswith('X-Object-Meta-'):
                # (as S3 writes it; its clients keep the case)
                dict.__setitem__(made.headers, 'x-amz-meta-' + name[14:].lower(), value)
        made.headers.update(self._versioned(call, answer))
        if self.api.encrypted:
            made.headers[ENCRYPTION] = 'AES256'
        if 'X-Parts-Count' in answer.headers:
            made.headers['X-Amz-Mp-Parts-Count'] = answer.headers['X-Parts-Count']
        tags = tagging.stored(answer.headers)
        if tags:
            made.headers['X-Amz-Tagging-Count'] = str(len(tags))
        made.headers.update(lock.shown(answer.headers))
        if 'X-Delete-At' in answer.headers:
            moment = formatdate(int(answer.headers['X-Delete-At']), usegmt=True)
            made.headers['X-Amz-Expiration'] = f'expiry-date="{moment}", rule-id="swift-object-expiration"'
        elif 'lifecycle' in self.api.configs.index(call):
            ends = lifecycle.header(self.api.configs.get(call, 'lifecycle'), call.key, int(answer.headers.get('Content-Length', 0)),
                                    lambda: tags, parse_date(answer.headers.get('Last-Modified', '')) or time.time())
            if ends:
                made.headers['X-Amz-Expiration'] = ends
        for name in OVERRIDES:
            if (value := call.query.get('response-' + name)) is not None:
                if call.signature is None:
                    raise S3Error('InvalidRequest', 'Request specific response headers cannot be used for anonymous GET requests.')
                made.headers[name] = to_wsgi(value)
        return made

    # deleting

    def remove(self, call, key, version=None):
        """Delete an object, and the segments that it has; the headers of the answer. Raises."""
        path = f'/{call.bucket}/{key}'
        state = self.api.versioned(call)
        if version is not None and not lock.VERSION.match(version) and version != 'null':
            raise S3Error('NoSuchVersion', Key=key, VersionId=version)
        if version is None and state == 'Enabled':
            answer = self.api.ask(call, 'DELETE', path).drain()
            if answer.status == 404 and 'X-Object-Version-Id' not in answer.headers:
                self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
            elif answer.status != 404:
                self.api.good(answer, path)
            return {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': answer.headers.get('X-Object-Version-Id', '')}
        query = {'version-id': version} if version and state else {}
        found = self.api.head(call, key, query.get('version-id'))
        bypass = self._bypass(call, key)
        if locked(found.headers, bypass):
            raise S3Error('AccessDenied', 'Access Denied because object protected by object lock.')
        call.heads.pop((key, query.get('version-id')), None)
        if found.headers.get('X-Static-Large-Object', '').lower() == 'true':
            query['multipart-manifest'] = 'delete'
        call.request.environ['kodiak.bypass_governance'] = bypass
        answer = self.api.ask(call, 'DELETE', path, query=query or None)
        current = answer.headers.get('X-Object-Current-Version-Id')
        answer.drain()
        if answer.status == 404:
            self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        else:
            self.api.good(answer, path)
        headers = {}
        if version and state:
            headers['X-Amz-Version-Id'] = version
            if found.headers.get('Content-Type') == MARKER:
                headers['X-Amz-Delete-Marker'] = 'true'
            if current == '' or version == 'null' or 'multipart-manifest' in query:
                self._bring_back(call, key)
        return headers

    def _bypass(self, call, key):
        if call.request.headers.get('X-Amz-Bypass-Governance-Retention', '').lower() != 'true':
            return False
        if not call.owned:
            self.api.access.check(call, 'BypassGovernanceRetention', key)
        return call.owned or call.free

    def _bring_back(self, call, key):
        """Where the current version is gone, the newest that is left is the current one."""
        path = f'/{call.bucket}/{key}'
        newest = next(iter(self.api.versions(call, key)), None)
        if newest is None or newest['content_type'] == MARKER or newest['version_id'] == 'null':
            return
        if self.api.ask(call, 'HEAD', path, authorize=False).drain().status == 404:
            query = {'version-id': newest['version_id']}
            self.api.ask(call, 'PUT', path, {'Content-Length': '0'}, query=query, authorize=False).drain()

    # what objects have besides their metadata

    def update(self, call, changes, version=None):
        """Change system metadata of an object, and nothing else. Raises."""
        path = f'/{call.bucket}/{call.key}'
        query = {'version-id': version} if version and version != 'null' else None
        found = self.existing(call, version)
        kept = ('X-Object-Meta-', 'X-Object-Transient-Sysmeta-')
        headers = {n: v for n, v in found.headers.items() if n.startswith(kept) or n in KEPT}
        headers.update(changes)
        headers = {n: v for n, v in headers.items() if v}
        self.api.good(self.api.ask(call, 'POST', path, {**headers, 'Content-Length': '0'}, query=query, authorize=False), path)
        call.heads.clear()
        return found

    def existing(self, call, version=None):
        """An object's HEAD, or NoSuchKey."""
        found = self.api.head(call, call.key, version)
        if found.status == 404:
            self._missing(call, version, found)
        return self.api.good(found, f'/{call.bucket}/{call.key}')

    def _start(self, call, what, methods):
        """Check a call of a subresource; its version."""
        verb = methods.get(call.request.method)
        if verb is None:
            raise S3Error('MethodNotAllowed', Method=call.request.method, ResourceType=what.upper())
        version = self.version(call)
        self.api.access.check(call, f'{verb}Object{what}', call.key)
        self.existing(call, version)
        if not call.owned and not call.free:
            # What the Swift API knows nothing of, its rules can't let pass.
            raise S3Error('AccessDenied')
        return version

    def _acl(self, call):
        version = self._start(call, 'Acl', {'GET': 'Get', 'PUT': 'Put'})
        known = acl.Acl.stored(self.existing(call, version).headers.get(acl.OBJECT))
        if known is None:
            known = acl.Acl.private(self.api.buckets.known_acl(call).owner)
        if call.request.method == 'GET':
            return known.render()
        body = call.body(65536)
        made = acl.of_request(call, known.owner, self.api.buckets.known_acl(call).owner)
        if made is not None and body.strip():
            raise S3Error('UnexpectedContent')
        if made is None:
            if not body.strip():
                raise S3Error('MissingSecurityHeader', MissingHeaderName='x-amz-acl')
            made = acl.of_xml(body, known.owner)
        self.api.access.refuse_public(call, made)
        self.update(call, {acl.OBJECT: made.store()}, version)
        return Response(200, content_type='text/html; charset=UTF-8')

    def _tagging(self, call):
        version = self._start(call, 'Tagging', {'GET': 'Get', 'PUT': 'Put', 'DELETE': 'Delete'})
        if call.request.method == 'GET':
            made = tagging.render(tagging.stored(self.existing(call, version).headers))
        elif call.request.method == 'PUT':
            self.update(call, {tagging.HEADER: tagging.store(tagging.of_xml(call.body(65536)))}, version)
            made = Response(200)
        else:
            self.update(call, {tagging.HEADER: ''}, version)
            made = Response(204)
        if version:
            made.headers['X-Amz-Version-Id'] = version
        return made

    def _retention(self, call):
        version = self._start(call, 'Retention', {'GET': 'Get', 'PUT': 'Put'})
        headers = self.existing(call, version).headers
        lock.wanted(self.api.info(call))
        known = lock.shown(headers)
        if call.request.method == 'GET':
            if lock.MODE not in known:
                raise S3Error('NoSuchObjectLockConfiguration', Key=call.key)
            return document('Retention', tag('Mode', known[lock.MODE]) + tag('RetainUntilDate', known[lock.UNTIL]))
        made = lock.retention_of_xml(call.body(65536))
        if not lock.may_change(headers, made, self._bypass(call, call.key)):
            raise S3Error('AccessDenied', 'Access Denied because object protected by object lock.')
        self.update(call, {lock.RETENTION: made}, version)
        return Response(200)

    def _hold(self, call):
        version = self._start(call, 'LegalHold', {'GET': 'Get', 'PUT': 'Put'})
        headers = self.existing(call, version).headers
        lock.wanted(self.api.info(call))
        if call.request.method == 'GET':
            if lock.HOLD not in headers:
                raise S3Error('NoSuchObjectLockConfiguration', Key=call.key)
            return document('LegalHold', tag('Status', headers[lock.HOLD]))
        self.update(call, {lock.HOLD: lock.hold_of_xml(call.body(65536))}, version)
        return Response(200)
