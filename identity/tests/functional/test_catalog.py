import pytest

from kodiak.common import testing


@pytest.fixture
def service(cloud):
    return cloud.admin().post('/v3/services', {'service': {'type': 'compute', 'name': 'nova', 'description': 'x'}}
                              ).expect(201).json['service']


def endpoint(cloud, service, **more):
    return cloud.admin().post('/v3/endpoints', {'endpoint': {
        'service_id': service['id'], 'interface': 'public', 'url': 'http://c/v2.1/$(project_id)s', 'region_id': 'RegionOne',
        **more}})


def types(cloud, **login):
    return {each['type']: each for each in cloud.login(**login).expect(201).json['token']['catalog']}


def test_the_catalog_follows_at_once(cloud, service):
    made = endpoint(cloud, service).expect(201).json['endpoint']
    token = cloud.login().expect(201)
    project_id = token.json['token']['project']['id']
    assert types(cloud)['compute']['endpoints'][0]['url'] == f'http://c/v2.1/{project_id}'
    assert types(cloud, scope={'system': {'all': True}})['compute']['endpoints'] == []
    admin = cloud.admin()
    admin.patch('/v3/endpoints/' + made['id'], {'endpoint': {'enabled': False}}).expect(200)
    assert types(cloud)['compute']['endpoints'] == []
    admin.patch('/v3/services/' + service['id'], {'service': {'enabled': False}}).expect(200)
    assert 'compute' not in types(cloud)
    admin.delete('/v3/services/' + service['id']).expect(204)
    admin.get('/v3/endpoints/' + made['id']).expect(404)


def test_endpoints(cloud, service):
    made = endpoint(cloud, service, name='n').expect(201).json['endpoint']
    assert made['region'] == made['region_id'] == 'RegionOne' and made['name'] == 'n' and made['enabled'] is True
    admin = cloud.admin()
    assert len(admin.get(f'/v3/endpoints?service_id={service["id"]}&interface=public').json['endpoints']) == 1
    assert admin.get('/v3/endpoints?interface=admin&region_id=x').json['endpoints'] == []
    endpoint(cloud, service, region_id=None, region='Elsewhere').expect(201)
    admin.get('/v3/regions/Elsewhere').expect(200)
    for bad in ({'url': 'no url'}, {'url': 'http://x/$(password)s'}, {'interface': 'x'}, {'service_id': 'x'}, {'region_id': 'x'},
                {'enabled': 'x'}):
        endpoint(cloud, service, **bad).expect(400)
    cloud.client().get('/v3/endpoints').expect(401)


def test_regions(cloud):
    admin = cloud.admin()
    admin.post('/v3/regions', {'region': {'id': 'a', 'description': 'x'}}).expect(201)
    admin.put('/v3/regions/b', {'region': {'parent_region_id': 'a'}}).expect(201)
    admin.put('/v3/regions/b', {'region': {}}).expect(409)
    admin.post('/v3/regions', {'region': {'parent_region_id': 'nowhere'}}).expect(404)
    admin.patch('/v3/regions/a', {'region': {'parent_region_id': 'b'}}).expect(400)
    assert [r['id'] for r in admin.get('/v3/regions?parent_region_id=a').json['regions']] == ['b']
    assert 'child regions' in admin.delete('/v3/regions/a').expect(409).json['error']['message']
    admin.delete('/v3/regions/RegionOne').expect(403)
    admin.delete('/v3/regions/b').expect(204)
    admin.delete('/v3/regions/a').expect(204)
    admin.get('/v3/regions/a').expect(404)


