"""What every part of identity has at hand in one process."""
import os

from . import changes, crypt, directory, keys, oidc, passwords, saml, state, trusts


class Core:
    """Made once a process; handlers reach it as ``req.app.extra['core']``.

    Attributes: ``conf``, ``db``, ``ring`` (signing keys), ``crypt`` (keys of stored credentials), ``state`` (what is
    remembered), ``hasher`` (passwords), ``oidc`` and ``saml`` (identity providers), ``directories`` (domains in LDAP).
    """

    def __init__(self, conf, database):
        self.conf = conf
        self.db = database
        self.keep = conf.token.expiration + conf.token.allow_expired_window
        self.ring = keys.KeyRing(keys_path(conf), self.keep)
        self.crypt = crypt.CredentialKeys(os.path.join(os.path.dirname(self.ring.path.rstrip('/')), 'credential-keys'))
        self.state = state.State(database, self.ring)
        self.directories = directory.Directories(self)
        self.oidc = oidc.Providers(conf)
        self.saml = saml.Saml(conf, os.path.join(os.path.dirname(self.ring.path.rstrip('/')), 'saml'))
        self.hasher = passwords.Hasher(conf.identity.argon2_memory, conf.identity.argon2_passes)

    def revoke(self, connection, *events):
        """Revoke the tokens that ``events`` describe; see :func:`kodiak.identity.changes.revoke`.

        What hits a user hits the tokens of trusts that it gave or was given too.
        """
        more = [{**{name: value for name, value in event.items() if name != 'user_id'}, 'trust_id': trust_id}
                for event in events if event.get('user_id') for trust_id in trusts.touching(connection, event['user_id'])]
        changes.revoke(connection, self.keep, *events, *more)


def keys_path(conf):
    """The folder of the signing keys."""
    return conf.token.keys_path or os.path.join(conf.state_path, 'identity', 'keys')


def of(req):
    """The :class:`Core` of a request."""
    return req.app.extra['core']
