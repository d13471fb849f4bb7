"""The ways to authenticate. Each module's ``check(core, payload, attempt)`` adds to an :class:`Attempt` or raises."""
from kodiak.common import errors

from .. import notices, receipts
from . import application_credential, external, oauth1, password, token, totp

METHODS = {'password': password, 'token': token, 'application_credential': application_credential, 'oauth1': oauth1, 'totp': totp,
           'external': external}


class Attempt:
    """What is known after the methods of one authentication request have been checked.

    Attributes: ``user`` (row with ``domain_name``, ``domain_enabled``), ``tried`` (the row of who somebody claims to be, or None),
    ``methods``, ``expires`` (seconds since the epoch that
    the token may not outlive, or None), ``chain`` (audit id of the first token of the chain, or None), ``parent`` (claims
    of the token that is exchanged, or None), ``app_cred`` (row, or None), ``extra`` (rare parts of the token), ``scope`` (the
    scope of the request), ``uses_trust`` (id of a trust of which one use is to be counted, or None),
    ``oauth`` (row of an access token, or None), ``http`` (the request: ``method``, ``url``, ``headers``, ``environ``; or None).
    """

    def __init__(self, scope, http=None):
        self.user = self.tried = None
        self.methods = []
        self.expires = None
        self.chain = None
        self.parent = None
        self.app_cred = None
        self.extra = {}
        self.scope = scope
        self.uses_trust = None
        self.oauth = None
        self.http = http

    def found(self, user):
        """Take the user that a method has found; all methods must find the same one."""
        if self.user is not None and self.user['id'] != user['id']:
            raise errors.Unauthorized()
        self.user = self.tried = user


def authenticate(core, identity, scope, http=None):
    """Check all methods that ``identity`` (of the request) names; returns the :class:`Attempt`.

    :raises Unauthorized: any of them fails. :raises BadRequest: a method's payload is missing.
    """
    attempt = Attempt(scope, http)
    try:
        _prove(core, identity, attempt)
    except errors.Unauthorized as error:
        if 'token' not in identity['methods']:
            notices.authenticated(core, 'pending' if isinstance(error, receipts.MoreFactors) else 'failure', attempt.tried,
                                  getattr(error, 'reason', None))
        raise
    if attempt.parent is None:
        notices.authenticated(core, 'success', attempt.user)
    return attempt


def _prove(core, identity, attempt):
    methods = list(dict.fromkeys(identity['methods']))
    offered = METHODS.keys() & set(core.conf.auth.methods)
    for method in methods:
        if method not in offered:
            raise errors.Unauthorized('Attempted to authenticate with an unsupported method.')
        if not isinstance(identity.get(method), dict):
            raise errors.BadRequest(f'Invalid input for field/attribute identity.{method}: it must be an object.')
    for method in methods:
        METHODS[method].check(core, identity[method], attempt)
        attempt.methods.append(method)
    if attempt.user is None:
        raise errors.Unauthorized()
    if attempt.http is not None and attempt.http.headers.get('Openstack-Auth-Receipt'):
        _continue(core, attempt, attempt.http.headers['Openstack-Auth-Receipt'])
    if attempt.parent is None:
        # What is exchanged has met the rules when it was issued.
        receipts.check(core, attempt)


def _continue(core, attempt, text):
    user_id, methods = receipts.read(core, text)
    if user_id != attempt.user['id']:
        raise errors.Unauthorized('The auth receipt belongs to another user.')
    attempt.methods += [method for method in methods if method not in attempt.methods]
