"""Volume types: their extra specs, who may use them, how their volumes are encrypted, and the default ones."""
import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema
from kodiak.storage_block import notices, types
from kodiak.storage_block.models import default_types, encryptions, groups, type_access, volume_types, volumes

from . import common, typed

routes = api.Routes('volume types')


class VolumeTypes(typed.Types):
    """Volume types."""

    public_key = 'os-volume-type-access:is_public'
    public_specs = ('RESKEY:availability_zones', 'multiattach', 'replication_enabled')

    def visible(self, ctx):
        return types.visible(ctx)

    def shown(self, req, row):
        found = super().shown(req, row)
        found[self.public_key] = row['is_public']
        if req.ctx.is_admin:
            if req.http.method not in {'POST', 'PUT'}:
                found['qos_specs_id'] = row['qos_specs_id']
        else:
            found['extra_specs'] = {key: row['extra_specs'][key] for key in self.public_specs if key in row['extra_specs']}
        if req.http.method == 'PUT':
            del found[self.public_key]
        return found

    def in_use(self, connection, type_id):
        for table in (volumes, default_types):
            if connection.execute(sa.select(table.c.volume_type_id).where(table.c.volume_type_id == type_id).limit(1)).first():
                return True
        return any(type_id in there for there in connection.scalars(sa.select(groups.c.volume_types)))

    def default_of(self, req, connection):
        return types.default(connection, req.app.conf, req.ctx.project_id)

    def removed(self, req, connection, type_id):
        if req.target['name'] == req.app.conf.storage_block.default_volume_type:
            raise errors.BadRequest(f"The volume type {req.target['name']} is the default volume type and cannot be deleted.",
                                    kind='VolumeTypeDefaultDeletionError')
        if connection.scalar(sa.select(sa.func.count()).select_from(volume_types)) == 1:
            raise errors.BadRequest('The last volume type cannot be deleted.')
        connection.execute(type_access.delete().where(type_access.c.volume_type_id == type_id))
        connection.execute(encryptions.delete().where(encryptions.c.volume_type_id == type_id))


TYPES = VolumeTypes(routes, 'volume_type', '/types', volume_types, 'extra_specs', 'volume_extension:type')
TYPES.declare('volume type')
load = TYPES.load


# Access of projects

@routes.get('/types/{type_id}/os-volume-type-access', rule='volume_extension:volume_type_access:get_all_for_type',
            default=common.ADMIN, load=load, response=schema.wrap('volume_type_access', schema.array(common.OBJECT)),
            summary='List the projects that may use a private volume type')
def access(req, type_id):
    if req.target['is_public']:
        raise errors.NotFound('Access list not available for public volume types.')
    with req.db.read() as connection:
        return {'volume_type_access': db.all_dicts(connection, sa.select(type_access).where(
            type_access.c.volume_type_id == type_id).order_by(type_access.c.project_id))}


PROJECT = schema.obj({'project': {'type': 'string', 'minLength': 1, 'maxLength': 64}}, ['project'])


@routes.post('/types/{type_id}/action', action='addProjectAccess', rule='volume_extension:volume_type_access:addProjectAccess',
             default=common.ADMIN, load=load, body=schema.wrap('addProjectAccess', PROJECT), status=202,
             summary='Let a project use a private volume type')
def add_access(req, type_id):
    project_id = req.body['addProjectAccess']['project']
    if req.target['is_public']:
        raise errors.Conflict('Type access modification is not applicable to public volume type.')

    def write(connection):
        if _has_access(connection, type_id, project_id):
            raise errors.Conflict(f'Volume type access for {type_id} / {project_id} combination already exists.')
        access = {'volume_type_id': type_id, 'project_id': project_id}
        connection.execute(type_access.insert(), access)
        notices.catalog(connection, 'volume_type_project.access.add', access, type_id)
    req.db.transact(write)


