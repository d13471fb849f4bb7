"""Tokens that whoever holds the public key can verify: Ed25519 over a compact payload.

Text form: ``kd1.<key id>.<payload>.<signature>``; payload and signature are base64url without padding,
the payload is zlib-compressed JSON, a list in the order of :data:`FIELDS`. The catalog is not in
the token. A token's header stays under 600 bytes, and needs no store: it is valid until it expires or
until a revocation event covers it (:class:`Revocations`).

cryptography, 7 MB, is imported where it is used: this module is part of every process's configuration, and agents
verify no tokens.
"""
import base64
import datetime
import zlib

import orjson

PREFIX = 'kd1.'
MAX_LENGTH = 8192
MAX_PAYLOAD = 65536

#: user: [id, name, domain id, domain name, password_expires_at or None]; scope: None, ['p', project id, name, domain id,
#: domain name, is_domain], ['d', id, name], ['s'], each optional text None; roles: [[id, name], ...]; times: seconds since
#: the epoch as a float; extra: dictionary of what is rare (app credential, trust, OAuth, federation).
FIELDS = ('user', 'scope', 'roles', 'methods', 'audit_ids', 'issued', 'expires', 'extra')


class InvalidToken(Exception):
    """The text is not a token of ours, or its signature is wrong, or it has expired."""


class UnknownKey(InvalidToken):
    """The token names a key that is not known here (yet): ask identity again."""


class Claims:
    """What a verified token says. Attributes are :data:`FIELDS`."""

    __slots__ = FIELDS

    def __init__(self, **values):
        for name in FIELDS:
            setattr(self, name, values.get(name))
        self.extra = self.extra or {}
        self.roles = self.roles or []

    @property
    def user_id(self):
        return self.user[0]

    @property
    def project_id(self):
        return self.scope[1] if self.scope and self.scope[0] == 'p' else None

    @property
    def domain_id(self):
        return self.scope[1] if self.scope and self.scope[0] == 'd' else None

    @property
    def is_system(self):
        return bool(self.scope) and self.scope[0] == 's'

    @property
    def audit_id(self):
        return self.audit_ids[0]

    @property
    def audit_chain_id(self):
        return self.audit_ids[-1]


def _encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def _decode(text):
    return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))


def new_key():
    """A new signing key: ``(key id, private key PEM, public key as base64url)``."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    private = ed25519.Ed25519PrivateKey.generate()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    public = private.public_key().public_bytes_raw()
    # The id is derived from the key, so two keys can never share one.
    return _encode(public[:6]), pem, _encode(public)


def load_private(pem):
    """The private key of a PEM."""
    from cryptography.hazmat.primitives import serialization
    return serialization.load_pem_private_key(pem, None)


def load_public(text):
    """The public key of its base64url text."""
    from cryptography.hazmat.primitives.asymmetric import ed25519
    return ed25519.Ed25519PublicKey.from_public_bytes(_decode(text))


def public_text(private):
    """The base64url text of a private key's public half."""
    return _encode(private.public_key().public_bytes_raw())


def key_id_of(public):
    """The key id of a public key's base64url text."""
    return _encode(_decode(public)[:6])


def sign(claims, key_id, private):
    """The token text of :class:`Claims`."""
    payload = orjson.dumps([getattr(claims, name) for name in FIELDS])
    body = f'{PREFIX}{key_id}.{_encode(zlib.compress(payload, 6))}'
    return f'{body}.{_encode(private.sign(body.encode()))}'


def is_ours(text):
    """True if the text has the form of our tokens (stock Keystone's Fernet tokens don't)."""
    return text.startswith(PREFIX)


