"""Starting, telling and stopping dnsmasq processes; runs as root."""
import os
import re
import signal
import subprocess
import time

from kodiak.network.agent.spaces import inside

PROGRAM = 'dnsmasq'
PID_FILE = re.compile(r'^--pid-file=(?P<folder>/.+)/(?P<name>dnsmasq-[0-9a-f]{16}\.pid)\Z')
# What a main file may hold: dnsmasq can also run programs and read any file, and starts as root.
DIRECTIVE = re.compile(
    r'^(?:no-hosts|no-resolv|no-poll|bind-dynamic|dhcp-authoritative|domain-needed|quiet-dhcp6?|quiet-ra|group=nogroup'
    r'|(?:except-interface|interface|user|dhcp-leasefile|dhcp-hostsfile|dhcp-optsfile|addn-hosts|dhcp-match|dhcp-mac'
    r'|dhcp-option-force|server|domain|local|dhcp-range|dhcp-lease-max|log-facility)=[\x21-\x7e]+)\Z')


def _arguments(pid):
    """The command line of a process; [] once it has ended."""
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as file:
            return file.read().decode(errors='replace').split('\0')[:-1]
    except OSError:
        return []


def _ours(pid):
    """(folder, pid file name) if the process is a dnsmasq that was started here, else None."""
    arguments = _arguments(pid)
    if not arguments or os.path.basename(arguments[0]) != PROGRAM:
        return None
    for argument in arguments[1:]:
        match = PID_FILE.match(argument)
        if match:
            return match['folder'], match['name']
    return None


def look():
    """The dnsmasq processes that were started here: a list of [pid, folder, pid file's name, inode of its namespace]."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            ours = _ours(name)
            if ours:
                try:
                    found.append([int(name), *ours, os.stat(f'/proc/{name}/ns/net').st_ino])
                except OSError:
                    continue
    return found


def start(space, folder, main):
    """Start one in a namespace.

    :param folder: of its files; two of them may not use one folder at a time.
    :param main: text of its main file, handed over by its standard input; its first line names the pid file.
    """
    first, *lines = main.splitlines()
    argument = '--' + first
    match = PID_FILE.match(argument)
    if not match or match['folder'] != folder:
        raise ValueError('the main file of dnsmasq does not begin with its pid file')
    for line in lines:
        if not DIRECTIVE.match(line) or line == 'user=root':
            raise ValueError(f'{line!r} has no place in a main file of dnsmasq')
    with inside(space):
        done = subprocess.run([PROGRAM, argument, '--conf-file=-'], input='\n'.join([*lines, '']), text=True,
                              capture_output=True, check=False, timeout=30, cwd='/')
    if done.returncode:
        raise RuntimeError('dnsmasq: ' + ' '.join(done.stderr.split())[:300])


def reload(pid):
    """Have one read its host, option and name files again."""
    if _ours(pid):
        os.kill(pid, signal.SIGHUP)


def stop(pid):
    """End one, and return when it has let go of its sockets."""
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        if not _ours(pid):
            return
        os.kill(pid, number)
        deadline = time.monotonic() + patience
        while _arguments(pid) and time.monotonic() < deadline:
            time.sleep(0.005)
