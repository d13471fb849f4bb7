"""The back ends and exporters that this machine has, one after the other.

``KODIAK_CONTRACT_LVM`` (volume group/thin pool), ``KODIAK_CONTRACT_RBD`` (pool, with the machine's ceph.conf) and
``KODIAK_CONTRACT_NFS`` (host:/path) name back ends that may be used for tests; those not named are left out. The file driver
runs on an XFS with reflink where this process may mount one, and on the ordinary file system in any case.
"""
import contextlib
import json
import os
import shutil
import subprocess
import time
import types

import pytest

from kodiak.common.testing import free_port
from kodiak.storage_block.drivers import base
from kodiak.storage_block.drivers.file import FileDriver
from kodiak.storage_block.drivers.lvm import LvmDriver
from kodiak.storage_block.drivers.rbd import RbdDriver
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

class SimulatedLvm(LvmDriver):
    """The driver of LVM over a stand-in of LVM's commands, whose volumes are files: this machine may have no device-mapper."""

    def __init__(self, folder):
        super().__init__('lvm', _options(location='vg/pool'))
        self.devices, self.folder = str(folder), folder / 'vg'
        self.folder.mkdir()

    def open(self, name):
        return base.Node.of_path(super().open(name).path)

    def _lvm(self, command, *args):
        options, names, args = {}, [], list(args)
        while args:
            arg = args.pop(0)
            if arg in ('-q', '-f', '-s', '--nosuffix'):
                options[arg] = True
            elif arg.startswith('-'):
                options[arg] = args.pop(0)
            else:
                names.append(arg)
        try:
            return 0, getattr(self, '_' + command)(options, *names) or '', ''
        except (OSError, AssertionError) as error:
            return 5, '', str(error)

    def _path(self, name):
        return self.folder / name.removeprefix('vg/')

    def _lvs(self, options, group):
        assert group == 'vg' and options['--units'] == 'b'
        rows = [{'lv_name': 'pool', 'lv_size': str(1 << 40), 'pool_lv': '', 'data_percent': '12.50', 'lv_attr': 'twi-aotz--'}]
        rows += [{'lv_name': path.name, 'lv_size': str(path.stat().st_size), 'pool_lv': 'pool', 'data_percent': '1.00',
                  'lv_attr': 'Vwi-a-tz--'} for path in self.folder.iterdir()]
        return json.dumps({'report': [{'lv': rows}]})

    def _lvcreate(self, options, name):
        new = self._path(options['-n'])
        assert not new.exists() and not new.name.startswith('snapshot')
        if '-s' in options:
            assert options['-k'] == 'n' and self._path(name).exists()
            shutil.copy(self._path(name), new)
        else:
            assert options['--thinpool'] == 'pool' and name == 'vg'
            with open(new, 'wb') as file:
                file.truncate(int(options['-V'].removesuffix('b')))

    def _lvremove(self, options, name):
        assert '-f' in options
        self._path(name).unlink()

    def _lvrename(self, options, group, old, new):
        assert group == 'vg' and not self._path(new).exists()
        self._path(old).rename(self._path(new))

    def _lvextend(self, options, name):
        size = int(options['-L'].removesuffix('b'))
        assert size > self._path(name).stat().st_size
        os.truncate(self._path(name), size)


