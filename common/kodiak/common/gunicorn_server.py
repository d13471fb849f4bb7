"""gunicorn's gthread workers under an API of ours: quiet, drained on SIGTERM.

Several workers share what was loaded before they forked. A single worker does without gunicorn's master: that would be as
large as the worker and do nothing but start it again, which who started the master does as well.
"""
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time

import gunicorn.app.base
import gunicorn.glogging
import gunicorn.sock
from gunicorn.http import body as gunicorn_body
from gunicorn.http import unreader as gunicorn_unreader
from gunicorn.http import wsgi as gunicorn_wsgi
from gunicorn.workers import gthread

from kodiak.common import metrics, service

LOG = logging.getLogger(__name__)
SHARED_MEMORY = '/dev/shm'  # noqa: S108 (gunicorn makes its heartbeat files there safely)


class _Logger(gunicorn.glogging.Logger):
    """Sends gunicorn's lines where all others go."""

    def setup(self, cfg):
        """Keep the handlers of the process."""
        self.error_log = logging.getLogger('gunicorn.error')
        self.access_log = logging.getLogger('gunicorn.access')

    def access(self, resp, req, environ, request_time):
        """Nothing: kodiak.common.wsgi logs requests, with their route and ids."""

    def exception(self, msg, *args, **kwargs):
        """A client that was too slow is no error of ours."""
        if isinstance(sys.exc_info()[1], TimeoutError):
            self.debug('A client was too slow')
        else:
            super().exception(msg, *args, **kwargs)

    def reopen_files(self):
        """oslo.log follows its file by itself."""


class _Metrics:
    """Answers ``/metrics`` for all workers of this port; everything else is the API's."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if environ['PATH_INFO'] != '/metrics' or environ['REQUEST_METHOD'] != 'GET':
            return self.app(environ, start_response)
        body = metrics.render()
        start_response('200 OK', [('Content-Type', metrics.CONTENT_TYPE), ('Content-Length', str(len(body)))])
        return [body]


def direct_reader(environ, buffers=None):
    """``read(size)`` of a request's body that takes it from the socket straight into the caller's buffer, or None.

    gunicorn's own file object copies each piece four times on its way, which is much of what a large upload costs. It is told
    what was taken, so that it finds the next request. None for bodies without a length, and under another server.

    :param buffers: an iterator of bytearrays, at least as long as what is asked for, that pieces are read into: views of them are
        returned. Fresh memory for each piece costs the kernel more than the copying.
    """
    source = environ.get('wsgi.input')
    reader = getattr(source, 'reader', None)
    if not isinstance(reader, gunicorn_body.LengthReader) or not isinstance(reader.unreader, gunicorn_unreader.SocketUnreader):
        return None
    sock = reader.unreader.sock

    def read(size):
        held = b''
        # What came with the headers, and no more: gunicorn would read ahead, and what it has read then goes the long way.
        while len(held) < size and (waiting := source.buf.tell() + reader.unreader.buf.tell()):
            if not (piece := source.read(min(size - len(held), waiting))):
                return held                 # what waits is the next request
            held += piece
        size = min(size, len(held) + reader.length)
        if len(held) == size:
            return held
        data = bytearray(size) if buffers is None else memoryview(next(buffers))[:size]
        data[:len(held)] = held
        rest = memoryview(data)[len(held):]
        try:
            while rest and (got := sock.recv_into(rest)):
                rest = rest[got:]
        except OSError:
            source.failed = True
            raise
        reader.length -= len(data) - len(held) - len(rest)
        if not rest:
            return data
        source.failed = True                # the client went away
        return data[:len(data) - len(rest)]
    return read


class _Client(socket.socket):
    """A client's connection, which does not wait for ever: a thread would be gone with each client that stops in the middle."""

    patience = 60

    def setblocking(self, flag):
        """Wait, so long as the client does something now and then; or don't."""
        if self.fileno() >= 0:
            self.settimeout(self.patience if flag else 0)


