"""Metadata definitions: what properties mean, for people and programs that choose them.

A namespace holds properties, objects (groups of properties), tags, and the resource types that it is for. All of these
are parts of one table, told apart by their kind; ``body`` is what the API gives and takes, without name and times.
"""
import importlib.resources

import sqlalchemy as sa
import yaml

from kodiak.common import db, errors

from . import notices
from .models import metadef_namespaces as namespaces
from .models import metadef_parts as parts
from .models import metadef_resource_types as types

OBJECT, PROPERTY, TAG, TYPE = 'object', 'property', 'tag', 'resource_type'
#: What things may be described by definitions.
RESOURCE_TYPES = ('OS::Glance::Image', 'OS::Cinder::Volume', 'OS::Nova::Flavor', 'OS::Nova::Aggregate', 'OS::Nova::Server',
                  'OS::Neutron::Net', 'OS::Trove::Instance')


def visible(ctx):
    """The SQL condition of the namespaces that a caller may know of."""
    if ctx.is_admin:
        return sa.true()
    return sa.or_(namespaces.c.visibility == 'public', namespaces.c.owner == ctx.project_id)


def find(connection, ctx, name):
    """A namespace as the target of policy rules; ``NotFound`` where it isn't there for this caller."""
    row = db.one(connection, sa.select(namespaces).where(namespaces.c.namespace == name, visible(ctx)))
    if row is None:
        raise errors.NotFound(f'Metadata definition namespace={name} was not found.')
    return {**row, 'project_id': row['owner']}


def held(connection, namespace_ids, kinds):
    """The parts of some namespaces: dictionaries, in the order of their names."""
    return db.all_dicts(connection, sa.select(parts).where(
        parts.c.namespace_id.in_(namespace_ids), parts.c.kind.in_(kinds)).order_by(parts.c.name))


def part(connection, namespace, kind, name):
    """One part of a namespace; ``NotFound`` where it has none of that name."""
    row = db.one(connection, sa.select(parts).where(
        parts.c.namespace_id == namespace['id'], parts.c.kind == kind, parts.c.name == name))
    if row is None:
        raise errors.NotFound(f"Metadata definition {kind} with name={name} was not found in namespace={namespace['namespace']}.")
    return row


def add(connection, namespace, values):
    """Insert a namespace row; ``Conflict`` for a name that is taken."""
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(namespaces), values)
    except sa.exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f'The metadata definition namespace={namespace} already exists.') from None
        raise


def add_part(connection, namespace, kind, name, body):
    """Add a part to a namespace; ``Conflict`` for a name that is taken. Returns its row."""
    now = db.utcnow()
    row = {'namespace_id': namespace['id'], 'kind': kind, 'name': name, 'body': body, 'created_at': now, 'updated_at': now}
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(parts), row)
    except sa.exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f"A metadata definition {kind} with name={name} already exists in "
                                  f"namespace={namespace['namespace']}.") from None
        raise
    if kind == TYPE:
        know_type(connection, name)
    notices.part(connection, 'create', namespace, row)
    return row


def change_part(connection, namespace, kind, name, new_name, body):
    """Replace a part, under another name where ``new_name`` is one; returns its row."""
    row = part(connection, namespace, kind, name)
    changes = {'name': new_name, 'body': body, 'updated_at': db.utcnow()}
    try:
        with connection.begin_nested():
            connection.execute(sa.update(parts).where(
                parts.c.namespace_id == namespace['id'], parts.c.kind == kind, parts.c.name == name).values(changes))
    except sa.exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f"A metadata definition {kind} with name={new_name} already exists in "
                                  f"namespace={namespace['namespace']}.") from None
        raise
    row.update(changes)
    notices.part(connection, 'update', namespace, row, name)
    return row


def remove_parts(connection, namespace, kind, name=None):
    """Remove a part, or all parts of a kind; ``Forbidden`` from a protected namespace."""
    if namespace['protected']:
        raise errors.Forbidden(f"Metadata definition namespace={namespace['namespace']} is protected and cannot be changed so.")
    query = sa.delete(parts).where(parts.c.namespace_id == namespace['id'], parts.c.kind == kind)
    if name is None:
        notices.namespace(connection, 'delete_' + notices.PLURALS[kind], namespace)
    else:
        notices.part(connection, 'delete', namespace, part(connection, namespace, kind, name))
        query = query.where(parts.c.name == name)
    connection.execute(query)


def remove(connection, namespace):
    """Remove a namespace with all that it holds."""
    if namespace['protected']:
        raise errors.Forbidden(f"Metadata definition namespace={namespace['namespace']} is protected and cannot be deleted.")
    connection.execute(sa.delete(parts).where(parts.c.namespace_id == namespace['id']))
    connection.execute(sa.delete(namespaces).where(namespaces.c.id == namespace['id']))
    notices.namespace(connection, 'delete', namespace)


def know_type(connection, name):
    """Make sure that there is a resource type."""
    if connection.execute(sa.select(types.c.name).where(types.c.name == name)).first() is None:
        now = db.utcnow()
        connection.execute(sa.insert(types), {'name': name, 'created_at': now, 'updated_at': now})


def create(connection, owner, body):
    """A new namespace with everything that ``body`` (as the API takes it) puts into it; returns its row."""
    now = db.utcnow()
    row = {'id': db.new_id(), 'namespace': body['namespace'], 'display_name': body.get('display_name'),
           'description': body.get('description'), 'visibility': body.get('visibility', 'private'),
           'protected': body.get('protected', False), 'owner': body.get('owner') or owner, 'created_at': now, 'updated_at': now}
    add(connection, row['namespace'], row)
    notices.namespace(connection, 'create', row)
    for name, described in (body.get('properties') or {}).items():
        add_part(connection, row, PROPERTY, name, described)
    for kind, given in ((OBJECT, body.get('objects')), (TAG, body.get('tags')), (TYPE, body.get('resource_type_associations'))):
        for one in given or ():
            add_part(connection, row, kind, one['name'], {key: value for key, value in one.items() if key != 'name'})
    return row


def load(connection, files=None):
    """Add the definitions of YAML files, by default those that come with the service; what is there already stays.

    :returns: ``(added, skipped)``: names of namespaces.
    """
    added, skipped = [], []
    for name in RESOURCE_TYPES:
        know_type(connection, name)
    if files is None:
        folder = importlib.resources.files('kodiak.image') / 'definitions'
        files = sorted((path for path in folder.iterdir() if path.name.endswith('.yaml')), key=lambda path: path.name)
    for path in files:
        for body in yaml.safe_load_all(path.read_text(encoding='utf-8')):
            there = connection.execute(sa.select(namespaces.c.id).where(namespaces.c.namespace == body['namespace'])).first()
            if there is None:
                create(connection, None, body)
            (added if there is None else skipped).append(body['namespace'])
    return added, skipped
