"""What the image service tells on the message bus."""
import hashlib

import pytest
import sqlalchemy as sa
import werkzeug.test

from kodiak.common import outbox, testing
from kodiak.image import cmd
from kodiak.image.api import data

DATA = b'some data ' * 1000


@pytest.fixture
def told(cloud):
    return testing.Told(cloud.runtime.db, ('image.send',))


@pytest.fixture
def work(cloud):
    """Runs the sagas that are due."""
    return cloud.runtime.background[1].run_due


def test_nothing_is_told_where_nobody_listens(cloud, member, helpers):
    helpers.upload(member, helpers.create(member)['id'], DATA)
    with cloud.runtime.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(outbox.rows)) == 0


def test_the_life_of_an_image(told, member, helpers):
    image = helpers.create(member, tags=['a'], visibility='private', os_distro='x')
    (event_type, payload), = told()
    assert event_type == 'image.create'
    assert payload == {
        **{name: image[name] for name in ('id', 'name', 'status', 'created_at', 'updated_at', 'min_disk', 'min_ram', 'protected',
                                          'checksum', 'owner', 'disk_format', 'container_format', 'size', 'virtual_size',
                                          'visibility', 'tags')},
        'properties': {'os_distro': 'x'}, 'is_public': False, 'deleted': False, 'deleted_at': None}
    helpers.upload(member, image['id'], DATA)
    events = told()
    assert [event_type for event_type, _ in events] == ['image.prepare', 'image.upload', 'image.activate']
    assert [payload['status'] for _, payload in events] == ['saving', 'active', 'active']
    assert events[-1][1]['checksum'] == hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    path = '/v2/images/' + image['id']
    patch = {'Content-Type': 'application/openstack-images-v2.1-json-patch'}
    member.patch(path, [{'op': 'replace', 'path': '/name', 'value': 'new'}], headers=patch).expect(200)
    member.put(path + '/tags/b').expect(204)
    member.delete(path + '/tags/a').expect(204)
    member.post(path + '/actions/deactivate').expect(204)
    member.post(path + '/actions/reactivate').expect(204)
    events = told()
    assert [event_type for event_type, _ in events] == ['image.update'] * 5
    assert [payload['name'] for _, payload in events] == ['new'] * 5
    assert [payload['tags'] for _, payload in events][:3] == [['a'], ['a', 'b'], ['b']]
    assert [payload['status'] for _, payload in events] == ['active'] * 3 + ['deactivated', 'active']
    member.get(path + '/file').expect(200)
    assert told() == []
    member.delete(path).expect(204)
    (event_type, payload), = told()
    assert (event_type, payload['id'], payload['status'], payload['deleted']) == ('image.delete', image['id'], 'deleted', True)
    assert payload['deleted_at'].endswith('Z')


def test_a_refused_request_tells_nothing(told, member, other, helpers):
    image = helpers.create(member, protected=True)
    told()
    member.delete('/v2/images/' + image['id']).expect(403)
    other.delete('/v2/images/' + image['id']).expect(404)
    member.post('/v2/images', {'id': image['id']}).expect(409)
    assert told() == []


def test_data_that_is_refused_is_an_error(told, member, helpers):
    image = helpers.create(member, disk_format='qcow2')
    told()
    helpers.upload(member, image['id'], DATA, status=400)
    (first, _), (event_type, text) = told()
    assert (first, event_type) == ('image.prepare', 'image.upload.error')
    assert image['id'] in text and 'qcow2' in text


def test_members(told, member, cloud, helpers):
    image = helpers.create(member)
    told()
    path = f"/v2/images/{image['id']}/members"
    receiver = cloud.client(testing.OTHER)
    project = testing.OTHER_PROJECT
    row = member.post(path, {'member': project}).expect(200).json
    receiver.put(f'{path}/{project}', {'status': 'accepted'}).expect(200)
    member.delete(f'{path}/{project}').expect(204)
    events = told()
    assert [event_type for event_type, _ in events] == ['image.member.create', 'image.member.update', 'image.member.delete']
    assert events[0][1] == {'image_id': image['id'], 'member_id': project, 'status': 'pending', 'created_at': row['created_at'],
                            'updated_at': row['updated_at'], 'deleted': False, 'deleted_at': None}
    assert [payload['status'] for _, payload in events[1:]] == ['accepted', 'accepted']
    assert events[2][1]['deleted'] is True


