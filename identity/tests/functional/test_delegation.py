import datetime
import urllib.parse

import pytest

from kodiak.common import testing
from kodiak.identity import oauth


@pytest.fixture
def pair(cloud):
    """Clients of ann (member of a project) and bob (of none)."""
    ann, bob, project = cloud.user('ann'), cloud.user('bob'), cloud.project('p')
    cloud.grant(ann['id'], 'member', project['id'])
    one, two = cloud.client(cloud.login('ann', project=project['id'])), cloud.client(cloud.login('bob', project=None))
    one.id, two.id, one.project_id = ann['id'], bob['id'], project['id']
    return one, two


def trust(ann, bob, **more):
    return ann.post('/v3/OS-TRUST/trusts', {'trust': {
        'trustor_user_id': ann.id, 'trustee_user_id': bob.id, 'impersonation': False, 'project_id': ann.project_id,
        'roles': [{'name': 'member'}], **more}})


def use(cloud, trust_id, who='bob'):
    return cloud.login(who, scope={'OS-TRUST:trust': {'id': trust_id}})


def test_a_trust(cloud, pair):
    ann, bob = pair
    made = trust(ann, bob, note='x').expect(201).json['trust']
    assert made['roles'][0]['name'] == 'member' and made['expires_at'] is None and made['deleted_at'] is None
    path = '/v3/OS-TRUST/trusts/' + made['id']
    token = use(cloud, made['id']).expect(201)
    body = token.json['token']
    assert body['OS-TRUST:trust'] == {'id': made['id'], 'impersonation': False, 'trustor_user': {'id': ann.id},
                                      'trustee_user': {'id': bob.id}}
    assert body['user']['id'] == bob.id and body['project']['id'] == ann.project_id
    assert {role['name'] for role in body['roles']} == {'member', 'reader'}
    use(cloud, made['id'], 'ann').expect(403)
    use(cloud, 'nothing').expect(401)
    for client in (ann, bob, cloud.admin()):
        assert client.get(path).expect(200).json['trust']['note'] == 'x'
        assert [role['name'] for role in client.get(path + '/roles').json['roles']] == ['member']
    client.head(f'{path}/roles/{cloud.role_id("member")}').expect(200)
    client.head(f'{path}/roles/{cloud.role_id("reader")}').expect(404)
    ann.head(f'{path}/roles/{cloud.role_id("reader")}').expect(404)
    assert len(ann.get(f'/v3/OS-TRUST/trusts?trustor_user_id={ann.id}').json['trusts']) == 1
    assert len(bob.get(f'/v3/OS-TRUST/trusts?trustee_user_id={bob.id}').json['trusts']) == 1
    bob.get(f'/v3/OS-TRUST/trusts?trustor_user_id={ann.id}').expect(403)
    bob.get('/v3/OS-TRUST/trusts').expect(403)
    bob.delete(path).expect(403)
    exchange = {'identity': {'methods': ['token'], 'token': {'id': token.headers['X-Subject-Token']}}}
    testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': exchange}).expect(403)
    ann.delete(path).expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    ann.get(path).expect(404)


def test_an_application_credential_passes_on_no_more_than_it_has(cloud, pair):
    ann, bob = pair
    path = f'/v3/users/{ann.id}/application_credentials'

    def robot(name, **more):
        made = ann.post(path, {'application_credential': {'name': name, **more}}).expect(201).json['application_credential']
        found = cloud.client(cloud.client().post('/v3/auth/tokens', {'auth': {'identity': {
            'methods': ['application_credential'], 'application_credential': {'id': made['id'], 'secret': made['secret']}}}}))
        found.id, found.project_id = ann.id, ann.project_id
        return found
    trust(robot('restricted'), bob).expect(403)
    reader = robot('reader', unrestricted=True, roles=[{'name': 'reader'}])
    assert 'its own roles' in trust(reader, bob, roles=[{'name': 'member'}]).expect(403).json['error']['message']
    trust(reader, bob, roles=[{'name': 'reader'}]).expect(201)
    other = cloud.project('another')
    cloud.grant(ann.id, 'reader', other['id'])
    trust(robot('second', unrestricted=True), bob, project_id=other['id'], roles=[{'name': 'reader'}]).expect(403)


