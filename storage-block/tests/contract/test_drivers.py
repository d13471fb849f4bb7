"""What every driver must do, whatever it stores volumes on."""
import os
import shutil
import uuid

import pytest

from kodiak.storage_block import luks, qemu_img
from kodiak.storage_block.drivers import base

pytestmark = pytest.mark.skipif(not shutil.which('qemu-img'), reason='qemu-img is not installed (Debian package qemu-utils)')
MIB = 1 << 20
SIZE = 32 * MIB


def new():
    return base.volume(uuid.uuid4())


def io(node, *commands, read_only=False):
    """Run qemu-io commands; returns what was printed."""
    args = [*(['-r'] if read_only else []), *(part for command in commands for part in ('-c', command))]
    return qemu_img.run(*args, '--image-opts', qemu_img._opts(node), tool='qemu-io').decode()


def write(driver, name, pattern, offset='1M', length='1M'):
    printed = io(driver.open(name), f'write -P {pattern} {offset} {length}')
    assert 'wrote' in printed, printed


def holds(driver, name, pattern, offset='1M', length='1M'):
    printed = io(driver.open(name), f'read -P {pattern} {offset} {length}', read_only=True)
    return 'verification failed' not in printed and 'error' not in printed.lower()


@pytest.fixture
def volume(driver):
    name = new()
    driver.create(name, SIZE)
    write(driver, name, 11)
    return name


@pytest.fixture
def snapshot(driver, volume):
    name = base.snapshot(uuid.uuid4())
    driver.snapshot(name, volume)
    yield name
    driver.delete_snapshot(name, volume)


def test_an_empty_volume_has_its_size_and_reads_as_zeros(driver):
    name = new()
    driver.create(name, SIZE)
    assert driver.size(name) == SIZE
    assert holds(driver, name, 0, '0', '32M')
    assert driver.size(new()) is None


def test_what_was_done_is_not_done_again(driver, volume):
    driver.create(volume, SIZE)
    assert holds(driver, volume, 11), 'creating it again does not empty it'
    snapshot, clone = base.snapshot(uuid.uuid4()), new()
    driver.snapshot(snapshot, volume)
    write(driver, volume, 12)
    driver.snapshot(snapshot, volume)
    assert holds(driver, snapshot, 11)
    driver.clone(snapshot, clone, SIZE)
    write(driver, clone, 13)
    driver.clone(snapshot, clone, SIZE)
    assert holds(driver, clone, 13)
    for _ in range(2):
        driver.delete_snapshot(snapshot, volume)
        driver.delete(clone)
        driver.delete(volume)
    assert driver.size(volume) is None and driver.size(clone) is None and driver.size(snapshot) is None


def test_it_grows_and_never_shrinks(driver, volume):
    driver.extend(volume, 2 * SIZE)
    assert driver.size(volume) == 2 * SIZE
    driver.extend(volume, SIZE)
    assert driver.size(volume) == 2 * SIZE
    assert holds(driver, volume, 11) and holds(driver, volume, 0, '32M', '32M')


def test_a_snapshot_stays_as_it_is(driver, volume, snapshot):
    write(driver, volume, 12)
    assert holds(driver, snapshot, 11) and holds(driver, volume, 12)
    assert driver.size(snapshot) == SIZE


def test_clones_are_apart_from_their_source(driver, volume, snapshot):
    write(driver, volume, 12)
    of_snapshot, of_volume = new(), new()
    driver.clone(snapshot, of_snapshot, 2 * SIZE)
    driver.clone(volume, of_volume, SIZE)
    assert holds(driver, of_snapshot, 11) and holds(driver, of_volume, 12)
    assert driver.size(of_snapshot) == 2 * SIZE
    write(driver, of_snapshot, 14)
    write(driver, of_volume, 15)
    assert holds(driver, snapshot, 11) and holds(driver, volume, 12)


def test_a_clone_outlives_its_snapshot_and_volume(driver, volume):
    snapshot, clone = base.snapshot(uuid.uuid4()), new()
    driver.snapshot(snapshot, volume)
    driver.clone(snapshot, clone, SIZE)
    driver.delete_snapshot(snapshot, volume)
    driver.delete(volume)
    assert holds(driver, clone, 11)
    write(driver, clone, 16)
    assert holds(driver, clone, 16)


