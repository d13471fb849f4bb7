"""What clients send that is wrong, over the proxy's own HTTP server: a clear refusal, nothing half made, and others go on."""
import contextlib
import hashlib
import socket
import time

import pytest

BOX = '/v1/AUTH_test/c'


class Raw:
    """Connections on which each byte is ours."""

    def __init__(self, port):
        self.port, self.token = port, None
        answer = self.ask('GET', '/auth/v1.0', ['X-Auth-User: test:tester', 'X-Auth-Key: key'])
        self.token = next(line.partition(':')[2].strip() for line in answer.split('\r\n')
                          if line.lower().startswith('x-auth-token:'))

    @contextlib.contextmanager
    def open(self):
        """A connection."""
        with socket.create_connection(('127.0.0.1', self.port), 20) as sock:
            yield sock

    def head(self, method, path, headers=()):
        """A request's head."""
        lines = [f'{method} {path} HTTP/1.1', 'Host: localhost', *([f'X-Auth-Token: {self.token}'] if self.token else []), *headers]
        return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')

    def ask(self, method, path, headers=(), body=b''):
        """The whole answer, as text."""
        with self.open() as sock:
            sock.sendall(self.head(method, path, ['Connection: close', *headers]) + body)
            return rest_of(sock)

    def status(self, *request):
        """The answer's status."""
        return int(self.ask(*request).split(' ', 2)[1])


