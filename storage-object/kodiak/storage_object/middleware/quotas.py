"""Quotas of containers (their owners set them) and of accounts (resellers set them)."""
import time

from kodiak.common.numbers import natural

from ..proxy.http import Fault, Filter, error
from .versioning import hidden


def _number(value, what):
    if value and natural(value) is None:
        raise Fault(400, f'Invalid {what} quota.')


class ContainerQuotas(Filter):
    """``X-Container-Meta-Quota-Bytes`` and ``-Count``; 413 for a PUT that would pass them."""

    def handle(self, request):
        """Check, or pass on."""
        method = request.method
        if method not in ('PUT', 'POST') or (split := request.split()) is None or split[2] is None:
            return self.next(request)
        _, account, container, name = split
        if name is None:
            _number(request.headers.get('X-Container-Meta-Quota-Bytes'), 'bytes')
            _number(request.headers.get('X-Container-Meta-Quota-Count'), 'count')
        elif method == 'PUT' and (proxy := request.environ.get('kodiak.proxy')) is not None:
            info = proxy.infos.get(request, account, container)
            limited = info.ok and ('quota-bytes' in info['meta'] or 'quota-count' in info['meta'])
            if limited and self._over(request, proxy, split) and self._over(request, proxy, split, fresh=True):
                return self._refuse(request, split)
        return self.next(request)

    @staticmethod
    def _over(request, proxy, split, fresh=False):
        places = [split[2]]
        if 'versions-enabled' in proxy.infos.get(request, split[1], split[2])['sysmeta']:
            places.append(hidden(split[2]))
        if fresh:
            for place in places:
                proxy.infos.forget(split[1], place)
        info, *versions = (proxy.infos.get(request, split[1], place) for place in places)
        limit, count = (natural(info['meta'].get(name, '')) for name in ('quota-bytes', 'quota-count'))
        used = info['bytes'] + sum(other['bytes'] for other in versions)
        return (limit is not None and used + (request.content_length or 0) > limit) or (
            count is not None and info['objects'] + 1 > count)

    def _refuse(self, request, split):
        authorize = request.environ.get('kodiak.authorize')
        if authorize is not None:
            proxy = request.environ['kodiak.proxy']
            request.environ['kodiak.acl'] = proxy.infos.get(request, split[1], split[2])['write_acl']
            refusal = authorize(request)
            if refusal is not None:
                return refusal
        return error(413, 'Upload exceeds quota.')


class AccountQuotas(Filter):
    """Of bytes and objects of an account (and of one policy in it), which only a reseller may set; 413 for a PUT past them.

    ``X-Account-Quota-Bytes``, ``-Count``, ``-Bytes-Policy-<name>``, ``-Count-Policy-<name>``; ``X-Account-Meta-Quota-Bytes`` is
    the first one's old name.
    """

    KEPT = 'X-Account-Sysmeta-Quota-'

    def handle(self, request):
        """Check, or pass on."""
        method = request.method
        if method not in ('PUT', 'POST', 'GET', 'HEAD') or (split := request.split()) is None:
            return self.next(request)
        _, account, container, name = split
        if container is None:
            return self._account(request)
        if name is not None and method == 'PUT' and (proxy := request.environ.get('kodiak.proxy')) is not None:
            info = proxy.infos.get(request, account)
            quotas = {key[6:]: natural(value) for key, value in info['sysmeta'].items()
                      if key.startswith('quota-') and natural(value) is not None}
            if quotas and not (request.environ.get('kodiak.identity') or {}).get('reseller'):
                size = request.content_length or 0
                if info['bytes'] + size > quotas.get('bytes', 1 << 62) or info['objects'] + 1 > quotas.get('count', 1 << 62):
                    return error(413, 'Upload exceeds quota.')
                if self._past_policy(request, proxy, info, quotas, account, container, size):
                    return error(413, 'Upload exceeds policy quota.')
        return self.next(request)

    @staticmethod
    def _past_policy(request, proxy, info, quotas, account, container, size):
        """Whether a body is too much for what the container's policy may hold in the account."""
        if not any('-policy-' in key for key in quotas):
            return False
        index = proxy.infos.get(request, account, container)['policy']
        objects, used = info['policies'].get(proxy.rings.policies[index].name.lower(), (0, 0))
        return used + size > quotas.get(f'bytes-policy-{index}', 1 << 62) or (
            objects + 1 > quotas.get(f'count-policy-{index}', 1 << 62))

    def _account(self, request):
        headers = request.headers
        if request.method in ('PUT', 'POST'):
            given = {}
            for header, value in list(headers.items()):
                plain = header.replace('X-Remove-', 'X-', 1).replace('X-Account-Meta-Quota-', 'X-Account-Quota-')
                if plain.startswith('X-Account-Quota-'):
                    given[self._kept(request, plain[16:])] = '' if header.startswith('X-Remove-') else value
                    headers.pop(header)
            if given:
                authorize = request.environ.get('kodiak.authorize')
                refusal = authorize(request) if authorize else None
                if refusal is not None:
                    return refusal
                if authorize and not request.environ.get('kodiak.reseller'):
                    return error(403)
                for header, value in given.items():
                    _number(value, 'account')
                    headers[header] = value
        answer = self.next(request)
        for header in [header for header in answer.headers if header.startswith(self.KEPT)]:
            kind, _, policy = header[len(self.KEPT):].partition('-Policy-')
            proxy = request.environ.get('kodiak.proxy')
            if policy and proxy is not None and int(policy) in proxy.rings.policies:
                answer.headers[f'X-Account-Quota-{kind}-Policy-{proxy.rings.policies[int(policy)].name}'] = answer.headers[header]
            elif not policy:
                answer.headers['X-Account-Quota-' + kind] = answer.headers[header]
                if kind == 'Bytes':
                    answer.headers['X-Account-Meta-Quota-Bytes'] = answer.headers[header]
        return answer

    def _kept(self, request, kind):
        kind, dash, name = kind.partition('-Policy-')
        if kind not in ('Bytes', 'Count'):
            raise Fault(400, f'No such quota: {kind}')
        if not dash:
            return self.KEPT + kind
        proxy = request.environ.get('kodiak.proxy')
        policy = proxy.rings.policy_named(name) if proxy is not None else None
        if policy is None:
            raise Fault(400, f'No such policy: {name}')
        return f'{self.KEPT}{kind}-Policy-{policy.index}'


