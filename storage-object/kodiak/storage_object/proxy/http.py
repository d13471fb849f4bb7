"""Requests and responses of the proxy: thin objects over a WSGI environ, made for speed and for streaming.

Header values stay what WSGI gives: ``str`` whose characters are the bytes of the header. Paths are real text. A filter is a
callable of a :class:`Request` that returns a :class:`Response`; both sides can be plain WSGI (:class:`Filter`).
"""
import io
import urllib.parse
from email.utils import formatdate, parsedate_to_datetime

from kodiak.common.numbers import natural

from . import ranges

REASONS = {
    100: 'Continue', 200: 'OK', 201: 'Created', 202: 'Accepted', 204: 'No Content', 206: 'Partial Content',
    301: 'Moved Permanently', 302: 'Found', 303: 'See Other', 304: 'Not Modified', 307: 'Temporary Redirect', 400: 'Bad Request',
    401: 'Unauthorized', 403: 'Forbidden', 404: 'Not Found', 405: 'Method Not Allowed', 406: 'Not Acceptable',
    408: 'Request Timeout', 409: 'Conflict', 411: 'Length Required', 412: 'Precondition Failed',
    413: 'Request Entity Too Large', 414: 'Request URI Too Long', 416: 'Requested Range Not Satisfiable',
    417: 'Expectation Failed', 422: 'Unprocessable Entity', 429: 'Too Many Requests', 497: 'Blacklisted', 498: 'Rate Limited',
    499: 'Client Disconnect', 500: 'Internal Server Error', 501: 'Not Implemented', 502: 'Bad Gateway',
    503: 'Service Unavailable', 504: 'Gateway Timeout', 507: 'Insufficient Storage',
}
CHUNK = 65536
TRUE = frozenset(('true', '1', 'yes', 'on', 't', 'y'))


def is_true(value):
    """Whether a header or option says yes."""
    return value is True or (isinstance(value, str) and value.lower() in TRUE)


def to_wsgi(text):
    """Text as the header value that carries its UTF-8 bytes."""
    return text if text.isascii() else text.encode().decode('latin-1')


def from_wsgi(value):
    """The text that a header value carries; bytes that are not UTF-8 stay as they are (surrogates)."""
    return value if value.isascii() else value.encode('latin-1').decode('utf-8', 'surrogateescape')


def quote(text, safe='/'):
    """Percent-encoded UTF-8."""
    return urllib.parse.quote(text.encode('utf-8', 'surrogateescape') if isinstance(text, str) else text, safe)


def unquote(text):
    """Text of a percent-encoded string."""
    return urllib.parse.unquote(text)


class Fault(Exception):
    """Raised where a request ends with an error; carries the :class:`Response`."""

    def __init__(self, status, message=None, headers=None):
        super().__init__(message or REASONS.get(status, ''))
        self.response = error(status, message, headers)

    @property
    def status(self):
        """Its status code."""
        return self.response.status


class HeaderDict(dict):
    """Headers of a response; names are kept in Title-Case, a value is a string."""

    def __init__(self, source=()):
        super().__init__()
        self.update(source)

    def __setitem__(self, name, value):
        super().__setitem__(name.title(), value if isinstance(value, str) else str(value))

    def __getitem__(self, name):
        return super().__getitem__(name.title())

    def __contains__(self, name):
        return super().__contains__(name.title())

    def __delitem__(self, name):
        super().__delitem__(name.title())

    def get(self, name, default=None):
        """The value, or ``default``."""
        return super().get(name.title(), default)

    def pop(self, name, *default):
        """Take a header out."""
        return super().pop(name.title(), *default)

    def setdefault(self, name, default=None):
        """The value; set to ``default`` where it is absent."""
        return super().setdefault(name.title(), default)

    def update(self, source=(), **more):
        """Set many, from a dict or pairs."""
        for name, value in (source.items() if isinstance(source, dict) else source):
            self[name] = value
        for name, value in more.items():
            self[name] = value


