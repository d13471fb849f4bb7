"""Quality-of-service policies and metering labels."""
import sqlalchemy as sa

from kodiak.common import db

from .base import flag, key, metadata, name, project, refers, standard

qos_policies = sa.Table('qos_policies', metadata, key(), project(), name(), *standard(), flag('shared'), flag('is_default'))

qos_rules = sa.Table(
    'qos_rules', metadata, key(), refers('qos_policy_id', 'qos_policies', index=False, ondelete='CASCADE'),
    sa.Column('type', sa.String(32), nullable=False),
    sa.Column('direction', sa.String(8), nullable=False, default=''),
    sa.Column('params', db.JSON, nullable=False),
    sa.UniqueConstraint('qos_policy_id', 'type', 'direction'))

metering_labels = sa.Table('metering_labels', metadata, key(), project(), name(), *standard(), flag('shared'))

metering_rules = sa.Table(
    'metering_rules', metadata, key(), project(), refers('metering_label_id', 'metering_labels', ondelete='CASCADE'),
    sa.Column('direction', sa.String(8), nullable=False), flag('excluded'),
    sa.Column('remote_ip_prefix', sa.String(64)), sa.Column('source_ip_prefix', sa.String(64)),
    sa.Column('destination_ip_prefix', sa.String(64)))