class RateLimit(Filter):
    """So many requests a second: slows them down, and answers 498 to what would wait too long.

    ``container_ratelimit_<objects> = <rate>``: changes of objects in a container of so many, or more;
    ``container_listing_ratelimit_<objects>``: its listings; ``account_ratelimit``: changes of containers in an account;
    ``max_sleep_time_seconds``; ``account_whitelist`` and ``account_blacklist``: accounts that nothing, and that all, is refused.
    A proxy process counts for itself.
    """

    BURST = 5

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.writes, self.listings = self._rates('container_ratelimit_'), self._rates('container_listing_ratelimit_')
        self.account_rate = float(self.conf.get('account_ratelimit', 0))
        self.longest = float(self.conf.get('max_sleep_time_seconds', 60))
        self.free, self.barred = (set(self.conf.get(f'account_{colour}list', '').replace(',', ' ').split())
                                  for colour in ('white', 'black'))
        self.active = bool(self.writes or self.listings or self.account_rate or self.barred)
        self.next_at = {}

    def _rates(self, prefix):
        return sorted((int(name[len(prefix):]), float(value)) for name, value in self.conf.items() if name.startswith(prefix))

    def handle(self, request):
        """Wait, refuse, or pass on."""
        if not self.active or request.environ.get('kodiak.sub') or (split := request.split()) is None or split[1] in self.free:
            return self.next(request)
        if split[1] in self.barred:
            return error(497, 'Your account is not served for now', {'Retry-After': '60'})
        rate, key = self._limit(request, split)
        if rate:
            now = time.monotonic()
            at = max(self.next_at.get(key, 0), now - self.BURST / rate)
            if at - now > self.longest:
                return error(498, 'Slow down', {'Retry-After': '1'})
            if len(self.next_at) > 10000:
                self.next_at = {}
            self.next_at[key] = at + 1 / rate
            if at > now:
                time.sleep(at - now)
        return self.next(request)

    def _limit(self, request, split):
        changes = request.method in ('PUT', 'POST', 'DELETE')
        _, account, container, name = split
        if container is not None and name is None and changes:
            return self.account_rate, account
        rates = self.writes if name is not None and changes else self.listings if request.method == 'GET' and name is None else ()
        proxy = request.environ.get('kodiak.proxy')
        if not rates or container is None or proxy is None:
            return 0, None
        size = proxy.infos.get(request, account, container)['objects']
        return next((rate for least, rate in reversed(rates) if size >= least), 0), (account, container, changes)
