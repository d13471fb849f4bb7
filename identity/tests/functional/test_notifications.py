"""What identity tells on the message bus."""
import json
import time

import pytest
import sqlalchemy as sa

from kodiak.common import outbox, testing
from kodiak.identity import cmd, federation, issue


class Told(testing.Told):
    """The notifications of a cloud."""

    def __init__(self, cloud):
        super().__init__(cloud.db)
        self.cloud = cloud
        cloud.admin()


@pytest.fixture
def told(cloud):
    """A cloud whose changes are told."""
    return Told(cloud)


def _told(make_cloud, *overrides):
    return Told(make_cloud(*((None, *each) if len(each) == 2 else each for each in overrides)))


def test_nothing_is_told_where_nobody_listens(cloud):
    cloud.user('ann')
    with cloud.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(outbox.rows)).scalar() == 0


def test_a_change_is_an_audit_event(told):
    cloud = told.cloud
    user = cloud.admin().post('/v3/users', {'user': {'name': 'ann', 'password': 'a password'}},
                              headers={'User-Agent': 'a client', 'X-OpenStack-Request-ID': 'req-' + '1' * 36})
    user = user.expect(201).json['user']
    (event_type, payload), = told()
    assert event_type == 'identity.user.created'
    assert payload['typeURI'] == 'http://schemas.dmtf.org/cloud/audit/1.0/event'
    assert (payload['eventType'], payload['action'], payload['outcome']) == ('activity', 'created.user', 'success')
    assert payload['target'] == {'typeURI': 'data/security/account/user', 'id': user['id']}
    assert payload['resource_info'] == user['id']
    identity, = cloud.admin().get('/v3/services?type=identity').json['services']
    assert payload['observer'] == {'typeURI': 'service/security', 'id': identity['id']}
    initiator = payload['initiator']
    admin = cloud.admin().get('/v3/users?name=admin').json['users'][0]
    assert (initiator['typeURI'], initiator['id'], initiator['username']) == ('service/security/account/user', admin['id'], 'admin')
    assert initiator['host']['agent'] == 'a client'
    assert initiator['request_id'].startswith('req-') and initiator['global_request_id'] == 'req-' + '1' * 36
    assert initiator['project_id'] and 'domain_id' not in initiator
    assert 'a password' not in json.dumps(payload)


def test_the_basic_format_has_the_id(make_cloud):
    told = _told(make_cloud, ('notification_format', 'basic'))
    user = told.cloud.user('ann')
    (event_type, payload), = told()
    assert (event_type, payload['resource_info']) == ('identity.user.created', user['id'])
    assert set(payload) == {'resource_info', 'request_id'}


def test_what_one_opts_out_of_is_not_told(make_cloud):
    told = _told(make_cloud, ('notification_opt_out', ['identity.user.created']))
    told()
    user = told.cloud.user('ann')
    told.cloud.admin().patch('/v3/users/' + user['id'], {'user': {'enabled': False}}).expect(200)
    assert told.types() == ['identity.user.updated', 'identity.user.disabled']


def test_a_change_that_fails_is_not_told(told):
    told.cloud.user('ann')
    told()
    told.cloud.admin().post('/v3/users', {'user': {'name': 'ann'}}).expect(409)
    assert told() == []


