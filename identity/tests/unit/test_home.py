"""Names in the JSON-home document, as Keystone's document has them."""
import pytest

from kodiak.identity.api import API, home


@pytest.mark.parametrize(('path', 'shown', 'relation'), [
    ('/users', '/users', 'rel/users'),
    ('/users/{user_id}', '/users/{user_id}', 'rel/user'),
    ('/policies/{policy_id}', '/policies/{policy_id}', 'rel/policy'),
    ('/groups/{group_id}/users/{user_id}', '/groups/{group_id}/users/{user_id}', 'rel/group_user'),
    ('/auth/tokens', '/auth/tokens', 'rel/auth_tokens'),
    ('/auth/tokens/OS-PKI/revoked', '/auth/tokens/OS-PKI/revoked', 'ext/OS-PKI/1.0/rel/revocations'),
    ('/domains/{target_id}/users/{actor_id}/roles', '/domains/{domain_id}/users/{user_id}/roles', 'rel/domain_user_roles'),
    ('/system/groups/{actor_id}/roles/{role_id}', '/system/groups/{group_id}/roles/{role_id}', 'rel/system_group_role'),
    ('/registered_limits/{limit_id}', '/registered_limits/{registered_limit_id}', 'rel/registered_limit'),
    ('/projects/{project_id}/tags/{tag}', '/projects/{project_id}/tags/{value}', 'rel/project_tags'),
    ('/users/{user_id}/application_credentials/{credential_id}',
     '/users/{user_id}/application_credentials/{application_credential_id}', 'rel/application_credential'),
    ('/users/{user_id}/credentials/OS-EC2', '/users/{user_id}/credentials/OS-EC2', 'ext/OS-EC2/1.0/rel/user_credentials'),
    ('/users/{user_id}/credentials/OS-EC2/{credential_id}', '/users/{user_id}/credentials/OS-EC2/{credential_id}',
     'ext/OS-EC2/1.0/rel/user_credential'),
    ('/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles',
     '/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles', 'ext/OS-OAUTH1/1.0/rel/user_access_token_roles'),
    ('/OS-INHERIT/projects/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects',
     '/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects',
     'ext/OS-INHERIT/1.0/rel/project_user_role_inherited_to_projects'),
    ('/OS-EP-FILTER/endpoint_groups/{group_id}', '/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}',
     'ext/OS-EP-FILTER/1.0/rel/endpoint_group'),
    ('/OS-FEDERATION/service_providers/{sp_id}', '/OS-FEDERATION/service_providers/{service_provider_id}',
     'ext/OS-FEDERATION/1.0/rel/service_provider'),
    ('/s3tokens', '/s3tokens', 'ext/s3tokens/1.0/rel/s3tokens')])
def test_names(path, shown, relation):
    assert home.template(path) == shown and home.relation(shown) == relation


def test_parameters():
    assert home.parameter('user_id') == 'param/user_id' and home.parameter('implied_role_id') == 'param/role_id'
    assert home.parameter('idp_id') == 'ext/OS-FEDERATION/1.0/param/idp_id'


def test_every_path_has_a_name_of_its_own():
    found = home.document(API.endpoints)['resources']
    paths = {endpoint.openapi_path for endpoint in API.endpoints if endpoint.openapi_path.startswith('/v3/')}
    assert len(found) == len(paths)
    # A path that is gone needs no name.
    assert {'/v3' + path for path in home.CALLED} <= {each.get('href') or each['href-template'] for each in found.values()}
