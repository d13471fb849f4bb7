"""Listing servers."""
import pytest

from kodiak.common import testing
from kodiak.compute import models


@pytest.fixture
def member(as_):
    return as_(testing.MEMBER)


@pytest.fixture
def three(cloud, boot):
    return [boot(name=name, tags=tags, metadata={'n': name}) for name, tags in (('alpha', ['a']), ('beta', ['a', 'b']), ('gamma',
                                                                                                                         []))]


def names(answer):
    return [server['name'] for server in answer.expect(200).json['servers']]


def test_filters(cloud, three, member, as_, flavor, image):
    for query, expected in (
            ('', ['gamma', 'beta', 'alpha']), ('name=a', ['gamma', 'beta', 'alpha']), ('name=^al', ['alpha']), ('name=zzz', []),
            ('status=ACTIVE', ['gamma', 'beta', 'alpha']), ('status=active', ['gamma', 'beta', 'alpha']), ('status=SHUTOFF', []),
            ('status=NONSENSE', []), ('flavor=' + flavor, ['gamma', 'beta', 'alpha']), ('flavor=x', []),
            ('image=' + image, ['gamma', 'beta', 'alpha']), ('tags=a,b', ['beta']), ('tags-any=a,b', ['beta', 'alpha']),
            ('not-tags=a,b', ['gamma', 'alpha']), ('not-tags-any=a', ['gamma']), ('sort_key=display_name&sort_dir=asc',
                                                                                   ['alpha', 'beta', 'gamma']),
            ('limit=2', ['gamma', 'beta']), ('limit=0', []), ('changes-since=2999-01-01T00:00:00Z', []),
            ('changes-since=2001-01-01T00:00:00Z', ['gamma', 'beta', 'alpha']), ('changes-before=2001-01-01T00:00:00Z', []),
            ('locked=true', []), ('power_state=1', ['gamma', 'beta', 'alpha']), ('host=nowhere', ['gamma', 'beta', 'alpha']),
            ('unknown=x', ['gamma', 'beta', 'alpha'])):
        for path in ('/servers', '/servers/detail'):
            assert names(member.get(f'{path}?{query}')) == expected, query
    admin = as_(testing.ADMIN)
    assert names(admin.get('/servers')) == []
    assert len(names(admin.get('/servers?all_tenants=true'))) == 3
    assert names(admin.get('/servers?all_tenants=1&host=nowhere')) == []
    assert len(names(admin.get('/servers?all_tenants&host=one'))) == 3
    assert len(names(admin.get('/servers?all_tenants=1&project_id=' + testing.PROJECT))) == 3
    member.get('/servers?all_tenants=1').expect(403)
    for bad in ('limit=-1', 'limit=x', 'marker=none', 'sort_key=doc', 'changes-since=then',
                'changes-since=0001-01-01T00:00:00%2B14:00', 'name=[', 'name=(a%2B)%2B', 'name=a*a*a*a*', 'sort_dir=up',
                'ip=(a*)*', 'all_tenants=maybe'):
        assert member.get('/servers?' + bad).status == 400, bad


def test_pages(three, member):
    seen, path = [], '/servers/detail?limit=1&sort_key=display_name&sort_dir=asc'
    while path:
        answer = member.get(path).expect(200).json
        seen += [server['name'] for server in answer['servers']]
        path = answer.get('servers_links', [{'href': ''}])[0]['href'].partition('/v2.1')[2]
    assert seen == ['alpha', 'beta', 'gamma']


def test_deleted_servers(cloud, three, member, as_):
    member.delete('/servers/' + three[0]['id']).expect(204)
    cloud.settle()
    assert names(member.get('/servers')) == ['gamma', 'beta']
    assert sorted(names(member.get('/servers?changes-since=2001-01-01T00:00:00Z'))) == ['alpha', 'beta', 'gamma']
    member.get('/servers?status=DELETED').expect(403)
    admin = as_(testing.ADMIN)
    assert names(admin.get('/servers/detail?status=DELETED&all_tenants=1')) == ['alpha']
    assert names(admin.get('/servers/detail?deleted=true&all_tenants=1')) == ['alpha']


def test_links_and_prefixes(three, cloud, member):
    listed = member.get('/servers').json['servers'][0]
    assert set(listed) == {'id', 'name', 'links'}
    assert [link['href'] for link in listed['links']] == [
        f'http://localhost/v2.1/servers/{listed["id"]}', f'http://localhost/servers/{listed["id"]}']
    shown = member.get(f'/{testing.PROJECT}/servers/{listed["id"]}').expect(200).json['server']
    assert shown['image']['links'][0]['href'].startswith('http://localhost/images/')
    member.get(f'/{testing.OTHER_PROJECT}/servers').expect(400)
    member.get('/servers/').expect(404)
    old = cloud.client(testing.MEMBER, None, '/v2').get('/servers/' + listed['id']).expect(200)
    assert 'OpenStack-API-Version' not in old.headers and 'locked' not in old.json['server']
    member.get('/servers', headers={'OpenStack-API-Version': 'compute 2.999'}).expect(406)
    assert member.get('/servers',
                      headers={'OpenStack-API-Version': 'compute latest'}).headers['OpenStack-API-Version'] == 'compute 2.96'


def test_hosts_that_are_down_show(cloud, three, as_):
    with cloud.db.write() as connection:
        connection.execute(models.services.update().values(last_seen_at=cloud.row(three[0]['id'])['created_at'].replace(year=2001)))
    admin = as_(testing.ADMIN)
    assert {server['host_status'] for server in admin.get('/servers/detail?all_tenants=1').json['servers']} == {'UNKNOWN'}
