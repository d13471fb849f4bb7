"""Every option of block storage that its API and its conductor read; the agent has its own in ``agent.conf``."""
from oslo_config import cfg

QUOTAS = {
    'volumes': 10, 'snapshots': 10, 'gigabytes': 1000, 'per_volume_gigabytes': -1, 'backups': 10, 'backup_gigabytes': 1000,
    'groups': 10,
}

OPTS = {
    'storage_block': [
        cfg.StrOpt('default_volume_type', default='__DEFAULT__', help='Type of volumes whose maker names none.'),
        cfg.StrOpt('default_availability_zone', default='nova', help='Zone of back ends whose agent names none.'),
        cfg.DictOpt('quotas', default={}, help='Limits of projects that have none of their own, for example '
                                               '"volumes:20,gigabytes:-1"; those not named keep their defaults: '
                                               + ', '.join(f'{name}:{limit}' for name, limit in QUOTAS.items()) + '.'),
        cfg.IntOpt('agent_down_time', default=75, min=10, help='Seconds of silence after which a back end counts as down.'),
        cfg.IntOpt('export_timeout', default=30, min=1,
                   help='Seconds that a request waits for a host to export a volume that is being attached.'),
        cfg.StrOpt('key_file', sample_default='<state_path>/storage-block/keys',
                   help='File of the key that passphrases of encrypted volumes are kept under. It is made, for this user only, '
                        'when it is first needed; all nodes need the same. Without it encrypted volumes cannot be read.'),
        cfg.BoolOpt('notify_compute', default=True, help='Tell compute of attached volumes that were extended.'),
        cfg.IntOpt('message_days', default=30, min=1, help='Days after which messages to users are forgotten.'),
    ],
}
DEFAULTS = {('api', 'bind_port'): 8776, ('keystone_authtoken', 'service_type'): 'block-storage'}


def quotas(conf):
    """The default limits: ``{resource: limit}``, -1 for none."""
    return {**QUOTAS, **{name: int(limit) for name, limit in conf.storage_block.quotas.items()}}
