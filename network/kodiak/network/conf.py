"""Every option of network that its API and its conductor read."""
from oslo_config import cfg

OPTS = {
    'network': [
        cfg.StrOpt('tenant_network_type', default='vxlan', choices=['vxlan', 'local'],
                   help='Type of a network whose maker does not name one.'),
        cfg.StrOpt('vni_range', default='1:16777215', help='VXLAN network identifiers that may be given out, first:last.'),
        cfg.ListOpt('physical_networks', default=['*'],
                    help='Physical networks on which flat networks may be made; * for any name.'),
        cfg.IntOpt('path_mtu', default=1500, min=576, help='Largest packet that the network between the hosts carries, in bytes.'),
        cfg.StrOpt('dns_domain', default='kodiak.local', help='Domain of the names that guests get.'),
        cfg.StrOpt('base_mac', default='fa:16:3e', regex='^([0-9a-f]{2}:){2}[0-9a-f]{2}$',
                   help='First three bytes of the MAC addresses that are given out.'),
        cfg.IntOpt('agent_down_time', default=75, min=10,
                   help='Seconds of silence after which an agent counts as down, and what it served is placed elsewhere.'),
        cfg.IntOpt('dhcp_agents_per_network', default=1, min=1, help='Hosts that serve DHCP to a network.'),
        cfg.IntOpt('wire_timeout', default=300, min=10,
                   help='Seconds within which a host must have wired a port that is bound to it.'),
        cfg.BoolOpt('notify_compute', default=True, help='Tell compute of ports that were wired or changed.'),
        cfg.DictOpt('default_quota', default={
            'network': '100', 'subnet': '100', 'port': '500', 'router': '10', 'floatingip': '50', 'security_group': '10',
            'security_group_rule': '100', 'subnetpool': '-1', 'rbac_policy': '10'},
            help='What a project may have where it has no quota of its own; -1 is no limit.'),
    ],
}
DEFAULTS = {('api', 'bind_port'): 9696, ('keystone_authtoken', 'service_type'): 'network'}
