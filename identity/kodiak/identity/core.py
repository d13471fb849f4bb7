"""What every part of identity has at hand in one process."""
import os

from . import changes, keys, passwords, state


class Core:
    """Made once a process; handlers reach it as ``req.app.extra['core']``.

    Attributes: ``conf``, ``db``, ``ring`` (signing keys), ``state`` (what is remembered), ``hasher`` (passwords).
    """

    def __init__(self, conf, database):
        self.conf = conf
        self.db = database
        self.keep = conf.token.expiration + conf.token.allow_expired_window
        self.ring = keys.KeyRing(keys_path(conf), self.keep)
        self.state = state.State(database, self.ring)
        self.hasher = passwords.Hasher(conf.identity.argon2_memory, conf.identity.argon2_passes)

    def revoke(self, connection, *events):
        """Revoke the tokens that ``events`` describe; see :func:`kodiak.identity.changes.revoke`."""
        changes.revoke(connection, self.keep, *events)


def keys_path(conf):
    """The folder of the signing keys."""
    return conf.token.keys_path or os.path.join(conf.state_path, 'identity', 'keys')


def of(req):
    """The :class:`Core` of a request."""
    return req.app.extra['core']
