"""S3's XML: answers made, requests parsed, moments and names as S3 writes them."""
import calendar
import time
from email.utils import formatdate
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from kodiak.common.numbers import natural

from ..proxy.http import Response, parse_date
from .errors import S3Error

XMLNS = 'http://s3.amazonaws.com/doc/2006-03-01/'
XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def document(root, body, status=200, named=True):
    """An XML answer. ``named``: whether it is in S3's namespace."""
    space = f' xmlns="{XMLNS}"' if named else ''
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{space}>{body}</{root}>'
    return Response(status, text.encode('utf-8', 'replace'), content_type='application/xml')


def parse_xml(data, root=None):
    """A request's XML without its namespaces; it may have no DTD, so no entities. ``root``: the name that it must have."""
    # (NUL: in an encoding in which these words would look otherwise)
    if b'<!DOCTYPE' in data or b'<!ENTITY' in data or b'\0' in data:
        raise S3Error('MalformedXML')
    try:
        found = ElementTree.fromstring(data)     # noqa: S314 (no DTD gets here)
    except (ElementTree.ParseError, ValueError):
        raise S3Error('MalformedXML') from None
    for element in found.iter():
        element.tag = element.tag.rpartition('}')[2]
    if root is not None and found.tag != root:
        raise S3Error('MalformedXML')
    return found


def tag(name, value):
    """One element with text."""
    return f'<{name}>{escape(str(value))}</{name}>'


def moment_of_row(row):
    """Seconds since 1970 of a row of a listing."""
    return calendar.timegm(time.strptime(row['last_modified'][:19], '%Y-%m-%dT%H:%M:%S'))


def listed(row):
    """When a row of a listing was changed: whole seconds, rounded up as the object's own header is."""
    moment, _, rest = row['last_modified'].partition('.')
    seconds = calendar.timegm(time.strptime(moment, '%Y-%m-%dT%H:%M:%S'))
    return iso(seconds + bool(rest.strip('0')))


def modified(answer):
    """When a copy was made."""
    return iso(parse_date(answer.headers.get('Last-Modified', '')) or time.time())


def http_date(moment):
    """A moment as HTTP writes it."""
    return formatdate(moment, usegmt=True)


def iso(moment):
    """A moment as S3 writes it."""
    return time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(moment))


def moment_of(text):
    """Seconds since 1970 of an ISO moment or an HTTP date; None if it is none."""
    for form in ('%Y-%m-%dT%H:%M:%SZ', '%Y-%m-%d'):
        try:
            return calendar.timegm(time.strptime(_without_fraction(text), form))
        except ValueError:
            continue
    return parse_date(text)


def _without_fraction(text):
    head, dot, rest = text.partition('.')
    return head + 'Z' if dot and natural(rest.rstrip('Z')) is not None else text