def verify(text, keys, now=None):
    """The :class:`Claims` of a token whose signature and expiry hold.

    :param keys: ``{key id: public key}``.
    :raises InvalidToken: or :class:`UnknownKey`, which a caller answers by refreshing its keys once.
    """
    if len(text) > MAX_LENGTH or not text.startswith(PREFIX):
        raise InvalidToken('not a token')
    try:
        body, signature = text.rsplit('.', 1)
        _, key_id, payload = body.split('.')
    except ValueError:
        raise InvalidToken('not a token')
    key = keys.get(key_id)
    if key is None:
        raise UnknownKey(key_id)
    from cryptography import exceptions
    try:
        key.verify(_decode(signature), body.encode())
        inflate = zlib.decompressobj()
        values = orjson.loads(inflate.decompress(_decode(payload), MAX_PAYLOAD))
    except (exceptions.InvalidSignature, ValueError, zlib.error, orjson.JSONDecodeError) as error:
        raise InvalidToken('bad signature or payload') from error
    claims = Claims(**dict(zip(FIELDS, values, strict=False)))
    if claims.expires <= (now if now is not None else datetime.datetime.now(datetime.UTC).timestamp()):
        raise InvalidToken('expired')
    return claims


def iso(seconds):
    """``2026-01-31T12:00:00.000000Z`` of seconds since the epoch."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime('%Y-%m-%dT%H:%M:%S.%fZ')


class Revocations:
    """Revocation events, and whether one of them covers a token.

    An event is a dictionary; every condition that it names must match: ``user_id``, ``project_id``, ``domain_id``
    (of the scope), ``user_domain_id``, ``project_domain_id``, ``audit_id``, ``audit_chain_id``, ``role_id``, ``app_cred_id``,
    ``trust_id``, ``access_token_id``, ``key_id``; and the token must have been issued at or before ``issued_before``
    (seconds since the epoch).
    """

    INDEXED = ('audit_id', 'audit_chain_id', 'user_id', 'project_id', 'domain_id', 'app_cred_id', 'trust_id')

    def __init__(self, events=()):
        self._index = {name: {} for name in self.INDEXED}
        self._rest = []
        for event in events:
            self.add(event)

    def add(self, event):
        """Take one more event in."""
        for name in self.INDEXED:
            if event.get(name):
                self._index[name].setdefault(event[name], []).append(event)
                return
        self._rest.append(event)

    def prune(self, now):
        """Forget events whose ``expires_at`` (seconds since the epoch) has passed: every token that they cover has expired."""
        def kept(events):
            return [event for event in events if event.get('expires_at') is None or event['expires_at'] > now]
        # New containers, so that who reads meanwhile is not disturbed.
        self._index = {name: {key: left for key, events in index.items() if (left := kept(events))}
                       for name, index in self._index.items()}
        self._rest = kept(self._rest)

    def covers(self, claims, key_id=None):
        """True if the token is revoked."""
        return any(True for _ in self.covering(claims, key_id))

    def covering(self, claims, key_id=None):
        """The events that revoke a token."""
        facts = {
            'user_id': claims.user[0], 'user_domain_id': claims.user[2], 'project_id': claims.project_id,
            'domain_id': claims.domain_id, 'project_domain_id': claims.scope[3] if claims.project_id else None,
            'audit_id': claims.audit_id, 'audit_chain_id': claims.audit_chain_id,
            'app_cred_id': (claims.extra.get('app_cred') or {}).get('id'),
            'trust_id': (claims.extra.get('trust') or {}).get('id'),
            'access_token_id': claims.extra.get('access_token_id'), 'key_id': key_id,
        }
        for name in self.INDEXED:
            for event in self._index[name].get(facts[name], ()) if self._index[name] else ():
                if self._matches(event, facts, claims):
                    yield event
        for event in self._rest:
            if self._matches(event, facts, claims):
                yield event

    @staticmethod
    def _matches(event, facts, claims):
        if claims.issued > event['issued_before']:
            return False
        for name, wanted in event.items():
            if wanted is None or name in ('issued_before', 'id', 'revoked_at', 'expires_at'):
                continue
            if name == 'role_id':
                if all(role[0] != wanted for role in claims.roles):
                    return False
            elif facts.get(name) != wanted:
                return False
        return True
