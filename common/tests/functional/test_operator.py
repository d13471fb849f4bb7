"""kodiak status, trace and doctor over an installation made by hand."""
import datetime
import http.server
import os
import socketserver
import ssl
import threading
import time

import orjson
import pytest

from kodiak.common import context, db, errors, heartbeat, oslobus, saga
from kodiak.common.operator import doctor, installation, main, status, trace
from kodiak.common.runtime import Runtime

SERVER = '11111111-2222-4333-8444-555555555555'
ASKED = 'req-aaaaaaaa-0000-4000-8000-000000000001'
INNER = 'req-bbbbbbbb-0000-4000-8000-000000000002'


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args):
        """Be quiet."""


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class World:
    """/etc/kodiak with one service ``trial``, its database, API, agent and events."""

    def __init__(self, folder):
        self.folder, self.servers = folder, []
        self.etc, self.run, self.state = folder / 'etc', folder / 'run', folder / 'state'
        for path in (self.etc, self.run, self.state / 'trial' / 'events'):
            path.mkdir(parents=True)
        self.api = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.serve(self.api, b'OK\n')
        self.conf = self.etc / 'trial.conf'
        self.configure()
        metadata = db.metadata()
        saga.tables(metadata)
        heartbeat.tables(metadata)
        self.db = db.Database(f'sqlite:///{self.state}/trial/trial.sqlite')
        metadata.create_all(self.db.engine)

    def configure(self, more=''):
        self.conf.write_text(f'[DEFAULT]\nhost = here\nrun_path = {self.run}\nstate_path = {self.state}\n{more}\n'
                             f'[api]\nbind_host = 127.0.0.1\nbind_port = {self.api.server_address[1]}\n')
        self.conf.chmod(0o640)

    def serve(self, server, body):
        server.body = body
        self.servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def worker(self, binary, **answer):
        self.serve(UnixServer(str(self.run / (binary + '.status')), Handler), orjson.dumps(
            {'binary': binary, 'host': 'here', 'version': '1.2', 'faults': [], **answer}))

    def beat(self, binary, host='here', ago=0, **values):
        now = db.utcnow() - datetime.timedelta(seconds=ago)
        with self.db.write() as connection:
            heartbeat.report(connection, host, binary, now=now, started_at=now - datetime.timedelta(hours=2), **values)

    def note(self, binary, *events):
        with open(self.state / 'trial' / 'events' / (binary + '.jsonl'), 'ab') as file:
            for event in events:
                file.write(orjson.dumps({'binary': binary, 'request_id': None, 'global_request_id': None, **event}) + b'\n')

    def services(self):
        return installation.services(str(self.etc))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    for server in made.servers:
        server.shutdown()
        server.server_close()
    made.db.close()


def states(lines):
    return {(line['binary'], line['host']): line['state'] for line in lines}


def test_status_knows_who_is_up_and_since_when(world, capsys):
    world.beat('kodiak-trial-api')
    world.beat('kodiak-trial-conductor', version='1.2')
    world.beat('kodiak-trial-agent', host='there', ago=3600)
    world.worker('kodiak-trial-agent')
    lines = status.collect(world.services())
    assert states(lines) == {('kodiak-trial-api', 'here'): 'up', ('kodiak-trial-conductor', 'here'): 'up',
                             ('kodiak-trial-agent', 'here'): 'up', ('kodiak-trial-agent', 'there'): 'down'}
    down = next(line for line in lines if line['host'] == 'there')
    assert abs((db.utcnow() - down['since']).total_seconds() - 3600) < 60
    assert main.main(['--config-dir', str(world.etc), 'status']) == 1
    text = capsys.readouterr().out
    assert 'kodiak-trial-agent' in text
    assert ' 2h ' in text
    assert ' 1h' in text


def test_status_believes_an_api_that_does_not_answer_more_than_its_heartbeat(world):
    world.beat('kodiak-trial-api')
    world.api.shutdown()
    world.api.server_close()
    world.servers.remove(world.api)
    line, = status.collect(world.services())
    assert line['state'] == 'down'
    assert 'nothing answers on port' in line['note']


def test_status_tells_of_a_worker_without_its_broker_and_of_a_dead_socket(world):
    world.worker('kodiak-trial-conductor', faults=['The message broker does not answer.'])
    world.beat('kodiak-trial-conductor')
    (world.run / 'kodiak-trial-agent.status').touch()       # no socket: left alone
    import socket
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(world.run / 'kodiak-trial-other.status'))
    dead.close()
    lines = {line['binary']: line for line in status.collect(world.services())}
    assert lines['kodiak-trial-conductor']['note'] == 'The message broker does not answer.'
    assert lines['kodiak-trial-other']['state'] == 'down'
    assert 'kodiak-trial-agent' not in lines


