"""The signing keys: a folder with the next key (published, not used yet), the current one, and those of tokens still valid.

``next.pem`` and ``current.pem``; ``old-<seconds since the epoch at which it may go>-<id>.pem``. Rotation publishes a key
one round before it signs, so every service knows it by then. Several identity servers share the folder, or
copies of it: whoever copies it copies all files. Only the user that identity runs as can read it.
"""
import contextlib
import logging
import os
import threading
import time

from kodiak.common import errors, tokens

LOG = logging.getLogger(__name__)
NEXT, CURRENT, OLD = 'next.pem', 'current.pem', 'old-'
TICK = 1_000_000_000    # nanoseconds within which two changes of a folder may bear the same time


class NoKeys(errors.Unavailable):
    """The folder holds no signing key."""


class KeyRing:
    """The keys in a folder, read again when the folder changes.

    :param path: the folder. :param keep: seconds that an old key is kept after it signed last.
    """

    def __init__(self, path, keep):
        self.path = path
        self.keep = keep
        self._lock = threading.Lock()
        self._stamp = None
        self._current = self._next = None
        self._public = {}
        self._loaded = {}

    def signing(self, revoked=()):
        """``(key id, private key)`` that signs now.

        :param revoked: ids of keys that must not: where the current one was revoked on another server, the next one signs, as it
            does there.
        """
        self._look()
        if self._current is None:
            LOG.error('There is no signing key in %s: run "kodiak-identity keys setup".', self.path)
            raise NoKeys('Identity has no signing key yet. The operator makes one with "kodiak-identity keys setup".')
        if self._current[0] in revoked and self._next is not None:
            return self._next
        return self._current

    def public(self):
        """``{key id: public key as base64url}`` of every key whose tokens are good."""
        self._look()
        return self._public

    def _look(self):
        try:
            stamp = os.stat(self.path).st_mtime_ns
        except FileNotFoundError:
            stamp = None
        if stamp == self._stamp and stamp is not None:
            return
        with self._lock:
            self._read(stamp if stamp is not None and abs(time.time_ns() - stamp) > TICK else None)

    def _read(self, stamp):
        found = {}
        for name in self._names():
            # A file that vanished meanwhile was renamed by a rotation, which changes the folder's time again.
            with contextlib.suppress(FileNotFoundError), open(os.path.join(self.path, name), 'rb') as file:
                private = tokens.load_private(file.read())
                found[name] = (tokens.key_id_of(tokens.public_text(private)), private)
        self._next = found.get(NEXT)
        if CURRENT in found:
            self._current = found[CURRENT]
        elif not found:
            self._current = None
        # An equal dictionary stays the same object: whoever caches by identity is not disturbed.
        public = {key_id: tokens.public_text(private) for key_id, private in found.values()}
        if public != self._public:
            self._public = public
        self._stamp = stamp

    def _names(self):
        try:
            return [name for name in sorted(os.listdir(self.path)) if name.endswith('.pem')]
        except FileNotFoundError:
            return []

    def _write(self, name):
        key_id = '-'
        while key_id.startswith('-'):
            # An id that starts like an option could not be typed as an argument.
            key_id, pem, _ = tokens.new_key()
        path = os.path.join(self.path, name)
        with open(os.open(path + '.tmp', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + '.tmp', path)
        return key_id

    def _rename(self, old, new):
        os.rename(os.path.join(self.path, old), os.path.join(self.path, new))

    def _id_of(self, name):
        with open(os.path.join(self.path, name), 'rb') as file:
            return tokens.key_id_of(tokens.public_text(tokens.load_private(file.read())))

    def setup(self):
        """Make the folder and what keys it lacks. Returns the ids that were made."""
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        names = self._names()
        return [self._write(name) for name in (CURRENT, NEXT) if name not in names]

    def rotate(self, now=None):
        """The next key becomes the current one, a new one is published, what no token needs any more goes.

        Returns ``(id that signs now, id that will sign next)``.
        """
        now = int(now if now is not None else time.time())
        self.setup()
        self._write('fresh.pem.new')
        self._rename(CURRENT, f'{OLD}{now + self.keep}-{self._id_of(CURRENT)}.pem')
        self._rename(NEXT, CURRENT)
        self._rename('fresh.pem.new', NEXT)
        self.purge(now)
        return self._id_of(CURRENT), self._id_of(NEXT)

    def purge(self, now=None):
        """Remove old keys whose last token has expired."""
        now = now if now is not None else time.time()
        for name in self._names():
            if name.startswith(OLD) and int(name.split('-', 2)[1]) <= now:
                os.unlink(os.path.join(self.path, name))

    def remove(self, key_id):
        """Take a key out of use at once (it leaked): its tokens are invalid everywhere at the next poll of the feed."""
        found = [name for name in self._names() if self._id_of(name) == key_id]
        if not found:
            raise KeyError(key_id)
        for name in found:
            if name == CURRENT:
                self._rename(NEXT, CURRENT)
            else:
                os.unlink(os.path.join(self.path, name))
        self.setup()

    def listing(self):
        """``[(file name, key id)]``."""
        return [(name, self._id_of(name)) for name in self._names()]
