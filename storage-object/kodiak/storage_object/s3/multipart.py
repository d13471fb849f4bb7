"""Multipart uploads: parts in ``<bucket>+segments``, under ``<key>/<upload id>/<number>``; the whole is a static large object."""
import hashlib
import re
import time
import uuid
from xml.sax.saxutils import escape

import orjson

from kodiak.common.numbers import natural

from ..proxy.http import Response, from_wsgi, quote, to_wsgi
from . import acl, checksums, conditions, sse
from .errors import S3Error
from .etags import ETAG, shown_etag
from .xml import document, listed, modified, moment_of_row, parse_xml, tag

UPLOADED = 'X-Object-Sysmeta-S3Api-Upload-Id'
KIND = 'X-Object-Sysmeta-S3Api-Content-Type'
OWN = 'X-Object-Transient-Sysmeta-S3Api-'
MINIMUM = 5 << 20
LISTED = 'X-Object-Sysmeta-Container-Update-Override-Etag'
EMPTY = 'd41d8cd98f00b204e9800998ecf8427e'
UPLOAD = re.compile(r'^[0-9a-f]{32}$')
KEPT = ('Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag', 'X-Delete-At')


def copy_headers(place, source):
    """A PUT's of the Swift API that copies data, and no metadata."""
    return {'X-Copy-From': quote(source), 'X-Copy-From-Account': quote(place), 'Content-Length': '0', 'X-Fresh-Metadata': 'true'}


def _count(query, name, most, least=0):
    text = query.get(name) or str(most)
    number = natural(text)
    if number is None or not least <= number < 1 << 31:
        raise S3Error('InvalidArgument', f'Provided {name} not an integer or within integer range', ArgumentName=name,
                      ArgumentValue=text)
    return min(number, most)


def _sums(headers):
    """``(algorithm, type)`` of the checksums of an upload's parts, of the headers of its HEAD; None for none."""
    text = headers.get(checksums.UPLOAD)
    return tuple(text.split(' ')) if text else None


def _sums_of_row(row):
    text = row.get('hash', '').partition('s3_sums=')[2].partition(';')[0]
    name, _, kind = text.partition(':')
    return tag('ChecksumAlgorithm', name.upper()) + tag('ChecksumType', kind) if text else ''


def _begun_by(text):
    return from_wsgi(text.partition('s3_owner=')[2])


