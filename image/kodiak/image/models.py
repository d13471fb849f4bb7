"""Tables of the image service.

``images`` repeats an image's properties, tags and locations as JSON, so that one statement reads whole images. The
tables ``image_properties`` and ``image_tags`` hold the same again for filtering; whoever writes one writes both
(:mod:`kodiak.image.catalog`).

``blobs`` is the durable record of every piece of data that a store holds, or may hold: a row is committed before the
first byte is written and goes after the last one is removed, so nothing in a store is ever without a row.
"""
import sqlalchemy as sa

from kodiak.common import db, heartbeat, outbox, quota, saga

metadata = db.metadata()
services = heartbeat.tables(metadata)
sagas, saga_steps = saga.tables(metadata)
quotas, quota_locks = quota.tables(metadata)
outbox.tables(metadata)


def _time(name, **more):
    return sa.Column(name, db.Moment, **more)


images = sa.Table(
    'images', metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('name', sa.String(255)),
    sa.Column('owner', sa.String(255), index=True),
    sa.Column('status', sa.String(20), nullable=False, index=True),
    sa.Column('visibility', sa.String(20), nullable=False),
    sa.Column('disk_format', sa.String(20)),
    sa.Column('container_format', sa.String(20)),
    sa.Column('size', sa.BigInteger),
    sa.Column('virtual_size', sa.BigInteger),
    sa.Column('min_disk', sa.Integer, nullable=False),
    sa.Column('min_ram', sa.Integer, nullable=False),
    sa.Column('protected', sa.Boolean, nullable=False),
    sa.Column('os_hidden', sa.Boolean, nullable=False),
    sa.Column('checksum', sa.String(32)),
    sa.Column('os_hash_algo', sa.String(64)),
    sa.Column('os_hash_value', sa.String(128), index=True),
    sa.Column('properties', db.JSON(), nullable=False),
    sa.Column('tags', db.JSON(), nullable=False),
    # [{'url', 'metadata', 'store' (its id, or None), 'blob' (its id, or None)}], in the order of preference.
    sa.Column('locations', db.JSON(), nullable=False),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
    sa.Index('ix_images_created_at_id', 'created_at', 'id'),
)

image_properties = sa.Table(
    'image_properties', metadata,
    sa.Column('image_id', sa.String(36), sa.ForeignKey('images.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('value', sa.Text, nullable=False),
    sa.Index('ix_image_properties_name', 'name'),
)

image_tags = sa.Table(
    'image_tags', metadata,
    sa.Column('image_id', sa.String(36), sa.ForeignKey('images.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('value', sa.String(255), primary_key=True),
    sa.Index('ix_image_tags_value', 'value'),
)

image_members = sa.Table(
    'image_members', metadata,
    sa.Column('image_id', sa.String(36), sa.ForeignKey('images.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('member_id', sa.String(255), primary_key=True),
    sa.Column('status', sa.String(20), nullable=False),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
    sa.Index('ix_image_members_member_id', 'member_id', 'status'),
)

blobs = sa.Table(
    'blobs', metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    # No foreign key: what a deleted image leaves in a store is still to be removed.
    sa.Column('image_id', sa.String(36), nullable=False, index=True),
    sa.Column('store', sa.String(64), nullable=False),
    # writing: the holder of the lease is filling it; staged: an import will use it; live: an image refers to it; doomed: to be
    # removed from lease_until on.
    sa.Column('state', sa.String(10), nullable=False),
    # Until when the state's worker (the upload, the removal) has it to itself.
    _time('lease_until', nullable=False),
    sa.Column('size', sa.BigInteger),
    # What was found out about staged data (kodiak.image.transfer.Outcome.facts).
    sa.Column('facts', db.JSON),
    _time('created_at', nullable=False),
    sa.Index('ix_blobs_state_lease_until', 'state', 'lease_until'),
)

# Deleted images whose data is kept for a while, as they were.
deleted_images = sa.Table(
    'deleted_images', metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('image', db.JSON(), nullable=False),
    # [{'member_id', 'status'}]
    sa.Column('members', db.JSON(), nullable=False),
    # When the data may be removed.
    _time('due', nullable=False),
    sa.Index('ix_deleted_images_due', 'due'),
)

tasks = sa.Table(
    'tasks', metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('type', sa.String(30), nullable=False),
    sa.Column('status', sa.String(30), nullable=False),
    sa.Column('owner', sa.String(255), index=True),
    sa.Column('user_id', sa.String(64)),
    sa.Column('request_id', sa.String(64)),
    sa.Column('image_id', sa.String(36), index=True),
    sa.Column('input', db.JSON()),
    sa.Column('result', db.JSON),
    sa.Column('message', sa.Text, nullable=False),
    _time('expires_at', index=True),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
)

metadef_namespaces = sa.Table(
    'metadef_namespaces', metadata,
    sa.Column('id', sa.String(36), primary_key=True),
    sa.Column('namespace', sa.String(80), nullable=False, unique=True),
    sa.Column('display_name', sa.String(80)),
    sa.Column('description', sa.Text),
    sa.Column('visibility', sa.String(20), nullable=False),
    sa.Column('protected', sa.Boolean, nullable=False),
    sa.Column('owner', sa.String(255), index=True),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
)

# What a namespace holds: objects, properties, tags, and its associations with resource types.
metadef_parts = sa.Table(
    'metadef_parts', metadata,
    sa.Column('namespace_id', sa.String(36), sa.ForeignKey('metadef_namespaces.id', ondelete='CASCADE'), primary_key=True),
    sa.Column('kind', sa.String(20), primary_key=True),
    sa.Column('name', sa.String(255), primary_key=True),
    sa.Column('body', db.JSON(), nullable=False),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
    sa.Index('ix_metadef_parts_kind_name', 'kind', 'name'),
)

metadef_resource_types = sa.Table(
    'metadef_resource_types', metadata,
    sa.Column('name', sa.String(80), primary_key=True),
    _time('created_at', nullable=False),
    _time('updated_at', nullable=False),
)

# What each host has in its image cache, or is to have.
cached_images = sa.Table(
    'cached_images', metadata,
    sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('image_id', sa.String(36), primary_key=True),
    # queued: to be fetched by the host; cached: there.
    sa.Column('state', sa.String(10), nullable=False),
    sa.Column('size', sa.BigInteger, nullable=False),
    sa.Column('hits', sa.Integer, nullable=False),
    _time('last_accessed', nullable=False),
    _time('last_modified', nullable=False),
    # Until when somebody fetches it.
    _time('lease_until', nullable=False),
    sa.Index('ix_cached_images_image_id', 'image_id'),
)
