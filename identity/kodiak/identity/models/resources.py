"""Projects and domains (a domain is a project without parent), roles and assignments."""
import sqlalchemy as sa

from .base import NO_DOMAIN, extra, key, metadata, ref

projects = sa.Table(
    'projects', metadata, key(),
    sa.Column('domain_id', sa.String(64), nullable=False, default=NO_DOMAIN),
    sa.Column('parent_id', sa.String(64), sa.ForeignKey('projects.id'), index=True),
    sa.Column('is_domain', sa.Boolean, nullable=False, default=False),
    sa.Column('name', sa.String(64), nullable=False),
    sa.Column('description', sa.Text),
    sa.Column('enabled', sa.Boolean, nullable=False, default=True),
    extra(), extra('options'),
    sa.UniqueConstraint('domain_id', 'name'))

project_tags = sa.Table(
    'project_tags', metadata,
    ref('project_id', 'projects.id', primary_key=True),
    sa.Column('name', sa.String(255), primary_key=True, index=True))

roles = sa.Table(
    'roles', metadata, key(),
    sa.Column('domain_id', sa.String(64), nullable=False, default=NO_DOMAIN),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('description', sa.Text),
    extra(), extra('options'),
    sa.UniqueConstraint('domain_id', 'name'))

#: Whoever has ``prior_id`` has ``implied_id`` too.
implied_roles = sa.Table(
    'implied_roles', metadata,
    ref('prior_id', 'roles.id', primary_key=True),
    ref('implied_id', 'roles.id', primary_key=True, index=True))

#: ``actor_kind``: ``user`` or ``group``. ``target_kind``: ``project``, ``domain`` or ``system`` (whose target_id is ``system``).
#: ``inherited``: holds for all projects below the target, not for the target.
assignments = sa.Table(
    'assignments', metadata,
    sa.Column('actor_kind', sa.String(8), primary_key=True),
    sa.Column('actor_id', sa.String(64), primary_key=True),
    sa.Column('target_kind', sa.String(8), primary_key=True),
    sa.Column('target_id', sa.String(64), primary_key=True),
    ref('role_id', 'roles.id', primary_key=True, index=True),
    sa.Column('inherited', sa.Boolean, primary_key=True, default=False),
    sa.Index('ix_assignments_target', 'target_kind', 'target_id'))
