"""Binding: which host a port is plugged in on, and what the guest's hypervisor must know to plug it in.

A port whose host has a network agent is bound to a tap of that host's driver. It is DOWN until the agent has
reported it wired, and has a deadline for that.
"""
import datetime

import sqlalchemy as sa

from kodiak.common import db

from . import models


def tap_name(port_id):
    """The name of a port's tap on its host."""
    return 'tap' + port_id[:11]


def bridge_name(network_id):
    """The name of a network's bridge on a host."""
    return 'brq' + network_id[:11]


def attributes(unit, network, port, host):
    """``vif_type`` and ``vif_details`` of a port on a host."""
    if not host:
        return {'vif_type': 'unbound', 'vif_details': {}}
    agent = unit.conn.execute(sa.select(models.hosts.c.driver).where(models.hosts.c.host == host)).first()
    if agent is None or port['vnic_type'] != 'normal':
        return {'vif_type': 'binding_failed', 'vif_details': {}}
    return {'vif_type': 'tap', 'vif_details': {
        'port_filter': True, 'connectivity': 'l2', 'tap_name': tap_name(port['id']), 'bridge_name': bridge_name(network['id']),
        'mtu': network['mtu'], 'driver': agent.driver}}


def bind(unit, network, port):
    """What changes on the row of a port when it is bound to ``port['host']``."""
    found = attributes(unit, network, port, port['host'])
    found['status'] = 'DOWN'
    found['fault'] = None
    found['wire_by'] = None
    if found['vif_type'] == 'tap' and not port['device_owner'].startswith('network:') and port['admin_state_up']:
        found['wire_by'] = db.utcnow() + datetime.timedelta(seconds=unit.conf.wire_timeout)
    return found


def rebind(unit, network, before, port):
    """What changes on the row of a port whose binding changed from ``before``."""
    if before['host'] == port['host'] and before['vnic_type'] == port['vnic_type'] and before['vif_type'] != 'binding_failed' \
            and before['admin_state_up'] == port['admin_state_up']:
        return {}
    return bind(unit, network, port)
