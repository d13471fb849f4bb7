import datetime
import hashlib
import io
import os
import threading
import tracemalloc

import pytest
import sqlalchemy as sa
import werkzeug.test

from kodiak.common import db, errors, testing
from kodiak.image import blobs as blob_rows
from kodiak.image import models, trash, uploads
from kodiak.image.drivers import base

BYTES = {'Content-Type': 'application/octet-stream'}


class Stream:
    """A body that is made while it is read. ``at`` maps an offset to what happens there."""

    def __init__(self, size, at=None):
        self.size, self.done, self.at = size, 0, dict(at or {})

    def read(self, size=-1):
        for offset in [offset for offset in self.at if offset <= self.done]:
            self.at.pop(offset)()
        length = min(self.size - self.done, size if size >= 0 else self.size)
        self.done += length
        return bytes(length)


def stored(cloud):
    """Every file in the store."""
    return [name for _, _, names in os.walk(cloud.runtime.extra['stores'].default.path) for name in names]


def blobs(cloud):
    with cloud.runtime.db.read() as connection:
        return db.all_dicts(connection, sa.select(models.blobs))


def send(cloud, image_id, stream, persona=testing.MEMBER, length=None, headers=()):
    """Upload a stream, chunked unless it has a length; returns the status."""
    sent = {**BYTES, 'X-Auth-Token': cloud.identity.token(persona), 'Accept': 'application/json', **dict(headers)}
    environ = werkzeug.test.EnvironBuilder(f'/v2/images/{image_id}/file', method='PUT', headers=sent).get_environ()
    environ.update({'wsgi.input': stream, 'wsgi.input_terminated': True})
    environ.pop('CONTENT_LENGTH', None)
    if length is not None:
        environ['CONTENT_LENGTH'] = str(length)
    body, line, _ = werkzeug.test.run_wsgi_app(cloud.application, environ, buffered=True)
    return int(line.split()[0]), b''.join(body).decode()


def status(client, image):
    return client.get('/v2/images/' + image['id']).expect(200).json['status']


@pytest.fixture
def image(member, helpers):
    return helpers.create(member)


def clean(cloud, client, image):
    """Nothing of an upload is left, and another one can come."""
    assert status(client, image) == 'queued' and stored(cloud) == [] and blobs(cloud) == []
    assert send(cloud, image['id'], Stream(10))[0] == 204


def test_a_chunked_upload(cloud, member, image):
    assert send(cloud, image['id'], Stream(5 << 20))[0] == 204
    shown = member.get('/v2/images/' + image['id']).json
    assert shown['size'] == 5 << 20 == shown['virtual_size'] and shown['stores'] == 'file'
    assert shown['os_hash_value'] == hashlib.sha512(bytes(5 << 20)).hexdigest()
    assert shown['checksum'] == hashlib.md5(bytes(5 << 20)).hexdigest()
    assert len(stored(cloud)) == 1 and [row['state'] for row in blobs(cloud)] == ['live']


def test_empty_data_makes_an_active_image(cloud, member, image):
    assert send(cloud, image['id'], Stream(0))[0] == 204
    assert member.get('/v2/images/' + image['id']).json['size'] == 0
    assert member.get(image['file']).expect(200).data == b''


def test_an_interrupted_upload_leaves_nothing(cloud, member, image):
    def die():
        raise ConnectionResetError
    assert send(cloud, image['id'], Stream(9 << 20, {4 << 20: die}))[0] == 400
    clean(cloud, member, image)


def test_a_body_shorter_than_announced_leaves_nothing(cloud, member, image):
    assert send(cloud, image['id'], Stream(100), length=200)[0] == 400
    assert send(cloud, image['id'], Stream(100), headers={'x-openstack-image-size': '99'})[0] == 400
    assert send(cloud, image['id'], Stream(100), headers={'x-openstack-image-size': 'x'})[0] == 400
    clean(cloud, member, image)


