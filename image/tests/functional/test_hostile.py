"""Images made to hurt: each is refused with a reason, within bounded memory and time, and nothing of it stays."""
import gzip
import io
import os
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib

import pytest
import sqlalchemy as sa
import werkzeug.test

from kodiak.common import testing
from kodiak.image import convert, models, unpack

images = testing.module(__file__, 'images')

BYTES = {'Content-Type': 'application/octet-stream'}
#: Bytes that the process may grow by while it looks at one image.
MEMORY = 96 << 20
#: Seconds that one image may keep the test; far more than any needs.
DEADLINE = 100
needs_qemu = pytest.mark.skipif(not (shutil.which('qemu-img') and shutil.which('prlimit')), reason='qemu-img or prlimit is missing')


@pytest.fixture(autouse=True)
def deadline():
    def late(*_):
        raise TimeoutError(f'the image kept the service busy for {DEADLINE} s')
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def memory():
    """The peak of this process's memory is measured over each test alone."""
    def peak():
        with open('/proc/self/status') as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith('VmHWM:'))
    try:
        with open('/proc/self/clear_refs', 'w') as file:
            file.write('5')
    except OSError:
        yield
        return
    before = peak()
    yield
    assert peak() - before < MEMORY


def tiny_qcow2(size):
    """A qcow2 of six clusters whose every cluster of the disk is the same one: a small file that is a large disk full of data."""
    cluster = 1 << 16
    entries = -(-size // (cluster * (cluster // 8)))
    header = images.qcow2(size=size, l1_entries=entries, l1_offset=3 * cluster, length=3 * cluster)
    tables = struct.pack(f'>{entries}Q', *[(1 << 63) | 4 * cluster] * entries).ljust(cluster, b'\0')
    second = struct.pack('>Q', (1 << 63) | 5 * cluster) * (cluster // 8)
    return header + tables + second + b'x' * cluster


def zipped(name='disk.img', data=b'x' * 1000, mode=0):
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, mode << 16, 3
        archive.writestr(info, data)
    return target.getvalue()


def ova(*members):
    """An archive of ``(name, kind, link)``, or with its data besides; ``kind`` is one of tarfile's."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w') as archive:
        for name, kind, link, *data in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            data = data[0] if data else images.vmdk() if kind == tarfile.REGTYPE else b''
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def sparse_tar():
    """An archive with a sparse file of GNU's kind, which is a terabyte of nothing."""
    info = tarfile.TarInfo('box.vmdk')
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b'%011o ' % 0 + b'%011o ' % 0
    header[483:495] = b'%011o ' % (1 << 32)
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    return bytes(header) + bytes(1024)


def tiny_vmdk(sectors):
    """A compressed VMDK whose grains are all the same one: a small file that is a large disk full of data."""
    grain = zlib.compress(b'x' * 65536)
    tables = -(-sectors // 128 // 512)
    directory_sector, table_sector = 16, 16 + -(-tables * 4 // 512)
    grain_sector = table_sector + 4
    header = bytearray(images.vmdk(sectors=sectors, length=grain_sector * 512))
    # Flags: compressed grains with markers; the directory of the grains; deflate.
    struct.pack_into('<I', header, 8, 0x30001)
    struct.pack_into('<QQ', header, 48, 0, directory_sector)
    struct.pack_into('<H', header, 77, 1)
    struct.pack_into(f'<{tables}I', header, directory_sector * 512, *[table_sector] * tables)
    struct.pack_into('<512I', header, table_sector * 512, *[grain_sector] * 512)
    return (bytes(header) + struct.pack('<QI', 0, len(grain)) + grain).ljust((grain_sector + 4) * 512, b'\0')


#: What is uploaded as the image's data: name to (data, disk_format, a word of the reason).
UPLOADS = {
    'qcow2 with a backing file': (images.qcow2(backing=512), 'qcow2', 'backing'),
    'qcow2 with a backing file that says raw': (images.qcow2(backing=512), 'raw', 'backing'),
    'qcow2 with a data file': (images.qcow2(features=4), 'qcow2', 'data_file'),
    'qcow2 with a huge L1 table': (images.qcow2(l1_entries=1 << 28), 'qcow2', 'L1'),
    'qcow2 with an L1 table outside': (images.qcow2(l1_offset=1 << 40), 'qcow2', 'L1'),
    'qcow2 with a huge refcount table': (images.qcow2(refcount_clusters=1 << 30), 'qcow2', 'refcount'),
    'qcow2 with a billion snapshots': (images.qcow2(snapshots=1 << 30), 'qcow2', 'snapshots'),
    'qcow2 of an impossible cluster size': (images.qcow2(cluster_bits=63), 'qcow2', 'cluster'),
    'vmdk descriptor of a host file': (images.vmdk_text(), 'vmdk', 'subformat'),
    'vmdk descriptor of a host file, as raw': (images.vmdk_text(), 'raw', 'subformat'),
    'vmdk with an extent that is a host file': (images.vmdk(extent='RW 2048 FLAT "/etc/passwd" 0'), 'vmdk', 'extent'),
    'vmdk with an extent beside it': (images.vmdk(extent='RW 2048 FLAT "secret" 0'), 'vmdk', 'extents'),
    'vmdk with a parent': (images.vmdk('monolithicSparse', extra='parentFileNameHint="../secret"\n'), 'vmdk', 'parent'),
    'vmdk of two types': (images.vmdk('monolithicSparse', extra='CREATETYPE="monolithicFlat"\n', sectors=0), 'vmdk', 'types'),
    'vmdk with extents of two kinds': (images.vmdk(extent='RW 2048 ZERO\nRW 2048 FLAT "secret" 0'), 'vmdk', 'extents'),
    'vmdk with an extent that is a vmdk': (images.vmdk(extent='RW 2048 VMFSSPARSE "inner.vmdk"'), 'vmdk', 'extents'),
    'vmdk with a descriptor in its descriptor': (
        images.vmdk(extra=images.vmdk_text('RW 2048 SPARSE "inner.vmdk"', 'monolithicSparse').decode()), 'vmdk', 'several types'),
    'vhd with a parent': (images.vhd(kind=4), 'vhd', 'parent'),
    'vhd with a huge table': (images.vhd(entries=1 << 29), 'vhd', 'table'),
    'vhdx with a parent': (images.vhdx(parent=True), 'vhdx', 'parent'),
    'vhdx that says it has a parent': (images.vhdx(flags=2), 'vhdx', 'parent'),
    'vhdx with a huge table': (images.vhdx(table_bytes=0xfff00000), 'vhdx', 'too large'),
    'vhdx with its table outside': (images.vhdx(table=1 << 62), 'vhdx', 'too large'),
    'vhdx with a small table': (images.vhdx(size=1 << 40, table_bytes=4096), 'vhdx', 'does not fit'),
    'vhdx with too many regions': (images.vhdx(regions=60000), 'vhdx', 'vhdx'),
    'vhdx with too many items': (images.vhdx(items=60000), 'vhdx', 'vhdx'),
    'vhdx of an impossible size': (images.vhdx(size=1 << 63), 'vhdx', 'impossible'),
    'vdi with its table outside': (images.vdi(table=0xfffffff0), 'vdi', 'too large'),
    'vdi of an impossible block': (images.vdi(block=0, blocks=1), 'vdi', 'does not fit'),
    'vdi with a parent': (images.vdi(parent=b'x' * 16), 'vdi', 'parent'),
    'vdi with a huge table': (images.vdi(blocks=1 << 29), 'vdi', 'table'),
    'qed': (images.qed(), 'raw', 'qed'),
    'qcow2 and ISO at once': (images.over(images.qcow2()[:512], images.iso()), 'iso', 'qcow2'),
    'qcow2 and GPT at once': (images.qcow2()[:446] + images.mbr()[446:512] + images.qcow2()[512:], 'qcow2', 'several'),
    'vhd and ISO at once': (images.over(images.vhd()[:2048], images.iso()), 'vhd', 'several'),
    'vdi and ISO at once': (images.over(images.vdi()[:2048], images.iso()), 'vdi', 'several'),
    'raw that says qcow2': (bytes(70000), 'qcow2', 'raw'), 'qcow2 that says raw': (images.qcow2(), 'raw', 'qcow2'),
}
_LHA = {
    'lha bomb': (images.lha_bomb(1 << 31), 'raw', 'bare', 'larger'),
    'lha of a gzip bomb': (images.lha(gzip.compress(bytes(16 << 20))), 'qcow2', 'bare', 'raw'),
    'lha of a qcow2 with a backing file': (images.lha(images.qcow2(backing=512, length=1000)), 'qcow2', 'bare', 'backing'),
    'lha that lies about its size': (images.lha(b'x' * 1000, size=1 << 31), 'raw', 'bare', 'damaged'),
    'lha slip': (images.lha(b'x', name=b'../../../../etc/cron.d/x'), 'raw', 'bare', 'outside of itself'),
    'lha slip in a further header': (
        images.lha(b'x', level=1, extended=[(2, b'..\xff..\xff')]), 'raw', 'bare', 'outside of itself'),
    'lha of a link': (images.lha(b'', method=b'-lhd-', name=b'x|/etc/passwd'), 'raw', 'bare', 'link'),
    'lha of a device': (images.lha(b'', level=1, extended=[(0x50, b'\0\x60')]), 'raw', 'bare', 'not a file'),
    'lha of two files': (images.lha(b'x')[:-1] + images.lha(b'y'), 'raw', 'bare', 'one file'),
}
#: What is refused when an import takes it out of its archive or converts it: name to (data, disk_format, container, a word).
IMPORTS = {
    'gzip bomb': (gzip.compress(bytes(64 << 20)), 'raw', 'bare', 'larger'),
    'gzip bomb of gzip bombs': (gzip.compress(gzip.compress(bytes(64 << 20))), 'qcow2', 'bare', 'raw'),
    'zip bomb': (zipped(data=bytes(64 << 20)), 'raw', 'bare', 'larger'),
    'gzip of a qcow2 with a backing file': (gzip.compress(images.qcow2(backing=512)), 'qcow2', 'bare', 'backing'),
    'zip slip': (zipped('../../../../etc/cron.d/x'), 'raw', 'bare', 'outside of itself'),
    'zip of an absolute path': (zipped('/etc/cron.d/x'), 'raw', 'bare', 'outside of itself'),
    'zip of a link': (zipped(data=b'/etc/passwd', mode=stat.S_IFLNK | 0o777), 'raw', 'bare', 'not a file'),
    'ova whose disk is a descriptor of a host file': (
        ova(('box.vmdk', tarfile.REGTYPE, '', images.vmdk_text())), 'vmdk', 'ova', 'subformat'),
    'ova whose disk has extents beside it': (
        ova(('box.vmdk', tarfile.REGTYPE, '', images.vmdk(extent='RW 2048 FLAT "x" 0'))), 'vmdk', 'ova', 'extents'),
    'ova in an ova': (ova(('box.vmdk', tarfile.REGTYPE, '', ova(('box.vmdk', tarfile.REGTYPE, '')))), 'vmdk', 'ova', 'raw'),
    'ova whose disk is a sparse file of a tar': (sparse_tar(), 'vmdk', 'ova', 'larger|ends too early|damaged'),
    'gzip of an ova slip': (gzip.compress(ova(('../../box.vmdk', tarfile.REGTYPE, ''))), 'vmdk', 'ova', 'damaged'),
    'ova with a symbolic link': (ova(('box.vmdk', tarfile.SYMTYPE, '/etc/passwd')), 'vmdk', 'ova', 'link'),
    'ova with a hard link': (ova(('box.vmdk', tarfile.LNKTYPE, '/etc/passwd')), 'vmdk', 'ova', 'link'),
    'ova with a link behind its disk': (ova(('box.vmdk', tarfile.REGTYPE, ''), ('x', tarfile.SYMTYPE, '/')), 'vmdk', 'ova', 'link'),
    'ova with a device': (ova(('box.vmdk', tarfile.BLKTYPE, '')), 'vmdk', 'ova', 'device'),
    'ova slip': (ova(('../../box.vmdk', tarfile.REGTYPE, '')), 'vmdk', 'ova', 'outside of itself'),
}
IMPORTS.update(_LHA if shutil.which('lhasa') else {})
CONVERSIONS = {
    'small qcow2 of a large disk': (tiny_qcow2(40 << 30), 'qcow2', 'allowed'),
    'small vmdk of a large disk': (tiny_vmdk(40 << 21), 'vmdk', 'allowed'),
    'vhdx whose tables lead astray': (images.vhdx(), 'vhdx', 'cannot be converted'),
    'vdi whose blocks lie nowhere': (
        images.vdi(size=4 << 20)[:512] + bytes(range(1, 17)) + bytes(4096), 'vdi', 'cannot be converted'),
    'qcow2 whose tables lead astray': (images.qcow2(size=1 << 30)[:0x30000] + struct.pack('>QQ', (1 << 63) | 0x200, 0)
                                       + bytes(65536), 'qcow2', 'cannot be converted'),
}


def nothing_stays(cloud, image):
    """Assert that neither rows nor files tell of the image's data."""
    cloud.runtime.background[0].look()
    with cloud.runtime.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(models.blobs)).scalar() == 0
    for path in (cloud.runtime.extra['stores'].default.path, os.path.join(cloud.runtime.conf.state_path, 'image', 'scratch')):
        assert [name for _, _, names in os.walk(path) for name in names] == []
    shown = cloud.client(testing.MEMBER).get('/v2/images/' + image['id']).expect(200).json
    assert shown['status'] == 'queued'
    assert [shown[name] for name in ('size', 'virtual_size', 'checksum', 'os_hash_value')] == [None] * 4


@pytest.mark.parametrize('name', UPLOADS)
def test_uploads_are_refused(cloud, helpers, name):
    data, declared, word = UPLOADS[name]
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member, disk_format=declared)
    answer = helpers.upload(member, image['id'], data, status=400)
    assert word in answer.json['message']
    nothing_stays(cloud, image)


def refuse(cloud, helpers, data, declared, container, word, **method):
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member, disk_format=declared, container_format=container)
    path = '/v2/images/' + image['id']
    member.put(path + '/stage', data=data, headers=BYTES).expect(204)
    member.post(path + '/import', {'method': {'name': 'glance-direct', **method}}).expect(202)
    cloud.runtime.background[1].run_due()
    task = member.get(path + '/tasks').json['tasks'][0]
    assert task['status'] == 'failure' and re.search(word, task['message']), task
    assert member.get(path).json['os_glance_failed_import'] == 'file'
    nothing_stays(cloud, image)


@pytest.mark.parametrize('name', UPLOADS)
def test_imports_of_the_same_fail(make_cloud, helpers, name):
    data, declared, word = UPLOADS[name]
    refuse(make_cloud(imports__unpack=True, imports__convert_to='raw'), helpers, data, declared, 'bare', word)


@pytest.mark.parametrize('name', IMPORTS)
def test_archives_are_refused(make_cloud, helpers, monkeypatch, name):
    data, declared, container, word = IMPORTS[name]
    # What little data may become, so that a bomb need not be large.
    monkeypatch.setattr(unpack, 'FREE', 8 << 20)
    convert_to = {'convert_to': 'qcow2'} if container == 'ova' else {}
    refuse(make_cloud(imports__unpack=True), helpers, data, declared, container, word, **convert_to)


@needs_qemu
@pytest.mark.parametrize('name', CONVERSIONS)
def test_conversions_are_refused(cloud, helpers, name):
    data, declared, word = CONVERSIONS[name]
    refuse(cloud, helpers, data, declared, 'bare', word, convert_to='raw')


@pytest.fixture
def made(tmp_path):
    """``made(format, size)``: an image as qemu-img makes it, of a disk with something at its beginning."""
    def make(name, size):
        raw, path = tmp_path / 'raw', tmp_path / 'made'
        with open(raw, 'wb') as file:
            file.write(b'something' * 1000)
            file.truncate(size)
        # Small blocks, so that the image is small: its bytes count for the memory of the test.
        options = {**convert.OPTIONS, 'vhdx': ['-o', 'block_size=1048576']}
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', convert.QEMU[name], *options.get(name, ()), raw, path],
                       check=True)
        raw.unlink()
        return path.read_bytes()
    return make


