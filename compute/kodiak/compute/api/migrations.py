"""Moves of servers between hosts or sizes."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, policy
from kodiak.common.api import schema
from kodiak.compute import view
from kodiak.compute.api import common
from kodiak.compute.api.servers import timestamp
from kodiak.compute.models import migrations

routes = api.Routes('migrations')
LIST = api.Listing(migrations.c.uuid, {'created_at': migrations.c.created_at, 'id': migrations.c.id},
                   [('created_at', 'desc'), ('id', 'desc')], max_limit=common.MAX_PAGE)
FILTERS = {'host': None, 'status': migrations.c.status, 'source_compute': migrations.c.source,
           'instance_uuid': migrations.c.server_uuid,
           'migration_type': migrations.c.kind, 'user_id': migrations.c.user_id, 'project_id': migrations.c.project_id}
LIVE = 'live-migration'


def _view(req, row):
    found = {'id': row['id'], 'source_node': row['source_node'], 'dest_node': row['dest_node'], 'source_compute': row['source'],
             'dest_compute': row['dest'], 'dest_host': None, 'status': row['status'], 'instance_uuid': row['server_uuid'],
             'old_instance_type_id': None, 'new_instance_type_id': None, 'created_at': view.micro_time(row['created_at']),
             'updated_at': view.micro_time(row['updated_at'])}
    if req.at_least(2, 23):
        found['migration_type'] = row['kind']
        if row['kind'] == LIVE and row['status'] in ('queued', 'preparing', 'running', 'post-migrating'):
            found['links'] = [{'rel': rel, 'href': f'{req.base_url}{prefix}/servers/{row["server_uuid"]}/migrations/{row["id"]}'}
                              for rel, prefix in (('self', req.api.prefix), ('bookmark', ''))]
    if req.at_least(2, 59):
        found['uuid'] = row['uuid']
    if req.at_least(2, 80):
        found.update(user_id=row['user_id'], project_id=row['project_id'])
    return found


@routes.get('/os-migrations', rule='os_compute_api:os-migrations:index', default=policy.ADMIN,
            query={**dict.fromkeys(FILTERS, schema.STRING), 'hidden': schema.STRING, 'limit': schema.INTEGER,
                   'marker': schema.STRING,
                   'changes-since': schema.STRING, 'changes-before': schema.STRING},
            response=schema.obj({'migrations': schema.array({'type': 'object'}), 'migrations_links': common.LINKS}),
            summary='List migrations')
def index(req):
    conditions = []
    for name, column in FILTERS.items():
        value = req.query.get(name)
        if value is None or (name in ('user_id', 'project_id') and not req.at_least(2, 80)):
            continue
        conditions.append(column == value if column is not None else sa.or_(migrations.c.source == value,
                                                                            migrations.c.dest == value))
    since, before = req.query.get('changes-since'), req.query.get('changes-before')
    if since and req.at_least(2, 59):
        conditions.append(migrations.c.updated_at >= timestamp(since, 'changes-since'))
    if before and req.at_least(2, 66):
        if since and timestamp(since, 'changes-since') > timestamp(before, 'changes-before'):
            raise errors.BadRequest('The value of changes-since must be less than or equal to changes-before.')
        conditions.append(migrations.c.updated_at <= timestamp(before, 'changes-before'))
    with req.db.read() as connection:
        rows, more = LIST.page(connection, sa.select(migrations).where(*conditions), req.query if req.at_least(2, 59) else {})
    answer = {'migrations': [_view(req, row._mapping) for row in rows]}
    if more and req.at_least(2, 59):
        answer.update(common.next_link(req, 'migrations_links', rows[-1].uuid))
    return answer


@routes.get('/servers/{server_id}/migrations', rule='os_compute_api:servers:migrations:index', default=policy.ADMIN,
            load=common.load_server, since='2.23', response=schema.wrap('migrations', schema.array({'type': 'object'})),
            summary='List the live migrations of a server that run')
def of_server(req, server_id):
    return {'migrations': []}


def _none(req, server_id, migration_id, **more):
    row = common.load_server(req, server_id)
    return {**row, 'migration_id': migration_id}


@routes.get('/servers/{server_id}/migrations/{migration_id}', rule='os_compute_api:servers:migrations:show', default=policy.ADMIN,
            load=_none, since='2.23', summary='Show a live migration that runs')
def show(req, server_id, migration_id):
    with req.db.read() as connection:
        row = db.one(connection,
                     sa.select(migrations).where(migrations.c.server_uuid == server_id)) if migration_id.isdigit() else None
    if row is not None and str(row['id']) == migration_id:
        raise errors.NotFound(f'Migration {migration_id} for server {server_id} is not live-migration.')
    raise errors.NotFound(f'Migration {migration_id} for server {server_id} could not be found.')


@routes.delete('/servers/{server_id}/migrations/{migration_id}', rule='os_compute_api:servers:migrations:delete',
               default=policy.ADMIN,
               load=_none, since='2.24', status=202, summary='Abort a live migration')
def abort(req, server_id, migration_id):
    raise errors.NotFound(f'Migration {migration_id} for server {server_id} could not be found.')


@routes.post('/servers/{server_id}/migrations/{migration_id}/action', action='force_complete', default=policy.ADMIN, load=_none,
             rule='os_compute_api:servers:migrations:force_complete', since='2.22', status=202,
             body=schema.obj({'force_complete': {}}),
             summary='Force a live migration to its end')
def force_complete(req, server_id, migration_id):
    raise errors.NotFound(f'Migration {migration_id} for server {server_id} could not be found.')
