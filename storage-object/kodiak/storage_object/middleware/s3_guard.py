"""What the S3 API has set holds for the Swift API too: lists, tags and locks of objects outlast its POSTs; what is locked stays.

Only containers that are buckets are looked at. Retention and holds stand in the object's (transient) system metadata; a bucket with
object lock always keeps versions, so only the deletion of a version has to be refused.
"""
import time

from ..proxy.http import Filter, error, is_true
from ..s3.xml import iso, moment_of

KEPT = 'X-Object-Transient-Sysmeta-S3Api-'
RETENTION, HOLD = KEPT + 'Retention', KEPT + 'Hold'
LOCK = 'X-Container-Sysmeta-S3Api-Lock'
SEGMENTS = '+segments'
DAY = 86400


def locked(headers, bypass=False):
    """Whether an object of such headers may not go. ``bypass``: whoever asks may pass over a retention that is only governance."""
    if headers.get(HOLD) == 'ON':
        return True
    mode, _, until = (headers.get(RETENTION) or '').partition(' ')
    return bool(until) and (moment_of(until) or 0) > time.time() and not (bypass and mode == 'GOVERNANCE')


class S3Guard(Filter):
    """See the module."""

    def handle(self, request):
        """Refuse, add, or pass on."""
        method = request.method
        if method not in ('PUT', 'POST', 'DELETE') or (split := request.split()) is None or split[2] is None:
            return self.next(request)
        proxy = request.environ.get('kodiak.proxy')
        if proxy is None:
            return self.next(request)
        _, account, container, name = split
        bucket = container.removesuffix(SEGMENTS)
        info = proxy.infos.get(request, account, bucket)
        if 's3api-acl' not in info['sysmeta']:
            return self.next(request)
        lock = info['sysmeta'].get('s3api-lock')
        if lock and bucket != container:
            # Parts go with what they are parts of, which S3 asks for.
            if method == 'DELETE' and request.environ.get('kodiak.source') != 'S3':
                return error(403, 'The bucket of these parts is locked')
        elif name is None:
            if lock and method != 'DELETE' and request.headers.get('X-Versions-Enabled') and not is_true(
                    request.headers['X-Versions-Enabled']):
                return error(409, 'A container with locks keeps versions')
        elif method == 'POST' and request.environ.get('kodiak.source') != 'S3':
            self._keep(request)
        elif method == 'PUT' and lock and ' ' in lock and RETENTION not in request.headers:
            mode, days = lock.split(' ')
            request.headers[RETENTION] = f'{mode} {iso(time.time() + int(days) * DAY)}'
        elif method == 'DELETE' and lock and 'version-id' in request.query:
            there = self._head(request, {'version-id': request.query['version-id']})
            if locked(there.headers, request.environ.get('kodiak.bypass_governance', False)):
                return error(403, 'The version is locked')
        return self.next(request)

    def _head(self, request, query):
        return self.next(request.sub('HEAD', request.path, query={'symlink': 'get', **query}, authorize=False)).drain()

    def _keep(self, request):
        for header, value in self._head(request, {}).headers.items():
            if header.startswith(KEPT.title()) and header not in request.headers:
                request.headers[header] = value
