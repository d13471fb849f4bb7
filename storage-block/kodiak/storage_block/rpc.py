"""What the processes of block storage ask each other.

The agent of a host has no database. It registers the back ends that it drives, asks the conductor what is to be done and what
should be exported (``host_state``), does it, and reports. Conductors serve :data:`CONDUCTOR` on ``CONDUCTOR_TOPIC`` (any of them
answers); each agent serves :data:`AGENT` on ``AGENT_TOPIC`` under the name of its host. All arguments and answers are plain JSON.

Names. A back end is ``<host>@<name>`` (``node1@file``); within the agent of a host it is called by ``<name>`` alone, and so it
is in every shape below. Each back end has one pool, of the same name: the API shows ``node1@file#file``. On a back end a volume is
called ``volume-<id>``, a snapshot ``snapshot-<id>``.

**Backend** (``register``), what a back end says of itself::

    {"name": "file", "driver": "file", "protocol": "iSCSI" | "NBD" | "ceph", "vendor": "Kodiak", "zone": "nova",
     "total_gb": 100.0, "free_gb": 71.5, "thin": true, "max_over_subscription_ratio": 20.0, "reserved_percentage": 0,
     "multiattach": true, "online_extend": true, "efficient_clone": true, "revert": true, "qos": true,
     "error": null | "why it cannot work now",
     "capabilities": {...}}                more that extra specs may ask for ("volume_backend_name" is the name unless given)

    ``total_gb`` and ``free_gb`` may be the texts "infinite" or "unknown". What is provisioned is counted by the conductor.

**Work** (``host_state``): one thing to do, in ``number`` order for each resource (works of different resources run side by side)::

    {"number": 12, "kind": "create_volume", "backend": "file", "resource_id": "<id of what it is about>", "args": {...}}

Each is idempotent: done again after a crash it gives the same end. ``number`` never repeats. A work that is no longer in the
state was cancelled: the agent stops it if it still runs, reports nothing, and what cleans up after it comes as another work on
the same resource, which waits until the cancelled one has ended. Errors: a sentence for the volume's owner, without secrets and
host paths.

==================== =========================================================================================================
kind                 args; result
==================== =========================================================================================================
create_volume        volume_id, size (GiB), source, encryption (or null); result {}
delete_volume        volume_id; nothing there counts as deleted
extend_volume        volume_id, size, attached (true: it is exported now), encryption
revert_volume        volume_id, snapshot_id, size
retype_volume        volume_id, size, old_encryption, new_encryption: rewrites a detached volume in place
reimage_volume       volume_id, size, image_id, image, encryption: writes an image over a volume that may be attached
create_snapshot      snapshot_id, volume_id, size
create_snapshots     snapshots: [{snapshot_id, volume_id, size}], all at one moment (a group snapshot)
delete_snapshot      snapshot_id, volume_id; nothing there counts as deleted
copy_to_image        volume_id, image_id, disk_format, container_format, encryption: uploads the data of a queued image,
                     decrypted; result {size: bytes}
create_backup        backup_id, volume_id, size, snapshot_id (or null: the volume; where it is attached the agent works from
                     a short-lived snapshot of it), container (or null), parent (a record, or null for a full one), encryption
                     (the volume's; data is kept as it lies on the back end); result {record}
delete_backup        backup_id, record; nothing there counts as deleted. Its back end is "": any agent with the driver does it
restore_backup       backup_id, volume_id, size, records: [full one, ..., the one asked for]
manage_volume        volume_id, reference ({"source-name": ...}); result {size: GiB, rounded up}
unmanage_volume      volume_id: leaves the data, under a name that can be managed again
manage_snapshot      snapshot_id, volume_id, reference; result {size}
unmanage_snapshot    snapshot_id, volume_id
==================== =========================================================================================================

``source``::

    {"type": "none"}
    {"type": "image", "image_id", "image": the image's document as the image API shows it}
    {"type": "snapshot", "snapshot_id", "volume_id": its volume, "size": GiB}         on the same back end
    {"type": "volume", "volume_id", "backend", "size": GiB}                           on this back end or another of this host
    {"type": "connection", "connection": {driver_volume_type, data}, "size": GiB}     a volume of another host, exported to this one

``encryption``: ``{"key_id", "provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256}``; the passphrase is asked for by
``key``. A volume that is made of an encrypted snapshot or volume has the same passphrase under a key id of its own: no byte is
rewritten.

``record``: what finds a backup again, kept by the conductor and exported by the API (without secrets)::

    {"service": "file" | "swift", "container": "...", "prefix": "...", "object_count": 3, "size": bytes kept, "metadata": {...}}

**Export** (``host_state``): exports are level-driven. The agent makes the exports of its back ends be exactly these, before it
begins a work of the same state::

    {"attachment_id": "...", "generation": 3, "volume_id": "...", "backend": "file", "size": GiB, "access_mode": "rw" | "ro",
     "connector": {"host", "ip", "initiator", ...}, "auth_username": "...", "auth_password": "...", "encrypted": false}

and reports each that it made (again after each restart) with a **Connection**: ``{"driver_volume_type": "iscsi" | "nbd" | "rbd",
"data": {...}}``. The data of iscsi: target_portal, target_iqn, target_lun, auth_method, auth_username, auth_password, discard; of
nbd: host, port, export, tls; of rbd: name, hosts, ports, auth_enabled, auth_username, secret_uuid. The conductor adds volume_id,
attachment_id, access_mode, encrypted, qos_specs and cacheable.
"""
from kodiak.common import rpc

