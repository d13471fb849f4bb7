"""Signatures of S3 requests: versions 4 and 2, in headers and in presigned URLs; and bodies that are signed chunk by chunk."""
import base64
import calendar
import hashlib
import hmac
import re
import time
import urllib.parse
from email.utils import parsedate

from kodiak.common.numbers import natural

from ..proxy.http import parse_date
from .checksums import Checksums, told_by, trailing
from .errors import S3Error
from .xml import iso

SKEW = 900
PAYLOADS = {'UNSIGNED-PAYLOAD', 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD',
            'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER'}
HASH = re.compile(r'^[0-9a-fA-F]{64}$')
CUT = 'The request body terminated unexpectedly'
SIZE, MAX_CHUNK = re.compile(r'^[0-9a-fA-F]{1,8}$'), 64 << 20
EMPTY = hashlib.sha256(b'').hexdigest()
SUBRESOURCES = sorted((
    'acl', 'cors', 'delete', 'lifecycle', 'location', 'logging', 'notification', 'partNumber', 'policy', 'requestPayment',
    'restore',
    'response-cache-control', 'response-content-disposition', 'response-content-encoding', 'response-content-language',
    'response-content-type', 'response-expires', 'tagging', 'torrent', 'uploadId', 'uploads', 'versionId', 'versioning', 'versions',
    'website'))


def _mac(key, text):
    return hmac.new(key, text.encode(), 'sha256').digest()


def day_key(secret, date, region, service):
    """The signing key of a day."""
    key = ('AWS4' + secret).encode()
    for word in (date, region, service, 'aws4_request'):
        key = _mac(key, word)
    return key


def _encode(text):
    return urllib.parse.quote(text, safe='-_.~')


