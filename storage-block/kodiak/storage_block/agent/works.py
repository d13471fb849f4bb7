"""The works of a host: in the order of their numbers for each resource, those of different resources side by side."""
import logging
import threading
from concurrent import futures

from kodiak.common import errors
from kodiak.storage_block import ticket
from kodiak.storage_block.drivers.base import Fault

LOG = logging.getLogger(__name__)
TRIES = 4
PAUSE = 2.0         # seconds before the second try of what failed and may succeed yet; doubled each time


class Works:
    """Does what :meth:`update` says.

    :param perform: ``perform(work)`` does one, and returns its result. :param forget: ``forget(number)`` is called when the
        conductor has taken note of one. :param done: ``done()`` is called when there is something to be reported.
    :param progress: ``progress(number, percent)`` tells the conductor; False means that the work is cancelled.
    """

    def __init__(self, perform, forget, done, progress, threads=4):
        self.perform, self.forget, self.done, self.progress = perform, forget, done, progress
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix='work')
        self._lock = threading.Condition()
        self._wanted = {}           # number -> work that is not done
        self._running = {}          # number -> ticket
        self._outcomes = {}         # number -> what is to be reported
        self._told = set()          # numbers whose outcome the conductor has
        self._stopping = False

    def update(self, works):
        """All that the conductor lists now."""
        with self._lock:
            listed = {work['number']: work for work in works}
            for number, running in self._running.items():
                if number not in listed:
                    running.cancel()
            for number in [number for number in {*self._outcomes, *self._told} if number not in listed]:
                self._outcomes.pop(number, None)
                self._told.discard(number)
                self.forget(number)
            self._wanted = {number: work for number, work in listed.items()
                            if number not in self._outcomes and number not in self._told}
            self._dispatch()

    def _dispatch(self):
        """Begin what may begin: for each resource the first of its works, when none of it runs."""
        if self._stopping:
            return
        busy = {running.resource for running in self._running.values()}
        for number in sorted(self._wanted):
            work = self._wanted[number]
            if number in self._running or work['resource_id'] in busy:
                continue
            busy.add(work['resource_id'])
            made = ticket.Ticket(lambda percent, number=number: self.progress(number, percent))
            made.resource = work['resource_id']
            self._running[number] = made
            self._pool.submit(self._work, number, work, made)

    def _work(self, number, work, made):
        outcome = None
        try:
            with ticket.working(made):
                outcome = {'number': number, 'result': self._tried(work, made)}
        except ticket.Cancelled:
            LOG.info('%s of %s was cancelled', work['kind'], work['resource_id'])
        except Fault as fault:
            LOG.warning('%s of %s failed: %s', work['kind'], work['resource_id'], fault.message)
            outcome = {'number': number, 'error': fault.message}
        except Exception:
            LOG.exception('%s of %s failed', work['kind'], work['resource_id'])
            outcome = {'number': number, 'error': 'The back end met an unexpected problem.'}
        with self._lock:
            del self._running[number]
            if outcome is not None and number in self._wanted:
                self._outcomes[number] = outcome
                del self._wanted[number]
            self._dispatch()
            self._lock.notify_all()
        self.done()

    def _tried(self, work, made):
        """Do a work; what may succeed at another try gets some."""
        for attempt in range(TRIES):
            made.check()
            try:
                result = self.perform(work)
                LOG.info('%s of %s is done', work['kind'], work['resource_id'])
                return result
            except (Fault, errors.Error, OSError) as error:
                final = error.final if isinstance(error, Fault) else not isinstance(error, OSError) and not errors.transient(error)
                if final or attempt == TRIES - 1:
                    if isinstance(error, errors.Error):
                        raise Fault('service', error.message)
                    raise
                LOG.warning('%s of %s is tried again: %s', work['kind'], work['resource_id'], error)
                with self._lock:
                    self._lock.wait_for(lambda: self._stopping or made.cancelled, PAUSE * 2 ** attempt)
        raise AssertionError

    def outcomes(self):
        """What the conductor has not heard yet."""
        with self._lock:
            return [outcome for number, outcome in self._outcomes.items() if number not in self._told]

    def told(self, outcomes):
        """The conductor has heard it."""
        with self._lock:
            for outcome in outcomes:
                self._told.add(outcome['number'])

    def idle(self, timeout):
        """Wait until nothing is to be done. Returns False if that takes longer."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running and not self._wanted, timeout)

    def stop(self, timeout=20):
        """Begin no more, and cut off what runs: it is begun again after the start."""
        with self._lock:
            self._stopping = True
            for running in self._running.values():
                running.cancel()
            self._lock.notify_all()
            self._lock.wait_for(lambda: not self._running, timeout)
        self._pool.shutdown(wait=False)
