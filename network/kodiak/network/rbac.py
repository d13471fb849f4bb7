"""RBAC policies: what an owner shares with which projects, and what keeps it shared."""
import sqlalchemy as sa

from kodiak.common import db

from . import faults, models, networks, quotas

_rbac = models.rbac_policies
SHARED, EXTERNAL = 'access_as_shared', 'access_as_external'
EVERYBODY = '*'

#: object type -> (its table, the actions that can be allowed)
TYPES = {
    'network': (models.networks, (SHARED, EXTERNAL)), 'security_group': (models.security_groups, (SHARED,)),
    'qos_policy': (models.qos_policies, (SHARED,)), 'address_scope': (models.address_scopes, (SHARED,)),
    'subnetpool': (models.subnetpools, (SHARED,)), 'address_group': (models.address_groups, (SHARED,)),
}


def create(unit, values):
    """Share something. :returns: the id of the policy."""
    table, actions = TYPES[values['object_type']]
    row = unit.one(sa.select(table).where(table.c.id == values['object_id']).with_for_update())
    if row is None or (not unit.ctx.is_admin and row['project_id'] != unit.ctx.project_id):
        raise faults.missing('RbacPolicyInitError' if row is None else 'PolicyNotAuthorized',
                             f"{values['object_type']} {values['object_id']} could not be found.")
    if values['action'] not in actions:
        raise faults.bad(f"Invalid action '{values['action']}' for object type '{values['object_type']}'. Valid actions: "
                         f"{', '.join(actions)}", kind='InvalidInput')
    quotas.claim(unit, values['project_id'], 'rbac_policy')
    if unit.conn.execute(sa.select(_rbac.c.id).where(*(_rbac.c[name] == values[name] for name in (
            'object_type', 'object_id', 'action', 'target_tenant')))).first():
        raise faults.conflict('DuplicateRbacPolicy', 'An RBAC policy already exists with those values.')
    policy_id = db.new_id()
    unit.insert(_rbac, {**values, 'id': policy_id})
    _mark(unit, values)
    return policy_id


def _mark(unit, policy):
    """Bring what stands on the row of the object itself in line with its policies."""
    table, _ = TYPES[policy['object_type']]

    def exists(*more):
        return (
            unit.conn.execute(
                sa.select(_rbac.c.id)
                .where(_rbac.c.object_type == policy['object_type'], _rbac.c.object_id == policy['object_id'], *more)
                .limit(1)
            ).first()
            is not None
        )

    if policy['action'] == SHARED:
        changes = {'shared': exists(_rbac.c.action == SHARED, _rbac.c.target_tenant == EVERYBODY)}
    else:
        changes = {'external': exists(_rbac.c.action == EXTERNAL)}
    unit.update(table, policy['object_id'], changes)


def update(unit, row, values):
    """Share with another project instead."""
    target = values.get('target_tenant', row['target_tenant'])
    if target == row['target_tenant']:
        return
    _check_unused(unit, row)
    if unit.conn.execute(sa.select(_rbac.c.id).where(*(_rbac.c[name] == row[name] for name in (
            'object_type', 'object_id', 'action')), _rbac.c.target_tenant == target)).first():
        raise faults.conflict('DuplicateRbacPolicy', 'An RBAC policy already exists with those values.')
    unit.conn.execute(sa.update(_rbac).where(_rbac.c.id == row['id']).values(target_tenant=target))
    _mark(unit, row)


def delete(unit, row):
    """Share no longer.

    :raises Conflict: RbacPolicyInUse: the project uses it.
    """
    _check_unused(unit, row)
    unit.delete(_rbac, _rbac.c.id == row['id'])
    _mark(unit, row)


def _check_unused(unit, row):
    target, kind = row['target_tenant'], row['object_type']
    if kind == 'network':
        found = unit.one(sa.select(models.networks).where(models.networks.c.id == row['object_id']))
        networks.check_unshare(unit, found, row['action'], target)
        return
    table, _ = TYPES[kind]
    owner = unit.conn.scalar(sa.select(table.c.project_id).where(table.c.id == row['object_id']))
    if any(unit.conn.execute(query.where(users.c.project_id != owner, sa.true() if target == EVERYBODY else
                                         users.c.project_id == target).limit(1)).first() for users, query in _users(row)):
        raise faults.conflict(
            'RbacPolicyInUse', f'RBAC policy on object {row["object_id"]} cannot be removed because other objects depend on it.'
        )


def _users(row):
    """``(table, query)`` of what uses an object."""
    kind, key = row['object_type'], row['object_id']
    if kind == 'security_group':
        return [
            (
                models.ports,
                sa.select(models.ports.c.id)
                .join(models.port_groups, models.port_groups.c.port_id == models.ports.c.id)
                .where(models.port_groups.c.security_group_id == key),
            )
        ]
    tables = {'qos_policy': (models.ports.c.qos_policy_id, models.networks.c.qos_policy_id),
              'address_scope': (models.subnetpools.c.address_scope_id,), 'subnetpool': (models.subnets.c.subnetpool_id,),
              'address_group': (models.security_rules.c.remote_address_group_id,)}
    return [(column.table, sa.select(column.table.c.id).where(column == key)) for column in tables[kind]]
