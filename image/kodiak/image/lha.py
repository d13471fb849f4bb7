"""LHA archives with one file, unpacked by ``lhasa`` (where it is installed) under the limits of conversions.

The headers are read here, so that what is no single file is refused before a program sees it. lhasa gets the archive on its
standard input and writes to its standard output: it opens no file, and may write none. It is run twice at once, as it does not
check what it gives out, only what it tests.
"""
import re
import shutil
import stat
import struct
import subprocess
import threading

from kodiak.common import errors

from . import archives, convert

_METHOD = re.compile(rb'-(lh[0-7dx]|lz[45s])-')
_FOLDER_METHOD = b'-lhd-'
_FILE, _FOLDER, _MODE, _LONG = 1, 2, 0x50, 0x42
#: Bytes that the headers of a file may have.
HEADERS = 8192
DAMAGED = 'The LHA archive is damaged.'


def begins(data):
    """Whether data that begins so is an LHA archive."""
    return len(data) > 20 and _METHOD.fullmatch(data[2:7]) is not None and data[20] in (0, 1, 2)


class Header:
    """The header of an archive's first file: ``data`` (as it stands there), ``packed`` and
    ``size`` (bytes).

    :raises BadRequest: it is damaged, or of something that is not a file below the archive's own place.
    """

    def __init__(self, source):
        self.data = source.exactly(21)
        if not begins(self.data):
            raise errors.BadRequest(DAMAGED)
        if self.data[2:7] == _FOLDER_METHOD:
            raise errors.BadRequest('The LHA archive holds a folder or a link, which is not accepted.')
        self.packed, self.size = struct.unpack('<II', self.data[7:15])
        self._names = []
        level = self.data[20]
        if level == 2:
            self._second(source)
        else:
            self._first(source, level)
        if not self._names:
            raise errors.BadRequest('The LHA archive holds a file without a name.')
        for name in self._names:
            archives.check_name(name.replace(b'\xff', b'/').decode(errors='replace'), 'LHA archive')

    def _more(self, source, size):
        if size < 0 or len(self.data) + size > HEADERS:
            raise errors.BadRequest(DAMAGED)
        got = source.exactly(size)
        self.data += got
        return got

    def _first(self, source, level):
        rest = self._more(source, self.data[0] + 2 - len(self.data))
        if not rest or len(rest) < rest[0] + 3 + 3 * level:
            raise errors.BadRequest(DAMAGED)
        if rest[0]:
            self._names.append(rest[1:1 + rest[0]])
        if level == 1:
            before = len(self.data)
            length, = struct.unpack('<H', rest[-2:])
            while length:
                length = self._extended(self._more(source, length))
            self.packed -= len(self.data) - before
            if self.packed < 0:
                raise errors.BadRequest(DAMAGED)

    def _second(self, source):
        rest = self._more(source, struct.unpack('<H', self.data[:2])[0] - len(self.data))
        if len(rest) < 5:
            raise errors.BadRequest(DAMAGED)
        length, = struct.unpack('<H', rest[3:5])
        rest = rest[5:]
        while length:
            if length > len(rest):
                raise errors.BadRequest(DAMAGED)
            part, rest = rest[:length], rest[length:]
            length = self._extended(part)

    def _extended(self, part):
        """One further header: what it says is taken note of; returns the length of the next."""
        if len(part) < 3:
            raise errors.BadRequest(DAMAGED)
        kind, value = part[0], part[1:-2]
        if kind in (_FILE, _FOLDER) and value:
            self._names.append(value)
        elif kind == _MODE and len(value) == 2 and stat.S_IFMT(int.from_bytes(value, 'little')) not in (0, stat.S_IFREG):
            raise errors.BadRequest('The LHA archive holds something that is not a file.')
        elif kind == _LONG:
            raise errors.BadRequest('The LHA archive holds a file of more than 4 GiB, which is not supported.')
        return int.from_bytes(part[-2:], 'little')


class Lha(archives.Reader):
    """The only file of an LHA archive."""

    def __init__(self, read):
        self._source = archives.Input(read)
        self._header = Header(self._source)
        self._size = 0
        self._error = None
        if shutil.which('lhasa') is None:
            raise errors.BadRequest('This service cannot unpack LHA archives: the program lhasa is not installed.')
        self._programs = [self._start(action) for action in ('pq', 'tq')]
        self._timer = threading.Timer(convert.SECONDS, self._kill)
        self._timer.daemon = True
        self._timer.start()
        self._feeder = threading.Thread(target=self._feed, name='lha', daemon=True)
        self._feeder.start()

    @staticmethod
    def _start(action):
        try:
            return subprocess.Popen(convert.confined(['lhasa', action, '-'], 0), stdin=subprocess.PIPE, cwd='/', bufsize=0,
                                    stdout=subprocess.PIPE if action == 'pq' else subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                    env=convert.ENVIRONMENT)
        except FileNotFoundError:
            raise errors.Unavailable('This host cannot unpack archives: prlimit is missing.') from None

    def _feed(self):
        try:
            self._give(self._header.data)
            left = self._header.packed
            while left:
                data = self._source.read(min(archives.PIECE, left))
                if not data:
                    raise errors.BadRequest('The LHA archive ends too early.')
                self._give(data)
                left -= len(data)
            # What follows the last file is a zero, or nothing.
            if self._source.read(1) not in (b'', b'\0'):
                raise errors.BadRequest('The LHA archive must hold one file.')
            self._give(b'\0')
        except Exception as error:  # raised again by read
            self._error = error
        finally:
            for program in self._programs:
                program.stdin.close()

    def _give(self, data):
        for program in self._programs:
            view = memoryview(data)
            try:
                while view:
                    view = view[program.stdin.write(view):]
            except BrokenPipeError:
                # It found an end before there was one, or damage: its status tells.
                continue

    def read(self, size):
        """The next piece; b'' at the end."""
        data = self._programs[0].stdout.read(size)
        self._size += len(data)
        if data:
            if self._size > self._header.size:
                raise errors.BadRequest(DAMAGED)
            return data
        self._feeder.join()
        if self._error is not None:
            raise self._error
        if any(program.wait() for program in self._programs) or self._size != self._header.size:
            raise errors.BadRequest(DAMAGED)
        return b''

    def _kill(self):
        for program in self._programs:
            if program.poll() is None:
                program.kill()

    def close(self):
        """End the programs."""
        self._timer.cancel()
        self._kill()
        self._feeder.join()
        for program in self._programs:
            program.wait()
        self._programs[0].stdout.close()
