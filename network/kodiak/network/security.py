"""Security groups and rules: the default group of a project, what a rule may say, and when two are the same."""
import ipaddress

import sqlalchemy as sa

from kodiak.common import db
from kodiak.common.api import schema

from . import faults, find, models, quotas

_groups = models.security_groups
_rules = models.security_rules
_defaults = models.default_groups

#: protocol names that a rule may have, and their numbers
PROTOCOLS = {
    'ah': 51, 'dccp': 33, 'egp': 8, 'esp': 50, 'gre': 47, 'icmp': 1, 'icmpv6': 58, 'igmp': 2, 'ipip': 4, 'ipv6-encap': 41,
    'ipv6-frag': 44, 'ipv6-icmp': 58, 'ipv6-nonxt': 59, 'ipv6-opts': 60, 'ipv6-route': 43, 'ospf': 89, 'pgm': 113, 'rsvp': 46,
    'sctp': 132, 'tcp': 6, 'udp': 17, 'udplite': 136, 'vrrp': 112,
}
WITH_PORTS = {6, 17, 132, 33, 136}
ICMP = {1, 58}
ONLY_IPV6 = {'icmpv6', 'ipv6-icmp', 'ipv6-encap', 'ipv6-frag', 'ipv6-nonxt', 'ipv6-opts', 'ipv6-route'}
ICMPV6 = ('icmpv6', 'ipv6-icmp')
ETHERTYPES = {'ipv4': 'IPv4', 'ipv6': 'IPv6'}

RULE = ('direction', 'ethertype', 'protocol', 'port_range_min', 'port_range_max', 'remote_ip_prefix', 'remote_group_id',
        'remote_address_group_id')
PARENT = 'PARENT'         # in a template: the group that the rule is put into


def default_group(unit, project_id):
    """The id of a project's default group, which is made at its first use; None where there is no project."""
    if not project_id:
        return None
    query = sa.select(_defaults.c.security_group_id).where(_defaults.c.project_id == project_id)
    found = unit.conn.scalar(query)
    if found is None:
        found = _make(unit, {'project_id': project_id, 'name': 'default', 'description': 'Default security group'}, default=True)
        unit.insert(_defaults, {'project_id': project_id, 'security_group_id': found})
    return found


def create(unit, values):
    """Make a group with the rules that every group begins with.

    :raises Conflict: SecurityGroupDefaultAlreadyExists, OverQuota.
    """
    if values.get('name', '').lower() == 'default':
        default_group(unit, values['project_id'])
        raise faults.conflict('SecurityGroupDefaultAlreadyExists', 'Default security group already exists.')
    default_group(unit, values['project_id'])
    quotas.claim(unit, values['project_id'], 'security_group')
    return _make(unit, values, default=False)


def _make(unit, values, default):
    group_id, now = db.new_id(), db.utcnow()
    unit.insert(_groups, {'id': group_id, **values, 'created_at': now, 'updated_at': now})
    made = []
    templates = models.default_rules
    for row in unit.all(
        sa.select(templates).where(templates.c.used_in_default_sg if default else templates.c.used_in_non_default_sg)
    ):
        rule = checked({name: row[name] for name in RULE})
        rule['remote_group_id'] = group_id if rule['remote_group_id'] == PARENT else rule['remote_group_id']
        made.append({'id': db.new_id(), 'project_id': values['project_id'], 'security_group_id': group_id, **rule,
                     'belongs_to_default_sg': default, 'fingerprint': fingerprint(rule), 'created_at': now, 'updated_at': now})
    unit.insert(_rules, made)
    return group_id


def update(unit, row, values):
    """Change a group. The default group keeps its name."""
    changes = {name: value for name, value in values.items() if value != row[name]}
    if 'name' in changes and row['name'] == 'default' and _is_default(unit, row['id']):
        if not unit.ctx.is_admin:
            raise faults.conflict('SecurityGroupCannotUpdateDefault', 'Updating default security group not allowed.')
        del changes['name']
    elif changes.get('name', '').lower() == 'default':
        raise faults.conflict('SecurityGroupDefaultAlreadyExists', 'Default security group already exists.')
    if 'stateful' in changes:
        _check_unused(unit, row['id'])
        changes['generation'] = _groups.c.generation + 1
        unit.touch('security_groups', row['id'], f"group:{row['id']}")
    unit.update(_groups, row['id'], changes)


def _is_default(unit, group_id):
    return unit.conn.execute(sa.select(_defaults.c.project_id).where(_defaults.c.security_group_id == group_id)).first() is not None


def _check_unused(unit, group_id):
    if unit.conn.execute(sa.select(models.port_groups.c.port_id).where(
            models.port_groups.c.security_group_id == group_id).limit(1)).first():
        raise faults.conflict('SecurityGroupInUse', f'Security Group {group_id} in use.')


