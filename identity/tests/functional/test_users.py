import datetime

import pytest
import sqlalchemy as sa

from kodiak.common import db
from kodiak.identity import models


def test_a_user_is_shown_as_keystone_shows_it(cloud):
    user = cloud.user('ann', email='a@b', description='x', favourite='blue', default_project_id=None)
    assert {'name': 'ann', 'domain_id': 'default', 'enabled': True, 'email': 'a@b', 'favourite': 'blue', 'options': {},
            'password_expires_at': None}.items() <= user.items()
    assert 'password' not in user and 'default_project_id' not in user
    assert user['links']['self'].endswith('/v3/users/' + user['id'])
    changed = cloud.admin().patch('/v3/users/' + user['id'], {'user': {'favourite': None, 'name': 'anna'}}).expect(200).json['user']
    assert changed['name'] == 'anna' and changed['favourite'] is None and changed['email'] == 'a@b'


def test_names_are_unique_in_a_domain(cloud):
    cloud.user('ann')
    admin = cloud.admin()
    assert 'ann' in admin.post('/v3/users', {'user': {'name': 'ann'}}).expect(409).json['error']['message']
    domain = admin.post('/v3/domains', {'domain': {'name': 'other'}}).expect(201).json['domain']
    admin.post('/v3/users', {'user': {'name': 'ann', 'domain_id': domain['id']}}).expect(201)
    admin.post('/v3/users', {'user': {'name': 'x', 'domain_id': 'nowhere'}}).expect(404)


@pytest.mark.parametrize('bad', [{}, {'name': ''}, {'name': ' '}, {'name': 5}, {'name': 'x', 'enabled': 'yes'},
                                 {'name': 'x', 'options': {'no': True}}, {'name': 'x', 'password': 'x' * 129},
                                 {'name': 'x' * 256}, {'name': 'x', 'default_project_id': 'default'}])
def test_bad_users(cloud, bad):
    cloud.admin().post('/v3/users', {'user': bad}).expect(400)


def test_lists_filter_and_page(cloud):
    admin = cloud.admin()
    for name in ('bob', 'Bobby', 'alice'):
        cloud.user(name, enabled=name != 'alice')
    names = lambda query: sorted(user['name'] for user in admin.get('/v3/users?' + query).expect(200).json['users'])  # noqa: E731
    assert names('name=bob') == ['bob']
    assert names('name__startswith=Bob')[0] == 'Bobby' and names('name__icontains=BOB') == ['Bobby', 'bob']
    assert names('name__iexact=BOBBY') == ['Bobby'] and names('name__contains=%25') == []
    assert names('enabled=false') == ['alice'] and 'alice' not in names('enabled')
    assert names('domain_id=nowhere') == []
    seen, path = [], '/v3/users?limit=2'
    while path:
        page = admin.get(path).expect(200).json
        seen += [user['name'] for user in page['users']]
        path = page['links']['next'] and page['links']['next'].removeprefix('http://localhost')
    assert sorted(seen) == ['Bobby', 'admin', 'alice', 'bob']


def test_a_list_and_a_show_are_few_statements(cloud):
    for index in range(5):
        cloud.user(f'u{index}')
    admin = cloud.admin()
    user_id = admin.get('/v3/users').json['users'][0]['id']
    with db.count_queries() as queries:
        admin.get('/v3/users').expect(200)
    assert len(queries) == 2
    with db.count_queries() as queries:
        admin.get('/v3/users/' + user_id).expect(200)
    assert len(queries) == 2


def test_changing_the_own_password(cloud):
    user = cloud.user('ann')
    path = f'/v3/users/{user["id"]}/password'
    client = cloud.client()
    client.post(path, {'user': {'original_password': 'wrong', 'password': 'new password'}}).expect(401)
    client.post(path, {'user': {'original_password': 'correct horse', 'password': 'correct horse'}}).expect(400)
    client.post('/v3/users/nobody/password', {'user': {'original_password': 'x', 'password': 'y'}}).expect(401)
    client.post(path, {'user': {'password': 'y'}}).expect(400)
    client.post(path, {'user': {'original_password': 'correct horse', 'password': 'new password'}}).expect(204)
    cloud.login('ann', project=None).expect(401)
    cloud.login('ann', 'new password', project=None).expect(201)
    cloud.admin().patch('/v3/users/' + user['id'], {'user': {'options': {'lock_password': True}}}).expect(200)
    client.post(path, {'user': {'original_password': 'new password', 'password': 'other'}}).expect(400)


def test_lockout(make_cloud):
    cloud = make_cloud(('security_compliance', 'lockout_failure_attempts', 3))
    user = cloud.user('ann')
    exempt = cloud.user('bob', options={'ignore_lockout_failure_attempts': True})
    for name in ('ann', 'bob'):
        for _ in range(3):
            cloud.login(name, 'wrong', project=None).expect(401)
    cloud.login('ann', project=None).expect(401)
    cloud.admin().patch('/v3/users/' + user['id'], {'user': {'enabled': True}}).expect(200)
    cloud.login('ann', project=None).expect(201)
    for _ in range(3):
        cloud.login('ann', 'wrong', project=None).expect(401)
    cloud.login('ann', project=None).expect(401)
    cloud.login('bob', project=None).expect(201)
    assert exempt['options'] == {'ignore_lockout_failure_attempts': True}
    with cloud.db.write() as connection:
        connection.execute(sa.update(models.users).where(models.users.c.id == user['id']).values(
            failed_at=db.utcnow() - datetime.timedelta(hours=1)))
    cloud.login('ann', project=None).expect(201)
    with cloud.db.read() as connection:
        assert connection.execute(sa.select(models.users.c.failed_count).where(models.users.c.id == user['id'])).scalar() == 0


