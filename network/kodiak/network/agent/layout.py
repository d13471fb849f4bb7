"""Links, addresses and routes as data: what each network namespace should hold, what it holds, and the difference.

A layout is ``{namespace name: Namespace}``; the agent's own namespace is ``''``. :func:`diff` turns two layouts into
operations, which ``kodiak.network.agent.root`` carries out. Nothing here touches the host.
"""
import zlib
from dataclasses import dataclass, field

from kodiak.network.agent import names


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.

    A pair of veths is written at its end outside of the namespace: ``peer`` is (namespace, name) of the other end,
    which has an entry of its own with ``kind='inner'``.
    """

    kind: str                           # bridge, vxlan, tap, ifb, veth, inner; of other kinds it is not ours
    mtu: int | None = None              # None: as it is
    up: bool = True
    master: str | None = None
    mac: str | None = None              # None: as it is
    ipv6: bool = False                  # whether the kernel may form IPv6 addresses on it
    peer: tuple[str, str] | None = None
    vni: int | None = None
    local: str | None = None            # the address that a vxlan device sends from
    owner: int | None = None            # uid that may open a tap
    limit: tuple | None = None          # what it sends, at most: (kilobits a second, burst in kilobits)
    mark: int | None = None             # tells one limit from another, see limited()
    funnel: str | None = None           # device that what comes in is led through first


def limited(rate, burst=None):
    """``limit`` and ``mark`` of a :class:`Link`; both None without a rate.

    :param rate: kilobits a second. :param burst: kilobits; 80 % of the rate if None or 0, which lets TCP reach the rate.
    """
    if not rate:
        return {'limit': None, 'mark': None}
    limit = (int(rate), int(burst or max(rate * 0.8, 16)))
    return {'limit': limit, 'mark': zlib.crc32(repr(limit).encode()) % 0xfffe + 1}


@dataclass(slots=True)
class Namespace:
    links: dict = field(default_factory=dict)           # name: Link
    addresses: dict = field(default_factory=dict)       # interface: set of 'address/prefix'; lo's own ones left out
    routes: dict = field(default_factory=dict)          # (destination, gateway or '', device or ''): device, onlink
    fdb: dict = field(default_factory=dict)             # vxlan device: set of (mac, remote address)
    sysctls: dict = field(default_factory=dict)         # path below /proc/sys: value
    owner: tuple | None = None                          # (kind, id) of the document that wants it
    owners: dict = field(default_factory=dict)          # interface: (kind, id) that wants it

    def add(self, name, link, owner):
        self.links[name] = link
        self.owners[name] = owner


@dataclass(frozen=True, slots=True)
class Action:
    """One operation, and the document that it is for; None if it is for nobody, such as a removal."""

    op: tuple
    owner: tuple | None = None


# What a device can't be changed in: it is made anew.
FIXED = {'vxlan': ('vni', 'local'), 'tap': ('owner',)}


def _rebuilt(want, have):
    """True if a link has to be removed and made anew to become what it should be."""
    if want.kind != have.kind:
        return True
    return any(getattr(want, name) != getattr(have, name) for name in FIXED.get(want.kind, ()))


def _removals(wanted, observed):
    """What has to go first, so that nothing loses its filters before it loses its link."""
    host, have = wanted[names.HOST], observed[names.HOST]
    doomed = {name for name in observed if name not in wanted and names.OUR_NAMESPACE.match(name)}
    for name, link in have.links.items():
        if not names.OUR_LINK.match(name):
            continue
        want = host.links.get(name)
        if want is None or _rebuilt(want, link):
            yield Action(('link.delete', names.HOST, name))
        elif want.kind == 'veth':
            inner = observed.get(want.peer[0])
            if inner is None or want.peer[1] not in inner.links:
                yield Action(('link.delete', names.HOST, name))
    for name in sorted(doomed):
        yield Action(('namespace.delete', name))


def _changes(want, have):
    """The properties in which an existing link differs: {name: value}."""
    changes = {}
    for name in ('mtu', 'mac', 'master'):
        value = getattr(want, name)
        if value != getattr(have, name) and (value is not None or name == 'master'):
            changes[name] = value
    if want.mark != have.mark:
        changes['limit'] = (*want.limit, want.mark) if want.limit else None
    if want.funnel != have.funnel:
        changes['funnel'] = want.funnel
    if want.ipv6 != have.ipv6:
        changes['ipv6'] = want.ipv6
    if want.up != have.up:
        changes['up'] = want.up
    return changes


def _links(ns, want, have, gone):
    """Actions for the links of one namespace; ``gone`` are names that were just removed."""
    order = {'bridge': 0, 'vxlan': 1, 'ifb': 2, 'veth': 3, 'inner': 4, 'tap': 5}
    for name, link in sorted(want.links.items(), key=lambda item: (order[item[1].kind], item[0])):
        owner = want.owners[name]
        known = have.links.get(name) if name not in gone else None
        if known is None and link.kind != 'inner':
            yield Action(('link.add', ns, name, _spec(link)), owner)
        elif known is None:
            # It comes with its outer end, which was made just now: the rest of its properties follow.
            yield Action(('link.set', ns, name, _changes(link, Link('inner', up=False, ipv6=True))), owner)
        else:
            changes = _changes(link, known)
            if changes:
                yield Action(('link.set', ns, name, changes), owner)


def _spec(link):
    """A link as a plain dictionary without what is not set."""
    spec = {'kind': link.kind, 'up': link.up, 'ipv6': link.ipv6}
    for name in ('mtu', 'master', 'mac', 'peer', 'vni', 'local', 'owner', 'funnel'):
        value = getattr(link, name)
        if value is not None:
            spec[name] = value
    if link.limit:
        spec['limit'] = (*link.limit, link.mark)
    return spec


def _addresses(ns, want, have, fresh):
    for name, wanted in want.addresses.items():
        known = set() if name in fresh else have.addresses.get(name, set())
        owner = want.owners.get(name, want.owner)
        for cidr in sorted(wanted - known):
            yield Action(('address.add', ns, name, cidr), owner)
        for cidr in sorted(known - wanted):
            yield Action(('address.delete', ns, name, cidr), owner)


def _routes(ns, want, have):
    for key in sorted(have.routes.keys() - want.routes.keys()):
        yield Action(('route.delete', ns, *key), want.owner)
    for key in sorted(want.routes.keys() - have.routes.keys(), key=lambda key: (bool(key[1]), key)):
        device, onlink = want.routes[key]
        yield Action(('route.add', ns, key[0], key[1], device, onlink), want.owner)


def _fdb(ns, want, have, fresh):
    for name, entries in want.fdb.items():
        known = set() if name in fresh else have.fdb.get(name, set())
        for mac, remote in sorted(entries - known):
            yield Action(('fdb.add', ns, name, mac, remote), want.owners[name])
        for mac, remote in sorted(known - entries):
            yield Action(('fdb.delete', ns, name, mac, remote), want.owners[name])


def diff(wanted, observed):
    """The actions that turn one layout into the other.

    :returns: (removals, namespaces, rest): three lists of :class:`Action`. Filters belong between the second and the
        third: after it, nothing may be without its filters for a moment.
    """
    removals = list(_removals(wanted, observed))
    gone = {action.op[2] for action in removals if action.op[0] == 'link.delete'}
    created, rest = [], []
    empty = Namespace()
    for name, want in wanted.items():
        have = observed.get(name)
        if have is None:
            created.append(Action(('namespace.add', name), want.owner))
        for key, value in sorted(want.sysctls.items()):
            if have is None or have.sysctls.get(key) != value:
                created.append(Action(('sysctl', name, key, value), want.owner))
    host = wanted[names.HOST]
    orphaned = {host.links[name].peer for name in gone if name in host.links and host.links[name].kind == 'veth'}
    lost = {name: {inner for ns, inner in orphaned if ns == name} for name in wanted}
    lost[names.HOST] |= gone
    # The host first: what it makes reaches into the other namespaces.
    for name in sorted(wanted):
        want, have = wanted[name], observed.get(name, empty)
        rest += _links(name, want, have, lost[name])
    for name in sorted(wanted):
        want, have = wanted[name], observed.get(name, empty)
        # Whatever had to be made anew has lost what stood on it; so have routes that went through it.
        fresh = {one for one in want.links if one in lost[name] or one not in have.links}
        rest += _addresses(name, want, have, fresh)
        rest += _fdb(name, want, have, fresh)
        if name != names.HOST:
            if fresh:
                have = Namespace(routes={key: value for key, value in have.routes.items() if value[0] not in fresh})
            rest += _routes(name, want, have)
    return removals, created, rest
