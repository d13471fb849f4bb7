#!/usr/bin/env python3
"""Memory of object storage while a large object comes in and goes out, and with many idle connections.

    bench/object_memory.py [--gigabytes 5] [--connections 500] [--policy gold]

Memory is the proportional set size (PSS) of all processes of the proxy and of the servers, looked at every 0.2 s. It is constant
if the large object takes no more than small ones (64 MB, some of them, so that every process has seen one) did, and the
connections next to nothing. Three replicas of the large object (of the policy ``coded`` its fragments, which are half as large)
need their room below ``TMPDIR``. The exit status is 1 if memory grew.
"""
import argparse
import pathlib
import socket
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import cluster
import measure

ALLOWED = 8             # MB that may be due to chance: pools that grow, blocks that glibc keeps
PIECE = bytes(range(256)) * 4096
SMALL, SOME = 64, 12


class Peak:
    """The greatest memory within a block."""

    def __init__(self, sessions):
        self.sessions, self.value = sessions, 0.0
        self._ending = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()

    def _run(self):
        while True:
            self.value = max(self.value, measure.pss_of_sessions(self.sessions))
            if self._ending.wait(0.2):
                return


def connect(target):
    """A socket to the proxy."""
    url = urllib.parse.urlsplit(target.urls['storage-object'])
    return socket.create_connection((url.hostname, url.port), timeout=300)


def head(target, method, name, *more):
    """The bytes of a request's head."""
    url = urllib.parse.urlsplit(target.urls['storage-object'])
    return '\r\n'.join([f'{method} {url.path}/AUTH_{target.info["project"]["id"]}/{name} HTTP/1.1', f'Host: {url.netloc}',
                        f'X-Auth-Token: {target.token}', *more, '', '']).encode()


def answer(stream):
    """``(status, length of the body)`` of an answer's head."""
    status, length = int(stream.readline().split()[1]), 0
    while (line := stream.readline().strip()):
        name, _, value = line.partition(b':')
        if name.lower() == b'content-length':
            length = int(value)
    return status, length


def expect(status, *good):
    """Stop at an answer that is not one of these."""
    if status not in good:
        raise SystemExit(f'the proxy answers {status}')


def upload(target, name, megabytes):
    """PUT an object; returns the seconds that it took."""
    began = time.monotonic()
    with connect(target) as wire, wire.makefile('rb') as stream:
        wire.sendall(head(target, 'PUT', name, f'Content-Length: {megabytes << 20}'))
        for _ in range(megabytes):
            wire.sendall(PIECE)
        expect(answer(stream)[0], 201)
    return time.monotonic() - began


def download(target, name):
    """GET an object and throw it away; returns the seconds that it took."""
    began, room = time.monotonic(), bytearray(1 << 20)
    with connect(target) as wire, wire.makefile('rb') as stream:
        wire.sendall(head(target, 'GET', name))
        status, left = answer(stream)
        expect(status, 200)
        while left:
            got = stream.readinto(memoryview(room)[:min(left, len(room))])
            if not got:
                raise SystemExit(f'the download ended {left} bytes early')
            left -= got
    return time.monotonic() - began


def pass_through(target, sessions, megabytes, times=1):
    """The memory while objects of this size come in, and while they go out."""
    found = []
    for what, transfer in (('upload', lambda: upload(target, 'memory/object', megabytes)),
                           ('download', lambda: download(target, 'memory/object'))):
        with Peak(sessions) as peak:
            seconds = sum(transfer() for _ in range(times))
        found.append(peak.value)
        name = f'{what} of {megabytes} MB' + (f', {times} times' if times > 1 else '')
        print(f'{name:32} {peak.value:8.1f} MB at most   {megabytes * times / seconds:6.0f} MB/s', flush=True)
    target.raw('DELETE', 'storage-object', f'/AUTH_{target.info["project"]["id"]}/memory/object')
    return found


def idle(target, sessions, count):
    """The memory with and without this many connections that have asked something and stay open."""
    before, held = measure.pss_of_sessions(sessions), []
    try:
        for _ in range(count):
            wire = connect(target)
            held.append(wire)
            with wire.makefile('rb') as stream:
                wire.sendall(head(target, 'HEAD', 'memory'))
                expect(answer(stream)[0], 204)
        time.sleep(1)
        after = measure.pss_of_sessions(sessions)
        # They are still there, and whoever comes is served.
        for wire in (held[0], held[-1]):
            with wire.makefile('rb') as stream:
                wire.sendall(head(target, 'HEAD', 'memory'))
                expect(answer(stream)[0], 204)
    finally:
        for wire in held:
            wire.close()
    print(f'{"no connection":32} {before:8.1f} MB')
    print(f'{f"{count} idle connections":32} {after:8.1f} MB           {(after - before) * 1024 / count:6.1f} KB each', flush=True)
    return before, after


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--gigabytes', type=int, default=5)
    parser.add_argument('--connections', type=int, default=500)
    parser.add_argument('--policy', choices=('gold', 'coded'), default='gold', help='three replicas, or an erasure code of 2+1')
    parser.add_argument('--bin', help='folder of the console scripts')
    parser.add_argument('--first-port', type=int, default=17000)
    options = parser.parse_args()
    with cluster.Cluster(('identity', 'storage-object'), 'fake:///', bin_folder=options.bin,
                         first_port=options.first_port) as running:
        target = running.target()
        sessions = set(target.sessions['storage-object'])
        target.raw('PUT', 'storage-object', f'/AUTH_{target.info["project"]["id"]}/memory',
                   headers={'X-Storage-Policy': options.policy})
        print(f'{"at the start":32} {measure.pss_of_sessions(sessions):8.1f} MB')
        small = pass_through(target, sessions, SMALL, SOME)
        large = pass_through(target, sessions, options.gigabytes << 10)
        before, after = idle(target, sessions, options.connections)
    growth = max(large[0] - small[0], large[1] - small[1], after - before)
    print(f'{"grew by at most":32} {growth:8.1f} MB of {ALLOWED} MB')
    return 1 if growth > ALLOWED else 0


if __name__ == '__main__':
    sys.exit(main())