class EnvironHeaders:
    """The headers of a request, over its environ."""

    __slots__ = ('environ',)

    def __init__(self, environ):
        self.environ = environ

    @staticmethod
    def key(name):
        """The name's key in the environ."""
        key = name.upper().replace('-', '_')
        return key if key in ('CONTENT_TYPE', 'CONTENT_LENGTH') else 'HTTP_' + key

    def get(self, name, default=None):
        """The value, or ``default``."""
        return self.environ.get(self.key(name), default)

    def __getitem__(self, name):
        return self.environ[self.key(name)]

    def __setitem__(self, name, value):
        self.environ[self.key(name)] = value if isinstance(value, str) else str(value)

    def __contains__(self, name):
        return self.key(name) in self.environ

    def __delitem__(self, name):
        self.environ.pop(self.key(name), None)

    def pop(self, name, default=None):
        """Take a header out."""
        return self.environ.pop(self.key(name), default)

    def items(self):
        """``(Title-Case name, value)`` of each header."""
        for key, value in list(self.environ.items()):
            if key.startswith('HTTP_'):
                yield key[5:].replace('_', '-').title(), value
            elif key in ('CONTENT_TYPE', 'CONTENT_LENGTH') and value not in (None, ''):
                yield key.replace('_', '-').title(), value

    def update(self, source):
        """Set many."""
        for name, value in (source.items() if isinstance(source, dict) else source):
            self[name] = value


# What a request made on behalf of another keeps of it.
INHERITED = ('REMOTE_ADDR', 'SERVER_NAME', 'SERVER_PORT', 'SERVER_PROTOCOL', 'wsgi.url_scheme', 'wsgi.multithread',
             'wsgi.multiprocess', 'wsgi.run_once', 'wsgi.version', 'wsgi.errors', 'HTTP_HOST', 'HTTP_X_TRANS_ID', 'HTTP_REFERER',
             'HTTP_USER_AGENT', 'REMOTE_USER', 'HTTP_ORIGIN', 'HTTP_X_AUTH_TOKEN', 'HTTP_X_SERVICE_TOKEN')


NOT_INHERITED = {'kodiak.request', 'kodiak.acl', 'kodiak.info_used', 'kodiak.footers'}


