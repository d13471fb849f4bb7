import base64
import datetime
import hashlib
import hmac
import json

import pytest
import sqlalchemy as sa

from kodiak.identity import crypt, ec2, models
from kodiak.identity.login import totp


@pytest.fixture
def ann(cloud):
    user, project = cloud.user('ann'), cloud.project('p')
    cloud.grant(user['id'], 'member', project['id'])
    client = cloud.client(cloud.login('ann', project=project['id']))
    client.id, client.project_id = user['id'], project['id']
    return client


def test_credentials(cloud, ann):
    made = ann.post('/v3/credentials', {'credential': {'type': 'cert', 'blob': 'secret text'}}).expect(201).json['credential']
    path = '/v3/credentials/' + made['id']
    assert ann.get(path).expect(200).json['credential']['blob'] == 'secret text'
    with cloud.db.read() as connection:
        assert 'secret' not in connection.execute(sa.select(models.credentials.c.blob)).scalar()
    cloud.user('bob')
    bob = cloud.client(cloud.login('bob', project=None))
    bob.get(path).expect(403)
    bob.patch(path, {'credential': {'blob': 'x'}}).expect(403)
    bob.delete(path).expect(403)
    bob.get('/v3/credentials/nothing').expect(403)
    assert bob.get('/v3/credentials').json['credentials'] == []
    bob.post('/v3/credentials', {'credential': {'type': 'cert', 'blob': 'x', 'user_id': ann.id}}).expect(403)
    ann.patch(path, {'credential': {'user_id': 'other'}}).expect(403)
    assert len(cloud.admin().get(f'/v3/credentials?user_id={ann.id}').json['credentials']) == 1
    assert ann.patch(path, {'credential': {'blob': 'new'}}).expect(200).json['credential']['blob'] == 'new'
    ann.delete(path).expect(204)
    ann.get(path).expect(403)
    cloud.admin().get(path).expect(404)


def test_ec2_credentials(cloud, ann):
    path = f'/v3/users/{ann.id}/credentials/OS-EC2'
    made = ann.post(path, {'tenant_id': ann.project_id}).expect(201).json['credential']
    assert made['tenant_id'] == ann.project_id and made['secret']
    assert ann.get(f'{path}/{made["access"]}').expect(200).json['credential'] == made
    assert len(ann.get(path).json['credentials']) == 1
    listed = ann.get('/v3/credentials?type=ec2').json['credentials'][0]
    assert json.loads(listed['blob'])['access'] == made['access']
    assert listed['id'] == hashlib.sha256(made['access'].encode()).hexdigest()
    ann.post('/v3/credentials', {'credential': {'type': 'ec2', 'project_id': ann.project_id, 'blob': listed['blob']}}).expect(409)
    ann.post('/v3/credentials', {'credential': {'type': 'ec2', 'blob': '{}', 'project_id': ann.project_id}}).expect(400)
    ann.post('/v3/credentials', {'credential': {'type': 'ec2', 'blob': '{"access": "a", "secret": "b"}'}}).expect(400)
    ann.post(path, {'tenant_id': 'nothing'}).expect(404)
    ann.post(f'/v3/users/{"1" * 32}/credentials/OS-EC2', {'tenant_id': ann.project_id}).expect(403)
    ann.delete(f'{path}/{made["access"]}').expect(204)
    ann.get(f'{path}/{made["access"]}').expect(404)


def test_ec2_log_in(cloud, ann):
    made = ann.post(f'/v3/users/{ann.id}/credentials/OS-EC2', {'tenant_id': ann.project_id}).json['credential']
    request = {'access': made['access'], 'host': 'api:8773', 'verb': 'GET', 'path': '/', 'params': {
        'SignatureVersion': '2', 'SignatureMethod': 'HmacSHA256', 'Action': 'Test', 'AWSAccessKeyId': made['access']}}
    request['signature'] = ec2._signature(made['secret'], request, dict(request['params']))
    admin = cloud.admin()
    answer = admin.post('/v3/ec2tokens', {'credentials': request}).expect(200)
    assert answer.json['token']['user']['id'] == ann.id and answer.json['token']['project']['id'] == ann.project_id
    assert answer.json['token']['methods'] == ['ec2credential']
    cloud.client(answer).get('/v3/auth/projects').expect(200)
    admin.post('/v3/ec2tokens', {'credentials': {**request, 'signature': 'x'}}).expect(401)
    admin.post('/v3/ec2tokens', {'credentials': {**request, 'access': 'x'}}).expect(401)
    ann.post('/v3/ec2tokens', {'credentials': request}).expect(403)
    cloud.client().post('/v3/ec2tokens', {'credentials': request}).expect(401)