@routes.post('/types/{type_id}/action', action='removeProjectAccess',
             rule='volume_extension:volume_type_access:removeProjectAccess', default=common.ADMIN, load=load,
             body=schema.wrap('removeProjectAccess', PROJECT), status=202, summary='Let a project use a private type no longer')
def remove_access(req, type_id):
    project_id = req.body['removeProjectAccess']['project']
    if req.target['is_public']:
        raise errors.Conflict('Type access modification is not applicable to public volume type.')

    def write(connection):
        if not _has_access(connection, type_id, project_id):
            raise errors.NotFound(f'Volume type access not found for {type_id} / {project_id} combination.')
        connection.execute(type_access.delete().where(type_access.c.volume_type_id == type_id,
                                                      type_access.c.project_id == project_id))
        notices.catalog(connection, 'volume_type_project.access.remove', {
            'volume_type_id': type_id, 'project_id': project_id}, type_id)
    req.db.transact(write)


def _has_access(connection, type_id, project_id):
    return connection.scalar(sa.select(type_access.c.project_id).where(
        type_access.c.volume_type_id == type_id, type_access.c.project_id == project_id)) is not None


# Encryption

ENCRYPTION = {'provider': {'type': 'string', 'minLength': 1, 'maxLength': 255},
              'cipher': {'type': ['string', 'null'], 'maxLength': 255},
              'key_size': {'type': ['integer', 'string', 'null'], 'minimum': 0, 'pattern': '^[0-9]*$'},
              'control_location': {'enum': ['front-end', 'back-end']}}


def _encryption(connection, type_id):
    return db.one(connection, sa.select(encryptions).where(encryptions.c.volume_type_id == type_id))


def _tell(connection, what, type_id, **more):
    notices.catalog(connection, 'volume_type_encryption.' + what, {'type_id': type_id, **more}, type_id)


def _sent(sent):
    if sent.get('key_size') is not None:
        sent = {**sent, 'key_size': int(sent['key_size'] or 0) or None}
    return sent


def _refuse_used(connection, type_id):
    if connection.scalar(sa.select(volumes.c.id).where(volumes.c.volume_type_id == type_id).limit(1)) is not None:
        raise errors.BadRequest('Cannot change the encryption of a volume type that volumes have.',
                                kind='VolumeTypeEncryptionInUse')


@routes.get('/types/{type_id}/encryption', rule='volume_extension:volume_type_encryption:get', default=common.ADMIN, load=load,
            response=common.OBJECT, summary='Show how volumes of a type are encrypted')
def encryption(req, type_id):
    with req.db.read() as connection:
        row = _encryption(connection, type_id)
    if row is None:
        return {}
    return {**row, 'deleted': False, 'deleted_at': None}


@routes.get('/types/{type_id}/encryption/{key}', rule='volume_extension:volume_type_encryption:get', default=common.ADMIN,
            load=load, response=common.OBJECT, summary='Show one value of how volumes of a type are encrypted')
def encryption_item(req, type_id, key):
    with req.db.read() as connection:
        row = _encryption(connection, type_id)
    if row is None or key not in row:
        raise errors.NotFound(f'The encryption of the volume type has no {key}.')
    return {key: row[key]}


@routes.post('/types/{type_id}/encryption', rule='volume_extension:volume_type_encryption:create', default=common.ADMIN, load=load,
             body=schema.wrap('encryption', schema.obj(ENCRYPTION, ['provider', 'control_location'])),
             response=schema.wrap('encryption', common.OBJECT), summary='Have volumes of a type encrypted')
def create_encryption(req, type_id):
    sent = {'cipher': None, 'key_size': None, **_sent(req.body['encryption'])}

    def write(connection):
        if _encryption(connection, type_id) is not None:
            raise errors.BadRequest('Volume type encryption for type already exists.', kind='VolumeTypeEncryptionExists')
        _refuse_used(connection, type_id)
        row = {'volume_type_id': type_id, 'encryption_id': db.new_id(), **sent}
        connection.execute(encryptions.insert(), {**row, 'created_at': db.utcnow(), 'updated_at': None})
        _tell(connection, 'create', type_id, specs=sent)
        return row
    return {'encryption': req.db.transact(write)}


