"""An object out of fragments: those of one write are gathered from enough devices, decoded as they come, and replaced by others
where one breaks off, stops or is damaged. All devices are read from at once, each as far as one segment needs.
"""
import itertools
import time

import orjson

from ..backend.fragments import PREFERENCES
from ..erasure import Damaged
from . import backend
from .http import Fault, HeaderDict

CONDITIONS = ('If-Match', 'If-None-Match', 'If-Modified-Since', 'If-Unmodified-Since', 'Range')
WHOLE = {200, 206}
SAYING = {304, 412, 416}


class Search:
    """Asks devices for fragments until there are enough of the newest write that holds.

    A write holds if a device says that it is durable; which one needs to, as that is only said after enough have stored it.
    """

    def __init__(self, client, ring, part, path, headers, codec):
        self.client, self.part, self.path, self.headers, self.codec = client, part, path, headers, codec
        nodes = list(client.nodes.usable(ring, part, codec.replicas))
        places = {node['id']: place for place, node in enumerate(ring.primaries(part))}
        # The data itself first: it need not be calculated.
        nodes.sort(key=lambda node: places.get(node['id'], codec.replicas) % codec.count >= codec.data
                   if node['id'] in places else 2)
        self.nodes, self.asked = iter(nodes), []
        self.found = {}         # {timestamp: {number: answer}}
        self.said = {}          # {timestamp: answer without a body}
        self.held = {}          # {timestamp: [(node, numbers)]}
        self.durable, self.gone = set(), ''
        self.missing = backend.Absences(ring, part)

    def run(self):
        """``(timestamp, {number: answer})``, or an answer that needs no body. Raises 404 and 503."""
        try:
            return self._run()
        except BaseException:
            self._close(self.found.values())
            raise

    def _run(self):
        while True:
            best = max(self.durable, default=None)
            have = {} if best is None else self.found.get(best, {})
            if best is not None and (best in self.said or len(have) >= self.codec.data) and max(self.held, default='') <= best:
                break
            preferences = None if best is None else {'stamp': best, 'not': list(have)}
            if not self._ask(self.codec.data - len(have) if len(have) < self.codec.data else self.codec.replicas, preferences):
                break
        best = max(self.durable, default=None)
        if best is None or self.gone >= best:
            raise Fault(404 if self.missing.certain or self.gone else 503)
        if best in self.said:
            self._close(self.found.values())
            return self.said[best]
        have = self.found.setdefault(best, {})
        for node, numbers in self.held.get(best, ()):
            # Devices that have more than one of its fragments.
            while len(have) < self.codec.data and set(numbers) - set(have) and self._more(node, best, have):
                pass
        if len(have) < self.codec.data:
            raise Fault(503)
        for number in sorted(have)[self.codec.data:]:
            have.pop(number).close()
        self._close(answers for stamp, answers in self.found.items() if stamp != best)
        return best, have

    @staticmethod
    def _close(found):
        for answers in found:
            for answer in answers.values():
                answer.close()

    def _ask(self, count, preferences):
        """Ask so many devices at once; False if there are no more."""
        headers = {**self.headers, PREFERENCES: orjson.dumps(preferences or {}).decode()}
        waiting = []
        for node in itertools.islice(self.nodes, count):
            self.asked.append(node)
            head = backend.head_of('GET', f'/{node["device"]}/{self.part}{self.path}', headers)
            waiting.append((node, head, self.client.connect(node, head)))
        for node, answer in self.client.answers(waiting, 'GET'):
            self._note(node, answer)
        return bool(waiting)

    def _note(self, node, answer):
        if answer is None:
            return
        get = answer.headers.get
        durable, stamp = get('X-Backend-Durable-Timestamp'), get('X-Backend-Data-Timestamp')
        number = get('X-Backend-Fragment-Index')
        if durable:
            self.durable.add(durable)
        for each, numbers in orjson.loads(get('X-Backend-Fragments') or '{}').items():
            self.held.setdefault(each, []).append((node, numbers))
        if answer.status in WHOLE and stamp and number is not None:
            known = self.found.setdefault(stamp, {})
            if int(number) in known:
                answer.close()
            else:
                known[int(number)] = answer
            if not durable:
                self.missing.add(node)
            return
        answer.close()
        if answer.status in SAYING and stamp:
            self.said.setdefault(stamp, answer)
        elif answer.status == 404:
            if not durable:
                self.missing.add(node)
            self.gone = max(self.gone, get('X-Backend-Timestamp') or '')

    def _more(self, node, stamp, have):
        """Another fragment of a device; False if it does not give one."""
        headers = {**self.headers, PREFERENCES: orjson.dumps({'stamp': stamp, 'not': list(have)}).decode()}
        answer = self.client.ask(node, 'GET', self.part, self.path, headers)
        if answer is None:
            return False
        number = answer.headers.get('X-Backend-Fragment-Index')
        if answer.status in WHOLE and answer.headers.get('X-Backend-Data-Timestamp') == stamp and int(number) not in have:
            have[int(number)] = answer
            return True
        answer.close()
        return False

    def replace(self, stamp, start, end, unwanted):
        """``(number, answer)`` of another fragment for the rest of a download. Raises OSError if there is none."""
        self.headers = {n: v for n, v in self.headers.items() if n not in CONDITIONS} | {'Range': f'bytes={start}-{end - 1}'}
        have = dict.fromkeys(unwanted)
        for node in itertools.chain(self.nodes, list(self.asked)):
            if node not in self.asked:
                self.asked.append(node)
            if not self.client.nodes.out(node) and self._more(node, stamp, have):
                number, answer = have.popitem()
                return number, answer
        raise OSError('too few fragments of the object can be read')


