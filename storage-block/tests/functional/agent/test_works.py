"""An agent does what its conductor says."""
import os
import shutil
import subprocess
import uuid

import pytest

from kodiak.storage_block import luks, qemu_img, sparse
from kodiak.storage_block.agent import tasks, works
from kodiak.storage_block.drivers import base

pytestmark = pytest.mark.skipif(not shutil.which('qemu-img'), reason='qemu-img is not installed (Debian package qemu-utils)')
MIB = 1 << 20
GIB = 32 * MIB      # what the fixture has tasks take for one
KEY = {'key_id': 'key', 'provider': 'luks', 'cipher': 'aes-xts-plain64', 'key_size': 256}
NONE = {'type': 'none'}


@pytest.fixture
def id():
    return str(uuid.uuid4())


def content(path, start=0, length=MIB):
    with open(path, 'rb') as file:
        file.seek(start)
        return file.read(length)


def put(path, data, offset=0):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)


def make(world, id, size=1, **source):
    world.ok('create_volume', id, volume_id=id, size=size, source=source or NONE, encryption=None)
    return world.path(base.volume(id))


def test_it_says_what_it_has(world):
    found = {each['name']: each for each in world.conductor.backends}
    assert found['file']['protocol'] == 'iSCSI' and found['file']['error'] is None
    assert found['file']['total_gb'] >= found['file']['free_gb'] > 0


def test_a_volume_is_made_extended_and_deleted(world, id):
    path = make(world, id, size=2)
    assert os.path.getsize(path) == 2 * GIB and os.stat(path).st_blocks == 0 and os.stat(path).st_mode & 0o777 == 0o600
    world.ok('extend_volume', id, volume_id=id, size=3, attached=False, encryption=None)
    assert os.path.getsize(path) == 3 * GIB
    world.ok('delete_volume', id, volume_id=id)
    assert not os.path.exists(path)
    world.ok('delete_volume', id, volume_id=id)


def test_a_volume_of_an_image(world, id):
    data = os.urandom(MIB) + bytes(MIB) + os.urandom(MIB)
    image = world.image.add(data)
    path = make(world, id, type='image', image_id=image['id'], image=image)
    assert content(path, 0, 3 * MIB) == data and os.path.getsize(path) == GIB
    assert os.stat(path).st_blocks * 512 < 3 * MIB, 'zeros are holes'
    again = str(uuid.uuid4())
    make(world, again, type='image', image_id=image['id'], image=image)
    assert world.image.downloads == 1, 'it is kept for the next volume'