def test_endpoint_filter(cloud, service):
    admin = cloud.admin()
    seen = endpoint(cloud, service).json['endpoint']
    endpoint(cloud, service, interface='internal').expect(201)
    project_id = cloud.login().json['token']['project']['id']
    path = f'/v3/OS-EP-FILTER/projects/{project_id}/endpoints/{seen["id"]}'
    admin.head(path).expect(404)
    admin.put(path).expect(204)
    admin.head(path).expect(204)
    catalog = types(cloud)
    assert [each['id'] for each in catalog['compute']['endpoints']] == [seen['id']] and catalog['identity']['endpoints'] == []
    assert [p['id'] for p in admin.get(f'/v3/OS-EP-FILTER/endpoints/{seen["id"]}/projects').json['projects']] == [project_id]
    group = admin.post('/v3/OS-EP-FILTER/endpoint_groups', {'endpoint_group': {
        'name': 'g', 'filters': {'interface': 'internal'}}}).expect(201).json['endpoint_group']
    base = '/v3/OS-EP-FILTER/endpoint_groups/' + group['id']
    assert len(admin.get(base + '/endpoints').json['endpoints']) == 2
    admin.put(f'{base}/projects/{project_id}').expect(204)
    admin.get(f'{base}/projects/{project_id}').expect(200)
    assert len(types(cloud)['compute']['endpoints']) == 2
    assert len(admin.get(f'/v3/OS-EP-FILTER/projects/{project_id}/endpoints').json['endpoints']) == 3
    assert len(admin.get(f'/v3/OS-EP-FILTER/projects/{project_id}/endpoint_groups').json['endpoint_groups']) == 1
    admin.patch(base, {'endpoint_group': {'filters': {'interface': 'admin'}}}).expect(200)
    assert len(types(cloud)['compute']['endpoints']) == 1
    admin.delete(f'{base}/projects/{project_id}').expect(204)
    admin.delete(base).expect(204)
    admin.delete(path).expect(204)
    admin.delete(path).expect(404)
    assert len(types(cloud)['compute']['endpoints']) == 2
    admin.post('/v3/OS-EP-FILTER/endpoint_groups', {'endpoint_group': {'name': 'g', 'filters': {'url': 'x'}}}).expect(400)


def test_policies(cloud, service):
    admin = cloud.admin()
    made = admin.post('/v3/policies', {'policy': {'type': 'application/json', 'blob': {'a': 1}}}).expect(201).json['policy']
    assert made['blob'] == {'a': 1}
    point = endpoint(cloud, service).json['endpoint']
    base = f'/v3/policies/{made["id"]}/OS-ENDPOINT-POLICY'
    ask = f'/v3/endpoints/{point["id"]}/OS-ENDPOINT-POLICY/policy'
    admin.get(ask).expect(404)
    for link in (f'/services/{service["id"]}', f'/services/{service["id"]}/regions/RegionOne', f'/endpoints/{point["id"]}'):
        admin.put(base + link).expect(204)
        admin.head(base + link).expect(204)
        assert admin.get(ask).expect(200).json['policy']['id'] == made['id']
        assert [e['id'] for e in admin.get(base + '/endpoints').json['endpoints']] == [point['id']]
        admin.delete(base + link).expect(204)
        admin.head(base + link).expect(404)
    assert admin.patch('/v3/policies/' + made['id'], {'policy': {'blob': 'text'}}).json['policy']['blob'] == 'text'
    admin.delete('/v3/policies/' + made['id']).expect(204)
    admin.get('/v3/policies/' + made['id']).expect(404)


def test_domain_options(cloud):
    admin = cloud.admin()
    base = '/v3/domains/default/config'
    admin.get(base).expect(404)
    config = {'ldap': {'url': 'ldap://x', 'password': 'hidden'}, 'identity': {'driver': 'ldap'}}
    shown = {'ldap': {'url': 'ldap://x'}, 'identity': {'driver': 'ldap'}}
    assert admin.put(base, {'config': config}).expect(201).json['config'] == shown
    assert admin.put(base, {'config': config}).expect(200).json['config'] == shown
    assert admin.get(base + '/ldap/url').json['config'] == {'url': 'ldap://x'}
    admin.get(base + '/ldap/password').expect(404)
    admin.patch(base + '/ldap/url', {'config': {'url': 'ldap://y'}}).expect(200)
    assert admin.get(base + '/ldap').json['config'] == {'ldap': {'url': 'ldap://y'}}
    admin.patch(base + '/ldap', {'config': {'identity': {'driver': 'sql'}}}).expect(403)
    for bad in ({}, {'no': {'x': 1}}, {'ldap': {'no': 1}}, {'ldap': 'x'}):
        admin.patch(base, {'config': bad}).expect(403)
    admin.delete(base + '/identity/driver').expect(204)
    admin.get(base + '/identity').expect(404)
    assert admin.get('/v3/domains/config/ldap/url/default').json['config'] == {'url': 'ldap://localhost'}
    assert 'identity' in admin.get('/v3/domains/config/default').json['config']
    admin.delete(base).expect(204)
    admin.get(base).expect(404)
    with cloud.db.read() as connection:
        assert connection.exec_driver_sql('SELECT count(*) FROM domain_options').scalar() == 0


