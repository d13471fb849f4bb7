"""The object controller: writes to a majority of replicas, reads from any, going on from another where one breaks off."""
import mimetypes
import random
import time

from kodiak.common.numbers import natural

from ..spans import quoted
from . import backend, constraints, ec_get, ec_put, judged, ranges
from . import put as uploads
from .dbs import timestamp
from .http import Fault, HeaderDict, Response, error, etag_matches, from_wsgi, is_true, parse_date, quote, unquote

KEPT = ('Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Delete-At', 'X-Object-Manifest', 'X-Static-Large-Object',
        'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag', 'Etag')
POSTED = {'Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Delete-At', 'X-Object-Manifest', 'Content-Language',
          'Cache-Control', 'Expires', 'X-Robots-Tag'}
CONDITIONS = ('If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since', 'Range')
INTERNAL = {'Connection', 'Transfer-Encoding', 'Server', 'Date', 'Keep-Alive'}
EXPIRING = '.expiring_objects'
DAY = 86400


class Objects:
    """``/v1/{account}/{container}/{object}``."""

    def __init__(self, proxy):
        self.proxy, self.rings, self.client, self.infos = proxy, proxy.rings, proxy.client, proxy.infos

    def _place(self, request, account, container, name):
        info = self.infos.get(request, account, container)
        index = int(request.headers.get('X-Backend-Storage-Policy-Index') or info['policy'])
        ring = self.rings.object(index)
        return info, index, ring, ring.get_part(account, container, name)

    # reading

    def GET(self, request, account, container, name):
        """The object, or a part of it."""
        info, index, ring, part = self._place(request, account, container, name)
        if not info.ok and 'X-Backend-Storage-Policy-Index' not in request.headers:
            return error(404 if info['status'] == 404 else 503)
        asked = request.headers.get('Range', '').replace(' ', '').lower()
        if asked and ',' in asked and request.method == 'GET':
            return self._many_ranges(request, account, container, name)
        headers = {'X-Trans-Id': request.environ.get('kodiak.trans_id', '-'), 'X-Backend-Storage-Policy-Index': str(index)}
        if asked and self._range_allowed(request, account, container, name) is False:
            asked = None
        for header in CONDITIONS:
            value = request.headers.get(header)
            if value is not None and (header != 'Range' or asked):
                headers[header] = asked if header == 'Range' else value
        for header, value in request.headers.items():
            if header.startswith('X-Backend-'):
                headers[header] = value
        path = f'/{account}/{container}/{name}'
        codec = self.rings.codec(index)
        if codec is not None and request.method == 'GET':
            answer = ec_get.find(self.client, ring, part, path, headers, codec)
        else:
            answer = self._find(request, ring, part, path, headers)
        return self._respond(request, answer, ring, part, path, headers)

    HEAD = GET

    def _range_allowed(self, request, account, container, name):
        condition = request.headers.get('If-Range')
        if not condition:
            return True
        head = self.HEAD(request.sub('HEAD', request.path, authorize=False), account, container, name)
        moment = parse_date(condition)
        if moment is not None:
            modified = parse_date(head.headers.get('Last-Modified', ''))
            return modified is not None and modified <= moment
        return condition.strip('"') == head.headers.get('Etag', '').strip('"')

    def _find(self, request, ring, part, path, headers, skip=()):
        newest = is_true(request.headers.get('X-Newest', ''))
        replicas = backend.ring_replicas(ring)
        nodes = list(self.client.nodes.usable(ring, part, replicas))
        primaries = nodes[:replicas]
        random.shuffle(primaries)
        missing, found, tomb = backend.Absences(ring, part), None, None
        for node in primaries + nodes[replicas:]:
            if node['id'] in skip:
                continue
            answer = self.client.ask(node, request.method, part, path, headers)
            if answer is None:
                continue
            status = answer.status
            if status in (200, 206, 304, 412, 416) and (status != 416 or 'X-Timestamp' in answer.headers
                                                        or 'X-Backend-Timestamp' in answer.headers):
                stamp = answer.headers.get('X-Backend-Timestamp', answer.headers.get('X-Timestamp', '0'))
                if tomb is not None and tomb >= stamp:
                    answer.close()
                    continue
                if not newest:
                    return answer
                if found is None or stamp > found[0]:
                    if found is not None:
                        found[1].close()
                    found = (stamp, answer)
                else:
                    answer.close()
                if newest and node is primaries[-1]:
                    break
                continue
            answer.close()
            if status in {404, 416}:
                missing.add(node)
                stamp = answer.headers.get('X-Backend-Timestamp')
                if stamp and stamp != '0' and (tomb is None or stamp > tomb):
                    tomb = stamp
        if found and not (tomb and tomb >= found[0]):
            return found[1]
        raise Fault(404 if missing.certain or tomb else 503)

    def _respond(self, request, answer, ring, part, path, headers):
        out = HeaderDict((n, v) for n, v in answer.headers.items() if n not in INTERNAL)
        if 'Etag' in out:
            out['Etag'] = out['Etag'].strip('"')
        out.setdefault('Accept-Ranges', 'bytes')
        if answer.status in (304, 412, 416):
            answer.close()
            if answer.status == 304:
                for name in ('Content-Length', 'Content-Type'):
                    out.pop(name, None)
                return Response(304, b'', HeaderDict((n, v) for n, v in out.items() if n != 'Content-Length'))
            made = error(answer.status)
            made.headers.update((n, v) for n, v in out.items() if n not in ('Content-Length', 'Content-Type'))
            return made
        made = Response.__new__(Response)
        made.status, made.headers = answer.status, out
        if request.method == 'HEAD':
            answer.close()
            made.body = b''
            return made
        made.body = answer if isinstance(answer, ec_get.Decoded) else Download(self, request, answer, ring, part, path, headers)
        return made

    def _many_ranges(self, request, account, container, name):
        whole = request.sub('HEAD', request.path, authorize=False)
        for header, value in request.headers.items():
            if header.startswith(('If-', 'X-Backend-')) and header != 'If-Range':
                whole.headers[header] = value
        answer = self.HEAD(whole, account, container, name)
        if answer.status != 200:
            return answer
        length = int(answer.headers['Content-Length'])
        spans = ranges.parse(request.headers['Range'].replace(' ', ''), length)
        if self._range_allowed(request, account, container, name) is False:
            spans = None
        if spans is not None and not spans:
            answer.headers.update({'Content-Range': f'bytes */{length}'})
            refusal = error(416)
            refusal.headers.update((n, v) for n, v in answer.headers.items()
                                   if not n.startswith('Content-') or n == 'Content-Range')
            return refusal

        def one(start, end):
            part = request.sub('GET', request.path, {'Range': f'bytes={start}-{end - 1}', 'If-Match': answer.headers['Etag']},
                               authorize=False)
            got = self.GET(part, account, container, name)
            if got.status != 206:
                raise OSError('the object changed while it was read')
            return got.body
        if spans is None or len(spans) == 1:
            plain = request.sub('GET', request.path, {'Range': f'bytes={spans[0][0]}-{spans[0][1] - 1}'} if spans else None,
                                authorize=False)
            return self.GET(plain, account, container, name)
        body = ranges.Multipart(spans, length, answer.headers.get('Content-Type', ''), one)
        answer.status, answer.body = 206, body
        answer.headers['Content-Type'] = body.content_type
        answer.headers['Content-Length'] = str(body.length)
        return answer

    # writing

    def _update_headers(self, account, container, name, index, replicas, stamp, delete_at=None, old_delete_at=None):
        """The headers for each replica: the container servers that it tells of the change, and the queue of what expires."""
        ring, shard = self.rings.container, None
        known = self.infos.cache.get(self.infos.key(account, container))
        if known is not None and known['sharding'] == 'sharded':
            shard = self.proxy.shards.of_object(account, container, name)
        part = ring.get_part(*(shard or (account, container)))
        each = [{'X-Timestamp': stamp, 'X-Backend-Storage-Policy-Index': str(index), 'X-Container-Partition': str(part),
                 **({'X-Backend-Quoted-Container-Path': quoted(*shard)} if shard else {})} for _ in range(replicas)]

        def spread(nodes, prefix):
            for place, node in enumerate(nodes):
                headers = each[place % replicas]
                for key, value in ((prefix + 'Host', f'{node["ip"]}:{node["port"]}'), (prefix + 'Device', node['device'])):
                    headers[key] = f'{headers[key]},{value}' if key in headers else value
        spread(ring.primaries(part), 'X-Container-')
        if delete_at is not None:
            queue = f'{int(delete_at) // DAY * DAY:010d}'
            queue_part = ring.get_part(EXPIRING, queue)
            for headers in each:
                headers.update({'X-Delete-At-Container': queue, 'X-Delete-At-Partition': str(queue_part)})
            spread(ring.primaries(queue_part), 'X-Delete-At-')
        return each

    def _common(self, request):
        return {'X-Trans-Id': request.environ.get('kodiak.trans_id', '-'), 'Referer': f'{request.method} {quote(request.path)}'}

    def _writable(self, request, account, container):
        info = self.infos.get(request, account, container)
        if not info.ok:
            raise Fault(404 if info['status'] == 404 else 503)
        return info

    def PUT(self, request, account, container, name):
        """Write an object."""
        info = self._writable(request, account, container)
        length = request.content_length
        if length is None and not request.chunked:
            if request.headers.get('Transfer-Encoding'):
                raise Fault(501, 'Unsupported Transfer-Coding header value specified in Transfer-Encoding header')
            raise Fault(411, 'Missing Content-Length header.')
        if length is not None and length > constraints.LIMITS.max_file_size:
            raise Fault(413, 'Your request is too large.')
        constraints.check_metadata(request, 'object')
        constraints.delete_at(request)
        headers = request.headers
        if not headers.get('Content-Type') or is_true(headers.get('X-Detect-Content-Type', '')):
            headers['Content-Type'] = mimetypes.guess_type(name)[0] or 'application/octet-stream'
        if (match := headers.get('If-None-Match')) is not None and match.strip() != '*':
            raise Fault(400, 'If-None-Match only supports *')
        if (manifest := headers.get('X-Object-Manifest')) and not _is_prefix(manifest):
            raise Fault(400, 'X-Object-Manifest must be in the format container/prefix')
        if match is not None and self._exists(request, account, container, name):
            raise Fault(412)
        index = int(headers.get('X-Backend-Storage-Policy-Index') or info['policy'])
        ring = self.rings.object(index)
        stamp = headers.get('X-Timestamp') or timestamp()
        common = self._common(request)
        for header, value in headers.items():
            if header in KEPT or header.startswith(('X-Object-Meta-', 'X-Object-Sysmeta-', 'X-Object-Transient-Sysmeta-',
                                                    'X-Backend-')):
                common[header] = value
        if 'Etag' in common:
            common['Etag'] = common['Etag'].strip('"').lower()
        if match is not None:
            common['If-None-Match'] = '*'
        footers = request.environ.pop('kodiak.footers', None) if length != 0 else None
        if (codec := self.rings.codec(index)) is not None:
            return self._put_fragments(request, (account, container, name), index, ring, codec, stamp, common, footers)
        tally = uploads.Tally() if length is not None and length >= uploads.Tally.LEAST else None
        if footers or tally:
            common['X-Backend-Footer-Size'] = str(uploads.FOOTER)
        if tally:
            common['X-Backend-Footer-Digest'] = 'crc32'
        each = self._update_headers(account, container, name, index, backend.ring_replicas(ring), stamp, headers.get('X-Delete-At'))
        judgement = self._judgement(ring, (account, container, name), each, common)
        for wanted in each:
            wanted.update((k, v) for k, v in common.items() if k not in ('X-Timestamp', 'X-Backend-Storage-Policy-Index'))
        upload = uploads.Upload(self.client, ring, ring.get_part(account, container, name), f'/{account}/{container}/{name}', each,
                                length if length is None or not (footers or tally) else length + uploads.FOOTER,
                                judgement and judgement.nodes)
        source = uploads.pieces(request, constraints.LIMITS.max_file_size, footers, tally)

        def send():
            try:
                return upload.run(source)
            except uploads.Refused:
                return upload.answers
        try:
            answers = judgement.run(send) if judgement else send()
        finally:
            source.close()
            if tally:
                tally.end()
        return self._written(answers, len(each), stamp)

    def _put_fragments(self, request, names, index, ring, codec, stamp, common, footers):
        """As PUT, of a policy with an erasure code."""
        common.update({'X-Timestamp': stamp, 'X-Backend-Storage-Policy-Index': str(index)})
        wanted = common.pop('Etag', None)
        delete_at = request.headers.get('X-Delete-At')
        judgement = self._judgement(ring, names, self._update_headers(*names, index, codec.replicas, stamp, delete_at), common)
        upload = ec_put.Upload(self.client, ring, ring.get_part(*names), '/' + '/'.join(names), common, codec,
                               request.content_length, judgement is not None)
        source = uploads.pieces(request, constraints.LIMITS.max_file_size)

        def send():
            try:
                upload.run(source, footers or dict, wanted)
            except uploads.Refused:
                pass
            return [answer for answer, _, _ in upload.answers]
        try:
            if judgement:
                return self._written(judgement.run(send, codec.quorum, codec.durable), codec.replicas, stamp, codec.durable)
            answers, stored = send(), len(upload.stored())
        finally:
            source.close()
        if stored < codec.quorum:
            return self._written(answers, codec.replicas, stamp, codec.quorum)
        each = self._update_headers(*names, index, stored, stamp, delete_at)
        return self._written(upload.commit(each), codec.replicas, stamp, codec.durable)

    def _judgement(self, ring, names, each, headers):
        """What judges a write; None where it hangs on nothing."""
        wanted = judged.conditions(headers)
        return judged.Judgement(self.client, ring, ring.get_part(*names), '/' + '/'.join(names), each, wanted) if wanted else None

    def _written(self, answers, replicas, stamp, quorum=None):
        quorum = quorum or replicas // 2 + 1
        good = [a for a in answers if a.status // 100 == 2]
        if len(good) >= quorum:
            etags = {a.headers.get('Etag', '').strip('"') for a in good}
            if len(etags) > 1:
                return error(500)
            status = max({a.status for a in good}, key=[a.status for a in good].count)
            headers = {'Content-Type': 'text/html; charset=UTF-8'}
            if etags:
                headers['Etag'] = etags.pop()
            headers['Last-Modified'] = time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(-(-float(stamp.split('_')[0]) // 1)))
            return Response(status, b'', headers)
        for status in (412, 422, 409, 404):
            if sum(a.status == status for a in answers) >= replicas // 2 + 1:
                return Response(202, b'') if status == 409 else error(status)
        bad = [a for a in answers if a.status // 100 == 4]
        if len(bad) >= replicas // 2 + 1:
            return error(bad[0].status)
        return error(503)

    def _exists(self, request, account, container, name):
        try:
            answer = self.HEAD(request.sub('HEAD', request.path, {'X-Newest': 'true'}, authorize=False), account, container, name)
        except Fault:
            return False
        return answer.ok

    def POST(self, request, account, container, name):
        """Replace the metadata of an object."""
        info = self._writable(request, account, container)
        constraints.check_metadata(request, 'object')
        constraints.delete_at(request)
        headers = request.headers
        common = self._common(request)
        for header, value in headers.items():
            if (header in POSTED or header.startswith(('X-Object-Meta-', 'X-Object-Transient-Sysmeta-', 'X-Backend-'))) and (
                    header != 'Content-Type' or value):
                common[header] = value
        index = int(headers.get('X-Backend-Storage-Policy-Index') or info['policy'])
        return self._all('POST', account, container, name, index, common, headers.get('X-Delete-At'))

    def DELETE(self, request, account, container, name):
        """Delete an object."""
        info = self._writable(request, account, container)
        index = int(request.headers.get('X-Backend-Storage-Policy-Index') or info['policy'])
        common = self._common(request)
        if natural(request.headers.get('X-If-Delete-At', '0')) is None:
            raise Fault(400, 'Bad X-If-Delete-At header value')
        for header, value in request.headers.items():
            if header.startswith('X-Backend-') or header == 'X-If-Delete-At':
                common[header] = value
        return self._all('DELETE', account, container, name, index, common, stamp=request.headers.get('X-Timestamp'))

    def _all(self, method, account, container, name, index, common, delete_at=None, stamp=None):
        ring = self.rings.object(index)
        replicas = backend.ring_replicas(ring)
        each = self._update_headers(account, container, name, index, replicas, stamp or timestamp(), delete_at)
        for wanted in each:
            for key, value in common.items():
                wanted.setdefault(key, value)
            wanted['Content-Length'] = '0'
        part = ring.get_part(account, container, name)
        codec = self.rings.codec(index)
        quorum = replicas // 2 + 1 if codec is None else codec.majority
        judgement = self._judgement(ring, (account, container, name), each, common) if method == 'DELETE' else None
        if judgement:
            answers = judgement.delete(quorum)
        else:
            answers = self.client.ask_many(ring, part, method, f'/{account}/{container}/{name}', each)
        good = [a.status for a in answers if a.status // 100 == 2]
        missing = [a for a in answers if a.status == 404]
        if len(good) >= quorum or (good and len(good) + len(missing) >= quorum):
            # A replica that was away when the object came has it from its peers soon, and the change with it.
            return Response(204 if method == 'DELETE' else 202, b'' if method == 'DELETE' else _ACCEPTED,
                            content_type='text/html; charset=UTF-8')
        if len(missing) >= quorum:
            return error(404)
        if sum(a.status == 409 for a in answers) >= quorum:
            return error(409) if method == 'DELETE' else Response(202, _ACCEPTED)
        if sum(a.status == 412 for a in answers) >= quorum:
            return error(412)
        return error(503)


_ACCEPTED = b'<html><h1>Accepted</h1><p>The request is accepted for processing.</p></html>'


def _is_prefix(value):
    container, slash, prefix = unquote(from_wsgi(value)).partition('/')
    return bool(container and slash and prefix) and not set('?&') & set(value) and not prefix.startswith('/')


class Download:
    """The body of an object; where its server breaks off, the rest comes from another."""

    def __init__(self, objects, request, answer, ring, part, path, headers):
        self.objects, self.request, self.answer = objects, request, answer
        self.ring, self.part, self.path, self.headers = ring, part, path, headers
        self.sent = 0
        self.tried = {answer.node['id']}

    def __iter__(self):
        wanted = int(self.answer.headers['Content-Length'])
        first = 0
        if self.answer.status == 206:
            first = int(self.answer.headers['Content-Range'].split(' ', 1)[1].split('-', 1)[0])
        etag = self.answer.headers.get('Etag', '')
        while True:
            try:
                for data in self.answer.body():
                    self.sent += len(data)
                    yield data
                if self.sent >= wanted:
                    return
                raise EOFError
            except backend.ERRORS as error:
                self.objects.client.node_failed(self.answer.node, error)
            self._go_on(first + self.sent, first + wanted - 1, etag)

    def _go_on(self, start, end, etag):
        headers = {n: v for n, v in self.headers.items() if n not in CONDITIONS}
        headers['Range'] = f'bytes={start}-{end}'
        try:
            while True:
                self.answer = self.objects._find(self.request, self.ring, self.part, self.path, headers, self.tried)
                self.tried.add(self.answer.node['id'])
                if self.answer.status == 206 and etag_matches(self.answer.headers.get('Etag', ''), etag):
                    return
                self.answer.close()
        except Fault as fault:
            raise OSError('no replica has the rest of the object') from fault

    def close(self):
        """Let go of the server's answer."""
        self.answer.close()
