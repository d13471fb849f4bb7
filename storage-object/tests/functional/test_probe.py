"""Four devices over four server processes, what goes wrong with them, and that it comes right without a hand."""
import glob
import http.client
import io
import json
import os
import shutil
import subprocess
import time

import pytest
from storage_object_probe import Cut, Interrupted
from storage_object_probe_fixtures import fixtures_of

from kodiak.storage_object import conf as options

pytestmark = pytest.mark.probe
started, cluster, call, account = fixtures_of()


def test_a_server_is_killed_in_the_middle_of_a_put(cluster, call, account, eventually):
    victim = cluster.primaries('object', account, 'c', 'o')[0]
    data = os.urandom(3 << 20)
    body = Interrupted(data, 1 << 20, lambda: cluster.servers[victim].stop(kill=True))
    assert call('PUT', f'/v1/{account}/c/o', body, Content_Length=str(len(data))).status == 201
    assert call('GET', f'/v1/{account}/c/o').body == data
    cluster.servers[victim].start()
    eventually(lambda: cluster.whole(account, 'c', 'o'))
    eventually(lambda: cluster.listings(account, 'c') == [['o']] * 3)
    assert call('GET', f'/v1/{account}/c/o').body == data


def test_a_device_is_lost_and_comes_back_empty(cluster, call, account, eventually):
    for number in range(8):
        assert call('PUT', f'/v1/{account}/c/o{number}', b'%d' % number).status == 201
    names = [f'o{number}' for number in range(8)]
    eventually(lambda: cluster.listings(account) == [['c']] * 3)
    os.rename(cluster.device(0), cluster.folder + '/lost')
    assert call('GET', f'/v1/{account}/c/o1').body == b'1'
    assert call('PUT', f'/v1/{account}/c/o1', b'new').status == 201
    os.makedirs(cluster.device(0))
    eventually(lambda: all(cluster.whole(account, 'c', name) for name in names))
    eventually(lambda: cluster.listings(account, 'c') == [names] * 3)
    eventually(lambda: cluster.listings(account) == [['c']] * 3)
    assert call('GET', f'/v1/{account}/c/o1').body == b'new'


@pytest.mark.parametrize('size', [100, 300_000])
def test_an_object_is_damaged(cluster, call, account, eventually, size):
    data = os.urandom(size)
    assert call('PUT', f'/v1/{account}/c/o', data).status == 201
    number, names = next(iter(cluster.files(account, 'c', 'o').items()))
    digest = cluster.rings['object'].hash_path(account, 'c', 'o')
    path, = glob.glob(f'{cluster.device(number)}/objects/*/*/{digest}/{names[0]}')
    with open(path, 'r+b') as file:
        file.seek(50)
        byte = file.read(1)
        file.seek(50)
        file.write(bytes([byte[0] ^ 1]))
    if size < 1000:
        for _ in range(20):             # found when it is read, wherever the reader is sent first
            assert call('GET', f'/v1/{account}/c/o').body == data
    else:
        cluster.servers[number].once('auditor')

    def healed():
        with open(path, 'rb') as file:
            return file.read(size) == data
    eventually(lambda: os.path.exists(path) and healed())
    assert glob.glob(f'{cluster.device(number)}/quarantined/objects/{digest}*')


@pytest.mark.parametrize('kind', ['account', 'container'])
def test_a_database_is_damaged(cluster, call, account, eventually, kind):
    for number in range(5):
        assert call('PUT', f'/v1/{account}/c/o{number}', b'x').status == 201
    names = (account,) if kind == 'account' else (account, 'c')
    wanted = ['c'] if kind == 'account' else [f'o{number}' for number in range(5)]
    eventually(lambda: cluster.listings(*names) == [wanted] * 3)
    digest = cluster.rings[kind].hash_path(*names)
    number = cluster.primaries(kind, *names)[0]
    path, = glob.glob(f'{cluster.device(number)}/{kind}s/*/*/{digest}/{digest}.db')
    cluster.servers[number].stop()
    for name in glob.glob(path + '-*'):
        os.unlink(name)
    with open(path, 'r+b') as file:
        file.write(b'no database at all ' * 1000)
    cluster.servers[number].start()
    path_of = f'/v1/{account}' + ('' if kind == 'account' else '/c')
    assert call('GET', path_of).body.split() == [name.encode() for name in wanted]
    eventually(lambda: cluster.listings(*names) == [wanted] * 3)
    assert glob.glob(f'{cluster.device(number)}/quarantined/{kind}s/{digest}*')


