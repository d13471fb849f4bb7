"""Several stores at once: files here, the Swift, the S3 and the Cinder API elsewhere."""
import io
import os
import types

import pytest
import sqlalchemy as sa

from kodiak.common import db, errors, testing
from kodiak.image import models
from kodiak.image.drivers import base

objectstores, blockstore = testing.module(__file__, 'objectstores'), testing.module(__file__, 'blockstore')

DATA = os.urandom(3 << 20) + b'end'


@pytest.fixture
def cloud(make_cloud, monkeypatch):
    swift, s3 = objectstores.Swift(), objectstores.S3()
    with testing.serving(swift) as swift_root, testing.serving(s3) as s3_root:
        session = objectstores.Session(swift_root)
        monkeypatch.setattr('kodiak.image.stores._sessions', lambda *_: lambda: session)
        made = make_cloud(stores__enabled=['file:file', 'objects:swift', 'bucket:s3'], store_objects__segment_size=1,
                          store_objects__weight=5, store_bucket__endpoint=s3_root, store_bucket__access_key='me',
                          store_bucket__secret_key='secret')
        made.swift, made.s3 = swift, s3
        yield made


@pytest.fixture
def owner(cloud):
    return cloud.client(testing.MEMBER)


def blobs(cloud):
    with cloud.runtime.db.read() as connection:
        return sorted(connection.execute(sa.select(models.blobs.c.store, models.blobs.c.state)).all())


def objects(cloud):
    return sum(map(len, cloud.swift.containers.values())), sum(map(len, cloud.s3.buckets.values()))


def run(cloud):
    cloud.runtime.background[1].run_due()
    cloud.runtime.background[0].look()


@pytest.mark.parametrize(('store', 'held'), [('objects', (5, 0)), ('bucket', (0, 1))])
def test_data_goes_to_the_store_that_is_named(cloud, owner, helpers, store, held):
    image = helpers.create(owner)
    helpers.upload(owner, image['id'], DATA, X_Image_Meta_Store=store)
    assert owner.get('/v2/images/' + image['id']).json['stores'] == store
    assert objects(cloud) == held and os.listdir(cloud.runtime.extra['stores']['file'].path) == ['writing']
    assert owner.get(image['file']).expect(200).data == DATA
    assert owner.get(image['file'], headers={'Range': 'bytes=1048570-1048580'}).expect(206).data == DATA[1048570:1048581]
    owner.delete('/v2/images/' + image['id']).expect(204)
    run(cloud)
    assert objects(cloud) == (0, 0) and blobs(cloud) == []


def test_refused_data_leaves_nothing_there(cloud, owner, helpers):
    for store in ('objects', 'bucket'):
        image = helpers.create(owner, disk_format='qcow2')
        helpers.upload(owner, image['id'], DATA, status=400, X_Image_Meta_Store=store)
        assert owner.get('/v2/images/' + image['id']).json['status'] == 'queued'
    assert objects(cloud) == (0, 0) and blobs(cloud) == []


