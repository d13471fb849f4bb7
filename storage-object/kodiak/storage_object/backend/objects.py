"""The object server: bodies and metadata, and who is told of them."""
import hashlib
import itertools
import logging
import math
import os
import re
import time
from email.utils import formatdate

import orjson
from isal import isal_zlib

from kodiak.common import gunicorn_server
from kodiak.common.numbers import natural

from ..proxy import http as wire
from ..proxy import ranges
from ..proxy.http import from_wsgi
from ..spans import unquoted
from . import diskfile, fragments, held
from .base import Part, answer, request_stamp
from .containers import deletion
from .devices import later
from .diskfile import Corrupt, Missing, Writer

LOG = logging.getLogger(__name__)
KEEP = frozenset(('Content-Type', 'Content-Encoding', 'Content-Disposition', 'X-Delete-At', 'X-Object-Manifest',
                  'X-Static-Large-Object', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag'))
KEPT = ('X-Object-Meta-', 'X-Object-Sysmeta-', 'X-Object-Transient-Sysmeta-')
POSTED = ('X-Object-Meta-', 'X-Object-Transient-Sysmeta-')
OVERRIDE = 'X-Backend-Container-Update-Override-'
CHUNK = 262144
VERIFIED = 65536        # bodies up to this length are checked at each read
CONDITIONS = ('HTTP_IF_MATCH', 'HTTP_IF_NONE_MATCH', 'HTTP_IF_MODIFIED_SINCE', 'HTTP_IF_UNMODIFIED_SINCE')
ONE_RANGE = re.compile(r'bytes=[0-9]*-[0-9]*\Z')


class Objects:
    """``/{device}/{partition}/{account}/{container}/{object}``."""

    def __init__(self, server):
        self.server, self.devices = server, server.devices

    def handle(self, request, device, part, account, container, name):
        """Answer a request."""
        policy = request.headers.get('X-Backend-Storage-Policy-Index', '0')
        if natural(policy) is None:
            return answer(400, body=b'X-Backend-Storage-Policy-Index is no number')
        place = Place(self.server, self.devices.path(device), device, part, account, container, name, int(policy))
        try:
            return getattr(self, request.method)(request, place)
        except held.Refused as refused:
            return answer(refused.status, {'X-Backend-Timestamp': refused.stamp})

    # Reading

    def GET(self, request, place):
        """The body, or a range of it; HEAD: what there is."""
        try:
            found = diskfile.Object(place.path, fragments.chooser(request) if request.method == 'GET' else None)
        except Missing as missing:
            return answer(404, {'X-Backend-Timestamp': missing.stamp, **fragments.held(place.path)})
        except Corrupt as error:
            return self._damaged(place, error)
        try:
            return self._answer(request, place, found)
        finally:
            found.close()

    HEAD = GET

    def _answer(self, request, place, found):
        environ, metadata = request.environ, found.metadata
        if self._expired(metadata) and not wire.is_true(environ.get('HTTP_X_BACKEND_OPEN_EXPIRED', '')):
            return answer(404, {'X-Backend-Timestamp': found.stamp})
        moment = math.ceil(float(found.stamp[:16]))
        modified = formatdate(moment, usegmt=True)
        headers = {**metadata, 'Etag': f'"{found.etag}"', 'Last-Modified': modified, 'X-Timestamp': found.stamp,
                   'X-Backend-Timestamp': found.stamp, 'X-Backend-Data-Timestamp': found.data_stamp}
        if found.ec is not None:
            headers.update(fragments.headers(found))
        if any(name in environ for name in CONDITIONS):
            etag = found.etag
            for header in environ.get('HTTP_X_BACKEND_ETAG_IS_AT', '').split(','):
                if header.strip().title() in metadata:
                    etag = metadata[header.strip().title()]
                    break
            status = wire.precondition(request, etag, moment)
            if status:
                return answer(status, headers)
        if request.method == 'HEAD':
            headers['Content-Length'] = found.size
            return answer(200, headers)
        start, end, status = 0, found.size, 200
        asked = environ.get('HTTP_RANGE')
        if asked and ONE_RANGE.match(asked):
            spans = ranges.parse(asked, found.size)
            if spans == []:
                return answer(416, {**headers, 'Content-Range': f'bytes */{found.size}'})
            if spans:
                (start, end), status = spans[0], 206
                headers['Content-Range'] = f'bytes {start}-{end - 1}/{found.size}'
        if found.ec is not None:
            start, end = fragments.span(found, start, end)
        body = found.small
        if body is None and found.stored_size <= VERIFIED:
            body = os.pread(found.descriptor, found.stored_size, 0)
        if body is not None:
            if hashlib.md5(body, usedforsecurity=False).hexdigest() != found.stored_etag:
                return self._damaged(place, 'its body has another checksum')
            return answer(status, headers, body[start:end] if status == 206 else body)
        headers['Content-Length'] = end - start
        made = answer(status, headers)
        os.lseek(found.descriptor, start, os.SEEK_SET)
        file = open(found.take(), 'rb', buffering=0)     # noqa: SIM115 (closed by who sends it)
        wrapper = environ.get('wsgi.file_wrapper')
        made.body = wrapper(file, CHUNK) if wrapper else Part(file, end - start)
        return made

    def _damaged(self, place, error):
        LOG.error('%s of %s is damaged: %s', place.path, place.full, error)
        diskfile.quarantine(place.device_path, place.path, diskfile.folder_of(place.policy))
        self.server.damaged_object(place.device, place.policy, place.part, place.hash[-3:])
        return answer(404)

    @staticmethod
    def _expired(metadata):
        at = metadata.get('X-Delete-At')
        return bool(at) and int(at) <= time.time()

    # Writing

    def PUT(self, request, place):
        """Write an object."""
        stamp = request_stamp(request)
        data, gone, _ = diskfile.newest(place.path)
        last = max(data or '', gone or '')
        if last >= stamp:
            return answer(409, {'X-Backend-Timestamp': last})
        hold = self._hold(request, place, stamp)
        length = request.content_length
        if length is None and not request.chunked:
            return answer(411)
        self.devices.need(place.device_path, length or 0)
        tally = _Crc32() if request.headers.get('X-Backend-Footer-Digest') == 'crc32' else hashlib.md5(usedforsecurity=False)
        with Writer(self.devices, place.device_path, place.folder) as writer:
            writer.expect(length or 0)
            footers = self._take(request, writer, tally, length)
            if footers is None:
                return answer(499)
            if isinstance(tally, _Crc32):
                if footers.pop('X-Backend-Body-Crc32', None) != tally.hexdigest():
                    return answer(422)
                etag = footers.pop('Etag')
            else:
                etag = tally.hexdigest()
            wanted = request.headers.get('Etag')
            if wanted and wanted.strip('"').lower() != etag:
                return answer(422)
            metadata = {'name': place.full, 'Etag': etag}
            for name, value in (*request.headers.items(), *footers.items()):
                if name in KEEP or name.startswith(KEPT):
                    metadata[name] = value
                elif name.startswith(OVERRIDE):
                    metadata['X-Object-Sysmeta-' + name[len('X-Backend-'):]] = value
            metadata.setdefault('Content-Type', 'application/octet-stream')
            if (number := fragments.number(request)) is not None:
                # Nobody is told of it before the proxy says that enough others have theirs: see commit().
                metadata['Ec'] = {**footers['Ec'], 'number': number}
                if hold is None:
                    writer.commit(diskfile.fragment_name(stamp, number, False), metadata)
                    return answer(201, {'Etag': f'"{etag}"'})
            if hold is not None:
                return hold(writer, fragments.name_of(stamp, number), metadata)
            size = writer.size
            writer.commit(stamp + '.data', metadata)
        self._tell(request, place, self._row(place, stamp, stamp, size, etag, metadata))
        self._queue_expiry(request, place, metadata.get('X-Delete-At'), stamp)
        return answer(201, {'Etag': f'"{etag}"'})

    def _condition(self, request, place):
        """What a write hangs on, as a function."""
        limit, new = request.headers.get('X-Backend-If-Not-After'), request.headers.get('If-None-Match') == '*'

        def holds():
            data, gone, _ = diskfile.newest(place.path)
            if limit and max(data or '', gone or '') > limit:
                return False
            return not (new and data and not self._is_expired(place))
        return holds

    def _hold(self, request, place, stamp):
        """What holds a write that hangs on a condition, as a function that answers; None of any other. Raises held.Refused."""
        if not held.is_asked(request.headers):
            return None
        holds = self._condition(request, place)
        held.check(place.path, stamp, holds)
        last = []

        def hold(writer, name, metadata):
            writer.commit(name + diskfile.HELD, metadata, lambda source, target: last.append(
                held.take(source, target, stamp, holds)))
            return answer(201, {'Etag': f'"{metadata.get("Etag", "")}"', 'X-Backend-Timestamp': last[-1]})
        return hold

    def settle(self, request, place, stamp):
        """What becomes of a write that is held: see :mod:`.held`."""
        what = request.headers['X-Backend-Held']
        if what == 'settle':
            held.settle(place.path, stamp)
            return answer(204)
        if what == 'release':
            if held.release(place.path, stamp):
                self._tell(request, place, self._row_after(place, stamp))
            return answer(204)
        if what != 'commit':
            return answer(400, body=b'X-Backend-Held is commit, settle or release')
        name, there = held.commit(place.path, stamp, self._condition(request, place))
        if name.endswith('.ts'):
            self._tell(request, place, deletion(place.name, stamp, place.policy))
            return answer(204 if there else 404, {'X-Backend-Timestamp': stamp})
        return self._committed(request, place, stamp)

    def _row_after(self, place, stamp):
        """The row that takes the place of one of a write that was committed, and then released."""
        stamp = later(stamp, 1)
        try:
            found = diskfile.Object(place.path)
        except (Missing, Corrupt):
            return deletion(place.name, stamp, place.policy)
        found.close()
        return self._row(place, stamp, stamp, found.size, found.etag, found.metadata)

    @staticmethod
    def _take(request, writer, tally, length):
        """Read the body; the metadata that follows it (X-Backend-Footer-Size bytes of it), or None if it ends early."""
        buffer = itertools.repeat(bytearray(min(length or 0, CHUNK)))
        read = gunicorn_server.direct_reader(request.environ, buffer) or request.input.read
        after, tail = int(request.headers.get('X-Backend-Footer-Size') or 0), b''
        try:
            if length is None:
                while data := read(CHUNK):
                    if after:
                        data = tail + data
                        data, tail = data[:-after], data[-after:]
                    tally.update(data)
                    writer.write(data)
            else:
                left = length - after
                while left > 0:
                    data = read(min(CHUNK, left))
                    if not data:
                        return None
                    left -= len(data)
                    tally.update(data)
                    writer.write(data)
                while len(tail) < after and (data := read(after - len(tail))):
                    tail += bytes(data)
            if len(tail) < after:
                return None
            return orjson.loads(tail) if after else {}
        except (EOFError, ValueError, ConnectionError, TimeoutError):
            return None
        except OSError as error:
            if type(error).__module__ != 'builtins':       # the server's own, of a body that is cut off
                return None
            raise

    def _is_expired(self, place):
        try:
            found = diskfile.Object(place.path)
        except (Missing, Corrupt):
            return True
        found.close()
        return self._expired(found.metadata)

    def POST(self, request, place):
        """Replace the metadata; or make a fragment durable."""
        stamp = request_stamp(request)
        if 'HTTP_X_BACKEND_HELD' in request.environ:
            return self.settle(request, place, stamp)
        if 'HTTP_X_BACKEND_FRAGMENT_COMMIT' in request.environ:
            return self.commit(request, place, stamp)
        try:
            found = diskfile.Object(place.path)
        except Missing as missing:
            return answer(404, {'X-Backend-Timestamp': missing.stamp} if missing.stamp else None)
        except Corrupt as error:
            return self._damaged(place, error)
        found.close()
        if self._expired(found.metadata):
            return answer(404)
        if found.stamp >= stamp:
            return answer(409, {'X-Backend-Timestamp': found.stamp})
        self.devices.need(place.device_path)
        metadata = {name: value for name, value in request.headers.items()
                    if name.startswith(POSTED) or (name in KEEP and value != '')}
        metadata['name'] = place.full
        typed = stamp
        if 'Content-Type' not in metadata:
            typed = found.typed_stamp
            if typed:
                metadata['Content-Type'] = found.metadata['Content-Type']
        with Writer(self.devices, place.device_path, place.folder) as writer:
            writer.commit(f'{stamp}+{typed}.meta' if typed else f'{stamp}.meta', metadata)
        kept = {name: value for name, value in found.metadata.items() if not diskfile.replaced(name)}
        self._tell(request, place, self._row(place, found.data_stamp, stamp, found.size, found.etag, {**kept, **metadata}))
        self._queue_expiry(request, place, metadata.get('X-Delete-At'), stamp)
        return answer(202, {'X-Backend-Timestamp': stamp})

    def commit(self, request, place, stamp):
        """Enough devices have a fragment of a write: from now on this one holds."""
        status = fragments.commit(place.path, stamp, fragments.number(request, 'X-Backend-Fragment-Commit'))
        return self._committed(request, place, stamp) if status == 201 else answer(status)

    def _committed(self, request, place, stamp):
        try:
            found = diskfile.Object(place.path)
        except (Missing, Corrupt):
            return answer(404)
        found.close()
        if found.data_stamp != stamp:
            return answer(409, {'X-Backend-Timestamp': found.stamp})
        self._tell(request, place, self._row(place, stamp, found.stamp, found.size, found.etag, found.metadata))
        self._queue_expiry(request, place, found.metadata.get('X-Delete-At'), stamp)
        return answer(201, {'Etag': f'"{found.etag}"'})

    def DELETE(self, request, place):
        """Delete the object."""
        stamp = request_stamp(request)
        expected = request.headers.get('X-If-Delete-At')
        last = there = None
        try:
            found = diskfile.Object(place.path)
            found.close()
            last, there = found.stamp, not self._expired(found.metadata)
            if expected is not None and found.metadata.get('X-Delete-At') != expected:
                return answer(412)
        except Missing as missing:
            last = missing.stamp
            if expected is not None:
                return answer(404)
        except Corrupt as error:
            self._damaged(place, error)
        if last is not None and last >= stamp:
            return answer(409, {'X-Backend-Timestamp': last})
        self.devices.need(place.device_path)
        hold = self._hold(request, place, stamp)
        with Writer(self.devices, place.device_path, place.folder) as writer:
            if hold is not None:
                return hold(writer, stamp + '.ts', {'name': place.full})
            writer.commit(stamp + '.ts', {'name': place.full})
        self._tell(request, place, deletion(place.name, stamp, place.policy))
        return answer(204 if there else 404, {'X-Backend-Timestamp': stamp})

    # Telling containers

    @staticmethod
    def _row(place, stamp, changed, size, etag, metadata):
        """An object's row in its container."""
        kind, _, told = metadata.get('Content-Type', '').partition(';swift_bytes=')
        size = metadata.get('X-Object-Sysmeta-Container-Update-Override-Size', told or size)
        etag = metadata.get('X-Object-Sysmeta-Container-Update-Override-Etag', etag)
        kind = metadata.get('X-Object-Sysmeta-Container-Update-Override-Content-Type', kind)
        return (0, place.name, stamp, changed, int(size), etag, from_wsgi(kind), place.policy)

    def _tell(self, request, place, row):
        get = request.headers.get
        hosts, devices, part = get('X-Container-Host'), get('X-Container-Device'), get('X-Container-Partition', '0')
        if hosts and devices:
            root = place.account, place.container
            shard = unquoted(get('X-Backend-Quoted-Container-Path', ''))
            self.server.updater.tell_containers(place.device_path, hosts.split(','), devices.split(','), part,
                                                *(shard or root), row, root)

    def _queue_expiry(self, request, place, at, stamp):
        get = request.headers.get
        hosts, devices, container = get('X-Delete-At-Host'), get('X-Delete-At-Device'), get('X-Delete-At-Container')
        if at and hosts and devices and container:
            name = f'{int(at):010d}-{place.account}/{place.container}/{place.name}'
            self.server.updater.tell_containers(place.device_path, hosts.split(','), devices.split(','),
                                                get('X-Delete-At-Partition', '0'), '.expiring_objects', container,
                                                (0, name, stamp, stamp, 0, '', 'text/plain', 0))


class _Crc32:
    """As of hashlib. A body whose MD5 the proxy sends after it is checked by this."""

    def __init__(self):
        self._crc = 0

    def update(self, data):
        self._crc = isal_zlib.crc32(data, self._crc)

    def hexdigest(self):
        return f'{self._crc:08x}'


class Place:
    """Where an object is."""

    __slots__ = ('account', 'container', 'device', 'device_path', 'folder', 'full', 'hash', 'name', 'part', 'path', 'policy')

    def __init__(self, server, device_path, device, part, account, container, name, policy):
        self.device_path, self.device, self.part, self.policy = device_path, device, part, policy
        self.account, self.container, self.name = account, container, name
        self.full = f'/{account}/{container}/{name}'
        self.hash = digest = server.digest('object', account, container, name, policy)
        self.folder = f'{diskfile.folder_of(policy)}/{part}/{digest[-3:]}/{digest}'
        self.path = f'{device_path}/{self.folder}'
