"""Certificates that clients show in TLS, and tokens that are bound to one (RFC 8705).

TLS ends at a server in front. What it has verified arrives in the WSGI environment as ``SSL_CLIENT_CERT`` (PEM), set by the WSGI
server itself or by :class:`kodiak.common.wsgi.Forwarded` from a header of a trusted proxy.
"""
import base64
import binascii
import hashlib
import re
import ssl
import urllib.parse

ENVIRON = 'SSL_CLIENT_CERT'
_PEM = re.compile('-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----', re.S)
_MOST = 65536


def read(text):
    """The certificate (DER) of a text, or None where it is none.

    It may be PEM, with its lines broken by whatever white space, PEM as nginx escapes it for a header, base64 of the DER as HAProxy
    gives it, or that between colons (``Client-Cert``, RFC 9440).
    """
    if len(text) > _MOST:
        return None
    if '%' in text:
        text = urllib.parse.unquote(text)
    found = _PEM.search(text)
    try:
        der = base64.b64decode(''.join((found[1] if found else text.strip().strip(':')).split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    # A certificate is a SEQUENCE.
    return der if der[:1] == b'\x30' else None


def pem(der):
    """A certificate as PEM."""
    return ssl.DER_cert_to_PEM_cert(der)


def shown(environ):
    """The certificate (DER) that the client of a WSGI request has shown, or None."""
    text = environ.get(ENVIRON)
    return read(text) if text else None


def binding(der):
    """The members of a token's body that bind it to a certificate.

    ``cnf`` is RFC 8705's, of the DER. ``oauth2_credential`` is what keystonemiddleware's ``oauth2_mtls_token`` compares, of the
    PEM.
    """
    return {'cnf': {'x5t#S256': _hash(der).rstrip('=')}, 'oauth2_credential': {'x5t#S256': _hash(pem(der).encode())}}


def _hash(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()


def bound(token):
    """True if the ``token`` of a validation answer is good only together with a certificate."""
    return 'cnf' in token or 'oauth2_credential' in token


def fits(token, der):
    """True if a token is bound to this certificate (DER, or None: the client has shown none)."""
    if der is None:
        return False
    mine = binding(der)
    # Another identity service may know one of the two; each that is there must be right.
    return all(token[name] == mine[name] for name in mine if name in token)
