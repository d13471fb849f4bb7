"""What an identity provider answers: from a Response to attributes that can be relied on, or a refusal."""
import base64
import binascii
import dataclasses
import datetime

from kodiak.common import errors

from . import documents, encryption, metadata
from .documents import SAML, SAMLP, SOAP, name

#: Seconds by which clocks may differ.
SKEW = 60
#: Seconds after its making that an assertion is good at most, whatever it says: replays are remembered for a day.
LONGEST = 12 * 3600
#: Conditions that an assertion may have; one that isn't understood makes it invalid.
CONDITIONS = {name(SAML, tag) for tag in ('AudienceRestriction', 'OneTimeUse', 'ProxyRestriction')}


@dataclasses.dataclass
class Asserted:
    """Who somebody is: ``issuer``, ``id`` of the assertion, ``name_id`` (or None where it is a passing one), ``attributes``
    (name to list of texts), ``session_end`` (seconds since the epoch that the provider's session ends at, or None)."""

    issuer: str
    id: str
    name_id: str | None
    attributes: dict
    session_end: float | None

    def for_mapping(self):
        """The attributes under the names by which mappings refer to them: their own, the friendly one, ``MELLON_`` before it."""
        found = {}
        for key, values in self.attributes.items():
            found[key] = found['MELLON_' + key] = values
        if self.name_id:
            found['REMOTE_USER'] = found['MELLON_NAME_ID'] = [self.name_id]
        found['Shib-Identity-Provider'] = found['MELLON_IDP'] = [self.issuer]
        return found


@dataclasses.dataclass(frozen=True)
class Expected:
    """What an answer must fit: ``description`` (of the identity provider), ``entity_id`` (ours), ``url`` (where it came in),
    ``request_id`` (of our question; None: nobody asked), ``audience`` (True: it must say that it is for us), ``weak``
    (SHA-1 is taken too), ``keys`` (private ones of ours, with which it may be encrypted)."""

    description: metadata.Description
    entity_id: str
    url: str
    request_id: str | None
    audience: bool = True
    weak: bool = False
    keys: tuple = ()


