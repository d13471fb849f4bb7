"""What an endpoint says about itself, and the collection that its module declares it in."""
import dataclasses
import functools
import re
import typing

from .schema import Query, Validator

PARAMETER = re.compile(r'{(\w+)(?::(\w+))?}')


@dataclasses.dataclass(frozen=True, eq=False)
class Endpoint:
    """One method of one path (and, for Nova's actions, one key of the body).

    :param method: ``GET``, ``POST`` and so on. GET answers HEAD as well.
    :param path: below the API's prefix, with ``{name}`` parameters (``{name:path}`` spans slashes).
    :param rule: the policy rule that is checked before the handler runs; None only with ``public``.
    :param check: the rule's default check string.
    :param load: ``function(req, **path parameters) -> mapping``: finds the target. It raises ``NotFound`` where the
        caller may not know that it exists; the rule is then checked against it and it stands in ``req.target``. Without
        it the rule is checked against the caller's own ids.
    :param late: True where the handler itself checks ``rule`` with ``req.authorize(target)`` (the target
        is in the body, or the answer depends on it). The handler must do so on every way through it.
    :param body: JSON Schema of the request's body; None: no body is read.
    :param query: JSON Schema properties of the query string; None: any query is accepted and ignored.
    :param response: JSON Schema of the response's body; None: no body, or not JSON.
    :param status: status of success.
    :param since: first microversion that has it, as a tuple; :param until: the last.
    :param action: key of an action's body (``{"reboot": ...}``).
    :param public: True for what needs no token (version documents, login).
    :param raw: True where the handler reads the body itself as a stream.
    :param media: media types of the body of which the request must name one (415 otherwise); any is taken if empty.
    """

    method: str
    path: str
    handler: typing.Callable
    rule: str | None
    check: str | None
    load: typing.Callable | None = None
    late: bool = False
    body: dict | None = None
    query: dict | None = None
    strict_query: bool = False
    response: dict | None = None
    status: int = 200
    since: tuple | None = None
    until: tuple | None = None
    action: str | None = None
    public: bool = False
    raw: bool = False
    media: tuple = ()
    optional_body: bool = False
    summary: str = ''
    tag: str = ''

    def serves(self, version):
        """True if a request at ``version`` (a tuple, or None where there are no microversions) is for this."""
        if version is None:
            return True
        return not ((self.since and version < self.since) or (self.until and version > self.until))

    @functools.cached_property
    def check_body(self):
        """The validator of the body."""
        return Validator(self.body)

    @functools.cached_property
    def check_query(self):
        """The parser of the query string."""
        return Query(self.query or {}, self.strict_query)

    @functools.cached_property
    def check_response(self):
        """The validator of the response."""
        return Validator(self.response)

    @property
    def parameters(self):
        """Names of the path's parameters."""
        return [name for name, _ in PARAMETER.findall(self.path)]

    @property
    def werkzeug_path(self):
        """The path in Flask's notation."""
        return PARAMETER.sub(lambda m: f'<{m[2]}:{m[1]}>' if m[2] else f'<{m[1]}>', self.path) or '/'

    @functools.cached_property
    def openapi_path(self):
        """The path in OpenAPI's notation."""
        return PARAMETER.sub(lambda m: f'{{{m[1]}}}', self.path) or '/'


class Routes:
    """The endpoints of one module.

    :param tag: the resource's name, which groups its endpoints in the API reference.
    :param prefix: path in front of all of them.
    """

    def __init__(self, tag, prefix=''):
        self.tag = tag
        self.prefix = prefix
        self.endpoints = []

    def add(self, method, path, *, rule=None, default=None, since=None, until=None, **declared):
        """Declare the decorated function as the handler of ``method path``; see :class:`Endpoint`."""
        if not declared.get('public') and (rule is None or default is None):
            raise TypeError(f'{method} {path} declares neither a policy rule with its default nor that it is public')

        def decorate(handler):
            self.endpoints.append(Endpoint(
                method=method, path=self.prefix + path, handler=handler, rule=rule, check=default,
                since=_version(since), until=_version(until), tag=self.tag, **declared))
            return handler
        return decorate

    def get(self, path, **declared):
        """Declare a GET."""
        return self.add('GET', path, **declared)

    def post(self, path, **declared):
        """Declare a POST."""
        return self.add('POST', path, **declared)

    def put(self, path, **declared):
        """Declare a PUT."""
        return self.add('PUT', path, **declared)

    def patch(self, path, **declared):
        """Declare a PATCH."""
        return self.add('PATCH', path, **declared)

    def delete(self, path, **declared):
        """Declare a DELETE; its status is 204 unless said otherwise."""
        declared.setdefault('status', 204)
        return self.add('DELETE', path, **declared)


def _version(text):
    if text is None or isinstance(text, tuple):
        return text
    major, minor = text.split('.')
    return int(major), int(minor)

