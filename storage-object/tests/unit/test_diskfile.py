"""Objects on disk: which files hold, what is damaged, what is left of a write that was cut off."""
import hashlib
import itertools
import os
import time

import pytest

from kodiak.storage_object.backend import diskfile
from kodiak.storage_object.backend.devices import BadStamp, Devices, Out, stamp_of
from kodiak.storage_object.backend.diskfile import Corrupt, Files, Missing, Object, Writer
from kodiak.storage_object.backend.replication import check, old_among
from kodiak.storage_object.backend.trees import Trees, hash_folders

FOLDER = 'objects/7/abc/' + 'f' * 29 + 'abc'


def at(number):
    return f'{number:010d}.00000'


@pytest.fixture
def device(tmp_path):
    (tmp_path / 'd').mkdir()
    return Devices(str(tmp_path)), str(tmp_path / 'd')


def write(device, name, body=b'', **metadata):
    with Writer(*device, FOLDER) as writer:
        writer.write(body)
        metadata = {'name': '/a/c/o', **{key.replace('_', '-'): value for key, value in metadata.items()}}
        if name.endswith('.data'):
            metadata['Etag'] = hashlib.md5(body).hexdigest()
        writer.commit(name, metadata)
    return f'{device[1]}/{FOLDER}'


@pytest.mark.parametrize('size', [0, 10, 5000, 9000, 100_000])
def test_an_object_comes_back(device, size):
    body = os.urandom(size)
    folder = write(device, at(1) + '.data', body, X_Object_Meta_Long='x' * 3000)
    found = Object(folder)
    assert (found.size, found.name, found.etag) == (size, '/a/c/o', hashlib.md5(body).hexdigest())
    assert os.pread(found.descriptor, size, 0) == body
    assert found.small in (None, body)
    assert found.metadata == {'X-Object-Meta-Long': 'x' * 3000}
    found.close()
    assert os.listdir(device[1] + '/tmp') == []


def test_metadata_that_is_longer_than_what_is_read_at_once(device):
    folder = write(device, at(1) + '.data', b'x' * 20_000, X_Object_Meta_Long='y' * 20_000)
    found = Object(folder)
    assert len(found.metadata['X-Object-Meta-Long']) == 20_000
    found.close()


def test_a_post_replaces_metadata_and_keeps_what_is_the_bodys(device):
    write(device, at(1) + '.data', b'x', Content_Type='a/b', X_Object_Meta_A='1', X_Object_Sysmeta_S='s')
    folder = write(device, at(2) + '+' + at(2) + '.meta', X_Object_Meta_B='2', Content_Type='c/d')
    folder = write(device, at(3) + '.meta', X_Object_Meta_C='3')
    found = Object(folder)
    found.close()
    assert found.metadata == {'Content-Type': 'c/d', 'X-Object-Sysmeta-S': 's', 'X-Object-Meta-C': '3'}
    assert (found.stamp, found.data_stamp, found.typed_stamp) == (at(3), at(1), at(2))


def test_the_newest_holds_in_whatever_order_files_come():
    names = [at(1) + '.data', at(2) + '.meta', at(3) + '.ts', at(4) + '.data', at(5) + '+' + at(5) + '.meta', at(6) + '.meta']
    for count in range(1, 7):
        for chosen in itertools.combinations(names, count):
            results = {(f.data, f.gone, f.meta, f.typed, tuple(sorted(f.rubbish)))
                       for f in (Files(list(order)) for order in itertools.permutations(chosen))}
            assert len(results) == 1
    files = Files(names)
    assert (files.data, files.gone, files.meta, files.typed) == (at(4), None, names[5], names[4])
    assert sorted(files.rubbish) == names[:3]
    assert old_among(names, at(2) + '.data') and not old_among(names[:3], names[3])


def test_a_deletion_stays_until_it_is_reclaimed(device):
    write(device, at(1) + '.data', b'x')
    folder = write(device, at(2) + '.ts')
    assert os.listdir(folder) == [at(2) + '.ts']
    with pytest.raises(Missing) as missing:
        Object(folder)
    assert missing.value.stamp == at(2)
    diskfile.tidy(folder, at(2))
    assert os.path.exists(folder)
    diskfile.tidy(folder, at(3))
    assert not os.path.exists(folder)


