"""The processes: an API under gunicorn and a worker, started, asked, reloaded and ended."""
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa

from kodiak.common import db, heartbeat, saga, testing

PROGRAM = """
import hashlib, os, sys, time
from kodiak.common import heartbeat, metrics, saga, service


def load(app):
    app.bus = None
    level = app.conf.debug

    def application(environ, start_response):
        metrics.observe_request('try', 'GET', '/', '200', 0.01)
        if environ['PATH_INFO'] == '/slow':
            open(os.path.join(app.conf.state_path, 'slow'), 'w').close()
            time.sleep(1.5)
        if environ['PATH_INFO'] == '/start':
            with app.db.write() as connection:
                saga.start(connection, KIND, 'r1')
        if environ['PATH_INFO'] == '/upload':
            from kodiak.common import gunicorn_server
            read = gunicorn_server.direct_reader(environ) or environ['wsgi.input'].read
            pieces = list(iter(lambda: bytes(read(70000)), b''))
            body = hashlib.md5(b''.join(pieces)).hexdigest().encode()
        else:
            body = f'debug={level}'.encode()
        start_response('200 OK', [('Content-Length', str(len(body)))])
        return [body]
    return application


def leave_a_mark(work):
    open(os.path.join(work.app.conf.state_path, 'ran'), 'w').close()


KIND = saga.Saga('try', [saga.Step('mark', leave_a_mark)])


def build(app):
    app.on_reload.append(lambda: open(os.path.join(app.conf.state_path, 'reloaded'), 'w').close())
    app.background.append(saga.Worker(app, [KIND], poll=600))


if __name__ == '__main__':
    kind = sys.argv.pop(1)
    if kind == 'bare':
        service.run_api('try', load, binary='kodiak-try-bare', database=False,
                        adjust=lambda conf: conf.set_override('workers', 1, group='api'),
                        settings={'limit_request_field_size': 65000})
    elif kind == 'api':
        service.run_api('try', load, conductor=('program', 'try-conductor'))
    else:
        service.run_worker('try', build, topic='try-conductor')
"""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__('localhost', timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def until(function, seconds=30):
    deadline = time.time() + seconds
    while time.time() < deadline:
        try:
            found = function()
        except (OSError, http.client.HTTPException):
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f'{function} never came true')


class World:
    def __init__(self, folder):
        self.folder = folder
        self.port = testing.free_port()
        (folder / 'program.py').write_text(PROGRAM)
        self.configure(debug=False)
        metadata = db.metadata()
        saga.tables(metadata)
        heartbeat.tables(metadata)
        self.db = db.Database(f'sqlite:///{folder}/try.sqlite')
        metadata.create_all(self.db.engine)
        self.processes = []

    def configure(self, debug, more='', api='workers = 2'):
        (self.folder / 'try.conf').write_text(
            f'[DEFAULT]\nhost = host1\ndebug = {debug}\nstate_path = {self.folder}\nrun_path = {self.folder}/run\n{more}\n'
            f'[database]\nconnection = sqlite:///{self.folder}/try.sqlite\n'
            f'[api]\nbind_host = 127.0.0.1\nbind_port = {self.port}\n{api}\n')

    def run(self, kind):
        process = subprocess.Popen(
            [sys.executable, str(self.folder / 'program.py'), kind, '--config-file', str(self.folder / 'try.conf'),
             '--log-file', str(self.folder / (kind + '.log'))])
        self.processes.append(process)
        return process

    def beats(self):
        return self.rows(heartbeat.services)

    def get(self, path):
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
        connection.request('GET', path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def status(self, path):
        connection = UnixConnection(f'{self.folder}/run/kodiak-try-conductor.status')
        connection.request('GET', path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def log(self, kind):
        return (self.folder / (kind + '.log')).read_text()

    def rows(self, table):
        with self.db.read() as connection:
            return db.all_dicts(connection, sa.select(table))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    made.db.close()


@pytest.mark.parametrize('workers', [1, 2])
def test_an_api_answers_reloads_and_drains(world, workers):
    world.configure(debug=False, api=f'workers = {workers}')
    process = world.run('api')
    assert until(lambda: world.get('/')) == (200, 'debug=False')
    status, text = world.get('/metrics')
    assert status == 200
    assert 'kodiak_http_request_seconds_count{code="200",method="GET",route="/",service="try"}' in text
    row = until(world.beats)[0]
    assert (row['host'], row['binary']) == ('host1', 'kodiak-try-api')
    world.configure(debug=True, api=f'workers = {workers}')
    process.send_signal(signal.SIGHUP)
    assert until(lambda: world.get('/')[1] == 'debug=True')
    slow = []
    thread = threading.Thread(target=lambda: slow.append(world.get('/slow')))
    thread.start()
    until((world.folder / 'slow').exists)
    process.terminate()
    thread.join(20)
    assert slow == [(200, 'debug=True')]
    assert process.wait(20) == 0
    assert 'Traceback' not in world.log('api')
    assert len(world.log('api').splitlines()) < 20


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays(world):
    process = world.run('api')
    until(lambda: world.get('/'))

    def workers():
        with open(f'/proc/{process.pid}/task/{process.pid}/children') as file:
            return {int(pid) for pid in file.read().split()}

    def counted():
        line = next(line for line in world.get('/metrics')[1].splitlines() if line.startswith('kodiak_http_request_seconds_count'))
        return float(line.split()[-1])
    before = until(lambda: len(workers()) == 2 and workers())
    for _ in range(20):
        world.get('/')
    had = counted()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers()) == 2 and not workers() & before)
    assert until(lambda: world.get('/')) == (200, 'debug=False')
    assert counted() > had
    process.terminate()
    assert process.wait(20) == 0