@pytest.mark.parametrize('kind', ['object', 'container', 'account'])
def test_a_ring_is_damaged(cluster, call, account, eventually, kind):
    path = f'{cluster.rings_folder}/{kind}.ring.gz'
    shutil.copyfile(path, path + '.good')
    try:
        with open(path, 'wb') as file:
            file.write(b'\x1f\x8b nothing')
        for server in cluster.servers[:2]:
            server.stop()
            server.start()
        assert call('PUT', f'/v1/{account}/c/o', b'x').status == 201
        assert call('GET', f'/v1/{account}/c/o').body == b'x'
    finally:
        os.replace(path + '.good', path)
    eventually(lambda: cluster.whole(account, 'c', 'o'))


def test_two_of_three_servers_of_an_object_are_killed(cluster, call, account, eventually):
    assert call('GET', f'/v1/{account}/c').status == 204
    out = cluster.primaries('object', account, 'c', 'o')[:2]
    for number in out:
        cluster.servers[number].stop(kill=True)
    assert call('PUT', f'/v1/{account}/c/o', b'x').status == 201       # a primary and a handoff: they are to keep it
    assert call('GET', f'/v1/{account}/c/o').body == b'x'
    for number in out:
        cluster.servers[number].start()
    eventually(lambda: cluster.whole(account, 'c', 'o'))
    eventually(lambda: cluster.listings(account, 'c') == [['o']] * 3)
    assert call('GET', f'/v1/{account}/c/o').body == b'x'


@pytest.mark.parametrize('kind', ['object', 'container'])
def test_the_proxy_is_cut_off_from_two_of_three_replicas(cluster, call, account, eventually, kind):
    pool = Cut()
    cut = cluster.caller(pool)
    for name in ('o', 'gone', 'read'):
        assert call('PUT', f'/v1/{account}/c/{name}', b'old').status == 201
    names = (account, 'c', 'o') if kind == 'object' else (account, 'c')
    pool.ports = {cluster.ports[cluster.places[number]] for number in cluster.primaries(kind, *names)[:2]}
    done = {'put': cut('PUT', f'/v1/{account}/c/o', b'new').status,
            'post': cut('POST', f'/v1/{account}/c/o', X_Object_Meta_A='1').status,
            'delete': cut('DELETE', f'/v1/{account}/c/gone').status, 'container': cut('PUT', f'/v1/{account}/d').status,
            'metadata': cut('POST', f'/v1/{account}/c', X_Container_Meta_A='1').status}
    assert done.pop('metadata') in (204, 503)       # as a majority of those that have the container are within reach, or not
    assert done == {'put': 201, 'post': 202, 'delete': 204, 'container': 201}
    assert cut('GET', f'/v1/{account}/c/o').body == b'new'
    assert cut('GET', f'/v1/{account}/c/read').body == b'old'
    assert cut('GET', f'/v1/{account}/c/gone').status == 404
    eventually(lambda: cut('GET', f'/v1/{account}/c').body.split() == [b'o', b'read'])
    pool.ports = set()
    eventually(lambda: cut('POST', f'/v1/{account}/c', X_Container_Meta_A='1').status == 204)
    eventually(lambda: all(cluster.whole(account, 'c', name) for name in ('o', 'gone', 'read')))
    eventually(lambda: cluster.listings(account, 'c') == [['o', 'read']] * 3)
    eventually(lambda: cluster.listings(account) == [['c', 'd']] * 3)
    found = call('GET', f'/v1/{account}/c/o')
    assert (found.body, found.headers['X-Object-Meta-A']) == (b'new', '1')
    assert call('GET', f'/v1/{account}/c/gone').status == 404
    eventually(lambda: call('HEAD', f'/v1/{account}/c').headers.get('X-Container-Meta-A') == '1')


