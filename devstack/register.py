#!/usr/bin/env python3
"""Registers in a new cloud, through its public APIs, what people expect to find there. Run by stack.sh.

    register.py cloud       roles, service users, catalog, the demo project and its user
    register.py resources   flavors, guest images, the public and a private network, a router, rules for SSH and ping
    register.py server      a first server with a floating IP; waits until it answers SSH, says how to reach it

Settings come from the environment, so that passwords stand in no argument list. What is there stays as it is.
"""
import os
import pathlib
import subprocess
import sys
import time

from keystoneauth1 import exceptions, session
from keystoneauth1.identity import v3

ENV = os.environ
REGION = ENV['REGION_NAME']
IDENTITY = f'http://{ENV["HOST_IP"]}:5000/v3'
KEY_NAME = 'kodiak'
ROUTER = 'router1'
SERVER = 'first'

SERVICES = {
    'identity': [('identity', 'identity', ':5000/v3')],
    'image': [('image', 'image', ':9292')],
    'network': [('network', 'network', ':9696')],
    'storage-object': [('object-store', 'object-store', ':8080/v1/AUTH_%(project_id)s')],
    'storage-block': [('cinder', 'block-storage', ':8776/v3/$(project_id)s'), ('cinderv3', 'volumev3', ':8776/v3/$(project_id)s')],
    'compute': [('compute', 'compute', ':8774/v2.1'), ('placement', 'placement', ':8774/placement')],
}
if 'remote' in ENV['IMAGE_FEATURES'].split():
    SERVICES['image'].append(('image-remote', 'image_remote', ':9293'))
FLAVORS = [  # name, id, MiB of memory, processors, GiB of disk
    ('m1.nano', '42', 128, 1, 1),
    ('m1.micro', '84', 192, 1, 1),
    ('m1.tiny', '1', 512, 1, 1),
    ('m1.small', '2', 2048, 1, 20),
    ('m1.medium', '3', 4096, 2, 40),
    ('m1.large', '4', 8192, 4, 80),
]


class Stop(Exception):
    """What keeps the registration from going on, for people to read."""


class Cloud:
    """REST calls as one user in one project."""

    def __init__(self, user, password, project):
        auth = v3.Password(IDENTITY, username=user, password=password, project_name=project,
                           user_domain_name='Default', project_domain_name='Default')
        self.session = session.Session(auth)

    @property
    def project_id(self):
        return self.session.get_project_id()

    def call(self, method, service, path, body=None, **kwargs):
        """One request; returns the decoded body, None where there is none."""
        if body is not None:
            kwargs['json'] = body
        try:
            answer = self.session.request(path, method, endpoint_filter={
                'service_type': service, 'interface': 'public', 'region_name': REGION}, **kwargs)
        except exceptions.HttpError as error:
            raise Stop(f'{method} {path} of {service}: {error.http_status} {error.message or error}') from error
        return answer.json() if answer.content else None

    def get(self, service, path, **params):
        """GET."""
        return self.call('GET', service, path, params=params)

    def post(self, service, path, body):
        """POST."""
        return self.call('POST', service, path, body)

    def ensure(self, service, path, kind, body, kinds=None, **filters):
        """The resource that ``filters`` find, or a new one made of ``body``."""
        for found in self.get(service, path, **filters)[kinds or kind + 's']:
            if all(str(found.get(key)) == str(value) for key, value in filters.items()):
                return found
        print(f'new {kind}: {filters}')
        return self.post(service, path, {kind: body})[kind]


