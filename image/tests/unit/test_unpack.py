import contextlib
import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
import zlib

import pytest

from kodiak.common import errors, testing
from kodiak.image import lha, unpack

images = testing.module(__file__, 'images')
needs_lhasa = pytest.mark.skipif(not (shutil.which('lhasa') and shutil.which('prlimit')), reason='lhasa or prlimit is missing')

DATA = random.Random(1).randbytes(300000) + bytes(500000)


def all_of(reader, size=65536):
    parts = []
    while data := reader.read(size):
        assert len(data) <= size
        parts.append(data)
    return b''.join(parts)


class Slow:
    """Gives a few bytes at a time."""

    def __init__(self, data, piece=None):
        self.file, self.piece = io.BytesIO(data), piece

    def read(self, size):
        return self.file.read(min(size, self.piece or size))


def zipped(names=('disk.img',), method=zipfile.ZIP_DEFLATED, data=DATA, stream=False, zip64=False, mode=0):
    target = io.BytesIO()

    class Unseekable(io.RawIOBase):
        def writable(self):
            return True

        def write(self, piece):
            return target.write(piece)
    with zipfile.ZipFile(Unseekable() if stream else target, 'w', method) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr, info.create_system = method, mode << 16, 3
            with archive.open(info, 'w', force_zip64=zip64) as file:
                file.write(data)
    return target.getvalue()


def ova(names=('box.ovf', 'box.vmdk'), data=DATA, kind=tarfile.REGTYPE):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w') as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.type = (len(data), kind) if kind == tarfile.REGTYPE else (0, kind)
            info.linkname = '/etc/passwd' if kind != tarfile.REGTYPE else ''
            archive.addfile(info, io.BytesIO(data) if kind == tarfile.REGTYPE else None)
    return target.getvalue()


@pytest.mark.parametrize('piece', [None, 1000, 37])
@pytest.mark.parametrize(('name', 'packed'), [
    ('gzip', gzip.compress(DATA)), ('gzip', gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:])),
    ('gzip', gzip.compress(DATA) + bytes(512)), ('zip', zipped()), ('zip', zipped(method=zipfile.ZIP_STORED)),
    ('zip', zipped(stream=True)), ('zip', zipped(zip64=True)), ('zip', zipped(names=('box/disk..img',))),
    ('ova', ova()), ('ova', ova(names=('./box/x.VMDK',))),
])
def test_what_is_packed_comes_out(name, packed, piece):
    if name != 'ova':
        assert unpack.kind(packed[:64]) == name
    assert all_of(unpack.READERS[name](Slow(packed, piece).read)) == DATA


LHA = images.lha(DATA)


@needs_lhasa
@pytest.mark.parametrize('piece', [None, 1000])
@pytest.mark.parametrize('packed', [
    LHA, LHA[:-1], images.lha(DATA, level=1), images.lha(DATA, level=2),
    images.lha(DATA, level=1, name=b'', extended=[(1, b'disk'), (2, b'box\xffdisks\xff'), (0x50, b'\xa4\x81'), (0x54, bytes(4))]),
    images.lha(DATA, level=2, extended=[(2, b'box\xff'), (0x40, b' \0')]),
])
def test_lha(packed, piece):
    assert unpack.kind(packed[:64]) == 'lha'
    reader = lha.Lha(Slow(packed, piece).read)
    assert all_of(reader) == DATA
    reader.close()


@needs_lhasa
def test_lha_that_is_packed():
    reader = lha.Lha(io.BytesIO(images.lha_bomb(1 << 16)).read)
    assert all_of(reader) == b' ' * (1 << 16)
    reader.close()
    # Whoever has enough of it closes it.
    reader = lha.Lha(io.BytesIO(images.lha_bomb(1 << 30)).read)
    assert reader.read(5) == b' ' * 5
    reader.close()
    assert all(program.returncode is not None for program in reader._programs)


@needs_lhasa
@pytest.mark.parametrize('packed', [
    b'', LHA[:15], LHA[:30], LHA[:5000], LHA[:-1] + LHA, LHA.replace(DATA[:100], bytes(100)), images.lha(DATA, size=5),
    images.lha(DATA, size=1 << 31), images.lha(b'x', method=b'-lhd-'), images.lha(b'x', name=b'../../etc/passwd'),
    images.lha(b'x', name=b'/etc/passwd'), images.lha(b'x', name=b'..\\x'), images.lha(b'x', name=b'c:x'),
    images.lha(b'x', name=b''),
    images.lha(b'x', level=1, extended=[(2, b'..\xff..\xff')]), images.lha(b'x', level=2, extended=[(2, b'\xffetc\xff')]),
    images.lha(b'x', level=1, extended=[(0x50, b'\xff\xa1')]), images.lha(b'x', level=1, extended=[(0x42, bytes(16))]),
    images.lha(b'x', level=1, extended=[(0x40, bytes(9000))]), images.lha(DATA, method=b'-lh5-'), images.lha(DATA, method=b'-lh7-'),
    images.lha(b'x', level=1, extended=[(1, bytes(5))])[:30] + b'\1\0' * 50,
])
def test_lha_that_is_damaged_or_more_than_a_file(packed):
    with pytest.raises(errors.BadRequest, match=r'LHA|too early|packed data'):
        reader = lha.Lha(io.BytesIO(packed).read)
        try:
            all_of(reader)
        finally:
            reader.close()


