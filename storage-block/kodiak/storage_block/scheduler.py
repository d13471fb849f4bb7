"""Which back end a volume goes to.

Filters leave those that can take it, in an order that makes a refusal say the most; of the rest the one with the most room is
taken. :func:`place` runs inside the transaction that writes the volume's back end: that row is the claim.
"""
import collections
import dataclasses
import datetime
import operator
import re

import sqlalchemy as sa

from kodiak.common import db, errors

from . import types
from .models import backends, services, snapshots, volumes

BINARY, BACKUP_BINARY = 'cinder-volume', 'cinder-backup'
#: Keys of extra specs that say something other than what a back end must be capable of.
UNSCOPED = ('multiattach',)
#: How extra specs compare; a lone ``=`` is at least, as it always was.
COMPARED = {'==': operator.eq, '!=': operator.ne, '>=': operator.ge, '<=': operator.le, '<': operator.lt, '>': operator.gt,
            '=': operator.ge}


class NoValidBackend(errors.Conflict):
    """No back end can take it; the message says which filter dropped how many."""


@dataclasses.dataclass
class Wish:
    """What is asked for. ``backend``: it must be there (a clone beside its source); ``avoid``: it must not be there."""

    size: int
    zone: str | None = None
    extra_specs: dict = dataclasses.field(default_factory=dict)
    multiattach: bool = False
    hints: dict = dataclasses.field(default_factory=dict)
    backend: str | None = None
    avoid: tuple = ()


@dataclasses.dataclass
class Pool:
    """A back end with what is placed on it."""

    name: str
    zone: str
    stats: dict
    up: bool
    disabled: bool
    provisioned: float

    @property
    def thin(self):
        return bool(self.stats.get('thin'))

    @property
    def ratio(self):
        return float(self.stats.get('max_over_subscription_ratio') or 1.0) if self.thin else 1.0

    def room(self):
        """GiB that may still be placed on it; infinity where it doesn't say."""
        total, free = self.stats.get('total_gb'), self.stats.get('free_gb')
        if not isinstance(total, (int, float)) or not isinstance(free, (int, float)):
            return float('inf')
        reserved = total * (self.stats.get('reserved_percentage') or 0) / 100.0
        if not self.thin:
            return free - reserved
        return min(total * self.ratio - self.provisioned - reserved, max(free - reserved, 0) * self.ratio)

    def capabilities(self):
        """What extra specs are compared with."""
        stats, short = self.stats, self.name.partition('@')[2]
        return {'volume_backend_name': short, 'pool_name': short, 'storage_protocol': stats.get('protocol'),
                'vendor_name': stats.get('vendor'), 'driver': stats.get('driver'),
                'thin_provisioning_support': self.thin, 'thick_provisioning_support': not self.thin,
                'multiattach': bool(stats.get('multiattach')), 'online_extend_support': bool(stats.get('online_extend')),
                'QoS_support': bool(stats.get('qos')), 'total_capacity_gb': stats.get('total_gb'),
                'free_capacity_gb': stats.get('free_gb'), **(stats.get('capabilities') or {})}


def pools(connection, conf, lock=False):
    """Every back end as a :class:`Pool`, by name."""
    if lock:
        connection.execute(sa.select(backends.c.name).order_by(backends.c.name).with_for_update()).all()
    rows = connection.execute(sa.select(backends, services.c.disabled).outerjoin(
        services, sa.and_(services.c.host == backends.c.name, services.c.binary == BINARY)).order_by(backends.c.name)).all()
    thin = {row.name for row in rows if row.stats.get('thin')}
    sizes = collections.Counter()
    for column, size in ((volumes.c.backend, volumes.c.claimed), (volumes.c.target, volumes.c.claimed),
                         (snapshots.c.backend, snapshots.c.size)):
        for name, total in connection.execute(sa.select(column, sa.func.sum(size)).where(column.is_not(None)).group_by(column)):
            # A snapshot on a thin back end shares what it has with its volume.
            if column is not snapshots.c.backend or name not in thin:
                sizes[name] += int(total)
    horizon = db.utcnow() - datetime.timedelta(seconds=conf.storage_block.agent_down_time)
    return {row.name: Pool(row.name, row.zone, row.stats, row.seen_at > horizon and not row.stats.get('error'),
                           bool(row.disabled) or row.frozen, sizes[row.name]) for row in rows}


