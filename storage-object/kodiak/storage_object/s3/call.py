"""One S3 request: who asks, of which bucket and key, with what."""
import base64
import binascii
import hashlib
from xml.sax.saxutils import escape

from .errors import S3Error
from .signature import Whole

DISCARDED = 256 << 20


class Call:
    """See the module.

    ``account``: that of who asks (None for nobody); ``place``: the account that the bucket is in; ``owned``: whether who asks
    administers it; ``free``: its requests of the Swift API need no leave, as S3's own rules have given it.
    """

    def __init__(self, request, signature, account, bucket, key):
        self.request, self.signature, self.account, self.bucket, self.key = request, signature, account, bucket, key
        self.query = request.query
        self.place = account
        self.owned = self.free = False
        identity = request.environ.get('kodiak.identity') if signature is not None else None
        self.user_id = (identity or {}).get('user') or account or 'anonymous'
        self.user_name = (identity or {}).get('user_name') or (identity or {}).get('user')
        # Whether an access list is what has given leave.
        self.by_list = False
        # Of a request that deletes many: ``(key, version, status, error)`` of each, for its bucket's logs.
        self.deleted = []
        self.heads = {}
        # What an object is encrypted with, if it is a key of the client's own.
        self.customer_key = None
        # Of keys whose version ``null`` the Swift API calls by another id: that.
        self.nulls = {}

    @property
    def user(self):
        """Who asks, for XML."""
        return escape(self.user_id)

    def owner(self, who=None):
        """The ``Owner`` element."""
        who = escape(who or self.user_id)
        return f'<Owner><ID>{who}</ID><DisplayName>{who}</DisplayName></Owner>'

    def stream(self, told=True):
        """The body and its decoded length; without a length it is nobody's to read.

        :param told: False: a checksum among the headers is not the body's.
        """
        source, length = self.request.input, self.request.content_length
        if self.signature is None:
            return Whole.of(source, length, None, self.request.headers, told), length
        return self.signature.body(source, length, told)

    def body(self, limit, told=True):
        """The whole of a short body. ``told``: as of :meth:`stream`."""
        stream, length = self.stream(told)
        if length is None:
            return b''
        parts, left = [], length
        while left and (piece := stream.read(min(65536, left))):
            left -= len(piece)
            if length <= limit:
                parts.append(piece)
            elif length - left > DISCARDED:
                break
        if length > limit:
            # It has been read so that the client hears of it.
            raise S3Error('MalformedXML')
        data = b''.join(parts)
        if len(data) < length:
            raise S3Error('IncompleteBody')
        md5 = self.md5()
        if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise S3Error('BadDigest', ExpectedDigest=self.request.headers['Content-Md5'])
        return data

    def md5(self):
        """Hexadecimal digest of Content-MD5, or None."""
        text = self.request.headers.get('Content-Md5')
        if text is None:
            return None
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise S3Error('InvalidDigest', Content_MD5=text) from None
        if len(digest) != 16:
            raise S3Error('InvalidDigest', Content_MD5=text)
        return digest.hex()

    def metadata(self):
        """The object's headers of the Swift API."""
        headers = {}
        for name, value in self.request.headers.items():
            if name.startswith('X-Amz-Meta-'):
                headers['X-Object-Meta-' + name[11:]] = value
            elif name in ('Content-Type', 'Content-Disposition', 'Content-Language', 'Cache-Control', 'Expires', 'X-Robots-Tag',
                          'X-Delete-At', 'X-Delete-After'):
                headers[name] = value
            elif name == 'Content-Encoding':
                kept = ', '.join(word.strip() for word in value.split(',') if word.strip() != 'aws-chunked')
                if kept:
                    headers[name] = kept
        headers.setdefault('Content-Type', 'binary/octet-stream')
        return headers
