"""Clusters, of which there are none, since every agent works by itself; and cleaning up after agents that died."""
import sqlalchemy as sa

from kodiak.common import api, errors, heartbeat, saga
from kodiak.common.api import schema
from kodiak.storage_block import states, work
from kodiak.storage_block.models import snapshots, volumes

from . import common
from .services import INSIDE, SHOWN, up

routes = api.Routes('clusters')
NONE = schema.wrap('clusters', schema.array(common.OBJECT))


@routes.get('/clusters', rule='clusters:get_all', default=common.ADMIN, since='3.7', response=NONE,
            summary='List clusters: every agent works by itself')
def clusters(req):
    return {'clusters': []}


@routes.get('/clusters/detail', rule='clusters:get_all', default=common.ADMIN, since='3.7', response=NONE,
            summary='List clusters with details')
def clusters_detail(req):
    return {'clusters': []}


def _missing(name):
    return errors.NotFound(f'Cluster {name} could not be found.', kind='ClusterNotFound')


@routes.get('/clusters/{name}', rule='clusters:get', default=common.ADMIN, since='3.7', response=common.OBJECT,
            query={'binary': schema.STRING}, summary='Show a cluster')
def show(req, name):
    raise _missing(name)


def _set(action):
    @routes.put('/clusters/' + action, rule='clusters:update', default=common.ADMIN, since='3.7', response=common.OBJECT,
                body=schema.obj({'name': schema.NAME, 'binary': schema.NAME, 'disabled_reason': schema.nullable(schema.TEXT)}, [
                    'name']), summary=f'{action.title()} a cluster')
    def change(req):
        raise _missing(req.body['name'])


_set('enable')
_set('disable')

CLEANED = {'Volume': volumes, 'Snapshot': snapshots}
BODY = schema.obj({
    'cluster_name': schema.nullable(schema.TEXT), 'host': schema.nullable(schema.TEXT),
    'service_id': {'type': ['integer', 'string', 'null'], 'maxLength': 64},
    'binary': {'enum': ['cinder-volume', 'cinder-scheduler', None]},
    'is_up': schema.nullable(common.BOOLEAN), 'disabled': schema.nullable(common.BOOLEAN),
    'resource_type': schema.nullable({'type': 'string', 'pattern': '^(?i:volume|snapshot)$'}),
    'resource_id': schema.nullable(schema.UUID)})


@routes.post('/workers/cleanup', rule='workers:cleanup', default=common.ADMIN, since='3.24', status=202, body=BODY,
             response=schema.obj({'cleaning': schema.array(common.OBJECT), 'unavailable': schema.array(common.OBJECT)}),
             summary='Have what services left behind looked after now')
def cleanup(req):
    # What is past its deadline is looked after all the time, so that this only hurries it: agents that are up are asked to look,
    # and the sagas that wait for them do; nobody else reaches the data of one that is down.
    sent = req.body
    is_up = bool(common.truth(sent.get('is_up'), 'is_up'))
    disabled = common.truth(sent.get('disabled'), 'disabled')
    tables = [CLEANED[sent['resource_type'].title()]] if sent.get('resource_type') else list(CLEANED.values())

    def write(connection):
        pending = _pending(connection, tables, sent.get('resource_id'))
        if sent.get('resource_id') and not pending:
            raise errors.BadRequest(f"Invalid input received: There is no resource with UUID {sent['resource_id']} pending "
                                    "cleanup.", kind='InvalidInput')
        backends = {backend for _, backend in pending} if sent.get('resource_id') else None
        cleaning, unavailable = [], []
        for row in connection.execute(heartbeat.query()).mappings():
            if row['binary'] not in SHOWN or not _meant(sent, row, backends) or up(req, row) != is_up or (
                    disabled is not None and bool(row['disabled']) != disabled) or row['binary'] == INSIDE['cinder-backup']:
                continue
            (cleaning if is_up else unavailable).append({
                'id': row['id'], 'host': row['host'], 'binary': SHOWN[row['binary']], 'cluster_name': None})
            if is_up:
                work.bump(connection, work.host_of(row['host']))
        for row_id, backend in pending if is_up else ():
            if backend is None or any(one['host'] == backend for one in cleaning):
                saga.nudge(connection, row_id)
        return {'cleaning': cleaning, 'unavailable': unavailable}
    return req.db.transact(write)


def _meant(sent, row, backends):
    """True if a request means a service."""
    if sent.get('cluster_name'):
        return False
    if backends is not None and row['host'] not in backends:
        return False
    if sent.get('service_id') is not None and str(sent['service_id']) != str(row['id']):
        return False
    return sent.get('host') in (None, row['host'], work.host_of(row['host'])) and sent.get('binary') in (None, SHOWN[row['binary']])


def _pending(connection, tables, row_id):
    """``[(id, back end)]`` of what is in a status that passes."""
    found = []
    for table in tables:
        query = sa.select(table.c.id, table.c.backend).where(table.c.status.in_(states.OF[table.name]))
        found += connection.execute(query if row_id is None else query.where(table.c.id == row_id)).all()
    return found
