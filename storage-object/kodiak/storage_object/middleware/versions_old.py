"""Versions by a second container: ``X-Versions-Location`` (DELETE brings the last one back) and ``X-History-Location``."""
import orjson

from ..proxy.dbs import timestamp
from ..proxy.http import Fault, Filter, Response, error, from_wsgi, unquote
from .copying import Reader
from .customer_keys import AS_STORED

CLIENT = {'X-Versions-Location': 'stack', 'X-History-Location': 'history'}
SYS_LOCATION, SYS_MODE = 'X-Container-Sysmeta-Versions-Location', 'X-Container-Sysmeta-Versions-Mode'
MARKER = 'application/x-deleted;swift_versions_deleted=1'


def prefix_of(name):
    """What the names of an object's versions begin with."""
    return f'{len(name.encode()):03x}{name}/'


class VersionedWrites(Filter):
    """See the module."""

    def handle(self, request):
        """Keep what is overwritten or deleted."""
        split = request.split()
        if split is None or split[2] is None:
            return self.next(request)
        if split[3] is None:
            return self._container(request)
        if request.method not in ('PUT', 'DELETE') or request.environ.get('kodiak.source') == 'VW':
            return self.next(request)
        proxy = request.environ.get('kodiak.proxy')
        if proxy is None:
            return self.next(request)
        sysmeta = proxy.infos.get(request, split[1], split[2])['sysmeta']
        location = sysmeta.get('versions-location')
        if not location:
            return self.next(request)
        location = unquote(from_wsgi(location)).strip('/').split('/')[0]
        if request.method == 'PUT':
            return self._put(request, split, location)
        return self._delete(request, split, location, sysmeta.get('versions-mode', 'stack'))

    def _container(self, request):
        headers = request.headers
        if request.method in ('PUT', 'POST'):
            given = [name for name in CLIENT if headers.get(name)]
            if len(given) > 1:
                raise Fault(400, 'Only one of X-Versions-Location or X-History-Location may be specified')
            for name, mode in CLIENT.items():
                value, remove = headers.pop(name), headers.pop('X-Remove-' + name[2:])
                if value:
                    if '/' in unquote(value).strip('/') or not unquote(value).strip('/'):
                        raise Fault(412, f'{name} must be a container')
                    headers[SYS_LOCATION], headers[SYS_MODE] = value, mode
                elif (value is not None or remove) and not given:
                    headers[SYS_LOCATION] = headers[SYS_MODE] = ''
        answer = self.next(request)
        if request.method in ('GET', 'HEAD') and answer.headers.get(SYS_LOCATION):
            history = answer.headers.get(SYS_MODE) == 'history'
            answer.headers['X-History-Location' if history else 'X-Versions-Location'] = answer.headers[SYS_LOCATION]
        return answer

    def _may(self, request, split):
        authorize = request.environ.get('kodiak.authorize')
        if authorize is not None:
            request.environ['kodiak.acl'] = request.environ['kodiak.proxy'].infos.get(request, split[1], split[2])['write_acl']
            refusal = authorize(request)
            if refusal is not None:
                return refusal
        return None

    def _keep(self, request, split, location):
        """Copy what is there to the versions' container; 412 or 503 where it cannot be kept."""
        version, account, _, name = split
        got = self.next(request.sub('GET', request.path, {AS_STORED: 'true'}, authorize=False, source='VW', query={
            'multipart-manifest': 'get', 'symlink': 'get'}))
        if got.status == 404:
            got.drain()
            return
        if not got.ok:
            got.close()
            raise Fault(503)
        stamp = got.headers.get('X-Timestamp', '0')
        put = request.sub('PUT', f'/{version}/{account}/{location}/{prefix_of(name)}{float(stamp.split("_")[0]):016.5f}',
                          authorize=False, source='VW', stream=Reader(got))
        for header, value in got.headers.items():
            if header.startswith(('X-Object-', 'Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Length',
                                  'X-Static-Large-Object', 'X-Delete-At')):
                put.headers[header] = value
        slo = got.headers.get('X-Object-Sysmeta-Slo-Etag')
        if slo:
            put.headers['X-Backend-Container-Update-Override-Size'] = got.headers.get('X-Object-Sysmeta-Slo-Size', '0')
            etag = got.headers.get('Etag', '').strip('"')
            put.headers['X-Backend-Container-Update-Override-Etag'] = f'{etag}; slo_etag={slo}'
        try:
            kept = self.next(put)
        finally:
            got.close()
        if not kept.ok:
            raise Fault(412 if kept.status // 100 == 4 else 503)

    def _put(self, request, split, location):
        refusal = self._may(request, split)
        if refusal is not None:
            return refusal
        self._keep(request, split, location)
        return self.next(request)

    def _versions(self, request, split, location):
        listing = self.next(request.sub('GET', f'/{split[0]}/{split[1]}/{location}', authorize=False, source='VW', query={
            'format': 'json', 'prefix': prefix_of(split[3]), 'reverse': 'on'}))
        if not listing.ok:
            listing.drain()
            if listing.status // 100 != 4:
                raise Fault(503)
            return []
        return [row for row in orjson.loads(listing.read()) if 'name' in row]

    def _delete(self, request, split, location, mode):
        refusal = self._may(request, split)
        if refusal is not None:
            return refusal
        version, account, _, name = split
        if mode == 'history':
            self._keep(request, split, location)
            put = request.sub('PUT', f'/{version}/{account}/{location}/{prefix_of(name)}{timestamp()}', authorize=False,
                              source='VW')
            put.headers['Content-Type'] = MARKER
            if not self.next(put).ok:
                raise Fault(503)
            return self.next(request)
        marked = False
        for row in self._versions(request, split, location):
            path = f'/{version}/{account}/{location}/{row["name"]}'
            if row['content_type'] == MARKER:
                if marked:
                    return Response(204)
                marked = True
                self.next(request.sub('DELETE', path, authorize=False, source='VW')).drain()
                there = self.next(request.sub('HEAD', request.path, authorize=False, source='VW')).drain()
                if there.ok:
                    return self.next(request)
                continue
            got = self.next(request.sub('GET', path, {AS_STORED: 'true'}, authorize=False, source='VW', query={
                'multipart-manifest': 'get', 'symlink': 'get'}))
            if got.status == 404:
                got.drain()
                continue
            if not got.ok:
                got.close()
                raise Fault(503)
            put = request.sub('PUT', request.path, authorize=False, source='VW', stream=Reader(got))
            for header, value in got.headers.items():
                if header.startswith(('X-Object-', 'Content-Type', 'Content-Encoding', 'Content-Disposition', 'Content-Length',
                                      'X-Static-Large-Object', 'X-Delete-At')):
                    put.headers[header] = value
            back = self.next(put)
            got.close()
            if not back.ok:
                return error(503)
            self.next(request.sub('DELETE', path, authorize=False, source='VW')).drain()
            return Response(204)
        return Response(204) if marked else self.next(request)
