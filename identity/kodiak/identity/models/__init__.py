"""The tables of identity, all on one :data:`metadata`."""
from kodiak.common import heartbeat, outbox

from .base import NO_DOMAIN, metadata
from .catalog import (
    endpoint_groups,
    endpoints,
    limits,
    policies,
    policy_links,
    project_endpoint_groups,
    project_endpoints,
    regions,
    registered_limits,
    services,
)
from .credentials import (
    access_rules,
    app_credential_rules,
    app_credentials,
    credentials,
    oauth_consumers,
    oauth_nonces,
    oauth_tokens,
    trusts,
)
from .federation import (
    federated_identities,
    identity_providers,
    mappings,
    protocols,
    remote_ids,
    service_providers,
)
from .people import directory_entries, directory_looks, groups, members, passwords, users
from .resources import assignments, implied_roles, project_tags, projects, roles
from .state import domain_options, revocations, versions

# Which identity processes run where; what the catalog lists is in :data:`services`.
heartbeats = heartbeat.tables(metadata)
# What is told on the message bus, until it is.
outbox.tables(metadata)

__all__ = [
    'NO_DOMAIN', 'access_rules', 'app_credential_rules', 'app_credentials', 'assignments', 'credentials', 'directory_entries',
    'directory_looks', 'domain_options',
    'endpoint_groups', 'endpoints', 'federated_identities', 'groups', 'heartbeats', 'identity_providers', 'implied_roles',
    'limits', 'mappings', 'members', 'metadata', 'oauth_consumers',
    'oauth_nonces', 'oauth_tokens', 'passwords', 'policies', 'policy_links', 'project_endpoint_groups', 'project_endpoints',
    'project_tags', 'projects', 'protocols', 'regions', 'registered_limits', 'remote_ids', 'revocations', 'roles',
    'service_providers', 'services', 'trusts', 'users', 'versions',
]
