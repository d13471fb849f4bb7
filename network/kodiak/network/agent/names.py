"""The names of what an agent makes on a host, and how it knows its own things from those of others.

Interface names are the first 11 characters of a UUID after a prefix, since the kernel allows 15. Whatever bears
such a name and is not wanted is removed; nothing else on the host is touched.
"""
import re

_SHORT = '[0-9a-f]{8}-[0-9a-f]{2}'
_UUID = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'

OUR_LINK = re.compile(rf'^(?:(?:brq|tap|ifb|vd-|vr-){_SHORT}|vxlan-[0-9]{{1,8}})\Z')
OUR_NAMESPACE = re.compile(rf'^q(?:dhcp|router)-{_UUID}\Z')
OUR_LEG = re.compile(rf'^(?:ns-|qr-|qg-){_SHORT}\Z')
UUID = re.compile(rf'^{_UUID}\Z')

HOST = ''                               # the namespace that the agent itself lives in


def bridge(network_id):
    """The bridge of a network that is not mapped to a bridge of the operator's."""
    return 'brq' + network_id[:11]


def tap(port_id):
    """The tap that a guest is plugged into; also what ``binding:vif_details`` tells compute."""
    return 'tap' + port_id[:11]


def funnel(port_id):
    """The device through which what a guest sends goes where its bandwidth is limited."""
    return 'ifb' + port_id[:11]


def vxlan(vni):
    return f'vxlan-{vni}'


def dhcp_namespace(network_id):
    return 'qdhcp-' + network_id


def dhcp_leg(port_id):
    """The two ends of a DHCP port: (on the bridge, in the namespace)."""
    return 'vd-' + port_id[:11], 'ns-' + port_id[:11]


def router_namespace(router_id):
    return 'qrouter-' + router_id


def router_leg(port_id, gateway=False):
    """The two ends of a router port: (on the bridge, in the namespace)."""
    return 'vr-' + port_id[:11], ('qg-' if gateway else 'qr-') + port_id[:11]
