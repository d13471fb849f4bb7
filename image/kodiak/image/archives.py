"""What the readers of packed data have in common (:mod:`.unpack`, :mod:`.lha`)."""
import re

from kodiak.common import errors

PIECE = 1 << 20


def check_name(name, kind):
    """``BadRequest`` for the name of a member that is not a place below the archive's own."""
    parts = re.split(r'[/\\]', name)
    if not name or '..' in parts or not parts[0] or re.match(r'[A-Za-z]:', name) or '\0' in name:
        raise errors.BadRequest(f'The {kind} names a file outside of itself ({name[:80]!r}), which is not accepted.')


class Input:
    """A source that can be looked ahead in."""

    def __init__(self, read):
        self._read = read
        self._ahead = b''

    def read(self, size):
        """Up to ``size`` bytes; b'' at the end."""
        if self._ahead:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._read(size)

    def exactly(self, size):
        """``size`` bytes; ``BadRequest`` where the data ends before."""
        parts = []
        while size:
            data = self.read(size)
            if not data:
                raise errors.BadRequest('The packed data ends too early.')
            parts.append(data)
            size -= len(data)
        return b''.join(parts)

    def back(self, data):
        """Put data back in front."""
        self._ahead = data + self._ahead


class Reader:
    """Gives the content of packed data: ``read(size)`` gives the next piece, b'' at the end.

    :raises BadRequest: the data is damaged, or holds what an image must not come from.
    """

    def close(self):
        """Let go of what the reader made to read; the source is the caller's."""
