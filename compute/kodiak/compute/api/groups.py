"""Server groups: affinity and its opposite."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, policy, quota
from kodiak.common.api import schema
from kodiak.compute import conf as options
from kodiak.compute.api import common
from kodiak.compute.models import groups, servers

routes = api.Routes('server groups')
HARD, SOFT = ('anti-affinity', 'affinity'), ('soft-anti-affinity', 'soft-affinity')
GROUP = schema.wrap('server_group', {'type': 'object'})
CREATE = schema.wrap('server_group', schema.obj({
    'name': {'type': 'string', 'minLength': 1, 'maxLength': 255},
    'policies': {'type': 'array', 'minItems': 1, 'maxItems': 1, 'items': {'type': 'string', 'enum': [*HARD, *SOFT]}},
    'policy': {'type': 'string', 'enum': [*HARD, *SOFT]},
    'rules': schema.obj({'max_server_per_host': {'type': ['integer', 'string'], 'pattern': '^[0-9]+$', 'minimum': 1}})}, ['name']))


def _view(req, row, members):
    found = {'id': row['uuid'], 'name': row['name'], 'members': members.get(row['uuid'], [])}
    if req.at_least(2, 64):
        found.update(policy=row['policy'], rules=row['rules'] or {})
    else:
        found.update(policies=[row['policy']], metadata={})
    if req.at_least(2, 13):
        found.update(project_id=row['project_id'], user_id=row['user_id'])
    return found


def _members(connection, uuids):
    found = {}
    for row in connection.execute(sa.select(servers.c.group_uuid, servers.c.uuid).where(
            servers.c.group_uuid.in_(uuids), servers.c.deleted.is_(False)).order_by(servers.c.id)):
        found.setdefault(row.group_uuid, []).append(row.uuid)
    return found


def load(req, group_id):
    """A group that the caller may know of."""
    with req.db.read() as connection:
        row = db.one(connection, sa.select(groups).where(groups.c.uuid == group_id))
    if row is None or not (row['project_id'] == req.ctx.project_id or req.ctx.is_admin):
        raise errors.NotFound(f'Instance group {group_id} could not be found.')
    return row


ALL_PROJECTS = 'os_compute_api:os-server-groups:index:all_projects'
EXTRA_RULES = [(ALL_PROJECTS, policy.ADMIN, 'List the server groups of all projects')]


@routes.get('/os-server-groups', rule='os_compute_api:os-server-groups:index', default=policy.READER,
            query={'all_projects': schema.STRING, 'limit': schema.INTEGER, 'offset': schema.INTEGER},
            response=schema.wrap('server_groups', schema.array({'type': 'object'})), summary='List server groups')
def index(req):
    query = sa.select(groups).order_by(groups.c.id)
    if not ('all_projects' in req.query and req.allows(ALL_PROJECTS)):
        query = query.where(groups.c.project_id == req.ctx.project_id)
    for name in ('limit', 'offset'):
        if req.query.get(name, 0) < 0:
            raise errors.BadRequest(f"Invalid value '{req.query[name]}' for {name}: it must be at least 0.")
    query = query.offset(req.query.get('offset', 0)).limit(min(req.query.get('limit', common.MAX_PAGE), common.MAX_PAGE))
    with req.db.read() as connection:
        rows = db.all_dicts(connection, query)
        members = _members(connection, [row['uuid'] for row in rows])
    return {'server_groups': [_view(req, row, members) for row in rows]}


def count(connection, project_id):
    """How many server groups a project has."""
    return connection.scalar(sa.select(sa.func.count()).select_from(groups).where(groups.c.project_id == project_id))


@routes.post('/os-server-groups', rule='os_compute_api:os-server-groups:create', default=policy.MEMBER, body=CREATE, response=GROUP,
             summary='Create a server group')
def create(req):
    sent = req.body['server_group']
    common.only(req, sent, since={'policy': (2, 64), 'rules': (2, 64)}, until={'policies': (2, 63)})
    wanted = sent.get('policy') or (sent.get('policies') or [None])[0]
    if wanted is None:
        raise errors.BadRequest('Invalid input for field/attribute server_group: a policy is required.')
    if wanted in SOFT and not req.at_least(2, 15):
        raise errors.BadRequest(
            f"Invalid input for field/attribute policies. Value: {wanted}. '{wanted}' is not one of {list(HARD)}")
    rules = {name: schema.integer(value, name, 1) for name, value in (sent.get('rules') or {}).items()}
    if rules and wanted != 'anti-affinity':
        raise errors.BadRequest('Only anti-affinity policy supports rules.')
    row = {'uuid': db.new_id(), 'project_id': req.ctx.project_id, 'user_id': req.ctx.user_id, 'name': common.text(sent['name'],
                                                                                                                  'name'),
           'policy': wanted, 'rules': rules, 'created_at': db.utcnow()}

    def write(connection):
        try:
            quota.claim(connection, req.ctx.project_id, {'server_groups': 1}, lambda connection, project, resources: {
                'server_groups': count(connection, project)},
                options.quotas(req.app.conf), 'default')
        except errors.QuotaExceeded:
            raise errors.QuotaExceeded('Quota exceeded, too many server groups.') from None
        connection.execute(groups.insert(), row)
    req.db.transact(write)
    return {'server_group': _view(req, row, {})}


@routes.get('/os-server-groups/{group_id}', rule='os_compute_api:os-server-groups:show', default=policy.PROJECT_READER, load=load,
            response=GROUP, summary='Show a server group')
def show(req, group_id):
    with req.db.read() as connection:
        return {'server_group': _view(req, req.target, _members(connection, [group_id]))}


@routes.delete('/os-server-groups/{group_id}', rule='os_compute_api:os-server-groups:delete', default=policy.PROJECT_MEMBER,
               load=load, summary='Delete a server group')
def delete(req, group_id):
    req.db.transact(lambda connection: connection.execute(groups.delete().where(groups.c.uuid == group_id)))
