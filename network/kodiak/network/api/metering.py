"""Metering labels of the API, and their rules."""
import sqlalchemy as sa

from kodiak.common import db, policy
from kodiak.network import faults, models

from . import fields
from .fields import Field
from .resource import Resource

_labels = models.metering_labels.c
_rules = models.metering_rules.c
ADMIN_ONLY = dict.fromkeys(('create', 'get', 'update', 'delete'), policy.ADMIN)


def create_label(unit, values):
    """Make a label. :returns: its id."""
    label_id, now = db.new_id(), db.utcnow()
    unit.insert(models.metering_labels, {**values, 'id': label_id, 'created_at': now, 'updated_at': now})
    return label_id


def delete_label(unit, row):
    """Delete a label with its rules."""
    unit.delete(models.metering_labels, _labels.id == row['id'])


def create_rule(unit, values):
    """Add a rule to a label. :returns: its id."""
    label = unit.one(sa.select(_labels.project_id).where(_labels.id == values['metering_label_id']))
    if label is None:
        raise faults.missing('MeteringLabelNotFound', f"Metering label {values['metering_label_id']} does not exist.")
    if not any(values.get(name) for name in PREFIXES):
        raise faults.bad('A metering label rule needs a remote, source or destination prefix.', kind='MeteringLabelRuleNoPrefix')
    if unit.one(sa.select(_rules.id).where(*(_rules[name] == values.get(name) if values.get(name) else _rules[name].is_(None)
                                             for name in PREFIXES), _rules.metering_label_id == values['metering_label_id'],
                                           _rules.direction == values['direction'])):
        raise faults.conflict('MeteringLabelRuleOverlaps', 'Another rule of the label says the same.')
    rule_id = db.new_id()
    unit.insert(models.metering_rules, {**values, 'id': rule_id, 'project_id': label['project_id']})
    return rule_id


def delete_rule(unit, row):
    """Take a rule out of its label."""
    unit.delete(models.metering_rules, _rules.id == row['id'])


PREFIXES = ('remote_ip_prefix', 'source_ip_prefix', 'destination_ip_prefix')

LABEL = Resource('metering_label', 'metering_labels', models.metering_labels, [
    *(field for field in fields.standard(models.metering_labels, tagged=False) if field.name not in (
        'revision_number', 'created_at', 'updated_at')),
    Field('shared', fields.BOOLEAN, _labels.shared, put=False, default=False),
], None, create_label, None, delete_label, path='/metering/metering-labels', policies=ADMIN_ONLY,
    missing=('Metering label', 'MeteringLabelNotFound'))

RULE = Resource(
    'metering_label_rule',
    'metering_label_rules',
    models.metering_rules,
    [
        Field('id', fields.ID, _rules.id, post=False, put=False),
        Field('project_id', fields.PROJECT, _rules.project_id, put=False),
        Field('tenant_id', fields.PROJECT, _rules.project_id, put=False),
        Field('metering_label_id', fields.ID, _rules.metering_label_id, put=False, default=fields.REQUIRED),
        Field('direction', fields.choice('ingress', 'egress'), _rules.direction, put=False, default='ingress'),
        Field('excluded', fields.BOOLEAN, _rules.excluded, put=False, default=False),
        *(Field(name, fields.CIDR_OR_NONE, _rules[name], put=False, default=None) for name in PREFIXES),
    ],
    None,
    create_rule,
    None,
    delete_rule,
    path='/metering/metering-label-rules',
    policies=ADMIN_ONLY,
    missing=('Metering label rule', 'MeteringLabelRuleNotFound'),
)