class Request:
    """One request.

    ``path`` is text without its percent-encoding; ``query`` a dict of the query's last values.
    """

    def __init__(self, environ):
        self.environ = environ
        self.headers = EnvironHeaders(environ)
        self._path = None
        self._query = None

    @classmethod
    def of(cls, environ):
        """The Request of an environ: one for all filters."""
        known = environ.get('kodiak.request')
        if known is None or known.environ is not environ:
            known = environ['kodiak.request'] = cls(environ)
        return known

    @property
    def method(self):
        """Its verb."""
        return self.environ['REQUEST_METHOD']

    @method.setter
    def method(self, value):
        self.environ['REQUEST_METHOD'] = value

    @property
    def path(self):
        """Decoded path."""
        if self._path is None:
            raw = self.environ.get('PATH_INFO', '')
            if raw.isascii():
                self._path = raw
            else:
                try:
                    self._path = raw.encode('latin-1').decode('utf-8')
                except UnicodeError:
                    raise Fault(412, 'Invalid UTF8 or contains NULL') from None
        return self._path

    @path.setter
    def path(self, value):
        self._path = value
        self.environ['PATH_INFO'] = to_wsgi(value)
        self.environ.pop('RAW_URI', None)

    @property
    def query(self):
        """Parameters of the query string, the last of each name."""
        if self._query is None:
            text = self.environ.get('QUERY_STRING', '')
            self._query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True, errors='surrogateescape')) if text else {}
        return self._query

    def set_query(self, params):
        """Replace the query string."""
        self._query = dict(params)
        self.environ['QUERY_STRING'] = urllib.parse.urlencode(self._query, errors='surrogateescape')

    def split(self):
        """``(version, account, container, object)``; the later ones None where the path ends; None if it is no such path."""
        parts = self.path.split('/', 4)
        if len(parts) < 3 or parts[0] or not parts[1] or not parts[2]:
            return None
        parts += [''] * (5 - len(parts))
        version, account, container, name = parts[1:]
        if not container and name:
            return None
        return version, account, container or None, name or None

    @property
    def content_length(self):
        """Length of the body; None if it is not told (chunked)."""
        text = self.environ.get('CONTENT_LENGTH')
        if not text:
            return None
        length = natural(text)
        if length is None:
            raise Fault(400, 'Invalid Content-Length')
        return length

    @property
    def chunked(self):
        """Whether the body comes in chunks."""
        return self.environ.get('HTTP_TRANSFER_ENCODING', '').lower() == 'chunked'

    @property
    def input(self):
        """The body as a file."""
        return self.environ['wsgi.input']

    def body(self, limit):
        """The whole body; 413 if it is longer than ``limit``, 499 if it ends early."""
        length = self.content_length
        if length is None:
            if not self.chunked:
                return b''
            data = b''.join(iter_input(self.input, limit + 1))
        else:
            if length > limit:
                raise Fault(413)
            data = b''.join(iter_input(self.input, length))
            if len(data) < length:
                raise Fault(499)
        if len(data) > limit:
            raise Fault(413)
        return data

    def sub(self, method, path, headers=None, body=b'', query=None, authorize=True, source=None, stream=None):
        """A request on behalf of this one.

        :param authorize: False: it may do what it wants; its caller has checked.
        :param stream: a file to read the body from, in place of ``body`` (set Content-Length or Transfer-Encoding too).
        """
        old = self.environ
        environ = {name: old[name] for name in INHERITED if name in old}
        for name in old:
            if name.startswith('kodiak.') and name not in NOT_INHERITED:
                environ[name] = old[name]
        if not authorize:
            environ['kodiak.authorize'] = allow
            environ['kodiak.override'] = True
        if source:
            environ['kodiak.source'] = source
        environ.update({'REQUEST_METHOD': method, 'PATH_INFO': to_wsgi(path), 'SCRIPT_NAME': '', 'QUERY_STRING': '',
                        'wsgi.input': stream or io.BytesIO(body), 'kodiak.sub': True})
        if stream is None and (body or method in ('PUT', 'POST')):
            environ['CONTENT_LENGTH'] = str(len(body))
        request = Request.of(environ)
        if query:
            request.set_query(query)
        if headers:
            request.headers.update(headers)
        return request


def allow(request):
    """An authorization that lets all pass."""


def iter_input(stream, length, size=CHUNK):
    """Pieces of a body of at most ``length`` bytes."""
    while length > 0:
        data = stream.read(min(size, length))
        if not data:
            return
        length -= len(data)
        yield data