def test_bodies_are_read_from_the_socket_and_the_connection_goes_on(world):
    world.configure(debug=False, api='workers = 1')
    process = world.run('api')
    until(lambda: world.get('/'))
    connection = http.client.HTTPConnection('127.0.0.1', world.port, timeout=20)
    for size in (0, 10, 70000, 300001):
        data = os.urandom(size)
        for body in (data, iter([data[:5], data[5:]])):         # with a length, and in chunks
            connection.request('PUT', '/upload', body, encode_chunked=not isinstance(body, bytes),
                               headers={} if isinstance(body, bytes) else {'Transfer-Encoding': 'chunked'})
            assert connection.getresponse().read().decode() == hashlib.md5(data).hexdigest()
    connection.close()
    with socket.create_connection(('127.0.0.1', world.port), timeout=20) as wire, wire.makefile('rb') as stream:
        for together in (1, 5000, 100000, 300001):              # so much of the body comes with the headers
            wire.sendall(b'PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 300001\r\n\r\n' + data[:together])
            time.sleep(0.05)
            wire.sendall(data[together:])
            while stream.readline() != b'\r\n':
                pass
            assert stream.read(32).decode() == hashlib.md5(data).hexdigest()
    with socket.create_connection(('127.0.0.1', world.port), timeout=20) as broken:
        broken.sendall(b'PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nonly this')
        broken.shutdown(socket.SHUT_WR)
        answer = b''.join(iter(lambda: broken.recv(65536), b''))
        assert answer.endswith(hashlib.md5(b'only this').hexdigest().encode())
    process.terminate()
    assert process.wait(20) == 0
    assert 'Traceback' not in world.log('api')


def test_requests_that_follow_each_other_and_more_clients_than_threads_are_all_answered(world):
    world.configure(debug=False, api='workers = 1\nthreads = 4')
    process = world.run('api')
    until(lambda: world.get('/'))
    address = ('127.0.0.1', world.port)
    ask, answer = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'debug=False'
    with socket.create_connection(address, timeout=20) as wire:
        for _ in range(3):
            wire.sendall(ask)
            got = wire.recv(65536)              # headers and body come as one
            assert got.startswith(b'HTTP/1.1 200 OK\r\n') and got.endswith(b'\r\n\r\n' + answer)
        wire.sendall(ask * 3 + ask[:20])
        got = b''
        while got.count(answer) < 3:
            got += wire.recv(65536)
        wire.sendall(ask[20:].replace(b'\r\n\r\n', b'\r\nConnection: close\r\n\r\n'))
        assert b''.join(iter(lambda: wire.recv(65536), b'')).endswith(answer)
    with socket.create_connection(address, timeout=20) as wire:
        wire.sendall(ask.replace(b'GET', b'HEAD'))
        assert wire.recv(65536).endswith(b'Content-Length: 11\r\n\r\n')
    done = []

    def client():
        connection = http.client.HTTPConnection(*address, timeout=20)
        for _ in range(30):
            connection.request('GET', '/')
            done.append(connection.getresponse().read())
        connection.close()
    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [answer] * 600
    process.terminate()
    assert process.wait(20) == 0
    assert 'Traceback' not in world.log('api')


