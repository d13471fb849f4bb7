"""Projects and domains: the rules of their trees, and what goes with them."""
import sqlalchemy as sa

from kodiak.common import db, errors

from . import changes, limits, notices, people, roles
from .models import assignments, credentials, groups, project_tags, projects, trusts, users


def above(connection, row):
    """Rows of the projects over one, nearest first, the domain last."""
    found, parent = [], row.parent_id
    while parent is not None:
        row = connection.execute(sa.select(projects).where(projects.c.id == parent)).one()
        found.append(row)
        parent = row.parent_id
    return found


def below(connection, project_id):
    """Rows of all projects below one, nearest first."""
    found, level = [], [project_id]
    while level:
        rows = connection.execute(sa.select(projects).where(projects.c.parent_id.in_(level)).order_by(projects.c.id)).all()
        found += rows
        level = [row.id for row in rows]
    return found


def nested(rows, project_id):
    """``{id: {id: None}}`` of what is below a project, or None."""
    found = {row.id: nested(rows, row.id) for row in rows if row.parent_id == project_id}
    return found or None


def check_parent(core, connection, row):
    """Refuse a place in the tree that is not there, is disabled or too deep."""
    if row['is_domain']:
        return
    parent = connection.execute(sa.select(projects).where(projects.c.id == row['parent_id'])).first()
    if parent is None or (row['parent_id'] == row['domain_id'] and not parent.is_domain):
        kind, field = ('domain', 'domain_id') if row['parent_id'] == row['domain_id'] else ('project', 'parent_id')
        raise errors.BadRequest(f"Could not find {kind}: {row['parent_id']} (project.{field}).")
    chain = [parent, *above(connection, parent)]
    if not all(each.enabled for each in chain):
        raise errors.Forbidden('A project cannot be created below one that is disabled.')
    depth = limits.depth(core.conf)
    if len(chain) > depth:
        raise errors.Forbidden(f'Max hierarchy depth reached: {depth} levels of projects are allowed below a domain.')


def insert(connection, row, tags=()):
    """Store a new project or domain."""
    connection.execute(projects.insert().values(row))
    set_tags(connection, row['id'], tags)
    changes.bump(connection, changes.RESOURCE)
    notices.tell(connection, kind_of(row), 'created', row['id'])


def kind_of(row):
    """``project`` or ``domain``."""
    return 'domain' if row['is_domain'] else 'project'


def set_tags(connection, project_id, tags):
    """Replace the tags of a project."""
    connection.execute(sa.delete(project_tags).where(project_tags.c.project_id == project_id))
    for tag in dict.fromkeys(tags):
        connection.execute(project_tags.insert().values(project_id=project_id, name=tag))


def change(core, connection, row, values):
    """Apply ``values`` to a project or domain; disabling one disables its tokens."""
    if (values.get('enabled') is False and row['enabled'] and not row['is_domain']
            and any(each.enabled for each in below(connection, row['id']))):
        raise errors.Forbidden(f"Cannot disable project {row['id']} since its subtree contains enabled projects.")
    if values.get('enabled') is True and not row['enabled'] and not row['is_domain']:
        parents = connection.execute(sa.select(projects).where(projects.c.id == row['parent_id'])).one()
        if not all(each.enabled for each in (parents, *above(connection, parents))):
            raise errors.Forbidden(f"Cannot enable project {row['id']} since it has disabled parents.")
    if values:
        connection.execute(sa.update(projects).where(projects.c.id == row['id']).values(values))
    changes.bump(connection, changes.RESOURCE)
    notices.tell(connection, kind_of(row), 'updated', row['id'])
    if values.get('enabled') is False and row['enabled']:
        revoke(core, connection, row)
        notices.tell(connection, kind_of(row), 'disabled', row['id'])


def _tree(connection, row, doing):
    """A project and all below it, itself first. Refuses domains, and trees in which something is immutable."""
    if row['is_domain']:
        raise errors.Forbidden(f'Cannot {doing} a domain with what is below it here: see PATCH and DELETE of domains.')
    found = [row, *(each._mapping for each in below(connection, row['id']))]
    fixed = next((each['id'] for each in found if each['options'].get('immutable')), None)
    if fixed:
        raise errors.Forbidden(f'Cannot {doing} project {fixed}, which is immutable: unset its option immutable first.')
    return found


