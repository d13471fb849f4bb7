"""What every store must do, tried on each driver; and what is particular to one."""
import datetime
import hashlib
import importlib.util
import os
import pathlib
import re
import sys
import uuid

import pytest
from oslo_config import cfg

from kodiak.common import testing
from kodiak.image.drivers import base, cinder, file, pipe, rbd, s3, swift

objectstores, blockstore = testing.module(__file__, 'objectstores'), testing.module(__file__, 'blockstore')

MIB = 1 << 20
DATA = os.urandom(3 * MIB) + bytes(2 * MIB) + os.urandom(MIB // 2 + 3)


def make(cls, tmp_path, **options):
    conf = cfg.ConfigOpts()
    conf.register_opts(list(cls.OPTS), group='store')
    conf([])
    for name, value in options.items():
        conf.set_override(name, value, group='store')
    store = cls('far', conf.store, str(tmp_path))
    return store


@pytest.fixture
def swift_server():
    server = objectstores.Swift()
    with testing.serving(server) as root:
        server.root = root
        yield server


@pytest.fixture
def s3_server():
    def check(request, body):
        assert request.headers['x-amz-content-sha256'] == hashlib.sha256(body).hexdigest()
        assert 'Credential=me/' in request.headers['Authorization']
    server = objectstores.S3(check)
    with testing.serving(server) as root:
        server.root = root
        yield server


@pytest.fixture
def block_server(tmp_path):
    if blockstore.MISSING:
        pytest.skip('qemu-nbd is missing')
    with blockstore.running(tmp_path) as server:
        yield server


@pytest.fixture
def ceph(monkeypatch):
    rados, fake = objectstores.ceph()
    monkeypatch.setitem(sys.modules, 'rados', rados)
    monkeypatch.setitem(sys.modules, 'rbd', fake)
    fake.rados = rados
    return fake


def swift_store(server, tmp_path, **options):
    store = make(swift.SwiftStore, tmp_path, segment_size=1, **options)
    session = objectstores.Session(server.root)
    store.session = lambda: session
    store.prepare()
    return store


def s3_store(server, tmp_path, monkeypatch):
    # Smaller parts than the API allows, so that the data has several.
    store = make(s3.S3Store, tmp_path, endpoint=server.root, access_key='me', secret_key='secret', prefix='p/')
    monkeypatch.setattr(s3, 'MIB', MIB // 10)
    store.prepare()
    return store


@pytest.fixture(params=['cinder', 'file', 'swift', 's3', 'rbd'])
def store(request, tmp_path, monkeypatch):
    if request.param == 'file':
        made = make(file.FileStore, tmp_path, path=str(tmp_path / 'store'))
        made.prepare()
    elif request.param == 'swift':
        made = swift_store(request.getfixturevalue('swift_server'), tmp_path)
    elif request.param == 'cinder':
        made = make(cinder.CinderStore, tmp_path)
        session = objectstores.Session(request.getfixturevalue('block_server').root)
        made.session = lambda: session
        made.prepare()
    elif request.param == 's3':
        made = s3_store(request.getfixturevalue('s3_server'), tmp_path, monkeypatch)
    else:
        request.getfixturevalue('ceph')
        made = make(rbd.RbdStore, tmp_path)
        made.prepare()
    made.left = lambda: _left(request, made, request.param)
    return made


def _left(request, made, name):
    """What lies in a store, by any name."""
    if name == 'file':
        return [file for _, _, files in os.walk(made.path) for file in files]
    if name == 'swift':
        return [one for objects in request.getfixturevalue('swift_server').containers.values() for one in objects]
    if name == 's3':
        server = request.getfixturevalue('s3_server')
        return [one for objects in server.buckets.values() for one in objects] + list(server.uploads)
    if name == 'cinder':
        server = request.getfixturevalue('block_server')
        return [*server.volumes, *server.attachments]
    return list(request.getfixturevalue('ceph').images)


def write(store, data, size=None, piece=MIB):
    key = str(uuid.uuid4())
    writer = store.create(key, size)
    for start in range(0, len(data), piece):
        writer.write(data[start:start + piece])
    return key, writer


def read(store, key, offset=0, size=MIB):
    source = store.open(key, offset)
    try:
        parts = []
        while data := source.read(size):
            assert len(data) <= size
            parts.append(data)
        return b''.join(parts)
    finally:
        source.close()


@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize('data', [b'', b'x', DATA[:MIB], DATA[:2 * MIB], DATA], ids=lambda data: str(len(data)))
def test_what_is_written_is_read(store, data, known):
    key, writer = write(store, data, len(data) if known else None)
    writer.commit()
    assert read(store, key) == data
    for offset in (1, MIB, len(data) - 1):
        if 0 < offset < len(data):
            assert read(store, key, offset, 70000) == data[offset:]
    assert store.url(key).startswith(store.SCHEME + '://') and (key in store.url(key) or store.SCHEME == 'cinder')
    assert store.properties()
    store.remove(key)
    assert store.left() == []
    store.remove(key)
    with pytest.raises(base.NoSuchData):
        store.open(key)


def test_uneven_pieces(store):
    key, writer = write(store, DATA, piece=333333)
    writer.commit()
    assert read(store, key) == DATA


@pytest.mark.parametrize('pieces', [0, 1, 5])
def test_what_is_broken_off_leaves_nothing(store, pieces):
    key, writer = write(store, DATA[:pieces * MIB])
    writer.abort()
    assert store.left() == []
    with pytest.raises(base.NoSuchData):
        store.open(key)


def test_what_nobody_finished_is_removed(store):
    # As the keeper does for a process that died.
    key, writer = write(store, DATA)
    store.remove(key)
    assert store.left() == [] or store.SCHEME == 'swift+config'
    if store.SCHEME == 'swift+config':
        writer.abort()
        store.remove(key)
        assert store.left() == []


class TestSwift:
    def test_small_data_is_one_object_large_data_a_manifest(self, swift_server, tmp_path):
        store = swift_store(swift_server, tmp_path)
        key, writer = write(store, DATA[:MIB], MIB)
        writer.commit()
        assert swift_server.containers == {'kodiak-image': {key: DATA[:MIB]}, 'kodiak-image_segments': {}}
        key, writer = write(store, DATA, len(DATA))
        writer.commit()
        assert len(swift_server.containers['kodiak-image_segments']) == 6

    def test_segments_grow_where_a_manifest_would_be_too_long(self, swift_server, tmp_path, monkeypatch):
        swift_server.segments = 3
        store = swift_store(swift_server, tmp_path)
        key, writer = write(store, DATA, len(DATA))
        writer.commit()
        assert len(swift_server.containers['kodiak-image_segments']) == 3 and read(store, key) == DATA
        monkeypatch.setattr(swift, 'SAME', 1)
        store.remove(key)
        key, writer = write(store, DATA)
        writer.commit()
        assert len(swift_server.containers['kodiak-image_segments']) == 3 and read(store, key) == DATA

    @pytest.mark.parametrize(('status', 'error'), [(507, base.StoreFull), (413, base.StoreFull), (503, base.StoreUnavailable),
                                                   (401, base.StoreUnavailable)])
    def test_what_it_says_reaches_the_caller(self, swift_server, tmp_path, status, error):
        store = swift_store(swift_server, tmp_path)
        store.create(str(uuid.uuid4())).abort()
        swift_server.fail = lambda request: status
        with pytest.raises(error):
            write(store, DATA)[1].commit()
        with pytest.raises(error):
            store.open('x')

    def test_damage_on_the_way_is_noticed(self, swift_server, tmp_path):
        store = swift_store(swift_server, tmp_path)
        original = swift_server._put
        swift_server._put = lambda request, objects, name, body: original(request, objects, name, body[:-1])
        with pytest.raises(base.StoreUnavailable, match='other data'):
            write(store, DATA)[1].commit()

    def test_a_store_that_is_away(self, swift_server, tmp_path):
        store = swift_store(swift_server, tmp_path)
        store.session().root = 'http://127.0.0.1:1'
        with pytest.raises(base.StoreUnavailable):
            store.create('x')
        store.session().root = ''
        store.session().get_endpoint = lambda **_: None
        with pytest.raises(base.StoreUnavailable, match='catalog'):
            store.remove('x')


class TestS3:
    def test_the_signature_is_that_of_the_documentation(self):
        # Amazon's own example of a GET of an object with a range.
        headers = s3.sign('GET', 'https://examplebucket.s3.amazonaws.com/test.txt', {'Range': 'bytes=0-9'},
                          hashlib.sha256().hexdigest(), 'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
                          'us-east-1', datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC))
        assert headers['Authorization'].endswith('f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41')
        # And of a list, which has a query.
        headers = s3.sign('GET', 'https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J', {}, hashlib.sha256().hexdigest(),
                          'AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY', 'us-east-1',
                          datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC))
        assert headers['Authorization'].endswith('34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7')

    def test_small_data_is_one_request(self, s3_server, tmp_path, monkeypatch):
        store = s3_store(s3_server, tmp_path, monkeypatch)
        key, writer = write(store, b'x')
        writer.commit()
        assert s3_server.buckets == {'kodiak-image': {'p/' + key: b'x'}}
        assert sum(method in ('PUT', 'POST') for method, path in s3_server.requests) == 2

    @pytest.mark.parametrize(('answer', 'error'), [
        ((503, 'SlowDown'), base.StoreUnavailable), ((403, 'QuotaExceeded'), base.StoreFull),
        ((403, 'SignatureDoesNotMatch'), base.StoreUnavailable)])
    def test_what_it_says_reaches_the_caller(self, s3_server, tmp_path, monkeypatch, answer, error):
        store = s3_store(s3_server, tmp_path, monkeypatch)
        store.create('x')
        s3_server.fail = lambda request: answer
        with pytest.raises(error):
            write(store, DATA)[1].commit()
        with pytest.raises(error):
            store.open('x')

    def test_a_completion_that_fails_late(self, s3_server, tmp_path, monkeypatch):
        store = s3_store(s3_server, tmp_path, monkeypatch)
        _, writer = write(store, DATA)
        s3_server.fail = lambda request: (200, 'InternalError') if request.method == 'POST' else None
        with pytest.raises(base.StoreUnavailable, match='InternalError'):
            writer.commit()

    def test_names_of_hosts(self, tmp_path):
        store = make(s3.S3Store, tmp_path, path_style=False, region='eu-west-1', bucket='b')
        store.prepare()
        assert store._url('k', None) == 'https://b.s3.eu-west-1.amazonaws.com/k'


