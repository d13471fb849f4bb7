"""OAuth 1.0a: consumers, request and access tokens."""
import hmac

import sqlalchemy as sa

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import notices, oauth, people, roles, times
from ..models import oauth_consumers, oauth_tokens
from ..models import roles as role_table
from . import delegation, kit, rules

routes = api.Routes('OAuth 1.0a', '/v3')

CONSUMER = '/OS-OAUTH1/consumers/{consumer_id}'
TOKENS = '/users/{user_id}/OS-OAUTH1/access_tokens'
HOW = kit.listing_of(oauth_consumers.c.id, {})
FORM = 'application/x-www-form-urlencoded'


def view(req, row, secret=False):
    """A consumer as the API shows it."""
    found = {'id': row.id, 'description': row.description, **row.extra,
             'links': {'self': f'{req.base_url}/v3/OS-OAUTH1/consumers/{row.id}'}}
    if secret:
        found['secret'] = row.secret
    return found


def load(req, consumer_id):
    """The consumer as ``req.row``."""
    with req.db.read() as connection:
        req.row = connection.execute(sa.select(oauth_consumers).where(oauth_consumers.c.id == consumer_id)).first()
    if req.row is None:
        raise errors.NotFound(f'Could not find consumer: {consumer_id}.')
    return {}


@routes.get('/OS-OAUTH1/consumers', rule='identity:list_consumers', default=rules.READ, query=kit.parameters(HOW),
            response=kit.many_of('consumers'), summary='List OAuth consumers')
def list_consumers(req):
    """List consumers."""
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, sa.select(oauth_consumers), 'consumers', lambda row: view(req, row))


@routes.post('/OS-OAUTH1/consumers', rule='identity:create_consumer', default=rules.ADMIN, status=201,
             body=kit.body('consumer', {'description': kit.TEXT}), response=kit.one_of('consumer', {}, ['secret']),
             summary='Create an OAuth consumer')
def create(req):
    """Create a consumer. Its secret is shown here only."""
    asked = req.body['consumer']
    row = {'id': db.new_hex(), 'secret': db.new_hex(), 'description': asked.get('description'),
           'extra': kit.extra_of(asked, ('description', 'secret'))}

    def store(connection):
        connection.execute(oauth_consumers.insert().values(row))
        notices.tell(connection, 'OS-OAUTH1:consumer', 'created', row['id'])
        return connection.execute(sa.select(oauth_consumers).where(oauth_consumers.c.id == row['id'])).one()
    return {'consumer': view(req, cores.of(req).db.transact(store), secret=True)}


@routes.get(CONSUMER, rule='identity:get_consumer', default=rules.READ, load=load, response=kit.one_of('consumer', {}),
            summary='Show an OAuth consumer')
def show(req, consumer_id):
    """Show a consumer."""
    return {'consumer': view(req, req.row)}


@routes.patch(CONSUMER, rule='identity:update_consumer', default=rules.ADMIN, load=load, response=kit.one_of('consumer', {}),
              body=kit.body('consumer', {'description': kit.TEXT}), summary='Update an OAuth consumer')
def update(req, consumer_id):
    """Change a consumer."""
    asked = req.body['consumer']
    kit.same_id(consumer_id, asked.get('id'))
    if 'secret' in asked:
        raise errors.BadRequest('The secret of a consumer cannot be changed (consumer.secret).')
    values = kit.merged(req.row._mapping, asked, ('description',), ('description',))

    def store(connection):
        if values:
            connection.execute(sa.update(oauth_consumers).where(oauth_consumers.c.id == consumer_id).values(values))
        notices.tell(connection, 'OS-OAUTH1:consumer', 'updated', consumer_id)
        return connection.execute(sa.select(oauth_consumers).where(oauth_consumers.c.id == consumer_id)).one()
    return {'consumer': view(req, cores.of(req).db.transact(store))}


