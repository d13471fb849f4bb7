"""OAuth 1.0a: signatures (RFC 5849), request tokens and access tokens."""
import base64
import datetime
import hashlib
import hmac
import re
import secrets
import time
import urllib.parse

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors
from kodiak.common.api import schema

from . import notices
from .models import oauth_consumers, oauth_nonces, oauth_tokens

REQUEST_LIFE = datetime.timedelta(hours=8)
ACCESS_LIFE = datetime.timedelta(days=1)
CLOCK = 600
_METHODS = {'HMAC-SHA1': hashlib.sha1, 'HMAC-SHA256': hashlib.sha256}
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Signed:
    """A signed request.

    :param method: ``POST``. :param url: as the client used it, with its query. :param authorization: the header.
    """

    def __init__(self, method, url, authorization):
        if not (authorization or '').lower().startswith('oauth '):
            raise errors.BadRequest('The request needs an OAuth Authorization header.')
        self.method, self.url = method.upper(), url
        self.parameters = {name: urllib.parse.unquote(value) for name, value in _PARAMETER.findall(authorization[6:])}

    def need(self, name):
        """A parameter of the header; 400 where it is missing."""
        if not self.parameters.get(name):
            raise errors.BadRequest(f'The OAuth header has no {name}.')
        return self.parameters[name]

    def check(self, core, consumer_secret, token_secret=''):
        """Check signature, time and nonce; 401 if anything is wrong."""
        kind = _METHODS.get(self.parameters.get('oauth_signature_method'))
        stamp, nonce = schema.natural(self.parameters.get('oauth_timestamp', '')), self.parameters.get('oauth_nonce', '')
        if kind is None or stamp is None or not nonce or self.parameters.get('oauth_version', '1.0') != '1.0':
            raise errors.Unauthorized('The OAuth parameters are incomplete.')
        if abs(time.time() - stamp) > CLOCK:
            raise errors.Unauthorized('The OAuth timestamp is too far from now.')
        key = f'{_quote(consumer_secret)}&{_quote(token_secret)}'.encode()
        found = base64.b64encode(hmac.new(key, self.base().encode(), kind).digest()).decode()
        if not hmac.compare_digest(found, self.parameters.get('oauth_signature', '')):
            raise errors.Unauthorized('Invalid signature')
        _once(core, f"{self.parameters.get('oauth_consumer_key')}:{stamp}:{nonce}")

    def base(self):
        """The signature base string."""
        parts = urllib.parse.urlsplit(self.url)
        host = parts.hostname or ''
        if parts.port and parts.port != {'http': 80, 'https': 443}.get(parts.scheme):
            host = f'{host}:{parts.port}'
        pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        pairs += [(name, value) for name,
                  value in self.parameters.items() if name != 'oauth_signature' and name.startswith('oauth_')]
        text = '&'.join(f'{name}={value}' for name, value in sorted((_quote(name), _quote(value)) for name, value in pairs))
        return '&'.join(_quote(part) for part in (self.method, f'{parts.scheme}://{host}{parts.path}', text))


def _quote(text):
    return urllib.parse.quote(str(text), safe='-_.~')


def _once(core, text):
    try:
        core.db.transact(lambda connection: connection.execute(oauth_nonces.insert().values(
            nonce=hashlib.sha256(text.encode()).hexdigest(), seen_at=db.utcnow())) and None)
    except exc.IntegrityError:
        raise errors.Unauthorized('The OAuth nonce has been used before.') from None


def consumer(connection, consumer_id):
    """A consumer's row; 401 if there is none."""
    row = connection.execute(sa.select(oauth_consumers).where(oauth_consumers.c.id == consumer_id)).first()
    if row is None:
        raise errors.Unauthorized('The OAuth consumer does not exist.')
    return row


def token(connection, token_id, kind):
    """The row of a request or access token that hasn't expired; 401 otherwise."""
    row = connection.execute(sa.select(oauth_tokens).where(oauth_tokens.c.id == token_id, oauth_tokens.c.kind == kind)).first()
    if row is None or (row.expires_at is not None and row.expires_at <= db.utcnow()):
        raise errors.Unauthorized(f'The OAuth {kind} token does not exist or has expired.')
    return row


def new_request_token(connection, consumer_id, project_id):
    """Store a request token; returns it."""
    row = {'id': db.new_hex(), 'kind': 'request', 'consumer_id': consumer_id, 'secret': db.new_hex(), 'project_id': project_id,
           'role_ids': [], 'expires_at': db.utcnow() + REQUEST_LIFE}
    connection.execute(oauth_tokens.insert().values(row))
    notices.tell(connection, 'OS-OAUTH1:request_token', 'created', row['id'])
    return row


def authorize(connection, token_id, user_id, role_ids):
    """A user lets the holder of a request token have roles; returns the verifier that the user passes on."""
    verifier = ''.join(secrets.choice('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz') for _ in range(8))
    connection.execute(sa.update(oauth_tokens).where(oauth_tokens.c.id == token_id, oauth_tokens.c.kind == 'request').values(
        user_id=user_id, role_ids=role_ids, verifier=verifier))
    return verifier


def exchange(connection, request):
    """Turn an authorized request token (a row) into an access token; returns it."""
    if not connection.execute(sa.delete(oauth_tokens).where(oauth_tokens.c.id == request.id,
                                                            oauth_tokens.c.kind == 'request')).rowcount:
        raise errors.Unauthorized('The OAuth request token has been used.')
    row = {'id': db.new_hex(), 'kind': 'access', 'consumer_id': request.consumer_id, 'secret': db.new_hex(),
           'project_id': request.project_id, 'user_id': request.user_id, 'role_ids': request.role_ids,
           'expires_at': db.utcnow() + ACCESS_LIFE}
    connection.execute(oauth_tokens.insert().values(row))
    notices.tell(connection, 'OS-OAUTH1:access_token', 'created', row['id'])
    return row
