"""Networks, subnets and their pools, ports, and the addresses that are taken and free.

What a reader of the API sees of a port (its addresses, its security groups) stands on its row as JSON, so that a list
costs one statement; what must be unique or is searched for stands in ``allocations`` and ``port_groups`` as
well, written in the same transaction.
"""
import sqlalchemy as sa

from kodiak.common import db

from .base import flag, generation, key, metadata, name, project, refers, standard

networks = sa.Table(
    'networks', metadata, key(), project(), name(), *standard(), generation(),
    flag('admin_state_up', True),
    sa.Column('status', sa.String(16), nullable=False, default='ACTIVE'),
    sa.Column('mtu', sa.Integer, nullable=False),
    flag('external'), flag('is_default'), flag('port_security_enabled', True),
    flag('shared'),                                   # to everybody; to single projects by rbac_policies
    sa.Column('network_type', sa.String(16), nullable=False),
    sa.Column('physical_network', sa.String(64)),
    sa.Column('segmentation_id', sa.Integer),
    sa.Column('dns_domain', sa.String(255), nullable=False, default=''),
    sa.Column('availability_zone_hints', db.JSON, default=list),
    sa.Column('subnets', db.JSON, default=list),      # ids, in the order of their making
    sa.Column('qos_policy_id', sa.String(36), sa.ForeignKey('qos_policies.id'), index=True),
    sa.Column('ipv4_address_scope', sa.String(36)), sa.Column('ipv6_address_scope', sa.String(36)))

segments = sa.Table(
    'segments', metadata, key(), refers('network_id', 'networks', ondelete='CASCADE'),
    sa.Column('name', sa.String(255)), *standard(),
    sa.Column('network_type', sa.String(16), nullable=False),
    sa.Column('physical_network', sa.String(64), nullable=False, default=''),
    sa.Column('segmentation_id', sa.Integer),         # 0 for flat; NULL, which is never a duplicate, for local
    sa.UniqueConstraint('network_type', 'physical_network', 'segmentation_id'))

address_scopes = sa.Table(
    'address_scopes', metadata, key(), project(), name(), *standard(), flag('shared'),
    sa.Column('ip_version', sa.Integer, nullable=False))

subnetpools = sa.Table(
    'subnetpools', metadata, key(), project(), name(), *standard(), flag('shared'), flag('is_default'),
    sa.Column('ip_version', sa.Integer, nullable=False),
    sa.Column('prefixes', db.JSON, nullable=False),
    sa.Column('min_prefixlen', sa.Integer, nullable=False), sa.Column('max_prefixlen', sa.Integer, nullable=False),
    sa.Column('default_prefixlen', sa.Integer, nullable=False),
    sa.Column('default_quota', sa.Integer),           # in addresses (IPv4) or /64 networks (IPv6)
    refers('address_scope_id', 'address_scopes', nullable=True))

subnets = sa.Table(
    'subnets', metadata, key(), project(), name(), *standard(),
    refers('network_id', 'networks'), refers('subnetpool_id', 'subnetpools', nullable=True),
    refers('segment_id', 'segments', nullable=True, index=False),
    sa.Column('ip_version', sa.Integer, nullable=False),
    sa.Column('cidr', sa.String(64), nullable=False),
    sa.Column('gateway_ip', sa.String(64)),
    sa.Column('allocation_pools', db.JSON, default=list),
    sa.Column('dns_nameservers', db.JSON, default=list),
    sa.Column('host_routes', db.JSON, default=list),
    sa.Column('service_types', db.JSON, default=list),
    flag('enable_dhcp', True), flag('dns_publish_fixed_ip'),
    sa.Column('ipv6_address_mode', sa.String(16)), sa.Column('ipv6_ra_mode', sa.String(16)))

