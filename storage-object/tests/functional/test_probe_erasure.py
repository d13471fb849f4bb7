"""Policies with erasure codes on eight devices over four server processes: what goes wrong with them, and how it comes right."""
import glob
import hashlib
import os
import shutil

import pytest
from storage_object_probe import Interrupted
from storage_object_probe_fixtures import account_of, fixtures_of

pytest.importorskip('pyeclib', reason='erasure codes need pyeclib')
from kodiak.storage_object.backend import diskfile
from kodiak.storage_object.proxy import backend, ec_put

pytestmark = pytest.mark.probe
POLICIES = {'cold': (1, 6), 'twice': (2, 3)}
started, cluster, call, _ = fixtures_of(2, ('0:gold', '1:cold=4+2', '2:twice=2+1*2'), {1: 6, 2: 6})


class Box:
    """A container of a policy, and what is on the devices of it."""

    def __init__(self, cluster, call, account, policy):
        self.cluster, self.account = cluster, account
        self.policy, self.count = POLICIES[policy]
        self.ring = cluster.rings[f'object-{self.policy}']
        assert call('PUT', f'/v1/{account}').status == 201
        assert call('PUT', f'/v1/{account}/c', X_Storage_Policy=policy).status == 201
        self.path = f'/v1/{account}/c/'

    def primaries(self, name='o'):
        """Devices in the order of their fragments."""
        return [node['id'] for node in self.ring.primaries(self.ring.get_part(self.account, 'c', name))]

    def files(self, name='o'):
        """``{device: [files]}``."""
        return self.cluster.files(self.account, 'c', name, policy=self.policy)

    def whole(self, name='o'):
        """Whether each device has its own durable fragments of one write, and nobody anything else."""
        found, primaries = self.files(name), self.primaries(name)
        stamps = {names[0].partition('#')[0] for names in found.values()}
        return len(stamps) == 1 and found == {device: [f'{min(stamps)}#{place % self.count}#d.data']
                                              for place, device in enumerate(primaries)}

    def deleted(self, name='o'):
        """Whether all have the same mark of the deletion, and nothing else."""
        found = self.files(name)
        return set(found) == set(self.primaries(name)) and len(set(map(tuple, found.values()))) == 1 and all(
            len(names) == 1 and names[0].endswith('.ts') for names in found.values())

    def servers(self, name='o'):
        """``{server: number of its fragments}``."""
        places = [self.cluster.places[device] for device in self.primaries(name)]
        return {place: places.count(place) for place in set(places)}

    def file(self, device, name='o'):
        """Path of the one file of a device."""
        digest = self.ring.hash_path(self.account, 'c', name)
        path, = glob.glob(f'{self.cluster.device(device)}/objects-{self.policy}/*/*/{digest}/*.data')
        return path


def holds(path, wanted):
    """Whether there is this in a file."""
    if not os.path.exists(path):
        return False
    with open(path, 'rb') as file:
        return file.read() == wanted


@pytest.fixture(params=['cold', 'twice'])
def box(cluster, call, request):
    return Box(cluster, call, account_of(request), request.param)


def test_a_server_is_killed_in_the_middle_of_a_put(cluster, call, box, eventually):
    victim = min(box.servers().items(), key=lambda item: item[1])[0]
    data = os.urandom(5 << 20)
    body = Interrupted(data, 2 << 20, lambda: cluster.servers[victim].stop(kill=True))
    assert call('PUT', box.path + 'o', body, Content_Length=str(len(data))).status == 201
    assert call('GET', box.path + 'o').body == data
    cluster.servers[victim].start()
    eventually(box.whole)
    eventually(lambda: cluster.listings(box.account, 'c') == [['o']] * 3)
    assert call('GET', box.path + 'o').body == data


