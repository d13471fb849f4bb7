"""The options of the network agent."""
from oslo_config import cfg

OPTS = {
    'agent': [
        cfg.StrOpt('driver', default='linuxbridge', help='What brings networks about on this host, by name.'),
        cfg.StrOpt('tunnel_ip', help='Address of this host that others send tunnelled packets of tenant networks to. '
                                     'Without it, the host has no networks in common with others.'),
        cfg.DictOpt('bridge_mappings', default={}, sample_default='public:br-ex',
                    help='Existing bridge of each physical network, for flat networks.'),
        cfg.StrOpt('tap_owner', default='libvirt-qemu', help='User that the guests run as, who may open their taps.'),
        cfg.StrOpt('dhcp_user', default='dnsmasq', help='User that dnsmasq runs as once it has its sockets.'),
        cfg.ListOpt('dns_servers', default=[], help='Servers that dnsmasq asks for names that it does not know. '
                                                    'A subnet with name servers of its own does not use them.'),
    ],
    'metadata': [
        cfg.URIOpt('url', default='http://127.0.0.1:8774', schemes=['http', 'https'],
                   help='Where compute answers for metadata.'),
        cfg.StrOpt('shared_secret', secret=True, help='Signs what the proxy says of an instance; compute has the same.'),
    ],
}
