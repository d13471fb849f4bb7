"""Data that comes packed: gzip, LHA and zip archives with one file, an OVA. Read as a stream: no name in it ever becomes a path. An
archive that names other places, or holds links, is refused all the same: it was not made to hold a disk.

What comes out is bounded: a file may not grow without end out of little (:func:`bound`).
"""
import re
import stat
import struct
import tarfile
import zlib

from kodiak.common import errors

from . import archives, lha

#: What may come out of any archive, and how many times its size may come out of a larger one.
FREE, RATIO = 1 << 30, 200
GZIP, ZIP = b'\x1f\x8b\x08', b'PK\x03\x04'


def kind(begins):
    """``gzip``, ``lha``, ``zip`` or None, by the first bytes of data."""
    if lha.begins(begins):
        return 'lha'
    return 'gzip' if begins.startswith(GZIP) else 'zip' if begins.startswith(ZIP) else None


def bound(size, limit):
    """How many bytes may come out of packed data of a size."""
    return min(limit, max(FREE, RATIO * size))


class Gzip(archives.Reader):
    """The content of gzip data, of several members if need be."""

    def __init__(self, read):
        self._input = archives.Input(read)
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._ended = False

    def read(self, size):
        """The next piece; b'' at the end."""
        while True:
            try:
                if self._inflate.unconsumed_tail and not self._inflate.eof:
                    data = self._inflate.decompress(self._inflate.unconsumed_tail, size)
                else:
                    packed = b'' if self._ended else self._input.read(archives.PIECE)
                    if not packed:
                        if not self._inflate.eof and not self._ended:
                            raise errors.BadRequest('The gzip data ends too early.')
                        return b''
                    data = self._inflate.decompress(packed, size)
            except zlib.error as error:
                raise errors.BadRequest(f'The gzip data is damaged: {error}.') from None
            if self._inflate.eof:
                self._next()
            if data:
                return data

    def _next(self):
        rest = self._inflate.unused_data
        while len(rest) < 2 and (more := self._input.read(archives.PIECE)):
            rest += more
        if rest.startswith(GZIP[:2]):
            self._input.back(rest)
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            # Anything else behind a member is padding, as tapes have it.
            self._ended = True


class Zip(archives.Reader):
    """The only file of a zip archive."""

    _HEADER = struct.Struct('<4sHHHHHIIIHH')
    #: How much is read behind the file: a descriptor, and what the directory says of the file.
    _BEHIND = 24 + 46

    def __init__(self, read):
        self._input = archives.Input(read)
        (magic, _, flags, self._method, _, _, crc, packed, size, name, extra) = self._HEADER.unpack(
            self._input.exactly(self._HEADER.size))
        name = self._input.exactly(name)
        more = self._input.exactly(extra)
        self._described = bool(flags & 8)
        if magic != ZIP or flags & 0x2041:
            raise errors.BadRequest('The zip archive is encrypted or damaged.')
        archives.check_name(name.decode(errors='replace'), 'zip archive')
        if self._method not in (0, 8) or (self._method == 0 and self._described):
            raise errors.BadRequest('The zip archive is packed in a way that is not supported.')
        self._crc = None if self._described else crc
        self._left = self._long(packed, size, more) if self._method == 0 else None
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._sum = 0
        self._ended = False

    @staticmethod
    def _long(packed, size, extra):
        if packed != 0xffffffff:
            return packed
        while len(extra) >= 4:
            tag, length = struct.unpack('<HH', extra[:4])
            if tag == 1 and length >= 16:
                return struct.unpack('<Q', extra[12:20])[0]
            extra = extra[4 + length:]
        raise errors.BadRequest('The zip archive is damaged.')

    def read(self, size):
        """The next piece; b'' at the end."""
        if self._ended:
            return b''
        data = self._stored(size) if self._method == 0 else self._inflated(size)
        self._sum = zlib.crc32(data, self._sum)
        if not data:
            self._end()
        return data

    def _stored(self, size):
        data = self._input.read(min(size, self._left)) if self._left else b''
        if self._left and not data:
            raise errors.BadRequest('The zip archive ends too early.')
        self._left -= len(data)
        return data

    def _inflated(self, size):
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._input.read(archives.PIECE)
            if not packed:
                raise errors.BadRequest('The zip archive ends too early.')
            try:
                data = self._inflate.decompress(packed, size)
            except zlib.error as error:
                raise errors.BadRequest(f'The zip archive is damaged: {error}.') from None
            if data:
                return data
        return b''

    def _end(self):
        self._ended = True
        self._input.back(self._inflate.unused_data)
        following = b''
        while len(following) < self._BEHIND and (data := self._input.read(self._BEHIND - len(following))):
            following += data
        crc = self._crc
        if self._described:
            # A descriptor of 12 to 24 bytes, with or without a signature, and then the directory.
            signed = following.startswith(b'PK\x07\x08')
            crc = struct.unpack('<I', following[4 if signed else 0:][:4].ljust(4, b'\0'))[0]
            following = following[following.find(b'PK\x01\x02'):] if b'PK\x01\x02' in following else b''
        if crc != self._sum:
            raise errors.BadRequest('The zip archive is damaged: its checksum does not fit.')
        if not following.startswith(b'PK\x01\x02'):
            raise errors.BadRequest('The zip archive must hold one file.')
        made_on, mode = following[5:6], int.from_bytes(following[40:42], 'little')
        if made_on == b'\3' and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise errors.BadRequest('The zip archive holds something that is not a file.')


