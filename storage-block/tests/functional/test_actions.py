"""What is done to volumes: extending, reverting, uploading, reimaging, flags and statuses."""
import uuid

from kodiak.storage_block import models


def act(caller, volume, action, body=None, expect=202):
    return caller.post(f'/volumes/{volume["id"]}/action', {action: body}).expect(expect)


def test_extended(cloud, member, volume):
    made = volume()
    for size in (1, 0, 'x', None):
        act(member, made, 'os-extend', {'new_size': size}, 400)
    act(member, made, 'os-extend', {'new_size': 5000}, 400)
    act(member, made, 'os-extend', {'new_size': 3})
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'extending'
    assert member.get('/limits').json['limits']['absolute']['totalGigabytesUsed'] == 3
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert shown['size'] == 3 and shown['status'] == 'available'
    cloud.agent.fails['extend_volume'] = 'No.'
    act(member, made, 'os-extend', {'new_size': 4})
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert shown['size'] == 3 and shown['status'] == 'error_extending'


def test_extended_while_attached_compute_is_told(cloud, member, volume):
    made, server = volume(), str(uuid.uuid4())
    act(member, made, 'os-attach', {'instance_uuid': server, 'mountpoint': '/dev/vdb'})
    act(member, made, 'os-extend', {'new_size': 2})
    cloud.settle()
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'in-use'
    assert cloud.compute.calls == [('POST', '/v2.1/os-server-external-events', {'events': [
        {'name': 'volume-extended', 'server_uuid': server, 'tag': made['id']}]})]


def test_reverted_to_the_newest_snapshot(cloud, member, volume):
    made = volume()
    snapshots = []
    for _ in range(2):
        snapshots.append(member.post('/snapshots', {'snapshot': {'volume_id': made['id']}}).expect(202).json['snapshot']['id'])
        cloud.settle()
    act(member, made, 'revert', {'snapshot_id': snapshots[0]}, 400)
    act(member, made, 'revert', {'snapshot_id': snapshots[1]})
    cloud.settle()
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    assert member.get('/snapshots/' + snapshots[1]).json['snapshot']['status'] == 'available'
    assert cloud.agent.done[-1][0] == 'revert_volume'


def test_uploaded(cloud, member, volume):
    made = volume()
    answer = act(member, made, 'os-volume_upload_image', {'image_name': 'copy', 'disk_format': 'qcow2'}).json
    image = answer['os-volume_upload_image']['image_id']
    assert cloud.image.images[image]['disk_format'] == 'qcow2' and cloud.image.images[image]['min_disk'] == 1
    cloud.settle()
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    cloud.agent.fails['copy_to_image'] = 'The image service broke off.'
    answer = act(member, made, 'os-volume_upload_image', {'image_name': 'copy'}).json
    cloud.settle()
    assert answer['os-volume_upload_image']['image_id'] not in cloud.image.images
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'available'
    assert 'broke off' in cloud.all(models.messages)[0]['text']


def test_an_image_over_a_volume(cloud, member, volume):
    made, image = volume(), cloud.image.add()
    act(member, made, 'os-reimage', {'image_id': image})
    cloud.settle()
    shown = member.get('/volumes/' + made['id']).json['volume']
    assert shown['status'] == 'available' and shown['volume_image_metadata']['image_id'] == image


def test_flags_and_statuses(cloud, member, admin, volume):
    made = volume()
    act(member, made, 'os-set_bootable', {'bootable': True}, 200)
    assert member.get('/volumes/' + made['id']).json['volume']['bootable'] == 'true'
    act(member, made, 'os-set_bootable', {'bootable': 'maybe'}, 400)
    act(member, made, 'os-reset_status', {'status': 'error'}, 403)
    act(member, made, 'os-nothing', {}, 400)
    act(admin, made, 'os-reset_status', {'status': 'error'})
    assert member.get('/volumes/' + made['id']).json['volume']['status'] == 'error'
    act(admin, made, 'os-reset_status', {'status': 'nonsense'}, 400)
    act(member, made, 'os-force_delete', {}, 403)
    act(admin, made, 'os-reset_status', {'status': 'creating'})
    act(admin, made, 'os-force_delete', {})
    cloud.settle()
    member.get('/volumes/' + made['id']).expect(404)


def test_image_metadata(cloud, member, volume):
    made = volume(imageRef=cloud.image.add())
    told = act(member, made, 'os-set_image_metadata', {'metadata': {'hw_qemu_guest_agent': 'yes'}}, 200).json['metadata']
    assert told['hw_qemu_guest_agent'] == 'yes'
    act(member, made, 'os-unset_image_metadata', {'key': 'hw_qemu_guest_agent'}, 200)
    act(member, made, 'os-unset_image_metadata', {'key': 'hw_qemu_guest_agent'}, 404)
    assert 'image_id' in act(member, made, 'os-show_image_metadata', {}, 200).json['metadata']
