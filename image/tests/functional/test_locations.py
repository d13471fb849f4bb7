import hashlib
import http.server
import os
import threading

import pytest

from kodiak.common import testing

V20 = {'Content-Type': 'application/openstack-images-v2.0-json-patch'}
DATA = os.urandom(100000)
SHA512, MD5 = hashlib.sha512(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()


@pytest.fixture
def web():
    """A web server that has one file, with ranges."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith('/data'):
                return self.send_error(404)
            start = int(self.headers.get('Range', 'bytes=0-')[6:-1])
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(DATA) - start))
            self.end_headers()
            self.wfile.write(DATA[start:])

        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(web):
    return f'http://127.0.0.1:{web.server_port}/data'


@pytest.fixture
def open_cloud(make_cloud, web):
    return make_cloud(stores__show_locations=True, stores__enabled=['file:file', 'web:http'],
                      imports__web_ports=[str(web.server_port)], imports__web_networks=['127.0.0.0/8'])


@pytest.fixture
def owner(open_cloud):
    return open_cloud.client(testing.MEMBER)


@pytest.fixture
def image(owner, helpers):
    return helpers.create(owner)


def patch(client, image, operations, status=200):
    return client.patch('/v2/images/' + image['id'], operations, headers=V20).expect(status).json


def add(url, place='-', **more):
    return [{'add': f'/locations/{place}', 'value': {'url': url, 'metadata': {'speed': 'high'}, **more}}]


def test_a_location_is_the_data(open_cloud, owner, image, url):
    assert image['locations'] == []
    after = patch(owner, image, add(url))
    assert after['status'] == 'active' and after['size'] == len(DATA)
    assert after['os_hash_algo'] is None and after['checksum'] is None
    assert after['locations'] == [{'url': url, 'metadata': {'speed': 'high', 'store': 'web'}}] and after['direct_url'] == url
    assert after['stores'] == 'web'
    assert owner.get(image['file']).expect(200).data == DATA
    part = owner.get(image['file'], headers={'Range': 'bytes=99990-'}).expect(206)
    assert part.data == DATA[99990:]
    # A second one behind it, then before it; metadata changed; one removed, by who may.
    patch(owner, image, add(url), 400)
    patch(owner, image, add(url + '#2'))
    after = patch(owner, image, add(url + '#0', '0'))
    assert [location['url'] for location in after['locations']] == [url + '#0', url, url + '#2']
    after['locations'][0]['metadata']['date'] = 'today'
    assert patch(owner, image, [{'replace': '/locations', 'value': after['locations']}])['locations'] == after['locations']
    for bad in ([after['locations'][0]], [{**after['locations'][0], 'url': url + '#9'}, *after['locations'][1:]], 'x', [{}]):
        patch(owner, image, [{'replace': '/locations', 'value': bad}], 400)
    patch(owner, image, [{'replace': '/locations', 'value': []}], 403)
    patch(owner, image, [{'remove': '/locations/0'}], 403)
    admin = open_cloud.client(testing.ADMIN)
    assert len(patch(admin, image, [{'remove': '/locations/0'}])['locations']) == 2
    patch(admin, image, [{'remove': '/locations/7'}], 400)
    patch(admin, image, [{'remove': '/locations/0'}])
    patch(admin, image, [{'remove': '/locations/0'}], 403)
    patch(owner, image, [{'remove': '/locations'}], 403)
    patch(owner, image, [{'add': '/locations', 'value': []}], 400)


def test_validation_data(owner, image, url):
    given = {'checksum': '1' * 32, 'os_hash_algo': 'sha512', 'os_hash_value': 'deadbeef' * 16}
    after = patch(owner, image, add(url, validation_data=given))
    assert {name: after[name] for name in given} == given and 'validation_data' not in after['locations'][0]
    patch(owner, image, add(url + '#2', validation_data={**given, 'checksum': '2' * 32}), 409)
    patch(owner, image, add(url + '#2', validation_data={**given, 'os_hash_algo': 'sha1'}), 409)
    assert len(patch(owner, image, add(url + '#2', validation_data=given))['locations']) == 2


@pytest.mark.parametrize('bad', ['gopher://info.cern.ch', 'file:///etc/passwd', 'http://127.0.0.1:1/', 'http://10.0.0.1/'])
def test_locations_that_are_refused(open_cloud, owner, image, url, bad):
    patch(owner, image, add(bad), 400)
    patch(owner, image, add(url.replace('data', 'none')), 400)
    owner.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare',
                              'locations': [{'url': bad, 'metadata': {}}]}).expect(400)
    assert owner.get('/v2/images/' + image['id']).json['status'] == 'queued'
    for value in ({'url': url}, {'metadata': {}}, 'x', {'url': 5, 'metadata': {}}, {'url': url + 'x' * 2100, 'metadata': {}},
                  {'url': url, 'metadata': {}, 'validation_data': 'x'},
                  {'url': url, 'metadata': {}, 'validation_data': {'size': 1}}):
        patch(owner, image, [{'add': '/locations/-', 'value': value}], 400)


def test_an_image_is_born_with_a_location(owner, url):
    made = owner.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare', 'locations': [
        {'url': url, 'metadata': {}}]}).expect(201).json
    assert made['status'] == 'active' and made['size'] == len(DATA)


def test_who_sees_locations(open_cloud, owner, image, url):
    patch(owner, image, add(url))
    admin, reader = open_cloud.client(testing.ADMIN), open_cloud.client(testing.READER)
    patch(admin, image, [{'replace': '/visibility', 'value': 'public'}])
    assert reader.get('/v2/images/' + image['id']).json['locations'] and admin.get('/v2/images/' + image['id']).json['locations']
    assert 'locations' not in open_cloud.client(testing.OTHER).get('/v2/images/' + image['id']).json
    owner.post(f"/v2/images/{image['id']}/actions/deactivate").expect(204)
    assert 'locations' not in owner.get('/v2/images/' + image['id']).json
    owner.get(f"/v2/images/{image['id']}/locations").expect(403)
    service = open_cloud.client(testing.SERVICE)
    assert service.get(f"/v2/images/{image['id']}/locations").expect(200).json[0]['url'] == url


def test_the_stores_data_goes_with_its_location(open_cloud, owner, image, url, helpers):
    helpers.upload(owner, image['id'], DATA)
    patch(owner, image, add(url))
    patch(open_cloud.client(testing.ADMIN), image, [{'remove': '/locations/0'}])
    open_cloud.runtime.background[0].look()
    path = open_cloud.runtime.extra['stores'].default.path
    assert not [name for _, _, names in os.walk(path) for name in names]
    assert owner.get(image['file']).data == DATA


def test_copies_of_what_lies_elsewhere(open_cloud, owner, image, url):
    patch(owner, image, add(url))
    open_cloud.client(testing.ADMIN).post(f"/v2/images/{image['id']}/import", {
        'method': {'name': 'copy-image'}, 'all_stores': True}).expect(202)
    open_cloud.runtime.background[1].run_due()
    assert owner.get('/v2/images/' + image['id']).json['stores'] == 'file,web'
    assert owner.get(image['file'] + '?prefer=web,file').expect(200).data == DATA
    owner.get(image['file'] + '?prefer=odd').expect(400)


def order(client, image, url, validation=None, status=202):
    return client.post(f"/v2/images/{image['id']}/locations", {'url': url, 'validation_data': validation or {}}).expect(status)


def shown(client, image):
    return client.get('/v2/images/' + image['id']).json


@pytest.mark.parametrize('validation', [
    {'os_hash_algo': 'sha512', 'os_hash_value': 'abc'}, {'os_hash_value': SHA512},
    {'os_hash_algo': 'sha123', 'os_hash_value': SHA512},
    {'os_hash_algo': 'sha512', 'os_hash_value': 'x' * 128}, {'os_hash_algo': 'sha256', 'os_hash_value': SHA512}, {'odd': 1},
    {'os_hash_algo': 'sha512', 'os_hash_value': SHA512, 'checksum': 'x'},
])
def test_hashes_that_cannot_be(owner, image, url, validation):
    order(owner, image, url, validation, 400)
    assert shown(owner, image)['status'] == 'queued'


def test_the_location_api(open_cloud, owner, image, url, helpers):
    order(owner, image, 'ftp://example.org/', status=400)
    order(owner, image, url.replace('data', 'none'), status=400)
    order(open_cloud.client(testing.OTHER), image, url, status=404)
    order(open_cloud.client(testing.READER), image, url, status=403)
    # Without hashes: active at once, hashed later.
    order(owner, image, url)
    assert shown(owner, image)['status'] == 'active' and shown(owner, image)['os_hash_algo'] == 'sha512'
    assert shown(owner, image)['os_hash_value'] is None
    order(owner, image, url, status=409)
    open_cloud.runtime.background[1].run_due()
    assert shown(owner, image)['os_hash_value'] == SHA512 and shown(owner, image)['checksum'] == MD5
    assert owner.get(f"/v2/images/{image['id']}/tasks").json['tasks'][0]['type'] == 'location_import'
    # With hashes: active when they fit.
    second = helpers.create(owner)
    order(owner, second, url, {'os_hash_algo': 'sha256', 'os_hash_value': hashlib.sha256(DATA).hexdigest()})
    assert shown(owner, second)['status'] == 'importing'
    open_cloud.runtime.background[1].run_due()
    assert shown(owner, second)['status'] == 'active' and shown(owner, second)['os_hash_algo'] == 'sha256'
    third = helpers.create(owner)
    order(owner, third, url, {'os_hash_algo': 'sha512', 'os_hash_value': 'beefdead' * 16})
    open_cloud.runtime.background[1].run_due()
    after = shown(owner, third)
    assert after['status'] == 'queued' and after['os_hash_algo'] is None and after['checksum'] is None
    owner.get(third['file']).expect(204)
    task = owner.get(f"/v2/images/{third['id']}/tasks").json['tasks'][0]
    assert task['status'] == 'failure' and 'os_hash_value' in task['message']
    helpers.upload(owner, third['id'], b'x')
    assert owner.get(third['file']).data == b'x' and shown(owner, third)['stores'] == 'file'


def test_deleted_while_it_is_read(open_cloud, owner, image, url):
    order(owner, image, url)
    owner.delete('/v2/images/' + image['id']).expect(204)
    open_cloud.runtime.background[1].run_due()
    owner.get('/v2/images/' + image['id']).expect(404)


def test_locations_are_invisible_by_default(member, helpers):
    image = helpers.create(member)
    assert 'locations' not in image and 'direct_url' not in image
    patch(member, image, add('http://example.org/'), 403)
    member.post(f"/v2/images/{image['id']}/locations", {'url': 'http://example.org/'}).expect(400)


def test_weights_order_the_stores(make_cloud, helpers):
    cloud = make_cloud(stores__enabled=['file:file', 'fast:file'])
    cloud.runtime.conf.set_override('weight', 10, group='store_fast')
    cloud.restart()
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)
    member.put(f"/v2/images/{image['id']}/stage", data=b'x', headers={'Content-Type': 'application/octet-stream'}).expect(204)
    member.post(f"/v2/images/{image['id']}/import", {'method': {'name': 'glance-direct'}, 'all_stores': True}).expect(202)
    cloud.runtime.background[1].run_due()
    assert shown(member, image)['stores'] == 'fast,file'
    stores = member.get('/v2/info/stores').json['stores']
    assert {store['id']: store.get('weight') for store in stores} == {'file': None, 'fast': 10}
