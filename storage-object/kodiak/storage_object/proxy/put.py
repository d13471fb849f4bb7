"""The body of an object's PUT on its way to all replicas at once, in constant memory."""
import hashlib
import select

import orjson

from . import backend
from .http import Fault

CHUNK = 262144
# What is known of a body only at its end (etags of what was encrypted or cut up) follows it, in so many bytes of JSON and blanks.
FOOTER = 4096


def pack(footers):
    """What follows a body."""
    data = orjson.dumps(footers)
    if len(data) > FOOTER:
        raise Fault(400, 'Metadata is too large')
    return data.ljust(FOOTER)


def pieces(request, limit, footers=None):
    """The body of a request in pieces; 499 where the client goes away before its end, 413 past ``limit`` bytes.

    :param footers: a function of a dict, called after the body; what it gives follows the body.
    """
    length, stream = request.content_length, request.input
    try:
        if length is None:
            size = 0
            while data := stream.read(CHUNK):
                size += len(data)
                if size > limit:
                    raise Fault(413)
                yield data
            if footers:
                yield pack(footers())
            return
        left = length
        while left:
            data = stream.read(min(CHUNK, left))
            if not data:
                raise Fault(499)
            left -= len(data)
            yield data if left or not footers else data + pack(footers())
    except (OSError, EOFError, ValueError) as error:
        raise Fault(499) from error


class Upload:
    """Connections to replicas that take one object."""

    def __init__(self, client, ring, part, path, headers, length):
        self.client, self.part, self.path = client, part, path
        self.length = length
        self.quorum = len(headers) // 2 + 1
        self.nodes = client.nodes.usable(ring, part, len(headers))
        self.wanted = headers
        self.open = []
        self.answers = []
        self.sent = 0

    def _start(self, headers, first, last):
        headers = {**headers, **({'Content-Length': self.length} if self.length is not None else {'Transfer-Encoding': 'chunked'})}
        for node in self.nodes:
            head = backend.head_of('PUT', f'/{node["device"]}/{self.part}{self.path}', headers)
            connection = self.client.connect(node, head, self._framed(first, last))
            if connection is not None:
                self.open.append((connection, node, headers))
                return

    def _framed(self, data, last):
        if self.length is not None:
            return data
        return (b'%x\r\n%b\r\n' % (len(data), data) if data else b'') + (b'0\r\n\r\n' if last else b'')

    def run(self, source):
        """Send all; returns the answers. Raises 503 without a quorum, what ``source`` raises otherwise."""
        source = iter(source)
        first = next(source, b'')
        # A body of one piece, or of none, can be sent again: to a handoff, or where an idle connection was stale.
        following = next(source, b'') if self.length is None or len(first) < (self.length or 0) else b''
        try:
            for headers in self.wanted:
                self._start(headers, first, not following)
            if following:
                self._replace_refused(first)
                self._stream(following, source)
            self._finish(first if not following else None)
        except BaseException:
            for connection, _, _ in self.open:
                connection.close()
            raise
        return self.answers

    def _replace_refused(self, first):
        for entry in self._readable():
            connection, node, headers = entry
            self.open.remove(entry)
            answer = self.client.answer(connection, node, 'PUT')
            if answer is None or answer.status == 507:
                self._start(headers, first, False)
            else:
                self._settle(answer)

    def _readable(self):
        if not self.open:
            return []
        poll = select.poll()
        known = {}
        for entry in self.open:
            known[entry[0].sock.fileno()] = entry
            poll.register(entry[0].sock, select.POLLIN)
        return [known[fd] for fd, _ in poll.poll(0)]

    def _stream(self, data, source):
        chunked = self.length is None
        while data:
            following = next(source, b'')
            framed = self._framed(data, False) if chunked else data
            for entry in self._readable():
                # It has made up its mind before the end of the body.
                self.open.remove(entry)
                answer = self.client.answer(entry[0], entry[1], 'PUT')
                if answer is not None:
                    answer.keep = False
                    self._settle(answer)
            for entry in list(self.open):
                try:
                    entry[0].sock.sendall(framed)
                except OSError as error:
                    self.open.remove(entry)
                    entry[0].close()
                    self.client._node_failed(entry[1], error)
            if len(self.open) < self.quorum:
                self._judge_refusals()
            data = following
        if chunked:
            for entry in list(self.open):
                try:
                    entry[0].sock.sendall(b'0\r\n\r\n')
                except OSError:
                    self.open.remove(entry)

    def _judge_refusals(self):
        if len([a for a in self.answers if a.status < 500]) < self.quorum:
            raise Fault(503)
        raise Refused

    def _settle(self, answer):
        try:
            answer.content = answer.read()
        except backend.ERRORS:
            return
        self.answers.append(answer)

    def _finish(self, whole):
        while self.open:
            connection, node, headers = self.open.pop(0)
            again = None
            if whole is not None:
                head = backend.head_of('PUT', f'/{node["device"]}/{self.part}{self.path}', headers)

                def again(node=node, head=head):
                    return self.client.connect(node, head, self._framed(whole, True))
            answer = self.client.answer(connection, node, 'PUT', again)
            if (answer is None or answer.status == 507) and whole is not None:
                self._start({k: v for k, v in headers.items() if k not in ('Content-Length', 'Transfer-Encoding')}, whole, True)
            elif answer is not None:
                self._settle(answer)


class Refused(Exception):
    """A majority of the servers refused before the end of the body; their answers are in ``answers``."""


class Hashed:
    """Pieces, counted and hashed as they pass."""

    def __init__(self, source):
        self.source, self.md5, self.size = source, hashlib.md5(usedforsecurity=False), 0

    def __iter__(self):
        for data in self.source:
            self.size += len(data)
            yield data
