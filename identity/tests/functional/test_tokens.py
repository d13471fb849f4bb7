import time

import pytest

from kodiak.common import db, testing, tokens


def rescope(cloud, text, scope=None, **more):
    auth = {'identity': {'methods': ['token'], 'token': {'id': text}}, **({'scope': scope} if scope else {})}
    return testing.Client(cloud.pipeline).post('/v3/auth/tokens', {'auth': auth}, **more)


def test_password_login_shows_what_keystone_shows(cloud):
    answer = cloud.login().expect(201)
    token = answer.json['token']
    assert answer.headers['X-Subject-Token'].startswith('kd1.') and len(answer.headers['X-Subject-Token']) < 600
    assert token['methods'] == ['password'] and len(token['audit_ids']) == 1
    assert token['project']['name'] == 'admin' and token['project']['domain'] == {'id': 'default', 'name': 'Default'}
    assert {role['name'] for role in token['roles']} == {'admin', 'manager', 'member', 'reader'}
    assert token['user']['name'] == 'admin' and token['user']['password_expires_at'] is None
    assert token['catalog'][0]['type'] == 'identity' and len(token['catalog'][0]['endpoints']) == 3


def test_scopes(cloud):
    assert 'roles' not in cloud.login(project=None, scope={'unscoped': {}}).expect(201).json['token']
    assert cloud.login(scope={'system': {'all': True}}).expect(201).json['token']['system'] == {'all': True}
    cloud.login(scope={'domain': {'id': 'default'}}).expect(401)
    admin = cloud.admin()
    user_id = cloud.login().json['token']['user']['id']
    admin.put(f'/v3/domains/default/users/{user_id}/roles/{cloud.role_id("admin")}').expect(204)
    token = cloud.login(scope={'domain': {'name': 'Default'}}).expect(201).json['token']
    assert token['domain'] == {'id': 'default', 'name': 'Default'}
    cloud.login(project='nowhere').expect(401)
    for bad in ({'project': {'name': 'admin'}}, {'project': {'id': 'x'}, 'system': {'all': True}}, {}, {'system': {}}):
        cloud.login(scope=bad).expect(400)


@pytest.mark.parametrize('name, password', [('admin', 'wrong'), ('nobody', 'wrong'), ('admin', '')])
def test_wrong_passwords_and_unknown_users_answer_the_same(cloud, name, password):
    answer = cloud.login(name, password).expect(401)
    assert answer.json['error'] == {'code': 401, 'title': 'Unauthorized',
                                    'message': 'The request you have made requires authentication.'}


def test_bad_requests_to_log_in(cloud):
    client = cloud.client()
    for bad in ({}, {'auth': {}}, {'auth': {'identity': {}}}, {'auth': {'identity': {'methods': ['password']}}},
                {'auth': {'identity': {'methods': ['password'], 'password': {'user': {'name': 'admin', 'password': 'x'}}}}},
                {'auth': {'identity': {'methods': ['password'], 'password': {'user': {'id': 'admin'}}}}}):
        client.post('/v3/auth/tokens', bad).expect(400)
    client.post('/v3/auth/tokens', {'auth': {'identity': {'methods': ['magic'], 'magic': {}}}}).expect(401)


def test_a_token_is_exchanged_within_its_chain_and_its_end(cloud):
    first = cloud.login(project=None).expect(201)
    scope = {'project': {'name': 'admin', 'domain': {'id': 'default'}}}
    second = rescope(cloud, first.headers['X-Subject-Token'], scope).expect(201)
    assert second.json['token']['expires_at'] == first.json['token']['expires_at']
    assert second.json['token']['audit_ids'][1] == first.json['token']['audit_ids'][0]
    assert sorted(second.json['token']['methods']) == ['password', 'token']
    third = rescope(cloud, second.headers['X-Subject-Token']).expect(201)
    assert third.json['token']['audit_ids'][1] == first.json['token']['audit_ids'][0]
    system = cloud.login(scope={'system': {'all': True}})
    rescope(cloud, system.headers['X-Subject-Token'], {'project': {'name': 'admin', 'domain': {'id': 'default'}}}).expect(403)


