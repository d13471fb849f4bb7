"""Every operation with requests that fit the OpenAPI document and others that don't: no answer of 500, none outside its schema."""

import itertools

import hypothesis.strategies as st

from kodiak.common import fuzz_testing, testing

_TEXT = st.text(max_size=40)
_ADDRESS = st.sampled_from(
    [
        '10.0.0.9',
        '10.0.0.1',
        '10.0.0.255',
        '172.24.0.9',
        '::1',
        'fd00::1',
        '',
        '1.2.3',
        '0.0.0.0/0',
        '10.0.0.0/33',
        '999.1.1.1',
        '10.0.0.9/24',
        '::ffff:10.0.0.9',
    ]
)
_SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.just(2**70), st.just(-1), _TEXT, _ADDRESS)
_JSON = st.recursive(
    _SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)), max_leaves=6
)


def _some(**fields):
    return st.fixed_dictionaries({}, optional={name: st.one_of(value, _JSON) for name, value in fields.items()})


class World:
    """What exists, made anew for whatever may change or remove it."""

    def __init__(self, make, client, admin, agent):
        self.make, self.client, self.admin, self.agent = make, client, admin, agent
        self.number = itertools.count()
        self.public = make(admin, 'network', name='public', **{'router:external': True})['id']
        make(admin, 'subnet', network_id=self.public, cidr='172.24.0.0/16', ip_version=4, enable_dhcp=False)
        self.net = make(client, 'network')['id']
        self.sub = make(client, 'subnet', network_id=self.net, cidr='10.0.0.0/16', ip_version=4)['id']
        self.pool = make(client, 'subnetpool', name='p', prefixes=['10.64.0.0/12'], default_prefixlen=24)['id']
        self.group = make(client, 'security_group', name='g')['id']
        self.addresses = make(client, 'address_group', name='a', addresses=['10.9.0.0/24'])['id']
        self.policy = self.qos('policies')
        self.a_router = make(client, 'router', external_gateway_info={'network_id': self.public})['id']
        client.put(f'/routers/{self.a_router}/add_router_interface', {'subnet_id': self.sub}).expect(200)
        self.port = make(client, 'port', network_id=self.net)['id']

    def qos(self, kind, policy=None):
        body = {
            'policies': {'name': 'q', 'shared': True},
            'bandwidth_limit_rules': {'max_kbps': 1000},
            'dscp_marking_rules': {'dscp_mark': 8},
        }[kind]
        path = '/qos/policies' if kind == 'policies' else f'/qos/policies/{policy}/{kind}'
        made = self.admin.post(path, {'policy' if kind == 'policies' else kind[:-1]: body})
        return made.expect(201).json['policy' if kind == 'policies' else kind[:-1]]['id']

    def one(self, kind):
        """A new resource's id, by the name of its list."""
        single = kind[:-3] + 'y' if kind.endswith('ies') else kind[:-2] if kind.endswith('sses') else kind[:-1]
        made = {
            'networks': {},
            'subnetpools': {'name': 'p', 'prefixes': ['10.32.0.0/16']},
            'address-scopes': {'name': 's', 'ip_version': 4},
            'ports': {'network_id': self.net},
            'routers': {'external_gateway_info': {'network_id': self.public}},
            'floatingips': {'floating_network_id': self.public},
            'security-groups': {'name': f'g{next(self.number)}'},
            'security-group-rules': {
                'security_group_id': self.group,
                'direction': 'ingress',
                'protocol': 'tcp',
                'port_range_min': 1 + next(self.number),
                'port_range_max': 60000,
            },
            'address-groups': {'name': 'a'},
            'rbac-policies': {'object_type': 'network', 'action': 'access_as_shared', 'target_tenant': f't{next(self.number)}'},
            'default-security-group-rules': {
                'direction': 'ingress',
                'protocol': 'tcp',
                'port_range_min': 1 + next(self.number),
                'port_range_max': 60000,
            },
        }.get(kind)
        if kind in ('policies', 'qos'):
            return self.qos('policies')
        if kind == 'agents':
            self.agent('host1')
            return self.admin.get('/agents').json['agents'][0]['id']
        if kind.startswith('metering'):
            return self.metering(kind)
        if kind == 'subnets':
            network = self.make(self.client, 'network')['id']
            return self.make(self.client, 'subnet', network_id=network, cidr='10.1.0.0/24', ip_version=4)['id']
        if made is None:
            return self.net
        client = self.admin if kind.startswith('default') else self.client
        if kind == 'rbac-policies':
            made = {**made, 'object_id': self.make(client, 'network')['id']}
        single = single.replace('-', '_')
        return client.post('/' + kind, {single: made}).expect(201).json[single]['id']

    def metering(self, kind):
        label = (
            self.admin.post('/metering/metering-labels', {'metering_label': {'name': 'm'}}).expect(201).json['metering_label']['id']
        )
        if kind == 'metering-labels':
            return label
        return (
            self.admin.post(
                '/metering/metering-label-rules',
                {'metering_label_rule': {'metering_label_id': label, 'remote_ip_prefix': '10.0.0.0/24', 'direction': 'ingress'}},
            )
            .expect(201)
            .json['metering_label_rule']['id']
        )

    def values(self, path, names):
        """What exists for the parameters of a path."""
        parts = path.removeprefix('/v2.0/').split('/')
        kind = parts[1] if parts[0] in ('qos', 'metering') else parts[0]
        found = {
            'alias': ['tag'],
            'host': ['host1'],
            'tag': ['t'],
            'kind': ['bandwidth_limit', 'dscp_marking'],
            'project_id': [testing.PROJECT],
            'network_id': [self.net],
            'router_id': [self.a_router],
        }
        if 'id' in names:
            found['id'] = [self.one(kind)]
        if 'rule_id' in names:
            found['rule_id'] = [self.qos(parts[3], found['id'][0])]
        if 'forwarding_id' in names:
            found['forwarding_id'] = [
                self.client.post(
                    f'/floatingips/{found["id"][0]}/port_forwardings',
                    {
                        'port_forwarding': {
                            'protocol': 'tcp',
                            'internal_port': 22,
                            'external_port': 2222,
                            'internal_port_id': self.port,
                            'internal_ip_address': self.client.get('/ports/' + self.port).json['port']['fixed_ips'][0][
                                'ip_address'
                            ],
                        }
                    },
                )
                .expect(201)
                .json['port_forwarding']['id']
            ]
        if 'tag' in names:
            self.client.put(path.replace('{id}', found['id'][0]).replace('{tag}', 't').removeprefix('/v2.0'))
        return found

    def bodies(self):
        """Bodies that mean something, with parts that don't."""
        ids = st.sampled_from(
            [self.net, self.sub, self.pool, self.group, self.addresses, self.policy, self.a_router, self.public, self.port]
        )
        fixed = st.lists(_some(subnet_id=ids, ip_address=_ADDRESS), max_size=2)
        pools = st.lists(_some(start=_ADDRESS, end=_ADDRESS), max_size=2)
        routes = st.lists(_some(destination=_ADDRESS, nexthop=_ADDRESS), max_size=2)
        network = _some(
            name=_TEXT,
            mtu=st.integers(0, 9000),
            qos_policy_id=ids,
            shared=st.booleans(),
            **{
                'router:external': st.booleans(),
                'provider:network_type': st.sampled_from(['vxlan', 'flat', 'local', 'vlan', 'gre']),
                'provider:physical_network': st.just('public'),
                'provider:segmentation_id': st.integers(-1, 2**24),
                'availability_zone_hints': st.lists(_TEXT, max_size=2),
                'dns_domain': _TEXT,
            },
        )
        subnet = _some(
            network_id=st.just(self.net),
            cidr=_ADDRESS,
            ip_version=st.sampled_from([4, 6]),
            gateway_ip=_ADDRESS,
            allocation_pools=pools,
            host_routes=routes,
            dns_nameservers=st.lists(_ADDRESS, max_size=3),
            subnetpool_id=ids,
            prefixlen=st.integers(0, 130),
            ipv6_ra_mode=st.sampled_from(['slaac', 'x']),
            service_types=st.lists(_TEXT, max_size=2),
            use_default_subnetpool=st.booleans(),
        )
        port = _some(
            network_id=st.just(self.net),
            fixed_ips=fixed,
            mac_address=st.sampled_from(['fa:16:3e:00:00:01', 'x', '00:00']),
            security_groups=st.lists(ids, max_size=2),
            allowed_address_pairs=st.lists(_some(ip_address=_ADDRESS), max_size=2),
            port_security_enabled=st.booleans(),
            qos_policy_id=ids,
            extra_dhcp_opts=st.lists(_some(opt_name=_TEXT, opt_value=_TEXT, ip_version=st.sampled_from([4, 6])), max_size=2),
            dns_name=_TEXT,
            device_owner=_TEXT,
            device_id=_TEXT,
            **{
                'binding:host_id': st.just('host1'),
                'binding:profile': _JSON,
                'binding:vnic_type': st.sampled_from(['normal', 'direct', 'x']),
            },
        )
        pool = _some(
            name=_TEXT,
            prefixes=st.lists(_ADDRESS, max_size=3),
            min_prefixlen=st.integers(0, 130),
            max_prefixlen=st.integers(0, 130),
            default_prefixlen=st.integers(0, 130),
            address_scope_id=ids,
            is_default=st.booleans(),
            default_quota=st.integers(-1, 2**40),
        )
        router = _some(
            external_gateway_info=_some(network_id=ids, external_fixed_ips=fixed, enable_snat=st.booleans()), routes=routes
        )
        floating = _some(
            floating_network_id=ids, port_id=ids, fixed_ip_address=_ADDRESS, floating_ip_address=_ADDRESS, subnet_id=ids
        )
        rule = _some(
            security_group_id=st.just(self.group),
            direction=st.sampled_from(['ingress', 'egress']),
            ethertype=st.sampled_from(['IPv4', 'IPv6']),
            protocol=st.sampled_from(['tcp', 'icmp', '6', 'x', 300, 'ipv6-icmp']),
            port_range_min=st.integers(-1, 70000),
            port_range_max=st.integers(-1, 70000),
            remote_ip_prefix=_ADDRESS,
            remote_group_id=ids,
            remote_address_group_id=ids,
        )
        rbac = _some(
            object_type=st.sampled_from(['network', 'subnetpool', 'qos_policy', 'security_group', 'x']),
            object_id=ids,
            action=st.sampled_from(['access_as_shared', 'access_as_external']),
            target_tenant=_TEXT,
        )
        forwarding = _some(
            protocol=st.sampled_from(['tcp', 'udp', 'x']),
            internal_port=st.integers(-1, 70000),
            external_port=st.integers(-1, 70000),
            internal_port_id=ids,
            internal_ip_address=_ADDRESS,
        )
        found = {}
        for path, single, body in (
            ('networks', 'network', network),
            ('subnets', 'subnet', subnet),
            ('ports', 'port', port),
            ('subnetpools', 'subnetpool', pool),
            ('routers', 'router', router),
            ('floatingips', 'floatingip', floating),
            ('security-group-rules', 'security_group_rule', rule),
            ('rbac-policies', 'rbac_policy', rbac),
            ('default-security-group-rules', 'default_security_group_rule', rule),
            ('floatingips/{id}/port_forwardings', 'port_forwarding', forwarding),
        ):
            found['POST', '/v2.0/' + path] = st.one_of(
                st.fixed_dictionaries({single: body}), st.fixed_dictionaries({single + 's': st.lists(body, max_size=2)})
            )
            inner = '/{forwarding_id}' if single == 'port_forwarding' else '/{id}'
            found['PUT', f'/v2.0/{path}{inner}'] = st.fixed_dictionaries({single: body})
        found['PUT', '/v2.0/routers/{id}/add_router_interface'] = _some(subnet_id=ids, port_id=ids)
        found['PUT', '/v2.0/routers/{id}/remove_router_interface'] = _some(subnet_id=ids, port_id=ids)
        for name in ('add', 'remove'):
            found['PUT', f'/v2.0/routers/{{id}}/{name}_extraroutes'] = st.fixed_dictionaries({'router': _some(routes=routes)})
            found['PUT', f'/v2.0/subnetpools/{{id}}/{name}_prefixes'] = _some(prefixes=st.lists(_ADDRESS, max_size=3))
            found['PUT', f'/v2.0/address-groups/{{id}}/{name}_addresses'] = _some(addresses=st.lists(_ADDRESS, max_size=3))
        return found


def test_no_request_breaks_the_api(service, as_, make, agent):
    agent('host1')
    admin = as_(testing.ADMIN)
    limits = dict.fromkeys(admin.get('/quotas/' + testing.PROJECT).json['quota'], -1)
    for project in (testing.PROJECT, testing.ADMIN.project_id):
        admin.put('/quotas/' + project, {'quota': limits}).expect(200)
    world = World(make, admin, admin, agent)
    found = fuzz_testing.run(
        fuzz_testing.mounted(service.pipeline, '/v2.0'), service.identity.token(testing.ADMIN), world.values, world.bodies()
    )
    assert not found, '\n\n'.join(found)
