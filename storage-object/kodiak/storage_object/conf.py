"""Every option of object storage; its proxy and its servers read the same file."""
from oslo_config import cfg

# In the order in which ``kodiak-object-daemon --once`` runs them.
DAEMONS = ('updater', 'replicator', 'reconstructor', 'auditor', 'sharder', 'reconciler', 'expirer', 'reaper',
           'syncer')

OPTS = {
    'storage': [
        cfg.StrOpt('devices', default='/srv/kodiak-object', help='Folder of the devices: one folder, or mounted file system, '
                                                                 'each.'),
        cfg.BoolOpt('mount_check', default=False, help='A device that is not mounted is out (507), in place of a folder to use.'),
        cfg.StrOpt('ring_path', default='/etc/kodiak/rings', help='Folder of account.ring.gz, container.ring.gz, object.ring.gz '
                                                                  '(and object-N.ring.gz for the policy N).'),
        cfg.ListOpt('policies', default=['0:standard'], help='Storage policies, each as index:name; the first is the default. A '
                                                             'name that ends in "-" is deprecated: its objects stay, none come. '
                                                             'index:name=4+2 keeps, in place of replicas, 6 fragments of each '
                                                             'object, any 4 of which are enough; it never changes.'),
        cfg.StrOpt('server_host', default='127.0.0.1', help='Address that the account, container and object servers listen on: one '
                                                            'of the internal network, as nobody needs a token there.'),
        cfg.PortOpt('server_port', default=6200, help='Port of the servers of this process.'),
        cfg.IntOpt('server_workers', default=1, min=1, help='Server processes.'),
        cfg.IntOpt('server_threads', default=128, min=2, help='Threads of a server process: requests that it works on at once.'),
        cfg.StrOpt('server_paste_config', help='The paste.deploy pipeline of the servers; the one installed with them if unset.'),
        cfg.StrOpt('pipeline', default='main', help='The pipeline of the proxy; "standalone" has users of its own in place of an '
                                                    'identity service.'),
        cfg.ListOpt('daemons', default=list(DAEMONS),
                    help='What looks after the devices within the server; empty where kodiak-object-daemon runs beside it.'),
        cfg.IntOpt('reserve', default=64 << 20, min=0, help='Bytes that a device keeps free: with less it takes no more (507).'),
        cfg.StrOpt('sync_realms', default='', help='File of the realms and clusters in which containers are kept the same, for '
                                                   'the proxy and the syncer.'),
        cfg.IntOpt('interval', default=30, min=1, help='Seconds between two passes of what looks after the devices.'),
        cfg.IntOpt('audit_rate', default=20 << 20, min=1, help='Bytes a second that the auditor reads.'),
        cfg.IntOpt('shard_threshold', default=1_000_000, min=0, help='Objects of a container from which on it is cut up into '
                                                                     'shards; 0: none but those with settings of their own.'),
        cfg.IntOpt('shard_size', default=0, min=0, help='Objects of a new shard; half of the threshold if 0.'),
        cfg.IntOpt('shard_shrink', default=20, min=0, max=100, help='A shard with less than so many hundredths of that size gives '
                                                                    'its rows to a neighbour.'),
        cfg.IntOpt('shard_batch', default=100_000, min=1, help='Rows of a container that are copied to its shards before the next '
                                                               'container has its turn.'),
        cfg.IntOpt('reclaim_age', default=7 * 86400, min=60, help='Seconds that the mark of something deleted is kept; a device '
                                                                  'that was away for longer must come back empty.'),
    ],
}

DEFAULTS = {
    ('api', 'bind_port'): 8080,
    # (a slow client has a thread for as long as it takes; one is made when it is needed)
    ('api', 'threads'): 64,
}

#: What listens on a node, and where that is said.
SERVERS = {
    'kodiak-object-proxy': ('api', 'bind_host', 'bind_port'),
    'kodiak-object-server': ('storage', 'server_host', 'server_port'),
}
