"""The disks of an instance: built, resized there and back, moved to another host; crashed in between."""
import hashlib
import json
import os
import shutil
import subprocess

import pytest
from agent_shapes import UUID, image, spec

from kodiak.compute.agent import state
from kodiak.compute.drivers import base
from kodiak.compute.drivers.libvirt import cache, folder, qemu_img, transfer

pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in ('qemu-img', 'genisoimage')), reason='qemu-img or genisoimage is not installed')
GIB, MIB = 1 << 30, 1 << 20


class Host:
    """Folders of one host."""

    def __init__(self, path, data):
        self.path = path
        (path / 'instances').mkdir(parents=True)
        self.cache = cache.Cache(str(path / 'images'), lambda image_id: [data])

    def folder(self, uuid=UUID):
        return folder.Folder(str(self.path / 'instances'), uuid, self.cache)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / 'image.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', str(path), '64M'], check=True)
    return path.read_bytes()


@pytest.fixture
def host(tmp_path, data):
    return Host(tmp_path / 'one', data)


@pytest.fixture
def known(data):
    return image(hash=hashlib.sha512(data).hexdigest())


def size(path):
    return qemu_img.info(path, 'qcow2')['virtual-size']


def test_builds_every_disk_once(host, known):
    wanted = spec(image=known, flavor=state.Flavor('f', 1, 128, 1, 1, 16), config_drive=True)
    made = host.folder()
    made.build(wanted, rescued=False)
    assert size(made.file('root.qcow2')) == GIB
    assert os.path.getsize(made.file('swap.raw')) == 16 * MIB
    assert os.path.getsize(made.file('ephemeral0.raw')) == GIB
    assert made.missing(wanted, False) == []
    assert [disk.role for disk in made.disks(wanted, False)] == ['root', 'ephemeral', 'swap', 'config']
    before = {name: os.stat(made.file(name)).st_ino for name in os.listdir(made.path)}
    made.build(wanted, rescued=False)
    assert {name: os.stat(made.file(name)).st_ino for name in os.listdir(made.path)} == before
    assert os.stat(made.file('root.qcow2')).st_mode & 0o777 == 0o660
    assert os.stat(made.file('config.iso')).st_mode & 0o777 == 0o640


def test_what_a_crash_left_half_made_is_made_anew(host, known):
    made = host.folder()
    made.make()
    for name in ('root.qcow2', 'config.iso', 'record.json'):
        with open(made.file(name + folder.PART), 'wb') as file:
            file.write(b'half')
    assert made.load() is None
    made.build(spec(image=known, config_drive=True), rescued=False)
    assert size(made.file('root.qcow2')) == GIB


def test_a_root_disk_of_no_size_is_as_large_as_the_image(host, known):
    made = host.folder()
    made.build(spec(image=known, flavor=state.Flavor('f', 1, 128, 0)), rescued=False)
    assert size(made.file('root.qcow2')) == 64 * MIB


def test_an_image_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / 'big.qcow2'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', str(path), '2G'], check=True)
    big = Host(tmp_path / 'big', path.read_bytes())
    with pytest.raises(base.Fault) as caught:
        big.folder().build(spec(image=image()), rescued=False)
    assert (caught.value.code, caught.value.final) == ('disk-too-small', True)


def test_the_config_drive_is_the_metadata_tree(host, known, tmp_path):
    made = host.folder()
    made.build(spec(image=known, config_drive=True, metadata={'a': 'b'}), rescued=False)
    with open(made.file('config.iso'), 'rb') as file:
        data = file.read()
    assert b'config-2' in data[0x8000:0x9000]
    start = data.index(b'{"uuid"')
    assert json.loads(data[start:data.index(b'\x00', start)])['meta'] == {'a': 'b'}


def test_a_record_is_read_back_and_unknown_keys_are_left_out(host):
    made = host.folder()
    made.save(base.Record(UUID, built=True, last_operation=3))
    with open(made.file('record.json')) as file:
        data = json.load(file)
    with open(made.file('record.json'), 'w') as file:
        json.dump({**data, 'of_a_newer_release': 1}, file)
    assert made.load() == base.Record(UUID, built=True, last_operation=3)


def test_a_resize_is_reverted_even_if_it_was_cut_short(host, known):
    wanted = spec(image=known)
    made = host.folder()
    made.build(wanted, rescued=False)
    subprocess.run(['qemu-io', '-c', 'write -P 7 0 4k', '-f', 'qcow2', made.file('root.qcow2')], check=True, capture_output=True)
    made.keep(5)
    made.grow(spec(image=known, flavor=state.Flavor('big', 1, 128, 2, 0, 8)))
    subprocess.run(['qemu-io', '-c', 'write -P 9 0 4k', '-f', 'qcow2', made.file('root.qcow2')], check=True, capture_output=True)
    made.keep(5)        # the operation is done again after a crash: the first copy stays
    assert size(made.file('root.qcow2')) == 2 * GIB
    assert os.path.getsize(made.file('swap.raw')) == 8 * MIB
    made.restore_kept()
    made.restore_kept()
    assert size(made.file('root.qcow2')) == GIB
    found = subprocess.run(['qemu-io', '-c', 'read -P 7 0 4k', '-f', 'qcow2', made.file('root.qcow2')], check=True,
                           capture_output=True, text=True)
    assert 'verification failed' not in found.stdout
    assert made.kept() is None


