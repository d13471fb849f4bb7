#!/usr/bin/env python3
"""Measure Kodiak, and the peer beside it.

    bench/run.py [--transport-url rabbit://USER:PASSWORD@HOST:PORT/VHOST] [--peer PEER.json] [identity image volumes ...]

Figures go to ``results.jsonl`` (``--out``), the comparison to standard output; the exit status is 1 if a figure misses its mark.
PEER.json describes running OpenStack services: ``{"urls": {service: base URL}, "sessions": {service: [pid, ...]},
"user": ..., "password": ..., "project": ...}``; see README.rst.
"""
import argparse
import importlib
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import broker
import cluster
import compare
import measure

ORDER = ('identity', 'image', 'network', 'compute', 'placement', 'volumes', 'objects')
NEEDS = {'identity': ('identity',), 'image': ('identity', 'image'), 'network': ('identity', 'network'),
         'compute': ('identity', 'image', 'network', 'compute'), 'placement': ('identity', 'image', 'network', 'compute'),
         'volumes': ('identity', 'storage-block'), 'objects': ('identity', 'storage-object')}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('services', nargs='*', default=ORDER, help='what to measure: ' + ' '.join(ORDER))
    parser.add_argument('--transport-url', help='a message broker; by default that of this machine, with a virtual host of its own')
    parser.add_argument('--bin', help='folder of the console scripts')
    parser.add_argument('--first-port', type=int, default=17000, help='the services listen on this port and up to 800 '
                        'more, all of them below those that the kernel gives to connections')
    parser.add_argument('--hosts', type=int, default=100, help='fake hosts')
    parser.add_argument('--peer', help='JSON file that describes the running peer')
    parser.add_argument('--out', default='results.jsonl')
    options = parser.parse_args()
    recorder = measure.Recorder(options.out)
    peer = None
    if options.peer:
        told = json.loads(pathlib.Path(options.peer).read_text())
        peer = measure.Target('peer', told['urls'], told['sessions'], told['user'], told['password'], told['project'])
    with broker.transport(options.transport_url) as transport:
        for name in (name for name in ORDER if name in options.services):
            print(name, flush=True)
            module = importlib.import_module(name)
            if peer is not None and (name in peer.urls or NEEDS[name][-1] in peer.urls):
                peer.log_in()
                module.bench(peer, recorder)
            with cluster.Cluster(NEEDS[name], transport, options.hosts, options.bin, first_port=options.first_port) as running:
                module.bench(running.target(), recorder)
    lines, missed = compare.table(recorder.rows)
    print('\n'.join(['', *lines]))
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