def test_a_trust_that_may_be_delegated_further_has_no_number_of_uses(cloud, pair):
    refused = trust(*pair, allow_redelegation=True, remaining_uses=2).expect(400)
    assert 'trust.remaining_uses' in refused.json['error']['message']


def test_with_impersonation_the_token_is_the_trustors(cloud, pair):
    ann, bob = pair
    made = trust(ann, bob, impersonation=True).json['trust']
    token = use(cloud, made['id']).expect(201)
    assert token.json['token']['user']['id'] == ann.id
    client = cloud.client(token)
    client.post(f'/v3/users/{ann.id}/application_credentials', {'application_credential': {'name': 'x'}}).expect(403)
    cloud.admin().patch('/v3/users/' + bob.id, {'user': {'enabled': False}}).expect(200)
    client.get('/v3/auth/projects').expect(401)


def test_what_the_trustor_loses_the_trust_loses(cloud, pair):
    ann, bob = pair
    made = trust(ann, bob).json['trust']
    token = use(cloud, made['id']).expect(201)
    cloud.admin().delete(f'/v3/projects/{ann.project_id}/users/{ann.id}/roles/{cloud.role_id("member")}').expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    use(cloud, made['id']).expect(403)


def test_uses_are_counted(cloud, pair):
    ann, bob = pair
    made = trust(ann, bob, remaining_uses=2).json['trust']
    use(cloud, made['id']).expect(201)
    assert ann.get('/v3/OS-TRUST/trusts/' + made['id']).json['trust']['remaining_uses'] == 1
    use(cloud, made['id']).expect(201)
    use(cloud, made['id']).expect(401)
    ann.get('/v3/OS-TRUST/trusts/' + made['id']).expect(404)


def test_bad_trusts(cloud, pair):
    ann, bob = pair
    trust(ann, bob, roles=[{'name': 'admin'}]).expect(403)
    trust(ann, bob, roles=[{'name': 'nothing'}]).expect(404)
    trust(ann, bob, roles=[]).expect(403)
    trust(ann, bob, trustee_user_id='nobody').expect(404)
    trust(ann, bob, remaining_uses=0).expect(400)
    trust(ann, bob, expires_at='2001-01-01T00:00:00Z').expect(400)
    trust(ann, bob, expires_at='soon').expect(400)
    trust(ann, bob, project_id=None).expect(400)
    bob.project_id = ann.project_id
    trust(bob, ann, trustor_user_id=ann.id).expect(403)


def test_a_trust_delegated_further(make_cloud):
    cloud = make_cloud(('trust', 'allow_redelegation', True))
    ann, bob, eve, project = cloud.user('ann'), cloud.user('bob'), cloud.user('eve'), cloud.project('p')
    cloud.grant(ann['id'], 'member', project['id'])
    one = cloud.client(cloud.login('ann', project=project['id']))
    end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    body = {'trustor_user_id': ann['id'], 'trustee_user_id': bob['id'], 'impersonation': True, 'project_id': project['id'],
            'roles': [{'name': 'member'}], 'allow_redelegation': True, 'redelegation_count': 1, 'expires_at': end}
    first = one.post('/v3/OS-TRUST/trusts', {'trust': body}).expect(201).json['trust']
    two = cloud.client(use(cloud, first['id']).expect(201))
    further = {**body, 'trustee_user_id': eve['id'], 'roles': [{'name': 'reader'}], 'allow_redelegation': None}
    del further['redelegation_count'], further['expires_at']
    second = two.post('/v3/OS-TRUST/trusts', {'trust': further}).expect(201).json['trust']
    assert second['redelegated_trust_id'] == first['id'] and second['redelegation_count'] == 0
    assert second['expires_at'] == first['expires_at']
    token = use(cloud, second['id'], 'eve').expect(201)
    assert [role['name'] for role in token.json['token']['roles']] == ['reader']
    cloud.client(token).post('/v3/OS-TRUST/trusts', {'trust': {**further, 'trustee_user_id': bob['id']}}).expect(403)
    two.post('/v3/OS-TRUST/trusts', {'trust': {**further, 'remaining_uses': 1}}).expect(403)
    one.delete('/v3/OS-TRUST/trusts/' + first['id']).expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    use(cloud, second['id'], 'eve').expect(401)
    three = one.post('/v3/OS-TRUST/trusts', {'trust': {**body, 'redelegation_count': 9}})
    three.expect(403)


