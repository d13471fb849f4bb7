"""Credentials of all types, EC2 credentials, and logging in with the latter."""
import hashlib

import orjson
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import api, db, errors
from kodiak.common.api import schema

from .. import core as cores
from .. import ec2, issue, notices, people, roles
from ..models import credentials
from . import delegation, kit, rules

routes = api.Routes('credentials', '/v3')

KNOWN = ('user_id', 'project_id', 'type', 'blob')
FIELDS = {'blob': {'type': ['string', 'object']}, 'type': kit.NAME, 'user_id': kit.ID,
          'project_id': schema.nullable(kit.ID)}
HOW = kit.listing_of(credentials.c.id, {'user_id': credentials.c.user_id, 'type': credentials.c.type})
EC2_PATH = '/users/{user_id}/credentials/OS-EC2'
READ = rules.owner_reads('target.credential.user_id')
WRITE = rules.owner_writes('target.credential.user_id')
EC2_WRITE = rules.no_domain(f'{rules.ADMIN} or (role:member and user_id:%(target.credential.user_id)s)')
EC2_READ = rules.no_domain(READ)


def ec2_id(access):
    """The id of the credential of an access key."""
    return hashlib.sha256(access.encode()).hexdigest()


def view(req, core, row):
    """A credential as the API shows it."""
    return {'id': row.id, 'user_id': row.user_id, 'project_id': row.project_id, 'type': row.type,
            'blob': core.crypt.decrypt(row.blob), **row.extra, 'links': {'self': f'{req.base_url}/v3/credentials/{row.id}'}}


def load(req, credential_id):
    """The credential as a policy target; who may not see it isn't told that it exists."""
    with req.db.read() as connection:
        row = connection.execute(sa.select(credentials).where(credentials.c.id == credential_id)).first()
    if row is None:
        raise errors.NotFound(f'Could not find credential: {credential_id}.')
    delegation.own_project(req, row.project_id)
    req.row = row
    return {'target.credential.user_id': row.user_id}


@routes.get('/credentials', rule='identity:list_credentials', default=READ, late=True, query=kit.parameters(HOW),
            response=kit.many_of('credentials'), summary='List credentials')
def list_credentials(req):
    """List credentials: one's own, or for those who may see them everybody's."""
    req.authorize({'target.credential.user_id': req.ctx.user_id})
    select, core = sa.select(credentials), cores.of(req)
    if not req.allows('identity:list_credentials', {'target.credential.user_id': None}):
        select = select.where(credentials.c.user_id == req.ctx.user_id)
    if delegation.delegated(req):
        select = select.where(credentials.c.project_id == req.ctx.project_id)
    with req.db.read() as connection:
        return kit.page(req, HOW, connection, select, 'credentials', lambda row: view(req, core, row))


@routes.post('/credentials', rule='identity:create_credential', default=WRITE, late=True, status=201, summary='Create a credential',
             body=kit.body('credential', FIELDS, ['blob', 'type']), response=kit.one_of('credential', {}))
def create(req):
    """Create a credential."""
    core, asked = cores.of(req), req.body['credential']
    user_id = asked.get('user_id') or req.ctx.user_id
    req.authorize({'target.credential.user_id': user_id})
    delegation.refuse_lasting(req, 'credentials')
    delegation.own_project(req, asked.get('project_id'))
    blob = asked['blob'] if isinstance(asked['blob'], str) else orjson.dumps(asked['blob']).decode()
    credential_id, access_hash = db.new_hex(), None
    if asked['type'] == 'ec2':
        if not asked.get('project_id'):
            raise errors.BadRequest('Invalid input for field/attribute credential.project_id: an EC2 credential needs one.')
        content = _ec2_blob(blob)
        # Whoever uses the credential later gets no more than the token that made it has.
        content.pop('trust_id', None)
        content.pop('app_cred_id', None)
        content.update(_delegation(delegation.claims(req)))
        blob = orjson.dumps(content).decode()
        credential_id = access_hash = ec2_id(content['access'])
    row = {'id': credential_id, 'user_id': user_id, 'project_id': asked.get('project_id'), 'type': asked['type'],
           'blob': core.crypt.encrypt(blob), 'access_hash': access_hash, 'extra': kit.extra_of(asked, KNOWN)}
    return {'credential': view(req, core, _insert(core, row))}


def _ec2_blob(blob):
    try:
        content = orjson.loads(blob)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get('access'), str) or not isinstance(content.get('secret'), str):
        raise errors.BadRequest('Invalid input for field/attribute credential.blob: an EC2 credential needs a JSON object with '
                                'access and secret.')
    return content


def _delegation(claims):
    found = {}
    if claims.extra.get('trust'):
        found['trust_id'] = claims.extra['trust']['id']
    if claims.extra.get('app_cred'):
        found['app_cred_id'] = claims.extra['app_cred']['id']
    return found


