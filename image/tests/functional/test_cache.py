import os

import pytest
import sqlalchemy as sa

from kodiak.common import db, testing
from kodiak.image import models
from kodiak.image.drivers import base

DATA = os.urandom(3 << 20)


class Far:
    """A blob of a store on another host: it has no descriptor."""

    def __init__(self, file):
        self.read, self.close = file.read, file.close


@pytest.fixture
def far(make_cloud, tmp_path, monkeypatch):
    """A cloud with a cache, whose store is far away."""
    cloud = make_cloud(cache__path=str(tmp_path / 'cache'), cache__max_size=7 << 20)
    store = cloud.runtime.extra['stores'].default
    original = store.open
    cloud.reads = []

    def open_far(key, offset=0):
        cloud.reads.append(key)
        return Far(original(key, offset))
    monkeypatch.setattr(store, 'open', open_far)
    return cloud


@pytest.fixture
def owner(far):
    return far.client(testing.MEMBER)


@pytest.fixture
def boss(far):
    return far.client(testing.ADMIN)


def make(owner, helpers, data=DATA):
    image = helpers.create(owner)
    helpers.upload(owner, image['id'], data)
    return image


def listed(boss):
    shown = boss.get('/v2/cache').expect(200).json
    return [entry['image_id'] for entry in shown['cached_images']], shown['queued_images']


def files(far):
    return sorted(name for _, _, names in os.walk(far.runtime.conf.cache.path) for name in names)


def test_without_a_cache_there_is_no_api(admin, cloud, member, helpers):
    for method, path in (('GET', ''), ('DELETE', ''), ('POST', '/clean'), ('POST', '/prune'), ('DELETE', '/x')):
        admin.request(method, '/v2/cache' + path).expect(404)
    member.get('/v2/cache').expect(403)
    assert 'v2.14' not in str(cloud.client(None).get('/versions').json)


def test_what_is_downloaded_is_kept(far, owner, boss, helpers):
    assert 'v2.18' in str(far.client(None).get('/versions').json)
    image = make(owner, helpers)
    assert owner.get(image['file'], headers={'Range': 'bytes=0-9'}).expect(206).data == DATA[:10]
    assert listed(boss) == ([], []) and len(far.reads) == 1
    assert owner.get(image['file']).data == DATA
    assert listed(boss) == ([image['id']], []) and len(far.reads) == 2
    assert owner.get(image['file']).data == DATA
    assert owner.get(image['file'], headers={'Range': 'bytes=5-9'}).data == DATA[5:10]
    assert len(far.reads) == 2
    entry = boss.get('/v2/cache').json['cached_images'][0]
    assert entry['hits'] == 2 and entry['size'] == len(DATA) and entry['last_accessed'] >= entry['last_modified']
    assert boss.get('/v2/cache/nodes/' + image['id']).expect(200).json == [far.runtime.conf.host]
    # Without access there is nothing to be had from it either.
    far.client(testing.OTHER).get(image['file']).expect(404)
    boss.delete('/v2/cache/' + image['id']).expect(204)
    boss.delete('/v2/cache/' + image['id']).expect(404)
    assert owner.get(image['file']).data == DATA and len(far.reads) == 3


def test_a_download_that_breaks_off_leaves_nothing(far, owner, boss, helpers):
    image = make(owner, helpers)
    store = far.runtime.extra['stores'].default
    tee = far.runtime.extra['cache'].keep(store.open((far.reads and far.reads[0]) or blob(far)), owner.get(
        '/v2/images/' + image['id']).json)
    assert tee.read(1 << 20)
    tee.close()
    assert files(far) == [] and listed(boss) == ([], [])


def blob(far):
    with far.runtime.db.read() as connection:
        return connection.execute(sa.select(models.blobs.c.id)).scalar()


