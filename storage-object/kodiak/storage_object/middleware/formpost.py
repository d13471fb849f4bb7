"""Uploads of a browser's form: multipart/form-data signed with a key of the account or container."""
import base64
import hmac
import time
from urllib.parse import quote_plus

from kodiak.common.numbers import natural

from ..proxy.http import Fault, Filter, Response, error
from .tempurl import DIGESTS, keys_of

LIMIT = 16384


class FormPost(Filter):
    """See the module."""

    def handle(self, request):
        """Take the form of a POST to a container or a prefix."""
        if request.method != 'POST' or request.environ.get('kodiak.sub'):
            return self.next(request)
        kind, _, rest = request.headers.get('Content-Type', '').partition(';')
        if kind.strip().lower() != 'multipart/form-data' or 'boundary=' not in rest:
            return self.next(request)
        split = request.split()
        if split is None or split[2] is None:
            return self.next(request)
        boundary = rest.split('boundary=', 1)[1].split(';')[0].strip().strip('"')
        try:
            status, message, attributes = self._take(request, split, boundary)
        except Invalid as problem:
            return error(400, f'FormPost: {problem}')
        except Fault as fault:
            return fault.response
        where = attributes.get('redirect')
        if not where:
            return error(status, message) if status >= 400 else Response(status, message.encode(), content_type='text/html')
        glue = '&' if '?' in where else '?'
        where += f'{glue}status={status}&message={quote_plus(message if status >= 400 else "")}'
        if '\r' in where or '\n' in where:
            return error(400, 'FormPost: invalid redirect')
        body = f'<html><body><p><a href="{where}">Click to continue...</a></p></body></html>'.encode()
        return Response(303, body, {'Location': where}, content_type='text/html')

    def _take(self, request, split, boundary):
        parts = Parts(request, boundary)
        attributes, count, status, message = {}, 0, 400, 'no files to process'
        checked = None
        for headers in parts:
            disposition = params_of(headers.get('content-disposition', ''))
            if disposition.get('filename') is None:
                data = parts.rest(LIMIT)
                attributes[disposition.get('name', '').lower()] = data.decode('utf-8', 'replace').strip()
                continue
            if checked is None:
                checked = self._check(request, split, attributes)
            if not disposition['filename']:
                continue
            count += 1
            if count > checked['count']:
                return 400, 'max file count exceeded', attributes
            status, message = self._put(request, split, attributes, headers, disposition['filename'], parts, checked)
            if status // 100 != 2:
                return status, message, attributes
        if checked is None:
            self._check(request, split, attributes)
        return status, message, attributes

    def _check(self, request, split, attributes):
        proxy = request.environ['kodiak.proxy']
        limit, count, expires = (natural(attributes.get(name) or '0') for name in ('max_file_size', 'max_file_count', 'expires'))
        if None in (limit, count, expires):
            raise Invalid('a number is none')
        if expires < time.time():
            raise Fault(401, 'FormPost: Form Expired\n')
        signature = attributes.get('signature', '')
        digest, colon, text = signature.partition(':')
        if colon:
            try:
                text = base64.b64decode(text.replace('-', '+').replace('_', '/') + '=' * (-len(text) % 4)).hex()
            except ValueError:
                digest = ''
        else:
            digest, text = {40: 'sha1', 64: 'sha256', 128: 'sha512'}.get(len(signature), ''), signature
        if digest in DIGESTS:
            body = f'{request.path}\n{attributes.get("redirect", "")}\n{limit}\n{count}\n{expires}'.encode()
            for key, alone in keys_of(proxy.infos, request, split[1], split[2]):
                if hmac.compare_digest(hmac.new(key.encode('latin-1'), body, digest).hexdigest().encode(), text.encode()):
                    return {'limit': limit, 'count': count, 'alone': alone}
        raise Fault(401, 'FormPost: Invalid Signature\n')

    def _put(self, request, split, attributes, headers, filename, parts, checked):
        base = request.path if split[3] else request.path.rstrip('/') + '/'
        put = request.sub('PUT', base + filename, stream=Limited(parts, checked['limit']), source='FP')
        put.environ['HTTP_TRANSFER_ENCODING'] = 'chunked'
        if headers.get('content-type'):
            put.headers['Content-Type'] = headers['content-type']
        if headers.get('content-encoding'):
            put.headers['Content-Encoding'] = headers['content-encoding']
        for name in ('x_delete_at', 'x_delete_after'):
            if attributes.get(name):
                if natural(attributes[name]) is None:
                    raise Invalid(f'{name} is no number')
                put.headers[name.replace('_', '-')] = attributes[name]

        def authorize(asked):
            other = asked.split()
            return None if other and other[1] == split[1] and (not checked['alone'] or other[2] == split[2]) else error(401)
        put.environ['kodiak.authorize'] = authorize
        answer = self.next(put)
        return answer.status, '' if answer.ok else (answer.read().decode('utf-8', 'replace') if answer.status == 413 else
                                                    'the file was not stored')


class Invalid(Exception):
    pass


def params_of(text):
    found = {}
    for part in text.split(';')[1:]:
        name, _, value = part.strip().partition('=')
        found[name.lower()] = value.strip('"')
    return found


class Limited:
    def __init__(self, parts, limit):
        self.parts, self.left = parts, limit

    def read(self, size=65536):
        data = self.parts.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Fault(413, 'max_file_size exceeded')
        return data


class Parts:
    """The parts of a multipart body, each read as a stream."""

    def __init__(self, request, boundary):
        self.request, self.length = request, request.content_length
        self.mark = b'\r\n--' + boundary.encode('latin-1')
        self.buffer = b'\r\n'
        self.ended = self.done = False

    def _more(self):
        size = 65536 if self.length is None else min(65536, self.length)
        data = self.request.input.read(size) if size else b''
        if self.length is not None:
            self.length -= len(data)
        self.done = not data
        self.buffer += data

    def read(self, size=65536):
        """Bytes of the part; b'' at its end."""
        if self.ended:
            return b''
        while len(self.buffer) < size + len(self.mark) and not self.done and self.mark not in self.buffer:
            self._more()
        cut = self.buffer.find(self.mark)
        if cut >= 0:
            data, self.buffer = self.buffer[:min(cut, size)], self.buffer[min(cut, size):]
            if cut <= size:
                self.ended = not data or cut == len(data)
            return data
        if self.done:
            raise Invalid('invalid starting boundary' if self.buffer.startswith(b'\r\n') else 'the form ends early')
        keep = len(self.mark) - 1
        data, self.buffer = self.buffer[:-keep][:size], self.buffer[len(self.buffer[:-keep][:size]):]
        return data

    def rest(self, limit):
        """The whole part, of at most ``limit`` bytes."""
        parts, size = [], 0
        while data := self.read():
            size += len(data)
            if size > limit:
                raise Invalid('a field is too long')
            parts.append(data)
        return b''.join(parts)

    def __iter__(self):
        while True:
            while self.read():
                pass
            self.buffer = self.buffer[len(self.mark):]
            while len(self.buffer) < 2 and not self.done:
                self._more()
            if self.buffer[:2] == b'--' or not self.buffer:
                return
            while b'\r\n\r\n' not in self.buffer and not self.done and len(self.buffer) < LIMIT:
                self._more()
            head, blank, rest = self.buffer.partition(b'\r\n\r\n')
            if not blank:
                raise Invalid('a part has no headers')
            self.buffer, self.ended = rest, False
            headers = {}
            for line in head.decode('utf-8', 'replace').split('\r\n'):
                name, _, value = line.partition(':')
                headers[name.strip().lower()] = value.strip()
            yield headers
