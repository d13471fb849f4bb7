"""Quotas of projects and of the default class, and the limits that a project sees."""
from kodiak.common import api, errors, policy, quota
from kodiak.common.api import schema
from kodiak.compute import conf as options
from kodiak.compute import limits
from kodiak.compute.api import common, groups, keypairs

routes = api.Routes('quotas')
OWN = '((role:reader or role:member) and project_id:%(project_id)s) or role:admin'
NETWORK = ('fixed_ips', 'floating_ips', 'security_groups', 'security_group_rules', 'networks')
FILES = ('injected_files', 'injected_file_content_bytes', 'injected_file_path_bytes')
GROUPS = ('server_groups', 'server_group_members')
#: What a single user can have limits of, beside the project's.
USERS = limits.COUNTED
CLASS = 'class:'
SET = schema.wrap('quota_set', {'type': 'object'})


def known(req, classes=False):
    """The resources that the request's microversion has quotas of."""
    hidden = set()
    if req.at_least(2, 36 if not classes else 50):
        hidden.update(NETWORK)
    if req.at_least(2, 57):
        hidden.update(FILES)
    if classes and not req.at_least(2, 50):
        hidden.update(GROUPS)
    return [name for name in options.QUOTAS if name not in hidden]


def limits_of(connection, conf, project_id, user_id=None):
    """``{resource: limit}`` of a project, or of a user in it."""
    found = limits.of_project(connection, conf, project_id)
    return {**found, **limits.of_user(connection, project_id, user_id)} if user_id else found


def usage(connection, project_id, user_id=None):
    """``{resource: used}`` of a project, or of a user in it."""
    found = limits.used(connection, project_id, user_id)
    found['server_groups'] = groups.count(connection, project_id)
    if user_id:
        found.update(keypairs.count(connection, user_id, ()))
    return found


def _project(req, project_id, **more):
    return {'project_id': project_id}


@routes.get('/os-quota-sets/{project_id}', rule='os_compute_api:os-quota-sets:show', default=OWN, load=_project,
            query={'user_id': schema.STRING}, response=SET, summary='Show the quotas of a project')
def show(req, project_id):
    with req.db.read() as connection:
        found = limits_of(connection, req.app.conf, project_id, req.query.get('user_id'))
    return {'quota_set': {'id': project_id, **{name: found[name] for name in known(req)}}}


@routes.get('/os-quota-sets/{project_id}/defaults', rule='os_compute_api:os-quota-sets:defaults', default=policy.READER,
            load=_project, response=SET, summary='Show the quotas that a project has by default')
def defaults(req, project_id):
    with req.db.read() as connection:
        found = quota.get(connection, CLASS + 'default', options.quotas(req.app.conf))
    return {'quota_set': {'id': project_id, **{name: found[name] for name in known(req)}}}


@routes.get('/os-quota-sets/{project_id}/detail', rule='os_compute_api:os-quota-sets:detail', default=OWN, load=_project,
            query={'user_id': schema.STRING}, response=SET, summary='Show the quotas of a project with what is used of them')
def detail(req, project_id):
    with req.db.read() as connection:
        found = limits_of(connection, req.app.conf, project_id, req.query.get('user_id'))
        used = usage(connection, project_id, req.query.get('user_id'))
    return {'quota_set': {'id': project_id, **{name: {'limit': found[name], 'in_use': used.get(name, 0), 'reserved': 0}
                                               for name in known(req)}}}


LIMIT = {'type': ['integer', 'string'], 'pattern': '^-?[0-9]+$', 'minimum': -1, 'maximum': 2147483647}
CHANGE = schema.wrap('quota_set', schema.obj({**dict.fromkeys((*options.QUOTAS, 'networks'), LIMIT), 'force': common.BOOL,
                                              'tenant_id': schema.STRING, 'id': schema.STRING}))


@routes.put('/os-quota-sets/{project_id}', rule='os_compute_api:os-quota-sets:update', default=policy.ADMIN, load=_project,
            query={'user_id': schema.STRING}, body=CHANGE, response=SET, summary='Set quotas of a project')
