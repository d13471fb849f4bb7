"""Tables of block storage, on one ``metadata``."""
from kodiak.common import heartbeat, outbox, quota, saga

from .base import metadata
from .catalog import default_types, encryptions, group_snapshots, group_types, groups, qos_specs, type_access, volume_types
from .hosts import backends, hosts, keys, work
from .volumes import attachments, backups, messages, snapshots, transfers, volumes

sagas, saga_steps = saga.tables(metadata)
events = outbox.tables(metadata)
quotas, quota_locks = quota.tables(metadata)
services = heartbeat.tables(metadata)

__all__ = ['attachments', 'backends', 'backups', 'default_types', 'encryptions', 'events', 'group_snapshots', 'group_types',
           'groups', 'hosts', 'keys', 'messages', 'metadata', 'qos_specs', 'quota_locks', 'quotas', 'saga_steps', 'sagas',
           'services', 'snapshots', 'transfers', 'type_access', 'volume_types', 'volumes', 'work']
