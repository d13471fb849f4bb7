"""Web servers and names made to lead a web-download, a location or a copy from another cloud to what only this host can reach.

The address 127.0.0.1 stands for the public network, 127.0.0.2 for the private one, which must never hear of us.
"""
import http.server
import ipaddress
import os
import re
import socket
import threading
import time

import pytest
import sqlalchemy as sa

from kodiak.common import testing
from kodiak.image import models, web

SECRET = b'the secret of this host'
PATCH = 'application/openstack-images-v2.1-json-patch'


class Handler(http.server.BaseHTTPRequestHandler):
    """``files``: path to what is sent, as bytes with the status line, or a function of the handler."""

    def do_GET(self):
        self.server.asked.append(self.path)
        found = self.server.files.get(self.path, b'HTTP/1.1 404 no\r\n\r\n')
        try:
            if callable(found):
                found(self)
            else:
                self.wfile.write(found)
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *args):
        pass


def serve(address, port=0):
    server = http.server.ThreadingHTTPServer((address, port), Handler)
    server.files, server.asked = {}, []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def public():
    server = serve('127.0.0.1')
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def private(public):
    server = serve('127.0.0.2', public.server_port)
    server.files = dict.fromkeys(('/', '/x'), b'HTTP/1.1 200 ok\r\n\r\n' + SECRET)
    yield server
    server.shutdown()
    server.server_close()
    assert server.asked == []


@pytest.fixture
def cloud(make_cloud, public, private, monkeypatch):
    made = make_cloud(imports__web_networks=['127.0.0.1/32'], imports__web_ports=[str(public.server_port)],
                      stores__enabled=['file:file', 'web:http'], stores__show_locations=True, limits__image_size=4 << 20)
    monkeypatch.setattr(web, 'READ_SECONDS', 0.3)
    return made


@pytest.fixture
def names(monkeypatch):
    """What names mean: a list of lists of addresses, one for each time that somebody asks."""
    found, real = {}, socket.getaddrinfo

    def resolve(host, port, *more, **options):
        if host not in found:
            return real(host, port, *more, **options)
        answers = found[host]
        one = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, port)) for address in one]
    monkeypatch.setattr('socket.getaddrinfo', resolve)
    return found


def redirect(target):
    return b'HTTP/1.1 302 moved\r\nLocation: ' + target.encode() + b'\r\nContent-Length: 0\r\n\r\n'


def fetch(cloud, uri):
    """Have a URL imported; the reason why it was not."""
    member = cloud.client(testing.MEMBER)
    image = member.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare'}).expect(201).json
    path = '/v2/images/' + image['id']
    answer = member.post(path + '/import', {'method': {'name': 'web-download', 'uri': uri}})
    assert answer.status in (400, 202)
    worker, later = cloud.runtime.background[1], 0
    # What may pass by itself is tried again, some time later.
    while member.get(path).json['status'] == 'importing' and later < 3600:
        worker.clock = lambda ahead=later: time.time() + ahead
        worker.run_due()
        later += 60
    cloud.runtime.background[0].look()
    shown = member.get(path).expect(200).json
    assert shown['status'] == 'queued' and shown['size'] is None
    store = cloud.runtime.extra['stores'].default.path
    assert [name for _, _, files in os.walk(store) for name in files] == []
    with cloud.runtime.db.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(models.blobs)).scalar() == 0
    return answer.json['message'] if answer.status == 400 else member.get(path + '/tasks').json['tasks'][0]['message']


