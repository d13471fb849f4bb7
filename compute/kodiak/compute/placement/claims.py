"""Who uses what: consumers and their allocations.

A claim checks and takes capacity in one transaction. ``inventories.used`` follows the allocations row by row, here and
nowhere else.
"""
import sqlalchemy as sa

from kodiak.common import db, errors

from ..models import placement as models
from . import classes, providers

P, I, C, AL = models.providers, models.inventories, models.consumers, models.allocations


class NoCapacity(errors.Conflict):
    """A provider lacks what a claim asks of it."""


def consumer(connection, uuid):
    """The consumer's row as a dictionary, or None."""
    return db.one(connection, sa.select(C).where(C.c.uuid == uuid))


def of_consumer(connection, uuid):
    """``{provider uuid: {'resources': {class: amount}, 'generation': n}}`` of a consumer."""
    rows = connection.execute(
        sa.select(P.c.uuid, P.c.generation, AL.c.resource_class, AL.c.used)
        .join(P, P.c.id == AL.c.provider_id).where(AL.c.consumer_uuid == uuid).order_by(P.c.uuid, AL.c.resource_class))
    found = {}
    for provider_uuid, generation, name, used in rows:
        entry = found.setdefault(provider_uuid, {'resources': {}, 'generation': generation})
        entry['resources'][name] = used
    return found


def of_provider(connection, provider):
    """``{consumer uuid: {'resources': {class: amount}, 'generation', 'consumer_type'}}`` of a provider."""
    rows = connection.execute(
        sa.select(C.c.uuid, C.c.generation, C.c.consumer_type, AL.c.resource_class, AL.c.used)
        .join(C, C.c.uuid == AL.c.consumer_uuid).where(AL.c.provider_id == provider['id']))
    found = {}
    for uuid, generation, consumer_type, name, used in rows:
        entry = found.setdefault(uuid, {'resources': {}, 'consumer_generation': generation, 'consumer_type': consumer_type})
        entry['resources'][name] = used
    return found


def replace(connection, wanted):
    """Make the allocations of some consumers what ``wanted`` says, all or none.

    :param wanted: ``{consumer uuid: {'allocations': {provider uuid: {class: amount}}, 'project_id', 'user_id',
        'consumer_type', 'check': expected consumer generation, or True for whatever it is, or None for "is new"}}``.
    :raises NoCapacity: (409) where a provider lacks room or an amount breaks min_unit, max_unit or step_size.
    :raises BadRequest: for providers or classes that aren't there; :raises Conflict: for consumer generations.
    """
    names = {provider for entry in wanted.values() for provider in entry['allocations']}
    rows = connection.execute(sa.select(P.c.uuid, P.c.id, P.c.generation).where(P.c.uuid.in_(names))).all() if names else []
    ids = {row.uuid: row.id for row in rows}
    missing = sorted(names - set(ids))
    if missing:
        raise errors.BadRequest(f"Allocation for resource provider '{missing[0]}' that does not exist.")
    delta, touched, fresh = {}, {row.id for row in rows}, {}
    now = db.utcnow()
    for uuid, entry in wanted.items():
        _consumer(connection, uuid, entry, now)
        for provider_id, name, used in connection.execute(
                sa.select(AL.c.provider_id, AL.c.resource_class, AL.c.used).where(AL.c.consumer_uuid == uuid)):
            delta[provider_id, name] = delta.get((provider_id, name), 0) - used
            touched.add(provider_id)
        for provider_uuid, resources in entry['allocations'].items():
            for name, amount in resources.items():
                key = (ids[provider_uuid], name)
                delta[key] = delta.get(key, 0) + amount
                fresh.setdefault(key, []).append(amount)
    _take(connection, delta, fresh, {row.id: row.uuid for row in rows})
    connection.execute(AL.delete().where(AL.c.consumer_uuid.in_(list(wanted))))
    inserts = [{'consumer_uuid': uuid, 'provider_id': ids[provider], 'resource_class': name, 'used': amount}
               for uuid, entry in wanted.items() for provider, resources in entry['allocations'].items()
               for name, amount in resources.items()]
    if inserts:
        connection.execute(AL.insert(), inserts)
    empty = [uuid for uuid, entry in wanted.items() if not entry['allocations']]
    if empty:
        connection.execute(C.delete().where(C.c.uuid.in_(empty)))
    if touched:
        connection.execute(P.update().where(P.c.id.in_(touched)).values(generation=P.c.generation + 1, updated_at=now))
        providers.refresh(connection, touched)


