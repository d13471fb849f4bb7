"""The JSON-home document: each resource of version 3 under the name by which Keystone's document has it.

The names follow from the paths: ``/groups/{group_id}/users`` is ``group_users``, below an extension it is that extension's. Where
Keystone calls something otherwise, ``CALLED`` says how.
"""
import re

BASE = 'https://docs.openstack.org/api/openstack-identity/3/'
CALLED = {
    '/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints': 'endpoints_in_endpoint_group',
    '/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects': 'projects_associated_with_endpoint_group',
    '/OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}': 'endpoint_group_to_project_association',
    '/OS-FEDERATION/saml2/metadata': 'metadata',
    '/OS-OAUTH1/access_token': 'access_tokens',
    '/OS-OAUTH1/authorize/{request_token_id}': 'authorize_request_token',
    '/OS-OAUTH1/request_token': 'request_tokens',
    '/OS-SIMPLE-CERT/ca': 'ca_certificate',
    '/auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso': 'identity_providers_websso',
    '/auth/OS-FEDERATION/saml2': 'saml2',
    '/auth/OS-FEDERATION/saml2/ecp': 'ecp',
    '/auth/OS-FEDERATION/websso/{protocol_id}': 'websso',
    '/auth/tokens/OS-PKI/revoked': 'revocations',
    '/domains/config/default': 'domain_config_default',
    '/domains/config/{group}/default': 'domain_config_default_group',
    '/domains/config/{group}/{option}/default': 'domain_config_default_option',
    '/domains/{domain_id}/config/{group}': 'domain_config_group',
    '/domains/{domain_id}/config/{group}/{option}': 'domain_config_option',
    '/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy': 'endpoint_policy',
    '/limits/model': 'limit_model',
    '/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}': 'endpoint_policy_association',
    '/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}': 'service_policy_association',
    '/policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}': 'region_and_service_policy_association',
    '/projects/{project_id}/tags': 'projects_tags',
    '/projects/{project_id}/tags/{value}': 'project_tags',
    '/roles/{prior_role_id}/implies': 'implied_roles',
    '/roles/{prior_role_id}/implies/{implied_role_id}': 'implied_role',
    '/users/{user_id}/access_rules': 'access_rules',
    '/users/{user_id}/access_rules/{access_rule_id}': 'access_rule',
    '/users/{user_id}/application_credentials': 'application_credentials',
    '/users/{user_id}/application_credentials/{application_credential_id}': 'application_credential',
    '/users/{user_id}/credentials/OS-EC2/{credential_id}': 'user_credential',
    '/users/{user_id}/password': 'user_change_password',
}
EXTENSIONS = {'/ec2tokens': 'OS-EC2', '/s3tokens': 's3tokens'}
#: parameters whose names say less than where they stand
VAGUE = ('actor_id', 'target_id', 'group_id', 'sp_id', 'credential_id', 'rule_id', 'limit_id')
PARAMETERS = {'group': 'config_group', 'option': 'config_option', 'value': 'tag_value', 'prior_role_id': 'role_id',
              'implied_role_id': 'role_id'}
PARAMETERS_OF = {
    'OS-FEDERATION': ('idp_id', 'protocol_id', 'mapping_id', 'service_provider_id'), 'OS-EP-FILTER': ('endpoint_group_id',),
    'OS-OAUTH1': ('consumer_id', 'request_token_id', 'access_token_id'), 'OS-TRUST': ('trust_id',)}


def document(endpoints):
    """The document for these endpoints, paths and parameters as Keystone writes them."""
    found = {}
    for endpoint in endpoints:
        if not endpoint.openapi_path.startswith('/v3/'):
            continue
        path = template(endpoint.openapi_path.removeprefix('/v3'))
        names = re.findall(r'{(\w+)}', path)
        entry = {'href-template': '/v3' + path, 'href-vars': {name: BASE + parameter(name) for name in names}} if names else {
            'href': '/v3' + path}
        found.setdefault(BASE + relation(path), entry)
    return {'resources': found}


def template(path):
    """A path of ours with the parameters' usual names."""
    parts = path.split('/')
    for index, part in enumerate(parts):
        name = part[1:-1] if part.startswith('{') else ''
        if name in VAGUE and parts[index - 1].endswith('s'):
            parts[index] = f'{{{_singular(parts[index - 1])}_id}}'
        elif name == 'tag':
            parts[index] = '{value}'
    return '/'.join(parts)


def parameter(name):
    """What a parameter is called in the document, below ``BASE``."""
    extension = next((extension for extension, names in PARAMETERS_OF.items() if name in names), None)
    return f'ext/{extension}/1.0/param/{name}' if extension else 'param/' + PARAMETERS.get(name, name)


def relation(path):
    """What a resource is called in the document, below ``BASE``."""
    parts = path.strip('/').split('/')
    extension = next((part for part in parts if part.startswith('OS-')), EXTENSIONS.get(path))
    named = [_singular(part) if index + 1 < len(parts) and parts[index + 1].startswith('{') else part
             for index, part in enumerate(parts) if not part.startswith(('{', 'OS-'))]
    prefix = f'ext/{extension}/1.0/' if extension else ''
    return f"{prefix}rel/{CALLED.get(path) or '_'.join(named)}"


def _singular(word):
    return word[:-3] + 'y' if word.endswith('ies') else word.removesuffix('s')
