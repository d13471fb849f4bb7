"""Images made to hurt: each is refused with a reason, within bounded memory and time, and nothing of it stays."""
import gzip
import io
import os
import shutil
import signal
import stat
import struct
import tarfile
import zipfile

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
    """An archive of ``(name, kind, link)``; ``kind`` is one of tarfile's."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w') as archive:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            data = images.vmdk() if kind == tarfile.REGTYPE else b''
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


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
    'vhd with a parent': (images.vhd(kind=4), 'vhd', 'parent'),
    'vhd with a huge table': (images.vhd(entries=1 << 29), 'vhd', 'table'),
    'vhdx with a parent': (images.vhdx(parent=True), 'vhdx', 'parent'),
    'vdi with a parent': (images.vdi(parent=b'x' * 16), 'vdi', 'parent'),
    'vdi with a huge table': (images.vdi(blocks=1 << 29), 'vdi', 'table'),
    'qed': (images.qed(), 'raw', 'qed'),
    'qcow2 and ISO at once': (images.over(images.qcow2()[:512], images.iso()), 'iso', 'qcow2'),
    'qcow2 and GPT at once': (images.qcow2()[:446] + images.mbr()[446:512] + images.qcow2()[512:], 'qcow2', 'several'),
    'vhd and ISO at once': (images.over(images.vhd()[:2048], images.iso()), 'vhd', 'several'),
    'vdi and ISO at once': (images.over(images.vdi()[:2048], images.iso()), 'vdi', 'several'),
    'raw that says qcow2': (bytes(70000), 'qcow2', 'raw'), 'qcow2 that says raw': (images.qcow2(), 'raw', 'qcow2'),
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
    'ova with a symbolic link': (ova(('box.vmdk', tarfile.SYMTYPE, '/etc/passwd')), 'vmdk', 'ova', 'link'),
    'ova with a hard link': (ova(('box.vmdk', tarfile.LNKTYPE, '/etc/passwd')), 'vmdk', 'ova', 'link'),
    'ova with a link behind its disk': (ova(('box.vmdk', tarfile.REGTYPE, ''), ('x', tarfile.SYMTYPE, '/')), 'vmdk', 'ova', 'link'),
    'ova with a device': (ova(('box.vmdk', tarfile.BLKTYPE, '')), 'vmdk', 'ova', 'device'),
    'ova slip': (ova(('../../box.vmdk', tarfile.REGTYPE, '')), 'vmdk', 'ova', 'outside of itself'),
}
CONVERSIONS = {
    'small qcow2 of a large disk': (tiny_qcow2(40 << 30), 'qcow2', 'allowed'),
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
    assert task['status'] == 'failure' and word in task['message'], task
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
