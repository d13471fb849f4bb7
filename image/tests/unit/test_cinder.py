"""The store on block storage: what is particular to it. What every store must do stands in ``test_stores.py``."""
import fcntl
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

import pytest
from oslo_config import cfg

from kodiak.common import testing
from kodiak.image.drivers import base, cinder, disk

blockstore, objectstores = testing.module(__file__, 'blockstore'), testing.module(__file__, 'objectstores')
pytestmark = pytest.mark.skipif(blockstore.MISSING, reason='qemu-nbd is missing')
MIB = 1 << 20


@pytest.fixture
def server(tmp_path):
    with blockstore.running(tmp_path) as made:
        yield made


def make(server, tmp_path, **options):
    conf = cfg.ConfigOpts()
    conf.register_opts(list(cinder.CinderStore.OPTS), group='store')
    conf([])
    for name, value in options.items():
        conf.set_override(name, value, group='store')
    store = cinder.CinderStore('far', conf.store, str(tmp_path))
    session = objectstores.Session(server.root)
    store.session = lambda: session
    store.prepare()
    return store


@pytest.fixture
def store(server, tmp_path):
    return make(server, tmp_path)


def write(store, data, size=None):
    key = str(uuid.uuid4())
    writer = store.create(key, size)
    writer.write(data)
    writer.commit()
    return key


def test_a_volume_grows_while_nobody_has_it(store, server, monkeypatch):
    server.unit = MIB
    monkeypatch.setattr(cinder, 'GIB', MIB)
    data = os.urandom(MIB) * 10 + b'end'
    key = str(uuid.uuid4())
    writer = store.create(key)
    for start in range(0, len(data), 700000):
        writer.write(data[start:start + 700000])
    writer.commit()
    volume, = server.volumes.values()
    assert volume['size'] >= 11 and volume['readonly'] and volume['metadata']['image_size'] == str(len(data))
    source = store.open(key, 5 * MIB + 1)
    assert b''.join(iter(lambda: source.read(100000), b'')) == data[5 * MIB + 1:]
    source.close()
    assert server.attachments == {} and store.url(key) == f"cinder://far/{volume['id']}"


def test_room_that_there_is_not(store, server, monkeypatch):
    server.unit, server.room = MIB, 2
    monkeypatch.setattr(cinder, 'GIB', MIB)
    with pytest.raises(base.StoreFull):
        store.create(str(uuid.uuid4()), 3 * MIB)
    writer = store.create(str(uuid.uuid4()))
    with pytest.raises(base.StoreFull):
        for _ in range(4):
            writer.write(bytes(MIB))
    writer.abort()
    assert server.volumes == {} and server.attachments == {}


def test_one_volume_has_several_readers(store, server):
    key = write(store, b'data' * 1000)
    readers = [store.open(key) for _ in range(3)]
    assert len(server.attachments) == 3
    assert [reader.read(4) for reader in readers] == [b'data'] * 3
    for reader in readers:
        reader.close()
    assert server.attachments == {}


def test_what_a_dead_process_left_is_given_up(store, server, tmp_path):
    key = write(store, b'x')
    reader = store.open(key)
    reader._attachment._lease.close()
    again = make(server, tmp_path)
    other = again.open(key)
    assert len(server.attachments) == 1 and other.read(5) == b'x'
    # What lives is left alone.
    make(server, tmp_path).open(key).close()
    assert other._attachment.id in server.attachments
    other.close()
    assert os.listdir(tmp_path / 'image' / 'attached' / 'far') == []
    reader._attachment.disk.close()


