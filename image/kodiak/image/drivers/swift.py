"""Object storage by the Swift API: data of more than a segment is several objects and a manifest (a static large object)."""
import hashlib
import threading
import urllib.parse

import orjson
import requests
from keystoneauth1 import exceptions
from oslo_config import cfg

from kodiak.common.api import schema as schemas

from . import base, pipe

MIB = 1 << 20
CONNECT, READ = 15, 120
#: Segments of one size; those after them are twice as large, so that data of unknown size finds an end.
SAME = 200


class SwiftStore(base.Store):
    """Blobs as objects ``<container>/<key>``; their segments lie in ``<container>_segments/<key>/<number>``.

    Credentials are keystoneauth's options in the store's group, or the service's own.
    """

    OPTS = (
        cfg.StrOpt('container', default='kodiak-image', help='Container of the data. It is made when it is first used.'),
        cfg.IntOpt('segment_size', default=200, min=1, max=5120, help='Size of a segment, in MiB.'),
        cfg.StrOpt('region', help='Region whose object storage is used.'),
        cfg.StrOpt('interface', default='internal', choices=['public', 'internal', 'admin'], help='Which of its endpoints.'),
        *base.COMMON,
    )
    SCHEME = 'swift+config'
    keystone = True

    def prepare(self):
        # Connections are kept; nothing is asked before there is a request, so that a service starts while its store is away.
        self._http = requests.Session()
        self._lock = threading.Lock()
        self._most = None

    def _endpoint(self):
        try:
            found = self.session().get_endpoint(service_type='object-store', interface=self.conf.interface,
                                                region_name=self.conf.region, skip_discovery=True)
            return found and found.rstrip('/'), {'X-Auth-Token': self.session().get_token()}
        except exceptions.ClientException as error:
            raise base.StoreUnavailable(f'no token for object storage: {error}') from None

    def request(self, method, path='', data=None, headers=None, stream=False, accept=(), again=True):
        """One request below the account; ``accept``: statuses of 400 and more that are returned.

        :raises StoreUnavailable: it cannot be reached. :raises StoreFull: it takes no more.
        """
        endpoint, sent = self._endpoint()
        if not endpoint:
            raise base.StoreUnavailable('the catalog has no object storage')
        try:
            response = self._http.request(method, endpoint + path, data=data, headers={**sent, **(headers or {})}, stream=stream,
                                          timeout=(CONNECT, READ), allow_redirects=False)
        except requests.RequestException as error:
            raise base.StoreUnavailable(f'object storage cannot be reached: {error}') from None
        if response.status_code == 401 and again and (data is None or isinstance(data, bytes)):
            response.close()
            self.session().invalidate()
            return self.request(method, path, data, headers, stream, accept, again=False)
        if response.status_code in (413, 507):
            raise base.StoreFull
        if response.status_code >= 300 and response.status_code not in accept:
            response.close()
            raise base.StoreUnavailable(f'object storage answered {response.status_code} to {method}')
        return response

    def path(self, key, segment=None):
        """The path of an object, or of a segment (``''``: of all)."""
        container = self.conf.container if segment is None else self.conf.container + '_segments'
        return '/'.join(('', urllib.parse.quote(container, safe=''), key, *([segment] if segment is not None else [])))

    def most(self):
        """How many segments a manifest may have. The containers are made with the first question."""
        with self._lock:
            if self._most is None:
                for name in ('', '_segments'):
                    self.request('PUT', '/' + urllib.parse.quote(self.conf.container + name, safe=''), data=b'')
                endpoint, _ = self._endpoint()
                root = urllib.parse.urlsplit(endpoint)
                try:
                    told = self._http.get(f'{root.scheme}://{root.netloc}/info', timeout=(CONNECT, READ))
                    self._most = int(told.json()['slo']['max_manifest_segments'])
                except (requests.RequestException, ValueError, KeyError, TypeError):
                    self._most = 1000
            return self._most

    def create(self, key, size=None):
        segment = self.conf.segment_size * MIB
        most = self.most()
        if size is not None and size > segment * most:
            segment = (size // most // MIB + 1) * MIB
        return SwiftWriter(self, key, segment, size)

    def open(self, key, offset=0):
        headers = {'Accept-Encoding': 'identity', **({'Range': f'bytes={offset}-'} if offset else {})}
        response = self.request('GET', self.path(key), headers=headers, stream=True, accept=(404,))
        if response.status_code == 404:
            response.close()
            raise base.NoSuchData(key)
        return Answer(response)

    def remove(self, key):
        self.request('DELETE', self.path(key), accept=(404,))
        marker = ''
        while True:
            query = urllib.parse.urlencode({'format': 'json', 'prefix': key + '/', 'marker': marker, 'limit': 1000})
            path = '/' + urllib.parse.quote(self.conf.container + '_segments', safe='') + '?' + query
            response = self.request('GET', path, accept=(404,))
            names = [entry['name'] for entry in response.json()] if response.status_code == 200 else []
            for name in names:
                self.request('DELETE', self.path(key, name.rpartition('/')[2]), accept=(404,))
                marker = name
            if not names:
                return

    def url(self, key):
        return f'swift+config://{self.id}/{self.conf.container}/{key}'

    def properties(self):
        return {'container': self.conf.container, 'large_object_size': self.conf.segment_size}


class Answer:
    """The body of a response as a file object."""

    def __init__(self, response):
        self._response = response
        self._left = schemas.natural(response.headers.get('Content-Length', ''))

    def read(self, size):
        """The next piece; b'' at the end. Raises :class:`StoreUnavailable` where the store breaks off."""
        try:
            data = self._response.raw.read(size)
        except Exception as error:  # urllib3's kinds of a broken connection have no common base but this
            raise base.StoreUnavailable(f'the store broke off: {error}') from None
        if self._left is not None:
            self._left -= len(data)
            if not data and self._left and size:
                raise base.StoreUnavailable('the store broke off')
        return data

    def close(self):
        """Let go of the connection."""
        self._response.close()


class SwiftWriter(base.Writer):
    """Sends segments as they come, each in one request; the manifest, with their hashes, makes them one object."""

    def __init__(self, store, key, segment, size):
        self._store = store
        self._key = key
        self._segment = segment
        # What fits into one segment, and is known to, is an object of its own.
        self._whole = size is not None and size <= segment
        self._made = []
        self._pipe = None
        self._in_segment = 0

    def write(self, data):
        view = memoryview(data)
        while view:
            if self._pipe is None:
                self._begin()
            piece = view if self._whole else view[:self._segment - self._in_segment]
            self._hash.update(piece)
            self._pipe.write(bytes(piece))
            self._in_segment += len(piece)
            view = view[len(piece):]
            if self._in_segment == self._segment and not self._whole:
                self._end()

    def _begin(self):
        number = f'{len(self._made) + 1:08d}'
        path = self._store.path(self._key, None if self._whole else number)
        self._path = path
        self._hash = hashlib.md5(usedforsecurity=False)
        self._in_segment = 0
        self._pipe = pipe.Pipe(lambda pieces: self._store.request(
            'PUT', path, data=pieces, headers={'Content-Type': 'application/octet-stream'}).headers.get('ETag', ''))

    def _end(self):
        told, self._pipe = self._pipe, None
        etag = told.close().strip('"')
        if etag and etag != self._hash.hexdigest():
            raise base.StoreUnavailable('object storage got other data than it was sent')
        self._made.append({'path': urllib.parse.unquote(self._path), 'etag': self._hash.hexdigest(),
                           'size_bytes': self._in_segment})
        if len(self._made) % SAME == 0:
            self._segment = min(self._segment * 2, 5 << 30)

    def commit(self):
        if self._pipe is not None:
            self._end()
        if not self._made:
            self._store.request('PUT', self._store.path(self._key), data=b'')
        elif not self._whole:
            self._store.request('PUT', self._store.path(self._key) + '?multipart-manifest=put', data=orjson.dumps(self._made),
                                headers={'Content-Type': 'application/octet-stream'})

    def abort(self):
        if self._pipe is not None:
            self._pipe.abort()
            self._pipe = None
        self._store.remove(self._key)