# Free addresses of a subnet's pools. An address is written as hexadecimal digits of a fixed width, so that text order
# is address order for both versions. Taking the next one shortens a range; what is given back becomes a range
# of its own behind all others, so an address is not used again soon.
free_ranges = sa.Table(
    'free_ranges', metadata,
    sa.Column('id', sa.BigInteger().with_variant(sa.Integer, 'sqlite'), primary_key=True, autoincrement=True),
    sa.Column('subnet_id', sa.String(36), sa.ForeignKey('subnets.id', ondelete='CASCADE'), nullable=False),
    sa.Column('first', sa.String(32), nullable=False), sa.Column('last', sa.String(32), nullable=False),
    sa.Index('ix_free_ranges_subnet_id_id', 'subnet_id', 'id'),
    sa.Index('ix_free_ranges_subnet_id_first', 'subnet_id', 'first'),
    sqlite_autoincrement=True)

ports = sa.Table(
    'ports', metadata, key(), project(), name(), *standard(), generation(),
    refers('network_id', 'networks', index=False),
    sa.Column('mac_address', sa.String(17), nullable=False),
    flag('admin_state_up', True),
    sa.Column('status', sa.String(16), nullable=False, default='DOWN'),
    sa.Column('device_id', sa.String(255), nullable=False, default='', index=True),
    sa.Column('device_owner', sa.String(255), nullable=False, default='', index=True),
    sa.Column('fixed_ips', db.JSON, default=list),
    sa.Column('security_groups', db.JSON, default=list),
    sa.Column('allowed_address_pairs', db.JSON, default=list),
    sa.Column('extra_dhcp_opts', db.JSON, default=list),
    flag('port_security_enabled', True),
    sa.Column('dns_name', sa.String(255), nullable=False, default=''),
    sa.Column('dns_assignment', db.JSON, default=list),
    sa.Column('qos_policy_id', sa.String(36), sa.ForeignKey('qos_policies.id'), index=True),
    sa.Column('host', sa.String(255), nullable=False, default='', index=True),
    sa.Column('vnic_type', sa.String(16), nullable=False, default='normal'),
    sa.Column('vif_type', sa.String(16), nullable=False, default='unbound'),
    sa.Column('vif_details', db.JSON, default=dict),
    sa.Column('profile', db.JSON, default=dict),
    sa.Column('wire_by', sa.DateTime, index=True),    # past this moment a port that is not wired counts as failed
    sa.Column('fault', sa.String(1024)),              # why its host could not wire it
    sa.UniqueConstraint('network_id', 'mac_address'))

allocations = sa.Table(
    'allocations', metadata,
    sa.Column('subnet_id', sa.String(36), sa.ForeignKey('subnets.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('address', sa.String(32), primary_key=True),      # as in free_ranges
    sa.Column('ip_address', sa.String(64), nullable=False, index=True),
    sa.Column('port_id', sa.String(36), sa.ForeignKey('ports.id', ondelete='CASCADE'), nullable=False, index=True),
    flag('pooled'))                                   # came from free_ranges and goes back there

port_groups = sa.Table(
    'port_groups', metadata,
    sa.Column('port_id', sa.String(36), sa.ForeignKey('ports.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('security_group_id', sa.String(36), sa.ForeignKey('security_groups.id'), primary_key=True, index=True))

# Bindings beside the one on the port's row: those being prepared on the target of a live migration.
port_bindings = sa.Table(
    'port_bindings', metadata,
    sa.Column('port_id', sa.String(36), sa.ForeignKey('ports.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('vnic_type', sa.String(16), nullable=False, default='normal'),
    sa.Column('vif_type', sa.String(16), nullable=False, default='unbound'),
    sa.Column('vif_details', db.JSON, default=dict), sa.Column('profile', db.JSON, default=dict))

rbac_policies = sa.Table(
    'rbac_policies', metadata, key(), project(),
    sa.Column('object_type', sa.String(32), nullable=False),
    sa.Column('object_id', sa.String(36), nullable=False, index=True),
    sa.Column('action', sa.String(32), nullable=False),
    sa.Column('target_tenant', sa.String(64), nullable=False, index=True),      # '*' is everybody
    sa.UniqueConstraint('object_type', 'object_id', 'action', 'target_tenant'))

auto_allocated = sa.Table(
    'auto_allocated', metadata, sa.Column('project_id', sa.String(64), primary_key=True),
    refers('network_id', 'networks', ondelete='CASCADE'), refers('router_id', 'routers', nullable=True, ondelete='CASCADE'))
