"""The scheduler: chooses a host for a server and claims it there, in one transaction.

Placement says which hosts have room; what else must hold is checked in one pass over them: the agent lives and is
enabled, the zone, server groups, hints, what flavor and image ask for. Among the hosts that pass, the one with the most
room is taken, with a little chance among the best, so that servers that are placed at the same time spread.
"""
import collections
import ipaddress
import random

import orjson
import sqlalchemy as sa

from kodiak.common import db, errors, heartbeat
from kodiak.compute import placement
from kodiak.compute.models import aggregate_hosts, aggregates, groups, hosts, servers, services

BINARY = 'kodiak-compute-agent'
BEST = 5
# Candidates looked at in the first try; all of them if none of those passes.
FIRST = 200


class NoValidHost(errors.Conflict):
    """No host passed."""


def resources(flavor, volume_booted=False):
    """What a flavor takes, by resource class."""
    disk = (0 if volume_booted else flavor['root']) + flavor['ephemeral'] + -(-flavor['swap'] // 1024)
    found = {'VCPU': flavor['vcpus'], 'MEMORY_MB': flavor['ram'], 'DISK_GB': disk}
    for key, value in flavor['extra_specs'].items():
        if key.startswith('resources:'):
            found[key.removeprefix('resources:')] = int(value)
    return {name: amount for name, amount in found.items() if amount > 0}


def traits(flavor, image):
    """``(required, forbidden)`` traits of a flavor and an image."""
    required, forbidden = set(), set()
    asked = [(key, value) for key, value in flavor['extra_specs'].items()]
    asked += [(key, value) for key, value in ((image or {}).get('properties') or {}).items()]
    for key, value in asked:
        if key.startswith('trait:'):
            (forbidden if value == 'forbidden' else required).add(key.removeprefix('trait:'))
    return sorted(required), sorted(forbidden)


def zones_of(connection, default, names=None):
    """``{host: its availability zone}`` of all hosts, or of those named."""
    query = sa.select(aggregate_hosts.c.host, aggregates.c.zone).join(
        aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id).where(aggregates.c.zone.is_not(None))
    if names is not None:
        query = query.where(aggregate_hosts.c.host.in_(names))
    return collections.defaultdict(lambda: default, connection.execute(query).all())


class Scheduler:
    """One choice. ``row`` and ``spec`` are the server's; ``excluded`` hosts were tried before."""

    def __init__(self, connection, conf, row, spec, flavor=None, excluded=(), forced=None):
        self.connection, self.conf, self.row, self.spec = connection, conf, row, spec
        self.flavor = flavor or row['flavor']
        self.excluded = set(excluded)
        self.forced = forced or spec.get('forced_host')
        self.hints = spec.get('hints') or {}
        self.dropped = collections.Counter()
        self.members, self.policy = collections.Counter(), None
        self.wanted = resources(self.flavor, volume_booted=row['image_ref'] is None)
        # A volume that is booted from needs what the image needs that it was made from.
        self.properties = (row['image'] or {}).get('properties') or spec.get('hardware') or {}
        self.required, self.forbidden = traits(self.flavor, {'properties': self.properties})

    def choose(self):
        """The row of the best host, as a dictionary; ``NoValidHost`` says how many hosts which filter dropped."""
        for limit in (FIRST, None):
            self.dropped.clear()
            found = placement.candidates(self.connection, self.wanted, required=self.required, forbidden=self.forbidden,
                                         limit=limit, order='free')
            self.room = {candidate.uuid: candidate.summary for candidate in found}
            passed = self._filter([candidate.uuid for candidate in found])
            if passed:
                return self._best(passed)
            if limit is None or len(found) < limit:
                break
        raise self._refusal()

    def _filter(self, uuids):
        """Hosts of ``uuids`` that pass."""
        known = {}
        for start in range(0, len(uuids), 500):
            for row in self.connection.execute(sa.select(
                    hosts.c.uuid, hosts.c.host, hosts.c.node, hosts.c.agent, hosts.c.resources, services.c.disabled,
                    services.c.forced_down, services.c.last_seen_at).join(
                        services, sa.and_(services.c.host == hosts.c.host, services.c.binary == BINARY)).where(
                            hosts.c.uuid.in_(uuids[start:start + 500]))).mappings():
                known[row['uuid']] = row
        checks = self._checks(known.values())
        now, passed = db.utcnow(), []
        for uuid in uuids:
            row = known.get(uuid)
            if row is None:
                continue
            if row['disabled']:
                self.dropped['disabled'] += 1
            elif not heartbeat.is_up(row, now):
                self.dropped['agent down'] += 1
            elif row['host'] in self.excluded:
                self.dropped['tried before'] += 1
            else:
                failed = next((name for name, check in checks if not check(row)), None)
                if failed is None:
                    passed.append(row)
                else:
                    self.dropped[failed] += 1
        return passed

    def _checks(self, known):
        """``[(name of the filter, function(host row) -> bool)]`` that this server needs."""
        checks = []
        if self.forced:
            checks.append(('forced host', lambda row: self.forced in (row['host'], row['node'])))
        if self.spec.get('forced_node'):
            checks.append(('forced node', lambda row: row['node'] == self.spec['forced_node']))
        zone = self.row['pinned_zone']
        self.zones = zones_of(self.connection, self.conf.compute.default_availability_zone,
                              None if len(known) > 500 else [row['host'] for row in known])
        if zone:
            checks.append(('availability zone', lambda row: self.zones[row['host']] == zone))
        checks += self._image_checks()
        checks += self._hint_checks()
        checks += self._group_checks()
        checks += self._aggregate_checks()
        return checks

    def _image_checks(self):
        properties, checks = self.properties, []
        architecture = properties.get('architecture') or properties.get('hw_architecture')
        if architecture:
            architecture = {'amd64': 'x86_64', 'x64': 'x86_64', 'arm64': 'aarch64'}.get(architecture.lower(), architecture)
            checks.append(('architecture', lambda row: architecture in (
                {known[0] for known in row['resources'].get('architectures') or ()} or {architecture})))
        kind = properties.get('hypervisor_type') or properties.get('img_hv_type')
        if kind:
            kind = {'qemu': 'kvm'}.get(kind.lower(), kind.lower())
            checks.append(('hypervisor type', lambda row: {'qemu': 'kvm'}.get(
                row['resources'].get('hypervisor_type', '').lower(), row['resources'].get('hypervisor_type', '').lower()) == kind))
        return checks

    def _hosts_of(self, uuids):
        return set(self.connection.scalars(sa.select(servers.c.host).where(
            servers.c.uuid.in_(uuids), servers.c.deleted.is_(False), servers.c.host.is_not(None))))

    def _hint_checks(self):
        checks = []
        for hint, name, wanted in (('different_host', 'different_host', False), ('same_host', 'same_host', True)):
            value = self.hints.get(hint)
            if value:
                there = self._hosts_of(value if isinstance(value, list) else [value])
                if there or wanted:
                    checks.append((name, lambda row, there=there, wanted=wanted: (row['host'] in there) == wanted))
        cidr, near = self.hints.get('cidr'), self.hints.get('build_near_host_ip')
        if near:
            network = ipaddress.ip_network(near + (cidr or '/24'), strict=False)
            checks.append(('build_near_host_ip', lambda row: ipaddress.ip_address(
                row['resources'].get('host_ip', '0.0.0.0')) in network))
        return checks

    def _group_checks(self):
        if not self.row['group_uuid']:
            return []
        group = db.one(self.connection, sa.select(groups).where(groups.c.uuid == self.row['group_uuid']))
        if group is None:
            return []
        members = collections.Counter(self.connection.scalars(sa.select(servers.c.host).where(
            servers.c.group_uuid == group['uuid'], servers.c.deleted.is_(False), servers.c.host.is_not(None),
            servers.c.uuid != self.row['uuid'])))
        self.members, self.policy = members, group['policy']
        if group['policy'] == 'affinity' and members:
            return [('server group affinity', lambda row: row['host'] in members)]
        if group['policy'] == 'anti-affinity':
            most = int((group['rules'] or {}).get('max_server_per_host', 1))
            return [('server group anti-affinity', lambda row: members[row['host']] < most)]
        return []

    def _aggregate_checks(self):
        """Extra specs of the flavor that ask for the metadata of an aggregate of the host."""
        asked = {}
        for key, value in self.flavor['extra_specs'].items():
            scope, _, name = key.partition(':')
            if scope == 'aggregate_instance_extra_specs':
                asked[name] = value
        if not asked:
            return []
        found = collections.defaultdict(lambda: collections.defaultdict(set))
        for host, metadata in self.connection.execute(sa.select(aggregate_hosts.c.host, aggregates.c.metadata).join(
                aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id)):
            for name, value in metadata.items():
                found[host][name].update(part.strip() for part in value.split(','))
        return [('flavor extra specs', lambda row: all(matches(value, found[row['host']].get(name, ()))
                                                       for name, value in asked.items()))]

    def _best(self, passed):
        policy = self.policy
        passed = sorted(passed, key=self._free, reverse=True)
        if policy == 'soft-affinity':
            passed = sorted(passed, key=lambda row: -self.members[row['host']])
            return dict(passed[0])
        if policy == 'soft-anti-affinity':
            passed = sorted(passed, key=lambda row: self.members[row['host']])
            least = self.members[passed[0]['host']]
            passed = [row for row in passed if self.members[row['host']] == least]
        return dict(random.choice(passed[:BEST]))

    def _free(self, row):
        """How much room a host has: the share of each class that is free, summed up."""
        return sum(1 - room['used'] / (room['capacity'] or 1) for name, room in orjson.loads(self.room[row['uuid']]).items()
                   if name in self.wanted)

    def _refusal(self):
        reasons = [f'{count} dropped by {name}' for name, count in self.dropped.most_common()]
        missing = placement.explain(self.connection, self.wanted, required=self.required, forbidden=self.forbidden)
        if missing and (not reasons or ' lack ' in missing):
            reasons.append(missing.rstrip('.'))
        return NoValidHost('No valid host was found. ' + ('; '.join(reasons) if reasons else 'There are no hosts') + '.')


OPERATORS = {
    '=': lambda a, b: float(a) >= float(b), '==': lambda a, b: float(a) == float(b), '!=': lambda a, b: float(a) != float(b),
    '>=': lambda a, b: float(a) >= float(b), '<=': lambda a, b: float(a) <= float(b),
    's==': lambda a, b: a == b, 's!=': lambda a, b: a != b, 's<': lambda a, b: a < b, 's<=': lambda a, b: a <= b,
    's>': lambda a, b: a > b, 's>=': lambda a, b: a >= b, '<in>': lambda a, b: b in a,
}


def matches(asked, values):
    """True if one of ``values`` is what an extra spec asks for (``5``, ``>= 5``, ``s== x``, ``<in> x``, ``<or> a <or> b``)."""
    words = asked.split()
    if words and words[0] == '<or>':
        wanted = {word for word in words[1:] if word != '<or>'}
        return any(value in wanted for value in values)
    if words and words[0] in OPERATORS and len(words) > 1:
        compare, operand = OPERATORS[words[0]], ' '.join(words[1:])
        for value in values:
            try:
                if compare(value, operand):
                    return True
            except ValueError:
                continue
        return False
    return asked in values


def place(connection, conf, row, spec, **more):
    """Choose a host and claim it. Returns ``(host row, its zone)``."""
    scheduler = Scheduler(connection, conf, row, spec, **more)
    tried = set(scheduler.excluded)
    while True:
        host = scheduler.choose()
        try:
            placement.claim(connection, row['uuid'], {host['uuid']: scheduler.wanted}, row['project_id'], row['user_id'])
            return host, scheduler.zones[host['host']]
        except placement.NoCapacity:
            # Between the look and the claim another transaction was quicker.
            tried.add(host['host'])
            scheduler.excluded = tried
