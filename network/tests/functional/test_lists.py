"""Lists: filters, sorting, pages, fields, tags, revisions; the same for every resource, so tried on a few."""
import urllib.parse

import pytest

from kodiak.common import testing


@pytest.fixture
def named(member, make):
    return [make(member, 'network', name=name, description=description) for name, description in (
        ('b', 'x'), ('a', 'x'), ('c', 'y'), ('a', 'y'), ('d', ''))]


def names(client, query):
    return [one['name'] for one in client.get('/networks?' + query).expect(200).json['networks']]


def test_sorting(member, named):
    assert names(member, 'sort_key=name') == ['a', 'a', 'b', 'c', 'd']
    assert names(member, 'sort_key=name&sort_dir=desc') == ['d', 'c', 'b', 'a', 'a']
    found = member.get('/networks?sort_key=name&sort_dir=asc&sort_key=description&sort_dir=desc').json['networks']
    assert [(one['name'], one['description']) for one in found][:2] == [('a', 'y'), ('a', 'x')]
    member.get('/networks?sort_key=nonsense').expect(400)
    member.get('/networks?sort_dir=up&sort_key=name').expect(400)


def test_pages_lead_forth_and_back(member, named):
    def page(path):
        answer = member.get(path.removeprefix('http://localhost')).expect(200).json
        links = {link['rel']: link['href'].removeprefix('http://localhost').removeprefix('/v2.0')
                 for link in answer.get('networks_links', ())}
        return [one['name'] for one in answer['networks']], links
    seen, links = page('/networks?limit=2&sort_key=name&sort_dir=desc')
    assert seen == ['d', 'c'] and set(links) == {'next'}
    seen, links = page(links['next'])
    assert seen == ['b', 'a'] and set(links) == {'next', 'previous'}
    back, _ = page(links['previous'])
    assert back == ['d', 'c']
    last, links = page(links['next'])
    assert last == ['a'] and set(links) == {'previous'}
    assert page('/networks?limit=2&fields=name&sort_key=name')[0] == ['a', 'a']
    assert len(page('/networks?limit=0')[0]) == 5
    member.get('/networks?limit=-1').expect(400)
    member.get('/networks?limit=2&marker=nonsense').expect(400)


def test_filters(member, admin, named):
    assert sorted(names(member, 'name=a&name=b')) == ['a', 'a', 'b']
    assert names(member, 'name=a&description=y') == ['a']
    assert names(member, 'name=nothing') == []
    assert len(names(member, 'admin_state_up=True')) == 5 and names(member, 'admin_state_up=false') == []
    assert len(names(member, 'shared=False')) == 5
    assert len(names(member, 'router:external=false')) == 5
    assert len(names(admin, 'tenant_id=' + testing.PROJECT)) == 5 == len(names(admin, 'project_id=' + testing.PROJECT))
    assert len(names(admin, 'provider:network_type=vxlan')) == 5
    assert len(names(member, 'revision_number=1')) == 5
    assert len(names(member, 'changed_since=2020-01-01T00:00:00Z')) == 5
    assert names(member, 'changed_since=2099-01-01T00:00:00Z') == []
    for bad in ('changed_since=yesterday', 'changed_since=0001-01-01T00:00:00%2B14:00', 'admin_state_up=perhaps',
                'mtu=wide', 'unheard=1'):
        member.get('/networks?' + bad).expect(400)


def test_fields(member, named):
    found = member.get('/networks?fields=name&fields=id&name=b').json['networks']
    assert found == [{'id': named[0]['id'], 'name': 'b'}]
    assert member.get(f"/networks/{named[0]['id']}?fields=name").json['network'] == {'name': 'b'}
    assert member.get('/security-groups?fields=name').json['security_groups'] == [{'name': 'default'}]


