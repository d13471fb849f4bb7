"""Quality-of-service policies: who uses them, and what their rules say."""
import sqlalchemy as sa

from kodiak.common import db

from . import faults, find, models, ports

_policies = models.qos_policies
_rules = models.qos_rules
_ports = models.ports.c
_networks = models.networks.c

#: type -> {parameter: (least, greatest, default)}; None for a default means that it must be given
TYPES = {
    'bandwidth_limit': {'max_kbps': (0, 2 ** 31 - 1, None), 'max_burst_kbps': (0, 2 ** 31 - 1, 0)},
    'dscp_marking': {'dscp_mark': (0, 56, None)},
}
DIRECTED = {'bandwidth_limit'}
DSCP_MARKS = {0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 46, 48, 56}


def create(unit, values):
    """Make a policy. :returns: its id."""
    policy_id, now = db.new_id(), db.utcnow()
    if values.get('is_default'):
        _only_default(unit, values['project_id'], policy_id)
    unit.insert(_policies, {**values, 'id': policy_id, 'created_at': now, 'updated_at': now})
    if values.get('shared'):
        find.share(unit, 'qos_policy', policy_id, values['project_id'])
    return policy_id


def _only_default(unit, project_id, policy_id):
    found = unit.conn.scalar(sa.select(_policies.c.id).where(
        _policies.c.project_id == project_id, _policies.c.is_default, _policies.c.id != policy_id))
    if found:
        raise faults.conflict('QoSPolicyDefaultAlreadyExists', f'A default QoS policy exists for project {project_id}: {found}.')


def update(unit, row, values):
    """Change a policy."""
    changes = {name: value for name, value in values.items() if value != row[name]}
    if changes.get('is_default'):
        _only_default(unit, row['project_id'], row['id'])
    if 'shared' in changes:
        (find.share if changes['shared'] else find.unshare)(unit, 'qos_policy', row['id'], row['project_id'])
    unit.update(_policies, row['id'], changes)


def delete(unit, row):
    """Delete a policy that nothing uses.

    :raises Conflict: QosPolicyInUse.
    """
    for table, what in ((models.ports, 'port'), (models.networks, 'network'), (models.floatingips, 'floating IP')):
        used = unit.conn.scalar(sa.select(table.c.id).where(table.c.qos_policy_id == row['id']).limit(1))
        if used:
            raise faults.conflict('QosPolicyInUse', f"QoS Policy {row['id']} is used by {what} {used}.")
    unit.delete(models.rbac_policies, models.rbac_policies.c.object_id == row['id'])
    unit.delete(_policies, _policies.c.id == row['id'])


def checked(kind, values, before=None):
    """``(direction, parameters)`` of a rule.

    :raises BadRequest: a parameter is missing or out of its range.
    """
    params = dict(before['params']) if before else {}
    for name, (least, greatest, default) in TYPES[kind].items():
        value = values.get(name, params.get(name, default))
        if value is None:
            raise faults.bad(f"Failed to parse request. Required attribute '{name}' not specified", kind='HTTPBadRequest')
        if not least <= value <= greatest or (name == 'dscp_mark' and value not in DSCP_MARKS):
            raise faults.bad(f"Invalid input for {name}. Reason: '{value}' is not an allowed value.", kind='HTTPBadRequest')
        params[name] = value
    direction = values.get('direction', before['direction'] if before else 'egress') if kind in DIRECTED else ''
    return direction, params


def create_rule(unit, policy, kind, values):
    """Add a rule to a policy. :returns: its row."""
    direction, params = checked(kind, values)
    if unit.conn.scalar(sa.select(_rules.c.id).where(
            _rules.c.qos_policy_id == policy['id'], _rules.c.type == kind, _rules.c.direction == direction)):
        raise faults.conflict(
            'QoSRulesConflict', f'Rule {kind} conflicts with one which already exists in QoS Policy {policy["id"]}.'
        )
    row = {'id': db.new_id(), 'qos_policy_id': policy['id'], 'type': kind, 'direction': direction, 'params': params}
    unit.insert(_rules, row)
    _changed(unit, policy['id'])
    return row


def update_rule(unit, row, values):
    """Change a rule. :returns: its row."""
    direction, params = checked(row['type'], values, row)
    if direction != row['direction'] and unit.conn.scalar(sa.select(_rules.c.id).where(
            _rules.c.qos_policy_id == row['qos_policy_id'], _rules.c.type == row['type'], _rules.c.direction == direction)):
        raise faults.conflict('QoSRulesConflict', f"Rule {row['type']} conflicts with one which already exists in QoS Policy "
                                                  f"{row['qos_policy_id']}.")
    unit.conn.execute(sa.update(_rules).where(_rules.c.id == row['id']).values(direction=direction, params=params))
    _changed(unit, row['qos_policy_id'])
    return {**row, 'direction': direction, 'params': params}


def delete_rule(unit, row):
    """Take a rule out of its policy."""
    unit.delete(_rules, _rules.c.id == row['id'])
    _changed(unit, row['qos_policy_id'])


def _changed(unit, policy_id):
    unit.update(_policies, policy_id, {})
    for port_id, host in unit.conn.execute(
        sa.select(_ports.id, _ports.host)
        .join(models.networks, _networks.id == _ports.network_id)
        .where(
            _ports.vif_type == 'tap',
            sa.or_(
                _ports.qos_policy_id == policy_id, sa.and_(_ports.qos_policy_id.is_(None), _networks.qos_policy_id == policy_id)
            ),
        )
    ).all():
        ports.changed(unit, port_id, host)
