"""Hashing of passwords: argon2id for new ones; what Keystone's databases hold is verified too and upgraded at login."""
import base64
import binascii
import functools
import hashlib
import hmac
import secrets

import argon2
import bcrypt

FAST = '$sha256$'


class Hasher:
    """Hashes and verifies.

    :param memory: KiB of argon2id. :param passes: its passes. The defaults are the minimum that OWASP recommends.
    """

    def __init__(self, memory=19456, passes=2):
        self._argon2 = argon2.PasswordHasher(time_cost=passes, memory_cost=memory, parallelism=1)

    def hash(self, password):
        """The argon2id hash of a password."""
        return self._argon2.hash(password)

    def verify(self, password, hashed):
        """True if ``password`` is the one that was hashed, by any of the known algorithms."""
        for prefix, check in _CHECKS.items():
            if hashed.startswith(prefix):
                try:
                    return check(password.encode(), hashed)
                except (ValueError, TypeError, IndexError, KeyError, binascii.Error, MemoryError):
                    return False
        try:
            return self._argon2.verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    def outdated(self, hashed):
        """True if a hash should be replaced by one of today's strength at the next login."""
        if not hashed.startswith('$argon2id$'):
            return True
        try:
            return self._argon2.check_needs_rehash(hashed)
        except argon2.exceptions.InvalidHashError:
            return True

    def waste(self, password):
        """Take as long as a verification does, where there is nothing to verify against."""
        self.verify(password, self._nothing)

    @functools.cached_property
    def _nothing(self):
        return self.hash(secrets.token_hex())


def fast_hash(secret):
    """A hash for secrets that we drew ourselves: 512 random bits need no slow hash."""
    return FAST + hashlib.sha256(secret.encode()).hexdigest()


def _ab64(text):
    # passlib's base64: '.' for '+', no padding
    return base64.b64decode(text.replace('.', '+') + '=' * (-len(text) % 4))


def _fields(text):
    return dict(pair.split('=', 1) for pair in text.split(','))


def _fast(password, hashed):
    return hmac.compare_digest(hashed, FAST + hashlib.sha256(password).hexdigest())


def _bcrypt(password, hashed):
    # bcrypt reads 72 bytes; Keystone cut longer passwords there.
    return bcrypt.checkpw(password[:72], hashed.encode())


def _bcrypt_sha256(password, hashed):
    # $bcrypt-sha256$v=2,t=2b,r=12$<salt, 22>$<checksum, 31>; version 1 has no v and no HMAC.
    _, _, head, salt, checksum = hashed.split('$')
    if head.startswith('v=2'):
        fields = _fields(head)
        digest = hmac.new(salt.encode(), password, hashlib.sha256).digest()
        kind, rounds = fields['t'], int(fields['r'])
    else:
        kind, rounds = head.split(',')
        digest, rounds = hashlib.sha256(password).digest(), int(rounds)
    inner = f'${kind}${rounds:02d}${salt}{checksum}'
    return bcrypt.checkpw(base64.b64encode(digest), inner.encode())


def _scrypt(password, hashed):
    _, _, head, salt, checksum = hashed.split('$')
    fields = {name: int(value) for name, value in _fields(head).items()}
    wanted = _ab64(checksum)
    if fields['ln'] > 20 or fields['r'] > 64 or fields['p'] > 16:
        return False
    found = hashlib.scrypt(password, salt=_ab64(salt), n=2 ** fields['ln'], r=fields['r'], p=fields['p'],
                           maxmem=2 ** 30, dklen=len(wanted))
    return hmac.compare_digest(found, wanted)


def _pbkdf2_sha512(password, hashed):
    _, _, rounds, salt, checksum = hashed.split('$')
    wanted = _ab64(checksum)
    found = hashlib.pbkdf2_hmac('sha512', password, _ab64(salt), int(rounds), len(wanted))
    return hmac.compare_digest(found, wanted)


_CHECKS = {
    FAST: _fast, '$bcrypt-sha256$': _bcrypt_sha256, '$2a$': _bcrypt, '$2b$': _bcrypt, '$2y$': _bcrypt, '$scrypt$': _scrypt,
    '$pbkdf2-sha512$': _pbkdf2_sha512,
}