def test_a_server_is_killed_in_the_middle_of_a_get(cluster, call, box, eventually):
    data = os.urandom(24 << 20)         # more than what waits in sockets
    assert call('PUT', box.path + 'o', data).status == 201
    eventually(box.whole)
    victim = cluster.places[box.primaries()[0]]
    for asked, wanted in ((None, data), ('bytes=1000000-22000000', data[1000000:22000001])):
        answer = call('GET', box.path + 'o', stream=True, **({'Range': asked} if asked else {}))
        pieces = iter(answer.chunks())
        got = [next(pieces)]
        cluster.servers[victim].stop(kill=True)
        got += pieces
        assert b''.join(got) == wanted
        cluster.servers[victim].start()


def test_too_many_servers_are_killed_in_the_middle_of_a_put(cluster, call, box, eventually):
    old, data = os.urandom(3 << 20), os.urandom(5 << 20)
    assert call('PUT', box.path + 'o', old).status == 201

    def kill():
        for server in cluster.servers[:3]:
            server.stop(kill=True)
    assert call('PUT', box.path + 'o', Interrupted(data, 2 << 20, kill), Content_Length=str(len(data))).status == 503
    cluster.up()
    eventually(lambda: call('GET', box.path + 'o').body == old)
    eventually(lambda: call('PUT', box.path + 'o', data).status == 201)
    assert call('GET', box.path + 'o').body == data
    eventually(box.whole)


def test_a_device_is_lost_and_comes_back_empty(cluster, call, box, eventually):
    bodies = {f'o{number}': os.urandom(number * 400_000) for number in range(6)}
    for name, data in bodies.items():
        assert call('PUT', box.path + name, data, X_Object_Meta_Of=name).status == 201
    assert call('POST', box.path + 'o1', X_Object_Meta_Of='all').status == 202
    lost = box.primaries('o5')[0]
    os.rename(cluster.device(lost), f'{cluster.folder}/lost-{box.account}')
    for name, data in bodies.items():
        assert call('GET', box.path + name).body == data
    assert call('PUT', box.path + 'o2', b'new').status == 201
    os.makedirs(cluster.device(lost))
    bodies['o2'] = b'new'
    eventually(lambda: all(box.whole(name) for name in bodies if name != 'o1'))
    eventually(lambda: len(set(map(len, box.files('o1').values()))) == 1 and len(box.files('o1')) == 6)
    for name, data in bodies.items():
        # Without the parity, and so with what was made anew.
        found = call('GET', box.path + name)
        assert found.body == data and found.headers.get('X-Object-Meta-Of', 'all') in (name, 'all')
    eventually(lambda: cluster.listings(box.account, 'c') == [sorted(bodies)] * 3)


@pytest.mark.parametrize('size', [100, 3_000_000])
def test_a_fragment_is_damaged(cluster, call, box, eventually, size):
    data = os.urandom(size)
    assert call('PUT', box.path + 'o', data).status == 201
    eventually(box.whole)
    device = box.primaries()[0]
    path = box.file(device)
    with open(path, 'r+b') as file:
        good = file.read()
        file.seek(85)
        file.write(bytes([good[85] ^ 1]))
    assert call('GET', box.path + 'o').body == data
    assert call('GET', box.path + 'o', Range='bytes=20-29').body == data[20:30]
    cluster.servers[cluster.places[device]].once('auditor')

    eventually(lambda: holds(path, good))
    digest = box.ring.hash_path(box.account, 'c', 'o')
    assert glob.glob(f'{cluster.device(device)}/quarantined/objects-{box.policy}/{digest}*')


def test_a_fragment_was_damaged_on_its_way(cluster, call, box, eventually):
    data = os.urandom(1_300_000)
    assert call('PUT', box.path + 'o', data).status == 201
    eventually(box.whole)
    device = box.primaries()[1]
    path = box.file(device)
    with open(path, 'r+b') as file:
        good = file.read()
        metadata, size = diskfile.read_trailer(file.fileno())
        body = bytearray(good[:size])
        body[300_000] ^= 1
        # All that the device itself can tell is as it should be.
        metadata['Etag'] = hashlib.md5(body).hexdigest()
        file.seek(0)
        file.write(bytes(body) + diskfile.trailer(size, metadata))
    assert call('GET', box.path + 'o').body == data
    cluster.servers[cluster.places[device]].once('auditor')

    eventually(lambda: holds(path, good))


