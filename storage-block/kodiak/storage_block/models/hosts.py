"""Hosts that run an agent, their back ends, and what the agents are told to do."""
import sqlalchemy as sa

from kodiak.common import db

from .base import NUMBER, UUID, metadata, moments

#: A host with an agent. ``generation`` grows whenever its work or its exports change.
hosts = sa.Table(
    'hosts', metadata,
    sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('last_seen_at', db.Moment, index=True),
    sa.Column('agent', db.JSON))

#: A back end, as its agent last described it (``rpc``). ``name`` is ``<host>@<backend>``.
backends = sa.Table(
    'backends', metadata,
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('host', sa.String(255), nullable=False, index=True),
    sa.Column('zone', sa.String(255), nullable=False),
    sa.Column('stats', db.JSON, nullable=False),
    sa.Column('frozen', sa.Boolean, nullable=False),
    sa.Column('seen_at', db.Moment, nullable=False),
    sa.Column('created_at', db.Moment, nullable=False))

#: One thing that an agent is to do; ``state``: wanted, done, failed, cancelled.
work = sa.Table(
    'work', metadata,
    sa.Column('number', NUMBER, primary_key=True, autoincrement=True),
    sa.Column('key', sa.String(128), nullable=False, unique=True),      # saga and step: posted once
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('backend', sa.String(255), nullable=False),
    sa.Column('kind', sa.String(32), nullable=False),
    sa.Column('resource_id', UUID, nullable=False, index=True),
    sa.Column('args', db.JSON, nullable=False),
    sa.Column('nudges', UUID, nullable=False),                           # the resource whose saga waits for it
    sa.Column('uses', UUID, index=True),                                 # a volume or snapshot that it reads
    sa.Column('state', sa.String(16), nullable=False),
    sa.Column('percent', sa.Integer, nullable=False),
    sa.Column('result', db.JSON),
    sa.Column('error', sa.Text),
    *moments(),
    sa.Index('ix_work_host_state', 'host', 'state'),
    sqlite_autoincrement=True)

#: Passphrases of encrypted volumes, wrapped by the key file of the service.
keys = sa.Table(
    'encryption_keys', metadata,
    sa.Column('id', UUID, primary_key=True),
    sa.Column('owner_id', UUID, nullable=False, index=True),             # the volume or backup that it opens
    sa.Column('wrapped', sa.Text, nullable=False),
    sa.Column('created_at', db.Moment, nullable=False))