def test_each_kind_is_told(told):
    cloud, admin = told.cloud, told.cloud.admin()

    def life(path, kind, asked, change=None):
        made = admin.post(path, {kind: asked}).json[kind]
        if change:
            admin.patch(f"{path}/{made['id']}", {kind: change}).expect(200)
        admin.delete(f"{path}/{made['id']}").expect(204)
        name = f'identity.{kind}'
        assert told.types() == [name + '.created', *([name + '.updated'] if change else []), name + '.deleted']

    life('/v3/groups', 'group', {'name': 'team'}, {'name': 'others'})
    life('/v3/projects', 'project', {'name': 'green'}, {'name': 'blue'})
    life('/v3/roles', 'role', {'name': 'cook'}, {'name': 'baker'})
    life('/v3/users', 'user', {'name': 'ann'}, {'name': 'bob'})
    life('/v3/regions', 'region', {'id': 'north'}, {'description': 'cold'})
    life('/v3/services', 'service', {'type': 'bakery'}, {'name': 'bread'})
    life('/v3/policies', 'policy', {'type': 'text', 'blob': 'no'}, {'blob': 'yes'})
    owner = cloud.user('owner')
    told()
    life('/v3/credentials', 'credential', {'type': 'cert', 'blob': 'a secret', 'user_id': owner['id']}, {'blob': 'another'})
    service = admin.post('/v3/services', {'service': {'type': 'bakery'}}).json['service']
    told()
    life('/v3/endpoints', 'endpoint', {'service_id': service['id'], 'interface': 'public', 'url': 'http://a'}, {'url': 'http://b'})
    consumer = admin.post('/v3/OS-OAUTH1/consumers', {'consumer': {}}).expect(201).json['consumer']
    admin.delete('/v3/OS-OAUTH1/consumers/' + consumer['id']).expect(204)
    assert told.types() == ['identity.OS-OAUTH1:consumer.created', 'identity.OS-OAUTH1:consumer.deleted']


def test_credentials_and_trusts_are_told_without_secrets(told):
    cloud = told.cloud
    project = cloud.project('green')
    ann, bob = cloud.user('ann'), cloud.user('bob')
    cloud.grant(ann['id'], 'member', project['id'])
    client = cloud.client(cloud.login('ann', project=project['id']).expect(201))
    told()
    made = client.post(f"/v3/users/{ann['id']}/application_credentials", {'application_credential': {'name': 'a'}}).expect(201)
    credential = made.json['application_credential']
    client.delete(f"/v3/users/{ann['id']}/application_credentials/{credential['id']}").expect(204)
    ec2 = client.post(f"/v3/users/{ann['id']}/credentials/OS-EC2", {'tenant_id': project['id']}).expect(201).json['credential']
    trust = client.post('/v3/OS-TRUST/trusts', {'trust': {
        'trustor_user_id': ann['id'], 'trustee_user_id': bob['id'], 'impersonation': False, 'project_id': project['id'],
        'roles': [{'name': 'member'}]}}).expect(201).json['trust']
    client.delete('/v3/OS-TRUST/trusts/' + trust['id']).expect(204)
    events = told()
    assert [each for each, _ in events] == [
        'identity.application_credential.created', 'identity.application_credential.deleted', 'identity.credential.created',
        'identity.OS-TRUST:trust.created', 'identity.OS-TRUST:trust.deleted']
    text = json.dumps(events)
    assert credential['secret'] not in text and ec2['secret'] not in text and ec2['access'] not in text
    assert {payload['target']['typeURI'] for _, payload in events} == {'data/security/credential', 'data/security/trust'}


def test_groups_tell_who_comes_and_goes(told):
    cloud = told.cloud
    group = cloud.admin().post('/v3/groups', {'group': {'name': 'team'}}).json['group']
    user = cloud.user('ann')
    told()
    path = f"/v3/groups/{group['id']}/users/{user['id']}"
    cloud.admin().put(path).expect(204)
    cloud.admin().delete(path).expect(204)
    events = told()
    assert [(each, payload['actor_operation']) for each, payload in events] == [
        ('identity.group.updated', 'added'), ('identity.group.updated', 'removed')]
    assert all((payload['actor_type'], payload['actor_id']) == ('user', user['id']) for _, payload in events)


def test_roles_that_are_given_and_taken_are_audit_events_in_either_format(make_cloud):
    told = _told(make_cloud, ('notification_format', 'basic'))
    cloud, admin = told.cloud, told.cloud.admin()
    user, project, role = cloud.user('ann'), cloud.project('green'), cloud.role_id('member')
    told()
    path = f"/v3/projects/{project['id']}/users/{user['id']}/roles/{role}"
    admin.put(path).expect(204)
    admin.put(path).expect(204)
    admin.delete(path).expect(204)
    admin.put(f"/v3/system/users/{user['id']}/roles/{role}").expect(204)
    admin.put(f"/v3/OS-INHERIT/domains/default/users/{user['id']}/roles/{role}/inherited_to_projects").expect(204)
    events = told()
    assert [each for each, _ in events] == ['identity.role_assignment.created', 'identity.role_assignment.deleted',
                                            'identity.role_assignment.created', 'identity.role_assignment.created']
    given = events[0][1]
    assert given['action'] == 'created.role_assignment'
    assert (given['role'], given['user'], given['project'], given['inherited_to_projects']) == (
        role, user['id'], project['id'], False)
    assert events[2][1]['system'] == 'all'
    assert (events[3][1]['domain'], events[3][1]['inherited_to_projects']) == ('default', True)


