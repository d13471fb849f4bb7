"""The volumes of servers, as their owners see them."""
import uuid

import orjson
import pytest

from kodiak.common import db, testing
from kodiak.compute import store


@pytest.fixture
def member(as_):
    return as_(testing.MEMBER)


@pytest.fixture
def post(cloud, as_, flavor, image):
    def run(status=202, version='2.96', settle=True, **fields):
        sent = {'name': 'server', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **fields}
        answer = as_(testing.MEMBER, version).post('/servers', {'server': {
            name: value for name, value in sent.items() if value is not ...}}).expect(status)
        if settle:
            cloud.settle()
        return answer
    return run


def device(source, uuid=None, index=0, **more):
    found = {'source_type': source, 'destination_type': 'volume', 'boot_index': index, **more}
    return {**found, 'uuid': uuid} if uuid else found


def message(answer):
    return next(iter(answer.json.values()))['message']


def disks(cloud, server):
    return cloud.agent.drivers['one'].look(server['id'])


# Attaching and detaching

def test_a_volume_comes_is_shown_and_goes(cloud, boot, member):
    server = boot()
    path = f'/servers/{server["id"]}/os-volume_attachments'
    volume = cloud.block.add()
    made = member.post(path, {'volumeAttachment': {'volumeId': volume, 'device': '/dev/vdc', 'tag': 'data',
                                                   'delete_on_termination': True}}).expect(200).json['volumeAttachment']
    assert cloud.block.volumes[volume]['status'] == 'reserved'
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'in-use' and disks(cloud, server).volumes == {volume}
    assert cloud.block.exports() == {(volume, 'one')}
    entry = cloud.row(server['id'])['volumes'][0]
    assert made == {'volumeId': volume, 'serverId': server['id'], 'device': '/dev/vdc', 'tag': 'data',
                    'delete_on_termination': True, 'attachment_id': entry['attachments']['one']['id'], 'bdm_uuid': entry['bdm']}
    assert member.get(path).expect(200).json == {'volumeAttachments': [made]}
    assert member.get(f'{path}/{volume}').expect(200).json == {'volumeAttachment': made}
    assert cloud.client(testing.MEMBER, '2.1').get(path).json == {'volumeAttachments': [
        {'id': volume, 'volumeId': volume, 'serverId': server['id'], 'device': '/dev/vdc'}]}
    assert member.get('/servers/' + server['id']).json['server']['os-extended-volumes:volumes_attached'] == [
        {'id': volume, 'delete_on_termination': True}]
    member.put(f'{path}/{volume}', {'volumeAttachment': {'volumeId': volume, 'delete_on_termination': False}}).expect(202)
    assert not member.get(f'{path}/{volume}').json['volumeAttachment']['delete_on_termination']
    answer = member.put(f'{path}/{volume}', {'volumeAttachment': {'volumeId': volume, 'tag': 'other'}}).expect(400)
    assert 'tag property' in message(answer)
    member.delete(f'{path}/{volume}').expect(202)
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'available' and disks(cloud, server).volumes == set()
    assert member.get(path).json == {'volumeAttachments': []} and cloud.block.attachments == {}
    member.get(f'{path}/{volume}').expect(404)
    member.delete(f'{path}/{volume}').expect(404)
    found = member.get(f'/servers/{server["id"]}/os-instance-actions').json['instanceActions']
    assert [action['action'] for action in found] == ['detach_volume', 'attach_volume', 'create']


