"""Random requests, made from the OpenAPI document, as an administrator and as an ordinary user.

No answer may be a 500, and none may be outside the document. ``KODIAK_TEST_FUZZ`` is how many requests of each kind (good and bad
ones) each operation gets from each of the two; the default keeps the test short.
"""
import os
import random
import warnings

import pytest

from kodiak.identity.api import API

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    schemathesis = pytest.importorskip('schemathesis')
import hypothesis
from schemathesis import GenerationMode, checks

PARTS, PEOPLE = 4, ('admin', 'user')
EXAMPLES = int(os.environ.get('KODIAK_TEST_FUZZ', '2'))
CHECKS = [checks.response_schema_conformance, checks.content_type_conformance]
#: They answer about the process or the method that they are asked with, not about data.
ORDER = ('get', 'head', 'post', 'patch', 'put', 'delete')
PASSED_OVER = ('/v3/kodiak/feed',)


class World:
    """A cloud with one of each thing, and clients of its two people; made anew when a request has locked them out."""

    def __init__(self, make_cloud):
        self.make_cloud = make_cloud
        self.renew()

    def renew(self):
        cloud = self.cloud = self.make_cloud()
        admin, make = cloud.admin(), self.make
        user, project = cloud.user('ann', email='a@b.c'), cloud.project('p', tags=['blue'])
        self.name, self.project_id = user['id'], project['id']
        cloud.grant(user['id'], 'member', project['id'])
        member = cloud.role_id('member')
        group = make('/v3/groups', 'group', name='g')
        admin.put(f'/v3/groups/{group}/users/{user["id"]}').expect(204)
        service = make('/v3/services', 'service', type='thing', name='t')
        endpoint = make('/v3/endpoints', 'endpoint', service_id=service, interface='public', url='http://x/')
        region = make('/v3/regions', 'region', id='r1')
        registered = admin.post('/v3/registered_limits', {'registered_limits': [
            {'service_id': service, 'resource_name': 'n', 'default_limit': 5}]}).expect(201).json['registered_limits'][0]['id']
        limit = admin.post('/v3/limits', {'limits': [{'service_id': service, 'resource_name': 'n', 'resource_limit': 4,
                                                      'project_id': project['id']}]}).expect(201).json['limits'][0]['id']
        mapping = {'rules': [{'local': [{'user': {'name': '{0}'}}], 'remote': [{'type': 'sub'}]}]}
        admin.put('/v3/OS-FEDERATION/mappings/m', {'mapping': mapping}).expect(201)
        admin.put('/v3/OS-FEDERATION/identity_providers/i', {'identity_provider': {'enabled': True}}).expect(201)
        admin.put('/v3/OS-FEDERATION/identity_providers/i/protocols/openid', {'protocol': {'mapping_id': 'm'}}).expect(201)
        admin.put('/v3/OS-FEDERATION/service_providers/sp', {'service_provider': {
            'auth_url': 'https://x/a', 'sp_url': 'https://x/s'}}).expect(201)
        admin.put('/v3/domains/default/config', {'config': {'identity': {'list_limit': 7}}}).expect(201)
        mine = self.as_user()
        robot = mine.post(f'/v3/users/{user["id"]}/application_credentials', {'application_credential': {
            'name': 'r', 'access_rules': [{'service': 'thing', 'method': 'GET', 'path': '/x'}]}}).expect(201).json
        ec2 = mine.post(f'/v3/users/{user["id"]}/credentials/OS-EC2', {'tenant_id': project['id']}).expect(201).json
        credential = mine.post('/v3/credentials', {'credential': {'type': 'cert', 'blob': 'x'}}).expect(201).json
        admin_id = admin.get('/v3/users?name=admin').json['users'][0]['id']
        trust = mine.post('/v3/OS-TRUST/trusts', {'trust': {
            'trustor_user_id': user['id'], 'trustee_user_id': admin_id, 'impersonation': False, 'project_id': project['id'],
            'roles': [{'id': member}]}}).expect(201).json
        policy = make('/v3/policies', 'policy', type='t', blob='{}')
        consumer = make('/v3/OS-OAUTH1/consumers', 'consumer')
        endpoint_group = make('/v3/OS-EP-FILTER/endpoint_groups', 'endpoint_group', name='e', filters={'interface': 'public'})
        self.known = {
            'user_id': user['id'], 'project_id': project['id'], 'tenant_id': project['id'], 'domain_id': 'default',
            'role_id': member, 'prior_role_id': member, 'implied_role_id': cloud.role_id('reader'), 'group_id': group,
            'service_id': service, 'endpoint_id': endpoint, 'region_id': region, 'limit_id': limit, 'mapping_id': 'm',
            'idp_id': 'i', 'protocol_id': 'openid', 'sp_id': 'sp',
            'group': 'identity', 'option': 'list_limit', 'tag': 'blue', 'policy_id': policy, 'consumer_id': consumer,
            'trust_id': trust['trust']['id'], 'credential_id': credential['credential']['id'], 'alias': 'OS-EC2',
            'rule_id': robot['application_credential']['access_rules'][0]['id'], 'token_id': self.token_of(mine),
        }
        #: what a parameter means below some paths
        self.meant = [
            ('/users/{actor_id}', 'actor_id', user['id']), ('/groups/{actor_id}', 'actor_id', group),
            ('/domains/{target_id}', 'target_id', 'default'), ('/{target_id}', 'target_id', project['id']),
            ('/endpoint_groups/', 'group_id', endpoint_group), ('/registered_limits/', 'limit_id', registered),
            ('/OS-EC2/', 'credential_id', ec2['credential']['access']),
            ('/application_credentials/', 'credential_id', robot['application_credential']['id']),
        ]

    def parameter(self, path, name):
        """The id of something that was there when this world began."""
        found = [value for part, wanted, value in self.meant if wanted == name and part in path]
        return found[0] if found else self.known.get(name, 'x')

    def make(self, path, kind, **values):
        return self.cloud.admin().post(path, {kind: values}).expect(201).json[kind]['id']

    @staticmethod
    def token_of(client):
        return client._headers['X-Auth-Token']

    def as_user(self):
        return self.cloud.client(self.cloud.login(self.name, project=self.project_id).expect(201))

    def token(self, person):
        """A token of ``admin`` or ``user`` that works."""
        for _ in range(2):
            try:
                self.cloud._admin = None
                client = self.cloud.admin() if person == 'admin' else self.as_user()
                # The administrator must still be one.
                self.cloud.admin().get('/v3/domains/default/config').expect(200)
                return self.token_of(client)
            except (AssertionError, KeyError):
                self.renew()
        raise AssertionError('A fresh cloud lets nobody in.')


