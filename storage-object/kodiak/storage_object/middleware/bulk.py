"""Many objects in one request: ``?bulk-delete`` and ``?extract-archive=tar|tar.gz|tar.bz2``."""
import tarfile
from urllib.parse import unquote_to_bytes
from xml.sax import saxutils

import orjson

from ..proxy.constraints import LIMITS
from ..proxy.http import REASONS, Fault, Filter, Response, iter_input, quote

MAX_DELETES = 10000
MAX_FAILED = 1000
MAX_CONTAINERS = 10000
FORMATS = {'tar': 'r|', 'tar.gz': 'r|gz', 'tar.bz2': 'r|bz2'}


def _kind(request):
    accept = request.headers.get('Accept', '') or 'text/plain'
    for part in accept.split(','):
        kind = part.split(';')[0].strip()
        if kind in ('application/json', 'application/xml', 'text/xml', 'text/plain'):
            return kind
        if kind == '*/*':
            return 'text/plain'
    raise Fault(406)


def report(kind, facts, errors, root='delete'):
    """The body of an answer that tells what became of each."""
    if kind == 'application/json':
        return orjson.dumps({**facts, 'Errors': errors})
    if kind.endswith('xml'):
        rows = ''.join(f'<{k.lower().replace(" ", "_")}>{saxutils.escape(str(v))}</{k.lower().replace(" ", "_")}>\n'
                       for k, v in facts.items())
        bad = ''.join(f'<object><name>{saxutils.escape(n)}</name><status>{saxutils.escape(s)}</status></object>\n'
                      for n, s in errors)
        return f'<{root}>\n{rows}<errors>\n{bad}</errors>\n</{root}>\n'.encode()
    lines = [f'{key}: {value}' for key, value in facts.items()] + ['Errors:'] + [f'{name}, {status}' for name, status in errors]
    return ('\n'.join(lines) + '\n').encode()


def _status(code):
    return f'{code} {REASONS.get(code, "")}'.strip()


def delete_all(owner, request, account_path, paths, queries=None):
    """Delete objects and containers; an answer that says how each ended. ``queries``: of the paths that have one."""
    kind = _kind(request)
    facts = {'Response Status': '200 OK', 'Response Body': '', 'Number Deleted': 0, 'Number Not Found': 0}
    errors = []
    for path in paths:
        if len(errors) >= MAX_FAILED:
            facts['Response Status'], facts['Response Body'] = '400 Bad Request', 'Max delete failures exceeded'
            break
        try:
            path.encode()
        except UnicodeError:
            errors.append([quote(path), _status(412)])
            continue
        if len(path.encode()) > LIMITS.max_container_name_length + LIMITS.max_object_name_length + 2:
            errors.append([quote(path), '400 Bad Request'])
            continue
        answer = owner.next(request.sub('DELETE', account_path + '/' + path.strip('/') if path.count('/') < 2 else
                                        account_path + '/' + path.lstrip('/'), query=(queries or {}).get(path),
                                        source='BD')).drain()
        if answer.ok:
            facts['Number Deleted'] += 1
        elif answer.status == 404:
            facts['Number Not Found'] += 1
        elif answer.status == 401 and not errors and not facts['Number Deleted']:
            errors.append([quote(path), _status(401)])
            facts['Response Status'] = '401 Unauthorized'
            break
        else:
            errors.append([quote(path), _status(answer.status)])
            if answer.status // 100 == 5:
                facts['Response Status'] = '502 Bad Gateway'
    if errors and facts['Response Status'] == '200 OK':
        facts['Response Status'] = '400 Bad Request'
    elif not (errors or facts['Number Deleted'] or facts['Number Not Found']):
        facts['Response Status'], facts['Response Body'] = '400 Bad Request', 'Invalid bulk delete.'
    return Response(200, report(kind, facts, errors), content_type=kind)


