"""``kodiak-object-ring``: makes and changes rings."""
import argparse
import os
import re
import sys

from .builder import Builder, Refused

DEVICE = re.compile(r'r(?P<region>\d+)z(?P<zone>\d+)-(?P<ip>[^/]+):(?P<port>\d+)/(?P<device>[A-Za-z0-9_.-]+)\Z')


def ring_path(path):
    """Where the ring of a builder file goes: beside it, ``.ring.gz``."""
    return path.removesuffix('.builder') + '.ring.gz'


def create(options):
    """Make a builder file."""
    if os.path.exists(options.builder):
        raise Refused(f'{options.builder} is there already.')
    Builder(options.part_power, options.replicas, options.min_part_hours).save(options.builder)


def add(options):
    """Add a device."""
    found = DEVICE.match(options.where)
    if not found:
        raise Refused(f'{options.where!r} is not rREGIONzZONE-ADDRESS:PORT/DEVICE.')
    builder = Builder.load(options.builder)
    print('device', builder.add(int(found['region']), int(found['zone']), found['ip'].strip('[]'), int(found['port']),
                                found['device'], options.weight))
    builder.save(options.builder)


def weight(options):
    """Change a device's weight."""
    builder = Builder.load(options.builder)
    builder.set_weight(options.id, options.weight)
    builder.save(options.builder)


def replicas(options):
    """Change the number of replicas; it may be a fraction."""
    builder = Builder.load(options.builder)
    builder.set_replicas(options.number)
    builder.save(options.builder)


def min_part_hours(options):
    """Change how many hours a partition rests after it was moved."""
    builder = Builder.load(options.builder)
    builder.set_min_part_hours(options.hours)
    builder.save(options.builder)


def overload(options):
    """Change how much more than its weight stands for a device may hold to keep replicas apart: a factor (0.1) or percent (10%)."""
    text = options.factor.strip()
    try:
        factor = float(text.rstrip('%')) / (100 if text.endswith('%') else 1)
    except ValueError:
        raise Refused(f'{text!r} is no number.') from None
    builder = Builder.load(options.builder)
    builder.set_overload(factor)
    builder.save(options.builder)


def remove(options):
    """Take a device out."""
    builder = Builder.load(options.builder)
    builder.remove(options.id)
    builder.save(options.builder)


def rebalance(options):
    """Place what has no device, move what must be moved, write the ring."""
    builder = Builder.load(options.builder)
    moved = builder.rebalance(seed=options.seed)
    builder.save(options.builder)
    builder.write_ring(ring_path(options.builder))
    print(f'{moved} of {sum(map(len, builder.table))} replicas were placed or moved; balance {builder.balance():.2f} %, '
          f'dispersion {builder.dispersion():.2f} %')


def show(options):
    """Print a ring."""
    builder = Builder.load(options.builder)
    wanted = builder.wanted() if builder.live() else {}
    held = [part for row in builder.table for part in row]
    print(f'{builder.parts} partitions, {builder.replicas:g} replicas, min-part-hours {builder.min_part_hours}, '
          f'overload {builder.overload * 100:g} %, version {builder.version}, '
          f'balance {builder.balance():.2f} %, dispersion {builder.dispersion():.2f} %')
    for device in builder.live():
        print(f'{device["id"]:5} r{device["region"]}z{device["zone"]}-{device["ip"]}:{device["port"]}/{device["device"]} '
              f'weight {device["weight"]:g} partitions {held.count(device["id"])} of {wanted.get(device["id"], 0):.1f}')


def dispersion(options):
    """Print how many partitions have replicas nearer to each other than they need be; exit status 1 if some have."""
    builder = Builder.load(options.builder)
    near = builder.near()
    for tier, name in zip(near, ('region', 'zone', 'server', 'device'), strict=True):
        print(f'{near[tier]} of {builder.parts} partitions have too many replicas in one {name}')
    print(f'dispersion {builder.dispersion():.2f} %, balance {builder.balance():.2f} %, overload {builder.overload * 100:g} %')
    return 1 if any(near.values()) else 0


def validate(options):
    """Say what is wrong with a ring; exit status 1 if something is."""
    found = Builder.load(options.builder).validate()
    for sentence in found:
        print(sentence)
    return 1 if found else 0


def main(argv=None):
    """Entry point."""
    parser = argparse.ArgumentParser(prog='kodiak-object-ring', description=__doc__.split(':', 1)[1].strip())
    parser.add_argument('builder', help='the builder file, for example /etc/kodiak/rings/object.builder')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for function, arguments in (
            (create, [('part_power', int), ('replicas', float), ('min_part_hours', int)]),
            (add, [('where', str), ('weight', float)]), (weight, [('id', int), ('weight', float)]), (remove, [('id', int)]),
            (replicas, [('number', float)]), (min_part_hours, [('hours', int)]), (overload, [('factor', str)]),
            (rebalance, [('--seed', int)]), (show, []), (dispersion, []), (validate, [])):
        command = commands.add_parser(function.__name__.replace('_', '-'), help=function.__doc__.replace('%', '%%'))
        command.set_defaults(function=function)
        for name, kind in arguments:
            command.add_argument(name, type=kind)
    options = parser.parse_args(argv)
    try:
        sys.exit(options.function(options) or 0)
    except (Refused, FileNotFoundError) as error:
        sys.exit(str(error))
