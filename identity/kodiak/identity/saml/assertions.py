"""Assertions that we make of our own users, for clouds that take them (Keystone to Keystone)."""
import secrets

from . import asking, documents
from .documents import ECP, SAML, SAMLP

#: Seconds that an assertion is good: long enough to bring it to the other cloud.
LIFE = 300


def response(entity_id, recipient, subject, attributes, signing):
    """A Response (element) with a signed assertion.

    :param recipient: the URL where the other cloud takes it. :param subject: name of the user. :param attributes: name to list of
        texts. :param signing: ``(private key, certificate)`` of ours.
    """
    now, end = asking.now_text(), asking.now_text(LIFE)
    root = documents.element(SAMLP, 'Response', ID=documents.new_id(), Version='2.0', IssueInstant=now, Destination=recipient)
    documents.add(root, SAML, 'Issuer', entity_id, Format=documents.ENTITY)
    documents.add(documents.add(root, SAMLP, 'Status'), SAMLP, 'StatusCode', Value=documents.SUCCESS)
    assertion = documents.element(SAML, 'Assertion', ID=documents.new_id(), Version='2.0', IssueInstant=now)
    documents.add(assertion, SAML, 'Issuer', entity_id, Format=documents.ENTITY)
    held = documents.add(assertion, SAML, 'Subject')
    documents.add(held, SAML, 'NameID', subject)
    confirmation = documents.add(held, SAML, 'SubjectConfirmation', Method=documents.BEARER)
    documents.add(confirmation, SAML, 'SubjectConfirmationData', NotOnOrAfter=end, Recipient=recipient)
    # No audience: how the other cloud calls itself isn't known here, its URL is.
    documents.add(assertion, SAML, 'Conditions', NotBefore=now, NotOnOrAfter=end)
    statement = documents.add(assertion, SAML, 'AuthnStatement', AuthnInstant=now, SessionIndex=secrets.token_hex(16))
    context = documents.add(statement, SAML, 'AuthnContext')
    documents.add(context, SAML, 'AuthnContextClassRef', documents.PASSWORD)
    documents.add(context, SAML, 'AuthenticatingAuthority', entity_id)
    said = documents.add(assertion, SAML, 'AttributeStatement')
    for key, values in attributes.items():
        attribute = documents.add(said, SAML, 'Attribute', Name=key)
        for value in values:
            documents.add(attribute, SAML, 'AttributeValue', value)
    root.append(documents.sign(assertion, signing))
    return root


def enveloped(made, relay_state_prefix):
    """A Response as an enhanced client brings it: a SOAP envelope (element)."""
    root, head, body = asking.envelope()
    asking.header(head, ECP, 'RelayState', relay_state_prefix + secrets.token_hex(16))
    body.append(made)
    return root