class TestRbd:
    def test_blobs_are_protected_snapshots(self, ceph, tmp_path):
        store = make(rbd.RbdStore, tmp_path)
        store.prepare()
        key, writer = write(store, DATA)
        writer.commit()
        image = ceph.images[key]
        assert image['protected'] == {'snap'} and image['order'] == 23 and len(image['data']) == len(DATA)
        assert store.url(key) == f'rbd://fsid/images/{key}/snap'
        image['clones'] = 1
        with pytest.raises(base.StoreUnavailable, match='in use'):
            store.remove(key)
        assert key in ceph.images

    def test_a_full_and_an_absent_cluster(self, ceph, tmp_path):
        store = make(rbd.RbdStore, tmp_path)
        store.prepare()
        ceph.full = True
        with pytest.raises(base.StoreFull):
            write(store, DATA)
        ceph.rados.down = True
        for call in (lambda: store.create('x'), lambda: store.open('x'), lambda: store.remove('x')):
            with pytest.raises(base.StoreUnavailable):
                call()

    def test_objects_have_a_power_of_two(self, ceph, tmp_path):
        with pytest.raises(cfg.ConfigFileValueError, match='power of two'):
            make(rbd.RbdStore, tmp_path, chunk_size=3).prepare()

    def test_the_stand_in_is_like_the_library(self, ceph):
        """What the driver calls is there in the real bindings, with arguments of these names."""
        found = {}
        for name in ('rados', 'rbd'):
            paths = sorted(pathlib.Path('/usr/lib/python3/dist-packages').glob(f'{name}.cpython-{sys.version_info[0]}'
                                                                               f'{sys.version_info[1]}-*.so'))
            if not paths:
                pytest.skip('the bindings of Ceph (python3-rados, python3-rbd) are not installed')
            spec = importlib.util.spec_from_file_location(name, paths[0])
            found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found[name])
        real = found['rbd']
        for name in ('ImageNotFound', 'ImageBusy', 'ImageHasSnapshots', 'Error', 'RBD_FEATURE_LAYERING'):
            assert hasattr(real, name)
        assert issubclass(real.ImageNotFound, real.Error) and hasattr(found['rados'], 'Error')
        for cls in ('RBD', 'Image'):
            for name, function in vars(getattr(ceph, cls)).items():
                if name.startswith('__'):
                    continue
                told = getattr(getattr(real, cls), name).__doc__
                named = re.match(r'\w+\.\w+\((.*?)\)\n', told or '', re.S)
                if named:
                    arguments = [part.split('=')[0].strip().split()[-1] for part in named[1].split(',')]
                    wanted = function.__code__.co_varnames[:function.__code__.co_argcount]
                    assert set(wanted) <= set(arguments), (cls, name, arguments)
                else:
                    assert callable(getattr(getattr(real, cls), name))


def test_a_pipe_tells_both_sides():
    assert pipe.Pipe(b''.join).close() == b''
    both = pipe.Pipe(b''.join)
    both.write(b'a')
    both.write(b'b')
    assert both.close() == b'ab'

    def fails(pieces):
        next(pieces)
        raise ValueError('broken')
    both = pipe.Pipe(fails)
    with pytest.raises(ValueError, match='broken'):
        for _ in range(10):
            both.write(b'x')
    both = pipe.Pipe(b''.join)
    both.write(b'x')
    both.abort()
    assert isinstance(both._error, pipe.Broken)
