import hashlib
import http.server
import io
import os
import threading

import pytest
import sqlalchemy as sa

from kodiak.common import db, errors, saga_testing, testing
from kodiak.image import blobs as blob_rows
from kodiak.image import imports, models, remote
from kodiak.image.drivers import base

BYTES = {'Content-Type': 'application/octet-stream'}
DATA = os.urandom(3 << 20)
TWO = {'stores__enabled': ['file:file', 'second:file'], 'imports__web_networks': ['127.0.0.0/8'], 'imports__web_ports': ['80']}


@pytest.fixture
def web():
    """A web server on this host: ``web.files`` is path to bytes, or to ``(status, headers)``."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.server.files.get(self.path)
            if found is None:
                self.send_error(404)
            elif isinstance(found, tuple):
                self.send_response(found[0])
                for name, value in found[1].items():
                    self.send_header(name, value)
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header('Content-Length', str(len(found)))
                self.end_headers()
                self.wfile.write(found)

        def log_message(self, *args):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.files = {}
    server.url = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def open_to(cloud, web):
    cloud.runtime.conf.set_override('web_ports', [str(web.server_port)], group='imports')
    cloud.runtime.conf.set_override('web_networks', ['127.0.0.0/8'], group='imports')


def work(cloud):
    """Run every import that is due; then the keeper."""
    cloud.runtime.background[1].run_due()
    cloud.runtime.background[0].look()


def shown(client, image):
    return client.get('/v2/images/' + image['id']).expect(200).json


def stage(client, image, data=DATA, status=204):
    return client.put(f"/v2/images/{image['id']}/stage", data=data, headers=BYTES).expect(status)


def order(client, image, name='glance-direct', status=202, method=None, **more):
    return client.post(f"/v2/images/{image['id']}/import", {'method': {'name': name, **(method or {})}, **more}).expect(status)


def tasks(client, image):
    return client.get(f"/v2/images/{image['id']}/tasks").expect(200).json['tasks']


def files(cloud):
    """``{store id: number of files}``."""
    stores = cloud.runtime.extra['stores'].by_id.values()
    return {store.id: sum(len(names) for _, _, names in os.walk(store.path)) for store in stores}


def states(cloud):
    with cloud.runtime.db.read() as connection:
        return sorted(connection.execute(sa.select(models.blobs.c.state)).scalars())


@pytest.fixture
def image(member, helpers):
    return helpers.create(member)


def test_staged_data_becomes_the_images_without_being_copied(cloud, member, image):
    stage(member, image)
    assert shown(member, image)['status'] == 'uploading' and states(cloud) == ['staged']
    member.get(image['file']).expect(204)
    stage(member, image, status=409)
    answer = order(member, image)
    before = shown(member, image)
    assert before['status'] == 'importing' and before['os_glance_importing_to_stores'] == 'file'
    assert tasks(member, image)[0]['status'] == 'pending'
    order(member, image, status=409)
    work(cloud)
    after = shown(member, image)
    assert after['status'] == 'active' and after['size'] == len(DATA) and after['stores'] == 'file'
    assert after['os_hash_value'] == hashlib.sha512(DATA).hexdigest() and after['checksum'] == hashlib.md5(DATA).hexdigest()
    assert after['os_glance_importing_to_stores'] == '' == after['os_glance_failed_import']
    assert member.get(image['file']).data == DATA and states(cloud) == ['live'] and files(cloud) == {'file': 1}
    task, = tasks(member, image)
    assert task['status'] == 'success' and task['request_id'] == answer.headers['X-Openstack-Request-Id']
    assert task['input']['import_req']['method']['name'] == 'glance-direct' and task['result'] == {'image_id': image['id']}


def test_into_several_stores(make_cloud, helpers):
    cloud = make_cloud(**TWO)
    member, admin = cloud.client(testing.MEMBER), cloud.client(testing.ADMIN)
    assert [store['id'] for store in member.get('/v2/info/stores').json['stores']] == ['file', 'second']
    image = helpers.create(member)
    stage(member, image)
    order(member, image, all_stores=True)
    work(cloud)
    assert shown(member, image)['stores'] == 'file,second' and files(cloud) == {'file': 1, 'second': 1}
    # Away from one of them, again to all, away from both.
    path = f"/{image['id']}"
    member.delete('/v2/stores/file' + path).expect(403)
    admin.delete('/v2/stores/none' + path).expect(404)
    admin.delete('/v2/stores/file' + path).expect(204)
    work(cloud)
    assert shown(member, image)['stores'] == 'second' and files(cloud) == {'file': 0, 'second': 1}
    assert member.get(image['file']).data == DATA
    admin.delete('/v2/stores/second' + path).expect(403)
    order(member, image, 'copy-image', 403, all_stores=True)
    order(admin, image, 'copy-image', 409, stores=['second'])
    order(admin, image, 'copy-image', all_stores=True)
    assert shown(member, image)['status'] == 'active'
    work(cloud)
    assert shown(member, image)['stores'] == 'file,second' and files(cloud) == {'file': 1, 'second': 1}
    member.delete('/v2/images' + path).expect(204)
    work(cloud)
    assert files(cloud) == {'file': 0, 'second': 0} and states(cloud) == []


def test_only_into_another_store_than_the_default(make_cloud, helpers):
    cloud = make_cloud(**TWO)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)
    stage(member, image)
    order(member, image, stores=['second'])
    work(cloud)
    assert shown(member, image)['stores'] == 'second' and files(cloud) == {'file': 0, 'second': 1}
    helpers.upload(member, helpers.create(member)['id'], DATA, X_Image_Meta_Store='second')
    assert files(cloud) == {'file': 0, 'second': 2}


@pytest.mark.parametrize('must', [True, False])
def test_a_store_that_fails(make_cloud, helpers, must, monkeypatch):
    cloud = make_cloud(**TWO)
    member = cloud.client(testing.MEMBER)
    image = helpers.create(member)
    stage(member, image)

    def full(key, size=None):
        raise base.StoreFull
    monkeypatch.setattr(cloud.runtime.extra['stores']['second'], 'create', full)
    order(member, image, all_stores=True, all_stores_must_succeed=must)
    work(cloud)
    after = shown(member, image)
    assert after['os_glance_importing_to_stores'] == ''
    if must:
        assert after['status'] == 'queued' and after['os_glance_failed_import'] == 'file,second' and states(cloud) == []
        assert 'disk space' in tasks(member, image)[0]['message'] and files(cloud) == {'file': 0, 'second': 0}
    else:
        assert after['status'] == 'active' and after['os_glance_failed_import'] == 'second' and after['stores'] == 'file'


def test_data_that_is_refused_goes(cloud, member, helpers):
    image = helpers.create(member, disk_format='qcow2')
    stage(member, image, b'QFI\xfb' + (3).to_bytes(4, 'big') + (512).to_bytes(8, 'big') + bytes(100000))
    order(member, image)
    work(cloud)
    assert shown(member, image)['status'] == 'queued' and files(cloud) == {'file': 0} and states(cloud) == []
    task, = tasks(member, image)
    assert task['status'] == 'failure' and 'backing file' in task['message']
    stage(member, image, b'QFI\xfb')


def test_a_web_download(cloud, member, image, web):
    open_to(cloud, web)
    web.files.update({'/x%20y': DATA, '/moved': (302, {'Location': '/x%20y'})})
    order(member, image, 'web-download', method={'uri': web.url + '/moved'})
    work(cloud)
    assert shown(member, image)['status'] == 'active' and member.get(image['file']).data == DATA


@pytest.mark.parametrize(('path', 'words'), [
    ('/gone', '404'), ('/loop', 'redirects'), ('/inward', 'not a public one'), ('/port', 'not allowed'), ('/file', 'filtering'),
    ('/packed', 'encoding'), ('/wrong', 'format'),
])
def test_web_downloads_that_fail(cloud, member, helpers, web, path, words):
    open_to(cloud, web)
    image = helpers.create(member, disk_format='qcow2')
    port = web.server_port
    web.files.update({'/loop': (302, {'Location': '/loop'}), '/inward': (302, {'Location': f'http://169.254.169.254:{port}/x'}),
                      '/port': (302, {'Location': 'http://127.0.0.1:1/'}), '/file': (302, {'Location': 'file:///etc/passwd'}),
                      '/packed': (200, {'Content-Encoding': 'gzip'}), '/wrong': DATA})
    order(member, image, 'web-download', method={'uri': web.url + path})
    work(cloud)
    after = shown(member, image)
    assert after['status'] == 'queued' and after['os_glance_failed_import'] == 'file'
    assert words in tasks(member, image)[0]['message'] and files(cloud) == {'file': 0} and states(cloud) == []


@pytest.mark.parametrize('uri', [
    'file:///etc/passwd', 'ftp://example.org/x', 'http://127.0.0.1/', 'http://[::1]/', 'http://10.0.0.1/', 'http://169.254.169.254/',
    'http://[::ffff:127.0.0.1]/', 'http://[2002:7f00:1::]/', 'http://0.0.0.0/', 'http://example.org:22/',
    'http://user:pw@example.org/',
    'http://example.org/a b', 'http://', 'x', 'http://example.org:99999/', 'http://[fe80::1%25eth0]/', 'http://224.0.0.1/',
    'http://100.64.0.1/', 'http://192.168.1.1/', 'http://exam\nple.org/',
])
def test_uris_that_are_refused_at_once(member, image, uri):
    order(member, image, 'web-download', 400, method={'uri': uri})
    assert shown(member, image)['status'] == 'queued' and tasks(member, image) == []


def test_names_are_checked_by_what_they_resolve_to(cloud, member, image, monkeypatch):
    monkeypatch.setattr('socket.getaddrinfo', lambda host, port, **_: [(2, 1, 6, '', ('93.184.216.34', port)),
                                                                       (2, 1, 6, '', ('127.0.0.1', port))])
    order(member, image, 'web-download', method={'uri': 'http://rebind.example/'})
    work(cloud)
    assert 'not a public one' in tasks(member, image)[0]['message']


def test_what_an_import_needs(cloud, member, other, image):
    order(member, image, 'odd', 400)
    order(member, image, 'glance-direct', 409)
    order(member, image, 'web-download', 400)
    order(member, image, 'copy-image', 403)
    order(member, image, 'web-download', 409, method={'uri': 'http://example.org/'}, stores=['none'])
    order(member, image, 'web-download', 400, method={'uri': 'http://example.org/'}, stores=['file'], all_stores=True)
    order(member, image, 'glance-download', 400, method={'glance_image_id': 'foo', 'glance_region': 'x'})
    order(other, image, 'web-download', 404, method={'uri': 'http://example.org/'})
    bare = member.post('/v2/images', {}).json
    order(member, bare, 'web-download', 400, method={'uri': 'http://example.org/'})
    assert member.get('/v2/info/import').json['import-methods']['value'] == list(imports.METHODS)


def test_an_image_that_is_deleted_while_it_is_imported(cloud, member, image, web, monkeypatch):
    open_to(cloud, web)
    web.files['/x'] = DATA
    monkeypatch.setattr(blob_rows, 'RENEW', 0)
    order(member, image, 'web-download', method={'uri': web.url + '/x'})
    original = blob_rows.Filling._alive

    def alive(self, size, watch):
        if size == 1 << 20:
            member.delete('/v2/images/' + image['id']).expect(204)
        original(self, size, watch)
    monkeypatch.setattr(blob_rows.Filling, '_alive', alive)
    work(cloud)
    assert files(cloud) == {'file': 0} and states(cloud) == []
    member.get('/v2/images/' + image['id']).expect(404)


class Far:
    """A keystoneauth session to another region's image service."""

    def __init__(self, image, members=()):
        self.image, self.members = image, members

    def get_endpoint(self, service_type, interface, region_name, skip_discovery):
        return 'http://far/v2' if region_name == 'far' else None

    def get(self, url, stream, headers, **more):
        class Answer:
            status_code = 200
            raw = io.BytesIO(DATA)

            def close(self):
                pass
        answer = Answer()
        if url.endswith('/members'):
            answer.json = lambda: {'members': [{'member_id': member} for member in self.members]}
        elif not url.endswith('/file'):
            assert url == 'http://far/v2/images/' + self.image['id']
            answer.json = lambda: self.image
        return answer


