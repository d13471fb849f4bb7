"""RBAC policies and address groups of the API."""
import ipaddress

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import find, models, rbac, security, unit

from . import fields
from .fields import Field
from .networks import shared_expression
from .resource import Resource

_rbac = models.rbac_policies.c
_addresses = models.address_groups.c
TARGET = fields.Kind({'type': 'string', 'minLength': 1, 'maxLength': 64})


def _check(req, values, row):
    if values.get('target_tenant') == rbac.EVERYBODY:
        action = 'create' if row is None else 'update'
        req.authorize(values, f'{action}_rbac_policy:target_tenant')


RULES = [(f'{action}_rbac_policy:target_tenant', policy.ADMIN, f'{action} an RBAC policy for everybody') for action in
         ('create', 'update')]

RBAC = Resource(
    'rbac_policy',
    'rbac_policies',
    models.rbac_policies,
    [
        Field('id', fields.ID, _rbac.id, post=False, put=False),
        Field('project_id', fields.PROJECT, _rbac.project_id, put=False),
        Field('tenant_id', fields.PROJECT, _rbac.project_id, put=False),
        Field('object_type', fields.choice(*rbac.TYPES), _rbac.object_type, put=False, default=fields.REQUIRED),
        Field('object_id', fields.ID, _rbac.object_id, put=False, default=fields.REQUIRED),
        Field('action', fields.text(), _rbac.action, put=False, default=fields.REQUIRED),
        Field('target_tenant', TARGET, _rbac.target_tenant, default=fields.REQUIRED),
    ],
    find.own(models.rbac_policies),
    rbac.create,
    rbac.update,
    rbac.delete,
    check=_check,
    missing=('RBAC policy', 'RbacPolicyNotFound'),
)

def address(value, name):
    """An address or a CIDR as a CIDR, which is how address groups have them."""
    return str(ipaddress.ip_network(fields.ip_or_cidr(value, name), strict=False))


ADDRESSES = fields.Kind({'type': 'array', 'items': {'type': 'string', 'maxLength': 64}}, lambda values, name: list(dict.fromkeys(
    address(value, name) for value in values)))


GROUP = Resource('address_group', 'address_groups', models.address_groups, [
    *fields.standard(models.address_groups),
    Field('addresses', ADDRESSES, _addresses.addresses, put=False, default=list),
    Field('shared', fields.BOOLEAN, _addresses.shared, post=False, put=False,
          expression=shared_expression('address_group', models.address_groups)),
], find.usable('address_group', models.address_groups), security.create_address_group, security.update_address_group,
    security.delete_address_group, missing=('Address Group', 'AddressGroupNotFound'))

routes = api.Routes('address_groups')
CHANGE = schema.obj({'addresses': ADDRESSES.schema}, ['addresses'])


def _change(req, **changes):
    def change(one):
        security.change_addresses(one, req.target, **changes)
        return GROUP.fetch(one.conn, req, [req.target['id']])[0]
    return {'address_group': unit.run(req.app, req.ctx, change)}


@routes.put('/address-groups/{id}/add_addresses', rule='update_address_group', default=policy.PROJECT_MEMBER, load=GROUP.load,
            body=CHANGE, summary='Put addresses into an address group')
def add_addresses(req, id):
    return _change(req, add=ADDRESSES.convert(req.body['addresses'], 'addresses'))


@routes.put('/address-groups/{id}/remove_addresses', rule='update_address_group', default=policy.PROJECT_MEMBER, load=GROUP.load,
            body=CHANGE, summary='Take addresses out of an address group')
def remove_addresses(req, id):
    return _change(req, remove=ADDRESSES.convert(req.body['addresses'], 'addresses'))
