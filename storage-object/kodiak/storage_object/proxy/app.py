"""The proxy application: finds the controller of a path, asks whether the request may, and lets the controller answer."""
import logging

import orjson

from . import constraints
from .backend import Client, Nodes, Pool
from .cache import Cache
from .dbs import Accounts, Containers
from .http import Fault, Filter, Response, error
from .info import Infos
from .objects import Objects
from .shards import Shards

LOG = logging.getLogger(__name__)
ALLOWED = {'account': 'GET, HEAD, POST, OPTIONS', 'container': 'GET, HEAD, PUT, POST, DELETE, OPTIONS',
           'object': 'GET, HEAD, PUT, POST, DELETE, COPY, OPTIONS'}
OWNERS = ('X-Container-Read', 'X-Container-Write', 'X-Container-Sync-Key', 'X-Container-Sync-To', 'X-Account-Meta-Temp-Url-Key',
          'X-Account-Meta-Temp-Url-Key-2', 'X-Container-Meta-Temp-Url-Key', 'X-Container-Meta-Temp-Url-Key-2',
          'X-Account-Sysmeta-Core-Access-Control')
METHODS = {'GET', 'HEAD', 'PUT', 'POST', 'DELETE'}


class Proxy(Filter):
    """The end of the pipeline.

    :param rings: a :class:`~kodiak.storage_object.proxy.rings.Rings`. :param info: what ``/info`` shows; filters add to it.
    """

    def __init__(self, rings, *, cache=None, pool=None, nodes=None, info=None, autocreate=True, account_management=False):
        super().__init__(None)
        self.rings = rings
        self.client = Client(pool or Pool(), nodes or Nodes())
        self.cache = cache or Cache()
        self.infos = Infos(rings, self.client, self.cache)
        self.shards = Shards(rings, self.client, self.cache)
        self.autocreate, self.account_management = autocreate, account_management
        self.info = info if info is not None else {}
        limits = constraints.LIMITS
        self.info['swift'] = {
            'version': '2.38.0', 'strict_cors_mode': True, 'allow_account_management': account_management,
            'account_autocreate': autocreate, 'valid_api_versions': ['v1', 'v1.0'],
            'policies': [{'name': policy.name, 'aliases': ', '.join([policy.name, *policy.aliases]),
                          **({'default': True} if policy.default else {})} for policy in rings.policies.values()
                         if not policy.deprecated],
            **vars(limits)}
        self.accounts, self.containers, self.objects = Accounts(self), Containers(self), Objects(self)

    def handle(self, request):
        """Answer a request."""
        environ = request.environ
        environ.setdefault('kodiak.proxy', self)
        try:
            return self._handle(request)
        except Fault as fault:
            return fault.response

    def _handle(self, request):
        path = request.path
        if path == '/info':
            return self._info(request)
        split = request.split()
        if split is None:
            if request.method not in METHODS:
                return error(405)
            return error(404) if path.startswith(('/v1/', '/v1.0/')) else error(412, 'Bad URL')
        version, account, container, name = split
        if version not in ('v1', 'v1.0'):
            return error(404)
        if '\0' in path and not request.environ.get('kodiak.reserved'):
            return error(412, 'Invalid UTF8 or contains NULL')
        try:
            path.encode()
        except UnicodeError:
            return error(412, 'Invalid UTF8 or contains NULL')
        if request.method in ('PUT', 'POST') and not request.environ.get('kodiak.reserved'):
            constraints.check_path(account, container, name)
        if name is not None:
            kind, controller = 'object', self.objects
        elif container is not None:
            kind, controller = 'container', self.containers
        else:
            kind, controller = 'account', self.accounts
        if request.method not in METHODS:
            if request.method == 'OPTIONS':
                return Response(200, b'', {'Allow': ALLOWED[kind]})
            return error(405, headers={'Allow': ALLOWED[kind]})
        self._authorize(request, kind, account, container, name)
        answer = getattr(controller, request.method)(request, account, container, name)
        if name is None and request.environ.get('kodiak.authorize') is not None and not (
                request.environ.get('kodiak.owner') or request.environ.get('kodiak.override')):
            for header in OWNERS:
                answer.headers.pop(header, None)
        return answer

    def _authorize(self, request, kind, account, container, name):
        authorize = request.environ.get('kodiak.authorize')
        if authorize is None:
            return
        listing = kind == 'container' and request.method in ('GET', 'HEAD')
        acl = None
        if kind == 'object' or listing:
            info = self.infos.get(request, account, container)
            acl = info['read_acl'] if request.method in ('GET', 'HEAD') else info['write_acl']
        request.environ['kodiak.acl'] = acl
        refusal = authorize(request)
        if refusal is not None:
            raise _Refusal(refusal)
        if name is None and request.method in ('PUT', 'POST') and not request.environ.get('kodiak.owner') and not (
                request.environ.get('kodiak.override')):
            for header in OWNERS:
                request.headers.pop(header)

    def _info(self, request):
        if request.method not in ('GET', 'HEAD', 'OPTIONS'):
            return error(405, headers={'Allow': 'HEAD, GET, OPTIONS'})
        if request.method == 'OPTIONS':
            return Response(200, b'', {'Allow': 'HEAD, GET, OPTIONS'})
        return Response(200, orjson.dumps(self.info), content_type='application/json; charset=UTF-8')


class _Refusal(Fault):
    def __init__(self, response):
        Exception.__init__(self, 'refused')
        self.response = response


