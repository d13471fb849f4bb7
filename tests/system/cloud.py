"""What the system tests share: the stock client, guests by SSH, patience, processes and configuration of the cloud."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
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


def images(session):
    """The status that the image service answers to somebody's token (a keystoneauth session) when asked for its images."""
    return session.get('/v2/images', endpoint_filter={'service_type': 'image'}, raise_exc=False, allow_reauth=False).status_code


def kodiak_processes():
    """{pid: (name, uid)} of the processes of the services."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = pathlib.Path('/proc', pid, 'cmdline').read_bytes().decode(errors='replace').split('\0')
            uid = os.stat(f'/proc/{pid}').st_uid
        except OSError:
            continue
        name = next((os.path.basename(word) for word in words[:2] if re.search(r'/kodiak-[a-z-]+$', word)), None)
        if name:
            found[int(pid)] = (name, uid)
    return found


def read_again(binary):
    """Let the processes of this name read their configuration again (SIGHUP); where one forked others, the first of them."""
    pids = {pid for pid, (name, _) in kodiak_processes().items() if name == binary}
    for pid in pids:
        parent = int(pathlib.Path('/proc', str(pid), 'stat').read_text().rpartition(')')[2].split()[1])
        if parent not in pids:
            os.kill(pid, signal.SIGHUP)


@contextlib.contextmanager
def settings(service, text):
    """Add ``text`` to the configuration of an API of this machine, which reads it again; at the end it is as it was."""
    path = pathlib.Path(f'/etc/kodiak/{service}.conf')
    if os.geteuid() != 0 or not path.exists():
        pytest.skip('changes the configuration of the cloud: must run as root where devstack/stack.sh ran')
    before = path.read_bytes()
    try:
        path.write_bytes(before + f'\n{text}\n'.encode())
        read_again(f'kodiak-{service}-api')
        yield
    finally:
        path.write_bytes(before)
        read_again(f'kodiak-{service}-api')


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
