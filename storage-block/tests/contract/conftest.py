"""The back ends and exporters that this machine has, one after the other.

``KODIAK_CONTRACT_LVM`` (volume group/thin pool), ``KODIAK_CONTRACT_RBD`` (pool, with the machine's ceph.conf) and
``KODIAK_CONTRACT_NFS`` (host:/path) name back ends that may be used for tests; those not named are left out. The file driver
runs on an XFS with reflink where this process may mount one, and on the ordinary file system in any case.
"""
import contextlib
import os
import shutil
import socket
import subprocess
import time
import types

import pytest

from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.file import FileDriver
from kodiak.storage_block.exports import pki
from kodiak.storage_block.exports.nbd import NbdExporter
from kodiak.storage_block.exports.tgt import TgtExporter


def program(name):
    """The path of a program, or None."""
    return shutil.which(name, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin')


@contextlib.contextmanager
def reflink_folder(tmp_path_factory):
    """A folder on an XFS of its own, or None where that can't be had."""
    if os.geteuid() != 0 or not program('mkfs.xfs'):
        yield None
        return
    place = tmp_path_factory.mktemp('xfs')
    image, folder = place / 'image', place / 'mounted'
    folder.mkdir()
    with open(image, 'wb') as file:
        file.truncate(2 << 30)
    made = subprocess.run([program('mkfs.xfs'), '-q', '-m', 'reflink=1', image], check=False, capture_output=True)
    mounted = made.returncode == 0 and subprocess.run(
        ['mount', '-o', 'loop', image, folder], check=False, capture_output=True).returncode == 0
    if not mounted:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


@pytest.fixture(scope='session')
def xfs(tmp_path_factory):
    with reflink_folder(tmp_path_factory) as folder:
        yield folder


def _options(**values):
    return types.SimpleNamespace(**values)


def make_driver(kind, tmp_path_factory, xfs):
    """A driver of this kind, started; skips where the machine has no such back end."""
    if kind == 'file-reflink':
        if xfs is None:
            pytest.skip('no file system with reflink can be mounted here')
        driver = FileDriver('file', _options(path=str(xfs / f'volumes-{time.monotonic_ns()}')))
    elif kind == 'file-copy':
        driver = FileDriver('file', _options(path=str(tmp_path_factory.mktemp('volumes'))))
    else:
        place = os.environ.get(f'KODIAK_CONTRACT_{kind.upper()}')
        if not place:
            pytest.skip(f'no {kind} back end is named for tests')
        from stevedore import driver as loader
        plugin = loader.DriverManager('kodiak.storage_block.drivers', kind).driver
        driver = plugin(kind, _options(path=str(tmp_path_factory.mktemp(kind)), location=place, mount_options='', user='admin',
                                       secret_uuid='', ceph_conf='/etc/ceph/ceph.conf'))
    driver.start()
    return driver


@pytest.fixture(params=['file-reflink', 'file-copy', 'lvm', 'rbd', 'nfs'])
def driver(request, tmp_path_factory, xfs):
    driver = make_driver(request.param, tmp_path_factory, xfs)
    yield driver
    for name, _size in driver.listing():
        if base.NAME.fullmatch(name):
            driver.delete(name)


def free_port():
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Server:
    """A process that exporters talk to; can be killed and started again."""

    def __init__(self, command, environment, ready):
        self.command, self.environment, self.ready = command, environment, ready
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.ready()
                return
            except base.Fault:
                assert time.monotonic() < deadline, 'the server does not come up'
                time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope='session')
def tgt(tmp_path_factory):
    if not program('tgtd'):
        pytest.skip('tgtd is not installed')
    place, port = tmp_path_factory.mktemp('tgt'), free_port()
    exporter = TgtExporter(str(place / 's.0'), f'127.0.0.1:{port}')
    server = Server([program('tgtd'), '-f', '-C', '0', '-t', '4', '--iscsi', f'portal=127.0.0.1:{port}'],
                    {'TGT_IPC_SOCKET': str(place / 's')}, exporter.tgtd.targets)
    server.start()
    yield exporter, server
    server.kill()


@pytest.fixture(scope='session')
def nbd(tmp_path_factory):
    if not program('qemu-storage-daemon'):
        pytest.skip('qemu-storage-daemon is not installed')
    place, port = tmp_path_factory.mktemp('nbd'), free_port()
    paths = pki.make(str(place / 'pki'), ['127.0.0.1', 'localhost'])
    exporter = NbdExporter(str(place / 'qmp'), '127.0.0.1', port)
    exporter.client_certificates = paths['client']
    server = Server(
        [program('qemu-storage-daemon'), '--chardev', f'socket,path={place}/qmp,server=on,wait=off,id=qmp', '--monitor', 'qmp',
         '--object', f'tls-creds-x509,id=tls,dir={paths["server"]},endpoint=server,verify-peer=on',
         '--nbd-server', f'addr.type=inet,addr.host=127.0.0.1,addr.port={port},tls-creds=tls'], {}, exporter.qmp.open)
    server.start()
    yield exporter, server
    exporter.qmp.close()
    server.kill()


@pytest.fixture(params=['tgt', 'nbd'])
def exporter(request):
    """(exporter, its server), with nothing exported at the end."""
    made, server = request.getfixturevalue(request.param)
    yield made, server
    made.sync([])
