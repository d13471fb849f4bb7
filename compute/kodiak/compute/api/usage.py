"""What projects used over time, and the audit log of such figures."""
import datetime

import sqlalchemy as sa

from kodiak.common import api, db, errors, policy
from kodiak.common.api import listing, schema
from kodiak.compute import view
from kodiak.compute.api import common
from kodiak.compute.models import hosts, servers

routes = api.Routes('usage')
QUERY = {'start': schema.STRING, 'end': schema.STRING, 'detailed': schema.STRING, 'limit': schema.INTEGER, 'marker': schema.STRING}
OWN = '((role:reader or role:member) and project_id:%(project_id)s) or role:admin'


def _moment(text, name, fallback):
    if not text:
        return fallback
    for form in ('%Y-%m-%dT%H:%M:%S', '%Y-%m-%dT%H:%M:%S.%f', '%Y-%m-%d %H:%M:%S.%f'):
        try:
            return datetime.datetime.strptime(text, form)
        except ValueError:
            continue
    raise errors.BadRequest(f'Bad start/end format: {name}={text[:80]}')


def _period(req):
    now = db.utcnow()
    end = _moment(req.query.get('end'), 'end', now)
    start = _moment(req.query.get('start'), 'start', now)
    if start >= end and req.query.get('start') and req.query.get('end'):
        raise errors.BadRequest('Invalid start time. The start time cannot occur after the end time.')
    return (start if req.query.get('start') else now.replace(hour=0, minute=0, second=0, microsecond=0)), end


def _rows(req, connection, start, end, project_id=None):
    conditions = [servers.c.launched_at.is_not(None), servers.c.launched_at < end,
                  sa.or_(servers.c.terminated_at.is_(None), servers.c.terminated_at > start)]
    if project_id:
        conditions.append(servers.c.project_id == project_id)
    query = sa.select(servers.c.uuid, servers.c.name, servers.c.project_id, servers.c.flavor, servers.c.launched_at,
                      servers.c.terminated_at, servers.c.vm_state, servers.c.created_at, servers.c.id).where(*conditions)
    if req.at_least(2, 40):
        marker, limit = req.query.get('marker'), req.query.get('limit', common.MAX_PAGE)
        if limit < 0:
            raise errors.BadRequest(f"Invalid value '{limit}' for limit: it must be at least 0.")
        query = query.order_by(servers.c.project_id, servers.c.id).limit(min(limit, common.MAX_PAGE) + 1)
        if marker:
            found = connection.execute(sa.select(servers.c.project_id, servers.c.id).where(servers.c.uuid == marker)).first()
            if found is None:
                raise errors.BadRequest(f'Marker {marker} not found.')
            query = query.where(sa.or_(servers.c.project_id > found.project_id, sa.and_(
                servers.c.project_id == found.project_id, servers.c.id > found.id)))
        rows = connection.execute(query).mappings().all()
        return rows[:min(limit, common.MAX_PAGE)], len(rows) > min(limit, common.MAX_PAGE) > 0
    return connection.execute(query.order_by(servers.c.project_id, servers.c.id)).mappings().all(), False


def _sum(rows, start, end, detailed):
    projects = {}
    now = db.utcnow()
    for row in rows:
        flavor = row['flavor']
        ended = min(row['terminated_at'] or end, end)
        hours = max((ended - max(row['launched_at'], start)).total_seconds(), 0) / 3600
        disk = flavor['root'] + flavor['ephemeral']
        found = projects.setdefault(row['project_id'], {
            'tenant_id': row['project_id'], 'total_hours': 0.0, 'total_vcpus_usage': 0.0, 'total_memory_mb_usage': 0.0,
            'total_local_gb_usage': 0.0, 'start': start.isoformat(), 'stop': end.isoformat(), 'server_usages': []})
        found['total_hours'] += hours
        found['total_vcpus_usage'] += flavor['vcpus'] * hours
        found['total_memory_mb_usage'] += flavor['ram'] * hours
        found['total_local_gb_usage'] += disk * hours
        if detailed:
            uptime = ((row['terminated_at'] or now) - row['launched_at']).total_seconds()
            found['server_usages'].append({
                'instance_id': row['uuid'], 'name': row['name'], 'hours': hours, 'flavor': flavor['name'], 'vcpus': flavor['vcpus'],
                'memory_mb': flavor['ram'], 'local_gb': disk, 'tenant_id': row['project_id'], 'state':
                    'terminated' if row['terminated_at'] else row['vm_state'], 'started_at': view.micro_time(row['launched_at']),
                'ended_at': view.micro_time(row['terminated_at']), 'uptime': int(uptime)})
    if not detailed:
        for found in projects.values():
            found.pop('server_usages')
    return list(projects.values())


