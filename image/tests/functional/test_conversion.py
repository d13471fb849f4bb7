import gzip
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from kodiak.common import errors, testing
from kodiak.image import convert, unpack

images = testing.module(__file__, 'images')

BYTES = {'Content-Type': 'application/octet-stream'}
needs_qemu = pytest.mark.skipif(not (shutil.which('qemu-img') and shutil.which('prlimit')), reason='qemu-img or prlimit is missing')


def bring(cloud, image, data, client=None, **method):
    """Stage and import; returns the image and the task afterwards."""
    client = client or cloud.client(testing.MEMBER)
    path = '/v2/images/' + image['id']
    client.put(path + '/stage', data=data, headers=BYTES).expect(204)
    client.post(path + '/import', {'method': {'name': 'glance-direct', **method}}).expect(202)
    cloud.runtime.background[1].run_due()
    cloud.runtime.background[0].look()
    return client.get(path).expect(200).json, client.get(path + '/tasks').json['tasks'][0]


def left(cloud):
    """What lies in the store and in the scratch folder."""
    found = []
    for path in (cloud.runtime.extra['stores'].default.path, os.path.join(cloud.runtime.conf.state_path, 'image', 'scratch')):
        found += [name for _, folders, names in os.walk(path) for name in names]
    return found


@pytest.fixture
def made(tmp_path):
    """``made(format)``: the bytes of a small image with something in it, as qemu-img makes it."""
    def make(name, size='4M'):
        raw = tmp_path / 'raw'
        raw.write_bytes(b'something' * 1000 + bytes(4 << 20))
        os.truncate(raw, 4 << 20)
        path = tmp_path / name
        subprocess.run(['qemu-img', 'convert', '-O', convert.QEMU[name], *convert.OPTIONS.get(name, ()), raw, path], check=True)
        return path.read_bytes()
    return make


@needs_qemu
@pytest.mark.parametrize('source', ['qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx'])
def test_foreign_formats_become_the_clouds(make_cloud, helpers, made, source):
    cloud = make_cloud(imports__convert_to='raw')
    image = helpers.create(cloud.client(testing.MEMBER), disk_format=source)
    after, task = bring(cloud, image, made(source))
    assert after['status'] == 'active', task['message']
    assert after['disk_format'] == 'raw' and after['size'] == after['virtual_size']
    data = cloud.client(testing.MEMBER).get(image['file']).data
    assert data.startswith(b'something' * 1000) and not data[9000:].strip(b'\0') and len(data) == after['size']
    assert len(left(cloud)) == 1


@needs_qemu
@pytest.mark.parametrize('target', ['qcow2', 'vmdk', 'vdi', 'vhd', 'vhdx'])
def test_an_import_may_ask_for_a_format(cloud, helpers, target):
    image = helpers.create(cloud.client(testing.MEMBER))
    after, task = bring(cloud, image, b'x' * 1000 + bytes(1 << 20), convert_to=target)
    assert after['status'] == 'active', task['message']
    assert after['disk_format'] == target and len(left(cloud)) == 1
    assert after['virtual_size'] >= (1 << 20) + 512 and after['size'] > 0


def test_formats_that_are_not_converted(make_cloud, helpers):
    cloud = make_cloud(imports__convert_to='qcow2')
    member = cloud.client(testing.MEMBER)
    for values, data in (({'disk_format': 'iso'}, images.iso()), ({'disk_format': 'aki', 'container_format': 'aki'}, b'kernel')):
        after, _ = bring(cloud, helpers.create(member, **values), data)
        assert after['status'] == 'active' and after['disk_format'] == values['disk_format']
    after, task = bring(cloud, helpers.create(member, disk_format='iso'), images.iso(), convert_to='raw')
    assert after['status'] == 'queued' and 'cannot be converted' in task['message']
    image = helpers.create(member)
    member.post(f"/v2/images/{image['id']}/import", {'method': {'name': 'glance-direct', 'convert_to': 'odd'}}).expect(400)


@needs_qemu
def test_a_disk_that_is_too_large_is_not_converted(make_cloud, helpers, made):
    cloud = make_cloud(imports__convert_to='raw', limits__image_size=3 << 20)
    image = helpers.create(cloud.client(testing.MEMBER), disk_format='qcow2')
    after, task = bring(cloud, image, made('qcow2'))
    assert after['status'] == 'queued' and 'allowed' in task['message'] and left(cloud) == []


@needs_qemu
@pytest.mark.parametrize('data', [images.qcow2(), images.qcow2(size=1 << 30, l1_entries=2, refcount_offset=0x10000),
                                  images.qcow2(backing=512), images.qcow2(features=4)])
def test_hostile_images_are_not_converted(make_cloud, helpers, data):
    cloud = make_cloud(imports__convert_to='raw', limits__image_size=1 << 20)
    image = helpers.create(cloud.client(testing.MEMBER), disk_format='qcow2')
    after, task = bring(cloud, image, data)
    assert after['status'] == 'queued' and task['status'] == 'failure' and left(cloud) == []
    assert str(cloud.path) not in task['message']


