"""Policy documents, and the endpoints, services and regions that they are for."""
import orjson
import sqlalchemy as sa

from kodiak.common import api, db, errors

from .. import core as cores
from .. import notices
from ..models import endpoints, policies, policy_links, regions, services
from . import catalog, kit, rules

routes = api.Routes('policies', '/v3')

KNOWN = ('type', 'blob')
FIELDS = {'type': {'type': 'string', 'maxLength': 255}, 'blob': {'type': ['string', 'object']}}
HOW = kit.listing_of(policies.c.id, {'type': policies.c.type})


def view(req, row):
    """A policy as the API shows it."""
    return {'id': row.id, 'type': row.type, 'blob': orjson.loads(row.blob), **row.extra,
            'links': {'self': f'{req.base_url}/v3/policies/{row.id}'}}


def load(req, policy_id, **more):
    """The policy as ``req.row``."""
    with req.db.read() as connection:
        req.row = connection.execute(sa.select(policies).where(policies.c.id == policy_id)).first()
    if req.row is None:
        raise errors.NotFound(f'Could not find policy: {policy_id}.')
    return {}


@routes.get('/policies', rule='identity:list_policies', default=rules.READ, query=kit.parameters(HOW),
            response=kit.many_of('policies'), summary='List policies')
def list_policies(req):
    """List policies."""
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, sa.select(policies), 'policies', lambda row: view(req, row))


@routes.post('/policies', rule='identity:create_policy', default=rules.ADMIN, body=kit.body('policy', FIELDS, ['blob', 'type']),
             response=kit.one_of('policy', {}), status=201, summary='Create a policy')
def create(req):
    """Store a policy; identity doesn't interpret it."""
    asked = req.body['policy']
    row = {'id': db.new_hex(), 'type': asked['type'], 'blob': orjson.dumps(asked['blob']).decode(),
           'extra': kit.extra_of(asked, KNOWN)}
    return {'policy': view(req, _store(req, policies.insert().values(row), row['id'], 'created'))}


def _store(req, statement, policy_id, what):
    def store(connection):
        if statement is not None:
            connection.execute(statement)
        notices.tell(connection, 'policy', what, policy_id)
        return connection.execute(sa.select(policies).where(policies.c.id == policy_id)).one()
    return cores.of(req).db.transact(store)


@routes.get('/policies/{policy_id}', rule='identity:get_policy', default=rules.READ, load=load, response=kit.one_of('policy', {}),
            summary='Show a policy')
def show(req, policy_id):
    """Show a policy."""
    return {'policy': view(req, req.row)}


@routes.patch('/policies/{policy_id}', rule='identity:update_policy', default=rules.ADMIN, load=load,
              body=kit.body('policy', FIELDS),
              response=kit.one_of('policy', {}), summary='Update a policy')
def update(req, policy_id):
    """Change a policy."""
    asked = req.body['policy']
    kit.same_id(policy_id, asked.get('id'))
    values = kit.merged(req.row._mapping, asked, ('type',), KNOWN)
    if 'blob' in asked:
        values['blob'] = orjson.dumps(asked['blob']).decode()
    statement = sa.update(policies).where(policies.c.id == policy_id).values(values) if values else None
    return {'policy': view(req, _store(req, statement, policy_id, 'updated'))}


@routes.delete('/policies/{policy_id}', rule='identity:delete_policy', default=rules.ADMIN, load=load, summary='Delete a policy')
def delete(req, policy_id):
    """Delete a policy with its associations."""
    def store(connection):
        connection.execute(sa.delete(policies).where(policies.c.id == policy_id))
        notices.tell(connection, 'policy', 'deleted', policy_id)
    cores.of(req).db.transact(store)


PARTS = {'endpoint_id': endpoints, 'service_id': services, 'region_id': regions}


def load_link(req, policy_id, **ids):
    """A policy and what it is associated with; 404 if any of it is missing."""
    load(req, policy_id)
    with req.db.read() as connection:
        for name, key in ids.items():
            table = PARTS[name]
            if connection.execute(sa.select(table.c.id).where(table.c.id == key)).first() is None:
                raise errors.NotFound(f"Could not find {name.removesuffix('_id')}: {key}.")
    return {}