def test_a_recorded_ec2_request_is_of_use_for_a_while_only(cloud, ann):
    made = ann.post(f'/v3/users/{ann.id}/credentials/OS-EC2', {'tenant_id': ann.project_id}).json['credential']
    admin, now = cloud.admin(), datetime.datetime.now(datetime.UTC)

    def old(minutes, form='%Y-%m-%dT%H:%M:%SZ'):
        return (now - datetime.timedelta(minutes=minutes)).strftime(form)

    def attempt(request):
        request.update(access=made['access'], host='h', verb='GET', path='/')
        request['signature'] = ec2._signature(made['secret'], request, dict(request['params']))
        return admin.post('/v3/ec2tokens', {'credentials': request})

    def version4(minutes):
        stamp = old(minutes, '%Y%m%dT%H%M%SZ')
        credential = f'{made["access"]}/{stamp[:8]}/RegionOne/ec2/aws4_request'
        return {'params': {}, 'body_hash': 'x', 'headers': {'X-Amz-Date': stamp, 'Authorization': (
            f'AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature=x')}}
    for form in ('%Y-%m-%dT%H:%M:%SZ', '%Y-%m-%dT%H:%M:%S', '%Y-%m-%dT%H:%M:%S.000Z'):
        attempt({'params': {'SignatureVersion': '2', 'Timestamp': old(14, form)}}).expect(200)
        attempt({'params': {'SignatureVersion': '2', 'Timestamp': old(16, form)}}).expect(401)
    attempt({'params': {'SignatureVersion': '2', 'Timestamp': 'soon'}}).expect(401)
    attempt(version4(14)).expect(200)
    attempt(version4(16)).expect(401)
    # What version 4 doesn't sign doesn't count.
    attempt({**version4(16), 'params': {'Timestamp': old(0)}}).expect(401)


def test_s3_log_in(cloud, ann):
    made = ann.post(f'/v3/users/{ann.id}/credentials/OS-EC2', {'tenant_id': ann.project_id}).json['credential']
    text = b'GET\n\n\nSat, 21 Nov 2026 00:00:00 GMT\n/bucket'
    signature = base64.b64encode(hmac.new(made['secret'].encode(), text, hashlib.sha1).digest()).decode()
    request = {'access': made['access'], 'token': base64.urlsafe_b64encode(text).decode(), 'signature': signature}
    admin = cloud.admin()
    admin.post('/v3/s3tokens', {'credentials': request}).expect(200)
    admin.post('/v3/s3tokens', {'credentials': {**request, 'signature': 'x'}}).expect(401)
    scope = '20261121/RegionOne/s3/aws4_request'
    text = f'AWS4-HMAC-SHA256\n20261121T000000Z\n{scope}\nabc'.encode()
    key = b'AWS4' + made['secret'].encode()
    for part in scope.split('/'):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    request.update(token=base64.b64encode(text).decode(), signature=hmac.new(key, text, hashlib.sha256).hexdigest())
    admin.post('/v3/s3tokens', {'credentials': request}).expect(200)


