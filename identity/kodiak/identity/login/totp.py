"""Method ``totp``: a time-based one-time password (RFC 6238) made with a credential of type ``totp``."""
import base64
import binascii
import hashlib
import hmac
import struct
import time

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors

from .. import directory, people
from ..models import credentials, oauth_nonces

STEP = 30
WINDOWS = 2  # the present one, and the one before for slow fingers


def passcode(secret, counter):
    """The six digits of a secret (base32) for a window of time."""
    key = base64.b32decode(secret.upper() + '=' * (-len(secret) % 8))
    digest = hmac.new(key, struct.pack('>Q', counter), hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f'{(struct.unpack(">I", digest[offset:offset + 4])[0] & 0x7FFFFFFF) % 1000000:06}'


def check(core, payload, attempt):
    """Check ``{user: {id | name, domain, passcode}}``."""
    asked = payload.get('user')
    if not isinstance(asked, dict) or not isinstance(asked.get('passcode'), str):
        raise errors.BadRequest('Invalid input for field/attribute totp.user.passcode: it must be a string.')
    user = attempt.tried = directory.user_of(core, asked)
    with core.db.read() as connection:
        rows = connection.execute(sa.select(credentials.c.blob).where(
            credentials.c.user_id == user['id'], credentials.c.type == 'totp')).scalars().all() if user else []
    if user is None or not people.may_try(core, user):
        raise errors.Unauthorized()
    now = int(time.time()) // STEP
    for blob in rows:
        for counter in range(now, now - WINDOWS, -1):
            try:
                expected = passcode(core.crypt.decrypt(blob), counter)
            except (binascii.Error, ValueError):
                continue
            if hmac.compare_digest(expected.encode(), asked['passcode'].encode()):
                _once(core, user, counter)
                attempt.found(user)
                return
    people.failed(core, user)
    raise errors.Unauthorized()


def _once(core, user, counter):
    # Who looked over a shoulder must not be able to use the same digits again.
    try:
        core.db.transact(lambda connection: connection.execute(oauth_nonces.insert().values(
            nonce=hashlib.sha256(f"totp:{user['id']}:{counter}".encode()).hexdigest(), seen_at=db.utcnow())) and None)
    except exc.IntegrityError:
        raise errors.Unauthorized() from None
