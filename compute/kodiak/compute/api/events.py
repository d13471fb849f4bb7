"""What other services tell compute: a port was wired, addresses changed."""
from kodiak.common import api, policy, saga
from kodiak.common.api import schema
from kodiak.compute import record, store, volumes
from kodiak.compute.sagas import refresh, relocate, wiring
from kodiak.compute.sagas import volumes as work

routes = api.Routes('external events')
NAMES = ['network-changed', 'network-vif-plugged', 'network-vif-unplugged', 'network-vif-deleted', 'volume-extended',
         'power-update', 'accelerator-request-bound', 'volume-reimaged', 'volume-moving']
EVENT = schema.obj({'name': {'type': 'string', 'enum': NAMES}, 'server_uuid': schema.UUID, 'status': {
    'type': 'string', 'enum': ['failed', 'completed', 'in-progress']}, 'tag': {'type': 'string', 'maxLength': 255}},
    ['name', 'server_uuid'])


@routes.post('/os-server-external-events', rule='os_compute_api:os-server-external-events:create', default=policy.SERVICE,
             body=schema.wrap('events', schema.array(EVENT, minItems=1)),
             response=schema.wrap('events', schema.array({'type': 'object'})), summary='Tell compute of events elsewhere')
def create(req):
    answers = []

    def write(connection):
        answers.clear()
        for event in req.body['events']:
            row = store.lock(connection, event['server_uuid'])
            answer = {**event, 'status': event.get('status', 'completed'), 'code': 200}
            if row is None or row['deleted']:
                answer.update(status='failed', code=404)
            elif not row['host'] and event['name'] != 'network-vif-deleted':
                answer.update(status='failed', code=422)
            else:
                _take(connection, row, event, req.ctx)
            answers.append(answer)
    req.db.transact(write)
    if all(answer['code'] == 404 for answer in answers):
        status = 404
    else:
        status = 200 if all(answer['code'] == 200 for answer in answers) else 207
    return api.Response({'events': answers}, status=status)


def _take(connection, row, event, context):
    name, tag = event['name'], event.get('tag')
    if name == 'network-vif-plugged':
        if event.get('status',
                     'completed') == 'completed' and any(port['id'] == tag and not port['active'] for port in row['networks']):
            store.save(connection, row, networks=wiring.merge_active(row['networks'], [{'id': tag, 'active': True}]),
                       updated_at=row['updated_at'])
        saga.nudge(connection, row['uuid'])
    elif name in ('network-changed', 'network-vif-deleted'):
        refresh.begin(connection, row, context)
    elif name == 'volume-extended' and volumes.find(row, tag) is not None:
        record.begin(connection, row['uuid'], 'extend_volume', context, event='compute_extend_volume', host=row['host'])
        saga.start(connection, work.EXTEND, row['uuid'], {'volume': tag}, context)
    elif name == 'volume-moving' and volumes.find(row, tag) is not None and not work.is_busy(connection, row['uuid'], tag):
        record.begin(connection, row['uuid'], 'move_volume', context, event='compute_move_volume', host=row['host'])
        saga.start(connection, relocate.FOLLOW, row['uuid'], {'volume': tag}, context)
    elif name == 'volume-reimaged':
        saga.nudge(connection, row['uuid'])
