"""What people delegate: credentials, application credentials, trusts, OAuth."""
import sqlalchemy as sa

from kodiak.common import db

from .base import TIME, extra, key, metadata, ref

#: ``blob`` is encrypted with the credential keys (``kodiak.identity.crypt``). EC2 credentials are of type ``ec2``, and
#: their id is the SHA-256 of the first access key; ``access_hash`` is that of the present one, by which they are found.
credentials = sa.Table(
    'credentials', metadata, key(),
    sa.Column('user_id', sa.String(64), nullable=False, index=True),
    sa.Column('project_id', sa.String(64), index=True),
    sa.Column('type', sa.String(255), nullable=False),
    sa.Column('blob', sa.Text, nullable=False),
    sa.Column('access_hash', sa.String(64), unique=True), extra())

app_credentials = sa.Table(
    'application_credentials', metadata, key(),
    ref('user_id', 'users.id', nullable=False),
    ref('project_id', 'projects.id', nullable=False, index=True),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('description', sa.Text),
    sa.Column('secret_hash', sa.String(255), nullable=False),
    sa.Column('expires_at', TIME),
    sa.Column('unrestricted', sa.Boolean, nullable=False, default=False),
    # ids of the roles that it was given, a list
    sa.Column('role_ids', db.JSON, nullable=False),
    # True where it may call only what its access rules name
    sa.Column('restricted_access', sa.Boolean, nullable=False, default=False),
    sa.Column('created_at', TIME, nullable=False),
    sa.UniqueConstraint('user_id', 'name'))

access_rules = sa.Table(
    'access_rules', metadata, key(),
    ref('user_id', 'users.id', nullable=False),
    sa.Column('service', sa.String(64), nullable=False),
    sa.Column('method', sa.String(16), nullable=False),
    sa.Column('path', sa.String(128), nullable=False),
    sa.UniqueConstraint('user_id', 'service', 'method', 'path'))

app_credential_rules = sa.Table(
    'application_credential_rules', metadata,
    ref('app_credential_id', 'application_credentials.id', primary_key=True),
    sa.Column('access_rule_id', sa.String(64), sa.ForeignKey('access_rules.id'), primary_key=True, index=True))

trusts = sa.Table(
    'trusts', metadata, key(),
    sa.Column('trustor_id', sa.String(64), nullable=False, index=True),
    sa.Column('trustee_id', sa.String(64), nullable=False, index=True),
    sa.Column('project_id', sa.String(64), index=True),
    sa.Column('impersonation', sa.Boolean, nullable=False),
    sa.Column('expires_at', TIME),
    sa.Column('remaining_uses', sa.Integer),
    sa.Column('redelegated_trust_id', sa.String(64), index=True),
    sa.Column('redelegation_count', sa.Integer, nullable=False, default=0),
    sa.Column('role_ids', db.JSON, nullable=False),
    sa.Column('deleted_at', TIME),
    extra())

oauth_consumers = sa.Table(
    'oauth_consumers', metadata, key(),
    sa.Column('secret', sa.String(64), nullable=False),
    sa.Column('description', sa.Text), extra())

#: Request tokens (``kind`` request) and access tokens (``kind`` access) of OAuth 1.0a.
oauth_tokens = sa.Table(
    'oauth_tokens', metadata, key(),
    sa.Column('kind', sa.String(8), nullable=False),
    ref('consumer_id', 'oauth_consumers.id', nullable=False, index=True),
    sa.Column('secret', sa.String(64), nullable=False),
    sa.Column('verifier', sa.String(64)),
    sa.Column('user_id', sa.String(64), index=True),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('role_ids', db.JSON, nullable=False, default=list),
    sa.Column('expires_at', TIME))

oauth_nonces = sa.Table(
    'oauth_nonces', metadata,
    sa.Column('nonce', sa.String(64), primary_key=True),
    sa.Column('seen_at', TIME, nullable=False, index=True))
