"""The privileged daemon, started by a command as an agent without rights does it. Needs root."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason='needs root')]

MODULE = """
import os
from kodiak.common import privileged

context = privileged.context(__name__, capabilities=['CAP_NET_ADMIN', 'CAP_CHOWN'])


@context.entrypoint
def who():
    with open('/proc/self/status') as file:
        effective = next(line for line in file if line.startswith('CapEff')).split()[1]
    return {'uid': os.getuid(), 'pid': os.getpid(), 'capabilities': int(effective, 16)}


@context.entrypoint
def links():
    from pyroute2 import IPRoute
    with IPRoute() as route:
        return sorted(link.get_attr('IFLA_IFNAME') for link in route.get_links())


@context.entrypoint
def fail():
    raise FileNotFoundError('no such bridge')


def not_exported():
    return 'secret'
"""

AGENT = """
import os, sys
from kodiak.common import config, privileged
from kodiak.trial import root

os.setgid(65534)
os.setuid(65534)
conf = config.load('trial', files=[])
conf.register_opts(privileged.OPTS, group='privileged')
conf.set_override('helper_command', sys.argv[1], group='privileged')
privileged.start(root.context, conf)
who = root.who()
assert who['uid'] == 0 and who['pid'] != os.getpid(), who
assert who['capabilities'] == (1 << 12) | (1 << 0), who
assert 'lo' in root.links()
try:
    root.fail()
except FileNotFoundError as error:
    assert str(error) == 'no such bridge'
root.context.stop()
print('fine')
"""


@pytest.fixture
def folder():
    # Not pytest's own folder: the user "nobody" must be able to read it.
    made = pathlib.Path(tempfile.mkdtemp(prefix='kodiak-privileged-'))
    made.chmod(0o755)
    (made / 'kodiak' / 'trial').mkdir(parents=True)
    (made / 'kodiak' / 'trial' / '__init__.py').touch()
    (made / 'kodiak' / 'trial' / 'root.py').write_text(MODULE)
    (made / 'agent.py').write_text(AGENT)
    yield made
    shutil.rmtree(made)


def test_an_agent_without_rights_has_a_daemon_with_few(folder):
    rule = f'/etc/sudoers.d/kodiak-test-{os.getpid()}'
    environment = {**os.environ, 'PYTHONPATH': f'{folder}:' + os.environ.get('PYTHONPATH', '')}
    launcher = folder / 'kodiak-privsep-helper'
    launcher.write_text(f'#!{sys.executable}\nimport sys\nsys.path[:0] = {environment["PYTHONPATH"].split(":")!r}\n'
                        'from kodiak.common.privileged import helper\nhelper()\n')
    launcher.chmod(0o755)
    with open(rule, 'w') as file:
        file.write(f'nobody ALL=(root) NOPASSWD: {launcher}\n')
    os.chmod(rule, 0o440)
    try:
        ran = subprocess.run([sys.executable, str(folder / 'agent.py'), f'sudo -n {launcher}'], env=environment,
                             check=False, capture_output=True, text=True, timeout=60)
        assert ran.stdout == 'fine\n', ran.stderr
        stranger = subprocess.run([str(launcher), '--privsep_context', 'os.system', '--privsep_sock_path', '/x'],
                                  check=False, capture_output=True, text=True, timeout=60)
        assert stranger.returncode == 1
        assert 'serves the privileged modules of kodiak only' in stranger.stderr
    finally:
        os.unlink(rule)
