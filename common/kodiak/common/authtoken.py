"""The token middleware: a paste.deploy filter that verifies tokens where they arrive (decision 5).

It takes keystonemiddleware's ``[keystone_authtoken]`` option names and sets the same environ headers, so that
applications written for that one run behind this one. Tokens of Kodiak's identity are verified with its public key and
checked against a revocation feed that is polled every second: no call stands in a request's way. Any other token is
validated online, as keystonemiddleware does it.
"""
import collections
import copy
import fnmatch
import logging
import threading
import time

import orjson
from oslo_config import cfg

from . import certificates, tokens

LOG = logging.getLogger(__name__)
GROUP = 'keystone_authtoken'

OPTS = [
    cfg.StrOpt('www_authenticate_uri', help='URL of identity that a 401 tells the client.'),
    cfg.BoolOpt('delay_auth_decision', default=True,
                help='Let requests without a valid token pass, marked X-Identity-Status: Invalid: each endpoint decides, as '
                     'some (version documents) need none.'),
    cfg.ListOpt('service_token_roles', default=['service'], help='Roles of which a service token needs one.'),
    cfg.BoolOpt('service_token_roles_required', default=True,
                help='Ignore service tokens that lack those roles.'),
    cfg.StrOpt('service_type', help='Type of this service in the catalog, for access rules of application credentials.'),
    cfg.BoolOpt('include_service_catalog', default=False, help='Set X-Service-Catalog, which no service of Kodiak reads.'),
    cfg.IntOpt('token_cache_time', default=300,
               help='Seconds that a token validated online is remembered, and that tokens are still accepted while '
                    'identity cannot be reached.'),
]

HEADERS = [
    'X_IDENTITY_STATUS', 'X_SERVICE_IDENTITY_STATUS', 'X_DOMAIN_ID', 'X_DOMAIN_NAME', 'X_PROJECT_ID', 'X_PROJECT_NAME',
    'X_PROJECT_DOMAIN_ID', 'X_PROJECT_DOMAIN_NAME', 'X_USER_ID', 'X_USER_NAME', 'X_USER_DOMAIN_ID', 'X_USER_DOMAIN_NAME',
    'X_ROLES', 'X_ROLE', 'X_IS_ADMIN_PROJECT', 'X_SERVICE_CATALOG', 'X_TENANT_ID', 'X_TENANT_NAME', 'X_TENANT', 'X_USER',
    'OPENSTACK_SYSTEM_SCOPE', 'X_SERVICE_DOMAIN_ID', 'X_SERVICE_DOMAIN_NAME', 'X_SERVICE_PROJECT_ID',
    'X_SERVICE_PROJECT_NAME', 'X_SERVICE_PROJECT_DOMAIN_ID', 'X_SERVICE_PROJECT_DOMAIN_NAME', 'X_SERVICE_USER_ID',
    'X_SERVICE_USER_NAME', 'X_SERVICE_USER_DOMAIN_ID', 'X_SERVICE_USER_DOMAIN_NAME', 'X_SERVICE_ROLES',
]
#: Older types of an API in catalogs, by which access rules may name it too.
ALIASES = {'block-storage': ('volumev3', 'volumev2', 'volume', 'block-store')}
ENVIRON = tuple('HTTP_' + name for name in HEADERS)


def register(conf):
    """Register the ``[keystone_authtoken]`` options, those of keystoneauth's plugins included."""
    from keystoneauth1 import loading
    conf.register_opts(OPTS, group=GROUP)
    loading.register_session_conf_options(conf, GROUP)
    loading.register_auth_conf_options(conf, GROUP)


class Unreachable(Exception):
    """Identity could not be asked."""