def register_cloud(admin):
    """Roles, service users, catalog, demo project."""
    domain = admin.get('identity', '/domains', name='Default')['domains'][0]['id']
    roles = {name: admin.ensure('identity', '/roles', 'role', {'name': name}, name=name)['id']
             for name in ('admin', 'member', 'reader', 'service', 'ResellerAdmin')}

    def project(name, description):
        return admin.ensure('identity', '/projects', 'project',
                            {'name': name, 'domain_id': domain, 'description': description}, name=name)['id']

    def user(name, password, project_id):
        found = admin.ensure('identity', '/users', 'user', {
            'name': name, 'domain_id': domain, 'password': password, 'default_project_id': project_id}, name=name)
        return found['id']

    def grant(user_id, project_id, granted):
        for role in granted:
            admin.call('PUT', 'identity', f'/projects/{project_id}/users/{user_id}/roles/{roles[role]}')

    services = project('service', 'The services among themselves.')
    demo = project('demo', 'A project to try things in.')
    grant(user('demo', ENV['DEMO_PASSWORD'], demo), demo, ['member'])
    grant(admin.session.get_user_id(), demo, ['admin'])
    for name in ENV['ENABLED'].split():
        if name not in SERVICES:
            continue
        if name != 'identity':
            # As in every OpenStack: services act on what belongs to any project, so they are administrators too.
            grant(user(name, ENV['SERVICE_PASSWORD'], services), services, ['admin', 'service'])
        for service_name, service_type, where in SERVICES[name]:
            service = admin.ensure('identity', '/services', 'service',
                                   {'name': service_name, 'type': service_type}, type=service_type)
            url = f'http://{ENV["HOST_IP"]}{where}'
            for interface in ('public', 'internal', 'admin'):
                found = admin.ensure('identity', '/endpoints', 'endpoint', {
                    'service_id': service['id'], 'interface': interface, 'region_id': REGION, 'url': url,
                }, service_id=service['id'], interface=interface)
                if found['url'] != url:
                    admin.call('PATCH', 'identity', f'/endpoints/{found["id"]}', {'endpoint': {'url': url}})


def register_resources(admin, demo):
    """Flavors, images, networks, volume types."""
    enabled = ENV['ENABLED'].split()
    if 'compute' in enabled:
        there = {flavor['name'] for flavor in admin.get('compute', '/flavors')['flavors']}
        for name, flavor_id, memory, processors, disk in FLAVORS:
            if name not in there:
                admin.post('compute', '/flavors', {'flavor': {
                    'name': name, 'id': flavor_id, 'ram': memory, 'vcpus': processors, 'disk': disk}})
    if 'image' in enabled:
        for name in (ENV['GUEST_IMAGE_NAME'], ENV['GUEST_IMAGE_NAME'] + '-alt'):
            register_image(admin, name)
    if 'network' in enabled:
        register_networks(admin, demo)
    if 'storage-block' in enabled:
        register_volume_types(admin)
        if 'volumes' in ENV['IMAGE_STORES'].split():
            # Images that lie in volumes are the services' own.
            project = admin.get('identity', '/projects', name='service')['projects'][0]['id']
            admin.call('PUT', 'block-storage', f'/os-quota-sets/{project}', {'quota_set': {'volumes': -1, 'gigabytes': -1}})


def volumes_have_a_place(admin):
    """True once the agent of a host has told of a back end: until then a volume would go to error."""
    services = admin.get('block-storage', '/os-services')['services']
    return any(service['binary'] == 'cinder-volume' and service['state'] == 'up' for service in services)


def register_volume_types(admin):
    """A type whose volumes are encrypted, beside the default one, and one whose volumes several servers may have."""
    encrypted = admin.ensure('block-storage', '/types', 'volume_type', {
        'name': 'encrypted', 'description': 'Encrypted by LUKS with a key of its own for each volume.'}, name='encrypted')
    if not admin.get('block-storage', f'/types/{encrypted["id"]}/encryption'):
        admin.post('block-storage', f'/types/{encrypted["id"]}/encryption', {'encryption': {
            'provider': 'luks', 'cipher': 'aes-xts-plain64', 'key_size': 256, 'control_location': 'front-end'}})
    admin.ensure('block-storage', '/types', 'volume_type', {
        'name': 'multiattach', 'description': 'Several servers may have a volume at once.',
        'extra_specs': {'multiattach': '<is> True'}}, name='multiattach')
    wait(60, 'a back end of block storage that is up', lambda: volumes_have_a_place(admin))