#: Ways to write an address that is not public; {port} is the one that both servers have.
INWARD = [
    'http://127.0.0.2:{port}/x', 'http://2130706434:{port}/x', 'http://0x7f000002:{port}/x', 'http://0x7f.0.0.2:{port}/x',
    'http://0177.0.0.2:{port}/x', 'http://127.2:{port}/x', 'http://[::ffff:127.0.0.2]:{port}/x', 'http://[::ffff:7f00:2]:{port}/x',
    'http://[::127.0.0.2]:{port}/x', 'http://[64:ff9b::7f00:2]:{port}/x', 'http://[2002:7f00:2::]:{port}/x',
    'http://[2001:0:7f00:2::80ff:fffd]:{port}/x', 'http://0.0.0.0:{port}/x',
    'http://[::]:{port}/x', 'http://[::1]:{port}/x', 'http://169.254.169.254:{port}/x', 'http://[fd00::1]:{port}/x',
    'http://[fe80::1]:{port}/x', 'http://10.0.0.1:{port}/x', 'http://192.168.0.1:{port}/x', 'http://172.16.0.1:{port}/x',
    'http://100.64.0.1:{port}/x', 'http://198.18.0.1:{port}/x', 'http://255.255.255.255:{port}/x', 'http://224.0.0.1:{port}/x',
    'http://127.0.0.2%00.example:{port}/x', 'http://127.0.0.1:{port}@127.0.0.2:{port}/x', 'http://127.0.0.2:{port}\\@example.com/x',
    '//127.0.0.2:{port}/x', 'https://127.0.0.2:{port}/x', 'file:///etc/passwd', 'gopher://127.0.0.2:{port}/x', 'ftp://127.0.0.2/x',
    'http://127.0.0.1:22/x', 'http://127.0.0.1:{port}:80/x',
]


def test_redirects_inward_are_not_followed(cloud, public):
    for number, target in enumerate(INWARD):
        public.files[f'/{number}'] = redirect(target.format(port=public.server_port))
        said = fetch(cloud, f'http://127.0.0.1:{public.server_port}/{number}')
        assert said and SECRET.decode() not in said, target
        assert public.asked == [f'/{number}'], target
        public.asked.clear()


def test_nor_is_one_asked_for(cloud, public):
    for target in INWARD:
        assert fetch(cloud, target.format(port=public.server_port)), target
        assert public.asked == [], target


def test_a_chain_of_redirects_that_ends_inward(cloud, public):
    for number in range(4):
        public.files[f'/{number}'] = redirect(f'/{number + 1}')
    public.files['/4'] = redirect(f'http://127.0.0.2:{public.server_port}/x')
    assert 'not a public one' in fetch(cloud, f'http://127.0.0.1:{public.server_port}/0')
    assert public.asked == ['/0', '/1', '/2', '/3', '/4']


def test_a_name_with_a_private_address_among_others(cloud, public, names):
    names['both.example'] = [['127.0.0.1', '127.0.0.2']]
    assert 'not a public one' in fetch(cloud, f'http://both.example:{public.server_port}/x')
    assert public.asked == []


@pytest.mark.parametrize('first', [['127.0.0.2'], ['127.0.0.1']])
def test_a_name_that_is_rebound(cloud, public, names, first):
    """Whatever a name means the next time: what was checked is what is connected to."""
    names['rebind.example'] = [first, ['127.0.0.2']]
    public.files['/x'] = redirect(f'http://rebind.example:{public.server_port}/again')
    said = fetch(cloud, f'http://rebind.example:{public.server_port}/x')
    assert 'not a public one' in said
    assert public.asked == (['/x'] if first == ['127.0.0.1'] else [])


def test_a_location_that_is_rebound(cloud, public, names):
    """A location is read long after it was looked at."""
    body = b'HTTP/1.1 200 ok\r\nContent-Length: 4\r\n\r\ndata'
    public.files['/x'] = body
    names['later.example'] = [['127.0.0.1'], ['127.0.0.1'], ['127.0.0.2']]
    member = cloud.client(testing.MEMBER)
    image = member.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare'}).json
    url = f'http://later.example:{public.server_port}/x'
    member.patch('/v2/images/' + image['id'], [{'op': 'add', 'path': '/locations/-', 'value': {'url': url, 'metadata': {}}}],
                 headers={'Content-Type': PATCH}).expect(200)
    assert member.get(image['file']).data == b'data'
    assert member.get(image['file']).status == 503


@pytest.mark.parametrize('url', ['http://127.0.0.2:{port}/x', 'http://inward.example:{port}/x', 'http://127.0.0.1:{port}/go',
                                 'file:///etc/passwd', 'cinder://volumes/x', 'swift+config://file/x'])
