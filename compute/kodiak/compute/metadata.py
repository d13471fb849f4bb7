"""What a guest can learn about itself, as a tree of files made from its spec.

The metadata API answers from this tree and the config drive is this tree on a disk, so a guest reads the same
whichever way it asks. Nothing here looks anything up: a :class:`~kodiak.compute.agent.state.Spec` goes in and
bytes come out.

Two families of paths: ``openstack/<version>/...`` (JSON) and the EC2 compatible ``<version>/meta-data/...`` (one
value a file). A version keeps the keys that it was published with, because some guests check.
"""
import base64
import ipaddress
import os

import orjson

OPENSTACK_VERSIONS = ('2012-08-10', '2013-04-04', '2013-10-17', '2015-10-15', '2016-06-30', '2016-10-06',
                      '2017-02-22', '2018-08-27', '2020-10-14', 'latest')
EC2_VERSIONS = ('1.0', '2007-01-19', '2007-03-01', '2007-08-29', '2007-10-10', '2007-12-15', '2008-02-01',
                '2008-09-01', '2009-04-04', 'latest')
SEED_BYTES = 512


def _since(version, first):
    """True if what was first published in ``first`` belongs to ``version``. Versions sort as text."""
    return version == 'latest' or version >= first


def meta_data(spec, version='latest', seed=None, with_password=False):
    """``meta_data.json`` as a dictionary.

    :param seed: the random bytes that the guest may feed its random number generator with; fresh ones if None.
    :param with_password: tell the administrator's password too. Only the config drive does.
    """
    hostname = spec.hostname or spec.name
    data = {'uuid': spec.uuid, 'hostname': hostname, 'name': spec.name, 'launch_index': spec.launch_index,
            'availability_zone': spec.availability_zone}
    if spec.metadata:
        data['meta'] = dict(spec.metadata)
    if spec.public_key:
        data['public_keys'] = {spec.key_name: spec.public_key}
        if _since(version, '2012-08-10'):
            data['keys'] = [{'name': spec.key_name, 'type': spec.key_type, 'data': spec.public_key}]
    if spec.files:
        data['files'] = [{'content_path': f'/content/{index:04d}', 'path': file['path']}
                         for index, file in enumerate(spec.files)]
    if with_password and spec.admin_password:
        data['admin_pass'] = spec.admin_password
    if _since(version, '2013-04-04'):
        data['random_seed'] = base64.b64encode(seed or os.urandom(SEED_BYTES)).decode()
    if _since(version, '2015-10-15'):
        data['project_id'] = spec.project_id
    if _since(version, '2016-06-30'):
        data['devices'] = _devices(spec, version)
    if _since(version, '2020-10-14'):
        data['dedicated_cpus'] = []
    return data


def _devices(spec, version):
    devices = []
    for port in spec.ports:
        if port.tag:
            device = {'type': 'nic', 'bus': 'none', 'address': 'none', 'mac': port.mac, 'tags': [port.tag]}
            if _since(version, '2018-08-27'):
                device['vf_trusted'] = False
            devices.append(device)
    devices.extend({'type': 'disk', 'bus': 'none', 'address': 'none', 'serial': volume.id, 'tags': [volume.tag]}
                   for volume in spec.volumes if volume.tag)
    return devices


def network_data(spec):
    """``network_data.json`` as a dictionary: the links, the networks on them, and the name servers."""
    links, networks, servers = [], [], []
    for port in spec.ports:
        links.append({'id': port.tap, 'vif_id': port.id, 'type': 'bridge', 'mtu': port.mtu,
                      'ethernet_mac_address': port.mac})
        for ip in port.fixed_ips:
            networks.append(_network(f'network{len(networks)}', port, ip))
            servers.extend(server for server in ip.dns if server not in servers)
    return {'links': links, 'networks': networks,
            'services': [{'type': 'dns', 'address': server} for server in servers]}


def _network(name, port, ip):
    subnet = ipaddress.ip_network(ip.cidr, strict=False)
    data = {'id': name, 'link': port.tap, 'network_id': port.network_id,
            'type': f'ipv{ip.version}' + ('_dhcp' if ip.dhcp else '')}
    if ip.dhcp:
        return data
    routes = [{'network': route.network_address.compressed, 'netmask': str(route.netmask), 'gateway': hop}
              for route, hop in _routes(ip)]
    data.update(ip_address=ip.address, netmask=str(subnet.netmask), routes=routes,
                services=[{'type': 'dns', 'address': server} for server in ip.dns])
    return data


def _routes(ip):
    for route in ip.routes:
        yield ipaddress.ip_network(route['destination'], strict=False), route['nexthop']
    if ip.gateway:
        yield ipaddress.ip_network('::/0' if ip.version == 6 else '0.0.0.0/0'), ip.gateway


def user_data(spec):
    """The user's own data as bytes, or None."""
    return base64.b64decode(spec.user_data) if spec.user_data else None