def register_image(admin, name):
    """The guest image under a name, public; an older build keeps its bytes under a name of its own."""
    path = pathlib.Path(ENV['GUEST_IMAGE'])
    stamp = path.with_name(path.name + '.stamp').read_text().split()[0]
    for found in admin.get('image', '/v2/images', name=name)['images']:
        if found['status'] == 'active' and found.get('kodiak_build') == stamp:
            return
        old = [{'op': 'replace', 'path': '/name', 'value': f'{name}-{found["created_at"]}'},
               {'op': 'replace', 'path': '/visibility', 'value': 'private'}]
        admin.call('PATCH', 'image', f'/v2/images/{found["id"]}', old, headers={
            'Content-Type': 'application/openstack-images-v2.1-json-patch'})
    print(f'new image: {name}')
    made = admin.post('image', '/v2/images', {
        'name': name, 'visibility': 'public', 'disk_format': 'qcow2', 'container_format': 'bare', 'kodiak_build': stamp,
        'os_distro': 'kodiak'})
    with path.open('rb') as data:
        admin.call('PUT', 'image', f'/v2/images/{made["id"]}/file', data=data,
                   headers={'Content-Type': 'application/octet-stream'})


def register_networks(admin, demo):
    """The public network, and in the demo project a network behind a router; SSH and ping let in."""
    public_name, private_name = ENV['PUBLIC_NETWORK_NAME'], ENV['PRIVATE_NETWORK_NAME']
    public = admin.ensure('network', '/v2.0/networks', 'network', {
        'name': public_name, 'router:external': True, 'provider:network_type': 'flat',
        'provider:physical_network': 'public', 'is_default': True}, name=public_name)
    admin.ensure('network', '/v2.0/subnets', 'subnet', {
        'name': public_name + '-subnet', 'network_id': public['id'], 'ip_version': 4, 'cidr': ENV['FLOATING_RANGE'],
        'gateway_ip': ENV['PUBLIC_NETWORK_GATEWAY'], 'enable_dhcp': False}, network_id=public['id'])
    # Projects without a network of their own get one from these where a server asks for it ("--nic auto").
    for version, prefix, length in ((4, '10.128.0.0/10', 24), (6, 'fd6b:6f64:6961::/48', 64)):
        admin.ensure('network', '/v2.0/subnetpools', 'subnetpool', {
            'name': f'default-v{version}', 'prefixes': [prefix], 'default_prefixlen': length, 'is_default': True, 'shared': True},
            name=f'default-v{version}')
    project = demo.project_id
    private = demo.ensure('network', '/v2.0/networks', 'network', {'name': private_name},
                          name=private_name, project_id=project)
    subnet = demo.ensure('network', '/v2.0/subnets', 'subnet', {
        'name': private_name + '-subnet', 'network_id': private['id'], 'ip_version': 4, 'cidr': ENV['FIXED_RANGE']},
        network_id=private['id'])
    router = demo.ensure('network', '/v2.0/routers', 'router', {
        'name': ROUTER, 'external_gateway_info': {'network_id': public['id']}}, name=ROUTER, project_id=project)
    if not demo.get('network', '/v2.0/ports', device_id=router['id'], network_id=private['id'])['ports']:
        demo.call('PUT', 'network', f'/v2.0/routers/{router["id"]}/add_router_interface', {'subnet_id': subnet['id']})
    group = demo.get('network', '/v2.0/security-groups', name='default', project_id=project)['security_groups'][0]
    for protocol, port in (('icmp', None), ('tcp', 22)):
        rule = {'security_group_id': group['id'], 'direction': 'ingress', 'ethertype': 'IPv4', 'protocol': protocol}
        demo.ensure('network', '/v2.0/security-group-rules', 'security_group_rule', {
            **rule, 'port_range_min': port, 'port_range_max': port, 'remote_ip_prefix': '0.0.0.0/0'},
            remote_ip_prefix='0.0.0.0/0', **rule)


