"""Domains in LDAP, against a real OpenLDAP server that the tests start as an ordinary process on a port of its own."""
import datetime

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kodiak.common import ldap_testing
from kodiak.common.ldap_testing import PEOPLE, SUFFIX, TEAMS, Slapd, ldap3
from kodiak.common.testing import free_port
from kodiak.identity import models
from kodiak.identity.directory import entries, watch

pytestmark = ldap_testing.needed
OPTIONS = {**ldap_testing.OPTIONS, 'page_size': 2, 'pool_retry_delay': 0, 'pool_connection_timeout': 5}
WRITE = {f'{kind}_allow_{verb}': True for kind in ('user', 'group') for verb in ('create', 'update', 'delete')}


@pytest.fixture(scope='module')
def slapd(tmp_path_factory):
    """One server for all tests of this module."""
    found = Slapd(tmp_path_factory.mktemp('slapd'), f'ldap://127.0.0.1:{free_port()}')
    try:
        yield found.start()
    finally:
        found.stop()


@pytest.fixture
def ldap(slapd):
    """The server with an empty tree."""
    slapd.empty()
    return slapd


@pytest.fixture
def domain(cloud, ldap):
    """``domain(**options)``: the id of a domain that lives in the directory."""
    made = []

    def make(**options):
        admin, name = cloud.admin(), f'd{len(made)}'
        made.append(admin.post('/v3/domains', {'domain': {'name': name}}).expect(201).json['domain']['id'])
        admin.put(f'/v3/domains/{made[-1]}/config', {'config': {
            'identity': {'driver': 'ldap'}, 'ldap': {**OPTIONS, 'url': ldap.url, **options}}}).expect(201)
        return made[-1]
    yield make
    for _, server in cloud.core.directories._servers.values():
        server.close()


def names(answer, key='users'):
    return sorted(each['name'] for each in answer.expect(200).json[key])


def test_people_of_a_directory_log_in(cloud, ldap, domain):
    ldap.person('ann')
    domain_id, admin = domain(), cloud.admin()
    token = cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)
    user = token.json['token']['user']
    assert user['name'] == 'ann' and user['domain']['id'] == domain_id
    assert user['id'] == entries.public_id(domain_id, 'user', 'ann')
    cloud.login('ann', 'wrong', project=None, domain=domain_id).expect(401)
    cloud.login('ann', '', project=None, domain=domain_id).expect(401)
    cloud.login('ben', 'directory word', project=None, domain=domain_id).expect(401)
    cloud.login('*', 'directory word', project=None, domain=domain_id).expect(401)
    cloud.login('ann)(uid=*', 'directory word', project=None, domain=domain_id).expect(401)
    by_id = cloud.login(user['id'], 'directory word', project=None).expect(201)
    assert cloud.client(by_id).get('/v3/users/' + user['id']).expect(200).json['user']['email'] == 'ann@example.org'
    named = {'identity': {'methods': ['password'], 'password': {'user': {
        'name': 'ANN', 'domain': {'name': 'd0'}, 'password': 'directory word'}}}}
    assert cloud.client().post('/v3/auth/tokens', {'auth': named}).expect(201).json['token']['user']['id'] == user['id']
    project = cloud.project('p')
    cloud.grant(user['id'], 'member', project['id'])
    cloud.login('ann', 'directory word', project=project['id'], domain=domain_id).expect(201)
    assert admin.get(f'/v3/role_assignments?user.id={user["id"]}&include_names').expect(200).json['role_assignments'][0][
        'user']['name'] == 'ann'


def test_lists_show_the_directory(cloud, ldap, domain):
    for name in ('ann', 'ben', 'cid', 'dan', 'eve'):
        ldap.person(name)
    domain_id, admin = domain(), cloud.admin()
    users = f'/v3/users?domain_id={domain_id}'
    assert names(admin.get(users)) == ['ann', 'ben', 'cid', 'dan', 'eve']
    assert names(admin.get(users + '&name=ben')) == ['ben']
    assert names(admin.get(users + '&name__contains=n')) == ['ann', 'ben', 'dan']
    assert len(admin.get(users + '&limit=2').json['users']) == 2
    assert {'ann', 'admin'} <= set(names(admin.get('/v3/users')))
    ldap.delete(f'uid=eve,{PEOPLE}')
    ldap.person('fay')
    assert names(admin.get(users)) == ['ann', 'ben', 'cid', 'dan', 'fay']
    shown = admin.get(users + '&name=ann').json['users'][0]
    ldap.change(f'uid=ann,{PEOPLE}', mail='new@example.org')
    assert admin.get('/v3/users/' + shown['id']).expect(200).json['user']['email'] == 'new@example.org'
    ldap.delete(f'uid=ann,{PEOPLE}')
    admin.get('/v3/users/' + shown['id']).expect(404)
    assert names(admin.get('/v3/users?name=ann')) == []


