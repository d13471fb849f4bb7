"""The API of block storage: Cinder v3, microversions 3.0 to 3.71."""
from kodiak.common import api, policy, wsgi
from kodiak.common.api.paths import ProjectPaths

from . import (
    actions,
    attachments,
    backups,
    clusters,
    create,
    faults,
    groups,
    manage,
    messages,
    qos,
    quotas,
    services,
    snapshots,
    transfers,
    types,
    versions,
    volumes,
)

MODULES = [versions, create, volumes, actions, snapshots, types, qos, attachments, backups, transfers, groups, manage, quotas,
           services, clusters, messages]
RULES = [rule for module in MODULES for rule in getattr(module, 'EXTRA_RULES', ())]
API = api.Api('storage-block', [module.routes for module in MODULES], faults.body,
              api.Microversions('volume', versions.MINIMUM, versions.MAXIMUM), prefix='/v3', title='Kodiak block storage',
              rules=RULES)


def pipeline(application):
    """What stands directly in front of the API: project ids in paths; the services of the cloud act for any project."""
    return ProjectPaths(application, acting='service')


def app_factory(global_conf, **local):
    """paste application."""
    runtime = wsgi.runtime_of(global_conf)
    if runtime.policy is None:
        runtime.policy = policy.Enforcer(runtime.conf)
    return pipeline(API.application(runtime))


def versions_factory(global_conf, **local):
    """paste application: the version document at the root."""
    return versions.ROOT.application(wsgi.runtime_of(global_conf))
