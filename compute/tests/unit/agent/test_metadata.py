"""The metadata tree: what each version of it holds, and how it is listed."""
import base64

import orjson
from agent_shapes import image, port, spec, volume

from kodiak.compute import metadata
from kodiak.compute.agent import state

FULL = {'key_name': 'mine', 'public_key': 'ssh-ed25519 AAAA me', 'metadata': {'a': 'b'},
        'user_data': base64.b64encode(b'#!/bin/sh\n').decode(), 'admin_password': 'secret',
        'files': [{'path': '/etc/motd', 'contents': base64.b64encode(b'hello').decode()}],
        'security_groups': ['default', 'web'], 'floating_ips': ['203.0.113.9'], 'image': image(id='abcdef01-0000')}


def read(given, path):
    return orjson.loads(metadata.lookup(given, path))


def test_a_version_has_the_keys_that_it_was_published_with():
    given = spec(**FULL)
    expected = {
        '2012-08-10': set(), '2013-04-04': {'random_seed'}, '2015-10-15': {'random_seed', 'project_id'},
        '2016-06-30': {'random_seed', 'project_id', 'devices'},
        '2020-10-14': {'random_seed', 'project_id', 'devices', 'dedicated_cpus'}}
    late = {'random_seed', 'project_id', 'devices', 'dedicated_cpus'}
    for version, keys in expected.items():
        assert set(read(given, f'openstack/{version}/meta_data.json')) & late == keys
    newest = read(given, 'openstack/latest/meta_data.json')
    assert newest['meta'] == {'a': 'b'}
    assert newest['public_keys'] == {'mine': 'ssh-ed25519 AAAA me'}
    assert newest['keys'] == [{'name': 'mine', 'type': 'ssh', 'data': 'ssh-ed25519 AAAA me'}]
    assert newest['files'] == [{'content_path': '/content/0000', 'path': '/etc/motd'}]
    assert len(base64.b64decode(newest['random_seed'])) == metadata.SEED_BYTES


def test_the_password_is_on_the_config_drive_only():
    given = spec(**FULL)
    assert 'admin_pass' not in read(given, 'openstack/latest/meta_data.json')
    assert orjson.loads(metadata.config_drive(given)['openstack/latest/meta_data.json'])['admin_pass'] == 'secret'


def test_listings():
    given = spec(**FULL)
    assert metadata.lookup(given, 'openstack').decode().split('\n')[-1] == 'latest'
    assert metadata.lookup(given, '').decode().split('\n') == list(metadata.EC2_VERSIONS)
    assert metadata.lookup(given, 'latest').decode().split('\n') == ['meta-data/', 'user-data']
    assert 'network_data.json' in metadata.lookup(given, 'openstack/latest/').decode().split('\n')
    assert 'network_data.json' not in metadata.lookup(given, 'openstack/2013-04-04').decode().split('\n')
    listed = metadata.lookup(given, 'latest/meta-data/').decode().split('\n')
    assert {'placement/', 'public-keys/', 'instance-id', 'block-device-mapping/'} <= set(listed)


def test_ec2_values():
    given = spec(**FULL)
    for path, value in {
            'instance-id': 'i-11111111', 'ami-id': 'ami-abcdef01', 'local-ipv4': '10.0.0.5', 'public-ipv4': '203.0.113.9',
            'hostname': 'web', 'security-groups': 'default\nweb', 'public-keys': '0=mine', 'public-keys/0': 'openssh-key',
            'public-keys/0/openssh-key': 'ssh-ed25519 AAAA me', 'public-keys/0=mine/openssh-key': 'ssh-ed25519 AAAA me',
            'placement/availability-zone': 'nova', 'block-device-mapping/ami': 'vda', 'instance-type': 'small'}.items():
        assert metadata.lookup(given, 'latest/meta-data/' + path).decode() == value
    assert metadata.lookup(given, '1.0/meta-data/instance-type') is None
    assert metadata.lookup(given, 'latest/user-data') == b'#!/bin/sh\n'


def test_what_is_not_there_is_none():
    given = spec()
    for path in ('openstack/1999-01-01', 'openstack/latest/user_data', 'openstack/latest/meta_data.json/x', 'latest/user-data',
                 'latest/meta-data/nothing', 'latest/meta-data/hostname/x', 'openstack/content/0000', 'soon/meta-data'):
        assert metadata.lookup(given, path) is None
    assert metadata.lookup(spec(**FULL), 'openstack/content/0000') == b'hello'


def test_network_data_tells_addresses_where_no_dhcp_does():
    static = state.FixedIP('2001:db8::5', '2001:db8::/64', 6, '2001:db8::1', dns=['2001:db8::53'], dhcp=False)
    data = metadata.network_data(spec(ports=[port(), port(2, fixed_ips=[static])]))
    assert [link['id'] for link in data['links']] == [port().tap, port(2).tap]
    dynamic, fixed = data['networks']
    assert (dynamic['type'], 'ip_address' in dynamic) == ('ipv4_dhcp', False)
    assert (fixed['type'], fixed['ip_address'], fixed['netmask']) == ('ipv6', '2001:db8::5', 'ffff:ffff:ffff:ffff::')
    assert fixed['routes'] == [{'network': '::', 'netmask': '::', 'gateway': '2001:db8::1'}]
    assert {service['address'] for service in data['services']} == {'9.9.9.9', '2001:db8::53'}


def test_tagged_devices_are_told():
    given = spec(ports=[port(tag='front'), port(2)], volumes=[volume(tag='data'), volume(2)])
    found = read(given, 'openstack/latest/meta_data.json')['devices']
    assert [(device['type'], device['tags']) for device in found] == [('nic', ['front']), ('disk', ['data'])]
    assert found[0]['mac'] == port().mac
    assert found[1]['serial'] == volume().id


def test_the_config_drive_holds_every_version():
    tree = metadata.config_drive(spec(**FULL), seed=b'x' * 16)
    assert {f'openstack/{version}/meta_data.json' for version in metadata.OPENSTACK_VERSIONS} <= set(tree)
    assert tree['openstack/content/0000'] == b'hello'
    assert tree['openstack/latest/user_data'] == tree['ec2/latest/user-data'] == b'#!/bin/sh\n'
    assert orjson.loads(tree['ec2/2009-04-04/meta-data.json'])['instance-id'] == 'i-11111111'
