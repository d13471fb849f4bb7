"""Every operation with requests that fit the OpenAPI document and others that don't: no answer of 500, none outside its schema."""

import base64

import hypothesis.strategies as st
import pytest

from kodiak.common import fuzz_testing, testing

_TEXT = st.text(max_size=40)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(2**70), st.just(-1), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=6,
)
_NUMBER = st.one_of(st.integers(-2, 10), st.sampled_from([2**31, 2**63, '1', '', '9' * 30]))
_ADDRESS = st.sampled_from(['10.0.0.9', '10.9.9.9', '::1', '', '1.2.3', '10.0.0.0/24'])
_UNKNOWN = '00000000-1111-2222-3333-444444444444'


def _some(_required=None, **fields):
    return st.fixed_dictionaries(_required or {}, optional={name: st.one_of(value, _JSON) for name, value in fields.items()})


class World:
    """What exists, made anew where it was used up."""

    def __init__(self, cloud, client, admin, flavor, image):
        self.cloud, self.client, self.admin, self.flavor, self.image = cloud, client, admin, flavor, image
        self.net = cloud.network.add_network()
        self.bigger = admin.post('/flavors', {'flavor': {'name': 'bigger', 'ram': 256, 'vcpus': 1, 'disk': 1}}).json['flavor']['id']
        self.volume = cloud.block.add()
        self.server = None

    def a_server(self):
        """A server that is at rest."""
        if self.server:
            self.cloud.settle()
            found = self.client.get('/servers/' + self.server)
            if found.status == 200 and found.json['server']['status'] == 'ACTIVE':
                return self.server
            self.client.delete('/servers/' + self.server)
            self.cloud.settle()
        sent = {
            'name': 'x',
            'flavorRef': self.flavor,
            'imageRef': self.image,
            'networks': [{'uuid': self.net}],
            'metadata': {'key': 'v'},
            'tags': ['tag'],
        }
        self.server = self.client.post('/servers', {'server': sent}).expect(202).json['server']['id']
        self.cloud.settle()
        return self.server

    def values(self, path, names):
        """What exists for the parameters of a path."""
        if 'server_id' in names:
            self.a_server()
        admin = self.admin
        found = {
            'server_id': [self.server],
            'flavor_id': [self.flavor, self.bigger],
            'key': ['key'],
            'tag': ['tag'],
            'alias': ['os-hosts'],
            'project_id': [testing.PROJECT],
            'host_name': ['one'],
            'pattern': ['one'],
            'label': ['private'],
            'image_id': [self.image],
            'network_id': [self.net],
            'volume_id': [self.volume],
            'name': ['k'],
            'hypervisor_id': [admin.get('/os-hypervisors').json['hypervisors'][0]['id']],
        }
        if 'name' in names:
            self.client.post('/os-keypairs', {'keypair': {'name': 'k'}})
        if 'service_id' in names:
            found['service_id'] = [
                one['id'] for one in admin.get('/os-services').json['services'] if one['binary'] == 'nova-compute'
            ][:1]
        if 'group_id' in names:
            made = self.client.post('/os-server-groups', {'server_group': {'name': 'g', 'policy': 'affinity'}})
            found['group_id'] = [made.json['server_group']['id'] if made.status == 200 else _UNKNOWN]
        if 'aggregate_id' in names:
            made = admin.post('/os-aggregates', {'aggregate': {'name': 'a'}})
            if made.status == 200:
                self.aggregate = made.json['aggregate']['id']
            found['aggregate_id'] = [str(self.aggregate)]
        if 'port_id' in names:
            ports = [port['id'] for port in self.cloud.network.ports.values() if port['device_id'] == self.server]
            found['port_id'] = ports[:1] or [_UNKNOWN]
        return found

    def bodies(self):
        """Bodies that mean something, with parts that don't."""
        images, flavors = st.sampled_from([self.image, _UNKNOWN, '', 'x']), st.sampled_from([self.flavor, self.bigger, 'none'])
        hosts = st.sampled_from(['one', 'two', ''])
        device = _some(
            boot_index=_NUMBER,
            source_type=st.sampled_from(['image', 'volume', 'snapshot', 'blank']),
            destination_type=st.sampled_from(['local', 'volume']),
            uuid=st.sampled_from([self.image, self.volume, _UNKNOWN]),
            volume_size=_NUMBER,
            device_name=st.sampled_from(['/dev/vda', 'vdb', '', '/']),
            guest_format=_TEXT,
            delete_on_termination=st.booleans(),
            disk_bus=st.sampled_from(['virtio', 'x']),
            tag=_TEXT,
            volume_type=_TEXT,
            device_type=st.sampled_from(['disk', 'cdrom']),
        )
        data = st.one_of(_TEXT, st.just(base64.b64encode(b'#!/bin/sh').decode()))
        server = _some(
            {'name': _TEXT, 'flavorRef': flavors, 'imageRef': images},
            min_count=_NUMBER,
            max_count=st.integers(0, 3),
            key_name=_TEXT,
            networks=st.one_of(
                st.sampled_from(['auto', 'none']),
                st.lists(
                    _some(uuid=st.sampled_from([self.net, _UNKNOWN]), port=st.just(_UNKNOWN), fixed_ip=_ADDRESS, tag=_TEXT),
                    max_size=2,
                ),
            ),
            metadata=st.dictionaries(_TEXT, _TEXT, max_size=2),
            user_data=data,
            availability_zone=st.sampled_from(['nova', 'nova:one', ':::']),
            block_device_mapping_v2=st.lists(device, max_size=2),
            block_device_mapping=st.lists(device, max_size=1),
            personality=st.lists(_some(path=_TEXT, contents=data), max_size=1),
            security_groups=st.lists(_some(name=_TEXT), max_size=2),
            config_drive=st.sampled_from([True, 'x', 'true']),
            accessIPv4=_ADDRESS,
            accessIPv6=_ADDRESS,
            hostname=_TEXT,
            host=hosts,
            hypervisor_hostname=hosts,
            tags=st.lists(_TEXT, max_size=3),
            description=_TEXT,
            trusted_image_certificates=_JSON,
        )
        hints = _some(
            group=st.just(_UNKNOWN),
            different_host=st.lists(_TEXT, max_size=2),
            same_host=_TEXT,
            query=_JSON,
            build_near_host_ip=_ADDRESS,
            cidr=st.sampled_from(['/24', '/99', '/x']),
        )
        actions = {
            'rebuild': _some(
                {'imageRef': images},
                name=_TEXT,
                metadata=_JSON,
                key_name=_TEXT,
                user_data=data,
                accessIPv4=_ADDRESS,
                personality=_JSON,
                hostname=_TEXT,
            ),
            'resize': _some({'flavorRef': flavors}),
            'confirmResize': st.none(),
            'revertResize': st.none(),
            'migrate': st.one_of(st.none(), _some(host=hosts)),
            'os-migrateLive': _some(host=hosts),
            'evacuate': _some(host=hosts),
            'createImage': _some({'name': _TEXT}, metadata=_JSON),
            'createBackup': _some({'name': _TEXT, 'backup_type': _TEXT, 'rotation': _NUMBER}),
            'shelve': st.none(),
            'shelveOffload': st.none(),
            'unshelve': st.one_of(st.none(), _some(availability_zone=_TEXT, host=hosts)),
            'rescue': _some(rescue_image_ref=images),
            'unrescue': st.none(),
            'changePassword': _some({'adminPass': _TEXT}),
            'os-getConsoleOutput': _some(length=_NUMBER),
            'addFixedIp': _some({'networkId': _TEXT}),
            'removeFixedIp': _some({'address': _ADDRESS}),
            'addFloatingIp': _some({'address': _ADDRESS}, fixed_address=_ADDRESS),
            'removeFloatingIp': _some({'address': _ADDRESS}),
            'addSecurityGroup': _some({'name': _TEXT}),
            'removeSecurityGroup': _some({'name': _TEXT}),
            'lock': _some(locked_reason=_TEXT),
            'os-resetState': _some({'state': st.sampled_from(['active', 'error'])}),
            'reboot': _some({'type': st.sampled_from(['SOFT', 'x'])}),
            'pause': st.none(),
            'unpause': st.none(),
            'suspend': st.none(),
            'resume': st.none(),
            'os-stop': st.none(),
            'os-start': st.none(),
            'unlock': st.none(),
            'trigger_crash_dump': st.none(),
            'forceDelete': st.none(),
            'restore': st.none(),
            'resetNetwork': st.none(),
        }
        on_aggregate = {
            'add_host': _some({'host': hosts}),
            'remove_host': _some({'host': hosts}),
            'set_metadata': _some({'metadata': st.dictionaries(_TEXT, st.one_of(st.none(), _TEXT), max_size=2)}),
        }
        found = {
            '/servers': st.fixed_dictionaries({'server': server}, optional={'os:scheduler_hints': hints}),
            '/servers/{server_id}/action': st.one_of([st.fixed_dictionaries({name: body}) for name, body in actions.items()]),
            '/servers/{server_id}/os-volume_attachments': st.fixed_dictionaries(
                {
                    'volumeAttachment': _some(
                        volumeId=st.sampled_from([self.volume, _UNKNOWN]),
                        device=_TEXT,
                        tag=_TEXT,
                        delete_on_termination=st.booleans(),
                    )
                }
            ),
            '/servers/{server_id}/os-interface': st.fixed_dictionaries(
                {
                    'interfaceAttachment': _some(
                        net_id=st.sampled_from([self.net, _UNKNOWN]),
                        port_id=st.just(_UNKNOWN),
                        tag=_TEXT,
                        fixed_ips=st.lists(_some(ip_address=_ADDRESS), max_size=2),
                    )
                }
            ),
            '/servers/{server_id}/remote-consoles': st.fixed_dictionaries(
                {
                    'remote_console': _some(
                        protocol=st.sampled_from(['vnc', 'spice', 'serial']), type=st.sampled_from(['novnc', 'xvpvnc', 'serial'])
                    )
                }
            ),
            '/flavors': st.fixed_dictionaries(
                {
                    'flavor': _some(
                        {'name': _TEXT},
                        ram=_NUMBER,
                        vcpus=_NUMBER,
                        disk=_NUMBER,
                        id=_TEXT,
                        swap=_NUMBER,
                        rxtx_factor=_NUMBER,
                        **{'OS-FLV-EXT-DATA:ephemeral': _NUMBER, 'os-flavor-access:is_public': st.booleans()},
                    )
                }
            ),
            '/flavors/{flavor_id}/os-extra_specs': st.fixed_dictionaries(
                {
                    'extra_specs': st.dictionaries(
                        st.one_of(
                            st.sampled_from(
                                [
                                    'hw:cpu_policy',
                                    'resources:VCPU',
                                    'resources:CUSTOM_X',
                                    'trait:HW_CPU_X86_AVX',
                                    'trait:x',
                                    'quota:x',
                                    'hw_rng:allowed',
                                    'hw:mem_page_size',
                                    'resources1:VCPU',
                                    'group_policy',
                                ]
                            ),
                            _TEXT,
                        ),
                        st.one_of(_TEXT, _NUMBER, st.sampled_from(['required', 'forbidden', '0'])),
                        max_size=3,
                    )
                }
            ),
            '/flavors/{flavor_id}/action': st.one_of(
                [st.fixed_dictionaries({name: _some({'tenant': _TEXT})}) for name in ('addTenantAccess', 'removeTenantAccess')]
            ),
            '/os-aggregates': st.fixed_dictionaries({'aggregate': _some({'name': _TEXT}, availability_zone=_TEXT)}),
            '/os-aggregates/{aggregate_id}/action': st.one_of(
                [st.fixed_dictionaries({name: body}) for name, body in on_aggregate.items()]
            ),
            '/os-keypairs': st.fixed_dictionaries(
                {'keypair': _some({'name': _TEXT}, public_key=_TEXT, type=st.sampled_from(['ssh', 'x509']), user_id=_TEXT)}
            ),
            '/os-server-groups': st.fixed_dictionaries(
                {
                    'server_group': _some(
                        {'name': _TEXT},
                        policy=st.sampled_from(['affinity', 'anti-affinity', 'x']),
                        rules=_some(max_server_per_host=_NUMBER),
                        policies=_JSON,
                    )
                }
            ),
            '/os-server-external-events': st.fixed_dictionaries(
                {
                    'events': st.lists(
                        _some(
                            name=st.sampled_from(
                                ['network-changed', 'network-vif-plugged', 'volume-extended', 'power-update', 'x']
                            ),
                            server_uuid=st.just(self.a_server()),
                            status=st.sampled_from(['completed', 'failed', 'x']),
                            tag=_TEXT,
                        ),
                        max_size=2,
                    )
                }
            ),
            '/os-security-group-rules': st.fixed_dictionaries(
                {
                    'security_group_rule': _some(
                        parent_group_id=st.just(_UNKNOWN),
                        ip_protocol=st.sampled_from(['tcp', 'icmp', 'x']),
                        from_port=_NUMBER,
                        to_port=_NUMBER,
                        cidr=_ADDRESS,
                        group_id=_TEXT,
                    )
                }
            ),
        }
        return {('POST', '/v2.1' + path): body for path, body in found.items()}


@pytest.mark.parametrize('version', ['2.96', '2.1'])
def test_no_request_breaks_the_api(cloud, flavor, image, version):
    admin = cloud.client(testing.ADMIN)
    # The caller may do everything, with servers of its own project.
    persona = testing.Persona('a' * 32, testing.PROJECT, ('admin', 'manager', 'member', 'reader'))
    admin.put(
        '/os-quota-sets/' + testing.PROJECT, {'quota_set': {'instances': -1, 'cores': -1, 'ram': -1, 'server_groups': -1}}
    ).expect(200)
    world = World(cloud, cloud.client(persona), admin, flavor, image)
    found = fuzz_testing.run(
        fuzz_testing.mounted(cloud.pipelines['/v2.1'], '/v2.1'),
        cloud.identity.token(persona),
        world.values,
        world.bodies(),
        sent={'OpenStack-API-Version': 'compute ' + version},
        allowed=(501,),
    )
    assert not found, '\n\n'.join(found)