def update(req, project_id):
    sent = {name: schema.integer(value, name, -1, 2147483647) for name,
            value in req.body['quota_set'].items() if name in options.QUOTAS}
    for name in sent:
        if name not in known(req):
            raise errors.BadRequest(f"Additional properties are not allowed ('{name}' was unexpected)")
    force = req.body['quota_set'].get('force') in common.TRUE
    user_id = req.query.get('user_id')
    if user_id and set(sent) - set(USERS):
        raise errors.BadRequest(f'A user can have limits of {", ".join(USERS)} in a project, not of '
                                f'{", ".join(sorted(set(sent) - set(USERS)))}.')

    def write(connection):
        used, most = usage(connection, project_id, user_id), limits.of_project(connection, req.app.conf, project_id)
        for name, limit in sent.items():
            if not force and 0 <= limit < used.get(name, 0):
                raise errors.BadRequest(
                    f'Quota limit {limit} for {name} must be greater than or equal to already used and reserved {used[name]}.')
            if user_id and not force and most[name] >= 0 and not 0 <= limit <= most[name]:
                raise errors.BadRequest(f'Quota limit {limit} for {name} must be less than or equal to {most[name]}, which the '
                                        'project has.')
        if user_id:
            limits.put_user(connection, project_id, user_id, sent)
        else:
            quota.put(connection, project_id, sent)
        return limits_of(connection, req.app.conf, project_id, user_id)
    found = req.db.transact(write)
    return {'quota_set': {name: found[name] for name in known(req)}}


@routes.delete('/os-quota-sets/{project_id}', rule='os_compute_api:os-quota-sets:delete', default=policy.ADMIN, load=_project,
               status=202, query={'user_id': schema.STRING},
               summary='Give a project the default quotas again, or a user those of the project')
def delete(req, project_id):
    def write(connection):
        limits.forget_users(connection, project_id, req.query.get('user_id'))
        if not req.query.get('user_id'):
            quota.delete(connection, project_id)
    req.db.transact(write)


@routes.get('/os-quota-class-sets/{name}', rule='os_compute_api:os-quota-class-sets:show', default=policy.ADMIN,
            response=schema.wrap('quota_class_set', {'type': 'object'}), summary='Show the quotas of a class')
def class_show(req, name):
    with req.db.read() as connection:
        found = quota.get(connection, CLASS + name, options.quotas(req.app.conf))
    return {'quota_class_set': {'id': name, **{resource: found[resource] for resource in known(req, True)}}}


@routes.put('/os-quota-class-sets/{name}', rule='os_compute_api:os-quota-class-sets:update', default=policy.ADMIN,
            body=schema.wrap('quota_class_set', schema.obj(dict.fromkeys((*options.QUOTAS, 'networks'), LIMIT))),
            response=schema.wrap('quota_class_set', {'type': 'object'}), summary='Set quotas of a class')
def class_update(req, name):
    sent = {resource: schema.integer(value, resource, -1, 2147483647) for resource, value in req.body['quota_class_set'].items()
            if resource in options.QUOTAS}
    for resource in sent:
        if resource not in known(req, True):
            raise errors.BadRequest(f"Additional properties are not allowed ('{resource}' was unexpected)")

    def write(connection):
        quota.put(connection, CLASS + name, sent)
        return quota.get(connection, CLASS + name, options.quotas(req.app.conf))
    found = req.db.transact(write)
    return {'quota_class_set': {resource: found[resource] for resource in known(req, True)}}


# Limits

ABSOLUTE = {'instances': 'maxTotalInstances', 'cores': 'maxTotalCores', 'ram': 'maxTotalRAMSize', 'key_pairs': 'maxTotalKeypairs',
            'metadata_items': 'maxServerMeta', 'injected_files': 'maxPersonality',
            'injected_file_content_bytes': 'maxPersonalitySize',
            'server_groups': 'maxServerGroups', 'server_group_members': 'maxServerGroupMembers',
            'floating_ips': 'maxTotalFloatingIps',
            'security_groups': 'maxSecurityGroups', 'security_group_rules': 'maxSecurityGroupRules'}
USED = {'instances': 'totalInstancesUsed', 'cores': 'totalCoresUsed', 'ram': 'totalRAMUsed',
        'server_groups': 'totalServerGroupsUsed',
        'floating_ips': 'totalFloatingIpsUsed', 'security_groups': 'totalSecurityGroupsUsed'}
OTHER = 'os_compute_api:limits:other_project'
EXTRA_RULES = [(OTHER, policy.ADMIN, 'See the limits of another project')]


@routes.get('/limits', rule='os_compute_api:limits', default=policy.READER, query={'tenant_id': schema.STRING,
                                                                                   'reserved': schema.STRING},
            response=schema.wrap('limits', {'type': 'object'}), summary='Show the limits of a project')
def show_limits(req):
    project_id = req.query.get('tenant_id') or req.ctx.project_id
    if project_id != req.ctx.project_id:
        req.authorize({'project_id': project_id}, OTHER)
    with req.db.read() as connection:
        allowed = limits_of(connection, req.app.conf, project_id)
        used = usage(connection, project_id)
    names = set(known(req))
    absolute = {shown: allowed[name] for name, shown in ABSOLUTE.items() if name in names}
    if not req.at_least(2, 39):
        absolute['maxImageMeta'] = allowed['metadata_items']
    absolute.update((shown, used.get(name, 0)) for name, shown in USED.items() if name in names)
    return {'limits': {'rate': [], 'absolute': absolute}}
