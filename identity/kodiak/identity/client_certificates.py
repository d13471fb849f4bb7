"""Users who log in with a certificate (OAuth 2.0, ``tls_client_auth``): whom its subject names, by a mapping.

Whether somebody that one trusts has issued the certificate is what the server in front has checked. The mapping
(``[oauth2] oauth2_cert_dn_mapping_id``) refers to the parts of the names as ``SSL_CLIENT_SUBJECT_DN_<PART>`` and
``SSL_CLIENT_ISSUER_DN_<PART>``; where several issuers are trusted, its rules say whom each may speak of.
"""
import time

import sqlalchemy as sa

from kodiak.common import certificates, errors

from . import issue, mapping, notices, people
from .models import mappings


def log_in(core, user_id, der):
    """``(text, claims)`` of a token for a user who has shown a certificate (DER).

    :raises Unauthorized: with what is wrong, for the log.
    """
    core.state.look()
    with core.db.read() as connection:
        rules = connection.execute(sa.select(mappings.c.rules).where(
            mappings.c.id == core.conf.oauth2.oauth2_cert_dn_mapping_id)).scalar()
        user = people.by_id(connection, user_id)
    try:
        if rules is None:
            raise errors.Unauthorized(f'there is no mapping {core.conf.oauth2.oauth2_cert_dn_mapping_id}')
        if user is None or not people.may_try(core, user):
            raise errors.Unauthorized('there is no such user, or it is disabled')
        names, until = describe(der)
        check(user, mapping.apply(rules, names).user)
        if not user['default_project_id']:
            raise errors.Unauthorized('the user has no default project')
        return issue.issue_for_certificate(core, user, certificates.binding(der), until)
    except errors.Unauthorized:
        notices.authenticated(core, 'failure', user)
        raise


def describe(der):
    """``(assertion, end)`` of a certificate: the parts of its names for a mapping; seconds since the epoch at which it ends."""
    from cryptography import x509
    try:
        found = x509.load_der_x509_certificate(der)
        begin, end = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        names = [('SUBJECT', found.subject), ('ISSUER', found.issuer)]
    except ValueError:
        raise errors.Unauthorized('the certificate cannot be read') from None
    if not begin <= time.time() < end:
        raise errors.Unauthorized('the certificate is not valid now')
    assertion = {}
    for whose, name in names:
        for part in name:
            kind = 'EMAILADDRESS' if part.oid == x509.NameOID.EMAIL_ADDRESS else part.rfc4514_attribute_name.upper()
            # Lists: a semicolon in a name separates nothing.
            assertion.setdefault(f'SSL_CLIENT_{whose}_DN_{kind}', []).append(str(part.value))
    return assertion, end


def check(user, said):
    """Refuse a certificate that speaks of another user, or of no particular one. :param said: the ``user`` that a mapping made."""
    domain = said.get('domain') or {}
    if not said.get('id') and not (said.get('name') and (domain.get('id') or domain.get('name'))):
        raise errors.Unauthorized('the mapping gives neither the id of a user nor its name and domain')
    for value, known in ((said.get('id'), user['id']), (said.get('name'), user['name']),
                         (said.get('email'), user['extra'].get('email')), (domain.get('id'), user['domain_id']),
                         (domain.get('name'), user['domain_name'])):
        if value and value != known:
            raise errors.Unauthorized('the certificate speaks of another user')