class Bulk(Filter):
    """See the module."""

    def handle(self, request):
        """Extract, delete, or pass on."""
        text = request.environ.get('QUERY_STRING')
        if text and ('extract-archive' in text or 'bulk-delete' in text) and (split := request.split()) is not None:
            if request.method == 'PUT' and 'extract-archive' in request.query:
                return self._extract(request, split, request.query['extract-archive'])
            if request.method in ('POST', 'DELETE') and 'bulk-delete' in request.query:
                return delete_all(self, request, f'/{split[0]}/{split[1]}', self._paths(request))
        return self.next(request)

    @staticmethod
    def _paths(request):
        if request.content_length is None and not request.chunked:
            raise Fault(411)
        body = request.body(MAX_DELETES * (LIMITS.max_object_name_length * 3 + LIMITS.max_container_name_length * 3))
        paths = [unquote_to_bytes(line.strip()).decode('utf-8', 'surrogateescape') for line in body.split(b'\n')]
        paths = [path if path.startswith('/') else '/' + path for path in paths if path]
        if len(paths) > MAX_DELETES:
            raise Fault(413, f'Maximum Bulk Deletes: {MAX_DELETES} per request')
        return paths

    def _extract(self, request, split, form):
        if form not in FORMATS:
            raise Fault(400, f'Unsupported archive format {form!r}')
        if request.content_length is None and not request.chunked:
            raise Fault(411)
        kind = _kind(request)
        facts = {'Response Status': '201 Created', 'Response Body': '', 'Number Files Created': 0}
        errors, made = [], set()
        try:
            with tarfile.open(fileobj=_Input(request), mode=FORMATS[form], errorlevel=0) as archive:
                for member in archive:
                    if member.isfile() and not self._file(request, split, archive, member, facts, errors, made):
                        break
        except (tarfile.TarError, EOFError, OSError, ValueError) as problem:
            facts['Response Status'], facts['Response Body'] = '400 Bad Request', f'Invalid Tar File: {problem}'
        if facts['Response Status'].startswith('201'):
            if errors:
                facts['Response Status'] = '400 Bad Request'
            elif not facts['Number Files Created']:
                facts['Response Status'], facts['Response Body'] = '400 Bad Request', 'Invalid Tar File: No Valid Files'
        return Response(200, report(kind, facts, errors, 'delete'), content_type=kind)

    def _file(self, request, split, archive, member, facts, errors, made):
        version, account, container, prefix = split
        name = member.name.lstrip('./') if member.name.startswith('./') else member.name.lstrip('/')
        path = '/'.join(part for part in (container, prefix and prefix.strip('/'), name) if part)
        place, slash, rest = path.partition('/')
        if not slash or not rest:
            return True
        if len(place.encode('utf-8', 'replace')) > LIMITS.max_container_name_length or len(
                rest.encode('utf-8', 'replace')) > LIMITS.max_object_name_length:
            errors.append([quote(path[:LIMITS.max_object_name_length]), '400 Bad Request'])
            return True
        if member.size > LIMITS.max_file_size:
            errors.append([quote(path), '413 Request Entity Too Large'])
            return True
        if place not in made:
            if len(made) >= MAX_CONTAINERS:
                raise ValueError('more containers than one request may make')
            answer = self.next(request.sub('PUT', f'/{version}/{account}/{place}', source='EA')).drain()
            if answer.status in (401, 403) and not container:
                facts['Response Status'] = _status(answer.status)
                errors.append([quote(path), _status(answer.status)])
                return False
            made.add(place)
        put = request.sub('PUT', f'/{version}/{account}/{path}', stream=archive.extractfile(member), source='EA')
        put.headers['Content-Length'] = str(member.size)
        for key, value in (member.pax_headers or {}).items():
            plain = key.removeprefix('SCHILY.xattr.').removeprefix('LIBARCHIVE.xattr.')
            if plain == 'user.mime_type':
                put.headers['Content-Type'] = value
            elif plain.startswith('user.meta.'):
                put.headers['X-Object-Meta-' + plain[10:]] = value.encode('utf-8', 'surrogateescape').decode('latin-1')
        for header in ('X-Delete-At', 'X-Delete-After'):
            if (value := request.headers.get(header)) is not None:
                put.headers[header] = value
        answer = self.next(put).drain()
        if answer.ok:
            facts['Number Files Created'] += 1
        else:
            errors.append([quote(path), _status(answer.status)])
            if answer.status in (401, 403):
                facts['Response Status'] = _status(answer.status)
                return False
            if answer.status // 100 == 5:
                facts['Response Status'] = '502 Bad Gateway'
            if len(errors) >= MAX_FAILED:
                raise ValueError('too many files failed')
        return True


class _Input:
    def __init__(self, request):
        length = request.content_length
        self.pieces = iter_input(request.input, 1 << 62 if length is None else length)
        self.rest = b''

    def read(self, size):
        while len(self.rest) < size:
            piece = next(self.pieces, b'')
            if not piece:
                break
            self.rest += piece
        data, self.rest = self.rest[:size], self.rest[size:]
        return data
