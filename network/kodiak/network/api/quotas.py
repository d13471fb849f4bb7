"""Quotas of projects."""
from kodiak.common import api, errors, policy, quota
from kodiak.common.api import schema
from kodiak.network import faults, quotas

routes = api.Routes('quotas')
LIMITS = schema.obj({**{name: {'type': ['integer', 'string']} for name in quotas.COUNTED},
                     'check_limit': {'type': ['boolean', 'string']}, 'force': {'type': ['boolean', 'string']}})
OWN_READER = '(role:reader and project_id:%(project_id)s) or role:admin'


def load(req, project_id):
    """The project that a quota is of."""
    return {'project_id': project_id, 'tenant_id': project_id}


def _limits(conn, req, project_id):
    return quota.get(conn, project_id, quotas.defaults(req.app.conf))


@routes.get('/quotas', rule='get_quotas', default=policy.ADMIN, summary='List the quotas of projects that have one of their own')
def list_quotas(req):
    with req.db.read() as conn:
        projects = sorted(set(conn.scalars(quota.limits.select().with_only_columns(quota.limits.c.project_id))))
        return {'quotas': [{**_limits(conn, req, project), 'tenant_id': project, 'project_id': project} for project in projects]}


@routes.get('/quotas/tenant', rule='get_quota_own', default=policy.ANYBODY, summary="Say which project's quota this would be")
@routes.get('/quotas/project', rule='get_quota_own', default=policy.ANYBODY, summary="Say which project's quota this would be")
def show_project(req):
    return {'tenant': {'tenant_id': req.ctx.project_id, 'project_id': req.ctx.project_id}}


@routes.get('/quotas/{project_id}', rule='get_quota', default=OWN_READER, load=load, summary='Show the quota of a project')
def show_quota(req, project_id):
    with req.db.read() as conn:
        return {'quota': _limits(conn, req, project_id)}


@routes.get('/quotas/{project_id}/default', rule='get_quota', default=OWN_READER, load=load,
            summary='Show what a project without a quota of its own may have')
def show_default(req, project_id):
    return {'quota': quotas.defaults(req.app.conf)}


@routes.get('/quotas/{project_id}/details', rule='get_quota', default=OWN_READER, load=load,
            summary='Show what a project may have and has')
@routes.get('/quotas/{project_id}/details.json', rule='get_quota', default=OWN_READER, load=load,
            summary='Show what a project may have and has')
def show_details(req, project_id):
    with req.db.read() as conn:
        limits = _limits(conn, req, project_id)
        used = quotas.count(conn, project_id, list(quotas.COUNTED))
    return {'quota': {name: {'limit': limits[name], 'used': used[name], 'reserved': 0} for name in limits}}


@routes.put('/quotas/{project_id}', rule='update_quota', default=policy.ADMIN, load=load, body=schema.wrap('quota', LIMITS),
            summary='Set limits of a project')
def update_quota(req, project_id):
    body = dict(req.body['quota'])
    check = schema.boolean(body.pop('check_limit', False), 'check_limit')
    body.pop('force', None)         # the opposite of check_limit, and what happens without it
    changes = {name: schema.integer(value, name, -1, 2 ** 31 - 1) for name, value in body.items()}

    def change(conn):
        if check and changes:
            used = quotas.count(conn, project_id, list(changes))
            over = [name for name, limit in changes.items() if 0 <= limit < used[name]]
            if over:
                raise faults.invalid(f'the project has more of {", ".join(sorted(over))} than the limit asked for.')
        quota.put(conn, project_id, changes)
        return _limits(conn, req, project_id)
    return {'quota': req.db.transact(change)}


@routes.delete('/quotas/{project_id}', rule='delete_quota', default=policy.ADMIN, load=load,
               summary='Give a project the default limits again')
def delete_quota(req, project_id):
    if not req.db.transact(quota.delete, project_id):
        raise errors.NotFound(f'Quota for tenant {project_id} could not be found.', kind='TenantQuotaNotFound')


