import hashlib
import uuid

import pytest

from kodiak.common import db, migrate, testing
from kodiak.image import cmd

V21 = {'Content-Type': 'application/openstack-images-v2.1-json-patch'}
V20 = {'Content-Type': 'application/openstack-images-v2.0-json-patch'}


@pytest.fixture
def create(helpers):
    return helpers.create


@pytest.fixture
def upload(helpers):
    return helpers.upload


def test_the_migrations_make_what_the_models_say(tmp_path):
    database = db.Database(f'sqlite:///{tmp_path}/x.sqlite')
    migrate.sync(database, 'image')
    assert migrate.differences(database, 'image') == []
    assert migrate.ready(database, 'image')
    database.close()


def test_versions(cloud):
    client = cloud.client(None)
    assert client.get('/').expect(300).json['versions'][0]['status'] == 'CURRENT'
    listed = client.get('/versions').expect(200).json['versions']
    assert listed[0]['links'] == [{'rel': 'self', 'href': 'http://localhost/v2/'}]
    client.get('/v2/').expect(300)
    assert '/v2/images' in client.get('/openapi.json').expect(200).json['paths']


def test_paths(member, create):
    image = create(member)
    member.get('/v2.3/images/' + image['id']).expect(200)
    for method in ('GET', 'DELETE'):
        member.request(method, '/v2/images/').expect(404)
    member.get(f"/v2/images/{image['id']}/").expect(404)


def test_a_life(member, create, upload):
    image = create(member, name='cirros', hw_disk_bus='virtio', tags=['b', 'a', 'b'], min_ram=64)
    assert image['status'] == 'queued' and image['size'] is None and image['visibility'] == 'shared'
    assert image['hw_disk_bus'] == 'virtio' and sorted(image['tags']) == ['a', 'b'] and image['min_ram'] == 64
    assert image['owner'] == testing.PROJECT and image['file'] == f"/v2/images/{image['id']}/file"
    member.get(image['file']).expect(204)
    data = b'some data' * 1000
    upload(member, image['id'], data)
    shown = member.get('/v2/images/' + image['id']).expect(200).json
    assert shown['status'] == 'active' and shown['size'] == len(data)
    assert shown['checksum'] == hashlib.md5(data).hexdigest()
    assert shown['os_hash_algo'] == 'sha512' and shown['os_hash_value'] == hashlib.sha512(data).hexdigest()
    answer = member.get(image['file']).expect(200)
    assert answer.data == data and answer.headers['Content-MD5'] == shown['checksum']
    assert answer.headers['Content-Type'] == 'application/octet-stream'
    upload(member, image['id'], data, 409)
    member.delete('/v2/images/' + image['id']).expect(204)
    member.get('/v2/images/' + image['id']).expect(404)
    member.delete('/v2/images/' + image['id']).expect(404)


def test_the_fault_shapes(cloud):
    token = cloud.identity.token(testing.MEMBER)
    page = testing.Client(cloud.application, token).get('/v2/images/<b>').expect(404)
    assert page.headers['Content-Type'].startswith('text/html') and b'<h1>404 Not Found</h1>' in page.data
    assert b'<b>' not in page.data
    data = cloud.client(testing.MEMBER).get('/v2/images/x').expect(404).json
    assert data == {'message': 'Failed to find image x', 'code': '404 Not Found', 'title': 'Not Found'}


@pytest.mark.parametrize(('body', 'status'), [
    ({'id': 'short'}, 400), ({'name': 'x' * 256}, 400), ({'min_ram': -1}, 400), ({'min_disk': 'x'}, 400),
    ({'visibility': 'no'}, 400), ({'disk_format': 'odd'}, 400), ({'container_format': 'odd'}, 400), ({'status': 'active'}, 403),
    ({'size': 1}, 403), ({'os_glance_x': 'y'}, 403), ({'deleted': 'y'}, 403), ({'x': 1}, 400), ({'x': None}, 400),
    ({'tags': ['x' * 256]}, 400), ({'tags': 'x'}, 400), ({'x' * 256: 'y'}, 400), ({'visibility': 'public'}, 403),
    ({'owner': testing.OTHER_PROJECT}, 403), ({'kernel_id': 'x'}, 400), ({'disk_format': 'aki', 'container_format': 'ari'}, 400),
    ({'name': 'x\x00'}, 400), ({'locations': [{'url': 'file:///etc/passwd', 'metadata': {}}]}, 403), ([], 400),
    ({f'p{n}': 'x' for n in range(129)}, 413), ({'tags': [str(n) for n in range(129)]}, 413),
])
def test_what_cannot_be_created(member, body, status):
    member.post('/v2/images', body).expect(status)
    assert member.get('/v2/images').json['images'] == []


