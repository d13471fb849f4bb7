"""Hypervisors, hosts, and the services that compute runs."""
import sqlalchemy as sa

from kodiak.common import api, db, errors, heartbeat, policy
from kodiak.common.api import schema
from kodiak.compute import scheduler, view
from kodiak.compute.api import common
from kodiak.compute.models import aggregate_hosts, hosts, servers, services
from kodiak.compute.placement import providers

routes = api.Routes('hypervisors')
LIST = api.Listing(hosts.c.uuid, {'id': hosts.c.id}, [('id', 'asc')], max_limit=common.MAX_PAGE)
OLD_LIST = api.Listing(hosts.c.id, {'id': hosts.c.id}, [('id', 'asc')], max_limit=common.MAX_PAGE)
HYPERVISORS = schema.obj({'hypervisors': schema.array({'type': 'object'}), 'hypervisors_links': common.LINKS})
HYPERVISOR = schema.wrap('hypervisor', {'type': 'object'})


def _query():
    return sa.select(hosts, services.c.id.label('service_id'), services.c.disabled, services.c.disabled_reason,
                     services.c.forced_down, services.c.last_seen_at).join(
                         services, sa.and_(services.c.host == hosts.c.host, services.c.binary == scheduler.BINARY))


def _key(req, row):
    return row['uuid'] if req.at_least(2, 53) else row['id']


def _brief(req, row, now):
    return {'id': _key(req, row), 'hypervisor_hostname': row['node'], 'state': 'up' if heartbeat.is_up(row, now) else 'down',
            'status': 'disabled' if row['disabled'] else 'enabled'}


def _used(connection, names):
    """``{host: (servers, their CPUs, memory, disk)}``."""
    found = {}
    for row in connection.execute(sa.select(servers.c.host, servers.c.vcpus, servers.c.ram, servers.c.flavor).where(
            servers.c.host.in_(names), servers.c.deleted.is_(False))):
        count, cpus, ram, disk = found.get(row.host, (0, 0, 0, 0))
        found[row.host] = (count + 1, cpus + row.vcpus, ram + row.ram, disk + row.flavor['root'] + row.flavor['ephemeral'])
    return found


def _full(req, row, used, now):
    told = row['resources']
    found = {**_brief(req, row, now), 'hypervisor_type': told['hypervisor_type'], 'hypervisor_version': told['hypervisor_version'],
             'host_ip': told.get('host_ip'), 'service': {
                 'id': row['service_id'] if req.at_least(2, 53) else service_number(row['service_id']), 'host': row['host'],
                 'disabled_reason': row['disabled_reason']}}
    if not req.at_least(2, 88):
        count, cpus, ram, disk = used.get(row['host'], (0, 0, 0, 0))
        reserved = req.app.conf.hosts.reserved_memory
        found.update({
            'vcpus': told['vcpus'], 'vcpus_used': cpus, 'memory_mb': told['memory_mb'], 'memory_mb_used': ram + reserved,
            'free_ram_mb': told['memory_mb'] - ram - reserved, 'local_gb': told['disk_gb'], 'local_gb_used': disk,
            'free_disk_gb': told['disk_gb'] - disk, 'disk_available_least': told.get('disk_free_gb'), 'running_vms': count,
            'current_workload': 0})
        cpu = told.get('cpu_info') or {}
        found['cpu_info'] = cpu if req.at_least(2, 28) else db.orjson.dumps(cpu).decode()
    else:
        found['uptime'] = told.get('uptime') or None
    return found


def _page(req, conditions=()):
    listing = LIST if req.at_least(2, 53) else OLD_LIST
    query = req.query if req.at_least(2, 33) else {}
    with req.db.read() as connection:
        rows, more = listing.page(connection, _query().where(*conditions), query)
        rows = [dict(row._mapping) for row in rows]
        used = _used(connection, [row['host'] for row in rows]) if rows and not req.at_least(2, 88) else {}
        guests = _guests(connection, rows) if req.at_least(2, 53) and schema.boolean(req.query.get('with_servers') or False,
                                                                                      'with_servers') else {}
    return rows, more, used, guests


