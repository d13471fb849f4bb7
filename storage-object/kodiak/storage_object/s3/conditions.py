"""Conditions of S3's requests: of what is written, copied and deleted. (Those of reading are the Swift API's.)

What is written under a condition is judged by what is there; what comes between the look and the write has the servers refuse it
(``X-Backend-If-Not-After``, the timestamp of what was judged).
"""
from ..middleware.versioning import MARKER
from ..proxy.http import parse_date
from .errors import S3Error
from .etags import shown_etag
from .xml import moment_of

NAMES = ('If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since')
GUARD = 'X-Backend-If-Not-After'
SOURCE = 'X-Amz-Copy-Source-'


def _has(value, etag):
    return any(word.strip().strip('"') in (etag, '*') for word in value.split(','))


def of_source(get, found):
    """PreconditionFailed unless what is copied is what the request says. ``get``: of its headers; ``found``: the source's HEAD.

    Where both of a pair are given, the etag decides: If-Match that holds against If-Unmodified-Since that does not, If-None-Match
    that does not hold against If-Modified-Since that does.
    """
    etag, changed = shown_etag(found), parse_date(found.headers.get('Last-Modified', '')) or 0
    match, none, since, until = (get(SOURCE + name) for name in NAMES)
    if match is not None:
        if not _has(match, etag):
            raise S3Error('PreconditionFailed', Condition=SOURCE + 'If-Match')
    elif until is not None and changed > (parse_date(until) or 0):
        raise S3Error('PreconditionFailed', Condition=SOURCE + 'If-Unmodified-Since')
    if none is not None and _has(none, etag):
        raise S3Error('PreconditionFailed', Condition=SOURCE + 'If-None-Match')
    if since is not None and changed <= (parse_date(since) or 0):
        raise S3Error('PreconditionFailed', Condition=SOURCE + 'If-Modified-Since')


def of_put(api, call, headers):
    """Judge the conditions of a write, and have the servers keep to them. ``headers``: of its request of the Swift API."""
    get = call.request.headers.get
    match, none, since, until = (get(name) for name in NAMES)
    for name, value in (('If-Modified-Since', since), ('If-Unmodified-Since', until)):
        if value is not None:
            raise S3Error('NotImplemented', Header=name)
    if none == '*' and match is None:
        headers['If-None-Match'] = '*'
        return
    if none is None and match is None:
        return
    found = _newest(api, call, call.key)
    if match is not None:
        if found is None:
            raise S3Error('NoSuchKey', Key=call.key)
        if not _has(match, shown_etag(found)):
            raise S3Error('PreconditionFailed', Condition='If-Match')
    if found is None:
        headers['If-None-Match'] = '*'
        return
    if none is not None and _has(none, shown_etag(found)):
        raise S3Error('PreconditionFailed', Condition='If-None-Match')
    headers.update(_guard(found))


def _guard(found):
    stamp = found.headers.get('X-Backend-Name-Timestamp') or found.headers.get('X-Backend-Data-Timestamp')
    return {GUARD: stamp} if stamp else {}


def _newest(api, call, key, version=None):
    query = {'version-id': version} if version else None
    answer = api.ask(call, 'HEAD', f'/{call.bucket}/{key}', {'X-Newest': 'true'}, query=query, authorize=False).drain()
    if answer.status == 404:
        return None
    return api.good(answer, f'/{call.bucket}/{key}')


def of_delete(get):
    """The conditions of a deletion: ``{'etag', 'modified', 'size'}``, those that there are. ``get``: of its headers."""
    given = {'etag': get('If-Match'), 'modified': get('X-Amz-If-Match-Last-Modified-Time'), 'size': get('X-Amz-If-Match-Size')}
    return {name: value for name, value in given.items() if value is not None}


def judge(api, call, key, version, wanted):
    """PreconditionFailed unless what is to be deleted is as ``wanted`` (of :func:`of_delete`); the headers that guard it.

    None where there is nothing to delete.
    """
    if not wanted:
        return {}
    found = _newest(api, call, key, version)
    if found is None:
        # What is not there is deleted already; a mark of a deletion is there, and has neither etag nor size.
        newest = None if version else next(iter(api.versions(call, key)), None)
        if newest is not None and newest['content_type'] == MARKER and wanted != {'etag': '*'}:
            raise S3Error('PreconditionFailed')
        return None if newest is None else {}
    good = 'etag' not in wanted or _has(wanted['etag'], shown_etag(found))
    if 'modified' in wanted:
        moment = moment_of(wanted['modified'])
        good = good and moment is not None and moment == parse_date(found.headers.get('Last-Modified', ''))
    if 'size' in wanted:
        good = good and wanted['size'] == found.headers.get('Content-Length')
    if not good:
        raise S3Error('PreconditionFailed')
    return _guard(found)