class Signature:
    """What a request says of its signature. ``access``: the key's id; ``check(secret)`` raises where it is wrong."""

    def __init__(self, request, bucket=None, region=None):
        self.request = request
        # What stands before the path in what version 2 signs: the bucket that is in the host's name.
        self.prefix = f'/{bucket}' if bucket else ''
        self.wanted_region = region
        self.version = 4
        query, header = request.query, request.headers.get('Authorization') or ''
        self.presigned = False
        if header.startswith('AWS4-HMAC-SHA256'):
            fields = dict(part.strip().split('=', 1) for part in header[16:].split(',') if '=' in part)
            try:
                self._scope(fields['Credential'])
                self.signed, self.signature = fields['SignedHeaders'].split(';'), fields['Signature']
            except (KeyError, ValueError):
                raise S3Error('AuthorizationHeaderMalformed') from None
            self.stamp = request.headers.get('X-Amz-Date') or _to_amz(request.headers.get('Date', ''))
            self._fresh(SKEW)
        elif 'X-Amz-Algorithm' in query:
            self.presigned = True
            try:
                self._scope(query['X-Amz-Credential'])
                self.signed, self.signature = query['X-Amz-SignedHeaders'].split(';'), query['X-Amz-Signature']
                self.stamp = query['X-Amz-Date']
            except (KeyError, ValueError):
                raise S3Error('AuthorizationQueryParametersError') from None
            self._fresh(SKEW, self._life(query.get('X-Amz-Expires', '')))
        elif header.startswith('AWS '):
            self.version = 2
            self.access, colon, self.signature = header[4:].rpartition(':')
            if not colon:
                raise S3Error('InvalidArgument', 'AWS authorization header is invalid. Expected AwsAccessKeyId:signature')
            self.access = self.access.strip()
            self._dated(request.headers.get('X-Amz-Date') or request.headers.get('Date') or '')
        elif 'AWSAccessKeyId' in query:
            self.version, self.presigned = 2, True
            self.access, self.signature = query['AWSAccessKeyId'], query.get('Signature', '')
            expires = query.get('Expires', '')
            moment = natural(expires)
            if moment is None or moment >= 1 << 31:
                raise S3Error('AccessDenied', 'Invalid date (should be seconds since epoch): ' + expires)
            if moment < time.time():
                raise S3Error('AccessDenied', 'Request has expired', Expires=iso(moment))
        else:
            raise S3Error('AccessDenied')
        self.payload = self._payload(request.headers.get('X-Amz-Content-Sha256'))
        self.secret = None

    def _payload(self, text):
        if text is None:
            if self.version == 4 and not self.presigned:
                raise S3Error('InvalidRequest', 'Missing required header for this request: x-amz-content-sha256')
            return 'UNSIGNED-PAYLOAD'
        if self.version == 4 and not self.presigned and text not in PAYLOADS and not HASH.match(text):
            raise S3Error('InvalidArgument', 'x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, '
                                             'STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, '
                                             'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD, '
                                             'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER or a valid sha256 value.',
                          ArgumentName='x-amz-content-sha256', ArgumentValue=text)
        return text

    @staticmethod
    def _life(text):
        number = natural(text.removeprefix('-'))
        if number is None or number >= 1 << 63:
            raise S3Error('AuthorizationQueryParametersError', 'X-Amz-Expires should be a number')
        if text.startswith('-'):
            raise S3Error('AuthorizationQueryParametersError', 'X-Amz-Expires must be non-negative')
        if number > 604800:
            raise S3Error('AuthorizationQueryParametersError', 'X-Amz-Expires must be less than 604800 seconds')
        return number

    @staticmethod
    def _dated(text):
        moment = parse_date(text)
        if moment is None:
            try:
                moment = calendar.timegm(time.strptime(text, '%Y%m%dT%H%M%SZ'))
            except ValueError:
                raise S3Error('AccessDenied', 'AWS authentication requires a valid Date or x-amz-date header') from None
        if abs(moment - time.time()) > SKEW:
            raise S3Error('RequestTimeTooSkewed')

    def _scope(self, credential):
        self.access, self.date, self.region, self.service, end = credential.rsplit('/', 4)
        if end != 'aws4_request':
            raise ValueError
        self.scope = f'{self.date}/{self.region}/{self.service}/{end}'

    def _fresh(self, skew, life=None):
        try:
            moment = calendar.timegm(time.strptime(self.stamp, '%Y%m%dT%H%M%SZ'))
        except (TypeError, ValueError):
            raise S3Error('AccessDenied', 'AWS authentication requires a valid Date or x-amz-date header') from None
        now = time.time()
        if moment > now + skew or (life is None and moment < now - skew):
            raise S3Error('RequestTimeTooSkewed')
        if life is not None and moment + life < now:
            raise S3Error('AccessDenied', 'Request has expired')
        if self.stamp[:8] != self.date:
            raise S3Error('AuthorizationHeaderMalformed')

    @property
    def string_to_sign(self):
        """What has been signed."""
        if self.version == 4:
            made = hashlib.sha256(self._canonical().encode('latin-1')).hexdigest()
            return '\n'.join(('AWS4-HMAC-SHA256', self.stamp, self.scope, made))
        return self._string2()

    def _canonical(self):
        request = self.request
        query = urllib.parse.parse_qsl(request.environ.get('QUERY_STRING', ''), keep_blank_values=True)
        text = '&'.join(f'{k}={v}' for k, v in sorted((_encode(k), _encode(v)) for k, v in query if k != 'X-Amz-Signature'))
        headers = ''.join(f'{name}:{" ".join((request.headers.get(name) or "").split())}\n' for name in self.signed)
        payload = 'UNSIGNED-PAYLOAD' if self.presigned and 'HTTP_X_AMZ_CONTENT_SHA256' not in request.environ else self.payload
        path = urllib.parse.quote(request.environ['PATH_INFO'].encode('latin-1'), safe='/-_.~')
        return '\n'.join((request.method, path, text, headers, ';'.join(self.signed), payload))

    def _string2(self):
        request, get = self.request, self.request.headers.get
        amz = sorted((n.lower(), v.strip()) for n, v in request.headers.items() if n.startswith('X-Amz-'))
        date = request.query.get('Expires', '') if self.presigned else ('' if get('X-Amz-Date') else get('Date', ''))
        query = request.query
        path = urllib.parse.quote(request.environ['PATH_INFO'].encode('latin-1'), safe='/-_.~')
        words = [name if query[name] == '' else f'{name}={query[name]}' for name in SUBRESOURCES if name in query]
        return '\n'.join((request.method, get('Content-Md5', ''), get('Content-Type', ''), date)) + '\n' + ''.join(
            f'{name}:{value}\n' for name, value in amz) + self.prefix + path + ('?' + '&'.join(words) if words else '')

    def check(self, secret):
        """Raise unless ``secret`` has made the signature."""
        self.secret = secret
        if self.version == 4:
            made = hmac.new(self.key(), self.string_to_sign.encode(), 'sha256').hexdigest()
        else:
            text = self.string_to_sign
            made = self._mac2(secret, text)
            bare = text.rpartition('\n')[2]
            if made != self.signature and bare.count('/') == 1 and len(bare.partition('?')[0]) > 1:
                # A bucket by itself: some clients sign it with the slash that they don't send.
                path, mark, rest = bare.partition('?')
                made = self._mac2(secret, text[:-len(bare)] + path + '/' + mark + rest)
        if not hmac.compare_digest(made.encode(), self.signature.encode('utf-8', 'replace')):
            raise self.mismatch(self.string_to_sign)

    def mismatch(self, text, given=None):
        """The error that tells who signed what should have been signed. ``text``: that; ``given``: the signature of it."""
        more = {'AWSAccessKeyId': self.access, 'StringToSign': text, 'SignatureProvided': given or self.signature,
                'StringToSignBytes': text.encode('latin-1', 'replace').hex(' ')}
        if self.version == 4:
            canonical = self._canonical()
            more.update(CanonicalRequest=canonical, CanonicalRequestBytes=canonical.encode('latin-1', 'replace').hex(' '))
        return S3Error('SignatureDoesNotMatch', **more)

    @staticmethod
    def _mac2(secret, text):
        return base64.b64encode(hmac.new(secret.encode(), text.encode('latin-1'), 'sha1').digest()).decode()

    def key(self):
        """The day's signing key."""
        return day_key(self.secret, self.date, self.region, self.service)

    def body(self, stream, length, told=True):
        """The request's body, checked: by its hash, or chunk by chunk; and its length, decoded. ``told``: see :class:`Whole`."""
        if self.payload.startswith('STREAMING-'):
            decoded = natural(self.request.headers.get('X-Amz-Decoded-Content-Length') or '')
            if decoded is None:
                raise S3Error('MissingContentLength')
            if self.version != 4 or self.presigned:
                # (what is signed so has no chunks: it is a hash, and never the body's)
                return Whole.of(stream, length, self.payload, self.request.headers, told), length
            chunks = Chunks(self, stream, decoded)
            if not decoded:
                chunks.read(0)
            return chunks, decoded
        # (whoever says what the hash is, is held to it, whatever the signature is of)
        digest = None if self.payload in PAYLOADS else self.payload
        return Whole.of(stream, length, digest, self.request.headers, told), length