def _guests(connection, rows):
    found = {}
    for row in connection.execute(sa.select(servers.c.uuid, servers.c.name, servers.c.id, servers.c.host).where(
            servers.c.host.in_([row['host'] for row in rows]), servers.c.deleted.is_(False))).mappings():
        found.setdefault(row['host'], []).append({'uuid': row['uuid'], 'name': view.instance_name(row)})
    return found


def _list(req, detailed):
    pattern = req.query.get('hypervisor_hostname_pattern') if req.at_least(2, 53) else None
    if pattern and ('limit' in req.query or 'marker' in req.query):
        raise errors.BadRequest('Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.')
    rows, more, used, guests = _page(req, [hosts.c.node.contains(pattern, autoescape=True)] if pattern else ())
    if pattern and not rows:
        raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
    now = db.utcnow()
    found = [_full(req, row, used, now) if detailed else _brief(req, row, now) for row in rows]
    for entry, row in zip(found, rows, strict=True):
        if row['host'] in guests:
            entry['servers'] = guests[row['host']]
        elif req.at_least(2, 75) and 'with_servers' in req.query:
            entry['servers'] = []
    answer = {'hypervisors': found}
    if more:
        answer.update(common.next_link(req, 'hypervisors_links', str(_key(req, rows[-1]))))
    return answer


QUERY = {'limit': schema.INTEGER, 'marker': schema.STRING, 'hypervisor_hostname_pattern': schema.STRING,
         'with_servers': schema.STRING}


@routes.get('/os-hypervisors', rule='os_compute_api:os-hypervisors:list', default=policy.ADMIN, query=QUERY, response=HYPERVISORS,
            summary='List hypervisors')
def index(req):
    return _list(req, False)


@routes.get('/os-hypervisors/detail', rule='os_compute_api:os-hypervisors:list-detail', default=policy.ADMIN, query=QUERY,
            response=HYPERVISORS, summary='List hypervisors with details')
def detail(req):
    return _list(req, True)


@routes.get('/os-hypervisors/statistics', rule='os_compute_api:os-hypervisors:statistics', default=policy.ADMIN, until='2.87',
            response=schema.wrap('hypervisor_statistics', {'type': 'object'}), summary='Show the sums over all hypervisors')
def statistics(req):
    with req.db.read() as connection:
        rows = db.all_dicts(connection, _query())
        used = _used(connection, [row['host'] for row in rows])
    now = db.utcnow()
    found = [_full(req, row, used, now) for row in rows if not row['disabled']]
    names = ('vcpus', 'vcpus_used', 'memory_mb', 'memory_mb_used', 'free_ram_mb', 'local_gb', 'local_gb_used', 'free_disk_gb',
             'disk_available_least', 'running_vms', 'current_workload')
    return {'hypervisor_statistics': {'count': len(found), **{name: sum(entry[name] or 0 for entry in found) for name in names}}}


def load(req, hypervisor_id):
    """The row of a hypervisor by its id of this microversion."""
    if req.at_least(2, 53):
        if not common.is_uuid(hypervisor_id):
            raise errors.BadRequest(f'Invalid uuid {hypervisor_id}')
        condition = hosts.c.uuid == hypervisor_id
    elif (number := schema.natural(hypervisor_id)) is not None and number < 2 ** 31:
        condition = hosts.c.id == number
    else:
        raise errors.NotFound(f"Hypervisor with ID '{hypervisor_id}' could not be found.")
    with req.db.read() as connection:
        row = db.one(connection, _query().where(condition))
    if row is None:
        raise errors.NotFound(f"Hypervisor with ID '{hypervisor_id}' could not be found.")
    return row


@routes.get('/os-hypervisors/{hypervisor_id}', rule='os_compute_api:os-hypervisors:show', default=policy.ADMIN, load=load,
            query=QUERY, response=HYPERVISOR, summary='Show a hypervisor')
def show(req, hypervisor_id):
    row = req.target
    with req.db.read() as connection:
        found = _full(req, row, _used(connection, [row['host']]), db.utcnow())
        if req.at_least(2, 53) and schema.boolean(req.query.get('with_servers') or False, 'with_servers'):
            found['servers'] = _guests(connection, [row]).get(row['host'], [])
    return {'hypervisor': found}