def test_what_cannot_be_attached(cloud, boot, member, as_):
    server = boot()
    path = f'/servers/{server["id"]}/os-volume_attachments'

    def attach(status, volume, version='2.96', **more):
        return as_(testing.MEMBER, version).post(path, {'volumeAttachment': {'volumeId': volume, **more}}).expect(status)
    assert 'could not be found' in message(attach(404, str(uuid.uuid4())))
    assert "status must be 'available'" in message(attach(400, cloud.block.add(status='error')))
    first = cloud.block.add()
    attach(200, first, device='/dev/vdb')
    assert 'already attached' in message(attach(400, first))
    assert 'in use' in message(attach(409, cloud.block.add(), device='/dev/vda'))
    assert 'in use' in message(attach(409, cloud.block.add(), device='/dev/sdb'))
    attach(400, cloud.block.add(), device='nonsense')
    attach(400, cloud.block.add(), '2.48', tag='x')
    attach(400, cloud.block.add(), '2.78', delete_on_termination=True)
    many = cloud.block.add(multiattach=True)
    assert '2.60' in message(attach(400, many, '2.59'))
    member.delete(f'{path}/{first}').expect(400)        # it is still being attached
    cloud.settle()
    # Block storage has the last word, and nothing is left of it here.
    volume = cloud.block.add()
    read = cloud.block.answer

    def refuse(method, path, query, body):
        if method == 'POST' and path.endswith('/attachments'):
            return 400, {'badRequest': {'code': 400, 'message': 'somebody was faster'}}
        return read(method, path, query, body)
    cloud.block.answer = refuse
    assert 'somebody was faster' in message(attach(400, volume))
    cloud.block.answer = read
    cloud.settle()
    assert [entry['id'] for entry in cloud.row(server['id'])['volumes']] == [first]
    member.post(f'/servers/{server["id"]}/action', {'pause': None}).expect(202)
    cloud.settle()
    attach(200, volume)
    cloud.settle()
    assert disks(cloud, server).volumes == {first, volume}
    member.post(f'/servers/{server["id"]}/action', {'unpause': None}).expect(202)
    cloud.settle()
    member.post(f'/servers/{server["id"]}/action', {'rescue': None}).expect(200)
    cloud.settle()
    assert "Cannot 'attach_volume'" in message(attach(409, cloud.block.add()))
    member.delete(f'{path}/{volume}').expect(409)


def test_a_volume_for_several_servers(cloud, boot, member):
    volume = cloud.block.add(multiattach=True)
    servers = [boot(), boot()]
    for server in servers:
        member.post(f'/servers/{server["id"]}/os-volume_attachments', {'volumeAttachment': {'volumeId': volume}}).expect(200)
        cloud.settle()
    assert len(cloud.block.attachments) == 2 and all(disks(cloud, server).volumes == {volume} for server in servers)
    member.delete(f'/servers/{servers[0]["id"]}/os-volume_attachments/{volume}').expect(202)
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'in-use' and len(cloud.block.attachments) == 1


def test_a_guest_that_holds_on_keeps_its_volume(cloud, boot, member, monkeypatch):
    from kodiak.compute.drivers import base, fake
    server, volume = boot(), cloud.block.add()
    path = f'/servers/{server["id"]}/os-volume_attachments'
    member.post(path, {'volumeAttachment': {'volumeId': volume}}).expect(200)
    cloud.settle()

    def unplug(self, instance, record, ports, volumes):
        raise base.Fault('unplug-refused', 'The guest does not let go of the device.', final=True)
    with monkeypatch.context() as patched:
        patched.setattr(fake.FakeDriver, 'unplug', unplug)
        member.delete(f'{path}/{volume}').expect(202)
        for _ in range(3):
            cloud.settle()
            cloud.hurry()
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'in-use' and disks(cloud, server).volumes == {volume}
    actions = member.get(f'/servers/{server["id"]}/os-instance-actions').json['instanceActions']
    assert 'does not let go' in actions[0]['message']
    assert member.get('/servers/' + server['id']).json['server']['status'] == 'ACTIVE'
    member.delete(f'{path}/{volume}').expect(202)
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'available'


