"""Version documents, and the list of extensions: what this API has beyond the core of Neutron, by its aliases."""
from kodiak.common import api, policy
from kodiak.common.api import openapi
from kodiak.network import faults

from . import faults as shape

UPDATED = '2026-11-01T00:00:00-00:00'

#: alias -> (name, description); only what is really built
EXTENSIONS = {
    'address-group': ('Address group', 'Named groups of addresses for the rules of security groups'),
    'address-scope': ('Address scope', 'Scopes within which addresses are unique'),
    'agent': ('agent', 'The agents of the hosts'),
    'availability_zone_filter': ('Availability Zone Filter Extension', 'Availability zones by their attributes'),
    'allowed-address-pairs': ('Allowed Address Pairs', 'More addresses that a port may send from'),
    'auto-allocated-topology': ('Auto Allocated Topology Services', 'A network, subnet and router at a word'),
    'availability_zone': ('Availability Zone', 'Availability zones of agents'),
    'binding': ('Port Binding', 'Which host a port is bound to, and how it is plugged in'),
    'binding-extended': ('Port Bindings Extended', 'More than one binding of a port, for live migration'),
    'default-subnetpools': ('Default Subnetpools', 'The subnet pool that is used where none is named'),
    'dhcp_agent_scheduler': ('DHCP Agent Scheduler', 'Which agents serve DHCP to which networks'),
    'dns-integration': ('DNS Integration', 'Names of ports'),
    'empty-string-filtering': ('Empty String Filtering Extension', 'Filters by attributes that are empty'),
    'expose-port-forwarding-in-fip': (
        'Expose Port Forwarding in FIP', 'Port forwardings as an attribute of their floating address'),
    'external-net': ('Neutron external network', 'Networks that lead out of the cloud'),
    'ext-gw-mode': ('Neutron L3 Configurable external gateway mode', 'Source NAT of a router on and off'),
    'extra_dhcp_opt': ('Neutron Extra DHCP options', 'DHCP options of single ports'),
    'extraroute': ('Neutron Extra Route', 'Static routes of routers'),
    'extraroute-atomic': ('Atomically add/remove extra routes', 'Routes added and removed one by one'),
    'fip-port-details': ('Floating IP Port Details Extension', 'Details of the port behind a floating address'),
    'floating-ip-port-forwarding': ('Floating IP Port Forwarding', 'Single ports of a floating address'),
    'floating-ip-port-forwarding-description': (
        'Floating IP Port Forwarding support description', 'Descriptions of port forwardings'),
    'floating-ip-port-forwarding-port-ranges': (
        'Floating IP Port Forwarding support Port Ranges', 'Ranges of ports in port forwardings'),
    'filter-validation': ('Filter parameters validation', 'Unknown filters are refused'),
    'ip-substring-filtering': ('IP address substring filtering', 'Ports by a part of their address'),
    'ip_allocation': ('IP Allocation', 'When a port gets its addresses'),
    'l3_agent_scheduler': ('L3 Agent Scheduler', 'Which agents have which routers'),
    'l2_adjacency': ('L2 Adjacency', 'Whether a network is one link'),
    'metering': ('Neutron Metering', 'Labels by which traffic is counted'),
    'net-mtu': ('Network MTU', 'The largest packet of a network'),
    'net-mtu-writable': ('Network MTU (writable)', 'A smaller largest packet'),
    'network-ip-availability': ('Network IP Availability', 'How full networks are'),
    'network_availability_zone': ('Network Availability Zone', 'Availability zones of networks'),
    'pagination': ('Pagination support', 'Lists in pages'),
    'port-mac-address-regenerate': ('Port MAC address regenerate', 'A new MAC address of a port at a word'),
    'port-security-groups-filtering': ('Port filtering on security groups', 'Ports by their security groups'),
    'port-security': ('Port Security', 'Ports without filters'),
    'project-id': ('project_id field enabled', 'project_id beside tenant_id'),
    'provider': ('Provider Network', 'What networks are made of'),
    'qos': ('Quality of Service', 'Policies of bandwidth and marks'),
    'quota-check-limit': ('Quota engine limit check', 'No limit below what there is'),
    'quotas': ('Quota management support', 'What projects may have'),
    'quota_details': ('Quota details management support', 'What projects have of what they may have'),
    'rbac-policies': ('RBAC Policies', 'Sharing with single projects'),
    'rbac-address-group': ('Add address_group type to RBAC', 'Sharing of address groups'),
    'rbac-security-groups': ('Add security_group type to network RBAC', 'Sharing of security groups'),
    'rbac-subnetpool': ('Add subnetpool type to RBAC', 'Sharing of subnet pools'),
    'rbac-address-scope': ('Add address_scope type to RBAC', 'Sharing of address scopes'),
    'router': ('Neutron L3 Router', 'Routers, gateways and floating addresses'),
    'router_availability_zone': ('Router Availability Zone', 'Availability zones of routers'),
    'revision-if-match': ('If-Match constraints based on revision_number', 'Changes only of what was seen'),
    'security-group': ('security-group', 'Filters of ports'),
    'security-groups-remote-address-group': ('Remote address group id field for security group rules', 'Rules by address groups'),
    'security-groups-normalized-cidr': ('Normalized CIDR field for security group rules', 'The CIDR that a rule means'),
    'security-groups-rules-belongs-to-default-sg': (
        'Security group rules belong to the project default security group', 'Whether the group of a rule is the default one'),
    'security-groups-shared-filtering': (
        'Security group filtering on the shared field',
        'Security groups by whether they are shared',
    ),
    'service-type': ('Neutron Service Type Management', 'Providers of services'),
    'sort-key-validation': ('Sort key validation', 'Unknown sort keys are refused'),
    'sorting': ('Sorting support', 'Lists in an order'),
    'standard-attr-description': ('standard-attr-description', 'Descriptions'),
    'standard-attr-revisions': ('Resource revision numbers', 'Revision numbers'),
    'standard-attr-tag': ('Tag support for resources with standard attribute', 'Tags'),
    'standard-attr-timestamp': ('Resource timestamps', 'Times of creation and change'),
    'security-groups-default-rules': ('Default rules for security groups', 'What new security groups begin with'),
    'stateful-security-group': ('Stateful security group', 'Security groups without connection tracking'),
    'subnet-service-types': ('Subnet service types', 'Subnets for some kinds of ports'),
    'qos-bw-limit-direction': ('Direction for QoS bandwidth limit rule', 'Limits of both directions'),
    'qos-port-network-policy': ('QoS policy inherited from the network', 'The policy that a port has from its network'),
    'qos-default': ('QoS default policy', 'The policy that a project uses by default'),
    'qos-rule-type-details': ('Details of QoS rule types', 'What rules of a type can say'),
    'subnet_allocation': ('Subnet Allocation', 'Subnets cut from pools'),
    'tag': ('Tag support', 'Tags of networks'),
    'tag-ext': ('Tag support for resources: subnet, subnetpool, port, router', 'Tags of other resources'),
    'tag-creation': ('Tag creation', 'Tags of what is created'),
    'tag-ports-during-bulk-creation': ('Tag Ports During Bulk Creation', 'Tags of ports that are created together'),
    'subnetpool-prefix-ops': ('Subnet Pool Prefix Operations', 'Prefixes added and removed one by one'),
}
routes = api.Routes('extensions')
RESOURCES = ('networks', 'subnets', 'ports')


