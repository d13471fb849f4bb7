#!/usr/bin/env python3
"""Kill every process of every service in turn, and the broker, while servers come and go; then look what is left behind.

    tests/faults/kill.py [--cloud kodiak-admin] [--servers 20] [--only REGEX]

Runs as root on a host that ``devstack/stack.sh`` set up (it kills processes and looks at domains, taps and namespaces). For each
process it creates and deletes servers, kills the process with SIGKILL in the middle, and lets the supervisor start it again.
Afterwards every server must be ACTIVE, gone, or in ERROR with a reason; and once all are deleted, no domain, tap, namespace,
port or allocation of them may be left, with no step by hand. The exit status says whether that was so.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import openstack
from keystoneauth1 import exceptions

SETTLE = 300        # seconds in which everything must be stable again
PREFIX = 'fault-'
PROCESS = re.compile(r'kodiak-(identity|image|network|compute|storage-block)(-[a-z]+)*$')


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
        if name and (only is None or re.search(only, name)):
            found.setdefault(name, []).append(int(pid))
    return found


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


def round_of(cloud, name, pids, count, pool):
    """One process's turn: servers come, half of them go, and the process dies in the middle."""
    tag = name.removeprefix('kodiak-')
    coming = [pool.submit(cloud.create, f'{PREFIX}{tag}-{number}') for number in range(count)]
    time.sleep(0.5)
    kill(name, pids)
    servers = [future.result() for future in coming]
    going = [pool.submit(cloud.delete, server) for server in servers[::2] if server]
    time.sleep(0.3)
    again = processes('^' + re.escape(name) + '$').get(name)
    if again:
        kill(name, again)
    for future in going:
        future.result()
    # A request whose answer was lost may have made a server that nobody here knows by its id.
    return {server.id for server in [*servers, *cloud.servers()] if server}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--cloud', default='kodiak-admin')
    parser.add_argument('--servers', type=int, default=20, help='servers in all; they are shared among the processes')
    parser.add_argument('--only', help='kill only processes whose name matches')
    options = parser.parse_args()
    cloud, before = Cloud(options.cloud), Host()
    victims = processes(options.only)
    say(f'{len(victims)} kinds of processes: {", ".join(sorted(victims))}')
    each = max(2, -(-options.servers // max(len(victims), 1)))
    ids, faults = set(), []
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for name in sorted(victims):
            ids |= round_of(cloud, name, processes('^' + re.escape(name) + '$').get(name, []), each, pool)
            unstable = cloud.settle()
            faults += [f'after {name}: {server.name} {server.id} is {server.status}/{server.task_state}' for server in unstable]
            wrong = [server for server in cloud.servers() if server.status == 'ERROR']
            faults += [f'after {name}: {server.name} is in ERROR and does not say why' for server in wrong
                       if not (server.fault or {}).get('message')]
            say(f'{name}: {len(cloud.servers())} servers there, {len(wrong)} of them in ERROR, {len(unstable)} not stable')
            for server in cloud.servers():
                cloud.delete(server)
            faults += [f'after {name}: {server.name} {server.id} does not go: {server.status}/{server.task_state}'
                       for server in cloud.gone()]
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
