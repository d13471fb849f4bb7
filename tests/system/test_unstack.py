"""unstack.sh leaves nothing behind, and what was there comes back. Takes the cloud down: runs last, and only when asked for."""
import os
import pathlib
import re
import subprocess

import pytest
from test_stack import TOP, kodiak_processes

pytestmark = [pytest.mark.system, pytest.mark.skipif('KODIAK_TEST_UNSTACK' not in os.environ, reason='takes the cloud down')]


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_unstack_leaves_nothing():
    done = subprocess.run([TOP / 'devstack' / 'unstack.sh'], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert kodiak_processes() == {}
    running = output('ps', 'ax', '-o', 'args')
    assert not re.search(r'kodiak@localhost|/etc/kodiak|qemu-system.*instance-|dnsmasq .*kodiak', running)
    assert not re.search(r'^q(dhcp|router)-', output('ip', 'netns', 'list'), re.M)
    assert not re.search(r': (br-ex|brq|tap|vd-|vr-|vxlan-)', output('ip', '-o', 'link'))
    assert 'kodiak' not in output('nft', 'list', 'ruleset')
    # The host may have namespaces of its own under /run/netns: those stay, and so does that folder's mount.
    assert not re.search(r'kodiak/|/run/netns/q(dhcp|router)-', pathlib.Path('/proc/mounts').read_text())
    assert not os.path.exists('/run/kodiak')


def test_the_same_cloud_comes_up_again(demo):
    done = subprocess.run([TOP / 'devstack' / 'stack.sh'], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert 'answered SSH' in done.stdout
    assert [item['Name'] for item in demo('server list')].count('first') == 1