def test_lha_where_there_is_no_program(monkeypatch):
    monkeypatch.setenv('PATH', '/nonexistent')
    with pytest.raises(errors.BadRequest, match='lhasa is not installed'):
        lha.Lha(io.BytesIO(LHA).read)


def test_a_source_that_breaks_off_is_told_of():
    if not shutil.which('lhasa'):
        pytest.skip('lhasa is missing')

    class Broken(Slow):
        def read(self, size):
            if self.file.tell() > 50000:
                raise errors.Unavailable('gone')
            return super().read(size)
    reader = lha.Lha(Broken(LHA, 1000).read)
    with pytest.raises(errors.Unavailable, match='gone'):
        all_of(reader)
    reader.close()


@pytest.mark.parametrize(('name', 'packed'), [
    ('gzip', gzip.compress(DATA)[:-9]), ('gzip', gzip.compress(DATA)[:1000]), ('gzip', b'\x1f\x8b\x08' + bytes(100)),
    ('zip', zipped(names=('a', 'b'))), ('zip', zipped()[:5000]), ('zip', zipped()[:20]), ('zip', zipped(method=zipfile.ZIP_BZIP2)),
    ('zip', zipped(method=zipfile.ZIP_STORED).replace(DATA[:100], bytes(100))),
    ('ova', ova(names=('a.vmdk', 'b.vmdk'))), ('ova', ova(names=('a.ovf',))), ('ova', ova()[:2000]), ('ova', b'x' * 10240),
    ('ova', ova(kind=tarfile.SYMTYPE)), ('ova', b''), ('ova', ova(kind=tarfile.LNKTYPE)), ('ova', ova(kind=tarfile.CHRTYPE)),
    ('ova', ova(names=('../../etc/x.vmdk',))), ('ova', ova(names=('/etc/x.vmdk',))),
    ('zip', zipped(names=('../../../../etc/passwd',))), ('zip', zipped(names=('/etc/passwd',))),
    ('zip', zipped(names=('..\\x',))), ('zip', zipped(names=('c:x',))), ('zip', zipped(mode=stat.S_IFLNK | 0o777)),
])
def test_what_is_damaged_or_more_than_one_is_refused(name, packed):
    with pytest.raises(errors.BadRequest):
        all_of(unpack.READERS[name](io.BytesIO(packed).read))


def test_a_header_that_claims_too_much_does_not_keep_us_busy():
    data = bytearray(ova(names=('box.ovf',)))
    data[124:136] = b'\x80' + (1 << 60).to_bytes(11, 'big')
    data[148:156] = b' ' * 8
    data[148:156] = b'%06o\0 ' % sum(data[:512])
    with pytest.raises(errors.BadRequest):
        unpack.Ova(io.BytesIO(bytes(data)).read)


def test_headers_and_members_of_an_ova_have_bounds(monkeypatch):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode='w', format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo('x' * 100000))
    with pytest.raises(errors.BadRequest, match='too long'):
        unpack.Ova(io.BytesIO(target.getvalue()).read)
    monkeypatch.setattr(unpack.Ova, 'MEMBERS', 5)
    with pytest.raises(errors.BadRequest, match='more than 5'):
        unpack.Ova(io.BytesIO(ova(names=[str(n) for n in range(9)], data=b'x')).read)


def test_encrypted_archives_are_refused():
    data = bytearray(zipped())
    data[6] |= 1
    with pytest.raises(errors.BadRequest, match='encrypted'):
        unpack.Zip(io.BytesIO(bytes(data)).read)


def test_nothing_breaks_the_readers():
    chance = random.Random(2)
    for name, seed in (('gzip', gzip.compress(DATA[:20000])), ('zip', zipped(data=DATA[:20000])), ('ova', ova(data=DATA[:20000])),
                       ('zip', zipped(data=DATA[:20000], stream=True)), ('lha', images.lha(DATA[:20000], level=1))):
        if name == 'lha' and not shutil.which('lhasa'):
            continue
        for _ in range(60 if name == 'lha' else 150):
            data = bytearray(seed)
            for _ in range(chance.randrange(1, 10)):
                data[chance.randrange(chance.choice((60, len(data))))] = chance.randrange(256)
            try:
                with contextlib.closing(unpack.READERS[name](io.BytesIO(
                        bytes(data[:chance.choice((len(data), 500, 15000))])).read)) as reader:
                    all_of(reader)
            except errors.BadRequest:
                pass


def test_a_bomb_comes_out_in_small_pieces():
    packed = zlib.compress(bytes(64 << 20), 9, 16 + zlib.MAX_WBITS)
    reader = unpack.Gzip(io.BytesIO(packed).read)
    assert len(reader.read(1000)) <= 1000
    assert unpack.bound(len(packed), 1 << 40) == unpack.FREE and unpack.bound(1 << 30, 1 << 40) == 200 << 30
    assert unpack.bound(1 << 30, 1000) == 1000