def test_a_full_store_leaves_nothing(cloud, member, image, monkeypatch):
    writer = type(cloud.runtime.extra['stores'].default.create('full'))

    def full(self, data):
        raise base.StoreFull
    cloud.runtime.extra['stores'].default.remove('full')
    monkeypatch.setattr(writer, 'write', full)
    assert send(cloud, image['id'], Stream(100))[0] == 413
    monkeypatch.undo()
    assert send(cloud, image['id'], Stream(100), headers={'x-openstack-image-size': str(1 << 39)})[0] in (413, 400)
    clean(cloud, member, image)


def test_what_an_upload_needs(cloud, member, other, helpers, image):
    path = image['file']
    member.put(path, data=b'x', headers={'Content-Type': 'text/plain'}).expect(415)
    other.put(path, data=b'x', headers=BYTES).expect(404)
    cloud.client(testing.READER).put(path, data=b'x', headers=BYTES).expect(403)
    member.put(path, data=b'x', headers={**BYTES, 'X-Image-Meta-Store': 'none'}).expect(400)
    bare = member.post('/v2/images', {}).expect(201).json
    assert 'disk_format' in member.put(bare['file'], data=b'x', headers=BYTES).expect(400).json['message']
    clean(cloud, member, image)


def test_two_uploads_at_once(cloud, member, image):
    second = []
    first = Stream(3 << 20, {1 << 20: lambda: second.append((send(cloud, image['id'], Stream(10))[0], status(member, image)))})
    assert send(cloud, image['id'], first)[0] == 204
    assert second == [(409, 'saving')]
    assert member.get('/v2/images/' + image['id']).json['size'] == 3 << 20 and len(stored(cloud)) == 1


def test_deleted_during_the_upload(cloud, member, image, monkeypatch):
    stream = Stream(3 << 20, {1 << 20: lambda: member.delete('/v2/images/' + image['id']).expect(204)})
    assert send(cloud, image['id'], stream)[0] == 410
    assert stored(cloud) == [] and blobs(cloud) == []
    # With a lease that is looked at for every piece, the upload ends before its data does.
    monkeypatch.setattr(blob_rows, 'RENEW', 0)
    image = member.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare'}).json
    stream = Stream(30 << 20, {1 << 20: lambda: member.delete('/v2/images/' + image['id']).expect(204)})
    assert send(cloud, image['id'], stream)[0] == 410
    assert stream.done < 30 << 20 and stored(cloud) == [] and blobs(cloud) == []


def test_unsafe_data_leaves_nothing(cloud, member, helpers):
    image = helpers.create(member, disk_format='qcow2')
    header = b'QFI\xfb' + (3).to_bytes(4, 'big') + (512).to_bytes(8, 'big') + bytes(100000)
    code, text = send(cloud, image['id'], io.BytesIO(header))
    assert code == 400 and 'backing file' in text
    assert status(member, image) == 'queued' and stored(cloud) == [] and blobs(cloud) == []


def test_images_have_a_largest_size(make_cloud, helpers):
    cloud = make_cloud(limits__image_size=1000)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)
    for length in (None, 1001):
        assert send(cloud, image['id'], Stream(1001), length=length)[0] == 413
    assert send(cloud, image['id'], Stream(1000))[0] == 204


def test_an_upload_that_died_with_its_process_is_undone(cloud, member, image):
    store, keeper = cloud.runtime.extra['stores'].default, cloud.runtime.background[0]
    upload = uploads.Upload(cloud.runtime, {'id': image['id'], 'status': 'queued', 'owner': 'x'}, store)
    cloud.runtime.db.transact(upload.claim, cloud.runtime.extra['limits'].of('x'))
    store.create(upload.filling.id).write(b'half of it')
    assert keeper.look() == 0 and status(member, image) == 'saving' and len(stored(cloud)) == 1
    _age(cloud)
    assert keeper.look() == 1
    clean(cloud, member, image)


