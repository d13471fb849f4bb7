"""Placement's fault shape: a list of errors with status, title, detail, code and request id."""
import orjson

from kodiak.common import errors


def body(error, request_id, accept):
    """The body and media type of an :class:`kodiak.common.errors.Error`."""
    code = error.kind if error.kind.startswith('placement.') else 'placement.undefined_code'
    message = error.message
    if error.kind == 'ValidationError':
        message = (f"JSON does not validate: {error.detail['message']}\n\nFailed validating '{error.detail['validator']}' in schema"
                   f" on {error.detail['field'] or 'the body'}")
    fault = {'status': error.code, 'title': error.title, 'detail': f'{_explained(error)}\n\n {message}  ',
             'request_id': request_id, 'code': code}
    if isinstance(error, errors.NotAcceptable) and error.detail:
        fault['min_version'], fault['max_version'] = error.detail['min_version'], error.detail['max_version']
        fault['links'] = [{'rel': 'help', 'href': 'https://docs.openstack.org/api-ref/placement/'}]
    return orjson.dumps({'errors': [fault]}), 'application/json'


def _explained(error):
    return {
        400: 'The server could not comply with the request since it is either malformed or otherwise incorrect.',
        403: 'Access was denied to this resource.',
        404: 'The resource could not be found.',
        409: 'There was a conflict when trying to complete your request.',
    }.get(error.code, error.title + '.')
