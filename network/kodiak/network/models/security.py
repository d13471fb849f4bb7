"""Security groups, their rules, and address groups."""
import sqlalchemy as sa

from kodiak.common import db

from .base import flag, generation, key, metadata, name, project, refers, standard

security_groups = sa.Table('security_groups', metadata, key(), project(), name(), *standard(), generation(), flag('stateful', True),
                           flag('shared'))

# One default group a project: the primary key settles who makes it when two requests are the first at once.
default_groups = sa.Table('default_groups', metadata, sa.Column('project_id', sa.String(64), primary_key=True),
                          refers('security_group_id', 'security_groups', ondelete='CASCADE'))


def _rule():
    return [sa.Column('direction', sa.String(8), nullable=False), sa.Column('ethertype', sa.String(8), nullable=False),
            sa.Column('protocol', sa.String(40)),
            sa.Column('port_range_min', sa.Integer), sa.Column('port_range_max', sa.Integer),
            sa.Column('remote_ip_prefix', sa.String(64))]


security_rules = sa.Table(
    'security_rules', metadata, key(), project(), *standard(), *_rule(),
    refers('security_group_id', 'security_groups', index=False, ondelete='CASCADE'),
    refers('remote_group_id', 'security_groups', nullable=True, ondelete='CASCADE'),
    refers('remote_address_group_id', 'address_groups', nullable=True),
    sa.Column('normalized_cidr', sa.String(64)),
    flag('belongs_to_default_sg'),
    sa.Column('fingerprint', sa.String(255), nullable=False),   # what makes two rules the same
    sa.UniqueConstraint('security_group_id', 'fingerprint'))

# What a new group begins with.
default_rules = sa.Table(
    'default_rules', metadata, key(), *standard(), *_rule(),
    sa.Column('remote_group_id', sa.String(36)),                # 'PARENT' is the group that the rule is put into
    sa.Column('remote_address_group_id', sa.String(36)),
    flag('used_in_default_sg'), flag('used_in_non_default_sg', True))

address_groups = sa.Table('address_groups', metadata, key(), project(), name(), *standard(), generation(), flag('shared'),
                          sa.Column('addresses', db.JSON, default=list))
