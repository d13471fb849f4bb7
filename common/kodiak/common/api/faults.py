"""The fault shape that Nova and Cinder share: one object named after its kind, with code and message."""
import orjson

KINDS = {400: 'badRequest', 401: 'unauthorized', 403: 'forbidden', 404: 'itemNotFound', 405: 'badMethod',
         409: 'conflictingRequest', 413: 'overLimit', 415: 'badMediaType', 429: 'overLimit', 501: 'notImplemented',
         503: 'serviceUnavailable'}


def body(error, request_id, accept):
    """The body and media type of an :class:`kodiak.common.errors.Error`."""
    fault = {'code': error.code, 'message': error.message}
    if error.code in (413, 429) and 'Retry-After' in error.headers:
        fault['retryAfter'] = error.headers['Retry-After']
    return orjson.dumps({KINDS.get(error.code, 'computeFault'): fault}), 'application/json'
