"""Ports of the API, and their bindings to hosts."""
import sqlalchemy as sa

from kodiak.common import policy
from kodiak.common.api import schema
from kodiak.network import faults, find, models, placement, ports

from . import fields
from .fields import Field
from .networks import check_qos
from .resource import Resource

_ports = models.ports.c
_allocations = models.allocations.c
ADMIN = 'role:admin'
ADMIN_OR_SERVICE = 'role:admin or role:service'
NETWORK_OWNER = '(role:member and project_id:%(network_project_id)s) or role:admin or role:service'
MEMBER = ('(role:member and project_id:%(project_id)s) or (role:member and project_id:%(network_project_id)s) or role:admin or '
          'role:service')
DNS_NAME = fields.Kind({'type': 'string', 'maxLength': 255, 'pattern':
                        r'^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\.?)?$'})
VNIC_TYPES = fields.choice('normal', 'direct', 'macvtap', 'baremetal', 'direct-physical', 'virtio-forwarder', 'smart-nic', 'vdpa',
                           'accelerator-direct', 'accelerator-direct-physical', 'remote-managed')
DHCP_OPTS = fields.Kind({'type': ['array', 'null'], 'items': schema.obj({
    'opt_name': {'type': 'string', 'minLength': 1, 'maxLength': 64}, 'opt_value': {'type': ['string', 'null'], 'maxLength': 255},
    'ip_version': {'enum': [4, 6, '4', '6']}}, ['opt_name'])}, lambda value, name: [
        {**one, 'ip_version': int(one.get('ip_version', 4))} for one in value or ()])
PROFILE = fields.Kind({'type': ['object', 'null']}, lambda value, name: value or {}, {'type': 'object'})


def _by_address(values):
    """``fixed_ips=ip_address=10.0.0.5`` and its siblings: addresses any of, subnets any of, both where both are given."""
    found = {'ip_address': [], 'subnet_id': [], 'ip_address_substr': []}
    for value in (part for text in values for part in text.split(',')):
        name, _, text = value.partition('=')
        if name not in found:
            raise fields.bad('fixed_ips', value, f'does not begin with one of {sorted(found)} and =')
        found[name].append(text)
    conditions = []
    if found['ip_address']:
        conditions.append(_allocations.ip_address.in_([fields.canonical_ip(text, 'fixed_ips') for text in found['ip_address']]))
    if found['subnet_id']:
        conditions.append(_allocations.subnet_id.in_(found['subnet_id']))
    conditions += [_allocations.ip_address.contains(text, autoescape=True) for text in found['ip_address_substr']]
    return _ports.id.in_(sa.select(_allocations.port_id).where(*conditions))


def _by_group(values):
    groups = models.port_groups.c
    return _ports.id.in_(sa.select(groups.port_id).where(groups.security_group_id.in_(values)))


ATTRIBUTES = [
    *fields.standard(models.ports),
    Field('network_id', fields.ID, _ports.network_id, put=False, default=fields.REQUIRED),
    Field('mac_address', fields.MAC, _ports.mac_address, update_rule=ADMIN_OR_SERVICE),
    Field('admin_state_up', fields.BOOLEAN, _ports.admin_state_up, default=True),
    Field('status', fields.STRING, _ports.status, post=False, put=False),
    Field('device_id', fields.STRING, _ports.device_id, default=''),
    Field('device_owner', fields.STRING, _ports.device_owner, default=''),
    Field('fixed_ips', fields.FIXED_IPS, _ports.fixed_ips, filter=_by_address),
    Field('security_groups', fields.IDS, _ports.security_groups, filter=_by_group),
    Field('allowed_address_pairs', fields.PAIRS, _ports.allowed_address_pairs, default=list),
    Field('extra_dhcp_opts', DHCP_OPTS, _ports.extra_dhcp_opts, default=list),
    Field('port_security_enabled', fields.BOOLEAN, _ports.port_security_enabled),
    Field('dns_name', DNS_NAME, _ports.dns_name, default=''),
    Field('dns_assignment', fields.ANY, _ports.dns_assignment, post=False, put=False),
    Field('qos_policy_id', fields.ID_OR_NONE, _ports.qos_policy_id, default=None),
    Field('qos_network_policy_id', fields.ID_OR_NONE, None, post=False, put=False, filter=False,
          expression=sa.select(models.networks.c.qos_policy_id).where(models.networks.c.id == _ports.network_id).scalar_subquery()),
    Field('binding:host_id', fields.text(null=True), _ports.host, default='', create_rule=ADMIN_OR_SERVICE,
          update_rule=ADMIN_OR_SERVICE, get_rule=ADMIN_OR_SERVICE),
    Field('binding:vnic_type', VNIC_TYPES, _ports.vnic_type, default='normal'),
    Field('binding:vif_type', fields.STRING, _ports.vif_type, post=False, put=False, get_rule=ADMIN_OR_SERVICE),
    Field('binding:vif_details', fields.OBJECT, _ports.vif_details, post=False, put=False, get_rule=ADMIN_OR_SERVICE),
    Field('binding:profile', PROFILE, _ports.profile, create_rule=ADMIN_OR_SERVICE, update_rule=ADMIN_OR_SERVICE,
          get_rule=ADMIN_OR_SERVICE, view=fields.json_or('{}')),
    Field('ip_allocation', fields.STRING, None, post=False, put=False, expression=sa.literal('immediate')),
]


