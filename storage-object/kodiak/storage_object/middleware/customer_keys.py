"""Bodies that are encrypted with keys of the clients' own, which are kept nowhere (S3's SSE-C).

Each body has a key and a first counter of its own (AES-256-CTR, so that a range can be read alone), sealed under the client's key
(AES-256-GCM); of that key itself a salted check is kept. A large object's manifest is not encrypted, its segments are: it has the
check alone, as what begins an upload has. The S3 API gives the key: of a write in the header ``X-Backend-Customer-Key``, which goes
where the body goes; of reads in ``kodiak.customer_key``, which segments' requests inherit. What is moved as it is stored
(``X-Backend-As-Stored``) stays as it is. Etags are those of what is stored.
"""
import base64
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..proxy.http import Fault, Filter, error, is_true
from .copying import OPENED
from .encryption import SUM, Decrypted, Encrypted

WRITE, AS_STORED, STATE = 'X-Backend-Customer-Key', 'X-Backend-As-Stored', OPENED
READ = 'kodiak.customer_key'
MARK, SEALED_SUM = 'X-Object-Sysmeta-Customer-Key', 'X-Object-Sysmeta-Customer-Checksum'
SALT, NONCE = 16, 12


class Box:
    """A client's key, as it is used with a salt."""

    def __init__(self, key, salt):
        self.salt = salt
        self.check = hmac.new(key, salt + b'check', 'sha256').hexdigest()
        self.cipher = AESGCM(hmac.new(key, salt + b'seal', 'sha256').digest())

    def seal(self, data):
        """What only the same key opens, for a header."""
        nonce = os.urandom(NONCE)
        return base64.b64encode(nonce + self.cipher.encrypt(nonce, data, None)).decode()

    def open(self, text):
        """What was sealed; 500 where it has been changed since."""
        data = base64.b64decode(text)
        try:
            return self.cipher.decrypt(data[:NONCE], data[NONCE:], None)
        except (InvalidTag, ValueError):
            raise Fault(500, 'What is stored does not open with its key') from None

    def mark(self, body=b''):
        """The header that stands with what is encrypted: salt, check, and the body's key (if it has one)."""
        return ':'.join((base64.b64encode(self.salt).decode(), self.check, self.seal(body) if body else ''))


def opened(mark, key):
    """The :class:`Box` of a header that :meth:`Box.mark` made, None where the key is another."""
    salt, check, _ = mark.split(':')
    box = Box(key, base64.b64decode(salt))
    return box if hmac.compare_digest(box.check, check) else None


def state_of(headers, key):
    """What a key is to an object of such headers: ``none`` (it needs none), ``missing``, ``wrong``, ``good``."""
    if STATE in headers:
        return headers[STATE]
    if MARK not in headers:
        return 'none'
    return 'missing' if key is None else 'good' if opened(headers[MARK], key) else 'wrong'


class CustomerKeys(Filter):
    """See the module."""

    def handle(self, request):
        """Encrypt what comes with a key, decrypt what is asked for with it, refuse who has none."""
        if request.method == 'PUT' and 'HTTP_X_BACKEND_CUSTOMER_KEY' in request.environ:
            return self._put(request, base64.b64decode(request.headers.pop(WRITE)))
        if request.method in ('GET', 'HEAD'):
            return self._get(request)
        return self.next(request)

    def _put(self, request, key):
        headers, box = request.headers, Box(key, os.urandom(SALT))

        def sealed(sum_):
            return {SEALED_SUM: box.seal(sum_.encode('latin-1'))} if sum_ else {}
        headers.update(sealed(headers.pop(SUM)))
        if request.content_length == 0 or is_true(headers.get('X-Static-Large-Object', '')):
            headers[MARK] = box.mark()
            return self.next(request)
        secret, start = os.urandom(32), os.urandom(16)
        headers[MARK] = box.mark(start + secret)
        wanted = (headers.pop('Etag') or '').strip('"').lower()
        request.environ['wsgi.input'] = Proved(Encrypted(request.input, secret, start), request.content_length, wanted)
        more = request.environ.get('kodiak.footers')
        if more is not None:
            def footers():
                told = more()
                return {**sealed(told.pop(SUM, None)), **told}
            request.environ['kodiak.footers'] = footers
        return self.next(request)

    def _get(self, request):
        if request.environ.pop('HTTP_X_BACKEND_AS_STORED', None):
            return self.next(request)
        key = request.environ.get(READ)
        if key is not None and ',' in request.headers.get('Range', ''):
            request.headers.pop('Range')        # (several ranges at once: who asks gets the whole)
        answer = self.next(request)
        if MARK not in answer.headers:
            return answer
        raw = 'multipart-manifest' in request.query     # (a list of segments: nothing of what is in them)
        state = state_of(answer.headers, key)
        if state == 'good':
            return self._opened(answer, key)
        if request.method == 'GET' and answer.status in (200, 206) and not raw:
            answer.close()
            answer = error(400, 'The object is encrypted with a key of its client')
            answer.headers[STATE] = state
        return answer

    @staticmethod
    def _opened(answer, key):
        headers = answer.headers
        mark = headers.pop(MARK)
        box, sealed = opened(mark, key), mark.split(':')[2]
        headers[STATE] = 'good'
        if SEALED_SUM in headers:
            headers[SUM] = box.open(headers.pop(SEALED_SUM)).decode('latin-1')
        if sealed and answer.status in (200, 206):
            secret, first = box.open(sealed), 0
            if answer.status == 206:
                first = int(headers['Content-Range'].split(' ', 1)[1].partition('-')[0])
            answer.body = b'' if answer.body == b'' else Decrypted(
                [answer.body] if isinstance(answer.body, bytes) else answer.body, secret[16:], secret[:16], first)
        return answer


class Proved:
    """An encrypted body, of which it is known before its last bytes whether it is what its client told (422).

    :param wanted: the MD5 of what was encrypted, hexadecimal; '' for none.
    """

    def __init__(self, body, length, wanted):
        self.body, self.left, self.wanted = body, length, wanted

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.body.read(size)
        if self.wanted and self.left is not None:
            self.left -= len(data)
            if self.left <= 0 and self.body.md5.hexdigest() != self.wanted:
                raise Fault(422)
        return data
