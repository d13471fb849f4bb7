"""Every option of the compute service that its API, conductor and metadata service read."""
from oslo_config import cfg

QUOTAS = {
    'instances': 10, 'cores': 20, 'ram': 51200, 'metadata_items': 128, 'injected_files': 5,
    'injected_file_content_bytes': 10240, 'injected_file_path_bytes': 255, 'key_pairs': 100, 'server_groups': 10,
    'server_group_members': 10, 'fixed_ips': -1, 'floating_ips': -1, 'security_groups': -1, 'security_group_rules': -1,
}

OPTS = {
    'compute': [
        cfg.StrOpt('default_availability_zone', default='nova',
                   help='Zone of hosts that are in no aggregate with one of its own.'),
        cfg.DictOpt('quotas', default={}, help='Limits of projects that have none of their own, for example '
                                               '"instances:20,cores:-1"; those not named keep their defaults: '
                                               + ', '.join(f'{name}:{limit}' for name, limit in QUOTAS.items()) + '.'),
        cfg.IntOpt('boot_attempts', default=3, min=1, help='How many hosts are tried for a server before it is in error.'),
        cfg.IntOpt('stop_timeout', default=60, min=0, help='Seconds that a guest may take to shut down.'),
        cfg.IntOpt('reclaim_interval', default=0, min=0,
                   help='Seconds that deleted servers can still be restored; 0 deletes at once.'),
        cfg.StrOpt('console_url', default='http://127.0.0.1:6080', help='Where users reach the console proxy.'),
        cfg.StrOpt('dhcp_domain', default='', help='Domain that follows the host name of a guest in its metadata.'),
    ],
    'metadata': [
        cfg.ListOpt('shared_secret', secret=True, default=[],
                    help='What network signs the instance id of a metadata request with; several, separated by commas, while hosts '
                         'go from one to the next. Requests are refused while it is unset.'),
    ],
    'hosts': [
        cfg.FloatOpt('cpu_allocation_ratio', default=4.0, min=0.1, help='Virtual CPUs offered for each CPU of a host.'),
        cfg.FloatOpt('ram_allocation_ratio', default=1.0, min=0.1, help='Memory offered for the memory of a host.'),
        cfg.FloatOpt('disk_allocation_ratio', default=1.0, min=0.1, help='Disk space offered for that of a host.'),
        cfg.IntOpt('reserved_memory', default=512, min=0, help='Memory of each host that guests do not get, in MiB.'),
    ],
}

DEFAULTS = {
    ('api', 'bind_port'): 8774,
    # Injected files and user data travel in the body.
    ('api', 'max_body_size'): 524288,
    ('database', 'connection'): 'sqlite:////var/lib/kodiak/compute/compute.sqlite',
}


def quotas(conf):
    """The default limits: ``{resource: limit}``, -1 for none."""
    return {**QUOTAS, **{name: int(limit) for name, limit in conf.compute.quotas.items()}}
