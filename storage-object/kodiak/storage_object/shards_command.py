"""``kodiak-object-shards``: looks at and chooses the shard ranges of a container, on a node that holds it."""
import argparse
import itertools
import json
import os
import sys
import time

from .backend.broker import Brokers
from .backend.devices import Devices
from .backend.shards import begin, cut, state_of_own
from .spans import ENABLED, STATES, root_of, split


class Refused(Exception):
    """What was asked for cannot be."""


def now():
    """A timestamp."""
    return f'{time.time():016.5f}'


def path_of(conf, container):
    """The path of a container's database: of ``account/container``, the first on a device of this node."""
    if container.endswith('.db'):
        return container
    from .ring import Ring
    account, name = split(container)
    if not name:
        raise Refused(f'{container!r} is no account/container.')
    ring = Ring(os.path.join(conf.storage.ring_path, 'container.ring.gz'))
    part, digest = ring.get_part(account, name), ring.hash_path(account, name)
    devices = Devices(conf.storage.devices, conf.storage.mount_check)
    order = {node['device']: place for place, node in enumerate(ring.primaries(part))}
    for device in sorted(devices.names(), key=lambda device: order.get(device, len(order))):
        path = Brokers.path(devices.path(device), 'container', part, digest)
        if os.path.exists(path):
            return path
    raise Refused(f'No device of this node has a database of {container}.')


def shown(found):
    """A range for people."""
    return {**found.wire(), 'state': STATES[found.state]}


def find(broker, options, conf):
    """Ranges of so many objects each; nothing is stored."""
    size = options.objects or conf.storage.shard_size or (conf.storage.shard_threshold or 1_000_000) // 2
    table, info = broker.table(), broker.info()
    uppers = broker.points(size, table.own.lower, table.own.upper)
    ranges = cut(table.key, root_of(info) or split(table.key), uppers, table.own, now())
    return [{'index': index, 'lower': each.lower, 'upper': each.upper, 'object_count': broker.count_in(each.lower, each.upper)}
            for index, each in enumerate(ranges)]


def replace(broker, options, conf, rows=None):
    """Store ranges that ``find`` gave in place of those that are stored; with ``--enable`` begin."""
    if rows is None:
        with sys.stdin if options.file == '-' else open(options.file) as file:
            rows = json.load(file)
    stamp = now()
    with broker.changing() as table:
        own = table.own
        if state_of_own(own) in ('sharding', 'sharded'):
            raise Refused(f'The container is {state_of_own(own)} already.')
        try:
            bounds = [(row['lower'], row['upper'], int(row.get('object_count', 0))) for row in rows]
        except (TypeError, KeyError, ValueError, AttributeError):
            raise Refused('This is no list of ranges, each with lower, upper and object_count.') from None
        whole = bounds and bounds[0][0] == own.lower and bounds[-1][1] == own.upper and all(
            one[1] == two[0] for one, two in itertools.pairwise(bounds)) and all(
            not upper or lower < upper for lower, upper, _ in bounds) and all(upper for _, upper, _ in bounds[:-1])
        if not whole:
            raise Refused('The ranges do not follow upon one another, from the first name of the container to its last.')
        ranges = [each._replace(objects=bounds[place][2], meta_stamp=stamp) for place, each in enumerate(
            cut(table.key, root_of(broker.info()) or split(table.key), [upper for _, upper, _ in bounds[:-1]], own, stamp))]
        table.ranges = {name: found for name, found in table.ranges.items() if name == table.key}
        table.merge(ranges)
    return enable(broker, options, conf) if options.enable else [shown(each) for each in ranges]


def find_and_replace(broker, options, conf):
    """Both at once."""
    return replace(broker, options, conf, find(broker, options, conf))


def enable(broker, options, conf):
    """Begin: the sharder makes the shards, and copies rows to them."""
    stamp = now()
    with broker.changing() as table:
        ranges = [each for each in table.others if not each.deleted]
        if state_of_own(table.own) in ('sharding', 'sharded'):
            raise Refused(f'The container is {state_of_own(table.own)} already.')
        if not ranges:
            raise Refused('There are no ranges: "find" and "replace" come first.')
        begin(table, ranges, stamp)
    return info(broker, options, conf)


def delete(broker, options, conf):
    """Let go of ranges that are stored, as long as nothing has begun."""
    with broker.changing() as table:
        if state_of_own(table.own) in ('sharding', 'sharded'):
            raise Refused(f'The container is {state_of_own(table.own)} already.')
        count = len(table.others)
        table.ranges = {name: found for name, found in table.ranges.items() if name == table.key}
    return {'deleted': count}


def show(broker, options, conf):
    """The ranges."""
    return [shown(each) for each in sorted(broker.table().others, key=lambda each: (each.deleted, each.lower, each.stamp))]


def info(broker, options, conf):
    """What the container is, and how far its rows have been copied here."""
    table, found = broker.table(), broker.info()
    live = [each for each in table.others if not each.deleted]
    return {'account': found['account'], 'container': found['container'], 'state': found['sharding'], 'rows': found['rows'],
            'objects': found['objects'], 'bytes': found['bytes'], 'root': '/'.join(root_of(found) or ()) or None,
            'enabled': found['metadata'].get(ENABLED, ('',))[0].lower() == 'true', 'own': shown(table.own),
            'ranges': {name: sum(each.state == state for each in live) for state, name in STATES.items()
                       if any(each.state == state for each in live)},
            'copied': table.context['copied'] if table.context else 0}


def main(arguments=None):
    """The command."""
    from .cmd import load_conf
    parser = argparse.ArgumentParser(prog='kodiak-object-shards', description=__doc__.split(':', 1)[1].strip().capitalize())
    parser.add_argument('--config-file', action='append', default=[])
    parser.add_argument('container', metavar='ACCOUNT/CONTAINER', help='or the path of its database')
    commands = parser.add_subparsers(dest='command', required=True)
    for name, function in (('find', find), ('replace', replace), ('find-and-replace', find_and_replace), ('enable', enable),
                           ('delete', delete), ('show', show), ('info', info)):
        command = commands.add_parser(name, help=function.__doc__.rstrip('.'))
        command.set_defaults(function=function, enable=False)
        if name in ('find', 'find-and-replace'):
            command.add_argument('objects', nargs='?', type=int, help='of a range')
        if name == 'replace':
            command.add_argument('file', help='what "find" printed; "-" for the standard input')
        if name in ('replace', 'find-and-replace'):
            command.add_argument('--enable', action='store_true')
    options = parser.parse_args(arguments)
    conf = load_conf([word for file in options.config_file for word in ('--config-file', file)])
    brokers = Brokers(Devices(conf.storage.devices))
    try:
        if getattr(options, 'objects', None) is not None and options.objects < 1:
            raise Refused('A range has one object or more.')
        broker = brokers.get('container', path_of(conf, options.container))
        if broker is None:
            raise Refused(f'{options.container} is no database.')
        print(json.dumps(options.function(broker, options, conf), indent=2, ensure_ascii=False))
    except (Refused, OSError, ValueError) as error:
        sys.exit(f'kodiak-object-shards: {error}')
    finally:
        brokers.close()
