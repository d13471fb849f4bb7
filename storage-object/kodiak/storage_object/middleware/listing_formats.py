"""Listings as lines or XML: further in all of them are JSON, whose rows filters can change."""
import orjson

from ..proxy import listing
from ..proxy.http import Filter, error

# What tells a listing from an object.
COUNTS = {'X-Account-Container-Count', 'X-Container-Object-Count'}


class ListingFormats(Filter):
    """See the module."""

    def handle(self, request):
        """Ask for JSON, and give what was asked for."""
        if request.method != 'GET' or request.environ.get('kodiak.sub') or (split := request.split()) is None or (
                split[3] is not None or split[0] not in ('v1', 'v1.0')):
            return self.next(request)
        if 'versions' in request.query and split[2] is not None:
            return self._versions(request)
        shape = listing.chosen(request)
        if shape == listing.SHAPES['json']:
            return self.next(request)
        # Whoever makes a page of a listing (static web) asks for its rows, and answers HTML.
        request.set_query({**request.query, 'format': 'json'})
        if shape == listing.SHAPES['plain'] and split[2] is not None:
            request.headers['X-Backend-Names'] = 'yes'
        answer = self.next(request)
        if not answer.ok or not answer.headers.get('Content-Type', '').startswith('application/json') or not (
                answer.headers.keys() & COUNTS):
            return answer       # or the index page of a web site, whatever its type
        listing.reshape(answer, orjson.loads(answer.read()), shape, *(
            ('account', split[1]) if split[2] is None else ('container', split[2])))
        return answer

    def _versions(self, request):
        # What they have to tell fits no other form.
        if request.query.get('format') is None and request.headers.get('Accept') in (None, '', '*/*'):
            request.set_query({**request.query, 'format': 'json'})
        if listing.chosen(request) != listing.SHAPES['json']:
            return error(406)
        return self.next(request)
