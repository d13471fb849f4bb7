"""Routers, floating addresses and port forwardings of the API."""
import sqlalchemy as sa

from kodiak.common import api, errors, policy
from kodiak.common.api import schema
from kodiak.network import find, floatingips, models, routers, unit

from . import fields
from .fields import Field
from .networks import check_hints, zones
from .resource import Resource

_routers = models.routers.c
_floating = models.floatingips.c
_ports = models.ports.c
ADMIN = 'role:admin'
GATEWAY_SCHEMA = {'type': ['object', 'null'], 'properties': {
    'network_id': {'type': ['string', 'null']}, 'enable_snat': {'type': ['boolean', 'string', 'integer']},
    'external_fixed_ips': {'type': ['array', 'null'], 'items': {'type': 'object', 'properties': {
        'subnet_id': {'type': ['string', 'null']}, 'ip_address': {'type': ['string', 'null']}}, 'additionalProperties': False}},
    'qos_policy_id': {'type': 'null'}}, 'additionalProperties': False}


def _gateway(value, name):
    if not value:
        return None
    value = dict(value)
    if 'enable_snat' in value:
        value['enable_snat'] = fields.BOOLEAN.convert(value['enable_snat'], 'enable_snat')
    if value.get('external_fixed_ips') is not None:
        value['external_fixed_ips'] = fields.FIXED_IPS.convert(value['external_fixed_ips'], 'external_fixed_ips')
    return value


GATEWAY = fields.Kind(GATEWAY_SCHEMA, _gateway, {})

ROUTER_ATTRIBUTES = [
    *fields.standard(models.routers),
    Field('admin_state_up', fields.BOOLEAN, _routers.admin_state_up, default=True),
    Field('status', fields.STRING, _routers.status, post=False, put=False),
    Field('external_gateway_info', GATEWAY, _routers.external_gateway_info, view=fields.json_or_null),
    Field('routes', fields.ROUTES, _routers.routes, post=False),
    Field('distributed', fields.BOOLEAN, None, expression=sa.false(), create_rule=ADMIN, update_rule=ADMIN, get_rule=ADMIN),
    Field('ha', fields.BOOLEAN, None, expression=sa.false(), create_rule=ADMIN, update_rule=ADMIN, get_rule=ADMIN),
    Field('availability_zone_hints', fields.STRINGS, _routers.availability_zone_hints, put=False, default=list),
    Field('availability_zones', fields.STRINGS, None, post=False, put=False, view=zones, expression=_routers.host != ''),
    Field('flavor_id', fields.ID_OR_NONE, _routers.flavor_id, post=False, put=False),
    Field('gw_port_id', fields.ID_OR_NONE, _routers.gateway_port_id, post=False, put=False, hidden=True),
]


def _check_router(req, values, row):
    check_hints(values)
    for name in ('distributed', 'ha'):
        if values.pop(name, False):
            raise errors.BadRequest(f'Routers cannot be {name} in this cloud.', kind='HTTPBadRequest')
    info = values.get('external_gateway_info') or {}
    action = 'create' if row is None else 'update'
    for name in ('enable_snat', 'external_fixed_ips'):
        if name in info:
            req.authorize(row or {'project_id': values.get('project_id')}, f'{action}_router:external_gateway_info:{name}')


RULES = [(f'{action}_router:external_gateway_info:{name}', ADMIN, f"{action} a router with its gateway's {name}")
         for action in ('create', 'update') for name in ('enable_snat', 'external_fixed_ips')]


ROUTER = Resource('router', 'routers', models.routers, ROUTER_ATTRIBUTES, find.own(models.routers), routers.create, routers.update,
                  routers.delete, check=_check_router, missing=('Router', None))

interfaces = api.Routes('routers')
INTERFACE = schema.obj({'subnet_id': schema.STRING, 'port_id': schema.STRING})
INTERFACE_ANSWER = schema.obj({name: {} for name in (
    'id', 'tenant_id', 'project_id', 'port_id', 'network_id', 'subnet_id', 'subnet_ids')})
EXTRA_ROUTES = schema.wrap('router', schema.obj({'routes': fields.ROUTES.schema}, ['routes']))


def _change_interface(req, function, what):
    def change(one):
        found = function(one, req.target, req.body)
        one.announce('router.interface.' + what, {'router_interface': found}, req.target['id'])
        return found
    return unit.run(req.app, req.ctx, change)


