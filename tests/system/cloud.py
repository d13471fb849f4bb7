"""What the system tests share: the stock client, guests by SSH, patience."""
import json
import os
import re
import shutil
import subprocess
import time

import pytest

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


def address_of(text):
    """The last IPv4 address in what the client prints of a server's addresses (the floating one stands last)."""
    return re.findall(r'\d+\.\d+\.\d+\.\d+', str(text))[-1]
