"""Buckets: made, listed, removed; what is in them, listed and deleted in one request; their lists and versions."""
import base64
import binascii
from xml.sax.saxutils import escape

import orjson

from kodiak.common.numbers import natural

from ..middleware.versioning import DATA_TIMES
from ..proxy.http import Response, quote
from . import acl
from .checksums import told_by
from .configs import LOCK
from .errors import S3Error
from .etags import etag_of
from .lock import VERSION
from .objects import MARKER, version_of_row
from .xml import document, listed, parse_xml, tag

# What an object of many that are deleted may be asked to be, see :mod:`.conditions`.
CONDITIONS = {'etag': 'ETag', 'modified': 'LastModifiedTime', 'size': 'Size'}
STATES = {'Enabled': 'true', 'Suspended': 'false'}


def _token(name):
    return base64.b64encode(name.encode()).decode()


def _of_token(text):
    try:
        return base64.b64decode(text or '', validate=True).decode()
    except (binascii.Error, ValueError):
        raise S3Error('InvalidArgument', 'The continuation token provided is incorrect') from None


class Buckets:
    """Calls without a key.

    :param api: the S3 filter.
    """

    def __init__(self, api):
        self.api = api

    def all(self, call):
        """GET /."""
        from .api import BUCKET
        query = call.query
        limit = natural(query.get('max-buckets') or '10000')
        if not 1 <= (limit or 0) <= 10000:
            raise S3Error('InvalidArgument', 'Argument max-buckets must be an integer between 1 and 10000',
                          ArgumentName='max-buckets', ArgumentValue=query['max-buckets'])
        prefix, marker = query.get('prefix', ''), _of_token(query.get('continuation-token'))
        found = []
        while len(found) <= limit:
            listing = self.api.ask(call, 'GET', '', query={'format': 'json', 'prefix': prefix, 'marker': marker})
            rows = orjson.loads(self.api.good(listing, '/').read())
            if not rows:
                break
            found += [row for row in rows if 'name' in row and BUCKET.match(row['name'])]
            marker = rows[-1].get('name', '')
        shown = found[:limit]
        names = ''.join(f'<Bucket><Name>{row["name"]}</Name><CreationDate>{row["last_modified"][:23]}Z</CreationDate></Bucket>'
                        for row in shown)
        more = tag('ContinuationToken', _token(shown[-1]['name'])) if len(found) > limit else ''
        return document('ListAllMyBucketsResult', f'{call.owner()}<Buckets>{names}</Buckets>{more}'
                                                  + (tag('Prefix', prefix) if prefix else ''))

    def handle(self, call):
        """Whatever has no key and is no configuration."""
        method, query = call.request.method, call.query
        path = '/' + call.bucket
        if method == 'PUT' and not {'acl', 'versioning'} & set(query):
            return self._make(call, path)
        if method == 'POST' and 'delete' in query:
            return self._delete_many(call, path)
        action = self._action(method, query)
        if action is None:
            raise S3Error('MethodNotAllowed', Method=method, ResourceType='BUCKET')
        self.api.access.check(call, action)
        found = self.api.good(self.api.ask(call, 'HEAD', path), path)
        if 'acl' in query:
            return self._acl(call, path)
        if 'versioning' in query:
            return self._versioning(call, path)
        if method == 'HEAD':
            return Response(200, b'', {'X-Amz-Bucket-Region': self.api.region}, content_type='application/xml')
        if method == 'DELETE':
            return self._remove(call, path)
        if 'location' in query:
            return document('LocationConstraint', '' if self.api.region == 'us-east-1' else self.api.region)
        if 'policyStatus' in query:
            return self.api.configs.policy_status(call)
        if 'uploads' in query:
            return self.api.multipart.uploads(call)
        if 'versions' in query and 'X-Versions-Enabled' in found.headers:
            return self._versions(call, path)
        return self._list(call, path)

    @staticmethod
    def _action(method, query):
        if method == 'HEAD':
            return 'ListBucket'
        if method == 'DELETE':
            return 'DeleteBucket' if not set(query) & {'acl', 'versioning', 'location'} else None
        if method == 'PUT':
            return 'PutBucketAcl' if 'acl' in query else 'PutBucketVersioning'
        if method == 'GET':
            for name, action in (('acl', 'GetBucketAcl'), ('versioning', 'GetBucketVersioning'), ('location', 'GetBucketLocation'),
                                 ('policyStatus', 'GetBucketPolicyStatus'), ('uploads', 'ListBucketMultipartUploads'),
                                 ('versions', 'ListBucketVersions')):
                if name in query:
                    return action
            return 'ListBucket'
        return None

    # making and removing

    def _make(self, call, path):
        if call.signature is None:
            raise S3Error('AccessDenied')
        body = call.body(65536)
        if body.strip():
            where = parse_xml(body, 'CreateBucketConfiguration').findtext('LocationConstraint')
            if where and where != self.api.region:
                raise S3Error('InvalidLocationConstraint', LocationConstraint=where)
        if call.place != call.account:
            self._check_taken(call)
        made = acl.of_request(call, call.user_id) or acl.Acl.private(call.user_id)
        rule = call.request.headers.get('X-Amz-Object-Ownership')
        if rule is not None and rule not in acl.OWNERSHIPS:
            raise S3Error('InvalidArgument', 'Invalid x-amz-object-ownership header: ' + rule)
        if rule == acl.ENFORCED and made.shared:
            raise S3Error('InvalidBucketAclWithObjectOwnership')
        headers = {acl.BUCKET: made.store()}
        lock = call.request.headers.get('X-Amz-Bucket-Object-Lock-Enabled', '').lower() == 'true'
        if lock:
            headers.update({LOCK: 'on', 'X-Versions-Enabled': 'true'})
        if self.api.info(call).ok:
            self.api.good(self.api.ask(call, 'HEAD', path), path)
            raise S3Error('BucketAlreadyOwnedByYou', BucketName=call.bucket)
        answer = self.api.good(self.api.ask(call, 'PUT', path, headers), path)
        if answer.status == 202:
            raise S3Error('BucketAlreadyOwnedByYou', BucketName=call.bucket)
        if not self.api.registry.claim(call.request, call.bucket, call.account):
            self.api.ask(call, 'DELETE', path).drain()
            raise S3Error('BucketAlreadyExists', BucketName=call.bucket)
        if rule is not None:
            self.api.configs.own(call, rule)
        return Response(200, b'', {'Location': path}, content_type='text/html; charset=UTF-8')

    def _check_taken(self, call):
        # A bucket that the Swift API has deleted leaves its name behind.
        if self.api.info(call).ok:
            raise S3Error('BucketAlreadyExists', BucketName=call.bucket)
        self.api.registry.give_up(call.request, call.bucket)
        call.place = call.account

    def _remove(self, call, path):
        self.api.multipart.forget_bucket(call)
        answer = self.api.ask(call, 'DELETE', path)
        if answer.status == 409:
            raise S3Error('BucketNotEmpty', BucketName=call.bucket)
        self.api.good(answer, path)
        self.api.configs.forget(call)
        self.api.registry.give_up(call.request, call.bucket)
        return Response(204, content_type='text/html; charset=UTF-8')

    # lists and versions

    def known_acl(self, call):
        """The bucket's list; of one that S3 has not made, what the Swift API's own comes to."""
        info = self.api.info(call)
        made = acl.Acl.stored(info['sysmeta'].get('s3api-acl'))
        if made is None:
            made = acl.Acl.private(call.user_id if call.place == call.account else call.place)
            if '.r:*' in (info['read_acl'] or ''):
                made.grants.append((acl.ALL, 'READ'))
        return made

    def _acl(self, call, path):
        known = self.known_acl(call)
        if call.request.method == 'GET':
            return known.render()
        body = call.body(65536)
        if self.api.access.ownership(call) == acl.ENFORCED:
            raise S3Error('AccessControlListNotSupported')
        made = acl.of_request(call, known.owner)
        if made is not None and body.strip():
            raise S3Error('UnexpectedContent')
        if made is None:
            if not body.strip():
                raise S3Error('MissingSecurityHeader', MissingHeaderName='x-amz-acl')
            made = acl.of_xml(body, known.owner)
        self.api.access.refuse_public(call, made)
        if not call.owned and not call.free:
            raise S3Error('AccessDenied')
        self.api.good(self.api.ask(call, 'POST', path, {acl.BUCKET: made.store()}, authorize=False), path)
        return Response(200, content_type='text/html; charset=UTF-8')

    def _versioning(self, call, path):
        if call.request.method == 'GET':
            state = self.api.versioned(call)
            return document('VersioningConfiguration', tag('Status', state) if state else '')
        root = parse_xml(call.body(65536), 'VersioningConfiguration')
        status = root.findtext('Status')
        if status not in STATES:
            raise S3Error('MalformedXML')
        if root.findtext('MfaDelete') == 'Enabled':
            raise S3Error('NotImplemented')
        if status == 'Suspended' and 's3api-lock' in self.api.info(call)['sysmeta']:
            raise S3Error('InvalidBucketState', 'An Object Lock configuration is present on this bucket, so the versioning state '
                                                'cannot be changed.')
        self.api.good(self.api.ask(call, 'POST', path, {'X-Versions-Enabled': STATES[status]}), path)
        return Response(200, content_type='text/html; charset=UTF-8')

    # listings

    @staticmethod
    def _limit(query):
        text = query.get('max-keys', '')
        limit = natural(text) if text else 1000
        if limit is None or limit >= 1 << 31:
            raise S3Error('InvalidArgument', 'Provided max-keys not an integer or within integer range',
                          ArgumentName='max-keys', ArgumentValue=text)
        if query.get('encoding-type') not in (None, 'url'):
            raise S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request', ArgumentName='encoding-type',
                          ArgumentValue=query['encoding-type'])
        return min(limit, 1000)

    def _rows(self, call, path, ask, limit):
        if not limit:
            return [], False
        query = {'format': 'json', 'limit': str(limit + 1), **ask}
        listing = self.api.ask(call, 'GET', path, {DATA_TIMES: 'yes'}, query=query)
        rows = orjson.loads(self.api.good(listing, path).read())
        return rows[:limit], len(rows) > limit

    def _list(self, call, path):
        query = call.query
        second, versions = query.get('list-type') == '2', 'versions' in query
        limit = self._limit(query)
        encoding = query.get('encoding-type')
        ask = {name: query[name] for name in ('prefix', 'delimiter') if query.get(name)}
        marker = query.get('key-marker' if versions else 'marker')
        if second:
            marker = query.get('start-after')
            marker = _of_token(query.get('continuation-token')) or marker
        if marker:
            ask['marker'] = marker
        rows, more = self._rows(call, path, ask, limit)

        def shown(text):
            return escape(quote(text) if encoding == 'url' else text)
        owner = call.owner(self._owner_id(call)) if not second or query.get('fetch-owner') == 'true' else ''
        last = rows[-1].get('name', rows[-1].get('subdir')) if rows else ''
        head = [f'<Name>{call.bucket}</Name><Prefix>{shown(query.get("prefix", ""))}</Prefix>']
        if second:
            if 'start-after' in query:
                head.append(f'<StartAfter>{shown(query["start-after"])}</StartAfter>')
            if 'continuation-token' in query:
                head.append(f'<ContinuationToken>{escape(query["continuation-token"])}</ContinuationToken>')
            if more:
                head.append(f'<NextContinuationToken>{_token(last)}</NextContinuationToken>')
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

    def _owner_id(self, call):
        return call.user_id if call.place == call.account else self.known_acl(call).owner

    def _versions(self, call, path):
        query = call.query
        limit = self._limit(query)
        key, version = query.get('key-marker', ''), query.get('version-id-marker', '')
        if version and not key:
            raise S3Error('InvalidArgument', 'A version-id marker cannot be specified without a key marker.',
                          ArgumentName='version-id-marker', ArgumentValue=version)
        if version and version != 'null' and not VERSION.match(version):
            raise S3Error('InvalidArgument', 'Invalid version id specified', ArgumentName='version-id-marker',
                          ArgumentValue=version)
        ask = {'versions': '', **{name: query[name] for name in ('prefix', 'delimiter') if query.get(name)}}
        if key:
            ask['marker'] = key
            if version:
                ask['version_marker'] = (self.api.null_version(call, key) or version) if version == 'null' else version
        rows, more = self._rows(call, path, ask, limit)

        def shown(text):
            return escape(quote(text) if query.get('encoding-type') == 'url' else text)
        last = rows[-1] if rows else {}
        head = [(f'<Name>{call.bucket}</Name><Prefix>{shown(query.get("prefix", ""))}</Prefix><KeyMarker>{shown(key)}</KeyMarker>'
                 f'<VersionIdMarker>{escape(version)}</VersionIdMarker>')]
        if more:
            head.append(f'<NextKeyMarker>{shown(last.get("name", last.get("subdir")))}</NextKeyMarker>')
            head.append(f'<NextVersionIdMarker>{version_of_row(last)}</NextVersionIdMarker>')
        head.append(f'<MaxKeys>{limit}</MaxKeys>')
        if query.get('encoding-type'):
            head.append('<EncodingType>url</EncodingType>')
        if query.get('delimiter'):
            head.append(f'<Delimiter>{shown(query["delimiter"])}</Delimiter>')
        head.append(f'<IsTruncated>{"true" if more else "false"}</IsTruncated>')
        owner = call.owner(self._owner_id(call))
        for row in rows:
            if 'subdir' in row:
                head.append(f'<CommonPrefixes><Prefix>{shown(row["subdir"])}</Prefix></CommonPrefixes>')
                continue
            common = (f'<Key>{shown(row["name"])}</Key><VersionId>{version_of_row(row)}</VersionId><IsLatest>'
                      f'{"true" if row["is_latest"] else "false"}</IsLatest><LastModified>{listed(row)}</LastModified>')
            if row['content_type'] == MARKER:
                head.append(f'<DeleteMarker>{common}{owner}</DeleteMarker>')
            else:
                head.append(f'<Version>{common}<ETag>"{etag_of(row["hash"])}"</ETag><Size>{row["bytes"]}</Size>{owner}'
                            '<StorageClass>STANDARD</StorageClass></Version>')
        return document('ListVersionsResult', ''.join(head))

    # many at once

    def _delete_many(self, call, path):
        headers = call.request.headers
        if 'Content-Md5' not in headers and not told_by(headers) and 'X-Amz-Trailer' not in headers:
            raise S3Error('InvalidRequest', 'Missing required header for this request: Content-MD5 OR x-amz-checksum-*')
        root = parse_xml(call.body(2 << 20), 'Delete')
        quiet = (root.findtext('Quiet') or '').lower() == 'true'
        items = root.findall('Object')
        if not items or len(items) > 1000:
            raise S3Error('MalformedXML')
        self.api.good(self.api.ask(call, 'HEAD', path, authorize=False), path)
        lines = []
        for item in items:
            key, version = item.findtext('Key') or '', item.findtext('VersionId') or None
            if not key:
                raise S3Error('UserKeyMustBeSpecified')
            named = f'<Key>{escape(key)}</Key>' + (tag('VersionId', version) if version else '')
            try:
                self.api.access.check(call, 'DeleteObjectVersion' if version else 'DeleteObject', key)
                wanted = {name: item.findtext(tag) for name, tag in CONDITIONS.items() if item.findtext(tag) is not None}
                headers = self.api.objects.remove(call, key, self.api.objects.resolved(call, key, version), wanted)
            except S3Error as error:
                call.deleted.append((key, version, error.status, error.code))
                lines.append(f'<Error>{named}<Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>')
                continue
            call.deleted.append((key, version, 204, None))
            marked = headers.get('X-Amz-Delete-Marker')
            if marked:
                named += f'<DeleteMarker>true</DeleteMarker>{tag("DeleteMarkerVersionId", headers["X-Amz-Version-Id"])}'
            lines.append('' if quiet else f'<Deleted>{named}</Deleted>')
        return document('DeleteResult', ''.join(lines))
