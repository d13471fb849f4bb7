import base64
import datetime

import pytest

from kodiak.common import testing


@pytest.fixture
def ann(cloud):
    """A client of a member of a project, with ``id`` and ``project_id``."""
    user, project = cloud.user('ann'), cloud.project('p')
    cloud.grant(user['id'], 'member', project['id'])
    client = cloud.client(cloud.login('ann', project=project['id']))
    client.id, client.project_id = user['id'], project['id']
    client.path = f'/v3/users/{user["id"]}/application_credentials'
    return client


def make(client, **more):
    return client.post(client.path, {'application_credential': {'name': 'robot', **more}})


def log_in(cloud, **by):
    auth = {'identity': {'methods': ['application_credential'], 'application_credential': by}}
    return testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': auth})


def test_life(cloud, ann):
    made = make(ann, description='x').expect(201).json['application_credential']
    assert made['project_id'] == ann.project_id and made['unrestricted'] is False and made['expires_at'] is None
    assert {role['name'] for role in made['roles']} == {'member', 'reader'}
    make(ann).expect(409)
    shown = ann.get(f'{ann.path}/{made["id"]}').expect(200).json['application_credential']
    assert 'secret' not in shown and shown['name'] == 'robot'
    assert len(ann.get(ann.path + '?name=robot').json['application_credentials']) == 1
    token = log_in(cloud, id=made['id'], secret=made['secret']).expect(201)
    body = token.json['token']
    assert body['application_credential'] == {'id': made['id'], 'name': 'robot', 'restricted': True}
    assert body['project']['id'] == ann.project_id and body['methods'] == ['application_credential']
    log_in(cloud, name='robot', user={'name': 'ann', 'domain': {'name': 'Default'}}, secret=made['secret']).expect(201)
    for wrong in ({'id': made['id'], 'secret': 'x'}, {'id': 'x', 'secret': 'x'},
                  {'name': 'x', 'user': {'id': ann.id}, 'secret': 'x'}):
        log_in(cloud, **wrong).expect(401)
    log_in(cloud, secret='x').expect(400)
    robot = cloud.client(token)
    robot.get('/v3/auth/projects').expect(200)
    robot.path = ann.path
    make(robot, name='second').expect(403)
    robot.delete(f'{ann.path}/{made["id"]}').expect(403)
    ann.delete(f'{ann.path}/{made["id"]}').expect(204)
    robot.get('/v3/auth/projects').expect(401)
    ann.get(f'{ann.path}/{made["id"]}').expect(404)
    log_in(cloud, id=made['id'], secret=made['secret']).expect(401)


def test_of_another_user(cloud, ann):
    made = make(ann).json['application_credential']
    cloud.user('bob')
    bob = cloud.client(cloud.login('bob', project=None))
    bob.get(ann.path).expect(403)
    bob.get(f'{ann.path}/{made["id"]}').expect(403)
    bob.get(f'{ann.path}/nothing').expect(403)
    bob.delete(f'{ann.path}/{made["id"]}').expect(403)
    cloud.admin().post(ann.path, {'application_credential': {'name': 'x'}}).expect(403)
    cloud.admin().get(f'{ann.path}/{made["id"]}').expect(200)


def test_its_token_cannot_be_widened(cloud, ann):
    made = make(ann, unrestricted=True).json['application_credential']
    text = log_in(cloud, id=made['id'], secret=made['secret']).headers['X-Subject-Token']
    exchange = lambda **scope: testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': {  # noqa: E731
        'identity': {'methods': ['token'], 'token': {'id': text}}, **scope}})
    exchange(scope={'project': {'id': ann.project_id}}).expect(403)
    again = exchange().expect(201)
    assert again.json['token']['application_credential']['id'] == made['id']
    assert again.json['token']['roles'] == cloud.client(text).get('/v3/auth/tokens', headers={
        'X-Subject-Token': text}).json['token']['roles']
    robot = cloud.client(again)
    robot.path = ann.path
    make(robot, name='second').expect(201)
    asked = {'identity': {'methods': ['application_credential'], 'application_credential': {
        'id': made['id'], 'secret': made['secret']}}, 'scope': {'project': {'id': ann.project_id}}}
    testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': asked}).expect(401)


def test_roles(cloud, ann):
    made = make(ann, roles=[{'name': 'reader'}]).expect(201).json['application_credential']
    assert [role['name'] for role in made['roles']] == ['reader']
    token = log_in(cloud, id=made['id'], secret=made['secret']).expect(201)
    assert [role['name'] for role in token.json['token']['roles']] == ['reader']
    make(ann, name='x', roles=[{'name': 'admin'}]).expect(400)
    make(ann, name='x', roles=[{'name': 'nothing'}]).expect(404)
    cloud.admin().delete(f'/v3/projects/{ann.project_id}/users/{ann.id}/roles/{cloud.role_id("member")}').expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    log_in(cloud, id=made['id'], secret=made['secret']).expect(401)


