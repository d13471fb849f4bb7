"""Tags of objects and buckets."""
import urllib.parse

from ..proxy.http import from_wsgi, to_wsgi
from .errors import S3Error
from .xml import document, parse_xml, tag

HEADER = 'X-Object-Transient-Sysmeta-S3Api-Tags'
LIMIT = 8000


def _checked(pairs, most):
    if len(pairs) > most:
        raise S3Error('BadRequest', f'Object tags cannot be greater than {most}')
    if len({key for key, _ in pairs}) != len(pairs):
        raise S3Error('InvalidTag', 'Cannot provide multiple Tags with the same key')
    for key, value in pairs:
        if not 0 < len(key) <= 128:
            raise S3Error('InvalidTag', 'The TagKey you have provided is invalid')
        if len(value) > 256:
            raise S3Error('InvalidTag', 'The TagValue you have provided is invalid')
        if key.startswith('aws:'):
            raise S3Error('InvalidTag', 'System tags cannot be added/updated by requester')
    return pairs


def of_xml(data, most=10):
    """``[(key, value)]`` of a ``Tagging``."""
    tags = parse_xml(data, 'Tagging').find('TagSet')
    if tags is None or any(e.tag != 'Tag' or e.find('Key') is None or e.find('Value') is None for e in tags):
        raise S3Error('MalformedXML')
    return _checked([(e.findtext('Key'), e.findtext('Value')) for e in tags], most)


def of_header(text):
    """``[(key, value)]`` of an x-amz-tagging header."""
    try:
        words = [word if '=' in word else word + '=' for word in text.split('&')] if text else []
        pairs = urllib.parse.parse_qsl('&'.join(words), keep_blank_values=True, strict_parsing=True) if words else []
    except ValueError:
        raise S3Error('InvalidArgument', "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
                                         'parameters without tag name duplicates.', ArgumentName='x-amz-tagging',
                      ArgumentValue=text) from None
    return _checked(pairs, 10)


def store(pairs):
    """As the header of system metadata."""
    text = to_wsgi('&'.join(f'{_safe(key)}={_safe(value)}' for key, value in pairs))
    if len(text) > LIMIT:
        raise S3Error('InvalidTag', 'The tags are too long together')
    return text


def _safe(text):
    # Only what would be taken for something else is encoded: a header has little room.
    return ''.join(f'%{ord(c):02X}' if c in '%&=+ ' or ord(c) < 32 or ord(c) == 127 else c for c in text)


def stored(headers):
    """``[(key, value)]`` of an object's headers."""
    text = headers.get(HEADER)
    return urllib.parse.parse_qsl(from_wsgi(text), keep_blank_values=True) if text else []


def render(pairs):
    """The ``Tagging``, by keys."""
    rows = ''.join(f'<Tag>{tag("Key", key)}{tag("Value", value)}</Tag>' for key, value in sorted(pairs))
    return document('Tagging', f'<TagSet>{rows}</TagSet>')