def test_images_are_queued_and_fetched(far, owner, boss, helpers, monkeypatch):
    image, queued = make(owner, helpers), helpers.create(owner)
    owner.put('/v2/cache/' + image['id']).expect(403)
    boss.put('/v2/cache/' + db.new_id()).expect(404)
    boss.put('/v2/cache/' + queued['id']).expect(400)
    for _ in range(2):
        boss.put('/v2/cache/' + image['id']).expect(202)
    assert listed(boss) == ([], [image['id']])
    prefetcher = far.runtime.background[2]
    assert prefetcher.cache.fetch_queued(prefetcher.stores) == 1
    assert listed(boss) == ([image['id']], []) and files(far) == [image['id']]
    reads = len(far.reads)
    assert owner.get(image['file']).data == DATA and len(far.reads) == reads
    # One that cannot be fetched leaves the queue.
    other = make(owner, helpers)
    boss.put('/v2/cache/' + other['id']).expect(202)

    def gone(key, offset=0):
        raise base.NoSuchData
    monkeypatch.setattr(far.runtime.extra['stores'].default, 'open', gone)
    assert prefetcher.cache.fetch_queued(prefetcher.stores) == 0 and listed(boss) == ([image['id']], [])


def test_the_least_used_goes_first(far, owner, boss, helpers):
    made = [make(owner, helpers) for _ in range(3)]
    for image in (made[0], made[1], made[0], made[2]):
        owner.get(image['file']).expect(200)
    assert sorted(listed(boss)[0]) == sorted([made[0]['id'], made[2]['id']])
    far.runtime.extra['cache'].max_size = 4 << 20
    assert boss.post('/v2/cache/prune').expect(200).json == {'total_files_pruned': 1, 'total_bytes_pruned': len(DATA)}
    assert listed(boss)[0] == [made[2]['id']]
    big = make(owner, helpers, os.urandom(5 << 20))
    owner.get(big['file']).expect(200)
    assert listed(boss)[0] == [made[2]['id']]


def test_emptying(far, owner, boss, helpers):
    first, second = make(owner, helpers), make(owner, helpers)

    def fill():
        owner.get(first['file']).expect(200)
        boss.put('/v2/cache/' + second['id']).expect(202)
    fill()
    boss.delete('/v2/cache', headers={'x-image-cache-clear-target': 'odd'}).expect(400)
    boss.delete('/v2/cache', headers={'x-image-cache-clear-target': 'queue'}).expect(204)
    assert listed(boss) == ([first['id']], [])
    fill()
    boss.delete('/v2/cache', headers={'x-image-cache-clear-target': 'cache'}).expect(204)
    assert listed(boss) == ([], [second['id']])
    fill()
    boss.delete('/v2/cache').expect(204)
    assert listed(boss) == ([], []) and files(far) == []


def test_cleaning(far, owner, boss, helpers):
    image = make(owner, helpers)
    owner.get(image['file']).expect(200)
    path = far.runtime.conf.cache.path
    for name, age in (('stray', 0), ('incoming/old', 2 * 86400), ('incoming/new', 0)):
        with open(os.path.join(path, name), 'wb'):
            pass
        moment = os.stat(os.path.join(path, name)).st_mtime - age
        os.utime(os.path.join(path, name), (moment, moment))
    boss.post('/v2/cache/clean').expect(200)
    assert files(far) == sorted([image['id'], 'new'])
    owner.delete('/v2/images/' + image['id']).expect(204)
    boss.post('/v2/cache/clean').expect(200)
    assert files(far) == ['new'] and listed(boss) == ([], [])


def test_what_was_deleted_leaves_the_cache(far, owner, boss, helpers):
    image, other = make(owner, helpers), make(owner, helpers)
    for one in (image, other):
        owner.get(one['file']).expect(200)
    owner.delete('/v2/images/' + image['id']).expect(204)
    far.runtime.background[2].look()
    assert files(far) == [other['id']] and listed(boss) == ([other['id']], [])


def test_a_damaged_file_is_not_served(far, owner, helpers):
    image = make(owner, helpers)
    owner.get(image['file']).expect(200)
    os.truncate(os.path.join(far.runtime.conf.cache.path, image['id']), 5)
    assert owner.get(image['file']).data == DATA