def test_a_worker_works_on_a_hint_of_the_api_reloads_and_ends(world):
    process = world.run('worker')
    answer = json.loads(until(lambda: world.status('/healthcheck'))[1])
    assert (answer['binary'], answer['host'], answer['pid'], answer['faults']) == (
        'kodiak-try-conductor', 'host1', process.pid, [])
    assert world.status('/nothing')[0] == 404
    row = until(world.beats)[0]
    assert (row['binary'], row['topic']) == ('kodiak-try-conductor', 'try-conductor')
    api = world.run('api')
    until(lambda: world.get('/start'))
    # The worker itself looks every ten minutes only: the API's wake-up reached it.
    until((world.folder / 'ran').exists)
    until(lambda: world.rows(saga.rows)[0]['state'] == 'done')
    status, text = world.status('/metrics')
    assert status == 200
    assert 'kodiak_saga_step_seconds_count{action="do",outcome="done",saga="try",step="mark"} 1.0' in text
    process.send_signal(signal.SIGHUP)
    until((world.folder / 'reloaded').exists)
    process.terminate()
    api.terminate()
    assert process.wait(20) == 0
    assert api.wait(20) == 0
    assert os.listdir(world.folder / 'run' / 'try.wake') == []
    assert 'Traceback' not in world.log('worker')


def test_an_api_process_is_its_conductor_too_where_it_is_told_to(world):
    world.configure(debug=False, api='workers = 1\nconductor = true')
    process = world.run('api')
    until(lambda: world.get('/start'))
    until((world.folder / 'ran').exists)
    until(lambda: world.rows(saga.rows)[0]['state'] == 'done')
    assert json.loads(world.status('/healthcheck')[1])['binary'] == 'kodiak-try-conductor'
    until(lambda: len(world.beats()) == 2)
    assert {(row['binary'], row['topic']) for row in world.beats()} == {
        ('kodiak-try-api', None), ('kodiak-try-conductor', 'try-conductor')}
    process.terminate()
    assert process.wait(20) == 0
    assert os.listdir(world.folder / 'run' / 'try.wake') == []
    assert 'Traceback' not in world.log('api')


def test_a_worker_without_its_broker_says_so(world):
    world.configure(debug=False, more='transport_url = rabbit://127.0.0.1:1/')
    process = world.run('worker')
    status, text = until(lambda: world.status('/healthcheck'))
    assert (status, json.loads(text)['faults']) == (503, ['The message broker does not answer.'])
    process.terminate()
    assert process.wait(20) == 0


def test_an_api_without_a_database_serves_under_the_settings_of_its_own(world):
    process = world.run('bare')
    assert until(lambda: world.get('/')) == (200, 'debug=False')
    connection = http.client.HTTPConnection('127.0.0.1', world.port, timeout=20)
    connection.request('GET', '/', headers={'X-Long': 'x' * 60000})
    assert connection.getresponse().status == 200
    connection.close()
    assert world.beats() == []
    assert 'kodiak_http_request_seconds_count' in world.get('/metrics')[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


@pytest.mark.parametrize('workers', [1, 2])
def test_clients_that_stop_in_the_middle_do_not_stop_an_api(world, workers):
    world.configure(debug=False, api=f'workers = {workers}\nthreads = 2\nclient_timeout = 1')
    process = world.run('api')
    until(lambda: world.get('/'))
    stopped = [socket.create_connection(('127.0.0.1', world.port), 20) for _ in range(12)]
    for number, sock in enumerate(stopped):
        head = b'GET / HTTP/1.1\r\nHost: x'
        sock.sendall(head if number % 2 else head.replace(b'GET /', b'PUT /upload') + b'\r\nContent-Length: 9\r\n\r\n1')
    assert world.get('/') == (200, 'debug=False')
    for sock in stopped:
        while sock.recv(65536):     # (it closes its side, whatever this one does)
            pass
    assert world.get('/') == (200, 'debug=False')
    for sock in stopped:
        sock.close()
    process.terminate()
    assert process.wait(20) == 0
