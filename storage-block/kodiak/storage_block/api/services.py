"""What the operator sees of the back ends: services, hosts, pools, capabilities, availability zones."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, heartbeat
from kodiak.common.api import schema
from kodiak.storage_block import log_levels, rpc, scheduler, types, work
from kodiak.storage_block.models import backends, services, snapshots, volumes

from . import common

routes = api.Routes('services')
CONDUCTOR = 'kodiak-storage-block-conductor'
SHOWN = {scheduler.BINARY: 'cinder-volume', scheduler.BACKUP_BINARY: 'cinder-backup', CONDUCTOR: 'cinder-scheduler'}
INSIDE = {shown: binary for binary, shown in SHOWN.items()}


def _rows(req, connection):
    """The services that users of the API know, with the zone and the row of their back end."""
    there = {row['name']: row for row in db.all_dicts(connection, sa.select(backends))}
    for row in db.all_dicts(connection, heartbeat.query()):
        if row['binary'] in SHOWN:
            backend = there.get(row['host'])
            yield row, backend, backend['zone'] if backend else req.app.conf.storage_block.default_availability_zone


def up(req, row):
    """True while a service answers."""
    return heartbeat.is_up(row, down_after=req.app.conf.storage_block.agent_down_time)


@routes.get('/os-services', rule='volume_extension:services:index', default=common.ADMIN, query={
    'host': schema.STRING, 'binary': schema.STRING, 'service': schema.STRING}, response=schema.wrap(
        'services', schema.array(common.OBJECT)), summary='List the services and back ends')
def index(req):
    host, binary = req.query.get('host'), req.query.get('binary') or req.query.get('service')
    found = []
    with req.db.read() as connection:
        for row, backend, zone in _rows(req, connection):
            shown = SHOWN[row['binary']]
            if binary not in (None, shown) or host not in (None, row['host'], work.host_of(row['host'])):
                continue
            entry = {'binary': shown, 'host': row['host'], 'zone': zone, 'status': 'disabled' if row['disabled'] else 'enabled',
                     'state': 'up' if up(req, row) else 'down', 'updated_at': row['last_seen_at'],
                     'disabled_reason': row['disabled_reason']}
            if backend is not None:
                entry.update(frozen=backend['frozen'], replication_status='disabled', active_backend_id=None)
                if req.at_least(3, 49):
                    entry['backend_state'] = 'down' if backend['stats'].get('error') else 'up'
            if req.at_least(3, 7):
                entry['cluster'] = None
            found.append(entry)
    return {'services': found}


NAMED = {'host': schema.NAME, 'binary': schema.NAME, 'service': schema.NAME, 'cluster': schema.nullable(schema.TEXT)}


def _service(connection, sent):
    binary = sent.get('binary') or sent.get('service')
    if not binary:
        raise errors.BadRequest("Missing required element 'binary' in request body.")
    row = db.one(connection, sa.select(services).where(
        services.c.host == sent['host'], services.c.binary == INSIDE.get(binary, ''))) or db.one(connection, sa.select(
            services).where(services.c.host.like(sent['host'] + '@%'), services.c.binary == INSIDE.get(binary, '')))
    if row is None:
        raise errors.NotFound(f"Service {binary} could not be found on host {sent['host']}.", kind='ServiceNotFound')
    return row, binary


def _set(name, disabled, required=('host',), reason=False):
    @routes.put('/os-services/' + name, rule='volume_extension:services:update', default=common.ADMIN, body=schema.obj({
        **NAMED, 'disabled_reason': {'type': 'string', 'minLength': 1, 'maxLength': 255}}, required), response=common.OBJECT,
        summary=f'{name.title()} a service')
    def change(req):
        def write(connection):
            row, binary = _service(connection, req.body)
            connection.execute(services.update().where(services.c.id == row['id']).values(
                disabled=disabled, disabled_reason=req.body.get('disabled_reason') if reason else None))
            return {'host': row['host'], 'service': binary, 'binary': binary, 'disabled': disabled,
                    'status': 'disabled' if disabled else 'enabled'}
        found = req.db.transact(write)
        if reason or not disabled:
            found['disabled_reason'] = req.body.get('disabled_reason') if reason else None
        return found


_set('enable', False)
_set('disable', True)
_set('disable-log-reason', True, ('host', 'disabled_reason'), reason=True)


def _backend(req, connection):
    """The row of the back end that a request names; clusters there are none."""
    name, cluster = req.body.get('host'), req.body.get('cluster')
    if bool(name) == bool(cluster):
        raise errors.BadRequest("Invalid input received: Name either 'host' or 'cluster'.", kind='InvalidInput')
    row = name and db.one(connection, sa.select(backends).where(backends.c.name == name.partition('#')[0]).with_for_update())
    if not row:
        raise errors.BadRequest(f'Invalid input received: There is no back end {name or cluster}.', kind='InvalidInput')
    return row


def _freeze(name, frozen):
    @routes.put('/os-services/' + name, rule=f'volume:{name}_host', default=common.ADMIN, body=schema.obj(NAMED),
                summary=f'{name.title()} a back end: whether new volumes are placed on it')
    def change(req):
        def write(connection):
            row = _backend(req, connection)
            if row['frozen'] == frozen:
                raise errors.BadRequest(f"Invalid input received: {row['name']} is {'frozen already' if frozen else 'not frozen'}.",
                                        kind='InvalidInput')
            connection.execute(backends.update().where(backends.c.name == row['name']).values(frozen=frozen))
        req.db.transact(write)


_freeze('freeze', True)
_freeze('thaw', False)


def _failover(name, since=None):
    @routes.put('/os-services/' + name, rule='volume:failover_host', default=common.ADMIN, since=since, body=schema.obj({
        **NAMED, 'backend_id': schema.nullable(schema.TEXT)}), status=202,
        summary='Fail over to a replica: no back end here has one')
    def failover(req):
        with req.db.read() as connection:
            row = _backend(req, connection)
        raise errors.BadRequest(f"Invalid input received: The back end {row['name']} has no replication target: its "
                                'replication_status is disabled.', kind='InvalidInput')


_failover('failover_host')
_failover('failover', '3.26')


# Logging (3.32)

API_BINARY = 'cinder-api'
ASKED = {'binary': {'enum': [*INSIDE, API_BINARY, '*', '', None]}, 'server': schema.TEXT, 'prefix': schema.TEXT}


def _logging(req, call, **more):
    """``[(binary, host, answer)]`` of every process that a request means, up, and within reach."""
    binary, server, prefix = (req.body.get(name) or '' for name in ('binary', 'server', 'prefix'))
    found, answers = [], {}
    with req.db.read() as connection:
        rows = [row for row, *_ in _rows(req, connection) if up(req, row)]
    if binary in ('', '*', API_BINARY) and server in ('', req.app.host):
        found.append((API_BINARY, req.app.host, getattr(log_levels.Handlers(), call)(req.ctx, prefix, **more)))
    for row in rows:
        host = work.host_of(row['host'])
        if binary not in ('', '*', SHOWN[row['binary']]) or server not in ('', host, row['host']):
            continue
        of = (rpc.CONDUCTOR, rpc.CONDUCTOR_TOPIC) if row['binary'] == CONDUCTOR else (rpc.AGENT, rpc.AGENT_TOPIC)
        # The back ends of a host have one agent.
        key = (of[1], host)
        try:
            if key not in answers:
                answers[key] = req.app.bus.client(*of).call(call, req.ctx, server=host, prefix=prefix, **more)
        except errors.Unavailable:
            continue
        found.append((SHOWN[row['binary']], row['host'], answers[key]))
    return found


@routes.put('/os-services/get-log', rule='volume_extension:services:index', default=common.ADMIN, since='3.32',
            body=schema.obj(ASKED), response=schema.wrap('log_levels', schema.array(common.OBJECT)),
            summary='Show what services log')
def get_log(req):
    return {'log_levels': [{'binary': binary, 'host': host, 'levels': levels}
                           for binary, host, levels in _logging(req, 'log_levels')]}


@routes.put('/os-services/set-log', rule='volume_extension:services:update', default=common.ADMIN, since='3.32', status=202,
            body=schema.obj({**ASKED, 'level': {'type': 'string', 'maxLength': 16}}, ['level']),
            summary='Change what services log')
def set_log(req):
    level = req.body['level'].upper()
    if level not in log_levels.LEVELS:
        raise errors.BadRequest(f"Invalid input: level: {req.body['level']} is none of {', '.join(log_levels.LEVELS)}.")
    _logging(req, 'set_log_level', level=level)


# Hosts

@routes.get('/os-hosts', rule='volume_extension:hosts', default=common.ADMIN,
            query={'zone': schema.STRING, 'service': schema.STRING},
            response=schema.wrap('hosts', schema.array(common.OBJECT)), summary='List the hosts of services')
def hosts(req):
    found = []
    with req.db.read() as connection:
        for row, _, zone in _rows(req, connection):
            if req.query.get('zone', zone) == zone and req.query.get('service') in (None, SHOWN[row['binary']]):
                found.append({'host_name': row['host'], 'service': SHOWN[row['binary']], 'zone': zone,
                              'service-status': 'available' if up(req, row) else 'unavailable',
                              'service-state': 'disabled' if row['disabled'] else 'enabled', 'last-update': row['last_seen_at']})
    return {'hosts': found}


@routes.get('/os-hosts/{host}', rule='volume_extension:hosts', default=common.ADMIN, response=schema.wrap('host', schema.array(
    common.OBJECT)), summary='Show what is on a host, by project')
def one_host(req, host):
    name = host.partition('#')[0]
    with req.db.read() as connection:
        if connection.scalar(sa.select(services.c.id).where(services.c.host == name).limit(1)) is None:
            raise errors.NotFound(f'Host {host} could not be found.', kind='HostNotFound')
        counted = {}
        for kind, table in (('volume', volumes), ('snapshot', snapshots)):
            for project, count, size in connection.execute(sa.select(
                    table.c.project_id, sa.func.count(), sa.func.sum(table.c.size)).where(sa.or_(
                        table.c.backend == name, table.c.backend.like(name + '@%'))).group_by(table.c.project_id)):
                counted.setdefault(project, {})[kind] = count, int(size)
    total = {kind: tuple(sum(one.get(kind, (0, 0))[part] for one in counted.values()) for part in (0, 1))
             for kind in ('volume', 'snapshot')}

    def shown(project, one):
        volume, snapshot = one.get('volume', (0, 0)), one.get('snapshot', (0, 0))
        return {'resource': {'host': host, 'project': project, 'volume_count': str(volume[0]), 'total_volume_gb': str(volume[1]),
                             'snapshot_count': str(snapshot[0]), 'total_snapshot_gb': str(snapshot[1])}}
    return {'host': [shown('(total)', total), *(shown(project, counted[project]) for project in sorted(counted))]}


# Pools and capabilities

@routes.get('/scheduler-stats/get_pools', rule='scheduler_extension:scheduler_stats:get_pools', default=common.ADMIN, query={
    'detail': schema.BOOLEAN, 'name': schema.STRING, 'volume_type': schema.STRING}, response=schema.wrap(
        'pools', schema.array(common.OBJECT)), summary='List the pools')
def pools(req):
    wrong = [name for name in req.http.args if name not in ('detail', 'name', 'volume_type')]
    if wrong and req.at_least(3, 31):
        raise errors.BadRequest(f"Invalid filters {','.join(wrong)} are found in query options.", kind='InvalidParameterValue')
    with req.db.read() as connection:
        found = scheduler.pools(connection, req.app.conf)
        seen = dict(connection.execute(sa.select(backends.c.name, backends.c.seen_at)).all())
        kind = req.query.get('volume_type') if req.at_least(3, 35) else None
        specs = types.find(connection, req.ctx, kind)['extra_specs'] if kind else {}
    wanted = req.query.get('name')
    shown = [pool for pool in found.values() if wanted in (None, work.shown(pool.name)) and scheduler.fits(
        specs, pool.capabilities())]
    if not req.query.get('detail'):
        return {'pools': [{'name': work.shown(pool.name)} for pool in shown]}
    return {'pools': [{'name': work.shown(pool.name), 'capabilities': {
        **pool.capabilities(), 'timestamp': seen[pool.name], 'updated': seen[pool.name], 'driver_version': '1.0',
        'reserved_percentage': int(pool.stats.get('reserved_percentage') or 0), 'provisioned_capacity_gb': pool.provisioned,
        'max_over_subscription_ratio': str(pool.ratio), 'allocated_capacity_gb': pool.provisioned,
        'backend_state': 'up' if pool.up else 'down'}} for pool in shown]}


@routes.get('/capabilities/{host}', rule='volume_extension:capabilities', default=common.ADMIN, response=common.OBJECT,
            summary='Show what a back end is capable of')
def capabilities(req, host):
    with req.db.read() as connection:
        pool = scheduler.pools(connection, req.app.conf).get(host.partition('#')[0])
    if pool is None:
        raise errors.NotFound(f'There is no back end {host}.')
    said = {name: value for name, value in pool.capabilities().items() if isinstance(value, (bool, str))}
    return {'namespace': f'OS::Storage::Capabilities::{host.partition("#")[0]}', 'vendor_name': pool.stats.get('vendor') or '',
            'volume_backend_name': said['volume_backend_name'], 'pool_name': None, 'driver_version': '1.0',
            'storage_protocol': pool.stats.get('protocol') or '',
            'display_name': f'Capabilities of the {pool.stats.get("driver")} driver',
            'description': 'What volume types can ask for by extra specs.', 'visibility': None, 'replication_targets': [],
            'properties': {name: {'title': name.replace('_', ' ').capitalize(),
                                  'type': 'boolean' if isinstance(value, bool) else 'string',
                                  'description': f'This back end has: {value}.'} for name, value in said.items()}}


@routes.get('/os-availability-zone', rule='volume:availability_zone_list', default=common.READER, response=schema.wrap(
    'availabilityZoneInfo', schema.array(common.OBJECT)), summary='List the availability zones')
def zones(req):
    conf = req.app.conf.storage_block
    with req.db.read() as connection:
        found = scheduler.pools(connection, req.app.conf).values()
    names = sorted({pool.zone for pool in found} | {conf.default_availability_zone})
    return {'availabilityZoneInfo': [{'zoneName': name, 'zoneState': {'available': any(
        pool.zone == name and pool.up and not pool.disabled for pool in found)}} for name in names]}