def test_an_ec2_credential_of_an_application_credential_is_bound_to_it(cloud, ann):
    path = f'/v3/users/{ann.id}/application_credentials'
    robot = ann.post(path, {'application_credential': {'name': 'r', 'unrestricted': True, 'roles': [{'name': 'reader'}]}}
                     ).json['application_credential']
    auth = {'identity': {'methods': ['application_credential'], 'application_credential': {
        'id': robot['id'], 'secret': robot['secret']}}}
    client = cloud.client(cloud.client().post('/v3/auth/tokens', {'auth': auth}))
    client.get('/v3/credentials').expect(200)
    other = cloud.project('other')
    client.post('/v3/credentials', {'credential': {'type': 'ec2', 'project_id': other['id'], 'blob':
                                                   '{"access": "a", "secret": "b"}'}}).expect(403)
    client.post('/v3/credentials', {'credential': {'type': 'ec2', 'project_id': ann.project_id, 'blob':
                                                   '{"access": "a", "secret": "b"}'}}).expect(201)
    request = {'access': 'a', 'host': 'h', 'verb': 'GET', 'path': '/', 'params': {'SignatureVersion': '2'}}
    request['signature'] = ec2._signature('b', request, dict(request['params']))
    token = cloud.admin().post('/v3/ec2tokens', {'credentials': request}).expect(200).json['token']
    assert [role['name'] for role in token['roles']] == ['reader']
    signed = cloud.client(cloud.admin().post('/v3/ec2tokens', {'credentials': request}).expect(200))
    signed.post(path, {'application_credential': {'name': 'more'}}).expect(403)
    signed.get('/v3/auth/projects').expect(200)
    ann.delete(f'{path}/{robot["id"]}').expect(204)
    cloud.admin().post('/v3/ec2tokens', {'credentials': request}).expect(401)


def test_credential_keys_rotate(cloud, ann):
    made = ann.post('/v3/credentials', {'credential': {'type': 'cert', 'blob': 'text'}}).json['credential']
    keys = cloud.core.crypt
    for _ in range(3):
        keys.advance()
        assert cloud.db.transact(crypt.encrypt_again, keys) == 1
        keys.retire()
    assert ann.get('/v3/credentials/' + made['id']).json['credential']['blob'] == 'text'


SECRET = base64.b32encode(b'12345678901234567890').decode()


def test_totp_codes_are_those_of_the_rfc():
    assert [totp.passcode(SECRET, counter) for counter in (1, 37037036, 37037037)] == ['287082', '081804', '050471']


def test_two_factors(cloud, ann, monkeypatch):
    admin = cloud.admin()
    ann.post('/v3/credentials', {'credential': {'type': 'totp', 'blob': SECRET}}).expect(201)
    admin.patch(f'/v3/users/{ann.id}', {'user': {'options': {
        'multi_factor_auth_enabled': True, 'multi_factor_auth_rules': [['password', 'totp']]}}}).expect(200)
    answer = cloud.login('ann', project=None).expect(401)
    receipt = answer.headers['Openstack-Auth-Receipt']
    assert answer.json['required_auth_methods'] == [['password', 'totp']]
    assert answer.json['receipt']['methods'] == ['password'] and answer.json['receipt']['user']['id'] == ann.id
    cloud.client(receipt).get('/v3/users').expect(401)
    cloud.login('ann', 'wrong', project=None).expect(401)
    now = [30 * 1000]
    monkeypatch.setattr(totp.time, 'time', lambda: now[0])
    code = totp.passcode(SECRET, 1000)
    by_code = lambda code, **headers: cloud.client().post('/v3/auth/tokens', {'auth': {'identity': {  # noqa: E731
        'methods': ['totp'], 'totp': {'user': {'id': ann.id, 'passcode': code}}}}}, headers=headers)
    monkeypatch.setattr(totp.time, 'time', lambda: now[0])
    by_code('000000', **{'Openstack-Auth-Receipt': receipt}).expect(401)
    monkeypatch.undo()
    import time
    code = totp.passcode(SECRET, int(time.time()) // 30)
    token = by_code(code, **{'Openstack-Auth-Receipt': receipt}).expect(201)
    assert sorted(token.json['token']['methods']) == ['password', 'totp']
    assert 'receipt' not in by_code(code, **{'Openstack-Auth-Receipt': receipt}).expect(401).json
    by_code(totp.passcode(SECRET, int(time.time()) // 30 - 1), **{'Openstack-Auth-Receipt': receipt[:-4] + 'AAAA'}).expect(401)
    again = cloud.client().post('/v3/auth/tokens', {'auth': {'identity': {
        'methods': ['token'], 'token': {'id': token.headers['X-Subject-Token']}}}}).expect(201)
    assert sorted(again.json['token']['methods']) == ['password', 'token', 'totp']
