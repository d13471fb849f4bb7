"""The guest image by itself: under QEMU, with a config drive, and with a metadata service; no cloud is needed."""
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading

import pytest
from cloud import Guest, until

from kodiak.common import testing

pytestmark = pytest.mark.system
IMAGE_FILE = pathlib.Path(os.environ.get('KODIAK_CACHE') or pathlib.Path.home() / '.cache' / 'kodiak') / 'guest.qcow2'
FORWARD = """import os, socket, sys, threading
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
    s.shutdown(1)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    os.write(1, data)
"""


class Machine:
    """A QEMU process with the image on a disk of 1 GiB, and a user network with SSH forwarded."""

    def __init__(self, folder, *arguments, network='', machine='pc'):
        self.folder = folder
        self.port = testing.free_port()
        disk = folder / 'disk.qcow2'
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', IMAGE_FILE, '-F', 'qcow2', disk, '1G'], check=True)
        self.process = subprocess.Popen([
            'qemu-system-x86_64', '-nodefaults', '-no-user-config', '-M', machine, '-accel', 'tcg', '-cpu', 'qemu64', '-m', '128',
            '-display', 'none', '-serial', f'file:{folder}/serial.log', '-qmp', f'unix:{folder}/qmp,server=on,wait=off',
            '-drive', f'file={disk},if=virtio', '-device', 'virtio-rng-pci',
            '-netdev', f'user,id=n0,hostfwd=tcp:127.0.0.1:{self.port}-:22{network}', '-device', 'virtio-net-pci,netdev=n0',
            *arguments])

    def guest(self, key):
        guest = Guest('127.0.0.1', key)
        guest.base[1:1] = ['-p', str(self.port)]
        return guest.wait(90)

    def press_power_button(self):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / 'qmp'))
            with monitor.makefile('rw') as file:
                file.readline()
                for command in ('qmp_capabilities', 'system_powerdown'):
                    file.write(json.dumps({'execute': command}) + '\n')
                    file.flush()
                    file.readline()

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    if not IMAGE_FILE.exists():
        pytest.skip('no guest image was built here')
    machines = []

    def run(*arguments, **kwargs):
        machines.append(Machine(tmp_path, *arguments, **kwargs))
        return machines[-1]
    yield run
    for machine in machines:
        machine.end()


def keys(tmp_path, kind):
    path = tmp_path / 'key'
    subprocess.run(['ssh-keygen', '-q', '-t', kind, '-N', '', '-f', path], check=True)
    return path, path.with_suffix('.pub').read_text()


def describe(folder, public):
    """A folder in the form of a config drive."""
    latest = folder / 'openstack' / 'latest'
    latest.mkdir(parents=True)
    (folder / 'openstack' / 'content').mkdir()
    (folder / 'openstack' / 'content' / '0000').write_text('from the cloud\n')
    (latest / 'meta_data.json').write_text(json.dumps({
        'uuid': '6c1d7a52-5c1b-4d0a-8e5c-0d9a6a1d9c11', 'hostname': 'grizzly.novalocal', 'name': 'grizzly',
        'public_keys': {'my "key"': public}, 'meta': {'a': 'b\\c"d'},
        'files': [{'path': '/etc/injected/file', 'content_path': '/content/0000'}]}))
    (latest / 'user_data').write_text('#!/bin/sh\necho "ran as $(id -un)" > /var/tmp/user-data\n')


@pytest.mark.parametrize('kind', ['ed25519', 'ecdsa', 'rsa'])
def test_config_drive(start, tmp_path, kind):
    key, public = keys(tmp_path, kind)
    describe(tmp_path / 'drive', public)
    subprocess.run(['genisoimage', '-quiet', '-o', tmp_path / 'drive.iso', '-V', 'config-2', '-J', '-r', tmp_path / 'drive'],
                   check=True)
    machine = start('-drive', f'file={tmp_path}/drive.iso,media=cdrom,if=ide,readonly=on')
    guest = machine.guest(key)
    assert guest('hostname') == 'grizzly'
    assert guest('cat /etc/injected/file 2> /dev/null || sudo cat /etc/injected/file') == 'from the cloud'
    until(10, 'user data', lambda: 'ran as root' in guest.run('cat /var/tmp/user-data').stdout)
    assert int(guest("df -m / | awk 'NR==2 {print $2}'")) > 900
    # What checks of a cloud use, as they call it.
    guest('set -eu -o pipefail; PATH=$PATH:/sbin:/usr/sbin; lsblk -lb --nodeps | grep TYPE; cut -f1 -d. /proc/uptime; '
          'sudo mount $(blkid -L config-2 -o device) /mnt; sudo umount /mnt; sudo sh -c "echo mark >/dev/console"; curl -V; '
          "ip -o link | awk '/eth0/ {print $2}'; ping -c1 -w1 -s56 127.0.0.1; ping6 -c1 -w2 ::1; cat /var/run/udhcpc.eth0.pid")
    until(5, 'mark on the console', lambda: 'mark' in (tmp_path / 'serial.log').read_text(errors='replace'))
    assert 'login:' in (tmp_path / 'serial.log').read_text(errors='replace')
    machine.press_power_button()
    machine.process.wait(30)


def test_metadata_service(start, tmp_path):
    key, public = keys(tmp_path, 'ecdsa')
    describe(tmp_path / 'web', public)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / 'web')

        def log_message(self, *args):
            """Nothing."""

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / 'forward.py').write_text(FORWARD)
    python = shutil.which('python3')
    machine = start(machine='q35', network=',net=169.254.169.0/24,host=169.254.169.1,dhcpstart=169.254.169.15,guestfwd=tcp:'
                    f'169.254.169.254:80-cmd:{python} {tmp_path}/forward.py {server.server_port}')
    guest = machine.guest(key)
    assert guest('hostname') == 'grizzly'
    until(10, 'user data', lambda: 'ran as root' in guest.run('cat /var/tmp/user-data').stdout)
    server.shutdown()
