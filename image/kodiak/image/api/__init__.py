"""The Glance v2 API."""
import re

from kodiak.common import api, wsgi

from . import cache, data, definitions, discovery, images, imports, locations, members, metadefs, rules, schemas, stores
from .faults import SCHEMA, fault

MODULES = (discovery, schemas, images, data, imports, locations, stores, cache, members, metadefs, definitions)
API = api.Api('image', [module.routes for module in MODULES], fault, title='Image API', base_rules=rules.FURTHER,
              fault_schema=SCHEMA)
_MINOR = re.compile(r'^/v2\.\d+(?=/|$)')


class Paths:
    """``/v2.9/images`` is ``/v2/images``; ``/v2/images/`` (an image without an id) is nothing."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        path = environ['PATH_INFO']
        if path.startswith('/v') and not path.startswith(('/v2/', '/versions')):
            environ['PATH_INFO'] = _MINOR.sub('/v2', path)
        elif path.endswith('/') and len(path) > 4:
            environ['PATH_INFO'] = path + '%2F'
        return self.application(environ, start_response)


def app_factory(global_conf, **local):
    """paste app: the API of this process's Runtime."""
    return Paths(API.application(wsgi.runtime_of(global_conf)))