def test_groups_of_the_directory_give_roles(cloud, ldap, domain):
    ldap.person('ann')
    ldap.person('ben')
    ldap.team('staff', 'ann', 'ben')
    ldap.team('empty')
    domain_id, admin, project = domain(), cloud.admin(), cloud.project('p')
    assert names(admin.get(f'/v3/groups?domain_id={domain_id}'), 'groups') == ['empty', 'staff']
    group = admin.get(f'/v3/groups?domain_id={domain_id}&name=staff').json['groups'][0]
    admin.put(f'/v3/projects/{project["id"]}/groups/{group["id"]}/roles/{cloud.role_id("member")}').expect(204)
    token = cloud.login('ann', 'directory word', project=project['id'], domain=domain_id).expect(201)
    assert {role['name'] for role in token.json['token']['roles']} == {'member', 'reader'}
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ann', 'ben']
    user_id = token.json['token']['user']['id']
    assert names(admin.get(f'/v3/users/{user_id}/groups'), 'groups') == ['staff']
    admin.head(f'/v3/groups/{group["id"]}/users/{user_id}').expect(204)
    ldap.change(f'cn=staff,{TEAMS}', member=[f'uid=ben,{PEOPLE}'])
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ben']
    # Who has left a group has lost what it gave.
    cloud.client(token).get('/v3/auth/projects').expect(401)
    cloud.login('ann', 'directory word', project=project['id'], domain=domain_id).expect(401)
    ldap.delete(f'cn=staff,{TEAMS}')
    admin.get('/v3/groups/' + group['id']).expect(404)
    assert names(admin.get(f'/v3/groups?domain_id={domain_id}'), 'groups') == ['empty']


def test_looking_through_finds_who_is_new_disabled_or_gone(cloud, ldap, domain):
    for name in ('ann', 'ben'):
        ldap.person(name)
    ldap.team('staff', 'ann', 'ben')
    domain_id, admin = domain(), cloud.admin()
    assert watch.look(cloud.core, 300) == [domain_id] and watch.look(cloud.core, 300) == []

    def again():
        with cloud.db.write() as connection:
            connection.execute(sa.update(models.directory_looks).values(looked_at=datetime.datetime(2020, 1, 1)))
        assert watch.look(cloud.core, 300) == [domain_id]
    group = admin.get('/v3/groups?name=staff').json['groups'][0]
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ann', 'ben']
    ann = cloud.client(cloud.login('ann', 'directory word', project=None, domain=domain_id))
    ben = cloud.client(cloud.login('ben', 'directory word', project=None, domain=domain_id))
    project = cloud.project('p')
    cloud.grant(entries.public_id(domain_id, 'user', 'ben'), 'member', project['id'])
    ldap.change(f'uid=ann,{PEOPLE}', employeeType='FALSE')
    ldap.delete(f'uid=ben,{PEOPLE}')
    ldap.person('cid')
    again()
    ann.get('/v3/auth/projects').expect(401)
    ben.get('/v3/auth/projects').expect(401)
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(401)
    assert {'ann', 'cid'} <= set(names(admin.get('/v3/users'))) and 'ben' not in names(admin.get('/v3/users'))
    # What somebody was given waits for the day that the directory has him again.
    ldap.person('ben')
    ldap.change(f'uid=ann,{PEOPLE}', employeeType='TRUE')
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)
    cloud.login('ben', 'directory word', project=project['id'], domain=domain_id).expect(201)
    ldap.delete(f'uid=ben,{PEOPLE}')
    again()
    assert cloud.core.directories.purge(domain_id) == 1
    ldap.person('ben')
    cloud.login('ben', 'directory word', project=project['id'], domain=domain_id).expect(401)


