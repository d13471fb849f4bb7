"""Byte ranges of a request, and the body of an answer with several of them."""
import uuid

from kodiak.common.numbers import natural

END = 10 ** 19
MAX_RANGES = 50
MAX_OVERLAPS = 2


def parse(header, length):
    """The ranges that a Range header asks for.

    :returns: ``[(start, end), ...]``, end exclusive; ``[]`` if none can be satisfied; None if the header is to be ignored.
    """
    unit, _, text = header.partition('=')
    if unit.strip().lower() != 'bytes' or not text:
        return None
    spans, asked = [], 0
    for item in text.split(','):
        item = item.strip()
        if not item:
            continue
        asked += 1
        first, dash, last = item.partition('-')
        first, last = first.strip(), last.strip()
        if not dash or (first and number(first) is None) or (last and number(last) is None) or not (first or last):
            return None
        if not first:
            count = number(last)
            if count and length:
                spans.append((max(0, length - count), length))
        else:
            start = number(first)
            end = number(last) + 1 if last else length
            if last and end <= start:
                return None
            if start < length:
                spans.append((start, min(end, length)))
    if not asked:
        return None
    if asked > MAX_RANGES or sum(a[0] < b[1] and b[0] < a[1] for i, a in enumerate(spans) for b in spans[:i]) > MAX_OVERLAPS:
        return []
    return spans


def number(text):
    """As :func:`natural`, but one that is longer than any size and any moment is not wrong: it is 10 ** 19 then."""
    return natural(text) if len(text) < 20 or not (text.isascii() and text.isdigit()) else END


class Multipart:
    """The body of a multipart/byteranges answer."""

    def __init__(self, spans, total, content_type, open_range):
        self.boundary = uuid.uuid4().hex
        self.content_type = f'multipart/byteranges;boundary={self.boundary}'
        self.open_range = open_range
        self.parts = [((f'\r\n--{self.boundary}\r\n' if index else f'--{self.boundary}\r\n')
                       + f'Content-Type: {content_type}\r\nContent-Range: bytes {start}-{end - 1}/{total}\r\n\r\n', start, end)
                      for index, (start, end) in enumerate(spans)]
        self.tail = f'\r\n--{self.boundary}--'
        self.length = sum(len(head) + end - start for head, start, end in self.parts) + len(self.tail)
        self.current = None

    def __iter__(self):
        for head, start, end in self.parts:
            yield head.encode('latin-1')
            self.current = self.open_range(start, end)
            yield from self.current
        yield self.tail.encode()

    def close(self):
        """Let go of the part that is being read."""
        close = getattr(self.current, 'close', None)
        if close:
            close()
