"""The metadata proxy, router advertisements, leases, and the agent's asking and telling."""
import socket
import threading

import pytest

from kodiak.common import errors
from kodiak.network.agent import advertise, dhcp, leases, metadata, root, state
from kodiak.network.agent.main import Agent, Incomplete


def feed(*pieces, close=True):
    """The guest's end sends pieces; the other end is returned."""
    ours, theirs = socket.socketpair()

    def send():
        with theirs:
            for piece in pieces:
                theirs.sendall(piece)
            if not close:
                theirs.recv(1)

    threading.Thread(target=send, daemon=True).start()
    return ours


def test_a_request_is_read_in_pieces():
    with feed(b'POST /a/b?c=d HT', b'TP/1.1\r\nHost: x\r\nContent-Le', b'ngth: 4\r\n\r\nab', b'cd') as connection:
        method, path, headers, body = metadata.read_request(connection)
    assert (method, path, headers['host'], body) == ('POST', '/a/b?c=d', 'x', b'abcd')


def test_an_absolute_url_is_taken_by_its_path():
    with feed(b'GET http://169.254.169.254/x HTTP/1.1\r\n\r\n') as connection:
        assert metadata.read_request(connection)[1] == '/x'


@pytest.mark.parametrize(('text', 'status'), [
    (b'nonsense\r\n\r\n', 400), (b'GET / SPDY/9\r\n\r\n', 400), (b'TRACE / HTTP/1.1\r\n\r\n', 405),
    (b'GET relative HTTP/1.1\r\n\r\n', 400), (b'GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n', 400),
    (b'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n', 411),
    (b'POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n', 413), (b'GET /' + b'a' * 20000 + b' HTTP/1.1\r\n\r\n', 431),
    (b'GET / HTTP/1.1\r\n' + b'A: b\r\n' * 300 + b'\r\n', 400), (b'GET /\xff HTTP/1.1\r\n\r\n', 400)])
def test_bad_requests_are_refused(text, status):
    with feed(text) as connection, pytest.raises(metadata.Refuse) as refused:
        metadata.read_request(connection)
    assert refused.value.status == status


def test_a_slow_request_ends():
    times = iter([0.0, 1.0, 99.0, 99.0])
    with feed(b'GET / HT', close=False) as connection, pytest.raises(metadata.Refuse) as refused:
        metadata.read_request(connection, clock=lambda: next(times))
    assert refused.value.status == 408


def _wanted():
    made = state.Wanted()
    member = state.Member('p', 'n', 'm', fixed_ips=(state.FixedIP('s', '10.0.0.5'),), device_id='vm', project_id='project',
                          device_owner='compute:nova')
    made.members = {'p': member, 'q': state.Member('q', 'n', 'm', fixed_ips=(state.FixedIP('s', '10.0.0.1'),),
                                                   device_id='r', device_owner='network:router_interface')}
    made.routers = {'r': state.Router('r', legs=(state.RouterLeg('q', 'n', 'm'),))}
    return made


def test_only_guests_may_ask():
    assert metadata.index(_wanted(), ('routers', 'r')) == {'10.0.0.5': ('vm', 'project')}
    assert metadata.index(_wanted(), ('networks', 'n')) == {'10.0.0.5': ('vm', 'project')}
    assert metadata.index(_wanted(), ('networks', 'other')) == {}


class Upstream:
    """Answers one request and keeps it."""

    def __init__(self, answer):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.url = f'http://127.0.0.1:{self.listener.getsockname()[1]}/base'
        self.request = b''
        self.answer = answer
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection:
            while b'\r\n\r\n' not in self.request:
                self.request += connection.recv(65536)
            connection.sendall(self.answer)


def ask(proxy, request, space='space', address='10.0.0.5'):
    ours, theirs = socket.socketpair()
    theirs.sendall(request)
    proxy._take(space, ours, address)
    with theirs:
        theirs.settimeout(10)
        data = b''
        try:
            while piece := theirs.recv(65536):
                data += piece
        except ConnectionResetError:
            pass
    return data


