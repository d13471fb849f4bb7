"""Objects: put, read, copied, deleted, version by version; their lists, tags, retentions and holds."""
import math
import time
import urllib.parse

from kodiak.common.numbers import natural

from ..middleware.copying import Reader
from ..middleware.s3_guard import SEGMENTS, locked
from ..middleware.versioning import MARKER, NULL
from ..proxy.http import Response, parse_date, to_wsgi, unquote
from . import acl, checksums, conditions, lifecycle, lock, sse, tagging
from .attributes import attributes, part_of, sum_of_part
from .errors import S3Error
from .etags import ETAG, shown_etag
from .multipart import UPLOADED, copy_headers
from .xml import document, http_date, modified, tag

OVERRIDES = ('content-type', 'content-language', 'expires', 'cache-control', 'content-disposition', 'content-encoding')
PASSED = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires',
          'Last-Modified', 'Content-Length', 'Content-Range', 'Accept-Ranges', 'X-Trans-Id', 'X-Robots-Tag', 'X-Delete-At')
# What a POST of the Swift API would take away, and a change of one of them must bring along.
KEPT = ('Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag', 'X-Delete-At')


def version_of_row(row):
    """The version id of a row of the Swift API's list of versions, as S3 calls it."""
    return 'null' if row.get('null_version') else row.get('version_id', '')


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
        if {'torrent', 'restore', 'select'} & set(query):
            raise S3Error('NotImplemented')
        if 'attributes' in query:
            self.api.access.check(call, 'GetObjectAttributes', call.key)
            return attributes(self.api, call)
        if method == 'PUT':
            self.api.access.check(call, 'PutObject', call.key)
            return self.copy(call) if call.request.headers.get('X-Amz-Copy-Source') else self.put(call)
        if method in ('GET', 'HEAD'):
            self.api.access.check(call, 'GetObjectVersion' if query.get('versionId') else 'GetObject', call.key)
            return self._get(call)
        if method == 'DELETE':
            version = self.version(call)
            self.api.access.check(call, 'DeleteObjectVersion' if version else 'DeleteObject', call.key)
            headers = self.remove(call, call.key, version, conditions.of_delete(call.request.headers.get))
            return Response(204, b'', headers, content_type='text/html; charset=UTF-8')
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
        return self.resolved(call, call.key, version)

    def resolved(self, call, key, version):
        """A version as the Swift API calls it."""
        if version != 'null' or not self.api.versioned(call):
            return version
        found = self.api.null_version(call, key)
        call.nulls[key] = found
        return found or version

    @staticmethod
    def shown_version(call, key, version):
        """A version as S3 calls it."""
        return 'null' if version is not None and call.nulls.get(key) == version else version

    # writing

    def attributes(self, call):
        """The headers of the Swift API for what a PUT says of an object besides its metadata: list, tags, lock."""
        get, headers = call.request.headers.get, {}
        made = acl.of_object(call, self.api.access.ownership(call), self.api.buckets.known_acl(call).owner)
        if made is not None:
            self.api.access.refuse_public(call, made)
            headers[acl.OBJECT] = made.store()
        if get('X-Amz-Tagging'):
            headers[tagging.HEADER] = tagging.store(tagging.of_header(get('X-Amz-Tagging')))
        headers.update(lock.of_request(call, self.api.info(call)))
        sse.of_write(self.api, call)
        if get('X-Amz-Storage-Class', 'STANDARD') != 'STANDARD':
            raise S3Error('InvalidStorageClass')
        return headers

    def put(self, call, stream=None, length=None, more=None):
        """PUT of an object; POST of a form brings its own stream."""
        path = f'/{call.bucket}/{call.key}'
        headers = {**call.metadata(), **self.attributes(call), **(more or {})}
        md5 = call.md5() if stream is None else None
        if stream is None:
            stream, length = call.stream()
            if length is None:
                raise S3Error('MissingContentLength')
            conditions.of_put(self.api, call, headers)
        headers.update({'Content-Length': str(length)} if length is not None else {'Transfer-Encoding': 'chunked'})
        if md5:
            headers['Etag'] = md5
        before = self.overwritten(call)
        answer = self.send(call, path, headers, stream)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        if answer.status == 422:
            raise S3Error('BadDigest', ExpectedDigest=md5 or '')
        self.api.good(answer, path)
        self.written(call, answer, before)
        made = {'Etag': f'"{answer.headers.get("Etag", "").strip(chr(34))}"', **checksums.shown(self.sum_of(stream)),
                **self.version_header(call, answer), **sse.shown(self.api, call)}
        return Response(200, b'', made, content_type='text/html; charset=UTF-8')

    @staticmethod
    def sum_of(stream):
        """The checksum of a body that has been read, as :func:`.checksums.known` gives it: that which was told, or was wanted."""
        told = getattr(stream, 'told', None)
        if told:
            (name, value), = told.items()
            return name, value, checksums.FULL
        sums = getattr(stream, 'sums', None)
        if sums is not None and sums.makers:
            name = next(iter(sums.makers))
            return name, sums.made(name), checksums.FULL
        return None

    def send(self, call, path, headers, stream, query=None):
        """PUT a body of the Swift API, and keep the checksum that is known of it at its end."""
        def footers():
            found = self.sum_of(stream)
            return {checksums.KEPT: checksums.kept(*found)} if found else {}
        more = {}
        headers.update(sse.written(call))
        if headers.get('Content-Length') == '0':
            headers.update(footers())
        elif getattr(stream, 'sums', None) is not None and stream.sums.makers:
            more['kodiak.footers'] = footers
        return self.api.ask(call, 'PUT', path, headers, stream=stream, query=query, environ=more)

    def version_header(self, call, answer):
        """The header that tells the version, where the bucket has any."""
        version = 'null' if NULL in answer.headers else answer.headers.get('X-Object-Version-Id')
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
        wanted = call.request.headers.get('X-Amz-Source-Expected-Bucket-Owner')
        if not slash or not bucket or not key:
            raise S3Error('InvalidArgument', 'Copy Source must mention the source bucket and key: sourcebucket/sourcekey',
                          ArgumentName='x-amz-copy-source', ArgumentValue=raw)
        other = call.__class__(call.request, call.signature, call.account, bucket, key)
        other.query = query
        self.api.locate(other)
        self.api.check_owner(other, wanted)
        version = self.version(other)
        self.api.access.check(other, 'GetObjectVersion' if version else 'GetObject', key)
        asked = {'version-id': version} if version else None
        own = sse.of_source(self.api, call)
        if own is not None:
            call.request.environ[sse.READ] = own
        found = self.api.ask(other, 'HEAD', f'/{bucket}/{key}', query=asked).drain()
        if found.status == 404:
            if not self.api.info(other).ok:
                raise S3Error('NoSuchBucket', BucketName=bucket)
            if found.headers.get('Content-Type') == MARKER:
                raise S3Error('InvalidRequest', 'The source of a copy request may not specifically refer to a delete marker by '
                                                'version id.')
            raise S3Error('NoSuchVersion' if version and version != 'null' else 'NoSuchKey', Key=key)
        self.api.good(found, f'/{bucket}/{key}')
        sse.prove(found.headers, own)
        conditions.of_source(call.request.headers.get, found)
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
        if directive == 'COPY' and source == path and place == call.place and not query and not self._sealed_anew(call):
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
        conditions.of_put(self.api, call, headers)
        wanted, known = checksums.algorithm(call.request.headers), checksums.known(found.headers)
        if known and (wanted not in (None, known[0]) or known[2] != checksums.FULL):
            wanted, known = wanted or known[0], None
        if known:
            headers[checksums.KEPT] = checksums.kept(*known)
        before = self.overwritten(call)
        answer, known = self.copied(call, path, headers, query, wanted if not known else None, known)
        if answer.status == 404:
            raise S3Error('NoSuchBucket', BucketName=call.bucket)
        self.api.good(answer, path)
        self.written(call, answer, before)
        etag = answer.headers.get('Etag', '').strip('"')
        made = document('CopyObjectResult', f'<LastModified>{modified(answer)}</LastModified><ETag>"{etag}"</ETag>'
                                            + (tag(checksums.element(known[0]), known[1]) + tag('ChecksumType', known[2])
                                               if known else ''))
        made.headers.update({**self.version_header(call, answer), **sse.shown(self.api, call)})
        version = found.headers.get('X-Object-Version-Id')
        if version:
            made.headers['X-Amz-Copy-Source-Version-Id'] = 'null' if NULL in found.headers else version
        return made

    @staticmethod
    def _sealed_anew(call):
        # An object copied to itself, with another key or with one at last.
        get = call.request.headers.get
        return any(get(name) for name in (sse.HEADER, sse.CUSTOMER + 'Key', sse.SOURCE + 'Key'))

    def copied(self, call, path, headers, query, wanted=None, known=None):
        """A copy by the Swift API, and its checksum; where one is ``wanted`` that is not known, the data passes through here."""
        headers.update(sse.written(call))
        if wanted is None:
            return self.api.ask(call, 'PUT', path, headers, query=query), known
        place, source = headers.pop('X-Copy-From-Account'), headers.pop('X-Copy-From')
        span = headers.pop('Range', None)
        got = self.api.ask(call, 'GET', unquote(source), {'Range': span} if span else None, query=query, place=unquote(place))
        self.api.good(got, unquote(source))
        headers.update({'Content-Length': got.headers['Content-Length']})
        headers.pop('X-Fresh-Metadata')
        stream = checksums.Summed(Reader(got), wanted)
        try:
            answer = self.send(call, path, headers, stream)
        finally:
            got.close()
        return answer, self.sum_of(stream)

    # reading

    def _get(self, call):
        request, headers = call.request, {}
        path, version = f'/{call.bucket}/{call.key}', self.version(call)
        sse.of_read(self.api, call)
        for name in ('Range', 'If-Range', *conditions.NAMES):
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
        sse.refused(answer)
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
        if not 1 <= (natural(text) or 0) <= 10000:
            raise S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive',
                          ArgumentName='partNumber', ArgumentValue=text)
        return text

    def _missing(self, call, version, answer):
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket, authorize=False), '/' + call.bucket)
        if not self.api.versioned(call):
            raise S3Error('NoSuchKey', Key=call.key)
        if version and answer.headers.get('Content-Type') == MARKER:
            marked = {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': self.shown_version(call, call.key, version),
                      'Allow': 'DELETE'}
            raise S3Error('MethodNotAllowed', headers=marked, Method=call.request.method, ResourceType='DeleteMarker')
        if version:
            raise S3Error('NoSuchVersion', Key=call.key, VersionId=version)
        newest = next(iter(self.api.versions(call, call.key)), None)
        headers = {}
        if newest and newest['content_type'] == MARKER:
            headers = {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': version_of_row(newest)}
        raise S3Error('NoSuchKey', headers=headers, Key=call.key)

    def _shown(self, call, answer):
        if answer.status in (200, 206):
            sse.prove(answer.headers, call.customer_key)
        made = Response.__new__(Response)
        made.status, made.body = answer.status, answer.body
        made.headers = answer.headers.__class__((n, v) for n, v in answer.headers.items() if n in PASSED)
        made.headers['Etag'] = f'"{shown_etag(answer)}"'
        for name, value in answer.headers.items():
            if name.startswith('X-Object-Meta-'):
                # (as S3 writes it; its clients keep the case)
                dict.__setitem__(made.headers, 'x-amz-meta-' + name[14:].lower(), value)
        made.headers.update(self.version_header(call, answer))
        made.headers.update(sse.shown(self.api, call))
        if call.request.headers.get('X-Amz-Checksum-Mode', '').upper() == 'ENABLED':
            made.headers.update(self._sums(call, answer))
        if 'X-Backend-Data-Timestamp' in answer.headers:
            # Lists, tags and locks that come later are no change of the object.
            made.headers['Last-Modified'] = http_date(math.ceil(float(answer.headers['X-Backend-Data-Timestamp'][:16])))
        if 'X-Parts-Count' in answer.headers:
            made.headers['X-Amz-Mp-Parts-Count'] = answer.headers['X-Parts-Count']
        tags = tagging.stored(answer.headers)
        if tags:
            made.headers['X-Amz-Tagging-Count'] = str(len(tags))
        made.headers.update(lock.shown(answer.headers))
        if 'X-Delete-At' in answer.headers:
            moment = http_date(int(answer.headers['X-Delete-At']))
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

    def _sums(self, call, answer):
        known = checksums.known(answer.headers)
        if known is None or not (answer.status == 200 or (answer.status == 206 and 'partNumber' in call.query)):
            return {}
        if answer.status == 206 and 'X-Parts-Count' in answer.headers:
            version = answer.headers.get('X-Object-Version-Id')
            row = part_of(self.api, call, version, natural(call.query['partNumber']))
            part = sum_of_part(self.api, call, row)
            known = part and (*part[:2], known[2])
        return checksums.shown(known)

    # deleting

    def remove(self, call, key, version=None, wanted=None):
        """Delete an object, and the segments that it has; the headers of the answer. Raises.

        :param wanted: of :func:`.conditions.of_delete`.
        """
        path = f'/{call.bucket}/{key}'
        guard = conditions.judge(self.api, call, key, version if version != 'null' else None, wanted)
        if guard is None:
            return {}
        state = self.api.versioned(call)
        if version is not None and not lock.VERSION.match(version) and version != 'null':
            raise S3Error('NoSuchVersion', Key=key, VersionId=version)
        if version is None and state == 'Enabled':
            answer = self.api.ask(call, 'DELETE', path, guard).drain()
            if answer.status == 404 and 'X-Object-Version-Id' not in answer.headers:
                self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
            elif answer.status != 404:
                self.api.good(answer, path)
            return {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': answer.headers.get('X-Object-Version-Id', '')}
        if version is None and state == 'Suspended':
            return self._mark_null(call, key, path, guard)
        query = {'version-id': version} if version and state else {}
        found = self.api.head(call, key, query.get('version-id'))
        bypass = self._bypass(call, key)
        if locked(found.headers, bypass):
            raise S3Error('AccessDenied', 'Access Denied because object protected by object lock.')
        call.heads.pop((key, query.get('version-id')), None)
        if found.headers.get('X-Static-Large-Object', '').lower() == 'true':
            query['multipart-manifest'] = 'delete'
        call.request.environ['kodiak.bypass_governance'] = bypass
        answer = self.api.ask(call, 'DELETE', path, guard, query=query or None)
        current = answer.headers.get('X-Object-Current-Version-Id')
        answer.drain()
        if answer.status == 404:
            self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        else:
            self.api.good(answer, path)
        headers = {}
        if version and state:
            headers['X-Amz-Version-Id'] = self.shown_version(call, key, version)
            if found.headers.get('Content-Type') == MARKER:
                headers['X-Amz-Delete-Marker'] = 'true'
            if current == '' or version == 'null' or 'multipart-manifest' in query:
                self._bring_back(call, key)
        return headers

    def _mark_null(self, call, key, path, guard):
        """Delete where versions are suspended: what is no version goes, and a mark of that kind takes its place."""
        before = self.api.null_version(call, key)
        found = self.api.head(call, key) if before == 'null' else None
        large = found is not None and found.headers.get('X-Static-Large-Object', '').lower() == 'true'
        answer = self.api.ask(call, 'DELETE', path, guard, query={'multipart-manifest': 'delete'} if large else None,
                              environ={'kodiak.null_mark': True}).drain()
        if answer.status != 404 or 'X-Object-Version-Id' not in answer.headers:
            self.api.good(answer, path)
        self._forget_null(call, key, before)
        return {'X-Amz-Delete-Marker': 'true', 'X-Amz-Version-Id': 'null'}

    def _forget_null(self, call, key, version):
        if version not in (None, 'null'):
            self.api.ask(call, 'DELETE', f'/{call.bucket}/{key}', query={'version-id': version}, authorize=False).drain()

    def overwritten(self, call):
        """Where the parts are of what a PUT will take the place of: to be given to :meth:`written`; None."""
        infos, box = call.request.environ['kodiak.proxy'].infos, call.bucket + SEGMENTS
        if self.api.versioned(call) == 'Enabled' or not infos.get(call.request, call.place, box).ok:
            return None
        found = self.api.ask(call, 'HEAD', f'/{call.bucket}/{call.key}', authorize=False).drain()
        upload = found.headers.get(UPLOADED)
        if not found.ok or not upload or found.headers.get('X-Object-Version-Id', 'null') != 'null':
            return None
        return f'/{box}/{call.key}/{upload}'

    def written(self, call, answer, before=None):
        """Take away what has been overwritten: its parts, and, where versions are suspended, the version that had no id.

        :param answer: of the PUT; one that came too late (202) has overwritten nothing.
        """
        if before is not None and answer.status == 201:
            self.api.multipart.abort(call, before, authorize=False)
        if self.api.versioned(call) == 'Suspended':
            rows = self.api.versions(call, call.key, 1000)
            self._forget_null(call, call.key, next((row['version_id'] for row in rows if row.get('null_version')), None))

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
        enforced = self.api.access.ownership(call) == acl.ENFORCED
        if known is None or enforced:
            known = acl.Acl.private(self.api.buckets.known_acl(call).owner)
        if call.request.method == 'GET':
            return known.render()
        body = call.body(65536)
        if enforced:
            if call.request.headers.get('X-Amz-Acl') != acl.OWNERS_CONTROL:
                raise S3Error('AccessControlListNotSupported')
            return Response(200, content_type='text/html; charset=UTF-8')
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