def test_a_directory_is_read_only_unless_asked(cloud, ldap, domain):
    ldap.person('ann')
    ldap.team('staff', 'ann')
    domain_id, admin = domain(), cloud.admin()
    user = admin.get(f'/v3/users?domain_id={domain_id}').json['users'][0]
    group = admin.get(f'/v3/groups?domain_id={domain_id}').json['groups'][0]
    admin.post('/v3/users', {'user': {'name': 'ben', 'domain_id': domain_id}}).expect(403)
    admin.patch('/v3/users/' + user['id'], {'user': {'email': 'x@y'}}).expect(403)
    admin.delete('/v3/users/' + user['id']).expect(403)
    admin.post('/v3/groups', {'group': {'name': 'g', 'domain_id': domain_id}}).expect(403)
    admin.patch('/v3/groups/' + group['id'], {'group': {'name': 'x'}}).expect(403)
    admin.delete('/v3/groups/' + group['id']).expect(403)
    admin.delete(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(403)
    admin.put(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(403)
    cloud.client().post(f'/v3/users/{user["id"]}/password', {'user': {
        'original_password': 'directory word', 'password': 'another'}}).expect(403)
    # Options are ours to keep, not the directory's.
    changed = admin.patch('/v3/users/' + user['id'], {'user': {'options': {'lock_password': True}, 'colour': 'red'}}).expect(200)
    assert changed.json['user']['options'] == {'lock_password': True} and changed.json['user']['colour'] == 'red'
    assert admin.get('/v3/users/' + user['id']).json['user']['options'] == {'lock_password': True}


def test_writing_to_a_directory(cloud, ldap, domain):
    domain_id, admin = domain(**WRITE, user_id_attribute='cn', user_name_attribute='uid', group_id_attribute='ou'), cloud.admin()
    made = admin.post('/v3/users', {'user': {'name': 'ann', 'domain_id': domain_id, 'password': 'first word', 'email': 'a@b.c',
                                             'colour': 'red', 'description': 'd'}}).expect(201).json['user']
    assert made['email'] == 'a@b.c' and made['colour'] == 'red' and made['enabled'] is True
    ldap.connection.search(PEOPLE, '(uid=ann)', attributes=['*'])
    stored = ldap.connection.response[0]['attributes']
    assert stored['mail'] == ['a@b.c'] and stored['userPassword'][0].startswith('{SSHA}')
    cloud.login('ann', 'first word', project=None, domain=domain_id).expect(201)
    path = '/v3/users/' + made['id']
    admin.post('/v3/users', {'user': {'name': 'ben', 'domain_id': domain_id, 'enabled': False}}).expect(201)
    token = cloud.client(cloud.login('ann', 'first word', project=None, domain=domain_id))
    changed = admin.patch(path, {'user': {'name': 'anna', 'email': 'new@b.c', 'enabled': False}}).expect(200).json['user']
    assert changed['name'] == 'anna' and changed['email'] == 'new@b.c' and changed['enabled'] is False
    token.get('/v3/auth/projects').expect(401)
    cloud.login('anna', 'first word', project=None, domain=domain_id).expect(401)
    admin.patch(path, {'user': {'enabled': True, 'password': 'second word'}}).expect(200)
    cloud.login('anna', 'first word', project=None, domain=domain_id).expect(401)
    change = lambda old, new: cloud.client().post(f'{path}/password', {'user': {  # noqa: E731
        'original_password': old, 'password': new}})
    change('wrong', 'third word').expect(401)
    change('second word', 'second word').expect(400)
    change('second word', 'third word').expect(204)
    cloud.login('anna', 'third word', project=None, domain=domain_id).expect(201)
    group = admin.post('/v3/groups', {'group': {'name': 'staff', 'domain_id': domain_id, 'description': 'x'}}
                       ).expect(201).json['group']
    member = f'/v3/groups/{group["id"]}/users/{made["id"]}'
    admin.head(member).expect(404)
    admin.put(member).expect(204)
    admin.put(member).expect(204)
    admin.head(member).expect(204)
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['anna']
    admin.delete(member).expect(204)
    admin.delete(member).expect(404)
    admin.put(member).expect(204)
    assert admin.patch('/v3/groups/' + group['id'], {'group': {'description': 'y'}}).expect(200).json['group']['description'] == 'y'
    admin.delete(path).expect(204)
    admin.get(path).expect(404)
    ldap.connection.search(TEAMS, '(cn=staff)', attributes=['member'])
    assert admin.get(f'/v3/groups/{group["id"]}/users').json['users'] == []
    admin.delete('/v3/groups/' + group['id']).expect(204)
    assert admin.get(f'/v3/groups?domain_id={domain_id}').json['groups'] == []
    # A group may hold people of its own directory only.
    local = cloud.user('local')
    group = admin.post('/v3/groups', {'group': {'name': 'g', 'domain_id': domain_id}}).expect(201).json['group']
    admin.put(f'/v3/groups/{group["id"]}/users/{local["id"]}').expect(403)
    admin.post('/v3/groups', {'group': {'name': 'g', 'domain_id': domain_id}}).expect(409)


def test_the_schema_of_active_directory(cloud, ldap, domain):
    guid = bytes(range(16))

    common = {'instanceType': '4', 'nTSecurityDescriptor': b'x', 'objectCategory': SUFFIX}

    def account(name, control, number):
        ldap.add(f'cn={name} Smith,{PEOPLE}', ['user', 'extensibleObject'], **common, cn=f'{name} Smith', sn='Smith',
                 sAMAccountName=name, userAccountControl=str(control), mail=f'{name}@b.c',
                 objectGUID=bytes([number]) + guid[1:], userPassword='directory word')

    def team(name, *members):
        ldap.add(f'cn={name},{TEAMS}', ['group', 'extensibleObject'], cn=name, sAMAccountName=name, groupType='2',
                 member=members, **common)
        return f'cn={name},{TEAMS}'
    account('ann', 512, 1)
    account('ben', 514, 2)
    inner = team('inner', f'cn=ann Smith,{PEOPLE}')
    team('outer', inner)
    domain_id = domain(user_objectclass='user', group_objectclass='group', group_name_attribute='sAMAccountName',
                       user_id_attribute='objectGUID', user_pass_attribute='unicodePwd', **WRITE,
                       user_name_attribute='sAMAccountName',
                       user_enabled_attribute='userAccountControl', user_enabled_mask=2, user_enabled_default='512',
                       group_ad_nesting=True)
    admin = cloud.admin()
    watch.look(cloud.core, 300)
    found = {each['name']: each for each in admin.get(f'/v3/users?domain_id={domain_id}').expect(200).json['users']}
    assert found['ann']['enabled'] is True and found['ben']['enabled'] is False
    assert found['ann']['id'] == entries.public_id(domain_id, 'user', '03020101-0504-0706-0809-0a0b0c0d0e0f')
    group = admin.get(f'/v3/groups?domain_id={domain_id}&name=outer').json['groups'][0]
    assert names(admin.get('/v3/groups?name=inner'), 'groups') == ['inner']
    with cloud.db.read() as connection:
        inside = connection.execute(sa.select(models.members.c.group_id)).scalars().all()
    # Whoever is in the inner group is in the outer one.
    assert len(inside) == 2 and group['id'] in inside
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ann']
    assert names(admin.get(f'/v3/users/{found["ann"]["id"]}/groups'), 'groups') == ['inner', 'outer']
    token = cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)
    assert token.json['token']['user']['id'] == found['ann']['id']
    cloud.login('ben', 'directory word', project=None, domain=domain_id).expect(401)
    admin.patch('/v3/users/' + found['ben']['id'], {'user': {'enabled': True}}).expect(200)
    ldap.connection.search(PEOPLE, '(sAMAccountName=ben)', attributes=['userAccountControl'])
    assert ldap.connection.response[0]['raw_attributes']['userAccountControl'] == [b'512']
    cloud.login('ben', 'directory word', project=None, domain=domain_id).expect(201)
    admin.patch('/v3/users/' + found['ben']['id'], {'user': {'password': 'a new one'}}).expect(200)
    ldap.connection.search(PEOPLE, '(sAMAccountName=ben)', attributes=['unicodePwd'])
    assert ldap.connection.response[0]['raw_attributes']['unicodePwd'] == ['"a new one"'.encode('utf-16-le')]


def test_posix_groups_name_their_members_by_id(cloud, ldap, domain):
    ldap.person('ann')
    ldap.add(f'cn=staff,{TEAMS}', ['posixGroup'], cn='staff', gidNumber='1', memberUid=['ann', 'stranger'])
    domain_id, admin = domain(group_objectclass='posixGroup', group_member_attribute='memberUid', group_members_are_ids=True,
                              **WRITE), cloud.admin()
    group = admin.get(f'/v3/groups?domain_id={domain_id}').json['groups'][0]
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ann']
    user = admin.get(f'/v3/users?domain_id={domain_id}').json['users'][0]
    assert names(admin.get(f'/v3/users/{user["id"]}/groups'), 'groups') == ['staff']
    watch.look(cloud.core, 300)
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == ['ann']
    admin.delete(f'/v3/groups/{group["id"]}/users/{user["id"]}').expect(204)
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == []


def test_a_large_group(cloud, ldap, domain):
    people = [f'p{number:03}' for number in range(60)]
    for name in people:
        ldap.person(name)
    ldap.team('staff', *people[:55])
    domain_id, admin = domain(), cloud.admin()
    group = admin.get(f'/v3/groups?domain_id={domain_id}').json['groups'][0]
    assert names(admin.get(f'/v3/groups/{group["id"]}/users')) == people[:55]
    assert len(admin.get(f'/v3/users?domain_id={domain_id}').json['users']) == 60


def test_a_group_says_who_is_enabled(cloud, ldap, domain):
    ldap.person('ann')
    ldap.person('ben')
    enabled = f'cn=enabled,{SUFFIX}'
    ldap.add(enabled, ['groupOfNames'], cn='enabled', member=[f'UID=ann, {PEOPLE}'])
    domain_id, admin = domain(user_enabled_emulation=True, user_enabled_emulation_dn=enabled, **WRITE), cloud.admin()
    found = {each['name']: each for each in admin.get(f'/v3/users?domain_id={domain_id}').expect(200).json['users']}
    assert found['ann']['enabled'] is True and found['ben']['enabled'] is False
    cloud.login('ben', 'directory word', project=None, domain=domain_id).expect(401)
    path = '/v3/users/' + found['ben']['id']
    assert admin.patch(path, {'user': {'enabled': True}}).expect(200).json['user']['enabled'] is True
    cloud.login('ben', 'directory word', project=None, domain=domain_id).expect(201)
    assert admin.patch(path, {'user': {'enabled': False}}).expect(200).json['user']['enabled'] is False


def test_names_that_are_taken(cloud, ldap, domain):
    for name in ('ann', 'ben'):
        ldap.person(name)
    domain_id, admin = domain(user_name_attribute='sn', user_id_attribute='uid'), cloud.admin()
    admin.delete(f'/v3/domains/{domain_id}/config').expect(204)
    local = cloud.user('ann', domain_id=domain_id)
    admin.put(f'/v3/domains/{domain_id}/config', {'config': {
        'identity': {'driver': 'ldap'}, 'ldap': {**OPTIONS, 'url': ldap.url, 'user_name_attribute': 'sn'}}}).expect(201)
    # Whoever was here first keeps the name, and logs in as before.
    assert names(admin.get(f'/v3/users?domain_id={domain_id}')) == ['ann', 'ben']
    answer = cloud.login('ann', project=None, domain=domain_id).expect(201)
    assert answer.json['token']['user']['id'] == local['id']
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(401)
    # People who swap their names stay themselves.
    ldap.person('cid')
    before = {each['id']: each['name'] for each in admin.get(f'/v3/users?domain_id={domain_id}').json['users']}
    ldap.change(f'uid=ben,{PEOPLE}', sn=['cid'])
    ldap.change(f'uid=cid,{PEOPLE}', sn=['ben'])
    after = {each['id']: each['name'] for each in admin.get(f'/v3/users?domain_id={domain_id}').json['users']}
    swapped = {'ben': 'cid', 'cid': 'ben', 'ann': 'ann'}
    assert after == {each: swapped[name] for each, name in before.items()}
    ldap.change(f'uid=ben,{PEOPLE}', sn=['eve'])
    ldap.change(f'uid=cid,{PEOPLE}', sn=['cid'])
    cloud.login('cid', 'directory word', project=None, domain=domain_id).expect(201)
    # Two of one name: nobody can tell which is meant.
    ldap.change(f'uid=ben,{PEOPLE}', sn=['cid'])
    cloud.login('cid', 'directory word', project=None, domain=domain_id).expect(401)


def test_a_directory_that_is_away(cloud, ldap, domain):
    ldap.person('ann')
    domain_id, admin = domain(), cloud.admin()
    user = cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201).json['token']['user']
    ldap.stop()
    try:
        for answer in (cloud.login('ann', 'directory word', project=None, domain=domain_id),
                       admin.get(f'/v3/users?domain_id={domain_id}'), admin.get('/v3/users/' + user['id'])):
            answer.expect(503)
            assert 'directory' in answer.json['error']['message'] and '127.0.0.1' not in answer.data.decode()
        # What needs no directory goes on.
        assert 'ann' in names(admin.get('/v3/users'))
        cloud.login().expect(201)
        assert watch.look(cloud.core, 300) == [domain_id]
        with cloud.db.read() as connection:
            assert connection.execute(sa.select(models.directory_looks.c.fault)).scalar()
        assert 'ann' in names(admin.get('/v3/users'))
    finally:
        ldap.start()
    # Connections that broke are replaced.
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)
    admin.get(f'/v3/users?domain_id={domain_id}').expect(200)


