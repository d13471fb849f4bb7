#!/usr/bin/env python3
"""Kill every process of every service in turn, and the broker, while servers come and go; then look what is left behind.

    tests/faults/kill.py [--cloud kodiak-admin] [--servers 20] [--only REGEX]

Runs as root on a host that ``devstack/stack.sh`` set up (it kills processes and looks at domains, taps and namespaces). For each
process it creates and deletes servers, kills the process with SIGKILL in the middle, and lets the supervisor start it again.
Afterwards every server must be ACTIVE, gone, or in ERROR with a reason; and once all are deleted, no domain, tap, namespace,
port or allocation of them may be left, with no step by hand. The exit status says whether that was so.

Where there is block storage, volumes are attached to two servers that stay, detached and snapshotted all the while, one is moved
from back end to back end where there are two, and what exports them (tgtd, qemu-storage-daemon) is killed too. After each round
every volume must be available or in use, and at one place; and whoever is asked must say the same: block storage, compute, and
the hypervisor.
"""
import argparse
import concurrent.futures
import os
import pathlib
import pwd
import re
import signal
import subprocess
import sys
import time

import openstack
from keystoneauth1 import exceptions

SETTLE = 300        # seconds in which everything must be stable again
PREFIX, KEPT = 'fault-', 'kept-by-faults-'
DISK = pathlib.Path('/var/lib/kodiak/storage-block/disk')
PROCESS = re.compile(r'(kodiak-(identity|image|network|compute|storage-block)(-[a-z]+)*|tgtd|qemu-storage-daemon)$')


def say(text):
    """Print with the time of day."""
    print(time.strftime('%H:%M:%S'), text, flush=True)


def processes(only=None):
    """``{name: [pid, ...]}`` of what is to be killed, the broker included."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = pathlib.Path('/proc', pid, 'cmdline').read_bytes().decode(errors='replace').split('\0')
        except OSError:
            continue
        names = [os.path.basename(word) for word in words[:4]]
        name = next((name for name in names if PROCESS.match(name)), None)
        if name is None and 'privsep-helper' in ' '.join(names):
            name = 'kodiak-privsep-helper'
        if name is None and names[0].startswith('beam') and any('rabbit' in word for word in words):
            name = 'rabbitmq'
        if name and (only is None or re.search(only, name)) and ours(pid, words):
            found.setdefault(name, []).append(int(pid))
    return found


def ours(pid, words):
    """True if a process is of the cloud that ``stack.sh`` set up, and not of another one that the same machine has."""
    try:
        if not os.path.samestat(os.stat(f'/proc/{pid}/root'), os.stat('/')):
            return False
        user = pwd.getpwuid(os.stat(f'/proc/{pid}').st_uid).pw_name
    except (OSError, KeyError):
        return False
    return user.startswith('kodiak-') or any(re.search('/(etc|opt|var/lib)/kodiak/', word) for word in words)


def kill(name, pids):
    """SIGKILL to every process of that name."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    say(f'killed {name} ({", ".join(map(str, pids))})')


def run(*command):
    """Lines that a command prints."""
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.split('\n')


class Host:
    """What this host has of guests: domains, taps, namespaces."""

    def __init__(self):
        self.domains = {line for line in run('virsh', '-c', 'qemu:///system', 'list', '--all', '--uuid') if line.strip()}
        self.taps = {match[1] for line in run('ip', '-o', 'link') if (match := re.match(r'\d+: (tap[0-9a-f-]{11})[@:]', line))}
        self.namespaces = {line.split()[0] for line in run('ip', 'netns', 'list') if line.strip()}


