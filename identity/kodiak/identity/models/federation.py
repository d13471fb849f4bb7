"""Federation: identity providers, what their assertions mean here, whom they have brought, and clouds that trust us."""
import sqlalchemy as sa

from kodiak.common import db

from .base import key, metadata, ref

identity_providers = sa.Table(
    'identity_providers', metadata, key(),
    ref('domain_id', 'projects.id', nullable=False),
    sa.Column('enabled', sa.Boolean, nullable=False, default=False),
    sa.Column('description', sa.Text),
    # minutes that memberships last which an assertion gave; NULL: as long as a token
    sa.Column('authorization_ttl', sa.Integer))

#: What a provider calls itself in its assertions (an issuer, an entity id).
remote_ids = sa.Table(
    'identity_provider_remote_ids', metadata,
    sa.Column('remote_id', sa.String(255), primary_key=True),
    ref('idp_id', 'identity_providers.id', nullable=False, index=True))

mappings = sa.Table(
    'mappings', metadata, key(),
    sa.Column('rules', db.JSON, nullable=False),
    sa.Column('schema_version', sa.String(5), nullable=False, default='1.0'))

protocols = sa.Table(
    'federation_protocols', metadata, key(),
    ref('idp_id', 'identity_providers.id', primary_key=True),
    sa.Column('mapping_id', sa.String(64), nullable=False),
    sa.Column('remote_id_attribute', sa.String(64)))

#: Which user a person of a provider is here. ``unique_id`` is what the mapping makes the user's id or name.
federated_identities = sa.Table(
    'federated_identities', metadata,
    ref('idp_id', 'identity_providers.id', primary_key=True),
    sa.Column('protocol_id', sa.String(64), primary_key=True),
    sa.Column('unique_id', sa.String(255), primary_key=True),
    ref('user_id', 'users.id', nullable=False, index=True))

#: Clouds that take our users (Keystone to Keystone).
service_providers = sa.Table(
    'service_providers', metadata, key(),
    sa.Column('auth_url', sa.String(256), nullable=False),
    sa.Column('sp_url', sa.String(256), nullable=False),
    sa.Column('description', sa.Text),
    sa.Column('enabled', sa.Boolean, nullable=False, default=False),
    sa.Column('relay_state_prefix', sa.String(256), nullable=False))
