"""Reconcilers: they take no input, look at what should be and what is, and close the difference.

``look(since)`` asks what should be; ``bring(key, wanted)`` makes one thing so. A hint (:meth:`Reconciler.nudge`)
only makes the next look come sooner. What fails is tried again after a growing pause of its own, and
holds nothing else up.
"""
import dataclasses
import logging
import random
import threading
import time
from concurrent import futures

from kodiak.common import events, metrics

LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class Wanted:
    """What a look brought: ``items`` (key to anything JSON-like), as of ``generation``.

    :param full: True if ``items`` is everything that should be; what else the reconciler knows of is then unwanted.
        Otherwise only what changed since the generation asked for, an unwanted key with the value None.
    """

    generation: int
    items: dict
    full: bool = False


class Reconciler:
    """A level-driven loop.

    :param look: ``look(since)`` returns a :class:`Wanted`, or None if nothing changed since that generation
        (``since`` is None at the first look, after :meth:`resync`, and every ``full_interval`` seconds).
    :param bring: ``bring(key, wanted)`` makes it so, and changes nothing where it is so already; ``wanted`` is None
        where there should be nothing. Never runs twice at once for one key.
    :param interval: seconds between two looks when nobody nudges.
    :param threads: how many keys are worked on at the same time.
    """

    def __init__(self, name, look, bring, interval=10.0, full_interval=300.0, threads=1, max_backoff=60.0,
                 clock=time.monotonic):
        self.name, self.look, self.bring = name, look, bring
        self.interval, self.full_interval, self.max_backoff, self.clock = interval, full_interval, max_backoff, clock
        self.generation = None
        self._wanted = {}           # key -> what should be, as last heard
        self._due = {}              # key -> when it is to be brought about
        self._failures = {}         # key -> (how often in a row, the last error)
        self._changed = set()       # what was heard since it was last brought about: worth an event
        self._running = set()
        self._again = set()         # keys that were changed while they were worked on
        self._happened = set()      # keys that something happened to while they were worked on
        self._condition = threading.Condition()
        self._look_at, self._full_at = 0.0, 0.0
        self._stopping = False
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._thread = None
        self._look_failures = 0

    def start(self):
        """Begin to look."""
        self._thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        self._thread.start()
        metrics.collect('reconcilers', self._collect)

    def stop(self, timeout=30):
        """Look no more and wait for what is being brought about."""
        metrics.forget('reconcilers', self._collect)
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            drained = self._condition.wait_for(lambda: not self._running, timeout)
        self._pool.shutdown(wait=False)
        return drained

    def nudge(self, key=None):
        """Look now; with ``key``, also bring that key about again at once, whatever its pause."""
        with self._condition:
            self._look_at = 0.0
            if key is not None:
                self._schedule(key, 0.0)
            self._condition.notify_all()

    def again(self, key):
        """Bring ``key`` about again soon, without a look: something happened to it here. Nothing is done about a key
        of which it is not known what it should be, and one that failed keeps its pause: the event may be of the
        failure's own making."""
        with self._condition:
            if self._wanted.get(key) is None or key in self._failures:
                return
            if key in self._running:
                self._happened.add(key)
            else:
                self._due[key] = 0.0
                self._condition.notify_all()

    def resync(self):
        """Ask for everything at the next look, which is now."""
        with self._condition:
            self._full_at = self._look_at = 0.0
            self._condition.notify_all()

    @property
    def failing(self):
        """``{key: error}`` of what could not be brought about at its last try."""
        with self._condition:
            return {key: error for key, (_, error) in self._failures.items()}

    def run_once(self):
        """Look, and bring about all that is due, in the calling thread (tests, commands).

        :returns: the keys that were worked on.
        """
        self._look()
        done = []
        while (key := self._take()) is not None:
            self._bring(key)
            done.append(key)
        return done

    def _loop(self):
        while True:
            with self._condition:
                if self._stopping:
                    return
                now = self.clock()
                upcoming = [when for key, when in self._due.items() if key not in self._running]
                pause = min([self._look_at, *upcoming]) - now
                if pause > 0:
                    self._condition.wait(pause)
                    continue
            if self._look_at <= self.clock():
                self._look()
            while (key := self._take()) is not None:
                self._pool.submit(self._bring, key)

    def _look(self):
        with self._condition:
            now = self.clock()
            full = self.generation is None or now >= self._full_at
            since = None if full else self.generation
            self._look_at = now + self.interval * random.uniform(0.9, 1.1)
        try:
            wanted = self.look(since)
        except Exception as error:
            self._look_failures += 1
            LOG.warning('%s cannot learn what should be: %s', self.name, error,
                        exc_info=LOG.isEnabledFor(logging.DEBUG))
            with self._condition:
                pause = min(self.interval, 0.5 * 2 ** min(self._look_failures, 10))
                self._look_at = min(self._look_at, self.clock() + pause)
            return
        self._look_failures = 0
        if wanted is None:
            return
        with self._condition:
            if full:
                self._full_at = now + self.full_interval
            items = dict(wanted.items)
            if wanted.full:
                items.update((key, None) for key in self._wanted if key not in items)
            for key, value in items.items():
                # A full look goes over everything, so what drifted on the host is put right.
                changed = key not in self._wanted or self._wanted[key] != value
                if changed:
                    self._changed.add(key)
                    self._wanted[key] = value
                if changed or wanted.full:
                    self._schedule(key, 0.0)
            self.generation = wanted.generation

    def _schedule(self, key, when):
        if key in self._running:
            self._again.add(key)
        else:
            self._due[key] = when

    def _take(self):
        with self._condition:
            now = self.clock()
            for key, when in self._due.items():
                if when <= now and key not in self._running and not self._stopping:
                    del self._due[key]
                    self._running.add(key)
                    return key
        return None

    def _bring(self, key):
        wanted = self._wanted.get(key)
        began = time.monotonic()
        problem = None
        try:
            self.bring(key, wanted)
        except Exception as error:
            problem = error
        outcome, seconds = 'failed' if problem else 'done', time.monotonic() - began
        metrics.reconciled(self.name, outcome, seconds)
        if problem or key in self._changed:
            events.emit('reconcile', wanted.get('request_id') if isinstance(wanted, dict) else None, name=self.name,
                        key=str(key), outcome=outcome, ms=round(seconds * 1000, 1), error=problem and str(problem))
        with self._condition:
            self._running.discard(key)
            if problem is not None:
                count = self._failures.get(key, (0,))[0] + 1
                self._failures[key] = (count, problem)
                pause = min(self.max_backoff, 0.5 * 2 ** min(count, 10)) * random.uniform(0.8, 1.2)
                self._due[key] = self.clock() + pause
                log = LOG.warning if count > 1 else LOG.info
                log('%s: %s failed (%d in a row), again in %.0f s: %s', self.name, key, count, pause, problem,
                    exc_info=LOG.isEnabledFor(logging.DEBUG))
            else:
                self._failures.pop(key, None)
                if self._wanted.get(key) == wanted:
                    self._changed.discard(key)
                if wanted is None and self._wanted.get(key) is None:
                    self._wanted.pop(key, None)
            if key in self._again or (key in self._happened and problem is None):
                self._due[key] = 0.0
            self._again.discard(key)
            self._happened.discard(key)
            self._condition.notify_all()

    def _collect(self):
        with self._condition:
            yield {'reconciler': self.name, 'state': 'running'}, len(self._running), 0
            yield {'reconciler': self.name, 'state': 'waiting'}, len(self._due), 0
            yield {'reconciler': self.name, 'state': 'failing'}, len(self._failures), 0
