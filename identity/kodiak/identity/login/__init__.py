"""The ways to authenticate. Each module's ``check(core, payload, attempt)`` adds to an :class:`Attempt` or raises."""
import importlib

from kodiak.common import errors

METHODS = {'password', 'token', 'application_credential'}


class Attempt:
    """What is known after the methods of one authentication request have been checked.

    Attributes: ``user`` (row with ``domain_name``, ``domain_enabled``), ``methods``, ``expires`` (seconds since the epoch that
    the token may not outlive, or None), ``chain`` (audit id of the first token of the chain, or None), ``parent`` (claims
    of the token that is exchanged, or None), ``app_cred`` (row, or None), ``extra`` (rare parts of the token), ``scope`` (the
    scope of the request).
    """

    def __init__(self, scope):
        self.user = None
        self.methods = []
        self.expires = None
        self.chain = None
        self.parent = None
        self.app_cred = None
        self.extra = {}
        self.scope = scope

    def found(self, user):
        """Take the user that a method has found; all methods must find the same one."""
        if self.user is not None and self.user['id'] != user['id']:
            raise errors.Unauthorized()
        self.user = user


def authenticate(core, identity, scope):
    """Check all methods that ``identity`` (of the request) names; returns the :class:`Attempt`.

    :raises Unauthorized: any of them fails. :raises BadRequest: a method's payload is missing.
    """
    attempt = Attempt(scope)
    methods = list(dict.fromkeys(identity['methods']))
    offered = METHODS & set(core.conf.auth.methods)
    for method in methods:
        if method not in offered:
            raise errors.Unauthorized('Attempted to authenticate with an unsupported method.')
        if not isinstance(identity.get(method), dict):
            raise errors.BadRequest(f'Invalid input for field/attribute identity.{method}: it must be an object.')
    for method in methods:
        importlib.import_module(f'{__name__}.{method}').check(core, identity[method], attempt)
        attempt.methods.append(method)
    if attempt.user is None:
        raise errors.Unauthorized()
    return attempt
