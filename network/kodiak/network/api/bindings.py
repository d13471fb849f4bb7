"""Bindings of a port to several hosts, of which one is active: how compute prepares a live migration."""
from kodiak.common import api
from kodiak.common.api import schema
from kodiak.network import migration, unit

from . import ports
from .ports import PORT

routes = api.Routes('bindings')
SERVICE = 'role:admin or role:service'
NEW = schema.wrap('binding', schema.obj({'host': schema.NAME, 'vnic_type': ports.VNIC_TYPES.schema, 'profile': {'type': 'object'},
                                         'project_id': schema.STRING, 'tenant_id': schema.STRING}, ['host']))
CHANGE = schema.wrap('binding', schema.obj({'vnic_type': ports.VNIC_TYPES.schema, 'profile': {'type': 'object'}}))
VIEW = schema.wrap('binding', schema.obj({name: {} for name in (
    'host', 'vif_type', 'vif_details', 'vnic_type', 'profile', 'status')}))


def load(req, id, host):
    """The port of a binding."""
    return PORT.load(req, id)


@routes.get('/ports/{id}/bindings', rule='get_port_binding', default=SERVICE, load=PORT.load, summary='List the bindings of a port')
def list_bindings(req, id):
    with req.db.read() as conn:
        found = migration.bindings(conn, req.target)
    return {'bindings': [one for one in found if all(
        one[name] in (value if isinstance(value, list) else [value]) for name, value in req.query.items()
        if name in ('host', 'status', 'vif_type', 'vnic_type'))]}


@routes.post(
    '/ports/{id}/bindings',
    rule='create_port_binding',
    default=SERVICE,
    load=PORT.load,
    status=201,
    body=NEW,
    response=VIEW,
    summary='Prepare a port on another host',
)
def create_binding(req, id):
    return {'binding': unit.run(req.app, req.ctx, migration.add, req.target, req.body['binding'])}


@routes.get('/ports/{id}/bindings/{host}', rule='get_port_binding', default=SERVICE, load=load, response=VIEW,
            summary='Show the binding of a port to a host')
def show_binding(req, id, host):
    with req.db.read() as conn:
        return {'binding': migration.find_binding(conn, req.target, host)}


@routes.put('/ports/{id}/bindings/{host}', rule='update_port_binding', default=SERVICE, load=load, body=CHANGE, response=VIEW,
            summary='Change how a port is prepared on a host')
def update_binding(req, id, host):
    return {'binding': unit.run(req.app, req.ctx, migration.change, req.target, host, req.body['binding'])}


@routes.put('/ports/{id}/bindings/{host}/activate', rule='activate_port_binding', default=SERVICE, load=load, response=VIEW,
            summary='Have a port be on a host')
def activate_binding(req, id, host):
    return {'binding': unit.run(req.app, req.ctx, migration.activate, req.target, host)}


@routes.delete('/ports/{id}/bindings/{host}', rule='delete_port_binding', default=SERVICE, load=load,
               summary='Forget a port on a host')
def delete_binding(req, id, host):
    unit.run(req.app, req.ctx, migration.remove, req.target, host)