def openstack(spec, version, seed=None, with_password=False):
    """The files of ``openstack/<version>``: ``{name: bytes}``."""
    files = {'meta_data.json': orjson.dumps(meta_data(spec, version, seed, with_password))}
    data = user_data(spec)
    if data is not None:
        files['user_data'] = data
    if _since(version, '2013-10-17'):
        files['vendor_data.json'] = orjson.dumps(spec.vendor_data)
    if _since(version, '2015-10-15'):
        files['network_data.json'] = orjson.dumps(network_data(spec))
    if _since(version, '2016-10-06'):
        files['vendor_data2.json'] = orjson.dumps({'static': spec.vendor_data} if spec.vendor_data else {})
    return files


def ec2_id(prefix, uuid):
    """An identifier in EC2's form for something that has a UUID: ``i-`` and its first eight digits."""
    return f'{prefix}-{uuid.replace("-", "")[:8]}'


def ec2(spec, version='latest'):
    """The EC2 metadata as nested dictionaries of strings (``meta-data`` and below)."""
    addresses = [ip for port in spec.ports for ip in port.fixed_ips if ip.version == 4]
    hostname = spec.hostname or spec.name
    image = ec2_id('ami', spec.image.id) if spec.image else ''
    data = {
        'ami-id': image, 'ami-launch-index': str(spec.launch_index), 'ami-manifest-path': '',
        'hostname': hostname, 'instance-id': ec2_id('i', spec.uuid), 'local-ipv4': addresses[0].address
        if addresses else '', 'reservation-id': spec.reservation_id,
        'security-groups': '\n'.join(spec.security_groups),
    }
    if spec.public_key:
        data['public-keys'] = {'0': {'_name': f'0={spec.key_name}', 'openssh-key': spec.public_key}}
    if _since(version, '2007-01-19'):
        data['local-hostname'] = hostname
        data['public-hostname'] = hostname
        data['public-ipv4'] = spec.floating_ips[0] if spec.floating_ips else ''
    if _since(version, '2007-08-29'):
        data['instance-type'] = spec.flavor.name
    if _since(version, '2007-12-15'):
        data['instance-action'] = 'none'
        data['block-device-mapping'] = _block_devices(spec)
    if _since(version, '2008-02-01'):
        data['placement'] = {'availability-zone': spec.availability_zone}
    return data


def _block_devices(spec):
    devices = {'ami': 'vda', 'root': '/dev/vda'}
    sizes = [spec.flavor.ephemeral] if spec.ephemerals is None else [disk['size'] for disk in spec.ephemerals]
    count = 0
    for size in sizes:
        if size:
            devices[f'ephemeral{count}'] = f'/dev/vd{chr(ord("b") + count)}'
            count += 1
    if spec.flavor.swap:
        devices['swap'] = f'/dev/vd{chr(ord("b") + count)}'
    devices.update({f'ebs{index}': volume.device for index, volume in enumerate(spec.volumes) if volume.device})
    return devices


def lookup(spec, path, seed=None):
    """What the metadata service answers for ``path`` (without the leading slash).

    :returns: bytes of a file, the listing of a folder (one name a line, as text clients expect), or None
        where there is nothing.
    """
    parts = [part for part in path.split('/') if part]
    if not parts:
        return '\n'.join(EC2_VERSIONS).encode()
    if parts[0] == 'openstack':
        return _lookup_openstack(spec, parts[1:], seed)
    version, *rest = parts
    if version not in EC2_VERSIONS:
        return None
    tree = {'meta-data': ec2(spec, version)}
    data = user_data(spec)
    if data is not None:
        tree['user-data'] = data
    return _walk(tree, rest)


def _lookup_openstack(spec, parts, seed):
    if not parts:
        return '\n'.join(OPENSTACK_VERSIONS).encode()
    version, *rest = parts
    if version == 'content':
        return _content(spec).get(rest[0]) if len(rest) == 1 else None
    if version not in OPENSTACK_VERSIONS:
        return None
    files = openstack(spec, version, seed)
    if not rest:
        names = sorted(files)
        if _since(version, '2013-04-04'):
            names.append('password')
        return '\n'.join(names).encode()
    return files.get(rest[0]) if len(rest) == 1 else None


def _walk(node, parts):
    for part in parts:
        # A public key is listed as "0=mykey" and is asked for as "0", or, by some, as it is listed.
        node = node.get(part.partition('=')[0]) if isinstance(node, dict) else None
        if node is None:
            return None
    if isinstance(node, dict):
        return '\n'.join(_listed(name, value) for name, value in sorted(node.items()) if name != '_name').encode()
    return node if isinstance(node, bytes) else node.encode()


def _listed(name, value):
    if not isinstance(value, dict):
        return name
    return value.get('_name', name + '/')


def _content(spec):
    return {f'{index:04d}': base64.b64decode(file['contents']) for index, file in enumerate(spec.files)}


def config_drive(spec, seed=None):
    """The whole tree of a config drive: ``{path: bytes}``."""
    seed = seed or os.urandom(SEED_BYTES)
    tree = {}
    for version in OPENSTACK_VERSIONS:
        for name, data in openstack(spec, version, seed, with_password=True).items():
            tree[f'openstack/{version}/{name}'] = data
    for name, data in _content(spec).items():
        tree[f'openstack/content/{name}'] = data
    data = user_data(spec)
    for version in ('2009-04-04', 'latest'):
        tree[f'ec2/{version}/meta-data.json'] = orjson.dumps(ec2(spec, version))
        if data is not None:
            tree[f'ec2/{version}/user-data'] = data
    return tree
