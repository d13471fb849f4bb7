import pytest


def test_trees(cloud):
    admin = cloud.admin()
    top = cloud.project('top', tags=['a', 'b'], zone='north')
    assert top['parent_id'] == top['domain_id'] == 'default' and top['is_domain'] is False and top['zone'] == 'north'
    middle = cloud.project('middle', parent_id=top['id'])
    leaf = cloud.project('leaf', parent_id=middle['id'])
    shown = admin.get(f'/v3/projects/{leaf["id"]}?parents_as_list').expect(200).json['project']
    assert [each['project']['name'] for each in shown['parents']] == ['middle', 'top', 'Default']
    assert admin.get(f'/v3/projects/{leaf["id"]}?parents_as_ids').json['project']['parents'] == {
        middle['id']: {top['id']: {'default': None}}}
    assert admin.get(f'/v3/projects/{top["id"]}?subtree_as_ids').json['project']['subtree'] == {middle['id']: {leaf['id']: None}}
    subtree = admin.get(f'/v3/projects/{top["id"]}?subtree_as_list').json['project']['subtree']
    assert [each['project']['name'] for each in subtree] == ['middle', 'leaf']
    admin.get(f'/v3/projects/{top["id"]}?subtree_as_list&subtree_as_ids').expect(400)
    admin.delete('/v3/projects/' + top['id']).expect(403)
    admin.patch('/v3/projects/' + top['id'], {'project': {'enabled': False}}).expect(403)
    admin.patch('/v3/projects/' + leaf['id'], {'project': {'enabled': False}}).expect(200)
    admin.patch('/v3/projects/' + middle['id'], {'project': {'enabled': False}}).expect(200)
    admin.patch('/v3/projects/' + leaf['id'], {'project': {'enabled': True}}).expect(403)
    admin.post('/v3/projects', {'project': {'name': 'x', 'parent_id': middle['id']}}).expect(403)
    for project in (leaf, middle, top):
        admin.delete('/v3/projects/' + project['id']).expect(204)


def test_a_whole_tree_at_once(cloud):
    admin = cloud.admin()
    top = cloud.project('top')
    middle = cloud.project('middle', parent_id=top['id'])
    leaf, twin = cloud.project('leaf', parent_id=middle['id']), cloud.project('twin', parent_id=middle['id'])
    path = lambda project: f'/v3/projects/{project["id"]}/cascade'  # noqa: E731
    enabled = lambda: [admin.get('/v3/projects/' + each['id']).json['project']['enabled']  # noqa: E731
                       for each in (top, middle, leaf, twin)]
    ann = cloud.user('ann')
    cloud.grant(ann['id'], 'member', leaf['id'])
    client = cloud.client(cloud.login('ann', project=leaf['id']).expect(201))
    client.patch(path(top), {'project': {'enabled': False}}).expect(403)
    client.delete(path(top)).expect(403)
    admin.delete(path(top)).expect(403)
    for bad in ({}, {'enabled': 0}, {'enabled': False, 'name': 'x'}):
        admin.patch(path(top), {'project': bad}).expect(400)
    # Nothing of a tree changes where a part of it may not.
    admin.patch('/v3/projects/' + twin['id'], {'project': {'options': {'immutable': True}}}).expect(200)
    admin.patch(path(top), {'project': {'enabled': False}}).expect(403)
    assert enabled() == [True] * 4
    admin.patch('/v3/projects/' + twin['id'], {'project': {'options': {'immutable': None}}}).expect(200)
    assert admin.patch(path(top), {'project': {'enabled': False}}).expect(200).json['project']['enabled'] is False
    assert enabled() == [False] * 4
    client.get('/v3/auth/projects').expect(401)
    cloud.login('ann', project=leaf['id']).expect(401)
    admin.patch(path(middle), {'project': {'enabled': True}}).expect(403)
    admin.patch(path(top), {'project': {'enabled': True}}).expect(200)
    assert enabled() == [True] * 4
    cloud.login('ann', project=leaf['id']).expect(201)
    admin.patch(path(middle), {'project': {'enabled': False}}).expect(200)
    assert enabled() == [True, False, False, False]
    admin.delete(path(top)).expect(403)
    admin.delete(path(middle)).expect(204)
    admin.get('/v3/projects/' + leaf['id']).expect(404)
    admin.get('/v3/projects/' + top['id']).expect(200)
    assert not admin.get(f'/v3/role_assignments?user.id={ann["id"]}').json['role_assignments']
    for method in (lambda: admin.patch('/v3/projects/default/cascade', {'project': {'enabled': False}}),
                   lambda: admin.delete('/v3/projects/default/cascade')):
        method().expect(403)
    admin.delete('/v3/projects/nothing/cascade').expect(404)


