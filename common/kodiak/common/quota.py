"""Quotas: limits in a table, usage counted from the rows themselves, under a lock, in the caller's transaction.

There are no usage counters that could drift: :func:`claim` counts what exists and either returns or
raises, and because it holds the project's lock until the caller's transaction ends, two requests cannot both
take the last one.
"""
import sqlalchemy as sa

from kodiak.common import db, errors

UNLIMITED = -1

_metadata = db.metadata()
limits = sa.Table(
    'quotas', _metadata,
    sa.Column('project_id', sa.String(64), primary_key=True),    # 'class:default' and the like for quota classes
    sa.Column('resource', sa.String(128), primary_key=True),
    sa.Column('hard_limit', sa.Integer, nullable=False))
locks = sa.Table(
    'quota_locks', _metadata,
    sa.Column('project_id', sa.String(64), primary_key=True),
    sa.Column('turns', sa.Integer, nullable=False))


def tables(metadata):
    """Add the tables ``quotas`` and ``quota_locks`` to a service's metadata."""
    return limits.to_metadata(metadata), locks.to_metadata(metadata)


def lock(connection, project_id):
    """Wait until no other transaction claims for this project; held until the caller's transaction ends."""
    if connection.dialect.name == 'sqlite':
        return      # a write transaction is alone from its beginning
    db.upsert(connection, locks, {'project_id': project_id, 'turns': 0}, ['project_id'])


def get(connection, project_id, defaults, quota_class=None):
    """The limits of a project: ``{resource: limit}``, -1 for none.

    :param defaults: ``{resource: limit}`` where neither the project nor the class has one of its own.
    """
    wanted = [project_id] if quota_class is None else [project_id, 'class:' + quota_class]
    found = {(row.project_id, row.resource): row.hard_limit for row in connection.execute(
        sa.select(limits).where(limits.c.project_id.in_(wanted)))}
    return {resource: found.get((project_id, resource), found.get((wanted[-1], resource), default))
            for resource, default in defaults.items()}


def put(connection, project_id, changes):
    """Set limits of a project (or of ``class:<name>``): ``{resource: limit}``."""
    for resource, limit in changes.items():
        db.upsert(connection, limits, {'project_id': project_id, 'resource': resource, 'hard_limit': limit},
                  ['project_id', 'resource'])


def delete(connection, project_id):
    """Give a project the defaults again. :returns: True if it had limits of its own."""
    return bool(connection.execute(sa.delete(limits).where(limits.c.project_id == project_id)).rowcount)


def claim(connection, project_id, wanted, count, defaults, quota_class=None):
    """Make sure that a project may have more, before the rows are inserted in the same transaction.

    :param wanted: ``{resource: how many more}``; a resource with 0 or less is not looked at.
    :param count: ``count(connection, project_id, resources)`` returns ``{resource: how many there are}``.
    :param defaults: ``{resource: limit}``.
    :raises QuotaExceeded: with ``detail={resource: {'limit', 'used', 'requested'}}`` of those that don't fit.
    """
    wanted = {resource: more for resource, more in wanted.items() if more > 0}
    if not wanted:
        return
    allowed = get(connection, project_id, {resource: defaults[resource] for resource in wanted}, quota_class)
    bounded = [resource for resource in wanted if allowed[resource] != UNLIMITED]
    if not bounded:
        return
    lock(connection, project_id)
    used = count(connection, project_id, bounded)
    over = {resource: {'limit': allowed[resource], 'used': used.get(resource, 0), 'requested': wanted[resource]}
            for resource in bounded if used.get(resource, 0) + wanted[resource] > allowed[resource]}
    if over:
        said = ', '.join(f'{resource}: {v["requested"]} requested, {v["used"]} of {v["limit"]} used'
                         for resource, v in over.items())
        raise errors.QuotaExceeded(f'Quota exceeded for {said}.', detail=over)