@pytest.mark.parametrize(('change', 'members', 'problem'), [
    ({'owner': testing.PROJECT}, (), None), ({'visibility': 'public'}, (), None), ({}, (testing.PROJECT,), None),
    ({}, (), 'Failed to find'), ({'visibility': 'private'}, (testing.PROJECT,), 'Failed to find'),
    ({'visibility': 'public', 'status': 'queued'}, (), 'queued'),
    ({'visibility': 'public', 'os_hash_value': 'x'}, (), 'says it is'),
])
def test_from_another_region(cloud, member, helpers, change, members, problem):
    image = helpers.create(member, disk_format='iso', container_format='ovf', hw_cpu_cores='1', speed='1')
    far = {'id': db.new_id(), 'status': 'active', 'visibility': 'shared', 'owner': 'x', 'disk_format': 'raw', 'size': len(DATA),
           'container_format': 'bare', 'hw_cpu_cores': '5', 'trait:X': 'required', 'speed': '88mph', 'os_hash_algo': 'sha512',
           'os_hash_value': hashlib.sha512(DATA).hexdigest(), **change}
    cloud.runtime.clients = type('Clients', (), {'session': lambda self: Far(far, members)})()
    order(member, image, 'glance-download', method={'glance_image_id': far['id'], 'glance_region': 'far'})
    work(cloud)
    after, task = shown(member, image), tasks(member, image)[0]
    if problem:
        assert problem in task['message'] and after['status'] == 'queued' and after['hw_cpu_cores'] == '1' and states(cloud) == []
    else:
        assert after['status'] == 'active' and after['disk_format'] == 'raw' and after['container_format'] == 'bare'
        assert after['hw_cpu_cores'] == '5' and after['trait:X'] == 'required' and after['speed'] == '1'
        assert member.get(image['file']).data == DATA


