"""Small resources: availability zones, service providers, the auto-allocated topology, what new security groups begin with."""
import sqlalchemy as sa

from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.network import models, placement, security, topology, unit

from . import fields
from .fields import Field
from .networks import ZONE
from .resource import Resource
from .security import ANY_TEXT, ETHERTYPE

routes = api.Routes('others')
_agents = models.agents.c
_hosts = models.hosts.c
_templates = models.default_rules.c
ZONES = {placement.DHCP_AGENT: 'network', placement.L3_AGENT: 'router'}


@routes.get('/availability_zones', rule='get_availability_zone', default=policy.READER, summary='List availability zones',
            response=schema.wrap('availability_zones', schema.array(schema.obj(
                {'name': schema.STRING, 'resource': schema.STRING, 'state': schema.STRING}))))
def list_zones(req):
    with req.db.read() as conn:
        kinds = conn.execute(sa.select(_agents.agent_type, sa.func.max(sa.case((sa.and_(
            _agents.admin_state_up, _hosts.last_seen_at > placement.horizon(req.app.conf.network)), 1), else_=0)).label('up')).join(
                models.hosts, _hosts.host == _agents.host).where(_agents.agent_type.in_(ZONES)).group_by(_agents.agent_type)).all()
    found = [{'name': ZONE, 'resource': ZONES[row.agent_type], 'state': 'available' if row.up else 'unavailable'} for row in kinds]
    return {'availability_zones': [one for one in found if all(
        one.get(name) in (value if isinstance(value, list) else [value]) for name, value in req.query.items() if name in one)]}


@routes.get('/service-providers', rule='get_service_provider', default=policy.READER, summary='List who provides which service',
            response=schema.wrap('service_providers', schema.array(schema.obj(
                {'service_type': schema.STRING, 'name': schema.STRING, 'default': schema.BOOLEAN}))))
def list_providers(req):
    return {'service_providers': [{'service_type': 'L3_ROUTER_NAT', 'name': 'single_node', 'default': True}]}


def load_project(req, project_id):
    """The project that a topology is of."""
    project_id = req.ctx.project_id if project_id in ('None', 'null') else project_id
    if project_id != req.ctx.project_id and not req.ctx.is_admin:
        raise errors.NotFound(f'No auto-allocated topology for project {project_id}.', kind='AutoAllocatedTopologyNotFound')
    return {'project_id': project_id}


@routes.get(
    '/auto-allocated-topology/{project_id}',
    rule='get_auto_allocated_topology',
    default=policy.PROJECT_READER,
    load=load_project,
    query={'fields': {'type': 'array'}},
    summary='Make, or show, the auto-allocated topology of a project',
    response=schema.wrap(
        'auto_allocated_topology', schema.obj({'id': schema.STRING, 'tenant_id': schema.STRING, 'project_id': schema.STRING})
    ),
)
def get_topology(req, project_id):
    project_id = req.target['project_id']
    if 'dry-run' in (req.query.get('fields') or ()):
        unit.run(req.app, req.ctx, topology.check)
        return {'auto_allocated_topology': {'id': 'dry-run=pass', 'tenant_id': project_id, 'project_id': project_id}}
    found = unit.run(req.app, req.ctx, topology.get, project_id)
    return {'auto_allocated_topology': {'id': found, 'tenant_id': project_id, 'project_id': project_id}}


@routes.delete('/auto-allocated-topology/{project_id}', rule='delete_auto_allocated_topology', default=policy.PROJECT_MEMBER,
               load=load_project, summary='Delete the auto-allocated topology of a project')
def delete_topology(req, project_id):
    unit.run(req.app, req.ctx, topology.delete, req.target['project_id'])


TEMPLATE = Resource(
    'default_security_group_rule',
    'default_security_group_rules',
    models.default_rules,
    [
        *fields.standard(models.default_rules, named=False, owned=False, tagged=False),
        Field('direction', fields.choice('ingress', 'egress'), _templates.direction, put=False, default=fields.REQUIRED),
        Field('ethertype', ETHERTYPE, _templates.ethertype, put=False, default='IPv4'),
        Field('protocol', ANY_TEXT, _templates.protocol, put=False, default=None),
        Field('port_range_min', fields.integer(null=True), _templates.port_range_min, put=False, default=None),
        Field('port_range_max', fields.integer(null=True), _templates.port_range_max, put=False, default=None),
        Field('remote_ip_prefix', fields.CIDR_OR_NONE, _templates.remote_ip_prefix, put=False, default=None),
        Field('remote_group_id', fields.text(36, null=True), _templates.remote_group_id, put=False, default=None),
        Field('remote_address_group_id', fields.text(36, null=True), _templates.remote_address_group_id, put=False, default=None),
        Field('used_in_default_sg', fields.BOOLEAN, _templates.used_in_default_sg, put=False, default=False),
        Field('used_in_non_default_sg', fields.BOOLEAN, _templates.used_in_non_default_sg, put=False, default=True),
    ],
    None,
    security.create_template,
    None,
    security.delete_template,
    missing=('Default security group rule', 'DefaultSecurityGroupRuleNotFound'),
    policies={'create': policy.ADMIN, 'delete': policy.ADMIN},
)
