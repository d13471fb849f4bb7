"""GetObjectAttributes: what is known of an object, and of the parts that it was uploaded in."""
import orjson

from kodiak.common.numbers import natural

from ..proxy.http import parse_date
from . import checksums, sse
from .errors import S3Error
from .etags import shown_etag
from .xml import document, http_date, tag

NAMES = ('ETag', 'Checksum', 'ObjectParts', 'StorageClass', 'ObjectSize')
MOST = 1000


def attributes(api, call):
    """Answer GET ?attributes."""
    if call.request.method != 'GET':
        raise S3Error('MethodNotAllowed', Method=call.request.method, ResourceType='OBJECT')
    wanted = [word.strip() for word in call.request.headers.get('X-Amz-Object-Attributes', '').split(',') if word.strip()]
    if not wanted or set(wanted) - set(NAMES):
        raise S3Error('InvalidArgument', 'Invalid attribute name specified.', ArgumentName='x-amz-object-attributes',
                      ArgumentValue=','.join(wanted))
    version = api.objects.version(call)
    sse.of_read(api, call)
    found = api.objects.existing(call, version)
    sse.prove(found.headers, call.customer_key)
    known, text = checksums.known(found.headers), ''
    if 'ETag' in wanted:
        text += tag('ETag', shown_etag(found))
    if 'Checksum' in wanted and known:
        text += f'<Checksum>{tag(checksums.element(known[0]), known[1])}{tag("ChecksumType", known[2])}</Checksum>'
    if 'ObjectParts' in wanted and '-' in shown_etag(found):
        text += _parts(api, call, version, known)
    if 'StorageClass' in wanted:
        text += tag('StorageClass', 'STANDARD')
    if 'ObjectSize' in wanted:
        text += tag('ObjectSize', found.headers.get('Content-Length', '0'))
    made = document('GetObjectAttributesResponse', text)
    made.headers['Last-Modified'] = http_date(parse_date(found.headers.get('Last-Modified', '')) or 0)
    made.headers.update(api.objects.version_header(call, found))
    return made


def _number(call, name, most):
    text = call.request.headers.get(name)
    if text is None:
        return None
    number = natural(text)
    if number is None or number > 1 << 31:
        raise S3Error('InvalidArgument', f'Provided {name.lower()} not an integer or within integer range',
                      ArgumentName=name.lower(), ArgumentValue=text)
    return min(number, most)


def _parts(api, call, version, known):
    after, limit = _number(call, 'X-Amz-Part-Number-Marker', 10000) or 0, _number(call, 'X-Amz-Max-Parts', MOST)
    limit = MOST if limit is None else limit
    rows = _manifest(api, call, version)
    shown = [(number, row) for number, row in enumerate(rows, 1) if number > after]
    more, shown = len(shown) > limit, shown[:limit]
    text = ''
    for number, row in shown:
        part = sum_of_part(api, call, row) if known else None
        text += f'<Part>{tag("PartNumber", number)}{tag("Size", row["bytes"])}' + (
            tag(checksums.element(part[0]), part[1]) if part else '') + '</Part>'
    return (f'<ObjectParts>{tag("PartsCount", len(rows))}{tag("PartNumberMarker", after)}'
            + tag('NextPartNumberMarker', shown[-1][0] if shown else after) + tag('MaxParts', limit)
            + tag('IsTruncated', str(more).lower()) + text + '</ObjectParts>')


def sum_of_part(api, call, row):
    """The checksum of a row of a manifest, as :func:`.checksums.known` gives it."""
    return checksums.known(api.ask(call, 'HEAD', row['name'], authorize=False).drain().headers)


def part_of(api, call, version, number):
    """The row of a manifest for the part of a number."""
    return _manifest(api, call, version)[number - 1]


def _manifest(api, call, version):
    query = {'multipart-manifest': 'get', **({'version-id': version} if version and version != 'null' else {})}
    path = f'/{call.bucket}/{call.key}'
    return orjson.loads(api.good(api.ask(call, 'GET', path, query=query, authorize=False), path).read())