def test_an_id_can_be_chosen_once(member, admin, create):
    image_id = str(uuid.uuid4())
    assert create(member, id=image_id)['id'] == image_id
    member.post('/v2/images', {'id': image_id}).expect(409)
    assert admin.post('/v2/images', {'owner': testing.OTHER_PROJECT, 'visibility': 'public'}).expect(201).json['owner'] == (
        testing.OTHER_PROJECT)


def patch(client, image_id, operations, status=200, media=V21):
    return client.patch('/v2/images/' + image_id, operations, headers=media).expect(status).json


def op(operation, path, value=None):
    return {'op': operation, 'path': path, **({} if operation == 'remove' else {'value': value})}


def test_changes(member, create):
    image = create(member, colour='red')
    image_id = image['id']
    changed = patch(member, image_id, [op('replace', '/name', 'new'), op('add', '/trait:X', 'required'), op('remove', '/colour'),
                                       op('replace', '/tags', ['x', 'x']), op('add', '/a~1b', 'slash')])
    assert changed['name'] == 'new' and changed['trait:X'] == 'required' and 'colour' not in changed
    assert changed['tags'] == ['x'] and changed['a/b'] == 'slash'
    assert member.get('/v2/images/' + image_id).json == changed
    assert [i['id'] for i in member.get('/v2/images?trait:X=required&tag=x').json['images']] == [image_id]
    assert member.get('/v2/images?colour=red').json['images'] == []
    assert patch(member, image_id, [{'replace': '/name', 'value': 'old'}, {'remove': '/trait:X'}], media=V20)['name'] == 'old'
    patch(member, image_id, [{'add': '/a~1b', 'value': 'x'}], 409, V20)
    patch(member, image_id, [op('add', '/a~1b', 'y')])


@pytest.mark.parametrize(('operation', 'status'), [
    (op('replace', '/status', 'active'), 403), (op('remove', '/name'), 403), (op('replace', '/id', str(uuid.uuid4())), 403),
    (op('remove', '/nothing'), 409), (op('replace', '/nothing', 'x'), 409), (op('add', '/os_glance_x', 'x'), 403),
    (op('add', '/a/b', 'x'), 400), (op('add', 'name', 'x'), 400), (op('add', '/a~2', 'x'), 400), (op('test', '/name', 'x'), 400),
    (op('replace', '/min_ram', -1), 400), (op('add', '/p', 1), 400), ({'op': 'add', 'path': '/p'}, 400), ({'path': '/p'}, 400),
    (op('replace', '/visibility', 'public'), 403), (op('replace', '/owner', 'x'), 403), (op('replace', '/protected', 'x'), 400),
    (op('replace', '/tags', 'x'), 400), (op('remove', '/tags'), 403), (op('add', '/', 'x'), 400), (op('add', '/a/', 'x'), 400),
    (op('replace', '/disk_format', 'odd'), 400), (op('add', '/locations/-', {'url': 'http://x', 'metadata': {}}), 403), ('x', 400),
    (op('add', '/locations/x', {}), 400), (op('add', 5, 'x'), 400),
])
def test_what_cannot_be_changed(member, create, operation, status):
    image = create(member)
    patch(member, image['id'], [op('replace', '/name', 'half'), operation], status)
    assert member.get('/v2/images/' + image['id']).json['name'] == 'test'


def test_a_patch_needs_its_media_type(member, create):
    member.patch('/v2/images/' + create(member)['id'], []).expect(415)


def test_formats_are_fixed_once_there_is_data(member, create, upload):
    image = create(member)
    patch(member, image['id'], [op('replace', '/disk_format', 'iso')])
    patch(member, image['id'], [op('replace', '/disk_format', 'raw')])
    upload(member, image['id'], b'x')
    patch(member, image['id'], [op('replace', '/disk_format', 'iso')], 403)
    patch(member, image['id'], [op('replace', '/container_format', 'ovf')], 403)


def test_protected_images_stay(member, create):
    image = create(member, protected=True)
    member.delete('/v2/images/' + image['id']).expect(403)
    patch(member, image['id'], [op('replace', '/protected', False)])
    member.delete('/v2/images/' + image['id']).expect(204)


