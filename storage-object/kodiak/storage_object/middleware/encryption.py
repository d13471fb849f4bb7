"""Encryption at rest: bodies, etags and users' metadata are encrypted before they leave the proxy, under keys that only it has.

A root secret and an object's path make the object's key (HMAC-SHA256), a container's path that of its listing. Each body has a key
and an initial counter of its own (AES-256-CTR, so that a range can be read alone); that key, the plaintext's MD5, each value of
metadata and each etag of a listing are sealed with AES-256-GCM. Names, sizes, content types and times are not encrypted.

``keys = <file>`` names the secrets: lines of ``<id> <base64 of 32 bytes or more>``, the first of which is used for what is written;
the others are for what has been. Without the option nothing is encrypted.
"""
import base64
import hashlib
import hmac
import os

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..proxy.http import Fault, Filter, HeaderDict, error, serve

BODY, ETAG, MAC, SEALED_SUM = ('X-Object-Sysmeta-Crypto-' + name for name in ('Body', 'Etag', 'Etag-Mac', 'Checksum'))
# A checksum tells of a body what an etag does.
SUM = 'X-Object-Sysmeta-S3Api-Checksum'
META = 'X-Object-Transient-Sysmeta-Crypto-Meta-'
ALL = ('X-Object-Sysmeta-Crypto-', 'X-Object-Transient-Sysmeta-Crypto-')
OVERRIDE, STORED = 'X-Backend-Container-Update-Override-Etag', 'X-Object-Sysmeta-Container-Update-Override-Etag'
MARK = 'crypto='


class Key:
    """Seals and opens short texts; ``text`` is for headers."""

    def __init__(self, name, secret, path):
        self.name = name
        self.key = hmac.new(secret, path.encode('utf-8', 'surrogateescape'), 'sha256').digest()
        self.box = AESGCM(self.key)

    def seal(self, data, what):
        """A header's value: the key's name and what only it opens. ``what`` it is must be said again to open it."""
        nonce = os.urandom(12)
        return f'{self.name}:{base64.b64encode(nonce + self.box.encrypt(nonce, data, what)).decode()}'

    def open(self, text, what):
        """What was sealed; 500 where it can't be opened."""
        data = base64.b64decode(text)
        try:
            return self.box.decrypt(data[:12], data[12:], what)
        except (InvalidTag, ValueError):
            raise Fault(500, 'What is stored does not open with its key') from None

    def mac(self, text):
        """What stands for an etag where it is compared."""
        return hmac.new(self.key, text.encode('latin-1'), 'sha256').hexdigest()


