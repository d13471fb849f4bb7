"""The back-end servers themselves, in place of their double: a process, its devices in a folder."""
import os
import shutil
import socket
import subprocess
import sys
import time

from kodiak.common import testing
from kodiak.storage_object.ring import Policies, Ring
from kodiak.storage_object.ring.builder import Builder

DEVICES = 4
CONF = """
[DEFAULT]
host = {host}
state_path = {folder}/state
run_path = {folder}/run
[storage]
devices = {folder}/devices
ring_path = {rings}
server_host = 127.0.0.1
server_port = {port}
interval = 1
{more}
"""


def make_rings(folder, places, replicas=3, kinds=('account', 'container', 'object')):
    """Rings over ``[(zone, port, device)]``."""
    os.makedirs(folder, exist_ok=True)
    for kind in kinds:
        builder = Builder(6, replicas, 0)
        for zone, port, device in places:
            builder.add(1, zone, '127.0.0.1', port, device, 100)
        builder.rebalance(seed=1)
        builder.save(f'{folder}/{kind}.builder')
        builder.write_ring(f'{folder}/{kind}.ring.gz')


def wait_for(port, process, log):
    """Wait until a process listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                with open(log) as file:
                    raise AssertionError(file.read()) from None
            time.sleep(0.02)


class Process:
    """One server process."""

    def __init__(self, folder, rings, port, name='host', more=''):
        self.folder, self.port = folder, port
        os.makedirs(f'{folder}/devices', exist_ok=True)
        with open(f'{folder}/server.conf', 'w') as file:
            file.write(CONF.format(folder=folder, rings=rings, port=port, host=name, more=more))
        self.process = None

    def start(self):
        """Start, and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, '-c', 'from kodiak.storage_object import cmd; cmd.server()', '--config-file',
             f'{self.folder}/server.conf', '--log-file', f'{self.folder}/server.log'])
        wait_for(self.port, self.process, f'{self.folder}/server.log')
        return self

    def once(self, *daemons):
        """One pass of some daemons, in a process of its own."""
        return subprocess.run([sys.executable, '-c', 'from kodiak.storage_object import cmd; cmd.daemon()', '--once', *daemons,
                               '--config-file', f'{self.folder}/server.conf'], check=True, capture_output=True, text=True,
                              timeout=60).stdout

    def log(self):
        """What it logged."""
        with open(f'{self.folder}/server.log') as file:
            return file.read()

    def stop(self, kill=False):
        """End it."""
        if self.process is not None and self.process.poll() is None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(30)


class Failing:
    """Devices that are out: their folders are away."""

    def __init__(self, folder):
        self.folder = folder

    def add(self, device):
        """Take one out."""
        os.rename(f'{self.folder}/{device}', f'{self.folder}/.{device}')

    def update(self, devices):
        """Take several out."""
        for device in devices:
            self.add(device)


class Device:
    """What is on a device."""

    def __init__(self, folder, ring):
        self.folder, self.ring = folder, ring

    @property
    def objects(self):
        """Names of its objects, as far as one asks for them."""
        return _Objects(self)


class _Objects:
    def __init__(self, device):
        self.device = device

    def __contains__(self, names):
        digest = self.device.ring.hash_path(*names)
        part = self.device.ring.get_part(*names)
        folder = f'{self.device.folder}/objects/{part}/{digest[-3:]}/{digest}'
        return os.path.isdir(folder) and any(name.endswith('.data') for name in os.listdir(folder))

    def __bool__(self):
        return os.path.isdir(f'{self.device.folder}/objects')


class Servers:
    """As the double's: four devices behind one port. Tests share the process, and begin with empty devices."""

    wait_for = staticmethod(wait_for)

    def __init__(self, folder, policy='0:gold'):
        self.folder, self.port, self.policy = str(folder), testing.free_port(), policy
        self.names = [f'd{number}' for number in range(DEVICES)]
        make_rings(f'{folder}/rings', [(number, self.port, name) for number, name in enumerate(self.names)])
        self.process = Process(self.folder, f'{folder}/rings', self.port, more=f'daemons =\npolicies = {policy}').start()
        self.rings = {kind: Ring(f'{folder}/rings/{kind}.ring.gz') for kind in ('account', 'container', 'object')}
        self.failing = Failing(f'{folder}/devices')
        self.devices = {name: Device(f'{folder}/devices/{name}', self.rings['object']) for name in self.names}

    def reset(self):
        """Empty devices."""
        shutil.rmtree(f'{self.folder}/devices', ignore_errors=True)
        for name in self.names:
            os.makedirs(f'{self.folder}/devices/{name}', exist_ok=True)

    def proxy_rings(self):
        """The rings of a proxy."""
        from kodiak.storage_object.proxy.rings import Rings

        class Conf:
            class storage:
                policies, ring_path = [self.policy], f'{self.folder}/rings'
        return Rings(self.rings['account'], self.rings['container'], list(Policies(Conf)))
