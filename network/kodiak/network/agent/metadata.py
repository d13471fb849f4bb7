"""The metadata proxy: says to compute which instance asks, and signs it.

A request comes in on a socket inside a router's or a DHCP service's namespace. The namespace and the sender's address
name a port, and the port names the instance: a guest can't ask for another, since it can't send from another's
address. What a guest says about itself in headers is dropped. Everything is bounded: bytes, seconds, requests at once.
"""
import concurrent.futures
import hashlib
import hmac
import http.client
import io
import logging
import selectors
import socket
import threading
import time
import urllib.parse

from kodiak.network.agent.routers import METADATA

LOG = logging.getLogger(__name__)

PORT = 80
MAX_HEAD, MAX_BODY, MAX_ANSWER = 16 << 10, 256 << 10, 8 << 20
PATIENCE = 15                                   # seconds that a guest has for its request
UPSTREAM_PATIENCE = 60                          # seconds that compute has for its answer
THREADS, WAITING, PER_GUEST = 16, 256, 8
METHODS = {'GET', 'HEAD', 'POST', 'PUT', 'DELETE'}
PASSED = ('accept', 'content-type', 'user-agent')
RETURNED = ('content-type', 'x-aws-ec2-metadata-token-ttl-seconds')


class Refuse(Exception):
    """The request gets this status and sentence."""

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def index(wanted, owner):
    """Who may ask in a namespace: {address: (instance id, project id)}.

    :param owner: ('routers', id) or ('networks', id).
    """
    kind, key = owner
    if kind == 'networks':
        networks = {key}
    else:
        networks = {leg.network_id for leg in wanted.routers[key].legs} if key in wanted.routers else set()
    return {fixed.address: (member.device_id, member.project_id) for member in wanted.members.values()
            if member.network_id in networks and member.device_id and member.device_owner.startswith('compute:')
            for fixed in member.fixed_ips}


def signature(secret, instance_id):
    """The HMAC-SHA256 by which compute knows that the instance id is from here."""
    return hmac.new((secret or '').encode(), instance_id.encode(), hashlib.sha256).hexdigest()


def read_request(connection, patience=PATIENCE, clock=time.monotonic):
    """(method, path, headers, body) of a request.

    :raises Refuse: if it is malformed, too large or too slow. :raises EOFError: if there is none.
    """
    deadline = clock() + patience
    data = bytearray()

    def more():
        left = deadline - clock()
        if left <= 0:
            raise Refuse(408, 'The request took too long.')
        connection.settimeout(left)
        try:
            piece = connection.recv(65536)
        except TimeoutError:
            raise Refuse(408, 'The request took too long.')
        if not piece:
            raise EOFError
        data.extend(piece)

    while (end := data.find(b'\r\n\r\n')) < 0:
        if len(data) > MAX_HEAD:
            raise Refuse(431, 'The head of the request is too large.')
        more()
    if end > MAX_HEAD:
        raise Refuse(431, 'The head of the request is too large.')
    line, _, rest = bytes(data[:end + 4]).partition(b'\r\n')
    words = line.decode('latin-1').split(' ')
    if len(words) != 3 or not words[2].startswith('HTTP/1.'):
        raise Refuse(400, 'This is no HTTP request.')
    if words[0] not in METHODS:
        raise Refuse(405, 'The method is not allowed here.')
    try:
        headers = http.client.parse_headers(io.BytesIO(rest))
        length = int(headers.get('content-length', 0))
        parts = urllib.parse.urlsplit(words[1])
    except (ValueError, http.client.HTTPException):
        raise Refuse(400, 'The head of the request is malformed.')
    if headers.get('transfer-encoding') or length < 0:
        raise Refuse(411, 'The length of the body must be given.')
    if length > MAX_BODY:
        raise Refuse(413, 'The body of the request is too large.')
    path = parts.path + ('?' + parts.query if parts.query else '')
    if not path.startswith('/') or any(ord(one) <= 32 or ord(one) > 126 for one in path):
        raise Refuse(400, 'The path of the request is malformed.')
    while len(data) < end + 4 + length:
        more()
    return words[0], path, headers, bytes(data[end + 4:end + 4 + length])


