"""Multipart uploads: parts in ``<bucket>+segments``, under ``<key>/<upload id>/<number>``; the whole is a static large object."""
import hashlib
import re
import uuid
from xml.sax.saxutils import escape

import orjson

from ..proxy.http import Response, quote
from .errors import S3Error

ETAG = 'X-Object-Sysmeta-S3Api-Etag'
MINIMUM = 5 << 20
UPLOAD = re.compile(r'^[0-9a-f]{32}$')


def etag_of(text):
    """The etag that a listing shows: a multipart upload's own, where the row has one."""
    etag, _, notes = text.partition(';')
    return notes.partition('s3_etag=')[2].partition(';')[0].strip() or etag


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
        from .api import document
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        box = self._box(call)
        self.api.good(self.api.ask(call, 'PUT', box), box)
        upload = uuid.uuid4().hex
        headers = call.metadata()
        kind = headers.pop('Content-Type')
        headers['X-Object-Sysmeta-S3Api-Content-Type'] = kind
        path = f'{box}/{call.key}/{upload}'
        self.api.good(self.api.ask(call, 'PUT', path, headers), path)
        return document('InitiateMultipartUploadResult', f'<Bucket>{call.bucket}</Bucket><Key>{escape(call.key)}</Key>'
                                                         f'<UploadId>{upload}</UploadId>')

    def handle(self, call):
        """Whatever names an upload."""
        self.api.good(self.api.ask(call, 'HEAD', '/' + call.bucket), '/' + call.bucket)
        upload, method = call.query['uploadId'], call.request.method
        base = f'{self._box(call)}/{call.key}/{upload}'
        known = self.api.ask(call, 'HEAD', base).drain() if UPLOAD.match(upload) else None
        if known is None or not known.ok:
            if known is not None and known.status not in (404, 412):
                self.api.good(known, base)
            raise S3Error('NoSuchUpload', UploadId=upload)
        if method == 'PUT':
            return self._part(call, base)
        if method == 'GET':
            return self._parts(call, base, upload)
        if method == 'POST':
            return self._complete(call, base, known)
        if method == 'DELETE':
            for row in self._rows(call, base):
                self.api.ask(call, 'DELETE', f'{self._box(call)}/{row["name"]}').drain()
            self.api.ask(call, 'DELETE', base).drain()
            return Response(204)
        raise S3Error('MethodNotAllowed')

    @staticmethod
    def _number(call):
        text = call.query.get('partNumber', '')
        if not text.isdigit() or not 1 <= int(text) <= 10000:
            raise S3Error('InvalidArgument', 'Part number must be an integer between 1 and 10000, inclusive',
                          ArgumentName='partNumber', ArgumentValue=text)
        return int(text)

    def _part(self, call, base):
        from .api import document, modified
        path = f'{base}/{self._number(call):05d}'
        if call.request.headers.get('X-Amz-Copy-Source'):
            source, found = self.api.source(call)
            headers = {'X-Copy-From': quote(source), 'Content-Length': '0', 'X-Fresh-Metadata': 'true'}
            span = call.request.headers.get('X-Amz-Copy-Source-Range')
            if span:
                match = re.fullmatch(r'bytes=(\d+)-(\d+)', span)
                if not match or int(match[1]) > int(match[2]) or int(match[2]) >= int(found.headers.get('Content-Length', 0)):
                    raise S3Error('InvalidArgument', 'The x-amz-copy-source-range value must be of the form bytes=first-last',
                                  ArgumentName='x-amz-copy-source-range', ArgumentValue=span)
                headers['Range'] = span
            answer = self.api.good(self.api.ask(call, 'PUT', path, headers), path)
            etag = answer.headers.get('Etag', '').strip('"')
            return document('CopyPartResult', f'<LastModified>{modified(answer)}</LastModified><ETag>"{etag}"</ETag>')
        md5 = call.md5()
        stream, length = call.stream()
        if length is None:
            raise S3Error('MissingContentLength')
        headers = {'Content-Length': str(length), 'Content-Type': 'application/octet-stream', **({'Etag': md5} if md5 else {})}
        answer = self.api.good(self.api.ask(call, 'PUT', path, headers, stream=stream), path)
        return Response(200, b'', {'Etag': f'"{answer.headers.get("Etag", "").strip(chr(34))}"', **call.checksums()})

    def _rows(self, call, base):
        box = self._box(call)
        prefix, marker, rows = base[len(box) + 1:] + '/', '', []
        while True:
            answer = self.api.ask(call, 'GET', box, query={'format': 'json', 'prefix': prefix, 'marker': marker})
            page = orjson.loads(self.api.good(answer, box).read())
            if not page:
                return rows
            rows += page
            marker = page[-1]['name']

    def _parts(self, call, base, upload):
        from .api import document, listed
        query = call.query
        for name in ('max-parts', 'part-number-marker'):
            if not query.get(name, '0').isdigit():
                raise S3Error('InvalidArgument', ArgumentName=name)
        limit, marker = min(int(query.get('max-parts') or 1000), 1000), int(query.get('part-number-marker') or 0)
        rows = [row for row in self._rows(call, base) if int(row['name'].rpartition('/')[2]) > marker]
        more, rows = len(rows) > limit, rows[:limit]
        text = ''.join(f'<Part><PartNumber>{int(row["name"].rpartition("/")[2])}</PartNumber><LastModified>'
                       f'{listed(row)}</LastModified><ETag>"{row["hash"]}"</ETag><Size>{row["bytes"]}</Size></Part>'
                       for row in rows)
        last = int(rows[-1]['name'].rpartition('/')[2]) if rows else 0
        who = call.owner()
        return document('ListPartsResult', (
            f'<Bucket>{call.bucket}</Bucket><Key>{escape(call.key)}</Key><UploadId>{upload}</UploadId>'
            f'{who.replace("Owner", "Initiator")}{who}<StorageClass>STANDARD</StorageClass><PartNumberMarker>{marker}'
            f'</PartNumberMarker><NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>'
            f'<IsTruncated>{"true" if more else "false"}</IsTruncated>{text}'))

    def _complete(self, call, base, known):
        from .api import document, parse_xml
        there = {int(row['name'].rpartition('/')[2]): row for row in self._rows(call, base)}
        manifest, digest, previous = [], hashlib.md5(usedforsecurity=False), 0
        for part in parse_xml(call.body(4 << 20)).findall('Part'):
            number, etag = part.findtext('PartNumber') or '', (part.findtext('ETag') or '').strip().strip('"')
            if not number.isdigit():
                raise S3Error('MalformedXML')
            if int(number) <= previous:
                raise S3Error('InvalidPartOrder')
            previous = int(number)
            row = there.get(previous)
            if row is None or row['hash'] != etag:
                raise S3Error('InvalidPart')
            manifest.append({'path': f'{self._box(call)}/{row["name"]}', 'etag': etag, 'size_bytes': row['bytes']})
            digest.update(bytes.fromhex(etag))
        if not manifest:
            raise S3Error('MalformedXML')
        if any(item['size_bytes'] < MINIMUM for item in manifest[:-1]):
            raise S3Error('EntityTooSmall')
        etag = f'{digest.hexdigest()}-{len(manifest)}'
        headers = {name: value for name, value in known.headers.items() if name.startswith('X-Object-Meta-') or name in (
            'Content-Encoding', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires')}
        headers.update({'Content-Type': known.headers.get('X-Object-Sysmeta-S3Api-Content-Type', 'binary/octet-stream'),
                        ETAG: etag})
        path = f'/{call.bucket}/{call.key}'
        self.api.good(self.api.ask(call, 'PUT', path, headers, body=orjson.dumps(manifest),
                                   query={'multipart-manifest': 'put'}), path)
        kept = {item['path'].rpartition('/')[2] for item in manifest}
        for number in there:
            if f'{number:05d}' not in kept:
                self.api.ask(call, 'DELETE', f'{base}/{number:05d}').drain()
        self.api.ask(call, 'DELETE', base).drain()
        where = escape(f'{call.request.environ["wsgi.url_scheme"]}://{call.request.headers.get("Host", "")}{quote(path)}')
        return document('CompleteMultipartUploadResult', f'<Location>{where}</Location><Bucket>{call.bucket}</Bucket>'
                                                         f'<Key>{escape(call.key)}</Key><ETag>"{etag}"</ETag>')

    def uploads(self, call):
        """GET ?uploads."""
        from .api import document, listed
        answer = self.api.ask(call, 'GET', self._box(call), query={'format': 'json', 'prefix': call.query.get('prefix', '')})
        rows = orjson.loads(answer.read()) if answer.ok else []
        found = [row for row in rows if UPLOAD.match(row['name'].rpartition('/')[2])]
        text = ''.join(f'<Upload><Key>{escape(row["name"].rpartition("/")[0])}</Key><UploadId>{row["name"].rpartition("/")[2]}'
                       f'</UploadId>{call.owner().replace("Owner", "Initiator")}{call.owner()}<StorageClass>STANDARD</StorageClass>'
                       f'<Initiated>{listed(row)}</Initiated></Upload>' for row in found)
        last, _, upload = found[-1]['name'].rpartition('/') if found else ('', '', '')
        head = (f'<Bucket>{call.bucket}</Bucket><KeyMarker/><UploadIdMarker/><NextKeyMarker>{escape(last)}</NextKeyMarker>'
                f'<NextUploadIdMarker>{upload}</NextUploadIdMarker><MaxUploads>1000</MaxUploads><IsTruncated>false</IsTruncated>')
        return document('ListMultipartUploadsResult', head + text)

    def forget_bucket(self, call):
        """Take the container of parts away with its bucket, where nothing is in it."""
        self.api.ask(call, 'DELETE', self._box(call)).drain()
