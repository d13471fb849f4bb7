"""The data of images: up and down."""
import functools
import logging
import re

from kodiak.common import api, errors, outbox
from kodiak.common.api import schema as schemas

from .. import formats, notices, signatures, uploads
from ..drivers import base
from . import rules
from .images import load

LOG = logging.getLogger(__name__)
routes = api.Routes('Image data', prefix='/v2/images/{image_id}')
PIECE = 1 << 20
BYTES = 'application/octet-stream'


def announced(req):
    """The size of the body in bytes, from ``x-openstack-image-size`` or Content-Length, or None."""
    text = req.http.headers.get('x-openstack-image-size')
    if text is None:
        return req.http.content_length
    number = schemas.natural(text)
    if number is None:
        raise errors.BadRequest(f"Invalid value '{text[:40]}' for the header x-openstack-image-size: it must be a number of bytes.")
    return number


def body(req):
    """``read(size)`` of the request's body, which gives up a client that sends nothing for too long."""
    connection = req.http.environ.get('gunicorn.socket')
    if connection is not None:
        connection.settimeout(req.app.conf.limits.stalled_upload)
        from kodiak.common import gunicorn_server
        read = gunicorn_server.direct_reader(req.http.environ)
        if read is not None:
            return read
    return req.stream().read


def release(req):
    """The connection waits again as its server has it."""
    connection = req.http.environ.get('gunicorn.socket')
    if connection is not None:
        connection.settimeout(None)


def check_formats_set(image):
    """``BadRequest`` where the image does not say yet what its data is."""
    missing = [name for name in ('disk_format', 'container_format') if not image[name]]
    if missing:
        raise errors.BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")


@routes.put('/file', rule='upload_image', default=rules.PROJECT_MEMBER, load=load, raw=True, media=(BYTES,), status=204,
            summary='Upload the data of an image')
def upload_image(req, image_id):
    image, conf = req.target, req.app.conf
    store = req.app.extra['stores'].writable(req.http.headers.get('X-Image-Meta-Store'))
    expected = announced(req)
    if image['status'] != 'queued':
        raise errors.Conflict(f"Image status transition from {image['status']} to saving is not allowed")
    check_formats_set(image)
    inspector = formats.Inspector(image['disk_format'], image['container_format'], conf.formats.enforce)
    checker = signatures.verifier(req.app, req.ctx, image['properties'])
    if checker is not None:
        inspector = signatures.Checked(inspector, checker)
    try:
        uploads.Upload(req.app, image, store).run(body(req), inspector, expected)
    finally:
        release(req)


def _range(header, size):
    """``(first, last)`` of a Range header with one range, or None where all is to be sent."""
    match = re.fullmatch(r'\s*bytes\s*=\s*([0-9]{0,19})\s*-\s*([0-9]{0,19})\s*', header)
    if not match or not (match[1] or match[2]):
        if re.match(r'\s*bytes\s*=', header) and ',' in header:
            raise errors.BadRequest('Requests with multiple ranges are not supported in Glance. Please make multiple '
                                    'single-range requests instead.')
        raise errors.RangeNotSatisfiable(f"The range '{header[:80]}' makes no sense.",
                                         headers={'Content-Range': f'bytes */{size}'})
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
    if first >= size or last < first:
        raise errors.RangeNotSatisfiable(f'The range lies outside of the {size} bytes of the image.',
                                         headers={'Content-Range': f'bytes */{size}'})
    return first, last


class Pieces:
    """A part of a file as an iterable, for servers that cannot hand the file to the kernel, and files that have none.

    :param length: bytes, or None for all that there are.
    """

    def __init__(self, file, length):
        self.file = file
        self.left = length

    def __iter__(self):
        return self

    def __next__(self):
        data = self.file.read(PIECE if self.left is None else min(PIECE, self.left)) if self.left != 0 else b''
        if not data:
            raise StopIteration
        if self.left is not None:
            self.left -= len(data)
        return data

    def close(self):
        """Let go of the file."""
        self.file.close()


class Told(Pieces):
    """Pieces of an image of which is told, in the end, how many bytes were sent to whom (``image.send``)."""

    def __init__(self, file, length, req):
        super().__init__(file, length)
        # The server reads and closes this when the request's own context is over.
        self.tell = functools.partial(req.db.transact, notices.sent, req.target, length, req.ctx,
                                      req.http.environ.get('REMOTE_ADDR'))
        self._sent = self._last = 0

    def __next__(self):
        # Whoever asks for a piece has sent the one before.
        self._sent, self._last = self._sent + self._last, 0
        data = super().__next__()
        self._last = len(data)
        return data

    def close(self):
        """Let go of the file, and tell."""
        super().close()
        self.tell(self._sent)


