"""Federation: identity providers, protocols, mappings, service providers."""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import changes, mapping, resources
from .. import core as cores
from ..models import (
    NO_DOMAIN,
    federated_identities,
    identity_providers,
    mappings,
    projects,
    protocols,
    remote_ids,
    service_providers,
)
from . import kit, rules
from . import tokens as token_api

routes = api.Routes('federation', '/v3/OS-FEDERATION')

IDP = '/identity_providers/{idp_id}'
PROTOCOL = IDP + '/protocols/{protocol_id}'
MAPPING = '/mappings/{mapping_id}'
SP = '/service_providers/{sp_id}'
IDP_FIELDS = {'id': schema.STRING, 'enabled': kit.FLAG, 'description': kit.TEXT, 'domain_id': schema.nullable(kit.ID),
              'authorization_ttl': {'type': ['integer', 'null'], 'minimum': 0},
              'remote_ids': {'type': ['array', 'null'], 'items': {'type': 'string', 'maxLength': 255}, 'uniqueItems': True}}
PROTOCOL_FIELDS = {'id': schema.STRING, 'mapping_id': kit.NAME,
                   'remote_id_attribute': {'type': ['string', 'null'], 'maxLength': 64}}
MAPPING_FIELDS = {'id': schema.STRING, 'rules': {'type': 'array'},
                  'schema_version': {'type': ['string', 'null'], 'pattern': r'^[12]\.0$'}}
SP_FIELDS = {'id': schema.STRING, 'auth_url': kit.URL, 'sp_url': kit.URL, 'description': kit.TEXT, 'enabled': kit.FLAG,
             'relay_state_prefix': {'type': ['string', 'null'], 'maxLength': 256}}
IDPS = kit.listing_of(identity_providers.c.id, {'id': identity_providers.c.id,
                                                'enabled': kit.flag_filter(identity_providers.c.enabled)})
SPS = kit.listing_of(service_providers.c.id, {'id': service_providers.c.id,
                                              'enabled': kit.flag_filter(service_providers.c.enabled)})


def _asked(req, name, resource_id):
    """What a body says of a resource. The openstack command repeats the id in it."""
    asked = dict(req.body[name])
    kit.same_id(resource_id, asked.pop('id', None))
    if len(resource_id) > 64:
        raise errors.BadRequest('Invalid input for field/attribute id: it has more than 64 characters.')
    return asked


def _base(req):
    return req.base_url + '/v3/OS-FEDERATION/'


def idp_view(req, row, remotes):
    """An identity provider as the API shows it."""
    base = f'{_base(req)}identity_providers/{row.id}'
    return {'id': row.id, 'enabled': row.enabled, 'description': row.description, 'domain_id': row.domain_id,
            'authorization_ttl': row.authorization_ttl, 'remote_ids': remotes,
            'links': {'self': base, 'protocols': base + '/protocols'}}


def _remotes(connection):
    found = {}
    for row in connection.execute(sa.select(remote_ids).order_by(remote_ids.c.remote_id)):
        found.setdefault(row.idp_id, []).append(row.remote_id)
    return found


def _loader(table, kind):
    def load(req, **ids):
        key = next(iter(ids.values()))
        with req.db.read() as connection:
            req.row = connection.execute(sa.select(table).where(table.c.id == key)).first()
        if req.row is None:
            raise errors.NotFound(f'Could not find {kind}: {key}.')
        return {}
    return load


load_idp = _loader(identity_providers, 'Identity Provider')
load_mapping = _loader(mappings, 'mapping')
load_sp = _loader(service_providers, 'Service Provider')


def _stored(req, store, kind, name):
    try:
        return cores.of(req).db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict(f'Conflict occurred attempting to store {kind} - Duplicate entry found with ID or remote ID: '
                                  f'{name}.') from None
        raise


