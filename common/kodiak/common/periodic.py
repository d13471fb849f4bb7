"""What a process does again and again in a thread of its own, whatever goes wrong in it.

::

    runtime.background.append(periodic.Periodic('housekeeping', clear, interval=600))

Nothing that must happen may depend on the hour at which it does: who needs a moment kept writes it into a row.
"""
import logging
import threading

LOG = logging.getLogger(__name__)


class Periodic:
    """Calls ``work()`` every ``interval`` seconds from ``start()`` to ``stop()``, and sooner when nudged.

    :param name: of the thread; the log says that it failed.
    :param interval: seconds from the end of one call to the next, or a function that returns them.
    :param at_once: call for the first time when started, rather than after an interval.
    :param hears: ``(db, kind)``: be nudged by what this host's processes commit, see :mod:`kodiak.common.wake`.
    :param expected: exceptions (a class, or a tuple) that need no traceback in the log.
    """

    def __init__(self, name, work, interval, *, at_once=False, hears=None, expected=()):
        self.name, self.work, self.interval, self.at_once = name, work, interval, at_once
        self.hears, self.expected = hears, expected
        self.stopping = False
        self._event = threading.Event()
        self._thread = None

    def start(self):
        """Begin."""
        self.stopping = False
        self._event.clear()
        if self.hears:
            from kodiak.common import wake  # agents have no database, and need not carry SQLAlchemy
            wake.listen(*self.hears, self.nudge)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout=10):
        """End: what is under way is waited for, so many seconds at most."""
        self.stopping = True
        self._event.set()
        if self.hears:
            from kodiak.common import wake
            wake.forget(*self.hears, self.nudge)
        if self._thread is not None:
            self._thread.join(timeout)

    def nudge(self):
        """Do it now."""
        self._event.set()

    def _run(self):
        if not self.at_once:
            self._pause()
        while not self.stopping:
            self._event.clear()
            try:
                self.work()
            except Exception as error:
                LOG.warning('%s failed, and is tried again: %s', self.name, error, exc_info=not isinstance(error, self.expected))
            self._pause()

    def _pause(self):
        self._event.wait(self.interval() if callable(self.interval) else self.interval)