def test_a_shelved_server_gets_and_loses_volumes(cloud, boot, member, as_):
    server = boot(imageRef=..., block_device_mapping_v2=[device('volume', cloud.block.add(bootable='true'))])
    volume, other = cloud.block.add(), cloud.block.add()
    path = f'/servers/{server["id"]}/os-volume_attachments'
    member.post(f'/servers/{server["id"]}/action', {'shelve': None}).expect(202)
    cloud.settle()
    as_(testing.MEMBER, '2.19').post(path, {'volumeAttachment': {'volumeId': volume}}).expect(409)
    for found in (volume, other):
        member.post(path, {'volumeAttachment': {'volumeId': found}}).expect(200)
        cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'in-use' and cloud.block.exports() == set()
    member.delete(f'{path}/{other}').expect(202)
    cloud.settle()
    assert cloud.block.volumes[other]['status'] == 'available'
    member.post(f'/servers/{server["id"]}/action', {'unshelve': None}).expect(202)
    cloud.settle()
    assert cloud.block.volumes[volume]['status'] == 'in-use' and volume in disks(cloud, server).volumes


def test_one_volume_takes_the_place_of_another(cloud, boot, member, as_):
    server, old, new = boot(), cloud.block.add(size=2), cloud.block.add(size=3)
    path = f'/servers/{server["id"]}/os-volume_attachments'
    member.post(path, {'volumeAttachment': {'volumeId': old}}).expect(200)
    cloud.settle()
    admin = as_(testing.ADMIN)

    def swap(status, volume, caller=admin):
        return caller.put(f'{path}/{old}', {'volumeAttachment': {'volumeId': volume}}).expect(status)
    swap(403, new, member)
    swap(404, str(uuid.uuid4()))
    assert 'the new one has 1 GiB' in message(swap(400, cloud.block.add(size=1)))
    swap(400, cloud.block.add(size=3, status='error'))
    swap(400, cloud.block.add(size=3, multiattach=True))
    swap(202, new)
    assert cloud.block.volumes[new]['status'] == 'reserved'
    assert 'being changed already' in message(swap(400, cloud.block.add(size=4)))
    member.delete(f'{path}/{old}').expect(400)
    cloud.settle()
    assert [entry['volumeId'] for entry in member.get(path).json['volumeAttachments']] == [new]
    assert disks(cloud, server).volumes == {new} and cloud.block.exports() == {(new, 'one')}
    assert (cloud.block.volumes[old]['status'], cloud.block.volumes[new]['status']) == ('available', 'in-use')


# Booting

def test_boot_from_what_there_is(cloud, post, member, image):
    cloud.image.images[image].update(hw_disk_bus='scsi', min_disk=2)
    snapshot = cloud.block.make_snapshots({'volume_id': cloud.block.add(size=3), 'name': 's'})[1]['snapshot']['id']
    root = cloud.block.add(bootable='true', volume_image_metadata={'image_id': image, 'hw_disk_bus': 'virtio', 'min_ram': '64'})
    for source, found, size in (('volume', root, ...), ('snapshot', snapshot, ...), ('image', image, 5), ('blank', None, 4)):
        more = {} if size is ... else {'volume_size': size}
        server = post(imageRef='', block_device_mapping_v2=[
            device(source, found, **more), device('blank', None, None, volume_size=1, delete_on_termination=True)]).json['server']
        shown = member.get('/servers/' + server['id']).json['server']
        assert (shown['status'], shown['image']) == ('ACTIVE', ''), shown.get('fault')
        attached = shown['os-extended-volumes:volumes_attached']
        assert len(attached) == 2 and disks(cloud, server).volumes == {entry['id'] for entry in attached}
        entries = cloud.row(server['id'])['volumes']
        assert [entry['device'] for entry in entries] == [
            ('/dev/sd' if source == 'image' else '/dev/vd') + letter for letter in 'ab']
        assert [entry['size'] for entry in entries] == [{'volume': 1, 'snapshot': 3, 'image': 5, 'blank': 4}[source], 1]
        member.delete(f'/servers/{server["id"]}/os-volume_attachments/{entries[0]["id"]}').expect(403)
        member.delete('/servers/' + server['id']).expect(204)
        cloud.settle()
        assert cloud.block.attachments == {} and entries[1]['id'] not in cloud.block.volumes
        assert cloud.block.volumes[entries[0]['id']]['status'] == 'available'


