"""Every route as every persona, and the personas of a domain and of the system."""
import pytest

from kodiak.common import testing
from kodiak.identity.api import API


@pytest.fixture
def people(cloud):
    """Clients: admin, member, reader, other project, no role (as check_personas calls them), and those of a domain."""
    project, other = cloud.project('p'), cloud.project('o')
    ids = {}
    for name, role, where in (('member', 'member', project), ('reader', 'reader', project), ('other project', 'member', other)):
        ids[name] = cloud.user(name.split()[0])['id']
        cloud.grant(ids[name], role, where['id'])
    ids['no role'] = cloud.user('norole')['id']
    clients = {'admin': cloud.admin(), None: cloud.client()}
    for name, where in (('member', project), ('reader', project), ('other project', other), ('no role', None)):
        clients[name] = cloud.client(cloud.login(ids[name], project=where and where['id']).expect(201))
    clients['project'], clients['ids'] = project, ids
    return clients


def test_every_route_as_every_persona(cloud, people):
    names = {id(persona): name for name, persona in testing.PERSONAS.items()}
    # The personas' own project must outlive the attempts.
    target, project = cloud.user('target'), cloud.project('target')
    parameters = {'project_id': project['id'], 'user_id': target['id'], 'domain_id': 'default',
                  'role_id': cloud.role_id('reader'), 'group': 'identity', 'option': 'driver'}
    headers = {'X-Subject-Token': cloud.login().headers['X-Subject-Token']}

    def client_of(persona):
        found = people[None if persona is None else names[id(persona)]]
        found._headers.update(headers)
        return found
    table = testing.check_personas(API, client_of, parameters)
    changing = {key: row for key, row in table.items() if key[0] != 'GET' and row}
    for key, row in changing.items():
        own = '/users/{user_id}' in key[1] or key[1] in (
            '/v3/credentials', '/v3/auth/tokens', '/v3/OS-TRUST/trusts')
        for name in ('member', 'reader', 'other project', 'no role'):
            if not own:
                assert row[name] in (400, 401, 403, 404), f'{key} as {name}: {row[name]}'


def domain_client(cloud, role, name, domain_id):
    user = cloud.user(name, domain_id=domain_id)
    cloud.admin().put(f'/v3/domains/{domain_id}/users/{user["id"]}/roles/{cloud.role_id(role)}').expect(204)
    return cloud.client(cloud.login(user['id'], scope={'domain': {'id': domain_id}}).expect(201))


