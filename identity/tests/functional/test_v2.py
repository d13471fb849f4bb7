"""Version 2.0, as clients of its age speak it."""
import pytest

from kodiak.common import testing


def log_in(cloud, name='admin', password='correct horse', tenant='admin'):
    auth = {'passwordCredentials': {'username': name, 'password': password}}
    if tenant:
        auth['tenantName'] = tenant
    return testing.Client(cloud.pipeline).post('/v2.0/tokens', {'auth': auth})


@pytest.fixture
def old(cloud):
    """A client with a token of version 2.0."""
    return cloud.client(log_in(cloud).expect(200).json['access']['token']['id'])


def test_logging_in(cloud):
    access = log_in(cloud).expect(200).json['access']
    assert access['token']['tenant']['name'] == 'admin' and access['token']['expires'].endswith('Z')
    assert {'name': 'admin'} in access['user']['roles'] and access['user']['username'] == 'admin'
    endpoint = access['serviceCatalog'][0]['endpoints'][0]
    assert endpoint['publicURL'] == endpoint['adminURL'] == 'http://localhost/v3' and endpoint['region'] == 'RegionOne'
    unscoped = log_in(cloud, tenant=None).expect(200).json['access']
    assert 'tenant' not in unscoped['token'] and unscoped['serviceCatalog'] == []
    again = testing.Client(cloud.pipeline).post('/v2.0/tokens', {'auth': {
        'token': {'id': unscoped['token']['id']}, 'tenantId': access['token']['tenant']['id']}}).expect(200)
    assert again.json['access']['token']['tenant']['name'] == 'admin'
    log_in(cloud, password='wrong').expect(401)
    for bad in ({}, {'auth': {}}, {'auth': {'passwordCredentials': {'username': 'x'}}}):
        testing.Client(cloud.pipeline).post('/v2.0/tokens', bad).expect(400)


def test_other_domains_are_not_for_version_2(cloud):
    domain = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']
    user = cloud.user('ann', domain_id=domain['id'])
    log_in(cloud, 'ann', tenant=None).expect(401)
    testing.Client(cloud.pipeline).post('/v2.0/tokens', {'auth': {'passwordCredentials': {
        'userId': user['id'], 'password': 'correct horse'}}}).expect(401)
    cloud.admin().get('/v2.0/users/' + user['id']).expect(404)


def test_tokens(cloud, old):
    token = log_in(cloud).json['access']['token']['id']
    assert old.get('/v2.0/tokens/' + token).expect(200).json['access']['user']['name'] == 'admin'
    old.head('/v2.0/tokens/' + token).expect(200)
    old.get(f'/v2.0/tokens/{token}?belongsTo=other').expect(401)
    assert len(old.get(f'/v2.0/tokens/{token}/endpoints').json['endpoints']) == 1
    old.delete('/v2.0/tokens/' + token).expect(204)
    old.get('/v2.0/tokens/' + token).expect(404)
    old.get('/v2.0/tokens/revoked').expect(410)


def test_tenants(cloud, old):
    tenant = old.post('/v2.0/tenants', {'tenant': {'name': 't', 'description': 'd'}}).expect(200).json['tenant']
    assert tenant['enabled'] is True and 'domain_id' not in tenant
    path = '/v2.0/tenants/' + tenant['id']
    assert old.post(path, {'tenant': {'description': 'e'}}).expect(200).json['tenant']['description'] == 'e'
    assert old.get(path).json['tenant']['name'] == 't'
    assert [each['name'] for each in old.get('/v2.0/tenants').json['tenants']] == ['admin']
    everything = old.get('/v2.0/tenants', headers={'Host': 'localhost:35357'}).expect(200).json['tenants']
    assert sorted(each['name'] for each in everything) == ['admin', 't']
    assert old.get('/v2.0/tenants?name=t').json['tenant']['id'] == tenant['id']
    old.get('/v2.0/tenants?name=none').expect(404)
    old.post('/v2.0/tenants', {'tenant': {}}).expect(400)
    old.post('/v2.0/tenants', {'tenant': {'name': 't'}}).expect(409)
    old.delete(path).expect(204)
    old.get(path).expect(404)


