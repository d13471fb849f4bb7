"""Subnet pools: prefixes that subnets are cut from, and address scopes, within which addresses are unique."""
import ipaddress

import sqlalchemy as sa

from kodiak.common import db

from . import faults, find, models, quotas

_pools = models.subnetpools
_subnets = models.subnets
_scopes = models.address_scopes
MIN_PREFIXLEN = {4: 8, 6: 64}


def create(unit, values):
    """Make a pool. :returns: its id."""
    quotas.claim(unit, values['project_id'], 'subnetpool')
    pool_id, now = db.new_id(), db.utcnow()
    values['prefixes'] = _prefixes(values['prefixes'])
    version = ipaddress.ip_network(values['prefixes'][0]).version
    row = {**values, 'id': pool_id, 'ip_version': version, 'created_at': now, 'updated_at': now}
    row.update(_lengths({**values, 'ip_version': version}))
    if row.get('is_default'):
        _only_default(unit, row)
    _check_scope(unit, row)
    unit.insert(_pools, row)
    if row.get('shared'):
        find.share(unit, 'subnetpool', pool_id, row['project_id'])
    return pool_id


def _prefixes(texts):
    networks = [ipaddress.ip_network(text, strict=False) for text in texts]
    if not networks:
        raise faults.bad('Unspecified subnetpool prefixes: give at least one.', kind='EmptySubnetPoolPrefixList')
    if len({network.version for network in networks}) > 1:
        raise faults.bad('Cannot mix IPv4 and IPv6 prefixes in a subnet pool.', kind='PrefixVersionMismatch')
    return [str(network) for network in ipaddress.collapse_addresses(networks)]


def _lengths(values):
    version = values['ip_version']
    longest = 32 if version == 4 else 128
    low = values.get('min_prefixlen') or MIN_PREFIXLEN[version]
    high = values.get('max_prefixlen') or longest
    default = values.get('default_prefixlen') or max(low, min(high, low))
    for name, value in (('min_prefixlen', low), ('max_prefixlen', high), ('default_prefixlen', default)):
        if not 0 < value <= longest:
            raise faults.bad(f'Illegal prefix bounds: {name}={value}.', kind='UnsupportedMinSubnetPoolPrefix'
                             if name == 'min_prefixlen' else 'IllegalSubnetPoolPrefixBounds')
    for name, value, other, bound in (
        ('min_prefixlen', low, 'max_prefixlen', high),
        ('min_prefixlen', low, 'default_prefixlen', default),
        ('default_prefixlen', default, 'max_prefixlen', high),
    ):
        if value > bound:
            raise faults.bad(f'Illegal prefix bounds: {name}={value}, {other}={bound}.', kind='IllegalSubnetPoolPrefixBounds')
    return {'min_prefixlen': low, 'max_prefixlen': high, 'default_prefixlen': default}


def _only_default(unit, row):
    found = unit.conn.execute(sa.select(_pools.c.id).where(
        _pools.c.is_default, _pools.c.ip_version == row['ip_version'], _pools.c.id != row['id'])).first()
    if found:
        raise faults.conflict(
            'DefaultSubnetPoolExists', f'A default subnetpool for this IP family has already been set: {found.id}.'
        )


def _check_scope(unit, row):
    if not row.get('address_scope_id'):
        return
    scope = find.row(unit, _scopes, row['address_scope_id'], lock=True)
    if scope['ip_version'] != row['ip_version']:
        raise faults.bad(
            f'Illegal subnetpool association: subnetpool {row["id"]} cannot associate with address scope {scope["id"]} because '
            'subnetpool ip_version is not the same.',
            kind='IllegalSubnetPoolIpVersionAssociationToAddressScope',
        )
    if scope['project_id'] != row['project_id'] and not scope['shared']:
        raise faults.bad(
            f'Illegal subnetpool association: subnetpool {row["id"]} cannot be associated with address scope {scope["id"]}.',
            kind='IllegalSubnetPoolAssociationToAddressScope',
        )
    ours = [ipaddress.ip_network(text) for text in row['prefixes']]
    for other in unit.all(sa.select(_pools).where(_pools.c.address_scope_id == scope['id'], _pools.c.id != row['id'])):
        if any(ipaddress.ip_network(text).overlaps(mine) for text in other['prefixes'] for mine in ours):
            raise faults.conflict(
                'AddressScopePrefixConflict',
                f'Failed to associate address scope: subnetpools within an address scope '
                f'must have unique prefixes; {other["id"]} has some of these.',
            )