def test_validation(cloud):
    token = cloud.login().expect(201)
    text = token.headers['X-Subject-Token']
    client = cloud.client(token)
    shown = client.get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(200)
    assert shown.json == token.json and shown.headers['X-Subject-Token'] == text
    assert client.head('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(200).data == b''
    assert 'catalog' not in client.get('/v3/auth/tokens?nocatalog', headers={'X-Subject-Token': text}).json['token']
    client.get('/v3/auth/tokens', headers={'X-Subject-Token': text[:-4] + 'AAAA'}).expect(404)
    client.get('/v3/auth/tokens').expect(404)
    cloud.client().get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(401)


def test_a_user_sees_its_own_token_only(cloud):
    cloud.user('ann')
    ann, admin = cloud.login('ann', project=None).expect(201), cloud.login()
    cloud.client(ann).get('/v3/auth/tokens', headers={'X-Subject-Token': ann.headers['X-Subject-Token']}).expect(200)
    cloud.client(ann).get('/v3/auth/tokens', headers={'X-Subject-Token': admin.headers['X-Subject-Token']}).expect(403)
    cloud.client(ann).get('/v3/auth/tokens', headers={'X-Subject-Token': 'kd1.x.y.z'}).expect(404)


def test_an_expired_token_is_shown_only_with_allow_expired(cloud):
    token = cloud.login().headers['X-Subject-Token']
    claims = cloud.core.state.claims(token)
    claims.expires = time.time() - 60
    text = tokens.sign(claims, *cloud.core.ring.signing())
    client = cloud.admin()
    client.get('/v3/auth/tokens', headers={'X-Subject-Token': text}).expect(404)
    client.get('/v3/auth/tokens?allow_expired=1', headers={'X-Subject-Token': text}).expect(200)
    cloud.client(text).get('/v3/users').expect(401)


def test_a_revoked_token_is_dead_at_the_next_request(cloud):
    token, other = cloud.login(), cloud.login()
    cloud.client(token).get('/v3/users').expect(200)
    cloud.client(other).delete('/v3/auth/tokens', headers={'X-Subject-Token': token.headers['X-Subject-Token']}).expect(204)
    cloud.client(token).get('/v3/users').expect(401)
    cloud.client(other).get('/v3/auth/tokens', headers={'X-Subject-Token': token.headers['X-Subject-Token']}).expect(404)
    rescope(cloud, token.headers['X-Subject-Token']).expect(404)


def test_what_revokes_tokens(cloud):
    user = cloud.user('ann')
    project = cloud.project('p')
    admin = cloud.admin()
    role = cloud.role_id('member')

    def check(revoking, again=lambda: None):
        cloud.grant(user['id'], 'member', project['id'])
        token = cloud.login('ann', project=project['id']).expect(201)
        client = cloud.client(token)
        client.get('/v3/auth/projects').expect(200)
        revoking()
        client.get('/v3/auth/projects').expect(401)
        again()
    check(lambda: admin.delete(f'/v3/projects/{project["id"]}/users/{user["id"]}/roles/{role}').expect(204))
    check(lambda: admin.patch(f'/v3/users/{user["id"]}', {'user': {'enabled': False}}).expect(200),
          lambda: admin.patch(f'/v3/users/{user["id"]}', {'user': {'enabled': True}}).expect(200))
    check(lambda: admin.patch(f'/v3/projects/{project["id"]}', {'project': {'enabled': False}}).expect(200),
          lambda: admin.patch(f'/v3/projects/{project["id"]}', {'project': {'enabled': True}}).expect(200))
    check(lambda: cloud.client().post(f'/v3/users/{user["id"]}/password', {
        'user': {'original_password': 'correct horse', 'password': 'battery staple'}}).expect(204),
        lambda: admin.patch(f'/v3/users/{user["id"]}', {'user': {'password': 'correct horse'}}).expect(200))
    check(lambda: admin.delete(f'/v3/users/{user["id"]}').expect(204))


def test_validation_and_exchange_ask_the_database_once(cloud):
    token = cloud.login().headers['X-Subject-Token']
    client = cloud.client(token)
    client.get('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(200)
    with db.count_queries() as queries:
        client.get('/v3/auth/tokens', headers={'X-Subject-Token': token}).expect(200)
    assert len(queries) == 1
    scope = {'project': {'name': 'admin', 'domain': {'id': 'default'}}}
    rescope(cloud, token, scope).expect(201)
    with db.count_queries() as queries:
        rescope(cloud, token, scope).expect(201)
    assert len(queries) == 1
    with db.count_queries() as queries:
        client.get('/v3/kodiak/feed?since=0').expect(200)
    assert len(queries) == 1


def test_auth_lists(cloud):
    client = cloud.admin()
    assert [p['name'] for p in client.get('/v3/auth/projects').expect(200).json['projects']] == ['admin']
    assert client.get('/v3/auth/domains').expect(200).json['domains'] == []
    assert client.get('/v3/auth/system').expect(200).json['system'] == [{'all': True}]
    assert client.get('/v3/auth/catalog').expect(200).json['catalog'][0]['type'] == 'identity'
    cloud.client().get('/v3/auth/projects').expect(401)


def test_who_logs_in_while_something_is_being_revoked_does_not_get_away_with_it(cloud):
    user, project = cloud.user('ann'), cloud.project('p')
    cloud.grant(user['id'], 'member', project['id'])
    before = cloud.login('ann', project=project['id']).expect(201)
    grant = f'/v3/projects/{project["id"]}/users/{user["id"]}/roles/{cloud.role_id("member")}'
    claims = cloud.core.state.claims(before.headers['X-Subject-Token'])
    cloud.admin().delete(grant).expect(204)
    # What a login signs that read the roles before the commit, and took its time.
    claims.issued = time.time() + 0.1
    late = tokens.sign(claims, *cloud.core.ring.signing())
    cloud.client(late).get('/v3/auth/projects').expect(401)
    cloud.admin().put(grant).expect(204)
    cloud.client(cloud.login('ann', project=project['id']).expect(201)).get('/v3/auth/projects').expect(200)


def test_a_web_server_in_front_says_who_it_is(make_cloud):
    from kodiak.common import testing
    cloud = make_cloud(('auth', 'methods', ['password', 'external']))
    user = cloud.user('ann')
    domain_id = cloud.admin().post('/v3/domains', {'domain': {'name': 'far'}}).json['domain']['id']
    other = cloud.user('ann', domain_id=domain_id)
    auth = {'auth': {'identity': {'methods': ['external'], 'external': {}}}}

    def log_in(**environ):
        front = testing.Client(lambda env, start: cloud.pipeline({**env, **environ}, start))
        return front.post('/v3/auth/tokens', auth, headers={'Remote-User': 'admin', 'REMOTE_USER': 'admin'})
    token = log_in(REMOTE_USER='ann').expect(201).json['token']
    assert token['user']['id'] == user['id'] and token['methods'] == ['external']
    assert log_in(REMOTE_USER='ann', REMOTE_DOMAIN='far').expect(201).json['token']['user']['id'] == other['id']
    log_in().expect(401)
    log_in(REMOTE_USER='').expect(401)
    log_in(REMOTE_USER='nobody').expect(401)
    log_in(REMOTE_USER='ann', REMOTE_DOMAIN='nowhere').expect(401)
    cloud.admin().patch('/v3/users/' + user['id'], {'user': {'enabled': False}}).expect(200)
    log_in(REMOTE_USER='ann').expect(401)
    testing.Client(make_cloud().pipeline).post('/v3/auth/tokens', auth).expect(401)


def test_what_pki_tokens_left_behind_is_gone(cloud):
    for path in ('/v3/OS-SIMPLE-CERT/ca', '/v3/OS-SIMPLE-CERT/certificates'):
        cloud.client().get(path).expect(410)
    cloud.admin().get('/v3/auth/tokens/OS-PKI/revoked').expect(410)
    cloud.client().get('/v3/auth/tokens/OS-PKI/revoked').expect(401)
