import pytest

from kodiak.common import testing
from kodiak.image import metadefs

BASE = '/v2/metadefs/namespaces'
FULL = {
    'namespace': 'My::Things', 'display_name': 'Things', 'description': 'About things', 'visibility': 'public',
    'properties': {'size': {'title': 'Size', 'type': 'integer', 'minimum': 1}},
    'objects': [{'name': 'Box', 'required': ['width'], 'properties': {'width': {'title': 'Width', 'type': 'integer'}}}],
    'tags': [{'name': 'red'}, {'name': 'blue'}],
    'resource_type_associations': [{'name': 'OS::Glance::Image', 'prefix': 'my_'}],
}


@pytest.fixture
def full(admin):
    return admin.post(BASE, FULL).expect(201)


def test_a_namespace_with_everything(admin, other, full):
    assert full.headers['Location'] == 'http://localhost/v2/metadefs/namespaces/My::Things'
    shown = other.get(BASE + '/My::Things').expect(200).json
    assert shown['properties'] == FULL['properties'] and shown['tags'] == [{'name': 'blue'}, {'name': 'red'}]
    assert shown['objects'][0]['self'] == '/v2/metadefs/namespaces/My::Things/objects/Box'
    assert shown['resource_type_associations'][0]['prefix'] == 'my_' and shown['protected'] is False
    prefixed = other.get(BASE + '/My::Things?resource_type=OS::Glance::Image').expect(200).json
    assert list(prefixed['properties']) == ['my_size'] and prefixed['objects'][0]['required'] == ['my_width']
    other.get(BASE + '/My::Things?resource_type=OS::Nova::Flavor').expect(404)
    admin.post(BASE, FULL).expect(409)
    listed = other.get(BASE + '?resource_types=OS::Glance::Image,X').expect(200).json
    assert [n['namespace'] for n in listed['namespaces']] == ['My::Things'] and listed['first'].startswith(BASE)
    assert other.get(BASE + '?resource_types=X').json['namespaces'] == []
    assert other.get('/v2/metadefs/resource_types').json['resource_types'][0]['name'] == 'OS::Glance::Image'


@pytest.mark.parametrize('bad', [
    {}, {'namespace': ''}, {'namespace': 'x' * 81}, {'namespace': 'x', 'odd': 1}, {'namespace': 'x', 'visibility': 'shared'},
    {'namespace': 'x', 'properties': {'p': {'title': 'x'}}}, {'namespace': 'x', 'properties': {'p': {'title': 'x', 'type': 'odd'}}},
    {'namespace': 'x', 'objects': [{}]}, {'namespace': 'x', 'protected': 'maybe'},
])
def test_what_is_no_namespace(admin, bad):
    admin.post(BASE, bad).expect(400)
    assert admin.get(BASE).json['namespaces'] == []


def test_who_may(admin, member, other, full):
    private = {'namespace': 'Mine', 'owner': testing.PROJECT}
    member.post(BASE, private).expect(403)
    admin.post(BASE, private).expect(201)
    member.get(BASE + '/Mine').expect(200)
    other.get(BASE + '/Mine').expect(404)

    def names(client):
        return [one['namespace'] for one in client.get(BASE + '?sort_key=namespace&sort_dir=asc').json['namespaces']]
    assert names(other) == ['My::Things'] and names(member) == ['Mine', 'My::Things']
    for method, path in (('DELETE', ''), ('POST', '/tags/x'), ('DELETE', '/objects/Box'), ('DELETE', '/properties/size')):
        member.request(method, BASE + '/My::Things' + path).expect(403)


def test_namespaces_change_and_go(admin, full):
    path = BASE + '/My::Things'
    changed = admin.put(path, {'namespace': 'Yours', 'protected': True}).expect(200).json
    assert changed['protected'] is True and changed['visibility'] == 'private' and 'description' not in changed
    admin.get(path).expect(404)
    path = BASE + '/Yours'
    assert list(admin.get(path).json['properties']) == ['size']
    for part in ('', '/objects/Box', '/objects', '/properties/size', '/tags/red', '/tags', '/resource_types/OS::Glance::Image'):
        admin.delete(path + part).expect(403)
    admin.post(BASE, {'namespace': 'Other'}).expect(201)
    admin.put(path, {'namespace': 'Other'}).expect(409)
    admin.put(path, {'namespace': 'Yours'}).expect(200)
    admin.delete(path).expect(204)
    admin.delete(path).expect(404)


def test_pages_of_namespaces(admin):
    for name in 'abc':
        admin.post(BASE, {'namespace': name, 'visibility': 'public'}).expect(201)
    page = admin.get(BASE + '?limit=2&sort_key=namespace&sort_dir=asc').json
    assert [n['namespace'] for n in page['namespaces']] == ['a', 'b']
    assert [n['namespace'] for n in admin.get(page['next']).json['namespaces']] == ['c']
    admin.get(BASE + '?visibility=odd').expect(400)
    admin.get(BASE + '?marker=none').expect(400)


