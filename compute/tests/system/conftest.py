"""A real libvirtd, an agent process of the unprivileged user, and the conductor in the test itself.

Needs root. A libvirtd that answers is used as it is (that of a running cloud: the agent here goes by another host name and
leaves what is not its own alone); else one is started for the tests, with QEMU's user and group as devstack sets them.
"""
import hashlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from kodiak.common import testing
from kodiak.compute.agent import state

TOP = pathlib.Path(__file__).parents[3]
HOST = 'kodiak-agent-test'
AGENT_USER = 'kodiak-compute'
QEMU_CONF = pathlib.Path('/etc/libvirt/qemu.conf')


process, = testing.share(__file__, 'agent_process', prefix='compute')


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def wait_for(condition, seconds=60, what='it'):
    """Wait until ``condition()`` is true and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f'waited {seconds} s for {what}'
        time.sleep(0.1)
    return found


def answers():
    return subprocess.run(['virsh', '-c', 'qemu:///system', 'version'], capture_output=True, check=False).returncode == 0


class Libvirt:
    """The daemons, when they are the tests' own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix='kodiak-libvirt-'))
        self.processes = {}

    def start(self, name):
        config = self.folder / (name + '.conf')
        if name == 'libvirtd':
            config.write_text('unix_sock_group = "libvirt"\nunix_sock_rw_perms = "0770"\nauth_unix_rw = "none"\n'
                              'auth_unix_ro = "none"\nlog_outputs = "3:stderr"\n')
        else:
            config.write_text('log_outputs = "3:stderr"\n')
        with open(self.folder / (name + '.log'), 'ab') as log:
            self.processes[name] = subprocess.Popen([f'/usr/sbin/{name}', '-f', str(config)], stdout=log, stderr=log)
        if name == 'libvirtd':
            wait_for(answers, 60, 'libvirtd')

    def stop(self, name):
        self.processes[name].terminate()
        self.processes.pop(name).wait(30)


def _users():
    def have(kind, name, *create):
        if subprocess.run(['getent', kind, name], capture_output=True, check=False).returncode:
            run(*create, name)
    have('group', 'kvm', 'groupadd', '--system')
    have('group', 'libvirt', 'groupadd', '--system')
    have('passwd', 'libvirt-qemu', 'useradd', '--system', '--no-create-home', '--gid', 'kvm', '--home-dir', '/var/lib/libvirt',
         '--shell', '/usr/sbin/nologin')
    have('passwd', AGENT_USER, 'useradd', '--system', '--no-create-home', '--user-group', '--shell', '/usr/sbin/nologin')
    run('usermod', '-a', '-G', 'libvirt,kvm', AGENT_USER)


@pytest.fixture(scope='session')
def libvirt():
    if os.geteuid():
        pytest.skip('needs root')
    if answers():
        yield None
        return
    _users()
    if os.path.exists('/dev/kvm'):
        shutil.chown('/dev/kvm', group='kvm')
        os.chmod('/dev/kvm', 0o660)
    before = QEMU_CONF.read_bytes() if QEMU_CONF.exists() else None
    QEMU_CONF.parent.mkdir(exist_ok=True)
    QEMU_CONF.write_text('user = "libvirt-qemu"\ngroup = "kvm"\ndynamic_ownership = 0\nremember_owner = 0\n'
                         'security_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "logd"\n')
    daemons = Libvirt()
    daemons.start('virtlogd')
    daemons.start('libvirtd')
    yield daemons
    daemons.stop('libvirtd')
    daemons.stop('virtlogd')
    if before is None:
        QEMU_CONF.unlink()
    else:
        QEMU_CONF.write_bytes(before)
    shutil.rmtree(daemons.folder)


@pytest.fixture(scope='session')
def guest_image():
    """The path of the guest image, built if need be."""
    cache = os.environ.get('KODIAK_CACHE', os.path.expanduser('~/.cache/kodiak'))
    run(str(TOP / 'devstack' / 'build-guest.sh'), env={**os.environ, 'KODIAK_CACHE': cache})
    return os.path.join(cache, 'guest.qcow2')


class Conductor:
    """Says what the tests put in, and keeps what it is told."""

    def __init__(self):
        self.instances = {}
        self.generation = 1
        self.reports = {}
        self.removable = set()
        self.said = threading.Condition()

    def host_state(self, context, hosts):
        (name, since), = hosts.items()
        with self.said:
            if since >= self.generation:
                return {}
            found = [one for one in self.instances.values() if one.generation > since]
            return {name: state.dump(state.HostState(self.generation, not since, found))}

    def report(self, context, reports):
        with self.said:
            for report in reports:
                self.reports[report['uuid']] = state.Report.load(report)
            self.said.notify_all()
        return {report['uuid']: 'ok' for report in reports}

    def resources(self, context, resources):
        self.offered = resources[0]
        return {}

    def unwanted(self, context, host, uuids):
        return [uuid for uuid in uuids if uuid in self.removable]


