"""Metadata: what an identity provider says of itself, and what we say of ourselves."""
import base64
import binascii
import dataclasses
import datetime

from cryptography import x509

from kodiak.common import errors

from . import documents, encryption
from .documents import DS, MD, SAMLP, name


@dataclasses.dataclass
class Description:
    """What is needed of an identity provider: ``entity_id``, ``certificates`` that it signs with, ``redirect`` (URL to which a
    browser is sent, or None), ``wants_signed`` (True: it takes signed questions only)."""

    entity_id: str
    certificates: list
    redirect: str | None
    wants_signed: bool


def moment(value):
    """The UTC datetime of an xs:dateTime; ``BadRequest`` if it is none."""
    try:
        found = datetime.datetime.fromisoformat(value)
        return found.replace(tzinfo=datetime.UTC) if found.tzinfo is None else found.astimezone(datetime.UTC)
    except (ValueError, TypeError, OverflowError):
        raise errors.BadRequest(f'{str(value)[:40]!r} is no time as SAML writes it.') from None


def read(data, entity_id=None):
    """The :class:`Description` in a metadata document (bytes).

    :param entity_id: which one is meant where the document describes several.
    :raises BadRequest: it doesn't describe an identity provider as we need it.
    """
    root = documents.parse(data, 'metadata')
    entities = [root] if root.tag == name(MD, 'EntityDescriptor') else list(root.iter(name(MD, 'EntityDescriptor')))
    found = [entity for entity in entities if entity.find(name(MD, 'IDPSSODescriptor')) is not None
             and entity_id in (None, entity.get('entityID'))]
    if len(found) != 1:
        raise errors.BadRequest(f'It describes {len(found)} identity providers' + (f' called {entity_id}' if entity_id else '') +
                                ', not one.')
    for holder in (root, found[0]):
        if holder.get('validUntil') and moment(holder.get('validUntil')) < datetime.datetime.now(datetime.UTC):
            raise errors.BadRequest(f"It was valid until {holder.get('validUntil')}.")
    described = found[0].find(name(MD, 'IDPSSODescriptor'))
    certificates = _certificates(described)
    if not certificates:
        raise errors.BadRequest('It names no certificate that the identity provider signs with.')
    if not found[0].get('entityID'):
        raise errors.BadRequest('It does not say what the identity provider calls itself (entityID).')
    redirect = next((service.get('Location') for service in described.findall(name(MD, 'SingleSignOnService'))
                     if service.get('Binding') == documents.REDIRECT), None)
    if redirect and not redirect.startswith(('https://', 'http://')):
        raise errors.BadRequest('The URL to which it sends browsers is none of HTTP.')
    return Description(found[0].get('entityID'), certificates, redirect,
                       described.get('WantAuthnRequestsSigned') in ('true', '1'))


def _certificates(described):
    found = []
    for key in described.findall(name(MD, 'KeyDescriptor')):
        if key.get('use', 'signing') != 'signing':
            continue
        for each in key.iter(name(DS, 'X509Certificate')):
            try:
                found.append(x509.load_der_x509_certificate(base64.b64decode(documents.text(each))))
            except (ValueError, binascii.Error):
                raise errors.BadRequest('It has a certificate that cannot be read.') from None
    return found


def write(entity_id, certificates, sso_url, consumers):
    """Our own metadata (bytes): of the identity provider for other clouds, and of the service provider.

    :param certificates: ours. :param consumers: ``[(binding, URL)]`` where assertions are taken.
    """
    root = documents.element(MD, 'EntityDescriptor', entityID=entity_id)
    ours = documents.add(root, MD, 'IDPSSODescriptor', protocolSupportEnumeration=SAMLP)
    _keys(ours, certificates, 'signing')
    documents.add(ours, MD, 'NameIDFormat', documents.UNSPECIFIED)
    documents.add(ours, MD, 'SingleSignOnService', Binding=documents.URI, Location=sso_url)
    if consumers:
        theirs = documents.add(root, MD, 'SPSSODescriptor', protocolSupportEnumeration=SAMLP, WantAssertionsSigned='true')
        _keys(theirs, certificates, 'signing')
        # With the key that comes next: who reads this again only after a rotation has encrypted for one that is still there.
        _keys(theirs, certificates[-1:], 'encryption')
        for index, (binding, url) in enumerate(consumers):
            documents.add(theirs, MD, 'AssertionConsumerService', Binding=binding, Location=url, index=str(index))
    return documents.write(root)


def _keys(parent, certificates, use):
    for certificate in certificates:
        key = documents.add(parent, MD, 'KeyDescriptor', use=use)
        held = documents.add(documents.add(key, DS, 'KeyInfo'), DS, 'X509Data')
        documents.add(held, DS, 'X509Certificate', documents.certificate_text(certificate))
        if use == 'encryption':
            for algorithm in (*reversed(encryption.GCM), encryption.OAEP_SHA1):
                documents.add(key, MD, 'EncryptionMethod', Algorithm=algorithm)
