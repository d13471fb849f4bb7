"""Small disk images, good and hostile, made of their specifications."""
import struct
import uuid


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


def vhd(size=1 << 20, kind=3, entries=None, block=1 << 21, table=1536, length=4608, magic=b'cxsparse'):
    """A dynamic VHD: its footer's copy, the header of its table, the table, and its footer."""
    footer = (b'conectix' + struct.pack('>IIQ', 2, 0x10000, 512)).ljust(40, b'\0')
    footer = (footer + struct.pack('>QQII', size, size, 0, kind)).ljust(512, b'\0')
    dynamic = magic + struct.pack('>QQIII', 2 ** 64 - 1, table, 0x10000, entries or -(-size // block), block)
    return (footer + dynamic.ljust(1024, b'\0')).ljust(length - 512, b'\xff') + footer


def fixed_vhd(size=1 << 20, kind=2):
    """A disk with the footer of a fixed VHD behind it."""
    footer = (b'conectix' + struct.pack('>IIQ', 2, 0x10000, 2 ** 64 - 1)).ljust(40, b'\0')
    return bytes(size) + (footer + struct.pack('>QQII', size, size, 0, kind)).ljust(512, b'\0')


def vdi(size=1 << 20, kind=1, blocks=None, block=1 << 20, parent=b'', table=512):
    """The header of a VDI."""
    header = bytearray(4096)
    header[:8] = b'<<< Orac'
    struct.pack_into('<IIII', header, 0x40, 0xbeda107f, 0x10001, 0x190, kind)
    struct.pack_into('<I', header, 0x154, table)
    struct.pack_into('<QIII', header, 0x170, size, block, 0, min(-(-size // block), 0xffffffff) if blocks is None else blocks)
    header[0x1b8:0x1b8 + len(parent)] = parent
    return bytes(header)


VHDX = {name: uuid.UUID(text).bytes_le for name, text in {
    'metadata': '8B7CA206-4790-4B9A-B8FE-575F050F886E', 'size': '2FA54224-CD1B-4876-B211-5DBED83BF4B8',
    'parameters': 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B', 'blocks': '2DC27766-F623-4200-9D64-115E9BFD4A08',
    'parent': 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C'}.items()}


def vhdx(size=1 << 20, parent=False, items=2, block=1 << 20, flags=0, table=0x100000, table_bytes=0x100000, regions=2,
         metadata=0x200000):
    """The tables of a VHDX; ``items`` and ``regions``: how many entries the tables of metadata and of regions claim to have."""
    data = bytearray(0x220000)
    data[:8] = b'vhdxfile'
    struct.pack_into('<4sIII', data, 0x30000, b'regi', 0, regions, 0)
    for place, (name, offset, length) in enumerate((('metadata', metadata, 0x10000), ('blocks', table, table_bytes))):
        struct.pack_into('<16sQII', data, 0x30010 + 32 * place, VHDX[name], offset, length, 1)
    struct.pack_into('<8sHH', data, 0x200000, b'metadata', 0, items + parent)
    for index, (name, offset) in enumerate([('parameters', 0x10008), ('size', 0x10000), ('parent', 0x10010)][:2 + parent]):
        struct.pack_into('<16sIII', data, 0x200020 + 32 * index, VHDX[name], offset, 8, 4)
    struct.pack_into('<QII', data, 0x210000, size, block, flags)
    return bytes(data)


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


def crc16(data):
    """The checksum of LHA."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xa001 if value & 1 else 0)
    return value


def lha(data, name=b'disk.img', level=0, method=b'-lh0-', size=None, crc=None, extended=()):
    """An LHA archive of one file, by default as it is.

    :param data: as it stands in the archive. :param size: and ``crc``: of what it becomes, if that is something else.
    :param extended: further headers ``(kind, value)``, from level 1 on.
    """
    size, crc = len(data) if size is None else size, crc16(data) if crc is None else crc
    if level == 2:
        # The last word of each header is the length of the next.
        parts = [bytes([1]) + name, *(bytes([kind]) + value for kind, value in extended)]
        lengths = [len(part) + 2 for part in parts] + [0]
        further = struct.pack('<H', lengths[0]) + b''.join(
            part + struct.pack('<H', lengths[index + 1]) for index, part in enumerate(parts))
        total = 24 + len(further)
        # A length whose low byte is zero would be taken for the end of the archive.
        pad = b'' if total % 256 else b'\0'
        header = struct.pack('<H5sIIIBBHB', total + len(pad), method, len(data), size, 0, 0x20, 2, crc, 0x55) + further + pad
    else:
        parts = [bytes([kind]) + value for kind, value in extended] if level else []
        lengths = [len(part) + 2 for part in parts] + [0]
        further = b''.join(part + struct.pack('<H', lengths[index + 1]) for index, part in enumerate(parts))
        base = struct.pack('<5sIIIBB', method, len(data) + len(further), size, 0, 0x20, level) + bytes([len(name)]) + name
        base += struct.pack('<H', crc) + (b'U' + struct.pack('<H', lengths[0]) if level else b'')
        header = bytes([len(base), sum(base) & 255]) + base + further
    return header + data + b'\0'


def lha_bomb(size, **more):
    """An archive that becomes ``size`` spaces: 16 MiB come of seven bytes."""
    bits, codes = '', size // 256
    while codes:
        count = min(codes, 65535)
        # One code for everything, of no bits: repeat 256 bytes from one byte back. Before the beginning there are spaces.
        bits += f'{count:016b}' + '00000' + '00000' + '000000000' + f'{509:09b}' + '0000' + '0000'
        codes -= count
    bits += '0' * (-len(bits) % 8) + '0' * 64
    data = int(bits, 2).to_bytes(len(bits) // 8, 'big')
    return lha(data, method=b'-lh5-', size=size, crc=crc16(b' ' * size) if size <= 1 << 16 else 0, **more)