@routes.get('/os-hypervisors/{hypervisor_id}/uptime', rule='os_compute_api:os-hypervisors:uptime', default=policy.ADMIN, load=load,
            until='2.87', response=HYPERVISOR, summary='Show the uptime of a hypervisor')
def uptime(req, hypervisor_id):
    now = db.utcnow()
    if not heartbeat.is_up(req.target, now):
        raise errors.BadRequest(f'Compute service of {req.target["host"]} is unavailable at this time.')
    return {'hypervisor': {**_brief(req, req.target, now), 'uptime': req.target['resources'].get('uptime') or ''}}


def _matching(req, pattern):
    with req.db.read() as connection:
        rows = db.all_dicts(connection, _query().where(hosts.c.node.contains(pattern, autoescape=True)))
        guests = _guests(connection, rows)
    if not rows:
        raise errors.NotFound(f"No hypervisor matching '{pattern}' could be found.")
    return rows, guests


@routes.get('/os-hypervisors/{pattern}/search', rule='os_compute_api:os-hypervisors:search', default=policy.ADMIN, until='2.52',
            response=HYPERVISORS, summary='Find hypervisors by name')
def search(req, pattern):
    rows, _ = _matching(req, pattern)
    now = db.utcnow()
    return {'hypervisors': [_brief(req, row, now) for row in rows]}


@routes.get('/os-hypervisors/{pattern}/servers', rule='os_compute_api:os-hypervisors:servers', default=policy.ADMIN, until='2.52',
            response=HYPERVISORS, summary='Find hypervisors by name, with their servers')
def with_servers(req, pattern):
    rows, guests = _matching(req, pattern)
    now = db.utcnow()
    return {'hypervisors': [{**_brief(req, row, now), **({'servers': guests[row['host']]} if row['host'] in guests else {})}
                            for row in rows]}


# Services

def service_number(uuid):
    """The number that stands for a service below 2.53."""
    return int(uuid.replace('-', '')[:7], 16)


#: What clients call these processes. A conductor does the scheduling, too.
SHOWN = {scheduler.BINARY: 'nova-compute', 'kodiak-compute-conductor': 'nova-conductor'}
BINARIES = {shown: binary for binary, shown in SHOWN.items()} | {'nova-scheduler': 'kodiak-compute-conductor'}


def _service(req, row, zones, now):
    up = heartbeat.is_up(row, now)
    found = {'id': row['id'] if req.at_least(2, 53) else service_number(row['id']), 'binary': SHOWN[row['binary']],
             'host': row['host'],
             'zone': zones[row['host']] if row['binary'] == scheduler.BINARY else 'internal',
             'status': 'disabled' if row['disabled'] else 'enabled', 'state': 'up' if up else 'down',
             'updated_at': view.micro_time(row['last_seen_at']), 'disabled_reason': row['disabled_reason']}
    if req.at_least(2, 11):
        found['forced_down'] = row['forced_down']
    return found


@routes.get('/os-services', rule='os_compute_api:os-services:list', default=policy.ADMIN,
            query={'host': schema.STRING, 'binary': schema.STRING}, response=schema.wrap('services',
                                                                                         schema.array({'type': 'object'})),
            summary='List the processes of compute')
def service_index(req):
    binary = req.query.get('binary')
    with req.db.read() as connection:
        rows = db.all_dicts(connection, heartbeat.query(BINARIES.get(binary, binary), req.query.get('host')))
        zones = scheduler.zones_of(connection, req.app.conf.compute.default_availability_zone)
    now = db.utcnow()
    found = [_service(req, row, zones, now) for row in rows if row['binary'] in SHOWN]
    found += [{**entry, 'binary': 'nova-scheduler'} for entry in found if entry['binary'] == 'nova-conductor']
    return {'services': [entry for entry in found if binary in (None, '', entry['binary'], BINARIES.get(entry['binary']))]}


