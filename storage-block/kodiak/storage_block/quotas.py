"""What projects may have: limits, what is used of them, and the claim that every new thing makes."""
import sqlalchemy as sa

from kodiak.common import errors, quota

from . import conf as options
from .models import backups, groups, snapshots, volume_types, volumes

TYPED = ('volumes', 'snapshots', 'gigabytes')


def defaults(conf, types=()):
    """The limits of projects without their own, with those for each of these volume types (names)."""
    found = options.quotas(conf)
    found.update((f'{resource}_{name}', quota.UNLIMITED) for name in types for resource in TYPED)
    return found


def type_names(connection):
    """The names of all volume types."""
    return list(connection.scalars(sa.select(volume_types.c.name).order_by(volume_types.c.created_at)))


def limits(connection, conf, project_id, types=()):
    """``{resource: limit}`` of a project."""
    return quota.get(connection, project_id, defaults(conf, types), 'default')


def used(connection, project_id):
    """``{resource: how much}`` of a project, each volume type by itself too."""
    names = dict(connection.execute(sa.select(volume_types.c.id, volume_types.c.name)).all())
    found = dict.fromkeys(('volumes', 'snapshots', 'gigabytes', 'backups', 'backup_gigabytes', 'groups'), 0)
    for resource, table, size in (('volumes', volumes, volumes.c.claimed), ('snapshots', snapshots, snapshots.c.size)):
        rows = connection.execute(sa.select(table.c.volume_type_id, sa.func.count(), sa.func.sum(size)).where(
            table.c.project_id == project_id, table.c.consumes_quota).group_by(table.c.volume_type_id))
        for type_id, count, size in rows:
            for suffix in ('', '_' + names[type_id]) if type_id in names else ('',):
                found[resource + suffix] = found.get(resource + suffix, 0) + count
                found['gigabytes' + suffix] = found.get('gigabytes' + suffix, 0) + int(size)
    count, size = connection.execute(sa.select(sa.func.count(), sa.func.sum(backups.c.size)).where(
        backups.c.project_id == project_id)).one()
    found.update(backups=count, backup_gigabytes=int(size or 0))
    found['groups'] = connection.scalar(sa.select(sa.func.count()).where(groups.c.project_id == project_id))
    return found


def _count(connection, project_id, resources):
    return used(connection, project_id)


def claim(connection, conf, project_id, wanted, type_name=None, extra_types=()):
    """Make sure that a project may have more, in the transaction that makes it.

    :param wanted: ``{resource: how many more}``; ``per_volume_gigabytes``: the size of one volume.
    :param type_name: the volume type whose own limits count too.
    :param extra_types: further types that ``wanted`` names resources of.
    :raises QuotaExceeded: 413, in the words of the first limit that is broken.
    """
    wanted = dict(wanted)
    if type_name is not None:
        wanted.update({f'{resource}_{type_name}': more for resource, more in wanted.items() if resource in TYPED})
    try:
        quota.claim(connection, project_id, wanted, _count,
                    defaults(conf, [type_name, *extra_types] if type_name else extra_types), 'default')
    except errors.QuotaExceeded as error:
        raise _explained(error.detail) from None


def _explained(over):
    resource, numbers = next(iter(over.items()))
    if resource == 'per_volume_gigabytes':
        kind = 'VolumeSizeExceedsLimit'
        text = f"Requested volume size {numbers['requested']}G is larger than maximum allowed limit {numbers['limit']}G."
    elif 'gigabytes' in resource:
        kind = 'VolumeBackupSizeExceedsAvailableQuota' if resource == 'backup_gigabytes' else 'VolumeSizeExceedsAvailableQuota'
        what = 'backup' if resource == 'backup_gigabytes' else 'volume or snapshot'
        text = (f'Requested {what} exceeds allowed {resource} quota. '
                f"Requested {numbers['requested']}G, quota is {numbers['limit']}G and {numbers['used']}G has been consumed. "
                'Delete something, ask for less, or ask the operator for more.')
    else:
        what = resource.split('_')[0]
        kind = {'volumes': 'VolumeLimitExceeded', 'snapshots': 'SnapshotLimitExceeded', 'backups': 'BackupLimitExceeded',
                'groups': 'GroupLimitExceeded'}[what]
        text = (f"Maximum number of {what} allowed ({numbers['limit']}) exceeded for quota '{resource}'. "
                'Delete something, or ask the operator for more.')
    error = errors.QuotaExceeded(text, kind=kind, headers={'Retry-After': '0'}, detail=over)
    error.code, error.title = 413, 'Request Entity Too Large'
    return error