def test_a_device_keeps_no_more_than_it_may(cluster, call, account, eventually):
    number = cluster.primaries('object', account, 'c', 'o')[0]
    server = cluster.servers[number]
    with open(f'{server.folder}/server.conf') as file:
        plain = file.read()
    server.stop()
    with open(f'{server.folder}/server.conf', 'w') as file:
        file.write(plain + f'reserve = {1 << 60}\n')
    server.start()
    assert call('PUT', f'/v1/{account}/c/o', b'x').status == 201
    assert number not in cluster.files(account, 'c', 'o')
    assert len(cluster.files(account, 'c', 'o')) == 3
    server.stop()
    with open(f'{server.folder}/server.conf', 'w') as file:
        file.write(plain)
    server.start()
    eventually(lambda: cluster.whole(account, 'c', 'o'))


@pytest.fixture
def small(cluster, account):
    """A device with a file system of its own, of 64 MB: ``(number, function that leaves so many bytes free)``."""
    number = cluster.primaries('object', account, 'c', 'o')[0]
    server, device = cluster.servers[number], cluster.device(number)
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', device], capture_output=True,
                                      check=False).returncode:
        pytest.skip('a file system can be mounted by root alone')
    try:
        with open(f'{server.folder}/server.conf') as file:
            plain = file.read()
        with open(f'{server.folder}/server.conf', 'w') as file:
            file.write(plain + 'reserve = 0\n')
        server.stop()
        server.start()

        def leave(size):
            with open(f'{device}/filler', 'wb', buffering=0) as file:
                while (room := os.statvfs(device).f_bavail * os.statvfs(device).f_frsize) > size:
                    try:
                        file.write(bytes(min(room - size, 1 << 20)))
                    except OSError:         # (its server writes too)
                        break
        yield number, leave
    finally:
        server.stop()
        subprocess.run(['umount', device], check=True)
        with open(f'{server.folder}/server.conf', 'w') as file:
            file.write(plain)


@pytest.mark.parametrize('room,size', [(0, 10), (0, 2 << 20), (1 << 20, 2 << 20)], ids=['none', 'large', 'in the middle'])
def test_a_device_is_full(cluster, call, account, small, eventually, room, size):
    number, leave = small
    # What it is to have of the account and the container is there before.
    for kind, names in (('account', (account,)), ('container', (account, 'c'))):
        if number in cluster.primaries(kind, *names):
            place = cluster.primaries(kind, *names).index(number)
            eventually(lambda names=names, place=place: cluster.listings(*names)[place] is not None)
    leave(room)
    data = os.urandom(size)
    if room:            # (of an unknown length: it runs full while it writes)
        assert call('PUT', f'/v1/{account}/c/o', io.BytesIO(data), Transfer_Encoding='chunked').status == 201
    else:
        assert call('PUT', f'/v1/{account}/c/o', data).status == 201
    assert number not in cluster.files(account, 'c', 'o')
    for _ in range(5):
        assert call('GET', f'/v1/{account}/c/o').body == data
    assert glob.glob(f'{cluster.device(number)}/tmp/*') == []
    os.unlink(f'{cluster.device(number)}/filler')
    eventually(lambda: cluster.whole(account, 'c', 'o'))
    eventually(lambda: cluster.listings(account, 'c') == [['o']] * 3)
    assert call('GET', f'/v1/{account}/c/o').body == data


