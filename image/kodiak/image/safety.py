"""What the inspectors of oslo.utils don't look at: tables that are absurd, and ways to refer to other files.

Each check takes an inspector that has seen the whole image, the image's first bytes and its size, and raises ``BadRequest``.
"""
import struct
import uuid

from oslo_utils.imageutils import format_inspector

from kodiak.common import errors

#: How many of the first bytes the checks need.
BEGINS = 2048
#: QEMU's own limits of a qcow2.
QCOW2_L1_BYTES = 32 << 20
QCOW2_REFCOUNT_BYTES = 8 << 20
QCOW2_SNAPSHOTS = 65536
_QCOW2 = struct.Struct('>4sIQIIQIIQQIIQ')
_DYNAMIC, _DIFFERENCING = 3, 4
#: The parts of a VHDX, as they are named in the file: where its parent is, the size of its blocks, where they lie.
_PARENT_LOCATOR, _PARAMETERS, _BLOCKS = (uuid.UUID(text).bytes_le for text in (
    'a8d35f2d-b30b-454d-abf7-d3d84834ab0c', 'caa16737-fa36-4d43-b3b6-33f0aa44e76b', '2dc27766-f623-4200-9d64-115e9bfd4a08'))
#: What the format allows: a disk, a block. A table of blocks is read into memory.
VHDX_DISK, VHDX_BLOCK, VHDX_TABLE_BYTES = 64 << 40, (1 << 20, 256 << 20), 512 << 20


def check(name, inspector, begins, size):
    """``BadRequest`` for an image of a format that no emulator should be given."""
    look = CHECKS.get(name)
    problems = look(inspector, begins, size) if look else None
    if problems:
        raise errors.BadRequest(f"The data is an unsafe {name} image: {'; '.join(problems)}.")