def cases(operation, mode, seed):
    """A few requests for an operation: schemathesis's, the same in every run."""
    found = []
    if mode is GenerationMode.NEGATIVE and not operation.body and not operation.query:
        # Any text will do for the parameters in its path: nothing about it can be wrong.
        return []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[hypothesis.Phase.generate],
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(operation.as_strategy(generation_mode=mode))
    def collect(case):
        found.append(case)
    try:
        collect()
    except (hypothesis.errors.Unsatisfiable, schemathesis.errors.InvalidSchema):
        return []
    return found[:EXAMPLES]


def operations():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from kodiak.common.api import openapi
        document = openapi.document(API)
        # Who asks is for the test to say.
        del document['security'], document['components']
        schema = schemathesis.openapi.from_dict(document)
        schema.config.generation.update(allow_x00=False)
    found = [result.ok() for result in schema.get_all_operations()]
    # Things are looked at before they are deleted.
    return sorted((each for each in found if each.path not in PASSED_OVER), key=lambda each: ORDER.index(each.method))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('part', range(PARTS))
def test_random_requests_are_answered_as_the_document_says(make_cloud, part):
    world, dice, faults, seen = World(make_cloud), random.Random(part), [], 0
    tokens = {person: world.token(person) for person in PEOPLE}
    for number, operation in enumerate(operations()[part::PARTS]):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for case in cases(operation, mode, part * 1000 + number):
                for person in PEOPLE:
                    if dice.random() < 0.8:
                        # Ids drawn from the air end at 404; most requests are about something that is there.
                        for name in case.path_parameters or ():
                            case.path_parameters[name] = world.parameter(operation.path, name)
                    response = case.call(app=world.cloud.pipeline, base_url='http://localhost', headers={
                        'X-Auth-Token': tokens[person], 'X-Subject-Token': tokens[person]})
                    seen += 1
                    faults += wrong(case, response, f'{person}: {case.method} {case.path} {case.query} {case.body!r:.300}')
                    if response.status_code == 401:
                        tokens = {each: world.token(each) for each in PEOPLE}
    assert not faults, f'{len(faults)} of {seen}:\n' + '\n\n'.join(faults[:40])
    assert seen > len(API.endpoints) * EXAMPLES / PARTS


def wrong(case, response, said):
    """What is wrong with an answer, as texts."""
    if response.status_code == 500:
        return [f'{said}: 500']
    try:
        case.validate_response(response, checks=CHECKS)
    except BaseExceptionGroup as error:
        return [f'{said}: {str(each)[:600]}' for each in error.exceptions]
    return []
