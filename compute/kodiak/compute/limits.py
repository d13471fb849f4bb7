"""What projects, and single users in them, may have of servers, and whether a request fits.

A user may have limits of its own in a project, beside the project's: both hold.
"""
import sqlalchemy as sa

from kodiak.common import db, errors, quota
from kodiak.compute import conf as options
from kodiak.compute import states
from kodiak.compute.models import servers, user_quotas

COUNTED = ('instances', 'cores', 'ram')


def of_project(connection, conf, project_id):
    """``{resource: limit}`` of a project; -1 for none."""
    return quota.get(connection, project_id, options.quotas(conf), 'default')


def of_user(connection, project_id, user_id):
    """``{resource: limit}``: the limits that a user has in a project beside the project's."""
    return dict(connection.execute(sa.select(user_quotas.c.resource, user_quotas.c.hard_limit).where(
        user_quotas.c.project_id == project_id, user_quotas.c.user_id == user_id)).all())


def put_user(connection, project_id, user_id, changes):
    """Set limits of a user in a project."""
    for resource, limit in changes.items():
        row = {'project_id': project_id, 'user_id': user_id, 'resource': resource, 'hard_limit': limit}
        db.upsert(connection, user_quotas, row, ['project_id', 'user_id', 'resource'])


def forget_users(connection, project_id, user_id=None):
    """Take away the limits of a user in a project, or of all its users."""
    condition = user_quotas.c.project_id == project_id
    if user_id is not None:
        condition &= user_quotas.c.user_id == user_id
    connection.execute(sa.delete(user_quotas).where(condition))


def used(connection, project_id, user_id=None):
    """What the servers of a project use, or those of one user in it."""
    conditions = [servers.c.project_id == project_id, servers.c.deleted.is_(False), servers.c.vm_state != states.SOFT_DELETED]
    if user_id is not None:
        conditions.append(servers.c.user_id == user_id)
    count, cores, ram = connection.execute(sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(servers.c.vcpus), 0),
        sa.func.coalesce(sa.func.sum(servers.c.ram), 0)).where(*conditions)).one()
    return {'instances': count, 'cores': int(cores), 'ram': int(ram)}


def fitting(connection, conf, project_id, user_id, each, least, most):
    """How many times a project and a user of it may have ``each``, at most ``most``; the project's lock is held afterwards.

    :param each: ``{'instances', 'cores', 'ram': amount}``; what is 0 or less is not looked at.
    :raises QuotaExceeded: not even ``least`` times.
    """
    defaults = {name: options.quotas(conf)[name] for name in COUNTED}
    bounds = [(quota.get(connection, project_id, defaults, 'default'), None), (of_user(connection, project_id, user_id), user_id)]
    bounds = [({name: limit for name, limit in limits.items() if limit >= 0 and each.get(name, 0) > 0}, whose)
              for limits, whose in bounds]
    if not any(limits for limits, _ in bounds):
        return most
    quota.lock(connection, project_id)
    room = most
    for limits, whose in bounds:
        if limits:
            have = used(connection, project_id, whose)
            room = min(room, *((limit - have[name]) // each[name] for name, limit in limits.items()))
            if room < least:
                raise _exceeded(limits, have, each, least)
    return room


def _exceeded(limits, have, each, least):
    over = [name for name, limit in limits.items() if limit < have[name] + each[name] * least]
    sentence = '; '.join(f'Requested {each[name] * least}, but already used {have[name]} of {limits[name]} {name}' for name in over)
    return errors.QuotaExceeded(f'Quota exceeded for {", ".join(over)}: {sentence}')
