"""How much of a ring each device is to hold."""
import math

TIERS = ('region', 'zone', 'ip', 'id')
EPSILON = 1e-9


def by_weight(devices, parts, total):
    """``{device id: replicas of partitions that its weight stands for}``; no device holds a partition twice."""
    rest = {device['id']: device['weight'] for device in devices if device['weight'] > 0}
    return _level(rest, parts, total, {})


def _level(rest, parts, left, found):
    """Share ``left`` out in proportion; what would be more than all partitions goes to the others."""
    while rest:
        share = left / sum(rest.values())
        full = [number for number, weight in rest.items() if weight * share > parts]
        if not full:
            found.update((number, weight * share) for number, weight in rest.items())
            break
        for number in full:
            found[number] = float(parts)
            left -= parts
            del rest[number]
    return found


def path_of(device):
    """The region, zone, server and device that a device is in, each a key."""
    return tuple(tuple(device[name] for name in TIERS[:depth]) for depth in range(1, len(TIERS) + 1))


def apart(devices, parts, base, overload):
    """The same with replicas as far apart as numbers allow, whatever the weights; as far as no device is to hold more than
    ``1 + overload`` times what its weight stands for.

    :param base: of :func:`by_weight`.
    """
    under, amounts, sizes = {}, {}, {}
    for device in devices:
        if device['id'] in base:
            for above, tier in zip(((), *path_of(device)), path_of(device), strict=False):
                under.setdefault(above, {})[tier] = True
                amounts[tier] = amounts.get(tier, 0) + base[device['id']]
                sizes[tier] = sizes.get(tier, 0) + 1
    found = {}

    def share_out(tier, amount):
        if len(tier) == len(TIERS):
            found[tier[-1]] = amount
            return
        inner = list(under.get(tier, ()))
        total = sum(amounts[each] for each in inner)
        plain = {each: amount * amounts[each] / total for each in inner}
        ideal = _clamped(plain, {each: sizes[each] * parts for each in inner}, amount, parts)
        # As far on the way from the one to the other as the most that is raised may be.
        way = min((max(0.0, amounts[each] * (1 + overload) - plain[each]) / (ideal[each] - plain[each])
                   for each in inner if ideal[each] > plain[each] + EPSILON), default=1.0)
        for each in inner:
            share_out(each, plain[each] + min(1.0, way) * (ideal[each] - plain[each]))
    share_out((), sum(base.values()))
    return _level({number: amount for number, amount in found.items() if amount > 0}, parts, sum(base.values()), {})


def _clamped(plain, sizes, amount, parts):
    """Shares in proportion to ``plain``, none of which has a replica more of a partition than it must, or fewer than it can."""
    least = math.floor(amount / parts / len(plain) + EPSILON) * parts
    most = math.ceil(amount / parts / len(plain) - EPSILON) * parts
    while sum(min(size, most) for size in sizes.values()) < amount - EPSILON:
        most += parts
    low = {each: min(size, least) for each, size in sizes.items()}
    high = {each: min(size, most) for each, size in sizes.items()}

    def at(factor):
        return {each: min(high[each], max(low[each], share * factor)) for each, share in plain.items()}
    under, over = 0.0, 1.0
    while sum(at(over).values()) < amount - EPSILON and over < 1e12:
        over *= 2
    for _ in range(80):
        middle = (under + over) / 2
        if sum(at(middle).values()) < amount:
            under = middle
        else:
            over = middle
    return at(over)
