"""Compute and block storage in one process: each talks to the other's real API, and neither to a double of it."""
import pathlib

import pytest

from kodiak.common import testing

TOP = pathlib.Path(__file__).parents[2]
COMPUTE = testing.load(TOP / 'compute' / 'tests' / 'functional' / 'servers' / 'conftest.py', 'compute_fixtures')
BLOCK = testing.load(TOP / 'storage-block' / 'tests' / 'functional' / 'conftest.py', 'block_fixtures')


def under(prefix, application):
    """An application as its service has it: below a version."""
    def below(environ, start_response):
        assert environ['PATH_INFO'].startswith(prefix)
        environ['SCRIPT_NAME'], environ['PATH_INFO'] = prefix, environ['PATH_INFO'][len(prefix):]
        return application(environ, start_response)
    return below


class Cloud:
    """Both, with one identity and one image service."""

    def __init__(self, tmp_path, monkeypatch):
        identity = testing.Identity()
        monkeypatch.setattr(testing, 'Identity', lambda: identity)
        (tmp_path / '0').mkdir()
        self.compute = COMPUTE.Cloud(tmp_path / '0', hosts=('one', 'two'))
        self.block = BLOCK.Cloud(tmp_path, hosts={'one': [BLOCK.backend(), BLOCK.backend('second', free_gb=10)]})
        token = identity.token(testing.SERVICE)
        service = {'token': token, 'project': testing.SERVICE.project_id}
        self.compute.app.clients.mount('block-storage', under('/v3', self.block.pipeline), **service)
        self.block.app.clients.mount('compute', under('/v2.1', self.compute.pipelines['/v2.1']), **service)
        self.block.image.images = self.compute.image.images
        self.member = self.compute.client(testing.MEMBER)
        self.admin = self.compute.client(testing.ADMIN)
        self.volumes = self.block.client(testing.MEMBER)

    def settle(self):
        for _ in range(40):
            self.compute.hurry()
            if not (self.compute.turn() | self.block.turn()):
                return
        raise AssertionError('it does not come to rest')

    def volume(self, **fields):
        made = self.volumes.post('/volumes', {'volume': {'size': 1, 'name': 'data', **fields}}).expect(202).json['volume']['id']
        self.settle()
        return made

    def status(self, volume):
        return self.volumes.get('/volumes/' + volume).json['volume']['status']

    def exports(self):
        return {(one['volume_id'], one['connector']['host']) for one in self.block.agent.exports.values()}

    def act(self, server, action, body=None, status=202):
        self.admin.post(f'/servers/{server}/action', {action: body}).expect(status)
        self.settle()
        return self.compute.row(server)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    made = Cloud(tmp_path, monkeypatch)
    yield made
    made.compute.close()
    made.block.close()


@pytest.fixture
def boot(cloud):
    flavor = COMPUTE.make_flavor(cloud.compute)
    image = cloud.compute.image.add(virtual_size=1)

    def run(**fields):
        sent = {'name': 'server', 'flavorRef': flavor, 'imageRef': image, 'networks': 'none', **fields}
        made = cloud.member.post('/servers', {'server': sent}).expect(202).json['server']['id']
        cloud.settle()
        row = cloud.compute.row(made)
        assert row['vm_state'] == 'active', row['fault']
        return made
    run.image = image
    return run


def test_a_volume_comes_grows_and_goes(cloud, boot):
    server, volume = boot(), cloud.volume()
    path = f'/servers/{server}/os-volume_attachments'
    cloud.member.post(path, {'volumeAttachment': {'volumeId': volume}}).expect(200)
    assert cloud.status(volume) == 'reserved'
    cloud.settle()
    assert cloud.status(volume) == 'in-use' and cloud.exports() == {(volume, cloud.compute.row(server)['host'])}
    entry, = cloud.compute.row(server)['volumes']
    held, = entry['attachments'].values()
    assert held['connection']['data']['auth_password'] and held['connection']['driver_volume_type'] == 'iscsi'
    shown = cloud.volumes.get('/volumes/' + volume).json['volume']['attachments'][0]
    assert (shown['server_id'], shown['device']) == (server, '/dev/vdb')
    cloud.volumes.post(f'/volumes/{volume}/action', {'os-extend': {'new_size': 3}}).expect(202)
    cloud.settle()
    assert cloud.compute.row(server)['volumes'][0]['size'] == 3
    cloud.member.delete(f'{path}/{volume}').expect(202)
    cloud.settle()
    assert cloud.status(volume) == 'available' and cloud.exports() == set()


def test_a_server_that_boots_from_a_volume_moves_rests_and_ends(cloud, boot):
    data = cloud.volume()
    server = boot(imageRef='', block_device_mapping_v2=[
        {'source_type': 'image', 'uuid': boot.image, 'destination_type': 'volume', 'volume_size': 2, 'boot_index': 0,
         'delete_on_termination': True},
        {'source_type': 'volume', 'uuid': data, 'destination_type': 'volume', 'boot_index': None}])
    root = cloud.compute.row(server)['volumes'][0]['id']
    host = cloud.compute.row(server)['host']
    assert cloud.exports() == {(root, host), (data, host)}
    row = cloud.act(server, 'migrate')
    assert row['vm_state'] == 'resized' and row['host'] != host, row['fault']
    assert len(cloud.exports()) == 4
    cloud.act(server, 'confirmResize', status=204)
    assert cloud.exports() == {(root, row['host']), (data, row['host'])} and cloud.status(root) == 'in-use'
    row = cloud.act(server, 'shelve')
    assert row['vm_state'] == 'shelved_offloaded', row['fault']
    assert cloud.exports() == set() and cloud.status(data) == 'reserved'
    late = cloud.volume()
    cloud.member.post(f'/servers/{server}/os-volume_attachments', {'volumeAttachment': {'volumeId': late}}).expect(200)
    cloud.settle()
    assert cloud.exports() == set() and cloud.status(late) == 'in-use'
    assert cloud.act(server, 'unshelve')['vm_state'] == 'active' and cloud.status(data) == 'in-use'
    assert {volume for volume, _ in cloud.exports()} == {root, data, late}
    row = cloud.act(server, 'rebuild', {'imageRef': boot.image})
    assert row['vm_state'] == 'active' and cloud.status(root) == 'in-use', row['fault']
    cloud.member.delete('/servers/' + server).expect(204)
    cloud.settle()
    assert cloud.compute.row(server)['deleted'] and cloud.exports() == set() and cloud.status(data) == 'available'
    cloud.volumes.get('/volumes/' + root).expect(404)


