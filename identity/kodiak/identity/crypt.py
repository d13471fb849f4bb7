"""Encryption of stored credentials: Fernet keys in a folder, the newest encrypts, all decrypt.

Files are numbered; the highest number is the newest. ``next`` decrypts too, and is the one that the next rotation numbers: the
other servers have it by then, so they read what is encrypted with it at once. Rotation encrypts everything anew, after which
only the newest and the one before it (with which a server that has not got the newest yet encrypts) are kept.
"""
import contextlib
import logging
import os
import threading
import time

import sqlalchemy as sa
from cryptography import fernet

from kodiak.common import errors

from .models import credentials, domain_options

LOG = logging.getLogger(__name__)
NEXT = 'next'
TICK = 1_000_000_000    # nanoseconds within which two changes of a folder may bear the same time


class CredentialKeys:
    """The keys in a folder, read again when the folder changes."""

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()
        self._stamp = None
        self._fernet = None

    def _numbers(self):
        try:
            return sorted(int(name) for name in os.listdir(self.path) if name.isdigit())
        except FileNotFoundError:
            return []

    def _look(self):
        try:
            stamp = os.stat(self.path).st_mtime_ns
        except FileNotFoundError:
            stamp = None
        if self._fernet is None or stamp != self._stamp:
            with self._lock:
                found = []
                for name in (*reversed(self._numbers()), NEXT):
                    # What has gone meanwhile was numbered or retired: the folder's time tells so at the next look.
                    with contextlib.suppress(FileNotFoundError), open(os.path.join(self.path, str(name)), 'rb') as file:
                        found.append((name, fernet.Fernet(file.read())))
                if not found or found[0][0] == NEXT:
                    LOG.error('There is no credential key in %s: run "kodiak-identity keys setup".', self.path)
                    raise errors.Unavailable('Identity has no key for credentials yet. The operator makes one with '
                                             '"kodiak-identity keys setup".')
                settled = stamp is not None and abs(time.time_ns() - stamp) > TICK
                self._fernet, self._stamp = fernet.MultiFernet([key for _, key in found]), stamp if settled else None
        return self._fernet

    def encrypt(self, text):
        """The encrypted text."""
        return self._look().encrypt(text.encode()).decode()

    def decrypt(self, text):
        """The text that was encrypted; ``cryptography.fernet.InvalidToken`` if its key is gone."""
        return self._look().decrypt(text.encode()).decode()

    def setup(self):
        """Make the folder, a first key and the next one where they lack. Returns how many were made."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        missing = [name for name, there in (('0', self._numbers()), (NEXT, os.path.exists(os.path.join(self.path, NEXT))))
                   if not there]
        for name in missing:
            self._write(name)
        return len(missing)

    def advance(self):
        """The key that was next is the newest from now on, and there is another next one."""
        self.setup()
        self._write('fresh')
        os.rename(os.path.join(self.path, NEXT), os.path.join(self.path, str(self._numbers()[-1] + 1)))
        os.rename(os.path.join(self.path, 'fresh'), os.path.join(self.path, NEXT))

    def _write(self, name):
        path = os.path.join(self.path, name)
        with open(os.open(path + '.tmp', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
            file.write(fernet.Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + '.tmp', path)

    def retire(self):
        """Remove all keys but the two newest."""
        for number in self._numbers()[:-2]:
            os.unlink(os.path.join(self.path, str(number)))


def encrypt_again(connection, keys):
    """Encrypt all that is stored with the newest key. Returns how many credentials."""
    rows = connection.execute(sa.select(credentials.c.id, credentials.c.blob)).all()
    for row in rows:
        connection.execute(sa.update(credentials).where(credentials.c.id == row.id).values(
            blob=keys.encrypt(keys.decrypt(row.blob))))
    table = domain_options
    for row in connection.execute(sa.select(table).where(table.c.sensitive.is_(True))).all():
        connection.execute(sa.update(table).where(
            table.c.domain_id == row.domain_id, table.c.group == row.group, table.c.option == row.option)
            .values(value=keys.encrypt(keys.decrypt(row.value))))
    return len(rows)
