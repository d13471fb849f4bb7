"""The processes of a service: API servers (gunicorn, threads) and workers (conductors, agents).

Both read ``--config-file`` and the other arguments of oslo.config, log to stderr or ``--log-file``, finish what
runs on SIGTERM, read again on SIGHUP what may change (log level, policy, for an API the paste pipeline too),
beat in the table ``services`` and answer ``/healthcheck`` and ``/metrics``: an API on its port, a worker on
the Unix socket ``<run_path>/<binary>.status`` and on ``[worker] status_port`` if that is set.
"""
import contextlib
import ctypes
import dataclasses
import gc
import http.server
import importlib
import importlib.metadata
import logging
import os
import shutil
import signal
import socket
import socketserver
import sys
import threading

import orjson

from kodiak.common import client, config, events, log, metrics, rpc
from kodiak.common.runtime import Runtime

LOG = logging.getLogger(__name__)


def make_runtime(name, binary, conf, database=True):
    """The Runtime of a process that runs with ``conf``; nothing is connected yet.

    :param database: False for a process without one (an agent).
    """
    try:
        version = importlib.metadata.version('kodiak-' + name.replace('_', '-'))
    except importlib.metadata.PackageNotFoundError:
        version = ''
    db = None
    if database:
        from kodiak.common.db import Database  # agents have no database, and need not carry SQLAlchemy
        db = Database(config.database_url(conf, name), pool_size=conf.database.pool_size)
        if conf.notifications.topics:
            from kodiak.common import outbox
            outbox.announce(db, conf.notifications.disabled)
    return Runtime(name=name, binary=binary, conf=conf, host=conf.host, db=db, bus=rpc.Bus(conf),
                   clients=client.Clients(conf), version=version)


def _prepare(name, binary, opts, defaults, argv, database):
    _spare_memory()
    conf = config.load(name, opts, args=sys.argv[1:] if argv is None else argv, defaults=defaults)
    log.setup(conf, binary)
    os.makedirs(conf.run_path, exist_ok=True)
    events.setup(os.path.join(conf.state_path, name, 'events'), binary)
    return make_runtime(name, binary, conf, database)


