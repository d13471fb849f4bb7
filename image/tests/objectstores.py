"""Small servers of the Swift and the S3 API, and a Ceph without a cluster, for the tests of the stores."""
import hashlib
import json
import re
import types
import uuid

from werkzeug.wrappers import Request, Response


def _ranged(request, data):
    match = re.fullmatch(r'bytes=(\d+)-', request.headers.get('Range', ''))
    return Response(data[int(match[1]):], 206) if match else Response(data)


class Swift:
    """Containers and objects of one account, static large objects among them. ``fail``: ``function(request) -> status or None``."""

    TOKEN = 'swift-token'

    def __init__(self, segments=1000):
        self.containers = {}
        self.segments = segments
        self.fail = lambda request: None
        self.requests = []

    @Request.application
    def __call__(self, request):
        body = request.stream.read()
        if request.path == '/info':
            return Response(json.dumps({'slo': {'max_manifest_segments': self.segments}}))
        self.requests.append((request.method, request.full_path))
        failed = self.fail(request)
        if failed:
            return Response(status=failed)
        if request.headers.get('X-Auth-Token') != self.TOKEN:
            return Response(status=401)
        container, _, name = request.path.removeprefix('/v1/AUTH_x/').partition('/')
        if not name:
            return self._container(request, container)
        objects = self.containers.get(container)
        if objects is None:
            return Response(status=404)
        return getattr(self, '_' + request.method.lower())(request, objects, name, body)

    def _container(self, request, container):
        if request.method == 'PUT':
            return Response(status=202 if self.containers.setdefault(container, {}) else 201)
        if container not in self.containers:
            return Response(status=404)
        names = sorted(name for name in self.containers[container]
                       if name.startswith(request.args['prefix']) and name > request.args.get('marker', ''))
        return Response(json.dumps([{'name': name} for name in names[:2]]), content_type='application/json')

    def _put(self, request, objects, name, body):
        if request.args.get('multipart-manifest') == 'put':
            parts = []
            for entry in json.loads(body):
                container, _, segment = entry['path'].lstrip('/').partition('/')
                data = self.containers[container][segment]
                assert (len(data), hashlib.md5(data).hexdigest()) == (entry['size_bytes'], entry['etag'])
                parts.append(data)
            assert len(parts) <= self.segments
            body = b''.join(parts)
        objects[name] = body
        return Response(status=201, headers={'ETag': f'"{hashlib.md5(body).hexdigest()}"'})

    def _get(self, request, objects, name, body):
        return _ranged(request, objects[name]) if name in objects else Response(status=404)

    def _delete(self, request, objects, name, body):
        return Response(status=204 if objects.pop(name, None) is not None else 404)


class Session:
    """As much of a keystoneauth session as a store asks."""

    def __init__(self, root):
        self.root = root
        self.token = 'stale'

    def get_endpoint(self, **_):
        return self.root + '/v1/AUTH_x'

    def get_token(self):
        return self.token

    def invalidate(self):
        self.token = Swift.TOKEN


class S3:
    """Buckets with objects and uploads of parts. ``check``: ``function(request, body)``, asked of every request."""

    def __init__(self, check=lambda request, body: None):
        self.buckets, self.uploads = {}, {}
        self.check = check
        self.fail = lambda request: None
        self.requests = []

    @Request.application
    def __call__(self, request):
        body = request.stream.read()
        self.requests.append((request.method, request.full_path))
        self.check(request, body)
        failed = self.fail(request)
        if failed:
            return Response(f'<?xml version="1.0"?><Error><Code>{failed[1]}</Code></Error>', failed[0])
        bucket, _, name = request.path.lstrip('/').partition('/')
        if not name:
            return self._bucket(request, bucket)
        if bucket not in self.buckets:
            return Response('<Error><Code>NoSuchBucket</Code></Error>', 404)
        return getattr(self, '_' + request.method.lower())(request, self.buckets[bucket], name, body)

    def _bucket(self, request, bucket):
        if request.method == 'PUT':
            self.buckets.setdefault(bucket, {})
        if bucket not in self.buckets:
            return Response(status=404)
        if 'uploads' in request.args:
            return Response('<R xmlns="x">' + ''.join(f'<UploadId>{upload}</UploadId>' for upload, (name, _) in self.uploads.items()
                                                      if name.startswith(request.args['prefix'])) + '</R>')
        return Response()

    def _post(self, request, objects, name, body):
        if 'uploads' in request.args:
            upload = uuid.uuid4().hex
            self.uploads[upload] = (name, {})
            return Response(f'<R xmlns="x"><UploadId>{upload}</UploadId></R>')
        _, parts = self.uploads.pop(request.args['uploadId'])
        numbers = [int(number) for number in re.findall(rb'<PartNumber>(\d+)<', body)]
        etags = re.findall(r'<ETag>"(\w+)"<', body.decode())
        assert etags == [hashlib.md5(parts[number]).hexdigest() for number in numbers]
        objects[name] = b''.join(parts[number] for number in numbers)
        return Response('<CompleteMultipartUploadResult/>')

    def _put(self, request, objects, name, body):
        if 'uploadId' in request.args:
            self.uploads[request.args['uploadId']][1][int(request.args['partNumber'])] = body
        else:
            objects[name] = body
        return Response(headers={'ETag': f'"{hashlib.md5(body).hexdigest()}"'})

    def _get(self, request, objects, name, body):
        return _ranged(request, objects[name]) if name in objects else Response('<Error><Code>NoSuchKey</Code></Error>', 404)

    def _delete(self, request, objects, name, body):
        if 'uploadId' in request.args:
            self.uploads.pop(request.args['uploadId'], None)
        else:
            objects.pop(name, None)
        return Response(status=204)