def test_tags(member, as_, named):
    path = f"/networks/{named[0]['id']}"
    member.put(path + '/tags', {'tags': ['red', 'blue']}).expect(200)
    member.put(path + '/tags/green').expect(201)
    member.put(f"/networks/{named[2]['id']}/tags/red").expect(201)
    assert member.get(path + '/tags').json == {'tags': ['red', 'blue', 'green']}
    member.get(path + '/tags/red').expect(204)
    member.get(path + '/tags/RED').expect(404)
    assert sorted(names(member, 'tags=red')) == ['b', 'c']
    assert names(member, 'tags=red,blue') == ['b']
    assert names(member, 'tags=Red') == [] == names(member, 'tags=re')
    assert sorted(names(member, 'tags-any=green,red')) == ['b', 'c']
    assert sorted(names(member, 'not-tags=red')) == ['a', 'a', 'd']
    assert sorted(names(member, 'not-tags-any=blue,green')) == ['a', 'a', 'c', 'd']
    member.delete(path + '/tags/red').expect(204)
    member.delete(path + '/tags/red').expect(404)
    strange = 'a"b\\c'
    member.put(path + '/tags', {'tags': [strange]}).expect(200)
    assert names(member, 'tags=' + urllib.parse.quote(strange)) == ['b']
    for bad in (['a,b'], [''], ['x' * 256]):
        member.put(path + '/tags', {'tags': bad}).expect(400)
    as_(testing.READER).put(path + '/tags/no').expect(403)
    as_(testing.OTHER).get(path + '/tags').expect(404)
    member.delete(path + '/tags').expect(204)
    assert member.get(path).json['network']['tags'] == []


def test_revisions_and_times(member, named):
    path = f"/networks/{named[0]['id']}"
    assert named[0]['revision_number'] == 1 and named[0]['created_at'].endswith('Z')
    changed = member.put(path, {'network': {'name': 'new'}}, headers={'If-Match': 'revision_number=1'}).expect(200).json['network']
    assert changed['revision_number'] == 2
    error = member.put(path, {'network': {'name': 'newer'}}, headers={'If-Match': 'revision_number=1'}).expect(412).json
    assert error['NeutronError']['type'] == 'RevisionNumberConstraintFailed'
    member.delete(path, headers={'If-Match': 'revision_number=1'}).expect(412)
    member.delete(path, headers={'If-Match': 'nonsense'}).expect(400)
    member.delete(path, headers={'If-Match': 'revision_number=2'}).expect(204)


def test_bad_bodies_are_refused_whole(member):
    for body in ({}, {'network': {}, 'networks': []}, {'network': {'nonsense': 1}}, {'network': []}, {'network': {'id': 'x'}},
                 {'network': {'name': 5}}, {'network': {'name': 'x' * 256}}, {'network': {'admin_state_up': 'perhaps'}},
                 {'network': {'status': 'ACTIVE'}}, {'networks': []}, {'networks': [{'name': 'good'}, {'name': 5}]},
                 {'network': {'name': 'x', 'tenant_id': 'another'}}):
        assert 'NeutronError' in member.post('/networks', body).expect(400).json, body
    assert member.get('/networks').json['networks'] == []


def test_many_at_once(member, make):
    found = member.post('/networks', {'networks': [{'name': 'one'}, {'name': 'two'}]}).expect(201).json['networks']
    assert [one['name'] for one in found] == ['one', 'two']
    ports = (
        member.post('/ports', {'ports': [{'network_id': one['id'], 'name': one['name']} for one in found]})
        .expect(201)
        .json['ports']
    )
    assert [port['network_id'] for port in ports] == [one['id'] for one in found]
    # All or nothing.
    member.post(
        '/ports', {'ports': [{'network_id': found[0]['id']}, {'network_id': '0' * 8 + '-0000-0000-0000-' + '0' * 12}]}
    ).expect(404)
    assert len(member.get('/ports').json['ports']) == 2


def test_versions_and_extensions(member, as_):
    listed = member.get('/extensions').expect(200).json['extensions']
    assert {'router', 'security-group', 'binding', 'quotas'} <= {one['alias'] for one in listed}
    assert member.get('/extensions/router').json['extension'] in listed
    assert member.get('/extensions/unheard').expect(404).json['NeutronError']['type'] == 'ExtensionNotFound'
    assert len(as_(None).get('/').expect(200).json['resources']) == 3
    assert as_(None).get('/openapi.json').expect(200).json['openapi'] == '3.1.0'