@routes.put('/types/{type_id}/encryption/{encryption_id}', rule='volume_extension:volume_type_encryption:update',
            default=common.ADMIN, load=load, body=schema.wrap('encryption', schema.obj(ENCRYPTION)),
            response=schema.wrap('encryption', common.OBJECT), summary='Change how volumes of a type are encrypted')
def update_encryption(req, type_id, encryption_id):
    sent = _sent(req.body['encryption'])

    def write(connection):
        row = _encryption(connection, type_id)
        if row is None or row['encryption_id'] != encryption_id:
            raise errors.NotFound('Volume type encryption could not be found.')
        _refuse_used(connection, type_id)
        connection.execute(encryptions.update().where(encryptions.c.volume_type_id == type_id).values(
            updated_at=db.utcnow(), **sent))
        _tell(connection, 'update', type_id, specs=sent)
    req.db.transact(write)
    return {'encryption': sent}


@routes.delete('/types/{type_id}/encryption/{encryption_id}', rule='volume_extension:volume_type_encryption:delete',
               default=common.ADMIN, load=load, status=202, summary='Have volumes of a type no longer encrypted')
def delete_encryption(req, type_id, encryption_id):
    def write(connection):
        row = _encryption(connection, type_id)
        if row is None or row['encryption_id'] != encryption_id:
            raise errors.NotFound('Volume type encryption could not be found.')
        _refuse_used(connection, type_id)
        connection.execute(encryptions.delete().where(encryptions.c.volume_type_id == type_id))
        _tell(connection, 'delete', type_id)
    req.db.transact(write)


# Default types of projects (3.62)

def _project(req, project_id, **more):
    return {'project_id': project_id}


DEFAULT = schema.wrap('default_type', schema.obj({'project_id': schema.STRING, 'volume_type_id': schema.STRING}))


@routes.get('/default-types', rule='volume_extension:default_get_all', default=common.ADMIN, since='3.62',
            response=schema.wrap('default_types', schema.array(common.OBJECT)), summary='List the default types of projects')
def all_defaults(req):
    with req.db.read() as connection:
        return {'default_types': db.all_dicts(connection, sa.select(default_types).order_by(default_types.c.project_id))}


@routes.get('/default-types/{project_id}', rule='volume_extension:default_get', default=common.ADMIN, since='3.62', load=_project,
            response=DEFAULT, summary='Show the default type of a project')
def one_default(req, project_id):
    with req.db.read() as connection:
        row = db.one(connection, sa.select(default_types).where(default_types.c.project_id == project_id))
    if row is None:
        raise errors.NotFound(f'Default type for project {project_id} not found.')
    return {'default_type': row}


@routes.put('/default-types/{project_id}', rule='volume_extension:default_set_or_update', default=common.ADMIN, since='3.62',
            load=_project, body=schema.wrap('default_type', schema.obj({'volume_type': schema.NAME}, ['volume_type'])),
            response=DEFAULT, summary='Set the default type of a project')
def set_default(req, project_id):
    def write(connection):
        row = {'project_id': project_id,
               'volume_type_id': types.find(connection, req.ctx, req.body['default_type']['volume_type'])['id']}
        db.upsert(connection, default_types, row, ['project_id'])
        return row
    return {'default_type': req.db.transact(write)}


@routes.delete('/default-types/{project_id}', rule='volume_extension:default_unset', default=common.ADMIN, since='3.62',
               load=_project, summary='Give a project the default type of the cloud again')
def unset_default(req, project_id):
    req.db.transact(lambda connection: connection.execute(default_types.delete().where(
        default_types.c.project_id == project_id)))
