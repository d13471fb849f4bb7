"""Listings: the servers answer JSON; clients get it as it is, as lines, or as XML."""
import time
import urllib.parse
from xml.sax import saxutils

import orjson

from .http import Fault, HeaderDict, Response

SHAPES = {'json': 'application/json', 'plain': 'text/plain', 'xml': 'application/xml'}
KNOWN = {'application/json': 'json', 'text/plain': 'plain', 'application/xml': 'xml', 'text/xml': 'text/xml'}


def encode(query):
    """A query string for the servers."""
    return urllib.parse.urlencode(query, errors='surrogateescape')


def chosen(request):
    """The content type that the client asks for: by ``format``, or by Accept; 406 for none that there is."""
    asked = request.query.get('format')
    if asked is not None and asked.lower() in SHAPES:
        return SHAPES[asked.lower()]
    if asked is not None:
        return SHAPES['plain']
    accept = request.headers.get('Accept')
    if not accept:
        return SHAPES['plain']
    best = None
    for place, item in enumerate(accept.split(',')):
        kind, *params = (word.strip() for word in item.split(';'))
        weight = 1.0
        for param in params:
            if param.startswith('q='):
                try:
                    weight = float(param[2:])
                except ValueError:
                    raise Fault(406) from None
        if '/' not in kind or weight < 0:
            raise Fault(400, 'Invalid Accept header')
        if kind in ('*/*', 'text/*'):
            kind = 'text/plain'
        elif kind == 'application/*':
            kind = 'application/json'
        if kind in KNOWN and weight > 0 and (best is None or weight > best[0]):
            best = (weight, kind, place)
    if best is None:
        raise Fault(406)
    return best[1]


def response(answer):
    """A :class:`Response` of a server's answer, its body read."""
    body = answer.read()
    headers = HeaderDict((n, v) for n, v in answer.headers.items()
                         if n.startswith('X-') or n in ('Last-Modified',))
    made = Response(answer.status, body, headers)
    return made


def _escape(text):
    return saxutils.escape(text, {'"': '&quot;'})


def to_xml(rows, kind, name):
    """The XML form."""
    lines = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{kind} name={saxutils.quoteattr(name)}>']
    for row in rows:
        if 'subdir' in row:
            lines.append(f'<subdir name={saxutils.quoteattr(row["subdir"])}><name>{_escape(row["subdir"])}</name></subdir>')
            continue
        item = 'container' if kind == 'account' else 'object'
        order = ('name', 'count', 'bytes', 'last_modified', 'storage_policy') if kind == 'account' else (
            'name', 'hash', 'bytes', 'content_type', 'last_modified')
        lines.append(f'<{item}>' + ''.join(f'<{key}>{_escape(str(row[key]))}</{key}>' for key in order if key in row)
                     + f'</{item}>')
    return (''.join(lines) + f'</{kind}>').encode('utf-8', 'surrogateescape')


def _with_policies(request, rows):
    policies = request.environ['kodiak.proxy'].rings.policies
    for row in rows:
        if 'name' in row:
            policy = policies.get(int(row.pop('storage_policy_index', 0)))
            row['storage_policy'] = policy.name if policy else ''
    return rows


def render(request, made, shape, kind, name):
    """The listing in the form asked for."""
    if not made.ok:
        return made
    headers = made.headers
    if 'Last-Modified' not in headers and 'X-Timestamp' in headers and kind == 'container':
        headers['Last-Modified'] = time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(
            -(-float(headers.get('X-Put-Timestamp', headers['X-Timestamp'])) // 1)))
    headers['Accept-Ranges'] = 'bytes'
    headers['Vary'] = 'Accept'
    if request.method == 'HEAD':
        made.status = 204
        made.set_body(b'')
        headers['Content-Type'] = shape + '; charset=utf-8'
        return made
    body = made.body
    if kind == 'account' and shape != 'text/plain':
        body = orjson.dumps(_with_policies(request, orjson.loads(body)))
    made.set_body(body)
    headers['Content-Type'] = 'application/json; charset=utf-8'
    if shape != 'application/json':
        reshape(made, orjson.loads(body), shape, kind, name)
    return made


def reshape(made, rows, shape, kind, name):
    """Let a listing's response be of another content type than JSON."""
    if shape == 'text/plain':
        body = ''.join([(row['name'] if 'name' in row else row['subdir']) + '\n' for row in rows]).encode()
    else:
        body = to_xml(rows, kind, name)
    made.status = 200 if body or shape != 'text/plain' else 204
    made.set_body(body)
    made.headers['Content-Type'] = shape + '; charset=utf-8'
