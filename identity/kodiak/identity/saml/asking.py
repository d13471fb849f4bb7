"""Asking an identity provider who somebody is: AuthnRequest, for a browser (redirect) and for a client (ECP)."""
import base64
import datetime
import urllib.parse
import zlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from . import documents
from .documents import ECP, PAOS, SAML, SAMLP, SOAP, name


def _request(entity_id, consumer_url, binding, destination):
    root = documents.element(
        SAMLP, 'AuthnRequest', ID=documents.new_id(), Version='2.0', IssueInstant=now_text(), ProtocolBinding=binding,
        AssertionConsumerServiceURL=consumer_url)
    if destination:
        root.set('Destination', destination)
    documents.add(root, SAML, 'Issuer', entity_id)
    documents.add(root, SAMLP, 'NameIDPolicy', AllowCreate='true')
    return root


def now_text(later=0):
    """The present, or ``later`` seconds from it, as SAML writes it."""
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later)
    return when.strftime('%Y-%m-%dT%H:%M:%S.%f')[:-3] + 'Z'


def redirect(entity_id, consumer_url, destination, signing):
    """``(URL to which a browser is sent, ID of the request)``.

    :param signing: ``(private key, certificate)`` of ours.
    """
    root = _request(entity_id, consumer_url, documents.POST, destination)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(documents.write(root)) + packer.flush()
    # The signature covers the query string as it is sent, in this order.
    query = urllib.parse.urlencode({'SAMLRequest': base64.b64encode(packed).decode(), 'SigAlg': documents.RSA_SHA256.value})
    signature = signing[0].sign(query.encode(), padding.PKCS1v15(), hashes.SHA256())
    query += '&' + urllib.parse.urlencode({'Signature': base64.b64encode(signature).decode()})
    return destination + ('&' if '?' in destination else '?') + query, root.get('ID')


def envelope():
    """``(SOAP envelope, its header, its body)``."""
    root = documents.element(SOAP, 'Envelope')
    return root, documents.add(root, SOAP, 'Header'), documents.add(root, SOAP, 'Body')


def header(parent, namespace, tag, content=None, **attributes):
    """Add a SOAP header block that its reader must understand."""
    made = documents.add(parent, namespace, tag, content, **attributes)
    made.set(name(SOAP, 'mustUnderstand'), '1')
    made.set(name(SOAP, 'actor'), documents.ACTOR)
    return made


def for_client(entity_id, consumer_url, signing, state_of):
    """The SOAP envelope (bytes) that an enhanced client takes to its identity provider.

    :param signing: as above, or None: the question needs no signature, which some providers don't read within an envelope.
    :param state_of: ``function(ID of the request) -> relay state``, which the client brings back.
    """
    request = _request(entity_id, consumer_url, documents.REVERSE_SOAP, None)
    state = state_of(request.get('ID'))
    root, head, body = envelope()
    header(head, PAOS, 'Request', responseConsumerURL=consumer_url, service=ECP)
    documents.add(header(head, ECP, 'Request', IsPassive='0'), SAML, 'Issuer', entity_id)
    header(head, ECP, 'RelayState', state)
    body.append(documents.sign(request, signing) if signing else request)
    return documents.write(root)