def test_a_request_is_signed_and_its_own_claims_are_dropped():
    upstream = Upstream(b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Secret: s\r\nContent-Length: 2\r\n\r\nhi')
    proxy = metadata.Proxy(upstream.url, 'sesame', None)
    proxy._guests['space'] = {'10.0.0.5': ('vm', 'project')}
    answer = ask(proxy, b'GET /latest HTTP/1.1\r\nX-Instance-ID: other\r\nX-Forwarded-For: 1.2.3.4\r\n'
                        b'X-Instance-ID-Signature: forged\r\nX-Tenant-ID: mine\r\nCookie: c\r\nAccept: text/plain\r\n\r\n')
    assert answer.startswith(b'HTTP/1.1 200 OK\r\n')
    assert answer.endswith(b'hi')
    assert b'x-secret' not in answer.lower()
    sent = upstream.request.decode()
    assert sent.startswith('GET /base/latest HTTP/1.1\r\n')
    assert 'X-Instance-ID: vm\r\n' in sent
    assert 'X-Tenant-ID: project\r\n' in sent
    assert 'X-Forwarded-For: 10.0.0.5\r\n' in sent
    assert f'X-Instance-ID-Signature: {metadata.signature("sesame", "vm")}\r\n' in sent
    assert not any(word in sent for word in ('other', 'forged', '1.2.3.4', 'Cookie', 'mine'))


def test_a_stranger_and_an_absent_service():
    proxy = metadata.Proxy('http://127.0.0.1:9', 'sesame', None)
    assert ask(proxy, b'GET / HTTP/1.1\r\n\r\n').startswith(b'HTTP/1.1 404 ')
    proxy._guests['space'] = {'10.0.0.5': ('vm', 'project')}
    assert ask(proxy, b'GET / HTTP/1.1\r\n\r\n').startswith(b'HTTP/1.1 503 ')


def test_one_guest_can_not_take_all_places():
    proxy = metadata.Proxy('http://127.0.0.1:9', 'sesame', None)
    proxy._busy['space', '10.0.0.5'] = metadata.PER_GUEST
    assert ask(proxy, b'GET / HTTP/1.1\r\n\r\n') == b''


def test_an_advertisement():
    subnet = state.Subnet('s', 'fd00:1::/64', 6, ipv6_ra_mode='slaac', dns_nameservers=('fd00:1::53', '9.9.9.9'))
    text = advertise.message('fa:16:3e:00:00:01', 1450, [subnet])
    assert text[0] == 134
    assert text[5] == 0
    assert bytes.fromhex('0101fa163e000001') in text
    assert bytes.fromhex('05010000000005aa') in text
    prefix = text.index(b'\x03\x04\x40')
    assert text[prefix + 3] == 0xc0
    assert text[-16:] == socket.inet_pton(socket.AF_INET6, 'fd00:1::53')
    stateful = advertise.message('fa:16:3e:00:00:01', 1450, [state.Subnet('s', 'fd00:1::/64', 6, ipv6_ra_mode='dhcpv6-stateful')])
    assert stateful[5] == 0xc0
    assert stateful[stateful.index(b'\x03\x04\x40') + 3] == 0x80


def _service(folder, **mac_of):
    return dhcp.Service('n', str(folder), 'body\n', dict.fromkeys(dhcp.FILES, ''),
                        {key.replace('_', '.')[1:]: mac for key, mac in mac_of.items()})


def test_a_lease_ends_with_its_holder(tmp_path):
    folder = leases.Folder(str(tmp_path))
    (tmp_path / 'leases').write_text('duid 00:01\n9 aa:aa:aa:aa:aa:aa 10.0.0.5 h1 *\n9 bb:bb:bb:bb:bb:bb 10.0.0.6 h2 *\n')
    first = _service(tmp_path, _10_0_0_5='aa:aa:aa:aa:aa:aa', _10_0_0_6='bb:bb:bb:bb:bb:bb')
    folder.write(first)
    folder.note_holders(first)
    # The port is deleted, and only later its address is given out again.
    gone = _service(tmp_path, _10_0_0_6='bb:bb:bb:bb:bb:bb')
    folder.note_holders(gone)
    assert folder.stale(gone) == set()
    again = _service(tmp_path, _10_0_0_5='cc:cc:cc:cc:cc:cc', _10_0_0_6='bb:bb:bb:bb:bb:bb')
    assert folder.stale(again) == {'10.0.0.5'}
    folder.prune(again)
    assert (tmp_path / 'leases').read_text() == 'duid 00:01\n9 bb:bb:bb:bb:bb:bb 10.0.0.6 h2 *\n'
    folder.note_applied('x')
    assert folder.applied() == 'x'
    folder.write(again)
    assert folder.applied() == ''
    folder.remove()
    assert not tmp_path.exists()


def test_another_user_can_reach_the_files(tmp_path):
    closed = tmp_path / 'closed'
    closed.mkdir(mode=0o700)
    leases.Folder(str(closed / 'dhcp' / 'n')).write(_service(closed / 'dhcp' / 'n'))
    assert closed.stat().st_mode & 0o777 == 0o711
    assert (closed / 'dhcp' / 'n').stat().st_mode & 0o777 == 0o755
    assert (closed / 'dhcp' / 'n' / 'hosts').stat().st_mode & 0o777 == 0o644


class Conductor:
    def __init__(self):
        self.answer = state.dump(state.Answer(1, True, {'networks': [state.dump(state.Network('n', 5))]}))
        self.away, self.reports, self.asked = False, [], []

    def call(self, name, context, **args):
        if self.away:
            raise errors.Unavailable()
        if name == 'report':
            self.reports += args['results']
            return None
        self.asked.append(args['since'])
        if args['since'] == self.answer['generation']:
            return state.dump(state.Answer(args['since']))
        return self.answer


class Driver:
    def __init__(self):
        self.error, self.audits, self.ok = None, [], True

    def apply(self, wanted, audit=False):
        self.audits.append(audit)
        return {('networks', key): self.error for key in wanted.networks}

    def healthy(self):
        return self.ok

    def stop(self):
        pass


@pytest.fixture
def agent():
    facts = state.AgentFacts('agent', '1', 'now', 'linuxbridge', None)
    return Agent('host', facts, Conductor(), Driver())


def turn(agent, since=1):
    found = agent.look(since)
    if found is not None:
        agent.bring('host', found.items['host'])
    return found


def test_it_asks_applies_and_reports_once(agent):
    assert turn(agent, None) is not None
    assert agent.client.reports == [{'kind': 'networks', 'id': 'n', 'generation': 5, 'error': None}]
    assert turn(agent) is None
    assert turn(agent, None) is not None            # an audit
    assert agent.driver.audits == [True, True]
    assert len(agent.client.reports) == 1
    assert agent.client.asked == [None, 1, 1]


def test_what_fails_is_reported_and_tried_again(agent):
    agent.driver.error = 'no luck'
    with pytest.raises(Incomplete, match='no luck'):
        turn(agent, None)
    assert agent.client.reports[-1]['error'] == 'no luck'
    agent.driver.error = None
    agent.bring('host', 2)
    assert agent.client.reports[-1]['error'] is None


def test_a_conductor_that_is_away_is_told_later(agent):
    with pytest.raises(errors.Unavailable):
        agent.client.away = True
        turn(agent, None)
    assert agent.driver.audits == []                # it does not know what should be: it touches nothing
    agent.client.away = False
    found = agent.look(None)
    agent.client.away = True
    agent.bring('host', found.items['host'])
    assert agent.client.reports == []
    assert turn(agent, None) is not None            # drift is looked for without the conductor too
    agent.client.away = False
    turn(agent)
    assert [one['id'] for one in agent.client.reports] == ['n']


def test_a_process_that_ended_is_missed_at_the_next_look(agent):
    turn(agent, None)
    agent.driver.ok = False
    assert turn(agent) is not None
    assert agent.driver.audits == [True, True]


@pytest.mark.parametrize('operation', [
    ['link.delete', '', 'eth0'], ['link.add', '', 'docker0', {'kind': 'bridge'}], ['namespace.delete', 'production'],
    ['sysctl', '', 'kernel/core_pattern', '|/x'], ['sysctl', '', 'net/ipv4/../../kernel/core_pattern', 'x'],
    ['nft', '', 'flush ruleset\n'], ['nft', '', 'add table inet kodiak-router; flush ruleset\n'],
    ['nft', '', 'add rule inet filter x accept\n'], ['nft', '', 'include "/etc/shadow"\n'],
    ['address.add', '', 'eth0', '10.0.0.1/24'], ['link.set', '../../x', 'tapaaaaaaaa-aa', {}],
    ['dnsmasq.start', '', '/f', 'pid-file=/f/dnsmasq-0123456789abcdef.pid\ndhcp-script=/bin/sh\n'],
    ['dnsmasq.start', '', '/f', 'pid-file=/f/dnsmasq-0123456789abcdef.pid\nuser=root\n'],
    ['dnsmasq.start', '', '/f', 'pid-file=/etc/passwd\n'], ['no such thing']])
def test_root_does_nothing_beyond_what_is_the_agents(operation):
    root.context.set_client_mode(False)
    try:
        problem, = root.perform([operation])
    finally:
        root.context.set_client_mode(True)
    assert problem
    assert any(word in problem for word in ('no interface', 'no namespace', 'no setting', 'no table', 'no place', 'no such',
                                            'does not begin'))
