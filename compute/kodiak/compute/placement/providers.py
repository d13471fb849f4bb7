"""Resource providers with their inventories, traits and aggregates.

Every function takes a connection in a transaction; those that change something need a write transaction. A provider's
generation grows with every change, so that a client that saw an older state is told so (409) instead of overwriting.
"""
import orjson
import sqlalchemy as sa

from kodiak.common import db, errors

from ..models import placement as models
from . import classes

MAX_INT = 0x7FFFFFFF
P, I, T, A = models.providers, models.inventories, models.provider_traits, models.provider_aggregates
FIELDS = ('total', 'reserved', 'min_unit', 'max_unit', 'step_size', 'allocation_ratio')
DEFAULTS = {'reserved': 0, 'min_unit': 1, 'max_unit': MAX_INT, 'step_size': 1, 'allocation_ratio': 1.0}


def conflict(message=None):
    """The error of a generation that is no longer the current one."""
    return errors.Conflict(message or 'resource provider generation conflict', kind='placement.concurrent_update')


def get(connection, uuid, doing=''):
    """The provider's row as a dictionary; ``NotFound`` otherwise."""
    found = db.one(connection, sa.select(P).where(P.c.uuid == uuid))
    if found is None:
        raise errors.NotFound(f'No resource provider with uuid {uuid} found {doing}'.rstrip())
    return found


def bump(connection, provider, expected=None):
    """Give the provider its next generation; 409 where ``expected`` (or the row's own) is not the current one."""
    current = provider['generation'] if expected is None else expected
    changed = connection.execute(P.update().where(P.c.id == provider['id'], P.c.generation == current)
                                 .values(generation=current + 1, updated_at=db.utcnow()))
    if changed.rowcount != 1:
        raise conflict()
    provider['generation'] = current + 1
    return provider['generation']


def refresh(connection, provider_ids):
    """Write the summaries of some providers anew from their inventories."""
    rows = connection.execute(sa.select(I.c.provider_id, I.c.resource_class, I.c.capacity, I.c.used)
                              .where(I.c.provider_id.in_(provider_ids)).order_by(I.c.resource_class))
    summaries = {provider_id: {} for provider_id in provider_ids}
    for provider_id, name, capacity, used in rows:
        summaries[provider_id][name] = {'capacity': capacity, 'used': used}
    for provider_id, summary in summaries.items():
        connection.execute(P.update().where(P.c.id == provider_id).values(summary=orjson.dumps(summary).decode()))


def create(connection, uuid, name, parent_uuid=None):
    """Make a provider; 409 where the name or the uuid is taken, 400 for a parent that isn't there."""
    parent = None
    if parent_uuid == uuid:
        raise errors.BadRequest('parent provider UUID cannot be same as UUID. Unable to create resource provider '
                                f'"{name}", {uuid}.')
    if parent_uuid:
        parent = db.one(connection, sa.select(P).where(P.c.uuid == parent_uuid))
        if parent is None:
            raise errors.BadRequest(f'Unable to create resource provider "{name}", {uuid}: parent provider UUID does not exist.')
    taken = connection.execute(sa.select(P.c.uuid).where(sa.or_(P.c.uuid == uuid, P.c.name == name))).scalar()
    if taken is not None:
        what = f'uuid: {uuid}' if taken == uuid else f'name: {name}'
        raise errors.Conflict(f'Conflicting resource provider {what} already exists.', kind='placement.duplicate_name')
    now = db.utcnow()
    inserted = connection.execute(P.insert().values(uuid=uuid, name=name, generation=0, created_at=now, updated_at=now,
                                                    parent_id=parent and parent['id'], root_id=parent and parent['root_id']))
    if parent is None:
        connection.execute(P.update().where(P.c.id == inserted.inserted_primary_key[0])
                           .values(root_id=inserted.inserted_primary_key[0]))
    return get(connection, uuid)


