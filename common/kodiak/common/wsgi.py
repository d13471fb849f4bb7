"""The WSGI side: paste.deploy filters that every API stands behind, and loading of the pipeline.

Each filter is a small WSGI middleware with a ``*_factory`` for paste.deploy. The order in an
``api-paste.ini`` is: cors healthcheck front sizelimit authtoken, then the application.
"""
import importlib.resources
import ipaddress
import logging
import os
import re
import time

from paste import deploy

from . import certificates, context, events, log, metrics

LOG = logging.getLogger('kodiak.access')
METHODS = frozenset(('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'COPY', 'REPLICATE'))
#: Who asks, where a request ends before that is known.
NOBODY = {'user': '-', 'project': '-', 'domain': '-'}
#: Tokens in a path, as old APIs have them: they must not get into a log.
TOKEN = re.compile(r'kd1\.[\w.-]+|(?<=/tokens/)[^/]{20,}')


class Front:
    """Gives a request its ids, logs it, counts it, and answers what nobody below answered with a plain 500.

    ``X-Openstack-Request-Id`` is on every response; a caller's ``X-OpenStack-Request-ID`` becomes the global request id.
    """

    def __init__(self, application, service):
        self.application = application
        self.service = service

    def __call__(self, environ, start_response):
        started = time.perf_counter()
        context.forget()
        request_id = environ['kodiak.request_id'] = context.new_request_id()
        asked = environ.get('HTTP_X_OPENSTACK_REQUEST_ID', '')
        environ['kodiak.global_request_id'] = asked if context.REQUEST_ID.match(asked) else None
        seen = []

        def start(status, headers, exc_info=None):
            headers = list(headers)
            headers.append(('X-Openstack-Request-Id', request_id))
            if self.service in ('compute', 'placement'):
                headers.append(('X-Compute-Request-Id', request_id))
            seen[:] = [status]
            return start_response(status, headers, exc_info)

        try:
            return self.application(environ, start)
        except UnicodeError:
            start('400 Bad Request', [('Content-Type', 'text/plain')])
            return [b'The path or a header is not UTF-8.\n']
        except Exception:
            LOG.exception('Unexpected error outside the application: %s %s', environ['REQUEST_METHOD'],
                          TOKEN.sub('***', environ['PATH_INFO']))
            start('500 Internal Server Error', [('Content-Type', 'text/plain')])
            return [b'An unexpected error stopped the request.\n']
        finally:
            elapsed = time.perf_counter() - started
            path = TOKEN.sub('***', environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', ''))
            code = seen[0].split(' ', 1)[0] if seen else '500'
            route = environ.get('kodiak.route') or '-'
            method = environ['REQUEST_METHOD']
            # Whoever invents methods must not make a time series of each.
            metrics.observe_request(self.service, method if method in METHODS else 'other', route, code, elapsed)
            if environ['kodiak.global_request_id'] or code[0] > '3' or method not in ('GET', 'HEAD'):
                # Reads that went well and were made for nobody else's request are not worth their room.
                fault = environ.get('kodiak.fault')
                events.emit('http', request_id, environ['kodiak.global_request_id'], method=method, path=path, code=code,
                            ms=round(elapsed * 1000, 1), **({'fault': log.mask(fault)[:300]} if fault else {}))
            if LOG.isEnabledFor(logging.INFO):
                extra = {'route': route}
                if context.get_current() is None:
                    extra['context'] = {**NOBODY, 'request_id': request_id,
                                        'global_request_id': environ['kodiak.global_request_id'] or '-'}
                LOG.info('%s %s %s %s %.1fms', environ.get('REMOTE_ADDR', '-'), method, path, code, elapsed * 1000, extra=extra)


def front_factory(global_conf, service='api', **local):
    """paste filter: :class:`Front`. ``service`` names the service in metrics."""
    return lambda application: Front(application, service)


class SizeLimit:
    """Refuses early what says that it is too long; the JSON reader counts what does not say.

    Paths that stream (images, objects) are left to their handlers: ``exempt`` is a regular expression of them.
    """

    def __init__(self, application, limit, exempt):
        self.application = application
        self.limit = limit
        self.exempt = re.compile(exempt) if exempt else None

    def __call__(self, environ, start_response):
        length = environ.get('CONTENT_LENGTH')
        if length and length.isdecimal() and (len(length) > 19 or int(length) > self.limit) and not (
                self.exempt and self.exempt.search(environ.get('PATH_INFO', ''))):
            body = b'The request is larger than this service accepts.\n'
            start_response('413 Request Entity Too Large', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
            return [body]
        return self.application(environ, start_response)


def sizelimit_factory(global_conf, limit='1048576', exempt='', **local):
    """paste filter: :class:`SizeLimit`; ``limit`` in bytes."""
    return lambda application: SizeLimit(application, int(limit), exempt)


class Cors:
    """Answers preflight requests and marks responses for pages of the allowed origins."""

    METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'
    EXPOSED = 'X-Auth-Token, X-Subject-Token, X-Openstack-Request-Id, OpenStack-API-Version, Location'

    def __init__(self, application, origins):
        self.application = application
        self.origins = set(origins)

    def __call__(self, environ, start_response):
        origin = environ.get('HTTP_ORIGIN')
        if not origin or not (origin in self.origins or '*' in self.origins):
            return self.application(environ, start_response)
        ours = [('Access-Control-Allow-Origin', origin), ('Vary', 'Origin'), ('Access-Control-Expose-Headers', self.EXPOSED)]
        if environ['REQUEST_METHOD'] == 'OPTIONS' and 'HTTP_ACCESS_CONTROL_REQUEST_METHOD' in environ:
            asked = environ.get('HTTP_ACCESS_CONTROL_REQUEST_HEADERS', '')
            if re.fullmatch(r'[A-Za-z0-9_, -]*', asked) is None:
                asked = ''
            start_response('200 OK', [*ours, ('Access-Control-Allow-Methods', self.METHODS),
                                      ('Access-Control-Allow-Headers', asked), ('Access-Control-Max-Age', '3600'),
                                      ('Content-Length', '0')])
            return [b'']
        return self.application(environ, lambda status, headers, exc_info=None:
                                start_response(status, [*headers, *ours], exc_info))


def cors_factory(global_conf, origins='', **local):
    """paste filter: :class:`Cors`; ``origins`` separated by commas, or from ``[api] cors_allowed_origin``."""
    def wrap(application):
        conf = _conf_of(global_conf)
        allowed = [o.strip() for o in origins.split(',') if o.strip()] or (list(conf.api.cors_allowed_origin) if conf else [])
        return Cors(application, allowed) if allowed else application
    return wrap


class Forwarded:
    """Takes from a proxy in front who asks, and how: ``X-Forwarded-For`` and ``X-Forwarded-Proto``.

    They are believed of the proxies of ``[api] trusted_proxies`` only, from the nearest outwards as long as each is one of
    those. From anybody else these headers, and ``X-Forwarded-Host``, are taken away.

    :param certificate_header: the header in which those proxies pass on the certificate that the client has shown and they have
        verified (``Client-Cert``); None: they pass on none.
    """

    HEADERS = ('HTTP_X_FORWARDED_FOR', 'HTTP_X_FORWARDED_PROTO', 'HTTP_X_FORWARDED_HOST')

    def __init__(self, application, trusted, certificate_header=None):
        self.application = application
        self.certificate = 'HTTP_' + certificate_header.upper().replace('-', '_') if certificate_header else None
        self.networks = [ipaddress.ip_network(span.strip(), strict=False) for span in trusted]

    def __call__(self, environ, start_response):
        if self.certificate in environ:
            text = environ.pop(self.certificate)
            der = certificates.read(text) if self._trusts(environ.get('REMOTE_ADDR', '')) else None
            if der is not None:
                environ[certificates.ENVIRON] = certificates.pem(der)
        for name in self.HEADERS:
            if name in environ:
                self._look(environ)
                break
        return self.application(environ, start_response)

    def _look(self, environ):
        if not self._trusts(environ.get('REMOTE_ADDR', '')):
            for name in self.HEADERS:
                environ.pop(name, None)
            return
        for address in reversed(environ.get('HTTP_X_FORWARDED_FOR', '').split(',')):
            try:
                environ['REMOTE_ADDR'] = str(ipaddress.ip_address(address.strip()))
            except ValueError:
                break
            if not self._trusts(environ['REMOTE_ADDR']):
                break
        if environ.get('HTTP_X_FORWARDED_PROTO', '').split(',')[-1].strip().lower() == 'https':
            environ['wsgi.url_scheme'] = 'https'

    def _trusts(self, text):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


class HealthCheck:
    """``GET /healthcheck``: 200 when the service's database and broker answer, else 503 that names what doesn't.

    ``GET /healthcheck/serving`` is for load balancers: 503 only while requests cannot be answered here. Without its broker an
    API takes requests as ever, and what they ask for waits; if that took it out, no API would be left.
    """

    def __init__(self, application, runtime):
        self.application = application
        self.runtime = runtime

    def __call__(self, environ, start_response):
        path = environ.get('PATH_INFO')
        if path not in ('/healthcheck', '/healthcheck/serving'):
            return self.application(environ, start_response)
        faults = self.runtime.faults(broker=path == '/healthcheck')
        body = ('OK' if not faults else '\n'.join(faults)).encode() + b'\n'
        start_response('503 Service Unavailable' if faults else '200 OK',
                       [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
        return [body]


def healthcheck_factory(global_conf, **local):
    """paste filter: :class:`HealthCheck`."""
    return lambda application: HealthCheck(application, runtime_of(global_conf))


_runtimes = {}


def runtime_of(global_conf):
    """The Runtime that :func:`load` passed to the factories of this pipeline."""
    return _runtimes[global_conf['kodiak_runtime']]


def _conf_of(global_conf):
    runtime = _runtimes.get(global_conf.get('kodiak_runtime'))
    return runtime.conf if runtime else None


def load(runtime, name=None):
    """The WSGI application of a service: its paste.deploy pipeline around its API.

    :param runtime: the process's :class:`kodiak.common.service.Runtime`; factories reach it with :func:`runtime_of`.
    :param name: section of the ini file; ``main`` if None.
    """
    path = runtime.conf.api.paste_config
    if not path:
        path = str(importlib.resources.files(f'kodiak.{runtime.name.replace("-", "_")}') / 'api-paste.ini')
    key = f'{os.getpid()}-{id(runtime)}'
    _runtimes[key] = runtime
    app = deploy.loadapp('config:' + os.path.abspath(path), name=name, global_conf={'kodiak_runtime': key})
    return Forwarded(app, runtime.conf.api.trusted_proxies, runtime.conf.api.client_certificate_header)
