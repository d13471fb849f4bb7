"""A host of the test: this process runs in network and mount namespaces of its own (unshare -n -m) and does what it is
told by lines of JSON on its standard input, one answer a line. ``host_process.py agent`` is the agent itself, on a
file in place of the conductor.
"""
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x0002, 0x1000
LEASE = """#!/bin/sh
case $1 in bound|renew)
 busybox ip addr flush dev $interface
 busybox ip addr add $ip/$mask dev $interface
 [ -n "$mtu" ] && busybox ip link set $interface mtu $mtu
 for r in $router; do busybox ip route add default via $r dev $interface; done
 set -- $staticroutes
 while [ -n "$2" ]; do busybox ip route add $1 via $2 dev $interface 2>/dev/null; shift; shift; done
 echo "LEASE $ip $mask router=$router dns=$dns mtu=$mtu host=$hostname routes=$staticroutes";;
esac
"""


def sh(command, space=None, timeout=20):
    where = ['ip', 'netns', 'exec', space] if space else []
    try:
        done = subprocess.run([*where, 'sh', '-c', command], capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return [124, 'timeout']
    return [done.returncode, (done.stdout + done.stderr).strip()]


def tap(name):
    handle = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack('16sH22x', name.encode(), IFF_TAP | IFF_NO_PI))
    return handle


class Guest:
    """A namespace whose eth0 is joined to a tap of the host frame by frame, as a virtual machine's would be."""

    def __init__(self, name, tap_name, mac):
        sys.path[:0] = os.environ['PYTHONPATH'].split(':')
        from kodiak.network.agent.spaces import inside
        subprocess.run(['ip', 'netns', 'add', name], check=True)
        self.outer = tap(tap_name)
        with inside(name):
            self.inner = tap('eth0')
        sh(f'ip link set eth0 address {mac}; ip link set lo up; ip link set eth0 up', name)
        self.name = name
        self.quit, self.ring = os.pipe()
        threading.Thread(target=self.pump, daemon=True).start()

    def pump(self):
        other = {self.outer: self.inner, self.inner: self.outer}
        while True:
            ready, _, _ = select.select([*other, self.quit], [], [])
            if self.quit in ready:
                return
            for handle in ready:
                try:
                    os.write(other[handle], os.read(handle, 65536))
                except OSError:
                    continue

    def close(self):
        os.write(self.ring, b'x')
        os.close(self.outer)
        os.close(self.inner)
        subprocess.run(['ip', 'netns', 'del', self.name], check=False)



def host():
    os.makedirs('/run/netns', exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/run/netns'], check=True)
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    guests, agents = {}, {}
    for line in sys.stdin:
        order = json.loads(line)
        verb = order.pop('do')
        try:
            if verb == 'sh':
                answer = sh(**order)
            elif verb == 'guest':
                guests[order['name']] = Guest(**order)
                answer = None
            elif verb == 'guest-off':
                guests.pop(order['name']).close()
                answer = None
            elif verb == 'spawn':
                where = ['ip', 'netns', 'exec', order['space']] if order.get('space') else []
                with open(order['log'], 'a') as out:
                    agents[order['key']] = subprocess.Popen(
                        [*where, 'sh', '-c', 'exec ' + order['command']], stdin=subprocess.DEVNULL,
                        stdout=out, stderr=subprocess.STDOUT)
                answer = agents[order['key']].pid
            elif verb == 'kill':
                process = agents.pop(order['key'])
                process.send_signal(order['signal'])
                answer = process.wait(20)
            elif verb == 'signal':
                agents[order['key']].send_signal(order['signal'])
                answer = agents[order['key']].poll()
            else:
                raise ValueError(verb)
        except Exception as error:
            answer = {'error': repr(error)}
        print(json.dumps(answer), flush=True)
    for guest in guests.values():
        guest.close()
    for process in agents.values():
        process.kill()


class FileClient:
    """A conductor that is a folder: ``state.json`` is the whole wanted state, ``reports`` is what the agent said."""

    def __init__(self, folder):
        self.folder = folder

    def call(self, name, context=None, **args):
        from kodiak.common import errors
        if os.path.exists(os.path.join(self.folder, 'away')):
            raise errors.Unavailable('The conductor is away.')
        if name == 'host_state':
            with open(os.path.join(self.folder, 'state.json')) as file:
                answer = json.load(file)
            with open(os.path.join(self.folder, 'asked'), 'a') as file:
                file.write(f'{args["since"]}\n')
            if answer['generation'] == args['since']:
                return {'generation': answer['generation'], 'full': False, 'set': {}, 'gone': {}}
            return answer
        with open(os.path.join(self.folder, 'reports'), 'a') as file:
            for result in args['results']:
                file.write(json.dumps(result) + '\n')
        return None


def agent():
    from kodiak.common import config, log, rpc, service
    from kodiak.network.agent import conf as agent_conf
    from kodiak.network.agent import main
    from kodiak.network.drivers.linuxbridge import Driver
    folder, options = sys.argv[2], sys.argv[3:]
    conf = config.load('network', agent_conf.OPTS, args=options, files=[os.path.join(folder, 'network.conf')])
    log.setup(conf, main.BINARY)
    app = service.make_runtime('network', main.BINARY, conf, database=False)
    app.bus = rpc.Bus.in_memory()
    _, reconciler = main.build(app, client=FileClient(folder), driver=Driver)
    # The daemon is a child of its own now: this process needs no rights any more.
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.signal(signal.SIGUSR1, lambda *_: threading.Thread(target=reconciler.nudge).start())
    signal.signal(signal.SIGUSR2, lambda *_: threading.Thread(target=reconciler.resync).start())
    app.start()
    ending.wait()
    app.stop()


if __name__ == '__main__':
    agent() if sys.argv[1:2] == ['agent'] else host()