LOGGING = [
    rpc.Call('log_levels', args=('prefix',), timeout=15, doc='{logger: level} of the loggers whose names begin with prefix.'),
    rpc.Call('set_log_level', args=('prefix', 'level'), timeout=15, doc=(
        'Have those loggers say what is of level (DEBUG, INFO, WARNING, ERROR, CRITICAL) and above, until the process ends.')),
]
CONDUCTOR_TOPIC = 'storage-block-conductor'
AGENT_TOPIC = 'storage-block-agent'

CONDUCTOR = rpc.Table('storage-block-conductor', version='1.0', calls=[
    rpc.Call('register', args=('host', 'backends', 'agent'), timeout=15, doc=(
        'The back ends of a host (a list of Backend: all of them, each time), on start and every 30 seconds; the heartbeat of the '
        'agent too. agent: {version, started_at (ISO, UTC), backup: name of the backup driver or None}. Returns {generation}.')),
    rpc.Call('host_state', args=('host', 'since'), timeout=15, doc=(
        'What is to be done and exported on host. since: the generation of the last answer, None at first. Returns {generation} '
        'alone where nothing changed since, otherwise {generation, work: [Work], exports: [Export]}: always all of them.')),
    rpc.Call('report', args=('host', 'results', 'exports'), timeout=30, doc=(
        'What came of it. results: [{number, result: {...}} or {number, error: sentence}]; exports: [{attachment_id, generation, '
        'connection: Connection} or {attachment_id, generation, error: sentence}]. What is no longer wanted is ignored. Returns '
        'None; reporting the same twice does no harm, and a report that failed is to be repeated.')),
    rpc.Call('progress', args=('host', 'number', 'percent'), timeout=15, doc=(
        'How far a work is, 0 to 100; at most every few seconds. Returns False if it was cancelled meanwhile.')),
    rpc.Call('key', args=('host', 'key_id'), timeout=15, doc=(
        'The passphrase of an encryption key, as {passphrase: base64}; only for keys of volumes on this host. Never to be logged, '
        'or put on a command line.')),
    *LOGGING,
])

AGENT = rpc.Table('storage-block-agent', version='1.0', calls=[
    rpc.Call('list_manageable', args=('backend', 'kind'), timeout=30, doc=(
        'What lies on a back end under names that are not of ours. kind: volumes or snapshots. Returns [{reference: '
        '{"source-name": ...}, size: GiB, origin: {"source-name": ...} of a snapshot}].')),
    *LOGGING,
], casts=[
    rpc.Cast('look', args=('generation',), doc=(
        'What the receiving host should do has reached generation: ask now rather than at the next interval. Losing this message '
        'delays and loses nothing.')),
])
