"""Security groups and their rules in the API."""
import sqlalchemy as sa

from kodiak.common import policy
from kodiak.network import find, models, security, unit

from . import fields
from .fields import Field
from .networks import shared_expression
from .resource import Resource

_groups = models.security_groups.c
_rules = models.security_rules.c

ANY_TEXT = fields.Kind({'type': ['string', 'integer', 'null']}, lambda value, name: None if value is None else str(value),
                       {'type': ['string', 'null']})
ETHERTYPE = fields.Kind({'type': ['string', 'null'], 'pattern': '^(?i:ipv4|ipv6)$'})


def _prefix(value, name):
    return None if value is None else fields.ip_or_cidr(value, name)


RULE_ATTRIBUTES = [
    *fields.standard(models.security_rules, named=False, tagged=False),
    Field('security_group_id', fields.ID, _rules.security_group_id, put=False, default=fields.REQUIRED),
    Field('direction', fields.choice('ingress', 'egress'), _rules.direction, put=False, default=fields.REQUIRED),
    Field('ethertype', ETHERTYPE, _rules.ethertype, put=False, default='IPv4'),
    Field('protocol', ANY_TEXT, _rules.protocol, put=False, default=None),
    Field('port_range_min', fields.integer(null=True), _rules.port_range_min, put=False, default=None),
    Field('port_range_max', fields.integer(null=True), _rules.port_range_max, put=False, default=None),
    Field(
        'remote_ip_prefix',
        fields.Kind({'type': ['string', 'null'], 'maxLength': 64}, _prefix),
        _rules.remote_ip_prefix,
        put=False,
        default=None,
    ),
    Field('remote_group_id', fields.text(36, null=True), _rules.remote_group_id, put=False, default=None),
    Field('remote_address_group_id', fields.text(36, null=True), _rules.remote_address_group_id, put=False, default=None),
    Field('normalized_cidr', fields.text(null=True), _rules.normalized_cidr, post=False, put=False),
    Field('belongs_to_default_sg', fields.BOOLEAN, _rules.belongs_to_default_sg, post=False, put=False),
]


def _visible_rules(project_id):
    # The owner of a group sees its rules, whoever made them.
    return sa.or_(_rules.project_id == project_id, _rules.security_group_id.in_(
        sa.select(_groups.id).where(_groups.project_id == project_id)))


def ensure_default(req):
    """Make the default group of the caller's project if it has none yet."""
    project_id = req.ctx.project_id
    if not project_id:
        return
    table = models.default_groups
    with req.db.read() as conn:
        found = conn.execute(sa.select(table.c.project_id).where(table.c.project_id == project_id)).first()
    if found is None:
        unit.run(req.app, req.ctx, security.default_group, project_id)


RULE = Resource('security_group_rule', 'security_group_rules', models.security_rules, RULE_ATTRIBUTES, _visible_rules,
                security.create_rule, None, security.delete_rule, before=ensure_default,
                missing=('Security group rule', 'SecurityGroupRuleNotFound'),
                policies={'delete': '(role:member and project_id:%(project_id)s) or (role:member and '
                                    'project_id:%(group_project_id)s) or role:admin'},
                more=[sa.select(_groups.project_id).where(_groups.id == _rules.security_group_id).scalar_subquery()
                      .label('group_project_id')])


def _with_rules(conn, items, names, req):
    if 'security_group_rules' not in names or not items:
        return
    select, chosen, viewers = RULE.select(tuple(RULE.fields), req.ctx)
    ids = [item['id'] for item in items]
    listed = {}
    select = select.where(_rules.security_group_id == ids[0] if len(ids) == 1 else _rules.security_group_id.in_(ids))
    for rule in RULE.read(conn, req, select.order_by(_rules.created_at, _rules.id), chosen, viewers, chosen):
        listed.setdefault(rule['security_group_id'], []).append(rule)
    for item in items:
        item['security_group_rules'] = listed.get(item['id'], [])


GROUP = Resource('security_group', 'security_groups', models.security_groups, [
    *fields.standard(models.security_groups),
    Field('stateful', fields.BOOLEAN, _groups.stateful, default=True),
    Field('shared', fields.BOOLEAN, _groups.shared, post=False, put=False,
          expression=shared_expression('security_group', models.security_groups)),
    Field('security_group_rules', fields.ANY, None, post=False, put=False),
], find.usable('security_group', models.security_groups), security.create, security.update, security.delete, finish=_with_rules,
    before=ensure_default, missing=('Security group', 'SecurityGroupNotFound'), policies={'create': policy.PROJECT_MEMBER})
