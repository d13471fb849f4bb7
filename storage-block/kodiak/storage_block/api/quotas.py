"""Quotas of projects and of classes, and the limits that a project sees."""
from kodiak.common import api, errors, quota
from kodiak.common.api import schema
from kodiak.storage_block import quotas

from . import common

routes = api.Routes('quotas')
OWN = '((role:reader or role:member) and project_id:%(project_id)s) or role:admin'
SET = schema.wrap('quota_set', common.OBJECT)
CLASS_SET = schema.wrap('quota_class_set', common.OBJECT)
CLASS = 'class:'
LIMIT = {'type': ['integer', 'string'], 'pattern': '^-?[0-9]+$', 'minimum': -1, 'maximum': 2147483647}
LIMITS = {'type': 'object', 'properties': {'tenant_id': schema.STRING, 'id': schema.STRING}, 'additionalProperties': LIMIT,
          'minProperties': 1}


def _project(req, project_id, **more):
    return {'project_id': project_id}


@routes.get('/os-quota-sets/{project_id}', rule='volume_extension:quotas:show', default=OWN, load=_project,
            query={'usage': schema.BOOLEAN}, response=SET, summary='Show the quotas of a project, and what is used of them')
def show(req, project_id):
    with req.db.read() as connection:
        limits = quotas.limits(connection, req.app.conf, project_id, quotas.type_names(connection))
        if not req.query.get('usage'):
            return {'quota_set': {'id': project_id, **limits}}
        used = quotas.used(connection, project_id)
    return {'quota_set': {'id': project_id, **{name: {'limit': limit, 'in_use': used.get(name, 0), 'reserved': 0}
                                               for name, limit in limits.items()}}}


@routes.get('/os-quota-sets/{project_id}/defaults', rule='volume_extension:quotas:show', default=OWN, load=_project, response=SET,
            summary='Show the quotas that a project has by default')
def defaults(req, project_id):
    with req.db.read() as connection:
        return {'quota_set': {'id': project_id, **_of_class(req, connection, 'default')}}


def _of_class(req, connection, name):
    return quota.get(connection, CLASS + name, quotas.defaults(req.app.conf, quotas.type_names(connection)))


def _sent(req, connection, key):
    known = quotas.defaults(req.app.conf, quotas.type_names(connection))
    sent = {name: value for name, value in req.body[key].items() if name not in ('tenant_id', 'id')}
    wrong = [name for name in sent if name not in known]
    if wrong:
        raise errors.BadRequest(f"Bad key(s) in quota set: {', '.join(wrong)}.")
    return {name: schema.integer(value, name, -1, 2147483647) for name, value in sent.items()}


@routes.put('/os-quota-sets/{project_id}', rule='volume_extension:quotas:update', default=common.ADMIN, load=_project,
            query={'skip_validation': schema.BOOLEAN}, body=schema.wrap('quota_set', LIMITS), response=SET,
            summary='Set quotas of a project')
def update(req, project_id):
    def write(connection):
        sent = _sent(req, connection, 'quota_set')
        if not req.query.get('skip_validation', True):
            used = quotas.used(connection, project_id)
            for name, limit in sent.items():
                if 0 <= limit < used.get(name, 0):
                    raise errors.BadRequest(f'Quota limit {limit} for {name} is below the {used[name]} in use.')
        quota.put(connection, project_id, sent)
        return quotas.limits(connection, req.app.conf, project_id, quotas.type_names(connection))
    return {'quota_set': req.db.transact(write)}


@routes.delete('/os-quota-sets/{project_id}', rule='volume_extension:quotas:delete', default=common.ADMIN, load=_project,
               status=200, summary='Give a project the default quotas again')
def delete(req, project_id):
    req.db.transact(quota.delete, project_id)


@routes.get('/os-quota-class-sets/{name}', rule='volume_extension:quota_classes:get', default=common.ADMIN, response=CLASS_SET,
            summary='Show the quotas of a class')
def class_show(req, name):
    with req.db.read() as connection:
        return {'quota_class_set': {'id': name, **_of_class(req, connection, name)}}


@routes.put('/os-quota-class-sets/{name}', rule='volume_extension:quota_classes:update', default=common.ADMIN,
            body=schema.wrap('quota_class_set', LIMITS), response=CLASS_SET, summary='Set quotas of a class')
def class_update(req, name):
    def write(connection):
        quota.put(connection, CLASS + name, _sent(req, connection, 'quota_class_set'))
        return _of_class(req, connection, name)
    return {'quota_class_set': req.db.transact(write)}


ABSOLUTE = {'volumes': 'maxTotalVolumes', 'gigabytes': 'maxTotalVolumeGigabytes', 'snapshots': 'maxTotalSnapshots',
            'backups': 'maxTotalBackups', 'backup_gigabytes': 'maxTotalBackupGigabytes'}
USED = {'volumes': 'totalVolumesUsed', 'gigabytes': 'totalGigabytesUsed', 'snapshots': 'totalSnapshotsUsed',
        'backups': 'totalBackupsUsed', 'backup_gigabytes': 'totalBackupGigabytesUsed'}
OTHER = 'limits_extension:used_limits'
EXTRA_RULES = [(OTHER, common.ADMIN, 'See the limits of another project')]


@routes.get('/limits', rule='volume:get_limits', default=common.READER, query={
    'project_id': schema.STRING, 'tenant_id': schema.STRING}, response=schema.wrap('limits', common.OBJECT),
    summary='Show the limits of a project')
def limits(req):
    project_id = (req.query.get('project_id') or req.query.get('tenant_id')) if req.at_least(3, 39) else None
    if project_id not in (None, req.ctx.project_id):
        req.authorize({'project_id': project_id}, OTHER)
    project_id = project_id or req.ctx.project_id
    with req.db.read() as connection:
        allowed = quotas.limits(connection, req.app.conf, project_id)
        used = quotas.used(connection, project_id)
    return {'limits': {'rate': [], 'absolute': {**{shown: allowed[name] for name, shown in ABSOLUTE.items()},
                                                **{shown: used[name] for name, shown in USED.items()}}}}