class _Listener:
    """A listening socket whose connections are :class:`_Client`."""

    def __init__(self, listener, patience):
        self._listener, self._patience = listener, patience

    def __getattr__(self, name):
        return getattr(self._listener, name)

    def accept(self):
        """As of a socket."""
        sock, address = self._listener.accept()
        client = _Client(fileno=sock.detach())
        client.patience = self._patience
        return client, address


_TOGETHER = 65536      # bytes of a body that are worth copying to save a system call


class _Response(gunicorn_wsgi.Response):
    """A response whose headers go out together with its first piece: one system call and one packet."""

    _head = b''

    def send_headers(self):
        """Keep them until there is something to send them with."""
        if not self._head and not self.headers_sent:
            lines = [*self.default_headers(), *(f'{name}: {value}\r\n' for name, value in self.headers), '\r\n']
            self._head = ''.join(lines).encode('latin-1')

    def _send(self, data):
        head, self._head = self._head, b''
        if head:
            self.headers_sent = True
            if len(data) > _TOGETHER:
                self.sock.sendall(head)
            else:
                data = head + data
        if data:
            self.sock.sendall(data)

    def _emit_body(self, data):
        self._send(b'%X\r\n%b\r\n' % (len(data), data) if self.chunked else data)

    def write(self, arg):
        """Send a piece of the body. One without a byte sends what waits."""
        super().write(arg)
        self._send(b'')

    def sendfile(self, respiter):
        """Let the kernel send a file."""
        self.send_headers()
        self._send(b'')
        return super().sendfile(respiter)

    def close(self):
        """End the response."""
        self.send_headers()
        self._send(b'')
        super().close()


class _Worker(gthread.ThreadWorker):
    """A worker that tells its master that it lives once a second, not at every request, which is a tenth of a small one.

    A client that has been answered is often about to ask again. The thread that answered it waits a moment for that: to hand
    the connection to the thread that watches all of them, and to be woken by it again, costs as much as a small request. Never
    do more than half of the threads wait so, which leaves the others to all other clients.
    """

    FOLLOW_MS = 10
    _told = 0.0

    def __init__(self, *args):
        super().__init__(*args)
        self._waiting, self._following = set(), set()

    def init_process(self):
        """Begin."""
        self.sockets = [_Listener(listener, self.app.runtime.conf.api.client_timeout) for listener in self.sockets]
        super().init_process()

    def handle(self, conn):
        """Answer a request, and those that follow it closely. A connection that ends with it ends here: in the thread that accepts
        all others, gunicorn would wait two seconds for each client that does not close its side."""
        self._waiting.discard(conn)
        while (result := super().handle(conn)) is True and self._follows(conn):
            pass
        if not result:
            conn.close(graceful=True)
        return result

    def handle_request(self, req, conn):
        """Answer one request; whether the connection stays open. As gunicorn's, without the hooks that nobody here uses."""
        resp, environ = gunicorn_wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, response_class=_Response)
        environ['wsgi.multithread'] = True
        if not self.alive or len(self.keepalived_conns) >= self.max_keepalived:
            resp.force_close()
        try:
            respiter = self.wsgi(environ, resp.start_response)
            try:
                if isinstance(respiter, environ['wsgi.file_wrapper']):
                    resp.write_file(respiter)
                else:
                    for item in respiter:
                        resp.write(item)
                resp.close()
            finally:
                if hasattr(respiter, 'close'):
                    respiter.close()
        except OSError:
            raise
        except Exception:
            if not resp.headers_sent:
                raise
            # What would say 500 now would be taken for a piece of the body.
            self.log.exception('Error handling request')
            resp.force_close()
        return not resp.should_close()

    def enqueue_req(self, conn):
        """Have a thread answer a request, as soon as there is one."""
        self._waiting.add(conn)
        super().enqueue_req(conn)

    def _follows(self, conn):
        """Whether the client's next request is there within a moment, and nobody else has to wait for this thread."""
        if conn.parser.unreader.buf.getvalue():
            return True
        if not self.alive or self._waiting or len(self._following) >= self.cfg.threads // 2:
            return False
        self._following.add(conn)
        try:
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(self.FOLLOW_MS))
        finally:
            self._following.discard(conn)

    def notify(self):
        """Touch the file that the master watches."""
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            super().notify()


