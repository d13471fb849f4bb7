"""What servers are made of and where: flavors, key pairs, hosts, aggregates, server groups."""
import sqlalchemy as sa

from kodiak.common import db

from .base import MOMENT, metadata

_uuid = sa.String(36)

flavors = sa.Table(
    'flavors', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('flavorid', sa.String(255), nullable=False, unique=True),
    sa.Column('name', sa.String(255), nullable=False, unique=True),
    sa.Column('ram', sa.Integer, nullable=False),
    sa.Column('vcpus', sa.Integer, nullable=False),
    sa.Column('disk', sa.Integer, nullable=False),
    sa.Column('ephemeral', sa.Integer, nullable=False),
    sa.Column('swap', sa.Integer, nullable=False),
    sa.Column('rxtx_factor', sa.Float, nullable=False),
    sa.Column('is_public', sa.Boolean, nullable=False),
    sa.Column('description', sa.Text),
    sa.Column('extra_specs', db.JSON, nullable=False),
    sa.Column('created_at', MOMENT, nullable=False))

flavor_projects = sa.Table(
    'flavor_projects', metadata,
    sa.Column('flavor_id', sa.Integer, primary_key=True),
    sa.Column('project_id', sa.String(64), primary_key=True))

keypairs = sa.Table(
    'keypairs', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('user_id', sa.String(64), nullable=False),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('type', sa.String(8), nullable=False),
    sa.Column('fingerprint', sa.String(255), nullable=False),
    sa.Column('public_key', sa.Text, nullable=False),
    sa.Column('created_at', MOMENT, nullable=False),
    sa.UniqueConstraint('user_id', 'name'))

#: A host with its one hypervisor. ``uuid`` is also its resource provider in Placement. ``generation`` counts the
#: changes of what its agent should bring about. Whether its agent lives stands in ``services``.
hosts = sa.Table(
    'hosts', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', _uuid, nullable=False, unique=True),
    sa.Column('host', sa.String(255), nullable=False, unique=True),
    sa.Column('node', sa.String(255), nullable=False),
    sa.Column('agent', sa.String(255), nullable=False),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('resources', db.JSON, nullable=False),             # agent.state.Resources as last sent
    sa.Column('created_at', MOMENT, nullable=False),
    sa.Column('updated_at', MOMENT, nullable=False))

aggregates = sa.Table(
    'aggregates', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', _uuid, nullable=False, unique=True),
    sa.Column('name', sa.String(255), nullable=False, unique=True),
    sa.Column('zone', sa.String(255)),
    sa.Column('metadata', db.JSON, nullable=False),
    sa.Column('created_at', MOMENT, nullable=False),
    sa.Column('updated_at', MOMENT))

aggregate_hosts = sa.Table(
    'aggregate_hosts', metadata,
    sa.Column('aggregate_id', sa.Integer, primary_key=True),
    sa.Column('host', sa.String(255), primary_key=True))

groups = sa.Table(
    'server_groups', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', _uuid, nullable=False, unique=True),
    sa.Column('project_id', sa.String(64), nullable=False, index=True),
    sa.Column('user_id', sa.String(64), nullable=False),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('policy', sa.String(32), nullable=False),
    sa.Column('rules', db.JSON, nullable=False),
    sa.Column('created_at', MOMENT, nullable=False))

#: Limits that single users have in a project, beside the project's own (``quotas``).
user_quotas = sa.Table(
    'user_quotas', metadata,
    sa.Column('project_id', sa.String(64), primary_key=True),
    sa.Column('user_id', sa.String(64), primary_key=True),
    sa.Column('resource', sa.String(64), primary_key=True),
    sa.Column('hard_limit', sa.Integer, nullable=False))