def test_an_unknown_region(cloud, member, image):
    cloud.runtime.clients = type('Clients', (), {'session': lambda self: Far({})})()
    order(member, image, 'glance-download', method={'glance_image_id': db.new_id(), 'glance_region': 'nowhere'})
    work(cloud)
    assert 'nowhere' in tasks(member, image)[0]['message'] and shown(member, image)['status'] == 'queued'
    assert remote.PREFIXES


def test_tasks(cloud, admin, member, web):
    open_to(cloud, web)
    web.files['/x'] = DATA
    given = {'import_from': web.url + '/x', 'import_from_format': 'raw', 'image_properties': {
        'name': 'imported', 'disk_format': 'raw', 'container_format': 'bare', 'visibility': 'public'}}
    member.post('/v2/tasks', {'type': 'import', 'input': given}).expect(403)
    for bad in ({'type': 'odd', 'input': given}, {'type': 'import', 'input': {}}, {'type': 'import'},
                {'type': 'import', 'input': {**given, 'import_from': 'file:///etc/passwd'}},
                {'type': 'import', 'input': {**given, 'image_properties': {'disk_format': 'odd'}}}):
        admin.post('/v2/tasks', bad).expect(400)
    task = admin.post('/v2/tasks', {'type': 'import', 'input': given}).expect(201).json
    assert task['status'] == 'pending' and task['input'] == given
    work(cloud)
    after = admin.get('/v2/tasks/' + task['id']).expect(200).json
    assert after['status'] == 'success' and after['expires_at']
    image = admin.get('/v2/images/' + after['result']['image_id']).json
    assert image['status'] == 'active' and image['name'] == 'imported' and image['visibility'] == 'public'
    # One whose import fails leaves no image.
    failing = admin.post('/v2/tasks', {'type': 'import', 'input': {**given, 'import_from': web.url + '/y'}}).expect(201).json
    work(cloud)
    assert admin.get('/v2/tasks/' + failing['id']).json['status'] == 'failure'
    assert len(admin.get('/v2/images').json['images']) == 1
    assert [t['id'] for t in admin.get('/v2/tasks?status=failure&sort_key=created_at').json['tasks']] == [failing['id']]
    page = admin.get('/v2/tasks?limit=1').json
    assert len(page['tasks']) == 1 and len(admin.get(page['next']).json['tasks']) == 1
    admin.delete('/v2/tasks/' + task['id']).expect(405)
    admin.get('/v2/tasks/none').expect(404)
    for name in ('task', 'tasks'):
        assert admin.get('/v2/schemas/' + name).json['name'] == name
    # The keeper forgets them in the end.
    with cloud.runtime.db.write() as connection:
        connection.execute(sa.update(models.tasks).values(expires_at=db.utcnow()))
    work(cloud)
    assert admin.get('/v2/tasks').json['tasks'] == []


