"""Quality-of-service policies of the API, and their rules."""
import sqlalchemy as sa

from kodiak.common import api, policy
from kodiak.common.api import schema
from kodiak.network import faults, find, models, qos, unit

from . import fields
from .fields import Field
from .networks import shared_expression
from .resource import Resource

_policies = models.qos_policies.c
_rules = models.qos_rules.c
ADMIN = 'role:admin'


def _view(row):
    found = {'id': row['id'], **row['params']}
    if row['type'] in qos.DIRECTED:
        found['direction'] = row['direction']
    return found


def _with_rules(conn, items, names, req):
    if 'rules' not in names or not items:
        return
    listed = {}
    for row in conn.execute(sa.select(models.qos_rules).where(
            _rules.qos_policy_id.in_([item['id'] for item in items])).order_by(_rules.id)).mappings():
        listed.setdefault(row['qos_policy_id'], []).append(
            {**_view(row), 'type': row['type'], 'qos_policy_id': row['qos_policy_id']})
    for item in items:
        item['rules'] = listed.get(item['id'], [])


POLICY = Resource(
    'policy',
    'policies',
    models.qos_policies,
    [
        *fields.standard(models.qos_policies),
        Field(
            'shared',
            fields.BOOLEAN,
            _policies.shared,
            default=False,
            expression=shared_expression('qos_policy', models.qos_policies),
        ),
        Field('is_default', fields.BOOLEAN, _policies.is_default, default=False),
        Field('rules', fields.ANY, None, post=False, put=False),
    ],
    find.usable('qos_policy', models.qos_policies),
    qos.create,
    qos.update,
    qos.delete,
    finish=_with_rules,
    path='/qos/policies',
    missing=('QoS policy', 'QosPolicyNotFound'),
    policies={'create': ADMIN, 'update': ADMIN, 'delete': ADMIN},
)

routes = api.Routes('policies')


def _declare(kind):
    name, path = f'{kind}_rule', f'/qos/policies/{{id}}/{kind}_rules'
    bodies = {parameter: fields.integer(least, greatest).schema for parameter, (least, greatest, _) in qos.TYPES[kind].items()}
    if kind in qos.DIRECTED:
        bodies['direction'] = {'enum': ['egress', 'ingress']}
    item = schema.obj({'id': schema.STRING, **{one: {} for one in bodies}})
    body = schema.wrap(name, schema.obj(bodies))
    what = kind.replace('_', ' ') + ' rule'

    def values(req):
        return {one: value if one == 'direction' else fields.INTEGER.convert(value, one) for one, value in req.body[name].items()}

    def load(req, id, rule_id):
        POLICY.load(req, id)
        with req.db.read() as conn:
            row = fields.db.one(conn, sa.select(models.qos_rules).where(
                _rules.id == rule_id, _rules.qos_policy_id == id, _rules.type == kind))
        if row is None:
            raise faults.missing(
                'QosRuleNotFound', f'QoS rule of type {kind} for QoS policy {id} with id {rule_id} could not be found.'
            )
        return row

    @routes.get(path, rule=f'get_policy_{name}', default=policy.READER, load=POLICY.load, summary=f'List the {what}s of a policy',
                response=schema.wrap(f'{name}s', schema.array(item)))
    def list_rules(req, id):
        with req.db.read() as conn:
            return {f'{name}s': [_view(row) for row in conn.execute(sa.select(models.qos_rules).where(
                _rules.qos_policy_id == id, _rules.type == kind).order_by(_rules.id)).mappings()]}

    @routes.post(path, rule=f'create_policy_{name}', default=ADMIN, load=POLICY.load, status=201, body=body,
                 response=schema.wrap(name, item), summary=f'Add a {what} to a policy')
    def create_rule(req, id):
        return {name: _view(unit.run(req.app, req.ctx, lambda one: qos.create_rule(one, req.target, kind, values(req))))}

    @routes.get(path + '/{rule_id}', rule=f'get_policy_{name}', default=policy.READER, load=load, response=schema.wrap(name, item),
                summary=f'Show a {what}')
    def show_rule(req, id, rule_id):
        return {name: _view(req.target)}

    @routes.put(path + '/{rule_id}', rule=f'update_policy_{name}', default=ADMIN, load=load, body=body,
                response=schema.wrap(name, item), summary=f'Change a {what}')
    def update_rule(req, id, rule_id):
        return {name: _view(unit.run(req.app, req.ctx, lambda one: qos.update_rule(one, req.target, values(req))))}

    @routes.delete(
        path + '/{rule_id}', rule=f'delete_policy_{name}', default=ADMIN, load=load, summary=f'Take a {what} out of a policy'
    )
    def delete_rule(req, id, rule_id):
        unit.run(req.app, req.ctx, lambda one: qos.delete_rule(one, req.target))


for _kind in qos.TYPES:
    _declare(_kind)


@routes.get(
    '/qos/rule-types', rule='get_rule_type', default=policy.READER, summary='List the types of rules that policies can have'
)
def list_types(req):
    return {'rule_types': [{'type': kind} for kind in qos.TYPES]}


@routes.get('/qos/rule-types/{kind}', rule='get_rule_type', default=policy.READER, summary='Show a type of rules')
def show_type(req, kind):
    if kind not in qos.TYPES:
        raise faults.missing('QosRuleTypeNotFound', f'Rule type {kind} could not be found.')
    return {'rule_type': {'type': kind, 'drivers': [{'name': 'linuxbridge', 'supported_parameters': [
        {'parameter_name': name, 'parameter_type': 'range', 'parameter_values': {'start': least, 'end': greatest}}
        for name, (least, greatest, _) in qos.TYPES[kind].items()]}]}}
