"""The API of network: Neutron v2.0."""
from kodiak.common import api, policy, wsgi

from . import (
    agents,
    bindings,
    extensions,
    faults,
    forwardings,
    metering,
    misc,
    networks,
    ports,
    qos,
    quotas,
    routing,
    security,
    sharing,
    subnets,
    tags,
)

RESOURCES = [
    networks.NETWORK,
    networks.SEGMENT,
    subnets.SUBNET,
    subnets.POOL,
    subnets.SCOPE,
    ports.PORT,
    routing.ROUTER,
    routing.FLOATING,
    security.GROUP,
    security.RULE,
    sharing.GROUP,
    sharing.RBAC,
    qos.POLICY,
    metering.LABEL,
    metering.RULE,
    misc.TEMPLATE,
]
RULES = [rule for resource in RESOURCES for rule in resource.rules()] + ports.RULES + routing.RULES + sharing.RULES + agents.RULES


def make():
    """The API, with its own record of the process that serves it."""
    routes = [extensions.routes, *(resource.routes for resource in RESOURCES), networks.availability, subnets.prefixes,
              routing.interfaces, forwardings.routes, bindings.routes, sharing.routes, qos.routes, misc.routes, quotas.routes,
              agents.routes, tags.routes(RESOURCES)]
    return api.Api('network', routes, faults.render, prefix='/v2.0', title='Kodiak network', rules=RULES)


API = make()


def app_factory(global_conf, **local):
    """paste application."""
    runtime = wsgi.runtime_of(global_conf)
    if runtime.policy is None:
        runtime.policy = policy.Enforcer(runtime.conf)
    return API.application(runtime)


def versions_factory(global_conf, **local):
    """paste application: the version document at the root."""
    return extensions.ROOT.application(wsgi.runtime_of(global_conf))