def delete(unit, row):
    """Delete a group that no port is in.

    :raises Conflict: SecurityGroupInUse, SecurityGroupCannotRemoveDefault.
    """
    if not unit.ctx.is_admin and _is_default(unit, row['id']):
        raise faults.conflict('SecurityGroupCannotRemoveDefault', 'Insufficient rights for removing default security group.')
    _check_unused(unit, row['id'])
    for group_id in unit.conn.scalars(sa.select(_rules.c.security_group_id).distinct().where(
            _rules.c.remote_group_id == row['id'], _rules.c.security_group_id != row['id'])).all():
        _changed(unit, group_id)
    unit.delete(models.rbac_policies, models.rbac_policies.c.object_id == row['id'])
    unit.delete(_rules, sa.or_(_rules.c.security_group_id == row['id'], _rules.c.remote_group_id == row['id']))
    unit.delete(_defaults, _defaults.c.security_group_id == row['id'])
    unit.delete(_groups, _groups.c.id == row['id'])


def _changed(unit, group_id):
    """The rules of a group changed: its document, and which address sets its hosts need."""
    unit.update(_groups, group_id, {'generation': _groups.c.generation + 1})
    unit.touch('security_groups', group_id, f'group:{group_id}')
    subscriptions = models.subscriptions.c
    unit.moved(*unit.conn.scalars(sa.select(subscriptions.host).where(
        subscriptions.scope == f'group:{group_id}', subscriptions.ended.is_(False))))


def number_of(protocol):
    """The number of a protocol given by name or number; None for any."""
    if protocol is None:
        return None
    return PROTOCOLS[protocol] if protocol in PROTOCOLS else int(protocol)


def fingerprint(rule):
    """Text that is the same for two rules of a group which say the same."""
    number = number_of(rule['protocol'])
    cidr = rule['normalized_cidr']
    if cidr in ('0.0.0.0/0', '::/0'):
        cidr = None
    parts = (rule['direction'], rule['ethertype'], number, rule['port_range_min'], rule['port_range_max'], rule['remote_group_id'],
             cidr, rule['remote_address_group_id'])
    return '|'.join('' if part is None else str(part) for part in parts)


def checked(values):
    """The values of a rule, complete and in their canonical form.

    :raises BadRequest: what the rule says makes no sense.
    """
    rule = {'protocol': None, 'port_range_min': None, 'port_range_max': None, 'remote_group_id': None, 'remote_ip_prefix': None,
            'remote_address_group_id': None, 'ethertype': 'IPv4', **values}
    rule['ethertype'] = ETHERTYPES[(rule['ethertype'] or 'IPv4').lower()]
    rule['protocol'] = _protocol(rule['protocol'])
    remotes = [name for name in ('remote_group_id', 'remote_ip_prefix', 'remote_address_group_id') if rule[name]]
    if len(remotes) > 1:
        raise faults.bad('Only remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.',
                         kind='SecurityGroupMultipleRemoteEntites')
    rule['normalized_cidr'] = None
    if rule['remote_ip_prefix'] is not None:
        prefix = ipaddress.ip_network(rule['remote_ip_prefix'], strict=False)
        if f'IPv{prefix.version}' != rule['ethertype']:
            raise faults.bad(f"Conflicting value ethertype {rule['ethertype']} for CIDR {rule['remote_ip_prefix']}",
                             kind='SecurityGroupRuleParameterConflict')
        rule['normalized_cidr'] = str(prefix)
        if '/' not in rule['remote_ip_prefix']:
            rule['remote_ip_prefix'] = str(prefix)
    _check_range(rule)
    return rule


def _protocol(protocol):
    if protocol is None or str(protocol).lower() in ('any', '-1', ''):
        return None
    text = str(protocol).lower()
    if text in PROTOCOLS:
        return text
    number = schema.natural(text)
    if number is not None and number <= 255:
        return None if number == 0 and text != '0' else text
    raise faults.bad(f'Security group rule protocol {protocol} not supported. Only protocol values '
                     f'{sorted(PROTOCOLS)} and integer representations [0 to 255] are supported.',
                     kind='SecurityGroupRuleInvalidProtocol')