@routes.get('/identity_providers', rule='identity:list_identity_providers', default=rules.READ, query=kit.parameters(IDPS),
            response=kit.many_of('identity_providers'), summary='List identity providers')
def list_idps(req):
    """List identity providers."""
    with req.db.read() as connection:
        remotes = _remotes(connection)
        return kit.page(req, IDPS, connection, sa.select(identity_providers), 'identity_providers',
                        lambda row: idp_view(req, row, remotes.get(row.id, [])))


@routes.put(IDP, rule='identity:create_identity_provider', default=rules.ADMIN, status=201, summary='Create an identity provider',
            body=kit.body('identity_provider', IDP_FIELDS, extra=False), response=kit.one_of('identity_provider', {}))
def create_idp(req, idp_id):
    """Create an identity provider. Its users live in the domain that is named, or in one made for them."""
    asked = _asked(req, 'identity_provider', idp_id)

    def store(connection):
        domain_id = asked.get('domain_id')
        if domain_id is None:
            domain_id = db.new_hex()
            resources.insert(connection, {
                'id': domain_id, 'domain_id': NO_DOMAIN, 'parent_id': None, 'is_domain': True, 'name': domain_id, 'enabled': True,
                'description': f'Auto generated federated domain for Identity Provider: {idp_id}', 'extra': {}, 'options': {}})
        elif connection.execute(sa.select(projects.c.id).where(projects.c.id == domain_id,
                                                               projects.c.is_domain.is_(True))).first() is None:
            raise errors.NotFound(f'Could not find domain: {domain_id}.')
        connection.execute(identity_providers.insert().values(
            id=idp_id, domain_id=domain_id, enabled=asked.get('enabled', False), description=asked.get('description'),
            authorization_ttl=asked.get('authorization_ttl')))
        _set_remotes(connection, idp_id, asked.get('remote_ids') or ())
        return connection.execute(sa.select(identity_providers).where(identity_providers.c.id == idp_id)).one()
    row = _stored(req, store, 'identity_provider', idp_id)
    return {'identity_provider': idp_view(req, row, sorted(asked.get('remote_ids') or []))}


def _set_remotes(connection, idp_id, remotes):
    connection.execute(sa.delete(remote_ids).where(remote_ids.c.idp_id == idp_id))
    for remote in remotes:
        connection.execute(remote_ids.insert().values(idp_id=idp_id, remote_id=remote))


@routes.get(IDP, rule='identity:get_identity_provider', default=rules.READ, load=load_idp,
            response=kit.one_of('identity_provider', {}), summary='Show an identity provider')
def show_idp(req, idp_id):
    """Show an identity provider."""
    with req.db.read() as connection:
        return {'identity_provider': idp_view(req, req.row, _remotes(connection).get(idp_id, []))}


@routes.patch(IDP, rule='identity:update_identity_provider', default=rules.ADMIN, load=load_idp,
              summary='Update an identity provider',
              body=kit.body('identity_provider', IDP_FIELDS, extra=False), response=kit.one_of('identity_provider', {}))
def update_idp(req, idp_id):
    """Change an identity provider; ``enabled: false`` revokes the tokens of its users."""
    core, asked = cores.of(req), _asked(req, 'identity_provider', idp_id)
    if 'domain_id' in asked and asked['domain_id'] != req.row.domain_id:
        raise errors.BadRequest('The domain of an identity provider cannot be changed (identity_provider.domain_id).')
    values = {name: asked[name] for name in ('enabled', 'description', 'authorization_ttl') if name in asked}

    def store(connection):
        if values:
            connection.execute(sa.update(identity_providers).where(identity_providers.c.id == idp_id).values(values))
        if 'remote_ids' in asked:
            _set_remotes(connection, idp_id, asked['remote_ids'] or ())
        if values.get('enabled') is False:
            _revoke(core, connection, idp_id)
        row = connection.execute(sa.select(identity_providers).where(identity_providers.c.id == idp_id)).one()
        return idp_view(req, row, _remotes(connection).get(idp_id, []))
    return {'identity_provider': _stored(req, store, 'identity_provider', idp_id)}


