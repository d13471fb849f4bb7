import datetime

import orjson
import pytest

from kodiak.compute import view

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678)
ROW = {
    'id': 42, 'uuid': 'u', 'name': 'ein "Name" \x01\x02', 'status': 'ACTIVE', 'project_id': 'p', 'user_id': 'x',
    'metadata': {'a': 'b'},
    'host': 'h', 'node': 'n', 'image_ref': 'i', 'created_at': NOW, 'updated_at': NOW, 'launched_at': NOW, 'terminated_at': None,
    'networks': [], 'access_ip_v4': None, 'access_ip_v6': '::1', 'disk_config': 'AUTO', 'zone': 'nova', 'config_drive': False,
    'key_name': None, 'task_state': None, 'vm_state': 'active', 'power_state': 1, 'security_groups': ['default'], 'progress': 0,
    'fault': {'code': 500, 'message': 'm', 'details': 'd', 'created': 'c'}, 'flavor_id': '42',
    'flavor': {'id': '42', 'name': 'f', 'vcpus': 1, 'ram': 2, 'root': 3, 'ephemeral': 0, 'swap': 0, 'extra_specs': {}},
    'reservation_id': 'r', 'launch_index': 0, 'root_device': '/dev/vda', 'hostname': 'hn', 'volumes': [{'id': 'v'}],
    'locked_by': None, 'locked_reason': None, 'description': None, 'tags': ['t'], 'pinned_zone': None}


def shown(row, version, admin=False, hostnames=False):
    text = view.fill(view.assemble(view.render(row), view.chosen(version, admin, hostnames)), 'http://api', '/v2.1')
    return orjson.loads(text)


def test_it_is_what_the_row_says():
    found = shown(ROW, (2, 96))
    assert found['name'] == ROW['name'] and found['metadata'] == {'a': 'b'} and found['created'] == '2026-01-02T03:04:05Z'
    assert found['links'][0]['href'] == 'http://api/v2.1/servers/u' and found['links'][1]['href'] == 'http://api/servers/u'
    assert found['OS-SRV-USG:launched_at'] == '2026-01-02T03:04:05.000678' and found['accessIPv6'] == '::1'
    assert 'fault' not in found and len(found['hostId']) == 56


@pytest.mark.parametrize(('field', 'since'), [('locked', 9), ('description', 19), ('tags', 26), ('locked_reason', 73),
                                               ('pinned_availability_zone', 96)])
def test_fields_come_with_their_microversion(field, since):
    assert field in shown(ROW, (2, since)) and field not in shown(ROW, (2, since - 1))


def test_who_sees_what():
    assert 'OS-EXT-SRV-ATTR:host' in shown(ROW, (2, 1), admin=True) and 'OS-EXT-SRV-ATTR:hostname' not in shown(ROW, (2, 2),
                                                                                                                admin=True)
    assert shown(ROW, (2, 3), admin=True)['OS-EXT-SRV-ATTR:instance_name'] == 'instance-0000002a'
    assert not any(name.startswith('OS-EXT-SRV-ATTR') for name in shown(ROW, (2, 89)))
    assert shown(ROW, (2, 90), hostnames=True)['OS-EXT-SRV-ATTR:hostname'] == 'hn'
    assert shown(ROW, (2, 46))['flavor'].keys() == {'id', 'links'} and shown(ROW, (2, 47))['flavor']['disk'] == 3
    failed = {**ROW, 'status': 'ERROR'}
    assert shown(failed, (2, 1))['fault'] == {'code': 500, 'message': 'm', 'created': 'c'}
    assert shown(failed, (2, 1), admin=True)['fault']['details'] == 'd'
    assert shown({**ROW, 'image_ref': None}, (2, 1))['image'] == ''