@needs_qemu
def test_qemu_img_is_asked_again(tmp_path):
    # An inspector that overlooked something is not the only guard.
    backing, path = tmp_path / 'secret', tmp_path / 'image'
    backing.write_bytes(bytes(1 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', backing, '-F', 'raw', path], check=True)
    with pytest.raises(errors.BadRequest, match='another file'):
        convert.check(str(path), 'qcow2', str(tmp_path))
    path.write_bytes(images.vmdk_text(f'RW 2048 FLAT "{backing}" 0'))
    with pytest.raises(errors.BadRequest, match='another file'):
        convert.check(str(path), 'vmdk', str(tmp_path))


@needs_qemu
def test_the_process_is_confined(tmp_path, monkeypatch):
    source = tmp_path / 'source'
    source.write_bytes(os.urandom(4 << 20))
    with pytest.raises(errors.BadRequest):
        convert._run(['qemu-img', 'convert', '-O', 'raw', str(source), 'x'], str(tmp_path), 1 << 20, 60)
    told = convert._run(['sh', '-c', 'ulimit -v; ulimit -n; ulimit -c; env'], str(tmp_path), 0, 60).decode().split()
    assert told[:3] == [str(convert.MEMORY >> 10), '64', '0'] and 'HOME' not in str(told)
    with pytest.raises(errors.BadRequest):
        convert._run(['sleep', '600'], str(tmp_path), 0, 0.1)


@needs_qemu
def test_an_ova(cloud, helpers, made):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w') as archive:
        for name, data in (('box.ovf', b'<Envelope/>'), ('box-disk1.vmdk', made('vmdk'))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    member = cloud.client(testing.MEMBER)
    values = {'disk_format': 'vmdk', 'container_format': 'ova'}
    after, task = bring(cloud, helpers.create(member, **values), target.getvalue(), convert_to='qcow2')
    assert after['status'] == 'active', task['message']
    assert after['disk_format'] == 'qcow2' and after['container_format'] == 'bare' and after['virtual_size'] == 4 << 20
    after, _ = bring(cloud, helpers.create(member, **values), target.getvalue())
    assert after['container_format'] == 'ova' and after['size'] == len(target.getvalue())


@pytest.fixture
def unpacking(make_cloud):
    return make_cloud(imports__unpack=True)


def test_packed_images_are_unpacked(unpacking, helpers):
    member = unpacking.client(testing.MEMBER)
    after, _ = bring(unpacking, helpers.create(member, disk_format='qcow2'), gzip.compress(images.qcow2()))
    assert after['status'] == 'active' and after['size'] == len(images.qcow2()) and after['virtual_size'] == 1 << 30
    assert len(left(unpacking)) == 1
    packed = gzip.compress(b'x' * 10000)
    after, _ = bring(unpacking, helpers.create(member, container_format='compressed'), packed)
    assert after['size'] == len(packed)


@pytest.mark.parametrize('data', [images.qcow2(backing=512), b'not a qcow2'])
def test_what_is_packed_is_judged(unpacking, helpers, data):
    member = unpacking.client(testing.MEMBER)
    after, task = bring(unpacking, helpers.create(member, disk_format='qcow2'), gzip.compress(data))
    assert after['status'] == 'queued' and task['status'] == 'failure' and left(unpacking) == []


def test_bombs_are_refused(unpacking, helpers, monkeypatch):
    monkeypatch.setattr(unpack, 'FREE', 1 << 20)
    monkeypatch.setattr(unpack, 'RATIO', 10)
    member = unpacking.client(testing.MEMBER)
    after, task = bring(unpacking, helpers.create(member), gzip.compress(bytes(30 << 20)))
    assert after['status'] == 'queued' and 'larger than' in task['message'] and left(unpacking) == []


def test_without_unpacking_packed_data_is_what_it_is(cloud, helpers):
    packed = gzip.compress(b'x' * 10000)
    after, _ = bring(cloud, helpers.create(cloud.client(testing.MEMBER)), packed)
    assert after['size'] == len(packed)


def test_properties_are_injected(make_cloud, helpers):
    cloud = make_cloud(imports__inject={'imported': 'yes'})
    member, admin = cloud.client(testing.MEMBER), cloud.client(testing.ADMIN)
    after, _ = bring(cloud, helpers.create(member), b'x')
    assert after['imported'] == 'yes'
    assert member.get('/v2/images?imported=yes').json['images'][0]['id'] == after['id']
    after, _ = bring(cloud, helpers.create(admin), b'x', admin)
    assert 'imported' not in after


def test_zeros_take_no_room(cloud, member, helpers):
    image = helpers.create(member)
    data = b'x' * (1 << 20) + bytes(20 << 20)
    helpers.upload(member, image['id'], data)
    assert member.get(image['file']).data == data
    store = cloud.runtime.extra['stores'].default
    path, = [os.path.join(folder, name) for folder, _, names in os.walk(store.path) for name in names]
    assert os.stat(path).st_size == len(data) and os.stat(path).st_blocks * 512 < 3 << 20