def test_a_domain_that_is_disabled_and_deleted_takes_along_what_is_in_it(told):
    cloud, admin = told.cloud, told.cloud.admin()
    domain = admin.post('/v3/domains', {'domain': {'name': 'north'}}).expect(201).json['domain']
    ann = cloud.user('ann', domain_id=domain['id'])
    project = cloud.project('green', domain_id=domain['id'])
    group = admin.post('/v3/groups', {'group': {'name': 'team', 'domain_id': domain['id']}}).json['group']
    told()
    admin.patch('/v3/domains/' + domain['id'], {'domain': {'enabled': False}}).expect(200)
    assert told.types() == ['identity.domain.updated', 'identity.domain.disabled']
    admin.delete('/v3/domains/' + domain['id']).expect(204)
    assert {(each, payload['resource_info']) for each, payload in told()} == {
        ('identity.user.deleted', ann['id']), ('identity.group.deleted', group['id']), ('identity.project.deleted', project['id']),
        ('identity.domain.deleted', domain['id'])}


def test_tags_and_trees_of_projects(told):
    cloud, admin = told.cloud, told.cloud.admin()
    project = cloud.project('green')
    child = cloud.project('leaf', parent_id=project['id'])
    told()
    path = f"/v3/projects/{project['id']}"
    admin.put(path + '/tags/a').expect(201)
    admin.put(path + '/tags', {'tags': ['b']}).expect(200)
    admin.delete(path + '/tags/b').expect(204)
    admin.delete(path + '/tags').expect(204)
    assert told.types() == ['identity.project.updated'] * 4
    admin.patch(path + '/cascade', {'project': {'enabled': False}}).expect(200)
    assert told.types() == ['identity.project.updated', 'identity.project.disabled'] * 2
    admin.delete(path + '/cascade').expect(204)
    assert [(each, payload['resource_info']) for each, payload in told()] == [
        ('identity.project.deleted', child['id']), ('identity.project.deleted', project['id'])]


def test_logins_are_told_where_asked_for(make_cloud):
    told = _told(make_cloud, ('notification_opt_out', []), ('security_compliance', 'lockout_failure_attempts', 2))
    cloud = told.cloud
    user = cloud.user('ann')
    told()
    cloud.login('ann', project=None).expect(201)
    cloud.login('ann', 'wrong', project=None).expect(401)
    cloud.login('ann', 'wrong', project=None).expect(401)
    cloud.login('ann', project=None).expect(401)
    cloud.login('nobody', project=None).expect(401)
    events = told()
    assert {each for each, _ in events} == {'identity.authenticate'}
    assert [(payload['outcome'], payload['initiator']['id']) for _, payload in events] == [
        ('success', user['id']), ('failure', user['id']), ('failure', user['id']), ('failure', user['id']), ('failure', 'unknown')]
    assert events[3][1]['reason'] == {'reasonCode': '401', 'reasonType': 'Maximum number of 2 login attempts exceeded.'}
    assert 'reason' not in events[2][1]
    assert all(payload['action'] == 'authenticate' for _, payload in events)
    assert 'correct horse' not in json.dumps(events)


