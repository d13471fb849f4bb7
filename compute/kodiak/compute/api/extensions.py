"""The list of extensions, from the time when the API was extended by them (kept for clients that look)."""
from kodiak.common import api, errors, policy
from kodiak.common.api import schema

routes = api.Routes('extensions')
NAMES = {
    'NMN': 'Multinic', 'OS-DCF': 'DiskConfig', 'OS-EXT-AZ': 'ExtendedAvailabilityZone', 'OS-EXT-IMG-SIZE': 'ImageSize',
    'OS-EXT-IPS': 'ExtendedIps', 'OS-EXT-IPS-MAC': 'ExtendedIpsMac', 'OS-EXT-SRV-ATTR': 'ExtendedServerAttributes',
    'OS-EXT-STS': 'ExtendedStatus', 'OS-FLV-DISABLED': 'FlavorDisabled', 'OS-FLV-EXT-DATA': 'FlavorExtraData',
    'OS-SCH-HNT': 'SchedulerHints', 'OS-SRV-USG': 'ServerUsage', 'os-admin-actions': 'AdminActions',
    'os-admin-password': 'AdminPassword', 'os-aggregates': 'Aggregates', 'os-attach-interfaces': 'AttachInterfaces',
    'os-availability-zone': 'AvailabilityZone', 'os-block-device-mapping': 'BlockDeviceMapping', 'os-config-drive': 'ConfigDrive',
    'os-console-output': 'ConsoleOutput', 'os-consoles': 'Consoles', 'os-create-backup': 'CreateBackup',
    'os-deferred-delete': 'DeferredDelete', 'os-evacuate': 'Evacuate', 'os-flavor-access': 'FlavorAccess',
    'os-flavor-extra-specs': 'FlavorExtraSpecs', 'os-flavor-manage': 'FlavorManage', 'os-floating-ips': 'FloatingIps',
    'os-hosts': 'Hosts', 'os-hypervisors': 'Hypervisors', 'os-instance-actions': 'InstanceActions', 'os-keypairs': 'Keypairs',
    'os-lock-server': 'LockServer', 'os-migrate-server': 'MigrateServer', 'os-migrations': 'Migrations',
    'os-multiple-create': 'MultipleCreate', 'os-networks': 'Networks', 'os-pause-server': 'PauseServer',
    'os-quota-class-sets': 'QuotaClasses', 'os-quota-sets': 'Quotas', 'os-remote-consoles': 'Consoles', 'os-rescue': 'Rescue',
    'os-security-groups': 'SecurityGroups', 'os-server-diagnostics': 'ServerDiagnostics',
    'os-server-external-events': 'ServerExternalEvents', 'os-server-groups': 'ServerGroups', 'os-server-password': 'ServerPassword',
    'os-services': 'Services', 'os-shelve': 'Shelve', 'os-simple-tenant-usage': 'SimpleTenantUsage',
    'os-suspend-server': 'SuspendServer', 'os-used-limits': 'UsedLimits', 'os-user-data': 'UserData', 'os-volumes': 'Volumes',
    'os-server-tags': 'ServerTags', 'os-tenant-networks': 'TenantNetworks',
}
EXTENSION = {'type': 'object'}


def _view(alias):
    return {'alias': alias, 'name': NAMES[alias], 'description': '', 'links': [], 'namespace':
            'http://docs.openstack.org/compute/ext/fake_xml', 'updated': '2014-12-03T00:00:00Z'}


@routes.get('/extensions', rule='os_compute_api:extensions', default=policy.READER,
            response=schema.wrap('extensions', schema.array(EXTENSION)), summary='List extensions')
def index(req):
    return {'extensions': [_view(alias) for alias in sorted(NAMES)]}


@routes.get('/extensions/{alias}', rule='os_compute_api:extensions', default=policy.READER,
            response=schema.wrap('extension', EXTENSION), summary='Show an extension')
def show(req, alias):
    if alias not in NAMES:
        raise errors.NotFound(f'Extension {alias} could not be found.')
    return {'extension': _view(alias)}
