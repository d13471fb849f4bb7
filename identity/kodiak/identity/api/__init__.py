"""The Keystone API, version 3."""
from kodiak.common import api, wsgi
from kodiak.common.api import openapi

from . import (
    app_credentials,
    catalog,
    credentials,
    domain_config,
    domains,
    endpoint_filter,
    faults,
    federation,
    grants,
    groups,
    limits,
    oauth1,
    oauth2,
    policies,
    projects,
    role_assignments,
    roles,
    rules,
    saml,
    sso,
    tokens,
    trusts,
    users,
    v2_admin,
    v2_ec2,
    v2_tokens,
    versions,
)

documents = api.Routes('documents')


@documents.get('/openapi.json', public=True, summary='The OpenAPI document of this API')
def document(req):
    """The OpenAPI document."""
    return openapi.document(req.api)


MODULES = (versions, tokens, users, groups, projects, domains, roles, grants, role_assignments, catalog, app_credentials,
           credentials, trusts, policies, domain_config, endpoint_filter, limits, oauth1, oauth2,
           federation, sso, saml, v2_tokens, v2_admin, v2_ec2)

API = api.Api('identity', [documents, *(module.routes for module in MODULES)], faults.fault, title='Identity API v3',
              base_rules=rules.BASE, rules=[*domain_config.RULES, *roles.RULES, *role_assignments.RULES], forbid_unknown=True,
              fault_schema=faults.SCHEMA)


def app_factory(global_conf, **local):
    """paste.deploy application."""
    return API.application(wsgi.runtime_of(global_conf))