@routes.get('/os-simple-tenant-usage', rule='os_compute_api:os-simple-tenant-usage:list', default=policy.ADMIN, query=QUERY,
            response=schema.obj({'tenant_usages': schema.array({'type': 'object'}), 'tenant_usages_links': common.LINKS}),
            summary='Show what all projects used')
def index(req):
    start, end = _period(req)
    with req.db.read() as connection:
        rows, more = _rows(req, connection, start, end)
    answer = {'tenant_usages': _sum(rows, start, end, req.query.get('detailed') == '1')}
    if more:
        answer['tenant_usages_links'] = [{'rel': 'next', 'href': listing.next_url(req, rows[-1]['uuid'])}]
    return answer


@routes.get('/os-simple-tenant-usage/{project_id}', rule='os_compute_api:os-simple-tenant-usage:show', default=OWN, query=QUERY,
            load=lambda req, project_id: {'project_id': project_id},
            response=schema.obj({'tenant_usage': {'type': 'object'}, 'tenant_usage_links': common.LINKS}),
            summary='Show what a project used')
def show(req, project_id):
    start, end = _period(req)
    with req.db.read() as connection:
        rows, more = _rows(req, connection, start, end, project_id)
    found = _sum(rows, start, end, True)
    answer = {'tenant_usage': found[0] if found else {}}
    if more:
        answer['tenant_usage_links'] = [{'rel': 'next', 'href': listing.next_url(req, rows[-1]['uuid'])}]
    return answer


def _month(before):
    end = before.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin = (end - datetime.timedelta(days=1)).replace(day=1)
    return begin, end


def _audit(req, before):
    # Hosts audit nothing by themselves: what a project used is computed when it is asked for.
    begin, end = _month(before)
    with req.db.read() as connection:
        names = list(connection.scalars(sa.select(hosts.c.host).order_by(hosts.c.host)))
    return {'log': {}, 'hosts_not_run': names, 'num_hosts': len(names), 'num_hosts_done': 0, 'num_hosts_not_run': len(names),
            'num_hosts_running': 0, 'overall_status': f'0 of {len(names)} hosts done. 0 errors.', 'period_beginning': str(begin),
            'period_ending': str(end), 'total_errors': 0, 'total_instances': 0}


@routes.get('/os-instance_usage_audit_log', rule='os_compute_api:os-instance-usage-audit-log:list', default=policy.ADMIN,
            response=schema.wrap('instance_usage_audit_logs', {'type': 'object'}),
            summary='Show the usage audits of the last month')
def audit_log(req):
    return {'instance_usage_audit_logs': _audit(req, db.utcnow())}


@routes.get('/os-instance_usage_audit_log/{before}', rule='os_compute_api:os-instance-usage-audit-log:show', default=policy.ADMIN,
            response=schema.wrap('instance_usage_audit_log', {'type': 'object'}), summary='Show the usage audits of a month')
def audit_log_before(req, before):
    for form in ('%Y-%m-%d %H:%M:%S', '%Y-%m-%d %H:%M:%S.%f'):
        try:
            return {'instance_usage_audit_log': _audit(req, datetime.datetime.strptime(before, form))}
        except ValueError:
            continue
    raise errors.BadRequest(f'Invalid timestamp for date {before[:80]}')
