import pytest

from kodiak.common import errors, testing

BYTES = {'Content-Type': 'application/octet-stream'}
MIB = bytes(1 << 20)


def usage(client):
    return {name: (one['limit'], one['usage']) for name, one in client.get('/v2/info/usage').expect(200).json['usage'].items()}


def test_without_limits(member, helpers):
    image = helpers.create(member)
    helpers.upload(member, image['id'], b'x')
    assert usage(member) == {'image_size_total': (-1, 1), 'image_stage_total': (-1, 0), 'image_count_total': (-1, 1),
                             'image_count_uploading': (-1, 0)}


def test_sizes(make_cloud, helpers):
    cloud = make_cloud(limits__project={'image_size_total': '3', 'image_stage_total': '1'})
    member, other = cloud.client(testing.MEMBER), cloud.client(testing.OTHER)
    first, second, third = (helpers.create(member) for _ in range(3))
    helpers.upload(member, first['id'], 2 * MIB)
    assert 'image_size_total' in helpers.upload(member, second['id'], 2 * MIB, 413).json['message']
    helpers.upload(member, second['id'], MIB)
    helpers.upload(member, third['id'], b'x', 413)
    assert usage(member)['image_size_total'] == (3, 3)
    helpers.upload(other, helpers.create(other)['id'], 2 * MIB)
    member.delete('/v2/images/' + first['id']).expect(204)
    member.put(f"/v2/images/{third['id']}/stage", data=MIB + b'x', headers=BYTES).expect(413)
    member.put(f"/v2/images/{third['id']}/stage", data=MIB, headers=BYTES).expect(204)
    assert usage(member)['image_stage_total'] == (1, 1)
    fourth = helpers.create(member)
    member.put(f"/v2/images/{fourth['id']}/stage", data=b'x', headers=BYTES).expect(413)
    # An import whose data would be too much fails.
    helpers.upload(member, fourth['id'], 2 * MIB)
    member.post(f"/v2/images/{third['id']}/import", {'method': {'name': 'glance-direct'}}).expect(413)
    member.delete('/v2/images/' + fourth['id']).expect(204)
    member.post(f"/v2/images/{third['id']}/import", {'method': {'name': 'glance-direct'}}).expect(202)
    cloud.runtime.background[1].run_due()
    assert member.get('/v2/images/' + third['id']).json['status'] == 'active'
    assert usage(member)['image_size_total'] == (3, 2) and usage(member)['image_stage_total'] == (1, 0)


def test_an_import_that_others_overtook(make_cloud, helpers):
    cloud = make_cloud(limits__project={'image_size_total': '2'})
    member = cloud.client(testing.MEMBER)
    staged, direct = helpers.create(member), helpers.create(member)
    member.put(f"/v2/images/{staged['id']}/stage", data=2 * MIB, headers=BYTES).expect(204)
    member.post(f"/v2/images/{staged['id']}/import", {'method': {'name': 'glance-direct'}}).expect(202)
    helpers.upload(member, direct['id'], MIB)
    cloud.runtime.background[1].run_due()
    after = member.get('/v2/images/' + staged['id']).json
    assert after['status'] == 'queued'
    assert 'image_size_total' in member.get(f"/v2/images/{staged['id']}/tasks").json['tasks'][0]['message']


def test_numbers(make_cloud, helpers):
    cloud = make_cloud(limits__project={'image_count_total': '2', 'image_count_uploading': '1'})
    member = cloud.client(testing.MEMBER)
    first, second = helpers.create(member), helpers.create(member)
    assert 'image_count_total' in member.post('/v2/images', {}).expect(413).json['message']
    member.put(f"/v2/images/{first['id']}/stage", data=b'x', headers=BYTES).expect(204)
    assert usage(member)['image_count_uploading'] == (1, 1)
    helpers.upload(member, second['id'], b'x', 413)
    assert member.get('/v2/images/' + second['id']).json['status'] == 'queued'
    member.delete('/v2/images/' + first['id']).expect(204)
    helpers.upload(member, second['id'], b'x')
    helpers.create(member)


class Identity:
    """Identity's unified limits."""

    def __init__(self):
        self.asked, self.away = [], False

    def get(self, path, params):
        self.asked.append(path)
        if self.away:
            raise errors.Unavailable
        return {'/v3/services': {'services': [{'id': 's'}]},
                '/v3/registered_limits': {'registered_limits': [
                    {'resource_name': 'image_count_total', 'default_limit': 1}, {'resource_name': 'odd', 'default_limit': 9}]},
                '/v3/limits': {'limits': [{'resource_name': 'image_count_total', 'resource_limit': 2}]
                               if params.get('project_id') == testing.PROJECT else []}}[path]


@pytest.fixture
def unified(make_cloud):
    cloud = make_cloud(limits__unified=True, limits__project={'image_count_uploading': '5'})
    cloud.answers = Identity()
    cloud.runtime.extra['limits'].clients = type('Clients', (), {'identity': cloud.answers})()
    return cloud


def test_unified_limits(unified, helpers):
    member, other = unified.client(testing.MEMBER), unified.client(testing.OTHER)
    for _ in range(2):
        helpers.create(member)
    member.post('/v2/images', {}).expect(413)
    helpers.create(other)
    other.post('/v2/images', {}).expect(413)
    assert unified.answers.asked.count('/v3/limits') == 2
    assert usage(member)['image_count_total'] == (2, 2) and usage(member)['image_count_uploading'] == (5, 0)


def test_limits_while_identity_is_away(unified, helpers):
    unified.answers.away = True
    member = unified.client(testing.MEMBER)
    for _ in range(3):
        helpers.create(member)