def _spare_memory():
    """Let glibc give large blocks back when they are freed, and keep no heap a thread.

    By default it keeps what a login's password hash took (19 MiB), and the buffers of each thread.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, 'mallopt'):
        for parameter, value in ((-8, 2), (-3, 1 << 18), (-1, 1 << 18)):    # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(parameter, value)


def run_api(name, load, *, opts=None, defaults=None, argv=None, binary=None, conductor=None, database=True, adjust=None,
            settings=None):
    """Serve an API until SIGTERM; does not return.

    :param name: the service (``image``).
    :param load: ``load(runtime)`` returns the WSGI application; called before the processes fork and again on SIGHUP.
        It may add to ``runtime.background``.
    :param opts: the service's options, see :func:`kodiak.common.config.load`; ``defaults`` likewise.
    :param conductor: ``(module, topic)`` of the service's conductor, whose ``build`` is run in the API process where
        ``[api] conductor`` says so.
    :param database: False for a process without one; it beats nowhere.
    :param adjust: ``adjust(conf)`` is called before anything is read from the configuration: a service with several servers
        sets ``[api]`` there to what the configuration says for this one.
    :param settings: gunicorn's, where a service needs others than all (longer headers).
    """
    app = _prepare(name, binary or f'kodiak-{name}-api', opts, defaults, argv, database)
    if adjust is not None:
        adjust(app.conf)
    folder = os.path.join(app.conf.run_path, app.binary + '.metrics')
    shutil.rmtree(folder, ignore_errors=True)
    # A worker of the process before may still be counting into it.
    os.makedirs(folder, exist_ok=True)
    os.environ['PROMETHEUS_MULTIPROC_DIR'] = folder
    from kodiak.common import gunicorn_server
    with_conductor = conductor if app.conf.api.conductor else None
    gunicorn_server.Server(app, load, lambda app: attached_to_api(app, with_conductor), settings).run()


def attached_to_api(app, conductor=None):
    """What every API worker process runs besides its requests: the carrying of wake-ups, a heartbeat, perhaps a conductor.

    :param conductor: see :func:`run_api`.
    """
    if app.db is None:
        return []
    from kodiak.common import heartbeat, wake
    parts = [wake.Doorbell(app.conf.run_path, app.name, app.db, hear=conductor is not None),
             heartbeat.Heartbeat(app.db, app.host, app.binary, version=app.version, started_at=app.started_at)]
    if conductor is not None:
        module, topic = conductor
        part = dataclasses.replace(app, binary=f'kodiak-{app.name}-conductor', background=[], bus=rpc.Bus(app.conf))
        importlib.import_module(module).build(part)
        parts += [part, Status(part), heartbeat.Heartbeat(app.db, app.host, part.binary, topic, app.version,
                                                          started_at=app.started_at)]
    return parts


def run_worker(name, build, *, opts=None, defaults=None, argv=None, binary=None, topic=None, database=True):
    """Run a process that is no API until SIGTERM.

    :param build: ``build(runtime)`` adds to ``runtime.background`` and calls ``runtime.bus.serve``.
    :param topic: the RPC topic that is noted with its heartbeat.
    :param database: False for a process without one (an agent).
    """
    app = _prepare(name, binary or f'kodiak-{name}-conductor', opts, defaults, argv, database)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, args=(app,), daemon=True).start())
    build(app)
    if database:
        from kodiak.common import heartbeat, wake
        bell = wake.Doorbell(app.conf.run_path, app.name, app.db)
        app.background.append(bell)
        app.background.append(heartbeat.Heartbeat(app.db, app.host, app.binary, topic, app.version,
                                                  started_at=app.started_at))
    status = Status(app)
    status.start()
    app.start()
    gc.collect()
    gc.freeze()
    LOG.info('%s is up on %s', app.binary, app.host)
    ending.wait()
    LOG.info('%s stops', app.binary)
    app.stop()
    status.stop()
    if app.db is not None:
        app.db.close()


def reload(app):
    """Read the configuration again and tell who cares; what cannot change while running stays as it was."""
    try:
        app.conf.mutate_config_files()
    except Exception:
        LOG.exception('The configuration could not be read again')
        return
    for function in app.on_reload:
        try:
            function()
        except Exception:
            LOG.exception('%s could not be reloaded', function)
    LOG.info('%s has read its configuration again', app.binary)


class Status:
    """Answers /healthcheck and /metrics of a worker."""

    def __init__(self, app):
        self.app = app
        self.path = os.path.join(app.conf.run_path, app.binary + '.status')
        self._servers = []

    def start(self):
        """Listen on the Unix socket, and on the port if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        handler = type('Handler', (_Handler,), {'runtime': self.app})
        self._servers.append(_UnixServer(self.path, handler))
        os.chmod(self.path, 0o660)
        if self.app.conf.worker.status_port:
            self._servers.append(http.server.ThreadingHTTPServer(
                (self.app.conf.api.bind_host, self.app.conf.worker.status_port), handler))
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name='status', daemon=True, args=(60,)).start()

    def stop(self):
        """Take the socket away; the threads end with the process."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    runtime = None

    def do_GET(self):
        if self.path == '/metrics':
            self._say(200, metrics.CONTENT_TYPE, metrics.render())
        elif self.path == '/healthcheck':
            faults = self.runtime.faults()
            body = {'binary': self.runtime.binary, 'host': self.runtime.host, 'pid': os.getpid(),
                    'version': self.runtime.version, 'faults': faults}
            self._say(503 if faults else 200, 'application/json', orjson.dumps(body))
        else:
            self._say(404, 'text/plain', b'/healthcheck or /metrics\n')

    def _say(self, code, content_type, body):
        self.send_response(code)
        self.send_header('Content-Type', content_type)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text, *args):
        """Scrapes are not worth a line."""

    def address_string(self):
        """A Unix peer has no address."""
        return str(self.client_address) if isinstance(self.request, socket.socket) else ''
