"""The list of role assignments."""
from kodiak.common import api, errors
from kodiak.common.api import schema

from .. import assignments, roles
from .. import core as cores
from . import kit, rules

routes = api.Routes('role assignments', '/v3')
RULES = [('identity:list_role_assignments_for_tree', rules.LIST, 'List role assignments of a project and all below it')]


def _query(req):
    args = req.http.args
    inherited = None
    if 'scope.OS-INHERIT:inherited_to' in args:
        if args['scope.OS-INHERIT:inherited_to'] != 'projects':
            raise errors.BadRequest('Invalid value for scope.OS-INHERIT:inherited_to: it must be projects.')
        inherited = True
    return assignments.Query(
        user=args.get('user.id'), group=args.get('group.id'), role=args.get('role.id'), project=args.get('scope.project.id'),
        domain=args.get('scope.domain.id'), system='scope.system' in args, effective=kit.flag(req, 'effective'),
        subtree=kit.flag(req, 'include_subtree'), inherited=inherited)


@routes.get('/role_assignments', rule='identity:list_role_assignments', default=rules.LIST, late=True,
            response=kit.many_of('role_assignments'), summary='List role assignments',
            query=dict.fromkeys((
                'user.id', 'group.id', 'role.id', 'scope.project.id', 'scope.domain.id', 'scope.system', 'effective',
                'include_names', 'include_subtree', 'scope.OS-INHERIT:inherited_to'), schema.STRING))
def list_assignments(req):
    """List role assignments; a token of a domain sees those in that domain."""
    core, query = cores.of(req), _query(req)
    domain_id = req.ctx.domain_id
    if query.subtree:
        with req.db.read() as connection:
            where = roles.place(core, connection, query.project)
        req.authorize({'target.domain_id': where and where.domain['id'], 'target.project.id': query.project}, RULES[0][0])
    else:
        req.authorize({'target.domain_id': domain_id})
    with req.db.read() as connection:
        found = assignments.find(core, connection, query)
        if domain_id:
            found = [each for each in found if each.target_kind != 'system' and _inside(core, connection, each, domain_id)]
        names = assignments.Names(connection, found) if kit.flag(req, 'include_names') else None
    return kit.envelope(req, 'role_assignments', [view(req.base_url + '/v3', each, names) for each in found])


def _inside(core, connection, each, domain_id):
    where = roles.place(core, connection, each.target_id)
    return where is not None and where.domain['id'] == domain_id


def view(base, each, names):
    """One assignment as the API shows it."""
    found = {'role': names.of('roles', each.role_id) if names else {'id': each.role_id}, 'scope': {}, 'links': {}}
    found[each.actor_kind] = names.of(each.actor_kind + 's', each.actor_id) if names else {'id': each.actor_id}
    if each.target_kind == 'system':
        found['scope']['system'] = {'all': True}
    else:
        shown = names.of('projects', each.target_id) if names else {'id': each.target_id}
        if each.target_kind == 'domain':
            shown.pop('domain', None)
        found['scope'][each.target_kind] = shown
    if each.inherited:
        found['scope']['OS-INHERIT:inherited_to'] = 'projects'
    kind, target = each.above or (each.target_kind, each.target_id)
    actor = f'groups/{each.group_id}' if each.group_id else f'{each.actor_kind}s/{each.actor_id}'
    place = '/system' if kind == 'system' else f'/{kind}s/{target}'
    path = f'{place}/{actor}/roles/{each.prior or each.role_id}'
    found['links']['assignment'] = base + (f'/OS-INHERIT{path}/inherited_to_projects' if each.inherited else path)
    if each.group_id:
        found['links']['membership'] = f'{base}/groups/{each.group_id}/users/{each.actor_id}'
    if each.prior:
        found['links']['prior_role'] = f'{base}/roles/{each.prior}'
    return found
