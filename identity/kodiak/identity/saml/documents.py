"""XML as SAML needs it: read without what makes XML dangerous; signed; verified so that only what was signed is seen."""
import base64
import logging
import secrets

import signxml
from cryptography.hazmat.primitives import serialization
from lxml import etree

from kodiak.common import errors

LOG = logging.getLogger(__name__)

SAML = 'urn:oasis:names:tc:SAML:2.0:assertion'
SAMLP = 'urn:oasis:names:tc:SAML:2.0:protocol'
MD = 'urn:oasis:names:tc:SAML:2.0:metadata'
DS = 'http://www.w3.org/2000/09/xmldsig#'
SOAP = 'http://schemas.xmlsoap.org/soap/envelope/'
PAOS = 'urn:liberty:paos:2003-08'
ECP = 'urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp'
ACTOR = 'http://schemas.xmlsoap.org/soap/actor/next'

REDIRECT = 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect'
POST = 'urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST'
REVERSE_SOAP = 'urn:oasis:names:tc:SAML:2.0:bindings:PAOS'
URI = 'urn:oasis:names:tc:SAML:2.0:bindings:URI'

SUCCESS = 'urn:oasis:names:tc:SAML:2.0:status:Success'
BEARER = 'urn:oasis:names:tc:SAML:2.0:cm:bearer'
TRANSIENT = 'urn:oasis:names:tc:SAML:2.0:nameid-format:transient'
UNSPECIFIED = 'urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified'
ENTITY = 'urn:oasis:names:tc:SAML:2.0:nameid-format:entity'
PASSWORD = 'urn:oasis:names:tc:SAML:2.0:ac:classes:Password'

RSA_SHA256 = signxml.SignatureMethod.RSA_SHA256
EXCLUSIVE = signxml.algorithms.CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0

_STRONG = ('SHA256', 'SHA384', 'SHA512')
METHODS = frozenset(method for method in signxml.SignatureMethod
                    if method.name.startswith(('RSA_', 'ECDSA_')) and method.name.endswith(_STRONG))
DIGESTS = frozenset(digest for digest in signxml.DigestAlgorithm if digest.name in _STRONG)
WEAK_METHODS = METHODS | {signxml.SignatureMethod.RSA_SHA1}
WEAK_DIGESTS = DIGESTS | {signxml.DigestAlgorithm.SHA1}


def name(namespace, tag):
    """A tag as lxml writes it."""
    return f'{{{namespace}}}{tag}'


def new_id():
    """The ID of a message or an assertion; as XML asks for, it doesn't begin with a digit."""
    return '_' + secrets.token_hex(16)


def parse(data, what='document'):
    """The root of an XML document of strangers (bytes). Comments and processing instructions are dropped.

    :raises BadRequest: it is no XML, or it has a document type, which is where entities would come from.
    """
    if b'<!DOCTYPE' in data:
        raise errors.BadRequest(f'The SAML {what} has a document type declaration, which is not allowed.')
    # Taken as UTF-8 whatever it says of itself: in another encoding a declaration could hide from the look above.
    parser = etree.XMLParser(encoding='utf-8', resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
                             huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise errors.BadRequest(f'The SAML {what} is no well-formed XML: {str(error)[:200]}') from None
    info = root.getroottree().docinfo
    if info.internalDTD is not None or info.externalDTD is not None or next(root.iter(etree.Entity), None) is not None:
        raise errors.BadRequest(f'The SAML {what} has a document type declaration, which is not allowed.')
    return root


def alone(element):
    """The element as the root of a document of its own, with the namespaces that hold for it."""
    return parse(etree.tostring(element, with_tail=False))


def write(root):
    """A document as bytes."""
    return etree.tostring(root, encoding='UTF-8', xml_declaration=True)


def text(element):
    """All text within an element, without blanks around it; '' of None."""
    return '' if element is None else ''.join(element.itertext()).strip()


def element(namespace, tag, prefixes=None, content=None, **attributes):
    """A new element; ``prefixes`` are those that it declares."""
    made = etree.Element(name(namespace, tag), attributes, nsmap=prefixes or _PREFIXES[namespace])
    made.text = content
    return made


def add(parent, namespace, tag, content=None, **attributes):
    """Append a child to an element; returns the child."""
    made = etree.SubElement(parent, name(namespace, tag), attributes, nsmap=_PREFIXES[namespace])
    made.text = content
    return made


_PREFIXES = {SAML: {'saml': SAML}, SAMLP: {'samlp': SAMLP, 'saml': SAML}, MD: {'md': MD, 'ds': DS}, DS: {'ds': DS},
             SOAP: {'S': SOAP}, PAOS: {'paos': PAOS, 'S': SOAP}, ECP: {'ecp': ECP, 'S': SOAP}}


def sign(root, signing):
    """A copy of ``root`` with a signature behind its issuer.

    :param signing: ``(RSA key, its x509.Certificate)``.
    """
    issuer = root.find(name(SAML, 'Issuer'))
    issuer.addnext(element(DS, 'Signature', Id='placeholder'))
    signer = signxml.XMLSigner(signature_algorithm=RSA_SHA256, c14n_algorithm=EXCLUSIVE)
    return signer.sign(root, key=signing[0], cert=[signing[1]], reference_uri=root.get('ID'), id_attribute='ID')


def verified(root, path, certificates, weak=False):
    """What was signed of an element: a document of its own, made of the very bytes that the signature covers.

    The answer doesn't come out of ``root``, so whatever else somebody wrapped around or into that isn't seen.

    :param path: where the element is: '' for the root, or the tag of a child. :param certificates: those of the signer; any of
        them will do. They are trusted because the metadata names them, whatever dates they bear.
    :param weak: take SHA-1 too. :raises Unauthorized: it isn't signed by any of them.
    """
    found = root if not path else root.find(path)
    location = f'./{path}/' if path else './'
    if found is None or len(found.findall(name(DS, 'Signature'))) != 1:
        raise errors.Unauthorized('The answer of the identity provider is not signed.')
    for certificate in certificates:
        config = signxml.SignatureConfiguration(
            location=location, expect_references=1, ignore_ambiguous_key_info=True,
            signature_methods=WEAK_METHODS if weak else METHODS, digest_algorithms=WEAK_DIGESTS if weak else DIGESTS,
            verification_time=certificate.not_valid_before_utc)
        try:
            signed = signxml.XMLVerifier().verify(root, x509_cert=certificate, id_attribute='ID', expect_config=config).signed_xml
        except Exception as error:
            # Whatever a hostile document does to the library, it isn't a good signature.
            LOG.info('A signature of SAML is not good: %s: %s', type(error).__name__, error)
            continue
        # The signature may be good and cover something else.
        if signed is not None and signed.tag == found.tag and signed.get('ID') and signed.get('ID') == found.get('ID'):
            return signed
    raise errors.Unauthorized('The answer of the identity provider is not signed with a key that is known of it.')


def certificate_text(certificate):
    """An ``x509.Certificate`` as it stands in documents: base64 of DER."""
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
