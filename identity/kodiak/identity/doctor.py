"""What ``kodiak-identity doctor`` looks at: keys, the database, directories, identity providers. Each fault says what to do."""
import os
import pwd

import sqlalchemy as sa

from kodiak.common import errors, migrate

from . import keys
from .models import directory_looks, identity_providers, protocols


def faults(core):
    """What is wrong, as sentences."""
    found = _keys(core)
    if not core.db.healthy():
        return [*found, 'The database does not answer.']
    if not migrate.ready(core.db, 'identity'):
        return [*found, 'The schema is not at the newest revision: run "kodiak-identity db sync".']
    return [*found, *_directories(core), *_providers(core)]


def _keys(core):
    found = []
    try:
        core.ring.signing()
        core.crypt.encrypt('')
    except (keys.NoKeys, errors.Unavailable) as error:
        found.append(error.message)
    except PermissionError as error:
        user = pwd.getpwuid(os.geteuid()).pw_name
        return [f'User {user} cannot read {error.filename}: run this as the user that identity runs as.']
    for folder in (core.ring.path, core.crypt.path):
        for name in ('', *sorted(os.listdir(folder))) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if os.stat(path).st_mode & 0o077:
                found.append(f'{path} is readable by others: chmod go= {path}')
    return found


def _directories(core):
    with core.db.read() as connection:
        rows = connection.execute(sa.select(directory_looks).where(directory_looks.c.fault.is_not(None))).all()
    return [f'The directory of domain {row.domain_id}: {row.fault} (The log of identity says more.)' for row in rows]


def _providers(core):
    with core.db.read() as connection:
        rows = connection.execute(sa.select(protocols.c.idp_id, protocols.c.id).join_from(protocols, identity_providers).where(
            identity_providers.c.enabled.is_(True)).order_by(protocols.c.idp_id, protocols.c.id)).all()
    found = []
    for row in rows:
        try:
            if core.saml.serves(row.idp_id, row.id):
                core.saml.provider(row.idp_id).description()
                core.saml.signing()
            else:
                core.oidc.of(row.idp_id).metadata()
        except errors.Error as error:
            found.append(f'Identity provider {row.idp_id}, protocol {row.id}: {error.message}')
    return found
