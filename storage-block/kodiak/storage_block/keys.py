"""Passphrases of encrypted volumes: made here, kept in the database under the key file of the service, shown to services only."""
import functools
import logging
import os
import secrets

import sqlalchemy as sa
from cryptography import fernet

from kodiak.common import db, errors

from .models import keys

LOG = logging.getLogger(__name__)


def path_of(conf):
    """Where the key file is."""
    return conf.storage_block.key_file or os.path.join(conf.state_path, 'storage-block', 'keys')


@functools.lru_cache(maxsize=4)
def _read(path):
    with open(path, 'rb') as source:
        return fernet.Fernet(source.read().strip())


def _box(connection, conf):
    """The key, made where there is none yet. A node that lacks the file which another one made must not make a second."""
    path = path_of(conf)
    try:
        return _read(path)
    except FileNotFoundError:
        if connection.scalar(sa.select(sa.exists().select_from(keys))):
            LOG.error('The key file of block storage is not at %s: copy it from another node, or from its backup.', path)
            raise errors.Unavailable('This node lacks the key of encrypted volumes. '
                                     'The operator copies it from another node.') from None
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    draft = f'{path}.{os.getpid()}'
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as out:
        out.write(fernet.Fernet.generate_key())
    try:
        os.link(draft, path)        # whoever comes first: all processes have the same
    except FileExistsError:
        pass
    os.unlink(draft)
    return _read(path)


def setup(connection, conf):
    """Make the key file where there is none; returns its path. :raises Unavailable: it is lacking, as another node has it."""
    _box(connection, conf)
    return path_of(conf)


def make(connection, conf, owner_id):
    """A new random passphrase for a volume; returns the id of its key."""
    return _keep(connection, owner_id, _box(connection, conf).encrypt(secrets.token_hex(32).encode()).decode())


def copy(connection, key_id, owner_id):
    """A key with the same passphrase for a copy of the data; returns its id."""
    wrapped = connection.scalar(sa.select(keys.c.wrapped).where(keys.c.id == key_id))
    if wrapped is None:
        raise errors.Conflict('The key of the encrypted source is gone, so no copy of it can be read.')
    return _keep(connection, owner_id, wrapped)


def _keep(connection, owner_id, wrapped):
    key_id = db.new_id()
    connection.execute(keys.insert(), {'id': key_id, 'owner_id': owner_id, 'wrapped': wrapped, 'created_at': db.utcnow()})
    return key_id


def passphrase(connection, conf, key_id):
    """The passphrase of a key as bytes; ``NotFound`` where there is none."""
    wrapped = connection.scalar(sa.select(keys.c.wrapped).where(keys.c.id == key_id))
    if wrapped is None:
        raise errors.NotFound(f'Key {key_id} could not be found.')
    try:
        return _box(connection, conf).decrypt(wrapped.encode())
    except fernet.InvalidToken:
        raise errors.Error('The key file of block storage is not the one that this passphrase was kept under.') from None


def delete(connection, encryption):
    """Forget the key of what an ``encryption`` column describes (None: it had none)."""
    if encryption:
        connection.execute(keys.delete().where(keys.c.id == encryption['key_id']))
