"""Writes tempest.conf from the running cloud: tempest_conf.py FILE. Credentials are those of `kodiak-admin` in clouds.yaml.

What the cloud offers is switched on, what it does not offer is switched off; both are asked of the cloud where it says so
(versions, extensions, import methods, hosts), and stand in FEATURES where no API tells.
"""
import configparser
import os
import pathlib
import sys
import urllib.parse

import image_samples
import openstack

FEATURES = {
    'compute-feature-enabled': {
        'disk_config': True, 'change_password': False, 'console_output': True, 'resize': True, 'pause': True, 'shelve': True,
        'suspend': True, 'interface_attach': True, 'snapshot': True, 'personality': True, 'rescue': True, 'stable_rescue': True,
        'config_drive': True, 'metadata_service': True, 'vnc_console': True, 'serial_console': False, 'spice_console': False,
        'unified_limits': False, 'swap_volume': True, 'volume_multiattach': True, 'attach_encrypted_volume': True,
        'scheduler_enabled_filters': 'all', 'live_migration': False, 'block_migration_for_live_migration': False,
        'hostname_fqdn_sanitization': True, 'dhcp_domain': '', 'ide_bus': True, 'vtpm_live_migration': False,
    },
    'identity-feature-enabled': {
        'trust': True, 'application_credentials': True, 'access_rules': True, 'project_tags': True,
        'security_compliance': False, 'domain_specific_drivers': True, 'federation': True, 'external_idp': False,
    },
    'enforce_scope': {'keystone': True},
    'network-feature-enabled': {
        'ipv6': True, 'ipv6_subnet_attributes': True, 'floating_ips': True, 'port_admin_state_change': True,
        'port_security': True, 'qos_min_bw_and_pps': False,
    },
    'object-storage': {'operator_role': 'member', 'reseller_admin_role': 'ResellerAdmin'},
    'object-storage-feature-enabled': {
        'discoverability': True, 'discoverable_apis': 'all', 'object_versioning': True, 'container_sync': True,
    },
    'service_available': {
        'horizon': False, 'barbican': False,
    },
}
# TEMPEST_IMAGE_FORMATS: run the tests of image formats. Where the cloud compares data with the format that its image declares,
# leave out those that need random bytes to pass for any: with either setting of image_format_enforcement Tempest skips what needs
# the other.
SAMPLES = os.environ.get('TEMPEST_IMAGE_FORMATS')
# TEMPEST_COMPLIANCE: the cloud has the rules of passwords that IDENTITY_FEATURES=compliance of devstack switches on. No API tells.
COMPLIANCE = os.environ.get('TEMPEST_COMPLIANCE')
# Where tempest.sh serves the pages of image_samples.
PAGES_PORT = 8889
# Seconds. Guests run under emulation, several at a time on two cores.
BUILD_TIMEOUT, SSH_TIMEOUT = 300, 240


def settings(cloud):
    """``{section: {option: value}}`` for the cloud behind an openstacksdk connection."""
    auth = cloud.config.config['auth']
    types = {service.type for service in cloud.identity.services()}
    made = {section: dict(options) for section, options in FEATURES.items()}

    def put(section, **options):
        made.setdefault(section, {}).update(options)

    put('DEFAULT', log_file='tempest.log', debug=True)
    put('oslo_concurrency', lock_path='locks')
    put('auth', use_dynamic_credentials=True, admin_username=auth['username'], admin_password=auth['password'],
        admin_project_name=auth['project_name'], admin_domain_name='Default', create_isolated_networks=True)
    put('identity', uri_v3=auth['auth_url'], auth_version='v3', region=cloud.config.region_name, v3_endpoint_type='public',
        default_domain_id='default')
    if COMPLIANCE:
        put('identity-feature-enabled', security_compliance=True)
        put('identity', user_lockout_failure_attempts=3, user_lockout_duration=5, user_unique_last_password_count=2)
    for service, settings_of in (('compute', compute), ('image', image), ('network', network), ('block-storage', volume)):
        if service in types:
            settings_of(cloud, types, put)
    put('validation', run_validation=True, auth_method='keypair', connect_method='floating', image_ssh_user='cirros',
        image_alt_ssh_user='cirros', ssh_timeout=SSH_TIMEOUT, connect_timeout=30, ping_timeout=SSH_TIMEOUT,
        network_for_ssh='private')
    put('scenario', dhcp_client='udhcpc', img_file=guest_image(), img_disk_format='qcow2', img_container_format='bare')
    put('service_available', neutron='network' in types, nova='compute' in types, glance='image' in types,
        cinder=bool(types & {'block-storage', 'volumev3'}), swift='object-store' in types)
    return made


def compute(cloud, types, put):
    """What the compute service offers."""
    images = {image.name: image.id for image in cloud.image.images()}
    flavors = {flavor.name: flavor.id for flavor in cloud.compute.flavors()}
    microversions = cloud.compute.get_endpoint_data()
    placement = cloud.placement.get_endpoint_data()
    hosts = [service.host for service in cloud.compute.services() if service.binary == 'nova-compute']
    put('compute', image_ref=images['kodiak-guest'], image_ref_alt=images['kodiak-guest-alt'], flavor_ref=flavors['m1.nano'],
        flavor_ref_alt=flavors['m1.micro'], min_compute_nodes=max(1, len(hosts)), min_microversion='2.1',
        max_microversion='.'.join(map(str, microversions.max_microversion)), build_timeout=BUILD_TIMEOUT, build_interval=1,
        ready_wait=0)
    put('compute-feature-enabled', cold_migration=len(hosts) > 1)
    put('placement', min_microversion='1.0', max_microversion='.'.join(map(str, placement.max_microversion)))