def _insert(core, row):
    limit = core.conf.credential.user_limit

    def store(connection):
        if limit >= 0 and connection.execute(sa.select(sa.func.count()).where(
                credentials.c.user_id == row['user_id'])).scalar() >= limit:
            raise errors.Forbidden(f'Unable to create additional credentials, maximum of {limit} already exceeded for user.')
        connection.execute(credentials.insert().values(row))
        notices.tell(connection, 'credential', 'created', row['id'])
        return connection.execute(sa.select(credentials).where(credentials.c.id == row['id'])).one()
    try:
        return core.db.transact(store)
    except exc.IntegrityError as error:
        if db.is_duplicate(error):
            raise errors.Conflict('There is a credential with this access key already.') from None
        raise


@routes.get('/credentials/{credential_id}', rule='identity:get_credential', default=READ, load=load,
            response=kit.one_of('credential', {}), summary='Show a credential')
def show(req, credential_id):
    """Show a credential."""
    return {'credential': view(req, cores.of(req), req.row)}


@routes.patch('/credentials/{credential_id}', rule='identity:update_credential', default=WRITE, load=load,
              body=kit.body('credential', FIELDS), response=kit.one_of('credential', {}), summary='Update a credential')
def update(req, credential_id):
    """Change a credential. What an EC2 credential was derived from cannot be changed."""
    core, asked, row = cores.of(req), req.body['credential'], req.row
    kit.same_id(credential_id, asked.get('id'))
    delegation.refuse_lasting(req, 'credentials')
    if 'project_id' in asked:
        delegation.own_project(req, asked['project_id'])
    if asked.get('user_id'):
        req.authorize({'target.credential.user_id': asked['user_id']})
    values = kit.merged(row._mapping, asked, ('user_id', 'project_id', 'type'), KNOWN)
    if 'ec2' in (row.type, asked.get('type')):
        if asked.get('type', 'ec2') != row.type:
            raise errors.BadRequest('The type of an EC2 credential cannot be changed (credential.type).')
        if 'project_id' in asked and asked['project_id'] is None:
            raise errors.BadRequest('Invalid input for field/attribute credential.project_id: an EC2 credential needs one.')
    if 'blob' in asked:
        blob = asked['blob'] if isinstance(asked['blob'], str) else orjson.dumps(asked['blob']).decode()
        if row.type == 'ec2':
            before, after = orjson.loads(core.crypt.decrypt(row.blob)), _ec2_blob(blob)
            for name in ('trust_id', 'app_cred_id', 'access_token_id'):
                if before.get(name) != after.get(name):
                    raise errors.BadRequest(f'{name} of an EC2 credential cannot be changed (credential.blob).')
            values['access_hash'] = ec2_id(after['access'])
        values['blob'] = core.crypt.encrypt(blob)

    def store(connection):
        if values:
            connection.execute(sa.update(credentials).where(credentials.c.id == credential_id).values(values))
        notices.tell(connection, 'credential', 'updated', credential_id)
        return connection.execute(sa.select(credentials).where(credentials.c.id == credential_id)).one()
    return {'credential': view(req, core, core.db.transact(store))}


@routes.delete('/credentials/{credential_id}', rule='identity:delete_credential', default=WRITE, load=load,
               summary='Delete a credential')
def delete(req, credential_id):
    """Delete a credential."""
    def store(connection):
        connection.execute(sa.delete(credentials).where(credentials.c.id == credential_id))
        notices.tell(connection, 'credential', 'deleted', credential_id)
    cores.of(req).db.transact(store)


def load_owner(req, user_id, credential_id=None):
    """The user of the path as a policy target, and its EC2 credential as ``req.row``."""
    found = {'target.credential.user_id': user_id, 'user_id': user_id}
    if credential_id is not None:
        with req.db.read() as connection:
            req.row = connection.execute(sa.select(credentials).where(credentials.c.access_hash == ec2_id(credential_id))).first()
        if req.row is None:
            raise kit.told(f'Could not find credential: {credential_id}.')
        delegation.own_project(req, req.row.project_id)
        # Whose it is counts, whatever user the path names.
        found = {'target.credential.user_id': req.row.user_id, 'user_id': req.row.user_id}
    return found


def ec2_view(req, core, row):
    """An EC2 credential as the older API shows it."""
    content = orjson.loads(core.crypt.decrypt(row.blob))
    return {'user_id': row.user_id, 'tenant_id': row.project_id, 'access': content.get('access'), 'secret': content.get('secret'),
            'trust_id': content.get('trust_id'),
            'links': {'self': f"{req.base_url}/v3/users/{row.user_id}/credentials/OS-EC2/{content.get('access')}"}}


@routes.get(EC2_PATH, rule='identity:ec2_list_credentials', default=EC2_READ, load=load_owner, response=kit.many_of('credentials'),
            summary='List EC2 credentials of a user')