def test_disks_kept_for_another_resize_are_not_taken_for_this_one(host, known):
    made = host.folder()
    made.build(spec(image=known), rescued=False)
    made.keep(5)
    made.grow(spec(image=known, flavor=state.Flavor('big', 1, 128, 2)))
    made.keep(9)
    made.restore_kept()
    assert size(made.file('root.qcow2')) == 2 * GIB


def test_a_disk_does_not_shrink(host, known):
    made = host.folder()
    made.build(spec(image=known, flavor=state.Flavor('f', 1, 128, 2)), rescued=False)
    with pytest.raises(base.Fault) as caught:
        made.grow(spec(image=known))
    assert caught.value.code == 'disk-too-small'


def test_a_rebuild_keeps_what_it_is_told_to(host, known):
    wanted = spec(image=known, flavor=state.Flavor('f', 1, 128, 1, 1))
    made = host.folder()
    made.build(wanted, rescued=False)
    made.rebuild(preserve_ephemeral=True)
    assert made.missing(wanted, False) == ['root.qcow2']
    made.rebuild(preserve_ephemeral=False)
    assert made.missing(wanted, False) == ['root.qcow2', 'ephemeral0.raw']


def test_bases_under_disks_and_kept_disks_count_as_used(host, known):
    made = host.folder()
    made.build(spec(image=known), rescued=False)
    made.keep(1)
    made.forget('root.qcow2')
    assert folder.used_bases(str(host.path / 'instances')) == {cache.Cache.key(known)}


def test_an_iso_boots_beside_an_empty_disk(tmp_path):
    tree = tmp_path / 'tree'
    tree.mkdir()
    (tree / 'x').write_bytes(b'x')
    subprocess.run(['genisoimage', '-quiet', '-o', str(tmp_path / 'x.iso'), str(tree)], check=True)
    host = Host(tmp_path / 'iso', (tmp_path / 'x.iso').read_bytes())
    wanted = spec(image=image(disk_format='iso'))
    made = host.folder()
    made.build(wanted, rescued=False)
    assert [(disk.role, disk.device) for disk in made.disks(wanted, False)] == [('root', 'disk'), ('install', 'cdrom')]
    assert size(made.file('root.qcow2')) == GIB


class TestMove:
    """From one host's folder through its door into another's."""

    @pytest.fixture
    def door(self, host):
        pytest.importorskip('libvirt', reason='libvirt-python is built where libvirt is')
        from kodiak.compute.drivers.libvirt import door
        found = door.Door('127.0.0.1', 0, host.folder, lambda ticket, socket: False)
        yield found
        found.close()

    def test_disks_and_their_base_arrive(self, host, door, known, tmp_path):
        wanted = spec(image=known, flavor=state.Flavor('f', 1, 128, 1, 0, 16), config_drive=True)
        old = host.folder()
        old.build(wanted, rescued=False)
        subprocess.run(['qemu-io', '-c', 'write -P 7 1M 64k', '-f', 'qcow2', old.file('root.qcow2')], check=True,
                       capture_output=True)
        listed = transfer.offer(old, hashlib.sha256(b'secret').hexdigest())
        assert {disk['name'] for disk in listed} == {'root.qcow2', 'swap.raw', 'config.iso'}
        there = Host(tmp_path / 'two', None)
        new = there.folder()
        source = state.Source(f'{door.url}/disks/{UUID}', 'secret')
        transfer.fetch(source, new)
        transfer.fetch(source, new)
        assert folder.backing_file(new.file('root.qcow2')).startswith(str(tmp_path / 'two'))
        compared = subprocess.run(['qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', old.file('root.qcow2'),
                                   new.file('root.qcow2')], check=False, capture_output=True)
        assert compared.returncode == 0
        with open(old.file('swap.raw'), 'rb') as one, open(new.file('swap.raw'), 'rb') as two:
            assert one.read() == two.read()
        assert new.missing(wanted, False) == []

    @pytest.mark.parametrize('token', ['', 'wrong'])
    def test_without_the_token_nothing_is_handed_out(self, host, door, known, tmp_path, token):
        old = host.folder()
        old.build(spec(image=known), rescued=False)
        new = Host(tmp_path / 'two', None).folder()
        for offered in (False, True):
            if offered:
                transfer.offer(old, hashlib.sha256(b'secret').hexdigest())
            with pytest.raises(base.Fault) as caught:
                transfer.fetch(state.Source(f'{door.url}/disks/{UUID}', token), new)
            assert caught.value.code == 'transfer'
        transfer.withdraw(old)
        with pytest.raises(base.Fault):
            transfer.fetch(state.Source(f'{door.url}/disks/{UUID}', 'secret'), new)

    @pytest.mark.parametrize('path', ['record.json', '../x', 'base/../../x', 'console.log'])
    def test_only_disks_are_handed_out(self, host, door, known, path):
        import requests
        old = host.folder()
        old.build(spec(image=known), rescued=False)
        old.save(base.Record(UUID))
        transfer.offer(old, hashlib.sha256(b'secret').hexdigest())
        answer = requests.get(f'{door.url}/disks/{UUID}/{path}', headers={'X-Transfer-Token': 'secret'}, timeout=10)
        assert answer.status_code in (403, 404)
