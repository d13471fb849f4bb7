"""Passphrases of encrypted volumes: made here, kept in the database under the key file of the service, shown to services only."""
import functools
import os
import secrets

import sqlalchemy as sa
from cryptography import fernet

from kodiak.common import db, errors

from .models import keys


def path_of(conf):
    """Where the key file is."""
    return conf.storage_block.key_file or os.path.join(conf.state_path, 'storage-block', 'keys')


@functools.lru_cache(maxsize=4)
def _box(path):
    try:
        with open(path, 'rb') as source:
            return fernet.Fernet(source.read().strip())
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        draft = f'{path}.{os.getpid()}'
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as out:
            out.write(fernet.Fernet.generate_key())
        try:
            os.link(draft, path)        # whoever comes first: all processes have the same
        except FileExistsError:
            pass
        os.unlink(draft)
        with open(path, 'rb') as source:
            return fernet.Fernet(source.read().strip())


def make(connection, conf, owner_id):
    """A new random passphrase for a volume; returns the id of its key."""
    return _keep(connection, owner_id, _box(path_of(conf)).encrypt(secrets.token_hex(32).encode()).decode())


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
        return _box(path_of(conf)).decrypt(wrapped.encode())
    except fernet.InvalidToken:
        raise errors.Error('The key file of block storage is not the one that this passphrase was kept under.') from None


def delete(connection, encryption):
    """Forget the key of what an ``encryption`` column describes (None: it had none)."""
    if encryption:
        connection.execute(keys.delete().where(keys.c.id == encryption['key_id']))