def _check_range(rule):
    number, low, high = number_of(rule['protocol']), rule['port_range_min'], rule['port_range_max']
    if rule['protocol'] in ONLY_IPV6 and rule['ethertype'] != 'IPv6':
        raise faults.bad(f"Invalid ethertype {rule['ethertype']} for protocol {rule['protocol']}.",
                         kind='SecurityGroupEthertypeConflictWithProtocol')
    if low is None and high is None:
        return
    if number is None:
        raise faults.bad('Must also specify protocol if port range is given.', kind='SecurityGroupProtocolRequiredWithPorts')
    if number in ICMP:
        for attribute, value in (('port_range_min', low), ('port_range_max', high)):
            if value is not None and not 0 <= value <= 255:
                what = 'type' if attribute == 'port_range_min' else 'code'
                raise faults.bad(f'Invalid value for ICMP {what} ({attribute}) {value}. It must be 0 to 255.',
                                 kind='SecurityGroupInvalidIcmpValue')
        if low is None:
            raise faults.bad(f'ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing.',
                             kind='SecurityGroupMissingIcmpType')
        return
    if number not in WITH_PORTS:
        raise faults.bad(
            f'Port range cannot be specified for protocol {rule["protocol"]}. Port range is only supported for TCP, UDP, '
            'UDPLITE, SCTP and DCCP.',
            kind='SecurityGroupInvalidProtocolForPort',
        )
    for value in (low, high):
        if value is not None and not 1 <= value <= 65535:
            raise faults.bad(f'Invalid value for port {value}', kind='SecurityGroupInvalidPortValue')
    if low is None or high is None or low > high:
        raise faults.bad('For TCP/UDP protocols, port_range_min must be <= port_range_max', kind='SecurityGroupInvalidPortRange')


def create_rule(unit, values):
    """Add a rule to a group.

    :raises Conflict: SecurityGroupRuleExists.
    """
    rule = checked(values)
    group = find.row(unit, _groups, rule['security_group_id'], lock=True)
    if not unit.ctx.is_admin and group['project_id'] != unit.ctx.project_id:
        raise faults.not_found('Security group', group['id'], 'SecurityGroupNotFound')
    if rule['remote_group_id']:
        find.row(unit, _groups, rule['remote_group_id'])
    if rule['remote_address_group_id']:
        find.row(unit, models.address_groups, rule['remote_address_group_id'])
    quotas.claim(unit, rule['project_id'], 'security_group_rule')
    rule_id, now = db.new_id(), db.utcnow()
    mark = fingerprint(rule)
    existing = unit.conn.scalar(
        sa.select(_rules.c.id).where(_rules.c.security_group_id == group['id'], _rules.c.fingerprint == mark)
    )
    if existing:
        raise faults.conflict('SecurityGroupRuleExists', f'Security group rule already exists. Rule id is {existing}.')
    unit.insert(_rules, {'id': rule_id, **rule, 'fingerprint': mark, 'belongs_to_default_sg': _is_default(unit, group['id']),
                         'created_at': now, 'updated_at': now})
    _changed(unit, group['id'])
    return rule_id


def delete_rule(unit, row):
    """Take a rule out of its group."""
    unit.delete(_rules, _rules.c.id == row['id'])
    _changed(unit, row['security_group_id'])


def create_template(unit, values):
    """Add a rule to those that new groups begin with."""
    rule = checked({name: value for name, value in values.items() if name in RULE})
    rule.pop('normalized_cidr')
    template_id, now = db.new_id(), db.utcnow()
    unit.insert(models.default_rules, {**values, **rule, 'id': template_id, 'created_at': now, 'updated_at': now})
    return template_id


def delete_template(unit, row):
    """Take one away; groups that there are keep their rules."""
    unit.delete(models.default_rules, models.default_rules.c.id == row['id'])


def create_address_group(unit, values):
    """Make a group of addresses. :returns: its id."""
    group_id, now = db.new_id(), db.utcnow()
    unit.insert(models.address_groups, {**values, 'id': group_id, 'created_at': now, 'updated_at': now})
    return group_id


def update_address_group(unit, row, values):
    """Rename or describe one."""
    unit.update(models.address_groups, row['id'], {name: value for name, value in values.items() if value != row[name]})


def change_addresses(unit, row, add=(), remove=()):
    """Put addresses into a group and take some out. :returns: the addresses that it has then."""
    table = models.address_groups
    row = find.row(unit, table, row['id'], lock=True)
    addresses = list(dict.fromkeys([one for one in row['addresses'] if one not in remove] + list(add)))
    unit.update(table, row['id'], {'addresses': addresses, 'generation': table.c.generation + 1})
    unit.touch('set_members', row['id'], f"set:{row['id']}")
    return addresses


def delete_address_group(unit, row):
    """Delete a group of addresses that no rule names.

    :raises Conflict: AddressGroupInUse.
    """
    if unit.conn.execute(sa.select(_rules.c.id).where(_rules.c.remote_address_group_id == row['id']).limit(1)).first():
        raise faults.conflict('AddressGroupInUse', f"Address group {row['id']} is in use on one or more security group rules")
    unit.delete(models.rbac_policies, models.rbac_policies.c.object_id == row['id'])
    unit.delete(models.address_groups, models.address_groups.c.id == row['id'])