def decode(text):
    """The bytes of a ``SAMLResponse`` field."""
    try:
        return base64.b64decode(''.join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        raise errors.BadRequest('The field SAMLResponse is no base64.') from None


def unwrap(data):
    """``(Response, relay state or None)`` of a SOAP envelope (bytes)."""
    root = documents.parse(data, 'envelope')
    body = root.find(name(SOAP, 'Body'))
    if root.tag != name(SOAP, 'Envelope') or body is None or len(body) != 1 or body[0].tag != name(SAMLP, 'Response'):
        raise errors.BadRequest('The body is no SOAP envelope with a SAML Response in it.')
    state = root.find(f"{name(SOAP, 'Header')}/{name(documents.ECP, 'RelayState')}")
    return documents.alone(body[0]), documents.text(state) or None


def refuse(reason):
    """The 401 of an answer that is not good enough."""
    return errors.Unauthorized(f'The answer of the identity provider is not accepted: {reason}.')


def read(root, expected):
    """The :class:`Asserted` of a Response (its root element).

    :raises Unauthorized: it isn't signed, not for us, not by whom was asked, too old, too early, or it isn't a yes.
    """
    if root.tag != name(SAMLP, 'Response') or root.get('Version') != '2.0':
        raise errors.BadRequest('This is no SAML 2.0 Response.')
    status = root.find(f"{name(SAMLP, 'Status')}/{name(SAMLP, 'StatusCode')}")
    if status is None or status.get('Value') != documents.SUCCESS:
        raise errors.Unauthorized('The identity provider has not confirmed who you are.')
    now = datetime.datetime.now(datetime.UTC)
    assertion = _signed_assertion(root, expected, now)
    return _assertion(assertion, expected, now)


def _signed_assertion(root, expected, now):
    path = name(SAML, 'Assertion')
    certificates = expected.description.certificates
    if root.find(name(documents.DS, 'Signature')) is not None:
        root = documents.verified(root, '', certificates, expected.weak)
        found = _only(root)
        if found.tag != path:
            found = encryption.decrypt(found, expected.keys, verified=True)
    elif _only(root).tag != path:
        decrypted = encryption.decrypt(_only(root), expected.keys, verified=False)
        found = documents.verified(decrypted, '', certificates, expected.weak)
    else:
        found = documents.verified(root, path, certificates, expected.weak)
    # What stands around a signed assertion may be anybody's words: it can only make an answer worse.
    if root.get('Destination', expected.url) != expected.url:
        raise refuse('it was sent elsewhere')
    if root.get('InResponseTo') != expected.request_id:
        raise refuse('it answers another question than the one asked here')
    issuer = root.find(name(SAML, 'Issuer'))
    if issuer is not None and documents.text(issuer) != expected.description.entity_id:
        raise refuse('it comes from another identity provider')
    _fresh(root, now)
    return found


def _only(root):
    found = list(root.iter(name(SAML, 'Assertion'), name(SAML, 'EncryptedAssertion')))
    if len(found) != 1 or found[0].getparent() is not root:
        raise refuse(f'it has {len(found)} assertions, not one')
    return found[0]


def _fresh(element, now):
    issued = metadata.moment(element.get('IssueInstant'))
    if issued > now + datetime.timedelta(seconds=SKEW):
        raise refuse('it comes from the future: compare the clocks')
    if issued < now - datetime.timedelta(seconds=LONGEST):
        raise refuse('it is too old')


def _within(element, now, what):
    start, end = element.get('NotBefore'), element.get('NotOnOrAfter')
    if start and metadata.moment(start) > now + datetime.timedelta(seconds=SKEW):
        raise refuse(f'its {what} is not valid yet: compare the clocks')
    if end and metadata.moment(end) <= now - datetime.timedelta(seconds=SKEW):
        raise refuse(f'its {what} is not valid any more')


def _assertion(assertion, expected, now):
    if assertion.get('Version') != '2.0' or not assertion.get('ID'):
        raise refuse('its assertion is none of SAML 2.0')
    issuer = documents.text(assertion.find(name(SAML, 'Issuer')))
    if issuer != expected.description.entity_id:
        raise refuse('its assertion was made by another identity provider')
    _fresh(assertion, now)
    subject = assertion.find(name(SAML, 'Subject'))
    if subject is None or not any(_confirms(each, expected, now) for each in subject.findall(name(SAML, 'SubjectConfirmation'))):
        raise refuse('its assertion is not for who brings it here now')
    _conditions(assertion.find(name(SAML, 'Conditions')), expected, now)
    statements = assertion.findall(name(SAML, 'AuthnStatement'))
    if not statements:
        raise refuse('its assertion does not say that anybody logged in')
    ends = [metadata.moment(each.get('SessionNotOnOrAfter')) for each in statements if each.get('SessionNotOnOrAfter')]
    if ends and min(ends) <= now:
        raise refuse('the session at the identity provider has ended')
    name_id = subject.find(name(SAML, 'NameID'))
    lasting = name_id is not None and name_id.get('Format') != documents.TRANSIENT
    return Asserted(issuer, assertion.get('ID'), (documents.text(name_id) or None) if lasting else None, _attributes(assertion),
                    min(ends).timestamp() if ends else None)


def _confirms(confirmation, expected, now):
    data = confirmation.find(name(SAML, 'SubjectConfirmationData'))
    if confirmation.get('Method') != documents.BEARER or data is None:
        return False
    end = data.get('NotOnOrAfter')
    return (data.get('Recipient') == expected.url and bool(end) and data.get('InResponseTo') == expected.request_id
            and not data.get('NotBefore') and metadata.moment(end) > now - datetime.timedelta(seconds=SKEW))


def _conditions(conditions, expected, now):
    audiences = []
    if conditions is not None:
        _within(conditions, now, 'assertion')
        for condition in conditions:
            if condition.tag not in CONDITIONS:
                raise refuse('its assertion has a condition that is not known here')
        audiences = conditions.findall(name(SAML, 'AudienceRestriction'))
    if not audiences and expected.audience:
        raise refuse('its assertion does not say for whom it is')
    for restriction in audiences:
        if expected.entity_id not in [documents.text(each) for each in restriction.findall(name(SAML, 'Audience'))]:
            raise refuse('its assertion is for somebody else')


def _attributes(assertion):
    found = {}
    for attribute in assertion.iterfind(f"{name(SAML, 'AttributeStatement')}/{name(SAML, 'Attribute')}"):
        values = [value for value in map(documents.text, attribute.findall(name(SAML, 'AttributeValue'))) if value]
        for key in {attribute.get('Name'), attribute.get('FriendlyName')} - {None, ''}:
            found.setdefault(key, []).extend(values)
    return {key: values for key, values in found.items() if values}
