"""``kodiak trace REQUEST_ID``: one timeline of a request over all services.

It joins what the processes of this host noted (:mod:`kodiak.common.events`) with the sagas and their steps in the
services' databases. A request that a service makes for another carries the first one's id as its global request id;
agents know resources rather than requests, so what reconcilers did is joined by the ids of the resources that
the request's sagas and paths name.
"""
import datetime
import os
import re

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, saga

UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')


def collect(found, request_id):
    """All that is known of a request.

    :param found: the installed services.
    :returns: ``(entries, problems)``: entries are dictionaries ``at, where, what, text, failed``, oldest first; problems are
        sentences about what could not be read.
    """
    problems, entries = [], []
    files = [path for service in found if not service.problem for path in service.events()]
    ids = {request_id}
    events = []
    # The id may be that of an inner request: its events name the outer one, by which all the others are found.
    for _ in range(2):
        events = list(_events(files, ids, problems))
        ids |= {event[key] for event in events for key in ('request_id', 'global_request_id') if event.get(key)}
    resources = {uuid for event in events for uuid in UUID.findall(event.get('path', ''))}
    for service in found:
        if service.problem:
            problems.append(f'{service.path}: {service.problem}')
            continue
        try:
            sagas, steps = _sagas(service, ids)
        except (exc.SQLAlchemyError, OSError) as error:
            problems.append(f'The database of {service.name} cannot be read: {str(error).splitlines()[0]}')
            continue
        names = {row['id']: row['name'] for row in sagas}
        resources |= {row['resource_id'] for row in sagas}
        entries += [_saga(service, row) for row in sagas]
        entries += [_step(service, names, row) for row in steps]
    entries += [_event(event) for event in events]
    if entries and resources:
        first, last = min(entry['at'] for entry in entries), max(entry['at'] for entry in entries)
        entries += [_event(event) for event in _events(files, resources, [])
                    if event['kind'] == 'reconcile' and event.get('request_id') not in ids
                    and first - 1 <= event['at'] <= last + 60]
    return sorted(entries, key=lambda entry: entry['at']), problems


def merge(*found):
    """The entries that several hosts collected of one request as one list: sagas, which all of them know, stand in it once."""
    entries = {(entry['at'], entry['where'], entry['what'], entry['text']): entry for some in found for entry in some}
    return sorted(entries.values(), key=lambda entry: entry['at'])


def _events(files, words, problems):
    needles = [word.encode() for word in words]
    for path in files:
        try:
            with open(path, 'rb') as file:
                for line in file:
                    if any(needle in line for needle in needles):
                        try:
                            yield orjson.loads(line)
                        except orjson.JSONDecodeError:
                            continue
        except OSError as error:
            if f'{path}: {error.strerror}' not in problems:
                problems.append(f'{path}: {error.strerror}')


def _sagas(service, ids):
    with service.database() as database:
        if not sa.inspect(database.engine).has_table(saga.rows.name):
            return [], []
        with database.read() as connection:
            rows = db.all_dicts(connection, sa.select(saga.rows).where(sa.or_(
                saga.rows.c.request_id.in_(ids), saga.rows.c.global_request_id.in_(ids))))
            steps = db.all_dicts(connection, sa.select(saga.log).where(
                saga.log.c.saga_id.in_([row['id'] for row in rows])))
    return rows, steps


def _saga(service, row):
    text = f'{row["name"]} of {row["resource_id"]} started; now {row["state"]}'
    if row['next_run_at'] is not None and row['waiting']:
        text += f', waiting for {row["waiting"]}'
    created = row['created_at'].replace(tzinfo=datetime.UTC).timestamp()
    return {'at': created, 'where': service.name, 'what': 'SAGA', 'text': text, 'failed': row['state'] == 'failed'}


def _step(service, names, row):
    attempts = f' after {row["attempts"]} attempts' if row['attempts'] > 1 else ''
    text = (f'{names[row["saga_id"]]}: {row["action"]} {row["step"]} {row["outcome"]}{attempts}, '
            f'{(row["ended_at"] - row["started_at"]) * 1000:.0f} ms')
    if row['error']:
        text += f': {row["error"]}'
    return {'at': row['started_at'], 'where': service.name, 'what': 'STEP', 'text': text,
            'failed': row['outcome'] != 'done'}


def _event(event):
    kind, failed = event['kind'], False
    if kind == 'http':
        failed = event['code'][0] in '45'
        text = f'{event["method"]} {event["path"]} {event["code"]}, {event["ms"]:g} ms'
        if event['request_id']:
            text += f' [{event["request_id"]}]'
        if event.get('fault'):
            text += f': {event["fault"]}'
    elif kind == 'rpc':
        failed = event['outcome'] != 'ok'
        verb = 'asked' if event['side'] == 'call' else 'answered'
        whom = f' to {event["to"]}' if event.get('to') else ''
        text = f'{verb} {event["name"]}{whom}: {event["outcome"]}, {event["ms"]:g} ms'
    elif kind == 'reconcile':
        failed = event['outcome'] != 'done'
        took = f', {event["ms"]:g} ms' if 'ms' in event else ''
        text = f'{event["name"]}: {event["key"]} {event["outcome"]}{took}'
        if event.get('error'):
            text += f': {event["error"]}'
    else:
        failed = True
        text = f'{event.get("level")} {event.get("logger")}: {event.get("message")}'
    # Events are noted when they end; a timeline reads better by when they began.
    return {'at': event['at'] - event.get('ms', 0) / 1000, 'where': event['binary'], 'what': kind.upper(), 'text': text,
            'failed': failed}


def show(entries):
    """The entries as text, with the seconds since the first."""
    if not entries:
        return ''
    first = entries[0]['at']
    width = max(len(entry['where']) for entry in entries)
    lines = [datetime.datetime.fromtimestamp(first, datetime.UTC).strftime('%Y-%m-%d %H:%M:%S UTC') + f', {os.uname().nodename}']
    for entry in entries:
        lines.append(f'{entry["at"] - first:+9.3f}  {"!" if entry["failed"] else " "} {entry["where"]:<{width}}  '
                     f'{entry["what"]:<9}  {entry["text"]}')
    return '\n'.join(lines)
