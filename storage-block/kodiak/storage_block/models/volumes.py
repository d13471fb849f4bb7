"""Volumes, snapshots, attachments, backups, transfers, and messages about them."""
import sqlalchemy as sa

from kodiak.common import db

from .base import UUID, metadata, moments, uuid_key

#: ``deadline`` is set exactly while ``status`` is a transient one (``kodiak.storage_block.states``).
volumes = sa.Table(
    'volumes', metadata,
    uuid_key(),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('name', sa.String(255)),
    sa.Column('description', sa.String(255)),
    sa.Column('size', sa.Integer, nullable=False),                       # GiB
    sa.Column('claimed', sa.Integer, nullable=False),                    # what it will have, for quotas and room
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('previous_status', sa.String(32)),                         # goes back to it after a backup, an upload
    sa.Column('deadline', db.Moment, index=True),
    sa.Column('migration_status', sa.String(32)),
    sa.Column('availability_zone', sa.String(255)),
    sa.Column('volume_type_id', UUID, index=True),
    sa.Column('backend', sa.String(255), index=True),                    # <host>@<backend>; NULL until it is scheduled
    sa.Column('target', sa.String(255)),                                 # the back end that it is moving to
    sa.Column('bootable', sa.Boolean, nullable=False),
    sa.Column('readonly', sa.Boolean),
    sa.Column('multiattach', sa.Boolean, nullable=False),
    sa.Column('encryption', db.JSON),                                    # key_id, provider, cipher, key_size
    sa.Column('encrypted', sa.Boolean, nullable=False),
    sa.Column('snapshot_id', UUID),
    sa.Column('source_volid', UUID),
    sa.Column('source_backup_id', UUID),
    sa.Column('image_id', UUID),
    sa.Column('group_id', UUID, index=True),
    sa.Column('consumes_quota', sa.Boolean, nullable=False),
    sa.Column('hints', db.JSON),
    sa.Column('metadata', db.JSON, nullable=False),
    sa.Column('admin_metadata', db.JSON, nullable=False),
    sa.Column('image_metadata', db.JSON, nullable=False),
    sa.Column('attached', db.JSON, nullable=False),                      # its attachments as a volume shows them
    sa.Column('launched_at', db.Moment),
    *moments(),
    sa.Index('ix_volumes_owner', 'project_id', 'created_at'))

snapshots = sa.Table(
    'snapshots', metadata,
    uuid_key(),
    sa.Column('volume_id', UUID, nullable=False, index=True),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('name', sa.String(255)),
    sa.Column('description', sa.String(255)),
    sa.Column('size', sa.Integer, nullable=False),
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('deadline', db.Moment, index=True),
    sa.Column('progress', sa.Integer, nullable=False),
    sa.Column('volume_type_id', UUID),
    sa.Column('backend', sa.String(255)),
    sa.Column('encryption', db.JSON),
    sa.Column('group_snapshot_id', UUID, index=True),
    sa.Column('consumes_quota', sa.Boolean, nullable=False),
    sa.Column('metadata', db.JSON, nullable=False),
    sa.Column('image_metadata', db.JSON, nullable=False),
    *moments(),
    sa.Index('ix_snapshots_owner', 'project_id', 'created_at'))

#: A volume that a server has, or will have. While ``backend`` is set it is to be exported there, to ``connector``; ``generation``
#: grows with each change of what is to be exported, ``reached`` is what the agent reported of that generation.
attachments = sa.Table(
    'attachments', metadata,
    uuid_key(),
    sa.Column('volume_id', UUID, nullable=False, index=True),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('instance_uuid', UUID, index=True),
    sa.Column('attached_host', sa.String(255)),
    sa.Column('mountpoint', sa.String(255)),
    sa.Column('attach_mode', sa.String(8), nullable=False),              # rw, ro, null
    sa.Column('attach_status', sa.String(16), nullable=False),   # reserved, attaching, attached, detaching
    sa.Column('attached_at', db.Moment),
    sa.Column('connector', db.JSON),
    sa.Column('backend', sa.String(255), index=True),
    sa.Column('auth_username', sa.String(64)),
    sa.Column('auth_password', sa.String(64)),
    sa.Column('generation', sa.Integer, nullable=False),
    sa.Column('reached', db.JSON),
    sa.Column('error', sa.Text),
    *moments(),
    sa.Index('ix_attachments_owner', 'project_id', 'created_at'))

backups = sa.Table(
    'backups', metadata,
    uuid_key(),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('volume_id', UUID, nullable=False, index=True),
    sa.Column('snapshot_id', UUID),
    sa.Column('parent_id', UUID, index=True),
    sa.Column('restore_volume_id', UUID),
    sa.Column('name', sa.String(255)),
    sa.Column('description', sa.String(255)),
    sa.Column('size', sa.Integer, nullable=False),                       # of the volume, GiB
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('deadline', db.Moment, index=True),
    sa.Column('fail_reason', sa.String(255)),
    sa.Column('host', sa.String(255)),                                   # whose agent made it
    sa.Column('availability_zone', sa.String(255)),
    sa.Column('container', sa.String(255)),
    sa.Column('object_count', sa.Integer, nullable=False),
    sa.Column('record', db.JSON),                                        # rpc: record
    sa.Column('volume', db.JSON),                        # what a new volume restored from it has of the old
    sa.Column('encryption', db.JSON),
    sa.Column('data_timestamp', db.Moment, nullable=False),
    sa.Column('metadata', db.JSON, nullable=False),
    *moments(),
    sa.Index('ix_backups_owner', 'project_id', 'created_at'))

transfers = sa.Table(
    'transfers', metadata,
    uuid_key(),
    sa.Column('volume_id', UUID, nullable=False, index=True),
    sa.Column('project_id', sa.String(64), nullable=False),              # who gives it away
    sa.Column('destination_project_id', sa.String(64)),
    sa.Column('name', sa.String(255)),
    sa.Column('salt', sa.String(64), nullable=False),
    sa.Column('auth_hash', sa.String(128), nullable=False),
    sa.Column('no_snapshots', sa.Boolean, nullable=False),
    sa.Column('accepted', sa.Boolean, nullable=False),
    *moments())

messages = sa.Table(
    'messages', metadata,
    uuid_key(),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('request_id', sa.String(64)),
    sa.Column('resource_type', sa.String(64)),
    sa.Column('resource_uuid', UUID, index=True),
    sa.Column('action_id', sa.String(16), nullable=False),
    sa.Column('detail_id', sa.String(16), nullable=False),
    sa.Column('message_level', sa.String(16), nullable=False),
    sa.Column('text', sa.Text, nullable=False),
    sa.Column('expires_at', db.Moment, nullable=False, index=True),
    *moments(),
    sa.Index('ix_messages_owner', 'project_id', 'created_at'))
