"""``kodiak doctor``: checks this installation and says what to do about each fault."""
import dataclasses
import email.utils
import http.client
import os
import shutil
import stat
import time
import urllib.parse

from sqlalchemy import exc

from kodiak.common import db, heartbeat, migrate
from kodiak.common.operator import host, installation, status


@dataclasses.dataclass
class Finding:
    """``level``: ok, warning or fault; ``subject``: what was looked at; ``what`` was found; ``remedy``: what to do about it."""

    level: str
    subject: str
    what: str
    remedy: str = ''


def examine(found):
    """Run every check. :param found: the installed services. :returns: a list of :class:`Finding`."""
    findings = []
    for service in found:
        findings += _configuration(service)
    readable = [service for service in found if not service.problem]
    for check in (_folders, _database, _broker, _api, _credentials):
        seen = {}
        for service in readable:
            for finding in check(service, seen):
                findings.append(finding)
    findings += _clock(readable)
    findings += _processes(readable)
    findings += host.examine(readable, Finding)
    return findings


def show(findings):
    """The findings as text: faults and warnings in full, the rest counted."""
    lines = []
    for level, title in (('fault', 'FAULT'), ('warning', 'WARNING')):
        for finding in findings:
            if finding.level == level:
                lines += [f'{title}  {finding.subject}: {finding.what}', f'         {finding.remedy}']
    fine = sum(finding.level == 'ok' for finding in findings)
    lines.append(f'{fine} checks are fine, {sum(f.level == "warning" for f in findings)} warnings, '
                 f'{sum(f.level == "fault" for f in findings)} faults.')
    return '\n'.join(lines)


def _configuration(service):
    if service.problem:
        yield Finding('fault', service.path, f'it cannot be read: {service.problem}',
                      'Correct the line that it names; compare with the sample next to the service.')
        return
    mode = stat.S_IMODE(os.stat(service.path).st_mode)
    if mode & 0o007:
        yield Finding('fault', service.path, f'it holds passwords and everybody may read it (mode {mode:04o}).',
                      f'chgrp kodiak-{service.name} {service.path} && chmod 0640 {service.path}')
    else:
        yield Finding('ok', service.path, 'it can be read, by the service only')


def _folders(service, seen):
    conf = service.conf
    if conf.run_path not in seen:
        seen[conf.run_path] = True
        if not os.path.isdir(conf.run_path):
            yield Finding('fault', conf.run_path, 'the folder of sockets is missing.',
                          f'install -d -g kodiak -m 2775 {conf.run_path} (it is gone after a reboot: have systemd-tmpfiles '
                          'or the start-up script make it)')
        else:
            yield Finding('ok', conf.run_path, 'there')
    folder = os.path.join(conf.state_path, service.name)
    if not os.path.isdir(folder):
        yield Finding('fault', folder, 'the state folder of the service is missing.',
                      f'install -d -o kodiak-{service.name} -g kodiak-{service.name} -m 0750 {folder}')
        return
    if os.stat(folder).st_mode & 0o002:
        yield Finding('fault', folder, 'everybody may write there.', f'chmod o-w {folder}')
    for path in _secrets(folder):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode & 0o077:
            yield Finding('fault', path, f'this key can be read by others than its owner (mode {mode:04o}).', f'chmod 0600 {path}')
    usage = shutil.disk_usage(folder)
    device = os.stat(folder).st_dev
    if device not in seen:
        seen[device] = True
        if usage.free < 2 ** 30 or usage.free < usage.total * 0.03:
            yield Finding('warning', folder, f'only {usage.free / 2 ** 30:.1f} GiB are free on its file system.',
                          'Delete images or servers, or give it more room; services fail when it is full.')
        else:
            yield Finding('ok', folder, f'{usage.free / 2 ** 30:.0f} GiB free')


