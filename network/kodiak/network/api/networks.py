"""Networks of the API, their segments, and how full they are."""
import sqlalchemy as sa

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import faults, find, models, networks

from . import fields
from .fields import Field
from .resource import Resource

_networks = models.networks.c
_segments = models.segments.c
_rbac = models.rbac_policies.c
ADMIN = 'role:admin'
ZONE = 'nova'           # the one availability zone of networks and routers


def zones(placed):
    """``availability_zones`` of what is placed on a host, or not."""
    return [ZONE] if placed else []


def shared_expression(object_type, table):
    """Whether a row is shared with everybody or with the project that asks."""
    def expression(project_id):
        return sa.or_(table.c.shared, sa.exists().where(
            _rbac.object_type == object_type, _rbac.object_id == table.c.id, _rbac.action == 'access_as_shared',
            _rbac.target_tenant == project_id))
    return expression


ATTRIBUTES = [
    *fields.standard(models.networks),
    Field('admin_state_up', fields.BOOLEAN, _networks.admin_state_up, default=True),
    Field('status', fields.STRING, _networks.status, post=False, put=False),
    Field('mtu', fields.integer(0, 65535), _networks.mtu),
    Field(
        'shared',
        fields.BOOLEAN,
        _networks.shared,
        default=False,
        create_rule=ADMIN,
        update_rule=ADMIN,
        expression=shared_expression('network', models.networks),
    ),
    Field('router:external', fields.BOOLEAN, _networks.external, default=False, create_rule=ADMIN, update_rule=ADMIN),
    Field('is_default', fields.BOOLEAN, _networks.is_default, default=False, create_rule=ADMIN, update_rule=ADMIN),
    Field('port_security_enabled', fields.BOOLEAN, _networks.port_security_enabled, default=True),
    Field(
        'provider:network_type',
        fields.text(null=True),
        _networks.network_type,
        create_rule=ADMIN,
        update_rule=ADMIN,
        get_rule=ADMIN,
    ),
    Field(
        'provider:physical_network',
        fields.text(64, null=True),
        _networks.physical_network,
        create_rule=ADMIN,
        update_rule=ADMIN,
        get_rule=ADMIN,
    ),
    Field(
        'provider:segmentation_id',
        fields.integer(null=True),
        _networks.segmentation_id,
        create_rule=ADMIN,
        update_rule=ADMIN,
        get_rule=ADMIN,
    ),
    Field('dns_domain', fields.STRING, _networks.dns_domain, default=''),
    Field('availability_zone_hints', fields.STRINGS, _networks.availability_zone_hints, put=False, default=list),
    Field('availability_zones', fields.STRINGS, None, post=False, put=False, view=zones,
          expression=sa.exists().where(models.dhcp_placements.c.network_id == _networks.id)),
    Field('subnets', fields.IDS, _networks.subnets, post=False, put=False),
    Field('qos_policy_id', fields.ID_OR_NONE, _networks.qos_policy_id, default=None),
    Field('ipv4_address_scope', fields.ID_OR_NONE, _networks.ipv4_address_scope, post=False, put=False),
    Field('ipv6_address_scope', fields.ID_OR_NONE, _networks.ipv6_address_scope, post=False, put=False),
    Field('vlan_transparent', fields.BOOLEAN, None, post=False, put=False, expression=sa.false()),
    Field('l2_adjacency', fields.BOOLEAN, None, post=False, put=False, expression=sa.true()),
]


def check_hints(values):
    """404 where a request names a zone that there is not."""
    for hint in values.get('availability_zone_hints') or ():
        if hint != ZONE:
            raise faults.missing('AvailabilityZoneNotFound', f'AvailabilityZone {hint} could not be found.')


def _check(req, values, row):
    if values.get('qos_policy_id'):
        check_qos(req, values['qos_policy_id'])
    check_hints(values)


def check_qos(req, policy_id):
    """404 unless the caller can use a QoS policy."""
    table = models.qos_policies
    query = sa.select(table.c.id).where(table.c.id == policy_id)
    if not find.sees_all(req.ctx):
        query = query.where(find.usable('qos_policy', table)(req.ctx.project_id))
    with req.db.read() as conn:
        if conn.execute(query).first() is None:
            raise faults.not_found('QoS policy', policy_id, 'QosPolicyNotFound')


NETWORK = Resource('network', 'networks', models.networks, ATTRIBUTES, find.usable_networks, networks.create, networks.update,
                   networks.delete, check=_check, missing=('Network', None))

SEGMENT = Resource(
    'segment', 'segments', models.segments, [
        *fields.standard(models.segments, named=False, owned=False, tagged=False),
        Field('name', fields.text(null=True), _segments.name),
        Field('network_id', fields.ID, _segments.network_id, post=False, put=False),
        Field('network_type', fields.STRING, _segments.network_type, post=False, put=False),
        Field('physical_network', fields.text(null=True), _segments.physical_network, post=False, put=False,
              view=lambda value: value or None),
        Field('segmentation_id', fields.integer(null=True), _segments.segmentation_id, post=False, put=False,
              view=lambda value: value or None),
    ], None, update=networks.update_segment, missing=('Segment', 'SegmentNotFound'),
    policies={'get': policy.ADMIN, 'update': policy.ADMIN})

availability = api.Routes('network_ip_availabilities')
AVAILABILITY = schema.obj({
    'network_id': schema.STRING, 'network_name': schema.STRING, 'project_id': schema.STRING, 'tenant_id': schema.STRING,
    'total_ips': schema.INTEGER, 'used_ips': schema.INTEGER, 'subnet_ip_availability': schema.array(schema.obj({
        'subnet_id': schema.STRING, 'subnet_name': schema.TEXT, 'cidr': schema.STRING, 'ip_version': schema.INTEGER,
        'total_ips': schema.INTEGER, 'used_ips': schema.INTEGER}))})


@availability.get(
    '/network-ip-availabilities',
    rule='get_network_ip_availabilities',
    default=policy.ADMIN,
    summary='Say how full networks are',
    response=schema.wrap('network_ip_availabilities', schema.array(AVAILABILITY)),
)
def list_availabilities(req):
    known = {'network_id': _networks.id, 'network_name': _networks.name, 'tenant_id': _networks.project_id,
             'project_id': _networks.project_id}
    query = sa.select(_networks.id, _networks.name, _networks.project_id)
    version = None
    for name, value in req.query.items():
        if name in known:
            query = query.where(known[name].in_(value if isinstance(value, list) else [value]))
        elif name == 'ip_version':
            version = schema.integer(value, name, 4, 6)
    with req.db.read() as conn:
        return {'network_ip_availabilities': networks.availability(conn, query, version)}


@availability.get('/network-ip-availabilities/{network_id}', rule='get_network_ip_availability', default=policy.ADMIN,
                  summary='Say how full a network is', response=schema.wrap('network_ip_availability', AVAILABILITY))
def show_availability(req, network_id):
    query = sa.select(_networks.id, _networks.name, _networks.project_id).where(_networks.id == network_id)
    with req.db.read() as conn:
        found = networks.availability(conn, query)
    if not found:
        raise faults.not_found('Network', network_id)
    return {'network_ip_availability': found[0]}