class Reading:
    """The data of an image from ``offset`` on, from the first of its locations that has it; where one breaks off, from the next.

    :param end: where the data ends, or None where nobody knows. :raises Unavailable: there is no location left.
    """

    def __init__(self, stores, image, locations, offset, end):
        self.stores, self.image, self.offset, self.end = stores, image, offset, end
        self._locations = iter(locations)
        self._failed = None
        self.file = None
        self._next()

    def _next(self):
        for location in self._locations:
            try:
                self.file = self.stores[location['store']].open(location['blob'] or location['url'], self.offset)
                return
            except (base.NoSuchData, base.StoreUnavailable, OSError) as error:
                self._fail(location['store'], error)
        raise errors.Unavailable(f"The data of image {self.image['id']} cannot be read now." if self._failed else
                                 f"The data of image {self.image['id']} lies in no store of this service.")

    def _fail(self, store_id, error):
        self._failed = error
        LOG.warning('Image %s cannot be read from the store %s at byte %d: %s', self.image['id'], store_id, self.offset, error)

    def read(self, size):
        """The next piece; b'' at the end."""
        while True:
            try:
                data, error = self.file.read(size), 'it ends there'
                if data or self.end in (None, self.offset):
                    self.offset += len(data)
                    return data
            except (base.StoreUnavailable, errors.Error, OSError) as broken:
                error = broken
            self._fail('that it came from', error)
            self.file.close()
            self._next()

    def close(self):
        """Let go of the data."""
        self.file.close()


def locate(req, image, offset, length):
    """The data of an image from ``offset`` on, as an open file, from the cache or its locations.

    :param length: how much is going to be read, or None for all.
    """
    stores = req.app.extra['stores']
    preferred = [part for part in (req.query.get('prefer') or '').split(',') if part]
    if preferred:
        unknown = [store_id for store_id in preferred if store_id not in stores.by_id]
        if unknown:
            raise errors.BadRequest(f"There is no store '{unknown[0][:80]}'.")
        req.authorize(image, 'download_from_store')
    cache = req.app.extra['cache']
    cached = cache.open(image, offset) if cache else None
    if cached is not None:
        return cached
    found = Reading(stores, image, stores.ordered(image['locations'], preferred), offset, length and offset + length)
    # What lies on a disk here goes to the socket without passing through this process, and needs no copy beside it. A part
    # of an image is not worth keeping.
    if hasattr(found.file, 'fileno'):
        return found.file
    return cache.keep(found, image) if length == image['size'] else found


@routes.get('/file', rule='download_image', default=rules.DOWNLOAD, load=load,
            query={'prefer': {'type': 'string'}}, summary='Download the data of an image')
def download_image(req, image_id):
    image, headers = req.target, req.http.headers
    if image['status'] == 'deactivated' and not req.ctx.is_admin:
        raise errors.Forbidden('The requested image has been deactivated. Image data download is forbidden.')
    if not image['locations'] or image['status'] not in ('active', 'deactivated'):
        return api.Response(status=204)
    size, checksum = image['size'], image['checksum']
    found = [('Accept-Ranges', 'bytes')]
    etag = f'"{checksum}"' if checksum else None
    if etag:
        found.append(('ETag', etag))
        if etag in headers.get('If-None-Match', '') or headers.get('If-None-Match') == '*':
            return api.Response(status=304, headers=found)
        if etag not in headers.get('If-Match', etag) and headers['If-Match'] != '*':
            raise errors.PreconditionFailed('The data of the image is not what If-Match names.')
    if size is None:
        # The server of the only location doesn't say how much it is.
        return api.Response(_pieces(req, locate(req, image, 0, None), None), headers=found[1:], media_type=BYTES)
    wanted, status = (0, size - 1), 200
    # Old clients of this API ask by the header that belongs to the answer.
    asked = headers.get('Range') or re.sub(r'^\s*bytes\s+([0-9]+-[0-9]+)/.*', r'bytes=\1', headers.get('Content-Range', ''))
    if asked and (headers.get('If-Range') in (None, etag)):
        wanted, status = _range(asked, size), 206
        found.append(('Content-Range', f'bytes {wanted[0]}-{wanted[1]}/{size}'))
    elif checksum:
        found.append(('Content-MD5', checksum))
    length = wanted[1] - wanted[0] + 1
    file = locate(req, image, wanted[0], length)
    found.append(('Content-Length', str(length)))
    return api.Response(_pieces(req, file, length), status=status, headers=found, media_type=BYTES)


def _pieces(req, file, length):
    """What the server sends of a file: ``length`` bytes, or all."""
    environ = req.http.environ
    if req.http.method == 'GET' and outbox.announced(req.db, 'image.send'):
        return Told(file, length, req)
    # A real file goes from the page cache to the socket without passing through this process (sendfile).
    if length is not None and hasattr(file, 'fileno') and 'wsgi.file_wrapper' in environ and 'gunicorn.socket' in environ:
        return environ['wsgi.file_wrapper'](file, PIECE)
    return Pieces(file, length)