class Host:
    """The host under test."""

    def __init__(self, folder, image, name=HOST, enter=()):
        self.folder = folder
        self.name = name
        self.enter = enter          # a command that runs another one where this host is
        self.conductor = Conductor()
        self.server = process.serve(str(folder / 'conductor.sock'), self.conductor)
        self.process = None
        self.taps = []
        shutil.copy(image, folder / 'images' / 'guest')
        with open(image, 'rb') as file:
            self.hash = hashlib.file_digest(file, 'sha512').hexdigest()

    def start_agent(self):
        self.conductor.reports.clear()
        path = os.pathsep.join([str(TOP / 'common'), str(TOP / 'compute')])
        self.process = subprocess.Popen(
            [*self.enter, 'setpriv', '--reuid', AGENT_USER, '--regid', AGENT_USER, '--init-groups', '--inh-caps=-all',
             sys.executable, process.__file__, str(self.folder), self.name],
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'PYTHONPATH': path,
                 'KODIAK_TEST_VIRT_TYPE': os.environ.get('KODIAK_TEST_VIRT_TYPE', 'auto')})

    def kill_agent(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop_agent(self):
        self.process.terminate()
        assert self.process.wait(60) == 0

    def ask(self, name, **args):
        """A call of the AGENT table, once the agent is up."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return process.ask(str(self.folder / 'agent.sock'), name, args)
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.process.poll() is None, 'the agent is gone'
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def look(self):
        """The hint to look."""
        self.ask('look', hosts=[self.name])

    def image(self, id='guest', **more):
        return state.Image(id, id, hash=self.hash if id == 'guest' else None, **more)

    def tap(self, name):
        run('ip', 'tuntap', 'add', name, 'mode', 'tap')
        self.taps.append(name)
        run('ip', 'link', 'set', name, 'up')

    def wish(self, wanted, **more):
        """Say what should be of an instance; returns it as it was said."""
        import dataclasses
        fields = {field.name for field in dataclasses.fields(state.Spec)}
        inner = {name: more.pop(name) for name in list(more) if name in fields}
        with self.conductor.said:
            self.conductor.generation += 1
            generation = self.conductor.generation
            if 'desired' in more:
                more['desired_generation'] = generation
            wanted = dataclasses.replace(wanted, generation=generation, spec=dataclasses.replace(wanted.spec, **inner), **more)
            self.conductor.instances[wanted.uuid] = wanted
        return wanted

    def settle(self, wanted, seconds=120):
        """Wait until the agent says that a wish is fulfilled, and return the report."""
        def settled():
            report = self.conductor.reports.get(wanted.uuid)
            if report and report.fault and report.fault.final:
                raise AssertionError(report.fault)
            return report and report.settled and report.generation >= wanted.generation and report
        self.look()
        with self.conductor.said:
            assert self.conductor.said.wait_for(settled, seconds), self.conductor.reports.get(wanted.uuid)
            return settled()

    def get(self, wanted, **more):
        """:meth:`wish` and :meth:`settle`."""
        wanted = self.wish(wanted, **more)
        return wanted, self.settle(wanted)

    def log(self, uuid):
        return self.ask('console_output', host=self.name, uuid=uuid, length=None)

    def booted(self, uuid, times=1, seconds=120):
        """Wait until the guest has come to its login so many times."""
        wait_for(lambda: self.log(uuid).count('login:') >= times, seconds, f'login number {times} of {uuid}')

    def serial(self, uuid):
        return Serial(self.ask('console_address', host=self.name, uuid=uuid, kind='serial'))

    def until(self, condition, what, seconds=60):
        """Wait for something."""
        return wait_for(condition, seconds, what)

    def domain_state(self, uuid):
        """What libvirt says of a guest, and why it is so."""
        return run(*self.enter, 'virsh', '-c', 'qemu:///system', 'domstate', '--reason', uuid)

    def domains(self):
        return set(run(*self.enter, 'virsh', '-q', '-c', 'qemu:///system', 'list', '--all', '--name').split())


class Serial:
    """A login on the serial console."""

    def __init__(self, address):
        self.socket = socket.create_connection((address['host'], address['port']), 10)
        self.socket.sendall(f'GET {address["path"]} HTTP/1.1\r\n\r\n'.encode())
        self.seen = b''

    def until(self, text, seconds=90):
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            self.socket.settimeout(max(0.1, deadline - time.monotonic()))
            data = self.socket.recv(4096)
            assert data, 'the console was closed'
            self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before

    def login(self):
        for _ in range(10):
            self.socket.sendall(b'\n')
            try:
                self.until(b'login: ', 10)
                break
            except TimeoutError:
                continue
        self.socket.sendall(b'cirros\n')
        self.until(b'assword: ')
        self.socket.sendall(b'kodiak\n')
        self.until(b'$ ')
        # A shell that neither edits nor repeats its input: what comes back is output.
        self.socket.sendall(b'stty -echo; exec env PS1= bash --noediting --norc\n')
        self.until(b'\n')
        self.command('true')
        return self

    def command(self, command):
        """Run a command in the guest and return what it printed."""
        self.socket.sendall(f'{{ echo "be""gin"; {command}\necho "do""ne"; }} 2>&1\n'.encode())
        self.until(b'begin')
        return self.until(b'done').decode(errors='replace').strip().replace('\r\n', '\n')

    def close(self):
        self.socket.close()


def _folder():
    folder = pathlib.Path(tempfile.mkdtemp(prefix='kodiak-agent-', dir='/var/tmp'))
    user = pwd.getpwnam(AGENT_USER)
    folder.chmod(0o755)
    (folder / 'images').mkdir()
    for path in (folder, folder / 'images'):
        os.chown(path, user.pw_uid, user.pw_gid)
    return folder


def _end(host):
    if host.process is not None and host.process.poll() is None:
        host.stop_agent()
    for tap in host.taps:
        subprocess.run(['ip', 'link', 'del', tap], check=False)
    host.server.shutdown()
    shutil.rmtree(host.folder)


@pytest.fixture(scope='session')
def session_host(libvirt, guest_image):
    host = Host(_folder(), guest_image)
    host.libvirt = libvirt
    yield host
    _end(host)


def _clear(host):
    """Have the agent remove what a test left, and see that nothing stays."""
    for wanted in list(host.conductor.instances.values()):
        gone = host.wish(wanted, desired='absent', operations=[])
        assert host.settle(gone).power_state == 'absent'
        del host.conductor.instances[wanted.uuid]
    assert not [name for name in host.domains() if name.startswith('agent-test-')]
    assert list((host.folder / 'compute' / 'instances').iterdir()) == []


# Folders that two libvirtds on one machine must not share.
PRIVATE = ('/run/libvirt', '/etc/libvirt', '/var/lib/libvirt', '/var/cache/libvirt', '/var/log/libvirt')
SECOND = ['mount --make-rprivate /', *(f'mkdir -p {path}; mount -t tmpfs tmpfs {path}' for path in PRIVATE),
          'chmod 711 /var/lib/libvirt', 'cp "$1" /etc/libvirt/qemu.conf', 'touch "$2"/pid1 "$2"/pid2',
          'exec 3>"$2"/log', '/usr/sbin/virtlogd -p "$2"/pid1 >&3 2>&1 &', '/usr/sbin/libvirtd -p "$2"/pid2 -f "$3" >&3 2>&1 &',
          'echo $$ > "$2"/leader', 'wait']


@pytest.fixture
def second(libvirt, guest_image, tmp_path):
    """Another host with a libvirtd of its own, in a mount namespace of this machine."""
    config = tmp_path / 'libvirtd.conf'
    config.write_text('unix_sock_group = "libvirt"\nunix_sock_rw_perms = "0770"\nauth_unix_rw = "none"\n')
    shutil.copy(QEMU_CONF, tmp_path / 'qemu.conf')
    daemons = subprocess.Popen(['unshare', '-m', 'bash', '-c', '\n'.join(SECOND), 'second', str(tmp_path / 'qemu.conf'),
                                str(tmp_path), str(config)])
    leader = wait_for(lambda: (tmp_path / 'leader').exists() and (tmp_path / 'leader').read_text().strip(), 20)
    enter = ['nsenter', '-m', '-t', leader]
    wait_for(lambda: subprocess.run([*enter, 'virsh', '-c', 'qemu:///system', 'version'], capture_output=True,
                                    check=False).returncode == 0, 60, 'the second libvirtd')
    host = Host(_folder(), guest_image, HOST + '-2', enter)
    host.start_agent()
    yield host
    _clear(host)
    _end(host)
    for name in ('pid2', 'pid1'):
        pid = (tmp_path / name).read_text().strip()
        os.kill(int(pid), signal.SIGTERM)
    daemons.wait(30)


@pytest.fixture
def host(session_host):
    """The host with an agent that runs; what a test leaves is removed by the agent."""
    if session_host.process is None or session_host.process.poll() is not None:
        session_host.start_agent()
    yield session_host
    if session_host.process.poll() is not None:
        session_host.start_agent()
    _clear(session_host)


@pytest.fixture
def new(host):
    """``new()`` makes an instance without NIC, as it should be at first; it is not said to the agent yet."""
    import uuid
    count = iter(range(1, 100))

    def make(desired='running', **more):
        id = str(uuid.uuid4())
        spec = state.Spec(id, 'test', f'agent-test-{next(count)}-{id[:4]}', state.Flavor('small', 1, 128, 1),
                          image=more.pop('image', None) or host.image(), hostname='test', project_id='p', user_id='u', **more)
        return state.Instance(id, 0, desired, spec, stop_timeout=40)
    return make