@routes.delete(CONSUMER, rule='identity:delete_consumer', default=rules.ADMIN, load=load, summary='Delete an OAuth consumer')
def delete(req, consumer_id):
    """Delete a consumer with its tokens."""
    core = cores.of(req)

    def store(connection):
        ids = connection.execute(sa.select(oauth_tokens.c.id).where(oauth_tokens.c.consumer_id == consumer_id,
                                                                    oauth_tokens.c.kind == 'access')).scalars().all()
        core.revoke(connection, *({'access_token_id': token_id} for token_id in ids))
        connection.execute(sa.delete(oauth_tokens).where(oauth_tokens.c.consumer_id == consumer_id))
        connection.execute(sa.delete(oauth_consumers).where(oauth_consumers.c.id == consumer_id))
        notices.tell(connection, 'OS-OAUTH1:consumer', 'deleted', consumer_id)
    core.db.transact(store)


def _signed(req):
    query = req.http.query_string.decode('latin-1')
    return oauth.Signed(req.http.method, req.url + ('?' + query if query else ''), req.http.headers.get('Authorization'))


def _answer(row):
    text = f"oauth_token={row['id']}&oauth_token_secret={row['secret']}&oauth_expires_at={times.zulu(row['expires_at'])}"
    return api.Response(text, status=201, media_type=FORM)


@routes.post('/OS-OAUTH1/request_token', public=True, status=201, summary='Create an OAuth request token')
def request_token(req):
    """A consumer asks for access to a project (header ``Requested-Project-Id``)."""
    core, signed = cores.of(req), _signed(req)
    project_id = req.http.headers.get('Requested-Project-Id')
    if not project_id:
        raise errors.BadRequest('The header Requested-Project-Id is missing.')
    with req.db.read() as connection:
        consumer = oauth.consumer(connection, signed.need('oauth_consumer_key'))
        signed.check(core, consumer.secret)
        if roles.place(core, connection, project_id) is None:
            raise errors.NotFound(f'Could not find project: {project_id}.')
    return _answer(core.db.transact(oauth.new_request_token, consumer.id, project_id))


@routes.put('/OS-OAUTH1/authorize/{request_token_id}', rule='identity:authorize_request_token',
            default=rules.in_project(rules.ANY_ADMIN),
            body=schema.obj({'roles': schema.array(schema.obj({'id': kit.ID, 'name': kit.NAME}), minItems=1)}, ['roles'],
                            extra=True),
            response=schema.wrap('token', schema.obj({'oauth_verifier': schema.STRING})),
            summary='Authorize an OAuth request token')
def authorize(req, request_token_id):
    """Let the holder of a request token have some of the own roles."""
    core = cores.of(req)
    delegation.refuse(req, 'OAuth tokens')
    with req.db.read() as connection:
        try:
            token = oauth.token(connection, request_token_id, 'request')
        except errors.Unauthorized as error:
            raise errors.NotFound(error.message) from None
        where = roles.place(core, connection, token.project_id)
        has = dict(roles.in_project(core, connection, req.ctx.user_id, where))
        wanted = []
        for each in req.body['roles']:
            wanted.append(each.get('id') or next((key for key, name in has.items() if name == each.get('name')), None))
    if any(role_id not in has for role_id in wanted):
        raise errors.Unauthorized('The authorizing user does not have the role required.')
    return {'token': {'oauth_verifier': core.db.transact(oauth.authorize, request_token_id, req.ctx.user_id, wanted)}}


@routes.post('/OS-OAUTH1/access_token', public=True, status=201, summary='Create an OAuth access token')
def access_token(req):
    """A consumer exchanges an authorized request token for an access token."""
    core, signed = cores.of(req), _signed(req)
    with req.db.read() as connection:
        consumer = oauth.consumer(connection, signed.need('oauth_consumer_key'))
        token = oauth.token(connection, signed.need('oauth_token'), 'request')
    if token.consumer_id != consumer.id:
        raise errors.Unauthorized('The request token belongs to another consumer.')
    if not token.user_id or not hmac.compare_digest(token.verifier or '', signed.need('oauth_verifier')):
        raise errors.Unauthorized('The verifier does not match, or nobody has authorized the request token.')
    signed.check(core, consumer.secret, token.secret)
    return _answer(core.db.transact(oauth.exchange, token))