def is_up(connection, conf, backend):
    """True if the agent of a back end was heard of lately, and the back end works."""
    row = connection.execute(sa.select(backends.c.seen_at, backends.c.stats).where(backends.c.name == backend)).first()
    return row is not None and not row.stats.get('error') and \
        row.seen_at > db.utcnow() - datetime.timedelta(seconds=conf.storage_block.agent_down_time)


def zone_of(connection, backend):
    """The availability zone of a back end."""
    return connection.scalar(sa.select(backends.c.zone).where(backends.c.name == backend))


def place(connection, conf, wish):
    """The name of the back end for a volume. :raises NoValidBackend: none can take it."""
    found = list(pools(connection, conf, lock=True).values())
    near, zones = _near(connection, wish.hints), types.zones_of(wish.extra_specs)
    dropped = []
    for name, keep in (
            ('is up', lambda pool: pool.up), ('is enabled', lambda pool: not pool.disabled),
            ('is where the source is', lambda pool: wish.backend in (None, pool.name)),
            ('is another one', lambda pool: pool.name not in wish.avoid),
            (f'is in the zone {wish.zone}', lambda pool: wish.zone in (None, pool.zone)),
            ('is in a zone of the volume type', lambda pool: not zones or pool.zone in zones),
            ('has what the volume type asks for', lambda pool: fits(wish.extra_specs, pool.capabilities())),
            ('can attach a volume to several servers', lambda pool: not wish.multiattach or pool.stats.get('multiattach')),
            ('is beside the volumes hinted at', lambda pool: near is None or not near[0] or pool.name in near[0]),
            ('is away from the volumes hinted at', lambda pool: near is None or pool.name not in near[1]),
            (f'has room for {wish.size} GiB', lambda pool: pool.room() >= wish.size)):
        left = [pool for pool in found if keep(pool)]
        if not left and found:
            raise NoValidBackend(_refusal(name, found, dropped, wish))
        if len(left) < len(found):
            dropped.append((len(found) - len(left), name))
        found = left
    if not found:
        raise NoValidBackend('No back end is registered. Ask the operator whether its agent runs.')
    return max(found, key=lambda pool: (pool.room(), -pool.provisioned, pool.name)).name


def _refusal(name, found, dropped, wish):
    said = ''.join(f', {count} that did not pass "{earlier}"' for count, earlier in dropped)
    text = f'No valid back end was found: none of {len(found)} {name}{said and " (apart from" + said[1:] + ")"}.'
    if name.startswith('has room'):
        text += f' The nearest has room for {max(int(max(pool.room(), 0)) for pool in found)} GiB.'
    elif name.startswith('has what'):
        missing = min((unmet(wish.extra_specs, pool.capabilities()) for pool in found), key=len)
        text += f' The nearest lacks {", ".join(missing)}.'
    return text


def _near(connection, hints):
    same, different = _ids(hints.get('same_host')), _ids(hints.get('different_host'))
    if not same and not different:
        return None
    where = dict(connection.execute(sa.select(volumes.c.id, volumes.c.backend).where(volumes.c.id.in_(same + different))).all())
    return {where[one] for one in same if where.get(one)}, {where[one] for one in different if where.get(one)}


def _ids(value):
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def fits(extra_specs, capabilities):
    """True if capabilities are all that extra specs ask for."""
    return not unmet(extra_specs, capabilities)


def unmet(extra_specs, capabilities):
    """The keys of extra specs that capabilities do not meet."""
    found = []
    for key, asked in extra_specs.items():
        scope, _, name = key.rpartition(':')
        if (scope and scope != 'capabilities') or name in UNSCOPED:
            continue
        if not _meets(capabilities.get(name), str(asked)):
            found.append(name)
    return found


def _meets(has, asked):
    words = asked.split()
    if words and words[0] == '<is>':
        return bool(has) is (''.join(words[1:]).lower() in ('true', '1', 'yes'))
    if words and words[0] == '<in>':
        return asked[4:].strip() in str(has)
    if words and words[0] == '<or>':
        return str(has) in [part.strip() for part in asked.split('<or>') if part.strip()]
    compared = re.match(r'^(s==|s!=|s<=|s>=|s<|s>|==|!=|>=|<=|=)\s*(.+)$', asked)
    if compared:
        sign, value = compared.groups()
        if sign.startswith('s'):
            return has is not None and COMPARED[sign[1:]](str(has), value)
        try:
            has, value = float(has), float(value)
        except (TypeError, ValueError):
            return False
        return COMPARED[sign](has, value)
    if isinstance(has, bool):
        return asked.lower() == str(has).lower()
    return has is not None and str(has) == asked