def _secrets(folder):
    """Files below the state folder whose names say that they are keys; big data folders are not searched."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and 'key' in name:
            yield from (os.path.join(path, inner) for inner in sorted(os.listdir(path)) if not inner.endswith('.pub'))
        elif os.path.isfile(path) and (name.endswith(('.pem', '.key')) or 'secret' in name):
            yield path


def _database(service, seen):
    if not service.has_tables or service.agent_only:
        return
    subject = f'database of {service.name}'
    try:
        with service.database() as database:
            if not database.healthy():
                yield Finding('fault', subject, f'{database.url.render_as_string(hide_password=True)} does not answer.',
                              'Start the database, or correct [database] connection in ' + service.path)
                return
            there = migrate.current(database)
            try:
                wanted = migrate.heads(service.name)
            except ImportError:
                yield Finding('ok', subject, 'it answers (the service itself is not installed here)')
                return
            if there == wanted:
                yield Finding('ok', subject, 'it answers and is at the newest revision')
            else:
                yield Finding('fault', subject, f'it is at revision {", ".join(there) or "none"}, the code at {", ".join(wanted)}.',
                              f'kodiak-{service.name} db sync (as the user kodiak-{service.name})')
    except (exc.SQLAlchemyError, OSError) as error:
        yield Finding('fault', subject, f'it cannot be opened: {str(getattr(error, "orig", None) or error).splitlines()[0]}.',
                      f'kodiak-{service.name} db sync makes it; check [database] connection in {service.path}')


def _broker(service, seen):
    url = service.conf.transport_url
    if not url or url in seen:
        return
    seen[url] = True
    import amqp

    from kodiak.common import oslobus
    tls = oslobus.tls(service.conf)
    for netloc in urllib.parse.urlsplit(url).netloc.split(','):
        part = urllib.parse.urlsplit('//' + netloc)
        where = f'{part.hostname or "localhost"}:{part.port or 5672}'
        vhost = urllib.parse.unquote(urllib.parse.urlsplit(url).path.lstrip('/')) or '/'
        try:
            with amqp.Connection(where, urllib.parse.unquote(part.username or 'guest'),
                                 urllib.parse.unquote(part.password or 'guest'), virtual_host=vhost, connect_timeout=5,
                                 ssl=tls):
                yield Finding('ok', f'broker {where}', f'takes our connections to {vhost}{" over TLS" if tls else ""}')
        except (amqp.AccessRefused, amqp.NotAllowed) as error:
            yield Finding('fault', f'broker {where}', f'refuses us: {error}.',
                          f'rabbitmqctl add_vhost {vhost}; rabbitmqctl add_user {part.username} PASSWORD; rabbitmqctl '
                          f'set_permissions -p {vhost} {part.username} ".*" ".*" ".*"; the password is in {service.path}')
        except (OSError, amqp.AMQPError) as error:
            yield Finding('fault', f'broker {where}', f'cannot be reached: {error}. Nothing is lost, but every change waits.',
                          'Start RabbitMQ, or correct [DEFAULT] transport_url in ' + service.path)


def _api(service, seen):
    for binary, address in service.servers().items():
        subject = f'{binary} on port {address[1]}'
        ready, why = installation.health(address)
        if ready:
            yield Finding('ok', subject, 'ready')
        else:
            yield Finding('fault', subject, why + ('' if why.endswith('.') else '.'),
                          f'Start {binary} and read the end of its log; `ss -ltnp sport = :{address[1]}` shows who holds the port.')


def _credentials(service, seen):
    from keystoneauth1 import exceptions
    from oslo_config import cfg

    from kodiak.common import client
    if service.name == 'identity':
        return      # it asks nobody
    subject = f'service user of {service.name}'
    clients = client.Clients(service.conf)
    try:
        clients.token()
    except cfg.RequiredOptError:
        return
    except exceptions.Unauthorized as error:
        yield Finding('fault', subject, f'identity refuses its password: {error.message}.',
                      f'openstack user set --password PASSWORD USER, with what {service.path} says in [service_user] or '
                      '[keystone_authtoken]')
    except exceptions.ClientException as error:
        yield Finding('fault', subject, f'it gets no token: {str(error).splitlines()[0]}.',
                      'Start kodiak-identity-api, or correct auth_url in ' + service.path)
    else:
        yield Finding('ok', subject, 'gets a token')


def _clock(readable):
    skews = []
    for binary, address in ((binary, address) for service in readable for binary, address in service.servers().items()):
        connection = http.client.HTTPConnection(*address, timeout=5)
        try:
            connection.request('GET', '/healthcheck')
            date = connection.getresponse().getheader('Date')
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
        if date:
            skews.append((abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()), binary))
    for service in readable:
        if not service.has_tables or service.agent_only:
            continue
        try:
            with service.database() as database, database.read() as connection:
                for row in db.all_dicts(connection, heartbeat.query()):
                    if row['last_seen_at']:
                        ahead = (row['last_seen_at'] - db.utcnow()).total_seconds()
                        skews.append((max(0, ahead), f'{row["binary"]} on {row["host"]}'))
        except (exc.SQLAlchemyError, OSError):
            continue
    worst, where = max(skews, default=(0, ''))
    if worst > 2.5:
        yield Finding('fault', 'clock', f'it differs by {worst:.0f} s from that of {where}; leases and tokens go wrong.',
                      'Let chrony or systemd-timesyncd set the clock on every host.')
    else:
        yield Finding('ok', 'clock', 'agrees with all processes seen')


def _processes(readable):
    looked_at = {(binary, service.conf.host) for service in readable for binary in service.servers()}
    for line in status.collect(readable):
        subject = f'{line["binary"]} on {line["host"]}'
        if line['binary'] == '-' or (line['binary'], line['host']) in looked_at:
            continue
        if line['state'] == 'down':
            last = f' since {line["since"]} UTC' if line['since'] else ''
            yield Finding('fault', subject, f'no sign of life{last}. {line["note"]}'.strip(),
                          f'Start it and read the end of its log. If the host is gone for good: kodiak forget {line["host"]}; for '
                          'agents openstack compute service delete, openstack network agent delete.')
        elif line['note'] and line['state'] == 'up':
            yield Finding('fault', subject, line['note'], 'Read the end of its log.')
        elif line['state'] == 'disabled':
            yield Finding('warning', subject, f'disabled by an administrator: {line["note"] or "no reason given"}.',
                          'Enable it again when the reason is gone.')
        else:
            yield Finding('ok', subject, 'up')
