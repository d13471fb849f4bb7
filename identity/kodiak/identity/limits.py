"""Unified limits: finding registered ones, and the model of how a project's limit depends on its domain's."""
import sqlalchemy as sa

from kodiak.common import errors

from .models import limits, projects, registered_limits

MODELS = {
    'flat': 'Limit enforcement and validation does not take project hierarchy into consideration.',
    'strict_two_level': 'This model requires project hierarchy never exceeds a depth of two',
}


#: a limit of any kind, with what it deviates from
JOINED = sa.select(limits, registered_limits.c.service_id, registered_limits.c.region_id, registered_limits.c.resource_name,
                   registered_limits.c.default_limit).join_from(limits, registered_limits)


def depth(conf):
    """How many levels of projects may be below a domain: where limits know two levels, the domain is one of them."""
    return 1 if conf.unified_limit.enforcement_model == 'strict_two_level' else conf.resource.max_project_tree_depth


def of_projects(connection, ids):
    """``{project id: [rows of its limits]}``; those of domains are not among them."""
    found = {}
    for row in connection.execute(JOINED.where(limits.c.project_id.in_(ids), limits.c.is_domain.is_(False)).order_by(limits.c.id)):
        found.setdefault(row.project_id, []).append(row)
    return found


def registered(connection, service_id, region_id, resource_name):
    """The row of a registered limit; 400 if there is none to deviate from."""
    columns = registered_limits.c
    row = connection.execute(sa.select(registered_limits).where(
        columns.service_id == service_id, columns.resource_name == resource_name,
        columns.region_id.is_(None) if region_id is None else columns.region_id == region_id)).first()
    if row is None:
        raise errors.BadRequest(f'Unable to create a limit that has no corresponding registered limit: {resource_name} of service '
                                f'{service_id} (resource_name, service_id, region_id).')
    return row


def check(core, connection, ids):
    """Refuse limits that break the enforcement model; all of them are stored already, in this transaction.

    strict_two_level: a project has at most what its domain has, each project of a domain.
    """
    if core.conf.unified_limit.enforcement_model == 'flat':
        return
    for row in connection.execute(sa.select(limits, registered_limits.c.default_limit).join_from(limits, registered_limits)
                                  .where(limits.c.id.in_(ids))).all():
        if row.is_domain:
            own, top = None, row.resource_limit
            below = connection.execute(sa.select(limits.c.resource_limit).join_from(limits, projects).where(
                limits.c.registered_limit_id == row.registered_limit_id, projects.c.domain_id == row.project_id)).scalars().all()
        else:
            domain_id = connection.execute(sa.select(projects.c.domain_id).where(projects.c.id == row.project_id)).scalar()
            own = connection.execute(sa.select(limits.c.resource_limit).where(
                limits.c.registered_limit_id == row.registered_limit_id, limits.c.project_id == domain_id)).scalar()
            top = row.default_limit if own is None else own
            below = [row.resource_limit]
        if top != -1 and any(each == -1 or each > top for each in below):
            raise errors.Forbidden(f'The resource limit {row.resource_limit} does not satisfy the hierarchy model: '
                                   'a project may have at most what its domain has.')
