"""Receipts: signed proof of the first of several factors, and the rules that say which factors a user needs.

A receipt is signed with the key that signs tokens but has a form of its own, so that nothing takes it for a token.
"""
import base64
import time
import zlib

import orjson
from cryptography import exceptions

from kodiak.common import errors, tokens

PREFIX = 'kr1.'


def rules_of(user):
    """The sets of methods of which a user needs one whole; empty where any method will do."""
    options = user.get('options') or {}
    if not options.get('multi_factor_auth_enabled'):
        return []
    return [rule for rule in options.get('multi_factor_auth_rules') or () if rule]


def check(core, attempt):
    """Raise :class:`MoreFactors` unless the methods of ``attempt`` satisfy one of the user's rules."""
    rules = rules_of(attempt.user)
    if rules and not any(set(rule) <= set(attempt.methods) for rule in rules):
        raise MoreFactors(core, attempt, rules)


class MoreFactors(errors.Unauthorized):
    """401 with a receipt for what was proved, and with the rules of which one has to be met."""

    def __init__(self, core, attempt, rules):
        user, issued = attempt.user, time.time()
        expires = issued + core.conf.auth.receipt_expiration
        text = sign(core, [user['id'], attempt.methods, expires])
        shown = {'methods': attempt.methods, 'issued_at': tokens.iso(issued), 'expires_at': tokens.iso(expires),
                 'user': {'id': user['id'], 'name': user['name'],
                          'domain': {'id': user['domain_id'], 'name': user['domain_name']}}}
        super().__init__('Additional authentication steps required.', headers={'Openstack-Auth-Receipt': text},
                         detail={'receipt': shown, 'required_auth_methods': rules})


def _encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def _decode(text):
    return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))


def sign(core, values):
    """The text of a receipt."""
    key_id, private = core.ring.signing(core.state.revoked_keys)
    body = f'{PREFIX}{key_id}.{_encode(zlib.compress(orjson.dumps(values)))}'
    return f'{body}.{_encode(private.sign(body.encode()))}'


def read(core, text):
    """``(user id, methods)`` of a receipt; 401 if it isn't one of ours or has expired."""
    try:
        if len(text) > tokens.MAX_LENGTH or not text.startswith(PREFIX):
            raise ValueError
        body, signature = text.rsplit('.', 1)
        _, key_id, payload = body.split('.')
        core.state.public_keys()[key_id].verify(_decode(signature), body.encode())
        user_id, methods, expires = orjson.loads(zlib.decompress(_decode(payload)))
    except (ValueError, KeyError, zlib.error, exceptions.InvalidSignature):
        raise errors.Unauthorized('The auth receipt is not valid.') from None
    if expires <= time.time():
        raise errors.Unauthorized('The auth receipt has expired.')
    return user_id, methods