def ceph():
    """``(rados, rbd)``: modules with what the store uses of the real ones, over one dictionary, ``rbd.images``."""
    rados, rbd = types.ModuleType('rados'), types.ModuleType('rbd')
    rbd.images, rbd.RBD_FEATURE_LAYERING = {}, 1
    rados.Error = type('Error', (Exception,), {})
    rados.down = False

    class Ioctx:
        def close(self):
            pass

    class Rados:
        def __init__(self, rados_id=None, conffile=None):
            pass

        def connect(self, timeout=0):
            if rados.down:
                raise rados.Error('down')

        def open_ioctx(self, ioctx_name):
            return Ioctx()

        def get_fsid(self):
            return 'fsid'

        def shutdown(self):
            pass
    rados.Rados = Rados

    class Error(Exception):
        def __init__(self, errno=0):
            super().__init__(errno)
            self.errno = errno
    rbd.Error = Error
    for name in ('ImageNotFound', 'ImageBusy', 'ImageHasSnapshots'):
        setattr(rbd, name, type(name, (Error,), {}))

    class RBD:
        def create(self, ioctx, name, size, order=None, old_format=False, features=None):
            rbd.images[name] = {'data': bytearray(size), 'snaps': {}, 'order': order, 'protected': set(), 'clones': 0}

        def remove(self, ioctx, name):
            if name not in rbd.images:
                raise rbd.ImageNotFound(2)
            if rbd.images[name]['snaps']:
                raise rbd.ImageHasSnapshots(39)
            del rbd.images[name]
    rbd.RBD = RBD

    class Image:
        def __init__(self, ioctx, name=None, snapshot=None, read_only=False):
            if name not in rbd.images or (snapshot and snapshot not in rbd.images[name]['snaps']):
                raise rbd.ImageNotFound(2)
            self.image = rbd.images[name]
            self.data = self.image['snaps'][snapshot] if snapshot else self.image['data']

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def size(self):
            return len(self.data)

        def resize(self, size):
            data = self.image['data']
            data[size:] = bytes(max(0, size - len(data)))

        def write(self, data, offset):
            if rbd.full:
                raise rbd.Error(28)
            assert offset + len(data) <= len(self.image['data'])
            self.image['data'][offset:offset + len(data)] = data

        def read(self, offset, length):
            return bytes(self.data[offset:offset + length])

        def flush(self):
            pass

        def create_snap(self, name):
            self.image['snaps'][name] = bytes(self.image['data'])

        def protect_snap(self, name):
            self.image['protected'].add(name)

        def is_protected_snap(self, name):
            if name not in self.image['snaps']:
                raise rbd.ImageNotFound(2)
            return name in self.image['protected']

        def unprotect_snap(self, name):
            if self.image['clones']:
                raise rbd.ImageBusy(16)
            self.image['protected'].discard(name)

        def remove_snap(self, name):
            if name not in self.image['snaps']:
                raise rbd.ImageNotFound(2)
            del self.image['snaps'][name]
    rbd.Image, rbd.full = Image, False
    return rados, rbd