def test_users_and_roles(cloud, old):
    tenant = old.post('/v2.0/tenants', {'tenant': {'name': 't'}}).json['tenant']
    user = old.post('/v2.0/users', {'user': {'name': 'ann', 'password': 'pw', 'email': 'a@b', 'tenantId': tenant['id']}}
                    ).expect(200).json['user']
    assert user['tenantId'] == tenant['id'] and user['email'] == 'a@b'
    ann = cloud.client(log_in(cloud, 'ann', 'pw', 't').expect(200).json['access']['token']['id'])
    assert [each['name'] for each in ann.get('/v2.0/tenants').json['tenants']] == ['t']
    ann.get('/v2.0/users').expect(403)
    ann.get('/v2.0/tenants', headers={'Host': 'localhost:35357'}).expect(403)
    assert 'ann' in [each['name'] for each in old.get('/v2.0/users').json['users']]
    assert [each['name'] for each in old.get(f'/v2.0/tenants/{tenant["id"]}/users').json['users']] == ['ann']
    role = old.post('/v2.0/OS-KSADM/roles', {'role': {'name': 'cook'}}).expect(200).json['role']
    path = f'/v2.0/tenants/{tenant["id"]}/users/{user["id"]}/roles'
    old.put(f'{path}/OS-KSADM/{role["id"]}').expect(200)
    assert {each['name'] for each in old.get(path).json['roles']} == {'member', 'reader', 'cook'}
    old.delete(f'{path}/OS-KSADM/{role["id"]}').expect(204)
    assert 'cook' in [each['name'] for each in old.get('/v2.0/OS-KSADM/roles').json['roles']]
    old.get('/v2.0/OS-KSADM/roles/' + role['id']).expect(200)
    old.delete('/v2.0/OS-KSADM/roles/' + role['id']).expect(204)
    old.put(f'/v2.0/users/{user["id"]}/OS-KSADM/password', {'user': {'password': 'new'}}).expect(200)
    log_in(cloud, 'ann', 'new', 't').expect(200)
    cloud.client().patch('/v2.0/OS-KSCRUD/users/' + user['id'], {'user': {'password': 'newer', 'original_password': 'new'}}
                         ).expect(200)
    log_in(cloud, 'ann', 'newer', 't').expect(200)
    assert old.put('/v2.0/users/' + user['id'], {'user': {'enabled': False}}).expect(200).json['user']['enabled'] is False
    log_in(cloud, 'ann', 'newer', 't').expect(401)
    assert old.get('/v2.0/users?name=ann').json['user']['id'] == user['id']
    old.delete('/v2.0/users/' + user['id']).expect(204)
    old.get('/v2.0/users/' + user['id']).expect(404)


def test_services_and_endpoints(cloud, old):
    service = old.post('/v2.0/OS-KSADM/services', {'OS-KSADM:service': {'name': 'nova', 'type': 'compute', 'description': 'd'}}
                       ).expect(200).json['OS-KSADM:service']
    assert service['description'] == 'd'
    made = old.post('/v2.0/endpoints', {'endpoint': {
        'service_id': service['id'], 'region': 'RegionOne', 'publicurl': 'http://p', 'internalurl': 'http://i',
        'adminurl': 'http://a'}}).expect(200).json['endpoint']
    assert (made['publicurl'], made['adminurl']) == ('http://p', 'http://a')
    catalog = {each['type']: each for each in log_in(cloud).json['access']['serviceCatalog']}
    assert catalog['compute']['endpoints'][0]['internalURL'] == 'http://i'
    assert made['id'] in [each['id'] for each in old.get('/v2.0/endpoints').json['endpoints']]
    old.delete('/v2.0/endpoints/' + made['id']).expect(204)
    old.delete('/v2.0/endpoints/' + made['id']).expect(404)
    old.get('/v2.0/OS-KSADM/services/' + service['id']).expect(200)
    assert service['id'] in [each['id'] for each in old.get('/v2.0/OS-KSADM/services').json['OS-KSADM:services']]
    old.delete('/v2.0/OS-KSADM/services/' + service['id']).expect(204)


def test_versions_and_extensions(cloud):
    client = testing.Client(cloud.pipeline)
    assert client.get('/v2.0').expect(200).json['version']['id'] == 'v2.0'
    assert {each['id'] for each in client.get('/').json['versions']['values']} == {'v3.14', 'v2.0'}
    assert len(client.get('/v2.0/extensions').json['extensions']['values']) == 3
    client.get('/v2.0/extensions/OS-KSADM').expect(200)
    client.get('/v2.0/extensions/none').expect(404)


def test_a_token_in_a_path_is_not_logged(cloud, old, caplog):
    import logging
    token = log_in(cloud).json['access']['token']['id']
    with caplog.at_level(logging.INFO, 'kodiak.access'):
        old.get('/v2.0/tokens/' + token).expect(200)
        testing.Client(cloud.pipeline).get('/v2.0/tokens/' + token).expect(401)
    assert 'GET /v2.0/tokens/***' in caplog.text and token not in caplog.text
