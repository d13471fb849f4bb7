"""The reconciler: moves objects to the storage policy of their container.

The replicator queues what it finds in another (see :mod:`~kodiak.storage_object.backend.strays`) in the account
``.misplaced_objects``: a container for each hour of the objects' timestamps, in it ``<policy>:/<account>/<container>/<object>``,
whose etag is the timestamp and whose content type is ``application/x-put`` or ``application/x-delete``. Entries that are done are
deleted as of their object's timestamp.
"""
import datetime
import logging
import time

from ..backend.devices import later
from ..middleware.copying import Reader
from ..proxy import backend as wire
from ..proxy.http import Fault, Request
from ..proxy.objects import KEPT
from ..spans import root_of
from .inside import Queues

LOG = logging.getLogger(__name__)
ACCOUNT = '.misplaced_objects'
HOUR = 3600
KINDS = ('application/x-put', 'application/x-delete')
COPIED = ('X-Object-Meta-', 'X-Object-Sysmeta-', 'X-Object-Transient-Sysmeta-')


def queue_strays(server, file):
    """Queue what a container's database knows of objects in other policies. False if some of it is left."""
    broker = server.brokers.get('container', file)
    if broker is None:
        return True
    info = broker.info()
    account, container = root_of(info) or (info['account'], info['container'])
    while strays := broker.strays():
        queued = []
        for stray in strays:
            name, policy, stamp, deleted = stray
            entry = f'{policy}:/{account}/{container}/{name}'
            row = (0, entry, stamp, f'{time.time():016.5f}', 0, stamp, KINDS[deleted], 0)
            if policy == info['policy'] or server.updater.send_row(ACCOUNT, _queue_of(stamp), row):
                queued.append(stray)
        broker.forget_strays(queued)
        if len(queued) < len(strays):
            return False
    return True


def _queue_of(stamp):
    return f'{int(stamp[:10]) // HOUR * HOUR:010d}'


class Reconciler(Queues):
    """See the module."""

    name = 'reconciler'
    account = ACCOUNT
    span = HOUR

    def __init__(self, server, conf):
        super().__init__(server, conf)
        self.proxy, self.client = self.inside.proxy, self.inside.client

    def entry(self, queue, row, until):
        """Put one object where it belongs."""
        moment = datetime.datetime.fromisoformat(row['last_modified']).replace(tzinfo=datetime.UTC).timestamp()
        return moment <= until and self._reconcile(row['name'], row['hash'], row['content_type']) and self.strike(
            queue, row['name'], row['hash'])

    def _reconcile(self, entry, stamp, kind):
        """False if it has to wait."""
        number, _, path = entry.partition(':/')
        account, container, name = path.split('/', 2)
        policy, right = int(number), self._policy(account, container)
        if right is None or policy not in self.server.policies or right not in self.server.policies:
            self.progress.count('waiting')
            return False
        done = policy == right
        if not done:
            try:
                if kind == KINDS[1]:
                    done = self._delete(account, container, name, right, stamp)
                else:
                    done = self._move(account, container, name, policy, right)
            except (Fault, OSError) as error:
                LOG.info('%s has to wait: %s', entry, error)
        self.progress.count('reconciled' if done else 'failed_objects')
        return done

    def _policy(self, account, container):
        """The policy that the servers of a container agree on, as far as they are there; None if they do not."""
        ring = self.server.rings.container
        part, found = ring.get_part(account, container), []
        for node in ring.primaries(part):
            answer = self.client.ask(node, 'HEAD', part, f'/{account}/{container}', {})
            if answer is not None:
                answer.close()
                if answer.status // 100 == 2:
                    found.append(int(answer.headers.get('X-Backend-Storage-Policy-Index', '0')))
        agreed = len(set(found)) == 1 and len(found) > wire.ring_replicas(ring) // 2
        return found[0] if agreed else None

    def _delete(self, account, container, name, right, stamp):
        """What was deleted in another policy is deleted in the right one."""
        answer = self.proxy.objects._all('DELETE', account, container, name, right, {}, stamp=later(stamp, 1))
        return answer.status // 100 == 2 or answer.status in (404, 409)

    def _request(self, method, path, policy, headers, stream=None):
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': '', 'QUERY_STRING': '', 'kodiak.proxy': self.proxy,
                   'kodiak.reserved': True}
        if stream is not None:
            environ['wsgi.input'] = stream
        request = Request(environ)
        request.path = '/v1' + path
        request.headers.update({**headers, 'X-Backend-Storage-Policy-Index': str(policy)})
        return self.proxy.handle(request)

    def _move(self, account, container, name, policy, right):
        """Copy an object to the right policy, unless there is a newer one; then it goes from the other."""
        path = f'/{account}/{container}/{name}'
        found = self._request('GET', path, policy, {'X-Newest': 'true', 'X-Backend-Open-Expired': 'true'})
        if found.status == 404:
            return True                 # it was deleted there; that is an entry of its own
        if found.status != 200:
            found.close()
            return False
        stamp = found.headers['X-Backend-Data-Timestamp']
        try:
            at = found.headers.get('X-Delete-At')
            if at and int(at) <= time.time():
                done = self._delete(account, container, name, right, stamp)
            else:
                headers = {n: v for n, v in found.headers.items() if n in KEPT or n.startswith(COPIED)}
                headers.update({'X-Timestamp': later(stamp, 1), 'Content-Length': found.headers['Content-Length']})
                # (202: there is a newer one.)
                done = self._request('PUT', path, right, headers, Reader(found)).status in (201, 202)
        finally:
            found.close()
        # (Metadata that was changed later goes too.)
        return done and self._remove(path, account, container, name, policy, later(found.headers['X-Timestamp'], 2))

    def _remove(self, path, account, container, name, policy, stamp):
        """Delete an object of a policy; its container is not told: it is there still."""
        ring = self.server.rings.object(policy)
        replicas = wire.ring_replicas(ring)
        headers = {'X-Timestamp': stamp, 'X-Backend-Storage-Policy-Index': str(policy), 'Content-Length': '0'}
        answers = self.client.ask_many(ring, ring.get_part(account, container, name), 'DELETE', path, [headers] * replicas)
        return sum(answer.status // 100 == 2 or answer.status in (404, 409) for answer in answers) > replicas // 2
