"""Links: an object of no bytes that stands for another (``X-Symlink-Target``), of any content or of one etag."""
import orjson

from ..proxy.http import Fault, Filter, HeaderDict, Response, error, from_wsgi, quote, unquote

TARGET, ACCOUNT, ETAG, SIZE = 'X-Symlink-Target', 'X-Symlink-Target-Account', 'X-Symlink-Target-Etag', 'X-Symlink-Target-Bytes'
SYS = {TARGET: 'X-Object-Sysmeta-Symlink-Target', ACCOUNT: 'X-Object-Sysmeta-Symlink-Target-Account',
       ETAG: 'X-Object-Sysmeta-Symlink-Target-Etag', SIZE: 'X-Object-Sysmeta-Symlink-Target-Bytes'}
EMPTY = 'd41d8cd98f00b204e9800998ecf8427e'
MAX_LINKS = 2


class Symlink(Filter):
    """See the module."""

    def handle(self, request):
        """Make links, follow them."""
        method = request.method
        if method == 'PUT' and (request.headers.get(TARGET) is not None or SYS[TARGET] in request.headers):
            split = request.split()
            if split is not None and split[3] is not None:
                self._of_copy(request)
                return self._put(request, split)
        elif method in ('GET', 'HEAD'):
            split = request.split()
            if split is not None and split[3] is not None:
                if request.query.get('symlink') == 'get':
                    return self._plain(self.next(request))
                return self._follow(request, split)
            if split is not None and split[2] is not None and method == 'GET':
                return self._listing(request, split)
        elif method == 'POST':
            split = request.split()
            if split is not None and split[3] is not None:
                return self._post(request, split)
        return self.next(request)

    @staticmethod
    def _of_copy(request):
        # A copy of a link itself (symlink=get) brings its system metadata.
        headers = request.headers
        for public, kept in SYS.items():
            value = headers.pop(kept)
            if value is not None and public not in headers and public != SIZE:
                headers[public] = value

    def _put(self, request, split):
        headers = request.headers
        if (request.content_length or 0) > 0 or (request.chunked and request.input.read(1)):
            raise Fault(400, 'Symlink requests require a zero byte body')
        target = unquote(from_wsgi(headers.pop(TARGET))).lstrip('/')
        container, slash, name = target.partition('/')
        if not slash or not container or not name:
            raise Fault(412, f'{TARGET} header must be of the form <container name>/<object name>')
        account = headers.pop(ACCOUNT)
        if account is not None:
            account = unquote(account)
            if not account or '/' in account:
                raise Fault(412, f'{ACCOUNT} header must be of the form <account name>')
        if (account or split[1], container, name) == tuple(split[1:]):
            raise Fault(400, 'Symlink cannot target itself')
        headers[SYS[TARGET]] = quote(target)
        if account:
            headers[SYS[ACCOUNT]] = quote(account)
        etag = headers.pop(ETAG)
        notes = f'; symlink_target={quote(target)}' + (f'; symlink_target_account={quote(account)}' if account else '')
        if etag is not None:
            etag = etag.strip('"')
            found = self.next(request.sub('HEAD', f'/v1/{account or split[1]}/{container}/{name}', source='SYM')).drain()
            if request.environ.get('kodiak.source') == 'VW':
                # A version is kept whatever has become of what it leads to.
                found = Response(200, b'', {'Etag': etag, 'Content-Length': headers.get(SIZE) or '0'})
            if found.status == 404:
                return error(409, 'X-Symlink-Target does not exist')
            if not found.ok:
                return found
            is_link = SYS[TARGET] in found.headers
            if etag not in (found.headers.get('Etag', '').strip('"'), found.headers.get(SYS[ETAG]) if is_link else None):
                return error(409, self._differs(found, etag), {'Content-Location': quote(f'/v1/{account or split[1]}/{target}')})
            if not headers.get('Content-Type') and not is_link:
                headers['Content-Type'] = found.headers.get('Content-Type', '')
            size = found.headers.get('X-Object-Sysmeta-Slo-Size', found.headers.get('Content-Length', '0'))
            headers.update({SYS[ETAG]: etag, SYS[SIZE]: size})
            notes += f'; symlink_target_etag={etag}; symlink_target_bytes={size}'
            if 'X-Object-Sysmeta-Slo-Etag' in found.headers:
                notes += f'; slo_etag={found.headers["X-Object-Sysmeta-Slo-Etag"]}'
            if 'X-Object-Sysmeta-S3Api-Etag' in found.headers:
                notes += f'; s3_etag={found.headers["X-Object-Sysmeta-S3Api-Etag"]}'
        if not headers.get('Content-Type'):
            headers['Content-Type'] = 'application/symlink'
        headers['X-Backend-Container-Update-Override-Etag'] = EMPTY + notes
        headers['Etag'] = EMPTY
        headers['Content-Length'] = '0'
        headers.pop('Transfer-Encoding')
        return self.next(request)

    @staticmethod
    def _differs(found, etag):
        return f"Object Etag '{found.headers.get('Etag', '').strip(chr(34))}' does not match {ETAG} header '{etag}'"

    @staticmethod
    def _plain(answer):
        for public, kept in SYS.items():
            if kept in answer.headers:
                answer.headers[public] = answer.headers[kept]
        return answer

    def _follow(self, request, split, depth=0):
        answer = self.next(request)
        if SYS[TARGET] not in answer.headers or answer.status not in (200, 204, 206, 304, 412, 416):
            return answer
        answer.close()
        if depth >= MAX_LINKS:
            return error(409, f'Too many levels of symbolic links, maximum allowed is {MAX_LINKS}',
                         {'Content-Location': quote(request.path)})
        headers = answer.headers
        account = unquote(headers.get(SYS[ACCOUNT], quote(split[1])))
        path = f'/{split[0]}/{account}/{unquote(headers[SYS[TARGET]])}'
        query = {name: value for name, value in request.query.items() if name != 'version-id'}
        further = request.sub(request.method, path, query=query or None, source='SYM')
        for name, value in request.headers.items():
            if name.startswith('If-') or name in ('Range', 'X-Newest', 'Referer', 'Origin', 'X-Backend-Etag-Is-At'):
                further.headers[name] = value
        found = self._follow(further, ('v1', account, *unquote(headers[SYS[TARGET]]).split('/', 1)), depth + 1)
        pinned = headers.get(SYS[ETAG])
        if pinned and found.status in (200, 206, 304, 412, 416) and (
                pinned != found.headers.get('Etag', '').strip('"')) and not self._link(
                    request, path, pinned):
            found.close()
            return error(409, self._differs(found, pinned), {'Content-Location': quote(path)})
        found.headers.setdefault('Content-Location', quote(path))
        return found

    def _link(self, request, path, pinned):
        # The etag may be that of another link, which is followed in its turn.
        found = self.next(request.sub('HEAD', path, source='SYM')).drain()
        return found.ok and SYS[TARGET] in found.headers and pinned in (
            found.headers.get('Etag', '').strip('"'), found.headers.get(SYS[ETAG]))

    def _post(self, request, split):
        headers = request.headers
        if headers.get(TARGET) is not None:
            return error(400, 'A PUT request is required to set a symlink target')
        answer = self.next(request)
        if answer.status // 100 != 2:
            return answer
        found = self.next(request.sub('HEAD', request.path, source='SYM')).drain()
        if SYS[TARGET] in found.headers:
            account = unquote(found.headers.get(SYS[ACCOUNT], quote(split[1])))
            return Response(307, b'The requested POST was applied to a symlink. POST directly to the target to apply requested '
                                 b'metadata.', HeaderDict({'Location': quote(
                                     f'/v1/{account}/{unquote(found.headers[SYS[TARGET]])}'), **(
                                         {ETAG: found.headers[SYS[ETAG]]} if SYS[ETAG] in found.headers else {})}),
                            content_type='text/plain')
        return answer

    def _listing(self, request, split):
        answer = self.next(request)
        if not answer.ok or 'json' not in answer.headers.get('Content-Type', ''):
            return answer
        body = answer.read()
        if b'symlink_target=' not in body:
            return answer
        rows = orjson.loads(body)
        for row in rows:
            if 'symlink_target=' not in row.get('hash', ''):
                continue
            etag, *notes = row['hash'].split(';')
            row['hash'] = etag
            facts = dict(note.strip().split('=', 1) for note in notes if '=' in note)
            account = unquote(facts.pop('symlink_target_account', quote(split[1])))
            row['symlink_path'] = quote(f'/v1/{account}/{unquote(facts.pop("symlink_target"))}')
            if 'symlink_target_etag' in facts:
                row['symlink_etag'] = facts.pop('symlink_target_etag')
                row['symlink_bytes'] = int(facts.pop('symlink_target_bytes'))
            if facts:
                row['hash'] += ''.join(f'; {k}={v}' for k, v in facts.items())
        answer.set_body(orjson.dumps(rows))
        return answer
