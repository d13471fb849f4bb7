"""The proxy's pipeline over the servers behind it: a stand-in of them in this process, and themselves in theirs."""
import io
import pathlib
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
import wsgiref.simple_server

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from kodiak.common import testing
from kodiak.storage_object import conf as options
from kodiak.storage_object.proxy import app, backend, pipeline
from kodiak.storage_object.proxy.http import Response
from kodiak.storage_object.proxy.rings import Rings

double, real, probe, probe_fixtures = testing.share(
    __file__, 'double', 'real', 'probe', 'probe_fixtures', prefix='storage_object')


@pytest.fixture(autouse=True)
def pools(monkeypatch):
    """Those that a test makes end with it: a proxy is a cycle of objects, which is collected much later."""
    made, make = [], backend.Pool.__init__

    def noted(pool, *arguments, **more):
        make(pool, *arguments, **more)
        made.append(pool)
    monkeypatch.setattr(backend.Pool, '__init__', noted)
    yield
    for pool in made:
        pool.close()


@pytest.fixture(scope='session')
def real_servers(tmp_path_factory):
    """A server process over four devices."""
    world = real.Servers(tmp_path_factory.mktemp('object'))
    yield world
    world.process.stop()
    log = world.process.log()
    assert 'Traceback' not in log, log[-4000:]


@pytest.fixture(scope='session')
def coded_servers(tmp_path_factory):
    """The same, with an erasure code."""
    pytest.importorskip('pyeclib', reason='erasure codes need pyeclib')
    world = real.Servers(tmp_path_factory.mktemp('coded'), '0:gold=2+1')
    yield world
    world.process.stop()
    log = world.process.log()
    assert 'Traceback' not in log, log[-4000:]


@pytest.fixture(params=['double', 'real', 'coded'])
def servers(request):
    """Four devices."""
    if request.param != 'double':
        world = request.getfixturevalue(f'{request.param}_servers')
        world.reset()
        yield world
        return
    world = double.Servers()
    yield world
    world.stop()


@pytest.fixture
def rings(servers):
    """Rings of three replicas over them."""
    if isinstance(servers, real.Servers):
        return servers.proxy_rings()
    return Rings(servers.ring(), servers.ring(), [double.Policy(servers.ring())])


NAMES = ['catch_errors', 'healthcheck', 'cors', 'listing_formats', 'bulk', 'tempurl', 'localauth', 'account_acl', 'formpost',
         'staticweb', 'copy', 'container_quotas', 'account_quotas', 's3_guard', 'slo', 'dlo', 'versioned_writes', 'symlink',
         'versioning', 'customer_keys']
USERS = {'user_test_tester': 'testing .admin', 'user_test_other': 'testing', 'secret': 'x'}


class Client:
    """Calls a WSGI application as one user."""

    def __init__(self, application):
        self.application = application
        self.token = None
        answer = self('GET', '/auth/v1.0', headers={'X-Auth-User': 'test:tester', 'X-Auth-Key': 'testing'})
        self.token = answer.headers['X-Auth-Token']

    def __call__(self, method, path, body=b'', headers=None, token=True):
        path, _, query = path.partition('?')
        environ = {'REQUEST_METHOD': method, 'PATH_INFO': urllib.parse.unquote(path, 'latin-1'), 'QUERY_STRING': query,
                   'wsgi.input': io.BytesIO(body), 'wsgi.url_scheme': 'http', 'HTTP_HOST': 'localhost', 'REMOTE_ADDR': '127.0.0.1'}
        if body or method in ('PUT', 'POST'):
            environ['CONTENT_LENGTH'] = str(len(body))
        if self.token and token:
            environ['HTTP_X_AUTH_TOKEN'] = self.token
        for name, value in (headers or {}).items():
            key = name.upper().replace('-', '_')
            environ[key if key == 'CONTENT_TYPE' else 'HTTP_' + key] = value
        answer = Response.from_wsgi(self.application, environ)
        answer.read()
        return answer


@pytest.fixture
def eventually():
    """Waits until a function returns something true."""
    def wait(function, seconds=20):
        deadline = time.monotonic() + seconds
        while not (found := function()):
            assert time.monotonic() < deadline, 'it never came true'
            time.sleep(0.05)
        return found
    return wait


@pytest.fixture
def make_call(rings):
    """Makes clients of the whole pipeline; an argument gives filters options, or adds them next to the proxy."""
    def make(options=()):
        wanted = {'localauth': USERS, **dict(options)}
        names = NAMES + [name for name in wanted if name not in NAMES]
        return Client(pipeline.assemble(app.Proxy(rings), [(name, wanted.get(name, {})) for name in names]))
    return make


