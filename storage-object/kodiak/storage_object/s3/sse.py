"""What requests say of encryption: with keys of the store's own (SSE-S3), or with a client's own key (SSE-C)."""
import base64
import binascii
import hashlib

from ..middleware.customer_keys import MARK, READ, STATE, WRITE, state_of
from . import checksums
from .errors import S3Error
from .xml import parse_xml

HEADER = 'X-Amz-Server-Side-Encryption'
KMS = (HEADER + '-Aws-Kms-Key-Id', HEADER + '-Context')
CUSTOMER = HEADER + '-Customer-'
SOURCE = 'X-Amz-Copy-Source-Server-Side-Encryption-Customer-'
MISMATCH = 'The provided encryption parameters did not match the ones used originally.'
STATES = {'missing': 'The object was stored using a form of Server Side Encryption. The correct parameters must be provided to '
                     'retrieve the object.', 'wrong': MISMATCH}


def _invalid(message, name=None):
    return S3Error('InvalidArgument', message, **({'ArgumentName': name.lower()} if name else {}))


def customer_key(api, headers, prefix=CUSTOMER):
    """The client's key of a request's headers, 32 bytes; None where it says nothing of one. Raises."""
    algorithm, text, digest = (headers.get(prefix + name) for name in ('Algorithm', 'Key', 'Key-Md5'))
    if algorithm is None and text is None and digest is None:
        return None
    said = 'Requests specifying Server Side Encryption with Customer provided keys must provide '
    if not algorithm:
        raise _invalid(said + 'a valid encryption algorithm.', prefix + 'Algorithm')
    if algorithm != 'AES256':
        raise S3Error('InvalidEncryptionAlgorithmError', ArgumentName=(prefix + 'Algorithm').lower(), ArgumentValue=algorithm)
    if not text:
        raise _invalid(said + 'an appropriate secret key.', prefix + 'Key')
    if not digest:
        raise _invalid(said + 'the client calculated MD5 of the secret key.', prefix + 'Key-Md5')
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b''
    if len(key) != 32:
        raise _invalid('The secret key was invalid for the specified algorithm.', prefix + 'Key')
    if _digest(key) != digest.strip():
        raise _invalid('The calculated MD5 hash of the key did not match the hash that was provided.', prefix + 'Key-Md5')
    if not api.customer_keys:
        raise S3Error('NotImplemented', 'Server side encryption with customer provided keys is not enabled')
    return key


def _digest(key):
    return base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()


def of_write(api, call):
    """Look at what a write says; it keeps the client's key, if there is one, in ``call.customer_key``. Raises."""
    headers = call.request.headers
    call.customer_key = customer_key(api, headers)
    asked = headers.get(HEADER)
    if call.customer_key is not None and asked is not None:
        raise _invalid('Server Side Encryption with Customer provided key is incompatible with the encryption method specified',
                       HEADER)
    if asked not in (None, 'AES256', 'aws:kms', 'aws:kms:dsse'):
        raise _invalid('The encryption method specified is not supported', HEADER)
    if asked in (None, 'AES256') and any(headers.get(name) for name in KMS):
        raise _invalid('x-amz-server-side-encryption-aws-kms-key-id is for the method aws:kms', KMS[0])
    if asked is not None and (asked != 'AES256' or not api.encrypted):
        raise S3Error('NotImplemented', 'Server side encryption is not enabled' if asked == 'AES256' else
                      'There are no keys of a key manager')


def of_read(api, call):
    """The client's key of a request that reads, or finishes, for all that is asked on its behalf. Raises."""
    if call.request.method in ('GET', 'HEAD') and call.request.headers.get(HEADER) is not None:
        raise _invalid('x-amz-server-side-encryption header is not supported for this operation.', HEADER)
    call.customer_key = key = customer_key(api, call.request.headers)
    if key is not None:
        call.request.environ[READ] = key


def of_source(api, call):
    """The same of the source of a copy: its key."""
    return customer_key(api, call.request.headers, SOURCE)


def prove(headers, key):
    """Raise unless a key is what the object of such headers (of a HEAD or GET) needs: its own, or none where it has none."""
    state = state_of(headers, key)
    if state in STATES:
        raise S3Error('InvalidRequest', STATES[state])
    if state == 'none' and key is not None:
        raise S3Error('InvalidRequest', 'The encryption parameters are not applicable to this object.')


def refused(answer):
    """Raise if an answer is a refusal for want of the right key."""
    if not answer.ok and answer.headers.get(STATE) in STATES:
        answer.close()
        raise S3Error('InvalidRequest', STATES[answer.headers[STATE]])


def of_part(api, call, upload):
    """The same of a part: its key must be that of the upload. ``upload``: the headers of what began it."""
    of_write(api, call)
    state = state_of(upload, call.customer_key)
    if state == 'missing':
        raise S3Error('InvalidRequest', 'The multipart upload initiate requested encryption. Subsequent part requests must include '
                                        'the appropriate encryption parameters.')
    if state == 'wrong':
        raise S3Error('InvalidRequest', MISMATCH)
    if state == 'none' and call.customer_key is not None:
        raise S3Error('InvalidRequest', 'The multipart upload initiate did not request encryption with a key. Please resend the '
                                        'request without it.')


def of_whole(api, call, upload):
    """The headers of the Swift API for the manifest of an upload whose first HEAD had the headers ``upload``. Raises."""
    state = state_of(upload, call.customer_key)
    if state == 'missing' and checksums.UPLOAD not in upload:
        return {MARK: upload[MARK]}
    prove(upload, call.customer_key)
    return written(call)


def written(call):
    """The header of the Swift API that has a body encrypted with the call's key."""
    return {} if call.customer_key is None else {WRITE: base64.b64encode(call.customer_key).decode()}


def shown(api, call):
    """S3's headers of an answer."""
    if call.customer_key is not None:
        return {CUSTOMER + 'Algorithm': 'AES256', CUSTOMER + 'Key-Md5': _digest(call.customer_key)}
    return {HEADER: 'AES256'} if api.encrypted else {}


def of_bucket(data):
    """The method that a ``ServerSideEncryptionConfiguration`` has for what says nothing of any: ``AES256``."""
    rules = parse_xml(data, 'ServerSideEncryptionConfiguration').findall('Rule')
    if len(rules) != 1:
        raise S3Error('MalformedXML')
    chosen = rules[0].find('ApplyServerSideEncryptionByDefault')
    method = None if chosen is None else chosen.findtext('SSEAlgorithm')
    if method in ('aws:kms', 'aws:kms:dsse'):
        raise S3Error('NotImplemented', 'There are no keys of a key manager')
    if method != 'AES256' or chosen.find('KMSMasterKeyID') is not None:
        raise S3Error('MalformedXML')
    return method