def key_pair(demo):
    """The file of the private key that the demo project's key pair belongs to; both are made if need be."""
    path = pathlib.Path.home() / '.ssh' / 'kodiak'
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'kodiak', '-f', str(path)], check=True)
    public = path.with_name(path.name + '.pub').read_text().strip()
    for item in demo.get('compute', '/os-keypairs')['keypairs']:
        if item['keypair']['name'] == KEY_NAME:
            if item['keypair']['public_key'].strip() == public:
                return path
            demo.call('DELETE', 'compute', f'/os-keypairs/{KEY_NAME}')
    demo.post('compute', '/os-keypairs', {'keypair': {'name': KEY_NAME, 'public_key': public}})
    return path


def wait(seconds, what, look):
    """Call ``look`` until it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    raise Stop(f'{what}: not within {seconds} s')


def hosts_are_up(admin):
    """True once a hypervisor has reported what it offers, and the host's network agent is there."""
    return (any(host['state'] == 'up' for host in admin.get('compute', '/os-hypervisors/detail')['hypervisors'])
            and any(agent['alive'] for agent in admin.get('network', '/v2.0/agents')['agents']))


def register_server(admin, demo):
    """The first server: ACTIVE, with a floating IP, answering SSH."""
    wait(90, 'a hypervisor and a network agent that are up', lambda: hosts_are_up(admin))
    key = key_pair(demo)
    network = demo.get('network', '/v2.0/networks', name=ENV['PRIVATE_NETWORK_NAME'])['networks'][0]
    public = demo.get('network', '/v2.0/networks', name=ENV['PUBLIC_NETWORK_NAME'])['networks'][0]
    image = demo.get('image', '/v2/images', name=ENV['GUEST_IMAGE_NAME'])['images'][0]
    found = [server for server in demo.get('compute', '/servers/detail', name=f'^{SERVER}$')['servers']
             if server['status'] != 'ERROR']
    if not found:
        found = [demo.post('compute', '/servers', {'server': {
            'name': SERVER, 'flavorRef': '42', 'imageRef': image['id'], 'key_name': KEY_NAME,
            'networks': [{'uuid': network['id']}]}})['server']]
    server_id = found[0]['id']

    def active():
        server = demo.get('compute', f'/servers/{server_id}')['server']
        if server['status'] == 'ERROR':
            raise Stop(f'server {SERVER} went to ERROR: {server.get("fault", {}).get("message")}')
        return server if server['status'] in ('ACTIVE', 'SHUTOFF') else None

    server = wait(180, f'server {SERVER} ACTIVE', active)
    if server['status'] == 'SHUTOFF':
        demo.call('POST', 'compute', f'/servers/{server_id}/action', {'os-start': None})
        wait(120, f'server {SERVER} ACTIVE', lambda: (found := active()) and found['status'] == 'ACTIVE')
    port = demo.get('network', '/v2.0/ports', device_id=server_id)['ports'][0]
    address = demo.ensure('network', '/v2.0/floatingips', 'floatingip', {
        'floating_network_id': public['id'], 'port_id': port['id']}, port_id=port['id'])['floating_ip_address']
    if ENV['VIRT_DRIVER'] == 'fake':
        print(f'server {SERVER} is ACTIVE; the fake hypervisor has no guest to log in to')
        return
    command = ['ssh', '-q', '-o', 'BatchMode=yes', '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null',
               '-o', 'ConnectTimeout=3', '-i', str(key), f'cirros@{address}']
    answer = wait(180, f'SSH to server {SERVER} on {address}', lambda: subprocess.run(
        [*command, 'hostname; uptime'], capture_output=True, text=True, check=False, timeout=20).stdout)
    said = ' '.join(answer.split())
    print(f'server {SERVER} is ACTIVE and answered SSH on its floating IP {address}: {said}')
    print(f'    ssh -i {key} cirros@{address}')


def main():
    admin = Cloud('admin', ENV['ADMIN_PASSWORD'], 'admin')
    demo = Cloud('demo', ENV['DEMO_PASSWORD'], 'demo')
    what = sys.argv[1]
    try:
        if what == 'cloud':
            register_cloud(admin)
        elif what == 'resources':
            register_resources(admin, demo)
        elif what == 'server':
            register_server(admin, demo)
        else:
            raise Stop(f'unknown: {what}')
    except (Stop, exceptions.ClientException) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