class SimulatedRbd(RbdDriver):
    """The driver of Ceph over a stand-in of ``rbd``, whose images are files: ``image`` and ``image@snapshot``."""

    def __init__(self, folder):
        super().__init__('rbd', _options(location='pool', user='admin', secret_uuid='uuid'))
        self.folder = folder

    def open(self, name):
        options = super().open(name).options['file']
        assert options['driver'] == 'rbd' and options['pool'] == 'pool'
        return base.Node.of_path(str(self.folder / '@'.join(filter(None, (options['image'], options.get('snapshot'))))))

    def _tool(self, program, *args):
        if program == 'ceph':
            answers = {'df': {'pools': [{'name': 'pool', 'stats': {'bytes_used': 1 << 30, 'max_avail': 1 << 40}}]},
                       'mon': {'mons': [{'addr': '192.0.2.1:6789/0'}, {'addr': '[2001:db8::1]:6789/0'}]}}
            return 0, json.dumps(answers[args[0]]), ''
        args = [arg for arg in args if arg != '--no-progress']
        options = {args[at]: args[at + 1] for at in range(len(args)) if args[at].startswith('--')}
        words = [arg for at, arg in enumerate(args) if not arg.startswith('--') and not (at and args[at - 1].startswith('--') and
                                                                                        args[at - 1] != '-l')]
        command = '_'.join(words[:2]) if words[0] in ('snap', 'trash') else words[0]
        try:
            return 0, getattr(self, '_do_' + command)(options, *words[2 if '_' in command else 1:]) or '', ''
        except FileNotFoundError:
            return 2, '', 'No such file or directory'
        except NotADirectoryError:
            return 39, '', 'Directory not empty'

    def _file(self, name):
        return self.folder / name.removeprefix('pool/')

    def _size(self, options):
        return int(options['--size'].removesuffix('B'))

    def _do_ls(self, options, *_pool):
        rows = []
        for path in self.folder.iterdir():
            image, _, snapshot = path.name.partition('@')
            rows.append({'image': image, 'size': path.stat().st_size, **({'snapshot': snapshot} if snapshot else {})})
        return json.dumps(rows)

    def _do_info(self, options, name):
        return json.dumps({'size': self._file(name).stat().st_size})

    def _do_create(self, options, name):
        with open(self._file(name), 'xb') as file:
            file.truncate(self._size(options))

    def _do_rm(self, options, name):
        if list(self.folder.glob(self._file(name).name + '@*')):
            raise NotADirectoryError
        self._file(name).unlink()

    def _do_trash_mv(self, options, name):
        for path in [self._file(name), *self.folder.glob(self._file(name).name + '@*')]:
            path.unlink()

    def _do_trash_purge(self, options, pool):
        pass

    def _do_mv(self, options, old, new):
        self._file(old).rename(self._file(new))

    def _do_resize(self, options, name):
        os.truncate(self._file(name), self._size(options))

    def _do_snap_create(self, options, name):
        shutil.copy(self._file(name.partition('@')[0]), self._file(name))

    def _do_snap_rm(self, options, name):
        self._file(name).unlink()

    def _do_snap_rollback(self, options, name):
        shutil.copy(self._file(name), self._file(name.partition('@')[0]))

    def _do_clone(self, options, name, new):
        assert options['--rbd-default-clone-format'] == '2'
        shutil.copy(self._file(name), self._file(new))


def make_driver(kind, tmp_path_factory, xfs):
    """A driver of this kind, started; skips where the machine has no such back end."""
    if kind == 'file-reflink':
        if xfs is None:
            pytest.skip('no file system with reflink can be mounted here')
        driver = FileDriver('file', _options(path=str(xfs / f'volumes-{time.monotonic_ns()}')))
    elif kind == 'file-copy':
        driver = FileDriver('file', _options(path=str(tmp_path_factory.mktemp('volumes'))))
    elif kind == 'lvm-simulated':
        driver = SimulatedLvm(tmp_path_factory.mktemp('lvm'))
    elif kind == 'rbd-simulated':
        driver = SimulatedRbd(tmp_path_factory.mktemp('rbd'))
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


@pytest.fixture(params=['file-reflink', 'file-copy', 'lvm-simulated', 'rbd-simulated', 'lvm', 'rbd', 'nfs'])
def driver(request, tmp_path_factory, xfs):
    driver = make_driver(request.param, tmp_path_factory, xfs)
    yield driver
    for name, _size in driver.listing():
        if base.NAME.fullmatch(name):
            driver.delete(name)


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
