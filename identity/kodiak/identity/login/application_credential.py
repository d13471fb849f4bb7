"""Method ``application_credential``: id (or name and user) and secret."""
import sqlalchemy as sa

from kodiak.common import db, errors

from .. import directory, people, times
from ..models import app_credentials


def check(core, payload, attempt):
    """Check ``{id | name, user, secret}``."""
    secret = payload.get('secret')
    if not isinstance(secret, str):
        raise errors.BadRequest('Invalid input for field/attribute application_credential.secret: it must be a string.')
    if attempt.scope:
        raise errors.Unauthorized('An application credential has its own scope: the request must name none.')
    select = sa.select(app_credentials)
    if payload.get('id'):
        select = select.where(app_credentials.c.id == payload['id'])
    elif payload.get('name') and isinstance(payload.get('user'), dict):
        user = directory.user_of(core, payload['user'])
        select = select.where(app_credentials.c.name == payload['name'], app_credentials.c.user_id == (user['id'] if user else ''))
    else:
        raise errors.BadRequest('An application credential is named by its id, or by its name and its user.')
    with core.db.read() as connection:
        row = db.one(connection, select)
        user = attempt.tried = people.by_id(connection, row['user_id']) if row else None
    if row is None:
        core.hasher.waste(secret)
        raise errors.Unauthorized()
    if not core.hasher.verify(secret, row['secret_hash']) or not people.enabled(core.conf, user):
        raise errors.Unauthorized()
    _end(row, attempt)
    attempt.found(user)
    attempt.app_cred = row


def _end(row, attempt):
    if row['expires_at'] is not None:
        if row['expires_at'] <= db.utcnow():
            raise errors.Unauthorized()
        attempt.expires = times.seconds(row['expires_at'])


def valid(connection, credential_id, attempt):
    """The row of an application credential that another credential was made with; 401 if it is gone or over."""
    row = db.one(connection, sa.select(app_credentials).where(app_credentials.c.id == credential_id))
    if row is None:
        raise errors.Unauthorized()
    _end(row, attempt)
    return row