def switch_tree(core, connection, row, enabled):
    """Enable or disable a project with all that is below it."""
    found = _tree(connection, row, 'enable or disable')
    if enabled and not all(each.enabled for each in above(connection, connection.execute(
            sa.select(projects).where(projects.c.id == row['id'])).one())):
        raise errors.Forbidden(f"Cannot enable project {row['id']} since it has disabled parents.")
    for each in found:
        if each['enabled'] != enabled:
            connection.execute(sa.update(projects).where(projects.c.id == each['id']).values(enabled=enabled))
            notices.tell(connection, 'project', 'updated', each['id'])
            if not enabled:
                revoke(core, connection, each)
                notices.tell(connection, 'project', 'disabled', each['id'])
    changes.bump(connection, changes.RESOURCE)


def delete_tree(core, connection, row):
    """Delete a project with all that is below it; all of it must be disabled."""
    found = _tree(connection, row, 'delete')
    active = next((each['id'] for each in found if each['enabled']), None)
    if active:
        raise errors.Forbidden(f'Cannot delete project {active} with a whole tree while it is enabled: disable the tree first.')
    for each in reversed(found):
        _forget(core, connection, each)


def revoke(core, connection, row):
    """Revoke the tokens of a project; of a domain: those of all its projects and users."""
    core.revoke(connection, {'project_id': row['id']})
    if row['is_domain']:
        core.revoke(connection, {'domain_id': row['id']}, {'user_domain_id': row['id']}, {'project_domain_id': row['id']})


def delete(core, connection, row):
    """Delete a project that has nothing below it, or a domain that is disabled, with all that is in it."""
    if row['is_domain']:
        _delete_domain(core, connection, row)
        return
    if connection.execute(sa.select(projects.c.id).where(projects.c.parent_id == row['id']).limit(1)).first():
        raise errors.Forbidden(f"Cannot delete the project {row['id']} since it is not a leaf in the hierarchy: "
                               'delete what is below it first.')
    _forget(core, connection, row)


def _forget(core, connection, row):
    connection.execute(sa.delete(assignments).where(assignments.c.target_kind.in_(('project', 'domain')),
                                                    assignments.c.target_id == row['id']))
    connection.execute(sa.delete(credentials).where(credentials.c.project_id == row['id']))
    connection.execute(sa.update(trusts).where(trusts.c.project_id == row['id'], trusts.c.deleted_at.is_(None))
                       .values(deleted_at=db.utcnow()))
    connection.execute(sa.update(users).where(users.c.default_project_id == row['id']).values(default_project_id=None))
    revoke(core, connection, row)
    connection.execute(sa.delete(projects).where(projects.c.id == row['id']))
    changes.bump(connection, changes.RESOURCE, changes.ASSIGNMENT)
    notices.tell(connection, kind_of(row), 'deleted', row['id'])


def _delete_domain(core, connection, row):
    if row['enabled']:
        raise errors.Forbidden('Cannot delete a domain that is enabled: disable it first.')
    domain_id = row['id']
    people.forget(core, connection, connection.execute(
        sa.select(users.c.id).where(users.c.domain_id == domain_id)).scalars().all())
    inside = connection.execute(sa.select(groups.c.id).where(groups.c.domain_id == domain_id)).scalars().all()
    connection.execute(sa.delete(assignments).where(assignments.c.actor_kind == 'group', assignments.c.actor_id.in_(inside)))
    connection.execute(sa.delete(groups).where(groups.c.domain_id == domain_id))
    for group_id in inside:
        notices.tell(connection, 'group', 'deleted', group_id)
    roles.delete_of_domain(connection, domain_id)
    for project in reversed(below(connection, domain_id)):
        _forget(core, connection, project._mapping)
    connection.execute(sa.delete(users).where(users.c.domain_id == domain_id))
    _forget(core, connection, row)