class Import(saga_testing.Scenario):
    """A staged image on its way into two stores."""

    saga = imports.IMPORT

    def __init__(self, cloud, helpers):
        self.cloud, self.app = cloud, cloud.runtime
        self.member = cloud.client(testing.MEMBER)
        self.helpers = helpers

    def start(self):
        self.image = self.helpers.create(self.member)
        stage(self.member, self.image, b'data')
        order(self.member, self.image, all_stores=True)
        return self.image['id']

    def succeeded(self):
        self.cloud.runtime.background[0].look()
        assert shown(self.member, self.image)['status'] == 'active' and files(self.cloud) == {'file': 1, 'second': 1}
        assert states(self.cloud) == ['live', 'live'] and tasks(self.member, self.image)[0]['status'] == 'success'

    def failed(self, step):
        self.cloud.runtime.background[0].look()
        after, task = shown(self.member, self.image), tasks(self.member, self.image)[0]
        assert after['status'] == 'queued' and after['os_glance_importing_to_stores'] == '' and task['status'] == 'failure'
        assert files(self.cloud) == {'file': 0, 'second': 0} and states(self.cloud) == []


@pytest.mark.parametrize('case', saga_testing.cases(imports.IMPORT), ids=str)
def test_an_import_survives(case, make_cloud, helpers):
    saga_testing.run(case, Import(make_cloud(**TWO), helpers))


def test_errors_of_a_store_are_the_users_to_read(cloud, member, image, monkeypatch):
    def away(key, size=None):
        raise base.StoreUnavailable
    monkeypatch.setattr(cloud.runtime.extra['stores'].default, 'create', away)
    stage(member, image, status=503)
    assert shown(member, image)['status'] == 'queued' and states(cloud) == []
    assert errors.Unavailable.code == 503