def update(connection, provider, name, parent_uuid=None, set_parent=False, reparent=False):
    """Rename a provider and, with ``set_parent``, move it in its tree.

    :param reparent: True where a provider may leave its parent for another (microversion 1.37).
    """
    same = connection.execute(sa.select(P.c.id).where(P.c.name == name, P.c.id != provider['id'])).first()
    if same:
        raise errors.Conflict(f'Conflicting resource provider name: {name} already exists.', kind='placement.duplicate_name')
    values = {'name': name, 'updated_at': db.utcnow()}
    if set_parent:
        parent = db.one(connection, sa.select(P).where(P.c.uuid == parent_uuid)) if parent_uuid else None
        if parent_uuid and parent is None:
            raise errors.BadRequest('parent provider UUID does not exist. Unable to save resource provider.')
        new_parent = parent['id'] if parent else None
        if provider['parent_id'] is not None and new_parent != provider['parent_id'] and not reparent:
            raise errors.BadRequest('re-parenting a provider is not currently allowed. Unable to save resource provider '
                                    f'{provider["uuid"]}.' if parent else
                                    'un-parenting a provider is not currently allowed. Unable to save resource provider '
                                    f'{provider["uuid"]}.')
        below = descendants(connection, provider)
        if new_parent is not None and new_parent in {provider['id'], *below}:
            raise errors.BadRequest('creating loop in the provider tree is not allowed. Unable to save resource provider '
                                    f'{provider["uuid"]}.')
        values['parent_id'] = new_parent
        root = parent['root_id'] if parent else provider['id']
        if root != provider['root_id']:
            connection.execute(P.update().where(P.c.id.in_([provider['id'], *below])).values(root_id=root))
    connection.execute(P.update().where(P.c.id == provider['id']).values(**values))
    return get(connection, provider['uuid'])


def descendants(connection, provider):
    """Ids of everything below a provider in its tree."""
    rows = connection.execute(sa.select(P.c.id, P.c.parent_id).where(P.c.root_id == provider['root_id'])).all()
    found, wanted = [], {provider['id']}
    while wanted:
        wanted = {row.id for row in rows if row.parent_id in wanted}
        found += wanted
    return found


def delete(connection, provider):
    """Delete a provider that nobody uses and that has no children."""
    used = sa.select(models.allocations.c.consumer_uuid).where(models.allocations.c.provider_id == provider['id']).limit(1)
    if connection.execute(used).first():
        raise errors.Conflict(f'Unable to delete resource provider {provider["uuid"]}: Resource provider has allocations.',
                              kind='placement.resource_provider.inuse')
    if connection.execute(sa.select(P.c.id).where(P.c.parent_id == provider['id']).limit(1)).first():
        raise errors.Conflict(f'Unable to delete parent resource provider {provider["uuid"]}: It has child resource providers.',
                              kind='placement.resource_provider.cannot_delete_parent')
    for table in (I, T, A):
        connection.execute(table.delete().where(table.c.provider_id == provider['id']))
    connection.execute(P.delete().where(P.c.id == provider['id']))


def inventories(connection, provider):
    """``{class: row}`` of a provider's inventories."""
    rows = connection.execute(sa.select(I).where(I.c.provider_id == provider['id']).order_by(I.c.resource_class)).mappings()
    return {row['resource_class']: dict(row) for row in rows}


def capacity_of(record):
    """Units that can be handed out of an inventory."""
    return int((record['total'] - record['reserved']) * record['allocation_ratio'])


def check_inventory(provider_uuid, name, record, reserved_may_equal_total):
    """The record with its defaults; 400 where its numbers contradict each other."""
    record = {**DEFAULTS, **record}
    if record['reserved'] > record['total'] or (record['reserved'] == record['total'] and not reserved_may_equal_total):
        raise errors.BadRequest(f"Unable to create inventory for resource provider {provider_uuid}: Invalid inventory for "
                                f"'{name}' on resource provider '{provider_uuid}'. The reserved value is greater than "
                                f"{'' if reserved_may_equal_total else 'or equal to '}total.")
    return record


