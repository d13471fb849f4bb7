"""The API of network: Neutron v2.0."""
from kodiak.common import api, policy, wsgi

from . import agents, extensions, faults, networks, ports, quotas, routing, security, subnets, tags

RESOURCES = [networks.NETWORK, networks.SEGMENT, subnets.SUBNET, subnets.POOL, subnets.SCOPE, ports.PORT, routing.ROUTER,
             routing.FLOATING, security.GROUP, security.RULE]
RULES = [rule for resource in RESOURCES for rule in resource.rules()] + ports.RULES + routing.RULES


def make():
    """The API, with its own record of the process that serves it."""
    routes = [extensions.routes, *(resource.routes for resource in RESOURCES), networks.availability, subnets.prefixes,
              routing.interfaces, quotas.routes, agents.routes, tags.routes(RESOURCES)]
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
    runtime = wsgi.runtime_of(global_conf)
    return extensions.ROOT.application(runtime)
