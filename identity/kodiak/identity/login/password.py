"""Method ``password``."""
from kodiak.common import errors

from .. import directory, people


def check(core, payload, attempt):
    """Check ``{user: {id | name, domain, password}}``."""
    user = payload.get('user')
    if not isinstance(user, dict):
        raise errors.BadRequest('Invalid input for field/attribute password.user: it must be an object.')
    password = user.get('password')
    if not isinstance(password, str):
        raise errors.BadRequest('Invalid input for field/attribute password.user.password: it must be a string.')
    found = directory.user_of(core, user)
    attempt.tried = found
    people.log_in(core, found, password)
    attempt.found(found)