def test_wrong_passwords_are_forgotten_when_an_administrator_sets_one(make_cloud):
    cloud = make_cloud(('security_compliance', 'lockout_failure_attempts', 1))
    user = cloud.user('ann')
    cloud.login('ann', 'wrong', project=None).expect(401)
    cloud.login('ann', project=None).expect(401)
    cloud.admin().patch('/v3/users/' + user['id'], {'user': {'password': 'fresh start'}}).expect(200)
    cloud.login('ann', 'fresh start', project=None).expect(201)


def test_password_rules(make_cloud):
    cloud = make_cloud(('security_compliance', 'password_regex', r'^(?=.*\d).{7,}$'),
                       ('security_compliance', 'password_regex_description', 'seven characters and a digit'),
                       ('security_compliance', 'unique_last_password_count', 3),
                       ('security_compliance', 'password_expires_days', 90))
    answer = cloud.admin().post('/v3/users', {'user': {'name': 'ann', 'password': 'short'}}).expect(400)
    assert 'seven characters' in answer.json['error']['message']
    user = cloud.user('ann', password='password1')
    assert user['password_expires_at'] is not None
    change = lambda old, new: cloud.client().post(  # noqa: E731
        f'/v3/users/{user["id"]}/password', {'user': {'original_password': old, 'password': new}})
    change('password1', 'password2').expect(204)
    change('password2', 'password3').expect(204)
    assert 'last 3 passwords' in change('password3', 'password1').expect(400).json['error']['message']
    change('password3', 'password4').expect(204)
    change('password4', 'password1').expect(204)
    shown = cloud.admin().get('/v3/domains/default/config/security_compliance').expect(200).json['config']
    assert shown['security_compliance']['password_regex_description'] == 'seven characters and a digit'


def test_a_password_that_must_be_changed_first(make_cloud):
    cloud = make_cloud(('security_compliance', 'change_password_upon_first_use', True),
                       ('security_compliance', 'minimum_password_age', 1))
    user = cloud.user('ann')
    answer = cloud.login('ann', project=None).expect(401)
    assert 'expired' in answer.json['error']['message']
    change = lambda old, new: cloud.client().post(  # noqa: E731
        f'/v3/users/{user["id"]}/password', {'user': {'original_password': old, 'password': new}})
    change('correct horse', 'my own words').expect(204)
    cloud.login('ann', 'my own words', project=None).expect(201)
    change('my own words', 'too early').expect(400)
    cloud.user('bob', options={'ignore_change_password_upon_first_use': True})
    cloud.login('bob', project=None).expect(201)


def test_users_that_never_come_count_as_disabled(make_cloud):
    cloud = make_cloud(('security_compliance', 'disable_user_account_days_inactive', 30))
    user = cloud.user('ann')
    cloud.login('ann', project=None).expect(201)
    with cloud.db.write() as connection:
        connection.execute(sa.update(models.users).where(models.users.c.id == user['id']).values(
            last_active_on=datetime.date(2020, 1, 1)))
    cloud.login('ann', project=None).expect(401)
    admin = cloud.admin()
    assert admin.get('/v3/users/' + user['id']).json['user']['enabled'] is False
    admin.patch('/v3/users/' + user['id'], {'user': {'options': {'ignore_user_inactivity': True}}}).expect(200)
    cloud.login('ann', project=None).expect(201)


def test_an_old_hash_is_upgraded_at_login(cloud):
    import bcrypt
    user = cloud.user('ann')
    old = bcrypt.hashpw(b'correct horse', bcrypt.gensalt(4)).decode()
    with cloud.db.write() as connection:
        connection.execute(sa.update(models.passwords).where(models.passwords.c.user_id == user['id']).values(hash=old))
    cloud.login('ann', project=None).expect(201)
    with cloud.db.read() as connection:
        assert connection.execute(sa.select(models.passwords.c.hash).where(
            models.passwords.c.user_id == user['id'])).scalar().startswith('$argon2id$')
    cloud.login('ann', project=None).expect(201)


def test_groups(cloud):
    admin, user = cloud.admin(), cloud.user('ann')
    group = admin.post('/v3/groups', {'group': {'name': 'g', 'colour': 'red'}}).expect(201).json['group']
    assert group['colour'] == 'red' and group['domain_id'] == 'default'
    member = f'/v3/groups/{group["id"]}/users/{user["id"]}'
    admin.head(member).expect(404)
    admin.put(member).expect(204)
    admin.put(member).expect(204)
    admin.head(member).expect(204)
    assert [u['name'] for u in admin.get(f'/v3/groups/{group["id"]}/users').expect(200).json['users']] == ['ann']
    assert [g['name'] for g in admin.get(f'/v3/users/{user["id"]}/groups').expect(200).json['groups']] == ['g']
    project = cloud.project('p')
    admin.put(f'/v3/projects/{project["id"]}/groups/{group["id"]}/roles/{cloud.role_id("member")}').expect(204)
    token = cloud.login('ann', project=project['id']).expect(201)
    assert {role['name'] for role in token.json['token']['roles']} == {'member', 'reader'}
    admin.delete(member).expect(204)
    admin.delete(member).expect(404)
    cloud.client(token).get('/v3/auth/projects').expect(401)
    cloud.login('ann', project=project['id']).expect(401)
    admin.post('/v3/groups', {'group': {'name': 'g'}}).expect(409)
    admin.delete('/v3/groups/' + group['id']).expect(204)
    admin.get('/v3/groups/' + group['id']).expect(404)
