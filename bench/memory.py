#!/usr/bin/env python3
"""Idle memory and start time of an installed Kodiak, against the budgets of doc/architecture.rst.

    bench/memory.py [--start]

Memory is the proportional set size (PSS) of every process whose program is Kodiak's. The budget is 1 GiB for nine services,
so a part of them has a part of it. With ``--start`` the services are started anew, in a set of their own, and timed.
"""
import argparse
import collections
import os
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import broker
import cluster
import measure

BUDGET, SERVICES, START = 1024, 9, 60
NAME = re.compile(r'kodiak-(identity|image|network|compute|storage-block|object|orchestration|metering|dashboard)[a-z-]*')


def processes(folder):
    """``{console script: [pid, ...]}`` of every process of this machine whose console script lies in ``folder``, helpers with root
    included."""
    found = collections.defaultdict(list)
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = pathlib.Path('/proc', pid, 'cmdline').read_bytes().decode(errors='replace').split('\0')
        except OSError:
            continue
        for word in words[:4]:
            name = os.path.basename(word)
            if os.path.dirname(word) == folder and (NAME.fullmatch(name) or name == 'kodiak-privsep-helper'):
                found[name].append(pid)
                break
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    parser.add_argument('--start', action='store_true', help='time a start of all services too')
    parser.add_argument('--transport-url', help=(
        'a message broker for --start; by default that of this machine, with a virtual host of its own'))
    parser.add_argument('--bin', default=os.path.dirname(sys.executable), help='folder of the console scripts')
    options = parser.parse_args()
    total, services = 0, set()
    for name, pids in sorted(processes(options.bin).items()):
        size = sum(measure.pss(pid) for pid in pids)
        total += size
        match = NAME.match(name)
        services.update({match[1]} if match else ())
        print(f'{name:32} {len(pids):3} processes {size:8.1f} MB')
    budget = BUDGET * max(len(services), 1) / SERVICES
    print(f'{"all of " + str(len(services)) + " services":32} {"":13} {total:8.1f} MB of {budget:.0f} MB')
    missed = total > budget
    if options.start:
        names = list(cluster.PROCESSES)
        with (broker.transport(options.transport_url) as transport,
              cluster.Cluster(names, transport, 1, options.bin) as running):
            for name, seconds in running.started.items():
                print(f'{name:32} answers after {seconds:5.2f} s')
            spent = sum(running.started.values())
        limit = START * len(names) / SERVICES
        print(f'{"all of them, one after the other":32} {"":14}{spent:5.2f} s of {limit:.0f} s')
        missed = missed or spent > limit
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