class Feed:
    """Public keys, revocation events and the catalog, as identity publishes them.

    :param fetch: ``function(since) -> dict`` with ``keys`` ``[{id, public}]``, ``events`` newer than sequence number
        ``since``, ``sequence`` (of the newest event), ``catalog`` (absent or None: as before); raises anything when
        identity can't be reached.
    :param interval: seconds between polls; None: never polls (tests, identity itself).
    """

    PRUNE = 600

    def __init__(self, fetch, interval=1.0, max_age=300):
        self._fetch = fetch
        self._interval = interval
        self._max_age = max_age
        self._lock = threading.Lock()
        self._thread = None
        self._stop = threading.Event()
        self.keys = {}
        self.revocations = tokens.Revocations()
        self.catalog = []
        self.sequence = 0
        #: grows with every change, so that what was checked against an older state is checked again
        self.version = 0
        self.seen = None
        self._pruned = time.monotonic()

    def refresh(self):
        """Ask identity now."""
        with self._lock:
            answer = self._fetch(self.sequence)
            self.seen = time.monotonic()
            keys = {key['id']: key['public'] for key in answer['keys']}
            if keys != {key_id: text for key_id, (text, _) in self.keys.items()}:
                self.keys = {key_id: (text, tokens.load_public(text)) for key_id, text in keys.items()}
                self.version += 1
            for event in answer['events']:
                self.revocations.add(event)
            if answer['events']:
                self.version += 1
            self.sequence = answer['sequence']
            if self.seen - self._pruned > self.PRUNE:
                self.revocations.prune(time.time())
                self._pruned = self.seen
            if answer.get('catalog') is not None:
                self.catalog = answer['catalog']

    def public_keys(self):
        """``{key id: public key}``."""
        return {key_id: key for key_id, (_, key) in self.keys.items()}

    def ready(self):
        """Start polling if it hasn't started; raise :class:`Unreachable` when what is known is too old to rely on."""
        if self._thread is None and self._interval:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._poll, name='token-feed', daemon=True)
                    self._thread.start()
        if self.seen is None:
            self._try()
        if self.seen is None or (self._interval and time.monotonic() - self.seen > self._max_age):
            raise Unreachable('identity has not answered')

    def stop(self):
        """End the polling thread."""
        self._stop.set()

    def _try(self):
        try:
            self.refresh()
            return True
        except Exception as error:  # whatever it is, the next poll tries again
            LOG.warning('The token feed of identity could not be read: %s', error)
            return False

    def _poll(self):
        failures = 0
        while not self._stop.wait(min(self._interval * 2 ** failures, 10)):
            failures = 0 if self._try() else min(failures + 1, 4)


