"""What can be done to a server, from the request to what comes of it."""
import pytest
import sqlalchemy as sa

from kodiak.common import testing
from kodiak.compute import models, placement


class FakeImages:
    """What an agent uploads to: the image becomes active."""

    def __init__(self, image):
        self.image = image

    def upload(self, image_id, file, size, disk_format):
        self.image.images[image_id].update(status='active', size=size, disk_format=disk_format)


@pytest.fixture
def member(cloud, as_):
    for driver in cloud.agent.drivers.values():
        driver.images = FakeImages(cloud.image)
    return as_(testing.MEMBER)


@pytest.fixture
def act(cloud, member):
    def run(server, action, body=None, status=202, settle=True, client=None):
        answer = (client or member).post(f'/servers/{server["id"]}/action', {action: body}).expect(status)
        if settle:
            cloud.settle()
        return answer
    return run


@pytest.fixture
def show(member):
    return lambda server: member.get('/servers/' + server['id']).expect(200).json['server']


def state(shown):
    return shown['status'], shown['OS-EXT-STS:task_state'], shown['OS-EXT-STS:power_state']


def no_operations(cloud):
    return all(guest['operations'] == [] for guest in cloud.all(models.guests))


def allocations(cloud, uuid):
    with cloud.db.read() as connection:
        return placement.allocations(connection, uuid)


def test_power(cloud, boot, act, show):
    server = boot()
    act(server, 'os-stop', settle=False)
    assert state(show(server)) == ('ACTIVE', 'powering-off', 1)
    cloud.settle()
    assert state(show(server)) == ('SHUTOFF', None, 4)
    act(server, 'os-stop', status=409)
    act(server, 'os-start')
    assert state(show(server)) == ('ACTIVE', None, 1)
    for there, back, status, power in (('pause', 'unpause', 'PAUSED', 3), ('suspend', 'resume', 'SUSPENDED', 7)):
        act(server, there)
        assert state(show(server)) == (status, None, power)
        act(server, back)
        assert state(show(server)) == ('ACTIVE', None, 1)


@pytest.mark.parametrize('kind', ['SOFT', 'HARD'])
def test_reboot(cloud, boot, act, show, kind):
    server = boot()
    act(server, 'reboot', {'type': kind}, settle=False)
    assert show(server)['status'] == {'SOFT': 'REBOOT', 'HARD': 'HARD_REBOOT'}[kind]
    cloud.settle()
    assert state(show(server)) == ('ACTIVE', None, 1) and no_operations(cloud)


def test_a_guest_that_goes_down_by_itself_is_stopped(cloud, boot, show):
    server = boot()
    driver = cloud.agent.drivers['one']
    driver._power(server['id'], 'stopped')
    cloud.agent.reconciler.again(('one', server['id']))
    cloud.settle()
    assert state(show(server)) == ('SHUTOFF', None, 4)


def test_lock(boot, act, show, as_):
    server = boot()
    act(server, 'lock', {'locked_reason': 'mine'})
    assert (show(server)['locked'], show(server)['locked_reason']) == (True, 'mine')
    act(server, 'os-stop', status=409)
    act(server, 'unlock')
    assert show(server)['locked'] is False
    act(server, 'lock', client=as_(testing.ADMIN))
    act(server, 'unlock', status=403)
    act(server, 'os-stop', client=as_(testing.ADMIN))


def test_rebuild(cloud, boot, act, show):
    server = boot()
    other = cloud.image.add(name='other')
    answer = act(server, 'rebuild', {'imageRef': other, 'name': 'new', 'metadata': {'a': 'b'}}, settle=False).json['server']
    assert answer['status'] == 'REBUILD' and answer['adminPass'] and answer['name'] == 'new'
    cloud.settle()
    shown = show(server)
    assert state(shown) == ('ACTIVE', None, 1)
    assert shown['image']['id'] == other and shown['metadata'] == {'a': 'b'} and no_operations(cloud)
    act(server, 'os-stop')
    act(server, 'rebuild', {'imageRef': other})
    assert show(server)['status'] == 'SHUTOFF'
    act(server, 'rebuild', {'imageRef': '0' * 32}, status=400)


@pytest.fixture
def bigger(cloud, as_):
    return as_(testing.ADMIN).post('/flavors', {'flavor': {'name': 'bigger', 'ram': 256, 'vcpus': 2,
                                                           'disk': 2}}).json['flavor']['id']


