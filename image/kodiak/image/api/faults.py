"""The fault shape: an HTML page, or ``{"message", "code", "title"}`` for those who prefer JSON, or a line of text."""
import html

import orjson

from kodiak.common.api import schema

#: Of a fault in JSON.
SCHEMA = schema.obj({'message': schema.STRING, 'code': schema.STRING, 'title': schema.STRING}, ['message', 'code', 'title'])
PAGE = ('<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n  {message}<br /><br />\n\n\n\n'
        ' </body>\n</html>')


def _quality(accept, wanted):
    """How much a client wants a media type, from its Accept header: 0 to 1."""
    best = (-1, 0.0)
    for part in accept.split(','):
        name, *parameters = (piece.strip() for piece in part.split(';'))
        precision = {wanted: 2, wanted.split('/')[0] + '/*': 1, '*/*': 0}.get(name.lower())
        if precision is None or precision < best[0]:
            continue
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith('q='):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        best = (precision, quality)
    return best[1]


def fault(error, request_id, accept):
    """``(body, media type)`` of an error."""
    status = f'{error.code} {error.title}'
    page, data = (_quality(accept, 'text/html'), _quality(accept, 'application/json')) if accept else (1.0, 0.0)
    if data > page:
        return orjson.dumps({'message': error.message, 'code': status, 'title': error.title}), 'application/json; charset=UTF-8'
    if page:
        return PAGE.format(status=status, message=html.escape(error.message)).encode(), 'text/html; charset=UTF-8'
    return f'{status}\n\n{error.message}\n\n'.encode(), 'text/plain; charset=UTF-8'
