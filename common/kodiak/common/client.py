"""REST between services: keystoneauth sessions, the user's token with the service's own beside it, retries.

``clients.network.get('/v2.0/ports', context=context)`` returns the decoded body. A fault of the other service
is raised as the :mod:`kodiak.common.errors` class of its status, with the other's sentence as the message.
"""
import io
import logging
import re
import threading
import time
import urllib.parse

import orjson
from oslo_context import context as oslo_context

from kodiak.common import errors

LOG = logging.getLogger(__name__)

TYPES = {'identity': 'identity', 'image': 'image', 'network': 'network', 'compute': 'compute',
         'placement': 'placement', 'volume': 'block-storage', 'object_store': 'object-store',
         'orchestration': 'orchestration', 'metering': 'metering', 'alarming': 'alarming'}
IDEMPOTENT = frozenset(('GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'))
RETRIES = 3


class Clients:
    """Clients of the other services: ``clients.identity``, ``.image``, ``.network``, ``.compute``, ``.placement`` ...

    :param conf: credentials are taken from ``[service_user]``, or from ``[keystone_authtoken]`` where that has no
        ``auth_url`` (both in keystoneauth's option names); endpoints from ``[clients]`` or the catalog.
    """

    def __init__(self, conf):
        self.conf = conf
        self._lock = threading.Lock()
        self._session = None
        self._made = {}
        self._local = {}
        self._token = self._project = None

    def __getattr__(self, name):
        if name not in TYPES:
            raise AttributeError(name)
        return self._made.setdefault(name, Client(self, TYPES[name]))

    def mount(self, service_type, app, token=None, project=None):
        """Answer requests to a service by a WSGI application in this process, without a socket (tests).

        :param token: what stands for the service's own token. :param project: the id of that token's project.
        """
        self._local[service_type] = app
        if token is not None:
            self._token, self._project = token, project or token

    def session(self):
        """The keystoneauth session with the service's own credentials."""
        with self._lock:
            if self._session is None:
                self._session = self._load()
            return self._session

    def token(self):
        """The service's own token; a new one shortly before the old one expires."""
        return self._token if self._token is not None else self.session().get_token()

    def project_id(self):
        """The project that the service's own token is for: some paths name it."""
        return self._project if self._project is not None else self.session().get_project_id()

    def _load(self):
        from keystoneauth1 import loading
        from oslo_config import cfg
        for group in ('service_user', 'keystone_authtoken'):
            loading.register_auth_conf_options(self.conf, group)
            loading.register_session_conf_options(self.conf, group)
            auth = loading.load_auth_from_conf_options(self.conf, group)
            if auth is not None:
                return loading.load_session_from_conf_options(self.conf, group, auth=auth)
        raise cfg.RequiredOptError('auth_type', cfg.OptGroup('service_user'))


class Client:
    """Requests to one service; made by :class:`Clients`."""

    def __init__(self, clients, service_type):
        self.clients, self.service_type = clients, service_type

    def get(self, path, context=None, **kwargs):
        """GET; returns the decoded body."""
        return self._decoded('GET', path, context, **kwargs)

    def post(self, path, json=None, context=None, **kwargs):
        """POST; returns the decoded body, None where there is none."""
        return self._decoded('POST', path, context, json=json, **kwargs)

    def put(self, path, json=None, context=None, **kwargs):
        """PUT; returns the decoded body, None where there is none."""
        return self._decoded('PUT', path, context, json=json, **kwargs)

    def patch(self, path, json=None, context=None, **kwargs):
        """PATCH; returns the decoded body."""
        return self._decoded('PATCH', path, context, json=json, **kwargs)

    def delete(self, path, context=None, missing_ok=True, **kwargs):
        """DELETE; what is not there counts as deleted unless ``missing_ok`` is False."""
        try:
            return self._decoded('DELETE', path, context, **kwargs)
        except errors.NotFound:
            if not missing_ok:
                raise
            return None

    def request(self, method, path, context=None, *, json=None, data=None, params=None, headers=None, as_service=False,
                stream=False, timeout=60, retries=RETRIES):
        """One request; returns a ``requests.Response`` of a status below 400.

        :param path: not quoted; it may hold an id that a user sent. Queries go into ``params``.
        :param context: its token is sent, with the service's own as X-Service-Token, and its request id. The
            service's own token alone is sent without a context, with one that holds no token (a saga's), or
            ``as_service``.
        :param retries: how often a connection that could not be made, or a 503, is tried again; requests that are not
            idempotent only where they cannot have arrived.
        :raises errors.Error: the fault of the other service; :class:`errors.Unavailable` if it cannot be reached.
        """
        path = _path(path)
        headers = {'Accept': 'application/json', **(headers or {})}
        if json is not None:
            data = orjson.dumps(json)
            headers.setdefault('Content-Type', 'application/json')
        asker = context or oslo_context.get_current()      # of a saga's step, say: its id goes along in any case
        if asker is not None:
            headers['X-OpenStack-Request-ID'] = asker.global_request_id or asker.request_id
        for attempt in range(retries + 1):
            try:
                self._authenticate(headers, context, as_service)
                response = self._send(method, path, params, data, headers, stream, timeout)
            except errors.Unavailable as error:
                safe = method in IDEMPOTENT or not getattr(error, 'sent', True)
                if attempt == retries or not safe or getattr(error, 'final', False):
                    raise
            else:
                if response.status_code == 401 and self.clients._token is None and attempt == 0:
                    self.clients.session().invalidate()
                elif response.status_code == 503 and method in IDEMPOTENT and attempt < retries:
                    response.close()
                elif response.status_code >= 400:
                    raise self._error(response)
                else:
                    return response
            if isinstance(data, io.IOBase) or hasattr(data, '__next__'):
                raise errors.Unavailable(f'The {self.service_type} service broke off an upload.')
            time.sleep(0.1 * 3 ** attempt)
        raise self._error(response)

    def _decoded(self, method, path, context, **kwargs):
        response = self.request(method, path, context, **kwargs)
        return orjson.loads(response.content) if response.content else None

    def _authenticate(self, headers, context, as_service):
        from keystoneauth1 import exceptions
        try:
            if context is not None and context.auth_token and not as_service:
                headers['X-Auth-Token'] = context.auth_token
                headers['X-Service-Token'] = self.clients.token()
            else:
                headers['X-Auth-Token'] = self.clients.token()
        except exceptions.ClientException as error:
            LOG.warning('No token of our own: %s', error)
            failure = errors.Unavailable('The identity service gave this service no token.')
            failure.sent = False
            raise failure

    def _send(self, method, path, params, data, headers, stream, timeout):
        from keystoneauth1 import exceptions
        app = self.clients._local.get(self.service_type)
        if app is not None:
            return _local(app, method, self.service_type, path, params, data, headers, stream)
        try:
            session = self.clients.session()
            return session.request(self._url(session, path), method, params=params, data=data, headers=headers,
                                   authenticated=False, raise_exc=False, stream=stream, timeout=timeout, log=False)
        except exceptions.ClientException as error:
            LOG.info('%s %s of %s failed: %s', method, path, self.service_type, error)
            failure = errors.Unavailable(f'The {self.service_type} service cannot be reached.')
            failure.sent = not _refused(error)
            raise failure

    def _url(self, session, path):
        conf = self.clients.conf
        base = conf.clients.endpoints.get(self.service_type)
        if base is None:
            base = session.get_endpoint(service_type=self.service_type, interface=conf.clients.interface,
                                        region_name=conf.clients.region_name, skip_discovery=True)
        if base is None:
            missing = errors.Unavailable(f'This cloud has no {self.service_type} service: the catalog has no endpoint of one.')
            missing.final = True        # nobody is away who could come back
            raise missing
        # Endpoints are registered with or without their version, or with a project behind it; our paths always name it.
        version = path.split('/', 2)[1]
        return re.sub(rf'/{re.escape(version)}(/[^/]*)?$', '', base.rstrip('/')) + path

    def _error(self, response):
        sentence, kind = _sentence(response)
        error = errors.from_status(response.status_code, f'{self.service_type}: {sentence}' if sentence else
                                   f'The {self.service_type} service answered {response.status_code}.')
        error.kind = kind or error.kind
        error.service = self.service_type
        return error