def test_a_server_with_an_image_and_volumes(cloud, post, member, image):
    volume, root = cloud.block.add(), cloud.block.add(bootable='true')
    cloud.image.images[image]['hw_vif_model'] = 'e1000'
    server = post(block_device_mapping_v2=[device('volume', root)]).json['server']
    assert cloud.row(server['id'])['image_ref'] is None and disks(cloud, server).volumes == {root}
    with cloud.db.read() as connection:
        assert store.spec(connection, server['id'])['hardware']['hw_vif_model'] == 'e1000'
    server = post(block_device_mapping_v2=[device('image', image, destination_type='local'), device('volume', volume, 1)])
    assert cloud.row(server.json['server']['id'])['image_ref'] == image
    member.delete('/servers/' + server.json['server']['id']).expect(204)
    cloud.settle()
    server = post(block_device_mapping_v2=[device('volume', volume, None, device_name='/dev/vdz', tag='data')]).json['server']
    row = cloud.row(server['id'])
    assert row['image_ref'] and row['volumes'][0]['device'] == '/dev/vdz' and disks(cloud, server).volumes == {volume}
    old = post(imageRef=..., version='2.1', networks=..., block_device_mapping=[
        {'device_name': 'vda', 'volume_id': cloud.block.add(bootable='true'), 'delete_on_termination': '1'}])
    assert cloud.row(old.json['server']['id'])['volumes'][0]['boot_index'] == 0


def test_mappings_that_make_no_sense(cloud, post, image, flavor):
    def refused(text, status=400, version='2.96', **fields):
        fields.setdefault('imageRef', '')
        found = message(post(status, version, settle=False, **fields))
        assert text in found, found
    volume, plain = cloud.block.add(bootable='true'), cloud.block.add()
    missing = str(uuid.uuid4())
    refused('failed to get volume', block_device_mapping_v2=[device('volume', missing)])
    refused('failed to get snapshot', block_device_mapping_v2=[device('snapshot', missing)])
    refused('Can not find requested image', block_device_mapping_v2=[device('image', missing, volume_size=1)])
    refused('is not bootable', block_device_mapping_v2=[device('volume', plain)])
    refused('Boot sequence', block_device_mapping_v2=[device('volume', volume, 1)])
    refused('Boot sequence', block_device_mapping_v2=[device('volume', volume, None)])
    refused('more local devices', imageRef=image, block_device_mapping_v2=[
        device('image', cloud.image.add(), destination_type='local')])
    refused('Boot sequence', block_device_mapping_v2=[device('volume', volume), device('volume', plain)])
    refused('non-zero size', block_device_mapping_v2=[device('image', image)])
    refused('non-zero size', block_device_mapping_v2=[device('volume', volume), device('blank', None, None)])
    refused('Missing device UUID', block_device_mapping_v2=[device('volume')])
    refused('Invalid device UUID', block_device_mapping_v2=[device('blank', missing, volume_size=1)])
    refused('named twice', block_device_mapping_v2=[device('volume', volume), device('volume', volume, None)])
    refused('multiple instances', max_count=2, block_device_mapping_v2=[device('volume', volume)])
    refused("status must be 'available'", block_device_mapping_v2=[device('volume', cloud.block.add(status='in-use'))])
    refused('same device name', imageRef=image, block_device_mapping_v2=[device('volume', volume, None, device_name='/dev/vda')])
    refused('volume_type', version='2.66', block_device_mapping_v2=[device('image', image, volume_size=1, volume_type='x')])
    refused('2.60', version='2.59', block_device_mapping_v2=[device('volume', cloud.block.add(bootable='true', multiattach=True))])
    cloud.image.images[image]['min_disk'] = 9
    refused('Volume is smaller', block_device_mapping_v2=[device('image', image, volume_size=1)])
    assert all(entry['status'] in ('available', 'in-use') for entry in cloud.block.volumes.values())
    assert cloud.block.attachments == {}