def test_a_domain_limits_how_much_is_listed(cloud):
    admin = cloud.admin()
    domain_id = admin.post('/v3/domains', {'domain': {'name': 'd'}}).expect(201).json['domain']['id']
    for number in range(4):
        cloud.user(f'u{number}', domain_id=domain_id)
        admin.post('/v3/groups', {'group': {'name': f'g{number}', 'domain_id': domain_id}}).expect(201)
    admin.put(f'/v3/domains/{domain_id}/config', {'config': {'identity': {'list_limit': 3}}}).expect(201)
    for name in ('users', 'groups'):
        path = f'/v3/{name}?domain_id={domain_id}'
        first = admin.get(path).expect(200).json
        assert len(first[name]) == 3 and first['truncated'] is True
        rest = admin.get(first['links']['next'].removeprefix('http://localhost')).expect(200).json
        assert len({each['id'] for each in first[name] + rest[name]}) == 4
        assert len(admin.get(path + '&limit=4').expect(200).json[name]) == 4
        assert 'truncated' not in admin.get(f'{path}&name={name[0]}1').expect(200).json
        assert len(admin.get(f'/v3/{name}').expect(200).json[name]) >= 4
    admin.patch(f'/v3/domains/{domain_id}/config', {'config': {'identity': {'list_limit': None}}}).expect(200)
    assert len(admin.get(f'/v3/users?domain_id={domain_id}').expect(200).json['users']) == 4


@pytest.mark.parametrize('model', ['flat', 'strict_two_level'])
def test_unified_limits(make_cloud, service, model):
    cloud = make_cloud(('unified_limit', 'enforcement_model', model))
    admin = cloud.admin()
    service = admin.post('/v3/services', {'service': {'type': 'compute'}}).json['service']
    body = {'service_id': service['id'], 'resource_name': 'cores', 'default_limit': 10, 'region_id': 'RegionOne'}
    made = admin.post('/v3/registered_limits', {'registered_limits': [body]}).expect(201).json['registered_limits'][0]
    admin.post('/v3/registered_limits', {'registered_limits': [body]}).expect(409)
    admin.post('/v3/registered_limits', {'registered_limits': [{**body, 'service_id': 'x'}]}).expect(400)
    project = cloud.project('p')
    own = {'service_id': service['id'], 'resource_name': 'cores', 'region_id': 'RegionOne', 'project_id': project['id']}
    big = admin.post('/v3/limits', {'limits': [{**own, 'resource_limit': 20}]})
    if model == 'strict_two_level':
        big.expect(403)
        admin.post('/v3/limits',
                   {'limits': [{**own, 'project_id': None, 'domain_id': 'default', 'resource_limit': 30}]}).expect(201)
        big = admin.post('/v3/limits', {'limits': [{**own, 'resource_limit': 20}]})
    limit = big.expect(201).json['limits'][0]
    assert limit['project_id'] == project['id'] and limit['domain_id'] is None and limit['resource_name'] == 'cores'
    admin.post('/v3/limits', {'limits': [{**own, 'resource_limit': 1}]}).expect(409)
    admin.post('/v3/limits', {'limits': [{**own, 'resource_name': 'x', 'resource_limit': 1}]}).expect(400)
    admin.post('/v3/limits', {'limits': [{**own, 'domain_id': 'default', 'resource_limit': 1}]}).expect(400)
    assert admin.patch('/v3/limits/' + limit['id'], {'limit': {'resource_limit': 5}}).json['limit']['resource_limit'] == 5
    assert admin.get('/v3/limits/model').json['model']['name'] == model
    user = cloud.user('ann')
    cloud.grant(user['id'], 'reader', project['id'])
    ann = cloud.client(cloud.login('ann', project=project['id']))
    assert [each['id'] for each in ann.get('/v3/limits').json['limits']] == [limit['id']]
    ann.get('/v3/limits/' + limit['id']).expect(200)
    other = cloud.client(cloud.login('ann', project=None))
    assert other.get('/v3/limits').json['limits'] == []
    other.get('/v3/limits/' + limit['id']).expect(403)
    shown = admin.get(f'/v3/projects/{project["id"]}?include_limits').expect(200).json['project']
    assert 'limits' not in shown and 'parents' not in shown
    if model == 'strict_two_level':
        # The domain is one of the two levels.
        admin.post('/v3/projects', {'project': {'name': 'c', 'parent_id': project['id']}}).expect(403)
    else:
        child = cloud.project('c', parent_id=project['id'], tags=['blue'])
        path = f'/v3/projects/{child["id"]}?parents_as_list&include_limits'
        shown = admin.get(path).expect(200).json['project']
        parents = {each['project']['id']: each['project']['limits'] for each in shown['parents']}
        assert [each['id'] for each in parents[project['id']]] == [limit['id']] and parents['default'] == []
        assert 'parents' not in admin.get(path.replace('list', 'list=0')).json['project']
        path = f'/v3/projects/{project["id"]}?subtree_as_list&include_limits'
        [below] = admin.get(path).expect(200).json['project']['subtree']
        assert below['project']['limits'] == [] and below['project']['tags'] == ['blue']
    admin.delete('/v3/registered_limits/' + made['id']).expect(403)
    admin.patch('/v3/registered_limits/' + made['id'], {'registered_limit': {'resource_name': 'x'}}).expect(403)
    admin.patch('/v3/registered_limits/' + made['id'], {'registered_limit': {'default_limit': 11}}).expect(200)
    for each in admin.get('/v3/limits').json['limits']:
        admin.delete('/v3/limits/' + each['id']).expect(204)
    admin.delete('/v3/registered_limits/' + made['id']).expect(204)