def test_an_import_into_all_stores_and_the_way_back(cloud, owner, helpers):
    boss, image = cloud.client(testing.ADMIN), helpers.create(owner)
    path = '/v2/images/' + image['id']
    owner.put(path + '/stage', data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    owner.post(path + '/import', {'method': {'name': 'glance-direct'}, 'all_stores': True}).expect(202)
    run(cloud)
    shown = owner.get(path).json
    assert shown['status'] == 'active' and shown['stores'] == 'objects,bucket,file'
    assert objects(cloud) == (5, 1)
    for left in ('objects', 'bucket', 'file'):
        for one in ('objects', 'bucket', 'file'):
            if one != left and one in boss.get(path).json['stores']:
                boss.delete(f"/v2/stores/{one}/{image['id']}").expect(204)
        run(cloud)
        assert owner.get(path).json['stores'] == left and owner.get(image['file']).data == DATA
        boss.delete(f"/v2/stores/{left}/{image['id']}").expect(403)
        boss.post(path + '/import', {'method': {'name': 'copy-image'}, 'all_stores': True}).expect(202)
        run(cloud)
        assert owner.get(path).json['stores'] == 'objects,bucket,file'
    assert sorted(set(blobs(cloud))) == [('bucket', 'live'), ('file', 'live'), ('objects', 'live')] and len(blobs(cloud)) == 3


def test_a_store_that_fails(cloud, owner, helpers):
    cloud.swift.fail = lambda request: 503 if request.method in ('PUT', 'GET') else None
    image = helpers.create(owner)
    path = '/v2/images/' + image['id']
    helpers.upload(owner, image['id'], DATA, status=503, X_Image_Meta_Store='objects')
    assert owner.get(path).json['status'] == 'queued'
    # An import that need not reach all stores goes on without it.
    owner.put(path + '/stage', data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    owner.post(path + '/import', {'method': {'name': 'glance-direct'}, 'stores': ['objects', 'bucket'],
                                  'all_stores_must_succeed': False}).expect(202)
    run(cloud)
    shown = owner.get(path).json
    assert shown['status'] == 'active' and shown['stores'] == 'bucket' and shown['os_glance_failed_import'] == 'objects'
    assert owner.get(image['file']).data == DATA


def test_reading_goes_on_to_the_next_store(cloud, owner, helpers):
    image = helpers.create(owner)
    path = '/v2/images/' + image['id']
    owner.put(path + '/stage', data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    owner.post(path + '/import', {'method': {'name': 'glance-direct'}, 'all_stores': True}).expect(202)
    run(cloud)
    cloud.swift.fail = lambda request: 503
    cloud.s3.fail = lambda request: (500, 'InternalError')
    assert owner.get(image['file']).data == DATA
    assert owner.get(image['file'] + '?prefer=bucket,objects').data == DATA
    # What cannot be removed now is removed when the store is back.
    owner.delete(path).expect(204)
    run(cloud)
    assert {store for store, _ in blobs(cloud)} == {'bucket', 'objects'}
    cloud.swift.fail = cloud.s3.fail = lambda request: None
    with cloud.runtime.db.write() as connection:
        connection.execute(sa.update(models.blobs).values(lease_until=db.utcnow()))
    run(cloud)
    assert blobs(cloud) == [] and objects(cloud) == (0, 0)


@pytest.mark.parametrize('way', ['fails', 'ends early'])
def test_a_download_goes_on_from_the_next_store(cloud, owner, helpers, monkeypatch, way):
    image = helpers.create(owner)
    path = '/v2/images/' + image['id']
    owner.put(path + '/stage', data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    owner.post(path + '/import', {'method': {'name': 'glance-direct'}, 'stores': ['objects', 'bucket']}).expect(202)
    run(cloud)
    store = cloud.runtime.extra['stores']['objects']
    original, opened = store.open, []

    class Torn:
        def __init__(self, source):
            self.source, self.left = source, 3
            self.close = source.close
            opened.append(self)

        def read(self, size):
            self.left -= 1
            if self.left >= 0:
                return self.source.read(100000)
            if way == 'fails':
                raise base.StoreUnavailable('torn')
            return b''
    monkeypatch.setattr(store, 'open', lambda key, offset=0: Torn(original(key, offset)))
    assert owner.get(image['file']).data == DATA
    assert owner.get(image['file'], headers={'Range': 'bytes=70000-2000000'}).data == DATA[70000:2000001]
    assert len(opened) == 2
    # With no store left the answer breaks off, rather than end as if it were whole.
    admin = cloud.client(testing.ADMIN)
    admin.delete(f"/v2/stores/bucket/{image['id']}").expect(204)
    with pytest.raises(errors.Unavailable):
        owner.get(image['file'])


def test_data_of_unknown_size(make_cloud, helpers, monkeypatch):
    cloud = make_cloud(stores__show_locations=True, stores__enabled=['file:file', 'web:http'])
    admin = cloud.client(testing.ADMIN)
    store = cloud.runtime.extra['stores']['web']
    monkeypatch.setattr(store, 'open', lambda key, offset=0: types.SimpleNamespace(
        read=io.BytesIO(DATA[offset:]).read, close=lambda: None, size=None))
    image = helpers.create(admin)
    body = [{'op': 'add', 'path': '/locations/-', 'value': {'url': 'http://example.org/x', 'metadata': {}}}]
    admin.patch('/v2/images/' + image['id'], body, headers={
        'Content-Type': 'application/openstack-images-v2.1-json-patch'}).expect(200)
    answer = admin.get(image['file'], headers={'Range': 'bytes=0-9'}).expect(200)
    assert answer.data == DATA and 'Content-Length' not in answer.headers


@pytest.mark.skipif(blockstore.MISSING, reason='qemu-nbd is missing')
def test_images_on_block_storage(make_cloud, helpers, monkeypatch, tmp_path):
    with blockstore.running(tmp_path) as server:
        session = objectstores.Session(server.root)
        monkeypatch.setattr('kodiak.image.stores._sessions', lambda *_: lambda: session)
        cloud = make_cloud(stores__enabled=['file:file', 'volumes:cinder'], stores__default='volumes')
        owner, boss = cloud.client(testing.MEMBER), cloud.client(testing.ADMIN)
        image = helpers.create(owner)
        path = '/v2/images/' + image['id']
        helpers.upload(owner, image['id'], DATA)
        assert owner.get(path).json['stores'] == 'volumes' and len(server.volumes) == 1
        assert owner.get(image['file']).data == DATA
        assert owner.get(image['file'], headers={'Range': 'bytes=1048570-1048580'}).expect(206).data == DATA[1048570:1048581]
        boss.post(path + '/import', {'method': {'name': 'copy-image'}, 'stores': ['file']}).expect(202)
        run(cloud)
        boss.delete('/v2/stores/volumes/' + image['id']).expect(204)
        run(cloud)
        assert server.volumes == {} and owner.get(image['file']).data == DATA
        # What is refused leaves no volume; what is deleted neither; nor does an import, whose data is staged in one.
        refused = helpers.create(owner, disk_format='qcow2')
        helpers.upload(owner, refused['id'], DATA, status=400)
        assert server.volumes == {}
        owner.put(f"/v2/images/{refused['id']}/stage", data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
        assert len(server.volumes) == 1
        owner.delete('/v2/images/' + refused['id']).expect(204)
        run(cloud)
        server.room = 0
        helpers.upload(owner, helpers.create(owner)['id'], DATA, status=413)
        assert server.volumes == {} == server.attachments and [store for store, _ in blobs(cloud)] == ['file']
