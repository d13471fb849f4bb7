"""Giving out addresses: no scan, and no race.

A subnet's free addresses are ranges (``free_ranges``). The next address is the beginning of the first range, which is
shortened; one that was asked for is cut out of its range; one that is given back becomes a range behind all others.
Each costs one or two statements however large or full the subnet is. The primary key of ``allocations`` settles
whatever else could go wrong. Where the database has several writers at once, each takes a range that no other holds.
"""
import ipaddress

import sqlalchemy as sa

from . import faults, models
from .unit import Again

SPLIT = 8           # ranges that a large pool is cut into, so that as many writers find one of their own
LARGE = 256         # addresses from which a pool is cut

_ranges = models.free_ranges.c
_allocations = models.allocations.c


def code(address):
    """An address as text whose order is the order of addresses: 8 digits for IPv4, 32 for IPv6."""
    address = ipaddress.ip_address(address)
    return f'{int(address):08x}' if address.version == 4 else f'{int(address):032x}'


def decode(text):
    """The address of a code, in its canonical form."""
    number = int(text, 16)
    return str(ipaddress.IPv4Address(number) if len(text) == 8 else ipaddress.IPv6Address(number))


def _shift(text, by):
    return f'{int(text, 16) + by:0{len(text)}x}'


def eui64(cidr, mac):
    """The address that a host with that MAC address gives itself on an IPv6 network."""
    number = int(mac.replace(':', ''), 16)
    interface = ((number >> 24) << 40 | 0xfffe << 24 | number & 0xffffff) ^ (1 << 57)
    return str(ipaddress.IPv6Network(cidr)[0] + interface)


def is_automatic(subnet):
    """True if hosts make their own addresses on a subnet, from router advertisements."""
    return subnet['ipv6_address_mode'] in ('slaac', 'dhcpv6-stateless')


def open_pools(unit, subnet_id, pools):
    """Make the addresses of a new subnet's ``pools`` (``[{'start', 'end'}, ...]``) free."""
    unit.insert(models.free_ranges, [{'subnet_id': subnet_id, 'first': first, 'last': last}
                                     for first, last in _cut([(code(pool['start']), code(pool['end'])) for pool in pools])])


def _cut(ranges):
    """The ranges, large ones in pieces."""
    pieces = []
    for first, last in ranges:
        size = int(last, 16) - int(first, 16) + 1
        count = SPLIT if size >= LARGE else 1
        step = size // count
        for index in range(count):
            start = _shift(first, index * step)
            pieces.append((start, last if index == count - 1 else _shift(start, step - 1)))
    return pieces


def replace_pools(unit, subnet_id, pools):
    """Change the pools of a subnet: what is free and what goes back is worked out anew."""
    table = models.allocations
    unit.delete(models.free_ranges, _ranges.subnet_id == subnet_id)
    taken = sorted(unit.conn.scalars(sa.select(_allocations.address).where(_allocations.subnet_id == subnet_id)))
    free, inside = [], []
    for first, last in sorted((code(pool['start']), code(pool['end'])) for pool in pools):
        inside.append(_allocations.address.between(first, last))
        for address in taken:
            if first <= address <= last:
                if first < address:
                    free.append((first, _shift(address, -1)))
                first = _shift(address, 1)
        if first <= last:
            free.append((first, last))
    unit.insert(models.free_ranges, [{'subnet_id': subnet_id, 'first': first, 'last': last} for first, last in _cut(free)])
    unit.conn.execute(sa.update(table).where(_allocations.subnet_id == subnet_id)
                      .values(pooled=sa.case((sa.or_(sa.false(), *inside), True), else_=False)))


def take_next(unit, subnet_ids):
    """The next free address of any of some subnets. :returns: ``(subnet id, address)``, or None where all are used up."""
    query = sa.select(models.free_ranges).where(_ranges.subnet_id.in_(subnet_ids)).order_by(_ranges.id).limit(1)
    row = None
    if unit.conn.dialect.name != 'sqlite':
        row = unit.conn.execute(query.with_for_update(skip_locked=True)).first()
    if row is None:
        row = unit.conn.execute(query.with_for_update()).first()
        if row is None:
            return None
    if not _shorten(unit, row, row.first):
        raise Again()
    return row.subnet_id, decode(row.first)


def _shorten(unit, row, address):
    """Cut ``address`` out of the free range ``row``; False if another was faster."""
    table, same = models.free_ranges, sa.and_(_ranges.id == row.id, _ranges.first == row.first, _ranges.last == row.last)
    if row.first == row.last:
        return unit.conn.execute(sa.delete(table).where(same)).rowcount
    if address == row.first:
        return unit.conn.execute(sa.update(table).where(same).values(first=_shift(address, 1))).rowcount
    if not unit.conn.execute(sa.update(table).where(same).values(last=_shift(address, -1))).rowcount:
        return False
    if address < row.last:
        unit.insert(table, {'subnet_id': row.subnet_id, 'first': _shift(address, 1), 'last': row.last})
    return True


def take(unit, subnet_id, address):
    """Take one particular address out of what is free. :returns: True if it was in a pool, False if it lies outside.

    Whether somebody has it is settled by inserting the allocation.
    """
    wanted = code(address)
    row = unit.conn.execute(
        sa.select(models.free_ranges).where(_ranges.subnet_id == subnet_id, _ranges.first <= wanted)
        .order_by(_ranges.first.desc()).limit(1).with_for_update()).first()
    if row is None or row.last < wanted:
        return False
    if not _shorten(unit, row, wanted):
        raise Again()
    return True


def allocate(unit, port_id, network_id, chosen):
    """Write the allocations of a port.

    :param chosen: ``[(subnet id, address, pooled), ...]``.
    :raises Conflict: IpAddressInUse.
    """
    if not chosen:
        return
    explicit = [(subnet_id, code(address)) for subnet_id, address, pooled in chosen if not pooled]
    if explicit:
        taken = unit.conn.execute(sa.select(_allocations.ip_address).where(sa.or_(*(
            sa.and_(_allocations.subnet_id == subnet_id, _allocations.address == address)
            for subnet_id, address in explicit)))).scalar()
        if taken is not None:
            raise faults.address_in_use(taken, network_id)
    unit.insert(models.allocations, [
        {'subnet_id': subnet_id, 'address': code(address), 'ip_address': address, 'port_id': port_id, 'pooled': pooled}
        for subnet_id, address, pooled in chosen])


def release(unit, port_ids, keep=()):
    """Give the addresses of ports back, except those of ``keep`` (``[(subnet id, address), ...]``)."""
    query = sa.select(models.allocations).where(_allocations.port_id.in_(port_ids))
    rows = [row for row in unit.conn.execute(query) if (row.subnet_id, row.ip_address) not in keep]
    if not rows:
        return
    if keep:
        unit.delete(models.allocations, sa.or_(*(
            sa.and_(_allocations.subnet_id == row.subnet_id, _allocations.address == row.address) for row in rows)))
    else:
        unit.delete(models.allocations, _allocations.port_id.in_(port_ids))
    unit.insert(models.free_ranges, [{'subnet_id': row.subnet_id, 'first': row.address, 'last': row.address}
                                     for row in rows if row.pooled])