def test_the_first_server_that_answers_is_used(cloud, ldap, domain):
    ldap.person('ann')
    domain_id = domain(url=f'ldap://127.0.0.1:{free_port()},{ldap.url}')
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)


def test_options_of_a_directory(cloud, ldap, domain):
    ldap.person('ann')
    domain_id, admin = domain(), cloud.admin()
    path = f'/v3/domains/{domain_id}/config'
    assert 'password' not in admin.get(path).json['config']['ldap']
    for option, value in (('query_scope', 'two'), ('page_size', 'x'), ('user_filter', '((('), ('user_tree_dn', 'no dn'),
                          ('tls_req_cert', 'perhaps'), ('use_tls', 'perhaps'), ('user_enabled_mask', [1]), ('pool_size', 0),
                          ('user_additional_attribute_mapping', ['x']), ('url', [])):
        answer = admin.patch(path, {'config': {'ldap': {option: value}}}).expect(400)
        assert option in answer.json['error']['message']
    token = cloud.client(cloud.login('ann', 'directory word', project=None, domain=domain_id))
    admin.patch(path, {'config': {'ldap': {'user_filter': '(uid=nobody)'}}}).expect(200)
    assert names(admin.get(f'/v3/users?domain_id={domain_id}')) == []
    token.get('/v3/auth/projects').expect(401)
    admin.patch(path, {'config': {'ldap': {
        'user_filter': 'mail=*', 'user_additional_attribute_mapping': ['cn:full_name']}}}).expect(200)
    assert admin.get(f'/v3/users?domain_id={domain_id}').json['users'][0]['full_name'] == 'ann'
    token = cloud.client(cloud.login('ann', 'directory word', project=None, domain=domain_id))
    admin.delete(path).expect(204)
    # The domain has no directory any more, so its people are gone.
    token.get('/v3/auth/projects').expect(401)
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(401)
    assert names(admin.get(f'/v3/users?domain_id={domain_id}')) == []
    cloud.user('ann', domain_id=domain_id)
    admin.patch('/v3/domains/' + domain_id, {'domain': {'enabled': False}}).expect(200)
    admin.delete('/v3/domains/' + domain_id).expect(204)


