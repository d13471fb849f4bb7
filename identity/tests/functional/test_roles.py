import pytest


@pytest.fixture
def tree(cloud):
    """A user, a group with it inside, a project and one below."""
    admin = cloud.admin()
    user = cloud.user('ann')
    group = admin.post('/v3/groups', {'group': {'name': 'g'}}).json['group']
    admin.put(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(204)
    top = cloud.project('top')
    below = cloud.project('below', parent_id=top['id'])
    return user, group, top, below


def names(answer):
    return sorted(role['name'] for role in answer.json['token']['roles'])


def test_grants(cloud, tree):
    admin, (user, _, top, _) = cloud.admin(), tree
    role = cloud.role_id('member')
    path = f'/v3/projects/{top["id"]}/users/{user["id"]}/roles'
    admin.head(f'{path}/{role}').expect(404)
    admin.put(f'{path}/{role}').expect(204)
    admin.put(f'{path}/{role}').expect(204)
    admin.head(f'{path}/{role}').expect(204)
    admin.get(f'{path}/{role}').expect(204)
    assert [r['name'] for r in admin.get(path).expect(200).json['roles']] == ['member']
    admin.delete(f'{path}/{role}').expect(204)
    admin.delete(f'{path}/{role}').expect(404)
    for wrong in (f'/v3/projects/nothing/users/{user["id"]}/roles/{role}', f'/v3/projects/{top["id"]}/users/nobody/roles/{role}',
                  f'{path}/norole', f'/v3/domains/{top["id"]}/users/{user["id"]}/roles/{role}'):
        admin.put(wrong).expect(404)


def test_inherited_roles_hold_below_only(cloud, tree):
    admin, (user, group, top, below) = cloud.admin(), tree
    role = cloud.role_id('reader')
    path = f'/v3/OS-INHERIT/projects/{top["id"]}/groups/{group["id"]}/roles/{role}/inherited_to_projects'
    admin.put(path).expect(204)
    admin.head(path).expect(204)
    cloud.login('ann', project=top['id']).expect(401)
    token = cloud.login('ann', project=below['id']).expect(201)
    assert names(token) == ['reader']
    assert [p['name'] for p in cloud.client(token).get('/v3/auth/projects').json['projects']] == ['below']
    admin.delete(path).expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    path = f'/v3/OS-INHERIT/domains/default/users/{user["id"]}/roles/{role}/inherited_to_projects'
    admin.put(path).expect(204)
    assert names(cloud.login('ann', project=top['id']).expect(201)) == ['reader']
    cloud.login('ann', scope={'domain': {'id': 'default'}}).expect(401)
    assert len(admin.get(path.rsplit('/', 2)[0] + '/inherited_to_projects').json['roles']) == 1


def test_system_roles(cloud, tree):
    admin, (user, group, _, _) = cloud.admin(), tree
    role = cloud.role_id('reader')
    for path in (f'/v3/system/users/{user["id"]}/roles/{role}', f'/v3/system/groups/{group["id"]}/roles/{role}'):
        admin.put(path).expect(204)
        token = cloud.login('ann', scope={'system': {'all': True}}).expect(201)
        assert names(token) == ['reader']
        cloud.client(token).get('/v3/users').expect(200)
        cloud.client(token).post('/v3/users', {'user': {'name': 'x'}}).expect(403)
        admin.delete(path).expect(204)
        cloud.client(token).get('/v3/users').expect(401)


def test_implied_roles(cloud, tree):
    admin, (user, _, top, _) = cloud.admin(), tree
    ids = {name: admin.post('/v3/roles', {'role': {'name': name}}).expect(201).json['role']['id'] for name in 'abc'}
    admin.put(f'/v3/roles/{ids["a"]}/implies/{ids["b"]}').expect(201)
    admin.put(f'/v3/roles/{ids["b"]}/implies/{ids["c"]}').expect(201)
    admin.put(f'/v3/roles/{ids["c"]}/implies/{ids["a"]}').expect(403)
    admin.put(f'/v3/roles/{ids["c"]}/implies/{cloud.role_id("admin")}').expect(403)
    admin.head(f'/v3/roles/{ids["a"]}/implies/{ids["b"]}').expect(204)
    assert [r['id'] for r in admin.get(f'/v3/roles/{ids["a"]}/implies').json['role_inference']['implies']] == [ids['b']]
    assert any(each['prior_role']['id'] == ids['a'] for each in admin.get('/v3/role_inferences').json['role_inferences'])
    cloud.grant(user['id'], 'a', top['id'])
    token = cloud.login('ann', project=top['id']).expect(201)
    assert names(token) == ['a', 'b', 'c']
    admin.delete(f'/v3/roles/{ids["b"]}/implies/{ids["c"]}').expect(204)
    admin.get(f'/v3/roles/{ids["b"]}/implies/{ids["c"]}').expect(404)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    assert names(cloud.login('ann', project=top['id'])) == ['a', 'b']
    token = cloud.login('ann', project=top['id'])
    admin.delete(f'/v3/roles/{ids["a"]}').expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)


