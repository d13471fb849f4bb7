"""An :class:`Api`: the declared endpoints as one Flask application."""
import collections
import copy
import logging

import flask
import orjson
from werkzeug import exceptions

from .. import context as contexts
from .. import errors
from .request import Request, Response

LOG = logging.getLogger(__name__)
JSON = 'application/json'


class Lean(flask.Flask):
    """Flask without sessions and URL defaults, which an API doesn't use and every request would pay for."""

    class _NoSession(flask.sessions.SessionInterface):
        def open_session(self, app, request):
            return flask.sessions.NullSession()

        def is_null_session(self, obj):
            return True

        def save_session(self, app, session, response):
            pass

    session_interface = _NoSession()


class Api:
    """The API of one service.

    :param name: its name (``compute``); also names its loggers and metrics.
    :param routes: the :class:`~kodiak.common.api.Routes` of its modules.
    :param faults: ``function(error, request id, accept) -> (body, media type)``: the service's own fault shape. ``error`` is a
        :class:`kodiak.common.errors.Error`.
    :param microversions: a :class:`~kodiak.common.api.Microversions`, or None.
    :param prefix: the path that the paste composite mounts it under (``/v2.1``), for links.
    :param title: what the OpenAPI document calls it.
    :param forbid_unknown: True: what isn't there is 404 to those who could see it and 403 to all others, who so don't learn
        whether it is. A ``load`` that knows whose it would be says so in ``req.target`` before it raises.
    :param fault_schema: JSON Schema of what ``faults`` makes, for the OpenAPI document.
    :param strict_media: True: a body needs ``Content-Type: application/json``, and ``Accept`` must admit JSON.
    """

    def __init__(self, name, routes, faults, microversions=None, prefix='', title=None, rules=(), base_rules=(),
                 strict_media=False, fault_schema=None, forbid_unknown=False):
        self.name = name
        self.faults = faults
        self.microversions = microversions
        self.prefix = prefix
        self.title = title or name
        self.endpoints = [endpoint for module in routes for endpoint in module.endpoints]
        self.strict_media = strict_media
        self.fault_schema = fault_schema
        self.forbid_unknown = forbid_unknown
        self.rules = [*base_rules, *rules]
        self.runtime = None

    def all_rules(self):
        """Every policy rule with its default and a description: ``[(name, check, description)]``."""
        found = {name: (name, check, description) for name, check, description in self.rules}
        for endpoint in self.endpoints:
            if endpoint.rule is None:
                continue
            described = f'{endpoint.summary} ({endpoint.method} {self.prefix}{endpoint.openapi_path})'
            if endpoint.rule in found and found[endpoint.rule][1] != endpoint.check:
                raise TypeError(f'{endpoint.rule} is declared with two defaults: {found[endpoint.rule][1]!r} and '
                                f'{endpoint.check!r}')
            found.setdefault(endpoint.rule, (endpoint.rule, endpoint.check, described))
        return list(found.values())

    def application(self, runtime, validate_responses=False):
        """The WSGI application of this API for a process's ``runtime`` (a ``kodiak.common.service.Runtime``)."""
        self.runtime = runtime
        runtime.policy.add(self.all_rules())
        # A second application of this API in the same process must not change what the first one works with.
        bound = copy.copy(self)
        # Neither folder is used: an API has no templates, and a namespace package has no place where Flask would look.
        app = Lean(f'kodiak.{self.name}', static_folder=None, instance_path='/', root_path='/')
        app.url_map.strict_slashes = False
        app.url_map.merge_slashes = False
        grouped = collections.defaultdict(list)
        for endpoint in self.endpoints:
            grouped[endpoint.werkzeug_path].append(endpoint)
        for path, endpoints in grouped.items():
            methods = {endpoint.method for endpoint in endpoints}
            for method in methods:
                dispatcher = Dispatcher(bound, [e for e in endpoints if e.method == method], validate_responses)
                app.add_url_rule(path, endpoint=f'{method} {path}', view_func=dispatcher, methods=[method],
                                 provide_automatic_options=False)
        app.register_error_handler(exceptions.HTTPException, self._framework_error)
        app.register_error_handler(Exception, self._unexpected)
        return app

    def _framework_error(self, error):
        if isinstance(error, exceptions.NotFound):
            ours = errors.NotFound()
        else:
            ours = errors.from_status(error.code, error.description)
            if isinstance(error, exceptions.MethodNotAllowed) and error.valid_methods:
                ours.headers['Allow'] = ', '.join(sorted(error.valid_methods))
                ours.message = errors.MethodNotAllowed.default
        return self.error_response(ours, flask.request, None)

    def _unexpected(self, error):
        if not isinstance(error, errors.Error):
            LOG.exception('Unexpected %s in %s %s', type(error).__name__, flask.request.method, flask.request.path)
            error = errors.Error()
        return self.error_response(error, flask.request, None)

    def error_response(self, error, http, version):
        """The response of an :class:`~kodiak.common.errors.Error` in the service's fault shape."""
        http.environ['kodiak.fault'] = error.message    # for kodiak trace
        body, media_type = self.faults(error, http.environ.get('kodiak.request_id'), http.headers.get('Accept', ''))
        response = flask.Response(body, error.code, content_type=media_type)
        for name, value in error.headers.items():
            response.headers[name] = value
        if self.microversions and version:
            for name, value in self.microversions.headers(version):
                response.headers.add(name, value)
        return response


