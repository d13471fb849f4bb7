"""How volumes are shown, and how they are listed."""
import sqlalchemy as sa

from kodiak.common.api import Listing
from kodiak.storage_block import work
from kodiak.storage_block.models import volume_types, volumes

from . import common

v = volumes.c
FILTERS = {
    'name': v.name, 'display_name': v.name, 'status': v.status, 'bootable': v.bootable, 'migration_status': v.migration_status,
    'availability_zone': v.availability_zone, 'group_id': v.group_id, 'size': v.size, 'id': v.id, 'user_id': v.user_id,
    'multiattach': v.multiattach, 'encrypted': v.encrypted, 'snapshot_id': v.snapshot_id, 'source_volid': v.source_volid,
    'volume_type_id': v.volume_type_id, 'consumes_quota': v.consumes_quota,
    'volume_type': lambda names: v.volume_type_id.in_(sa.select(volume_types.c.id).where(
        volume_types.c.name.in_(names) | volume_types.c.id.in_(names))),
    'host': lambda names: v.backend.in_([name.partition('#')[0] for name in names]),
    'metadata': common.json_filter(v.metadata), 'glance_metadata': common.json_filter(v.image_metadata),
    'created_at': common.time_filter(v.created_at), 'updated_at': common.time_filter(v.updated_at),
}
FILTERS = common.with_like(FILTERS)
#: The microversion that brought a filter.
SINCE = {'glance_metadata': (3, 4), 'group_id': (3, 10), 'created_at': (3, 60), 'updated_at': (3, 60), 'consumes_quota': (3, 65)}
LISTING = Listing(v.id, {
    'created_at': v.created_at, 'name': v.name, 'display_name': v.name, 'status': v.status, 'size': v.size, 'id': v.id,
    'bootable': v.bootable, 'availability_zone': v.availability_zone, 'host': v.backend, 'updated_at': v.updated_at,
    'user_id': v.user_id, 'project_id': v.project_id, 'volume_type_id': v.volume_type_id, 'description': v.description,
}, [('created_at', 'desc')], FILTERS)
#: What a list needs: the columns that are shown, with the name of the type.
SHOWN = ('id', 'project_id', 'user_id', 'name', 'description', 'size', 'status', 'migration_status', 'availability_zone',
         'volume_type_id', 'backend', 'bootable', 'multiattach', 'encrypted', 'snapshot_id', 'source_volid', 'group_id',
         'consumes_quota', 'metadata', 'admin_metadata', 'image_metadata', 'attached', 'encryption', 'created_at',
         'updated_at')
SELECT = sa.select(*(volumes.c[name] for name in SHOWN), volume_types.c.name.label('type_name')).outerjoin(
    volume_types, volume_types.c.id == v.volume_type_id)
BRIEF = sa.select(v.id, v.name)
ONE = SELECT.where(v.id == sa.bindparam('row_id'))


def get(connection, volume_id):
    """The row of a volume with the name of its type, or None."""
    return connection.execute(ONE, {'row_id': volume_id}).first()


def renderer(req, made=False):
    """``function(row) -> a volume as it is shown``, for this caller and microversion.

    :param made: as the answer to its making shows it, without what only an existing one has.
    """
    links = common.linker(req, 'volumes')
    version, admin = req.version, req.ctx.is_admin
    group, provider, shared = version >= (3, 13), version >= (3, 21), version >= (3, 48)
    cluster, type_id, key, quota = version >= (3, 61), version >= (3, 63), version >= (3, 64), version >= (3, 65)
    targets = None if version >= (3, 69) else False

    def render(row):
        # In the order of SELECT: an attribute of a row costs as much as ten names, and a list has a thousand rows.
        (row_id, project_id, user_id, name, description, size, status, migration_status, zone, volume_type_id, backend, bootable,
         multiattach, encrypted, snapshot_id, source_volid, group_id, consumes_quota, metadata, admin_metadata, image_metadata,
         attached, encryption, created_at, updated_at, type_name) = row
        if admin_metadata and not made:
            metadata = {**admin_metadata, **metadata}
        found = {
            'id': row_id, 'status': status, 'size': size, 'availability_zone': zone,
            'created_at': created_at, 'updated_at': updated_at, 'name': name, 'description': description,
            'volume_type': type_name, 'snapshot_id': snapshot_id, 'source_volid': source_volid,
            'metadata': metadata, 'user_id': user_id, 'bootable': 'true' if bootable else 'false',
            'encrypted': encrypted, 'replication_status': None, 'consistencygroup_id': None,
            'multiattach': multiattach, 'attachments': attached, 'links': links(row_id),
            'migration_status': migration_status if admin else None}
        if not made:
            found['os-vol-tenant-attr:tenant_id'] = project_id
            if image_metadata:
                found['volume_image_metadata'] = image_metadata
            if admin:
                found['os-vol-host-attr:host'] = work.shown(backend)
                found['os-vol-mig-status-attr:migstat'] = migration_status
                found['os-vol-mig-status-attr:name_id'] = None
            elif attached:
                found['attachments'] = [{**one, 'host_name': None} for one in attached]
        if group:
            found['group_id'] = group_id
        if provider and admin:
            found['provider_id'] = None
        if shared:
            found['shared_targets'] = targets
            found['service_uuid'] = None
        if cluster and admin:
            found['cluster_name'] = None
        if type_id:
            found['volume_type_id'] = volume_type_id
        if key and encryption:
            found['encryption_key_id'] = encryption['key_id']
        if quota:
            found['consumes_quota'] = consumes_quota
        return found
    return render
