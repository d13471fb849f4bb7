"""Every option of the image service."""
from oslo_config import cfg

OPTS = {
    'stores': [
        cfg.ListOpt('enabled', default=['file:file'],
                    help='Stores for image data, each as id:driver. The options of a store stand in the group [store_<id>].'),
        cfg.StrOpt('default', default='file', help='Id of the store that takes data for which no other is asked.'),
        cfg.BoolOpt('show_locations', default=False,
                    help='Show where the data of an image lies (locations, direct_url) to those whom the policy allows, and '
                         'let them change it.'),
        cfg.IntOpt('delete_delay', default=0, min=0,
                   help='Seconds for which the data of a deleted image is kept, for readers that are still at it, and for an '
                        'operator who brings the image back (kodiak-image scrub --restore).'),
    ],
    'limits': [
        cfg.IntOpt('image_size', default=1 << 40, min=1, help='Largest image, in bytes.'),
        cfg.DictOpt('project', default={},
                    help='What a project may have: image_size_total and image_stage_total (MiB), image_count_total, '
                         'image_count_uploading. What is not named has no limit.'),
        cfg.BoolOpt('unified', default=False, help='Take these limits from identity (unified limits) where it has them.'),
        cfg.IntOpt('properties', default=128, min=0, help='Custom properties of an image.'),
        cfg.IntOpt('tags', default=128, min=0, help='Tags of an image.'),
        cfg.IntOpt('members', default=128, min=0, help='Projects that an image is shared with.'),
        cfg.IntOpt('locations', default=10, min=1, help='Locations of an image.'),
        cfg.IntOpt('stalled_upload', default=40, min=1, max=50,
                   help='Seconds without a byte after which an upload is given up.'),
    ],
    'imports': [
        cfg.ListOpt('methods', default=['glance-direct', 'web-download', 'copy-image', 'glance-download'],
                    help='Ways to import that are offered.'),
        cfg.ListOpt('web_ports', default=['80', '443'], help='Ports that a web-download may go to.'),
        cfg.ListOpt('web_hosts', default=[], help='Hosts that a web-download may go to; any if empty.'),
        cfg.ListOpt('web_networks', default=[],
                    help='Networks (CIDR) that a web-download may go to although their addresses are not public.'),
        cfg.BoolOpt('unpack', default=False,
                    help='Unpack gzip, zip and LHA data that is imported into images whose container format is bare.'),
        cfg.StrOpt('convert_to', choices=['raw', 'qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx'],
                   help='Disk format that imported images are converted to, unless the import asks for another; not at all if '
                        'unset.'),
        cfg.DictOpt('inject', default={},
                    help='Properties that every image gets that somebody else than an administrator imports.'),
        cfg.IntOpt('threads', default=4, min=1, help='Imports that one API process runs at the same time.'),
    ],
    'cache': [
        cfg.StrOpt('path', help='Folder of the image cache of this host, for stores that are elsewhere; no cache if unset.'),
        cfg.IntOpt('max_size', default=10 << 30, min=0, help='Bytes that the cache may hold.'),
    ],
    'formats': [
        cfg.ListOpt('disk', default=['ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop'],
                    help='Disk formats that images may have.'),
        cfg.ListOpt('container', default=['ami', 'ari', 'aki', 'bare', 'ovf', 'ova', 'docker', 'compressed'],
                    help='Container formats that images may have.'),
        cfg.BoolOpt('enforce', default=True,
                    help='Refuse data that is not of the format which the image declares. Unsafe data (backing files, external '
                         'data files, foreign extents) is refused whatever this says.'),
    ],
}

DEFAULTS = {
    ('api', 'bind_port'): 9292,
    # Each transfer holds one for as long as its client takes.
    ('api', 'threads'): 32,
    ('keystone_authtoken', 'service_type'): 'image',
    # It would make a write of each download.
    ('notifications', 'disabled'): ['image.send'],
    ('database', 'connection'): 'sqlite:////var/lib/kodiak/image/image.sqlite',
}