def _consumer(connection, uuid, entry, now):
    found, check = consumer(connection, uuid), entry.get('check', True)
    if check is not True:
        have = found['generation'] if found else None
        if have != check:
            raise errors.Conflict(f'consumer generation conflict - expected {"null" if have is None else have} but got '
                                  f'{"null" if check is None else check}', kind='placement.concurrent_update')
    values = {'project_id': entry.get('project_id'), 'user_id': entry.get('user_id'), 'updated_at': now}
    if 'consumer_type' in entry:
        values['consumer_type'] = entry['consumer_type']
    if found is None:
        connection.execute(C.insert().values(uuid=uuid, generation=1, **values))
    else:
        if values['project_id'] is None:
            values.pop('project_id'), values.pop('user_id')
        changed = connection.execute(C.update().where(C.c.uuid == uuid, C.c.generation == found['generation'])
                                     .values(generation=found['generation'] + 1, **values))
        if changed.rowcount != 1:
            raise errors.Conflict('consumer generation conflict', kind='placement.concurrent_update')


def _take(connection, delta, fresh, uuids):
    # Rows are taken in one order everywhere, so that two claims can't wait for each other.
    pairs = sorted(delta)
    if not pairs:
        return
    rows = connection.execute(sa.select(I).where(I.c.provider_id.in_({p for p, _ in pairs}))).mappings()
    have = {(row['provider_id'], row['resource_class']): row for row in rows}
    for key in pairs:
        record, amounts = have.get(key), fresh.get(key, ())
        if record is None:
            if delta[key] > 0 or amounts:
                classes.require_classes(connection, [key[1]])
                raise NoCapacity(f"Unable to allocate inventory: Inventory for '{key[1]}' on resource provider "
                                 f"'{uuids.get(key[0])}' invalid.")
            continue
        for amount in amounts:
            if amount < record['min_unit'] or amount > record['max_unit'] or amount % record['step_size']:
                raise NoCapacity(
                    f"Unable to allocate inventory: Unable to create allocation for '{key[1]}' on resource provider "
                    f"'{uuids.get(key[0])}'. The requested amount would violate inventory constraints (min_unit "
                    f"{record['min_unit']}, max_unit {record['max_unit']}, step_size {record['step_size']}).")
        if not delta[key]:
            continue
        taken = I.update().where(I.c.provider_id == key[0], I.c.resource_class == key[1])
        if delta[key] > 0:
            taken = taken.where(I.c.used + delta[key] <= I.c.capacity)
        if connection.execute(taken.values(used=I.c.used + delta[key])).rowcount != 1:
            raise NoCapacity(
                f"Unable to allocate inventory: Unable to create allocation for '{key[1]}' on resource provider "
                f"'{uuids.get(key[0])}'. The requested amount would exceed the capacity: {record['used']} of "
                f"{record['capacity']} are in use and {delta[key]} more are asked for.")


def claim(connection, consumer_uuid, allocations, project_id, user_id, consumer_type='INSTANCE'):
    """Make ``{provider uuid: {class: amount}}`` the consumer's allocations, or raise :class:`NoCapacity`."""
    replace(connection, {consumer_uuid: {'allocations': allocations, 'project_id': project_id, 'user_id': user_id,
                                         'consumer_type': consumer_type}})


def release(connection, consumer_uuid):
    """Give back all that a consumer has; True if it had something."""
    if consumer(connection, consumer_uuid) is None:
        return False
    replace(connection, {consumer_uuid: {'allocations': {}}})
    return True


def usages(connection, project_id, user_id=None, consumer_type=None, by_type=False):
    """Sums over a project's (and user's) consumers: ``{class: used}``, or by consumer type with counts."""
    query = (sa.select(C.c.consumer_type, AL.c.resource_class, sa.func.sum(AL.c.used)).join(C, C.c.uuid == AL.c.consumer_uuid)
             .where(C.c.project_id == project_id).group_by(C.c.consumer_type, AL.c.resource_class))
    count = sa.select(C.c.consumer_type, sa.func.count()).where(C.c.project_id == project_id).group_by(C.c.consumer_type)
    if user_id:
        query, count = query.where(C.c.user_id == user_id), count.where(C.c.user_id == user_id)
    found = {}
    for kind, name, used in connection.execute(query):
        kind = (kind or 'unknown') if by_type else None
        entry = found.setdefault(kind, {})
        entry[name] = entry.get(name, 0) + int(used)
    if not by_type:
        return found.get(None, {})
    for kind, consumers in connection.execute(count):
        if (kind or 'unknown') in found:
            found[kind or 'unknown']['consumer_count'] = consumers
    if consumer_type == 'all':
        merged = {}
        for entry in found.values():
            for name, used in entry.items():
                merged[name] = merged.get(name, 0) + used
        return {'all': merged} if merged else {}
    if consumer_type:
        return {consumer_type: found[consumer_type]} if consumer_type in found else {}
    return found