def _revoke(core, connection, idp_id):
    inside = connection.execute(sa.select(federated_identities.c.user_id).where(federated_identities.c.idp_id == idp_id)).scalars()
    core.revoke(connection, *({'user_id': user_id} for user_id in inside.all()))


@routes.delete(IDP, rule='identity:delete_identity_provider', default=rules.ADMIN, load=load_idp,
               summary='Delete an identity provider')
def delete_idp(req, idp_id):
    """Delete an identity provider with its protocols; the tokens of its users are revoked."""
    core = cores.of(req)

    def store(connection):
        _revoke(core, connection, idp_id)
        connection.execute(sa.delete(identity_providers).where(identity_providers.c.id == idp_id))
    core.db.transact(store)


def protocol_view(req, row):
    """A protocol as the API shows it."""
    base = f'{_base(req)}identity_providers/{row.idp_id}'
    return {'id': row.id, 'mapping_id': row.mapping_id, 'remote_id_attribute': row.remote_id_attribute,
            'links': {'self': f'{base}/protocols/{row.id}', 'identity_provider': base}}


def load_protocol(req, idp_id, protocol_id):
    """The protocol as ``req.row``."""
    with req.db.read() as connection:
        req.row = connection.execute(sa.select(protocols).where(protocols.c.idp_id == idp_id,
                                                                protocols.c.id == protocol_id)).first()
    if req.row is None:
        raise errors.NotFound(f'Could not find federated protocol {protocol_id} for Identity Provider: {idp_id}.')
    return {}


@routes.get(IDP + '/protocols', rule='identity:list_protocols', default=rules.READ, load=load_idp,
            response=kit.many_of('protocols'),
            summary='List protocols of an identity provider')
def list_protocols(req, idp_id):
    """List the protocols of an identity provider."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(protocols).where(protocols.c.idp_id == idp_id).order_by(protocols.c.id)).all()
    return kit.envelope(req, 'protocols', [protocol_view(req, row) for row in rows])


def _mapping_exists(connection, mapping_id):
    if connection.execute(sa.select(mappings.c.id).where(mappings.c.id == mapping_id)).first() is None:
        raise errors.BadRequest(f'Invalid input for field/attribute protocol.mapping_id: there is no mapping {mapping_id}.')


@routes.put(PROTOCOL, rule='identity:create_protocol', default=rules.ADMIN, load=load_idp, status=201,
            body=kit.body('protocol', PROTOCOL_FIELDS, ['mapping_id'], extra=False),
            response=kit.one_of('protocol', {}), summary='Add a protocol to an identity provider')
def create_protocol(req, idp_id, protocol_id):
    """Add a protocol: how the provider speaks, and which mapping reads what it says."""
    asked = _asked(req, 'protocol', protocol_id)

    def store(connection):
        _mapping_exists(connection, asked['mapping_id'])
        connection.execute(protocols.insert().values(id=protocol_id, idp_id=idp_id, mapping_id=asked['mapping_id'],
                                                     remote_id_attribute=asked.get('remote_id_attribute')))
        return connection.execute(sa.select(protocols).where(protocols.c.idp_id == idp_id, protocols.c.id == protocol_id)).one()
    return {'protocol': protocol_view(req, _stored(req, store, 'federation_protocol', protocol_id))}


@routes.get(PROTOCOL, rule='identity:get_protocol', default=rules.READ, load=load_protocol, response=kit.one_of('protocol', {}),
            summary='Show a protocol of an identity provider')
def show_protocol(req, idp_id, protocol_id):
    """Show a protocol."""
    return {'protocol': protocol_view(req, req.row)}


@routes.patch(PROTOCOL, rule='identity:update_protocol', default=rules.ADMIN, load=load_protocol,
              response=kit.one_of('protocol', {}),
              body=kit.body('protocol', PROTOCOL_FIELDS, extra=False), summary='Update a protocol of an identity provider')
def update_protocol(req, idp_id, protocol_id):
    """Change a protocol."""
    asked = _asked(req, 'protocol', protocol_id)
    where = [protocols.c.idp_id == idp_id, protocols.c.id == protocol_id]

    def store(connection):
        if 'mapping_id' in asked:
            _mapping_exists(connection, asked['mapping_id'])
        if asked:
            connection.execute(sa.update(protocols).where(*where).values(asked))
        return connection.execute(sa.select(protocols).where(*where)).one()
    return {'protocol': protocol_view(req, cores.of(req).db.transact(store))}


@routes.delete(PROTOCOL, rule='identity:delete_protocol', default=rules.ADMIN, load=load_protocol,
               summary='Remove a protocol of an identity provider')
def delete_protocol(req, idp_id, protocol_id):
    """Remove a protocol."""
    cores.of(req).db.transact(lambda connection: connection.execute(
        sa.delete(protocols).where(protocols.c.idp_id == idp_id, protocols.c.id == protocol_id)) and None)


def mapping_view(req, row):
    """A mapping as the API shows it."""
    return {'id': row.id, 'rules': row.rules, 'schema_version': row.schema_version,
            'links': {'self': f'{_base(req)}mappings/{row.id}'}}


@routes.get('/mappings', rule='identity:list_mappings', default=rules.READ, response=kit.many_of('mappings'),
            summary='List mappings')
def list_mappings(req):
    """List mappings."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(mappings).order_by(mappings.c.id)).all()
    return kit.envelope(req, 'mappings', [mapping_view(req, row) for row in rows])


