"""What operators offer: volume types, their access, encryption and quality of service; groups and group types."""
import sqlalchemy as sa

from kodiak.common import db

from .base import UUID, metadata, moments, uuid_key

volume_types = sa.Table(
    'volume_types', metadata,
    uuid_key(),
    sa.Column('name', sa.String(255), nullable=False, unique=True),
    sa.Column('description', sa.String(255)),
    sa.Column('is_public', sa.Boolean, nullable=False),
    sa.Column('qos_specs_id', UUID, index=True),
    sa.Column('extra_specs', db.JSON, nullable=False),
    *moments())

type_access = sa.Table(
    'volume_type_access', metadata,
    sa.Column('volume_type_id', UUID, primary_key=True),
    sa.Column('project_id', sa.String(64), primary_key=True))

#: The type that a project's volumes have where none is named, if not the cloud's.
default_types = sa.Table(
    'default_types', metadata,
    sa.Column('project_id', sa.String(64), primary_key=True),
    sa.Column('volume_type_id', UUID, nullable=False))

encryptions = sa.Table(
    'volume_type_encryptions', metadata,
    sa.Column('volume_type_id', UUID, primary_key=True),
    sa.Column('encryption_id', UUID, nullable=False, unique=True),
    sa.Column('provider', sa.String(255), nullable=False),
    sa.Column('cipher', sa.String(255)),
    sa.Column('key_size', sa.Integer),
    sa.Column('control_location', sa.String(16), nullable=False),
    *moments())

qos_specs = sa.Table(
    'qos_specs', metadata,
    uuid_key(),
    sa.Column('name', sa.String(255), nullable=False, unique=True),
    sa.Column('consumer', sa.String(16), nullable=False),
    sa.Column('specs', db.JSON, nullable=False),
    *moments())

group_types = sa.Table(
    'group_types', metadata,
    uuid_key(),
    sa.Column('name', sa.String(255), nullable=False, unique=True),
    sa.Column('description', sa.String(255)),
    sa.Column('is_public', sa.Boolean, nullable=False),
    sa.Column('group_specs', db.JSON, nullable=False),
    *moments())

groups = sa.Table(
    'volume_groups', metadata,
    uuid_key(),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('name', sa.String(255)),
    sa.Column('description', sa.String(255)),
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('deadline', db.Moment, index=True),
    sa.Column('availability_zone', sa.String(255)),
    sa.Column('group_type_id', UUID, nullable=False, index=True),
    sa.Column('volume_types', db.JSON, nullable=False),                  # ids
    sa.Column('backend', sa.String(255)),
    sa.Column('group_snapshot_id', UUID),
    sa.Column('source_group_id', UUID),
    *moments(),
    sa.Index('ix_volume_groups_owner', 'project_id', 'created_at'))

group_snapshots = sa.Table(
    'group_snapshots', metadata,
    uuid_key(),
    sa.Column('group_id', UUID, nullable=False, index=True),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('name', sa.String(255)),
    sa.Column('description', sa.String(255)),
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('deadline', db.Moment, index=True),
    sa.Column('group_type_id', UUID, nullable=False),
    *moments(),
    sa.Index('ix_group_snapshots_owner', 'project_id', 'created_at'))
