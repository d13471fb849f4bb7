"""The compute API, microversions 2.1 to 2.96: mounted under ``/v2.1``, and without microversions under ``/v2``."""
from kodiak.common import api, wsgi
from kodiak.common.api.paths import ProjectPaths as Paths
from kodiak.compute.api import (
    actions,
    aggregates,
    create,
    events,
    extensions,
    faults,
    flavors,
    groups,
    hypervisors,
    interfaces,
    keypairs,
    lifecycle,
    metadata,
    migrations,
    proxies,
    quotas,
    server_data,
    server_info,
    servers,
    usage,
    versions,
    volume_proxies,
    volumes,
    zones,
)

MODULES = [versions, servers, create, actions, lifecycle, server_data, server_info, interfaces, volumes, flavors, keypairs, zones,
           aggregates,
           hypervisors, groups, quotas, usage, migrations, events, proxies, volume_proxies,
           extensions]
ROUTES = [module.routes for module in MODULES]
RULES = [rule for module in MODULES for rule in getattr(module, 'EXTRA_RULES', ())]
LIMITS = versions.MINIMUM, versions.MAXIMUM

API = api.Api('compute', ROUTES, faults.body, api.Microversions('compute', *LIMITS, 'X-OpenStack-Nova-API-Version'),
              prefix='/v2.1', title='Kodiak Compute API', rules=RULES)
LEGACY = api.Api('compute', ROUTES, faults.body, versions.Fixed('compute', *LIMITS), prefix='/v2',
                 title='Kodiak Compute API without microversions', rules=RULES)


def apis():
    """Every API of compute, for the documents that follow from their declarations."""
    from kodiak.compute.api import placement
    return [API, placement.API]


def app_factory(global_conf, **local):
    """paste application: the API with microversions."""
    return Paths(API.application(wsgi.runtime_of(global_conf)))


def legacy_factory(global_conf, **local):
    """paste application: the API without microversions."""
    return Paths(LEGACY.application(wsgi.runtime_of(global_conf)))


def root_factory(global_conf, **local):
    """paste application: the version document, or the metadata of whoever a metadata proxy asks for."""
    runtime = wsgi.runtime_of(global_conf)
    documents, guests = versions.ROOT.application(runtime), metadata.Metadata(runtime)
    return lambda environ, start_response: (guests if 'HTTP_X_INSTANCE_ID' in environ else documents)(environ, start_response)