def update(unit, row, values):
    """Change a pool; its prefixes can only grow."""
    row = find.row(unit, _pools, row['id'], lock=True)
    changes = {name: value for name, value in values.items() if value != row[name]}
    new = {**row, **changes}
    if 'prefixes' in changes:
        wanted = _prefixes(values['prefixes'])
        new_networks = [ipaddress.ip_network(text) for text in wanted]
        for text in row['prefixes']:
            old = ipaddress.ip_network(text)
            if not any(old.version == one.version and old.subnet_of(one) for one in new_networks):
                raise faults.bad("Illegal update to prefixes: it removes parts of the pool's prefixes.",
                                 kind='IllegalSubnetPoolPrefixUpdate')
        new['prefixes'] = changes['prefixes'] = wanted
    if {'min_prefixlen', 'max_prefixlen', 'default_prefixlen'} & changes.keys():
        changes.update(_lengths(new))
    if changes.get('is_default'):
        _only_default(unit, new)
    if {'address_scope_id', 'prefixes'} & changes.keys():
        _check_scope(unit, new)
    unit.update(_pools, row['id'], changes)
    if 'address_scope_id' in changes:
        column = f"ipv{row['ip_version']}_address_scope"
        unit.conn.execute(
            sa.update(models.networks)
            .where(models.networks.c.id.in_(sa.select(_subnets.c.network_id).where(_subnets.c.subnetpool_id == row['id'])))
            .values({column: changes['address_scope_id']})
        )


def change_prefixes(unit, row, add=(), remove=()):
    """Add prefixes to a pool or take some away that no subnet is cut from. :returns: the prefixes it has then."""
    row = find.row(unit, _pools, row['id'], lock=True)
    prefixes = [ipaddress.ip_network(text) for text in row['prefixes']]
    for text in remove:
        gone, left = ipaddress.ip_network(text, strict=False), []
        for one in prefixes:
            if one.version != gone.version or not one.overlaps(gone):
                left.append(one)
            elif gone.subnet_of(one) and one != gone:
                left += one.address_exclude(gone)
        for subnet in unit.conn.scalars(sa.select(_subnets.c.cidr).where(_subnets.c.subnetpool_id == row['id'])):
            if gone.overlaps(ipaddress.ip_network(subnet)):
                raise faults.bad(
                    f'Illegal update to prefixes: subnet {subnet} is cut from {gone}.', kind='IllegalSubnetPoolPrefixUpdate'
                )
        prefixes = left
    prefixes = _prefixes([*map(str, prefixes), *add])
    if add:
        _check_scope(unit, {**row, 'prefixes': prefixes})
    unit.update(_pools, row['id'], {'prefixes': prefixes})
    return prefixes


def delete(unit, row):
    """Delete a pool that no subnet is cut from.

    :raises Conflict: SubnetPoolDeleteError.
    """
    if unit.conn.execute(sa.select(_subnets.c.id).where(_subnets.c.subnetpool_id == row['id']).limit(1)).first():
        raise faults.bad('Unable to delete subnet pool: Subnet pool has existing allocations.', kind='SubnetPoolDeleteError')
    unit.delete(models.rbac_policies, models.rbac_policies.c.object_id == row['id'])
    unit.delete(_pools, _pools.c.id == row['id'])


def choose(unit, values, network):
    """The pool that a new subnet is to be cut from, as a locked row; None where its CIDR is simply given."""
    pool_id, use_default = values.get('subnetpool_id'), values.get('use_default_subnetpool')
    if pool_id and use_default:
        raise faults.bad('Bad subnets request: subnetpool_id and use_default_subnetpool cannot both be specified.')
    if use_default:
        pool_id = unit.conn.scalar(sa.select(_pools.c.id).where(
            _pools.c.is_default, _pools.c.ip_version == values.get('ip_version', 4)))
        if pool_id is None:
            raise faults.bad(f"Bad subnets request: No default subnetpool found for IPv{values.get('ip_version', 4)}.")
    if not pool_id:
        return None
    pool = find.row(unit, _pools, pool_id, lock=True)
    if values.get('ip_version') and values['ip_version'] != pool['ip_version']:
        raise faults.bad(
            f'Bad subnets request: Cannot allocate IPv{values["ip_version"]} subnet from IPv{pool["ip_version"]} subnet pool.'
        )
    others = unit.all(sa.select(_subnets.c.subnetpool_id).where(
        _subnets.c.network_id == network['id'], _subnets.c.ip_version == pool['ip_version']))
    if any(other['subnetpool_id'] != pool_id for other in others):
        raise faults.bad('Subnets hosted on the same network must be allocated from the same subnet pool.',
                         kind='NetworkSubnetPoolAffinityError')
    return pool


