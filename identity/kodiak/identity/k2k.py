"""Keystone to Keystone: a token of ours becomes an assertion that another cloud takes."""
import orjson
import sqlalchemy as sa

from kodiak.common import db, errors

from . import roles
from .models import groups, projects, service_providers


def provider(connection, sp_id):
    """The row of an enabled service provider; 404 or 403 otherwise."""
    row = connection.execute(sa.select(service_providers).where(service_providers.c.id == sp_id)).first()
    if row is None:
        raise errors.NotFound(f'Could not find Service Provider: {sp_id}.')
    if not row.enabled:
        raise errors.Forbidden(f'Service Provider {sp_id} is disabled.')
    return row


def claims_of(core, text):
    """The claims of a token that may speak for its user elsewhere."""
    core.state.look()
    claims = core.state.claims(text)
    if claims is None:
        raise errors.NotFound('Could not find token.')
    if not claims.project_id or claims.scope[5]:
        raise errors.Forbidden('Use a project scoped token when attempting to create a SAML assertion.')
    if (claims.extra.get('app_cred') or {}).get('access_rules') is not None:
        raise errors.Forbidden('The access rules of the token could not be kept to in another cloud.')
    return claims


def attributes(connection, claims):
    """What is said of a token's user: the attributes that Keystone uses for it."""
    found = {'openstack_user': [claims.user[1]], 'openstack_user_domain': [claims.user[3]],
             'openstack_roles': [name for _, name in claims.roles], 'openstack_project': [claims.scope[2]],
             'openstack_project_domain': [claims.scope[4]]}
    rows = connection.execute(
        sa.select(groups.c.name, projects.c.name.label('domain')).join_from(groups, projects, projects.c.id == groups.c.domain_id)
        .where(groups.c.id.in_(roles.GROUPS)).order_by(groups.c.id), {'user': claims.user_id, 'now': db.utcnow()}).all()
    if rows:
        found['openstack_groups'] = ['JSON:' + orjson.dumps({'name': row.name, 'domain': {'name': row.domain}}).decode()
                                     for row in rows]
    return found


def response(core, claims, service_provider):
    """The Response (element) that speaks for a token's user to a service provider (a row)."""
    with core.db.read() as connection:
        said = attributes(connection, claims)
    return core.saml.part('assertions').response(
        core.saml.entity_id, service_provider.sp_url, claims.user[1], said, core.saml.signing())
