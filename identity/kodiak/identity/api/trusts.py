"""Trusts."""
import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import notices, people, roles, times
from .. import trusts as domain
from ..models import roles as role_table
from ..models import trusts
from . import delegation, kit, rules

routes = api.Routes('trusts', '/v3/OS-TRUST')

KNOWN = ('trustor_user_id', 'trustee_user_id', 'project_id', 'impersonation', 'expires_at', 'remaining_uses', 'roles',
         'allow_redelegation', 'redelegation_count', 'redelegated_trust_id', 'deleted_at', 'roles_links')
FIELDS = {
    'trustor_user_id': kit.ID, 'trustee_user_id': kit.ID, 'project_id': schema.nullable(kit.ID), 'impersonation': kit.FLAG,
    'expires_at': {'type': ['string', 'null']}, 'remaining_uses': {'type': ['integer', 'null'], 'minimum': 1},
    'allow_redelegation': {'type': ['boolean', 'null']}, 'redelegation_count': {'type': ['integer', 'null'], 'minimum': 0},
    'redelegated_trust_id': {'type': ['string', 'null']},
    'roles': schema.array(schema.obj({'id': kit.ID, 'name': kit.NAME}, extra=True))}
PARTIES = rules.no_domain(f'{rules.READ} or user_id:%(target.trust.trustor_user_id)s or user_id:%(target.trust.trustee_user_id)s')
HOW = kit.listing_of(trusts.c.id, {'trustor_user_id': trusts.c.trustor_id, 'trustee_user_id': trusts.c.trustee_id})


def view(req, row, every=None):
    """A trust as the API shows it; ``every``: roles by id, for those that it delegates."""
    found = {
        'id': row['id'], 'trustor_user_id': row['trustor_id'], 'trustee_user_id': row['trustee_id'],
        'project_id': row['project_id'],
        'impersonation': row['impersonation'], 'expires_at': times.zulu(row['expires_at']), 'remaining_uses': row['remaining_uses'],
        'redelegated_trust_id': row['redelegated_trust_id'], 'redelegation_count': row['redelegation_count'],
        'deleted_at': times.zulu(row['deleted_at']), **row['extra'],
        'links': {'self': f"{req.base_url}/v3/OS-TRUST/trusts/{row['id']}"}}
    if every is not None:
        found['roles'] = [role_view(req, every[role_id]) for role_id in row['role_ids'] if role_id in every]
        found['roles_links'] = {'self': f"{req.base_url}/v3/OS-TRUST/trusts/{row['id']}/roles", 'next': None, 'previous': None}
    return found


def role_view(req, row):
    """A role inside a trust."""
    return {'id': row.id, 'name': row.name, 'domain_id': kit.domain_or_none(row.domain_id), 'description': row.description,
            'options': row.options, 'links': {'self': f'{req.base_url}/v3/roles/{row.id}'}}


def _roles(connection):
    return {row.id: row for row in connection.execute(sa.select(role_table))}


def load(req, trust_id):
    """The trust as a policy target."""
    with req.db.read() as connection:
        try:
            req.row = domain.find(connection, trust_id)
        except errors.NotFound as error:
            raise kit.told(error.message) from None
    return {'target.trust.trustor_user_id': req.row['trustor_id'], 'target.trust.trustee_user_id': req.row['trustee_id']}


@routes.get('/trusts', rule='identity:list_trusts', default=rules.READ, late=True, query=kit.parameters(HOW),
            response=kit.many_of('trusts'), summary='List trusts')
def list_trusts(req):
    """List trusts: all, or those of one's own as trustor or trustee."""
    trustor, trustee = ((req.query.get(name) or [None])[-1] for name in ('trustor_user_id', 'trustee_user_id'))
    if req.ctx.user_id not in (trustor,
                               trustee) or (trustor and trustor != req.ctx.user_id) or (trustee and trustee != req.ctx.user_id):
        req.authorize()
    select = sa.select(trusts).where(
        trusts.c.deleted_at.is_(None), sa.or_(trusts.c.expires_at.is_(None), trusts.c.expires_at > db.utcnow()))
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'trusts', lambda row: view(req, row._mapping))


@routes.post('/trusts', rule='identity:create_trust', late=True, status=201,
             default=rules.in_project('user_id:%(target.trust.trustor_user_id)s'),
             body=kit.body('trust', FIELDS, ['trustor_user_id', 'trustee_user_id', 'impersonation']),
             response=kit.one_of('trust', {}), summary='Create a trust')
def create(req):
    """Create a trust; with a trust-scoped token, delegate that trust further."""
    core, asked = cores.of(req), req.body['trust']
    req.authorize({'target.trust.trustor_user_id': asked['trustor_user_id']})
    claims = delegation.claims(req)
    if (claims.extra.get('app_cred') or {}).get('restricted') or claims.extra.get('oauth') or 'ec2credential' in claims.methods:
        raise errors.Forbidden('A restricted application credential, an OAuth token or a token of an EC2 credential may not be '
                               'used to manage trusts.')
    if asked.get('allow_redelegation') and asked.get('remaining_uses') is not None:
        raise errors.BadRequest('A trust that may be delegated further cannot be limited to a number of uses '
                                '(trust.remaining_uses).')
    row = {'id': db.new_hex(), 'trustor_id': asked['trustor_user_id'], 'trustee_id': asked['trustee_user_id'],
           'project_id': asked.get('project_id'), 'impersonation': asked['impersonation'],
           'expires_at': times.future(asked['expires_at'], 'trust.expires_at') if asked.get('expires_at') else None,
           'remaining_uses': asked.get('remaining_uses'), 'redelegated_trust_id': None, 'redelegation_count': 0,
           'deleted_at': None, 'extra': kit.extra_of(asked, KNOWN)}

    def store(connection):
        if people.by_id(connection, row['trustee_id']) is None:
            raise errors.NotFound(f"Could not find user: {row['trustee_id']}.")
        every = _roles(connection)
        row['role_ids'] = _delegated(core, connection, row, asked.get('roles') or [], every)
        if claims.extra.get('app_cred') and (row['project_id'] not in (None, claims.project_id) or
                                             set(row['role_ids']) - {role_id for role_id, _ in claims.roles}):
            raise errors.Forbidden('An application credential can pass on its own roles in its own project only.')
        parent = claims.extra.get('trust')
        if parent:
            _redelegate(core, connection, row, asked, parent['id'])
        elif asked.get('allow_redelegation'):
            row['redelegation_count'] = _count(core, asked)
        connection.execute(trusts.insert().values(row))
        notices.tell(connection, 'OS-TRUST:trust', 'created', row['id'])
        return view(req, row, every)
    return {'trust': core.db.transact(store)}