def _check_owner(values, row):
    """What belongs to routers and floating addresses is made and taken apart with them: nobody hands a port to them."""
    owner = values.get('device_owner', '')
    if row is not None and row['device_owner'] in ports.SERVICE_OWNED:
        for name in ('device_owner', 'device_id'):
            if values.get(name, row[name]) != row[name]:
                raise faults.conflict(
                    'ServicePortInUse',
                    f'Port {row["id"]} belongs to {row["device_owner"]} {row["device_id"]}, and '
                    f'its {name} cannot be changed via the port API.',
                )
    elif owner in ports.SERVICE_OWNED:
        raise faults.invalid(f"device_owner '{owner}' is set by the cloud itself.")


def _check(req, values, row):
    for name in ('host', 'device_id', 'device_owner'):
        if name in values and values[name] is None:
            values[name] = ''
    _check_owner(values, row)
    if values.get('qos_policy_id'):
        check_qos(req, values['qos_policy_id'])
    asked = [name for name in ('port_security_enabled', 'allowed_address_pairs') if values.get(name)]
    if row is None and values.get('mac_address'):
        asked.append('mac_address')
    if any('ip_address' in one for one in values.get('fixed_ips') or ()):
        asked.append('fixed_ips:ip_address')
    if 'port_security_enabled' in values:
        asked.append('port_security_enabled')
    if (values.get('device_owner') or '').startswith('network:'):
        asked.append('device_owner')
    if asked and not find.sees_all(req.ctx):
        network_id = values['network_id'] if row is None else row['network_id']
        with req.db.read() as conn:
            owner = conn.scalar(sa.select(models.networks.c.project_id).where(models.networks.c.id == network_id))
        target = {**(row or {}), **values, 'network_project_id': owner}
        for name in asked:
            req.authorize(target, f"{'create' if row is None else 'update'}_port:{name}")


RULES = [(f'{action}_port:{name}', NETWORK_OWNER, f'{action} a port with {name}, on a network of another project too')
         for action in ('create', 'update') for name in ('port_security_enabled', 'allowed_address_pairs', 'fixed_ips:ip_address',
                                                         'device_owner')] + [
    ('create_port:mac_address', NETWORK_OWNER, 'create a port with a MAC address of its own')]

PORT = Resource('port', 'ports', models.ports, ATTRIBUTES, find.usable_ports,
                lambda one, values: placement.create_port(one, values)['id'], ports.update, ports.delete, check=_check,
                missing=('Port', None),
                policies={'create': policy.PROJECT_MEMBER + ' or role:service', 'update': MEMBER, 'delete': MEMBER},
                filters={'ip_address': lambda values: _by_address(['ip_address=' + value for value in values])},
                more=[sa.select(models.networks.c.project_id).where(models.networks.c.id == _ports.network_id)
                      .scalar_subquery().label('network_project_id')])
