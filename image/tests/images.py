"""Small disk images, good and hostile, made of their specifications."""
import struct


def qcow2(size=1 << 30, version=3, backing=0, features=0, cluster_bits=16, l1_entries=2, l1_offset=0x30000, encryption=0,
          refcount_offset=0x10000, refcount_clusters=1, snapshots=0, length=0x30010):
    """The header of a qcow2, padded to ``length``."""
    header = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', version, backing, 8 if backing else 0, cluster_bits, size, encryption,
                         l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots, 0)
    if version == 3:
        header += struct.pack('>QQQII', features, 0, 0, 4, 104)
    return header.ljust(length, b'\0')


def vmdk(kind='streamOptimized', extent='RW 2048 SPARSE "disk.vmdk"', sectors=2048, descriptor_sector=1, extra='', length=8192):
    """A hosted sparse extent with its descriptor."""
    header = struct.pack('<4sIIQQQQIQQ', b'KDMV', 3, 3, sectors, 128, descriptor_sector, 8, 512, 0, 21)
    text = vmdk_text(extent, kind).decode() + extra + 'ddb.adapterType = "ide"\n'
    return (header.ljust(512, b'\0') + text.encode().ljust(4096, b'\0')).ljust(length, b'\0')


def vmdk_text(extent='RW 2048 FLAT "/etc/passwd" 0', kind='monolithicFlat'):
    """A descriptor without its extents."""
    return f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\n{extent}\n'.encode()


def vhd(size=1 << 20):
    """The footer's copy at the beginning of a dynamic VHD."""
    return b'conectix'.ljust(40, b'\0') + struct.pack('>Q', size) + b'\0' * 4096


def vdi(size=1 << 20):
    """The header of a VDI."""
    header = bytearray(4096)
    header[:8] = b'<<< Orac'
    struct.pack_into('<I', header, 0x40, 0xbeda107f)
    struct.pack_into('<Q', header, 0x170, size)
    return bytes(header)


def iso(blocks=100):
    """The primary volume descriptor of an ISO 9660 file system."""
    volume = bytearray(2048)
    volume[:7] = b'\x01CD001\x01'
    struct.pack_into('<L', volume, 80, blocks)
    struct.pack_into('<H', volume, 128, 2048)
    return b'\0' * 32768 + bytes(volume) + b'\0' * 4096


def mbr(partitions=1):
    """A disk with a master boot record."""
    sector = bytearray(512)
    for index in range(partitions):
        struct.pack_into('<B3BB3BII', sector, 446 + 16 * index, 0x80, 0, 2, 0, 0x83, 0, 3, 0, 1, 100)
    sector[510:] = b'\x55\xaa'
    return bytes(sector) + b'\0' * 65536


def qed():
    """A QED header."""
    return b'QED\0' + b'\0' * 4096


def over(first, second):
    """``first`` laid over the beginning of ``second``."""
    return first + second[len(first):]