def _qcow2(inspector, begins, size):
    """Tables that no image needs, or that lie outside of the data: an emulator would allocate memory for them."""
    (_, version, _, _, cluster_bits, virtual, encryption, l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots,
     _) = _QCOW2.unpack(begins[:_QCOW2.size])
    cluster = 1 << min(cluster_bits, 63)
    problems = []
    if not 9 <= cluster_bits <= 21:
        problems.append('its cluster size is impossible')
    elif l1_entries * cluster * (cluster // 8) < virtual:
        problems.append('its L1 table is too small for its size')
    if l1_entries * 8 > QCOW2_L1_BYTES or l1_offset + l1_entries * 8 > size:
        problems.append('its L1 table is too large')
    if refcount_clusters * cluster > QCOW2_REFCOUNT_BYTES or refcount_offset + 8 > size:
        problems.append('its refcount table is too large')
    if snapshots > QCOW2_SNAPSHOTS:
        problems.append('it has too many snapshots')
    if encryption not in (0, 2):
        problems.append('it is encrypted in a way that is not supported')
    if version == 3 and int.from_bytes(begins[96:100], 'big') > 6:
        problems.append('its refcounts are impossible')
    return problems


def _vmdk(inspector, begins, size):
    """A descriptor that emulators read otherwise than the inspector, or that names a parent.

    An emulator that finds no capacity in the header takes the descriptor for one of other files; it looks for its words with
    regard to their case, and for the parent's name wherever it stands.
    """
    fields = [line.partition('=') for line in map(str.strip, inspector.desc_text.split('\n')) if '=' in line and line[0] != '#']
    values = {name.strip(): value.strip() for name, _, value in fields}
    extents = [line.split() for line in map(str.strip, inspector.desc_text.split('\n'))
               if line.startswith(('rw ', 'rdonly ', 'noaccess '))]
    problems = []
    if 'parentfilenamehint' in inspector.desc_text or values.get('parentcid', 'ffffffff').strip('"') != 'ffffffff':
        problems.append('it has a parent')
    if inspector.desc_text.count('createtype') != 1:
        problems.append('its descriptor has several types')
    if len(extents) != 1 or len(extents[0]) < 3 or extents[0][2] != 'sparse':
        problems.append('its extents are not one that is in the data itself')
    capacities = [begins[12:20]]
    if inspector.has_region('footer'):
        capacities.append(bytes(inspector.region('footer').data)[524:532])
    if not any(capacities[0]) or len(set(capacities)) > 1:
        problems.append('its capacity is impossible')
    return problems


def _vhd(inspector, begins, size):
    kind, = struct.unpack('>I', begins[60:64])
    if kind == _DIFFERENCING:
        return ['it has a parent']
    if kind != _DYNAMIC or begins[16:24] != struct.pack('>Q', 512) or begins[512:520] != b'cxsparse':
        return ['it is not a dynamic disk']
    table, _, entries, block = struct.unpack('>QIII', begins[528:548])
    virtual, = struct.unpack('>Q', begins[48:56])
    problems = []
    if table + entries * 4 > size:
        problems.append('its block table is too large')
    if not 512 <= block <= 1 << 30 or block & (block - 1) or entries * block < virtual:
        problems.append('its block table does not fit its size')
    return problems


def _entries(table, first):
    """The entries of a table of a VHDX, of 32 bytes each: ``{name: what follows it}``."""
    return {table[offset:offset + 16]: table[offset + 16:offset + 32] for offset in range(first, len(table) - 31, 32)}


class Vhdx(format_inspector.VHDXInspector):
    """Keeps the parameters of a VHDX too."""

    def post_process(self):
        super().post_process()
        if self.has_region('vds') and not self.has_region('parameters'):
            table = self.region('metadata')
            entry = _entries(bytes(table.data), 32).get(_PARAMETERS)
            offset = struct.unpack('<I', entry[:4])[0] if entry else 0
            self.new_region('parameters', format_inspector.CaptureRegion(table.offset + offset, 8))


def _vhdx(inspector, begins, size):
    if not inspector.has_region('metadata') or not inspector.has_region('vds'):
        return ['it does not say how large its disk is']
    problems = []
    items = _entries(bytes(inspector.region('metadata').data), 32)
    block, flags = struct.unpack('<II', inspector.region('parameters').data) if inspector.region('parameters').complete else (0, 0)
    if _PARENT_LOCATOR in items or flags & 2:
        problems.append('it has a parent')
    if _PARAMETERS not in items or not VHDX_BLOCK[0] <= block <= VHDX_BLOCK[1] or block & (block - 1):
        return [*problems, 'its block size is impossible']
    virtual = inspector.virtual_size
    if not 0 < virtual <= VHDX_DISK or virtual % 512:
        return [*problems, 'its size is impossible']
    table, length = struct.unpack('<QI', _entries(bytes(inspector.region('header').data), 16).get(_BLOCKS, bytes(16))[:12])
    if not length or length > VHDX_TABLE_BYTES or table + length > size:
        problems.append('its block table is missing or too large')
    elif length // 8 < -(-virtual // block):
        problems.append('its block table does not fit its size')
    return problems


def _vdi(inspector, begins, size):
    kind, = struct.unpack('<I', begins[0x4c:0x50])
    table, = struct.unpack('<I', begins[0x154:0x158])
    virtual, block, _, blocks = struct.unpack('<QIII', begins[0x170:0x184])
    problems = []
    if kind not in (1, 2) or any(begins[0x1a8:0x1c8]):
        problems.append('it has a parent, or is of an unknown kind')
    if table + blocks * 4 > size:
        problems.append('its block table is too large')
    if not block or blocks * block < virtual:
        problems.append('its block table does not fit its size')
    return problems


CHECKS = {'qcow2': _qcow2, 'vmdk': _vmdk, 'vhd': _vhd, 'vhdx': _vhdx, 'vdi': _vdi}


def fixed_vhd(ends, size):
    """The size of the disk in a fixed VHD, which is a disk with a footer and nothing before it, by its last bytes; else None."""
    if not ends.startswith(b'conectix') or ends[60:64] != b'\0\0\0\2':
        return None
    virtual, = struct.unpack('>Q', ends[48:56])
    return virtual if virtual == size - 512 else None
