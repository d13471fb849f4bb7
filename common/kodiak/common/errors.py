"""Errors that know their HTTP status, their fault's name and the sentence that the user reads.

A handler raises one of these and never builds an error response itself: the service's fault shape
(``kodiak.<service>.api.faults``) turns it into a body. Anything else that is raised is a defect, is
logged with its traceback and answers 500 with no detail.
"""


class Error(Exception):
    """Base of every error that may reach a user.

    :param message: a sentence for the user: what was wrong and, where it helps, what to do next.
    :param kind: the fault's own name where a service has one (``NetworkNotFound``,
        ``placement.concurrent_update``); the class name is used otherwise.
    :param headers: extra response headers (``Retry-After``, ``WWW-Authenticate``).
    :param detail: data for the fault shape (a dict), where the API has more to say than a sentence.
    """

    code = 500
    title = 'Internal Server Error'
    default = 'An unexpected error stopped the request. Give the operator its request id.'

    def __init__(self, message=None, *, kind=None, headers=None, detail=None):
        self.message = message or self.default
        self.kind = kind or type(self).__name__
        self.headers = headers or {}
        self.detail = detail
        super().__init__(self.message)


class BadRequest(Error):
    code = 400
    title = 'Bad Request'
    default = 'The request is malformed.'


class Unauthorized(Error):
    code = 401
    title = 'Unauthorized'
    default = 'The request you have made requires authentication.'


class Forbidden(Error):
    code = 403
    title = 'Forbidden'
    default = 'You are not allowed to do this.'


class PolicyForbidden(Forbidden):
    """The policy rule of the route, or of a field in the request, says no."""

    def __init__(self, rule):
        super().__init__(f"Policy doesn't allow {rule} to be performed.", kind='PolicyNotAuthorized')
        self.rule = rule


class QuotaExceeded(Forbidden):
    """A quota is used up. Services whose API says 413 or 409 set ``code`` on the instance."""

    title = 'Forbidden'
    default = 'Quota exceeded. Delete something, or ask the operator for more.'


class NotFound(Error):
    code = 404
    title = 'Not Found'
    default = 'The resource could not be found.'
    #: True: everybody may know that it isn't there, even where an API says 403 instead (``Api.forbid_unknown``)
    told = False


class MethodNotAllowed(Error):
    code = 405
    title = 'Method Not Allowed'
    default = 'The method is not allowed for this resource.'


class NotAcceptable(Error):
    code = 406
    title = 'Not Acceptable'
    default = 'No representation of this resource fits the request.'


class Conflict(Error):
    code = 409
    title = 'Conflict'
    default = 'The request conflicts with the state of the resource.'


class Gone(Error):
    code = 410
    title = 'Gone'
    default = 'The resource is no longer here.'


class PreconditionFailed(Error):
    code = 412
    title = 'Precondition Failed'
    default = 'A precondition of the request does not hold.'


class RequestTooLarge(Error):
    code = 413
    title = 'Request Entity Too Large'
    default = 'The request is larger than this service accepts.'


class UnsupportedMediaType(Error):
    code = 415
    title = 'Unsupported Media Type'
    default = 'The content type of the request is not supported here.'


class RangeNotSatisfiable(Error):
    code = 416
    title = 'Requested Range Not Satisfiable'
    default = 'The range lies outside the data.'


class Unprocessable(Error):
    code = 422
    title = 'Unprocessable Entity'
    default = 'The request is understood but cannot be carried out.'


class TooManyRequests(Error):
    code = 429
    title = 'Too Many Requests'
    default = 'Too many requests. Wait and try again.'


class NotImplementedHere(Error):
    code = 501
    title = 'Not Implemented'
    default = 'This cloud does not offer that.'


class BadGateway(Error):
    code = 502
    title = 'Bad Gateway'
    default = 'Another service gave an answer that makes no sense.'


class Unavailable(Error):
    code = 503
    title = 'Service Unavailable'
    default = 'The service cannot answer now. Try again.'


class InsufficientStorage(Error):
    code = 507
    title = 'Insufficient Storage'
    default = 'There is no room left for this data.'


def from_status(code, message=None):
    """The error class of an HTTP status, as an instance; for translating framework errors."""
    for cls in Error.__subclasses__():
        if cls.__module__ == __name__ and cls.code == code:
            return cls(message)
    error = Error(message)
    error.code = code
    return error


def to_dict(error):
    """An error as JSON, to be kept in a row or sent to another process; see :func:`from_dict`.

    What is not an :class:`Error` is reduced to a sentence without its details, which belong in the log.
    """
    if isinstance(error, Error):
        return {'code': error.code, 'kind': error.kind, 'message': error.message, 'detail': error.detail}
    return {'code': Error.code, 'kind': type(error).__name__, 'message': Error.default, 'detail': None}


def from_dict(values):
    """The error that :func:`to_dict` wrote: the class of its status, with its kind, message and detail."""
    error = from_status(values.get('code', Error.code), values.get('message'))
    error.kind = values.get('kind') or error.kind
    error.detail = values.get('detail')
    return error


def transient(error):
    """True if what failed may well succeed when it is tried again: a lost connection, a lost race, a 5xx."""
    if isinstance(error, Error):
        return error.code in {429, 500, 502, 503, 504} and not getattr(error, 'final', False)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    origin = type(error).__module__.partition('.')[0]
    if origin == 'sqlalchemy':
        from sqlalchemy import exc
        return isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)) \
            or getattr(error, 'connection_invalidated', False)
    if origin == 'keystoneauth1':
        from keystoneauth1 import exceptions
        return isinstance(error, (exceptions.ConnectionError, exceptions.HttpServerError, exceptions.RetriableConnectionFailure))
    return False
