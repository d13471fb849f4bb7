"""Routers, floating addresses and port forwardings. A router's legs are the ports whose ``device_id`` is the router."""
import sqlalchemy as sa

from kodiak.common import db

from .base import flag, generation, key, metadata, name, project, refers, standard

routers = sa.Table(
    'routers', metadata, key(), project(), name(), *standard(), generation(),
    flag('admin_state_up', True),
    sa.Column('status', sa.String(16), nullable=False, default='ACTIVE'),
    sa.Column('gateway_port_id', sa.String(36), sa.ForeignKey('ports.id'), index=True),
    sa.Column('gateway_network_id', sa.String(36), index=True),
    sa.Column('external_gateway_info', db.JSON),
    flag('enable_snat', True),
    sa.Column('routes', db.JSON, default=list),
    sa.Column('availability_zone_hints', db.JSON, default=list),
    sa.Column('flavor_id', sa.String(36)),
    flag('enable_ndp_proxy'),
    sa.Column('host', sa.String(255), nullable=False, default='', index=True))     # where it is placed

floatingips = sa.Table(
    'floatingips', metadata, key(), project(), *standard(), generation(),
    sa.Column('status', sa.String(16), nullable=False, default='DOWN'),
    refers('floating_network_id', 'networks', index=True),
    refers('floating_port_id', 'ports'),
    sa.Column('floating_ip_address', sa.String(64), nullable=False, index=True),
    refers('port_id', 'ports', nullable=True, index=False),
    sa.Column('fixed_ip_address', sa.String(64)),
    refers('router_id', 'routers', nullable=True),
    sa.Column('dns_name', sa.String(255), nullable=False, default=''),
    sa.Column('dns_domain', sa.String(255), nullable=False, default=''),
    sa.Column('qos_policy_id', sa.String(36), sa.ForeignKey('qos_policies.id'), index=True),
    sa.UniqueConstraint('port_id', 'fixed_ip_address'))

forwardings = sa.Table(
    'forwardings', metadata, key(), project(), *standard(),
    refers('floatingip_id', 'floatingips', ondelete='CASCADE'),
    sa.Column('protocol', sa.String(16), nullable=False),
    sa.Column('external_port', sa.Integer, nullable=False), sa.Column('external_port_end', sa.Integer, nullable=False),
    refers('internal_port_id', 'ports'),
    sa.Column('internal_ip_address', sa.String(64), nullable=False),
    sa.Column('internal_port', sa.Integer, nullable=False), sa.Column('internal_port_end', sa.Integer, nullable=False))