@pytest.mark.parametrize('stopped', [False, True])
def test_resize_and_confirm(cloud, boot, act, show, bigger, stopped):
    server = boot()
    if stopped:
        act(server, 'os-stop')
    act(server, 'resize', {'flavorRef': bigger}, settle=False)
    assert show(server)['status'] == 'RESIZE'
    cloud.settle()
    shown = show(server)
    assert (shown['status'], shown['flavor']['vcpus']) == ('VERIFY_RESIZE', 2)
    assert next(iter(allocations(cloud, server['id']).values()))['VCPU'] == 2
    act(server, 'os-start', status=409)
    act(server, 'confirmResize', status=204)
    shown = show(server)
    assert (shown['status'], shown['flavor']['ram']) == ('SHUTOFF' if stopped else 'ACTIVE', 256)
    assert no_operations(cloud) and [row['status'] for row in cloud.all(models.migrations)] == ['confirmed']
    assert len({row['consumer_uuid'] for row in cloud.all(models.placement.allocations)}) == 1
    act(server, 'confirmResize', status=409)


def test_resize_and_revert(cloud, boot, act, show, bigger):
    server = boot()
    act(server, 'resize', {'flavorRef': bigger})
    act(server, 'revertResize', settle=False)
    assert show(server)['status'] == 'REVERT_RESIZE'
    cloud.settle()
    shown = show(server)
    assert (shown['status'], shown['flavor']['vcpus']) == ('ACTIVE', 1) and no_operations(cloud)
    assert list(allocations(cloud, server['id']).values()) == [{'VCPU': 1, 'MEMORY_MB': 128, 'DISK_GB': 1}]
    assert len(cloud.all(models.placement.consumers)) == 1


def test_resize_is_refused(cloud, boot, act, as_, flavor, show):
    server = boot()
    act(server, 'resize', {'flavorRef': flavor}, status=400)
    act(server, 'resize', {'flavorRef': 'none'}, status=400)
    act(server, 'resize', {'flavorRef': None}, status=400)
    huge = as_(testing.ADMIN).post('/flavors', {'flavor': {'name': 'h', 'ram': 2 ** 30, 'vcpus': 1,
                                                           'disk': 2}}).json['flavor']['id']
    assert 'ram' in act(server, 'resize', {'flavorRef': huge}, status=403).json['forbidden']['message']
    as_(testing.ADMIN).put('/os-quota-sets/' + testing.PROJECT, {'quota_set': {'ram': -1}}).expect(200)
    act(server, 'resize', {'flavorRef': huge})
    shown = show(server)
    assert shown['status'] == 'ACTIVE' and shown['flavor']['ram'] == 128
    assert 'No valid host was found' in cloud.row(server['id'])['fault']['message']
    assert list(allocations(cloud, server['id']).values()) == [{'VCPU': 1, 'MEMORY_MB': 128, 'DISK_GB': 1}]


def test_image_of_a_server(cloud, boot, act, member, show):
    server = boot()
    answer = act(server, 'createImage', {'name': 'snap', 'metadata': {'k': 'v'}}, settle=False)
    image_id = answer.json['image_id']
    assert answer.headers['Location'].endswith('/images/' + image_id)
    assert show(server)['OS-EXT-STS:task_state'] == 'image_snapshot'
    cloud.settle()
    found = cloud.image.images[image_id]
    assert (found['status'], found['k'], found['instance_uuid'], found['image_type']) == ('active', 'v', server['id'], 'snapshot')
    assert state(show(server)) == ('ACTIVE', None, 1) and no_operations(cloud)


def test_backups_rotate(cloud, boot, act):
    server = boot()
    for index in range(3):
        made = act(server, 'createBackup', {'name': f'b{index}', 'backup_type': 'daily', 'rotation': 2},
                   settle=False).json['image_id']
        cloud.image.images[made]['created_at'] = f'2026-01-0{index + 1}T00:00:00Z'
        cloud.settle()
    assert {image['name'] for image in cloud.image.images.values() if image.get('backup_type') == 'daily'} == {'b1', 'b2'}


def test_an_upload_that_fails_leaves_the_server_and_no_image(cloud, boot, act, show):
    class Broken:
        def upload(self, *args):
            from kodiak.compute.drivers import base
            raise base.Fault('image', 'The image service is full.', final=True)
    server = boot()
    cloud.agent.drivers['one'].images = Broken()
    image_id = act(server, 'createImage', {'name': 'snap'}).json['image_id']
    assert image_id not in cloud.image.images and state(show(server)) == ('ACTIVE', None, 1)
    assert cloud.row(server['id'])['fault']['message'] == 'The image service is full.'