def test_depth_and_parents(cloud):
    admin = cloud.admin()
    parent = 'default'
    for level in range(5):
        parent = cloud.project(f'p{level}', parent_id=parent)['id']
    admin.post('/v3/projects', {'project': {'name': 'deep', 'parent_id': parent}}).expect(403)
    for field in ('parent_id', 'domain_id'):
        refused = admin.post('/v3/projects', {'project': {'name': 'x', field: 'nothing'}}).expect(400)
        assert f'project.{field}' in refused.json['error']['message']
    admin.patch('/v3/projects/' + parent, {'project': {'is_domain': True}}).expect(400)
    other = admin.post('/v3/domains', {'domain': {'name': 'other'}}).expect(201).json['domain']
    admin.post('/v3/projects', {'project': {'name': 'x', 'parent_id': parent, 'domain_id': other['id']}}).expect(400)
    admin.patch(f'/v3/projects/{parent}', {'project': {'parent_id': 'default'}}).expect(403)
    admin.patch(f'/v3/projects/{parent}', {'project': {'domain_id': other['id']}}).expect(400)


@pytest.mark.parametrize('bad', [{}, {'name': ''}, {'name': 'x' * 65}, {'name': 'x', 'enabled': 1}, {'name': 'x', 'tags': ['a,b']},
                                 {'name': 'x', 'tags': ['a', 'a']}, {'name': 'x', 'is_domain': True, 'domain_id': 'default'}])
def test_bad_projects(cloud, bad):
    cloud.admin().post('/v3/projects', {'project': bad}).expect(400)


def test_tags(cloud):
    admin = cloud.admin()
    one, two = cloud.project('one', tags=['red', 'big']), cloud.project('two', tags=['red'])
    names = lambda query: sorted(p['name'] for p in admin.get('/v3/projects?' + query).expect(200).json['projects'])  # noqa: E731
    assert names('tags=red,big') == ['one'] and names('tags-any=big,small') == ['one']
    assert names('not-tags=red,big') == ['admin', 'two'] and names('not-tags-any=red') == ['admin']
    path = f'/v3/projects/{two["id"]}/tags'
    admin.put(path + '/small').expect(201)
    admin.head(path + '/small').expect(204)
    assert admin.get(path).json['tags'] == ['red', 'small']
    admin.delete(path + '/red').expect(204)
    admin.delete(path + '/red').expect(404)
    assert admin.put(path, {'tags': ['x']}).expect(200).json['tags'] == ['x']
    admin.put(path, {'tags': ['a/b']}).expect(400)
    admin.delete(path).expect(204)
    assert admin.get(path).json['tags'] == []
    assert admin.get('/v3/projects/' + one['id']).json['project']['tags'] == ['big', 'red']


def test_a_domain_is_a_project_without_parent(cloud):
    admin = cloud.admin()
    made = admin.post('/v3/projects', {'project': {'name': 'dom', 'is_domain': True}}).expect(201).json['project']
    assert made['domain_id'] is None and made['parent_id'] is None
    assert admin.get('/v3/domains/' + made['id']).expect(200).json['domain']['name'] == 'dom'
    assert 'dom' in [p['name'] for p in admin.get('/v3/projects?is_domain=true').json['projects']]
    assert 'dom' not in [p['name'] for p in admin.get('/v3/projects').json['projects']]
    admin.post('/v3/domains', {'domain': {'name': 'dom'}}).expect(409)
    admin.get('/v3/domains/' + cloud.project('p')['id']).expect(404)


def test_a_domain_goes_with_all_that_is_in_it(cloud):
    admin = cloud.admin()
    domain = admin.post('/v3/domains', {'domain': {'name': 'd', 'explicit_domain_id': 'd' * 32}}).expect(201).json['domain']
    assert domain['id'] == 'd' * 32
    user = cloud.user('ann', domain_id=domain['id'])
    project = cloud.project('p', domain_id=domain['id'])
    below = cloud.project('q', parent_id=project['id'])
    group = admin.post('/v3/groups', {'group': {'name': 'g', 'domain_id': domain['id']}}).expect(201).json['group']
    role = admin.post('/v3/roles', {'role': {'name': 'r', 'domain_id': domain['id']}}).expect(201).json['role']
    cloud.grant(user['id'], 'member', below['id'])
    token = cloud.login(user['id'], project=below['id']).expect(201)
    admin.delete('/v3/domains/' + domain['id']).expect(403)
    admin.patch('/v3/domains/' + domain['id'], {'domain': {'enabled': False}}).expect(200)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    cloud.login(user['id'], project=None).expect(401)
    admin.delete('/v3/domains/' + domain['id']).expect(204)
    for path in ('users/' + user['id'], 'projects/' + project['id'], 'projects/' + below['id'], 'groups/' + group['id'],
                 'roles/' + role['id'], 'domains/' + domain['id']):
        admin.get('/v3/' + path).expect(404)


def test_what_is_immutable(cloud):
    admin = cloud.admin()
    project = cloud.project('p', options={'immutable': True})
    path = '/v3/projects/' + project['id']
    admin.patch(path, {'project': {'description': 'x'}}).expect(403)
    admin.delete(path).expect(403)
    admin.patch(path, {'project': {'options': {'immutable': False}}}).expect(200)
    admin.patch(path, {'project': {'description': 'x'}}).expect(200)
    admin.delete(path).expect(204)
    admin.delete(f'/v3/roles/{cloud.role_id("admin")}').expect(403)


def test_an_empty_filter_of_tags_filters_nothing(cloud):
    for query in ('tags=', 'tags=,', 'not-tags-any='):
        assert len(cloud.admin().get('/v3/projects?' + query).expect(200).json['projects']) == 1
