import gzip
import io
import random
import stat
import tarfile
import zipfile
import zlib

import pytest

from kodiak.common import errors
from kodiak.image import unpack

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
                       ('zip', zipped(data=DATA[:20000], stream=True))):
        for _ in range(150):
            data = bytearray(seed)
            for _ in range(chance.randrange(1, 10)):
                data[chance.randrange(chance.choice((60, len(data))))] = chance.randrange(256)
            try:
                all_of(unpack.READERS[name](io.BytesIO(bytes(data[:chance.choice((len(data), 500, 15000))])).read))
            except errors.BadRequest:
                pass


def test_a_bomb_comes_out_in_small_pieces():
    packed = zlib.compress(bytes(64 << 20), 9, 16 + zlib.MAX_WBITS)
    reader = unpack.Gzip(io.BytesIO(packed).read)
    assert len(reader.read(1000)) <= 1000
    assert unpack.bound(len(packed), 1 << 40) == unpack.FREE and unpack.bound(1 << 30, 1 << 40) == 200 << 30
    assert unpack.bound(1 << 30, 1000) == 1000
