"""What ``kodiak doctor`` looks for on a host that runs guests or networks: programs, kernel features, libvirt."""
import contextlib
import os
import shutil
import subprocess

from oslo_config import cfg

NETWORK_PROGRAMS = {'dnsmasq': 'dnsmasq-base', 'nft': 'nftables'}
COMPUTE_PROGRAMS = {'qemu-system-x86_64': 'qemu-system-x86', 'qemu-img': 'qemu-utils', 'genisoimage': 'genisoimage'}
PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'


def examine(readable, finding):
    """Check this host for what its services need.

    :param readable: the services whose configuration was read. :param finding: the class of findings.
    """
    names = {service.name for service in readable if os.path.exists(os.path.join(
        service.conf.run_path, f'kodiak-{service.name}-agent.status'))}
    if 'network' in names:
        yield from _programs(NETWORK_PROGRAMS, finding)
        yield from _network(finding)
    compute = next((service for service in readable if service.name in names and service.name == 'compute'), None)
    if compute and _driver(compute) == 'libvirt':
        yield from _programs(COMPUTE_PROGRAMS, finding)
        yield from _libvirt(finding)


def _driver(service):
    with contextlib.suppress(cfg.DuplicateOptError):
        service.conf.register_opt(cfg.StrOpt('driver', default='libvirt'), group='agent')
    return service.conf.agent.driver


def _programs(programs, finding):
    for program, package in programs.items():
        if shutil.which(program, path=PATH):
            yield finding('ok', program, 'installed')
        else:
            yield finding('fault', program, 'this program is missing.', f'apt-get install --no-install-recommends {package}')


def _network(finding):
    if _sysctl('net/ipv4/ip_forward') == '1':
        yield finding('ok', 'routing', 'on')
    else:
        yield finding('fault', 'routing', 'the kernel forwards no packets, so floating IPs lead nowhere.',
                      'sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d')
    if os.path.exists('/proc/sys/net/bridge/bridge-nf-call-iptables'):
        yield finding('ok', 'br_netfilter', 'there')
    else:
        yield finding('fault', 'br_netfilter', 'the kernel does not show bridged packets to nftables, so security groups would '
                      'not be enforced.', 'modprobe br_netfilter, and name it in /etc/modules-load.d')
    if os.path.exists('/dev/net/tun'):
        yield finding('ok', '/dev/net/tun', 'there')
    else:
        yield finding('fault', '/dev/net/tun', 'there are no tap devices for guests.', 'modprobe tun')
    instances = int(_sysctl('fs/inotify/max_user_instances') or 0)
    if instances < 512:
        yield finding('warning', 'inotify', f'only {instances} instances for each user; dnsmasq takes one for each network.',
                      'sysctl -w fs.inotify.max_user_instances=1024, and keep it in /etc/sysctl.d')
    else:
        yield finding('ok', 'inotify', f'{instances} instances')


def _libvirt(finding):
    try:
        ran = subprocess.run(['virsh', '-c', 'qemu:///system', 'capabilities'], capture_output=True, text=True, timeout=15,
                             check=False)
        problem = ran.stderr.strip().splitlines()[-1] if ran.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        ran, problem = None, str(error)
    if problem:
        yield finding('fault', 'libvirt', f'it does not answer: {problem}.',
                      'Start virtlogd and libvirtd; apt-get install libvirt-daemon libvirt-clients where they are missing.')
        return
    yield finding('ok', 'libvirt', 'answers')
    if "<domain type='kvm'" in ran.stdout:
        yield finding('ok', 'KVM', 'libvirt offers it')
    else:
        yield finding('warning', 'KVM', 'libvirt offers no hardware virtualization: guests are emulated and slow.',
                      'Switch on VT-x or AMD-V in the firmware (or nested virtualization), and modprobe kvm_intel or kvm_amd.')


def _sysctl(name):
    try:
        with open('/proc/sys/' + name) as file:
            return file.read().strip()
    except OSError:
        return None