@pytest.mark.parametrize(('kind', 'body', 'changed'), [
    ('objects', {'name': 'thing', 'description': 'A', 'properties': {'p': {'title': 'P', 'type': 'string'}}},
     {'name': 'thing2', 'required': ['x']}),
    ('properties', {'name': 'thing', 'title': 'T', 'type': 'string', 'enum': ['a']},
     {'name': 'thing2', 'title': 'U', 'type': 'number'}),
])
def test_parts(admin, full, kind, body, changed):
    path = f'{BASE}/My::Things/{kind}'
    made = admin.post(path, body).expect(201).json
    assert {name: made[name] for name in body} == body
    admin.post(path, body).expect(409)
    admin.post(path, {}).expect(400)
    assert admin.get(path + '/thing').expect(200).json == made
    admin.get(path + '/none').expect(404)
    assert 'thing' in str(admin.get(path).expect(200).json)
    after = admin.put(path + '/thing', changed).expect(200).json
    assert {name: after[name] for name in changed} == changed
    admin.get(path + '/thing').expect(404)
    existing = 'Box' if kind == 'objects' else 'size'
    admin.put(path + '/thing2', {**changed, 'name': existing}).expect(409)
    admin.delete(path + '/thing2').expect(204)
    admin.delete(path + '/thing2').expect(404)
    admin.delete(path).expect(204)
    assert not admin.get(path).json[kind]


def test_properties_under_their_prefix(admin, full):
    path = BASE + '/My::Things/properties/'
    assert admin.get(path + 'my_size?resource_type=OS::Glance::Image').expect(200).json['name'] == 'my_size'
    admin.get(path + 'size?resource_type=OS::Glance::Image').expect(404)


def test_tags(admin, full):
    path = BASE + '/My::Things/tags'
    assert admin.post(path + '/green').expect(201).json['name'] == 'green'
    admin.post(path + '/green').expect(409)
    assert admin.put(path + '/green', {'name': 'lime'}).expect(200).json['name'] == 'lime'
    admin.put(path + '/green', {'name': 'x'}).expect(404)
    assert admin.get(path + '/lime').expect(200).json['name'] == 'lime'
    admin.post(path, {'tags': [{'name': 'a'}, {'name': 'b'}]}).expect(201)
    admin.post(path, {'tags': [{'name': 'c'}]}, headers={'X-Openstack-Append': 'True'}).expect(201)
    admin.post(path, {'tags': [{'name': 'd'}, {'name': 'd'}]}).expect(409)
    page = admin.get(path + '?limit=2&sort_key=name&sort_dir=asc').json
    assert [tag['name'] for tag in page['tags']] == ['a', 'b']
    assert [tag['name'] for tag in admin.get(page['next']).json['tags']] == ['c']
    admin.delete(path + '/a').expect(204)
    admin.delete(path).expect(204)
    assert admin.get(path).json['tags'] == []


def test_resource_types(admin, full):
    path = BASE + '/My::Things/resource_types'
    assert admin.post(path, {'name': 'New::Kind', 'prefix': 'x:'}).expect(201).json['prefix'] == 'x:'
    admin.post(path, {'name': 'New::Kind'}).expect(409)
    assert [t['name'] for t in admin.get(path).json['resource_type_associations']] == ['New::Kind', 'OS::Glance::Image']
    admin.delete(path + '/New::Kind').expect(204)
    admin.delete(path + '/New::Kind').expect(404)
    assert 'New::Kind' in [t['name'] for t in admin.get('/v2/metadefs/resource_types').json['resource_types']]


def test_the_definitions_that_come_with_the_service(cloud, other, admin):
    added, skipped = cloud.runtime.db.transact(metadefs.load)
    assert len(added) > 15 and skipped == []
    assert cloud.runtime.db.transact(metadefs.load) == ([], added)
    types = [one['name'] for one in other.get('/v2/metadefs/resource_types').json['resource_types']]
    assert set(metadefs.RESOURCE_TYPES) <= set(types)
    for name in added:
        shown = other.get(f'{BASE}/{name}').expect(200).json
        # What is shown can be made again.
        body = {key: value for key, value in shown.items() if key not in ('self', 'schema', 'created_at', 'updated_at')}
        admin.post(BASE, {**body, 'namespace': 'Copy::' + name}).expect(201)


@pytest.mark.parametrize('name', ['namespace', 'namespaces', 'object', 'objects', 'property', 'properties', 'tag', 'tags',
                                  'resource_type', 'resource_types'])
def test_schemas(member, name):
    expected = name.replace('resource_type', 'resource_type_association')
    assert member.get('/v2/schemas/metadefs/' + name).expect(200).json['name'] == expected
