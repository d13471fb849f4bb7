"""Signed images: data is accepted only with the signature that the image's properties hold.

An image is signed where it has all four of :data:`PROPERTIES`. The signature is made over a hash of the data with the private key
of a certificate, which is found by its id: in the folder ``image/certificates`` of the service's state (``<id>.pem``, put there
by the operator), or in the cloud's key manager, read with the token of whoever asks.
"""
import base64
import binascii
import hashlib
import os
import uuid

from cryptography import exceptions, x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, utils
from keystoneauth1 import exceptions as keystone

from kodiak.common import db, errors

SIGNATURE, METHOD, KEY_TYPE, CERTIFICATE = PROPERTIES = (
    'img_signature', 'img_signature_hash_method', 'img_signature_key_type', 'img_signature_certificate_uuid')
METHODS = {'SHA-224': hashes.SHA224, 'SHA-256': hashes.SHA256, 'SHA-384': hashes.SHA384, 'SHA-512': hashes.SHA512}
CURVES = {f'ECC_{name.upper()}': name for name in (
    'sect571k1', 'sect409k1', 'sect571r1', 'sect409r1', 'secp521r1', 'secp384r1')}
KEY_TYPES = ('RSA-PSS', 'DSA', *CURVES)


def signed(properties):
    """Whether an image with these properties is a signed one."""
    return all(properties.get(name) for name in PROPERTIES)


def verifier(app, ctx, properties):
    """The :class:`Verifier` of an image, or None for one that is not signed.

    :raises BadRequest: the properties make no sense, or there is no such certificate.
    """
    return Verifier(properties, certificate(app, ctx, properties)) if signed(properties) else None


def certificate(app, ctx, properties):
    """The certificate of a signed image as text in PEM."""
    try:
        name = str(uuid.UUID(properties[CERTIFICATE]))
    except ValueError:
        raise errors.BadRequest(f'Invalid value for {CERTIFICATE}: it must be a UUID.') from None
    path = os.path.join(app.conf.state_path, 'image', 'certificates', name + '.pem')
    try:
        with open(path, 'rb') as file:
            found = file.read()
    except FileNotFoundError:
        found = _from_key_manager(app, ctx, name)
    for load in (x509.load_pem_x509_certificate, x509.load_der_x509_certificate):
        try:
            return load(found).public_bytes(serialization.Encoding.PEM).decode()
        except ValueError:
            continue
    raise errors.BadRequest(f'Unable to retrieve certificate with ID: {name}: it is none.')


def _from_key_manager(app, ctx, name):
    problem = errors.BadRequest(f'Unable to retrieve certificate with ID: {name}')
    if app.clients is None:
        raise problem
    try:
        session = app.clients.session()
        root = session.get_endpoint(service_type='key-manager', interface='internal', skip_discovery=True)
        if not root:
            raise problem
        headers = {'X-Auth-Token': ctx.auth_token} if ctx.auth_token else {}
        answer = session.get(f'{root.rstrip("/").removesuffix("/v1")}/v1/secrets/{name}/payload', authenticated=not headers,
                             headers={**headers, 'Accept': 'application/octet-stream, text/plain'}, raise_exc=False, timeout=30)
    except keystone.ClientException:
        raise errors.Unavailable('The key manager, which has the certificate of this image, cannot be reached.') from None
    if answer.status_code != 200:
        raise problem
    return answer.content


class Verifier:
    """Is fed an image's data and says whether the signature is the data's.

    :param properties: the image's. :param pem: the certificate, as :func:`certificate` gives it.
    """

    def __init__(self, properties, pem):
        method, self._key_type = properties[METHOD], properties[KEY_TYPE]
        if method not in METHODS:
            raise errors.BadRequest(f"Invalid value for {METHOD}: it must be one of {', '.join(METHODS)}.")
        if self._key_type not in KEY_TYPES:
            raise errors.BadRequest(f"Invalid value for {KEY_TYPE}: it must be one of {', '.join(KEY_TYPES)}.")
        try:
            self._signature = base64.b64decode(properties[SIGNATURE], validate=True)
        except (binascii.Error, ValueError):
            raise errors.BadRequest(f'Invalid value for {SIGNATURE}: it must be base64.') from None
        found = x509.load_pem_x509_certificate(pem.encode())
        if not found.not_valid_before_utc.replace(tzinfo=None) <= db.utcnow() <= found.not_valid_after_utc.replace(tzinfo=None):
            raise errors.BadRequest('The certificate of the image is not valid now.')
        self._key = found.public_key()
        self._method = METHODS[method]()
        kinds = {'RSA-PSS': rsa.RSAPublicKey, 'DSA': dsa.DSAPublicKey}
        fits = isinstance(self._key, kinds.get(self._key_type, ec.EllipticCurvePublicKey))
        if not fits or (self._key_type in CURVES and self._key.curve.name != CURVES[self._key_type]):
            raise errors.BadRequest(f'Invalid value for {KEY_TYPE}: the key of the certificate is of another type.')
        self._hash = hashlib.new(method.replace('-', '').lower())

    def feed(self, data):
        """The next piece of the data."""
        self._hash.update(data)

    def verify(self):
        """At the end of the data: ``BadRequest`` where the signature is not the data's."""
        digest, prehashed = self._hash.digest(), utils.Prehashed(self._method)
        try:
            if self._key_type == 'RSA-PSS':
                pss = padding.PSS(mgf=padding.MGF1(self._method), salt_length=padding.PSS.AUTO)
                self._key.verify(self._signature, digest, pss, prehashed)
            elif self._key_type == 'DSA':
                self._key.verify(self._signature, digest, prehashed)
            else:
                self._key.verify(self._signature, digest, ec.ECDSA(prehashed))
        except exceptions.InvalidSignature:
            raise errors.BadRequest('Signature verification for the image failed.') from None


class Checked:
    """An inspector (:class:`kodiak.image.formats.Inspector`) that checks a signature too."""

    def __init__(self, inspector, checker):
        self.strict = inspector.strict
        self._inspector, self._checker = inspector, checker

    def feed(self, data):
        """The next piece of the data."""
        self._inspector.feed(data)
        self._checker.feed(data)

    def finish(self):
        """What the inspector says; ``BadRequest`` where it, or the signature, is against the data."""
        found = self._inspector.finish()
        self._checker.verify()
        return found