def test_shelve_and_unshelve(cloud, boot, act, show, image, member):
    server = boot()
    act(server, 'shelve')
    shown = show(server)
    assert shown['status'] == 'SHELVED_OFFLOADED' and shown['hostId'] == '' and allocations(cloud, server['id']) == {}
    assert cloud.all(models.guests) == [] and len(cloud.image.images) == 2
    act(server, 'unshelve')
    shown = show(server)
    assert state(shown) == ('ACTIVE', None, 1) and shown['image']['id'] == image
    assert len(cloud.image.images) == 1 and allocations(cloud, server['id'])
    act(server, 'shelve')
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    assert len(cloud.image.images) == 1 and cloud.row(server['id'])['deleted']


def test_rescue(cloud, boot, act, show, member):
    server = boot()
    assert act(server, 'rescue', {'adminPass': 'x'}, status=200).json == {'adminPass': 'x'}
    assert state(show(server)) == ('RESCUE', None, 1)
    act(server, 'unrescue')
    assert state(show(server)) == ('ACTIVE', None, 1)


def test_soft_delete_and_restore(make_cloud):
    cloud = make_cloud(compute__reclaim_interval=100)
    member = cloud.client(testing.MEMBER)
    flavor = cloud.client(testing.ADMIN).post('/flavors', {'flavor': {'name': 'x', 'ram': 1, 'vcpus': 1,
                                                                      'disk': 1}}).json['flavor']['id']
    sent = {'name': 's', 'flavorRef': flavor, 'imageRef': cloud.image.add(), 'networks': 'none'}
    path = '/servers/' + member.post('/servers', {'server': sent}).expect(202).json['server']['id']
    cloud.settle()
    member.delete(path).expect(204)
    cloud.settle()
    assert member.get(path).json['server']['status'] == 'SOFT_DELETED'
    assert member.get('/servers').json['servers'] == []
    member.post(path + '/action', {'restore': None}).expect(202)
    cloud.settle()
    assert member.get(path).json['server']['status'] == 'ACTIVE'
    member.delete(path).expect(204)
    cloud.settle()
    member.post(path + '/action', {'forceDelete': None}).expect(202)
    cloud.settle()
    member.get(path).expect(404)


def test_the_record(boot, act, member, as_, cloud):
    server = boot()
    act(server, 'os-stop')
    found = member.get(f'/servers/{server["id"]}/os-instance-actions').expect(200).json['instanceActions']
    assert [entry['action'] for entry in found] == ['stop', 'create']
    path = f'/servers/{server["id"]}/os-instance-actions/' + found[1]['request_id']
    event, = member.get(path).json['instanceAction']['events']
    assert (event['result'], event['event']) == ('Success', 'compute__do_build_and_run_instance') and 'host' not in event
    assert as_(testing.ADMIN).get(path).json['instanceAction']['events'][0]['host'] == 'one'
    page = member.get(f'/servers/{server["id"]}/os-instance-actions?limit=1').json
    assert len(page['instanceActions']) == 1 and 'marker=' in page['links'][0]['href']
    member.get(f'/servers/{server["id"]}/os-instance-actions/req-none').expect(404)
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    assert len(member.get(f'/servers/{server["id"]}/os-instance-actions').json['instanceActions']) == 3


def test_console_and_diagnostics(boot, member, as_, act, cloud):
    server = boot()
    assert 'FAKE CONSOLE' in act(server, 'os-getConsoleOutput', {}, status=200).json['output']
    assert act(server, 'os-getConsoleOutput', {'length': 2}, status=200).json['output'] == 'LAST LINE\n'
    as_(testing.ADMIN).get(f'/servers/{server["id"]}/diagnostics').expect(200)
    as_(testing.ADMIN, '2.1').get(f'/servers/{server["id"]}/diagnostics').expect(200)
    made = member.post(f'/servers/{server["id"]}/remote-consoles', {'remote_console': {'protocol': 'vnc', 'type': 'novnc'}})
    url = made.expect(200).json['remote_console']['url']
    token = url.split('token%3D')[1]
    found = cloud.handlers.console_token(None, token)
    assert (found['instance_uuid'], found['port']) == (server['id'], 6901)
    assert cloud.handlers.console_token(None, token) is None
    member.post(f'/servers/{server["id"]}/remote-consoles', {'remote_console': {'protocol': 'spice',
                                                                                'type': 'spice-html5'}}).expect(400)
    old = as_(testing.MEMBER, '2.1').post(f'/servers/{server["id"]}/action', {'os-getVNCConsole': {'type': 'novnc'}})
    assert old.expect(200).json['console']['type'] == 'novnc'