def patiently(function, seconds=120):
    """Call until it works: services that were just killed may refuse for a moment."""
    until = time.monotonic() + seconds
    while True:
        try:
            return function()
        except openstack.exceptions.NotFoundException:
            return None
        except (openstack.exceptions.SDKException, exceptions.ClientException, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(1)


class Cloud:
    """Servers that come and go."""

    def __init__(self, name):
        self.connection = openstack.connect(cloud=name)
        self.image = next(image for image in self.connection.image.images(status='active'))
        flavors = sorted(self.connection.compute.flavors(), key=lambda flavor: flavor.ram)
        self.flavor = next(flavor for flavor in flavors if flavor.ram >= 128)
        self.network = next(network for network in self.connection.network.networks() if not network.is_router_external)

    def create(self, name):
        """Ask for a server; a refusal because a service is being killed is not an error, asking again is the client's part."""
        return patiently(lambda: self.connection.compute.create_server(
            name=name, image_id=self.image.id, flavor_id=self.flavor.id, networks=[{'uuid': self.network.id}]))

    def delete(self, server):
        """Ask for its end."""
        patiently(lambda: self.connection.compute.delete_server(server, ignore_missing=True))

    def servers(self):
        """The servers of this test that are there."""
        return [server for server in patiently(lambda: list(self.connection.compute.servers(all_projects=True)))
                if server.name.startswith(PREFIX)]

    def settle(self):
        """Wait until every server is stable; returns those that are not after :data:`SETTLE` seconds."""
        until = time.monotonic() + SETTLE
        while True:
            unstable = [server for server in self.servers()
                        if server.status not in ('ACTIVE', 'ERROR') or server.task_state is not None]
            if not unstable or time.monotonic() > until:
                return unstable
            time.sleep(1)

    def gone(self):
        """Wait until there is none; returns those that are left."""
        until = time.monotonic() + SETTLE
        while (left := self.servers()) and time.monotonic() < until:
            time.sleep(1)
        return left

    def leftovers(self, ids):
        """Ports and allocations of servers that are gone."""
        ports = [port.id for port in patiently(lambda: list(self.connection.network.ports())) if port.device_id in ids]
        placement = self.connection.placement
        held = []
        for server in ids:
            answer = patiently(lambda server=server: placement.get(f'/allocations/{server}'))
            if answer is not None and answer.json().get('allocations'):
                held.append(server)
        return ports, held


class Volumes:
    """Volumes that come to two servers and leave them."""

    STABLE = ('available', 'in-use')

    def __init__(self, cloud, count=4):
        self.cloud, self.connection = cloud, cloud.connection
        self.servers = [cloud.create(f'{KEPT}{number}') for number in range(2)]
        for server in self.servers:
            self.connection.compute.wait_for_server(server, wait=SETTLE)
        self.volumes = [self.connection.block_storage.create_volume(name=f'{KEPT}{number}', size=1).id for number in range(count)]
        self.snapshots = self.turns = 0
        self.done = {'attached': 0, 'detached': 0, 'snapshotted': 0, 'moved': 0}
        self.pools = [pool.name for pool in self.connection.block_storage.backend_pools()]
        self.settle()

    def look(self):
        """``{volume: (status, server or None)}`` as block storage says."""
        found = [patiently(lambda volume=volume: self.connection.block_storage.get_volume(volume)) for volume in self.volumes]
        return {volume.id: (volume.migration_status if volume.migration_status in ('starting', 'migrating') else volume.status,
                            volume.attachments[0]['server_id'] if volume.attachments else None) for volume in found}

    def stir(self, _number=0):
        """Attach what is free, detach what is attached, and take snapshots; a refusal in between is not an error."""
        compute, block = self.connection.compute, self.connection.block_storage
        for number, (volume, (status, server)) in enumerate(self.look().items()):
            try:
                if number == 0 and status in self.STABLE:
                    # First: one that is being attached or detached has none made of it.
                    self.snapshots += 1
                    block.create_snapshot(volume_id=volume, name=f'{KEPT}{self.snapshots}', is_forced=True)
                    self.done['snapshotted'] += 1
                if number == 1 and len(self.pools) > 1 and status in self.STABLE and self.move(volume):
                    continue
                if status == 'available':
                    compute.post(f'/servers/{self.servers[number % 2].id}/os-volume_attachments', json={
                        'volumeAttachment': {'volumeId': volume}}).raise_for_status()
                    self.done['attached'] += 1
                elif status == 'in-use' and server:
                    compute.delete(f'/servers/{server}/os-volume_attachments/{volume}').raise_for_status()
                    self.done['detached'] += 1
            except (openstack.exceptions.SDKException, exceptions.ClientException, OSError):
                continue

    def move(self, volume):
        """Have a volume moved to another back end, each second time. True if it was asked for."""
        self.turns += 1
        if self.turns % 2:
            return False
        here = patiently(lambda: self.connection.block_storage.get_volume(volume)).host
        self.connection.block_storage.post(f'/volumes/{volume}/action', json={'os-migrate_volume': {
            'host': next(pool for pool in self.pools if pool != here)}}).raise_for_status()
        self.done['moved'] += 1
        return True

    def settle(self):
        """Wait until every volume and snapshot is stable; sentences about those that are not, or are not agreed upon."""
        until = time.monotonic() + SETTLE
        while True:
            found = self.wrong()
            if not found or time.monotonic() > until:
                return found
            time.sleep(2)

    def wrong(self):
        """What is not as it should be, as sentences."""
        said = self.look()
        faults = [f'volume {volume} is {status}' for volume, (status, _) in said.items() if status not in self.STABLE]
        faults += [f'volume {volume} lies at {count} places' for volume in said if DISK.is_dir()
                   and (count := len(list(DISK.glob(f'*/volume-{volume}')))) != 1]
        faults += [f'snapshot {snapshot.id} is {snapshot.status}' for snapshot in self.all_snapshots()
                   if snapshot.status not in ('available', 'error')]
        for server in self.servers:
            block = {volume for volume, (_, holder) in said.items() if holder == server.id}
            compute = {entry['volumeId'] for entry in patiently(
                lambda server=server: self.connection.compute.get(f'/servers/{server.id}/os-volume_attachments')).json()[
                    'volumeAttachments']}
            definition = '\n'.join(run('virsh', '-c', 'qemu:///system', 'dumpxml', server.id))
            there = set(re.findall('ua-volume-([0-9a-f-]{36})', definition))
            if not block == compute == there:
                faults.append(f'server {server.id} has {sorted(block)} for block storage, {sorted(compute)} for compute and '
                              f'{sorted(there)} in fact')
        return faults

    def all_snapshots(self):
        """The snapshots of these volumes."""
        return [snapshot for snapshot in patiently(lambda: list(self.connection.block_storage.snapshots()))
                if snapshot.volume_id in self.volumes]

    def end(self):
        """Delete all of it; sentences about what does not go, and attachments that are left."""
        for server in self.servers:
            self.cloud.delete(server)
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            for snapshot in self.all_snapshots():
                patiently(lambda snapshot=snapshot: self.connection.block_storage.delete_snapshot(snapshot, ignore_missing=True))
            left = [volume for volume in patiently(lambda: list(self.connection.block_storage.volumes()))
                    if volume.id in self.volumes]
            for volume in left:
                if volume.status in ('available', 'error'):
                    try:
                        self.connection.block_storage.delete_volume(volume, ignore_missing=True)
                    except openstack.exceptions.SDKException:
                        continue        # its snapshots are still going
            if not left:
                break
            time.sleep(2)
        ids = {server.id for server in self.servers}
        held = patiently(lambda: self.connection.block_storage.get(
            '/attachments', params={'all_tenants': '1'}, headers={'OpenStack-API-Version': 'volume 3.71'})).json()['attachments']
        return [f'volume {volume.id} does not go: {volume.status}' for volume in left] + [
            f'attachment {entry["id"]} is left' for entry in held if entry['instance'] in ids]


def round_of(cloud, name, pids, count, pool, volumes=None):
    """One process's turn: servers come, half of them go, volumes change hands, and the process dies in the middle."""
    tag = name.removeprefix('kodiak-')
    stirring = [pool.submit(volumes.stir)] if volumes else []
    coming = [pool.submit(cloud.create, f'{PREFIX}{tag}-{number}') for number in range(count)]
    time.sleep(0.5)
    kill(name, pids)
    servers = [future.result() for future in coming]
    going = [pool.submit(cloud.delete, server) for server in servers[::2] if server]
    for future in stirring:
        future.result()
    stirring = [pool.submit(volumes.stir)] if volumes else []
    time.sleep(0.3)
    again = processes('^' + re.escape(name) + '$').get(name)
    if again:
        kill(name, again)
    for future in [*going, *stirring]:
        future.result()
    # A request whose answer was lost may have made a server that nobody here knows by its id.
    return {server.id for server in [*servers, *cloud.servers()] if server}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--cloud', default='kodiak-admin')
    parser.add_argument('--servers', type=int, default=20, help='servers in all; they are shared among the processes')
    parser.add_argument('--no-volumes', dest='volumes', action='store_false', help='leave block storage alone')
    parser.add_argument('--only', help='kill only processes whose name matches')
    options = parser.parse_args()
    cloud, before = Cloud(options.cloud), Host()
    victims = processes(options.only)
    say(f'{len(victims)} kinds of processes: {", ".join(sorted(victims))}')
    each = max(2, -(-options.servers // max(len(victims), 1)))
    ids, faults = set(), []
    volumes = Volumes(cloud) if options.volumes and cloud.connection.has_service('block-storage') else None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for name in sorted(victims):
            ids |= round_of(cloud, name, processes('^' + re.escape(name) + '$').get(name, []), each, pool, volumes)
            unstable = cloud.settle()
            faults += [f'after {name}: {server.name} {server.id} is {server.status}/{server.task_state}' for server in unstable]
            faults += [f'after {name}: {fault}' for fault in (volumes.settle() if volumes else ())]
            wrong = [server for server in cloud.servers() if server.status == 'ERROR']
            faults += [f'after {name}: {server.name} is in ERROR and does not say why' for server in wrong
                       if not (server.fault or {}).get('message')]
            say(f'{name}: {len(cloud.servers())} servers there, {len(wrong)} of them in ERROR, {len(unstable)} not stable')
            for server in cloud.servers():
                cloud.delete(server)
            faults += [f'after {name}: {server.name} {server.id} does not go: {server.status}/{server.task_state}'
                       for server in cloud.gone()]
    if volumes:
        say('volumes: ' + ', '.join(f'{count} times {what}' for what, count in volumes.done.items()))
        faults += volumes.end()
    faults += leftovers(cloud, ids, before)
    for fault in faults:
        say('FAULT ' + fault)
    say(f'{len(ids)} servers, {len(faults)} faults')
    return 1 if faults else 0


def leftovers(cloud, ids, before):
    """What is left of servers that are gone, as sentences; the host may take a moment to follow."""
    until = time.monotonic() + SETTLE
    while True:
        ports, held = cloud.leftovers(ids)
        after = Host()
        found = [f'port {port} is left' for port in ports] + [f'server {server} still has an allocation' for server in held]
        found += [f'{kind} {name} is left' for kind in ('domains', 'taps', 'namespaces')
                  for name in sorted(getattr(after, kind) - getattr(before, kind))]
        if not found or time.monotonic() > until:
            return found
        time.sleep(2)


if __name__ == '__main__':
    sys.exit(main())