def test_an_image_in_another_format(world, id, tmp_path):
    raw, qcow = tmp_path / 'raw', tmp_path / 'qcow2'
    raw.write_bytes(b'\x05' * MIB + bytes(MIB))
    subprocess.run(['qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, qcow], check=True)
    image = world.image.add(qcow.read_bytes(), disk_format='qcow2')
    path = make(world, id, type='image', image_id=image['id'], image=image)
    assert content(path) == b'\x05' * MIB and not any(content(path, MIB))


def refused(world, id, image, size=1):
    outcome = world.run('create_volume', id, volume_id=id, size=size, encryption=None,
                        source={'type': 'image', 'image_id': image['id'], 'image': image})
    assert world.driver.size(base.volume(id)) is None and os.listdir(world.driver.folder) == []
    return outcome['error']


def test_images_that_are_refused(world, id, tmp_path):
    big, evil = tmp_path / 'big', tmp_path / 'evil'
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', big, '2G'], check=True)
    assert 'does not fit' in refused(world, id, world.image.add(big.read_bytes(), disk_format='qcow2'))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', '/etc/passwd', '-F', 'raw', evil, '1M'], check=True)
    assert 'not safe' in refused(world, id, world.image.add(evil.read_bytes(), disk_format='qcow2'))
    assert 'data is raw' in refused(world, id, world.image.add(b'no qcow2', disk_format='qcow2'))
    assert 'cannot be had' in refused(world, id, {'id': 'gone', 'disk_format': 'raw', 'container_format': 'bare'})


def test_a_garbled_download_is_not_used(world, id, monkeypatch):
    monkeypatch.setattr(works, 'PAUSE', 0.01)
    image = world.image.add(b'x' * MIB)
    world.image.data[image['id']] = b'y' * MIB
    assert 'hash' in refused(world, id, image)
    assert world.image.downloads == works.TRIES, 'another try might have helped'
    assert os.listdir(world.images.folder) == []


def test_images_that_nobody_used_for_long_go(world, id):
    image = world.image.add(b'x' * MIB)
    make(world, id, type='image', image_id=image['id'], image=image)
    world.images.prune()
    assert len(os.listdir(world.images.folder)) == 1
    world.images.hours = 0
    world.images.prune()
    assert os.listdir(world.images.folder) == []


def test_snapshots_clones_and_the_way_back(world, id):
    path, snapshot, clone, twin = make(world, id), str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    put(path, b'first')
    world.ok('create_snapshot', id, snapshot_id=snapshot, volume_id=id, size=1)
    put(path, b'later')
    cloned = make(world, clone, size=2, type='snapshot', snapshot_id=snapshot, volume_id=id, size_=1)
    assert content(cloned, 0, 5) == b'first' and os.path.getsize(cloned) == 2 * GIB
    assert content(make(world, twin, type='volume', volume_id=id, backend='file'), 0, 5) == b'later'
    world.ok('revert_volume', id, volume_id=id, snapshot_id=snapshot, size=1)
    assert content(path, 0, 5) == b'first'
    world.ok('delete_snapshot', id, snapshot_id=snapshot, volume_id=id)
    assert content(cloned, 0, 5) == b'first'


@pytest.mark.parametrize('quick', [True, False])
def test_a_group_is_kept_at_once(world, id, quick):
    world.driver.reflink = quick
    other, pairs = str(uuid.uuid4()), []
    for each in (id, other):
        make(world, each)
        pairs.append({'snapshot_id': str(uuid.uuid4()), 'volume_id': each, 'size': 1})
    world.ok('create_snapshots', id, snapshots=pairs)
    assert all(world.driver.size(base.snapshot(pair['snapshot_id'])) == GIB for pair in pairs)
    assert world.exporter.paused == quick, 'guests are not kept waiting for copies'


def test_a_volume_goes_to_another_back_end(world, id):
    put(make(world, id), b'moved')
    new = str(uuid.uuid4())
    world.ok('create_volume', new, backend='other', volume_id=new, size=1, encryption=None,
             source={'type': 'volume', 'volume_id': id, 'backend': 'file', 'size': 1})
    assert content(os.path.join(world.other.folder, base.volume(new)), 0, 5) == b'moved'


def test_an_encrypted_volume_of_an_image(world, id, tmp_path):
    world.conductor.keys['key'] = b'a passphrase'
    image = world.image.add(b'plain text ' * 1000)
    world.ok('create_volume', id, volume_id=id, size=1, encryption=KEY, source={
        'type': 'image', 'image_id': image['id'], 'image': image})
    path = world.path(base.volume(id))
    assert os.path.getsize(path) == GIB + luks.OVERHEAD
    with open(path, 'rb') as file:
        assert b'plain text' not in file.read(8 * MIB)
    inside, back = qemu_img.luks(base.Node.of_path(path)), tmp_path / 'back'
    with qemu_img.Secret(b'a passphrase') as secret:
        assert qemu_img.info(inside, secret)['virtual-size'] == GIB
        qemu_img.convert_to_file(inside, 'raw', str(back), secret)
    assert content(back, 0, 11000) == b'plain text ' * 1000

    queued = world.image.queued()
    assert world.ok('copy_to_image', id, volume_id=id, image_id=queued, disk_format='qcow2', container_format='bare',
                    encryption=KEY)['size'] < 2 * GIB
    assert world.image.images[queued]['disk_format'] == 'qcow2'


def test_a_retype_gives_and_takes_the_encryption(world, id):
    world.conductor.keys.update(key=b'one', other=b'two')
    path = make(world, id)
    put(path, b'plain text')
    other = {**KEY, 'key_id': 'other'}
    for old, new in ((None, KEY), (KEY, other), (other, None)):
        work = {'number': 1000, 'kind': 'retype_volume', 'backend': 'file', 'resource_id': id,
                'args': {'volume_id': id, 'size': 1, 'old_encryption': old, 'new_encryption': new}}
        for _ in range(2):
            world.agent.tasks.perform(work)
        world.agent.tasks.forget(1000)
        assert os.path.getsize(path) == GIB + (luks.OVERHEAD if new else 0)
        with open(path, 'rb') as file:
            assert (b'plain text' in file.read(4 * MIB)) == (new is None)
    assert content(path, 0, 10) == b'plain text'
    assert os.listdir(world.agent.tasks.folder) == []


def test_a_volume_is_uploaded(world, id):
    path = make(world, id)
    put(path, b'content')
    queued = world.image.queued()
    for format in ('raw', 'qcow2', 'vmdk'):
        queued = world.image.queued()
        world.ok('copy_to_image', id, volume_id=id, image_id=queued, disk_format=format, container_format='bare',
                 encryption=None)
        assert world.image.images[queued]['status'] == 'active' and world.image.images[queued]['disk_format'] == format
        if format == 'raw':
            assert len(world.image.data[queued]) == GIB and world.image.data[queued][:7] == b'content'
        else:
            assert len(world.image.data[queued]) < MIB
    assert os.listdir(world.agent.tasks.folder) == []
    outcome = world.run('copy_to_image', id, volume_id=id, image_id='gone', disk_format='raw', container_format='bare',
                        encryption=None)
    assert 'error' in outcome


def test_backups_whole_and_of_what_changed(world, id):
    path = make(world, id)
    put(path, os.urandom(9 * MIB))
    first, second, new = (str(uuid.uuid4()) for _ in range(3))
    one = world.ok('create_backup', id, backup_id=first, volume_id=id, size=1, snapshot_id=None, container=None, parent=None,
                   encryption=None)['record']
    assert one['service'] == 'file' and 9 * MIB < one['size'] < 10 * MIB
    put(path, b'changed', 5 * MIB)
    kept = content(path, 0, 9 * MIB)
    two = world.ok('create_backup', id, backup_id=second, volume_id=id, size=1, snapshot_id=None, container=None, parent=one,
                   encryption=None)['record']
    assert two['size'] < 5 * MIB, 'one block changed'
    put(path, b'spoilt')
    # Into a new volume that is larger, and over the old one.
    make(world, new, size=2)
    for target, size in ((new, 2), (id, 1)):
        world.ok('restore_backup', target, backup_id=second, volume_id=target, size=size, records=[one, two])
        assert content(world.path(base.volume(target)), 0, 9 * MIB) == kept
        assert os.path.getsize(world.path(base.volume(target))) == size * GIB
    world.ok('restore_backup', id, backup_id=first, volume_id=id, size=1, records=[one])
    assert content(path, 5 * MIB, 7) != b'changed'
    for backup, record in ((second, two), (first, one)):
        for _ in range(2):
            world.ok('delete_backup', backup, backend='', backup_id=backup, record=record)
    assert os.listdir(os.path.join(world.store.location, one['container'])) == []


def test_a_damaged_backup_spoils_no_volume(world, id):
    path, backup = make(world, id), str(uuid.uuid4())
    put(path, b'kept')
    record = world.ok('create_backup', id, backup_id=backup, volume_id=id, size=1, snapshot_id=None, container=None, parent=None,
                      encryption=None)['record']
    put(path, b'live')
    data = os.path.join(world.store.location, record['container'], record['prefix'], 'data-00001')
    put(data, b'\xff', 3)
    outcome = world.run('restore_backup', id, backup_id=backup, volume_id=id, size=1, records=[record])
    assert 'damaged' in outcome['error'] and content(path, 0, 4) == b'live'


def test_an_attached_volume_is_read_from_a_snapshot_for_the_while(world, id, monkeypatch):
    path, seen = make(world, id), []
    put(path, b'then')
    world.conductor.export('attachment', id)
    monkeypatch.setattr(world.driver, 'delete_snapshot', lambda *args: seen.append(args))
    record = world.ok('create_backup', id, backup_id=str(uuid.uuid4()), volume_id=id, size=1, snapshot_id=None, container=None,
                      parent=None, encryption=None)['record']
    assert record['metadata']['volume_id'] == id and len(seen) == 1


def test_what_others_made_is_managed_and_left_again(world, id):
    with open(os.path.join(world.driver.folder, 'mine.raw'), 'wb') as file:
        file.truncate(GIB // 2 * 3)
    assert world.ok('manage_volume', id, volume_id=id, reference={'source-name': 'mine.raw'}) == {'size': 2}
    assert world.driver.size(base.volume(id)) == 2 * GIB
    world.ok('unmanage_volume', id, volume_id=id)
    assert world.driver.size(base.volume(id)) is None
    again = str(uuid.uuid4())
    assert world.ok('manage_volume', again, volume_id=again, reference={'source-name': f'volume-{id}'}) == {'size': 2}
    for wrong in ({'source-name': 'none'}, {}, {'source-name': '../../etc/passwd'}):
        outcome = world.run('manage_volume', id, volume_id=id, reference=wrong)
        assert 'error' in outcome


def test_a_work_that_is_listed_no_more_is_stopped(world, id, monkeypatch):
    began = []

    def slow(*_args, **_more):
        began.append(1)
        while True:
            tasks.qemu_img.ticket.check(1, 2)
    monkeypatch.setattr(world.driver, 'create', slow)
    number = world.conductor.post('create_volume', id, volume_id=id, size=1, source=NONE, encryption=None)
    world.agent.reconciler.nudge()
    world.until(lambda: began)
    world.conductor.cancel(number)
    world.ok('delete_volume', id, volume_id=id)
    assert number not in world.conductor.results


def test_outcomes_wait_for_a_conductor_that_is_away(world, id):
    number = world.conductor.post('create_volume', id, volume_id=id, size=1, source=NONE, encryption=None)
    world.agent.bring('state', world.conductor.host_state('host', None))
    world.conductor.away = True
    world.until(lambda: os.path.exists(world.path(base.volume(id))))
    assert number not in world.conductor.results
    world.conductor.away = False
    assert 'error' not in world.outcome(number)


def test_works_of_one_resource_come_in_their_order(world, id):
    numbers = [world.conductor.post('create_volume', id, volume_id=id, size=1, source=NONE, encryption=None)]
    numbers += [world.conductor.post('extend_volume', id, volume_id=id, size=size, attached=False, encryption=None)
                for size in (2, 3, 4)]
    numbers.append(world.conductor.post('delete_volume', id, volume_id=id))
    assert all('error' not in world.outcome(number) for number in numbers)
    assert world.driver.size(base.volume(id)) is None


def test_exports_are_those_of_the_state(world, id):
    path = make(world, id)
    world.conductor.export('one', id)
    world.conductor.export('two', id, 'ro')
    world.conductor.export('lost', str(uuid.uuid4()))
    world.agent.reconciler.nudge()
    world.until(lambda: {'one', 'two', 'lost'} <= world.conductor.connections.keys())
    assert world.conductor.connections['one']['connection'] == {
        'driver_volume_type': 'iscsi', 'data': {'auth_password': 'password'}}
    assert 'not on its back end' in world.conductor.connections['lost']['error']
    assert world.exporter.there['one'].node.path == path and world.exporter.there['two'].read_only
    world.ok('extend_volume', id, volume_id=id, size=2, attached=True, encryption=None)
    assert world.exporter.resized == [(id, 2 * GIB), (id, 2 * GIB)]
    world.conductor.unexport('one')
    world.ok('delete_volume', str(uuid.uuid4()), volume_id=str(uuid.uuid4()))
    assert world.exporter.there.keys() == {'two'}, 'exports are brought about before works'


def test_an_exporter_that_lost_its_exports_gets_them_again(world, id):
    make(world, id)
    world.conductor.export('one', id)
    world.agent.reconciler.nudge()
    world.until(lambda: 'one' in world.exporter.there)
    world.exporter.there = {}
    world.exporter.lost()
    world.until(lambda: 'one' in world.exporter.there)


def test_unknown_things_are_said(world, id):
    assert 'cannot do' in world.run('paint_volume', id)['error']
    assert 'no back end' in world.run('create_volume', id, backend='gone', volume_id=id)['error']


def test_copies_without_reflink_keep_their_holes(tmp_path, monkeypatch):
    monkeypatch.setattr(sparse, 'reflink', lambda *_args: False)
    source, target = tmp_path / 'source', tmp_path / 'target'
    with open(source, 'wb') as file:
        file.seek(64 * MIB)
        file.write(b'data')
        file.truncate(128 * MIB)
    assert sparse.clone(source, target, 256 * MIB) is False
    assert os.path.getsize(target) == 256 * MIB and os.stat(target).st_blocks * 512 < MIB
    assert content(target, 64 * MIB, 4) == b'data'


def test_back_ends_of_one_host_share_what_exports_them(world, id):
    other = str(uuid.uuid4())
    make(world, id)
    world.ok('create_volume', other, backend='other', volume_id=other, size=1, source=NONE, encryption=None)
    world.ok('create_volume', id, backend='other', volume_id=id, size=1, source=NONE, encryption=None)
    for attachment, volume, backend in (('a', id, 'file'), ('b', other, 'other'), ('c', id, 'other')):
        world.conductor.export(attachment, volume, backend=backend)
        world.agent.reconciler.nudge()
        world.until(lambda attachment=attachment: attachment in world.conductor.connections)
    places = {attachment: export.node.path for attachment, export in world.exporter.there.items()}
    assert places.keys() == {'a', 'b', 'c'} and len(set(places.values())) == 3 and 'other' in places['c']
    world.conductor.unexport('b')
    world.agent.reconciler.nudge()
    world.until(lambda: world.exporter.there.keys() == {'a', 'c'})
