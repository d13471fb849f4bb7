"""The API, its conductor and a real agent with files: what a user asks for is on the disk."""
import base64
import os
import threading

import pytest

from kodiak.common import testing
from kodiak.storage_block import rpc as tables
from kodiak.storage_block.drivers import base

CONNECTOR = {'host': 'compute', 'ip': '192.0.2.9', 'initiator': 'iqn.x:y', 'multipath': False, 'os_type': 'linux',
             'platform': 'x86_64'}


@pytest.fixture
def whole(make_cloud, world):
    """``world`` with the conductor of a ``cloud`` in place of its own."""
    cloud = make_cloud(hosts={'other': []})
    agent = world.agent
    agent.client = cloud.app.bus.client(tables.CONDUCTOR, tables.CONDUCTOR_TOPIC)
    agent.tasks.passphrase = lambda key: base64.b64decode(agent.client.call('key', host='host', key_id=key)['passphrase'])
    del agent.backends['other']
    agent.register()
    world.until(lambda: agent.reconciler.generation is not None)
    stop = threading.Event()

    def turn():
        while not stop.wait(0.01):
            cloud.hurry()
            cloud.worker.run_due()
            agent.reconciler.nudge()
    thread = threading.Thread(target=turn)
    thread.start()
    world.cloud, world.member, world.admin = cloud, cloud.client(), cloud.client(testing.ADMIN)
    yield world
    stop.set()
    thread.join(20)


def becomes(world, path, status, kind='volume'):
    def found():
        return world.member.get(path).json[kind]
    world.until(lambda: found()['status'] == status or ('error' in found()['status'] and 'error' not in status))
    assert found()['status'] == status, world.cloud.client(testing.ADMIN).get('/messages').json
    return found()


def make(world, **fields):
    made = world.member.post('/volumes', {'volume': {'size': 1, **fields}}).expect(202).json['volume']['id']
    becomes(world, '/volumes/' + made, 'available')
    return made, world.path(base.volume(made))


def test_a_volume_its_snapshot_its_clone_and_their_end(whole):
    id, path = make(whole)
    with open(path, 'r+b') as file:
        file.write(b'kept')
    snapshot = whole.member.post('/snapshots', {'snapshot': {'volume_id': id}}).expect(202).json['snapshot']['id']
    becomes(whole, '/snapshots/' + snapshot, 'available', 'snapshot')
    clone, cloned = make(whole, snapshot_id=snapshot, size=2)
    with open(cloned, 'rb') as file:
        assert file.read(4) == b'kept'
    whole.member.post(f'/volumes/{clone}/action', {'os-extend': {'new_size': 3}}).expect(202)
    assert becomes(whole, '/volumes/' + clone, 'available')['size'] == 3
    whole.member.delete('/snapshots/' + snapshot).expect(202)
    whole.until(lambda: whole.member.get('/snapshots/' + snapshot).status == 404)
    for each in (id, clone):
        whole.member.delete('/volumes/' + each).expect(202)
        whole.until(lambda each=each: whole.member.get('/volumes/' + each).status == 404)
    assert os.listdir(whole.driver.folder) == []


def test_an_attachment_is_an_export(whole):
    id, path = make(whole)
    attachment = whole.member.post('/attachments', {'attachment': {
        'volume_uuid': id, 'instance_uuid': '6f1b3a5e-0000-4000-8000-000000000000'}}).expect(200).json['attachment']['id']
    said = whole.member.put('/attachments/' + attachment, {'attachment': {'connector': CONNECTOR}}).expect(200).json['attachment']
    assert said['connection_info']['driver_volume_type'] == 'iscsi'
    assert whole.exporter.there[attachment].node.path == path
    whole.member.post(f'/attachments/{attachment}/action', {'os-complete': None}).expect(204)
    assert whole.member.get('/volumes/' + id).json['volume']['status'] == 'in-use'
    whole.member.delete('/attachments/' + attachment).expect(409)
    service = testing.Client(whole.cloud.pipeline, whole.cloud.identity.token(testing.SERVICE), prefix='/' + testing.PROJECT,
                             headers={'OpenStack-API-Version': 'volume 3.71'})
    service.delete('/attachments/' + attachment).expect(200)
    whole.until(lambda: not whole.exporter.there)
    assert whole.member.get('/volumes/' + id).json['volume']['status'] == 'available'