@needs_qemu
@pytest.mark.parametrize('name', ['qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx'])
def test_small_images_of_large_disks_are_not_converted(cloud, helpers, made, monkeypatch, name):
    monkeypatch.setattr(convert, 'FREE', 1 << 30)
    monkeypatch.setattr(convert, 'RATIO', 1)
    refuse(cloud, helpers, made(name, 2 << 30), name, 'bare', 'allowed', convert_to='raw')


@needs_qemu
@pytest.mark.parametrize('name', ['qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx'])
def test_damaged_images_are_converted_or_refused(make_cloud, helpers, made, name):
    cloud, chance, seed = make_cloud(limits__image_size=64 << 20), random.Random(3), made(name, 4 << 20)
    member = cloud.client(testing.MEMBER)
    statuses = set()
    for _ in range(12):
        data = bytearray(seed)
        for _ in range(chance.randrange(1, 40)):
            data[chance.randrange(chance.choice((600, 4096, len(data))))] = chance.choice((0, 1, 127, 128, 255))
        image = helpers.create(member, disk_format=name)
        path = '/v2/images/' + image['id']
        member.put(path + '/stage', data=bytes(data), headers=BYTES).expect(204)
        del data
        member.post(path + '/import', {'method': {'name': 'glance-direct', 'convert_to': 'raw'}}).expect(202)
        cloud.runtime.background[1].run_due()
        status = member.get(path).json['status']
        statuses.add(status)
        if status == 'active':
            member.delete(path).expect(204)
            cloud.runtime.background[0].look()
        else:
            nothing_stays(cloud, image)
    assert statuses <= {'active', 'queued'}


@needs_qemu
def test_a_conversion_that_takes_too_long_is_ended(cloud, helpers, monkeypatch):
    monkeypatch.setattr(convert, 'SECONDS', 0.01)
    refuse(cloud, helpers, tiny_qcow2(20 << 30), 'qcow2', 'bare', 'cannot be converted', convert_to='raw')


def test_data_without_an_end_is_cut_off(make_cloud, helpers):
    cloud = make_cloud(limits__image_size=4 << 20)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)

    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size=-1):
            self.taken += size
            assert self.taken < 64 << 20
            return b'x' * size
    # As the server gives chunked data: it has no announced length, and ends by itself.
    environ = werkzeug.test.EnvironBuilder(image['file'], method='PUT', headers={
        **BYTES, 'X-Auth-Token': cloud.identity.token(testing.MEMBER), 'Transfer-Encoding': 'chunked'}).get_environ()
    environ.update({'wsgi.input': Endless(), 'wsgi.input_terminated': True})
    assert werkzeug.test.run_wsgi_app(cloud.application, environ)[1].startswith('413')
    nothing_stays(cloud, image)