def test_two_hosts_move_and_evacuate(make_cloud):
    cloud = make_cloud(hosts=('one', 'two'))
    admin = cloud.client(testing.ADMIN)
    flavor = admin.post('/flavors', {'flavor': {'name': 'x', 'ram': 1, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
    net = cloud.network.add_network(project=testing.ADMIN.project_id)
    sent = {'name': 's', 'flavorRef': flavor, 'imageRef': cloud.image.add(), 'networks': [{'uuid': net}],
            'availability_zone': 'nova:one'}
    path = '/servers/' + admin.post('/servers', {'server': sent}).expect(202).json['server']['id']

    def there():
        shown = admin.get(path).json['server']
        host = shown['OS-EXT-SRV-ATTR:host']
        assert [port['binding:host_id'] for port in cloud.network.ports.values()] == [host]
        return shown['status'], host
    cloud.settle()
    assert there() == ('ACTIVE', 'one')
    admin.post(path + '/action', {'migrate': None}).expect(202)
    cloud.settle()
    assert there() == ('VERIFY_RESIZE', 'two') and len(cloud.all(models.guests)) == 2
    admin.post(path + '/action', {'revertResize': None}).expect(202)
    cloud.settle()
    assert there() == ('ACTIVE', 'one') and len(cloud.all(models.guests)) == 1
    admin.post(path + '/action', {'migrate': {'host': 'two'}}).expect(202)
    cloud.settle()
    admin.post(path + '/action', {'confirmResize': None}).expect(204)
    cloud.settle()
    assert there() == ('ACTIVE', 'two') and len(cloud.all(models.guests)) == 1
    admin.post(path + '/action', {'evacuate': {}}).expect(400)
    with cloud.db.write() as connection:
        connection.execute(models.services.update().where(models.services.c.host == 'two').values(forced_down=True))
    older = {'OpenStack-API-Version': 'compute 2.94'}
    admin.post(path + '/action', {'evacuate': {}}, headers=older).expect(200)
    cloud.settle()
    assert there() == ('ACTIVE', 'one')
    assert [row['status'] for row in cloud.all(models.migrations)] == ['reverted', 'confirmed', 'done']
    with cloud.db.write() as connection:
        connection.execute(models.services.update().values(forced_down=models.services.c.host == 'one'))
    admin.post(path + '/action', {'evacuate': {}}).expect(200)
    cloud.settle()
    assert there() == ('SHUTOFF', 'two')        # since 2.95 it is left to its owner to start it
    admin.post(path + '/action', {'os-start': None}).expect(202)
    cloud.settle()
    assert there() == ('ACTIVE', 'two')
    with cloud.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(models.placement.consumers)) == 1


def test_interfaces(cloud, boot, member, act):
    net = cloud.network.add_network()
    server = boot()
    path = f'/servers/{server["id"]}/os-interface'
    made = member.post(path, {'interfaceAttachment': {'net_id': net, 'tag': 'a'}}).expect(200).json['interfaceAttachment']
    cloud.settle()
    assert [entry['port_state'] for entry in member.get(path).json['interfaceAttachments']] == ['ACTIVE']
    assert cloud.agent.drivers['one'].look(server['id']).ports == {made['port_id']}
    assert member.get('/servers/' + server['id']).json['server']['addresses']['private'][0]['addr'] == \
        made['fixed_ips'][0]['ip_address']
    second = member.post(path, {'interfaceAttachment': {'net_id': net, 'fixed_ips': [{'ip_address': '10.0.0.77'}]}}).expect(200)
    cloud.settle()
    assert second.json['interfaceAttachment']['fixed_ips'][0]['ip_address'] == '10.0.0.77'
    member.delete(f'{path}/{made["port_id"]}').expect(202)
    cloud.settle()
    assert list(cloud.network.ports) == [second.json['interfaceAttachment']['port_id']]
    assert cloud.agent.drivers['one'].look(server['id']).ports == set(cloud.network.ports)
    member.get(f'{path}/{made["port_id"]}').expect(404)
    member.delete('/servers/' + server['id']).expect(204)
    cloud.settle()
    assert cloud.network.ports == {}