@routes.get('/', public=True, summary='Show the resources of version 2.0')
def show_version(req):
    base = f'{req.base_url}/v2.0'
    return {'resources': [{'name': one.rstrip('s'), 'collection': one, 'links': [{'rel': 'self', 'href': f'{base}/{one}'}]}
                          for one in RESOURCES]}


@routes.get('/openapi.json', public=True, summary='Show the OpenAPI document')
def show_openapi(req):
    return openapi.document(req.api)


def view(alias):
    """An extension as the API shows it."""
    name, description = EXTENSIONS[alias]
    return {'alias': alias, 'name': name, 'description': description, 'updated': UPDATED, 'links': []}


@routes.get('/extensions', rule='get_extension', default=policy.ANYBODY, summary='List extensions')
def list_extensions(req):
    return {'extensions': [view(alias) for alias in EXTENSIONS]}


@routes.get('/extensions/{alias}', rule='get_extension', default=policy.ANYBODY, summary='Show an extension')
def show_extension(req, alias):
    if alias not in EXTENSIONS:
        raise faults.missing('ExtensionNotFound', f'Extension with alias {alias} does not exist')
    return {'extension': view(alias)}


root = api.Routes('versions')


@root.get('/', public=True, summary='List versions')
def list_versions(req):
    return {'versions': [{'id': 'v2.0', 'status': 'CURRENT', 'links': [{'rel': 'self', 'href': f'{req.base_url}/v2.0/'}]}]}


ROOT = api.Api('network-versions', [root], shape.render, title='Kodiak network: versions')