class Multipart:
    """The multipart calls.

    :param api: the :class:`~kodiak.storage_object.s3.api.S3` that they belong to.
    """

    def __init__(self, api):
        self.api = api

    @staticmethod
    def _box(call):
        return f'/{call.bucket}+segments'

    def begin(self, call):
        """POST ?uploads."""
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        box, upload = self._box(call), uuid.uuid4().hex
        headers = {**call.metadata(), **self.api.objects.attributes(call)}
        headers[KIND] = headers.pop('Content-Type')
        sums = checksums.of_upload(call.request.headers)
        if sums:
            headers[checksums.UPLOAD] = sums
        headers.update(sse.written(call))
        headers['X-Backend-Container-Update-Override-Etag'] = to_wsgi(
            f'{EMPTY}; s3_sums={(sums or "").replace(" ", ":")}; s3_owner={call.user_id}')
        path = f'{box}/{call.key}/{upload}'
        answer = self.api.ask(call, 'PUT', path, headers)
        if answer.status == 404:
            # Parts lie where the bucket's objects lie.
            policy = call.request.environ['kodiak.proxy'].rings.policies[self.api.info(call)['policy']].name
            self.api.good(self.api.ask(call, 'PUT', box, {'X-Storage-Policy': policy}), box)
            answer = self.api.ask(call, 'PUT', path, headers)
        self.api.good(answer, path)
        made = document('InitiateMultipartUploadResult',
                        tag('Bucket', call.bucket) + tag('Key', call.key) + tag('UploadId', upload))
        if sums:
            name, kind = sums.split(' ')
            made.headers.update({checksums.PREFIX + 'Algorithm': name.upper(), checksums.PREFIX + 'Type': kind})
        made.headers.update(sse.shown(self.api, call))
        return made

    def handle(self, call):
        """Whatever names an upload."""
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        upload, method = call.query['uploadId'], call.request.method
        if method not in ('GET', 'PUT', 'POST', 'DELETE'):
            raise S3Error('MethodNotAllowed')
        if method == 'PUT':
            self._number(call)
        base = f'{self._box(call)}/{call.key}/{upload}'
        known = self.api.ask(call, 'HEAD', base).drain() if UPLOAD.match(upload) else None
        if known is not None and known.status == 404 and method == 'POST':
            return self._again(call, base, upload)
        if known is None or not known.ok:
            if known is not None and known.status not in (404, 412):
                self.api.good(known, base)
            raise S3Error('NoSuchUpload', UploadId=upload)
        if method == 'PUT':
            sse.of_part(self.api, call, known.headers)
            return self._part(call, base, _sums(known.headers))
        sse.of_read(self.api, call)
        if method == 'GET':
            return self._parts(call, base, upload, known.headers)
        if method == 'POST':
            return self._complete(call, base, known, upload)
        self.abort(call, base)
        return Response(204, content_type='text/html; charset=UTF-8')

    def abort(self, call, base, authorize=True):
        """Take an upload away. ``authorize``: False for one that somebody who may has overwritten."""
        for row in self._rows(call, base, authorize):
            self.api.ask(call, 'DELETE', f'{self._box(call)}/{row["name"]}', authorize=authorize).drain()
        self.api.ask(call, 'DELETE', base, authorize=authorize).drain()

    @staticmethod
    def _number(call):
        text = call.query.get('partNumber', '')
        number = natural(text)
        if number is None or not 1 <= number <= 10000:
            raise S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive',
                          ArgumentName='partNumber', ArgumentValue=text)
        return number

    def _part(self, call, base, sums):
        path = f'{base}/{self._number(call):05d}'
        if call.request.headers.get('X-Amz-Copy-Source'):
            return self._copied(call, path, sums)
        md5 = call.md5()
        stream, length = call.stream()
        if length is None:
            raise S3Error('MissingContentLength')
        told = next(iter(stream.sums.makers), None)
        if sums and told not in (None, sums[0]):
            raise S3Error('InvalidRequest', f'Checksum Type mismatch occurred, expected checksum Type: {sums[0]}, actual checksum '
                                            f'Type: {told}')
        if sums:
            stream.sums.want(sums[0])
        headers = {'Content-Length': str(length), 'Content-Type': 'application/octet-stream', **({'Etag': md5} if md5 else {})}
        answer = self.api.good(self.api.objects.send(call, path, headers, stream), path)
        made = {'Etag': f'"{shown_etag(answer)}"', 'Last-Modified': answer.headers.get('Last-Modified', ''),
                **sse.shown(self.api, call)}
        found = self.api.objects.sum_of(stream)
        if found:
            made[checksums.PREFIX + found[0]] = found[1]
        return Response(200, b'', made, content_type='text/html; charset=UTF-8')

    def _copied(self, call, path, sums):
        place, source, query, found = self.api.objects.source(call)
        headers = copy_headers(place, source)
        span = call.request.headers.get('X-Amz-Copy-Source-Range')
        if span:
            match = re.fullmatch(r'bytes=([0-9]{1,19})-([0-9]{1,19})', span)
            size = int(found.headers.get('Content-Length', 0))
            if not match or int(match[1]) > int(match[2]):
                raise S3Error('InvalidArgument', 'The x-amz-copy-source-range value must be of the form bytes=first-last where '
                                                 'first and last are the zero-based offsets of the first and last bytes to copy',
                              ArgumentName='x-amz-copy-source-range', ArgumentValue=span)
            if int(match[2]) >= size:
                raise S3Error('InvalidArgument', f'Range specified is not valid for source object of size: {size}',
                              ArgumentName='x-amz-copy-source-range', ArgumentValue=span)
            headers['Range'] = span
        answer, found = self.api.objects.copied(call, path, headers, query, sums and sums[0])
        self.api.good(answer, path)
        etag = answer.headers.get('Etag', '').strip('"')
        made = document('CopyPartResult', f'<LastModified>{modified(answer)}</LastModified><ETag>"{etag}"</ETag>'
                                          + (tag(checksums.element(found[0]), found[1]) if found else ''))
        made.headers.update(sse.shown(self.api, call))
        return made

    def _rows(self, call, base, authorize=True):
        box = self._box(call)
        prefix, marker, rows = base[len(box) + 1:] + '/', '', []
        while True:
            answer = self.api.ask(call, 'GET', box, authorize=authorize,
                                  query={'format': 'json', 'prefix': prefix, 'marker': marker})
            page = orjson.loads(self.api.good(answer, box).read())
            if not page:
                return rows
            rows += page
            marker = page[-1]['name']

    def _owners(self, call, begun_by, owner):
        # Who has begun an upload, and whose the object will be.
        if self.api.access.ownership(call) == acl.ENFORCED:
            owner = self.api.buckets.known_acl(call).owner
        return call.owner(begun_by or None).replace('Owner', 'Initiator') + call.owner(owner or None)

    def _parts(self, call, base, upload, known):
        sums, query = _sums(known), call.query
        limit, marker = _count(query, 'max-parts', 1000), _count(query, 'part-number-marker', 1 << 30) % (1 << 30)
        if query.get('encoding-type') not in (None, 'url'):
            raise S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request', ArgumentName='encoding-type')
        rows = [row for row in self._rows(call, base) if int(row['name'].rpartition('/')[2]) > marker]
        more, rows = len(rows) > limit, rows[:limit]
        text = ''.join(f'<Part><PartNumber>{int(row["name"].rpartition("/")[2])}</PartNumber><LastModified>'
                       f'{listed(row)}</LastModified><ETag>"{row["hash"]}"</ETag><Size>{row["bytes"]}</Size>'
                       f'{self._sum_of_part(call, row) if sums else ""}</Part>' for row in rows)
        last = int(rows[-1]['name'].rpartition('/')[2]) if rows else 0
        own = acl.Acl.stored(known.get(acl.OBJECT)) or self.api.buckets.known_acl(call)
        who = self._owners(call, _begun_by(known.get(LISTED, '')), own.owner)
        encoded = quote(call.key) if 'encoding-type' in query else call.key
        return document('ListPartsResult', (
            tag('Bucket', call.bucket) + tag('Key', encoded) + tag('UploadId', upload)
            + f'{who}<StorageClass>STANDARD</StorageClass><PartNumberMarker>{marker}'
              f'</PartNumberMarker><NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>'
            + (tag('EncodingType', 'url') if 'encoding-type' in query else '')
            + (tag('ChecksumAlgorithm', sums[0].upper()) + tag('ChecksumType', sums[1]) if sums else '')
            + f'<IsTruncated>{"true" if more else "false"}</IsTruncated>{text}'))

    def _known_sum(self, call, row):
        return checksums.known(self.api.ask(call, 'HEAD', f'{self._box(call)}/{row["name"]}').drain().headers)

    def _sum_of_part(self, call, row):
        found = self._known_sum(call, row)
        return tag(checksums.element(found[0]), found[1]) if found else ''

    # completing

    @staticmethod
    def _asked(call):
        """``[(number, etag, {algorithm: base64})]`` of a request to complete."""
        found, previous = [], 0
        for part in parse_xml(call.body(4 << 20, told=False), 'CompleteMultipartUpload').findall('Part'):
            number, etag = natural((part.findtext('PartNumber') or '').strip()), part.findtext('ETag')
            if number is None or etag is None:
                raise S3Error('MalformedXML')
            if number <= previous:
                raise S3Error('InvalidPartOrder')
            previous = number
            sums = {element.tag[8:].lower(): (element.text or '').strip() for element in part
                    if element.tag.startswith('Checksum') and element.tag[8:].lower() in checksums.LENGTHS}
            found.append((number, etag.strip().strip('"'), sums))
        if not found:
            raise S3Error('MalformedXML')
        return found

    @staticmethod
    def _whole(etags):
        try:
            digest = hashlib.md5(b''.join(bytes.fromhex(etag) for etag in etags), usedforsecurity=False).hexdigest()
        except ValueError:
            raise S3Error('InvalidPart') from None
        return f'{digest}-{len(etags)}'

    def _row(self, call, base, number, there, upload, etag):
        row = there.get(number)
        if row is None:
            # A listing may be behind what has been acknowledged.
            path = f'{base}/{number:05d}'
            found = self.api.ask(call, 'HEAD', path).drain()
            if found.ok:
                row = {'name': path[len(self._box(call)) + 1:], 'hash': found.headers.get('Etag', '').strip('"'),
                       'bytes': int(found.headers.get('Content-Length', 0))}
        if row is None or row['hash'] != etag:
            raise S3Error('InvalidPart', UploadId=upload, PartNumber=number, ETag=etag)
        return row

    def _complete(self, call, base, known, upload):
        asked, encrypted = self._asked(call), sse.of_whole(self.api, call, known.headers)
        there = {int(row['name'].rpartition('/')[2]): row for row in self._rows(call, base)}
        rows = [self._row(call, base, number, there, upload, etag) for number, etag, _ in asked]
        manifest = [{'path': f'{self._box(call)}/{row["name"]}', 'etag': row['hash'], 'size_bytes': row['bytes']} for row in rows]
        for (number, etag, _), row in zip(asked[:-1], rows, strict=False):
            if row['bytes'] < MINIMUM:
                raise S3Error('EntityTooSmall', ETag=etag, PartNumber=number, MinSizeAllowed=MINIMUM, ProposedSize=row['bytes'])
        whole = self._whole([etag for _, etag, _ in asked])
        size, told = sum(row['bytes'] for row in rows), call.request.headers.get('X-Amz-Mp-Object-Size')
        if told is not None and natural(told) != size:
            raise S3Error('InvalidRequest', f"The provided 'x-amz-mp-object-size' header value ({told}) does not match what was "
                                            f'computed: {size}')
        found = self._sum(call, asked, rows, _sums(known.headers))
        headers = {n: v for n, v in known.headers.items() if n.startswith(('X-Object-Meta-', OWN.title())) or n in KEPT}
        headers.update({'Content-Type': known.headers.get(KIND, 'binary/octet-stream'), ETAG: whole, UPLOADED: upload,
                        **encrypted})
        if found:
            headers[checksums.KEPT] = checksums.kept(*found)
        conditions.of_put(self.api, call, headers)
        if manifest[-1]['size_bytes'] == 0:
            # A manifest has no segments of no bytes; an upload of nothing is an object of nothing, with its own etag.
            manifest.pop()
        path, before = f'/{call.bucket}/{call.key}', self.api.objects.overwritten(call)
        if manifest:
            answer = self.api.ask(call, 'PUT', path, headers, body=orjson.dumps(manifest), query={'multipart-manifest': 'put'})
        else:
            headers['X-Backend-Container-Update-Override-Etag'] = f'{EMPTY}; s3_etag={whole}'
            answer = self.api.ask(call, 'PUT', path, headers)
        self.api.good(answer, path)
        # (asked for twice at once, it is what the other has made)
        self.api.objects.written(call, answer, before if before != base else None)
        kept = {item['path'].rpartition('/')[2] for item in manifest}
        for number in there:
            if f'{number:05d}' not in kept:
                self.api.ask(call, 'DELETE', f'{base}/{number:05d}').drain()
        self.api.ask(call, 'DELETE', base).drain()
        made = self._done(call, whole, found)
        made.headers.update(sse.shown(self.api, call))
        if self.api.versioned(call) and 'X-Object-Version-Id' in answer.headers:
            made.headers['X-Amz-Version-Id'] = answer.headers['X-Object-Version-Id']
        return made

    def _again(self, call, base, upload):
        """Completed already: the answer got lost, or somebody asks twice."""
        found = self.api.ask(call, 'HEAD', f'/{call.bucket}/{call.key}').drain()
        if not found.ok or found.headers.get(UPLOADED) != upload:
            raise S3Error('NoSuchUpload', UploadId=upload)
        whole = self._whole([etag for _, etag, _ in self._asked(call)])
        if found.headers.get(ETAG) != whole:
            raise S3Error('NoSuchUpload', UploadId=upload)
        return self._done(call, whole, checksums.known(found.headers))

    def _sum(self, call, asked, rows, sums):
        """The whole's checksum, of those of its parts, as :func:`.checksums.known` gives it; None where the upload has none."""
        if sums is None:
            return None
        (name, kind), parts = sums, []
        for (number, etag, told), row in zip(asked, rows, strict=True):
            found = self._known_sum(call, row)
            if set(told) - {name} or found is None or told.get(name, found[1]) != found[1]:
                raise S3Error('InvalidPart', PartNumber=number, ETag=etag)
            parts.append((found[1], row['bytes']))
        get = call.request.headers.get
        if get('X-Amz-Checksum-Type') not in (None, kind):
            raise S3Error('InvalidRequest', 'Value for x-amz-checksum-type header is not that of the upload.')
        whole = checksums.of_parts(name, kind, parts)
        if get(checksums.PREFIX + name) not in (None, whole, whole.partition('-')[0]):
            raise S3Error('BadDigest', f'The {name.upper()} you specified did not match the calculated checksum.')
        return name, whole, kind

    @staticmethod
    def _done(call, whole, found):
        where = f'{call.request.environ["wsgi.url_scheme"]}://{call.request.headers.get("Host", "")}'
        where += quote(f'/{call.bucket}/{call.key}')
        return document('CompleteMultipartUploadResult', tag('Location', where) + tag('Bucket', call.bucket) + tag('Key', call.key)
                        + f'<ETag>"{whole}"</ETag>'
                        + (tag(checksums.element(found[0]), found[1]) + tag('ChecksumType', found[2]) if found else ''))

    # listing

    def unfinished(self, call, prefix='', marker=''):
        """Rows of uploads that have been begun, in the order of their keys: ``(key, upload, row)``."""
        while True:
            answer = self.api.ask(call, 'GET', self._box(call), query={'format': 'json', 'prefix': prefix, 'marker': marker})
            rows = orjson.loads(answer.read()) if answer.ok else []
            if not rows:
                return
            for row in rows:
                key, _, upload = row['name'].rpartition('/')
                if UPLOAD.match(upload):
                    yield key, upload, row
            marker = rows[-1]['name']

    def uploads(self, call):
        """GET ?uploads."""
        query = call.query
        limit = _count(query, 'max-uploads', 1000)
        if query.get('encoding-type') not in (None, 'url'):
            raise S3Error('InvalidArgument', 'Invalid Encoding Method specified in Request', ArgumentName='encoding-type')
        prefix, delimiter = query.get('prefix', ''), query.get('delimiter', '')
        marker, after = query.get('key-marker', ''), query.get('upload-id-marker', '') if query.get('key-marker') else ''

        def shown(text):
            return escape(quote(text) if 'encoding-type' in query else text)
        found, groups, more, last = [], [], False, ('', '')
        for key, upload, row in self.unfinished(call, prefix):
            if marker and (key < marker or (key == marker and (not after or upload <= after))):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            group = key[:cut + len(delimiter)] if cut >= 0 else None
            if group is not None and (group in groups or (marker and group <= marker)):
                continue
            if len(found) + len(groups) >= limit:
                more = True
                break
            last = (group or key, '' if group else upload)
            groups.append(group) if group else found.append((key, upload, row))
        text = ''.join(f'<Upload><Key>{shown(key)}</Key><UploadId>{upload}</UploadId>'
                       f'{self._owners(call, *[_begun_by(row.get("hash", ""))] * 2)}'
                       f'<StorageClass>STANDARD</StorageClass><Initiated>{listed(row)}</Initiated>{_sums_of_row(row)}</Upload>'
                       for key, upload, row in found)
        text += ''.join(f'<CommonPrefixes><Prefix>{shown(group)}</Prefix></CommonPrefixes>' for group in groups)
        several = more or len(found) > 1
        return document('ListMultipartUploadsResult', (
            f'<Bucket>{call.bucket}</Bucket><KeyMarker>{shown(marker)}</KeyMarker><UploadIdMarker>{escape(after)}</UploadIdMarker>'
            f'<NextKeyMarker>{shown(last[0]) if several else ""}</NextKeyMarker>'
            f'<NextUploadIdMarker>{last[1] if several else ""}</NextUploadIdMarker>'
            + (f'<Delimiter>{shown(delimiter)}</Delimiter>' if delimiter else '')
            + (f'<Prefix>{shown(prefix)}</Prefix>' if prefix else '')
            + (tag('EncodingType', 'url') if 'encoding-type' in query else '')
            + f'<MaxUploads>{limit}</MaxUploads><IsTruncated>{"true" if more else "false"}</IsTruncated>{text}'))

    def abandon(self, call, days, prefix='', now=None):
        """Abort the uploads begun more than so many days ago; how many."""
        count = 0
        for key, upload, row in list(self.unfinished(call, prefix)):
            if moment_of_row(row) < (now or time.time()) - days * 86400:
                self.abort(call, f'{self._box(call)}/{key}/{upload}')
                count += 1
        return count

    def forget_bucket(self, call):
        """Take the container of parts away with its bucket, where nothing is in it."""
        self.api.ask(call, 'DELETE', self._box(call)).drain()