def test_an_import_and_its_task(told, member, helpers, work):
    image = helpers.create(member)
    told()
    path = '/v2/images/' + image['id']
    member.put(path + '/stage', data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    assert told.types() == ['image.update']
    member.post(path + '/import', {'method': {'name': 'glance-direct'}}).expect(202)
    events = told()
    assert [event_type for event_type, _ in events] == ['task.create', 'image.update']
    task = events[0][1]
    assert (task['type'], task['status'], task['owner'], 'input' in task) == ('api_image_import', 'pending', image['owner'], False)
    work()
    events = dict(told())
    assert list(events) == ['task.run', 'task.processing', 'image.prepare', 'image.upload', 'image.activate', 'task.success']
    assert events['task.processing'] == {**task, 'status': 'processing', 'updated_at': events['task.processing']['updated_at']}
    assert events['image.activate']['size'] == len(DATA)
    assert events['task.success']['result'] == {'image_id': image['id']} and events['task.success']['expires_at']


def test_an_import_that_fails(told, member, helpers, work):
    image = helpers.create(member, disk_format='vmdk')
    member.put(f"/v2/images/{image['id']}/stage", data=DATA, headers={'Content-Type': 'application/octet-stream'}).expect(204)
    member.post(f"/v2/images/{image['id']}/import", {'method': {'name': 'glance-direct'}}).expect(202)
    told()
    work()
    events = dict(told())
    assert list(events) == ['task.run', 'task.processing', 'image.upload.error', 'task.failure']
    assert events['task.failure']['message'] in events['image.upload.error']
    assert events['task.failure']['result'] is None


def test_what_is_sent_is_told_where_it_is_wanted(cloud, member, other, helpers):
    told = testing.Told(cloud.runtime.db, disabled=())
    image = helpers.create(member, visibility='shared')
    helpers.upload(member, image['id'], DATA)
    told()
    path = f"/v2/images/{image['id']}/file"
    member.get(path).expect(200)
    member.get(path, headers={'Range': 'bytes=10-19'}).expect(206)
    member.head(path)
    other.get(path).expect(404)
    events = told()
    assert [event_type for event_type, _ in events] == ['image.send'] * 2
    payload = events[0][1]
    assert (payload['bytes_sent'], payload['image_id'], payload['owner_id'], payload['receiver_tenant_id']) == (
        len(DATA), image['id'], image['owner'], image['owner'])
    assert payload['receiver_user_id'] == testing.MEMBER.user_id and 'destination_ip' in payload
    assert events[1][1]['bytes_sent'] == 10


def test_data_that_a_client_did_not_take_is_an_error(cloud, member, helpers, monkeypatch):
    told = testing.Told(cloud.runtime.db, disabled=())
    image = helpers.create(member)
    helpers.upload(member, image['id'], DATA)
    told()
    monkeypatch.setattr(data, 'PIECE', 4000)
    response = werkzeug.test.Client(cloud.application).open(
        f"/v2/images/{image['id']}/file", headers={'X-Auth-Token': cloud.identity.token(testing.MEMBER)}, buffered=False)
    pieces = response.iter_encoded()
    assert len(next(pieces) + next(pieces)) == 8000
    response.close()
    (event_type, payload), = told()
    assert (event_type, payload['bytes_sent']) == ('image.send.error', 4000)


def test_disabled_ones_are_not_told(cloud, member, helpers):
    told = testing.Told(cloud.runtime.db, disabled=('image.update', 'image.member', 'task'))
    image = helpers.create(member)
    member.post(f"/v2/images/{image['id']}/members", {'member': 'p'}).expect(200)
    member.put(f"/v2/images/{image['id']}/tags/a").expect(204)
    member.delete('/v2/images/' + image['id']).expect(204)
    assert told.types() == ['image.create', 'image.delete']


def test_metadata_definitions(told, admin):
    base = '/v2/metadefs/namespaces'
    described = {'title': 'Cores', 'type': 'integer', 'minimum': 1}
    admin.post(base, {'namespace': 'OS::A', 'display_name': 'A', 'properties': {'cores': described}, 'tags': [{'name': 't'}]})
    events = told()
    assert [event_type for event_type, _ in events] == ['metadef_namespace.create', 'metadef_property.create', 'metadef_tag.create']
    assert (events[0][1]['namespace'], events[0][1]['namespace_old'], events[0][1]['visibility']) == ('OS::A', 'OS::A', 'private')
    assert (events[1][1]['namespace'], events[1][1]['name'], events[1][1]['minimum'], events[1][1]['enum']) == (
        'OS::A', 'cores', 1, None)
    admin.put(base + '/OS::A', {'namespace': 'OS::B'}).expect(200)
    (event_type, payload), = told()
    assert (event_type, payload['namespace'], payload['namespace_old']) == ('metadef_namespace.update', 'OS::B', 'OS::A')
    base += '/OS::B'
    admin.post(base + '/objects', {'name': 'o', 'required': ['p'], 'properties': {'p': described}}).expect(201)
    admin.put(base + '/objects/o', {'name': 'o2'}).expect(200)
    admin.delete(base + '/objects/o2').expect(204)
    admin.post(base + '/resource_types', {'name': 'OS::Nova::Server', 'prefix': 'hw_'}).expect(201)
    admin.delete(base + '/resource_types/OS::Nova::Server').expect(204)
    events = told()
    assert [event_type for event_type, _ in events] == [
        'metadef_object.create', 'metadef_object.update', 'metadef_object.delete', 'metadef_resource_type.create',
        'metadef_resource_type.delete']
    assert events[0][1]['properties'][0]['name'] == 'p' and events[0][1]['required'] == ['p']
    assert (events[1][1]['name'], events[1][1]['name_old']) == ('o2', 'o')
    assert events[2][1]['deleted'] is True and events[3][1]['prefix'] == 'hw_'
    for kind in ('objects', 'properties', 'tags'):
        admin.delete(f'{base}/{kind}').expect(204)
    admin.delete(base).expect(204)
    assert told.types() == ['metadef_namespace.delete_objects', 'metadef_namespace.delete_properties',
                            'metadef_namespace.delete_tags', 'metadef_namespace.delete']


def test_a_publisher_runs_where_topics_are_named(cloud):
    runtime = cloud.runtime
    runtime.conf.set_override('topics', ['notifications'], 'notifications')
    runtime.background = []
    cmd.load(runtime)
    assert [type(each).__name__ for each in runtime.background].count('Publisher') == 1