def test_an_exchanged_token_is_no_login_and_a_second_factor_is_awaited(make_cloud):
    told = _told(make_cloud, ('notification_opt_out', []))
    cloud = told.cloud
    first = cloud.login().expect(201)
    ann = cloud.user('ann', options={'multi_factor_auth_enabled': True, 'multi_factor_auth_rules': [['password', 'totp']]})
    told()
    cloud.client().post('/v3/auth/tokens', {'auth': {'identity': {
        'methods': ['token'], 'token': {'id': first.headers['X-Subject-Token']}}}}).expect(201)
    assert told() == []
    cloud.login('ann', project=None).expect(401)
    (_, payload), = told()
    assert (payload['outcome'], payload['initiator']['id']) == ('pending', ann['id'])


@pytest.mark.parametrize(('name', 'outcome'), [('success', 'success'), ('failed', 'failure'), ('failure', 'failure')])
def test_outcomes_of_logins_are_chosen_one_by_one(make_cloud, name, outcome):
    told = _told(make_cloud, ('notification_opt_out', ['identity.authenticate.' + name]))
    told()
    told.cloud.login(project=None).expect(201)
    told.cloud.login('admin', 'wrong', project=None).expect(401)
    assert [payload['outcome'] for _, payload in told()] == [each for each in ('success', 'failure') if each != outcome]


def test_by_default_a_login_writes_nothing(told):
    told.cloud.login(project=None).expect(201)
    told.cloud.login('admin', 'wrong', project=None).expect(401)
    assert told() == []


def test_passwords_that_break_a_rule(make_cloud):
    told = _told(make_cloud, ('security_compliance', 'unique_last_password_count', 2),
                 ('security_compliance', 'password_regex', '.{5,}'),
                 ('security_compliance', 'password_regex_description', 'five characters'))
    cloud = told.cloud
    user = cloud.user('ann', password='first one')

    def change(old, new, status):
        asked = {'user': {'password': new, 'original_password': old}}
        cloud.client().post(f"/v3/users/{user['id']}/password", asked).expect(status)
    change('first one', 'second one', 204)
    told()
    change('second one', 'first one', 400)
    change('second one', 'abc', 400)
    cloud.admin().patch('/v3/users/' + user['id'], {'user': {'password': 'abc'}}).expect(400)
    events = told()
    assert [(each, payload['outcome']) for each, payload in events] == [('identity.user.updated', 'failure')] * 3
    assert 'the last 2 passwords' in events[0][1]['reason']['reasonType']
    assert 'five characters' in events[1][1]['reason']['reasonType']
    assert events[0][1]['initiator']['id'] == user['id']
    assert 'second one' not in json.dumps(events)


def test_a_publisher_runs_where_topics_are_named(cloud):
    cloud.core.conf.set_override('topics', ['notifications'], 'notifications')
    runtime = cloud.runtime
    runtime.background = []
    cmd.load(runtime)
    assert [type(each).__name__ for each in runtime.background].count('Publisher') == 1


def test_somebody_from_elsewhere(make_cloud):
    told = _told(make_cloud, ('notification_opt_out', []))
    cloud, admin, base = told.cloud, told.cloud.admin(), '/v3/OS-FEDERATION'
    rules = [{'local': [{'user': {'name': '{0}'}}, {'projects': [{'name': 'home of {0}', 'roles': [{'name': 'member'}]}]}],
              'remote': [{'type': 'OIDC-sub'}]}]
    admin.put(base + '/identity_providers/corp', {'identity_provider': {'enabled': True}}).expect(201)
    admin.put(base + '/mappings/m', {'mapping': {'rules': rules}}).expect(201)
    admin.put(base + '/identity_providers/corp/protocols/openid', {'protocol': {'mapping_id': 'm'}}).expect(201)
    told()
    for first in (True, False):
        user, said = federation.log_in(cloud.core, 'corp', 'openid', {'OIDC-sub': 'ann'}, None)
        issue.issue_for_federation(cloud.core, user, said, 'openid', time.time())
        events = told()
        assert [each for each, _ in events] == [
            *(['identity.user.created', 'identity.project.created', 'identity.role_assignment.created'] if first else []),
            'identity.authenticate']
        assert events[-1][1]['initiator']['credential'] == {
            'type': 'http://docs.oasis-open.org/security/saml/v2.0', 'identity_provider': 'corp', 'user': user['id'], 'groups': []}