def boot(world):
    """A request that failed at its second step, as the processes would have noted it."""
    now = time.time()

    def fail(work):
        raise errors.Conflict('no host is left')
    kind = saga.Saga('boot', [saga.Step('claim', lambda work: None, lambda work: None), saga.Step('spawn', fail)])
    with world.db.write() as connection:
        saga.start(connection, kind, SERVER, {}, context.Context(request_id=ASKED, user_id='u'))
    saga.Worker(Runtime('trial', None, db=world.db), [kind]).run_due()
    world.note('kodiak-trial-api', {'at': now, 'kind': 'http', 'request_id': ASKED, 'method': 'POST', 'path': '/v2/servers',
                                    'code': '202', 'ms': 12.0},
               {'at': now + 900, 'kind': 'http', 'request_id': 'req-other', 'method': 'POST', 'path': '/v2/x', 'code': '201',
                'ms': 1})
    world.note('kodiak-network-api', {'at': now + 0.1, 'kind': 'http', 'request_id': INNER, 'global_request_id': ASKED,
                                      'method': 'POST', 'path': '/v2.0/ports', 'code': '409', 'ms': 20.0,
                                      'fault': 'No address is left.'})
    world.note('kodiak-trial-agent',
               {'at': now + 0.2, 'kind': 'reconcile', 'name': 'agent', 'key': SERVER, 'outcome': 'failed', 'ms': 5.0,
                'error': 'no'},
               {'at': now + 7000, 'kind': 'reconcile', 'name': 'agent', 'key': SERVER, 'outcome': 'done', 'ms': 5.0})
    world.note('kodiak-trial-conductor',
               {'at': now + 0.3, 'kind': 'rpc', 'request_id': ASKED, 'side': 'call', 'name': 'agent.look', 'to': 'agent on here',
                'outcome': 'ok', 'ms': 2.0},
               {'at': now + 0.4, 'kind': 'log', 'request_id': ASKED, 'level': 'WARNING', 'logger': 'kodiak',
                'message': 'it unwinds'})
    with open(world.state / 'trial' / 'events' / 'kodiak-trial-conductor.jsonl', 'ab') as file:
        file.write(b'{"cut off ' + ASKED.encode())


@pytest.mark.parametrize('known', [ASKED, INNER])
def test_trace_joins_everything_by_the_outer_or_an_inner_id(world, known, capsys):
    boot(world)
    entries, problems = trace.collect(world.services(), known)
    assert problems == []
    assert [entry['what'] for entry in entries].count('HTTP') == 2
    assert {entry['what'] for entry in entries} == {'HTTP', 'SAGA', 'STEP', 'RPC', 'RECONCILE', 'LOG'}
    assert entries[0]['text'].startswith('POST /v2/servers 202')
    steps = [entry['text'] for entry in entries if entry['what'] == 'STEP']
    assert steps[0].startswith('boot: do claim done')
    assert any('do spawn failed' in text and 'Conflict: no host is left' in text for text in steps)
    assert sum(entry['what'] == 'RECONCILE' for entry in entries) == 1
    assert main.main(['--config-dir', str(world.etc), 'trace', known]) == 0
    text = capsys.readouterr().out
    assert 'boot of ' + SERVER + ' started; now failed' in text
    assert '! kodiak-network-api' in text and f'POST /v2.0/ports 409, 20 ms [{INNER}]: No address is left.' in text


