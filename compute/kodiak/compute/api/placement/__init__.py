"""The Placement API, microversions 1.0 to 1.39, mounted under ``/placement``."""
from kodiak.common import api, wsgi

from . import aggregates, allocations, candidates, classes, faults, inventories, providers, traits, usages, versions

API = api.Api('placement', [versions.routes, providers.routes, inventories.routes, aggregates.routes, traits.routes,
                            classes.routes, allocations.routes, candidates.routes, usages.routes],
              faults.body, api.Microversions('placement', (1, 0), (1, 39)), prefix='/placement', title='Kodiak Placement API',
              strict_media=True)


def app_factory(global_conf, **local):
    """paste application: the Placement API."""
    return API.application(wsgi.runtime_of(global_conf))