def test_a_role_that_goes_ends_no_tokens_but_those_that_it_gave_something(cloud, tree):
    admin, (_, group, top, _) = cloud.admin(), tree
    member, reader = cloud.role_id('member'), cloud.role_id('reader')
    cook = admin.post('/v3/roles', {'role': {'name': 'cook'}}).json['role']['id']
    own = admin.post('/v3/roles', {'role': {'name': 'own', 'domain_id': 'default'}}).json['role']['id']
    above = admin.post('/v3/roles', {'role': {'name': 'above', 'domain_id': 'default'}}).json['role']['id']
    for prior, implied in ((cook, member), (own, member), (above, own)):
        admin.put(f'/v3/roles/{prior}/implies/{implied}').expect(201)
    people = {name: cloud.user(name) for name in ('bob', 'cid', 'dan', 'eve')}
    admin.put(f'/v3/groups/{group["id"]}/users/{people["eve"]["id"]}').expect(204)
    given = {f'users/{people["bob"]["id"]}': member, f'users/{people["cid"]["id"]}': cook, f'users/{people["dan"]["id"]}': above,
             f'groups/{group["id"]}': own}
    for who, role in given.items():
        admin.put(f'/v3/projects/{top["id"]}/{who}/roles/{role}').expect(204)

    def after(act):
        mine = {name: cloud.client(cloud.login(name, project=top['id']).expect(201)) for name in people}
        act().expect(204)
        admin.get('/v3/users').expect(200)
        return {name for name, client in mine.items() if client.get('/v3/auth/projects').status == 401}
    assert after(lambda: admin.delete(f'/v3/roles/{cook}/implies/{member}')) == {'cid'}
    admin.put(f'/v3/roles/{cook}/implies/{member}').expect(201)
    assert after(lambda: admin.delete(f'/v3/roles/{own}/implies/{member}')) == {'dan', 'eve'}
    admin.put(f'/v3/roles/{own}/implies/{member}').expect(201)
    admin.put(f'/v3/roles/{own}/implies/{reader}').expect(201)
    assert after(lambda: admin.delete(f'/v3/roles/{cook}')) == {'cid'}
    cloud.grant(people['cid']['id'], 'member', top['id'])
    assert after(lambda: admin.delete(f'/v3/roles/{own}')) == {'dan', 'eve'}


def test_roles_of_a_domain(cloud, tree):
    admin, (user, _, top, _) = cloud.admin(), tree
    own = admin.post('/v3/roles', {'role': {'name': 'own', 'domain_id': 'default'}}).expect(201).json['role']
    assert [r['name'] for r in admin.get('/v3/roles?domain_id=default').json['roles']] == ['own']
    assert 'own' not in [r['name'] for r in admin.get('/v3/roles').json['roles']]
    admin.put(f'/v3/roles/{own["id"]}/implies/{cloud.role_id("member")}').expect(201)
    admin.put(f'/v3/roles/{cloud.role_id("member")}/implies/{own["id"]}').expect(403)
    admin.put(f'/v3/projects/{top["id"]}/users/{user["id"]}/roles/{own["id"]}').expect(204)
    assert names(cloud.login('ann', project=top['id']).expect(201)) == ['member', 'reader']
    other = admin.post('/v3/domains', {'domain': {'name': 'o'}}).json['domain']
    project = cloud.project('p', domain_id=other['id'])
    admin.put(f'/v3/projects/{project["id"]}/users/{user["id"]}/roles/{own["id"]}').expect(403)
    admin.put(f'/v3/system/users/{user["id"]}/roles/{own["id"]}').expect(400)


def test_the_list_of_assignments(cloud, tree):
    admin, (user, group, top, below) = cloud.admin(), tree
    member, reader = cloud.role_id('member'), cloud.role_id('reader')
    admin.put(f'/v3/projects/{top["id"]}/groups/{group["id"]}/roles/{member}').expect(204)
    admin.put(f'/v3/OS-INHERIT/projects/{top["id"]}/users/{user["id"]}/roles/{reader}/inherited_to_projects').expect(204)
    ask = lambda query: admin.get('/v3/role_assignments?' + query).expect(200).json['role_assignments']  # noqa: E731
    stored = ask(f'scope.project.id={top["id"]}')
    assert len(stored) == 2
    inherited = next(each for each in stored if 'user' in each)
    assert inherited['scope'] == {'project': {'id': top['id']}, 'OS-INHERIT:inherited_to': 'projects'}
    assert inherited['links']['assignment'].endswith('/inherited_to_projects')
    effective = ask(f'user.id={user["id"]}&effective&include_names=1')
    assert {(each['role']['name'], each['scope']['project']['name']) for each in effective} == {
        ('member', 'top'), ('reader', 'top'), ('reader', 'below')}
    of_group = next(each for each in effective if each['role']['name'] == 'member')
    assert of_group['links']['membership'].endswith(f'/groups/{group["id"]}/users/{user["id"]}')
    assert of_group['user']['domain'] == {'id': 'default', 'name': 'Default'}
    implied = next(each for each in effective if each['role']['name'] == 'reader' and each['scope']['project']['name'] == 'top')
    assert implied['links']['prior_role'].endswith('/v3/roles/' + member)
    assert len(ask(f'scope.project.id={below["id"]}&effective')) == 1
    assert len(ask(f'scope.project.id={top["id"]}&include_subtree')) == 2
    assert len(ask(f'role.id={reader}&scope.OS-INHERIT:inherited_to=projects')) == 1
    assert any(each['scope'].get('system') for each in ask('scope.system=all'))
    for bad in (f'user.id={user["id"]}&group.id={group["id"]}', 'scope.project.id=x&scope.domain.id=y', 'group.id=x&effective',
                'include_subtree=1', 'scope.OS-INHERIT:inherited_to=x'):
        admin.get('/v3/role_assignments?' + bad).expect(400)