def _save_mapping(req, mapping_id, values, new):
    def store(connection):
        if new:
            connection.execute(mappings.insert().values(id=mapping_id, **values))
        elif values:
            connection.execute(sa.update(mappings).where(mappings.c.id == mapping_id).values(values))
        return connection.execute(sa.select(mappings).where(mappings.c.id == mapping_id)).one()
    return {'mapping': mapping_view(req, _stored(req, store, 'mapping', mapping_id))}


@routes.put(MAPPING, rule='identity:create_mapping', default=rules.ADMIN,
            body=kit.body('mapping', MAPPING_FIELDS, ['rules'], extra=False),
            status=201, response=kit.one_of('mapping', {}), summary='Create a mapping')
def create_mapping(req, mapping_id):
    """Create a mapping."""
    asked = _asked(req, 'mapping', mapping_id)
    mapping.validate(asked['rules'])
    return _save_mapping(req, mapping_id, {'rules': asked['rules'], 'schema_version': asked.get('schema_version') or '1.0'}, True)


@routes.get(MAPPING, rule='identity:get_mapping', default=rules.READ, load=load_mapping, response=kit.one_of('mapping', {}),
            summary='Show a mapping')
def show_mapping(req, mapping_id):
    """Show a mapping."""
    return {'mapping': mapping_view(req, req.row)}


@routes.patch(MAPPING, rule='identity:update_mapping', default=rules.ADMIN, load=load_mapping, response=kit.one_of('mapping', {}),
              body=kit.body('mapping', MAPPING_FIELDS, extra=False), summary='Update a mapping')
def update_mapping(req, mapping_id):
    """Change a mapping."""
    asked = _asked(req, 'mapping', mapping_id)
    if 'rules' in asked:
        mapping.validate(asked['rules'])
    if asked.get('schema_version', '') is None:
        del asked['schema_version']
    return _save_mapping(req, mapping_id, asked, False)


@routes.delete(MAPPING, rule='identity:delete_mapping', default=rules.ADMIN, load=load_mapping, summary='Delete a mapping')
def delete_mapping(req, mapping_id):
    """Delete a mapping."""
    cores.of(req).db.transact(lambda connection: connection.execute(
        sa.delete(mappings).where(mappings.c.id == mapping_id)) and None)