def test_deactivated_images_are_not_downloaded(member, admin, create, upload):
    image = create(member)
    action = f"/v2/images/{image['id']}/actions/"
    member.post(action + 'deactivate').expect(403)
    upload(member, image['id'], b'x')
    for _ in range(2):
        member.post(action + 'deactivate').expect(204)
    assert member.get('/v2/images/' + image['id']).json['status'] == 'deactivated'
    member.get(image['file']).expect(403)
    admin.get(image['file']).expect(200)
    member.post(action + 'reactivate').expect(204)
    assert member.get(image['file']).expect(200).data == b'x'


def test_who_sees_what(member, other, admin, cloud, create):
    reader = cloud.client(testing.READER)
    made = {visibility: create(admin if visibility == 'public' else member, name=visibility, visibility=visibility)['id']
            for visibility in ('public', 'private', 'shared', 'community')}

    def names(client, query=''):
        return sorted(image['name'] for image in client.get('/v2/images' + query).expect(200).json['images'])
    assert names(member) == ['community', 'private', 'public', 'shared'] == names(reader)
    assert names(other) == ['public']
    assert names(other, '?visibility=community') == ['community']
    assert names(other, '?visibility=all') == ['community', 'public']
    assert names(admin) == ['community', 'private', 'public', 'shared']
    for visibility, status in (('public', 200), ('community', 200), ('private', 404), ('shared', 404)):
        other.get('/v2/images/' + made[visibility]).expect(status)
        other.delete('/v2/images/' + made[visibility]).expect(403 if status == 200 else 404)
        patch(other, made[visibility], [op('replace', '/name', 'x')], 403 if status == 200 else 404)
    reader.delete('/v2/images/' + made['private']).expect(403)
    # A member sees a shared image at once, and lists it when it has accepted it.
    members = f"/v2/images/{made['shared']}/members"
    assert member.post(members, {'member': testing.OTHER_PROJECT}).expect(200).json['status'] == 'pending'
    member.post(members, {'member': testing.OTHER_PROJECT}).expect(409)
    other.get('/v2/images/' + made['shared']).expect(200)
    assert names(other) == ['public']
    assert names(other, '?member_status=pending&visibility=shared') == ['shared']
    member.put(f'{members}/{testing.OTHER_PROJECT}', {'status': 'accepted'}).expect(403)
    other.put(f'{members}/{testing.OTHER_PROJECT}', {'status': 'odd'}).expect(400)
    other.put(f'{members}/{testing.OTHER_PROJECT}', {'status': 'accepted'}).expect(200)
    assert names(other) == ['public', 'shared'] and names(other, '?visibility=shared') == ['shared']
    other.post(members, {'member': 'x'}).expect(403)
    assert [m['member_id'] for m in other.get(members).json['members']] == [testing.OTHER_PROJECT]
    member.get(f'{members}/nobody').expect(404)
    other.delete(f'{members}/{testing.OTHER_PROJECT}').expect(403)
    member.delete(f'{members}/{testing.OTHER_PROJECT}').expect(204)
    member.delete(f'{members}/{testing.OTHER_PROJECT}').expect(404)
    other.get('/v2/images/' + made['shared']).expect(404)
    for visibility in ('private', 'community'):
        member.post(f'/v2/images/{made[visibility]}/members', {'member': 'x'}).expect(403)
    for bad in ('?visibility=no', '?member_status=no', '?os_hidden=no'):
        member.get('/v2/images' + bad).expect(400)


def test_tags(member, other, create):
    image = create(member, tags=['a'])
    path = f"/v2/images/{image['id']}/tags/"
    member.put(path + 'b').expect(204)
    member.put(path + 'b').expect(204)
    assert member.get('/v2/images/' + image['id']).json['tags'] == ['a', 'b']
    member.delete(path + 'a').expect(204)
    member.delete(path + 'a').expect(404)
    member.put(path + 'x' * 256).expect(400)
    other.put(path + 'b').expect(404)
    assert [i['id'] for i in member.get('/v2/images?tag=b').json['images']] == [image['id']]


