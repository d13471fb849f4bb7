"""Placement's tables: who provides what, who uses it.

Resource classes and traits stand in the rows by name: a name is what every request gives and every answer shows.
"""
import sqlalchemy as sa

from .base import metadata

providers = sa.Table(
    'resource_providers', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', sa.String(36), nullable=False, unique=True),
    sa.Column('name', sa.String(200), nullable=False, unique=True),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('parent_id', sa.ForeignKey('resource_providers.id'), index=True),
    sa.Column('root_id', sa.Integer, index=True),
    # What an allocation candidate shows of a provider, as JSON text that is written with the inventories and
    # allocations that it sums up: {class: {capacity, used}} and [trait, ...].
    sa.Column('summary', sa.Text, nullable=False, default='{}'),
    sa.Column('traits', sa.Text, nullable=False, default='[]'),
    sa.Column('created_at', sa.DateTime, nullable=False),
    sa.Column('updated_at', sa.DateTime, nullable=False),
)

inventories = sa.Table(
    'inventories', metadata,
    sa.Column('provider_id', sa.ForeignKey('resource_providers.id', ondelete='CASCADE'), primary_key=True, autoincrement=False),
    sa.Column('resource_class', sa.String(255), primary_key=True),
    sa.Column('total', sa.Integer, nullable=False),
    sa.Column('reserved', sa.Integer, nullable=False),
    sa.Column('min_unit', sa.Integer, nullable=False),
    sa.Column('max_unit', sa.Integer, nullable=False),
    sa.Column('step_size', sa.Integer, nullable=False),
    sa.Column('allocation_ratio', sa.Float, nullable=False),
    # (total - reserved) * allocation_ratio, and the sum of the allocations: both are written only by
    # kodiak.compute.placement, in the transaction that changes what they follow from.
    sa.Column('capacity', sa.BigInteger, nullable=False),
    sa.Column('used', sa.BigInteger, nullable=False, default=0),
    sa.Index('ix_inventories_class', 'resource_class', 'provider_id'),
    sqlite_with_rowid=False,
)

provider_traits = sa.Table(
    'provider_traits', metadata,
    sa.Column('provider_id', sa.ForeignKey('resource_providers.id', ondelete='CASCADE'), primary_key=True, autoincrement=False),
    sa.Column('trait', sa.String(255), primary_key=True, index=True),
)

provider_aggregates = sa.Table(
    'provider_aggregates', metadata,
    sa.Column('provider_id', sa.ForeignKey('resource_providers.id', ondelete='CASCADE'), primary_key=True, autoincrement=False),
    sa.Column('aggregate', sa.String(36), primary_key=True, index=True),
)

resource_classes = sa.Table(
    'resource_classes', metadata,
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('updated_at', sa.DateTime, nullable=False),
)

traits = sa.Table(
    'traits', metadata,
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('updated_at', sa.DateTime, nullable=False),
)

consumers = sa.Table(
    'consumers', metadata,
    sa.Column('uuid', sa.String(36), primary_key=True),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('project_id', sa.String(255)),
    sa.Column('user_id', sa.String(255)),
    sa.Column('consumer_type', sa.String(255)),
    sa.Column('updated_at', sa.DateTime, nullable=False),
    sa.Index('ix_consumers_project', 'project_id', 'user_id'),
)

allocations = sa.Table(
    'allocations', metadata,
    sa.Column('consumer_uuid', sa.ForeignKey('consumers.uuid', ondelete='CASCADE'), primary_key=True),
    sa.Column('provider_id', sa.ForeignKey('resource_providers.id'), primary_key=True, autoincrement=False, index=True),
    sa.Column('resource_class', sa.String(255), primary_key=True),
    sa.Column('used', sa.Integer, nullable=False),
)