def _age(cloud):
    with cloud.runtime.db.write() as connection:
        connection.execute(sa.update(models.blobs).values(lease_until=db.utcnow() - datetime.timedelta(seconds=1)))


def test_a_removal_that_fails_is_repeated(cloud, member, image, monkeypatch):
    store, keeper = cloud.runtime.extra['stores'].default, cloud.runtime.background[0]
    assert send(cloud, image['id'], Stream(10))[0] == 204
    member.delete('/v2/images/' + image['id']).expect(204)

    def fail(key):
        raise base.StoreUnavailable
    monkeypatch.setattr(store, 'remove', fail)
    assert keeper.look() == 0 and len(blobs(cloud)) == 1
    monkeypatch.undo()
    assert keeper.look() == 0, 'whoever tried has the blob to itself for a while'
    _age(cloud)
    assert keeper.look() == 1 and blobs(cloud) == [] and stored(cloud) == []


def test_deletion_can_wait(make_cloud, helpers):
    cloud = make_cloud(stores__delete_delay=60)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)
    assert send(cloud, image['id'], Stream(10))[0] == 204
    member.delete('/v2/images/' + image['id']).expect(204)
    member.get('/v2/images/' + image['id']).expect(404)
    keeper = cloud.runtime.background[0]
    assert keeper.look() == 0 and len(stored(cloud)) == 1
    _age(cloud)
    assert keeper.look() == 1 and stored(cloud) == []


def test_what_was_deleted_can_be_brought_back(make_cloud, helpers):
    cloud = make_cloud(stores__delete_delay=60)
    member, other, database = cloud.client(testing.MEMBER), cloud.client(testing.OTHER), cloud.runtime.db
    image = helpers.create(member, tags=['t'], colour='red')
    path = '/v2/images/' + image['id']
    assert send(cloud, image['id'], io.BytesIO(b'kept'))[0] == 204
    member.post(path + '/members', {'member': testing.OTHER_PROJECT}).expect(200)
    other.put(f'{path}/members/{testing.OTHER_PROJECT}', {'status': 'accepted'}).expect(200)
    before = member.get(path).json
    member.delete(path).expect(204)
    database.transact(trash.restore, image['id'])
    assert member.get(path).json == before and member.get(image['file']).data == b'kept'
    assert [one['id'] for one in other.get('/v2/images?tag=t&colour=red').json['images']] == [image['id']]
    keeper = cloud.runtime.background[0]
    _age(cloud)
    assert keeper.look() == 0
    with pytest.raises(errors.NotFound):
        database.transact(trash.restore, image['id'])
    member.delete(path).expect(204)
    again = helpers.create(member, id=image['id'])
    with pytest.raises(errors.Conflict):
        database.transact(trash.restore, image['id'])
    member.delete('/v2/images/' + again['id']).expect(204)
    database.transact(trash.restore, image['id'])
    # Nor does it come back once its data is due, or one that never had any.
    member.delete(path).expect(204)
    database.transact(blob_rows.hasten)
    with pytest.raises(errors.NotFound):
        database.transact(trash.restore, image['id'])
    assert keeper.look() == 1 and stored(cloud) == []
    empty = helpers.create(member)
    member.delete('/v2/images/' + empty['id']).expect(204)
    with database.read() as connection:
        assert connection.execute(sa.select(models.deleted_images)).all() == []


def test_the_keeper_works_in_its_thread_when_it_is_woken(cloud, member, image):
    assert send(cloud, image['id'], Stream(10))[0] == 204
    keeper = cloud.runtime.background[0]
    gone = threading.Event()
    original = keeper.stores.default.remove

    def remove(key):
        original(key)
        gone.set()
    keeper.stores.default.remove = remove
    keeper.start()
    member.delete('/v2/images/' + image['id']).expect(204)
    assert gone.wait(30)
    keeper.stop()
    assert stored(cloud) == []


def test_data_survives_a_restart(cloud, member, image):
    assert send(cloud, image['id'], io.BytesIO(b'kept'))[0] == 204
    cloud.restart()
    assert cloud.client(testing.MEMBER).get(image['file']).data == b'kept'


