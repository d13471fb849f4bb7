"""Other people's services, as PyPI has them, with our identity: stock Glance and stock Swift take our tokens.

Each stands in a virtual environment of its own, since their libraries need not be those of this cloud. Which, say
``KODIAK_STOCK_GLANCE`` and ``KODIAK_STOCK_SWIFT``; without them it is looked for in ``/opt/stock/glance`` and ``/opt/stock/swift``.
"""
import os
import pathlib
import subprocess
import time

import pytest
import requests
from cloud import until

from kodiak.common.testing import end, free_port

pytestmark = pytest.mark.system

GLANCE = """
[DEFAULT]
enabled_backends = file:file
[database]
connection = sqlite:///{folder}/db
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[paste_deploy]
flavor = keystone
config_file = {venv}/etc/glance/glance-api-paste.ini
[keystone_authtoken]
{authtoken}
"""
#: Its application, under the WSGI server that comes with Python.
SERVE_GLANCE = """
import sys, wsgiref.simple_server
from glance.wsgi.api import application
wsgiref.simple_server.make_server('127.0.0.1', int(sys.argv[1]), application).serve_forever()
"""
SWIFT = """
[swift-hash]
swift_hash_path_prefix = system
swift_hash_path_suffix = tests
[storage-policy:0]
name = only
default = yes
"""
SWIFT_SERVER = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
"""
STORAGE = SWIFT_SERVER + """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = SWIFT_SERVER + """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache authtoken keystoneauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
{authtoken}
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = member
"""


def venv_of(name, program, packages):
    """The virtual environment of a stock service; the test is skipped where there is none."""
    venv = pathlib.Path(os.environ.get(f'KODIAK_STOCK_{name.upper()}', f'/opt/stock/{name}'))
    if not (venv / 'bin' / program).exists():
        pytest.skip(f'no stock {name} in {venv}: python3 -m venv {venv} && {venv}/bin/pip install {packages}')
    return venv


@pytest.fixture
def authtoken(auth_url, person):
    """The options of keystonemiddleware, for a service user of its own; it asks about every token."""
    service = person('service')
    return '\n'.join(f'{name} = {value}' for name, value in {
        'auth_type': 'password', 'auth_url': auth_url, 'www_authenticate_uri': auth_url, 'username': service.name,
        'password': service.password, 'user_domain_id': 'default', 'project_id': service.project_id, 'token_cache_time': -1,
        'service_token_roles_required': 'true'}.items())


@pytest.fixture
def run(tmp_path):
    """``run(command, url=None)``: start a process that is ended with the test, and wait until ``url`` answers."""
    started = []

    def start(command, url=None, **environ):
        log = tmp_path / f'log{len(started)}'
        process = subprocess.Popen(list(map(str, command)), env={'PATH': os.environ['PATH'], **environ}, cwd=tmp_path,
                                   stdout=log.open('w'), stderr=subprocess.STDOUT)
        started.append(process)
        end = time.monotonic() + 60
        while url:
            try:
                requests.get(url, timeout=10)
                return
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
                time.sleep(0.1)
    yield start
    for process in reversed(started):
        end(process)


def check(auth_url, ask, ann):
    """``ask(token)`` gives the status of a request: with ann's token 200 until it is revoked, otherwise 401."""
    token = ann.session.get_token()
    assert ask(token) == 200
    assert ask(None) == 401 and ask('nonsense') == 401 and ask(token[:-8] + 'AAAAAAAA') == 401
    ann.session.delete(auth_url + '/auth/tokens', headers={'X-Subject-Token': token})
    until(10, 'a revoked token is refused', lambda: ask(token) == 401)


def test_glance(auth_url, authtoken, person, run, tmp_path):
    venv = venv_of('glance', 'glance-manage', 'glance')
    for name in ('images', 'staging', 'tasks'):
        (tmp_path / name).mkdir()
    (tmp_path / 'glance-api.conf').write_text(GLANCE.format(folder=tmp_path, venv=venv, authtoken=authtoken))
    subprocess.run([venv / 'bin' / 'glance-manage', '--config-file', tmp_path / 'glance-api.conf', 'db_sync'], check=True,
                   capture_output=True, timeout=120)
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    run([venv / 'bin' / 'python', '-c', SERVE_GLANCE, port], url, OS_GLANCE_CONFIG_DIR=str(tmp_path))
    ann, ben = person('member'), person('member')
    made = requests.post(url + '/v2/images', headers={'X-Auth-Token': ann.session.get_token()}, timeout=30, json={
        'name': 'mine', 'disk_format': 'raw', 'container_format': 'bare'})
    assert made.status_code == 201 and made.json()['owner'] == ann.project_id, made.text

    def ask(token):
        return requests.get(f'{url}/v2/images/{made.json()["id"]}', headers={'X-Auth-Token': token} if token else {},
                            timeout=30).status_code
    assert ask(ben.session.get_token()) == 404
    check(auth_url, ask, ann)


def test_swift(auth_url, authtoken, person, run, tmp_path):
    venv = venv_of('swift', 'swift-proxy-server', 'swift keystonemiddleware')
    user = subprocess.run(['id', '-un'], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / 'swift.conf').write_text(SWIFT)
    (tmp_path / 'devices' / 'd').mkdir(parents=True)
    ports = {kind: free_port() for kind in ('account', 'container', 'object', 'proxy')}
    proxy, environ = f'http://127.0.0.1:{ports["proxy"]}', {'SWIFT_DIR': str(tmp_path)}
    for kind, port in ports.items():
        text = PROXY if kind == 'proxy' else STORAGE
        (tmp_path / f'{kind}.conf').write_text(text.format(kind=kind, port=port, folder=tmp_path, user=user, authtoken=authtoken))
        if kind != 'proxy':
            for words in (['create', 4, 1, 0], ['add', f'r1z1-127.0.0.1:{port}/d', 1], ['rebalance']):
                subprocess.run([venv / 'bin' / 'swift-ring-builder', tmp_path / f'{kind}.builder', *map(str, words)], check=True,
                               capture_output=True, timeout=60)
        # Any answer will do: the storage servers know no such path.
        run([venv / 'bin' / f'swift-{kind}-server', tmp_path / f'{kind}.conf'], f'http://127.0.0.1:{port}/healthcheck', **environ)
    ann, ben = person('member'), person('member')
    account = f'{proxy}/v1/AUTH_{ann.project_id}'

    def put(path, token, data=None):
        return requests.put(account + path, headers={'X-Auth-Token': token}, data=data, timeout=30).status_code

    def ask(token):
        return requests.get(account + '/box/thing', headers={'X-Auth-Token': token} if token else {}, timeout=30).status_code
    token = ann.session.get_token()
    assert put('/box', token) == 201 and put('/box/thing', token, b'data') == 201
    assert ask(ben.session.get_token()) == 403
    check(auth_url, ask, ann)