class Response:
    """One response: ``status`` (int), ``headers``, ``body`` (bytes or an iterable of bytes)."""

    __slots__ = ('body', 'conditional', 'headers', 'status')

    def __init__(self, status=200, body=b'', headers=None, content_type=None):
        self.status = status
        self.headers = headers if isinstance(headers, HeaderDict) else HeaderDict(headers or ())
        self.body = body
        if content_type:
            self.headers['Content-Type'] = content_type
        if isinstance(body, bytes) and 'Content-Length' not in self.headers:
            self.headers['Content-Length'] = str(len(body))

    @property
    def ok(self):
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    def set_body(self, body):
        """Give it another body, with its length."""
        self.close()
        self.body = body
        self.headers['Content-Length'] = str(len(body))

    def chunks(self):
        """The body's pieces."""
        return (self.body,) if isinstance(self.body, bytes) else self.body

    def read(self, limit=None):
        """The whole body, and the end of the response; 502 if it is longer than ``limit``."""
        if isinstance(self.body, bytes):
            return self.body
        parts, size = [], 0
        try:
            for part in self.body:
                parts.append(part)
                size += len(part)
                if limit is not None and size > limit:
                    raise Fault(502)
        finally:
            self.close()
        self.body = b''.join(parts)
        return self.body

    def close(self):
        """Let go of what the body holds."""
        close = getattr(self.body, 'close', None)
        if close:
            close()

    def drain(self):
        """Read a short body to its end so that its connection can be used again, or let go."""
        length = self.headers.get('Content-Length')
        if isinstance(self.body, bytes):
            return self
        try:
            if length is not None and int(length) < CHUNK:
                for _ in self.body:
                    pass
        finally:
            self.close()
        return self

    def __call__(self, environ, start_response):
        status = self.status
        start_response(f'{status} {REASONS.get(status, "Unknown")}', list(self.headers.items()))
        if environ['REQUEST_METHOD'] == 'HEAD' or status in (204, 304):
            self.close()
            return ()
        return (self.body,) if isinstance(self.body, bytes) else self.body

    @classmethod
    def from_wsgi(cls, application, environ):
        """What a WSGI application answers."""
        told = []

        def start(status, headers, exc_info=None):
            told[:] = [status, headers]
            return lambda data: None
        body = application(environ, start)
        iterator = iter(body)
        if not told:
            try:
                first = next(iterator)
            except StopIteration:
                first = b''
            iterator = _Prepended(first, iterator, body)
        elif hasattr(body, 'close') or not isinstance(body, (list, tuple)):
            iterator = body
        else:
            iterator = b''.join(body)
        answer = cls.__new__(cls)
        answer.status = int(told[0].split(' ', 1)[0])
        answer.headers = HeaderDict(told[1])
        answer.body = iterator
        return answer


class _Prepended:
    def __init__(self, first, rest, source):
        self.first, self.rest, self.source = first, rest, source

    def __iter__(self):
        yield self.first
        yield from self.rest

    def close(self):
        close = getattr(self.source, 'close', None)
        if close:
            close()


PAGE = '<html><h1>{}</h1><p>{}</p></html>'
TEXTS = {
    400: 'The server could not comply with the request since it is either malformed or otherwise incorrect.',
    401: 'This server could not verify that you are authorized to access the document you requested.',
    403: 'Access was denied to this resource.', 404: 'The resource could not be found.',
    405: 'The method is not allowed for this resource.',
    406: 'The resource is not available in a format acceptable to your browser.',
    409: 'There was a conflict when trying to complete your request.', 411: 'Content-Length header required.',
    412: 'A precondition for this request was not met.', 413: 'The body of your request was too large for this server.',
    416: 'The Range requested is not available.', 422: 'Unable to process the contained instructions',
    499: 'The client was disconnected during request.',
    503: 'The server is currently unavailable. Please try again at a later time.',
}


def error(status, message=None, headers=None):
    """An error's response: ``message`` as plain text, or a short page."""
    if message is None:
        text = TEXTS.get(status)
        body = PAGE.format(REASONS.get(status, ''), text).encode() if text else b''
        answer = Response(status, body, headers, content_type='text/html; charset=UTF-8')
    else:
        answer = Response(status, message.encode('utf-8', 'replace'), headers, content_type='text/html; charset=UTF-8')
    return answer


class Filter:
    """Base of the proxy's filters: ``handle(request) -> response``, and a WSGI callable."""

    def __init__(self, application, conf=None):
        self.application = application
        self.conf = conf or {}
        self._next = getattr(application, 'handle', None)

    def next(self, request):
        """What the filters further in answer."""
        if self._next is not None:
            return self._next(request)
        return Response.from_wsgi(self.application, request.environ)

    def handle(self, request):
        """Answer a request."""
        return self.next(request)

    def __call__(self, environ, start_response):
        try:
            answer = self.handle(Request.of(environ))
        except Fault as fault:
            answer = fault.response
        return answer(environ, start_response)