def load_token(req, user_id, access_token_id=None, role_id=None):
    """The access token as ``req.row``."""
    delegation.refuse(req, 'OAuth tokens')
    with req.db.read() as connection:
        if people.by_id(connection, user_id) is None:
            raise errors.NotFound(f'Could not find user: {user_id}.')
        if access_token_id is not None:
            req.row = connection.execute(sa.select(oauth_tokens).where(
                oauth_tokens.c.id == access_token_id, oauth_tokens.c.user_id == user_id, oauth_tokens.c.kind == 'access')).first()
            if req.row is None or (role_id is not None and role_id not in req.row.role_ids):
                raise errors.NotFound(f'Could not find Access Token: {access_token_id}.')
    return {'user_id': user_id}


def token_view(req, row):
    """An access token as the API shows it."""
    base = f'{req.base_url}/v3/users/{row.user_id}/OS-OAUTH1/access_tokens/{row.id}'
    return {'id': row.id, 'consumer_id': row.consumer_id, 'project_id': row.project_id, 'authorizing_user_id': row.user_id,
            'expires_at': times.zulu(row.expires_at), 'links': {'self': base, 'roles': base + '/roles'}}


@routes.get(TOKENS, rule='identity:list_access_tokens', default=rules.ADMIN, load=load_token, response=kit.many_of('access_tokens'),
            summary='List OAuth access tokens of a user')
def list_tokens(req, user_id):
    """List the access tokens that a user has authorized."""
    with req.db.read() as connection:
        rows = connection.execute(sa.select(oauth_tokens).where(oauth_tokens.c.user_id == user_id, oauth_tokens.c.kind == 'access')
                                  .order_by(oauth_tokens.c.id)).all()
    return kit.envelope(req, 'access_tokens', [token_view(req, row) for row in rows])


@routes.get(TOKENS + '/{access_token_id}', rule='identity:get_access_token', default=rules.ADMIN, load=load_token,
            response=kit.one_of('access_token', {}), summary='Show an OAuth access token')
def show_token(req, user_id, access_token_id):
    """Show an access token."""
    return {'access_token': token_view(req, req.row)}


@routes.delete(TOKENS + '/{access_token_id}', rule='identity:delete_access_token', default=rules.ADMIN, load=load_token,
               summary='Delete an OAuth access token')
def delete_token(req, user_id, access_token_id):
    """Delete an access token; what was issued with it is revoked."""
    core = cores.of(req)

    def store(connection):
        connection.execute(sa.delete(oauth_tokens).where(oauth_tokens.c.id == access_token_id))
        notices.tell(connection, 'OS-OAUTH1:access_token', 'deleted', access_token_id)
        core.revoke(connection, {'access_token_id': access_token_id})
    core.db.transact(store)


def _roles(req):
    with req.db.read() as connection:
        rows = connection.execute(sa.select(role_table).where(role_table.c.id.in_(req.row.role_ids))
                                  .order_by(role_table.c.id)).all()
    return {row.id: {'id': row.id, 'name': row.name, 'domain_id': kit.domain_or_none(row.domain_id),
                     'links': {'self': f'{req.base_url}/v3/roles/{row.id}'}} for row in rows}


@routes.get(TOKENS + '/{access_token_id}/roles', rule='identity:list_access_token_roles', default=rules.ADMIN, load=load_token,
            response=kit.many_of('roles'), summary='List roles of an OAuth access token')
def list_token_roles(req, user_id, access_token_id):
    """List the roles of an access token."""
    return kit.envelope(req, 'roles', list(_roles(req).values()))


@routes.get(TOKENS + '/{access_token_id}/roles/{role_id}', rule='identity:get_access_token_role', default=rules.ADMIN,
            load=load_token, response=kit.one_of('role', {}), summary='Show a role of an OAuth access token')
def show_token_role(req, user_id, access_token_id, role_id):
    """Show one of the roles of an access token."""
    return {'role': _roles(req)[role_id]}
