"""Pieces that are written, as an iterable for a client library that wants to read the body of a request."""
import queue
import threading


class Broken(Exception):
    """The writer gave up."""


class Pipe:
    """Runs ``consume(pieces)`` in a thread; what is written comes out of the iterable ``pieces``.

    Exactly one of :meth:`close` and :meth:`abort` ends it.
    """

    AHEAD = 2

    def __init__(self, consume):
        self._queue = queue.Queue(self.AHEAD)
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run, args=(consume,), name='pipe', daemon=True)
        self._thread.start()

    def _run(self, consume):
        try:
            self._result = consume(self._pieces())
        except BaseException as error:  # raised again by whoever writes or closes
            self._error = error

    def _pieces(self):
        while (piece := self._queue.get()) is not None:
            if piece is Broken:
                raise Broken
            yield piece

    def _put(self, piece):
        while self._thread.is_alive():
            try:
                return self._queue.put(piece, timeout=1)
            except queue.Full:
                continue
        if self._error is not None and piece is not Broken:
            raise self._error

    def write(self, data):
        """The next piece, not empty; raises what ``consume`` raised."""
        self._put(data)

    def close(self):
        """The end: what ``consume`` returned, or raised."""
        self._put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def abort(self):
        """Break off: ``consume`` gets :class:`Broken` out of its iterable."""
        self._put(Broken)
        self._thread.join()