def test_an_image_of_it_and_a_server_of_that(cloud, boot):
    server = boot(imageRef='', block_device_mapping_v2=[
        {'source_type': 'image', 'uuid': boot.image, 'destination_type': 'volume', 'volume_size': 1, 'boot_index': 0}])
    image = cloud.member.post(f'/servers/{server}/action', {'createImage': {'name': 'snap'}}).expect(202).json['image_id']
    cloud.settle()
    cloud.compute.image.images[image]['status'] = 'active'
    made = cloud.volume(imageRef=image)
    shown = cloud.volumes.get('/volumes/' + made).json['volume']
    assert shown['snapshot_id'] == cloud.volumes.get('/snapshots').json['snapshots'][0]['id'] and shown['bootable'] == 'true'
    again = boot(imageRef=image)
    assert cloud.compute.row(again)['volumes'][0]['id'] != cloud.compute.row(server)['volumes'][0]['id']


def test_a_volume_in_use_is_snapshot_by_force_alone_where_compute_is_asked(cloud, boot):
    old = cloud.compute.client(testing.MEMBER, '2.1')
    free, held = cloud.volume(), cloud.volume()
    cloud.member.post(f'/servers/{boot()}/os-volume_attachments', {'volumeAttachment': {'volumeId': held}}).expect(200)
    cloud.settle()
    made = old.post('/os-snapshots', {'snapshot': {'volume_id': free}}).expect(200).json['snapshot']
    assert made['volumeId'] == free
    old.post('/os-snapshots', {'snapshot': {'volume_id': held, 'force': False}}).expect(400)
    old.post('/os-snapshots', {'snapshot': {'volume_id': held, 'force': True}}).expect(200)


def test_a_volume_moves_to_another_back_end_under_a_server_that_runs(cloud, boot):
    admin = cloud.block.client(testing.ADMIN)
    server = boot(imageRef='', block_device_mapping_v2=[
        {'source_type': 'image', 'uuid': boot.image, 'destination_type': 'volume', 'volume_size': 1, 'boot_index': 0}])
    host = cloud.compute.row(server)['host']
    root = cloud.compute.row(server)['volumes'][0]['id']
    made = admin.post('/types', {'volume_type': {'name': 'second', 'extra_specs': {'volume_backend_name': 'second'}}}).expect(200)

    def at(backend):
        shown = admin.get('/volumes/' + root).json['volume']
        assert (shown['status'], shown['os-vol-host-attr:host'], shown['migration_status']) == ('in-use', backend, 'success')
        held, = shown['attachments']
        entry, = cloud.compute.row(server)['volumes']
        assert entry['attachments'][host]['id'] == held['attachment_id']
        assert (held['server_id'], held['device']) == (server, '/dev/vda')
        export, = cloud.block.agent.exports.values()
        assert f"one@{export['backend']}#{export['backend']}" == backend and export['attachment_id'] == held['attachment_id']
        assert cloud.block.agent.there == {f'{export["backend"]}/volume-{root}'}
        return shown['volume_type']

    cloud.volumes.post(f'/volumes/{root}/action', {'os-retype': {
        'new_type': made.json['volume_type']['name'], 'migration_policy': 'on-demand'}}).expect(202)
    assert cloud.status(root) == 'retyping'
    cloud.settle()
    assert at('one@second#second') == 'second'
    admin.post(f'/volumes/{root}/action', {'os-migrate_volume': {'host': 'one@file#file', 'force_host_copy': True}}).expect(202)
    assert cloud.status(root) == 'in-use'
    cloud.settle()
    assert at('one@file#file') == 'second'
    done = cloud.member.get(f'/servers/{server}/os-instance-actions').json['instanceActions']
    assert [one['action'] for one in done if one['action'] == 'move_volume'] == ['move_volume'] * 2


def test_a_server_that_does_not_run_keeps_its_volume_where_it_is(cloud, boot):
    admin, server, volume = cloud.block.client(testing.ADMIN), boot(), cloud.volume()
    cloud.member.post(f'/servers/{server}/os-volume_attachments', {'volumeAttachment': {'volumeId': volume}}).expect(200)
    cloud.settle()
    cloud.act(server, 'os-stop')
    admin.post(f'/volumes/{volume}/action', {'os-migrate_volume': {'host': 'one@second#second'}}).expect(202)
    cloud.settle()
    cloud.block.hurry()
    cloud.settle()
    shown = admin.get('/volumes/' + volume).json['volume']
    assert (shown['status'], shown['os-vol-host-attr:host'], shown['migration_status']) == ('in-use', 'one@file#file', 'error')
    assert len(cloud.exports()) == 1 and cloud.block.agent.there == {f'file/volume-{volume}'}
    told, = cloud.volumes.get('/messages').json['messages']
    assert 'could not go on with a copy' in told['user_message']
