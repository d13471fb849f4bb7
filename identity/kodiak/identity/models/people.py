"""Users, their passwords, groups."""
import sqlalchemy as sa

from .base import TIME, extra, key, metadata, ref

#: ``options`` holds user options by name; ``failed_count`` and ``failed_at`` count wrong passwords in a row.
#: ``kind`` is where the user lives: ``local`` (here), ``federated``, ``ldap`` (the directory of its domain, of which the row
#: is a mirror) or ``gone`` (it was in the directory, and isn't any more).
users = sa.Table(
    'users', metadata, key(),
    ref('domain_id', 'projects.id', nullable=False),
    sa.Column('name', sa.String(255), nullable=False),
    sa.Column('kind', sa.String(16), nullable=False, default='local'),
    sa.Column('enabled', sa.Boolean, nullable=False, default=True),
    sa.Column('default_project_id', sa.String(64)),
    extra(), extra('options'),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('last_active_on', sa.Date),
    sa.Column('password_expires_at', TIME),
    sa.Column('failed_count', sa.Integer, nullable=False, default=0),
    sa.Column('failed_at', TIME),
    sa.UniqueConstraint('domain_id', 'name'))

#: The newest row of a user is the password; older ones are kept as history. ``self_service``: the user chose it.
passwords = sa.Table(
    'passwords', metadata, sa.Column('id', sa.Integer, primary_key=True),
    ref('user_id', 'users.id', nullable=False, index=True),
    sa.Column('hash', sa.String(255), nullable=False),
    sa.Column('created_at', TIME, nullable=False),
    sa.Column('expires_at', TIME),
    sa.Column('self_service', sa.Boolean, nullable=False, default=False))

groups = sa.Table(
    'groups', metadata, key(),
    ref('domain_id', 'projects.id', nullable=False),
    sa.Column('name', sa.String(64), nullable=False),
    sa.Column('description', sa.Text), extra(),
    # local, ldap or gone, as for users
    sa.Column('kind', sa.String(16), nullable=False, default='local', server_default='local'),
    sa.UniqueConstraint('domain_id', 'name'))

members = sa.Table(
    'group_members', metadata,
    ref('user_id', 'users.id', primary_key=True),
    ref('group_id', 'groups.id', primary_key=True, index=True),
    # NULL: a membership that stays; federated ones end when they are not renewed by a login.
    sa.Column('expires_at', TIME))

#: Users (``kind`` user) and groups (``group``) that live in the directory of their domain; ``id`` is that of their row, ``key``
#: what the directory knows them by.
directory_entries = sa.Table(
    'directory_entries', metadata, key(),
    ref('domain_id', 'projects.id', nullable=False),
    sa.Column('kind', sa.String(8), nullable=False),
    sa.Column('key', sa.String(255), nullable=False),
    sa.Column('dn', sa.Text, nullable=False),
    sa.UniqueConstraint('domain_id', 'kind', 'key'))

#: When each directory was last looked through as a whole, and what was wrong with it.
directory_looks = sa.Table(
    'directory_looks', metadata,
    ref('domain_id', 'projects.id', primary_key=True),
    sa.Column('looked_at', TIME, nullable=False),
    sa.Column('fault', sa.Text))