class _Ending(archives.Input):
    """A source that is not read on and on behind its end: a header may claim to be followed by more than there is."""

    _behind = 0

    def read(self, size):
        data = super().read(size)
        if not data:
            self._behind += 1
            if self._behind > 2:
                raise errors.BadRequest('The OVA ends too early.')
        return data


class _Member(tarfile.TarInfo):
    """A member of an archive whose extended headers, which are read into memory, have a bound."""

    HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

    def _proc_member(self, archive):
        if self.type in self.HEADERS and self.size > 1 << 16:
            raise tarfile.ReadError('an extended header is too long')
        return super()._proc_member(archive)


class Ova(archives.Reader):
    """The only disk of an OVA: its first VMDK."""

    MEMBERS = 1000

    def __init__(self, read):
        self._source = _Ending(read)
        try:
            self._archive = tarfile.open(  # noqa: SIM115 (read to its end)
                fileobj=self._source, mode='r|', bufsize=64 * 512, tarinfo=_Member)
            self._members = iter(self._archive)
            self._disk = self._find()
        except (tarfile.TarError, ValueError, OSError) as error:
            raise errors.BadRequest(f'The OVA is damaged: {error}') from None
        if self._disk is None:
            raise errors.BadRequest('The OVA holds no disk of the format VMDK.')

    def _find(self):
        for member in self._members:
            if len(self._archive.members) > self.MEMBERS:
                raise errors.BadRequest(f'The OVA holds more than {self.MEMBERS} files.')
            if not (member.isreg() or member.isdir()):
                raise errors.BadRequest(f'The OVA holds a link or a device ({member.name[:80]!r}), which is not accepted.')
            archives.check_name(member.name, 'OVA')
            if member.isreg() and re.search(r'\.vmdk$', member.name, re.I):
                return self._archive.extractfile(member)
        return None

    def read(self, size):
        """The next piece; b'' at the end."""
        try:
            data = self._disk.read(size)
            if not data and self._find() is not None:
                raise errors.BadRequest('The OVA holds several disks; an image is one.')
        except (tarfile.TarError, ValueError, OSError) as error:
            raise errors.BadRequest(f'The OVA is damaged: {error}') from None
        return data


READERS = {'gzip': Gzip, 'lha': lha.Lha, 'ova': Ova, 'zip': Zip}
