"""Subnets, subnet pools and address scopes of the API."""
import sqlalchemy as sa

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import find, models, subnetpools, subnets, unit

from . import fields
from .fields import Field
from .networks import shared_expression
from .resource import Resource

_subnets = models.subnets.c
_pools = models.subnetpools.c
_scopes = models.address_scopes.c
ADMIN = 'role:admin'
MODES = fields.choice('slaac', 'dhcpv6-stateful', 'dhcpv6-stateless', null=True)
GATEWAY = fields.IP_OR_NONE

ATTRIBUTES = [
    *fields.standard(models.subnets),
    Field('network_id', fields.ID, _subnets.network_id, put=False, default=fields.REQUIRED),
    Field('ip_version', fields.integer(), _subnets.ip_version, put=False),
    Field('cidr', fields.CIDR_OR_NONE, _subnets.cidr, put=False),
    Field('subnetpool_id', fields.ID_OR_NONE, _subnets.subnetpool_id, put=False),
    Field('use_default_subnetpool', fields.BOOLEAN, None, put=False, hidden=True),
    Field('prefixlen', fields.integer(1, 128), None, put=False, hidden=True),
    Field('gateway_ip', GATEWAY, _subnets.gateway_ip),
    Field('allocation_pools', fields.POOLS, _subnets.allocation_pools),
    Field('dns_nameservers', fields.IPS, _subnets.dns_nameservers, default=list),
    Field('host_routes', fields.ROUTES, _subnets.host_routes, default=list),
    Field('service_types', fields.STRINGS, _subnets.service_types, default=list),
    Field('enable_dhcp', fields.BOOLEAN, _subnets.enable_dhcp, default=True),
    Field('ipv6_address_mode', MODES, _subnets.ipv6_address_mode, put=False, default=None),
    Field('ipv6_ra_mode', MODES, _subnets.ipv6_ra_mode, put=False, default=None),
    Field('segment_id', fields.ID_OR_NONE, _subnets.segment_id, post=False, put=False, get_rule=ADMIN),
    Field('dns_publish_fixed_ip', fields.BOOLEAN, _subnets.dns_publish_fixed_ip, post=False, put=False),
    Field('router:external', fields.BOOLEAN, None, post=False, put=False,
          expression=sa.select(models.networks.c.external).where(models.networks.c.id == _subnets.network_id).scalar_subquery()),
]


def _check(req, values, row):
    if row is None and values.get('ip_version') is None:
        if values.get('cidr'):
            values['ip_version'] = 6 if ':' in values['cidr'] else 4
        elif not values.get('subnetpool_id'):
            values['ip_version'] = 4
    if values.get('ip_version') not in (None, 4, 6):
        raise fields.bad('ip_version', values['ip_version'], 'is not in [4, 6]')
    if values.get('cidr') and '/' not in values['cidr']:
        raise fields.bad('cidr', values['cidr'], 'is not a valid IP subnet')
    if row is not None and 'gateway_ip' in values and values['gateway_ip'] is None and row['gateway_ip'] is None:
        values.pop('gateway_ip')


SUBNET = Resource(
    'subnet',
    'subnets',
    models.subnets,
    ATTRIBUTES,
    find.usable_subnets,
    subnets.create,
    subnets.update,
    subnets.delete,
    check=_check,
    missing=('Subnet', None),
    policies={
        'update': '(role:member and project_id:%(project_id)s) or (role:member and '
        'project_id:%(network_project_id)s) or role:admin',
        'delete': '(role:member and project_id:%(project_id)s) or (role:member and '
        'project_id:%(network_project_id)s) or role:admin',
    },
    more=[
        sa.select(models.networks.c.project_id)
        .where(models.networks.c.id == _subnets.network_id)
        .scalar_subquery()
        .label('network_project_id')
    ],
)

POOL = Resource('subnetpool', 'subnetpools', models.subnetpools, [
    *fields.standard(models.subnetpools),
    Field('prefixes', fields.CIDRS, _pools.prefixes, default=fields.REQUIRED),
    Field('ip_version', fields.INTEGER, _pools.ip_version, post=False, put=False),
    Field('min_prefixlen', fields.integer(0), _pools.min_prefixlen),
    Field('max_prefixlen', fields.integer(0), _pools.max_prefixlen),
    Field('default_prefixlen', fields.integer(0), _pools.default_prefixlen),
    Field('default_quota', fields.integer(0, null=True), _pools.default_quota, default=None),
    Field('address_scope_id', fields.ID_OR_NONE, _pools.address_scope_id, default=None),
    Field('is_default', fields.BOOLEAN, _pools.is_default, default=False, create_rule=ADMIN, update_rule=ADMIN),
    Field('shared', fields.BOOLEAN, _pools.shared, put=False, default=False, create_rule=ADMIN,
          expression=shared_expression('subnetpool', models.subnetpools)),
], find.usable('subnetpool', models.subnetpools), subnetpools.create,
    subnetpools.update, subnetpools.delete, missing=('Subnet pool', 'SubnetPoolNotFound'))

SCOPE = Resource('address_scope', 'address_scopes', models.address_scopes, [
    *fields.standard(models.address_scopes, tagged=False),
    Field('ip_version', fields.Kind({'enum': [4, 6, '4', '6']}, lambda value, name: int(value), {'type': 'integer'}),
          _scopes.ip_version, put=False, default=fields.REQUIRED),
    Field('shared', fields.BOOLEAN, _scopes.shared, default=False, create_rule=ADMIN, update_rule=ADMIN,
          expression=shared_expression('address_scope', models.address_scopes)),
], find.usable('address_scope', models.address_scopes),
    subnetpools.create_scope, subnetpools.update_scope, subnetpools.delete_scope, missing=('Address scope', 'AddressScopeNotFound'))

prefixes = api.Routes('subnetpools')
PREFIXES = schema.obj({'prefixes': schema.array(schema.STRING)}, ['prefixes'])


def _change(req, id, **changes):
    values = {name: [fields.canonical_cidr(text, 'prefixes') for text in texts] for name, texts in changes.items()}
    found = unit.run(req.app, req.ctx, lambda one: subnetpools.change_prefixes(one, req.target, **values))
    return {'prefixes': found}


@prefixes.put('/subnetpools/{id}/add_prefixes', rule='add_prefixes', default=policy.PROJECT_MEMBER, load=POOL.load, body=PREFIXES,
              response=PREFIXES, summary='Add prefixes to a subnet pool')
def add_prefixes(req, id):
    return _change(req, id, add=req.body['prefixes'])


@prefixes.put(
    '/subnetpools/{id}/remove_prefixes',
    rule='remove_prefixes',
    default=policy.PROJECT_MEMBER,
    load=POOL.load,
    body=PREFIXES,
    response=PREFIXES,
    summary='Take prefixes out of a subnet pool',
)
def remove_prefixes(req, id):
    return _change(req, id, remove=req.body['prefixes'])