def test_two_factors_for_people_of_a_directory(cloud, ldap, domain):
    ldap.person('ann')
    domain_id, admin = domain(), cloud.admin()
    user = cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201).json['token']['user']
    admin.patch('/v3/users/' + user['id'], {'user': {'options': {
        'multi_factor_auth_enabled': True, 'multi_factor_auth_rules': [['password', 'totp']]}}}).expect(200)
    answer = cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(401)
    assert answer.headers['Openstack-Auth-Receipt']


def test_lockout_holds_for_people_of_a_directory(make_cloud, ldap):
    cloud = make_cloud(('security_compliance', 'lockout_failure_attempts', 2))
    ldap.person('ann')
    admin = cloud.admin()
    domain_id = admin.post('/v3/domains', {'domain': {'name': 'd'}}).json['domain']['id']
    admin.put(f'/v3/domains/{domain_id}/config', {'config': {
        'identity': {'driver': 'ldap'}, 'ldap': {**OPTIONS, 'url': ldap.url}}}).expect(201)
    for _ in range(2):
        cloud.login('ann', 'wrong', project=None, domain=domain_id).expect(401)
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(401)
    # That ends it, though nothing may be written to the directory.
    user, = admin.get(f'/v3/users?domain_id={domain_id}&name=ann').json['users']
    admin.patch('/v3/users/' + user['id'], {'user': {'enabled': True}}).expect(200)
    cloud.login('ann', 'directory word', project=None, domain=domain_id).expect(201)
    cloud.core.directories.at(domain_id).close()