def _change_service(connection, condition, what, **changes):
    row = db.one(connection, sa.select(services).where(condition))
    if row is None:
        raise errors.NotFound(f'Service {what} could not be found.')
    if row['binary'] != scheduler.BINARY and 'forced_down' not in changes:
        raise errors.BadRequest(
            f'Updating a {SHOWN.get(row["binary"], row["binary"])} service is not supported. Only nova-compute services can be.')
    connection.execute(services.update().where(services.c.id == row['id']).values(**changes))
    return {**row, **changes}


def _old_update(name, changes, answer, since=None, extra=()):
    @routes.put('/os-services/' + name, rule='os_compute_api:os-services:update', default=policy.ADMIN, until='2.52', since=since,
                body=schema.obj({'host': schema.NAME, 'binary': schema.NAME, 'disabled_reason': {
                    'type': 'string', 'minLength': 1, 'maxLength': 255}, 'forced_down': common.BOOL}, ['host', 'binary', *extra]),
                response=schema.wrap('service', {'type': 'object'}), summary='Change a process of compute')
    def handler(req):
        sent = req.body
        binary = BINARIES.get(sent['binary'], sent['binary'])
        condition = sa.and_(services.c.host == sent['host'], services.c.binary == binary)
        row = req.db.transact(_change_service, condition, f'{sent["binary"]} on {sent["host"]}', **changes(sent))
        return {'service': {'host': sent['host'], 'binary': sent['binary'], **answer(row)}}
    return handler


_old_update('enable', lambda sent: {'disabled': False, 'disabled_reason': None}, lambda row: {'status': 'enabled'})
_old_update('disable', lambda sent: {'disabled': True, 'disabled_reason': None}, lambda row: {'status': 'disabled'})
_old_update('disable-log-reason', lambda sent: {'disabled': True, 'disabled_reason': sent['disabled_reason']},
            lambda row: {'status': 'disabled', 'disabled_reason': row['disabled_reason']}, extra=['disabled_reason'])
_old_update('force-down', lambda sent: {'forced_down': sent.get('forced_down', True) in common.TRUE},
            lambda row: {'forced_down': row['forced_down']}, since='2.11')


@routes.put('/os-services/{service_id}', rule='os_compute_api:os-services:update', default=policy.ADMIN, since='2.53',
            body=schema.obj({'status': {'type': 'string', 'enum': ['enabled', 'disabled']}, 'disabled_reason': {
                'type': 'string', 'minLength': 1, 'maxLength': 255}, 'forced_down': common.BOOL}, minProperties=1),
            response=schema.wrap('service', {'type': 'object'}), summary='Change a process of compute')
def service_update(req, service_id):
    sent, changes = req.body, {}
    if not common.is_uuid(service_id):
        raise errors.BadRequest(f'Invalid uuid {service_id}')
    if sent.get('disabled_reason') and sent.get('status') != 'disabled':
        raise errors.BadRequest("Specifying disabled_reason requires that status is 'disabled'.")
    if 'status' in sent:
        changes.update(disabled=sent['status'] == 'disabled', disabled_reason=sent.get('disabled_reason'))
    if 'forced_down' in sent:
        changes['forced_down'] = sent['forced_down'] in common.TRUE

    def write(connection):
        row = _change_service(connection, services.c.id == service_id, service_id, **changes)
        return row, scheduler.zones_of(connection, req.app.conf.compute.default_availability_zone, [row['host']])
    row, zones = req.db.transact(write)
    return {'service': _service(req, row, zones, db.utcnow())}


@routes.delete('/os-services/{service_id}', rule='os_compute_api:os-services:delete', default=policy.ADMIN,
               summary='Forget a process of compute, with its host')
def service_delete(req, service_id):
    def write(connection):
        for row in db.all_dicts(connection, sa.select(services)):
            if service_id in (row['id'], str(service_number(row['id']))):
                break
        else:
            raise errors.NotFound(f'Service {service_id} not found.')
        if row['binary'] == scheduler.BINARY:
            if common.servers_on(connection, row['host']):
                raise errors.Conflict('Unable to delete compute service that is hosting instances. Migrate or delete the '
                                      'instances first.')
            uuid = connection.scalar(sa.select(hosts.c.uuid).where(hosts.c.host == row['host']))
            connection.execute(aggregate_hosts.delete().where(aggregate_hosts.c.host == row['host']))
            connection.execute(hosts.delete().where(hosts.c.host == row['host']))
            if uuid is not None:
                providers.delete(connection, providers.get(connection, uuid))
        connection.execute(services.delete().where(services.c.id == row['id']))
    req.db.transact(write)