def test_a_volume_goes_back_to_its_snapshot(driver, volume, snapshot):
    write(driver, volume, 12)
    driver.extend(volume, 2 * SIZE)
    for _ in range(2):
        driver.revert(volume, snapshot)
        assert holds(driver, volume, 11)
        assert driver.size(volume) == 2 * SIZE
    assert holds(driver, snapshot, 11), 'the snapshot is still there'
    write(driver, volume, 17)
    assert holds(driver, snapshot, 11)


def test_what_is_missing_is_said(driver):
    for ask in (lambda: driver.open(new()), lambda: driver.snapshot(base.snapshot(uuid.uuid4()), new()),
                lambda: driver.clone(new(), new(), SIZE), lambda: driver.extend(new(), SIZE)):
        with pytest.raises(base.Fault) as caught:
            ask()
        assert caught.value.code == 'missing' and caught.value.final


def test_a_volume_is_whole_or_not_there(driver):
    name = new()
    with pytest.raises(ZeroDivisionError), driver.making(name, SIZE) as node:
        io(node, 'write -P 20 0 1M')
        raise ZeroDivisionError
    assert driver.size(name) is None
    with driver.making(name, SIZE) as node:
        io(node, 'write -P 21 1M 1M')
    assert holds(driver, name, 21)
    with driver.making(name, SIZE) as node:
        assert node is None, 'it is made already'


def test_making_begins_anew_after_a_crash(driver):
    name = new()
    driver.create(base.part(name), SIZE)
    write(driver, base.part(name), 22, '4M')
    with driver.making(name, SIZE) as node:
        io(node, 'write -P 21 1M 1M')
    assert holds(driver, name, 21) and holds(driver, name, 0, '4M')


def test_a_file_becomes_a_volume(driver, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(b'\x17' * (2 * MIB) + bytes(2 * MIB))
    name = new()
    for _ in range(2):
        driver.load(name, str(path), SIZE)
        assert driver.size(name) == SIZE
        assert holds(driver, name, 0x17, '0', '2M') and holds(driver, name, 0, '2M', '30M')
    assert os.path.getsize(path) == 4 * MIB


def test_volumes_are_managed_and_left(driver, volume):
    driver.rename(volume, 'some-disk')
    assert ('some-disk', SIZE) in driver.listing()
    name = new()
    for _ in range(2):
        assert driver.manage('some-disk', name) == SIZE
    assert holds(driver, name, 11)
    with pytest.raises(base.Fault) as caught:
        driver.manage('nothing-such', new())
    assert caught.value.final
    driver.delete(name)


def test_stats_add_up(driver, volume):
    stats = driver.stats()
    assert 0 < stats.free <= stats.total
    assert stats.provisioned >= SIZE
    assert stats.clones in ('reflink', 'native', 'copy')


@pytest.mark.parametrize('bits', [256, 512])
def test_a_luks_container_fits_and_hides_its_content(driver, tmp_path, bits):
    name, path, back, raw = new(), tmp_path / 'header', tmp_path / 'back', tmp_path / 'raw'
    passphrase = os.urandom(32).hex().encode()
    path.write_bytes(luks.header(passphrase, bits // 8))
    driver.load(name, str(path), SIZE + luks.OVERHEAD)
    inside = qemu_img.luks(driver.open(name))
    source = tmp_path / 'plain'
    source.write_bytes(b'plain text ' * 100000)
    with qemu_img.Secret(passphrase) as secret:
        assert qemu_img.info(inside, secret)['virtual-size'] >= SIZE
        qemu_img.convert(base.Node.of_path(str(source)), inside, secret, zeros=False)
        qemu_img.convert_to_file(inside, 'raw', str(back), secret)
    assert back.read_bytes()[:1100000] == b'plain text ' * 100000
    qemu_img.convert_to_file(driver.open(name), 'raw', str(raw))
    assert b'plain text' not in raw.read_bytes()
    with qemu_img.Secret(b'wrong') as secret, pytest.raises(base.Fault):
        qemu_img.convert_to_file(inside, 'raw', str(back), secret)