class AuthToken:
    """The WSGI middleware.

    :param feed: a :class:`Feed`. :param online: ``function(token) -> token body (dict)`` or None; validates foreign tokens.
    """

    CACHE = 2000

    def __init__(self, application, feed, *, online=None, delay=False, www_authenticate_uri='', service_type=None,
                 service_token_roles=('service',), service_token_roles_required=True, include_catalog=True, cache_time=300):
        self.application = application
        self.feed = feed
        self.online = online
        self.delay = delay
        self.uri = www_authenticate_uri or ''
        self.service_type = service_type
        self.service_roles = set(service_token_roles)
        self.service_roles_required = service_token_roles_required
        self.include_catalog = include_catalog
        self.cache_time = cache_time
        self._cache = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        for name in ENVIRON:
            environ.pop(name, None)
        try:
            service_token_good = self._service_token(environ)
            text = environ.get('HTTP_X_AUTH_TOKEN') or environ.get('HTTP_X_STORAGE_TOKEN') or self._bearer(environ)
            entry = self._entry(text) if text else None
            if entry is not None and self._access_allowed(entry, environ) and self._certificate_fits(entry, environ):
                environ.update(entry.headers)
                environ['keystone.token_info'] = entry.info
                environ['kodiak.claims'] = entry.claims
                if self.include_catalog and self.feed.catalog:
                    environ['HTTP_X_SERVICE_CATALOG'] = self._catalog(entry)
            elif self.delay:
                environ['HTTP_X_IDENTITY_STATUS'] = 'Invalid'
                if self.uri:
                    start_response = self._inviting(start_response)
            else:
                return self._unauthorized(start_response)
            if not service_token_good:
                return self._unauthorized(start_response)
        except Unreachable:
            body = b'{"error": {"message": "Identity cannot be reached. Try again.", "code": 503, "title": "Service Unavailable"}}'
            start_response('503 Service Unavailable', [('Content-Type', 'application/json'), ('Retry-After', '2'),
                                                       ('Content-Length', str(len(body)))])
            return [body]
        return self.application(environ, start_response)

    @staticmethod
    def _bearer(environ):
        """The token of an OAuth 2.0 client (RFC 6750); what lies behind finds it as any other."""
        kind, _, text = environ.get('HTTP_AUTHORIZATION', '').partition(' ')
        if kind.lower() != 'bearer' or not text:
            return None
        environ['HTTP_X_AUTH_TOKEN'] = text.strip()
        return environ['HTTP_X_AUTH_TOKEN']

    def _service_token(self, environ):
        text = environ.get('HTTP_X_SERVICE_TOKEN')
        if not text:
            return True
        entry = self._entry(text)
        if entry is None or (entry.bound and not certificates.fits(entry.info['token'], certificates.shown(environ))):
            return self.delay
        if self.service_roles_required and not self.service_roles & set(entry.headers.get('HTTP_X_ROLES', '').split(',')):
            return self.delay
        for name in ('USER_ID', 'USER_NAME', 'USER_DOMAIN_ID', 'USER_DOMAIN_NAME', 'PROJECT_ID', 'PROJECT_NAME',
                     'PROJECT_DOMAIN_ID', 'PROJECT_DOMAIN_NAME', 'DOMAIN_ID', 'DOMAIN_NAME', 'ROLES'):
            value = entry.headers.get('HTTP_X_' + name)
            if value:
                environ['HTTP_X_SERVICE_' + name] = value
        environ['HTTP_X_SERVICE_IDENTITY_STATUS'] = 'Confirmed'
        environ['keystone.service_token_info'] = entry.info
        return True

    def _entry(self, text):
        """The cached facts of a token, or None if it is not valid now."""
        entry = self._cache.get(text)
        if entry is not None and entry.expires > time.time():
            if entry.claims is None:
                return entry
            self.feed.ready()
            if entry.version == self.feed.version or self._still(entry):
                return entry
        entry = self._verify(text)
        with self._lock:
            if entry is None:
                self._cache.pop(text, None)
            else:
                self._cache[text] = entry
                if len(self._cache) > self.CACHE:
                    self._cache.popitem(last=False)
        return entry

    def _still(self, entry):
        # The signature holds for ever; what may have changed is that its key or the token was revoked.
        version = self.feed.version
        if entry.key_id not in self.feed.keys or self.feed.revocations.covers(entry.claims, entry.key_id):
            return False
        entry.version = version
        return True

    def _verify(self, text):
        if not tokens.is_ours(text):
            return self._validate_online(text)
        self.feed.ready()
        version = self.feed.version
        try:
            claims = tokens.verify(text, self.feed.public_keys())
        except tokens.UnknownKey:
            # Signed with a key that is younger than what we know: ask once, unless somebody makes keys up.
            if self.feed.seen is not None and time.monotonic() - self.feed.seen < 0.5:
                return None
            try:
                self.feed.refresh()
                claims = tokens.verify(text, self.feed.public_keys())
            except tokens.InvalidToken:
                return None
            except Exception as error:
                raise Unreachable(str(error)) from error
        except tokens.InvalidToken:
            return None
        key_id = text.split('.', 2)[1]
        if self.feed.revocations.covers(claims, key_id):
            return None
        return Entry(claims, headers_of(claims), info_of(claims), claims.expires, version, key_id)

    def _validate_online(self, text):
        if self.online is None or len(text) > tokens.MAX_LENGTH:
            return None
        body = self.online(text)
        if body is None:
            return None
        token = body['token']
        expires = time.time() + self.cache_time
        return Entry(None, headers_of_body(token), body, expires, None)

    def _access_allowed(self, entry, environ):
        rules = (entry.info['token'].get('application_credential') or {}).get('access_rules')
        if rules is None:
            return True
        if environ.get('HTTP_X_SERVICE_IDENTITY_STATUS') == 'Confirmed':
            # A service that works for the user: rules are about what the user asks for itself.
            return True
        path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
        names = (self.service_type, *ALIASES.get(self.service_type, ()))
        return any(rule['service'] in names and rule['method'] == environ['REQUEST_METHOD']
                   and _path_matches(path, rule['path']) for rule in rules)

    def _certificate_fits(self, entry, environ):
        # A service that works for the user shows its own certificate, if any: the user has shown its own to that service.
        return (not entry.bound or environ.get('HTTP_X_SERVICE_IDENTITY_STATUS') == 'Confirmed'
                or certificates.fits(entry.info['token'], certificates.shown(environ)))

    def _catalog(self, entry):
        project = entry.headers.get('HTTP_X_PROJECT_ID', '')
        if entry.catalog is None or entry.catalog[0] is not self.feed.catalog:
            text = orjson.dumps(self.feed.catalog).decode()
            entry.catalog = (self.feed.catalog, text.replace('%(tenant_id)s', project).replace('%(project_id)s', project)
                             .replace('$(tenant_id)s', project).replace('$(project_id)s', project))
        return entry.catalog[1]

    def _inviting(self, start_response):
        """Where the application refuses, the answer says where tokens are had, unless it says so itself."""
        def start(status, headers, *exc_info):
            if status.startswith('401') and not any(name.lower() == 'www-authenticate' for name, _ in headers):
                headers = [*headers, self._invitation()]
            return start_response(status, headers, *exc_info)
        return start

    def _invitation(self):
        return 'WWW-Authenticate', f'Keystone uri="{self.uri}"'

    def _unauthorized(self, start_response):
        body = (b'{"error": {"message": "The request you have made requires authentication.", "code": 401, '
                b'"title": "Unauthorized"}}')
        start_response('401 Unauthorized', [('Content-Type', 'application/json'), ('Content-Length', str(len(body))),
                                            self._invitation()])
        return [body]


