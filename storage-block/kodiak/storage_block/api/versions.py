"""Version documents: of all versions at the root, of the one at its own; and what describes the API."""
from kodiak.common import api, policy
from kodiak.common.api import openapi, schema

from . import faults

MINIMUM, MAXIMUM = (3, 0), (3, 71)
V3 = api.VersionDocument('v3.0', '/v3/', version='3.71', min_version='3.0',
                         media_types=(('application/json', 'application/vnd.openstack.volume+json;version=3'),))

routes = api.Routes('versions')
root = api.Routes('versions')


def document(req):
    """The one version, with a link to what describes it."""
    found = V3.document(req.base_url)
    found['links'].append({'rel': 'describedby', 'type': 'text/html', 'href': 'https://docs.openstack.org/'})
    return found


@root.get('/', public=True, status=300, summary='List the versions of the API')
def all_versions(req):
    return {'versions': [document(req)]}


@routes.get('/', public=True, summary='Show the version of the API')
def one_version(req):
    return {'versions': [document(req)]}


@routes.get('/openapi.json', public=True, summary='Show the OpenAPI document')
def describe(req):
    return openapi.document(req.api)


EXTENSIONS = {
    'os-admin-actions': 'AdminActions', 'os-availability-zone': 'AvailabilityZones', 'backups': 'Backups',
    'capabilities': 'Capabilities', 'os-extended-services': 'ExtendedServices', 'os-extended-snapshot-attributes':
    'ExtendedSnapshotAttributes', 'os-hosts': 'Hosts', 'qos-specs': 'QosSpecs', 'os-quota-class-sets': 'QuotaClasses',
    'os-quota-sets': 'Quotas', 'OS-SCH-HNT': 'SchedulerHints', 'scheduler-stats': 'SchedulerStats', 'os-services': 'Services',
    'os-snapshot-actions': 'SnapshotActions', 'os-snapshot-manage': 'SnapshotManage',
    'os-snapshot-unmanage': 'SnapshotUnmanage', 'os-types-extra-specs': 'TypesExtraSpecs', 'os-types-manage': 'TypesManage',
    'os-used-limits': 'UsedLimits', 'os-vol-host-attr': 'VolumeHostAttribute', 'os-vol-image-meta': 'VolumeImageMetadata',
    'os-vol-mig-status-attr': 'VolumeMigStatusAttribute', 'os-vol-tenant-attr': 'VolumeTenantAttribute',
    'os-volume-actions': 'VolumeActions', 'os-volume-encryption-metadata': 'VolumeEncryptionMetadata',
    'os-volume-manage': 'VolumeManage', 'os-volume-transfer': 'VolumeTransfer', 'os-volume-type-access': 'VolumeTypeAccess',
    'encryption': 'VolumeTypeEncryption', 'os-volume-unmanage': 'VolumeUnmanage',
}


@routes.get('/extensions', rule='volume:list_extensions', default=policy.READER,
            response=schema.wrap('extensions', schema.array({'type': 'object'})), summary='List the extensions')
def extensions(req):
    return {'extensions': [{'alias': alias, 'name': name, 'description': f'{name}: a part of the API.', 'namespace': '',
                            'updated': '2026-11-01T00:00:00+00:00', 'links': []} for alias, name in EXTENSIONS.items()]}


ROOT = api.Api('storage-block', [root], faults.body, title='Kodiak block storage')
