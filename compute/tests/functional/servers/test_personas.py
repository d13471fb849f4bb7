"""Every route as every persona."""
import pytest

from kodiak.common import testing
from kodiak.compute import api as compute_api

BODIES = {
    ('POST', '/flavors'): {'flavor': {'name': 'x', 'ram': 1, 'vcpus': 1, 'disk': 1}},
    ('PUT', '/flavors/{flavor_id}'): {'flavor': {'description': 'x'}},
    ('POST', '/flavors/{flavor_id}/os-extra_specs'): {'extra_specs': {'a': 'b'}},
    ('PUT', '/flavors/{flavor_id}/os-extra_specs/{key}'): {'key': 'b'},
    ('POST', '/os-keypairs'): {'keypair': {'name': 'other', 'public_key': 'none'}},
    ('PUT', '/servers/{server_id}'): {'server': {'name': 'x'}},
    ('POST', '/servers/{server_id}/metadata'): {'metadata': {'a': 'b'}},
    ('PUT', '/servers/{server_id}/metadata'): {'metadata': {'a': 'b'}},
    ('PUT', '/servers/{server_id}/metadata/{key}'): {'meta': {'key': 'b'}},
    ('PUT', '/servers/{server_id}/tags'): {'tags': ['a']},
    ('POST', '/servers/{server_id}/remote-consoles'): {'remote_console': {'protocol': 'vnc', 'type': 'novnc'}},
    ('POST', '/servers/{server_id}/os-interface'): {'interfaceAttachment': {}},
    ('POST', '/os-server-external-events'): {'events': [{'name': 'network-changed', 'server_uuid': '0' * 32}]},
    ('POST', '/os-aggregates'): {'aggregate': {'name': 'x'}},
    ('PUT', '/os-aggregates/{aggregate_id}'): {'aggregate': {'name': 'y'}},
    ('POST', '/os-server-groups'): {'server_group': {'name': 'x', 'policies': ['affinity']}},
    ('PUT', '/os-quota-sets/{project_id}'): {'quota_set': {'cores': 5}},
    ('PUT', '/os-quota-class-sets/{name}'): {'quota_class_set': {'cores': 5}},
    ('PUT', '/os-services/{service_id}'): {'status': 'enabled'},
    ('PUT', '/os-hosts/{host_name}'): {'status': 'enable'},
}
for _name in ('enable', 'disable', 'disable-log-reason', 'force-down'):
    BODIES['PUT', '/os-services/' + _name] = {'host': 'one', 'binary': 'nova-compute', 'disabled_reason': 'x'}
ACTIONS = {
    'reboot': {'type': 'SOFT'}, 'os-resetState': {'state': 'active'}, 'os-getConsoleOutput': {},
    'os-getVNCConsole': {'type': 'novnc'},
    'os-getSerialConsole': {'type': 'serial'}, 'os-getSPICEConsole': {'type': 'spice-html5'},
    'os-getRDPConsole': {'type': 'rdp-html5'},
    'createImage': {'name': 'x'}, 'createBackup': {'name': 'x', 'backup_type': 'daily', 'rotation': 1},
    'addFixedIp': {'networkId': 'x'},
    'removeFixedIp': {'address': '1.2.3.4'}, 'addFloatingIp': {'address': '1.2.3.4'}, 'removeFloatingIp': {'address': '1.2.3.4'},
    'addSecurityGroup': {'name': 'x'}, 'removeSecurityGroup': {'name': 'x'}, 'changePassword': {'adminPass': 'x'},
    'os-migrateLive': {},
    'evacuate': {}, 'addTenantAccess': {'tenant': 'x'}, 'removeTenantAccess': {'tenant': 'x'}, 'add_host': {'host': 'x'},
    'remove_host': {'host': 'x'}, 'set_metadata': {'metadata': {'a': 'b'}}, 'rebuild': {'imageRef': None},
    'resize': {'flavorRef': 'none'},
}


@pytest.mark.parametrize('vm_state', ['active', 'error'])
def test_every_route_asks_its_rule_and_refuses_whom_it_should(cloud, boot, as_, flavor, image, vm_state):
    server = boot(metadata={'key': 'x'}, tags=['tag'])
    if vm_state == 'error':
        as_(testing.ADMIN).post(f'/servers/{server["id"]}/action', {'os-resetState': {'state': 'error'}}).expect(202)
    admin = as_(testing.ADMIN)
    hypervisor = admin.get('/os-hypervisors').json['hypervisors'][0]['id']
    service = admin.get('/os-services').json['services'][0]['id']
    aggregate = admin.post('/os-aggregates', {'aggregate': {'name': 'a'}}).json['aggregate']['id']

    def body(endpoint):
        if endpoint.action:
            sent = ACTIONS.get(endpoint.action)
            return {endpoint.action: {'imageRef': image} if endpoint.action == 'rebuild' else sent}
        if endpoint.openapi_path == '/servers':
            return {'server': {'name': 'x', 'flavorRef': flavor, 'imageRef': image}}
        return BODIES.get((endpoint.method, endpoint.openapi_path))
    table = testing.check_personas(
        compute_api.API, lambda persona: as_(persona, None), body=body, prefix='', parameters={
            'server_id': server['id'], 'flavor_id': flavor, 'aggregate_id': aggregate, 'key': 'key', 'tag': 'tag',
            'hypervisor_id': hypervisor, 'service_id': service, 'project_id': testing.PROJECT, 'host_name': 'one',
            'name': 'default',
            'request_id': 'req-x', 'pattern': 'one', 'migration_id': '1', 'before': '2026-01-01 00:00:00'})
    for (method, path, action), found in table.items():
        if path.startswith('/servers/{server_id}') and found:
            assert found['other project'] in (404, 400), (method, path, action, found)
    assert table['GET', '/servers/{server_id}', None]['reader'] == 200
    assert table['PUT', '/servers/{server_id}', None] == {'admin': 200, 'member': 200, 'reader': 403, 'other project': 404,
                                                          'no role': 403}
