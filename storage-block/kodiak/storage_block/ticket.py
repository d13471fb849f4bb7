"""The work that a thread of the agent is on: how far it is, and whether it is still wanted.

Long loops call :func:`check`. Outside of a work nothing is checked.
"""
import contextlib
import contextvars
import threading
import time

_current = contextvars.ContextVar('ticket', default=None)
EVERY = 3       # seconds between two reports of progress


class Cancelled(Exception):
    """The work is wanted no more."""


class Ticket:
    """One work.

    :param tell: ``tell(percent)`` reports the progress, and says False where the work was cancelled.
    """

    def __init__(self, tell=None):
        self._tell = tell
        self._cancelled = threading.Event()
        self._told_at = time.monotonic()

    @property
    def cancelled(self):
        """Whether it is wanted no more."""
        return self._cancelled.is_set()

    def cancel(self):
        """It is wanted no more."""
        self._cancelled.set()

    def check(self, percent=None):
        """:raises Cancelled: it is wanted no more."""
        now = time.monotonic()
        if percent is not None and self._tell is not None and now - self._told_at >= EVERY:
            self._told_at = now
            if self._tell(int(percent)) is False:
                self.cancel()
        if self._cancelled.is_set():
            raise Cancelled


@contextlib.contextmanager
def working(ticket):
    """What runs within is the work of ``ticket``."""
    token = _current.set(ticket)
    try:
        yield ticket
    finally:
        _current.reset(token)


def check(done=None, total=None):
    """Say how far the work of this thread is (``done`` of ``total``). :raises Cancelled: it is wanted no more."""
    ticket = _current.get()
    if ticket is not None:
        ticket.check(None if not total else min(100, 100 * done // total))