READS = """
import sys, time
from oslo_config import cfg
from kodiak.image.drivers import cinder
conf = cfg.ConfigOpts()
conf.register_opts(list(cinder.CinderStore.OPTS), group='store')
conf([])
store = cinder.CinderStore('far', conf.store, sys.argv[1])
class Session:
    def get_endpoint(self, **_): return sys.argv[2]
    def get_token(self): return 'swift-token'
store.session = Session
store.prepare()
reader = store.open(sys.argv[3])
print(reader.read(1), reader._attachment.disk._process.pid, flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_leaves_nothing(store, server, tmp_path):
    key = write(store, b'x' * 5000)
    process = subprocess.Popen([sys.executable, '-c', READS, str(tmp_path), store.session().get_endpoint(), key],
                               stdout=subprocess.PIPE, text=True)
    try:
        said, _, nbd = process.stdout.readline().strip().rpartition(' ')
        assert said == "b'x'" and len(server.attachments) == 1
        # What opened the volume for it ends with it.
        watched = os.pidfd_open(int(nbd))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert select.select([watched], [], [], 30)[0]
    os.close(watched)
    assert len(server.attachments) == 1
    make(server, tmp_path).open(key).close()
    assert server.attachments == {} and os.listdir(tmp_path / 'image' / 'attached' / 'far') == []


def test_a_volume_that_breaks_off(store, server, monkeypatch):
    monkeypatch.setattr(disk, 'AHEAD', 1)
    key = write(store, os.urandom(3 * MIB))
    reader = store.open(key)
    reader.read(MIB)
    server.close()
    with pytest.raises(base.StoreUnavailable):
        for _ in range(3):
            reader.read(MIB)
    reader.close()


def test_what_cannot_be_opened(store, server, monkeypatch):
    key = write(store, b'x')
    for connection, reason in (({'driver_volume_type': 'fibre_channel'}, 'fibre_channel'),
                               ({'driver_volume_type': 'iscsi', 'encrypted': True}, 'encrypted'),
                               ({'driver_volume_type': 'nbd', 'host': '127.0.0.1', 'port': 1}, 'cannot be opened')):
        monkeypatch.setattr(server, '_put_attachments', lambda *_, told=connection: {'attachment': {'connection_info': told}})
        with pytest.raises(base.StoreUnavailable, match=reason):
            store.open(key)
        assert server.attachments == {}
    monkeypatch.setenv('PATH', '/nonexistent')
    monkeypatch.setattr(server, '_put_attachments', lambda *_: {'attachment': {'connection_info': {
        'driver_volume_type': 'nbd', 'host': '127.0.0.1', 'port': 1}}})
    with pytest.raises(base.StoreUnavailable, match='qemu-nbd is missing'):
        store.open(key)


def test_a_store_that_is_away(store, server):
    key = write(store, b'x')
    server.fail = lambda request: 503
    for call in (lambda: store.create('x'), lambda: store.open(key), lambda: store.remove(key)):
        with pytest.raises(base.StoreUnavailable):
            call()
    store.session().root = 'http://127.0.0.1:1'
    with pytest.raises(base.StoreUnavailable):
        store.create('x')


def test_half_written_data_is_none(store, server):
    key = str(uuid.uuid4())
    writer = store.create(key, 5)
    writer.write(b'x')
    with pytest.raises(base.NoSuchData):
        store.open(key)
    store.remove(key)
    assert server.volumes == {} and server.attachments == {}
    writer._attachment.disk.close()


def test_secrets_are_in_no_arguments(tmp_path):
    options, arguments, secret = disk.description({
        'driver_volume_type': 'iscsi', 'target_portal': '192.0.2.1:3260', 'target_iqn': 'iqn.x', 'target_lun': 1,
        'auth_username': 'me', 'auth_password': 'secret'}, '')
    assert secret == 'secret' and 'secret' not in [*options.values(), *arguments] and options['password-secret'] == 'key'
    assert options['user'] == 'me' and options['lun'] == 1
    options, arguments, secret = disk.description({
        'driver_volume_type': 'nbd', 'host': 'h', 'port': 10809, 'export': 'e', 'tls': True}, '/etc/x')
    assert options['tls-creds'] == 'tls' and 'dir=/etc/x' in arguments[1] and secret is None
    options, arguments, secret = disk.description({
        'driver_volume_type': 'rbd', 'name': 'pool/volume', 'hosts': ['192.0.2.1', '[2001:db8::1]'], 'ports': ['1', '2'],
        'auth_enabled': True, 'auth_username': 'cinder', 'keyring': 'key'}, '')
    assert (options['pool'], options['image'], options['user'], secret) == ('pool', 'volume', 'cinder', 'key')
    assert options['server'][1] == {'host': '2001:db8::1', 'port': '2'}


@pytest.fixture
def target(tmp_path):
    """An iSCSI target of one disk, with a password: what it is reached by."""
    if not shutil.which('tgtd') or not shutil.which('tgtadm'):
        pytest.skip('tgtd is not installed')
    (tmp_path / 'lun').write_bytes(bytes(2 * MIB))
    port = testing.free_port()
    # The path of a socket may have 107 characters.
    place = tempfile.mkdtemp(prefix='tgt')
    environment = {**os.environ, 'TGT_IPC_SOCKET': os.path.join(place, 's')}
    server = subprocess.Popen([shutil.which('tgtd'), '-f', '-C', '0', '-t', '1', '--iscsi', f'portal=127.0.0.1:{port}'],
                              env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def tell(*arguments):
        return subprocess.run(['tgtadm', '-C', '0', '--lld', 'iscsi', '--op', *arguments], env=environment, timeout=20, check=False,
                              capture_output=True, text=True)
    try:
        for _ in range(400):
            if tell('show', '--mode', 'target').returncode == 0:
                break
            time.sleep(0.02)
        for arguments in (
                ('new', '--mode', 'target', '--tid', '1', '-T', 'iqn.x:disk'),
                ('new', '--mode', 'logicalunit', '--tid', '1', '--lun', '1', '-b', str(tmp_path / 'lun')),
                ('new', '--mode', 'account', '--user', 'me', '--password', 'secret-secret'),
                ('bind', '--mode', 'account', '--tid', '1', '--user', 'me'),
                ('bind', '--mode', 'target', '--tid', '1', '-I', 'ALL')):
            done = tell(*arguments)
            assert done.returncode == 0, done.stderr
        yield {'driver_volume_type': 'iscsi', 'target_portal': f'127.0.0.1:{port}', 'target_iqn': 'iqn.x:disk', 'target_lun': 1,
               'auth_method': 'CHAP', 'auth_username': 'me', 'auth_password': 'secret-secret'}
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(place)


def test_iscsi(target, tmp_path):
    data = os.urandom(MIB + 77)
    opened = disk.Disk(target)
    with open(f'/proc/{opened._process.pid}/cmdline', 'rb') as file:
        assert b'secret-secret' not in file.read()
    opened.write(data, 5)
    opened.flush()
    opened.close()
    assert (tmp_path / 'lun').read_bytes()[5:5 + len(data)] == data
    opened = disk.Disk(target, read_only=True)
    assert opened.size == 2 * MIB and b''.join(opened.read(7, 5 + len(data))) == data[2:]
    opened.close()
    with pytest.raises(base.StoreUnavailable, match=r'cannot be opened: .*iSCSI'):
        disk.Disk({**target, 'auth_password': 'another-secret'})


def test_a_lock_is_seen_by_others(tmp_path):
    leases = cinder.Leases(str(tmp_path / 'x'))
    held = leases.take('a')
    assert leases.dead() == []
    fcntl.flock(held, fcntl.LOCK_UN)
    assert leases.dead() == ['a']
    held.close()
    leases.forget('a')
    leases.forget('a')
    assert leases.dead() == []