class Entry:
    """What is remembered of a verified token."""

    __slots__ = ('bound', 'catalog', 'claims', 'expires', 'headers', 'info', 'key_id', 'version')

    def __init__(self, claims, headers, info, expires, version, key_id=None):
        self.claims, self.headers, self.info, self.expires, self.version = claims, headers, info, expires, version
        self.key_id = key_id
        self.catalog = None
        self.bound = certificates.bound(info['token'])


def _path_matches(path, pattern):
    # '*' stands for one segment, '**' for any number, '{name}' for one.
    parts = ['*' if part.startswith('{') else part for part in pattern.strip('/').split('/')]
    found = path.strip('/').split('/')
    for index, part in enumerate(parts):
        if part == '**':
            return True
        if index >= len(found) or not fnmatch.fnmatchcase(found[index], part):
            return False
    return len(parts) == len(found)


def info_of(claims):
    """The body of a validation answer (``{'token': ...}``), without its catalog, of :class:`~kodiak.common.tokens.Claims`."""
    user_id, user_name, domain_id, domain_name, password_expires = [*claims.user, None][:5]
    token = {
        'methods': claims.methods, 'audit_ids': claims.audit_ids, 'issued_at': tokens.iso(claims.issued),
        'expires_at': tokens.iso(claims.expires),
        'user': {'id': user_id, 'name': user_name, 'domain': {'id': domain_id, 'name': domain_name},
                 'password_expires_at': password_expires},
    }
    scope = claims.scope
    if scope:
        token['roles'] = [{'id': role_id, 'name': name} for role_id, name in claims.roles]
        if scope[0] == 'p':
            token['project'] = {'id': scope[1], 'name': scope[2], 'domain': {'id': scope[3], 'name': scope[4]}}
            token['is_domain'] = bool(scope[5])
        elif scope[0] == 'd':
            token['domain'] = {'id': scope[1], 'name': scope[2]}
        else:
            token['system'] = {'all': True}
    extra = claims.extra
    if extra.get('app_cred'):
        token['application_credential'] = copy.copy(extra['app_cred'])
    if extra.get('trust'):
        token['OS-TRUST:trust'] = extra['trust']
    if extra.get('oauth'):
        token['OS-OAUTH1'] = extra['oauth']
    if extra.get('bound'):
        token.update(extra['bound'])
    if extra.get('federation'):
        token['user']['OS-FEDERATION'] = extra['federation']
    return {'token': token}


def headers_of(claims):
    """The environ headers that a token of ours stands for."""
    return headers_of_body(info_of(claims)['token'])


