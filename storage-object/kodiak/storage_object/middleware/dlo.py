"""Dynamic large objects: ``X-Object-Manifest: container/prefix`` joins what a listing finds."""
import hashlib

import orjson

from ..proxy.http import Fault, Filter, Response, from_wsgi, serve, unquote


class Dlo(Filter):
    """See the module."""

    LIMIT = 10000

    def handle(self, request):
        """Join the segments of a manifest that is read."""
        if request.method not in ('GET', 'HEAD') or request.query.get('multipart-manifest') == 'get':
            return self.next(request)
        split = request.split()
        if split is None or split[3] is None:
            return self.next(request)
        several = ',' in request.headers.get('Range', '')
        answer = self.next(request)
        manifest = answer.headers.get('X-Object-Manifest')
        if manifest is None or request.environ.get('kodiak.source') in ('DLO', 'SLO'):
            return answer
        if not answer.ok and answer.status not in (304, 412, 416):
            return answer
        if answer.status != 200 or request.method == 'HEAD':
            answer.close()
            answer = self.next(request.sub('HEAD', request.path, query=request.query or None, source=request.environ.get(
                'kodiak.source')))
            if answer.status != 200:
                return answer
        else:
            answer.close()
        if several:
            request.headers.pop('Range')
        return self._join(request, split, answer, manifest)

    def _join(self, request, split, answer, manifest):
        container, _, prefix = unquote(from_wsgi(manifest)).partition('/')
        version, account = split[0], split[1]
        segments, marker = [], ''
        while True:
            listing = self.next(request.sub('GET', f'/{version}/{account}/{container}', source='DLO', query={
                'format': 'json', 'prefix': prefix, 'marker': marker}))
            if not listing.ok:
                if listing.status in (401, 403):
                    return listing
                if listing.status != 404:
                    raise Fault(listing.status if listing.status // 100 == 4 else 503)
                listing.drain()
                break
            rows = orjson.loads(listing.read())
            segments += [row for row in rows if 'name' in row]
            if not rows or len(rows) < self.LIMIT:
                break
            marker = rows[-1].get('name', '')
        length = sum(row['bytes'] for row in segments)
        etag = hashlib.md5(''.join(row['hash'].strip('"') for row in segments).encode(), usedforsecurity=False).hexdigest()
        answer.headers['Etag'] = f'"{etag}"'
        made = Response(200, b'', answer.headers)
        path = f'/{version}/{account}/{container}/'

        def open_range(start, end):
            return Joined(self, request, [(path + row['name'], row['bytes'], row['hash'].strip('"'), None) for row in segments],
                          start, end, 'DLO')
        return serve(request, made, length, open_range)


class Joined:
    """The bytes from ``start`` to ``end`` of segments: ``(path, size, etag, span)``; span: the part of the object, or None.

    Raises where a segment is not what it was: the client sees that the body breaks off.
    """

    def __init__(self, owner, request, segments, start, end, source):
        self.owner, self.request, self.segments, self.source = owner, request, segments, source
        self.start, self.end = start, end
        self.current = None

    def __iter__(self):
        at = 0
        for path, size, etag, span in self.segments:
            low, high = max(self.start - at, 0), min(self.end - at, size)
            at += size
            if low >= high:
                if at >= self.end:
                    return
                continue
            if path is None:
                yield span[low:high]
                continue
            yield from self._one(path, size, etag, span, low, high)

    def _one(self, path, size, etag, span, low, high):
        offset = span[0] if span else 0
        headers = {}
        whole = low == 0 and high == size and not span
        if not whole:
            headers['Range'] = f'bytes={offset + low}-{offset + high - 1}'
        if etag:
            headers['If-Match'] = etag
        answer = self.current = self.owner.handle(self.request.sub('GET', path, headers, source=self.source))
        if answer.status not in (200, 206) or int(answer.headers.get('Content-Length', -1)) != high - low:
            answer.close()
            raise OSError(f'a segment of a large object is not what it was ({answer.status})')
        yield from answer.chunks()
        answer.close()

    def close(self):
        """Let go of the segment that is being read."""
        if self.current is not None:
            self.current.close()


