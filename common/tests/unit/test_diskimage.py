"""What a disk image is, by its headers."""
import struct

import pytest

from kodiak.common import diskimage


def qcow2(backing=b''):
    head = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', 2, 512 if backing else 0, len(backing), 16, 1 << 20, 0, 1, 1 << 16, 2 << 16,
                       1, 0, 0)
    return (head.ljust(512, b'\0') + backing).ljust(1 << 18, b'\0')


@pytest.mark.parametrize('said,data,found', [
    ('raw', bytes(4096), 'raw'), ('ami', bytes(4096), 'raw'), ('qcow2', qcow2(), 'qcow2'),
    # A whole disk with its partition table.
    ('raw', bytes(446) + b'\x80\x01\x01\0\x83\xfe\xff\xff' + bytes(56) + b'\x55\xaa' + bytes(4096), 'raw')])
def test_what_it_says_it_is(tmp_path, said, data, found):
    (tmp_path / 'data').write_bytes(data)
    assert diskimage.judge(tmp_path / 'data', said) == found


@pytest.mark.parametrize('said,data,why', [
    ('raw', qcow2(), 'its data is qcow2'), ('qcow2', bytes(4096), 'its data is raw'),
    ('docker', bytes(4096), "'docker' cannot be used"),
    ('qcow2', qcow2(b'/etc/shadow'), 'not safe to use'), ('raw', b'LUKS\xba\xbe\0\1' + bytes(1 << 16), 'its data is luks')])
def test_what_it_is_not(tmp_path, said, data, why):
    (tmp_path / 'data').write_bytes(data)
    with pytest.raises(diskimage.Refused, match=why):
        diskimage.judge(tmp_path / 'data', said)


def test_a_luks_container_where_that_is_expected(tmp_path):
    (tmp_path / 'data').write_bytes(b'LUKS\xba\xbe\0\1' + bytes(1 << 16))
    assert diskimage.judge(tmp_path / 'data', 'raw', (*diskimage.RAW, 'luks')) == 'raw'
