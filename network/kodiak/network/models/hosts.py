"""Hosts and their agents, what is placed where, and the journal that agents are told changes from.

Every change of a document that agents get writes a row of ``journal`` with the next generation and the document's
scope: ``host:<host>`` (ports), ``network:<id>``, ``members:<id>`` (of a network), ``group:<id>`` (security groups), ``set:<id>``
(set members), ``router:<id>`` (routers, floating addresses). A host is subscribed to scopes; what it has to be told is a join.
"""
import sqlalchemy as sa

from kodiak.common import db

from .base import flag, metadata, refers

_number = sa.BigInteger().with_variant(sa.Integer, 'sqlite')

hosts = sa.Table(
    'hosts', metadata, sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('tunnel_ip', sa.String(64)),
    sa.Column('driver', sa.String(64), nullable=False, default=''),
    sa.Column('bridge_mappings', db.JSON, default=dict),
    sa.Column('interval', sa.Integer, nullable=False, default=15),
    sa.Column('version', sa.String(64), nullable=False, default=''),
    sa.Column('started_at', sa.DateTime), sa.Column('last_seen_at', sa.DateTime, index=True),
    sa.Column('created_at', sa.DateTime, nullable=False),
    # What is placed or bound here has changed so many times; subscriptions are as of the second number.
    sa.Column('changes', sa.Integer, nullable=False, default=1), sa.Column('subscribed', sa.Integer, nullable=False, default=0))

agents = sa.Table(
    'agents', metadata, sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('host', sa.String(255), sa.ForeignKey('hosts.host', ondelete='CASCADE'), nullable=False),
    sa.Column('agent_type', sa.String(64), nullable=False),
    flag('admin_state_up', True),
    sa.Column('description', sa.String(255)),
    sa.UniqueConstraint('host', 'agent_type'))

dhcp_placements = sa.Table(
    'dhcp_placements', metadata,
    sa.Column('network_id', sa.String(36), sa.ForeignKey('networks.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('host', sa.String(255), primary_key=True, index=True),
    refers('port_id', 'ports', nullable=True, ondelete='SET NULL'))

journal = sa.Table(
    'journal', metadata,
    sa.Column('id', _number, primary_key=True, autoincrement=True),
    sa.Column('generation', _number, nullable=False, index=True),
    sa.Column('kind', sa.String(16), nullable=False), sa.Column('item', sa.String(80), nullable=False),
    sa.Column('scope', sa.String(270), nullable=False),
    sa.Column('created_at', sa.DateTime, nullable=False, index=True),
    sqlite_autoincrement=True)

subscriptions = sa.Table(
    'subscriptions', metadata,
    sa.Column('host', sa.String(255), primary_key=True), sa.Column('scope', sa.String(270), primary_key=True, index=True),
    sa.Column('generation', _number, nullable=False),       # since when it is, or is no longer, subscribed
    flag('ended'))

counters = sa.Table('counters', metadata, sa.Column('name', sa.String(32), primary_key=True),
                    sa.Column('value', _number, nullable=False))