class Encryption(Filter):
    """See the module."""

    def __init__(self, application, conf=None):
        super().__init__(application, conf)
        self.secrets = {}
        if self.conf.get('keys'):
            with open(self.conf['keys']) as file:
                for line in file:
                    if line.strip() and not line.startswith('#'):
                        name, text = line.split()
                        self.secrets[name] = base64.b64decode(text, validate=True)
            if not self.secrets or any(len(secret) < 32 for secret in self.secrets.values()):
                raise ValueError('a root secret has 32 bytes at least')
        self.active = next(iter(self.secrets), None)

    def _key(self, path, name=None):
        name = name or self.active
        if name not in self.secrets:
            raise Fault(500, 'What is stored is encrypted with a key that this proxy does not have')
        return Key(name, self.secrets[name], path)

    def _opened(self, text, path, what):
        name, _, sealed = text.partition(':')
        return self._key(path, name).open(sealed, what)

    def handle(self, request):
        """Encrypt what comes, decrypt what goes."""
        if not self.secrets or (split := request.split()) is None or split[2] is None:
            return self.next(request)
        _, account, container, name = split
        method, box = request.method, f'/{account}/{container}'
        if name is None:
            return self._listing(request, box) if method == 'GET' else self.next(request)
        path = f'{box}/{name}'
        if method in ('PUT', 'POST'):
            self._hide_metadata(request, path)
            return self._put(request, path, box) if method == 'PUT' else self.next(request)
        if method in ('GET', 'HEAD'):
            return self._get(request, path, box)
        return self.next(request)

    # coming

    def _hide_metadata(self, request, path):
        key = self._key(path)
        for name, value in list(request.headers.items()):
            if name.startswith('X-Object-Meta-'):
                request.headers.pop(name)
                if value or request.method == 'PUT':
                    request.headers[META + name[14:]] = key.seal(value.encode('latin-1'), b'meta')

    def _put(self, request, path, box):
        headers = request.headers
        of_box, key = self._key(box), self._key(path)

        def sealed(sum_):
            return {SEALED_SUM: key.seal(sum_.encode('latin-1'), b'sum')} if sum_ else {}
        headers.update(sealed(headers.pop(SUM)))
        given = headers.get(OVERRIDE)
        if given is not None:
            headers[OVERRIDE] = f'{of_box.seal(given.encode("latin-1"), b"list")}; {MARK}1'
        if request.content_length == 0:
            return self.next(request)
        secret, start = os.urandom(32), os.urandom(16)
        wanted = (headers.pop('Etag') or '').strip('"').lower()
        body = request.environ['wsgi.input'] = Encrypted(request.input, secret, start)

        more = request.environ.get('kodiak.footers')

        def footers():
            etag = body.md5.hexdigest()
            if wanted and wanted != etag:
                raise Fault(422)
            told = more() if more else {}
            made = {**sealed(told.pop(SUM, None)), **told, BODY: key.seal(start + secret, b'body'),
                    ETAG: key.seal(etag.encode(), b'etag'), MAC: key.mac(etag)}
            if given is None:
                made[OVERRIDE] = f'{of_box.seal(etag.encode(), b"list")}; {MARK}1'
            return made
        request.environ['kodiak.footers'] = footers
        answer = self.next(request)
        if answer.ok and 'Etag' in answer.headers:
            answer.headers['Etag'] = body.md5.hexdigest()
        return answer

    # going

    def _listing(self, request, box):
        answer = self.next(request)
        if not answer.ok or 'json' not in answer.headers.get('Content-Type', ''):
            return answer
        body = answer.read()
        if MARK.encode() not in body:
            return answer
        rows = orjson.loads(body)
        keys = {}
        for row in rows:
            if row.get('hash', '').endswith(MARK + '1'):
                name, _, sealed = row['hash'].partition(';')[0].partition(':')
                if name not in keys:
                    keys[name] = self._key(box, name)
                row['hash'] = keys[name].open(sealed, b'list').decode('latin-1')
        answer.set_body(orjson.dumps(rows))
        return answer

    def _get(self, request, path, box):
        self._hide_conditions(request, path)
        asked = request.headers.get('Range', '')
        if ',' in asked:
            return self._several(request, path, box)
        answer = self.next(request)
        self._show(answer, path, box)
        return answer

    def _hide_conditions(self, request, path):
        headers = request.headers
        for name in ('If-Match', 'If-None-Match'):
            value = headers.get(name)
            if value is None or value.strip() == '*':
                continue
            etags = [item.strip().removeprefix('W/').strip('"') for item in value.split(',')]
            macs = [self._key(path, key).mac(etag) for key in self.secrets for etag in etags]
            headers[name] = ', '.join(f'"{etag}"' for etag in (*etags, *macs))
            known = headers.get('X-Backend-Etag-Is-At')
            # Before any other: what has a plain etag of another kind has it behind this one.
            headers['X-Backend-Etag-Is-At'] = f'{known},{MAC}' if known else MAC
        condition = headers.get('If-Range')
        if condition and condition.startswith('"') and headers.get('Range'):
            head = self.handle(request.sub('HEAD', request.path, authorize=False)).drain()
            if head.headers.get('Etag', '').strip('"') != condition.strip('"'):
                headers.pop('Range')
            headers.pop('If-Range')

    def _several(self, request, path, box):
        whole = request.sub('HEAD', request.path, authorize=False)
        whole.headers.update((n, v) for n, v in request.headers.items() if n.startswith(('If-', 'X-Backend-')) or n == 'X-Newest')
        answer = self.next(whole)
        sealed = answer.headers.get('X-Timestamp')
        self._show(answer, path, box)
        if answer.status != 200:
            return answer
        length = int(answer.headers['Content-Length'])

        def open_range(start, end):
            part = request.sub('GET', request.path, {'Range': f'bytes={start}-{end - 1}'}, authorize=False)
            got = self.handle(part)
            if got.status not in (200, 206) or got.headers.get('X-Timestamp') != sealed:
                got.close()
                raise OSError('the object changed while it was read')
            return got.body
        for name in ('If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since', 'If-Range'):
            request.headers.pop(name)       # (they have been looked at)
        return serve(request, answer, length, open_range)

    def _show(self, answer, path, box):
        headers = answer.headers
        shown = HeaderDict()
        for name, value in headers.items():
            if name.startswith(META):
                shown['X-Object-Meta-' + name[len(META):]] = self._opened(value, path, b'meta').decode('latin-1')
        if headers.get(STORED, '').endswith(MARK + '1'):
            shown[STORED] = self._opened(headers[STORED].partition(';')[0], box, b'list').decode('latin-1')
        if SEALED_SUM in headers:
            shown[SUM] = self._opened(headers[SEALED_SUM], path, b'sum').decode('latin-1')
        if BODY in headers:
            shown['Etag'] = self._opened(headers[ETAG], path, b'etag').decode()
            if answer.status in (200, 206) and not isinstance(answer.body, bytes):
                sealed = self._opened(headers[BODY], path, b'body')
                first = 0
                if answer.status == 206:
                    first = int(headers['Content-Range'].split(' ', 1)[1].partition('-')[0])
                answer.body = Decrypted(answer.body, sealed[16:], sealed[:16], first)
        for name in [name for name in headers if name.startswith(ALL)]:
            del headers[name]
        headers.update(shown)
        if answer.status == 500:
            return error(500)
        return answer


def _counter(start, block):
    return ((int.from_bytes(start, 'big') + block) % (1 << 128)).to_bytes(16, 'big')


class Encrypted:
    """A body, encrypted as it is read; ``md5`` is of what it was."""

    def __init__(self, stream, key, start):
        self.stream, self.md5 = stream, hashlib.md5(usedforsecurity=False)
        self.cipher = Cipher(algorithms.AES(key), modes.CTR(start)).encryptor()

    def read(self, size=65536):
        """At most ``size`` bytes."""
        data = self.stream.read(size)
        self.md5.update(data)
        return self.cipher.update(data)


class Decrypted:
    """A body, decrypted as it is sent; it begins with the byte ``first`` of the whole."""

    def __init__(self, source, key, start, first):
        self.source = source
        self.cipher = Cipher(algorithms.AES(key), modes.CTR(_counter(start, first // 16))).decryptor()
        self.cipher.update(bytes(first % 16))

    def __iter__(self):
        for data in self.source:
            yield self.cipher.update(data)

    def close(self):
        """Let go of the source."""
        close = getattr(self.source, 'close', None)
        if close:
            close()