def test_version_documents_and_json_home(cloud):
    client = testing.Client(cloud.pipeline)
    answer = client.get('/').expect(300)
    assert answer.json['versions']['values'][0]['links'][0]['href'] == 'http://localhost/v3/'
    assert client.get('/v3').expect(200).json['version']['id'].startswith('v3.')
    assert client.get('/v3/').expect(200).json['version']['status'] == 'stable'
    home = client.get('/v3', headers={'Accept': 'application/json-home'}).expect(200)
    assert home.headers['Content-Type'] == 'application/json-home'
    user = home.json['resources']['https://docs.openstack.org/api/openstack-identity/3/rel/user']
    assert user['href-template'] == '/v3/users/{user_id}'
    assert client.get('/openapi.json').expect(200).json['openapi'] == '3.1.0'
    assert client.get('/nothing').expect(404).json['error']['title'] == 'Not Found'


def test_a_service_has_a_name_though_nobody_gave_it_one(cloud):
    made = cloud.admin().post('/v3/services', {'service': {'type': 'bakery'}}).expect(201).json['service']
    assert made['name'] == '' and cloud.admin().get('/v3/services/' + made['id']).json['service']['name'] == ''


def test_an_endpoint_group_has_filters(cloud):
    path = '/v3/OS-EP-FILTER/endpoint_groups'
    refused = cloud.admin().post(path, {'endpoint_group': {'name': 'all', 'filters': {}}}).expect(400)
    assert 'endpoint_group.filters' in refused.json['error']['message']
    made = cloud.admin().post(path, {'endpoint_group': {'name': 'some', 'filters': {'interface': 'public'}}}).expect(201)
    cloud.admin().patch(f"{path}/{made.json['endpoint_group']['id']}", {'endpoint_group': {'filters': {}}}).expect(200)


def test_the_association_of_an_endpoint_group_has_a_link(cloud):
    admin, project = cloud.admin(), cloud.project('home')
    made = admin.post('/v3/OS-EP-FILTER/endpoint_groups', {'endpoint_group': {'name': 'a', 'filters': {'interface': 'public'}}})
    path = f"/v3/OS-EP-FILTER/endpoint_groups/{made.expect(201).json['endpoint_group']['id']}/projects/{project['id']}"
    admin.put(path).expect(204)
    assert admin.get(path).expect(200).json['project_endpoint_group']['links']['self'].endswith(path)
