"""What the system tests share: a running cloud (devstack/stack.sh), seen through the stock client and openstacksdk."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import uuid

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
IMAGE = 'kodiak-guest'


def until(seconds, what, look, pause=0.5):
    """Call ``look`` until it gives something that counts as true, and return that."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            pytest.fail(f'{what}: not within {seconds} s')
        time.sleep(pause)


class Client:
    """The ``openstack`` command as one user: ``cli('server show', id)`` returns what it prints, as data."""

    def __init__(self, *arguments):
        self.command = shutil.which('openstack') or '/opt/kodiak/venv/bin/openstack'
        self.arguments = arguments

    def text(self, command, *arguments):
        """Run it; returns its output as text."""
        done = self.run(command, *arguments)
        assert done.returncode == 0, f'openstack {command} {arguments}: {done.stderr[-1500:]}'
        return done.stdout

    def run(self, command, *arguments):
        """Run it; returns the ``subprocess.CompletedProcess`` whatever it ended with."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith('OS_')}
        return subprocess.run([self.command, *self.arguments, *command.split(), *map(str, arguments)], env=environ,
                              capture_output=True, text=True, timeout=600, check=False)

    def __call__(self, command, *arguments):
        return json.loads(self.text(command, *arguments, '-f', 'json'))


class Guest:
    """A shell in a guest, by SSH."""

    def __init__(self, address, key):
        self.address = address
        self.base = ['ssh', '-q', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=no', '-o', 'ConnectTimeout=4',
                     '-o', 'UserKnownHostsFile=/dev/null', '-i', str(key), f'cirros@{address}']

    def run(self, command, timeout=60):
        """Run it; returns the ``subprocess.CompletedProcess``."""
        return subprocess.run([*self.base, command], capture_output=True, text=True, timeout=timeout, check=False)

    def __call__(self, command, timeout=60):
        done = self.run(command, timeout)
        assert done.returncode == 0, f'{command}: {done.stdout}{done.stderr}'
        return done.stdout.strip()

    def answers(self):
        """True if one can log in."""
        return self.run('true', 30).returncode == 0

    def wait(self, seconds=150):
        """Until one can log in."""
        until(seconds, f'SSH on {self.address}', self.answers)
        return self


def ping(address):
    """True if it answers one of two packets."""
    return subprocess.run(['ping', '-c2', '-W2', '-i0.3', address], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope='session')
def admin():
    """The openstack command as the administrator."""
    return Client('--os-cloud', 'kodiak-admin')


@pytest.fixture(scope='session')
def demo():
    """The openstack command as user demo in project demo."""
    return Client('--os-cloud', 'kodiak')


@pytest.fixture(scope='session')
def sdk():
    """openstacksdk as user demo."""
    import openstack
    with openstack.connect(cloud='kodiak') as connection:
        yield connection


@pytest.fixture(scope='session')
def admin_sdk():
    """openstacksdk as the administrator."""
    import openstack
    with openstack.connect(cloud='kodiak-admin') as connection:
        yield connection


@pytest.fixture
def unique():
    """A function that makes names which no other test uses."""
    return lambda word: f'{word}-{uuid.uuid4().hex[:8]}'


@pytest.fixture(scope='session')
def key(tmp_path_factory, sdk):
    """(name of a key pair of the demo user, file of its private key)."""
    path = tmp_path_factory.mktemp('key') / 'id'
    subprocess.run(['ssh-keygen', '-q', '-t', 'ecdsa', '-N', '', '-f', str(path)], check=True)
    name = 'system-' + uuid.uuid4().hex[:8]
    sdk.compute.create_keypair(name=name, public_key=path.with_suffix('.pub').read_text())
    yield name, path
    sdk.compute.delete_keypair(name, ignore_missing=True)


@pytest.fixture(scope='session')
def open_group(sdk):
    """A security group that lets in ping and SSH."""
    group = sdk.network.create_security_group(name='system-' + uuid.uuid4().hex[:8])
    for protocol, port in (('icmp', None), ('tcp', 22)):
        sdk.network.create_security_group_rule(security_group_id=group.id, direction='ingress', protocol=protocol,
                                               port_range_min=port, port_range_max=port, ethertype='IPv4')
    yield group
    sdk.network.delete_security_group(group)


def address_of(text):
    """The last IPv4 address in what the client prints of a server's addresses (the floating one stands last)."""
    return re.findall(r'\d+\.\d+\.\d+\.\d+', str(text))[-1]