class Fragments:
    """The fragments of one number, as they come."""

    def __init__(self, answer):
        self.answer, self._parts, self._missing = answer, [], 0

    def read(self, size):
        """So many bytes, whatever that takes."""
        self.want(size)
        while not self.is_whole:
            self.fill()
        return self.take()

    def want(self, size, seconds=0):
        """Begin with the next one, of so many bytes; with so many seconds until some of it comes, each time."""
        self._parts, self._missing, self._seconds = [], size, seconds
        self.deadline = time.monotonic() + seconds

    @property
    def is_whole(self):
        """Whether all of it has come."""
        return not self._missing

    def fill(self):
        """Take what has come."""
        data = self.answer.some(self._missing)
        self._parts.append(data)
        self._missing -= len(data)
        self.deadline = time.monotonic() + self._seconds

    def take(self):
        """The fragment."""
        return b''.join(self._parts)

    def close(self):
        """Let go of the device."""
        self.answer.close()


class Decoded:
    """An answer (``status``, ``headers``, ``node``) whose body, when it is gone through, is the object's."""

    def __init__(self, search, stamp, answers):
        self.search, self.stamp = search, stamp
        newest = max(answers.values(), key=lambda answer: answer.headers.get('X-Backend-Timestamp', ''))
        self.status, self.node = newest.status, newest.node
        self.headers = HeaderDict(newest.headers.items())
        self.length, self.segment = int(newest.headers['X-Backend-Content-Length']), int(newest.headers['X-Backend-Segment-Size'])
        self.start, self.end = 0, self.length
        if self.status == 206:
            first, _, last = newest.headers['Content-Range'].split(' ', 1)[1].split('/')[0].partition('-')
            self.start, self.end = int(first), int(last) + 1
        self.headers['Content-Length'] = str(self.end - self.start)
        self.fragment = int(newest.headers['X-Backend-Fragment-Size'])
        self.sources = {number: Fragments(answer) for number, answer in answers.items()}
        self.unwanted = set()

    def __iter__(self):
        codec = self.search.codec
        for place in range(self.start // self.segment * self.segment, self.end, self.segment):
            rest = min(self.segment, self.length - place)
            size = self.fragment if rest == self.segment else codec.fragment_size(rest)
            data = codec.decode(self._read(place, size))
            yield data if self.start <= place and self.end >= place + rest else data[max(0, self.start - place):self.end - place]

    def _read(self, place, size):
        codec, found, patience = self.search.codec, {}, self.search.client.pool.node_timeout
        for source in self.sources.values():
            source.want(size, patience)
        while len(found) < codec.data:
            while len(self.sources) < codec.data:
                number, answer = self.search.replace(self.stamp, place, self.end, self.unwanted | set(self.sources))
                self.sources[number] = Fragments(answer)
                self.sources[number].want(size, patience)
            self._wait([number for number in self.sources if number not in found])
            for number, source in list(self.sources.items()):
                if number not in found and source.is_whole:
                    try:
                        codec.check(source.take(), number)
                        found[number] = source.take()
                    except Damaged as error:
                        self._drop(number, error)
        return [found[number] for number in sorted(found)]

    def _wait(self, numbers):
        """Until more has come from any of some devices, or one has been silent for too long."""
        waiting = {number: self.sources[number].answer.connection for number in numbers}
        deadline = min(self.sources[number].deadline for number in numbers)
        ready = backend.readable([each for each in waiting.values() if each is not None],
                                 0 if None in waiting.values() else max(0, deadline - time.monotonic()))
        for number, connection in waiting.items():
            source = self.sources[number]
            try:
                if connection is None or connection in ready:
                    source.fill()
                elif time.monotonic() >= source.deadline:
                    raise TimeoutError('nothing comes')
            except backend.ERRORS as error:
                self._drop(number, error)

    def _drop(self, number, error):
        source = self.sources.pop(number)
        self.search.client.node_failed(source.answer.node, error)
        source.close()
        self.unwanted.add(number)

    def close(self):
        """Let go of all devices."""
        for source in self.sources.values():
            source.close()


def find(client, ring, part, path, headers, codec):
    """As :meth:`.objects.Objects._find`: an answer with the object's own headers, whose body is to be gone through."""
    search = Search(client, ring, part, path, headers, codec)
    found = search.run()
    return Decoded(search, *found) if isinstance(found, tuple) else found
