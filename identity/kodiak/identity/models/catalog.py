"""Regions, services, endpoints, and what restricts or accompanies them."""
import sqlalchemy as sa

from .base import extra, key, metadata, ref

regions = sa.Table(
    'regions', metadata, sa.Column('id', sa.String(255), primary_key=True),
    sa.Column('parent_region_id', sa.String(255), sa.ForeignKey('regions.id')),
    sa.Column('description', sa.Text, nullable=False, default=''), extra())

services = sa.Table(
    'catalog_services', metadata, key(),
    sa.Column('type', sa.String(255), nullable=False, index=True),
    sa.Column('name', sa.String(255), index=True),
    sa.Column('enabled', sa.Boolean, nullable=False, default=True), extra())

endpoints = sa.Table(
    'endpoints', metadata, key(),
    ref('service_id', 'catalog_services.id', nullable=False, index=True),
    sa.Column('region_id', sa.String(255), sa.ForeignKey('regions.id'), index=True),
    sa.Column('interface', sa.String(16), nullable=False),
    sa.Column('url', sa.Text, nullable=False),
    sa.Column('enabled', sa.Boolean, nullable=False, default=True), extra())

#: Endpoint filtering: the projects that alone see an endpoint, or all endpoints that a group's filters choose.
project_endpoints = sa.Table(
    'project_endpoints', metadata,
    ref('endpoint_id', 'endpoints.id', primary_key=True),
    ref('project_id', 'projects.id', primary_key=True))

endpoint_groups = sa.Table(
    'endpoint_groups', metadata, key(),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('description', sa.Text), extra('filters'))

project_endpoint_groups = sa.Table(
    'project_endpoint_groups', metadata,
    ref('endpoint_group_id', 'endpoint_groups.id', primary_key=True),
    ref('project_id', 'projects.id', primary_key=True))

policies = sa.Table(
    'policies', metadata, key(),
    sa.Column('type', sa.String(255), nullable=False),
    sa.Column('blob', sa.Text, nullable=False), extra())

#: A policy for one endpoint, for a service, or for a service in a region; what doesn't apply is empty.
policy_links = sa.Table(
    'policy_links', metadata, key(),
    ref('policy_id', 'policies.id', nullable=False, index=True),
    sa.Column('endpoint_id', sa.String(64), nullable=False, default=''),
    sa.Column('service_id', sa.String(64), nullable=False, default=''),
    sa.Column('region_id', sa.String(64), nullable=False, default=''),
    sa.UniqueConstraint('endpoint_id', 'service_id', 'region_id'))

#: Service and region are not foreign keys: a limit may outlive them, as in Keystone.
registered_limits = sa.Table(
    'registered_limits', metadata, key(),
    sa.Column('service_id', sa.String(64), nullable=False),
    sa.Column('region_id', sa.String(255)),
    sa.Column('resource_name', sa.String(255), nullable=False),
    sa.Column('default_limit', sa.Integer, nullable=False),
    sa.Column('description', sa.Text))

#: A limit is a project's or a domain's own number where it differs from the registered one.
limits = sa.Table(
    'limits', metadata, key(),
    sa.Column('registered_limit_id', sa.String(64), sa.ForeignKey('registered_limits.id'), nullable=False, index=True),
    ref('project_id', 'projects.id', index=True),
    sa.Column('is_domain', sa.Boolean, nullable=False, default=False),
    sa.Column('resource_limit', sa.Integer, nullable=False),
    sa.Column('description', sa.Text),
    sa.UniqueConstraint('registered_limit_id', 'project_id'))
