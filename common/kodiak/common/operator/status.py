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
        rows = []
        if service.has_tables and not service.agent_only:
            try:
                with service.database() as database, database.read() as connection:
                    rows = db.all_dicts(connection, heartbeat.query())
            except (exc.SQLAlchemyError, OSError) as error:
                lines.append(_line(service.name, '-', '-', 'down', note=f'its database: {_first(error)}'))
        here = service.conf.host
        health = {binary: installation.health(address) for binary, address in service.servers(
            known={row['binary'] for row in rows if row['host'] == here}).items()}
        for row in rows:
            up, note = heartbeat.is_up(row, now), row['disabled_reason'] or ''
            ready, why = health.get(row['binary'], (True, '')) if row['host'] == here else (True, '')
            if not ready:
                up, note = False, why
            state = 'up' if up else 'down'
            if up and row['disabled']:
                state = 'disabled'
            lines.append(_line(service.name, row['binary'], row['host'], state, row['started_at'] if up else
                               row['last_seen_at'], row['version'], note))
            seen.add((row['binary'], row['host']))
        for binary, (ready, why) in health.items():
            if (binary, here) not in seen:
                lines.append(_line(service.name, binary, here, 'up' if ready else 'down', note=why))
                seen.add((binary, here))
    # Processes without a database say for themselves how they are.
    hosts = {service.conf.run_path: service.conf.host for service in found if not service.problem}
    for run_path, host in sorted(hosts.items()):
        for binary, answer in installation.workers(run_path).items():
            _amend(lines, binary, host, answer)
    for service in found:
        agent = f'kodiak-{service.name}-agent'
        if not service.problem and service.agent_only and not any(
                line['binary'] == agent and line['host'] == service.conf.host for line in lines):
            lines.append(_line(service.name, agent, service.conf.host, 'down', note='it has no status socket here'))
    return sorted(lines, key=lambda line: (line['service'], line['binary'], line['host']))


def _amend(lines, binary, host, answer):
    """Add what the status socket of a process of this host answers (or the error that it is)."""
    dead = isinstance(answer, OSError) and not isinstance(answer, TimeoutError)
    if isinstance(answer, Exception):
        problem, version = f'its status socket: {answer}', None
    else:
        problem, version, host = ' '.join(answer['faults']), answer['version'], answer['host']
    for line in lines:
        if line['binary'] == binary and line['host'] == host:
            if problem:
                line['note'] = problem
            if dead:
                # Nobody holds its socket: it died, however lately it was heard of.
                line['state'] = 'down'
            return
    service = binary.removeprefix('kodiak-').rpartition('-')[0] or '-'
    lines.append(_line(service, binary, host, 'down' if isinstance(answer, Exception) else 'up', version=version, note=problem))


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