def sign(method, url, consumer, secret, token='', token_secret='', **more):
    import time
    import uuid
    values = {'oauth_consumer_key': consumer, 'oauth_nonce': uuid.uuid4().hex, 'oauth_signature_method': 'HMAC-SHA256',
              'oauth_timestamp': str(int(time.time())), 'oauth_version': '1.0', **more}
    if token:
        values['oauth_token'] = token
    header = 'OAuth ' + ', '.join(f'{name}="{urllib.parse.quote(value, safe="")}"' for name, value in values.items())
    import base64
    import hashlib
    import hmac
    signed = oauth.Signed(method, url, header)
    key = f'{secret}&{token_secret}'.encode()
    signature = base64.b64encode(hmac.new(key, signed.base().encode(), hashlib.sha256).digest()).decode()
    return f'{header}, oauth_signature="{urllib.parse.quote(signature, safe="")}"'


def test_oauth1(cloud):
    admin, project = cloud.admin(), cloud.project('p')
    user_id = cloud.login().json['token']['user']['id']
    cloud.grant(user_id, 'member', project['id'])
    consumer = admin.post('/v3/OS-OAUTH1/consumers', {'consumer': {'description': 'x'}}).expect(201).json['consumer']
    assert 'secret' not in admin.get('/v3/OS-OAUTH1/consumers/' + consumer['id']).json['consumer']
    client, base = cloud.client(), 'http://localhost/v3'
    url = base + '/OS-OAUTH1/request_token'
    header = sign('POST', url, consumer['id'], consumer['secret'])
    answer = client.post('/v3/OS-OAUTH1/request_token', headers={'Authorization': header, 'Requested-Project-Id': project['id']})
    request = dict(urllib.parse.parse_qsl(answer.expect(201).data.decode()))
    client.post('/v3/OS-OAUTH1/request_token', headers={
        'Authorization': header, 'Requested-Project-Id': project['id']}).expect(401)
    client.post('/v3/OS-OAUTH1/request_token', headers={
        'Authorization': sign('POST', url, consumer['id'], 'x'), 'Requested-Project-Id': project['id']}).expect(401)
    path = '/v3/OS-OAUTH1/authorize/' + request['oauth_token']
    admin.put(path, {'roles': [{'id': cloud.role_id('admin')}]}).expect(401)
    admin.put('/v3/OS-OAUTH1/authorize/x', {'roles': [{'name': 'member'}]}).expect(404)
    verifier = admin.put(path, {'roles': [{'name': 'member'}]}).expect(200).json['token']['oauth_verifier']
    url = base + '/OS-OAUTH1/access_token'
    by = lambda verifier: client.post('/v3/OS-OAUTH1/access_token', headers={'Authorization': sign(  # noqa: E731
        'POST', url, consumer['id'], consumer['secret'], request['oauth_token'], request['oauth_token_secret'],
        oauth_verifier=verifier)})
    by('wrong').expect(401)
    access = dict(urllib.parse.parse_qsl(by(verifier).expect(201).data.decode()))
    by(verifier).expect(401)
    url = base + '/auth/tokens'
    token = client.post('/v3/auth/tokens', {'auth': {'identity': {'methods': ['oauth1'], 'oauth1': {}}}}, headers={
        'Authorization': sign('POST', url, consumer['id'], consumer['secret'], access['oauth_token'],
                              access['oauth_token_secret'])}).expect(201)
    body = token.json['token']
    assert body['OS-OAUTH1'] == {'consumer_id': consumer['id'], 'access_token_id': access['oauth_token']}
    assert body['project']['id'] == project['id'] and {role['name'] for role in body['roles']} == {'member', 'reader'}
    tokens = f'/v3/users/{user_id}/OS-OAUTH1/access_tokens'
    assert [each['id'] for each in admin.get(tokens).json['access_tokens']] == [access['oauth_token']]
    assert [role['name'] for role in admin.get(f'{tokens}/{access["oauth_token"]}/roles').json['roles']] == ['member']
    admin.get(f'{tokens}/{access["oauth_token"]}/roles/{cloud.role_id("member")}').expect(200)
    cloud.client(token).get('/v3/auth/projects').expect(200)
    admin.delete(f'{tokens}/{access["oauth_token"]}').expect(204)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    admin.delete('/v3/OS-OAUTH1/consumers/' + consumer['id']).expect(204)