def headers_of_body(token):
    """The environ headers of the ``token`` of a validation answer."""
    user = token['user']
    headers = {
        'X_IDENTITY_STATUS': 'Confirmed',
        'X_USER_ID': user['id'], 'X_USER_NAME': user['name'], 'X_USER_DOMAIN_ID': user['domain']['id'],
        'X_USER_DOMAIN_NAME': user['domain']['name'], 'X_USER': user['name'],
    }
    roles = ','.join(role['name'] for role in token.get('roles', ()))
    headers['X_ROLES'] = headers['X_ROLE'] = roles
    if 'project' in token:
        project = token['project']
        headers.update({
            'X_PROJECT_ID': project['id'], 'X_PROJECT_NAME': project['name'],
            'X_PROJECT_DOMAIN_ID': project['domain']['id'], 'X_PROJECT_DOMAIN_NAME': project['domain']['name'],
            'X_TENANT_ID': project['id'], 'X_TENANT_NAME': project['name'], 'X_TENANT': project['name'],
            'X_IS_ADMIN_PROJECT': str(token.get('is_admin_project', True)),
        })
    elif 'domain' in token:
        headers.update(X_DOMAIN_ID=token['domain']['id'], X_DOMAIN_NAME=token['domain']['name'])
    elif 'system' in token:
        headers['OPENSTACK_SYSTEM_SCOPE'] = 'all'
    # WSGI's headers are Latin-1 text that carries UTF-8 bytes; names of people need not be ASCII.
    return {'HTTP_' + name: value if value.isascii() else value.encode().decode('latin-1')
            for name, value in headers.items() if value is not None}


class Remote:
    """Identity over HTTP, with the service's own credentials from ``[keystone_authtoken]``."""

    def __init__(self, conf):
        from keystoneauth1 import adapter, loading
        auth = loading.load_auth_from_conf_options(conf, GROUP)
        session = loading.load_session_from_conf_options(conf, GROUP, auth=auth, timeout=10)
        # Its own URL, not the catalog's: identity must be reachable before there is a catalog.
        url = (conf[GROUP].auth_url or '').rstrip('/')
        self._adapter = adapter.Adapter(session, endpoint_override=url.removesuffix('/v3') + '/v3', connect_retries=0)
        self._catalog_version = None

    def feed(self, since):
        """What :class:`Feed` fetches; the catalog only when it has changed."""
        known = '' if self._catalog_version is None else f'&catalog={self._catalog_version}'
        answer = self._adapter.get(f'/kodiak/feed?since={since}{known}', timeout=5).json()
        self._catalog_version = answer.get('catalog_version')
        return answer

    def validate(self, text):
        """The validation answer for a foreign token, or None if identity says that it isn't valid."""
        from keystoneauth1 import exceptions
        try:
            return self._adapter.get('/auth/tokens', headers={'X-Subject-Token': text}).json()
        except (exceptions.NotFound, exceptions.Unauthorized, exceptions.Forbidden):
            return None
        except exceptions.ClientException as error:
            raise Unreachable(str(error)) from error


def build(application, conf, feed=None, online=None, service_type=None):
    """The middleware of a service from its configuration (``[keystone_authtoken]`` must be registered).

    :param service_type: in place of the configuration's, where a process serves APIs of several types.
    """
    if feed is None:
        remote = Remote(conf)
        feed = Feed(remote.feed, max_age=conf[GROUP].token_cache_time)
        online = remote.validate
    options = conf[GROUP]
    return AuthToken(
        application, feed, online=online, delay=options.delay_auth_decision, www_authenticate_uri=options.www_authenticate_uri,
        service_type=service_type or options.service_type, service_token_roles=options.service_token_roles,
        service_token_roles_required=options.service_token_roles_required,
        include_catalog=options.include_service_catalog, cache_time=options.token_cache_time)


def filter_factory(global_conf, service_type=None, **local):
    """paste filter. The runtime's ``feed``, where it has one (tests, identity), is used instead of HTTP."""
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 (before the fork, so that workers share it)

    from . import wsgi

    def wrap(application):
        runtime = wsgi.runtime_of(global_conf)
        return build(application, runtime.conf, feed=getattr(runtime, 'feed', None), service_type=service_type)
    return wrap
