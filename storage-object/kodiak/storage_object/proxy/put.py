"""The body of an object's PUT on its way to all replicas at once, in constant memory."""
import hashlib
import itertools
import queue
import select
import threading

import orjson
from isal import isal_zlib

from kodiak.common import gunicorn_server

from . import backend
from .http import Fault

CHUNK = 262144
QUEUE = 4               # pieces that wait to be hashed
BUFFERS = QUEUE + 4     # and those that are being hashed, sent, and read
# What is known of a body only at its end (etags of what was encrypted or cut up) follows it, in so many bytes of JSON and blanks.
FOOTER = 4096


def pack(footers):
    """What follows a body."""
    data = orjson.dumps(footers)
    if len(data) > FOOTER:
        raise Fault(400, 'Metadata is too large')
    return data.ljust(FOOTER)


class Tally:
    """MD5 and CRC-32 of a large body, for all its replicas: once, in a thread beside the one that sends it.

    The servers check the CRC-32 of what came to them, which costs a fortieth of an MD5.
    """

    LEAST = 1 << 20         # bytes of a body for which a thread is worth while

    def __init__(self):
        self._md5, self._crc = hashlib.md5(usedforsecurity=False), 0
        self._queue = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name='tally', daemon=True)
        self._thread.start()

    def _run(self):
        while (data := self._queue.get()) is not None:
            self._md5.update(data)
            self._crc = isal_zlib.crc32(data, self._crc)

    def add(self, data):
        """A piece of the body."""
        self._queue.put(data)

    def end(self):
        """The footers; the thread ends. May be called again."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        return {'Etag': self._md5.hexdigest(), 'X-Backend-Body-Crc32': f'{self._crc:08x}'}


def pieces(request, limit, footers=None, tally=None):
    """The body of a request in pieces; 499 where the client goes away before its end, 413 past ``limit`` bytes.

    :param footers: a function that gives a dict, called after the body; what it gives follows the body, which has a length.
    :param tally: a :class:`Tally`, whose footers follow the body too.
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
        buffers = itertools.cycle([bytearray(CHUNK) for _ in range(BUFFERS)]) if length > CHUNK * BUFFERS else None
        left, read = length, gunicorn_server.direct_reader(request.environ, buffers) or stream.read
        while left:
            data = read(min(CHUNK, left))
            if not data:
                raise Fault(499)
            left -= len(data)
            if tally is not None:
                tally.add(data)
            if left or not (footers or tally):
                yield data
            else:
                yield bytes(data) + pack({**(footers() if footers else {}), **(tally.end() if tally else {})})
    except (OSError, EOFError, ValueError) as error:
        raise Fault(408 if isinstance(error, TimeoutError) else 499) from error
    finally:
        if tally is not None:
            tally.end()


class Upload:
    """Connections to replicas that take one object.

    :param judges: the nodes that it may go to, where it hangs on what is there (see :mod:`.judged`): the first that answers has the
        end of the body before any other, and where it holds another write, that is all.
    """

    def __init__(self, client, ring, part, path, headers, length, judges=None):
        self.client, self.part, self.path = client, part, path
        self.length = length
        self.quorum = len(headers) // 2 + 1
        self.nodes = client.nodes.usable(ring, part, len(headers)) if judges is None else iter(judges)
        self.wanted = headers
        self.judged = judges is not None
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
                if self.judged and not following and not self.answers:
                    self._finish(first)
                    self._heed()
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
                self._heed()

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
            while self.judged and not following and self.open and not self._judge(framed):
                pass
            for entry in self._readable():
                # It has made up its mind before the end of the body.
                self.open.remove(entry)
                answer = self.client.answer(entry[0], entry[1], 'PUT')
                if answer is not None:
                    answer.keep = False
                    self._settle(answer)
                    self._heed()
            for entry in list(self.open):
                try:
                    entry[0].sock.sendall(framed)
                except OSError as error:
                    self.open.remove(entry)
                    self._broken_off(*entry[:2], error)
            if following and len(self.open) + sum(a.status // 100 == 2 for a in self.answers) < self.quorum:
                self._judge_refusals()
            data = following
        if chunked:
            for entry in list(self.open):
                try:
                    entry[0].sock.sendall(b'0\r\n\r\n')
                except OSError:
                    self.open.remove(entry)

    def _broken_off(self, connection, node, error):
        """A server takes no more: it may have said why."""
        if isinstance(error, TimeoutError):
            connection.close()
            self.client.node_failed(node, error)
        elif (answer := self.client.answer(connection, node, 'PUT')) is not None:
            answer.keep = False
            self._settle(answer)
            self._heed()

    def _judge(self, framed):
        """The end of the body to the first replica alone; whether it has answered."""
        connection, node, _ = self.open.pop(0)
        try:
            connection.sock.sendall(framed + (b'' if self.length is not None else b'0\r\n\r\n'))
        except OSError:
            pass        # It may have refused before the end of the body: its answer says so.
        answer = self.client.answer(connection, node, 'PUT')
        if answer is None:
            return False
        self._settle(answer)
        self._heed()
        self.judged = False     # The answers of all others are waited for: what is held after its release is in the way of others.
        return True

    def _heed(self):
        """Where one holds another write, it is of no use to go on."""
        if self.judged and self.answers and self.answers[-1].status == 423:
            raise Refused

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
    """It is of no use to go on, as the servers' ``answers`` say."""
