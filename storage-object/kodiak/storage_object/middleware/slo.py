"""Static large objects: a manifest that names the segments, checked when it is put."""
import base64
import binascii
import hashlib
import logging
import time

import orjson

from kodiak.common.numbers import natural

from ..proxy import ranges
from ..proxy.http import REASONS, TEXTS, Fault, Filter, HeaderDict, Response, error, is_true, quote, serve
from .bulk import delete_all, report
from .copying import guess
from .dlo import Joined

LOG = logging.getLogger(__name__)
MAX_DEPTH = 10
ETAG, SIZE = 'X-Object-Sysmeta-Slo-Etag', 'X-Object-Sysmeta-Slo-Size'
S3_ETAG = 'X-Object-Sysmeta-S3Api-Etag'
TYPE = 'application/json; charset=utf-8'
LIMITS = {'max_manifest_segments': 1000, 'max_manifest_size': 8388608, 'min_segment_size': 1, 'yield_frequency': 10,
          'allow_async_delete': False}
KEYS = {'path', 'etag', 'size_bytes', 'range', 'data'}


class Slo(Filter):
    """See the module."""

    def handle(self, request):
        """Manifests in, joined objects out."""
        method = request.method
        query = request.environ.get('QUERY_STRING')
        if method == 'PUT' and query and request.query.get('multipart-manifest') == 'put':
            split = request.split()
            if split is None or split[3] is None:
                return self.next(request)
            return self._put(request, split)
        if method == 'DELETE' and query and request.query.get('multipart-manifest') == 'delete':
            split = request.split()
            return self._delete(request, split) if split is not None and split[3] is not None else self.next(request)
        if method in ('GET', 'HEAD'):
            return self._get(request)
        if method in ('PUT', 'POST') and not request.environ.get('kodiak.sub'):
            request.headers.pop('X-Static-Large-Object')
        return self.next(request)

    # writing

    def _put(self, request, split):
        if request.headers.get('X-Copy-From') is not None:
            raise Fault(405, 'Multipart Manifest PUTs cannot be COPY requests')
        if request.content_length is None and not request.chunked:
            raise Fault(411)
        body = request.body(LIMITS['max_manifest_size'])
        raw = request.query.get('kodiak-raw') == '1' and request.environ.get('kodiak.sub')
        segments = self._stored(body) if raw else self._parse(body, split)
        if is_true(request.query.get('heartbeat', '')) and not request.environ.get('kodiak.sub'):
            return self._heartbeat(request, self._checked(request, split, segments))
        errors, checked = [], []
        for _ in self._each(request, split, segments, errors, checked):
            pass
        return self._refuse(request, errors) if errors else self._store(request, checked)

    def _each(self, request, split, segments, errors, checked):
        newest = {}
        for position, item in enumerate(segments):
            if 'data' in item:
                checked.append(item)
                continue
            path = f'/{split[0]}/{split[1]}{item["path"]}'
            if path not in newest:
                newest[path] = self.handle(request.sub('HEAD', path, source='SLO')).drain()
            self._check(item, newest[path], errors, checked, position == len(segments) - 1)
            yield

    def _checked(self, request, split, segments):
        """Check the segments, one at a step, and store; the last thing that comes is what a client is told at the end."""
        errors, checked = [], []
        yield from self._each(request, split, segments, errors, checked)
        facts = {'Response Status': '400 Bad Request', 'Response Body': f'Bad Request\n{TEXTS[400]}'}
        if not errors:
            try:
                answer = self._store(request, checked)
            except Fault as fault:
                answer = fault.response
            facts = {'Response Status': f'{answer.status} {REASONS.get(answer.status, "")}', 'Response Body': ''}
            if answer.ok:
                facts.update({'Etag': answer.headers.get('Etag', ''), 'Last Modified': answer.headers.get('Last-Modified', '')})
            else:
                facts['Response Body'] = f'{REASONS.get(answer.status, "")}\n{TEXTS.get(answer.status, "")}'
        yield facts, errors

    @staticmethod
    def _stored(body):
        items = []
        for row in orjson.loads(body):
            if 'data' in row:
                items.append({'data': row['data']})
                continue
            items.append({'path': row['name'], 'size_bytes': row['bytes'], 'etag': row['hash'], **(
                {'range': row['range']} if 'range' in row else {})})
        return items

    @staticmethod
    def _parse(body, split):
        try:
            items = orjson.loads(body)
        except ValueError:
            raise Fault(400, 'Manifest must be valid JSON.\n') from None
        if not isinstance(items, list):
            raise Fault(400, 'Manifest must be a list.\n')
        if not items:
            raise Fault(400, 'Manifest must not be empty.\n')
        problems = []
        for index, item in enumerate(items):
            label = f'Index {index}: '
            if not isinstance(item, dict):
                problems.append(label + 'not a JSON object')
                continue
            if unknown := set(item) - KEYS:
                problems.append(label + f'extraneous keys {", ".join(repr(key) for key in sorted(unknown))}')
                continue
            if 'data' in item:
                if set(item) != {'data'}:
                    problems.append(label + 'data must be alone')
                    continue
                try:
                    data = base64.b64decode(item['data'], validate=True)
                    if not data:
                        raise ValueError
                    item['data'] = base64.b64encode(data).decode()
                except (TypeError, ValueError, binascii.Error):
                    problems.append(label + 'data must be valid base64')
                continue
            if 'path' not in item:
                problems.append(label + 'expected keys to include "path"')
                continue
            path = item['path']
            if not isinstance(path, str) or '/' not in path.strip('/'):
                problems.append(label + 'path does not refer to an object. Path must be of the form /container/object.')
                continue
            item['given'], item['path'] = path, path if path.startswith('/') else '/' + path
            if item['path'].lstrip('/') == f'{split[2]}/{split[3]}':
                problems.append(label + 'manifest must not include itself as a segment')
            size = item.get('size_bytes')
            if size is not None:
                item['size_bytes'] = size = natural(str(size))
                if size is None:
                    problems.append(label + 'invalid size_bytes')
                    continue
                if size < LIMITS['min_segment_size'] and index < len(items) - 1:
                    problems.append(label + f'too small; each segment must be at least {LIMITS["min_segment_size"]} byte.')
            if item.get('range') and (not isinstance(item['range'], str) or ',' in item['range'] or ranges.parse(
                    'bytes=' + item['range'], 1 << 62) in (None, [])):
                problems.append(label + 'invalid range')
        if problems:
            raise Fault(400, ''.join(problem + '\n' for problem in problems))
        if all('data' in item for item in items):
            raise Fault(400, 'Inline data segments require at least one object-backed segment.')
        if sum('data' not in item for item in items) > LIMITS['max_manifest_segments']:
            raise Fault(413, f'Number of object-backed segments must be <= {LIMITS["max_manifest_segments"]}')
        return items

    @staticmethod
    def _check(item, found, errors, checked, last):
        path = item.get('given', item['path'])
        if not found.ok:
            errors.append([quote(path), f'{found.status} {REASONS.get(found.status, "")}'])
            return
        length, etag = int(found.headers.get('Content-Length', 0)), found.headers.get('Etag', '').strip('"')
        if item.get('size_bytes') is not None and item['size_bytes'] != length:
            errors.append([quote(path), 'Size Mismatch'])
            return
        if item.get('etag') and item['etag'].strip('"') != etag:
            errors.append([quote(path), 'Etag Mismatch'])
            return
        if length < LIMITS['min_segment_size'] and not last:
            errors.append([quote(path), f'Too Small; each segment must be at least {LIMITS["min_segment_size"]} byte.'])
            return
        row = {'name': item['path'], 'bytes': length, 'hash': etag, 'content_type': found.headers.get('Content-Type', ''),
               'last_modified': _iso(found.headers.get('X-Timestamp', '0'))}
        if item.get('range'):
            spans = ranges.parse('bytes=' + item['range'], length)
            if not spans:
                errors.append([quote(path), 'Unsatisfiable Range'])
                return
            row['range'] = f'{spans[0][0]}-{spans[0][1] - 1}'
            if spans[0] == (0, length):
                del row['range']
        if is_true(found.headers.get('X-Static-Large-Object', '')):
            row['sub_slo'] = True
        checked.append(row)

    @staticmethod
    def _refuse(request, errors):
        accept = request.headers.get('Accept', '')
        if 'json' in accept:
            return Response(400, orjson.dumps({'Errors': errors}), content_type='application/json')
        return error(400, 'Errors:\n' + ''.join(f'{name}, {problem}\n' for name, problem in errors))

    def _store(self, request, rows):
        sizes, digest = 0, hashlib.md5(usedforsecurity=False)
        for row in rows:
            if 'data' in row:
                data = base64.b64decode(row['data'])
                sizes += len(data)
                digest.update(hashlib.md5(data, usedforsecurity=False).hexdigest().encode())
            elif 'range' in row:
                first, last = row['range'].split('-')
                sizes += int(last) - int(first) + 1
                digest.update(f'{row["hash"]}:{row["range"]};'.encode())
            else:
                sizes += row['bytes']
                digest.update(row['hash'].encode())
        etag = digest.hexdigest()
        given = request.headers.pop('Etag')
        if given is not None and given.strip('"') != etag:
            return error(422)
        body = orjson.dumps(rows)
        put = request.sub('PUT', request.path, body=body, source='SLO')
        put.headers.update((n, v) for n, v in request.headers.items() if n not in ('Content-Length', 'Transfer-Encoding'))
        kept = {k: v for k, v in request.query.items() if k not in ('multipart-manifest', 'kodiak-raw')}
        put.set_query(kept)
        manifest_etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        put.headers.update({'X-Static-Large-Object': 'True', ETAG: etag, SIZE: str(sizes), 'Etag': manifest_etag,
                            'X-Backend-Container-Update-Override-Size': str(sizes),
                            'X-Backend-Container-Update-Override-Etag': f'{manifest_etag}; slo_etag={etag}' + (
                                f'; s3_etag={request.headers.get(S3_ETAG)}' if request.headers.get(S3_ETAG) else '')})
        if not put.headers.get('Content-Type'):
            put.headers['Content-Type'] = guess(request.path)
        answer = self.next(put)
        if answer.ok:
            answer.headers['Etag'] = f'"{etag}"'
        return answer

    @staticmethod
    def _heartbeat(request, steps):
        """A 202 whose body, after its blanks, tells how it ended: for clients that don't wait in silence."""
        kind = 'application/json' if 'json' in request.headers.get('Accept', '') else 'text/plain'

        def body():
            yield b' '
            last = time.monotonic()
            for step in steps:
                if step is not None:
                    yield b'\n\r\n' if kind == 'text/plain' else b'\r\n\r\n'
                    yield report(kind, *step)
                elif time.monotonic() - last > LIMITS['yield_frequency']:
                    last = time.monotonic()
                    yield b' '
        made = Response(202, b'', content_type=kind)
        made.body = body()
        del made.headers['Content-Length']
        return made

    # reading

    def _get(self, request):
        split = request.split()
        if split is None:
            return self.next(request)
        if split[3] is None:
            return self._listing(request, split)
        raw = request.query.get('multipart-manifest') == 'get'
        part = request.query.get('part-number') if not raw else None
        if part is not None:
            return self._part(request, split, part)
        for header in ('If-Match', 'If-None-Match'):
            if request.headers.get(header) is not None:
                known = request.headers.get('X-Backend-Etag-Is-At')
                if not raw:
                    request.headers['X-Backend-Etag-Is-At'] = f'{known},{ETAG}' if known else ETAG
                break
        answer = self.next(request)
        if not is_true(answer.headers.get('X-Static-Large-Object', '')):
            return answer
        if not raw:
            # What its segments' requests inherit.
            request.environ['kodiak.slo_depth'] = depth = request.environ.get('kodiak.slo_depth', -1) + 1
            if depth >= MAX_DEPTH:
                answer.close()
                raise Fault(409)
        if raw:
            if answer.ok and request.environ.get('kodiak.source') != 'COPY':
                if request.query.get('format') != 'raw':
                    answer.headers['Content-Type'] = TYPE
                elif request.method == 'GET' and answer.status == 200:
                    rows = [{'path': r['name'], 'size_bytes': r['bytes'], 'etag': r['hash'],
                             **({'range': r['range']} if 'range' in r else {})} if 'data' not in r else {'data': r['data']}
                            for r in orjson.loads(answer.read())]
                    answer.set_body(orjson.dumps(rows))
                    answer.headers['Etag'] = hashlib.md5(answer.body, usedforsecurity=False).hexdigest()
            return answer
        if answer.status in (304, 412):
            if ETAG in answer.headers:
                answer.headers['Etag'] = f'"{answer.headers[ETAG]}"'
            return answer
        if not answer.ok and answer.status != 416:
            return answer
        whole = answer
        if request.method == 'HEAD' and ETAG in answer.headers:
            answer.close()
        elif answer.status != 200 or request.method == 'HEAD':
            answer.close()
            whole = self._manifest(request)
            if not whole.ok:
                return whole
        return self._join(request, split, whole)

    def _part(self, request, split, text):
        number = natural(text)
        if not number:
            raise Fault(400, 'Part number must be an integer greater than 0')
        if request.headers.get('Range') is not None:
            raise Fault(400, 'Range requests are not supported with part number queries')
        query = {k: v for k, v in request.query.items() if k != 'part-number'}
        conditions = [(n, v) for n, v in request.headers.items() if n.startswith('If-')]
        found = self.next(request.sub('GET', request.path, query=query, source='SLO'))
        if not found.ok or not is_true(found.headers.get('X-Static-Large-Object', '')):
            found.close()
            return self.next(request)
        rows = orjson.loads(found.read(LIMITS['max_manifest_size'] * 2))
        segments = self._flatten(split, rows)
        if number > len(segments):
            total = sum(size for _, size, _, _ in segments)
            answer = error(416, 'The requested part number is not satisfiable' if request.method == 'GET' else '')
            answer.headers.update({n: v for n, v in found.headers.items() if n.startswith('X-') or n == 'Last-Modified'})
            answer.headers.update({'Content-Range': f'bytes */{total}', 'X-Parts-Count': len(segments),
                                   'Etag': f'"{found.headers.get(ETAG)}"',
                                   'X-Manifest-Etag': found.headers.get('Etag', '').strip('"')})
            return answer
        start = sum(size for _, size, _, _ in segments[:number - 1])
        read = request.sub(request.method, request.path, query=query or None, source=request.environ.get('kodiak.source'))
        read.headers.update(conditions)
        read.headers['Range'] = f'bytes={start}-{start + segments[number - 1][1] - 1}'
        answer = self._join(read, split, Response(200, orjson.dumps(rows), found.headers))
        if answer.status == 206:
            answer.headers['X-Parts-Count'] = str(len(segments))
        return answer

    def _manifest(self, request):
        read = request.sub('GET', request.path, query=dict(request.query), source='SLO')
        return self.next(read)

    def _join(self, request, split, answer):
        headers = answer.headers
        etag = headers.get(ETAG)
        places = (request.headers.get('X-Backend-Etag-Is-At') or '').split(',')
        shown = next((headers[place] for place in places if place in headers), None)
        made = Response(200, b'', HeaderDict(headers))
        made.headers['X-Manifest-Etag'] = headers.get('Etag', '').strip('"')
        if request.method == 'HEAD' and etag is not None:
            made.headers['Etag'] = f'"{etag}"'
            return serve(request, made, int(headers[SIZE]), None, shown)
        rows = orjson.loads(answer.read(LIMITS['max_manifest_size'] * 2))
        segments = self._flatten(split, rows)
        length = sum(size for _, size, _, _ in segments)
        if etag is None:
            etag = hashlib.md5(''.join(f'{r["hash"]}:{r["range"]};' if 'range' in r else r['hash'] for r in rows).encode(),
                               usedforsecurity=False).hexdigest()
        made.headers['Etag'] = f'"{etag}"'
        return serve(request, made, length, lambda start, end: Checked(self, request, split, segments, start, end), shown)

    def _flatten(self, split, rows):
        segments = []
        for row in rows:
            if 'data' in row:
                data = base64.b64decode(row['data'])
                segments.append((None, len(data), None, data))
                continue
            path = f'/{split[0]}/{split[1]}{row["name"]}'
            span = None
            size = int(row['bytes'])
            if 'range' in row:
                first, last = row['range'].split('-')
                span, size = (int(first), int(last) + 1), int(last) - int(first) + 1
            segments.append((path, size, row['hash'], span))
        return segments

    def _listing(self, request, split):
        answer = self.next(request)
        if split[2] is None or request.method != 'GET' or not answer.ok or 'json' not in answer.headers.get('Content-Type', ''):
            return answer
        body = answer.read()
        if b'slo_etag=' not in body:
            return answer
        rows = orjson.loads(body)
        for row in rows:
            etag, _, rest = row.get('hash', '').partition(';')
            if 'slo_etag=' in rest:
                row['hash'] = etag
                if 's3_etag=' in rest:
                    row['hash'] += '; s3_etag=' + rest.split('s3_etag=')[1].split(';')[0]
                row['slo_etag'] = f'"{rest.split("slo_etag=")[1].split(";")[0].strip()}"'
        answer.set_body(orjson.dumps(rows))
        return answer

    # deleting

    def _delete(self, request, split):
        version, account, container, name = split
        top = f'/{container}/{name}'
        queries = {top: {'version-id': request.query['version-id']}} if 'version-id' in request.query else {}
        todo, seen = [top], []
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.append(path)
            got = self.next(request.sub('GET', f'/{version}/{account}{path}', source='SLO', query={
                'multipart-manifest': 'get', **(queries.get(path) or {})}))
            if got.ok and is_true(got.headers.get('X-Static-Large-Object', '')):
                if len(seen) > 1 + LIMITS['max_manifest_segments'] * 10:
                    got.close()
                    raise Fault(400, 'Too many buffered slo segments to delete.')
                rows = orjson.loads(got.read(LIMITS['max_manifest_size'] * 2))
                todo += [row['name'] for row in reversed(rows) if 'name' in row]
            else:
                got.close()
                if path == top:
                    if not got.ok:
                        if got.status == 404:
                            return delete_all(self, request, f'/{version}/{account}', [top], queries)
                        return error(got.status)
                    return error(400, 'Not an SLO manifest')
        # The segments first: were it the manifest, what fails would be found by nobody.
        return delete_all(self, request, f'/{version}/{account}', [*seen[1:], top], queries)


class Checked(Joined):
    """Segments, the first of which is asked for before the answer begins: a manifest whose first segment is gone is a 409."""

    def __init__(self, owner, request, split, segments, start, end):
        super().__init__(owner, request, segments, start, end, 'SLO')
        self.ready = iter(self.begin())
        try:
            self.first = next(self.ready, b'')
        except OSError as problem:
            LOG.info('%s: %s', request.path, problem)
            raise Fault(409) from problem

    def begin(self):
        """The pieces."""
        return super().__iter__()

    def __iter__(self):
        if self.first:
            yield self.first
        yield from self.ready


def _iso(stamp):
    moment = float(stamp.split('_')[0])
    return time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(moment)) + f'.{int(moment % 1 * 1e6):06d}'
