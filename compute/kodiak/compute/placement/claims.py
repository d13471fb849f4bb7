"""Who uses what: consumers and their allocations.

A claim checks and takes capacity in one transaction. ``inventories.used`` follows the allocations row by row, here and
nowhere else.
"""
import orjson
import sqlalchemy as sa

from kodiak.common import db, errors

from ..models import placement as models
from . import classes

P, I, C, AL = models.providers, models.inventories, models.consumers, models.allocations


# The statements of a claim are made once: making them takes as long as running them.
_CONSUMER = sa.select(C).where(C.c.uuid == sa.bindparam('consumer'))
_NEW_CONSUMER, _NEW_ALLOCATIONS = C.insert(), AL.insert()
_BY_UUID = (sa.select(P.c.id, P.c.uuid).where(P.c.uuid.in_(sa.bindparam('uuids', expanding=True)))
            .order_by(P.c.id).with_for_update())
_BY_EITHER = (sa.select(P.c.id, P.c.uuid).where(sa.or_(P.c.uuid.in_(sa.bindparam('uuids', expanding=True)),
                                                       P.c.id.in_(sa.bindparam('ids', expanding=True))))
              .order_by(P.c.id).with_for_update())
_INVENTORIES = (sa.select(I).where(I.c.provider_id.in_(sa.bindparam('ids', expanding=True))).order_by(I.c.resource_class))
_USE = (I.update().where(I.c.provider_id == sa.bindparam('p'), I.c.resource_class == sa.bindparam('c'))
        .values(used=I.c.used + sa.bindparam('d')))
_CHANGED = (P.update().where(P.c.id == sa.bindparam('p')).values(
    generation=P.c.generation + 1, updated_at=sa.bindparam('now'), summary=sa.bindparam('text')))


class NoCapacity(errors.Conflict):
    """A provider lacks what a claim asks of it."""


def consumer(connection, uuid):
    """The consumer's row as a dictionary, or None."""
    return db.as_dict(connection.execute(_CONSUMER, {'consumer': uuid}).first())


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
    now = db.utcnow()
    known = {uuid: _consumer(connection, uuid, entry, now) for uuid, entry in wanted.items()}
    held = connection.execute(sa.select(AL.c.provider_id, AL.c.resource_class, AL.c.used)
                              .where(AL.c.consumer_uuid.in_(list(wanted)))).all() if any(known.values()) else []
    uuids = {provider for entry in wanted.values() for provider in entry['allocations']}
    rows = _lock(connection, uuids, {row.provider_id for row in held})
    ids = {row.uuid: row.id for row in rows}
    missing = sorted(uuids - set(ids))
    if missing:
        raise errors.BadRequest(f"Allocation for resource provider '{missing[0]}' that does not exist.")
    delta, fresh = {}, {}
    for provider_id, name, used in held:
        delta[provider_id, name] = delta.get((provider_id, name), 0) - used
    inserts = [{'consumer_uuid': uuid, 'provider_id': ids[provider], 'resource_class': name, 'used': amount}
               for uuid, entry in wanted.items() for provider, resources in entry['allocations'].items()
               for name, amount in resources.items()]
    for row in inserts:
        key = (row['provider_id'], row['resource_class'])
        delta[key] = delta.get(key, 0) + row['used']
        fresh.setdefault(key, []).append(row['used'])
    _take(connection, delta, fresh, rows, now)
    if held:
        connection.execute(AL.delete().where(AL.c.consumer_uuid.in_(list(wanted))))
    if inserts:
        connection.execute(_NEW_ALLOCATIONS, inserts)
    empty = [uuid for uuid, entry in wanted.items() if not entry['allocations']]
    if empty:
        connection.execute(C.delete().where(C.c.uuid.in_(empty)))


def _lock(connection, uuids, ids):
    """The rows of some providers, locked in one order everywhere, so that two claims can't wait for each other.

    Whoever changes an inventory or an allocation holds its provider's row, so that what is read after this stays true.
    """
    if ids:
        return connection.execute(_BY_EITHER, {'uuids': list(uuids), 'ids': list(ids)}).all()
    return connection.execute(_BY_UUID, {'uuids': list(uuids)}).all() if uuids else []


def _consumer(connection, uuid, entry, now):
    """Make or update a consumer's row; returns what it was before, or None."""
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
        connection.execute(_NEW_CONSUMER, {'uuid': uuid, 'generation': 1, **values})
    else:
        if values['project_id'] is None:
            values.pop('project_id'), values.pop('user_id')
        changed = connection.execute(C.update().where(C.c.uuid == uuid, C.c.generation == found['generation'])
                                     .values(generation=found['generation'] + 1, **values))
        if changed.rowcount != 1:
            raise errors.Conflict('consumer generation conflict', kind='placement.concurrent_update')
    return found


def _take(connection, delta, fresh, rows, now):
    """Check the changes in use ``{(provider id, class): amount}`` against the inventories, and write them."""
    if not rows:
        return
    uuids = {row.id: row.uuid for row in rows}
    have = {provider_id: {} for provider_id in uuids}
    for record in connection.execute(_INVENTORIES, {'ids': list(uuids)}):
        have[record.provider_id][record.resource_class] = record
    for (provider_id, name), change in delta.items():
        _check(connection, have[provider_id].get(name), name, uuids[provider_id], change, fresh.get((provider_id, name), ()))
    changes = [{'p': provider_id, 'c': name, 'd': change} for (provider_id, name), change in delta.items()
               if change and name in have[provider_id]]
    if changes:
        connection.execute(_USE, changes)
    changed = []
    for provider_id, records in have.items():
        summary = {name: {'capacity': record.capacity, 'used': record.used + delta.get((provider_id, name), 0)}
                   for name, record in records.items()}
        changed.append({'p': provider_id, 'now': now, 'text': orjson.dumps(summary).decode()})
    connection.execute(_CHANGED, changed)


def _check(connection, record, name, uuid, change, amounts):
    if record is None:
        if change > 0 or amounts:
            try:
                classes.require_classes(connection, [name])
            except errors.BadRequest as error:
                raise errors.BadRequest(f'Unable to allocate inventory for consumer: {error.message}') from None
            raise NoCapacity(f"Unable to allocate inventory: Inventory for '{name}' on resource provider '{uuid}' invalid.")
        return
    refused = f"Unable to allocate inventory: Unable to create allocation for '{name}' on resource provider '{uuid}'. "
    for amount in amounts:
        if amount < record.min_unit or amount > record.max_unit or amount % record.step_size:
            raise NoCapacity(f'{refused}The requested amount would violate inventory constraints (min_unit {record.min_unit}, '
                             f'max_unit {record.max_unit}, step_size {record.step_size}).')
    if change > 0 and record.used + change > record.capacity:
        raise NoCapacity(f'{refused}The requested amount would exceed the capacity: {record.used} of {record.capacity} are in '
                         f'use and {change} more are asked for.')


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
