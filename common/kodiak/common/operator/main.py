"""Entry point of ``kodiak``."""
import argparse
import contextlib
import logging
import sys

import orjson

from kodiak.common.operator import doctor, forget, installation, status, trace


def main(argv=None):
    """Run the command line; returns the exit status: 0 all is well, 1 something is not, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog='kodiak', description='Look after an installation of Kodiak.')
    parser.add_argument('--config-dir', help='folder of the configuration files (/etc/kodiak)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    commands.add_parser('status', help='every process on every host, up or down, since when')
    tracing = commands.add_parser('trace', help='one timeline of a request over all services')
    tracing.add_argument('request_id', metavar='REQUEST_ID')
    tracing.add_argument('others', nargs='*', metavar='FILE', help='what "kodiak --json trace" printed on other hosts; - for '
                                                                   'standard input')
    commands.add_parser('doctor', help='check this installation and say what to do about each fault')
    forgetting = commands.add_parser('forget', help='take the API and conductor processes of a host that is gone from the lists')
    forgetting.add_argument('host', metavar='HOST')
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.CRITICAL)
    found = installation.services(options.config_dir)
    if not found:
        print('No configuration file of a service was found in '
              f'{options.config_dir or installation.DEFAULT_FOLDER}.', file=sys.stderr)
        return 1
    return {'status': _status, 'trace': _trace, 'doctor': _doctor, 'forget': _forget}[options.command](found, options)


def _status(found, options):
    lines = status.collect(found)
    print(_json(lines) if options.json else status.show(lines))
    return 1 if any(line['state'] == 'down' for line in lines) else 0


def _trace(found, options):
    entries, problems = trace.collect(found, options.request_id)
    try:
        entries = trace.merge(entries, *map(_parsed, options.others))
    except (OSError, ValueError) as error:
        print(f'What another host knows cannot be read: {error}', file=sys.stderr)
        return 2
    for problem in problems:
        print(problem, file=sys.stderr)
    if options.json:
        print(_json(entries))
    elif entries:
        print(trace.show(entries))
    else:
        print(f'Nothing is known of {options.request_id} on this host. Reads that went well are not kept.')
    return 0 if entries else 1


def _parsed(path):
    with contextlib.nullcontext(sys.stdin) if path == '-' else open(path, encoding='utf-8') as file:
        return orjson.loads(file.read())


def _doctor(found, options):
    findings = doctor.examine(found)
    if options.json:
        print(_json([finding.__dict__ for finding in findings]))
    else:
        print(doctor.show(findings))
    return 1 if any(finding.level == 'fault' for finding in findings) else 0


def _forget(found, options):
    done, left = forget.forget(found, options.host)
    if options.json:
        print(_json({'done': done, 'left': left}))
    else:
        print('\n'.join([*done, *left]) or f'Nothing is known of {options.host}.')
    return 1 if left or not done else 0


def _json(value):
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()


def run():
    """Console script."""
    sys.exit(main())
