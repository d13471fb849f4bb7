"""What a handler is given and what it may return."""
import functools

import orjson
from werkzeug.wsgi import LimitedStream

from .. import errors
from ..numbers import natural


class Request:
    """One request, as a handler sees it.

    Attributes: ``app`` (the process's Runtime: ``conf``, ``db``, ``bus``, ``policy``, ``clients``), ``ctx`` (the caller's
    :class:`~kodiak.common.context.Context`), ``endpoint``, ``version`` (the microversion as a tuple, or None),
    ``query`` (typed dictionary), ``body`` (parsed and validated JSON, or None), ``target`` (what the endpoint's ``load``
    found), ``http`` (werkzeug's request, for headers and streams), ``headers`` (response headers to add).
    """

    __slots__ = ('__dict__', 'api', 'app', 'body', 'ctx', 'endpoint', 'headers', 'http', 'query', 'target', 'version')

    def __init__(self, api, http, endpoint, version, ctx):
        self.api = api
        self.app = api.runtime
        self.http = http
        self.endpoint = endpoint
        self.version = version
        self.ctx = ctx
        self.query = {}
        self.body = None
        self.target = None
        self.headers = []

    @property
    def db(self):
        """The service's database."""
        return self.app.db

    def at_least(self, major, minor):
        """True if the request's microversion is ``major.minor`` or later."""
        return self.version is not None and self.version >= (major, minor)

    def allows(self, rule, target=None):
        """True if the caller may do ``rule`` to ``target``."""
        return self.app.policy.allows(rule, self.ctx, target)

    def authorize(self, target=None, rule=None):
        """Check a rule (the endpoint's own by default) against ``target``; ``PolicyForbidden`` if it says no."""
        self.app.policy.enforce(rule or self.endpoint.rule, self.ctx, target)

    @functools.cached_property
    def base_url(self):
        """The API's root as the client reaches it, with no slash at its end."""
        configured = self.app.conf.api.public_endpoint
        if configured:
            return configured.rstrip('/')
        environ = self.http.environ
        scheme = environ.get('HTTP_X_FORWARDED_PROTO', environ['wsgi.url_scheme']).split(',')[0].strip()
        host = environ.get('HTTP_X_FORWARDED_HOST', '').split(',')[-1].strip() or self.http.host
        return f'{scheme}://{host}' + environ.get('SCRIPT_NAME', '').rstrip('/').removesuffix(self.api.prefix)

    @property
    def url(self):
        """The URL of this request, without its query, as the client reaches it."""
        return self.base_url + self.api.prefix + self.http.path

    def _length(self):
        text = self.http.environ.get('CONTENT_LENGTH') or ''
        length = natural(text) if text else None
        if text and length is None:
            raise errors.BadRequest('The Content-Length header must be an integer.')
        return length

    def stream(self):
        """The body as a file object that ends where the body ends, whatever its transfer coding.

        It ends early where the client went away: whoever takes data compares its size with what was announced.
        """
        environ = self.http.environ
        length = self._length()
        source = environ['wsgi.input']
        # gunicorn ends it by itself; one more layer would copy an upload once more.
        return source if environ.get('wsgi.input_terminated') else LimitedStream(source, length or 0)

    def read_json(self, optional=False):
        """The body as parsed JSON; ``BadRequest`` where it is none or too large."""
        limit = self.app.conf.api.max_body_size
        length = self._length()
        if length is not None and length > limit:
            raise errors.RequestTooLarge(f'The body has {length} bytes; this API takes {limit}.')
        data = self.stream().read(limit + 1)
        if len(data) > limit:
            raise errors.RequestTooLarge(f'The body has more than {limit} bytes, which is what this API takes.')
        if not data:
            if optional:
                return None
            raise errors.BadRequest('The request needs a JSON body and has none.')
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise errors.BadRequest(f'Malformed JSON: {error}') from None
        if b'\\u0000' in data and _has_nul(found):
            raise errors.BadRequest('The body has a NUL character in a text.')
        return found


def _has_nul(value):
    if isinstance(value, str):
        return '\x00' in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(one) for key, one in value.items())
    return isinstance(value, list) and any(_has_nul(one) for one in value)


class Response:
    """An answer that is more than a body with the declared status.

    :param body: dict or list (sent as JSON), bytes, str, None, or an iterable of bytes (streamed).
    :param status: HTTP status; the endpoint's by default.
    :param headers: a dictionary or list of pairs.
    :param media_type: Content-Type of a body that isn't JSON.
    """

    __slots__ = ('body', 'headers', 'media_type', 'status')

    def __init__(self, body=None, status=None, headers=(), media_type=None):
        self.body = body
        self.status = status
        self.headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        self.media_type = media_type
