"""Method ``token``: a token is exchanged for one of another scope, of the same chain and with the same end."""
from kodiak.common import certificates, errors


def check(core, payload, attempt):
    """Check ``{id}``."""
    text = payload.get('id')
    if not isinstance(text, str):
        raise errors.BadRequest('Invalid input for field/attribute token.id: it must be a string.')
    claims = core.state.claims(text)
    if claims is None:
        raise errors.NotFound('Could not find token.')
    refuse(core, claims, attempt.scope)
    if claims.extra.get('bound'):
        # Whoever found it may no more exchange it than use it, and what it is exchanged for is bound too.
        if not certificates.fits(claims.extra['bound'], certificates.shown(attempt.http.environ if attempt.http else {})):
            raise errors.Unauthorized('The token is bound to a certificate: show that certificate to exchange it.')
        attempt.extra['bound'] = claims.extra['bound']
    user_id, name, domain_id, domain_name, password_expires = [*claims.user, None][:5]
    # The user of a good token exists and is enabled: anything else has revoked the token.
    attempt.found({'id': user_id, 'name': name, 'domain_id': domain_id, 'domain_name': domain_name,
                   'password_expires_at': password_expires, 'default_project_id': None, 'options': None})
    attempt.parent = claims
    attempt.methods += [method for method in claims.methods if method not in attempt.methods]
    attempt.expires, attempt.chain = claims.expires, claims.audit_chain_id
    if claims.extra.get('federation'):
        attempt.extra['federation'] = claims.extra['federation']


def refuse(core, claims, scope):
    """Raise ``Forbidden`` for an exchange that would widen what a token was made for."""
    if claims.extra.get('trust'):
        raise errors.Forbidden('A trust-scoped token cannot be exchanged; ask for another one with the trust.')
    if claims.extra.get('oauth'):
        raise errors.Forbidden('An OAuth-scoped token cannot be exchanged; ask for another one with the access token.')
    if claims.extra.get('app_cred') and scope:
        raise errors.Forbidden('A token of an application credential cannot be exchanged for one of another scope.')
    if claims.is_system and ('project' in (scope or ()) or 'domain' in (scope or ())):
        raise errors.Forbidden('A system-scoped token cannot be exchanged for a project-scoped or domain-scoped one.')
    if claims.scope and not core.conf.token.allow_rescope_scoped_token:
        raise errors.Forbidden('A scoped token cannot be exchanged here.')
