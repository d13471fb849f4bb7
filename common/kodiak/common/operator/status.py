"""``kodiak status``: every process of every service on every host, up or down, and since when."""
import datetime

from sqlalchemy import exc

from kodiak.common import db, heartbeat
from kodiak.common.operator import installation


def collect(found, now=None):
    """What is known of each process.

    :param found: the installed services (:func:`installation.services`).
    :returns: a list of dictionaries ``service, binary, host, state (up, down, disabled), since, version, note``;
        sorted by service, binary and host.
    """
    now = now or db.utcnow()
    lines, seen = [], set()
    for service in found:
        if service.problem:
            lines.append(_line(service.name, '-', '-', 'down', note=service.problem))
            continue
        ready, why = service.api_health() if service.api_address else (True, '')
        try:
            with service.database() as database, database.read() as connection:
                rows = db.all_dicts(connection, heartbeat.query())
        except (exc.SQLAlchemyError, OSError) as error:
            rows = []
            lines.append(_line(service.name, '-', '-', 'down', note=f'its database: {_first(error)}'))
        api = f'kodiak-{service.name}-api'
        for row in rows:
            up, note = heartbeat.is_up(row, now), row['disabled_reason'] or ''
            if row['binary'] == api and row['host'] == service.conf.host and not ready:
                up, note = False, why
            state = 'up' if up else 'down'
            if up and row['disabled']:
                state = 'disabled'
            lines.append(_line(service.name, row['binary'], row['host'], state, row['started_at'] if up else
                               row['last_seen_at'], row['version'], note))
            seen.add((row['binary'], row['host']))
        if service.api_address and (api, service.conf.host) not in seen:
            lines.append(_line(service.name, api, service.conf.host, 'up' if ready else 'down', note=why))
            seen.add((api, service.conf.host))
    # Processes without a database say for themselves how they are.
    for run_path in sorted({service.conf.run_path for service in found if not service.problem}):
        for binary, answer in installation.workers(run_path).items():
            if isinstance(answer, Exception):
                _amend(lines, binary, None, f'its status socket: {answer}', seen)
            else:
                _amend(lines, binary, answer, ' '.join(answer['faults']), seen)
    return sorted(lines, key=lambda line: (line['service'], line['binary'], line['host']))


def _amend(lines, binary, answer, problem, seen):
    host = answer['host'] if answer else None
    for line in lines:
        if line['binary'] == binary and host in {None, line['host']}:
            if problem:
                line['note'] = problem
            return
    service = binary.removeprefix('kodiak-').rpartition('-')[0] or '-'
    lines.append(_line(service, binary, host or '-', 'up' if answer else 'down',
                       version=answer['version'] if answer else None, note=problem))


def _line(service, binary, host, state, since=None, version=None, note=''):
    return {'service': service, 'binary': binary, 'host': host, 'state': state,
            'since': since.replace(microsecond=0) if since else None, 'version': version or '', 'note': note}


def _first(error):
    return str(getattr(error, 'orig', None) or error).splitlines()[0]


def show(lines, now=None):
    """The lines as text, one a process."""
    now = now or db.utcnow()
    table = [('SERVICE', 'PROCESS', 'HOST', 'STATE', 'SINCE (UTC)', 'FOR', 'VERSION', '')]
    for line in lines:
        table.append((line['service'], line['binary'], line['host'], line['state'],
                      line['since'].isoformat(sep=' ') if line['since'] else '-',
                      _span(now - line['since']) if line['since'] else '-', line['version'], line['note']))
    widths = [max(len(row[number]) for row in table) for number in range(len(table[0]) - 1)]
    return '\n'.join('  '.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
                     for row in table)


def _span(delta):
    seconds = max(0, int(delta / datetime.timedelta(seconds=1)))
    for size, letter in ((86400, 'd'), (3600, 'h'), (60, 'm')):
        if seconds >= size:
            return f'{seconds // size}{letter}'
    return f'{seconds}s'
