"""Port forwardings of floating addresses, in the API."""
import sqlalchemy as sa

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import faults, forwardings, models, unit

from . import fields, resource
from .routing import FLOATING

routes = api.Routes('port_forwardings')
_forwardings = models.forwardings.c
PATH = '/floatingips/{id}/port_forwardings'
PORT = {'type': ['integer', 'string']}
PROPERTIES = {
    'protocol': {'enum': ['tcp', 'udp', 'icmp', 'icmp6', 'sctp', 'dccp']}, 'external_port': PORT, 'internal_port': PORT,
    'external_port_range': schema.STRING, 'internal_port_range': schema.STRING, 'internal_port_id': schema.STRING,
    'internal_ip_address': schema.TEXT, 'description': {'type': 'string', 'maxLength': 255}, 'project_id': schema.STRING,
    'tenant_id': schema.STRING}
BODY = schema.wrap('port_forwarding', schema.obj(PROPERTIES))
ITEM = schema.obj({name: {} for name in (*PROPERTIES, 'id', 'created_at', 'updated_at', 'revision_number')})


def view(row):
    """A port forwarding as the API shows it."""
    found = {name: row[name] for name in ('id', 'protocol', 'internal_port_id', 'internal_ip_address', 'description',
                                          'revision_number')}
    found.update(created_at=fields.stamp(row['created_at']), updated_at=fields.stamp(row['updated_at']))
    for side in ('external', 'internal'):
        first, last = row[f'{side}_port'], row[f'{side}_port_end']
        found[f'{side}_port_range'] = f'{first}:{last}'
        if first == last:
            found[f'{side}_port'] = first
    return found


def _values(body, new):
    values = {name: body[name] for name in ('protocol', 'internal_port_id', 'internal_ip_address', 'description') if name in body}
    if values.get('internal_ip_address'):
        values['internal_ip_address'] = fields.canonical_ip(values['internal_ip_address'], 'internal_ip_address')
    for side in ('external', 'internal'):
        if f'{side}_port_range' in body:
            first, _, last = body[f'{side}_port_range'].partition(':')
            values[f'{side}_port'] = fields.integer(1, 65535).convert(first, f'{side}_port_range')
            values[f'{side}_port_end'] = fields.integer(1, 65535).convert(last or first, f'{side}_port_range')
        elif f'{side}_port' in body:
            number = fields.integer(1, 65535).convert(body[f'{side}_port'], f'{side}_port')
            values[f'{side}_port'] = values[f'{side}_port_end'] = number
    if values.get('external_port', 0) > values.get('external_port_end', 0) or \
            values.get('internal_port', 0) > values.get('internal_port_end', 0):
        raise faults.bad('Invalid input for a range of ports. Reason: it ends before it begins.', kind='HTTPBadRequest')
    if new:
        for name in ('protocol', 'internal_port_id', 'external_port', 'internal_port'):
            if values.get(name) is None:
                raise faults.bad(f"Failed to parse request. Required attribute '{name}' not specified", kind='HTTPBadRequest')
    return values


def load(req, id, forwarding_id):
    """A port forwarding with its floating address."""
    floating = FLOATING.load(req, id)
    with req.db.read() as conn:
        row = fields.db.one(
            conn, sa.select(models.forwardings).where(_forwardings.id == forwarding_id, _forwardings.floatingip_id == id)
        )
    if row is None:
        raise faults.missing('PortForwardingNotFound', f'Port Forwarding {forwarding_id} could not be found.')
    return {**row, 'floating': floating}


@routes.get(PATH, rule='get_floatingip_port_forwarding', default=policy.PROJECT_READER, load=FLOATING.load,
            response=schema.wrap('port_forwardings', schema.array(ITEM)), summary='List the port forwardings of a floating IP')
def list_forwardings(req, id):
    query = sa.select(models.forwardings).where(_forwardings.floatingip_id == id).order_by(_forwardings.id)
    for name in ('id', 'protocol', 'internal_port_id', 'external_port', 'internal_port', 'internal_ip_address'):
        if name in req.query:
            values = req.query[name]
            query = query.where(resource.equality(name, _forwardings[name])(values if isinstance(values, list) else [values]))
    with req.db.read() as conn:
        return {'port_forwardings': [view(row) for row in conn.execute(query).mappings()]}


@routes.post(
    PATH,
    rule='create_floatingip_port_forwarding',
    default=policy.PROJECT_MEMBER,
    load=FLOATING.load,
    status=201,
    body=BODY,
    response=schema.wrap('port_forwarding', ITEM),
    summary='Lead a port of a floating IP to a guest',
)
def create_forwarding(req, id):
    values = _values(req.body['port_forwarding'], new=True)
    return {'port_forwarding': view(unit.run(req.app, req.ctx, lambda one: forwardings.create(one, req.target, dict(values))))}


@routes.get(PATH + '/{forwarding_id}', rule='get_floatingip_port_forwarding', default=policy.PROJECT_READER, load=load,
            response=schema.wrap('port_forwarding', ITEM), summary='Show a port forwarding')
def show_forwarding(req, id, forwarding_id):
    return {'port_forwarding': view(req.target)}


@routes.put(
    PATH + '/{forwarding_id}',
    rule='update_floatingip_port_forwarding',
    default=policy.PROJECT_MEMBER,
    load=load,
    body=BODY,
    response=schema.wrap('port_forwarding', ITEM),
    summary='Change a port forwarding',
)
def update_forwarding(req, id, forwarding_id):
    values, row = _values(req.body['port_forwarding'], new=False), dict(req.target)
    floating = row.pop('floating')
    return {'port_forwarding': view(unit.run(req.app, req.ctx, lambda one: forwardings.update(one, floating, row, values)))}


@routes.delete(PATH + '/{forwarding_id}', rule='delete_floatingip_port_forwarding', default=policy.PROJECT_MEMBER, load=load,
               summary='Take a port forwarding away')
def delete_forwarding(req, id, forwarding_id):
    unit.run(req.app, req.ctx, lambda one: forwardings.delete(one, req.target['floating'], req.target))
