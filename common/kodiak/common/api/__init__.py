"""The declaration of an endpoint, and everything that follows from it (decision 4 of doc/architecture.rst).

A resource's module makes one :class:`Routes` and declares its handlers with it::

    routes = api.Routes('flavors')

    @routes.get('/flavors/{flavor_id}', rule='compute:flavors:show', default=policy.READER,
                response=FLAVOR, summary='Show a flavor')
    def show(req, flavor_id):
        ...

A service collects its modules' routes in an :class:`Api`, which paste.deploy serves as a WSGI application. From
the same declarations come the validation, the policy sample, the OpenAPI document, the API reference and the test
that tries every route as every persona.
"""
from .app import Api
from .declare import Endpoint, Routes
from .listing import Listing
from .request import Request, Response
from .versions import Microversions, VersionDocument, parse_microversion

__all__ = ['Api', 'Endpoint', 'Listing', 'Microversions', 'Request', 'Response', 'Routes', 'VersionDocument',
           'parse_microversion']