def _of(ids):
    full = {'endpoint_id': '', 'service_id': '', 'region_id': '', **ids}
    return full, [policy_links.c[name] == value for name, value in full.items()]


def _declare(path, what):
    item = '/policies/{policy_id}/OS-ENDPOINT-POLICY' + path

    @routes.put(item, rule=f'identity:create_policy_association_for_{what}', default=rules.ADMIN, load=load_link, status=204,
                summary=f'Associate a policy with {what}')
    def link(req, policy_id, **ids):
        full, where = _of(ids)

        def store(connection):
            connection.execute(sa.delete(policy_links).where(*where))
            connection.execute(policy_links.insert().values(id=db.new_hex(), policy_id=policy_id, **full))
        cores.of(req).db.transact(store)

    @routes.get(item, rule=f'identity:check_policy_association_for_{what}', default=rules.READ, load=load_link, status=204,
                summary=f'Check whether a policy is associated with {what}')
    def check(req, policy_id, **ids):
        with req.db.read() as connection:
            if connection.execute(sa.select(policy_links.c.id).where(policy_links.c.policy_id == policy_id,
                                                                     *_of(ids)[1])).first() is None:
                raise errors.NotFound('Could not find policy association.')

    @routes.delete(item, rule=f'identity:delete_policy_association_for_{what}', default=rules.ADMIN, load=load_link,
                   summary=f'End the association of a policy with {what}')
    def unlink(req, policy_id, **ids):
        cores.of(req).db.transact(lambda connection: connection.execute(
            sa.delete(policy_links).where(policy_links.c.policy_id == policy_id, *_of(ids)[1])) and None)


_declare('/endpoints/{endpoint_id}', 'endpoint')
_declare('/services/{service_id}', 'service')
_declare('/services/{service_id}/regions/{region_id}', 'region_and_service')


def _chain(connection, region_id):
    found = []
    while region_id:
        found.append(region_id)
        region_id = connection.execute(sa.select(regions.c.parent_region_id).where(regions.c.id == region_id)).scalar()
    return found


@routes.get('/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints', rule='identity:list_endpoints_for_policy', default=rules.READ,
            load=load,
            response=kit.many_of('endpoints'), summary='List endpoints that a policy is for')
def list_endpoints(req, policy_id):
    """List the endpoints that a policy is in force for."""
    with req.db.read() as connection:
        every = connection.execute(sa.select(endpoints)).all()
        found = [row for row in every if _effective(connection, row) == policy_id]
    return kit.envelope(req, 'endpoints', [catalog.endpoint_view(req, row) for row in found])


def _effective(connection, endpoint):
    """Id of the policy for an endpoint: its own, its service's in its region or one above, its service's; or None."""
    candidates = [{'endpoint_id': endpoint.id}]
    candidates += [{'service_id': endpoint.service_id, 'region_id': region_id} for region_id in _chain(connection,
                                                                                                       endpoint.region_id)]
    candidates.append({'service_id': endpoint.service_id})
    for ids in candidates:
        found = connection.execute(sa.select(policy_links.c.policy_id).where(*_of(ids)[1])).scalar()
        if found is not None:
            return found
    return None


@routes.get('/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy', rule='identity:get_policy_for_endpoint', default=rules.READ,
            load=catalog.load_endpoint, response=kit.one_of('policy', {}), summary='Show the policy for an endpoint')
def policy_for_endpoint(req, endpoint_id):
    """Show the policy that is in force for an endpoint; 404 if there is none."""
    with req.db.read() as connection:
        policy_id = _effective(connection, req.row)
        row = connection.execute(sa.select(policies).where(policies.c.id == policy_id)).first() if policy_id else None
    if row is None:
        raise errors.NotFound(f'No policy is associated with endpoint {endpoint_id}.')
    return {'policy': view(req, row)}