DATA = bytes(range(256)) * 100


@pytest.mark.parametrize(('header', 'first', 'last'), [
    ('bytes=0-99', 0, 99), ('bytes=100-', 100, 25599), ('bytes=-10', 25590, 25599), ('bytes=25000-99999', 25000, 25599),
    ('bytes=-99999', 0, 25599), ('bytes=0-0', 0, 0),
])
def test_ranges(member, image, helpers, header, first, last):
    helpers.upload(member, image['id'], DATA)
    answer = member.get(image['file'], headers={'Range': header}).expect(206)
    assert answer.data == DATA[first:last + 1]
    assert answer.headers['Content-Range'] == f'bytes {first}-{last}/25600'
    # As old clients of this API ask.
    assert member.get(image['file'], headers={'Content-Range': f'bytes {first}-{last}/25600'}).expect(206).data == answer.data
    assert answer.headers['Content-Length'] == str(last - first + 1) and 'Content-MD5' not in answer.headers


@pytest.mark.parametrize(('header', 'code'), [('bytes=25600-', 416), ('bytes=9-8', 416), ('bytes=x', 416), ('bytes=0-1,4-5', 400),
                                              ('bytes=-0', 416), ('lines=1-2', 416)])
def test_ranges_that_cannot_be(member, image, helpers, header, code):
    helpers.upload(member, image['id'], DATA)
    member.get(image['file'], headers={'Range': header}).expect(code)


def test_conditional_downloads(member, image, helpers):
    helpers.upload(member, image['id'], DATA)
    etag = member.get(image['file']).expect(200).headers['ETag']
    assert member.get(image['file'], headers={'If-None-Match': etag}).expect(304).data == b''
    for header, status in ((etag, 200), ('*', 200), (f'"other", {etag}', 200), ('"other"', 412)):
        member.get(image['file'], headers={'If-Match': header}).expect(status)
    assert member.get(image['file'], headers={'If-Range': '"other"', 'Range': 'bytes=0-1'}).expect(200).data == DATA
    member.get(image['file'], headers={'If-Range': etag, 'Range': 'bytes=0-1'}).expect(206)
    head = member.head(image['file']).expect(200)
    assert head.headers['Content-Length'] == '25600' and head.data == b''


def test_data_that_is_lost_is_said_to_be(cloud, member, image, helpers):
    helpers.upload(member, image['id'], DATA)
    store = cloud.runtime.extra['stores'].default
    store.remove(stored(cloud)[0])
    member.get(image['file']).expect(503)


def test_constant_memory_both_ways(cloud, member, image):
    tracemalloc.start()
    try:
        assert send(cloud, image['id'], Stream(300 << 20))[0] == 204
        up = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        client = werkzeug.test.Client(cloud.application)
        with client.open(image['file'], headers={'X-Auth-Token': cloud.identity.token(testing.MEMBER)}, buffered=False) as answer:
            assert sum(len(piece) for piece in answer.response) == 300 << 20
        down = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert up < 32 << 20 and down < 16 << 20


def test_an_unknown_store_does_not_stop_the_keeper(cloud):
    now = db.utcnow()
    with cloud.runtime.db.write() as connection:
        connection.execute(sa.insert(models.blobs), {'id': 'x', 'image_id': 'y', 'store': 'gone', 'state': 'doomed',
                                                     'lease_until': now, 'created_at': now})
    assert cloud.runtime.background[0].look() == 0 and len(blobs(cloud)) == 1


def test_a_server_that_drops_its_work_is_no_client_error(cloud, image, monkeypatch):
    def broken(self, connection, outcome, limits):
        raise errors.Unavailable
    monkeypatch.setattr(uploads.Upload, '_finish', broken)
    assert send(cloud, image['id'], Stream(10))[0] == 503
    assert stored(cloud) == [] and blobs(cloud) == []
