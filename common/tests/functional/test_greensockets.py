"""The relay, in a process of its own, seen by a WebSocket client that is no more than the protocol."""
import base64
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest

PROGRAM = """
import sys, threading
from kodiak.common import greensockets, errors

def find(request):
    token = request.query.get('token') or request.cookies.get('token')
    if token == 'defect':
        raise KeyError(token)
    if token != 'good':
        raise errors.Forbidden('The token is not known, or has been used.')
    if request.path == '/unix':
        return greensockets.Target(path=sys.argv[2])
    if request.path == '/nobody':
        return greensockets.Target(host='127.0.0.1', port=1)
    return greensockets.Target(host='127.0.0.1', port=int(sys.argv[1]), say=b'hello;')

relay = greensockets.Relay(('127.0.0.1', 0), find, static=sys.argv[3], origins=['friend.example'])
relay.start()
assert not greensockets.eventlet.patcher.is_monkey_patched('socket')
try:
    greensockets.Relay(('127.0.0.1', relay.port), find).start()
except OSError as error:
    assert 'in use' in str(error)
else:
    raise AssertionError('two relays on one port')
print(relay.port, flush=True)
sys.stdin.readline()
relay.stop()
print('stopped', relay.open, flush=True)
"""


class Echo:
    """A TCP and a Unix server that send back what they get; ``bye`` closes."""

    def __init__(self, path):
        self.tcp, self.unix = socket.create_server(('127.0.0.1', 0), backlog=256), socket.socket(socket.AF_UNIX)
        self.unix.bind(path)
        self.unix.listen()
        self.port = self.tcp.getsockname()[1]
        for listener in (self.tcp, self.unix):
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with connection:
            while data := connection.recv(65536):
                if data == b'bye':
                    return
                connection.sendall(data)


class WebSocket:
    def __init__(self, port, path, **headers):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=20)
        lines = [f'GET {path} HTTP/1.1', f'Host: 127.0.0.1:{port}', 'Upgrade: websocket', 'Connection: Upgrade',
                 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: ' + base64.b64encode(os.urandom(16)).decode()]
        lines += [f'{name.replace("_", "-")}: {value}' for name, value in headers.items()]
        self.socket.sendall(('\r\n'.join(lines) + '\r\n\r\n').encode())
        self.file = self.socket.makefile('rb')
        self.status = self.file.readline().decode().strip()
        self.headers = {}
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(': ')
            self.headers[name.lower()] = value

    def send(self, data, code=2):
        mask = os.urandom(4)
        size = len(data)
        head = bytes([0x80 | code])
        head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack('!H', size) if size < 65536 else \
            bytes([0x80 | 127]) + struct.pack('!Q', size)
        key = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(data, 'big') ^ int.from_bytes(key, 'big')).to_bytes(size, 'big')
        self.socket.sendall(head + mask + masked)

    def receive(self):
        """(code, data) of the next frame; (None, b'') at the end."""
        head = self.file.read(2)
        if len(head) < 2:
            return None, b''
        size = head[1] & 127
        if size == 126:
            size = struct.unpack('!H', self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack('!Q', self.file.read(8))[0]
        return head[0] & 15, self.file.read(size)

    def until(self, size):
        data = b''
        while len(data) < size:
            code, more = self.receive()
            assert code == 2, (code, more)
            data += more
        return data

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture(scope='module')
def relay(tmp_path_factory):
    folder = tmp_path_factory.mktemp('relay')
    (folder / 'static').mkdir()
    (folder / 'static' / 'vnc_lite.html').write_text('<html>console</html>')
    (folder / 'secret').write_text('secret')
    (folder / 'static' / 'link').symlink_to(folder / 'secret')
    (folder / 'program.py').write_text(PROGRAM)
    echo = Echo(str(folder / 'unix'))
    process = subprocess.Popen([sys.executable, str(folder / 'program.py'), str(echo.port), str(folder / 'unix'),
                                str(folder / 'static')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield int(process.stdout.readline())
    process.stdin.write('\n')
    process.stdin.flush()
    assert process.stdout.readline().startswith('stopped')
    assert process.wait(20) == 0
    echo.tcp.close()
    echo.unix.close()


def test_bytes_pass_both_ways(relay):
    client = WebSocket(relay, '/?token=good', Sec_WebSocket_Protocol='binary')
    assert client.status == 'HTTP/1.1 101 Switching Protocols'
    assert client.headers['sec-websocket-protocol'] == 'binary'
    assert client.until(6) == b'hello;'
    for data in (b'x', bytes(range(256)) * 8, os.urandom(300000)):
        client.send(data)
        assert client.until(len(data)) == data
    client.send(b'are you there', code=9)
    assert client.receive() == (10, b'are you there')
    client.close()


def test_the_end_of_the_server_ends_the_client(relay):
    client = WebSocket(relay, '/?token=good')
    assert client.until(6) == b'hello;'
    client.send(b'bye')
    assert client.receive()[0] == 8
    assert client.receive()[0] is None
    client.close()


def test_a_unix_socket_and_a_cookie(relay):
    client = WebSocket(relay, '/unix', Cookie='a=b; token=good')
    client.send(b'over unix')
    assert client.until(9) == b'over unix'
    client.close()


@pytest.mark.parametrize(('path', 'headers', 'status'), [
    ('/?token=bad', {}, '403 Forbidden'), ('/', {}, '403 Forbidden'), ('/?token=defect', {}, '500 Internal Server Error'),
    ('/?token=good', {'Origin': 'http://evil.example'}, '403 Forbidden'),
    ('/?token=good', {'Origin': 'https://friend.example'}, '101 Switching Protocols')])
def test_who_may_connect(relay, path, headers, status):
    client = WebSocket(relay, path, **headers)
    assert client.status == 'HTTP/1.1 ' + status
    if not status.startswith('101'):
        assert client.receive() == (None, b'')
    client.close()


def test_a_target_that_is_away_closes(relay):
    client = WebSocket(relay, '/nobody?token=good')
    assert client.status.endswith('Switching Protocols')
    assert client.receive()[0] in {8, None}
    client.close()


@pytest.mark.parametrize(('path', 'status', 'body'), [
    ('/vnc_lite.html?path=%3Ftoken%3Dx', '200 OK', b'<html>console</html>'), ('/../secret', '404 Not Found', None),
    ('/link', '404 Not Found', None), ('/', '404 Not Found', None), ('/%2e%2e/secret', '404 Not Found', None)])
def test_pages(relay, path, status, body):
    with socket.create_connection(('127.0.0.1', relay), timeout=20) as connection:
        connection.sendall(f'GET {path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
        answer = b''
        while data := connection.recv(65536):
            answer += data
    head, _, content = answer.partition(b'\r\n\r\n')
    assert head.startswith(f'HTTP/1.1 {status}'.encode())
    assert body is None or content == body


def test_many_idle_connections_do_not_hold_up_one_that_talks(relay):
    idle = [WebSocket(relay, '/?token=good') for _ in range(150)]
    assert {client.status for client in idle} == {'HTTP/1.1 101 Switching Protocols'}
    client = WebSocket(relay, '/?token=good')
    client.send(b'still there')
    assert client.until(17) == b'hello;still there'
    idle[77].send(b'me too')
    assert idle[77].until(12) == b'hello;me too'
    for one in (*idle, client):
        one.close()