def image(cloud, types, put):
    """What the image service offers. Pages that images can be fetched from are named by TEMPEST_HTTP_IMAGE and
    TEMPEST_HTTP_QCOW2_IMAGE; where they are not, and the cloud may read pages of its own host, tempest.sh serves some.
    """
    imports = cloud.image.get('/info/import').json().get('import-methods', {}).get('value', [])
    stores = cloud.image.get('/info/stores').json().get('stores', [])
    root = cloud.image.get_endpoint().rstrip('/').removesuffix('/v2')
    versions = {version['id'] for version in cloud.session.get(root + '/versions').json()['versions']}
    trial = cloud.image.post('/images', json={'name': 'tempest-conf', 'disk_format': 'qcow2', 'container_format': 'bare'}).json()
    stored = cloud.image.put(f"/images/{trial['id']}/file", data=b'no qcow2', headers={'Content-Type': 'application/octet-stream'})
    cloud.image.delete('/images/' + trial['id'])
    # Images are inspected as they come. Tempest's tests of lists upload random bytes under the first six formats, so that those
    # are the ones that random bytes may be.
    put('image', build_timeout=BUILD_TIMEOUT, build_interval=1, container_formats='bare,ovf',
        disk_formats='raw,ploop,raw,ploop,raw,ploop,qcow2,iso,vdi,vhd,vhdx,vmdk', image_caching_enabled='v2.14' in versions)
    if 'image_remote' in types:
        put('image', alternate_image_endpoint='image_remote')
    own = f"http://{urllib.parse.urlsplit(cloud.config.config['auth']['auth_url']).hostname}:{PAGES_PORT}/usable."
    for name, page in (('http_image', 'raw'), ('http_qcow2_image', 'qcow2')):
        named = os.environ.get('TEMPEST_' + name.upper()) or (own + page if any(store['id'] == 'web' for store in stores) else None)
        if named:
            put('image', **{name: named})
    put('image-feature-enabled', image_format_enforcement=bool(SAMPLES and not stored.ok), import_image=bool(imports),
        os_glance_reserved=True, image_conversion='glance-direct' in imports, manage_locations='locations' in trial,
        http_store_enabled=any(store['id'] == 'web' for store in stores),
        store_weight_enabled=len({store.get('weight', 0) for store in stores if not store.get('read-only')}) > 1)


def volume(cloud, types, put):
    """What the block storage service offers."""
    kinds = {kind.name for kind in cloud.block_storage.types()}
    put('volume', catalog_type='block-storage', build_timeout=BUILD_TIMEOUT, build_interval=1, volume_size=1,
        min_microversion='3.0', max_microversion='.'.join(map(str, cloud.block_storage.get_endpoint_data().max_microversion)),
        **({'volume_type_multiattach': 'multiattach'} if 'multiattach' in kinds else {}))
    pools = cloud.block_storage.get('/scheduler-stats/get_pools?detail=true').json()['pools']
    backends = sorted({pool['capabilities']['volume_backend_name'] for pool in pools})
    put('volume', backend_names=','.join(backends), storage_protocol=pools[0]['capabilities']['storage_protocol'],
        vendor_name=pools[0]['capabilities']['vendor_name'], disk_format='raw,qcow2', manage_snapshot_ref='source-name,snapshot-%s',
        backup_driver='swift' if 'object-store' in types else 'posix')
    put('volume-feature-enabled', snapshot=True, clone=True, backup=True, manage_snapshot=True, manage_volume=True,
        multi_backend=len(backends) > 1, extend_attached_volume=True, extend_attached_encrypted_volume=True)
    if 'multiattach' not in kinds:
        put('compute-feature-enabled', volume_multiattach=False)


def network(cloud, types, put):
    """What the network service offers."""
    public = next(iter(cloud.network.networks(is_router_external=True)))
    put('network', public_network_id=public.id, floating_network_name=public.name, project_network_cidr='10.100.0.0/16',
        project_network_mask_bits=28, build_timeout=BUILD_TIMEOUT, build_interval=1)
    put('network-feature-enabled', api_extensions=','.join(sorted(item.alias for item in cloud.network.extensions())))


def guest_image():
    """The guest image as devstack built it."""
    cache = os.environ.get('KODIAK_CACHE') or pathlib.Path.home() / '.cache' / 'kodiak'
    return pathlib.Path(cache) / 'guest.qcow2'


def main():
    path = pathlib.Path(sys.argv[1])
    with openstack.connect(cloud='kodiak-admin') as cloud:
        made = settings(cloud)
    (path.parent.parent / 'locks').mkdir(exist_ok=True)
    made['oslo_concurrency']['lock_path'] = path.parent.parent / 'locks'
    manifest = image_samples.make(path.parent.parent / 'samples')
    if SAMPLES:
        made['image']['images_manifest_file'] = manifest
    parser = configparser.RawConfigParser()
    for section, options in made.items():
        parser[section] = {name: str(value) for name, value in options.items()}
    path.touch(mode=0o600)
    with path.open('w') as file:
        parser.write(file)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
