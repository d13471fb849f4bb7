"""Tables of the compute service, on one ``metadata``: servers and what belongs to them, and Placement's."""
from kodiak.common import heartbeat, outbox, quota, saga

from . import placement
from .base import metadata
from .catalog import aggregate_hosts, aggregates, flavor_projects, flavors, groups, hosts, keypairs, user_quotas
from .servers import action_events, actions, console_tokens, guests, migrations, server_tags, servers, specs

sagas, saga_steps = saga.tables(metadata)
events = outbox.tables(metadata)
quotas, quota_locks = quota.tables(metadata)
services = heartbeat.tables(metadata)

__all__ = ['action_events', 'actions', 'aggregate_hosts', 'aggregates', 'console_tokens', 'events', 'flavor_projects', 'flavors',
           'groups', 'guests', 'hosts', 'keypairs', 'metadata', 'migrations', 'placement', 'quota_locks', 'quotas', 'saga_steps',
           'sagas', 'server_tags', 'servers', 'services', 'specs', 'user_quotas']
