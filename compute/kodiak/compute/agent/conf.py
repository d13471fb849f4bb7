"""Every option that the agent of a host reads."""
import os

from oslo_config import cfg

OPTS = {
    'agent': [
        cfg.StrOpt('driver', default='libvirt', help='Hypervisor driver: libvirt, or fake for tests of scale.'),
        cfg.IntOpt('workers', default=max(4, os.cpu_count() or 4), min=1,
                   help='How many instances are worked on at the same time.'),
        cfg.StrOpt('host_ip', default='127.0.0.1',
                   help='Address at which other hosts reach this one: console proxies, and agents that fetch disks.'),
        cfg.PortOpt('port', default=6083, min=0, help='Port at that address for serial consoles and moving disks; 0 takes any.'),
        cfg.StrOpt('console_bind', default='127.0.0.1',
                   help='Address that the VNC servers of guests listen on. Whoever reaches it sees the consoles.'),
        cfg.StrOpt('libvirt_uri', default='qemu:///system', help='The libvirt daemon of this host.'),
        cfg.StrOpt('virt_type', default='auto', choices=['auto', 'kvm', 'qemu'],
                   help='auto takes KVM where a guest really starts under it, and emulation elsewhere.'),
        cfg.IntOpt('image_cache_hours', default=24, min=1,
                   help='How long the base of an image is kept after its last use.'),
        cfg.IntOpt('fake_hosts', default=1, min=1, help='How many hosts the fake driver stands for.'),
    ],
}