def test_the_manager_of_a_domain_manages_that_domain(cloud):
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    boss, foreign = domain_client(cloud, 'manager', 'boss', domain_id), cloud.user('foreign')
    user = boss.post('/v3/users', {'user': {'name': 'u', 'password': 'x'}}).expect(201).json['user']
    assert user['domain_id'] == domain_id
    boss.post('/v3/users', {'user': {'name': 'u', 'domain_id': 'default'}}).expect(403)
    boss.patch('/v3/users/' + foreign['id'], {'user': {'name': 'x'}}).expect(403)
    boss.get('/v3/users/' + foreign['id']).expect(403)
    assert {each['name'] for each in boss.get('/v3/users').json['users']} == {'u', 'boss'}
    project = boss.post('/v3/projects', {'project': {'name': 'p'}}).expect(201).json['project']
    assert project['domain_id'] == domain_id
    boss.post('/v3/projects', {'project': {'name': 'd2', 'is_domain': True}}).expect(403)
    boss.patch('/v3/projects/' + domain_id, {'project': {'description': 'x'}}).expect(403)
    boss.delete('/v3/domains/' + domain_id).expect(403)
    group = boss.post('/v3/groups', {'group': {'name': 'g'}}).expect(201).json['group']
    boss.put(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(204)
    boss.put(f'/v3/groups/{group["id"]}/users/{foreign["id"]}').expect(403)
    grant = f'/v3/projects/{project["id"]}/users/{{}}/roles/{{}}'
    boss.put(grant.format(user['id'], cloud.role_id('member'))).expect(204)
    boss.put(grant.format(user['id'], cloud.role_id('admin'))).expect(403)
    boss.put(grant.format(foreign['id'], cloud.role_id('member'))).expect(403)
    boss.put(f'/v3/system/users/{user["id"]}/roles/{cloud.role_id("member")}').expect(403)
    elsewhere = cloud.project('elsewhere')
    boss.put(f'/v3/projects/{elsewhere["id"]}/users/{user["id"]}/roles/{cloud.role_id("member")}').expect(403)
    assert len(boss.get('/v3/role_assignments').expect(200).json['role_assignments']) == 2
    boss.get('/v3/roles').expect(200)
    boss.delete(grant.format(user['id'], cloud.role_id('member'))).expect(204)
    boss.delete('/v3/users/' + user['id']).expect(204)


def test_the_reader_of_a_domain_looks_at_it_only(cloud):
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    reader = domain_client(cloud, 'reader', 'ann', domain_id)
    assert [each['name'] for each in reader.get('/v3/users').expect(200).json['users']] == ['ann']
    assert reader.get('/v3/projects').expect(200).json['projects'] == []
    assert [each['id'] for each in reader.get('/v3/domains').expect(200).json['domains']] == [domain_id]
    reader.get('/v3/domains/default').expect(403)
    reader.post('/v3/users', {'user': {'name': 'x'}}).expect(403)
    reader.get('/v3/users?domain_id=default').expect(200)
    assert reader.get('/v3/users?domain_id=default').json['users'] == []
    reader.get('/v3/services').expect(403)
    reader.get('/v3/regions').expect(200)


def test_a_user_sees_itself_and_its_project(cloud, people):
    member, ids = people['member'], people['ids']
    member.get('/v3/users/' + ids['member']).expect(200)
    member.get(f'/v3/users/{ids["member"]}/projects').expect(200)
    member.get(f'/v3/users/{ids["member"]}/groups').expect(200)
    member.get('/v3/users/' + ids['reader']).expect(403)
    member.get('/v3/users/nobody').expect(403)
    member.get('/v3/users').expect(403)
    member.get('/v3/projects/' + people['project']['id']).expect(200)
    member.get('/v3/projects/nothing').expect(403)
    member.get('/v3/projects').expect(403)
    member.get('/v3/domains/default').expect(200)
    member.get('/v3/role_assignments').expect(403)


def test_the_administrator_of_a_domain_is_not_the_clouds(cloud):
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    boss = domain_client(cloud, 'admin', 'boss', domain_id)
    boss.post('/v3/users', {'user': {'name': 'u'}}).expect(201)
    for path, body in (('/v3/services', {'service': {'type': 't'}}), ('/v3/domains', {'domain': {'name': 'x'}}),
                       ('/v3/roles', {'role': {'name': 'x'}}), ('/v3/roles', {'role': {'name': 'x', 'domain_id': domain_id}}),
                       ('/v3/regions', {'region': {'id': 'x'}}), ('/v3/policies', {'policy': {'type': 't', 'blob': 'x'}})):
        boss.post(path, body).expect(403)
    for path in ('/v3/services', '/v3/endpoints', '/v3/roles?domain_id=' + domain_id, '/v3/OS-FEDERATION/identity_providers',
                 f'/v3/domains/{domain_id}/config'):
        boss.get(path).expect(403)
    boss.patch('/v3/domains/' + domain_id, {'domain': {'description': 'x'}}).expect(403)
    user_id = cloud.user('foreign')['id']
    boss.put(f'/v3/system/users/{user_id}/roles/{cloud.role_id("reader")}').expect(403)


def test_lists_of_a_domain_end_at_its_border(cloud):
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    reader, admin = domain_client(cloud, 'reader', 'ann', domain_id), cloud.admin()
    ours = admin.post('/v3/groups', {'group': {'name': 'ours', 'domain_id': domain_id}}).json['group']['id']
    theirs = admin.post('/v3/groups', {'group': {'name': 'theirs'}}).json['group']['id']
    user, foreign = cloud.user('u', domain_id=domain_id)['id'], cloud.user('foreign')['id']
    for group in (ours, theirs):
        for each in (user, foreign):
            admin.put(f'/v3/groups/{group}/users/{each}').expect(204)
    assert [each['name'] for each in reader.get(f'/v3/users/{user}/groups').expect(200).json['groups']] == ['ours']
    assert [each['name'] for each in reader.get(f'/v3/groups/{ours}/users').expect(200).json['users']] == ['u']
    elsewhere, here = cloud.project('p')['id'], cloud.project('q', domain_id=domain_id)['id']
    reader.get(f'/v3/role_assignments?scope.project.id={elsewhere}&include_subtree').expect(403)
    reader.get(f'/v3/role_assignments?scope.project.id={here}&include_subtree').expect(200)


def test_what_is_not_there_is_told_to_those_who_could_see_it(cloud, people):
    member, admin = people['member'], people['admin']
    for path in ('/v3/services/x', '/v3/groups/x', '/v3/domains/x', '/v3/credentials/x', '/v3/domains/x/config'):
        member.get(path).expect(403)
        admin.get(path).expect(404)
    for path in ('/v3/roles/x', '/v3/OS-TRUST/trusts/x'):
        member.get(path).expect(404)
    mine = f'/v3/users/{people["ids"]["member"]}/application_credentials'
    member.get(mine + '/x').expect(404)
    member.get(f'/v3/users/{people["ids"]["reader"]}/application_credentials/x').expect(403)
    made = people['reader'].post(f'/v3/users/{people["ids"]["reader"]}/application_credentials', {
        'application_credential': {'name': 'r'}}).expect(201).json['application_credential']['id']
    member.get(f'{mine}/{made}').expect(403)