def _path(path):
    """A path with whatever stands in it where an id should be; what would lead elsewhere is an id that does not exist."""
    if any(part in ('.', '..') for part in path.split('/')):
        raise errors.NotFound()
    return urllib.parse.quote(path, safe="/:@!$&'()*+,;=~")


def _refused(error):
    text = str(error).lower()
    return any(word in text for word in ('refused', 'name or service', 'no route', 'unreachable', 'resolve'))


def _sentence(response):
    """The sentence and the kind in another service's fault, whatever its shape."""
    try:
        body = orjson.loads(response.content)
    except ValueError:
        return (response.text or '').strip()[:300], None
    while isinstance(body, dict) and 'message' not in body and 'detail' not in body and body:
        body = next((value for value in body.values() if isinstance(value, (dict, list, str))), None)
        if isinstance(body, list):
            body = body[0] if body else None
    if isinstance(body, dict):
        return body.get('message') or body.get('detail'), body.get('type') or body.get('code')
    return body if isinstance(body, str) else None, None


def _local(app, method, service_type, path, params, data, headers, stream):
    """A request to a WSGI application of this process, answered as a ``requests.Response``."""
    import requests
    prepared = requests.Request(method, f'http://{service_type}.local{path}', params=params, headers=headers).prepare()
    split = urllib.parse.urlsplit(prepared.url)
    if data is None:
        body = b''
    elif hasattr(data, 'read'):
        body = data.read()
    elif isinstance(data, (bytes, str)):
        body = data.encode() if isinstance(data, str) else data
    else:
        body = b''.join(data)
    environ = {
        'REQUEST_METHOD': method, 'SCRIPT_NAME': '', 'PATH_INFO': urllib.parse.unquote(split.path),
        'RAW_URI': prepared.path_url, 'QUERY_STRING': split.query, 'SERVER_NAME': split.hostname, 'SERVER_PORT': '80',
        'SERVER_PROTOCOL': 'HTTP/1.1', 'REMOTE_ADDR': '127.0.0.1', 'wsgi.version': (1, 0), 'wsgi.url_scheme': 'http',
        'wsgi.input': io.BytesIO(body), 'wsgi.errors': io.StringIO(), 'wsgi.multithread': True,
        'wsgi.multiprocess': False, 'wsgi.run_once': False, 'CONTENT_LENGTH': str(len(body)),
        'HTTP_HOST': split.netloc}
    for name, value in headers.items():
        key = name.upper().replace('-', '_')
        environ[key if key == 'CONTENT_TYPE' else 'HTTP_' + key] = value
    answer = {}

    def start_response(status, response_headers, exc_info=None):
        answer.update(status=status, headers=response_headers)
    chunks = app(environ, start_response)
    try:
        content = b''.join(chunks)
    finally:
        if hasattr(chunks, 'close'):
            chunks.close()
    response = requests.Response()
    response.status_code = int(answer['status'].split(' ', 1)[0])
    response.reason = answer['status'].partition(' ')[2]
    response.headers.update(answer['headers'])
    response.url = prepared.url
    response.raw = io.BytesIO(content)
    if not stream:
        response.content    # noqa: B018 (reads it)
    return response
