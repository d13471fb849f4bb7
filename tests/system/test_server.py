"""The life of a server through the stock client, seen from inside the guest."""
import pytest
from cloud import IMAGE, Guest, ping, until

pytestmark = pytest.mark.system
BOOT = 'cat /proc/sys/kernel/random/boot_id'


@pytest.fixture(scope='module')
def server(demo, key, open_group, tmp_path_factory):
    """(id, a Guest) of a server with a floating IP, whose user data has run."""
    script = tmp_path_factory.mktemp('user-data') / 'script'
    script.write_text('#!/bin/sh\necho user data was here | tee /var/tmp/user-data\n')
    made = demo('server create', 'life', '--image', IMAGE, '--flavor', 'm1.nano', '--network', 'private', '--key-name', key[0],
                '--security-group', open_group.id, '--user-data', script, '--property', 'purpose=test', '--wait')
    address = demo('floating ip create', 'public')['floating_ip_address']
    try:
        assert made['status'] == 'ACTIVE'
        demo.text('server add floating ip', made['id'], address)
        yield made['id'], Guest(address, key[1]).wait()
    finally:
        demo.run('server delete', made['id'], '--wait')
        demo.run('floating ip delete', address)


def status(demo, server_id):
    return demo('server show', server_id)['status']


def test_guest_is_the_server_that_was_asked_for(server, demo, sdk):
    server_id, guest = server
    assert guest('hostname') == 'life'
    assert guest('cat /var/tmp/user-data') == 'user data was here'
    assert guest('sudo id -u') == '0'
    assert guest('curl -s http://169.254.169.254/latest/meta-data/public-ipv4') == guest.address
    assert '"purpose": "test"' in guest('curl -s http://169.254.169.254/openstack/latest/meta_data.json').replace('":"', '": "')
    fixed = next(iter(sdk.network.ports(device_id=server_id))).fixed_ips[0]['ip_address']
    assert fixed in guest('ip -4 -o addr')
    assert int(guest("df -m / | awk 'NR==2 {print $2}'")) > 700        # the root has grown to the flavor's disk


def test_console(server, demo):
    assert 'login:' in demo.text('console log show', server[0])
    assert demo('console url show', server[0])['url'].startswith('http')


def test_reboot(server, demo):
    server_id, guest = server
    guest('touch /tmp/kept; sync')
    for how in ('--soft', '--hard'):
        before = guest(BOOT)
        demo.text('server reboot', how, '--wait', server_id)
        until(150, 'another boot', lambda before=before: guest.run(BOOT).stdout.strip() not in ('', before))
        guest('test -e /tmp/kept')


def test_stop_and_start(server, demo):
    server_id, guest = server
    demo.text('server stop', server_id)
    until(120, 'SHUTOFF', lambda: status(demo, server_id) == 'SHUTOFF')
    assert not ping(guest.address)
    demo.text('server start', server_id)
    until(120, 'ACTIVE', lambda: status(demo, server_id) == 'ACTIVE')
    guest.wait()


def test_pause_and_suspend(server, demo):
    server_id, guest = server
    for there, back, between in (('pause', 'unpause', 'PAUSED'), ('suspend', 'resume', 'SUSPENDED')):
        boot = guest(BOOT)
        demo.text(f'server {there}', server_id)
        until(60, between, lambda between=between: status(demo, server_id) == between)
        demo.text(f'server {back}', server_id)
        until(60, 'ACTIVE', lambda: status(demo, server_id) == 'ACTIVE')
        assert guest.wait()(BOOT) == boot


def test_resize(server, demo):
    server_id, guest = server
    for flavor, finish, memory in (('m1.micro', 'confirm', 150), ('m1.nano', 'revert', 150)):
        demo.text('server resize', server_id, '--flavor', flavor, '--wait')
        until(60, 'VERIFY_RESIZE', lambda: status(demo, server_id) == 'VERIFY_RESIZE')
        demo.text(f'server resize {finish}', server_id)
        until(120, 'ACTIVE', lambda: status(demo, server_id) == 'ACTIVE')
        guest.wait()
        assert int(guest("awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo")) >= memory
    assert demo('server show', server_id)['flavor']['name'] == 'm1.micro'


def test_image_of_a_server_boots(server, demo, key, open_group, unique):
    server_id, guest = server
    guest('echo from the first | sudo tee /root/note; sync')
    name = unique('snapshot')
    image = demo('server image create', server_id, '--name', name, '--wait')
    other = demo('server create', 'copy', '--image', image['id'], '--flavor', 'm1.micro', '--network', 'private',
                 '--key-name', key[0], '--security-group', open_group.id, '--wait')
    address = demo('floating ip create', 'public')['floating_ip_address']
    try:
        demo.text('server add floating ip', other['id'], address)
        copy = Guest(address, key[1]).wait()
        assert copy('sudo cat /root/note') == 'from the first'
        assert copy('hostname') == 'copy'
    finally:
        demo.run('server delete', other['id'], '--wait')
        demo.run('floating ip delete', address)
        demo.run('image delete', image['id'])


def test_shelve(server, demo):
    server_id, guest = server
    guest('echo kept | sudo tee /root/kept; sync')
    demo.text('server shelve', server_id)
    until(180, 'SHELVED_OFFLOADED', lambda: status(demo, server_id) == 'SHELVED_OFFLOADED')
    demo.text('server unshelve', server_id)
    until(180, 'ACTIVE', lambda: status(demo, server_id) == 'ACTIVE')
    assert guest.wait()('sudo cat /root/kept') == 'kept'


def test_rebuild(server, demo):
    server_id, guest = server
    guest('sudo touch /root/gone; sync')
    demo.text('server rebuild', server_id, '--image', IMAGE, '--wait')
    assert guest.wait().run('sudo test -e /root/gone').returncode == 1


def test_delete(demo, sdk, unique):
    made = demo('server create', unique('short'), '--image', IMAGE, '--flavor', 'm1.nano', '--network', 'private', '--wait')
    demo.text('server delete', made['id'], '--wait')
    assert demo.run('server show', made['id']).returncode != 0
    assert not list(sdk.network.ports(device_id=made['id']))
