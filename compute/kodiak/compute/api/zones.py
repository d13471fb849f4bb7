"""Availability zones: the zones of aggregates, and the default one for hosts in none."""
import sqlalchemy as sa

from kodiak.common import api, db, heartbeat, policy
from kodiak.common.api import schema
from kodiak.compute import scheduler, view
from kodiak.compute.api.hypervisors import SHOWN
from kodiak.compute.models import aggregates, hosts

routes = api.Routes('availability zones')
INTERNAL = 'internal'


def names(connection, conf):
    """The names of all zones that servers can be in."""
    default = conf.compute.default_availability_zone
    there = scheduler.zones_of(connection, default)
    found = {there[host] for host in connection.scalars(sa.select(hosts.c.host))}
    return sorted(found | {zone for zone in connection.scalars(sa.select(aggregates.c.zone).distinct()) if zone in found} | (
        {default} if not found else set()))


@routes.get('/os-availability-zone', rule='os_compute_api:os-availability-zone:list', default=policy.READER,
            response=schema.wrap('availabilityZoneInfo', schema.array({'type': 'object'})), summary='List availability zones')
def index(req):
    with req.db.read() as connection:
        return {'availabilityZoneInfo': [{'zoneName': name, 'zoneState': {'available': True}, 'hosts': None}
                                         for name in names(connection, req.app.conf)]}


@routes.get('/os-availability-zone/detail', rule='os_compute_api:os-availability-zone:detail', default=policy.ADMIN,
            response=schema.wrap('availabilityZoneInfo', schema.array({'type': 'object'})),
            summary='List availability zones with their hosts')
def detail(req):
    with req.db.read() as connection:
        rows = db.all_dicts(connection, heartbeat.query())
        there = scheduler.zones_of(connection, req.app.conf.compute.default_availability_zone)
    now, zones = db.utcnow(), {}
    for row in rows:
        zone = there[row['host']] if row['binary'] == scheduler.BINARY else INTERNAL
        if row['binary'] not in SHOWN:
            continue
        zones.setdefault(zone, {}).setdefault(row['host'], {})[SHOWN[row['binary']]] = {
            'active': not row['disabled'], 'available': heartbeat.is_up(row, now),
            'updated_at': view.micro_time(row['last_seen_at'])}
    return {'availabilityZoneInfo': [{'zoneName': name, 'zoneState': {'available': True}, 'hosts': zones[name]}
                                     for name in sorted(zones)]}