class Proxy:
    """Listens where it is told to, and forwards.

    :param url: of compute's metadata service. :param secret: shared with it.
    :param hands: opens the sockets.
    """

    def __init__(self, url, secret, hands):
        self.url, self.secret, self.hands = urllib.parse.urlsplit(url), secret, hands
        self._lock = threading.Lock()
        self._listeners, self._guests = {}, {}  # space -> socket; space -> {address: (instance, project)}
        self._busy = {}                         # (space, address) -> requests at work
        self._pending = 0
        self._selector = selectors.DefaultSelector()
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix='metadata')
        self._thread = None
        self._stopping = threading.Event()

    def leave(self, made, wanted, fresh):
        """Close sockets in namespaces that are not wanted any more, or are about to be made anew."""
        for space in list(self._listeners):
            if space not in made.listeners or space in fresh:
                self._close(space)

    def join(self, made, wanted, errors):
        """Open sockets in namespaces that have none; take in who may ask."""
        for space, owner in made.listeners.items():
            self._guests[space] = index(wanted, owner)
            if space in self._listeners or owner in errors:
                continue
            try:
                listener = self.hands.open(space, 'tcp', METADATA, PORT)
            except Exception as error:
                LOG.warning('No metadata proxy in %s: %s', space, error)
                errors.setdefault(owner, f'the metadata proxy: {error}')
                continue
            listener.setblocking(False)
            with self._lock:
                self._listeners[space] = listener
                self._selector.register(listener, selectors.EVENT_READ, space)
        if self._listeners and self._thread is None:
            self._thread = threading.Thread(target=self._loop, name='metadata-accept', daemon=True)
            self._thread.start()

    def stop(self):
        """Listen no more."""
        self._stopping.set()
        for space in list(self._listeners):
            self._close(space)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _close(self, space):
        with self._lock:
            listener = self._listeners.pop(space, None)
            if listener is not None:
                self._selector.unregister(listener)
                listener.close()
        self._guests.pop(space, None)

    def _loop(self):
        while not self._stopping.is_set():
            if not self._listeners:
                self._stopping.wait(0.5)
                continue
            for key, _ in self._selector.select(1.0):
                try:
                    connection, peer = key.fileobj.accept()
                except OSError:
                    continue
                self._take(key.data, connection, peer[0])

    def _take(self, space, connection, address):
        with self._lock:
            if self._pending >= WAITING or self._busy.get((space, address), 0) >= PER_GUEST:
                connection.close()
                return
            self._pending += 1
            self._busy[space, address] = self._busy.get((space, address), 0) + 1
        try:
            self._pool.submit(self._serve, space, connection, address)
        except RuntimeError:
            connection.close()

    def _serve(self, space, connection, address):
        try:
            with connection:
                try:
                    answer = self._answer(space, connection, address)
                except Refuse as refusal:
                    answer = (refusal.status, {'content-type': 'text/plain; charset=utf-8'},
                              refusal.sentence.encode() + b'\n', True)
                _say(connection, *answer)
        except (OSError, EOFError):
            LOG.debug('%s in %s went away', address, space)
        except Exception:
            LOG.exception('A metadata request of %s in %s failed', address, space)
        finally:
            with self._lock:
                self._pending -= 1
                self._busy[space, address] -= 1
                if not self._busy[space, address]:
                    del self._busy[space, address]

    def _answer(self, space, connection, address):
        method, path, headers, body = read_request(connection)
        instance, project = self._guests.get(space, {}).get(address, (None, None))
        if instance is None:
            raise Refuse(404, 'No instance has this address.')
        sent = {name: headers[name] for name in PASSED if name in headers}
        sent.update({'X-Forwarded-For': address, 'X-Instance-ID': instance, 'X-Tenant-ID': project,
                     'X-Instance-ID-Signature': signature(self.secret, instance), 'Connection': 'close'})
        for name, value in headers.items():
            if name.lower().startswith('x-aws-ec2-metadata-token'):
                sent[name] = value
        kind = http.client.HTTPSConnection if self.url.scheme == 'https' else http.client.HTTPConnection
        upstream = kind(self.url.hostname, self.url.port, timeout=UPSTREAM_PATIENCE)
        try:
            upstream.request(method, self.url.path.rstrip('/') + path, body or None, sent)
            response = upstream.getresponse()
            data = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            LOG.warning('Compute does not answer for metadata: %s', error)
            raise Refuse(503, 'The metadata service does not answer now. Try again.')
        finally:
            upstream.close()
        if len(data) > MAX_ANSWER:
            raise Refuse(502, 'The metadata service gave too long an answer.')
        return (response.status, {name: response.headers[name] for name in RETURNED if name in response.headers}, data,
                method != 'HEAD')


def _say(connection, status, headers, body, with_body):
    reason = http.client.responses.get(status, '')
    lines = [f'HTTP/1.1 {status} {reason}', *(f'{name}: {value}' for name, value in headers.items()),
             f'content-length: {len(body)}', 'connection: close', '', '']
    connection.settimeout(PATIENCE)
    connection.sendall('\r\n'.join(lines).encode('latin-1') + (body if with_body else b''))
    connection.shutdown(socket.SHUT_WR)
