"""What filters and controllers know of an account and a container: status, lists, metadata, counts."""
from kodiak.common.numbers import natural

from . import backend
from .http import is_true, quote


def _int(text):
    return (natural(text.removeprefix('-')) or 0) * (-1 if text.startswith('-') else 1) if text else 0


class Info(dict):
    """Facts of an account or a container: ``status``, ``meta``, ``sysmeta`` (short lower-case names) and what a HEAD shows."""

    @property
    def ok(self):
        """Whether it exists."""
        return self['status'] // 100 == 2


def _of_policies(headers):
    """``{policy's name in small letters: (objects, bytes)}`` of an account."""
    found = {}
    prefix, count, used = 'x-account-storage-policy-', '-object-count', '-bytes-used'
    for name, value in headers.items():
        name = name.lower()
        if name.startswith(prefix) and name.endswith((count, used)):
            policy = name[len(prefix):].removesuffix(count).removesuffix(used)
            objects, size = found.get(policy, (0, 0))
            found[policy] = (_int(value), size) if name.endswith(count) else (objects, _int(value))
    return found


def _facts(status, headers, kind):
    info = Info(status=status)
    meta, sysmeta = {}, {}
    for name, value in headers.items():
        name = name.lower()
        if name.startswith(f'x-{kind}-meta-'):
            meta[name[len(kind) + 8:]] = value
        elif name.startswith(f'x-{kind}-sysmeta-'):
            sysmeta[name[len(kind) + 11:]] = value
    info.update(meta=meta, sysmeta=sysmeta, policies=_of_policies(headers) if kind == 'account' else {})
    get = headers.get
    if kind == 'account':
        info.update(containers=_int(get('X-Account-Container-Count')), objects=_int(get('X-Account-Object-Count')),
                    bytes=_int(get('X-Account-Bytes-Used')), really_exists=not is_true(get('X-Backend-Fake-Account-Listing', '')))
    else:
        info.update(objects=_int(get('X-Container-Object-Count')), bytes=_int(get('X-Container-Bytes-Used')),
                    read_acl=get('X-Container-Read'), write_acl=get('X-Container-Write'),
                    versions=get('X-Container-Sysmeta-Versions-Location'),
                    policy=_int(get('X-Backend-Storage-Policy-Index')), sync_key=get('X-Container-Sync-Key'),
                    sharding=get('X-Backend-Sharding-State', 'unsharded'))
    return info


class Infos:
    """Looks facts up, through the cache."""

    def __init__(self, rings, client, cache):
        self.rings, self.client, self.cache = rings, client, cache

    @staticmethod
    def key(account, container=None):
        """The cache's key."""
        return f'{account}/{container}' if container is not None else account

    def get(self, request, account, container=None):
        """The :class:`Info`; ``status`` 404 where there is none, 503 where no server answers."""
        key = self.key(account, container)
        info = self.cache.get(key)
        if info is not None:
            return info
        count = self.cache.count(key)
        info = self._ask(request, account, container)
        if info['status'] != 503:
            self.cache.set(key, info, count, 2 if info['status'] == 404 else None)
        return info

    def _ask(self, request, account, container):
        ring = self.rings.account if container is None else self.rings.container
        part = ring.get_part(account, container) if container is not None else ring.get_part(account)
        path = '/' + account if container is None else f'/{account}/{container}'
        headers = {'X-Trans-Id': request.environ.get('kodiak.trans_id', '-')}
        kind = 'account' if container is None else 'container'
        missing = backend.Absences(ring, part)
        for node in self.client.nodes.usable(ring, part, backend.ring_replicas(ring)):
            answer = self.client.ask(node, 'HEAD', part, path, headers)
            if answer is None:
                continue
            answer.close()
            if answer.status // 100 == 2:
                return _facts(answer.status, answer.headers, kind)
            if answer.status == 404:
                missing.add(node)
            if missing.all:
                break
        return Info(status=404 if missing.certain else 503, meta={}, sysmeta={}, policies={},
                    containers=0, objects=0, bytes=0, read_acl=None,
                    write_acl=None, versions=None, policy=0, sync_key=None, really_exists=False, sharding='unsharded')

    def count(self, account, container=None):
        """See :meth:`kodiak.storage_object.proxy.cache.Cache.count`."""
        return self.cache.count(self.key(account, container))

    def remember(self, answer, count, account, container=None):
        """What a GET or HEAD has just told. ``count``: of the cache, from before it was asked."""
        kind = 'account' if container is None else 'container'
        self.cache.set(self.key(account, container), _facts(answer.status, answer.headers, kind), count)

    def forget(self, account, container=None):
        """After a change."""
        self.cache.forget(self.key(account, container))


def path_of(*parts):
    """A percent-encoded path."""
    return ''.join('/' + quote(part, '' if index < len(parts) - 1 else '/') for index, part in enumerate(parts))
