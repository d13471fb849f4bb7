"""Spans of names: which part of a sharded container's names is in which shard.

A range covers the names after ``lower`` up to and with ``upper``, in the order of their UTF-8 bytes; '' is no bound.
"""
import bisect
import typing

from .proxy.http import quote, unquote

FOUND, CREATED, CLEAVED, ACTIVE, SHRINKING, SHARDING, SHARDED, SHRUNK = range(10, 90, 10)
STATES = {FOUND: 'found', CREATED: 'created', CLEAVED: 'cleaved', ACTIVE: 'active', SHRINKING: 'shrinking', SHARDING: 'sharding',
          SHARDED: 'sharded', SHRUNK: 'shrunk'}
PREFIX = '.shards_'
ROOT = 'X-Container-Sysmeta-Shard-Quoted-Root'
PARENT = 'X-Container-Sysmeta-Shard-Quoted-Parent'
ENABLED = 'X-Container-Sysmeta-Sharding'
DEPTH = 6               # shards of shards that are followed


class Range(typing.NamedTuple):
    """A range of names, and the container (``account/container``) that has them."""

    name: str
    stamp: str                  # when its bounds were set, or it was deleted
    lower: str = ''
    upper: str = ''
    objects: int = 0
    bytes: int = 0
    meta_stamp: str = ''        # when the counts were told
    state: int = FOUND
    state_stamp: str = ''
    deleted: int = 0
    epoch: str = ''             # of a container's own range: when it was last decided to cut it up

    def holds(self, name):
        """Whether a name is in it."""
        return self.lower < name and (not self.upper or name <= self.upper)

    def covers(self, other):
        """Whether all names of another range are in it."""
        return self.lower <= other.lower and (not self.upper or bool(other.upper and other.upper <= self.upper))

    def meets(self, other):
        """Whether some name may be in both."""
        return (not self.upper or other.lower < self.upper) and (not other.upper or self.lower < other.upper)

    def merged(self, other):
        """What holds of two versions, whichever comes first: bounds, counts and state each from the newest."""
        one, two = (self.stamp, self.deleted, self.lower, self.upper), (other.stamp, other.deleted, other.lower, other.upper)
        bounds = max(one, two)
        counts = max((self.meta_stamp, self.objects, self.bytes), (other.meta_stamp, other.objects, other.bytes))
        state = max((self.state_stamp, self.state, self.epoch), (other.state_stamp, other.state, other.epoch))
        return Range(self.name, bounds[0], bounds[2], bounds[3], counts[1], counts[2], counts[0], state[1], state[0], bounds[1],
                     state[2])

    def wire(self):
        """As JSON has it."""
        return {'name': self.name, 'timestamp': self.stamp, 'lower': self.lower, 'upper': self.upper, 'object_count': self.objects,
                'bytes_used': self.bytes, 'meta_timestamp': self.meta_stamp, 'state': self.state,
                'state_timestamp': self.state_stamp, 'deleted': self.deleted, 'epoch': self.epoch}

    @classmethod
    def of(cls, body):
        """From JSON; raises ValueError for what is none."""
        try:
            made = cls(body['name'], body['timestamp'], body['lower'], body['upper'], int(body.get('object_count', 0)),
                       int(body.get('bytes_used', 0)), body.get('meta_timestamp') or '', int(body.get('state', FOUND)),
                       body.get('state_timestamp') or body['timestamp'], int(body.get('deleted', 0)), body.get('epoch') or '')
        except (KeyError, TypeError) as error:
            raise ValueError(f'no shard range: {error}') from None
        if made.state not in STATES or '/' not in made.name or (made.upper and made.lower >= made.upper):
            raise ValueError(f'no shard range: {body["name"]!r}')
        return made


def successor(text):
    """The least string that is after all that begin with ``text``; None if there is none."""
    while text:
        code = ord(text[-1]) + 1
        if code <= 0x10FFFF:
            return text[:-1] + chr(0xE000 if code == 0xD800 else code)
        text = text[:-1]
    return None


def segments(ranges, lower='', upper=''):
    """Cut ``(lower, upper]`` up: ``[(lower, upper, range)]`` in order, without overlap or gap; range is None where there is none.

    Where several cover a name, it is in the one that is shrinking (its rows go to the other), or in the newest.
    """
    live = sorted((r for r in ranges if not (r.upper and r.upper <= lower) and not (upper and r.lower >= upper)),
                  key=lambda r: r.lower)
    points = sorted({lower, *(r.lower for r in live if r.lower > lower),
                     *(r.upper for r in live if r.upper and (not upper or r.upper < upper))})
    out, place, active = [], 0, []
    for start, stop in zip(points, [*points[1:], upper], strict=True):
        while place < len(live) and live[place].lower <= start:
            active.append(live[place])
            place += 1
        active = [r for r in active if not r.upper or r.upper > start]
        chosen = max(active, key=lambda r: (r.state == SHRINKING, r.stamp, r.name), default=None)
        if out and out[-1][2] is chosen:
            out[-1] = (out[-1][0], stop, chosen)
        else:
            out.append((start, stop, chosen))
    return out


def asked(lower, upper, query, backwards):
    """Whether a listing may show some of ``(lower, upper]``. ``query``: ``marker``, ``end_marker``, ``prefix``, ``path``."""
    marker, end, prefix = (query.get(name) or '' for name in ('marker', 'end_marker', 'prefix'))
    if query.get('path'):
        prefix = query['path'].rstrip('/') + '/'
    if prefix and ((upper and upper < prefix) or ((after := successor(prefix)) is not None and lower >= after)):
        return False
    first, beyond = (end, marker) if backwards else (marker, end)
    return not ((upper and first and upper <= first) or (beyond and lower >= beyond))


class Plan:
    """Segments that can be looked up."""

    def __init__(self, cut):
        self.segments = cut
        self._lowers = [lower for lower, _, _ in cut]

    def find(self, name):
        """The range that has a name; None if there is none."""
        place = bisect.bisect_left(self._lowers, name) - 1
        if place < 0:
            return None
        _, upper, found = self.segments[place]
        return found if not upper or name <= upper else None


def split(name):
    """``(account, container)`` of a range's name."""
    account, _, container = name.partition('/')
    return account, container


def quoted(account, container):
    """The value of the header that names a container."""
    return f'{quote(account)}/{quote(container)}'


def unquoted(value):
    """``(account, container)`` of such a header; None if it is none."""
    account, slash, container = unquote(value.strip('/')).partition('/')
    return (account, container) if account and slash and container else None


def root_of(info, header=ROOT):
    """``(account, container)`` of the root of a shard, from its info; None if it is no shard. ``PARENT``: what it was cut from."""
    value = info['metadata'].get(header, ('', ''))[0]
    return unquoted(value) if value else None