class Dispatcher:
    """The view function of one method of one path: chooses the endpoint, checks, calls, answers."""

    __name__ = 'dispatch'
    # Flask reads these from a view function; one that says nothing is asked again at each request.
    provide_automatic_options = False
    required_methods = ()

    def __init__(self, api, endpoints, validate_responses):
        self.api = api
        self.endpoints = endpoints
        self.actions = any(endpoint.action for endpoint in endpoints)
        self.single = endpoints[0] if len(endpoints) == 1 and not self.actions else None
        self.validate_responses = validate_responses

    def __call__(self, **parameters):
        http, version = flask.request, None
        try:
            if self.api.strict_media:
                check_media(http)
            if self.api.microversions is not None:
                version = self.api.microversions.of(http.headers)
            response = self._run(http, version, parameters)
        except errors.Error as error:
            if error.code >= 500:
                LOG.warning('%s %s: %s', http.method, http.path, error.message)
            return self.api.error_response(error, http, version)
        return response

    def _run(self, http, version, parameters):
        environ = http.environ
        # No name has a NUL in it, and PostgreSQL fails on one.
        if '\x00' in environ['PATH_INFO']:
            raise errors.NotFound()
        if '%00' in environ.get('QUERY_STRING', ''):
            raise errors.BadRequest('The query has a NUL character.')
        ctx = environ.get('kodiak.context') or contexts.from_environ(environ)
        req = Request(self.api, http, None, version, ctx)
        endpoint = self._endpoint(req, version)
        req.endpoint = endpoint
        # The route, not the path, is what the access log and the metrics group by.
        environ['kodiak.route'] = endpoint.openapi_path
        if not endpoint.public and ctx.user_id is None:
            raise errors.Unauthorized()
        if endpoint.load is not None:
            req.target = self._load(req, endpoint, parameters)
        if endpoint.rule is not None and not endpoint.late:
            self.api.runtime.policy.enforce(endpoint.rule, ctx, req.target)
        if endpoint.media and http.mimetype not in endpoint.media:
            raise errors.UnsupportedMediaType(f"The body must be of the type {' or '.join(endpoint.media)}.")
        if environ.get('QUERY_STRING'):
            req.query = endpoint.check_query(http.args)
        if endpoint.body is not None:
            if req.body is None:
                req.body = req.read_json(optional=endpoint.optional_body)
            if req.body is not None or not endpoint.optional_body:
                req.body = endpoint.check_body(req.body)
        result = endpoint.handler(req, **parameters)
        return self._response(req, endpoint, result, version)

    def _load(self, req, endpoint, parameters):
        try:
            return endpoint.load(req, **parameters)
        except errors.NotFound as error:
            if self.api.forbid_unknown and endpoint.rule is not None and not endpoint.late and not error.told:
                self.api.runtime.policy.enforce(endpoint.rule, req.ctx, req.target or {})
            raise

    def _endpoint(self, req, version):
        if self.single is not None and version is None:
            return self.single
        fitting = [endpoint for endpoint in self.endpoints if endpoint.serves(version)]
        if not fitting:
            raise errors.NotFound()
        if not self.actions:
            return fitting[0]
        req.body = req.read_json()
        if not isinstance(req.body, dict) or len(req.body) < 1:
            raise errors.BadRequest('The body must be an object that names one action.')
        for endpoint in fitting:
            if endpoint.action in req.body:
                return endpoint
        raise errors.BadRequest(f"There is no such action: {', '.join(map(str, req.body))[:80]}.")

    def _response(self, req, endpoint, result, version):
        status, headers, media_type = endpoint.status, req.headers, None
        if isinstance(result, Response):
            status, media_type = result.status or status, result.media_type
            headers = headers + result.headers
            result = result.body
        if isinstance(result, (dict, list)):
            if self.validate_responses and endpoint.response is not None and status == endpoint.status:
                self._validate(endpoint, result)
            result = orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
            media_type = media_type or JSON
        if media_type is None and result is not None:
            media_type = JSON
        response = flask.Response(result if result is not None else b'', status, content_type=media_type)
        # A stream goes to the server as it is, which may hand a file to the kernel.
        response.direct_passthrough = not isinstance(result, (bytes, str, type(None)))
        if media_type is None:
            del response.headers['Content-Type']
        for name, value in headers:
            response.headers[name] = value
        if version is not None:
            for name, value in self.api.microversions.headers(version):
                response.headers.add(name, value)
        return response

    @staticmethod
    def _validate(endpoint, result):
        # What a test sees must be what a client sees: through JSON and back.
        try:
            endpoint.check_response(orjson.loads(orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS)))
        except errors.BadRequest as error:
            raise AssertionError(f'The response of {endpoint.method} {endpoint.path} is outside its schema: '
                                 f'{error.message}') from None




def check_media(http):
    """400, 415 or 406 for a request whose body is not JSON or whose client takes none."""
    if http.headers.get('Accept') and not http.accept_mimetypes.best_match([JSON]):
        raise errors.NotAcceptable('Only application/json is provided')
    if http.environ.get('CONTENT_LENGTH', '0') not in ('', '0') or http.method in ('PUT', 'POST'):
        kind = http.environ.get('CONTENT_TYPE')
        if http.environ.get('CONTENT_LENGTH', '0') not in ('', '0'):
            if not kind:
                raise errors.BadRequest('content-type header required when content-length > 0')
            if kind.partition(';')[0].strip().lower() != JSON:
                raise errors.UnsupportedMediaType(f'The media type {kind} is not supported, use {JSON}')
