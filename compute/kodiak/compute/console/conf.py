"""Every option that the console proxy reads."""
from oslo_config import cfg

OPTS = {
    'console': [
        cfg.StrOpt('bind_host', default='0.0.0.0', help='Address that the console proxy listens on.'),
        cfg.PortOpt('bind_port', default=6080, min=0, help='Port that the console proxy listens on.'),
        cfg.StrOpt('novnc_path', default='/usr/share/novnc', help='Folder of noVNC, the VNC client that browsers load.'),
        cfg.ListOpt('allowed_origins', default=[],
                    help='Hosts whose pages may open consoles, beside the host that the proxy is reached by.'),
    ],
}
