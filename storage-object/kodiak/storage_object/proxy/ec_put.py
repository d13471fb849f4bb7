"""The body of an object's PUT as fragments on their way to all devices, in constant memory; in two steps.

First each device stores its fragments. When enough of them have (one more than are needed to read the object), they are told that
they hold: only then what was there before goes. Of a write that ends between the steps nothing is lost, neither what was there
before nor, once it was answered, what came.
"""
import hashlib

from . import backend
from . import put as uploads
from .http import Fault


class _Body:
    """A body on its way: cut into segments, measured."""

    def __init__(self, source, size):
        self._source, self._size, self._rest = iter(source), size, bytearray()
        self._md5, self.length = hashlib.md5(usedforsecurity=False), 0

    def segment(self):
        """The next one; b'' at the end."""
        while len(self._rest) < self._size and (data := next(self._source, b'')):
            self._md5.update(data)
            self._rest += data
        data = bytes(self._rest[:self._size])
        del self._rest[:self._size]
        self.length += len(data)
        return data

    @property
    def etag(self):
        """MD5 of what has come."""
        return self._md5.hexdigest()


class Upload:
    """Connections to devices that take the fragments of one object.

    :param headers: of the request to each device. :param length: of the body, or None.
    :param judged: whether it hangs on what is there: as of :class:`.put.Upload`.
    """

    def __init__(self, client, ring, part, path, headers, codec, length, judged=False):
        self.client, self.part, self.path, self.codec, self.judged = client, part, path, codec, judged
        self.headers = {**headers, 'X-Backend-Footer-Size': str(uploads.FOOTER)}
        self.length = None if length is None else codec.archive_size(length) + uploads.FOOTER
        primaries = ring.primaries(part)
        self._primaries = [node if not client.nodes.out(node) else None for node in primaries]
        self._handoffs = (node for node in ring.handoffs(part) if not client.nodes.out(node))
        self.open = []          # (connection, node, position)
        self.answers = []       # (answer, node, position)

    # First step

    def run(self, source, finish, wanted=None):
        """Send all and wait for the answers of the first step; ``(how many have stored it, etag)``.

        :param source: the body in pieces. :param finish: called after it; gives metadata that is known only then.
        :param wanted: the etag that the client gave (422 if it is another). Raises 503 without a quorum.
        """
        body = _Body(source, self.codec.segment)
        try:
            first = body.segment()
            following = body.segment() if len(first) == self.codec.segment else b''
            fragments = self.codec.encode(first) if first else None
            if not following:
                self._whole(fragments, self._end(body, finish, wanted))
            else:
                for position in range(self.codec.replicas):
                    self._start(position, self._of(fragments, position))
                self._replace_refused(fragments)
                self._need()
                while following:
                    self._send(self.codec.encode(following))
                    following = body.segment()
                end = self._end(body, finish, wanted)
                while self.judged and self.open:
                    self._finish(end, self.open[:1])
                    self._heed()
                self._finish(end, self.open)
        except BaseException:
            for connection, _, _ in self.open:
                connection.close()
            raise
        return len(self.stored()), body.etag

    def stored(self):
        """``(node, number of its fragment)`` of the devices that have stored it."""
        return [(node, position % self.codec.count) for answer, node, position in self.answers if answer.status // 100 == 2]

    def _end(self, body, finish, wanted):
        etag = body.etag
        if wanted and wanted != etag:
            raise Fault(422)
        return uploads.pack({**finish(), 'Ec': {'etag': etag, 'length': body.length, 'segment': self.codec.segment,
                                                'fragment': self.codec.fragment, 'scheme': self.codec.scheme}})

    def _of(self, fragments, position):
        return fragments[position % self.codec.count] if fragments else b''

    def _framed(self, data, last=False):
        if self.length is not None:
            return data
        return (b'%x\r\n%b\r\n' % (len(data), data) if data else b'') + (b'0\r\n\r\n' if last else b'')

    def _head(self, node, position):
        length = {'Content-Length': self.length} if self.length is not None else {'Transfer-Encoding': 'chunked'}
        return backend.head_of('PUT', f'/{node["device"]}/{self.part}{self.path}', {
            **self.headers, **length, 'X-Backend-Fragment-Index': position % self.codec.count})

    def _nodes(self, position):
        """Where the fragments of a position go: to their own device, or to a handoff."""
        node, self._primaries[position] = self._primaries[position], None
        if node is not None:
            yield node
        yield from self._handoffs

    def _start(self, position, data, last=False):
        for node in self._nodes(position):
            connection = self.client.connect(node, self._head(node, position), self._framed(data, last))
            if connection is not None:
                self.open.append((connection, node, position))
                return

    def _whole(self, fragments, footer):
        """A body of one segment can be sent again: to a handoff, or where an idle connection was stale."""
        bodies = [bytes(self._of(fragments, position)) + footer for position in range(self.codec.replicas)]
        for position, data in enumerate(bodies):
            self._start(position, data, True)
            if self.judged:
                self._gather(bodies)
                self._heed()
        self._gather(bodies)

    def _gather(self, bodies):
        while self.open:
            connection, node, position = self.open.pop(0)

            def again(node=node, position=position):
                return self.client.connect(node, self._head(node, position), self._framed(bodies[position], True))
            answer = self.client.answer(connection, node, 'PUT', again)
            if answer is None or answer.status == 507:
                self._start(position, bodies[position], True)
            else:
                self._note(answer, node, position)

    def _note(self, answer, node, position):
        if answer is None:
            return
        try:
            answer.content = answer.read()
        except backend.ERRORS:
            return
        self.answers.append((answer, node, position))

    def _heed(self):
        """When the first has answered; where that holds another write, it is of no use to go on."""
        if self.answers:
            self.judged = False
            if self._busy:
                raise uploads.Refused

    @property
    def _busy(self):
        return any(answer.status == 423 for answer, _, _ in self.answers)

    def _refused(self, seconds=0):
        """Those that have answered before the end of the body: ``(answer, node, position)``."""
        ready = backend.readable([entry[0] for entry in self.open], seconds)
        for entry in [entry for entry in self.open if entry[0] in ready]:
            connection, node, position = entry
            self.open.remove(entry)
            answer = self.client.answer(connection, node, 'PUT')
            if answer is not None:
                answer.keep = False
            yield answer, node, position

    def _replace_refused(self, fragments):
        for answer, node, position in list(self._refused()):
            if answer is None or answer.status == 507:
                self._start(position, self._of(fragments, position))
            else:
                self._note(answer, node, position)

    def _send(self, fragments):
        for answer, node, position in list(self._refused()):
            self._note(answer, node, position)
        for entry in list(self.open):
            self._pass(entry, self._framed(self._of(fragments, entry[2])))
        self._need()

    def _pass(self, entry, data):
        try:
            entry[0].sock.sendall(data)
        except OSError as error:
            self.open.remove(entry)
            if isinstance(error, TimeoutError):
                entry[0].close()
                self.client.node_failed(entry[1], error)
            else:
                self._note(self.client.answer(entry[0], entry[1], 'PUT'), *entry[1:])     # It may have said why.

    def _finish(self, end, entries):
        """The end of the body to some devices, and their answers."""
        for entry in list(entries):
            self._pass(entry, self._framed(end, True))
        for entry in [entry for entry in entries if entry in self.open]:
            self.open.remove(entry)
            self._note(self.client.answer(entry[0], entry[1], 'PUT'), *entry[1:])

    def _need(self):
        if len(self.open) < self.codec.quorum:
            if self.judged:
                # What the others say decides; they say it now, or nothing before the end of the body.
                while not self._busy and (refused := list(self._refused(1))):
                    for answer, node, position in refused:
                        self._note(answer, node, position)
                raise uploads.Refused
            if len([answer for answer, _, _ in self.answers if answer.status < 500]) < self.codec.quorum:
                raise Fault(503)
            raise uploads.Refused

    # Second step

    def commit(self, each):
        """Tell the devices that what they have stored holds; their answers.

        :param each: the headers of the request to each of :meth:`stored`.
        """
        return self.client.ask_each('POST', self.part, self.path, [
            (node, {**headers, 'X-Backend-Fragment-Commit': number, 'Content-Length': '0'})
            for (node, number), headers in zip(self.stored(), each, strict=True)])