# Hosts, as the API had them before there were hypervisors and services (until 2.42)

@routes.get('/os-hosts', rule='os_compute_api:os-hosts:list', default=policy.ADMIN, until='2.42', query={'zone': schema.STRING},
            response=schema.wrap('hosts', schema.array({'type': 'object'})), summary='List hosts')
def host_index(req):
    with req.db.read() as connection:
        rows = db.all_dicts(connection, heartbeat.query())
        zones = scheduler.zones_of(connection, req.app.conf.compute.default_availability_zone)
    found = [{'host_name': row['host'], 'service': SHOWN[row['binary']].removeprefix('nova-'),
              'zone': zones[row['host']]
              if row['binary'] == scheduler.BINARY else 'internal'} for row in rows if row['binary'] in SHOWN]
    return {'hosts': [entry for entry in found if req.query.get('zone') in (None, '', entry['zone'])]}


def load_host(req, host_name):
    """The row of a host by its name."""
    with req.db.read() as connection:
        row = db.one(connection, _query().where(hosts.c.host == host_name))
    if row is None:
        raise common.not_found('Compute host', host_name)
    return row


@routes.get('/os-hosts/{host_name}', rule='os_compute_api:os-hosts:show', default=policy.ADMIN, until='2.42', load=load_host,
            response=schema.wrap('host', schema.array({'type': 'object'})), summary='Show what a host has and what is used of it')
def host_show(req, host_name):
    told = req.target['resources']
    with req.db.read() as connection:
        rows = connection.execute(sa.select(servers.c.project_id, servers.c.vcpus, servers.c.ram, servers.c.flavor).where(
            servers.c.host == host_name, servers.c.deleted.is_(False))).all()
    reserved = req.app.conf.hosts.reserved_memory

    def entry(project, found):
        disk = sum(row.flavor['root'] + row.flavor['ephemeral'] for row in found)
        return {'resource': {'host': host_name, 'project': project, 'cpu': sum(row.vcpus for row in found),
                             'memory_mb': sum(row.ram for row in found), 'disk_gb': disk}}
    now = entry('(used_now)', rows)
    now['resource']['memory_mb'] += reserved
    answer = [{'resource': {'host': host_name, 'project': '(total)', 'cpu': told['vcpus'], 'memory_mb': told['memory_mb'],
                            'disk_gb': told['disk_gb']}}, now, entry('(used_max)', rows)]
    answer += [entry(project,
                     [row for row in rows if row.project_id == project]) for project in sorted({row.project_id for row in rows})]
    return {'host': answer}


@routes.put('/os-hosts/{host_name}', rule='os_compute_api:os-hosts:update', default=policy.ADMIN, until='2.42', load=load_host,
            body=schema.obj({'status': {'type': 'string', 'pattern': '(?i)^(enable|disable)$'},
                             'maintenance_mode': {'type': 'string', 'pattern': '(?i)^(enable|disable)$'}}, minProperties=1),
            response={'type': 'object'}, summary='Enable or disable a host')
def host_update(req, host_name):
    sent = req.body
    if 'maintenance_mode' in sent:
        raise errors.NotImplementedHere('Virt driver does not implement host maintenance mode.')
    disabled = sent['status'].lower() == 'disable'
    req.db.transact(_change_service, sa.and_(services.c.host == host_name, services.c.binary == scheduler.BINARY), host_name,
                    disabled=disabled)
    return {'host': host_name, 'status': 'disabled' if disabled else 'enabled'}


def _host_power(name):
    @routes.get('/os-hosts/{host_name}/' + name, rule=f'os_compute_api:os-hosts:{name}', default=policy.ADMIN, until='2.42',
                load=load_host, summary='Switch a host (no hypervisor here does)')
    def handler(req, host_name):
        raise errors.NotImplementedHere('Virt driver does not implement host power management.')
    return handler


for _name in ('startup', 'shutdown', 'reboot'):
    _host_power(_name)