def test_volumes_that_cannot_be_made_leave_a_server_in_error(cloud, post, member, image):
    read = cloud.block.answer

    def over_quota(method, path, query, body):
        if method == 'POST' and path.endswith('/volumes'):
            return 413, {'overLimit': {'code': 413, 'message': 'VolumeSizeExceedsAvailableQuota: too large'}}
        return read(method, path, query, body)
    cloud.block.answer = over_quota
    server = post(imageRef='', block_device_mapping_v2=[device('image', image, volume_size=1)]).json['server']
    shown = member.get('/servers/' + server['id']).json['server']
    assert shown['status'] == 'ERROR' and 'VolumeSizeExceedsAvailableQuota' in shown['fault']['message']
    cloud.block.answer = read
    cloud.block.makes = False
    server = post(imageRef='', block_device_mapping_v2=[
        device('image', image, volume_size=1, delete_on_termination=True)]).json['server']
    volume, = cloud.block.volumes.values()
    assert member.get('/servers/' + server['id']).json['server']['OS-EXT-STS:task_state'] == 'block_device_mapping'
    volume['status'] = 'error'
    cloud.hurry()
    cloud.settle()
    assert member.get('/servers/' + server['id']).json['server']['status'] == 'ERROR' and cloud.block.volumes == {}
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()


