"""What identity keeps for itself: revocation events, and numbers that grow when something cached elsewhere changes."""
import sqlalchemy as sa

from kodiak.common import db

from .base import TIME, metadata, ref

#: ``event`` holds the conditions (:class:`kodiak.common.tokens.Revocations`). ``sequence`` is drawn inside the transaction
#: that holds the row ``revocation`` of :data:`versions`, so a reader that has seen N has seen all below N.
revocations = sa.Table(
    'revocations', metadata, sa.Column('sequence', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('event', db.JSON, nullable=False),
    sa.Column('revoked_at', TIME, nullable=False),
    sa.Column('expires_at', TIME, nullable=False, index=True))

#: ``revocation``, ``catalog``, ``resource`` (projects, domains), ``assignment`` (roles and who has them).
versions = sa.Table(
    'versions', metadata, sa.Column('name', sa.String(32), primary_key=True),
    sa.Column('value', sa.BigInteger, nullable=False))

#: Options of a domain (``[ldap] url``); sensitive ones are encrypted.
domain_options = sa.Table(
    'domain_options', metadata,
    ref('domain_id', 'projects.id', primary_key=True),
    sa.Column('group', sa.String(64), primary_key=True),
    sa.Column('option', sa.String(64), primary_key=True),
    sa.Column('value', db.JSON),
    sa.Column('sensitive', sa.Boolean, nullable=False, default=False))