@interfaces.put('/routers/{id}/add_router_interface', rule='add_router_interface', default=policy.PROJECT_MEMBER, load=ROUTER.load,
                body=INTERFACE, response=INTERFACE_ANSWER, summary='Plug a subnet or a port into a router')
def add_router_interface(req, id):
    return _change_interface(req, routers.add_interface, 'create')


@interfaces.put('/routers/{id}/remove_router_interface', rule='remove_router_interface', default=policy.PROJECT_MEMBER,
                load=ROUTER.load, body=INTERFACE, response=INTERFACE_ANSWER, summary='Unplug a subnet or a port from a router')
def remove_router_interface(req, id):
    return _change_interface(req, routers.remove_interface, 'delete')


def _change_routes(req, function):
    routes = fields.ROUTES.convert(req.body['router']['routes'], 'routes')

    def change(one):
        function(one, req.target, routes)
        return ROUTER.fetch(one.conn, req, [req.target['id']])[0]
    return {'router': unit.run(req.app, req.ctx, change)}


@interfaces.put('/routers/{id}/add_extraroutes', rule='add_extraroutes', default=policy.PROJECT_MEMBER, load=ROUTER.load,
                body=EXTRA_ROUTES, summary='Add routes to a router')
def add_extraroutes(req, id):
    return _change_routes(req, routers.add_routes)


@interfaces.put('/routers/{id}/remove_extraroutes', rule='remove_extraroutes', default=policy.PROJECT_MEMBER, load=ROUTER.load,
                body=EXTRA_ROUTES, summary='Take routes away from a router')
def remove_extraroutes(req, id):
    return _change_routes(req, routers.remove_routes)


FLOATING_ATTRIBUTES = [
    *fields.standard(models.floatingips, named=False),
    Field('floating_network_id', fields.ID, _floating.floating_network_id, put=False, default=fields.REQUIRED),
    Field('floating_ip_address', fields.IP_OR_NONE, _floating.floating_ip_address, put=False, create_rule=ADMIN, default=None),
    Field('subnet_id', fields.ID_OR_NONE, None, put=False, hidden=True),
    Field('port_id', fields.ID_OR_NONE, _floating.port_id),
    Field('fixed_ip_address', fields.IP_OR_NONE, _floating.fixed_ip_address),
    Field('router_id', fields.ID_OR_NONE, _floating.router_id, post=False, put=False),
    Field('status', fields.STRING, _floating.status, post=False, put=False),
    Field('dns_name', fields.STRING, _floating.dns_name, put=False, default=''),
    Field('dns_domain', fields.STRING, _floating.dns_domain, put=False, default=''),
    Field('qos_policy_id', fields.ID_OR_NONE, _floating.qos_policy_id, post=False, put=False),
    Field('port_details', fields.OBJECT_OR_NONE, None, post=False, put=False),
    Field('port_forwardings', fields.ANY, None, post=False, put=False),
]
_forwardings = models.forwardings.c


def _details(conn, items, names, req):
    if 'port_details' not in names and 'port_forwardings' not in names:
        return
    ids = [item['id'] for item in items]
    if 'port_details' in names:
        chosen = sa.select(
            _floating.id,
            _ports.name,
            _ports.network_id,
            _ports.mac_address,
            _ports.admin_state_up,
            _ports.status,
            _ports.device_id,
            _ports.device_owner,
        ).join(models.ports, _ports.id == _floating.port_id)
        chosen = chosen.where(_floating.id == ids[0] if len(ids) == 1 else _floating.id.in_(ids))
        found = {row.id: {key: value for key, value in row._mapping.items() if key != 'id'}
                 for row in (conn.execute(chosen) if any(item.get('port_id', True) for item in items) else ())}
        for item in items:
            item['port_details'] = found.get(item['id'])
    if 'port_forwardings' in names:
        listed = {}
        query = sa.select(models.forwardings)
        for row in conn.execute(query.where(_forwardings.floatingip_id.in_(ids)) if ids else query.where(sa.false())):
            listed.setdefault(row.floatingip_id, []).append({
                'protocol': row.protocol, 'internal_ip_address': row.internal_ip_address, 'internal_port': row.internal_port,
                'external_port': row.external_port, 'id': row.id})
        for item in items:
            item['port_forwardings'] = listed.get(item['id'], [])


FLOATING = Resource('floatingip', 'floatingips', models.floatingips, FLOATING_ATTRIBUTES, find.own(models.floatingips),
                    floatingips.create, floatingips.update, floatingips.delete, finish=_details,
                    missing=('Floating IP', 'FloatingIPNotFound'))
