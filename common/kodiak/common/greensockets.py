"""A relay from WebSockets to TCP or Unix sockets, for thousands of connections that mostly say nothing (consoles).

This is the one module that uses eventlet; nothing is monkey-patched. The green threads live in one native thread
of the process, and what may block (``find``) is run in others, so that everything else stays as in any worker::

    relay = greensockets.Relay(('0.0.0.0', 6080), find, static='/usr/share/novnc')
    runtime.background.append(relay)

Import it before anything that imports :mod:`kodiak.common.noeventlet`'s customers (RPC, privileged).
"""
import dataclasses
import http.cookies
import logging
import mimetypes
import os
import threading
import urllib.parse
import warnings

os.environ.setdefault('EVENTLET_NO_GREENDNS', 'yes')    # names are looked up by the system's resolver; dnspython is 11 MB
with warnings.catch_warnings():
    warnings.simplefilter('ignore')     # eventlet advises against eventlet
    import eventlet
    from eventlet import hubs, tpool, websocket, wsgi
    from eventlet.green import socket

from kodiak.common import errors

LOG = logging.getLogger(__name__)

CHUNK = 65536


@dataclasses.dataclass(frozen=True)
class Request:
    """What a WebSocket was opened with: ``path``, ``query`` and ``cookies`` (dictionaries), ``headers`` (lower case)."""

    path: str
    query: dict
    cookies: dict
    headers: dict
    peer: str


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a connection leads: ``host`` and ``port``, or the ``path`` of a Unix socket.

    ``say``: bytes sent to the target first. ``name``: how the log calls it.
    """

    host: str | None = None
    port: int | None = None
    path: str | None = None
    say: bytes = b''
    name: str = ''


class Relay:
    """Serves WebSockets, and the files of ``static`` to those who ask for a page.

    :param address: (host, port) to listen on; port 0 takes any, see ``port`` after :meth:`start`.
    :param find: ``find(Request)`` returns a :class:`Target`, or raises an :class:`errors.Error`, whose status (and
        nothing more) the client gets. It runs in a native thread and may block.
    :param origins: hosts (``name`` or ``name:port``) whose pages may connect, beside the host that was asked itself;
        ``*`` for any. Requests without an Origin do not come from a page.
    :param most: connections at the same time.
    """

    def __init__(self, address, find, static=None, origins=(), most=10000, connect_timeout=10):
        self.address, self.find, self.most, self.connect_timeout = address, find, most, connect_timeout
        self.static = os.path.realpath(static) if static else None
        self.origins = frozenset(origins)
        self.port = None
        self.open = 0
        self._thread, self._listener, self._wake, self._problem = None, None, None, None
        self._upgrade = websocket.WebSocketWSGI.configured(self._relay, supported_protocols=['binary'],
                                                           origin_checker=self._allowed)

    def start(self):
        """Listen; returns when connections are taken. :raises OSError: the address is not to be had."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name='relay', daemon=True)
        self._thread.start()
        ready.wait(30)
        if self._problem is not None:
            raise self._problem

    def stop(self, timeout=10):
        """Close every connection and listen no more."""
        if self._wake is not None:
            os.write(self._wake, b'x')
            self._thread.join(timeout)

    def _run(self, ready):
        try:
            self._listener = eventlet.listen(self.address, backlog=512, reuse_port=False)
        except OSError as error:
            self._problem = error
            ready.set()
            return
        reader, self._wake = os.pipe()
        self.port = self._listener.getsockname()[1]
        server = eventlet.spawn(wsgi.server, self._listener, self._application, log=LOG, log_output=False,
                                max_size=self.most, keepalive=False, debug=False, socket_timeout=None)
        ready.set()
        hubs.trampoline(reader, read=True)
        server.kill()
        self._listener.close()
        os.close(reader)

    def _application(self, environ, start_response):
        if environ.get('HTTP_UPGRADE', '').lower() != 'websocket':
            return self._page(environ, start_response)
        if not self._allowed(environ.get('HTTP_HOST'), environ.get('HTTP_ORIGIN', '')):
            return _refuse(start_response, '403 Forbidden')
        try:
            environ['kodiak.target'] = tpool.execute(self.find, _request(environ))
        except errors.Error as error:
            LOG.info('A connection of %s was refused: %s', environ.get('REMOTE_ADDR'), error.message)
            return _refuse(start_response, f'{error.code} {error.title}')
        except Exception:
            LOG.exception('A connection could not be placed')
            return _refuse(start_response, '500 Internal Server Error')
        return self._upgrade(environ, start_response)

    def _allowed(self, host, origin):
        if not origin or '*' in self.origins:
            return True
        asking = urllib.parse.urlsplit(origin)
        return asking.netloc == host or asking.netloc in self.origins or asking.hostname in self.origins

    def _relay(self, client):
        target = client.environ['kodiak.target']
        try:
            server = self._connect(target)
        except OSError as error:
            LOG.warning('%s cannot be reached: %s', target.name or target, error)
            return
        self.open += 1
        LOG.info('Connected %s to %s', client.environ.get('REMOTE_ADDR'), target.name or target)
        back = eventlet.spawn(self._to_client, server, client)
        try:
            while (message := client.wait()) is not None:
                server.sendall(message if isinstance(message, bytes) else message.encode('latin-1', 'replace'))
        except (OSError, websocket.ConnectionClosedError) as error:
            LOG.debug('The client of %s is gone: %s', target.name or target, error)
        finally:
            back.kill()
            server.close()
            self.open -= 1
            LOG.info('Disconnected %s from %s', client.environ.get('REMOTE_ADDR'), target.name or target)

    @staticmethod
    def _to_client(server, client):
        try:
            while data := server.recv(CHUNK):
                client.send(data)
            client.close()
        except OSError as error:
            LOG.debug('A connection ended: %s', error)
        # The client's side waits for a message that will not come.
        try:
            client.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _connect(self, target):
        with eventlet.Timeout(self.connect_timeout, TimeoutError('no answer in time')):
            if target.path:
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                server.connect(target.path)
            else:
                server = socket.create_connection((target.host, target.port))
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if target.say:
            server.sendall(target.say)
        return server

    def _page(self, environ, start_response):
        if environ['REQUEST_METHOD'] not in ('GET', 'HEAD'):
            return _answer(start_response, '405 Method Not Allowed', 'Only pages and WebSockets are served here.')
        path = os.path.realpath(os.path.join(self.static or '/nonexistent', environ['PATH_INFO'].lstrip('/')))
        if self.static is None or not path.startswith(self.static + os.sep) or not os.path.isfile(path):
            return _answer(start_response, '404 Not Found', 'There is no such page.')
        kind = mimetypes.guess_type(path)[0] or 'application/octet-stream'
        start_response('200 OK', [('Content-Type', kind), ('Content-Length', str(os.path.getsize(path))),
                                  ('X-Content-Type-Options', 'nosniff')])
        if environ['REQUEST_METHOD'] == 'HEAD':
            return [b'']
        with open(path, 'rb') as file:
            return [file.read()]


def _refuse(start_response, status):
    # No page reads the body of a refused WebSocket, and some clients would take one for a frame.
    start_response(status, [('Content-Length', '0')])
    return [b'']


def _answer(start_response, status, sentence):
    body = sentence.encode() + b'\n'
    start_response(status, [('Content-Type', 'text/plain; charset=utf-8'), ('Content-Length', str(len(body)))])
    return [body]


def _request(environ):
    headers = {name[5:].replace('_', '-').lower(): value for name, value in environ.items() if name.startswith('HTTP_')}
    try:
        cookies = {name: morsel.value for name, morsel in http.cookies.SimpleCookie(headers.get('cookie', '')).items()}
    except http.cookies.CookieError:
        cookies = {}
    query = dict(urllib.parse.parse_qsl(environ.get('QUERY_STRING', '')))
    return Request(environ['PATH_INFO'], query, cookies, headers, environ.get('REMOTE_ADDR', ''))
