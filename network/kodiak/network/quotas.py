"""What a project may have and how much of it there is, counted from the rows."""
import sqlalchemy as sa

from kodiak.common import errors, quota

from . import faults, models

#: resource -> the table whose rows count
COUNTED = {
    'network': models.networks, 'subnet': models.subnets, 'port': models.ports, 'router': models.routers,
    'floatingip': models.floatingips, 'security_group': models.security_groups, 'security_group_rule': models.security_rules,
    'subnetpool': models.subnetpools, 'rbac_policy': models.rbac_policies,
}


def defaults(conf):
    """``{resource: limit}`` of a project without a quota of its own."""
    asked = conf.network.default_quota
    return {resource: int(asked.get(resource, -1)) for resource in COUNTED}


def count(conn, project_id, resources):
    """``{resource: how many the project has}``, in one statement."""
    row = conn.execute(sa.select(*(
        sa.select(sa.func.count()).select_from(COUNTED[resource]).where(COUNTED[resource].c.project_id == project_id)
        .scalar_subquery() for resource in resources))).one()
    return dict(zip(resources, row, strict=True))


def claim(unit, project_id, resource, more=1):
    """Make sure that a project may have ``more`` of a resource; resources of the cloud itself are not counted.

    :raises Conflict: OverQuota.
    """
    if not project_id:
        return
    try:
        quota.claim(unit.conn, project_id, {resource: more}, count, defaults(unit.app.conf))
    except errors.QuotaExceeded as error:
        raise faults.over_quota(error.detail)
