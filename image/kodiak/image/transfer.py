"""Data on its way into a store: read, hashed, inspected and written in one pass and in constant memory."""
import hashlib
import queue
import threading

from kodiak.common import errors

from . import formats

CHUNK = 1 << 20
#: Pieces that wait for a slower hash: what an upload may hold in memory, times CHUNK.
AHEAD = 4
#: How many of the first bytes are kept, to tell archives by.
BEGINS = 64


class Hash:
    """One digest, computed by a thread of its own from the second piece on: hashlib lets go of the GIL."""

    def __init__(self, algorithm):
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._queue = None
        self._thread = None
        self._first = True

    def update(self, data):
        """The next piece."""
        if self._thread is not None:
            self._queue.put(data)
        elif self._first:
            self._first = False
            self._hash.update(data)
        else:
            self._queue = queue.Queue(AHEAD)
            self._thread = threading.Thread(target=self._run, name='hash', daemon=True)
            self._thread.start()
            self._queue.put(data)

    def _run(self):
        while (data := self._queue.get()) is not None:
            self._hash.update(data)

    def close(self):
        """Wait for what is under way; must be called, whatever happened."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def hexdigest(self):
        """The digest."""
        self.close()
        return self._hash.hexdigest()


class Outcome:
    """What a transfer found out.

    Attributes: ``size``, ``checksum`` (md5), ``os_hash_value`` (sha512), ``disk_format``, ``virtual_size``; ``refused``: why
    the data cannot be an image's (only where that was to be found out, not enforced); ``begins``: its first bytes.
    """

    __slots__ = ('begins', 'checksum', 'disk_format', 'os_hash_value', 'refused', 'size', 'virtual_size')

    def columns(self):
        """The columns of the image that follow."""
        return {'size': self.size, 'checksum': self.checksum, 'os_hash_algo': 'sha512', 'os_hash_value': self.os_hash_value,
                'virtual_size': self.virtual_size}

    def facts(self):
        """All of it as JSON, to be kept with a staged blob."""
        return {**self.columns(), 'disk_format': self.disk_format, 'refused': self.refused, 'begins': self.begins.hex()}


class Broken(errors.BadRequest):
    """The client went away, or sent less than it had announced."""


def copy(read, writer, inspector=None, limit=None, expected=None, alive=None):
    """Copy everything from ``read(size)`` to a store's writer.

    :param limit: most bytes that are taken; :param expected: bytes that there must be, or None.
    :param alive: ``alive(size)``, called after every piece; raises to stop (the image is gone, the lease is lost).
    :returns: :class:`Outcome`. The caller commits or aborts the writer.
    :raises RequestTooLarge: more than ``limit``; :raises BadRequest: from ``inspector``, or a wrong size.
    """
    md5, sha512 = Hash('md5'), Hash('sha512')
    inspector = inspector or formats.Inspector('raw', container='docker')
    outcome = Outcome()
    outcome.begins, outcome.refused = b'', None
    size = 0
    try:
        while data := _read(read):
            size += len(data)
            if limit is not None and size > limit:
                raise errors.RequestTooLarge(f'The image data is larger than the {limit} bytes that are allowed.')
            if len(outcome.begins) < BEGINS:
                outcome.begins = (outcome.begins + data[:BEGINS])[:BEGINS]
            md5.update(data)
            sha512.update(data)
            inspector.feed(data)
            writer.write(data)
            if alive is not None:
                alive(size)
        if expected is not None and size != expected:
            raise Broken(f'The image data has {size} bytes where {expected} were announced.')
        outcome.size = size
        try:
            outcome.disk_format, outcome.virtual_size = inspector.finish()
        except errors.BadRequest as error:
            if inspector.strict:
                raise
            outcome.disk_format, outcome.virtual_size, outcome.refused = None, None, error.message
        outcome.checksum, outcome.os_hash_value = md5.hexdigest(), sha512.hexdigest()
        return outcome
    finally:
        md5.close()
        sha512.close()


def _read(read):
    try:
        return read(CHUNK)
    except errors.Error:
        raise
    except Exception as error:
        # The server's own kinds of a broken connection or chunk coding have no common base but this.
        raise Broken(f'The image data could not be read to its end ({type(error).__name__}).') from error