def test_filters_sorting_and_pages(member, create, upload):
    sizes = {}
    for index in range(7):
        image = create(member, name=f'image, {index}' if index == 3 else f'image{index}', os_hidden=index == 6,
                       disk_format='raw' if index % 2 else 'iso', min_disk=index, **{'colour': 'red'} if index < 2 else {})
        if index % 2:
            upload(member, image['id'], b'x' * (index + 1))
            sizes[image['name']] = index + 1

    def names(query):
        return [image['name'] for image in member.get('/v2/images' + query).expect(200).json['images']]
    assert names('?os_hidden=true') == ['image6']
    assert names('?sort=name:asc') == ['image, 3', 'image0', 'image1', 'image2', 'image4', 'image5']
    assert names('?sort_key=disk_format&sort_dir=asc&sort_key=name&sort_dir=desc') == [
        'image4', 'image2', 'image0', 'image5', 'image1', 'image, 3']
    assert names('?name=image1') == ['image1']
    assert sorted(names('?name=in:"image, 3",image1')) == ['image, 3', 'image1']
    assert names('?status=active&sort=size:asc') == ['image1', 'image, 3', 'image5']
    assert names('?size_min=3&size_max=4') == ['image, 3']
    assert sorted(names('?status=in:active,queued&colour=red')) == ['image0', 'image1']
    assert names('?min_disk=4') == ['image4']
    now = '2999-01-01T00:00:00Z'
    assert len(names(f'?created_at=lt:{now}')) == 6 and names(f'?created_at=gt:{now}') == []
    assert names('?disk_format=in:vhd,vmdk') == []
    seen, path = [], '/v2/images?limit=2&sort_key=name&sort_dir=asc&disk_format=in:raw,iso'
    while path:
        page = member.get(path).expect(200).json
        assert page['first'] == '/v2/images?limit=2&sort_key=name&sort_dir=asc&disk_format=in%3Araw%2Ciso'
        seen += [image['name'] for image in page['images']]
        path = page.get('next')
    assert seen == ['image, 3', 'image0', 'image1', 'image2', 'image4', 'image5']
    for bad in ('sort=name:up', 'sort=odd', 'sort_key=odd', 'limit=-1', 'limit=x', 'marker=none', 'size_min=x', 'size_min=-1',
                'sort=name&sort_key=name', 'sort_key=name&sort_dir=asc&sort_dir=desc', 'created_at=gt:soon', 'created_at=x',
                'name=in:"a', 'protected=maybe'):
        member.get('/v2/images?' + bad).expect(400)
    assert member.get('/v2/images?limit=0').expect(200).json['images'] == []


def test_schemas(member, cloud):
    for name in ('image', 'images', 'member', 'members'):
        assert member.get('/v2/schemas/' + name).expect(200).json['name'] == name
    assert 'raw' in member.get('/v2/schemas/image').json['properties']['disk_format']['enum']
    cloud.client(None).get('/v2/schemas/image').expect(401)


def test_discovery(member, admin):
    assert member.get('/v2/info/stores').expect(200).json == {'stores': [{'id': 'file', 'default': 'true'}]}
    member.get('/v2/info/stores/detail').expect(403)
    assert admin.get('/v2/info/stores/detail').expect(200).json['stores'][0]['type'] == 'file'


def test_every_route_as_every_persona(cloud, member, create):
    image = create(member)
    member.post(f"/v2/images/{image['id']}/members", {'member': testing.PROJECT}).expect(200)
    bodies = {'POST /v2/images': {'name': 'x'}, 'PATCH /v2/images/{image_id}': []}
    table = testing.check_personas(cloud.api, cloud.client, {'image_id': image['id'], 'member_id': testing.PROJECT, 'tag': 't'},
                                   body=lambda e: bodies.get(f'{e.method} {e.openapi_path}'))
    assert table[('GET', '/v2/images/{image_id}', None)] == {
        'admin': 200, 'member': 200, 'reader': 200, 'other project': 404, 'no role': 403}
    assert table[('POST', '/v2/images', None)] == {'admin': 201, 'member': 201, 'reader': 403, 'other project': 201, 'no role': 403}


def test_queries_a_route(cloud, member, create, upload):
    image = create(member, colour='red', tags=['x'])
    upload(member, image['id'], b'x')
    for _ in range(30):
        create(member, colour='red', tags=['x'])
    for path, most in ((f"/v2/images/{image['id']}", 1), ('/v2/images', 1), ('/v2/images?limit=1000&tag=x&colour=red', 1),
                       (f"/v2/images?marker={image['id']}&sort=name", 2), (f"/v2/images/{image['id']}/file", 1),
                       (f"/v2/images/{image['id']}/members", 2)):
        with db.count_queries() as queries:
            member.get(path).expect(200)
        assert len(queries) <= most, (path, queries)


def test_the_options_of_the_service_stay_few():
    from kodiak.image import conf
    assert sum(len(options) for options in conf.OPTS.values()) <= 25
    assert cmd.load_conf(files=[]).api.bind_port == 9292