def certificate(folder, name):
    """A certificate for a host name (signed by itself) and its key; the paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(who, who, key.public_key(), 1, now - day, now + day)
    made = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), True).sign(key, hashes.SHA256())
    (folder / f'{name}.crt').write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f'{name}.key').write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return folder / f'{name}.crt', folder / f'{name}.key'


def test_tls(cloud, tmp_path):
    folder = tmp_path / 'slapd'
    folder.mkdir()
    good, key = certificate(folder, 'localhost')
    other, _ = certificate(folder, 'other.example.org')
    port, secure_port = free_port(), free_port()
    files = f'TLSCACertificateFile {good}\nTLSCertificateFile {good}\nTLSCertificateKeyFile {key}\n'
    server = Slapd(folder, f'ldap://127.0.0.1:{port}', f'ldaps://127.0.0.1:{secure_port}', settings=files + 'security tls=1')
    admin, made = cloud.admin(), []

    def log_in(**options):
        made.append(admin.post('/v3/domains', {'domain': {'name': f't{len(made)}'}}).json['domain']['id'])
        admin.put(f'/v3/domains/{made[-1]}/config', {'config': {
            'identity': {'driver': 'ldap'}, 'ldap': {**OPTIONS, **options}}}).expect(201)
        return cloud.login('ann', 'directory word', project=None, domain=made[-1]).status
    try:
        server.start(tls=ldap3.Tls(ca_certs_file=str(good)))
        server.empty()
        server.person('ann')
        trusted = {'tls_cacertfile': str(good)}
        named, secure = f'ldap://localhost:{port}', f'ldaps://localhost:{secure_port}'
        assert log_in(url=named, use_tls=True, **trusted) == 201
        assert log_in(url=secure, **trusted) == 201
        # Nothing is sent in the clear, to a stranger, or to somebody with another name.
        assert log_in(url=named) == 503
        assert log_in(url=named, use_tls=True) == 503
        assert log_in(url=named, use_tls=True, tls_cacertfile=str(other)) == 503
        assert log_in(url=secure, tls_cacertfile=str(other)) == 503
        assert log_in(url=f'ldaps://127.0.0.1:{secure_port}', **trusted) == 503
        assert log_in(url=f'ldap://127.0.0.1:{port}', use_tls=True, **trusted) == 503
        assert log_in(url=secure, tls_cacertfile='/nowhere') == 503
        # An operator can say not to look.
        assert log_in(url=secure, tls_req_cert='never') == 201
        admin.patch(f'/v3/domains/{made[-1]}/config', {'config': {'ldap': {'use_tls': True}}}).expect(400)
    finally:
        server.stop()
        for _, each in cloud.core.directories._servers.values():
            each.close()


def test_the_command_of_the_operator(cloud, ldap, domain, capsys):
    from kodiak.identity import admin as commands
    for name in ('ann', 'ben'):
        ldap.person(name)
    domain_id = domain()
    run = lambda *words: commands.build(lambda args: cloud.core.conf, list).run(list(words))  # noqa: E731
    assert run('directory', 'refresh', 'd0') == 0 and '2 users and 0 groups' in capsys.readouterr().out
    ldap.delete(f'uid=ben,{PEOPLE}')
    assert run('directory', 'refresh', domain_id) == 0 and run('directory', 'purge', domain_id) == 0
    assert '1 users and groups are deleted' in capsys.readouterr().out
    assert run('directory', 'refresh', 'Default') == 1
