"""Encrypted assertions: the key with RSA-OAEP, the content with AES.

AES in GCM mode notices by itself what somebody has changed. CBC doesn't, and whoever may send us one changed text after the other
learns from our refusals what is in it; so it is taken only within a Response whose signature has been verified.
"""
import base64
import binascii

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.ciphers import Cipher, aead, algorithms, modes

from kodiak.common import errors

from . import documents
from .documents import DS, SAML, name

XENC = 'http://www.w3.org/2001/04/xmlenc#'
XENC11 = 'http://www.w3.org/2009/xmlenc11#'
GCM = {XENC11 + 'aes128-gcm': 16, XENC11 + 'aes192-gcm': 24, XENC11 + 'aes256-gcm': 32}
CBC = {XENC + 'aes128-cbc': 16, XENC + 'aes192-cbc': 24, XENC + 'aes256-cbc': 32}
OAEP_SHA1, OAEP = XENC + 'rsa-oaep-mgf1p', XENC11 + 'rsa-oaep'
DIGESTS = {None: hashes.SHA1, DS + 'sha1': hashes.SHA1, XENC + 'sha256': hashes.SHA256, XENC + 'sha512': hashes.SHA512}
MASKS = {None: hashes.SHA1, XENC11 + 'mgf1sha1': hashes.SHA1, XENC11 + 'mgf1sha256': hashes.SHA256,
         XENC11 + 'mgf1sha512': hashes.SHA512}
REFUSED = 'The answer of the identity provider is not accepted: its assertion cannot be decrypted.'


def decrypt(encrypted, keys, verified):
    """The assertion (a root) in an ``EncryptedAssertion``.

    :param keys: our private keys. :param verified: True if the element stands in what was signed.
    :raises Unauthorized: with the same words whatever is wrong with what is encrypted.
    """
    data = encrypted.find(name(XENC, 'EncryptedData'))
    method = _algorithm(data)
    if method not in GCM and not (verified and method in CBC):
        raise errors.Unauthorized(
            'The answer of the identity provider is not accepted: its assertion is encrypted neither with AES-GCM, nor with '
            'AES-CBC in a response that is signed as a whole.')
    # An encrypted key stands with the data, or beside it.
    for wrapped in encrypted.iter(name(XENC, 'EncryptedKey')):
        for key in keys:
            try:
                found = documents.parse(_content(data, method, _unwrap(wrapped, key)), 'assertion')
            except (ValueError, binascii.Error, exceptions.InvalidTag, errors.BadRequest):
                continue
            if found.tag == name(SAML, 'Assertion'):
                return found
    raise errors.Unauthorized(REFUSED)


def _algorithm(element):
    method = None if element is None else element.find(name(XENC, 'EncryptionMethod'))
    return None if method is None else method.get('Algorithm')


def _cipher(element):
    text = documents.text(element.find(f"{name(XENC, 'CipherData')}/{name(XENC, 'CipherValue')}"))
    return base64.b64decode(''.join(text.split()), validate=True)


def _unwrap(wrapped, key):
    method = _algorithm(wrapped)
    if method not in (OAEP_SHA1, OAEP):
        raise ValueError(method)
    parameters = wrapped.find(name(XENC, 'EncryptionMethod'))
    digest = parameters.find(name(DS, 'DigestMethod'))
    mask = parameters.find(name(XENC11, 'MGF')) if method == OAEP else None
    try:
        hashed = DIGESTS[None if digest is None else digest.get('Algorithm')]
        masked = MASKS[None if mask is None else mask.get('Algorithm')]
    except KeyError as error:
        raise ValueError(str(error)) from None
    return key.decrypt(_cipher(wrapped), asymmetric.OAEP(asymmetric.MGF1(masked()), hashed(), None))


def _content(data, method, key):
    if len(key) != (GCM.get(method) or CBC[method]):
        raise ValueError('the key has another length')
    sent = _cipher(data)
    if method in GCM:
        return aead.AESGCM(key).decrypt(sent[:12], sent[12:], None)
    reader = Cipher(algorithms.AES(key), modes.CBC(sent[:16])).decryptor()
    plain = reader.update(sent[16:]) + reader.finalize()
    # Only the last byte says how many there are to drop; the others are anything.
    if not plain or not 1 <= plain[-1] <= 16:
        raise ValueError('padding')
    return plain[:-plain[-1]]
