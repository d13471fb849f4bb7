"""The account and container controllers: requests to databases that every replica has."""
import time

import orjson

from kodiak.common.numbers import natural

from ..spans import ENABLED
from . import acl, backend, constraints, listing
from .constraints import LIMITS
from .http import Fault, Response, error, is_true

PASSED = ('X-Timestamp', 'Content-Type')
RESERVED_END = '\0\U0010ffff'
PAUSES = (0.3, 0.7, 1.5)     # seconds
REMOVABLE = {'X-Container-Read', 'X-Container-Write', 'X-Versions-Location', 'X-Container-Sync-Key', 'X-Container-Sync-To'}


def timestamp():
    """Now, in the form that orders all changes."""
    return f'{time.time():016.5f}'


class Databases:
    """What both have in common.

    :param proxy: the :class:`~kodiak.storage_object.proxy.app.Proxy`.
    """

    kind = ''

    def __init__(self, proxy):
        self.proxy, self.rings, self.client, self.infos = proxy, proxy.rings, proxy.client, proxy.infos

    def passed(self, request, stamp=None):
        """The headers that servers keep."""
        headers = {'X-Timestamp': stamp or timestamp(), 'X-Trans-Id': request.environ.get('kodiak.trans_id', '-')}
        meta, sysmeta, remove = f'X-{self.kind}-Meta-', f'X-{self.kind}-Sysmeta-', f'X-Remove-{self.kind}-Meta-'
        for name, value in request.headers.items():
            if name.startswith((meta, sysmeta, 'X-Backend-')) or name in REMOVABLE:
                headers[name] = value
            elif name.startswith(remove):
                headers.setdefault(meta + name[len(remove):], '')
            elif name.startswith('X-Remove-') and 'X-' + name[9:] in REMOVABLE:
                headers.setdefault('X-' + name[9:], '')
        return headers

    def check_metadata(self, request, *place):
        """400 for metadata that is too much, by itself or with what is there."""
        constraints.check_metadata(request, self.kind.lower())
        if any(f'-{self.kind}-Meta-' in name for name, _ in request.headers.items()):
            info = self.infos.get(request, *place)
            if info['meta']:
                constraints.check_total(request, self.kind, info['meta'])

    @staticmethod
    def best(answers, replicas):
        """The response that a majority stands for; 503 without one."""
        quorum = replicas // 2 + 1
        for family in (2, 3, 4):
            found = [a for a in answers if a.status // 100 == family]
            if len(found) >= quorum:
                chosen = max(found, key=lambda a: sum(b.status == a.status for b in found))
                return error(chosen.status) if family == 4 else Response(
                    chosen.status, b'', content_type='text/html; charset=UTF-8')
        return error(503)

    def read(self, request, ring, part, path, query, more=()):
        """GET or HEAD of the first replica that has it. ``more``: headers."""
        headers = {'X-Trans-Id': request.environ.get('kodiak.trans_id', '-'), **dict(more)}
        headers.update((n, v) for n, v in request.headers.items() if n.startswith('X-Backend-'))
        newest = is_true(request.headers.get('X-Newest', ''))
        found, missing, gone = None, backend.Absences(ring, part), None
        replicas = backend.ring_replicas(ring)
        for node in self.client.nodes.usable(ring, part, replicas):
            answer = self.client.ask(node, request.method, part, path, headers, query)
            if answer is None:
                continue
            if answer.status // 100 == 2:
                if not newest:
                    return answer
                stamp = answer.headers.get('X-Put-Timestamp', answer.headers.get('X-Timestamp', '0'))
                if found is None or stamp > found[0]:
                    if found is not None:
                        found[1].close()
                    found = (stamp, answer)
                    continue
            elif answer.status in (404, 410):
                missing.add(node)
                gone = answer if answer.headers.get('X-Account-Status', '').lower() == 'deleted' else gone
            elif answer.status // 100 == 4:
                answer.close()
                return answer
            answer.close()
            if missing.all:
                break
        if found:
            return found[1]
        if not missing.certain:
            raise Fault(503)
        return gone

    def need_account(self, request, account):
        """404 if there is no such account; 503 if nobody can tell."""
        info = self.infos.get(request, account)
        if not info.ok:
            raise Fault(503 if info['status'] == 503 else 404)

    @staticmethod
    def limits(request, maximum):
        """Check what a listing is asked with; its query for the servers."""
        query = dict(request.query)
        query['format'] = 'json'
        for name in ('lower', 'upper'):         # (servers know them)
            query.pop(name, None)
        for name in ('prefix', 'delimiter', 'marker', 'end_marker', 'path', 'limit'):
            value = query.get(name)
            if value is not None:
                try:
                    value.encode()
                except UnicodeError:
                    raise Fault(400, f'Parameter "{name}" not valid UTF-8') from None
        limit = query.get('limit')
        if limit:
            number = natural(limit)
            if number is None:
                query.pop('limit')
            elif number > maximum:
                raise Fault(412, f'Maximum limit is {maximum}')
        return query


class Accounts(Databases):
    """``/v1/{account}``."""

    kind = 'Account'

    def GET(self, request, account, container=None, name=None):
        """Listing of an account's containers."""
        ring = self.rings.account
        query = self.limits(request, LIMITS.account_listing_limit)
        shape = listing.chosen(request)
        if not request.environ.get('kodiak.reserved'):
            self._past_reserved(query)
        answer = self.read(request, ring, ring.get_part(account), '/' + account, listing.encode(query))
        if answer is None:
            if not self.proxy.autocreate:
                return error(404)
            headers = {'X-Account-Container-Count': '0', 'X-Account-Object-Count': '0', 'X-Account-Bytes-Used': '0',
                       'X-Backend-Fake-Account-Listing': 'yes', 'X-Timestamp': timestamp()}
            return listing.render(request, Response(200, b'[]', headers), shape, 'account', account)
        if answer.status in (404, 410):
            return error(410 if answer.headers.get('X-Account-Status', '').lower() == 'deleted' else 404)
        return listing.render(request, listing.response(answer), shape, 'account', account)

    HEAD = GET

    @staticmethod
    def _past_reserved(query):
        # What is not to be seen has names that begin with NUL: no page of a listing begins with them, or ends in them.
        backwards = is_true(query.get('reverse', ''))
        edge = 'end_marker' if backwards else 'marker'
        query[edge] = max(query.get(edge) or '', RESERVED_END)

    def PUT(self, request, account, container=None, name=None):
        """Make an account (resellers)."""
        if not self.proxy.account_management:
            return error(405, headers={'Allow': 'HEAD, GET, POST, OPTIONS'})
        self.check_metadata(request, account)
        return self.write(request, 'PUT', account)

    def POST(self, request, account, container=None, name=None):
        """Set metadata."""
        self.check_metadata(request, account)
        answer = self.write(request, 'POST', account)
        if answer.status == 404 and self.proxy.autocreate:
            made = self.write(request, 'PUT', account)
            return made if not made.ok else Response(204)
        return answer

    def DELETE(self, request, account, container=None, name=None):
        """Delete an account (resellers)."""
        if not self.proxy.account_management:
            return error(405, headers={'Allow': 'HEAD, GET, POST, OPTIONS'})
        if request.query:
            return error(400)
        return self.write(request, 'DELETE', account)

    def write(self, request, method, account):
        """To all replicas."""
        ring = self.rings.account
        replicas = backend.ring_replicas(ring)
        headers = self.passed(request)
        headers['Content-Length'] = '0'
        answers = self.client.ask_many(ring, ring.get_part(account), method, '/' + account, [headers] * replicas)
        self.infos.forget(account)
        return self.best(answers, replicas)

    def ensure(self, request, account):
        """Make the account of a container where it is not there yet."""
        info = self.infos.get(request, account)
        if info['status'] == 404 and self.proxy.autocreate:
            bare = request.sub('PUT', '/v1/' + account, authorize=False)
            self.write(bare, 'PUT', account)
            return True
        return info.ok


class Containers(Databases):
    """``/v1/{account}/{container}``."""

    kind = 'Container'

    def GET(self, request, account, container, name=None):
        """Listing of a container's objects."""
        self.need_account(request, account)
        ring = self.rings.container
        shape = listing.chosen(request)
        query = self.limits(request, LIMITS.container_listing_limit)
        if not query.get('limit'):
            query['limit'] = str(LIMITS.container_listing_limit)
        count = self.infos.count(account, container)
        answer = self.read(request, ring, ring.get_part(account, container), f'/{account}/{container}', listing.encode(query),
                           {'X-Backend-Record-Type': 'auto'})
        if answer is None or answer.status in (404, 410):
            return error(404)
        # Whoever has seen a container so full is met by its quota from then on.
        self.infos.remember(answer, count, account, container)
        response = listing.response(answer)
        if response.headers.pop('X-Backend-Record-Type', None) == 'shard':
            headers = {n: v for n, v in request.headers.items() if n.startswith('X-Backend-')}
            rows = self.proxy.shards.across((account, container), orjson.loads(response.body), query, headers)
            response.set_body(orjson.dumps(rows))
        index = answer.headers.get('X-Backend-Storage-Policy-Index')
        if index is not None and response.ok:
            response.headers['X-Storage-Policy'] = self.rings.policies[int(index)].name
        if ENABLED in response.headers and request.environ.get('kodiak.owner'):
            response.headers['X-Container-Sharding'] = response.headers[ENABLED]
        return listing.render(request, response, shape, 'container', container)

    HEAD = GET

    def PUT(self, request, account, container, name=None):
        """Make a container, or set its metadata."""
        self._check(request, account, container)
        if not self.proxy.accounts.ensure(request, account):
            self.need_account(request, account)
            return error(404)
        policy = None
        if (asked := request.headers.get('X-Storage-Policy')):
            policy = self.rings.policy_named(asked)
            if policy is None:
                raise Fault(400, f"Invalid X-Storage-Policy '{asked}'")
            if policy.deprecated:
                raise Fault(400, f"Storage Policy '{asked}' is deprecated")
        return self.write(request, 'PUT', account, container, policy)

    def POST(self, request, account, container, name=None):
        """Set metadata."""
        self._check(request, account, container)
        self.need_account(request, account)
        return self.write(request, 'POST', account, container)

    def DELETE(self, request, account, container, name=None):
        """Delete an empty container."""
        self.need_account(request, account)
        self.infos.forget(account, container)
        answer = None
        if self.infos.get(request, account, container)['sharding'] == 'sharded':
            answer = self._delete_sharded(request, account, container)
        answer = answer or self.write(request, 'DELETE', account, container)
        return error(404) if answer.status == 202 else answer

    def _delete_sharded(self, request, account, container):
        """What its listing says counts: its counts follow those of its shards by a moment, for which this waits."""
        found = self.proxy.shards.rows(account, container, {'limit': '1'})
        if found is None or found[0]:
            return error(404 if found is None else 409)
        for pause in PAUSES:
            answer = self.write(request, 'DELETE', account, container)
            if answer.status != 409:
                return answer
            time.sleep(pause)
        return None

    def _check(self, request, account, container):
        self.check_metadata(request, account, container)
        if 'X-Container-Sharding' in request.headers and request.environ.get('kodiak.reseller'):
            request.headers[ENABLED] = str(is_true(request.headers['X-Container-Sharding']))
        for header in ('X-Container-Read', 'X-Container-Write'):
            if (value := request.headers.get(header)):
                request.headers[header] = acl.clean(header, value)

    def write(self, request, method, account, container, policy=None):
        """To all replicas, each with an account server that it tells."""
        ring, above = self.rings.container, self.rings.account
        part, above_part = ring.get_part(account, container), above.get_part(account)
        replicas = backend.ring_replicas(ring)
        each = self.passed(request)
        each['Content-Length'] = '0'
        if policy is not None:
            each['X-Backend-Storage-Policy-Index'] = str(policy.index)
        if method == 'PUT':
            each['X-Backend-Storage-Policy-Default'] = str(self.rings.default_policy.index)
        wanted = [dict(each) for _ in range(replicas)]
        if method in ('PUT', 'DELETE'):
            for index, node in enumerate(above.primaries(above_part)):
                for name, value in (('Host', f'{node["ip"]}:{node["port"]}'), ('Device', node['device'])):
                    key, headers = f'X-Account-{name}', wanted[index % replicas]
                    headers[key] = f'{headers[key]},{value}' if key in headers else value
                wanted[index % replicas]['X-Account-Partition'] = str(above_part)
        answers = self.client.ask_many(ring, part, method, f'/{account}/{container}', wanted)
        self.infos.forget(account, container)
        self.infos.forget(account)
        return self.best(answers, replicas)