def http_date(timestamp):
    """An HTTP date of seconds since 1970, rounded up as listings and headers show it."""
    return formatdate(timestamp, usegmt=True)


def parse_date(text):
    """Seconds since 1970 of an HTTP date; None if it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def etag_matches(header, etag):
    """Whether an If-Match or If-None-Match header names an etag."""
    for item in header.split(','):
        item = item.strip()
        if item == '*':
            return True
        if item.startswith('W/'):
            item = item[2:]
        if item.strip('"') == etag.strip('"'):
            return True
    return False


def precondition(request, etag, modified):
    """The status that conditional headers lead to: 412, 304, or None where the request goes on.

    :param etag: of the resource as the client sees it, or None if there is no resource. :param modified: seconds since 1970.
    """
    get = request.headers.get
    if (match := get('If-Match')) is not None and (etag is None or not etag_matches(match, etag)):
        return 412
    if (match := get('If-None-Match')) is not None:
        if etag is not None and etag_matches(match, etag):
            return 304 if request.method in ('GET', 'HEAD') else 412
    elif (since := get('If-Modified-Since')) and modified is not None and request.method in ('GET', 'HEAD'):
        moment = parse_date(since)
        if moment is not None and int(modified) <= moment:
            return 304
    if match is None and (since := get('If-Unmodified-Since')) and modified is not None:
        moment = parse_date(since)
        if moment is not None and int(modified) > moment:
            return 412
    return None


def serve(request, response, length, open_range, etag=None):
    """Answer a GET or HEAD conditionally and with its ranges, of a resource whose whole response is ``response``.

    :param length: of the whole body.
    :param open_range: ``function(start, end) -> iterable of bytes`` (end exclusive).
    :param etag: what conditions are compared with, where it is not the response's.
    """
    headers = response.headers
    modified = parse_date(headers.get('Last-Modified', ''))
    etag = etag or headers.get('Etag', '')
    status = precondition(request, etag, modified)
    if status:
        response.close()
        if status == 412:
            answer = error(412)
            for name in ('Etag', 'Last-Modified', 'X-Timestamp'):
                if name in headers:
                    answer.headers[name] = headers[name]
            return answer
        headers.pop('Content-Length', None)
        return Response(304, b'', HeaderDict((k, v) for k, v in headers.items() if not k.startswith('Content-')))
    asked = request.headers.get('Range')
    if asked and (condition := request.headers.get('If-Range')):
        moment = parse_date(condition)
        if moment is not None:
            asked = asked if modified is not None and modified <= moment else None
        elif condition.strip('"') != etag.strip('"'):
            asked = None
    spans = ranges.parse(asked, length) if asked else None
    headers['Accept-Ranges'] = 'bytes'
    if spans is not None and not spans:
        response.close()
        return error(416, headers={'Content-Range': f'bytes */{length}', 'Etag': headers.get('Etag', ''), 'Accept-Ranges': 'bytes',
                                   'Last-Modified': headers.get('Last-Modified', '')})
    if spans is None:
        headers['Content-Length'] = str(length)
        response.body = b'' if request.method == 'HEAD' else open_range(0, length)
        return response
    if len(spans) == 1:
        start, end = spans[0]
        response.status = 206
        headers['Content-Range'] = f'bytes {start}-{end - 1}/{length}'
        headers['Content-Length'] = str(end - start)
        response.body = b'' if request.method == 'HEAD' else open_range(start, end)
        return response
    parts = ranges.Multipart(spans, length, headers.get('Content-Type', 'application/octet-stream'), open_range)
    response.status = 206
    headers['Content-Type'] = parts.content_type
    headers['Content-Length'] = str(parts.length)
    response.body = b'' if request.method == 'HEAD' else parts
    return response