def _delegated(core, connection, row, asked, every):
    if not row['project_id']:
        if asked:
            raise errors.BadRequest('Roles are delegated in a project: trust.project_id is missing.')
        return []
    if not asked:
        raise errors.Forbidden('At least one role should be specified.')
    place = roles.place(core, connection, row['project_id'])
    if place is None:
        raise errors.NotFound(f"Could not find project: {row['project_id']}.")
    has = {role_id for role_id, _ in roles.in_project(core, connection, row['trustor_id'], place)}
    found = []
    for each in asked:
        role_id = each.get('id') or next((key for key, role in every.items()
                                          if role.name == each.get('name') and not role.domain_id), None)
        if role_id not in every:
            raise errors.NotFound(f"Could not find role: {each.get('id') or each.get('name')}.")
        if role_id not in has:
            raise errors.Forbidden(f'The trustor has no role {every[role_id].name} in the project.')
        found.append(role_id)
    return list(dict.fromkeys(found))


def _count(core, asked):
    limit = core.conf.trust.max_redelegation_count
    count = asked.get('redelegation_count')
    count = limit if count is None else count
    if count > limit:
        raise errors.Forbidden(f'Requested redelegation depth of {count} is greater than allowed {limit}.')
    return count


def _redelegate(core, connection, row, asked, parent_id):
    parent = domain.find(connection, parent_id)
    if not core.conf.trust.allow_redelegation:
        raise errors.Forbidden('Redelegation of trusts is disabled.')
    if parent['redelegation_count'] < 1:
        raise errors.Forbidden('The trust may not be delegated further.')
    if row['remaining_uses'] is not None:
        raise errors.Forbidden('remaining_uses must be unset in a trust that is delegated further.')
    if row['impersonation'] and not parent['impersonation']:
        raise errors.Forbidden('Impersonation is not allowed because the trust that is delegated further has none.')
    if row['project_id'] != parent['project_id']:
        raise errors.Forbidden('A trust is delegated further in its own project only.')
    graph = roles.graph(core, connection)
    if set(row['role_ids']) - set(graph.expand(parent['role_ids'])):
        raise errors.Forbidden('Some of the requested roles are not in the trust that is delegated further.')
    if parent['expires_at'] is not None and (row['expires_at'] is None or row['expires_at'] > parent['expires_at']):
        if row['expires_at'] is not None:
            raise errors.Forbidden('The requested end is after that of the trust that is delegated further.')
        row['expires_at'] = parent['expires_at']
    remaining = parent['redelegation_count'] - 1
    wanted = asked.get('redelegation_count')
    if wanted is not None and wanted > remaining:
        raise errors.Forbidden(f'Requested redelegation depth of {wanted} is greater than allowed {remaining}.')
    row['redelegation_count'] = (remaining if wanted is None else wanted) if asked.get('allow_redelegation', True) else 0
    row['redelegated_trust_id'] = parent_id


@routes.get('/trusts/{trust_id}', rule='identity:get_trust', default=PARTIES, load=load, response=kit.one_of('trust', {}),
            summary='Show a trust')
def show(req, trust_id):
    """Show a trust."""
    with req.db.read() as connection:
        return {'trust': view(req, req.row, _roles(connection))}


@routes.delete('/trusts/{trust_id}', rule='identity:delete_trust', load=load, summary='Delete a trust',
               default=rules.no_domain(f'{rules.ADMIN} or user_id:%(target.trust.trustor_user_id)s'))
def delete(req, trust_id):
    """End a trust and those delegated from it."""
    core = cores.of(req)
    core.db.transact(lambda connection: domain.end(core, connection, trust_id))


@routes.get('/trusts/{trust_id}/roles', rule='identity:list_roles_for_trust', default=PARTIES, load=load,
            response=kit.many_of('roles'),
            summary='List roles of a trust')
def list_roles(req, trust_id):
    """List the roles that a trust delegates."""
    with req.db.read() as connection:
        every = _roles(connection)
    return kit.envelope(req, 'roles', [role_view(req, every[role_id]) for role_id in req.row['role_ids'] if role_id in every])


def load_role(req, trust_id, role_id):
    """The trust as a policy target; 404 unless it delegates the role."""
    found = req.target = load(req, trust_id)
    if role_id not in req.row['role_ids']:
        raise errors.NotFound(f'Could not find role: {role_id}.')
    return found


@routes.get('/trusts/{trust_id}/roles/{role_id}', rule='identity:get_role_for_trust', default=PARTIES, load=load_role,
            response=kit.one_of('role', {}), summary='Show a role of a trust')
def show_role(req, trust_id, role_id):
    """Show one of the roles that a trust delegates."""
    with req.db.read() as connection:
        return {'role': role_view(req, _roles(connection)[role_id])}