def rest_of(sock):
    """What comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            parts.append(data)
    return b''.join(parts).decode('latin-1')


@pytest.fixture
def raw(proxy):
    made = Raw(proxy)
    assert made.status('PUT', BOX) in (201, 202)
    assert made.status('PUT', BOX + '/there', ['Content-Length: 5'], b'there') == 201
    yield made
    # Whatever was sent: it answers, and what was there is there.
    assert made.ask('GET', BOX + '/there').endswith('there')
    assert made.ask('GET', BOX).endswith('there\n')


@pytest.mark.parametrize('method', ['GET', 'PUT', 'POST', 'DELETE', 'HEAD'])
@pytest.mark.parametrize('path, status', [
    ('/v1/' + 'a' * 257, 400), ('/v1/AUTH_test/' + 'c' * 257, 400), (BOX + '/' + 'o' * 1025, 400),
    (BOX + '/' + '%C3%A4' * 513, 400), (BOX + '/bad%FFutf8', 412), ('/v1/AUTH_test/%C3', 412), (BOX + '/a%00b', 412)])
def test_names(raw, method, path, status):
    found = raw.status(method, path, ['Content-Length: 0'])
    assert found == status or (method not in ('PUT', 'POST') and found in (400, 401, 403, 404, 412))


def test_headers(raw):
    put = 'PUT', BOX + '/o'
    assert raw.status(*put, ['Content-Length: 0', 'X-Object-Meta-Long: ' + 'x' * 257]) == 400
    assert raw.status(*put, ['Content-Length: 0', f'X-Object-Meta-{"x" * 129}: x']) == 400
    assert raw.status(*put, ['Content-Length: 0', 'X-Object-Meta-X: \xff']) == 400
    assert raw.status(*put, ['Content-Length: 0', *(f'X-Object-Meta-{number}: x' for number in range(91))]) == 400
    assert raw.status(*put, ['Content-Length: 0', *(f'X-Other-{number}: x' for number in range(400))]) in (400, 431)
    assert raw.status(*put, ['Content-Length: 0', 'X-Other: ' + 'x' * 70000]) in (400, 431)
    assert raw.status(*put, ['Content-Length: 0', 'X-Delete-At: soon']) == 400
    assert raw.status(*put, ['Content-Length: 0', 'X-Delete-At: 1']) == 400
    assert raw.status(*put, ['Content-Length: 0', 'X-Delete-After: ' + '9' * 5000]) == 201
    assert raw.status('GET', BOX + '/there', ['Range: bytes=' + '9' * 5000 + '-']) == 416
    assert raw.status('GET', BOX + '/there', ['Range: bytes=0-' + '9' * 5000]) == 206
    assert raw.status('GET', BOX + '/there', ['Range: bytes=-\xb2']) == 200
    assert raw.status('GET', BOX + '?limit=' + '9' * 30) in (200, 412)
    assert raw.status('GET', BOX + '?limit=%C2%B2') == 200
    assert raw.status('GET', BOX + '?prefix=%FF') == 400
    assert raw.status('DELETE', BOX + '/o') == 204


@pytest.mark.parametrize('headers, statuses', [
    (['Content-Length: x'], (400,)), (['Content-Length: -1'], (400,)), (['Content-Length: 5, 6'], (400,)),
    (['Content-Length: 5', 'Content-Length: 6'], (400,)), (['Content-Length: ' + '9' * 30], (400, 413)),
    (['Content-Length: 5368709123'], (413,)), (['Transfer-Encoding: chunked', 'Content-Length: 5'], (400,)),
    (['Transfer-Encoding: gzip'], (400, 501)), ([], (411,))])
def test_lengths(raw, headers, statuses):
    assert raw.status('PUT', BOX + '/o', headers, b'12345') in statuses
    assert raw.status('HEAD', BOX + '/o') == 404


@pytest.mark.parametrize('body', [b'xyz\r\n12345', b'5\r\n123', b'-1\r\n1\r\n0\r\n\r\n', b'5\r\n12345678\r\n0\r\n\r\n'])
def test_chunks(raw, body):
    with raw.open() as sock:
        sock.sendall(raw.head('PUT', BOX + '/o', ['Transfer-Encoding: chunked']) + body)
        sock.shutdown(socket.SHUT_WR)
        assert ' 201 ' not in rest_of(sock)
    assert raw.status('HEAD', BOX + '/o') == 404


def test_checksums(raw):
    good = hashlib.md5(b'12345').hexdigest()
    assert raw.status('PUT', BOX + '/o', ['Content-Length: 5', f'Etag: {good}'], b'12346') == 422
    assert raw.status('PUT', BOX + '/o', ['Content-Length: 5', 'Etag: none'], b'12345') == 422
    assert raw.status('HEAD', BOX + '/o') == 404
    assert raw.status('PUT', BOX + '/o', ['Content-Length: 5', f'Etag: {good}'], b'12345') == 201
    assert raw.status('DELETE', BOX + '/o') == 204


@pytest.mark.parametrize('size', [10, 3 << 20])
@pytest.mark.parametrize('sent', [0, 0.5])
def test_a_client_is_cut_off(raw, size, sent):
    with raw.open() as sock:
        sock.sendall(raw.head('PUT', BOX + '/o', [f'Content-Length: {size}']) + bytes(int(size * sent)))
    # (its end is noticed in its own time)
    assert raw.status('HEAD', BOX + '/o') == 404
    with raw.open() as sock:
        sock.sendall(raw.head('PUT', BOX + '/o', [f'Content-Length: {size}']) + bytes(int(size * sent)))
        sock.shutdown(socket.SHUT_WR)
        assert ' 201 ' not in rest_of(sock)
    assert raw.status('HEAD', BOX + '/o') == 404


def test_slow_clients_hold_nobody_up(raw):
    """The proxy of these tests waits two seconds for a client."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(raw.open()) for _ in range(100)]
        for number, sock in enumerate(socks):
            if number % 2:
                sock.sendall(b'GET / HTTP/1.1\r\nHost: local')
            else:
                sock.sendall(raw.head('PUT', f'{BOX}/o{number}', ['Content-Length: 10']) + b'123')
        assert raw.status('HEAD', BOX + '/there') == 200
        for number, sock in enumerate(socks[:20]):
            answer = rest_of(sock)
            assert (' 408 ' in answer) if number % 2 == 0 else (not answer or ' 4' in answer)


def test_one_that_reads_nothing_is_let_go(raw):
    size = 64 << 20
    with raw.open() as sock:
        sock.sendall(raw.head('PUT', BOX + '/large', ['Connection: close', f'Content-Length: {size}']) + bytes(size))
        assert ' 201 ' in rest_of(sock)
    with raw.open() as sock:
        sock.sendall(raw.head('GET', BOX + '/large'))
        time.sleep(4)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(1 << 20):
                got += len(data)
        assert got < size
    assert raw.status('DELETE', BOX + '/large') == 204