class _Alone(_Worker):
    """A worker without a master."""

    def is_parent_alive(self):
        """Whoever started this process need not stay."""
        return True


class Server(gunicorn.app.base.BaseApplication):
    """The server of one API.

    :param runtime: the process's Runtime.
    :param load_app: ``load_app(runtime)`` returns the WSGI application.
    :param attach: ``attach(runtime)`` returns what a worker process runs besides requests, however often the app is loaded.
    :param settings: gunicorn's, where a service needs others than all.
    """

    def __init__(self, runtime, load_app, attach, settings=None):
        self.runtime, self.load_app, self.attach = runtime, load_app, attach
        self.settings = settings or {}
        self.worker = None
        self.attached = []
        super().__init__()

    def load_config(self):
        """gunicorn's settings, from ours."""
        conf = self.runtime.conf
        for name, value in {
            'bind': [f'{conf.api.bind_host}:{conf.api.bind_port}', *conf.api.also_bind], 'workers': conf.api.workers,
            'threads': conf.api.threads, 'worker_class': _Worker, 'preload_app': True, 'accesslog': None,
            'control_socket_disable': True, 'keepalive': 65, 'timeout': 60, 'graceful_timeout': 30, 'backlog': 1024,
            'logger_class': _Logger, 'proc_name': self.runtime.binary, 'worker_connections': 1000,
            'worker_tmp_dir': SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None,
            # Who believes what a proxy says is kodiak.common.wsgi.
            'forwarded_allow_ips': '',
            'when_ready': self._when_ready, 'post_fork': self._post_fork, 'post_worker_init': self._post_worker_init,
            'worker_exit': self._worker_exit, 'child_exit': self._child_exit, **self.settings,
        }.items():
            self.cfg.set(name, value)

    def load(self):
        """The WSGI application."""
        self.runtime.background.clear()
        self.runtime.on_reload.clear()
        app = self.load_app(self.runtime)
        gc.collect()
        gc.freeze()
        return _Metrics(app)

    def run(self):
        """Serve until SIGTERM."""
        if self.runtime.conf.api.workers > 1:
            super().run()
        log = self.cfg.logger_class(self.cfg)
        sockets = gunicorn.sock.create_sockets(self.cfg, log)
        self.worker = _Alone(0, os.getppid(), sockets, self, self.cfg.timeout, self.cfg, log)
        try:
            self.worker.init_process()
        finally:
            self._worker_exit(self, self.worker)

    def _reload_alone(self):
        service.reload(self.runtime)
        before = list(self.runtime.background)
        try:
            app = self.load()
        except Exception:
            LOG.exception('The pipeline could not be loaded again; the one from before goes on')
            self.runtime.background[:] = before
            return
        for part in reversed(before):
            part.stop()
        self.worker.wsgi = app
        self.runtime.start()

    def reload(self):
        """SIGHUP: read the configuration and the pipeline again; new workers take over from the old ones."""
        service.reload(self.runtime)
        self.callable = None
        super().reload()

    def _when_ready(self, server):
        LOG.info('%s listens on %s:%s', self.runtime.binary, self.runtime.conf.api.bind_host,
                 self.runtime.conf.api.bind_port)

    def _post_fork(self, server, worker):
        if self.runtime.db is not None:
            self.runtime.db.dispose()

    def _post_worker_init(self, worker):
        self.attached = self.attach(self.runtime)
        for part in [*self.attached, self.runtime]:
            part.start()
        LOG.info('%s is up on %s', self.runtime.binary, self.runtime.host)
        if worker is self.worker:
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=self._reload_alone, daemon=True).start())

    def _worker_exit(self, server, worker):
        for part in [self.runtime, *reversed(self.attached)]:
            part.stop()

    @staticmethod
    def _child_exit(server, worker):
        from prometheus_client import multiprocess
        multiprocess.mark_process_dead(worker.pid)