def sp_view(req, row):
    """A service provider as the API shows it."""
    return {'id': row.id, 'auth_url': row.auth_url, 'sp_url': row.sp_url, 'description': row.description, 'enabled': row.enabled,
            'relay_state_prefix': row.relay_state_prefix, 'links': {'self': f'{_base(req)}service_providers/{row.id}'}}


@routes.get('/service_providers', rule='identity:list_service_providers', default=rules.READ, query=kit.parameters(SPS),
            response=kit.many_of('service_providers'), summary='List service providers')
def list_sps(req):
    """List service providers."""
    with req.db.read() as connection:
        return kit.page(req, SPS, connection, sa.select(service_providers), 'service_providers', lambda row: sp_view(req, row))


def _save_sp(req, sp_id, values, new):
    def store(connection):
        if new:
            connection.execute(service_providers.insert().values(id=sp_id, **values))
        elif values:
            connection.execute(sa.update(service_providers).where(service_providers.c.id == sp_id).values(values))
        changes.bump(connection, changes.CATALOG)
        return connection.execute(sa.select(service_providers).where(service_providers.c.id == sp_id)).one()
    return {'service_provider': sp_view(req, _stored(req, store, 'service_provider', sp_id))}


@routes.put(SP, rule='identity:create_service_provider', default=rules.ADMIN, status=201, summary='Create a service provider',
            body=kit.body('service_provider', SP_FIELDS, ['auth_url', 'sp_url'], extra=False),
            response=kit.one_of('service_provider', {}))
def create_sp(req, sp_id):
    """Create a service provider: a cloud that takes our users."""
    asked = _asked(req, 'service_provider', sp_id)
    values = {'auth_url': asked['auth_url'], 'sp_url': asked['sp_url'], 'description': asked.get('description'),
              'enabled': asked.get('enabled', False), 'relay_state_prefix': asked.get('relay_state_prefix') or 'ss:mem:'}
    return _save_sp(req, sp_id, values, True)


@routes.get(SP, rule='identity:get_service_provider', default=rules.READ, load=load_sp, response=kit.one_of('service_provider', {}),
            summary='Show a service provider')
def show_sp(req, sp_id):
    """Show a service provider."""
    return {'service_provider': sp_view(req, req.row)}


@routes.patch(SP, rule='identity:update_service_provider', default=rules.ADMIN, load=load_sp, summary='Update a service provider',
              body=kit.body('service_provider', SP_FIELDS, extra=False), response=kit.one_of('service_provider', {}))
def update_sp(req, sp_id):
    """Change a service provider."""
    values = _asked(req, 'service_provider', sp_id)
    if values.get('relay_state_prefix', '') is None:
        values['relay_state_prefix'] = 'ss:mem:'
    return _save_sp(req, sp_id, values, False)


@routes.delete(SP, rule='identity:delete_service_provider', default=rules.ADMIN, load=load_sp, summary='Delete a service provider')
def delete_sp(req, sp_id):
    """Delete a service provider."""
    def store(connection):
        connection.execute(sa.delete(service_providers).where(service_providers.c.id == sp_id))
        changes.bump(connection, changes.CATALOG)
    cores.of(req).db.transact(store)


@routes.get('/projects', rule='identity:get_auth_projects', default=rules.ANYBODY, response=kit.many_of('projects'),
            summary="Projects that the request's user can scope to (older path)")
def list_projects(req):
    """As ``GET /v3/auth/projects``."""
    return token_api.auth_projects(req)


@routes.get('/domains', rule='identity:get_auth_domains', default=rules.ANYBODY, response=kit.many_of('domains'),
            summary="Domains that the request's user can scope to (older path)")
def list_domains(req):
    """As ``GET /v3/auth/domains``."""
    return token_api.auth_domains(req)