def test_a_write_that_is_cut_off_leaves_nothing(device):
    with pytest.raises(ZeroDivisionError), Writer(*device, FOLDER) as writer:
        writer.expect(5 << 20)
        writer.write(b'x')
        raise ZeroDivisionError
    assert not os.path.exists(f'{device[1]}/{FOLDER}')
    assert os.listdir(device[1] + '/tmp') == []


@pytest.mark.parametrize('spoil', [
    lambda file, size: file.truncate(size - 1), lambda file, size: file.truncate(3), lambda file, size: file.truncate(0),
    lambda file, size: (file.seek(size - 1), file.write(b'\0')), lambda file, size: (file.seek(size - 40), file.write(b'\0\0'))])
def test_what_is_damaged_is_found(device, spoil):
    folder = write(device, at(1) + '.data', b'x' * 100)
    path = f'{folder}/{at(1)}.data'
    with open(path, 'r+b') as file:
        spoil(file, os.path.getsize(path))
    with pytest.raises(Corrupt):
        Object(folder)


def test_a_damaged_body_is_found_by_its_checksum(device):
    folder = write(device, at(1) + '.data', b'x' * 100)
    with open(f'{folder}/{at(1)}.data', 'r+b') as file:
        assert check(file.fileno())['name'] == '/a/c/o'
        file.write(b'y')
        file.flush()
        with pytest.raises(Corrupt):
            check(file.fileno())
    assert diskfile.quarantine(device[1], folder, 'objects') == device[1] + '/quarantined/objects/' + os.path.basename(folder)
    assert not os.path.exists(folder)


def test_hashes_follow_every_change(device):
    trees, seen = Trees(), set()
    for name in (at(1) + '.data', at(2) + '.meta', at(3) + '.data', at(4) + '.ts'):
        write(device, name, b'x')
        found = trees.partition(device[1], 0, 7)
        assert found == Trees().partition(device[1], 0, 7)
        seen.add(Trees.root(found))
    assert len(seen) == 4
    assert hash_folders(device[1] + '/objects/7/abc') == {'f' * 29 + 'abc': [at(4) + '.ts']}
    assert Trees.parts(device[1], 0) == ['7']


def test_what_a_killed_process_left_goes(device):
    devices, path = device
    os.mkdir(f'{path}/tmp')
    for name, age in (('old', 90_000), ('new', 10)):
        with open(f'{path}/tmp/{name}', 'w'):
            pass
        os.utime(f'{path}/tmp/{name}', (time.time() - age,) * 2)
    assert (devices.clean(path), devices.clean(path + '/none')) == (1, 0)
    assert os.listdir(f'{path}/tmp') == ['new']


def test_devices(tmp_path):
    (tmp_path / 'd').mkdir()
    devices = Devices(str(tmp_path))
    assert devices.names() == ['d']
    for name in ('e', '..', '.', '', 'a/b', '.d'):
        with pytest.raises(Out):
            devices.path(name)
    with pytest.raises(Out, match='not mounted'):
        Devices(str(tmp_path), mount_check=True).path('d')
    with pytest.raises(Out, match='full'):
        Devices(str(tmp_path), reserve=1 << 60).need(str(tmp_path))
    first = devices.identity(str(tmp_path / 'd'))
    assert devices.identity(str(tmp_path / 'd')) == first


@pytest.mark.parametrize('text,good', [
    ('1401373373.12345', '1401373373.12345'), ('1401373373.12345_000000000000000a', '1401373373.12345_000000000000000a'),
    ('1', '0000000001.00000'), ('1401373373.1', '1401373373.10000'), ('-1', None), ('x', None), ('nan', None), ('1e30', None),
    (None, None), ('', None)])
def test_timestamps(text, good):
    if good is None:
        with pytest.raises(BadStamp):
            stamp_of(text)
    else:
        assert stamp_of(text) == good
