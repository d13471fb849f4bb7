"""Method ``password``."""
from kodiak.common import errors

from .. import people


def check(core, payload, attempt):
    """Check ``{user: {id | name, domain, password}}``."""
    user = payload.get('user')
    if not isinstance(user, dict):
        raise errors.BadRequest('Invalid input for field/attribute password.user: it must be an object.')
    password = user.get('password')
    if not isinstance(password, str):
        raise errors.BadRequest('Invalid input for field/attribute password.user.password: it must be a string.')
    with core.db.read() as connection:
        found = people.by_reference(connection, user)
    people.log_in(core, found, password)
    attempt.found(found)
