"""Server-side copies: the verb COPY, and PUT with X-Copy-From."""
import mimetypes

from ..proxy.constraints import LIMITS
from ..proxy.http import Fault, Filter, HeaderDict, error, from_wsgi, is_true, quote, unquote

# What a copy takes of its source besides user metadata.
TAKEN = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Static-Large-Object', 'X-Delete-At', 'Content-Language',
         'Cache-Control', 'Expires', 'X-Robots-Tag')


# What is of a large object's manifest, not of the object that a copy of its data is.
OF_LARGE = ('X-Object-Sysmeta-Slo', 'X-Object-Sysmeta-S3Api-Etag', 'X-Object-Sysmeta-S3Api-Checksum',
            'X-Object-Sysmeta-Container-Update-Override-')


def _place(header, value):
    path = unquote(from_wsgi(value))
    path = path.lstrip('/') if path.startswith('/') else path
    container, slash, name = path.partition('/')
    if not container or not slash or not name:
        raise Fault(412, f'{header} header must be of the form <container name>/<object name>')
    return container, name


def _account(header, value):
    value = unquote(from_wsgi(value))
    if not value or '/' in value:
        raise Fault(412, f'{header} header must be of the form <account name>')
    return value


def guess(path):
    """The content type that a name stands for."""
    return mimetypes.guess_type(path)[0] or 'application/octet-stream'


# Of what a client's key has opened: its etag is not that of the bytes.
OPENED = 'X-Backend-Customer-State'


class Reader:
    """The body of a response as a file."""

    def __init__(self, response):
        self.pieces = iter(response.chunks())
        self.rest = b''

    def read(self, size=-1):
        """At most ``size`` bytes."""
        parts, have = [], 0
        while size < 0 or have < size:
            if not self.rest:
                self.rest = next(self.pieces, b'')
                if not self.rest:
                    break
            piece, self.rest = (self.rest, b'') if size < 0 else (self.rest[:size - have], self.rest[size - have:])
            parts.append(piece)
            have += len(piece)
            if have:
                break
        return b''.join(parts)


class Copy(Filter):
    """See the module."""

    def handle(self, request):
        """Turn COPY to PUT; make PUT with X-Copy-From a copy."""
        if request.method == 'COPY':
            split = request.split()
            if split is None or split[3] is None:
                return self.next(request)
            self._turn(request, split)
        if request.method == 'PUT' and request.headers.get('X-Copy-From') is not None:
            split = request.split()
            if split is not None and split[3] is not None:
                return self._copy(request, split)
        return self.next(request)

    @staticmethod
    def _turn(request, split):
        version, account, container, name = split
        to = request.headers.get('Destination')
        if not to:
            raise Fault(412, 'Destination header required')
        target, target_name = _place('Destination', to)
        target_account = request.headers.get('Destination-Account')
        target_account = _account('Destination-Account', target_account) if target_account else account
        request.headers['X-Copy-From'] = quote(f'/{container}/{name}')
        request.headers['X-Copy-From-Account'] = quote(account)
        request.method = 'PUT'
        request.headers.pop('Destination')
        request.headers.pop('Destination-Account')
        request.environ['kodiak.copy_verb'] = True
        request.path = f'/{version}/{target_account}/{target}/{target_name}'

    def _copy(self, request, split):
        if request.headers.get('Content-Length', '0') not in ('0', '') or request.chunked:
            raise Fault(400, 'Copy requests require a zero byte body')
        headers = request.headers
        version, account = split[:2]
        source, source_name = _place('X-Copy-From', headers.pop('X-Copy-From'))
        source_account = headers.pop('X-Copy-From-Account')
        source_account = _account('X-Copy-From-Account', source_account) if source_account else account
        query = {k: v for k, v in request.query.items() if k in ('multipart-manifest', 'symlink', 'version-id', 'part-number')}
        read = request.sub('GET', f'/{version}/{source_account}/{source}/{source_name}', query=query, source='COPY')
        for header in ('Range', 'If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since', 'X-Newest'):
            value = headers.pop(header)
            if value is not None and not (header == 'If-None-Match' and value == '*'):
                read.headers[header] = value
            elif value is not None:
                headers[header] = value
        read.headers['X-Newest'] = 'true'
        got = self.next(read)
        if not got.ok:
            got.drain()
            return got
        length = got.headers.get('Content-Length')
        if length is None:
            got.close()
            return error(413)
        if int(length) > LIMITS.max_file_size:
            got.close()
            return error(413)
        put = request.sub('PUT', request.path, source='COPY', stream=Reader(got))
        put.headers.update((n, v) for n, v in headers.items() if n not in ('Content-Length', 'Transfer-Encoding'))
        if request.query:
            put.set_query({k: v for k, v in request.query.items() if k != 'version-id'})
        self._take(request, put, got, query)
        put.headers['Content-Length'] = length
        if got.status == 200 and 'Etag' in got.headers and 'X-Object-Manifest' not in got.headers and (
                OPENED not in got.headers) and not (
                is_true(got.headers.get('X-Static-Large-Object', '')) or 'Content-Range' in got.headers):
            put.headers.environ.setdefault('HTTP_ETAG', got.headers['Etag'].strip('"'))
        try:
            answer = self.next(put)
        finally:
            got.close()
        if answer.ok:
            answer.headers['X-Copied-From'] = quote(f'{source}/{source_name}')
            answer.headers['X-Copied-From-Account'] = quote(source_account)
            if 'Last-Modified' in got.headers:
                answer.headers['X-Copied-From-Last-Modified'] = got.headers['Last-Modified']
            answer.headers.update((n, v) for n, v in put.headers.items() if n.startswith('X-Object-Meta-'))
            if 'X-Delete-At' in put.headers:
                answer.headers['X-Delete-At'] = put.headers['X-Delete-At']
        return answer

    @staticmethod
    def _take(request, put, got, query):
        fresh = is_true(request.headers.get('X-Fresh-Metadata', ''))
        raw = query.get('multipart-manifest') == 'get'
        kept = HeaderDict()
        for header, value in got.headers.items():
            if header.startswith(('X-Object-Sysmeta-', 'X-Object-Transient-Sysmeta-')):
                if not header.startswith(OF_LARGE) or raw:
                    kept[header] = value
            elif fresh and header != 'Content-Type':
                continue
            elif header.startswith('X-Object-Meta-') or header in TAKEN:
                if header == 'X-Static-Large-Object' and not raw:
                    continue
                kept[header] = value
            elif header == 'X-Object-Manifest' and raw:
                kept[header] = value
        for header, value in kept.items():
            if put.headers.get(header) in (None, ''):
                if header == 'X-Delete-At' and 'X-Delete-After' in put.headers:
                    continue
                if header in put.headers and put.headers.get(header) == '' and header != 'Content-Type':
                    continue
                put.headers[header] = value
        if raw and 'X-Static-Large-Object' in kept:
            put.set_query({'multipart-manifest': 'put', 'kodiak-raw': '1'})
            put.headers.pop('X-Object-Sysmeta-Slo-Etag')
            put.headers.pop('X-Object-Sysmeta-Slo-Size')