def allocate(unit, pool, values):
    """A CIDR out of a pool: the one that is asked for if it is free, else the first that fits."""
    prefixes = [ipaddress.ip_network(text) for text in pool['prefixes']]
    taken = [ipaddress.ip_network(text) for text in unit.conn.scalars(
        sa.select(_subnets.c.cidr).where(_subnets.c.subnetpool_id == pool['id']))]
    if values.get('cidr'):
        wanted = ipaddress.ip_network(values['cidr'], strict=False)
        length = wanted.prefixlen
    else:
        wanted, length = None, values.get('prefixlen') or pool['default_prefixlen']
    if length < pool['min_prefixlen']:
        raise faults.bad(
            f'Unable to allocate subnet with prefix length {length}, minimum allowed prefix is {pool["min_prefixlen"]}.',
            kind='MinPrefixSubnetAllocationError',
        )
    if length > pool['max_prefixlen']:
        raise faults.bad(
            f'Unable to allocate subnet with prefix length {length}, maximum allowed prefix is {pool["max_prefixlen"]}.',
            kind='MaxPrefixSubnetAllocationError',
        )
    _check_quota(unit, pool, values['project_id'], length)
    if wanted is not None:
        if not any(wanted.version == prefix.version and wanted.subnet_of(prefix) for prefix in prefixes) or any(
                wanted.overlaps(one) for one in taken):
            raise faults.bad('Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.',
                             kind='SubnetAllocationError')
        return str(wanted)
    found = first_free(prefixes, taken, length)
    if found is None:
        raise faults.conflict('SubnetAllocationError',
                              f'Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length}.')
    return found


def first_free(prefixes, taken, length):
    """The first network of a prefix length in ``prefixes`` that overlaps none of ``taken``, as text; None if there is none."""
    taken = sorted((int(one.network_address), int(one.broadcast_address)) for one in taken)
    for prefix in sorted(prefixes):
        if prefix.prefixlen > length:
            continue
        size = 1 << (prefix.max_prefixlen - length)
        start, end = int(prefix.network_address), int(prefix.broadcast_address)
        for first, last in taken:
            if last < start:
                continue
            if first >= start + size or first > end:
                break
            start = (last // size + 1) * size
        if start + size - 1 <= end:
            return f'{type(prefix.network_address)(start)}/{length}'
    return None


def _check_quota(unit, pool, project_id, length):
    """A pool's quota counts addresses (IPv4) or networks of 64 bits (IPv6) of a project."""
    if pool['default_quota'] is None:
        return
    unit_length = 32 if pool['ip_version'] == 4 else 64
    used = sum(1 << max(0, unit_length - int(cidr.rpartition('/')[2])) for cidr in unit.conn.scalars(
        sa.select(_subnets.c.cidr).where(_subnets.c.subnetpool_id == pool['id'], _subnets.c.project_id == project_id)))
    if used + (1 << max(0, unit_length - length)) > pool['default_quota']:
        raise faults.conflict('SubnetPoolQuotaExceeded', 'Per-tenant subnet pool prefix quota exceeded.')


def create_scope(unit, values):
    """Make an address scope. :returns: its id."""
    scope_id, now = db.new_id(), db.utcnow()
    unit.insert(_scopes, {**values, 'id': scope_id, 'created_at': now, 'updated_at': now})
    if values.get('shared'):
        find.share(unit, 'address_scope', scope_id, values['project_id'])
    return scope_id


def update_scope(unit, row, values):
    """Change an address scope, which once shared stays so."""
    if row['shared'] and values.get('shared') is False:
        raise faults.bad(f"Unable to update address scope {row['id']} : Shared address scope can't be unshared.",
                         kind='AddressScopeUpdateError')
    if values.get('shared') and not row['shared']:
        find.share(unit, 'address_scope', row['id'], row['project_id'])
    unit.update(_scopes, row['id'], {name: value for name, value in values.items() if value != row[name]})


def delete_scope(unit, row):
    """Delete an address scope without pools."""
    if unit.conn.execute(sa.select(_pools.c.id).where(_pools.c.address_scope_id == row['id']).limit(1)).first():
        raise faults.conflict(
            'AddressScopeInUse',
            f'Unable to complete operation on address scope {row["id"]}. There are one or more '
            'subnet pools in use on the address scope.',
        )
    unit.delete(models.rbac_policies, models.rbac_policies.c.object_id == row['id'])
    unit.delete(_scopes, _scopes.c.id == row['id'])