def _to_amz(date):
    moment = parsedate(date)
    return time.strftime('%Y%m%dT%H%M%SZ', moment) if moment else None


class Whole:
    """A body of known length; what is wrong with it is known before its last bytes are given on.

    ``told``: the checksums that the request tells of it; ``sums``: those that are made.
    """

    def __init__(self, stream, length, sha256, told):
        self.stream, self.left = stream, length
        self.sha = hashlib.sha256() if sha256 else None
        self.sha256 = sha256
        self.told = told
        self.sums = Checksums(set(self.told))
        self.checked = False

    @classmethod
    def of(cls, stream, length, sha256, headers, told=True):
        """The body of a request; where it has no length, the stream as it is.

        :param told: False: a checksum among the headers is not the body's.
        """
        if headers.get('X-Amz-Trailer') and told:
            told_by(headers)
            raise S3Error('MalformedTrailerError')
        if length is None:
            return stream
        made = cls(stream, length, sha256, told_by(headers) if told else {})
        if not length:
            made.read(0)        # nobody reads a body of nothing
        return made

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.stream.read(min(size, self.left)) if self.left else b''
        self.left -= len(data)
        if self.sha is not None:
            self.sha.update(data)
        self.sums.add(data)
        if not self.left and not self.checked:
            self.checked = True
            if self.sha is not None and self.sha.hexdigest() != self.sha256.lower():
                raise S3Error('XAmzContentSHA256Mismatch', ClientComputedContentSHA256=self.sha256,
                              S3ComputedContentSHA256=self.sha.hexdigest())
            self.sums.verify(self.told)
        return data