def set_inventories(connection, provider, wanted, generation=None):
    """Make ``{class: record}`` the provider's inventories, all of them.

    409 where a class that goes away is in use, and for a generation that isn't the current one.
    """
    connection.execute(sa.select(P.c.id).where(P.c.id == provider['id']).with_for_update())
    have = inventories(connection, provider)
    classes.require_classes(connection, wanted)
    gone = [name for name in have if name not in wanted]
    held = [name for name in gone if have[name]['used']]
    if held:
        raise errors.Conflict(f"Inventory for '{', '.join(held)}' on resource provider '{provider['uuid']}' in use.",
                              kind='placement.inventory.inuse')
    if gone:
        connection.execute(I.delete().where(I.c.provider_id == provider['id'], I.c.resource_class.in_(gone)))
    for name, record in wanted.items():
        values = {field: record[field] for field in FIELDS}
        values['capacity'] = capacity_of(record)
        if name in have:
            connection.execute(I.update().where(I.c.provider_id == provider['id'], I.c.resource_class == name).values(values))
        else:
            connection.execute(I.insert().values(provider_id=provider['id'], resource_class=name, used=0, **values))
    refresh(connection, [provider['id']])
    bump(connection, provider, generation)


def traits(connection, provider):
    """Names of a provider's traits, sorted."""
    return list(connection.execute(sa.select(T.c.trait).where(T.c.provider_id == provider['id']).order_by(T.c.trait)).scalars())


def set_traits(connection, provider, names, generation=None):
    """Make ``names`` the provider's traits."""
    unknown = classes.unknown_traits(connection, names)
    if unknown:
        raise errors.BadRequest(f"No such trait {', '.join(unknown)}")
    names = sorted(set(names))
    connection.execute(T.delete().where(T.c.provider_id == provider['id']))
    if names:
        connection.execute(T.insert(), [{'provider_id': provider['id'], 'trait': name} for name in names])
    connection.execute(P.update().where(P.c.id == provider['id']).values(traits=orjson.dumps(names).decode()))
    bump(connection, provider, generation)


def aggregates(connection, provider):
    """Uuids of a provider's aggregates."""
    select = sa.select(A.c.aggregate).where(A.c.provider_id == provider['id']).order_by(A.c.aggregate)
    return list(connection.execute(select).scalars())


def set_aggregates(connection, provider, uuids, generation=None, bump_generation=True):
    """Make ``uuids`` the provider's aggregates."""
    connection.execute(A.delete().where(A.c.provider_id == provider['id']))
    uuids = sorted(set(uuids))
    if uuids:
        connection.execute(A.insert(), [{'provider_id': provider['id'], 'aggregate': uuid} for uuid in uuids])
    if bump_generation:
        bump(connection, provider, generation)


def ensure_host(connection, uuid, name, wanted, host_traits=()):
    """Bring a host's provider to what its agent reports; writes nothing where it is so already.

    :param wanted: ``{class: {total, reserved, allocation_ratio, ...}}``. A class that went away but is in use stays.
    """
    provider = db.one(connection, sa.select(P).where(P.c.uuid == uuid)) or create(connection, uuid, name)
    if provider['name'] != name:
        provider = update(connection, provider, name)
    have = inventories(connection, provider)
    records = {class_name: check_inventory(uuid, class_name, record, True) for class_name, record in wanted.items()}
    records.update({class_name: row for class_name, row in have.items() if class_name not in records and row['used']})
    if {n: [r[f] for f in FIELDS] for n, r in have.items()} != {n: [r[f] for f in FIELDS] for n, r in records.items()}:
        set_inventories(connection, provider, records)
    known = sorted(set(host_traits) - set(classes.unknown_traits(connection, host_traits)))
    if traits(connection, provider) != known:
        set_traits(connection, provider, known)
    return provider