def list_ec2(req, user_id):
    """List the EC2 credentials of a user."""
    core = cores.of(req)
    select = sa.select(credentials).where(credentials.c.user_id == user_id, credentials.c.type == 'ec2')
    if delegation.delegated(req):
        select = select.where(credentials.c.project_id == req.ctx.project_id)
    with req.db.read() as connection:
        rows = connection.execute(select.order_by(credentials.c.id)).all()
    return kit.envelope(req, 'credentials', [ec2_view(req, core, row) for row in rows])


@routes.post(EC2_PATH, rule='identity:ec2_create_credential', default=EC2_WRITE, load=load_owner, status=201,
             body=schema.obj({'tenant_id': kit.ID}, ['tenant_id'], extra=True), response=schema.wrap('credential', schema.ANY),
             summary='Create an EC2 credential')
def create_ec2(req, user_id):
    """Create an EC2 credential for a user and a project."""
    core, project_id = cores.of(req), req.body['tenant_id']
    delegation.refuse_lasting(req, 'EC2 credentials')
    delegation.own_project(req, project_id)
    with req.db.read() as connection:
        if people.by_id(connection, user_id) is None:
            raise errors.NotFound(f'Could not find user: {user_id}.')
        where = roles.place(core, connection, project_id)
    if where is None:
        raise errors.NotFound(f'Could not find project: {project_id}.')
    content = {'access': db.new_hex(), 'secret': db.new_hex(), **_delegation(delegation.claims(req))}
    row = {'id': ec2_id(content['access']), 'access_hash': ec2_id(content['access']), 'user_id': user_id,
           'project_id': project_id, 'type': 'ec2',
           'blob': core.crypt.encrypt(orjson.dumps(content).decode()), 'extra': {}}
    return {'credential': ec2_view(req, core, _insert(core, row))}


@routes.get(EC2_PATH + '/{credential_id}', rule='identity:ec2_get_credential', default=EC2_READ, load=load_owner,
            response=schema.wrap('credential', schema.ANY), summary='Show an EC2 credential')
def show_ec2(req, user_id, credential_id):
    """Show an EC2 credential."""
    return {'credential': ec2_view(req, cores.of(req), req.row)}


@routes.delete(EC2_PATH + '/{credential_id}', rule='identity:ec2_delete_credential', default=EC2_WRITE, load=load_owner,
               summary='Delete an EC2 credential')
def delete_ec2(req, user_id, credential_id):
    """Delete an EC2 credential."""
    delete(req, req.row.id)


def _find(req, asked):
    core = cores.of(req)
    access = asked.get('access')
    if not isinstance(access, str):
        raise errors.Unauthorized('The request has no EC2 access key.')
    with req.db.read() as connection:
        row = connection.execute(sa.select(credentials).where(credentials.c.access_hash == ec2_id(access))).first()
    if row is None:
        raise errors.Unauthorized('EC2 access key not found.')
    return core, row, orjson.loads(core.crypt.decrypt(row.blob))


def _asked(req):
    return next((req.body[name] for name in ('credentials', 'credential', 'ec2Credentials') if req.body.get(name)), {})


def by_ec2(req):
    """``(text, claims)`` of a token for who signed the EC2 request that the body describes."""
    asked = _asked(req)
    core, row, content = _find(req, asked)
    if not asked.get('signature') or not ec2.valid(content['secret'], asked):
        raise errors.Unauthorized('EC2 signature not supplied.' if not asked.get('signature') else 'Invalid EC2 signature.')
    if ec2.expired(asked):
        raise errors.Unauthorized('The request was signed too long ago.')
    return issue.issue_for_credential(core, row.user_id, row.project_id, content)


def by_s3(req):
    """``(text, claims)`` of a token for who signed the S3 request that the body describes."""
    asked = _asked(req)
    core, row, content = _find(req, asked)
    if not ec2.valid_s3(content['secret'], asked):
        raise errors.Unauthorized('Credential signature mismatch')
    return issue.issue_for_credential(core, row.user_id, row.project_id, content)


def _answer(req, text, claims):
    return api.Response(issue.render(cores.of(req), claims), headers={'X-Subject-Token': text, 'Vary': 'X-Auth-Token'})


ASKED = schema.obj({name: {'type': 'object'} for name in ('credentials', 'credential', 'ec2Credentials')}, extra=True)


TOKEN = schema.wrap('token', schema.obj({'user': {'type': 'object'}, 'methods': schema.array(schema.STRING)}, ['user', 'methods'],
                                        extra=True))


@routes.post('/ec2tokens', rule='identity:ec2tokens_validate', default=rules.SERVICE, body=ASKED,
             response=TOKEN, summary='Log in with a signed EC2 request')
def ec2_token(req):
    """A token for who signed an EC2 request; for the services that receive such requests."""
    return _answer(req, *by_ec2(req))


@routes.post('/s3tokens', rule='identity:s3tokens_validate', default=rules.SERVICE, body=ASKED,
             response=TOKEN, summary='Log in with a signed S3 request')
def s3_token(req):
    """A token for who signed an S3 request; for the services that receive such requests."""
    return _answer(req, *by_s3(req))
