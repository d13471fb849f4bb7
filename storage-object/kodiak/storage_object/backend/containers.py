"""The container server: which objects a container has."""
import orjson

from ..proxy.http import from_wsgi, is_true, quote
from ..spans import PREFIX, Range, asked, split
from .base import JSON, Databases, answer, iso, kept, request_stamp, shown, there, to_json
from .devices import stamp_of
from .shards import Moved

ACLS = frozenset(('X-Container-Read', 'X-Container-Write', 'X-Container-Sync-Key', 'X-Container-Sync-To', 'X-Versions-Location'))
MOST = 64 << 20         # bytes of a body of ranges
LISTED = ('name', 'changed', 'size', 'etag', 'content_type')
LISTED_DATA = ('name', 'stamp', 'size', 'etag', 'content_type')


class Containers(Databases):
    """``/{device}/{partition}/{account}/{container}``, and the rows of its objects."""

    kind = 'container'

    def handle(self, request, device, part, account, container):
        """Answer a request."""
        folder, path = self.locate(device, part, account, container)
        return self.safe(path, getattr(self, request.method), request, folder, path, account, container)

    def PUT(self, request, folder, path, account, container):
        """Make a container, or set its metadata."""
        stamp = request_stamp(request)
        if request.headers.get('X-Backend-Record-Type') == 'shard':
            body = orjson.loads(request.body(MOST))
            return answer(self.take_ranges(path, [Range.of(each) for each in body['ranges']], bool(body.get('known'))))
        asked = request.headers.get('X-Backend-Storage-Policy-Index')
        policy = int(asked if asked is not None else request.headers.get('X-Backend-Storage-Policy-Default', '0'))
        broker = self.make(folder, path, account, container, stamp, policy)
        info = broker.info()
        fresh, change = not there(broker, info), None
        if fresh:
            change = policy
        elif asked is not None and policy != info['policy']:
            return answer(409, {'X-Backend-Storage-Policy-Index': info['policy']})
        broker.update(put=stamp, metadata=kept(request, 'Container', ACLS, stamp), policy=change)
        if self._tell_account(request, broker, account, container) == 404:
            return answer(404)
        return answer(201 if fresh else 202, {'X-Backend-Storage-Policy-Index': policy if fresh else info['policy']})

    def POST(self, request, folder, path, account, container):
        """Set metadata."""
        stamp = request_stamp(request)
        broker = self.find(path)
        if broker is None or not there(broker, broker.info()):
            return answer(404)
        broker.update(put=stamp, metadata=kept(request, 'Container', ACLS, stamp))
        self.server.updater.look(path)
        return answer(204)

    def DELETE(self, request, folder, path, account, container):
        """Delete a container that is empty."""
        stamp = request_stamp(request)
        broker = self.find(path)
        if broker is None:
            return answer(404)
        with broker.lock:
            info = broker.info()
            if info['count'] or info['rows']:
                return answer(409)
            if there(broker, info) and info['put_stamp'] > stamp:
                return answer(409)
            before = broker.update(delete=stamp)
        self._tell_account(request, broker, account, container)
        return answer(204 if there(broker, before) else 404)

    def HEAD(self, request, folder, path, account, container):
        """What it is."""
        return self._show(request, path, False)

    def GET(self, request, folder, path, account, container):
        """The listing of its objects."""
        return self._show(request, path, True)

    def _show(self, request, path, listing):
        broker = self.find(path)
        if broker is None:
            return answer(404)
        info = broker.info()
        kind = request.headers.get('X-Backend-Record-Type', '').lower()
        if not there(broker, info) and not (kind == 'shard' and is_true(request.headers.get('X-Backend-Override-Deleted', ''))):
            return answer(404, self.stamps(info))
        headers = {**shown(info), **self.stamps(info), 'X-Container-Object-Count': info['count'],
                   'X-Container-Bytes-Used': info['bytes'], 'X-Backend-Storage-Policy-Index': info['policy'], 'Content-Type': JSON,
                   'X-Backend-Sharding-State': info['sharding']}
        if not listing:
            return answer(204, headers)
        if kind == 'shard' or (kind == 'auto' and info['sharding'] == 'sharded'):
            headers['X-Backend-Record-Type'] = 'shard'
            return answer(200, headers, orjson.dumps(self._ranges(request, broker, kind)))
        if 'HTTP_X_BACKEND_NAMES' in request.environ:
            # For a listing of lines: all else would be read, written and sent for nothing.
            return answer(200, headers, to_json([{'name': row[0]} if len(row) > 1 else {'subdir': row[0]}
                                                 for row in self.page(request, broker, ('name', 'deleted'))]))
        # (S3 knows of no time but that of the data; the Swift API's is that of the last change, also of metadata)
        rows = self.page(request, broker, LISTED_DATA if 'HTTP_X_BACKEND_DATA_TIMES' in request.environ else LISTED)
        return answer(200, headers, to_json([
            {'name': row[0], 'hash': row[3], 'bytes': row[2], 'content_type': row[4], 'last_modified': iso(row[1])}
            if len(row) > 1 else {'subdir': row[0]} for row in rows]))

    @staticmethod
    def _ranges(request, broker, kind):
        """The ranges: all as they are, or (``states``, or of a listing) where each name is now: None for the container itself."""
        if kind == 'shard' and 'states' not in request.query:
            return [found.wire() for found in broker.table().ranges.values()]
        name, backwards = request.query.get('includes'), is_true(request.query.get('reverse', ''))
        return [{'name': found.name if found else None, 'lower': lower, 'upper': upper}
                for lower, upper, found in broker.plan().segments
                if (name is None or (lower < name and (not upper or name <= upper)))
                and (kind == 'shard' or asked(lower, upper, request.query, backwards))]

    def take_ranges(self, path, ranges, known):
        """Merge what a shard tells of itself. Returns the status."""
        def do():
            broker = self.find(path)
            if broker is None:
                return answer(404)
            if not broker.merge_ranges(ranges, known):
                return answer(409)
            self.server.updater.look(path)
            return answer(202)
        return self.safe(path, do).status

    # Rows

    def row(self, request, device, part, account, container, name):
        """An object server tells of an object: PUT or DELETE with ``X-Backend-Row``."""
        get = request.headers.get
        stamp = request_stamp(request)
        changed = stamp_of(get('X-Backend-Changed-Timestamp') or stamp)
        policy = int(get('X-Backend-Storage-Policy-Index') or 0)
        if request.method == 'DELETE':
            row = deletion(name, stamp, policy)
        else:
            row = (0, name, stamp, changed, int(get('X-Size')), get('X-Etag', ''), from_wsgi(get('X-Content-Type', '')), policy)
        try:
            return answer(self.tell(device, part, account, container, row, is_true(get('X-Backend-Accept-Redirect', ''))))
        except Moved as moved:
            target = split(moved.target.name)
            return answer(301, {'Location': '/' + '/'.join(map(quote, (*target, name))), 'X-Backend-Location-Is-Quoted': 'true',
                                'X-Backend-Redirect-Timestamp': moved.target.stamp})

    def tell(self, device, part, account, container, row, redirect):
        """Merge a row. Returns the status; raises :class:`Moved` (with ``redirect``) if it belongs to a shard."""
        folder, path = self.locate(device, part, account, container)

        def do():
            broker = self.find(path)
            if broker is None and account.startswith('.') and not account.startswith(PREFIX):
                broker = self.make(folder, path, account, container, row[2])
                broker.update(put=row[2])
            if broker is None:
                return answer(404)
            if broker.put([row], redirect=redirect):
                self.server.updater.look(path)
            return answer(204 if row[0] else 201)
        return self.safe(path, do).status

    def _tell_account(self, request, broker, account, container):
        """Tell the account servers that the request names, if it does. 404 if all say that there is no account."""
        get = request.headers.get
        hosts, devices = get('X-Account-Host', ''), get('X-Account-Device', '')
        statuses = []
        for host, device in zip(hosts.split(','), devices.split(','), strict=False):
            if host and device:
                statuses.append(self.server.updater.tell_account(broker.info(), host, device, get('X-Account-Partition', '0')))
        self.server.updater.look(broker.path)
        return 404 if statuses and all(status == 404 for status in statuses) else None


def deletion(name, stamp, policy):
    """The row of an object that was deleted."""
    return (1, name, stamp, stamp, 0, '', '', policy)