def test_another_host_gets_the_same_volumes(make_cloud, monkeypatch):
    from kodiak.compute.drivers import base, fake
    cloud = make_cloud(hosts=('one', 'two'))
    admin = cloud.client(testing.ADMIN)
    flavor = admin.post('/flavors', {'flavor': {'name': 'f', 'ram': 1, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    broken = set()

    def build(self, instance, record):
        if not broken or self.host in broken:
            broken.add(self.host)
            raise base.Fault('no-disk-space', 'The disk is full.')
    monkeypatch.setattr(fake.FakeDriver, 'build', build)
    image = cloud.image.add()
    server = admin.post('/servers', {'server': {
        'name': 's', 'flavorRef': flavor, 'networks': 'none',
        'block_device_mapping_v2': [device('image', image, volume_size=1)]}}).expect(202).json['server']['id']
    for _ in range(40):
        cloud.turn()
        cloud.agent.reconciler._due.update(dict.fromkeys(cloud.agent.reconciler._due, 0.0))
        cloud.hurry()
    row = cloud.row(server)
    assert row['vm_state'] == 'active' and row['host'] not in broken and len(cloud.block.volumes) == 1, row['fault']
    assert {host for _, host in cloud.block.exports()} == {row['host']}



def test_the_image_that_a_volume_was_made_from_decides_where_it_boots(cloud, post, member):
    root = cloud.block.add(bootable='true', volume_image_metadata={'hw_architecture': 'sparc'})
    server = post(imageRef='', block_device_mapping_v2=[device('volume', root)]).json['server']
    assert 'architecture' in member.get('/servers/' + server['id']).json['server']['fault']['message']
    assert cloud.block.volumes[root]['status'] == 'available'


# What is done to servers that boot from volumes

@pytest.fixture
def booted(cloud, post, image):
    volume = cloud.block.add(bootable='true', volume_image_metadata={'image_id': image, 'hw_disk_bus': 'virtio'})
    return post(imageRef='', block_device_mapping_v2=[device('volume', volume)]).json['server']


def test_an_image_of_it_names_snapshots(cloud, booted, post, member):
    answer = member.post(f'/servers/{booted["id"]}/action', {'createImage': {'name': 'snap', 'metadata': {'a': 'b'}}}).expect(202)
    image = cloud.image.images[answer.json['image_id']]
    mapping, = orjson.loads(image['block_device_mapping'])
    assert list(cloud.block.snapshots) == [mapping['snapshot_id']] and (image['a'], image['hw_disk_bus']) == ('b', 'virtio')
    assert member.get('/servers/' + booted['id']).json['server']['OS-EXT-STS:task_state'] is None
    image['status'] = 'active'
    again = post(imageRef=image['id'], block_device_mapping_v2=[
        device('image', image['id'], destination_type='local')]).json['server']
    assert cloud.row(again['id'])['vm_state'] == 'active', cloud.row(again['id'])['fault']
    made = cloud.row(again['id'])['volumes'][0]
    assert cloud.block.volumes[made['id']]['snapshot_id'] == mapping['snapshot_id']
    member.post(f'/servers/{booted["id"]}/action', {'createBackup': {'name': 'x', 'backup_type': 'd', 'rotation': 1}}).expect(400)


def test_an_image_that_fails_leaves_no_snapshots(cloud, booted, member):
    def refuse(method, path, query, body):
        return (413, {'message': 'too many'}) if method == 'POST' else (200, {})
    cloud.image.answer = refuse
    member.post(f'/servers/{booted["id"]}/action', {'createImage': {'name': 'snap'}}).expect(413)
    assert cloud.block.snapshots == {}


def test_rebuild_and_rescue_of_it(cloud, booted, member, as_, image):
    path, other = f'/servers/{booted["id"]}/action', cloud.image.add()
    as_(testing.MEMBER, '2.92').post(path, {'rebuild': {'imageRef': other}}).expect(400)
    as_(testing.MEMBER, '2.92').post(path, {'rebuild': {'imageRef': image, 'name': 'new'}}).expect(202)
    cloud.settle()
    row = cloud.row(booted['id'])
    assert (row['vm_state'], row['name'], row['image_ref']) == ('active', 'new', None)
    assert 'image' not in cloud.block.volumes[row['volumes'][0]['id']]
    as_(testing.MEMBER, '2.86').post(path, {'rescue': {'rescue_image_ref': image}}).expect(400)
    member.post(path, {'rescue': None}).expect(400)
    member.post(path, {'rescue': {'rescue_image_ref': image}}).expect(200)
    cloud.settle()
    assert member.get('/servers/' + booted['id']).json['server']['status'] == 'RESCUE'


# Old proxies

def test_volumes_and_snapshots_as_they_once_were_shown(cloud, as_, boot):
    old = as_(testing.MEMBER, '2.35')
    made = old.post('/os-volumes', {'volume': {'size': 1, 'display_name': 'v', 'metadata': {'a': 'b'}}}).expect(200).json['volume']
    assert (made['displayName'], made['metadata'], made['attachments']) == ('v', {'a': 'b'}, [{}])
    assert old.get('/os-volumes').expect(200).json['volumes'] == [made]
    assert old.get('/os-volumes/detail', ).json == old.get('/os-volumes').json
    assert old.get('/os-volumes/' + made['id']).json['volume'] == made
    snapshot = old.post('/os-snapshots', {'snapshot': {'volume_id': made['id'], 'display_name': 's'}}).expect(200).json['snapshot']
    assert old.get('/os-snapshots').json['snapshots'] == [snapshot] == old.get('/os-snapshots/detail').json['snapshots']
    assert old.get('/os-snapshots/' + snapshot['id']).json['snapshot'] == snapshot and snapshot['volumeId'] == made['id']
    old.delete('/os-snapshots/' + snapshot['id']).expect(202)
    old.delete('/os-volumes/' + made['id']).expect(202)
    old.get('/os-volumes/' + made['id']).expect(404)
    old.delete('/os-volumes/' + made['id']).expect(404)
    old.post('/os-volumes', {'volume': {'size': 0}}).expect(400)
    as_(testing.MEMBER, '2.36').get('/os-volumes').expect(404)


def test_counts_of_statements_and_requests(cloud, boot, member, post, image):
    server, volume = boot(), cloud.block.add()
    path = f'/servers/{server["id"]}/os-volume_attachments'
    cloud.block.calls.clear()
    with db.count_queries() as queries:
        member.post(path, {'volumeAttachment': {'volumeId': volume}}).expect(200)
    assert [method for method, *_ in cloud.block.calls] == ['GET', 'POST'] and len(queries) <= 18, queries
    cloud.settle()
    cloud.block.calls.clear()
    for found in (path, f'{path}/{volume}'):
        with db.count_queries() as queries:
            member.get(found).expect(200)
        assert len(queries) <= 2, queries
    assert cloud.block.calls == []
    cloud.image.calls.clear()
    post(imageRef='', settle=False, block_device_mapping_v2=[device('image', image, volume_size=1)])
    assert len(cloud.block.calls) + len(cloud.image.calls) == 2
    cloud.settle()
