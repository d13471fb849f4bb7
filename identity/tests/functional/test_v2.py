"""Version 2.0, as clients of its age speak it."""
import base64
import hashlib
import hmac

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
    for path in ('/v2.0/certificates/ca', '/v2.0/certificates/signing'):
        cloud.client().get(path).expect(410)


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


def test_ec2(cloud, old):
    from kodiak.identity import ec2
    admin_id = cloud.admin().get('/v3/users?name=admin').json['users'][0]['id']
    tenant = old.get('/v2.0/tenants').json['tenants'][0]
    path = f'/v2.0/users/{admin_id}/credentials/OS-EC2'
    made = old.post(path, {'tenant_id': tenant['id']}).expect(201).json['credential']
    assert made['user_id'] == admin_id and made['tenant_id'] == tenant['id'] and 'links' not in made
    assert old.get(path).expect(200).json == {'credentials': [made]}
    assert old.get(f'{path}/{made["access"]}').expect(200).json == {'credential': made}
    request = {'access': made['access'], 'host': 'h', 'verb': 'GET', 'path': '/', 'params': {'SignatureVersion': '2'}}
    request['signature'] = ec2._signature(made['secret'], request, dict(request['params']))
    access = old.post('/v2.0/ec2tokens', {'ec2Credentials': request}).expect(200).json['access']
    assert access['user']['id'] == admin_id and access['token']['tenant']['id'] == tenant['id']
    old.post('/v2.0/ec2tokens', {'credential': {**request, 'signature': 'x'}}).expect(401)
    cloud.client().post('/v2.0/ec2tokens', {'credentials': request}).expect(401)
    text = b'GET\n\n\nSat, 21 Nov 2026 00:00:00 GMT\n/bucket'
    signed = {'access': made['access'], 'token': base64.urlsafe_b64encode(text).decode(), 'signature': base64.b64encode(
        hmac.new(made['secret'].encode(), text, hashlib.sha1).digest()).decode()}
    assert old.post('/v2.0/s3tokens', {'credentials': signed}).expect(200).json['access']['user']['id'] == admin_id
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    ann = cloud.user('ann', domain_id=domain_id)
    old.get(f'/v2.0/users/{ann["id"]}/credentials/OS-EC2').expect(404)
    old.delete(f'{path}/{made["access"]}').expect(204)
    old.get(f'{path}/{made["access"]}').expect(404)


def test_the_client_of_its_age(cloud, server):
    keystoneclient = pytest.importorskip('keystoneclient.v2_0.client')
    from keystoneauth1 import session
    from keystoneauth1.identity import v2
    auth = v2.Password(server + '/v2.0', username='admin', password='correct horse', tenant_name='admin')
    old = keystoneclient.Client(session=session.Session(auth), endpoint_override=server + '/v2.0')
    tenant = old.tenants.create('t', 'described')
    ann = old.users.create('ann', 'pw', 'a@b', tenant_id=tenant.id)
    role = old.roles.create('cook')
    old.roles.add_user_role(ann, role, tenant)
    assert {each.name for each in old.roles.roles_for_user(ann, tenant)} == {'cook', 'member', 'reader'}
    assert [each.name for each in old.tenants.list_users(tenant)] == ['ann']
    old.roles.remove_user_role(ann, role, tenant)
    old.users.update_password(ann, 'new')
    mine = session.Session(v2.Password(server + '/v2.0', username='ann', password='new', tenant_name='t'))
    hers = keystoneclient.Client(session=mine, endpoint_override=server + '/v2.0')
    assert [each.name for each in hers.tenants.list()] == ['t']
    hers.users.update_own_password('new', 'newer')
    made = old.ec2.create(ann.id, tenant.id)
    assert [each.access for each in old.ec2.list(ann.id)] == [made.access]
    assert old.ec2.get(ann.id, made.access).secret == made.secret
    old.ec2.delete(ann.id, made.access)
    service = old.services.create('nova', 'compute', 'd')
    endpoint = old.endpoints.create('RegionOne', service.id, 'http://p', 'http://a', 'http://i')
    assert endpoint.id in [each.id for each in old.endpoints.list()] and service.id in [each.id for each in old.services.list()]
    assert {each.alias for each in old.extensions.list()} == {'OS-KSADM', 'OS-KSCRUD', 'OS-EC2'}
    token = session.Session(v2.Password(server + '/v2.0', username='ann', password='newer', tenant_name='t')).get_token()
    assert old.tokens.validate(token).user['username'] == 'ann'
    old.tokens.delete(token)
    with pytest.raises(Exception, match='404'):
        old.tokens.validate(token)
    old.users.update_enabled(ann, False)
    assert old.users.get(ann.id).enabled is False
    for manager, what in ((old.endpoints, endpoint), (old.services, service), (old.users, ann), (old.roles, role),
                          (old.tenants, tenant)):
        manager.delete(what.id)
    assert 'ann' not in [each.name for each in old.users.list()]


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