def test_locations_inward(cloud, public, names, url):
    names['inward.example'] = [['127.0.0.2']]
    public.files['/go'] = redirect(f'http://127.0.0.2:{public.server_port}/x')
    member = cloud.client(testing.MEMBER)
    image = member.post('/v2/images', {'disk_format': 'raw', 'container_format': 'bare'}).json
    url = url.format(port=public.server_port)
    member.patch('/v2/images/' + image['id'], [{'op': 'add', 'path': '/locations/-', 'value': {'url': url, 'metadata': {}}}],
                 headers={'Content-Type': PATCH}).expect(400)
    member.post(f"/v2/images/{image['id']}/locations", {'url': url}).expect(400)
    assert member.get('/v2/images/' + image['id']).json['status'] == 'queued'


def endless(handler):
    handler.wfile.write(b'HTTP/1.1 200 ok\r\n\r\n')
    while True:
        handler.wfile.write(bytes(65536))


def endless_headers(handler):
    handler.wfile.write(b'HTTP/1.1 200 ok\r\n')
    while True:
        handler.wfile.write(b'X: ' + b'x' * 1000 + b'\r\n')


def endless_line(handler):
    while True:
        handler.wfile.write(b'H' * 65536)


def silent(handler):
    handler.wfile.write(b'HTTP/1.1 200 ok\r\nContent-Length: 100\r\n\r\nx')
    handler.rfile.read(1)


BAD = [
    (endless, 'larger than'), (endless_headers, 'cannot be reached'), (endless_line, 'cannot be reached'), (silent, 'broke off'),
    (b'HTTP/1.1 200 ok\r\nContent-Length: 9999999999999999999999\r\n\r\nx', 'impossible length'),
    (b'HTTP/1.1 200 ok\r\nContent-Length: 5000000\r\n\r\nx', 'allowed'),
    (b'HTTP/1.1 200 ok\r\nContent-Length: 100\r\n\r\nx', 'broke off|announced'),
    (b'HTTP/1.1 200 ok\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx', 'broke off'),
    (b'HTTP/1.1 200 ok\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx', 'broke off'),
    (b'HTTP/1.1 200 ok\r\nContent-Encoding: gzip\r\n\r\nx', 'encoding'), (b'nonsense\r\n\r\n', 'cannot be reached'),
    (b'', 'cannot be reached'),
    (b'HTTP/1.1 302 x\r\nLocation: http://[\r\n\r\n', 'invalid URI'), (b'HTTP/1.1 302 x\r\n\r\n', 'answered 302'),
    (b'HTTP/1.1 206 x\r\nContent-Length: 1\r\n\r\nx', 'answered 206'), (b'HTTP/1.1 500 x\r\n\r\n', 'answered 500'),
]


def test_servers_that_behave_badly(cloud, public):
    for answer, word in BAD:
        public.files['/x'] = answer
        said = fetch(cloud, f'http://127.0.0.1:{public.server_port}/x')
        assert re.search(word, said), (answer, said)


def test_every_address_that_is_not_public_is_known(cloud):
    guard = web.Guard(cloud.runtime.conf.imports)
    for text in ('0.1.2.3', '10.1.1.1', '100.127.255.255', '127.255.255.255', '169.254.0.1', '172.31.255.255', '192.0.0.8',
                 '192.0.2.1', '192.168.255.255', '198.19.255.255', '198.51.100.1', '203.0.113.1', '224.0.0.1', '240.0.0.1',
                 '255.255.255.255', '::', '::1', '::ffff:10.0.0.1', '64:ff9b::a00:1', '64:ff9b:1::1', '100::1', '2001:db8::1',
                 '2002:a00:1::', '2001::f5ff:fffe', 'fc00::1', 'fdff::1', 'fe80::1', 'fec0::1', 'ff02::1'):
        with pytest.raises(web.Refused):
            guard.check_address(ipaddress.ip_address(text), 'x')
    for text in ('93.184.216.34', '1.1.1.1', '2606:2800:220:1::1', '64:ff9b::101:101', '127.0.0.1'):
        guard.check_address(ipaddress.ip_address(text), 'x')
