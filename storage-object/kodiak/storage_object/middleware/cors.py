"""CORS by what a container says: ``X-Container-Meta-Access-Control-Allow-Origin``, ``-Max-Age``, ``-Expose-Headers``."""
from ..proxy.app import ALLOWED
from ..proxy.http import Filter, Response, error

SIMPLE = ('cache-control', 'content-language', 'content-type', 'expires', 'last-modified', 'pragma')
SHOWN = ('etag', 'x-timestamp', 'x-trans-id', 'x-openstack-request-id')


class Cors(Filter):
    """Answers preflights, marks the rest."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.origins = {o.strip() for o in self.conf.get('cors_allow_origin', '').split(',') if o.strip()}
        self.exposed = [h.strip() for h in self.conf.get('cors_expose_headers', '').split(',') if h.strip()]

    def handle(self, request):
        """See the class."""
        origin = request.headers.get('Origin')
        if not origin or request.environ.get('kodiak.sub'):
            return self.next(request)
        split = request.split()
        proxy = request.environ.get('kodiak.proxy')
        if split is None or proxy is None or split[0] not in ('v1', 'v1.0'):
            return self.next(request)       # (buckets of S3 have rules of their own)
        info = proxy.infos.get(request, split[1], split[2]) if split[2] is not None else {'meta': {}}
        meta = {name[15:]: value for name, value in info['meta'].items() if name.startswith('access-control-')}
        origins = {*meta.get('allow-origin', '').split(), *self.origins}
        allowed = origin in origins or '*' in origins
        if request.method == 'OPTIONS':
            return self._preflight(request, split, meta, origin, origins, allowed)
        answer = self.next(request)
        if allowed:
            headers = answer.headers
            headers['Access-Control-Allow-Origin'] = '*' if '*' in origins else origin
            if '*' not in origins:
                headers['Vary'] = f'{headers["Vary"]}, Origin' if 'Vary' in headers else 'Origin'
            shown = [*SIMPLE, *SHOWN, *self.exposed, *meta.get('expose-headers', '').split(),
                     *(n.lower() for n in headers if n.startswith(('X-Container-Meta-', 'X-Object-Meta-', 'X-Account-Meta-')))]
            headers['Access-Control-Expose-Headers'] = ', '.join(dict.fromkeys(shown))
        return answer

    @staticmethod
    def _preflight(request, split, meta, origin, origins, allowed):
        methods = ALLOWED['object' if split[3] is not None else 'container' if split[2] is not None else 'account']
        asked = request.headers.get('Access-Control-Request-Method')
        if split[2] is None and not allowed:
            return Response(200, b'', {'Allow': methods})       # (of accounts no page is told more than anybody)
        if asked is None or not allowed or asked not in methods.split(', '):
            return error(401, headers={'Allow': methods})
        headers = {'Allow': methods, 'Access-Control-Allow-Methods': methods,
                   'Access-Control-Allow-Origin': '*' if '*' in origins else origin}
        if '*' not in origins:
            headers['Vary'] = 'Origin'
        if 'max-age' in meta:
            headers['Access-Control-Max-Age'] = meta['max-age']
        wanted = request.headers.get('Access-Control-Request-Headers')
        if wanted:
            headers['Access-Control-Allow-Headers'] = ', '.join(word.strip() for word in wanted.split(',') if word.strip())
            headers['Vary'] = f'{headers["Vary"]}, Access-Control-Request-Headers' if 'Vary' in headers else (
                'Access-Control-Request-Headers')
        return Response(200, b'', headers)