@pytest.fixture
def call(make_call):
    """A client of the whole pipeline."""
    return make_call()


@pytest.fixture
def box(call):
    """A container of that client."""
    assert call('PUT', '/v1/AUTH_test/c').status == 201
    return '/v1/AUTH_test/c'


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = 'HTTP/1.1'      # (it answers Expect: 100-continue then, for which boto3 waits)

    def log_message(self, *args):
        pass

    def get_environ(self):
        environ = super().get_environ()
        if 'Content-Type' not in self.headers:
            del environ['CONTENT_TYPE']     # (wsgiref makes one up)
        return environ


@pytest.fixture
def serve():
    """Serves WSGI applications over HTTP: ``serve(application)`` gives the URL."""
    running = []

    def start(application):
        def plain(environ, start_response):
            # (wsgiref takes no "Connection", and keeps none)
            return application(environ, lambda status, headers, *more: start_response(
                status, [pair for pair in headers if pair[0].lower() != 'connection'], *more))
        server = wsgiref.simple_server.make_server('127.0.0.1', 0, plain, _Server, _Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        running.append((server, thread))
        return f'http://127.0.0.1:{server.server_port}'
    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join(5)


S3_NAMES = ['catch_errors', 'cors', 's3', 'localauth', 'copy', 's3_guard', 'slo', 'symlink', 'versioning', 'customer_keys']
S3_USERS = {'user_test_tester': 'testing .admin', 'user_test_guest': 'testing', 'user_other_stranger': 'testing .admin'}


@pytest.fixture
def s3_options():
    """More filters of that pipeline, next to the proxy: name to options."""
    return {}


@pytest.fixture
def s3_application(rings, s3_options):
    """The pipeline with the S3 API, three users."""
    options = {'localauth': S3_USERS, **s3_options}
    return pipeline.assemble(app.Proxy(rings), [(name, options.get(name, {})) for name in (*S3_NAMES, *s3_options)])


@pytest.fixture
def swift(s3_application):
    """A client of its Swift API."""
    return Client(s3_application)


@pytest.fixture
def endpoint(s3_application, serve):
    """Its URL."""
    return serve(s3_application)


@pytest.fixture(scope='session')
def boto():
    """A session of boto3: making one is slow."""
    return boto3.session.Session()


@pytest.fixture
def client(endpoint, boto):
    """Makes boto3's clients of it, of one user each."""
    def make(user='test:tester', version='s3v4', **more):
        return boto.client('s3', endpoint_url=endpoint, aws_access_key_id=user, aws_secret_access_key='testing',
                           region_name='us-east-1', config=Config(s3={'addressing_style': 'path'}, signature_version=version,
                                                                  retries={'max_attempts': 0}, **more))
    return make


@pytest.fixture
def s3(client):
    """A client that has the bucket ``bukket``."""
    made = client()
    made.create_bucket(Bucket='bukket')
    return made


@pytest.fixture
def refused():
    """Asserts that a call of boto3's is refused: ``refused(code, call, **arguments)``; returns the answer."""
    def check(code, call, **arguments):
        with pytest.raises(ClientError) as problem:
            call(**arguments)
        assert problem.value.response['Error']['Code'] == code
        return problem.value.response
    return check


@pytest.fixture(scope='module')
def proxy(real_servers, tmp_path_factory):
    """Port of a proxy process with users of its own."""
    tmp_path = tmp_path_factory.mktemp('proxy')
    from_package = pathlib.Path(options.__file__).with_name('proxy-paste.ini').read_text()
    (tmp_path / 'paste.ini').write_text(from_package.replace('name = localauth', 'name = localauth\nuser_test_tester = key .admin'))
    real_servers.reset()
    port = testing.free_port()
    (tmp_path / 'proxy.conf').write_text(f"""
[DEFAULT]
state_path = {tmp_path}
run_path = {tmp_path}/run
[api]
bind_host = 127.0.0.1
bind_port = {port}
workers = 1
client_timeout = 2
paste_config = {tmp_path}/paste.ini
[storage]
ring_path = {real_servers.folder}/rings
pipeline = standalone
""")
    process = subprocess.Popen([sys.executable, '-c', 'from kodiak.storage_object import cmd; cmd.proxy()', '--config-file',
                                str(tmp_path / 'proxy.conf'), '--log-file', str(tmp_path / 'log')])
    real_servers.wait_for(port, process, tmp_path / 'log')
    yield port
    process.terminate()
    assert process.wait(30) == 0
    assert 'Traceback' not in (tmp_path / 'log').read_text()
