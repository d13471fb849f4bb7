"""The tables of network, on one ``metadata``."""
from .base import metadata
from .hosts import agents, counters, dhcp_placements, hosts, journal, subscriptions
from .networks import (
    address_scopes,
    allocations,
    auto_allocated,
    free_ranges,
    networks,
    port_bindings,
    port_groups,
    ports,
    rbac_policies,
    segments,
    subnetpools,
    subnets,
)
from .policies import metering_labels, metering_rules, qos_policies, qos_rules
from .routing import floatingips, forwardings, routers
from .security import address_groups, default_groups, default_rules, security_groups, security_rules

__all__ = [
    'address_groups', 'address_scopes', 'agents', 'allocations', 'auto_allocated', 'counters', 'default_groups', 'default_rules',
    'dhcp_placements', 'floatingips', 'forwardings', 'free_ranges', 'hosts', 'journal', 'metadata', 'metering_labels',
    'metering_rules', 'networks', 'port_bindings', 'port_groups', 'ports', 'qos_policies', 'qos_rules', 'rbac_policies', 'routers',
    'security_groups', 'security_rules', 'segments', 'subnetpools', 'subnets', 'subscriptions',
]
