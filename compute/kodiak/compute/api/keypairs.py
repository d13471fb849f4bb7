"""Key pairs: public keys that guests are given, and, where asked for, the private key that is shown once."""
import re

import sqlalchemy as sa

from kodiak.common import api, db, errors, quota
from kodiak.common.api import schema
from kodiak.compute import conf as options
from kodiak.compute import keys, view
from kodiak.compute.api import common
from kodiak.compute.models import keypairs

routes = api.Routes('keypairs')
OWN = '((role:reader or role:member) and user_id:%(user_id)s) or role:admin'
LIST = api.Listing(keypairs.c.name, {'name': keypairs.c.name}, [('name', 'asc')], max_limit=common.MAX_PAGE)
NAME = re.compile(r'^[a-zA-Z0-9-_ ]{1,255}$')
NAME_2_92 = re.compile(r'^[a-zA-Z0-9-_ @.]{1,255}$')
CREATE = schema.wrap('keypair', schema.obj({
    'name': schema.NAME, 'public_key': schema.STRING, 'type': {'type': 'string', 'enum': ['ssh', 'x509']},
    'user_id': schema.NAME}, ['name']))
KEYPAIR = schema.wrap('keypair', {'type': 'object'})


def _user(req, user_id=None):
    """Whose key pairs are meant; another user's only for who may."""
    asked = user_id or req.query.get('user_id')
    if asked is not None and not req.at_least(2, 10):
        asked = None
    user_id = asked or req.ctx.user_id
    req.authorize({'user_id': user_id})
    return user_id


def _find(connection, user_id, name):
    row = db.one(connection, sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name))
    if row is None:
        raise errors.NotFound(f'Keypair {name} not found for user {user_id}')
    return row


def _brief(req, row):
    found = {'name': row['name'], 'public_key': row['public_key'], 'fingerprint': row['fingerprint']}
    if req.at_least(2, 2):
        found['type'] = row['type']
    return found


@routes.get('/os-keypairs', rule='os_compute_api:os-keypairs:index', default=OWN, late=True,
            query={'user_id': schema.STRING, 'limit': schema.INTEGER, 'marker': schema.STRING},
            response=schema.obj({'keypairs': schema.array(schema.wrap('keypair', {'type': 'object'})),
                                 'keypairs_links': common.LINKS}),
            summary='List key pairs')
def index(req):
    user_id = _user(req)
    query = req.query if req.at_least(2, 35) else {}
    mine = keypairs.c.user_id == user_id
    with req.db.read() as connection:
        rows, more = LIST.page(connection, sa.select(keypairs).where(mine), query, visible=mine)
    answer = {'keypairs': [{'keypair': _brief(req, row._mapping)} for row in rows]}
    if more and req.at_least(2, 35):
        answer.update(common.next_link(req, 'keypairs_links', rows[-1].name))
    return answer


@routes.get('/os-keypairs/{name}', rule='os_compute_api:os-keypairs:show', default=OWN, late=True, response=KEYPAIR,
            summary='Show a key pair')
def show(req, name):
    user_id = _user(req)
    with req.db.read() as connection:
        row = _find(connection, user_id, name)
    return {'keypair': {**_brief(req, row), 'user_id': row['user_id'], 'id': row['id'], 'deleted': False, 'deleted_at': None,
                        'updated_at': None, 'created_at': view.micro_time(row['created_at'])}}


def count(connection, user_id, resources):
    """How many key pairs a user has."""
    return {'key_pairs': connection.scalar(sa.select(sa.func.count()).select_from(keypairs).where(keypairs.c.user_id == user_id))}


@routes.post('/os-keypairs', rule='os_compute_api:os-keypairs:create', default=OWN, late=True, body=CREATE,
             response=KEYPAIR, summary='Create or import a key pair')
def create(req):
    sent = req.body['keypair']
    common.only(req, sent, since={'type': (2, 2), 'user_id': (2, 10)})
    user_id = _user(req, sent.get('user_id'))
    name = sent['name'] if req.version > (2, 1) else sent['name'].strip()
    pattern = NAME_2_92 if req.at_least(2, 92) else NAME
    if not pattern.match(name) or name != name.strip():
        raise errors.BadRequest(f'Keypair data is invalid: Keypair name contains unsafe characters: {name[:80]!r}')
    kind, private = sent.get('type', 'ssh'), None
    if 'public_key' in sent:
        public, fingerprint = sent['public_key'], keys.fingerprint(sent['public_key'], kind)
    elif req.at_least(2, 92):
        raise errors.BadRequest("Invalid input for field/attribute keypair. 'public_key' is a required property")
    else:
        private, public, fingerprint = keys.generate(kind, req.ctx.user_id)
    row = {'user_id': user_id, 'name': name, 'type': kind, 'fingerprint': fingerprint, 'public_key': public,
           'created_at': db.utcnow()}

    def write(connection):
        if connection.scalar(sa.select(keypairs.c.id).where(keypairs.c.user_id == user_id, keypairs.c.name == name)) is not None:
            raise errors.Conflict(f"Key pair '{name}' already exists.")
        try:
            # Counted a user, limited by the project that the user works in.
            quota.claim(connection, req.ctx.project_id or user_id, {'key_pairs': 1},
                        lambda connection, project, resources: count(connection, user_id, resources), options.quotas(req.app.conf),
                        'default')
        except errors.QuotaExceeded:
            raise errors.QuotaExceeded('Quota exceeded, too many key pairs.') from None
        connection.execute(keypairs.insert(), row)
    req.db.transact(write)
    shown = {**_brief(req, row), 'user_id': user_id}
    if private:
        shown['private_key'] = private
    return api.Response({'keypair': shown}, status=201 if req.at_least(2, 2) else 200)


@routes.delete('/os-keypairs/{name}', rule='os_compute_api:os-keypairs:delete', default=OWN, late=True, summary='Delete a key pair')
def delete(req, name):
    user_id = _user(req)

    def write(connection):
        _find(connection, user_id, name)
        connection.execute(keypairs.delete().where(keypairs.c.user_id == user_id, keypairs.c.name == name))
    req.db.transact(write)
    return api.Response(status=204 if req.at_least(2, 2) else 202)