def test_end(cloud, ann):
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)).isoformat()
    made = make(ann, expires_at=soon).expect(201).json['application_credential']
    token = log_in(cloud, id=made['id'], secret=made['secret']).expect(201).json['token']
    assert token['expires_at'].startswith(made['expires_at'][:19])
    for bad in ('2001-01-01T00:00:00Z', 'tomorrow'):
        make(ann, name='x', expires_at=bad).expect(400)


def test_access_rules(cloud, ann):
    rules = [{'service': 'identity', 'method': 'GET', 'path': '/v3/auth/projects'}]
    made = make(ann, access_rules=rules).expect(201).json['application_credential']
    rule = made['access_rules'][0]
    robot = cloud.client(log_in(cloud, id=made['id'], secret=made['secret']))
    robot.get('/v3/auth/projects').expect(200)
    robot.get('/v3/auth/domains').expect(401)
    path = f'/v3/users/{ann.id}/access_rules'
    assert [each['id'] for each in ann.get(path).expect(200).json['access_rules']] == [rule['id']]
    assert ann.get(f'{path}/{rule["id"]}').expect(200).json['access_rule']['path'] == '/v3/auth/projects'
    ann.delete(f'{path}/{rule["id"]}').expect(403)
    again = make(ann, name='again', access_rules=[{'id': rule['id']}]).expect(201).json['application_credential']
    assert again['access_rules'][0]['id'] == rule['id']
    make(ann, name='x', access_rules=[{'id': 'nothing'}]).expect(404)
    make(ann, name='x', access_rules=[{'path': '/x'}]).expect(400)
    for each in (made, again):
        ann.delete(f'{ann.path}/{each["id"]}').expect(204)
    ann.delete(f'{path}/{rule["id"]}').expect(204)
    ann.get(f'{path}/{rule["id"]}').expect(404)


def test_a_middleware_that_knows_no_access_rules_is_told_that_the_token_is_bad(cloud, ann):
    made = make(ann, access_rules=[]).expect(201).json['application_credential']
    text = log_in(cloud, id=made['id'], secret=made['secret']).headers['X-Subject-Token']
    admin = cloud.admin()
    admin.get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(401)
    admin.get('/v3/auth/tokens', headers={'X-Subject-Token': text, 'OpenStack-Identity-Access-Rules': '1'}).expect(200)


def test_oauth2(cloud, ann):
    made = make(ann).json['application_credential']
    basic = 'Basic ' + base64.b64encode(f'{made["id"]}:{made["secret"]}'.encode()).decode()
    client = cloud.client()
    answer = client.post('/v3/OS-OAUTH2/token', data='grant_type=client_credentials', headers={
        'Authorization': basic, 'Content-Type': 'application/x-www-form-urlencoded'}).expect(200)
    assert answer.json['token_type'] == 'Bearer' and answer.headers['Cache-Control'] == 'no-store'
    cloud.client(answer.json['access_token']).get('/v3/auth/projects').expect(200)
    bad = client.post('/v3/OS-OAUTH2/token', data='grant_type=client_credentials&client_id=x&client_secret=y').expect(401)
    assert bad.json['error'] == 'invalid_client' and 'WWW-Authenticate' in bad.headers
    assert client.post('/v3/OS-OAUTH2/token', data='grant_type=password').expect(400).json['error'] == 'unsupported_grant_type'
    assert client.post('/v3/OS-OAUTH2/token', data='').expect(400).json['error'] == 'invalid_request'


def test_who_has_access_rules_can_be_deleted(cloud, ann):
    rules = [{'service': 'compute', 'method': 'GET', 'path': '/v2.1/servers'}]
    made = make(ann, access_rules=rules).expect(201).json['application_credential']
    admin = cloud.admin()
    domain_id = admin.post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    cid, home = cloud.user('cid', domain_id=domain_id), cloud.project('home', domain_id=domain_id)
    cloud.grant(cid['id'], 'member', home['id'])
    client = cloud.client(cloud.login(cid['id'], project=home['id']))
    client.path = f'/v3/users/{cid["id"]}/application_credentials'
    make(client, access_rules=rules).expect(201)
    admin.delete('/v3/users/' + ann.id).expect(204)
    log_in(cloud, id=made['id'], secret=made['secret']).expect(401)
    admin.patch('/v3/domains/' + domain_id, {'domain': {'enabled': False}}).expect(200)
    admin.delete('/v3/domains/' + domain_id).expect(204)
    admin.get('/v3/users/' + cid['id']).expect(404)
