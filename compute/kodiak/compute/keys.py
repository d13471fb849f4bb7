"""Public keys: their fingerprints, and pairs that are made on request."""
import base64
import binascii
import datetime
import hashlib

from kodiak.common import errors


def fingerprint(public_key, kind='ssh'):
    """The fingerprint of a public key; ``BadRequest`` for what is none."""
    if kind == 'x509':
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        try:
            found = x509.load_pem_x509_certificate(public_key.encode())
        except ValueError as error:
            raise errors.BadRequest(
                f'Keypair data is invalid: failed to generate X509 fingerprint. Error message: {error}') from None
        return _colons(found.fingerprint(hashes.SHA1()).hex())  # noqa: S303 (a name of the key, as the API has it)
    from cryptography.hazmat.primitives import serialization
    try:
        serialization.load_ssh_public_key(public_key.encode())
        data = base64.b64decode(public_key.split()[1])
    except Exception:
        raise errors.BadRequest('Keypair data is invalid: failed to generate fingerprint') from None
    return _colons(hashlib.md5(data, usedforsecurity=False).hexdigest())


def _colons(digest):
    return ':'.join(digest[index:index + 2] for index in range(0, len(digest), 2))


def generate(kind='ssh', user='kodiak'):
    """A new pair: ``(private key, public key, fingerprint)`` as text."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8 if kind == 'x509'
                                else serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()).decode()
    if kind == 'x509':
        public = _certificate(key, user)
    else:
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        public += ' Generated-by-Kodiak\n'
    return private, public, fingerprint(public, kind)


def _certificate(key, user):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, user[:64])])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(
        x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=3650)).add_extension(
            x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), False).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def decoded(text, field):
    """The bytes of a base64 field; ``BadRequest`` names it otherwise."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise errors.BadRequest(f'Invalid input for field/attribute {field}: it must be base64.') from None
