"""A container that came to be in two policies while its servers did not reach each other: all is moved to one, without a hand."""
import io
import json
import os
import time

import pytest
from storage_object_probe_fixtures import account_of, fixtures_of

from kodiak.storage_object.daemons.reconciler import ACCOUNT
from kodiak.storage_object.proxy import backend
from kodiak.storage_object.proxy.http import Request

pytestmark = pytest.mark.probe
pytest.importorskip('pyeclib', reason='erasure codes need pyeclib')
started, cluster, call, _ = fixtures_of(policies=('0:gold', '1:silver', '2:cold=2+1'),
                                        more='shard_threshold = 40\nshard_size = 15\nshard_shrink = 20\n')


def split(cluster, account, policy):
    """One of the container's servers, alone, makes it anew with another policy."""
    ring = cluster.rings['container']
    part = ring.get_part(account, 'c')
    node = ring.primaries(part)[0]
    for server in cluster.servers:
        server.stop()
    cluster.servers[cluster.places[node['id']]].start()
    client = backend.Client(backend.Pool(), backend.Nodes())
    answer = client.ask(node, 'PUT', part, f'/{account}/c', {
        'X-Timestamp': f'{time.time():016.5f}', 'X-Backend-Storage-Policy-Index': str(policy), 'Content-Length': '0'})
    answer.close()
    assert answer.status == 201


@pytest.mark.parametrize('old,new', [('gold', 2), ('cold', 1)])
def test_a_container_in_two_policies(cluster, call, request, eventually, old, new):
    account = account_of(request)
    before = {'gold': 0, 'cold': 2}[old]
    first = cluster.primaries('container', account, 'c')[0]
    assert call('PUT', f'/v1/{account}').status == 201
    cluster.servers[cluster.places[first]].stop()
    assert call('PUT', f'/v1/{account}/c', X_Storage_Policy=old).status == 201
    bodies = {name: os.urandom(size) for name, size in (('small', 100), ('large', 1_500_000), ('again', 5000))}
    for name, data in bodies.items():
        assert call('PUT', f'/v1/{account}/c/{name}', data, X_Object_Meta_Of=name, Content_Type='text/x-' + name).status == 201
    assert call('PUT', f'/v1/{account}/c/gone', b'x').status == 201
    assert call('DELETE', f'/v1/{account}/c/gone').status == 204
    assert call('POST', f'/v1/{account}/c/small', X_Object_Meta_Of='posted').status == 202
    split(cluster, account, new)
    cluster.up()

    def agreed():
        return cluster.policies_of(account, 'c') == [new] * 3
    eventually(agreed)
    call = cluster.caller()
    bodies['again'] = b'newer, and in the right place'
    assert call('PUT', f'/v1/{account}/c/again', bodies['again'], X_Object_Meta_Of='again').status == 201

    def moved():
        there = [call('GET', f'/v1/{account}/c/{name}') for name in bodies]
        return [answer.body for answer in there] == list(bodies.values()) and [
            answer.headers['X-Object-Meta-Of'] for answer in there] == ['posted', 'large', 'again']
    eventually(moved, 40)

    def removed():
        return all(name.endswith('.ts') for item in (*bodies, 'gone')
                   for names in cluster.files(account, 'c', item, policy=before).values() for name in names)
    eventually(removed, 40)
    assert moved() and call('GET', f'/v1/{account}/c/gone').status == 404
    eventually(lambda: cluster.listings(account, 'c') == [sorted(bodies)] * 3)
    assert call('HEAD', f'/v1/{account}/c/small').headers['Content-Type'] == 'text/x-small'
    # The queue is empty: what was done is not done again.
    queues = eventually(lambda: cluster.listings(ACCOUNT)[0])
    eventually(lambda: all(cluster.listings(ACCOUNT, queue) == [[]] * 3 for queue in queues))
    kind = f'object-{new}' if new else 'object'
    eventually(lambda: all(set(cluster.files(account, 'c', name, policy=new)) == set(cluster.primaries(kind, account, 'c', name))
                           for name in bodies))
    rows = json.loads(call('GET', f'/v1/{account}/c?format=json').body)
    assert {row['name']: row['bytes'] for row in rows} == {name: len(body) for name, body in bodies.items()}


def test_a_proxy_writes_into_another_policy_of_a_sharded_container(cluster, call, eventually):
    account = 'AUTH_sharded'
    assert call('PUT', f'/v1/{account}').status == 201
    assert call('PUT', f'/v1/{account}/c', X_Storage_Policy='gold').status == 201
    names = [f'o{number:02}' for number in range(45)]
    for name in names:
        assert call('PUT', f'/v1/{account}/c/{name}', b'x').status == 201
    eventually(lambda: all(state == 'sharded' for state in cluster.sharding_of(account, 'c')), 40)
    stale = cluster.bare_proxy()
    for method, name, body in (('PUT', 'o20x', b'astray'), ('DELETE', 'o03', b'')):
        request = Request({'REQUEST_METHOD': method, 'PATH_INFO': f'/v1/{account}/c/{name}', 'QUERY_STRING': '',
                           'wsgi.input': io.BytesIO(body), 'CONTENT_LENGTH': str(len(body)),
                           'HTTP_X_BACKEND_STORAGE_POLICY_INDEX': '1'})
        assert stale.handle(request).status in (201, 404)
    eventually(lambda: call('GET', f'/v1/{account}/c/o20x').body == b'astray', 40)
    eventually(lambda: call('GET', f'/v1/{account}/c/o03').status == 404, 40)
    eventually(lambda: all(file.endswith('.ts') for files in cluster.files(account, 'c', 'o20x', policy=1).values()
                           for file in files), 40)
    wanted = sorted({*names, 'o20x'} - {'o03'})
    eventually(lambda: call('GET', f'/v1/{account}/c').body.decode().split() == wanted, 40)
