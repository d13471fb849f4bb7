"""The RBD store on a Ceph cluster of one monitor and one OSD in memory, started for these tests.

Needs ceph-mon, ceph-osd, ceph-common, python3-rados and python3-rbd; no root.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time
import uuid

import pytest
from oslo_config import cfg

from kodiak.common import testing
from kodiak.image.drivers import base, rbd

MIB = 1 << 20
DATA = os.urandom(5 * MIB) + bytes(6 * MIB) + os.urandom(MIB + 77)
BINDINGS = [pathlib.Path('/usr/lib/python3/dist-packages', name + sysconfig.get_config_var('EXT_SUFFIX'))
            for name in ('rados', 'rbd')]
pytestmark = [pytest.mark.system, pytest.mark.skipif(
    not (shutil.which('ceph-mon') and shutil.which('ceph-osd') and all(path.exists() for path in BINDINGS)),
    reason='Ceph and its Python bindings are not installed')]
CONF = """[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
pid_file = {folder}/$name.pid
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_objectstore = memstore
memstore_device_bytes = 536870912
osd_crush_chooseleaf_type = 0
mon_data = {folder}/mon
osd_data = {folder}/osd
keyring = {folder}/keyring
"""


@pytest.fixture(scope='module')
def ceph(tmp_path_factory):
    """The path of a running cluster's configuration; it has the pool ``images``."""
    folder = tmp_path_factory.mktemp('ceph')
    conf, fsid = folder / 'ceph.conf', str(uuid.uuid4())
    port = testing.free_port()
    conf.write_text(CONF.format(fsid=fsid, port=port, folder=folder))
    for name in ('mon', 'osd', 'bindings'):
        (folder / name).mkdir()
    for path in BINDINGS:
        (folder / 'bindings' / path.name).symlink_to(path)

    def run(*command):
        return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout

    def tell(*command):
        return run('ceph', '-c', conf, '--connect-timeout', '20', *command)
    run('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', f'[v2:127.0.0.1:{port}]', folder / 'monmap')
    run('ceph-authtool', '--create-keyring', folder / 'keyring', '--gen-key', '-n', 'mon.', '--cap', 'mon', 'allow *')
    run('ceph-authtool', folder / 'keyring', '--gen-key', '-n', 'client.admin', '--cap', 'mon', 'allow *', '--cap', 'osd',
        'allow *')
    run('ceph-mon', '-c', conf, '--mkfs', '-i', 'a', '--monmap', folder / 'monmap', '--keyring', folder / 'keyring')
    running = []
    sys.path.insert(0, str(folder / 'bindings'))
    try:
        with open(folder / 'out', 'w') as out:
            running.append(subprocess.Popen(['ceph-mon', '-c', conf, '-i', 'a', '-f'], stdout=out, stderr=out))
            osd = str(uuid.uuid4())
            assert tell('osd', 'new', osd).strip() == '0'
            run('ceph-osd', '-c', conf, '-i', '0', '--mkfs', '--osd-uuid', osd)
            running.append(subprocess.Popen(['ceph-osd', '-c', conf, '-i', '0', '-f'], stdout=out, stderr=out))
        end = time.monotonic() + 60
        while '1 up' not in tell('osd', 'stat'):
            assert time.monotonic() < end, tell('-s')
            time.sleep(0.5)
        tell('osd', 'pool', 'create', 'images', '8')
        yield conf
    finally:
        sys.path.remove(str(folder / 'bindings'))
        for process in reversed(running):
            process.kill()
            process.wait(20)


@pytest.fixture
def store(ceph):
    conf = cfg.ConfigOpts()
    conf.register_opts(list(rbd.RbdStore.OPTS), group='store')
    conf([])
    conf.set_override('ceph_conf', str(ceph), group='store')
    conf.set_override('user', 'admin', group='store')
    made = rbd.RbdStore('ceph', conf.store, '/')
    made.prepare()
    made.set = lambda name, value: conf.set_override(name, value, group='store')
    return made


def write(store, data, size=None):
    key = str(uuid.uuid4())
    writer = store.create(key, size)
    for start in range(0, len(data), MIB):
        writer.write(data[start:start + MIB])
    return key, writer


def left(store):
    with store.pool() as ioctx:
        return store._rbd.RBD().list(ioctx)


@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize('data', [b'', b'x', DATA], ids=len)
def test_what_is_written_is_read(store, data, known):
    key, writer = write(store, data, len(data) if known else None)
    writer.commit()
    for offset in {0, min(1, len(data)), min(MIB + 3, len(data))}:
        source = store.open(key, offset)
        assert b''.join(iter(lambda source=source: source.read(MIB), b'')) == data[offset:]
        source.close()
    assert store.url(key).endswith(f'/images/{key}/snap')
    for _ in range(2):
        store.remove(key)
    with pytest.raises(base.NoSuchData):
        store.open(key)
    assert left(store) == []


def test_an_image_with_a_clone_stays_until_that_is_gone(store):
    key, writer = write(store, DATA)
    writer.commit()
    with store.pool() as ioctx:
        store._rbd.RBD().clone(ioctx, key, 'snap', ioctx, 'clone')
    with pytest.raises(base.StoreUnavailable, match='in use'):
        store.remove(key)
    store.open(key).close()
    with store.pool() as ioctx:
        store._rbd.RBD().remove(ioctx, 'clone')
    store.remove(key)
    assert left(store) == []


@pytest.mark.parametrize('pieces', [0, 3])
def test_what_is_broken_off_leaves_nothing(store, pieces):
    write(store, DATA[:pieces * MIB])[1].abort()
    assert left(store) == []


def test_a_cluster_or_pool_that_is_not_there(store):
    store.set('pool', 'nothing')
    with pytest.raises(base.StoreUnavailable, match='nothing'):
        store.create('x')
    store.set('ceph_conf', '/nonexistent')
    for call in (lambda: store.create('x'), lambda: store.open('x'), lambda: store.remove('x')):
        with pytest.raises(base.StoreUnavailable):
            call()