def test_what_was_deleted_while_a_server_was_away_stays_deleted(cluster, call, account, eventually):
    assert call('PUT', f'/v1/{account}/c/o', b'x').status == 201
    assert call('PUT', f'/v1/{account}/c/p', b'x').status == 201
    away = cluster.primaries('object', account, 'c', 'o')[0]
    cluster.servers[away].stop()
    assert call('DELETE', f'/v1/{account}/c/o').status == 204
    assert call('POST', f'/v1/{account}/c/p', X_Object_Meta_A='1').status == 202
    cluster.servers[away].start()
    eventually(lambda: cluster.whole(account, 'c', 'o') and cluster.whole(account, 'c', 'p'))
    assert all(names[0].endswith('.ts') for names in cluster.files(account, 'c', 'o').values())
    assert call('GET', f'/v1/{account}/c/o').status == 404
    assert call('GET', f'/v1/{account}/c/p').headers['X-Object-Meta-A'] == '1'
    eventually(lambda: cluster.listings(account, 'c') == [['p']] * 3)


def test_rows_wait_for_a_container_server_that_is_away(cluster, call, account, eventually):
    away = cluster.primaries('container', account, 'c')[1]
    cluster.servers[away].stop()
    for number in range(5):
        assert call('PUT', f'/v1/{account}/c/o{number}', b'x').status == 201
    cluster.servers[away].start()
    eventually(lambda: cluster.listings(account, 'c') == [[f'o{number}' for number in range(5)]] * 3)
    eventually(lambda: not any(glob.glob(cluster.device(number) + '/async_pending/*/*') for number in range(4)))


def test_an_object_expires(cluster, call, account, eventually):
    at = int(time.time()) + 2
    assert call('PUT', f'/v1/{account}/c/o', b'x', X_Delete_At=str(at)).status == 201
    assert call('PUT', f'/v1/{account}/c/kept', b'x', X_Delete_At=str(at)).status == 201
    assert call('POST', f'/v1/{account}/c/kept').status == 202
    assert call('GET', f'/v1/{account}/c/o').status == 200
    eventually(lambda: call('GET', f'/v1/{account}/c/o').status == 404)
    eventually(lambda: cluster.listings(account, 'c') == [['kept']] * 3)
    assert call('GET', f'/v1/{account}/c/kept').status == 200
    eventually(lambda: all(names[0].endswith('.ts') for names in cluster.files(account, 'c', 'o').values()))


def test_a_deleted_account_is_reaped(cluster, call, account, eventually):
    for number in range(3):
        call('PUT', f'/v1/{account}/c/o{number}', b'x')
    call('PUT', f'/v1/{account}/d')
    eventually(lambda: cluster.listings(account) == [['c', 'd']] * 3)
    assert call('DELETE', f'/v1/{account}').status == 204
    assert call('GET', f'/v1/{account}').status == 410
    eventually(lambda: all(names[0].endswith('.ts') for number in range(3)
                           for names in cluster.files(account, 'c', f'o{number}').values()), 40)
    eventually(lambda: cluster.listings(account, 'c') == [None] * 3)


def test_progress_is_shown(cluster, eventually):
    def ask(path):
        connection = http.client.HTTPConnection('127.0.0.1', cluster.ports[0], timeout=10)
        try:
            connection.request('GET', path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def recon():
        found = json.loads(ask('/recon'))
        return all(found['daemons'].get(name, {}).get('last') for name in options.DAEMONS) and found
    found = eventually(recon, 40)
    assert all({'done', 'left', 'rate', 'estimated_end', 'last'} <= set(shown) for shown in found['daemons'].values())
    assert 'd0' in found['devices'] and found['rings']['object-0'] >= 1
    text = ask('/metrics')
    for name in options.DAEMONS:
        for number in ('', '_done', '_rate', '_end_timestamp', '_oldest_seconds'):
            assert f'kodiak_storage_passes{number}{{daemon="{name}"}}' in text
    told = cluster.servers[0].once()
    assert [line.split(' ', 1)[0] for line in told.splitlines()] == list(options.DAEMONS)