class Chunks:
    """A body in aws-chunked coding: each chunk signed (or not), perhaps with trailing checksums."""

    def __init__(self, signature, stream, length):
        self.signature, self.stream, self.left = signature, stream, length
        self.signed = 'AWS4-HMAC-SHA256' in signature.payload
        self.previous = signature.signature
        self.key = signature.key() if self.signed else None
        self.names = trailing(signature.request.headers)
        self.told = told_by(signature.request.headers)
        self.sums = Checksums({*self.names, *self.told})
        self.data, self.ended = b'', False
        self.chunk = 0
        self.buffer = b''

    def _fill(self):
        data = self.stream.read(65536)
        if not data:
            raise S3Error('IncompleteBody', CUT)
        self.buffer += data

    def _line(self):
        while b'\r\n' not in self.buffer:
            if len(self.buffer) > 16384:
                raise S3Error('InvalidRequest')
            self._fill()
        line, _, self.buffer = self.buffer.partition(b'\r\n')
        return line

    def _last_line(self):
        # The blank line after the trailers, and the end of the last, may be missing.
        while b'\r\n' not in self.buffer and len(self.buffer) < 16384 and (data := self.stream.read(65536)):
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b'\r\n')
        return line

    def _next(self):
        head, _, rest = self._line().decode('latin-1').partition(';')
        if not SIZE.match(head):
            raise S3Error('IncompleteBody', CUT)
        size = int(head, 16)
        if size > MAX_CHUNK:
            raise S3Error('InvalidRequest', 'A chunk is too long')
        parts = []
        need = size
        while need:
            if not self.buffer:
                self._fill()
            piece, self.buffer = self.buffer[:need], self.buffer[need:]
            need -= len(piece)
            parts.append(piece)
        data = b''.join(parts)
        if self.signed:
            text = '\n'.join(('AWS4-HMAC-SHA256-PAYLOAD', self.signature.stamp, self.signature.scope, self.previous, EMPTY,
                              hashlib.sha256(data).hexdigest()))
            self.previous = hmac.new(self.key, text.encode(), 'sha256').hexdigest()
            given = rest.partition('chunk-signature=')[2].strip()
            if not hmac.compare_digest(self.previous.encode(), given.encode('latin-1')):
                raise self.signature.mismatch(text, given)
        if size:
            self._line()
            self.sums.add(data)
        else:
            self._trailers()
        return data

    def _trailers(self):
        self.ended = True
        if len(self.data) < self.left:
            raise S3Error('IncompleteBody', CUT)
        if 'TRAILER' in self.signature.payload:
            lines, proved = [], not self.signed
            while line := self._last_line().decode('latin-1'):
                name, _, value = line.partition(':')
                if name.lower().startswith('x-amz-checksum-'):
                    if name.lower()[15:] not in self.names:
                        raise S3Error('MalformedTrailerError')
                    self.told[name.lower()[15:]] = value.strip()
                    lines.append(f'{name.lower()}:{value.strip()}\n')
                elif name.lower() == 'x-amz-trailer-signature' and self.signed:
                    text = '\n'.join(('AWS4-HMAC-SHA256-TRAILER', self.signature.stamp, self.signature.scope, self.previous,
                                      hashlib.sha256(''.join(lines).encode()).hexdigest()))
                    made = hmac.new(self.key, text.encode(), 'sha256').hexdigest()
                    if not hmac.compare_digest(made.encode(), value.strip().encode('latin-1')):
                        raise self.signature.mismatch(text, value.strip())
                    proved = True
                    break
            if not proved or set(self.names) - set(self.told):
                raise S3Error('MalformedTrailerError')
        self.sums.verify(self.told)

    def read(self, size=65536):
        """At most ``size`` bytes; the last ones only after the trailers have been checked."""
        while len(self.data) <= size and not self.ended:
            self.data += self._next()
            if len(self.data) > self.left:
                raise S3Error('IncompleteBody', CUT)
        if self.ended and len(self.data) < min(self.left, size):
            raise S3Error('IncompleteBody', CUT)
        keep = 0 if self.ended else 1
        piece = self.data[:max(0, min(size, len(self.data) - keep))]
        self.data = self.data[len(piece):]
        self.left -= len(piece)
        return piece