def test_fragments_go_home_from_handoffs(cluster, call, box, eventually):
    away = next(server for server, count in box.servers().items() if count == 2)
    cluster.servers[away].stop()
    data = os.urandom(2_500_000)
    status = call('PUT', box.path + 'o', data).status
    if box.policy == 1:
        assert status == 201
        assert call('GET', box.path + 'o').body == data
        assert set(box.files()) - set(box.primaries())
    cluster.servers[away].start()
    if status != 201:
        eventually(lambda: call('PUT', box.path + 'o', data).status == 201)
    eventually(box.whole)
    assert call('GET', box.path + 'o').body == data


def test_what_was_deleted_or_changed_while_a_server_was_away(cluster, call, box, eventually):
    assert call('PUT', box.path + 'o', b'x' * 5000).status == 201
    assert call('PUT', box.path + 'p', b'x' * 5000).status == 201
    away = cluster.places[box.primaries('o')[1]]
    cluster.servers[away].stop()
    assert call('DELETE', box.path + 'o').status == 204
    assert call('POST', box.path + 'p', X_Object_Meta_A='1').status == 202
    cluster.servers[away].start()
    eventually(box.deleted)
    eventually(lambda: all(len(names) == 2 for names in box.files('p').values()) and len(box.files('p')) == 6)
    assert call('GET', box.path + 'o').status == 404
    for _ in range(6):
        assert call('HEAD', box.path + 'p').headers['X-Object-Meta-A'] == '1'
    eventually(lambda: cluster.listings(box.account, 'c') == [['p']] * 3)


@pytest.mark.parametrize('told', [0, 1])
def test_a_proxy_dies_between_the_two_steps(cluster, call, box, eventually, told):
    old, data = os.urandom(1_500_000), os.urandom(2_500_000)
    assert call('PUT', box.path + 'o', old).status == 201
    part = box.ring.get_part(box.account, 'c', 'o')
    headers = {'X-Timestamp': '9000000000.00000', 'X-Backend-Storage-Policy-Index': str(box.policy)}
    codec = next(policy.codec for policy in _policies(cluster) if policy.index == box.policy)
    upload = ec_put.Upload(backend.Client(backend.Pool(), backend.Nodes()), box.ring, part, f'/{box.account}/c/o', headers, codec,
                           len(data))
    assert upload.run([data], dict)[0] == 6
    assert call('GET', box.path + 'o').body == old
    upload.answers = upload.answers[:told]
    assert [answer.status for answer in upload.commit([headers] * told)] == [201] * told
    assert call('GET', box.path + 'o').body == (data if told else old)
    if told:
        eventually(box.whole)
    else:
        for server in cluster.servers:
            server.once('reconstructor')
        assert call('GET', box.path + 'o').body == old
        assert all(len(names) == 2 for names in box.files().values())


def _policies(cluster):
    from kodiak.storage_object.ring import Policies

    class Conf:
        class storage:
            policies, ring_path = cluster.policies, cluster.rings_folder
    return Policies(Conf)


def test_one_pass_by_hand_makes_a_lost_device_whole(cluster, call, box):
    data = os.urandom(1_200_000)
    assert call('PUT', box.path + 'o', data).status == 201
    device = box.primaries()[0]
    server = cluster.servers[cluster.places[device]]
    server.stop()
    shutil.rmtree(cluster.device(device))
    os.makedirs(cluster.device(device))
    shown = server.once('reconstructor')
    assert shown.startswith('reconstructor {')
    assert box.whole()
    with open(f'{cluster.device(device)}/reconstructor.json') as file:
        assert file.read().startswith('{')