def test_trace_takes_in_what_other_hosts_know(world, capsys, tmp_path):
    boot(world)
    main.main(['--config-dir', str(world.etc), '--json', 'trace', ASKED])
    here = orjson.loads(capsys.readouterr().out)
    other = {'at': here[0]['at'] - 1, 'where': 'kodiak-other-api', 'what': 'HTTP', 'text': 'POST /elsewhere', 'failed': False}
    (tmp_path / 'other.json').write_bytes(orjson.dumps([*here, other]))
    assert main.main(['--config-dir', str(world.etc), 'trace', ASKED, str(tmp_path / 'other.json')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(here) + 2 and 'kodiak-other-api' in lines[1]
    assert main.main(['--config-dir', str(world.etc), 'trace', ASKED, str(tmp_path / 'none.json')]) == 2


def test_trace_of_what_nobody_knows(world, capsys):
    assert main.main(['--config-dir', str(world.etc), 'trace', 'req-unknown']) == 1
    assert 'Nothing is known of req-unknown' in capsys.readouterr().out


def faults(world):
    return {finding.subject: (finding.what, finding.remedy) for finding in doctor.examine(world.services())
            if finding.level == 'fault'}


def test_doctor_finds_nothing_where_all_is_well(world, capsys):
    world.beat('kodiak-trial-conductor')
    assert faults(world) == {}
    assert main.main(['--config-dir', str(world.etc), 'doctor']) == 0
    assert capsys.readouterr().out.strip().endswith('0 faults.')


def test_doctor_says_what_to_do(world, capsys):
    world.configure('transport_url = rabbit://kodiak:x@127.0.0.1:1/')
    world.conf.chmod(0o644)
    keys = world.state / 'trial' / 'keys'
    keys.mkdir()
    (keys / '1').touch(mode=0o644)
    (keys / '1.pub').touch(mode=0o644)
    world.beat('kodiak-trial-conductor', ago=500)
    world.beat('kodiak-trial-agent', ago=-60)
    world.api.shutdown()
    world.api.server_close()
    world.servers.remove(world.api)
    os.rmdir(world.run)
    found = faults(world)
    port = world.services()[0].servers()['kodiak-trial-api'][1]
    assert set(found) == {str(world.conf), str(keys / '1'), 'broker 127.0.0.1:1', f'kodiak-trial-api on port {port}', 'clock',
                          'kodiak-trial-conductor on here', str(world.run)}
    assert found[str(world.conf)][1].endswith(f'chmod 0640 {world.conf}')
    assert found[str(keys / '1')][1] == f'chmod 0600 {keys / "1"}'
    assert 'Start RabbitMQ' in found['broker 127.0.0.1:1'][1]
    assert 'no sign of life' in found['kodiak-trial-conductor on here'][0]
    assert main.main(['--config-dir', str(world.etc), '--json', 'doctor']) == 1
    assert any(finding['level'] == 'fault' for finding in orjson.loads(capsys.readouterr().out))


def test_doctor_reads_on_past_a_broken_file_and_a_missing_database(world):
    (world.etc / 'broken.conf').write_text('no section\n')
    (world.etc / 'broken.conf').chmod(0o640)
    world.db.close()
    for name in os.listdir(world.state / 'trial'):
        if name.startswith('trial.sqlite'):
            os.unlink(world.state / 'trial' / name)
    found = faults(world)
    assert 'it cannot be read' in found[str(world.etc / 'broken.conf')][0]
    assert 'does not exist' in found['database of trial'][0]
    assert not (world.state / 'trial' / 'trial.sqlite').exists()
    lines = status.collect(world.services())
    assert any('its database' in line['note'] for line in lines)


def test_a_host_with_an_agent_alone_is_asked_for_no_database_and_no_api(world):
    world.configure('[agent]')
    world.db.close()
    for path in (world.state / 'trial').glob('trial.sqlite*'):
        path.unlink()
    assert states(status.collect(world.services())) == {('kodiak-trial-agent', 'here'): 'down'}
    world.worker('kodiak-trial-agent')
    assert states(status.collect(world.services())) == {('kodiak-trial-agent', 'here'): 'up'}
    assert faults(world) == {}


def test_a_host_with_a_conductor_alone_is_asked_for_no_api(world):
    world.worker('kodiak-trial-conductor')
    world.beat('kodiak-trial-conductor')
    assert states(status.collect(world.services())) == {('kodiak-trial-conductor', 'here'): 'up'}
    (world.run / 'kodiak-trial-api.metrics').mkdir()
    assert states(status.collect(world.services()))['kodiak-trial-api', 'here'] == 'up'


def test_a_dead_process_here_is_not_taken_for_one_elsewhere(world):
    world.beat('kodiak-trial-conductor', host='before')
    world.beat('kodiak-trial-conductor')
    world.worker('kodiak-trial-conductor')
    server = world.servers.pop()
    server.shutdown()
    server.server_close()
    found = states(status.collect(world.services()))
    assert found['kodiak-trial-conductor', 'before'] == 'up'
    assert found['kodiak-trial-conductor', 'here'] == 'down'


def test_an_api_of_another_host_that_fell_silent_is_a_fault(world):
    world.beat('kodiak-trial-api', host='elsewhere', ago=500)
    assert set(faults(world)) == {'kodiak-trial-api on elsewhere'}


def test_a_host_that_is_gone_is_forgotten_with_all_but_its_agents(world, capsys):
    world.beat('kodiak-trial-api', host='gone', ago=500)
    world.beat('kodiak-trial-agent', host='gone', ago=500)
    world.beat('kodiak-trial-conductor', host='gone')
    world.beat('kodiak-trial-conductor', ago=500)
    assert main.main(['--config-dir', str(world.etc), 'forget', 'gone']) == 1
    said = capsys.readouterr().out
    assert 'kodiak-trial-api on gone is forgotten' in said
    assert 'kodiak-trial-conductor on gone is up' in said
    assert 'kodiak-trial-agent on gone belongs to an agent' in said
    left = states(status.collect(world.services()))
    assert {key for key in left if key[1] == 'gone'} == {('kodiak-trial-agent', 'gone'), ('kodiak-trial-conductor', 'gone')}
    assert ('kodiak-trial-conductor', 'here') in left
    assert main.main(['--config-dir', str(world.etc), 'forget', 'nowhere']) == 1


def test_a_file_of_another_program_is_no_service(world):
    (world.etc / 'realms.conf').write_text('[realm1]\nkey = secret\n')
    assert [service.name for service in world.services()] == ['trial']


def test_what_the_broker_is_reached_by(world):
    def tls(more):
        world.configure('transport_url = ' + more)
        return oslobus.tls(world.services()[0].conf)
    plain = 'rabbit://kodiak:x@127.0.0.1:1/'
    assert tls(plain) is False
    assert tls(plain + '\n[oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /ca.pem') == {
        'ca_certs': '/ca.pem', 'cert_reqs': ssl.CERT_REQUIRED}
    assert tls(plain + '?ssl=1') == {'cert_reqs': ssl.CERT_NONE}


def test_no_installation(tmp_path, capsys):
    assert main.main(['--config-dir', str(tmp_path), 'status']) == 1
    assert 'No configuration file' in capsys.readouterr().err
