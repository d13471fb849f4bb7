"""Writes that hang on what is there: a majority of an object's own devices judges, and what is refused leaves nothing behind.

The devices hold such a write first (see :mod:`~kodiak.storage_object.backend.held`): that can be undone, and keeps others off. A
handoff does not know what is there, so it judges nothing. The first device is asked before the others: of writes that race, one
comes to be held there. If a majority holds the write, and none of the others has anything newer, it is put in its place, where the
condition is looked at once more; any two majorities have a device in common, so of two such writes that exclude each other one is
refused, whatever devices their proxies see. When a majority has it in its place, what was there before goes. In any other case all
devices are told to be as if there had been no such write, before the client has its answer.
"""
import time

from ..backend.held import HEADERS, SECONDS
from .http import Fault

REFUSALS = (409, 412, 423)
PATIENCE = 1            # seconds that a write waits for what becomes of another that is held before it
LATER = 'Another write of the object is under way'


def conditions(headers):
    """Those of the headers that are conditions; empty where a write has none."""
    return {name: headers[name] for name in HEADERS if name in headers}


def busy(answers):
    """The answer of a device that holds another write, or None."""
    return next((answer for answer in answers if answer.status == 423), None)


class Judgement:
    """The steps of one write.

    :param each: the headers for each replica: whom to tell. :param wanted: the conditions (see :func:`conditions`).
    """

    def __init__(self, client, ring, part, path, each, wanted):
        self.client, self.part, self.path = client, part, path
        primaries = ring.primaries(part)
        self.nodes = [node for node in primaries if not client.nodes.out(node)]
        self.need = len(primaries) // 2 + 1
        self._ids = {node['id'] for node in primaries}
        self._each, self._wanted = each, wanted

    def run(self, hold, stored=0, placed=0, good=(201,)):
        """Have a write held, judge, and put it in its place; the answers of the devices to that.

        :param hold: a function that does the first; gives the devices' answers.
        :param stored: how many of all devices are to hold it, where that is more than a majority of its own; ``placed``: and are to
            have it in its place. :param good: their answers to that.
        Where too few hold it, though none refuses it, the answers of the others to that. Raises 412 and 409 where it is refused,
        503 where too few devices know, and what ``hold`` raises.
        """
        if len(self.nodes) < self.need:
            raise Fault(503)
        answers, began = [], time.monotonic()
        try:
            answers = hold()
            enough = self._judge(answers)
            held = [answer.node for answer in answers if answer.status // 100 == 2]
            if not enough or len(held) < stored:
                self._refuse(answers)       # Handoffs judge nothing, but have no place for a second write, or an older one.
                self._release(answers)
                return [answer for answer in answers if answer.status // 100 != 2]
            if time.monotonic() - began > SECONDS / 2:
                raise Fault(503)
            done = self._tell(held, 'commit', self._wanted)
            found = [answer for answer in done if answer.status in good]
            if len(found) < placed or len(self._own(found)) < self.need:
                raise Fault(412 if any(answer.status in (409, 412) for answer in done) else 503)
        except _Busy as met:
            self._release(answers)
            raise self._outcome(met.answer) from None
        except BaseException:
            self._release(answers)
            raise
        self._tell(held, 'settle')
        return found

    def delete(self, quorum):
        """A deletion, all of it; the answers of the devices."""
        each = [(node, {**self._each[place % len(self._each)], 'Content-Length': '0'}) for place, node in enumerate(self.nodes)]

        def hold():
            answers = []
            while each and not answers:
                answers = self.client.ask_each('DELETE', self.part, self.path, [each.pop(0)])
            return answers if busy(answers) else answers + self.client.ask_each('DELETE', self.part, self.path, each)
        return self.run(hold, quorum, quorum, (204, 404))

    def _own(self, answers):
        return [answer for answer in answers if answer.node['id'] in self._ids]

    def _judge(self, answers):
        """Whether enough devices hold a write. Raises where they refuse it."""
        own = self._own(answers)
        held = [answer for answer in own if answer.status // 100 == 2]
        refusals = [answer for answer in own if answer.status in REFUSALS]
        newest = max((_stamp(answer) for answer in held), default='')
        against = [answer for answer in refusals if answer.status != 423 and _stamp(answer) > newest]
        if len(held) >= self.need and not against:
            return True
        if busy(refusals) is not None:
            self._refuse(refusals)
        if len(held) + len(refusals) >= self.need:
            self._refuse(against)
        return False

    @staticmethod
    def _refuse(answers):
        """Raise as the devices that refuse a write say; nothing where none does."""
        if (other := busy(answers)) is not None:
            raise _Busy(other)
        statuses = {answer.status for answer in answers}
        if 412 in statuses:
            raise Fault(412)
        if 409 in statuses:
            raise Fault(409, LATER)

    def _outcome(self, answer):
        """What to say where another write is held: 412 if it takes its place soon, so that the condition does not hold any more."""
        deadline, stamp = time.monotonic() + PATIENCE, _stamp(answer)
        headers = {'X-Backend-Storage-Policy-Index': self._each[0]['X-Backend-Storage-Policy-Index']}
        while time.monotonic() < deadline:
            found = self.client.ask(answer.node, 'HEAD', self.part, self.path, headers)
            if found is None:
                break
            found.close()
            there = found.headers.get('X-Backend-Data-Timestamp') or found.headers.get('X-Backend-Timestamp') or ''
            if there >= stamp:
                return Fault(412) if found.status == 200 or 'X-Backend-If-Not-After' in self._wanted else Fault(409, LATER)
            time.sleep(0.02)
        return Fault(409, LATER)

    def _tell(self, nodes, what, more=None):
        each = [(node, {**self._each[place % len(self._each)], **(more or {}), 'X-Backend-Held': what, 'Content-Length': '0'})
                for place, node in enumerate(nodes)]
        return self.client.ask_each('POST', self.part, self.path, each)

    def _release(self, answers):
        nodes = {node['id']: node for node in (*self.nodes, *(answer.node for answer in answers))}
        for answer in answers:
            if answer.status in REFUSALS:
                nodes.pop(answer.node['id'], None)      # it has nothing of it
        self._tell(list(nodes.values()), 'release')


class _Busy(Exception):
    """A device holds another write; ``answer`` says so."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer


def _stamp(answer):
    return answer.headers.get('X-Backend-Timestamp') or ''
