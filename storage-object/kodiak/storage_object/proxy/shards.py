"""Sharded containers in the proxy: listings across shards, and which shard is told of an object."""
import orjson

from ..spans import DEPTH, asked, split, successor
from . import backend
from .http import Fault, is_true
from .listing import encode

AGE = 10                # seconds that the ranges are remembered; a shard that is no more says where its rows are


class Shards:
    """What a proxy asks of shards.

    :param rings: the proxy's. :param client: a :class:`~kodiak.storage_object.proxy.backend.Client`.
    """

    def __init__(self, rings, client, cache):
        self.rings, self.client, self.cache = rings, client, cache

    def ask(self, account, container, query, headers):
        """The answer of the first server that has a container; None if there is none, :class:`Fault` 503 if nobody can tell."""
        ring = self.rings.container
        part = ring.get_part(account, container)
        missing = backend.Absences(ring, part)
        for node in self.client.nodes.usable(ring, part, backend.ring_replicas(ring)):
            answer = self.client.ask(node, 'GET', part, f'/{account}/{container}', headers, encode(query))
            if answer is None:
                continue
            try:
                answer.content = answer.read()
            except backend.ERRORS:
                continue
            if answer.status == 200:
                return answer
            if answer.status == 404:
                missing.add(node)
            if missing.all:
                break
        if not missing.certain:
            raise Fault(503)
        return None

    def rows(self, account, container, query, headers=None):
        """``(rows, headers)`` of a container's listing, sharded or not; None if there is none."""
        answer = self.ask(account, container, query, {**(headers or {}), 'X-Backend-Record-Type': 'auto'})
        if answer is None:
            return None
        found = orjson.loads(answer.content)
        if answer.headers.get('X-Backend-Record-Type') == 'shard':
            found = self.across((account, container), found, query, headers or {})
        return found, answer.headers

    # Listings

    def across(self, own, ranges, query, headers, depth=DEPTH):
        """The rows of a listing over a sharded container.

        :param own: its ``(account, container)``. :param ranges: what it answered: which shard has what, in order, without gaps.
        :param query: that of the listing; ``lower`` and ``upper`` in it are bounds that are no markers.
        """
        if not depth:
            raise Fault(503)
        limit = int(query['limit'])
        backwards = is_true(query.get('reverse', ''))
        out = []
        for span in reversed(ranges) if backwards else ranges:
            if len(out) >= limit:
                break
            wanted = self._part(query, span, out[-1] if out else None, backwards)
            if wanted is None:
                continue
            wanted['limit'] = str(limit - len(out))
            out += self._segment(own, span['name'], wanted, headers, depth)
        return out

    @staticmethod
    def _part(query, span, last, backwards):
        """The query for one shard; None if it can have nothing of what is asked for.

        :param last: the row before, of another shard.
        """
        lower, upper = max(span['lower'], query.get('lower') or ''), span['upper']
        if query.get('upper') and (not upper or query['upper'] < upper):
            upper = query['upper']
        marker = query.get('marker') or ''
        if last is not None:
            marker = last.get('name', last.get('subdir'))
        if last is not None and 'subdir' in last and not backwards and ((after := successor(marker)) is None
                                                                        or (upper and upper < after)):
            return None             # all that is below it has been listed
        if not asked(lower, upper, {**query, 'marker': marker}, backwards):
            return None
        wanted = {name: value for name, value in query.items() if name not in ('lower', 'upper', 'marker')}
        wanted.update({name: value for name, value in (('lower', lower), ('upper', upper), ('marker', marker)) if value})
        return wanted

    def _segment(self, own, name, query, headers, depth):
        target = split(name) if name else own
        kind = 'auto' if target != own else 'object'
        answer = self.ask(*target, query, {**headers, 'X-Backend-Record-Type': kind})
        if answer is None:
            raise Fault(503)        # it is in the ranges, and it is not there: what it lists is not known
        found = orjson.loads(answer.content)
        if answer.headers.get('X-Backend-Record-Type') == 'shard':
            return self.across(target, found, query, headers, depth - 1)
        return found

    # Updates

    def of_object(self, account, container, name):
        """``(account, container)`` of the shard that is told of an object; None: the container itself."""
        key = f'shards/{account}/{container}'
        known = self.cache.get(key)
        if known is None:
            count = self.cache.count(key)
            try:
                answer = self.ask(account, container, {'states': 'updating'}, {'X-Backend-Record-Type': 'shard'})
            except Fault:
                return None         # whoever is told instead says where it belongs
            known = orjson.loads(answer.content) if answer is not None else []
            if answer is None or answer.headers.get('X-Backend-Sharding-State') != 'sharded':
                known = []
            self.cache.set(key, known, count, AGE)
        place, beyond = 0, len(known)
        while place < beyond:
            middle = (place + beyond) // 2
            if known[middle]['upper'] and known[middle]['upper'] < name:
                place = middle + 1
            else:
                beyond = middle
        return split(known[place]['name']) if place < len(known) and known[place]['name'] else None
