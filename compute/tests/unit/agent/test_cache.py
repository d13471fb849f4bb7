"""The image cache: one download, verified, refused where it is not safe, pruned."""
import hashlib
import os
import shutil
import subprocess
import threading
from concurrent import futures

import pytest
from agent_shapes import image

from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import cache, qemu_img

pytestmark = pytest.mark.skipif(shutil.which('qemu-img') is None, reason='qemu-img is not installed')


def make_image(tmp_path, format='qcow2', size='4M', *more):
    path = tmp_path / f'source.{format}'
    subprocess.run(['qemu-img', 'create', '-q', '-f', format, *more, str(path), size], check=True)
    return path.read_bytes()


def described(data, **more):
    return image(**{'hash': hashlib.sha512(data).hexdigest(), 'size': len(data), **more})


def test_many_at_once_download_once(tmp_path):
    data = make_image(tmp_path)
    begun = threading.Barrier(8)
    downloads = []

    def download(image_id):
        downloads.append(image_id)
        yield data
    kept = cache.Cache(str(tmp_path / 'cache'), download)

    def get(_):
        begun.wait()
        return kept.get(described(data)).path
    with futures.ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(get, range(8)))
    assert len(paths) == 1
    assert downloads == ['image-1']


def test_the_same_content_is_kept_once_whatever_its_id(tmp_path):
    data = make_image(tmp_path)
    downloads = []
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: downloads.append(image_id) or [data])
    first, second = kept.get(described(data)), kept.get(described(data, id='image-2'))
    assert (first.path, first.size, first.format) == (second.path, 4 << 20, 'qcow2')
    assert downloads == ['image-1']
    assert os.stat(first.path).st_mode & 0o777 == 0o640


def test_data_with_another_hash_is_refused_and_leaves_nothing(tmp_path):
    data = make_image(tmp_path)
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [data[:-1]])
    with pytest.raises(base.Fault) as caught:
        kept.get(described(data))
    assert (caught.value.code, caught.value.final) == ('image-corrupt', False)
    assert os.listdir(kept.path) == []


def test_a_download_that_breaks_off_can_be_tried_again(tmp_path):
    data = make_image(tmp_path)

    def broken(image_id):
        yield data[:10]
        raise base.Fault('image-unavailable', 'broke off')
    kept = cache.Cache(str(tmp_path / 'cache'), broken)
    with pytest.raises(base.Fault):
        kept.get(described(data))
    kept._download = lambda image_id: [data]
    assert kept.get(described(data)).size == 4 << 20


def test_a_backing_file_is_refused(tmp_path):
    make_image(tmp_path, 'raw')
    data = make_image(tmp_path, 'qcow2', '4M', '-F', 'raw', '-b', '/etc/hostname')
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [data])
    with pytest.raises(base.Fault) as caught:
        kept.get(described(data))
    assert (caught.value.code, caught.value.final) == ('image-invalid', True)


def test_a_data_file_is_refused(tmp_path):
    data = make_image(tmp_path, 'qcow2', '4M', '-o', f'data_file={tmp_path}/other,data_file_raw=on')
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [data])
    with pytest.raises(base.Fault) as caught:
        kept.get(described(data))
    assert caught.value.code == 'image-invalid'


@pytest.mark.parametrize(('really', 'said'), [('qcow2', 'raw'), ('raw', 'qcow2'), ('vdi', 'qcow2'), ('qcow2', 'vmdk')])
def test_another_format_than_said_is_refused(tmp_path, really, said):
    data = make_image(tmp_path, really)
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [data])
    with pytest.raises(base.Fault) as caught:
        kept.get(described(data, disk_format=said))
    assert caught.value.code == 'image-invalid'


def test_a_format_that_no_server_boots_from_is_refused(tmp_path):
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [b'x' * 512])
    with pytest.raises(base.Fault):
        kept.get(image(disk_format='aki'))


def test_raw_is_kept_and_other_formats_are_converted(tmp_path):
    data = make_image(tmp_path, 'raw')
    kept = cache.Cache(str(tmp_path / 'cache'), lambda image_id: [data])
    assert kept.get(described(data, disk_format='raw')).format == 'raw'
    other = make_image(tmp_path, 'vdi')
    kept._download = lambda image_id: [other]
    found = kept.get(described(other, id='image-2', disk_format='vdi'))
    assert found.format == 'qcow2'
    assert qemu_img.info(found.path, 'qcow2')['virtual-size'] == 4 << 20


def test_prune_leaves_what_is_used_or_was_asked_for_lately(tmp_path):
    kept = cache.Cache(str(tmp_path / 'cache'), None, max_age=100)
    keys = []
    for number, age in enumerate((0, 200, 200)):
        data = make_image(tmp_path, 'raw', f'{number + 1}M')
        kept._download = lambda image_id, data=data: [data]
        found = kept.get(described(data, disk_format='raw'))
        stat = os.stat(found.path)
        os.utime(found.path, (stat.st_atime - age, stat.st_mtime - age))
        keys.append(found.key)
    kept.prune({keys[1]})
    assert [kept.find(key) is not None for key in keys] == [True, True, False]
    assert len(os.listdir(kept.path)) == 4


def test_leftovers_of_a_crash_go_at_the_start(tmp_path):
    (tmp_path / 'cache').mkdir()
    (tmp_path / 'cache' / 'x.part').write_bytes(b'half')
    cache.Cache(str(tmp_path / 'cache'), None)
    assert os.listdir(tmp_path / 'cache') == []
