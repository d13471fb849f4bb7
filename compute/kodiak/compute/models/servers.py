"""Servers, what an agent is told and has said about them, and the record of what was done to them."""
import sqlalchemy as sa

from kodiak.common import db

from .base import LONG_TEXT, MOMENT, metadata

_uuid = sa.String(36)

#: What a user calls a server. ``doc`` is what listings show of it, rendered whenever the row is written
#: (``kodiak.compute.view``), so that reading costs no rendering.
servers = sa.Table(
    'servers', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', _uuid, nullable=False, unique=True),
    sa.Column('project_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64), nullable=False),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('hostname', sa.String(255), nullable=False),
    sa.Column('description', sa.String(255)),
    sa.Column('status', sa.String(32), nullable=False),          # as users see it: states.status()
    sa.Column('vm_state', sa.String(32), nullable=False),
    sa.Column('task_state', sa.String(32)),
    sa.Column('task_deadline', MOMENT, index=True),         # set exactly while task_state is
    sa.Column('power_state', sa.Integer, nullable=False),
    sa.Column('progress', sa.Integer, nullable=False),
    sa.Column('host', sa.String(255), index=True),
    sa.Column('node', sa.String(255)),
    sa.Column('launched_on', sa.String(255)),
    sa.Column('zone', sa.String(255)),                           # of its host
    sa.Column('pinned_zone', sa.String(255)),                    # asked for
    sa.Column('flavor_id', sa.String(255), nullable=False),
    sa.Column('flavor', db.JSON, nullable=False),
    sa.Column('vcpus', sa.Integer, nullable=False),              # of the flavor, for quotas
    sa.Column('ram', sa.Integer, nullable=False),
    sa.Column('image_ref', sa.String(36)),
    sa.Column('image', db.JSON),                                 # agent.state.Image of its root disk
    sa.Column('key_name', sa.String(255)),
    sa.Column('locked_by', sa.String(16)),                       # owner, admin
    sa.Column('locked_reason', sa.String(255)),
    sa.Column('config_drive', sa.Boolean, nullable=False),
    sa.Column('user_data', LONG_TEXT),
    sa.Column('root_device', sa.String(64)),
    sa.Column('access_ip_v4', sa.String(39)),
    sa.Column('access_ip_v6', sa.String(39)),
    sa.Column('reservation_id', sa.String(32), nullable=False),
    sa.Column('launch_index', sa.Integer, nullable=False),
    sa.Column('group_uuid', _uuid, index=True),
    sa.Column('disk_config', sa.String(8), nullable=False),      # AUTO, MANUAL
    sa.Column('metadata', db.JSON, nullable=False),
    sa.Column('tags', db.JSON, nullable=False),
    sa.Column('networks', db.JSON, nullable=False),        # ports and their addresses (kodiak.compute.ports)
    sa.Column('addresses', sa.Text, nullable=False),             # all its addresses, separated by blanks, for filters
    sa.Column('security_groups', db.JSON, nullable=False),       # names
    sa.Column('volumes', db.JSON, nullable=False),
    sa.Column('fault', db.JSON),
    sa.Column('created_at', MOMENT, nullable=False),
    sa.Column('updated_at', MOMENT, nullable=False),
    sa.Column('launched_at', MOMENT),
    sa.Column('terminated_at', MOMENT),
    sa.Column('deleted_at', MOMENT),
    sa.Column('deleted', sa.Boolean, nullable=False),
    sa.Column('doc', LONG_TEXT, nullable=False),
    sa.Index('ix_servers_owner', 'deleted', 'project_id', 'created_at'),
    sa.Index('ix_servers_changed', 'updated_at'),
)

#: What only the guest and its building need, apart because it can be large.
specs = sa.Table(
    'server_specs', metadata,
    sa.Column('server_uuid', _uuid, primary_key=True),
    sa.Column('data', db.JSON, nullable=False))

server_tags = sa.Table(
    'server_tags', metadata,
    sa.Column('server_uuid', _uuid, primary_key=True),
    sa.Column('tag', sa.String(60), primary_key=True),
    sa.Index('ix_server_tags_tag', 'tag'))

#: A server on a host, as its agent is told of it. A server that moves has two for a while.
guests = sa.Table(
    'guests', metadata,
    sa.Column('server_uuid', _uuid, primary_key=True),
    sa.Column('host', sa.String(255), primary_key=True),
    sa.Column('generation', sa.Integer, nullable=False),         # of the host, when this row last changed
    sa.Column('desired', sa.String(16), nullable=False),
    sa.Column('desired_generation', sa.Integer, nullable=False),
    sa.Column('flavor', db.JSON, nullable=False),                # the size that it should have on this host
    sa.Column('operations', db.JSON, nullable=False),      # agent.state.Operation
    sa.Column('last_number', sa.Integer, nullable=False),        # of the newest operation ever asked for
    sa.Column('source', db.JSON),
    sa.Column('rescue', db.JSON),
    sa.Column('built', sa.Boolean, nullable=False),
    sa.Column('settled', sa.Integer, nullable=False),            # generation that the agent has brought about
    sa.Column('power_state', sa.String(16)),                     # as last reported
    sa.Column('outcomes', db.JSON, nullable=False),
    sa.Column('plugged', db.JSON, nullable=False),
    sa.Column('fault', db.JSON),
    sa.Column('reported_at', MOMENT),
    sa.Column('created_at', MOMENT, nullable=False),
    sa.Index('ix_guests_look', 'host', 'generation'))

actions = sa.Table(
    'server_actions', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('server_uuid', _uuid, nullable=False),
    sa.Column('action', sa.String(64), nullable=False),
    sa.Column('request_id', sa.String(64), nullable=False),
    sa.Column('user_id', sa.String(64)),
    sa.Column('project_id', sa.String(64)),
    sa.Column('message', sa.String(255)),
    sa.Column('started_at', MOMENT, nullable=False),
    sa.Column('updated_at', MOMENT, nullable=False),
    sa.Index('ix_server_actions_server', 'server_uuid', 'started_at'),
    sa.UniqueConstraint('server_uuid', 'request_id'))

action_events = sa.Table(
    'server_action_events', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('action_id', sa.Integer, nullable=False, index=True),
    sa.Column('event', sa.String(64), nullable=False),
    sa.Column('started_at', MOMENT, nullable=False),
    sa.Column('finished_at', MOMENT),
    sa.Column('result', sa.String(16)),
    sa.Column('details', sa.Text),
    sa.Column('host', sa.String(255)))

migrations = sa.Table(
    'server_migrations', metadata,
    sa.Column('id', sa.Integer, primary_key=True),
    sa.Column('uuid', _uuid, nullable=False, unique=True),
    sa.Column('server_uuid', _uuid, nullable=False, index=True),
    sa.Column('project_id', sa.String(64)),
    sa.Column('user_id', sa.String(64)),
    sa.Column('kind', sa.String(16), nullable=False),            # migration, resize, evacuation, live-migration
    sa.Column('status', sa.String(32), nullable=False),
    sa.Column('source', sa.String(255)),
    sa.Column('source_node', sa.String(255)),
    sa.Column('dest', sa.String(255)),
    sa.Column('dest_node', sa.String(255)),
    sa.Column('old_flavor', db.JSON),
    sa.Column('new_flavor', db.JSON),
    sa.Column('old_state', sa.String(32)),                       # vm_state that a revert goes back to
    sa.Column('created_at', MOMENT, nullable=False),
    sa.Column('updated_at', MOMENT, nullable=False))

console_tokens = sa.Table(
    'console_tokens', metadata,
    sa.Column('token_hash', sa.String(64), primary_key=True),
    sa.Column('server_uuid', _uuid, nullable=False, index=True),
    sa.Column('kind', sa.String(16), nullable=False),
    sa.Column('expires_at', MOMENT, nullable=False),
    sa.Column('host', sa.String(255), nullable=False))
