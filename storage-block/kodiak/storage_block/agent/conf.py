"""Every option that the agent of a host reads: ``[agent]``, and a section for each back end that it names."""
from oslo_config import cfg

OPTS = {
    'agent': [
        cfg.ListOpt('backends', default=['file'], help='Back ends of this host; each has a section of its name.'),
        cfg.IntOpt('workers', default=4, min=1, help='How many volumes are worked on at the same time.'),
        cfg.StrOpt('host_ip', default='127.0.0.1', help='Address at which the hosts of guests reach the exports of this one.'),
        cfg.PortOpt('iscsi_port', default=3260, help='Port of tgtd at that address.'),
        cfg.PortOpt('nbd_port', default=10809, help='Port of qemu-storage-daemon at that address.'),
        cfg.IntOpt('image_cache_hours', default=24, min=0, help='How long an image is kept after a volume was made of it.'),
        cfg.StrOpt('backup_driver', default='file', help='Where backups are kept: file or swift; empty for nowhere.'),
        cfg.StrOpt('backup_location', sample_default='<state_path>/storage-block/backups', help='The folder of the driver file.'),
    ],
}

#: The section of a back end.
BACKEND = [
    cfg.StrOpt('driver', default='file', help='What keeps the volumes: file, lvm, nfs or rbd.'),
    cfg.StrOpt('export', default='iscsi', choices=['iscsi', 'nbd'], help='How guests reach them; rbd needs none.'),
    cfg.StrOpt('path', sample_default='<state_path>/storage-block/<name>', help='file, nfs: the folder of the volumes.'),
    cfg.StrOpt('location', default='', help='lvm: volume group/thin pool. rbd: the pool. nfs: host:/path, to be mounted at path.'),
    cfg.StrOpt('user', default='cinder', help='rbd: the Ceph user.'),
    cfg.StrOpt('secret_uuid', default='', help="rbd: libvirt's secret with the key of that user on the hosts of guests."),
    cfg.StrOpt('zone', default='nova', help='Availability zone.'),
    cfg.FloatOpt('max_over_subscription_ratio', default=20.0, min=1.0, help='How much of thin space may be promised.'),
    cfg.IntOpt('reserved_percentage', default=5, min=0, max=100, help='Space that stays free.'),
]


def backend(conf, name):
    """The section of a back end."""
    conf.register_opts(BACKEND, group=name)
    return getattr(conf, name)
