"""The account server: which containers an account has, and what is in them altogether."""
from .base import JSON, Databases, answer, iso, kept, request_stamp, shown, there, to_json
from .broker import ZERO
from .devices import stamp_of


class Accounts(Databases):
    """``/{device}/{partition}/{account}``, and the rows of its containers."""

    kind = 'account'

    def handle(self, request, device, part, account):
        """Answer a request."""
        folder, path = self.locate(device, part, account)
        return self.safe(path, getattr(self, request.method), request, folder, path, account)

    def PUT(self, request, folder, path, account):
        """Make an account, or set its metadata."""
        stamp = request_stamp(request)
        broker = self.make(folder, path, account, '', stamp)
        info = broker.info()
        if info['status'] == 'DELETED' and info['delete_stamp'] > info['put_stamp']:
            return answer(403, body=b'Recently deleted')
        fresh = not there(broker, info)
        broker.update(put=stamp, metadata=kept(request, 'Account', (), stamp))
        return answer(201 if fresh else 202)

    def POST(self, request, folder, path, account):
        """Set metadata."""
        stamp = request_stamp(request)
        broker = self.find(path)
        if broker is None or not there(broker, broker.info()):
            return answer(404)
        broker.update(metadata=kept(request, 'Account', (), stamp))
        return answer(204)

    def DELETE(self, request, folder, path, account):
        """Mark an account as deleted: the reaper does the rest."""
        stamp = request_stamp(request)
        broker = self.find(path)
        if broker is None or broker.info()['status'] == 'DELETED':
            return answer(404)
        broker.update(delete=stamp, status='DELETED')
        return answer(204)

    def HEAD(self, request, folder, path, account):
        """What it is."""
        return self._show(request, path, False)

    def GET(self, request, folder, path, account):
        """The listing of its containers."""
        return self._show(request, path, True)

    def _show(self, request, path, listing):
        broker = self.find(path)
        info = broker.info() if broker is not None else None
        if info is not None and info['status'] == 'DELETED' and info['delete_stamp'] > info['put_stamp']:
            return answer(404, {'X-Account-Status': 'Deleted', **self.stamps(info)})
        if info is None or not there(broker, info):
            return answer(404)
        headers = {**shown(info), **self.stamps(info), 'X-Account-Container-Count': info['count'],
                   'X-Account-Object-Count': info['objects'], 'X-Account-Bytes-Used': info['bytes'], 'Content-Type': JSON}
        for index, counts in broker.policies().items():
            name = self.server.policies.get(index)
            if name is not None:
                for what, number in zip(('Container-Count', 'Object-Count', 'Bytes-Used'), counts, strict=True):
                    headers[f'X-Account-Storage-Policy-{name}-{what}'] = number
        if not listing:
            return answer(204, headers)
        rows = self.page(request, broker, ('name', 'objects', 'bytes', 'stamp', 'policy'))
        return answer(200, headers, to_json([
            {'name': row[0], 'count': row[1], 'bytes': row[2], 'last_modified': iso(row[3]), 'storage_policy_index': row[4]}
            if len(row) > 1 else {'subdir': row[0]} for row in rows]))

    # Rows

    def row(self, request, device, part, account, container):
        """A container server tells of a container: PUT with ``X-Backend-Row``."""
        get = request.headers.get
        stamp, gone = stamp_of(get('X-Put-Timestamp') or ZERO), stamp_of(get('X-Delete-Timestamp') or ZERO)
        return answer(self.tell(device, part, account, container, stamp, gone, int(get('X-Object-Count') or 0),
                                int(get('X-Bytes-Used') or 0), int(get('X-Backend-Storage-Policy-Index') or 0),
                                stamp_of(get('X-Timestamp'))))

    def tell(self, device, part, account, container, stamp, gone, objects, size, policy, told):
        """Merge what is told of a container. Returns the status."""
        folder, path = self.locate(device, part, account)

        def do():
            broker = self.find(path)
            if broker is None and account.startswith('.'):
                broker = self.make(folder, path, account, '', told)
                broker.update(put=told)
            if broker is None:
                return answer(404)
            info = broker.info()
            if (info['status'] == 'DELETED' or not there(broker, info)) and gone <= stamp:
                return answer(404)
            broker.put([(int(gone > stamp and not objects), container, stamp, gone, objects, size, policy, told)])
            return answer(201)
        return self.safe(path, do).status
